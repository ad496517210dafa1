//! One person's state out of their examples: derived once however many wait, finished though nobody waits any more.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{Shared, WeakShared},
};
use polyreward_backbone::{Backbone, BackboneError, EmbedInput, Embedded, InputError};
use polyreward_domain::{ExampleId, Overflow, StateVersion, TenantId, TextForm, TextForms, UserId};
use polyreward_heads::{HeadError, UserState};
use polyreward_storage::{Evidence, ExampleEmbedding, ModelKey, Storage, StoredExample, SubjectHash};
use tokio::sync::{Semaphore, oneshot};

use super::{
    Erasures, PeopleOptions, Person, Resolved, STORE_TIME, StatesError, Unusable,
    evidence::{Features, Vote, lacks, restored, stored, version_of},
    matrix::{Matrices, MatrixKey},
    shelf::Shelf,
};
use crate::{metrics, registry::Model};

/// Derivations that run at once.
pub(super) const TURNS: usize = 4;
/// Texts of one person that stand in the backbone's queue at once: few, so that requests find room beside them.
const TEXTS_AT_ONCE: usize = 64;
/// How long a derivation waits for room in the backbone's queue.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is remembered of somebody whose examples cannot be used.
const UNUSABLE_BYTES: u64 = 384;

/// Names a state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct StateKey {
    pub model: ModelKey,
    pub tenant: Arc<TenantId>,
    pub user_id: Arc<UserId>,
    pub version: StateVersion,
}

impl StateKey {
    pub fn of(matrix: &MatrixKey, person: &Person) -> Self {
        let (MatrixKey { model, tenant }, user_id) = (matrix.clone(), Arc::clone(&person.user_id));
        Self { model, tenant, user_id, version: person.version }
    }

    fn matrix(&self) -> MatrixKey {
        MatrixKey { model: self.model, tenant: Arc::clone(&self.tenant) }
    }
}

/// What is known: somebody with their state, or that there can be none.
pub(super) type Kept = Result<Resolved, Unusable>;
/// What those who wait are told.
type Outcome = Result<Kept, StatesError>;
type Waiting = Shared<oneshot::Receiver<Outcome>>;
/// Embeddings of examples that had none.
type Embeddings = Vec<(ExampleId, Vec<ExampleEmbedding>)>;

/// A derivation that waits for its turn, or runs.
#[derive(Debug)]
struct Running {
    number: u64,
    waiting: WeakShared<oneshot::Receiver<Outcome>>,
    /// Set once it runs, so that it can be waited for though everybody who asked for it has left.
    begun: Option<Waiting>,
}

#[derive(Debug)]
pub(super) struct Derivation {
    storage: Arc<dyn Storage>,
    backbone: Backbone,
    pub(super) states: Matrices,
    /// Those who can have none, in a sixteenth of the room.
    pub(super) unusable: Shelf<StateKey, Unusable>,
    running: Mutex<HashMap<StateKey, Running>>,
    numbers: AtomicU64,
    turns: Semaphore,
    erasures: AtomicU64,
}

impl Derivation {
    pub fn new(storage: Arc<dyn Storage>, backbone: Backbone, options: PeopleOptions) -> Self {
        Self {
            storage,
            backbone,
            states: Matrices::new(options.state_bytes - options.state_bytes / 16),
            unusable: Shelf::new(options.state_bytes / 16),
            running: Mutex::default(),
            numbers: AtomicU64::new(0),
            turns: Semaphore::new(TURNS),
            erasures: AtomicU64::new(0),
        }
    }

    pub fn erasures(&self) -> Erasures {
        Erasures(self.erasures.load(Ordering::SeqCst))
    }

    /// Removes everything of a person from memory; what was read of them before is not put there any more.
    pub fn forget(&self, tenant: &TenantId, user_id: &UserId) {
        self.erasures.fetch_add(1, Ordering::SeqCst);
        self.states.erase(tenant, user_id);
        self.unusable.retain(|key| *key.tenant != *tenant || *key.user_id != *user_id);
    }

    /// The same of a person known by their digest alone.
    pub fn forget_subject(&self, subject: &SubjectHash) {
        self.erasures.fetch_add(1, Ordering::SeqCst);
        self.states.erase_if(|tenant, user_id| super::subject(tenant, user_id) == *subject);
        self.unusable.retain(|key| super::subject(&key.tenant, &key.user_id) != *subject);
    }

