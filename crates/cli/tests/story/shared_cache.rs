//! Servers that share embeddings in Redis, and do without it.

use std::time::{Duration, Instant};

use polyreward_cache_redis::testing::TestRedis;

use crate::{
    client::{Client, example},
    support::{Place, Server, answers, stderr, stdout},
};

const URL: &str = "POLYREWARD_BACKBONE__SHARED_CACHE__URL";
const TIMEOUT_MS: &str = "POLYREWARD_BACKBONE__SHARED_CACHE__TIMEOUT_MS";

/// A server that shares, with people of its own, once it has found what it shares. On a loaded machine an answer takes as
/// long as it takes.
async fn serve(place: &Place, redis: &TestRedis, people: &str) -> Server {
    serve_within(place, redis, people, "30000").await
}

async fn serve_within(place: &Place, redis: &TestRedis, people: &str, timeout_ms: &str) -> Server {
    let server = place.serve_with(&[
        (URL, &redis.url()),
        (TIMEOUT_MS, timeout_ms),
        ("POLYREWARD_DATABASE__URL", &format!("sqlite:{people}.db")),
        ("POLYREWARD_SERVER__GRACE_SECONDS", "0"),
    ]);
    until_in_use(&Client::of(&server), 1).await;
    server
}

async fn until_in_use(client: &Client, up: u64) {
    while client.metric("polyreward_shared_cache_up").await != up {
        tokio::task::yield_now().await;
    }
}

/// The names of what is shared, once there are so many.
async fn names(redis: &TestRedis, count: usize) -> Vec<String> {
    loop {
        let mut names = redis.names().await;
        if names.len() == count {
            names.sort_unstable();
            return names;
        }
        tokio::task::yield_now().await;
    }
}

fn assert_near(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}

#[tokio::test]
async fn what_one_server_has_encoded_another_does_not() {
    let (place, redis, texts) = (Place::trained(), TestRedis::start(), answers("tea", 35));
    let first = serve(&place, &redis, "first").await;
    let rewards = first.rewards(&texts).await;
    assert_eq!(first.terminate(), Some(0)); // what waited is written
    let second = serve(&place, &redis, "second").await;
    let client = Client::of(&second);
    assert_near(&second.rewards(&texts).await, &rewards);
    assert_eq!(client.metric("polyreward_shared_cache_hits_total").await, 35);
    // What came from there is in memory now.
    assert_near(&second.rewards(&texts).await, &rewards);
    assert_eq!(client.metric("polyreward_shared_cache_hits_total").await, 35);
    assert_eq!(client.metric("polyreward_embedding_cache_hits_total").await, 35);
    assert_eq!(client.metric("polyreward_embedding_batch_texts_count").await, 0);
    second.rewards(&answers("coffee", 1)).await;
    assert_eq!(client.metric("polyreward_embedding_batch_texts_count").await, 1);
}

#[tokio::test]
async fn rewards_stay_right_while_the_cache_dies_comes_back_and_holds_rubbish() {
    let (place, mut redis, texts) = (Place::trained(), TestRedis::start(), answers("tea", 35));
    let expected = place.serve().rewards(&texts).await;
    let server = serve(&place, &redis, "people").await;
    assert_near(&server.rewards(&texts[..10]).await, &expected[..10]);
    redis.kill();
    assert_near(&server.rewards(&texts[5..20]).await, &expected[5..20]);
    redis.run();
    until_in_use(&Client::of(&server), 1).await;
    assert_near(&server.rewards(&texts[15..]).await, &expected[15..]);
    let written = names(&redis, 15).await;
    assert_eq!(server.terminate(), Some(0));
    for (at, name) in written.iter().enumerate() {
        let long = "x".repeat(1 << 16);
        let rubbish = ["", "rubbish", &long][at % 3];
        redis.command(&["SET", name, rubbish]).await;
    }
    let server = serve(&place, &redis, "people").await;
    assert_near(&server.rewards(&texts).await, &expected);
    assert_eq!(Client::of(&server).metric("polyreward_shared_cache_invalid_total").await, 10);
}

#[tokio::test]
async fn a_cache_that_hangs_costs_its_time_limit_and_nothing_else() {
    let (place, redis, texts) = (Place::trained(), TestRedis::start(), answers("tea", 35));
    let expected = place.serve().rewards(&texts).await;
    let server = serve_within(&place, &redis, "people", "1000").await;
    redis.hang();
    let started = Instant::now();
    assert_near(&server.rewards(&texts[..1]).await, &expected[..1]);
    let first = started.elapsed();
    assert!(first >= Duration::from_secs(1) && first < Duration::from_secs(10), "{first:?}");
    assert_eq!(Client::of(&server).metric("polyreward_shared_cache_up").await, 0);
    // Twenty requests that waited for it would take twenty seconds.
    let started = Instant::now();
    for at in 1..21 {
        assert_near(&server.rewards(&texts[at..=at]).await, &expected[at..=at]);
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(server.terminate(), Some(0));
}

#[tokio::test]
async fn who_is_erased_leaves_nothing_in_the_cache() {
    let (place, redis) = (Place::of_opposites("lore"), TestRedis::start());
    let server = serve(&place, &redis, "people").await;
    let client = Client::of(&server);
    client.score("nobody", &[("A drink?", "some water", "some milk")]).await;
    let others = names(&redis, 2).await;
    client.learn("ada", &[example(("A drink?", "tea of my own", "coffee of theirs"))]).await;
    names(&redis, 4).await;
    client.delete("/users/ada").await.expect(204);
    assert_eq!(names(&redis, 2).await, others);

    // One example of somebody.
    let learned = client.learn("bob", &[example(("A drink?", "cocoa", "juice"))]).await;
    names(&redis, 4).await;
    let id = client.get("/users/bob/examples").await.expect(200)["items"][0]["id"].clone();
    client.delete(&format!("/users/bob/examples/{}", id.as_str().unwrap())).await.expect(204);
    assert_eq!(names(&redis, 2).await, others, "{learned}");
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(names(&redis, 2).await, others);
}

#[test]
fn the_configuration_is_shown_without_the_password_and_refused_by_name() {
    let place = Place::new();
    let serve = |url: &str, arguments: &[&str]| {
        place.command(&[&["serve"], arguments].concat()).env(URL, url).output().unwrap()
    };
    let shown = stdout(&serve("rediss://ada:sesame@cache.example:6380/2", &["--print-config"]));
    assert!(shown.contains("url = \"rediss://ada:***@cache.example:6380/2\""), "{shown}");
    assert!(!shown.contains("sesame"));
    let refused = serve("memcached://ada:sesame@cache.example", &["--bind", "127.0.0.1:0"]);
    let text = stderr(&refused);
    assert_eq!(refused.status.code(), Some(2), "{text}");
    assert!(text.contains("backbone.shared_cache.url") && !text.contains("sesame"), "{text}");
    let refused = place.command(&["serve"]).env(TIMEOUT_MS, "0").output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("backbone.shared_cache.timeout_ms is at least 1"));
}
