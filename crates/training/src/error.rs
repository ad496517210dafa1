//! Why a run is refused or fails.

use polyreward_heads::{HeadError, WeightsError};

/// Why a run is refused or fails.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// Data that nothing can be learned from.
    #[error("the data cannot be trained on: {0}")]
    Data(String),
    /// A configuration value out of range.
    #[error("{field}: {detail}")]
    Config {
        /// The configuration's field.
        field: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The loss left the finite numbers.
    #[error(
        "training {candidate} diverged in epoch {epoch}: the loss is not finite; try a lower learning rate"
    )]
    Diverged {
        /// What was being fitted.
        candidate: String,
        /// In which epoch.
        epoch: usize,
    },
    /// The fitted weights do not make a head.
    #[error("the fitted head is not usable")]
    Head(#[from] HeadError),
    /// The head could not be written as bytes.
    #[error("the head could not be serialised")]
    Weights(#[from] WeightsError),
    /// Automatic differentiation failed.
    #[error("a tensor operation failed")]
    Tensor(#[from] candle_core::Error),
    /// The model folder could not be written.
    #[error("writing {path}")]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
