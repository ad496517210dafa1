//! What the clients of text-embeddings-inference send, and what they need of the answers.

use serde_json::{Value, json};

use crate::{
    fixture::{Reply, Server},
    people::{TEXTS, near, numbers, people, rewards},
};

fn score(one: &Value) -> f64 {
    assert_eq!(one["label"], "reward", "{one}");
    one["score"].as_f64().unwrap()
}

#[track_caller]
fn tokens(reply: &Reply) -> usize {
    reply.ok();
    reply.header("x-compute-tokens").parse().unwrap()
}

#[tokio::test]
async fn two_texts_are_one_pair_and_lists_of_them_a_batch() {
    let server = Server::with_people(people()).await;
    let native = rewards(&server, json!({})).await;
    let predict = async |inputs: Value| {
        server.post("/predict?model=lore", &json!({"inputs": inputs, "raw_scores": true})).await.ok()
    };
    let pair = predict(json!(["Name a fish.", TEXTS[0]])).await;
    assert_eq!(pair.as_array().unwrap().len(), 1);
    assert!(near(&[score(&pair[0])], &native[..1]));
    let single = score(&predict(json!(TEXTS[0])).await[0]);
    let batch = predict(json!([["Name a fish.", TEXTS[1]], [TEXTS[0]], ["Name a fish.", TEXTS[0]]])).await;
    let batch: Vec<f64> = batch.as_array().unwrap().iter().map(|one| score(&one[0])).collect();
    assert!(near(&batch, &[native[1], single, native[0]]), "{batch:?}");
    let squashed = server.post("/predict?model=lore", &json!({"inputs": TEXTS[0]})).await.ok();
    assert!((0.0..=1.0).contains(&score(&squashed[0])));
    let ada = rewards(&server, json!({"user_id": "ada"})).await;
    let body = json!({"inputs": ["Name a fish.", TEXTS[0]], "raw_scores": true});
    assert!(near(&[score(&server.post("/predict?model=lore&user_id=ada", &body).await.ok()[0])], &ada[..1]));
}

#[tokio::test]
async fn headers_say_what_an_answer_cost() {
    let server = Server::new().await;
    let native = json!({"items": [{"prompt": "Name a fish.", "responses": ["A trout."]}]});
    let usage = server.score(&native).await.ok()["usage"]["tokens"].as_u64().unwrap();
    let reply = server.post("/predict", &json!({"inputs": ["Name a fish.", "A trout."]})).await;
    assert_eq!(tokens(&reply) as u64, usage);
    assert_eq!(reply.header("x-compute-characters"), "20");
    assert_eq!(reply.header("x-compute-type"), "cpu");
    for time in ["x-compute-time", "x-total-time", "x-inference-time"] {
        assert!(reply.header(time).parse::<u64>().is_ok(), "{time}");
    }
    // A text that is there twice was read twice as far as its client can tell.
    let twice = server.post("/predict", &json!({"inputs": [["A trout."], ["A trout."]]})).await;
    let once = server.post("/predict", &json!({"inputs": "A trout."})).await;
    assert_eq!(tokens(&twice), 2 * tokens(&once));
}

#[tokio::test]
async fn info_has_what_its_clients_read() {
    let server = Server::new().await;
    let info = server.get("/info").await.ok();
    assert_eq!(info["model_id"], info["default_model"]);
    assert_eq!(info["max_input_length"], 64);
    assert_eq!(info["max_client_batch_size"], info["limits"]["max_batch"]);
    assert_eq!(info["max_concurrent_requests"], info["limits"]["max_in_flight"]);
    assert_eq!((&info["auto_truncate"], info["version"].is_string()), (&json!(true), true));
}

