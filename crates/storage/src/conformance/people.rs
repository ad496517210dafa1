//! Who there is, and what is known of them.

use polyreward_domain::{Attributes, StateVersion, TenantId, UserId};

use super::fixtures::{
    Held, Seen, at, attributes, begin, come, held, held_in, seen, stored, two_tenants, user, users,
};
use crate::{Crowd, GroupCount, MAX_FOUND, PersonSummary, Storage, UserRecord};

fn ids(people: &[PersonSummary]) -> Vec<&str> {
    people.iter().map(|person| person.user_id.as_str()).collect()
}

pub async fn found_people_come_in_the_order_asked_and_an_unknown_one_is_none(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(storage, &tenant, &[("ada", &[]), ("bob", &[]), ("cyd", &[])]).await;
    let asked = users(&["cyd", "nobody", "ada", "cyd", "Ada", "bob"]);
    let found = storage.find(&tenant, &asked).await.unwrap();
    let found: Vec<_> = found.iter().map(|one| one.as_ref().map(|one| one.user_id.as_str())).collect();
    assert_eq!(found, [Some("cyd"), None, Some("ada"), Some("cyd"), None, Some("bob")]);
    assert_eq!(storage.find(&tenant, &[]).await.unwrap(), []);
}

pub async fn as_many_people_as_a_request_may_name_are_found_at_once(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(storage, &tenant, &[("u0", &[]), ("u65535", &[])]).await;
    let asked: Vec<UserId> = (0..MAX_FOUND).map(|number| user(&format!("u{number}"))).collect();
    let found = storage.find(&tenant, &asked).await.unwrap();
    let places: Vec<usize> = (0..found.len()).filter(|place| found[*place].is_some()).collect();
    assert_eq!((found.len(), places), (MAX_FOUND, vec![0, MAX_FOUND - 1]));
}

pub async fn a_person_comes_once_and_stays_who_they_are(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let mut writing = begin(storage, &tenant).await;
    let (came, created) = writing.hold_or_create_user(&user("ada"), at(1)).await.unwrap();
    let expected = UserRecord {
        user_id: user("ada"),
        version: StateVersion::POPULATION,
        examples: 0,
        next_position: 0,
        attributes: Attributes::new(),
        created_at: at(1),
        updated_at: at(1),
    };
    assert_eq!((&came, created), (&expected, true));
    assert_eq!(writing.hold_or_create_user(&user("ada"), at(2)).await.unwrap(), (expected.clone(), false));
    writing.commit().await.unwrap();

    let mut writing = begin(storage, &tenant).await;
    assert_eq!(writing.hold_or_create_user(&user("ada"), at(3)).await.unwrap(), (expected.clone(), false));
    assert_eq!(writing.hold_user(&user("ada")).await.unwrap(), Some(expected.clone()));
    drop(writing);
    assert_eq!(storage.user(&tenant, &user("ada")).await.unwrap(), Some(expected));
}

pub async fn nobody_is_held_where_there_is_nobody(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let mut writing = begin(storage, &tenant).await;
    assert_eq!(writing.hold_user(&user("ada")).await.unwrap(), None);
    assert_eq!(held_in(&mut *writing, &user("ada")).await, Held::default());
    assert!(!writing.erase_user(&user("ada")).await.unwrap());
    assert_eq!(writing.remove_states(&user("ada")).await.unwrap(), 0);
    writing.commit().await.unwrap();
    assert_eq!(seen(storage, &tenant, &user("ada")).await, Seen::default());
}

pub async fn people_are_listed_page_by_page_in_the_order_of_their_bytes(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let sorted = ["-", "0", "00", "9", "A", "B", "B.b", "_", "a", "a-b", "a.b", "ab", "~"];
    let longest = "~".repeat(128);
    for id in sorted.iter().copied().rev().chain([longest.as_str()]) {
        come(storage, &tenant, &[(id, &[("key", id)])]).await;
    }
    let mut listed = Vec::new();
    loop {
        let page =
            storage.users(&tenant, listed.last().map(|one: &UserRecord| &one.user_id), 3).await.unwrap();
        let full = page.len() == 3;
        listed.extend(page);
        if !full {
            break;
        }
    }
    let listed: Vec<_> =
        listed.iter().map(|one| (one.user_id.as_str(), one.attributes["key"].as_str())).collect();
    let expected: Vec<_> = sorted.iter().copied().chain([longest.as_str()]).map(|id| (id, id)).collect();
    assert_eq!(listed, expected);
    assert_eq!(storage.users(&tenant, None, 0).await.unwrap(), []);
    assert_eq!(storage.users(&tenant, None, usize::MAX).await.unwrap().len(), 14);
    assert_eq!(storage.users(&tenant, Some(&user(&longest)), 9).await.unwrap(), []);
    let everybody = storage.members(&tenant, &Attributes::new(), 4).await.unwrap();
    assert_eq!(ids(&everybody), sorted[..4]);
}

