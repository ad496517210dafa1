//! `polyreward import`: files of comparisons to a server or into a database, in the order in which they stand.

mod batch;
mod checkpoint;
mod database;
mod importer;
mod ledger;
mod rejects;
mod report;
mod target;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::bail;
use polyreward_datasets::{Format, Options};
use polyreward_domain::{PersonId, TenantId};
use tokio::sync::watch;

use self::{
    checkpoint::{Checkpoint, digest, identity_of},
    database::Direct,
    importer::{Ended, Importer, Outset},
    rejects::RejectsFile,
    target::{Patience, Target},
};
use crate::{
    config::{self, Overrides, PathOverride},
    remote::{Key, Remote},
};

/// What the options do not say.
const AFTER_HELP: &str = "\
Importing the same files again stores nothing twice. Stopped in the middle, by Ctrl-C or otherwise, the same command goes
on where it stopped: it keeps how far it came beside the rejects file.

A row that cannot be imported is named by number and kept in the rejects file with its reason; that file holds people's
texts, and only you may read it.

Exit code: 0 at the end of the files, even if rows were rejected, but for --strict; 1 if nothing could be imported, or if
the import was stopped or failed; 2 for bad usage.";

/// Store files of comparisons as examples
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Files, plain or gzipped JSON lines, Parquet, for community-alignment also CSV; for prism the folder of its files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Whose format they have: jsonl, hh, prism, community-alignment
    #[arg(long, default_value = "jsonl")]
    format: Format,
    /// The server, as http://HOST:PORT
    #[arg(long, value_name = "URL", conflicts_with_all = ["database_url", "models", "backbone", "tenant"])]
    url: Option<String>,
    /// Its API key, of scope write; better given as POLYREWARD_KEY, which other users of the machine do not see
    #[arg(long, requires = "url")]
    key: Option<Key>,
    /// The database instead of a server, as sqlite:PATH or postgres://...; by default the configured one
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Whose data it becomes in the database; a server knows by the key
    #[arg(long, default_value = "default")]
    tenant: TenantId,
    /// Configuration file; by default ./polyreward.toml, where it exists
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of model folders, which predict and learn as a server's would
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Backbone folder
    #[arg(long, value_name = "DIR")]
    backbone: Option<PathBuf>,
    /// Where rows are kept that cannot be imported; by default the first FILE with .rejects.jsonl
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Exit with 1 if any row was rejected
    #[arg(long)]
    strict: bool,
    /// Whose the comparisons of hh are, which does not tell people apart
    #[arg(long, value_name = "ID", default_value = "hh")]
    hh_user: PersonId,
    /// Posts under way at once, of different people
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    at_once: u16,
    /// Seconds to try again while the server or the database cannot be used
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    retry_seconds: u64,
}

/// Imports files.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let rejects = RejectsFile::new(arguments.rejects_path(), &arguments.files)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let (target, identity) = arguments.target().await?;
        let target = Arc::new(target);
        let ended = arguments.import(&target, &identity, rejects).await;
        if let Target::Database(direct) = &*target {
            direct.close().await;
        }
        ended
    })?;
    match ended {
        Ended::Stopped { rows } => {
            bail!("stopped after {rows} rows; the same command goes on from there")
        }
        Ended::Done(counts) if counts.rejected > 0 && arguments.strict => {
            bail!("{} rejected, which --strict does not allow", counts.rejected)
        }
        Ended::Done(counts) if counts.rejected > 0 && counts.stored + counts.duplicates == 0 => {
            bail!("nothing was imported")
        }
        Ended::Done(_) => Ok(()),
    }
}

impl Arguments {
    async fn import(
        &self,
        target: &Arc<Target>,
        identity: &str,
        rejects: RejectsFile,
    ) -> anyhow::Result<Ended> {
        let (stop, stopped) = watch::channel(false);
        let patience = Patience { limit: Duration::from_secs(self.retry_seconds), stop: stopped };
        let files = identity_of(&self.files)?;
        let outset = Outset {
            input: digest(&[self.format.as_str(), self.hh_user.as_str(), &files]),
            target: digest(&[identity]),
            checkpoint: Checkpoint::beside(rejects.path()),
            rejects,
            at_once: usize::from(self.at_once),
        };
        // Before the first row is read: an address or a key may be wrong.
        let limits = target.limits(&patience).await?;
        let options = Options { hh_user_id: self.hh_user.clone() };
        let reader = polyreward_datasets::open(&self.files, self.format, options)?;
        Importer::new(reader, limits, outset)?.run(Arc::clone(target), patience, stop).await
    }

    /// Where to, and what tells it from others.
    async fn target(&self) -> anyhow::Result<(Target, String)> {
        if let Some(url) = &self.url {
            let remote = Remote::new(url, self.key.as_ref())?;
            let identity = remote.identity();
            return Ok((Target::Server(remote), identity));
        }
        let overrides = Overrides {
            backbone: PathOverride { path: self.backbone.clone() },
            models: PathOverride { path: self.models.clone() },
            ..Overrides::default()
        }
        .with_database(self.database_url.clone());
        let config = config::load(self.config.as_deref(), &overrides)?;
        let identity = format!("{} {}", config.database.url.expose(), self.tenant);
        Ok((Target::Database(Box::new(Direct::open(&config, self.tenant.clone()).await?)), identity))
    }

    fn rejects_path(&self) -> PathBuf {
        self.rejects.clone().unwrap_or_else(|| {
            // Not `folder/.rejects.jsonl` of `folder/`.
            let first = self.files[0].components().as_path().as_os_str().to_owned();
            let mut path = if first.is_empty() { Path::new(".").as_os_str().to_owned() } else { first };
            path.push(".rejects.jsonl");
            path.into()
        })
    }
}
