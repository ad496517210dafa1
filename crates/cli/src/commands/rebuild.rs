//! `polyreward rebuild`: derives every state of every person from the stored examples, ahead of the first requests.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use polyreward_service::{ModelRegistry, People};

use crate::{
    commands::open_backbone,
    config::{self, Overrides, PathOverride},
    database::Open,
    progress::Progress,
};

/// Derive what every model believes of every person, as after training a new model
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Configuration file; by default ./polyreward.toml, where it exists
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The database, as sqlite:PATH or postgres://...
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Folder of model folders
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Backbone folder
    #[arg(long, value_name = "DIR")]
    backbone: Option<PathBuf>,
}

/// Derives what is not there yet. Stopped in the middle, it goes on where it stopped.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let overrides = Overrides {
        backbone: PathOverride { path: arguments.backbone.clone() },
        models: PathOverride { path: arguments.models.clone() },
        ..Overrides::default()
    }
    .with_database(arguments.database_url.clone());
    let config = config::load(arguments.config.as_deref(), &overrides)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let open = Open::of(&config).await?;
        let backbone = open_backbone(&config)?;
        let registry = ModelRegistry::open(&config.models.path, backbone.info().clone())
            .with_context(|| format!("the models folder {}", config.models.path.display()))?;
        let people = People::new(Arc::clone(&open.storage()), backbone.clone(), config.users.options());
        let mut progress = Progress::start("states", 0);
        let rebuilt =
            people.rebuild(&registry.registered(), &mut |done| progress.set(done, done, "people")).await?;
        progress.finish(&format!(
            "{} states; {} people with examples that a model cannot use; {} states of models that are gone removed",
            rebuilt.states, rebuilt.unusable, rebuilt.pruned
        ));
        backbone.shutdown();
        open.close().await;
        Ok(())
    })
}
