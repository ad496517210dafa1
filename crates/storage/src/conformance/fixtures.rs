//! People to write about, and all that can be asked about one of them.

use polyreward_domain::{
    Attributes, Comparison, ExampleId, LabelConfidence, ModelRef, Prompt, Scopes, StateVersion, Strength,
    TenantId, TextForm, TextForms, UserId,
};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{
    AuditAction, AuditEntry, Evidence, ExampleEmbedding, GroupCount, IdempotencyRecord, KeyHash, KeyId,
    KeyRecord, ModelKey, ModelTally, NewExample, PersonSummary, Prediction, Predictions, Span, Storage,
    StoredExample, StoredState, Transaction, UserRecord,
};

pub(super) const BACKBONE: &str = "minilm@1";
pub(super) const MODEL: ModelKey = [7; 32];

/// A moment, to the microsecond.
pub(super) fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::new(1_800_000_000 + seconds, 123_456_000)
}

pub(super) fn user(id: &str) -> UserId {
    id.parse().expect("the id of a user")
}

pub(super) fn users(ids: &[&str]) -> Vec<UserId> {
    ids.iter().map(|id| user(id)).collect()
}

pub(super) fn example_id(id: &str) -> ExampleId {
    id.parse().expect("the id of an example")
}

pub(super) fn model(name: &str, version: &str) -> ModelRef {
    ModelRef {
        name: name.parse().expect("a model's name"),
        version: version.parse().expect("a model's version"),
    }
}

pub(super) fn attributes(pairs: &[(&str, &str)]) -> Attributes {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(super) fn all_forms() -> TextForms {
    TextForm::ALL.into_iter().collect()
}

pub(super) fn comparison(chosen: &str) -> Comparison {
    Comparison {
        prompt: Prompt::Text("What is for dinner?".to_owned()),
        chosen: chosen.to_owned(),
        rejected: "Gruel.".to_owned(),
        strength: Strength::try_from(2.5).expect("within its range"),
        label_confidence: LabelConfidence::try_from(0.9).expect("within its range"),
        rationale: Some("It is warm.".to_owned()),
    }
}

pub(super) fn embeddings(first: f32) -> Vec<ExampleEmbedding> {
    vec![
        ExampleEmbedding {
            form: TextForm::PromptResponse,
            chosen: vec![first, -0.0, f32::MAX],
            rejected: vec![f32::MIN_POSITIVE / 2.0, f32::MIN, 1.0],
        },
        ExampleEmbedding { form: TextForm::Prompt, chosen: vec![first, 0.1], rejected: vec![] },
        ExampleEmbedding { form: TextForm::Response, chosen: vec![first], rejected: vec![-first] },
    ]
}

pub(super) fn example(id: &str, position: u64) -> NewExample {
    NewExample {
        example_id: example_id(id),
        position,
        comparison: comparison(id),
        names: [u64::MAX - position, position],
        embeddings: embeddings(position as f32),
        created_at: at(position.cast_signed()),
    }
}

pub(super) fn prediction(id: &str, model: ModelRef, preference: f64, population: f64) -> Prediction {
    Prediction {
        example_id: example_id(id),
        model,
        shot: 0,
        preference,
        population_preference: population,
        baseline_preference: None,
        created_at: at(0),
    }
}

/// A prediction about an example, both made at once.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub model: ModelRef,
    pub names: [u64; 2],
    pub shot: u64,
    pub preference: f64,
    pub population_preference: f64,
    pub baseline_preference: Option<f64>,
    pub created_at: OffsetDateTime,
}

/// One that was right, by the model of [`predictions`], about a pair that all of these share.
pub(super) fn made(created_at: OffsetDateTime) -> Made {
    Made {
        model: model("pal-a", "1"),
        names: [1, 2],
        shot: 0,
        preference: 0.75,
        population_preference: 0.25,
        baseline_preference: Some(0.5),
        created_at,
    }
}

pub(super) fn predictions(span: Span) -> Predictions {
    Predictions { model: model("pal-a", "1"), span }
}

