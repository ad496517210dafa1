//! Load over HTTP/1.1 on loopback: so many clients that each wait for their answer, or requests at a rate that waits for nobody.
//!
//! A closed loop ([`closed`]) finds what a server can do: no client asks before it was answered, so the load falls with the
//! server. An open loop ([`open`]) shows what happens beyond that: requests are due at moments that were drawn beforehand, and
//! an answer's latency counts from the moment its request was due, whoever kept it from being sent.
//!
//! Both are bounded in requests and in time, and neither talks to another machine.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
pub use hyper::Method;
use hyper::{
    StatusCode,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep_until, timeout},
};

use crate::statistics::percentile;

/// Requests of one run at most.
const MAX_REQUESTS: usize = 4_000_000;
/// How long one run may send requests at most.
const MAX_TIME: Duration = Duration::from_mins(5);
/// Connections of one run at most.
const MAX_CONNECTIONS: usize = 4096;
/// After it a request counts as one without an answer.
const PATIENCE: Duration = Duration::from_mins(2);

/// A server on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target(SocketAddr);

impl Target {
    /// Of a URL such as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// An address that is not loopback, or a name: what a name stands for can change.
    pub fn of(url: &str) -> anyhow::Result<Self> {
        let rest = url.strip_prefix("http://").with_context(|| format!("{url} is not http"))?;
        let authority = rest.split('/').next().unwrap_or_default();
        let address: SocketAddr =
            authority.parse().with_context(|| format!("{authority} is not an address with a port"))?;
        let ip = match address.ip() {
            IpAddr::V6(ip) => ip.to_canonical(),
            ip @ IpAddr::V4(_) => ip,
        };
        ensure!(ip.is_loopback(), "load goes to loopback alone, not to {address}");
        Ok(Self(address))
    }
}

/// What is asked, again and again.
#[derive(Debug, Clone)]
pub struct Request {
    /// As `GET`.
    pub method: Method,
    /// As `/score`.
    pub path: Arc<str>,
    /// JSON, or nothing.
    pub body: Bytes,
}

impl Request {
    /// A POST of JSON.
    pub fn post(path: &str, body: impl Into<Bytes>) -> Self {
        Self { method: Method::POST, path: path.into(), body: body.into() }
    }
}

/// Where requests come from, by their number.
pub type Requests = Arc<dyn Fn(usize) -> Request + Send + Sync>;

/// The same request always.
pub fn always(request: Request) -> Requests {
    Arc::new(move |_| request.clone())
}

/// When a run ends: whichever comes first. What was sent by then is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Requests at most.
    pub requests: usize,
    /// How long requests are sent at most.
    pub time: Duration,
}

impl Bounds {
    /// So many requests, however long they take within reason.
    pub fn requests(requests: usize) -> Self {
        Self { requests, time: MAX_TIME }
    }

    /// As many requests as fit into a time.
    pub fn time(time: Duration) -> Self {
        Self { requests: MAX_REQUESTS, time }
    }

    fn check(&self, connections: usize) -> anyhow::Result<()> {
        ensure!((1..=MAX_REQUESTS).contains(&self.requests), "{} requests in one run", self.requests);
        ensure!(self.time <= MAX_TIME, "a run of {:?}", self.time);
        ensure!((1..=MAX_CONNECTIONS).contains(&connections), "{connections} connections");
        Ok(())
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// With a success.
    Answered,
    /// With 503 that says when to come back.
    Refused,
    /// With another status; 503 without `Retry-After` is one.
    Status(u16),
    /// Without a whole answer.
    Broken,
}

/// One request that was made.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Which one.
    pub number: usize,
    /// When it was due, in seconds from the beginning of the run.
    pub due_s: f64,
    /// From then to the end of its answer, in milliseconds.
    pub latency_ms: f64,
    /// How late it was sent, in milliseconds: the generator's own doing, or want of a connection.
    pub late_ms: f64,
    /// How it ended.
    pub outcome: Outcome,
    /// What was answered, where a run keeps that.
    pub body: Bytes,
}

/// What a run of load measured.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Every request, in no order.
    pub answers: Vec<Answer>,
    /// From the first request to the last answer.
    pub elapsed_s: f64,
}

