//! Names of this crate's metrics, once each.

/// Requests to score, by outcome.
pub const SCORES_TOTAL: &str = "polyreward_scores_total";
/// Rewards computed.
pub const REWARDS_TOTAL: &str = "polyreward_rewards_total";
/// Seconds from embeddings to rewards.
pub const HEAD_SECONDS: &str = "polyreward_head_seconds";
/// Models that can answer.
pub const MODELS: &str = "polyreward_models";
/// Model folders that could not be loaded.
pub const MODELS_FAILED: &str = "polyreward_models_failed";

/// Describes the metrics to whoever exports them.
pub fn describe() {
    metrics::describe_counter!(SCORES_TOTAL, "Requests to score, by outcome");
    metrics::describe_counter!(REWARDS_TOTAL, "Rewards computed");
    metrics::describe_histogram!(HEAD_SECONDS, metrics::Unit::Seconds, "Time from embeddings to rewards");
    metrics::describe_gauge!(MODELS, "Models that can answer");
    metrics::describe_gauge!(MODELS_FAILED, "Model folders that could not be loaded");
}
