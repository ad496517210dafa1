//! What holds of every compatibility route, whoever's it is.

use std::pin::Pin;

use axum::{
    body::{Body, Bytes},
    http::Method,
};
use futures::{FutureExt, StreamExt, stream};
use polyreward_http::Limits;
use serde_json::{Value, json};

use crate::{
    fixture::{Reply, Server, json_request},
    people::people,
};

#[tokio::test]
async fn trainers_that_give_up_after_a_few_refusals_wait_for_a_place() {
    let server = Server::with_limits(Limits { max_in_flight: 1, ..Limits::default() }).await;
    let never = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b" "))]).chain(stream::pending());
    let mut held = Box::pin(server.send(json_request(Method::POST, "/score", Body::from_stream(never))));
    let native = async || server.score(&json!({})).await;
    is_full(held.as_mut(), native).await;
    for (path, body) in [
        ("/get_reward", json!({"query": ["A trout."]})),
        ("/rm", json!({"prompt": "", "response": "A trout."})),
    ] {
        let mut waiting = Box::pin(server.post(path, &body));
        assert!(waiting.as_mut().now_or_never().is_none());
        // Its own deadline is the end of its patience.
        let mut hurried = json_request(Method::POST, path, body.to_string());
        hurried.headers_mut().insert("x-request-timeout-ms", "20".parse().unwrap());
        server.send(hurried).await.problem(503, "overloaded");
    }
    let body = json!({"query": ["A trout."]});
    let mut waiting = Box::pin(server.post("/get_reward", &body));
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(held);
    waiting.await.ok();
}

async fn is_full(mut held: Pin<&mut impl Future<Output = Reply>>, other: impl AsyncFn() -> Reply) {
    loop {
        assert!(held.as_mut().now_or_never().is_none());
        if other().await.status == 503 {
            return;
        }
    }
}

/// Every compatibility route.
pub const PATHS: [&str; 12] = [
    "/get_reward",
    "/rm",
    "/classify",
    "/v1/classify",
    "/pooling",
    "/rerank",
    "/v1/rerank",
    "/v2/rerank",
    "/v1/embeddings",
    "/v1/chat/completions",
    "/predict",
    "/embed",
];

/// A body that a compatibility route takes.
pub fn body_of(path: &str) -> Option<Value> {
    Some(match path {
        "/get_reward" => json!({"query": ["hi there"], "prompts": ["hi"], "labels": [""]}),
        "/rm" => json!({"prompt": "hi", "response": "there"}),
        "/classify" | "/v1/classify" | "/pooling" | "/v1/embeddings" => json!({"input": "hi there"}),
        "/rerank" | "/v1/rerank" | "/v2/rerank" => json!({"query": "hi", "documents": ["there"]}),
        "/v1/chat/completions" => {
            json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "there"}]})
        }
        "/predict" | "/embed" => json!({"inputs": "hi there"}),
        _ => return None,
    })
}

#[tokio::test]
async fn the_query_names_model_and_person_and_a_body_that_contradicts_it_is_refused() {
    let server = Server::with_people(people()).await;
    for path in PATHS {
        let body = body_of(path).unwrap();
        let of = async |query: &str| server.post(&format!("{path}?model=lore{query}"), &body).await;
        let (ada, bob) = (of("&user_id=ada").await, of("&user_id=bob").await);
        assert_ne!(without_ids(ada.ok()), without_ids(bob.ok()), "{path}");
        assert!(ada.header("x-model-version").starts_with("lore@"), "{path}");
        assert_ne!(ada.header("x-user-state-version"), bob.header("x-user-state-version"), "{path}");
        of("&group=country:UK&group=country:UK&aggregate=min").await.ok();
        for (query, status) in [
            ("&user_id=a%20b", 400),
            ("&user_id=ada&group=country:UK", 400),
            ("&group=country", 400),
            ("&no=such", 400),
            ("&model=bt", 400),
        ] {
            of(query).await.refusal(status, "invalid-parameter");
        }
        assert!(of("&group=country:XX").await.status.is_client_error(), "{path}");
        if ["/get_reward", "/rm"].contains(&path) {
            continue;
        }
        let with = async |query: &str, key: &str, value: &str| {
            let mut body = body.clone();
            body[key] = json!(value);
            server.post(&format!("{path}?{query}"), &body).await
        };
        with("model=lore&user_id=ada", "user_id", "ada").await.ok();
        assert_eq!(
            without_ids(with("model=lore", "user_id", "ada").await.ok()),
            without_ids(ada.ok()),
            "{path}"
        );
        let message = with("model=lore&user_id=ada", "user_id", "bob").await.refusal(422, "contradiction");
        assert!(message.contains("/user_id contradicts user_id of the query"), "{path} {message}");
        with("group=country:UK", "user_id", "bob").await.refusal(422, "contradiction");
    }
    for path in PATHS.into_iter().filter(|path| path.starts_with("/v") || path.contains("rerank")) {
        let mut body = body_of(path).unwrap();
        body["model"] = json!("bt");
        let message = server.post(&format!("{path}?model=lore"), &body).await.refusal(422, "contradiction");
        assert!(message.contains("/model contradicts model of the query"), "{path} {message}");
    }
}

