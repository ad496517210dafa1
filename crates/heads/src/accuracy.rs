//! For whom a reward is wrong: accuracy by group from one row per person.
//!
//! Comparisons of one person are not independent, so people are drawn, not comparisons (cluster bootstrap). All figures of
//! one answer come from the same draws of everybody: a group's share of them varies as it would if people were asked anew,
//! and a difference between groups has an interval of its own.

mod changes;
mod clustered;
mod crowd;
mod figures;
mod gap;
mod inversion;
mod rows;

pub use changes::changes;
pub use clustered::{difference_interval, share_interval};
use polyreward_domain::Tally;

use crate::{
    evaluation::{Bootstrap, Interval},
    resampling::{TOGETHER, draw},
};
use crowd::{Order, Totals, group_sizes, shown};
use figures::{STATISTICS, figures, write_statistics};
use gap::{Shown, gap};
use rows::{Drawn, add_each};

/// Groups whose statistics are kept at a time, so that thousands of groups take time and not memory.
const BATCH: usize = 256;

/// Whose predictions are measured, and in which groups.
#[derive(Debug, Clone, Copy)]
pub struct Grouped<'a> {
    /// One row per person.
    pub tallies: &'a [Tally],
    /// Each person's group, below `groups`.
    pub group_of: &'a [usize],
    /// How many groups there are.
    pub groups: usize,
    /// A group of fewer people is counted and not shown.
    pub min_users: usize,
}

/// How a model did on some people.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// People with at least one prediction.
    pub users: usize,
    /// Predictions.
    pub n: u64,
    /// Share of predictions that were right; an undecided one counts half.
    pub accuracy: f64,
    /// Its 95 % interval; none below two people.
    pub accuracy_ci: Option<Interval>,
    /// Mean over people of their own accuracy.
    pub user_accuracy: f64,
    /// Its 95 % interval.
    pub user_accuracy_ci: Option<Interval>,
    /// Mean negative log preference for what was chosen, in nats.
    pub log_loss: f64,
    /// Expected calibration error over both orientations of each pair: 10 equal bins, 5 below 500 predictions.
    pub ece: f64,
    /// Its 95 % interval. The error is never below zero and noise adds to it, so that percentiles of draws lie too high and never
    /// hold zero; this is made of the true errors for which the observed one is usual, and need not be centred on it
    /// (`docs/adr/0011-intervals-of-groups.md`).
    pub ece_ci: Option<Interval>,
    /// Accuracy of the population's reward on the same predictions.
    pub population_accuracy: f64,
    /// `accuracy - population_accuracy`: what it helped to know the person.
    pub gain: f64,
    /// Its 95 % interval, paired by person.
    pub gain_ci: Option<Interval>,
    /// Accuracy of the Bradley-Terry baseline, where its predictions of the same comparisons are known.
    pub bt_accuracy: Option<f64>,
    /// Accuracy by confidence.
    pub reliability: Vec<ReliabilityBin>,
}

/// Predictions of one class of confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReliabilityBin {
    /// Confidence above this, or exactly this where it is the whole class.
    pub from: f64,
    /// Confidence up to this.
    pub to: f64,
    /// Predictions.
    pub n: u64,
    /// Their mean confidence.
    pub confidence: f64,
    /// Their accuracy.
    pub accuracy: f64,
    /// Its 95 % interval over people.
    pub accuracy_ci: Option<Interval>,
}

/// How far the best group is from the worst.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gap {
    /// The group with the highest accuracy.
    pub best: usize,
    /// The group with the lowest.
    pub worst: usize,
    /// The difference of their accuracies.
    pub value: f64,
    /// The 95 % interval of the true gap, whichever groups it is between, made as that of the calibration error. It holds zero
    /// where groups that are level often show a gap as large, and reaches up to `value` at least, which noise makes too large.
    /// None where a shown group has one person.
    pub ci: Option<Interval>,
    /// How often a gap as large comes of shuffling people among groups; where this is not small, the groups are not shown
    /// to differ.
    pub p_value: f64,
}

/// Accuracy by group.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupedFigures {
    /// Everybody, those of groups that are not shown included.
    pub overall: Figures,
    /// By group; none where it has too few people.
    pub groups: Vec<Option<Figures>>,
    /// Groups that have somebody and too few people.
    pub suppressed: usize,
    /// None below two shown groups.
    pub gap: Option<Gap>,
}

