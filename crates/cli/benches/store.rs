//! `make bench`: what the database costs: scores for a known person against scores for nobody, and examples a second.
//!
//! The real server on SQLite and on PostgreSQL, embeddings known. Alternates within one run, as absolute figures drift with
//! the machine. Traffic stays on loopback and is bounded.

mod common;

use std::{fmt::Write as _, time::Instant};

use common::{Server, post, score};
use futures::{StreamExt, TryStreamExt, stream};
use polyreward_storage_postgres::testing::TestDatabase;
use serde_json::{Value, json};

/// Alternations of every measurement.
const ROUNDS: usize = 7;
/// Requests to score in one measurement.
const REQUESTS: usize = 2000;
/// Connections.
const CLIENTS: usize = 32;
/// People who are asked for in turn.
const PEOPLE: usize = 200;
/// Examples of each.
const EXAMPLES: usize = 8;

fn main() -> anyhow::Result<()> {
    if common::is_only_listed() {
        return Ok(());
    }
    let texts = common::sample()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(CLIENTS).build()?;
    let mut report = format!(
        "# Database\n\n{PEOPLE} people with {EXAMPLES} examples each, one pair a request, {CLIENTS} connections, {ROUNDS} \
         rounds of {REQUESTS} requests; embeddings and states known, `micro`.\n\n| database | measured | min | median | max |\n|---|---|---|---|---|\n"
    );
    let postgres = runtime.block_on(TestDatabase::create());
    for (name, url) in [("SQLite", None), ("PostgreSQL", Some(postgres.url()))] {
        let server = Server::start_on(url.as_deref(), &[], &[])?;
        runtime.block_on(measure(name, &client, &server.url, &texts, &mut report))?;
    }
    common::publish("store.md", &report)
}

async fn measure(
    name: &str,
    client: &reqwest::Client,
    url: &str,
    texts: &[(String, String)],
    report: &mut String,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let posts = (0..PEOPLE).map(|person| {
        let examples: Vec<Value> = (0..EXAMPLES)
            .map(|example| {
                let at = (person * 7 + example * 13) % (texts.len() / 5) * 5;
                json!({"prompt": texts[at].0, "chosen": texts[at + person % 5].1, "rejected": texts[at + (person + 1) % 5].1})
            })
            .collect();
        post(client, format!("{url}/users/person-{person}/examples"), json!({"examples": examples}))
    });
    stream::iter(posts).buffer_unordered(8).try_collect::<Vec<()>>().await?;
    let first = (PEOPLE * EXAMPLES) as f64 / started.elapsed().as_secs_f64();

    let (prompt, a) = &texts[0];
    let pairs = json!([{"prompt": prompt, "response_a": a, "response_b": texts[1].1}]);
    let body = |person: Option<usize>| match person {
        None => json!({"model": "micro", "pairs": pairs}),
        Some(at) => json!({"model": "micro", "pairs": pairs, "user_id": format!("person-{}", at % PEOPLE)}),
    };
    let mut columns = [const { Vec::new() }; 5];
    for round in 0..=ROUNDS {
        let nobody = score(client, url, CLIENTS, (0..REQUESTS).map(|_| body(None))).await?;
        let somebody = score(client, url, CLIENTS, (0..REQUESTS).map(|at| body(Some(at)))).await?;
        if round == 0 {
            continue; // to warm up
        }
        let values =
            [nobody.rate, somebody.rate, somebody.rate / nobody.rate, nobody.p99_ms, somebody.p99_ms];
        columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
    }
    let labels = [
        "/score without user_id, requests/s",
        "/score with user_id, requests/s",
        "with / without user_id",
        "p99 without user_id, ms",
        "p99 with user_id, ms",
    ];
    for (label, column) in labels.into_iter().zip(columns) {
        let [min, median, max] = common::spread(column);
        writeln!(report, "| {name} | {label} | {min:.2} | {median:.2} | {max:.2} |")?;
    }
    writeln!(
        report,
        "| {name} | examples/s, posts of {EXAMPLES} by 8 clients, all heads learning | | {first:.0} | |"
    )?;
    Ok(())
}
