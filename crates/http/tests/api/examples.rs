//! `POST /users/{id}/examples` and the erasure of one: what is learned, and that it is all or nothing.

use axum::http::{HeaderValue, Method};
use futures::future::join_all;
use polyreward_backbone::BackboneOptions;
use polyreward_domain::Scope;
use polyreward_http::Limits;
use serde_json::{Value, json};

use crate::{
    fixture::{Reply, Server, backbone, chat_backbone, json_request, open_backbone},
    people::{TEXTS, body, near, numbers, people, rewards},
};

pub fn example(chosen: &str, rejected: &str) -> Value {
    json!({"prompt": "Name a fish.", "chosen": chosen, "rejected": rejected})
}

pub fn examples() -> Vec<Value> {
    TEXTS.windows(2).map(|pair| example(pair[0], pair[1])).collect()
}

async fn post(server: &Server, user_id: &str, examples: &[Value]) -> Reply {
    server.post(&format!("/users/{user_id}/examples"), &json!({"examples": examples})).await
}

/// The answer to a post that is taken.
pub async fn learn(server: &Server, user_id: &str, examples: &[Value]) -> Value {
    let reply = post(server, user_id, examples).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    reply.json()
}

async fn post_named(server: &Server, user_id: &str, key: &str, examples: &[Value]) -> Reply {
    let body = json!({"examples": examples}).to_string();
    let mut request = json_request(Method::POST, &format!("/users/{user_id}/examples"), body);
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    server.send(request).await
}

/// P(chosen preferred) as `POST /score` says it.
pub async fn preference(server: &Server, model: &str, user_id: Option<&str>, example: &Value) -> f64 {
    let pair = json!({"prompt": example["prompt"], "response_a": example["chosen"], "response_b": example["rejected"]});
    let body = json!({"model": model, "user_id": user_id, "pairs": [pair]});
    server.score(&body).await.ok()["results"][0]["preference"].as_f64().unwrap()
}

fn same(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6)
}

async fn of(server: &Server, user_id: &str) -> Vec<f64> {
    rewards(server, json!({"user_id": user_id})).await
}

#[tokio::test]
async fn a_post_moves_the_persons_reward_at_once_and_nobody_elses() {
    let server = Server::with_people(people()).await;
    let (population, bob) = (rewards(&server, json!({})).await, of(&server, "bob").await);
    assert_eq!(of(&server, "eve").await, population);
    let body_of_eve = json!({"attributes": {"country": "UK"}, "examples": [example(TEXTS[3], TEXTS[0]), example(TEXTS[2], TEXTS[1])]});
    let reply = server.post("/users/eve/examples", &body_of_eve).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let reply = reply.json();
    insta::assert_json_snapshot!(reply, {
        ".predictions[].model" => "[model]",
        ".predictions[].preference" => "[number]",
        ".predictions[].correct" => "[boolean]",
        ".states" => "[states]",
    });
    let states = reply["states"].as_object().unwrap();
    let (model, state) = states.iter().next().unwrap();
    assert!(states.len() == 1 && model.starts_with("lore@"), "bt learns from nobody: {states:?}");
    assert!(state["examples"] == 2 && (0.0..1.0).contains(&state["uncertainty"].as_f64().unwrap()));

    let scored = server.score(&body(&json!({"user_id": "eve"}))).await;
    assert_eq!(scored.ok()["user"], json!({"user_id": "eve", "examples": 2, "known": true}));
    assert_eq!(scored.header("x-user-state-version"), reply["state_version"].as_str().unwrap());
    let eve = numbers(&scored.ok()["results"][0]["rewards"]);
    assert!(eve[3] - eve[0] > population[3] - population[0] + 0.1, "{eve:?} {population:?}");
    assert_eq!((rewards(&server, json!({})).await, of(&server, "bob").await), (population, bob));
}

