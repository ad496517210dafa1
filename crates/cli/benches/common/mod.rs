//! What every bench needs: the real server, texts, a place for its report.

#![allow(dead_code, reason = "each bench is a crate of its own, and none uses all of it")]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

/// `cargo test --benches` and `cargo bench -- --list` call a bench too.
pub fn is_only_listed() -> bool {
    std::env::args().any(|argument| argument == "--list" || argument == "--test")
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

/// Every prompt and answer of the sample.
pub fn sample() -> anyhow::Result<Vec<(String, String)>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/sample/prompts.jsonl");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut answers = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line)?;
        let string = |value: &Value| value.as_str().map(str::to_owned).context("a text that is no string");
        for response in line["responses"].as_array().context("a prompt without responses")? {
            answers.push((string(&line["prompt"])?, string(&response["text"])?));
        }
    }
    Ok(answers)
}

/// Writes a report below `target/bench` and prints it.
pub fn publish(name: &str, text: &str) -> anyhow::Result<()> {
    print!("{text}");
    let target =
        Path::new(env!("CARGO_BIN_EXE_polyreward")).ancestors().nth(2).expect("the binary is below target");
    std::fs::create_dir_all(target.join("bench"))?;
    std::fs::write(target.join("bench").join(name), text)?;
    Ok(())
}

/// Least, median and largest of some values.
pub fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}

/// The real server on a free port; killed when dropped.
pub struct Server {
    child: Child,
    pub url: String,
    /// Its database, where it is SQLite's.
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts it on a new SQLite database, with further arguments and environment.
    pub fn start(arguments: &[&Path], environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_on(None, arguments, environment)
    }

    /// The same on a database of one's own.
    pub fn start_on(
        database_url: Option<&str>,
        arguments: &[&Path],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let new = format!("sqlite:{}", folder.path().join("bench.db").display());
        let mut child = Command::new(env!("CARGO_BIN_EXE_polyreward"))
            .args(["serve", "--bind", "127.0.0.1:0", "--backbone"])
            .arg(backbone()?)
            .arg("--models")
            .arg(models()?)
            .args(["--database-url", database_url.unwrap_or(&new)])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().expect("standard output is piped");
        let mut server = Self { child, url: String::new(), _folder: folder };
        for line in BufReader::new(stdout).lines() {
            if let Some((_, url)) = line?.split_once("listening on ") {
                url.trim().clone_into(&mut server.url);
                return Ok(server);
            }
        }
        bail!("the server ended before it listened");
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

/// How a round of scoring went.
pub struct Scored {
    /// Requests per second.
    pub rate: f64,
    pub p99_ms: f64,
}

/// Posts bodies to `/score`, so many at a time.
pub async fn score(
    client: &reqwest::Client,
    url: &str,
    clients: usize,
    bodies: impl Iterator<Item = Value>,
) -> anyhow::Result<Scored> {
    let bodies: Vec<Value> = bodies.collect();
    let count = bodies.len();
    let started = Instant::now();
    let requests = bodies.into_iter().map(|body| async move {
        let started = Instant::now();
        post(client, format!("{url}/score"), body).await?;
        anyhow::Ok(1e3 * started.elapsed().as_secs_f64())
    });
    let mut times: Vec<f64> = stream::iter(requests).buffer_unordered(clients).try_collect().await?;
    let seconds = started.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    Ok(Scored { rate: count as f64 / seconds, p99_ms: times[count * 99 / 100] })
}

/// Posts a body, and is content with a success alone.
pub async fn post(client: &reqwest::Client, url: String, body: Value) -> anyhow::Result<()> {
    let reply = client.post(&url).json(&body).timeout(Duration::from_mins(2)).send().await?;
    let status = reply.status();
    let body = reply.bytes().await.context("an answer without an end")?;
    ensure!(status.is_success(), "POST {url} answered {status}: {}", String::from_utf8_lossy(&body));
    Ok(())
}
