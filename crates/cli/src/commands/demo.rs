//! `polyreward demo`: a real server, and held-out people who use it over HTTP.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    pin::pin,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, bail, ensure};
use polyreward_domain::{ComparisonRecord, Split, UserId};
use polyreward_heads::evaluation::{Bootstrap, PersonPredictions, correctness, summarize};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{commands::stop_signal, dataset, progress::Progress, table};

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

/// The row of all groups together.
const EVERYBODY: &str = "everybody";
/// Comparisons shown word for word.
const SHOWN: usize = 3;
/// Pairs in one request at most; any server takes as many.
const PAIRS_AT_ONCE: usize = 128;
/// Numbers of examples that the held-out people have shown the server; nobody's is the population's reward.
const SHOTS: [usize; 6] = [0, 1, 2, 4, 8, 16];

/// Plays the demo.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let dataset = dataset::read(std::slice::from_ref(&arguments.data))?;
    let people = Player::of(&dataset.records)?;
    ensure!(!people.is_empty(), "{} has no records of the split query", arguments.data.display());
    let examples = tempfile::Builder::new().suffix(".jsonl").tempfile().context("a file of examples")?;
    let has_examples = write_examples(examples.path(), &people)? > 0;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut stop = pin!(stop_signal()?);
        let mut server = Server::start(arguments, has_examples.then_some(examples.path()))?;
        tokio::select! {
            presented = present(&mut server, &people) => presented?,
            () = &mut stop => return server.stop(),
        }
        if !arguments.once {
            println!("Serving until Ctrl-C.");
            stop.await;
        }
        // Ctrl-C reaches the server as well; to be asked twice does no harm.
        server.stop()
    })
}

/// The whole performance, once the server listens.
async fn present(server: &mut Server, people: &[Player<'_>]) -> anyhow::Result<()> {
    let url = server.url().await?;
    println!("server      {url}");
    let client = reqwest::Client::builder().no_proxy().build()?; // the server is on loopback
    let models = models(&client, &url).await?;
    println!("models      {}", models.join(", "));
    println!("The people of this demo are simulated; the texts were written for it.\n");
    let mut measured = Vec::new();
    for model in &models {
        measured.push((model.clone(), play(&client, &url, model, people).await?));
    }
    show(people, &measured);
    println!(
        "Accuracy on people the models never saw, on prompts they never saw, before and after so many examples \
         (95 % intervals over people)\n"
    );
    println!("{}", by_group(people, &measured));
    println!("API         {url}/docs");
    Ok(())
}

/// A held-out person: what they show the server, and what they then ask it.
struct Player<'a> {
    user_id: &'a str,
    group: &'a str,
    examples: Vec<&'a ComparisonRecord>,
    queries: Vec<&'a ComparisonRecord>,
}

impl<'a> Player<'a> {
    /// Everybody with queries.
    fn of(records: &'a [ComparisonRecord]) -> anyhow::Result<Vec<Self>> {
        let mut players: BTreeMap<&str, Self> = BTreeMap::new();
        for record in records {
            let user_id = record.user_id.as_str();
            let player = players.entry(user_id).or_insert_with(|| Self {
                user_id,
                group: record.attributes.get("group").map_or("-", String::as_str),
                examples: Vec::new(),
                queries: Vec::new(),
            });
            match record.split {
                Some(Split::Context) => player.examples.push(record),
                Some(Split::Query) => player.queries.push(record),
                Some(Split::Train) | None => {}
            }
        }
        players.retain(|_, player| !player.queries.is_empty());
        for player in players.values() {
            user_after(player.user_id, SHOTS[SHOTS.len() - 1])
                .parse::<UserId>()
                .with_context(|| format!("{:?} cannot be a user", player.user_id))?;
        }
        Ok(players.into_values().collect())
    }
}

/// A person after some of their examples, as a user of the server: it learns from all examples of a user.
fn user_after(user_id: &str, examples: usize) -> String {
    format!("{user_id}~{examples}")
}

