//! `polyreward train`: comparisons in, model folders out.

mod reading;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context, anyhow};
use polyreward_domain::{HeadFamily, TextForms};
use polyreward_heads::{BackboneCard, ModelCard};
use polyreward_training::{
    Fitting, HoldOut, ModelFolder, Progress as TrainingProgress, Provenance, TrainConfig, Trained,
    TrainingData, write_model,
};

use crate::{
    commands::{open_backbone, train::reading::Reading},
    config::{self, Config, Overrides, PathOverride, UsageError},
    dataset,
    progress::Progress,
    table,
};

/// Train heads on comparisons and write model folders
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// JSONL files of comparisons, plain or gzipped; records of the splits context and query are left out
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Heads to train, comma separated, or all
    #[arg(long, default_value = "all", value_name = "HEADS")]
    heads: String,
    /// Folder to write model folders to
    #[arg(long, default_value = "models", value_name = "DIR")]
    out: PathBuf,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Backbone folder
    #[arg(long, value_name = "DIR")]
    backbone: Option<PathBuf>,
    /// File of embeddings to take known ones from and to add new ones to; made where it is missing. Without it they go to a
    /// temporary file in the folder of models
    #[arg(long, value_name = "FILE")]
    embeddings: Option<PathBuf>,
    /// Seed of every random choice
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// The heads this build can train.
const TRAINABLE: [HeadFamily; 6] = HeadFamily::ALL;

/// Trains every head that was asked for; one that is there already, from the same inputs, is not trained again.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let heads = parse_heads(&arguments.heads)?;
    let overrides =
        Overrides { backbone: PathOverride { path: arguments.backbone.clone() }, ..Overrides::default() };
    let mut config = config::load(arguments.config.as_deref(), &overrides)?;
    let data_sha256 = dataset::sha256(&arguments.data)?;
    // Which texts share a batch depends on timing, and moves an embedding's last bits. Alone, each text has one
    // embedding, so that a model is a function of its data and seed to the byte; short texts take longer for it.
    config.backbone.max_batch_tokens = 1;
    // Each text comes once.
    config.backbone.cache_bytes = 0;
    let backbone = open_backbone(&config)?;
    let card = BackboneCard {
        name: backbone.info().name.clone(),
        hash: backbone.info().hash.clone(),
        dim: backbone.info().dim,
    };
    fs::create_dir_all(&arguments.out).with_context(|| format!("creating {}", arguments.out.display()))?;
    let provenance = |head: HeadFamily| Provenance {
        name: head.as_str().parse().expect("a family's name is a model name"),
        backbone: card.clone(),
        data_sha256: data_sha256.clone(),
        seed: arguments.seed,
        polyreward_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut missing = Vec::new();
    for head in heads {
        match trained_before(&arguments.out, head, &provenance(head), &config)? {
            Some(path) => eprintln!("{head}: is there already, from the same inputs: {}", path.display()),
            None => missing.push(head),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let reading = Reading {
        files: &arguments.data,
        forms: forms_of(&missing, &config),
        max_comparisons_per_user: config.train.max_comparisons_per_user,
        seed: arguments.seed,
        embeddings: arguments.embeddings.as_deref(),
        scratch: &arguments.out,
    };
    let data = reading.read(&backbone)?;
    // Its weights and threads are not needed any more.
    backbone.shutdown();
    drop(backbone);
    let rows = fit_all(&missing, &data, &config.train, arguments, &provenance)?;
    let header = [
        "model",
        "numbers of a person",
        "held-out people",
        "95 % interval",
        "after 8 examples",
        "95 % interval",
        "seen people",
        "95 % interval",
        "seconds",
    ];
    print!("{}", table::render(&header.map(str::to_owned), &rows));
    Ok(())
}

/// Fits heads and writes their folders; a row of the table each.
fn fit_all(
    heads: &[HeadFamily],
    data: &TrainingData,
    config: &TrainConfig,
    arguments: &Arguments,
    provenance: &(impl Fn(HeadFamily) -> Provenance + Sync),
) -> anyhow::Result<Vec<Vec<String>>> {
    let hold_out = HoldOut::choose(&data.people, &data.items.names, arguments.seed)?;
    eprintln!(
        "training on {} people ({} comparisons), {} people held out, {} comparisons of trained people kept out",
        hold_out.training.len(),
        hold_out.training_rows(&data.people).len(),
        hold_out.validation.len(),
        hold_out.held_out.iter().map(Vec::len).sum::<usize>(),
    );
    let began = Instant::now();
    let mut choosing = Progress::start("text forms", 1);
    let fitting = Fitting::prepare(data, &hold_out, config, heads, arguments.seed, &mut |event| {
        show(&mut choosing, &event);
    })?;
    choosing.finish(&format!(
        "reading the {}",
        fitting.text_forms().iter().map(ToString::to_string).collect::<Vec<_>>().join(" and the ")
    ));
    let train = |head: HeadFamily| -> anyhow::Result<Vec<String>> {
        let started = Instant::now();
        let trained = fit(head, &fitting)?;
        let folder = write_model(&arguments.out, &trained, data, &hold_out, &provenance(head))?;
        Ok(row_of(&folder, &trained, started.elapsed().as_secs_f64()))
    };
    let rows = on_two_threads(heads, &train)?;
    let seconds = began.elapsed().as_secs_f64();
    eprintln!("trained {} heads from known embeddings in {seconds:.1} s", heads.len());
    Ok(rows)
}

/// Trains heads two at a time, which keeps two cores busy where one head's steps cannot; rows in the order of the heads.
fn on_two_threads(
    heads: &[HeadFamily],
    train: &(impl Fn(HeadFamily) -> anyhow::Result<Vec<String>> + Sync),
) -> anyhow::Result<Vec<Vec<String>>> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work = || {
        let mut rows = Vec::new();
        while let Some(head) = heads.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed.load(Ordering::Relaxed) {
                break;
            }
            match train(*head) {
                Ok(row) => rows.push((*head, row)),
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    return Err(error.context(format!("training {head}")));
                }
            }
        }
        Ok(rows)
    };
    let mut rows = thread::scope(|scope| {
        let other = scope.spawn(work);
        let mut rows = work()?;
        rows.extend(other.join().map_err(|_| anyhow!("a training thread panicked"))??);
        anyhow::Ok(rows)
    })?;
    rows.sort_by_key(|(head, _)| heads.iter().position(|other| other == head));
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

