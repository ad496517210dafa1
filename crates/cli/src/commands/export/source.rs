//! Where people and their comparisons come from: a server over HTTP, or a database.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail};
use polyreward_backbone::Backbone;
use polyreward_domain::{Attributes, TenantId, UserId};
use polyreward_service::{Model, ModelRegistry, People, Resolved, StoredExample, UserRecord};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

use super::Exported;
use crate::{
    commands::open_backbone,
    config::Config,
    database::Open,
    remote::{Refused, Remote},
    retry::{Retry, Trouble},
};

/// People asked for at once.
const PEOPLE: usize = 256;
/// Examples asked for at once.
const EXAMPLES: usize = 256;

/// Somebody who is stored.
#[derive(Debug, Deserialize)]
pub struct Stored {
    /// Who.
    pub user_id: UserId,
    /// What is known of them.
    pub attributes: Attributes,
}

/// What one model believes of one person, as a line.
#[derive(Debug, Serialize)]
pub struct State<'a> {
    user_id: &'a UserId,
    /// `name@version`.
    model: String,
    /// As text, as over HTTP.
    #[serde(rename = "state_version")]
    version: String,
    examples: usize,
    mean: Vec<f32>,
    covariance: Vec<Vec<f32>>,
}

/// Where a list goes on.
pub enum Cursor {
    /// A server's `next_cursor`.
    Server(String),
    /// The last person of a page.
    Person(UserId),
    /// The position of the last example of a page.
    Position(u64),
}

/// A page of a list, and where it goes on.
pub type Page<T> = (Vec<T>, Option<Cursor>);

/// Where people come from.
pub enum Source {
    /// A server.
    Server {
        /// Which.
        remote: Remote,
        /// How long a failure is tried again.
        patience: Duration,
        /// Whether the work is told to stop.
        stop: watch::Receiver<bool>,
    },
    /// A database.
    Database {
        /// Which.
        open: Open,
        /// Whose data of it.
        tenant: TenantId,
        /// What models believe, where that is asked for.
        believers: Option<Box<Believers>>,
    },
}

/// Models and what derives their states.
pub struct Believers {
    models: Vec<Arc<Model>>,
    people: People,
    backbone: Backbone,
}

#[derive(Deserialize)]
struct ServerPage<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

impl From<UserRecord> for Stored {
    fn from(user: UserRecord) -> Self {
        Self { user_id: user.user_id, attributes: user.attributes }
    }
}

impl TryFrom<StoredExample> for Exported {
    type Error = anyhow::Error;

    fn try_from(example: StoredExample) -> anyhow::Result<Self> {
        let StoredExample { example_id, comparison, created_at, .. } = example;
        Ok(Self {
            id: example_id.into(),
            prompt: comparison.prompt,
            chosen: comparison.chosen,
            rejected: comparison.rejected,
            strength: comparison.strength.get(),
            label_confidence: comparison.label_confidence.get(),
            rationale: comparison.rationale,
            created_at: created_at.format(&Rfc3339)?,
        })
    }
}

impl Source {
    /// A server.
    pub fn server(remote: Remote, patience: Duration, stop: watch::Receiver<bool>) -> Self {
        Self::Server { remote, patience, stop }
    }

    /// The configured database; with models where their states are asked for.
    pub async fn database(config: &Config, tenant: TenantId, with_states: bool) -> anyhow::Result<Self> {
        let open = Open::of(config).await?;
        let believers = with_states.then(|| Believers::open(config, &open)).transpose()?.map(Box::new);
        Ok(Self::Database { open, tenant, believers })
    }

    /// A page of everybody, in the order of their ids.
    pub async fn people(&self, after: Option<Cursor>) -> anyhow::Result<Page<Stored>> {
        let (open, tenant) = match self {
            Self::Server { .. } => {
                let page = self.page("/users", PEOPLE, after).await?;
                return Ok(page.unwrap_or_default());
            }
            Self::Database { open, tenant, .. } => (open, tenant),
        };
        let after = match &after {
            Some(Cursor::Person(user_id)) => Some(user_id),
            _ => None,
        };
        let people = open.storage().users(tenant, after, PEOPLE).await?;
        let last = people.last().filter(|_| people.len() == PEOPLE);
        let next = last.map(|user| Cursor::Person(user.user_id.clone()));
        Ok((people.into_iter().map(Stored::from).collect(), next))
    }

    /// One person.
    pub async fn person(&self, user_id: &UserId) -> anyhow::Result<Option<Stored>> {
        match self {
            Self::Server { .. } => {
                check_is_name(user_id)?;
                self.ask(&format!("/users/{user_id}")).await
            }
            Self::Database { open, tenant, .. } => {
                Ok(open.storage().user(tenant, user_id).await?.map(Stored::from))
            }
        }
    }

