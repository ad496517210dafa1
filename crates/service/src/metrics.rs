//! Names of this crate's metrics, once each.

/// Requests to score, by outcome.
pub const SCORES_TOTAL: &str = "polyreward_scores_total";
/// Requests to rank the pairs a person could be asked about, by outcome.
pub const QUERIES_TOTAL: &str = "polyreward_queries_total";
/// Responses scored, each once however many people they were scored for.
pub const REWARDS_TOTAL: &str = "polyreward_rewards_total";
/// Seconds from embeddings to rewards.
pub const HEAD_SECONDS: &str = "polyreward_head_seconds";
/// States derived from a person's examples, by outcome; `unusable` are examples that cannot be used.
pub const STATES_TOTAL: &str = "polyreward_user_states_total";
/// Seconds from a person's examples to their state.
pub const STATE_SECONDS: &str = "polyreward_user_state_seconds";
/// Models that can answer.
pub const MODELS: &str = "polyreward_models";
/// Model folders that could not be loaded.
pub const MODELS_FAILED: &str = "polyreward_models_failed";

/// Describes the metrics to whoever exports them.
pub fn describe() {
    metrics::describe_counter!(SCORES_TOTAL, "Requests to score, by outcome");
    metrics::describe_counter!(
        QUERIES_TOTAL,
        "Requests to rank the pairs a person could be asked about, by outcome"
    );
    metrics::describe_counter!(REWARDS_TOTAL, "Responses scored");
    metrics::describe_histogram!(HEAD_SECONDS, metrics::Unit::Seconds, "Time from embeddings to rewards");
    metrics::describe_counter!(STATES_TOTAL, "States derived from a person's examples, by outcome");
    metrics::describe_histogram!(
        STATE_SECONDS,
        metrics::Unit::Seconds,
        "Time from a person's examples to their state"
    );
    metrics::describe_gauge!(MODELS, "Models that can answer");
    metrics::describe_gauge!(MODELS_FAILED, "Model folders that could not be loaded");
}
