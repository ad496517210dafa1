//! The people a server knows, and what its models believe of each.
//!
//! The examples are the truth; a state is derived from them when they change, or when a model is first asked about the
//! person, and kept: in memory under the version of the examples, and in the database for the next process. One person's
//! examples concern nobody else: what cannot be used fails their own requests alone.

mod audience;
mod derivation;
pub(crate) mod evidence;
mod matrix;
mod shelf;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use moka::sync::Cache;
use polyreward_backbone::{Backbone, BackboneError, InputError};
use polyreward_domain::{Attributes, StateVersion, TenantId, TextForms, UserId};
use polyreward_heads::{HeadError, UserState};
use polyreward_storage::{Crowd, ModelKey, PersonSummary, Storage, StorageError, SubjectHash};
use sha2::{Digest, Sha256};

pub use self::matrix::PersonState;
pub(crate) use self::{
    audience::{Audience, Members},
    derivation::{embeddings_of, inputs_of},
    matrix::Rows,
};
use self::{
    derivation::{Derivation, Kept, StateKey},
    matrix::MatrixKey,
};
use crate::registry::{Model, Registered};

/// States that one request waits for at once.
const AT_ONCE: usize = 8;
/// States that are derived ahead of requests at once; some turns are left to the requests.
const AHEAD_AT_ONCE: usize = derivation::TURNS - 1;
/// People who are read at once where everybody is.
const PAGE: usize = 1000;

/// Why one person's examples have no state. Never quotes them.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Unusable {
    /// The backbone cannot read a text.
    #[error("a text of an example cannot be used: it {0}")]
    Text(InputError),
    /// The head refuses them.
    #[error("the head refuses an example: {0}")]
    Head(HeadError),
}

/// Why states are not there now. All of it may pass.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StatesError {
    /// Nobody's examples can be read.
    #[error(transparent)]
    Storage(Arc<StorageError>),
    /// The backbone is overloaded, or broken.
    #[error(transparent)]
    Backbone(Arc<BackboneError>),
    /// The head failed on features that are none of the person's fault.
    #[error("the head failed")]
    Head(#[source] HeadError),
    /// The deadline passed before every state was derived; those begun are finished and kept.
    #[error("the deadline passed before the users' states were derived")]
    DeadlineExceeded,
    /// A derivation ended without a result.
    #[error("a state's derivation was given up")]
    GivenUp,
}

impl From<StorageError> for StatesError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

/// Somebody, as far as it takes to know whether a state is still theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Who.
    pub user_id: Arc<UserId>,
    /// The version of their examples.
    pub version: StateVersion,
    /// How many examples there are.
    pub examples: usize,
}

impl Person {
    /// Somebody of whom nothing is known.
    pub fn unknown(user_id: UserId) -> Self {
        Self { user_id: Arc::new(user_id), version: StateVersion::POPULATION, examples: 0 }
    }

    /// Whether there are any examples.
    pub fn is_known(&self) -> bool {
        self.examples > 0
    }
}

impl From<PersonSummary> for Person {
    fn from(summary: PersonSummary) -> Self {
        let PersonSummary { user_id, version, examples } = summary;
        Self {
            user_id: Arc::new(user_id),
            version,
            examples: usize::try_from(examples).unwrap_or(usize::MAX),
        }
    }
}

/// Somebody, as one model sees them.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Who, and the examples behind the state.
    pub person: Person,
    /// The person's own state; none is the population's.
    pub state: Option<PersonState>,
}

/// How much is kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeopleOptions {
    /// Bytes of states.
    pub state_bytes: u64,
}

impl Default for PeopleOptions {
    fn default() -> Self {
        Self { state_bytes: 256 << 20 }
    }
}

/// How many states a rebuild found, and what it did about them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// States that are there now.
    pub states: usize,
    /// People whose examples a model cannot use.
    pub unusable: usize,
    /// States removed, of models that are not there any more.
    pub pruned: u64,
}

