//! What vLLM's clients send, verl's among them, and what they need of the answers.

use axum::http::StatusCode;
use base64::{Engine, prelude::BASE64_STANDARD};
use polyreward_backbone::EmbedInput;
use polyreward_domain::{Overflow, Prompt, TextForm};
use serde_json::{Value, json};

use super::chat_server;
use crate::{
    fixture::{Reply, Server},
    people::{TEXTS, near, numbers, people, rewards},
};

/// One text of a template that the tiny decoder has, and the conversation in it.
pub const TEMPLATED: &str = "<s><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello!<|im_end|></s>";

pub fn messages() -> Value {
    json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello!"}])
}

#[track_caller]
fn scores(reply: &Reply) -> Vec<f64> {
    let data = reply.ok()["data"].clone();
    let data = data.as_array().unwrap();
    data.iter()
        .enumerate()
        .map(|(at, one)| {
            assert_eq!(one["index"], at);
            one.get("score").or(one["probs"].get(0)).or(one["data"].get(0)).unwrap().as_f64().unwrap()
        })
        .collect()
}

#[tokio::test]
async fn one_prompt_is_for_all_responses_or_one_for_each() {
    let server = Server::with_people(people()).await;
    for (query, whose) in [("", json!({})), ("&user_id=ada", json!({"user_id": "ada"}))] {
        let native = rewards(&server, whose).await;
        for names in
            [["queries", "documents"], ["queries", "items"], ["text_1", "text_2"], ["data_1", "data_2"]]
        {
            for prompts in [json!("Name a fish."), json!(["Name a fish."]), json!(vec!["Name a fish."; 4])] {
                let body = json!({names[0]: prompts, names[1]: TEXTS, "use_activation": false});
                for path in ["/score", "/v1/score"] {
                    let reply = server.post(&format!("{path}?model=lore{query}"), &body).await;
                    assert!(near(&scores(&reply), &native), "{body}");
                    assert!(reply.header("x-model-version").starts_with("lore@"));
                }
            }
        }
    }
    let one = json!({"model": "lore", "queries": "Name a fish.", "documents": TEXTS[0]});
    assert_eq!(scores(&server.post("/score", &one).await).len(), 1);
}

#[tokio::test]
async fn other_lengths_are_a_400() {
    let server = Server::new().await;
    for (queries, documents) in [(2, 3), (3, 2), (2, 1), (0, 2)] {
        let body = json!({"queries": vec!["a"; queries], "documents": vec!["b"; documents]});
        let reply = server.post("/score", &body).await;
        let error = reply.json()["error"].clone();
        assert_eq!((reply.status, &error["param"]), (StatusCode::BAD_REQUEST, &json!("/documents")));
        assert_eq!((&error["type"], &error["code"]), (&json!("BadRequestError"), &json!(400)));
    }
    let empty = server.post("/score", &json!({"queries": "a", "documents": []})).await;
    empty.refusal(400, "empty-input");
}

#[tokio::test]
async fn messages_are_the_text_that_their_template_writes_bit_for_bit() {
    let server = chat_server().await;
    let score = async |path: &str, body: Value| scores(&server.post(path, &body).await)[0].to_bits();
    for path in ["/classify", "/v1/classify", "/pooling"] {
        for raw in [false, true] {
            let of_messages = score(path, json!({"messages": messages(), "use_activation": raw})).await;
            let of_text = score(path, json!({"input": TEMPLATED, "use_activation": raw})).await;
            let of_texts = score(path, json!({"input": [TEMPLATED], "softmax": raw})).await;
            assert_eq!((of_messages, of_messages), (of_text, of_texts), "{path}");
        }
    }
    let native = json!({"items": [{"prompt": [{"role": "user", "content": "hi"}], "responses": ["hello!"]}]});
    let native = numbers(&server.score(&native).await.ok()["results"][0]["rewards"]);
    let verl =
        server.post("/classify", &json!({"model": "bt", "input": TEMPLATED, "activation": false})).await;
    assert!(near(&scores(&verl), &native));
    let apart =
        server.post("/classify?template=chatml", &json!({"input": TEMPLATED, "activation": false})).await;
    assert!(near(&scores(&apart), &native));
}

