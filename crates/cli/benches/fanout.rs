//! `make bench`: one pair for everybody, against the memory that everybody's states are.
//!
//! The real server on SQLite; the models are those of the sample data. A few hundred people learn of the sample's answers,
//! and `tools/many_people.py` copies them with their states. Traffic stays on loopback.

mod common;

use std::{
    fmt::Write as _,
    hint::black_box,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use common::Server;
use futures::{StreamExt, TryStreamExt, stream};
use ndarray::Array2;
use polyreward_backbone::{Backbone, BackboneOptions};
use polyreward_heads::StateView;
use polyreward_service::{Model, ModelRegistry};
use serde_json::{Value, json};

/// Alternations of every measurement.
const ROUNDS: usize = 15;
/// People who learned of the sample's answers themselves.
const ORIGINALS: usize = 256;
/// Examples of each of them.
const EXAMPLES: usize = 4;
/// Everybody.
const PEOPLE: usize = 100_000;
/// Posts of examples at once.
const POSTS_AT_ONCE: usize = 8;
/// People whose rewards are computed at once in process.
const BLOCK: usize = 1024;

/// What was measured of a model, in milliseconds: medians, but for the first time.
struct Measured {
    model: Arc<Model>,
    /// Everybody, when nobody's state was in memory.
    first: f64,
    one: f64,
    tenth: f64,
    everybody: f64,
    /// Everybody's rewards and margins in this process, on one thread.
    rewards: f64,
    /// A sum over as many numbers in this process, on one thread.
    sum: f64,
}

impl Measured {
    /// Bytes of everybody's states.
    fn bytes(&self) -> f64 {
        (PEOPLE * self.model.head.population().bytes()) as f64
    }
}

fn main() -> anyhow::Result<()> {
    if common::is_only_listed() {
        return Ok(());
    }
    common::publish("fanout.md", &report(&measure()?)?)
}

fn report(measured: &[Measured]) -> anyhow::Result<String> {
    let mut text = format!(
        "# Fan-out\n\nOne pair, embeddings known, over HTTP, {ROUNDS} rounds: for one person, for an audience of {}, and of \
         {PEOPLE}. Milliseconds, medians; `first` is once, nobody's state being in memory.\n\n\
         | model | first | one | a tenth | everybody | a tenth more than one | budget |\n|---|---|---|---|---|---|---|\n",
        PEOPLE / 10
    );
    for one in measured {
        let Measured { model, first, one, tenth, everybody, .. } = one;
        let (head, more) = (model.card.head, tenth - one);
        writeln!(text, "| {head} | {first:.0} | {one:.2} | {tenth:.2} | {everybody:.2} | {more:.2} | 10 |")?;
    }
    text += "\nEverybody's states against a plain sum over as many bytes on one thread: of the whole request, and of the rewards \
             and margins alone in process on one thread.\n\n\
             | model | MB of states | sum, GB/s | request, GB/s | of the sum | rewards, GB/s | of the sum |\n\
             |---|---|---|---|---|---|---|\n";
    for one in measured {
        let speed = |ms: f64| one.bytes() / ms / 1e6;
        let [sum, request, rewards] = [one.sum, one.everybody, one.rewards].map(speed);
        writeln!(
            text,
            "| {} | {:.1} | {sum:.2} | {request:.3} | {:.3} | {rewards:.3} | {:.3} |",
            one.model.card.head,
            one.bytes() / 1e6,
            request / sum,
            rewards / sum,
        )?;
    }
    Ok(text)
}

fn measure() -> anyhow::Result<Vec<Measured>> {
    let texts = common::sample()?;
    let backbone = Backbone::open(&common::backbone()?, &BackboneOptions::default())?;
    let registry = ModelRegistry::open(&common::models()?, backbone.info().clone())?;
    backbone.shutdown();
    drop(backbone);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("bench.db");
    let server = Server::start_on(Some(&format!("sqlite:{}", file.display())), &[])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    runtime.block_on(post_originals(&client, &server.url, &texts))?;
    copy_people(&file)?;
    let ask = |model: &Model, whose: Value| -> anyhow::Result<(f64, Value)> {
        let (prompt, response_a) = &texts[0];
        let mut body = json!({
            "model": model.reference.to_string(),
            "pairs": [{"prompt": prompt, "response_a": response_a, "response_b": texts[1].1}],
        });
        for (key, value) in whose.as_object().context("whose is an object")? {
            body[key] = value.clone();
        }
        let started = Instant::now();
        let answer = runtime.block_on(async {
            let request = client.post(format!("{}/score", server.url)).json(&body);
            let reply = request.timeout(Duration::from_mins(5)).header("x-request-timeout-ms", "100000");
            anyhow::Ok(reply.send().await?.error_for_status()?.json::<Value>().await?)
        })?;
        Ok((1e3 * started.elapsed().as_secs_f64(), answer))
    };
    let one = json!({"user_id": "person-0"});
    let audience = |group: Value| json!({"audience": {"group": group, "aggregate": ["mean"]}});
    let (tenth, everybody) = (audience(json!({"tenth": "yes"})), audience(json!({})));
    let mut all = Vec::new();
    for model in registry.registered().models() {
        let (first, answer) = ask(model, everybody.clone())?;
        let users = answer["audience"]["users"].as_u64();
        ensure!(users == Some(PEOPLE as u64), "the audience has {users:?} members");
        let states = states_like(model);
        let mut times = [const { Vec::new() }; 5];
        for round in 0..=ROUNDS {
            let measured = [
                ask(model, one.clone())?.0,
                ask(model, tenth.clone())?.0,
                ask(model, everybody.clone())?.0,
                rewards_ms(model, &states)?,
                sum_ms(&states),
            ];
            // Once to warm up.
            if round > 0 {
                times.iter_mut().zip(measured).for_each(|(times, value)| times.push(value));
            }
        }
        let medians: Vec<f64> =
            times.iter().map(|times| common::median(times)).collect::<anyhow::Result<_>>()?;
        let &[one, tenth, everybody, rewards, sum] = medians.as_slice() else {
            unreachable!("five were measured")
        };
        all.push(Measured { model: Arc::clone(model), first, one, tenth, everybody, rewards, sum });
    }
    Ok(all)
}

/// As many numbers as everybody's states have, means first.
fn states_like(model: &Model) -> [Vec<f32>; 2] {
    let (mean, spread) = model.head.population().view().parts();
    [mean, spread].map(|numbers| numbers.repeat(PEOPLE))
}

/// A plain sum over all of them, in sixteen sums side by side.
fn sum_ms(states: &[Vec<f32>; 2]) -> f64 {
    let started = Instant::now();
    for numbers in black_box(states) {
        let mut sums = [0.0_f32; 16];
        for chunk in numbers.chunks_exact(sums.len()) {
            for (sum, number) in sums.iter_mut().zip(chunk) {
                *sum += number;
            }
        }
        black_box(sums);
    }
    1e3 * started.elapsed().as_secs_f64()
}

/// Rewards of a pair and the margin between them for everybody.
fn rewards_ms(model: &Model, [means, spreads]: &[Vec<f32>; 2]) -> anyhow::Result<f64> {
    let head = model.head.as_ref();
    let (mean, spread) = head.population().view().parts();
    // Any features will do: what they are takes no time.
    let features = |at: f32| Array2::from_shape_fn((1, head.feature_len()), |(_, i)| (i as f32 + at).sin());
    let (a, b) = (features(0.0), features(1.0));
    let row = |numbers: &[f32], len: usize, at: usize| at * len..(at * len + len).min(numbers.len());
    let started = Instant::now();
    for first in (0..PEOPLE).step_by(BLOCK) {
        let people = first..PEOPLE.min(first + BLOCK);
        let views: Vec<StateView<'_>> = people
            .map(|at| {
                let (mean, spread) = (row(means, mean.len(), at), row(spreads, spread.len(), at));
                StateView::from_parts(&means[mean], &spreads[spread], 1)
            })
            .collect::<Result<_, _>>()?;
        black_box(head.pairs(&views, a.view(), b.view())?);
    }
    Ok(1e3 * started.elapsed().as_secs_f64())
}

/// A few people, each with examples of their own choice among the sample's answers.
async fn post_originals(
    client: &reqwest::Client,
    url: &str,
    texts: &[(String, String)],
) -> anyhow::Result<()> {
    let posts = (0..ORIGINALS).map(|person| {
        let example = |example: usize| {
            // Any two answers to one prompt; the sample has five to each.
            let at = (person * 7 + example * 13) % (texts.len() / 5) * 5;
            let (chosen, other) = (at + person % 5, at + (person + 1 + example % 4) % 5);
            json!({"prompt": texts[chosen].0, "chosen": texts[chosen].1, "rejected": texts[other].1})
        };
        let examples: Vec<Value> = (0..EXAMPLES).map(example).collect();
        async move {
            let post = client.post(format!("{url}/users/person-{person}/examples"));
            let reply =
                post.json(&json!({"examples": examples})).timeout(Duration::from_mins(2)).send().await?;
            reply.error_for_status()?;
            anyhow::Ok(())
        }
    });
    stream::iter(posts).buffer_unordered(POSTS_AT_ONCE).try_collect().await
}

fn copy_people(file: &Path) -> anyhow::Result<()> {
    let script: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/many_people.py");
    let copied = Command::new("python3").arg(script).arg(file).arg(PEOPLE.to_string()).status();
    ensure!(copied.context("tools/many_people.py")?.success(), "tools/many_people.py failed");
    Ok(())
}
