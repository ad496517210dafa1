//! What OpenRLHF sends to `/get_reward`, and what it needs of the answer.

use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD};
use polyreward_domain::Scope;
use serde_json::{Value, json};

use super::chat_server;
use crate::{
    fixture::{Server, json_request},
    people::{TEXTS, near, numbers, people, rewards},
};

fn sample(response: &str) -> Value {
    json!({"query": [format!("Name a fish.{response}")], "prompts": ["Name a fish."], "labels": [""]})
}

#[tokio::test]
async fn a_sample_is_scored_as_the_native_route_scores_it_for_the_same_person() {
    let server = Server::with_people(people()).await;
    for (query, whose) in
        [("", json!({})), ("&user_id=ada", json!({"user_id": "ada"})), ("&user_id=nobody", json!({}))]
    {
        let native = rewards(&server, whose).await;
        for (response, native) in TEXTS.iter().zip(native) {
            let reply = server.post(&format!("/get_reward?model=lore{query}"), &sample(response)).await;
            let json = reply.ok();
            assert_eq!(reply.header("content-type"), "application/json");
            assert!(reply.header("x-model-version").starts_with("lore@"));
            assert!(near(&numbers(&json["rewards"]), &[native]), "{query} {json}");
            let score = json["scores"][0].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&score));
            assert!(json["extra_logs"]["reward_std"].is_number());
        }
    }
    let group = server.post("/get_reward?model=lore&group=country:UK", &sample(TEXTS[0])).await.ok();
    let audience = json!({"audience": {"group": {"country": "UK"}}, "model": "lore",
                          "items": [{"prompt": "Name a fish.", "responses": [TEXTS[0]]}]});
    let native = server.score(&audience).await.ok();
    assert!(near(&numbers(&group["rewards"]), &numbers(&native["results"][0]["aggregates"]["mean"])));
}

#[tokio::test]
async fn empty_lists_are_answered_with_empty_lists() {
    let server = Server::new().await;
    for body in [json!({"query": [], "prompts": [], "labels": []}), json!({"query": []})] {
        let reply = server.post("/get_reward?labels=user_id", &body).await;
        assert_eq!(reply.text(), r#"{"rewards":[],"scores":[],"extra_logs":{}}"#);
        assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, "application/json"));
    }
}

#[tokio::test]
async fn labels_carry_the_person_where_they_are_asked_to_and_nothing_else() {
    let server = Server::with_people(people()).await;
    let reward = async |query: &str, label: Value| {
        let mut body = sample(TEXTS[3]);
        body["labels"] = json!([label]);
        let json = server.post(&format!("/get_reward?model=lore{query}"), &body).await.ok();
        // The same keys on every answer, and numbers alone.
        let logs = json["extra_logs"].as_object().unwrap();
        assert!(logs.len() == 1 && logs["reward_std"].is_number(), "{json}");
        numbers(&json["rewards"])[0]
    };
    let (ada, nobody) = (reward("&user_id=ada", json!("")).await, reward("", json!("")).await);
    assert!((ada - nobody).abs() > 0.01);
    for label in [json!("ada"), json!({"user_id": "ada"})] {
        assert!(near(&[reward("&labels=user_id", label.clone()).await], &[ada]), "{label}");
        assert!(near(&[reward("", label.clone()).await], &[nobody]), "{label}");
    }
    for label in [json!(""), json!(null), json!("u-17"), json!(17)] {
        assert!(near(&[reward("&labels=user_id", label.clone()).await], &[nobody]), "{label}");
    }
    let group = reward("&group=country:UK", json!("")).await;
    let labelled = reward("&labels=user_id", json!({"group": {"country": "UK"}})).await;
    assert!(near(&[labelled], &[group]));
}

#[tokio::test]
async fn several_samples_of_several_people_keep_their_order() {
    let server = Server::with_people(people()).await;
    let people = ["ada", "bob", "", "ada", "cid", "bob"];
    let query: Vec<String> = TEXTS.iter().cycle().take(6).map(|text| format!("Name a fish.{text}")).collect();
    let body = json!({"query": query, "prompts": vec!["Name a fish."; 6], "labels": people});
    let together = server.post("/get_reward?model=lore&labels=user_id", &body).await.ok();
    for at in 0..6 {
        let body = json!({"query": [query[at]], "prompts": ["Name a fish."], "labels": [people[at]]});
        let alone = server.post("/get_reward?model=lore&labels=user_id", &body).await.ok();
        for key in ["rewards", "scores"] {
            assert!(near(&numbers(&together[key])[at..=at], &numbers(&alone[key])), "{key} {at}");
        }
    }
}

