//! Fits heads on comparisons and writes model folders: `model.json`, `head.safetensors`, `evaluation.json`.
//!
//! Training sees arrays: every text already is an embedding ([`polyreward_heads::Items`]), every person a list of comparisons of
//! items ([`polyreward_heads::Person`]). Some people are held out to stop, choose and calibrate by, and some comparisons of the
//! others to measure seen people by ([`HoldOut`]); neither is ever trained on.

mod assess;
mod config;
mod crowd;
mod data;
mod episode;
mod error;
mod families;
mod features;
mod fit;
mod folder;
mod network;

pub use assess::{Evaluation, ShotEvaluation, calibrate_on_held_out, predict};
pub use config::{EpisodeConfig, LoreConfig, MicroConfig, PalAConfig, PalBConfig, TrainConfig, VplConfig};
pub use data::{CappedPeople, HoldOut, TrainingData, comparisons_kept};
pub use error::TrainingError;
pub use fit::Fitting;
pub use folder::{ModelFolder, Provenance, Trained, write_model};

/// What a run tells whoever watches it.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// A head's training has come this far.
    Epoch {
        /// What is being fitted, as `lore, reading the response`.
        candidate: String,
        /// Epochs done.
        epoch: usize,
        /// Epochs in all.
        epochs: usize,
        /// Mean training loss of the epoch, in nats.
        loss: f64,
        /// Log loss on the held-out people over several numbers of examples, in nats; only in some epochs.
        validation_log_loss: Option<f64>,
        /// Accuracy on the held-out people with no example.
        accuracy_without_examples: Option<f64>,
        /// Accuracy on the held-out people after eight; none if nobody has so many.
        accuracy_after_8: Option<f64>,
    },
}
