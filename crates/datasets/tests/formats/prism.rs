use polyreward_datasets::{Format, ReadError, Skip};
use polyreward_domain::Prompt;
use serde_json::{Value, json};

use crate::support::{Files, Read, gzip, lines, parquet, read_paths, texts};

fn person(id: &str) -> Value {
    json!({
        "user_id": id, "survey_only": false, "age": "25-34 years old", "gender": "Female",
        "education": "University Bachelors Degree", "employment_status": "Student",
        "marital_status": "Never been married", "english_proficiency": "Fluent",
        "religion": {"self_described": "none of your business", "categorised": "Non-religious", "simplified": "No Affiliation"},
        "ethnicity": {"self_described": "x", "categorised": "White", "simplified": "White"},
        "location": {"birth_country": "Kenya", "birth_countryISO": "KEN", "birth_region": "Africa",
            "birth_subregion": "Sub-Saharan Africa", "reside_country": "United Kingdom", "reside_countryISO": "GBR",
            "reside_region": "Europe", "reside_subregion": "Northern Europe", "same_birth_reside_country": "No",
            "special_region": "Africa"},
        "stated_prefs": {"values": 3}, "included_in_US_REP": false, "included_in_UK_REP": true,
        "self_description": "a secret", "lm_frequency_use": null,
    })
}

/// A response: conversation, turn, number within it, text, score, chosen.
fn response(conversation: &str, turn: u32, at: u32, text: &str, score: u32, chosen: bool) -> Value {
    json!({
        "utterance_id": format!("{conversation}-ut{turn}{at}"), "interaction_id": format!("{conversation}-int{turn}"),
        "conversation_id": conversation, "user_id": "user0", "turn": turn, "within_turn_id": at,
        "included_in_balanced_subset": true, "conversation_type": "unguided",
        "user_prompt": format!("Question {turn}?"), "model_response": text, "model_name": "m",
        "model_provider": "p", "score": score, "if_chosen": chosen,
    })
}

fn conversation(id: &str) -> Vec<Value> {
    vec![
        response(id, 0, 0, "Carp", 34, false),
        response(id, 0, 1, "Trout", 67, true),
        response(id, 0, 2, "Eel", 1, false),
        response(id, 1, 0, "Yes", 90, true),
        response(id, 1, 1, "No", 24, false),
    ]
}

fn read_prism(people: &[Value], utterances: &[Value]) -> Read {
    let files = Files::new();
    files.add("survey.jsonl", lines(people));
    files.add("utterances.jsonl", lines(utterances));
    read_paths(&[files.folder()], Format::Prism).unwrap()
}

fn read_utterances(utterances: &[Value]) -> Read {
    read_prism(&[person("user0")], utterances)
}

fn pairs(read: &Read) -> Vec<(String, String, f64)> {
    let pair = |record: &&polyreward_domain::ComparisonRecord| {
        let comparison = &record.comparison;
        (comparison.chosen.clone(), comparison.rejected.clone(), comparison.strength.get())
    };
    read.records().iter().map(pair).collect()
}

fn pair(chosen: &str, rejected: &str, strength: f64) -> (String, String, f64) {
    (chosen.into(), rejected.into(), strength)
}

#[test]
fn the_chosen_response_is_compared_with_each_other_by_the_difference_of_scores() {
    let read = read_utterances(&conversation("c0"));
    assert_eq!(pairs(&read), [pair("Trout", "Carp", 1.0), pair("Trout", "Eel", 2.0), pair("Yes", "No", 2.0)]);
    let numbers: Vec<_> =
        read.rows.iter().map(|row| (row.number, row.content.as_ref().unwrap().len())).collect();
    assert_eq!(numbers, [(1, 2), (4, 1)]);
    let ids: Vec<_> = read.records().iter().map(|record| record.id.as_deref().unwrap()).collect();
    assert_eq!(ids[0], "c0-int0.c0-ut01.c0-ut00");
    assert_eq!((read.summary.rows, read.summary.records, read.summary.rejected), (6, 3, 0));
    assert_eq!(read.summary.unknown_fields.iter().count(), 0);
}

