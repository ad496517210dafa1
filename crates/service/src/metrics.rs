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
/// Derived states that could not be stored.
pub const STATES_NOT_STORED_TOTAL: &str = "polyreward_user_states_not_stored_total";
/// Examples that people posted, by outcome: stored, or a duplicate.
pub const EXAMPLES_TOTAL: &str = "polyreward_examples_total";
/// Posts of examples, by outcome.
pub const POSTS_TOTAL: &str = "polyreward_example_posts_total";
/// Seconds in which a person's row is held while their models learn.
pub const LEARN_SECONDS: &str = "polyreward_learn_seconds";
/// Questions about accuracy, by kind and outcome; `kept` are answers that were there already.
pub const MEASURES_TOTAL: &str = "polyreward_accuracy_queries_total";
/// Seconds in which an answer about accuracy is computed, by kind.
pub const MEASURE_SECONDS: &str = "polyreward_accuracy_seconds";
/// People erased.
pub const ERASURES_TOTAL: &str = "polyreward_erasures_total";
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
    metrics::describe_counter!(
        STATES_TOTAL,
        "States found in the database, or derived from a person's examples, by outcome"
    );
    metrics::describe_histogram!(
        STATE_SECONDS,
        metrics::Unit::Seconds,
        "Time from a person's examples to their state"
    );
    metrics::describe_counter!(STATES_NOT_STORED_TOTAL, "Derived states that could not be stored");
    metrics::describe_counter!(EXAMPLES_TOTAL, "Examples posted, by outcome");
    metrics::describe_counter!(POSTS_TOTAL, "Posts of examples, by outcome");
    metrics::describe_histogram!(
        LEARN_SECONDS,
        metrics::Unit::Seconds,
        "Time in which a person's row is held while their models learn"
    );
    metrics::describe_counter!(MEASURES_TOTAL, "Questions about accuracy, by kind and outcome");
    metrics::describe_histogram!(
        MEASURE_SECONDS,
        metrics::Unit::Seconds,
        "Time in which an answer about accuracy is computed, by kind"
    );
    metrics::describe_counter!(ERASURES_TOTAL, "People erased");
    metrics::describe_gauge!(MODELS, "Models that can answer");
    metrics::describe_gauge!(MODELS_FAILED, "Model folders that could not be loaded");
}
