//! No input is our fault: whatever is done to a good body, the answer is no 5xx and is well formed.

use axum::http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::fixture::{Server, json_request};

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(vec!["", "\0", "bt", "raw", "error", "\u{ffff}", "\u{1f41f}"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{0,8}", inner, 0..4)
                .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

fn good() -> impl Strategy<Value = Value> {
    let pair = json!({"prompt": "Name a fish.", "response_a": "A trout.", "response_b": "Fish."});
    let chat = json!([{"role": "user", "content": "Name a fish."}]);
    prop::sample::select(vec![
        json!({"model": "bt", "user_id": "ada", "reward_scale": "standard", "partial": true, "pairs": [pair, pair]}),
        json!({"on_overflow": "error", "items": [{"prompt": chat, "responses": ["A trout.", ""]}]}),
    ])
}

/// Every place in a value.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), found));
        }
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(n, value)| pointers(value, &format!("{at}/{n}"), found));
        }
        _ => {}
    }
}

#[derive(Debug, Clone)]
enum Change {
    Replace(prop::sample::Index, Value),
    Add(prop::sample::Index, String, Value),
    Byte(prop::sample::Index, u8),
    Cut(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let name = prop_oneof![
        "[a-z_]{1,10}",
        prop::sample::select(vec!["pairs", "items", "prompt", "responses", "role", "partial"])
            .prop_map(str::to_owned),
    ];
    prop_oneof![
        4 => (any::<prop::sample::Index>(), any_json()).prop_map(|(at, value)| Change::Replace(at, value)),
        2 => (any::<prop::sample::Index>(), name, any_json()).prop_map(|(at, name, value)| Change::Add(at, name, value)),
        1 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        1 => any::<prop::sample::Index>().prop_map(Change::Cut),
    ]
}

fn apply(mut value: Value, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let mut places = Vec::new();
        pointers(&value, "", &mut places);
        match change {
            Change::Replace(at, with) => {
                *value.pointer_mut(&places[at.index(places.len())]).unwrap() = with.clone();
            }
            Change::Add(at, name, with) => {
                match value.pointer_mut(&places[at.index(places.len())]).unwrap() {
                    Value::Object(members) => drop(members.insert(name.clone(), with.clone())),
                    Value::Array(values) => values.push(with.clone()),
                    _ => {}
                }
            }
            Change::Byte(..) | Change::Cut(_) => {}
        }
    }
    let mut bytes = value.to_string().into_bytes();
    for change in changes {
        match change {
            Change::Byte(at, byte) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Change::Cut(at) if !bytes.is_empty() => bytes.truncate(at.index(bytes.len())),
            _ => {}
        }
    }
    bytes
}

#[test]
fn a_mutated_body_is_answered_or_refused_and_never_breaks_the_server() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Server::new());
    let changes = prop::collection::vec(change(), 0..4);
    let config = ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(body in good(), changes in changes)| {
        let bytes = apply(body, &changes);
        let reply = runtime.block_on(server.send(json_request(Method::POST, "/score", bytes.clone())));
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(reply.status.as_u16() < 500, "{}: {text}", reply.status);
        let json = reply.json();
        if reply.status == 200 {
            let input: Value = serde_json::from_slice(&bytes).unwrap();
            let list = if input["pairs"].is_array() { &input["pairs"] } else { &input["items"] };
            prop_assert_eq!(json["results"].as_array().unwrap().len(), list.as_array().unwrap().len());
            prop_assert!(!reply.text().contains(":null"), "{}", reply.text());
        } else {
            prop_assert_eq!(reply.header("content-type"), "application/problem+json");
            prop_assert!(json["type"].as_str().unwrap().starts_with("/problems/"), "{json}");
        }
    });
}

/// A route that takes a body, and a body that it takes.
fn good_of_people() -> impl Strategy<Value = (Method, &'static str, Value)> {
    let example = json!({"prompt": "Name a fish.", "chosen": "A trout.", "rejected": "Fish.", "strength": 2.0,
        "label_confidence": 0.9, "rationale": "shorter", "id": "one"});
    let chat = json!({"prompt": [{"role": "user", "content": "Name a fish."}], "chosen": "A trout.", "rejected": ""});
    let pair = json!({"prompt": "Name a fish.", "response_a": "A trout.", "response_b": "Fish."});
    prop::sample::select(vec![
        (
            Method::POST,
            "/users/ada/examples",
            json!({"attributes": {"country": "UK"}, "examples": [example, chat]}),
        ),
        (
            Method::POST,
            "/evaluate",
            json!({"model": "lore", "group_by": ["country"], "min_n": 7, "comparisons": [
                {"user_id": "ada", "attributes": {"country": "UK"}, "prompt": "", "chosen": "A trout.", "rejected": "Fish."}]}),
        ),
        (Method::PUT, "/users/ada", json!({"attributes": {"country": "UK", "age": "25-34"}})),
        (
            Method::POST,
            "/users/ada/queries",
            json!({"model": "lore", "limit": 1, "on_overflow": "error", "pairs": [pair, pair]}),
        ),
    ])
}

#[test]
fn a_mutated_body_about_people_is_taken_or_refused_and_changes_nothing_when_refused() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Server::with_people(Vec::new()));
    runtime.block_on(server.put("/users/ada", &json!({"attributes": {}})));
    let state = || runtime.block_on(server.get("/users/ada"));
    let changes = prop::collection::vec(change(), 0..4);
    let config = ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |((method, path, body) in good_of_people(), changes in changes)| {
        let bytes = apply(body, &changes);
        let before = state();
        prop_assert_eq!(before.status.as_u16(), 200, "{}", before.text());
        let reply = runtime.block_on(server.send(json_request(method, path, bytes.clone())));
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(reply.status.as_u16() < 500, "{path} {}: {text}", reply.status);
        let json = reply.json();
        if !reply.status.is_success() {
            prop_assert_eq!(reply.header("content-type"), "application/problem+json");
            prop_assert!(json["type"].as_str().unwrap().starts_with("/problems/"), "{json}");
            prop_assert_eq!(before.body, state().body);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_path_and_query_is_answered_or_refused(
        id in prop_oneof!["[ -~]{0,12}", "(%[0-9a-fA-F]{2}){0,4}"],
        query in prop_oneof!["[ -~]{0,12}", "(cursor|limit|model|group_by|from|to|min_n|format|step)=(%[0-9a-fA-F]{2}|[A-Za-z0-9_=,:@-]){0,12}"],
    ) {
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(Server::new());
        for path in [format!("/users/{id}?{query}"), format!("/users/{id}/examples?{query}"), format!("/users?{query}"), format!("/groups?{query}"), format!("/accuracy?{query}"), format!("/accuracy/timeline?{query}")] {
            if path.parse::<axum::http::Uri>().is_err() {
                continue;
            }
            let reply = runtime.block_on(server.get(&path));
            prop_assert!(reply.status.as_u16() < 500, "{path} {}", reply.text());
            if !reply.status.is_success() {
                prop_assert_eq!(reply.header("content-type"), "application/problem+json", "{}", path);
            }
        }
    }
}
