use polyreward_datasets::{Format, ReadError, Skip};
use polyreward_domain::Prompt;
use serde_json::{Map, Value, json};

use crate::support::{Read, gzip, parquet, read, texts};

const TURNS: [&str; 4] = ["first", "second", "third", "fourth"];

/// A conversation's columns, empty but for ids and attributes.
fn empty() -> Map<String, Value> {
    let mut row = Map::new();
    for (name, value) in [
        ("conversation_id", "c1"),
        ("wave", "1"),
        ("assigned_lang", "en"),
        ("annotator_id", "17"),
        ("annotator_age", "18-34"),
        ("annotator_gender", "female"),
        ("annotator_education_level", "college"),
        ("annotator_political", ""),
        ("annotator_ethnicity", "asian"),
        ("annotator_country", "india"),
        ("is_pregenerated_first_prompt", "True"),
        ("in_balanced_subset", "False"),
        ("in_balanced_subset_10", "False"),
    ] {
        row.insert(name.into(), value.into());
    }
    for turn in TURNS {
        for field in ["prompt", "response_a", "response_b", "response_c", "response_d"] {
            row.insert(format!("{turn}_turn_{field}"), "".into());
        }
        row.insert(format!("{turn}_turn_preferred_response"), "".into());
        row.insert(format!("{turn}_turn_feedback"), "".into());
    }
    row
}

fn with_turn(row: &mut Map<String, Value>, turn: &str, prompt: &str, responses: [&str; 4], preferred: &str) {
    row[&format!("{turn}_turn_prompt")] = prompt.into();
    for (slot, text) in ["a", "b", "c", "d"].into_iter().zip(responses) {
        row[&format!("{turn}_turn_response_{slot}")] = text.into();
    }
    row[&format!("{turn}_turn_preferred_response")] = preferred.into();
}

/// Two turns; the first with feedback.
fn good() -> Map<String, Value> {
    let mut row = empty();
    let first = ["A trout.<|end_of_text|>", "A \"pike\",\nof course.", "Fish swim.", "Salmon"];
    with_turn(&mut row, "first", "Name a fish.", first, "response_b");
    row["first_turn_feedback"] = "It sounds sure.".into();
    with_turn(&mut row, "second", "Another?", ["Carp", "Carp", "Eel", ""], "response_c");
    row
}

fn csv(rows: &[Map<String, Value>]) -> String {
    let field = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let names: Vec<_> = rows[0].keys().map(String::as_str).collect();
    let mut text = names.join(",") + "\n";
    for row in rows {
        let fields: Vec<_> = names.iter().map(|name| field(row[*name].as_str().unwrap())).collect();
        text += &(fields.join(",") + "\n");
    }
    text
}

fn read_rows(rows: &[Map<String, Value>]) -> Read {
    read(csv(rows), Format::CommunityAlignment).unwrap()
}

fn pairs(read: &Read) -> Vec<(&str, &str)> {
    read.rows
        .iter()
        .filter_map(|row| row.content.as_ref().ok())
        .flatten()
        .map(|record| (record.comparison.chosen.as_str(), record.comparison.rejected.as_str()))
        .collect()
}

#[test]
fn in_each_turn_the_preferred_response_is_compared_with_each_other_text() {
    let read = read_rows(&[good()]);
    let pike = "A \"pike\",\nof course.";
    assert_eq!(pairs(&read), [(pike, "A trout."), (pike, "Fish swim."), (pike, "Salmon"), ("Eel", "Carp")]);
    assert_eq!(read.summary.skipped[&Skip::DuplicateText], 1);
    assert_eq!(read.summary.skipped[&Skip::EmptyText], 1);
    assert_eq!((read.summary.rows, read.summary.records), (1, 4));
    let last = read.records()[3];
    let Prompt::Chat(turns) = &last.comparison.prompt else { panic!("a chat") };
    let turns: Vec<_> = turns.iter().map(|turn| (turn.role.as_str(), turn.content.as_str())).collect();
    assert_eq!(turns, [("user", "Name a fish."), ("assistant", pike), ("user", "Another?")]);
}