/// Each person as one user per number of examples, with the first so many of them; how many lines that made.
fn write_examples(path: &Path, people: &[Player<'_>]) -> anyhow::Result<usize> {
    let mut lines = 0;
    let mut file = BufWriter::new(File::create(path)?);
    for person in people {
        for shots in SHOTS {
            for record in person.examples.iter().take(shots) {
                let mut line = serde_json::to_value(&record.comparison)?;
                line["user_id"] = user_after(person.user_id, shots).into();
                line["attributes"] = json!(record.attributes);
                writeln!(file, "{line}")?;
                lines += 1;
            }
        }
    }
    file.flush().context("writing the examples")?;
    Ok(lines)
}

/// The server as a process of its own.
struct Server {
    child: Child,
}

impl Server {
    /// Starts it, knowing the people of a file of examples, if there is one.
    fn start(arguments: &Arguments, examples: Option<&Path>) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["serve", "--bind", "127.0.0.1:0", "--backbone"])
            .arg(&arguments.backbone)
            .arg("--models")
            .arg(&arguments.models)
            .env("POLYREWARD_SERVER__GRACE_SECONDS", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if let Some(examples) = examples {
            command.arg("--users").arg(examples);
        }
        Ok(Self { child: command.spawn().context("starting the server")? })
    }

    /// Where it listens, as soon as it does.
    async fn url(&mut self) -> anyhow::Result<String> {
        let stdout = self.child.stdout.take().context("the server's output is piped")?;
        let first_url = || -> std::io::Result<Option<String>> {
            for line in BufReader::new(stdout).lines() {
                if let Some((_, url)) = line?.split_once("listening on ") {
                    return Ok(Some(url.trim().to_owned()));
                }
            }
            Ok(None)
        };
        // Not a wait of this thread's, which must hear of a signal.
        if let Some(url) = tokio::task::spawn_blocking(first_url).await?? {
            return Ok(url);
        }
        self.wait()?;
        bail!("the server ended before it listened")
    }

    /// Asks the server to end, and waits until it has.
    fn stop(&mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("asking the server to end")?;
        let status = self.child.wait()?;
        // One that has only just started does not handle signals yet, and ends by them.
        ensure!(status.success() || status.signal().is_some(), "the server ended with {status}");
        Ok(())
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

/// What the server says of one query, one number for each of [`SHOTS`].
struct AnswerOfShots {
    preference: Vec<f64>,
    reward_chosen: Vec<f64>,
    reward_rejected: Vec<f64>,
}

/// Every person's queries, asked over HTTP for the person after each number of examples; answers by person.
async fn play(
    client: &reqwest::Client,
    url: &str,
    model: &str,
    people: &[Player<'_>],
) -> anyhow::Result<Vec<Vec<AnswerOfShots>>> {
    let mut progress = Progress::start(model, people.len());
    let mut answers = Vec::with_capacity(people.len());
    for person in people {
        let user_ids: Vec<String> = SHOTS.iter().map(|shots| user_after(person.user_id, *shots)).collect();
        let mut of_person = Vec::with_capacity(person.queries.len());
        for queries in person.queries.chunks(PAIRS_AT_ONCE) {
            let pairs: Vec<Value> = queries.iter().map(|record| pair(record)).collect();
            // Raw rewards of different people have no common zero; how often a response would win has.
            let body = json!({
                "model": model, "user_ids": user_ids, "pairs": pairs, "reward_scale": "win_rate",
            });
            let reply = client.post(format!("{url}/score")).json(&body).send().await?;
            let status = reply.status();
            let reply: Value = reply.json().await?;
            ensure!(status.is_success(), "POST /score answered {status}: {reply}");
            let results = reply["results"].as_array().context("POST /score has no results")?;
            for result in results {
                of_person.push(AnswerOfShots::of(result)?);
            }
        }
        answers.push(of_person);
        progress.set(answers.len(), people.len(), "people");
    }
    progress.finish(&format!("{} held-out people asked", answers.len()));
    Ok(answers)
}

/// A comparison as `POST /score` takes it.
fn pair(record: &ComparisonRecord) -> Value {
    let comparison = &record.comparison;
    json!({"prompt": comparison.prompt, "response_a": comparison.chosen, "response_b": comparison.rejected})
}

impl AnswerOfShots {
    fn of(result: &Value) -> anyhow::Result<Self> {
        let numbers = |field: &str| -> anyhow::Result<Vec<f64>> {
            let numbers: Option<Vec<f64>> =
                result[field].as_array().and_then(|all| all.iter().map(Value::as_f64).collect());
            numbers
                .filter(|numbers| numbers.len() == SHOTS.len())
                .with_context(|| format!("a result without {field} for each user"))
        };
        Ok(Self {
            preference: numbers("preference")?,
            reward_chosen: numbers("reward_a")?,
            reward_rejected: numbers("reward_b")?,
        })
    }
}

/// A model with what it answered.
type Measured = (String, Vec<Vec<AnswerOfShots>>);

/// A few comparisons word for word, of different people, before and after their examples, by the model with most to learn
/// from them: of each person the one about which it changed its mind most, rightly or not.
fn show(people: &[Player<'_>], measured: &[Measured]) {
    let last = SHOTS.len() - 1;
    let right = |(_, answers): &&Measured| {
        answers.iter().flatten().map(|answer| correctness(answer.preference[last])).sum::<f64>()
    };
    let Some((model, answers)) = measured.iter().max_by(|a, b| right(a).total_cmp(&right(b))) else { return };
    println!(
        "Rewards of {model} for real sentences (how often each would win against others), before -> after {} examples \
         of the person:\n",
        SHOTS[last]
    );
    let step = (people.len() / SHOWN).max(1);
    for (person, answers) in people.iter().zip(answers).step_by(step).take(SHOWN) {
        let change = |answer: &AnswerOfShots| (answer.preference[last] - answer.preference[0]).abs();
        let both = person.queries.iter().zip(answers);
        let Some((record, answer)) = both.max_by(|a, b| change(a.1).total_cmp(&change(b.1))) else {
            continue;
        };
        if let polyreward_domain::Prompt::Text(prompt) = &record.comparison.prompt {
            println!("  {prompt}");
        }
        for (rewards, text) in [
            (&answer.reward_chosen, &record.comparison.chosen),
            (&answer.reward_rejected, &record.comparison.rejected),
        ] {
            println!("    {:.2} -> {:.2}  {text}", rewards[0], rewards[last]);
        }
        println!(
            "    P(first preferred) = {:.2} -> {:.2}; this person ({}) preferred the first\n",
            answer.preference[0], answer.preference[last], person.group
        );
    }
}

fn by_group(people: &[Player<'_>], measured: &[Measured]) -> String {
    let mut groups: Vec<&str> = people.iter().map(|person| person.group).collect();
    groups.sort_unstable();
    groups.dedup();
    groups.insert(0, EVERYBODY);
    let shots = SHOTS.iter().map(|shots| format!("{shots} examples"));
    let header: Vec<String> =
        ["group", "people", "model"].into_iter().map(str::to_owned).chain(shots).collect();
    let mut rows = Vec::new();
    for group in groups {
        let member = |person: &Player<'_>| group == EVERYBODY || person.group == group;
        let count = people.iter().filter(|person| member(person)).count();
        for (model, answers) in measured {
            let mut row = vec![group.to_owned(), count.to_string(), model.clone()];
            for shot in 0..SHOTS.len() {
                let of_group = people.iter().zip(answers).filter(|(person, _)| member(person));
                let predictions: Vec<PersonPredictions> = of_group
                    .map(|(_, answers)| answers.iter().map(|answer| answer.preference[shot]).collect())
                    .collect();
                let cell = summarize(&predictions, Bootstrap::default()).map_or(String::new(), |summary| {
                    let interval = summary.accuracy_ci.map(|[low, high]| format!(" ({low:.2}-{high:.2})"));
                    format!("{:.3}{}", summary.accuracy, interval.unwrap_or_default())
                });
                row.push(cell);
            }
            rows.push(row);
        }
    }
    table::render(&header, &rows)
}
