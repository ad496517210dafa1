//! What a fitted head is worth on the comparisons kept from it, and the scale and calibration that follow.

use polyreward_heads::{
    Calibration, Head, ItemComparison, Items, Observation, Person, RewardStatistics, UserState,
    evaluation::{Bootstrap, PersonPredictions, Summary, summarize},
};
use serde::{Deserialize, Serialize};

use crate::{
    data::{HoldOut, TrainingData, keyed_hash},
    error::TrainingError,
    features::{COMPARISONS_AT_ONCE, ItemFeatures, parts},
};

/// `evaluation.json`: how the model did on what it was not trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// People held out of training, with no examples. They chose when to stop and the calibration: optimistic by a little.
    pub validation: Option<Summary>,
    /// Comparisons of trained people that were kept out of everything, with no examples.
    pub seen_people: Option<Summary>,
    /// The people held out of training, by number of examples, on comparisons that share no text with any example.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shots: Vec<ShotEvaluation>,
}

/// How the model did after a number of examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShotEvaluation {
    /// Examples shown; people who have fewer are left out.
    pub examples: usize,
    /// How it did.
    pub summary: Summary,
}

/// Examples a held-out person shows at most.
const CONTEXT: usize = 16;
/// Numbers of examples that checkpoints are chosen and the calibration is fitted by.
pub(crate) const CALIBRATED_SHOTS: [usize; 5] = [0, 1, 4, 8, 16];
/// Numbers of examples that are reported.
const REPORTED_SHOTS: [usize; 6] = [0, 1, 2, 4, 8, 16];

/// A held-out person's comparisons, apart: what a head is shown, and what it is asked.
#[derive(Debug)]
struct Held {
    context: Vec<ItemComparison>,
    query: Vec<ItemComparison>,
    /// Of each query: whether it touches a text that nobody was trained on.
    fresh: Vec<bool>,
}

/// The held-out people as a test of how a head learns from examples.
#[derive(Debug)]
pub(crate) struct Trial {
    people: Vec<Held>,
}

/// A margin oriented so that positive is right, and the comparison it is of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    mean: f64,
    variance: f64,
    strength: f64,
    confidence: f64,
    fresh: bool,
}

/// Outcomes by person, after a number of examples.
#[derive(Debug)]
pub(crate) struct Shot {
    pub(crate) examples: usize,
    pub(crate) people: Vec<Vec<Outcome>>,
}

impl Trial {
    /// Splits each held-out person's comparisons by a hash; half of them, at most 16, become examples.
    pub(crate) fn of(people: &[Person], hold_out: &HoldOut, seed: u64) -> Self {
        let asked = |context: Vec<ItemComparison>, query: Vec<ItemComparison>| Held {
            context,
            fresh: query.iter().map(|row| hold_out.is_of_held_out_items(row)).collect(),
            query,
        };
        let people: Vec<Held> = hold_out
            .validation
            .iter()
            .map(|person| {
                let (user, rows) = (people[*person].user_id.as_str(), &people[*person].comparisons);
                let mut order: Vec<usize> = (0..rows.len()).collect();
                order.sort_by_cached_key(|at| keyed_hash(seed, user.as_bytes(), *at as u64 + (1 << 32)));
                let (shown, rest) = order.split_at(CONTEXT.min(rows.len() / 2));
                let context: Vec<ItemComparison> = shown.iter().map(|at| rows[*at]).collect();
                let known: Vec<usize> = context.iter().flat_map(|row| [row.chosen, row.rejected]).collect();
                let fresh =
                    |row: &&ItemComparison| !known.contains(&row.chosen) && !known.contains(&row.rejected);
                let query: Vec<ItemComparison> =
                    rest.iter().map(|at| &rows[*at]).filter(fresh).copied().collect();
                if query.is_empty() {
                    // Few texts, all of them shown: this person can be asked without examples only.
                    return asked(Vec::new(), rows.clone());
                }
                asked(context, query)
            })
            .collect();
        Self { people }
    }