/// Stores examples `e0`, `e1`, ... of somebody, who may be new, with a prediction about each.
pub(super) async fn predicted(storage: &dyn Storage, tenant: &TenantId, id: &str, told: &[Made]) {
    let (id, mut writing) = (user(id), begin(storage, tenant).await);
    writing.hold_or_create_user(&id, at(0)).await.expect("a person comes");
    let examples: Vec<NewExample> = (0..)
        .zip(told)
        .map(|(position, made)| NewExample {
            names: made.names,
            embeddings: Vec::new(),
            created_at: made.created_at,
            ..example(&format!("e{position}"), position)
        })
        .collect();
    writing.add_examples(&id, BACKBONE, &examples).await.expect("examples are stored");
    let predictions: Vec<Prediction> = examples
        .iter()
        .zip(told)
        .map(|(example, made)| Prediction {
            example_id: example.example_id.clone(),
            model: made.model.clone(),
            shot: made.shot,
            preference: made.preference,
            population_preference: made.population_preference,
            baseline_preference: made.baseline_preference,
            created_at: made.created_at,
        })
        .collect();
    writing.add_predictions(&id, &predictions).await.expect("predictions are stored");
    writing.commit().await.expect("it is committed");
}

pub(super) fn state(first: f32) -> StoredState {
    StoredState {
        version: StateVersion::from_number(u64::MAX),
        examples: 2,
        mean: vec![first, -0.0],
        covariance: vec![1.0, f32::MIN_POSITIVE / 2.0, 0.5, f32::MAX],
    }
}

pub(super) fn answer(key: &str, seconds: i64) -> IdempotencyRecord {
    IdempotencyRecord {
        key: key.to_owned(),
        request: [9; 32],
        status: 201,
        body: r#"{"stored": "it's \"so\""}"#.to_owned(),
        created_at: at(seconds),
    }
}

pub(super) fn line(number: u128, seconds: i64) -> AuditEntry {
    AuditEntry {
        audit_id: Uuid::from_u128(number),
        at: at(seconds),
        key_id: None,
        action: AuditAction::ExamplesAdded,
        subject: Some([3; 32]),
        rows: 2,
    }
}

/// A key whose id and hash are made of a number.
pub(super) fn key(number: u8, tenant: &str, seconds: i64) -> (KeyRecord, KeyHash) {
    let record = KeyRecord {
        key_id: KeyId(Uuid::from_u128(u128::from(number))),
        tenant: tenant.parse().expect("the name of a tenant"),
        name: format!("key \"{number}\" of it's maker"),
        scopes: Scopes::all(),
        created_at: at(seconds),
        revoked_at: None,
    };
    (record, KeyHash([number; 32]))
}

/// Two tenants that have nobody yet.
pub(super) async fn two_tenants(storage: &dyn Storage) -> [TenantId; 2] {
    for (number, name) in [(1, "left"), (2, "right")] {
        let (record, hash) = key(number, name, 0);
        storage.create_key(&record, &hash).await.expect("a key is made");
    }
    ["left", "right"].map(|name| name.parse().expect("the name of a tenant"))
}

pub(super) async fn begin(storage: &dyn Storage, tenant: &TenantId) -> Box<dyn Transaction> {
    storage.begin(tenant).await.expect("a transaction begins")
}

/// People who have attributes and nothing else.
pub(super) async fn come(storage: &dyn Storage, tenant: &TenantId, people: &[(&str, &[(&str, &str)])]) {
    let mut writing = begin(storage, tenant).await;
    for (id, pairs) in people {
        writing.hold_or_create_user(&user(id), at(0)).await.expect("a person comes");
        writing.put_attributes(&user(id), &attributes(pairs)).await.expect("attributes are set");
    }
    writing.commit().await.expect("it is committed");
}