#[tokio::test]
async fn texts_are_ranked_from_the_best_to_the_worst() {
    let server = Server::with_people(people()).await;
    let native = rewards(&server, json!({"user_id": "ada"})).await;
    let body = json!({"query": "Name a fish.", "texts": TEXTS, "raw_scores": true, "return_text": true});
    let ranked = server.post("/rerank?model=lore&user_id=ada", &body).await.ok();
    let ranked = ranked.as_array().unwrap();
    assert_eq!(ranked.len(), TEXTS.len());
    for pair in ranked.windows(2) {
        assert!(pair[0]["score"].as_f64() >= pair[1]["score"].as_f64());
    }
    for one in ranked {
        let index = usize::try_from(one["index"].as_u64().unwrap()).unwrap();
        assert_eq!(one["text"], TEXTS[index]);
        assert!(near(&[one["score"].as_f64().unwrap()], &[native[index]]));
    }
    let bare = server.post("/rerank", &json!({"query": "", "texts": TEXTS})).await.ok();
    assert!(bare[0].get("text").is_none() && (0.0..=1.0).contains(&bare[0]["score"].as_f64().unwrap()));
}

#[tokio::test]
async fn an_embedding_is_the_raw_reward_and_is_not_normalised() {
    let server = Server::new().await;
    let raw = server.post("/classify", &json!({"text": TEXTS})).await.ok();
    let vectors = server.post("/embed", &json!({"inputs": TEXTS})).await.ok();
    for at in 0..TEXTS.len() {
        assert_eq!(numbers(&vectors[at]), numbers(&raw[at]["embedding"]));
    }
    server.post("/embed", &json!({"inputs": "a", "normalize": false, "dimensions": 1})).await.ok();
    for (key, value) in
        [("normalize", json!(true)), ("dimensions", json!(384)), ("prompt_name", json!("query"))]
    {
        let mut body = json!({"inputs": "a"});
        body[key] = value;
        let reply = server.post("/embed", &body).await;
        reply.refusal(422, "not-supported");
        assert_eq!(reply.json()["error_type"], "Validation");
    }
}

#[tokio::test]
async fn errors_have_its_types_and_statuses() {
    let server = Server::new().await;
    let long = "word ".repeat(200);
    let cases = [
        ("/predict", json!({"inputs": 5}), 422, "Validation"),
        ("/predict", json!({"inputs": ["a", "b", "c"]}), 422, "Validation"),
        ("/predict", json!({"inputs": []}), 400, "Empty"),
        ("/predict", json!({"inputs": "a\0"}), 422, "Tokenizer"),
        ("/predict", json!({"inputs": long, "truncate": false}), 422, "Validation"),
        ("/predict", json!({"inputs": long, "truncation_direction": "Right"}), 422, "Validation"),
        ("/predict", json!({"inputs": "a", "truncation_direction": "up"}), 422, "Validation"),
        ("/predict", json!({"inputs": vec![["a"]; 1025]}), 413, "Validation"),
        ("/predict?model=pal-a", json!({"inputs": "a"}), 422, "Validation"),
        ("/predict?user=ada", json!({"inputs": "a"}), 400, "Validation"),
        ("/rerank", json!({"texts": ["a"]}), 422, "Validation"),
        ("/rerank", json!({"query": "a", "texts": []}), 400, "Empty"),
        ("/rerank", json!({"query": "a", "texts": ["b\0"]}), 422, "Tokenizer"),
        ("/embed", json!({"inputs": [1, u32::MAX]}), 422, "Validation"),
        ("/embed", json!({"inputs": [1, "a"]}), 422, "Validation"),
    ];
    for (path, body, status, kind) in cases {
        let reply = server.post(path, &body).await;
        reply.refusal(status, "");
        assert_eq!(reply.json()["error_type"], kind, "{path} {}", reply.text());
    }
    for (body, direction) in [(&long, "left"), (&"short".to_owned(), "right")] {
        server.post("/predict", &json!({"inputs": body, "truncation_direction": direction})).await.ok();
    }
    let gone = Server::empty(crate::fixture::backbone(), polyreward_http::Limits::default()).await;
    let reply = gone.post("/predict", &json!({"inputs": "a"})).await;
    reply.refusal(503, "no-model");
    assert_eq!(reply.json()["error_type"], "Unhealthy");
}
