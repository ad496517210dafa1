//! `make bench`: what it costs to ask for whom a reward is wrong, at a million predictions, and what it costs those who score.
//!
//! PostgreSQL, filled by `tools/many_predictions.py`; the real server. Every cold request asks for a span that nobody asked
//! for before, so that no answer is kept for it.

mod common;

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use common::{Server, much};
use futures::future::try_join_all;
use polyreward_bench::{
    Part,
    load::{Bounds, Method, Outcome, Request, Run, Target, always, closed},
};
use polyreward_storage_postgres::testing::TestDatabase;
use serde_json::json;
use tokio::runtime::Runtime;

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
    let Some(mut recorder) = common::recorder("accuracy")? else { return Ok(()) };
    let runtime = common::runtime()?;
    let mut filled = None;
    recorder.section("a million predictions", |part| {
        let (server, model, _database) = filled.insert(fill(&runtime)?);
        runtime.block_on(answers(server.target, model, part))
    })?;
    recorder.section("beside viewers", |part| {
        let (server, model, _database) = filled.as_ref().context("there are no predictions")?;
        runtime.block_on(beside_viewers(server.target, model, part))
    })?;
    recorder.finish()
}

/// A server over many predictions, and a personal model of it.
fn fill(runtime: &Runtime) -> anyhow::Result<(Server, String, TestDatabase)> {
    let database = runtime.block_on(TestDatabase::create());
    let server = Server::start_on(Some(&database.url()), &[])?;
    let [bt, personal] = runtime.block_on(models(server.target))?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/many_predictions.py");
    let filled = Command::new("python3")
        .arg(script)
        .args(["--people", &much(20_000, 1000).to_string()])
        // What follows are sqlx's own settings.
        .args([database.url().split('?').next().unwrap_or_default(), &bt, &personal])
        .status()
        .context("tools/many_predictions.py")?;
    ensure!(filled.success(), "tools/many_predictions.py failed");
    Ok((server, personal, database))
}

fn get(path: &str) -> Request {
    Request { method: Method::GET, path: path.into(), body: Bytes::new() }
}

/// The baseline and a personal model, by name and version.
async fn models(target: Target) -> anyhow::Result<[String; 2]> {
    let reply = common::ask(target, get("/models")).await?;
    let find = |name: &str| {
        let models = reply["items"].as_array()?.iter();
        let mut named = models.filter_map(|model| model["model"].as_str());
        named.find(|model| model.starts_with(name)).map(str::to_owned)
    };
    Ok([find("bt@").context("no model bt")?, find("pal-a@").context("no model pal-a")?])
}

/// How long answers take: 20 000 people, 200 groups, two models.
async fn answers(target: Target, model: &str, part: &mut Part) -> anyhow::Result<()> {
    let asked = AtomicUsize::new(0);
    // The last moment is never reached by a prediction, so that the answers are alike and the questions are not.
    let span = || {
        // The dashboard counts the last day in, and so asks for the next one.
        let at = 2 * asked.fetch_add(1, Ordering::Relaxed);
        format!("to=21{:02}-{:02}-{:02}", at / 336, at / 28 % 12 + 1, at % 28 + 1)
    };
    let accuracy = |span: &str| format!("/accuracy?model={model}&group_by={ATTRIBUTE}&{span}");
    let page = |span: &str| page(model, span);
    let mut columns = [const { Vec::new() }; 4];
    for round in 0..=much(7, 1) {
        let (first, second) = (accuracy(&span()), page(&span()));
        let mut times = Vec::new();
        for path in [&first, &first, &second, &second] {
            times.push(timed(target, path).await?);
        }
        if round > 0 {
            columns.iter_mut().zip(times).for_each(|(column, time)| column.push(time));
        }
    }
    let labels = ["/accuracy, cold", "/accuracy, again", "the dashboard, cold", "the dashboard, again"];
    for (label, column) in labels.into_iter().zip(columns) {
        part.figure("a million predictions", label, "ms", column);
    }
    Ok(())
}

/// The dashboard's address with a span.
fn page(model: &str, span: &str) -> String {
    format!("/?model={model}&group_by={ATTRIBUTE}&{span}")
}

/// What scoring is like alone and beside people who look at the dashboard.
async fn beside_viewers(target: Target, model: &str, part: &mut Part) -> anyhow::Result<()> {
    let mut columns = [const { Vec::new() }; 5];
    for round in 0..=much(5, 1) {
        let alone = scored(target).await?;
        let (done, pages) = (AtomicBool::new(false), AtomicUsize::new(0));
        let viewers = (0..VIEWERS).map(|viewer| {
            let (done, pages) = (&done, &pages);
            // A viewer looks at a view of their own: the first who opens it computes it.
            let path = page(model, &format!("to=2199-01-{:02}", viewer + 1));
            async move {
                tokio::time::sleep(READING * viewer as u32 / VIEWERS as u32).await;
                while !done.load(Ordering::Relaxed) {
                    timed(target, &path).await?;
                    pages.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(READING).await;
                }
                anyhow::Ok(())
            }
        });
        let scoring = async {
            let mut rounds = Vec::new();
            let started = Instant::now();
            while started.elapsed() < READING {
                rounds.push(scored(target).await?);
            }
            done.store(true, Ordering::Relaxed);
            anyhow::Ok(rounds)
        };
        let (beside, _) = tokio::try_join!(scoring, try_join_all(viewers))?;
        let p99s = beside.iter().map(p99).collect::<anyhow::Result<Vec<f64>>>()?;
        let p99_beside = common::median(&p99s)?;
        let rate = common::median(&beside.iter().map(Run::rate).collect::<Vec<_>>())?;
        let viewed = pages.into_inner();
        ensure!(viewed > 0, "nobody saw a page");
        if round > 0 {
            let p99_alone = p99(&alone)?;
            let values = [p99_alone, p99_beside, p99_beside / p99_alone, rate / alone.rate(), viewed as f64];
            columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
        }
    }
    let labels = [
        ("/score p99 without viewers", "ms"),
        ("/score p99 beside 20 viewers", "ms"),
        ("p99 with / without viewers", ""),
        ("requests/s with / without viewers", ""),
        ("pages opened meanwhile", "pages"),
    ];
    for ((label, unit), column) in labels.into_iter().zip(columns) {
        part.figure("beside viewers", label, unit, column);
    }
    Ok(())
}

/// Milliseconds until the whole answer is there.
async fn timed(target: Target, path: &str) -> anyhow::Result<f64> {
    common::median(&common::one_by_one(target, 1, always(get(path))).await?)
}

async fn scored(target: Target) -> anyhow::Result<Run> {
    let pair = json!([{"prompt": "Name a fish.", "response_a": "A trout.", "response_b": "Fish are tasty."}]);
    let request = Request::post("/score", json!({"pairs": pair}).to_string());
    let bounds = Bounds::requests(much(REQUESTS, 400));
    closed(target, CLIENTS, bounds, Arc::new(move |_| request.clone())).await?.all_answered()
}

fn p99(run: &Run) -> anyhow::Result<f64> {
    run.latency_ms(Outcome::Answered, 0.99).context("no answer")
}
