//! Transactions: all or nothing, and one after the other.

use futures::{
    channel::oneshot,
    future::{join, join_all},
};
use polyreward_domain::{Attributes, StateVersion, TenantId, UserId};

use super::fixtures::{Held, Seen, answer, at, begin, come, held, seen, stored, user, write_all};
use crate::{Storage, StorageError};

pub async fn a_commit_is_seen_at_once(storage: &dyn Storage) {
    let tenant = TenantId::default();
    for number in 1..=20 {
        let mut writing = begin(storage, &tenant).await;
        writing.hold_or_create_user(&user("ada"), at(0)).await.unwrap();
        let version = StateVersion::from_number(number);
        writing.save_user(&user("ada"), version, number, number, at(0)).await.unwrap();
        writing.commit().await.unwrap();
        let found = storage.find(&tenant, &[user("ada")]).await.unwrap();
        assert_eq!(found[0].as_ref().map(|person| person.version), Some(version));
    }
}

pub async fn nothing_is_seen_before_its_commit(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let mut writing = begin(storage, &tenant).await;
    write_all(&mut *writing, &user("ada")).await;
    assert_eq!(seen(storage, &tenant, &user("ada")).await, Seen::default());
    writing.commit().await.unwrap();
    let before = seen(storage, &tenant, &user("ada")).await;
    assert_ne!(before, Seen::default());

    let mut writing = begin(storage, &tenant).await;
    assert!(writing.erase_user(&user("ada")).await.unwrap());
    assert_eq!(seen(storage, &tenant, &user("ada")).await, before);
    writing.commit().await.unwrap();
    assert_eq!(seen(storage, &tenant, &user("ada")).await, Seen::default());
}

pub async fn a_dropped_transaction_leaves_no_trace(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let mut writing = begin(storage, &tenant).await;
    write_all(&mut *writing, &user("ada")).await;
    drop(writing);
    assert_eq!(seen(storage, &tenant, &user("ada")).await, Seen::default());
    assert_eq!(held(storage, &tenant, &user("ada")).await, Held::default());

    stored(storage, &tenant, &user("ada")).await;
    let before = (seen(storage, &tenant, &user("ada")).await, held(storage, &tenant, &user("ada")).await);
    let mut writing = begin(storage, &tenant).await;
    assert!(writing.erase_user(&user("ada")).await.unwrap());
    drop(writing);
    let mut writing = begin(storage, &tenant).await;
    writing.put_attributes(&user("ada"), &Attributes::new()).await.unwrap();
    writing.remove_states(&user("ada")).await.unwrap();
    drop(writing);
    let after = (seen(storage, &tenant, &user("ada")).await, held(storage, &tenant, &user("ada")).await);
    assert_eq!(after, before);
}

pub async fn a_failed_transaction_leaves_no_trace(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(storage, &tenant, &[("bob", &[])]).await;
    let mut writing = begin(storage, &tenant).await;
    writing.keep_idempotency(&user("bob"), &answer("taken", 0)).await.unwrap();
    writing.commit().await.unwrap();

    let mut writing = begin(storage, &tenant).await;
    write_all(&mut *writing, &user("ada")).await;
    let refused = writing.keep_idempotency(&user("ada"), &answer("taken", 1)).await;
    assert!(matches!(refused, Err(StorageError::Exists(_))), "{refused:?}");
    drop(writing);
    assert_eq!(seen(storage, &tenant, &user("ada")).await, Seen::default());
    assert_eq!(held(storage, &tenant, &user("ada")).await, Held::default());
    stored(storage, &tenant, &user("ada")).await;
}

/// Whether it waits where it begins or where it takes hold is the backend's choice.
pub async fn a_second_writer_of_a_person_waits_for_the_first(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(storage, &tenant, &[("ada", &[])]).await;
    let (holds, held) = oneshot::channel();
    let first = async {
        let mut writing = begin(storage, &tenant).await;
        writing.hold_user(&user("ada")).await.unwrap();
        holds.send(()).expect("the second writer is there");
        for number in 1..=20 {
            let version = StateVersion::from_number(number);
            writing.save_user(&user("ada"), version, number, number, at(0)).await.unwrap();
            storage.user(&tenant, &user("ada")).await.unwrap();
        }
        writing.commit().await.unwrap();
    };
    let second = async {
        held.await.expect("the first writer holds");
        let mut writing = begin(storage, &tenant).await;
        let record = writing.hold_user(&user("ada")).await.unwrap().unwrap();
        assert_eq!(record.examples, 20, "the second writer begins where the first ended");
    };
    join(first, second).await;
}

pub async fn fifty_writers_of_one_person_lose_nothing(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(storage, &tenant, &[("ada", &[])]).await;
    join_all((0..50).map(async |_| {
        let mut writing = begin(storage, &tenant).await;
        let record = writing.hold_user(&user("ada")).await.unwrap().unwrap();
        let version = StateVersion::from_number(record.version.get() + 1);
        let (examples, next_position) = (record.examples + 1, record.next_position + 1);
        writing.save_user(&user("ada"), version, examples, next_position, at(0)).await.unwrap();
        writing.commit().await.unwrap();
    }))
    .await;
    let record = storage.user(&tenant, &user("ada")).await.unwrap().unwrap();
    assert_eq!((record.version.get(), record.examples, record.next_position), (50, 50, 50));
}

pub async fn a_person_who_comes_fifty_times_at_once_comes_once(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let created = join_all((0..50).map(async |number| {
        let mut writing = begin(storage, &tenant).await;
        let (record, created) = writing.hold_or_create_user(&user("ada"), at(number)).await.unwrap();
        writing.save_user(&user("ada"), record.version, record.examples + 1, 0, at(number)).await.unwrap();
        writing.commit().await.unwrap();
        created
    }))
    .await;
    assert_eq!(created.into_iter().filter(|created| *created).count(), 1);
    assert_eq!(storage.user(&tenant, &user("ada")).await.unwrap().unwrap().examples, 50);
}

pub async fn writers_of_different_people_all_succeed(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let people: Vec<UserId> = (10..40).map(|number| user(&format!("u{number}"))).collect();
    join_all(people.iter().map(|id| stored(storage, &tenant, id))).await;
    for id in &people {
        assert_eq!(storage.examples(&tenant, id, None, 9).await.unwrap().len(), 2);
    }
    assert_eq!(storage.members(&tenant, &Attributes::new(), 99).await.unwrap().len(), 30);
}

pub async fn a_database_that_works_says_so(storage: &dyn Storage) {
    storage.ping().await.unwrap();
    storage.ping().await.unwrap();
}
