//! Many people's rewards as a few numbers, taken up a block of people at a time.

use ndarray::{Array1, Array2};
use polyreward_heads::evaluation::quantile;

use super::{Aggregate, AudienceScore, Welfare};
use crate::judge::{Estimates, ranking};

/// What is kept of the people who were counted. Somebody stands for everybody who shares their state.
pub(super) struct Tally {
    aggregates: Vec<Aggregate>,
    welfare: Welfare,
    /// People at each state.
    counts: Vec<usize>,
    /// Their sum.
    people: f64,
    sums: Vec<f64>,
    /// Sums of squares around the first person's.
    squares: Vec<f64>,
    origins: Option<Vec<f64>>,
    least: Vec<f64>,
    /// `[states, R]`, where an aggregate needs all of them.
    values: Option<Array2<f64>>,
    /// Share of the people counted who prefer a response to all others of its group.
    shares: Vec<f64>,
    /// Of each pair: sum of `p - 0.5`.
    leanings: Vec<f64>,
    /// Of each pair: variance of that sum.
    variances: Vec<f64>,
    finite: Vec<bool>,
    finite_pairs: Vec<bool>,
}

impl Tally {
    /// Of an audience with so many people at each state, for `responses` of which `pairs` are pairs.
    pub fn new(
        aggregates: &[Aggregate],
        welfare: Welfare,
        counts: &[usize],
        responses: usize,
        pairs: usize,
    ) -> Self {
        let needs_all =
            |how: &Aggregate| matches!(how, Aggregate::P20 | Aggregate::Softmin | Aggregate::Nash);
        let values = aggregates.iter().any(needs_all).then(|| Array2::zeros((counts.len(), responses)));
        Self {
            aggregates: aggregates.to_vec(),
            welfare,
            people: counts.iter().sum::<usize>() as f64,
            counts: counts.to_vec(),
            sums: vec![0.0; responses],
            squares: vec![0.0; responses],
            origins: None,
            least: vec![f64::INFINITY; responses],
            values,
            shares: vec![0.0; responses],
            leanings: vec![0.0; pairs],
            variances: vec![0.0; pairs],
            finite: vec![true; responses],
            finite_pairs: vec![true; pairs],
        }
    }

    /// Counts the people at the states from `first` on. `groups` are the first response and number of responses of each
    /// item; pairs come with preferences.
    pub fn add(
        &mut self,
        first: usize,
        rewards: &Estimates,
        preferences: Option<&Estimates>,
        groups: &[(usize, usize)],
    ) {
        for (row, values) in rewards.value.rows().into_iter().enumerate() {
            let count = self.counts[first + row] as f64;
            let origins = self.origins.get_or_insert_with(|| values.to_vec());
            for (at, value) in values.iter().enumerate() {
                self.squares[at] += count * (value - origins[at]).powi(2);
                self.sums[at] += count * value;
                self.least[at] = self.least[at].min(*value);
                self.finite[at] &= value.is_finite();
            }
            if let Some(kept) = &mut self.values {
                kept.row_mut(first + row).assign(&values);
            }
            match preferences {
                Some(preferences) => self.add_preferences(count, row, preferences),
                None => self.add_favourites(count, values, groups),
            }
        }
    }

    fn add_preferences(&mut self, count: f64, row: usize, preferences: &Estimates) {
        for pair in 0..self.leanings.len() {
            let (p, deviation) = (preferences.value[[row, pair]], preferences.deviation[[row, pair]]);
            self.finite_pairs[pair] &= p.is_finite() && deviation.is_finite();
            self.leanings[pair] += count * (p - 0.5);
            // Those who share a state are wrong together.
            self.variances[pair] += (count * deviation).powi(2);
            // Who prefers which is what the preference says; the rewards' difference may be another's sign by rounding.
            let of_a = if p > 0.5 {
                1.0
            } else if p < 0.5 {
                0.0
            } else {
                0.5
            };
            self.shares[2 * pair] += count * of_a;
            self.shares[2 * pair + 1] += count * (1.0 - of_a);
        }
    }

