//! What SGLang's clients send, verl's among them, and what they need of the answers.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    chat_server,
    vllm::{TEMPLATED, ids_of, messages},
};
use crate::{
    fixture::Server,
    people::{TEXTS, near, people},
};

#[tokio::test]
async fn a_string_gets_an_object_and_a_list_a_list() {
    let server = Server::with_people(people()).await;
    let one = server.post("/classify?model=lore", &json!({"text": TEXTS[0]})).await.ok();
    let many = server.post("/classify?model=lore", &json!({"text": TEXTS})).await.ok();
    let (one, many) = (one["embedding"][0].clone(), many.as_array().unwrap().clone());
    assert_eq!((many.len(), &many[0]["embedding"][0]), (4, &one));
    for (at, entry) in many.iter().enumerate() {
        assert!(entry["meta_info"]["prompt_tokens"].as_u64().unwrap() > 2, "{at}");
        assert!(entry["meta_info"]["e2e_latency"].as_f64().unwrap() > 0.0);
    }
    let of_list = server.post("/classify?model=lore", &json!({"text": [TEXTS[0]]})).await.ok();
    assert_eq!(of_list[0]["embedding"][0], one);
    let ada = server.post("/classify?model=lore&user_id=ada", &json!({"text": TEXTS[0]})).await.ok();
    assert_ne!(ada["embedding"][0], one);
}

#[tokio::test]
async fn one_logit_is_not_squashed_to_one() {
    let server = Server::with_people(people()).await;
    let body = json!({"model": "lore", "input": TEXTS});
    let data = server.post("/v1/classify", &body).await.ok()["data"].clone();
    let probs: Vec<f64> =
        data.as_array().unwrap().iter().map(|one| one["probs"][0].as_f64().unwrap()).collect();
    assert!(probs.iter().all(|prob| (0.0..1.0).contains(prob)), "{probs:?}");
    assert!(probs.windows(2).all(|pair| pair[0] != pair[1]), "{probs:?}");
}

#[tokio::test]
async fn an_embedding_is_the_raw_reward() {
    let server = chat_server().await;
    let raw = server.post("/classify", &json!({"messages": messages(), "use_activation": false})).await.ok();
    let raw = raw["data"][0]["probs"][0].as_f64().unwrap();
    let verl = server.post("/v1/embeddings", &json!({"model": "bt", "input": TEMPLATED})).await.ok();
    let data = verl["data"].as_array().unwrap();
    let last = data.last().unwrap()["embedding"].as_array().unwrap();
    assert!(near(&[last.last().unwrap().as_f64().unwrap()], &[raw]), "{verl}");
    assert_eq!((last.len(), &verl["object"], &data[0]["object"]), (1, &json!("list"), &json!("embedding")));
    let native = server.post("/classify", &json!({"text": TEMPLATED})).await.ok();
    assert!(near(&[native["embedding"][0].as_f64().unwrap()], &[raw]));
    // OpenAI's own client asks for Base64.
    let body = json!({"model": "bt", "input": [TEMPLATED, TEMPLATED], "encoding_format": "base64"});
    let coded = server.post("/v1/embeddings", &body).await.ok();
    let bytes = BASE64_STANDARD.decode(coded["data"][1]["embedding"].as_str().unwrap()).unwrap();
    assert!(near(&[f64::from(f32::from_le_bytes(bytes.try_into().unwrap()))], &[raw]));
}

#[tokio::test]
async fn blank_texts_are_refused_and_ids_are_the_text() {
    let server = Server::new().await;
    let post = async |path: &str, body: Value| server.post(path, &body).await;
    for blank in [json!(""), json!(" \n"), json!(["a", ""])] {
        post("/classify", json!({"text": blank})).await.refusal(400, "empty-input");
        post("/v1/embeddings", json!({"input": blank})).await.refusal(400, "empty-input");
    }
    post("/classify", json!({"text": []})).await.refusal(400, "empty-input");
    let raw = post("/classify", json!({"text": "A trout."})).await.ok()["embedding"].clone();
    let ids = ids_of(&server, "A trout.");
    let alone = post("/classify", json!({"input_ids": ids})).await.ok();
    assert_eq!((&alone["embedding"], &alone["meta_info"]["prompt_tokens"]), (&raw, &json!(ids.len())));
    assert_eq!(post("/classify", json!({"input_ids": [ids]})).await.ok()[0]["embedding"], raw);
    let coded = post("/v1/embeddings", json!({"model": "bt", "input": [ids, ids]})).await.ok();
    assert_eq!(coded["data"][1]["embedding"], raw);
    for bad in [
        json!({"input_ids": ids, "text": "a"}),
        json!({"input_ids": "a"}),
        json!({"text": ids}),
        json!({"input_ids": []}),
        json!({"input_ids": [[]]}),
    ] {
        post("/classify", bad).await.refusal(400, "invalid-input");
    }
    let long = "word ".repeat(200);
    post("/classify", json!({"text": long})).await.refusal(422, "invalid-input");
    post("/classify?on_overflow=truncate", json!({"text": long})).await.ok();
}

#[tokio::test]
async fn a_body_of_classify_that_could_be_two_formats_names_both() {
    let server = Server::new().await;
    let message = server.post("/classify", &json!({"text": "a", "messages": messages()})).await;
    let message = message.refusal(422, "ambiguous-body");
    assert!(message.contains("/messages") && message.contains("/text"), "{message}");
    assert!(message.contains("vLLM") && message.contains("SGLang"), "{message}");
    server.post("/classify", &json!({"text": null, "input": "a"})).await.ok();
}
