//! Connections: accepted within bounds, and brought to their end without losing a request.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    metrics,
    problem::{Problem, ProblemType},
    routes::{router, with_envelope},
    state::{AppState, Readiness},
};

/// Bytes of the head of a request.
const MAX_HEADER_BYTES: usize = 32 << 10;
const MAX_HEADERS: usize = 100;
/// Connections beyond the limit that are told so; more are closed without a word.
const MAX_REFUSALS: usize = 256;
/// How long such a connection may take to hear it.
const REFUSAL_TIME: Duration = Duration::from_secs(2);
/// After a failed accept, as when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often metrics that nobody reads are folded together.
const UPKEEP: Duration = Duration::from_secs(5);

/// How connections are treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeOptions {
    /// Open connections; more are answered with 503 and closed.
    pub max_connections: usize,
    /// How long the head of a request may take. It starts to run when the answer before it is sent, so an idle
    /// connection is closed after it too.
    pub header_read_timeout: Duration,
    /// How long the listener stays open once readiness says 503, for balancers to notice.
    pub grace: Duration,
    /// How long requests in flight may take after that.
    pub drain: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            header_read_timeout: Duration::from_secs(30),
            grace: Duration::ZERO,
            drain: Duration::from_secs(30),
        }
    }
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request was answered.
    Clean,
    /// Some connections had to be cut off.
    CutOff {
        /// How many.
        connections: usize,
    },
}

/// Serves until `shutdown` is done: then readiness says 503, the listener closes after a grace, and requests in
/// flight have until the end of the drain.
pub async fn serve(
    listener: TcpListener,
    state: AppState,
    options: ServeOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> Drained {
    let readiness = state.readiness().clone();
    let metrics: metrics_exporter_prometheus::PrometheusHandle = axum::extract::FromRef::from_ref(&state);
    let upkeep = async {
        let mut ticks = interval(UPKEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            metrics.run_upkeep();
        }
    };
    tokio::select! {
        drained = run(listener, router(state), &readiness, &options, shutdown) => drained,
        () = upkeep => unreachable!("upkeep has no end"),
    }
}

/// Serves other routes without an end, within the same bounds on connections.
#[cfg(feature = "bench")]
pub(crate) async fn run_bare(listener: TcpListener, router: Router) {
    let readiness = Readiness::default();
    Connections::new(router, &readiness, &ServeOptions::default()).accept(&listener).await;
}

async fn run(
    listener: TcpListener,
    router: Router,
    readiness: &Readiness,
    options: &ServeOptions,
    shutdown: impl Future<Output = ()>,
) -> Drained {
    let mut connections = Connections::new(router, readiness, options);
    let mut shutdown = pin!(shutdown);
    tokio::select! {
        () = connections.accept(&listener) => unreachable!("accepting has no end"),
        () = &mut shutdown => {}
    }
    tracing::info!("draining: no longer ready");
    readiness.drain();
    if !options.grace.is_zero() {
        // The clock is the only way it ends.
        let _elapsed = timeout(options.grace, connections.accept(&listener)).await;
    }
    drop(listener);
    connections.finish(options.drain).await
}

/// Every open connection.
struct Connections {
    http: http1::Builder,
    service: TowerToHyperService<Router>,
    /// Answers connections beyond the limit.
    refusal: TowerToHyperService<Router>,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    graceful: GracefulShutdown,
    tasks: JoinSet<()>,
}

impl Connections {
    fn new(router: Router, readiness: &Readiness, options: &ServeOptions) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(options.header_read_timeout)
            .max_header_size(MAX_HEADER_BYTES)
            .max_headers(MAX_HEADERS);
        Self {
            http,
            service: TowerToHyperService::new(router),
            refusal: TowerToHyperService::new(with_envelope(Router::new().fallback(full), readiness)),
            places: Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS))),
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
            graceful: GracefulShutdown::new(),
            tasks: JoinSet::new(),
        }
    }

    async fn accept(&mut self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.start(stream),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
            while self.tasks.try_join_next().is_some() {}
        }
    }

    fn start(&mut self, stream: TcpStream) {
        // Small replies go out at once; a socket that cannot do that still serves.
        let _set = stream.set_nodelay(true);
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            let connection = self.http.serve_connection(TokioIo::new(stream), self.service.clone());
            self.tasks.spawn(converse(connection, self.graceful.watcher(), place));
        } else if let Ok(place) = Arc::clone(&self.refusals).try_acquire_owned() {
            metrics::refused();
            let mut http = self.http.clone();
            http.keep_alive(false);
            let connection = http.serve_connection(TokioIo::new(stream), self.refusal.clone());
            self.tasks.spawn(refuse(connection, place));
        }
    }

    /// Lets every connection finish its request, within a time.
    async fn finish(self, drain: Duration) -> Drained {
        let Self { graceful, mut tasks, .. } = self;
        if timeout(drain, graceful.shutdown()).await.is_ok() {
            return Drained::Clean;
        }
        while tasks.try_join_next().is_some() {}
        let connections = tasks.len();
        tasks.shutdown().await;
        tracing::warn!(connections, "cut off {connections} connections at the end of the drain");
        Drained::CutOff { connections }
    }
}

type Conversation = http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>>;

