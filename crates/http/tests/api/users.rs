//! `/users` and `/groups`: who there is, in pages; what is known and believed of them; and their erasure.

use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use polyreward_backbone::BackboneOptions;
use polyreward_domain::{Message, Prompt, TenantId};
use polyreward_http::Limits;
use serde_json::{Value, json};

use crate::{
    examples::{example, examples, learn, preference},
    fixture::{Server, chat_backbone, json_request, open_backbone, request},
    people::{TEXTS, body, people, record, rewards},
};

/// Every entry of a list, page after page.
async fn walk(server: &Server, path: &str, limit: usize) -> Vec<Value> {
    let (mut cursor, mut all) = (String::new(), Vec::new());
    loop {
        let page = server.get(&format!("{path}?limit={limit}{cursor}")).await.ok();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit && (page["next_cursor"].is_null() || items.len() == limit), "{page}");
        all.extend(items.iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { return all };
        cursor = format!("&cursor={next}");
    }
}

async fn five_people() -> Server {
    let server = Server::with_people(Vec::new()).await;
    for (user_id, country) in [("e", "UK"), ("b", "US"), ("d", "UK"), ("B", "FR"), ("a", "DE")] {
        let attributes = json!({"attributes": {"country": country, "name": user_id}});
        assert_eq!(server.put(&format!("/users/{user_id}"), &attributes).await.status, 201);
    }
    server
}

#[tokio::test]
async fn people_groups_and_examples_come_in_pages_each_once_in_order() {
    let server = five_people().await;
    let mut list = examples();
    list.extend([example(TEXTS[3], TEXTS[0]), example(TEXTS[2], TEXTS[0])]);
    let ids = learn(&server, "a", &list).await["example_ids"].clone();
    for limit in [1, 2, 5, 6] {
        let users = walk(&server, "/users", limit).await;
        let user_ids: Vec<&str> = users.iter().map(|user| user["user_id"].as_str().unwrap()).collect();
        assert_eq!(user_ids, ["B", "a", "b", "d", "e"], "by bytes, {limit}");
        let found = walk(&server, "/users/a/examples", limit).await;
        let found: Vec<&Value> = found.iter().map(|example| &example["id"]).collect();
        assert_eq!(found, ids.as_array().unwrap().iter().collect::<Vec<_>>(), "{limit}");
        let groups = walk(&server, "/groups", limit).await;
        let groups: Vec<(&str, &str, u64)> = groups
            .iter()
            .map(|group| (group["key"].as_str(), group["value"].as_str(), group["users"].as_u64()))
            .map(|(key, value, users)| (key.unwrap(), value.unwrap(), users.unwrap()))
            .collect();
        let country = [("DE", 1), ("FR", 1), ("UK", 2), ("US", 1)].map(|(value, n)| ("country", value, n));
        let name = ["B", "a", "b", "d", "e"].map(|value| ("name", value, 1));
        assert_eq!(groups, [&country[..], &name[..]].concat(), "{limit}");
    }
    let page = server.get("/users/a/examples?limit=1").await.ok();
    insta::assert_json_snapshot!(page, { ".next_cursor" => "[cursor]" });
    insta::assert_json_snapshot!(server.get("/users?limit=1").await.ok(), { ".next_cursor" => "[cursor]" });
}

