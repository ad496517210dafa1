//! Several groups together, each of which counts by its weight, however many of its members there are.

use ndarray::{Array1, Array2, ArrayView1};
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
    let rewards = outcomes.iter().map(|outcome| outcome.rewards).sum();
    let mut columns: Vec<_> = outcomes
        .iter_mut()
        .map(|outcome| match std::mem::replace(&mut outcome.results, Scored::Audience(Vec::new())) {
            Scored::Audience(answers) => answers.into_iter(),
            Scored::Pairs(_) | Scored::Items(_) => unreachable!("groups were asked for"),
        })
        .collect();
    let mut rows = Vec::new();
    loop {
        let row: Vec<_> = columns.iter_mut().filter_map(Iterator::next).collect();
        if row.is_empty() {
            break;
        }
        rows.push(of_each_group(row));
    }
    let worst_off = aggregates.contains(&Aggregate::MaxMin).then(|| worst_off(&rows)).flatten();
    let seen =
        Seen::Audience { users: groups.iter().sum(), left_out: left_out.iter().sum(), groups, worst_off };
    let rule = Rule { welfare: rule, worst_off };
    let results = rows.into_iter().map(|row| Ok(entry(row?, weights, aggregates, rule))).collect();
    // The first one read the texts.
    let first = outcomes.swap_remove(0);
    ScoreOutcome { seen, state_version, results: Scored::Audience(results), rewards, ..first }
}

/// One pair or item, as each group has it.
#[derive(Default)]
struct Row {
    /// `[group][response]`: the mean of each group's members.
    groups: Vec<Vec<f64>>,
    shares: Vec<Vec<f64>>,
    spreads: Vec<Vec<f64>>,
    preferences: Vec<(f64, f64)>,
    truncated: bool,
    tokens: usize,
}

fn of_each_group(answers: Vec<Result<Answer<AudienceScore>, Fault>>) -> Result<Row, Fault> {
    let mut row = Row::default();
    for answer in answers {
        // The texts are the same for each group, and so are their tokens.
        let Answer { mut scores, truncated, tokens } = answer?;
        row.tokens = tokens;
        row.truncated |= truncated;
        let AudienceScore { aggregates, preference, spreads, .. } = scores.remove(0);
        row.spreads.push(spreads);
        row.preferences.extend(preference);
        for (how, numbers) in aggregates {
            match how {
                Aggregate::Mean => row.groups.push(numbers),
                Aggregate::Share => row.shares.push(numbers),
                Aggregate::Min
                | Aggregate::P20
                | Aggregate::Softmin
                | Aggregate::Nash
                | Aggregate::MaxMin => unreachable!("means and shares were asked for"),
            }
        }
    }
    Ok(row)
}

/// The group with the least mean over all that was scored, each response counted once; none where nothing was.
fn worst_off(rows: &[Result<Row, Fault>]) -> Option<usize> {
    let rows = || rows.iter().flatten();
    let groups = rows().next()?.groups.len();
    let batch: Vec<f64> =
        (0..groups).flat_map(|group| rows().flat_map(move |row| row.groups[group].iter().copied())).collect();
    let shape = (groups, batch.len() / groups);
    Some(welfare::worst_off(Array2::from_shape_vec(shape, batch).ok()?.view()))
}

/// How groups' utilities become one.
#[derive(Clone, Copy, Default)]
struct Rule {
    welfare: Welfare,
    worst_off: Option<usize>,
}

/// One pair or item, as all groups together have it.
fn entry(
    row: Row,
    weights: ArrayView1<'_, f64>,
    aggregates: &[Aggregate],
    rule: Rule,
) -> Answer<AudienceScore> {
    let Row { groups, shares, spreads, preferences, truncated, tokens } = row;
    let column =
        |of: &[Vec<f64>], at: usize| -> Array1<f64> { of.iter().map(|numbers| numbers[at]).collect() };
    let responses = groups.first().map_or(0, Vec::len);
    let aggregate = |how: Aggregate, at: usize| {
        let means = column(&groups, at);
        match (how, rule.worst_off) {
            (Aggregate::Share, _) => welfare::mean(column(&shares, at).view(), weights),
            (Aggregate::MaxMin, Some(group)) => means[group],
            (how, _) => rule.welfare.of(how, means.view(), weights),
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
    Answer { scores: vec![score], truncated, tokens }
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
    /// One number of the utilities of people or groups, whose weights sum to 1. Of one response alone the worst off over a
    /// batch is the worst off.
    pub(super) fn of(
        self,
        how: Aggregate,
        utilities: ArrayView1<'_, f64>,
        weights: ArrayView1<'_, f64>,
    ) -> f64 {
        match how {
            Aggregate::Mean | Aggregate::Share => welfare::mean(utilities, weights),
            Aggregate::Min | Aggregate::MaxMin => welfare::least(utilities),
            Aggregate::P20 => welfare::p20(utilities, weights),
            Aggregate::Softmin => welfare::softmin(utilities, weights, self.temperature),
            Aggregate::Nash => welfare::nash(utilities, weights, self.disagreement),
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use polyreward_backbone::InputError;

    use super::*;
    use crate::score::Part;

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

    fn row(groups: [[f64; 2]; 2]) -> Result<Row, Fault> {
        of_each_group(groups.map(|means| group(means, [0.5, 0.5], None)).into())
    }

    #[test]
    fn a_group_counts_by_its_weight_and_the_worst_off_group_by_itself() {
        let answers = vec![group([0.9, 0.5], [1.0, 0.0], None), group([0.2, 0.4], [0.25, 0.75], None)];
        let asked = [Aggregate::Min, Aggregate::Mean, Aggregate::Share];
        let row = of_each_group(answers).unwrap();
        let answer = entry(row, array![0.75, 0.25].view(), &asked, Rule::default());
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
    fn the_group_that_is_worst_off_over_the_batch_is_served_in_every_entry_of_it() {
        let fault = Fault { at: 1, part: Part::Response(0), error: InputError::NotFinite };
        // The second group is worse off in the first entry, the first one by more in the last.
        let rows = vec![row([[0.6, 0.5], [0.4, 0.5]]), Err(fault), row([[0.1, 0.2], [0.9, 0.8]])];
        assert_eq!(worst_off(&rows), Some(0));
        let rule = Rule { worst_off: worst_off(&rows), ..Rule::default() };
        let of_entry = |row: Row| {
            let asked = [Aggregate::MaxMin, Aggregate::Min];
            entry(row, array![0.5, 0.5].view(), &asked, rule).scores.remove(0).aggregates
        };
        let found: Vec<_> = rows.into_iter().flatten().map(of_entry).collect();
        assert_eq!(found[0], [(Aggregate::MaxMin, vec![0.6, 0.5]), (Aggregate::Min, vec![0.4, 0.5])]);
        assert_eq!(found[1], [(Aggregate::MaxMin, vec![0.1, 0.2]), (Aggregate::Min, vec![0.1, 0.2])]);
        assert_eq!(worst_off(&[]), None);
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