    /// What a head says of the queries after the first examples; a number that nobody has is left out, as are all but the
    /// first for a head that does not adapt.
    pub(crate) fn run(
        &self,
        data: &TrainingData,
        head: &dyn Head,
        shots: &[usize],
    ) -> Result<Vec<Shot>, TrainingError> {
        let shots = if head.is_personal() { shots } else { &shots[..1] };
        let empty = |examples: &usize| Shot { examples: *examples, people: Vec::new() };
        let mut results: Vec<Shot> = shots.iter().map(empty).collect();
        for people in parts(&self.people, Held::len) {
            let rows = people.iter().flat_map(|person| person.context.iter().chain(&person.query));
            let items = rows.flat_map(|row| [row.chosen, row.rejected]);
            let features = ItemFeatures::of(&data.items, head, items)?;
            for shot in &mut results {
                for person in people {
                    shot.people.push(person.outcomes(data, head, &features, shot.examples)?);
                }
            }
        }
        results.retain(|shot| shot.people.iter().any(|person| !person.is_empty()));
        Ok(results)
    }
}

impl Held {
    fn len(&self) -> usize {
        self.context.len() + self.query.len()
    }

    /// What a head says of the queries after the first examples; nothing if there are fewer.
    fn outcomes(
        &self,
        data: &TrainingData,
        head: &dyn Head,
        features: &ItemFeatures,
        examples: usize,
    ) -> Result<Vec<Outcome>, TrainingError> {
        if self.context.len() < examples || self.query.is_empty() {
            return Ok(Vec::new());
        }
        let chosen = features.rows(self.query.iter().map(|row| row.chosen));
        let rejected = features.rows(self.query.iter().map(|row| row.rejected));
        let state = if examples == 0 {
            head.population().clone()
        } else {
            adapt(data, head, features, &self.context[..examples])?
        };
        let moments = head.margins(&[state.view()], chosen.view(), rejected.view())?;
        let outcomes = moments.mean.iter().zip(&moments.variance).zip(&self.query).zip(&self.fresh);
        Ok(outcomes
            .map(|(((mean, variance), row), fresh)| Outcome {
                fresh: *fresh,
                mean: f64::from(*mean),
                variance: f64::from(*variance),
                strength: row.strength,
                confidence: row.label_confidence,
            })
            .collect())
    }
}

fn adapt(
    data: &TrainingData,
    head: &dyn Head,
    features: &ItemFeatures,
    context: &[ItemComparison],
) -> Result<UserState, TrainingError> {
    let examples: Vec<Observation<'_>> = context
        .iter()
        .map(|row| Observation {
            chosen: features.row(row.chosen),
            rejected: features.row(row.rejected),
            names: data.items.names_of(row),
            strength: row.strength,
            label_confidence: row.label_confidence,
        })
        .collect();
    Ok(head.adapt(&examples, None)?)
}

/// A person's part in a log loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PersonLoss {
    /// Sum of weighted losses, in nats.
    pub(crate) total: f64,
    /// Sum of weights.
    pub(crate) weight: f64,
}

impl Outcome {
    /// Margin, variance and weight of both labels that may be right, counted `times`.
    fn weighted(&self, times: f64) -> [(f64, f64, f64); 2] {
        [
            (self.mean, self.variance, times * self.strength * self.confidence),
            (-self.mean, self.variance, times * self.strength * (1.0 - self.confidence)),
        ]
    }
}

/// What one person may weigh in a loss, in ordinary comparisons: nobody's many answers decide for all.
const LARGEST_PERSON: f64 = 64.0;
/// The part of a loss that is of texts nobody was trained on, where there are such: those that are served are often new, and
/// the little that is known of new ones should not drown in the rest.
const FRESH_SHARE: f64 = 0.25;

/// How often each outcome of a shot counts, by person: so that a person weighs no more than [`LARGEST_PERSON`], new texts
/// make up [`FRESH_SHARE`] of the whole, and `shots` shots together weigh what one does, being of the same queries.
fn weights(shot: &Shot, shots: usize) -> Vec<Vec<f64>> {
    let mut weights: Vec<Vec<f64>> = Vec::with_capacity(shot.people.len());
    let (mut fresh, mut all) = (0.0, 0.0);
    for person in &shot.people {
        let total: f64 = person.iter().map(|outcome| outcome.strength).sum();
        let share = if total > LARGEST_PERSON { LARGEST_PERSON / total } else { 1.0 };
        for outcome in person {
            all += share * outcome.strength;
            fresh += if outcome.fresh { share * outcome.strength } else { 0.0 };
        }
        weights.push(vec![share / shots as f64; person.len()]);
    }
    if fresh > 0.0 && fresh < all {
        for (person, weights) in shot.people.iter().zip(&mut weights) {
            for (outcome, weight) in person.iter().zip(weights) {
                *weight *= all
                    * if outcome.fresh { FRESH_SHARE / fresh } else { (1.0 - FRESH_SHARE) / (all - fresh) };
            }
        }
    }
    weights
}