fn parse_heads(text: &str) -> anyhow::Result<Vec<HeadFamily>> {
    if text == "all" {
        return Ok(TRAINABLE.to_vec());
    }
    let mut heads = Vec::new();
    for name in text.split(',') {
        let head: HeadFamily =
            name.trim().parse().map_err(|error| UsageError(format!("--heads: {error}")))?;
        if !TRAINABLE.contains(&head) {
            return Err(UsageError(format!("--heads: this version does not train {head} yet")).into());
        }
        if !heads.contains(&head) {
            heads.push(head);
        }
    }
    Ok(heads)
}

fn forms_of(heads: &[HeadFamily], config: &Config) -> TextForms {
    heads.iter().map(|head| config.train.text_forms(*head)).fold(TextForms::default(), TextForms::union)
}

/// A folder that an earlier run wrote from the same data, seed, backbone and configuration.
fn trained_before(
    out: &Path,
    head: HeadFamily,
    provenance: &Provenance,
    config: &Config,
) -> anyhow::Result<Option<PathBuf>> {
    let folder = out.join(provenance.name.as_str());
    if !folder.is_dir() {
        return Ok(None);
    }
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let Ok(bytes) = fs::read(path.join("model.json")) else { continue };
        let Ok(card) = ModelCard::from_json(&bytes) else { continue };
        let same = card.training_data.sha256 == provenance.data_sha256
            && card.seed == provenance.seed
            && card.backbone == provenance.backbone
            && card.polyreward_version == provenance.polyreward_version
            && card.training["config"] == config.train.of(head);
        let whole =
            fs::read(path.join("head.safetensors")).is_ok_and(|weights| card.check_weights(&weights).is_ok());
        if same && whole {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn fit(head: HeadFamily, fitting: &Fitting<'_>) -> anyhow::Result<Trained> {
    let mut progress = Progress::start(head.as_str(), 1);
    let mut last = String::new();
    let trained = fitting.fit(head, &mut |event| {
        if let Some(message) = show(&mut progress, &event) {
            last = message;
        }
    })?;
    progress.finish(&last);
    Ok(trained)
}

/// Shows an event; the message, if it says how the held-out people fare.
fn show(progress: &mut Progress, event: &TrainingProgress) -> Option<String> {
    let TrainingProgress::Epoch {
        candidate,
        epoch,
        epochs,
        loss,
        validation_log_loss,
        accuracy_without_examples,
        accuracy_after_8,
    } = event;
    let mut parts = vec![format!("{candidate}: loss {loss:.4}")];
    if let Some(log_loss) = validation_log_loss {
        parts.push(format!("held-out people: log loss {log_loss:.4}"));
    }
    for (accuracy, examples) in [(accuracy_without_examples, 0), (accuracy_after_8, 8)] {
        if let Some(accuracy) = accuracy {
            parts.push(format!("accuracy {accuracy:.4} after {examples} examples"));
        }
    }
    let message = parts.join(", ");
    progress.set(*epoch, *epochs, &message);
    validation_log_loss.is_some().then_some(message)
}

fn row_of(folder: &ModelFolder, trained: &Trained, seconds: f64) -> Vec<String> {
    let size = trained.head.population().mean().len();
    let mut row = vec![folder.model.to_string(), size.to_string()];
    let evaluation = &folder.evaluation;
    let eight = evaluation.shots.iter().find(|shot| shot.examples == 8).map(|shot| &shot.summary);
    for summary in [evaluation.validation.as_ref(), eight, evaluation.seen_people.as_ref()] {
        let accuracy = summary.map(|summary| format!("{:.3}", summary.accuracy));
        let interval = summary.and_then(|summary| summary.accuracy_ci);
        row.push(accuracy.unwrap_or_default());
        row.push(interval.map(|[low, high]| format!("{low:.3}-{high:.3}")).unwrap_or_default());
    }
    row.push(format!("{seconds:.1}"));
    row
}
