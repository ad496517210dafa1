//! `polyreward keys`: who may ask a server.

use std::{io::Write, path::PathBuf};

use anyhow::{Context, ensure};
use polyreward_domain::{Scopes, TenantId};
use polyreward_service::{Access, AccessOptions, Clock, KeyId, SystemClock};
use time::format_description::well_known::Rfc3339;

use crate::{
    config::{self, Overrides, UsageError},
    database::Open,
    table,
};

/// Bytes of what a key is for.
const MAX_NAME_BYTES: usize = 128;

/// Manage API keys
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a key and print it: the only time that it is seen
    Create(Create),
    /// List every key, without the keys themselves
    List(Where),
    /// Revoke a key; servers stop taking it within seconds
    Revoke(Revoke),
}

/// Which database.
#[derive(Debug, clap::Args)]
pub struct Where {
    /// Configuration file; by default ./polyreward.toml, where it exists
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The database, as sqlite:PATH or postgres://...
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
}

/// Make a key.
#[derive(Debug, clap::Args)]
pub struct Create {
    #[command(flatten)]
    place: Where,
    /// What the key is for, in words
    #[arg(long)]
    name: String,
    /// What it allows, with commas between: score, write, read, admin, read:text
    #[arg(long)]
    scopes: Scopes,
    /// Whose data it opens
    #[arg(long, default_value = "default")]
    tenant: TenantId,
}

/// Revoke a key.
#[derive(Debug, clap::Args)]
pub struct Revoke {
    #[command(flatten)]
    place: Where,
    /// The key's id, as `list` prints it
    key_id: uuid::Uuid,
}

/// Manages keys.
pub fn run(command: &Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let place = match command {
            Command::Create(Create { place, .. })
            | Command::List(place)
            | Command::Revoke(Revoke { place, .. }) => place,
        };
        let overrides = Overrides::default().with_database(place.database_url.clone());
        let config = config::load(place.config.as_deref(), &overrides)?;
        let open = Open::of(&config).await?;
        let outcome = match command {
            Command::Create(create) => create.run(&open).await,
            Command::List(_) => list(&open).await,
            Command::Revoke(revoke) => revoke.run(&open).await,
        };
        open.close().await;
        outcome
    })
}

impl Create {
    async fn run(&self, open: &Open) -> anyhow::Result<()> {
        if self.scopes.is_empty() {
            return Err(UsageError(
                "--scopes: names at least one of score, write, read, admin, read:text".into(),
            )
            .into());
        }
        if !(1..=MAX_NAME_BYTES).contains(&self.name.len()) || self.name.chars().any(char::is_control) {
            let detail = format!("--name: has 1 to {MAX_NAME_BYTES} bytes without control characters");
            return Err(UsageError(detail).into());
        }
        let access = Access::new(open.storage(), AccessOptions::default());
        let made = access.create(self.tenant.clone(), self.name.clone(), self.scopes, &SystemClock).await?;
        let mut out = std::io::stdout();
        writeln!(out, "{}", made.secret)?;
        out.flush()?;
        eprintln!(
            "key {} for tenant {}, scopes {}; it is not stored and will not be shown again",
            made.record.key_id, made.record.tenant, made.record.scopes
        );
        Ok(())
    }
}

async fn list(open: &Open) -> anyhow::Result<()> {
    let header = ["id", "tenant", "scopes", "name", "created", "revoked"].map(str::to_owned);
    let mut rows = Vec::new();
    for key in open.storage().list_keys().await? {
        let revoked = key.revoked_at.map(|at| at.format(&Rfc3339)).transpose()?;
        rows.push(vec![
            key.key_id.to_string(),
            key.tenant.to_string(),
            key.scopes.to_string(),
            key.name,
            key.created_at.format(&Rfc3339)?,
            revoked.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    println!("{}", table::render(&header, &rows));
    Ok(())
}

impl Revoke {
    async fn run(&self, open: &Open) -> anyhow::Result<()> {
        let revoked = open.storage().revoke_key(KeyId(self.key_id), SystemClock.now()).await;
        ensure!(revoked.context("revoking the key")?, "there is no key {}", self.key_id);
        println!("revoked {}", self.key_id);
        Ok(())
    }
}