    /// Somebody torn between several responses is shared out among them.
    fn add_favourites(
        &mut self,
        count: f64,
        values: ndarray::ArrayView1<'_, f64>,
        groups: &[(usize, usize)],
    ) {
        for (first, len) in groups {
            let of_group = || (*first..first + len).map(|at| (at, values[at]));
            let best = of_group().fold(f64::NEG_INFINITY, |best, (_, value)| best.max(value));
            let favourites = of_group().filter(|(_, value)| *value >= best).count() as f64;
            for (at, _) in of_group().filter(|(_, value)| *value >= best) {
                self.shares[at] += count / favourites;
            }
        }
    }

    /// The first response of a group, by position, that something about is not finite.
    pub fn not_finite(&self, (first, len): (usize, usize), pair: Option<usize>) -> Option<usize> {
        let pair = pair.filter(|pair| !self.finite_pairs[*pair]).map(|_| 0);
        (0..len).find(|position| !self.finite[first + position]).or(pair)
    }

    /// What the audience makes of a group of responses.
    pub fn score(&self, (first, len): (usize, usize), pair: Option<usize>) -> AudienceScore {
        let aggregates: Vec<_> = self
            .aggregates
            .iter()
            .map(|how| (*how, (first..first + len).map(|at| self.aggregate(*how, at)).collect::<Vec<f64>>()))
            .collect();
        let ranking = aggregates.first().map(|(_, values)| ranking(values)).unwrap_or_default();
        AudienceScore {
            aggregates,
            ranking,
            preference: pair.map(|pair| self.preference(pair)),
            groups: Vec::new(),
            spreads: (first..first + len).map(|at| self.spread(at)).collect(),
        }
    }

    /// How far the members' rewards lie from their mean.
    fn spread(&self, at: usize) -> f64 {
        let origin = self.origins.as_ref().map_or(0.0, |origins| origins[at]);
        let mean = self.sums[at] / self.people - origin;
        // Rounding may leave a little less than nothing.
        (self.squares[at] / self.people - mean * mean).max(0.0).sqrt()
    }

    fn aggregate(&self, how: Aggregate, at: usize) -> f64 {
        match how {
            Aggregate::Mean | Aggregate::MaxMin => self.sums[at] / self.people,
            Aggregate::Min => self.least[at],
            Aggregate::Share => self.shares[at] / self.people,
            Aggregate::Softmin | Aggregate::Nash => {
                let weights: Array1<f64> =
                    self.counts.iter().map(|count| *count as f64 / self.people).collect();
                self.welfare.of(how, self.values().column(at), weights.view())
            }
            Aggregate::P20 => {
                let people = self.values().column(at).into_iter().zip(&self.counts);
                let mut sorted: Vec<f64> =
                    people.flat_map(|(value, count)| std::iter::repeat_n(*value, *count)).collect();
                sorted.sort_by(f64::total_cmp);
                quantile(&sorted, 0.2)
            }
        }
    }

    fn values(&self) -> &Array2<f64> {
        self.values.as_ref().expect("values are kept where an aggregate needs all of them")
    }

