//! `/users` and `/users/{id}`: who there is, what is known and believed of them, and their erasure.

pub(super) mod examples;
pub(super) mod queries;

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use polyreward_domain::{Attributes, UserId};
use polyreward_service::{Believed, Profile, UserRecord, Users, UsersError, Weight};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use utoipa::ToSchema;

use crate::{
    auth::Authorized,
    entry::attribute_faults,
    extract::{JsonBody, PathText, path_id},
    page::{Page, bad_cursor},
    problem::{Problem, ProblemType},
};

/// Somebody whose comparisons are stored.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub(crate) struct UserReply {
    #[schema(example = "ada")]
    user_id: String,
    /// What is known of the person.
    #[schema(value_type = BTreeMap<String, String>, example = json!({"country": "UK"}))]
    attributes: Attributes,
    /// Examples that are stored.
    examples: u64,
    /// What the person's states are derived from, opaque: it changes when the examples do; `0` without examples. The same as
    /// `x-user-state-version` of their scores.
    #[schema(example = "7522895316839837504")]
    state_version: String,
    /// RFC 3339.
    created_at: String,
    /// When attributes or examples changed last, RFC 3339.
    updated_at: String,
}

/// A page of people.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserPage)]
pub(crate) struct UserPageReply {
    /// People, by id.
    items: Vec<UserReply>,
    /// Asks for the next page; null on the last.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// One person: what is known, and what each model believes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserProfile)]
pub(crate) struct ProfileReply {
    #[serde(flatten)]
    user: UserReply,
    /// By model, as `name@version`.
    states: BTreeMap<String, BelievedReply>,
}

/// What one model believes of a person.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserState)]
pub(crate) struct BelievedReply {
    /// The family of the model's head.
    #[schema(example = "pal-a")]
    head: &'static str,
    /// Examples behind the state.
    examples: usize,
    /// The state in words.
    summary: String,
    /// Which part of the prior's standard deviation is left, over all weights: 1 knows nothing of the person.
    uncertainty: f64,
    /// The state in numbers: weights of prototypes, basis rewards, latent dimensions or heads. None for a head that is the
    /// same for everybody.
    weights: Vec<WeightReply>,
    /// How the model did on the person's examples before it learned from them; null before any.
    #[schema(required)]
    accuracy: Option<AccuracyReply>,
    /// Why the examples cannot be used; null where they can.
    #[schema(required)]
    unusable: Option<String>,
}

/// One number of a state.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Weight)]
pub(crate) struct WeightReply {
    /// Posterior mean.
    mean: f64,
    /// Posterior standard deviation.
    deviation: f64,
    /// The population's.
    population: f64,
}

/// How often a model was right about a person; a preference of exactly 0.5 is half right.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AccuracySoFar)]
pub(crate) struct AccuracyReply {
    /// Predictions.
    n: u64,
    /// Share of them right.
    accuracy: f64,
    /// The same of the population's reward.
    population_accuracy: f64,
}

/// Attributes to set, in place of those that are there.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with attributes")]
#[schema(as = UserUpdate, example = json!({"attributes": {"country": "UK", "age": "25-34"}}))]
pub(crate) struct PutRequest {
    /// At most 64, keys of at most 64 bytes, values of at most 256.
    #[schema(value_type = BTreeMap<String, String>)]
    attributes: Attributes,
}

impl From<UserRecord> for UserReply {
    fn from(user: UserRecord) -> Self {
        Self {
            user_id: user.user_id.to_string(),
            attributes: user.attributes,
            examples: user.examples,
            state_version: user.version.get().to_string(),
            created_at: rfc3339(user.created_at),
            updated_at: rfc3339(user.updated_at),
        }
    }
}

impl From<Believed> for BelievedReply {
    fn from(believed: Believed) -> Self {
        let share = |correct: f64, n: u64| correct / n as f64;
        let weight =
            |Weight { mean, deviation, population }: Weight| WeightReply { mean, deviation, population };
        Self {
            head: believed.head.as_str(),
            examples: believed.examples,
            summary: believed.summary,
            uncertainty: believed.uncertainty,
            weights: believed.weights.into_iter().map(weight).collect(),
            accuracy: believed.tally.filter(|tally| tally.predictions > 0).map(|tally| AccuracyReply {
                n: tally.predictions,
                accuracy: share(tally.correct, tally.predictions),
                population_accuracy: share(tally.population_correct, tally.predictions),
            }),
            unusable: believed.unusable.map(|why| why.to_string()),
        }
    }
}

impl From<Profile> for ProfileReply {
    fn from(profile: Profile) -> Self {
        let states = profile.models.into_iter();
        Self {
            user: profile.user.into(),
            states: states.map(|believed| (believed.model.to_string(), believed.into())).collect(),
        }
    }
}

impl From<UsersError> for Problem {
    fn from(error: UsersError) -> Self {
        match &error {
            UsersError::Storage(error) => error.into(),
            UsersError::States(error) => error.into(),
            UsersError::GivenUp => Self::internal(&error),
        }
    }
}

pub(super) fn rfc3339(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).expect("a moment of our time has a year of four digits")
}

