//! What rows hold, as domain types.

use std::fmt;

use polyreward_domain::{Attributes, Comparison, ExampleId, ModelRef, StateVersion, TextForm, UserId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::keys::KeyId;

/// Digest of everything about a model that decides a state.
pub type ModelKey = [u8; 32];
/// Digest of a request's path and body.
pub type RequestHash = [u8; 32];
/// Digest of tenant and user id: an audit line tells whether it was about somebody only to those who know the id.
pub type SubjectHash = [u8; 32];

/// Somebody, as far as it takes to know whether a state is still theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonSummary {
    /// Who.
    pub user_id: UserId,
    /// The version of their examples.
    pub version: StateVersion,
    /// How many examples there are.
    pub examples: u64,
}

/// What tells one moment of a group from another: how many there are, and sums over the versions of their examples. Two
/// moments alike have, but for a collision of digests, the same examples, whosever they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Crowd {
    /// How many people there are.
    pub members: u64,
    /// The upper halves of their versions, each as a signed number, added up.
    pub upper: i64,
    /// The lower halves, each as an unsigned number, added up.
    pub lower: i64,
}

impl Crowd {
    /// Of people who were read.
    pub fn of<'a>(people: impl IntoIterator<Item = &'a PersonSummary>) -> Self {
        let mut crowd = Self::default();
        for person in people {
            let version = person.version.get().cast_signed();
            crowd.members += 1;
            crowd.upper += version >> 32;
            crowd.lower += version & 0xFFFF_FFFF;
        }
        crowd
    }
}

/// How far the writing of a database has come. Between two alike nothing was written that can be seen, whatever it was and
/// whoever wrote it; two that differ say nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watermark(String);

impl Watermark {
    /// As a database tells it.
    pub fn new(told: String) -> Self {
        Self(told)
    }
}

/// Somebody, with what is known of them.
#[derive(Debug, Clone, PartialEq)]
pub struct UserRecord {
    /// Who.
    pub user_id: UserId,
    /// The version of their examples.
    pub version: StateVersion,
    /// How many examples there are.
    pub examples: u64,
    /// Examples there ever were; the next one's [`NewExample::position`].
    pub next_position: u64,
    /// What is known of the person.
    pub attributes: Attributes,
    /// When they came.
    pub created_at: OffsetDateTime,
    /// When their attributes or examples changed last.
    pub updated_at: OffsetDateTime,
}

/// An example as it was posted.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredExample {
    /// Its name among the person's.
    pub example_id: ExampleId,
    /// Its place in the order in which they came; places of erased ones stay empty.
    pub position: u64,
    /// What was compared.
    pub comparison: Comparison,
    /// When it was stored.
    pub created_at: OffsetDateTime,
}

/// The embeddings of an example's texts in one form, `[D]` each.
#[derive(Debug, Clone, PartialEq)]
pub struct ExampleEmbedding {
    /// In which form.
    pub form: TextForm,
    /// Of the preferred response; of the prompt where the form is [`TextForm::Prompt`].
    pub chosen: Vec<f32>,
    /// Of the other response; empty where the form is [`TextForm::Prompt`].
    pub rejected: Vec<f32>,
}

/// An example to store.
#[derive(Debug, Clone, PartialEq)]
pub struct NewExample {
    /// Its name among the person's.
    pub example_id: ExampleId,
    /// Its place in their order.
    pub position: u64,
    /// What was compared.
    pub comparison: Comparison,
    /// What names the preferred response and the other one, each with the prompt, to a head.
    pub names: [u64; 2],
    /// Embeddings under one backbone.
    pub embeddings: Vec<ExampleEmbedding>,
    /// When it is stored.
    pub created_at: OffsetDateTime,
}

/// What a head learns from an example: everything but its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// Its name among the person's.
    pub example_id: ExampleId,
    /// What names the preferred response and the other one, each with the prompt.
    pub names: [u64; 2],
    /// How much it counts.
    pub strength: f64,
    /// How sure the label is.
    pub label_confidence: f64,
    /// The embeddings that are stored under the backbone asked for, in no particular order; some may be missing.
    pub embeddings: Vec<ExampleEmbedding>,
}

/// What one model believes of one person.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredState {
    /// The version of the examples it was derived from.
    pub version: StateVersion,
    /// How many examples those were.
    pub examples: u64,
    /// Posterior mean, `[S]`.
    pub mean: Vec<f32>,
    /// Posterior covariance, `[S, S]`, row after row.
    pub covariance: Vec<f32>,
}

/// What a model said of an example before it learned from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Of which example.
    pub example_id: ExampleId,
    /// By which model.
    pub model: ModelRef,
    /// How many examples the person had before it.
    pub shot: u64,
    /// P(chosen preferred to rejected) under the state before the example.
    pub preference: f64,
    /// The same under the population's state.
    pub population_preference: f64,
    /// The same by the Bradley-Terry model that learned the example in the same transaction; none where there was none.
    pub baseline_preference: Option<f64>,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// How often one model was right about one person.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelTally {
    /// `name@version`.
    pub model: ModelRef,
    /// Predictions.
    pub predictions: u64,
    /// Of them right, a preference of exactly 0.5 counting one half.
    pub correct: f64,
    /// The same of the population's reward.
    pub population_correct: f64,
}

/// How many people have one value of one attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupCount {
    /// The attribute.
    pub key: String,
    /// Its value.
    pub value: String,
    /// How many people have it.
    pub users: u64,
}

/// The first answer to a request that may be repeated.
#[derive(Debug, Clone, PartialEq)]
pub struct IdempotencyRecord {
    /// What names the request, chosen by the client.
    pub key: String,
    /// What was asked.
    pub request: RequestHash,
    /// Status of the answer.
    pub status: u16,
    /// Body of the answer, as JSON.
    pub body: String,
    /// When it was given.
    pub created_at: OffsetDateTime,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuditAction {
    /// Examples were stored.
    ExamplesAdded,
    /// An example was erased.
    ExampleErased,
    /// A person's attributes were set.
    UserPut,
    /// A person was erased, with all that was theirs.
    UserErased,
    /// A key was made.
    KeyCreated,
    /// A key was revoked.
    KeyRevoked,
}

impl AuditAction {
    /// The action as a column holds it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ExamplesAdded => "examples.added",
            Self::ExampleErased => "example.erased",
            Self::UserPut => "user.put",
            Self::UserErased => "user.erased",
            Self::KeyCreated => "key.created",
            Self::KeyRevoked => "key.revoked",
        }
    }
}

impl fmt::Display for AuditAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One line of the audit log: who did what to whom, without content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// UUIDv7.
    pub audit_id: Uuid,
    /// When.
    pub at: OffsetDateTime,
    /// With which key; none on a server without keys.
    pub key_id: Option<KeyId>,
    /// What.
    pub action: AuditAction,
    /// To whom.
    pub subject: Option<SubjectHash>,
    /// To how many rows of the kind that the action names.
    pub rows: u64,
}
