//! What PostgreSQL alone has to prove; the rules of every backend are in `polyreward_storage::conformance`.

mod erasure;
mod fence;
mod grafana;
mod measures;
mod outage;
mod start;
mod views;

use polyreward_domain::{
    Attributes, Comparison, LabelConfidence, Prompt, StateVersion, Strength, TenantId, TextForm,
};
use polyreward_storage::{
    AuditAction, AuditEntry, ExampleEmbedding, IdempotencyRecord, KeyHash, KeyId, KeyRecord, Keys,
    NewExample, Prediction, Storage, StoredState,
};
use polyreward_storage_postgres::{PostgresOptions, PostgresStorage, testing::TestDatabase};
use sqlx::types::Uuid;
use time::OffsetDateTime;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

async fn connected(database: &TestDatabase) -> PostgresStorage {
    PostgresStorage::connect(&database.url(), &PostgresOptions::default()).await.unwrap()
}

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

/// A tenant comes with its first key.
async fn add_tenant(storage: &PostgresStorage, name: &str) -> TenantId {
    let key = KeyRecord {
        key_id: KeyId(Uuid::now_v7()),
        tenant: id(name),
        name: "test".to_owned(),
        scopes: id("score"),
        created_at: NOW,
        revoked_at: None,
    };
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(key.key_id.0.as_bytes());
    storage.create_key(&key, &KeyHash(hash)).await.unwrap();
    key.tenant
}

fn example(name: &str, position: u64) -> NewExample {
    NewExample {
        example_id: id(name),
        position,
        comparison: Comparison {
            prompt: Prompt::Text("Tea?".to_owned()),
            chosen: "Yes.".to_owned(),
            rejected: "No.".to_owned(),
            strength: Strength::default(),
            label_confidence: LabelConfidence::default(),
            rationale: None,
        },
        names: [1, u64::MAX],
        embeddings: vec![ExampleEmbedding {
            form: TextForm::PromptResponse,
            chosen: vec![1.0, 2.0],
            rejected: vec![3.0, 4.0],
        }],
        created_at: NOW,
    }
}

/// Makes a person with a row in every table that can hold one.
async fn add_person(storage: &PostgresStorage, tenant: &TenantId, user: &str) {
    let (user, model) = (id(user), model());
    let mut transaction = storage.begin(tenant).await.unwrap();
    transaction.hold_or_create_user(&user, NOW).await.unwrap();
    transaction.put_attributes(&user, &Attributes::from([("country".into(), "UK".into())])).await.unwrap();
    transaction.add_examples(&user, "backbone", &[example("first", 0)]).await.unwrap();
    let prediction = Prediction {
        example_id: id("first"),
        model: model.clone(),
        shot: 0,
        preference: 0.75,
        population_preference: 0.5,
        baseline_preference: None,
        created_at: NOW,
    };
    transaction.add_predictions(&user, &[prediction]).await.unwrap();
    let version = StateVersion::from_number(u64::MAX);
    let state = StoredState { version, examples: 1, mean: vec![0.5], covariance: vec![1.0] };
    transaction.put_state(&user, &[7; 32], &model, &state).await.unwrap();
    transaction.save_user(&user, version, 1, 1, NOW).await.unwrap();
    let answer = IdempotencyRecord {
        key: user.to_string(),
        request: [1; 32],
        status: 201,
        body: "{}".to_owned(),
        created_at: NOW,
    };
    transaction.keep_idempotency(&user, &answer).await.unwrap();
    let line = AuditEntry {
        audit_id: Uuid::now_v7(),
        at: NOW,
        key_id: None,
        action: AuditAction::ExamplesAdded,
        subject: Some([9; 32]),
        rows: 1,
    };
    transaction.audit(&line).await.unwrap();
    transaction.commit().await.unwrap();
}

fn model() -> polyreward_domain::ModelRef {
    polyreward_domain::ModelRef { name: id("bt"), version: id("1") }
}
