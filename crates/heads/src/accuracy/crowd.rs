//! Everybody who was predicted about, ordered by group.

use std::ops::Range;

use polyreward_domain::Tally;

use super::{
    Grouped,
    rows::{Row, row},
};

/// People ordered by group, those of groups that are not shown at the end.
#[derive(Debug)]
pub(super) struct Order {
    /// Positions of people in what was given.
    pub(super) people: Vec<usize>,
    /// Shown groups and where their people lie.
    pub(super) segments: Vec<(usize, Range<usize>)>,
}

impl Order {
    /// Of the people for whom `counts` holds, by the groups that are `shown`.
    pub(super) fn new(group_of: &[usize], shown: &[bool], counts: impl Fn(usize) -> bool) -> Self {
        let mut people: Vec<usize> = (0..group_of.len()).filter(|at| counts(*at)).collect();
        people.sort_by_key(|at| if shown[group_of[*at]] { group_of[*at] } else { usize::MAX });
        let mut segments: Vec<(usize, Range<usize>)> = Vec::new();
        for (at, person) in people.iter().enumerate() {
            let group = group_of[*person];
            match segments.last_mut() {
                _ if !shown[group] => break,
                Some((last, range)) if *last == group => range.end = at + 1,
                _ => segments.push((group, at..at + 1)),
            }
        }
        Self { people, segments }
    }

    /// Where each of these people stands in this order, in the order in which all `given` were.
    pub(super) fn places(&self, given: usize) -> Vec<u32> {
        let mut places: Vec<Option<u32>> = vec![None; given];
        for (place, person) in (0..).zip(&self.people) {
            places[*person] = Some(place);
        }
        places.into_iter().flatten().collect()
    }

    /// The people's rows in this order.
    pub(super) fn rows(&self, tallies: &[Tally], mean_share: f64) -> Vec<Row> {
        self.people.iter().map(|at| row(&tallies[*at], mean_share)).collect()
    }
}

/// Predictions about some people, added up.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    /// People with a prediction.
    pub(super) users: usize,
    /// Their predictions.
    pub(super) sums: Tally,
    /// Their accuracies, added up.
    pub(super) shares: f64,
    /// People with a prediction in each class of confidence.
    pub(super) class_users: [usize; polyreward_domain::CONFIDENCE_BINS],
}

impl Totals {
    /// Of these people; those without a prediction are nobody.
    pub(super) fn of<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> Self {
        let mut totals = Self::default();
        for tally in tallies {
            totals.add(tally);
        }
        totals
    }

    fn add(&mut self, tally: &Tally) {
        let n = tally.n();
        if n == 0 {
            return;
        }
        self.users += 1;
        self.shares += tally.correct() / n as f64;
        for ((sum, users), bin) in self.sums.bins.iter_mut().zip(&mut self.class_users).zip(&tally.bins) {
            sum.n += bin.n;
            sum.correct += bin.correct;
            sum.confidence += bin.confidence;
            *users += usize::from(bin.n > 0);
        }
        self.sums.log_loss += tally.log_loss;
        self.sums.population_correct += tally.population_correct;
        self.sums.baseline_n += tally.baseline_n;
        self.sums.baseline_correct += tally.baseline_correct;
    }

    /// Share of right predictions.
    pub(super) fn accuracy(&self) -> f64 {
        self.sums.correct() / self.sums.n() as f64
    }

    /// Mean over people of their accuracy.
    pub(super) fn user_accuracy(&self) -> f64 {
        self.shares / self.users as f64
    }
}

/// How many people with a prediction each group has.
pub(super) fn group_sizes(people: Grouped<'_>) -> Vec<usize> {
    let mut sizes = vec![0; people.groups];
    for (tally, group) in people.tallies.iter().zip(people.group_of) {
        sizes[*group] += usize::from(tally.n() > 0);
    }
    sizes
}

/// Which groups have enough people. A group of nobody is none, whatever the floor.
pub(super) fn shown(sizes: &[usize], min_users: usize) -> Vec<bool> {
    sizes.iter().map(|users| *users >= min_users.max(1)).collect()
}
