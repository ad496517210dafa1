//! What a model believes of a person.

use ndarray::{Array1, Array2, ArrayView1};

use crate::head::{HeadError, check_len};

/// A posterior over a person's parameters: mean, covariance, and the number of examples behind it.
///
/// Derivable from the examples alone, so it is never the truth, only a cache of it.
#[derive(Debug, Clone, PartialEq)]
pub struct UserState {
    mean: Array1<f32>,
    /// Symmetric, `[S, S]`.
    covariance: Array2<f32>,
    examples: usize,
}

impl UserState {
    /// A state of `S` parameters.
    ///
    /// # Errors
    /// If the covariance is not `[S, S]`, or a number is not finite, or a variance is negative.
    pub fn new(mean: Array1<f32>, covariance: Array2<f32>, examples: usize) -> Result<Self, HeadError> {
        check_len("rows of the covariance", mean.len(), covariance.nrows())?;
        check_len("columns of the covariance", mean.len(), covariance.ncols())?;
        if mean.iter().chain(&covariance).any(|x| !x.is_finite()) {
            return Err(HeadError::NotFinite("a user state"));
        }
        if covariance.diag().iter().any(|variance| *variance < 0.0) {
            return Err(HeadError::Parameter { name: "covariance", detail: "a variance is negative".into() });
        }
        // Row after row, as whoever reads many of them does.
        let covariance = if covariance.is_standard_layout() {
            covariance
        } else {
            covariance.as_standard_layout().into_owned()
        };
        Ok(Self { mean, covariance, examples })
    }

    /// Posterior mean, `[S]`.
    pub fn mean(&self) -> ArrayView1<'_, f32> {
        self.mean.view()
    }

    /// Posterior covariance, `[S, S]`, in standard layout.
    pub fn covariance(&self) -> &Array2<f32> {
        &self.covariance
    }

    /// How many examples the state was adapted to.
    pub fn examples(&self) -> usize {
        self.examples
    }

    /// The same belief, attributed to a number of examples.
    #[must_use]
    pub fn with_examples(mut self, examples: usize) -> Self {
        self.examples = examples;
        self
    }
}
