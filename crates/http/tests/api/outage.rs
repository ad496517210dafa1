//! A database that is gone, at any moment: nothing is half written, and it all works again by itself.

use std::sync::Arc;

use axum::http::Method;
use polyreward_domain::TenantId;
use polyreward_http::Limits;
use polyreward_storage::Storage;
use polyreward_storage_sqlite::SqliteStorage;
use serde_json::{Value, json};

use crate::{
    auth::{EXPECTED, Needs, to},
    examples::{example, examples, learn},
    fixture::{Reply, Server, backbone, json_request, open_database, store},
    people::{TEXTS, body, people},
    storage::Watched,
};

async fn watched() -> (Arc<Watched<SqliteStorage>>, Server) {
    let database = Arc::new(tempfile::tempdir().unwrap());
    let storage = open_database(&database).await;
    store(&(Arc::new(storage.clone()) as Arc<dyn Storage>), &backbone(), people()).await;
    let watched = Arc::new(Watched::new(storage));
    let server = Server::over(database, watched.clone(), backbone(), Limits::default());
    (watched, server)
}

#[tokio::test]
async fn without_its_database_a_server_says_so_and_recovers_by_itself() {
    let (watched, server) = watched().await;
    watched.outage.begin_after(0);
    for (method, path, needs) in EXPECTED {
        let reply = server.send(to(method, path)).await;
        if needs != Needs::Nothing {
            reply.refusal(503, "database-unavailable");
            assert!(!reply.text().contains("the test says so"), "{method} {path} {}", reply.text());
        }
    }
    let ready = server.get("/ready").await.problem(503, "not-ready");
    let checks = json!({"backbone": true, "database": false, "models": true, "accepting": true});
    assert_eq!(ready["checks"], checks);
    server.get("/health").await.ok();

    watched.outage.end();
    server.get("/ready").await.ok();
    let done = ["/users/{user_id}", "/users/{user_id}/examples/{example_id}"];
    for (method, path, _) in EXPECTED {
        if method != "DELETE" || !done.contains(&path) {
            let reply = server.send(to(method, path)).await;
            assert!(reply.status.is_success() || reply.status.is_redirection(), "{method} {path}");
        }
    }
}

/// Asks again and again, each time with a database that lasts one call longer, until it lasts long enough; `untouched` is
/// asked after each refusal.
async fn with_ever_longer(
    watched: &Watched<SqliteStorage>,
    ask: impl AsyncFn() -> Reply,
    untouched: impl AsyncFn(),
) -> Reply {
    for calls in 0..100 {
        watched.outage.begin_after(calls);
        let reply = ask().await;
        let noticed = watched.outage.was_noticed();
        watched.outage.end();
        if reply.status != 503 {
            assert!(calls > 2, "more than the key is read");
            return reply;
        }
        assert!(noticed);
        reply.problem(503, "database-unavailable");
        untouched().await;
    }
    panic!("a hundred calls do not suffice");
}

#[tokio::test]
async fn a_post_that_breaks_off_anywhere_leaves_nothing_and_can_be_repeated() {
    let (watched, server) = watched().await;
    // It sees what is in the file, and no more.
    let witness = server.another(backbone()).await;
    let post = |user_id: &'static str| {
        let server = &server;
        async move || {
            let body = json!({"attributes": {"city": "Ulm"}, "examples": examples()}).to_string();
            let mut request = json_request(Method::POST, &format!("/users/{user_id}/examples"), body);
            request.headers_mut().insert("idempotency-key", user_id.parse().unwrap());
            server.send(request).await
        }
    };
    let nobody = async || {
        for server in [&server, &witness] {
            server.get("/users/eve").await.problem(404, "unknown-user");
        }
        assert_eq!(server.score(&body(&json!({"user_id": "eve"}))).await.ok()["user"]["known"], false);
    };
    let reply = with_ever_longer(&watched, post("eve"), nobody).await;
    assert_eq!((reply.status.as_u16(), reply.header("idempotency-replayed")), (201, ""));
    assert_eq!(reply.json()["accepted"], 3);

    // Ada has examples and no state that is stored for them: hers are read, and learned again.
    let before = witness.get("/users/ada").await.ok();
    let ada = async || {
        for server in [&server, &witness] {
            assert_eq!(server.get("/users/ada").await.ok(), before);
        }
    };
    let different = [example(TEXTS[3], TEXTS[0]), example(TEXTS[3], TEXTS[1])];
    let again = async || server.post("/users/ada/examples", &json!({"examples": different})).await;
    let reply = with_ever_longer(&watched, again, ada).await;
    assert_eq!((&reply.json()["accepted"], &reply.json()["examples"]), (&json!(2), &json!(5)));
    let all = [examples(), different.to_vec()].concat();
    let expected = learn(&witness, "joe", &all).await;
    assert_eq!(reply.json()["state_version"], expected["state_version"]);
    let n =
        |user: &Value| user["states"].as_object().unwrap().values().next().unwrap()["accuracy"]["n"].clone();
    assert_eq!(n(&witness.get("/users/ada").await.ok()), 2);
}

