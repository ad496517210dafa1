//! One file per subcommand.

pub mod backbone;
pub mod demo;
pub mod embed;
pub mod eval;
pub mod export;
pub mod import;
pub mod keys;
pub mod migrate;
pub mod openapi;
pub mod rebuild;
pub mod serve;
pub mod train;

use std::sync::Arc;

use anyhow::Context;
use polyreward_backbone::{Backbone, SharedCache};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;

/// Opens the configured backbone; says how to get the default one.
fn open_backbone(config: &Config) -> anyhow::Result<Backbone> {
    open_backbone_with(config, None)
}

/// The same, with a cache that several servers share.
fn open_backbone_with(
    config: &Config,
    shared_cache: Option<Arc<dyn SharedCache>>,
) -> anyhow::Result<Backbone> {
    let path = &config.backbone.path;
    if !path.is_dir() {
        anyhow::bail!(
            "there is no backbone folder {}; `make setup` builds the default one, --backbone names another",
            path.display()
        );
    }
    Backbone::open_with(path, &config.backbone.options(), shared_cache)
        .with_context(|| format!("the backbone {}", path.display()))
}

/// Done on the first SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
    })
}
