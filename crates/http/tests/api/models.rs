//! Which models there are.

use axum::http::Method;
use serde_json::{Value, json};

use crate::fixture::{Server, json_request};

fn names(models: &Value) -> Vec<&str> {
    models["items"].as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_model_is_listed_with_its_card_and_evaluation() {
    let server = Server::new().await;
    let json = server.get("/models").await.ok();
    insta::assert_json_snapshot!(json, {
        ".items[].model" => "bt@[version]",
        ".items[].version" => "[version]",
        ".items[].backbone.hash" => "[hash]",
        ".items[].weights_sha256" => "[hash]",
        ".items[].calibration_temperature" => "[number]",
        ".items[].reward_statistics.mean" => "[number]",
        ".items[].reward_statistics.standard_deviation" => "[number]",
        ".items[].evaluation.validation" => "[summary]",
        ".items[].evaluation.shots[].summary" => "[summary]",
    });
    let validation = &json["items"][0]["evaluation"]["validation"];
    assert!(validation["log_loss"].as_f64().unwrap() > 0.0, "{validation}");
}

#[tokio::test]
async fn models_come_in_pages() {
    let server = Server::new().await;
    for (name, scale) in [("a", 0.5), ("c", 2.0)] {
        server.add_model(name, scale);
    }
    let reload = server.post("/models/reload", &json!(null)).await.ok();
    assert_eq!(reload["added"].as_array().unwrap().len(), 2);
    let (mut path, mut seen) = ("/models?limit=1".to_owned(), Vec::new());
    loop {
        let page = server.get(&path).await.ok();
        seen.extend(names(&page).into_iter().map(str::to_owned));
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/models?limit=1&cursor={}", cursor.replace('@', "%40")),
            None => break,
        }
        assert!(page["next_cursor"].is_string());
    }
    assert_eq!(seen, ["a", "bt", "c"]);
    for bad in ["limit=0", "limit=1001", "limit=x", "cursor=bt", "cursor=%00", "limti=5", "limit=1&limit=2"] {
        server.get(&format!("/models?{bad}")).await.problem(400, "invalid-parameter");
    }
}

#[tokio::test]
async fn the_default_is_chosen_and_kept() {
    let server = Server::new().await;
    server.add_model("other", 3.0);
    server.post("/models/reload", &json!(null)).await.ok();
    let put =
        async |body: Value| server.send(json_request(Method::PUT, "/models/default", body.to_string())).await;
    for name in ["other", "bt"] {
        let chosen = put(json!({"model": name})).await.ok();
        assert!(chosen["model"].as_str().unwrap().starts_with(&format!("{name}@")));
        let score = json!({"items": [{"prompt": "", "responses": ["x"]}]});
        assert_eq!(server.score(&score).await.ok()["model"], chosen["model"]);
        assert_eq!(server.get("/info").await.ok()["default_model"], chosen["model"]);
        let models = server.get("/models").await.ok();
        for model in models["items"].as_array().unwrap() {
            assert_eq!(model["default"], model["name"] == name);
        }
    }
    assert_eq!(put(json!({"model": "none"})).await.pointers(422, "unknown-model"), ["/model"]);
    assert_eq!(put(json!({"model": "../x"})).await.pointers(422, "invalid-input"), ["/model"]);
    assert_eq!(put(json!({})).await.pointers(422, "invalid-input"), ["/model"]);
}

#[tokio::test]
async fn a_broken_model_is_reported_and_the_old_one_keeps_answering() {
    let server = Server::new().await;
    let score = json!({"items": [{"prompt": "", "responses": ["x"]}]});
    let before = server.score(&score).await.ok();
    let name = before["model"].as_str().unwrap().replace('@', "/");
    std::fs::write(server.models.path().join(&name).join("head.safetensors"), b"broken").unwrap();
    let report = server.post("/models/reload", &json!(null)).await.ok();
    assert_eq!(report["failed"][0]["folder"], name);
    assert_eq!(report["failed"][0]["still_serving"], true);
    let models = server.get("/models").await.ok();
    assert_eq!(models["failed"], report["failed"]);
    assert_eq!(names(&models), ["bt"]);
    assert_eq!(server.score(&score).await.ok()["results"], before["results"]);
    assert_eq!(server.get("/ready").await.status, 200);
}
