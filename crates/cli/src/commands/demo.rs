//! `polyreward demo`: a real server, and held-out people who use it over HTTP.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, bail, ensure};
use polyreward_domain::{ComparisonRecord, Split};
use polyreward_heads::evaluation::{Bootstrap, PersonPredictions, summarize};
use serde_json::{Value, json};

use crate::{dataset, progress::Progress, table};

/// Start a server and play held-out people against it
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// JSONL file of comparisons with the splits context and query
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Folder of model folders
    #[arg(long, value_name = "DIR")]
    models: PathBuf,
    /// Backbone folder
    #[arg(long, value_name = "DIR")]
    backbone: PathBuf,
    /// End after the table instead of serving on
    #[arg(long)]
    once: bool,
}

/// Pairs in one request.
const PAIRS_AT_ONCE: usize = 128;
/// Comparisons shown word for word.
const SHOWN: usize = 3;

/// Plays the demo.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let dataset = dataset::read(std::slice::from_ref(&arguments.data))?;
    let queries: Vec<&ComparisonRecord> =
        dataset.records.iter().filter(|record| record.split == Some(Split::Query)).collect();
    ensure!(!queries.is_empty(), "{} has no records of the split query", arguments.data.display());
    let mut server = Server::start(arguments)?;
    println!("server      {}", server.url);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = reqwest::Client::new();
    let models = runtime.block_on(models(&client, &server.url))?;
    println!("models      {}", models.join(", "));
    println!("The people of this demo are simulated; the texts were written for it.\n");
    let mut measured = Vec::new();
    for model in &models {
        let preferences = runtime.block_on(play(&client, &server.url, model, &queries))?;
        measured.push((model.clone(), preferences));
    }
    show(&queries, &measured[0]);
    println!(
        "Accuracy on people the models never saw, on prompts they never saw (95 % intervals over people)\n"
    );
    println!("{}", by_group(&queries, &measured));
    println!("API         {}/docs", server.url);
    if arguments.once {
        return server.stop();
    }
    println!("Serving until Ctrl-C.");
    // Ctrl-C reaches the server as well, which then drains; its end is the demo's.
    runtime.block_on(async { tokio::signal::ctrl_c().await })?;
    server.wait()
}

/// The server as a process of its own.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(arguments: &Arguments) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", "--bind", "127.0.0.1:0", "--backbone"])
            .arg(&arguments.backbone)
            .arg("--models")
            .arg(&arguments.models)
            .env("POLYREWARD_SERVER__GRACE_SECONDS", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the server")?;
        let stdout = child.stdout.take().context("the server's output is piped")?;
        let mut server = Self { child, url: String::new() };
        for line in BufReader::new(stdout).lines() {
            if let Some((_, url)) = line?.split_once("listening on ") {
                url.trim().clone_into(&mut server.url);
                return Ok(server);
            }
        }
        server.wait()?;
        bail!("the server ended before it listened")
    }

    /// Asks the server to end, and waits until it has.
    fn stop(&mut self) -> anyhow::Result<()> {
        // The standard library can only kill; the system's own command sends SIGTERM.
        let sent = Command::new("kill").arg(self.child.id().to_string()).status().context("running kill")?;
        ensure!(sent.success(), "the server could not be asked to end");
        self.wait()
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let status = self.child.wait()?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After an error of our own; a server that has ended already cannot be killed, which is as well.
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().ok();
        }
    }
}

async fn models(client: &reqwest::Client, url: &str) -> anyhow::Result<Vec<String>> {
    let reply: Value = client.get(format!("{url}/models")).send().await?.error_for_status()?.json().await?;
    let items = reply["items"].as_array().context("GET /models has no items")?;
    let names: Vec<String> =
        items.iter().filter_map(|item| item["model"].as_str()).map(str::to_owned).collect();
    ensure!(!names.is_empty(), "the server has no model: {}", reply["failed"]);
    Ok(names)
}

