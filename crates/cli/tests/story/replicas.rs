//! Two servers on one database.

use futures::future::join_all;
use serde_json::json;

use crate::{
    client::{Client, Pair, Pairs, example},
    database::{Database, serve},
    support::Place,
};

const WRITES: usize = 1000;
/// Each writes again and again.
const PEOPLE: usize = 20;
#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_stored_the_other_scores_with_at_once() {
    let (place, database) = (Place::of_opposites("lore"), Database::postgres().await);
    let servers = [serve(&place, &database.url()), serve(&place, &database.url())];
    let clients = servers.each_ref().map(Client::of);
    let pairs = Pairs::new();
    let asked = [pairs.at(0)];
    let mut before = [clients[1].score("nobody", &asked).await.preferences[0]; PEOPLE];
    let mut seen = 0;
    for write in 0..WRITES {
        let (person, turn) = (write % PEOPLE, write / PEOPLE);
        let id = format!("person-{person}");
        // Each writes now here, now there, and prefers tea or coffee all along.
        let (writer, reader) = (&clients[turn % 2], &clients[1 - turn % 2]);
        let learned = writer.learn(&id, &[example(pairs.at(100 * (person % 2) + turn))]).await;
        let scored = reader.score(&id, &asked).await;
        let is_seen = scored.examples == turn as u64 + 1
            && learned["examples"] == json!(scored.examples)
            && learned["state_version"] == json!(scored.version)
            && scored.preferences[0] != before[person];
        assert!(is_seen, "write {write}: {learned}, but {scored:?} after {}", before[person]);
        seen += 1;
        before[person] = scored.preferences[0];
    }
    println!("{seen} of {WRITES} writes were seen at once by the other replica");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_replicas_store_of_one_person_at_the_same_time_is_all_there_once() {
    const TASKS: usize = 16;
    const EXAMPLES: usize = 192;
    let (place, database) = (Place::of_opposites("lore"), Database::postgres().await);
    let servers = [serve(&place, &database.url()), serve(&place, &database.url())];
    let clients = servers.each_ref().map(Client::of);
    let pairs = Pairs::new();
    let post = async |task: usize| {
        let client = &clients[task % 2];
        for number in (task..EXAMPLES).step_by(TASKS) {
            let mut example = example(pairs.at(number));
            example["id"] = json!(format!("example-{number}"));
            let body = json!({"examples": [example]});
            let name = format!("post-{number}");
            let reply = client.try_post("/users/ada/examples", &body, &name).await.unwrap();
            assert_eq!(reply.expect(201)["accepted"], json!(1));
        }
    };
    join_all((0..TASKS).map(post)).await;

    let stored = clients[0].get("/users/ada/examples?limit=1000").await.expect(200);
    let mut ids: Vec<&str> =
        stored["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), EXAMPLES);
    assert_eq!(stored["items"].as_array().unwrap().len(), EXAMPLES);
    for table in ["examples", "predictions"] {
        assert_eq!(database.number(&format!("SELECT count(*) FROM {table}")).await, EXAMPLES, "{table}");
    }
    let asked: Vec<Pair<'_>> = (0..9).map(|number| pairs.at(number)).collect();
    let [one, other] = [clients[0].score("ada", &asked).await, clients[1].score("ada", &asked).await];
    assert_eq!(one.examples, EXAMPLES as u64);
    assert!(one.is_near(&other), "{one:?} {other:?}");
}
