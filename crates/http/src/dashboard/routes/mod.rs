//! One file a page, and what becomes of a problem on any of them.

mod models;
mod overview;
mod person;

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::Response,
};
use polyreward_domain::{Attributes, TenantId};
use polyreward_service::{MeasureError, Measurer, Registered, Users};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use super::assets::file;
use super::{
    controls::{Control, Fault},
    html::page,
    view::{form::Choices, groups, refusal},
};
use crate::{
    problem::{Problem, ProblemType, Told},
    state::AppState,
};

/// How a browser is told to ask for a key, RFC 7617.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"polyreward\", charset=\"UTF-8\"");
/// Attributes in a list to choose from.
const MAX_ATTRIBUTES: usize = 64;

/// Pages, which the document describes.
pub(crate) fn pages() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(routes!(overview::overview))
        .routes(routes!(person::person))
        .routes(routes!(models::models))
}

/// What is at a path where no page is.
pub(crate) async fn lost() -> Problem {
    Problem::new(ProblemType::NotFound)
}

/// A problem as a page, for those who do not ask for JSON alone.
pub(crate) async fn as_page(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let wants_json = wants_json(request.headers());
    let mut response = next.run(request).await;
    let Some(told) = response.extensions_mut().remove::<Told>().filter(|_| !wants_json) else {
        return response;
    };
    let mut shown = page(response.status(), &refusal::of(&told, &path, &query));
    if let Some(after) = response.headers().get(header::RETRY_AFTER) {
        shown.headers_mut().insert(header::RETRY_AFTER, after.clone());
    }
    if told.kind == ProblemType::Unauthorized {
        shown.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
    }
    shown
}

/// Whether a client names JSON and no page among what it accepts.
fn wants_json(headers: &HeaderMap) -> bool {
    let accepted = |what: &str| {
        headers
            .get_all(header::ACCEPT)
            .iter()
            .any(|value| value.to_str().is_ok_and(|text| text.contains(what)))
    };
    accepted("json") && !accepted("html")
}

/// What can be chosen now.
async fn choices(
    tenant: &TenantId,
    users: &Users,
    measurer: &Measurer,
    registered: &Registered,
) -> Result<Choices, Problem> {
    let attributes = users.attributes(tenant, MAX_ATTRIBUTES, groups::ROWS).await?;
    let mut models: Vec<String> =
        registered.current().map(|model| model.reference.name.to_string()).collect();
    models.dedup();
    let measured = measurer.measured_models(tenant).await?;
    models.extend(measured.iter().map(|measured| measured.model.to_string()));
    Ok(Choices { models, attributes, floor: measurer.options().min_users })
}

/// Why something cannot be measured: a control's fault, or everybody's.
enum NotMeasured {
    Fault(Fault),
    Problem(Problem),
}

impl From<MeasureError> for NotMeasured {
    fn from(error: MeasureError) -> Self {
        match error {
            MeasureError::Registry(polyreward_service::RegistryError::UnknownModel(_)) => Self::Fault(
                Fault::of(Control::Model, "there is no such model, and none of this name has predicted"),
            ),
            MeasureError::UnknownAttribute { at, ref known } => {
                let control = if at == 0 { Control::GroupBy } else { Control::Cross };
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Self::Fault(Fault::of(control, format!("nobody has this attribute; there are {known}")))
            }
            MeasureError::TooManyPoints(most) => Self::Fault(Fault::of(
                Control::Step,
                format!("there would be more than {most} points; take a longer step or fewer days"),
            )),
            other => Self::Problem(other.into()),
        }
    }
}

/// Everybody.
fn everybody() -> Attributes {
    Attributes::new()
}
