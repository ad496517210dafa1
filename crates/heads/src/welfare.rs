//! What a group makes of responses together, when its members differ: rules of welfare over a common utility.
//!
//! Rewards of different people have offsets and scales of their own: a minimum, a product or a Gini over raw rewards picks by
//! scale, not by need. So every rule here reads utilities in `[0, 1]` that mean the same for everybody, such as the mean
//! preference against reference responses (`win_rate`) or [`likelihood`] among the responses themselves (pluralism
//! specification sections 1 and 9; golden checks G1.3 and G9).

use ndarray::{Array2, ArrayView1, ArrayView2};

use crate::calibration::sigmoid;

/// Utilities of responses `[U, R]` from rewards `[U, R]`: the mean probability that a person prefers the response to each of
/// the others (Siththaranjan et al.'s Borda count per person; SPO of the specification). One half where there is one response.
pub fn likelihood(rewards: ArrayView2<'_, f64>) -> Array2<f64> {
    let responses = rewards.ncols();
    Array2::from_shape_fn(rewards.dim(), |(user, response)| {
        if responses < 2 {
            return 0.5;
        }
        let others = (0..responses).filter(|other| *other != response);
        let sum: f64 = others.map(|other| sigmoid(rewards[[user, response]] - rewards[[user, other]])).sum();
        sum / (responses - 1) as f64
    })
}

/// `-temperature ln sum_u w_u exp(-x_u / temperature)`: towards the minimum as the temperature falls, towards the weighted mean
/// as it rises. The weights sum to 1, the temperature is above 0.
pub fn softmin(utilities: ArrayView1<'_, f64>, weights: ArrayView1<'_, f64>, temperature: f64) -> f64 {
    // From the least on, no exponential overflows.
    let least = utilities.iter().copied().fold(f64::INFINITY, f64::min);
    let sum: f64 = utilities.iter().zip(weights).map(|(x, w)| w * (-(x - least) / temperature).exp()).sum();
    least - temperature * sum.ln()
}

/// `exp sum_u w_u ln(x_u - d)`: log-Nash welfare above a disagreement point, as a mean in the unit of the utilities; 0, the
/// worst, where anybody who counts would be no better off than without an agreement. The weights sum to 1.
pub fn nash(utilities: ArrayView1<'_, f64>, weights: ArrayView1<'_, f64>, disagreement: f64) -> f64 {
    let mut log = 0.0;
    for (utility, weight) in utilities.iter().zip(weights) {
        if *weight > 0.0 {
            if *utility <= disagreement {
                return 0.0;
            }
            log += weight * (utility - disagreement).ln();
        }
    }
    log.exp()
}

/// The weighted mean; the weights sum to 1.
pub fn mean(utilities: ArrayView1<'_, f64>, weights: ArrayView1<'_, f64>) -> f64 {
    utilities.iter().zip(weights).map(|(x, w)| x * w).sum()
}

