//! Which models there are: read from the models folder, checked, and swapped in whole.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use ndarray::{Array2, s};
use polyreward_backbone::BackboneInfo;
use polyreward_domain::{HeadFamily, ModelName, ModelRef, ModelSelector, ModelVersion};
use polyreward_heads::{
    CardError, Head, HeadError, LoadedHead, ModelCard, Moments, TextEmbeddings, WeightsError, read_head,
};
use serde_json::Value;

use crate::metrics;

/// No file of a model folder may be larger.
const MAX_WEIGHTS_BYTES: u64 = 1 << 30;
const MAX_JSON_BYTES: u64 = 16 << 20;

/// Where the name of the default model is kept.
const DEFAULT_FILE: &str = "default.json";

/// Why a model folder, or the whole registry, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A file cannot be read or written.
    #[error("{path} cannot be read or written")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is larger than any model's.
    #[error("{path} has {bytes} bytes, more than the {limit} allowed")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A link leads out of the models folder.
    #[error("{0} leads out of the models folder")]
    Outside(PathBuf),
    /// The card is not usable.
    #[error(transparent)]
    Card(#[from] CardError),
    /// The weights are not usable.
    #[error("head.safetensors is not usable")]
    Weights(#[from] WeightsError),
    /// The folder's path and the card name different models.
    #[error("model.json names {card}, its folder {folder}")]
    Misplaced {
        /// What the card names.
        card: ModelRef,
        /// What the folder names.
        folder: String,
    },
    /// The model was trained on another backbone.
    #[error("the model was trained on backbone {expected}, the server runs {actual}")]
    Backbone {
        /// What the model needs, name and hash.
        expected: String,
        /// What runs, name and hash.
        actual: String,
    },
    /// The head does not give numbers for ordinary embeddings.
    #[error("the head cannot answer")]
    Probe(#[source] HeadError),
    /// `evaluation.json` is not JSON.
    #[error("evaluation.json is not JSON")]
    Evaluation(#[source] serde_json::Error),
    /// Nobody knows the model.
    #[error("unknown model {0:?}")]
    UnknownModel(String),
    /// No model is loaded.
    #[error("no model is loaded")]
    NoModel,
}

/// One trained head, ready to answer.
#[derive(Debug)]
pub struct Model {
    /// What names it.
    pub reference: ModelRef,
    /// Its `model.json`.
    pub card: ModelCard,
    /// Its `evaluation.json`.
    pub evaluation: Value,
    /// Its head.
    pub head: Box<dyn Head>,
    /// Features of the responses behind the `win_rate` scale.
    pub reference_features: Array2<f32>,
    /// When `model.json` was written; the newest version answers for the name.
    written: SystemTime,
}

impl Model {
    /// Log loss on held-out people, by which a default is chosen when nobody names one: the mean over numbers of their
    /// examples, as who asks will have few or many; for a head that learns from none, what it always is.
    fn validation_log_loss(&self) -> f64 {
        let losses: Option<Vec<f64>> = self.evaluation["shots"]
            .as_array()
            .map(|shots| shots.iter().filter_map(|shot| shot["summary"]["log_loss"].as_f64()).collect());
        match losses.filter(|losses| !losses.is_empty()) {
            Some(losses) => losses.iter().sum::<f64>() / losses.len() as f64,
            None => self.evaluation["validation"]["log_loss"].as_f64().unwrap_or(f64::INFINITY),
        }
    }
}

/// A model folder that could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedModel {
    /// `name/version` below the models folder.
    pub folder: String,
    /// Why, with causes.
    pub detail: String,
    /// Whether an earlier load of the same folder still answers.
    pub still_serving: bool,
}

/// Everything that is registered at one moment.
#[derive(Debug, Default)]
pub struct Registered {
    /// By name and version.
    models: BTreeMap<ModelRef, Arc<Model>>,
    /// What could not be loaded.
    failed: Vec<FailedModel>,
    /// Who answers when none is named, if somebody chose.
    chosen_default: Option<ModelSelector>,
}

impl Registered {
    /// Every model, by name and version.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.models.values()
    }

    /// The models that answer to a name without a version, or to none at all: those that learn from every example as it
    /// comes. An older version learns when it is asked for.
    pub fn current(&self) -> impl Iterator<Item = &Arc<Model>> {
        let default = self.default_model().map(|model| &model.reference);
        self.models.values().filter(move |model| {
            let selector = ModelSelector { name: model.reference.name.clone(), version: None };
            default == Some(&model.reference)
                || self.newest(&selector).is_some_and(|newest| newest.reference == model.reference)
        })
    }

    /// The Bradley-Terry model that every number is held against, if there is one.
    pub fn baseline(&self) -> Option<&Arc<Model>> {
        baseline_of(self.current())
    }

    /// Every folder that could not be loaded.
    pub fn failed(&self) -> &[FailedModel] {
        &self.failed
    }

    /// The model that answers to a selector; to none, the default.
    ///
    /// # Errors
    /// [`RegistryError::UnknownModel`], or [`RegistryError::NoModel`] where there is none at all.
    pub fn find(&self, selector: Option<&ModelSelector>) -> Result<&Arc<Model>, RegistryError> {
        match selector {
            Some(selector) => {
                self.newest(selector).ok_or_else(|| RegistryError::UnknownModel(selector.to_string()))
            }
            None => self.default_model().ok_or(RegistryError::NoModel),
        }
    }

    /// Who answers when none is named: the chosen default, else the best on held-out people.
    pub fn default_model(&self) -> Option<&Arc<Model>> {
        let chosen = self.chosen_default.as_ref().and_then(|selector| self.newest(selector));
        chosen.or_else(|| {
            self.models.values().min_by(|a, b| a.validation_log_loss().total_cmp(&b.validation_log_loss()))
        })
    }

    fn newest(&self, selector: &ModelSelector) -> Option<&Arc<Model>> {
        self.models
            .values()
            .filter(|model| model.reference.name == selector.name)
            .filter(|model| {
                selector.version.as_ref().is_none_or(|version| *version == model.reference.version)
            })
            .max_by(|a, b| (a.written, &a.reference).cmp(&(b.written, &b.reference)))
    }
}

/// The Bradley-Terry model among some: the newest of the name `bt`, else of the first name.
pub(crate) fn baseline_of<'a>(models: impl Iterator<Item = &'a Arc<Model>>) -> Option<&'a Arc<Model>> {
    let is_named_after = |model: &Model| model.reference.name.as_str() == HeadFamily::Bt.as_str();
    models.filter(|model| model.head.family() == HeadFamily::Bt).max_by(|a, b| {
        is_named_after(a)
            .cmp(&is_named_after(b))
            .then_with(|| b.reference.name.cmp(&a.reference.name))
            .then_with(|| (a.written, &a.reference).cmp(&(b.written, &b.reference)))
    })
}

