//! What a person's comparisons leave of a prior: the most likely weights, and Laplace's covariance about them.
//!
//! The likelihood of one comparison is `(1 - e) sigmoid(m) + e sigmoid(-m)` (see [`LinearEvidence`]), which is not
//! convex where `e > 0`. Every search therefore goes first to the minimum of the convex loss
//! `-(1 - e) ln sigmoid(m) - e ln sigmoid(-m)`, the same from wherever it began, and from there to the minimum
//! near it: where a search starts changes how long it takes, not where it ends.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, CowArray, Ix2};

use crate::{
    cholesky::Cholesky,
    evidence::{Label, Vote, check_noise, derivatives, labels, negate, rows, usable},
    head::{HeadError, check_len},
};

/// Newton's decrement, per comparison, at which a search ends.
const TOLERANCE: f64 = 1e-13;
/// Newton steps after which a search ends wherever it is.
const MAX_STEPS: usize = 200;
/// A step length below which a search has arrived as far as numbers of 64 bits can tell.
const SHORTEST_STEP: f64 = 1e-8;
/// Share of the way to the simplex' boundary that a step may take.
const TO_BOUNDARY: f64 = 0.99;

/// Comparisons whose margins are linear in a person's weights: `m_i = directions_i . w + offsets_i`.
///
/// A label is right with probability `c_i` but for a share `label_noise` of slips:
/// `e_i = label_noise + (1 - 2 label_noise)(1 - c_i)`, and comparison `i` enters with
/// `strengths_i ln[(1 - e_i) sigmoid(m_i) + e_i sigmoid(-m_i)]`.
#[derive(Debug, Clone, Copy)]
pub struct LinearEvidence<'a> {
    /// Chosen minus rejected, `[n, K]`.
    pub directions: ArrayView2<'a, f64>,
    /// The part of the margin that does not depend on the person, `[n]`.
    pub offsets: ArrayView1<'a, f64>,
    /// Weights in the likelihood, `[n]`, not negative.
    pub strengths: &'a [f64],
    /// Probabilities that the labels are right, `[n]`.
    pub confidences: &'a [f64],
    /// Share of labels wrong besides, in `[0, 0.5)`.
    pub label_noise: f64,
}

/// A Gaussian about the most likely weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Posterior {
    /// `[K]`.
    pub mean: Array1<f64>,
    /// Inverse of the (never negative) curvature there, `[K, K]`.
    pub covariance: Array2<f64>,
    /// Newton steps taken.
    pub steps: usize,
}

/// Where a search ended, and the factor of its Hessian there.
struct Found {
    mean: Array1<f64>,
    factor: Option<Cholesky>,
    steps: usize,
}

/// Margins as a function of a person's weights.
pub(crate) trait MarginModel {
    /// `[n]`.
    fn margins(&self, weights: &Array1<f64>) -> Array1<f64>;
    /// Derivatives of the margins, `[n, K]`.
    fn jacobian(&self, weights: &Array1<f64>) -> CowArray<'_, f64, Ix2>;
}

/// Margins that are linear in the weights.
pub(crate) struct Linear {
    directions: Array2<f64>,
    offsets: Array1<f64>,
}

impl MarginModel for Linear {
    fn margins(&self, weights: &Array1<f64>) -> Array1<f64> {
        self.directions.dot(weights) + &self.offsets
    }

    fn jacobian(&self, _weights: &Array1<f64>) -> CowArray<'_, f64, Ix2> {
        self.directions.view().into()
    }
}

impl Linear {
    /// Of votes whose rows are directions and an offset, `[n, K + 1]`.
    pub(crate) fn of(votes: &[Vote], width: usize) -> Self {
        let rows = rows(votes, width + 1);
        let (directions, offsets) = rows.view().split_at(Axis(1), width);
        Self { directions: directions.to_owned(), offsets: offsets.column(0).to_owned() }
    }
}