#[test]
fn earlier_turns_are_the_prompt_with_the_responses_that_were_chosen() {
    let mut rows = conversation("c0");
    rows.rotate_left(3);
    let read = read_utterances(&rows);
    let Prompt::Chat(turns) = &read.records()[2].comparison.prompt else { panic!("a chat") };
    let turns: Vec<_> = turns.iter().map(|turn| (turn.role.as_str(), turn.content.as_str())).collect();
    assert_eq!(turns, [("user", "Question 0?"), ("assistant", "Trout"), ("user", "Question 1?")]);
}

#[test]
fn the_survey_is_flattened_into_attributes() {
    let read = read_utterances(&conversation("c0"));
    let attributes = json!(read.records()[0].attributes);
    assert_eq!(
        attributes,
        json!({
            "age": "25-34 years old", "gender": "Female", "education": "University Bachelors Degree",
            "employment_status": "Student", "marital_status": "Never been married",
            "english_proficiency": "Fluent", "religion": "No Affiliation", "ethnicity": "White",
            "birth_country": "Kenya", "birth_region": "Africa", "birth_subregion": "Sub-Saharan Africa",
            "reside_country": "United Kingdom", "reside_region": "Europe",
            "reside_subregion": "Northern Europe", "same_birth_reside_country": "No",
            "special_region": "Africa", "us_representative": "false", "uk_representative": "true",
        })
    );
}

#[test]
fn pairs_that_say_nothing_are_counted() {
    let read = read_utterances(&[
        response("c0", 0, 0, "Trout", 50, true),
        response("c0", 0, 1, "Carp", 50, false),
        response("c0", 0, 2, "Trout", 20, false),
        response("c0", 0, 3, "  ", 10, false),
        response("c0", 0, 4, "Pike", 80, false),
        response("c0", 0, 5, "Eel", 17, false),
        response("c0", 0, 6, "Eel", 16, false),
    ]);
    assert_eq!(pairs(&read), [pair("Trout", "Eel", 1.0)]);
    let skipped: Vec<_> = read.summary.skipped.clone().into_iter().collect();
    assert_eq!(
        skipped,
        [
            (Skip::Tie, 1),
            (Skip::Contradiction, 1),
            (Skip::EqualText, 1),
            (Skip::DuplicateText, 1),
            (Skip::EmptyText, 1),
        ]
    );
    assert!(read.summary.to_string().contains("1 ties"), "{}", read.summary);
}

#[test]
fn people_of_the_survey_alone_are_skipped_and_counted() {
    let mut alone = person("user1");
    alone["survey_only"] = json!(true);
    let mut rows = conversation("c1");
    for row in &mut rows {
        row["user_id"] = json!("user1");
    }
    let read = read_prism(&[person("user0"), alone], &rows);
    assert_eq!(read.records().len(), 0);
    assert_eq!(read.summary.skipped[&Skip::SurveyOnly], 1);
    assert_eq!(read.summary.skipped[&Skip::SurveyOnlyTurn], 2);
    assert_eq!(read.summary.rejected, 0);
}

#[test]
fn unknown_fields_are_reported_by_name_nested_ones_too() {
    let mut someone = person("user0");
    someone["location"]["planet"] = json!("Earth");
    someone["religion"]["gpt4_categorised"] = json!("x");
    someone["shoe_size"] = json!(42);
    let mut rows = conversation("c0");
    rows[0]["mood"] = json!("glad");
    let read = read_prism(&[someone], &rows);
    let names: Vec<_> = read.summary.unknown_fields.iter().collect();
    assert_eq!(names, ["location.planet", "mood", "religion.gpt4_categorised", "shoe_size"]);
    assert_eq!(read.records().len(), 3);
}

