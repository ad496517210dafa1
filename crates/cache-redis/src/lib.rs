//! The cache of embeddings that several processes share, in Redis or Valkey.
//!
//! [`RedisCache`] is a [`SharedCache`]: it may lose anything, and an absent or slow server costs a caller no more than
//! [`RedisOptions::read_timeout`], once. One that fails is given up (`link.rs`) until it answers again, which a task of its own
//! finds out; meanwhile nobody asks it. Writes and removals wait for another task (`writes.rs`): writes in a bounded queue that
//! drops, removals until they have been carried out, or until what they would remove has expired.

mod link;
pub mod metrics;
#[cfg(feature = "testing")]
pub mod testing;
mod writes;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use polyreward_backbone::{CacheKey, SharedCache};
use redis::{Client, Pipeline, RedisError, RedisResult, TlsCertificates, aio::MultiplexedConnection};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    link::{Fault, Link},
    writes::{Waiting, Writer},
};

/// What every name of ours in the server begins with.
pub const PREFIX: &str = "polyreward:embedding:";

/// Values asked for in one round trip: what came is kept where a whole request would take longer than it may.
const READ_AT_ONCE: usize = 128;

/// How a server is used.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://`, `rediss://` (TLS) or `redis+unix://`, with user, password and number of the database where there are any.
    pub url: String,
    /// Certificates in PEM of who is trusted with `rediss://`; else those that the system trusts.
    pub ca_certificate: Option<Vec<u8>>,
    /// What a request may lose by asking.
    pub read_timeout: Duration,
    /// How long a value is kept after it was written.
    pub keep: Duration,
    /// Bytes of values that wait to be written; more are dropped.
    pub max_waiting_bytes: usize,
    /// How long a server that failed is left alone at first; doubled each time that it soon fails again.
    pub retry_after: Duration,
    /// How long after a removal it is repeated, for what was on its way in another process or connection.
    pub remove_again_after: Duration,
}

impl RedisOptions {
    /// For a server by its URL.
    pub fn of(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca_certificate: None,
            read_timeout: Duration::from_millis(20),
            keep: Duration::from_hours(24),
            max_waiting_bytes: 16 << 20,
            retry_after: Duration::from_secs(1),
            remove_again_after: Duration::from_mins(2),
        }
    }
}

/// Why a server cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum RedisCacheError {
    /// The URL or the certificate is none.
    #[error("neither redis://, rediss:// nor redis+unix://, or not with this certificate")]
    Client(#[source] RedisError),
    /// Certificates are for TLS.
    #[error("a certificate is for rediss://")]
    CertificateWithoutTls,
}

/// Values in a Redis or Valkey server. Its tasks end with it.
#[derive(Debug)]
pub struct RedisCache {
    link: Arc<Link>,
    waiting: Arc<Waiting>,
    read_timeout: Duration,
    tasks: Vec<JoinHandle<()>>,
}

impl RedisCache {
    /// Begins to connect, and does not wait for it. Needs a tokio runtime.
    ///
    /// # Errors
    /// A URL or certificate that cannot be used.
    pub fn open(options: RedisOptions) -> Result<Self, RedisCacheError> {
        let client = client(&options)?;
        let link = Arc::new(Link::new());
        let waiting = Arc::new(Waiting::new(options.max_waiting_bytes, options.keep));
        let writer = Writer {
            link: Arc::clone(&link),
            waiting: Arc::clone(&waiting),
            keep: options.keep,
            again_after: options.remove_again_after,
            retry_after: options.retry_after,
        };
        let keeper = Arc::clone(&link);
        let tasks = vec![
            tokio::spawn(
                async move { keeper.keep(&client, options.read_timeout, options.retry_after).await },
            ),
            tokio::spawn(writer.run()),
        ];
        Ok(Self { link, waiting, read_timeout: options.read_timeout, tasks })
    }

    /// Done once the server is in use.
    pub async fn connected(&self) {
        self.link.connected().await;
    }

    /// Carries out what waits, repeated removals included, for no longer than `within`; what then is left is said in the log.
    pub async fn close(&self, within: Duration) {
        self.waiting.hurry();
        if tokio::time::timeout(within, self.waiting.emptied()).await.is_err() {
            let left = self.waiting.removals();
            if left > 0 {
                tracing::warn!(
                    keys = left,
                    "{left} keys of erased texts may be left in the shared cache until they expire"
                );
            }
        }
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for RedisCache {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[async_trait]
impl SharedCache for RedisCache {
    async fn get(&self, keys: &[CacheKey], max_bytes: usize) -> Vec<Option<Vec<u8>>> {
        let mut values = Vec::with_capacity(keys.len());
        if let Some(mut live) = self.link.live() {
            let started = Instant::now();
            for keys in keys.chunks(READ_AT_ONCE) {
                let read = read(&mut live.connection, keys, max_bytes);
                match tokio::time::timeout_at(started + self.read_timeout, read).await {
                    Ok(Ok(found)) => values.extend(found),
                    Ok(Err(error)) => {
                        self.link.give_up(&live, &Fault::Failed(error));
                        break;
                    }
                    // A server that answered in part is there: the request is large.
                    Err(_elapsed) if !values.is_empty() => break,
                    Err(_elapsed) => {
                        self.link.give_up(&live, &Fault::Late);
                        break;
                    }
                }
            }
            metrics::read(started.elapsed());
        }
        metrics::skipped(keys.len() - values.len());
        values.resize(keys.len(), None);
        values
    }

    fn put(&self, key: CacheKey, value: Vec<u8>) {
        // What cannot be written now is not worth its memory.
        if self.link.live().is_none() || !self.waiting.put(key, value) {
            metrics::written(metrics::Written::Dropped, 1);
        }
    }

    fn remove(&self, keys: Vec<CacheKey>) {
        self.waiting.remove(keys);
    }
}

fn client(options: &RedisOptions) -> Result<Client, RedisCacheError> {
    let tls = options.url.starts_with("rediss://");
    if !tls {
        if options.ca_certificate.is_some() {
            return Err(RedisCacheError::CertificateWithoutTls);
        }
        return Client::open(options.url.as_str()).map_err(RedisCacheError::Client);
    }
    // An error says that the process has chosen one already, which will do.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let certificates = TlsCertificates { client_tls: None, root_cert: options.ca_certificate.clone() };
    Client::build_with_tls(options.url.as_str(), certificates).map_err(RedisCacheError::Client)
}

/// The first bytes of each value, one more than is asked for, so that nothing of any size is read whole.
async fn read(
    connection: &mut MultiplexedConnection,
    keys: &[CacheKey],
    max_bytes: usize,
) -> RedisResult<Vec<Option<Vec<u8>>>> {
    let mut pipeline = Pipeline::with_capacity(keys.len());
    for key in keys {
        pipeline.cmd("GETRANGE").arg(name(key)).arg(0).arg(max_bytes);
    }
    let values: Vec<RedisResult<Vec<u8>>> = pipeline.ignore_errors().query_async(connection).await?;
    let value = |value: RedisResult<Vec<u8>>| match value {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        // Something that is no string stands there: a value that is not ours.
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(Some(Vec::new())),
        Err(error) => Err(error),
    };
    values.into_iter().map(value).collect()
}

/// What a value is called in the server.
fn name(key: &CacheKey) -> String {
    use std::fmt::Write;
    let mut name = String::with_capacity(PREFIX.len() + 2 * key.len());
    name.push_str(PREFIX);
    for byte in key {
        write!(name, "{byte:02x}").expect("a string takes everything");
    }
    name
}
