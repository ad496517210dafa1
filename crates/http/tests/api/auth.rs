//! Who may ask what: every route with every kind of key.

use std::collections::BTreeSet;

use axum::{
    body::Body,
    http::{HeaderMap, Method, Request},
};
use polyreward_domain::Scope;
use polyreward_http::openapi_json;
use polyreward_service::Clock;
use serde_json::{Value, json};

use crate::{
    compat::shared::body_of,
    fixture::{Reply, Server, StandingClock, request},
    people::{TEXTS, body, people},
};

/// What a route needs of whoever asks, written down once more so that a change of the server's table is seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Needs {
    Nothing,
    AnyKey,
    One(Scope),
}

use Needs::{AnyKey, Nothing, One};

pub const EXPECTED: [(&str, &str, Needs); 45] = [
    ("GET", "/", One(Scope::Read)),
    ("GET", "/accuracy", One(Scope::Read)),
    ("GET", "/accuracy/shots", One(Scope::Read)),
    ("GET", "/accuracy/timeline", One(Scope::Read)),
    ("GET", "/dashboard/models", One(Scope::Read)),
    ("GET", "/dashboard/users/{user_id}", One(Scope::Read)),
    ("GET", "/docs", Nothing),
    ("POST", "/evaluate", One(Scope::Score)),
    ("POST", "/get_reward", One(Scope::Score)),
    ("GET", "/groups", One(Scope::Read)),
    ("GET", "/health", Nothing),
    ("GET", "/info", AnyKey),
    ("GET", "/livez", Nothing),
    ("GET", "/metrics", One(Scope::Read)),
    ("GET", "/models", AnyKey),
    ("PUT", "/models/default", One(Scope::Admin)),
    ("POST", "/models/reload", One(Scope::Admin)),
    ("GET", "/openapi.json", Nothing),
    ("GET", "/ping", Nothing),
    ("GET", "/ready", Nothing),
    ("GET", "/readyz", Nothing),
    ("POST", "/rm", One(Scope::Score)),
    ("POST", "/classify", One(Scope::Score)),
    ("POST", "/v1/classify", One(Scope::Score)),
    ("POST", "/pooling", One(Scope::Score)),
    ("POST", "/rerank", One(Scope::Score)),
    ("POST", "/v1/rerank", One(Scope::Score)),
    ("POST", "/v2/rerank", One(Scope::Score)),
    ("POST", "/v1/embeddings", One(Scope::Score)),
    ("POST", "/v1/chat/completions", One(Scope::Score)),
    ("POST", "/predict", One(Scope::Score)),
    ("POST", "/embed", One(Scope::Score)),
    ("POST", "/score", One(Scope::Score)),
    ("POST", "/tournament", One(Scope::Score)),
    ("GET", "/users", One(Scope::Read)),
    ("GET", "/users/{user_id}", One(Scope::Read)),
    ("PUT", "/users/{user_id}", One(Scope::Write)),
    ("GET", "/users/{user_id}/examples", One(Scope::Read)),
    ("POST", "/users/{user_id}/examples", One(Scope::Write)),
    ("DELETE", "/users/{user_id}/examples/{example_id}", One(Scope::Write)),
    ("POST", "/users/{user_id}/queries", One(Scope::Score)),
    ("DELETE", "/users/{user_id}", One(Scope::Write)),
    ("POST", "/v1/score", One(Scope::Score)),
    ("GET", "/v2/health/live", Nothing),
    ("GET", "/v2/health/ready", Nothing),
];

/// A request that the route answers well, where its person and example are there.
pub fn to(method: &str, path: &str) -> Request<Body> {
    let body = match (method, path) {
        ("POST", "/score" | "/v1/score") => body(&json!({"user_id": "ada"})),
        ("POST", other) if body_of(other).is_some() => body_of(other).unwrap(),
        ("POST", "/users/{user_id}/queries") => {
            json!({"pairs": [{"prompt": "", "response_a": TEXTS[0], "response_b": TEXTS[1]}]})
        }
        ("POST", "/users/{user_id}/examples") => {
            json!({"examples": [{"prompt": "", "chosen": "a", "rejected": "b", "id": "first"}]})
        }
        ("POST", "/evaluate") => {
            json!({"comparisons": [{"user_id": "ada", "prompt": "", "chosen": TEXTS[0], "rejected": TEXTS[1]}]})
        }
        ("POST", "/tournament") => json!({"prompt": "", "responses": TEXTS, "audience": {"group": {}}}),
        ("PUT", "/users/{user_id}") => json!({"attributes": {"country": "UK"}}),
        ("PUT", "/models/default") => json!({"model": "bt"}),
        _ => Value::Null,
    };
    let path = path.replace("{user_id}", "ada").replace("{example_id}", "first");
    let mut request = request(method.parse::<Method>().unwrap(), &path, Body::from(body.to_string()));
    request.headers_mut().insert("content-type", "application/json".parse().unwrap());
    request
}

async fn ask(server: &Server, method: &str, path: &str, key: Option<&str>) -> Reply {
    let mut request = to(method, path);
    if let Some(key) = key {
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    }
    server.send(request).await
}

