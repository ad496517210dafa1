//! What an operator does beside the server: keys, migrations, states of a new model.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    client::{Client, Pair, Pairs, example},
    database::{Database, serve},
    support::{Place, Server, stderr, stdout},
};

/// Until when a revoked key may still work, as documented, and what a busy machine adds.
const REMEMBERED: Duration = Duration::from_secs(5 + 3);

/// What a command says that ends well.
fn said(place: &Place, arguments: &[&str]) -> String {
    let output = place.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

/// A client of a server that listens everywhere, with a key.
struct Holder<'a> {
    http: reqwest::Client,
    key: &'a str,
    url: String,
}

impl<'a> Holder<'a> {
    fn of(server: &Server, key: &'a str) -> Self {
        // Loopback is how to get there from here.
        let url = format!("{}/users", server.url.replace("0.0.0.0", "127.0.0.1"));
        Self { http: reqwest::Client::builder().no_proxy().build().unwrap(), key, url }
    }

    async fn status(&self) -> u16 {
        self.http.get(&self.url).bearer_auth(self.key).send().await.unwrap().status().as_u16()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_listens_beyond_loopback_once_there_is_a_key_and_forgets_one_that_is_revoked() {
    let place = Place::trained();
    let url = Database::sqlite(&place).url();
    let everywhere = ["serve", "--bind", "0.0.0.0:0", "--models", "models", "--database-url", &url];
    let refused = place.run(&everywhere);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("polyreward keys create"), "{}", stderr(&refused));

    let create = |name: &str| {
        let arguments = [
            "keys",
            "create",
            "--name",
            name,
            "--scopes",
            "read",
            "--tenant",
            "default",
            "--database-url",
            &url,
        ];
        said(&place, &arguments).trim().to_owned()
    };
    let (kept, revoked) = (create("one-to-keep"), create("one-to-lose"));
    let list = || said(&place, &["keys", "list", "--database-url", &url]);
    let listed = list();
    assert!(!listed.contains(&kept) && !listed.contains(&revoked), "keys are shown once");
    let line = |name: &str| list().lines().find(|line| line.contains(name)).unwrap().to_owned();
    let id = line("one-to-lose").split_whitespace().next().unwrap().to_owned();

    let server = Server::start(place.command(&everywhere).env("POLYREWARD_SERVER__GRACE_SECONDS", "0"));
    assert_eq!(Holder::of(&server, "nonsense").status().await, 401);
    let (keeper, loser) = (Holder::of(&server, &kept), Holder::of(&server, &revoked));
    assert_eq!((keeper.status().await, loser.status().await), (200, 200));
    assert!(said(&place, &["keys", "revoke", &id, "--database-url", &url]).contains(&id));
    let since = Instant::now();
    while loser.status().await != 401 {
        assert!(since.elapsed() < REMEMBERED, "a revoked key still works");
    }
    assert_eq!(keeper.status().await, 200);
    assert!(!line(&id).trim_end().ends_with('-'), "{}", line(&id));
    let unknown =
        place.run(&["keys", "revoke", "00000000-0000-7000-8000-000000000000", "--database-url", &url]);
    assert!(
        !unknown.status.success() && stderr(&unknown).contains("there is no key"),
        "{}",
        stderr(&unknown)
    );
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn a_configuration_is_printed_without_its_password() {
    let place = Place::new();
    let url = "postgres://ada:tell-nobody@localhost:5432/people?password=nor-this";
    let shown = said(&place, &["serve", "--print-config", "--database-url", url]);
    assert!(shown.contains("postgres://ada:***@localhost:5432/people"), "{shown}");
    assert!(!shown.contains("tell-nobody") && !shown.contains("nor-this"), "{shown}");
}

async fn migrated(database: Database) {
    let place = Place::new();
    let url = database.url();
    for _ in 0..2 {
        assert!(said(&place, &["migrate", "--database-url", &url]).contains("up to date"));
    }
    assert_eq!(database.number("SELECT count(*) FROM users").await, 0);
}

#[tokio::test]
async fn migrations_are_applied_once() {
    let place = Place::new();
    migrated(Database::sqlite(&place)).await;
    migrated(Database::postgres().await).await;
    let nothing = place.run(&["migrate", "--database-url", "mysql://localhost/people"]);
    assert_eq!(nothing.status.code(), Some(2), "{}", stderr(&nothing));
}

/// Rebuilding derives the states of a new model from stored embeddings: the texts are others by then.
async fn rebuilt(place: &Place, database: Database) {
    let (url, pairs) = (database.url(), Pairs::new());
    let compared: Vec<Pair<'_>> = (0..4).map(|number| pairs.at(number * 11)).collect();
    let examples: Vec<Value> = compared.iter().copied().map(example).collect();
    let people: Vec<String> = (0..12).map(|person| format!("person-{person}")).collect();
    let server = serve(place, &url);
    for (at, id) in people.iter().enumerate() {
        Client::of(&server).learn(id, &examples[..=at % 4]).await;
    }
    assert_eq!(server.terminate(), Some(0));

    let lost = "UPDATE examples SET chosen = 'lost', rejected = 'gone' RETURNING CAST(1 AS BIGINT)";
    assert_eq!(database.number(lost).await, 1);
    let again = ["train", "--data", "people.jsonl", "--heads", "lore", "--out", "models", "--seed", "1"];
    said(place, &again);
    let states = "SELECT count(*) FROM user_states";
    assert_eq!(database.number(states).await, 12);
    let rebuild = ["rebuild", "--models", "models", "--database-url", &url];
    for _ in 0..2 {
        let output = place.run(&rebuild);
        assert!(output.status.success() && stderr(&output).contains("24 states"), "{}", stderr(&output));
        assert_eq!(database.number(states).await, 24);
    }

    let server = serve(place, &url);
    let client = Client::of(&server);
    for (at, id) in people.iter().enumerate() {
        let profile = client.get(&format!("/users/{id}")).await.expect(200);
        assert_eq!(profile["states"].as_object().unwrap().len(), 2, "{profile}");
        client.learn(&format!("copy-of-{id}"), &examples[..=at % 4]).await;
        let copy = client.get(&format!("/users/copy-of-{id}")).await.expect(200);
        for (model, state) in profile["states"].as_object().unwrap() {
            let weights = |state: &Value| -> Vec<f64> {
                let weights = state["weights"].as_array().unwrap().iter();
                weights.map(|weight| weight["mean"].as_f64().unwrap()).collect()
            };
            let (own, of_copy) = (weights(state), weights(&copy["states"][model]));
            assert!(own.iter().zip(&of_copy).all(|(a, b)| (a - b).abs() < 1e-6), "{own:?} {of_copy:?}");
            assert_eq!(state["examples"], json!(at % 4 + 1), "{model} of {id}");
        }
    }
    assert_eq!(client.metric("polyreward_user_states_total{outcome=\"derived\"}").await, 0);
    assert_eq!(server.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn states_of_a_new_model_are_rebuilt_in_a_file() {
    let place = Place::of_opposites("lore");
    let database = Database::sqlite(&place);
    rebuilt(&place, database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn states_of_a_new_model_are_rebuilt_in_postgresql() {
    rebuilt(&Place::of_opposites("lore"), Database::postgres().await).await;
}
