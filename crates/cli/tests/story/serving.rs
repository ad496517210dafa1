//! A server, its clients, and the models folder behind it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::Stdio,
};

use futures::future::join_all;
use serde_json::{Value, json};

use crate::{
    client::{Client, example},
    support::{Place, answers, backbone, opposites, people, stderr, stdout, tell_to_stop},
};

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_of_one_text_and_one_client_of_many_texts_get_the_same_rewards() {
    let place = Place::trained();
    // No cache: every request must be computed, in whatever batch it falls.
    let server = place.serve_with(&[("POLYREWARD_BACKBONE__CACHE_BYTES", "0")]);
    let texts: Vec<String> = answers("tea", 32).into_iter().chain(answers("coffee", 32)).collect();
    let together = server.rewards(&texts).await;
    let alone = join_all(texts.iter().map(|text| server.rewards(std::slice::from_ref(text)))).await;
    for (a, b) in together.iter().zip(alone.into_iter().flatten()) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
    assert!(
        together[..32].iter().sum::<f64>() > together[32..].iter().sum::<f64>(),
        "tea is what people like"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_gives_the_same_rewards_and_a_stopped_one_exits_with_0() {
    let place = Place::trained();
    let texts = answers("tea", 8);
    let server = place.serve();
    let before = server.rewards(&texts).await;
    assert_eq!(server.terminate(), Some(0));
    let server = place.serve();
    for (a, b) in before.iter().zip(server.rewards(&texts).await) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
    let (status, ready) = server.get("/ready").await;
    assert_eq!((status, &ready["ready"]), (200, &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_model_never_replaces_a_working_one() {
    let place = Place::trained();
    let server = place.serve();
    let texts = answers("tea", 4);
    let before = server.rewards(&texts).await;
    let weights = place.model_folder().join("head.safetensors");
    let good = fs::read(&weights).unwrap();
    let mut bad = good.clone();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    for damaged in [&bad[..], &good[..good.len() / 2], b""] {
        fs::write(&weights, damaged).unwrap();
        let (status, report) = server.post("/models/reload", &Value::Null).await;
        assert_eq!(status, 200, "{report}");
        let failed = &report["failed"][0];
        assert_eq!(failed["still_serving"], json!(true), "{report}");
        assert!(failed["detail"].as_str().unwrap().contains("sha256"), "{report}");
        assert_eq!(server.rewards(&texts).await, before);
    }
    fs::write(&weights, &good).unwrap();
    let (_, report) = server.post("/models/reload", &Value::Null).await;
    assert_eq!(report["failed"], json!([]), "{report}");
    // A folder that is gone no longer answers; the server stays up and says so.
    fs::remove_dir_all(place.path("models/bt")).unwrap();
    let (_, report) = server.post("/models/reload", &Value::Null).await;
    assert_eq!(report["removed"].as_array().map(Vec::len), Some(1), "{report}");
    let (status, problem) =
        server.post("/score", &json!({"items": [{"prompt": "", "responses": ["a"]}]})).await;
    assert_eq!(status, 503, "{problem}");
    assert_eq!(server.get("/ready").await.0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_another_backbone_is_reported_not_served() {
    let place = Place::trained();
    let card = place.model_folder().join("model.json");
    let text = fs::read_to_string(&card).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    value["backbone"]["hash"] = json!("0".repeat(64));
    fs::write(&card, value.to_string()).unwrap();
    let server = place.serve();
    let (status, models) = server.get("/models").await;
    assert_eq!((status, models["items"].as_array().map(Vec::len)), (200, Some(0)), "{models}");
    let detail = models["failed"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("trained on backbone"), "{detail}");
    assert_eq!(server.get("/ready").await.0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_answered_by_a_server_that_is_told_to_stop() {
    let place = Place::trained();
    let mut server = place.serve_with(&[("POLYREWARD_SERVER__GRACE_SECONDS", "0")]);
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let body = json!({"items": [{"prompt": "A drink?", "responses": ["tea"]}]}).to_string();
    let length = body.len();
    let head = format!(
        "POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    let mut client = TcpStream::connect(&address).unwrap();
    client.write_all(format!("{head}{}", &body[..10]).as_bytes()).unwrap();
    while !server.get_text("/metrics").await.contains("polyreward_http_in_flight 1") {
        tokio::task::yield_now().await;
    }
    server.tell_to_stop();
    while TcpStream::connect(&address).is_ok() {
        tokio::task::yield_now().await;
    }
    client.write_all(&body.as_bytes()[10..]).unwrap();
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200") && reply.contains("\"rewards\""), "{reply}");
    assert_eq!(server.wait(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_derives_states_stops_when_it_is_told_to() {
    let place = Place::of_opposites("lore");
    let server = place.serve_with(&[("POLYREWARD_SERVER__GRACE_SECONDS", "0")]);
    let ids: Vec<String> = (0..3).map(|person| format!("person-{person}")).collect();
    let (tea, coffee) = (answers("tea", 35), answers("coffee", 35));
    let examples: Vec<Value> =
        (0..512).map(|n| example(("A drink?", &tea[n % 35], &coffee[n / 35]))).collect();
    for id in &ids {
        Client::of(&server).learn(id, &examples).await;
    }
    assert_eq!(server.terminate(), Some(0));
    let again =
        place.run(&["train", "--data", "people.jsonl", "--heads", "lore", "--out", "models", "--seed", "1"]);
    assert!(again.status.success(), "{}", stderr(&again));

    // Nobody is waited for.
    let environment = [("POLYREWARD_SERVER__GRACE_SECONDS", "0"), ("POLYREWARD_SERVER__DRAIN_SECONDS", "0")];
    let mut server = place.serve_with(&environment);
    let client = Client::of(&server);
    let asking = tokio::spawn({
        let client = client.clone();
        let body = json!({"user_ids": ids, "items": [{"prompt": "A drink?", "responses": ["tea"]}]});
        async move { client.try_post("/score", &body, "score").await }
    });
    while !asking.is_finished() && client.metric("polyreward_http_in_flight").await == 0 {
        tokio::task::yield_now().await;
    }
    server.tell_to_stop();
    assert_eq!(server.wait(), Some(0));
    // It was answered before that, or cut off.
    if let Ok(reply) = asking.await.unwrap() {
        reply.expect(200);
    }
}

/// The arguments of a demo with the models and the data of a place.
fn demo(place: &Place, more: &[&str]) -> std::process::Command {
    let mut command = place.command(&["demo", "--data", "people.jsonl", "--models", "models", "--backbone"]);
    // A proxy of the environment is not for loopback, and this one would not answer.
    command.arg(backbone()).args(more).env("http_proxy", "http://127.0.0.1:1");
    command
}

#[test]
fn the_demo_plays_held_out_people_and_ends() {
    let place = Place::trained();
    let output = demo(&place, &["--once"]).output().unwrap();
    let text = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    for part in ["http://127.0.0.1:", "simulated", "everybody", "P(first preferred)"] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn the_demo_shows_a_head_that_learns_people_from_their_examples() {
    let place = Place::new();
    place.write("people.jsonl", &opposites(40));
    let trained = ["train", "--data", "people.jsonl", "--heads", "bt,lore", "--out", "models"];
    let trained = place.run(&trained);
    assert!(trained.status.success(), "{}", stderr(&trained));
    let output = demo(&place, &["--once"]).output().unwrap();
    let text = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    // `everybody 10 lore@... 0.500 (...) 0.6 (...) ...`, a number and an interval for each of 0, 1, 2, 4, 8, 16 examples.
    let accuracies = |head: &str| -> Vec<f64> {
        let row = text.lines().find(|line| line.starts_with("everybody") && line.contains(head)).unwrap();
        let cells = row.split_whitespace().skip(3).filter(|cell| !cell.starts_with('('));
        cells.map(|cell| cell.parse().unwrap()).collect()
    };
    let (bt, lore) = (accuracies("bt@"), accuracies("lore@"));
    assert_eq!((bt.len(), lore.len()), (6, 6), "{text}");
    assert!(
        bt.iter().all(|accuracy| *accuracy == bt[0]),
        "examples change nothing for Bradley-Terry: {bt:?}"
    );
    assert!(lore[4] > lore[0] + 0.1 && lore[4] > bt[4] + 0.1, "{lore:?} {bt:?}");
}

#[test]
fn the_demo_plays_people_without_examples_and_with_more_queries_than_one_request_takes() {
    let place = Place::trained();
    let data = people(24);
    let lines: Vec<&str> = data.lines().filter(|line| !line.contains(r#""split":"context""#)).collect();
    let of_one: Vec<&str> = lines.iter().copied().filter(|line| line.contains("person-23\"")).collect();
    assert!(!of_one.is_empty());
    // 513 pairs are 1026 texts, two more than a request may have.
    let many: Vec<&str> = lines.iter().copied().chain(of_one.iter().copied().cycle().take(513)).collect();
    place.write("people.jsonl", &many.join("\n"));
    let output = demo(&place, &["--once"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("everybody"), "{}", stdout(&output));
}

#[test]
fn a_demo_that_is_told_to_stop_stops_its_server_too() {
    let place = Place::trained();
    for last_line in ["server      ", "Serving until"] {
        let mut demo = demo(&place, &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut url = None;
        for line in lines.by_ref() {
            url = url.or_else(|| Some(line.strip_prefix("server      http://")?.to_owned()));
            if line.starts_with(last_line) {
                break;
            }
        }
        tell_to_stop(&demo);
        for _rest in lines {} // a full pipe would hold it up
        assert_eq!(demo.wait().unwrap().code(), Some(0), "after {last_line:?}");
        assert!(TcpStream::connect(url.unwrap()).is_err(), "the server still listens");
    }
}
