//! The connection, while there is one: what breaks the circuit and what closes it again.

use std::{fmt, time::Duration};

use redis::{AsyncConnectionConfig, Client, RedisError, aio::MultiplexedConnection};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::metrics;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a server that fails again and again is left alone at most.
const MOST_RETRY_AFTER: Duration = Duration::from_mins(1);
/// A connection that held for so long was a good one.
const STEADY_AFTER: Duration = Duration::from_mins(1);

/// A connection that is in use, with what tells it from those before.
#[derive(Clone)]
pub(crate) struct Live {
    pub connection: MultiplexedConnection,
    number: u64,
}

/// Why a server is given up for now.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It does not answer in time.
    Late,
    /// It cannot be reached, or refuses.
    Failed(RedisError),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("no answer in time"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// The one connection that all share. While there is none, nobody waits for one but its keeper.
pub(crate) struct Link(watch::Sender<Option<Live>>);

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.0.borrow().as_ref().map(|live| live.number)).finish()
    }
}

impl Link {
    pub fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub fn live(&self) -> Option<Live> {
        self.0.borrow().clone()
    }

    /// The connection, once there is one.
    pub async fn connected(&self) -> Live {
        let mut states = self.0.subscribe();
        let live = states.wait_for(Option::is_some).await.expect("the sender is here");
        live.clone().expect("it was waited for")
    }

    /// Done when the connection is given up.
    pub async fn broken(&self) {
        let mut states = self.0.subscribe();
        states.wait_for(Option::is_none).await.expect("the sender is here");
    }

    /// Lets go of a connection that failed, unless another is in its place already.
    pub fn give_up(&self, failed: &Live, fault: &Fault) {
        let was_in_use = self.0.send_if_modified(|state| {
            let is_it = state.as_ref().is_some_and(|live| live.number == failed.number);
            if is_it {
                *state = None;
            }
            is_it
        });
        if was_in_use {
            metrics::in_use(false);
            metrics::fault(fault);
            tracing::warn!(error = %fault, "the shared cache is left alone until it answers again");
        }
    }

    /// Connects, again and again; whoever asks never pays for a try.
    pub async fn keep(&self, client: &Client, answer_within: Duration, retry_after: Duration) {
        let (mut pause, mut is_told) = (retry_after, false);
        metrics::in_use(false);
        for number in 0.. {
            match connect(client, answer_within).await {
                Ok(connection) => {
                    let since = Instant::now();
                    self.0.send_replace(Some(Live { connection, number }));
                    metrics::in_use(true);
                    tracing::info!("the shared cache is in use");
                    is_told = true;
                    self.broken().await;
                    if since.elapsed() >= STEADY_AFTER {
                        pause = retry_after;
                    }
                }
                Err(fault) => {
                    metrics::fault(&fault);
                    if !is_told {
                        tracing::warn!(error = %fault, "the shared cache cannot be used until it answers");
                        is_told = true;
                    }
                }
            }
            sleep(pause).await;
            pause = (2 * pause).min(MOST_RETRY_AFTER);
        }
    }
}

/// A connection over which the server answers as fast as whoever asks would need it.
async fn connect(client: &Client, answer_within: Duration) -> Result<MultiplexedConnection, Fault> {
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(None); // each command has a limit of its own
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    let connected = timeout(CONNECT_TIMEOUT, connecting).await;
    let mut connection = connected.map_err(|_elapsed| Fault::Late)?.map_err(Fault::Failed)?;
    let ping = redis::cmd("PING");
    match timeout(answer_within, ping.exec_async(&mut connection)).await {
        Ok(Ok(())) => Ok(connection),
        Ok(Err(error)) => Err(Fault::Failed(error)),
        Err(_elapsed) => Err(Fault::Late),
    }
}