/// P(chosen preferred) and both rewards of every comparison, asked over HTTP.
async fn play(
    client: &reqwest::Client,
    url: &str,
    model: &str,
    queries: &[&ComparisonRecord],
) -> anyhow::Result<Vec<[f64; 3]>> {
    let mut progress = Progress::start(model, queries.len());
    let mut answers = Vec::with_capacity(queries.len());
    for part in queries.chunks(PAIRS_AT_ONCE) {
        let pairs: Vec<Value> = part
            .iter()
            .map(|record| {
                let comparison = &record.comparison;
                json!({
                    "prompt": comparison.prompt,
                    "response_a": comparison.chosen,
                    "response_b": comparison.rejected,
                })
            })
            .collect();
        let body = json!({"model": model, "pairs": pairs});
        let reply = client.post(format!("{url}/score")).json(&body).send().await?;
        let status = reply.status();
        let reply: Value = reply.json().await?;
        ensure!(status.is_success(), "POST /score answered {status}: {reply}");
        for result in reply["results"].as_array().context("POST /score has no results")? {
            let number =
                |field: &str| result[field].as_f64().with_context(|| format!("a result without {field}"));
            answers.push([number("preference")?, number("reward_a")?, number("reward_b")?]);
        }
        progress.set(answers.len(), queries.len(), "comparisons");
    }
    progress.finish(&format!("{} comparisons of held-out people", answers.len()));
    Ok(answers)
}

/// A few comparisons word for word, from different prompts.
fn show(queries: &[&ComparisonRecord], (model, answers): &(String, Vec<[f64; 3]>)) {
    println!("Rewards of {model} for real sentences:\n");
    let step = (queries.len() / SHOWN).max(1);
    for (record, [preference, reward_a, reward_b]) in queries.iter().zip(answers).step_by(step).take(SHOWN) {
        if let polyreward_domain::Prompt::Text(prompt) = &record.comparison.prompt {
            println!("  {prompt}");
        }
        println!("    {reward_a:+.2}  {}", record.comparison.chosen);
        println!("    {reward_b:+.2}  {}", record.comparison.rejected);
        let person = record.attributes.get("group").map_or("-", String::as_str);
        println!("    P(first preferred) = {preference:.2}; this person ({person}) preferred the first\n");
    }
}

fn by_group(queries: &[&ComparisonRecord], measured: &[(String, Vec<[f64; 3]>)]) -> String {
    let group_of = |record: &ComparisonRecord| record.attributes.get("group").cloned().unwrap_or_default();
    let mut groups: Vec<String> = queries.iter().map(|record| group_of(record)).collect();
    groups.sort();
    groups.dedup();
    groups.insert(0, "everybody".to_owned());
    let header: Vec<String> = ["group", "people"]
        .into_iter()
        .map(str::to_owned)
        .chain(measured.iter().map(|(model, _)| model.clone()))
        .collect();
    let rows: Vec<Vec<String>> = groups
        .iter()
        .map(|group| {
            let mut row = vec![group.clone(), String::new()];
            for (_, answers) in measured {
                let mut people: BTreeMap<&str, PersonPredictions> = BTreeMap::new();
                for (record, [preference, ..]) in queries.iter().zip(answers) {
                    if group == "everybody" || *group == group_of(record) {
                        people.entry(record.user_id.as_str()).or_default().push(*preference);
                    }
                }
                let people: Vec<PersonPredictions> = people.into_values().collect();
                let Some(summary) = summarize(&people, Bootstrap::default()) else { continue };
                row[1] = summary.users.to_string();
                let interval = summary
                    .accuracy_ci
                    .map(|[low, high]| format!(" ({low:.2}-{high:.2})"))
                    .unwrap_or_default();
                row.push(format!("{:.3}{interval}", summary.accuracy));
            }
            row
        })
        .collect();
    table::render(&header, &rows)
}
