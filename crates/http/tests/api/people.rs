//! Whose rewards an answer holds: one person's, several people's, an audience's.

use polyreward_domain::{Attributes, Comparison, ComparisonRecord, LabelConfidence, Prompt, Strength};
use serde_json::{Value, json};

use crate::fixture::Server;

const TEXTS: [&str; 4] = ["A trout.", "Fish are tasty.", "I do not know.", "Ask somebody else, please."];

/// Ada prefers each text to the next one, bob the other way round; cid is in ada's country and agrees with her once.
fn people() -> Vec<ComparisonRecord> {
    let record = |user_id: &str, country: &str, chosen: &str, rejected: &str| ComparisonRecord {
        user_id: user_id.parse().unwrap(),
        attributes: Attributes::from([("country".to_owned(), country.to_owned())]),
        comparison: Comparison {
            prompt: Prompt::Text("Name a fish.".into()),
            chosen: chosen.into(),
            rejected: rejected.into(),
            strength: Strength::default(),
            label_confidence: LabelConfidence::default(),
            rationale: None,
        },
        id: None,
        created_at: None,
        split: None,
        tags: Vec::new(),
    };
    let mut records = vec![record("cid", "UK", TEXTS[0], TEXTS[1])];
    for pair in TEXTS.windows(2) {
        records.push(record("ada", "UK", pair[0], pair[1]));
        records.push(record("bob", "US", pair[1], pair[0]));
    }
    records
}

fn body(whose: &Value) -> Value {
    let mut body = json!({"model": "lore", "items": [{"prompt": "Name a fish.", "responses": TEXTS}]});
    body.as_object_mut().unwrap().extend(whose.as_object().unwrap().clone());
    body
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap_or_else(|| panic!("{value}")).iter().map(|x| x.as_f64().unwrap()).collect()
}

fn near(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4)
}

async fn rewards(server: &Server, whose: Value) -> Vec<f64> {
    numbers(&server.score(&body(&whose)).await.ok()["results"][0]["rewards"])
}

#[tokio::test]
async fn a_persons_examples_move_their_reward_and_nobody_elses() {
    let server = Server::with_people(people());
    let ada = server.score(&body(&json!({"user_id": "ada"}))).await;
    assert_eq!(ada.header("x-user-state-version"), "3");
    assert_eq!(ada.ok()["user"], json!({"user_id": "ada", "examples": 3, "known": true}));
    let (ada, bob) =
        (numbers(&ada.ok()["results"][0]["rewards"]), rewards(&server, json!({"user_id": "bob"})).await);
    assert!(ada.windows(2).all(|pair| pair[0] > pair[1]), "{ada:?}");
    assert!(bob.windows(2).all(|pair| pair[0] < pair[1]), "{bob:?}");

    let population = rewards(&server, json!({})).await;
    let stranger = server.score(&body(&json!({"user_id": "eve"}))).await.ok();
    assert_eq!(stranger["user"], json!({"user_id": "eve", "examples": 0, "known": false}));
    assert_eq!(numbers(&stranger["results"][0]["rewards"]), population);
    assert_eq!(rewards(&Server::with_people(Vec::new()), json!({"user_id": "ada"})).await, population);
}

#[tokio::test]
async fn several_people_get_their_own_rewards_in_their_order() {
    let server = Server::with_people(people());
    let user_ids = ["bob", "eve", "ada", "bob"];
    let reply = server.score(&body(&json!({"user_ids": user_ids}))).await;
    assert!(!reply.headers.contains_key("x-user-state-version"));
    let json = reply.ok();
    let known: Vec<_> =
        json["users"].as_array().unwrap().iter().map(|user| user["known"].as_bool().unwrap()).collect();
    assert_eq!(known, [true, false, true, true]);
    let result = &json["results"][0];
    for (at, user_id) in user_ids.into_iter().enumerate() {
        let alone = server.score(&body(&json!({"user_id": user_id}))).await.ok();
        for field in ["rewards", "uncertainties", "ranking"] {
            let (together, alone) = (numbers(&result[field][at]), numbers(&alone["results"][0][field]));
            assert!(near(&together, &alone), "{user_id} {field} {together:?} {alone:?}");
        }
    }
    let pair = json!([{"prompt": "Name a fish.", "response_a": TEXTS[0], "response_b": TEXTS[3]}]);
    let pairs = server.score(&json!({"model": "lore", "pairs": pair, "user_ids": user_ids})).await.ok();
    let preference = numbers(&pairs["results"][0]["preference"]);
    assert!(preference[0] < 0.5 && preference[2] > 0.5 && preference[3] == preference[0], "{preference:?}");
    assert!(near(&numbers(&pairs["results"][0]["reward_a"])[..1], &numbers(&result["rewards"][0])[..1]));
}

