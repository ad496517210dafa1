//! Answers to requests that may be repeated, and the audit log.

use polyreward_domain::TenantId;

use super::fixtures::{answer, at, begin, come, example_id, key, line, user};
use crate::{AuditAction, AuditEntry, IdempotencyRecord, KeyId, Storage, StorageError};

pub async fn an_answer_is_kept_once(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(storage, &tenant, &[("ada", &[]), ("bob", &[])]).await;
    let odd = "it's key \"1\" % \\ 🙂";
    let first =
        IdempotencyRecord { status: 599, body: "{\"text\": \"🙂\"}".repeat(1000), ..answer(odd, 1) };
    let mut writing = begin(storage, &tenant).await;
    assert_eq!(writing.idempotency(odd).await.unwrap(), None);
    writing.keep_idempotency(&user("ada"), &first).await.unwrap();
    assert_eq!(writing.idempotency(odd).await.unwrap().as_ref(), Some(&first));
    writing.commit().await.unwrap();

    let mut writing = begin(storage, &tenant).await;
    let again = IdempotencyRecord { request: [1; 32], ..answer(odd, 2) };
    let refused = writing.keep_idempotency(&user("bob"), &again).await;
    assert!(matches!(refused, Err(StorageError::Exists(_))), "{refused:?}");
    drop(writing);

    let mut writing = begin(storage, &tenant).await;
    assert_eq!(writing.idempotency(odd).await.unwrap(), Some(first));
    assert_eq!(writing.idempotency(&odd.replace('k', "K")).await.unwrap(), None);
}

pub async fn what_is_too_old_expires_and_nothing_else(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(storage, &tenant, &[("ada", &[])]).await;
    let mut writing = begin(storage, &tenant).await;
    for seconds in [1, 2, 3] {
        writing.keep_idempotency(&user("ada"), &answer(&seconds.to_string(), seconds)).await.unwrap();
    }
    for seconds in [1i64, 2, 3, 4] {
        writing.audit(&line(seconds.unsigned_abs().into(), seconds)).await.unwrap();
    }
    writing.commit().await.unwrap();

    assert_eq!(storage.expire(at(1), at(1)).await.unwrap(), 0, "neither is older than itself");
    assert_eq!(storage.expire(at(2), at(4)).await.unwrap(), 1 + 3);
    let mut writing = begin(storage, &tenant).await;
    assert_eq!(writing.idempotency("1").await.unwrap(), None);
    assert_eq!(writing.idempotency("2").await.unwrap(), Some(answer("2", 2)));
    drop(writing);
    assert_eq!(storage.expire(at(100), at(100)).await.unwrap(), 2 + 1);
    assert!(storage.user(&tenant, &user("ada")).await.unwrap().is_some());
}

/// Lines are counted by letting them expire.
pub async fn every_write_to_the_audit_log_is_one_line(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let mut writing = begin(storage, &tenant).await;
    let actions = [
        AuditAction::ExamplesAdded,
        AuditAction::ExampleErased,
        AuditAction::UserPut,
        AuditAction::UserErased,
        AuditAction::KeyCreated,
        AuditAction::KeyRevoked,
    ];
    for (number, action) in (1..).zip(actions) {
        writing.audit(&AuditEntry { action, ..line(number, 0) }).await.unwrap();
    }
    let bare = AuditEntry { key_id: Some(KeyId(uuid::Uuid::max())), subject: None, rows: 0, ..line(7, 0) };
    writing.audit(&bare).await.unwrap();
    // Lines outlive those whom they are about, and need nobody to be about.
    writing.hold_or_create_user(&user("ada"), at(0)).await.unwrap();
    assert!(!writing.erase_example(&user("ada"), &example_id("e1")).await.unwrap());
    assert!(writing.erase_user(&user("ada")).await.unwrap());
    writing.commit().await.unwrap();
    assert_eq!(storage.expire(at(1), at(1)).await.unwrap(), 7);

    let (record, hash) = key(1, "left", 0);
    storage.create_key(&record, &hash).await.unwrap();
    assert_eq!(storage.expire(at(1), at(1)).await.unwrap(), 1);
    assert!(storage.revoke_key(record.key_id, at(2)).await.unwrap());
    assert!(storage.revoke_key(record.key_id, at(3)).await.unwrap());
    assert_eq!(storage.expire(at(9), at(9)).await.unwrap(), 1, "a key is revoked once");
}
