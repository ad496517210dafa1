//! Answers about accuracy: computed once for however many ask, a few at a time, and kept for as long as nothing changes.

use std::{
    collections::HashMap,
    fmt::Debug,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use moka::sync::Cache;
use polyreward_domain::TenantId;
use polyreward_storage::{Moment, StorageError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::MeasureOptions;
use crate::{aside::Stopped, metrics, people::Erasures};

/// Groups and points that the kept answers of one kind hold together.
const KEPT_ROWS: u64 = 1 << 14;

/// Why there is no answer, for everybody who waits for it.
#[derive(Debug, Clone)]
pub(super) enum Undone {
    /// Nobody has the attribute at this place.
    UnknownAttribute { at: usize, known: Vec<String> },
    /// There would be more points than this.
    TooManyPoints(usize),
    /// As many wait as may.
    Overloaded,
    /// The database cannot be asked, or took too long.
    Storage(Arc<StorageError>),
    /// The work ended without a result.
    GivenUp,
}

impl Undone {
    fn label(&self) -> &'static str {
        match self {
            Self::UnknownAttribute { .. } | Self::TooManyPoints(_) => "refused",
            Self::Overloaded => "overloaded",
            Self::Storage(error) if matches!(**error, StorageError::TooSlow(_)) => "too_slow",
            Self::Storage(_) | Self::GivenUp => "failed",
        }
    }
}

impl From<Stopped> for Undone {
    fn from(_: Stopped) -> Self {
        Self::GivenUp
    }
}

impl From<StorageError> for Undone {
    fn from(error: StorageError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

/// What tells one moment from another: of two alike, people and examples are the same, and nobody was erased in between, so
/// that what was read after the first is as good as read after the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    pub moment: Moment,
    pub erasures: Erasures,
}

/// Who computes, and who may wait to.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    turns: Arc<Semaphore>,
    /// Those who have a turn, and those who wait for one.
    places: Arc<Semaphore>,
}

/// A place among those who compute or wait to.
#[derive(Debug)]
pub(super) struct Place {
    _place: OwnedSemaphorePermit,
}

/// Leave to compute.
#[derive(Debug)]
pub(super) struct Turn {
    _place: Place,
    _turn: OwnedSemaphorePermit,
}

impl Turns {
    pub fn new(options: &MeasureOptions) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self {
            turns: semaphore(options.max_concurrent.max(1)),
            places: semaphore(options.max_concurrent.max(1).saturating_add(options.max_waiting)),
        }
    }

    pub fn place(&self) -> Result<Place, Undone> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map(|permit| Place { _place: permit }).map_err(|_| Undone::Overloaded)
    }

    pub async fn turn(&self, place: Place) -> Turn {
        let turn = Arc::clone(&self.turns).acquire_owned().await.expect("the turns are never closed");
        Turn { _place: place, _turn: turn }
    }
}

/// What can be asked again.
pub(super) trait Question: Debug + Clone + Eq + Hash + Send + Sync + 'static {}

impl<T: Debug + Clone + Eq + Hash + Send + Sync + 'static> Question for T {}

/// What can be told to many.
pub(super) trait Answer: Debug + Clone + Send + Sync + 'static {}

impl<T: Debug + Clone + Send + Sync + 'static> Answer for T {}

type Outcome<A> = Result<A, Undone>;
type Waiting<A> = Shared<oneshot::Receiver<Outcome<A>>>;
type Key<Q> = (TenantId, Q);
/// Computations by question and moment.
type Table<Q, A> = HashMap<(Key<Q>, Stamp), Running<A>>;

/// Where questions of one kind are answered.
#[derive(Debug)]
pub(super) struct Desk<Q: Question, A: Answer> {
    kind: &'static str,
    /// The last answer to each question, with the moment it is of.
    kept: Cache<Key<Q>, (Stamp, A)>,
    running: Mutex<Table<Q, A>>,
    turns: Turns,
}

/// A computation that waits for its turn, or runs.
#[derive(Debug)]
struct Running<A: Answer> {
    number: u64,
    waiting: WeakShared<oneshot::Receiver<Outcome<A>>>,
}

impl<Q: Question, A: Answer> Desk<Q, A> {
    /// A desk of its own for a kind of question; `rows` says how large an answer is.
    pub fn new(kind: &'static str, turns: Turns, rows: fn(&A) -> usize) -> Arc<Self> {
        let weigh =
            move |_: &Key<Q>, (_, answer): &(Stamp, A)| u32::try_from(1 + rows(answer)).unwrap_or(u32::MAX);
        let kept = Cache::builder().max_capacity(KEPT_ROWS).weigher(weigh).build();
        Arc::new(Self { kind, kept, running: Mutex::default(), turns })
    }

