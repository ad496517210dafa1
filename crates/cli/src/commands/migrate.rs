//! `polyreward migrate`: brings a database up to date, as a server does at its start.

use crate::{
    commands::keys::Where,
    config::{self, Overrides},
    database::Open,
};

/// Brings the database up to date.
pub fn run(place: &Where) -> anyhow::Result<()> {
    let overrides = Overrides::default().with_database(place.database_url.clone());
    let config = config::load(place.config.as_deref(), &overrides)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        Open::of(&config).await?.close().await;
        println!("the database is up to date");
        Ok(())
    })
}
