//! `make bench`: what people cost, against the budgets: adapting one, asking for ten thousand, and a server that does nothing.
//!
//! The models are those of the sample data, the texts are its answers, their embeddings known. People are made up on the
//! spot. Traffic stays on loopback and is bounded.

mod common;

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use common::Server;
use futures::{StreamExt, TryStreamExt, stream};
use polyreward_backbone::{Backbone, BackboneOptions};
use polyreward_domain::{
    Attributes, Comparison, ComparisonRecord, HeadFamily, LabelConfidence, Prompt, Strength, TextForm,
};
use polyreward_heads::Observation;
use polyreward_service::{Corpus, Model, ModelRegistry, embed_corpus};
use serde_json::{Value, json};

/// Repetitions of a measurement in process.
const REPETITIONS: usize = 200;
/// Alternations of a measurement over HTTP.
const ROUNDS: usize = 15;
/// Examples that a person brings.
const EXAMPLES: usize = 8;
/// Everybody.
const PEOPLE: usize = 10_000;
/// Examples of each of them.
const EXAMPLES_OF_EACH: usize = 2;

/// Posts of examples at once.
const POSTS_AT_ONCE: usize = 8;

/// Response texts with their prompts.
type Texts = Vec<(String, String)>;

fn main() -> anyhow::Result<()> {
    if common::is_only_listed() {
        return Ok(());
    }
    let texts = common::sample()?;
    let mut report = "# People\n\nBudgets of the specification, section 9.\n".to_owned();
    let backbone = Backbone::open(&common::backbone()?, &BackboneOptions::default())?;
    let registry = ModelRegistry::open(&common::models()?, backbone.info().clone())?;
    let models: Vec<Arc<Model>> = registry.registered().models().cloned().collect();
    report += &adapting(&models, &embedded(&backbone, &texts)?)?;
    backbone.shutdown();
    drop(backbone);
    let idle = Server::start(&[], &[])?.resident_mib().context("the system tells of no memory")?;
    writeln!(report, "\nMemory of an idle server with all models: {idle:.0} MiB (budget 350).")?;
    report += &asking_for_many(&models, &texts)?;
    common::publish("people.md", &report)
}

/// Comparisons of two answers to a prompt each, embedded in every form.
fn embedded(backbone: &Backbone, texts: &Texts) -> anyhow::Result<Corpus> {
    let record = |at: usize| ComparisonRecord {
        user_id: "somebody".parse().expect("letters make a name"),
        attributes: Attributes::new(),
        comparison: Comparison {
            prompt: Prompt::Text(texts[5 * at].0.clone()),
            chosen: texts[5 * at].1.clone(),
            rejected: texts[5 * at + 1].1.clone(),
            strength: Strength::default(),
            label_confidence: LabelConfidence::default(),
            rationale: None,
        },
        id: None,
        created_at: None,
        split: None,
        tags: Vec::new(),
    };
    let records: Vec<ComparisonRecord> = (0..EXAMPLES).map(record).collect();
    Ok(embed_corpus(backbone, &records, TextForm::ALL.into_iter().collect(), &mut |_, _| ())?)
}

