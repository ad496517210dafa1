//! Intervals from sums of squares between people, where drawing people would take their rows.

use super::RatioSums;
use crate::evaluation::Interval;

/// The standard normal distribution's 97.5 % quantile.
const Z: f64 = 1.959_963_984_540_054;

/// The 95 % interval of a share `x / n` of clustered counts: Wilson's with as many independent trials as the spread between
/// people leaves, at most `n`. Where people do not spread, or made one prediction each, trials are people. Few people say
/// little about their spread: the trials shrink by Student's quantile against the normal one, as Korn and Graubard (1998)
/// have it. None below two people.
pub fn share_interval(sums: RatioSums) -> Option<Interval> {
    if sums.users < 2 || sums.n <= 0.0 {
        return None;
    }
    let users = sums.users as f64;
    let share = (sums.x / sums.n).clamp(0.0, 1.0);
    let variance = variance_of_ratio(sums);
    let trials = if sums.n <= users || variance <= 1e-12 {
        users
    } else {
        let shrink = (Z / student_975(sums.users - 1)).powi(2);
        (share * (1.0 - share) / variance * shrink).min(sums.n)
    };
    Some(wilson(share, trials))
}

/// The 95 % interval of a difference of shares `x / n` of clustered counts, by linearisation, with Student's quantile of
/// `users - 1` degrees of freedom. None below two people.
pub fn difference_interval(sums: RatioSums) -> Option<Interval> {
    if sums.users < 2 || sums.n <= 0.0 {
        return None;
    }
    let difference = sums.x / sums.n;
    let half = student_975(sums.users - 1) * variance_of_ratio(sums).sqrt();
    Some([(difference - half).max(-1.0), (difference + half).min(1.0)])
}

/// The variance of `x / n` between people by linearisation: `m / (m - 1) * sum (x_i - r n_i)^2 / n^2`.
fn variance_of_ratio(sums: RatioSums) -> f64 {
    let (users, ratio) = (sums.users as f64, sums.x / sums.n);
    let squares = sums.x_x - 2.0 * ratio * sums.n_x + ratio * ratio * sums.n_n;
    // Rounding can leave a little less than nothing.
    squares.max(0.0) / (sums.n * sums.n) * users / (users - 1.0)
}

/// Wilson's interval of a share of `trials`, which need not be whole.
fn wilson(share: f64, trials: f64) -> Interval {
    let z_z = Z * Z / trials;
    let middle = (share + z_z / 2.0) / (1.0 + z_z);
    let half = (share * (1.0 - share) * z_z + z_z * z_z / 4.0).sqrt() / (1.0 + z_z);
    // At the ends the root is exact but for rounding.
    [if share == 0.0 { 0.0 } else { middle - half }, if share == 1.0 { 1.0 } else { middle + half }]
}

/// The 97.5 % quantile of Student's distribution. Up to 4 degrees of freedom exactly, then the series of Cornish and Fisher
/// (Abramowitz and Stegun 26.7.5), which is right to 0.001.
fn student_975(freedom: u64) -> f64 {
    match freedom {
        0 => f64::INFINITY,
        1 => 12.706_204_736,
        2 => 4.302_652_730,
        3 => 3.182_446_305,
        4 => 2.776_445_105,
        _ => {
            let (z, v) = (Z, freedom as f64);
            let g1 = (z.powi(3) + z) / 4.0;
            let g2 = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
            let g3 = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
            let g4 =
                (79.0 * z.powi(9) + 776.0 * z.powi(7) + 1482.0 * z.powi(5) - 1920.0 * z.powi(3) - 945.0 * z)
                    / 92_160.0;
            z + (g1 + (g2 + (g3 + g4 / v) / v) / v) / v
        }
    }
}
