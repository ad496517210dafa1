//! Predictions added up.

use polyreward_domain::{Attributes, StateVersion, Tally, TenantId, correctness};
use time::{Duration, OffsetDateTime, macros::datetime};

use super::fixtures::{
    Made, begin, come, example_id, made, model, predicted, predictions, two_tenants, user,
};
use crate::{CrowdSums, GroupValues, MeasuredModel, Moment, PersonSums, SHOTS, Span, Step, Storage};

const START: OffsetDateTime = datetime!(2026-03-02 09:00 UTC);

fn tally(told: &[(f64, f64, Option<f64>)]) -> Tally {
    let mut tally = Tally::default();
    for (preference, population, baseline) in told {
        tally.add(*preference, *population, *baseline);
    }
    tally
}

/// Sums of floating numbers depend on their order in the last bits.
#[track_caller]
fn assert_close(left: f64, right: f64) {
    assert!((left - right).abs() < 1e-9, "{left} is not {right}");
}

#[track_caller]
fn assert_tallies(tally: &Tally, expected: &Tally) {
    for (bin, expected) in tally.bins.iter().zip(&expected.bins) {
        assert_eq!((bin.n, bin.correct), (expected.n, expected.correct), "{tally:?}");
        assert_close(bin.confidence, expected.confidence);
    }
    assert_close(tally.log_loss, expected.log_loss);
    assert_eq!(
        (tally.population_correct, tally.baseline_n, tally.baseline_correct),
        (expected.population_correct, expected.baseline_n, expected.baseline_correct)
    );
}

fn values(group: &[Option<&str>]) -> GroupValues {
    group.iter().map(|value| value.map(str::to_owned)).collect()
}

fn keys(group_by: &[&str]) -> Vec<String> {
    group_by.iter().map(|key| (*key).to_owned()).collect()
}

/// What people of one row make together.
fn crowd(people: &[&[(f64, f64, Option<f64>)]]) -> CrowdSums {
    let mut sums = CrowdSums::default();
    for told in people {
        let tally = tally(told);
        let (n, correct) = (told.len() as f64, told.iter().map(|(p, _, _)| correctness(*p)).sum::<f64>());
        let gain = correct - tally.population_correct;
        sums.users += 1;
        sums.n += tally.n();
        sums.correct += correct;
        sums.log_loss += tally.log_loss;
        sums.population_correct += tally.population_correct;
        sums.baseline_n += tally.baseline_n;
        sums.baseline_correct += tally.baseline_correct;
        sums.n_n += n * n;
        sums.n_correct += n * correct;
        sums.correct_correct += correct * correct;
        sums.n_gain += n * gain;
        sums.gain_gain += gain * gain;
    }
    sums
}

#[track_caller]
fn assert_sums(sums: &CrowdSums, expected: &CrowdSums) {
    assert_close(sums.log_loss, expected.log_loss);
    assert_eq!(CrowdSums { log_loss: expected.log_loss, ..*sums }, *expected);
}

pub async fn predictions_are_added_up_by_person(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(storage, &tenant, &[("bob", &[]), ("B", &[]), ("ada", &[]), ("idle", &[])]).await;
    // Every class, its edges, and the ends of what a preference may be.
    let ada = [0.5, 0.51, 0.6, 0.601, 0.4, 0.7, 0.25, 0.8, 0.9, 0.05, 1.0, 0.0]
        .map(|preference| (preference, 1.0 - preference, (preference > 0.5).then_some(0.5)));
    let bob = [(0.75, 0.5, None), (0.75, 0.75, Some(0.25))];
    for (id, told) in [("ada", &ada[..]), ("bob", &bob), ("B", &bob[..1])] {
        let told: Vec<Made> = told
            .iter()
            .map(|(preference, population_preference, baseline_preference)| Made {
                preference: *preference,
                population_preference: *population_preference,
                baseline_preference: *baseline_preference,
                ..made(START)
            })
            .collect();
        predicted(storage, &tenant, id, &told).await;
    }
    let sums = storage.person_sums(&tenant, &predictions(Span::default()), &[]).await.unwrap();
    let people: Vec<_> = sums.iter().map(|person| (person.user_id.as_str(), person.group.len())).collect();
    assert_eq!(people, [("B", 0), ("ada", 0), ("bob", 0)]);
    for (person, told) in sums.iter().zip([&bob[..1], &ada[..], &bob[..]]) {
        assert_tallies(&person.tally, &tally(told));
    }
    assert_eq!(sums[1].tally.bins.map(|bin| bin.n), [1, 3, 2, 2, 1, 3]);
    let nobody = crate::Predictions { model: model("bt", "none"), span: Span::default() };
    assert_eq!(storage.person_sums(&tenant, &nobody, &[]).await.unwrap(), []);
}

