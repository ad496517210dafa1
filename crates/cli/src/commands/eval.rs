//! `polyreward eval`: how right each model is, for whom, and after how many examples.

mod measure;
mod oracle;
mod picture;
mod print;
mod queries;
mod report;

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::{Context, ensure};
use polyreward_domain::TextForms;
use polyreward_heads::evaluation::Bootstrap;
use polyreward_service::{Model, ModelRegistry, embed_corpus};

use crate::{
    commands::open_backbone,
    config::{self, Overrides, PathOverride},
    dataset,
    progress::Progress,
};

/// Measure models on people they have not seen
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of model folders; several versions of a name, as of several seeds, are also averaged
    #[arg(long, default_value = "models", value_name = "DIR")]
    models: PathBuf,
    /// JSONL files of comparisons with splits train, context and query
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Numbers of examples to show a model before it is tested
    #[arg(long, value_delimiter = ',', default_value = "0,1,2,4,8,16", value_name = "N,N")]
    shots: Vec<usize>,
    /// Attribute whose values are the groups, or `tags`
    #[arg(long, value_name = "KEY")]
    group_by: Option<String>,
    /// Leave out the oracle: a Bradley-Terry head trained for each value of the attribute
    #[arg(long)]
    no_oracle: bool,
    /// Also ask unseen people one comparison after another, up to N (16), and say how many answers are saved by asking
    /// what would tell most; people with fewer comparisons of the split context are left out
    #[arg(
        long, value_name = "N", num_args = 0..=1, default_missing_value = "16",
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    queries: Option<u16>,
    /// Also write everything as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also draw the accuracy of unseen people against the number of their examples
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Backbone folder
    #[arg(long, value_name = "DIR")]
    backbone: Option<PathBuf>,
    /// Seed of the bootstrap
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Evaluates every model of the folder.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let overrides =
        Overrides { backbone: PathOverride { path: arguments.backbone.clone() }, ..Overrides::default() };
    let config = config::load(arguments.config.as_deref(), &overrides)?;
    let dataset = dataset::read(&arguments.data)?;
    let grouping = measure::Grouping::of(&dataset.records, arguments.group_by.as_deref())?;
    let backbone = open_backbone(&config)?;
    let registry = ModelRegistry::open(&arguments.models, backbone.info().clone())?;
    let registered = registry.registered();
    for failed in registered.failed() {
        eprintln!("{}: {}", failed.folder, failed.detail);
    }
    let models: Vec<Arc<Model>> = registered.models().cloned().collect();
    ensure!(!models.is_empty(), "no model in {} can be used", arguments.models.display());
    let forms =
        models.iter().map(|model| model.head.text_forms()).fold(TextForms::default(), TextForms::union);
    let mut progress = Progress::start("embedding", 0);
    let corpus = embed_corpus(&backbone, &dataset.records, forms, &mut |done, total| {
        progress.set(done, total, "texts");
    })?;
    progress.finish(&format!("{} texts, {} of them cut to the window", corpus.texts, corpus.truncated));
    let study = measure::Study {
        dataset: &dataset,
        corpus: &corpus,
        grouping: &grouping,
        bootstrap: Bootstrap { seed: arguments.seed, ..Bootstrap::default() },
        parts: measure::Parts::of(&dataset, &corpus),
    };
    let askable =
        arguments.queries.map(|answers| queries::Askable::of(&study, answers.into())).transpose()?;
    let mut measured = study.models(&models, &arguments.shots)?;
    if let Some(askable) = askable {
        ask(&study, &askable, &models, &mut measured)?;
    }
    let oracle = match grouping.attribute() {
        Some(attribute) if !arguments.no_oracle => {
            oracle::measure(&study, attribute, &models, &config.train)?
        }
        _ => None,
    };
    let report = report::Report {
        data_sha256: dataset.sha256.clone(),
        backbone: backbone.info().name.clone(),
        bootstrap_draws: study.bootstrap.draws,
        group_by: arguments.group_by.clone(),
        by_name: report::by_name(&measured),
        models: measured,
        oracle,
    };
    print::everything(&report);
    if let Some(path) = &arguments.json {
        let bytes = serde_json::to_vec_pretty(&report)?;
        fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(path) = &arguments.svg {
        fs::write(path, picture::draw(&report)).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Adds what choosing the questions is worth to the reports of the models.
fn ask(
    study: &measure::Study<'_>,
    askable: &queries::Askable,
    models: &[Arc<Model>],
    reports: &mut [report::ModelReport],
) -> anyhow::Result<()> {
    let mut progress = Progress::start("asking", 0);
    for (at, (model, report)) in models.iter().zip(reports).enumerate() {
        report.queries = askable.measure(study, model, |done, of| {
            let (done, of) = (at as u64 * of + done, models.len() as u64 * of);
            progress.set(done as usize, of as usize, "rounds");
        })?;
    }
    progress.finish(&format!("{} models", models.len()));
    Ok(())
}
