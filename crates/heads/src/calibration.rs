//! From margins to probabilities: a temperature fitted on held-out people, moderated by the posterior's variance.

use serde::{Deserialize, Serialize};

use crate::{evidence::check_noise, head::HeadError};

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
    /// Posterior variances are multiplied by it: Laplace's variances are right in shape, not always in size.
    #[serde(default = "one")]
    pub variance_scale: f64,
    /// Share `e` of labels found to be wrong: a label was seen with probability `(1 - e) p + e (1 - p)`. Fitted
    /// beside the temperature, which would otherwise pay for the wrong labels; a preference is served without it.
    #[serde(default)]
    pub label_noise: f64,
    /// Whether a margin's variance draws its probability towards one half; not where the head's margins are marginal
    /// already ([`crate::Head::margins_are_marginal`]).
    #[serde(default = "yes")]
    pub moderated: bool,
    /// Logits are raised to it, their sign kept: above 1 where small margins are worth less, and large ones more, than a
    /// logistic curve has it, as when people are of several minds and the head knows of one.
    #[serde(default = "one")]
    pub shape: f64,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { temperature: 1.0, variance_scale: 1.0, label_noise: 0.0, moderated: true, shape: 1.0 }
    }
}

fn one() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

/// Nodes and weights of the 7-point Gauss-Hermite rule for a standard normal variable (positive half).
const HERMITE: [(f64, f64); 4] = [
    (0.0, 0.457_142_857_142_857_1),
    (1.154_405_394_739_968_2, 0.240_123_178_605_012_71),
    (2.366_759_410_734_541_3, 0.030_757_123_967_586_5),
    (3.750_439_717_725_742_3, 0.000_548_268_855_972_217_8),
];

/// Shares of wrong labels that a fit tries.
const NOISES: [f64; 12] = [0.0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15];
/// Scales of the variance that a fit tries; never 0, which would make certainty of ignorance.
const VARIANCE_SCALES: [f64; 9] = [1.0, 0.0625, 0.125, 0.25, 0.5, 2.0, 4.0, 8.0, 16.0];
/// Shapes that a fit tries.
const SHAPES: [f64; 6] = [1.0, 0.7, 0.85, 1.2, 1.45, 1.75];
/// What a share of wrong labels, or a scale or shape other than 1, must lower the total loss by to be believed, in nats: a likelihood
/// ratio that chance brings once in twenty.
const EARNED: f64 = 1.92;
/// Rounds of the fit's coordinates at most.
const ROUNDS: usize = 6;

