//! What a person's answer would tell of them: the expected information gain by which questions are ranked.

use crate::calibration::{Calibration, sigmoid};

/// Standard deviations about the mean that the integral covers: beyond them lies less than `1e-15` of a normal variable.
const REACH: f64 = 8.0;
/// Steps a standard deviation at least; as many as it has logits where those are more.
const STEPS: f64 = 2.0;
/// Steps a standard deviation at most.
const MOST_STEPS: f64 = 256.0;
/// Steps in place of one where a shape puts a kink at even margins.
const KINKED: f64 = 8.0;

/// Probabilities of the two answers to a pair, `a` and `b`. Both are kept, so that swapping the pair swaps them to the last
/// bit and neither loses digits near 1.
pub(crate) type Answers = [f64; 2];

/// Mutual information in nats between an answer and which of several models is right: the entropy of their mean
/// probability less their mean entropy, `H(E p) - E H(p)` (BALD; Houlsby et al., arXiv:1112.5745). In `[0, ln 2]`.
///
/// Both have a number a model; weights need not sum to 1. Without models it is 0.
pub fn information_gain(probabilities: &[f64], weights: &[f64]) -> f64 {
    of_answers(probabilities.iter().map(|p| [*p, 1.0 - p]).zip(weights.iter().copied()))
}

/// [`information_gain`] of models that come one after another, each with its weight.
pub(crate) fn of_answers(models: impl Iterator<Item = (Answers, f64)>) -> f64 {
    let (mut total, mut mean, mut entropies) = (0.0, [0.0; 2], 0.0);
    for (answers, weight) in models {
        total += weight;
        mean = [mean[0] + weight * answers[0], mean[1] + weight * answers[1]];
        entropies += weight * entropy(answers);
    }
    if total > 0.0 { (entropy(mean.map(|p| p / total)) - entropies / total).max(0.0) } else { 0.0 }
}

/// In nats.
fn entropy([a, b]: Answers) -> f64 {
    let term = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
    term(a) + term(b)
}

impl Calibration {
    /// How somebody answers whose margin is known: `(1 - e) sigmoid(m / T) + e sigmoid(-m / T)`, `e` the share of wrong
    /// labels, for a right answer slips as often as a label did.
    pub(crate) fn answers(self, margin: f64) -> Answers {
        self.noisy(margin / self.temperature)
    }

    /// The same of a margin that is divided by the temperature already.
    fn noisy(self, logit: f64) -> Answers {
        let (logit, kept) = (self.shaped(logit), 1.0 - 2.0 * self.label_noise);
        [sigmoid(logit), sigmoid(-logit)].map(|p| self.label_noise + kept * p)
    }