#[tokio::test]
async fn an_audience_is_its_members_aggregated() {
    let server = Server::with_people(people());
    let everything = json!(["mean", "min", "p20", "share"]);
    let audience = |group: Value| json!({"audience": {"group": group, "aggregate": everything}});
    let uk = server.score(&body(&audience(json!({"country": "UK"})))).await.ok();
    assert_eq!(uk["audience"], json!({"users": 2}));
    let (ada, cid) = (
        rewards(&server, json!({"user_id": "ada"})).await,
        rewards(&server, json!({"user_id": "cid"})).await,
    );
    let of = |name: &str| numbers(&uk["results"][0]["aggregates"][name]);
    let both =
        |f: fn(f64, f64) -> f64| -> Vec<f64> { ada.iter().zip(&cid).map(|(a, c)| f(*a, *c)).collect() };
    assert!(near(&of("mean"), &both(f64::midpoint)));
    assert!(near(&of("min"), &both(f64::min)));
    assert!(near(&of("p20"), &both(|a, c| 0.8 * a.min(c) + 0.2 * a.max(c))));
    assert!((of("share").iter().sum::<f64>() - 1.0).abs() < 1e-6);

    let pair = json!([{"prompt": "Name a fish.", "response_a": TEXTS[0], "response_b": TEXTS[3]}]);
    let everybody =
        json!({"model": "lore", "pairs": pair, "audience": {"group": {}, "aggregate": ["share"]}});
    let everybody = server.score(&everybody).await.ok();
    assert_eq!(everybody["audience"], json!({"users": 3}));
    let result = &everybody["results"][0];
    let (preference, spread) =
        (result["preference"].as_f64().unwrap(), result["uncertainty"].as_f64().unwrap());
    assert!(preference > 0.0 && preference < 1.0 && spread > 0.0 && spread < 0.5, "{result}");
    assert_eq!(result["aggregates"].as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn an_audience_of_nobody_and_too_many_rewards_are_refused() {
    let server = Server::with_people(people());
    let nobody = body(&json!({"audience": {"group": {"country": "FR"}}}));
    assert_eq!(server.score(&nobody).await.pointers(422, "invalid-input"), ["/audience/group"]);
    let many = json!({"model": "lore", "user_ids": vec!["ada"; 16_384],
        "items": [{"prompt": "", "responses": vec![""; 300]}]});
    let reply = server.score(&many).await;
    assert_eq!(reply.status, 413);
    assert_eq!(reply.json()["type"], "/problems/too-many-texts");
}

#[tokio::test]
async fn preferences_of_several_people_stay_antisymmetric() {
    let server = Server::with_people(people());
    let ask = async |a: &str, b: &str| {
        let pairs = json!([{"prompt": "Name a fish.", "response_a": a, "response_b": b}]);
        let reply =
            server.score(&json!({"model": "lore", "pairs": pairs, "user_ids": ["ada", "bob", "eve"]})).await;
        numbers(&reply.ok()["results"][0]["preference"])
    };
    let (there, back) = (ask(TEXTS[0], TEXTS[2]).await, ask(TEXTS[2], TEXTS[0]).await);
    for (p, q) in there.iter().zip(&back) {
        assert_eq!((1.0 - p).to_bits(), q.to_bits());
    }
}
