use polyreward_datasets::{Format, Options, open};
use polyreward_domain::{Message, Prompt};
use serde_json::{Value, json};

use crate::support::{Files, Read, gzip, lines, parquet, read, texts};

const SHARED: &str = "\n\nHuman: Name a fish.\n\nAssistant: A pike.\n\nHuman: Another one?";

fn row(chosen: &str, rejected: &str) -> Value {
    json!({
        "chosen": format!("{SHARED}\n\nAssistant: {chosen}"),
        "rejected": format!("{SHARED}\n\nAssistant: {rejected}"),
    })
}

fn read_rows(rows: &[Value]) -> Read {
    read(lines(rows), Format::Hh).unwrap()
}

fn message(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: content.into() }
}

#[test]
fn the_shared_turns_are_a_chat_and_the_last_ones_the_responses() {
    let read = read_rows(&[row("A trout.", "Fish swim.\n\nThey do.")]);
    let [record] = read.records()[..] else { panic!("{read:?}") };
    let prompt =
        [message("user", "Name a fish."), message("assistant", "A pike."), message("user", "Another one?")];
    assert_eq!(record.comparison.prompt, Prompt::Chat(prompt.into()));
    assert_eq!(record.comparison.chosen, "A trout.");
    assert_eq!(record.comparison.rejected, "Fish swim.\n\nThey do.");
    assert_eq!((record.user_id.as_str(), &record.id), ("hh", &None));
    assert_eq!((read.summary.rows, read.summary.records, read.summary.rejected), (1, 1, 0));
}

#[test]
fn the_person_is_the_one_given() {
    let files = Files::new();
    let path = files.add("data", lines(&[row("a", "b")]));
    let options = Options { hh_user_id: "crowd".parse().unwrap() };
    let mut reader = open(&[path], Format::Hh, options).unwrap();
    let records = reader.next().unwrap().unwrap().content.unwrap();
    assert_eq!(records[0].user_id.as_str(), "crowd");
}

#[test]
fn dialogues_that_are_no_comparison_are_refused_with_their_reason() {
    let one = |text: &str| json!({"chosen": text, "rejected": text});
    for (bad, reason) in [
        (row("same", "same"), "rejected is the same text as chosen"),
        (row("", "b"), "chosen ends with an empty response"),
        (row("a", " "), "rejected ends with an empty response"),
        (row("a", "b\u{0}"), "rejected contains the character U+0000 at byte 1"),
        (
            json!({"chosen": "\n\nHuman: x\n\nAssistant: a", "rejected": "\n\nHuman: y\n\nAssistant: b"}),
            "the two dialogues differ before their last turn",
        ),
        (one("\n\nHuman: x"), "chosen does not end with a response"),
        (one("\n\nAssistant: x"), "chosen has no human turn before the response"),
        (one("\n\nHuman: x\n\nAssistant: y\n\nAssistant: z"), "chosen has no human turn before the response"),
        (one("Hello\n\nHuman: x\n\nAssistant: y"), "chosen does not begin with a turn"),
        (one(""), "chosen does not end with a response"),
        (json!({"chosen": "a secret"}), "missing field `rejected` (column 21)"),
        (
            json!({"chosen": 7, "rejected": "a secret"}),
            "invalid type: integer `7`, expected a string (column 11)",
        ),
    ] {
        let read = read_rows(&[bad.clone(), row("a", "b")]);
        assert_eq!(read.rejected(), [(1, reason, bad.to_string().as_str())]);
        assert_eq!(read.records().len(), 1, "the next row is still read");
        assert_eq!((read.summary.rows, read.summary.rejected), (2, 1));
    }
}

#[test]
fn plain_gzipped_and_parquet_files_give_the_same() {
    let rows = [row("a", "b"), row("c", "d")];
    let plain = read_rows(&rows);
    let zipped = read(gzip(lines(&rows)), Format::Hh).unwrap();
    let column = |name: &str| texts(rows.iter().map(|row| row[name].as_str()));
    let table = parquet(vec![
        ("chosen", column("chosen")),
        ("source", texts([None, Some("x")])),
        ("rejected", column("rejected")),
    ]);
    let table = read(table, Format::Hh).unwrap();
    assert_eq!(plain.records().len(), 2);
    assert_eq!(plain.records(), zipped.records());
    assert_eq!(plain.records(), table.records());
    assert_eq!(table.summary.unknown_fields.iter().collect::<Vec<_>>(), ["source"]);
}

#[test]
fn an_unknown_field_is_reported_by_name() {
    let mut row = row("a", "b");
    row["margin"] = json!(3);
    let read = read_rows(&[row]);
    assert_eq!(read.records().len(), 1);
    assert_eq!(read.summary.unknown_fields.iter().collect::<Vec<_>>(), ["margin"]);
}