/// The utility of whoever is worst off.
pub fn least(utilities: ArrayView1<'_, f64>) -> f64 {
    utilities.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The utility below which a fifth of the weight lies; the weights are not negative and not all 0.
///
/// With equal weights it is [`quantile`](crate::evaluation::quantile), linear between two people. Otherwise the people, from
/// the worst off to the best off, take their shares of `[0, 1]`, and the answer is the mean utility over the stretch from
/// `0.2 (n - 1) / n` on that is `1 / n` long, where `n = (sum w)^2 / sum w^2` is Kish's effective number of people (Akinshin,
/// arXiv:2304.07265, type 7). So it changes continuously with the weights, and who has none changes nothing.
pub fn p20(utilities: ArrayView1<'_, f64>, weights: ArrayView1<'_, f64>) -> f64 {
    let mut people: Vec<(f64, f64)> =
        utilities.iter().copied().zip(weights.iter().copied()).filter(|(_, weight)| *weight > 0.0).collect();
    people.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let total: f64 = people.iter().map(|(_, weight)| weight).sum();
    let effective = 1.0 / people.iter().map(|(_, weight)| (weight / total).powi(2)).sum::<f64>();
    let first = 0.2 * (effective - 1.0) / effective;
    let last = first + 1.0 / effective;
    let (mut below, mut covered, mut sum) = (0.0, 0.0, 0.0);
    for (utility, weight) in people {
        let above = below + weight / total;
        let overlap = (above.min(last) - below.max(first)).max(0.0);
        covered += overlap;
        sum += overlap * utility;
        below = above;
    }
    sum / covered
}

/// Which of several groups is worst off over a batch of utilities `[G, N]`: the one whose mean is least, the first of several.
/// MaxMin-RLHF maximises the minimum over groups of their expected reward (Chakraborty et al., arXiv:2402.08925): in a batch,
/// that group's utilities are the rewards of all its responses, whereas a minimum for each response by itself is a lower bound.
///
/// # Panics
/// If there is no group.
pub fn worst_off(utilities: ArrayView2<'_, f64>) -> usize {
    let sums = utilities.rows().into_iter().map(|row| row.sum());
    let least = sums.enumerate().min_by(|(_, a), (_, b)| a.total_cmp(b));
    least.expect("there is a group").0
}

/// Gini's coefficient of utilities that are not negative: 0 where all have the same, towards 1 where one has all. None where
/// nobody has anything.
pub fn gini(utilities: ArrayView1<'_, f64>) -> Option<f64> {
    let mut sorted = utilities.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (n, total) = (sorted.len() as f64, sorted.iter().sum::<f64>());
    if total <= 0.0 {
        return None;
    }
    // sum_ij |x_i - x_j| = 2 sum_i (2 i - n + 1) x_i of sorted values, i from 0.
    let spread: f64 = sorted.iter().enumerate().map(|(i, x)| (2.0 * i as f64 - n + 1.0) * x).sum();
    Some(spread / (n * total))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, array};
    use proptest::prelude::*;

    use super::*;
    use crate::evaluation::quantile;

    /// Pluralism specification G9: four groups by four responses.
    fn golden() -> Array2<f64> {
        array![[0.9, 0.2, 0.5, 0.6], [0.8, 0.3, 0.5, 0.4], [0.1, 0.9, 0.5, 0.7], [0.2, 0.8, 0.6, 0.5]]
    }

    fn each(rule: impl Fn(ArrayView1<'_, f64>) -> f64) -> Vec<f64> {
        golden().columns().into_iter().map(rule).collect()
    }

    fn near(actual: &[f64], expected: &[f64]) {
        for (a, b) in actual.iter().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{actual:?} {expected:?}");
        }
    }

    #[test]
    fn rules_of_welfare_agree_with_golden_g9() {
        let equal = Array1::from_elem(4, 0.25);
        let weights = array![0.4, 0.3, 0.2, 0.1];
        near(&each(|u| mean(u, equal.view())), &[0.5, 0.55, 0.525, 0.55]);
        near(&each(|u| mean(u, weights.view())), &[0.64, 0.43, 0.51, 0.55]);
        near(&each(least), &[0.1, 0.2, 0.5, 0.4]);
        near(&each(|u| p20(u, equal.view())), &[0.16, 0.26, 0.5, 0.46]);
        near(&each(|u| gini(u).unwrap()), &[0.375, 0.295_455, 0.035_714, 0.113_636]);
        near(&each(|u| softmin(u, equal.view(), 0.1)), &[0.207_212, 0.307_056, 0.517_201, 0.494_610]);
        // The specification's log-Nash is the sum over four groups, minus infinity where one is at its disagreement point.
        near(&each(|u| nash(u, equal.view(), 0.1))[..1], &[0.0]);
        let logs: Vec<f64> = each(|u| nash(u, equal.view(), 0.1)).iter().map(|x| 4.0 * x.ln()).collect();
        near(&logs[1..], &[-4.491_842, -3.442_019, -3.324_236]);
        let logs: Vec<f64> = each(|u| nash(u, weights.view(), 0.1)).iter().map(|x| x.ln()).collect();
        near(&logs[1..], &[-1.484_162, -0.893_976, -0.832_245]);
        assert!((gini(array![1.0, 2.0, 3.0, 4.0].view()).unwrap() - 0.25).abs() < 1e-12);
        assert_eq!(gini(array![0.0, 0.0].view()), None);
    }

    #[test]
    fn a_minimum_over_raw_rewards_picks_another_winner_than_over_utilities_as_in_g1_3() {
        let rewards = array![[10.0, 4.0, -2.0, 6.0], [0.1, 0.5, 0.9, 0.4]];
        let utilities = likelihood(rewards.view());
        near(utilities.row(0).as_slice().unwrap(), &[0.993_178, 0.373_068, 0.000_938, 0.632_816]);
        near(utilities.row(1).as_slice().unwrap(), &[0.378_965, 0.508_326, 0.637_040, 0.475_668]);
        let winner = |table: &Array2<f64>| {
            let worst: Vec<f64> = table.columns().into_iter().map(least).collect();
            (0..4).max_by(|a, b| worst[*a].total_cmp(&worst[*b])).unwrap()
        };
        assert_eq!((winner(&rewards), winner(&utilities)), (1, 3));
        assert_eq!(likelihood(array![[3.0]].view()), array![[0.5]]);
    }

    #[test]
    fn a_percentile_by_weight_is_the_mean_over_a_stretch_of_the_weight() {
        // n = 1 / (0.25 + 0.0625 + 0.0625) = 8/3: from 0.125 on, 0.375 of the weight, all of it the worst-off one's half.
        near(&[p20(array![0.9, 0.1, 0.5].view(), array![0.25, 0.5, 0.25].view())], &[0.1]);
        // The same n: 0.125 of the weight is of the worst off, 0.25 of the next one.
        near(
            &[p20(array![0.9, 0.1, 0.5].view(), array![0.5, 0.25, 0.25].view())],
            &[(0.1 + 2.0 * 0.5) / 3.0],
        );
        near(&[p20(array![0.0, 1.0].view(), array![1e-9, 1.0].view())], &[1.0]);
    }

    #[test]
    fn the_worst_off_of_a_batch_is_served_where_each_response_has_another_minimum() {
        // The minima of the responses are 0.1, 0.2, 0.5 and 0.4, of three groups; the mean of the third is the least.
        let batch =
            array![[0.9, 0.2, 0.5, 0.6], [0.8, 0.3, 0.5, 0.5], [0.1, 0.4, 0.5, 0.7], [0.2, 0.8, 0.6, 0.4]];
        assert_eq!(worst_off(batch.view()), 2);
        let minimum: f64 = batch.columns().into_iter().map(least).sum::<f64>() / 4.0;
        assert!(minimum < batch.row(2).mean().unwrap());
        assert_eq!(worst_off(array![[0.5], [0.5]].view()), 0);
    }

    fn people() -> impl Strategy<Value = Vec<(f64, f64)>> {
        prop::collection::vec((0.0..1.0_f64, 0.01..10.0_f64), 1..12)
    }

    fn percentile(people: &[(f64, f64)]) -> f64 {
        let (utilities, weights): (Vec<f64>, Vec<f64>) = people.iter().copied().unzip();
        p20(Array1::from(utilities).view(), Array1::from(weights).view())
    }

    proptest! {
        #[test]
        fn a_percentile_of_equal_weights_is_that_of_people(utilities in prop::collection::vec(0.0..1.0_f64, 1..40), weight in 0.01..10.0_f64) {
            let people: Vec<(f64, f64)> = utilities.iter().map(|utility| (*utility, weight)).collect();
            let mut sorted = utilities;
            sorted.sort_by(f64::total_cmp);
            prop_assert!((percentile(&people) - quantile(&sorted, 0.2)).abs() < 1e-12);
        }

        #[test]
        fn a_percentile_lies_between_the_extremes_and_does_not_depend_on_order_or_unit(
            mut people in people(), unit in 0.1..10.0_f64,
        ) {
            let found = percentile(&people);
            let values = people.iter().map(|(utility, _)| *utility);
            let (least, most) = (values.clone().fold(f64::INFINITY, f64::min), values.fold(0.0, f64::max));
            prop_assert!(least - 1e-12 <= found && found <= most + 1e-12);
            people.reverse();
            for (_, weight) in &mut people {
                *weight *= unit;
            }
            people.push((0.0, 0.0));
            prop_assert!((percentile(&people) - found).abs() < 1e-12);
        }

        #[test]
        fn a_percentile_falls_for_nobody_who_is_better_off(people in people(), who in any::<prop::sample::Index>(), gain in 0.0..1.0_f64) {
            let mut better = people.clone();
            better[who.index(people.len())].0 += gain;
            prop_assert!(percentile(&better) >= percentile(&people) - 1e-12);
        }

        #[test]
        fn a_percentile_changes_little_with_a_weight_that_does(people in people(), who in any::<prop::sample::Index>()) {
            let mut shifted = people.clone();
            shifted[who.index(people.len())].1 += 1e-9;
            prop_assert!((percentile(&shifted) - percentile(&people)).abs() < 1e-5);
        }
    }

    #[test]
    fn a_cold_softmin_is_the_minimum_and_a_hot_one_the_mean() {
        let (utilities, weights) = (array![0.2, 0.7, 0.9], array![0.5, 0.25, 0.25]);
        assert!((softmin(utilities.view(), weights.view(), 1e-6) - 0.2).abs() < 1e-5);
        assert!((softmin(utilities.view(), weights.view(), 1e6) - 0.5).abs() < 1e-5);
    }
}
