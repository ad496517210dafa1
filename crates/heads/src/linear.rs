//! How sure one may be of the weights of a logistic regression.

use ndarray::{Array1, Array2, ArrayView2};

use crate::{
    calibration::sigmoid,
    cholesky::Cholesky,
    head::{HeadError, check_len},
};

/// Laplace's posterior about the weights of a linear reward, of comparisons that are added a part at a time: its precision is
/// `P I + sum_n s_n p_n (1 - p_n) x_n x_nᵀ`, `p_n = sigmoid(x_n . w)`.
#[derive(Debug, Clone)]
pub struct LaplacePosterior {
    weights: Array1<f64>,
    precision: Array2<f64>,
}

impl LaplacePosterior {
    /// With no comparison yet: `weights` `[S]` are the most likely ones, `prior_precision` is `P`.
    ///
    /// # Errors
    /// A precision that is not finite and positive.
    pub fn new(weights: Array1<f64>, prior_precision: f64) -> Result<Self, HeadError> {
        if !(prior_precision > 0.0 && prior_precision.is_finite()) {
            return Err(HeadError::Parameter {
                name: "prior_precision",
                detail: "is finite and positive".into(),
            });
        }
        let precision = Array2::eye(weights.len()) * prior_precision;
        Ok(Self { weights, precision })
    }

    /// Adds comparisons: `differences` `[N, S]` are features of chosen less rejected; `strengths` `[N]`.
    ///
    /// # Errors
    /// Inputs of different lengths.
    pub fn add(&mut self, differences: ArrayView2<'_, f32>, strengths: &[f64]) -> Result<(), HeadError> {
        check_len("strengths", differences.nrows(), strengths.len())?;
        check_len("the weights", differences.ncols(), self.weights.len())?;
        let x = differences.mapv(f64::from);
        let mut scaled = x.clone();
        let margins = x.dot(&self.weights);
        for ((mut row, margin), strength) in scaled.rows_mut().into_iter().zip(margins).zip(strengths) {
            let p = sigmoid(margin);
            row *= strength * p * (1.0 - p);
        }
        self.precision += &x.t().dot(&scaled);
        Ok(())
    }

    /// The covariance, `[S, S]`.
    ///
    /// # Errors
    /// A number among the inputs that was not finite.
    pub fn covariance(self) -> Result<Array2<f64>, HeadError> {
        Ok(Cholesky::of(self.precision)?.inverse())
    }
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
        let mut posterior = LaplacePosterior::new(weights, 1.0).unwrap();
        for part in differences.axis_chunks_iter(ndarray::Axis(0), 3) {
            posterior.add(part, &vec![1.0; part.nrows()]).unwrap();
        }
        let covariance = posterior.covariance().unwrap();
        for (actual, expected) in covariance.iter().zip([0.670_835, 0.143_062, 0.143_062, 0.645_295]) {
            assert!((actual - expected).abs() < 1e-6, "{actual} {expected}");
        }
    }

    #[test]
    fn inputs_that_do_not_fit_are_refused() {
        let x = array![[1.0_f32, 2.0]];
        let posterior = |weights: Array1<f64>| LaplacePosterior::new(weights, 1.0).unwrap();
        assert!(posterior(array![0.0, 0.0]).add(x.view(), &[]).is_err());
        assert!(posterior(array![0.0]).add(x.view(), &[1.0]).is_err());
        assert!(LaplacePosterior::new(array![0.0, 0.0], 0.0).is_err());
        let mut not_finite = posterior(array![f64::NAN, 0.0]);
        not_finite.add(x.view(), &[1.0]).unwrap();
        assert!(not_finite.covariance().is_err());
    }
}
