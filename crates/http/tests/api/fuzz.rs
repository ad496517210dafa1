//! No input is our fault: whatever is done to a good body, the answer is no 5xx and is well formed.

use axum::http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    compat::{
        RECORDED, pairs_of,
        shared::{PATHS, body_of},
    },
    fixture::{Reply, Server, json_request},
    people::people,
};

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
    /// What no JSON value of ours is written as.
    Raw(prop::sample::Index, String),
    /// A field of the body a second time.
    Twice(prop::sample::Index, Value),
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

/// Changes of other servers' bodies: their fields, in wrong company, and what is hardly JSON.
fn change_of_other_servers() -> impl Strategy<Value = Change> {
    let names = [
        "query",
        "prompts",
        "labels",
        "prompt",
        "response",
        "label",
        "input",
        "messages",
        "text",
        "input_ids",
        "queries",
        "documents",
        "items",
        "pairs",
        "text_1",
        "text_2",
        "data_1",
        "texts",
        "top_n",
        "raw_scores",
        "inputs",
        "truncate",
        "truncate_prompt_tokens",
        "max_tokens_per_doc",
        "dimensions",
        "encoding_format",
        "use_activation",
        "activation",
        "model",
        "user",
        "user_id",
        "audience",
        "stream",
        "n",
        "role",
        "content",
    ];
    let value = prop_oneof![
        any_json(),
        prop::sample::select(vec![
            json!("ada"),
            json!("bob"),
            json!("lore"),
            json!("bt"),
            json!(-1),
            json!(5),
            json!(0),
            json!([1, 2]),
            json!([[1], [2]]),
            json!(["a"]),
            json!([]),
            json!({"user_id": "ada"}),
            json!({"group": {"country": "FR"}}),
            json!({"groups": [{"group": {}, "weight": 1e308}, {"group": {}, "weight": 1e308}]}),
        ]),
    ];
    let raw = prop_oneof![
        prop::sample::select(vec![
            "1e999",
            "-1e999",
            "NaN",
            "-Infinity",
            "1e-400",
            "99999999999999999999",
            "-0.0",
            "0.5e1",
            "1.",
            "\"\\ud800\"",
            "\"\\u0000\"",
            "{\"a\": 1, \"a\": 2}",
            "[1, 1e999]",
        ])
        .prop_map(str::to_owned),
        (1..300_usize).prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth)),
        (1..300_usize).prop_map(|depth| "{\"a\":".repeat(depth) + "0" + &"}".repeat(depth)),
    ];
    let name = prop::sample::select(names.to_vec()).prop_map(str::to_owned);
    prop_oneof![
        2 => change(),
        2 => (any::<prop::sample::Index>(), name, value.clone()).prop_map(|(at, name, value)| Change::Add(at, name, value)),
        2 => (any::<prop::sample::Index>(), value.clone()).prop_map(|(at, value)| Change::Replace(at, value)),
        1 => (any::<prop::sample::Index>(), raw).prop_map(|(at, raw)| Change::Raw(at, raw)),
        1 => (any::<prop::sample::Index>(), value).prop_map(|(at, value)| Change::Twice(at, value)),
    ]
}

/// What stands for the `n`th raw value until the body is written: a string that nobody draws.
fn mark(n: usize) -> String {
    format!("\u{e000}{n}\u{e000}")
}

fn apply(mut value: Value, changes: &[Change]) -> Vec<u8> {
    for (n, change) in changes.iter().enumerate() {
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
            Change::Raw(at, _) => {
                *value.pointer_mut(&places[at.index(places.len())]).unwrap() = mark(n).into();
            }
            Change::Byte(..) | Change::Cut(_) | Change::Twice(..) => {}
        }
    }
    let mut text = value.to_string();
    for (n, change) in changes.iter().enumerate() {
        match (change, value.as_object()) {
            (Change::Raw(_, raw), _) => text = text.replace(&Value::from(mark(n)).to_string(), raw),
            (Change::Twice(at, again), Some(members)) if !members.is_empty() => {
                let name = members.keys().nth(at.index(members.len())).unwrap();
                text.insert_str(1, &format!("{}:{again},", Value::from(name.as_str())));
            }
            _ => {}
        }
    }
    let mut bytes = text.into_bytes();
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

