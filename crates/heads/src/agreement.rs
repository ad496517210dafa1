//! Whether people agree with each other: Krippendorff's alpha.
//!
//! `alpha = 1 - D_o / D_e`: the disagreement observed between people who judged the same, against that of labels dealt out
//! at random (pluralism specification section 14).

use std::ops::AddAssign;

use crate::{
    evaluation::{Bootstrap, Interval},
    resampling::{draw, in_order, percentiles},
};

/// Rows that are drawn, at most: more pairs than these are added up by as many consecutive ones as it takes.
const MAX_ROWS: usize = 4096;

/// How far two labels are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Alike or not.
    Nominal,
    /// By the labels in between.
    Ordinal,
    /// By the square of their difference.
    Interval,
}

/// Krippendorff's alpha of units, each the labels that people gave to it; none where nobody shares a unit with anybody, or
/// where all labels are alike.
pub fn alpha(units: &[Vec<f64>], level: Level) -> Option<f64> {
    let mut labels: Vec<f64> = units.iter().filter(|unit| unit.len() >= 2).flatten().copied().collect();
    let total = labels.len() as f64;
    labels.sort_by(f64::total_cmp);
    let runs: Vec<&[f64]> = labels.chunk_by(|a, b| a == b).collect();
    let values: Vec<f64> = runs.iter().map(|run| run[0]).collect();
    let counts: Vec<f64> = runs.iter().map(|run| run.len() as f64).collect();
    let apart = squared_distances(&values, &counts, level);
    let at = |label: f64| values.partition_point(|value| *value < label);
    let observed: f64 = units
        .iter()
        .filter(|unit| unit.len() >= 2)
        .map(|unit| {
            let pairs = unit.iter().flat_map(|a| unit.iter().map(|b| apart[at(*a)][at(*b)]));
            pairs.sum::<f64>() / (unit.len() - 1) as f64
        })
        .sum();
    let expected: f64 = (0..values.len())
        .flat_map(|a| (0..values.len()).map(move |b| (a, b)))
        .map(|(a, b)| counts[a] * counts[b] * apart[a][b])
        .sum();
    (expected > 0.0).then(|| 1.0 - (observed / total) / (expected / (total * (total - 1.0))))
}

/// The squared distance of each two of the `values`, which ascend and occur `counts` times.
fn squared_distances(values: &[f64], counts: &[f64], level: Level) -> Vec<Vec<f64>> {
    let distance = |a: usize, b: usize| match level {
        Level::Nominal => f64::from(u8::from(a != b)),
        Level::Interval => (values[a] - values[b]).powi(2),
        Level::Ordinal => {
            let (low, high) = (a.min(b), a.max(b));
            let between: f64 = counts[low..=high].iter().sum();
            if a == b { 0.0 } else { (between - f64::midpoint(counts[low], counts[high])).powi(2) }
        }
    };
    (0..values.len()).map(|a| (0..values.len()).map(|b| distance(a, b)).collect()).collect()
}

/// How many people of one group took each side of one pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Votes {
    /// Which pair: a number below the number of pairs, in ascending order.
    pub pair: usize,
    /// Which group.
    pub group: usize,
    /// People who took one side.
    pub first: u64,
    /// People who took the other.
    pub second: u64,
}

/// An alpha with its interval over pairs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alpha {
    /// 1 where all agree, 0 where they agree as often as chance has it, below where less.
    pub value: f64,
    /// Its 95 % interval, from draws of pairs.
    pub ci: Option<Interval>,
}

/// Agreement on pairs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// Pairs that at least two people judged.
    pub pairs: usize,
    /// Judgements of those.
    pub judgements: u64,
    /// Between all who judged the same pair; none where every label is alike.
    pub overall: Option<Alpha>,
    /// Between people of one group; none where none of them share a pair.
    pub within_groups: Option<Alpha>,
    /// Between people of different groups; none where none of them share a pair.
    pub between_groups: Option<Alpha>,
}

