//! What is derived from examples.

use polyreward_domain::{StateVersion, TenantId};

use super::fixtures::{MODEL, at, begin, come, example, model, prediction, state, user};
use crate::{ModelTally, Storage, StoredState};

pub async fn a_state_is_kept_bit_for_bit_and_replaced(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let ada = user("ada");
    come(storage, &tenant, &[("ada", &[]), ("bob", &[])]).await;
    let other = [8; 32];
    let empty = StoredState {
        version: StateVersion::from_number(1 << 63),
        examples: 0,
        mean: Vec::new(),
        covariance: Vec::new(),
    };
    for newest in [state(1.0), state(f32::MIN_POSITIVE), empty] {
        let mut writing = begin(storage, &tenant).await;
        writing.put_state(&ada, &MODEL, &model("bt", "1"), &newest).await.unwrap();
        assert_eq!(writing.state(&ada, &MODEL).await.unwrap(), Some(newest.clone()));
        assert_eq!(writing.state(&ada, &other).await.unwrap(), None);
        writing.commit().await.unwrap();
        let read = storage.state(&tenant, &ada, &MODEL).await.unwrap().unwrap();
        let bits = |state: &StoredState| -> Vec<u32> {
            state.mean.iter().chain(&state.covariance).map(|number| number.to_bits()).collect()
        };
        assert_eq!((bits(&read), &read), (bits(&newest), &newest));
    }
    assert_eq!(storage.state(&tenant, &ada, &other).await.unwrap(), None);
    assert_eq!(storage.state(&tenant, &user("bob"), &MODEL).await.unwrap(), None);
}

pub async fn every_state_of_a_person_is_removed_at_once(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(storage, &tenant, &[("ada", &[]), ("bob", &[])]).await;
    let mut writing = begin(storage, &tenant).await;
    for (id, key) in [("ada", [1; 32]), ("ada", [2; 32]), ("bob", [1; 32])] {
        writing.put_state(&user(id), &key, &model("bt", "1"), &state(1.0)).await.unwrap();
    }
    assert_eq!(writing.remove_states(&user("ada")).await.unwrap(), 2);
    assert_eq!(writing.remove_states(&user("ada")).await.unwrap(), 0);
    writing.commit().await.unwrap();
    assert_eq!(storage.state(&tenant, &user("ada"), &[1; 32]).await.unwrap(), None);
    assert_eq!(storage.state(&tenant, &user("bob"), &[1; 32]).await.unwrap(), Some(state(1.0)));
}

pub async fn states_of_models_that_are_gone_are_pruned_in_one_tenant(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(storage, &tenant, &[("ada", &[]), ("bob", &[])]).await;
    let mut writing = begin(storage, &tenant).await;
    for (id, key) in [("ada", [1; 32]), ("ada", [0xAB; 32]), ("bob", [3; 32])] {
        writing.put_state(&user(id), &key, &model("bt", "1"), &state(1.0)).await.unwrap();
    }
    writing.commit().await.unwrap();
    let other: TenantId = "other".parse().unwrap();
    assert_eq!(storage.prune_states(&other, &[]).await.unwrap(), 0);
    assert_eq!(storage.prune_states(&tenant, &[[0xAB; 32], [9; 32]]).await.unwrap(), 2);
    assert_eq!(storage.state(&tenant, &user("ada"), &[0xAB; 32]).await.unwrap(), Some(state(1.0)));
    assert_eq!(storage.state(&tenant, &user("ada"), &[1; 32]).await.unwrap(), None);
    assert_eq!(storage.prune_states(&tenant, &[]).await.unwrap(), 1);
}

pub async fn an_erasure_is_announced_with_its_commit(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let heard = storage.erasures().await.unwrap();
    for (subject, commits) in [([1; 32], false), ([2; 32], true)] {
        let mut writing = begin(storage, &tenant).await;
        writing.announce_erasure(&subject).await.unwrap();
        if commits {
            writing.commit().await.unwrap();
        }
    }
    // A backend of one process has nobody to tell.
    if let Some(mut heard) = heard {
        assert_eq!(heard.next().await.unwrap(), Some([2; 32]));
    }
}

pub async fn tallies_count_an_even_prediction_as_one_half(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let ada = user("ada");
    come(storage, &tenant, &[("ada", &[]), ("bob", &[])]).await;
    let mut writing = begin(storage, &tenant).await;
    let ids = ["e0", "e1", "e2", "e3", "e4"];
    let examples: Vec<_> = (0..).zip(ids).map(|(position, id)| example(id, position)).collect();
    for id in ["ada", "bob"] {
        writing.add_examples(&user(id), "minilm@1", &examples).await.unwrap();
    }
    let next_above_half = 0.500_000_000_000_000_1;
    let said = [(0.0, 1.0), (0.5, 0.5), (next_above_half, 0.5), (1.0, 0.499), (0.25, 0.5)];
    let predictions: Vec<_> =
        ids.iter().zip(said).map(|(id, (own, all))| prediction(id, model("bt", "1"), own, all)).collect();
    writing.add_predictions(&ada, &predictions).await.unwrap();
    writing.add_predictions(&user("bob"), &predictions[..1]).await.unwrap();
    assert!(writing.add_predictions(&ada, &[]).await.is_ok());
    writing.commit().await.unwrap();
    let expected =
        ModelTally { model: model("bt", "1"), predictions: 5, correct: 2.5, population_correct: 2.5 };
    assert_eq!(storage.tallies(&tenant, &ada).await.unwrap(), [expected]);
}

pub async fn tallies_come_in_the_order_of_names_then_versions(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let mut writing = begin(storage, &tenant).await;
    writing.hold_or_create_user(&user("ada"), at(0)).await.unwrap();
    writing.add_examples(&user("ada"), "minilm@1", &[example("e", 0)]).await.unwrap();
    // `pal@2` comes before `pal-a@1` and `pal.b@1`, though `-` and `.` come before `@`.
    let sorted = [("bt", "1"), ("pal", "1"), ("pal", "2"), ("pal-a", "1"), ("pal.b", "1"), ("pal0", "0")];
    for (name, version) in sorted.into_iter().rev() {
        let made = prediction("e", model(name, version), 0.7, 0.2);
        writing.add_predictions(&user("ada"), &[made]).await.unwrap();
    }
    writing.commit().await.unwrap();
    let tallies = storage.tallies(&tenant, &user("ada")).await.unwrap();
    let models: Vec<_> = tallies.into_iter().map(|tally| tally.model).collect();
    assert_eq!(models, sorted.map(|(name, version)| model(name, version)));
}
