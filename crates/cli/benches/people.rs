//! `make bench`: what people cost, against the budgets: adapting one, asking for ten thousand, training; and idle memory.
//!
//! The models are those of the sample data, the texts are its answers, their embeddings known. People are made up on the
//! spot.

mod common;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, ensure};
use common::{Server, Text, much};
use polyreward_backbone::{Backbone, BackboneOptions};
use polyreward_bench::{
    Curve, Part, Series, Skipped,
    load::{Request, always},
};
use polyreward_domain::{
    Attributes, Comparison, ComparisonRecord, HeadFamily, LabelConfidence, Prompt, Strength, TextForm,
};
use polyreward_heads::{Head, Observation};
use polyreward_service::{Corpus, Model, ModelRegistry, embed_corpus};
use serde_json::json;

/// Examples that a person brings.
const EXAMPLES: usize = 8;
/// How many a person may have learned from.
const CURVE: [usize; 8] = [0, 1, 2, 4, 8, 64, 256, 512];
/// Examples of each of everybody.
const EXAMPLES_OF_EACH: usize = 2;
/// A file of the 20 160 comparisons of the budget.
const PERSONA: &str = "BENCH_PERSONA";

fn main() -> anyhow::Result<()> {
    let Some(mut recorder) = common::recorder("people")? else { return Ok(()) };
    recorder.section("adapting", adapting)?;
    recorder.section("memory", memory)?;
    recorder.section("ten thousand people", asking_for_many)?;
    recorder.section("training", training)?;
    recorder.finish()
}

/// The models of the sample, on the server's backbone.
fn models() -> anyhow::Result<(Backbone, Vec<Arc<Model>>)> {
    let backbone = Backbone::open(&common::backbone()?, &BackboneOptions::default())?;
    let registry = ModelRegistry::open(&common::models()?, backbone.info().clone())?;
    Ok((backbone, registry.registered().models().cloned().collect()))
}

/// Comparisons of two answers to a prompt each, embedded in every form.
fn embedded(backbone: &Backbone, texts: &[Text], count: usize) -> anyhow::Result<Corpus> {
    let record = |at: usize| -> anyhow::Result<ComparisonRecord> {
        let example = common::example(texts, 0, at);
        let text = |field: &str| example[field].as_str().map(str::to_owned).context("a text");
        Ok(ComparisonRecord {
            user_id: "somebody".parse()?,
            attributes: Attributes::new(),
            comparison: Comparison {
                prompt: Prompt::Text(text("prompt")?),
                chosen: text("chosen")?,
                rejected: text("rejected")?,
                strength: Strength::default(),
                label_confidence: LabelConfidence::default(),
                rationale: None,
            },
            id: None,
            created_at: None,
            split: None,
            tags: Vec::new(),
        })
    };
    let records: Vec<ComparisonRecord> = (0..count).map(record).collect::<anyhow::Result<_>>()?;
    Ok(embed_corpus(backbone, &records, TextForm::ALL.into_iter().collect(), &mut |_, _| ())?)
}

/// From known embeddings of a person's examples to their state, one thread.
fn adapting(part: &mut Part) -> anyhow::Result<()> {
    let texts = common::sample()?;
    let (backbone, models) = models()?;
    let corpus = embedded(&backbone, &texts, CURVE[CURVE.len() - 1])?;
    // What eight new examples bring is embeddings of their own texts alone.
    let new = embedded(&backbone, &texts, EXAMPLES)?;
    backbone.shutdown();
    let mut series = Vec::new();
    for model in &models {
        let head = model.head.as_ref();
        let (mut whole, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..much(200, 20) {
            let started = Instant::now();
            let rows = (0..new.items.len).collect::<Vec<_>>();
            let features = new.items.features(head, &rows)?;
            let between = Instant::now();
            let examples = observations(&new, &features, EXAMPLES);
            std::hint::black_box(head.adapt(&examples, None)?);
            whole.push(1e3 * started.elapsed().as_secs_f64());
            alone.push(1e3 * between.elapsed().as_secs_f64());
        }
        let vpl = head.family() == HeadFamily::Vpl;
        let name = head.family().to_string();
        part.judge(if vpl { "adapting-vpl" } else { "adapting" }, Some(&name), whole);
        part.figure("adapting", format!("{name}, {EXAMPLES} examples, features known"), "ms", alone);
        series.push(by_examples(&name, head, &corpus)?);
    }
    part.curves.push(Curve {
        title: "Examples of a user: their state".into(),
        per: "example".into(),
        what: "features known, to the state".into(),
        unit: "ms".into(),
        series,
        additive: true,
        note: "In process, one thread, by the models of the sample.".into(),
    });
    Ok(())
}

fn observations<'a>(
    corpus: &'a Corpus,
    features: &'a ndarray::Array2<f32>,
    count: usize,
) -> Vec<Observation<'a>> {
    corpus.comparisons[..count]
        .iter()
        .map(|row| Observation {
            chosen: features.row(row.chosen),
            rejected: features.row(row.rejected),
            names: corpus.items.names_of(row),
            strength: 1.0,
            label_confidence: 1.0,
        })
        .collect()
}

