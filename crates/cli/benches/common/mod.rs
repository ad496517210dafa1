//! What every bench needs: the real server, texts, people, a place for what it finds.

#![allow(dead_code, reason = "each bench is a crate of its own, and none uses all of it")]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use polyreward_bench::{
    Recorder,
    load::{Bounds, Request, Requests, Run, Target, closed, closed_keeping},
};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Tries everything with few rounds and few requests.
const QUICK: &str = "BENCH_QUICK";
/// Another server to measure, in place of the one built with the bench.
const SERVER: &str = "BENCH_SERVER";

/// Whether little is to be measured.
pub fn is_quick() -> bool {
    std::env::var_os(QUICK).is_some_and(|quick| quick == "1")
}

/// How much of something is measured.
pub fn much(full: usize, quick: usize) -> usize {
    if is_quick() { quick } else { full }
}

/// `cargo test --benches` and `cargo bench -- --list` call a bench too.
pub fn is_only_listed() -> bool {
    std::env::args().any(|argument| argument == "--list" || argument == "--test")
}

/// Prints a report of a bench's own, which the common one links to, and leaves it beside that.
pub fn publish(name: &str, text: &str) -> anyhow::Result<()> {
    print!("{text}");
    std::fs::create_dir_all(folder())?;
    Ok(std::fs::write(folder().join(name), text)?)
}

/// A place for what a bench finds; nothing where it is only listed.
pub fn recorder(bench: &str) -> anyhow::Result<Option<Recorder>> {
    if is_only_listed() {
        return Ok(None);
    }
    allow_connections()?;
    Recorder::open(&folder().join("parts"), bench, is_quick()).map(Some)
}

/// As many open files as the system lets this process and the servers that it starts have: a thousand clients are a thousand.
fn allow_connections() -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Where benches leave what they find.
pub fn folder() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_polyreward")).ancestors().nth(2);
    target.expect("the binary is below target").join("bench")
}

/// Runs the generator of load on this thread: what it takes of the machine is one core's at most.
pub fn runtime() -> anyhow::Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Where `make` keeps backbones and models.
pub fn cache() -> anyhow::Result<PathBuf> {
    std::env::var_os("POLYREWARD_CACHE").map(PathBuf::from).context("run it by `make bench`")
}

/// The default backbone's folder.
pub fn backbone() -> anyhow::Result<PathBuf> {
    Ok(cache()?.join("backbones").join("all-minilm-l6-v2-int8"))
}

/// The models of the sample data.
pub fn models() -> anyhow::Result<PathBuf> {
    let models = cache()?.join("models-sample");
    ensure!(models.is_dir(), "there is no {}; run it by `make bench`", models.display());
    Ok(models)
}

/// A prompt and a response to it.
pub type Text = (String, String);

/// Responses to each prompt of the sample.
pub const RESPONSES: usize = 5;

/// Every prompt and answer of the sample; the answers to a prompt stand together.
pub fn sample() -> anyhow::Result<Vec<Text>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/sample/prompts.jsonl");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut answers = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line)?;
        let string = |value: &Value| value.as_str().map(str::to_owned).context("a text that is no string");
        let responses = line["responses"].as_array().context("a prompt without responses")?;
        ensure!(responses.len() == RESPONSES, "a prompt with {} responses", responses.len());
        for response in responses {
            answers.push((string(&line["prompt"])?, string(&response["text"])?));
        }
    }
    Ok(answers)
}

/// Distinct texts of mixed length, from the sample prompts: every third carries a second answer behind the first.
pub fn distinct(answers: &[Text], number: usize) -> Text {
    let (prompt, answer) = &answers[number % answers.len()];
    let second =
        if number.is_multiple_of(3) { answers[(number * 7 + 3) % answers.len()].1.as_str() } else { "" };
    (prompt.clone(), format!("{answer} {second} ({number})"))
}

/// One request for the rewards of distinct texts, `per_request` of them from number `first` on.
pub fn distinct_body(answers: &[Text], model: &str, first: usize, per_request: usize) -> String {
    let items: Vec<Value> = (first..first + per_request)
        .map(|number| {
            let (prompt, response) = distinct(answers, number);
            json!({"prompt": prompt, "responses": [response]})
        })
        .collect();
    json!({"model": model, "items": items}).to_string()
}

/// A pair of the sample.
pub fn pair(answers: &[Text]) -> Value {
    let (prompt, a) = &answers[0];
    json!({"prompt": prompt, "response_a": a, "response_b": answers[1].1})
}