#[tokio::test]
async fn hundreds_of_posts_at_once_each_get_their_own_reward() {
    let server = Server::with_people(people()).await;
    let native = [rewards(&server, json!({"user_id": "ada"})).await, rewards(&server, json!({})).await];
    let post = async |at: usize| {
        let mut body = sample(TEXTS[at % 4]);
        body["labels"] = json!([if at.is_multiple_of(3) { "ada" } else { "" }]);
        let json = server.post("/get_reward?model=lore&labels=user_id", &body).await.ok();
        let whose = usize::from(!at.is_multiple_of(3));
        assert!(near(&numbers(&json["rewards"]), &[native[whose][at % 4]]), "{at}");
    };
    futures::future::join_all((0..512).map(post)).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_sample_is_a_problem_that_names_it() {
    let server = Server::with_people(people()).await;
    let with = |key: &str, value: Value| {
        let mut body = sample("A trout.");
        body[key] = value;
        body
    };
    let cases = [
        ("", with("prompts", json!([])), "invalid-input", "/prompts"),
        ("", with("labels", json!(["a", "b"])), "invalid-input", "/labels"),
        ("", with("query", json!([5])), "invalid-input", "/query/0"),
        ("", with("query", json!(["Name a fish.\0"])), "invalid-input", "/query/0"),
        ("", json!({"prompts": []}), "invalid-input", "/query"),
        ("?labels=user_id", with("labels", json!(["a b"])), "invalid-input", "/labels/0"),
        ("?labels=user_id", with("labels", json!([true])), "invalid-input", "/labels/0"),
        ("?labels=user_id", with("labels", json!([{"group": 5}])), "invalid-input", "/labels/0/group"),
        ("?labels=user_id&user_id=ada", with("labels", json!(["bob"])), "contradiction", "/labels/0"),
        (
            "?labels=user_id&group=country:UK",
            with("labels", json!([{"group": {"country": "US"}}])),
            "contradiction",
            "/labels/0/group",
        ),
    ];
    for (query, body, kind, pointer) in cases {
        let reply = server.post(&format!("/get_reward{query}"), &body).await;
        assert_eq!(reply.pointers(422, kind), [pointer], "{query} {body}");
    }
    let none = server.post("/get_reward?group=country:XX", &sample("A trout.")).await;
    assert_eq!(none.problem(422, "invalid-input")["errors"][0]["parameter"], "group");
    for query in ["labels=all", "user=ada", "scores=log", "template=jinja", "shape=number"] {
        let reply = server.post(&format!("/get_reward?{query}"), &sample("A trout.")).await;
        reply.problem(400, "invalid-parameter");
    }
    let crowd = json!({"query": vec!["a"; 1025]});
    let limit = server.post("/get_reward", &crowd).await.problem(413, "too-many-texts");
    assert_eq!(limit["limit"], json!({"name": "max_batch", "value": 1024}));
    server.post("/get_reward?model=pal-a", &sample("A trout.")).await.problem(422, "unknown-model");
}

#[tokio::test]
async fn a_templated_text_is_scored_as_the_conversation_that_it_holds() {
    let server = chat_server().await;
    let native = json!({"items": [{"prompt": [{"role": "user", "content": "hi"}], "responses": ["hello!"]}]});
    let native = numbers(&server.score(&native).await.ok()["results"][0]["rewards"]);
    let chatml = "<s><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello!<|im_end|></s>";
    let phi3 = "<|user|>\nhi<|end|>\n<|assistant|>\nhello!<|end|>";
    let of = async |query: &str, text: &str, prompts: Value| {
        let body = json!({"query": [text], "prompts": prompts});
        numbers(&server.post(&format!("/get_reward{query}"), &body).await.ok()["rewards"])
    };
    // As it is, whether or not its prompt is where it is said to be.
    let prompt = "<s><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
    for prompts in [json!([prompt]), json!(["something else"]), json!(null)] {
        assert_eq!(of("", chatml, prompts).await, native);
    }
    // Taken apart, and written again by the backbone's own template.
    for (query, text) in [("?template=chatml", chatml), ("?template=phi3", phi3)] {
        assert!(near(&of(query, text, json!([""])).await, &native), "{query}");
    }
    assert!(!near(&of("", phi3, json!([""])).await, &native));
    // What is not in the template named is scored as a whole.
    assert_eq!(of("?template=llama3", chatml, json!([""])).await, native);
    let metrics = server.get("/metrics").await.text();
    for reason in ["prefix", "template"] {
        assert!(metrics.contains(&format!("polyreward_http_whole_texts_total{{reason=\"{reason}\"}}")));
    }
}

#[tokio::test]
async fn a_text_that_is_too_long_is_cut_unless_that_is_not_wanted() {
    let server = Server::new().await;
    let long = json!({"query": [format!("{} A trout.", "word ".repeat(500))]});
    server.post("/get_reward", &long).await.ok();
    let refused = server.post("/get_reward?on_overflow=error", &long).await;
    assert_eq!(refused.problem(422, "invalid-input")["errors"][0]["type"], "/problems/too-long");
}

#[tokio::test]
async fn a_key_in_the_url_lets_in_and_none_does_not() {
    let server = Server::with_people(people()).await;
    let key = server.key("default", &[Scope::Score]).await.secret;
    let with = async |basic: Option<String>| {
        let body = Body::from(sample("A trout.").to_string());
        let mut request = json_request("POST".parse().unwrap(), "/get_reward", body);
        if let Some(pair) = basic {
            // What a client makes of http://any:KEY@host/get_reward.
            let value = format!("Basic {}", BASE64_STANDARD.encode(pair));
            request.headers_mut().insert("authorization", value.parse().unwrap());
        }
        server.send(request).await
    };
    with(Some(format!("any:{key}"))).await.ok();
    with(Some("any:pr_0".to_owned())).await.problem(401, "unauthorized");
    with(None).await.problem(401, "unauthorized");
}