/// What a rescan changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReloadReport {
    /// Models that answer now and did not before.
    pub added: Vec<ModelRef>,
    /// Models that answered before and do not now.
    pub removed: Vec<ModelRef>,
    /// Folders that could not be loaded.
    pub failed: Vec<FailedModel>,
}

/// The models folder and what was loaded from it.
#[derive(Debug)]
pub struct ModelRegistry {
    folder: PathBuf,
    backbone: BackboneInfo,
    registered: ArcSwap<Registered>,
    /// Held while the folder is scanned, so that two rescans do not undo each other.
    scanning: Mutex<()>,
}

impl ModelRegistry {
    /// Scans a models folder; a broken model is reported by [`Registered::failed`], not an error.
    ///
    /// # Errors
    /// If the folder itself cannot be read.
    pub fn open(folder: &Path, backbone: BackboneInfo) -> Result<Self, RegistryError> {
        let folder = fs::canonicalize(folder)
            .map_err(|source| RegistryError::Io { path: folder.to_owned(), source })?;
        let registry = Self { folder, backbone, registered: ArcSwap::default(), scanning: Mutex::new(()) };
        registry.reload()?;
        Ok(registry)
    }

    /// What is registered now; stays as it is for whoever holds it.
    pub fn registered(&self) -> Arc<Registered> {
        self.registered.load_full()
    }

