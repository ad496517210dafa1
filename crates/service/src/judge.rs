//! Rewards and preferences of some users for some responses, on the scale asked for.

use ndarray::{Array2, ArrayView2, Axis, s};
use polyreward_heads::{HeadError, Moments, StateView};

use crate::{registry::Model, score::RewardScale};

/// Numbers that one product may hold.
const BLOCK_CELLS: usize = 1 << 20;
/// Users in one product at most.
const BLOCK_USERS: usize = 1024;
/// Rows of comparisons with the reference responses in one product at most.
const REFERENCE_ROWS: usize = 2048;

/// One model judging on one scale.
pub(crate) struct Judge<'a> {
    pub model: &'a Model,
    pub scale: RewardScale,
}

/// A number and its posterior standard deviation for every user and response, both `[U, R]`.
pub(crate) struct Estimates {
    pub value: Array2<f64>,
    pub deviation: Array2<f64>,
}

impl Estimates {
    pub fn zeros(users: usize, responses: usize) -> Self {
        Self { value: Array2::zeros((users, responses)), deviation: Array2::zeros((users, responses)) }
    }

    /// Whether everything about a response, or a pair, is finite.
    pub fn is_finite(&self, column: usize) -> bool {
        let both = self.value.column(column).into_iter().chain(self.deviation.column(column));
        both.into_iter().all(|x| x.is_finite())
    }

    /// Takes over the rows of some users, from the first one on.
    pub fn put(&mut self, first: usize, block: &Self) {
        let rows = first..first + block.value.nrows();
        self.value.slice_mut(s![rows.clone(), ..]).assign(&block.value);
        self.deviation.slice_mut(s![rows, ..]).assign(&block.deviation);
    }
}

