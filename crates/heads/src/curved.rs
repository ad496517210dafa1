//! People on the simplex whose rewards are not linear in their weights: the papers' own forms of PAL.

use ndarray::{Array1, Array2, ArrayView2, Axis, CowArray, Ix2, s};

use crate::{
    evidence::{canonical, exchange, labels, rows, votes},
    head::{HeadError, Moments, Observation, check_len},
    posterior::{MarginModel, simplex_newton},
    state::{StateView, UserState},
};

/// A reward that is any smooth function of a person's weights.
pub(crate) trait CurvedReward {
    /// `K`, the number of weights.
    fn len(&self) -> usize;

    /// Rewards of texts `[R, F]` and their derivatives by the weights: `[R]` and `[R, K]`.
    fn rewards(&self, weights: &Array1<f64>, features: ArrayView2<'_, f64>) -> (Array1<f64>, Array2<f64>);
}

/// Margins between the rows of two sets of texts.
struct Pairs<'a> {
    reward: &'a dyn CurvedReward,
    chosen: Array2<f64>,
    rejected: Array2<f64>,
}

impl MarginModel for Pairs<'_> {
    fn margins(&self, weights: &Array1<f64>) -> Array1<f64> {
        let rewards = |texts: &Array2<f64>| self.reward.rewards(weights, texts.view()).0;
        rewards(&self.chosen) - rewards(&self.rejected)
    }

    fn jacobian(&self, weights: &Array1<f64>) -> CowArray<'_, f64, Ix2> {
        let slopes = |texts: &Array2<f64>| self.reward.rewards(weights, texts.view()).1;
        (slopes(&self.chosen) - slopes(&self.rejected)).into()
    }
}

/// The posterior after examples, Gauss-Newton from the prior; [`None`] if no example says anything.
pub(crate) fn adapt(
    reward: &dyn CurvedReward,
    alpha: &Array1<f64>,
    label_noise: f64,
    feature_len: usize,
    examples: &[Observation<'_>],
) -> Result<Option<UserState>, HeadError> {
    let both = |chosen: &[f64], rejected: &[f64]| [chosen, rejected].concat();
    let votes = canonical(votes(examples, feature_len, both)?, exchange)?;
    if votes.is_empty() {
        return Ok(None);
    }
    let rows = rows(&votes, 2 * feature_len);
    let pairs = Pairs {
        reward,
        chosen: rows.slice(s![.., ..feature_len]).to_owned(),
        rejected: rows.slice(s![.., feature_len..]).to_owned(),
    };
    // Always from the prior: margins that are not linear may leave more than one minimum.
    let posterior = simplex_newton(&pairs, &labels(&votes, label_noise), alpha.view(), None)?;
    Ok(Some(crate::engine::state(&posterior, examples.len())?))
}

/// Rewards and their variances, linearised about each person's mean.
pub(crate) fn rewards(
    reward: &dyn CurvedReward,
    users: &[StateView<'_>],
    features: ArrayView2<'_, f32>,
) -> Result<Moments, HeadError> {
    let texts = features.mapv(f64::from);
    moments(users, (features.nrows(), reward.len()), |weights| reward.rewards(weights, texts.view()))
}

/// Margins and their variances, linearised about each person's mean; antisymmetric to the last bit.
pub(crate) fn margins(
    reward: &dyn CurvedReward,
    users: &[StateView<'_>],
    a: ArrayView2<'_, f32>,
    b: ArrayView2<'_, f32>,
) -> Result<Moments, HeadError> {
    check_len("the second responses", a.nrows(), b.nrows())?;
    let (a, b) = (a.mapv(f64::from), b.mapv(f64::from));
    moments(users, (a.nrows(), reward.len()), |weights| {
        let (a, slope_a) = reward.rewards(weights, a.view());
        let (b, slope_b) = reward.rewards(weights, b.view());
        (a - b, slope_a - slope_b)
    })
}

fn moments(
    users: &[StateView<'_>],
    (rows, size): (usize, usize),
    at: impl Fn(&Array1<f64>) -> (Array1<f64>, Array2<f64>),
) -> Result<Moments, HeadError> {
    let mut mean = Array2::zeros((users.len(), rows));
    let mut variance = Array2::zeros((users.len(), rows));
    for (row, user) in users.iter().enumerate() {
        check_len("a user state", size, user.mean().len())?;
        let (values, slopes) = at(&user.mean().mapv(f64::from));
        mean.row_mut(row).assign(&values.mapv(|x| x as f32));
        let spread = (slopes.dot(&user.covariance().mapv(f64::from)) * &slopes).sum_axis(Axis(1));
        variance.row_mut(row).assign(&spread.mapv(|v| v.max(0.0) as f32));
    }
    Ok(Moments { mean, variance })
}