    /// The same of everybody, who will be read from the database again.
    pub fn forget_all(&self) {
        self.erasures.fetch_add(1, Ordering::SeqCst);
        self.states.clear();
        self.unusable.retain(|_| false);
    }

    /// Keeps what was derived, unless somebody was erased since its examples were read.
    pub fn keep(&self, key: StateKey, kept: &Kept, since: Erasures) {
        let still = || self.erasures() == since;
        match kept {
            Ok(Resolved { state: Some(state), .. }) => {
                self.states.write_if(still, key.matrix(), &key.user_id, key.version, state.view());
            }
            // Who has no examples is the population to everybody who asks.
            Ok(Resolved { state: None, .. }) => {}
            Err(unusable) => self.unusable.insert_if(still, key, unusable.clone(), UNUSABLE_BYTES),
        }
    }

    /// What is kept under a key.
    pub fn known(&self, key: &StateKey) -> Option<Kept> {
        {
            let kept = self.states.read();
            let matrix = kept.matrix(&key.matrix());
            let found = matrix.and_then(|matrix| Some(matrix.state(matrix.find(&key.user_id, key.version)?)));
            if let Some(state) = found {
                let (user_id, examples) = (Arc::clone(&key.user_id), state.view().examples());
                let person = Person { user_id, version: key.version, examples };
                return Some(Ok(Resolved { person, state: Some(state) }));
            }
        }
        self.unusable.read().get(key).cloned().map(Err)
    }

    /// Waits for a state; begins to derive it unless somebody else has.
    pub async fn wait_for(self: &Arc<Self>, model: &Arc<Model>, key: StateKey) -> Outcome {
        self.join(model, key).await.unwrap_or(Err(StatesError::GivenUp))
    }

