//! Rewards and preferences of some users for some responses, on the scale asked for.

use ndarray::{Array2, ArrayView2, Axis};
use polyreward_heads::{HeadError, Moments, UserState};

use crate::{
    registry::Model,
    score::{Aggregate, RewardScale},
};

/// One model judging for some users on one scale.
pub(crate) struct Judge<'a> {
    pub model: &'a Model,
    pub users: &'a [&'a UserState],
    pub scale: RewardScale,
}

/// A number and its posterior standard deviation for every user and response, both `[U, R]`.
pub(crate) struct Estimates {
    pub value: Array2<f64>,
    pub deviation: Array2<f64>,
}

impl Estimates {
    fn zeros(users: usize, responses: usize) -> Self {
        Self { value: Array2::zeros((users, responses)), deviation: Array2::zeros((users, responses)) }
    }

    /// Whether everything about a response is finite.
    pub fn is_finite(&self, response: usize) -> bool {
        let both = self.value.column(response).into_iter().chain(self.deviation.column(response));
        both.into_iter().all(|x| x.is_finite())
    }
}

impl Judge<'_> {
    /// P(a preferred to b), calibrated, for each user and pair.
    pub fn preferences(
        &self,
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
    ) -> Result<Estimates, HeadError> {
        let margins = self.model.head.margins(self.users, a, b)?;
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

    /// Rewards on the scale asked for.
    pub fn rewards(&self, features: ArrayView2<'_, f32>) -> Result<Estimates, HeadError> {
        if self.scale == RewardScale::WinRate {
            return self.win_rates(features);
        }
        let moments = self.model.head.rewards(self.users, features)?;
        let statistics = &self.model.card.reward_statistics;
        let (origin, unit) = match self.scale {
            RewardScale::Standard => (statistics.mean, statistics.standard_deviation),
            RewardScale::Raw | RewardScale::WinRate => (0.0, 1.0),
        };
        Ok(Estimates {
            value: moments.mean.mapv(|mean| (f64::from(mean) - origin) / unit),
            deviation: moments.variance.mapv(|variance| f64::from(variance).sqrt() / unit),
        })
    }

    /// Mean preference for each response against the reference responses, and the mean of the preferences' own
    /// deviations: they share the user, so they do not average out.
    fn win_rates(&self, features: ArrayView2<'_, f32>) -> Result<Estimates, HeadError> {
        let references = &self.model.reference_features;
        let mut estimates = Estimates::zeros(self.users.len(), features.nrows());
        for (at, response) in features.axis_iter(Axis(0)).enumerate() {
            let response = response.insert_axis(Axis(0));
            let rows =
                response.broadcast(references.dim()).expect("one row broadcasts to many of its length");
            let preferences = self.preferences(rows, references.view())?;
            let mean = |of: &Array2<f64>| of.mean_axis(Axis(1)).expect("a model has reference responses");
            estimates.value.column_mut(at).assign(&mean(&preferences.value));
            estimates.deviation.column_mut(at).assign(&mean(&preferences.deviation));
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

/// One number for each response out of `rewards` `[U, R]` of an audience of at least one.
pub(crate) fn aggregate(rewards: &ArrayView2<'_, f64>, how: Aggregate) -> Vec<f64> {
    if how == Aggregate::Share {
        return shares(rewards);
    }
    let of_response = |column: ndarray::ArrayView1<'_, f64>| match how {
        Aggregate::Mean | Aggregate::Share => column.sum() / column.len() as f64,
        Aggregate::Min => column.fold(f64::INFINITY, |least, reward| least.min(*reward)),
        Aggregate::P20 => {
            let mut sorted = column.to_vec();
            sorted.sort_by(f64::total_cmp);
            polyreward_heads::evaluation::quantile(&sorted, 0.2)
        }
    };
    rewards.columns().into_iter().map(of_response).collect()
}

/// Share of the audience who prefer each response to all others; somebody torn between several is shared out.
fn shares(rewards: &ArrayView2<'_, f64>) -> Vec<f64> {
    let mut shares = vec![0.0; rewards.ncols()];
    for user in rewards.rows() {
        let best = user.fold(f64::NEG_INFINITY, |best, reward| best.max(*reward));
        let favourites = user.iter().filter(|reward| **reward >= best).count() as f64;
        for (share, reward) in shares.iter_mut().zip(user) {
            if *reward >= best {
                *share += 1.0 / favourites / rewards.nrows() as f64;
            }
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn an_audience_is_told_apart_by_its_aggregates() {
        // Four like the first response a little, one dislikes it a lot.
        let rewards = array![[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [-9.0, 0.0]];
        let aggregate = |how| aggregate(&rewards.view(), how);
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(near(&aggregate(Aggregate::Mean), &[-1.1, 0.1]));
        assert_eq!(aggregate(Aggregate::Min), [-9.0, 0.0]);
        // Sorted -9, .5, 1, 1, 1: a fifth of the way from the first to the last lies at .8 between the first two.
        assert!(near(&aggregate(Aggregate::P20), &[-9.0 + 0.8 * 9.5, 0.0]));
        assert!(near(&aggregate(Aggregate::Share), &[0.7, 0.3]));
    }

    #[test]
    fn a_ranking_is_best_first_and_stable() {
        assert_eq!(ranking(&[0.5, 2.0, 0.5, -1.0]), [1, 0, 2, 3]);
        assert!(ranking(&[]).is_empty());
    }
}
