//! From stored examples to what a head adapts to.

use ndarray::{Array2, ArrayView2};
use polyreward_domain::{Comparison, Prompt, StateVersion, TextForm, TextForms};
use polyreward_heads::{Head, HeadError, Observation, TextEmbeddings, UserState};
use polyreward_storage::{Evidence, ExampleEmbedding, ModelKey, StoredState};
use sha2::{Digest, Sha256};

use crate::{corpus::name_of, registry::Model};

/// Digest of everything about a model that decides a state.
pub(crate) fn model_key(model: &Model) -> ModelKey {
    let mut digest = Sha256::new();
    let (reference, hyperparameters) = (model.reference.to_string(), model.card.hyperparameters.to_string());
    for part in [&reference, &model.card.weights_sha256, &hyperparameters] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// What names both sides of a comparison to a head.
pub(crate) fn names_of(comparison: &Comparison) -> [u64; 2] {
    [&comparison.chosen, &comparison.rejected].map(|response| name_of(&comparison.prompt, response))
}

/// The beginning of a digest, never 0: that is the population's.
fn version_of_digest(digest: Sha256) -> StateVersion {
    let digest: [u8; 32] = digest.finalize().into();
    let first: [u8; 8] = digest[..8].try_into().expect("a digest has 32 bytes");
    StateVersion::from_number(u64::from_le_bytes(first).max(1))
}

/// What a head learns from one example, without its embeddings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Vote {
    pub names: [u64; 2],
    pub strength: f64,
    pub label_confidence: f64,
}

impl Vote {
    pub fn of(comparison: &Comparison) -> Self {
        Self {
            names: names_of(comparison),
            strength: comparison.strength.get(),
            label_confidence: comparison.label_confidence.get(),
        }
    }
}

impl From<&Evidence> for Vote {
    fn from(evidence: &Evidence) -> Self {
        let Evidence { names, strength, label_confidence, .. } = *evidence;
        Self { names, strength, label_confidence }
    }
}

/// The version of some examples: the same for the same examples in any order, on every replica and after an erased person
/// has come again.
pub(crate) fn version_of(votes: impl IntoIterator<Item = Vote>) -> StateVersion {
    let mut rows: Vec<_> = votes
        .into_iter()
        .map(|vote| (vote.names, vote.strength.to_bits(), vote.label_confidence.to_bits()))
        .collect();
    if rows.is_empty() {
        return StateVersion::POPULATION;
    }
    rows.sort_unstable();
    let mut digest = Sha256::new();
    for ([chosen, rejected], strength, confidence) in rows {
        for part in [chosen, rejected, strength, confidence] {
            digest.update(part.to_le_bytes());
        }
    }
    version_of_digest(digest)
}

/// The version of several states together, in their order.
pub(crate) fn version_together(versions: impl IntoIterator<Item = StateVersion>) -> StateVersion {
    let (mut digest, mut anybody) = (Sha256::new(), false);
    for version in versions {
        anybody |= version != StateVersion::POPULATION;
        digest.update(version.get().to_le_bytes());
    }
    if anybody { version_of_digest(digest) } else { StateVersion::POPULATION }
}

/// Whether an example lacks an embedding that is needed; one of another width is as good as none.
pub(crate) fn lacks(embeddings: &[ExampleEmbedding], forms: TextForms, dim: usize) -> bool {
    forms.iter().any(|form| side_of(embeddings, form, 0, dim).is_none())
}

fn side_of(embeddings: &[ExampleEmbedding], form: TextForm, side: usize, dim: usize) -> Option<&[f32]> {
    let embedding = embeddings.iter().find(|embedding| embedding.form == form)?;
    let second = side == 1 && form != TextForm::Prompt;
    let row = if second { &embedding.rejected } else { &embedding.chosen };
    (row.len() == dim).then_some(row)
}

/// Examples as one head reads them.
pub(crate) struct Features {
    sides: [Array2<f32>; 2],
}

impl Features {
    /// Of the embeddings of some examples, in their order.
    ///
    /// # Errors
    /// An embedding that is missing, or that the head refuses.
    pub fn of(head: &dyn Head, examples: &[&[ExampleEmbedding]]) -> Result<Self, HeadError> {
        Ok(Self { sides: [features(head, examples, 0)?, features(head, examples, 1)?] })
    }

    /// One comparison, `[1, F]` each side.
    pub fn pair(&self, at: usize) -> [ArrayView2<'_, f32>; 2] {
        [0, 1].map(|side| self.sides[side].slice(ndarray::s![at..=at, ..]))
    }

    /// What a head believes of somebody who made the first of these comparisons.
    ///
    /// # Errors
    /// See [`Head::adapt`].
    pub fn adapt(
        &self,
        head: &dyn Head,
        votes: &[Vote],
        start: Option<&UserState>,
    ) -> Result<UserState, HeadError> {
        let observations: Vec<Observation<'_>> = votes
            .iter()
            .enumerate()
            .map(|(row, vote)| Observation {
                chosen: self.sides[0].row(row),
                rejected: self.sides[1].row(row),
                names: vote.names,
                strength: vote.strength,
                label_confidence: vote.label_confidence,
            })
            .collect();
        head.adapt(&observations, start)
    }
}