async fn converse(connection: Conversation, watcher: Watcher, _place: OwnedSemaphorePermit) {
    let _counted = metrics::count_connection();
    if let Err(error) = watcher.watch(connection).await {
        // The other side left, was too slow, or does not speak HTTP.
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Answers one request and closes.
async fn refuse(connection: Conversation, _place: OwnedSemaphorePermit) {
    // A client that does not listen is not waited for.
    let _heard = timeout(REFUSAL_TIME, connection).await;
}

async fn full() -> Problem {
    let detail = "as many connections as are served at once are open";
    Problem::new(ProblemType::Overloaded).detail(detail).retry_after(1)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{SocketAddr, TcpStream as Client},
    };

    use axum::routing::get;
    use tokio::{sync::oneshot, task::JoinHandle};

    use super::*;

    /// A server of `router` on a free port; sending or dropping the first part shuts it down.
    async fn start(
        router: Router,
        options: ServeOptions,
    ) -> (oneshot::Sender<()>, SocketAddr, JoinHandle<Drained>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(async move {
            let shutdown = async { drop(stopped.await) };
            run(listener, router, &Readiness::default(), &options, shutdown).await
        });
        (stop, address, serving)
    }

    fn send(address: SocketAddr, text: &str) -> Client {
        let mut client = Client::connect(address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.write_all(text.as_bytes()).unwrap();
        client
    }

    async fn read(mut client: Client) -> String {
        let read = move || {
            let mut text = String::new();
            // A reset ends it as well as a close.
            let _ended = client.read_to_string(&mut text);
            text
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    /// A route that says when a request has come in, and answers when it is let go.
    struct Gate {
        entered: Arc<Semaphore>,
        go: Arc<Semaphore>,
    }

    impl Gate {
        fn new() -> (Self, Router) {
            let gate = Self { entered: Arc::new(Semaphore::new(0)), go: Arc::new(Semaphore::new(0)) };
            let (entered, go) = (Arc::clone(&gate.entered), Arc::clone(&gate.go));
            let handler = move || async move {
                entered.add_permits(1);
                go.acquire().await.unwrap().forget();
                "done"
            };
            (gate, Router::new().route("/slow", get(handler)))
        }

        async fn entered(&self) {
            self.entered.acquire().await.unwrap().forget();
        }
    }

    const REQUEST: &str = "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n";

    #[tokio::test(flavor = "multi_thread")]
    async fn requests_in_flight_are_answered_before_the_server_ends() {
        let (gate, router) = Gate::new();
        let (stop, address, serving) = start(router, ServeOptions::default()).await;
        let idle = send(address, "");
        let busy = send(address, REQUEST);
        gate.entered().await;
        drop(stop);
        while Client::connect(address).is_ok() {
            tokio::task::yield_now().await;
        }
        gate.go.add_permits(1);
        assert!(read(busy).await.ends_with("done"));
        assert_eq!(serving.await.unwrap(), Drained::Clean);
        assert_eq!(read(idle).await, "");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_takes_longer_than_the_drain_is_cut_off() {
        let (gate, router) = Gate::new();
        let options = ServeOptions { drain: Duration::from_millis(100), ..ServeOptions::default() };
        let (stop, address, serving) = start(router, options).await;
        let busy = send(address, REQUEST);
        gate.entered().await;
        drop(stop);
        assert_eq!(serving.await.unwrap(), Drained::CutOff { connections: 1 });
        assert_eq!(read(busy).await, "");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_head_that_does_not_end_is_cut_off() {
        let options =
            ServeOptions { header_read_timeout: Duration::from_millis(200), ..ServeOptions::default() };
        let (_stop, address, _serving) = start(Gate::new().1, options).await;
        // Read until the server closes; the client's own time-out is far longer.
        assert!(!read(send(address, "GET /slow HTTP/1.1\r\nhost:")).await.contains("200 OK"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn connections_beyond_the_limit_are_told_to_come_back() {
        let (gate, router) = Gate::new();
        let options = ServeOptions { max_connections: 1, ..ServeOptions::default() };
        let (_stop, address, _serving) = start(router, options).await;
        let first = send(address, REQUEST);
        gate.entered().await;
        let second = read(send(address, REQUEST)).await;
        assert!(second.starts_with("HTTP/1.1 503") && second.contains("retry-after: 1"), "{second}");
        gate.go.add_permits(2);
        drop(first);
        // The place is free once the server has seen the first connection end.
        let last = "GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        loop {
            let reply = read(send(address, last)).await;
            if reply.ends_with("done") {
                break;
            }
            assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 503"), "{reply}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_work_of_a_client_that_left_is_dropped() {
        struct Guard(Option<oneshot::Sender<()>>);
        impl Drop for Guard {
            fn drop(&mut self) {
                if let Some(dropped) = self.0.take() {
                    dropped.send(()).unwrap();
                }
            }
        }
        let (dropped, was_dropped) = oneshot::channel();
        let guard = Arc::new(std::sync::Mutex::new(Some(Guard(Some(dropped)))));
        let entered = Arc::new(Semaphore::new(0));
        let signal = Arc::clone(&entered);
        let handler = move || async move {
            let _guard = guard.lock().unwrap().take();
            signal.add_permits(1);
            std::future::pending::<&str>().await
        };
        let router = Router::new().route("/slow", get(handler));
        let (_stop, address, _serving) = start(router, ServeOptions::default()).await;
        let client = send(address, REQUEST);
        entered.acquire().await.unwrap().forget();
        drop(client);
        timeout(Duration::from_secs(20), was_dropped).await.expect("the handler still runs").unwrap();
    }
}
