//! Comparisons as indices into embedded texts, and which of them are held out.

use std::collections::BTreeMap;

use polyreward_domain::PersonId;
use polyreward_heads::{ItemComparison, Items, Person};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::TrainingError;

/// People and the items they compared.
#[derive(Debug, Clone)]
pub struct TrainingData {
    /// The texts.
    pub items: Items,
    /// The people.
    pub people: Vec<Person>,
    /// What was left out of it, so that nobody's many comparisons make it theirs.
    pub capped: CappedPeople,
}

/// What a cap on one person's comparisons left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct CappedPeople {
    /// Comparisons that a person may bring; none if there is no cap.
    pub at_most: Option<usize>,
    /// People who brought more.
    pub people: usize,
    /// Comparisons of theirs that were left out.
    pub left_out: usize,
}

/// Which of a person's comparisons to keep, by place among them, sorted, where no more than `cap` may be; none if all are
/// kept. A function of the seed, the person and the number alone: nobody's choice hangs on anybody else's data.
pub fn comparisons_kept(seed: u64, user_id: &PersonId, count: usize, cap: usize) -> Option<Vec<u32>> {
    if count <= cap {
        return None;
    }
    let key = |at: &u32| (keyed_hash(seed, user_id.as_str().as_bytes(), (1 << 41) + u64::from(*at)), *at);
    let mut order: Vec<u32> = (0..count as u32).collect();
    order.sort_by_cached_key(key);
    order.truncate(cap);
    order.sort_unstable();
    order.shrink_to_fit();
    Some(order)
}

impl TrainingData {
    /// Number of comparisons.
    pub fn comparisons(&self) -> usize {
        self.people.iter().map(|person| person.comparisons.len()).sum()
    }
}

/// Which people and texts are kept out of training; a function of the data and the seed alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldOut {
    /// Trained people, by position.
    pub training: Vec<usize>,
    /// People held out to stop, choose and calibrate by.
    pub validation: Vec<usize>,
    /// Items that no trained comparison touches, sorted; none if the data have too few texts to spare any.
    pub items: Vec<usize>,
    /// For each trained person (same order), the comparisons kept out, sorted: those that touch such an item or, if there
    /// is none, some at random.
    pub held_out: Vec<Vec<usize>>,
}

/// Share of people held out for validation.
const VALIDATION_SHARE: f64 = 0.15;
/// People held out for validation at most: more would say hardly more, and every check asks each of them.
const LARGEST_VALIDATION: usize = 2000;
/// Share of the trained people's comparisons kept out at random, where no text can be spared.
const HELD_OUT_SHARE: f64 = 0.1;
/// Share of the trained people's comparisons that held-out texts may take from training: where everybody compares the same
/// texts, a model that has not met one of them is worse for all who do.
const HELD_OUT_TEXTS_SHARE: f64 = 0.05;
/// Texts that hang together are held out together if no such set has more than this share of all comparisons.
const LARGEST_SET_SHARE: f64 = 0.03;
/// A single text that stands in more than this share of all comparisons is never held out.
const LARGEST_TEXT_SHARE: f64 = 0.02;
/// Below this many comparisons a trained person keeps them all, where they are held out at random.
const HELD_OUT_FROM: usize = 5;

impl HoldOut {
    /// Chooses people by a hash of the seed and the user id, and texts by one of the seed and [`Items::names`]. Texts that
    /// are compared with one another, as the responses to one prompt are, are held out together where that is possible.
    ///
    /// # Errors
    /// [`TrainingError::Data`] when there are too few people or comparisons to hold any out.
    pub fn choose(people: &[Person], names: &[u64], seed: u64) -> Result<Self, TrainingError> {
        let usable: Vec<usize> =
            (0..people.len()).filter(|person| !people[*person].comparisons.is_empty()).collect();
        if usable.is_empty() {
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
        order.sort_by_cached_key(|person| {
            (keyed_hash(seed, people[*person].user_id.as_str().as_bytes(), 0), *person)
        });
        let held = ((order.len() as f64 * VALIDATION_SHARE).round() as usize).clamp(1, order.len() - 1);
        let held = held.min(LARGEST_VALIDATION);
        let mut validation = order[..held].to_vec();
        let mut training = order[held..].to_vec();
        validation.sort_unstable();
        training.sort_unstable();
        let items = hold_out_items(people, &training, names, seed);
        let held_out = training
            .iter()
            .map(|person| {
                if items.is_empty() {
                    return at_random(&people[*person], seed);
                }
                let rows = people[*person].comparisons.iter().enumerate();
                rows.filter(|(_, row)| touches(&items, row)).map(|(at, _)| at).collect()
            })
            .collect();
        Ok(Self { training, validation, items, held_out })
    }

    /// The comparisons trained on, as (person, comparison).
    pub fn training_rows<'a>(&self, people: &'a [Person]) -> Vec<(usize, &'a ItemComparison)> {
        self.rows(people, false)
    }

