//! A server that is killed (SIGKILL) in the middle of writes, again and again: what it acknowledged is there once.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use futures::future::join_all;
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    client::{Client, Pair, Pairs, example},
    database::{Database, serve},
    support::{Place, Server},
};

/// People of one cycle; each has several writers.
const PEOPLE: usize = 3;
const WRITERS: usize = 6;
const MODELS: usize = 2;
/// Most examples of one request.
const BATCH: usize = 3;

/// Some examples in one request.
struct Request {
    person: usize,
    name: String,
    ids: Vec<String>,
    body: Value,
}

/// What became of the requests of a cycle.
#[derive(Default)]
struct Sent {
    acknowledged: Vec<Request>,
    unanswered: Vec<Request>,
    /// People whose erasure was acknowledged.
    erased: Vec<String>,
}

#[derive(Debug, Default)]
struct Figures {
    cycles: usize,
    acknowledged: usize,
    erased: usize,
    lost: usize,
    doubled: usize,
    /// Examples of requests without an answer that were there nevertheless, whole, after the restart.
    kept_unanswered: usize,
    /// Those that were not.
    gone_unanswered: usize,
}

struct Cycle<'a> {
    number: usize,
    pairs: &'a Pairs,
}

impl Cycle<'_> {
    fn person(&self, person: usize) -> String {
        format!("cycle-{}-person-{person}", self.number)
    }

    /// The n-th request of a writer.
    fn request(&self, writer: usize, n: usize, random: &mut ChaCha8Rng) -> Request {
        let first = (n * WRITERS + writer) * BATCH;
        let numbers = first..first + random.random_range(1..=BATCH);
        let ids: Vec<String> = numbers.clone().map(|number| format!("example-{number}")).collect();
        let examples = numbers.zip(&ids).map(|(number, id)| {
            let mut example = example(self.pairs.at(number));
            example["id"] = json!(id);
            example
        });
        let examples: Vec<Value> = examples.collect();
        Request {
            person: writer % PEOPLE,
            name: format!("cycle-{}-writer-{writer}-{n}", self.number),
            body: json!({"examples": examples}),
            ids,
        }
    }

    /// Writes until there is no answer.
    async fn write(
        &self,
        client: &Client,
        writer: usize,
        mut random: ChaCha8Rng,
        acknowledged: &watch::Sender<usize>,
    ) -> Sent {
        let mut sent = Sent::default();
        for n in 0.. {
            let request = self.request(writer, n, &mut random);
            let path = format!("/users/{}/examples", self.person(request.person));
            let Ok(reply) = client.try_post(&path, &request.body, &request.name).await else {
                sent.unanswered.push(request);
                break;
            };
            assert_eq!(reply.expect(201)["accepted"], json!(request.ids.len()));
            sent.acknowledged.push(request);
            acknowledged.send_modify(|count| *count += 1);
        }
        sent
    }

    /// People come and are erased, one after the other, until there is no answer.
    async fn erase(&self, client: &Client) -> Sent {
        let mut sent = Sent::default();
        for n in 0.. {
            let path = format!("/users/{}", self.leaver(n));
            let body = json!({"examples": [example(self.pairs.at(n))]});
            let Ok(came) = client.try_post(&format!("{path}/examples"), &body, &self.leaver(n)).await else {
                break;
            };
            came.expect(201);
            let Ok(left) = client.try_delete(&path).await else { break };
            left.expect(204);
            sent.erased.push(self.leaver(n));
        }
        sent
    }

    fn leaver(&self, n: usize) -> String {
        format!("leaver-{}-{n}", self.number)
    }

    /// Lets clients write, and kills the server at a moment that the seed says.
    async fn kill(&self, server: Server, seed: u64) -> Sent {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let client = Client::of(&server);
        let (acknowledged, mut seen) = watch::channel(0);
        let enough = random.random_range(1..=12);
        let more = Duration::from_micros(random.random_range(0..8000));
        let writers = (0..WRITERS).map(|writer| {
            let random = ChaCha8Rng::seed_from_u64(random.random());
            self.write(&client, writer, random, &acknowledged)
        });
        let killer = tokio::spawn(async move {
            seen.wait_for(|count| *count >= enough).await.expect("the writers still write");
            // Requests are on their way all along; a sleep would be too coarse a clock.
            let since = Instant::now();
            while since.elapsed() < more {
                tokio::task::yield_now().await;
            }
            // Dropping it is SIGKILL.
            drop(server);
        });
        let (written, mut all) = tokio::join!(join_all(writers.collect::<Vec<_>>()), self.erase(&client));
        for sent in written {
            all.acknowledged.extend(sent.acknowledged);
            all.unanswered.extend(sent.unanswered);
        }
        killer.await.unwrap();
        all
    }

    /// Compares what is there with what was sent, and sends again what had no answer.
    async fn check(&self, client: &Client, sent: &Sent, figures: &mut Figures) {
        figures.cycles += 1;
        let mut stored = BTreeMap::new();
        for person in 0..PEOPLE {
            stored.insert(person, self.stored(client, person).await);
        }
        figures.erased += sent.erased.len();
        for leaver in &sent.erased {
            client.get(&format!("/users/{leaver}")).await.expect(404);
        }
        // Whoever was about to leave has come or not, and is there or not, and leaves now.
        let last = client.delete(&format!("/users/{}", self.leaver(sent.erased.len()))).await;
        assert!([204, 404].contains(&last.status), "{}", last.body);
        for request in &sent.acknowledged {
            let there = &stored[&request.person];
            figures.acknowledged += request.ids.len();
            for id in &request.ids {
                match there.iter().filter(|stored| *stored == id).count() {
                    0 => figures.lost += 1,
                    1 => {}
                    _ => figures.doubled += 1,
                }
            }
        }
        for request in &sent.unanswered {
            let there = |id: &&String| stored[&request.person].contains(id);
            match request.ids.iter().filter(there).count() {
                0 => figures.gone_unanswered += request.ids.len(),
                count => {
                    assert_eq!(count, request.ids.len(), "{} is half written", request.name);
                    figures.kept_unanswered += count;
                }
            }
        }
        for person in 0..PEOPLE {
            self.check_state(client, person, &stored[&person]).await;
        }
        for request in &sent.unanswered {
            let path = format!("/users/{}/examples", self.person(request.person));
            let there = stored[&request.person].contains(&request.ids[0]);
            let reply = client.try_post(&path, &request.body, &request.name).await.unwrap();
            assert_eq!(reply.headers.contains_key("idempotency-replayed"), there, "{}", request.name);
            assert_eq!(reply.expect(201)["accepted"], json!(request.ids.len()));
        }
        for person in 0..PEOPLE {
            let there: HashSet<String> = self.stored(client, person).await.into_iter().collect();
            let all = sent.acknowledged.iter().chain(&sent.unanswered);
            let all: HashSet<String> = all
                .filter(|request| request.person == person)
                .flat_map(|request| request.ids.clone())
                .collect();
            assert_eq!(there, all);
        }
    }

    /// The ids of what somebody has, in order; everything that is counted of them agrees.
    async fn stored(&self, client: &Client, person: usize) -> Vec<String> {
        let path = format!("/users/{}", self.person(person));
        let user = client.get(&path).await;
        if user.status == 404 {
            return Vec::new();
        }
        let user = user.expect(200);
        let listed = client.get(&format!("{path}/examples?limit=1000")).await.expect(200);
        let ids =
            listed["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned());
        let ids: Vec<String> = ids.collect();
        assert_eq!(user["examples"], json!(ids.len()), "{user}");
        let states = user["states"].as_object().unwrap();
        assert_eq!(states.len(), MODELS);
        for (model, state) in states {
            assert_eq!(state["accuracy"]["n"], json!(ids.len()), "predictions of {model}: {user}");
        }
        ids
    }

    /// Somebody new who has the same examples is the same to the models.
    async fn check_state(&self, client: &Client, person: usize, ids: &[String]) {
        if ids.is_empty() {
            return;
        }
        let numbers = ids.iter().map(|id| id.strip_prefix("example-").unwrap().parse().unwrap());
        let pairs: Vec<Pair<'_>> = numbers.map(|number| self.pairs.at(number)).collect();
        let examples: Vec<Value> = pairs.iter().copied().map(example).collect();
        let copy = format!("copy-of-{}", self.person(person));
        client.learn(&copy, &examples).await;
        let (scored, copied) =
            (client.score(&self.person(person), &pairs).await, client.score(&copy, &pairs).await);
        assert!(scored.is_near(&copied), "{copied:?} of the same examples as {scored:?}");
    }
}