    fn join(self: &Arc<Self>, model: &Arc<Model>, key: StateKey) -> Waiting {
        let mut running = self.running();
        if let Some(waiting) = running.get(&key).and_then(|running| running.waiting.upgrade()) {
            return waiting;
        }
        let (done, waiting) = oneshot::channel();
        let waiting = waiting.shared();
        if let Some(kept) = self.known(&key) {
            // It was finished since the caller looked.
            let _heard = done.send(Ok(kept));
            return waiting;
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let weak = waiting.downgrade().expect("a future that was not polled can be waited for");
        running.insert(key.clone(), Running { number, waiting: weak, begun: None });
        tokio::spawn(Arc::clone(self).run(Arc::clone(model), key, number, done));
        waiting
    }

    fn running(&self) -> MutexGuard<'_, HashMap<StateKey, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task of one derivation: no request owns it, so none can break it off.
    async fn run(
        self: Arc<Self>,
        model: Arc<Model>,
        key: StateKey,
        number: u64,
        done: oneshot::Sender<Outcome>,
    ) {
        let left = Leave { derivation: &self, key: &key, number };
        let _turn = self.turns.acquire().await.expect("the turns are never closed");
        if !self.begin(&key, number) {
            return;
        }
        let started = Instant::now();
        let since = self.erasures();
        let stored = self.stored(&model, &key).await;
        let is_stored = matches!(stored, Ok(Some(_)));
        let outcome = match stored {
            Ok(Some(resolved)) => Ok((key.version, Ok(resolved))),
            Ok(None) => self.derive(&model, &key, since).await,
            Err(error) => Err(error),
        };
        let label = match &outcome {
            Ok((_, Ok(_))) if is_stored => "stored",
            Ok((_, Ok(_))) => "derived",
            Ok((_, Err(_))) => "unusable",
            Err(_) => "failed",
        };
        ::metrics::counter!(metrics::STATES_TOTAL, "outcome" => label).increment(1);
        if !is_stored {
            ::metrics::histogram!(metrics::STATE_SECONDS).record(started.elapsed());
        }
        if let Ok((version, kept)) = &outcome {
            self.keep(StateKey { version: *version, ..key.clone() }, kept, since);
        }
        drop(left);
        let _heard = done.send(outcome.map(|(_, kept)| kept));
    }

    /// Whether somebody still waits for a derivation whose turn it is. If nobody does, whoever asks next begins anew.
    fn begin(&self, key: &StateKey, number: u64) -> bool {
        let mut running = self.running();
        let Some(running) = running.get_mut(key).filter(|running| running.number == number) else {
            return false;
        };
        running.begun = running.waiting.upgrade();
        running.begun.is_some()
    }

    /// What is to be kept, under the version of the examples as they were read.
    async fn derive(
        &self,
        model: &Arc<Model>,
        key: &StateKey,
        since: Erasures,
    ) -> Result<(StateVersion, Kept), StatesError> {
        let StateKey { tenant, user_id, .. } = key;
        let forms = model.head.text_forms();
        let mut evidence = self.storage.evidence(tenant, user_id, &self.backbone.info().hash, forms).await?;
        let embedded = self.complete(tenant, user_id, &mut evidence, forms, since).await?;
        let votes: Vec<Vote> = evidence.iter().map(Vote::from).collect();
        let version = version_of(votes.iter().copied());
        let embedded = match embedded {
            Ok(embedded) => embedded,
            Err(error) => return Ok((version, Err(Unusable::Text(error)))),
        };
        let person = Person { user_id: Arc::clone(user_id), version, examples: evidence.len() };
        if !person.is_known() {
            return Ok((version, Ok(Resolved { person, state: None })));
        }
        let adapted = {
            let model = Arc::clone(model);
            tokio::task::spawn_blocking(move || {
                let head = model.head.as_ref();
                let embeddings: Vec<_> = evidence.iter().map(|one| one.embeddings.as_slice()).collect();
                Features::of(head, &embeddings)?.adapt(head, &votes, None)
            })
            .await
        };
        let state = match adapted {
            Ok(Ok(state)) => state,
            Ok(Err(error @ HeadError::NotFinite(_))) => return Ok((version, Err(Unusable::Head(error)))),
            Ok(Err(error)) => return Err(StatesError::Head(error)),
            Err(_) => return Err(StatesError::GivenUp),
        };
        self.store(model, key, version, &state, embedded).await;
        Ok((version, Ok(Resolved { person, state: Some(Arc::new(state).into()) })))
    }

    /// The state that is stored for these very examples.
    async fn stored(&self, model: &Arc<Model>, key: &StateKey) -> Result<Option<Resolved>, StatesError> {
        let stored = self.storage.state(&key.tenant, &key.user_id, &key.model).await?;
        let Some(stored) = stored.filter(|stored| stored.version == key.version) else { return Ok(None) };
        match restored(model.head.as_ref(), stored) {
            Ok(state) => {
                let (user_id, examples) = (Arc::clone(&key.user_id), state.examples());
                let person = Person { user_id, version: key.version, examples };
                Ok(Some(Resolved { person, state: Some(Arc::new(state).into()) }))
            }
            Err(error) => {
                tracing::warn!(model = %model.reference, error = %error, "a stored state is derived again");
                Ok(None)
            }
        }
    }

    /// Embeds the texts of the examples that have no embedding under this backbone yet, and leaves out those that were
    /// erased since they were read. `since` is from before that.
    async fn complete(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        evidence: &mut Vec<Evidence>,
        forms: TextForms,
        since: Erasures,
    ) -> Result<Result<Embeddings, InputError>, StatesError> {
        let dim = self.backbone.info().dim;
        let lacking: Vec<ExampleId> = evidence
            .iter()
            .filter(|one| lacks(&one.embeddings, forms, dim))
            .map(|one| one.example_id.clone())
            .collect();
        if lacking.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        let examples = self.storage.examples_by_id(tenant, user_id, &lacking).await?;
        let inputs: Vec<EmbedInput> = examples.iter().flat_map(|example| inputs_of(example, forms)).collect();
        let embedded = self.embed(&inputs).await.map_err(|error| StatesError::Backbone(Arc::new(error)))?;
        if self.erasures() != since {
            // Whoever was erased may be whose texts these are: their cached embeddings were forgotten before these came.
            self.backbone.forget(&inputs);
        }
        let rows: Result<Vec<Embedded>, InputError> = embedded.into_iter().collect();
        let mut rows = match rows {
            Ok(rows) => rows.into_iter(),
            Err(error) => return Ok(Err(error)),
        };
        let embeddings: Embeddings = examples
            .into_iter()
            .map(|example| (example.example_id, embeddings_of(&mut rows, forms)))
            .collect();
        for (example_id, embeddings) in &embeddings {
            if let Some(one) = evidence.iter_mut().find(|one| one.example_id == *example_id) {
                one.embeddings.clone_from(embeddings);
            }
        }
        evidence.retain(|one| !lacks(&one.embeddings, forms, dim));
        Ok(Ok(embeddings))
    }

    /// Embeds and stores what a person's examples lack.
    pub async fn complete_and_store(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        forms: TextForms,
    ) -> Result<Result<(), InputError>, StatesError> {
        let (backbone, since) = (&self.backbone.info().hash, self.erasures());
        let mut evidence = self.storage.evidence(tenant, user_id, backbone, forms).await?;
        let embedded = match self.complete(tenant, user_id, &mut evidence, forms, since).await? {
            Ok(embedded) => embedded,
            Err(error) => return Ok(Err(error)),
        };
        let mut transaction = self.storage.begin(tenant).await?;
        if transaction.hold_user(user_id).await?.is_some() {
            transaction.add_embeddings(user_id, backbone, &embedded).await?;
            transaction.commit().await?;
        }
        Ok(Ok(()))
    }

    /// Stores what was derived, for the next process. It can be derived again, so that a database that takes no writes now
    /// costs nobody their reward.
    async fn store(
        &self,
        model: &Model,
        key: &StateKey,
        version: StateVersion,
        state: &UserState,
        embedded: Embeddings,
    ) {
        let write = async {
            let mut transaction = self.storage.begin(&key.tenant).await?;
            let held = transaction.hold_user(&key.user_id).await?;
            if held.is_none_or(|user| user.version != version) {
                return Ok(());
            }
            transaction.add_embeddings(&key.user_id, &self.backbone.info().hash, &embedded).await?;
            let state = stored(state, version);
            transaction.put_state(&key.user_id, &key.model, &model.reference, &state).await?;
            transaction.commit().await
        };
        let written = tokio::time::timeout(STORE_TIME, write).await;
        let failed = match &written {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error as &dyn std::error::Error,
            Err(elapsed) => elapsed,
        };
        ::metrics::counter!(metrics::STATES_NOT_STORED_TOTAL).increment(1);
        tracing::warn!(model = %model.reference, error = %failed, "a derived state could not be stored");
    }

    /// Embeds a few texts at a time, and waits while the backbone has no room.
    async fn embed(&self, inputs: &[EmbedInput]) -> Result<Vec<Result<Embedded, InputError>>, BackboneError> {
        let (started, mut at_once) = (Instant::now(), TEXTS_AT_ONCE);
        let mut embedded = Vec::with_capacity(inputs.len());
        while embedded.len() < inputs.len() {
            let rest = &inputs[embedded.len()..];
            let part = rest[..rest.len().min(at_once)].to_vec();
            match self.backbone.embed(part, Overflow::Truncate, None).await {
                Ok(part) => embedded.extend(part),
                Err(BackboneError::TooManyTexts { max, .. }) if (1..at_once).contains(&max) => at_once = max,
                Err(BackboneError::Overloaded { retry_after }) if started.elapsed() < PATIENCE => {
                    tokio::time::sleep(retry_after.min(Duration::from_millis(100))).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(embedded)
    }
}

/// Takes a derivation off the list of those that run, however it ends.
struct Leave<'a> {
    derivation: &'a Derivation,
    key: &'a StateKey,
    number: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut running = self.derivation.running();
        if running.get(self.key).is_some_and(|running| running.number == self.number) {
            running.remove(self.key);
        }
    }
}

/// What the backbone reads of an example, in the order in which [`embeddings_of`] takes it back.
pub(crate) fn inputs_of(example: &StoredExample, forms: TextForms) -> Vec<EmbedInput> {
    let comparison = &example.comparison;
    let prompt = Arc::new(comparison.prompt.clone());
    let mut inputs = Vec::new();
    for form in forms.iter() {
        let mut input = |response: &str| {
            inputs.push(EmbedInput { form, prompt: Arc::clone(&prompt), response: response.into() });
        };
        input(&comparison.chosen);
        if form != TextForm::Prompt {
            input(&comparison.rejected);
        }
    }
    inputs
}

/// The embeddings of the next example out of the answers to its [`inputs_of`].
pub(crate) fn embeddings_of(
    embedded: &mut impl Iterator<Item = Embedded>,
    forms: TextForms,
) -> Vec<ExampleEmbedding> {
    let mut row = || embedded.next().expect("every input has its answer").embedding.to_vec();
    let of_form = |form| {
        let chosen = row();
        let rejected = if form == TextForm::Prompt { Vec::new() } else { row() };
        ExampleEmbedding { form, chosen, rejected }
    };
    forms.iter().map(of_form).collect()
}