    /// Mean preference and its deviation. Sums of `p - 0.5` change their sign exactly when a pair is swapped; so does
    /// this around 0.5, by computing the larger side and its complement.
    fn preference(&self, pair: usize) -> (f64, f64) {
        let leaning = self.leanings[pair] / self.people;
        let larger = 0.5 + leaning.abs();
        let preference = if leaning >= 0.0 { larger } else { 1.0 - larger };
        (preference, self.variances[pair].sqrt() / self.people)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    const ALL: [Aggregate; 4] = [Aggregate::Mean, Aggregate::Min, Aggregate::P20, Aggregate::Share];

    fn estimates(value: Array2<f64>) -> Estimates {
        Estimates { deviation: Array2::zeros(value.dim()), value }
    }

    fn near(a: &[f64], b: &[f64]) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12)
    }

    #[test]
    fn an_audience_is_told_apart_by_its_aggregates() {
        // Three like the first response a little, one is torn, one dislikes it a lot; in two blocks.
        let mut tally = Tally::new(&ALL, Welfare::default(), &[3, 1, 1], 2, 0);
        tally.add(0, &estimates(array![[1.0, 0.0], [0.5, 0.5]]), None, &[(0, 2)]);
        tally.add(2, &estimates(array![[-9.0, 0.0]]), None, &[(0, 2)]);
        let score = tally.score((0, 2), None);
        let of = |how| &score.aggregates.iter().find(|(other, _)| *other == how).unwrap().1;
        assert!(near(of(Aggregate::Mean), &[-1.1, 0.1]));
        assert!(near(of(Aggregate::Min), &[-9.0, 0.0]));
        // Sorted -9, .5, 1, 1, 1: a fifth of the way from the first to the last lies at .8 between the first two.
        assert!(near(of(Aggregate::P20), &[-9.0 + 0.8 * 9.5, 0.0]));
        assert!(near(of(Aggregate::Share), &[0.7, 0.3]));
        // 1, 1, 1, 0.5, -9 lie around -1.1 with a mean square of 15.64; 0, 0, 0, 0.5, 0 around 0.1 with 0.04.
        assert!(near(&score.spreads, &[15.64_f64.sqrt(), 0.2]));
        assert_eq!(tally.not_finite((0, 2), None), None);
    }

    #[test]
    fn who_shares_a_state_counts_as_often_as_they_are() {
        let welfare = Welfare { temperature: 0.1, disagreement: 0.1 };
        let both = [Aggregate::Softmin, Aggregate::Nash];
        let mut alone = Tally::new(&both, welfare, &[1, 1, 1], 2, 0);
        alone.add(0, &estimates(array![[0.9, 0.2], [0.9, 0.2], [0.4, 0.6]]), None, &[(0, 2)]);
        let mut shared = Tally::new(&both, welfare, &[2, 1], 2, 0);
        shared.add(0, &estimates(array![[0.9, 0.2], [0.4, 0.6]]), None, &[(0, 2)]);
        let (alone, shared) = (alone.score((0, 2), None), shared.score((0, 2), None));
        for ((_, alone), (_, shared)) in alone.aggregates.iter().zip(&shared.aggregates) {
            assert!(near(alone, shared));
        }
        let nash = [(0.8_f64 * 0.8 * 0.3).cbrt(), (0.1_f64 * 0.1 * 0.5).cbrt()];
        assert!(near(&shared.aggregates[1].1, &nash));
    }

    #[test]
    fn shares_of_a_pair_are_the_signs_of_the_preferences() {
        // Rewards in single precision may tie, or even turn, where the margin does not.
        let mut tally = Tally::new(&[Aggregate::Share], Welfare::default(), &[1, 2, 1], 2, 1);
        let preferences = estimates(array![[0.6], [0.4], [0.5]]);
        tally.add(0, &estimates(array![[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), Some(&preferences), &[(0, 2)]);
        assert!(near(&tally.score((0, 2), Some(0)).aggregates[0].1, &[0.375, 0.625]));
    }

    #[test]
    fn a_preference_that_is_not_finite_is_found() {
        let mut tally = Tally::new(&[Aggregate::Mean], Welfare::default(), &[1], 2, 1);
        let preferences = estimates(array![[f64::NAN]]);
        tally.add(0, &estimates(array![[1.0, 0.0]]), Some(&preferences), &[(0, 2)]);
        assert_eq!(tally.not_finite((0, 2), Some(0)), Some(0));
    }

    #[test]
    fn an_audiences_preference_is_antisymmetric_to_the_bit() {
        let larger = [0.9, 0.501, 0.7311, 1.0 - 1e-9, 0.5, 0.620_000_1, 0.93];
        for turned in 0..1_u32 << larger.len() {
            let side = |at: usize, p: f64, swapped: bool| {
                if (turned >> at & 1 == 1) == swapped { p } else { 1.0 - p }
            };
            let ask = |swapped: bool| {
                let column = larger.iter().enumerate().map(|(at, p)| side(at, *p, swapped)).collect();
                let column = Array2::from_shape_vec((larger.len(), 1), column).unwrap();
                let mut tally =
                    Tally::new(&[Aggregate::Mean], Welfare::default(), &[1, 3, 1, 7, 1, 2, 1], 2, 1);
                let rewards = Estimates::zeros(larger.len(), 2);
                tally.add(0, &rewards, Some(&estimates(column)), &[(0, 2)]);
                tally.preference(0).0
            };
            assert_eq!((1.0 - ask(false)).to_bits(), ask(true).to_bits());
        }
    }
}
