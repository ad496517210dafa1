//! Straight into a database, by the same way of predicting, learning and storing as over HTTP.

use std::{path::Path, sync::Arc};

use anyhow::{Context, anyhow};
use polyreward_backbone::{Backbone, BackboneError};
use polyreward_domain::{Attributes, TenantId, UserId};
use polyreward_service::{
    LearnError, LearnLimits, LearnOutcome, LearnQuery, Learner, ModelRegistry, People, StatesError,
    StorageError, SystemClock, Writer,
};

use super::{
    batch::{Entry, PostLimits},
    target::{Refusal, Stored},
};
use crate::{commands::open_backbone, config::Config, database::Open, retry::Trouble};

/// An open database with what learns into it.
pub struct Direct {
    open: Open,
    backbone: Backbone,
    learner: Learner,
    tenant: TenantId,
    limits: PostLimits,
}

impl Direct {
    /// Opens the configured database, backbone and models; without models, examples are stored without predictions.
    pub async fn open(config: &Config, tenant: TenantId) -> anyhow::Result<Self> {
        let open = Open::of(config).await?;
        let backbone = open_backbone(config)?;
        let registry = Arc::new(open_models(&config.models.path, &backbone)?);
        let people = Arc::new(People::new(open.storage(), backbone.clone(), config.users.options()));
        let max_examples = config.users.max_examples;
        let learner = Learner::new(
            registry,
            backbone.clone(),
            people,
            Arc::new(SystemClock),
            LearnLimits { max_examples },
        );
        let limits = PostLimits {
            examples: (config.server.max_batch / 2).min(max_examples).max(1),
            bytes: config.server.max_body_bytes,
        };
        Ok(Self { open, backbone, learner, tenant, limits })
    }

    /// What is learned in one transaction.
    pub fn limits(&self) -> PostLimits {
        self.limits
    }

    /// Learns from examples: from all, or from none.
    pub async fn learn(
        &self,
        user_id: &UserId,
        attributes: &Attributes,
        entries: &[Entry],
    ) -> Result<Stored, Trouble<Refusal>> {
        let writer = Writer { tenant: self.tenant.clone(), key_id: None };
        let query = LearnQuery {
            user_id: user_id.clone(),
            attributes: attributes.clone(),
            examples: entries.iter().map(|entry| entry.example.clone()).collect(),
            name: None,
            deadline: None,
        };
        // Nobody repeats this request by name, so nobody reads the answer.
        match self.learner.learn(writer, query, Arc::new(|_| Ok(String::new()))).await {
            Ok(LearnOutcome::Done(learned, _)) => {
                Ok(Stored { accepted: learned.accepted.len() as u64, duplicates: learned.duplicates as u64 })
            }
            Ok(LearnOutcome::Replayed { .. }) => {
                Err(Trouble::Fatal(anyhow!("an answer to a request of another name")))
            }
            Err(error) => Err(trouble(error)),
        }
    }

    /// Ends what is under way.
    pub async fn close(&self) {
        self.backbone.shutdown();
        self.open.close().await;
    }
}

/// The models of a folder; of one that is not there, none.
fn open_models(folder: &Path, backbone: &Backbone) -> anyhow::Result<ModelRegistry> {
    let nothing = tempfile::tempdir()?;
    let place = if folder.is_dir() { folder } else { nothing.path() };
    let registry = ModelRegistry::open(place, backbone.info().clone())
        .with_context(|| format!("the models folder {}", folder.display()))?;
    let registered = registry.registered();
    for failed in registered.failed() {
        eprintln!("import: the model {} is not used: {}", failed.folder, failed.detail);
    }
    if registered.models().next().is_none() {
        eprintln!(
            "import: there is no model in {}; examples are stored without predictions and states",
            folder.display()
        );
    }
    Ok(registry)
}

fn trouble(error: LearnError) -> Trouble<Refusal> {
    match error {
        LearnError::Faults(faults) => Trouble::Refused(Refusal::Examples(
            faults
                .into_iter()
                .map(|fault| {
                    let side = if fault.rejected { "rejected" } else { "chosen" };
                    (fault.at, format!("{side} {}", fault.error))
                })
                .collect(),
        )),
        LearnError::TooMany { .. } => Trouble::Refused(Refusal::Full(error.to_string())),
        LearnError::Unusable(why) => Trouble::Refused(Refusal::Whole(format!(
            "an example that is stored already cannot be used: {why}"
        ))),
        LearnError::Backbone(BackboneError::Overloaded { retry_after }) => {
            Trouble::Later { why: "the backbone has too much to do".to_owned(), after: Some(retry_after) }
        }
        error if may_pass(&error) => Trouble::Later { why: with_causes(&error), after: None },
        error => Trouble::Fatal(anyhow::Error::from(error)),
    }
}

fn may_pass(error: &LearnError) -> bool {
    match error {
        LearnError::Storage(error) => error.may_pass(),
        LearnError::States(StatesError::Storage(error)) => StorageError::may_pass(error),
        LearnError::GivenUp => true,
        _ => false,
    }
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
