//! A database in between: it can hold reads back, and be gone after any number of calls.

use std::{
    fmt::Debug,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use polyreward_domain::{Attributes, ExampleId, ModelRef, StateVersion, TenantId, TextForms, UserId};
use polyreward_storage::{
    AuditEntry, Crowd, Erasures, Evidence, ExampleEmbedding, GroupCount, IdempotencyRecord, KeyHash, KeyId,
    KeyRecord, Keys, MeasuredModel, Measures, Mistake, ModelKey, ModelTally, Moment, NewExample, PairVotes,
    PersonSummary, PersonSums, Prediction, Predictions, Reads, ShotSums, Span, Step, StepSums, Storage,
    StorageError, StoredExample, StoredState, SubjectHash, Transaction, UserRecord, Watermark,
};
use time::OffsetDateTime;
use tokio::sync::{
    Notify, Semaphore,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

/// Calls that a database still answers.
#[derive(Debug, Clone)]
pub struct Outage(Arc<AtomicI64>);

impl Outage {
    fn none() -> Self {
        Self(Arc::new(AtomicI64::new(i64::MAX)))
    }

    /// So many calls are answered from now on.
    pub fn begin_after(&self, calls: i64) {
        self.0.store(calls, Ordering::SeqCst);
    }

    pub fn end(&self) {
        self.0.store(i64::MAX, Ordering::SeqCst);
    }

    /// Whether a call was refused since it began.
    pub fn was_noticed(&self) -> bool {
        self.0.load(Ordering::SeqCst) < 0
    }

    fn check(&self) -> Result<(), StorageError> {
        let left = self.0.fetch_sub(1, Ordering::SeqCst);
        if left > 0 { Ok(()) } else { Err(StorageError::Unavailable("the test says so".into())) }
    }
}

/// What is held back after it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Examples without their texts.
    Evidence,
    /// The texts of examples.
    Texts,
    /// Pages of examples.
    Pages,
}

/// What becomes of questions that add up predictions.
#[derive(Debug, Default)]
pub struct Sums(AtomicUsize, Notify);

impl Sums {
    /// Each takes longer than it may.
    pub fn slow(&self) {
        self.0.store(1, Ordering::SeqCst);
    }

    /// Each is answered only when it is let through.
    pub fn hold(&self) {
        self.0.store(2, Ordering::SeqCst);
    }

    /// Each is answered, those that were held as well.
    pub fn quick(&self) {
        self.0.store(0, Ordering::SeqCst);
        self.1.notify_waiters();
    }

    async fn check(&self) -> Result<(), StorageError> {
        let let_through = self.1.notified();
        match self.0.load(Ordering::SeqCst) {
            0 => Ok(()),
            1 => Err(StorageError::TooSlow("the test says so".into())),
            _ => {
                let_through.await;
                Ok(())
            }
        }
    }
}

/// A database whose calls can be watched, held back and refused.
#[derive(Debug)]
pub struct Watched<S> {
    inner: S,
    pub outage: Outage,
    pub sums: Sums,
    /// Of whom what is read comes only when it is let through.
    held: Option<(UserId, Held)>,
    pub gate: Semaphore,
    reads: AtomicUsize,
    /// How often the members of a group were read.
    pub crowds_read: AtomicUsize,
    announced: Mutex<Option<UnboundedReceiver<Option<SubjectHash>>>>,
    listened_to: Arc<AtomicBool>,
}

impl<S: Storage> Watched<S> {
    pub fn new(inner: S) -> Self {
        let (gate, reads) = (Semaphore::new(0), AtomicUsize::new(0));
        let (crowds_read, announced) = (AtomicUsize::new(0), Mutex::new(None));
        let listened_to = Arc::default();
        let (outage, sums) = (Outage::none(), Sums::default());
        Self { inner, outage, sums, held: None, gate, reads, crowds_read, announced, listened_to }
    }

    /// Whether somebody waits for announcements.
    pub fn is_listened_to(&self) -> bool {
        self.listened_to.load(Ordering::SeqCst)
    }

    /// Says on behalf of another process who is erased; none where some may have been missed.
    pub fn announce(&self) -> UnboundedSender<Option<SubjectHash>> {
        let (announce, announced) = unbounded_channel();
        *self.announced.lock().expect("no panic while it is held") = Some(announced);
        announce
    }

    pub fn holding(inner: S, user_id: &str, held: Held) -> Self {
        let held = Some((user_id.parse().expect("the id of a user"), held));
        Self { held, ..Self::new(inner) }
    }

    /// How often what is held was read.
    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    async fn hold(&self, user_id: &UserId, what: Held) {
        if self.held.as_ref().is_some_and(|(held, of_them)| held == user_id && *of_them == what) {
            self.reads.fetch_add(1, Ordering::SeqCst);
            drop(self.gate.acquire().await.expect("the gate is never closed"));
        }
    }
}

#[async_trait]
impl<S: Storage> Reads for Watched<S> {
    async fn find(
        &self,
        tenant: &TenantId,
        user_ids: &[UserId],
    ) -> Result<Vec<Option<PersonSummary>>, StorageError> {
        self.outage.check()?;
        self.inner.find(tenant, user_ids).await
    }

    async fn members(
        &self,
        tenant: &TenantId,
        group: &Attributes,
        limit: usize,
    ) -> Result<Vec<PersonSummary>, StorageError> {
        self.outage.check()?;
        self.crowds_read.fetch_add(1, Ordering::SeqCst);
        self.inner.members(tenant, group, limit).await
    }

    async fn watermark(&self, tenant: &TenantId) -> Result<Watermark, StorageError> {
        self.outage.check()?;
        self.inner.watermark(tenant).await
    }

    async fn crowd(&self, tenant: &TenantId, group: &Attributes) -> Result<Crowd, StorageError> {
        self.outage.check()?;
        self.inner.crowd(tenant, group).await
    }

    async fn user(&self, tenant: &TenantId, user_id: &UserId) -> Result<Option<UserRecord>, StorageError> {
        self.outage.check()?;
        self.inner.user(tenant, user_id).await
    }

    async fn users(
        &self,
        tenant: &TenantId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<UserRecord>, StorageError> {
        self.outage.check()?;
        self.inner.users(tenant, after, limit).await
    }

    async fn groups(
        &self,
        tenant: &TenantId,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<GroupCount>, StorageError> {
        self.outage.check()?;
        self.inner.groups(tenant, after, limit).await
    }

    async fn examples(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredExample>, StorageError> {
        self.outage.check()?;
        let page = self.inner.examples(tenant, user_id, after, limit).await;
        self.hold(user_id, Held::Pages).await;
        page
    }

    async fn examples_by_id(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        example_ids: &[ExampleId],
    ) -> Result<Vec<StoredExample>, StorageError> {
        self.outage.check()?;
        let texts = self.inner.examples_by_id(tenant, user_id, example_ids).await;
        self.hold(user_id, Held::Texts).await;
        texts
    }

    async fn unjudged_examples(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        model: &ModelRef,
        limit: usize,
    ) -> Result<Vec<StoredExample>, StorageError> {
        self.outage.check()?;
        self.inner.unjudged_examples(tenant, user_id, model, limit).await
    }

    async fn evidence(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        backbone: &str,
        forms: TextForms,
    ) -> Result<Vec<Evidence>, StorageError> {
        self.outage.check()?;
        let evidence = self.inner.evidence(tenant, user_id, backbone, forms).await;
        self.hold(user_id, Held::Evidence).await;
        evidence
    }

    async fn state(
        &self,
        tenant: &TenantId,
        user_id: &UserId,
        model: &ModelKey,
    ) -> Result<Option<StoredState>, StorageError> {
        self.outage.check()?;
        self.inner.state(tenant, user_id, model).await
    }

    async fn tallies(&self, tenant: &TenantId, user_id: &UserId) -> Result<Vec<ModelTally>, StorageError> {
        self.outage.check()?;
        self.inner.tallies(tenant, user_id).await
    }
}

#[async_trait]
impl<S: Storage> Measures for Watched<S> {
    async fn moment(&self, tenant: &TenantId) -> Result<Moment, StorageError> {
        self.outage.check()?;
        self.inner.moment(tenant).await
    }

    async fn person_sums(
        &self,
        tenant: &TenantId,
        predictions: &Predictions,
        group_by: &[String],
    ) -> Result<Vec<PersonSums>, StorageError> {
        self.outage.check()?;
        self.sums.check().await?;
        self.inner.person_sums(tenant, predictions, group_by).await
    }

    async fn shot_sums(
        &self,
        tenant: &TenantId,
        predictions: &Predictions,
        group_by: &[String],
    ) -> Result<Vec<ShotSums>, StorageError> {
        self.outage.check()?;
        self.sums.check().await?;
        self.inner.shot_sums(tenant, predictions, group_by).await
    }

    async fn step_sums(
        &self,
        tenant: &TenantId,
        predictions: &Predictions,
        group_by: &[String],
        step: Step,
        limit: usize,
    ) -> Result<Vec<StepSums>, StorageError> {
        self.outage.check()?;
        self.sums.check().await?;
        self.inner.step_sums(tenant, predictions, group_by, step, limit).await
    }

    async fn pair_votes(
        &self,
        tenant: &TenantId,
        span: Span,
        group_by: &[String],
        limit: usize,
    ) -> Result<Vec<PairVotes>, StorageError> {
        self.outage.check()?;
        self.sums.check().await?;
        self.inner.pair_votes(tenant, span, group_by, limit).await
    }

    async fn mistakes(
        &self,
        tenant: &TenantId,
        predictions: &Predictions,
        group: &Attributes,
        limit: usize,
    ) -> Result<Vec<Mistake>, StorageError> {
        self.outage.check()?;
        self.inner.mistakes(tenant, predictions, group, limit).await
    }

    async fn measured_models(&self, tenant: &TenantId) -> Result<Vec<MeasuredModel>, StorageError> {
        self.outage.check()?;
        self.inner.measured_models(tenant).await
    }

    async fn attribute_keys(
        &self,
        tenant: &TenantId,
        from: &str,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        self.outage.check()?;
        self.inner.attribute_keys(tenant, from, limit).await
    }
}

#[async_trait]
impl<S: Storage> Keys for Watched<S> {
    async fn find_key(&self, hash: &KeyHash) -> Result<Option<KeyRecord>, StorageError> {
        self.outage.check()?;
        self.inner.find_key(hash).await
    }

    async fn has_keys(&self) -> Result<bool, StorageError> {
        self.outage.check()?;
        self.inner.has_keys().await
    }

    async fn create_key(&self, key: &KeyRecord, hash: &KeyHash) -> Result<(), StorageError> {
        self.outage.check()?;
        self.inner.create_key(key, hash).await
    }

    async fn list_keys(&self) -> Result<Vec<KeyRecord>, StorageError> {
        self.outage.check()?;
        self.inner.list_keys().await
    }

    async fn revoke_key(&self, key_id: KeyId, at: OffsetDateTime) -> Result<bool, StorageError> {
        self.outage.check()?;
        self.inner.revoke_key(key_id, at).await
    }

    async fn tenants(&self) -> Result<Vec<TenantId>, StorageError> {
        self.outage.check()?;
        self.inner.tenants().await
    }
}

#[async_trait]
impl<S: Storage> Storage for Watched<S> {
    async fn begin(&self, tenant: &TenantId) -> Result<Box<dyn Transaction>, StorageError> {
        self.outage.check()?;
        let inner = self.inner.begin(tenant).await?;
        Ok(Box::new(WatchedTransaction { inner, outage: self.outage.clone() }))
    }

    async fn erasures(&self) -> Result<Option<Box<dyn Erasures>>, StorageError> {
        let announced = self.announced.lock().expect("no panic while it is held").take();
        let listened_to = Arc::clone(&self.listened_to);
        Ok(announced.map(|heard| -> Box<dyn Erasures> { Box::new(Announced { heard, listened_to }) }))
    }

    async fn prune_states(&self, tenant: &TenantId, kept: &[ModelKey]) -> Result<u64, StorageError> {
        self.outage.check()?;
        self.inner.prune_states(tenant, kept).await
    }

    async fn ping(&self) -> Result<(), StorageError> {
        self.outage.check()?;
        self.inner.ping().await
    }

    async fn expire(
        &self,
        idempotency_before: OffsetDateTime,
        audit_before: OffsetDateTime,
    ) -> Result<u64, StorageError> {
        self.outage.check()?;
        self.inner.expire(idempotency_before, audit_before).await
    }
}

/// What another process would announce.
struct Announced {
    heard: UnboundedReceiver<Option<SubjectHash>>,
    listened_to: Arc<AtomicBool>,
}

#[async_trait]
impl Erasures for Announced {
    async fn next(&mut self) -> Result<Option<SubjectHash>, StorageError> {
        self.listened_to.store(true, Ordering::SeqCst);
        self.heard.recv().await.ok_or_else(|| StorageError::Unavailable("the test is over".into()))
    }
}

struct WatchedTransaction {
    inner: Box<dyn Transaction>,
    outage: Outage,
}

#[async_trait]
impl Transaction for WatchedTransaction {
    async fn announce_erasure(&mut self, subject: &SubjectHash) -> Result<(), StorageError> {
        self.outage.check()?;
        self.inner.announce_erasure(subject).await
    }

    async fn hold_or_create_user(
        &mut self,
        user_id: &UserId,
        now: OffsetDateTime,
    ) -> Result<(UserRecord, bool), StorageError> {
        self.outage.check()?;
        self.inner.hold_or_create_user(user_id, now).await
    }

    async fn hold_user(&mut self, user_id: &UserId) -> Result<Option<UserRecord>, StorageError> {
        self.outage.check()?;
        self.inner.hold_user(user_id).await
    }

    async fn known_examples(
        &mut self,
        user_id: &UserId,
        example_ids: &[ExampleId],
    ) -> Result<Vec<ExampleId>, StorageError> {
        self.outage.check()?;
        self.inner.known_examples(user_id, example_ids).await
    }

    async fn evidence(
        &mut self,
        user_id: &UserId,
        backbone: &str,
        forms: TextForms,
    ) -> Result<Vec<Evidence>, StorageError> {
        self.outage.check()?;
        self.inner.evidence(user_id, backbone, forms).await
    }

    async fn state(
        &mut self,
        user_id: &UserId,
        model: &ModelKey,
    ) -> Result<Option<StoredState>, StorageError> {
        self.outage.check()?;
        self.inner.state(user_id, model).await
    }

    async fn add_examples(
        &mut self,
        user_id: &UserId,
        backbone: &str,
        examples: &[NewExample],
    ) -> Result<(), StorageError> {
        self.outage.check()?;
        self.inner.add_examples(user_id, backbone, examples).await
    }

    async fn add_embeddings(
        &mut self,
        user_id: &UserId,
        backbone: &str,
        embeddings: &[(ExampleId, Vec<ExampleEmbedding>)],
    ) -> Result<(), StorageError> {
        self.outage.check()?;
        self.inner.add_embeddings(user_id, backbone, embeddings).await
    }

    async fn add_predictions(
        &mut self,
        user_id: &UserId,
        predictions: &[Prediction],
    ) -> Result<(), StorageError> {
        self.outage.check()?;
        self.inner.add_predictions(user_id, predictions).await
    }

    async fn put_state(
        &mut self,
        user_id: &UserId,
        model: &ModelKey,
        name: &ModelRef,
        state: &StoredState,
    ) -> Result<(), StorageError> {
        self.outage.check()?;
        self.inner.put_state(user_id, model, name, state).await
    }

    async fn remove_states(&mut self, user_id: &UserId) -> Result<u64, StorageError> {
        self.outage.check()?;
        self.inner.remove_states(user_id).await
    }

    async fn put_attributes(
        &mut self,
        user_id: &UserId,
        attributes: &Attributes,
    ) -> Result<(), StorageError> {
        self.outage.check()?;
        self.inner.put_attributes(user_id, attributes).await
    }

    async fn save_user(
        &mut self,
        user_id: &UserId,
        version: StateVersion,
        examples: u64,
        next_position: u64,
        now: OffsetDateTime,
    ) -> Result<(), StorageError> {
        self.outage.check()?;
        self.inner.save_user(user_id, version, examples, next_position, now).await
    }

    async fn erase_example(
        &mut self,
        user_id: &UserId,
        example_id: &ExampleId,
    ) -> Result<bool, StorageError> {
        self.outage.check()?;
        self.inner.erase_example(user_id, example_id).await
    }

    async fn erase_user(&mut self, user_id: &UserId) -> Result<bool, StorageError> {
        self.outage.check()?;
        self.inner.erase_user(user_id).await
    }

    async fn idempotency(&mut self, key: &str) -> Result<Option<IdempotencyRecord>, StorageError> {
        self.outage.check()?;
        self.inner.idempotency(key).await
    }

    async fn keep_idempotency(
        &mut self,
        user_id: &UserId,
        record: &IdempotencyRecord,
    ) -> Result<(), StorageError> {
        self.outage.check()?;
        self.inner.keep_idempotency(user_id, record).await
    }

    async fn audit(&mut self, entry: &AuditEntry) -> Result<(), StorageError> {
        self.outage.check()?;
        self.inner.audit(entry).await
    }

    async fn commit(self: Box<Self>) -> Result<(), StorageError> {
        self.outage.check()?;
        self.inner.commit().await
    }
}
