//! Several groups together, each of which counts by its weight, however many of its members there are.

use ndarray::{Array1, ArrayView1};
use polyreward_domain::{ModelSelector, TenantId};
use polyreward_heads::welfare;

use super::{
    Aggregate, Answer, AudienceScore, Fault, ScoreError, ScoreOutcome, ScoreQuery, Scored, Scorer, Seen,
    WeightedGroup, Welfare, Whose,
};
use crate::{judge::ranking, people::evidence::version_together};

impl Scorer {
    /// The means of every group, and what they come to together. A group after another: what one has embedded the next finds
    /// in the cache.
    pub(super) async fn of_groups(
        &self,
        tenant: &TenantId,
        mut query: ScoreQuery,
        groups: &[WeightedGroup],
        aggregates: &[Aggregate],
        rule: Welfare,
    ) -> Result<ScoreOutcome, ScoreError> {
        // One model for all of them, whatever is loaded meanwhile.
        let model = self.registry.registered().find(query.model.as_ref())?.reference.clone();
        query.model = Some(ModelSelector { name: model.name, version: Some(model.version) });
        let mut outcomes = Vec::with_capacity(groups.len());
        for (at, group) in groups.iter().enumerate() {
            let whose = Whose::Audience {
                group: group.group.clone(),
                aggregates: vec![Aggregate::Mean, Aggregate::Share],
                welfare: rule,
            };
            let outcome = self.judge(tenant, ScoreQuery { whose, ..query.clone() }).await;
            outcomes.push(outcome.map_err(|error| error.of_group(at))?);
        }
        let total: f64 = groups.iter().map(|group| group.weight).sum();
        let weights: Array1<f64> = groups.iter().map(|group| group.weight / total).collect();
        Ok(together(outcomes, weights.view(), aggregates, rule))
    }
}

/// Outcomes of one query for one group each as one.
fn together(
    mut outcomes: Vec<ScoreOutcome>,
    weights: ArrayView1<'_, f64>,
    aggregates: &[Aggregate],
    rule: Welfare,
) -> ScoreOutcome {
    let state_version = version_together(outcomes.iter().map(|outcome| outcome.state_version));
    let members = outcomes.iter().map(|outcome| match outcome.seen {
        Seen::Audience { users, left_out, .. } => (users, left_out),
        Seen::Population | Seen::User(_) | Seen::Users(_) => unreachable!("groups were asked for"),
    });
    let (groups, left_out): (Vec<usize>, Vec<usize>) = members.unzip();
    let seen = Seen::Audience { users: groups.iter().sum(), left_out: left_out.iter().sum(), groups };
    let rewards = outcomes.iter().map(|outcome| outcome.rewards).sum();
    let mut columns: Vec<_> = outcomes
        .iter_mut()
        .map(|outcome| match std::mem::replace(&mut outcome.results, Scored::Audience(Vec::new())) {
            Scored::Audience(answers) => answers.into_iter(),
            Scored::Pairs(_) | Scored::Items(_) => unreachable!("groups were asked for"),
        })
        .collect();
    let mut results = Vec::new();
    loop {
        let row: Vec<_> = columns.iter_mut().filter_map(Iterator::next).collect();
        if row.is_empty() {
            break;
        }
        results.push(entry(row, weights, aggregates, rule));
    }
    // The first one read the texts.
    let first = outcomes.swap_remove(0);
    ScoreOutcome { seen, state_version, results: Scored::Audience(results), rewards, ..first }
}

/// One pair or item, as each group has it, as all have it.
fn entry(
    row: Vec<Result<Answer<AudienceScore>, Fault>>,
    weights: ArrayView1<'_, f64>,
    aggregates: &[Aggregate],
    rule: Welfare,
) -> Result<Answer<AudienceScore>, Fault> {
    let mut groups = Vec::with_capacity(row.len());
    let (mut shares, mut spreads, mut preferences) = (Vec::new(), Vec::new(), Vec::new());
    let (mut truncated, mut tokens) = (false, 0);
    for answer in row {
        // The texts are the same for each group, and so are their tokens.
        let Answer { mut scores, truncated: cut, tokens: read } = answer?;
        tokens = read;
        let AudienceScore { aggregates, preference, spreads: of_group, .. } = scores.remove(0);
        spreads.push(of_group);
        truncated |= cut;
        preferences.extend(preference);
        for (how, numbers) in aggregates {
            match how {
                Aggregate::Mean => groups.push(numbers),
                Aggregate::Share => shares.push(numbers),
                Aggregate::Min | Aggregate::P20 | Aggregate::Softmin | Aggregate::Nash => {
                    unreachable!("means and shares were asked for")
                }
            }
        }
    }
    let column =
        |of: &[Vec<f64>], at: usize| -> Array1<f64> { of.iter().map(|numbers| numbers[at]).collect() };
    let responses = groups.first().map_or(0, Vec::len);
    let aggregate = |how: Aggregate, at: usize| {
        let means = column(&groups, at);
        match how {
            Aggregate::Share => welfare::mean(column(&shares, at).view(), weights),
            how => rule.of(how, means.view(), weights),
        }
    };
    let aggregates: Vec<_> = aggregates
        .iter()
        .map(|how| (*how, (0..responses).map(|at| aggregate(*how, at)).collect::<Vec<f64>>()))
        .collect();
    let ranking = aggregates.first().map(|(_, values)| ranking(values)).unwrap_or_default();
    let preference = (!preferences.is_empty()).then(|| mean_preference(&preferences, weights));
    let spread = |at: usize| spread(column(&groups, at).view(), column(&spreads, at).view(), weights);
    let spreads = (0..responses).map(spread).collect();
    let score = AudienceScore { aggregates, ranking, preference, groups, spreads };
    Ok(Answer { scores: vec![score], truncated, tokens })
}

