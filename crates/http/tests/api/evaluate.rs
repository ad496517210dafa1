//! Accuracy on labelled comparisons that come with the request: nothing of them stays.

use polyreward_domain::TenantId;
use polyreward_http::Limits;
use serde_json::{Value, json};

use crate::{
    examples::{example, learn},
    fixture::{Server, chat_backbone},
    people::{TEXTS, body, numbers},
};

fn labelled(user_id: &str, country: Option<&str>, chosen: &str, rejected: &str) -> Value {
    let mut comparison = example(chosen, rejected);
    comparison["user_id"] = json!(user_id);
    if let Some(country) = country {
        comparison["attributes"] = json!({"country": country});
    }
    comparison
}

async fn evaluate(server: &Server, model: &str, comparisons: &[Value]) -> Value {
    let body = json!({"model": model, "group_by": ["country"], "comparisons": comparisons});
    server.post("/evaluate", &body).await.ok()
}

/// People who prefer each text to the next one, or the other way round, and are not known here.
fn strangers() -> Vec<Value> {
    let of = |person: u32| {
        let is_even = person.is_multiple_of(2);
        let (name, country) = (format!("town/{person}"), if is_even { "UK" } else { "US" });
        TEXTS.windows(2).map(move |pair| {
            let [a, b] = if is_even { [pair[0], pair[1]] } else { [pair[1], pair[0]] };
            labelled(&name, Some(country), a, b)
        })
    };
    (0..12).flat_map(of).collect()
}

#[tokio::test]
async fn comparisons_are_graded_by_group_and_nothing_of_them_is_stored() {
    let server = Server::with_people(Vec::new()).await;
    let moment = server.storage.moment(&TenantId::default()).await.unwrap();
    let answer = evaluate(&server, "lore", &strangers()).await;
    assert_eq!((&answer["overall"]["users"], &answer["overall"]["n"]), (&json!(12), &json!(36)));
    let groups: Vec<&Value> = answer["groups"].as_array().unwrap().iter().collect();
    assert_eq!(
        [&groups[0]["group"], &groups[1]["group"]],
        [&json!({"country": "UK"}), &json!({"country": "US"})]
    );
    // Half of them prefer the opposite of the other half, and nobody is known.
    let of = |at: usize| groups[at]["accuracy"].as_f64().unwrap();
    assert!((of(0) + of(1) - 1.0).abs() < 1e-6, "{answer}");
    assert_eq!(answer["overall"]["gain"], 0.0);
    let disagreement = &answer["disagreement"];
    assert_eq!((&disagreement["pairs"], &disagreement["judgements"]), (&json!(3), &json!(36)));
    assert!(
        disagreement["within_groups"].as_f64() > disagreement["between_groups"].as_f64(),
        "{disagreement}"
    );

    let bt = evaluate(&server, "bt", &strangers()).await;
    assert_eq!(bt["overall"]["bt_accuracy"], bt["overall"]["accuracy"]);
    assert_eq!(answer["overall"]["bt_accuracy"], bt["overall"]["accuracy"]);

    assert_eq!(server.storage.moment(&TenantId::default()).await.unwrap(), moment);
    assert_eq!(server.get("/users").await.ok()["items"], json!([]));
    assert_eq!(server.get("/accuracy?model=lore").await.ok()["overall"], Value::Null);
    assert!(!server.log.text().contains("town/7"));
}