/// Temperature, variance scale and label noise of least log loss over all numbers of examples.
pub(crate) fn calibrate(head: &dyn Head, shots: &[Shot]) -> Result<Calibration, TrainingError> {
    Ok(Calibration::fit(&weighted_margins(shots), !head.margins_are_marginal())?)
}

/// The temperature of least log loss over all numbers of examples, and that loss: what moments of one descent, and runs that
/// read different texts, are compared by.
pub(crate) fn log_loss(
    head: &dyn Head,
    shots: &[Shot],
    label_noise: f64,
) -> Result<(Calibration, f64), TrainingError> {
    let moderated = !head.margins_are_marginal();
    let calibration = Calibration { label_noise, moderated, ..Calibration::default() };
    let calibration = calibration.fit_temperature(&weighted_margins(shots))?;
    let people = losses(shots, calibration);
    let sum = |of: fn(&PersonLoss) -> f64| people.iter().map(of).sum::<f64>();
    Ok((calibration, sum(|person| person.total) / sum(|person| person.weight)))
}

/// Mean, variance and weight of every margin, oriented by its label.
fn weighted_margins(shots: &[Shot]) -> Vec<(f64, f64, f64)> {
    let mut weighted: Vec<(f64, f64, f64)> = Vec::new();
    for shot in shots {
        for (person, weights) in shot.people.iter().zip(weights(shot, shots.len())) {
            weighted.extend(person.iter().zip(weights).flat_map(|(outcome, times)| outcome.weighted(times)));
        }
    }
    weighted.retain(|(_, _, weight)| *weight > 0.0);
    // Uneven weights make fewer comparisons of many (Kish's effective sample size): a fit must not believe in more.
    let sum = |power: i32| weighted.iter().map(|(_, _, weight)| weight.powi(power)).sum::<f64>();
    let effective = sum(1) / (shots.len() as f64 * sum(2)).max(f64::MIN_POSITIVE);
    for (_, _, weight) in &mut weighted {
        *weight *= effective.min(1.0);
    }
    weighted
}

/// Each person's part in the log loss over all numbers of examples.
pub(crate) fn losses(shots: &[Shot], calibration: Calibration) -> Vec<PersonLoss> {
    let count = shots.first().map_or(0, |shot| shot.people.len());
    let mut people = vec![PersonLoss { total: 0.0, weight: 0.0 }; count];
    for shot in shots {
        let weights = weights(shot, shots.len());
        for ((person, outcomes), weights) in people.iter_mut().zip(&shot.people).zip(weights) {
            let both = outcomes.iter().zip(weights).flat_map(|(outcome, times)| outcome.weighted(times));
            for (mean, variance, weight) in both {
                let p = calibration.probability(mean, variance);
                let observed = calibration.label_noise + (1.0 - 2.0 * calibration.label_noise) * p;
                person.total -= weight * observed.max(f64::MIN_POSITIVE).ln();
                person.weight += weight;
            }
        }
    }
    people
}

/// Share of outcomes on the right side, after a number of examples.
pub(crate) fn accuracy(shots: &[Shot], examples: usize) -> Option<f64> {
    let shot = shots.iter().find(|shot| shot.examples == examples)?;
    let outcomes: Vec<&Outcome> = shot.people.iter().flatten().collect();
    let right = |o: &&Outcome| if o.mean > 0.0 { 1.0 } else { f64::from(u8::from(o.mean == 0.0)) / 2.0 };
    Some(outcomes.iter().map(right).sum::<f64>() / outcomes.len() as f64)
}

