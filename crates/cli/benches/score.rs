//! `make bench`: what the server adds to the encoder, and to a handler that does nothing, as ratios inside one run.
//!
//! Texts never seen: the real binary with its embedding cache off alternates with a bare loop over ONNX Runtime on the same
//! texts. Warm embeddings: it alternates with a server whose `/score` only parses and answers, in a process of its own, too.

mod common;

use std::{
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use common::{Server, Text, much};
use ort::{session::Session, value::TensorRef};
use polyreward_backbone::{
    Backbone, BackboneOptions, EmbedInput, TokenizedText, batch::least_cost_cuts, environment,
    session_builder,
};
use polyreward_bench::{
    Part,
    load::{Bounds, Outcome, Request, Requests, always, closed, closed_keeping},
};
use polyreward_domain::{Overflow, Prompt};
use polyreward_service::ModelRegistry;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The model that is asked.
const MODEL: &str = "bt";
/// Texts in a large request.
const LARGE: usize = 64;
/// Clients that post one text each.
const CLIENTS: usize = 64;
/// Connections of the budget for warm embeddings.
const CONNECTIONS: usize = 32;
/// Padded tokens in a batch, the server's default.
const MAX_BATCH_TOKENS: usize = 1024;
/// Makes this program the server that does nothing.
const FLOOR: &str = "--floor";

fn main() -> anyhow::Result<()> {
    if std::env::args().any(|argument| argument == FLOOR) {
        return floor();
    }
    let Some(mut recorder) = common::recorder("score")? else { return Ok(()) };
    recorder.section("texts never seen", unseen)?;
    recorder.section("warm embeddings", warm)?;
    recorder.finish()
}

/// Serves `/score` that only parses and answers, until the process is killed.
fn floor() -> anyhow::Result<()> {
    // As the real server's.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on http://{}", listener.local_addr()?);
        polyreward_http::serve_floor(listener).await;
        Ok(())
    })
}

fn warm(part: &mut Part) -> anyhow::Result<()> {
    let section = "warm embeddings";
    let answers = common::sample()?;
    let server = Server::start(&[])?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(FLOOR);
    let floor = Server::spawn(command, tempfile::tempdir()?).context("the server that does nothing")?;
    let runtime = common::runtime()?;
    let time = Duration::from_millis(much(1000, 200) as u64);
    for (model, judged) in [("pal-a", true), ("bt", false), ("vpl", false)] {
        let body = json!({"model": model, "pairs": [common::pair(&answers)]}).to_string();
        let run = |server: &Server, bounds| {
            let requests = always(Request::post("/score", body.clone()));
            let run = runtime.block_on(closed(server.target, CONNECTIONS, bounds, requests))?;
            run.all_answered()
        };
        let [mut ratios, mut rates, mut floors, mut p99s] = [const { Vec::new() }; 4];
        for round in 0..=much(7, 2) {
            let (bare, real) = (run(&floor, Bounds::time(time))?, run(&server, Bounds::time(time))?);
            if round == 0 {
                continue; // to warm up
            }
            ratios.push(real.rate() / bare.rate());
            rates.push(real.rate());
            floors.push(bare.rate());
            p99s.push(real.latency_ms(Outcome::Answered, 0.99).context("no answer")?);
        }
        if judged {
            part.judge("warm-throughput", Some(model), ratios);
            part.judge("warm-p99", Some(model), p99s);
            part.figure(section, "a handler that only parses and answers", "requests/s", floors);
        } else {
            part.figure(section, format!("{model} / only parse and answer, requests/s"), "", ratios);
            part.figure(section, format!("{model}, p99 at {CONNECTIONS} connections"), "ms", p99s);
        }
        part.figure(section, model, "requests/s", rates);
    }
    Ok(())
}

