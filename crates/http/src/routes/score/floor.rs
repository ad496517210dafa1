//! `POST /score` that does nothing but parse and answer: what `make bench` compares the real one with.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::post,
};
use polyreward_domain::StateVersion;
use polyreward_service::{Answer, PairScore, ScoreOutcome, Scored, Seen, Usage, Work};
use tokio::net::TcpListener;

use super::{request::ScoreRequest, write};
use crate::{
    extract::parse,
    limits::{Deadline, Limits},
    problem::{Problem, ProblemType},
    server::run_bare,
};

/// Serves it without an end: of the server's own only the loop over connections is around it, no keys, limits or metrics.
pub async fn serve_floor(listener: TcpListener) {
    let routes = Router::new().route("/score", post(floor)).with_state(Arc::new(Limits::default()));
    run_bare(listener, routes).await;
}

async fn floor(State(limits): State<Arc<Limits>>, bytes: Bytes) -> Result<Response, Problem> {
    let json = parse_and_answer(&bytes, &limits)?;
    let json_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((json_type, json).into_response())
}

/// Reads and checks a body of pairs, and writes an answer of the same numbers for each.
///
/// # Errors
/// A body that [`score`](super::score) refuses, or one without pairs.
pub fn parse_and_answer(bytes: &[u8], limits: &Limits) -> Result<Vec<u8>, Problem> {
    let deadline = Deadline(Instant::now() + Duration::from_secs(1));
    let (query, places) = parse::<ScoreRequest>(bytes)?.into_query(limits, deadline)?;
    let Work::Pairs(pairs) = query.work else {
        return Err(Problem::new(ProblemType::MalformedJson).detail("only pairs are answered here"));
    };
    let score = PairScore {
        reward_a: 0.912_345_67,
        reward_b: -0.401_234_5,
        preference: 0.787_654_321,
        uncertainty: 0.061_234_5,
    };
    let answer = || Ok(Answer { scores: vec![score.clone()], truncated: false, tokens: 21 });
    let outcome = ScoreOutcome {
        model: polyreward_domain::ModelRef {
            name: "bt".parse().expect("letters make a name"),
            version: "0".parse().expect("a digit makes a version"),
        },
        backbone: "all-minilm-l6-v2-int8".to_owned(),
        seen: Seen::Population,
        state_version: StateVersion::POPULATION,
        results: Scored::Pairs(pairs.iter().map(|_| answer()).collect()),
        also: None,
        usage: Usage { texts: 2 * pairs.len(), tokens: 21, embeddings_cached: 2 * pairs.len() },
        rewards: 2 * pairs.len(),
        room: None,
    };
    write(outcome, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_reads_what_the_route_reads_and_answers_in_its_words() {
        let pair = r#"{"prompt": "Name a fish.", "response_a": "A trout.", "response_b": "Fish are tasty."}"#;
        let limits = Limits::default();
        let json = parse_and_answer(format!(r#"{{"pairs": [{pair}, {pair}]}}"#).as_bytes(), &limits).unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(answer["results"].as_array().unwrap().len(), 2);
        assert_eq!(answer["results"][1]["truncated"], false);
        assert!(answer["results"][0]["preference"].as_f64().unwrap() > 0.78);
        for refused in [
            r#"{"pairs": []}"#,
            r#"{"pears": []}"#,
            "{",
            r#"{"items": [{"prompt": "p", "responses": ["r"]}]}"#,
        ] {
            assert!(parse_and_answer(refused.as_bytes(), &limits).is_err(), "{refused}");
        }
    }
}
