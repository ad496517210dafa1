//! One engine for every head whose reward is linear in the person: features `[z (K), q]`, reward `w . z + q`.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, concatenate, s};

use crate::{
    evidence::{Vote, canonical, check_noise, labels, negate, votes},
    head::{HeadError, Moments, Observation, PairMoments, check_len},
    posterior::{Linear, Posterior, check_alpha, gaussian_newton, simplex_newton},
    state::{Spread, StateView, UserState, pairs},
};

/// Rows whose products of features are held at once.
const CHUNK: usize = 1024;

/// Texts up to which every person's state is read where it lies, rather than gathered for one product.
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
        users: &[StateView<'_>],
        features: ArrayView2<'_, f32>,
    ) -> Result<Moments, HeadError> {
        check_len("features", self.feature_len(), features.ncols())?;
        self.moments(users, features.to_owned())
    }

    pub(crate) fn mean_rewards(
        &self,
        users: &[StateView<'_>],
        features: ArrayView2<'_, f32>,
    ) -> Result<Array2<f32>, HeadError> {
        check_len("features", self.feature_len(), features.ncols())?;
        affine_means(users, self.centred(features.to_owned()).view())
    }

    pub(crate) fn margins(
        &self,
        users: &[StateView<'_>],
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<Moments, HeadError> {
        check_len("features", self.feature_len(), a.ncols())?;
        check_len("features", self.feature_len(), b.ncols())?;
        check_len("the second responses", a.nrows(), b.nrows())?;
        self.moments(users, &a - &b)
    }

    pub(crate) fn pairs(
        &self,
        users: &[StateView<'_>],
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<PairMoments, HeadError> {
        if a.nrows() > FEW_ROWS {
            let (reward_a, reward_b) = (self.mean_rewards(users, a)?, self.mean_rewards(users, b)?);
            return Ok(PairMoments { reward_a, reward_b, margin: self.margins(users, a, b)? });
        }
        check_len("features", self.feature_len(), a.ncols())?;
        check_len("features", self.feature_len(), b.ncols())?;
        check_len("the second responses", a.nrows(), b.nrows())?;
        let few = |features: Array2<f32>| FewText::all(self.centred(features).view());
        let (of_a, of_b, between) = (few(a.to_owned()), few(b.to_owned()), few(&a - &b));
        let zeros = || Array2::zeros((users.len(), a.nrows()));
        let mut pairs = PairMoments {
            reward_a: zeros(),
            reward_b: zeros(),
            margin: Moments { mean: zeros(), variance: zeros() },
        };
        for (u, user) in users.iter().copied().enumerate() {
            check_len("a user state", self.prior.len(), user.size())?;
            for n in 0..a.nrows() {
                pairs.reward_a[[u, n]] = of_a[n].mean(user);
                pairs.reward_b[[u, n]] = of_b[n].mean(user);
                pairs.margin.mean[[u, n]] = between[n].mean(user);
                pairs.margin.variance[[u, n]] = between[n].variance(user);
            }
        }
        Ok(pairs)
    }

    fn moments(&self, users: &[StateView<'_>], features: Array2<f32>) -> Result<Moments, HeadError> {
        affine_moments(users, self.centred(features).view())
    }

    /// Features as they meet the weights.
    fn centred(&self, mut features: Array2<f32>) -> Array2<f32> {
        if matches!(self.prior, Prior::Simplex(_)) {
            centre(&mut features);
        }
        features
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

/// Mean `[w, 1] . x` and variance `zᵀ Σ z` of every row `x = [z, q]` under every user's `N(w, Σ)`; both `[U, N]`.
pub(crate) fn affine_moments(users: &[StateView<'_>], x: ArrayView2<'_, f32>) -> Result<Moments, HeadError> {
    if x.nrows() > FEW_ROWS {
        return Ok(Moments { mean: affine_means(users, x)?, variance: all_spreads(users, x)? });
    }
    let texts = FewText::all(x);
    let shape = (users.len(), x.nrows());
    let (mut mean, mut variance) = (Array2::zeros(shape), Array2::zeros(shape));
    for ((user, mut mean), mut variance) in
        users.iter().copied().zip(mean.rows_mut()).zip(variance.rows_mut())
    {
        check_len("a user state", x.ncols() - 1, user.size())?;
        for ((text, mean), variance) in texts.iter().zip(&mut mean).zip(&mut variance) {
            (*mean, *variance) = (text.mean(user), text.variance(user));
        }
    }
    Ok(Moments { mean, variance })
}

/// The means of [`affine_moments`].
fn affine_means(users: &[StateView<'_>], x: ArrayView2<'_, f32>) -> Result<Array2<f32>, HeadError> {
    let size = x.ncols() - 1;
    for user in users {
        check_len("a user state", size, user.size())?;
    }
    if x.nrows() <= FEW_ROWS {
        let texts = FewText::all(x);
        return Ok(Array2::from_shape_fn((users.len(), x.nrows()), |(u, n)| texts[n].mean(users[u])));
    }
    let mut weights = Array2::ones((users.len(), size + 1));
    for (user, mut weights) in users.iter().zip(weights.rows_mut()) {
        weights.slice_mut(s![..size]).assign(&user.mean());
    }
    Ok(weights.dot(&x.t()))
}

/// One of few texts before many users: each state is read once, where it lies.
struct FewText {
    z: Vec<f32>,
    q: f32,
    squares: Vec<f32>,
    /// What a triangle is multiplied by.
    products: Vec<f32>,
}

impl FewText {
    fn all(x: ArrayView2<'_, f32>) -> Vec<Self> {
        x.rows().into_iter().map(Self::of).collect()
    }

    fn of(x: ArrayView1<'_, f32>) -> Self {
        let size = x.len() - 1;
        let z = x.slice(s![..size]);
        let mut products = vec![0.0; size * (size + 1) / 2];
        write_products(z, &mut products);
        Self { z: z.to_vec(), q: x[size], squares: z.mapv(|z| z * z).to_vec(), products }
    }

    fn mean(&self, user: StateView<'_>) -> f32 {
        dot(user.mean_slice(), &self.z) + self.q
    }

    fn variance(&self, user: StateView<'_>) -> f32 {
        let variance = match user.spread() {
            Spread::Diagonal(variances) => dot(variances, &self.squares),
            Spread::Triangle(triangle) => dot(triangle, &self.products),
        };
        variance.max(0.0)
    }
}

/// What a covariance's lower triangle is multiplied by to be `zᵀ Σ z`.
fn write_products(z: ArrayView1<'_, f32>, products: &mut [f32]) {
    for ((i, j), product) in pairs(z.len()).zip(products) {
        *product = if i == j { z[i] * z[i] } else { 2.0 * z[i] * z[j] };
    }
}

/// Variances for many texts: covariances and texts' products as rows, one product of matrices.
fn all_spreads(users: &[StateView<'_>], x: ArrayView2<'_, f32>) -> Result<Array2<f32>, HeadError> {
    let size = x.ncols() - 1;
    let mut spreads = Array2::zeros((users.len(), size * (size + 1) / 2));
    for (user, mut spread) in users.iter().zip(spreads.rows_mut()) {
        check_len("a user state", size, user.size())?;
        match user.spread() {
            Spread::Triangle(triangle) => spread.assign(&ArrayView1::from(triangle)),
            Spread::Diagonal(variances) => {
                for (i, variance) in variances.iter().enumerate() {
                    spread[i * (i + 3) / 2] = *variance;
                }
            }
        }
    }
    let mut variance = Array2::zeros((users.len(), x.nrows()));
    for (chunk, mut variance) in
        x.axis_chunks_iter(Axis(0), CHUNK).zip(variance.axis_chunks_iter_mut(Axis(1), CHUNK))
    {
        let mut products = Array2::zeros((chunk.nrows(), spreads.ncols()));
        for (row, mut products) in chunk.rows().into_iter().zip(products.rows_mut()) {
            let products = products.as_slice_mut().expect("rows of a new matrix are contiguous");
            write_products(row.slice(s![..size]), products);
        }
        variance.assign(&spreads.dot(&products.t()).mapv_into(|v| v.max(0.0)));
    }
    Ok(variance)
}

/// A product in sixteen sums side by side, which become vector instructions that do not wait for one another.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
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
        let user = UserState::new(Array1::linspace(-1.0, 1.0, size), root.dot(&root.t()), 1).unwrap();
        let variances = Array1::linspace(0.5, 2.0, size);
        let diagonal = UserState::independent(&Array1::zeros(size), &variances, 1).unwrap();
        let full = UserState::new(Array1::zeros(size), Array2::from_diag(&variances), 1).unwrap();
        let users = [user.view(), diagonal.view(), full.view()];
        let x = Array2::from_shape_fn((FEW_ROWS + 1, size + 1), |(i, j)| ((i * 5 + j) as f32 * 0.7).cos());
        let all = affine_moments(&users, x.view()).unwrap();
        let few = affine_moments(&users, x.slice(s![..FEW_ROWS, ..])).unwrap();
        let close = |few: &f32, all: &f32| (few - all).abs() <= 1e-5 * (1.0 + all.abs());
        assert!(few.mean.iter().zip(all.mean.slice(s![.., ..FEW_ROWS])).all(|(few, all)| close(few, all)));
        assert!(
            few.variance.iter().zip(all.variance.slice(s![.., ..FEW_ROWS])).all(|(few, all)| close(few, all))
        );
        // Written out, and whether it is known to be diagonal or not.
        let z: ArrayView1<'_, f32> = x.slice(s![0, ..size]);
        let along: Array1<f32> = user.covariance().dot(&z);
        assert!(close(&few.variance[[0, 0]], &z.dot(&along)));
        assert!(few.variance.row(1).iter().zip(few.variance.row(2)).all(|(a, b)| close(a, b)));
        let turned = affine_moments(&users, x.slice(s![..FEW_ROWS, ..]).mapv(|x| -x).view()).unwrap();
        assert_eq!((turned.mean, turned.variance), (-few.mean, few.variance));
    }
}
