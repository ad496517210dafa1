//! What a model believes of a person.

use ndarray::{Array1, Array2, ArrayView1};

use crate::head::{HeadError, check_len};

/// A posterior over a person's parameters: mean, covariance, and the number of examples behind it.
///
/// Derivable from the examples alone, so it is never the truth, only a cache of it.
#[derive(Debug, Clone, PartialEq)]
pub struct UserState {
    /// The mean, `[S]`, and after it the spread: see [`StateView::parts`].
    numbers: Box<[f32]>,
    size: usize,
    examples: usize,
}

/// A [`UserState`] read where its numbers lie: on its own, or as a row among those of many people.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StateView<'a> {
    mean: &'a [f32],
    /// The variances, or the lower triangle of the covariance: see [`Spread`].
    spread: &'a [f32],
    examples: usize,
}

impl<'a> StateView<'a> {
    /// A row of numbers that came of [`StateView::parts`].
    ///
    /// # Errors
    /// If the spread of so many parameters has another length.
    pub fn from_parts(mean: &'a [f32], spread: &'a [f32], examples: usize) -> Result<Self, HeadError> {
        if spread.len() != mean.len() {
            check_len("a state's spread", triangle_len(mean.len()), spread.len())?;
        }
        Ok(Self { mean, spread, examples })
    }

    /// The mean, `[S]`, and what is kept of the covariance: `S` variances, or `S (S + 1) / 2` of its lower triangle.
    pub fn parts(&self) -> (&'a [f32], &'a [f32]) {
        (self.mean, self.spread)
    }

    /// `S`, the number of parameters.
    pub fn size(&self) -> usize {
        self.mean.len()
    }

    /// Posterior mean, `[S]`.
    pub fn mean(&self) -> ArrayView1<'a, f32> {
        self.mean.into()
    }

    /// [`StateView::mean`] as numbers that lie side by side.
    pub(crate) fn mean_slice(&self) -> &'a [f32] {
        self.mean
    }

    /// Posterior variances, `[S]`.
    pub fn variances(&self) -> Array1<f32> {
        match self.spread() {
            Spread::Diagonal(variances) => variances.iter().copied().collect(),
            Spread::Triangle(triangle) => (0..self.size()).map(|i| triangle[i * (i + 3) / 2]).collect(),
        }
    }

    /// Posterior covariance, `[S, S]`, symmetric; written out from what is kept.
    pub fn covariance(&self) -> Array2<f32> {
        let mut covariance = Array2::zeros((self.size(), self.size()));
        match self.spread() {
            Spread::Diagonal(variances) => covariance.diag_mut().assign(&ArrayView1::from(variances)),
            Spread::Triangle(triangle) => {
                for ((i, j), value) in pairs(self.size()).zip(triangle) {
                    covariance[[i, j]] = *value;
                    covariance[[j, i]] = *value;
                }
            }
        }
        covariance
    }

    /// The covariance as it is kept.
    pub(crate) fn spread(&self) -> Spread<'a> {
        // Of one parameter the two are the same.
        if self.spread.len() == self.mean.len() {
            Spread::Diagonal(self.spread)
        } else {
            Spread::Triangle(self.spread)
        }
    }

    /// Bytes of the numbers it reads.
    pub fn bytes(&self) -> usize {
        size_of_val(self.mean) + size_of_val(self.spread)
    }

    /// How many examples the state was adapted to.
    pub fn examples(&self) -> usize {
        self.examples
    }
}

/// Numbers in the lower triangle of a covariance of `S` parameters.
fn triangle_len(size: usize) -> usize {
    size * (size + 1) / 2
}

/// A covariance as a state keeps it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Spread<'a> {
    /// Variances alone, `[S]`: nothing varies with anything else.
    Diagonal(&'a [f32]),
    /// The lower triangle, row by row, `[S (S + 1) / 2]`.
    Triangle(&'a [f32]),
}

impl<'a> From<&'a UserState> for StateView<'a> {
    fn from(state: &'a UserState) -> Self {
        state.view()
    }
}

impl UserState {
    /// A state of `S` parameters. Of a covariance that is not symmetric, the symmetric part counts.
    ///
    /// # Errors
    /// If the covariance is not `[S, S]`, or a number is not finite, or a variance is negative.
    pub fn new(mean: Array1<f32>, covariance: Array2<f32>, examples: usize) -> Result<Self, HeadError> {
        check_len("rows of the covariance", mean.len(), covariance.nrows())?;
        check_len("columns of the covariance", mean.len(), covariance.ncols())?;
        let size = mean.len();
        let triangle = pairs(size).map(|(i, j)| f32::midpoint(covariance[[i, j]], covariance[[j, i]]));
        let numbers: Box<[f32]> = mean.iter().copied().chain(triangle).collect();
        Self { numbers, size, examples }.checked(covariance.diag().iter())
    }