pub async fn a_span_holds_its_first_moment_and_not_the_one_after_it(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let told: Vec<Made> = (0..4).map(|second| made(START + Duration::microseconds(second))).collect();
    predicted(storage, &tenant, "ada", &told).await;
    let moment = |microsecond| Some(START + Duration::microseconds(microsecond));
    for (from, to, expected) in [
        (None, None, 4),
        (moment(0), moment(4), 4),
        (moment(1), None, 3),
        (None, moment(3), 3),
        (moment(1), moment(2), 1),
        (moment(2), moment(2), 0),
        (moment(3), moment(0), 0),
        (moment(4), None, 0),
    ] {
        let span = Span { from, to };
        let asked = predictions(span);
        let people = storage.person_sums(&tenant, &asked, &[]).await.unwrap();
        let shots = storage.shot_sums(&tenant, &asked, &[]).await.unwrap();
        let steps = storage.step_sums(&tenant, &asked, &[], Step::Hour, 9).await.unwrap();
        let mistakes = storage.mistakes(&tenant, &asked, &Attributes::new(), 9).await.unwrap();
        let counted = [
            people.iter().map(|person| person.tally.n()).sum::<u64>(),
            shots.iter().map(|row| row.sums.n).sum(),
            steps.iter().map(|row| row.sums.n).sum(),
            mistakes.len() as u64,
        ];
        assert_eq!(counted, [expected; 4], "{span:?}");
        assert_eq!(people.len(), usize::from(expected > 0), "people without a prediction are left out");
    }
}