impl LinearEvidence<'_> {
    fn checked(&self) -> Result<(Linear, Vec<Label>), HeadError> {
        let (n, width) = self.directions.dim();
        check_noise(self.label_noise)?;
        check_len("offsets", n, self.offsets.len())?;
        check_len("strengths", n, self.strengths.len())?;
        check_len("confidences", n, self.confidences.len())?;
        let votes = (0..n).map(|at| Vote {
            row: self.directions.row(at).iter().copied().chain([self.offsets[at]]).collect(),
            names: [0, 0],
            strength: self.strengths[at],
            confidence: self.confidences[at],
        });
        let votes = usable(votes.collect(), negate)?;
        Ok((Linear::of(&votes, width), labels(&votes, self.label_noise)))
    }
}

/// The posterior under the prior `w ~ N(0, I)`.
///
/// A comparison pulls no further than it is strong: `|w| <= sum_i strengths_i |directions_i|`, because at the
/// minimum `w = -sum_i slope_i directions_i` and no slope exceeds its strength.
///
/// # Errors
/// Inputs of different lengths, or a number that no evidence has.
pub fn gaussian_posterior(
    evidence: &LinearEvidence<'_>,
    start: Option<ArrayView1<'_, f64>>,
) -> Result<Posterior, HeadError> {
    let (model, labels) = evidence.checked()?;
    gaussian_newton(&model, &labels, start)
}

/// [`gaussian_posterior`] of checked votes.
pub(crate) fn gaussian_newton(
    model: &Linear,
    labels: &[Label],
    start: Option<ArrayView1<'_, f64>>,
) -> Result<Posterior, HeadError> {
    let size = model.directions.ncols();
    let mut mean = Array1::zeros(size);
    if let Some(start) = start {
        check_len("the start", size, start.len())?;
        if start.iter().all(|x| x.is_finite()) {
            mean.assign(&start);
        }
    }
    if labels.is_empty() {
        mean.fill(0.0);
    }
    let mut found = Found { mean, factor: None, steps: 0 };
    for convex in phases(labels) {
        found = gaussian_search(model, labels, *convex, found)?;
    }
    let covariance = found.factor.expect("every search leaves one").inverse();
    Ok(Posterior { mean: found.mean, covariance, steps: found.steps })
}

/// The posterior under the density `prod_k w_k^alpha_k` over the weights' logits, `w` on the simplex.
///
/// Without comparisons it is `alpha / sum alpha`. The covariance lies in the simplex: its rows sum to 0. With
/// `R_i = max_k directions_ik - min_k directions_ik` no weight falls below `alpha_k / (sum alpha + sum_i s_i R_i)`,
/// because at the minimum `alpha_k / w_k = sum alpha - sum_i slope_i (w . directions_i - directions_ik)`.
///
/// # Errors
/// Inputs of different lengths, an `alpha` that is not positive, or a number that no evidence has.
pub fn simplex_posterior(
    evidence: &LinearEvidence<'_>,
    alpha: ArrayView1<'_, f64>,
    start: Option<ArrayView1<'_, f64>>,
) -> Result<Posterior, HeadError> {
    check_len("alpha", evidence.directions.ncols(), alpha.len())?;
    let (model, labels) = evidence.checked()?;
    simplex_newton(&model, &labels, alpha, start)
}

/// [`simplex_posterior`] for margins of any shape.
pub(crate) fn simplex_newton(
    model: &dyn MarginModel,
    labels: &[Label],
    alpha: ArrayView1<'_, f64>,
    start: Option<ArrayView1<'_, f64>>,
) -> Result<Posterior, HeadError> {
    check_alpha(alpha)?;
    let prior = &alpha / alpha.sum();
    let mut mean = prior.clone();
    if let Some(start) = start {
        check_len("the start", alpha.len(), start.len())?;
        let inside = start.iter().all(|w| *w > 0.0 && w.is_finite());
        if inside && (start.sum() - 1.0).abs() < 1e-3 {
            mean = &start / start.sum();
        }
    }
    if labels.is_empty() {
        mean = prior;
    }
    let mut found = Found { mean, factor: None, steps: 0 };
    for convex in phases(labels) {
        found = simplex_search(model, labels, alpha, *convex, found)?;
    }
    let covariance = tangent(&found.factor.expect("every search leaves one"), &found.mean);
    Ok(Posterior { mean: found.mean, covariance, steps: found.steps })
}