pub async fn a_crowd_is_another_when_anybodys_examples_are(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(storage, &tenant, &[("ada", &[("country", "UK")]), ("bob", &[("country", "UK")]), ("cid", &[])])
        .await;
    let everybody = Attributes::new();
    let mut before = Crowd { members: 3, ..Crowd::default() };
    for (id, version) in
        [("ada", 1), ("bob", u64::MAX), ("bob", 1 << 63), ("cid", (1 << 32) - 1), ("ada", 1 << 32)]
    {
        let mut writing = begin(storage, &tenant).await;
        writing.save_user(&user(id), StateVersion::from_number(version), 1, 1, at(1)).await.unwrap();
        writing.commit().await.unwrap();
        let crowd = storage.crowd(&tenant, &everybody).await.unwrap();
        assert_ne!(crowd, before);
        assert_eq!(crowd, Crowd::of(&storage.members(&tenant, &everybody, 9).await.unwrap()));
        before = crowd;
    }
    let uk = attributes(&[("country", "UK")]);
    assert_eq!(
        storage.crowd(&tenant, &uk).await.unwrap(),
        Crowd::of(&storage.members(&tenant, &uk, 9).await.unwrap())
    );
    assert_eq!(storage.crowd(&"other".parse().unwrap(), &everybody).await.unwrap(), Crowd::default());
}

pub async fn a_watermark_is_another_after_every_write_and_no_read(storage: &dyn Storage) {
    let (tenant, other): (_, TenantId) = (TenantId::default(), "other".parse().unwrap());
    let watermark = async || storage.watermark(&tenant).await.unwrap();
    let mut before = watermark().await;
    come(storage, &tenant, &[("ada", &[("country", "UK")]), ("bob", &[])]).await;
    for number in 1..6 {
        let mut writing = begin(storage, &tenant).await;
        writing.save_user(&user("ada"), StateVersion::from_number(number), 1, 1, at(1)).await.unwrap();
        writing.commit().await.unwrap();
        let after = watermark().await;
        assert_ne!(after, before);
        before = after;
    }
    storage.members(&tenant, &Attributes::new(), 9).await.unwrap();
    storage.crowd(&other, &Attributes::new()).await.unwrap();
    // Another database of the same server may be written to meanwhile: it is the same some time, not every time.
    let mut alike = false;
    for _ in 0..100 {
        let after = watermark().await;
        alike |= after == before;
        before = after;
    }
    assert!(alike);
}

