//! Pairs that several people judged, and predictions that were far off.

use polyreward_domain::{Attributes, TenantId};
use time::{Duration, OffsetDateTime, macros::datetime};

use super::fixtures::{Made, attributes, come, made, predicted, predictions};
use crate::{PairVotes, Span, Storage};

const START: OffsetDateTime = datetime!(2026-03-02 09:00 UTC);

/// A judgement of the pair of two names.
fn judged(chosen: u64, rejected: u64) -> Made {
    Made { names: [chosen, rejected], ..made(START) }
}

fn sides(votes: &[PairVotes]) -> Vec<(Option<&str>, u64, u64)> {
    votes
        .iter()
        .map(|vote| (vote.group.first().and_then(|value| value.as_deref()), vote.first, vote.second))
        .collect()
}

pub async fn people_take_sides_of_a_pair_whichever_was_chosen(storage: &dyn Storage) {
    let tenant = TenantId::default();
    // The order of the names is that of signed numbers; a side has no name of its own.
    let (low, high) = (u64::MAX, 5);
    predicted(storage, &tenant, "ada", &[judged(low, high)]).await;
    predicted(storage, &tenant, "bob", &[judged(low, high)]).await;
    predicted(storage, &tenant, "cid", &[judged(high, low)]).await;
    // More often one side than the other counts once.
    predicted(storage, &tenant, "dot", &[judged(high, low), judged(low, high), judged(high, low)]).await;
    predicted(storage, &tenant, "eve", &[judged(low, high), judged(low, high)]).await;
    // As often one side as the other does not count.
    predicted(storage, &tenant, "fay", &[judged(high, low), judged(low, high)]).await;
    let votes = storage.pair_votes(&tenant, Span::default(), &[], 9).await.unwrap();
    assert_eq!(sides(&votes), [(None, 3, 2)]);
    assert_eq!(votes[0].pair.cast_unsigned(), low ^ high);
}

pub async fn pairs_that_nobody_shares_are_left_out(storage: &dyn Storage) {
    let tenant = TenantId::default();
    // Of one person, of one person and one who is undecided, and of twice the same text.
    predicted(storage, &tenant, "ada", &[judged(1, 2), judged(1, 2), judged(3, 4), judged(9, 9)]).await;
    predicted(storage, &tenant, "bob", &[judged(3, 4), judged(4, 3), judged(9, 9)]).await;
    assert_eq!(storage.pair_votes(&tenant, Span::default(), &[], 9).await.unwrap(), []);
}

pub async fn votes_are_counted_by_group(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(
        storage,
        &tenant,
        &[("a", &[("country", "UK")]), ("b", &[("country", "UK")]), ("c", &[("country", "FR")]), ("d", &[])],
    )
    .await;
    for (id, chosen, rejected) in [("a", 1, 2), ("b", 2, 1), ("c", 1, 2), ("d", 2, 1)] {
        predicted(storage, &tenant, id, &[judged(chosen, rejected)]).await;
    }
    let mut votes = storage.pair_votes(&tenant, Span::default(), &["country".to_owned()], 9).await.unwrap();
    votes.sort_by(|a, b| a.group.cmp(&b.group));
    assert_eq!(sides(&votes), [(None, 0, 1), (Some("FR"), 1, 0), (Some("UK"), 1, 1)]);
}

pub async fn votes_are_those_of_a_span(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let at = |made: Made, second| Made { created_at: START + Duration::seconds(second), ..made };
    predicted(storage, &tenant, "ada", &[at(judged(1, 2), 0), at(judged(2, 1), 5), at(judged(2, 1), 6)])
        .await;
    predicted(storage, &tenant, "bob", &[at(judged(1, 2), 5)]).await;
    let votes = async |from: Option<i64>, to: Option<i64>| {
        let moment = |second: Option<i64>| second.map(|second| START + Duration::seconds(second));
        let votes = storage.pair_votes(&tenant, Span { from: moment(from), to: moment(to) }, &[], 9).await;
        votes.unwrap().iter().map(|vote| (vote.first, vote.second)).collect::<Vec<_>>()
    };
    assert_eq!(votes(None, None).await, [(1, 1)]);
    assert_eq!(votes(Some(0), Some(6)).await, [], "one of them was undecided before");
    assert_eq!(votes(Some(1), Some(7)).await, [(1, 1)]);
    assert_eq!(votes(None, Some(5)).await, []);
}

