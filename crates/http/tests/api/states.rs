//! How people's states come about: one person at a time, under a deadline, whoever leaves and whatever is wrong with another.

use std::sync::Arc;

use axum::{body::Body, http::Method};
use futures::{FutureExt, future::join_all};
use polyreward_backbone::{Backbone, BackboneOptions};
use polyreward_domain::{Message, Prompt, TenantId};
use polyreward_http::Limits;
use polyreward_service::Rebuilt;
use polyreward_storage::Storage;
use polyreward_storage_sqlite::SqliteStorage;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    fixture::{Reply, Server, backbone, chat_backbone, json_request, open_backbone, open_database, store},
    people::{TEXTS, body, numbers, people, record},
    storage::{Held, Watched},
};

type Database = Arc<Watched<SqliteStorage>>;

/// People of whom what is read of ada comes only when it is let through.
async fn held_with(what: Held, backbone: Backbone, limits: Limits) -> (Database, Server) {
    let database = Arc::new(tempfile::tempdir().unwrap());
    let storage = open_database(&database).await;
    store(&(Arc::new(storage.clone()) as Arc<dyn Storage>), &backbone, people()).await;
    let held = Arc::new(Watched::holding(storage, "ada", what));
    let server = Server::over(database, held.clone(), backbone, limits);
    (held, server)
}

async fn held() -> (Database, Server) {
    held_with(Held::Evidence, backbone(), Limits::default()).await
}

fn of(user_id: &str) -> Value {
    body(&json!({"user_id": user_id}))
}

async fn within(server: &Server, body: &Value, header: &'static str, time: &'static str) -> Reply {
    let mut request = json_request(Method::POST, "/score", Body::from(body.to_string()));
    request.headers_mut().insert(header, time.parse().unwrap());
    server.send(request).await
}

#[tokio::test]
async fn a_derivation_goes_on_after_its_deadline_and_is_not_begun_again() {
    let (held, server) = held().await;
    for _ in 0..5 {
        let late = within(&server, &of("ada"), "x-request-timeout-ms", "40").await;
        late.problem(503, "deadline-exceeded");
    }
    let everybody = body(&json!({"audience": {"group": {}}}));
    within(&server, &everybody, "x-request-timeout-ms", "200").await.problem(503, "deadline-exceeded");
    assert_eq!(held.reads(), 1);
    // Nobody else waits for ada.
    assert_eq!(server.score(&of("bob")).await.ok()["user"]["known"], true);
    server.score(&body(&json!({}))).await.ok();

    held.gate.add_permits(1);
    assert_eq!(server.score(&of("ada")).await.ok()["user"]["examples"], 3);
    server.score(&everybody).await.ok();
    assert_eq!(held.reads(), 1);
}

#[tokio::test]
async fn a_derivation_outlives_the_client_that_began_it() {
    let (held, server) = held().await;
    let request = of("ada");
    {
        let mut asking = std::pin::pin!(server.score(&request));
        while held.reads() == 0 {
            assert!(asking.as_mut().now_or_never().is_none(), "ada's examples were not let through");
            tokio::task::yield_now().await;
        }
    } // the client has left
    held.gate.add_permits(1);
    let replies = join_all((0..8).map(|_| server.score(&request))).await;
    assert!(replies.iter().all(|reply| reply.ok()["user"]["examples"] == 3));
    assert_eq!(held.reads(), 1);
}

#[tokio::test]
async fn a_new_version_of_a_model_derives_again_without_the_backbone() {
    let options = BackboneOptions { sessions: 1, cache_bytes: 0, ..BackboneOptions::default() };
    let server = Server::with_people_on(people(), open_backbone(&options), Limits::default()).await;
    let misses = || server.backbone.cache_stats().misses;
    let at_first = misses();
    let before = server.score(&of("ada")).await;
    assert_eq!(misses() - at_first, 4 + 4, "the request's texts, and those of the examples");

    server.add_lore("lore", 3.0);
    server.post("/models/reload", &json!(null)).await.ok();
    let at_first = misses();
    let after = server.score(&of("ada")).await;
    assert_eq!(misses() - at_first, 4, "the request's texts alone");
    assert_ne!(before.header("x-model-version"), after.header("x-model-version"));
    assert_eq!(before.header("x-user-state-version"), after.header("x-user-state-version"));
    let population = numbers(&server.score(&body(&json!({}))).await.ok()["results"][0]["rewards"]);
    let (before, after) =
        (numbers(&before.ok()["results"][0]["rewards"]), numbers(&after.ok()["results"][0]["rewards"]));
    assert!(before != after && after != population, "{before:?} {after:?} {population:?}");
}

