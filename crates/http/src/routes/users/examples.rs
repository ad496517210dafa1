//! `/users/{id}/examples`: what a person compared, stored and learned from.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use polyreward_domain::{Attributes, Comparison, ExampleId, LabelConfidence, Prompt, Strength, UserId};
use polyreward_service::{
    LearnError, LearnOutcome, LearnQuery, Learned, Learner, PostedExample, RequestName, StoredExample,
    TextFault, Users,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::{rfc3339, unknown_user};
use crate::{
    auth::Authorized,
    entry::{Check, PromptText, attribute_faults},
    extract::{HashedJsonBody, PathText, path_id},
    limits::{Deadline, Limits},
    page::{Page, bad_cursor},
    problem::{InputFault, Problem, ProblemType},
};

/// Names a request that may be repeated.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer is that of an earlier request of the same name.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Characters of such a name.
const MAX_NAME_CHARS: usize = 255;

/// Comparisons that a person made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with examples")]
#[schema(as = ExamplesPost, example = json!({
    "attributes": {"country": "UK", "age": "25-34"},
    "examples": [{"prompt": "Name a fish.", "chosen": "A trout.", "rejected": "Fish are tasty."}],
}))]
pub(crate) struct LearnRequest {
    /// Set beside the attributes that are there.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    #[serde(default)]
    attributes: Option<Attributes>,
    /// In the order in which they are learned; at most half of `max_batch` of `GET /info`.
    #[schema(min_items = 1)]
    examples: Vec<ExampleBody>,
}

/// One observed preference.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with prompt, chosen and rejected")]
#[schema(as = Example)]
pub(crate) struct ExampleBody {
    prompt: PromptText,
    /// The preferred response.
    chosen: String,
    /// The other one.
    rejected: String,
    /// How much it counts against an ordinary comparison; 1 by default.
    #[schema(exclusive_minimum = 0.0, maximum = 10.0)]
    strength: Option<f64>,
    /// Probability that the label is right; 1 by default.
    #[schema(minimum = 0.0, maximum = 1.0)]
    label_confidence: Option<f64>,
    /// Why, in the person's words.
    rationale: Option<String>,
    /// Its name among the person's examples; by default made of what was compared. A name that is there already is a
    /// duplicate, and changes nothing.
    #[schema(pattern = "^[A-Za-z0-9._~-]{1,128}$")]
    id: Option<String>,
}

/// What became of posted examples.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExamplesReply)]
pub(crate) struct LearnReply {
    #[schema(example = "ada")]
    user_id: String,
    /// Examples that are stored now and were not before.
    accepted: usize,
    /// Examples that were there already, or twice in the request.
    duplicates: usize,
    /// How many the person has now.
    examples: usize,
    /// Names of the accepted ones, in their order.
    example_ids: Vec<String>,
    /// What each model said of each accepted example before it learned from it.
    predictions: Vec<PredictionReply>,
    /// What each model that learns people believes now, by `name@version`.
    states: BTreeMap<String, StateReply>,
    /// What the states are derived from, opaque: it changes when the examples do. The same as `x-user-state-version` of the
    /// person's scores from now on.
    state_version: String,
}

/// What one model said of an example before it learned from it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Prediction)]
pub(crate) struct PredictionReply {
    example_id: String,
    /// As `name@version`.
    model: String,
    /// P(chosen preferred to rejected).
    preference: f64,
    /// Whether it was more than 0.5.
    correct: bool,
}

/// What one model believes of a person after their examples.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StateSummary)]
pub(crate) struct StateReply {
    /// Examples behind the state.
    examples: usize,
    /// Which part of the prior's standard deviation is left: 1 knows nothing of the person.
    uncertainty: f64,
}