#[tokio::test]
async fn activation_is_the_win_rate_scale() {
    let server = Server::with_people(people()).await;
    let native = json!({"model": "lore", "reward_scale": "win_rate",
                        "items": [{"prompt": "Name a fish.", "responses": TEXTS}]});
    let native = numbers(&server.score(&native).await.ok()["results"][0]["rewards"]);
    for flag in
        [json!({}), json!({"use_activation": true}), json!({"activation": true, "use_activation": null})]
    {
        let mut body = json!({"model": "lore", "queries": "Name a fish.", "documents": TEXTS});
        body.as_object_mut().unwrap().extend(flag.as_object().unwrap().clone());
        assert!(near(&scores(&server.post("/score", &body).await), &native), "{body}");
    }
    let both = json!({"queries": "a", "documents": "b", "use_activation": true, "activation": false});
    server.post("/score", &both).await.refusal(400, "invalid-input");
}

#[tokio::test]
async fn a_text_longer_than_the_window_is_refused_unless_it_may_be_cut() {
    let server = Server::new().await;
    let long = "word ".repeat(200);
    for (path, body) in [
        ("/classify", json!({"input": ["short", long]})),
        ("/pooling", json!({"input": ["short", long]})),
        ("/score", json!({"queries": "a", "documents": ["short", long]})),
    ] {
        let error = server.post(path, &body).await;
        let message = error.refusal(422, "invalid-input");
        assert!(message.contains("more than the 64 of the backbone's window"), "{message}");
        assert!(error.json()["error"]["param"].as_str().unwrap().ends_with("/1"), "{}", error.text());
        for cut in [json!(-1), json!(64), json!(8192)] {
            let mut body = body.clone();
            body["truncate_prompt_tokens"] = cut;
            server.post(path, &body).await.ok();
        }
        server.post(&format!("{path}?on_overflow=truncate"), &body).await.ok();
        for (cut, status) in [(json!(1), 400), (json!(0), 400), (json!(-2), 400), (json!("all"), 400)] {
            let mut body = body.clone();
            body["truncate_prompt_tokens"] = cut;
            server.post(path, &body).await.refusal(status, "");
        }
    }
}

/// A whole text's ids, as the backbone of a server reads it.
pub fn ids_of(server: &Server, text: &str) -> Vec<u32> {
    read(server, text, Overflow::Truncate)
}

fn read(server: &Server, text: &str, overflow: Overflow) -> Vec<u32> {
    let input = EmbedInput {
        form: TextForm::PromptResponse,
        prompt: Prompt::Raw(String::new()).into(),
        response: text.into(),
    };
    server.backbone.tokenize(&[input], overflow).remove(0).unwrap().ids
}

#[tokio::test]
async fn the_ids_of_a_text_are_the_text_bit_for_bit() {
    for (server, text) in [(chat_server().await, TEMPLATED), (Server::new().await, "A trout.")] {
        let ids = ids_of(&server, text);
        for path in ["/classify", "/v1/classify", "/pooling"] {
            let score = async |input: Value| {
                let reply = server.post(path, &json!({"input": input, "use_activation": false})).await;
                (
                    scores(&reply).into_iter().map(f64::to_bits).collect::<Vec<_>>(),
                    reply.ok()["usage"].clone(),
                )
            };
            let (of_text, usage) = score(json!(text)).await;
            assert_eq!(score(json!(ids)).await, (of_text.clone(), usage), "{path}");
            let several = score(json!([ids, ids_of(&server, "Fish."), ids])).await.0;
            assert_eq!((several[0], several[2]), (of_text[0], of_text[0]), "{path}");
            assert_ne!(several[1], of_text[0], "{path}");
        }
    }
}

#[tokio::test]
async fn ids_that_are_none_of_the_vocabulary_s_are_named() {
    let server = Server::new().await;
    for (input, param) in [
        (json!([1, 1_000_000]), "/input"),
        (json!([[1], [2, 1_000_000]]), "/input/1"),
        (json!([[1], []]), "/input/1"),
    ] {
        let reply = server.post("/classify", &json!({"input": input})).await;
        reply.refusal(400, "invalid-input");
        assert_eq!(reply.json()["error"]["param"], param, "{}", reply.text());
    }
    let many = json!({"input": vec![1; 65]});
    let message = server.post("/classify", &many).await.refusal(422, "invalid-input");
    assert!(message.contains("has 65 tokens, more than the 64"), "{message}");
    server.post("/classify?on_overflow=truncate", &many).await.ok();
    let ids = json!({"queries": [1, 2], "documents": "a"});
    assert_eq!(server.post("/score", &ids).await.json()["error"]["param"], "/queries");
}