#[tokio::test]
async fn a_known_person_is_predicted_with_what_their_examples_told_and_stands_in_their_stored_group() {
    let server = Server::with_people(Vec::new()).await;
    for pair in TEXTS.windows(2) {
        learn(&server, "ada", &[example(pair[1], pair[0])]).await;
    }
    server.put("/users/ada", &json!({"attributes": {"country": "UK"}})).await.ok();
    let asked = [labelled("ada", None, TEXTS[3], TEXTS[0]), labelled("bob", None, TEXTS[3], TEXTS[0])];
    let query = json!({"model": "lore", "group_by": ["country"], "comparisons": asked});
    let answer = server.post("/evaluate", &query).await.ok();
    let preference = async |whose: Value| {
        let mut body = body(&whose);
        body.as_object_mut().unwrap().remove("items");
        body["pairs"] = json!([{"prompt": "Name a fish.", "response_a": TEXTS[3], "response_b": TEXTS[0]}]);
        server.score(&body).await.ok()["results"][0]["preference"].as_f64().unwrap()
    };
    let (ada, bob) = (preference(json!({"user_id": "ada"})).await, preference(json!({})).await);
    assert!(ada > bob);
    let log_loss = answer["overall"]["log_loss"].as_f64().unwrap();
    assert!((log_loss + f64::midpoint(ada.ln(), bob.ln())).abs() < 1e-5, "{answer}");
    // One of the UK, one of whom no country is known: both too few to be shown.
    assert_eq!((&answer["groups"], &answer["suppressed_groups"]), (&json!([]), &json!(2)));
    let said =
        [labelled("ada", Some("UK"), TEXTS[3], TEXTS[0]), labelled("bob", Some("UK"), TEXTS[3], TEXTS[0])];
    let answer = evaluate(&server, "lore", &said).await;
    assert_eq!(answer["suppressed_groups"], 1);
    assert_eq!(numbers(&json!([answer["overall"]["log_loss"]])), [log_loss]);
}

#[tokio::test]
async fn every_wrong_part_of_the_comparisons_is_named_by_a_pointer() {
    let server = Server::with_people(Vec::new()).await;
    let good = labelled("ada", Some("UK"), TEXTS[0], TEXTS[1]);
    let mut bad = labelled("a\nb", Some("UK"), "a\0", TEXTS[1]);
    bad["strength"] = json!(11);
    let same = labelled("ada", Some("US"), TEXTS[0], TEXTS[0]);
    let body = json!({"model": "A", "group_by": ["x", "x"], "min_n": 1, "comparisons": [good, bad, same]});
    assert_eq!(
        server.post("/evaluate", &body).await.pointers(422, "invalid-input"),
        [
            "/model",
            "/group_by/1",
            "/min_n",
            "/comparisons/1/user_id",
            "/comparisons/1/chosen",
            "/comparisons/1/strength",
            "/comparisons/2/rejected",
            "/comparisons/2/attributes",
        ]
    );
    let ask = async |change: Value| {
        let mut body = json!({"comparisons": [good]});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        server.post("/evaluate", &body).await
    };
    assert_eq!(ask(json!({"comparisons": []})).await.pointers(422, "invalid-input"), ["/comparisons"]);
    assert_eq!(ask(json!({"group_by": ["a", "b", "c"]})).await.pointers(422, "invalid-input"), ["/group_by"]);
    assert_eq!(
        ask(json!({"group_by": ["country", "age"]})).await.pointers(422, "invalid-input"),
        ["/group_by/1"]
    );
    assert_eq!(ask(json!({"model": "pal-z"})).await.pointers(422, "unknown-model"), ["/model"]);
    assert_eq!(ask(json!({"colour": 1})).await.pointers(422, "invalid-input"), ["/colour"]);
    let many = vec![good.clone(); 513];
    let problem = ask(json!({"comparisons": many})).await.problem(413, "too-many-texts");
    assert_eq!(problem["limit"]["name"], "max_batch");
    ask(json!({"group_by": ["country"]})).await.ok();
}

#[tokio::test]
async fn a_text_that_the_backbone_cannot_read_is_named() {
    let server = Server::with_people_on(Vec::new(), chat_backbone(), Limits::default()).await;
    let mut bad = labelled("ada", None, TEXTS[1], TEXTS[2]);
    bad["prompt"] = json!([{"role": "stranger", "content": "Whose-secret-is-this"}]);
    let body = json!({"comparisons": [labelled("ada", None, TEXTS[0], TEXTS[1]), bad]});
    let reply = server.post("/evaluate", &body).await;
    let pointers = reply.pointers(422, "invalid-input");
    assert!(pointers.iter().all(|pointer| pointer.starts_with("/comparisons/1/")), "{pointers:?}");
    assert!(!reply.text().contains("secret"));
}
