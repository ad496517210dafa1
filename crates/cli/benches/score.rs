//! `make bench`: what the server adds to the encoder, as ratios inside one run.
//!
//! Starts the real binary with its embedding cache off, so that every text is one it has not seen, and alternates
//! between it and a bare loop over ONNX Runtime on the same texts. Absolute figures drift with the machine; the ratios
//! are what is reported, as min, median and max over the rounds. Traffic stays on loopback and is bounded.

mod common;

use std::{
    fmt::Write as _,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use common::Server;
use futures::{StreamExt, stream};
use ort::{session::Session, value::TensorRef};
use polyreward_backbone::{
    Backbone, BackboneOptions, EmbedInput, TokenizedText, batch::least_cost_cuts, environment,
    session_builder,
};
use polyreward_domain::{Overflow, Prompt};
use polyreward_service::ModelRegistry;
use serde_json::{Value, json};

/// Alternations of every measurement.
const ROUNDS: usize = 5;
/// The model that is asked.
const MODEL: &str = "bt";
/// Responses a measurement, each encoded in every form that the model reads.
const TEXTS: usize = 1024;
/// Texts in a large request.
const LARGE: usize = 64;
/// Clients that post one text each.
const CLIENTS: usize = 64;
/// Padded tokens in a batch, the server's default.
const MAX_BATCH_TOKENS: usize = 1024;

/// One (prompt, response).
type Text = (String, String);

fn main() -> anyhow::Result<()> {
    if common::is_only_listed() {
        return Ok(());
    }
    let texts = texts()?;
    let bare = Bare::open(&common::backbone()?, &texts)?;
    let server = Server::start(&[], &[("POLYREWARD_BACKBONE__CACHE_BYTES", "0")])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(CLIENTS).build()?;
    let mut report = Report::default();
    // One round of each to warm up: pages, arenas, connections.
    bare.run()?;
    let reference = runtime.block_on(requests(&client, &server.url, &texts, LARGE, 8))?;
    for _ in 0..ROUNDS {
        let bare_seconds = bare.run()?;
        let tokenize_seconds = bare.tokenize();
        let many = runtime.block_on(requests(&client, &server.url, &texts, LARGE, 8))?;
        let alone = runtime.block_on(requests(&client, &server.url, &texts, LARGE, 1))?;
        let single = runtime.block_on(requests(&client, &server.url, &texts, 1, CLIENTS))?;
        report.add(
            "HTTP /score, 8 requests of 64 texts at once / bare ONNX Runtime loop",
            bare_seconds / many.seconds,
        );
        report.add("tokenizer / bare ONNX Runtime loop (time)", tokenize_seconds / bare_seconds);
        report.add("64 clients of one text / one client of 64 texts", alone.seconds / single.seconds);
        report.add("64 clients of one text / bare ONNX Runtime loop", bare_seconds / single.seconds);
        report.rates.push([
            TEXTS as f64 / bare_seconds,
            TEXTS as f64 / many.seconds,
            TEXTS as f64 / single.seconds,
        ]);
        for other in [&many, &alone, &single] {
            report.difference =
                report.difference.max(largest_difference(&reference.rewards, &other.rewards)?);
        }
    }
    ensure!(report.difference <= 1e-4, "the same texts differ by {} between requests", report.difference);
    common::publish("report.md", &report.render())
}

/// Distinct texts of mixed length, from the sample prompts: every third carries a second answer behind the first.
fn texts() -> anyhow::Result<Vec<Text>> {
    let answers = common::sample()?;
    Ok((0..TEXTS)
        .map(|n| {
            let (prompt, answer) = &answers[n % answers.len()];
            let second = if n % 3 == 0 { answers[(n * 7 + 3) % answers.len()].1.as_str() } else { "" };
            (prompt.clone(), format!("{answer} {second} ({n})"))
        })
        .collect())
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

/// Posts all texts, `per_request` in each request, `at_once` requests at a time; rewards in the order of the texts.
async fn requests(
    client: &reqwest::Client,
    url: &str,
    texts: &[Text],
    per_request: usize,
    at_once: usize,
) -> anyhow::Result<Measured> {
    let bodies: Vec<String> = texts
        .chunks(per_request)
        .map(|chunk| {
            let items: Vec<Value> = chunk
                .iter()
                .map(|(prompt, response)| json!({"prompt": prompt, "responses": [response]}))
                .collect();
            json!({"model": MODEL, "items": items}).to_string()
        })
        .collect();
    let started = Instant::now();
    let answers: Vec<anyhow::Result<Value>> = stream::iter(bodies)
        .map(|body| async move {
            let request = client.post(format!("{url}/score")).header("content-type", "application/json");
            let answer =
                request.body(body).timeout(Duration::from_mins(2)).send().await?.error_for_status()?;
            Ok(answer.json().await?)
        })
        .buffered(at_once)
        .collect()
        .await;
    let seconds = started.elapsed().as_secs_f64();
    let mut rewards = Vec::with_capacity(texts.len());
    for answer in answers {
        for result in answer?["results"].as_array().context("an answer without results")? {
            rewards.push(result["rewards"][0].as_f64().context("a result without a reward")?);
        }
    }
    ensure!(rewards.len() == texts.len(), "{} rewards for {} texts", rewards.len(), texts.len());
    Ok(Measured { seconds, rewards })
}

fn largest_difference(a: &[f64], b: &[f64]) -> anyhow::Result<f64> {
    ensure!(a.len() == b.len(), "answers of different lengths");
    Ok(a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max))
}

/// Ratios by name, in the order they were first added.
#[derive(Default)]
struct Report {
    ratios: Vec<(&'static str, Vec<f64>)>,
    rates: Vec<[f64; 3]>,
    difference: f64,
}

impl Report {
    fn add(&mut self, name: &'static str, value: f64) {
        match self.ratios.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => self.ratios.push((name, vec![value])),
        }
    }

    fn render(&self) -> String {
        let mut text = format!(
            "# Bench\n\n{TEXTS} texts never seen, {ROUNDS} rounds, all in one run. Ratios of throughput unless said \
             otherwise.\n\n| ratio | min | median | max |\n|---|---|---|---|\n"
        );
        for (name, values) in &self.ratios {
            let [min, median, max] = common::spread(values.clone());
            writeln!(text, "| {name} | {min:.3} | {median:.3} | {max:.3} |")
                .expect("writing to a string cannot fail");
        }
        let median = |column: usize| common::spread(self.rates.iter().map(|row| row[column]).collect())[1];
        writeln!(
            text,
            "\nTexts/s on this machine (median): bare loop {:.0}, HTTP {:.0}, 64 clients of one text {:.0}.\n\
             Largest difference between rewards of the same text over all requests: {:.1e}.",
            median(0),
            median(1),
            median(2),
            self.difference,
        )
        .expect("writing to a string cannot fail");
        text
    }
}
