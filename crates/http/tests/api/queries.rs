//! Which of some pairs to ask a person about next, as the service ranks them.

use std::{sync::Arc, time::Instant};

use polyreward_backbone::{BackboneError, InputError};
use polyreward_domain::{Overflow, Prompt, StateVersion, TenantId};
use polyreward_service::{AskOutcome, AskQuery, Asker, Fault, ModelRegistry, Pair, Part, ScoreError};
use serde_json::json;

use crate::{
    fixture::Server,
    people::{TEXTS, people},
};

fn asker(server: &Server) -> Asker {
    let registry = ModelRegistry::open(server.models.path(), server.backbone.info().clone()).unwrap();
    Asker::new(Arc::new(registry), server.backbone.clone(), Arc::clone(&server.people))
}

fn pair(a: &str, b: &str) -> Pair {
    let prompt = Arc::new(Prompt::Text("Name a fish.".into()));
    Pair { prompt, response_a: a.into(), response_b: b.into() }
}

/// Every pair of the texts, and one of a text with itself in between.
fn pairs() -> Vec<Pair> {
    let mut pairs = vec![pair(TEXTS[1], TEXTS[1])];
    for (at, a) in TEXTS.iter().enumerate() {
        pairs.extend(TEXTS[at + 1..].iter().map(|b| pair(a, b)));
    }
    pairs
}

fn query(user_id: &str, pairs: Vec<Pair>) -> AskQuery {
    AskQuery {
        model: Some("lore".parse().unwrap()),
        user_id: user_id.parse().unwrap(),
        pairs,
        limit: None,
        overflow: Overflow::default(),
        deadline: None,
    }
}

async fn ranked(asker: &Asker, user_id: &str, pairs: Vec<Pair>) -> AskOutcome {
    asker.rank(&TenantId::default(), query(user_id, pairs)).await.unwrap()
}

#[tokio::test]
async fn pairs_are_ranked_by_what_their_answers_would_tell() {
    let server = Server::with_people(people()).await;
    let outcome = ranked(&asker(&server), "ada", pairs()).await;
    assert!(outcome.user.known && outcome.user.examples == 3 && outcome.state_version.get() != 0);
    assert_eq!(outcome.model.name.as_str(), "lore");
    assert_eq!((outcome.usage.texts, outcome.candidates.len()), (4, 7));
    assert!(outcome.candidates.windows(2).all(|pair| pair[0].gain >= pair[1].gain));
    assert!(outcome.candidates[0].gain > 1e-3 && outcome.candidates[0].gain < std::f64::consts::LN_2);
    // A text against itself says nothing.
    let last = outcome.candidates.last().unwrap();
    assert_eq!((last.at, last.gain, last.preference), (0, 0.0, 0.5));
    assert!(last.uncertainty < 1e-7);
    // What is believed of an answer is what scoring the pair says.
    let body = |pair: &Pair| json!({"prompt": "Name a fish.", "response_a": &*pair.response_a, "response_b": &*pair.response_b});
    let bodies: Vec<_> = pairs().iter().map(body).collect();
    let scored = server.score(&json!({"model": "lore", "user_id": "ada", "pairs": bodies})).await.ok();
    for candidate in &outcome.candidates {
        let result = &scored["results"][candidate.at];
        assert!((result["preference"].as_f64().unwrap() - candidate.preference).abs() < 1e-4);
        assert!((result["uncertainty"].as_f64().unwrap() - candidate.uncertainty).abs() < 1e-4);
    }
}

#[tokio::test]
async fn a_person_has_less_left_to_tell_than_one_nobody_knows() {
    let server = Server::with_people(people()).await;
    let asker = asker(&server);
    let told = |outcome: &AskOutcome| outcome.candidates.iter().map(|candidate| candidate.gain).sum::<f64>();
    let (ada, eve) = (ranked(&asker, "ada", pairs()).await, ranked(&asker, "eve", pairs()).await);
    assert!(told(&ada) < told(&eve), "{} {}", told(&ada), told(&eve));
    assert!(!eve.user.known && eve.state_version == StateVersion::POPULATION);
}

#[tokio::test]
async fn which_response_is_called_a_is_nothing_and_ties_stand_in_their_order() {
    let server = Server::with_people(people()).await;
    let asker = asker(&server);
    let swapped = pairs().into_iter().map(|pair| Pair {
        response_a: Arc::clone(&pair.response_b),
        response_b: pair.response_a,
        ..pair
    });
    let swapped: Vec<Pair> = swapped.collect();
    let (there, back) = (ranked(&asker, "ada", pairs()).await, ranked(&asker, "ada", swapped.clone()).await);
    for (there, back) in there.candidates.iter().zip(&back.candidates) {
        assert_eq!((there.at, there.gain), (back.at, back.gain));
        assert_eq!(there.preference, 1.0 - back.preference);
    }
    // All pairs twice: each stands before its double.
    let both = [pairs(), swapped].concat();
    let count = pairs().len();
    let outcome =
        asker.rank(&TenantId::default(), AskQuery { limit: Some(4), ..query("ada", both) }).await.unwrap();
    let at: Vec<usize> = outcome.candidates.iter().map(|candidate| candidate.at).collect();
    let expected: Vec<usize> =
        there.candidates[..2].iter().flat_map(|candidate| [candidate.at, candidate.at + count]).collect();
    assert_eq!(at, expected);
    assert!(ranked(&asker, "ada", Vec::new()).await.candidates.is_empty());
}