fn features(
    head: &dyn Head,
    examples: &[&[ExampleEmbedding]],
    side: usize,
) -> Result<Array2<f32>, HeadError> {
    let dim = head.embedding_dim();
    let mut matrices = Vec::new();
    for form in head.text_forms().iter() {
        let mut rows = Array2::zeros((examples.len(), dim));
        for (mut row, embeddings) in rows.rows_mut().into_iter().zip(examples) {
            let embedding = side_of(embeddings, form, side, dim).ok_or(HeadError::MissingForm(form))?;
            row.assign(&ndarray::ArrayView1::from(embedding));
        }
        matrices.push((form, rows));
    }
    let texts =
        matrices.iter().fold(TextEmbeddings::default(), |texts, (form, rows)| texts.with(*form, rows.view()));
    head.features(&texts)
}

/// A state as it is stored.
pub(crate) fn stored(state: &UserState, version: StateVersion) -> StoredState {
    StoredState {
        version,
        examples: state.examples() as u64,
        mean: state.mean().to_vec(),
        covariance: state.covariance().iter().copied().collect(),
    }
}

/// A stored state as the head's own.
///
/// # Errors
/// Numbers that are no state of this head.
pub(crate) fn restored(head: &dyn Head, stored: StoredState) -> Result<UserState, HeadError> {
    let size = head.population().mean().len();
    let mismatch = |what, actual| HeadError::DimensionMismatch { what, expected: size, actual };
    if stored.mean.len() != size {
        return Err(mismatch("a stored mean", stored.mean.len()));
    }
    let rows = stored.covariance.len();
    let covariance = Array2::from_shape_vec((size, size), stored.covariance)
        .map_err(|_| mismatch("a stored covariance", rows))?;
    let (mean, examples) = (stored.mean.into(), usize::try_from(stored.examples).unwrap_or(usize::MAX));
    // All states of a head are kept alike.
    if head.population().is_independent() {
        if covariance.indexed_iter().any(|((i, j), x)| i != j && *x != 0.0) {
            return Err(HeadError::Parameter { name: "a stored covariance", detail: "is diagonal".into() });
        }
        return UserState::independent(&mean, &covariance.diag().to_owned(), examples);
    }
    UserState::new(mean, covariance, examples)
}

/// What names a comparison whose poster did not: the same texts in the same roles are the same example.
pub(crate) fn content_id(comparison: &Comparison) -> polyreward_domain::ExampleId {
    let mut digest = Sha256::new();
    let mut part = |text: &str| {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    };
    match &comparison.prompt {
        Prompt::Text(text) => {
            part("text");
            part(text);
        }
        Prompt::Raw(text) => {
            part("raw");
            part(text);
        }
        Prompt::Tokens(ids) => {
            part("tokens");
            for id in ids {
                part(&id.to_string());
            }
        }
        Prompt::Chat(messages) => {
            part("chat");
            part(&messages.len().to_string());
            for message in messages {
                part(&message.role);
                part(&message.content);
            }
        }
    }
    part(&comparison.chosen);
    part(&comparison.rejected);
    let hex =
        digest.finalize().iter().take(16).fold(String::from("c-"), |hex, byte| format!("{hex}{byte:02x}"));
    hex.parse().expect("hexadecimal digits are of the alphabet")
}

#[cfg(test)]
mod tests {
    use polyreward_domain::{LabelConfidence, Strength};

    use super::*;

    fn comparison(chosen: &str, strength: f64) -> Comparison {
        Comparison {
            prompt: Prompt::Text("Name a fish.".into()),
            chosen: chosen.into(),
            rejected: "No.".into(),
            strength: Strength::try_from(strength).unwrap(),
            label_confidence: LabelConfidence::default(),
            rationale: None,
        }
    }

    fn version(posted: &[(&str, f64)]) -> StateVersion {
        version_of(posted.iter().map(|(chosen, strength)| Vote::of(&comparison(chosen, *strength))))
    }

    #[test]
    fn a_version_changes_with_the_examples_and_not_with_their_order() {
        let there = version(&[("a", 1.0), ("b", 1.0), ("c", 1.0)]);
        assert_eq!(there, version(&[("c", 1.0), ("a", 1.0), ("b", 1.0)]));
        for other in [&[("a", 1.0), ("b", 1.0)][..], &[("a", 1.0), ("b", 1.0), ("c", 2.0)], &[]] {
            assert_ne!(there, version(other));
        }
        assert_eq!(version(&[]), StateVersion::POPULATION);
        assert_eq!(version_together([StateVersion::POPULATION; 3]), StateVersion::POPULATION);
        assert_ne!(version_together([there, StateVersion::POPULATION]), version_together([there]));
    }

    #[test]
    fn an_example_without_a_name_is_named_by_what_was_compared() {
        let id = content_id(&comparison("a", 1.0));
        assert_eq!(id, content_id(&comparison("a", 2.0)));
        assert_ne!(id, content_id(&comparison("b", 1.0)));
        let turned = Comparison { chosen: "No.".into(), rejected: "a".into(), ..comparison("a", 1.0) };
        assert_ne!(id, content_id(&turned));
        assert_eq!(id.as_str().len(), 34);
    }
}
