//! From margins to probabilities: a temperature fitted on held-out people, moderated by the posterior's variance.

use serde::{Deserialize, Serialize};

use crate::head::HeadError;

/// `1 / (1 + e^-t)` without overflow.
pub fn sigmoid(t: f64) -> f64 {
    if t >= 0.0 {
        1.0 / (1.0 + (-t).exp())
    } else {
        let e = t.exp();
        e / (1.0 + e)
    }
}

/// `ln sigmoid(t)` without overflow.
pub fn log_sigmoid(t: f64) -> f64 {
    if t >= 0.0 { -(-t).exp().ln_1p() } else { t - t.exp().ln_1p() }
}

/// A calibrated probability and how sure the model is of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preference {
    /// P(a preferred to b).
    pub probability: f64,
    /// Posterior standard deviation of that probability, in `[0, 0.5]`: what more examples could still change.
    pub uncertainty: f64,
}

/// How margins become probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Margins are divided by it.
    pub temperature: f64,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { temperature: 1.0 }
    }
}

/// Nodes and weights of the 7-point Gauss-Hermite rule for a standard normal variable (positive half).
const HERMITE: [(f64, f64); 4] = [
    (0.0, 0.457_142_857_142_857_1),
    (1.154_405_394_739_968_2, 0.240_123_178_605_012_71),
    (2.366_759_410_734_541_3, 0.030_757_123_967_586_5),
    (3.750_439_717_725_742_3, 0.000_548_268_855_972_217_8),
];

impl Calibration {
    /// Checks a temperature that came from a file.
    ///
    /// # Errors
    /// Unless it is finite and positive.
    pub fn checked(self) -> Result<Self, HeadError> {
        if self.temperature.is_finite() && self.temperature > 0.0 {
            Ok(self)
        } else {
            Err(HeadError::Parameter { name: "temperature", detail: "is finite and positive".into() })
        }
    }

    /// The probability for a margin with a posterior variance, both in logits.
    ///
    /// `sigmoid(m / sqrt(1 + pi v / 8))`, the logistic-normal integral's approximation (MacKay 1992), with
    /// `m = mean / T` and `v = variance / T^2`. Exactly antisymmetric: `probability(-m) == 1 - probability(m)`.
    pub fn probability(self, mean: f64, variance: f64) -> f64 {
        let t = self.moderated(mean, variance);
        // One branch and its complement, so that a swapped pair gives 1 - p to the last bit.
        if t >= 0.0 { sigmoid(t) } else { 1.0 - sigmoid(-t) }
    }

    /// `ln` of [`Calibration::probability`], exact where the probability underflows.
    pub fn log_probability(self, mean: f64, variance: f64) -> f64 {
        log_sigmoid(self.moderated(mean, variance))
    }

    /// The probability together with the posterior standard deviation of `sigmoid(m)`.
    pub fn preference(self, mean: f64, variance: f64) -> Preference {
        let m = mean.abs() / self.temperature;
        let deviation = variance.max(0.0).sqrt() / self.temperature;
        let (mut first, mut second) = (0.0, 0.0);
        for (at, (node, weight)) in HERMITE.into_iter().enumerate() {
            for sign in if at == 0 { &[1.0][..] } else { &[1.0, -1.0][..] } {
                let p = sigmoid(m + sign * node * deviation);
                first += weight * p;
                second += weight * p * p;
            }
        }
        Preference {
            probability: self.probability(mean, variance),
            uncertainty: (second - first * first).max(0.0).sqrt(),
        }
    }

    fn moderated(self, mean: f64, variance: f64) -> f64 {
        let scale = self.temperature * self.temperature;
        mean / self.temperature / (1.0 + std::f64::consts::PI * variance.max(0.0) / scale / 8.0).sqrt()
    }

