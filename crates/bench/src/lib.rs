//! What benches share: a load generator, statistics, the budgets of the product, one report. A tool of development: nothing
//! that is shipped depends on it.
//!
//! A bench measures in sections ([`Recorder::section`]); what each finds is on disk before the next begins, so that a bench
//! that fails, or dies, loses no more than what it was at. The `bench-report` binary puts together what all of them left.

pub mod budgets;
mod criterion;
pub mod load;
mod machine;
mod record;
mod render;
pub mod statistics;
mod svg;

pub use criterion::inner_pieces;
pub use machine::{Machine, Revision};
pub use record::{Curve, Failure, Figure, Judged, Part, Recorder, Series, Skipped, parts};
pub use render::Report;