/// That a route refuses, in the form that it has for that: a problem, another server's error, or a page for people. What it
/// says, unless it is a page.
#[track_caller]
pub fn refused(reply: &Reply, path: &str, status: u16, kind: &str) -> Option<String> {
    if path != "/" && !path.starts_with("/dashboard/") {
        return Some(reply.refusal(status, kind));
    }
    assert_eq!(reply.status.as_u16(), status, "{path}");
    assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
    None
}

#[track_caller]
fn is_unauthorized(reply: &Reply) {
    is_unauthorized_at("/score", reply);
}

#[track_caller]
fn is_unauthorized_at(path: &str, reply: &Reply) {
    refused(reply, path, 401, "unauthorized");
    assert!(reply.header("www-authenticate").contains("Basic"), "{:?}", reply.headers);
}

#[test]
fn the_expectations_name_every_route_of_the_document() {
    let document: Value = serde_json::from_str(&openapi_json()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let routes: BTreeSet<(String, &str)> = paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.as_str()))
        })
        .collect();
    assert_eq!(routes, EXPECTED.map(|(method, path, _)| (method.to_owned(), path)).into());
}

#[tokio::test]
async fn every_route_answers_those_whose_key_allows_it_and_nobody_else() {
    let server = Server::with_people(people()).await;
    let scopes = Scope::ALL;
    let keys = [
        server.key("default", &[scopes[0]]).await,
        server.key("default", &[scopes[1]]).await,
        server.key("default", &[scopes[2]]).await,
        server.key("default", &[scopes[3]]).await,
    ];
    let nothing = server.key("default", &[]).await;
    let revoked = server.key("default", &scopes).await;
    assert!(server.storage.revoke_key(revoked.record.key_id, StandingClock.now()).await.unwrap());
    let unknown = format!("pr_{}", "0".repeat(64));
    let long = format!("pr_{}", "0".repeat(10_000));
    let invalid = ["", "x", "pr_", &unknown, &long, &revoked.secret, &keys[0].secret.to_uppercase()];

    for (method, path, needs) in EXPECTED {
        let what = format!("{method} {path}");
        let is_let_in = |reply: &Reply| ![401, 403, 404, 405].contains(&reply.status.as_u16());
        if needs == Nothing {
            for key in [None, Some(unknown.as_str()), Some(""), Some(&keys[0].secret)] {
                assert!(is_let_in(&ask(&server, method, path, key).await), "{what}");
            }
            continue;
        }
        is_unauthorized_at(path, &ask(&server, method, path, None).await);
        for key in invalid {
            is_unauthorized_at(path, &ask(&server, method, path, Some(key)).await);
        }
        let reply = ask(&server, method, path, Some(&nothing.secret)).await;
        assert_eq!(is_let_in(&reply), needs == AnyKey, "{what}");
        for (scope, key) in scopes.into_iter().zip(&keys) {
            let reply = ask(&server, method, path, Some(&key.secret)).await;
            if needs == AnyKey || needs == One(scope) {
                assert!(is_let_in(&reply) && reply.status.is_success(), "{what} {scope}: {}", reply.text());
            } else {
                let refusal = refused(&reply, path, 403, "forbidden");
                let Needs::One(needed) = needs else { unreachable!("any key was let in") };
                let detail = format!("the key lacks the scope {needed}");
                assert!(refusal.is_none_or(|refusal| refusal.contains(&detail)), "{what}");
            }
        }
    }
    // No key, and no part of one, is written down.
    let log = server.log.text();
    for key in keys.iter().chain([&nothing, &revoked]) {
        assert!(!log.contains(&key.secret[3..]));
    }
}

#[tokio::test]
async fn another_tenants_people_are_nobody() {
    let server = Server::with_people(people()).await;
    let theirs = server.key("other", &Scope::ALL).await.secret;
    let ours = server.key("default", &Scope::ALL).await.secret;
    let with = async |key: &str, mut request: Request<Body>, user_id: &str| {
        let uri = request.uri().to_string().replace("/ada", &format!("/{user_id}"));
        *request.uri_mut() = uri.parse().unwrap();
        request.headers_mut().insert("x-api-key", key.parse().unwrap());
        server.send(request).await
    };
    // Reads and erasures: the same words as for an id that nobody has.
    for (method, path) in [
        ("GET", "/users/{user_id}"),
        ("DELETE", "/users/{user_id}"),
        ("GET", "/users/{user_id}/examples"),
        ("DELETE", "/users/{user_id}/examples/{example_id}"),
    ] {
        let there = with(&theirs, to(method, path), "ada").await;
        let nowhere = with(&theirs, to(method, path), "nobody-at-all").await;
        assert_eq!(there.status, 404, "{method} {path} {}", there.text());
        assert_eq!((there.body, there.status), (nowhere.body, nowhere.status), "{method} {path}");
    }
    let users = with(&theirs, to("GET", "/users"), "").await.ok();
    assert_eq!(users, json!({"items": [], "next_cursor": null}));
    assert_eq!(with(&theirs, to("GET", "/groups"), "").await.ok()["items"], json!([]));
    let score = with(&theirs, to("POST", "/score"), "").await.ok();
    assert_eq!(score["user"], json!({"user_id": "ada", "examples": 0, "known": false}));
    assert_eq!(with(&ours, to("POST", "/score"), "").await.ok()["user"]["known"], true);
    let asked = with(&theirs, to("POST", "/users/{user_id}/queries"), "ada").await.ok();
    assert_eq!(asked["user"]["known"], false);

    // Writes make a person of their own, of whom ours knows nothing.
    let before = with(&ours, to("GET", "/users/{user_id}"), "ada").await;
    assert_eq!(with(&theirs, to("POST", "/users/{user_id}/examples"), "ada").await.status, 201);
    assert_eq!(with(&theirs, to("PUT", "/users/{user_id}"), "ada").await.status, 200);
    assert_eq!(with(&theirs, to("GET", "/users/{user_id}"), "ada").await.ok()["examples"], 1);
    assert_eq!(with(&ours, to("GET", "/users/{user_id}"), "ada").await.body, before.body);
    assert_eq!(with(&theirs, to("DELETE", "/users/{user_id}"), "ada").await.status, 204);
    assert_eq!(with(&ours, to("GET", "/users/{user_id}"), "ada").await.body, before.body);
    assert_eq!(with(&ours, to("POST", "/score"), "").await.ok()["user"]["known"], true);
}