    /// Scans the folder again. A model that no longer loads keeps answering as it did; one whose folder is gone
    /// does not.
    ///
    /// # Errors
    /// If the folder itself cannot be read; then nothing changes.
    pub fn reload(&self) -> Result<ReloadReport, RegistryError> {
        let _scanning = self.scanning.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = self.registered();
        let mut next = Registered { chosen_default: self.read_default(), ..Registered::default() };
        let Folders { models, unreadable } = self.folders()?;
        for (name, error) in unreadable {
            let known: Vec<_> =
                before.models.values().filter(|model| model.reference.name.as_str() == name).collect();
            next.failed.push(self.failure(name, &error, !known.is_empty()));
            next.models.extend(known.into_iter().map(|model| (model.reference.clone(), Arc::clone(model))));
        }
        for (name, version) in models {
            let known = before.models.values().find(|model| {
                model.reference.name.as_str() == name && model.reference.version.as_str() == version
            });
            match self.load(&name, &version) {
                Ok(model) => {
                    // An unchanged model stays the same object, with what hangs on it.
                    let model = match known {
                        Some(known) if known.card == model.card => Arc::clone(known),
                        _ => Arc::new(model),
                    };
                    next.models.insert(model.reference.clone(), model);
                }
                Err(error) => {
                    next.failed.push(self.failure(format!("{name}/{version}"), &error, known.is_some()));
                    if let Some(known) = known {
                        next.models.insert(known.reference.clone(), Arc::clone(known));
                    }
                }
            }
        }
        let missing = |from: &Registered, other: &Registered| -> Vec<ModelRef> {
            from.models.keys().filter(|model| !other.models.contains_key(model)).cloned().collect()
        };
        let report = ReloadReport {
            added: missing(&next, &before),
            removed: missing(&before, &next),
            failed: next.failed.clone(),
        };
        ::metrics::gauge!(metrics::MODELS).set(next.models.len() as f64);
        ::metrics::gauge!(metrics::MODELS_FAILED).set(next.failed.len() as f64);
        self.registered.store(Arc::new(next));
        Ok(report)
    }

    fn failure(&self, folder: String, error: &RegistryError, still_serving: bool) -> FailedModel {
        // The folder's own place is nobody's business who asks over HTTP.
        let detail = with_causes(error).replace(&format!("{}/", self.folder.display()), "");
        tracing::error!(model.folder = %folder, error = %detail, "model {folder} could not be loaded");
        FailedModel { folder, detail, still_serving }
    }

    /// Chooses who answers when no model is named; kept in the models folder.
    ///
    /// # Errors
    /// An unknown model, or a folder that cannot be written.
    pub fn set_default(&self, selector: &ModelSelector) -> Result<ModelRef, RegistryError> {
        let reference = self.registered().find(Some(selector))?.reference.clone();
        let path = self.folder.join(DEFAULT_FILE);
        let staging = self.folder.join(format!(".{DEFAULT_FILE}.{}", std::process::id()));
        let failed = |source| RegistryError::Io { path: path.clone(), source };
        let bytes = serde_json::json!({"model": selector.to_string()}).to_string();
        fs::write(&staging, bytes).and_then(|()| fs::rename(&staging, &path)).map_err(failed)?;
        self.reload()?;
        Ok(reference)
    }

    /// The default somebody chose; a file that does not say is passed over, as the models can answer without it.
    fn read_default(&self) -> Option<ModelSelector> {
        let bytes = match self.read(&self.folder.join(DEFAULT_FILE), MAX_JSON_BYTES) {
            Ok(bytes) => bytes,
            Err(RegistryError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::error!(error = %with_causes(&error), "default.json in the models folder is passed over");
                return None;
            }
        };
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let selector = value["model"].as_str().and_then(|text| text.parse().ok());
        if selector.is_none() {
            tracing::error!("default.json in the models folder does not name a model; it is passed over");
        }
        selector
    }

    /// `(name, version)` of every folder two levels down whose names are a model's. One that cannot be listed
    /// must not hide the others.
    fn folders(&self) -> Result<Folders, RegistryError> {
        let mut folders = Folders::default();
        for name in subfolders(&self.folder)? {
            if name.parse::<ModelName>().is_err() {
                continue;
            }
            match subfolders(&self.folder.join(&name)) {
                Ok(versions) => folders.models.extend(
                    versions
                        .into_iter()
                        .filter(|version| version.parse::<ModelVersion>().is_ok())
                        .map(|version| (name.clone(), version)),
                ),
                Err(error) => folders.unreadable.push((name, error)),
            }
        }
        folders.models.sort();
        Ok(folders)
    }

