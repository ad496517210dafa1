//! The cache against a real server.

use std::time::{Duration, Instant};

use polyreward_backbone::{CacheKey, SharedCache};
use polyreward_cache_redis::{PREFIX, RedisCache, RedisOptions, testing::TestRedis};

/// Longer than any server takes that is not made to hang, however loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_BYTES: usize = 64;

fn options(redis: &TestRedis) -> RedisOptions {
    RedisOptions {
        read_timeout: PATIENCE,
        retry_after: Duration::from_millis(20),
        remove_again_after: PATIENCE,
        ..RedisOptions::of(redis.url())
    }
}

async fn open(options: RedisOptions) -> RedisCache {
    let cache = RedisCache::open(options).unwrap();
    connected(&cache).await;
    cache
}

async fn connected(cache: &RedisCache) {
    tokio::time::timeout(PATIENCE, cache.connected()).await.expect("the server is found");
}

/// Writes values and waits until they are there.
async fn write(redis: &TestRedis, values: &[(CacheKey, &[u8])]) {
    let cache = open(options(redis)).await;
    for (key, value) in values {
        cache.put(*key, value.to_vec());
    }
    cache.close(PATIENCE).await;
}

fn name(key: u8) -> String {
    format!("{PREFIX}{}", format!("{key:02x}").repeat(32))
}