/// Attributes asked for, and what four people have of them.
type Case<'a> = (&'a [&'a str], [&'a [Option<&'a str>]; 4]);

pub async fn groups_are_the_values_asked_for_in_their_order(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let odd = "it's 100 % \\ _ \"odd\" 🙂";
    come(
        storage,
        &tenant,
        &[
            ("a", &[("country", "UK"), ("age", "30"), ("mood", "UK")]),
            ("b", &[("age", "30"), (odd, odd)]),
            ("c", &[("country", "UK")]),
            ("d", &[]),
        ],
    )
    .await;
    for id in ["a", "b", "c", "d"] {
        predicted(storage, &tenant, id, &[made(START)]).await;
    }
    let (uk, thirty, strange) = (Some("UK"), Some("30"), Some(odd));
    let cases: [Case<'_>; 5] = [
        (&[], [&[], &[], &[], &[]]),
        (&["country"], [&[uk], &[None], &[uk], &[None]]),
        (&["country", "age"], [&[uk, thirty], &[None, thirty], &[uk, None], &[None, None]]),
        (&["age", odd], [&[thirty, None], &[thirty, strange], &[None, None], &[None, None]]),
        (&["nothing"], [&[None], &[None], &[None], &[None]]),
    ];
    let asked = predictions(Span::default());
    for (group_by, expected) in cases {
        let group_by = keys(group_by);
        let expected: Vec<GroupValues> = expected.iter().map(|group| values(group)).collect();
        let people = storage.person_sums(&tenant, &asked, &group_by).await.unwrap();
        assert_eq!(people.into_iter().map(|person| person.group).collect::<Vec<_>>(), expected);
        // Everybody made one prediction, so that a group has as many as people.
        let mut counted: Vec<(GroupValues, u64)> = Vec::new();
        for group in expected {
            match counted.iter_mut().find(|(known, _)| *known == group) {
                Some((_, count)) => *count += 1,
                None => counted.push((group, 1)),
            }
        }
        counted.sort();
        let shots = storage.shot_sums(&tenant, &asked, &group_by).await.unwrap();
        let mut shots: Vec<_> = shots.into_iter().map(|row| (row.group, row.sums.users)).collect();
        shots.sort();
        assert_eq!(shots, counted);
        let steps = storage.step_sums(&tenant, &asked, &group_by, Step::Day, 9).await.unwrap();
        let mut steps: Vec<_> = steps.into_iter().map(|row| (row.group, row.sums.users)).collect();
        steps.sort();
        assert_eq!(steps, counted);
    }
    let too_many = keys(&["country", "age", "mood"]);
    assert!(storage.shot_sums(&tenant, &asked, &too_many).await.is_err());
}

pub async fn measures_see_nothing_of_another_tenant(storage: &dyn Storage) {
    let [left, right] = two_tenants(storage).await;
    come(storage, &left, &[("ada", &[("country", "UK")])]).await;
    come(storage, &right, &[("ada", &[("country", "FR")])]).await;
    for (tenant, count) in [(&left, 2), (&right, 1)] {
        for id in ["ada", "bob"] {
            predicted(storage, tenant, id, &vec![made(START); count]).await;
        }
    }
    let (asked, country) = (predictions(Span::default()), keys(&["country"]));
    for (tenant, count, value) in [(&left, 2, "UK"), (&right, 1, "FR")] {
        let people = storage.person_sums(tenant, &asked, &country).await.unwrap();
        let seen: Vec<_> =
            people.iter().map(|person| (person.group[0].as_deref(), person.tally.n())).collect();
        assert_eq!(seen, [(Some(value), count), (None, count)]);
        let shots = storage.shot_sums(tenant, &asked, &[]).await.unwrap();
        assert_eq!((shots.len(), shots[0].sums.n), (1, 2 * count));
        let steps = storage.step_sums(tenant, &asked, &[], Step::Week, 9).await.unwrap();
        assert_eq!((steps.len(), steps[0].sums.n), (1, 2 * count));
        let votes = storage.pair_votes(tenant, Span::default(), &[], 9).await.unwrap();
        assert_eq!(votes.iter().map(|vote| vote.first + vote.second).sum::<u64>(), 2);
        let mistakes = storage.mistakes(tenant, &asked, &Attributes::new(), 9).await.unwrap();
        assert_eq!(mistakes.len() as u64, 2 * count);
        assert_eq!(storage.measured_models(tenant).await.unwrap().len(), 1);
        assert_eq!(storage.moment(tenant).await.unwrap().users, 2);
    }
    let nobodys = TenantId::default();
    assert_eq!(storage.person_sums(&nobodys, &asked, &country).await.unwrap(), []);
    assert_eq!(storage.pair_votes(&nobodys, Span::default(), &country, 9).await.unwrap(), []);
    assert_eq!(storage.measured_models(&nobodys).await.unwrap(), []);
    assert_eq!(storage.mistakes(&nobodys, &asked, &Attributes::new(), 9).await.unwrap(), []);
    let empty = Moment { users: 0, upper: 0, lower: 0, changed_at: None, ticks: 0 };
    assert_eq!(storage.moment(&nobodys).await.unwrap(), empty);
}

pub async fn what_is_erased_is_not_measured(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let asked = predictions(Span::default());
    for id in ["ada", "bob"] {
        predicted(storage, &tenant, id, &[made(START), made(START), made(START)]).await;
    }
    let counted = async || {
        let people: Vec<PersonSums> = storage.person_sums(&tenant, &asked, &[]).await.unwrap();
        let people: Vec<_> =
            people.iter().map(|person| (person.user_id.to_string(), person.tally.n())).collect();
        let votes = storage.pair_votes(&tenant, Span::default(), &[], 9).await.unwrap();
        let mistakes = storage.mistakes(&tenant, &asked, &Attributes::new(), 99).await.unwrap();
        (people, votes.len(), mistakes.len())
    };
    let person = |id: &str, n| (id.to_owned(), n);
    assert_eq!(counted().await, (vec![person("ada", 3), person("bob", 3)], 1, 6));
    let mut writing = begin(storage, &tenant).await;
    assert!(writing.erase_example(&user("ada"), &example_id("e1")).await.unwrap());
    writing.commit().await.unwrap();
    assert_eq!(counted().await, (vec![person("ada", 2), person("bob", 3)], 1, 5));
    let mut writing = begin(storage, &tenant).await;
    assert!(writing.erase_user(&user("bob")).await.unwrap());
    writing.commit().await.unwrap();
    assert_eq!(counted().await, (vec![person("ada", 2)], 0, 2));
}

pub async fn numbers_of_examples_fall_into_their_class(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(storage, &tenant, &[("ada", &[("country", "UK")]), ("bob", &[("country", "UK")])]).await;
    // The first and the last number of each class; the last class has no last one.
    let edges: Vec<u64> = SHOTS.iter().chain(SHOTS[1..].iter()).copied().collect();
    let told: Vec<Made> = edges
        .iter()
        .enumerate()
        .map(|(place, edge)| Made { shot: if place < SHOTS.len() { *edge } else { edge - 1 }, ..made(START) })
        .chain([Made { shot: 1 << 40, ..made(START) }])
        .collect();
    predicted(storage, &tenant, "ada", &told).await;
    let right = (0.9, 0.2, Some(0.5));
    let wrong = (0.2, 0.5, None);
    let of = |(preference, population_preference, baseline_preference): (f64, f64, Option<f64>)| Made {
        shot: 5,
        preference,
        population_preference,
        baseline_preference,
        ..made(START)
    };
    predicted(storage, &tenant, "bob", &[of(right), of(right), of(wrong)]).await;
    let mut shots =
        storage.shot_sums(&tenant, &predictions(Span::default()), &keys(&["country"])).await.unwrap();
    shots.sort_by_key(|row| row.class);
    let classes: Vec<_> = shots.iter().map(|row| row.class).collect();
    assert_eq!(classes, (0..SHOTS.len()).collect::<Vec<_>>());
    let usual = (made(START).preference, made(START).population_preference, made(START).baseline_preference);
    for row in &shots {
        assert_eq!(row.group, values(&[Some("UK")]));
        let expected: CrowdSums = match row.class {
            // 4 and 5 examples.
            4 => crowd(&[&[usual, usual], &[right, right, wrong]]),
            _ => crowd(&[&[usual, usual]]),
        };
        assert_sums(&row.sums, &expected);
    }
}

pub async fn steps_begin_with_hours_days_and_mondays_of_utc(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let moments = [
        datetime!(1969-12-28 23:59:59.999999 UTC),
        datetime!(1969-12-29 00:00 UTC),
        datetime!(1970-01-01 00:30 UTC),
        datetime!(2024-12-29 23:59:59.999999 UTC),
        datetime!(2024-12-30 00:00 UTC),
        datetime!(2025-01-01 00:59:59.999999 UTC),
        datetime!(2025-01-05 23:00 UTC),
        // A Monday morning in the east is still a Sunday of UTC.
        datetime!(2025-01-06 05:00 +9),
    ];
    predicted(storage, &tenant, "ada", &moments.map(made)).await;
    predicted(storage, &tenant, "bob", &moments.map(made)[7..]).await;
    let starts = async |step| {
        let asked = predictions(Span::default());
        let mut steps = storage.step_sums(&tenant, &asked, &[], step, 99).await.unwrap();
        steps.sort_by_key(|row| row.start);
        steps.into_iter().map(|row| (row.start, row.sums.users, row.sums.n)).collect::<Vec<_>>()
    };
    assert_eq!(
        starts(Step::Hour).await,
        [
            (datetime!(1969-12-28 23:00 UTC), 1, 1),
            (datetime!(1969-12-29 00:00 UTC), 1, 1),
            (datetime!(1970-01-01 00:00 UTC), 1, 1),
            (datetime!(2024-12-29 23:00 UTC), 1, 1),
            (datetime!(2024-12-30 00:00 UTC), 1, 1),
            (datetime!(2025-01-01 00:00 UTC), 1, 1),
            (datetime!(2025-01-05 20:00 UTC), 2, 2),
            (datetime!(2025-01-05 23:00 UTC), 1, 1),
        ]
    );
    assert_eq!(
        starts(Step::Day).await,
        [
            (datetime!(1969-12-28 00:00 UTC), 1, 1),
            (datetime!(1969-12-29 00:00 UTC), 1, 1),
            (datetime!(1970-01-01 00:00 UTC), 1, 1),
            (datetime!(2024-12-29 00:00 UTC), 1, 1),
            (datetime!(2024-12-30 00:00 UTC), 1, 1),
            (datetime!(2025-01-01 00:00 UTC), 1, 1),
            (datetime!(2025-01-05 00:00 UTC), 2, 3),
        ]
    );
    assert_eq!(
        starts(Step::Week).await,
        [
            (datetime!(1969-12-22 00:00 UTC), 1, 1),
            (datetime!(1969-12-29 00:00 UTC), 1, 2),
            (datetime!(2024-12-23 00:00 UTC), 1, 1),
            (datetime!(2024-12-30 00:00 UTC), 2, 5),
        ]
    );
    let some = storage.step_sums(&tenant, &predictions(Span::default()), &[], Step::Hour, 3).await.unwrap();
    assert_eq!(some.len(), 3);
}

pub async fn steps_add_up_what_people_did_in_them(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(storage, &tenant, &[("ada", &[("country", "UK")]), ("bob", &[("country", "UK")])]).await;
    let (right, wrong, even) = ((0.9, 0.2, Some(0.5)), (0.2, 0.5, None), (0.5, 0.7, Some(0.1)));
    let of = |(preference, population_preference, baseline_preference): (f64, f64, Option<f64>)| Made {
        preference,
        population_preference,
        baseline_preference,
        ..made(START)
    };
    predicted(storage, &tenant, "ada", &[of(right), of(wrong), of(even)]).await;
    predicted(storage, &tenant, "bob", &[of(right)]).await;
    let asked = predictions(Span::default());
    let steps = storage.step_sums(&tenant, &asked, &keys(&["country"]), Step::Day, 9).await.unwrap();
    assert_eq!(steps.len(), 1);
    assert_eq!((&steps[0].group, steps[0].start), (&values(&[Some("UK")]), datetime!(2026-03-02 00:00 UTC)));
    assert_sums(&steps[0].sums, &crowd(&[&[right, wrong, even], &[right]]));
}

pub async fn models_that_have_predicted_are_listed_with_the_newest_last(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let by = |name: &str, version: &str, second| Made {
        model: model(name, version),
        ..made(START + Duration::seconds(second))
    };
    predicted(storage, &tenant, "ada", &[by("pal-a", "2", 5), by("pal-a", "1", 3)]).await;
    predicted(storage, &tenant, "bob", &[by("pal-a", "2", 4), by("bt", "1", 9), by("pal-a", "1", 20)]).await;
    let listed = |name: &str, version: &str, first, last| MeasuredModel {
        model: model(name, version),
        first: START + Duration::seconds(first),
        last: START + Duration::seconds(last),
    };
    let expected = [listed("pal-a", "1", 3, 20), listed("pal-a", "2", 4, 5), listed("bt", "1", 9, 9)];
    assert_eq!(storage.measured_models(&tenant).await.unwrap(), expected);
}

pub async fn a_moment_is_another_when_examples_or_attributes_are(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(storage, &tenant, &[("ada", &[]), ("bob", &[])]).await;
    let mut before = storage.moment(&tenant).await.unwrap();
    assert_eq!((before.users, before.upper, before.lower), (2, 0, 0));
    assert_eq!(storage.moment(&tenant).await.unwrap(), before, "nothing happened");
    let saved = async |version, second| {
        let mut writing = begin(storage, &tenant).await;
        let version = StateVersion::from_number(version);
        let now = START + Duration::days(3650) + Duration::seconds(second);
        writing.save_user(&user("ada"), version, 1, 1, now).await.unwrap();
        writing.commit().await.unwrap();
        storage.moment(&tenant).await.unwrap()
    };
    // An example, another one, its erasure, attributes.
    for (version, second) in [(7, 0), (u64::MAX, 1), (1 << 63, 2), (1 << 63, 3)] {
        let after = saved(version, second).await;
        assert_ne!(after, before);
        assert_eq!(after.upper, version.cast_signed() >> 32);
        assert_eq!(after.lower, version.cast_signed() & 0xFFFF_FFFF);
        assert_eq!(after.changed_at, Some(START + Duration::days(3650) + Duration::seconds(second)));
        before = after;
    }
    let mut writing = begin(storage, &tenant).await;
    writing.hold_user(&user("ada")).await.unwrap();
    writing.commit().await.unwrap();
    assert_eq!(storage.moment(&tenant).await.unwrap(), before, "somebody who was only held");
    let mut writing = begin(storage, &tenant).await;
    assert!(writing.erase_user(&user("bob")).await.unwrap());
    writing.commit().await.unwrap();
    assert_ne!(storage.moment(&tenant).await.unwrap(), before);
}