#[tokio::test]
async fn one_bad_example_keeps_all_of_them_out_and_every_fault_is_named() {
    let server = Server::with_people(people()).await;
    let mut bad = example("a\0b", TEXTS[0]);
    bad["strength"] = json!(0);
    bad["id"] = json!("no id");
    let mut worse = example(TEXTS[0], TEXTS[0]);
    worse["label_confidence"] = json!(1.5);
    worse["rationale"] = json!("\0");
    let list = [example(TEXTS[0], TEXTS[1]), bad, example(TEXTS[1], TEXTS[2]), worse];
    let pointers = post(&server, "eve", &list).await.pointers(422, "invalid-input");
    assert_eq!(
        pointers,
        [
            "/examples/1/chosen",
            "/examples/1/strength",
            "/examples/1/id",
            "/examples/3/rationale",
            "/examples/3/rejected",
            "/examples/3/label_confidence"
        ]
    );
    server.get("/users/eve").await.problem(404, "unknown-user");
    assert_eq!(server.score(&body(&json!({"user_id": "eve"}))).await.ok()["user"]["known"], false);
}

#[tokio::test]
async fn a_text_that_the_backbone_cannot_read_keeps_all_of_them_out() {
    let server = Server::with_people_on(Vec::new(), chat_backbone(), Limits::default()).await;
    let mut bad = example(TEXTS[1], TEXTS[2]);
    bad["prompt"] = json!([{"role": "stranger", "content": "Whose-secret-is-this"}]);
    let reply = post(&server, "eve", &[example(TEXTS[0], TEXTS[1]), bad]).await;
    let pointers = reply.pointers(422, "invalid-input");
    assert!(pointers.iter().all(|pointer| pointer.starts_with("/examples/1/")), "{pointers:?}");
    let distinct: std::collections::BTreeSet<_> = pointers.iter().collect();
    assert_eq!(distinct.len(), pointers.len(), "{pointers:?}");
    server.get("/users/eve").await.problem(404, "unknown-user");
    assert!(!server.log.text().contains("Whose-secret-is-this"));
}

#[tokio::test]
async fn an_example_counts_once_by_its_id_or_by_what_was_compared() {
    let server = Server::with_people(Vec::new()).await;
    let named = |id: &str, chosen: &str, rejected: &str| {
        let mut example = example(chosen, rejected);
        example["id"] = json!(id);
        example
    };
    let first = learn(
        &server,
        "eve",
        &[named("one", TEXTS[0], TEXTS[1]), named("one", TEXTS[2], TEXTS[3]), example(TEXTS[1], TEXTS[2])],
    )
    .await;
    assert_eq!(
        (&first["accepted"], &first["duplicates"], &first["examples"]),
        (&json!(2), &json!(1), &json!(2))
    );
    assert_eq!(first["example_ids"][0], "one");
    assert_eq!(first["predictions"].as_array().unwrap().len(), 4, "two examples, two models");
    let before = of(&server, "eve").await;

    let mut stronger = example(TEXTS[1], TEXTS[2]);
    stronger["strength"] = json!(5);
    let again = learn(&server, "eve", &[named("one", TEXTS[3], TEXTS[0]), stronger]).await;
    assert_eq!(
        (&again["accepted"], &again["duplicates"], &again["examples"]),
        (&json!(0), &json!(2), &json!(2))
    );
    assert_eq!((&again["predictions"], &again["example_ids"]), (&json!([]), &json!([])));
    assert_eq!((&again["state_version"], &again["states"]), (&first["state_version"], &first["states"]));
    assert_eq!(of(&server, "eve").await, before);
    // The other way round is another example, and the same id with another person is another one.
    assert_eq!(learn(&server, "eve", &[example(TEXTS[2], TEXTS[1])]).await["accepted"], 1);
    assert_eq!(learn(&server, "bob", &[named("one", TEXTS[0], TEXTS[1])]).await["accepted"], 1);
}

