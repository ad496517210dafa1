//! Who there is and what they compared, wherever that is kept: a file in memory, or a database.

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    fmt::Debug,
    sync::Arc,
};

use futures::future::BoxFuture;
use polyreward_domain::{Attributes, Comparison, Prompt, UserId};
use sha2::{Digest, Sha256};

/// Names what a state was derived from: it changes when the person's examples do, and says nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct StateVersion(u64);

impl StateVersion {
    /// Of somebody without examples.
    pub const POPULATION: Self = Self(0);

    /// The version as a number; 0 is the population.
    pub fn get(self) -> u64 {
        self.0
    }

    fn of(digest: Sha256) -> Self {
        let digest: [u8; 32] = digest.finalize().into();
        let first: [u8; 8] = digest[..8].try_into().expect("a digest has 32 bytes");
        Self(u64::from_le_bytes(first).max(1))
    }

    /// The version of several states together, in their order.
    pub fn together(versions: impl IntoIterator<Item = Self>) -> Self {
        let (mut digest, mut anybody) = (Sha256::new(), false);
        for version in versions {
            anybody |= version != Self::POPULATION;
            digest.update(version.0.to_le_bytes());
        }
        if anybody { Self::of(digest) } else { Self::POPULATION }
    }
}

/// Somebody, as far as it takes to know whether a state is still theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Who.
    pub user_id: Arc<UserId>,
    /// The version of their examples.
    pub version: StateVersion,
    /// How many distinct examples there are.
    pub examples: usize,
}

impl Person {
    /// Somebody of whom nothing is known.
    pub fn unknown(user_id: UserId) -> Self {
        Self { user_id: Arc::new(user_id), version: StateVersion::POPULATION, examples: 0 }
    }

    /// Whether there are any examples.
    pub fn is_known(&self) -> bool {
        self.examples > 0
    }
}

/// One person's distinct examples, in an order that does not depend on that in which they came.
#[derive(Debug, Clone, Default)]
pub struct Examples {
    comparisons: Arc<[Comparison]>,
    version: StateVersion,
}

impl Examples {
    /// The distinct ones of some comparisons, each with the id that it was posted with. An id that came before is the
    /// same example again; of two that compare the same texts alike, the stronger one stands.
    pub fn of(posted: impl IntoIterator<Item = (Option<String>, Comparison)>) -> Self {
        let mut ids = HashSet::new();
        let mut distinct: HashMap<[u8; 32], Comparison> = HashMap::new();
        for (id, comparison) in posted {
            if id.is_some_and(|id| !ids.insert(id)) {
                continue;
            }
            let weight = |c: &Comparison| (c.strength.get(), c.label_confidence.get());
            distinct
                .entry(texts_digest(&comparison))
                .and_modify(|kept| {
                    if weight(&comparison) > weight(kept) {
                        kept.clone_from(&comparison);
                    }
                })
                .or_insert(comparison);
        }
        let mut distinct: Vec<_> = distinct.into_iter().collect();
        distinct.sort_by_key(|(digest, _)| *digest);
        let mut digest = Sha256::new();
        for (texts, comparison) in &distinct {
            digest.update(texts);
            digest.update(comparison.strength.get().to_le_bytes());
            digest.update(comparison.label_confidence.get().to_le_bytes());
        }
        let version = if distinct.is_empty() { StateVersion::POPULATION } else { StateVersion::of(digest) };
        Self { comparisons: distinct.into_iter().map(|(_, comparison)| comparison).collect(), version }
    }

    /// The comparisons.
    pub fn comparisons(&self) -> &[Comparison] {
        &self.comparisons
    }

    /// What names them.
    pub fn version(&self) -> StateVersion {
        self.version
    }
}

/// Digest of the texts of a comparison, every part with its length.
fn texts_digest(comparison: &Comparison) -> [u8; 32] {
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
    digest.finalize().into()
}

/// A directory that cannot be asked now.
#[derive(Debug, thiserror::Error)]
#[error("the people's examples cannot be read")]
pub struct DirectoryError(#[source] pub Box<dyn Error + Send + Sync>);

/// Answers of a [`Directory`].
pub type Answering<'a, T> = BoxFuture<'a, Result<T, DirectoryError>>;

/// Who there is and what they compared.
///
/// A person's version is of their examples alone, so that a state derived from one version is theirs for as long as
/// [`find`](Self::find) and [`members`](Self::members) name that version, on whatever replica it was derived.
pub trait Directory: Debug + Send + Sync {
    /// These people, in their order; an unknown one has no examples.
    fn find<'a>(&'a self, user_ids: &'a [UserId]) -> Answering<'a, Vec<Person>>;

    /// The first `limit` of the people who have all of these attributes, in the order of their ids.
    fn members<'a>(&'a self, group: &'a Attributes, limit: usize) -> Answering<'a, Vec<Person>>;

    /// One person's examples as they are now.
    fn examples<'a>(&'a self, user_id: &'a UserId) -> Answering<'a, Examples>;
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
            strength: strength.try_into().unwrap(),
            label_confidence: LabelConfidence::default(),
            rationale: None,
        }
    }

    fn of(posted: &[(Option<&str>, &str, f64)]) -> Examples {
        let one = |(id, text, strength): &(Option<&str>, &str, f64)| {
            (id.map(str::to_owned), comparison(text, *strength))
        };
        Examples::of(posted.iter().map(one))
    }

    #[test]
    fn an_id_or_a_line_that_came_before_is_the_same_example() {
        let once = of(&[(Some("1"), "a", 1.0)]);
        let again = of(&[(Some("1"), "a", 1.0), (Some("1"), "b", 1.0), (None, "a", 1.0)]);
        assert_eq!((again.comparisons().len(), again.version()), (1, once.version()));
        let stronger = of(&[(None, "a", 1.0), (None, "a", 2.0), (None, "a", 1.5)]);
        assert_eq!(stronger.comparisons()[0].strength, Strength::try_from(2.0).unwrap());
        assert_ne!(stronger.version(), once.version());
    }

    #[test]
    fn a_version_changes_with_the_examples_and_not_with_their_order() {
        let there = of(&[(None, "a", 1.0), (None, "b", 1.0), (None, "c", 1.0)]);
        let back = of(&[(None, "c", 1.0), (None, "a", 1.0), (None, "b", 1.0)]);
        assert_eq!((there.version(), there.comparisons()), (back.version(), back.comparisons()));
        let exchanged = of(&[(None, "a", 1.0), (None, "b", 1.0), (None, "d", 1.0)]);
        assert_ne!(there.version(), exchanged.version());
        assert_eq!(of(&[]).version(), StateVersion::POPULATION);
        let together = |versions: &[StateVersion]| StateVersion::together(versions.iter().copied());
        assert_eq!(together(&[StateVersion::POPULATION; 3]), StateVersion::POPULATION);
        assert_ne!(together(&[there.version(), exchanged.version()]), together(&[there.version()]));
    }
}
