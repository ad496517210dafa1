//! `GET /ready`: the server can score, and wants to.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use polyreward_backbone::Backbone;
use polyreward_service::{ModelRegistry, People};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    problem::{Problem, ProblemBody},
    state::Readiness,
};

/// What must hold for the server to be ready.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[expect(clippy::struct_excessive_bools, reason = "each is a check of its own")]
pub(crate) struct ReadyChecks {
    /// The backbone's threads run.
    backbone: bool,
    /// The database answers.
    database: bool,
    /// At least one model is loaded.
    models: bool,
    /// The server is not about to stop.
    accepting: bool,
}

/// The server can score.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ready)]
pub(crate) struct ReadyReply {
    /// Whether every check holds.
    ready: bool,
    checks: ReadyChecks,
}

/// A problem that says which check does not hold.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotReady)]
pub(crate) struct NotReadyReply {
    #[serde(flatten)]
    problem: ProblemBody,
    #[serde(flatten)]
    state: ReadyReply,
}

/// Ready: the backbone runs, the database answers, a model is loaded, the server is not about to stop.
#[utoipa::path(get, path = "/ready", tag = "operation", operation_id = "ready", responses(
    (status = 200, description = "The server can score", body = ReadyReply),
    (status = 503, description = "A check does not hold", body = NotReadyReply,
     content_type = "application/problem+json"),
))]
pub(crate) async fn ready(
    State(backbone): State<Backbone>,
    State(registry): State<Arc<ModelRegistry>>,
    State(people): State<Arc<People>>,
    State(readiness): State<Readiness>,
) -> Response {
    let checks = ReadyChecks {
        backbone: backbone.is_ready(),
        database: people.is_reachable().await,
        models: registry.registered().models().next().is_some(),
        accepting: !readiness.is_draining(),
    };
    let state =
        ReadyReply { ready: checks.backbone && checks.database && checks.models && checks.accepting, checks };
    if state.ready {
        return Json(state).into_response();
    }
    let problem = if checks.accepting { Problem::not_ready() } else { Problem::draining() };
    problem.respond_with(|problem| NotReadyReply { problem, state })
}
