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
/// each one product of matrices: of the users' means, and of their covariances as rows, with the texts'.
pub(crate) fn affine_moments(users: &[&UserState], x: ArrayView2<'_, f32>) -> Result<Moments, HeadError> {
    let size = x.ncols() - 1;
    let mut weights = Array2::ones((users.len(), size + 1));
    let mut spreads = Array2::zeros((users.len(), size * (size + 1) / 2));
    for ((user, mut weights), mut spread) in users.iter().zip(weights.rows_mut()).zip(spreads.rows_mut()) {
        check_len("a user state", size, user.mean().len())?;
        weights.slice_mut(s![..size]).assign(&user.mean());
        let pairs = (0..size).flat_map(|i| (0..=i).map(move |j| (i, j)));
        for ((i, j), packed) in pairs.zip(&mut spread) {
            let covariance = user.covariance();
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
    Ok(Moments { mean: weights.dot(&x.t()), variance })
}

/// `[z, q]` of every text.
pub(crate) fn join(blocks: &[ArrayView2<'_, f32>]) -> Result<Array2<f32>, HeadError> {
    let features = concatenate(Axis(1), blocks).expect("all blocks have a row a text");
    if features.iter().all(|x| x.is_finite()) { Ok(features) } else { Err(HeadError::NotFinite("a feature")) }
}