impl Judge<'_> {
    /// How many users to judge at once, so that what one product holds is bounded.
    pub fn block(&self, responses: usize) -> usize {
        let size = self.model.head.population().mean().len();
        let a_user = responses + size * (size + 1) / 2 + 1;
        (BLOCK_CELLS / a_user).clamp(1, BLOCK_USERS)
    }

    /// How many blocks may be held until they are taken up: as many numbers as one product holds, or one block.
    pub fn blocks_held(&self, responses: usize) -> usize {
        (BLOCK_CELLS / (self.block(responses) * responses.max(1))).max(1)
    }

    /// Numbers that the comparisons of some responses with the references hold at once, beside those of the users.
    pub fn reference_cells(&self, responses: usize) -> usize {
        if self.scale != RewardScale::WinRate {
            return 0;
        }
        let rows = responses.saturating_mul(self.model.reference_features.nrows()).min(REFERENCE_ROWS);
        2 * rows * self.model.head.feature_len()
    }

    /// P(a preferred to b), calibrated, for each user and pair.
    pub fn preferences(
        &self,
        users: &[StateView<'_>],
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<Estimates, HeadError> {
        let margins = self.model.head.margins(users, a, b)?;
        Ok(self.calibrated(&margins))
    }

    fn calibrated(&self, margins: &Moments) -> Estimates {
        let (users, pairs) = margins.mean.dim();
        let mut estimates = Estimates::zeros(users, pairs);
        for (at, mean) in margins.mean.indexed_iter() {
            let (mean, variance) = (f64::from(*mean), f64::from(margins.variance[at]));
            let preference = self.model.card.calibration.preference(mean, variance);
            estimates.value[at] = preference.probability;
            estimates.deviation[at] = preference.uncertainty;
        }
        estimates
    }

    /// Rewards on the scale asked for, with their deviations or, where nobody asks for those, zeros; `go_on` is asked between
    /// two products.
    pub fn rewards<E: From<HeadError>>(
        &self,
        users: &[StateView<'_>],
        features: ArrayView2<'_, f32>,
        deviations: bool,
        go_on: &dyn Fn() -> Result<(), E>,
    ) -> Result<Estimates, E> {
        if self.scale == RewardScale::WinRate {
            return self.win_rates(users, features, go_on);
        }
        let moments = if deviations {
            self.model.head.rewards(users, features)?
        } else {
            let mean = self.model.head.mean_rewards(users, features)?;
            Moments { variance: Array2::zeros(mean.dim()), mean }
        };
        let unit = self.unit();
        Ok(Estimates {
            value: moments.mean.mapv(|mean| self.scaled(mean)),
            deviation: moments.variance.mapv(|variance| f64::from(variance).sqrt() / unit),
        })
    }

    /// Rewards of the sides of pairs, as [`Judge::rewards`] without deviations, and preferences between them. Features of the
    /// first sides and of the second ones stand in turn.
    pub fn pairs<E: From<HeadError>>(
        &self,
        users: &[StateView<'_>],
        features: ArrayView2<'_, f32>,
        go_on: &dyn Fn() -> Result<(), E>,
    ) -> Result<[Estimates; 2], E> {
        let (a, b) = (features.slice(s![0..;2, ..]), features.slice(s![1..;2, ..]));
        if self.scale == RewardScale::WinRate {
            return Ok([self.win_rates(users, features, go_on)?, self.preferences(users, a, b)?]);
        }
        let pairs = self.model.head.pairs(users, a, b)?;
        let mut rewards = Estimates::zeros(users.len(), features.nrows());
        for (side, means) in [&pairs.reward_a, &pairs.reward_b].into_iter().enumerate() {
            rewards.value.slice_mut(s![.., side..;2]).assign(&means.mapv(|mean| self.scaled(mean)));
        }
        Ok([rewards, self.calibrated(&pairs.margin)])
    }

    /// A mean reward on the scale asked for.
    fn scaled(&self, mean: f32) -> f64 {
        match self.scale {
            RewardScale::Standard => (f64::from(mean) - self.model.card.reward_statistics.mean) / self.unit(),
            RewardScale::Raw | RewardScale::WinRate => f64::from(mean),
        }
    }

    /// A logit on the scale asked for is one of so many.
    fn unit(&self) -> f64 {
        match self.scale {
            RewardScale::Standard => self.model.card.reward_statistics.standard_deviation,
            RewardScale::Raw | RewardScale::WinRate => 1.0,
        }
    }

    /// Mean preference for each response against the reference responses, and the mean of the preferences' own
    /// deviations: they share the user, so they do not average out. Some responses at a time, so that no more than a
    /// block of users by responses by references is held.
    fn win_rates<E: From<HeadError>>(
        &self,
        users: &[StateView<'_>],
        features: ArrayView2<'_, f32>,
        go_on: &dyn Fn() -> Result<(), E>,
    ) -> Result<Estimates, E> {
        let references = &self.model.reference_features;
        let mut estimates = Estimates::zeros(users.len(), features.nrows());
        let rows = (BLOCK_CELLS / users.len().max(1)).min(REFERENCE_ROWS);
        let at_once = (rows / references.nrows().max(1)).clamp(1, features.nrows().max(1));
        let order: Vec<usize> = (0..at_once).flat_map(|_| 0..references.nrows()).collect();
        let others = references.select(Axis(0), &order);
        for (at, responses) in features.axis_chunks_iter(Axis(0), at_once).enumerate() {
            go_on()?;
            let order: Vec<usize> =
                (0..responses.nrows()).flat_map(|row| std::iter::repeat_n(row, references.nrows())).collect();
            let ours = responses.select(Axis(0), &order);
            let preferences = self.preferences(users, ours.view(), others.slice(s![..ours.nrows(), ..]))?;
            for row in 0..responses.nrows() {
                let columns = row * references.nrows()..(row + 1) * references.nrows();
                let mean = |of: &Array2<f64>| {
                    of.slice(s![.., columns.clone()])
                        .mean_axis(Axis(1))
                        .expect("a model has reference responses")
                };
                let column = at * at_once + row;
                estimates.value.column_mut(column).assign(&mean(&preferences.value));
                estimates.deviation.column_mut(column).assign(&mean(&preferences.deviation));
            }
        }
        Ok(estimates)
    }
}

/// Positions from the best reward to the worst; ties by position.
pub(crate) fn ranking(rewards: &[f64]) -> Vec<usize> {
    let mut ranking: Vec<usize> = (0..rewards.len()).collect();
    ranking.sort_by(|x, y| rewards[*y].total_cmp(&rewards[*x]).then(x.cmp(y)));
    ranking
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ranking_is_best_first_and_stable() {
        assert_eq!(ranking(&[0.5, 2.0, 0.5, -1.0]), [1, 0, 2, 3]);
        assert!(ranking(&[]).is_empty());
    }
}
