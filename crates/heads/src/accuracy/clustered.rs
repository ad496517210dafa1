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

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of people's (predictions, numerator).
    fn sums(people: &[(f64, f64)]) -> RatioSums {
        let mut sums = RatioSums { users: people.len() as u64, n: 0.0, x: 0.0, n_n: 0.0, n_x: 0.0, x_x: 0.0 };
        for (n, x) in people {
            sums.n += n;
            sums.x += x;
            sums.n_n += n * n;
            sums.n_x += n * x;
            sums.x_x += x * x;
        }
        sums
    }

    fn close(actual: Option<Interval>, expected: [f64; 2], tolerance: f64) {
        let actual = actual.unwrap();
        for (actual, expected) in actual.into_iter().zip(expected) {
            assert!((actual - expected).abs() < tolerance, "{actual} {expected}");
        }
    }

    #[test]
    fn students_quantile_agrees_with_its_table() {
        // NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2; three decimals.
        for (freedom, expected) in [
            (1, 12.706),
            (2, 4.303),
            (3, 3.182),
            (4, 2.776),
            (5, 2.571),
            (9, 2.262),
            (30, 2.042),
            (100, 1.984),
        ] {
            let actual = student_975(freedom);
            assert!((actual - expected).abs() < 1.5e-3, "{freedom} {actual} {expected}");
        }
    }

    #[test]
    fn one_prediction_each_is_wilsons_interval_of_people() {
        // Newcombe (1998), Statistics in Medicine 17:857, table I, method 3: 81 of 263, and 0 of 20.
        let people: Vec<_> = (0..263).map(|at| (1.0, f64::from(u8::from(at < 81)))).collect();
        close(share_interval(sums(&people)), [0.2553, 0.3662], 5e-5);
        close(share_interval(sums(&[(1.0, 0.0); 20])), [0.0, 0.1611], 5e-5);
    }

    #[test]
    fn people_who_differ_leave_fewer_trials_and_people_who_do_not_leave_themselves() {
        // 100 people of 10 predictions, all right or all wrong: as good as 100 trials, less what Student takes.
        let people: Vec<_> = (0..100).map(|at| (10.0, if at % 2 == 0 { 10.0 } else { 0.0 })).collect();
        close(share_interval(sums(&people)), wilson(0.5, 100.0), 2e-3);
        assert_eq!(share_interval(sums(&[(10.0, 10.0); 8])), Some(wilson(1.0, 8.0)));
        assert_eq!(share_interval(sums(&[(10.0, 7.0); 8])), Some(wilson(0.7, 8.0)));
        assert_eq!(share_interval(sums(&[(10.0, 7.0)])), None);
        assert_eq!(share_interval(sums(&[(0.0, 0.0); 2])), None);
    }

    #[test]
    fn a_difference_has_students_interval_of_people() {
        // Five people of as many predictions: mean .2, standard deviation of .1 * sqrt(2.5).
        let people = [(10.0, 0.0), (10.0, 1.0), (10.0, 2.0), (10.0, 3.0), (10.0, 4.0)];
        let half = 2.776 * (2.5_f64 / 5.0).sqrt() / 10.0;
        close(difference_interval(sums(&people)), [0.2 - half, 0.2 + half], 1e-4);
        assert_eq!(difference_interval(sums(&[(1.0, 1.0), (1.0, -1.0)])), Some([-1.0, 1.0]));
        assert_eq!(difference_interval(sums(&[(4.0, 1.0); 3])), Some([0.25, 0.25]));
        assert_eq!(difference_interval(sums(&[(4.0, 1.0)])), None);
    }
}
