//! `GET /info`: what this server is, and what it takes.

use std::sync::Arc;

use axum::{Json, extract::State};
use polyreward_backbone::{Backbone, BackboneInfo, CacheStats};
use polyreward_service::{Measurer, ModelRegistry};
use serde::Serialize;
use utoipa::ToSchema;

use crate::limits::Limits;

/// What this server is, and what it takes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Info)]
pub(crate) struct InfoReply {
    #[schema(example = "polyreward")]
    name: &'static str,
    version: &'static str,
    backbone: BackboneReply,
    /// Every model, as `name@version`.
    models: Vec<String>,
    /// The model that answers when none is named.
    default_model: Option<String>,
    limits: LimitsReply,
    embedding_cache: CacheReply,
    queue: QueueReply,
    /// The default model once more, for clients of text-embeddings-inference, as are the members after it.
    model_id: Option<String>,
    /// Tokens of a prompt with its response.
    max_input_length: usize,
    /// Texts in one request.
    max_client_batch_size: usize,
    /// Requests answered at once.
    max_concurrent_requests: usize,
    /// Whether texts too long are cut where a request does not say.
    auto_truncate: bool,
}

/// The frozen encoder.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Backbone)]
struct BackboneReply {
    name: String,
    /// SHA-256 of everything that changes an embedding.
    hash: String,
    /// Length of an embedding.
    dim: usize,
    /// The window: tokens of a prompt with its response.
    max_tokens: usize,
    /// How the weights are stored.
    precision: Option<String>,
    /// Licence of the weights.
    licence: Option<String>,
    /// Where the weights come from.
    source: Option<String>,
}

/// What a request may take.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Limits)]
struct LimitsReply {
    /// Texts in one request to score: two a pair, the responses of each item.
    max_batch: usize,
    /// Tokens of a prompt with its response; more are cut.
    max_tokens: usize,
    /// People in the `user_ids` of one request.
    max_users: usize,
    /// Rewards of one request for several people: responses by people. On the `win_rate` scale each counts once more for
    /// every 16 of the model's reference responses.
    max_rewards: usize,
    /// Numbers of all requests to score that are computed at once: people by responses and by the length of a state.
    max_pending_cells: usize,
    /// Examples that are kept of one person; more are refused.
    max_examples: usize,
    /// People that a group has at least to be shown in an answer about accuracy; `min_n` can only raise it.
    min_users: usize,
    /// Bytes of a body.
    max_body_bytes: usize,
    /// Bytes of all bodies held at once.
    max_pending_body_bytes: usize,
    /// Requests answered at once.
    max_in_flight: usize,
    /// How long a request may take; `X-Request-Timeout-Ms` lowers it.
    request_timeout_ms: u64,
}

/// Embeddings that are kept.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EmbeddingCache)]
struct CacheReply {
    entries: u64,
    bytes: u64,
    max_bytes: u64,
    /// Texts answered from the cache since the start.
    hits: u64,
    /// Texts encoded since the start.
    misses: u64,
}

/// What waits.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Queue)]
struct QueueReply {
    /// Texts that wait or are being encoded.
    texts: usize,
}

impl From<&BackboneInfo> for BackboneReply {
    fn from(info: &BackboneInfo) -> Self {
        Self {
            name: info.name.clone(),
            hash: info.hash.clone(),
            dim: info.dim,
            max_tokens: info.max_tokens,
            precision: info.precision.clone(),
            licence: info.licence.clone(),
            source: info.source.clone(),
        }
    }
}

impl From<CacheStats> for CacheReply {
    fn from(stats: CacheStats) -> Self {
        let CacheStats { entries, bytes, max_bytes, hits, misses } = stats;
        Self { entries, bytes, max_bytes, hits, misses }
    }
}

/// Version, backbone, models and limits.
#[utoipa::path(get, path = "/info", tag = "operation", operation_id = "info", responses(
    (status = 200, description = "This server", body = InfoReply),
))]
pub(crate) async fn info(
    State(backbone): State<Backbone>,
    State(registry): State<Arc<ModelRegistry>>,
    State(limits): State<Arc<Limits>>,
    State(measurer): State<Measurer>,
) -> Json<InfoReply> {
    let registered = registry.registered();
    let default_model = registered.default_model().map(|model| model.reference.to_string());
    Json(InfoReply {
        name: "polyreward",
        version: env!("CARGO_PKG_VERSION"),
        backbone: backbone.info().into(),
        models: registered.models().map(|model| model.reference.to_string()).collect(),
        model_id: default_model.clone(),
        max_input_length: backbone.info().max_tokens,
        max_client_batch_size: limits.max_batch,
        max_concurrent_requests: limits.max_in_flight,
        auto_truncate: true,
        default_model,
        limits: LimitsReply {
            max_batch: limits.max_batch,
            max_tokens: backbone.info().max_tokens,
            max_users: limits.max_users,
            max_rewards: limits.max_rewards,
            max_pending_cells: limits.max_pending_cells,
            max_examples: limits.max_examples,
            min_users: measurer.options().min_users,
            max_body_bytes: limits.max_body_bytes,
            max_pending_body_bytes: limits.max_pending_body_bytes,
            max_in_flight: limits.max_in_flight,
            request_timeout_ms: u64::try_from(limits.request_timeout.as_millis()).unwrap_or(u64::MAX),
        },
        embedding_cache: backbone.cache_stats().into(),
        queue: QueueReply { texts: backbone.queued_texts() },
    })
}