pub async fn pairs_come_in_the_order_of_their_digests_and_whole(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(storage, &tenant, &[("ada", &[("country", "UK")]), ("bob", &[("country", "FR")])]).await;
    for id in ["ada", "bob"] {
        let pairs = [8, 1 << 63, 4].map(|name| judged(name, 0));
        predicted(storage, &tenant, id, &pairs).await;
    }
    let pairs = async |limit| {
        let votes = storage.pair_votes(&tenant, Span::default(), &["country".to_owned()], limit).await;
        votes.unwrap().iter().map(|vote| vote.pair).collect::<Vec<_>>()
    };
    let (first, second, third) = (i64::MIN, 4, 8);
    assert_eq!(pairs(9).await, [first, first, second, second, third, third]);
    assert_eq!(pairs(6).await, [first, first, second, second, third, third]);
    assert_eq!(pairs(5).await, [first, first, second, second], "half a pair is none");
    assert_eq!(pairs(4).await, [first, first, second, second]);
    assert_eq!(pairs(0).await, []);
}

pub async fn mistakes_come_with_the_worst_first(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let of = |preference, shot| Made { shot, preference, ..made(START) };
    predicted(storage, &tenant, "bob", &[of(0.3, 0), of(0.1, 1)]).await;
    predicted(storage, &tenant, "ada", &[of(0.9, 0), of(0.3, 1), of(0.001, 2)]).await;
    let asked = predictions(Span::default());
    let mistakes = storage.mistakes(&tenant, &asked, &Attributes::new(), 4).await.unwrap();
    let told: Vec<_> = mistakes.iter().map(|one| (one.user_id.as_str(), one.shot, one.preference)).collect();
    assert_eq!(told, [("ada", 2, 0.001), ("bob", 1, 0.1), ("ada", 1, 0.3), ("bob", 0, 0.3)]);
    let examples = storage.examples(&tenant, &mistakes[0].user_id, None, 9).await.unwrap();
    let example = &examples[2];
    assert_eq!(
        (&mistakes[0].example_id, &mistakes[0].prompt, &mistakes[0].chosen, &mistakes[0].rejected),
        (
            &example.example_id,
            &example.comparison.prompt,
            &example.comparison.chosen,
            &example.comparison.rejected
        )
    );
    assert_eq!(mistakes[0].population_preference, made(START).population_preference);
    assert_eq!(mistakes[0].created_at, START);
    assert_eq!(storage.mistakes(&tenant, &asked, &Attributes::new(), 0).await.unwrap(), []);
}

pub async fn mistakes_are_those_of_people_with_every_attribute(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(
        storage,
        &tenant,
        &[
            ("a", &[("country", "UK"), ("age", "30")]),
            ("b", &[("country", "UK"), ("age", "UK")]),
            ("c", &[("country", "FR"), ("age", "30")]),
            ("d", &[]),
        ],
    )
    .await;
    for id in ["a", "b", "c", "d"] {
        predicted(storage, &tenant, id, &[made(START)]).await;
    }
    let of = async |group: &[(&str, &str)]| {
        let asked = predictions(Span::default());
        let mistakes = storage.mistakes(&tenant, &asked, &attributes(group), 9).await.unwrap();
        mistakes.iter().map(|one| one.user_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(of(&[]).await, ["a", "b", "c", "d"]);
    assert_eq!(of(&[("country", "UK")]).await, ["a", "b"]);
    assert_eq!(of(&[("country", "UK"), ("age", "30")]).await, ["a"]);
    assert_eq!(of(&[("country", "%")]).await, [""; 0]);
}
