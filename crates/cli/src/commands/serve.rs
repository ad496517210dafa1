//! `polyreward serve`: the HTTP server.

use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use anyhow::Context;
use polyreward_http::{AppState, Drained, Limits, PrometheusHandle, ServeOptions, install_metrics};
use polyreward_service::{ModelRegistry, People, PeopleFile};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use crate::{
    commands::{open_backbone, stop_signal},
    config::{self, Config, Overrides, PathOverride, ServerOverrides, UsageError},
    dataset,
};

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
    /// JSONL file of people's comparisons, from which their rewards are learned
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
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
        users: PathOverride { path: arguments.users },
    };
    let config = config::load(arguments.config.as_deref(), &overrides)?;
    if arguments.print_config {
        print!("{}", toml::to_string_pretty(&config)?);
        return Ok(());
    }
    let address = listen_address(&config)?;
    start_logging()?;
    let metrics = install_metrics()?;
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
    let file = read_people(config.users.path.as_deref())?;
    let backbone = open_backbone(config)?;
    let known = file.len();
    let people = Arc::new(People::new(Arc::new(file), backbone.clone(), config.users.options()));
    let registry = Arc::new(
        ModelRegistry::open(&config.models.path, backbone.info().clone())
            .with_context(|| format!("the models folder {}", config.models.path.display()))?,
    );
    if registry.registered().models().next().is_none() {
        tracing::warn!("no model is loaded; /ready says so until POST /models/reload finds one");
    }
    if known > 0 {
        // The server answers meanwhile: whoever is asked for before their turn is learned at once.
        tokio::spawn(learn_ahead(Arc::clone(&people), Arc::clone(&registry), known));
    }
    let limits = Limits {
        max_batch: config.server.max_batch,
        max_users: config.server.max_users,
        max_rewards: config.server.max_rewards,
        max_body_bytes: config.server.max_body_bytes,
        max_in_flight: config.server.max_in_flight,
        ..Limits::default()
    };
    let grace = Duration::from_secs(config.server.grace_seconds);
    let drain = Duration::from_secs(config.server.drain_seconds);
    let options = ServeOptions { grace, drain: drain.saturating_sub(grace), ..ServeOptions::default() };
    let state = AppState::new(registry, backbone.clone(), people, limits, metrics);
    announce(&listener)?;
    let stopped_at = OnceLock::new();
    let stop = async {
        stop.await;
        stopped_at.get_or_init(Instant::now);
    };
    let drained = polyreward_http::serve(listener, state, options, stop).await;
    backbone.shutdown();
    if let Drained::CutOff { connections } = drained {
        // Their time was up; that is an ordinary end of a server.
        tracing::warn!(connections, "{connections} connections were cut off at the end of the drain");
    }
    Ok(drain.saturating_sub(stopped_at.get().map_or(drain, Instant::elapsed)))
}

/// Everybody in the file, or nobody.
fn read_people(path: Option<&Path>) -> anyhow::Result<PeopleFile> {
    let Some(path) = path else { return Ok(PeopleFile::default()) };
    let records = dataset::read(std::slice::from_ref(&path.to_owned()))?.records;
    PeopleFile::of(records).with_context(|| format!("users.path: {}", path.display()))
}

/// Derives the people's states before they are asked for, as many as are kept.
async fn learn_ahead(people: Arc<People>, registry: Arc<ModelRegistry>, known: usize) {
    match people.warm(&registry.registered()).await {
        Ok(states) => tracing::info!(people = known, states, "learned from the people's examples"),
        Err(error) => {
            tracing::warn!(error = %error, "not everybody's examples were learned ahead of requests");
        }
    }
}

/// The address to listen on; refused where everybody on a network could ask and no key is configured.
fn listen_address(config: &Config) -> anyhow::Result<SocketAddr> {
    let text = &config.server.bind;
    let address: SocketAddr = text
        .parse()
        .map_err(|_| UsageError(format!("server.bind: {text:?} is not an address like 127.0.0.1:8080")))?;
    if !address.ip().is_loopback() && !config.server.insecure_no_auth {
        let detail = format!(
            "server.bind: {address} is not loopback and no keys are configured, so anybody could ask; \
             --insecure-no-auth allows it"
        );
        return Err(UsageError(detail).into());
    }
    Ok(address)
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