#[tokio::test]
async fn a_text_is_cut_to_as_many_of_its_last_tokens_as_are_asked_for() {
    let server = Server::new().await;
    let text = "one two three four five six seven eight nine ten";
    let score = async |input: Value, cut: Option<usize>| {
        let body = json!({"input": input, "use_activation": false, "truncate_prompt_tokens": cut});
        let reply = server.post("/classify", &body).await;
        (scores(&reply)[0].to_bits(), reply.ok()["usage"]["prompt_tokens"].clone())
    };
    let whole = score(json!(text), None).await;
    for cut in [5, 10, 20] {
        let ids = read(&server, text, Overflow::TruncateTo(cut));
        let found = score(json!(text), Some(cut)).await;
        assert_eq!(found, score(json!(ids), None).await, "{cut}");
        assert_eq!(found.1, cut, "the tokens that were read");
        assert_ne!(found.0, whole.0);
        // What was cut for one is not what the next one gets.
        assert_eq!(score(json!(text), None).await, whole);
    }
    assert_eq!(score(json!(text), Some(64)).await, whole);
    for (path, body) in [
        ("/score", json!({"queries": text, "documents": [text]})),
        ("/rerank", json!({"query": text, "documents": [text]})),
    ] {
        let mut body = body;
        body["truncate_prompt_tokens"] = json!(12);
        assert_eq!(server.post(path, &body).await.ok()["usage"]["prompt_tokens"], 12, "{path}");
        body["max_tokens_per_doc"] = json!(12);
        server.post(path, &body).await.refusal(422, "not-supported");
    }
}

#[tokio::test]
async fn what_only_another_server_does_is_refused_and_what_it_takes_besides_is_not() {
    let server = Server::new().await;
    let with = |key: &str, value: Value| {
        let mut body = json!({"input": "A trout."});
        body[key] = value;
        body
    };
    for (body, status) in [
        (with("chat_template", json!("{{ x }}")), 422),
        (with("chat_template_kwargs", json!({"a": 1})), 422),
        (with("add_generation_prompt", json!(true)), 422),
        (with("add_special_tokens", json!(false)), 422),
        (with("input", json!([[1, 2], "a"])), 400),
        (with("messages", messages()), 400),
        (with("messages", json!([{"role": "user", "content": "hi"}])), 400),
        (json!({"messages": [{"role": "user", "content": "hi"}]}), 400),
        (json!({"model": "bt"}), 400),
        (with("input", json!({})), 400),
    ] {
        server.post("/classify", &body).await.refusal(status, "");
    }
    let known = json!({"input": "A trout.", "priority": 3, "request_id": "x", "add_special_tokens": true,
                       "add_generation_prompt": false, "chat_template": null, "no_such_field": [1]});
    server.post("/classify", &known).await.ok();
    for (key, value) in [("encoding_format", json!("bytes")), ("dimensions", json!(2))] {
        assert!(server.post("/pooling", &with(key, value)).await.status.is_client_error());
    }
}

#[tokio::test]
async fn a_pooled_reward_in_base64_is_the_same_number() {
    let server = Server::new().await;
    let body =
        |format: &str| json!({"input": "A trout.", "use_activation": false, "encoding_format": format});
    let floats = scores(&server.post("/pooling", &body("float")).await)[0];
    let text = server.post("/pooling", &body("base64")).await.ok()["data"][0]["data"].clone();
    let bytes = BASE64_STANDARD.decode(text.as_str().unwrap()).unwrap();
    assert_eq!(f64::from(f32::from_le_bytes(bytes.try_into().unwrap())) as f32, floats as f32);
}

#[tokio::test]
async fn a_body_of_score_that_could_be_two_formats_names_both() {
    let server = Server::new().await;
    let pair = json!({"prompt": "", "response_a": "a", "response_b": "b"});
    let native = json!({"queries": "a", "documents": "b", "pairs": [pair]});
    for path in ["/score", "/v1/score"] {
        assert_eq!(server.post(path, &native).await.pointers(422, "ambiguous-body"), ["/pairs", "/queries"]);
        let scale = json!({"text_1": "a", "text_2": "b", "reward_scale": "raw"});
        let reply = server.post(path, &scale).await;
        assert_eq!(reply.pointers(422, "ambiguous-body"), ["/reward_scale", "/text_1"]);
    }
    let twice = json!({"queries": "a", "documents": "b", "text_1": "a", "text_2": "b"});
    let message = server.post("/score", &twice).await.refusal(422, "ambiguous-body");
    assert!(message.contains("queries and documents") && message.contains("text_1 and text_2"), "{message}");
    let tokens = json!({"query": "a", "items": ["b"], "label_token_ids": [1, 2]});
    assert_eq!(server.post("/score", &tokens).await.pointers(422, "not-supported"), ["/label_token_ids"]);
    let half = json!({"queries": "a"});
    assert_eq!(server.post("/score", &half).await.json()["error"]["param"], "/documents");
}
