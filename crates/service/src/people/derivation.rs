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
use moka::sync::Cache;
use ndarray::{Array2, ArrayView1};
use polyreward_backbone::{Backbone, BackboneError, EmbedInput, Embedded, InputError};
use polyreward_domain::{Comparison, Overflow, TextForm, UserId};
use polyreward_heads::{HeadError, Observation, TextEmbeddings, UserState};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, oneshot};

use super::{
    PeopleOptions, Person, Resolved, StatesError, Unusable,
    directory::{Directory, Examples, StateVersion},
    shelf::Shelf,
};
use crate::{corpus::name_of, metrics, registry::Model};

/// Derivations that run at once.
pub(super) const TURNS: usize = 4;
/// Texts of one person that stand in the backbone's queue at once: few, so that requests find room beside them.
const TEXTS_AT_ONCE: usize = 64;
/// How long a derivation waits for room in the backbone's queue.
const PATIENCE: Duration = Duration::from_secs(30);
/// Key and bookkeeping of a cache entry.
const ENTRY_BYTES: usize = 256;

/// Digest of everything about a model that decides a state.
pub(super) type ModelKey = [u8; 32];

pub(super) fn model_key(model: &Model) -> ModelKey {
    let mut digest = Sha256::new();
    let (reference, hyperparameters) = (model.reference.to_string(), model.card.hyperparameters.to_string());
    for part in [&reference, &model.card.weights_sha256, &hyperparameters] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// Names a state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct StateKey {
    pub model: ModelKey,
    pub user_id: Arc<UserId>,
    pub version: StateVersion,
}

/// Names the embeddings of one person's examples in one form; all of them are of one backbone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct EmbeddingsKey {
    user_id: Arc<UserId>,
    version: StateVersion,
    form: TextForm,
}

/// A state and whose it is.
#[derive(Debug, Clone)]
pub(super) struct Derived {
    person: Person,
    /// None where the person has no examples any more.
    state: Option<Arc<UserState>>,
}

impl Derived {
    pub fn state(&self) -> Option<Arc<UserState>> {
        self.state.clone()
    }

    pub fn into_resolved(self) -> Resolved {
        Resolved { person: self.person, state: self.state }
    }
}

/// What is kept: a state, or that there is none.
pub(super) type Kept = Result<Derived, Unusable>;
/// What those who wait are told.
type Outcome = Result<Kept, StatesError>;
type Waiting = Shared<oneshot::Receiver<Outcome>>;
/// Embeddings of the chosen and of the rejected sides, in the order of the examples.
type Sides = [Arc<[Arc<[f32]>]>; 2];

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
    directory: Arc<dyn Directory>,
    backbone: Backbone,
    pub(super) states: Shelf<StateKey, Kept>,
    embeddings: Cache<EmbeddingsKey, Sides>,
    running: Mutex<HashMap<StateKey, Running>>,
    numbers: AtomicU64,
    turns: Semaphore,
}

impl Derivation {
    pub fn new(directory: Arc<dyn Directory>, backbone: Backbone, options: PeopleOptions) -> Self {
        let clamp = |bytes: usize| u32::try_from(ENTRY_BYTES + bytes).unwrap_or(u32::MAX);
        let of_embeddings = move |_: &EmbeddingsKey, sides: &Sides| {
            clamp(sides.iter().flat_map(|side| side.iter()).map(|row| 4 * row.len() + 32).sum())
        };
        Self {
            directory,
            backbone,
            states: Shelf::new(options.state_bytes),
            embeddings: Cache::builder().max_capacity(options.embedding_bytes).weigher(of_embeddings).build(),
            running: Mutex::default(),
            numbers: AtomicU64::new(0),
            turns: Semaphore::new(TURNS),
        }
    }

