//! How a model does on people it never saw, by how many of their comparisons it was shown.

use ndarray::Array2;
use polyreward_heads::{
    Calibration, Head, HeadError, ItemComparison, Items, Observation, UserState,
    evaluation::PersonPredictions,
};

use crate::registry::Model;

/// A person's comparisons, apart: those a model is shown, and those it is then tested on.
#[derive(Debug, Clone, Default)]
pub struct TestedPerson {
    /// What the model is shown, in this order.
    pub context: Vec<ItemComparison>,
    /// What it is tested on.
    pub query: Vec<ItemComparison>,
}

/// Predictions after a number of examples.
#[derive(Debug, Clone, PartialEq)]
pub struct Shot {
    /// Examples shown to the model; people with fewer were shown all they have.
    pub examples: usize,
    /// For each person, P(chosen preferred) of every query comparison.
    pub predictions: Vec<PersonPredictions>,
}

/// Adapts to the first `n` context comparisons of every person and predicts their queries, for each `n` of `shots`.
///
/// # Errors
/// Embeddings the head refuses.
pub fn few_shot(
    model: &Model,
    items: &Items,
    people: &[TestedPerson],
    shots: &[usize],
) -> Result<Vec<Shot>, HeadError> {
    let head = model.head.as_ref();
    let sides: Vec<Sides> =
        people.iter().map(|person| Sides::of(head, items, person)).collect::<Result<_, _>>()?;
    let mut results = Vec::with_capacity(shots.len());
    for &examples in shots {
        let states = people
            .iter()
            .zip(&sides)
            .map(|(person, sides)| sides.adapt(head, person, 0..examples.min(person.context.len())))
            .collect::<Result<Vec<_>, _>>()?;
        let predictions = states
            .iter()
            .zip(&sides)
            .map(|(state, sides)| sides.predict(head, model.card.calibration, state))
            .collect::<Result<_, _>>()?;
        results.push(Shot { examples, predictions });
    }
    Ok(results)
}

/// Features of both sides of a person's comparisons, the chosen one first.
pub(crate) struct Sides {
    pub context: [Array2<f32>; 2],
    query: [Array2<f32>; 2],
    /// What names the texts of the context.
    pub names: Vec<[u64; 2]>,
}

impl Sides {
    pub fn of(head: &dyn Head, items: &Items, person: &TestedPerson) -> Result<Self, HeadError> {
        let sides = |rows: &[ItemComparison]| -> Result<[Array2<f32>; 2], HeadError> {
            let chosen: Vec<usize> = rows.iter().map(|row| row.chosen).collect();
            let rejected: Vec<usize> = rows.iter().map(|row| row.rejected).collect();
            Ok([items.features(head, &chosen)?, items.features(head, &rejected)?])
        };
        let names = person.context.iter().map(|row| items.names_of(row)).collect();
        Ok(Self { context: sides(&person.context)?, query: sides(&person.query)?, names })
    }

    /// The state after some of the context's comparisons, by position.
    pub fn adapt(
        &self,
        head: &dyn Head,
        person: &TestedPerson,
        shown: impl IntoIterator<Item = usize>,
    ) -> Result<UserState, HeadError> {
        let [chosen, rejected] = &self.context;
        let observations: Vec<Observation<'_>> = shown
            .into_iter()
            .map(|at| Observation {
                chosen: chosen.row(at),
                rejected: rejected.row(at),
                names: self.names[at],
                strength: person.context[at].strength,
                label_confidence: person.context[at].label_confidence,
            })
            .collect();
        head.adapt(&observations, None)
    }

    /// P(chosen preferred) of every query comparison.
    pub fn predict(
        &self,
        head: &dyn Head,
        calibration: Calibration,
        state: &UserState,
    ) -> Result<PersonPredictions, HeadError> {
        let [chosen, rejected] = &self.query;
        let margins = head.margins(&[state.view()], chosen.view(), rejected.view())?;
        let probability =
            |(mean, variance): (&f32, &f32)| calibration.probability(f64::from(*mean), f64::from(*variance));
        Ok(margins.mean.iter().zip(&margins.variance).map(probability).collect())
    }
}