fn unseen(part: &mut Part) -> anyhow::Result<()> {
    let section = "texts never seen";
    let answers = common::sample()?;
    let texts: Vec<Text> = (0..much(1024, 192)).map(|number| common::distinct(&answers, number)).collect();
    let bare = Bare::open(&common::backbone()?, &texts)?;
    let server = Server::start(&[("POLYREWARD_BACKBONE__CACHE_BYTES", "0")])?;
    let runtime = common::runtime()?;
    let ask = |per_request: usize, at_once: usize| {
        runtime.block_on(requests(&server, &answers, texts.len(), per_request, at_once))
    };
    // One round of each to warm up: pages, arenas, connections.
    bare.run()?;
    let reference = ask(LARGE, 8)?;
    let names = [
        "tokenizer / bare ONNX Runtime loop, time",
        "64 clients of one text / one client of 64 texts, throughput",
        "64 clients of one text / bare ONNX Runtime loop, throughput",
    ];
    let (mut budget, mut ratios) = (Vec::new(), [const { Vec::new() }; 3]);
    let mut rates = [const { Vec::new() }; 3];
    let mut difference: f64 = 0.0;
    for _ in 0..much(5, 1) {
        let bare_seconds = bare.run()?;
        let tokenize_seconds = bare.tokenize();
        let (many, alone, single) = (ask(LARGE, 8)?, ask(LARGE, 1)?, ask(1, CLIENTS)?);
        budget.push(bare_seconds / many.seconds);
        let values =
            [tokenize_seconds / bare_seconds, alone.seconds / single.seconds, bare_seconds / single.seconds];
        ratios.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
        let seconds = [bare_seconds, many.seconds, single.seconds];
        rates.iter_mut().zip(seconds).for_each(|(column, value)| column.push(texts.len() as f64 / value));
        for other in [&many, &alone, &single] {
            difference = difference.max(largest_difference(&reference.rewards, &other.rewards)?);
        }
    }
    ensure!(difference <= 1e-4, "the same texts differ by {difference} between requests");
    part.judge("unseen-throughput", Some("8 requests of 64 texts at once"), budget);
    for (name, values) in names.into_iter().zip(ratios) {
        part.figure(section, name, "", values);
    }
    for (name, values) in
        ["bare loop", "8 requests of 64 at once", "64 clients of one"].into_iter().zip(rates)
    {
        part.figure(section, name, "texts/s", values);
    }
    part.figure(section, "largest difference between rewards of one text", "reward", vec![difference]);
    Ok(())
}

/// The same sessions, threads and batches as the server's, with nothing around them.
struct Bare {
    backbone: Backbone,
    inputs: Vec<EmbedInput>,
    batches: Vec<Batch>,
    sessions: Vec<Mutex<Session>>,
}

/// Padded arrays of one run.
struct Batch {
    shape: [usize; 2],
    ids: Vec<i64>,
    mask: Vec<i64>,
}

