//! A database that goes away, stalls or only reads, in the middle of writes; a proxy of our own stands before it.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use futures::future::join_all;
use polyreward_storage_postgres::testing::TestDatabase;
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde_json::{Value, json};

use crate::{
    client::{Client, Pairs, Reply, example},
    proxy::{Fault, Proxy, Weather},
    support::{Place, Server},
};

/// Within which a server answers without its database, the time it waits for a connection included.
const BOUND: Duration = Duration::from_secs(8);
/// Within which it is as before once the database is.
const RECOVERY: Duration = Duration::from_secs(10);
const WRITERS: usize = 4;
/// Within these a fault falls: what a few writes send and get.
const BYTES: usize = 70_000;

/// A server whose database is behind a proxy.
struct Setting {
    database: TestDatabase,
    proxy: Proxy,
    client: Client,
    pairs: Pairs,
    _server: Server,
    _place: Place,
}

impl Setting {
    async fn new() -> Self {
        let place = Place::of_opposites("lore");
        let database = TestDatabase::create().await;
        let mut url = reqwest::Url::parse(&database.url()).unwrap();
        let proxy = Proxy::start((url.host_str().unwrap().to_owned(), url.port().unwrap())).await;
        url.set_host(Some(&proxy.address.ip().to_string())).unwrap();
        url.set_port(Some(proxy.address.port())).unwrap();
        let arguments =
            ["serve", "--bind", "127.0.0.1:0", "--models", "models", "--database-url", url.as_str()];
        let environment = [
            ("POLYREWARD_DATABASE__ACQUIRE_TIMEOUT_MS", "500"),
            ("POLYREWARD_DATABASE__STATEMENT_TIMEOUT_MS", "1000"),
            ("POLYREWARD_SERVER__GRACE_SECONDS", "0"),
        ];
        let server = Server::start(place.command(&arguments).envs(environment));
        let client = Client::of(&server);
        Self { database, proxy, client, pairs: Pairs::new(), _server: server, _place: place }
    }

    fn examples(&self, numbers: std::ops::Range<usize>) -> Value {
        json!({"examples": numbers.map(|number| example(self.pairs.at(number))).collect::<Vec<_>>()})
    }

    async fn write(&self, user_id: &str, number: usize) -> Reply {
        let path = format!("/users/{user_id}/examples");
        let name = format!("{user_id}-{number}");
        self.client.try_post(&path, &self.examples(2 * number..2 * number + 2), &name).await.unwrap()
    }

    /// Writes until it is taken.
    async fn taken(&self, user_id: &str, number: usize) -> Reply {
        let since = Instant::now();
        loop {
            let reply = in_time(self.write(user_id, number)).await;
            if reply.status == 201 {
                return reply;
            }
            unavailable(&reply);
            assert!(since.elapsed() < RECOVERY, "the server does not take what it refused");
        }
    }

    /// Whether the database answers, by what the server says.
    async fn is_ready(&self) -> bool {
        let ready = in_time(self.client.get("/ready")).await;
        let database = ready.body["checks"]["database"].as_bool().unwrap();
        assert_eq!(ready.status, if database { 200 } else { 503 }, "{}", ready.body);
        database
    }

    async fn recovers(&self) {
        let since = Instant::now();
        while !self.is_ready().await {
            assert!(since.elapsed() < RECOVERY, "the server does not recover");
        }
    }

    /// What the server still does, and what it refuses, while its database is gone.
    async fn does_without(&self, known: &str) {
        assert!(!self.is_ready().await);
        in_time(self.client.get("/health")).await.expect(200);
        let (prompt, a, b) = self.pairs.at(0);
        let population = json!({"pairs": [{"prompt": prompt, "response_a": a, "response_b": b}]});
        in_time(self.client.post("/score", &population)).await.expect(200);
        let path = format!("/users/{known}");
        unavailable(&in_time(self.client.ask(known, &[self.pairs.at(0)])).await);
        unavailable(&in_time(self.client.get(&path)).await);
        unavailable(&in_time(self.client.delete(&path)).await);
        for reply in join_all((0..WRITERS).map(|n| in_time(self.write("nobody", n)))).await {
            unavailable(&reply);
        }
    }

    /// Everybody has all of the examples that are counted of them, each predicted once.
    async fn nothing_is_half_written(&self) {
        for table in ["examples", "predictions"] {
            let half = format!(
                "SELECT count(*) FROM users u WHERE u.examples <>
                 (SELECT count(*) FROM {table} e WHERE e.tenant_id = u.tenant_id AND e.user_id = u.user_id)"
            );
            assert_eq!(self.database.number(&half).await, 0, "{table}");
        }
    }
}