/// How far members lie from the mean of all groups, given how far those of each lie from its own.
fn spread(means: ArrayView1<'_, f64>, spreads: ArrayView1<'_, f64>, weights: ArrayView1<'_, f64>) -> f64 {
    let mean = welfare::mean(means, weights);
    let squares = means.iter().zip(spreads).zip(weights);
    squares
        .map(|((own, spread), weight)| weight * (spread * spread + (own - mean).powi(2)))
        .sum::<f64>()
        .sqrt()
}

/// The weighted mean of preferences, each with its deviation. What is added up changes its sign exactly when the pair is
/// swapped.
fn mean_preference(preferences: &[(f64, f64)], weights: ArrayView1<'_, f64>) -> (f64, f64) {
    let (mut leaning, mut variance) = (0.0, 0.0);
    for ((preference, deviation), weight) in preferences.iter().zip(weights) {
        leaning += weight * (preference - 0.5);
        variance += (weight * deviation).powi(2);
    }
    let larger = (0.5 + leaning.abs()).min(1.0);
    (if leaning >= 0.0 { larger } else { 1.0 - larger }, variance.sqrt())
}

impl Welfare {
    /// One number of the utilities of people or groups, whose weights sum to 1. A percentile counts each of them once.
    pub(super) fn of(
        self,
        how: Aggregate,
        utilities: ArrayView1<'_, f64>,
        weights: ArrayView1<'_, f64>,
    ) -> f64 {
        match how {
            Aggregate::Mean | Aggregate::Share => welfare::mean(utilities, weights),
            Aggregate::Min => welfare::least(utilities),
            Aggregate::P20 => welfare::p20(utilities),
            Aggregate::Softmin => welfare::softmin(utilities, weights, self.temperature),
            Aggregate::Nash => welfare::nash(utilities, weights, self.disagreement),
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "as a group's query is answered")]
    fn group(
        means: [f64; 2],
        shares: [f64; 2],
        preference: Option<(f64, f64)>,
    ) -> Result<Answer<AudienceScore>, Fault> {
        let aggregates = vec![(Aggregate::Mean, means.to_vec()), (Aggregate::Share, shares.to_vec())];
        let score = AudienceScore {
            aggregates,
            ranking: vec![0, 1],
            preference,
            groups: Vec::new(),
            spreads: vec![0.1, 0.0],
        };
        Ok(Answer { scores: vec![score], truncated: false, tokens: 7 })
    }

    #[test]
    fn a_group_counts_by_its_weight_and_the_worst_off_group_by_itself() {
        let row = vec![group([0.9, 0.5], [1.0, 0.0], None), group([0.2, 0.4], [0.25, 0.75], None)];
        let asked = [Aggregate::Min, Aggregate::Mean, Aggregate::Share];
        let answer = entry(row, array![0.75, 0.25].view(), &asked, Welfare::default()).unwrap();
        let score = &answer.scores[0];
        let expected = [[0.2, 0.4], [0.725, 0.475], [0.8125, 0.1875]];
        for ((_, numbers), expected) in score.aggregates.iter().zip(expected) {
            assert!(numbers.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{numbers:?}");
        }
        // Between groups, and within them.
        let spread = (0.75 * 0.175_f64.powi(2) + 0.25 * 0.525_f64.powi(2) + 0.01).sqrt();
        assert!((score.spreads[0] - spread).abs() < 1e-12 && answer.tokens == 7, "{:?}", score.spreads);
        // By the first rule, which serves the group that is worse off.
        assert_eq!((score.ranking.as_slice(), score.groups.len()), ([1, 0].as_slice(), 2));
    }

    #[test]
    fn the_preference_of_groups_is_antisymmetric_to_the_bit() {
        let weights = array![0.3, 0.5, 0.2];
        let sides = [(0.9, 0.01), (0.3, 0.02), (0.620_000_1, 0.03)];
        let swapped = sides.map(|(p, deviation)| (1.0 - p, deviation));
        let (there, back) =
            (mean_preference(&sides, weights.view()), mean_preference(&swapped, weights.view()));
        assert!((there.0 + back.0 - 1.0).abs() < 1e-15 && there.1 == back.1);
        let exact = [(0.75, 0.0), (0.375, 0.0), (0.625, 0.0)];
        let swapped = exact.map(|(p, deviation)| (1.0 - p, deviation));
        let (there, back) =
            (mean_preference(&exact, weights.view()), mean_preference(&swapped, weights.view()));
        assert_eq!((1.0 - there.0).to_bits(), back.0.to_bits());
    }
}