/// Everybody in a database, with their states.
#[derive(Debug)]
pub struct People {
    storage: Arc<dyn Storage>,
    derivation: Arc<Derivation>,
    /// Large groups, as they were read last.
    crowds: Cache<(TenantId, Attributes), Arc<Members>>,
}

impl People {
    /// The people of a database, their examples read by the backbone.
    pub fn new(storage: Arc<dyn Storage>, backbone: Backbone, options: PeopleOptions) -> Self {
        let derivation = Arc::new(Derivation::new(Arc::clone(&storage), backbone, options));
        let weigh = |_: &(TenantId, Attributes), members: &Arc<Members>| {
            u32::try_from(ENTRY_BYTES + members.people().len() * PERSON_BYTES).unwrap_or(u32::MAX)
        };
        let crowds = Cache::builder().max_capacity(options.state_bytes / 4).weigher(weigh).build();
        Self { storage, derivation, crowds }
    }

    /// Where they are kept.
    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Whether the database answers within the time that a probe has.
    pub async fn is_reachable(&self) -> bool {
        match tokio::time::timeout(PROBE_TIME, self.storage.ping()).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "the database does not answer");
                false
            }
            Err(_elapsed) => false,
        }
    }

    /// These people, in their order.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn find(&self, tenant: &TenantId, user_ids: &[UserId]) -> Result<Vec<Person>, StatesError> {
        if user_ids.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.storage.find(tenant, user_ids).await?;
        let person = |(found, user_id): (Option<PersonSummary>, &UserId)| {
            found.map_or_else(|| Person::unknown(user_id.clone()), Person::from)
        };
        Ok(found.into_iter().zip(user_ids).map(person).collect())
    }

    /// The first `limit` of the people who have all of these attributes, in the order of their ids. A large group is read
    /// again only when its [`Crowd`] is another, and that is asked for only when something was written.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub(crate) async fn members(
        &self,
        tenant: &TenantId,
        group: &Attributes,
        limit: usize,
    ) -> Result<Arc<Members>, StatesError> {
        let key = (tenant.clone(), group.clone());
        if let Some(known) = self.crowds.get(&key).filter(|known| known.people().len() <= limit) {
            let watermark = self.storage.watermark(tenant).await?;
            if known.is_at(&watermark) {
                return Ok(known);
            }
            if self.storage.crowd(tenant, group).await? == *known.crowd() {
                known.come_to(watermark);
                return Ok(known);
            }
        }
        let since = self.erasures();
        let members = self.storage.members(tenant, group, limit).await?;
        let crowd = Crowd::of(&members);
        let members = Arc::new(Members::new(crowd, members.into_iter().map(Person::from).collect()));
        let len = members.people().len();
        // All of them, and nobody was erased meanwhile.
        if len < limit && len >= WORTH_KEEPING && self.erasures() == since {
            self.crowds.insert(key, Arc::clone(&members));
        }
        Ok(members)
    }

    /// What a model believes of some people, in their order: what is known at once, the rest derived a few people at a
    /// time. A derivation outlives the request that began it, so that trying again goes on where this one stopped.
    ///
    /// # Errors
    /// The deadline passed, the database or the backbone cannot be asked. Examples that cannot be used are the error
    /// of their person alone.
    pub async fn resolve(
        &self,
        tenant: &TenantId,
        model: &Arc<Model>,
        people: Vec<Person>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Result<Resolved, Unusable>>, StatesError> {
        let (mut resolved, missing) = self.look_up(tenant, model, people);
        for (at, derived) in self.derive(model, missing, deadline).await? {
            resolved[at] = Some(derived);
        }
        Ok(resolved.into_iter().map(|one| one.expect("everybody was known or waited for")).collect())
    }

    /// The states that are not known, each with the number that stands beside its key.
    async fn derive(
        &self,
        model: &Arc<Model>,
        missing: Vec<(usize, StateKey)>,
        deadline: Option<Instant>,
    ) -> Result<Vec<(usize, Kept)>, StatesError> {
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let derive = stream::iter(missing)
            .map(|(at, key)| async move {
                self.derivation.wait_for(model, key).await.map(|derived| (at, derived))
            })
            .buffer_unordered(AT_ONCE)
            .try_collect();
        match deadline {
            None => derive.await,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), derive)
                .await
                .map_err(|_elapsed| StatesError::DeadlineExceeded)?,
        }
    }

    /// Those whose state is known, and by position those whose state is not.
    fn look_up(
        &self,
        tenant: &TenantId,
        model: &Model,
        people: Vec<Person>,
    ) -> (Vec<Option<Kept>>, Vec<(usize, StateKey)>) {
        let (mut resolved, mut missing) = (Vec::with_capacity(people.len()), Vec::new());
        if !model.head.is_personal() {
            let population = |person| Some(Ok(Resolved { person, state: None }));
            return (people.into_iter().map(population).collect(), missing);
        }
        let matrix = MatrixKey { model: evidence::model_key(model), tenant: Arc::new(tenant.clone()) };
        let (states, unusable) = (self.derivation.states.read(), self.derivation.unusable.read());
        let states = states.matrix(&matrix);
        for (at, person) in people.into_iter().enumerate() {
            if !person.is_known() {
                resolved.push(Some(Ok(Resolved { person, state: None })));
                continue;
            }
            let place =
                states.and_then(|states| Some((states, states.find(&person.user_id, person.version)?)));
            if let Some((states, place)) = place {
                resolved.push(Some(Ok(Resolved { person, state: Some(states.state(place)) })));
                continue;
            }
            let key = StateKey::of(&matrix, &person);
            let known = unusable.get(&key).map(|why| Err(why.clone()));
            if known.is_none() {
                missing.push((at, key));
            }
            resolved.push(known);
        }
        (resolved, missing)
    }

    /// Takes over a state that was derived elsewhere, as after examples were stored. `since` is from before its examples
    /// were read: nothing is kept of who was erased in between.
    pub(crate) fn keep(
        &self,
        tenant: &Arc<TenantId>,
        model: ModelKey,
        person: Person,
        state: Arc<UserState>,
        since: Erasures,
    ) {
        let key = StateKey::of(&MatrixKey { model, tenant: Arc::clone(tenant) }, &person);
        self.derivation.keep(key, &Ok(Resolved { person, state: Some(state.into()) }), since);
    }

    /// Embeds and stores what a person's examples lack in some forms, outside of any transaction of the caller's.
    ///
    /// # Errors
    /// The database or the backbone cannot be asked; a text that cannot be read is the inner error.
    pub(crate) async fn complete(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        forms: TextForms,
    ) -> Result<Result<(), InputError>, StatesError> {
        self.derivation.complete_and_store(tenant, user_id, forms).await
    }

    /// How many people were erased so far.
    pub(crate) fn erasures(&self) -> Erasures {
        self.derivation.erasures()
    }

    /// Removes everything of a person from memory.
    pub(crate) fn forget(&self, tenant: &TenantId, user_id: &UserId) {
        self.derivation.forget(tenant, user_id);
        self.crowds.invalidate_all();
    }

    /// Lets go of what is in memory of people whom other processes erase; ends where there can be none.
    pub async fn follow_erasures(&self) {
        loop {
            match self.follow().await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(error = %error, "erasures by other processes are not heard of for a moment");
                    tokio::time::sleep(LISTEN_AGAIN).await;
                }
            }
        }
    }

    async fn follow(&self) -> Result<(), StorageError> {
        let Some(mut erasures) = self.storage.erasures().await? else { return Ok(()) };
        // Whoever was erased before anybody listened.
        self.derivation.forget_all();
        self.crowds.invalidate_all();
        loop {
            match erasures.next().await? {
                Some(subject) => self.derivation.forget_subject(&subject),
                None => self.derivation.forget_all(),
            }
            self.crowds.invalidate_all();
        }
    }

    /// Whether anything in memory is of a person.
    #[doc(hidden)]
    pub fn remembers(&self, tenant: &TenantId, user_id: &UserId) -> bool {
        let is_theirs = |key: &StateKey| *key.tenant == *tenant && *key.user_id == *user_id;
        self.derivation.states.read().remembers(tenant, user_id)
            || self.derivation.unusable.read().keys().any(is_theirs)
    }

    /// Removes the states of models that are not registered, and derives every state of every person that is not there yet,
    /// some people at a time; `progress` hears how many people are done. What fails for one person fails again, and is
    /// counted, when somebody asks.
    ///
    /// # Errors
    /// The database or the backbone cannot be asked.
    pub async fn rebuild(
        &self,
        registered: &Registered,
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Rebuilt, StatesError> {
        let models: Vec<&Arc<Model>> =
            registered.current().filter(|model| model.head.is_personal()).collect();
        let (mut rebuilt, mut done) = (Rebuilt::default(), 0);
        let keys: Vec<ModelKey> = registered.models().map(|model| evidence::model_key(model)).collect();
        for tenant in self.storage.tenants().await? {
            // A folder without models is more likely a mistake than a wish to forget.
            if !keys.is_empty() {
                rebuilt.pruned += self.storage.prune_states(&tenant, &keys).await?;
            }
            let mut after = None;
            loop {
                let page = self.storage.users(&tenant, after.as_ref(), PAGE).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.user_id.clone());
                let people: Vec<Person> = page
                    .into_iter()
                    .map(|user| PersonSummary {
                        user_id: user.user_id,
                        version: user.version,
                        examples: user.examples,
                    })
                    .map(Person::from)
                    .collect();
                for model in &models {
                    let one = self.rebuild_some(&tenant, model, people.clone()).await?;
                    rebuilt.states += one.states;
                    rebuilt.unusable += one.unusable;
                }
                done += people.len();
                progress(done);
            }
        }
        Ok(rebuilt)
    }

    async fn rebuild_some(
        &self,
        tenant: &TenantId,
        model: &Arc<Model>,
        people: Vec<Person>,
    ) -> Result<Rebuilt, StatesError> {
        let (known, missing) = self.look_up(tenant, model, people);
        let mut rebuilt = Rebuilt::default();
        for one in known.into_iter().flatten() {
            rebuilt.unusable += usize::from(one.is_err());
            rebuilt.states += usize::from(one.is_ok_and(|resolved| resolved.state.is_some()));
        }
        let mut results = stream::iter(missing)
            .map(|(_, key)| self.derivation.wait_for(model, key))
            .buffer_unordered(AHEAD_AT_ONCE);
        while let Some(result) = results.try_next().await? {
            rebuilt.unusable += usize::from(result.is_err());
            rebuilt.states += usize::from(result.is_ok_and(|resolved| resolved.state.is_some()));
        }
        Ok(rebuilt)
    }
}

/// How many people were erased: what was read before an erasure may not be kept after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Erasures(u64);

/// How long a probe waits for the database.
const PROBE_TIME: Duration = Duration::from_secs(2);
/// Members from which on a group is remembered: fewer are read as quickly.
const WORTH_KEEPING: usize = 256;
/// Bytes of a person in a group that is remembered, and of the group itself.
const PERSON_BYTES: usize = 144;
const ENTRY_BYTES: usize = 1024;
/// How long nobody listens after the database was lost.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// How long a transaction of a derivation may take; what it stores can be derived again.
const STORE_TIME: Duration = Duration::from_secs(10);

/// Names a person to those who know the id, and tells it to nobody else.
pub(crate) fn subject(tenant: &TenantId, user_id: &UserId) -> SubjectHash {
    let mut digest = Sha256::new();
    for part in [tenant.as_str(), user_id.as_str()] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}
