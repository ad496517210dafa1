//! What the clients of NIM's reward models send, and what they need of the answer.

use serde_json::{Value, json};

use crate::{
    fixture::Server,
    people::{TEXTS, near, people, rewards},
};

fn ask(response: &str) -> Value {
    json!({"model": "lore", "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Name a fish."}]},
        {"role": "assistant", "content": response},
    ], "temperature": 0.5, "max_tokens": 1, "stream": false})
}

#[tokio::test]
async fn the_reward_is_both_in_the_text_and_in_the_log_probabilities() {
    let server = Server::with_people(people()).await;
    let score = async |query: &str, response: &str, whose: Value| {
        let native = json!({"model": "lore", "items": [{"prompt": [{"role": "user", "content": "Name a fish."}],
                            "responses": [response]}]});
        let mut native = native;
        native.as_object_mut().unwrap().extend(whose.as_object().unwrap().clone());
        let native = server.score(&native).await.ok()["results"][0]["rewards"][0].as_f64().unwrap();
        let json = server.post(&format!("/v1/chat/completions{query}"), &ask(response)).await.ok();
        let choice = &json["choices"][0];
        let content = choice["message"]["content"].as_str().unwrap();
        let said: Vec<(&str, f64)> = content
            .split(',')
            .map(|pair| pair.split_once(':').unwrap())
            .map(|(name, value)| (name, value.parse().unwrap()))
            .collect();
        let repeated: Vec<(&str, f64)> = choice["logprobs"]["content"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (one["token"].as_str().unwrap(), one["logprob"].as_f64().unwrap()))
            .collect();
        assert_eq!([said[0].0, said[1].0], ["reward", "prob"]);
        for (one, other) in said.iter().zip(&repeated) {
            assert!(one.0 == other.0 && near(&[one.1], &[other.1]), "{content}");
        }
        assert!(near(&[said[0].1], &[native]) && (0.0..=1.0).contains(&said[1].1), "{content}");
        assert_eq!((&json["object"], &choice["finish_reason"]), (&json!("chat.completion"), &json!("stop")));
    };
    for response in TEXTS {
        score("", response, json!({})).await;
        score("?user_id=ada", response, json!({"user_id": "ada"})).await;
    }
    assert!(!rewards(&server, json!({})).await.is_empty());
}

#[tokio::test]
async fn what_would_have_to_be_generated_is_refused() {
    let server = Server::new().await;
    for (key, value, status) in [
        ("stream", json!(true), 422),
        ("n", json!(2), 422),
        ("messages", json!([]), 400),
        ("messages", json!([{"role": "user", "content": "hi"}]), 400),
        ("messages", json!("hi"), 400),
        ("model", json!("bt@ffffffff"), 404),
    ] {
        let mut body = ask("A trout.");
        body["model"] = json!("bt");
        body[key] = value;
        server.post("/v1/chat/completions", &body).await.refusal(status, "");
    }
}
