//! `GET /dashboard/models`: which models there are, and how right they were.

use std::{collections::HashMap, sync::Arc};

use axum::{extract::State, http::StatusCode, response::Response};
use polyreward_domain::{ModelRef, ModelSelector};
use polyreward_service::{MeasureQuery, Measurer, ModelRegistry, Span};

use crate::{
    auth::Authorized,
    dashboard::{html::page, view::models},
    problem::Problem,
};

/// Models whose predictions are counted for one page.
const COUNTED: usize = 12;

/// The models as a page: what they are, what they were trained on, how right they were.
#[utoipa::path(get, path = "/dashboard/models", tag = "dashboard", operation_id = "dashboard_models", responses(
    (status = 200, description = "The page", body = String, content_type = "text/html"),
))]
pub(crate) async fn models(
    caller: Authorized,
    State(measurer): State<Measurer>,
    State(registry): State<Arc<ModelRegistry>>,
) -> Result<Response, Problem> {
    let tenant = &caller.0.tenant;
    let registered = registry.registered();
    let predicted: Vec<ModelRef> =
        measurer.measured_models(tenant).await?.into_iter().map(|measured| measured.model).collect();
    let mut figures = HashMap::new();
    for model in registered.models().map(|model| &model.reference) {
        if !predicted.contains(model) {
            figures.insert(model.clone(), None);
        } else if figures.len() < COUNTED {
            let selector = ModelSelector { name: model.name.clone(), version: Some(model.version.clone()) };
            let query = MeasureQuery {
                model: Some(selector),
                group_by: Vec::new(),
                span: Span::default(),
                min_users: None,
            };
            let accuracy = measurer.accuracy(tenant, &query).await?;
            figures.insert(model.clone(), accuracy.overall.clone());
        }
    }
    let loaded = |model: &&ModelRef| registered.models().any(|loaded| loaded.reference == **model);
    let gone: Vec<ModelRef> = predicted.iter().filter(|model| !loaded(model)).cloned().collect();
    Ok(page(StatusCode::OK, &models::of(&registered, &gone, &figures)))
}
