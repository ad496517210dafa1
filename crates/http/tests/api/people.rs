//! Whose rewards an answer holds: one person's, several people's, an audience's.

use polyreward_domain::{Attributes, Comparison, ComparisonRecord, LabelConfidence, Prompt, Strength};
use polyreward_http::Limits;
use serde_json::{Value, json};

use crate::fixture::{Server, backbone};

pub const TEXTS: [&str; 4] = ["A trout.", "Fish are tasty.", "I do not know.", "Ask somebody else, please."];

pub fn record(user_id: &str, country: &str, chosen: &str, rejected: &str) -> ComparisonRecord {
    ComparisonRecord {
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
    }
}

/// Ada prefers each text to the next one, bob the other way round; cid is in ada's country and agrees with her once.
pub fn people() -> Vec<ComparisonRecord> {
    let mut records = vec![record("cid", "UK", TEXTS[0], TEXTS[1])];
    for pair in TEXTS.windows(2) {
        records.push(record("ada", "UK", pair[0], pair[1]));
        records.push(record("bob", "US", pair[1], pair[0]));
    }
    records
}

pub fn body(whose: &Value) -> Value {
    let mut body = json!({"model": "lore", "items": [{"prompt": "Name a fish.", "responses": TEXTS}]});
    body.as_object_mut().unwrap().extend(whose.as_object().unwrap().clone());
    body
}

pub fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap_or_else(|| panic!("{value}")).iter().map(|x| x.as_f64().unwrap()).collect()
}

pub fn near(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4)
}

pub async fn rewards(server: &Server, whose: Value) -> Vec<f64> {
    numbers(&server.score(&body(&whose)).await.ok()["results"][0]["rewards"])
}

#[tokio::test]
async fn a_persons_examples_move_their_reward_and_nobody_elses() {
    let server = Server::with_people(people()).await;
    let ada = server.score(&body(&json!({"user_id": "ada"}))).await;
    assert_eq!(ada.ok()["user"], json!({"user_id": "ada", "examples": 3, "known": true}));
    let (ada, bob) =
        (numbers(&ada.ok()["results"][0]["rewards"]), rewards(&server, json!({"user_id": "bob"})).await);
    assert!(ada.windows(2).all(|pair| pair[0] > pair[1]), "{ada:?}");
    assert!(bob.windows(2).all(|pair| pair[0] < pair[1]), "{bob:?}");

    let population = rewards(&server, json!({})).await;
    let stranger = server.score(&body(&json!({"user_id": "eve"}))).await.ok();
    assert_eq!(stranger["user"], json!({"user_id": "eve", "examples": 0, "known": false}));
    assert_eq!(numbers(&stranger["results"][0]["rewards"]), population);
    assert_eq!(rewards(&Server::with_people(Vec::new()).await, json!({"user_id": "ada"})).await, population);
}

#[tokio::test]
async fn several_people_get_their_own_rewards_in_their_order() {
    let server = Server::with_people(people()).await;
    let user_ids = ["bob", "eve", "ada", "bob"];
    let json = server.score(&body(&json!({"user_ids": user_ids}))).await.ok();
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
    let server = Server::with_people(people()).await;
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
    let server = Server::with_people(people()).await;
    let nobody = body(&json!({"audience": {"group": {"country": "FR"}}}));
    assert_eq!(server.score(&nobody).await.pointers(422, "invalid-input"), ["/audience/group"]);
    for (group, pointer) in [
        (json!({"country": "\0"}), "/audience/group/country"),
        (json!({"\0": "UK"}), "/audience/group"),
        (json!({"a/b": ""}), "/audience/group/a~1b"),
    ] {
        let asked = body(&json!({"audience": {"group": group}}));
        assert_eq!(server.score(&asked).await.pointers(422, "invalid-input"), [pointer]);
    }
    let many = json!({"model": "lore", "user_ids": vec!["ada"; 16_384],
        "items": [{"prompt": "", "responses": vec![""; 300]}]});
    let problem = server.score(&many).await.problem(413, "too-many-rewards");
    assert_eq!(problem["limit"], json!({"name": "max_rewards", "value": 1 << 20}));
    // A reward on the win_rate scale costs more time, though no more room.
    let limits = Limits { max_rewards: 8, ..Limits::default() };
    let server = Server::with_people_on(people(), backbone(), limits).await;
    server.score(&body(&json!({"user_ids": ["ada", "bob"]}))).await.ok();
    let problem = server
        .score(&body(&json!({"user_ids": ["ada", "bob", "cid"]})))
        .await
        .problem(413, "too-many-rewards");
    assert_eq!(problem["limit"], json!({"name": "max_rewards", "value": 8}));
    server.score(&body(&json!({"audience": {"group": {}}}))).await.problem(413, "too-many-rewards");
    server.score(&body(&json!({"audience": {"group": {"country": "UK"}}}))).await.ok();
}

