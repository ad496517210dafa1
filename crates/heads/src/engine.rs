//! One engine for every head whose reward is linear in the person: features `[z (K), q]`, reward `w . z + q`.

use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate, s};

use crate::{
    evidence::{Vote, canonical, check_noise, labels, negate, votes},
    head::{HeadError, Moments, Observation, check_len},
    posterior::{Linear, Posterior, check_alpha, gaussian_newton, simplex_newton},
    state::UserState,
};

/// Rows whose products of features are held at once.
const CHUNK: usize = 1024;

/// Texts up to which every person's covariance is read as it is, rather than packed for one product.
const FEW_ROWS: usize = 8;

/// Where a person's weights come from before any example.
#[derive(Debug, Clone)]
pub(crate) enum Prior {
    /// `w ~ N(0, I)`, so many.
    Gaussian(usize),
    /// `w` on the simplex, with density `prod w_k^alpha_k` over its logits.
    Simplex(Array1<f64>),
}

impl Prior {
    fn len(&self) -> usize {
        match self {
            Self::Gaussian(len) => *len,
            Self::Simplex(alpha) => alpha.len(),
        }
    }
}

/// People as weights over `z`.
#[derive(Debug, Clone)]
pub(crate) struct LinearUsers {
    prior: Prior,
    label_noise: f64,
    population: UserState,
}

impl LinearUsers {
    pub(crate) fn new(prior: Prior, label_noise: f64) -> Result<Self, HeadError> {
        check_noise(label_noise)?;
        if let Prior::Simplex(alpha) = &prior {
            check_alpha(alpha.view())?;
        }
        let population = state(&solve(&prior, &[], label_noise, None)?, 0)?;
        Ok(Self { prior, label_noise, population })
    }

    pub(crate) fn feature_len(&self) -> usize {
        self.prior.len() + 1
    }

    pub(crate) fn label_noise(&self) -> f64 {
        self.label_noise
    }

    pub(crate) fn population(&self) -> &UserState {
        &self.population
    }