impl Calibration {
    /// Checks numbers that came from a file.
    ///
    /// # Errors
    /// Unless temperature, shape and the variance's scale are finite and positive, and the noise is in `[0, 0.5)`.
    pub fn checked(self) -> Result<Self, HeadError> {
        check_noise(self.label_noise)?;
        let positive = [
            ("temperature", self.temperature),
            ("variance_scale", self.variance_scale),
            ("shape", self.shape),
        ];
        for (name, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return Err(HeadError::Parameter { name, detail: "is finite and positive".into() });
            }
        }
        Ok(self)
    }

    /// The probability for a margin with a posterior variance, both in logits.
    ///
    /// `sigmoid(m / sqrt(1 + pi v / 8))`, the logistic-normal integral's approximation (MacKay 1992), with
    /// `m = mean / T` and `v = c variance / T^2`; `sigmoid(m)` where it is not [`moderated`](Self::moderated). The logit is
    /// raised to the [`shape`](Self::shape). Exactly antisymmetric: `probability(-m) == 1 - probability(m)`.
    pub fn probability(self, mean: f64, variance: f64) -> f64 {
        let t = self.logit(mean, variance);
        // One branch and its complement, so that a swapped pair gives 1 - p to the last bit.
        if t >= 0.0 { sigmoid(t) } else { 1.0 - sigmoid(-t) }
    }

    /// `ln` of [`Calibration::probability`], exact where the probability underflows.
    pub fn log_probability(self, mean: f64, variance: f64) -> f64 {
        log_sigmoid(self.logit(mean, variance))
    }

    /// The probability together with the posterior standard deviation of `sigmoid(m)`.
    pub fn preference(self, mean: f64, variance: f64) -> Preference {
        let (m, v) = self.scaled(mean.abs(), variance);
        let deviation = v.sqrt();
        let (mut first, mut second) = (0.0, 0.0);
        for (at, (node, weight)) in HERMITE.into_iter().enumerate() {
            for sign in if at == 0 { &[1.0][..] } else { &[1.0, -1.0][..] } {
                let p = sigmoid(self.shaped(m + sign * node * deviation));
                first += weight * p;
                second += weight * p * p;
            }
        }
        Preference {
            probability: self.probability(mean, variance),
            uncertainty: (second - first * first).max(0.0).sqrt(),
        }
    }

    /// `m` and `v` of [`Calibration::probability`].
    pub(crate) fn scaled(self, mean: f64, variance: f64) -> (f64, f64) {
        let variance = self.variance_scale * variance.max(0.0);
        (mean / self.temperature, variance / (self.temperature * self.temperature))
    }

    fn logit(self, mean: f64, variance: f64) -> f64 {
        let (m, v) = self.scaled(mean, variance);
        self.shaped(if self.moderated { m / (1.0 + std::f64::consts::PI * v / 8.0).sqrt() } else { m })
    }

    /// A logit raised to the shape, odd to the last bit.
    pub(crate) fn shaped(self, logit: f64) -> f64 {
        if self.shape == 1.0 { logit } else { logit.abs().powf(self.shape).copysign(logit) }
    }

    /// The temperature, the variance's scale, the shape and the share of wrong labels of least log loss together, over held-out
    /// `(mean, variance, weight)` margins, each oriented so that the chosen response is `a`. In turn, a few shares, scales
    /// and shapes are tried, each with its best `ln T` in `[-4, 4]` (a coarse grid, golden-section search about its best
    /// point), until none changes; one that lowers the loss by less than 1.92 nats is not believed, and
    /// `ln T` has the prior `N(0, 1)`, as heads are trained to be right without it. So weights are to be in comparisons.
    /// Margins that are not moderated say nothing of their variances' scale, which stays 1.
    ///
    /// # Errors
    /// If there is no margin, or one is not finite.
    pub fn fit(margins: &[(f64, f64, f64)], moderated: bool) -> Result<Self, HeadError> {
        check_margins(margins)?;
        let loss = |calibration: Self| {
            let beliefs =
                [calibration.label_noise != 0.0, calibration.variance_scale != 1.0, calibration.shape != 1.0];
            calibration.loss(margins) + EARNED * beliefs.iter().filter(|held| **held).count() as f64
        };
        let with_temperature = |calibration: Self| {
            let fitted = calibration.with_best_temperature(&loss);
            (loss(fitted), fitted)
        };
        let mut best = with_temperature(Self { moderated, ..Self::default() });
        let scales = if moderated { &VARIANCE_SCALES[..] } else { &[] };
        for _ in 0..ROUNDS {
            let before = best;
            let noises = NOISES.map(|label_noise| Self { label_noise, ..before.1 });
            // What is tried must earn its place: equal losses keep what was there.
            let better = |best: (f64, Self), tried: (f64, Self)| if tried.0 < best.0 { tried } else { best };
            best = noises.into_iter().map(with_temperature).fold(best, better);
            let scaled = best.1;
            let scales = scales.iter().map(|scale| Self { variance_scale: *scale, ..scaled });
            best = scales.map(with_temperature).fold(best, better);
            if best.1 != before.1 {
                continue;
            }
            // Last, as it can stand in for either of the others.
            let shapes = SHAPES.map(|shape| Self { shape, ..best.1 });
            best = shapes.into_iter().map(with_temperature).fold(best, better);
            if best.1 == before.1 {
                break;
            }
        }
        Ok(best.1)
    }

    /// The same calibration with the temperature of least log loss; margins as of [`Calibration::fit`], at a fraction of its
    /// cost.
    ///
    /// # Errors
    /// If there is no margin, or one is not finite.
    pub fn fit_temperature(self, margins: &[(f64, f64, f64)]) -> Result<Self, HeadError> {
        check_margins(margins)?;
        Ok(self.with_best_temperature(&|calibration: Self| calibration.loss(margins)))
    }

    /// Negative log posterior of the temperature, up to a constant.
    fn loss(self, margins: &[(f64, f64, f64)]) -> f64 {
        let prior = self.temperature.ln().powi(2) / 2.0;
        prior - margins.iter().map(|(m, v, w)| w * self.log_label(*m, *v)).sum::<f64>()
    }

    fn with_best_temperature(self, loss: &impl Fn(Self) -> f64) -> Self {
        let at = |ln_t: f64| Self { temperature: ln_t.exp(), ..self };
        at(least(|ln_t| loss(at(ln_t))))
    }

    /// `ln` of the probability of seeing the label that says `a`.
    fn log_label(self, mean: f64, variance: f64) -> f64 {
        if self.label_noise == 0.0 {
            return self.log_probability(mean, variance);
        }
        let p = sigmoid(self.logit(mean, variance));
        (self.label_noise + (1.0 - 2.0 * self.label_noise) * p).ln()
    }
}

