//! `make bench`: what becomes of those who ask when four times as much is asked for as can be answered.
//!
//! Capacity comes from a closed loop, in which nobody asks who was not answered; then requests are due at four times that
//! rate, whatever becomes of those before them, and their latency counts from when they were due. Afterwards the server is
//! asked at once for what it answered before. Texts are never seen, so that work is what the encoder does.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use common::{Server, much};
use polyreward_bench::{
    Part,
    load::{Bounds, Outcome, Request, Requests, closed, open},
};
use serde_json::json;

/// A model that asks nothing of people.
const MODEL: &str = "bt";
/// Clients that find what can be answered.
const CLIENTS: usize = 64;
/// How much more is asked for than that.
const TIMES: f64 = 4.0;
/// Connections over which it is asked for; the server takes more.
const CONNECTIONS: usize = 3000;
/// Requests that the server has under way at most, by default.
const MAX_IN_FLIGHT: f64 = 1024.0;
/// How many times over they are asked for beyond what is answered.
const QUEUES: f64 = 3.0;
const LONGEST_S: f64 = 30.0;

fn main() -> anyhow::Result<()> {
    let Some(mut recorder) = common::recorder("overload")? else { return Ok(()) };
    recorder.section("four times the capacity", overload)?;
    recorder.finish()
}

fn overload(part: &mut Part) -> anyhow::Result<()> {
    let section = "four times the capacity";
    let texts = common::sample()?;
    let given = AtomicUsize::new(0);
    let requests: Requests = Arc::new(move |_| {
        let (prompt, response) = common::distinct(&texts, given.fetch_add(1, Ordering::Relaxed));
        let item = json!({"prompt": prompt, "responses": [response]});
        Request::post("/score", json!({"model": MODEL, "items": [item]}).to_string())
    });
    let server = Server::start(&[])?;
    let runtime = common::runtime()?;
    let capacity_time = Duration::from_millis(much(3000, 500) as u64);
    let alone = much(100, 20);
    let capacity = || -> anyhow::Result<f64> {
        let bounds = Bounds::time(capacity_time);
        Ok(runtime
            .block_on(closed(server.target, CLIENTS, bounds, Arc::clone(&requests)))?
            .all_answered()?
            .rate())
    };
    let mut columns: Vec<(&str, &str, Vec<f64>)> = Vec::new();
    let mut put = |what, unit, value| match columns.iter_mut().find(|column| column.0 == what) {
        Some(column) => column.2.push(value),
        None => columns.push((what, unit, vec![value])),
    };
    capacity()?; // to warm up
    for round in 0..much(3, 1) {
        let rate = capacity()?;
        let before = runtime.block_on(common::one_by_one(server.target, alone, Arc::clone(&requests)))?;
        // Long enough that what is not answered is more than the server takes, however slow the machine is.
        let fills = QUEUES * MAX_IN_FLIGHT / ((TIMES - 1.0) * rate);
        let time = Duration::from_secs_f64(fills.clamp(much(5, 1) as f64, LONGEST_S));
        let run = runtime.block_on(open(
            server.target,
            TIMES * rate,
            CONNECTIONS,
            Bounds::time(time),
            round as u64,
            Arc::clone(&requests),
        ))?;
        // At once, before anything else.
        let after = runtime.block_on(common::one_by_one(server.target, alone, Arc::clone(&requests)))?;
        let again = capacity()?;

        let total = run.answers.len() as f64;
        let (answered, refused) = (run.count(Outcome::Answered), run.count(Outcome::Refused));
        let others: usize = run.others().iter().map(|(_, count)| count).sum();
        put("capacity, 64 clients of one text", "requests/s", rate);
        put("asked for", "requests/s", total / time.as_secs_f64());
        put("goodput / capacity", "", run.rate() / rate);
        put("share answered", "", answered as f64 / total);
        put("share refused with 503 and Retry-After", "", refused as f64 / total);
        put("share with neither, as 503 without Retry-After or no answer", "", others as f64 / total);
        for (what, outcome, share) in [
            ("refusal, p50", Outcome::Refused, 0.5),
            ("refusal, p99", Outcome::Refused, 0.99),
            ("refusal, max", Outcome::Refused, 1.0),
            ("answer, p50", Outcome::Answered, 0.5),
            ("answer, p99", Outcome::Answered, 0.99),
            ("answer, max", Outcome::Answered, 1.0),
        ] {
            if let Some(ms) = run.latency_ms(outcome, share) {
                put(what, "ms", ms);
            }
        }
        put("the generator's own delay, p50", "ms", run.late_ms(0.5).context("no request")?);
        put("the generator's own delay, p99", "ms", run.late_ms(0.99).context("no request")?);
        let (before_ms, after_ms) = (common::median(&before)?, common::median(&after)?);
        put("latency alone before, p50", "ms", before_ms);
        put("latency alone at once after / before, p50", "", after_ms / before_ms);
        put("first answer at once after", "ms", after[0]);
        put("capacity after / before", "", again / rate);
        for (outcome, count) in run.others() {
            eprintln!("bench overload: {count} requests ended as {outcome:?}");
        }
    }
    for (what, unit, values) in columns {
        part.figure(section, what, unit, values);
    }
    Ok(())
}