/// Writes a row of every kind about a person: two examples (`e1`, `e2`), an answer (`request-{id}`) and all the rest.
pub(super) async fn write_all(writing: &mut dyn Transaction, id: &UserId) {
    writing.hold_or_create_user(id, at(0)).await.expect("a person comes");
    let known = attributes(&[("country", "UK"), ("mood", "it's 100 % \\ \"good\" 🙂")]);
    writing.put_attributes(id, &known).await.expect("attributes are set");
    let examples = [example("e1", 0), example("e2", 1)];
    writing.add_examples(id, BACKBONE, &examples).await.expect("examples are stored");
    let predictions =
        [prediction("e1", model("bt", "1"), 0.9, 0.2), prediction("e2", model("bt", "1"), 0.5, 0.5)];
    writing.add_predictions(id, &predictions).await.expect("predictions are stored");
    writing.put_state(id, &MODEL, &model("bt", "1"), &state(1.0)).await.expect("a state is stored");
    writing.save_user(id, StateVersion::from_number(u64::MAX), 2, 2, at(5)).await.expect("counts are saved");
    writing.keep_idempotency(id, &answer(&format!("request-{id}"), 0)).await.expect("an answer is kept");
}

pub(super) async fn stored(storage: &dyn Storage, tenant: &TenantId, id: &UserId) {
    let mut writing = begin(storage, tenant).await;
    write_all(&mut *writing, id).await;
    writing.commit().await.expect("it is committed");
}

/// Embeddings in the order of their forms: backends may give them in any.
pub(super) fn in_order(mut evidence: Vec<Evidence>) -> Vec<Evidence> {
    for one in &mut evidence {
        one.embeddings.sort_by_key(|embedding| embedding.form);
    }
    evidence
}

/// All that [`crate::Reads`] says about somebody who was written by [`write_all`].
#[derive(Debug, Default, PartialEq)]
pub(super) struct Seen {
    found: Option<PersonSummary>,
    record: Option<UserRecord>,
    listed: Option<UserRecord>,
    member: Option<PersonSummary>,
    somebody: Option<PersonSummary>,
    groups: Vec<GroupCount>,
    examples: Vec<StoredExample>,
    examples_by_id: Vec<StoredExample>,
    evidence: Vec<Evidence>,
    state: Option<StoredState>,
    tallies: Vec<ModelTally>,
}

/// The groups are the tenant's, all else the person's.
pub(super) async fn seen(storage: &dyn Storage, tenant: &TenantId, id: &UserId) -> Seen {
    let ours = |person: &PersonSummary| person.user_id == *id;
    let ids = ["e1", "e2"].map(example_id);
    let group = attributes(&[("country", "UK")]);
    Seen {
        found: storage.find(tenant, std::slice::from_ref(id)).await.unwrap().remove(0),
        record: storage.user(tenant, id).await.unwrap(),
        listed: storage.users(tenant, None, 100).await.unwrap().into_iter().find(|one| one.user_id == *id),
        member: storage.members(tenant, &group, 100).await.unwrap().into_iter().find(ours),
        somebody: storage
            .members(tenant, &Attributes::new(), 100)
            .await
            .unwrap()
            .into_iter()
            .find(|one| one.user_id == *id),
        groups: storage.groups(tenant, None, 100).await.unwrap(),
        examples: storage.examples(tenant, id, None, 100).await.unwrap(),
        examples_by_id: storage.examples_by_id(tenant, id, &ids).await.unwrap(),
        evidence: in_order(storage.evidence(tenant, id, BACKBONE, all_forms()).await.unwrap()),
        state: storage.state(tenant, id, &MODEL).await.unwrap(),
        tallies: storage.tallies(tenant, id).await.unwrap(),
    }
}

/// All that a [`Transaction`] says about them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Held {
    record: Option<UserRecord>,
    known: Vec<ExampleId>,
    evidence: Vec<Evidence>,
    state: Option<StoredState>,
    answer: Option<IdempotencyRecord>,
}

pub(super) async fn held(storage: &dyn Storage, tenant: &TenantId, id: &UserId) -> Held {
    let mut writing = begin(storage, tenant).await;
    held_in(&mut *writing, id).await
}

pub(super) async fn held_in(writing: &mut dyn Transaction, id: &UserId) -> Held {
    let mut known = writing.known_examples(id, &["e1", "e2", "e3"].map(example_id)).await.unwrap();
    known.sort();
    Held {
        record: writing.hold_user(id).await.unwrap(),
        known,
        evidence: in_order(writing.evidence(id, BACKBONE, all_forms()).await.unwrap()),
        state: writing.state(id, &MODEL).await.unwrap(),
        answer: writing.idempotency(&format!("request-{id}")).await.unwrap(),
    }
}
