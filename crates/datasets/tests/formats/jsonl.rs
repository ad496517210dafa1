use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, Date32Array, Float32Array, Float64Array, Int64Array, TimestampMicrosecondArray,
    builder::{ListBuilder, MapBuilder, StringBuilder, StringDictionaryBuilder, StructBuilder},
    types::Int32Type,
};
use arrow_schema::{DataType, Field};
use polyreward_datasets::{Format, ReadError};
use polyreward_domain::{Message, Prompt};
use serde_json::{Value, json};

use crate::support::{Files, lines, parquet, read, read_paths, texts};

fn row(user: &str) -> Value {
    json!({"user_id": user, "prompt": "Name a fish.", "chosen": "A trout.", "rejected": "Fish swim.",
           "created_at": "2026-01-02T03:04:05Z"})
}

#[test]
fn files_are_read_one_after_the_other_and_numbers_are_of_each() {
    let files = Files::new();
    let paths = [files.add("a", lines(&[row("ada"), row("bob")])), files.add("b", lines(&[row("eve")]))];
    let read = read_paths(&paths, Format::Jsonl).unwrap();
    let people: Vec<_> = read.records().iter().map(|record| record.user_id.as_str()).collect();
    assert_eq!(people, ["ada", "bob", "eve"]);
    let places: Vec<_> = read.rows.iter().map(|row| (*row.file == paths[1], row.number)).collect();
    assert_eq!(places, [(false, 1), (false, 2), (true, 1)]);
    assert_eq!(read.records()[0].created_at.as_deref(), Some("2026-01-02T03:04:05Z"));
}

#[test]
fn a_bad_line_is_kept_for_the_rejects_file_and_its_reason_quotes_nothing() {
    let mut tie = row("ada");
    tie["rejected"] = tie["chosen"].clone();
    let mut strong = row("ada");
    strong["strength"] = json!("a secret");
    let bad = [tie.to_string(), strong.to_string(), "{\"user_id\": \"a secret".into(), "[]".into()];
    let read = read(format!("\n{}\n\n{}", bad.join("\n"), row("bob")), Format::Jsonl).unwrap();
    let rejected = read.rejected();
    assert_eq!(rejected.iter().map(|(number, ..)| *number).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert_eq!(rejected.iter().map(|(_, _, raw)| *raw).collect::<Vec<_>>(), bad);
    assert_eq!(rejected[0].1, "rejected is the same text as chosen");
    assert!(!format!("{:?}", read.rows).contains("secret"), "{:?}", read.rows);
    assert_eq!(read.records().len(), 1);
    assert_eq!(read.summary.to_string(), "5 rows, 1 comparisons, 4 rejected");
}

#[test]
fn a_line_that_is_no_text_is_kept_byte_for_byte() {
    let read = read(b"\xff\xfe\n{}\n", Format::Jsonl).unwrap();
    let rejected = read.rows[0].content.as_ref().unwrap_err();
    assert_eq!((rejected.reason.as_str(), &rejected.raw[..]), ("is not UTF-8", &b"\xff\xfe"[..]));
}

#[test]
fn a_byte_order_mark_is_not_part_of_the_first_line() {
    let read = read(format!("\u{feff}{}", row("ada")), Format::Jsonl).unwrap();
    assert_eq!(read.records().len(), 1);
}

fn chat() -> ArrayRef {
    let fields = vec![Field::new("role", DataType::Utf8, true), Field::new("content", DataType::Utf8, true)];
    let mut chats = ListBuilder::new(StructBuilder::from_fields(fields, 1));
    let messages = chats.values();
    for (at, text) in ["user", "Name a fish."].into_iter().enumerate() {
        messages.field_builder::<StringBuilder>(at).unwrap().append_value(text);
    }
    messages.append(true);
    chats.append(true);
    Arc::new(chats.finish())
}

fn attributes() -> ArrayRef {
    let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    maps.keys().append_value("country");
    maps.values().append_value("UK");
    maps.append(true).unwrap();
    Arc::new(maps.finish())
}

#[test]
fn a_table_has_the_same_fields_as_columns() {
    let mut tags = ListBuilder::new(StringBuilder::new());
    tags.append_value([Some("topic:fish")]);
    let mut user: StringDictionaryBuilder<Int32Type> = StringDictionaryBuilder::new();
    user.append_value("ada");
    let time = TimestampMicrosecondArray::from(vec![1_700_000_000_000_000]);
    let table = parquet(vec![
        ("user_id", Arc::new(user.finish())),
        ("attributes", attributes()),
        ("prompt", chat()),
        ("chosen", texts([Some("A trout.")])),
        ("rejected", Arc::new(BinaryArray::from(vec![&b"Fish swim."[..]]))),
        ("strength", Arc::new(Float64Array::from(vec![None]))),
        ("label_confidence", Arc::new(Float32Array::from(vec![0.9]))),
        ("tags", Arc::new(tags.finish())),
        ("created_at", Arc::new(time)),
        ("colour", Arc::new(Int64Array::from(vec![7]))),
    ]);
    let read = read(table, Format::Jsonl).unwrap();
    let [record] = read.records()[..] else { panic!("{read:?}") };
    assert_eq!(record.user_id.as_str(), "ada");
    assert_eq!(record.attributes["country"], "UK");
    let message = Message { role: "user".into(), content: "Name a fish.".into() };
    assert_eq!(record.comparison.prompt, Prompt::Chat(vec![message]));
    assert_eq!(record.comparison.rejected, "Fish swim.");
    assert_eq!(record.comparison.strength.get(), 1.0);
    assert_eq!(record.comparison.label_confidence.get(), 0.9);
    assert_eq!(record.tags, ["topic:fish"]);
    assert_eq!(record.created_at.as_deref(), Some("2023-11-14T22:13:20+00:00"));
    assert_eq!(read.summary.unknown_fields.iter().collect::<Vec<_>>(), ["colour"]);
}

#[test]
fn a_bad_row_of_a_table_is_kept_as_a_line_of_json() {
    let table = parquet(vec![
        ("user_id", texts([Some("ada"), None, Some("bob")])),
        ("chosen", texts([Some("a"), Some("a"), Some("a")])),
        ("rejected", Arc::new(BinaryArray::from(vec![&b"\xff"[..], b"b", b"b"]))),
    ]);
    let read = read(table, Format::Jsonl).unwrap();
    let [(1, "is not UTF-8", _), (2, reason, raw)] = read.rejected()[..] else { panic!("{read:?}") };
    assert!(reason.starts_with("missing field `user_id`"), "{reason}");
    assert_eq!(serde_json::from_str::<Value>(raw).unwrap(), json!({"chosen": "a", "rejected": "b"}));
    assert_eq!(read.records().len(), 1);
}

#[test]
fn a_table_of_another_format_is_refused_by_its_columns() {
    let column = || texts([Some("a")]);
    let missing = parquet(vec![("user_id", column()), ("chosen", column())]);
    match read(missing, Format::Jsonl).unwrap_err() {
        ReadError::Column { column, .. } => assert_eq!(column, "rejected"),
        error => panic!("{error}"),
    }
    let date: ArrayRef = Arc::new(Date32Array::from(vec![1]));
    let typed = parquet(vec![("user_id", column()), ("chosen", column()), ("rejected", date)]);
    match read(typed, Format::Jsonl).unwrap_err() {
        ReadError::ColumnType { column, kind, .. } => {
            assert_eq!((column.as_str(), kind.as_str()), ("rejected", "Date32"));
        }
        error => panic!("{error}"),
    }
}
