//! This crate's metrics, and the recorder that `GET /metrics` reads.
//!
//! Labels come from sets that no client can extend: route templates, methods, classes of status, problem types.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    http::Method,
    middleware::Next,
    response::Response,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::problem::ProblemType;

/// Requests, by route, method and class of status.
pub const REQUESTS_TOTAL: &str = "polyreward_http_requests_total";
/// Seconds from the head of a request to the head of its reply, by route, method and class of status.
pub const REQUEST_SECONDS: &str = "polyreward_http_request_seconds";
/// Requests being answered; probes and metrics do not count.
pub const IN_FLIGHT: &str = "polyreward_http_in_flight";
/// Requests refused because the server had too much to do, before their texts were looked at.
pub const REFUSED_TOTAL: &str = "polyreward_http_refused_total";
/// Errors sent, by type.
pub const PROBLEMS_TOTAL: &str = "polyreward_http_problems_total";
/// Open connections.
pub const CONNECTIONS: &str = "polyreward_http_connections";

/// Texts of other servers' clients that were scored as a whole, since they could not be taken apart, by reason.
pub const WHOLE_TEXTS_TOTAL: &str = "polyreward_http_whole_texts_total";

/// Buckets of every histogram of seconds.
const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 100.0];

/// Installs the recorder for the whole process; metrics are lost before this, and it can be done once.
///
/// # Errors
/// If another recorder is installed.
pub fn install_metrics() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()?;
    describe();
    polyreward_service::metrics::describe();
    polyreward_backbone::metrics::describe();
    Ok(handle)
}

/// Describes the metrics to whoever exports them.
pub fn describe() {
    metrics::describe_counter!(REQUESTS_TOTAL, "Requests, by route, method and class of status");
    metrics::describe_histogram!(
        REQUEST_SECONDS,
        metrics::Unit::Seconds,
        "Time from the head of a request to the head of its reply"
    );
    metrics::describe_gauge!(IN_FLIGHT, "Requests being answered, without probes and metrics");
    metrics::describe_counter!(REFUSED_TOTAL, "Requests refused at the door");
    metrics::describe_counter!(PROBLEMS_TOTAL, "Errors sent, by type");
    metrics::describe_gauge!(CONNECTIONS, "Open connections");
    metrics::describe_counter!(
        WHOLE_TEXTS_TOTAL,
        "Texts of other servers' clients scored as a whole, since they could not be taken apart, by reason"
    );
}

/// Counts and times each request.
pub(crate) async fn measure(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let method = method_label(request.method());
    let response = next.run(request).await;
    let status = match response.status().as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    };
    let labels = [
        metrics::Label::new("route", route),
        metrics::Label::from_static_parts("method", method),
        metrics::Label::from_static_parts("status", status),
    ];
    metrics::counter!(REQUESTS_TOTAL, labels.iter()).increment(1);
    metrics::histogram!(REQUEST_SECONDS, labels.iter()).record(started.elapsed());
    response
}

/// A client may send any word as a method; a label may not be any word.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

pub(crate) fn problem(kind: ProblemType) {
    metrics::counter!(PROBLEMS_TOTAL, "type" => kind.uri()).increment(1);
}

/// That a text was not in the template named, or did not begin with its prompt.
pub(crate) fn whole_text(reason: &'static str) {
    metrics::counter!(WHOLE_TEXTS_TOTAL, "reason" => reason).increment(1);
}

pub(crate) fn refused() {
    metrics::counter!(REFUSED_TOTAL).increment(1);
}

/// One of a gauge for as long as it lives.
pub(crate) struct Counted(&'static str);

impl Counted {
    fn new(gauge: &'static str) -> Self {
        metrics::gauge!(gauge).increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!(self.0).decrement(1.0);
    }
}

pub(crate) fn count_in_flight() -> Counted {
    Counted::new(IN_FLIGHT)
}

pub(crate) fn count_connection() -> Counted {
    Counted::new(CONNECTIONS)
}