/// Agreement on pairs, overall, within groups and between them; none where nobody judged the same pair as another.
///
/// The disagreement expected is everybody's in all three, so that `within_groups` far above `overall` says that groups
/// disagree with each other, and are not noisy (pluralism specification section 14). Observed disagreement of a subset of
/// the pairs of people in a unit weighs each unit as the whole does, by `1 / (m - 1)`.
///
/// Intervals come from draws of pairs. More than 4096 pairs are added up by consecutive ones first, which leaves the variance
/// of every sum as it is, known to 1 part in 45, as long as the order of the pairs says nothing about them.
pub fn agreement(votes: &[Votes], bootstrap: Bootstrap) -> Option<Agreement> {
    let units: Vec<Sums> = votes.chunk_by(|a, b| a.pair == b.pair).filter_map(Sums::of_unit).collect();
    if units.is_empty() {
        return None;
    }
    let mut total = Sums::default();
    for unit in &units {
        total += *unit;
    }
    let rows = added_up(&units);
    let drawn = draw(&in_order(rows.len()), bootstrap, KINDS, |draws, to| {
        for (counts, to) in draws.iter().zip(to.chunks_exact_mut(KINDS)) {
            let mut sums = Sums::default();
            for (row, count) in rows.iter().zip(counts) {
                sums.add_times(row, f64::from(*count));
            }
            to.copy_from_slice(&sums.alphas());
        }
    });
    let values = total.alphas();
    let alpha = |kind: usize| {
        let draws = drawn.iter().skip(kind).step_by(KINDS).copied();
        let ci = if units.len() >= 2 { percentiles(&mut draws.collect()) } else { None };
        (!values[kind].is_nan()).then_some(Alpha { value: values[kind], ci })
    };
    Some(Agreement {
        pairs: units.len(),
        judgements: total.0[JUDGEMENTS] as u64,
        overall: alpha(0),
        within_groups: alpha(1),
        between_groups: alpha(2),
    })
}

/// Overall, within groups, between groups.
const KINDS: usize = 3;

const JUDGEMENTS: usize = 0;
const FIRST: usize = 1;
const DISAGREE: usize = 2;
const WITHIN: usize = 3;
const WITHIN_DISAGREE: usize = 4;

/// Sums over units that all three alphas are made of. Ordered pairs of people in a unit of `m` weigh `1 / (m - 1)`: together
/// `m`, the judgements.
#[derive(Debug, Clone, Copy, Default)]
struct Sums([f64; 5]);

impl Sums {
    /// Of one unit, its votes by group; none where fewer than two people judged it.
    fn of_unit(votes: &[Votes]) -> Option<Self> {
        let first: u64 = votes.iter().map(|votes| votes.first).sum();
        let second: u64 = votes.iter().map(|votes| votes.second).sum();
        let people = first + second;
        if people < 2 {
            return None;
        }
        let weight = 1.0 / (people - 1) as f64;
        let (mut within, mut within_disagree) = (0.0, 0.0);
        // A group that stands in two rows is one group.
        let mut by_group: Vec<Votes> = votes.to_vec();
        by_group.sort_by_key(|votes| votes.group);
        for rows in by_group.chunk_by(|a, b| a.group == b.group) {
            let first = rows.iter().map(|votes| votes.first).sum::<u64>() as f64;
            let second = rows.iter().map(|votes| votes.second).sum::<u64>() as f64;
            within += (first + second) * (first + second - 1.0);
            within_disagree += 2.0 * first * second;
        }
        let disagree = 2.0 * first as f64 * second as f64;
        Some(Self([
            people as f64,
            first as f64,
            disagree * weight,
            within * weight,
            within_disagree * weight,
        ]))
    }

    fn add_times(&mut self, other: &Self, times: f64) {
        for (sum, value) in self.0.iter_mut().zip(other.0) {
            *sum += times * value;
        }
    }