/// Milliseconds from known embeddings of a person's examples to their state.
fn adapting(models: &[Arc<Model>], corpus: &Corpus) -> anyhow::Result<String> {
    let items = &corpus.items;
    let mut text = format!(
        "\n{EXAMPLES} new examples, from their embeddings to the person's state, one thread, {REPETITIONS} times.\n\n\
         | head | features and state, ms: min | median | max | state alone, ms: median | budget |\n|---|---|---|---|---|---|\n"
    );
    for model in models {
        let head = model.head.as_ref();
        let (mut whole, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..REPETITIONS {
            let started = Instant::now();
            let features = items.features(head, &(0..items.len).collect::<Vec<_>>())?;
            let between = Instant::now();
            let examples: Vec<Observation<'_>> = corpus
                .comparisons
                .iter()
                .map(|row| Observation {
                    chosen: features.row(row.chosen),
                    rejected: features.row(row.rejected),
                    names: items.names_of(row),
                    strength: 1.0,
                    label_confidence: 1.0,
                })
                .collect();
            std::hint::black_box(head.adapt(&examples, None)?);
            whole.push(1e3 * started.elapsed().as_secs_f64());
            alone.push(1e3 * between.elapsed().as_secs_f64());
        }
        let budget = if head.family() == HeadFamily::Vpl { 3.0 } else { 1.0 };
        let ([min, median, max], [_, alone, _]) = (common::spread(whole), common::spread(alone));
        writeln!(text, "| {} | {min:.3} | {median:.3} | {max:.3} | {alone:.3} | {budget} |", head.family())?;
    }
    Ok(text)
}

/// How much longer a pair takes for everybody than for one person.
fn asking_for_many(models: &[Arc<Model>], texts: &Texts) -> anyhow::Result<String> {
    let server = Server::start(&[], &[])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    runtime.block_on(post_people(&client, &server.url, texts))?;
    let (prompt, a) = &texts[0];
    let pairs = json!([{"prompt": prompt, "response_a": a, "response_b": texts[1].1}]);
    let mut text = format!(
        "\nOne pair, embeddings and states known, over HTTP, {ROUNDS} rounds: for one person, and for an audience of \
         {PEOPLE}.\n\n| model | one, ms: median | everybody, ms: median | more, ms: min | median | max | budget |\n\
         |---|---|---|---|---|---|---|\n"
    );
    let ask = |body: &Value| -> anyhow::Result<(f64, Value)> {
        let body = body.to_string();
        let started = Instant::now();
        let answer: Value = runtime.block_on(async {
            let request = client
                .post(format!("{}/score", server.url))
                .header("content-type", "application/json")
                .timeout(Duration::from_mins(2))
                .body(body);
            anyhow::Ok(request.send().await?.error_for_status()?.json().await?)
        })?;
        Ok((1e3 * started.elapsed().as_secs_f64(), answer))
    };
    let bodies = |model: &Model| {
        let name = model.reference.to_string();
        let one = json!({"model": name, "pairs": pairs, "user_id": "person-0"});
        let audience = json!({"group": {}, "aggregate": ["mean"]});
        [one, json!({"model": name, "pairs": pairs, "audience": audience})]
    };
    // Once to warm up.
    for model in models {
        let [one, everybody] = bodies(model);
        ask(&one)?;
        let users = ask(&everybody)?.1["audience"]["users"].as_u64();
        ensure!(users == Some(PEOPLE as u64), "the audience has {users:?} members");
    }
    for model in models {
        let [one, everybody] = bodies(model);
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let ((alone, _), (together, _)) = (ask(&one)?, ask(&everybody)?);
            for (times, value) in times.iter_mut().zip([alone, together, together - alone]) {
                times.push(value);
            }
        }
        let [alone, together, more] = times.map(common::spread);
        writeln!(
            text,
            "| {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | 10 |",
            model.card.head, alone[1], together[1], more[0], more[1], more[2]
        )?;
    }
    Ok(text)
}

/// Everybody, each with a few examples of their own choice among the sample's answers.
async fn post_people(client: &reqwest::Client, url: &str, texts: &Texts) -> anyhow::Result<()> {
    let posts = (0..PEOPLE).map(|person| {
        let example = |example: usize| {
            // Any two answers to one prompt; the sample has five to each.
            let at = (person * 7 + example * 13) % (texts.len() / 5) * 5;
            let (chosen, other) = (at + person % 5, at + (person + 1 + example) % 5);
            json!({"prompt": texts[chosen].0, "chosen": texts[chosen].1, "rejected": texts[other].1})
        };
        let examples: Vec<Value> = (0..EXAMPLES_OF_EACH).map(example).collect();
        let request = client.post(format!("{url}/users/person-{person}/examples"));
        let request = request.json(&json!({"examples": examples}));
        async move { anyhow::Ok(request.send().await?.error_for_status().map(|_| ())?) }
    });
    stream::iter(posts).buffer_unordered(POSTS_AT_ONCE).try_collect().await
}