#[tokio::test]
async fn more_users_than_are_taken_are_refused_with_the_limit() {
    let server = Server::with_limits(Limits { max_users: 3, ..Limits::default() }).await;
    let ask = async |users: usize| {
        let item = json!([{"prompt": "", "responses": ["A trout."]}]);
        server.score(&json!({"user_ids": vec!["ada"; users], "items": item})).await
    };
    ask(3).await.ok();
    let problem = ask(4).await.problem(413, "too-many-users");
    assert_eq!(problem["limit"], json!({"name": "max_users", "value": 3}));
}

#[tokio::test]
async fn preferences_of_several_people_stay_antisymmetric() {
    let server = Server::with_people(people()).await;
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

#[tokio::test]
async fn an_audiences_preference_is_antisymmetric_to_the_bit() {
    let mut records = people();
    for (n, pair) in (0..40).zip(TEXTS.windows(2).cycle()) {
        records.push(record(&format!("user-{n}"), "UK", pair[n % 2], pair[1 - n % 2]));
        records.push(record(&format!("user-{n}"), "UK", TEXTS[n % 4], TEXTS[(n + 2) % 4]));
    }
    let server = Server::with_people(records).await;
    let ask = async |model: &str, a: &str, b: &str| {
        let pairs = json!([{"prompt": "Name a fish.", "response_a": a, "response_b": b}]);
        let audience = json!({"group": {}, "aggregate": ["share", "p20"]});
        let reply = server.score(&json!({"model": model, "pairs": pairs, "audience": audience})).await.ok();
        let result = &reply["results"][0];
        (result["preference"].as_f64().unwrap(), numbers(&result["aggregates"]["share"]))
    };
    for model in ["lore", "bt"] {
        for (at, a) in TEXTS.iter().enumerate() {
            for b in &TEXTS[at..] {
                let ((p, shares), (q, turned)) = (ask(model, a, b).await, ask(model, b, a).await);
                assert_eq!((1.0 - p).to_bits(), q.to_bits(), "{p} {q}");
                assert_eq!((shares[0], shares[1]), (turned[1], turned[0]));
                assert!(a != b || (p == 0.5 && shares == [0.5, 0.5]), "{p} {shares:?}");
            }
        }
    }
}

#[tokio::test]
async fn partial_answers_the_good_entries_for_several_people_and_for_an_audience() {
    let server = Server::with_people(people()).await;
    let item = |text: &str| json!({"prompt": "Name a fish.", "responses": [TEXTS[0], text]});
    for whose in [json!({"user_ids": ["ada", "bob"]}), json!({"audience": {"group": {}}})] {
        let mut body =
            json!({"model": "lore", "partial": true, "items": [item(TEXTS[1]), item("\0"), item(TEXTS[2])]});
        body.as_object_mut().unwrap().extend(whose.as_object().unwrap().clone());
        let json = server.score(&body).await.ok();
        let results = json["results"].as_array().unwrap();
        assert_eq!(results.len(), 3);
        assert_eq!(results[1]["error"]["pointer"], "/items/1/responses/1");
        for result in [&results[0], &results[2]] {
            assert!(result["error"].is_null() && result["truncated"] == false, "{result}");
            let of_first = result["rewards"][0].as_array().or(result["aggregates"]["mean"].as_array());
            assert_eq!(of_first.map(Vec::len), Some(2), "{result}");
        }
    }
}

#[tokio::test]
async fn win_rates_of_several_people_are_those_of_each() {
    let server = Server::with_people(people()).await;
    let ask = async |whose: Value| {
        let mut body = body(&whose);
        body["reward_scale"] = json!("win_rate");
        server.score(&body).await.ok()["results"][0].clone()
    };
    let user_ids = ["bob", "eve", "ada", "cid", "bob"];
    let together = ask(json!({"user_ids": user_ids})).await;
    for (at, user_id) in user_ids.into_iter().enumerate() {
        let alone = ask(json!({"user_id": user_id})).await;
        for field in ["rewards", "uncertainties"] {
            let (together, alone) = (numbers(&together[field][at]), numbers(&alone[field]));
            assert!(near(&together, &alone), "{user_id} {field} {together:?} {alone:?}");
            assert!(together.iter().all(|x| (0.0..=1.0).contains(x)));
        }
    }
    let mean = numbers(&ask(json!({"audience": {"group": {}}})).await["aggregates"]["mean"]);
    let of = |at: usize| numbers(&together["rewards"][at]);
    let expected: Vec<f64> = (0..TEXTS.len()).map(|n| (of(0)[n] + of(2)[n] + of(3)[n]) / 3.0).collect();
    assert!(near(&mean, &expected), "{mean:?} {expected:?}");
}

#[tokio::test]
async fn a_state_version_changes_when_the_examples_do() {
    let version = async |records: Vec<ComparisonRecord>, whose: Value| {
        let reply = Server::with_people(records).await.score(&body(&whose)).await;
        reply.ok();
        reply.header("x-user-state-version").parse::<u64>().unwrap()
    };
    let turned: Vec<_> = people().into_iter().rev().collect();
    let mut exchanged = people();
    exchanged[1].comparison.chosen = "A pike.".into();
    for whose in
        [json!({"user_id": "ada"}), json!({"user_ids": ["eve", "ada"]}), json!({"audience": {"group": {}}})]
    {
        let before = version(people(), whose.clone()).await;
        assert_eq!(before, version(turned.clone(), whose.clone()).await, "{whose}");
        assert_ne!(before, version(exchanged.clone(), whose.clone()).await, "{whose}");
    }
    for whose in [json!({}), json!({"user_id": "eve"}), json!({"user_ids": ["eve", "joe"]})] {
        assert_eq!(version(people(), whose).await, 0);
    }
}

#[tokio::test]
async fn an_example_that_is_said_twice_counts_once() {
    let mut records = people();
    records.extend(people());
    let mut posted = vec![record("dee", "UK", TEXTS[0], TEXTS[1]), record("dee", "UK", TEXTS[2], TEXTS[3])];
    for record in &mut posted {
        record.id = Some("first".to_owned());
    }
    records.extend(posted);
    let server = Server::with_people(records).await;
    let (ada, dee) = (json!({"user_id": "ada"}), json!({"user_id": "dee"}));
    assert_eq!(server.score(&body(&ada)).await.ok()["user"]["examples"], 3);
    assert_eq!(server.score(&body(&dee)).await.ok()["user"]["examples"], 1);
    assert_eq!(rewards(&server, ada.clone()).await, rewards(&Server::with_people(people()).await, ada).await);
}

#[tokio::test]
async fn a_large_answer_is_the_same_as_a_small_one() {
    let server = Server::with_people(people()).await;
    let user_ids: Vec<&str> = ["ada", "eve", "bob"].into_iter().cycle().take(3000).collect();
    let large = server.score(&body(&json!({"user_ids": user_ids}))).await;
    assert_eq!(large.header("content-type"), "application/json");
    let small = server.score(&body(&json!({"user_ids": &user_ids[..3]}))).await.ok();
    let large = large.ok();
    let rewards = large["results"][0]["rewards"].as_array().unwrap();
    assert_eq!((rewards.len(), large["users"].as_array().unwrap().len()), (3000, 3000));
    for (at, rewards) in rewards.iter().enumerate() {
        assert_eq!(*rewards, small["results"][0]["rewards"][at % 3]);
    }
}

#[tokio::test]
async fn a_response_counts_once_for_however_many_people_and_references() {
    let server = Server::with_people(people()).await;
    let mut body = body(&json!({"user_ids": ["ada", "bob", "eve"]}));
    body["reward_scale"] = json!("win_rate");
    let counted = async || {
        let metrics = server.get("/metrics").await.text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("polyreward_rewards_total "));
        line.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    let before = counted().await;
    server.score(&body).await.ok();
    assert_eq!(counted().await - before, 4);
}
