//! `GET /dashboard/users/{id}`: one person.

use axum::{extract::State, http::StatusCode, response::Response};
use polyreward_domain::{Overflow, Scope, TenantId, UserId};
use polyreward_service::{AskQuery, Asker, ScoreError, Users};

use crate::{
    auth::Authorized,
    dashboard::{
        html::page,
        view::person::{self, Next},
    },
    extract::{PathText, path_id},
    limits::Deadline,
    problem::{Problem, ProblemType},
};

/// Last examples on the page.
const EXAMPLES: u64 = 10;
/// Pairs that are ranked.
const CANDIDATES: usize = 40;
/// Pairs that are shown.
const QUERIES: usize = 5;

/// One person as a page: attributes, what each model believes, how right it was, what to ask next.
///
/// Texts are shown to a key with the scope `read:text` alone.
#[utoipa::path(get, path = "/dashboard/users/{user_id}", tag = "dashboard", operation_id = "dashboard_person", params(
    ("user_id" = String, Path, pattern = "^[A-Za-z0-9._~-]{1,128}$"),
), responses((status = 200, description = "The page", body = String, content_type = "text/html")))]
pub(crate) async fn person(
    caller: Authorized,
    State(users): State<Users>,
    State(asker): State<Asker>,
    PathText(user_id): PathText<String>,
    deadline: Deadline,
) -> Result<Response, Problem> {
    let tenant = &caller.0.tenant;
    let user_id: UserId = path_id("user_id", &user_id)?;
    let unknown = || Problem::new(ProblemType::UnknownUser);
    let profile = users.profile(tenant, &user_id).await?.ok_or_else(unknown)?;
    // Positions are counted from 0, and those of erased examples stay empty.
    let after = profile.user.next_position.checked_sub(EXAMPLES + 1);
    let examples = users.examples(tenant, &user_id, after, EXAMPLES as usize).await?.ok_or_else(unknown)?;
    let may_read_text = caller.0.may(Scope::ReadText);
    let next = if may_read_text {
        next(tenant, &user_id, &users, &asker, deadline).await?
    } else {
        Next::Nothing(format!(
            "Pairs to ask are texts of other people's examples: shown to a key with the scope {}; this one lacks it.",
            Scope::ReadText
        ))
    };
    Ok(page(StatusCode::OK, &person::of(&profile, &examples, next, may_read_text)))
}

async fn next(
    tenant: &TenantId,
    user_id: &UserId,
    users: &Users,
    asker: &Asker,
    deadline: Deadline,
) -> Result<Next, Problem> {
    let pairs = users.unjudged_pairs(tenant, user_id, CANDIDATES).await?;
    if pairs.is_empty() {
        let why = "Other people judged no pair that this person did not; there is nothing to choose from.";
        return Ok(Next::Nothing(why.to_owned()));
    }
    let query = AskQuery {
        model: None,
        user_id: user_id.clone(),
        pairs: pairs.clone(),
        limit: Some(QUERIES),
        overflow: Overflow::Truncate,
        deadline: Some(deadline.0),
    };
    match asker.rank(tenant, query).await {
        Ok(outcome) => Ok(Next::Queries {
            model: outcome.model.to_string(),
            queries: outcome
                .candidates
                .iter()
                .map(|candidate| person::query(candidate, &pairs[candidate.at]))
                .collect(),
        }),
        // Their examples, or those of others, cannot be read by this backbone; the rest of the page can be shown.
        Err(ScoreError::UnusableExamples(_) | ScoreError::Faults(_)) => Ok(Next::Nothing(
            "The texts cannot be ranked: a model cannot use this person's examples or one of the pairs."
                .to_owned(),
        )),
        Err(error) => Err(problem(error)),
    }
}

fn problem(error: ScoreError) -> Problem {
    match error {
        ScoreError::Model(error) => error.into(),
        ScoreError::Backbone(error) => (&error).into(),
        ScoreError::States(error) => (&error).into(),
        ScoreError::NoRoom => Problem::overloaded(&error),
        ScoreError::DeadlineExceeded => Problem::deadline_exceeded(&error),
        other => Problem::internal(&other),
    }
}