/// A route of another server's, and a body that its clients send.
fn good_of_other_servers() -> impl Strategy<Value = (String, Value)> {
    let recorded = RECORDED
        .into_iter()
        .flat_map(|name| pairs_of(name).1)
        .map(|mut pair| (pair["path"].as_str().unwrap().to_owned(), pair["request"].take()));
    let least = PATHS.into_iter().map(|path| (path.to_owned(), body_of(path).unwrap()));
    let audience = json!({"groups": [{"group": {"country": "UK"}, "weight": 0.7}, {"group": {}}],
        "aggregate": ["maxmin", "p20", "softmin", "nash"], "temperature": 0.1, "disagreement": 0.2});
    let ours = [
        (
            "/score".to_owned(),
            json!({"model": "lore", "reward_scale": "win_rate", "audience": audience,
                "items": [{"prompt": "Name a fish.", "responses": ["A trout.", "Fish."]}]}),
        ),
        (
            "/tournament".to_owned(),
            json!({"model": "lore", "prompt": "", "responses": ["A trout.", "Fish."], "beta": 0.1,
                "audience": {"groups": [{"group": {"country": "UK"}}, {"group": {}, "weight": 2}]}}),
        ),
    ];
    prop::sample::select(recorded.chain(least).chain(ours).collect::<Vec<_>>())
}

/// What the query string may add, to the point of contradiction.
fn more_of_the_query() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "user_id=ada",
        "user_id=bob&model=lore",
        "group=country:UK&aggregate=min",
        "group=country:FR",
        "group=country:UK&aggregate=maxmin",
        "labels=user_id",
        "template=chatml",
        "on_overflow=truncate",
        "shape=number",
        "scores=raw",
    ])
}

/// Whether an error is in the words of its route.
fn is_of_its_route(path: &str, reply: &Reply) -> bool {
    let json = reply.json();
    let is_problem = reply.header("content-type") == "application/problem+json"
        && json["type"].as_str().is_some_and(|kind| kind.starts_with("/problems/"));
    let is_json = reply.header("content-type") == "application/json";
    let is_openai = is_json && json["error"]["message"].is_string() && json["error"]["code"].is_u64();
    let is_tei = is_json && json["error"].is_string() && json["error_type"].is_string();
    match path.split('?').next().unwrap() {
        "/get_reward" | "/rm" | "/tournament" => is_problem,
        "/predict" | "/embed" => is_tei,
        // Two formats share each, and the body says which it is.
        "/score" | "/v1/score" => is_problem || is_openai,
        "/rerank" => is_openai || is_tei,
        _ => is_openai,
    }
}

/// A place that holds null: where a number should be, a trainer makes NaN of it.
fn holds_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.iter().any(holds_null),
        Value::Object(members) => {
            members.iter().any(|(name, value)| !name.contains("condorcet") && holds_null(value))
        }
        _ => false,
    }
}

#[test]
fn a_mutated_body_of_another_server_s_client_is_answered_or_refused_in_the_words_of_its_route() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Server::with_people(people()));
    let changes = prop::collection::vec(change_of_other_servers(), 0..4);
    let config = ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |((path, body) in good_of_other_servers(), more in more_of_the_query(), changes in changes)| {
        let bytes = apply(body, &changes);
        let path = format!("{path}{}{more}", if path.contains('?') { "&" } else { "?" });
        let reply = runtime.block_on(server.send(json_request(Method::POST, &path, bytes.clone())));
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(reply.status.as_u16() < 500, "{path} {}: {text}", reply.status);
        if reply.status == 200 {
            prop_assert_eq!(reply.header("content-type"), "application/json");
            // A number that is not finite is no JSON, or null.
            prop_assert!(!holds_null(&reply.json()), "{path} {}: {text}", reply.text());
        } else {
            prop_assert!(reply.status.is_client_error(), "{path} {}: {text}", reply.status);
            prop_assert!(is_of_its_route(&path, &reply), "{path} {}: {text}", reply.text());
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
