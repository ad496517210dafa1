//! What a bad request gets: a problem that names what is wrong, and nothing else.

use std::{pin::Pin, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Method},
};
use futures::{FutureExt, StreamExt, future::join_all, stream};
use polyreward_backbone::BackboneOptions;
use polyreward_http::Limits;
use serde_json::{Value, json};

use crate::fixture::{Reply, Server, backbone, json_request, open_backbone, request};

fn good() -> Value {
    json!({"pairs": [{"prompt": "Name a fish.", "response_a": "A trout.", "response_b": "Fish."}]})
}

fn raw(body: impl Into<Body>) -> axum::http::Request<Body> {
    json_request(Method::POST, "/score", body)
}

#[tokio::test]
async fn what_is_not_json_is_a_400() {
    let server = Server::new().await;
    let surrogate = r#"{"pairs": [{"prompt": "\ud800", "response_a": "", "response_b": ""}]}"#;
    let deep = format!("{{\"pairs\": {}", "[".repeat(100_000));
    for body in ["", "  ", "{", "[1, 2", "nonsense", surrogate, "{\"a\"}"] {
        server.send(raw(body.to_owned())).await.problem(400, "malformed-json");
    }
    server.send(raw(b"{\"model\": \"\xff\"}".to_vec())).await.problem(400, "malformed-json");
    let deep = server.send(raw(deep)).await;
    assert!(deep.status.is_client_error(), "{}", deep.text());
    let nested = format!("{}{}", "{\"a\":".repeat(5000), "}".repeat(5000));
    assert!(server.send(raw(nested)).await.status.is_client_error());
}

#[tokio::test]
async fn every_wrong_field_is_named_by_a_pointer() {
    let server = Server::new().await;
    let entry = |key: &str, value: Value| {
        let mut body = good();
        body["pairs"][0][key] = value;
        body
    };
    let with = |key: &str, value: Value| {
        let mut body = good();
        body[key] = value;
        body
    };
    let cases = [
        (entry("prompt", json!(5)), "/pairs/0/prompt"),
        (entry("prompt", json!([])), "/pairs/0/prompt"),
        (entry("prompt", json!([{"role": "user", "content": "\0"}])), "/pairs/0/prompt/0/content"),
        (entry("prompt", json!([{"role": "user", "content": "x", "name": "y"}])), "/pairs/0/prompt/0/name"),
        (entry("prompt", json!("a\0b")), "/pairs/0/prompt"),
        (entry("response_a", json!(null)), "/pairs/0/response_a"),
        (entry("response_b", json!("\0")), "/pairs/0/response_b"),
        (entry("reponse_a", json!("")), "/pairs/0/reponse_a"),
        (with("pairs", json!([])), "/pairs"),
        (with("pairs", json!("x")), "/pairs"),
        (with("pairs", json!([{"prompt": ""}])), "/pairs/0/response_a"),
        (with("user_id", json!("a/b")), "/user_id"),
        (with("user_id", json!("")), "/user_id"),
        (with("user_ids", json!("ada")), "/user_ids"),
        (with("user_ids", json!(["a/b"])), "/user_ids/0"),
        (with("audience", json!({"group": {"country": 5}})), "/audience/group/country"),
        (with("audience", json!({"groups": {}})), "/audience/groups"),
        (with("users", json!(["ada"])), "/users"),
        (with("model", json!("../bt")), "/model"),
        (with("model", json!(7)), "/model"),
        (with("reward_scale", json!("log")), "/reward_scale"),
        (with("on_overflow", json!(true)), "/on_overflow"),
        (with("partial", json!("yes")), "/partial"),
        (json!({}), ""),
        (json!([]), ""),
        (json!({"items": [{"prompt": "", "responses": []}]}), "/items/0/responses"),
        (json!({"items": [{"prompt": "", "responses": ["a", 5]}]}), "/items/0/responses/1"),
    ];
    for (body, pointer) in cases {
        assert_eq!(server.score(&body).await.pointers(422, "invalid-input"), [pointer], "{body}");
    }
    let both = with("items", json!([{"prompt": "", "responses": [""]}]));
    assert_eq!(server.score(&both).await.pointers(422, "invalid-input"), ["/pairs", "/items"]);
    let body = json!({"user_id": "a b", "pairs": [
        {"prompt": "\0", "response_a": "\0", "response_b": "x"}, {"prompt": "", "response_a": "", "response_b": "\0"},
    ]});
    let reply = server.score(&body).await;
    insta::assert_json_snapshot!(reply.problem(422, "invalid-input"));
}