    /// The temperature of least mean log loss over held-out `(mean, variance, weight)` margins, each oriented so
    /// that the chosen response is `a`; golden-section search over `ln T` in `[-4, 4]`.
    ///
    /// # Errors
    /// If there is no margin, or one is not finite.
    pub fn fit(margins: &[(f64, f64, f64)]) -> Result<Self, HeadError> {
        if margins.is_empty() {
            return Err(HeadError::Parameter { name: "margins", detail: "there is none".into() });
        }
        if margins.iter().any(|(mean, variance, weight)| !(mean + variance + weight).is_finite()) {
            return Err(HeadError::NotFinite("a margin"));
        }
        let loss = |log_temperature: f64| {
            let calibration = Self { temperature: log_temperature.exp() };
            -margins.iter().map(|(m, v, w)| w * calibration.log_probability(*m, *v)).sum::<f64>()
        };
        let ratio = (5.0_f64.sqrt() - 1.0) / 2.0;
        let (mut low, mut high) = (-4.0_f64, 4.0_f64);
        let (mut left, mut right) = (high - ratio * (high - low), low + ratio * (high - low));
        let (mut loss_left, mut loss_right) = (loss(left), loss(right));
        while high - low > 1e-6 {
            if loss_left <= loss_right {
                (high, right, loss_right) = (right, left, loss_left);
                left = high - ratio * (high - low);
                loss_left = loss(left);
            } else {
                (low, left, loss_left) = (left, right, loss_right);
                right = low + ratio * (high - low);
                loss_right = loss(right);
            }
        }
        Ok(Self { temperature: f64::midpoint(low, high).exp() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_undecided_margin_is_exactly_one_half() {
        assert!((Calibration { temperature: 0.37 }.probability(0.0, 2.0) - 0.5).abs() < f64::EPSILON);
    }

    #[test]
    fn moderation_agrees_with_the_golden_values() {
        // VPL/LoRe specification G2.3 and PAL specification G11 (float64 numpy), tolerance 1e-6.
        let plain = Calibration::default();
        for (m, v, expected) in [
            (0.488_800, 0.169_808, 0.616_159),
            (0.881_698, 0.543_972, 0.690_049),
            (0.771_043, 0.355_502, 0.673_107),
        ] {
            assert!((plain.probability(m, v) - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn uncertainty_is_the_spread_of_the_probability() {
        let plain = Calibration::default();
        assert!(plain.preference(1.0, 0.0).uncertainty < 1e-7);
        // Small variances: the delta method, p (1 - p) sd, to first order.
        let p = sigmoid(1.0);
        let small = plain.preference(1.0, 1e-4).uncertainty;
        assert!((small - p * (1.0 - p) * 0.01).abs() < 1e-5, "{small}");
        assert!(plain.preference(0.0, 400.0).uncertainty <= 0.5);
    }

    #[test]
    fn the_temperature_is_recovered_from_its_own_draws() {
        // Every margin m appears in the proportion sigmoid(m / 2) as chosen: the best temperature is 2.
        let mut margins = Vec::new();
        for step in -30..=30 {
            let m = f64::from(step) / 10.0;
            margins.push((m, 0.0, sigmoid(m / 2.0)));
        }
        let fitted = Calibration::fit(&margins).unwrap();
        assert!((fitted.temperature - 2.0).abs() < 1e-3, "{fitted:?}");
        assert!(Calibration::fit(&[]).is_err());
        assert!(Calibration::fit(&[(f64::NAN, 0.0, 1.0)]).is_err());
    }

    proptest! {
        #[test]
        fn swapping_a_pair_gives_exactly_one_minus_p(
            m in -60.0..60.0_f64, v in 0.0..50.0_f64, temperature in 0.05..20.0_f64,
        ) {
            let calibration = Calibration { temperature };
            let (there, back) = (calibration.preference(m, v), calibration.preference(-m, v));
            prop_assert_eq!(there.probability, 1.0 - back.probability);
            prop_assert_eq!(1.0 - there.probability, back.probability);
            prop_assert_eq!(there.uncertainty, back.uncertainty);
            prop_assert!((0.0..=1.0).contains(&there.probability));
        }
    }
}
