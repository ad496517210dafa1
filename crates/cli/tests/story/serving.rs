//! A server, its clients, and the models folder behind it.

use std::fs;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{Place, answers};

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_of_one_text_and_one_client_of_many_texts_get_the_same_rewards() {
    let place = Place::trained();
    // No cache: every request must be computed, in whatever batch it falls.
    let server = place.serve_with(&[("POLYREWARD_BACKBONE__CACHE_BYTES", "0")]);
    let texts: Vec<String> = answers("tea", 32).into_iter().chain(answers("coffee", 32)).collect();
    let together = server.rewards(&texts).await;
    let alone = join_all(texts.iter().map(|text| server.rewards(std::slice::from_ref(text)))).await;
    for (a, b) in together.iter().zip(alone.into_iter().flatten()) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
    assert!(
        together[..32].iter().sum::<f64>() > together[32..].iter().sum::<f64>(),
        "tea is what people like"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_gives_the_same_rewards_and_a_stopped_one_exits_with_0() {
    let place = Place::trained();
    let texts = answers("tea", 8);
    let server = place.serve();
    let before = server.rewards(&texts).await;
    assert_eq!(server.terminate(), Some(0));
    let server = place.serve();
    for (a, b) in before.iter().zip(server.rewards(&texts).await) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
    let (status, ready) = server.get("/ready").await;
    assert_eq!((status, &ready["ready"]), (200, &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_model_never_replaces_a_working_one() {
    let place = Place::trained();
    let server = place.serve();
    let texts = answers("tea", 4);
    let before = server.rewards(&texts).await;
    let weights = place.model_folder().join("head.safetensors");
    let good = fs::read(&weights).unwrap();
    let mut bad = good.clone();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    for damaged in [&bad[..], &good[..good.len() / 2], b""] {
        fs::write(&weights, damaged).unwrap();
        let (status, report) = server.post("/models/reload", &Value::Null).await;
        assert_eq!(status, 200, "{report}");
        let failed = &report["failed"][0];
        assert_eq!(failed["still_serving"], json!(true), "{report}");
        assert!(failed["detail"].as_str().unwrap().contains("sha256"), "{report}");
        assert_eq!(server.rewards(&texts).await, before);
    }
    fs::write(&weights, &good).unwrap();
    let (_, report) = server.post("/models/reload", &Value::Null).await;
    assert_eq!(report["failed"], json!([]), "{report}");
    // A folder that is gone no longer answers; the server stays up and says so.
    fs::remove_dir_all(place.path("models/bt")).unwrap();
    let (_, report) = server.post("/models/reload", &Value::Null).await;
    assert_eq!(report["removed"].as_array().map(Vec::len), Some(1), "{report}");
    let (status, problem) =
        server.post("/score", &json!({"items": [{"prompt": "", "responses": ["a"]}]})).await;
    assert_eq!(status, 503, "{problem}");
    assert_eq!(server.get("/ready").await.0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_another_backbone_is_reported_not_served() {
    let place = Place::trained();
    let card = place.model_folder().join("model.json");
    let text = fs::read_to_string(&card).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    value["backbone"]["hash"] = json!("0".repeat(64));
    fs::write(&card, value.to_string()).unwrap();
    let server = place.serve();
    let (status, models) = server.get("/models").await;
    assert_eq!((status, models["items"].as_array().map(Vec::len)), (200, Some(0)), "{models}");
    let detail = models["failed"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("trained on backbone"), "{detail}");
    assert_eq!(server.get("/ready").await.0, 503);
}

#[test]
fn the_demo_plays_held_out_people_and_ends() {
    let place = Place::trained();
    let backbone = crate::support::backbone();
    let output = place.run(&[
        "demo",
        "--once",
        "--data",
        "people.jsonl",
        "--models",
        "models",
        "--backbone",
        backbone.to_str().unwrap(),
    ]);
    let text = crate::support::stdout(&output);
    assert!(output.status.success(), "{}", crate::support::stderr(&output));
    for part in ["http://127.0.0.1:", "simulated", "everybody", "P(first preferred)"] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}