#[tokio::test]
async fn an_error_quotes_nothing_of_the_texts() {
    let server = Server::new().await;
    let secret = "the-secret-text";
    let bodies = [
        json!({"pairs": secret}),
        json!({"pairs": [secret]}),
        json!({"reward_scale": secret, "pairs": []}),
        json!({"pairs": [{"prompt": "", "response_a": [secret], "response_b": ""}]}),
        json!({"pairs": [{"prompt": {"text": secret}, "response_a": "", "response_b": ""}]}),
        json!({"pairs": [{"prompt": format!("{secret}\0"), "response_a": secret, "response_b": secret}]}),
        json!({"on_overflow": "error",
               "pairs": [{"prompt": format!("{secret} ").repeat(100), "response_a": "", "response_b": ""}]}),
    ];
    for body in bodies {
        let reply = server.score(&body).await;
        reply.problem(422, "invalid-input");
        assert!(!reply.text().contains(secret), "{}", reply.text());
    }
}

#[tokio::test]
async fn an_unknown_model_is_named() {
    let server = Server::new().await;
    for model in ["pal-a", "bt@ffffffff"] {
        let mut body = good();
        body["model"] = json!(model);
        let reply = server.score(&body).await;
        assert_eq!(reply.pointers(422, "unknown-model"), ["/model"]);
    }
}

#[tokio::test]
async fn too_many_texts_are_refused_with_the_limit() {
    let server = Server::new().await;
    let pairs = vec![good()["pairs"][0].clone(); 513];
    let problem = server.score(&json!({"pairs": pairs})).await.problem(413, "too-many-texts");
    assert_eq!(problem["limit"], json!({"name": "max_batch", "value": 1024}));
    let items = json!({"items": [{"prompt": "", "responses": vec![""; 1025]}]});
    server.score(&items).await.problem(413, "too-many-texts");
}

#[tokio::test]
async fn a_huge_body_is_refused_with_the_limit_declared_or_not() {
    let server = Server::with_limits(Limits { max_body_bytes: 1000, ..Limits::default() }).await;
    let mut declared = raw(vec![b' '; 5000]);
    declared.headers_mut().insert("content-length", HeaderValue::from(5000));
    let chunks = stream::iter((0..50).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 100]))));
    for request in [declared, raw(Body::from_stream(chunks))] {
        let problem = server.send(request).await.problem(413, "body-too-large");
        assert_eq!(problem["limit"], json!({"name": "max_body_bytes", "value": 1000}));
    }
    server.score(&good()).await.ok();
}

#[tokio::test]
async fn a_body_that_is_not_declared_as_json_is_a_415() {
    let server = Server::new().await;
    let send = async |content_type: &'static str, encoding: Option<&'static str>| {
        let mut request = request(Method::POST, "/score", Body::from(good().to_string()));
        request.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
        if let Some(encoding) = encoding {
            request.headers_mut().insert("content-encoding", HeaderValue::from_static(encoding));
        }
        server.send(request).await
    };
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=utf-16"]
    {
        send(content_type, None).await.problem(415, "unsupported-media-type");
    }
    send("application/json", Some("gzip")).await.problem(415, "unsupported-media-type");
    send("application/json; charset=utf-8", None).await.ok();
    let without = request(Method::POST, "/score", Body::from(good().to_string()));
    server.send(without).await.problem(415, "unsupported-media-type");
}

#[tokio::test]
async fn a_bad_deadline_names_its_header() {
    let server = Server::new().await;
    for (name, value) in
        [("x-request-timeout-ms", "0"), ("x-request-timeout-ms", "1.5"), ("grpc-timeout", "5")]
    {
        let mut request = raw(good().to_string());
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        let problem = server.send(request).await.problem(400, "invalid-header");
        assert_eq!(problem["errors"][0]["header"], name);
    }
}

#[tokio::test]
async fn a_deadline_that_passed_is_a_503_and_costs_no_inference() {
    let server =
        Server::on(open_backbone(&BackboneOptions { sessions: 1, ..BackboneOptions::default() })).await;
    let before = server.backbone.cache_stats().entries;
    let pairs: Vec<Value> = (0..500)
        .map(|n| json!({"prompt": format!("Number {n}"), "response_a": "a ".repeat(50), "response_b": "b ".repeat(50)}))
        .collect();
    let mut request = raw(json!({"pairs": pairs}).to_string());
    request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("1n"));
    server.send(request).await.problem(503, "deadline-exceeded");
    assert_eq!(server.backbone.queued_texts(), 0);
    assert_eq!(server.backbone.cache_stats().entries, before);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_a_408() {
    let server = Server::new().await;
    let mut request = raw(Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>()));
    request.headers_mut().insert("x-request-timeout-ms", HeaderValue::from_static("50"));
    server.send(request).await.problem(408, "body-timeout");
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_problems() {
    let server = Server::new().await;
    for path in ["/nothing", "/score/", "/docs/nothing.js", "/users/ada/fish"] {
        server.get(path).await.problem(404, "not-found");
    }
    let problem = server.get("/docs/%ff").await.problem(400, "invalid-parameter");
    assert_eq!(problem["errors"][0]["parameter"], "file");
    let reply = server.get("/score").await;
    reply.problem(405, "method-not-allowed");
    assert_eq!(reply.header("allow"), "POST");
    server.send(request(Method::DELETE, "/models", Body::empty())).await.problem(405, "method-not-allowed");
}

