//! `model.json`: what a model folder says of its weights.

use std::fmt::Write as _;

use polyreward_domain::{HeadFamily, ModelName, ModelVersion};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{calibration::Calibration, head::HeadError};

/// The format this build writes and reads.
pub const CARD_FORMAT: u32 = 1;

/// Why `model.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// Not the JSON of a model card.
    #[error("model.json is not a model card")]
    Json(#[source] serde_json::Error),
    /// Written by another version.
    #[error("model.json has format {0}, this build reads {CARD_FORMAT}")]
    Format(u32),
    /// Weights of another hash than the card names.
    #[error("head.safetensors has sha256 {actual}, model.json names {expected}")]
    Hash {
        /// What the card names.
        expected: String,
        /// What the file has.
        actual: String,
    },
    /// A number no model can have.
    #[error("model.json: {0} is not finite and positive")]
    Number(&'static str),
    /// A calibration no model can have.
    #[error("model.json: the calibration is not usable")]
    Calibration(#[source] HeadError),
}

/// The backbone a head was trained on; it works on no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneCard {
    /// Its name.
    pub name: String,
    /// Hash of its weights, tokenizer and settings.
    pub hash: String,
    /// Length of its embeddings.
    pub dim: usize,
}

/// What a model was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingDataCard {
    /// Hash of the data files' bytes, in the order given.
    pub sha256: String,
    /// People trained on.
    pub people: usize,
    /// Comparisons trained on.
    pub comparisons: usize,
    /// People held out to stop, choose and calibrate by.
    pub validation_people: usize,
    /// Their comparisons.
    pub validation_comparisons: usize,
    /// Comparisons of trained people kept out of training, to measure seen people by.
    pub held_out_comparisons: usize,
}

/// Mean and standard deviation of the population reward over the training responses: the `standard` scale.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardStatistics {
    /// Mean reward, in logits.
    pub mean: f64,
    /// Its standard deviation.
    pub standard_deviation: f64,
    /// Responses behind both.
    pub responses: usize,
}

/// `model.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// [`CARD_FORMAT`].
    pub format: u32,
    /// The model's name.
    pub name: ModelName,
    /// Its version.
    pub version: ModelVersion,
    /// Its head.
    pub head: HeadFamily,
    /// Its backbone.
    pub backbone: BackboneCard,
    /// The head's own parameters, chosen or given.
    pub hyperparameters: Value,
    /// How training went: what was tried, what was chosen and why.
    pub training: Value,
    /// Seed of every random choice in training.
    pub seed: u64,
    /// What it was trained on.
    pub training_data: TrainingDataCard,
    /// The scale of its rewards.
    pub reward_statistics: RewardStatistics,
    /// From margins to probabilities.
    pub calibration: Calibration,
    /// Hash of `head.safetensors`.
    pub weights_sha256: String,
    /// The polyreward that wrote it.
    pub polyreward_version: String,
}

impl ModelCard {
    /// Reads and checks a card.
    ///
    /// # Errors
    /// See [`CardError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, CardError> {
        let card: Self = serde_json::from_slice(bytes).map_err(CardError::Json)?;
        if card.format != CARD_FORMAT {
            return Err(CardError::Format(card.format));
        }
        card.calibration.checked().map_err(CardError::Calibration)?;
        let deviation = card.reward_statistics.standard_deviation;
        if !(deviation.is_finite() && deviation > 0.0) {
            return Err(CardError::Number("reward_statistics.standard_deviation"));
        }
        if !card.reward_statistics.mean.is_finite() {
            return Err(CardError::Number("reward_statistics.mean"));
        }
        Ok(card)
    }

    /// Checks the weights that stand beside the card.
    ///
    /// # Errors
    /// [`CardError::Hash`] if they are not the ones it names.
    pub fn check_weights(&self, bytes: &[u8]) -> Result<(), CardError> {
        let actual = sha256_hex(bytes);
        if actual == self.weights_sha256 {
            Ok(())
        } else {
            Err(CardError::Hash { expected: self.weights_sha256.clone(), actual })
        }
    }
}

/// SHA-256 in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> ModelCard {
        ModelCard {
            format: CARD_FORMAT,
            name: "bt".parse().unwrap(),
            version: "3f9c".parse().unwrap(),
            head: HeadFamily::Bt,
            backbone: BackboneCard { name: "tiny".into(), hash: "ab".into(), dim: 2 },
            hyperparameters: Value::Null,
            training: Value::Null,
            seed: 0,
            training_data: TrainingDataCard {
                sha256: "cd".into(),
                people: 2,
                comparisons: 9,
                validation_people: 1,
                validation_comparisons: 3,
                held_out_comparisons: 1,
            },
            reward_statistics: RewardStatistics { mean: 0.0, standard_deviation: 1.0, responses: 4 },
            calibration: Calibration::default(),
            weights_sha256: sha256_hex(b"weights"),
            polyreward_version: "0.1.0".into(),
        }
    }

    #[test]
    fn a_card_reads_back_and_guards_its_weights() {
        let json = serde_json::to_vec(&card()).unwrap();
        let read = ModelCard::from_json(&json).unwrap();
        assert_eq!(read, card());
        assert!(read.check_weights(b"weights").is_ok());
        assert!(matches!(read.check_weights(b"other"), Err(CardError::Hash { .. })));
    }

    #[test]
    fn a_card_of_another_format_or_scale_is_refused() {
        let refused = |change: fn(&mut ModelCard)| {
            let mut card = card();
            change(&mut card);
            ModelCard::from_json(&serde_json::to_vec(&card).unwrap()).unwrap_err()
        };
        assert!(matches!(refused(|card| card.format = 2), CardError::Format(2)));
        assert!(matches!(refused(|card| card.calibration.temperature = 0.0), CardError::Calibration(_)));
        assert!(matches!(refused(|card| card.calibration.variance_scale = -1.0), CardError::Calibration(_)));
        assert!(matches!(
            refused(|card| card.reward_statistics.standard_deviation = -1.0),
            CardError::Number(_)
        ));
        assert!(matches!(ModelCard::from_json(b"{}"), Err(CardError::Json(_))));
    }
}