/// Checks the parameters of a prior on the simplex.
pub(crate) fn check_alpha(alpha: ArrayView1<'_, f64>) -> Result<(), HeadError> {
    if !alpha.is_empty() && alpha.iter().all(|a| *a > 0.0 && a.is_finite()) {
        Ok(())
    } else {
        Err(HeadError::Parameter { name: "alpha", detail: "is finite and positive".into() })
    }
}

/// Whether each search is of the convex loss; one suffices where labels are certain, as the two agree.
fn phases(labels: &[Label]) -> &'static [bool] {
    if labels.iter().all(|label| label.noise == 0.0) { &[true] } else { &[true, false] }
}

fn loss(model: &dyn MarginModel, labels: &[Label], weights: &Array1<f64>, convex: bool) -> f64 {
    let margins = model.margins(weights);
    let losses = labels.iter().zip(&margins).map(
        |(label, m)| {
            if convex { label.convex_loss(*m) } else { label.loss(*m) }
        },
    );
    losses.sum()
}

/// Gradient and (never negative) Hessian of the loss.
fn curvature(
    model: &dyn MarginModel,
    labels: &[Label],
    weights: &Array1<f64>,
    convex: bool,
) -> (Array1<f64>, Array2<f64>) {
    let [slopes, curvatures] = derivatives(labels, &model.margins(weights), convex);
    let jacobian = model.jacobian(weights);
    let gradient = jacobian.t().dot(&slopes);
    let scaled = &jacobian * &curvatures.insert_axis(Axis(1));
    (gradient, jacobian.t().dot(&scaled))
}

/// The longest of the step lengths `length, length / 2, ...` that lowers the loss by as much as Armijo asks;
/// `None` if even the shortest does not.
fn backtrack(mut length: f64, before: f64, decrement: f64, loss: impl Fn(f64) -> f64) -> Option<f64> {
    let slack = 1e-15 * before.abs();
    while length > SHORTEST_STEP {
        if loss(length) <= before - 1e-4 * length * decrement + slack {
            return Some(length);
        }
        length /= 2.0;
    }
    None
}

fn gaussian_search(model: &Linear, labels: &[Label], convex: bool, from: Found) -> Result<Found, HeadError> {
    let Found { mut mean, mut steps, .. } = from;
    let objective = |w: &Array1<f64>| loss(model, labels, w, convex) + w.dot(w) / 2.0;
    let last = steps + MAX_STEPS;
    loop {
        let (mut gradient, mut hessian) = curvature(model, labels, &mean, convex);
        gradient += &mean;
        hessian.diag_mut().map_inplace(|h| *h += 1.0);
        let factor = Cholesky::of(hessian)?;
        let step = factor.solve(&gradient);
        let decrement = gradient.dot(&step);
        let length = if decrement < TOLERANCE * (1.0 + labels.len() as f64) || steps == last {
            None
        } else {
            backtrack(1.0, objective(&mean), decrement, |length| objective(&(&mean - &(&step * length))))
        };
        let Some(length) = length else {
            return Ok(Found { mean, factor: Some(factor), steps });
        };
        mean.scaled_add(-length, &step);
        steps += 1;
    }
}

/// Newton's step in the coordinates `w_k (1 + y_k)`, in which the prior's Hessian is `diag(alpha)` everywhere,
/// with `w . y = 0` keeping the sum.
fn simplex_search(
    model: &dyn MarginModel,
    labels: &[Label],
    alpha: ArrayView1<'_, f64>,
    convex: bool,
    from: Found,
) -> Result<Found, HeadError> {
    let Found { mut mean, mut steps, .. } = from;
    let objective = |w: &Array1<f64>| {
        let prior: f64 = alpha.iter().zip(w).map(|(a, w)| a * w.ln()).sum();
        loss(model, labels, w, convex) - prior
    };
    let last = steps + MAX_STEPS;
    loop {
        let (gradient, hessian) = curvature(model, labels, &mean, convex);
        let gradient = gradient * &mean - alpha;
        let mut scaled = hessian * &mean * mean.view().insert_axis(Axis(1));
        scaled.diag_mut().scaled_add(1.0, &alpha);
        let factor = Cholesky::of(scaled)?;
        let (towards, along) = (factor.solve(&gradient), factor.solve(&mean));
        let step = &along * (mean.dot(&towards) / mean.dot(&along)) - &towards;
        let decrement = -gradient.dot(&step);
        let furthest = step.iter().fold(1.0_f64, |t, y| if *y < 0.0 { t.min(-TO_BOUNDARY / y) } else { t });
        let moved = |length: f64| &mean * &(&step * length + 1.0);
        let length = if decrement < TOLERANCE * (1.0 + labels.len() as f64) || steps == last {
            None
        } else {
            backtrack(furthest, objective(&mean), decrement, |length| objective(&moved(length)))
        };
        let Some(length) = length else {
            return Ok(Found { mean, factor: Some(factor), steps });
        };
        mean = moved(length);
        mean /= mean.sum();
        steps += 1;
    }
}

