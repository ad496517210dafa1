//! What slime and miles send to `/rm`, and what they need of the answer.

use serde_json::{Value, json};

use super::chat_server;
use crate::{
    fixture::Server,
    people::{TEXTS, near, numbers, people, rewards},
};

fn sample(prompt: Value, response: &str) -> Value {
    json!({"prompt": prompt, "response": response, "label": "ada", "metadata": {"anything": [1]}})
}

#[tokio::test]
async fn a_sample_is_scored_as_the_native_route_scores_it() {
    let server = Server::with_people(people()).await;
    for (query, whose) in [
        ("", json!({})),
        ("&user_id=ada", json!({"user_id": "ada"})),
        ("&labels=user_id", json!({"user_id": "ada"})),
    ] {
        let native = rewards(&server, whose).await;
        for (response, native) in TEXTS.iter().zip(native) {
            let body = sample(json!("Name a fish."), response);
            let object = server.post(&format!("/rm?model=lore{query}"), &body).await.ok();
            assert_eq!(object.as_object().unwrap().len(), 2, "{object}");
            assert!((0.0..=1.0).contains(&object["prob"].as_f64().unwrap()));
            let number = server.post(&format!("/rm?shape=number&model=lore{query}"), &body).await;
            assert_eq!(number.header("content-type"), "application/json");
            let number = number.ok().as_f64().unwrap();
            assert!(near(&[object["score"].as_f64().unwrap(), number], &[native, native]), "{query}");
        }
    }
}

#[tokio::test]
async fn a_prompt_of_text_is_read_as_it_is_and_a_chat_through_the_template() {
    let server = chat_server().await;
    let native = json!({"items": [{"prompt": [{"role": "user", "content": "hi"}], "responses": ["hello!"]}]});
    let native = numbers(&server.score(&native).await.ok()["results"][0]["rewards"])[0];
    let score = async |query: &str, body: Value| {
        server.post(&format!("/rm?shape=number{query}"), &body).await.ok().as_f64().unwrap()
    };
    let chat = json!([{"role": "user", "content": "hi"}]);
    assert!(near(&[score("", sample(chat, "hello!")).await], &[native]));
    let prompt = json!("<s><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    assert!(near(&[score("", sample(prompt.clone(), "hello!<|im_end|></s>")).await], &[native]));
    assert!(near(&[score("&template=chatml", sample(prompt, "hello!")).await], &[native]));
    assert!(!near(&[score("", sample(json!("hi"), "hello!")).await], &[native]));
}

#[tokio::test]
async fn what_is_wrong_with_a_sample_is_a_problem_that_names_it() {
    let server = Server::with_people(people()).await;
    let cases = [
        ("", json!({"prompt": "hi"}), "invalid-input", "/response"),
        ("", json!({"prompt": 5, "response": "a"}), "invalid-input", "/prompt"),
        ("", json!({"prompt": [], "response": "a"}), "invalid-input", "/prompt"),
        ("", json!({"prompt": [{"role": "user"}], "response": "a"}), "invalid-input", "/prompt/0/content"),
        ("", json!({"prompt": "hi", "response": "a\0"}), "invalid-input", "/response"),
        ("?labels=user_id&user_id=bob", sample(json!("hi"), "a"), "contradiction", "/label"),
    ];
    for (query, body, kind, pointer) in cases {
        let reply = server.post(&format!("/rm{query}"), &body).await;
        assert_eq!(reply.pointers(422, kind), [pointer], "{query} {body}");
    }
    server.post("/rm?shape=list", &sample(json!("hi"), "a")).await.problem(400, "invalid-parameter");
}