impl Run {
    /// Requests with this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.answers.iter().filter(|answer| answer.outcome == outcome).count()
    }

    /// Requests that were neither answered nor properly refused, by outcome.
    pub fn others(&self) -> Vec<(Outcome, usize)> {
        let mut counts = std::collections::BTreeMap::new();
        for answer in &self.answers {
            if !matches!(answer.outcome, Outcome::Answered | Outcome::Refused) {
                *counts.entry(answer.outcome).or_insert(0) += 1;
            }
        }
        counts.into_iter().collect()
    }

    /// Requests a second that were answered.
    pub fn rate(&self) -> f64 {
        self.count(Outcome::Answered) as f64 / self.elapsed_s
    }

    /// Milliseconds within which a share of the requests with this outcome ended; nothing where there were none.
    pub fn latency_ms(&self, outcome: Outcome, share: f64) -> Option<f64> {
        self.share_of(share, |answer| (answer.outcome == outcome).then_some(answer.latency_ms))
    }

    /// Milliseconds within which a share of all requests was sent after it was due.
    pub fn late_ms(&self, share: f64) -> Option<f64> {
        self.share_of(share, |answer| Some(answer.late_ms))
    }

    fn share_of(&self, share: f64, value: impl Fn(&Answer) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self.answers.iter().filter_map(value).collect();
        values.sort_by(f64::total_cmp);
        percentile(&values, share)
    }

    /// The run, where every request was answered.
    ///
    /// # Errors
    /// Any other outcome, by count.
    pub fn all_answered(self) -> anyhow::Result<Self> {
        ensure!(!self.answers.is_empty(), "no request was made");
        let refused = self.count(Outcome::Refused);
        let others = self.others();
        ensure!(
            refused == 0 && others.is_empty(),
            "of {} requests {refused} were refused, others ended as {others:?}",
            self.answers.len()
        );
        Ok(self)
    }
}

/// `clients` that each ask again once they were answered.
///
/// # Errors
/// Bounds beyond reason, or a server that takes no connection. An answer that is no success is an outcome.
pub async fn closed(
    target: Target,
    clients: usize,
    bounds: Bounds,
    requests: Requests,
) -> anyhow::Result<Run> {
    closed_with(target, clients, bounds, requests, false).await
}

/// The same, and keeps what was answered.
///
/// # Errors
/// As of [`closed`].
pub async fn closed_keeping(
    target: Target,
    clients: usize,
    bounds: Bounds,
    requests: Requests,
) -> anyhow::Result<Run> {
    closed_with(target, clients, bounds, requests, true).await
}

async fn closed_with(
    target: Target,
    clients: usize,
    bounds: Bounds,
    requests: Requests,
    keep: bool,
) -> anyhow::Result<Run> {
    bounds.check(clients)?;
    // Connections are made before the clock runs.
    let mut connections = Vec::with_capacity(clients);
    for _ in 0..clients {
        connections.push(Connection::open(target).await?);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for mut connection in connections {
        let (next, requests) = (Arc::clone(&next), Arc::clone(&requests));
        tasks.spawn(async move {
            let mut answers = Vec::new();
            while started.elapsed() < bounds.time {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= bounds.requests {
                    break;
                }
                let due = Instant::now();
                if connection.is_closed() {
                    connection = Connection::open(target).await?;
                }
                let sent = Instant::now();
                let (outcome, body) = connection.ask(requests(number), keep).await;
                answers.push(Answer::of(number, started, due, sent, outcome, body));
            }
            anyhow::Ok(answers)
        });
    }
    let mut run = Run::default();
    while let Some(answers) = tasks.join_next().await {
        run.answers.extend(answers.context("a client of the load generator panicked")??);
    }
    run.elapsed_s = started.elapsed().as_secs_f64();
    Ok(run)
}

/// Requests at a rate a second, at moments without a memory (a Poisson process, drawn from the seed), over at most
/// so many connections. A request that finds none free waits, and its latency runs.
///
/// # Errors
/// Bounds or a rate beyond reason.
pub async fn open(
    target: Target,
    rate: f64,
    connections: usize,
    bounds: Bounds,
    seed: u64,
    requests: Requests,
) -> anyhow::Result<Run> {
    bounds.check(connections)?;
    ensure!(rate > 0.0 && rate <= 1e6, "{rate} requests a second");
    let due = moments(rate, bounds, seed);
    let pool = Arc::new(Pool { target, places: Semaphore::new(connections), idle: Mutex::default() });
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    let mut run = Run::default();
    for (number, at) in due.into_iter().enumerate() {
        let due = started + at;
        sleep_until(due.into()).await;
        let (pool, requests) = (Arc::clone(&pool), Arc::clone(&requests));
        tasks.spawn(async move {
            let (sent, outcome) = pool.ask(requests(number)).await;
            Answer::of(number, started, due, sent, outcome, Bytes::new())
        });
        while let Some(answer) = tasks.try_join_next() {
            run.answers.push(answer.context("a request of the load generator panicked")?);
        }
    }
    while let Some(answer) = tasks.join_next().await {
        run.answers.push(answer.context("a request of the load generator panicked")?);
    }
    run.elapsed_s = started.elapsed().as_secs_f64();
    Ok(run)
}

/// When requests are due, from the beginning of the run.
fn moments(rate: f64, bounds: Bounds, seed: u64) -> Vec<Duration> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut at = 0.0;
    let mut moments = Vec::new();
    while moments.len() < bounds.requests {
        let uniform: f64 = rng.random();
        at += -(1.0 - uniform).ln() / rate;
        if at >= bounds.time.as_secs_f64() {
            break;
        }
        moments.push(Duration::from_secs_f64(at));
    }
    moments
}

