//! `make bench-compare BASE=<commit>`: the same load on two builds of the server, in turn on one machine.
//!
//! Every round measures each scenario on both builds, one right after the other, and which of them comes first alternates (A B,
//! B A, ...), so that a machine that slows down for a while slows both. A round gives one ratio of times, head to base. The
//! interval of a scenario's median ratio is one of order statistics, whose confidence is that of a sign test; it assumes nothing
//! of how ratios are distributed. All intervals hold at once with 95 % (Bonferroni over the scenarios).
//!
//! A scenario has become slower beyond noise where its whole interval is above 1 and its median is above it by at least
//! `LEAST`: what is smaller cannot be told from where code happens to lie in memory. Then this ends with 1.

mod common;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, ensure};
use common::{Server, Text, much};
use polyreward_bench::{
    Machine,
    load::{Bounds, Request, Requests, Target, always, closed},
    statistics::{Spread, median_interval},
};
use serde::Serialize;
use serde_json::{Value, json};

/// The builds, by the variable that names each.
const BASE: &str = "BENCH_BASE";
const HEAD: &str = "BENCH_HEAD";
/// By how much a scenario is slower at least to be called so.
const LEAST: f64 = 0.03;
/// With which confidence all intervals hold at once.
const CONFIDENCE: f64 = 0.95;
/// People with examples.
const PEOPLE: usize = 1000;
const MODEL: &str = "pal-a";

/// One thing that is asked of both builds.
struct Scenario {
    name: &'static str,
    clients: usize,
    /// Requests of one measurement.
    count: usize,
    requests: Requests,
}

/// What became of one scenario.
#[derive(Serialize)]
struct Compared {
    name: &'static str,
    /// Time of head to time of base, one a round.
    ratios: Vec<f64>,
    spread: Spread,
    interval: [f64; 2],
    verdict: &'static str,
}

fn main() -> anyhow::Result<()> {
    // `cargo bench` without a name calls it with the others.
    let Some((base, head)) = std::env::var_os(BASE).zip(std::env::var_os(HEAD)) else {
        eprintln!(
            "bench compare: {BASE} and {HEAD} name no servers; `make bench-compare BASE=<commit>` does"
        );
        return Ok(());
    };
    let [base, head] = [base, head].map(PathBuf::from);
    let compared = compare([&base, &head])?;
    let report = render(&compared, &base, &head);
    print!("{report}");
    let folder = common::folder();
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("compare.md"), &report)?;
    std::fs::write(folder.join("compare.json"), serde_json::to_string_pretty(&compared)?)?;
    let slower: Vec<&str> = compared.iter().filter(|one| one.verdict == SLOWER).map(|one| one.name).collect();
    ensure!(slower.is_empty(), "slower than the base beyond noise: {}", slower.join(", "));
    Ok(())
}

const SLOWER: &str = "**slower**";

fn compare(builds: [&Path; 2]) -> anyhow::Result<Vec<Compared>> {
    let answers = Arc::new(common::sample()?);
    let runtime = common::runtime()?;
    let people = much(PEOPLE, 100);
    let mut servers = Vec::new();
    for build in builds {
        let server = Server::start_binary(build, None, &[])?;
        runtime.block_on(common::post_people(server.target, &answers, 0..people, 2))?;
        servers.push(server);
    }
    let scenarios = scenarios(&answers, people);
    let confidence = 1.0 - (1.0 - CONFIDENCE) / scenarios.len() as f64;
    let rounds = much(21, 11);
    let mut ratios = vec![Vec::new(); scenarios.len()];
    for round in 0..=rounds {
        for (scenario, ratios) in scenarios.iter().zip(&mut ratios) {
            let mut seconds = [0.0; 2];
            let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            for build in order {
                seconds[build] = runtime
                    .block_on(measure(scenario, servers[build].target))
                    .with_context(|| format!("{} of {}", scenario.name, builds[build].display()))?;
            }
            if round > 0 {
                ratios.push(seconds[1] / seconds[0]);
            }
        }
        eprintln!("bench compare: round {round} of {rounds}");
    }
    scenarios.iter().zip(ratios).map(|(scenario, ratios)| judge(scenario.name, ratios, confidence)).collect()
}

async fn measure(scenario: &Scenario, target: Target) -> anyhow::Result<f64> {
    let bounds = Bounds::requests(scenario.count);
    let run = closed(target, scenario.clients, bounds, Arc::clone(&scenario.requests)).await?;
    Ok(run.all_answered()?.elapsed_s)
}