    /// What is kept under a key.
    pub fn known(&self, key: &StateKey) -> Option<Kept> {
        self.states.read().get(key).cloned()
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
        let outcome = self.derive(&model, &key).await;
        let label = match &outcome {
            Ok((_, Ok(_))) => "derived",
            Ok((_, Err(_))) => "unusable",
            Err(_) => "failed",
        };
        ::metrics::counter!(metrics::STATES_TOTAL, "outcome" => label).increment(1);
        ::metrics::histogram!(metrics::STATE_SECONDS).record(started.elapsed());
        if let Ok((version, kept)) = &outcome {
            let state = kept.as_ref().ok().and_then(|derived| derived.state.as_ref());
            let bytes = (ENTRY_BYTES + state.map_or(0, |state| state.bytes())) as u64;
            self.states.insert(StateKey { version: *version, ..key.clone() }, kept.clone(), bytes);
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
    async fn derive(&self, model: &Arc<Model>, key: &StateKey) -> Result<(StateVersion, Kept), StatesError> {
        let examples = self.directory.examples(&key.user_id).await?;
        let person = Person {
            user_id: Arc::clone(&key.user_id),
            version: examples.version(),
            examples: examples.comparisons().len(),
        };
        let version = person.version;
        if !person.is_known() {
            return Ok((version, Ok(Derived { person, state: None })));
        }
        let mut forms = Vec::new();
        for form in model.head.text_forms().iter() {
            match self.embeddings(&person, &examples, form).await? {
                Ok(sides) => forms.push((form, sides)),
                Err(error) => return Ok((version, Err(Unusable::Text(error)))),
            }
        }
        let model = Arc::clone(model);
        let adapted = tokio::task::spawn_blocking(move || adapt(&model, &examples, &forms)).await;
        match adapted {
            Ok(Ok(state)) => Ok((version, Ok(Derived { person, state: Some(Arc::new(state)) }))),
            Ok(Err(error @ HeadError::NotFinite(_))) => Ok((version, Err(Unusable::Head(error)))),
            Ok(Err(error)) => Err(StatesError::Head(error)),
            Err(_) => Err(StatesError::GivenUp),
        }
    }

    /// The embeddings of a person's examples in one form, kept for the next model on this backbone.
    async fn embeddings(
        &self,
        person: &Person,
        examples: &Examples,
        form: TextForm,
    ) -> Result<Result<Sides, InputError>, StatesError> {
        let key = EmbeddingsKey { user_id: Arc::clone(&person.user_id), version: person.version, form };
        if let Some(sides) = self.embeddings.get(&key) {
            return Ok(Ok(sides));
        }
        let inputs = |of: fn(&Comparison) -> &str| {
            examples.comparisons().iter().map(move |comparison| EmbedInput {
                form,
                prompt: Arc::new(comparison.prompt.clone()),
                response: of(comparison).into(),
            })
        };
        let mut inputs: Vec<EmbedInput> = inputs(|c| &c.chosen).chain(inputs(|c| &c.rejected)).collect();
        if form == TextForm::Prompt {
            inputs.truncate(examples.comparisons().len());
        }
        let embedded = self.embed(&inputs).await.map_err(|error| StatesError::Backbone(Arc::new(error)))?;
        let rows: Result<Vec<Arc<[f32]>>, InputError> =
            embedded.into_iter().map(|text| text.map(|text| text.embedding)).collect();
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => return Ok(Err(error)),
        };
        let (chosen, rejected) = rows.split_at(examples.comparisons().len());
        let chosen: Arc<[_]> = chosen.into();
        let rejected = if form == TextForm::Prompt { Arc::clone(&chosen) } else { rejected.into() };
        let sides = [chosen, rejected];
        self.embeddings.insert(key, sides.clone());
        Ok(Ok(sides))
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

fn adapt(model: &Model, examples: &Examples, forms: &[(TextForm, Sides)]) -> Result<UserState, HeadError> {
    let head = model.head.as_ref();
    let features = |side: usize| -> Result<Array2<f32>, HeadError> {
        let matrices: Vec<(TextForm, Array2<f32>)> = forms
            .iter()
            .map(|(form, sides)| {
                let mut rows = Array2::zeros((sides[side].len(), head.embedding_dim()));
                for (mut row, embedding) in rows.rows_mut().into_iter().zip(sides[side].iter()) {
                    row.assign(&ArrayView1::from(&**embedding));
                }
                (*form, rows)
            })
            .collect();
        let texts = matrices
            .iter()
            .fold(TextEmbeddings::default(), |texts, (form, rows)| texts.with(*form, rows.view()));
        head.features(&texts)
    };
    let (chosen, rejected) = (features(0)?, features(1)?);
    let observations: Vec<Observation<'_>> = examples
        .comparisons()
        .iter()
        .enumerate()
        .map(|(row, comparison)| Observation {
            chosen: chosen.row(row),
            rejected: rejected.row(row),
            names: [&comparison.chosen, &comparison.rejected]
                .map(|response| name_of(&comparison.prompt, response)),
            strength: comparison.strength.get(),
            label_confidence: comparison.label_confidence.get(),
        })
        .collect();
    head.adapt(&observations, None)
}
