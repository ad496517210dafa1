//! How far the best group is from the worst, and whether chance would do as much.

use super::{
    Gap,
    crowd::Order,
    inversion::{Limit, interval_of_norm},
};
use crate::{
    evaluation::Interval,
    resampling::{below, stream},
};
use polyreward_domain::Tally;

/// Times that people are shuffled among groups.
const PERMUTATIONS: u64 = 999;

/// Draws have the streams below this one.
const PERMUTATION_STREAM: u64 = 1 << 32;

/// A shown group: its number, people, accuracy, and accuracy in each draw (not a number where nobody of it was drawn).
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) group: usize,
    pub(super) users: usize,
    pub(super) accuracy: f64,
    pub(super) drawn: Vec<f32>,
}

/// The gap between shown groups; none below two.
pub(super) fn gap(shown: &[Shown], order: &Order, tallies: &[Tally], seed: u64) -> Option<Gap> {
    if shown.len() < 2 {
        return None;
    }
    // Of groups that are level, the first is named.
    let best = shown.iter().rev().max_by(|a, b| a.accuracy.total_cmp(&b.accuracy))?;
    let worst = shown.iter().min_by(|a, b| a.accuracy.total_cmp(&b.accuracy))?;
    let value = best.accuracy - worst.accuracy;
    Some(Gap {
        best: best.group,
        worst: worst.group,
        value,
        ci: interval(shown, value),
        p_value: p_value(order, tallies, value, seed),
    })
}

/// See [`interval_of_norm`]. A group's draws vary a little less than groups do, by `(m - 1) / m` for `m` people, and are
/// stretched by as much. A group of which nobody was drawn is left out of that draw. Where a group has but one person,
/// nothing says how it would vary: there is no interval.
fn interval(shown: &[Shown], value: f64) -> Option<Interval> {
    if shown.iter().any(|group| group.users < 2) {
        return None;
    }
    let accuracies: Vec<f64> = shown.iter().map(|group| group.accuracy).collect();
    let mut noise = vec![0.0_f32; shown[0].drawn.len() * shown.len()];
    let mut weights = Vec::with_capacity(shown.len());
    for (at, group) in shown.iter().enumerate() {
        let stretch = (group.users as f32 / (group.users - 1) as f32).sqrt();
        // Nothing divides by zero where people do not differ.
        let (mut squares, mut draws) = (1e-9, 1.0);
        for (draw, accuracy) in group.drawn.iter().enumerate() {
            let deviation = (accuracy - group.accuracy as f32) * stretch;
            noise[draw * shown.len() + at] = deviation;
            if !deviation.is_nan() {
                squares += f64::from(deviation * deviation);
                draws += 1.0;
            }
        }
        weights.push(draws / squares);
    }
    let [low, high] = interval_of_norm(value, |limit, size, out| {
        let centres = match limit {
            Limit::Lower => cut_off(size * value, &accuracies, &weights),
            Limit::Upper => accuracies.iter().map(|accuracy| size * accuracy).collect(),
        };
        let centres: Vec<f32> = centres.iter().map(|centre| *centre as f32).collect();
        out.extend(noise.chunks_exact(shown.len()).filter_map(|noise| {
            let range = range_of(centres.iter().zip(noise).map(|(centre, noise)| centre + noise));
            range.is_finite().then(|| f64::from(range))
        }));
    })?;
    Some([low, high.min(1.0)])
}

/// The accuracies nearest to these that lie within `range` of each other, by squares with these weights: these, cut off at
/// both ends.
///
/// Groups that are cut off are level with the best or the worst, as groups may be that only noise has put beyond the others.
/// Were all drawn together alike instead, fewer would be near the ends than may be, noise would raise the gap by too little,
/// and the lower limit of the gap would be too high.
pub(super) fn cut_off(range: f64, accuracies: &[f64], weights: &[f64]) -> Vec<f64> {
    let low = accuracies.iter().copied().fold(f64::INFINITY, f64::min);
    let high = accuracies.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (mut least, mut most) = (low, (high - range).max(low));
    for _ in 0..30 {
        let middle = f64::midpoint(least, most);
        let pull: f64 = accuracies
            .iter()
            .zip(weights)
            .map(|(accuracy, weight)| weight * (accuracy - accuracy.clamp(middle, middle + range)))
            .sum();
        if pull > 0.0 { least = middle } else { most = middle }
    }
    accuracies.iter().map(|accuracy| accuracy.clamp(least, least + range)).collect()
}

/// The highest less the lowest value; those that are not numbers are left out. Not finite where all are.
pub(super) fn range_of(values: impl Iterator<Item = f32>) -> f32 {
    let (low, high) = values.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| {
        (if value < low { value } else { low }, if value > high { value } else { high })
    });
    high - low
}

/// How often shuffling people among the groups makes a gap as large, `(1 + as large) / (1 + shuffles)`.
///
/// If groups do not differ, people are exchangeable.
fn p_value(order: &Order, tallies: &[Tally], value: f64, seed: u64) -> f64 {
    let mut group_of: Vec<u32> = Vec::new();
    for (at, (_, range)) in order.segments.iter().enumerate() {
        group_of.resize(range.end, at as u32);
    }
    let counts: Vec<[f32; 2]> = order.people[..group_of.len()]
        .iter()
        .map(|at| [tallies[*at].n() as f32, tallies[*at].correct() as f32])
        .collect();
    let mut rng = stream(seed, PERMUTATION_STREAM);
    let mut sums = vec![[0.0_f32; 2]; order.segments.len()];
    // Single precision counts exactly to 2^24, and rounds a gap by less than this.
    let as_large = value as f32 - 1e-6;
    let hits = (0..PERMUTATIONS)
        .filter(|_| {
            sums.fill([0.0; 2]);
            for at in (0..group_of.len()).rev() {
                group_of.swap(at, below(at + 1, &mut rng));
                let sum = &mut sums[group_of[at] as usize];
                sum[0] += counts[at][0];
                sum[1] += counts[at][1];
            }
            range_of(sums.iter().map(|[n, correct]| correct / n)) >= as_large
        })
        .count();
    (1 + hits) as f64 / (1 + PERMUTATIONS) as f64
}
