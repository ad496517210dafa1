//! `POST /users/{id}/examples` and the erasure of one, without HTTP.
//!
//! Texts are embedded before a transaction is open. One transaction then holds the person's row: every current model first
//! predicts each example with the state before it, then learns from it. What is acknowledged is there once, whole.

mod lesson;

use std::{collections::HashSet, error::Error, sync::Arc, time::Instant};

use polyreward_backbone::{Backbone, BackboneError, EmbedInput, InputError};
use polyreward_domain::{
    AttributeError, Attributes, Comparison, ExampleId, ModelRef, Overflow, StateVersion, TenantId, TextForms,
    UserId, check_attributes,
};
use polyreward_heads::HeadError;
use polyreward_storage::{
    AuditAction, AuditEntry, IdempotencyRecord, KeyId, NewExample, Prediction, RequestHash, StorageError,
    StoredExample, Transaction, UserRecord,
};
use uuid::Uuid;

pub(crate) use self::lesson::left_of_prior;
use self::lesson::{Learning, Lesson};
use crate::{
    clock::Clock,
    metrics,
    people::{
        Erasures, People, Person, StatesError, Unusable, embeddings_of,
        evidence::{Vote, content_id, lacks, model_key, names_of, version_of},
        inputs_of, subject,
    },
    registry::{Model, ModelRegistry},
};

/// How often a transaction is tried again that another writer was in the way of.
const ATTEMPTS: usize = 4;

/// An example as it was posted.
#[derive(Debug, Clone, PartialEq)]
pub struct PostedExample {
    /// Its name, where the poster chose one; else it is named by what was compared.
    pub id: Option<ExampleId>,
    /// What was compared.
    pub comparison: Comparison,
}

/// What names a request that may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestName {
    /// The client's name for it.
    pub key: String,
    /// Digest of everything that was asked.
    pub request: RequestHash,
}

/// Who writes, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// Whose data.
    pub tenant: TenantId,
    /// With which key.
    pub key_id: Option<KeyId>,
}

/// Examples to store and to learn from.
#[derive(Debug, Clone)]
pub struct LearnQuery {
    /// Whose they are; made where there is nobody.
    pub user_id: UserId,
    /// Attributes to set beside those that are there.
    pub attributes: Attributes,
    /// The examples, in the order in which they are learned.
    pub examples: Vec<PostedExample>,
    /// What names the request.
    pub name: Option<RequestName>,
    /// When the answer is no longer wanted.
    pub deadline: Option<Instant>,
}

/// What one model believes of a person after their examples.
#[derive(Debug, Clone, PartialEq)]
pub struct StateSummary {
    /// The model.
    pub model: ModelRef,
    /// Examples behind the state.
    pub examples: usize,
    /// Which part of the prior's standard deviation is left, over all directions: 1 knows nothing of the person.
    pub uncertainty: f64,
}

/// What became of posted examples.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// Whose they are.
    pub user_id: UserId,
    /// Names of the examples that are stored now and were not before, in their order.
    pub accepted: Vec<ExampleId>,
    /// Examples that were there already, or twice in the request.
    pub duplicates: usize,
    /// How many the person has now.
    pub examples: usize,
    /// The version of them.
    pub version: StateVersion,
    /// What each current model said of each accepted example before it learned from it.
    pub predictions: Vec<Prediction>,
    /// What each current model that learns people believes now.
    pub states: Vec<StateSummary>,
}

/// The answer to a [`LearnQuery`].
#[derive(Debug, Clone, PartialEq)]
pub enum LearnOutcome {
    /// Done now; the answer as it was written.
    Done(Learned, String),
    /// Done before, by a request of the same name; the answer it got.
    Replayed {
        /// Status of the answer.
        status: u16,
        /// Body of the answer.
        body: String,
    },
}