fn by_examples(name: &str, head: &dyn Head, corpus: &Corpus) -> anyhow::Result<Series> {
    let features = corpus.items.features(head, &(0..corpus.items.len).collect::<Vec<_>>())?;
    let mut points = Vec::new();
    for count in CURVE {
        let examples = observations(corpus, &features, count);
        let mut times = Vec::new();
        for _ in 0..much(15, 3) {
            let started = Instant::now();
            std::hint::black_box(head.adapt(&examples, None)?);
            times.push(1e3 * started.elapsed().as_secs_f64());
        }
        points.push((count as f64, times));
    }
    Ok(Series { name: name.to_owned(), points })
}

fn memory(part: &mut Part) -> anyhow::Result<()> {
    let resident = || Server::start(&[])?.resident_mib().context("the system tells of no memory");
    let values = (0..3).map(|_| resident()).collect::<anyhow::Result<_>>()?;
    part.judge("idle-memory", Some("with all models of the sample"), values);
    Ok(())
}

/// How much longer a pair takes for everybody than for one person.
fn asking_for_many(part: &mut Part) -> anyhow::Result<()> {
    let people = much(10_000, 500);
    let texts = Arc::new(common::sample()?);
    let server = Server::start(&[])?;
    let runtime = common::runtime()?;
    runtime.block_on(common::post_people(server.target, &texts, 0..people, EXAMPLES_OF_EACH))?;
    let (_, models) = models()?;
    for model in models {
        let name = model.reference.to_string();
        let pairs = json!([common::pair(&texts)]);
        let one = json!({"model": name, "pairs": pairs, "user_id": "person-0"}).to_string();
        let audience = json!({"group": {}, "aggregate": ["mean"]});
        let all = json!({"model": name, "pairs": pairs, "audience": audience}).to_string();
        let [one, all] = [one, all].map(|body| Request::post("/score", body));
        // To warm up, and to see that everybody is there.
        runtime.block_on(common::ask(server.target, one.clone()))?;
        let users = runtime.block_on(common::ask(server.target, all.clone()))?["audience"]["users"].as_u64();
        ensure!(users == Some(people as u64), "the audience has {users:?} members");
        let ask = |request: &Request| -> anyhow::Result<f64> {
            let times = runtime.block_on(common::one_by_one(server.target, 1, always(request.clone())))?;
            common::median(&times)
        };
        let [mut alone, mut more] = [const { Vec::new() }; 2];
        for _ in 0..much(15, 3) {
            let (one, all) = (ask(&one)?, ask(&all)?);
            alone.push(one);
            more.push(all - one);
        }
        let head = model.card.head.to_string();
        part.judge("many-people", Some(&head), more);
        part.figure("ten thousand people", format!("{head}, one person"), "ms", alone);
    }
    Ok(())
}

/// Seconds from known embeddings to six model folders, as `polyreward train` says them.
fn training(part: &mut Part) -> anyhow::Result<()> {
    let Some(data) = std::env::var_os(PERSONA).map(PathBuf::from) else {
        return Err(Skipped(format!("{PERSONA} names no file of the 20 160 comparisons")).into());
    };
    ensure!(data.is_file(), "there is no {}", data.display());
    let out = tempfile::tempdir()?;
    let output = Command::new(Path::new(env!("CARGO_BIN_EXE_polyreward")))
        .arg("train")
        .arg("--data")
        .arg(&data)
        .args(["--heads", "bt,lore,pal-a,pal-b,vpl,micro", "--backbone"])
        .arg(common::backbone()?)
        .arg("--out")
        .arg(out.path())
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "polyreward train failed: {}", told.lines().last().unwrap_or_default());
    let seconds = told
        .lines()
        .find_map(|line| line.strip_prefix("trained 6 heads from known embeddings in ")?.strip_suffix(" s"))
        .context("polyreward train did not say how long it took")?;
    part.judge("training", None, vec![seconds.parse()?]);
    Ok(())
}