/// The covariance in the simplex, `D (A⁻¹ - A⁻¹ w wᵀ A⁻¹ / wᵀ A⁻¹ w) D` with `D = diag(w)`.
fn tangent(factor: &Cholesky, weights: &Array1<f64>) -> Array2<f64> {
    let (inverse, along) = (factor.inverse(), factor.solve(weights));
    let total = weights.dot(&along);
    Array2::from_shape_fn(inverse.dim(), |(i, j)| {
        (inverse[[i, j]] - along[i] * along[j] / total) * weights[i] * weights[j]
    })
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::calibration::{Calibration, sigmoid};

    fn close<'a>(actual: impl IntoIterator<Item = &'a f64>, expected: &[f64], tolerance: f64) {
        let actual: Vec<f64> = actual.into_iter().copied().collect();
        assert_eq!(actual.len(), expected.len());
        for (actual, expected) in actual.iter().zip(expected) {
            assert!((actual - expected).abs() < tolerance, "{actual} {expected}");
        }
    }

    fn evidence<'a>(directions: &'a Array2<f64>, offsets: &'a Array1<f64>) -> LinearEvidence<'a> {
        LinearEvidence {
            directions: directions.view(),
            offsets: offsets.view(),
            strengths: &[1.0; 8][..directions.nrows()],
            confidences: &[1.0; 8][..directions.nrows()],
            label_noise: 0.0,
        }
    }

    fn at_least(model: &Array2<f64>, weights: &Array1<f64>) -> f64 {
        model.dot(weights).iter().map(|m| -sigmoid(*m).ln()).sum()
    }

    #[test]
    fn the_simplex_posterior_agrees_with_golden_g11() {
        // PAL specification G11 (float64 numpy), s = 2, whose prior's exponent is alpha - 1; tolerance 1e-6.
        let deltas = array![[1.2, -0.4, 0.1], [0.8, 0.5, -0.9], [-0.3, 1.1, 0.2], [2.0, -1.0, 0.4]] * 2.0;
        let fresh = array![2.0, -1.0, 0.6];
        // Without a prior, at equal weights.
        let model = Linear { directions: deltas.clone(), offsets: Array1::zeros(4) };
        let (gradient, _) = curvature(
            &model,
            &[Label { strength: 1.0, noise: 0.0 }; 4],
            &Array1::from_elem(3, 1.0 / 3.0),
            true,
        );
        close(&gradient, &[-2.469_835, -0.332_089, 0.348_341], 1e-6);
        for (exponent, w, objective, covariance, [mean, variance, moderated]) in [
            (
                0.5,
                [0.527_130, 0.285_177, 0.187_693],
                3.139_874,
                [
                    0.079_477, -0.046_991, -0.032_486, -0.046_991, 0.069_404, -0.022_413, -0.032_486,
                    -0.022_413, 0.054_899,
                ],
                [0.881_698, 0.543_972, 0.690_049],
            ),
            (
                1.0,
                [0.463_514, 0.298_673, 0.237_813],
                4.877_115,
                [
                    0.054_499, -0.029_187, -0.025_312, -0.029_187, 0.046_065, -0.016_878, -0.025_312,
                    -0.016_878, 0.042_191,
                ],
                [0.771_043, 0.355_502, 0.673_107],
            ),
        ] {
            let alpha = array![exponent, exponent, exponent];
            let offsets = Array1::zeros(4);
            let posterior = simplex_posterior(&evidence(&deltas, &offsets), alpha.view(), None).unwrap();
            close(&posterior.mean, &w, 1e-6);
            close(&posterior.covariance, &covariance, 1e-6);
            let prior: f64 = posterior.mean.iter().map(|w| exponent * w.ln()).sum();
            assert!((at_least(&deltas, &posterior.mean) - prior - objective).abs() < 1e-6);
            let m = fresh.dot(&posterior.mean);
            let v = fresh.dot(&posterior.covariance.dot(&fresh));
            close(&[m, v, Calibration::default().probability(m, v)], &[mean, variance, moderated], 2e-6);
            // The specification's own search took 5 and 4 steps to a decrement of 1e-12.
            assert!(posterior.steps <= 6, "{}", posterior.steps);
        }
    }

    #[test]
    fn the_gaussian_posterior_agrees_with_golden_g2_3() {
        // VPL/LoRe specification G2.3 (float64 numpy): a prior mean of (0.5, 0.5) is an offset; tolerance 1e-6.
        let z = array![[1.0, -0.44], [-0.05, -0.63], [-0.41, 1.33], [1.23, -0.50]];
        let centre = array![0.5, 0.5];
        let offsets = z.dot(&centre);
        let posterior = gaussian_posterior(&evidence(&z, &offsets), None).unwrap();
        let weights = &posterior.mean + &centre;
        close(&weights, &[0.951_240, 0.449_054], 1e-6);
        close(&posterior.covariance, &[0.670_835, 0.143_062, 0.143_062, 0.645_295], 1e-6);
        let objective = at_least(&z, &weights) + posterior.mean.dot(&posterior.mean) / 2.0;
        assert!((objective - 2.283_879).abs() < 1e-6);
    }

    #[test]
    fn loss_and_gradient_agree_with_golden_g2_1_and_g2_2() {
        // G2.1: differences through the basis. G2.2: mean loss at w = softmax(u) and its gradient by u = 0 and, at
        // either c, the losses after 1, 10 and 500 of the reference's steps, at their weights; tolerance 1e-6.
        let basis = array![[0.8, -0.5], [0.1, 0.9], [-0.6, 0.4]];
        let d = array![[1.0, 0.2, -0.3], [0.4, -0.7, 0.5], [-0.2, 1.1, 0.6], [0.9, 0.3, -0.8]];
        let z: Array2<f64> = d.dot(&basis);
        close(&z, &[1.0, -0.44, -0.05, -0.63, -0.41, 1.33, 1.23, -0.50], 1e-12);
        let certain = [Label { strength: 0.25, noise: 0.0 }; 4];
        for (c, w, nll, slope) in [
            (1.0, 0.5, 0.614_254_835, Some(-0.062_137)),
            (1.0, 0.731_059, 0.570_297_188, None),
            (1.0, 0.996_860, 0.551_813_969, None),
            (1.0, 0.999_843, 0.551_789_509, None),
            (100.0, 0.5, 0.692_192_614, Some(-0.000_628)),
            (100.0, 0.731_055, 0.691_613_548, None),
            (100.0, 0.999_178, 0.690_945_110, None),
            (100.0, 0.999_989, 0.690_943_094, None),
        ] {
            let model = Linear { directions: &z / c, offsets: Array1::zeros(4) };
            let weights = array![w, 1.0 - w];
            assert!((loss(&model, &certain, &weights, false) - nll).abs() < 1e-6);
            if let Some(slope) = slope {
                let (gradient, _) = curvature(&model, &certain, &weights, false);
                let by_logits = (&gradient - weights.dot(&gradient)) * &weights;
                close(&by_logits, &[slope, -slope], 1e-6);
            }
        }
    }

    #[test]
    fn votes_that_cancel_pin_a_margin_and_leave_its_answer_open() {
        // Of one number with the prior N(0, 1): n votes that cancel leave the variance 1 / (1 + n / 4) exactly, less than votes
        // that agree do, as a logistic curve is steepest there. What they leave open is the answer, `p (1 - p) sd` to first order.
        for n in [2, 4, 8] {
            let offsets = Array1::zeros(n);
            let after = |turn: f64| {
                let directions =
                    Array2::from_shape_fn((n, 1), |(at, _)| if at % 2 == 1 { turn } else { 1.0 });
                let posterior = gaussian_posterior(&evidence(&directions, &offsets), None).unwrap();
                let (mean, variance) = (posterior.mean[0], posterior.covariance[[0, 0]]);
                (mean, variance, sigmoid(mean) * sigmoid(-mean) * variance.sqrt())
            };
            let ((for_it, agree, open), (neither, cancel, wider_open)) = (after(1.0), after(-1.0));
            assert!(neither.abs() < 1e-9 && for_it > 0.5);
            assert!((cancel - 1.0 / (1.0 + n as f64 / 4.0)).abs() < 1e-9 && cancel < agree);
            assert!(wider_open > open, "{n}: {wider_open} {open}");
        }
    }

    #[test]
    fn a_search_ends_where_it_would_have_from_the_prior() {
        let directions = array![[3.0, -1.0, 0.5], [-2.5, 1.2, 0.3], [0.4, 0.6, -4.0], [2.0, 0.1, 0.2]];
        let offsets = array![0.3, -0.8, 0.0, 1.0];
        for label_noise in [0.0, 0.05] {
            let evidence = LinearEvidence { label_noise, ..evidence(&directions, &offsets) };
            let cold = gaussian_posterior(&evidence, None).unwrap();
            let warm = gaussian_posterior(&evidence, Some(array![-9.0, 30.0, 4.0].view())).unwrap();
            close(&warm.mean, cold.mean.as_slice().unwrap(), 1e-6);
            let again = gaussian_posterior(&evidence, Some(cold.mean.view())).unwrap();
            assert!(label_noise > 0.0 || again.steps < cold.steps);
            let alpha = array![0.2, 0.1, 0.3];
            let cold = simplex_posterior(&evidence, alpha.view(), None).unwrap();
            let warm =
                simplex_posterior(&evidence, alpha.view(), Some(array![0.9, 0.05, 0.05].view())).unwrap();
            close(&warm.mean, cold.mean.as_slice().unwrap(), 1e-6);
            assert!(cold.covariance.sum_axis(Axis(0)).iter().all(|sum| sum.abs() < 1e-12));
        }
    }

    #[test]
    fn extreme_margins_leave_finite_posteriors() {
        let directions = array![[1e4, -1e4, 3.0], [1e4, 1e4, -3.0], [-1e4, 0.0, 1e4]];
        let offsets = array![1e4, -1e4, 0.0];
        for label_noise in [0.0, 0.02] {
            let evidence = LinearEvidence { label_noise, ..evidence(&directions, &offsets) };
            let gaussian = gaussian_posterior(&evidence, None).unwrap();
            let simplex = simplex_posterior(&evidence, array![0.02, 0.02, 0.02].view(), None).unwrap();
            for posterior in [gaussian, simplex] {
                assert!(posterior.mean.iter().chain(&posterior.covariance).all(|x| x.is_finite()));
                assert!(posterior.covariance.diag().iter().all(|v| *v >= 0.0));
            }
        }
    }

    #[test]
    fn evidence_that_is_none_is_refused() {
        let (directions, offsets) = (array![[1.0, 2.0]], array![0.0]);
        let evidence = evidence(&directions, &offsets);
        let alpha = array![1.0, 1.0];
        assert!(simplex_posterior(&evidence, array![1.0].view(), None).is_err());
        assert!(simplex_posterior(&evidence, array![1.0, 0.0].view(), None).is_err());
        assert!(simplex_posterior(&evidence, alpha.view(), Some(array![1.0].view())).is_err());
        assert!(gaussian_posterior(&LinearEvidence { label_noise: 0.5, ..evidence }, None).is_err());
        assert!(gaussian_posterior(&LinearEvidence { strengths: &[], ..evidence }, None).is_err());
        assert!(gaussian_posterior(&LinearEvidence { confidences: &[2.0], ..evidence }, None).is_err());
    }
}