    /// Expected information in nats that the answer to a pair would give of the person whose posterior the margin's mean
    /// and variance are of, `I(answer; margin)`, in `[0, ln 2]`: `H(E p) - E H(p)` over `N(m, v)`, where `m` and `v` are
    /// those of [`Calibration::probability`] and `p` is the answer's probability, wrong answers included.
    ///
    /// It is the same whichever response is called `a`. The integral is a trapezoidal rule, whose error falls exponentially
    /// in the number of its nodes where the integrand is analytic about the real line, here within `pi` logits of it
    /// (Trefethen and Weideman, SIAM Review 56, 2014). With a step of at most a logit the gain is right to `1e-7` up to a
    /// standard deviation of 256 logits, and to `1e-3` beyond it or where the [`shape`](Self::shape) is not 1. A
    /// Gauss-Hermite rule of as many nodes is no better at small variances and errs by hundredths of a nat at large ones.
    pub fn information_gain(self, mean: f64, variance: f64) -> f64 {
        let (m, v) = self.scaled(mean.abs(), variance);
        let deviation = v.sqrt();
        if deviation == 0.0 {
            return 0.0;
        }
        let finer = if self.shape == 1.0 { 1.0 } else { KINKED };
        let steps = finer * deviation.clamp(STEPS, MOST_STEPS);
        let last = (REACH * steps).ceil() as i32;
        of_answers((-last..=last).map(|node| {
            let x = f64::from(node) / steps;
            (self.noisy(m + x * deviation), (-x * x / 2.0).exp())
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use proptest::prelude::*;

    use super::*;

    fn noisy(label_noise: f64) -> Calibration {
        Calibration { label_noise, ..Calibration::default() }
    }

    /// The same by a million midpoints over twelve standard deviations, as its definition has it.
    fn by_force(calibration: Calibration, mean: f64, variance: f64) -> f64 {
        const CELLS: u32 = 1_000_000;
        let deviation = variance.sqrt();
        let (mut total, mut p_sum, mut h_sum) = (0.0, 0.0, 0.0);
        for cell in 0..CELLS {
            let x = 24.0 * ((f64::from(cell) + 0.5) / f64::from(CELLS) - 0.5);
            let weight = (-x * x / 2.0).exp();
            let t = (mean + x * deviation) / calibration.temperature;
            let t = t.abs().powf(calibration.shape) * t.signum();
            let e = calibration.label_noise;
            let p = (1.0 - e) / (1.0 + (-t).exp()) + e / (1.0 + t.exp());
            let h = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
            total += weight;
            p_sum += weight * p;
            h_sum += weight * (h(p) + h(1.0 - p));
        }
        let p = p_sum / total;
        -p * p.ln() - (1.0 - p) * (1.0 - p).ln() - h_sum / total
    }

    #[test]
    fn the_gain_agrees_with_brute_force() {
        for temperature in [0.5, 1.0, 3.0] {
            for (mean, variance) in
                [(0.0, 0.01), (0.3, 1.0), (2.0, 0.5), (-1.0, 9.0), (5.0, 30.0), (0.7, 900.0), (-40.0, 2500.0)]
            {
                for label_noise in [0.0, 0.08] {
                    let calibration = Calibration { temperature, ..noisy(label_noise) };
                    let (fast, slow) =
                        (calibration.information_gain(mean, variance), by_force(calibration, mean, variance));
                    assert!((fast - slow).abs() < 1e-7, "{calibration:?} {mean} {variance}: {fast} {slow}");
                }
            }
        }
        // A shape has a kink at 0.
        for shape in [0.7, 1.75] {
            let calibration = Calibration { shape, ..noisy(0.02) };
            for (mean, variance) in [(0.0, 0.2), (1.0, 3.0), (0.5, 60.0)] {
                let (fast, slow) =
                    (calibration.information_gain(mean, variance), by_force(calibration, mean, variance));
                assert!((fast - slow).abs() < 1e-3, "{shape} {mean} {variance}: {fast} {slow}");
            }
        }
        // Beyond the finest grid.
        for (mean, variance) in [(0.0, 1e6), (700.0, 1e6)] {
            let (fast, slow) =
                (noisy(0.05).information_gain(mean, variance), by_force(noisy(0.05), mean, variance));
            assert!((fast - slow).abs() < 1e-3, "{mean} {variance}: {fast} {slow}");
        }
    }

    #[test]
    fn a_small_variance_tells_half_of_itself_times_fishers_information() {
        // I = v/2 J(m) + O(v^2); of a Bernoulli answer J = p'^2 / (p (1 - p)), at m = 0 without noise a quarter.
        let v = 1e-3;
        assert!((noisy(0.0).information_gain(0.0, v) - v / 8.0).abs() < v * v);
        let (e, s) = (0.1, sigmoid(0.8));
        let (p, slope) = (e + (1.0 - 2.0 * e) * s, (1.0 - 2.0 * e) * s * (1.0 - s));
        let expected = v / 2.0 * slope * slope / (p * (1.0 - p));
        assert!((noisy(e).information_gain(0.8, v) - expected).abs() < v * v);
    }

    #[test]
    fn of_two_certain_opposites_an_answer_tells_everything() {
        assert_eq!(information_gain(&[], &[]), 0.0);
        assert!((information_gain(&[0.0, 1.0], &[2.0, 2.0]) - LN_2).abs() < 1e-12);
        assert_eq!(information_gain(&[0.3, 0.9], &[0.0, 0.0]), 0.0);
        // Weights count by their shares: here a binary channel with input probability 1/4 and error 1/5.
        let h = |p: f64| -p * p.ln() - (1.0 - p) * (1.0 - p).ln();
        assert!((information_gain(&[0.2, 0.8], &[3.0, 1.0]) - (h(0.35) - h(0.2))).abs() < 1e-12);
    }

    #[test]
    fn what_is_known_or_nothing_but_noise_tells_nothing() {
        assert_eq!(noisy(0.02).information_gain(0.3, 0.0), 0.0);
        assert!(noisy(0.5).information_gain(0.3, 4.0) < 1e-12);
    }

    #[test]
    fn scaling_margins_or_the_temperature_is_the_same() {
        let calibration = Calibration { temperature: 2.0, variance_scale: 4.0, ..Calibration::default() };
        let (scaled, plain) = (calibration.information_gain(1.6, 2.0), noisy(0.0).information_gain(0.8, 2.0));
        assert!((scaled - plain).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn a_gain_is_at_least_nothing_at_most_one_bit_and_has_no_side(
            m in -60.0..60.0_f64, v in 0.0..400.0_f64, temperature in 0.1..20.0_f64, label_noise in 0.0..0.5_f64,
            shape in prop_oneof![Just(1.0), Just(1.45)],
        ) {
            let calibration = Calibration { temperature, label_noise, shape, ..Calibration::default() };
            let gain = calibration.information_gain(m, v);
            prop_assert!((0.0..=LN_2).contains(&gain));
            prop_assert_eq!(gain, calibration.information_gain(-m, v));
        }

        #[test]
        fn at_an_even_margin_more_variance_tells_more(
            v in 1e-3..400.0_f64, more in 1.01..4.0_f64, label_noise in 0.0..0.4_f64,
        ) {
            let gain = |v| noisy(label_noise).information_gain(0.0, v);
            prop_assert!(gain(more * v) > gain(v));
        }

        #[test]
        fn far_from_even_a_larger_margin_tells_less(
            m in 4.0..30.0_f64, more in 0.5..4.0_f64, v in 0.05..4.0_f64, label_noise in 0.0..0.4_f64,
        ) {
            let gain = |m| noisy(label_noise).information_gain(m, v);
            prop_assert!(gain(m + more) <= gain(m) + 1e-12);
        }

        #[test]
        fn noisier_answers_tell_less(
            m in -5.0..5.0_f64, v in 0.1..50.0_f64, e in 0.0..0.45_f64, more in 0.01..0.05_f64,
        ) {
            prop_assert!(noisy(e + more).information_gain(m, v) < noisy(e).information_gain(m, v));
        }
    }
}
