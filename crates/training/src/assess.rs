//! What a fitted head is worth on the comparisons kept from it, and the scale and calibration that follow.

use polyreward_heads::{
    Calibration, Head, ItemComparison, RewardStatistics,
    evaluation::{Bootstrap, PersonPredictions, Summary, summarize},
};
use serde::{Deserialize, Serialize};

use crate::{
    data::{HoldOut, TrainingData},
    error::TrainingError,
};

/// `evaluation.json`: how the model did on what it was not trained on, as the population (no examples).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// People held out of training. They chose when to stop and the calibration: optimistic by a little.
    pub validation: Option<Summary>,
    /// Comparisons of trained people that were kept out of everything.
    pub seen_people: Option<Summary>,
}

/// Population margins (mean, variance) of comparisons, oriented so that positive is right.
pub(crate) fn margins(
    data: &TrainingData,
    head: &dyn Head,
    comparisons: &[&ItemComparison],
) -> Result<Vec<(f64, f64)>, TrainingError> {
    let chosen: Vec<usize> = comparisons.iter().map(|comparison| comparison.chosen).collect();
    let rejected: Vec<usize> = comparisons.iter().map(|comparison| comparison.rejected).collect();
    let (a, b) = (data.items.features(head, &chosen)?, data.items.features(head, &rejected)?);
    let moments = head.margins(&[head.population()], a.view(), b.view())?;
    Ok(moments.mean.iter().zip(&moments.variance).map(|(m, v)| (f64::from(*m), f64::from(*v))).collect())
}

/// The temperature of least log loss on the held-out people.
pub(crate) fn calibrate(
    data: &TrainingData,
    hold_out: &HoldOut,
    head: &dyn Head,
) -> Result<Calibration, TrainingError> {
    let comparisons: Vec<&ItemComparison> =
        hold_out.validation.iter().flat_map(|person| &data.people[*person].comparisons).collect();
    let margins = margins(data, head, &comparisons)?;
    let weighted: Vec<_> = margins
        .iter()
        .zip(&comparisons)
        .flat_map(|((m, v), comparison)| {
            let (strength, confidence) = (comparison.strength, comparison.label_confidence);
            [(*m, *v, strength * confidence), (-m, *v, strength * (1.0 - confidence))]
        })
        .filter(|(_, _, weight)| *weight > 0.0)
        .collect();
    Ok(Calibration::fit(&weighted)?)
}

/// Probabilities that a population gives to what people chose, by person; comparisons as (person, comparison).
///
/// # Errors
/// A missing text form, or embeddings the head refuses.
pub fn predict(
    data: &TrainingData,
    head: &dyn Head,
    calibration: Calibration,
    rows: &[(usize, &ItemComparison)],
) -> Result<Vec<PersonPredictions>, TrainingError> {
    let comparisons: Vec<&ItemComparison> = rows.iter().map(|(_, comparison)| *comparison).collect();
    let mut people = vec![Vec::new(); data.people.len()];
    if comparisons.is_empty() {
        return Ok(people);
    }
    for ((person, _), (mean, variance)) in rows.iter().zip(margins(data, head, &comparisons)?) {
        people[*person].push(calibration.probability(mean, variance));
    }
    Ok(people)
}

/// Evaluates on the held-out people and the held-out comparisons of the others.
pub(crate) fn evaluate(
    data: &TrainingData,
    hold_out: &HoldOut,
    head: &dyn Head,
    calibration: Calibration,
) -> Result<Evaluation, TrainingError> {
    let validation: Vec<_> = hold_out
        .validation
        .iter()
        .flat_map(|person| data.people[*person].comparisons.iter().map(move |row| (*person, row)))
        .collect();
    let summary = |rows: &[(usize, &ItemComparison)]| -> Result<Option<Summary>, TrainingError> {
        Ok(summarize(&predict(data, head, calibration, rows)?, Bootstrap::default()))
    };
    Ok(Evaluation {
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
    let features = data.items.features(head, items)?;
    let rewards = head.rewards(&[head.population()], features.view())?.mean;
    let values: Vec<f64> = rewards.iter().map(|reward| f64::from(*reward)).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / values.len() as f64;
    if variance <= 0.0 {
        return Err(TrainingError::Data("every response has the same reward; nothing was learned".into()));
    }
    Ok(RewardStatistics { mean, standard_deviation: variance.sqrt(), responses: values.len() })
}
