//! What holds of every compatibility route, whoever's it is.

use std::pin::Pin;

use axum::{
    body::{Body, Bytes},
    http::Method,
};
use futures::{FutureExt, StreamExt, stream};
use polyreward_http::Limits;
use serde_json::json;

use crate::fixture::{Reply, Server, json_request};

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