#[tokio::test]
async fn a_new_version_of_a_model_waits_for_nobody_but_those_asked_for() {
    let (held, server) = held().await;
    held.gate.add_permits(1);
    server.score(&of("ada")).await.ok();
    held.gate.try_acquire().unwrap().forget();
    server.add_lore("lore", 3.0);
    server.post("/models/reload", &json!(null)).await.ok();
    server.score(&of("bob")).await.ok();
    within(&server, &of("ada"), "x-request-timeout-ms", "40").await.problem(503, "deadline-exceeded");
    assert_eq!(held.reads(), 2);
}

#[tokio::test]
async fn examples_that_cannot_be_used_fail_their_own_person_alone() {
    let unlucky = "zebulon-the-unlucky";
    let mut records = people();
    let mut bad = record(unlucky, "NL", TEXTS[0], TEXTS[1]);
    let message = Message { role: "stranger".into(), content: "Whose-secret-is-this".into() };
    bad.comparison.prompt = Prompt::Chat(vec![message]);
    records.push(bad);
    let server = Server::with_people_on(records, chat_backbone(), Limits::default()).await;
    for _ in 0..3 {
        assert_eq!(server.score(&of(unlucky)).await.pointers(422, "unusable-examples"), ["/user_id"]);
    }
    server.score(&of("ada")).await.ok();
    let several = body(&json!({"user_ids": ["ada", unlucky, "eve", unlucky]}));
    let places = server.score(&several).await.pointers(422, "unusable-examples");
    assert_eq!(places, ["/user_ids/1", "/user_ids/3"]);
    let audience = |group: Value| body(&json!({"audience": {"group": group}}));
    let everybody = server.score(&audience(json!({}))).await.ok();
    assert_eq!(everybody["audience"], json!({"users": 3, "left_out": 1}));
    let nobody = server.score(&audience(json!({"country": "NL"}))).await;
    assert_eq!(nobody.pointers(422, "unusable-examples"), ["/audience/group"]);
    // A head that learns nothing of people needs none of it.
    let mut plain = of(unlucky);
    plain["model"] = json!("bt");
    server.score(&plain).await.ok();

    let metrics = server.get("/metrics").await.text();
    assert!(metrics.contains("polyreward_user_states_total{outcome=\"unusable\"}"), "{metrics}");
    for secret in [unlucky, "Whose-secret-is-this"] {
        assert!(!server.log.text().contains(secret) && !metrics.contains(secret));
    }
}

#[tokio::test]
async fn people_are_learned_ahead_and_then_known() {
    let (held, server) = held().await;
    held.gate.add_permits(1);
    let registry =
        polyreward_service::ModelRegistry::open(server.models.path(), server.backbone.info().clone());
    let mut progress = Vec::new();
    let registered = registry.unwrap().registered();
    let rebuilt = server.people.rebuild(&registered, &mut |done| progress.push(done)).await.unwrap();
    assert_eq!((rebuilt, progress), (Rebuilt { states: 3, unusable: 0, pruned: 0 }, vec![3]));
    server.score(&of("ada")).await.ok();
    assert_eq!(held.reads(), 1);
}

#[tokio::test]
async fn a_deadline_that_passed_is_a_503_though_everything_is_known() {
    let server = Server::with_people(people()).await;
    server.score(&of("ada")).await.ok();
    within(&server, &of("ada"), "grpc-timeout", "1n").await.problem(503, "deadline-exceeded");
}

