//! The people a server knows: what they are, and what each model believes of them.
//!
//! The examples are the truth; a state is derived from them the first time a model is asked about anybody, once however many
//! requests wait for it, and kept in memory.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use ndarray::Array2;
use polyreward_backbone::{Backbone, BackboneError};
use polyreward_domain::{Attributes, ComparisonRecord, IdError, ModelRef, Split, UserId};
use polyreward_heads::{HeadError, Observation, UserState};
use tokio::sync::OnceCell;

use crate::{
    corpus::{CorpusError, embed_corpus},
    registry::{Model, Registered},
};

/// Examples one person may have.
const MAX_EXAMPLES: usize = 4096;

/// Why records cannot be a server's people.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// A name that no user can have.
    #[error("{person:?} cannot be a user")]
    Name {
        /// The name in the file.
        person: String,
        /// Why.
        #[source]
        source: IdError,
    },
    /// More examples than are kept of one person.
    #[error("{user_id} has more than {MAX_EXAMPLES} examples")]
    TooMany {
        /// Who.
        user_id: UserId,
    },
}

/// Why states cannot be derived.
#[derive(Debug, thiserror::Error)]
pub enum StatesError {
    /// An example cannot be embedded.
    #[error("an example cannot be embedded")]
    Corpus(#[source] CorpusError),
    /// The backbone is overloaded, or broken.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    /// The head refuses them.
    #[error("the head refused {user_id}'s examples")]
    Head {
        /// Whose.
        user_id: UserId,
        /// Why.
        #[source]
        source: HeadError,
    },
    /// The server is on its way out.
    #[error("the server stops")]
    Stopped,
}

/// One model's states of everybody, by user.
pub type States = BTreeMap<UserId, UserState>;

/// Somebody.
#[derive(Debug, Default)]
struct Known {
    attributes: Attributes,
    /// Positions of the person's records.
    examples: Vec<usize>,
}

/// Everybody with attributes or examples.
#[derive(Debug, Default)]
pub struct People {
    by_id: BTreeMap<UserId, Known>,
    records: Arc<[ComparisonRecord]>,
    states: Mutex<HashMap<ModelRef, Arc<OnceCell<Arc<States>>>>>,
}

impl People {
    /// The people of a data file; records of the split `query` are tests, not examples, and are left out. Where records of
    /// one person differ in an attribute, the last one stands.
    ///
    /// # Errors
    /// A name that no user can have, or too many examples of one person.
    pub fn of(records: Vec<ComparisonRecord>) -> Result<Self, PeopleError> {
        let records: Arc<[ComparisonRecord]> =
            records.into_iter().filter(|record| record.split != Some(Split::Query)).collect();
        let mut by_id: BTreeMap<UserId, Known> = BTreeMap::new();
        for (at, record) in records.iter().enumerate() {
            let person = record.user_id.as_str();
            let user_id: UserId =
                person.parse().map_err(|source| PeopleError::Name { person: person.to_owned(), source })?;
            let known = by_id.entry(user_id.clone()).or_default();
            known.attributes.extend(record.attributes.clone());
            known.examples.push(at);
            if known.examples.len() > MAX_EXAMPLES {
                return Err(PeopleError::TooMany { user_id });
            }
        }
        Ok(Self { by_id, records, states: Mutex::default() })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Everybody who has all of these attributes, in the order of their ids.
    pub fn group<'a>(&'a self, attributes: &'a Attributes) -> impl Iterator<Item = &'a UserId> {
        self.by_id
            .iter()
            .filter(|(_, known)| {
                attributes.iter().all(|(key, value)| known.attributes.get(key) == Some(value))
            })
            .map(|(user_id, _)| user_id)
    }

    /// Derives the states of every model ahead of the first request, and forgets those of models that are gone.
    ///
    /// # Errors
    /// The first model whose states cannot be derived.
    pub async fn prepare(&self, registered: &Registered, backbone: &Backbone) -> Result<(), StatesError> {
        self.forget_others(registered);
        for model in registered.models() {
            self.states(model, backbone).await?;
        }
        Ok(())
    }

    fn forget_others(&self, registered: &Registered) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.retain(|reference, _| registered.models().any(|model| model.reference == *reference));
    }