#[tokio::test]
async fn what_one_process_keeps_another_finds_and_it_expires() {
    let redis = TestRedis::start();
    let many: Vec<CacheKey> = (0..=255).map(|key| [key; 32]).collect();
    let values: Vec<[u8; 2]> = (0..=255).map(|key| [key, !key]).collect();
    let all: Vec<(CacheKey, &[u8])> =
        many.iter().copied().zip(values.iter().map(<[u8; 2]>::as_slice)).collect();
    write(&redis, &all[..255]).await;
    let found = open(options(&redis)).await.get(&many, MAX_BYTES).await;
    for (key, value) in found.iter().enumerate() {
        assert_eq!(value.as_deref(), (key < 255).then_some(values[key].as_slice()), "{key}");
    }
    let seconds = redis.number(&["TTL", &name(7)]).await;
    assert!((1..=24 * 3600).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_value_of_another_kind_or_any_size_is_not_read_whole() {
    let redis = TestRedis::start();
    redis.command(&["LPUSH", &name(1), "a list"]).await;
    redis.command(&["SET", &name(2), &"x".repeat(1 << 20)]).await;
    write(&redis, &[([3; 32], b"right")]).await;
    let cache = open(options(&redis)).await;
    let found = cache.get(&[[1; 32], [2; 32], [3; 32], [4; 32]], MAX_BYTES).await;
    let expected = [Some(Vec::new()), Some(vec![b'x'; MAX_BYTES + 1]), Some(b"right".to_vec()), None];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_server_that_hangs_costs_the_time_limit_once_and_is_asked_again_when_it_answers() {
    let redis = TestRedis::start();
    write(&redis, &[([1; 32], b"value")]).await;
    let limit = Duration::from_secs(1);
    let cache = open(RedisOptions { read_timeout: limit, ..options(&redis) }).await;
    assert_eq!(cache.get(&[[1; 32]], MAX_BYTES).await, [Some(b"value".to_vec())]);
    redis.hang();
    let started = Instant::now();
    assert_eq!(cache.get(&[[1; 32]], MAX_BYTES).await, [None]);
    let first = started.elapsed();
    assert!(first >= limit && first < 5 * limit, "{first:?}");
    // Nobody asks it now: a thousand questions take less than one did.
    let started = Instant::now();
    for _ in 0..1000 {
        assert_eq!(cache.get(&[[1; 32]], MAX_BYTES).await, [None]);
        cache.put([2; 32], b"dropped".to_vec());
    }
    assert!(started.elapsed() < limit, "{:?}", started.elapsed());
    redis.resume();
    connected(&cache).await;
    assert_eq!(cache.get(&[[1; 32], [2; 32]], MAX_BYTES).await, [Some(b"value".to_vec()), None]);
}

#[tokio::test]
async fn a_server_that_dies_and_comes_back_is_used_again() {
    let mut redis = TestRedis::start();
    write(&redis, &[([1; 32], b"value")]).await;
    let cache = open(options(&redis)).await;
    redis.kill();
    assert_eq!(cache.get(&[[1; 32]], MAX_BYTES).await, [None]);
    redis.run();
    connected(&cache).await;
    assert_eq!(cache.get(&[[1; 32]], MAX_BYTES).await, [None]);
    cache.put([1; 32], b"value".to_vec());
    cache.close(PATIENCE).await;
    assert_eq!(redis.names().await, [name(1)]);
}

#[tokio::test]
async fn nobody_waits_for_a_server_that_is_not_there() {
    let mut redis = TestRedis::start();
    redis.kill();
    let cache = RedisCache::open(options(&redis)).unwrap();
    let started = Instant::now();
    assert_eq!(cache.get(&vec![[1; 32]; 1000], MAX_BYTES).await, vec![None; 1000]);
    assert!(started.elapsed() < Duration::from_secs(1));
    // It comes later.
    redis.run();
    connected(&cache).await;
}

#[tokio::test]
async fn what_is_removed_while_the_server_is_down_is_gone_once_it_is_back() {
    let mut redis = TestRedis::start_with(&["--appendonly", "yes"]);
    write(&redis, &[([1; 32], b"theirs"), ([2; 32], b"another's")]).await;
    let cache = open(options(&redis)).await;
    redis.kill();
    cache.remove(vec![[1; 32]]);
    // What is on its disk survives it.
    redis.run();
    cache.close(PATIENCE).await;
    assert_eq!(redis.names().await, [name(2)]);
}

#[tokio::test]
async fn the_end_of_a_process_does_not_wait_for_a_server_that_is_down() {
    let mut redis = TestRedis::start();
    let cache = open(options(&redis)).await;
    redis.kill();
    cache.remove(vec![[1; 32]]);
    let started = Instant::now();
    cache.close(Duration::from_millis(100)).await;
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_removal_is_repeated_for_what_was_on_its_way_elsewhere() {
    let redis = TestRedis::start();
    write(&redis, &[([1; 32], b"theirs"), ([2; 32], b"another's")]).await;
    let cache = open(options(&redis)).await;
    cache.remove(vec![[1; 32]]);
    tokio::time::timeout(PATIENCE, async {
        while redis.names().await.len() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is removed");
    // Another process had encoded the text before it heard of anything.
    write(&redis, &[([1; 32], b"theirs")]).await;
    assert_eq!(redis.names().await.len(), 2);
    cache.close(PATIENCE).await;
    assert_eq!(redis.names().await, [name(2)]);
}

#[tokio::test]
async fn a_server_that_takes_no_more_values_is_read_and_removed_from() {
    let redis = TestRedis::start();
    write(&redis, &[([1; 32], b"value"), ([2; 32], b"theirs")]).await;
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    write(&redis, &[([3; 32], b"refused")]).await;
    let cache = open(options(&redis)).await;
    cache.remove(vec![[2; 32]]);
    assert_eq!(cache.get(&[[1; 32], [3; 32]], MAX_BYTES).await, [Some(b"value".to_vec()), None]);
    cache.close(PATIENCE).await;
    assert_eq!(redis.names().await, [name(1)]);
}

#[tokio::test]
async fn a_password_is_sent_and_a_wrong_one_is_a_server_that_is_not_there() {
    let redis = TestRedis::start_with(&["--requirepass", "sesame"]);
    let with =
        |password: &str| RedisOptions { url: format!("{}?pass={password}", redis.url()), ..options(&redis) };
    let wrong = RedisCache::open(with("poppy")).unwrap();
    let right = open(with("sesame")).await;
    right.put([1; 32], b"value".to_vec());
    right.close(PATIENCE).await;
    assert_eq!(wrong.get(&[[1; 32]], MAX_BYTES).await, [None]);
    assert_eq!(open(with("sesame")).await.get(&[[1; 32]], MAX_BYTES).await, [Some(b"value".to_vec())]);
}

#[tokio::test]
async fn a_url_that_is_none_and_a_certificate_without_tls_are_refused() {
    assert!(RedisCache::open(RedisOptions::of("http://localhost")).is_err());
    let ca_certificate = Some(b"-----BEGIN CERTIFICATE-----".to_vec());
    let options = RedisOptions { ca_certificate, ..RedisOptions::of("redis://localhost") };
    assert!(RedisCache::open(options).is_err());
}

/// Made by openssl for a hundred years, for `localhost` alone; the authority's key was thrown away.
fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn a_server_is_spoken_to_by_tls_if_its_certificate_is_trusted() {
    // Another may take the port between the two; then the server does not start, and the test says so.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (certificate, key) = (fixture("server.pem"), fixture("server.key"));
    let _redis = TestRedis::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
        "--bind",
        "127.0.0.1",
        "-::1",
    ]);
    let trusting = |ca_certificate| RedisOptions {
        ca_certificate,
        read_timeout: PATIENCE,
        retry_after: Duration::from_millis(20),
        ..RedisOptions::of(format!("rediss://localhost:{port}"))
    };
    let cache = open(trusting(Some(std::fs::read(fixture("authority.pem")).unwrap()))).await;
    cache.put([1; 32], b"value".to_vec());
    cache.close(PATIENCE).await;
    // Those that the system trusts did not sign it.
    let stranger = RedisCache::open(trusting(None)).unwrap();
    let connects = tokio::time::timeout(Duration::from_secs(1), stranger.connected()).await;
    assert!(connects.is_err(), "it is trusted");
}