#[tokio::test]
async fn each_example_is_predicted_as_it_would_have_been_scored_just_before() {
    let server = Server::with_people(people()).await;
    let mut list = examples();
    list[0]["strength"] = json!(2.5);
    list[1]["label_confidence"] = json!(0.8);
    list.extend([example(TEXTS[3], TEXTS[0]), example(TEXTS[1], TEXTS[3])]);
    let mut expected = Vec::new();
    let mut last = Value::Null;
    for example in &list {
        let mut before = Vec::new();
        for model in ["bt", "lore"] {
            before.push(preference(&server, model, Some("step-by-step"), example).await);
        }
        last = learn(&server, "step-by-step", std::slice::from_ref(example)).await;
        let said: Vec<f64> = numbers_of(&last);
        assert!(same(&said, &before), "{said:?} {before:?}");
        expected.extend(before);
    }
    let at_once = learn(&server, "at-once", &list).await;
    let said = numbers_of(&at_once);
    assert!(same(&said, &expected), "{said:?} {expected:?}");
    assert_eq!(at_once["state_version"], last["state_version"]);
    let predictions = at_once["predictions"].as_array().unwrap();
    for (prediction, at) in predictions.iter().zip(0..) {
        assert_eq!(prediction["example_id"], at_once["example_ids"][at / 2]);
        assert!(prediction["model"].as_str().unwrap().starts_with(["bt@", "lore@"][at % 2]));
        assert_eq!(prediction["correct"], prediction["preference"].as_f64().unwrap() > 0.5);
    }
    assert!(near(&of(&server, "at-once").await, &of(&server, "step-by-step").await));
}

/// The preferences of all predictions.
fn numbers_of(reply: &Value) -> Vec<f64> {
    let predictions = reply["predictions"].as_array().unwrap().iter();
    predictions.map(|prediction| prediction["preference"].as_f64().unwrap()).collect()
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer_to_the_byte() {
    let server = Server::with_people(people()).await;
    let list = [example(TEXTS[3], TEXTS[0])];
    let first = post_named(&server, "eve", "order-66", &list).await;
    assert_eq!((first.status.as_u16(), first.header("idempotency-replayed")), (201, ""));
    learn(&server, "eve", &[example(TEXTS[2], TEXTS[0])]).await;
    // By another server on the same database, too.
    let another = server.another(backbone()).await;
    for server in [&server, &another] {
        let again = post_named(server, "eve", "order-66", &list).await;
        assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (201, "true"));
        assert_eq!(again.header("content-type"), "application/json");
        assert_eq!(again.body, first.body);
    }
    assert_eq!(server.get("/users/eve").await.ok()["examples"], 2);

    let other = [example(TEXTS[3], TEXTS[1])];
    post_named(&server, "eve", "order-66", &other).await.problem(409, "idempotency-conflict");
    post_named(&server, "joe", "order-66", &list).await.problem(409, "idempotency-conflict");
    post_named(&server, "joe", "order-66", &other).await.problem(409, "idempotency-conflict");
    server.get("/users/joe").await.problem(404, "unknown-user");
    assert_eq!(server.get("/users/eve").await.ok()["examples"], 2);
    // A request that was refused has no answer to repeat.
    let bad = [example(TEXTS[0], TEXTS[0])];
    post_named(&server, "eve", "order-67", &bad).await.problem(422, "invalid-input");
    assert_eq!(post_named(&server, "eve", "order-67", &other).await.status, 201);
}

#[tokio::test]
async fn the_name_of_a_request_is_one_tenants_own() {
    let server = Server::with_people(Vec::new()).await;
    for tenant in ["default", "other"] {
        let key = server.key(tenant, &[Scope::Write]).await.secret;
        let body = json!({"examples": examples()}).to_string();
        let mut request = json_request(Method::POST, "/users/eve/examples", body);
        request.headers_mut().insert("x-api-key", key.parse().unwrap());
        request.headers_mut().insert("idempotency-key", "same".parse().unwrap());
        let reply = server.send(request).await;
        assert_eq!((reply.status.as_u16(), reply.header("idempotency-replayed")), (201, ""), "{tenant}");
    }
}