    /// The answer at a moment that the caller has asked for itself: kept, being computed, or computed from now on. A
    /// computation that has begun is ended and kept, though whoever asked has left.
    pub async fn ask(
        self: &Arc<Self>,
        tenant: &TenantId,
        question: Q,
        stamp: Stamp,
        compute: impl FnOnce() -> BoxFuture<'static, Outcome<A>>,
    ) -> Outcome<A> {
        let key = (tenant.clone(), question);
        let (outcome, label) = if let Some(answer) = self.kept_at(&key, stamp) {
            (Ok(answer), "kept")
        } else {
            let outcome = self.waited_for(key, stamp, compute).await;
            let label = outcome.as_ref().map_or_else(Undone::label, |_| "answered");
            (outcome, label)
        };
        ::metrics::counter!(metrics::MEASURES_TOTAL, "kind" => self.kind, "outcome" => label).increment(1);
        outcome
    }

    async fn waited_for(
        self: &Arc<Self>,
        key: Key<Q>,
        stamp: Stamp,
        compute: impl FnOnce() -> BoxFuture<'static, Outcome<A>>,
    ) -> Outcome<A> {
        let waiting = self.join(key, stamp, compute)?;
        waiting.await.unwrap_or(Err(Undone::GivenUp))
    }

    fn join(
        self: &Arc<Self>,
        key: Key<Q>,
        stamp: Stamp,
        compute: impl FnOnce() -> BoxFuture<'static, Outcome<A>>,
    ) -> Result<Waiting<A>, Undone> {
        let key = (key, stamp);
        let mut running = self.running();
        if let Some(waiting) = running.get(&key).and_then(|running| running.waiting.upgrade()) {
            return Ok(waiting);
        }
        let (done, waiting) = oneshot::channel();
        let waiting = waiting.shared();
        if let Some(answer) = self.kept_at(&key.0, stamp) {
            // It was finished since the caller looked.
            let _heard = done.send(Ok(answer));
            return Ok(waiting);
        }
        let place = self.turns.place()?;
        let number = running.get(&key).map_or(0, |before| before.number + 1);
        let weak = waiting.downgrade().expect("a future that was not polled can be waited for");
        running.insert(key.clone(), Running { number, waiting: weak });
        let left = Leave { desk: Arc::clone(self), key, number };
        tokio::spawn(left.run(place, compute(), done));
        Ok(waiting)
    }

    fn kept_at(&self, key: &Key<Q>, stamp: Stamp) -> Option<A> {
        self.kept.get(key).filter(|(kept, _)| *kept == stamp).map(|(_, answer)| answer)
    }

    fn running(&self) -> MutexGuard<'_, Table<Q, A>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task of one computation, which leaves the desk however it ends.
struct Leave<Q: Question, A: Answer> {
    desk: Arc<Desk<Q, A>>,
    key: (Key<Q>, Stamp),
    number: u64,
}

impl<Q: Question, A: Answer> Leave<Q, A> {
    async fn run(
        self,
        place: Place,
        compute: BoxFuture<'static, Outcome<A>>,
        mut done: oneshot::Sender<Outcome<A>>,
    ) {
        let turn = tokio::select! {
            biased;
            () = done.closed() => return,
            turn = self.desk.turns.turn(place) => turn,
        };
        let started = Instant::now();
        let outcome = compute.await;
        ::metrics::histogram!(metrics::MEASURE_SECONDS, "kind" => self.desk.kind).record(started.elapsed());
        if let Ok(answer) = &outcome {
            let (key, stamp) = &self.key;
            self.desk.kept.insert(key.clone(), (*stamp, answer.clone()));
        }
        drop(turn);
        // Nobody may wait any more; the answer is kept all the same.
        let _heard = done.send(outcome);
    }
}

impl<Q: Question, A: Answer> Drop for Leave<Q, A> {
    fn drop(&mut self) {
        let mut running = self.desk.running();
        if running.get(&self.key).is_some_and(|running| running.number == self.number) {
            running.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    type TestDesk = Arc<Desk<u32, u32>>;

    /// Computations that end when they are told to, and are counted as they begin.
    #[derive(Clone, Default)]
    struct Work {
        begun: Arc<AtomicUsize>,
        may_end: Arc<Notify>,
    }

    impl Work {
        fn begun(&self) -> usize {
            self.begun.load(Ordering::SeqCst)
        }

        fn at_once(&self, answer: u32) -> impl FnOnce() -> BoxFuture<'static, Outcome<u32>> {
            self.may_end.notify_one();
            self.held(answer)
        }

        fn held(&self, answer: u32) -> impl FnOnce() -> BoxFuture<'static, Outcome<u32>> {
            let work = self.clone();
            move || {
                async move {
                    work.begun.fetch_add(1, Ordering::SeqCst);
                    work.may_end.notified().await;
                    Ok(answer)
                }
                .boxed()
            }
        }

        async fn has_begun(&self, computations: usize) {
            while self.begun() < computations {
                tokio::task::yield_now().await;
            }
        }
    }

