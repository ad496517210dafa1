//! `polyreward demo`: a real server, and held-out people who use it over HTTP.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
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
    let folder = tempfile::tempdir().context("a folder for the database")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut stop = pin!(stop_signal()?);
        let mut server = Server::start(arguments, folder.path())?;
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
    let measured = play(&client, &url, &models, people).await?;
    show(people, &measured);
    println!(
        "Accuracy on people the models never saw, on prompts they never saw, before and after so many examples \
         (95 % intervals over people)\n"
    );
    println!("{}", by_group(people, &measured));
    println!("Dashboard   {url}/?group_by=group");
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
            let user_id = player.user_id;
            user_id.parse::<UserId>().with_context(|| format!("{user_id:?} cannot be a user"))?;
        }
        Ok(players.into_values().collect())
    }
}

/// The server as a process of its own.
struct Server {
    child: Child,
}

impl Server {
    /// Starts it on a new database in a folder.
    fn start(arguments: &Arguments, folder: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["serve", "--bind", "127.0.0.1:0", "--backbone"])
            .arg(&arguments.backbone)
            .arg("--models")
            .arg(&arguments.models)
            .arg("--database-url")
            .arg(format!("sqlite:{}", folder.join("demo.db").display()))
            .env("POLYREWARD_SERVER__GRACE_SECONDS", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
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
#[derive(Default)]
struct AnswerOfShots {
    preference: Vec<f64>,
    reward_chosen: Vec<f64>,
    reward_rejected: Vec<f64>,
}

/// Every person's queries, asked over HTTP before their examples and after so many of them were posted; by model, the
/// answers by person.
async fn play(
    client: &reqwest::Client,
    url: &str,
    models: &[String],
    people: &[Player<'_>],
) -> anyhow::Result<Vec<Measured>> {
    let mut progress = Progress::start("demo", people.len());
    let mut measured: Vec<Measured> = models.iter().map(|model| (model.clone(), Vec::new())).collect();
    for (done, person) in people.iter().enumerate() {
        let nothing = || person.queries.iter().map(|_| AnswerOfShots::default()).collect();
        for (_, answers) in &mut measured {
            answers.push(nothing());
        }
        let mut known = 0;
        for shots in SHOTS {
            let until = shots.min(person.examples.len());
            if until > known {
                post_examples(client, url, person, known..until).await?;
                known = until;
            }
            for (model, answers) in &mut measured {
                ask(client, url, model, person, answers.last_mut().context("a person was just added")?)
                    .await?;
            }
        }
        progress.set(done + 1, people.len(), "people");
    }
    progress.finish(&format!("{} held-out people posted their examples and were asked", people.len()));
    Ok(measured)
}

/// Posts some of a person's examples.
async fn post_examples(
    client: &reqwest::Client,
    url: &str,
    person: &Player<'_>,
    which: std::ops::Range<usize>,
) -> anyhow::Result<()> {
    let records = &person.examples[which];
    let examples: Vec<Value> =
        records.iter().map(|record| serde_json::to_value(&record.comparison)).collect::<Result<_, _>>()?;
    let body = json!({"attributes": records[0].attributes, "examples": examples});
    post(client, &format!("{url}/users/{}/examples", person.user_id), &body).await?;
    Ok(())
}

/// Asks for a person's reward of their queries, by one model.
async fn ask(
    client: &reqwest::Client,
    url: &str,
    model: &str,
    person: &Player<'_>,
    answers: &mut [AnswerOfShots],
) -> anyhow::Result<()> {
    let chunks = person.queries.chunks(PAIRS_AT_ONCE).zip(answers.chunks_mut(PAIRS_AT_ONCE));
    for (queries, answers) in chunks {
        let pairs: Vec<Value> = queries.iter().map(|record| pair(record)).collect();
        // Raw rewards of different states have no common zero; how often a response would win has.
        let body = json!({
            "model": model, "user_id": person.user_id, "pairs": pairs, "reward_scale": "win_rate",
        });
        let reply = post(client, &format!("{url}/score"), &body).await?;
        let results = reply["results"].as_array().context("POST /score has no results")?;
        ensure!(results.len() == answers.len(), "POST /score has not a result for each pair");
        for (result, answer) in results.iter().zip(answers) {
            answer.add(result)?;
        }
    }
    Ok(())
}

/// Posts JSON; the answer, unless it is an error.
async fn post(client: &reqwest::Client, url: &str, body: &Value) -> anyhow::Result<Value> {
    let reply = client.post(url).json(body).send().await?;
    let status = reply.status();
    let reply: Value = reply.json().await?;
    ensure!(status.is_success(), "POST {url} answered {status}: {reply}");
    Ok(reply)
}

/// A comparison as `POST /score` takes it.
fn pair(record: &ComparisonRecord) -> Value {
    let comparison = &record.comparison;
    json!({"prompt": comparison.prompt, "response_a": comparison.chosen, "response_b": comparison.rejected})
}

impl AnswerOfShots {
    fn add(&mut self, result: &Value) -> anyhow::Result<()> {
        let number = |field: &str| {
            result[field].as_f64().with_context(|| format!("a result of POST /score without {field}"))
        };
        self.preference.push(number("preference")?);
        self.reward_chosen.push(number("reward_a")?);
        self.reward_rejected.push(number("reward_b")?);
        Ok(())
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