    /// A page of somebody's examples, in the order in which they came; none of somebody who was erased meanwhile.
    pub async fn examples(&self, user_id: &UserId, after: Option<Cursor>) -> anyhow::Result<Page<Exported>> {
        let (open, tenant) = match self {
            Self::Server { .. } => {
                check_is_name(user_id)?;
                let page = self.page(&format!("/users/{user_id}/examples"), EXAMPLES, after).await?;
                return Ok(page.unwrap_or_default());
            }
            Self::Database { open, tenant, .. } => (open, tenant),
        };
        let after = match after {
            Some(Cursor::Position(position)) => Some(position),
            _ => None,
        };
        let examples = open.storage().examples(tenant, user_id, after, EXAMPLES).await?;
        let last = examples.last().filter(|_| examples.len() == EXAMPLES);
        let next = last.map(|example| Cursor::Position(example.position));
        Ok((examples.into_iter().map(Exported::try_from).collect::<Result<_, _>>()?, next))
    }

    /// Writes what each model believes of these people, by person and model; how many states, and how many there cannot
    /// be.
    pub async fn states(
        &self,
        people: &[Stored],
        mut write: impl FnMut(&State<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<(usize, usize)> {
        let Self::Database { tenant, believers: Some(believers), .. } = self else {
            bail!("states are exported out of a database only");
        };
        let user_ids: Vec<UserId> = people.iter().map(|person| person.user_id.clone()).collect();
        let found = believers.people.find(tenant, &user_ids).await?;
        let mut by_model = Vec::new();
        for model in &believers.models {
            by_model.push(believers.people.resolve(tenant, model, found.clone(), None).await?.into_iter());
        }
        let (mut written, mut unusable) = (0, 0);
        for user_id in &user_ids {
            for (model, states) in believers.models.iter().zip(&mut by_model) {
                match states.next().context("a model judges everybody")? {
                    Ok(Resolved { person, state: Some(state) }) => {
                        let state = state.view();
                        let covariance = state.covariance();
                        write(&State {
                            user_id,
                            model: model.reference.to_string(),
                            version: person.version.get().to_string(),
                            examples: person.examples,
                            mean: state.mean().to_vec(),
                            covariance: covariance.rows().into_iter().map(|row| row.to_vec()).collect(),
                        })?;
                        written += 1;
                    }
                    Ok(Resolved { state: None, .. }) => {}
                    Err(_) => unusable += 1,
                }
            }
        }
        Ok((written, unusable))
    }

    /// Ends what is under way.
    pub async fn close(&self) {
        if let Self::Database { open, believers, .. } = self {
            if let Some(believers) = believers {
                believers.backbone.shutdown();
            }
            open.close().await;
        }
    }

    async fn page<T: DeserializeOwned>(
        &self,
        path: &str,
        limit: usize,
        after: Option<Cursor>,
    ) -> anyhow::Result<Option<Page<T>>> {
        let cursor = match after {
            // Base64 of URLs: nothing in it is to be escaped.
            Some(Cursor::Server(cursor)) => format!("&cursor={cursor}"),
            _ => String::new(),
        };
        let page: Option<ServerPage<T>> = self.ask(&format!("{path}?limit={limit}{cursor}")).await?;
        Ok(page.map(|page| (page.items, page.next_cursor.map(Cursor::Server))))
    }

    /// What a server answers; none where there is nobody.
    async fn ask<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Option<T>> {
        let Self::Server { remote, patience, stop } = self else {
            bail!("a database is not asked over HTTP")
        };
        let mut retry = Retry::new(*patience, stop.clone());
        loop {
            match remote.get(path).await {
                // The error could quote a text.
                Ok(reply) => {
                    return serde_json::from_value(reply)
                        .map_err(|_| anyhow!("the server's answer is not one of a polyreward server"));
                }
                Err(Trouble::Later { why, after }) => retry.wait(&why, after).await?,
                Err(Trouble::Refused(Refused { status, problem }))
                    if status.as_u16() == 404 && problem["type"] == "/problems/unknown-user" =>
                {
                    return Ok(None);
                }
                Err(Trouble::Refused(refused)) => bail!("the server says: {}", refused.reason()),
                Err(Trouble::Fatal(error)) => return Err(error),
            }
        }
    }
}

/// A path of HTTP cannot hold every id.
fn check_is_name(user_id: &UserId) -> anyhow::Result<()> {
    if matches!(user_id.as_str(), "." | "..") {
        bail!("a person named . or .. cannot be asked for over HTTP; export out of the database");
    }
    Ok(())
}

impl Believers {
    fn open(config: &Config, open: &Open) -> anyhow::Result<Self> {
        let backbone = open_backbone(config)?;
        let registry = ModelRegistry::open(&config.models.path, backbone.info().clone())
            .with_context(|| format!("the models folder {}", config.models.path.display()))?;
        let personal = |model: &&Arc<Model>| model.head.is_personal();
        let models = registry.registered().current().filter(personal).cloned().collect();
        let people = People::new(open.storage(), backbone.clone(), config.users.options());
        Ok(Self { models, people, backbone })
    }
}
