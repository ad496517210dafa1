//! Probes, information, metrics, documentation, ids, logs.

use axum::{
    body::Body,
    http::{HeaderValue, Method},
};
use serde_json::json;

use crate::fixture::{Server, json_request, request};

#[tokio::test]
async fn probes_answer_under_every_name() {
    let server = Server::new().await;
    for path in ["/health", "/livez", "/ping", "/v2/health/live"] {
        assert_eq!(server.get(path).await.ok(), json!({"status": "ok"}), "{path}");
    }
    let ready = json!({"ready": true, "checks": {"backbone": true, "database": true, "models": true, "accepting": true}});
    for path in ["/ready", "/readyz", "/v2/health/ready"] {
        assert_eq!(server.get(path).await.ok(), ready, "{path}");
    }
}

#[tokio::test]
async fn a_draining_server_is_alive_but_not_ready() {
    let server = Server::new().await;
    server.state.readiness().drain();
    let problem = server.get("/ready").await.problem(503, "draining");
    insta::assert_json_snapshot!(problem);
    let health = server.get("/health").await;
    health.ok();
    assert_eq!(health.header("connection"), "close");
    server.score(&json!({"items": [{"prompt": "", "responses": ["x"]}]})).await.ok();
}

#[tokio::test]
async fn info_says_what_the_server_is_and_takes() {
    let server = Server::new().await;
    insta::assert_json_snapshot!(server.get("/info").await.ok(), {
        ".version" => "[version]",
        ".backbone.hash" => "[hash]",
        ".models[]" => "bt@[version]",
        ".default_model" => "bt@[version]",
        ".embedding_cache" => "[counts]",
        ".queue.texts" => "[count]",
    });
}

#[tokio::test]
async fn an_id_is_echoed_or_made() {
    let server = Server::new().await;
    let id_of = async |id: &[u8]| {
        let mut request = request(Method::GET, "/nothing", Body::empty());
        request.headers_mut().insert("x-request-id", HeaderValue::from_bytes(id).unwrap());
        server.send(request).await.header("x-request-id").to_owned()
    };
    assert_eq!(id_of(b"step-7:3").await, "step-7:3");
    for bad in [&b"<script>"[..], b"a b", &[b'x'; 500], b"\xff"] {
        let id = id_of(bad).await;
        assert_eq!(id.len(), 36, "{id}");
    }
    assert_ne!(
        server.get("/health").await.header("x-request-id"),
        server.get("/health").await.header("x-request-id")
    );
}

#[tokio::test]
async fn every_reply_has_the_headers_that_protect_a_browser() {
    let server = Server::new().await;
    for path in ["/health", "/nothing", "/docs/", "/info"] {
        let reply = server.get(path).await;
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert!(reply.header("content-security-policy").starts_with("default-src 'none'"), "{path}");
        assert_eq!(reply.header("x-frame-options"), "DENY", "{path}");
    }
}

#[tokio::test]
async fn the_documentation_is_a_page_that_loads_nothing_from_elsewhere() {
    let server = Server::new().await;
    let redirect = server.get("/docs").await;
    assert_eq!((redirect.status.as_u16(), redirect.header("location")), (308, "docs/"));
    let page = server.get("/docs/").await;
    assert!(page.header("content-type").starts_with("text/html"));
    let text = page.text();
    assert!(!text.contains("http://") && !text.contains("https://"), "{text}");
    let mut loaded = 0;
    for rest in ["src=\"", "href=\""].iter().flat_map(|attribute| text.split(attribute).skip(1)) {
        let target = rest.split('"').next().unwrap();
        let file = server.get(&format!("/docs/{}", target.trim_start_matches("./"))).await;
        assert_eq!(file.status, 200, "{target}");
        loaded += 1;
    }
    assert!(loaded >= 4, "{text}");
    assert!(server.get("/docs/swagger-initializer.js").await.text().contains("../openapi.json"));
    let document = server.get("/openapi.json").await.ok();
    assert_eq!(document["openapi"].as_str().unwrap().get(..3), Some("3.1"));
}

#[tokio::test]
async fn every_metric_is_described() {
    let server = Server::new().await;
    server.score(&json!({"items": [{"prompt": "", "responses": ["a metric"]}]})).await.ok();
    let text = server.get("/metrics").await.text();
    let described = |line: &str| {
        let name = line.strip_prefix("# TYPE ")?.split(' ').next()?;
        Some((name.to_owned(), text.contains(&format!("# HELP {name} "))))
    };
    let names: Vec<_> = text.lines().filter_map(described).collect();
    assert!(names.iter().any(|(name, _)| name == "polyreward_embedding_queue_seconds"), "{text}");
    let bare: Vec<_> = names.iter().filter(|(_, described)| !described).collect();
    assert!(bare.is_empty(), "{bare:?}");
}

#[tokio::test]
async fn metrics_count_requests_and_know_nobody() {
    let server = Server::new().await;
    let body = json!({"user_id": "somebody-in-particular", "pairs": [
        {"prompt": "a-secret-prompt", "response_a": "a-secret-answer", "response_b": "x"},
    ]});
    server.score(&body).await.ok();
    server.get("/some/unknown/path").await.problem(404, "not-found");
    server.send(request(Method::from_bytes(b"BREW").unwrap(), "/score", Body::empty())).await;
    let reply = server.get("/metrics").await;
    assert!(reply.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = reply.text();
    for expected in [
        r#"polyreward_http_requests_total{route="/score",method="POST",status="2xx"}"#,
        r#"polyreward_http_requests_total{route="none",method="GET",status="4xx"}"#,
        r#"polyreward_http_requests_total{route="/score",method="other",status="4xx"}"#,
        r#"polyreward_http_request_seconds_bucket{route="/score",method="POST",status="2xx",le="0.01"}"#,
        r#"polyreward_http_problems_total{type="/problems/not-found"}"#,
        "polyreward_rewards_total",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    for hidden in ["somebody", "secret", "unknown/path", "BREW"] {
        assert!(!text.contains(hidden), "{hidden}");
    }
}

#[tokio::test]
async fn texts_and_ids_are_never_logged_and_request_ids_are() {
    let server = Server::new().await;
    let secret = "a-secret-text";
    for response in [secret.to_owned(), format!("{secret}\0"), format!("{secret} ").repeat(50)] {
        let body = json!({"user_id": "somebody-in-particular", "on_overflow": "error", "pairs": [
            {"prompt": secret, "response_a": response, "response_b": "x"},
        ]});
        let mut request = json_request(Method::POST, "/score", body.to_string());
        request.headers_mut().insert("x-request-id", HeaderValue::from_static("step-7"));
        server.send(request).await;
    }
    server.send(json_request(Method::POST, "/score", format!("{{\"pairs\": \"{secret}\"}}"))).await;
    let log = server.log.text();
    assert!(log.contains("step-7"), "{log}");
    for hidden in ["secret", "somebody", "trout"] {
        assert!(!log.contains(hidden), "{hidden}");
    }
}