    /// `1 - D_o / D_e` of each kind; not a number where it is not defined.
    fn alphas(&self) -> [f64; KINDS] {
        let Self(sums) = self;
        let people = sums[JUDGEMENTS];
        let expected = 2.0 * sums[FIRST] * (people - sums[FIRST]) / (people * (people - 1.0));
        let alpha = |disagree: f64, weight: f64| {
            // Pairs of people are whole numbers, over as much as a unit has people: what is left of rounding is no pair.
            if expected > 0.0 && weight > 1e-9 * people {
                1.0 - disagree / weight / expected
            } else {
                f64::NAN
            }
        };
        [
            alpha(sums[DISAGREE], people),
            alpha(sums[WITHIN_DISAGREE], sums[WITHIN]),
            alpha(sums[DISAGREE] - sums[WITHIN_DISAGREE], people - sums[WITHIN]),
        ]
    }
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.add_times(&other, 1.0);
    }
}

/// At most [`MAX_ROWS`] rows of as many consecutive units each, give or take one.
fn added_up(units: &[Sums]) -> Vec<Sums> {
    let rows = units.len().min(MAX_ROWS);
    (0..rows)
        .map(|row| {
            let mut sums = Sums::default();
            for unit in &units[row * units.len() / rows..(row + 1) * units.len() / rows] {
                sums += *unit;
            }
            sums
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::RngExt;

    use super::*;
    use crate::resampling::stream;

    const NONE: f64 = f64::NAN;

    /// Units of raters' rows; missing labels are not numbers.
    fn units<const N: usize>(raters: &[[f64; N]]) -> Vec<Vec<f64>> {
        (0..N)
            .map(|unit| raters.iter().map(|row| row[unit]).filter(|label| !label.is_nan()).collect())
            .collect()
    }

    #[test]
    fn alpha_agrees_with_golden_g14() {
        // Pluralism specification G14; tolerance is its last digit.
        let units = units(&[
            [1., 2., 3., 3., 2., 1., 4., 1., 2., NONE, NONE, NONE],
            [1., 2., 3., 3., 2., 2., 4., 1., 2., 5., NONE, 3.],
            [NONE, 3., 3., 3., 2., 3., 4., 2., 2., 5., 1., NONE],
            [1., 2., 3., 3., 2., 4., 4., 1., 2., 5., 1., NONE],
        ]);
        for (level, golden) in
            [(Level::Nominal, 0.743_421), (Level::Ordinal, 0.815_388), (Level::Interval, 0.849_107)]
        {
            let alpha = alpha(&units, level).unwrap();
            assert!((alpha - golden).abs() < 1e-6, "{level:?} {alpha}");
        }
    }

    #[test]
    fn binary_votes_agree_with_golden_g14() {
        // Pluralism specification G14: two raters of six units, a third of five.
        let votes = [(3, 0), (2, 1), (1, 2), (2, 1), (0, 2), (3, 0)];
        let votes: Vec<Votes> = votes
            .iter()
            .enumerate()
            .map(|(pair, (first, second))| Votes { pair, group: 0, first: *first, second: *second })
            .collect();
        let agreement = agreement(&votes, Bootstrap::default()).unwrap();
        assert_eq!((agreement.pairs, agreement.judgements), (6, 17));
        let overall = agreement.overall.unwrap();
        assert!((overall.value - 0.272_727).abs() < 1e-6, "{overall:?}");
        assert_eq!(agreement.within_groups, agreement.overall);
        assert_eq!(agreement.between_groups, None);
    }

    #[test]
    fn what_nobody_shares_and_what_never_varies_is_not_estimable() {
        assert_eq!(alpha(&[vec![1.0], vec![2.0], vec![]], Level::Nominal), None);
        assert_eq!(alpha(&[vec![1.0, 1.0], vec![1.0, 1.0]], Level::Ordinal), None);
        let alone = [
            Votes { pair: 0, group: 0, first: 1, second: 0 },
            Votes { pair: 1, group: 0, first: 0, second: 1 },
        ];
        assert_eq!(agreement(&alone, Bootstrap::default()), None);
        assert_eq!(agreement(&[], Bootstrap::default()), None);
        let alike = [
            Votes { pair: 0, group: 0, first: 2, second: 0 },
            Votes { pair: 1, group: 0, first: 3, second: 0 },
        ];
        let agreement = agreement(&alike, Bootstrap::default()).unwrap();
        assert_eq!((agreement.pairs, agreement.overall, agreement.within_groups), (2, None, None));
    }

    #[test]
    fn groups_that_disagree_are_told_from_noise() {
        // Two groups of five, each nearly of one mind, against each other in half of the pairs.
        let mut rng = stream(3, 0);
        let votes: Vec<Votes> = (0..400)
            .flat_map(|pair| {
                let side = rng.random_bool(0.5);
                let other = if rng.random_bool(0.5) { side } else { !side };
                [(0, side), (1, other)].map(|(group, side)| {
                    let with = (0..5).filter(|_| rng.random_bool(0.95)).count() as u64;
                    let (first, second) = if side { (with, 5 - with) } else { (5 - with, with) };
                    Votes { pair, group, first, second }
                })
            })
            .collect();
        let agreement = agreement(&votes, Bootstrap::default()).unwrap();
        let [overall, within, between] =
            [agreement.overall, agreement.within_groups, agreement.between_groups]
                .map(|alpha| alpha.unwrap());
        assert!(within.value > 0.75 && between.value < 0.1, "{agreement:?}");
        assert!(within.ci.unwrap()[0] > overall.ci.unwrap()[1], "{agreement:?}");
        assert!(between.ci.unwrap()[1] < overall.ci.unwrap()[0], "{agreement:?}");
    }

    #[test]
    fn labels_by_the_toss_of_a_coin_agree_as_chance_has_it() {
        let mut rng = stream(5, 0);
        let votes: Vec<Votes> = (0..300)
            .flat_map(|pair| {
                [0, 1].map(|group| {
                    let first = (0..3).filter(|_| rng.random_bool(0.5)).count() as u64;
                    Votes { pair, group, first, second: 3 - first }
                })
            })
            .collect();
        let agreement = agreement(&votes, Bootstrap::default()).unwrap();
        for alpha in [agreement.overall, agreement.within_groups, agreement.between_groups] {
            let Alpha { value, ci } = alpha.unwrap();
            let [low, high] = ci.unwrap();
            assert!(value.abs() < 0.1 && low <= 0.0 && 0.0 <= high, "{agreement:?}");
        }
    }

    #[test]
    fn many_pairs_have_the_interval_of_their_number() {
        // Two people to a pair, who agree or not by the toss of a coin: alpha is 1 - 2 * share of disagreement, nearly.
        let mut rng = stream(7, 0);
        let votes: Vec<Votes> = (0..40_000)
            .map(|pair| {
                let first = (0..2).filter(|_| rng.random_bool(0.5)).count() as u64;
                Votes { pair, group: 0, first, second: 2 - first }
            })
            .collect();
        let agreement = agreement(&votes, Bootstrap::default()).unwrap();
        let [low, high] = agreement.overall.unwrap().ci.unwrap();
        let width = 2.0 * 1.96 * 2.0 * (0.25_f64 / 40_000.0).sqrt();
        assert!((high - low - width).abs() < 0.1 * width, "{low} {high} {width}");
    }

    proptest! {
        #[test]
        fn compressed_votes_agree_with_expanded_labels(
            votes in prop::collection::vec((0_u64..4, 0_u64..4, 0_u64..4, 0_u64..4), 1..20)
        ) {
            let labels = |first, second| [vec![1.0; first as usize], vec![0.0; second as usize]].concat();
            let units: Vec<Vec<f64>> =
                votes.iter().map(|(a, b, c, d)| [labels(*a, *b), labels(*c, *d)].concat()).collect();
            let rows: Vec<Votes> = votes
                .iter()
                .enumerate()
                .flat_map(|(pair, (a, b, c, d))| {
                    [(0, *a, *b), (1, *c, *d)].map(|(group, first, second)| Votes { pair, group, first, second })
                })
                .collect();
            let expected = alpha(&units, Level::Nominal);
            let actual = agreement(&rows, Bootstrap { draws: 10, seed: 1 }).and_then(|agreement| agreement.overall);
            prop_assert_eq!(expected.is_some(), actual.is_some());
            if let (Some(expected), Some(actual)) = (expected, actual) {
                prop_assert!((expected - actual.value).abs() < 1e-9, "{} {}", expected, actual.value);
            }
        }
    }
}
