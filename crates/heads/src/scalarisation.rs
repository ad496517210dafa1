//! One number a response from a mixture of Bradley-Terry heads, whose pair probabilities no single reward need have.
//!
//! Both are linear in a person's weights and do not change if a head adds a constant to all its rewards.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};

use crate::calibration::sigmoid;

/// Mean probability of being preferred to one of the other responses, `[R]`; for two responses, the probability of
/// being preferred.
///
/// Shapes: `rewards` `[R, K]` of `R` responses under `K` heads, `weights` `[K]`. A single response gets 1/2.
pub fn borda(rewards: ArrayView2<'_, f64>, weights: ArrayView1<'_, f64>) -> Array1<f64> {
    let mut wins = Array2::from_elem(rewards.dim(), 0.5);
    if rewards.nrows() > 1 {
        for ((response, head), mean) in wins.indexed_iter_mut() {
            let others = rewards.column(head);
            let sum: f64 = others.iter().map(|other| sigmoid(rewards[[response, head]] - other)).sum();
            // Against itself it wins half.
            *mean = (sum - 0.5) / (rewards.nrows() - 1) as f64;
        }
    }
    wins.dot(&weights)
}

/// Probability of being the best of all responses under a mixture of Plackett-Luce models, `[R]`.
///
/// Shapes as in [`borda`].
pub fn plackett_luce(rewards: ArrayView2<'_, f64>, weights: ArrayView1<'_, f64>) -> Array1<f64> {
    let mut shares = rewards.to_owned();
    for mut head in shares.axis_iter_mut(Axis(1)) {
        let highest = head.fold(f64::NEG_INFINITY, |a, b| a.max(*b));
        head.map_inplace(|r| *r = (*r - highest).exp());
        let sum = head.sum();
        head /= sum;
    }
    shares.dot(&weights)
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn close(actual: &Array1<f64>, expected: &[f64]) {
        for (actual, expected) in actual.iter().zip(expected) {
            assert!((actual - expected).abs() < 1e-6, "{actual} {expected}");
        }
    }

    #[test]
    fn scalars_agree_with_golden_g10_and_ignore_a_heads_offset() {
        // PAL and MiCRo specification G10 (float64 numpy), tolerance 1e-6.
        let rewards = array![[2.0, -1.0], [0.0, 0.6], [1.0, 0.2]];
        let weights = array![0.4, 0.6];
        for shift in [0.0, 3.0] {
            let rewards = &rewards + &array![[0.0, shift]];
            close(&borda(rewards.view(), weights.view()), &[0.442_208, 0.506_841, 0.550_951]);
            close(&plackett_luce(rewards.view(), weights.view()), &[0.330_799, 0.356_488, 0.312_713]);
            let linear = rewards.dot(&weights);
            close(&(&linear - linear[0]), &[0.0, 0.16, 0.32]);
        }
    }

    #[test]
    fn a_cycle_is_a_tie_and_extremes_stay_finite() {
        // The Condorcet case of G10.
        let rewards = array![[3.0, 0.0, -3.0], [0.0, -3.0, 3.0], [-3.0, 3.0, 0.0]];
        let weights = array![1.0, 1.0, 1.0] / 3.0;
        close(&borda(rewards.view(), weights.view()), &[0.5; 3]);
        close(&plackett_luce((rewards * 1e4).view(), weights.view()), &[1.0 / 3.0; 3]);
        close(&borda(array![[1.0]].view(), array![1.0].view()), &[0.5]);
    }
}