#[tokio::test]
async fn a_model_that_learns_from_nobody_has_nothing_to_ask() {
    let server = Server::with_people(people()).await;
    let query = AskQuery { model: Some("bt".parse().unwrap()), ..query("ada", pairs()) };
    let outcome = asker(&server).rank(&TenantId::default(), query).await.unwrap();
    assert!(outcome.candidates.iter().enumerate().all(|(at, candidate)| {
        candidate.at == at && candidate.gain == 0.0 && candidate.preference > 0.0
    }));
}

#[tokio::test]
async fn a_text_that_cannot_be_read_fails_the_request_by_its_name() {
    let server = Server::with_people(people()).await;
    let asker = asker(&server);
    let long = TEXTS[0].repeat(2000);
    let candidates = vec![pair(TEXTS[0], TEXTS[1]), pair(TEXTS[0], &long)];
    let outcome = ranked(&asker, "ada", candidates.clone()).await;
    assert!(outcome.candidates.iter().all(|candidate| candidate.truncated == (candidate.at == 1)));
    let query = AskQuery { overflow: Overflow::Error, ..query("ada", candidates) };
    match asker.rank(&TenantId::default(), query.clone()).await {
        Err(ScoreError::Faults(faults)) => assert!(
            matches!(
                &faults[..],
                [Fault { at: 1, part: Part::ResponseB, error: InputError::TooLong { .. } }]
            ),
            "{faults:?}"
        ),
        other => panic!("{other:?}"),
    }
    let late = AskQuery { deadline: Some(Instant::now()), overflow: Overflow::Truncate, ..query.clone() };
    assert!(matches!(
        asker.rank(&TenantId::default(), late).await,
        Err(ScoreError::DeadlineExceeded | ScoreError::Backbone(BackboneError::DeadlineExceeded))
    ));
    let unknown = AskQuery { model: Some("nobody".parse().unwrap()), ..query };
    assert!(matches!(asker.rank(&TenantId::default(), unknown).await, Err(ScoreError::Model(_))));
}

#[tokio::test]
async fn over_http_the_most_telling_pairs_come_first() {
    let server = Server::with_people(people()).await;
    let pair = |a: &str, b: &str| json!({"prompt": "Name a fish.", "response_a": a, "response_b": b});
    let pairs = [pair(TEXTS[1], TEXTS[1]), pair(TEXTS[0], TEXTS[3]), pair(TEXTS[0], TEXTS[1])];
    let ask = async |user_id: &str, more: serde_json::Value| {
        let mut body = json!({"model": "lore", "pairs": pairs});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post(&format!("/users/{user_id}/queries"), &body).await
    };
    let all = ask("eve", json!({})).await.ok();
    insta::assert_json_snapshot!(all, {
        ".model" => "lore@[version]",
        ".queries[].information_gain" => "[number]",
        ".queries[].preference" => "[number]",
        ".queries[].uncertainty" => "[number]",
        ".usage.embeddings_cached" => "[count]",
    });
    let gains: Vec<f64> = all["queries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|query| query["information_gain"].as_f64().unwrap())
        .collect();
    assert!(
        gains.windows(2).all(|pair| pair[0] >= pair[1]) && gains[0] > 0.0 && gains[2] == 0.0,
        "{gains:?}"
    );
    let first = ask("eve", json!({"limit": 1})).await.ok();
    assert_eq!(first["queries"].as_array().unwrap()[..], all["queries"].as_array().unwrap()[..1]);
    assert_eq!(
        ask("ada", json!({})).await.ok()["user"],
        json!({"user_id": "ada", "examples": 3, "known": true})
    );
    // Nothing is stored of who was only asked about.
    server.get("/users/eve").await.problem(404, "unknown-user");

    let cases = [
        (json!({"limit": 0}), "invalid-input", "/limit"),
        (json!({"pairs": []}), "invalid-input", "/pairs"),
        (json!({"pairs": [pair("\0", "")]}), "invalid-input", "/pairs/0/response_a"),
        (json!({"model": "NO"}), "invalid-input", "/model"),
        (json!({"model": "nobody"}), "unknown-model", "/model"),
        (json!({"on_overflow": "no"}), "invalid-input", "/on_overflow"),
        (json!({"user_id": "eve"}), "invalid-input", "/user_id"),
        (
            json!({"on_overflow": "error", "pairs": [pair("", &"fish ".repeat(5000))]}),
            "invalid-input",
            "/pairs/0/response_b",
        ),
    ];
    for (more, kind, pointer) in cases {
        assert_eq!(ask("eve", more).await.pointers(422, kind), [pointer]);
    }
}