    pub(crate) fn adapt(
        &self,
        examples: &[Observation<'_>],
        start: Option<&UserState>,
    ) -> Result<UserState, HeadError> {
        let width = self.feature_len();
        let votes = votes(examples, width, |chosen, rejected| {
            chosen.iter().zip(rejected).map(|(chosen, rejected)| chosen - rejected).collect()
        })?;
        let votes = canonical(votes, negate)?;
        if votes.is_empty() {
            return Ok(self.population.clone().with_examples(examples.len()));
        }
        let start = start.map(|state| state.mean().mapv(f64::from));
        state(&solve(&self.prior, &votes, self.label_noise, start.as_ref())?, examples.len())
    }

    pub(crate) fn rewards(
        &self,
        users: &[&UserState],
        features: ArrayView2<'_, f32>,
    ) -> Result<Moments, HeadError> {
        check_len("features", self.feature_len(), features.ncols())?;
        self.moments(users, features.to_owned())
    }

    pub(crate) fn mean_rewards(
        &self,
        users: &[&UserState],
        features: ArrayView2<'_, f32>,
    ) -> Result<Array2<f32>, HeadError> {
        check_len("features", self.feature_len(), features.ncols())?;
        let mut features = features.to_owned();
        if matches!(self.prior, Prior::Simplex(_)) {
            centre(&mut features);
        }
        affine_means(users, features.view())
    }

    pub(crate) fn margins(
        &self,
        users: &[&UserState],
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<Moments, HeadError> {
        check_len("features", self.feature_len(), a.ncols())?;
        check_len("features", self.feature_len(), b.ncols())?;
        check_len("the second responses", a.nrows(), b.nrows())?;
        self.moments(users, &a - &b)
    }

    fn moments(&self, users: &[&UserState], mut features: Array2<f32>) -> Result<Moments, HeadError> {
        if matches!(self.prior, Prior::Simplex(_)) {
            centre(&mut features);
        }
        affine_moments(users, features.view())
    }
}

/// Moves what the `z` of a row have in common into its `q`: the same reward where weights sum to 1, and smaller
/// numbers to multiply a covariance by whose rows sum to 0.
fn centre(features: &mut Array2<f32>) {
    let last = features.ncols() - 1;
    for mut row in features.rows_mut() {
        let mean = row.slice(s![..last]).sum() / last as f32;
        row.slice_mut(s![..last]).map_inplace(|z| *z -= mean);
        row[last] += mean;
    }
}

fn solve(
    prior: &Prior,
    votes: &[Vote],
    label_noise: f64,
    start: Option<&Array1<f64>>,
) -> Result<Posterior, HeadError> {
    let start = start.map(|start| start.view());
    let (model, labels) = (Linear::of(votes, prior.len()), labels(votes, label_noise));
    match prior {
        Prior::Gaussian(_) => gaussian_newton(&model, &labels, start),
        Prior::Simplex(alpha) => simplex_newton(&model, &labels, alpha.view(), start),
    }
}

/// A posterior as a state.
pub(crate) fn state(posterior: &Posterior, examples: usize) -> Result<UserState, HeadError> {
    let narrow = |x: f64| x as f32;
    UserState::new(posterior.mean.mapv(narrow), posterior.covariance.mapv(narrow), examples)
}

/// Mean `[w, 1] . x` and variance `zᵀ Σ z` of every row `x = [z, q]` under every user's `N(w, Σ)`; both `[U, N]`,
/// the means in one product of matrices.
pub(crate) fn affine_moments(users: &[&UserState], x: ArrayView2<'_, f32>) -> Result<Moments, HeadError> {
    let mean = affine_means(users, x)?;
    let variance = if x.nrows() <= FEW_ROWS { each_spread(users, x) } else { all_spreads(users, x) };
    Ok(Moments { mean, variance })
}

/// The means of [`affine_moments`].
fn affine_means(users: &[&UserState], x: ArrayView2<'_, f32>) -> Result<Array2<f32>, HeadError> {
    let size = x.ncols() - 1;
    let mut weights = Array2::ones((users.len(), size + 1));
    for (user, mut weights) in users.iter().zip(weights.rows_mut()) {
        check_len("a user state", size, user.mean().len())?;
        weights.slice_mut(s![..size]).assign(&user.mean());
    }
    Ok(weights.dot(&x.t()))
}

/// Variances for many users and few texts: every covariance is read once, where it lies.
fn each_spread(users: &[&UserState], x: ArrayView2<'_, f32>) -> Array2<f32> {
    let size = x.ncols() - 1;
    let texts: Vec<Vec<f32>> = x.rows().into_iter().map(|row| row.slice(s![..size]).to_vec()).collect();
    let mut variance = Array2::zeros((users.len(), x.nrows()));
    for (user, mut variance) in users.iter().zip(variance.rows_mut()) {
        let covariance = user.covariance();
        let rows = covariance.as_slice().expect("a state's covariance is in standard layout");
        for (z, v) in texts.iter().zip(&mut variance) {
            let quadratic: f32 =
                rows.chunks_exact(size.max(1)).zip(z).map(|(row, z_i)| z_i * dot(row, z)).sum();
            *v = quadratic.max(0.0);
        }
    }
    variance
}

/// Variances for many texts: covariances and texts' products as rows, one product of matrices.
fn all_spreads(users: &[&UserState], x: ArrayView2<'_, f32>) -> Array2<f32> {
    let size = x.ncols() - 1;
    let mut spreads = Array2::zeros((users.len(), size * (size + 1) / 2));
    for (user, mut spread) in users.iter().zip(spreads.rows_mut()) {
        let covariance = user.covariance();
        let pairs = (0..size).flat_map(|i| (0..=i).map(move |j| (i, j)));
        for ((i, j), packed) in pairs.zip(&mut spread) {
            *packed = if i == j { covariance[[i, i]] } else { covariance[[i, j]] + covariance[[j, i]] };
        }
    }
    let mut variance = Array2::zeros((users.len(), x.nrows()));
    for (chunk, mut variance) in
        x.axis_chunks_iter(Axis(0), CHUNK).zip(variance.axis_chunks_iter_mut(Axis(1), CHUNK))
    {
        let mut products = Array2::zeros((chunk.nrows(), spreads.ncols()));
        for (row, mut products) in chunk.rows().into_iter().zip(products.rows_mut()) {
            let pairs = (0..size).flat_map(|i| (0..=i).map(move |j| (i, j)));
            for ((i, j), product) in pairs.zip(&mut products) {
                *product = row[i] * row[j];
            }
        }
        variance.assign(&spreads.dot(&products.t()).mapv_into(|v| v.max(0.0)));
    }
    variance
}

/// A product in eight sums side by side, which become vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0.0_f32; LANES];
    let (chunks_a, chunks_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = chunks_a.remainder().iter().zip(chunks_b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in chunks_a.zip(chunks_b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// `[z, q]` of every text.
pub(crate) fn join(blocks: &[ArrayView2<'_, f32>]) -> Result<Array2<f32>, HeadError> {
    let features = concatenate(Axis(1), blocks).expect("all blocks have a row a text");
    if features.iter().all(|x| x.is_finite()) { Ok(features) } else { Err(HeadError::NotFinite("a feature")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variance_is_the_same_among_few_texts_and_among_many() {
        // Eleven weights, so that a row of a covariance does not fill whole lanes; tolerance 1e-5 relative.
        let size = 11;
        let root = Array2::from_shape_fn((size, size), |(i, j)| ((i * 7 + j * 3) as f32).sin());
        let user = UserState::new(Array1::zeros(size), root.dot(&root.t()), 1).unwrap();
        let x = Array2::from_shape_fn((5, size + 1), |(i, j)| ((i * 5 + j) as f32 * 0.7).cos());
        let (each, all) = (each_spread(&[&user, &user], x.view()), all_spreads(&[&user, &user], x.view()));
        for (each, all) in each.iter().zip(&all) {
            assert!((each - all).abs() <= 1e-5 * all.abs(), "{each} {all}");
        }
        assert_eq!(each, each_spread(&[&user, &user], x.mapv(|x| -x).view()));
    }
}