    /// The comparisons of trained people that are kept out.
    pub fn held_out_rows<'a>(&self, people: &'a [Person]) -> Vec<(usize, &'a ItemComparison)> {
        self.rows(people, true)
    }

    /// Whether a comparison touches an item that was kept out.
    pub fn is_of_held_out_items(&self, comparison: &ItemComparison) -> bool {
        touches(&self.items, comparison)
    }

    fn rows<'a>(&self, people: &'a [Person], held_out: bool) -> Vec<(usize, &'a ItemComparison)> {
        let mut rows = Vec::new();
        for (person, kept_out) in self.training.iter().zip(&self.held_out) {
            for (at, comparison) in people[*person].comparisons.iter().enumerate() {
                if kept_out.binary_search(&at).is_ok() == held_out {
                    rows.push((*person, comparison));
                }
            }
        }
        rows
    }
}

fn touches(items: &[usize], row: &ItemComparison) -> bool {
    items.binary_search(&row.chosen).is_ok() || items.binary_search(&row.rejected).is_ok()
}

/// Items for the trained people's comparisons to keep away from: whole sets of texts that are compared with one another, if
/// all such sets are small; else single texts.
fn hold_out_items(people: &[Person], training: &[usize], names: &[u64], seed: u64) -> Vec<usize> {
    let rows: Vec<&ItemComparison> =
        training.iter().flat_map(|person| &people[*person].comparisons).collect();
    let rows_of = |share: f64| (rows.len() as f64 * share) as usize;
    let mut largest = rows_of(LARGEST_SET_SHARE);
    let mut connected = Connected::new(names.len());
    for row in &rows {
        connected.join(row.chosen, row.rejected);
    }
    let mut sets: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    let mut used: Vec<usize> = rows.iter().flat_map(|row| [row.chosen, row.rejected]).collect();
    used.sort_unstable();
    used.dedup();
    for item in used {
        sets.entry(connected.root(item)).or_default().push(item);
    }
    for row in &rows {
        *counts.entry(connected.root(row.chosen)).or_default() += 1;
    }
    if counts.values().any(|count| *count > largest) {
        largest = rows_of(LARGEST_TEXT_SHARE);
        counts.clear();
        for item in rows.iter().flat_map(|row| [row.chosen, row.rejected]) {
            *counts.entry(item).or_default() += 1;
        }
        sets = counts.keys().map(|item| (*item, vec![*item])).collect();
    }
    let mut order: Vec<(u64, Vec<usize>)> = sets
        .into_iter()
        .filter(|(root, _)| counts[root] <= largest)
        .map(|(_, items)| {
            let name = items.iter().map(|item| names[*item]).min().expect("a set has an item");
            (keyed_hash(seed, &name.to_le_bytes(), 1 << 40), items)
        })
        .collect();
    order.sort_unstable();
    let enough = rows_of(HELD_OUT_TEXTS_SHARE);
    let mut rows_of: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, row) in rows.iter().enumerate() {
        for item in [row.chosen, row.rejected] {
            rows_of.entry(item).or_default().push(at);
        }
    }
    let (mut items, mut touched) = (Vec::new(), vec![false; rows.len()]);
    let mut count = 0;
    for (_, set) in order {
        for row in set.iter().flat_map(|item| &rows_of[item]) {
            count += usize::from(!std::mem::replace(&mut touched[*row], true));
        }
        if count > enough {
            break;
        }
        items.extend(set);
    }
    items.sort_unstable();
    items
}

/// Which items hang together (a forest of disjoint sets, the least item their root).
struct Connected(Vec<usize>);

impl Connected {
    fn new(items: usize) -> Self {
        Self((0..items).collect())
    }