fn check_margins(margins: &[(f64, f64, f64)]) -> Result<(), HeadError> {
    if margins.is_empty() {
        return Err(HeadError::Parameter { name: "margins", detail: "there is none".into() });
    }
    if margins.iter().any(|(mean, variance, weight)| !(mean + variance + weight).is_finite()) {
        return Err(HeadError::NotFinite("a margin"));
    }
    Ok(())
}

/// Where a function of `ln T` is least in `[-4, 4]`, to 1e-5 within the best cell of a grid.
fn least(f: impl Fn(f64) -> f64) -> f64 {
    let grid: Vec<f64> = (0..=16).map(|step| -4.0 + 0.5 * f64::from(step)).collect();
    let start = grid
        .into_iter()
        .map(|t| (f(t), t))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .expect("the grid has points")
        .1;
    let ratio = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = ((start - 0.5).max(-4.0), (start + 0.5).min(4.0));
    let (mut left, mut right) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut loss_left, mut loss_right) = (f(left), f(right));
    while high - low > 1e-5 {
        if loss_left <= loss_right {
            (high, right, loss_right) = (right, left, loss_left);
            left = high - ratio * (high - low);
            loss_left = f(left);
        } else {
            (low, left, loss_left) = (left, right, loss_right);
            right = low + ratio * (high - low);
            loss_right = f(right);
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_undecided_margin_is_exactly_one_half() {
        assert!(
            (Calibration { temperature: 0.37, ..Calibration::default() }.probability(0.0, 2.0) - 0.5).abs()
                < f64::EPSILON
        );
    }

    #[test]
    fn moderation_agrees_with_the_golden_values() {
        // VPL/LoRe specification G2.3 and PAL specification G11 (float64 numpy), tolerance 1e-6.
        let plain = Calibration::default();
        for (m, v, certain, expected) in [
            (0.488_800, 0.169_808, 0.619_824, 0.616_159),
            (0.881_698, 0.543_972, 0.707_174, 0.690_049),
            (0.771_043, 0.355_502, 0.683_746, 0.673_107),
        ] {
            assert!((plain.probability(m, 0.0) - certain).abs() < 1e-6);
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
        // Every margin m appears often, in the proportion sigmoid(m / 2) as chosen: the best temperature is 2.
        let mut margins = Vec::new();
        for step in -30..=30 {
            let m = f64::from(step) / 10.0;
            margins.push((m, 0.0, 1000.0 * sigmoid(m / 2.0)));
        }
        let fitted = Calibration::fit(&margins, true).unwrap();
        assert!((fitted.temperature - 2.0).abs() < 1e-3, "{fitted:?}");
        assert!(Calibration::fit(&[], true).is_err());
        assert!(Calibration::fit(&[(f64::NAN, 0.0, 1.0)], true).is_err());
    }

    #[test]
    fn temperature_and_label_noise_are_recovered_together() {
        // Every margin m is labelled often, in the proportion (1 - e) sigmoid(m / 2) + e sigmoid(-m / 2), e = 0.05.
        let mut margins = Vec::new();
        for step in -80..=80 {
            let m = f64::from(step) / 5.0;
            let p = sigmoid(m / 2.0);
            margins.push((m, 0.0, 1000.0 * (0.05 + 0.9 * p)));
        }
        let fitted = Calibration::fit(&margins, true).unwrap();
        assert_eq!(fitted.label_noise, 0.05);
        assert!((fitted.temperature - 2.0).abs() < 1e-3, "{fitted:?}");
        let alone = Calibration { label_noise: 0.05, ..Calibration::default() };
        assert_eq!(alone.fit_temperature(&margins).unwrap(), fitted);
        let read: Calibration = serde_json::from_str(r#"{"temperature": 2.0}"#).unwrap();
        assert_eq!(read, Calibration { temperature: 2.0, ..Calibration::default() });
        assert!(Calibration { label_noise: 0.5, ..read }.checked().is_err());
        assert!(Calibration { variance_scale: 0.0, ..read }.checked().is_err());
    }

    #[test]
    fn variances_of_the_wrong_size_are_found_out() {
        // Labels as if a quarter of the stated variance were there, many for every margin.
        let truth = Calibration {
            temperature: 1.5,
            variance_scale: 0.25,
            label_noise: 0.02,
            ..Calibration::default()
        };
        let mut margins = Vec::new();
        for step in -40..=40 {
            for variance in [0.0, 1.0, 8.0, 30.0] {
                let m = f64::from(step) / 4.0;
                let p = truth.probability(m, variance);
                margins.push((m, variance, 1000.0 * (0.02 + 0.96 * p)));
            }
        }
        let fitted = Calibration::fit(&margins, true).unwrap();
        assert_eq!((fitted.variance_scale, fitted.label_noise), (0.25, 0.02));
        assert!((fitted.temperature - 1.5).abs() < 1e-3, "{fitted:?}");
    }

    #[test]
    fn margins_that_are_marginal_are_not_widened_again() {
        let marginal = Calibration { temperature: 2.0, moderated: false, ..Calibration::default() };
        assert_eq!(marginal.probability(1.0, 30.0), sigmoid(0.5));
        assert!(marginal.preference(1.0, 30.0).uncertainty > marginal.preference(1.0, 1.0).uncertainty);
        let margins: Vec<_> = (-30..=30)
            .map(|step| f64::from(step) / 10.0)
            .map(|m| (m, 9.0, 1000.0 * sigmoid(m / 2.0)))
            .collect();
        let fitted = Calibration::fit(&margins, false).unwrap();
        assert!((fitted.temperature - 2.0).abs() < 1e-3 && fitted.variance_scale == 1.0, "{fitted:?}");
    }

    #[test]
    fn a_head_that_averages_two_minds_is_given_their_shape() {
        // Where minds differ, margins are small and say nothing; where all agree, they are large and right.
        let undecided = (-10..=10).map(|step| (f64::from(step) / 10.0, 0.0, 200.0));
        let agreed = [(2.0, 0.0, 4000.0), (3.0, 0.0, 4000.0), (-2.0, 0.0, 40.0), (-3.0, 0.0, 20.0)];
        let margins: Vec<_> = undecided.chain(agreed).collect();
        let fitted = Calibration::fit(&margins, true).unwrap();
        assert!(fitted.shape > 1.0, "{fitted:?}");
        assert!((fitted.probability(0.3, 0.0) - 0.5).abs() < 0.1 && fitted.probability(3.0, 0.0) > 0.98);
    }

    #[test]
    fn noise_that_a_few_labels_hint_at_is_not_believed() {
        // One label in forty is wrong at a large margin: the loss falls, but by less than chance often brings.
        let few: Vec<_> = (0..40).map(|at| (if at == 0 { -1.0 } else { 2.5 }, 0.0, 1.0)).collect();
        assert_eq!(Calibration::fit(&few, true).unwrap().label_noise, 0.0);
        let many: Vec<_> = (0..4000).map(|at| (if at % 40 == 0 { -6.0 } else { 6.0 }, 0.0, 1.0)).collect();
        let margins: Vec<_> = many
            .into_iter()
            .chain((-30..=30).map(|m| f64::from(m) / 10.0).map(|m| (m, 0.0, 9.0 * sigmoid(m))))
            .collect();
        assert!(Calibration::fit(&margins, true).unwrap().label_noise > 0.0);
    }

    proptest! {
        #[test]
        fn swapping_a_pair_gives_exactly_one_minus_p(
            m in -60.0..60.0_f64, v in 0.0..50.0_f64, temperature in 0.05..20.0_f64,
        ) {
            let shape = if v > 40.0 { 1.45 } else { 1.0 };
            let moderated = v > 25.0;
            let calibration = Calibration { temperature, label_noise: 0.1, variance_scale: 0.7, moderated, shape };
            let (there, back) = (calibration.preference(m, v), calibration.preference(-m, v));
            prop_assert_eq!(there.probability, 1.0 - back.probability);
            prop_assert_eq!(1.0 - there.probability, back.probability);
            prop_assert_eq!(there.uncertainty, back.uncertainty);
            prop_assert!((0.0..=1.0).contains(&there.probability));
        }
    }
}
