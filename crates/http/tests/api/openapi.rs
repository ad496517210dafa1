//! The document in the repository is the one the code makes, and it is whole.

use std::{collections::BTreeSet, path::Path};

use axum::{body::Body, http::Method};
use polyreward_http::openapi_json;
use serde_json::Value;

use crate::fixture::{Server, request};

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
    assert!(paths.len() >= 14);
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
                assert_eq!(reply["$ref"], "#/components/responses/Problem", "{what} {status}");
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
