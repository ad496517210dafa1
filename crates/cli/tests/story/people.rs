//! People who come, are learned, are still known after a restart, and leave without a trace.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde_json::{Value, json};

use crate::{
    client::{Client, PROMPT, Pair, Scored, example},
    database::{Database, serve},
    support::{Place, answers},
};

const PEOPLE: u64 = 50;

/// Somebody with a taste: tea for those of even numbers, coffee for the others, each in words of their own.
struct Somebody {
    id: String,
    /// The first of two responses is what they like.
    pairs: Vec<(String, String)>,
}

impl Somebody {
    fn new(number: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(number);
        let id = format!("person-{number:02}");
        let (mut liked, mut other) = (answers("tea", 35), answers("coffee", 35));
        if number % 2 == 1 {
            std::mem::swap(&mut liked, &mut other);
        }
        let mut pairs: Vec<(String, String)> = (0..random.random_range(3..6))
            .map(|_| (liked[random.random_range(0..35)].clone(), other[random.random_range(0..35)].clone()))
            .collect();
        pairs[0].0 = format!("{} says {id}", pairs[0].0);
        Self { id, pairs }
    }

    fn compared(&self) -> Vec<Pair<'_>> {
        self.pairs.iter().map(|(liked, other)| (PROMPT, &**liked, &**other)).collect()
    }

    fn examples(&self) -> Vec<Value> {
        self.compared().into_iter().map(example).collect()
    }

    async fn score(&self, client: &Client) -> Scored {
        client.score(&self.id, &self.compared()).await
    }
}

fn mean(preferences: &[f64]) -> f64 {
    preferences.iter().sum::<f64>() / preferences.len() as f64
}

/// Posts what somebody compared, and sees that it counts at once.
async fn come(client: &Client, person: &Somebody) -> Scored {
    let before = person.score(client).await;
    assert_eq!((before.known, before.examples, &*before.version), (false, 0, "0"), "{}", person.id);
    let path = format!("/users/{}/examples", person.id);
    let body = json!({"attributes": {"name": person.id}, "examples": person.examples()});
    let reply = client.try_post(&path, &body, &format!("first of {}", person.id).replace(' ', "-")).await;
    let learned = reply.unwrap().expect(201);
    let after = person.score(client).await;
    assert_eq!(after.examples, person.pairs.len() as u64);
    assert_eq!(learned["examples"], json!(after.examples));
    assert_eq!(learned["state_version"], json!(after.version));
    let (was, is) = (mean(&before.preferences), mean(&after.preferences));
    assert!(is > was + 1e-3, "{} is not understood better after {was}: {is}", person.id);
    after
}

async fn leave(client: &Client, database: &Database, person: &Somebody) {
    let own = &person.pairs[0].0;
    let rows = database.rows_with(&person.id).await;
    for table in [
        "users",
        "user_attributes",
        "examples",
        "example_embeddings",
        "user_states",
        "predictions",
        "idempotency_keys",
    ] {
        assert!(rows.contains_key(table), "{table} has nothing of {}: {rows:?}", person.id);
    }
    assert!(database.rows_with(own).await.contains_key("examples"));
    let known = person.score(client).await;
    assert_eq!(person.score(client).await.cached, 2 * person.pairs.len() as u64);
    let erasures = "SELECT count(*) FROM audit_log WHERE action = 'user.erased'";
    let (erased, lines) = (database.number(erasures).await, "SELECT count(*) FROM audit_log");
    let all = database.number(lines).await;

    let path = format!("/users/{}", person.id);
    client.delete(&path).await.expect(204);
    assert_eq!(database.rows_with(&person.id).await, BTreeMap::new());
    assert_eq!(database.rows_with(own).await, BTreeMap::new());
    assert_eq!(database.number(erasures).await, erased + 1);
    assert_eq!(database.number(lines).await, all + 1);

    client.get(&path).await.expect(404);
    client.delete(&path).await.expect(404);
    let stranger = person.score(client).await;
    assert_eq!((stranger.known, stranger.examples, &*stranger.version), (false, 0, "0"));
    assert!(stranger.cached < 2 * person.pairs.len() as u64, "the process remembers a text of {}", person.id);
    let population = client.score("nobody", &person.compared()).await;
    assert!(stranger.is_near(&population) && !stranger.is_near(&known));

    // Who comes again is new: as somebody else with the same single example.
    let first = &person.examples()[..1];
    let again = client.learn(&person.id, first).await;
    assert_eq!((&again["accepted"], &again["examples"]), (&json!(1), &json!(1)));
    client.learn("somebody-else", first).await;
    let else_ = client.score("somebody-else", &person.compared()).await;
    assert!(person.score(client).await.is_near(&else_));
}

async fn story(place: &Place, database: Database) {
    let people: Vec<Somebody> = (0..PEOPLE).map(Somebody::new).collect();
    let server = serve(place, &database.url());
    let client = Client::of(&server);
    let came: Vec<Scored> =
        stream::iter(&people).map(|person| come(&client, person)).buffered(8).collect().await;
    let versions: std::collections::HashSet<&str> = came.iter().map(|scored| &*scored.version).collect();
    assert_eq!(versions.len(), people.len(), "tastes are told apart");
    assert_eq!(server.terminate(), Some(0));

    let server = serve(place, &database.url());
    let client = Client::of(&server);
    for (person, before) in people.iter().zip(&came) {
        let after = person.score(&client).await;
        assert!(after.is_near(before), "{}: {before:?} before, {after:?} after", person.id);
    }
    let states = async |outcome| {
        client.metric(&format!("polyreward_user_states_total{{outcome=\"{outcome}\"}}")).await
    };
    assert_eq!((states("stored").await, states("derived").await), (PEOPLE, 0));
    leave(&client, &database, &people[7]).await;
    for (person, before) in people.iter().zip(&came).filter(|(person, _)| person.id != people[7].id) {
        assert!(person.score(&client).await.is_near(before), "{} changed when another left", person.id);
    }
    assert_eq!(server.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn people_in_a_file_come_are_known_again_and_leave_without_a_trace() {
    let place = Place::of_opposites("lore");
    let database = Database::sqlite(&place);
    story(&place, database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_in_postgresql_come_are_known_again_and_leave_without_a_trace() {
    story(&Place::of_opposites("lore"), Database::postgres().await).await;
}
