//! `polyreward serve`: the HTTP server.

use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use anyhow::Context;
use polyreward_backbone::SharedCache;
use polyreward_cache_redis::RedisCache;
use polyreward_http::{AppState, Drained, Limits, Parts, PrometheusHandle, ServeOptions, install_metrics};
use polyreward_service::{Access, AccessOptions, ModelRegistry, People, SystemClock};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use crate::{
    commands::{open_backbone_with, stop_signal},
    config::{self, Config, Overrides, PathOverride, ServerOverrides, UsageError},
    database::{self, Open},
};

/// How long the end of the process may wait for a shared cache that does not answer.
const CLOSE_SHARED_CACHE: Duration = Duration::from_secs(2);

/// Answer HTTP requests for rewards
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Configuration file; by default ./polyreward.toml, where it exists
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on; port 0 picks a free one
    #[arg(long, value_name = "ADDR")]
    bind: Option<String>,
    /// Folder of model folders
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Backbone folder
    #[arg(long, value_name = "DIR")]
    backbone: Option<PathBuf>,
    /// The database of people and keys, as sqlite:PATH or postgres://...
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Listen beyond loopback though anybody may then ask
    #[arg(long)]
    insecure_no_auth: bool,
    /// Print the configuration that results, and end
    #[arg(long)]
    print_config: bool,
}

/// Serves until SIGTERM or SIGINT.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let overrides = Overrides {
        server: ServerOverrides {
            bind: arguments.bind,
            insecure_no_auth: arguments.insecure_no_auth.then_some(true),
        },
        backbone: PathOverride { path: arguments.backbone },
        models: PathOverride { path: arguments.models },
        ..Overrides::default()
    }
    .with_database(arguments.database_url);
    let config = config::load(arguments.config.as_deref(), &overrides)?;
    if arguments.print_config {
        print!("{}", config.to_redacted_toml()?);
        return Ok(());
    }
    let address = listen_address(&config)?;
    start_logging()?;
    let metrics = install_metrics()?;
    polyreward_cache_redis::metrics::describe();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let remaining = runtime.block_on(serve(&config, address, metrics))?;
    // Work on blocking threads cannot be cut off; the process does not wait for it beyond the drain.
    runtime.shutdown_timeout(remaining);
    Ok(())
}

/// Serves until it is told to stop; what then remains of the drain.
async fn serve(config: &Config, address: SocketAddr, metrics: PrometheusHandle) -> anyhow::Result<Duration> {
    // The port before the models: a busy one should not cost a start-up.
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let stop = stop_signal()?;
    let open = Open::of(config).await?;
    let storage = open.storage();
    let access = Access::new(Arc::clone(&storage), AccessOptions::default());
    check_is_guarded(config, address, access.is_open().await?)?;
    let shared_cache = open_shared_cache(config)?.map(Arc::new);
    let second = shared_cache.clone().map(|cache| cache as Arc<dyn SharedCache>);
    let backbone = open_backbone_with(config, second)?;
    let people = Arc::new(People::new(Arc::clone(&storage), backbone.clone(), config.users.options()));
    let following = Arc::clone(&people);
    tokio::spawn(async move { following.follow_erasures().await });
    let registry = Arc::new(
        ModelRegistry::open(&config.models.path, backbone.info().clone())
            .with_context(|| format!("the models folder {}", config.models.path.display()))?,
    );
    if registry.registered().models().next().is_none() {
        tracing::warn!("no model is loaded; /ready says so until POST /models/reload finds one");
    }
    let keep_audit = Duration::from_secs(u64::from(config.database.audit_days) * 24 * 3600);
    tokio::spawn(database::expire(storage, keep_audit));
    let limits = Limits {
        max_batch: config.server.max_batch,
        max_users: config.server.max_users,
        max_rewards: config.server.max_rewards,
        max_examples: config.users.max_examples,
        max_body_bytes: config.server.max_body_bytes,
        max_in_flight: config.server.max_in_flight,
        ..Limits::default()
    };
    let grace = Duration::from_secs(config.server.grace_seconds);
    let drain = Duration::from_secs(config.server.drain_seconds);
    let options = ServeOptions { grace, drain: drain.saturating_sub(grace), ..ServeOptions::default() };
    let clock = Arc::new(SystemClock);
    let state = AppState::new(Parts {
        registry,
        backbone: backbone.clone(),
        people,
        access,
        clock,
        limits,
        measuring: config.accuracy.options(),
        metrics,
    });
    announce(&listener)?;
    let stopped_at = OnceLock::new();
    let stop = async {
        stop.await;
        stopped_at.get_or_init(Instant::now);
    };
    let drained = polyreward_http::serve(listener, state, options, stop).await;
    backbone.shutdown();
    let rest = || drain.saturating_sub(stopped_at.get().map_or(drain, Instant::elapsed));
    if let Some(cache) = shared_cache {
        cache.close(rest().min(CLOSE_SHARED_CACHE)).await;
    }
    // What is under way in the database has the rest of the drain to end.
    if tokio::time::timeout(rest(), open.close()).await.is_err() {
        tracing::warn!("connections to the database were cut off at the end of the drain");
    }
    if let Drained::CutOff { connections } = drained {
        // Their time was up; that is an ordinary end of a server.
        tracing::warn!(connections, "{connections} connections were cut off at the end of the drain");
    }
    Ok(rest())
}

/// The configured shared cache, if there is one; it need not answer.
fn open_shared_cache(config: &Config) -> anyhow::Result<Option<RedisCache>> {
    let Some(options) = config.backbone.shared_cache.options()? else { return Ok(None) };
    let opened = RedisCache::open(options);
    Ok(Some(opened.map_err(|error| UsageError(format!("backbone.shared_cache.url: {error}")))?))
}

/// Refuses to listen where everybody on a network could ask without a key.
fn check_is_guarded(config: &Config, address: SocketAddr, open: bool) -> anyhow::Result<()> {
    if open && !address.ip().is_loopback() && !config.server.insecure_no_auth {
        let detail = format!(
            "server.bind: {address} is not loopback and no keys are configured, so anybody could ask; \
             `polyreward keys create` makes one, --insecure-no-auth does without"
        );
        return Err(UsageError(detail).into());
    }
    Ok(())
}

/// The address to listen on.
fn listen_address(config: &Config) -> Result<SocketAddr, UsageError> {
    let text = &config.server.bind;
    text.parse()
        .map_err(|_| UsageError(format!("server.bind: {text:?} is not an address like 127.0.0.1:8080")))
}

/// For whoever started the server to read: a port of 0 is known only now.
fn announce(listener: &TcpListener) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "polyreward {} listening on http://{}", env!("CARGO_PKG_VERSION"), listener.local_addr()?)?;
    out.flush()?;
    Ok(())
}

fn start_logging() -> anyhow::Result<()> {
    let filter = match std::env::var("POLYREWARD_LOG") {
        Ok(text) => EnvFilter::try_new(&text)
            .map_err(|error| UsageError(format!("POLYREWARD_LOG: {text:?} is not a filter: {error}")))?,
        Err(_) => EnvFilter::new("info"),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}
