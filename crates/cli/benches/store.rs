//! `make bench`: what the database costs: scores for a known person against scores for nobody, and examples a second.
//!
//! The real server on SQLite and on PostgreSQL, embeddings known. Alternates within one run, as absolute figures drift with
//! the machine.

mod common;

use std::sync::Arc;

use anyhow::Context;
use common::{Server, Text, much};
use polyreward_bench::{
    Part,
    load::{Bounds, Outcome, Request, Requests, closed},
};
use polyreward_storage_postgres::testing::TestDatabase;
use serde_json::json;
use tokio::runtime::Runtime;

/// Connections.
const CLIENTS: usize = 32;
/// Examples of each person.
const EXAMPLES: usize = 8;

fn main() -> anyhow::Result<()> {
    let Some(mut recorder) = common::recorder("store")? else { return Ok(()) };
    recorder.section("SQLite", |part| {
        let server = Server::start(&[])?;
        measure("SQLite", &common::runtime()?, &server, part)
    })?;
    recorder.section("PostgreSQL", |part| {
        let runtime = common::runtime()?;
        let database = runtime.block_on(TestDatabase::create());
        let server = Server::start_on(Some(&database.url()), &[])?;
        measure("PostgreSQL", &runtime, &server, part)
    })?;
    recorder.finish()
}

/// `micro`, embeddings and states known.
fn measure(section: &str, runtime: &Runtime, server: &Server, part: &mut Part) -> anyhow::Result<()> {
    let people = much(200, 40);
    let texts: Arc<Vec<Text>> = Arc::new(common::sample()?);
    let posted = runtime.block_on(common::post_people(server.target, &texts, 0..people, EXAMPLES))?;
    part.figure(
        section,
        format!("examples, posts of {EXAMPLES} by 8 clients, all heads learning"),
        "1/s",
        vec![posted.rate() * EXAMPLES as f64],
    );
    let pair = common::pair(&texts);
    let nobody = Request::post("/score", json!({"model": "micro", "pairs": [pair]}).to_string());
    let known: Vec<Request> = (0..people)
        .map(|at| json!({"model": "micro", "pairs": [pair], "user_id": format!("person-{at}")}).to_string())
        .map(|body| Request::post("/score", body))
        .collect();
    let nobody: Requests = Arc::new(move |_| nobody.clone());
    let known: Requests = Arc::new(move |number| known[number % known.len()].clone());
    let mut columns = [const { Vec::new() }; 5];
    for round in 0..=much(7, 1) {
        let run = |requests: &Requests| {
            let bounds = Bounds::requests(much(2000, 200));
            runtime.block_on(closed(server.target, CLIENTS, bounds, Arc::clone(requests)))?.all_answered()
        };
        let (nobody, known) = (run(&nobody)?, run(&known)?);
        if round == 0 {
            continue; // to warm up
        }
        let [p99, known_p99] = [&nobody, &known].map(|run| run.latency_ms(Outcome::Answered, 0.99));
        let values = [
            nobody.rate(),
            known.rate(),
            known.rate() / nobody.rate(),
            p99.context("no answer")?,
            known_p99.context("no answer")?,
        ];
        columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
    }
    let labels = [
        ("/score without user_id", "requests/s"),
        ("/score with user_id", "requests/s"),
        ("with / without user_id", ""),
        ("p99 without user_id", "ms"),
        ("p99 with user_id", "ms"),
    ];
    for ((label, unit), column) in labels.into_iter().zip(columns) {
        part.figure(section, label, unit, column);
    }
    Ok(())
}