/// Population margins (mean, variance) of comparisons, oriented so that positive is right.
fn margins(
    items: &Items,
    head: &dyn Head,
    comparisons: &[(usize, &ItemComparison)],
) -> Result<Vec<(f64, f64)>, TrainingError> {
    let all = comparisons.iter().flat_map(|(_, row)| [row.chosen, row.rejected]);
    let features = ItemFeatures::of(items, head, all)?;
    let chosen = features.rows(comparisons.iter().map(|(_, row)| row.chosen));
    let rejected = features.rows(comparisons.iter().map(|(_, row)| row.rejected));
    let moments = head.margins(&[head.population().view()], chosen.view(), rejected.view())?;
    Ok(moments.mean.iter().zip(&moments.variance).map(|(m, v)| (f64::from(*m), f64::from(*v))).collect())
}

/// Probabilities that a population gives to what each of `people` chose; comparisons as (person, comparison).
///
/// # Errors
/// A missing text form, or embeddings the head refuses.
pub fn predict(
    items: &Items,
    people: usize,
    head: &dyn Head,
    calibration: Calibration,
    rows: &[(usize, &ItemComparison)],
) -> Result<Vec<PersonPredictions>, TrainingError> {
    let mut people = vec![Vec::new(); people];
    for rows in rows.chunks(COMPARISONS_AT_ONCE) {
        for ((person, _), (mean, variance)) in rows.iter().zip(margins(items, head, rows)?) {
            people[*person].push(calibration.probability(mean, variance));
        }
    }
    Ok(people)
}

/// The calibration of least log loss on the held-out people, over several numbers of their examples.
///
/// # Errors
/// A missing text form, or embeddings the head refuses.
pub fn calibrate_on_held_out(
    data: &TrainingData,
    hold_out: &HoldOut,
    head: &dyn Head,
    seed: u64,
) -> Result<Calibration, TrainingError> {
    let trial = Trial::of(&data.people, hold_out, seed);
    calibrate(head, &trial.run(data, head, &CALIBRATED_SHOTS)?)
}

/// Evaluates on the held-out people and the held-out comparisons of the others.
pub(crate) fn evaluate(
    data: &TrainingData,
    hold_out: &HoldOut,
    trial: &Trial,
    head: &dyn Head,
    calibration: Calibration,
) -> Result<Evaluation, TrainingError> {
    let validation: Vec<_> = hold_out
        .validation
        .iter()
        .flat_map(|person| data.people[*person].comparisons.iter().map(move |row| (*person, row)))
        .collect();
    let summary = |rows: &[(usize, &ItemComparison)]| -> Result<Option<Summary>, TrainingError> {
        Ok(summarize(
            &predict(&data.items, data.people.len(), head, calibration, rows)?,
            Bootstrap::default(),
        ))
    };
    let shots = trial
        .run(data, head, &REPORTED_SHOTS)?
        .into_iter()
        .filter_map(|shot| {
            let probability = |o: &Outcome| calibration.probability(o.mean, o.variance);
            let people: Vec<PersonPredictions> =
                shot.people.iter().map(|person| person.iter().map(probability).collect()).collect();
            let summary = summarize(&people, Bootstrap::default())?;
            Some(ShotEvaluation { examples: shot.examples, summary })
        })
        .collect();
    Ok(Evaluation {
        shots,
        validation: summary(&validation)?,
        seen_people: summary(&hold_out.held_out_rows(&data.people))?,
    })
}

/// Mean and deviation of the population reward over the items of the training comparisons.
pub(crate) fn reward_statistics(
    data: &TrainingData,
    head: &dyn Head,
    items: &[usize],
) -> Result<RewardStatistics, TrainingError> {
    let mut values: Vec<f64> = Vec::with_capacity(items.len());
    for items in items.chunks(COMPARISONS_AT_ONCE) {
        let features = data.items.features(head, items)?;
        let rewards = head.rewards(&[head.population().view()], features.view())?.mean;
        values.extend(rewards.iter().map(|reward| f64::from(*reward)));
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / values.len() as f64;
    if variance <= 0.0 {
        return Err(TrainingError::Data("every response has the same reward; nothing was learned".into()));
    }
    Ok(RewardStatistics { mean, standard_deviation: variance.sqrt(), responses: values.len() })
}
