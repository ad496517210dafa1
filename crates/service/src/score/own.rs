//! Pairs that were each compared by somebody of their own: what the model makes of each with what it believes of them.

use std::{sync::Arc, time::Instant};

use polyreward_domain::{Overflow, TenantId};

use super::{
    Answer, Asked, HeldRoom, Pair, RewardScale, ScoreError, Scorer, Work,
    plan::Plan,
    room::Wanted,
    task::{Panel, Task},
};
use crate::{
    aside::aside,
    people::{Person, Resolved},
    registry::Model,
};

impl Scorer {
    /// P(a preferred to b) of each pair by the one of these people whose number stands beside it, and by the population.
    ///
    /// # Errors
    /// Those of [`Scorer::score`]; a text that cannot be read fails them all. People whose examples cannot be used are named
    /// by their number.
    pub(crate) async fn own_preferences(
        &self,
        tenant: &TenantId,
        model: &Arc<Model>,
        people: Vec<Person>,
        pairs: Vec<(Pair, usize)>,
        deadline: Option<Instant>,
    ) -> Result<Vec<[f64; 2]>, ScoreError> {
        let (pairs, places): (Vec<Pair>, Vec<usize>) = pairs.into_iter().unzip();
        let plan = Plan::of(&Work::Pairs(pairs), model.head.text_forms());
        let state_len = model.head.population().mean().len();
        let cells = people.len().max(1).saturating_mul(state_len).saturating_add(2 * plan.rows.len());
        let room = HeldRoom { _units: self.room.take(cells).ok_or(ScoreError::NoRoom)? };

        let resolved = self.people.resolve(tenant, model, people, deadline).await?;
        let (mut states, mut unusable) = (Vec::with_capacity(resolved.len()), Vec::new());
        for (at, person) in resolved.into_iter().enumerate() {
            match person {
                Ok(Resolved { state, .. }) => states.push(state),
                Err(why) => unusable.push((Asked::Users(at), why)),
            }
        }
        if !unusable.is_empty() {
            return Err(ScoreError::UnusableExamples(unusable));
        }
        let embedded = self.backbone.embed(plan.inputs.clone(), Overflow::Truncate, deadline).await?;
        let faults = plan.faults(&embedded);
        if faults.iter().any(Option::is_some) {
            return Err(ScoreError::Faults(faults.into_iter().flatten().collect()));
        }
        let (wanted, _caller) = Wanted::until(deadline);
        let task = Task {
            model: Arc::clone(model),
            plan,
            embedded,
            faults,
            scale: RewardScale::Raw,
            also: None,
            panel: Panel::of(places.into_iter().map(|at| states[at].clone())),
            aggregates: None,
            wanted,
        };
        // The room goes with it, since a task is not broken off at once when its caller leaves.
        let answers = aside(move || (task.own(), room)).await?.0?;
        let (mut preferences, mut faults) = (Vec::with_capacity(answers.len()), Vec::new());
        for answer in answers {
            match answer {
                Ok(Answer { scores, .. }) => preferences.push(scores[0]),
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() { Ok(preferences) } else { Err(ScoreError::Faults(faults)) }
    }
}
