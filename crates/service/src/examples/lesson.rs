//! What a transaction waits for: predictions before, states after.

use std::sync::Arc;

use polyreward_domain::{ModelRef, StateVersion};
use polyreward_heads::{HeadError, StateView, UserState};
use polyreward_storage::{Evidence, ExampleEmbedding, ModelKey, NewExample, Prediction, StoredState};
use time::OffsetDateTime;

use super::{LearnError, StateSummary};
use crate::{
    aside::{Stopped, aside},
    judge::Judge,
    people::evidence::{Features, Vote, restored, version_of},
    registry::{Model, baseline_of},
    score::RewardScale,
};

/// Examples before, examples to learn, and who learns them.
pub(super) struct Lesson {
    pub before: Vec<Evidence>,
    pub fresh: Vec<NewExample>,
    /// A model, its key, and the state that is stored for the examples before.
    pub pupils: Vec<(Arc<Model>, ModelKey, Option<StoredState>)>,
}

/// What one model said and then believed.
pub(super) struct Learning {
    pub model: ModelRef,
    pub model_key: ModelKey,
    pub is_personal: bool,
    /// One for each example learned, in their order.
    pub predictions: Vec<Prediction>,
    pub state: Arc<UserState>,
    uncertainty: f64,
}

impl Learning {
    pub fn summary(&self) -> Option<StateSummary> {
        self.is_personal.then(|| StateSummary {
            model: self.model.clone(),
            examples: self.state.examples(),
            uncertainty: self.uncertainty,
        })
    }
}

impl Lesson {
    fn votes(&self) -> Vec<Vote> {
        let fresh = self.fresh.iter().map(|example| Vote::of(&example.comparison));
        self.before.iter().map(Vote::from).chain(fresh).collect()
    }

    /// The version of all examples, the new ones included.
    pub fn version(&self) -> StateVersion {
        version_of(self.votes())
    }

    /// Teaches every model, on a thread that answers nobody else.
    pub async fn teach(self, now: OffsetDateTime) -> Result<Vec<Learning>, LearnError> {
        let task = move || -> Result<Vec<Learning>, HeadError> {
            let votes = self.votes();
            let embeddings: Vec<&[ExampleEmbedding]> = self
                .before
                .iter()
                .map(|example| example.embeddings.as_slice())
                .chain(self.fresh.iter().map(|example| example.embeddings.as_slice()))
                .collect();
            let learn = |(model, key, stored): &(Arc<Model>, ModelKey, Option<StoredState>)| {
                self.learn(model, *key, stored.as_ref(), &votes, &embeddings, now)
            };
            let learnings = self.pupils.iter().map(learn).collect::<Result<Vec<_>, _>>()?;
            Ok(beside_the_baseline(learnings, baseline_of(self.pupils.iter().map(|(model, ..)| model))))
        };
        let learnings = aside(task).await.map_err(|Stopped| LearnError::GivenUp)?;
        Ok(learnings?)
    }

    fn learn(
        &self,
        model: &Model,
        model_key: ModelKey,
        stored: Option<&StoredState>,
        votes: &[Vote],
        embeddings: &[&[ExampleEmbedding]],
        now: OffsetDateTime,
    ) -> Result<Learning, HeadError> {
        let head = model.head.as_ref();
        let (known, is_personal) = (self.before.len(), head.is_personal());
        let population = head.population();
        let features = Features::of(head, embeddings)?;
        let stored = stored.and_then(|stored| {
            restored(head, stored.clone())
                .inspect_err(|error| {
                    tracing::warn!(model = %model.reference, error = %error, "a stored state is derived again");
                })
                .ok()
        });
        let mut state = match stored {
            _ if !is_personal || known == 0 => population.clone(),
            Some(state) => state,
            None => features.adapt(head, &votes[..known], None)?,
        };
        let judge = Judge { model, scale: RewardScale::Raw };
        let mut predictions = Vec::with_capacity(self.fresh.len());
        for (at, example) in self.fresh.iter().enumerate() {
            let [chosen, rejected] = features.pair(known + at);
            let preferences = judge.preferences(&[state.view(), population.view()], chosen, rejected)?.value;
            if preferences.iter().any(|preference| !preference.is_finite()) {
                return Err(HeadError::NotFinite("a preference"));
            }
            predictions.push(Prediction {
                example_id: example.example_id.clone(),
                model: model.reference.clone(),
                shot: (known + at) as u64,
                preference: preferences[[0, 0]],
                population_preference: preferences[[1, 0]],
                // Known once every model has predicted.
                baseline_preference: None,
                created_at: now,
            });
            if is_personal {
                state = features.adapt(head, &votes[..=known + at], Some(&state))?;
            }
        }
        Ok(Learning {
            model: model.reference.clone(),
            model_key,
            is_personal,
            predictions,
            uncertainty: left_of_prior(state.view(), population.view()),
            state: Arc::new(state),
        })
    }
}

/// Puts what the baseline said of an example beside what each model said of it.
fn beside_the_baseline(mut learnings: Vec<Learning>, baseline: Option<&Arc<Model>>) -> Vec<Learning> {
    let of_baseline =
        baseline.and_then(|model| learnings.iter().find(|learning| learning.model == model.reference));
    let Some(of_baseline) = of_baseline else { return learnings };
    let said: Vec<f64> = of_baseline.predictions.iter().map(|prediction| prediction.preference).collect();
    for learning in &mut learnings {
        for (prediction, preference) in learning.predictions.iter_mut().zip(&said) {
            prediction.baseline_preference = Some(*preference);
        }
    }
    learnings
}

/// Which part of the prior's standard deviation is left: the root of the ratio of the total variances, at most 1 where
/// examples agree, more where they contradict the prior.
pub(crate) fn left_of_prior(state: StateView<'_>, population: StateView<'_>) -> f64 {
    let total = |state: StateView<'_>| state.variances().iter().map(|x| f64::from(*x)).sum::<f64>();
    let prior = total(population);
    if prior > 0.0 { (total(state) / prior).sqrt() } else { 1.0 }
}
