//! How right a model is, and how sure one may be of that.
//!
//! Comparisons of one person are not independent, so every interval comes from a bootstrap that draws people, not
//! comparisons (cluster bootstrap, percentile interval).

pub use polyreward_domain::correctness;
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde::{Deserialize, Serialize};

/// The calibrated probabilities that a model gave to what one person in fact chose, one per comparison.
pub type PersonPredictions = Vec<f64>;

/// A 95 % interval.
pub type Interval = [f64; 2];

/// How the bootstrap draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap {
    /// Draws of people; at least 1000 for a 95 % interval.
    pub draws: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { draws: 2000, seed: 0 }
    }
}

impl Bootstrap {
    /// The 95 % interval of `statistic`, given how often each of `people` was drawn; `None` below two people.
    ///
    /// `statistic` may return `None` for a draw it is not defined on; such draws are left out.
    pub fn interval(self, people: usize, statistic: impl Fn(&[u32]) -> Option<f64>) -> Option<Interval> {
        if people < 2 {
            return None;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut counts = vec![0_u32; people];
        let mut values: Vec<f64> = (0..self.draws)
            .filter_map(|_| {
                counts.fill(0);
                for _ in 0..people {
                    counts[rng.random_range(0..people)] += 1;
                }
                statistic(&counts)
            })
            .collect();
        if values.is_empty() {
            return None;
        }
        values.sort_by(f64::total_cmp);
        Some([quantile(&values, 0.025), quantile(&values, 0.975)])
    }
}

/// The `q` quantile of sorted values, linear between two.
///
/// # Panics
/// If there is no value.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// How a model did on some people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// People with at least one comparison.
    pub users: usize,
    /// Comparisons.
    pub n: usize,
    /// Share of comparisons predicted right; an undecided one counts half.
    pub accuracy: f64,
    /// Its 95 % interval over people; none below two people.
    pub accuracy_ci: Option<Interval>,
    /// Mean over people of their own accuracy.
    pub user_accuracy: f64,
    /// Its 95 % interval over people.
    pub user_accuracy_ci: Option<Interval>,
    /// Mean negative log probability of what was chosen, in nats.
    pub log_loss: f64,
    /// Expected calibration error over both orientations of each pair, 10 equal bins (5 below 500 comparisons).
    pub ece: f64,
}

/// Summarises predictions by person; `None` if there is no comparison.
pub fn summarize(people: &[PersonPredictions], bootstrap: Bootstrap) -> Option<Summary> {
    let tallies: Vec<(f64, f64)> = people
        .iter()
        .filter(|person| !person.is_empty())
        .map(|person| (person.iter().map(|p| correctness(*p)).sum(), person.len() as f64))
        .collect();
    if tallies.is_empty() {
        return None;
    }
    let all: Vec<f64> = people.iter().flatten().copied().collect();
    let n = all.len();
    let correct: f64 = tallies.iter().map(|(correct, _)| correct).sum();
    let shares: Vec<f64> = tallies.iter().map(|(correct, n)| correct / n).collect();
    let bins = if n < 500 { 5 } else { 10 };
    Some(Summary {
        users: tallies.len(),
        n,
        accuracy: correct / n as f64,
        accuracy_ci: bootstrap.interval(tallies.len(), |counts| {
            let (mut right, mut total) = (0.0, 0.0);
            for (count, (correct, n)) in counts.iter().zip(&tallies) {
                right += f64::from(*count) * correct;
                total += f64::from(*count) * n;
            }
            Some(right / total)
        }),
        user_accuracy: shares.iter().sum::<f64>() / shares.len() as f64,
        user_accuracy_ci: bootstrap.interval(shares.len(), |counts| {
            let sum: f64 = counts.iter().zip(&shares).map(|(count, share)| f64::from(*count) * share).sum();
            Some(sum / shares.len() as f64)
        }),
        log_loss: -all.iter().map(|p| p.max(f64::MIN_POSITIVE).ln()).sum::<f64>() / n as f64,
        ece: calibration_errors(&both_orientations(&all), bins).ece,
    })
}

/// The difference in accuracy of two models on the same comparisons, `a - b`, with its interval over people.
///
/// `None` if the two do not hold the same comparisons, or none.
pub fn accuracy_difference(
    a: &[PersonPredictions],
    b: &[PersonPredictions],
    bootstrap: Bootstrap,
) -> Option<(f64, Option<Interval>)> {
    if a.len() != b.len() || a.iter().zip(b).any(|(a, b)| a.len() != b.len()) {
        return None;
    }
    let rows: Vec<(f64, f64)> = a
        .iter()
        .zip(b)
        .filter(|(a, _)| !a.is_empty())
        .map(|(a, b)| {
            let difference = a.iter().zip(b).map(|(a, b)| correctness(*a) - correctness(*b)).sum();
            (difference, a.len() as f64)
        })
        .collect();
    let total: f64 = rows.iter().map(|(_, n)| n).sum();
    if total == 0.0 {
        return None;
    }
    let interval = bootstrap.interval(rows.len(), |counts| {
        let (mut difference, mut n) = (0.0, 0.0);
        for (count, row) in counts.iter().zip(&rows) {
            difference += f64::from(*count) * row.0;
            n += f64::from(*count) * row.1;
        }
        Some(difference / n)
    });
    Some((rows.iter().map(|(difference, _)| difference).sum::<f64>() / total, interval))
}

