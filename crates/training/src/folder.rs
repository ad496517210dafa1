//! Model folders: `<models>/<name>/<version>/` with `model.json`, `head.safetensors`, `evaluation.json`.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use polyreward_domain::{ModelName, ModelRef};
use polyreward_heads::{
    BackboneCard, CARD_FORMAT, Head, ModelCard, TrainingDataCard, sha256_hex, write_head,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    assess::{CALIBRATED_SHOTS, Evaluation, Trial, calibrate, evaluate, reward_statistics},
    data::{HoldOut, TrainingData},
    error::TrainingError,
};

/// Reference responses kept for the `win_rate` scale, at most.
const REFERENCES: usize = 256;

/// A fitted head and what was tried on the way.
#[derive(Debug)]
pub struct Trained {
    /// The head.
    pub head: Box<dyn Head>,
    /// What was tried, what was chosen and why.
    pub report: Value,
}

/// Where a model comes from.
#[derive(Debug, Clone)]
pub struct Provenance {
    /// The model's name.
    pub name: ModelName,
    /// The backbone that made the embeddings.
    pub backbone: BackboneCard,
    /// Hash of the data files.
    pub data_sha256: String,
    /// Seed of the run.
    pub seed: u64,
    /// The polyreward that trains.
    pub polyreward_version: String,
}

/// A model folder that was written.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    /// The model.
    pub model: ModelRef,
    /// Where it is.
    pub path: PathBuf,
    /// How it did on what it was not trained on.
    pub evaluation: Evaluation,
}

/// Calibrates, evaluates and writes a fitted head. The folder appears whole or not at all.
///
/// # Errors
/// Data on which every reward is the same, or a folder that cannot be written.
pub fn write_model(
    models: &Path,
    trained: &Trained,
    data: &TrainingData,
    hold_out: &HoldOut,
    provenance: &Provenance,
) -> Result<ModelFolder, TrainingError> {
    let head = trained.head.as_ref();
    let trial = Trial::of(&data.people, hold_out, provenance.seed);
    let calibration = calibrate(head, &trial.run(data, head, &CALIBRATED_SHOTS)?)?;
    let evaluation = evaluate(data, hold_out, &trial, head, calibration)?;
    let training_rows = hold_out.training_rows(&data.people);
    let mut items: Vec<usize> =
        training_rows.iter().flat_map(|(_, row)| [row.chosen, row.rejected]).collect();
    items.sort_unstable();
    items.dedup();
    let statistics = reward_statistics(data, head, &items)?;
    let stride = items.len().div_ceil(REFERENCES);
    let references: Vec<usize> = items.iter().copied().step_by(stride).collect();
    let (hyperparameters, weights) = write_head(head, &data.items.features(head, &references)?)?;
    let weights_sha256 = sha256_hex(&weights);
    let scale = json!({"calibration": calibration, "reward_statistics": statistics});
    let version = version_of(&weights_sha256, &hyperparameters, &scale, provenance);
    let card = ModelCard {
        format: CARD_FORMAT,
        name: provenance.name.clone(),
        version: version.parse().expect("a hexadecimal hash is a version"),
        head: head.family(),
        backbone: provenance.backbone.clone(),
        hyperparameters,
        training: trained.report.clone(),
        seed: provenance.seed,
        training_data: TrainingDataCard {
            sha256: provenance.data_sha256.clone(),
            people: hold_out.training.len(),
            comparisons: training_rows.len(),
            validation_people: hold_out.validation.len(),
            validation_comparisons: hold_out
                .validation
                .iter()
                .map(|person| data.people[*person].comparisons.len())
                .sum(),
            held_out_comparisons: hold_out.held_out.iter().map(Vec::len).sum(),
        },
        reward_statistics: statistics,
        calibration,
        weights_sha256,
        polyreward_version: provenance.polyreward_version.clone(),
    };
    let path = models.join(card.name.as_str()).join(card.version.as_str());
    write_folder(
        &path,
        &[
            ("head.safetensors", weights),
            ("evaluation.json", pretty(&evaluation)),
            ("model.json", pretty(&card)),
        ],
    )?;
    Ok(ModelFolder { model: ModelRef { name: card.name, version: card.version }, path, evaluation })
}

/// The beginning of a hash over all that changes a score.
fn version_of(
    weights_sha256: &str,
    hyperparameters: &Value,
    scale: &Value,
    provenance: &Provenance,
) -> String {
    let all = format!("{weights_sha256}\n{hyperparameters}\n{scale}\n{}", provenance.backbone.hash);
    sha256_hex(all.as_bytes())[..8].to_owned()
}

fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("plain structures serialise");
    bytes.push(b'\n');
    bytes
}

/// Writes into a hidden sibling, then renames: a reader sees all files or none.
fn write_folder(path: &Path, files: &[(&str, Vec<u8>)]) -> Result<(), TrainingError> {
    let parent = path.parent().expect("a model folder is inside its model's");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TrainingError::Write { path, source }
    };
    fs::create_dir_all(parent).map_err(failed(parent))?;
    let staging = tempfile::Builder::new().prefix(".writing-").tempdir_in(parent).map_err(failed(parent))?;
    for (name, bytes) in files {
        let file = staging.path().join(name);
        let mut handle = fs::File::create(&file).map_err(failed(&file))?;
        handle.write_all(bytes).and_then(|()| handle.sync_all()).map_err(failed(&file))?;
    }
    let staged = staging.keep();
    make_readable(&staged).map_err(failed(&staged))?;
    // The version is a hash of the contents: a folder that is there is this one, or damaged. It steps aside and goes
    // only when the new one stands.
    let aside = path.exists().then(|| staged.with_extension("old"));
    if let Some(aside) = &aside {
        fs::rename(path, aside).map_err(failed(path))?;
    }
    fs::rename(&staged, path).map_err(failed(path))?;
    if let Some(aside) = &aside {
        fs::remove_dir_all(aside).map_err(failed(aside))?;
    }
    fs::File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed(parent))
}

/// Temporary folders are private; a model folder is read by the server's own user.
#[cfg(unix)]
fn make_readable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_readable(_path: &Path) -> std::io::Result<()> {
    Ok(())
}
