//! `POST /users/{id}/queries`: which of some pairs to ask a person about next.

use std::sync::Arc;

use axum::{Json, extract::State};
use polyreward_domain::{ModelSelector, Overflow, UserId};
use polyreward_service::{AskOutcome, AskQuery, Asker, Work};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    auth::Authorized,
    extract::{JsonBody, PathText, known_word, path_id},
    limits::{Deadline, Limits},
    problem::{InputFault, Problem, ProblemType},
    routes::score::{Entries, Optional, OverflowBody, PairBody, Places, UsageReply, UserReply},
};

/// Pairs that a person could be asked about.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with pairs")]
#[schema(as = QueriesRequest, example = json!({
    "pairs": [{"prompt": "Name a fish.", "response_a": "A trout.", "response_b": "Fish are tasty."}],
}))]
pub(crate) struct QueriesRequest {
    /// The model, as `name` for its newest version or `name@version`; by default the server's.
    model: Option<String>,
    /// The candidates.
    #[schema(min_items = 1)]
    pairs: Vec<PairBody>,
    /// How many are wanted; all by default.
    #[schema(minimum = 1)]
    limit: Option<usize>,
    /// What becomes of a text longer than the backbone's window; `truncate` by default.
    #[schema(value_type = Option<OverflowBody>)]
    on_overflow: Option<String>,
}

/// The pairs, from the one whose answer would tell most.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Queries)]
pub(crate) struct QueriesReply {
    /// The model that answered, as `name@version`.
    model: String,
    /// The backbone's name.
    backbone: String,
    user: UserReply,
    queries: Vec<QueryReply>,
    usage: UsageReply,
}

/// A pair that the person could be asked about.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Query)]
pub(crate) struct QueryReply {
    /// Its position in `pairs`.
    index: usize,
    /// Expected information of the answer about the person's state, in nats: from 0 to ln 2.
    information_gain: f64,
    /// P(a preferred to b), calibrated.
    preference: f64,
    /// Posterior standard deviation of the preference.
    uncertainty: f64,
    /// Whether a text was cut to the backbone's window.
    truncated: bool,
}

impl From<AskOutcome> for QueriesReply {
    fn from(outcome: AskOutcome) -> Self {
        let queries = outcome.candidates.into_iter().map(|candidate| QueryReply {
            index: candidate.at,
            information_gain: candidate.gain,
            preference: candidate.preference,
            uncertainty: candidate.uncertainty,
            truncated: candidate.truncated,
        });
        Self {
            model: outcome.model.to_string(),
            backbone: outcome.backbone,
            user: outcome.user.into(),
            queries: queries.collect(),
            usage: outcome.usage.into(),
        }
    }
}

impl QueriesRequest {
    fn into_query(
        self,
        user_id: UserId,
        limits: &Limits,
        deadline: Deadline,
    ) -> Result<(AskQuery, Places), Problem> {
        let (texts, max) = (2 * self.pairs.len(), limits.max_batch);
        if texts > max {
            let detail = format!("{texts} texts, two a pair, more than the {max} of one request");
            return Err(Problem::new(ProblemType::TooManyTexts).detail(detail).limit("max_batch", max));
        }
        let mut faults = Vec::new();
        let mut optional = Optional(&mut faults);
        let model = optional.check("/model", self.model, str::parse::<ModelSelector>);
        let overflow = optional.check("/on_overflow", self.on_overflow, known_word::<OverflowBody>);
        if self.limit == Some(0) {
            faults.push(InputFault::new("/limit", "is at least 1"));
        }
        if self.pairs.is_empty() {
            faults.push(InputFault::new("/pairs", "has at least one entry"));
        }
        let mut entries = Entries::of_pairs(self.pairs);
        faults.append(&mut entries.faults);
        match entries.work {
            Work::Pairs(pairs) if faults.is_empty() => {
                let overflow = overflow.map_or(Overflow::default(), Into::into);
                let (limit, deadline) = (self.limit, Some(deadline.0));
                Ok((AskQuery { model, user_id, pairs, limit, overflow, deadline }, entries.places))
            }
            _ => Err(Problem::invalid(faults)),
        }
    }
}

/// Which of these pairs to ask the person about next.
///
/// Ranked by expected information about what the model believes of the person. Each is ranked as if it were asked alone.
/// Nothing is stored; an unknown person is asked like the population.
#[utoipa::path(post, path = "/users/{user_id}/queries", tag = "people", operation_id = "rank_queries",
    request_body = QueriesRequest, params(
    ("user_id" = String, Path, pattern = "^[A-Za-z0-9._~-]{1,128}$"),
    ("x-request-timeout-ms" = Option<u64>, Header, description = "Lowers the deadline of 100 s", minimum = 1),
), responses((status = 200, description = "The pairs, from the most telling on", body = QueriesReply)))]
pub(crate) async fn rank(
    caller: Authorized,
    State(asker): State<Asker>,
    State(limits): State<Arc<Limits>>,
    PathText(user_id): PathText<String>,
    deadline: Deadline,
    JsonBody(body): JsonBody<QueriesRequest>,
) -> Result<Json<QueriesReply>, Problem> {
    let user_id: UserId = path_id("user_id", &user_id)?;
    let (query, places) = body.into_query(user_id, &limits, deadline)?;
    let outcome = asker.rank(&caller.0.tenant, query).await.map_err(|error| places.problem(error))?;
    Ok(Json(outcome.into()))
}
