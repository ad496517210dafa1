//! Observed preferences.

use serde::{Deserialize, Serialize};

use crate::{
    attributes::Attributes,
    ids::PersonId,
    text::{Prompt, TextError, check_text},
};

/// Why a comparison is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComparisonError {
    /// `strength` outside `(0, 10]`.
    #[error("is greater than 0 and at most 10")]
    Strength,
    /// `label_confidence` outside `[0, 1]`.
    #[error("is between 0 and 1")]
    LabelConfidence,
    /// A text that cannot be read.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Nothing was preferred to anything.
    #[error("is the same text as chosen")]
    Identical,
}

/// How much a comparison counts against an ordinary one: `(0, 10]`, ordinarily 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Strength(f64);

impl Strength {
    /// The weight in the likelihood.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Default for Strength {
    fn default() -> Self {
        Self(1.0)
    }
}

impl TryFrom<f64> for Strength {
    type Error = ComparisonError;

    fn try_from(value: f64) -> Result<Self, ComparisonError> {
        if value > 0.0 && value <= 10.0 { Ok(Self(value)) } else { Err(ComparisonError::Strength) }
    }
}

impl From<Strength> for f64 {
    fn from(strength: Strength) -> Self {
        strength.0
    }
}

/// The probability that the label is right: `[0, 1]`, ordinarily 1; 0.5 says nothing.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct LabelConfidence(f64);

impl LabelConfidence {
    /// The probability.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Default for LabelConfidence {
    fn default() -> Self {
        Self(1.0)
    }
}

impl TryFrom<f64> for LabelConfidence {
    type Error = ComparisonError;

    fn try_from(value: f64) -> Result<Self, ComparisonError> {
        if (0.0..=1.0).contains(&value) { Ok(Self(value)) } else { Err(ComparisonError::LabelConfidence) }
    }
}

impl From<LabelConfidence> for f64 {
    fn from(confidence: LabelConfidence) -> Self {
        confidence.0
    }
}

/// One observed preference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What both responses answer.
    pub prompt: Prompt,
    /// The preferred response.
    pub chosen: String,
    /// The other one.
    pub rejected: String,
    /// How much it counts.
    #[serde(default)]
    pub strength: Strength,
    /// How sure the label is.
    #[serde(default)]
    pub label_confidence: LabelConfidence,
    /// Why, in the person's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rationale: Option<String>,
}

impl Comparison {
    /// Checks the texts; names the offending field.
    pub fn check(&self) -> Result<(), (&'static str, ComparisonError)> {
        self.prompt.check().map_err(|error| ("prompt", error.into()))?;
        for (field, text) in [("chosen", &self.chosen), ("rejected", &self.rejected)] {
            check_text(text).map_err(|error| (field, error.into()))?;
        }
        if let Some(rationale) = &self.rationale {
            check_text(rationale).map_err(|error| ("rationale", error.into()))?;
        }
        if self.chosen == self.rejected {
            return Err(("rejected", ComparisonError::Identical));
        }
        Ok(())
    }
}

/// Which part of a data set a comparison belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Of the people a model is trained on.
    Train,
    /// The few-shot examples of people it never saw.
    Context,
    /// What those people are tested on.
    Query,
}

/// A comparison with its person, as data files hold it.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparisonRecord {
    /// Whose preference.
    pub user_id: PersonId,
    /// What is known of the person.
    pub attributes: Attributes,
    /// The preference.
    pub comparison: Comparison,
    /// Its part of the data set, where the file says so.
    pub split: Option<Split>,
    /// Labels of the comparison itself, as `cross` or `topic:art`.
    pub tags: Vec<String>,
    /// The file's own id.
    pub id: Option<String>,
    /// When it was observed, as the file writes it (RFC 3339).
    pub created_at: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strength_and_confidence_keep_to_their_ranges() {
        for bad in [0.0, -1.0, 10.1, f64::NAN, f64::INFINITY] {
            assert!(Strength::try_from(bad).is_err(), "{bad}");
        }
        for bad in [-0.1, 1.1, f64::NAN] {
            assert!(LabelConfidence::try_from(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_comparison_names_the_field_that_is_wrong() {
        let good = Comparison {
            prompt: Prompt::default(),
            chosen: "a".into(),
            rejected: "b".into(),
            strength: Strength::default(),
            label_confidence: LabelConfidence::default(),
            rationale: None,
        };
        assert_eq!(good.check(), Ok(()));
        let nul = Comparison { chosen: "\0".into(), ..good.clone() };
        assert_eq!(nul.check().unwrap_err().0, "chosen");
        let same = Comparison { rejected: "a".into(), ..good };
        assert_eq!(same.check(), Err(("rejected", ComparisonError::Identical)));
    }
}
