//! `make bench`: what it costs to ask for whom a reward is wrong, at a million predictions, and what it costs those who score.
//!
//! PostgreSQL, filled by `tools/many_predictions.py`; the real server; traffic on loopback. Every cold request asks for a
//! span that nobody asked for before, so that no answer is kept for it.

mod common;

use std::{
    fmt::Write as _,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use common::{Server, score};
use futures::{StreamExt, stream};
use polyreward_storage_postgres::testing::TestDatabase;
use serde_json::{Value, json};

/// Alternations of every measurement.
const ROUNDS: usize = 7;
/// Requests to score in one measurement.
const REQUESTS: usize = 4000;
/// Connections that score.
const CLIENTS: usize = 32;
/// People who look at the dashboard at the same time.
const VIEWERS: usize = 20;
/// What a viewer does between two pages: reads.
const READING: Duration = Duration::from_secs(5);
/// The attribute of 200 values.
const ATTRIBUTE: &str = "region";

fn main() -> anyhow::Result<()> {
    if common::is_only_listed() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let database = runtime.block_on(TestDatabase::create());
    let server = Server::start_on(Some(&database.url()), &[], &[])?;
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(CLIENTS + VIEWERS).build()?;
    let [bt, personal] = runtime.block_on(models(&client, &server.url))?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/many_predictions.py");
    let filled = Command::new("python3")
        .arg(script)
        // What follows are sqlx's own settings.
        .args([database.url().split('?').next().unwrap_or_default(), &bt, &personal])
        .status()
        .context("tools/many_predictions.py")?;
    ensure!(filled.success(), "tools/many_predictions.py failed");
    let report = runtime.block_on(measure(&client, &server.url, &personal))?;
    common::publish("accuracy.md", &report)
}

/// The baseline and a personal model, by name and version.
async fn models(client: &reqwest::Client, url: &str) -> anyhow::Result<[String; 2]> {
    let reply: Value = client.get(format!("{url}/models")).send().await?.error_for_status()?.json().await?;
    let find = |name: &str| {
        let models = reply["items"].as_array()?.iter();
        let mut named = models.filter_map(|model| model["model"].as_str());
        named.find(|model| model.starts_with(name)).map(str::to_owned)
    };
    Ok([find("bt@").context("no model bt")?, find("pal-a@").context("no model pal-a")?])
}

async fn measure(client: &reqwest::Client, url: &str, model: &str) -> anyhow::Result<String> {
    let mut report = format!(
        "# Accuracy\n\nPostgreSQL, 1 000 000 predictions by two models, 20 000 people, 200 groups; {ROUNDS} rounds. Cold: a span \
         never asked for.\n\n| measured | min | median | max |\n|---|---|---|---|\n"
    );
    answers(client, url, model, &mut report).await?;
    let pages = beside_viewers(client, url, model, &mut report).await?;
    writeln!(report, "\nViewers opened {pages} pages meanwhile.")?;
    Ok(report)
}

/// How long answers take.
async fn answers(
    client: &reqwest::Client,
    url: &str,
    model: &str,
    report: &mut String,
) -> anyhow::Result<()> {
    let asked = AtomicUsize::new(0);
    // The last moment is never reached by a prediction, so that the answers are alike and the questions are not.
    let span = || {
        // The dashboard counts the last day in, and so asks for the next one.
        let at = 2 * asked.fetch_add(1, Ordering::Relaxed);
        format!("to=21{:02}-{:02}-{:02}", at / 336, at / 28 % 12 + 1, at % 28 + 1)
    };
    let accuracy = |span: &str| format!("{url}/accuracy?model={model}&group_by={ATTRIBUTE}&{span}");
    let page = |span: &str| page(url, model, span);
    let mut columns = [const { Vec::new() }; 4];
    for round in 0..=ROUNDS {
        let (first, second) = (accuracy(&span()), page(&span()));
        let mut times = Vec::new();
        for address in [&first, &first, &second, &second] {
            times.push(timed(client, address).await?);
        }
        if round > 0 {
            columns.iter_mut().zip(times).for_each(|(column, time)| column.push(time));
        }
    }
    let labels = [
        "/accuracy, cold, ms",
        "/accuracy, again, ms",
        "the dashboard, cold, ms",
        "the dashboard, again, ms",
    ];
    for (label, column) in labels.into_iter().zip(columns) {
        row(report, label, column)?;
    }
    Ok(())
}

/// The dashboard's address with a span.
fn page(url: &str, model: &str, span: &str) -> String {
    format!("{url}/?model={model}&group_by={ATTRIBUTE}&{span}")
}

/// What scoring is like alone and beside people who look at the dashboard; how many pages they opened.
async fn beside_viewers(
    client: &reqwest::Client,
    url: &str,
    model: &str,
    report: &mut String,
) -> anyhow::Result<usize> {
    let mut columns = [const { Vec::new() }; 4];
    let pages = AtomicUsize::new(0);
    for round in 0..=ROUNDS {
        let alone = scored(client, url).await?;
        let done = AtomicBool::new(false);
        let before = pages.load(Ordering::Relaxed);
        let viewers = (0..VIEWERS).map(|viewer| {
            let (done, pages) = (&done, &pages);
            // A viewer looks at a view of their own: the first who opens it computes it.
            let address = page(url, model, &format!("to=2199-01-{:02}", viewer + 1));
            async move {
                tokio::time::sleep(READING * viewer as u32 / VIEWERS as u32).await;
                while !done.load(Ordering::Relaxed) {
                    timed(client, &address).await?;
                    pages.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(READING).await;
                }
                anyhow::Ok(())
            }
        });
        let watched = async {
            let all: Vec<_> = stream::iter(viewers).buffer_unordered(VIEWERS).collect().await;
            all.into_iter().collect::<anyhow::Result<()>>()
        };
        let scoring = async {
            let mut rounds = Vec::new();
            let started = Instant::now();
            while started.elapsed() < READING {
                rounds.push(scored(client, url).await?);
            }
            done.store(true, Ordering::Relaxed);
            anyhow::Ok(rounds)
        };
        let (beside, watched) = tokio::join!(scoring, watched);
        watched?;
        let beside = beside?;
        let [_, p99, _] = common::spread(beside.iter().map(|scored| scored.p99_ms).collect());
        let [_, rate, _] = common::spread(beside.iter().map(|scored| scored.rate).collect());
        if round > 0 {
            let viewed = (pages.load(Ordering::Relaxed) - before) as f64;
            columns
                .iter_mut()
                .zip([alone.p99_ms, p99, p99 / alone.p99_ms, rate / alone.rate])
                .for_each(|(column, value)| column.push(value));
            ensure!(viewed > 0.0, "nobody saw a page");
        }
    }
    let labels = [
        "/score p99 without viewers, ms",
        "/score p99 beside 20 viewers, ms",
        "p99 with / without viewers",
        "requests/s with / without viewers",
    ];
    for (label, column) in labels.into_iter().zip(columns) {
        row(report, label, column)?;
    }
    Ok(pages.into_inner())
}

fn row(report: &mut String, label: &str, column: Vec<f64>) -> anyhow::Result<()> {
    let [min, median, max] = common::spread(column);
    Ok(writeln!(report, "| {label} | {min:.2} | {median:.2} | {max:.2} |")?)
}

/// Milliseconds until the whole answer is there.
async fn timed(client: &reqwest::Client, address: &str) -> anyhow::Result<f64> {
    let started = Instant::now();
    let reply = client.get(address).timeout(Duration::from_mins(1)).send().await?;
    let status = reply.status();
    let body = reply.bytes().await?;
    ensure!(status.is_success(), "GET {address} answered {status}: {}", String::from_utf8_lossy(&body));
    Ok(1e3 * started.elapsed().as_secs_f64())
}

async fn scored(client: &reqwest::Client, url: &str) -> anyhow::Result<common::Scored> {
    let pair = json!([{"prompt": "Name a fish.", "response_a": "A trout.", "response_b": "Fish are tasty."}]);
    score(client, url, CLIENTS, (0..REQUESTS).map(|_| json!({"pairs": pair}))).await
}
