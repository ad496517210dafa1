//! Few numbers about many measurements, none of which assumes a distribution.

use serde::{Deserialize, Serialize};

/// Least, median and largest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of some values; nothing of none, or where one is not a number.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() || values.iter().any(|value| value.is_nan()) {
            return None;
        }
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { min: sorted[0], median: f64::midpoint(low, high), max: sorted[sorted.len() - 1] })
    }
}

/// The least value that at least this share of the sorted values does not exceed; nothing of none.
pub fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// Between which values the median of what the values were drawn from lies, with at least this confidence: an interval of
/// order statistics, whose confidence is that of a sign test. Nothing where there are too few values for it.
///
/// Also the confidence that it has.
pub fn median_interval(values: &[f64], confidence: f64) -> Option<([f64; 2], f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    // Of n fair coins, P(at most k heads), by k.
    let mut below = Vec::with_capacity(n);
    let (mut one, mut sum) = (0.5_f64.powi(i32::try_from(n).ok()?), 0.0);
    for k in 0..n {
        sum += one;
        below.push(sum);
        one *= (n - k) as f64 / (k + 1) as f64;
    }
    // The widest k values cut off on either side that leave the confidence.
    let cut = (0..n / 2).take_while(|k| 1.0 - 2.0 * below[*k] >= confidence).last()?;
    Some(([sorted[cut], sorted[n - 1 - cut]], 1.0 - 2.0 * below[cut]))
}

/// `fixed + per_unit * x`, neither below zero.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// What there is without any.
    pub fixed: f64,
    /// What each adds.
    pub per_unit: f64,
    /// How far the furthest point is from the line, as a share of the line there.
    pub furthest: f64,
}

impl Line {
    /// Through points `(x, y)` of positive `y`, by least squares of the share that each is off: points that are a thousandfold of
    /// others count no more than they do. Nothing of fewer than two different `x`.
    pub fn through(points: &[(f64, f64)]) -> Option<Self> {
        if points.iter().any(|(x, y)| !x.is_finite() || !y.is_finite() || *y <= 0.0) {
            return None;
        }
        let sum = |value: &dyn Fn(f64, f64) -> f64| points.iter().map(|(x, y)| value(*x, *y)).sum::<f64>();
        let (w, wx, wxx) =
            (sum(&|_, y| 1.0 / (y * y)), sum(&|x, y| x / (y * y)), sum(&|x, y| x * x / (y * y)));
        let (wy, wxy) = (sum(&|_, y| 1.0 / y), sum(&|x, y| x / y));
        let determinant = w * wxx - wx * wx;
        if determinant <= 1e-12 * w * wxx {
            return None;
        }
        let (fixed, per_unit) = ((wxx * wy - wx * wxy) / determinant, (w * wxy - wx * wy) / determinant);
        // A negative cost says that the other alone fits better.
        let (fixed, per_unit) = if fixed < 0.0 {
            (0.0, wxy / wxx)
        } else if per_unit < 0.0 {
            (wy / w, 0.0)
        } else {
            (fixed, per_unit)
        };
        let off = |(x, y): &(f64, f64)| (y / (fixed + per_unit * x) - 1.0).abs();
        let furthest = points.iter().map(off).fold(0.0, f64::max);
        Some(Self { fixed, per_unit, furthest })
    }
}

/// The exponent of the power of `x` that fits best: 1 where twice as much costs twice as much.
pub fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    if points.iter().any(|(x, y)| *x <= 0.0 || *y <= 0.0) {
        return None;
    }
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let n = logs.len() as f64;
    let (mx, my) = (logs.iter().map(|p| p.0).sum::<f64>() / n, logs.iter().map(|p| p.1).sum::<f64>() / n);
    let varies = logs.iter().map(|(x, _)| (x - mx).powi(2)).sum::<f64>();
    (varies > 0.0).then(|| logs.iter().map(|(x, y)| (x - mx) * (y - my)).sum::<f64>() / varies)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * (1.0 + b.abs())
    }

    #[test]
    fn a_spread_is_of_the_values_in_order() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 0.5), Some(50.0));
        assert_eq!(percentile(&hundred, 0.99), Some(99.0));
        assert_eq!(percentile(&hundred, 1.0), Some(100.0));
        assert_eq!(percentile(&hundred, 0.0), Some(1.0));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn an_interval_of_the_median_has_the_confidence_of_a_sign_test() {
        let values: Vec<f64> = (1..=15).rev().map(f64::from).collect();
        // P(at most 3 of 15 heads) = 576 / 32768.
        let (interval, confidence) = median_interval(&values, 0.95).unwrap();
        assert_eq!(interval, [4.0, 12.0]);
        assert!(near(confidence, 1.0 - 2.0 * 576.0 / 32768.0), "{confidence}");
        assert_eq!(median_interval(&values[..5], 0.95), None, "two in 32 are too many");
        assert_eq!(median_interval(&values[..6], 0.95).unwrap().0, [10.0, 15.0]);
        assert_eq!(median_interval(&[], 0.5), None);
    }

    #[test]
    fn a_line_finds_what_is_fixed_and_what_each_adds_over_many_magnitudes() {
        let points: Vec<(f64, f64)> = [1.0, 10.0, 1e3, 1e5].iter().map(|x| (*x, 0.7 + 0.002 * x)).collect();
        let line = Line::through(&points).unwrap();
        assert!(near(line.fixed, 0.7) && near(line.per_unit, 0.002), "{line:?}");
        assert!(line.furthest < 1e-9);
    }

    #[test]
    fn nothing_costs_less_than_nothing() {
        let square: Vec<(f64, f64)> = [1.0, 2.0, 4.0, 8.0].iter().map(|x| (*x, x * x)).collect();
        let line = Line::through(&square).unwrap();
        assert_eq!(line.fixed, 0.0);
        assert!(line.per_unit > 0.0 && line.furthest > 0.5, "{line:?}");
        let falling = Line::through(&[(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]).unwrap();
        assert!(falling.per_unit == 0.0 && falling.fixed > 0.0);
        assert_eq!(Line::through(&[(1.0, 1.0)]), None);
        assert_eq!(Line::through(&[(1.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(Line::through(&[(1.0, 1.0), (2.0, 0.0)]), None);
    }

    #[test]
    fn an_exponent_tells_a_line_from_a_square() {
        let power = |p: i32| [1.0_f64, 2.0, 5.0, 9.0].map(|x| (x, 3.0 * x.powi(p)));
        assert!(near(exponent(&power(1)).unwrap(), 1.0));
        assert!(near(exponent(&power(2)).unwrap(), 2.0));
        assert_eq!(exponent(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(exponent(&[(2.0, 1.0)]), None);
    }
}