pub async fn members_have_every_attribute_asked_for(storage: &dyn Storage) {
    let tenant = TenantId::default();
    let odd = "it's 100 % \\ _ \"odd\" 🙂";
    come(
        storage,
        &tenant,
        &[
            ("b", &[("country", "UK"), ("age", "30")]),
            ("B", &[("country", "UK"), ("age", "30"), (odd, odd)]),
            ("c", &[("country", "UK"), ("age", "31")]),
            ("d", &[("country", "FR"), ("age", "30")]),
            ("e", &[("age", "UK"), ("country", "30")]),
            ("f", &[("country", "uk"), ("age", "30")]),
            ("g", &[]),
        ],
    )
    .await;
    let members = async |group: &[(&str, &str)], limit| {
        let people = storage.members(&tenant, &attributes(group), limit).await.unwrap();
        if limit > 8 {
            assert_eq!(storage.crowd(&tenant, &attributes(group)).await.unwrap(), Crowd::of(&people));
        }
        people.into_iter().map(|person| person.user_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(members(&[("country", "UK")], 9).await, ["B", "b", "c"]);
    assert_eq!(members(&[("country", "UK"), ("age", "30")], 9).await, ["B", "b"]);
    assert_eq!(members(&[("country", "UK"), ("age", "30")], 1).await, ["B"]);
    assert_eq!(members(&[("country", "UK"), ("age", "30"), (odd, odd)], 9).await, ["B"]);
    assert_eq!(members(&[(odd, odd)], usize::MAX).await, ["B"]);
    assert_eq!(members(&[("country", "%")], 9).await, [""; 0]);
    assert_eq!(members(&[("country", "UK"), ("nothing", "x")], 9).await, [""; 0]);
    assert_eq!(members(&[("country", "UK")], 0).await, [""; 0]);
    assert_eq!(members(&[], usize::MAX).await, ["B", "b", "c", "d", "e", "f", "g"]);

    let many: Attributes = (0..64).map(|number| (format!("key {number}"), "x".to_owned())).collect();
    let mut writing = begin(storage, &tenant).await;
    writing.put_attributes(&user("g"), &many).await.unwrap();
    writing.commit().await.unwrap();
    assert_eq!(ids(&storage.members(&tenant, &many, 9).await.unwrap()), ["g"]);
}

pub async fn groups_are_counted_page_by_page(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(
        storage,
        &tenant,
        &[
            ("a", &[("country", "UK"), ("age", "30")]),
            ("b", &[("country", "UK"), ("age", "4")]),
            ("c", &[("country", "FR"), ("Zeal", "é")]),
            ("d", &[("country", "uk"), ("é", "z")]),
        ],
    )
    .await;
    let expected = [
        ("Zeal", "é", 1),
        ("age", "30", 1),
        ("age", "4", 1),
        ("country", "FR", 1),
        ("country", "UK", 2),
        ("country", "uk", 1),
        ("é", "z", 1),
    ];
    let expected: Vec<GroupCount> = expected
        .into_iter()
        .map(|(key, value, users)| GroupCount { key: key.to_owned(), value: value.to_owned(), users })
        .collect();
    let mut counted: Vec<GroupCount> = Vec::new();
    loop {
        let after = counted.last().map(|last| (last.key.as_str(), last.value.as_str()));
        let page = storage.groups(&tenant, after, 2).await.unwrap();
        let full = page.len() == 2;
        counted.extend(page);
        if !full {
            break;
        }
    }
    assert_eq!(counted, expected);
    assert_eq!(storage.groups(&tenant, None, usize::MAX).await.unwrap(), expected);
    assert_eq!(storage.groups(&tenant, None, 0).await.unwrap(), []);
}

pub async fn attributes_are_replaced_as_a_whole_and_kept_to_the_byte(storage: &dyn Storage) {
    let tenant = TenantId::default();
    // A letter with its accent, and the same in two characters, are two values; so are those that a collation ignores.
    let odd = attributes(&[
        ("é", "composed"),
        ("e\u{301}", "decomposed"),
        ("quote", "it's \"quoted\" `so`"),
        ("like", "100%_\\"),
        ("slash", "\\u0041 \\n"),
        ("emoji", "👩‍👩‍👧‍👦🙂"),
        ("wide", "\u{200b}\u{2028}\u{feff}"),
        (" ", " "),
        ("number", "007"),
        ("null", "null"),
    ]);
    come(storage, &tenant, &[("ada", &[("country", "UK"), ("age", "30")]), ("bob", &[("age", "30")])]).await;
    for replaced in [odd, attributes(&[("age", "31")]), Attributes::new()] {
        let mut writing = begin(storage, &tenant).await;
        writing.put_attributes(&user("ada"), &replaced).await.unwrap();
        assert_eq!(writing.hold_user(&user("ada")).await.unwrap().unwrap().attributes, replaced);
        writing.commit().await.unwrap();
        assert_eq!(storage.user(&tenant, &user("ada")).await.unwrap().unwrap().attributes, replaced);
    }
    let bob = storage.user(&tenant, &user("bob")).await.unwrap().unwrap();
    assert_eq!(bob.attributes, attributes(&[("age", "30")]));
}

pub async fn what_is_counted_on_a_row_reads_back_in_all_64_bits(storage: &dyn Storage) {
    let tenant = TenantId::default();
    come(storage, &tenant, &[("ada", &[])]).await;
    for version in [1, i64::MAX.cast_unsigned(), i64::MAX.cast_unsigned() + 1, u64::MAX, 0] {
        let version = StateVersion::from_number(version);
        let mut writing = begin(storage, &tenant).await;
        writing.save_user(&user("ada"), version, 3, 1 << 40, at(9)).await.unwrap();
        writing.commit().await.unwrap();
        let record = storage.user(&tenant, &user("ada")).await.unwrap().unwrap();
        assert_eq!((record.version, record.examples, record.next_position), (version, 3, 1 << 40));
        assert_eq!((record.created_at, record.updated_at), (at(0), at(9)));
        let summary = PersonSummary { user_id: user("ada"), version, examples: 3 };
        assert_eq!(storage.find(&tenant, &[user("ada")]).await.unwrap(), [Some(summary.clone())]);
        assert_eq!(storage.members(&tenant, &Attributes::new(), 9).await.unwrap(), [summary]);
    }
}

pub async fn an_erased_person_leaves_nothing_and_comes_back_as_a_stranger(storage: &dyn Storage) {
    let tenant = TenantId::default();
    stored(storage, &tenant, &user("ada")).await;
    come(storage, &tenant, &[("nobody-else", &[])]).await;
    let mut writing = begin(storage, &tenant).await;
    assert!(writing.erase_user(&user("ada")).await.unwrap());
    assert_eq!(held_in(&mut *writing, &user("ada")).await, Held::default());
    assert!(!writing.erase_user(&user("ada")).await.unwrap());
    writing.commit().await.unwrap();
    assert_eq!(seen(storage, &tenant, &user("ada")).await, Seen::default());
    assert_eq!(held(storage, &tenant, &user("ada")).await, Held::default());
    assert!(storage.user(&tenant, &user("nobody-else")).await.unwrap().is_some());

    // Everything can be written again under the same names.
    stored(storage, &tenant, &user("ada")).await;
    assert_eq!(storage.examples(&tenant, &user("ada"), None, 9).await.unwrap().len(), 2);
    assert_eq!(storage.tallies(&tenant, &user("ada")).await.unwrap()[0].predictions, 2);
}

pub async fn attributes_that_people_have_are_listed_once_in_the_order_of_their_bytes(storage: &dyn Storage) {
    let [ours, theirs] = two_tenants(storage).await;
    assert_eq!(storage.attribute_keys(&ours, "", 10).await.unwrap(), Vec::<String>::new());
    let people: [(&str, &[(&str, &str)]); 3] =
        [("ada", &[("b", "1"), ("é", "1")]), ("bob", &[("b", "2"), ("B", "1")]), ("cyd", &[])];
    come(storage, &ours, &people).await;
    come(storage, &theirs, &[("eve", &[("a", "1")])]).await;
    assert_eq!(storage.attribute_keys(&ours, "", 10).await.unwrap(), ["B", "b", "é"]);
    assert_eq!(storage.attribute_keys(&ours, "", 2).await.unwrap(), ["B", "b"]);
    assert_eq!(storage.attribute_keys(&ours, "b", 1).await.unwrap(), ["b"]);
    assert_eq!(storage.attribute_keys(&ours, "b'; --", 1).await.unwrap(), ["é"]);
    assert_eq!(storage.attribute_keys(&ours, "ü", 1).await.unwrap(), Vec::<String>::new());
}

pub async fn a_change_of_attributes_makes_another_moment_though_its_clock_is_behind(storage: &dyn Storage) {
    let [ours, theirs] = two_tenants(storage).await;
    let before = storage.moment(&ours).await.unwrap();
    let mut writing = begin(storage, &ours).await;
    for (id, seconds) in [("ada", 100), ("bob", 200)] {
        writing.hold_or_create_user(&user(id), at(seconds)).await.unwrap();
    }
    writing.commit().await.unwrap();
    let both = storage.moment(&ours).await.unwrap();
    assert_ne!(before, both);
    let mut writing = begin(storage, &ours).await;
    writing.hold_user(&user("ada")).await.unwrap();
    writing.put_attributes(&user("ada"), &attributes(&[("country", "UK")])).await.unwrap();
    writing.save_user(&user("ada"), StateVersion::POPULATION, 0, 0, at(150)).await.unwrap();
    writing.commit().await.unwrap();
    let changed = storage.moment(&ours).await.unwrap();
    assert_ne!(both, changed);
    come(storage, &theirs, &[("eve", &[])]).await;
    assert_eq!(storage.moment(&ours).await.unwrap(), changed);
}
