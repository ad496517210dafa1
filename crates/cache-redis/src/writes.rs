//! What waits to be written or removed, and the task that does it behind everybody's answer.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use polyreward_backbone::CacheKey;
use redis::{Pipeline, RedisResult};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    link::{Fault, Link, Live},
    metrics::{self, Removed, Written},
    name,
};

/// Bytes of values written in one round trip, so that a read does not wait behind many.
const WRITE_AT_ONCE_BYTES: usize = 128 << 10;
/// Keys removed in one round trip.
const REMOVE_AT_ONCE: usize = 512;
/// How long the server may take for one round trip of those.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// Keys that wait to be removed at most: 32 MiB.
const MAX_REMOVALS: usize = 1 << 20;

/// Keys to remove.
#[derive(Debug)]
struct Removal {
    keys: Vec<CacheKey>,
    /// When it was asked for.
    asked: Instant,
    /// When it is to be carried out next.
    due: Instant,
    /// Whether it has been carried out once.
    again: bool,
}

#[derive(Debug)]
enum Work {
    Put(Vec<(CacheKey, Vec<u8>)>),
    Remove(Removal),
}

#[derive(Debug, Default)]
struct State {
    puts: VecDeque<(CacheKey, Vec<u8>)>,
    put_bytes: usize,
    removals: VecDeque<Removal>,
    removal_keys: usize,
    /// Whether the writer holds work.
    busy: bool,
    /// Whether removals are repeated at once, as the process ends.
    hurry: bool,
}

/// What waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    state: Mutex<State>,
    changed: Notify,
    idle: Notify,
    max_bytes: usize,
    keep: Duration,
}

impl Waiting {
    pub fn new(max_bytes: usize, keep: Duration) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), idle: Notify::new(), max_bytes, keep }
    }

    /// Nothing panics while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a value; whether there was room.
    pub fn put(&self, key: CacheKey, value: Vec<u8>) -> bool {
        let mut state = self.state();
        if state.put_bytes + value.len() > self.max_bytes {
            return false;
        }
        state.put_bytes += value.len();
        state.puts.push_back((key, value));
        drop(state);
        self.changed.notify_one();
        true
    }

    /// Queues a removal, and takes out what waits to be written under its keys. What comes later is written later.
    pub fn remove(&self, keys: Vec<CacheKey>) {
        if keys.is_empty() {
            return;
        }
        let removed: HashSet<&CacheKey> = keys.iter().collect();
        let mut state = self.state();
        state.puts.retain(|(key, _)| !removed.contains(key));
        state.put_bytes = state.puts.iter().map(|(_, value)| value.len()).sum();
        let now = Instant::now();
        state.removal_keys += keys.len();
        state.removals.push_back(Removal { keys, asked: now, due: now, again: false });
        while state.removal_keys > MAX_REMOVALS {
            // The oldest is the one whose values expire first.
            let Some(oldest) = state.removals.pop_front() else { break };
            state.removal_keys -= oldest.keys.len();
            metrics::removed(Removed::GivenUp, oldest.keys.len());
        }
        metrics::removals_waiting(state.removal_keys);
        drop(state);
        self.changed.notify_one();
    }

    /// Keys that wait to be removed, for the first time or again.
    pub fn removals(&self) -> usize {
        self.state().removal_keys
    }

    /// Makes every removal due.
    pub fn hurry(&self) {
        let mut state = self.state();
        state.hurry = true;
        let now = Instant::now();
        state.removals.iter_mut().for_each(|removal| removal.due = now);
        drop(state);
        self.changed.notify_one();
    }

    /// Done once nothing waits and nothing is under way.
    pub async fn emptied(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            let is_idle = {
                let state = self.state();
                state.puts.is_empty() && state.removals.is_empty() && !state.busy
            };
            if is_idle {
                return;
            }
            idle.await;
        }
    }

    /// The next work, once there is some: removals that are due before values. One task asks.
    async fn next(&self) -> Work {
        loop {
            let due = {
                let mut state = self.state();
                if let Some(work) = self.take(&mut state) {
                    state.busy = true;
                    return work;
                }
                state.removals.iter().map(|removal| removal.due).min()
            };
            match due {
                None => self.changed.notified().await,
                Some(due) => tokio::select! {
                    () = self.changed.notified() => (),
                    () = sleep_until(due) => (),
                },
            }
        }
    }

    fn take(&self, state: &mut State) -> Option<Work> {
        let now = Instant::now();
        // What was there when they were asked for has expired by itself.
        while state.removals.front().is_some_and(|removal| removal.asked + self.keep <= now) {
            let expired = state.removals.pop_front()?;
            state.removal_keys -= expired.keys.len();
            metrics::removed(Removed::Expired, expired.keys.len());
            metrics::removals_waiting(state.removal_keys);
        }
        if let Some(at) = state.removals.iter().position(|removal| removal.due <= now) {
            let removal = state.removals.remove(at)?;
            state.removal_keys -= removal.keys.len();
            return Some(Work::Remove(removal));
        }
        let (mut values, mut bytes) = (Vec::new(), 0);
        while bytes < WRITE_AT_ONCE_BYTES {
            let Some((key, value)) = state.puts.pop_front() else { break };
            bytes += value.len();
            values.push((key, value));
        }
        state.put_bytes -= bytes;
        (!values.is_empty()).then_some(Work::Put(values))
    }

    /// Ends what [`next`](Self::next) gave, with a removal that is to be carried out later.
    fn done(&self, later: Option<Removal>) {
        let mut state = self.state();
        state.busy = false;
        if let Some(removal) = later {
            // In the order in which they were asked for, so that the first is the first to expire.
            state.removal_keys += removal.keys.len();
            let at = state.removals.partition_point(|other| other.asked <= removal.asked);
            state.removals.insert(at, removal);
        }
        metrics::removals_waiting(state.removal_keys);
        drop(state);
        self.idle.notify_waiters();
    }

    fn is_hurried(&self) -> bool {
        self.state().hurry
    }
}