    /// What a model believes of everybody.
    ///
    /// # Errors
    /// Examples that cannot be embedded, or that the head refuses. The next request tries again.
    pub async fn states(&self, model: &Arc<Model>, backbone: &Backbone) -> Result<Arc<States>, StatesError> {
        let cell = {
            let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(states.entry(model.reference.clone()).or_default())
        };
        let derived = cell.get_or_try_init(|| async {
            let (model, backbone, records) = (Arc::clone(model), backbone.clone(), Arc::clone(&self.records));
            let people: Vec<(UserId, Vec<usize>)> =
                self.by_id.iter().map(|(user_id, known)| (user_id.clone(), known.examples.clone())).collect();
            let derived =
                tokio::task::spawn_blocking(move || derive(&model, &backbone, &records, people)).await;
            match derived {
                Ok(states) => states.map(Arc::new),
                Err(stopped) => match stopped.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => Err(StatesError::Stopped),
                },
            }
        });
        derived.await.cloned()
    }
}

impl From<CorpusError> for StatesError {
    fn from(error: CorpusError) -> Self {
        match error {
            CorpusError::Backbone(error) => Self::Backbone(error),
            text @ CorpusError::Text { .. } => Self::Corpus(text),
        }
    }
}

/// The states of people, each from their own records alone.
fn derive(
    model: &Model,
    backbone: &Backbone,
    records: &[ComparisonRecord],
    people: Vec<(UserId, Vec<usize>)>,
) -> Result<States, StatesError> {
    let head = model.head.as_ref();
    if records.is_empty() || !head.is_personal() {
        let state = |examples: &[usize]| head.population().clone().with_examples(examples.len());
        return Ok(people.into_iter().map(|(user_id, examples)| (user_id, state(&examples))).collect());
    }
    let corpus = embed_corpus(backbone, records, head.text_forms(), &mut |_, _| ())?;
    let mut states = States::new();
    for (user_id, examples) in people {
        let refused = |source| StatesError::Head { user_id: user_id.clone(), source };
        let sides = |items: Vec<usize>| -> Result<Array2<f32>, StatesError> {
            corpus.items.features(head, &items).map_err(refused)
        };
        let chosen = sides(examples.iter().map(|at| corpus.comparisons[*at].chosen).collect())?;
        let rejected = sides(examples.iter().map(|at| corpus.comparisons[*at].rejected).collect())?;
        let observations: Vec<Observation<'_>> = examples
            .iter()
            .enumerate()
            .map(|(row, at)| Observation {
                chosen: chosen.row(row),
                rejected: rejected.row(row),
                names: corpus.items.names_of(&corpus.comparisons[*at]),
                strength: corpus.comparisons[*at].strength,
                label_confidence: corpus.comparisons[*at].label_confidence,
            })
            .collect();
        let state = head.adapt(&observations, None).map_err(refused)?;
        states.insert(user_id, state);
    }
    Ok(states)
}

#[cfg(test)]
mod tests {
    use polyreward_domain::{Comparison, LabelConfidence, Prompt, Strength};

    use super::*;

    fn record(user_id: &str, country: &str, split: Option<Split>) -> ComparisonRecord {
        ComparisonRecord {
            user_id: user_id.parse().unwrap(),
            attributes: Attributes::from([("country".to_owned(), country.to_owned())]),
            comparison: Comparison {
                prompt: Prompt::Text("Name a fish.".into()),
                chosen: "A trout.".into(),
                rejected: "No.".into(),
                strength: Strength::default(),
                label_confidence: LabelConfidence::default(),
                rationale: None,
            },
            id: None,
            created_at: None,
            split,
            tags: Vec::new(),
        }
    }

    #[test]
    fn groups_are_of_people_who_have_every_attribute() {
        let people = People::of(vec![
            record("ada", "UK", None),
            record("bob", "US", Some(Split::Context)),
            record("ada", "FR", None),
            record("cid", "FR", Some(Split::Query)),
        ])
        .unwrap();
        let group = |country: &str| -> Vec<String> {
            let attributes = Attributes::from([("country".to_owned(), country.to_owned())]);
            people.group(&attributes).map(ToString::to_string).collect()
        };
        assert_eq!(people.len(), 2);
        assert_eq!((group("FR"), group("US")), (vec!["ada".to_owned()], vec!["bob".to_owned()]));
        assert!(group("UK").is_empty());
        assert_eq!(people.group(&Attributes::new()).count(), 2);
    }

    #[test]
    fn names_that_no_user_can_have_and_crowds_of_examples_are_refused() {
        assert!(matches!(People::of(vec![record("a b", "UK", None)]), Err(PeopleError::Name { .. })));
        let many = vec![record("ada", "UK", None); MAX_EXAMPLES + 1];
        assert!(matches!(People::of(many), Err(PeopleError::TooMany { .. })));
    }
}