    fn load(&self, name: &str, version: &str) -> Result<Model, RegistryError> {
        let folder = self.folder.join(name).join(version);
        let card_path = folder.join("model.json");
        let card = ModelCard::from_json(&self.read(&card_path, MAX_JSON_BYTES)?)?;
        let reference = ModelRef { name: card.name.clone(), version: card.version.clone() };
        if (reference.name.as_str(), reference.version.as_str()) != (name, version) {
            return Err(RegistryError::Misplaced { card: reference, folder: format!("{name}@{version}") });
        }
        if card.backbone.hash != self.backbone.hash {
            let label =
                |name: &str, hash: &str| format!("{name} ({})", hash.chars().take(12).collect::<String>());
            return Err(RegistryError::Backbone {
                expected: label(&card.backbone.name, &card.backbone.hash),
                actual: label(&self.backbone.name, &self.backbone.hash),
            });
        }
        let weights = self.read(&folder.join("head.safetensors"), MAX_WEIGHTS_BYTES)?;
        card.check_weights(&weights)?;
        let loaded = read_head(card.head, &card.hyperparameters, &weights)?;
        if loaded.head.embedding_dim() != self.backbone.dim {
            return Err(RegistryError::Backbone {
                expected: format!("embeddings of length {}", loaded.head.embedding_dim()),
                actual: format!("embeddings of length {}", self.backbone.dim),
            });
        }
        probe(&loaded).map_err(RegistryError::Probe)?;
        let evaluation = serde_json::from_slice(&self.read(&folder.join("evaluation.json"), MAX_JSON_BYTES)?)
            .map_err(RegistryError::Evaluation)?;
        let written = fs::metadata(&card_path)
            .and_then(|metadata| metadata.modified())
            .map_err(|source| RegistryError::Io { path: card_path, source })?;
        Ok(Model {
            reference,
            card,
            evaluation,
            head: loaded.head,
            reference_features: loaded.reference_features,
            written,
        })
    }

    /// Reads a file inside the models folder, its size checked before its bytes are read.
    fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let failed = |source| RegistryError::Io { path: path.to_owned(), source };
        let real = fs::canonicalize(path).map_err(failed)?;
        if !real.starts_with(&self.folder) {
            return Err(RegistryError::Outside(path.to_owned()));
        }
        let metadata = fs::metadata(&real).map_err(failed)?;
        if !metadata.is_file() {
            // A pipe, say, would be waited for without end.
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "is not a plain file")));
        }
        let too_large = |bytes| RegistryError::TooLarge { path: path.to_owned(), bytes, limit };
        if metadata.len() > limit {
            return Err(too_large(metadata.len()));
        }
        let mut bytes = Vec::new();
        let file = fs::File::open(&real).map_err(failed)?;
        let read = file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)? as u64;
        if read > limit {
            return Err(too_large(read)); // it has grown meanwhile
        }
        Ok(bytes)
    }
}

/// Asks a head about embeddings of zeros, ones and minus ones. Its weights are finite, which they can be and still
/// give infinities for whatever is asked.
fn probe(loaded: &LoadedHead) -> Result<(), HeadError> {
    let head = loaded.head.as_ref();
    let rows = Array2::from_shape_fn((3, head.embedding_dim()), |(row, _)| [0.0, 1.0, -1.0][row]);
    let texts =
        head.text_forms().iter().fold(TextEmbeddings::default(), |texts, form| texts.with(form, rows.view()));
    let features = head.features(&texts)?;
    let population = [head.population().view()];
    let finite = |moments: &Moments| moments.mean.iter().chain(&moments.variance).all(|x| x.is_finite());
    for features in [&features, &loaded.reference_features] {
        if !finite(&head.rewards(&population, features.view())?) {
            return Err(HeadError::NotFinite("a reward"));
        }
        let reversed = features.slice(s![..;-1, ..]);
        if !finite(&head.margins(&population, features.view(), reversed)?) {
            return Err(HeadError::NotFinite("a margin"));
        }
    }
    Ok(())
}

/// What a models folder holds, before anything in it is read.
#[derive(Debug, Default)]
struct Folders {
    /// `(name, version)`, sorted.
    models: Vec<(String, String)>,
    /// Models whose versions cannot be listed.
    unreadable: Vec<(String, RegistryError)>,
}

/// The names of the folders in one. What cannot be looked at may be one: whoever looks into it is told why.
fn subfolders(folder: &Path) -> Result<Vec<String>, RegistryError> {
    let failed = |source| RegistryError::Io { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let may_be_folder = match fs::metadata(entry.path()) {
            Ok(metadata) => metadata.is_dir(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        if may_be_folder && let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// An error and its causes in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
