//! How sure one may be of the weights of a logistic regression.

use ndarray::{Array1, Array2, ArrayView2};

use crate::{
    calibration::sigmoid,
    cholesky::Cholesky,
    head::{HeadError, check_len},
};

/// Covariance of Laplace's posterior about the weights of a linear reward, `[S, S]`: the inverse of
/// `P I + sum_n s_n p_n (1 - p_n) x_n x_nᵀ`, `p_n = sigmoid(x_n . w)`.
///
/// Shapes: `differences` `[N, S]`, features of chosen less rejected; `strengths` `[N]`; `weights` `[S]`. `prior_precision`
/// is `P`.
///
/// # Errors
/// Inputs of different lengths, a number that is not finite, or a precision that is not positive.
pub fn laplace_covariance(
    differences: ArrayView2<'_, f32>,
    strengths: &[f64],
    weights: &Array1<f64>,
    prior_precision: f64,
) -> Result<Array2<f64>, HeadError> {
    /// Rows that are held in double precision at once.
    const CHUNK: usize = 4096;
    check_len("strengths", differences.nrows(), strengths.len())?;
    check_len("the weights", differences.ncols(), weights.len())?;
    if !(prior_precision > 0.0 && prior_precision.is_finite()) {
        return Err(HeadError::Parameter {
            name: "prior_precision",
            detail: "is finite and positive".into(),
        });
    }
    let mut hessian = Array2::eye(weights.len()) * prior_precision;
    for (rows, strengths) in
        differences.axis_chunks_iter(ndarray::Axis(0), CHUNK).zip(strengths.chunks(CHUNK))
    {
        let x = rows.mapv(f64::from);
        let mut scaled = x.clone();
        for ((mut row, margin), strength) in scaled.rows_mut().into_iter().zip(x.dot(weights)).zip(strengths)
        {
            let p = sigmoid(margin);
            row *= strength * p * (1.0 - p);
        }
        hessian = hessian + x.t().dot(&scaled);
    }
    Ok(Cholesky::of(hessian)?.inverse())
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_covariance_agrees_with_golden_g2_3() {
        // VPL/LoRe specification G2.3 (float64 numpy): at the most likely weights, unit prior; tolerance 1e-6.
        let differences = array![[1.0_f32, -0.44], [-0.05, -0.63], [-0.41, 1.33], [1.23, -0.50]];
        let weights = array![0.951_240, 0.449_054];
        let covariance = laplace_covariance(differences.view(), &[1.0; 4], &weights, 1.0).unwrap();
        for (actual, expected) in covariance.iter().zip([0.670_835, 0.143_062, 0.143_062, 0.645_295]) {
            assert!((actual - expected).abs() < 1e-6, "{actual} {expected}");
        }
    }

    #[test]
    fn inputs_that_do_not_fit_are_refused() {
        let x = array![[1.0_f32, 2.0]];
        assert!(laplace_covariance(x.view(), &[], &array![0.0, 0.0], 1.0).is_err());
        assert!(laplace_covariance(x.view(), &[1.0], &array![0.0], 1.0).is_err());
        assert!(laplace_covariance(x.view(), &[1.0], &array![0.0, 0.0], 0.0).is_err());
        assert!(laplace_covariance(x.view(), &[1.0], &array![f64::NAN, 0.0], 1.0).is_err());
    }
}