async fn in_time<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, answer).await.expect("there is an answer in time")
}

#[track_caller]
fn unavailable(reply: &Reply) {
    assert_eq!(
        (reply.status, &reply.body["type"]),
        (503, &json!("/problems/database-unavailable")),
        "{}",
        reply.body
    );
    assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1);
}

/// Several write while the database fails in their midst; each asks again until it is heard.
async fn write_through(fault: Fault, faults: usize, seed: u64) {
    let setting = Setting::new().await;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let users: Vec<String> = (0..WRITERS).map(|writer| format!("writer-{writer}")).collect();
    let (mut acknowledged, mut refused, mut kept, mut failed) = (0, 0, 0, 0);
    for number in 0..faults {
        setting.proxy.set(Weather::Until(random.random_range(0..BYTES), fault));
        let replies = join_all(users.iter().map(|user| in_time(setting.write(user, number)))).await;
        failed += usize::from(setting.proxy.has_failed());
        setting.proxy.set(Weather::Fair);
        for (user, reply) in users.iter().zip(replies) {
            if reply.status == 201 {
                acknowledged += 1;
                continue;
            }
            unavailable(&reply);
            refused += 1;
            let again = setting.taken(user, number).await;
            kept += usize::from(again.headers.contains_key("idempotency-replayed"));
            assert_eq!(again.body["accepted"], json!(2));
        }
        setting.nothing_is_half_written().await;
        for user in &users {
            let rows = format!("SELECT examples FROM users WHERE user_id = '{user}'");
            assert_eq!(setting.database.number(&rows).await, 2 * (number + 1), "{user}");
        }
    }
    println!(
        "{fault:?} {failed} times: {acknowledged} writes acknowledged, {refused} refused, of those {kept} stored all \
         the same; lost 0, doubled 0"
    );
    assert!(acknowledged > 0 && refused > 0 && failed >= faults / 2, "{acknowledged} {refused} {failed}");
    setting.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_are_cut_off_are_whole_or_not_there_and_the_server_goes_on() {
    write_through(Fault::Cut, 25, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_vanishes_in_the_middle_of_writes_is_given_up_and_found_again() {
    write_through(Fault::Still, 8, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_stored_unheard_is_known_by_its_name() {
    let setting = Setting::new().await;
    for number in 0..10 {
        setting.proxy.set(Weather::LosingCommits);
        unavailable(&in_time(setting.write("ada", number)).await);
        setting.proxy.set(Weather::Fair);
        let again = setting.taken("ada", number).await;
        assert_eq!(again.header("idempotency-replayed"), "true");
        assert_eq!((&again.body["accepted"], &again.body["examples"]), (&json!(2), &json!(2 * number + 2)));
        setting.nothing_is_half_written().await;
    }
    assert_eq!(setting.client.score("ada", &[setting.pairs.at(0)]).await.examples, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_its_database_says_so_and_scores_for_everybody() {
    let setting = Setting::new().await;
    setting.write("ada", 0).await.expect(201);
    let pairs = [setting.pairs.at(0)];
    let before = setting.client.score("ada", &pairs).await;
    for fault in [Fault::Cut, Fault::Still, Fault::Cut] {
        assert!(setting.is_ready().await);
        setting.proxy.set(Weather::Failing(fault));
        setting.does_without("ada").await;
        setting.proxy.set(Weather::Fair);
        setting.recovers().await;
        assert!(setting.client.score("ada", &pairs).await.is_near(&before));
        setting.nothing_is_half_written().await;
    }
    setting.taken("nobody", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_only_reads_refuses_writes_until_it_takes_them_again() {
    let setting = Setting::new().await;
    setting.write("ada", 0).await.expect(201);
    let pairs = [setting.pairs.at(0)];
    let before = setting.client.score("ada", &pairs).await;
    let only_reads = async |value: &str| {
        let name = setting.database.name();
        let set = format!("ALTER DATABASE {name} SET default_transaction_read_only = {value}");
        setting.database.run_on_server(set).await;
    };
    only_reads("on").await;
    setting.database.end_connections().await;
    for number in 1..4 {
        unavailable(&in_time(setting.write("ada", number)).await);
    }
    assert!(!setting.is_ready().await);
    in_time(setting.client.get("/health")).await.expect(200);
    assert!(in_time(setting.client.score("ada", &pairs)).await.is_near(&before));
    assert_eq!(in_time(setting.client.get("/users/ada")).await.expect(200)["examples"], json!(2));
    only_reads("off").await;
    setting.recovers().await;
    for number in 1..4 {
        assert_eq!(setting.taken("ada", number).await.body["accepted"], json!(2));
    }
    setting.nothing_is_half_written().await;
}
