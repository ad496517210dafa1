//! What the clients of vLLM's, Cohere's, Jina's and infinity's rerankers send, and what they need of the answers.

use serde_json::{Value, json};

use crate::{
    fixture::Server,
    people::{TEXTS, near, people, rewards},
};

const PATHS: [&str; 3] = ["/rerank", "/v1/rerank", "/v2/rerank"];

fn body(more: Value) -> Value {
    let mut body = json!({"model": "lore", "query": "Name a fish.", "documents": TEXTS});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn results_are_sorted_and_name_their_place_in_the_request() {
    let server = Server::with_people(people()).await;
    let native = rewards(&server, json!({"user_id": "bob"})).await;
    for path in PATHS {
        let reply = server.post(&format!("{path}?user_id=bob"), &body(json!({"raw_scores": true}))).await;
        let json = reply.ok();
        let results = json["results"].as_array().unwrap();
        assert_eq!(results.len(), TEXTS.len());
        for pair in results.windows(2) {
            assert!(pair[0]["relevance_score"].as_f64() >= pair[1]["relevance_score"].as_f64());
        }
        for one in results {
            let index = usize::try_from(one["index"].as_u64().unwrap()).unwrap();
            assert_eq!(one["document"]["text"], TEXTS[index]);
            assert!(near(&[one["relevance_score"].as_f64().unwrap()], &[native[index]]), "{path}");
        }
        for key in ["id", "object", "model", "created", "usage", "meta"] {
            assert!(!json[key].is_null(), "{key}");
        }
    }
}

#[tokio::test]
async fn ties_are_in_the_order_of_the_request() {
    let server = Server::new().await;
    let documents = ["A trout.", "A trout.", "Fish are tasty.", "A trout."];
    let json = server.post("/rerank", &json!({"query": "", "documents": documents})).await.ok();
    let order: Vec<u64> =
        json["results"].as_array().unwrap().iter().map(|one| one["index"].as_u64().unwrap()).collect();
    assert!(order == [0, 1, 3, 2] || order == [2, 0, 1, 3], "{order:?}");
}

#[tokio::test]
async fn as_many_results_as_are_asked_for() {
    let server = Server::with_people(people()).await;
    let all = server.post("/rerank", &body(json!({}))).await.ok()["results"].clone();
    for (top_n, expected) in [(json!(0), 4), (json!(null), 4), (json!(1), 1), (json!(3), 3), (json!(99), 4)] {
        let some = server.post("/rerank", &body(json!({"top_n": top_n}))).await.ok()["results"].clone();
        assert_eq!(some.as_array().unwrap()[..], all.as_array().unwrap()[..expected], "{top_n}");
    }
    for top_n in [json!(-1), json!(1.5), json!("two")] {
        let reply = server.post("/rerank", &body(json!({"top_n": top_n}))).await;
        reply.refusal(400, "invalid-input");
        assert_eq!(reply.json()["error"]["param"], "/top_n");
    }
}

#[tokio::test]
async fn documents_are_texts_or_objects_and_are_repeated_unless_that_is_not_wanted() {
    let server = Server::with_people(people()).await;
    let texts = server.post("/v1/rerank", &body(json!({}))).await.ok();
    let objects = TEXTS.map(|text| json!({"text": text, "title": "x"}));
    let of_objects = server.post("/v1/rerank", &body(json!({"documents": objects}))).await.ok();
    assert_eq!(texts["results"], of_objects["results"]);
    let bare = server.post("/v1/rerank", &body(json!({"return_documents": false}))).await.ok();
    for (one, with) in bare["results"].as_array().unwrap().iter().zip(texts["results"].as_array().unwrap()) {
        assert_eq!((one.get("document"), &one["index"]), (None, &with["index"]));
    }
    let bad = body(json!({"documents": ["a", 5]}));
    assert_eq!(server.post("/v1/rerank", &bad).await.json()["error"]["param"], "/documents/1");
}

#[tokio::test]
async fn scores_are_between_0_and_1_unless_raw_ones_are_asked_for() {
    let server = Server::with_people(people()).await;
    let scores = async |more: Value| {
        let json = server.post("/rerank", &body(more)).await.ok();
        let results = json["results"].as_array().unwrap().clone();
        results.iter().map(|one| one["relevance_score"].as_f64().unwrap()).collect::<Vec<f64>>()
    };
    let squashed = scores(json!({})).await;
    assert!(squashed.iter().all(|score| (0.0..=1.0).contains(score)));
    assert_eq!(scores(json!({"raw_scores": false, "use_activation": true})).await, squashed);
    let raw = scores(json!({"raw_scores": true})).await;
    assert_eq!(scores(json!({"use_activation": false})).await, raw);
    assert_ne!(raw, squashed);
    let both = body(json!({"raw_scores": true, "use_activation": true}));
    server.post("/rerank", &both).await.refusal(400, "invalid-input");
}

#[tokio::test]
async fn long_documents_are_refused_unless_they_may_be_cut() {
    let server = Server::new().await;
    let long = "word ".repeat(200);
    let ask = |more: Value| {
        let mut body = json!({"query": "a", "documents": ["short", long]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let refused = server.post("/v2/rerank", &ask(json!({}))).await;
    refused.refusal(422, "invalid-input");
    assert_eq!(refused.json()["error"]["param"], "/documents/1");
    for cut in [json!({"max_tokens_per_doc": 4096}), json!({"truncate_prompt_tokens": -1})] {
        server.post("/v2/rerank", &ask(cut)).await.ok();
    }
    server.post("/v2/rerank?on_overflow=truncate", &ask(json!({}))).await.ok();
    server.post("/v2/rerank", &ask(json!({"max_tokens_per_doc": 8}))).await.refusal(422, "not-supported");
}

#[tokio::test]
async fn sglangs_bare_list_is_asked_for() {
    let server = Server::with_people(people()).await;
    let object = server.post("/v1/rerank", &body(json!({}))).await.ok();
    let list = server.post("/v1/rerank?shape=list", &body(json!({}))).await.ok();
    for (one, of_object) in list.as_array().unwrap().iter().zip(object["results"].as_array().unwrap()) {
        assert_eq!(one["score"], of_object["relevance_score"]);
        assert_eq!((&one["index"], &one["document"]), (&of_object["index"], &of_object["document"]["text"]));
        assert!(one["meta_info"]["prompt_tokens"].is_u64());
    }
}

#[tokio::test]
async fn a_body_that_could_be_two_formats_names_both() {
    let server = Server::new().await;
    for more in [json!({"texts": ["a"]}), json!({"return_text": true})] {
        let message = server.post("/rerank", &body(more)).await.refusal(422, "ambiguous-body");
        assert!(message.contains("Cohere") && message.contains("text-embeddings-inference"), "{message}");
    }
    let neither = server.post("/rerank", &json!({"query": "a"})).await;
    assert_eq!((neither.status.as_u16(), &neither.json()["error"]["param"]), (400, &json!("/documents")));
}
