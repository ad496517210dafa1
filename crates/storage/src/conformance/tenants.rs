//! The walls between tenants.

use polyreward_domain::{Attributes, StateVersion};

use super::fixtures::{
    BACKBONE, Held, MODEL, Seen, answer, at, attributes, begin, embeddings, example, example_id, held,
    held_in, model, seen, state, stored, two_tenants, user,
};
use crate::Storage;

pub async fn tenants_see_nothing_of_each_other(storage: &dyn Storage) {
    let [left, right] = two_tenants(storage).await;
    let ada = user("ada");
    stored(storage, &left, &ada).await;
    assert_ne!(seen(storage, &left, &ada).await, Seen::default());
    assert_ne!(held(storage, &left, &ada).await, Held::default());
    assert_eq!(seen(storage, &right, &ada).await, Seen::default());
    assert_eq!(held(storage, &right, &ada).await, Held::default());

    // The same names are free there, for requests too.
    stored(storage, &right, &ada).await;
    assert_eq!(seen(storage, &left, &ada).await, seen(storage, &right, &ada).await);
    let groups = storage.groups(&left, None, 9).await.unwrap();
    assert!(groups.iter().all(|group| group.users == 1), "{groups:?}");
    assert_eq!(storage.users(&left, None, 9).await.unwrap().len(), 1);
    assert_eq!(storage.members(&left, &Attributes::new(), 9).await.unwrap().len(), 1);
}

pub async fn no_write_reaches_another_tenant(storage: &dyn Storage) {
    let [left, right] = two_tenants(storage).await;
    let ada = user("ada");
    stored(storage, &left, &ada).await;
    stored(storage, &right, &ada).await;
    let before = (seen(storage, &left, &ada).await, held(storage, &left, &ada).await);

    let mut writing = begin(storage, &right).await;
    writing.put_attributes(&ada, &attributes(&[("country", "FR")])).await.unwrap();
    writing.add_examples(&ada, BACKBONE, &[example("e3", 2)]).await.unwrap();
    writing.add_embeddings(&ada, BACKBONE, &[(example_id("e1"), embeddings(4.0))]).await.unwrap();
    writing.put_state(&ada, &MODEL, &model("bt", "1"), &state(5.0)).await.unwrap();
    writing.save_user(&ada, StateVersion::from_number(1), 3, 3, at(8)).await.unwrap();
    writing.keep_idempotency(&ada, &answer("another", 1)).await.unwrap();
    assert!(writing.erase_example(&ada, &example_id("e1")).await.unwrap());
    assert_eq!(writing.remove_states(&ada).await.unwrap(), 1);
    writing.commit().await.unwrap();
    assert_eq!((seen(storage, &left, &ada).await, held(storage, &left, &ada).await), before);

    let mut writing = begin(storage, &right).await;
    assert!(writing.erase_user(&ada).await.unwrap());
    assert!(!writing.erase_user(&ada).await.unwrap());
    assert_eq!(held_in(&mut *writing, &ada).await, Held::default());
    writing.commit().await.unwrap();
    assert_eq!((seen(storage, &left, &ada).await, held(storage, &left, &ada).await), before);
}
