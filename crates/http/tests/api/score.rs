//! What a good request gets.

use serde_json::{Value, json};

use crate::fixture::Server;

fn pair(a: &str, b: &str) -> Value {
    json!({"prompt": "Name a fish.", "response_a": a, "response_b": b})
}

/// A text far longer than the 64 tokens of the tiny encoder.
fn long() -> String {
    "a long story of a fish ".repeat(40)
}

#[tokio::test]
async fn pairs_get_rewards_and_a_preference_each() {
    let server = Server::new().await;
    let body = json!({"pairs": [pair("A trout.", "Fish are tasty."), pair("", "I do not know.")]});
    let reply = server.score(&body).await;
    let json = reply.ok();
    assert_eq!(reply.header("x-model-version"), json["model"]);
    assert_eq!(reply.header("x-user-state-version"), "0");
    insta::assert_json_snapshot!(json, {
        ".model" => "bt@[version]",
        ".results[].reward_a" => "[number]",
        ".results[].reward_b" => "[number]",
        ".results[].preference" => "[number]",
        ".results[].uncertainty" => "[number]",
        ".usage.embeddings_cached" => "[count]",
    });
    for result in json["results"].as_array().unwrap() {
        let (p, spread) = (result["preference"].as_f64().unwrap(), result["uncertainty"].as_f64().unwrap());
        assert!(p > 0.0 && p < 1.0 && spread > 0.0, "{result}");
        let margin = result["reward_a"].as_f64().unwrap() - result["reward_b"].as_f64().unwrap();
        assert_eq!(p > 0.5, margin > 0.0, "{result}");
    }
}

#[tokio::test]
async fn items_get_a_ranking_of_their_responses() {
    let server = Server::new().await;
    let chat =
        json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a fish."}]);
    let body = json!({"model": "bt", "user_id": "ada", "items": [
        {"prompt": "Name a fish.", "responses": ["A trout.", "Fish are tasty.", "I do not know."]},
        {"prompt": chat, "responses": ["A trout."]},
        {"prompt": "", "responses": [""]},
    ]});
    let json = server.score(&body).await.ok();
    insta::assert_json_snapshot!(json, {
        ".model" => "bt@[version]",
        ".results[].rewards[]" => "[number]",
        ".results[].uncertainties[]" => "[number]",
        ".results[].ranking" => "[positions]",
        ".usage.embeddings_cached" => "[count]",
    });
    let result = &json["results"][0];
    let rewards: Vec<f64> =
        result["rewards"].as_array().unwrap().iter().map(|r| r.as_f64().unwrap()).collect();
    let ranking: Vec<usize> =
        result["ranking"].as_array().unwrap().iter().map(|at| at.as_u64().unwrap() as usize).collect();
    assert!(ranking.is_sorted_by(|a, b| rewards[*a] >= rewards[*b]), "{result}");
}

#[tokio::test]
async fn swapping_a_pair_gives_exactly_one_minus_p() {
    let server = Server::new().await;
    let texts = ["A trout.", "Fish are tasty.", "", "I do not know.", "!"];
    let there: Vec<Value> = texts.iter().flat_map(|a| texts.iter().map(|b| pair(a, b))).collect();
    let back: Vec<Value> = texts.iter().flat_map(|a| texts.iter().map(|b| pair(b, a))).collect();
    let there = server.score(&json!({"pairs": there})).await;
    let back = server.score(&json!({"pairs": back})).await;
    let (p, q) = (preferences(&there.text()), preferences(&back.text()));
    assert_eq!((p.len(), q.len()), (25, 25));
    for (at, (p, q)) in p.iter().zip(&q).enumerate() {
        assert_eq!((1.0 - p).to_bits(), q.to_bits(), "{p} {q}");
        if at % (texts.len() + 1) == 0 {
            assert_eq!(*p, 0.5, "identical responses");
        }
    }
    let (there, back) = (there.ok(), back.ok());
    assert_eq!(there["results"][1]["reward_a"], back["results"][1]["reward_b"]);
}

/// Read to the last bit, which `serde_json` does not do by default.
fn preferences(reply: &str) -> Vec<f64> {
    let numbers = reply.split("\"preference\":").skip(1).map(|rest| rest.split(',').next().unwrap());
    numbers.map(|number| number.parse().unwrap()).collect()
}

#[tokio::test]
async fn results_keep_the_order_of_the_request_whatever_stands_beside_them() {
    let server = Server::new().await;
    let texts: Vec<String> = (0..40).map(|n| format!("Answer {n}: {}", "word ".repeat(n % 17))).collect();
    let item = |texts: &[String]| json!({"items": [{"prompt": "Count.", "responses": texts}]});
    let together = server.score(&item(&texts)).await.ok();
    let rewards = together["results"][0]["rewards"].as_array().unwrap();
    for (text, reward) in texts.iter().zip(rewards) {
        let alone = server.score(&item(std::slice::from_ref(text))).await.ok();
        let alone = alone["results"][0]["rewards"][0].as_f64().unwrap();
        assert!((alone - reward.as_f64().unwrap()).abs() < 1e-4, "{text}");
    }
}