    fn desk(max_concurrent: usize, max_waiting: usize) -> TestDesk {
        let options = MeasureOptions { max_concurrent, max_waiting, ..MeasureOptions::default() };
        Desk::new("test", Turns::new(&options), |_| 1)
    }

    fn stamp(users: u64) -> Stamp {
        let moment = Moment { users, upper: 0, lower: 0, changed_at: None, ticks: 0 };
        Stamp { moment, erasures: Erasures::default() }
    }

    async fn ask(
        desk: &TestDesk,
        question: u32,
        at: u64,
        compute: impl FnOnce() -> BoxFuture<'static, Outcome<u32>>,
    ) -> Outcome<u32> {
        desk.ask(&TenantId::default(), question, stamp(at), compute).await
    }

    #[tokio::test]
    async fn what_many_ask_at_one_moment_is_computed_once_and_kept_until_the_moment_has_passed() {
        let (desk, work) = (desk(1, 0), Work::default());
        let many = (0..20).map(|_| ask(&desk, 1, 1, work.at_once(7)));
        for answer in join_all(many).await {
            assert_eq!(answer.unwrap(), 7);
        }
        assert_eq!(ask(&desk, 1, 1, work.at_once(8)).await.unwrap(), 7);
        assert_eq!(work.begun(), 1);
        // Something was written: an answer of before is not given any more, to whichever of the two moments.
        assert_eq!(ask(&desk, 1, 2, work.at_once(9)).await.unwrap(), 9);
        assert_eq!(ask(&desk, 1, 1, work.at_once(10)).await.unwrap(), 10);
        let other: TenantId = "other".parse().unwrap();
        assert_eq!(desk.ask(&other, 1, stamp(1), work.at_once(11)).await.unwrap(), 11);
        assert_eq!(work.begun(), 4);
        assert!(desk.running().is_empty());
    }

    #[tokio::test]
    async fn whoever_asks_after_a_change_does_not_wait_for_a_computation_that_began_before_it() {
        let (desk, early, late) = (desk(2, 0), Work::default(), Work::default());
        let mut before = Box::pin(ask(&desk, 1, 1, early.held(1)));
        assert!(before.as_mut().now_or_never().is_none());
        early.has_begun(1).await;
        assert_eq!(ask(&desk, 1, 2, late.at_once(2)).await.unwrap(), 2);
        early.may_end.notify_one();
        assert_eq!(before.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn more_than_may_wait_are_refused_and_what_nobody_waits_for_is_not_begun() {
        let (desk, work) = (desk(1, 1), Work::default());
        let mut running = Box::pin(ask(&desk, 1, 1, work.held(1)));
        assert!(running.as_mut().now_or_never().is_none());
        work.has_begun(1).await;
        let mut waiting = Box::pin(ask(&desk, 2, 1, work.held(2)));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(matches!(ask(&desk, 3, 1, work.held(3)).await, Err(Undone::Overloaded)));
        // The same question takes no place of its own.
        let mut same = Box::pin(ask(&desk, 2, 1, work.held(2)));
        assert!(same.as_mut().now_or_never().is_none());
        drop((waiting, same));
        while desk.running().len() > 1 {
            tokio::task::yield_now().await;
        }
        work.may_end.notify_one();
        assert_eq!(running.await.unwrap(), 1);
        assert_eq!(ask(&desk, 3, 1, work.at_once(3)).await.unwrap(), 3);
        assert_eq!(work.begun(), 2);
    }

    #[tokio::test]
    async fn a_computation_that_has_begun_is_ended_and_kept_though_whoever_asked_has_left() {
        let (desk, work) = (desk(1, 0), Work::default());
        let mut left = Box::pin(ask(&desk, 1, 1, work.held(1)));
        assert!(left.as_mut().now_or_never().is_none());
        work.has_begun(1).await;
        drop(left);
        work.may_end.notify_one();
        while !desk.running().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask(&desk, 1, 1, work.at_once(2)).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_failure_is_told_to_all_who_wait_and_is_not_kept() {
        let (desk, work) = (desk(1, 0), Work::default());
        let fail = || || async { Err(StorageError::Unavailable("the test says so".into()).into()) }.boxed();
        for failed in join_all((0..3).map(|_| ask(&desk, 1, 1, fail()))).await {
            assert!(matches!(failed, Err(Undone::Storage(_))));
        }
        let panic = || async { panic!("the test says so") }.boxed();
        assert!(matches!(ask(&desk, 1, 1, panic).await, Err(Undone::GivenUp)));
        assert_eq!(ask(&desk, 1, 1, work.at_once(1)).await.unwrap(), 1);
    }
}
