//! API keys and the tenants they open.

use polyreward_domain::{Scope, Scopes, TenantId};

use super::fixtures::{at, key};
use crate::{KeyHash, KeyId, KeyRecord, Storage, StorageError};

pub async fn a_key_is_found_by_its_hash_revoked_or_not(storage: &dyn Storage) {
    assert!(!storage.has_keys().await.unwrap());
    assert_eq!(storage.find_key(&KeyHash([1; 32])).await.unwrap(), None);
    let (first, first_hash) = key(1, "left", 0);
    let (second, second_hash) = key(2, "right", 0);
    let scopes: Scopes = [Scope::Score, Scope::Read].into_iter().collect();
    let second = KeyRecord { scopes, ..second };
    storage.create_key(&first, &first_hash).await.unwrap();
    storage.create_key(&second, &second_hash).await.unwrap();
    assert_eq!(storage.find_key(&first_hash).await.unwrap(), Some(first));
    assert_eq!(storage.find_key(&second_hash).await.unwrap(), Some(second.clone()));
    assert_eq!(storage.find_key(&KeyHash([3; 32])).await.unwrap(), None);

    assert!(storage.revoke_key(second.key_id, at(5)).await.unwrap());
    let revoked = KeyRecord { revoked_at: Some(at(5)), ..second };
    assert_eq!(storage.find_key(&second_hash).await.unwrap(), Some(revoked));
}

pub async fn a_key_is_made_once_or_not_at_all(storage: &dyn Storage) {
    let (first, first_hash) = key(1, "left", 0);
    let (other, other_hash) = key(2, "never", 0);
    storage.create_key(&first, &first_hash).await.unwrap();
    for (record, hash) in
        [(&other, &first_hash), (&KeyRecord { key_id: first.key_id, ..other.clone() }, &other_hash)]
    {
        let refused = storage.create_key(record, hash).await;
        assert!(matches!(refused, Err(StorageError::Exists(_))), "{refused:?}");
    }
    assert_eq!(storage.list_keys().await.unwrap(), [first]);
    assert!(!storage.tenants().await.unwrap().contains(&other.tenant), "nor is its tenant made");
    assert_eq!(storage.expire(at(9), at(9)).await.unwrap(), 1, "nor an audit line");
}

pub async fn the_first_revocation_of_a_key_stands(storage: &dyn Storage) {
    let (record, hash) = key(1, "left", 0);
    storage.create_key(&record, &hash).await.unwrap();
    assert!(!storage.revoke_key(KeyId(uuid::Uuid::max()), at(1)).await.unwrap());
    for seconds in [5, 6, 4] {
        assert!(storage.revoke_key(record.key_id, at(seconds)).await.unwrap());
        assert_eq!(storage.find_key(&hash).await.unwrap().unwrap().revoked_at, Some(at(5)));
    }
    assert!(storage.has_keys().await.unwrap(), "a revoked key was made all the same");
}

pub async fn keys_are_listed_with_the_oldest_first(storage: &dyn Storage) {
    for (number, seconds) in [(1, 7), (2, 3), (3, 5)] {
        let (record, hash) = key(number, "left", seconds);
        storage.create_key(&record, &hash).await.unwrap();
    }
    let (revoked, _) = key(3, "left", 5);
    storage.revoke_key(revoked.key_id, at(9)).await.unwrap();
    let listed = storage.list_keys().await.unwrap();
    let expected =
        [key(2, "left", 3).0, KeyRecord { revoked_at: Some(at(9)), ..revoked }, key(1, "left", 7).0];
    assert_eq!(listed, expected);
}

pub async fn tenants_are_made_with_their_first_key(storage: &dyn Storage) {
    assert_eq!(storage.tenants().await.unwrap(), [TenantId::default()]);
    for (number, tenant) in [(1, "zoo"), (2, "a-b"), (3, "zoo"), (4, "ab"), (5, "default"), (6, "0")] {
        let (record, hash) = key(number, tenant, 0);
        storage.create_key(&record, &hash).await.unwrap();
    }
    let tenants = storage.tenants().await.unwrap();
    let names: Vec<&str> = tenants.iter().map(TenantId::as_str).collect();
    assert_eq!(names, ["0", "a-b", "ab", "default", "zoo"]);
}