#[tokio::test]
async fn an_erasure_that_breaks_off_anywhere_erases_nothing_and_can_be_repeated() {
    let (watched, server) = watched().await;
    let witness = server.another(backbone()).await;
    let ids = learn(&server, "eve", &examples()).await["example_ids"].clone();
    let path = format!("/users/eve/examples/{}", ids[1].as_str().unwrap());
    let before = witness.get("/users/eve").await.ok();
    let untouched = async || assert_eq!(witness.get("/users/eve").await.ok(), before);
    let reply = with_ever_longer(&watched, async || server.delete(&path).await, untouched).await;
    assert_eq!(reply.status, 204);

    assert_eq!(witness.get("/users/eve").await.ok()["examples"], 2);
    let attributes = json!({"attributes": {"city": "Ulm"}});
    let put = async || server.put("/users/eve", &attributes).await;
    // What is read after the commit can fail, too; the same put again does no harm.
    let reply = with_ever_longer(&watched, put, async || {}).await;
    assert_eq!(reply.ok()["attributes"], attributes["attributes"]);
    assert_eq!(server.put("/users/eve", &json!({"attributes": {}})).await.status, 200);

    let before = witness.get("/users/eve").await.ok();
    let untouched = async || assert_eq!(witness.get("/users/eve").await.ok(), before);
    let reply = with_ever_longer(&watched, async || server.delete("/users/eve").await, untouched).await;
    assert_eq!(reply.status, 204);
    witness.get("/users/eve").await.problem(404, "unknown-user");
}

#[tokio::test]
async fn a_state_that_cannot_be_stored_costs_nobody_their_reward() {
    let (watched, server) = watched().await;
    let expected = server.another(backbone()).await.score(&body(&json!({"user_id": "bob"}))).await.ok();
    let ask = async || server.score(&body(&json!({"user_id": "bob"}))).await;
    let reply = with_ever_longer(&watched, ask, async || {}).await;
    assert_eq!(reply.ok()["results"], expected["results"]);
    // It is in memory now: one look at the person is all it takes, beside two at whether there are keys.
    watched.outage.begin_after(3);
    assert_eq!(ask().await.ok()["results"], expected["results"]);
    assert!(!watched.outage.was_noticed());
}

#[tokio::test]
async fn a_post_that_waits_too_long_for_another_writer_is_stored_once_however_often_it_is_repeated() {
    let server = Server::with_people(people()).await;
    let scored = server.score(&body(&json!({"user_id": "bob"}))).await.ok();
    let writer = server.storage.begin(&TenantId::default()).await.unwrap();
    let post = async |timeout_ms: &'static str| {
        let body = json!({"examples": examples()}).to_string();
        let mut request = json_request(Method::POST, "/users/eve/examples", body);
        request.headers_mut().insert("idempotency-key", "only-once".parse().unwrap());
        request.headers_mut().insert("x-request-timeout-ms", timeout_ms.parse().unwrap());
        server.send(request).await
    };
    for _ in 0..3 {
        post("50").await.problem(503, "deadline-exceeded");
    }
    // Readers wait for no writer.
    assert_eq!(server.score(&body(&json!({"user_id": "bob"}))).await.ok()["results"], scored["results"]);
    server.get("/users/eve").await.problem(404, "unknown-user");
    server.get("/users").await.ok();
    drop(writer);
    let reply = post("60000").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["accepted"]), (201, &json!(3)));
    let user = server.get("/users/eve").await.ok();
    assert_eq!((&user["examples"], &user["state_version"]), (&json!(3), &reply.json()["state_version"]));
    for state in user["states"].as_object().unwrap().values() {
        assert_eq!(state["accuracy"]["n"], 3, "{state}");
    }
}