#[tokio::test]
async fn a_page_is_not_disturbed_by_what_comes_and_goes_beside_it() {
    let server = five_people().await;
    let first = server.get("/users?limit=2").await.ok();
    // The last entry of the page before is gone, and another one stands after it.
    assert_eq!(server.delete("/users/a").await.status, 204);
    server.put("/users/aa", &json!({"attributes": {}})).await;
    let next = server.get(&format!("/users?cursor={}", first["next_cursor"].as_str().unwrap())).await.ok();
    let ids: Vec<&str> =
        next["items"].as_array().unwrap().iter().map(|user| user["user_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["aa", "b", "d", "e"]);
}

#[tokio::test]
async fn a_cursor_that_no_page_gave_and_a_limit_out_of_bounds_are_refused_by_name() {
    let server = five_people().await;
    learn(&server, "a", &examples()).await;
    let encode = |text: &str| {
        use base64::Engine as _;
        base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(text)
    };
    let bad_id = encode(r#"["no id"]"#);
    let two = encode(r#"["a","b"]"#);
    let three = encode(r#"["a","b","c"]"#);
    for path in ["/users", "/groups", "/users/a/examples"] {
        let next = server.get(&format!("{path}?limit=1")).await.ok()["next_cursor"].clone();
        let next = next.as_str().unwrap();
        let cut = &next[..next.len() - 2];
        let mut cursors = vec!["x", "!", "%00", "", cut, &three, "W10", "bnVsbA", "MQ"];
        if path != "/groups" {
            cursors.extend([bad_id.as_str(), two.as_str()]);
        }
        for cursor in cursors {
            let problem =
                server.get(&format!("{path}?cursor={cursor}")).await.problem(400, "invalid-parameter");
            assert_eq!(problem["errors"][0]["parameter"], "cursor", "{path} {cursor}");
        }
        for limit in ["0", "1001", "-1", "x", "", "1.5", "99999999999999999999"] {
            let problem =
                server.get(&format!("{path}?limit={limit}")).await.problem(400, "invalid-parameter");
            assert_eq!(problem["errors"][0]["parameter"], "limit", "{path} {limit}");
        }
        for unknown in ["limti=5", "limit=1&limit=2", "user_id=a"] {
            server.get(&format!("{path}?{unknown}")).await.problem(400, "invalid-parameter");
        }
        server.get(&format!("{path}?limit=1000")).await.ok();
    }
    for group in [r#"["a","b\u0000"]"#, r#"["","b"]"#, r#"["a\n","b"]"#] {
        let path = format!("/groups?cursor={}", encode(group));
        server.get(&path).await.problem(400, "invalid-parameter");
    }
    for at in ["-1", "18446744073709551615", "x", ""] {
        let cursor = encode(&format!("[\"{at}\"]"));
        let path = format!("/users/a/examples?cursor={cursor}");
        server.get(&path).await.problem(400, "invalid-parameter");
    }
    server.get("/users/nobody/examples").await.problem(404, "unknown-user");
}

#[tokio::test]
async fn attributes_are_replaced_by_a_put_and_added_to_by_a_post() {
    let server = Server::with_people(Vec::new()).await;
    let put = async |attributes: Value| server.put("/users/eve", &json!({"attributes": attributes})).await;
    let first = put(json!({"country": "UK", "age": "25-34"})).await;
    assert_eq!(first.status, StatusCode::CREATED);
    assert_eq!((&first.json()["examples"], &first.json()["state_version"]), (&json!(0), &json!("0")));
    let second = put(json!({"country": "FR"})).await;
    assert_eq!(second.ok()["attributes"], json!({"country": "FR"}));
    assert_eq!(server.get("/users/eve").await.body, second.body);

    let post = json!({"attributes": {"age": "35-44", "country": "US"}, "examples": examples()});
    assert_eq!(server.post("/users/eve/examples", &post).await.status, 201);
    let attributes = json!({"age": "35-44", "country": "US"});
    assert_eq!(server.get("/users/eve").await.ok()["attributes"], attributes);
    learn(&server, "eve", &[example(TEXTS[3], TEXTS[0])]).await;
    let before = server.get("/users/eve").await.ok();
    assert_eq!(before["attributes"], attributes, "a post without attributes leaves them");
    // Attributes decide who is in a group, and nothing of a state.
    let after = put(json!({"city": "Ulm"})).await.ok();
    for field in ["examples", "state_version", "states"] {
        assert_eq!(after[field], before[field]);
    }
    let members = async |group: Value| server.score(&body(&json!({"audience": {"group": group}}))).await;
    assert_eq!(members(json!({"city": "Ulm"})).await.ok()["audience"], json!({"users": 1}));
    members(json!({"country": "US"})).await.problem(422, "invalid-input");
    assert_eq!(put(json!({})).await.ok()["attributes"], json!({}));
    assert_eq!(server.get("/groups").await.ok()["items"], json!([]));

    let bad = [
        (json!({"attributes": {"": "x"}}), "/attributes"),
        (json!({"attributes": {"a": "\u{0}"}}), "/attributes/a"),
        (json!({"attributes": {"a": 5}}), "/attributes/a"),
        (json!({}), "/attributes"),
        (json!({"attributes": {}, "examples": []}), "/examples"),
    ];
    for (body, pointer) in bad {
        let pointers = server.put("/users/eve", &body).await.pointers(422, "invalid-input");
        assert_eq!(pointers, [pointer], "{body}");
    }
}

#[tokio::test]
async fn posts_cannot_add_up_to_more_attributes_than_a_person_may_have() {
    let server = Server::with_people(Vec::new()).await;
    let all: serde_json::Map<String, Value> = (0..64).map(|n| (format!("k{n}"), json!("v"))).collect();
    assert_eq!(server.put("/users/eve", &json!({"attributes": all})).await.status, 201);
    let before = server.get("/users/eve").await.body;
    let post = async |key: &str| {
        let body = json!({"attributes": {key: "new"}, "examples": examples()});
        server.post("/users/eve/examples", &body).await
    };
    assert_eq!(post("one-more").await.pointers(422, "invalid-input"), ["/attributes"]);
    assert_eq!(server.get("/users/eve").await.body, before);
    assert_eq!(post("k1").await.status, 201);
    let attributes = server.get("/users/eve").await.ok()["attributes"].clone();
    assert_eq!((&attributes["k1"], attributes.as_object().unwrap().len()), (&json!("new"), 64));
}

#[tokio::test]
async fn somebody_whose_examples_cannot_be_used_can_be_seen_mended_and_erased() {
    let mut records = people();
    for id in ["good", "bad"] {
        let mut posted = record("zed", "NL", TEXTS[0], TEXTS[1]);
        posted.id = Some(id.to_owned());
        if id == "bad" {
            let message = Message { role: "stranger".into(), content: "Whose-secret-is-this".into() };
            posted.comparison.prompt = Prompt::Chat(vec![message]);
        }
        records.push(posted);
    }
    let server = Server::with_people_on(records, chat_backbone(), Limits::default()).await;
    let profile = server.get("/users/zed").await.ok();
    for (model, state) in profile["states"].as_object().unwrap() {
        assert_eq!(state["unusable"].is_string(), model.starts_with("lore@"), "{state}");
        assert!(!state.to_string().contains("Whose-secret"), "{state}");
    }
    let post = async || {
        server.post("/users/zed/examples", &json!({"examples": [example(TEXTS[2], TEXTS[3])]})).await
    };
    post().await.problem(422, "unusable-examples");
    assert_eq!(server.get("/users/zed").await.ok()["examples"], 2);
    assert_eq!(server.delete("/users/zed/examples/bad").await.status, 204);
    assert_eq!(post().await.status, 201);
    assert_eq!(server.score(&body(&json!({"user_id": "zed"}))).await.ok()["user"]["examples"], 2);
    assert_eq!(server.delete("/users/zed").await.status, 204);
    assert!(!server.log.text().contains("Whose-secret"));
}

#[tokio::test]
async fn a_profile_tells_what_is_believed_and_how_often_it_was_right() {
    let server = Server::with_people(Vec::new()).await;
    let mut list = examples();
    list.extend([example(TEXTS[3], TEXTS[0]), example(TEXTS[2], TEXTS[0])]);
    let mut population = 0.0;
    for example in &list {
        let preference = preference(&server, "lore", None, example).await;
        population += if preference > 0.5 { 1.0 } else { 0.0 };
    }
    let learned = learn(&server, "eve", &list).await;
    let profile = server.get("/users/eve").await.ok();
    let states = profile["states"].as_object().unwrap();
    assert_eq!(states.len(), 2);
    for (model, state) in states {
        let of_model = learned["predictions"].as_array().unwrap().iter();
        let of_model: Vec<bool> = of_model
            .filter(|prediction| prediction["model"] == *model)
            .map(|prediction| prediction["correct"].as_bool().unwrap())
            .collect();
        let share = of_model.iter().filter(|correct| **correct).count() as f64 / 5.0;
        let accuracy = &state["accuracy"];
        assert_eq!(accuracy["n"], 5);
        assert!((accuracy["accuracy"].as_f64().unwrap() - share).abs() < 1e-9, "{state}");
        assert!(
            (accuracy["population_accuracy"].as_f64().unwrap() - population / 5.0).abs() < 1e-9,
            "{state}"
        );
        assert_eq!(state["unusable"], Value::Null);
        let weights = state["weights"].as_array().unwrap();
        if state["head"] == "bt" {
            assert!(weights.is_empty() && state["uncertainty"] == 1.0, "{state}");
            assert_eq!(state["summary"], "The same reward for everybody.");
            continue;
        }
        assert_eq!((&state["head"], &state["examples"], weights.len()), (&json!("lore"), &json!(5), 3));
        assert_eq!(state["uncertainty"], learned["states"][model]["uncertainty"]);
        let number = |weight: &Value, field: &str| weight[field].as_f64().unwrap();
        assert!(weights.iter().any(|weight| number(weight, "mean") != number(weight, "population")));
        assert!(weights.iter().all(|weight| number(weight, "deviation") > 0.0));
        assert!(state["summary"].as_str().unwrap().starts_with("5 examples; "), "{state}");
    }
    // Somebody with attributes alone is as the population.
    server.put("/users/joe", &json!({"attributes": {}})).await;
    for state in server.get("/users/joe").await.ok()["states"].as_object().unwrap().values() {
        assert!(
            state["accuracy"].is_null() && state["examples"] == 0 && state["uncertainty"] == 1.0,
            "{state}"
        );
    }
}

#[tokio::test]
async fn nothing_is_left_of_an_erased_person() {
    let options = BackboneOptions { sessions: 1, ..BackboneOptions::default() };
    let server = Server::with_people_on(people(), open_backbone(&options), Limits::default()).await;
    let population = rewards(&server, json!({})).await;
    let entries = || server.backbone.cache_stats().entries;
    let at_first = entries();
    let mut list: Vec<Value> =
        (0..5).map(|n| example(&format!("Eve's own fish {n}."), &format!("Nobody's fish {n}."))).collect();
    list[0]["rationale"] = json!("because");
    let post = json!({"attributes": {"country": "UK"}, "examples": list}).to_string();
    let mut request_of_eve = json_request(Method::POST, "/users/eve/examples", post.clone());
    request_of_eve.headers_mut().insert("idempotency-key", "eve-1".parse().unwrap());
    let first = server.send(request_of_eve).await;
    assert_eq!(first.status, 201);
    rewards(&server, json!({"user_id": "eve"})).await;
    let (tenant, eve) = (TenantId::default(), "eve".parse().unwrap());
    assert!(server.people.remembers(&tenant, &eve) && entries() == at_first + 10);

    let erased = server.delete("/users/eve").await;
    assert_eq!((erased.status.as_u16(), erased.body.len()), (204, 0));
    assert!(!server.people.remembers(&tenant, &eve));
    assert_eq!(entries(), at_first);
    server.get("/users/eve").await.problem(404, "unknown-user");
    server.get("/users/eve/examples").await.problem(404, "unknown-user");
    server.delete("/users/eve").await.problem(404, "unknown-user");
    let id = first.json()["example_ids"][0].as_str().unwrap().to_owned();
    server.delete(&format!("/users/eve/examples/{id}")).await.problem(404, "unknown-example");
    let score = server.score(&body(&json!({"user_id": "eve"}))).await;
    assert_eq!(score.ok()["user"]["known"], false);
    assert_eq!(rewards(&server, json!({"user_id": "eve"})).await, population);
    let users = server.get("/users").await.ok();
    assert!(!users["items"].as_array().unwrap().iter().any(|user| user["user_id"] == "eve"));
    assert_eq!(
        server.get("/groups").await.ok()["items"][0],
        json!({"key": "country", "value": "UK", "users": 2})
    );
    for entry in std::fs::read_dir(server.database.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(9).any(|window| window == b"Eve's own"), "a file still has a text");
    }

    // Whoever comes again is new: even the request of the same name is done again.
    let mut again = json_request(Method::POST, "/users/eve/examples", post);
    again.headers_mut().insert("idempotency-key", "eve-1".parse().unwrap());
    let again = server.send(again).await;
    assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (201, ""));
    assert_eq!(again.json(), first.json());
}

#[tokio::test]
async fn an_id_that_nobody_can_have_is_refused_by_name_on_every_route() {
    let server = Server::new().await;
    let routes = [
        (Method::GET, "/users/{}"),
        (Method::PUT, "/users/{}"),
        (Method::DELETE, "/users/{}"),
        (Method::GET, "/users/{}/examples"),
        (Method::POST, "/users/{}/examples"),
        (Method::POST, "/users/{}/queries"),
        (Method::DELETE, "/users/{}/examples/x"),
        (Method::DELETE, "/users/ada/examples/{}"),
    ];
    let long = "x".repeat(129);
    for (method, path) in routes {
        for bad in ["a%20b", "a@b", "%00", "%ff", "%C3%A4", "a%2Fb", &long] {
            let mut sent = request(method.clone(), &path.replace("{}", bad), Body::empty());
            if method == Method::PUT {
                sent = json_request(method.clone(), sent.uri().path(), json!({"attributes": {}}).to_string());
            } else if path.ends_with("queries") {
                let pair = json!({"prompt": "", "response_a": "a", "response_b": "b"});
                sent = json_request(method.clone(), sent.uri().path(), json!({"pairs": [pair]}).to_string());
            } else if method == Method::POST {
                let examples = json!({"examples": examples()});
                sent = json_request(method.clone(), sent.uri().path(), examples.to_string());
            }
            let reply = server.send(sent).await;
            let problem = reply.problem(400, "invalid-parameter");
            let name =
                if path.ends_with("{}") && path.contains("examples") { "example_id" } else { "user_id" };
            assert_eq!(problem["errors"][0]["parameter"], name, "{method} {path} {bad}");
        }
    }
    assert_eq!(server.get("/users").await.ok()["items"], json!([]));
    for id in ["A-Z.a_z~0", "...", "~"] {
        assert_eq!(server.put(&format!("/users/{id}"), &json!({"attributes": {}})).await.status, 201, "{id}");
    }
}