/// An answer without what differs between two requests for the same.
fn without_ids(mut json: Value) -> Value {
    for key in ["id", "meta_info"] {
        if let Some(members) = json.as_object_mut() {
            members.remove(key);
        }
    }
    json
}

#[tokio::test]
async fn an_error_is_in_the_words_of_its_route_whatever_went_wrong() {
    let server = Server::with_limits(Limits { max_body_bytes: 20_000, ..Limits::default() }).await;
    for path in PATHS {
        let send = async |body: &str, headers: &[(&'static str, &str)]| {
            let mut request = json_request(Method::POST, path, body.to_owned());
            for (name, value) in headers {
                request.headers_mut().insert(*name, value.parse().unwrap());
            }
            server.send(request).await
        };
        send("{", &[]).await.refusal(400, "malformed-json");
        send("", &[]).await.refusal(400, "malformed-json");
        send(&" ".repeat(30_000), &[]).await.refusal(413, "body-too-large");
        send("{}", &[("content-type", "text/plain")]).await.refusal(415, "unsupported-media-type");
        send("{}", &[("x-request-timeout-ms", "soon")]).await.refusal(400, "invalid-header");
        let late = send(&body_of(path).unwrap().to_string(), &[("grpc-timeout", "1n")]).await;
        assert!([503, 408].contains(&late.status.as_u16()), "{path} {}", late.text());
        let words = late.json();
        match path {
            "/get_reward" | "/rm" => assert!(words["type"].as_str().unwrap().starts_with("/problems/")),
            "/predict" | "/embed" => assert!(words["error"].is_string()),
            _ => assert!(words["error"]["message"].is_string()),
        }
        for body in ["[]", "5", "null", "{}"] {
            assert!(send(body, &[]).await.status.is_client_error(), "{path} {body}");
        }
        let got = server.get(path).await;
        got.refusal(405, "method-not-allowed");
        assert_eq!(got.header("allow"), "POST", "{path}");
    }
}

#[tokio::test]
async fn more_texts_than_one_request_may_have_are_refused_with_the_limit() {
    let server = Server::with_limits(Limits { max_batch: 3, ..Limits::default() }).await;
    let many = ["a", "b", "c", "d"];
    for (path, body) in [
        ("/get_reward", json!({"query": many})),
        ("/classify", json!({"input": many})),
        ("/classify", json!({"text": many})),
        ("/classify", json!({"input": many, "raw_scores": true})),
        ("/pooling", json!({"input": many})),
        ("/score", json!({"queries": "a", "documents": many})),
        ("/v1/embeddings", json!({"input": many})),
        ("/rerank", json!({"query": "a", "documents": many})),
        ("/rerank", json!({"query": "a", "texts": many})),
        ("/predict", json!({"inputs": many.map(|text| [text])})),
        ("/embed", json!({"inputs": many})),
    ] {
        let reply = server.post(path, &body).await;
        reply.refusal(413, "too-many-texts");
        assert!(reply.text().contains("max_batch") && reply.text().contains('3'), "{}", reply.text());
    }
}

#[tokio::test]
async fn an_error_quotes_nothing_of_the_texts() {
    let server = Server::new().await;
    let secret = "the-secret-text";
    let long = format!("{secret} ").repeat(100);
    for (path, body) in [
        ("/get_reward?on_overflow=error", json!({"query": [long]})),
        ("/get_reward", json!({"query": [{"text": secret}]})),
        ("/get_reward?labels=user_id", json!({"query": ["a"], "labels": [format!("{secret} x")]})),
        ("/rm", json!({"prompt": [secret], "response": secret})),
        ("/classify", json!({"input": long})),
        ("/classify", json!({"input": [secret, 5]})),
        ("/classify", json!({"messages": [{"role": "user", "content": secret}]})),
        ("/classify", json!({"messages": [{"role": "user", "content": [{"type": secret}]}]})),
        ("/classify", json!({"text": format!("{secret}\0")})),
        ("/score", json!({"queries": long, "documents": [secret]})),
        ("/rerank", json!({"query": secret, "documents": [{"title": secret}]})),
        ("/predict", json!({"inputs": [secret, secret, secret]})),
        ("/predict", json!({"inputs": [[secret], secret]})),
        ("/embed?user_id=a", json!({"inputs": "a", "user_id": secret})),
    ] {
        let reply = server.post(path, &body).await;
        assert!(reply.status.is_client_error(), "{path} {}", reply.text());
        assert!(!reply.text().contains(secret), "{path} {}", reply.text());
    }
    assert!(!server.log.text().contains(secret));
}
