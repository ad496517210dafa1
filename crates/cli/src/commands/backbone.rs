//! `polyreward backbone check`: does this folder load, and what are its embeddings like?

use std::{path::PathBuf, sync::Arc, time::Instant};

use anyhow::anyhow;
use polyreward_backbone::{Backbone, EmbedInput};
use polyreward_domain::{Overflow, Prompt, TextForm};

use crate::{
    config::{self, Overrides},
    table,
};

/// Inspect backbones
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Load a backbone folder; print its dimensions, a sample cosine table and its speed
    Check {
        /// The folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Configuration file
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// Texts whose nearness anybody can judge.
const SAMPLE: [&str; 4] = [
    "The cat sleeps on the warm windowsill.",
    "A kitten naps in the sun by the window.",
    "Interest rates rose by half a point.",
    "The central bank made borrowing dearer.",
];

/// Texts of the speed measurement: enough for full batches, all different.
const SPEED_TEXTS: usize = 512;

/// Runs the check.
pub fn run(command: &Command) -> anyhow::Result<()> {
    let Command::Check { folder, config } = command;
    let config = config::load(config.as_deref(), &Overrides::default())?;
    let options = config.backbone.options();
    let backbone = Backbone::open(folder, &options)?;
    let info = backbone.info();
    println!("name        {}", info.name);
    println!("hash        {}", info.hash);
    println!("dim         {}", info.dim);
    println!("max tokens  {}", info.max_tokens);
    println!("input       {:?}, pooling {:?}", info.input, info.pooling);
    println!("precision   {}", info.precision.as_deref().unwrap_or("not said"));
    println!("licence     {}", info.licence.as_deref().unwrap_or("not said"));
    println!();
    let embeddings = embed(&backbone, SAMPLE.iter().map(|text| (*text).to_owned()))?;
    let header: Vec<String> =
        ["cosine"].into_iter().map(str::to_owned).chain((1..=4).map(|n| n.to_string())).collect();
    let rows: Vec<Vec<String>> = embeddings
        .iter()
        .zip(SAMPLE)
        .enumerate()
        .map(|(at, (a, text))| {
            let label = format!("{} {text}", at + 1);
            let cosines = embeddings.iter().map(|b| format!("{:.3}", cosine(a, b)));
            std::iter::once(label).chain(cosines).collect()
        })
        .collect();
    println!("{}", table::render(&header, &rows));
    let texts: Vec<String> =
        (0..SPEED_TEXTS).map(|n| format!("Text {n}: {} {}", SAMPLE[n % 4], SAMPLE[(n / 4) % 4])).collect();
    let started = Instant::now();
    embed(&backbone, texts.into_iter())?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{:.0} texts/s ({SPEED_TEXTS} texts of two sentences, {} sessions of {} threads)",
        SPEED_TEXTS as f64 / seconds,
        options.sessions,
        options.intra_threads,
    );
    Ok(())
}

fn embed(backbone: &Backbone, texts: impl Iterator<Item = String>) -> anyhow::Result<Vec<Arc<[f32]>>> {
    // As prompts: some chat templates refuse a response alone.
    let inputs = texts
        .map(|text| EmbedInput {
            form: TextForm::Prompt,
            prompt: Arc::new(Prompt::Text(text)),
            response: Arc::default(),
        })
        .collect();
    let results = backbone.embed_blocking(inputs, Overflow::Truncate, None, |_| ())?;
    results
        .into_iter()
        .map(|result| result.map(|text| text.embedding).map_err(|error| anyhow!("a text {error}")))
        .collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
