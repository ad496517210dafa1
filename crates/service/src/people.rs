//! The people a server knows, and what its models believe of each.
//!
//! The examples are the truth; a state is derived from them when a model is first asked about the person, and kept.
//! One person's examples concern nobody else: what cannot be used fails their own requests alone.

mod derivation;
mod directory;
mod file;
mod shelf;

use std::{sync::Arc, time::Instant};

use futures::{StreamExt, TryStreamExt, stream};
use polyreward_backbone::{Backbone, BackboneError, InputError};
use polyreward_domain::{Attributes, UserId};
use polyreward_heads::{HeadError, UserState};

use self::derivation::{Derivation, Derived, StateKey};
pub use self::{
    directory::{Answering, Directory, DirectoryError, Examples, Person, StateVersion},
    file::{PeopleError, PeopleFile},
};
use crate::registry::{Model, Registered};

/// States that one request waits for at once.
const AT_ONCE: usize = 8;
/// States that are derived ahead of requests at once; some turns are left to the requests.
const AHEAD_AT_ONCE: usize = derivation::TURNS - 1;

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
    Directory(Arc<DirectoryError>),
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

impl From<DirectoryError> for StatesError {
    fn from(error: DirectoryError) -> Self {
        Self::Directory(Arc::new(error))
    }
}

/// Somebody, as one model sees them.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Who, and the examples behind the state.
    pub person: Person,
    /// The person's own state; none is the population's.
    pub state: Option<Arc<UserState>>,
}

/// How much is kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeopleOptions {
    /// Bytes of states.
    pub state_bytes: u64,
    /// Bytes of embeddings of people's examples, from which a new model's states are derived without the backbone.
    pub embedding_bytes: u64,
}

impl Default for PeopleOptions {
    fn default() -> Self {
        Self { state_bytes: 256 << 20, embedding_bytes: 256 << 20 }
    }
}

/// Everybody in a directory, with their states.
#[derive(Debug)]
pub struct People {
    directory: Arc<dyn Directory>,
    derivation: Arc<Derivation>,
}

impl People {
    /// The people of a directory, their examples read by the backbone.
    pub fn new(directory: Arc<dyn Directory>, backbone: Backbone, options: PeopleOptions) -> Self {
        let derivation = Arc::new(Derivation::new(Arc::clone(&directory), backbone, options));
        Self { directory, derivation }
    }

    /// These people, in their order.
    ///
    /// # Errors
    /// The directory cannot be asked.
    pub async fn find(&self, user_ids: &[UserId]) -> Result<Vec<Person>, StatesError> {
        Ok(self.directory.find(user_ids).await?)
    }

    /// The first `limit` of the people who have all of these attributes, in the order of their ids.
    ///
    /// # Errors
    /// The directory cannot be asked.
    pub async fn members(&self, group: &Attributes, limit: usize) -> Result<Vec<Person>, StatesError> {
        Ok(self.directory.members(group, limit).await?)
    }

    /// What a model believes of some people, in their order: what is known at once, the rest derived a few people at a
    /// time. A derivation outlives the request that began it, so that trying again goes on where this one stopped.
    ///
    /// # Errors
    /// The deadline passed, the directory or the backbone cannot be asked. Examples that cannot be used are the error
    /// of their person alone.
    pub async fn resolve(
        &self,
        model: &Arc<Model>,
        people: Vec<Person>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Result<Resolved, Unusable>>, StatesError> {
        let (mut resolved, missing) = self.look_up(model, people);
        if !missing.is_empty() {
            let derive = async {
                let mut results = stream::iter(missing)
                    .map(|(at, key)| async move {
                        self.derivation.wait_for(model, key).await.map(|derived| (at, derived))
                    })
                    .buffer_unordered(AT_ONCE);
                while let Some((at, derived)) = results.try_next().await? {
                    resolved[at] = Some(derived.map(Derived::into_resolved));
                }
                Ok::<(), StatesError>(())
            };
            match deadline {
                None => derive.await?,
                Some(deadline) => tokio::time::timeout_at(deadline.into(), derive)
                    .await
                    .map_err(|_elapsed| StatesError::DeadlineExceeded)??,
            }
        }
        Ok(resolved.into_iter().map(|one| one.expect("everybody was known or waited for")).collect())
    }

    /// Those whose state is known, and by position those whose state is not.
    #[expect(clippy::type_complexity, reason = "one caller, just above")]
    fn look_up(
        &self,
        model: &Model,
        people: Vec<Person>,
    ) -> (Vec<Option<Result<Resolved, Unusable>>>, Vec<(usize, StateKey)>) {
        let (mut resolved, mut missing) = (Vec::with_capacity(people.len()), Vec::new());
        let model = model.head.is_personal().then(|| derivation::model_key(model));
        let states = self.derivation.states.read();
        for (at, person) in people.into_iter().enumerate() {
            let Some(model) = model.filter(|_| person.is_known()) else {
                resolved.push(Some(Ok(Resolved { person, state: None })));
                continue;
            };
            // The id goes into the key and out again: ten thousand counts of references are left alone.
            let Person { user_id, version, examples } = person;
            let key = StateKey { model, user_id, version };
            let known =
                states.get(&key).map(|kept| kept.as_ref().map(Derived::state).map_err(Unusable::clone));
            if known.is_none() {
                missing.push((at, key.clone()));
            }
            let person = Person { user_id: key.user_id, version, examples };
            resolved.push(known.map(|state| state.map(|state| Resolved { person, state })));
        }
        (resolved, missing)
    }

    /// Derives states ahead of the first requests, as many as are kept. What fails here fails again, and is counted, when
    /// somebody asks. Returns how many states there are.
    ///
    /// # Errors
    /// The directory or the backbone cannot be asked.
    pub async fn warm(&self, registered: &Registered) -> Result<usize, StatesError> {
        let everybody = self.directory.members(&Attributes::new(), usize::MAX).await?;
        let mut derived = 0;
        for model in registered.models().filter(|model| model.head.is_personal()) {
            let model_key = derivation::model_key(model);
            let mut keys = Vec::with_capacity(everybody.len());
            for Person { user_id, version, .. } in everybody.iter().filter(|person| person.is_known()) {
                keys.push(StateKey { model: model_key, user_id: Arc::clone(user_id), version: *version });
            }
            let mut results = stream::iter(keys)
                .map(|key| async move {
                    match self.derivation.known(&key) {
                        Some(known) => Ok(known),
                        None => self.derivation.wait_for(model, key).await,
                    }
                })
                .buffer_unordered(AHEAD_AT_ONCE);
            while let Some(result) = results.try_next().await? {
                derived += usize::from(result.is_ok());
                if self.derivation.states.is_full() {
                    return Ok(derived);
                }
            }
        }
        Ok(derived)
    }
}
