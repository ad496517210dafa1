//! Files of comparisons into a server or a database, and out again.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    process::{Output, Stdio},
    thread::JoinHandle,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};

use crate::support::{Place, people, stderr, stdout};

/// Rows of a file that takes a while.
const ROWS: usize = 1000;

/// A folder with an empty folder of models.
fn bare() -> Place {
    let place = Place::new();
    fs::create_dir(place.path("models")).unwrap();
    place
}

fn lines(rows: impl IntoIterator<Item = Value>) -> String {
    rows.into_iter().fold(String::new(), |text, row| text + &row.to_string() + "\n")
}

fn rows(place: &Place, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(place.path(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A number of the summary.
fn count(output: &Output, name: &str) -> u64 {
    let text = stdout(output);
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    let number = line[name.len()..].trim_start();
    number.split(|letter: char| !letter.is_ascii_digit()).next().unwrap().parse().unwrap()
}

fn counts(output: &Output) -> [u64; 3] {
    assert!(output.status.success(), "{} {}", stdout(output), stderr(output));
    ["stored", "duplicates", "rejected"].map(|name| count(output, name))
}

/// What is stored, but for the time at which it was.
fn exported(place: &Place, from: &[&str]) -> Vec<Value> {
    let output = place.run(&[&["export", "--out", "exported.jsonl"], from].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let mut rows = rows(place, "exported.jsonl");
    for row in &mut rows {
        assert!(row.as_object_mut().unwrap().remove("created_at").is_some());
    }
    rows
}

fn comparison(user_id: &str, n: usize) -> Value {
    json!({"user_id": user_id, "attributes": {"country": "UK"}, "prompt": "A drink?",
        "chosen": format!("tea {n}"), "rejected": format!("coffee {n}"), "id": format!("e{n}")})
}

/// One interaction with three responses, and its person.
fn write_prism(place: &Place) {
    fs::create_dir(place.path("prism")).unwrap();
    let location = json!({"birth_country": "Kenya", "birth_countryISO": "KEN", "birth_region": "Africa",
        "birth_subregion": "Sub-Saharan Africa", "reside_country": "United Kingdom", "reside_countryISO": "GBR",
        "reside_region": "Europe", "reside_subregion": "Northern Europe", "same_birth_reside_country": "No",
        "special_region": "Africa"});
    let person = json!({"user_id": "user0", "survey_only": false, "age": "25-34 years old", "gender": "Female",
        "education": "None", "employment_status": "Student", "marital_status": "Widowed",
        "english_proficiency": "Fluent", "religion": {"simplified": "No Affiliation"},
        "ethnicity": {"simplified": "White"}, "location": location, "included_in_US_REP": false,
        "included_in_UK_REP": true});
    place.write("prism/survey.jsonl", &lines([person]));
    let response = |at: u32, text: &str, score: u32, chosen: bool| {
        json!({"utterance_id": format!("ut{at}"), "interaction_id": "int0", "conversation_id": "c0",
            "user_id": "user0", "turn": 0, "within_turn_id": at, "included_in_balanced_subset": true,
            "conversation_type": "unguided", "user_prompt": "Name a fish.", "model_response": text,
            "model_name": "m", "model_provider": "p", "score": score, "if_chosen": chosen})
    };
    let responses = [
        response(0, "Carp", 34, false),
        response(1, "Trout", 67, true),
        response(2, "Eel", 1, false),
        response(3, "Pike", 67, false),
    ];
    place.write("prism/utterances.jsonl", &lines(responses));
}

/// A conversation of one turn with four responses.
fn write_community_alignment(place: &Place) {
    let mut row = Map::new();
    let person = [
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
    ];
    row.extend(person.map(|(name, value)| (name.to_owned(), json!(value))));
    for turn in ["first", "second", "third", "fourth"] {
        for field in ["prompt", "response_a", "response_b", "response_c", "response_d", "preferred_response"]
        {
            row.insert(format!("{turn}_turn_{field}"), json!(""));
        }
        row.insert(format!("{turn}_turn_feedback"), json!(""));
    }
    for (field, value) in [
        ("prompt", "Name a fish."),
        ("response_a", "Carp"),
        ("response_b", "Trout"),
        ("response_c", "Eel"),
        ("response_d", "Pike"),
        ("preferred_response", "response_b"),
    ] {
        row[&format!("first_turn_{field}")] = json!(value);
    }
    place.write("community.jsonl", &lines([Value::Object(row)]));
}

#[test]
fn every_format_is_stored_alike_over_http_and_in_a_database_and_only_once() {
    let place = bare();
    let dialogue = |last: &str| format!("\n\nHuman: Name a fish.\n\nAssistant: {last}");
    place
        .write("hh.jsonl", &lines([json!({"chosen": dialogue("Trout"), "rejected": dialogue("Fish swim")})]));
    place.write("ours.jsonl", &lines([comparison("ada", 0), comparison("ada", 1), comparison("ben", 0)]));
    write_prism(&place);
    write_community_alignment(&place);
    let server = place.serve();
    let to_server = ["--url", server.url.as_str()];
    let to_database = ["--database-url", "sqlite:other.db"];
    let files: [(&str, &[&str], u64); 4] = [
        ("ours.jsonl", &["--format", "jsonl"], 3),
        ("hh.jsonl", &["--format", "hh", "--hh-user", "crowd"], 1),
        ("prism", &["--format", "prism"], 2),
        ("community.jsonl", &["--format", "community-alignment"], 3),
    ];
    for (file, format, comparisons) in files {
        for target in [to_server, to_database] {
            let import = [&["import", file], format, &target[..]].concat();
            let output = place.run(&import);
            assert_eq!(counts(&output), [comparisons, 0, 0], "{file} {}", stderr(&output));
            let without = stderr(&output).contains("there is no model");
            assert_eq!(without, target == to_database, "{}", stderr(&output));
            assert_eq!(counts(&place.run(&import)), [0, comparisons, 0], "{file}");
        }
        assert!(!place.path(&format!("{file}.rejects.jsonl")).exists());
        assert!(!place.path(&format!("{file}.rejects.jsonl.progress")).exists());
    }
    let stored = exported(&place, &to_server);
    assert_eq!(stored, exported(&place, &to_database));
    let of =
        |user_id: &str| -> Vec<&Value> { stored.iter().filter(|row| row["user_id"] == user_id).collect() };
    assert_eq!(stored.len(), 9);
    let tie = place.run(&["import", "prism", "--format", "prism", "--database-url", "sqlite:other.db"]);
    assert!(stdout(&tie).contains("1 ties"), "{}", stdout(&tie));
    assert_eq!(of("user0")[0]["attributes"]["birth_country"], "Kenya");
    assert_eq!(of("user0")[0]["strength"], 1.0);
    assert_eq!(of("crowd")[0]["prompt"], json!([{"role": "user", "content": "Name a fish."}]));
    assert_eq!((of("ada")[1]["id"].as_str(), of("17").len()), (Some("e1"), 3));
}

#[tokio::test]
async fn what_is_exported_can_be_imported_into_an_empty_database_and_gives_the_same_states() {
    let place = Place::new();
    place.write("people.jsonl", &people(8));
    let trained = place.run(&["train", "--data", "people.jsonl", "--heads", "bt,lore", "--out", "models"]);
    assert!(trained.status.success(), "{}", stderr(&trained));
    let mut posted = rows(&place, "people.jsonl");
    posted[0]["strength"] = json!(2.5);
    posted[1]["label_confidence"] = json!(0.75);
    posted[2]["rationale"] = json!("kürzer \u{1f375}");
    posted[3]["prompt"] =
        json!([{"role": "user", "content": "Hello"}, {"role": "user", "content": "A drink?"}]);
    posted[4]["id"] = json!("mine.1");
    place.write("posted.jsonl", &lines(posted));
    let first = place.run(&["import", "posted.jsonl", "--database-url", "sqlite:first.db"]);
    let [stored, duplicates, rejected] = counts(&first);
    assert_eq!((stored + duplicates, rejected, count(&first, "people")), (128, 0, 8));
    let export = |database: &str, out: &str, states: &str| {
        let output = place.run(&["export", "--database-url", database, "--out", out, "--states", states]);
        assert!(output.status.success(), "{}", stderr(&output));
        for file in [out, states] {
            assert_eq!(fs::metadata(place.path(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        }
        (exported(&place, &["--database-url", database]), rows(&place, states))
    };
    let before = export("sqlite:first.db", "first.jsonl.gz", "first-states.jsonl");
    let second = place.run(&["import", "first.jsonl.gz", "--database-url", "sqlite:second.db"]);
    assert_eq!(counts(&second), [stored, 0, 0]);
    let after = export("sqlite:second.db", "second.jsonl", "second-states.jsonl");
    assert_eq!((before.0.len() as u64, before.1.len()), (stored, 8));
    assert_eq!(before.0, after.0);
    for (a, b) in before.1.iter().zip(&after.1) {
        for field in ["user_id", "model", "state_version", "examples"] {
            assert_eq!(a[field], b[field]);
        }
        let numbers = |state: &Value| -> Vec<f64> {
            state["mean"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
        };
        assert!(numbers(a).iter().zip(numbers(b)).all(|(a, b)| (a - b).abs() < 1e-4), "{a} {b}");
        assert_eq!(a["covariance"].as_array().unwrap().len(), numbers(a).len());
    }
    // The models predicted before they learned, as they do over HTTP.
    let server = place.serve_with(&[("POLYREWARD_DATABASE__URL", "sqlite:second.db")]);
    let (_, profile) = server.get("/users/person-1").await;
    for state in profile["states"].as_object().unwrap().values() {
        assert_eq!(
            (&state["accuracy"]["n"], &profile["examples"]),
            (&profile["examples"], &json!(16)),
            "{profile}"
        );
    }
    let of_one = exported(&place, &["--database-url", "sqlite:second.db", "--user", "person-1"]);
    assert!(!of_one.is_empty() && of_one.iter().all(|row| row["user_id"] == "person-1"));
    let nobody =
        place.run(&["export", "--database-url", "sqlite:second.db", "--user", "x", "--out", "no.jsonl"]);
    assert!(stderr(&nobody).contains("no such person") && !place.path("no.jsonl").exists());
}

#[test]
fn rows_that_cannot_be_imported_are_named_and_kept() {
    let place = bare();
    let secret = "a secret text";
    let text = [
        comparison("ada", 0).to_string(),
        format!("{{\"user_id\": \"ada\", \"chosen\": \"{secret}\""),
        comparison("town/ada", 1).to_string(),
        comparison("ada", 2).to_string().replace("coffee 2", "tea 2"),
        comparison("ada", 3).to_string().replace("\"e3\"", "\"not an id\""),
        comparison("ada", 4).to_string().replace("UK", ""),
        comparison("..", 5).to_string(),
        comparison("ada", 6).to_string(),
    ];
    place.write("people.jsonl", &(text.join("\n") + "\n"));
    let server = place.serve();
    let import = ["import", "people.jsonl", "--url", server.url.as_str()];
    for expected in [[2, 0, 6], [0, 2, 6]] {
        let output = place.run(&import);
        assert_eq!(counts(&output), expected);
        let said = stderr(&output) + &stdout(&output);
        assert!(
            said.contains("people.jsonl, row 3: user_id: a user id has 1 to 128") && !said.contains(secret)
        );
        let rejects = rows(&place, "people.jsonl.rejects.jsonl");
        let numbers: Vec<_> = rejects.iter().map(|reject| reject["row"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [2, 3, 4, 5, 6, 7]);
        assert_eq!(rejects[0]["raw"].as_str(), Some(text[1].as_str()));
        assert!(rejects[3]["reason"].as_str().unwrap().starts_with("id: an example id"), "{}", rejects[3]);
        assert!(rejects[3]["raw"].as_str().unwrap().contains("not an id"));
        let mode = fs::metadata(place.path("people.jsonl.rejects.jsonl")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let strict = place.run(&[&import[..], &["--strict"]].concat());
    assert_eq!(strict.status.code(), Some(1), "{}", stderr(&strict));
    // Mended, the file has no rejects; what is no rejects file of this input is left alone.
    place.write("people.jsonl", &(comparison("ada", 0).to_string() + "\n"));
    assert_eq!(counts(&place.run(&import)), [0, 1, 0]);
    assert!(!place.path("people.jsonl.rejects.jsonl").exists());
    place.write("diary.jsonl", "dear diary\n");
    let other = place.run(&[&import[..], &["--rejects", "diary.jsonl"]].concat());
    assert_eq!(other.status.code(), Some(2), "{}", stderr(&other));
    assert_eq!(fs::read_to_string(place.path("diary.jsonl")).unwrap(), "dear diary\n");
    place.write("bad.jsonl", "{\n");
    let nothing = place.run(&["import", "bad.jsonl", "--url", server.url.as_str()]);
    assert_eq!(nothing.status.code(), Some(1), "{}", stderr(&nothing));
}

#[test]
fn examples_beyond_what_is_kept_of_a_person_are_rejected_and_the_rest_is_not() {
    let place = bare();
    let rows_of = |user_id: &'static str, n: usize| (0..n).map(move |n| comparison(user_id, n));
    place.write("people.jsonl", &lines(rows_of("ada", 5).chain(rows_of("ada", 8)).chain(rows_of("ben", 2))));
    let server = place.serve_with(&[("POLYREWARD_USERS__MAX_EXAMPLES", "7")]);
    let output = place.run(&["import", "people.jsonl", "--url", &server.url]);
    assert_eq!(counts(&output), [9, 5, 1]);
    let rejects = rows(&place, "people.jsonl.rejects.jsonl");
    assert_eq!((rejects.len(), &rejects[0]["row"]), (1, &json!(13)));
    assert!(rejects[0]["reason"].as_str().unwrap().contains("more than the 7"), "{}", rejects[0]);
}

#[test]
fn an_import_that_was_stopped_goes_on_and_every_record_is_there_once() {
    let place = bare();
    // No two rows in a post, and one bad row in fifty.
    let row = |n: usize| match n % 50 {
        7 => json!({"user_id": "town/ada", "chosen": "a", "rejected": "b"}),
        _ => comparison(&format!("person-{}", n % 20), n),
    };
    place.write("people.jsonl", &lines((0..ROWS).map(row)));
    let server = place.serve();
    let import = ["import", "people.jsonl", "--url", server.url.as_str(), "--at-once", "2"];
    let progress = place.path("people.jsonl.rejects.jsonl.progress");
    let rows_done = || -> u64 {
        let Ok(text) = fs::read(&progress) else { return 0 };
        serde_json::from_slice::<Value>(&text).unwrap()["counts"]["rows"].as_u64().unwrap()
    };
    let mut last = 0;
    for signal in [Signal::INT, Signal::KILL, Signal::TERM] {
        let mut child = place.command(&import).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while rows_done() < last + 50 {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was stopped");
            std::thread::yield_now();
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        if signal != Signal::KILL {
            assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
            assert!(stderr(&output).contains("the same command goes on"), "{}", stderr(&output));
        }
        last = rows_done();
    }
    let output = place.run(&import);
    assert!(stderr(&output).contains(&format!("goes on at row {}", last + 1)), "{}", stderr(&output));
    // Stored by a run whose answer came after it was stopped, a record may be a duplicate.
    let [stored, duplicates, rejected] = counts(&output);
    assert_eq!((stored + duplicates, rejected, count(&output, "rows")), (980, 20, 1000));
    let rejects = rows(&place, "people.jsonl.rejects.jsonl");
    let numbers: Vec<_> = rejects.iter().map(|reject| reject["row"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..20).map(|n| 50 * n + 8).collect::<Vec<_>>());
    assert!(!progress.exists());
    let mut ids: Vec<String> = exported(&place, &["--url", &server.url])
        .iter()
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort_unstable();
    let mut expected: Vec<_> = (0..ROWS).filter(|n| n % 50 != 7).map(|n| format!("e{n}")).collect();
    expected.sort_unstable();
    assert_eq!(ids, expected);
}

/// Answers one request after the other as scripted, each on a connection of its own; gives the bodies.
fn scripted(replies: Vec<(u16, &'static str, Value)>) -> (String, JoinHandle<Vec<Value>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = move |(status, headers, reply): (u16, &str, Value)| -> Value {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let reply = reply.to_string();
        let head =
            format!("HTTP/1.1 {status} x\r\n{headers}connection: close\r\ncontent-length: {}", reply.len());
        stream.get_mut().write_all(format!("{head}\r\n\r\n{reply}").as_bytes()).unwrap();
        serde_json::from_slice(&body).unwrap_or_default()
    };
    (url, std::thread::spawn(move || replies.into_iter().map(answer).collect()))
}

#[test]
fn what_a_server_refuses_is_mapped_back_to_rows_and_what_it_cannot_do_now_is_tried_again() {
    let place = Place::new();
    place.write("people.jsonl", &lines((0..5).map(|n| comparison("ada", n))));
    let limits = json!({"limits": {"max_batch": 6, "max_examples": 100, "max_body_bytes": 4096}});
    let busy = json!({"title": "The server has too much to do"});
    let refused = json!({"errors": [{"pointer": "/examples/1/chosen", "detail": "cannot be read"}]});
    let stored = |accepted: u64| json!({"accepted": accepted, "duplicates": 0});
    let (url, bodies) = scripted(vec![
        (503, "retry-after: 1\r\n", busy.clone()),
        (200, "", limits),
        (422, "", refused),
        (429, "", busy),
        (201, "", stored(2)),
        (201, "", stored(2)),
    ]);
    let output = place.run(&["import", "people.jsonl", "--url", &url]);
    assert_eq!(counts(&output), [4, 0, 1]);
    assert!(stderr(&output).contains("people.jsonl, row 2: chosen cannot be read"), "{}", stderr(&output));
    let ids = |body: &Value| -> Vec<String> {
        let examples = body["examples"].as_array().into_iter().flatten();
        examples.map(|example| example["id"].as_str().unwrap().to_owned()).collect()
    };
    let posted: Vec<_> = bodies.join().unwrap().iter().map(ids).collect();
    let expected: [&[&str]; 4] = [&["e0", "e1", "e2"], &["e0", "e2"], &["e0", "e2"], &["e3", "e4"]];
    assert_eq!(posted[2..], expected);
    assert_eq!(rows(&place, "people.jsonl.rejects.jsonl")[0]["row"], 2);
}

#[test]
fn an_import_waits_for_a_server_that_restarts() {
    let place = bare();
    place.write("people.jsonl", &lines((0..3).map(|n| comparison("ada", n))));
    let server = place.serve();
    let url = server.url.clone();
    assert_eq!(server.terminate(), Some(0));
    let import = ["import", "people.jsonl", "--url", url.as_str(), "--retry-seconds", "60"];
    let mut import = place.command(&import).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(import.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("cannot be reached; trying again")), "it gave up");
    let address = url.strip_prefix("http://").unwrap();
    let serve = ["serve", "--models", "models", "--bind", address];
    let mut server = place.command(&serve).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let output = import.wait_with_output().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(counts(&output), [3, 0, 0]);
}

#[test]
fn a_key_that_does_not_allow_it_and_a_server_that_is_gone_end_an_import() {
    let place = bare();
    place.write("people.jsonl", &lines([comparison("ada", 0)]));
    let key = |scopes: &str| {
        let made = place.run(&["keys", "create", "--name", "k", "--scopes", scopes]);
        stdout(&made).trim().to_owned()
    };
    let (write, read) = (key("write"), key("read"));
    let server = place.serve();
    let import = ["import", "people.jsonl", "--url", server.url.as_str()];
    let with = |key: &str| place.command(&import).env("POLYREWARD_KEY", key).output().unwrap();
    for (key, says) in [("pr_wrong", "POLYREWARD_KEY"), (read.as_str(), "scope write")] {
        let output = with(key);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(says) && !stderr(&output).contains(key), "{}", stderr(&output));
    }
    assert_eq!(place.run(&import).status.code(), Some(1), "no key at all");
    assert_eq!(counts(&with(&write)), [1, 0, 0]);
    assert_eq!(counts(&place.run(&[&import[..], &["--key", write.as_str()]].concat())), [0, 1, 0]);
    let url = server.url.clone();
    drop(server);
    let gone = place.run(&["import", "people.jsonl", "--url", &url, "--retry-seconds", "1"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(stderr(&gone).contains("cannot be reached; given up after 1 s"), "{}", stderr(&gone));
    let export = place.run(&["export", "--url", &url, "--retry-seconds", "0", "--out", "out.jsonl"]);
    assert_eq!(export.status.code(), Some(1));
    let states = place.run(&["export", "--url", &url, "--out", "out.jsonl", "--states", "states.jsonl"]);
    assert_eq!(states.status.code(), Some(2), "{}", stderr(&states));
    let left = fs::read_dir(place.path(".")).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_str().unwrap().starts_with(".tmp")).collect();
    assert!(left.is_empty() && !place.path("out.jsonl").exists(), "{left:?}");
}
