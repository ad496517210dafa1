//! Comparisons as indices into embedded texts, and which of them are held out.

use polyreward_heads::{ItemComparison, Items, Person};
use sha2::{Digest, Sha256};

use crate::error::TrainingError;

/// People and the items they compared.
#[derive(Debug, Clone)]
pub struct TrainingData {
    /// The texts.
    pub items: Items,
    /// The people.
    pub people: Vec<Person>,
}

impl TrainingData {
    /// Number of comparisons.
    pub fn comparisons(&self) -> usize {
        self.people.iter().map(|person| person.comparisons.len()).sum()
    }
}

/// Which people and comparisons are kept out of training; a function of the data and the seed alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldOut {
    /// Trained people, by position.
    pub training: Vec<usize>,
    /// People held out to stop, choose and calibrate by.
    pub validation: Vec<usize>,
    /// For each trained person (same order), the comparisons kept out.
    pub held_out: Vec<Vec<usize>>,
}

/// Share of people held out for validation.
const VALIDATION_SHARE: f64 = 0.15;
/// Share of a trained person's comparisons kept out, for people with enough of them.
const HELD_OUT_SHARE: f64 = 0.1;
/// Below this many comparisons a trained person keeps them all.
const HELD_OUT_FROM: usize = 5;

impl HoldOut {
    /// Chooses by hash of the seed and the user id, so that adding a person moves nobody else's comparisons.
    ///
    /// # Errors
    /// [`TrainingError::Data`] when there are too few people or comparisons to hold any out.
    pub fn choose(people: &[Person], seed: u64) -> Result<Self, TrainingError> {
        let usable: Vec<usize> =
            (0..people.len()).filter(|person| !people[*person].comparisons.is_empty()).collect();
        let comparisons: usize = people.iter().map(|person| person.comparisons.len()).sum();
        if comparisons == 0 {
            return Err(TrainingError::Data("there is no comparison in the training split".into()));
        }
        if usable.len() < 2 {
            return Err(TrainingError::Data(
                "there is one person; at least two are needed, as one is held out to stop by".into(),
            ));
        }
        if people.iter().flat_map(|person| &person.comparisons).all(|c| c.chosen == c.rejected) {
            return Err(TrainingError::Data("every comparison is a tie".into()));
        }
        let mut order = usable;
        order.sort_by_key(|person| (keyed_hash(seed, people[*person].user_id.as_str(), 0), *person));
        let held = ((order.len() as f64 * VALIDATION_SHARE).round() as usize).clamp(1, order.len() - 1);
        let mut validation = order[..held].to_vec();
        let mut training = order[held..].to_vec();
        validation.sort_unstable();
        training.sort_unstable();
        let held_out = training.iter().map(|person| held_out_of(&people[*person], seed)).collect();
        Ok(Self { training, validation, held_out })
    }

    /// The comparisons trained on, as (person, comparison).
    pub fn training_rows<'a>(&self, people: &'a [Person]) -> Vec<(usize, &'a ItemComparison)> {
        self.rows(people, false)
    }

    /// The comparisons of trained people that are kept out.
    pub fn held_out_rows<'a>(&self, people: &'a [Person]) -> Vec<(usize, &'a ItemComparison)> {
        self.rows(people, true)
    }

    fn rows<'a>(&self, people: &'a [Person], held_out: bool) -> Vec<(usize, &'a ItemComparison)> {
        let mut rows = Vec::new();
        for (person, kept_out) in self.training.iter().zip(&self.held_out) {
            for (at, comparison) in people[*person].comparisons.iter().enumerate() {
                if kept_out.contains(&at) == held_out {
                    rows.push((*person, comparison));
                }
            }
        }
        rows
    }
}

fn held_out_of(person: &Person, seed: u64) -> Vec<usize> {
    let count = person.comparisons.len();
    if count < HELD_OUT_FROM {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|at| keyed_hash(seed, person.user_id.as_str(), *at as u64 + 1));
    let mut held = order[..((count as f64 * HELD_OUT_SHARE).round() as usize).max(1)].to_vec();
    held.sort_unstable();
    held
}

pub(crate) fn keyed_hash(seed: u64, user: &str, salt: u64) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update(seed.to_le_bytes());
    hasher.update(salt.to_le_bytes());
    hasher.update(user.as_bytes());
    let digest = hasher.finalize();
    u64::from_le_bytes(digest[..8].try_into().expect("a SHA-256 digest has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use polyreward_domain::Attributes;

    use super::*;

    fn people(count: usize, comparisons: usize) -> Vec<Person> {
        (0..count)
            .map(|at| Person {
                user_id: format!("p{at}").parse().unwrap(),
                attributes: Attributes::new(),
                comparisons: vec![
                    ItemComparison {
                        chosen: 0,
                        rejected: 1,
                        strength: 1.0,
                        label_confidence: 1.0
                    };
                    comparisons
                ],
            })
            .collect()
    }

    #[test]
    fn nobody_is_both_trained_on_and_held_out() {
        let people = people(100, 20);
        let hold_out = HoldOut::choose(&people, 7).unwrap();
        assert_eq!(hold_out.validation.len(), 15);
        assert_eq!(hold_out.training.len(), 85);
        assert!(hold_out.training.iter().all(|person| !hold_out.validation.contains(person)));
        assert_eq!(hold_out.held_out_rows(&people).len(), 170);
        assert_eq!(hold_out.training_rows(&people).len(), 85 * 18);
        assert_eq!(hold_out, HoldOut::choose(&people, 7).unwrap());
        assert_ne!(hold_out, HoldOut::choose(&people, 8).unwrap());
    }

    #[test]
    fn data_that_cannot_be_learned_from_says_why() {
        let refused = |people: &[Person]| HoldOut::choose(people, 0).unwrap_err().to_string();
        assert!(refused(&[]).contains("no comparison"));
        assert!(refused(&people(3, 0)).contains("no comparison"));
        assert!(refused(&people(1, 9)).contains("one person"));
        let mut ties = people(3, 4);
        ties.iter_mut().flat_map(|person| &mut person.comparisons).for_each(|c| c.rejected = c.chosen);
        assert!(refused(&ties).contains("tie"));
    }
}
