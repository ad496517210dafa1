//! Names of this crate's metrics, what they are, and the only places that record them.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::link::Fault;

/// Whether the server is in use.
const UP: &str = "polyreward_shared_cache_up";
/// Times that the server was given up or could not be reached, by `reason`.
const FAULTS: &str = "polyreward_shared_cache_faults_total";
/// Texts that the server was not asked for, or did not answer in time.
const SKIPPED: &str = "polyreward_shared_cache_skipped_total";
/// One request's question.
const READ_SECONDS: &str = "polyreward_shared_cache_read_seconds";
/// Values, by `outcome`.
const WRITES: &str = "polyreward_shared_cache_writes_total";
/// Keys of erased texts, by `outcome`.
const REMOVALS: &str = "polyreward_shared_cache_removals_total";
/// Keys of erased texts that wait to be removed, for the first time or again.
const REMOVALS_WAITING: &str = "polyreward_shared_cache_removals_waiting";

/// Describes the metrics to whoever exports them.
pub fn describe() {
    describe_gauge!(UP, "Whether the shared cache is in use");
    describe_counter!(FAULTS, "Times that the shared cache failed and was left alone, by reason");
    describe_counter!(SKIPPED, "Texts that the shared cache was not asked for, or did not answer in time");
    describe_histogram!(READ_SECONDS, Unit::Seconds, "Time of one request's question to the shared cache");
    describe_counter!(WRITES, "Values for the shared cache, by outcome");
    describe_counter!(REMOVALS, "Keys of erased texts to remove from the shared cache, by outcome");
    describe_gauge!(REMOVALS_WAITING, "Keys of erased texts that wait to be removed, or removed again");
}

pub(crate) fn in_use(up: bool) {
    gauge!(UP).set(f64::from(up));
}

pub(crate) fn fault(fault: &Fault) {
    let reason = match fault {
        Fault::Late => "late",
        Fault::Failed(_) => "failed",
    };
    counter!(FAULTS, "reason" => reason).increment(1);
}

pub(crate) fn skipped(texts: usize) {
    counter!(SKIPPED).increment(texts as u64);
}

pub(crate) fn read(took: Duration) {
    histogram!(READ_SECONDS).record(took);
}

/// What became of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// They are in the server.
    Stored,
    /// The server did not take them.
    Failed,
    /// There was no room for them, or no server.
    Dropped,
}

pub(crate) fn written(outcome: Written, values: usize) {
    let outcome = match outcome {
        Written::Stored => "stored",
        Written::Failed => "failed",
        Written::Dropped => "dropped",
    };
    counter!(WRITES, "outcome" => outcome).increment(values as u64);
}

/// What became of removals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    /// They were carried out.
    Done,
    /// What they would have removed expired while the server was away.
    Expired,
    /// Too many waited; what they would have removed expires.
    GivenUp,
}

pub(crate) fn removed(outcome: Removed, keys: usize) {
    let outcome = match outcome {
        Removed::Done => "removed",
        Removed::Expired => "expired",
        Removed::GivenUp => "given_up",
    };
    counter!(REMOVALS, "outcome" => outcome).increment(keys as u64);
}

pub(crate) fn removals_waiting(keys: usize) {
    gauge!(REMOVALS_WAITING).set(keys as f64);
}