impl Answer {
    fn of(
        number: usize,
        started: Instant,
        due: Instant,
        sent: Instant,
        outcome: Outcome,
        body: Bytes,
    ) -> Self {
        let ms = |time: Duration| 1e3 * time.as_secs_f64();
        Self {
            number,
            due_s: due.saturating_duration_since(started).as_secs_f64(),
            latency_ms: ms(due.elapsed()),
            late_ms: ms(sent.saturating_duration_since(due)),
            outcome,
            body,
        }
    }
}

/// Connections that an open loop uses again.
struct Pool {
    target: Target,
    places: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    /// When the request was sent, and how it ended.
    async fn ask(&self, request: Request) -> (Instant, Outcome) {
        let _place = self.places.acquire().await.expect("nobody closes the semaphore");
        let free = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match free.filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => match Connection::open(self.target).await {
                Ok(connection) => connection,
                Err(_) => return (Instant::now(), Outcome::Broken),
            },
        };
        let sent = Instant::now();
        let (outcome, _) = connection.ask(request, false).await;
        if outcome != Outcome::Broken && !connection.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        (sent, outcome)
    }
}

/// One client's connection.
struct Connection {
    target: Target,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    async fn open(target: Target) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(target.0).await.with_context(|| format!("connecting to {}", target.0))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // What goes wrong with the connection is told to whoever waits for an answer.
        tokio::spawn(async move { connection.await.ok() });
        Ok(Self { target, sender })
    }

    fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    async fn ask(&mut self, request: Request, keep: bool) -> (Outcome, Bytes) {
        match timeout(PATIENCE, self.exchange(request, keep)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => (Outcome::Broken, Bytes::new()),
        }
    }

    async fn exchange(&mut self, request: Request, keep: bool) -> Result<(Outcome, Bytes), hyper::Error> {
        self.sender.ready().await?;
        let request = hyper::Request::builder()
            .method(request.method)
            .uri(&*request.path)
            .header(header::HOST, self.target.0.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(request.body))
            .expect("a path and fixed headers make a request");
        let (head, mut body) = self.sender.send_request(request).await?.into_parts();
        let mut kept = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame?.data_ref().filter(|_| keep) {
                kept.extend_from_slice(data);
            }
        }
        let outcome = match head.status {
            status if status.is_success() => Outcome::Answered,
            StatusCode::SERVICE_UNAVAILABLE if head.headers.contains_key(header::RETRY_AFTER) => {
                Outcome::Refused
            }
            status => Outcome::Status(status.as_u16()),
        };
        Ok((outcome, kept.into()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A server that answers request number `n` of each connection as told; nothing closes the connection in its place.
    async fn server(answer: fn(usize) -> Option<&'static str>) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target(listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = Vec::new();
                    for number in 0.. {
                        while !buffer.ends_with(b"\r\n\r\nbody") {
                            let mut part = [0; 1024];
                            let read = stream.read(&mut part).await.unwrap_or(0);
                            if read == 0 {
                                return;
                            }
                            buffer.extend_from_slice(&part[..read]);
                        }
                        buffer.clear();
                        let Some(answer) = answer(number) else { return };
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        target
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    const REFUSED: &str = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
    const UNEXPLAINED: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

    fn requests() -> Requests {
        always(Request::post("/score", "body"))
    }

    #[test]
    fn load_goes_to_loopback_alone() {
        for url in ["http://127.0.0.1:80", "http://127.9.9.9:1/x", "http://[::1]:8080/"] {
            assert!(Target::of(url).is_ok(), "{url}");
        }
        for url in [
            "http://10.0.0.1:80",
            "http://[::ffff:10.0.0.1]:80",
            "http://0.0.0.0:80",
            "http://localhost:80",
            "http://127.0.0.1.example:80",
            "http://127.0.0.1@192.0.2.1:80",
            "https://127.0.0.1:80",
            "http://127.0.0.1",
        ] {
            assert!(Target::of(url).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_run_without_bounds_is_refused() {
        let target = Target::of("http://127.0.0.1:9").unwrap();
        for (clients, bounds) in [
            (MAX_CONNECTIONS + 1, Bounds::requests(1)),
            (0, Bounds::requests(1)),
            (1, Bounds::requests(MAX_REQUESTS + 1)),
            (1, Bounds::time(MAX_TIME + Duration::from_secs(1))),
        ] {
            assert!(closed(target, clients, bounds, requests()).await.is_err());
            assert!(open(target, 1.0, clients, bounds, 0, requests()).await.is_err());
        }
        assert!(open(target, 0.0, 1, Bounds::requests(1), 0, requests()).await.is_err());
        assert!(open(target, f64::NAN, 1, Bounds::requests(1), 0, requests()).await.is_err());
    }

    #[tokio::test]
    async fn every_client_asks_in_turn_and_every_request_is_made_once() {
        let target = server(|_| Some(OK)).await;
        let run = closed_keeping(target, 4, Bounds::requests(100), requests()).await.unwrap();
        let run = run.all_answered().unwrap();
        let mut numbers: Vec<usize> = run.answers.iter().map(|answer| answer.number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
        assert!(run.answers.iter().all(|answer| &answer.body[..] == b"ok"));
        assert!(run.rate() > 0.0 && run.latency_ms(Outcome::Answered, 0.5).unwrap() > 0.0);
    }

    #[tokio::test]
    async fn outcomes_are_told_apart() {
        let target = server(|number| [Some(OK), Some(REFUSED), Some(UNEXPLAINED), None][number % 4]).await;
        let run = closed(target, 1, Bounds::requests(8), requests()).await.unwrap();
        assert_eq!((run.count(Outcome::Answered), run.count(Outcome::Refused)), (2, 2));
        assert_eq!(run.others(), [(Outcome::Status(503), 2), (Outcome::Broken, 2)]);
        assert!(run.all_answered().is_err());
    }

    #[tokio::test]
    async fn an_open_loop_keeps_its_rate_and_counts_from_the_moment_a_request_was_due() {
        let target = server(|_| Some(OK)).await;
        let bounds = Bounds { requests: 200, time: Duration::from_secs(2) };
        let run = open(target, 1000.0, 1, bounds, 7, requests()).await.unwrap().all_answered().unwrap();
        assert_eq!(run.answers.len(), 200);
        for answer in &run.answers {
            assert!(answer.latency_ms >= answer.late_ms, "{answer:?}");
        }
        let last = run.answers.iter().map(|answer| answer.due_s).fold(0.0, f64::max);
        assert!((0.12..0.3).contains(&last), "{last}");
    }

    #[tokio::test]
    async fn a_request_that_waits_for_a_connection_has_the_wait_in_its_latency() {
        // The first connection answers one request in the time that the test gives it.
        let (release, gate) = tokio::sync::oneshot::channel::<()>();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target(listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut part = [0; 1024];
            assert!(stream.read(&mut part).await.unwrap() > 0);
            gate.await.unwrap();
            for _ in 0..2 {
                stream.write_all(OK.as_bytes()).await.unwrap();
                if stream.read(&mut part).await.unwrap() == 0 {
                    return;
                }
            }
        });
        let asked = Arc::new(AtomicUsize::new(0));
        let release = Mutex::new(Some(release));
        let counted = Arc::clone(&asked);
        // The second request is made while the first one is under way; then the server may answer.
        let requests: Requests = Arc::new(move |number| {
            counted.fetch_add(1, Ordering::Relaxed);
            if number == 1 {
                release.lock().unwrap().take().unwrap().send(()).unwrap();
            }
            Request::post("/score", "body")
        });
        let bounds = Bounds { requests: 2, time: MAX_TIME };
        let run = open(target, 20.0, 1, bounds, 1, requests).await.unwrap().all_answered().unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        let first = run.answers.iter().find(|answer| answer.number == 0).unwrap();
        let second = run.answers.iter().find(|answer| answer.number == 1).unwrap();
        // The first one waited until the second was due, and was sent at once.
        assert!(first.latency_ms >= 1e3 * (second.due_s - first.due_s), "{first:?} {second:?}");
        assert!(first.late_ms < first.latency_ms);
    }

    #[test]
    fn moments_are_as_many_a_second_as_asked_for_and_the_same_for_a_seed() {
        let bounds = Bounds::time(Duration::from_secs(10));
        let drawn = moments(500.0, bounds, 3);
        assert!((4700..5300).contains(&drawn.len()), "{}", drawn.len());
        assert!(drawn.windows(2).all(|two| two[0] <= two[1]));
        assert_eq!(drawn, moments(500.0, bounds, 3));
        assert_ne!(drawn, moments(500.0, bounds, 4));
    }
}