/// Carries out what waits, one after the other: what was begun before a removal is through before it.
pub(crate) struct Writer {
    pub link: Arc<Link>,
    pub waiting: Arc<Waiting>,
    pub keep: Duration,
    pub again_after: Duration,
    pub retry_after: Duration,
}

impl Writer {
    pub async fn run(self) {
        let mut refused = false;
        loop {
            let mut live = self.link.connected().await;
            let work = tokio::select! {
                work = self.waiting.next() => work,
                () = self.link.broken() => continue,
            };
            let (result, later) = match work {
                Work::Put(values) => (self.put(&mut live, &values).await, None),
                Work::Remove(removal) => self.remove(&mut live, removal).await,
            };
            self.waiting.done(later);
            match result {
                Ok(()) => refused = false,
                Err(Fault::Failed(error)) if error.code().is_some() => {
                    // Full or read-only: it may still be read, and nothing is gained by another connection.
                    if !refused {
                        tracing::warn!(error = %error, "the shared cache refuses to be written");
                        refused = true;
                    }
                }
                Err(fault) => self.link.give_up(&live, &fault),
            }
        }
    }

    async fn put(&self, live: &mut Live, values: &[(CacheKey, Vec<u8>)]) -> Result<(), Fault> {
        let mut pipeline = Pipeline::with_capacity(values.len());
        for (key, value) in values {
            pipeline.cmd("SET").arg(name(key)).arg(value).arg("EX").arg(self.keep.as_secs().max(1));
        }
        let writing = pipeline.ignore_errors().query_async(&mut live.connection);
        let results: Vec<RedisResult<()>> = match within(writing).await {
            Ok(results) => results,
            Err(fault) => {
                metrics::written(Written::Failed, values.len());
                return Err(fault);
            }
        };
        let stored = results.iter().filter(|result| result.is_ok()).count();
        metrics::written(Written::Stored, stored);
        metrics::written(Written::Failed, values.len() - stored);
        results.into_iter().collect::<RedisResult<()>>().map_err(Fault::Failed)
    }

