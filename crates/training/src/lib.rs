//! Fits heads on comparisons and writes model folders: `model.json`, `head.safetensors`, `evaluation.json`.
//!
//! Training sees arrays: every text already is an embedding ([`polyreward_heads::Items`]), every person a list of comparisons of
//! items ([`polyreward_heads::Person`]). Some people are held out to stop, choose and calibrate by, and some comparisons of the
//! others to measure seen people by ([`HoldOut`]); neither is ever trained on.

mod assess;
mod bt;
mod data;
mod error;
mod folder;
mod optimise;

pub use assess::{Evaluation, predict};
pub use bt::{BtConfig, fit_bt};
pub use data::{HoldOut, TrainingData};
pub use error::TrainingError;
pub use folder::{ModelFolder, Provenance, Trained, write_model};

/// What a run tells whoever watches it.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// A head's training has come this far.
    Epoch {
        /// What is being fitted, as `bt, hidden 128`.
        candidate: String,
        /// Epochs done.
        epoch: usize,
        /// Epochs at most.
        epochs: usize,
        /// Mean training loss of the epoch, in nats.
        loss: f64,
        /// Accuracy on the held-out people.
        validation_accuracy: f64,
        /// Log loss on the held-out people, in nats.
        validation_log_loss: f64,
    },
}