    /// A state of `S` parameters that are independent of one another, with their variances.
    ///
    /// # Errors
    /// If there is not a variance for each, or a number is not finite, or a variance is negative.
    pub fn independent(
        mean: &Array1<f32>,
        variances: &Array1<f32>,
        examples: usize,
    ) -> Result<Self, HeadError> {
        check_len("variances", mean.len(), variances.len())?;
        let numbers = mean.iter().chain(variances).copied().collect();
        Self { numbers, size: mean.len(), examples }.checked(variances.iter())
    }

    fn checked<'a>(self, mut variances: impl Iterator<Item = &'a f32>) -> Result<Self, HeadError> {
        if self.numbers.iter().any(|x| !x.is_finite()) {
            return Err(HeadError::NotFinite("a user state"));
        }
        if variances.any(|variance| *variance < 0.0) {
            return Err(HeadError::Parameter { name: "covariance", detail: "a variance is negative".into() });
        }
        Ok(self)
    }

    /// The state, read where it lies.
    pub fn view(&self) -> StateView<'_> {
        let (mean, spread) = self.numbers.split_at(self.size);
        StateView { mean, spread, examples: self.examples }
    }

    /// Whether nothing varies with anything else, and variances are all that is kept.
    pub fn is_independent(&self) -> bool {
        matches!(self.view().spread(), Spread::Diagonal(_))
    }

    /// `S`, the number of parameters.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Posterior mean, `[S]`.
    pub fn mean(&self) -> ArrayView1<'_, f32> {
        self.view().mean()
    }

    /// Posterior variances, `[S]`.
    pub fn variances(&self) -> Array1<f32> {
        self.view().variances()
    }

    /// Posterior covariance, `[S, S]`, symmetric; written out from what is kept.
    pub fn covariance(&self) -> Array2<f32> {
        self.view().covariance()
    }

    /// Bytes of the numbers it holds.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.numbers)
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

/// Places of a lower triangle, row by row.
pub(crate) fn pairs(size: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..size).flat_map(|i| (0..=i).map(move |j| (i, j)))
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn a_covariance_comes_back_as_it_was_put_in() {
        let covariance = array![[2.0, 0.5, -0.25], [0.5, 3.0, 0.125], [-0.25, 0.125, 1.0]];
        let state = UserState::new(array![1.0, 2.0, 3.0], covariance.clone(), 4).unwrap();
        assert_eq!((state.mean().to_owned(), state.covariance()), (array![1.0, 2.0, 3.0], covariance));
        assert_eq!((state.variances(), state.size(), state.examples()), (array![2.0, 3.0, 1.0], 3, 4));
        let independent = UserState::independent(&array![1.0, 2.0], &array![0.5, 0.0], 1).unwrap();
        assert_eq!(independent.covariance(), array![[0.5, 0.0], [0.0, 0.0]]);
        assert_eq!((independent.variances(), independent.bytes()), (array![0.5, 0.0], 16));
        let one = UserState::new(array![1.0], array![[0.5]], 0).unwrap();
        assert_eq!((one.covariance(), one.variances()), (array![[0.5]], array![0.5]));
        assert_eq!(UserState::new(array![], Array2::zeros((0, 0)), 0).unwrap().covariance().dim(), (0, 0));
    }

    #[test]
    fn a_row_is_read_as_the_state_it_was_taken_from() {
        let full = UserState::new(array![1.0, 2.0], array![[2.0, 0.5], [0.5, 3.0]], 4).unwrap();
        let independent = UserState::independent(&array![1.0, 2.0], &array![0.5, 0.0], 1).unwrap();
        for (state, is_independent) in [(full, false), (independent, true)] {
            let (mean, spread) = state.view().parts();
            let row = StateView::from_parts(mean, spread, state.examples()).unwrap();
            assert_eq!(
                (row, state.is_independent(), row.bytes()),
                (state.view(), is_independent, state.bytes())
            );
            assert_eq!((row.covariance(), row.variances()), (state.covariance(), state.variances()));
        }
        assert!(StateView::from_parts(&[1.0, 2.0], &[1.0], 0).is_err());
    }

    #[test]
    fn numbers_that_are_no_posterior_are_refused() {
        assert!(UserState::new(array![1.0], array![[1.0, 0.0]], 0).is_err());
        assert!(UserState::new(array![f32::NAN], array![[1.0]], 0).is_err());
        assert!(UserState::new(array![1.0, 1.0], array![[1.0, f32::INFINITY], [0.0, 1.0]], 0).is_err());
        assert!(UserState::new(array![1.0], array![[-1.0]], 0).is_err());
        assert!(UserState::independent(&array![1.0], &array![1.0, 1.0], 0).is_err());
        assert!(UserState::independent(&array![1.0], &array![-1.0], 0).is_err());
    }
}