/// A difference between two models, with its interval over the people of both.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// The later one's figure less the earlier one's.
    pub value: f64,
    /// Its 95 % interval.
    pub ci: Option<Interval>,
}

/// How the headline figures changed from one model to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Changes {
    /// Of the accuracy of everybody.
    pub accuracy: Change,
    /// Of the accuracy of the worst group, whichever it was.
    pub worst_group: Option<Change>,
    /// Of the gap.
    pub gap: Option<Change>,
    /// Of the calibration error of everybody.
    pub ece: Change,
}

/// Accuracy by group; none where there is no prediction.
///
/// # Panics
/// If a group is not below the number of groups, or people and groups are not as many.
pub fn by_group(people: Grouped<'_>, bootstrap: Bootstrap) -> Option<GroupedFigures> {
    assert_eq!(people.tallies.len(), people.group_of.len(), "a group for each person");
    let everybody = Totals::of(people.tallies);
    if everybody.users == 0 {
        return None;
    }
    let sizes = group_sizes(people);
    let shown = shown(&sizes, people.min_users);
    let order = Order::new(people.group_of, &shown, |at| people.tallies[at].n() > 0);
    let mean_share = everybody.user_accuracy();
    let rows = order.rows(people.tallies, mean_share);
    // The same people are drawn whatever the groups, so that the figures of everybody are the same, too.
    let places = order.places(people.tallies.len());
    let mut overall = None;
    let mut groups = vec![None; people.groups];
    let mut drawn_groups = Vec::with_capacity(order.segments.len());
    // There is one batch at least: everybody is drawn even where no group is shown.
    for batch in 0..order.segments.len().div_ceil(BATCH).max(1) {
        let first = batch * BATCH;
        let segments = &order.segments[first..order.segments.len().min(first + BATCH)];
        let width = (segments.len() + 1) * STATISTICS;
        let drawn = draw(&places, bootstrap, width, |draws, to| {
            let mut totals = [Drawn::default(); TOGETHER];
            let mut write = |at: usize, sums: &[Drawn]| {
                for (sums, to) in sums.iter().zip(to.chunks_exact_mut(width)) {
                    write_statistics(sums, &mut to[at * STATISTICS..][..STATISTICS]);
                }
            };
            for (at, (_, range)) in segments.iter().enumerate() {
                let sums = Drawn::of(&rows, draws, range.clone());
                add_each(&mut totals, &sums);
                write(at, &sums);
            }
            if batch == 0 {
                let end = segments.last().map_or(0, |(_, range)| range.end);
                add_each(&mut totals, &Drawn::of(&rows, draws, end..rows.len()));
                write(segments.len(), &totals);
            }
        });
        let statistics =
            |at: usize| drawn.chunks_exact(width).map(move |draw| &draw[at * STATISTICS..][..STATISTICS]);
        if batch == 0 {
            overall = Some(figures(&everybody, statistics(segments.len()), mean_share));
        }
        for (at, (group, range)) in segments.iter().enumerate() {
            let totals = Totals::of(order.people[range.clone()].iter().map(|at| &people.tallies[*at]));
            groups[*group] = Some(figures(&totals, statistics(at), mean_share));
            drawn_groups.push(Shown {
                group: *group,
                users: totals.users,
                accuracy: totals.accuracy(),
                drawn: statistics(at).map(|statistics| statistics[0] as f32).collect(),
            });
        }
    }
    Some(GroupedFigures {
        overall: overall.expect("the first batch draws everybody"),
        groups,
        suppressed: sizes.iter().zip(&shown).filter(|(users, shown)| **users > 0 && !**shown).count(),
        gap: gap(&drawn_groups, &order, people.tallies, bootstrap.seed),
    })
}

/// Sums over people of the products that the spread of a ratio between people needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RatioSums {
    /// People.
    pub users: u64,
    /// Sum of the denominators.
    pub n: f64,
    /// Sum of the numerators.
    pub x: f64,
    /// Sum over people of the denominator squared.
    pub n_n: f64,
    /// Sum over people of denominator times numerator.
    pub n_x: f64,
    /// Sum over people of the numerator squared.
    pub x_x: f64,
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