/// A page of a person's examples.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ExamplePage)]
pub(crate) struct ExamplePageReply {
    /// Examples, in the order in which they came.
    items: Vec<ExampleReply>,
    /// Asks for the next page; null on the last.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// A stored example.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StoredExample)]
pub(crate) struct ExampleReply {
    id: String,
    #[schema(value_type = PromptText)]
    prompt: Prompt,
    chosen: String,
    rejected: String,
    strength: f64,
    label_confidence: f64,
    #[schema(required)]
    rationale: Option<String>,
    /// RFC 3339.
    created_at: String,
}

impl From<StoredExample> for ExampleReply {
    fn from(example: StoredExample) -> Self {
        let StoredExample { example_id, comparison, created_at, .. } = example;
        Self {
            id: example_id.to_string(),
            prompt: comparison.prompt,
            chosen: comparison.chosen,
            rejected: comparison.rejected,
            strength: comparison.strength.get(),
            label_confidence: comparison.label_confidence.get(),
            rationale: comparison.rationale,
            created_at: rfc3339(created_at),
        }
    }
}

impl From<&Learned> for LearnReply {
    fn from(learned: &Learned) -> Self {
        let predictions = learned.predictions.iter().map(|prediction| PredictionReply {
            example_id: prediction.example_id.to_string(),
            model: prediction.model.to_string(),
            preference: prediction.preference,
            correct: prediction.preference > 0.5,
        });
        let states = learned.states.iter().map(|state| {
            let reply = StateReply { examples: state.examples, uncertainty: state.uncertainty };
            (state.model.to_string(), reply)
        });
        Self {
            user_id: learned.user_id.to_string(),
            accepted: learned.accepted.len(),
            duplicates: learned.duplicates,
            examples: learned.examples,
            example_ids: learned.accepted.iter().map(ToString::to_string).collect(),
            predictions: predictions.collect(),
            states: states.collect(),
            state_version: learned.version.get().to_string(),
        }
    }
}

impl LearnRequest {
    /// Checks everything and collects every fault.
    fn into_query(
        self,
        user_id: UserId,
        name: Option<RequestName>,
        limits: &Limits,
        deadline: Deadline,
    ) -> Result<LearnQuery, Problem> {
        let (texts, max) = (2 * self.examples.len(), limits.max_batch);
        if texts > max {
            let detail = format!("{texts} texts, two an example, more than the {max} of one request");
            return Err(Problem::new(ProblemType::TooManyTexts).detail(detail).limit("max_batch", max));
        }
        let attributes = self.attributes.unwrap_or_default();
        let mut faults = attribute_faults("/attributes", &attributes);
        if self.examples.is_empty() {
            faults.push(InputFault::new("/examples", "has at least one entry"));
        }
        let mut examples = Vec::with_capacity(self.examples.len());
        for (at, body) in self.examples.into_iter().enumerate() {
            let mut check = Check::new("examples", at);
            examples.extend(body.into_example(&mut check));
            faults.append(&mut check.faults);
        }
        if !faults.is_empty() {
            return Err(Problem::invalid(faults));
        }
        Ok(LearnQuery { user_id, attributes, examples, name, deadline: Some(deadline.0) })
    }
}

impl ExampleBody {
    fn into_example(self, check: &mut Check) -> Option<PostedExample> {
        check.text("/chosen", &self.chosen);
        check.text("/rejected", &self.rejected);
        if let Some(rationale) = &self.rationale {
            check.text("/rationale", rationale);
        }
        if self.chosen == self.rejected {
            check.fault("/rejected", "is the same text as chosen");
        }
        let prompt = check.prompt(self.prompt);
        let strength = self.strength.map_or(Ok(Strength::default()), Strength::try_from);
        let strength = strength.map_err(|error| check.fault("/strength", error)).ok();
        let confidence =
            self.label_confidence.map_or(Ok(LabelConfidence::default()), LabelConfidence::try_from);
        let confidence = confidence.map_err(|error| check.fault("/label_confidence", error)).ok();
        let id = self.id.map(|id| id.parse::<ExampleId>().map_err(|error| check.fault("/id", error)));
        let id = match id {
            None => None,
            Some(id) => Some(id.ok()?),
        };
        let comparison = Comparison {
            prompt: Arc::unwrap_or_clone(prompt),
            chosen: self.chosen,
            rejected: self.rejected,
            strength: strength?,
            label_confidence: confidence?,
            rationale: self.rationale,
        };
        Some(PostedExample { id, comparison })
    }
}

/// The name that a client gave its request.
fn request_name(
    headers: &HeaderMap,
    user_id: &UserId,
    body_sha256: [u8; 32],
) -> Result<Option<RequestName>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let refuse = |detail: String| Err(Problem::header("idempotency-key", detail));
    if values.next().is_some() {
        return refuse("is given more than once".to_owned());
    }
    let text = value.to_str().unwrap_or_default();
    if !(1..=MAX_NAME_CHARS).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return refuse(format!("has 1 to {MAX_NAME_CHARS} visible ASCII characters"));
    }
    let mut digest = Sha256::new();
    digest.update((user_id.as_str().len() as u64).to_le_bytes());
    digest.update(user_id.as_str());
    digest.update(body_sha256);
    Ok(Some(RequestName { key: text.to_owned(), request: digest.finalize().into() }))
}

fn learn_problem(error: &LearnError) -> Problem {
    match error {
        LearnError::Faults(faults) => {
            let fault = |TextFault { at, rejected, error }: &TextFault| {
                let side = if *rejected { "rejected" } else { "chosen" };
                InputFault::of_text(format!("/examples/{at}/{side}"), error)
            };
            Problem::invalid(faults.iter().map(fault).collect())
        }
        LearnError::TooMany { limit, .. } => {
            Problem::new(ProblemType::TooManyExamples).detail(error).limit("max_examples", *limit)
        }
        LearnError::Attributes(why) => Problem::invalid(vec![InputFault::new("/attributes", why)]),
        LearnError::OtherRequest => Problem::new(ProblemType::IdempotencyConflict).detail(error),
        LearnError::Unusable(why) => {
            Problem::new(ProblemType::UnusableExamples).detail(format!("{error}: {why}"))
        }
        LearnError::Backbone(error) => error.into(),
        LearnError::States(error) => error.into(),
        LearnError::Storage(error) => error.into(),
        LearnError::DeadlineExceeded => Problem::deadline_exceeded(error),
        LearnError::Head(_) | LearnError::GivenUp | LearnError::Answer(_) => Problem::internal(error),
    }
}