/// Why examples were not stored. None of them is.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// Texts of examples that the backbone cannot read: position, whether it is the chosen side, why.
    #[error("{} of the texts cannot be read", .0.len())]
    Faults(Vec<TextFault>),
    /// The person would have more examples than one may.
    #[error("the person would have {examples} examples, more than the {limit} that are kept of one")]
    TooMany {
        /// How many there would be.
        examples: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The person would have attributes that cannot be kept beside those that are there.
    #[error("the attributes cannot be kept beside those that are there")]
    Attributes(#[source] AttributeError),
    /// A request of this name asked for something else.
    #[error("the idempotency key was used for another request")]
    OtherRequest,
    /// Examples that the person has already cannot be used by the models of today.
    #[error("an example that is stored already cannot be used")]
    Unusable(#[source] Unusable),
    /// The backbone is overloaded, too late, or broken.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    /// The states cannot be derived now.
    #[error(transparent)]
    States(#[from] StatesError),
    /// The database cannot be used now, or failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The head refused what the backbone gave it.
    #[error("the head failed")]
    Head(#[from] HeadError),
    /// The deadline passed; whether the examples are stored is not known, and the same request again does no harm.
    #[error("the deadline passed before it was known that the examples are stored")]
    DeadlineExceeded,
    /// The work ended without a result.
    #[error("learning was given up")]
    GivenUp,
    /// The answer could not be written.
    #[error("the answer could not be written")]
    Answer(#[source] Box<dyn Error + Send + Sync>),
}

impl LearnError {
    fn label(&self) -> &'static str {
        match self {
            Self::Faults(_)
            | Self::TooMany { .. }
            | Self::Attributes(_)
            | Self::OtherRequest
            | Self::Unusable(_) => "refused",
            Self::DeadlineExceeded
            | Self::Backbone(BackboneError::Overloaded { .. } | BackboneError::DeadlineExceeded) => {
                "overloaded"
            }
            _ => "failed",
        }
    }
}

/// A text of an example that the backbone cannot read.
#[derive(Debug, Clone, PartialEq)]
pub struct TextFault {
    /// Position of the example.
    pub at: usize,
    /// Whether it stands on the rejected side.
    pub rejected: bool,
    /// Why.
    pub error: InputError,
}

/// Writes the answer, which is kept for repeated requests in the same transaction.
pub type WriteAnswer = dyn Fn(&Learned) -> Result<String, Box<dyn Error + Send + Sync>> + Send + Sync;

/// What learning may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LearnLimits {
    /// Examples that are kept of one person; more are refused.
    pub max_examples: usize,
}

impl Default for LearnLimits {
    fn default() -> Self {
        Self { max_examples: 1024 }
    }
}

/// Stores examples and learns from them.
#[derive(Debug, Clone)]
pub struct Learner {
    registry: Arc<ModelRegistry>,
    backbone: Backbone,
    people: Arc<People>,
    clock: Arc<dyn Clock>,
    limits: LearnLimits,
}

/// Examples with their embeddings, ready to be stored.
struct Prepared {
    writer: Writer,
    query: LearnQuery,
    models: Vec<Arc<Model>>,
    forms: TextForms,
    /// As they will be stored, but for their position.
    examples: Vec<NewExample>,
    answer: Arc<WriteAnswer>,
}

/// How a try at a transaction ended.
enum Tried {
    Done(LearnOutcome, Vec<Learning>, Person, Erasures),
    /// Examples that are stored lack embeddings, which are not made while a row is held.
    Incomplete,
}

impl Learner {
    /// A learner for these people, with the registry's models on their backbone.
    pub fn new(
        registry: Arc<ModelRegistry>,
        backbone: Backbone,
        people: Arc<People>,
        clock: Arc<dyn Clock>,
        limits: LearnLimits,
    ) -> Self {
        Self { registry, backbone, people, clock, limits }
    }

    /// Stores examples and learns from them: all, or none. `answer` writes the reply that repeated requests get.
    ///
    /// # Errors
    /// See [`LearnError`].
    #[tracing::instrument(name = "service.learn", skip_all, fields(examples = query.examples.len()))]
    pub async fn learn(
        &self,
        writer: Writer,
        query: LearnQuery,
        answer: Arc<WriteAnswer>,
    ) -> Result<LearnOutcome, LearnError> {
        let outcome = self.prepare_and_store(writer, query, answer).await;
        let label = match &outcome {
            Ok(LearnOutcome::Done(learned, _)) => {
                let count = |outcome: &'static str, n: usize| {
                    ::metrics::counter!(metrics::EXAMPLES_TOTAL, "outcome" => outcome).increment(n as u64);
                };
                count("stored", learned.accepted.len());
                count("duplicate", learned.duplicates);
                "stored"
            }
            Ok(LearnOutcome::Replayed { .. }) => "replayed",
            Err(error) => error.label(),
        };
        ::metrics::counter!(metrics::POSTS_TOTAL, "outcome" => label).increment(1);
        outcome
    }

    async fn prepare_and_store(
        &self,
        writer: Writer,
        query: LearnQuery,
        answer: Arc<WriteAnswer>,
    ) -> Result<LearnOutcome, LearnError> {
        if query.examples.len() > self.limits.max_examples {
            let (examples, limit) = (query.examples.len(), self.limits.max_examples);
            return Err(LearnError::TooMany { examples, limit });
        }
        let models: Vec<Arc<Model>> = self.registry.registered().current().cloned().collect();
        let forms =
            models.iter().fold(TextForms::default(), |forms, model| forms.union(model.head.text_forms()));
        let examples = self.embed(&query, forms).await?;
        let deadline = query.deadline;
        let prepared = Prepared { writer, query, models, forms, examples, answer };
        // A caller who leaves must not break off a transaction between its first statement and its last.
        let task = tokio::spawn(self.clone().store(prepared));
        let stored = match deadline {
            None => task.await,
            Some(deadline) => {
                let Ok(stored) = tokio::time::timeout_at(deadline.into(), task).await else {
                    return Err(LearnError::DeadlineExceeded);
                };
                stored
            }
        };
        match stored {
            Ok(outcome) => outcome,
            Err(stopped) => match stopped.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(LearnError::GivenUp),
            },
        }
    }

    /// The examples with the embeddings that any of the models reads.
    async fn embed(&self, query: &LearnQuery, forms: TextForms) -> Result<Vec<NewExample>, LearnError> {
        let now = self.clock.now();
        let examples: Vec<StoredExample> = query
            .examples
            .iter()
            .map(|posted| StoredExample {
                example_id: posted.id.clone().unwrap_or_else(|| content_id(&posted.comparison)),
                position: 0,
                comparison: posted.comparison.clone(),
                created_at: now,
            })
            .collect();
        let mut places = Vec::new();
        let mut inputs: Vec<EmbedInput> = Vec::new();
        for (at, example) in examples.iter().enumerate() {
            for input in inputs_of(example, forms) {
                places.push((at, *input.response == *example.comparison.rejected));
                inputs.push(input);
            }
        }
        let embedded = self.backbone.embed(inputs, Overflow::Truncate, query.deadline).await?;
        let (mut rows, mut faults) = (Vec::with_capacity(embedded.len()), Vec::new());
        for (text, (at, rejected)) in embedded.into_iter().zip(places) {
            match text {
                Ok(text) => rows.push(text),
                Err(error) => faults.push(TextFault { at, rejected, error }),
            }
        }
        if !faults.is_empty() {
            // Once a text, in however many forms it was read.
            faults.sort_by_key(|fault| (fault.at, fault.rejected));
            faults.dedup_by_key(|fault| (fault.at, fault.rejected));
            return Err(LearnError::Faults(faults));
        }
        let mut rows = rows.into_iter();
        Ok(examples
            .into_iter()
            .map(|example| NewExample {
                names: names_of(&example.comparison),
                embeddings: embeddings_of(&mut rows, forms),
                example_id: example.example_id,
                position: 0,
                comparison: example.comparison,
                created_at: now,
            })
            .collect())
    }

    async fn store(self, prepared: Prepared) -> Result<LearnOutcome, LearnError> {
        let tenant = Arc::new(prepared.writer.tenant.clone());
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.try_to_store(&prepared).await {
                Ok(Tried::Done(outcome, learnings, person, since)) => {
                    for Learning { model_key, state, .. } in
                        learnings.into_iter().filter(|learning| learning.is_personal)
                    {
                        self.people.keep(&tenant, model_key, person.clone(), state, since);
                    }
                    return Ok(outcome);
                }
                Ok(Tried::Incomplete) if attempt < ATTEMPTS => {
                    let user_id = &prepared.query.user_id;
                    self.people
                        .complete(&tenant, user_id, prepared.forms)
                        .await?
                        .map_err(|error| LearnError::Unusable(Unusable::Text(error)))?;
                }
                Ok(Tried::Incomplete) => return Err(LearnError::GivenUp),
                Err(LearnError::Storage(StorageError::Contended(_))) if attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_to_store(&self, prepared: &Prepared) -> Result<Tried, LearnError> {
        let Prepared { writer, query, .. } = prepared;
        let since = self.people.erasures();
        let mut transaction = self.people.storage().begin(&writer.tenant).await?;
        let now = self.clock.now();
        let (user, _created) = transaction.hold_or_create_user(&query.user_id, now).await?;
        let held = Instant::now();
        if let Some(name) = &query.name
            && let Some(first) = transaction.idempotency(&name.key).await?
        {
            if first.request != name.request {
                return Err(LearnError::OtherRequest);
            }
            let replayed = LearnOutcome::Replayed { status: first.status, body: first.body };
            let person = Person::unknown(query.user_id.clone());
            return Ok(Tried::Done(replayed, Vec::new(), person, since));
        }
        let fresh = self.fresh(transaction.as_mut(), prepared, &user).await?;
        let Some(lesson) = self.lesson(transaction.as_mut(), prepared, &user, &fresh).await? else {
            return Ok(Tried::Incomplete);
        };
        let version = lesson.version();
        let learnings = lesson.teach(now).await?;

        let examples = user.examples + fresh.len() as u64;
        if !fresh.is_empty() {
            let user_id = &query.user_id;
            transaction.add_examples(user_id, &self.backbone.info().hash, &fresh).await?;
            let predictions: Vec<Prediction> =
                learnings.iter().flat_map(|learning| learning.predictions.iter().cloned()).collect();
            transaction.add_predictions(user_id, &predictions).await?;
            for Learning { model, model_key, state, .. } in
                learnings.iter().filter(|learning| learning.is_personal)
            {
                let state = crate::people::evidence::stored(state, version);
                transaction.put_state(user_id, model_key, model, &state).await?;
            }
        }
        if !query.attributes.is_empty() {
            let mut attributes = user.attributes.clone();
            attributes.extend(query.attributes.clone());
            check_attributes(&attributes).map_err(|(_key, error)| LearnError::Attributes(error))?;
            transaction.put_attributes(&query.user_id, &attributes).await?;
        }
        let next_position = user.next_position + fresh.len() as u64;
        transaction.save_user(&query.user_id, version, examples, next_position, now).await?;
        transaction
            .audit(&audit(writer, AuditAction::ExamplesAdded, &query.user_id, fresh.len(), now))
            .await?;

        let learned = Learned {
            user_id: query.user_id.clone(),
            duplicates: query.examples.len() - fresh.len(),
            accepted: fresh.into_iter().map(|example| example.example_id).collect(),
            examples: usize::try_from(examples).unwrap_or(usize::MAX),
            version,
            predictions: in_order_of_examples(&learnings),
            states: learnings.iter().filter_map(Learning::summary).collect(),
        };
        let body = (prepared.answer)(&learned).map_err(LearnError::Answer)?;
        if let Some(name) = &query.name {
            let RequestName { key, request } = name.clone();
            let record = IdempotencyRecord { key, request, status: 201, body: body.clone(), created_at: now };
            match transaction.keep_idempotency(&query.user_id, &record).await {
                // Another person's request took the name meanwhile.
                Err(StorageError::Exists(_)) => return Err(LearnError::OtherRequest),
                other => other?,
            }
        }
        transaction.commit().await?;
        ::metrics::histogram!(metrics::LEARN_SECONDS).record(held.elapsed());
        let person = Person { user_id: Arc::new(query.user_id.clone()), version, examples: learned.examples };
        let learnings = learnings.into_iter().filter(|learning| learning.is_personal && person.is_known());
        Ok(Tried::Done(LearnOutcome::Done(learned, body), learnings.collect(), person, since))
    }

    /// The examples that are not there yet, each once, with their positions.
    async fn fresh(
        &self,
        transaction: &mut dyn Transaction,
        prepared: &Prepared,
        user: &UserRecord,
    ) -> Result<Vec<NewExample>, LearnError> {
        let ids: Vec<ExampleId> =
            prepared.examples.iter().map(|example| example.example_id.clone()).collect();
        let mut known: HashSet<ExampleId> = if ids.is_empty() {
            HashSet::new()
        } else {
            transaction.known_examples(&prepared.query.user_id, &ids).await?.into_iter().collect()
        };
        let fresh: Vec<NewExample> = prepared
            .examples
            .iter()
            .filter(|example| known.insert(example.example_id.clone()))
            .zip(user.next_position..)
            .map(|(example, position)| NewExample { position, ..example.clone() })
            .collect();
        let examples = usize::try_from(user.examples).unwrap_or(usize::MAX).saturating_add(fresh.len());
        let limit = self.limits.max_examples;
        if !fresh.is_empty() && examples > limit {
            return Err(LearnError::TooMany { examples, limit });
        }
        Ok(fresh)
    }

    /// What the models are to learn; none where stored examples lack an embedding.
    async fn lesson(
        &self,
        transaction: &mut dyn Transaction,
        prepared: &Prepared,
        user: &UserRecord,
        fresh: &[NewExample],
    ) -> Result<Option<Lesson>, LearnError> {
        let (user_id, forms) = (&prepared.query.user_id, prepared.forms);
        let before = if user.examples == 0 {
            Vec::new()
        } else {
            transaction.evidence(user_id, &self.backbone.info().hash, forms).await?
        };
        let dim = self.backbone.info().dim;
        if before.iter().any(|one| lacks(&one.embeddings, forms, dim)) {
            return Ok(None);
        }
        let mut pupils = Vec::with_capacity(prepared.models.len());
        for model in &prepared.models {
            let key = model_key(model);
            let personal = model.head.is_personal() && user.examples > 0;
            let state = if personal { transaction.state(user_id, &key).await? } else { None };
            pupils.push((Arc::clone(model), key, state.filter(|state| state.version == user.version)));
        }
        Ok(Some(Lesson { before, fresh: fresh.to_vec(), pupils }))
    }

    /// Erases one example. The states are derived again from the others when somebody asks.
    ///
    /// # Errors
    /// The database cannot be used; `Ok(false)` where there is no such person or example.
    #[tracing::instrument(name = "service.erase_example", skip_all)]
    pub async fn erase_example(
        &self,
        writer: &Writer,
        user_id: &UserId,
        example_id: &ExampleId,
    ) -> Result<bool, LearnError> {
        let storage = Arc::clone(self.people.storage());
        let texts = storage.examples_by_id(&writer.tenant, user_id, std::slice::from_ref(example_id)).await?;
        let this = self.clone();
        let (writer, user_id, example_id) = (writer.clone(), user_id.clone(), example_id.clone());
        let erase = async move {
            let mut transaction = storage.begin(&writer.tenant).await?;
            let now = this.clock.now();
            let Some(user) = transaction.hold_user(&user_id).await? else { return Ok(false) };
            if !transaction.erase_example(&user_id, &example_id).await? {
                return Ok(false);
            }
            let left =
                transaction.evidence(&user_id, &this.backbone.info().hash, TextForms::default()).await?;
            transaction.remove_states(&user_id).await?;
            transaction.announce_erasure(&subject(&writer.tenant, &user_id)).await?;
            let version = version_of(left.iter().map(Vote::from));
            transaction.save_user(&user_id, version, left.len() as u64, user.next_position, now).await?;
            transaction.audit(&audit(&writer, AuditAction::ExampleErased, &user_id, 1, now)).await?;
            transaction.commit().await?;
            this.people.forget(&writer.tenant, &user_id);
            this.backbone
                .forget(&texts.iter().flat_map(|text| inputs_of(text, all_forms())).collect::<Vec<_>>());
            Ok::<bool, StorageError>(true)
        };
        match tokio::spawn(erase).await {
            Ok(erased) => Ok(erased?),
            Err(_stopped) => Err(LearnError::GivenUp),
        }
    }
}

/// Every form of a text.
pub(crate) fn all_forms() -> TextForms {
    polyreward_domain::TextForm::ALL.into_iter().collect()
}

/// A line of the audit log.
pub(crate) fn audit(
    writer: &Writer,
    action: AuditAction,
    user_id: &UserId,
    rows: usize,
    at: time::OffsetDateTime,
) -> AuditEntry {
    let subject = Some(subject(&writer.tenant, user_id));
    AuditEntry { audit_id: Uuid::now_v7(), at, key_id: writer.key_id, action, subject, rows: rows as u64 }
}

/// What every model said, one example after the other.
fn in_order_of_examples(learnings: &[Learning]) -> Vec<Prediction> {
    let examples = learnings.first().map_or(0, |learning| learning.predictions.len());
    (0..examples)
        .flat_map(|at| learnings.iter().map(move |learning| learning.predictions[at].clone()))
        .collect()
}
