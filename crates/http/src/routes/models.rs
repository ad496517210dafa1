//! `GET /models`, `POST /models/reload`, `PUT /models/default`: which models there are.

use std::sync::Arc;

use axum::extract::RawQuery;
use axum::{Json, extract::State};
use polyreward_domain::{ModelRef, ModelSelector};
use polyreward_service::{FailedModel, Model, ModelRegistry, RegistryError, ReloadReport};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    extract::{JsonBody, query_parameters},
    problem::{InputFault, Problem},
    state::RegistryWrites,
};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// A page of models.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelPage)]
pub(crate) struct ModelPageReply {
    /// Models by name and version.
    items: Vec<ModelReply>,
    /// Asks for the next page; null on the last.
    #[schema(required)]
    next_cursor: Option<String>,
    /// Every folder that could not be loaded.
    failed: Vec<FailedModelReply>,
}

/// A trained head.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Model)]
pub(crate) struct ModelReply {
    /// The model, as `name@version`.
    #[schema(example = "pal-a@3f9c")]
    model: String,
    name: String,
    version: String,
    /// The family of its head.
    #[schema(example = "pal-a")]
    head: &'static str,
    /// Whether it answers when no model is named.
    default: bool,
    backbone: ModelBackboneReply,
    /// The head's own parameters.
    #[schema(value_type = std::collections::BTreeMap<String, serde_json::Value>)]
    hyperparameters: serde_json::Value,
    /// Seed of every random choice in training.
    seed: u64,
    training_data: TrainingDataReply,
    reward_statistics: RewardStatisticsReply,
    /// Temperature between margins and preferences.
    calibration_temperature: f64,
    evaluation: EvaluationReply,
    /// SHA-256 of the weights.
    weights_sha256: String,
    /// The polyreward that trained it.
    polyreward_version: String,
}

/// The backbone that a model was trained on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelBackbone)]
struct ModelBackboneReply {
    name: String,
    hash: String,
    dim: usize,
}

/// What a model was trained on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TrainingData)]
struct TrainingDataReply {
    /// SHA-256 of the data files.
    sha256: String,
    /// People trained on.
    people: usize,
    /// Comparisons trained on.
    comparisons: usize,
    /// People held out to stop, choose and calibrate by.
    validation_people: usize,
    /// Their comparisons.
    validation_comparisons: usize,
    /// Comparisons of trained people kept out of training.
    held_out_comparisons: usize,
}

/// The population reward over the training responses: the `standard` scale.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RewardStatistics)]
struct RewardStatisticsReply {
    mean: f64,
    standard_deviation: f64,
    responses: usize,
}

/// How the population did on what it was not trained on; null where there was nothing.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Evaluation)]
struct EvaluationReply {
    /// People held out of training.
    validation: Option<SummaryReply>,
    /// Comparisons of trained people kept out of training.
    seen_people: Option<SummaryReply>,
}

/// Accuracy and calibration over some people.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = EvaluationSummary)]
struct SummaryReply {
    /// People.
    users: usize,
    /// Comparisons.
    n: usize,
    /// Share of comparisons predicted right.
    accuracy: f64,
    /// Its 95 % interval over people.
    accuracy_ci: Option<[f64; 2]>,
    /// Mean over people of their own accuracy.
    user_accuracy: f64,
    /// Its 95 % interval over people.
    user_accuracy_ci: Option<[f64; 2]>,
    /// Mean negative log probability of what was chosen, in nats.
    log_loss: f64,
    /// Expected calibration error.
    ece: f64,
}

/// A model folder that could not be loaded.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FailedModel)]
pub(crate) struct FailedModelReply {
    /// `name/version` below the models folder.
    folder: String,
    /// Why.
    detail: String,
    /// Whether what was loaded from it before still answers.
    still_serving: bool,
}