#[tokio::test]
async fn a_key_is_taken_from_each_place_where_clients_put_it() {
    let server = Server::with_people(people()).await;
    let key = server.key("default", &[Scope::Score]).await.secret;
    let basic = |user: &str, password: &str| {
        use base64::Engine as _;
        let pair = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"));
        ("authorization", format!("Basic {pair}"))
    };
    let with = async |pairs: &[(&'static str, String)]| {
        let mut request = to("POST", "/score");
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        request.headers_mut().extend(headers);
        server.send(request).await
    };
    let bearer = || ("authorization", format!("Bearer {key}"));
    let places = [
        vec![bearer()],
        vec![("authorization", format!("bearer {key}"))],
        vec![("x-api-key", key.clone())],
        vec![("api-key", key.clone())],
        vec![basic("", &key)],
        vec![basic("anybody", &key)],
        // The same key twice is one key.
        vec![bearer(), ("x-api-key", key.clone())],
    ];
    for place in places {
        with(&place).await.ok();
    }
    let refused = [
        vec![],
        vec![("authorization", key.clone())],
        vec![("authorization", format!("Token {key}"))],
        vec![("authorization", "Basic !".to_owned())],
        vec![basic(&key, "")],
        vec![bearer(), ("x-api-key", format!("pr_{}", "0".repeat(64)))],
        vec![("cookie", format!("key={key}"))],
    ];
    for place in refused {
        is_unauthorized(&with(&place).await);
    }
    let query = request(Method::POST, &format!("/score?api_key={key}"), Body::empty());
    is_unauthorized(&server.send(query).await);
}

#[tokio::test]
async fn a_server_is_open_until_there_is_a_key_and_never_again() {
    let server = Server::with_people(people()).await;
    for (method, path, _) in EXPECTED.into_iter().filter(|(method, ..)| *method == "GET") {
        let reply = ask(&server, method, path, None).await;
        assert!(reply.status.is_success() || reply.status.is_redirection(), "{path} {}", reply.text());
    }
    // A key that a client sends of its own accord is not looked at.
    ask(&server, "POST", "/score", Some("sk-of-another-server")).await.ok();
    let first = server.key("default", &[Scope::Score]).await;
    is_unauthorized(&ask(&server, "POST", "/score", None).await);
    is_unauthorized(&ask(&server, "POST", "/score", Some("sk-of-another-server")).await);
    ask(&server, "POST", "/score", Some(&first.secret)).await.ok();
    // A server that is started later knows it from the database.
    let another = server.another(server.backbone.clone()).await;
    is_unauthorized(&ask(&another, "POST", "/score", None).await);
    for server in [&server, &another] {
        server.storage.revoke_key(first.record.key_id, StandingClock.now()).await.unwrap();
        is_unauthorized(&ask(server, "POST", "/score", Some(&first.secret)).await);
        is_unauthorized(&ask(server, "POST", "/score", None).await);
    }
}

#[tokio::test]
async fn what_is_no_route_tells_nobody_more_than_that() {
    let server = Server::new().await;
    let key = server.key("default", &Scope::ALL).await.secret;
    for key in [None, Some(key.as_str())] {
        ask(&server, "GET", "/secrets", key).await.problem(404, "not-found");
        ask(&server, "PATCH", "/users", key).await.problem(405, "method-not-allowed");
    }
    // The page that shows the document needs no key, nor do its files.
    assert!(ask(&server, "GET", "/docs/", None).await.status.is_success());
    assert!(ask(&server, "GET", "/docs/swagger-ui.css", None).await.status.is_success());
    // HEAD needs what GET needs.
    assert_eq!(ask(&server, "HEAD", "/users", None).await.status, 401);
    assert_eq!(ask(&server, "HEAD", "/users", Some(&key)).await.status, 200);
}