#[test]
fn a_record_has_the_person_their_attributes_and_their_reason() {
    let read = read_rows(&[good()]);
    let record = read.records()[0];
    assert_eq!(record.user_id.as_str(), "17");
    let attributes: Vec<_> =
        record.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(
        attributes,
        [
            ("age", "18-34"),
            ("country", "india"),
            ("education_level", "college"),
            ("ethnicity", "asian"),
            ("gender", "female"),
            ("lang", "en"),
        ]
    );
    assert_eq!(record.comparison.rationale.as_deref(), Some("It sounds sure."));
    assert_eq!(read.records()[3].comparison.rationale, None);
}

#[test]
fn permuted_slots_give_the_same_comparisons_with_the_same_ids() {
    let mut permuted = good();
    let first = ["Salmon", "Fish swim.", "A trout.", "A \"pike\",\nof course.<|end_of_text|>"];
    with_turn(&mut permuted, "first", "Name a fish.", first, "response_d");
    let (one, other) = (read_rows(&[good()]), read_rows(&[permuted]));
    assert_eq!(one.records(), other.records());
    let ids: std::collections::BTreeSet<_> = one.records().iter().map(|record| record.id.clone()).collect();
    assert_eq!(ids.len(), 4, "{ids:?}");
}

#[test]
fn the_preferred_text_in_another_slot_is_no_comparison() {
    let mut row = empty();
    with_turn(
        &mut row,
        "first",
        "Name a fish.",
        ["Carp", "Carp<|end_of_text|>", "Eel", "Pike"],
        "response_a",
    );
    let read = read_rows(&[row]);
    assert_eq!(pairs(&read), [("Carp", "Eel"), ("Carp", "Pike")]);
    assert_eq!(read.summary.skipped[&Skip::EqualText], 1);
}

#[test]
fn a_last_turn_without_a_preference_is_counted() {
    let mut row = good();
    with_turn(&mut row, "third", "And now?", ["a", "b", "c", "d"], "");
    let read = read_rows(&[row]);
    assert_eq!(read.records().len(), 4);
    assert_eq!(read.summary.skipped[&Skip::Unjudged], 1);
}

#[test]
fn a_bad_row_is_refused_whole_with_its_reason() {
    let change = |name: &str, value: &str| {
        let mut row = good();
        row[name] = value.into();
        row
    };
    let mut unjudged = good();
    unjudged["first_turn_preferred_response"] = "".into();
    for (bad, reason) in [
        (change("conversation_id", ""), "conversation_id is empty"),
        (change("annotator_id", ""), "annotator_id is empty"),
        (
            change("annotator_id", "a\nb"),
            "annotator_id: a person in a data file has a name of 1 to 512 bytes without control characters",
        ),
        (change("first_turn_prompt", " "), "first_turn_prompt is empty, but second_turn_prompt is not"),
        (unjudged, "first_turn_preferred_response is empty, but second_turn_prompt is not"),
        (
            change("second_turn_preferred_response", "a secret"),
            "second_turn_preferred_response is none of response_a, response_b, response_c, response_d",
        ),
        (
            change("second_turn_preferred_response", "response_d"),
            "second_turn_response_d is preferred, but empty",
        ),
        (
            change("first_turn_response_a", "Tr\u{0}out"),
            "first turn: rejected contains the character U+0000 at byte 2",
        ),
        (empty(), "first_turn_prompt is empty"),
    ] {
        let read = read_rows(&[bad, good()]);
        assert_eq!(read.only_reason(), reason);
        assert_eq!(read.records().len(), 4, "the next row is still read");
        assert_eq!(read.summary.skipped.get(&Skip::DuplicateText), Some(&1), "of the good row alone");
    }
}

#[test]
fn a_refused_row_of_a_csv_file_can_be_read_again_as_json() {
    let mut bad = good();
    bad["second_turn_preferred_response"] = "response_x".into();
    let first = read_rows(&[bad]);
    let line = first.rejected()[0].2;
    let again = read(line.replace("response_x", "response_c"), Format::CommunityAlignment).unwrap();
    assert_eq!(again.records(), read_rows(&[good()]).records());
}

