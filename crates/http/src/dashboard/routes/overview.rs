//! `GET /`: for which group is this reward wrong?

use std::sync::Arc;

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use polyreward_domain::{Scope, TenantId};
use polyreward_service::{MeasureError, MeasureQuery, Measurer, ModelRegistry, Users};

use super::{NotMeasured, choices, everybody};
use crate::{
    auth::Authorized,
    dashboard::{
        controls::{Control, Controls, Fault},
        html::page,
        view::{
            form::Choices,
            groups,
            overview::{self, Chosen, Measured},
        },
    },
    limits::Deadline,
    problem::Problem,
};

/// Mistakes on the page.
const MISTAKES: usize = 12;

/// The dashboard: per-group reward accuracy as a page.
///
/// Made on the server; its controls are the parameters, and its numbers are those of `/accuracy`. A problem is a page, too.
#[utoipa::path(get, path = "/", tag = "dashboard", operation_id = "dashboard", params(
    ("model" = Option<String>, Query, description = "`name` or `name@version`; the default by default"),
    ("group_by" = Option<String>, Query, description = "The attribute that makes the groups; empty for none"),
    ("cross" = Option<String>, Query, description = "A second attribute, for intersections; empty for none"),
    ("from" = Option<String>, Query, description = "The first day, as 2026-01-31"),
    ("to" = Option<String>, Query, description = "The last day"),
    ("min_n" = Option<u64>, Query, description = "People that a shown group has at least; can only raise the server's floor", minimum = 1),
    ("step" = Option<String>, Query, description = "Of the time line: hour, day or week"),
    ("sort" = Option<String>, Query, description = "Of the groups: lower, accuracy, gain, n or name"),
    ("page" = Option<u64>, Query, description = "Of the groups", minimum = 1),
), responses((status = 200, description = "The page", body = String, content_type = "text/html")))]
pub(crate) async fn overview(
    caller: Authorized,
    State(measurer): State<Measurer>,
    State(users): State<Users>,
    State(registry): State<Arc<ModelRegistry>>,
    deadline: Deadline,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let tenant = &caller.0.tenant;
    let floor = measurer.options().min_users;
    let (controls, faults) = Controls::of(query.as_deref().unwrap_or_default(), floor);
    let choices = choices(tenant, &users, &measurer, &registry.registered()).await?;
    if !faults.is_empty() {
        return Ok(refused(&controls, &choices, &faults));
    }
    let chosen = Chosen::of(&controls, &choices.attributes);
    let query = MeasureQuery {
        model: controls.model.clone(),
        group_by: chosen.group_by.iter().cloned().collect(),
        span: controls.span,
        min_users: controls.min_n,
    };
    let may_read_text = caller.0.may(Scope::ReadText);
    let measured = measure(&measurer, tenant, &query, &chosen, &controls, may_read_text);
    let Ok(measured) = tokio::time::timeout_at(deadline.0.into(), measured).await else {
        return Err(Problem::deadline_exceeded(
            "the figures were not computed in time; they are kept for who asks again",
        ));
    };
    match measured {
        Ok(measured) if controls.page > pages(&measured) => {
            let fault = Fault::of(Control::Page, format!("there are {} pages of groups", pages(&measured)));
            Ok(refused(&controls, &choices, &[fault]))
        }
        Ok(measured) => {
            let host = host_of(&headers);
            let shown = overview::of(&controls, &chosen, &choices, &query, &measured, host);
            Ok(page(StatusCode::OK, &shown))
        }
        Err(NotMeasured::Fault(fault)) => Ok(refused(&controls, &choices, &[fault])),
        Err(NotMeasured::Problem(problem)) => Err(problem),
    }
}

fn refused(controls: &Controls, choices: &Choices, faults: &[Fault]) -> Response {
    page(StatusCode::UNPROCESSABLE_ENTITY, &overview::refused(controls, choices, faults))
}

fn pages(measured: &Measured) -> usize {
    measured.accuracy.groups.len().div_ceil(groups::ROWS).max(1)
}

/// Where the server was asked, for a command to copy.
fn host_of(headers: &HeaderMap) -> &str {
    headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1:8080")
}

/// Everything on the page. What depends on nothing else is asked for at the same time; few at once, as each takes one of
/// the places that all viewers share.
async fn measure(
    measurer: &Measurer,
    tenant: &TenantId,
    query: &MeasureQuery,
    chosen: &Chosen,
    controls: &Controls,
    may_read_text: bool,
) -> Result<Measured, NotMeasured> {
    // Curves are drawn of everybody.
    let whole = MeasureQuery { group_by: Vec::new(), ..query.clone() };
    let groups = async {
        let accuracy = measurer.accuracy(tenant, query).await?;
        let changes = measurer.changes(tenant, query).await?;
        let crossed = match (&chosen.group_by, &chosen.cross) {
            (Some(first), Some(second)) => {
                let both = MeasureQuery { group_by: vec![first.clone(), second.clone()], ..query.clone() };
                Some(measurer.accuracy(tenant, &both).await?)
            }
            _ => None,
        };
        Ok::<_, MeasureError>((accuracy, changes, crossed))
    };
    let curves = async {
        let shots = measurer.shots(tenant, &whole).await?;
        let timeline = measurer.timeline(tenant, &whole, controls.step).await?;
        let mistakes = measurer.mistakes(tenant, &whole, &everybody(), MISTAKES).await?;
        Ok::<_, MeasureError>((shots, timeline, mistakes))
    };
    let ((accuracy, changes, crossed), (shots, timeline, mistakes)) =
        tokio::try_join!(groups, curves).map_err(NotMeasured::from)?;
    Ok(Measured { accuracy, changes, shots, timeline, crossed, mistakes, may_read_text })
}
