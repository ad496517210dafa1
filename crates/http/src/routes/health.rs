//! `GET /health`: the process is alive.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

/// The process is alive.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Health)]
pub(crate) struct HealthReply {
    #[schema(example = "ok")]
    status: &'static str,
}

/// Alive: the process answers. It may still be unable to score; that is `GET /ready`.
#[utoipa::path(get, path = "/health", tag = "operation", operation_id = "health", responses(
    (status = 200, description = "The process answers", body = HealthReply),
))]
pub(crate) async fn health() -> Json<HealthReply> {
    Json(HealthReply { status: "ok" })
}