#[tokio::test]
async fn a_request_cannot_be_named_just_anything() {
    let server = Server::with_people(Vec::new()).await;
    let with = async |values: &[&[u8]]| {
        let body = json!({"examples": examples()}).to_string();
        let mut request = json_request(Method::POST, "/users/eve/examples", body);
        for value in values {
            request.headers_mut().append("idempotency-key", HeaderValue::from_bytes(value).unwrap());
        }
        server.send(request).await
    };
    let long = [b'x'; 256];
    for bad in [vec![&b""[..]], vec![b"a b"], vec!["ä".as_bytes()], vec![&long[..]], vec![b"a", b"a"]] {
        let problem = with(&bad).await.problem(400, "invalid-header");
        assert_eq!(problem["errors"][0]["header"], "idempotency-key");
    }
    server.get("/users/eve").await.problem(404, "unknown-user");
    assert_eq!(with(&[&long[..255]]).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_for_one_person_at_once_lose_nothing_on_either_of_two_servers() {
    let server = Server::with_people(Vec::new()).await;
    let another = server.another(backbone()).await;
    let numbered: Vec<Value> =
        (0..50).map(|n| example(&format!("Fish number {n}."), &format!("Fish number {}.", n + 1))).collect();
    for count in [2, 50] {
        let (crowd, one) = (format!("crowd-{count}"), format!("one-{count}"));
        let posts = numbered[..count].iter().enumerate().map(|(at, example)| {
            let server = if at % 2 == 0 { &server } else { &another };
            learn(server, &crowd, std::slice::from_ref(example))
        });
        let replies = join_all(posts).await;
        let mut counts: Vec<u64> = replies.iter().map(|reply| reply["examples"].as_u64().unwrap()).collect();
        counts.sort_unstable();
        assert_eq!(counts, (1..=count as u64).collect::<Vec<_>>());
        assert!(replies.iter().all(|reply| reply["accepted"] == 1));
        let mut version = Value::Null;
        for example in &numbered[..count] {
            version = learn(&server, &one, std::slice::from_ref(example)).await["state_version"].clone();
        }
        for server in [&server, &another] {
            let user = server.get(&format!("/users/{crowd}")).await.ok();
            assert_eq!((&user["examples"], &user["state_version"]), (&json!(count), &version));
            let (crowd, one) = (of(server, &crowd).await, of(server, &one).await);
            assert!(crowd.iter().zip(&one).all(|(a, b)| (a - b).abs() < 1e-3), "{crowd:?} {one:?}");
        }
    }
}

#[tokio::test]
async fn more_examples_than_are_kept_are_refused_and_what_is_there_stays() {
    let limits = Limits { max_examples: 3, ..Limits::default() };
    let server = Server::with_people_on(Vec::new(), backbone(), limits).await;
    let mut list = examples();
    list.push(example(TEXTS[3], TEXTS[0]));
    learn(&server, "eve", &list[..2]).await;
    let before = (server.get("/users/eve").await.body, of(&server, "eve").await);
    for (user_id, too_many) in [("eve", &list[2..]), ("eve", &list), ("joe", &list)] {
        let problem = post(&server, user_id, too_many).await.problem(409, "too-many-examples");
        assert_eq!(problem["limit"], json!({"name": "max_examples", "value": 3}));
    }
    assert_eq!((server.get("/users/eve").await.body, of(&server, "eve").await), before);
    server.get("/users/joe").await.problem(404, "unknown-user");
    assert_eq!(learn(&server, "eve", &list[..3]).await["examples"], 3);
    // At the limit, what is there already is still a duplicate, and forgetting one makes room.
    let full = learn(&server, "eve", &list[1..3]).await;
    assert_eq!((&full["accepted"], &full["duplicates"]), (&json!(0), &json!(2)));
    post(&server, "eve", &list[3..]).await.problem(409, "too-many-examples");
    let id = server.get("/users/eve/examples?limit=1").await.ok()["items"][0]["id"].clone();
    assert_eq!(server.delete(&format!("/users/eve/examples/{}", id.as_str().unwrap())).await.status, 204);
    assert_eq!(learn(&server, "eve", &list[3..]).await["accepted"], 1);
}

#[tokio::test]
async fn every_wrong_part_of_a_post_is_named_by_a_pointer() {
    let server = Server::with_people(Vec::new()).await;
    let entry = |key: &str, value: Value| {
        let mut example = example(TEXTS[0], TEXTS[1]);
        example[key] = value;
        json!({"examples": [example]})
    };
    let with = |key: &str, value: Value| {
        let mut body = json!({"examples": examples()});
        body[key] = value;
        body
    };
    let crowd: serde_json::Map<String, Value> = (0..65).map(|n| (format!("k{n}"), json!("v"))).collect();
    let cases = [
        (entry("prompt", json!("\0")), "/examples/0/prompt"),
        (entry("prompt", json!([])), "/examples/0/prompt"),
        (entry("prompt", json!([{"role": "\0", "content": ""}])), "/examples/0/prompt/0/role"),
        (entry("prompt", json!([{"role": "user", "content": "\0"}])), "/examples/0/prompt/0/content"),
        (entry("chosen", json!("\0")), "/examples/0/chosen"),
        (entry("rejected", json!("\0")), "/examples/0/rejected"),
        (entry("rationale", json!("\0")), "/examples/0/rationale"),
        (entry("rejected", json!(TEXTS[0])), "/examples/0/rejected"),
        (entry("chosen", json!(null)), "/examples/0/chosen"),
        (entry("choosen", json!("x")), "/examples/0/choosen"),
        (entry("strength", json!(0)), "/examples/0/strength"),
        (entry("strength", json!(-1)), "/examples/0/strength"),
        (entry("strength", json!(10.001)), "/examples/0/strength"),
        (entry("strength", json!("1")), "/examples/0/strength"),
        (entry("label_confidence", json!(-0.1)), "/examples/0/label_confidence"),
        (entry("label_confidence", json!(1.1)), "/examples/0/label_confidence"),
        (entry("id", json!("")), "/examples/0/id"),
        (entry("id", json!("a/b")), "/examples/0/id"),
        (entry("id", json!("x".repeat(129))), "/examples/0/id"),
        (with("examples", json!([])), "/examples"),
        (with("examples", json!("x")), "/examples"),
        (with("examples", json!([5])), "/examples/0"),
        (with("user_id", json!("eve")), "/user_id"),
        (with("attributes", json!({"": "x"})), "/attributes"),
        (with("attributes", json!({"a\u{0}": "x"})), "/attributes"),
        (with("attributes", json!({"x".repeat(65): "x"})), "/attributes"),
        (with("attributes", json!({"country": ""})), "/attributes/country"),
        (with("attributes", json!({"country": "a\u{0}b"})), "/attributes/country"),
        (with("attributes", json!({"country": "x".repeat(257)})), "/attributes/country"),
        (with("attributes", json!({"a/b~": ""})), "/attributes/a~1b~0"),
        (with("attributes", json!({"country": 5})), "/attributes/country"),
        (with("attributes", Value::from(crowd)), "/attributes"),
        (json!({}), "/examples"),
    ];
    for (body, pointer) in cases {
        let pointers = server.post("/users/eve/examples", &body).await.pointers(422, "invalid-input");
        assert_eq!(pointers, [pointer], "{body}");
    }
    server.get("/users/eve").await.problem(404, "unknown-user");
    for good in [
        entry("strength", json!(10)),
        entry("strength", json!(1e-9)),
        entry("label_confidence", json!(0)),
        entry("chosen", json!("")),
        entry("rationale", json!(null)),
        with("attributes", json!(null)),
    ] {
        let reply = server.post("/users/eve/examples", &good).await;
        assert_eq!(reply.status, 201, "{good} {}", reply.text());
    }
    of(&server, "eve").await;
}

#[tokio::test]
async fn more_texts_than_are_taken_at_once_are_refused_with_the_limit() {
    let limits = Limits { max_batch: 4, ..Limits::default() };
    let server = Server::with_people_on(Vec::new(), backbone(), limits).await;
    let problem = post(&server, "eve", &examples()).await.problem(413, "too-many-texts");
    assert_eq!(problem["limit"], json!({"name": "max_batch", "value": 4}));
    let pair = json!({"prompt": "", "response_a": "a", "response_b": "b"});
    let queries = server.post("/users/eve/queries", &json!({"pairs": [pair, pair, pair]})).await;
    queries.problem(413, "too-many-texts");
    server.get("/users/eve").await.problem(404, "unknown-user");
    learn(&server, "eve", &examples()[..2]).await;
}

#[tokio::test]
async fn what_was_learned_is_there_after_a_restart_and_for_a_new_model_without_the_backbone() {
    let server = Server::with_people(people()).await;
    learn(&server, "eve", &examples()).await;
    let before = (of(&server, "eve").await, server.get("/users/eve").await.body);

    // It keeps no embedding, so that every text it reads is a miss.
    let options = BackboneOptions { sessions: 1, cache_bytes: 0, ..BackboneOptions::default() };
    let restarted = server.another(open_backbone(&options)).await;
    let misses = || restarted.backbone.cache_stats().misses;
    let at_first = misses();
    let after = of(&restarted, "eve").await;
    assert_eq!(misses() - at_first, TEXTS.len() as u64, "the request's texts alone");
    assert!(same(&after, &before.0), "{after:?} {:?}", before.0);
    assert_eq!(restarted.get("/users/eve").await.body, before.1);

    server.add_lore("later", 3.0);
    restarted.post("/models/reload", &json!(null)).await.ok();
    let at_first = misses();
    let mut of_eve = body(&json!({"user_id": "eve"}));
    of_eve["model"] = json!("later");
    let reply = restarted.score(&of_eve).await;
    assert_eq!(misses() - at_first, TEXTS.len() as u64, "the request's texts alone");
    let later = numbers(&reply.ok()["results"][0]["rewards"]);
    let mut population = body(&json!({}));
    population["model"] = json!("later");
    let population = numbers(&restarted.score(&population).await.ok()["results"][0]["rewards"]);
    assert!(!near(&later, &population), "{later:?} {population:?}");
    // The next post is predicted by the new model too, with the state before it.
    let next = example(TEXTS[3], TEXTS[0]);
    let expected = preference(&restarted, "later", Some("eve"), &next).await;
    let reply = learn(&restarted, "eve", std::slice::from_ref(&next)).await;
    let said = reply["predictions"].as_array().unwrap().iter();
    let said: Vec<f64> = said
        .filter(|prediction| prediction["model"].as_str().unwrap().starts_with("later@"))
        .map(|prediction| prediction["preference"].as_f64().unwrap())
        .collect();
    assert!(same(&said, &[expected]), "{said:?} {expected}");
}

#[tokio::test]
async fn without_an_erased_example_everything_is_as_if_it_never_was() {
    let server = Server::with_people(Vec::new()).await;
    let list = examples();
    let ids = learn(&server, "eve", &list).await["example_ids"].clone();
    let expected = learn(&server, "joe", &[list[0].clone(), list[2].clone()]).await;
    let path = format!("/users/eve/examples/{}", ids[1].as_str().unwrap());
    let erased = server.delete(&path).await;
    assert_eq!((erased.status.as_u16(), erased.body.len()), (204, 0));
    server.delete(&path).await.problem(404, "unknown-example");

    let (eve, joe) = (of(&server, "eve").await, of(&server, "joe").await);
    assert!(eve.iter().zip(&joe).all(|(a, b)| (a - b).abs() < 1e-5), "{eve:?} {joe:?}");
    let user = server.get("/users/eve").await.ok();
    assert_eq!((&user["examples"], &user["state_version"]), (&json!(2), &expected["state_version"]));
    for state in user["states"].as_object().unwrap().values() {
        assert_eq!(state["accuracy"]["n"], 2, "its predictions are erased with it: {state}");
    }
    // On a server that does not share this one's memory, too.
    let another = of(&server.another(backbone()).await, "eve").await;
    assert!(another.iter().zip(&joe).all(|(a, b)| (a - b).abs() < 1e-5), "{another:?} {joe:?}");
    // And it can come back.
    assert_eq!(learn(&server, "eve", &list[1..2]).await["accepted"], 1);

    for at in [0, 2] {
        let path = format!("/users/joe/examples/{}", ids[at].as_str().unwrap());
        assert_eq!(server.delete(&path).await.status, 204);
    }
    assert_eq!(of(&server, "joe").await, rewards(&server, json!({})).await);
    assert_eq!(server.get("/users/joe").await.ok()["state_version"], "0");
    server.delete("/users/nobody/examples/x").await.problem(404, "unknown-example");
}