impl Bare {
    fn open(folder: &Path, texts: &[Text]) -> anyhow::Result<Self> {
        let options = BackboneOptions::default();
        let backbone = Backbone::open(folder, &BackboneOptions { sessions: 1, ..options.clone() })?;
        // What the head reads of a response is what the server must encode for it.
        let registry = ModelRegistry::open(&common::models()?, backbone.info().clone())?;
        let forms = registry.registered().find(Some(&MODEL.parse()?))?.head.text_forms();
        let inputs: Vec<EmbedInput> = forms
            .iter()
            .flat_map(|form| texts.iter().map(move |text| (form, text)))
            .map(|(form, (prompt, response))| EmbedInput {
                form,
                prompt: Arc::new(Prompt::Text(prompt.clone())),
                response: Arc::from(response.as_str()),
            })
            .collect();
        let mut tokenized: Vec<TokenizedText> =
            backbone.tokenize(&inputs, Overflow::Truncate).into_iter().collect::<Result<_, _>>()?;
        tokenized.sort_by_key(|text| text.ids.len());
        let lengths: Vec<usize> = tokenized.iter().map(|text| text.ids.len()).collect();
        let mut start = 0;
        let mut batches = Vec::new();
        for end in least_cost_cuts(&lengths, MAX_BATCH_TOKENS) {
            batches.push(Batch::of(&tokenized[start..end]));
            start = end;
        }
        let environment = environment(None)?;
        let model = std::fs::read(folder.join("model.onnx"))?;
        let sessions = (0..options.sessions)
            .map(|_| {
                let mut builder = session_builder(&environment, options.intra_threads)?;
                Ok(Mutex::new(builder.commit_from_memory(&model)?))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { backbone, inputs, batches, sessions })
    }

    /// Seconds for every batch, one thread a session.
    fn run(&self) -> anyhow::Result<f64> {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let started = Instant::now();
        std::thread::scope(|scope| {
            let workers: Vec<_> = self
                .sessions
                .iter()
                .map(|session| {
                    scope.spawn(|| -> anyhow::Result<()> {
                        let mut session = session.lock().expect("a session has one thread");
                        // The longest batches first, so that no thread ends with one alone.
                        while let Some(batch) = self
                            .batches
                            .iter()
                            .rev()
                            .nth(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                        {
                            batch.run(&mut session)?;
                        }
                        Ok(())
                    })
                })
                .collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
        })?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Seconds to tokenize every text on one thread.
    fn tokenize(&self) -> f64 {
        let started = Instant::now();
        let tokenized = self.backbone.tokenize(&self.inputs, Overflow::Truncate);
        std::hint::black_box(tokenized);
        started.elapsed().as_secs_f64()
    }
}

impl Batch {
    fn of(texts: &[TokenizedText]) -> Self {
        let width = texts.last().map_or(0, |text| text.ids.len());
        let mut batch = Self { shape: [texts.len(), width], ids: Vec::new(), mask: Vec::new() };
        for text in texts {
            batch.ids.extend(text.ids.iter().map(|id| i64::from(*id)));
            batch.mask.extend(text.ids.iter().map(|_| 1));
            let padding = width - text.ids.len();
            batch.ids.extend(std::iter::repeat_n(0, padding));
            batch.mask.extend(std::iter::repeat_n(0, padding));
        }
        batch
    }

    fn run(&self, session: &mut Session) -> anyhow::Result<()> {
        let ids = TensorRef::from_array_view((self.shape, self.ids.as_slice()))?;
        let mask = TensorRef::from_array_view((self.shape, self.mask.as_slice()))?;
        let outputs = session.run(ort::inputs!["input_ids" => ids, "attention_mask" => mask])?;
        std::hint::black_box(outputs[0].try_extract_tensor::<f32>()?);
        Ok(())
    }
}

/// What a client measured.
struct Measured {
    seconds: f64,
    rewards: Vec<f64>,
}

/// Posts the first so many distinct texts, `per_request` in each request, `at_once` requests at a time; rewards in the order
/// of the texts.
async fn requests(
    server: &Server,
    answers: &[Text],
    texts: usize,
    per_request: usize,
    at_once: usize,
) -> anyhow::Result<Measured> {
    let bodies: Vec<Request> = (0..texts)
        .step_by(per_request)
        .map(|first| common::distinct_body(answers, MODEL, first, per_request.min(texts - first)))
        .map(|body| Request::post("/score", body))
        .collect();
    let count = bodies.len();
    let requests: Requests = Arc::new(move |number| bodies[number].clone());
    let run = closed_keeping(server.target, at_once, Bounds::requests(count), requests).await?;
    let mut run = run.all_answered()?;
    run.answers.sort_by_key(|answer| answer.number);
    let mut rewards = Vec::with_capacity(texts);
    for answer in run.answers {
        let answer: Value = serde_json::from_slice(&answer.body)?;
        for result in answer["results"].as_array().context("an answer without results")? {
            rewards.push(result["rewards"][0].as_f64().context("a result without a reward")?);
        }
    }
    ensure!(rewards.len() == texts, "{} rewards for {texts} texts", rewards.len());
    Ok(Measured { seconds: run.elapsed_s, rewards })
}

fn largest_difference(a: &[f64], b: &[f64]) -> anyhow::Result<f64> {
    ensure!(a.len() == b.len(), "answers of different lengths");
    Ok(a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max))
}
