//! `make bench`: what training costs once embeddings are known, in seconds and in memory, by the real binary.
//!
//! People, tastes, texts and embeddings are made up: nothing is encoded, so what is measured is training alone. The sizes
//! are those of the budget, and one that shows how memory grows; `POLYREWARD_BENCH_COMPARISONS=1000000` asks for a larger
//! one (a person to every 20 comparisons, a text to every 5), `POLYREWARD_BENCH_CONFIG` for another configuration.

mod common;

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use polyreward_backbone::{
    Backbone, BackboneInfo, BackboneOptions, EmbedInput, Embedded, EmbeddingFile, EmbeddingIndex,
};
use polyreward_domain::{Prompt, TextForm};
use rand::{Rng, RngExt};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde_json::json;

/// Of what a text says, the part that tastes are about.
const LATENT: usize = 8;
/// Tastes that people share.
const TASTES: usize = 6;
/// How often the memory of the run is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A made-up data set.
#[derive(Debug, Clone, Copy)]
struct Size {
    comparisons: usize,
    people: usize,
    responses: usize,
    prompts: usize,
}

impl Size {
    /// As the persona data of the budget.
    const BUDGET: Self = Self { comparisons: 20_160, people: 336, responses: 4_000, prompts: 100 };

    fn of(comparisons: usize) -> Self {
        Self { comparisons, people: comparisons / 20, responses: comparisons / 5, prompts: 1000 }
    }
}

/// What a run took.
struct Run {
    seconds: f64,
    /// Largest memory that was the run's own, in MiB.
    own_mib: f64,
    /// The same with pages of mapped files, which the system takes back when it needs them.
    resident_mib: f64,
    /// What it said last.
    last: String,
}

fn main() -> anyhow::Result<()> {
    if common::is_only_listed() {
        return Ok(());
    }
    let folder = common::backbone()?;
    let backbone = Backbone::open(&folder, &BackboneOptions { sessions: 1, ..BackboneOptions::default() })?;
    let info = backbone.info().clone();
    backbone.shutdown();
    drop(backbone);
    let mut sizes = vec![Size::BUDGET, Size::of(100_000)];
    if let Ok(comparisons) = std::env::var("POLYREWARD_BENCH_COMPARISONS") {
        sizes = vec![Size::of(comparisons.parse().context("POLYREWARD_BENCH_COMPARISONS")?)];
    }
    let mut report = "# Training\n\nAll six heads, embeddings known. Budget: 60 s for 20160 comparisons on two cores.\n\n\
        | comparisons | people | texts in three forms | embeddings, MiB | seconds | own memory, MiB | with mapped files, MiB |\n\
        |---|---|---|---|---|---|---|\n"
        .to_owned();
    for size in sizes {
        let place = tempfile::tempdir()?;
        let texts = make_up(size, &info, place.path())?;
        let run = train(place.path(), &folder)?;
        eprintln!("{}", run.last);
        let mib = (texts * (4 * info.dim + 40)) as f64 / f64::from(1 << 20);
        writeln!(
            report,
            "| {} | {} | {texts} | {mib:.0} | {:.1} | {:.0} | {:.0} |",
            size.comparisons, size.people, run.seconds, run.own_mib, run.resident_mib
        )?;
    }
    common::publish("training.md", &report)
}

