//! `POST /users/{id}/queries` without HTTP: which of some pairs to ask a person about next.

use std::{sync::Arc, time::Instant};

use polyreward_backbone::Backbone;
use polyreward_domain::{ModelRef, ModelSelector, Overflow, StateVersion, TenantId, UserId};

use crate::{
    aside::aside,
    judge::ranking,
    metrics,
    people::{People, Resolved},
    registry::ModelRegistry,
    score::{
        Asked, Pair, RewardScale, ScoreError, Usage, UserSeen, Work,
        plan::Plan,
        room::Wanted,
        task::{Panel, Task},
        usage_of, within,
    },
};

/// A request to rank the pairs that a person could be asked about.
#[derive(Debug, Clone)]
pub struct AskQuery {
    /// Which model; `None` is the default.
    pub model: Option<ModelSelector>,
    /// Who is to be asked; somebody unknown is as the population.
    pub user_id: UserId,
    /// The pairs.
    pub pairs: Vec<Pair>,
    /// How many are wanted; `None` is all.
    pub limit: Option<usize>,
    /// What becomes of texts longer than the window.
    pub overflow: Overflow,
    /// When the answer is no longer wanted.
    pub deadline: Option<Instant>,
}

/// A pair that a person could be asked about.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its position in the request.
    pub at: usize,
    /// Expected information in nats that the answer would give of the person, in `[0, ln 2]`; always 0 with a model that
    /// learns from nobody.
    pub gain: f64,
    /// P(a preferred to b), calibrated.
    pub preference: f64,
    /// Posterior standard deviation of the preference.
    pub uncertainty: f64,
    /// Whether a text was cut to the backbone's window.
    pub truncated: bool,
}

/// The answer to an [`AskQuery`].
#[derive(Debug)]
pub struct AskOutcome {
    /// Which model answered.
    pub model: ModelRef,
    /// On which backbone.
    pub backbone: String,
    /// Who would be asked.
    pub user: UserSeen,
    /// What their state was derived from.
    pub state_version: StateVersion,
    /// The pairs, from the one that would tell most on; ties by position. Each is ranked as if it were asked alone: two that
    /// ask the same thing stand side by side.
    pub candidates: Vec<Candidate>,
    /// What it cost.
    pub usage: Usage,
}

/// Ranks what people could be asked.
#[derive(Debug, Clone)]
pub struct Asker {
    registry: Arc<ModelRegistry>,
    backbone: Backbone,
    people: Arc<People>,
}

impl Asker {
    /// An asker with the registry's models on their backbone, for these people.
    pub fn new(registry: Arc<ModelRegistry>, backbone: Backbone, people: Arc<People>) -> Self {
        Self { registry, backbone, people }
    }

    /// Ranks the pairs by what their answers would tell.
    ///
    /// # Errors
    /// Those of scoring pairs for one person ([`ScoreError`]); a text that cannot be read fails the request.
    #[tracing::instrument(name = "service.ask", skip_all)]
    pub async fn rank(&self, tenant: &TenantId, query: AskQuery) -> Result<AskOutcome, ScoreError> {
        let outcome = self.ranked(tenant, query).await;
        let label = match &outcome {
            Ok(_) => "answered",
            Err(error) => error.label(),
        };
        ::metrics::counter!(metrics::QUERIES_TOTAL, "outcome" => label).increment(1);
        outcome
    }

    async fn ranked(&self, tenant: &TenantId, query: AskQuery) -> Result<AskOutcome, ScoreError> {
        let AskQuery { model, user_id, pairs, limit, overflow, deadline } = query;
        let model = Arc::clone(self.registry.registered().find(model.as_ref())?);
        let plan = Plan::of(&Work::Pairs(pairs), model.head.text_forms());
        let people = within(deadline, self.people.find(tenant, std::slice::from_ref(&user_id))).await??;
        let mut resolved = self.people.resolve(tenant, &model, people, deadline).await?;
        let Resolved { person, state } = resolved
            .pop()
            .expect("one person was asked for")
            .map_err(|unusable| ScoreError::UnusableExamples(vec![(Asked::User, unusable)]))?;
        let embedded = self.backbone.embed(plan.inputs.clone(), overflow, deadline).await?;
        let started = Instant::now();
        let usage = usage_of(&embedded);
        let faults = plan.faults(&embedded);
        if faults.iter().any(Option::is_some) {
            return Err(ScoreError::Faults(faults.into_iter().flatten().collect()));
        }
        let (wanted, _caller) = Wanted::until(deadline);
        let task = Task {
            model: Arc::clone(&model),
            plan,
            embedded,
            faults,
            scale: RewardScale::Raw,
            also: None,
            panel: Panel::of([state]),
            aggregates: None,
            wanted,
        };
        let answers = aside(move || task.prospects()).await??;
        ::metrics::histogram!(metrics::HEAD_SECONDS).record(started.elapsed());
        let mut candidates = Vec::with_capacity(answers.len());
        let mut faults = Vec::new();
        for (at, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(answer) => candidates.push(Candidate {
                    at,
                    gain: answer.scores[0].gain,
                    preference: answer.scores[0].preference,
                    uncertainty: answer.scores[0].uncertainty,
                    truncated: answer.truncated,
                }),
                Err(fault) => faults.push(fault),
            }
        }
        if !faults.is_empty() {
            return Err(ScoreError::Faults(faults));
        }
        let gains: Vec<f64> = candidates.iter().map(|candidate| candidate.gain).collect();
        let wanted = ranking(&gains).into_iter().take(limit.unwrap_or(usize::MAX));
        Ok(AskOutcome {
            model: model.reference.clone(),
            backbone: self.backbone.info().name.clone(),
            user: UserSeen::of(&person),
            state_version: person.version,
            candidates: wanted.map(|at| candidates[at].clone()).collect(),
            usage,
        })
    }
}
