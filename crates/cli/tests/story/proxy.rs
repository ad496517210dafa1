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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Connections end; new ones are ended at once.
    Cut,
    /// Nothing passes, and nobody hears of it: neither on these connections nor on new ones, for good. As of a host that
    /// has vanished.
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
                    link.clone().join(client, connected);
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
    fn join(self, client: TcpStream, database: TcpStream) {
        let ((from_client, to_client), (from_database, to_database)) =
            (client.into_split(), database.into_split());
        let there = self.clone().pass(from_client, to_database);
        let back = self.pass(from_database, to_client);
        // Once one way has ended, so has the other.
        tokio::spawn(async move {
            tokio::select! {
                () = there => {}
                () = back => {}
            }
        });
    }

    /// Passes bytes on while the weather lets it.
    async fn pass(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut sky = self.weather.subscribe();
        let mut bytes = vec![0; 16 << 10];
        loop {
            match *sky.borrow_and_update() {
                Weather::Failing(Fault::Cut) => return,
                Weather::Failing(Fault::Still) => break,
                Weather::Fair | Weather::Until(..) => {}
            }
            let count = tokio::select! {
                changed = sky.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                count = from.read(&mut bytes) => count,
            };
            let Ok(count @ 1..) = count else { return };
            let passes = self.take(count);
            if to.write_all(&bytes[..passes]).await.is_err() {
                return;
            }
        }
        // The connection is held open, and says nothing, until the proxy ends.
        let ended = sky.wait_for(|weather| *weather == Weather::Failing(Fault::Cut));
        // Either way it is over.
        let _ended = ended.await;
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