#[test]
fn rows_that_are_no_csv_are_refused_and_the_next_one_read() {
    let text = csv(&[good(), good()]);
    let header = text.lines().next().unwrap().to_owned();
    let body = &text[header.len() + 1..];
    let mut bytes = format!("{header}\na,b\n").into_bytes();
    bytes.extend(csv(&[good()])[header.len() + 1..].replace("Salmon", "Sa?mon").into_bytes());
    let at = bytes.windows(6).position(|window| window == b"Sa?mon").unwrap();
    bytes[at + 2] = 0xff;
    bytes.extend(body.as_bytes());
    let read = read(bytes, Format::CommunityAlignment).unwrap();
    let [(1, fields, raw), (2, "is not UTF-8", _)] = read.rejected()[..] else { panic!("{read:?}") };
    assert_eq!((fields, raw), ("has 2 fields, the header 41", r#"["a","b"]"#));
    assert_eq!(read.records().len(), 8);
}

#[test]
fn a_row_with_too_many_fields_is_refused_however_many() {
    let text = csv(&[good()]);
    let (header, row) = text.trim_end().split_once('\n').unwrap();
    for (more, reason) in [(1, "has 42 fields, the header 41"), (10_000, "has more than 4096 fields")] {
        let text = format!("{header}\n{row}{}\n{row}\n", ",x".repeat(more));
        let read = read(text, Format::CommunityAlignment).unwrap();
        assert_eq!(read.only_reason(), reason);
        assert_eq!(read.records().len(), 4);
    }
}

#[test]
fn an_endless_field_is_refused_in_bounded_memory_and_the_next_row_read() {
    let text = csv(&[good(), good()]);
    let endless = text.replacen("Salmon", &"x".repeat(40 << 20), 1);
    let read = read(endless, Format::CommunityAlignment).unwrap();
    assert_eq!(read.only_reason(), "is longer than 16777216 bytes");
    assert!(read.rejected()[0].2.len() <= 32 << 20);
    assert_eq!(read.records().len(), 4);
}

#[test]
fn every_container_gives_the_same() {
    let rows = [good(), good()];
    let plain = read_rows(&rows);
    let dos = csv(&rows).replace("\"\n\"", "\"\r\n\"");
    let lines: String = rows.iter().map(|row| json!(row).to_string() + "\n").collect();
    let names: Vec<_> = rows[0].keys().map(String::as_str).collect();
    let column =
        |name: &str| texts(rows.iter().map(|row| row[name].as_str().filter(|text| !text.is_empty())));
    let table = parquet(names.iter().map(|name| (*name, column(name))).collect());
    for bytes in [
        format!("\u{feff}{}", csv(&rows)).into_bytes(),
        dos.into_bytes(),
        gzip(csv(&rows)),
        lines.clone().into_bytes(),
        gzip(lines),
        table,
    ] {
        let read = read(bytes, Format::CommunityAlignment).unwrap();
        assert_eq!(read.records(), plain.records());
        assert_eq!(read.summary, plain.summary);
    }
}

#[test]
fn a_column_that_is_there_twice_is_refused() {
    let text = csv(&[good()]).replacen("wave\n", "annotator_id\n", 1);
    let error = read(text, Format::CommunityAlignment).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
}

#[test]
fn a_missing_column_is_named_and_an_unknown_one_reported() {
    let mut row = good();
    row.insert("first_turn_mood".into(), "glad".into());
    let read_more = read_rows(&[row.clone()]);
    assert_eq!(read_more.summary.unknown_fields.iter().collect::<Vec<_>>(), ["first_turn_mood"]);
    row.remove("third_turn_response_c");
    for bytes in [csv(&[row.clone()]).into_bytes(), Vec::new(), b"just some text".to_vec()] {
        match read(&bytes, Format::CommunityAlignment).unwrap_err() {
            ReadError::Column { column, .. } if bytes.len() > 20 => {
                assert_eq!(column, "third_turn_response_c");
            }
            ReadError::Column { column, .. } => assert_eq!(column, "conversation_id"),
            error => panic!("{error}"),
        }
    }
}
