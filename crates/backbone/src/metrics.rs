//! Names of this crate's metrics, what they are, and the only places that record them.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

/// From accepted to picked up by a worker, tokenizing included.
const QUEUE_SECONDS: &str = "polyreward_embedding_queue_seconds";
/// Texts in one run of the model.
const BATCH_TEXTS: &str = "polyreward_embedding_batch_texts";
/// Tokens in one run of the model, padding included.
const BATCH_PADDED_TOKENS: &str = "polyreward_embedding_batch_padded_tokens";
/// Share of a run's tokens that are padding.
const PADDING_RATIO: &str = "polyreward_embedding_padding_ratio";
/// One run of the model.
const BATCH_SECONDS: &str = "polyreward_embedding_batch_seconds";
/// Texts answered from memory.
const CACHE_HITS: &str = "polyreward_embedding_cache_hits_total";
/// Texts that were not in memory.
const CACHE_MISSES: &str = "polyreward_embedding_cache_misses_total";
/// Texts answered from the cache that processes share.
const SHARED_CACHE_HITS: &str = "polyreward_shared_cache_hits_total";
/// Texts that were neither in memory nor there.
const SHARED_CACHE_MISSES: &str = "polyreward_shared_cache_misses_total";
/// Values found there that are no embedding of their text; they count as misses, too.
const SHARED_CACHE_INVALID: &str = "polyreward_shared_cache_invalid_total";
/// Texts cut to the window, each time one is answered, from the cache too.
const TRUNCATED: &str = "polyreward_embedding_truncated_total";
/// Texts dropped before inference, by `reason`.
const DROPPED: &str = "polyreward_embedding_dropped_total";
/// One text through template and tokenizer.
const TOKENIZE_SECONDS: &str = "polyreward_tokenize_seconds";

/// Describes the metrics to whoever exports them.
pub fn describe() {
    describe_histogram!(QUEUE_SECONDS, Unit::Seconds, "Time from accepted to picked up by a worker");
    describe_histogram!(BATCH_TEXTS, "Texts in one run of the model");
    describe_histogram!(BATCH_PADDED_TOKENS, "Tokens in one run of the model, padding included");
    describe_histogram!(PADDING_RATIO, "Share of a run's tokens that are padding");
    describe_histogram!(BATCH_SECONDS, Unit::Seconds, "Time of one run of the model");
    describe_counter!(CACHE_HITS, "Texts answered from memory");
    describe_counter!(CACHE_MISSES, "Texts that were not in memory");
    describe_counter!(SHARED_CACHE_HITS, "Texts answered from the cache that processes share");
    describe_counter!(
        SHARED_CACHE_MISSES,
        "Texts that were neither in memory nor in the cache that processes share"
    );
    describe_counter!(SHARED_CACHE_INVALID, "Values of the shared cache that are no embedding of their text");
    describe_counter!(TRUNCATED, "Answers for texts that were cut to the window");
    describe_counter!(DROPPED, "Texts dropped before they ran, by reason");
    describe_histogram!(TOKENIZE_SECONDS, Unit::Seconds, "Time of one text through template and tokenizer");
}

/// Why a text left the queue without being encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DropReason {
    /// Nobody waits for it any more.
    CallerGone,
    /// Its deadline has passed.
    Deadline,
}

pub(crate) fn dropped(reason: DropReason) {
    let reason = match reason {
        DropReason::CallerGone => "caller_gone",
        DropReason::Deadline => "deadline",
    };
    counter!(DROPPED, "reason" => reason).increment(1);
}

pub(crate) fn queued_for(wait: Duration) {
    histogram!(QUEUE_SECONDS).record(wait);
}

pub(crate) fn ran_batch(texts: usize, tokens: usize, padded_tokens: usize, took: Duration) {
    histogram!(BATCH_TEXTS).record(texts as f64);
    histogram!(BATCH_PADDED_TOKENS).record(padded_tokens as f64);
    histogram!(PADDING_RATIO).record(1.0 - tokens as f64 / padded_tokens.max(1) as f64);
    histogram!(BATCH_SECONDS).record(took);
}

pub(crate) fn cache_lookups(hits: u64, misses: u64) {
    counter!(CACHE_HITS).increment(hits);
    counter!(CACHE_MISSES).increment(misses);
}

pub(crate) fn shared_cache_lookups(hits: u64, misses: u64, invalid: u64) {
    counter!(SHARED_CACHE_HITS).increment(hits);
    counter!(SHARED_CACHE_MISSES).increment(misses);
    counter!(SHARED_CACHE_INVALID).increment(invalid);
}

pub(crate) fn truncated() {
    counter!(TRUNCATED).increment(1);
}

pub(crate) fn tokenized(took: Duration) {
    histogram!(TOKENIZE_SECONDS).record(took);
}