/// An example of somebody's own choice between two answers to one prompt; different for each number below 840.
pub fn example(answers: &[Text], person: usize, number: usize) -> Value {
    let prompts = answers.len() / RESPONSES;
    let at = (person * 7 + number * 13) % prompts * RESPONSES;
    // Of five answers there are ten pairs, either way round.
    let (first, step) = (number / prompts % RESPONSES, 1 + number / prompts / RESPONSES % 2);
    let mut both = [at + first, at + (first + step) % RESPONSES];
    if !(person + number).is_multiple_of(2) {
        both.reverse();
    }
    json!({"prompt": answers[at].0, "chosen": answers[both[0]].1, "rejected": answers[both[1]].1})
}

/// Posts examples of people, eight posts at a time.
pub async fn post_people(
    target: Target,
    answers: &Arc<Vec<Text>>,
    people: std::ops::Range<usize>,
    examples: usize,
) -> anyhow::Result<Run> {
    let (count, first, answers) = (people.len(), people.start, Arc::clone(answers));
    let requests: Requests = Arc::new(move |number| {
        let person = first + number;
        let examples: Vec<Value> = (0..examples).map(|at| example(&answers, person, at)).collect();
        Request::post(&format!("/users/person-{person}/examples"), json!({"examples": examples}).to_string())
    });
    closed(target, 8, Bounds::requests(count), requests).await?.all_answered()
}

/// Asks one after another for the same, and is content with successes alone; milliseconds each.
pub async fn one_by_one(target: Target, count: usize, requests: Requests) -> anyhow::Result<Vec<f64>> {
    let run = closed(target, 1, Bounds::requests(count), requests).await?.all_answered()?;
    Ok(run.answers.iter().map(|answer| answer.latency_ms).collect())
}

/// One answer.
pub async fn ask(target: Target, request: Request) -> anyhow::Result<Value> {
    let requests: Requests = Arc::new(move |_| request.clone());
    let run = closed_keeping(target, 1, Bounds::requests(1), requests).await?.all_answered()?;
    Ok(serde_json::from_slice(&run.answers[0].body)?)
}

/// The middle of some values that there are.
pub fn median(values: &[f64]) -> anyhow::Result<f64> {
    Ok(polyreward_bench::statistics::Spread::of(values).context("nothing was measured")?.median)
}

/// Where a server says that it listens.
fn listening(child: &mut Child) -> anyhow::Result<(String, Target)> {
    let stdout = child.stdout.take().context("standard output is not piped")?;
    for line in BufReader::new(stdout).lines() {
        if let Some((_, url)) = line?.split_once("listening on ") {
            let url = url.trim().to_owned();
            let target = Target::of(&url)?;
            return Ok((url, target));
        }
    }
    bail!("the server ended before it listened")
}

/// A server on a free port of loopback; killed when dropped.
pub struct Server {
    child: Child,
    pub url: String,
    pub target: Target,
    /// Its database, where it is SQLite's.
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts it on a new SQLite database, with further environment.
    pub fn start(environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_on(None, environment)
    }

    /// The same on a database of one's own.
    pub fn start_on(database_url: Option<&str>, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let built = || Path::new(env!("CARGO_BIN_EXE_polyreward")).to_owned();
        let binary = std::env::var_os(SERVER).map_or_else(built, PathBuf::from);
        Self::start_binary(&binary, database_url, environment)
    }

    /// The same of another build.
    pub fn start_binary(
        binary: &Path,
        database_url: Option<&str>,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let new = format!("sqlite:{}", folder.path().join("bench.db").display());
        let mut command = Command::new(binary);
        command
            .args(["serve", "--bind", "127.0.0.1:0", "--backbone"])
            .arg(backbone()?)
            .arg("--models")
            .arg(models()?)
            .args(["--database-url", database_url.unwrap_or(&new)])
            .envs(environment.iter().copied());
        Self::spawn(command, folder).with_context(|| format!("starting {}", binary.display()))
    }

    /// Any command that says where it listens as the server does.
    pub fn spawn(mut command: Command, folder: tempfile::TempDir) -> anyhow::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        match listening(&mut child) {
            Ok((url, target)) => Ok(Self { child, url, target, _folder: folder }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Resident memory in MiB, where the system tells.
    pub fn resident_mib(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| kib / 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing is lost: the server holds no state here.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
