//! Other servers' formats: what their clients send, and what they read of the answer, as recorded pairs in `compat/recorded/`
//! (`RECORD_PAIRS=1` writes the answers anew), and as laws in one file a server.

mod nim;
mod openrlhf;
mod rerank;
mod sglang;
pub mod shared;
mod slime;
mod tei;
mod vllm;

use std::path::{Path, PathBuf};

use axum::http::{HeaderValue, Method};
use serde_json::{Value, json};

use crate::{
    fixture::{Reply, Server, chat_backbone, json_request},
    people::people,
};

pub const RECORDED: [&str; 7] =
    ["openrlhf.json", "slime.json", "vllm.json", "sglang.json", "tei.json", "rerank.json", "nim.json"];

/// What other servers' clients have in common with nobody: each pair says all of a request, and all of its answer that
/// is not the time.
pub fn pairs_of(name: &str) -> (PathBuf, Vec<Value>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/compat/recorded").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    (path, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}")))
}

async fn send(server: &Server, path: &str, body: &Value) -> Reply {
    let mut request = json_request(Method::POST, path, body.to_string());
    request.headers_mut().insert("x-request-id", HeaderValue::from_static("recorded"));
    server.send(request).await
}

/// A reply without what differs from run to run: versions of models are hashes of trained weights.
fn recorded(reply: &Reply) -> Value {
    const HEADERS: [&str; 6] = [
        "content-type",
        "x-model-version",
        "retry-after",
        "x-compute-type",
        "x-compute-tokens",
        "x-compute-characters",
    ];
    let header = |name: &str| {
        let value = reply.headers.get(name)?.to_str().unwrap();
        Some((name.to_owned(), without_version(value).into()))
    };
    let headers: serde_json::Map<String, Value> = HEADERS.into_iter().filter_map(header).collect();
    json!({"status": reply.status.as_u16(), "headers": headers, "body": without_times(reply.json())})
}

fn without_version(text: &str) -> String {
    match text.split_once('@') {
        Some((name, version)) if version.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            format!("{name}@[version]")
        }
        _ => text.to_owned(),
    }
}

fn without_times(value: Value) -> Value {
    match value {
        Value::String(text) => without_version(&text).into(),
        Value::Array(values) => values.into_iter().map(without_times).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| {
                let value = if name == "e2e_latency" { "[seconds]".into() } else { without_times(value) };
                (name, value)
            })
            .collect(),
        other => other,
    }
}

/// Whether two answers are the same, numbers within what machines differ by.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-3,
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

async fn hold_to(server: &Server, name: &str) {
    let (path, mut pairs) = pairs_of(name);
    let record = std::env::var_os("RECORD_PAIRS").is_some();
    for pair in &mut pairs {
        let reply = send(server, pair["path"].as_str().unwrap(), &pair["request"]).await;
        let found = recorded(&reply);
        if record {
            pair["response"] = found;
        } else {
            assert!(same(&pair["response"], &found), "{name}, {}: {found:#}", pair["name"]);
        }
    }
    if record {
        std::fs::write(path, format!("{}\n", serde_json::to_string_pretty(&pairs).unwrap())).unwrap();
    }
    assert!(pairs.len() > 2, "{name}");
}

#[tokio::test]
async fn every_recorded_request_gets_its_recorded_answer() {
    let server = Server::with_people(people()).await;
    for name in RECORDED {
        hold_to(&server, name).await;
    }
}

/// A server whose backbone has a chat template.
async fn chat_server() -> Server {
    Server::on(chat_backbone()).await
}