/// That there is nobody, or nobody of this tenant: both in the same words.
pub(super) fn unknown_user() -> Problem {
    Problem::new(ProblemType::UnknownUser)
}

/// Who there is.
#[utoipa::path(get, path = "/users", tag = "people", operation_id = "list_users", params(
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ("limit" = Option<usize>, Query, description = "Entries of a page, 100 by default", minimum = 1, maximum = 1000),
), responses((status = 200, description = "People, by id", body = UserPageReply)))]
pub(crate) async fn list(
    caller: Authorized,
    State(users): State<Users>,
    RawQuery(query): RawQuery,
) -> Result<Json<UserPageReply>, Problem> {
    let page = Page::<1>::of(query.as_deref())?;
    let after = page.after.as_ref().map(|[id]| id.parse::<UserId>().map_err(|_| bad_cursor())).transpose()?;
    let found = users.list(&caller.0.tenant, after.as_ref(), page.limit + 1).await?;
    let (found, next_cursor) = page.cut(found, |user| [user.user_id.to_string()]);
    Ok(Json(UserPageReply { items: found.into_iter().map(UserReply::from).collect(), next_cursor }))
}

/// One person: attributes, examples, and what each model believes in words and numbers.
#[utoipa::path(get, path = "/users/{user_id}", tag = "people", operation_id = "get_user", params(
    ("user_id" = String, Path, pattern = "^[A-Za-z0-9._~-]{1,128}$"),
), responses((status = 200, description = "The person", body = ProfileReply)))]
pub(crate) async fn get(
    caller: Authorized,
    State(users): State<Users>,
    PathText(user_id): PathText<String>,
) -> Result<Json<ProfileReply>, Problem> {
    let user_id: UserId = path_id("user_id", &user_id)?;
    let profile = users.profile(&caller.0.tenant, &user_id).await?.ok_or_else(unknown_user)?;
    Ok(Json(profile.into()))
}

/// Sets a person's attributes, in place of those that are there.
///
/// Creates the person when new.
#[utoipa::path(put, path = "/users/{user_id}", tag = "people", operation_id = "put_user", request_body = PutRequest, params(
    ("user_id" = String, Path, pattern = "^[A-Za-z0-9._~-]{1,128}$"),
), responses(
    (status = 200, description = "The person", body = ProfileReply),
    (status = 201, description = "The person, who is new", body = ProfileReply),
))]
pub(crate) async fn put(
    caller: Authorized,
    State(users): State<Users>,
    PathText(user_id): PathText<String>,
    JsonBody(body): JsonBody<PutRequest>,
) -> Result<Response, Problem> {
    let user_id: UserId = path_id("user_id", &user_id)?;
    let faults = attribute_faults("/attributes", &body.attributes);
    if !faults.is_empty() {
        return Err(Problem::invalid(faults));
    }
    let created = users.put(&caller.writer(), &user_id, body.attributes).await?;
    // Somebody may have erased the person since.
    let profile = users.profile(&caller.0.tenant, &user_id).await?.ok_or_else(unknown_user)?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(ProfileReply::from(profile))).into_response())
}

/// Erases a person: attributes, examples, states, predictions, and what is kept of them in memory.
///
/// One line of the audit log says that somebody was erased. Models trained before keep what they learned.
#[utoipa::path(delete, path = "/users/{user_id}", tag = "people", operation_id = "erase_user", params(
    ("user_id" = String, Path, pattern = "^[A-Za-z0-9._~-]{1,128}$"),
), responses((status = 204, description = "Nothing is left of the person")))]
pub(crate) async fn erase(
    caller: Authorized,
    State(users): State<Users>,
    PathText(user_id): PathText<String>,
) -> Result<StatusCode, Problem> {
    let user_id: UserId = path_id("user_id", &user_id)?;
    if users.erase(&caller.writer(), &user_id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown_user())
    }
}
