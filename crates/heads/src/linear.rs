//! Rewards that are linear in the user: their moments, and the convex fit of a user or population vector.

use ndarray::{Array1, Array2, ArrayView2, Axis};

use crate::{
    calibration::sigmoid,
    cholesky::Cholesky,
    head::{HeadError, Moments, check_len},
    state::UserState,
};

/// Mean `x·w` and variance `xᵀ Σ x` of every row of `x` `[N, S]` under every user's `N(w, Σ)`; both `[U, N]`.
pub(crate) fn linear_moments(users: &[&UserState], x: ArrayView2<'_, f32>) -> Result<Moments, HeadError> {
    let mut mean = Array2::zeros((users.len(), x.nrows()));
    let mut variance = Array2::zeros((users.len(), x.nrows()));
    for (row, user) in users.iter().enumerate() {
        check_len("a user state", x.ncols(), user.mean().len())?;
        mean.row_mut(row).assign(&x.dot(&user.mean()));
        let spread = x.dot(user.covariance()) * x;
        variance.row_mut(row).assign(&spread.sum_axis(Axis(1)).mapv(|v| v.max(0.0)));
    }
    Ok(Moments { mean, variance })
}

/// A Gaussian prior and a logistic likelihood over linear margins: the problem whose solution is a weight vector.
///
/// Minimises `sum_n s_n [c_n l(x_n·w) + (1 - c_n) l(-x_n·w)] + (w - w0)ᵀ P (w - w0) / 2` with
/// `l(t) = ln(1 + e^-t)`; convex, so the minimum is the only one, and Newton's method finds it.
#[derive(Debug)]
pub struct LogisticMap<'a> {
    /// Differences of features, chosen minus rejected, `[N, S]`.
    pub differences: ArrayView2<'a, f32>,
    /// Weight of each row in the likelihood, `[N]`.
    pub strengths: &'a [f64],
    /// Probability that each label is right, `[N]`.
    pub confidences: &'a [f64],
    /// `w0`, `[S]`.
    pub prior_mean: &'a Array1<f64>,
    /// `P`, the same for every coordinate: `precision * I`.
    pub prior_precision: f64,
    /// Where the search begins; the prior mean if `None`. It changes the steps taken, not the minimum.
    pub start: Option<&'a Array1<f64>>,
}

/// The minimum of a [`LogisticMap`] and the inverse of the Hessian there (Laplace's approximation).
#[derive(Debug, Clone)]
pub struct LogisticFit {
    /// `[S]`.
    pub weights: Array1<f64>,
    /// `[S, S]`.
    pub covariance: Array2<f64>,
    /// Newton steps taken.
    pub steps: usize,
}

/// Newton's method with backtracking, until the decrement is below `1e-10` per row.
///
/// # Errors
/// Inputs of different lengths, a number that is not finite, or a precision that is not positive.
pub fn fit_logistic_map(problem: &LogisticMap<'_>) -> Result<LogisticFit, HeadError> {
    let x = problem.differences.mapv(f64::from);
    check_len("strengths", x.nrows(), problem.strengths.len())?;
    check_len("confidences", x.nrows(), problem.confidences.len())?;
    check_len("the prior mean", x.ncols(), problem.prior_mean.len())?;
    if !(problem.prior_precision > 0.0 && problem.prior_precision.is_finite()) {
        return Err(HeadError::Parameter {
            name: "prior_precision",
            detail: "is finite and positive".into(),
        });
    }
    if x.iter().chain(problem.strengths).chain(problem.confidences).any(|value| !value.is_finite()) {
        return Err(HeadError::NotFinite("a comparison"));
    }
    let mut weights = problem.start.unwrap_or(problem.prior_mean).clone();
    check_len("the start", x.ncols(), weights.len())?;
    let tolerance = 1e-10 * (1.0 + x.nrows() as f64);
    let mut steps = 0;
    loop {
        let (loss, gradient, hessian) = derivatives(problem, &x, &weights);
        let factor = Cholesky::of(hessian)?;
        let step = factor.solve(&gradient);
        let decrement = gradient.dot(&step);
        if decrement < tolerance || steps == 50 {
            return Ok(LogisticFit { weights, covariance: factor.inverse(), steps });
        }
        let mut length = 1.0;
        while loss_at(problem, &x, &(&weights - &(&step * length))) > loss - 1e-4 * length * decrement
            && length > 1e-6
        {
            length /= 2.0;
        }
        weights = weights - step * length;
        steps += 1;
    }
}

/// `l(t) = ln(1 + e^-t)`.
fn softplus_negative(t: f64) -> f64 {
    -crate::calibration::log_sigmoid(t)
}

fn loss_at(problem: &LogisticMap<'_>, x: &Array2<f64>, weights: &Array1<f64>) -> f64 {
    let from_prior = weights - problem.prior_mean;
    let prior = problem.prior_precision * from_prior.dot(&from_prior) / 2.0;
    let rows = x.dot(weights).into_iter().zip(problem.strengths).zip(problem.confidences);
    prior
        + rows
            .map(|((t, s), c)| s * (c * softplus_negative(t) + (1.0 - c) * softplus_negative(-t)))
            .sum::<f64>()
}

fn derivatives(
    problem: &LogisticMap<'_>,
    x: &Array2<f64>,
    weights: &Array1<f64>,
) -> (f64, Array1<f64>, Array2<f64>) {
    let margins = x.dot(weights);
    let mut slope = Array1::zeros(x.nrows());
    let mut scaled = x.clone();
    for (n, (mut row, t)) in scaled.rows_mut().into_iter().zip(&margins).enumerate() {
        let (p, s, c) = (sigmoid(*t), problem.strengths[n], problem.confidences[n]);
        slope[n] = s * (p - c);
        row *= s * p * (1.0 - p);
    }
    let gradient = x.t().dot(&slope) + (weights - problem.prior_mean) * problem.prior_precision;
    let mut hessian = x.t().dot(&scaled);
    hessian.diag_mut().map_inplace(|h| *h += problem.prior_precision);
    (loss_at(problem, x, weights), gradient, hessian)
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_map_fit_agrees_with_golden_g2_3() {
        // VPL/LoRe specification G2.3 (float64 numpy): prior mean (0.5, 0.5), unit covariance; tolerance 1e-5.
        let differences = array![[1.0_f32, -0.44], [-0.05, -0.63], [-0.41, 1.33], [1.23, -0.50]];
        let problem = LogisticMap {
            differences: differences.view(),
            strengths: &[1.0; 4],
            confidences: &[1.0; 4],
            prior_mean: &array![0.5, 0.5],
            prior_precision: 1.0,
            start: None,
        };
        let fit = fit_logistic_map(&problem).unwrap();
        let expected = [0.951_240, 0.449_054, 0.670_835, 0.143_062, 0.143_062, 0.645_295];
        for (actual, expected) in fit.weights.iter().chain(&fit.covariance).zip(expected) {
            assert!((actual - expected).abs() < 1e-5, "{actual} {expected}");
        }
        let x = differences.mapv(f64::from);
        assert!((loss_at(&problem, &x, &fit.weights) - 2.283_879).abs() < 1e-5);
    }

    #[test]
    fn a_label_of_confidence_one_half_leaves_the_prior() {
        let fit = fit_logistic_map(&LogisticMap {
            differences: array![[3.0_f32, -1.0]].view(),
            strengths: &[4.0],
            confidences: &[0.5],
            prior_mean: &array![0.0, 0.0],
            prior_precision: 2.0,
            start: None,
        })
        .unwrap();
        assert!(fit.weights.iter().all(|w| w.abs() < 1e-9));
    }
}