/// Calibration errors over equal bins of the probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CalibrationErrors {
    /// Expected: mean over predictions of their bin's gap.
    pub ece: f64,
    /// Average: mean over the bins that are not empty.
    pub ace: f64,
    /// Maximum over the bins.
    pub mce: f64,
}

/// Each probability of what was chosen, as (probability, outcome) in both orders of its pair.
pub fn both_orientations(preferences_of_chosen: &[f64]) -> Vec<(f64, f64)> {
    preferences_of_chosen.iter().flat_map(|p| [(*p, 1.0), (1.0 - p, 0.0)]).collect()
}

/// Errors over `bins` equal, right-closed bins of (probability, outcome); 0 without predictions.
pub fn calibration_errors(predictions: &[(f64, f64)], bins: usize) -> CalibrationErrors {
    let mut sums = vec![(0.0, 0.0, 0.0); bins];
    for (p, outcome) in predictions {
        // Right-closed: an edge belongs to the bin below it.
        let bin = ((p * bins as f64).ceil() as usize).clamp(1, bins) - 1;
        sums[bin].0 += p;
        sums[bin].1 += outcome;
        sums[bin].2 += 1.0;
    }
    let filled: Vec<_> = sums.into_iter().filter(|(_, _, n)| *n > 0.0).collect();
    if filled.is_empty() {
        return CalibrationErrors { ece: 0.0, ace: 0.0, mce: 0.0 };
    }
    let gaps = filled.iter().map(|(p, outcome, n)| (p - outcome).abs() / n);
    CalibrationErrors {
        ece: filled.iter().map(|(p, outcome, _)| (p - outcome).abs()).sum::<f64>() / predictions.len() as f64,
        ace: gaps.clone().sum::<f64>() / filled.len() as f64,
        mce: gaps.fold(0.0, f64::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pluralism specification G2.1: probabilities and outcomes.
    const GOLDEN: [(f64, f64); 10] = [
        (0.05, 0.0),
        (0.15, 0.0),
        (0.2, 1.0),
        (0.35, 0.0),
        (0.4, 1.0),
        (0.55, 1.0),
        (0.62, 0.0),
        (0.78, 1.0),
        (0.9, 1.0),
        (0.97, 1.0),
    ];

    #[test]
    fn calibration_errors_agree_with_golden_g2_1() {
        let close = |actual: CalibrationErrors, expected: [f64; 3]| {
            for (actual, expected) in [actual.ece, actual.ace, actual.mce].into_iter().zip(expected) {
                assert!((actual - expected).abs() < 1e-9, "{actual} {expected}");
            }
        };
        close(calibration_errors(&GOLDEN, 5), [0.183, 0.208, 0.45]);
        close(calibration_errors(&GOLDEN, 10), [0.237, 0.24, 0.62]);
        let both: Vec<_> = GOLDEN.iter().flat_map(|(p, y)| [(*p, *y), (1.0 - p, 1.0 - y)]).collect();
        assert!((calibration_errors(&both, 5).ece - 0.145).abs() < 1e-9);
        assert!((calibration_errors(&both, 10).ece - 0.185).abs() < 1e-9);
    }

    #[test]
    fn people_count_once_each_in_the_mean_over_people() {
        let people = [vec![0.9; 8], vec![0.1, 0.9], vec![]];
        let summary = summarize(&people, Bootstrap::default()).unwrap();
        assert_eq!((summary.users, summary.n), (2, 10));
        assert!((summary.accuracy - 0.9).abs() < 1e-12);
        assert!((summary.user_accuracy - 0.75).abs() < 1e-12);
        let [low, high] = summary.accuracy_ci.unwrap();
        assert!((low - 0.5).abs() < 1e-12 && (high - 1.0).abs() < 1e-12, "{low} {high}");
        assert_eq!(summarize(&[vec![]], Bootstrap::default()), None);
    }

    #[test]
    fn the_interval_is_as_wide_as_the_people_differ() {
        // 400 people of 10 comparisons, each person all right or all wrong: the standard error is that of 400 coins.
        let people: Vec<_> =
            (0..400).map(|person| vec![if person % 2 == 0 { 0.9 } else { 0.1 }; 10]).collect();
        let [low, high] = summarize(&people, Bootstrap::default()).unwrap().accuracy_ci.unwrap();
        let half = 1.96 * (0.25_f64 / 400.0).sqrt();
        assert!((high - low - 2.0 * half).abs() < 0.01, "{low} {high}");
    }

    #[test]
    fn a_difference_is_paired_by_person() {
        let a: Vec<_> = (0..50).map(|person| vec![if person % 2 == 0 { 0.9 } else { 0.1 }; 4]).collect();
        let (difference, interval) = accuracy_difference(&a, &a, Bootstrap::default()).unwrap();
        assert_eq!((difference, interval), (0.0, Some([0.0, 0.0])));
        assert_eq!(accuracy_difference(&a, &a[1..], Bootstrap::default()), None);
    }

    #[test]
    fn an_undecided_prediction_counts_half_and_one_person_has_no_interval() {
        let summary = summarize(&[vec![0.5, 0.5]], Bootstrap::default()).unwrap();
        assert!((summary.accuracy - 0.5).abs() < 1e-12);
        assert_eq!(summary.accuracy_ci, None);
        assert!(summary.ece < 1e-12);
    }
}