/// Writes comparisons and the embeddings of their texts; the number of texts, each form counted.
fn make_up(size: Size, info: &BackboneInfo, place: &Path) -> anyhow::Result<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mixing: Vec<[f32; LATENT]> = (0..info.dim).map(|_| normals(&mut rng)).collect();
    let latents: Vec<[f32; LATENT]> = (0..size.responses).map(|_| normals(&mut rng)).collect();
    let (mut file, mut index) = EmbeddingFile::open(&place.join("embeddings"), info)?;
    let mut add = |input: EmbedInput, latent: &[f32; LATENT], rng: &mut ChaCha8Rng| -> anyhow::Result<()> {
        let mixed = |row: &[f32; LATENT]| row.iter().zip(latent).map(|(w, z)| w * z).sum::<f32>();
        let embedding = mixing.iter().map(|row| mixed(row) + rng.random_range(-1.0_f32..1.0)).collect();
        add_text(&mut file, &mut index, info, input, embedding)
    };
    for prompt in 0..size.prompts {
        let text = (Arc::new(Prompt::Text(question(prompt))), Arc::from(""));
        let latent = normals(&mut rng);
        add(EmbedInput { form: TextForm::Prompt, prompt: text.0, response: text.1 }, &latent, &mut rng)?;
    }
    for (at, latent) in latents.iter().enumerate() {
        let prompt = Arc::new(Prompt::Text(question(at % size.prompts)));
        for form in [TextForm::PromptResponse, TextForm::Response] {
            let input = EmbedInput { form, prompt: Arc::clone(&prompt), response: Arc::from(answer(at)) };
            add(input, latent, &mut rng)?;
        }
    }
    file.commit()?;
    let tastes: Vec<[f32; LATENT]> = (0..TASTES).map(|_| normals(&mut rng)).collect();
    let mut data = BufWriter::new(File::create(place.join("comparisons.jsonl"))?);
    let of_prompt = size.responses / size.prompts;
    for at in 0..size.comparisons {
        let person = at % size.people;
        let prompt = rng.random_range(0..size.prompts);
        let mut response = || prompt + size.prompts * rng.random_range(0..of_prompt);
        let (a, mut b) = (response(), response());
        if a == b {
            b = prompt + size.prompts * ((a / size.prompts + 1) % of_prompt);
        }
        let taste = &tastes[person % TASTES];
        let likes = |item: usize| latents[item].iter().zip(taste).map(|(z, u)| z * u).sum::<f32>();
        let prefers_a = rng.random_bool(f64::from(1.0 / (1.0 + (likes(b) - likes(a)).exp())));
        let (chosen, rejected) = if prefers_a { (a, b) } else { (b, a) };
        let line = json!({
            "user_id": format!("person-{person}"),
            "prompt": question(prompt),
            "chosen": answer(chosen),
            "rejected": answer(rejected),
        });
        writeln!(data, "{line}")?;
    }
    data.flush()?;
    Ok(index.len())
}

fn add_text(
    file: &mut EmbeddingFile,
    index: &mut EmbeddingIndex,
    info: &BackboneInfo,
    input: EmbedInput,
    embedding: Vec<f32>,
) -> anyhow::Result<()> {
    let (_, is_new) = index.record(info, &input);
    ensure!(is_new, "a text was made up twice");
    let text = Embedded { embedding: embedding.into(), tokens: 8, truncated: false, cached: false };
    file.push(&input, &text)?;
    Ok(())
}

fn question(prompt: usize) -> String {
    format!("What of the {prompt}th question?")
}

fn answer(response: usize) -> String {
    format!("This is answer number {response}, and no other says the same.")
}

/// Numbers about normally distributed: sums of twelve uniform ones.
fn normals(rng: &mut impl Rng) -> [f32; LATENT] {
    std::array::from_fn(|_| (0..12).map(|_| rng.random_range(-0.5_f32..0.5)).sum())
}

/// Trains every head, and looks at the memory meanwhile.
fn train(place: &Path, backbone: &Path) -> anyhow::Result<Run> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_polyreward"));
    command.args(["train", "--heads", "all", "--out", "models", "--embeddings", "embeddings", "--data"]);
    command.arg("comparisons.jsonl").arg("--backbone").arg(backbone);
    if let Some(config) = std::env::var_os("POLYREWARD_BENCH_CONFIG") {
        command.arg("--config").arg(std::path::absolute(config)?);
    }
    let log = place.join("log");
    let output = File::create(&log)?;
    let started = Instant::now();
    let mut child =
        command.current_dir(place).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn()?;
    let (mut own, mut resident) = (0.0_f64, 0.0_f64);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        own = own.max(memory_mib(child.id(), "RssAnon:"));
        resident = resident.max(memory_mib(child.id(), "VmHWM:"));
        std::thread::sleep(LOOK_EVERY);
    };
    let seconds = started.elapsed().as_secs_f64();
    let log = std::fs::read_to_string(log)?;
    ensure!(status.success(), "the training failed: {log}");
    Ok(Run { seconds, own_mib: own, resident_mib: resident, last: log })
}

/// A figure of a process, where the system tells; else 0.
fn memory_mib(process: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