async fn story(place: &Place, database: Database, cycles: usize, seed: u64) {
    let asked = std::env::var("STORY_CYCLES").ok();
    let cycles = asked.map_or(cycles, |text| text.parse().expect("STORY_CYCLES is a number"));
    let (pairs, mut figures) = (Pairs::new(), Figures::default());
    let mut server = serve(place, &database.url());
    for number in 0..cycles {
        let cycle = Cycle { number, pairs: &pairs };
        let sent = cycle.kill(server, seed + number as u64).await;
        database.left_alone().await;
        server = serve(place, &database.url());
        cycle.check(&Client::of(&server), &sent, &mut figures).await;
    }
    println!("killed in the middle of writes: {figures:?}");
    assert_eq!((figures.lost, figures.doubled), (0, 0), "{figures:?}");
    assert!(figures.acknowledged >= cycles, "{figures:?}");
    // Nothing of an earlier cycle went in a later one.
    let all = figures.acknowledged + figures.kept_unanswered + figures.gone_unanswered;
    for (table, each) in [("examples", 1), ("predictions", MODELS)] {
        let rows = format!("SELECT count(*) FROM {table} WHERE user_id LIKE 'cycle-%'");
        assert_eq!(database.number(&rows).await, each * all, "{table}");
    }
    assert_eq!(database.rows_with("leaver-").await, BTreeMap::new());
    assert_eq!(server.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_acknowledged_is_in_the_file_once() {
    let place = Place::of_opposites("bt,lore");
    let database = Database::sqlite(&place);
    story(&place, database, 100, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_acknowledged_is_in_postgresql_once() {
    story(&Place::of_opposites("bt,lore"), Database::postgres().await, 25, 1_000_000).await;
}