impl ModelReply {
    fn of(model: &Model, default: Option<&ModelRef>) -> Self {
        let card = &model.card;
        let summary = |part: &str| serde_json::from_value(model.evaluation[part].clone()).ok();
        Self {
            model: model.reference.to_string(),
            name: model.reference.name.to_string(),
            version: model.reference.version.to_string(),
            head: card.head.as_str(),
            default: default == Some(&model.reference),
            backbone: ModelBackboneReply {
                name: card.backbone.name.clone(),
                hash: card.backbone.hash.clone(),
                dim: card.backbone.dim,
            },
            hyperparameters: card.hyperparameters.clone(),
            seed: card.seed,
            training_data: TrainingDataReply {
                sha256: card.training_data.sha256.clone(),
                people: card.training_data.people,
                comparisons: card.training_data.comparisons,
                validation_people: card.training_data.validation_people,
                validation_comparisons: card.training_data.validation_comparisons,
                held_out_comparisons: card.training_data.held_out_comparisons,
            },
            reward_statistics: RewardStatisticsReply {
                mean: card.reward_statistics.mean,
                standard_deviation: card.reward_statistics.standard_deviation,
                responses: card.reward_statistics.responses,
            },
            calibration_temperature: card.calibration.temperature,
            evaluation: EvaluationReply {
                validation: summary("validation"),
                seen_people: summary("seen_people"),
            },
            weights_sha256: card.weights_sha256.clone(),
            polyreward_version: card.polyreward_version.clone(),
        }
    }
}

impl From<&FailedModel> for FailedModelReply {
    fn from(failed: &FailedModel) -> Self {
        let FailedModel { folder, detail, still_serving } = failed.clone();
        Self { folder, detail, still_serving }
    }
}

/// Which page of a list.
#[derive(Debug, PartialEq)]
struct PageQuery {
    limit: usize,
    after: Option<ModelRef>,
}

impl TryFrom<Option<String>> for PageQuery {
    type Error = Problem;

    fn try_from(query: Option<String>) -> Result<Self, Problem> {
        let [limit, cursor] = query_parameters(query.as_deref(), ["limit", "cursor"])?;
        let mut faults = Vec::new();
        let limit = limit.map_or(Some(DEFAULT_LIMIT), |text| {
            text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit))
        });
        if limit.is_none() {
            faults.push(("limit", format!("is a whole number, 1 to {MAX_LIMIT}")));
        }
        let after = cursor.map(|text| model_ref(&text));
        if matches!(after, Some(None)) {
            faults.push(("cursor", "is none that this server gave".to_owned()));
        }
        match limit {
            Some(limit) if faults.is_empty() => Ok(Self { limit, after: after.flatten() }),
            _ => Err(Problem::parameters(faults)),
        }
    }
}

fn model_ref(text: &str) -> Option<ModelRef> {
    let ModelSelector { name, version } = text.parse().ok()?;
    version.map(|version| ModelRef { name, version })
}

/// The models that can answer, and the folders that could not be loaded.
#[utoipa::path(get, path = "/models", tag = "models", operation_id = "list_models", params(
    ("limit" = Option<usize>, Query, description = "Models on a page, 1 to 1000; 100 by default", minimum = 1, maximum = 1000),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
), responses(
    (status = 200, description = "A page of models", body = ModelPageReply),
))]
pub(crate) async fn list(
    State(registry): State<Arc<ModelRegistry>>,
    RawQuery(query): RawQuery,
) -> Result<Json<ModelPageReply>, Problem> {
    let page = PageQuery::try_from(query)?;
    let registered = registry.registered();
    let default = registered.default_model().map(|model| &model.reference);
    let mut rest =
        registered.models().filter(|model| page.after.as_ref().is_none_or(|after| model.reference > *after));
    let items: Vec<ModelReply> =
        rest.by_ref().take(page.limit).map(|model| ModelReply::of(model, default)).collect();
    let next_cursor = rest.next().and_then(|_| items.last()).map(|last| last.model.clone());
    let failed = registered.failed().iter().map(FailedModelReply::from).collect();
    Ok(Json(ModelPageReply { items, next_cursor, failed }))
}