#[test]
fn a_bad_row_of_the_survey_is_refused_and_its_person_unknown() {
    let bad = |name: &str, value: Value| {
        let mut someone = person("user0");
        someone[name] = value;
        someone
    };
    for (bad, reason) in [
        (bad("user_id", json!(7)), "user_id is no text"),
        (bad("survey_only", json!("no")), "survey_only is no boolean"),
        (bad("age", json!(["a secret"])), "age is no text"),
        (bad("location", json!("a secret")), "location is no object"),
        (bad("location", json!({"birth_country": {}})), "location.birth_country is no text"),
    ] {
        let read = read_prism(std::slice::from_ref(&bad), &conversation("c0"));
        let rejected = read.rejected();
        assert_eq!(rejected[0], (1, reason, bad.to_string().as_str()));
        assert_eq!(rejected[1].1, "its person is not in the survey");
        assert_eq!(rejected[2].1, "the turn before it is missing or refused");
        assert_eq!(read.summary.rejected, 6);
        assert_eq!(read.records().len(), 0);
    }
    let twice = read_prism(&[person("user0"), person("user0")], &conversation("c0"));
    assert_eq!(twice.only_reason(), "its person is there a second time");
    assert_eq!(twice.records().len(), 3);
}

#[test]
fn a_bad_response_is_refused_alone_and_the_others_still_compared() {
    for (name, value, reason) in [
        ("score", json!(101), "score is between 1 and 100"),
        ("score", json!(0), "score is between 1 and 100"),
        ("utterance_id", json!(""), "utterance_id is empty"),
        ("if_chosen", json!("a secret"), "invalid type: string \"...\", expected a boolean (column 94)"),
    ] {
        let mut rows = conversation("c0");
        rows[2][name] = value;
        let read = read_utterances(&rows);
        let rejected = read.rejected();
        assert_eq!(rejected.len(), 1);
        assert_eq!((rejected[0].0, rejected[0].2), (3, rows[2].to_string().as_str()));
        assert!(
            rejected[0].1.split(" (column").next() == reason.split(" (column").next(),
            "{}",
            rejected[0].1
        );
        assert_eq!(pairs(&read), [pair("Trout", "Carp", 1.0), pair("Yes", "No", 2.0)]);
    }
}

#[test]
fn an_interaction_that_contradicts_itself_is_refused_with_what_follows() {
    let change = |at: usize, name: &str, value: Value| {
        let mut rows = conversation("c0");
        rows[at][name] = value;
        rows
    };
    for (rows, reason) in [
        (change(1, "if_chosen", json!(false)), "none of its responses is chosen"),
        (change(0, "if_chosen", json!(true)), "several of its responses are chosen"),
        (change(0, "user_id", json!("user9")), "its rows differ in user_id"),
        (change(2, "turn", json!(1)), "its rows differ in turn"),
        (change(2, "user_prompt", json!("a secret")), "its rows differ in user_prompt"),
        (change(2, "utterance_id", json!("c0-ut00")), "one of its utterance ids is there twice"),
        (change(2, "model_response", json!("\u{0}")), "rejected contains the character U+0000 at byte 0"),
    ] {
        let mut all = rows.clone();
        all.extend(conversation("c1"));
        let read = read_utterances(&all);
        let rejected = read.rejected();
        assert_eq!(rejected.len(), 2, "{reason}");
        assert_eq!((rejected[0].0, rejected[0].1), (1, reason));
        assert_eq!(rejected[0].2, lines(&rows[..3]).trim_end());
        assert_eq!(rejected[1].1, "the turn before it is missing or refused");
        assert_eq!(read.summary.rejected, 5);
        assert_eq!(read.records().len(), 3, "the next conversation is whole");
    }
}

#[test]
fn turns_that_do_not_follow_each_other_are_refused() {
    let follow = |change: fn(&mut Value)| {
        let mut rows = conversation("c0");
        rows[3..].iter_mut().for_each(change);
        let read = read_prism(&[person("user0"), person("user1")], &rows);
        assert_eq!((read.records().len(), read.summary.rejected), (2, 2));
        read.only_reason().to_owned()
    };
    assert_eq!(follow(|row| row["turn"] = json!(0)), "its turn is there a second time");
    assert_eq!(follow(|row| row["turn"] = json!(2)), "the turn before it is missing or refused");
    assert_eq!(follow(|row| row["user_id"] = json!("user1")), "the turn before it is another person's");
}