#[tokio::test]
async fn a_full_queue_is_a_503_and_leaves_nothing_behind() {
    let options =
        BackboneOptions { sessions: 1, max_queued_texts: 1, cache_bytes: 0, ..BackboneOptions::default() };
    // The model is trained elsewhere: a queue of one text is too short for that.
    let teacher = Server::new().await;
    let server = Server::empty(open_backbone(&options), Limits::default()).await;
    copy_models(&teacher, &server);
    server.post("/models/reload", &json!(null)).await.ok();
    let body = |n: usize| json!({"items": [{"prompt": format!("Number {n}"), "responses": ["A trout."]}]});
    let reward = async |n: usize| server.score(&body(n)).await.ok()["results"][0]["rewards"][0].clone();
    let before = reward(0).await;

    let bodies: Vec<Value> = (0..64).map(body).collect();
    let replies = join_all(bodies.iter().map(|body| server.score(body))).await;
    let (answered, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    assert!(!answered.is_empty() && !refused.is_empty());
    for reply in refused {
        reply.problem(503, "overloaded");
    }
    for reply in answered {
        assert_eq!(reply.json()["results"].as_array().unwrap().len(), 1);
    }
    assert_eq!(server.backbone.queued_texts(), 0);
    assert_eq!(reward(0).await, before);

    // Two texts can never stand in a queue of one: that is the request's size, not the load.
    let problem = server.score(&good()).await.problem(413, "too-many-texts");
    assert_eq!(problem["limit"], json!({"name": "max_queued_texts", "value": 1}));
}

fn copy_models(from: &Server, to: &Server) {
    fn copy(from: &std::path::Path, to: &std::path::Path) {
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                std::fs::create_dir_all(&to).unwrap();
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    copy(from.models.path(), to.models.path());
}

/// A request that holds its place until its body ends, which it does not.
fn endless(first: Vec<u8>) -> axum::http::Request<Body> {
    let chunk = stream::iter([Ok::<_, std::io::Error>(Bytes::from(first))]);
    raw(Body::from_stream(chunk.chain(stream::pending())))
}

/// Goes on with a request that never ends until it takes so much that another one is refused.
async fn hold(mut held: Pin<&mut impl Future<Output = Reply>>, other: impl AsyncFn() -> Reply) -> Reply {
    loop {
        assert!(held.as_mut().now_or_never().is_none());
        let reply = other().await;
        if reply.status == 503 {
            return reply;
        }
    }
}

#[tokio::test]
async fn more_requests_than_allowed_are_refused_at_once_and_probes_are_not() {
    let server = Server::with_limits(Limits { max_in_flight: 1, ..Limits::default() }).await;
    let mut held = Box::pin(server.send(endless(Vec::new())));
    hold(held.as_mut(), async || server.score(&good()).await).await.problem(503, "overloaded");
    let started = std::time::Instant::now();
    server.score(&good()).await.problem(503, "overloaded");
    assert!(started.elapsed() < Duration::from_millis(500));
    for probe in ["/health", "/ready", "/metrics"] {
        assert_eq!(server.get(probe).await.status, 200, "{probe}");
    }
    drop(held);
    server.score(&good()).await.ok();
}

#[tokio::test]
async fn bodies_take_no_more_memory_than_allowed() {
    let limits = Limits { max_body_bytes: 1000, max_pending_body_bytes: 1500, ..Limits::default() };
    let server = Server::with_limits(limits).await;
    let mut held = Box::pin(server.send(endless(vec![b' '; 1000])));
    let other = async || server.send(raw(vec![b' '; 900])).await;
    hold(held.as_mut(), other).await.problem(503, "overloaded");
    server.score(&good()).await.ok();
    drop(held);
    server.send(raw(vec![b' '; 900])).await.problem(400, "malformed-json");
}

#[tokio::test]
async fn without_a_model_nothing_is_scored_and_the_server_is_not_ready() {
    let server = Server::empty(backbone(), Limits::default()).await;
    server.score(&good()).await.problem(503, "no-model");
    server.get("/ready").await.problem(503, "not-ready");
}

#[tokio::test]
async fn a_stopped_backbone_is_a_503() {
    let options = BackboneOptions { sessions: 1, cache_bytes: 0, ..BackboneOptions::default() };
    let server = Server::on(open_backbone(&options)).await;
    server.score(&good()).await.ok();
    server.backbone.shutdown();
    server.score(&good()).await.problem(503, "not-ready");
    let problem = server.get("/ready").await.problem(503, "not-ready");
    assert_eq!(
        problem["checks"],
        json!({"backbone": false, "database": true, "models": true, "accepting": true})
    );
}
