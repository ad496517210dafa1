//! A folder with data, models and a way to run the binary in it.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The small encoder that the backbone's own tests use.
pub fn backbone() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../backbone/tests/fixtures/tiny-encoder")
}

/// A temporary folder to run the binary in.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new() -> Self {
        assert!(
            std::env::var_os("ORT_DYLIB_PATH").is_some(),
            "ORT_DYLIB_PATH names no ONNX Runtime; run the tests by `make test`"
        );
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A folder with data of people who prefer answers about tea, trained on.
    pub fn trained() -> Self {
        let place = Self::new();
        place.write("people.jsonl", &people(24));
        let output = place.run(&["train", "--data", "people.jsonl", "--heads", "bt", "--out", "models"]);
        assert!(output.status.success(), "{}", stderr(&output));
        place
    }

    /// A folder with models of people half of whom prefer coffee: what somebody likes is learned of them alone.
    pub fn of_opposites(heads: &str) -> Self {
        let place = Self::new();
        place.write("people.jsonl", &opposites(40));
        let train = ["train", "--data", "people.jsonl", "--heads", heads, "--out", "models"];
        let output = place.run(&train);
        assert!(output.status.success(), "{}", stderr(&output));
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The binary, in this folder, with the small encoder unless the arguments say otherwise.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_polyreward"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("POLYREWARD_BACKBONE__PATH", backbone())
            .env_remove("POLYREWARD_CACHE")
            .env_remove(polyreward_storage_postgres::testing::SERVER_URL)
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The only model folder there is.
    pub fn model_folder(&self) -> PathBuf {
        let mut versions = std::fs::read_dir(self.path("models/bt")).unwrap();
        let folder = versions.next().unwrap().unwrap().path();
        assert!(versions.next().is_none(), "there is more than one version");
        folder
    }

    pub fn serve(&self) -> Server {
        self.serve_with(&[])
    }

    pub fn serve_with(&self, environment: &[(&str, &str)]) -> Server {
        let mut command = self.command(&["serve", "--bind", "127.0.0.1:0", "--models", "models"]);
        Server::start(command.envs(environment.iter().copied()))
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Sends SIGTERM to a process that runs.
pub fn tell_to_stop(child: &Child) {
    kill_process(Pid::from_child(child), Signal::TERM).unwrap();
}

/// For loopback, whatever proxy the environment names.
fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub url: String,
}

impl Server {
    /// Runs a command that serves, until it says where.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().expect("the server ended before it listened").unwrap();
        let url = line.split_once("listening on ").expect("the line names the address").1.to_owned();
        Self { child, url }
    }

    /// Sends SIGTERM and gives the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        self.tell_to_stop();
        self.wait()
    }

    /// Sends SIGTERM.
    pub fn tell_to_stop(&self) {
        tell_to_stop(&self.child);
    }

    /// Waits for the end and gives the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let reply = client().get(format!("{}{path}", self.url)).send().await.unwrap();
        let status = reply.status().as_u16();
        (status, reply.json().await.unwrap())
    }

    pub async fn get_text(&self, path: &str) -> String {
        let reply = client().get(format!("{}{path}", self.url)).send().await.unwrap();
        reply.text().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let reply = client().post(format!("{}{path}", self.url)).json(body).send().await.unwrap();
        let status = reply.status().as_u16();
        (status, reply.json().await.unwrap())
    }

    /// Rewards of some responses to one prompt, each an item of its own.
    pub async fn rewards(&self, responses: &[String]) -> Vec<f64> {
        let items: Vec<Value> =
            responses.iter().map(|response| json!({"prompt": "A drink?", "responses": [response]})).collect();
        let (status, reply) = self.post("/score", &json!({"items": items})).await;
        assert_eq!(status, 200, "{reply}");
        let results = reply["results"].as_array().unwrap();
        results.iter().map(|result| result["rewards"][0].as_f64().unwrap()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

/// Distinct answers about a drink.
pub fn answers(drink: &str, count: usize) -> Vec<String> {
    let ways =
        ["in the morning", "by the window", "with an old friend", "after a long walk", "when it rains"];
    let words = ["warm", "fresh", "strong", "sweet", "quiet", "small", "good"];
    (0..count)
        .map(|n| format!("have some {} {drink} {} {}", words[n % 7], ways[n % 5], words[(n / 7) % 7]))
        .collect()
}

/// Comparisons of people who prefer tea to coffee, nine times of ten; the last quarter are unseen people.
pub fn people(count: usize) -> String {
    people_who(count, |_| false)
}

/// The same, but those in Germany prefer coffee.
pub fn opposites(count: usize) -> String {
    people_who(count, |person| person % 2 == 1)
}

fn people_who(count: usize, prefer_coffee: impl Fn(usize) -> bool) -> String {
    let (tea, coffee) = (answers("tea", 35), answers("coffee", 35));
    let mut lines = String::new();
    for person in 0..count {
        let unseen = person >= count - count / 4;
        for n in 0..16 {
            let (mut chosen, mut rejected) =
                (&tea[(person * 5 + n) % 35], &coffee[(person * 3 + n * 2) % 35]);
            let split = match (unseen, n) {
                (false, _) => "train",
                (true, 0..8) => "context",
                (true, _) => "query",
            };
            if ((person + n) % 10 == 0) != prefer_coffee(person) {
                std::mem::swap(&mut chosen, &mut rejected);
            }
            let line = json!({
                "user_id": format!("person-{person}"),
                "attributes": {"country": if person % 2 == 0 { "UK" } else { "DE" }},
                "split": split,
                "prompt": "A drink?",
                "chosen": chosen,
                "rejected": rejected,
            });
            lines.push_str(&line.to_string());
            lines.push('\n');
        }
    }
    lines
}