fn judge(name: &'static str, ratios: Vec<f64>, confidence: f64) -> anyhow::Result<Compared> {
    let (interval, _) = median_interval(&ratios, confidence).context("too few rounds for an interval")?;
    let spread = Spread::of(&ratios).context("a ratio that is no number")?;
    let verdict = if interval[0] > 1.0 && spread.median > 1.0 + LEAST {
        SLOWER
    } else if interval[1] < 1.0 && spread.median < 1.0 - LEAST {
        "faster"
    } else {
        "no difference shown"
    };
    Ok(Compared { name, ratios, spread, interval, verdict })
}

fn render(compared: &[Compared], base: &Path, head: &Path) -> String {
    let machine = Machine::here();
    let mut text = format!(
        "# Comparison\n\nTime of head / time of base, {} rounds in turn; {}, {} cores. Intervals of the median, all at once \
         with {:.0} %. Slower: the whole interval above 1, and the median by at least {:.0} %.\n\n- Base: {}\n- Head: {}\n\n\
         | scenario | median | interval | least to largest | verdict |\n|---|---|---|---|---|\n",
        compared.first().map_or(0, |one| one.ratios.len()),
        machine.cpu,
        machine.cores,
        100.0 * CONFIDENCE,
        100.0 * LEAST,
        base.display(),
        head.display()
    );
    for Compared { name, spread, interval: [low, high], verdict, .. } in compared {
        writeln!(
            text,
            "| {name} | {:.3} | {low:.3} to {high:.3} | {:.3} to {:.3} | {verdict} |",
            spread.median, spread.min, spread.max
        )
        .expect("writing to a string cannot fail");
    }
    text
}

fn scenarios(answers: &Arc<Vec<Text>>, people: usize) -> Vec<Scenario> {
    let post = |body: &Value| Request::post("/score", body.to_string());
    let pairs = json!([common::pair(answers)]);
    let responses: Vec<&str> = answers.iter().take(64).map(|(_, answer)| answer.as_str()).collect();
    let known = json!({"model": MODEL, "items": [{"prompt": answers[0].0, "responses": responses}]});
    let everybody = json!({"model": MODEL, "pairs": pairs, "audience": {"group": {}, "aggregate": ["mean"]}});
    let of_people: Vec<Request> = (0..people)
        .map(|at| post(&json!({"model": MODEL, "pairs": pairs, "user_id": format!("person-{at}")})))
        .collect();
    // Both builds are given different texts, which are as long as one another on average.
    let never_seen = |per_request: usize| -> Requests {
        let (answers, given) = (Arc::clone(answers), AtomicUsize::new(0));
        Arc::new(move |_| {
            let first = given.fetch_add(per_request, Ordering::Relaxed);
            // Apart from what the other scenario gives.
            let body = common::distinct_body(&answers, "bt", 1_000_000 * per_request + first, per_request);
            Request::post("/score", body)
        })
    };
    let learn: Requests = {
        let (answers, given) = (Arc::clone(answers), AtomicUsize::new(0));
        Arc::new(move |_| {
            let number = given.fetch_add(1, Ordering::Relaxed);
            let examples: Vec<Value> = (0..8).map(|at| common::example(&answers, number, at)).collect();
            Request::post(&format!("/users/new-{number}/examples"), json!({"examples": examples}).to_string())
        })
    };
    let scenario = |name, clients, count, requests| Scenario { name, clients, count, requests };
    vec![
        scenario(
            "a warm pair, 32 clients",
            32,
            much(4000, 400),
            always(post(&json!({"model": MODEL, "pairs": pairs}))),
        ),
        scenario("a warm pair of a known person, 32 clients", 32, much(2000, 200), {
            Arc::new(move |number: usize| of_people[number % of_people.len()].clone())
        }),
        scenario(
            "a warm pair, one client",
            1,
            much(500, 50),
            always(post(&json!({"model": MODEL, "pairs": pairs}))),
        ),
        scenario("64 warm responses of a prompt, one client", 1, much(200, 20), always(post(&known))),
        scenario("a pair for everybody, one client", 1, much(50, 5), always(post(&everybody))),
        scenario("64 texts never seen, 4 clients", 4, much(8, 4), never_seen(much(64, 8))),
        scenario("one text never seen, one client", 1, much(60, 10), never_seen(1)),
        scenario("8 examples of somebody new, 8 clients", 8, much(64, 8), learn),
    ]
}
