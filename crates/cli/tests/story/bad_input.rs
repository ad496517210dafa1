//! What the command line says to input it cannot use: one line, and an exit code.

use std::{net::TcpListener, process::Output};

use crate::support::{Place, backbone, people, stderr};

/// One line on standard error that holds every part.
#[track_caller]
fn refused(output: &Output, code: i32, parts: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn a_wrong_key_is_a_usage_error_that_names_the_nearest() {
    let place = Place::new();
    place.write("polyreward.toml", "[backbone]\nsesions = 2\n");
    refused(
        &place.run(&["serve", "--print-config"]),
        2,
        &["backbone.sesions", "did you mean sessions?", "polyreward.toml"],
    );
    place.write("polyreward.toml", "");
    let output =
        place.command(&["serve", "--print-config"]).env("POLYREWARD_SERVER_BIND", "x").output().unwrap();
    refused(&output, 2, &["POLYREWARD_SERVER_BIND"]);
    let output = place
        .command(&["serve", "--print-config"])
        .env("POLYREWARD_SERVER__MAX_BATCH", "7")
        .output()
        .unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("max_batch = 7"));
    assert_eq!(place.run(&["serve", "--no-such-flag"]).status.code(), Some(2));
}

#[test]
fn an_address_beyond_loopback_needs_to_be_asked_for() {
    let place = Place::new();
    refused(&place.run(&["serve", "--bind", "0.0.0.0:0"]), 2, &["server.bind", "--insecure-no-auth"]);
    refused(&place.run(&["serve", "--bind", "here"]), 2, &["server.bind", "here"]);
}

#[test]
fn a_busy_port_is_named() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&place.run(&["serve", "--bind", &address]), 1, &["cannot listen", &address]);
}

#[test]
fn a_missing_library_folder_or_file_is_named() {
    let place = Place::new();
    std::fs::create_dir(place.path("models")).unwrap();
    let folder = backbone();
    let check = ["backbone", "check", folder.to_str().unwrap()];
    let output = place.command(&check).env("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so").output().unwrap();
    refused(&output, 1, &["ONNX Runtime", "/nowhere/libonnxruntime.so"]);
    refused(&place.run(&["backbone", "check", "nowhere"]), 1, &["nowhere"]);
    refused(&place.run(&["train", "--data", "nowhere.jsonl"]), 1, &["nowhere.jsonl"]);
    let output = place
        .command(&["serve", "--bind", "127.0.0.1:0"])
        .env("POLYREWARD_BACKBONE__PATH", "nowhere")
        .output()
        .unwrap();
    assert!(stderr(&output).contains("make setup"), "{}", stderr(&output));
}

#[test]
fn a_damaged_backbone_is_named() {
    let place = Place::new();
    std::fs::create_dir(place.path("backbone")).unwrap();
    for file in std::fs::read_dir(backbone()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), place.path("backbone").join(file.file_name())).unwrap();
    }
    let model = place.path("backbone/model.onnx");
    let mut bytes = std::fs::read(&model).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&model, bytes).unwrap();
    refused(&place.run(&["backbone", "check", "backbone"]), 1, &["model.onnx", "SHA-256"]);
    std::fs::write(place.path("backbone/backbone.json"), "{}").unwrap();
    refused(&place.run(&["backbone", "check", "backbone"]), 1, &["backbone.json"]);
}

#[test]
fn data_that_cannot_be_trained_on_says_why() {
    let place = Place::new();
    let line = |user: &str, chosen: &str, rejected: &str| {
        format!("{{\"user_id\": \"{user}\", \"chosen\": \"{chosen}\", \"rejected\": \"{rejected}\"}}\n")
    };
    let cases = [
        (String::new(), "no comparison"),
        (format!("{}nonsense\n", line("a", "x", "y")), "line 2"),
        (line("a", "x", "y").repeat(9), "one person"),
        (format!("{}{}", line("a", "x", "x"), line("b", "y", "y")), "no comparison"),
        (people(8).replace("\"train\"", "\"query\""), "split"),
    ];
    for (data, part) in cases {
        place.write("data.jsonl", &data);
        let output = place.run(&["train", "--data", "data.jsonl", "--heads", "bt"]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let text = stderr(&output);
        assert!(text.trim_end().lines().last().unwrap().contains(part), "{part:?} is not in: {text}");
        assert!(!place.path("models/bt").exists(), "a refused run leaves a model");
    }
    refused(&place.run(&["train", "--data", "data.jsonl", "--heads", "bt,btt"]), 2, &["--heads", "btt"]);
}
