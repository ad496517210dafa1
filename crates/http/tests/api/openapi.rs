//! The document in the repository is the one the code makes, and it is whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use axum::{body::Body, http::Method};
use polyreward_http::openapi_json;
use serde_json::{Value, json};

use crate::{
    auth::{EXPECTED, to},
    fixture::{Server, json_request, request},
    people::people,
};

fn document() -> Value {
    serde_json::from_str(&openapi_json()).unwrap()
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            let operations = item.as_object().unwrap().iter();
            operations.map(|(method, operation)| (path.clone(), method.to_uppercase(), operation.clone()))
        })
        .collect()
}

#[test]
fn the_committed_document_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi/openapi.json");
    let made = openapi_json();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == made,
        "openapi/openapi.json is out of date: `polyreward openapi > openapi/openapi.json`"
    );
    assert_eq!(made, openapi_json());
    assert!(made.ends_with("}\n"));
}

#[tokio::test]
async fn every_documented_operation_is_there_and_no_other_method() {
    let server = Server::new().await;
    let documented: BTreeSet<(String, String)> =
        operations(&document()).into_iter().map(|(path, method, _)| (path, method)).collect();
    let paths: BTreeSet<&String> = documented.iter().map(|(path, _)| path).collect();
    assert!(paths.len() >= 20);
    for path in paths {
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
            let reply = server.send(request(method.parse::<Method>().unwrap(), path, Body::empty())).await;
            let is_there = ![404, 405].contains(&reply.status.as_u16());
            assert_eq!(is_there, documented.contains(&(path.clone(), method.to_owned())), "{method} {path}");
        }
    }
}

#[test]
fn every_operation_documents_its_replies_problems_and_id() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let what = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{what}");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{what}");
        assert!(operation["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{what}");
        let replies = operation["responses"].as_object().unwrap();
        assert!(replies.keys().any(|status| status.starts_with(['2', '3'])), "{what}");
        for (status, reply) in replies {
            if status.ends_with("XX") {
                let words = reply["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
                assert!(["Problem", "OpenAiError", "TeiError"].contains(&words), "{what} {status}");
            } else {
                assert!(reply["headers"]["x-request-id"].is_object(), "{what} {status}");
            }
        }
        assert!(replies.contains_key("4XX") && replies.contains_key("5XX"), "{what}");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(members) => {
                if let Some(target) = members.get("$ref").and_then(Value::as_str) {
                    found.insert(target);
                }
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 10);
    for target in found {
        assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
    }
    let score = &document["components"]["schemas"]["ScoreRequest"];
    assert_eq!(score["additionalProperties"], false);
}

/// What of a value is not as its schema says.
fn faults(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let mut parts = vec![schema];
    let (mut properties, mut required, mut others) = (BTreeMap::new(), BTreeSet::new(), None);
    while let Some(schema) = parts.pop() {
        if let Some(target) = schema["$ref"].as_str() {
            parts.push(document.pointer(target.trim_start_matches('#')).unwrap());
        }
        parts.extend(schema["allOf"].as_array().into_iter().flatten());
        if let Some(choices) = schema["oneOf"].as_array() {
            let fits = |choice: &Value| {
                let mut found = Vec::new();
                faults(document, choice, value, at, &mut found);
                found.is_empty()
            };
            if !choices.iter().any(fits) {
                found.push(format!("{at}: {value} is none of {}", schema["oneOf"]));
            }
            return;
        }
        let kinds = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
        let is = |kind: &Value| match kind.as_str() {
            None => true,
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("integer") => value.is_u64() || value.is_i64(),
            Some("number") => value.is_number(),
            Some("null") => value.is_null(),
            Some(other) => panic!("{other}"),
        };
        if !kinds.iter().any(is) {
            found.push(format!("{at}: {value} is not {}", schema["type"]));
        }
        properties.extend(schema["properties"].as_object().into_iter().flatten());
        required.extend(schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str));
        others = others.or(schema.get("additionalProperties"));
        if let Some(values) = value.as_array() {
            for value in values {
                faults(document, &schema["items"], value, &format!("{at}/*"), found);
            }
        }
    }
    let Some(members) = value.as_object() else { return };
    found.extend(
        required
            .iter()
            .filter(|name| !members.contains_key(**name))
            .map(|name| format!("{at}/{name} is missing")),
    );
    for (name, value) in members {
        match properties.get(name).copied().or(others) {
            Some(schema) => faults(document, schema, value, &format!("{at}/{name}"), found),
            // Nothing is said of what is in it.
            None if properties.is_empty() => {}
            None => found.push(format!("{at}/{name} is not described")),
        }
    }
}

#[tokio::test]
async fn every_answer_is_as_the_document_says() {
    let server = Server::with_people(people()).await;
    let document = document();
    let mut answered = 0;
    for (method, path, _) in EXPECTED {
        let reply = server.send(to(method, path)).await;
        let operation = &document["paths"][path][method.to_lowercase()];
        let described = &operation["responses"][reply.status.as_str()];
        assert!(described.is_object(), "{method} {path} {}", reply.status);
        let schema = &described["content"]["application/json"]["schema"];
        if schema.is_object() {
            let mut found = Vec::new();
            faults(&document, schema, &reply.json(), "", &mut found);
            assert!(found.is_empty(), "{method} {path} {found:?}");
            answered += 1;
        }
    }
    assert!(answered >= 18, "{answered}");
}

#[tokio::test]
async fn every_example_of_a_body_is_taken() {
    let server = Server::with_people(people()).await;
    let document = document();
    let mut taken = 0;
    for (path, method, operation) in operations(&document) {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let Some(target) = schema["$ref"].as_str() else { continue };
        let schema = document.pointer(target.trim_start_matches('#')).unwrap();
        let example = schema.get("example").or(schema["examples"].get(0));
        let Some(example) = example.filter(|_| path != "/models/default") else { continue };
        let path = path.replace("{user_id}", "ada");
        let reply = server.send(json_request(method.parse().unwrap(), &path, example.to_string())).await;
        assert!(reply.status.is_success(), "{method} {path} {example} {}", reply.text());
        taken += 1;
    }
    assert_eq!(taken, 19, "{}", json!(document["paths"]));
}