    fn root(&mut self, item: usize) -> usize {
        let mut at = item;
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}

/// Some of a person's comparisons, where no text can be spared.
fn at_random(person: &Person, seed: u64) -> Vec<usize> {
    let count = person.comparisons.len();
    if count < HELD_OUT_FROM {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_cached_key(|at| keyed_hash(seed, person.user_id.as_str().as_bytes(), *at as u64 + 1));
    let mut held = order[..((count as f64 * HELD_OUT_SHARE).round() as usize).max(1)].to_vec();
    held.sort_unstable();
    held
}

pub(crate) fn keyed_hash(seed: u64, name: &[u8], salt: u64) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update(seed.to_le_bytes());
    hasher.update(salt.to_le_bytes());
    hasher.update(name);
    let digest = hasher.finalize();
    u64::from_le_bytes(digest[..8].try_into().expect("a SHA-256 digest has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use polyreward_domain::Attributes;

    use super::*;

    /// Of the two items that [`people`] compare.
    const NAMES: [u64; 2] = [11, 12];

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
        let hold_out = HoldOut::choose(&people, &NAMES, 7).unwrap();
        assert_eq!(hold_out.validation.len(), 15);
        assert_eq!(hold_out.training.len(), 85);
        assert!(hold_out.training.iter().all(|person| !hold_out.validation.contains(person)));
        // Two texts, in every comparison: none can be spared.
        assert!(hold_out.items.is_empty());
        assert_eq!(hold_out.held_out_rows(&people).len(), 170);
        assert_eq!(hold_out.training_rows(&people).len(), 85 * 18);
        assert_eq!(hold_out, HoldOut::choose(&people, &NAMES, 7).unwrap());
        assert_ne!(hold_out, HoldOut::choose(&people, &NAMES, 8).unwrap());
    }

    /// People who each compare ten random texts of `items`, both of the same set of `together`.
    fn readers(items: usize, together: usize) -> (Vec<Person>, Vec<u64>) {
        let mut people = people(80, 10);
        for (at, row) in people.iter_mut().flat_map(|person| &mut person.comparisons).enumerate() {
            let first = keyed_hash(0, &at.to_le_bytes(), 0) as usize % items;
            let set = first / together * together;
            let second = set + (first - set + 1 + at % (together - 1)) % together;
            (row.chosen, row.rejected) = (first, second);
        }
        (people, (0..items as u64).map(|item| item * 977).collect())
    }

    #[test]
    fn texts_are_held_out_and_nothing_that_touches_them_is_trained_on() {
        // 120 prompts of 4 responses, then 480 texts that are all compared with one another.
        for (together, whole) in [(4, true), (480, false)] {
            let (people, names) = readers(480, together);
            let hold_out = HoldOut::choose(&people, &names, 3).unwrap();
            assert!(!hold_out.items.is_empty());
            let touched = |row: &ItemComparison| hold_out.is_of_held_out_items(row);
            assert!(hold_out.training_rows(&people).iter().all(|(_, row)| !touched(row)));
            let kept_out = hold_out.held_out_rows(&people);
            assert!(kept_out.iter().all(|(_, row)| touched(row)));
            let share = kept_out.len() as f64 / (hold_out.training.len() * 10) as f64;
            assert!((0.02..=0.05).contains(&share), "{share}");
            if whole {
                let both = |row: &ItemComparison| {
                    [row.chosen, row.rejected].iter().all(|item| hold_out.items.contains(item))
                };
                assert!(kept_out.iter().all(|(_, row)| both(row)), "half a prompt is held out");
            }
        }
    }

    #[test]
    fn a_text_is_held_out_wherever_it_stands_among_the_items() {
        let (people, names) = readers(240, 4);
        let held = |people: &[Person], names: &[u64]| -> Vec<u64> {
            let hold_out = HoldOut::choose(people, names, 3).unwrap();
            let mut held: Vec<u64> = hold_out.items.iter().map(|item| names[*item]).collect();
            held.sort_unstable();
            held
        };
        let mut moved = people.clone();
        for row in moved.iter_mut().flat_map(|person| &mut person.comparisons) {
            (row.chosen, row.rejected) = (239 - row.chosen, 239 - row.rejected);
        }
        let reversed: Vec<u64> = names.iter().rev().copied().collect();
        assert_eq!(held(&people, &names), held(&moved, &reversed));
    }

    #[test]
    fn of_many_people_no_more_are_held_out_than_say_something() {
        let hold_out = HoldOut::choose(&people(20_000, 1), &NAMES, 0).unwrap();
        assert_eq!(hold_out.validation.len(), LARGEST_VALIDATION);
        assert_eq!(hold_out.training.len(), 20_000 - LARGEST_VALIDATION);
    }

    #[test]
    fn of_one_person_no_more_comparisons_are_kept_than_the_cap() {
        let ada: PersonId = "ada".parse().unwrap();
        assert_eq!(comparisons_kept(3, &ada, 50, 50), None);
        let kept = comparisons_kept(3, &ada, 500, 50).unwrap();
        assert!(kept.len() == 50 && kept.is_sorted() && *kept.last().unwrap() < 500);
        assert!(kept.windows(2).all(|pair| pair[0] < pair[1]), "one is kept twice");
        assert_eq!(comparisons_kept(3, &ada, 500, 50).unwrap(), kept);
        assert_ne!(comparisons_kept(4, &ada, 500, 50).unwrap(), kept);
        assert_ne!(comparisons_kept(3, &"bob".parse().unwrap(), 500, 50).unwrap(), kept);
        // Neither the first nor the last: half of them are of the second half, give or take four deviations.
        let late = kept.iter().filter(|at| **at >= 250).count();
        assert!((11..=39).contains(&late), "{late}");
    }

    #[test]
    fn data_that_cannot_be_learned_from_says_why() {
        let refused = |people: &[Person]| HoldOut::choose(people, &NAMES, 0).unwrap_err().to_string();
        assert!(refused(&[]).contains("no comparison"));
        assert!(refused(&people(3, 0)).contains("no comparison"));
        assert!(refused(&people(1, 9)).contains("one person"));
        let mut ties = people(3, 4);
        ties.iter_mut().flat_map(|person| &mut person.comparisons).for_each(|c| c.rejected = c.chosen);
        assert!(refused(&ties).contains("tie"));
    }
}