/// What a rescan changed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reload)]
pub(crate) struct ReloadReply {
    /// Models that answer now and did not before.
    added: Vec<String>,
    /// Models that answered before and do not now.
    removed: Vec<String>,
    /// Folders that could not be loaded.
    failed: Vec<FailedModelReply>,
}

impl From<ReloadReport> for ReloadReply {
    fn from(report: ReloadReport) -> Self {
        let names = |models: &[ModelRef]| models.iter().map(ToString::to_string).collect();
        Self {
            added: names(&report.added),
            removed: names(&report.removed),
            failed: report.failed.iter().map(FailedModelReply::from).collect(),
        }
    }
}

/// Scans the models folder again. No request fails meanwhile; a model that no longer loads keeps answering.
#[utoipa::path(post, path = "/models/reload", tag = "models", operation_id = "reload_models", responses(
    (status = 200, description = "What changed", body = ReloadReply),
))]
#[tracing::instrument(name = "http.models.reload", skip_all)]
pub(crate) async fn reload(
    State(registry): State<Arc<ModelRegistry>>,
    State(writes): State<RegistryWrites>,
) -> Result<Json<ReloadReply>, Problem> {
    let report = off_thread(&writes, move || registry.reload()).await?;
    Ok(Json(report.into()))
}

/// Which model answers when none is named.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with a model")]
#[schema(as = DefaultModelRequest)]
pub(crate) struct DefaultModelRequest {
    /// `name`, for its newest version, or `name@version`.
    #[schema(example = "pal-a")]
    model: String,
}

/// The model that answers when none is named.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DefaultModel)]
pub(crate) struct DefaultModelReply {
    /// The model, as `name@version`.
    #[schema(example = "pal-a@3f9c")]
    model: String,
}

/// Chooses the model that answers when none is named; kept over a restart.
#[utoipa::path(put, path = "/models/default", tag = "models", operation_id = "set_default_model",
    request_body = DefaultModelRequest, responses(
    (status = 200, description = "The model that answers now", body = DefaultModelReply),
))]
#[tracing::instrument(name = "http.models.default", skip_all)]
pub(crate) async fn set_default(
    State(registry): State<Arc<ModelRegistry>>,
    State(writes): State<RegistryWrites>,
    JsonBody(body): JsonBody<DefaultModelRequest>,
) -> Result<Json<DefaultModelReply>, Problem> {
    let selector: ModelSelector =
        body.model.parse().map_err(|error| Problem::invalid(vec![InputFault::new("/model", error)]))?;
    let model = off_thread(&writes, move || registry.set_default(&selector)).await?;
    Ok(Json(DefaultModelReply { model: model.to_string() }))
}

/// Runs what reads and writes files on a thread for that, one at a time.
async fn off_thread<T: Send + 'static>(
    writes: &RegistryWrites,
    work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, Problem> {
    let turn = Arc::clone(&writes.0).lock_owned().await;
    let span = tracing::Span::current();
    let work = move || {
        let _turn = turn; // held to the end even when the client has left
        span.in_scope(work)
    };
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| Problem::internal(&error))??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_asked_for_with_limit_and_cursor() {
        let page = |query: &str| PageQuery::try_from(Some(query.to_owned()));
        assert_eq!(PageQuery::try_from(None).unwrap(), PageQuery { limit: DEFAULT_LIMIT, after: None });
        assert_eq!(
            page("limit=2&cursor=bt%401a").unwrap(),
            PageQuery { limit: 2, after: model_ref("bt@1a") }
        );
        let problem = page("limit=0&cursor=bt").unwrap_err();
        assert_eq!(
            problem.faults().iter().map(|fault| fault.parameter).collect::<Vec<_>>(),
            [Some("limit"), Some("cursor")]
        );
        assert!(page("limit=1001").is_err() && page("limit=x").is_err() && page("cursor=").is_err());
    }
}
