//! `GET /accuracy`: for whom a model is right, and how sure one may be of that.

mod csv;
mod query;
mod reply;

use axum::{
    extract::{RawQuery, State},
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use polyreward_domain::ModelRef;
use polyreward_service::{MeasureError, Measurer};
use serde::Serialize;
use utoipa::IntoParams;

use self::{
    query::Format,
    reply::{ShotsReply, TimelineReply},
};
pub(crate) use self::{
    query::{checked_min_n, key_faults},
    reply::AccuracyReply,
};
use crate::{
    aside::write_aside, auth::Authorized, limits::Deadline, problem::Problem, routes::score::MODEL_VERSION,
};

/// Rows from which on an answer is written by a thread that answers nobody else.
const LARGE: usize = 256;

/// What every question about accuracy takes in its query string.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the description of what `query` reads")]
struct MeasureParams {
    /// As `name` for its newest version, or `name@version`, loaded or not; by default the server's.
    model: Option<String>,
    /// Attributes that make groups: at most two, with a comma between them.
    group_by: Option<String>,
    /// Predictions from then on: RFC 3339, or a day, which begins at midnight UTC.
    from: Option<String>,
    /// Predictions before then.
    to: Option<String>,
    /// People that a shown group, or point of a group, has at least; can only raise the server's floor, `min_users` of
    /// `GET /info`.
    min_n: Option<usize>,
    /// `json`, the default, or `csv`.
    format: Option<String>,
}

/// For whom a model is right, from predictions that were each made before its example was learned from.
///
/// A row for everybody and one for each group of people. Intervals are of 95 %, of draws of people (2000, seeded), since what
/// one person prefers goes together. Groups of fewer people than the floor are counted and not shown. `format=csv` gives the
/// rows as a table.
#[utoipa::path(get, path = "/accuracy", tag = "accuracy", operation_id = "accuracy", params(
    MeasureParams,
    ("x-request-timeout-ms" = Option<u64>, Header, description = "Lowers the deadline of 100 s", minimum = 1),
), responses(
    (status = 200, description = "Accuracy by group", content((AccuracyReply = "application/json"), (String = "text/csv")), headers(
        ("x-model-version" = String, description = "The model, as `name@version`"),
    )),
))]
#[tracing::instrument(name = "http.accuracy", skip_all)]
pub(crate) async fn accuracy(
    caller: Authorized,
    State(measurer): State<Measurer>,
    deadline: Deadline,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let (query, format) = query::plain(query.as_deref(), measurer.options().min_users)?;
    let answer = within(deadline, measurer.accuracy(&caller.0.tenant, &query)).await?;
    let rows = answer.groups.len();
    let model = answer.model.clone();
    let write = move || written(format, &AccuracyReply::from(&*answer), csv::accuracy);
    respond(&model, format, "accuracy", rows, write).await
}

/// Accuracy against the number of examples that a person had when a prediction was made.
///
/// `shots` of a point are from the least to the most number of examples. The gain says whether, and from how many examples
/// on, it helps to know a person.
#[utoipa::path(get, path = "/accuracy/shots", tag = "accuracy", operation_id = "accuracy_by_shots", params(
    MeasureParams,
    ("x-request-timeout-ms" = Option<u64>, Header, description = "Lowers the deadline of 100 s", minimum = 1),
), responses(
    (status = 200, description = "Accuracy by number of examples and group", content((ShotsReply = "application/json"), (String = "text/csv")), headers(
        ("x-model-version" = String, description = "The model, as `name@version`"),
    )),
))]
#[tracing::instrument(name = "http.accuracy_by_shots", skip_all)]
pub(crate) async fn shots(
    caller: Authorized,
    State(measurer): State<Measurer>,
    deadline: Deadline,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let (query, format) = query::plain(query.as_deref(), measurer.options().min_users)?;
    let answer = within(deadline, measurer.shots(&caller.0.tenant, &query)).await?;
    let rows = answer.groups.iter().map(|curve| curve.points.len()).sum();
    let model = answer.model.clone();
    let write = move || written(format, &ShotsReply::from(&*answer), csv::shots);
    respond(&model, format, "accuracy-shots", rows, write).await
}

/// Accuracy against time.
///
/// Steps without a prediction are left out. Without `step` it is the shortest of which there are not many more than a reader
/// can make out.
#[utoipa::path(get, path = "/accuracy/timeline", tag = "accuracy", operation_id = "accuracy_by_time", params(
    MeasureParams,
    ("step" = Option<String>, Query, description = "`hour`, `day` or `week`, in UTC"),
    ("x-request-timeout-ms" = Option<u64>, Header, description = "Lowers the deadline of 100 s", minimum = 1),
), responses(
    (status = 200, description = "Accuracy by step of time and group", content((TimelineReply = "application/json"), (String = "text/csv")), headers(
        ("x-model-version" = String, description = "The model, as `name@version`"),
    )),
))]
#[tracing::instrument(name = "http.accuracy_by_time", skip_all)]
pub(crate) async fn timeline(
    caller: Authorized,
    State(measurer): State<Measurer>,
    deadline: Deadline,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let (query, step, format) = query::by_time(query.as_deref(), measurer.options().min_users)?;
    let answer = within(deadline, measurer.timeline(&caller.0.tenant, &query, step)).await?;
    let rows = answer.curves.groups.iter().map(|curve| curve.points.len()).sum();
    let model = answer.curves.model.clone();
    let write = move || written(format, &TimelineReply::from(&*answer), csv::timeline);
    respond(&model, format, "accuracy-timeline", rows, write).await
}

/// What comes before the deadline. The computation goes on for whoever asks next.
async fn within<T>(
    deadline: Deadline,
    answer: impl Future<Output = Result<T, MeasureError>>,
) -> Result<T, Problem> {
    match tokio::time::timeout_at(deadline.0.into(), answer).await {
        Ok(answer) => Ok(answer?),
        Err(_elapsed) => {
            let detail = "the answer was not computed in time; it is kept for who asks again";
            Err(Problem::deadline_exceeded(detail))
        }
    }
}

fn written<T: Serialize>(
    format: Format,
    reply: &T,
    csv: fn(&T) -> Result<Vec<u8>, Problem>,
) -> Result<Vec<u8>, Problem> {
    match format {
        Format::Json => serde_json::to_vec(reply).map_err(|error| Problem::internal(&error)),
        Format::Csv => csv(reply),
    }
}

async fn respond(
    model: &ModelRef,
    format: Format,
    name: &str,
    rows: usize,
    write: impl FnOnce() -> Result<Vec<u8>, Problem> + Send + 'static,
) -> Result<Response, Problem> {
    let body = write_aside(rows >= LARGE, write).await?;
    let mut response = body.into_response();
    let mut set = |name: HeaderName, value: String| {
        let value = HeaderValue::try_from(value).expect("names of models and files are ASCII");
        response.headers_mut().insert(name, value);
    };
    set(MODEL_VERSION, model.to_string());
    match format {
        Format::Json => set(header::CONTENT_TYPE, "application/json".to_owned()),
        Format::Csv => {
            set(header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned());
            set(header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.csv\""));
        }
    }
    Ok(response)
}
