//! How a server uses its database.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

/// What is bounded, and by how much.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Connections at once, at most; another caller waits.
    pub max_connections: u32,
    /// How long a caller waits for a connection.
    pub acquire_timeout: Duration,
    /// How long one statement may run. A server that has not answered [`Self::acquire_timeout`] after that has vanished.
    pub statement_timeout: Duration,
    /// How long one statement of [`polyreward_storage::Measures`] may run.
    pub measure_timeout: Duration,
    /// Connections that add up predictions, beside the others: one for each answer that is computed at once, and one for
    /// whoever asks whether a kept one is still good.
    pub measure_connections: u32,
    /// How long a statement may wait for another writer.
    pub lock_timeout: Duration,
    /// How long a transaction may do nothing before the server ends it: its process may be gone.
    pub idle_in_transaction_timeout: Duration,
    /// What the connections are called in `pg_stat_activity`.
    pub application_name: String,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(15),
            measure_timeout: Duration::from_secs(10),
            measure_connections: 2,
            lock_timeout: Duration::from_secs(5),
            idle_in_transaction_timeout: Duration::from_secs(30),
            application_name: "polyreward".to_owned(),
        }
    }
}

impl PostgresOptions {
    /// How long the answer to a statement is waited for. No time is PostgreSQL's word for all time.
    pub(crate) fn answer_timeout(&self) -> Duration {
        if self.statement_timeout.is_zero() {
            return Duration::MAX;
        }
        self.statement_timeout + self.acquire_timeout
    }

    /// Settings of a connection, as part of its start: no statement of its own. Plans are made once for each statement and
    /// connection, and look rows up by key however many are asked for; made for the values, some would read whole tables.
    pub(crate) fn settle(&self, connection: PgConnectOptions) -> PgConnectOptions {
        connection
            .options([
                ("statement_timeout", self.statement_timeout.as_millis()),
                ("lock_timeout", self.lock_timeout.as_millis()),
                ("idle_in_transaction_session_timeout", self.idle_in_transaction_timeout.as_millis()),
            ])
            .options([("plan_cache_mode", "force_generic_plan")])
    }

    /// As these, for the connections that add up predictions.
    pub(crate) fn measuring(&self) -> Self {
        Self {
            max_connections: self.measure_connections,
            statement_timeout: self.measure_timeout,
            ..self.clone()
        }
    }

    /// Settings of a connection that adds up predictions: each plan is made for the values, and is not worth compiling.
    pub(crate) fn settle_measuring(&self, connection: PgConnectOptions) -> PgConnectOptions {
        let settled = self.settle(connection);
        settled.options([("plan_cache_mode", "force_custom_plan"), ("jit", "off")])
    }
}