/// Stores comparisons and learns from them: all, or none.
///
/// Creates the person when new. In one transaction, each example is first predicted by every model with the state before
/// it, then stored and learned from. After the answer every replica scores the person with it. A request that is repeated
/// with the same `Idempotency-Key` gets the first answer; the same key with another body is refused.
#[utoipa::path(post, path = "/users/{user_id}/examples", tag = "people", operation_id = "add_examples",
    request_body = LearnRequest, params(
    ("user_id" = String, Path, pattern = "^[A-Za-z0-9._~-]{1,128}$"),
    ("idempotency-key" = Option<String>, Header, description = "Names the request; kept for a day", max_length = 255),
    ("x-request-timeout-ms" = Option<u64>, Header, description = "Lowers the deadline of 100 s", minimum = 1),
), responses(
    (status = 201, description = "Stored and learned from", body = LearnReply, headers(
        ("idempotency-replayed" = String, description = "`true` where it is the answer of an earlier request"),
    )),
))]
pub(crate) async fn add(
    caller: Authorized,
    State(learner): State<Learner>,
    State(limits): State<Arc<Limits>>,
    PathText(user_id): PathText<String>,
    headers: HeaderMap,
    deadline: Deadline,
    HashedJsonBody { value: body, sha256 }: HashedJsonBody<LearnRequest>,
) -> Result<Response, Problem> {
    let user_id: UserId = path_id("user_id", &user_id)?;
    let name = request_name(&headers, &user_id, sha256)?;
    let query = body.into_query(user_id, name, &limits, deadline)?;
    let write = |learned: &Learned| Ok(serde_json::to_string(&LearnReply::from(learned))?);
    let outcome = learner
        .learn(caller.writer(), query, Arc::new(write))
        .await
        .map_err(|error| learn_problem(&error))?;
    let (status, body, replayed) = match outcome {
        LearnOutcome::Done(_, body) => (StatusCode::CREATED, body, false),
        LearnOutcome::Replayed { status, body } => {
            (StatusCode::from_u16(status).unwrap_or(StatusCode::CREATED), body, true)
        }
    };
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let mut response = (status, json, body).into_response();
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// What a person compared.
#[utoipa::path(get, path = "/users/{user_id}/examples", tag = "people", operation_id = "list_examples", params(
    ("user_id" = String, Path, pattern = "^[A-Za-z0-9._~-]{1,128}$"),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ("limit" = Option<usize>, Query, description = "Entries of a page, 100 by default", minimum = 1, maximum = 1000),
), responses((status = 200, description = "Examples, in the order in which they came", body = ExamplePageReply)))]
pub(crate) async fn list(
    caller: Authorized,
    State(users): State<Users>,
    PathText(user_id): PathText<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<ExamplePageReply>, Problem> {
    let user_id: UserId = path_id("user_id", &user_id)?;
    let page = Page::<1>::of(query.as_deref())?;
    let after =
        page.after.as_ref().map(|[at]| at.parse::<u64>().ok().filter(|at| i64::try_from(*at).is_ok()));
    let after = after.map(|after| after.ok_or_else(bad_cursor)).transpose()?;
    let found = users.examples(&caller.0.tenant, &user_id, after, page.limit + 1).await?;
    let (found, next_cursor) =
        page.cut(found.ok_or_else(unknown_user)?, |example| [example.position.to_string()]);
    Ok(Json(ExamplePageReply { items: found.into_iter().map(ExampleReply::from).collect(), next_cursor }))
}

/// Forgets one example; the states are derived from the others.
#[utoipa::path(delete, path = "/users/{user_id}/examples/{example_id}", tag = "people", operation_id = "erase_example",
    params(
    ("user_id" = String, Path, pattern = "^[A-Za-z0-9._~-]{1,128}$"),
    ("example_id" = String, Path, pattern = "^[A-Za-z0-9._~-]{1,128}$"),
), responses((status = 204, description = "Nothing is left of the example")))]
pub(crate) async fn erase(
    caller: Authorized,
    State(learner): State<Learner>,
    PathText((user_id, example_id)): PathText<(String, String)>,
) -> Result<StatusCode, Problem> {
    let user_id: UserId = path_id("user_id", &user_id)?;
    let example_id: ExampleId = path_id("example_id", &example_id)?;
    let erased = learner.erase_example(&caller.writer(), &user_id, &example_id).await;
    if erased.map_err(|error| learn_problem(&error))? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::new(ProblemType::UnknownExample))
    }
}
