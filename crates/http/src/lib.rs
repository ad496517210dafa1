//! Routes, problem+json, OpenAPI, health, metrics, limits: the only crate that names `axum`.
//!
//! [`router`] makes the routes, [`serve`] runs them on a listener until it is told to stop. The order on the way
//! in, from outside: a request id and a span, the request's metrics, headers that every
//! reply has, panics caught; then, except for the probes, a place among the requests in flight and the deadline;
//! then the handler, whose extractor reads the body. Whatever goes wrong becomes a [`Problem`] once, here.

mod aside;
mod auth;
mod compat;
mod dashboard;
mod entry;
mod extract;
mod headers;
mod limits;
pub mod metrics;
mod openapi;
mod page;
mod problem;
mod request_id;
mod routes;
mod server;
mod state;

pub use limits::Limits;
pub use metrics::install_metrics;
pub use metrics_exporter_prometheus::PrometheusHandle;
pub use openapi::openapi_json;
pub use problem::{InputFault, Problem, ProblemType};
pub use routes::router;
#[cfg(feature = "bench")]
pub use routes::score::floor::{parse_and_answer, serve_floor};
pub use server::{Drained, ServeOptions, serve};
pub use state::{AppState, Parts, Readiness};
