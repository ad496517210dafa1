//! `make bench`: how the cost of a score grows with people, responses, the length of a text, clients, and examples.
//!
//! The real server on SQLite, with the models of the sample. Every curve is measured in rounds that walk all of its points,
//! so that a machine that slows down for a while does not bend it.

mod common;

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use common::{Server, Text, much};
use polyreward_bench::{
    Curve, Part, Series,
    load::{Bounds, Outcome, Request, Requests, Run, Target, always, closed},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// The model where one stands for all.
const MODEL: &str = "pal-a";
/// A model that asks nothing of people.
const PLAIN: &str = "bt";
const MODELS: [&str; 6] = ["bt", "lore", "pal-a", "pal-b", "vpl", "micro"];
/// Crowds that every model is asked for, and beyond them those that one is asked for.
const CROWDS: [usize; 5] = [1, 10, 100, 1000, 10_000];
const BEYOND: usize = 100_000;
/// People who have examples; all others are copies of them.
const ORIGINALS: usize = 200;
/// States of a hundred thousand people.
const STATE_CACHE_BYTES: &str = "4294967296";

fn main() -> anyhow::Result<()> {
    let Some(mut recorder) = common::recorder("growth")? else { return Ok(()) };
    recorder.section("people", people)?;
    recorder.section("responses", responses)?;
    recorder.section("tokens", tokens)?;
    recorder.section("clients", clients)?;
    recorder.section("examples", examples)?;
    recorder.finish()
}

/// One line of a curve while it is measured: what is asked at each of its points.
struct Line {
    name: String,
    points: Vec<(f64, Requests)>,
}

/// Latencies of one client, a median of `each` requests at each point of each line in each round; one round to warm up.
fn walk(
    runtime: &Runtime,
    target: Target,
    lines: Vec<Line>,
    rounds: usize,
    each: usize,
) -> anyhow::Result<Vec<Series>> {
    let mut series: Vec<Series> = lines
        .iter()
        .map(|line| Series {
            name: line.name.clone(),
            points: line.points.iter().map(|(x, _)| (*x, Vec::new())).collect(),
        })
        .collect();
    for round in 0..=rounds {
        for (line, series) in lines.iter().zip(&mut series) {
            for ((x, requests), (_, values)) in line.points.iter().zip(&mut series.points) {
                let times = runtime
                    .block_on(common::one_by_one(target, each, Arc::clone(requests)))
                    .with_context(|| format!("{}, {x}", line.name))?;
                if round > 0 {
                    values.push(common::median(&times)?);
                }
            }
        }
        eprintln!("bench growth: round {round} of {rounds}");
    }
    Ok(series)
}

fn post(body: &Value) -> Request {
    Request::post("/score", body.to_string())
}

/// A pair for 1 to 100 000 people, states in memory.
fn people(part: &mut Part) -> anyhow::Result<()> {
    let answers = Arc::new(common::sample()?);
    let runtime = common::runtime()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("crowds.db");
    let database = format!("sqlite:{}", file.display());
    {
        let server = Server::start_on(Some(&database), &[])?;
        let originals = 0..much(ORIGINALS, 20);
        runtime.block_on(common::post_people(server.target, &answers, originals, 8))?;
    }
    let crowds = &CROWDS[..much(CROWDS.len(), 4)];
    let most = much(BEYOND, crowds[crowds.len() - 1]);
    let sizes: Vec<String> = crowds.iter().chain([&most]).map(ToString::to_string).collect();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/copy_people.py");
    let copied = Command::new("python3")
        .arg(script)
        .arg(&file)
        .args(["--crowds", &dedup(sizes).join(","), "--model", MODEL])
        .args(["--beyond", &crowds[crowds.len() - 1].to_string()])
        .status()
        .context("tools/copy_people.py")?;
    ensure!(copied.success(), "tools/copy_people.py failed");

    let server =
        Server::start_on(Some(&database), &[("POLYREWARD_USERS__STATE_CACHE_BYTES", STATE_CACHE_BYTES)])?;
    let pairs = json!([common::pair(&answers)]);
    let crowd = |model: &str, size: usize| {
        let audience = json!({"group": {format!("crowd-{size}"): "in"}, "aggregate": ["mean"]});
        post(&json!({"model": model, "pairs": pairs, "audience": audience}))
    };
    let mut lines = Vec::new();
    for model in MODELS {
        let sizes =
            crowds.iter().copied().chain((model == MODEL && most > crowds[crowds.len() - 1]).then_some(most));
        let mut points = Vec::new();
        for size in sizes {
            let request = crowd(model, size);
            let answer = runtime.block_on(common::ask(server.target, request.clone()))?;
            let users = answer["audience"]["users"].as_u64();
            ensure!(users == Some(size as u64), "{users:?} people were asked for in a crowd of {size}");
            points.push((size as f64, always(request)));
        }
        lines.push(Line { name: model.to_owned(), points });
    }
    let resident = server.resident_mib();
    let rounds = much(7, 1);
    part.curves.push(Curve {
        title: "Users of an audience".into(),
        per: "user".into(),
        what: "one pair, one client".into(),
        unit: "ms".into(),
        series: walk(&runtime, server.target, lines, rounds, 3)?,
        additive: true,
        note: "`/score` of one pair with `audience`, embeddings and states in memory, people in SQLite."
            .into(),
    });
    let named = |size: usize| {
        let ids: Vec<String> = (0..size).map(|number| format!("copy-{number}")).collect();
        always(post(&json!({"model": MODEL, "pairs": pairs, "user_ids": ids})))
    };
    let points = crowds.iter().map(|size| (*size as f64, named(*size))).collect();
    let line = Line { name: MODEL.to_owned(), points };
    part.curves.push(Curve {
        title: "Users by name".into(),
        per: "user".into(),
        what: "one pair, one client".into(),
        unit: "ms".into(),
        series: walk(&runtime, server.target, vec![line], rounds, 3)?,
        additive: true,
        note: "`/score` of one pair with `user_ids`: every name is read, and each person has an answer of their own.".into(),
    });
    if let Some(mib) = resident {
        part.figure("people", format!("memory with the states of {most} people read"), "MiB", vec![mib]);
    }
    Ok(())
}

/// Without what stands there already.
fn dedup(mut sizes: Vec<String>) -> Vec<String> {
    sizes.dedup();
    sizes
}

/// Requests with texts that nobody sent before, made of a number that is given once.
fn never_seen(body: impl Fn(usize) -> Value + Send + Sync + 'static) -> Requests {
    static GIVEN: AtomicUsize = AtomicUsize::new(0);
    Arc::new(move |_| post(&body(GIVEN.fetch_add(1, Ordering::Relaxed))))
}

/// 1 to 64 responses to a prompt, one client.
fn responses(part: &mut Part) -> anyhow::Result<()> {
    let answers = Arc::new(common::sample()?);
    let runtime = common::runtime()?;
    let server = Server::start(&[])?;
    let items = |answers: &[Text], count: usize, mark: &str| {
        let responses: Vec<String> = (0..count).map(|at| format!("{}{mark}", answers[at].1)).collect();
        json!({"model": MODEL, "items": [{"prompt": answers[0].0, "responses": responses}]})
    };
    let counts = [1, 2, 4, 8, 16, 32, 64];
    let known = counts.map(|count| (count as f64, always(post(&items(&answers, count, "")))));
    let unseen = counts.map(|count| {
        let answers = Arc::clone(&answers);
        (count as f64, never_seen(move |number| items(&answers, count, &format!(" ({number})"))))
    });
    for (title, points, each, note) in [
        ("Responses of a prompt, texts known", known, 30, "Embeddings in memory."),
        ("Responses of a prompt, texts never seen", unseen, 3, "Every response is encoded."),
    ] {
        let line = Line { name: String::new(), points: points.to_vec() };
        part.curves.push(Curve {
            title: title.into(),
            per: "response".into(),
            what: "one item, one client".into(),
            unit: "ms".into(),
            series: walk(&runtime, server.target, vec![line], much(7, 1), each)?,
            additive: true,
            note: format!("`/score` with `{MODEL}`. {note}"),
        });
    }
    Ok(())
}

/// Texts of 16 to 256 tokens, never seen: alone, and 64 in a request.
fn tokens(part: &mut Part) -> anyhow::Result<()> {
    let many = much(64, 8);
    let runtime = common::runtime()?;
    let server = Server::start(&[])?;
    // Common words, one token each.
    let body = |words: usize, number: usize, texts: usize| {
        let text = |at: usize| {
            let mut text = format!("{} {at} ", number % 100_000);
            text.push_str(&"the lake is near and the road is long ".repeat(words.div_ceil(9)));
            text.split_inclusive(' ').take(words).collect::<String>()
        };
        let items: Vec<Value> = (0..texts).map(|at| json!({"prompt": "", "responses": [text(at)]})).collect();
        json!({"model": PLAIN, "items": items})
    };
    let mut lines = [("alone", 1, 5), (&format!("{many} in a request, for each"), many, 1)]
        .map(|(name, texts, each)| (Line { name: name.to_owned(), points: Vec::new() }, texts, each));
    let mut forms = 0.0;
    for words in [8, 24, 56, 120, 184, 244] {
        // How many tokens these are, the server says.
        let probe = runtime.block_on(common::ask(server.target, post(&body(words, 99_999, 1))))?;
        let usage = |field: &str| probe["usage"][field].as_f64().context("an answer without usage");
        forms = usage("texts")?;
        let tokens = usage("tokens")? / forms;
        for (line, texts, _) in &mut lines {
            let texts = *texts;
            line.points.push((tokens, never_seen(move |number| body(words, number, texts))));
        }
    }
    let mut series = Vec::new();
    for (line, texts, each) in lines {
        for mut line in walk(&runtime, server.target, vec![line], much(7, 1), each)? {
            line.points
                .iter_mut()
                .for_each(|(_, values)| values.iter_mut().for_each(|ms| *ms /= texts as f64));
            series.push(line);
        }
    }
    part.curves.push(Curve {
        title: "Tokens of a text never seen".into(),
        per: "token".into(),
        what: "one client".into(),
        unit: "ms".into(),
        series,
        additive: true,
        note: format!("`/score` with `{PLAIN}`. Forms of a response that it reads, each encoded as a text of its own: {forms}."),
    });
    Ok(())
}

/// 1 to 1024 clients that each ask again once they were answered.
fn clients(part: &mut Part) -> anyhow::Result<()> {
    let answers = Arc::new(common::sample()?);
    let runtime = common::runtime()?;
    let server = Server::start(&[])?;
    let warm = always(post(&json!({"model": MODEL, "pairs": [common::pair(&answers)]})));
    let texts = Arc::clone(&answers);
    let unseen = never_seen(move |number| {
        let (prompt, response) = common::distinct(&texts, 1_000_000 + number);
        json!({"model": PLAIN, "items": [{"prompt": prompt, "responses": [response]}]})
    });
    let counts = [1, 4, 16, 64, 256, 1024];
    let time = Duration::from_millis(much(600, 150) as u64);
    let empty = |name: &str| Series {
        name: name.into(),
        points: counts.iter().map(|count| (*count as f64, Vec::new())).collect(),
    };
    let names = ["embeddings known", "texts never seen"];
    let mut rates = names.map(empty);
    let mut times =
        [names.map(|name| empty(&format!("{name}, p50"))), names.map(|name| empty(&format!("{name}, p99")))];
    for round in 0..=much(5, 1) {
        for (kind, requests) in [&warm, &unseen].into_iter().enumerate() {
            for (at, count) in counts.into_iter().enumerate() {
                let run: Run = runtime
                    .block_on(closed(server.target, count, Bounds::time(time), Arc::clone(requests)))?
                    .all_answered()
                    .with_context(|| format!("{count} clients, {}", names[kind]))?;
                if round == 0 {
                    continue; // to warm up
                }
                rates[kind].points[at].1.push(run.rate());
                for (share, series) in [0.5, 0.99].into_iter().zip(&mut times) {
                    series[kind].points[at]
                        .1
                        .push(run.latency_ms(Outcome::Answered, share).context("no answer")?);
                }
            }
        }
        eprintln!("bench growth: round {round} of {}", much(5, 1));
    }
    let note =
        "One pair a request where embeddings are known, one text where not; the clients share the machine.";
    let curve = |title: &str, what: &str, unit: &str, series| Curve {
        title: title.into(),
        per: "client".into(),
        what: what.into(),
        unit: unit.into(),
        series,
        additive: false,
        note: note.into(),
    };
    part.curves.push(curve("Clients: requests a second", "requests answered", "1/s", rates.to_vec()));
    part.curves.push(curve("Clients: latency", "latency", "ms", times.as_flattened().to_vec()));
    Ok(())
}

/// People with 0 to 512 examples: a score, and one example more.
fn examples(part: &mut Part) -> anyhow::Result<()> {
    /// Examples of one request at most.
    const CHUNK: usize = 128;
    let answers = Arc::new(common::sample()?);
    let runtime = common::runtime()?;
    let server = Server::start(&[])?;
    let counts = [512, 256, 64, 8, 1, 0];
    // The person with the most comes first, so that the texts of all others are known.
    for count in counts {
        for first in (0..count).step_by(CHUNK) {
            let examples: Vec<Value> =
                (first..count.min(first + CHUNK)).map(|at| common::example(&answers, count, at)).collect();
            let path = format!("/users/somebody-{count}/examples");
            let request = Request::post(&path, json!({"examples": examples}).to_string());
            runtime.block_on(common::ask(server.target, request))?;
        }
    }
    let pairs = json!([common::pair(&answers)]);
    let score = |count: usize| {
        always(post(&json!({"model": MODEL, "pairs": pairs, "user_id": format!("somebody-{count}")})))
    };
    let more = |count: usize| -> Requests {
        let (answers, given) = (Arc::clone(&answers), AtomicUsize::new(0));
        Arc::new(move |_| {
            let number = given.fetch_add(1, Ordering::Relaxed);
            // Nobody who had no examples has none twice.
            let name = if count == 0 { format!("nobody-{number}") } else { format!("somebody-{count}") };
            let example = common::example(&answers, count, count + number);
            Request::post(&format!("/users/{name}/examples"), json!({"examples": [example]}).to_string())
        })
    };
    for (title, requests, each, note) in [
        (
            "Examples of a user: a score",
            &score as &dyn Fn(usize) -> Requests,
            30,
            "`/score` of one pair, embeddings and state known: the state has one size, whatever it was learned from.",
        ),
        (
            "Examples of a user: one more",
            &more as &dyn Fn(usize) -> Requests,
            2,
            "`POST /users/{id}/examples` of one example, its texts known: every head predicts it and learns from all of them.",
        ),
    ] {
        let points = counts.iter().rev().map(|count| (*count as f64, requests(*count))).collect();
        let line = Line { name: String::new(), points };
        part.curves.push(Curve {
            title: title.into(),
            per: "example".into(),
            what: "one client".into(),
            unit: "ms".into(),
            series: walk(&runtime, server.target, vec![line], much(7, 1), each)?,
            additive: true,
            note: note.into(),
        });
    }
    Ok(())
}
