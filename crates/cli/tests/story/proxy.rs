//! What stands between a server and its database, and fails when it is told to.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// What becomes of bytes and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Everything passes.
    Fair,
    /// So many more bytes pass, either way, and then it fails.
    Until(usize, Fault),
    Failing(Fault),
    /// A connection ends once it has asked to commit, and does not hear what became of that.
    LosingCommits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Connections end; new ones are ended at once.
    Cut,
    /// Nothing passes, and clients do not hear of it: neither on their connections nor on new ones, for good. As of a host
    /// that has vanished, and with it what was under way.
    Still,
}

/// A proxy on a port of its own.
pub struct Proxy {
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(database: (String, u16)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (weather, sky) = watch::channel(Weather::Fair);
        let link = Link { weather: weather.clone(), left: Arc::default() };
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if *sky.borrow() != Weather::Failing(Fault::Cut) {
                    let connected = TcpStream::connect(&database).await.unwrap();
                    tokio::spawn(link.clone().join(client, connected));
                }
            }
        });
        Self { address, weather, task }
    }

    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    pub fn has_failed(&self) -> bool {
        matches!(*self.weather.borrow(), Weather::Failing(_))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.set(Weather::Failing(Fault::Cut));
    }
}

/// What the connections of a proxy share.
#[derive(Clone)]
struct Link {
    weather: watch::Sender<Weather>,
    /// One connection at a time takes of the bytes that may still pass.
    left: Arc<Mutex<()>>,
}

impl Link {
    async fn join(self, client: TcpStream, database: TcpStream) {
        let ((mut from_client, mut to_client), (mut from_database, mut to_database)) =
            (client.into_split(), database.into_split());
        // Once one way has ended, so has the other.
        let is_over = tokio::select! {
            over = self.pass(&mut from_client, &mut to_database) => over,
            over = self.pass(&mut from_database, &mut to_client) => over,
        };
        drop((from_database, to_database));
        if !is_over {
            // Until the proxy ends, or fails in the other way.
            let mut sky = self.weather.subscribe();
            let ended = sky.wait_for(|weather| *weather == Weather::Failing(Fault::Cut)).await;
            assert!(ended.is_ok(), "it has a sender of its own");
        }
    }

    /// Passes bytes on while the weather lets it; whether the connection is over for both sides then.
    async fn pass(&self, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> bool {
        let mut sky = self.weather.subscribe();
        let mut bytes = vec![0; 16 << 10];
        loop {
            match *sky.borrow_and_update() {
                Weather::Failing(Fault::Cut) => return true,
                Weather::Failing(Fault::Still) => return false,
                Weather::Fair | Weather::Until(..) | Weather::LosingCommits => {}
            }
            let count = tokio::select! {
                changed = sky.changed() => {
                    assert!(changed.is_ok(), "it has a sender of its own");
                    continue;
                }
                count = from.read(&mut bytes) => count,
            };
            let Ok(count @ 1..) = count else { return true };
            let passes = self.take(count);
            let passed = &bytes[..passes];
            if to.write_all(passed).await.is_err() || self.is_to_lose(passed) {
                return true;
            }
        }
    }

    fn is_to_lose(&self, passed: &[u8]) -> bool {
        *self.weather.borrow() == Weather::LosingCommits && passed.windows(6).any(|bytes| bytes == b"COMMIT")
    }

    /// How many of so many bytes may still pass.
    fn take(&self, count: usize) -> usize {
        let _one_at_a_time = self.left.lock().unwrap();
        let Weather::Until(left, fault) = *self.weather.borrow() else { return count };
        let passes = count.min(left);
        let next =
            if passes < count { Weather::Failing(fault) } else { Weather::Until(left - passes, fault) };
        self.weather.send_replace(next);
        passes
    }
}