    /// What came of it, and what is left to be done.
    async fn remove(&self, live: &mut Live, mut removal: Removal) -> (Result<(), Fault>, Option<Removal>) {
        for keys in removal.keys.chunks(REMOVE_AT_ONCE) {
            let mut command = redis::cmd("DEL");
            for key in keys {
                command.arg(name(key));
            }
            if let Err(fault) = within(command.exec_async(&mut live.connection)).await {
                removal.due = Instant::now() + self.retry_after;
                return (Err(fault), Some(removal));
            }
        }
        if removal.again {
            return (Ok(()), None);
        }
        metrics::removed(Removed::Done, removal.keys.len());
        removal.again = true;
        removal.due = Instant::now();
        if !self.waiting.is_hurried() {
            removal.due += self.again_after;
        }
        (Ok(()), Some(removal))
    }
}

async fn within<T>(command: impl Future<Output = RedisResult<T>>) -> Result<T, Fault> {
    match timeout(WRITE_TIMEOUT, command).await {
        Ok(result) => result.map_err(Fault::Failed),
        Err(_elapsed) => Err(Fault::Late),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn a_value_beyond_the_room_is_dropped() {
        let waiting = Waiting::new(10, KEEP);
        assert!(waiting.put([1; 32], vec![0; 6]));
        assert!(!waiting.put([2; 32], vec![0; 6]));
        assert!(matches!(waiting.next().await, Work::Put(values) if values.len() == 1));
        waiting.done(None);
        assert!(waiting.put([2; 32], vec![0; 6]));
    }

    #[tokio::test]
    async fn a_removal_comes_before_what_is_written_later_and_takes_out_what_waits() {
        let waiting = Waiting::new(100, KEEP);
        assert!(waiting.put([1; 32], vec![1]) && waiting.put([2; 32], vec![2]));
        waiting.remove(vec![[1; 32]]);
        assert!(waiting.put([1; 32], vec![3]));
        assert!(matches!(waiting.next().await, Work::Remove(removal) if removal.keys == [[1; 32]]));
        waiting.done(None);
        let Work::Put(values) = waiting.next().await else { panic!("values wait") };
        assert_eq!(values, [([2; 32], vec![2]), ([1; 32], vec![3])]);
        waiting.done(None);
        waiting.emptied().await;
    }

    #[tokio::test]
    async fn a_removal_that_is_older_than_what_it_would_remove_is_let_go() {
        let waiting = Waiting::new(100, Duration::ZERO);
        waiting.remove(vec![[1; 32]]);
        assert!(waiting.put([2; 32], vec![2]));
        assert!(matches!(waiting.next().await, Work::Put(_)));
        assert_eq!(waiting.removals(), 0);
    }

    #[tokio::test]
    async fn a_removal_waits_for_its_time_unless_the_process_ends() {
        let waiting = Waiting::new(100, KEEP);
        waiting.remove(vec![[1; 32]]);
        let Work::Remove(mut removal) = waiting.next().await else { panic!("a removal waits") };
        let later = Instant::now() + Duration::from_millis(20);
        removal.due = later;
        waiting.done(Some(removal));
        let Work::Remove(mut removal) = waiting.next().await else { panic!("a removal waits") };
        assert!(Instant::now() >= later);
        removal.due += KEEP;
        waiting.done(Some(removal));
        waiting.hurry();
        assert!(matches!(waiting.next().await, Work::Remove(_)));
    }

    #[tokio::test]
    async fn removals_that_wait_are_bounded() {
        let waiting = Waiting::new(100, KEEP);
        let keys = |first: u8| vec![[first; 32]; MAX_REMOVALS / 2 + 1];
        waiting.remove(keys(1));
        waiting.remove(keys(2));
        assert_eq!(waiting.removals(), MAX_REMOVALS / 2 + 1);
        assert!(matches!(waiting.next().await, Work::Remove(removal) if removal.keys[0] == [2; 32]));
    }
}