#[test]
fn too_many_responses_to_one_prompt_are_refused() {
    let rows: Vec<_> =
        (0..17).map(|at| response("c0", 0, at, &format!("r{at}"), 50 + at, at == 16)).collect();
    let read = read_utterances(&rows);
    assert_eq!(read.only_reason(), "it has more than 16 responses");
    assert_eq!(read_utterances(&rows[1..]).records().len(), 15);
}

#[test]
fn a_conversation_that_comes_back_is_refused_not_mixed_up() {
    let mut rows = conversation("c0");
    let back = rows.split_off(3);
    rows.extend(conversation("c1"));
    rows.extend(back);
    let read = read_utterances(&rows);
    let rejected = read.rejected();
    assert_eq!(rejected.iter().map(|(number, ..)| *number).collect::<Vec<_>>(), [9, 10]);
    assert!(rejected[0].1.contains("began earlier"), "{rejected:?}");
    assert_eq!(read.records().len(), 5);
}

#[test]
fn a_conversation_that_would_fill_the_memory_is_refused() {
    let text = "x".repeat(9 << 20);
    let mut rows = conversation("c0");
    rows.push(response("c0", 2, 0, &text, 50, true));
    rows.push(response("c0", 2, 1, &text, 40, false));
    rows.push(response("c0", 2, 2, "Carp", 30, false));
    rows.extend(conversation("c1"));
    let read = read_utterances(&rows);
    let rejected = read.rejected();
    assert_eq!(rejected.iter().map(|(number, ..)| *number).collect::<Vec<_>>(), [1, 8]);
    assert_eq!(rejected[0].1, "its conversation is longer than 16777216 bytes");
    assert_eq!((read.summary.rejected, read.records().len()), (8, 3));
}

#[test]
fn files_may_be_gzipped_tables_or_given_by_name() {
    let plain = read_utterances(&conversation("c0"));
    let files = Files::new();
    let survey = files.add("survey.jsonl.gz", gzip(lines(&[person("user0")])));
    let rows = conversation("c0");
    let column = |name: &str| texts(rows.iter().map(|row| row[name].as_str()));
    let scores: arrow_array::Int64Array = rows.iter().map(|row| row["score"].as_i64()).collect();
    let turns: arrow_array::Int64Array = rows.iter().map(|row| row["turn"].as_i64()).collect();
    let chosen: arrow_array::BooleanArray = rows.iter().map(|row| row["if_chosen"].as_bool()).collect();
    let mut columns: Vec<(&str, arrow_array::ArrayRef)> =
        ["utterance_id", "interaction_id", "conversation_id", "user_id", "user_prompt", "model_response"]
            .into_iter()
            .map(|name| (name, column(name)))
            .collect();
    columns.push(("score", std::sync::Arc::new(scores)));
    columns.push(("turn", std::sync::Arc::new(turns)));
    columns.push(("if_chosen", std::sync::Arc::new(chosen)));
    let utterances = files.add("utterances.parquet", parquet(columns));
    let named = read_paths(&[utterances, survey], Format::Prism).unwrap();
    let folder = read_paths(&[files.folder()], Format::Prism).unwrap();
    assert_eq!(named.records(), plain.records());
    assert_eq!(folder.records(), plain.records());
}

#[test]
fn files_that_are_missing_or_there_twice_are_named() {
    let files = Files::new();
    files.add("survey.jsonl", "");
    let missing = read_paths(&[files.folder()], Format::Prism).unwrap_err();
    assert!(missing.to_string().contains("utterances.jsonl"), "{missing}");
    files.add("utterances.jsonl", "");
    files.add("utterances.jsonl.gz", gzip(""));
    let twice = read_paths(&[files.folder()], Format::Prism).unwrap_err();
    assert!(matches!(twice, ReadError::Layout { .. }), "{twice}");
    let column = files.add("survey.parquet", parquet(vec![("user_id", texts([Some("user0")]))]));
    let error = read_paths(&[column, files.folder().join("utterances.jsonl")], Format::Prism).unwrap_err();
    assert!(matches!(error, ReadError::Column { column: "survey_only", .. }), "{error}");
}