#[tokio::test]
async fn numbers_that_find_no_room_are_refused_and_room_is_given_back() {
    let limits = Limits { max_pending_cells: 256, ..Limits::default() };
    let (held, server) = held_with(Held::Evidence, backbone(), limits).await;
    let (ada, bob) = (of("ada"), of("bob"));
    {
        let mut asking = std::pin::pin!(server.score(&ada));
        while held.reads() == 0 {
            assert!(asking.as_mut().now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        server.score(&bob).await.problem(503, "overloaded");
    }
    held.gate.add_permits(1);
    server.score(&bob).await.ok();
    server.score(&ada).await.ok();
}

#[tokio::test]
async fn nothing_is_kept_of_who_was_erased_while_their_state_was_derived() {
    for what in [Held::Evidence, Held::Texts] {
        let options = BackboneOptions { sessions: 1, ..BackboneOptions::default() };
        let (held, server) = held_with(what, open_backbone(&options), Limits::default()).await;
        let request =
            json!({"model": "lore", "user_id": "ada", "items": [{"prompt": "", "responses": ["x"]}]});
        let asking = async {
            // The answer is that of the moment at which it was asked for, or of the one after.
            server.score(&request).await.ok();
        };
        let erasing = async {
            while held.reads() == 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(server.delete("/users/ada").await.status, 204);
            held.gate.add_permits(1);
        };
        futures::future::join(asking, erasing).await;
        assert!(!server.people.remembers(&TenantId::default(), &"ada".parse().unwrap()), "{what:?}");
        // Her texts are not in the cache of embeddings: reading them takes the backbone.
        let misses = server.backbone.cache_stats().misses;
        server.score(&body(&json!({}))).await.ok();
        assert_eq!(server.backbone.cache_stats().misses - misses, TEXTS.len() as u64, "{what:?}");
        assert_eq!(server.score(&request).await.ok()["user"]["known"], false);
        server.get("/users/ada").await.problem(404, "unknown-user");
    }
}

#[tokio::test]
async fn whoever_another_process_erases_leaves_this_ones_memory() {
    let (held, server) = held().await;
    held.gate.add_permits(100);
    let announce = held.announce();
    let people = Arc::clone(&server.people);
    let following = tokio::spawn(async move { people.follow_erasures().await });
    let (tenant, ada, bob) = (TenantId::default(), "ada".parse().unwrap(), "bob".parse().unwrap());
    let remembered = |who| server.people.remembers(&tenant, who);
    // It begins by forgetting whom it may have missed; what is kept after that stays.
    let until = async |holds: &dyn Fn() -> bool| {
        let wait = async {
            while !holds() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.expect("it is heard of");
    };
    until(&|| held.is_listened_to()).await;
    for user_id in ["ada", "bob"] {
        server.score(&of(user_id)).await.ok();
    }
    until(&|| remembered(&ada) && remembered(&bob)).await;
    let mut digest = Sha256::new();
    for part in ["default", "ada"] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    announce.send(Some(digest.finalize().into())).unwrap();
    until(&|| !remembered(&ada)).await;
    assert!(remembered(&bob));
    announce.send(None).unwrap();
    until(&|| !remembered(&bob)).await;
    following.abort();
}

#[tokio::test]
async fn a_large_group_is_read_again_when_somebodys_examples_change() {
    let crowd = 300;
    let records = (0..crowd).map(|n| record(&format!("person-{n}"), "UK", TEXTS[n % 3], TEXTS[3])).collect();
    let database = Arc::new(tempfile::tempdir().unwrap());
    let storage = open_database(&database).await;
    store(&(Arc::new(storage.clone()) as Arc<dyn Storage>), &backbone(), records).await;
    let watched = Arc::new(Watched::new(storage));
    let server = Server::over(database, watched.clone(), backbone(), Limits::default());
    let everybody = body(&json!({"audience": {"group": {"country": "UK"}}}));
    let ask = async || {
        let reply = server.score(&everybody).await;
        let version = reply.header("x-user-state-version").to_owned();
        (reply.ok()["audience"]["users"].as_u64().unwrap(), version)
    };
    let reads = || watched.crowds_read.load(std::sync::atomic::Ordering::SeqCst);
    let first = ask().await;
    assert_eq!((first.0, reads()), (crowd as u64, 1));
    assert_eq!((ask().await, reads()), (first.clone(), 1));
    let example = json!({"examples": [{"prompt": "Name a fish.", "chosen": TEXTS[3], "rejected": TEXTS[0]}]});
    let added = server.post("/users/person-7/examples", &example).await;
    assert_eq!(added.status, 201, "{}", added.text());
    let second = ask().await;
    assert_eq!((second.0, reads()), (crowd as u64, 2));
    assert_ne!(second.1, first.1);
    let left = server.send(json_request(Method::DELETE, "/users/person-7", Body::empty())).await;
    assert_eq!(left.status, 204);
    assert_eq!((ask().await.0, reads()), (crowd as u64 - 1, 3));
}

#[tokio::test]
async fn an_example_that_comes_while_its_person_is_being_erased_goes_with_them() {
    let (held, server) = held_with(Held::Pages, backbone(), Limits::default()).await;
    let erase = server.send(json_request(Method::DELETE, "/users/ada", Body::empty()));
    let meanwhile = async {
        while held.reads() == 0 {
            tokio::task::yield_now().await;
        }
        let example =
            json!({"examples": [{"prompt": "Name a bird.", "chosen": "A finch.", "rejected": "No."}]});
        let added = server.post("/users/ada/examples", &example).await;
        assert_eq!(added.status, 201, "{}", added.text());
        held.gate.add_permits(100);
    };
    let (erased, ()) = futures::join!(erase, meanwhile);
    assert_eq!(erased.status, 204, "{}", erased.text());
    assert!(held.reads() > 1, "its texts are read again");
    server.get("/users/ada").await.problem(404, "unknown-user");
}

#[tokio::test]
async fn a_large_audience_is_its_members_one_by_one_whoever_learns_or_leaves() {
    let crowd: usize = 300;
    let sides = |n: usize| [TEXTS[n % 4], TEXTS[(n + 1 + n / 4 % 3) % 4]];
    let name = |n: usize| format!("person-{n}");
    let records = (0..crowd)
        .flat_map(|n| (0..=n % 3).map(move |more| (n, sides(n + 5 * more))))
        .map(|(n, [chosen, rejected])| record(&name(n), "UK", chosen, rejected));
    let server = Server::with_people(records.collect()).await;
    let agree = async |people: &[String]| {
        let audience = json!({"group": {"country": "UK"}, "aggregate": ["mean", "min", "p20"]});
        let together = server.score(&body(&json!({"audience": audience}))).await.ok();
        assert_eq!(together["audience"], json!({"users": people.len()}));
        let each = server.score(&body(&json!({"user_ids": people}))).await.ok();
        let rewards: Vec<Vec<f64>> =
            each["results"][0]["rewards"].as_array().unwrap().iter().map(numbers).collect();
        for text in 0..TEXTS.len() {
            let mut column: Vec<f64> = rewards.iter().map(|rewards| rewards[text]).collect();
            column.sort_by(f64::total_cmp);
            let at = 0.2 * (column.len() - 1) as f64;
            let (lower, part) = (column[at as usize], at.fract());
            let p20 = lower + part * (column[at as usize + 1] - lower);
            let mean = column.iter().sum::<f64>() / column.len() as f64;
            for (how, expected) in [("mean", mean), ("min", column[0]), ("p20", p20)] {
                let actual = numbers(&together["results"][0]["aggregates"][how])[text];
                assert!((actual - expected).abs() < 1e-6, "{how} {actual} {expected}");
            }
        }
    };
    let mut people: Vec<String> = (0..crowd).map(name).collect();
    // Derived, then where they lie, then as somebody left them.
    agree(&people).await;
    agree(&people).await;
    let example = json!({"examples": [{"prompt": "Name a fish.", "chosen": TEXTS[3], "rejected": TEXTS[0]}]});
    assert_eq!(server.post("/users/person-7/examples", &example).await.status, 201);
    agree(&people).await;
    assert_eq!(server.delete(&format!("/users/{}", people.remove(150))).await.status, 204);
    agree(&people).await;
    let newcomer = json!({"attributes": {"country": "UK"}, "examples": example["examples"]});
    assert_eq!(server.post("/users/newcomer/examples", &newcomer).await.status, 201);
    people.push("newcomer".to_owned());
    agree(&people).await;
    // Somebody of whom nothing is known is a member, too.
    let stranger = json!({"attributes": {"country": "UK"}});
    let put = json_request(Method::PUT, "/users/stranger", Body::from(stranger.to_string()));
    assert!(server.send(put).await.status.is_success());
    people.push("stranger".to_owned());
    agree(&people).await;
    agree(&people).await;
}