#[tokio::test]
async fn numbers_are_written_shortest() {
    let server = Server::new().await;
    let reply = server.score(&json!({"pairs": [pair("A trout.", "Fish are tasty.")]})).await;
    let (json, text) = (reply.ok(), reply.text());
    let reward = json["results"][0]["reward_a"].as_f64().unwrap();
    assert!(text.contains(&format!("\"reward_a\":{}", reward as f32)), "{text}");
    assert_eq!(f64::from(reward as f32) as f32, reward as f32);
}

#[tokio::test]
async fn rewards_come_on_the_scale_asked_for() {
    let server = Server::new().await;
    let rewards = async |scale: Value| {
        let body = json!({"reward_scale": scale, "items": [
            {"prompt": "Name a fish.", "responses": ["A trout.", "Fish are tasty.", "I do not know."]},
        ]});
        let json = server.score(&body).await.ok();
        let rewards = json["results"][0]["rewards"].as_array().unwrap();
        rewards.iter().map(|reward| reward.as_f64().unwrap()).collect::<Vec<_>>()
    };
    let (raw, default) = (rewards(json!("raw")).await, rewards(Value::Null).await);
    assert_eq!(raw, default);
    let (standard, win_rate) = (rewards(json!("standard")).await, rewards(json!("win_rate")).await);
    assert!(win_rate.iter().all(|rate| (0.0..=1.0).contains(rate)), "{win_rate:?}");
    for numbers in [standard, win_rate] {
        assert_eq!(raw[0] < raw[1], numbers[0] < numbers[1]);
        assert_eq!(raw[1] < raw[2], numbers[1] < numbers[2]);
        assert_ne!(raw, numbers);
    }
}

#[tokio::test]
async fn a_long_text_is_cut_and_reported_or_refused_with_its_tokens() {
    let server = Server::new().await;
    let pairs = json!([pair("A trout.", "Fish."), pair("A trout.", &long())]);
    let json = server.score(&json!({"pairs": pairs})).await.ok();
    assert_eq!(json["results"][0]["truncated"], false);
    assert_eq!(json["results"][1]["truncated"], true);
    let body = json!({"pairs": pairs, "on_overflow": "error"});
    let reply = server.score(&body).await;
    assert_eq!(reply.pointers(422, "invalid-input"), ["/pairs/1/response_b"]);
    let error = &reply.json()["errors"][0];
    assert_eq!(error["type"], "/problems/too-long");
    assert!(error["detail"].as_str().unwrap().contains("more than the 64 of"), "{error}");
    assert!(!reply.text().contains("long story"));
}

#[tokio::test]
async fn partial_puts_the_error_in_the_place_of_the_bad_item() {
    let server = Server::new().await;
    let body = json!({"partial": true, "on_overflow": "error", "pairs": [
        pair("A trout.", "Fish."), pair("\0", "Fish."), pair("Fish.", "A trout."), pair("Fish.", &long()),
    ]});
    let json = server.score(&body).await.ok();
    let alone = server.score(&json!({"pairs": [pair("Fish.", "A trout.")]})).await.ok();
    assert_eq!(json["results"][2]["preference"], alone["results"][0]["preference"]);
    insta::assert_json_snapshot!(json["results"], {
        "[].reward_a" => "[number]",
        "[].reward_b" => "[number]",
        "[].preference" => "[number]",
        "[].uncertainty" => "[number]",
    });
    let reply = server.score(&json!({"pairs": body["pairs"], "on_overflow": "truncate"})).await;
    assert_eq!(reply.pointers(422, "invalid-input"), ["/pairs/1/response_a"]);
}

#[tokio::test]
async fn partial_answers_even_where_every_item_is_bad() {
    let server = Server::new().await;
    let json = server.score(&json!({"partial": true, "pairs": [pair("\0", ""), pair("", "\0")]})).await.ok();
    assert_eq!(json["results"][0]["error"]["pointer"], "/pairs/0/response_a");
    assert_eq!(json["results"][1]["error"]["pointer"], "/pairs/1/response_b");
    let json = server.score(&json!({"partial": true, "items": [{"prompt": "", "responses": []}]})).await.ok();
    assert_eq!(json["results"][0]["error"]["pointer"], "/items/0/responses");
}

#[tokio::test]
async fn as_many_texts_as_the_limit_are_scored_at_once() {
    let server = Server::new().await;
    let pairs: Vec<Value> = (0..512).map(|n| pair(&format!("Answer {}.", n % 7), "A trout.")).collect();
    let json = server.post("/v1/score", &json!({"pairs": pairs})).await.ok();
    assert_eq!(json["results"].as_array().unwrap().len(), 512);
    assert_eq!(json["usage"]["texts"], 8);
}
