//! Where texts wait: a bounded number of places, and lists that threads take from.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use crate::batch::least_cost_cuts;
use crate::cache::{Encoded, Key};
use crate::error::InputError;
use crate::metrics::{self, DropReason};
use crate::tokenize::TokenizedText;

/// As many of the waiting texts, the oldest first, are planned together.
const WINDOW_TEXTS: usize = 512;

/// Nothing here panics while it holds a lock, and counters stay right if something does.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bounded number of places for texts, from acceptance to answer.
#[derive(Debug)]
pub(crate) struct Places {
    used: Mutex<usize>,
    freed: Condvar,
    max: usize,
}

/// One taken place; dropping it gives it back, whatever became of the text.
#[derive(Debug)]
pub(crate) struct Place(Arc<Places>);

impl Places {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { used: Mutex::new(0), freed: Condvar::new(), max })
    }

    /// Takes a place for each text of a request, or none at all.
    pub fn take(self: &Arc<Self>, texts: usize) -> Option<Vec<Place>> {
        let mut used = lock(&self.used);
        (texts <= self.max - *used).then(|| self.hand_out(&mut used, texts))
    }

    /// Waits until there is a place for each text; blocks the thread. `texts` is at most [`max`](Self::max).
    pub fn wait_for(self: &Arc<Self>, texts: usize) -> Vec<Place> {
        let mut used = lock(&self.used);
        while texts > self.max - *used {
            used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        self.hand_out(&mut used, texts)
    }

    fn hand_out(self: &Arc<Self>, used: &mut usize, texts: usize) -> Vec<Place> {
        *used += texts;
        (0..texts).map(|_| Place(Arc::clone(self))).collect()
    }

    pub fn used(&self) -> usize {
        *lock(&self.used)
    }

    pub fn max(&self) -> usize {
        self.max
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *lock(&self.0.used) -= 1;
        self.0.freed.notify_all();
    }
}

/// What becomes of a text that a caller waits for.
pub(crate) type Answer = (usize, Result<Encoded, JobError>);

/// Why a text has no embedding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JobError {
    Input(InputError),
    Deadline,
    Inference(String),
}

/// A caller's claim to one text.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// Position in the caller's list.
    pub index: usize,
    pub key: Key,
    pub deadline: Option<Instant>,
    pub accepted_at: Instant,
    pub answers: UnboundedSender<Answer>,
    pub place: Place,
}

impl Ticket {
    /// Answers the caller, if it is still there.
    pub fn answer(self, result: Result<Encoded, JobError>) {
        drop(self.place); // before the answer: who has it may count on the place
        let _gone = self.answers.send((self.index, result));
    }

    /// The ticket back if the text is still wanted; else it is dropped here.
    pub fn still_wanted(self, now: Instant) -> Option<Self> {
        if self.answers.is_closed() {
            metrics::dropped(DropReason::CallerGone);
            return None;
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            metrics::dropped(DropReason::Deadline);
            self.answer(Err(JobError::Deadline));
            return None;
        }
        Some(self)
    }
}

/// A tokenized text and who waits for it.
#[derive(Debug)]
pub(crate) struct Job {
    pub text: TokenizedText,
    pub ticket: Ticket,
}

/// A list that threads take from and sleep on.
#[derive(Debug)]
pub(crate) struct WorkQueue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    /// Threads that wait for items.
    idle: usize,
    closed: bool,
}

impl<T> WorkQueue<T> {
    pub fn new() -> Self {
        let state = State { items: VecDeque::new(), idle: 0, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Adds items; once the queue is closed they are dropped instead.
    pub fn push(&self, items: impl IntoIterator<Item = T>) {
        let mut state = lock(&self.state);
        if !state.closed {
            state.items.extend(items);
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Waits for items and lets `pick` take some, knowing how many other threads have nothing to do.
    /// `None` once the queue is closed.
    pub fn take<R>(&self, pick: impl FnOnce(&mut VecDeque<T>, usize) -> R) -> Option<R> {
        let mut state = lock(&self.state);
        while state.items.is_empty() && !state.closed {
            state.idle += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
        if state.closed {
            return None;
        }
        let idle = state.idle;
        let picked = pick(&mut state.items, idle);
        if !state.items.is_empty() {
            self.changed.notify_one();
        }
        Some(picked)
    }

    /// Drops what waits and ends every [`take`](Self::take), now and later.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let dropped = std::mem::take(&mut state.items);
        drop(state);
        self.changed.notify_all();
        drop(dropped); // tells the callers, outside the lock
    }
}

/// Takes the next batch: the one that the oldest text is in when the oldest [`WINDOW_TEXTS`] are cut at least
/// cost. So no text waits for ever, and who comes next plans anew with what arrived meanwhile.
///
/// `idle` other workers have nothing to do: the batch then is no larger than a fair share of the window.
pub(crate) fn pick_batch(jobs: &mut VecDeque<Job>, idle: usize, max_batch_tokens: usize) -> Vec<Job> {
    let window = jobs.len().min(WINDOW_TEXTS);
    let now = Instant::now();
    let wanted = |job: Job| {
        let ticket = job.ticket.still_wanted(now)?;
        Some(Job { text: job.text, ticket })
    };
    let mut jobs_in_window: Vec<Job> = jobs.drain(..window).filter_map(wanted).collect();
    let lengths: Vec<usize> = jobs_in_window.iter().map(|job| job.text.ids.len()).collect();
    let chosen = batch_of_oldest(&lengths, idle, max_batch_tokens);
    let mut batch = Vec::with_capacity(chosen.len());
    let mut rest = Vec::with_capacity(jobs_in_window.len() - chosen.len());
    for (at, job) in jobs_in_window.drain(..).enumerate() {
        if chosen.contains(&at) {
            batch.push(job);
        } else {
            rest.push(job);
        }
    }
    for job in rest.into_iter().rev() {
        jobs.push_front(job);
    }
    batch
}

/// Which of the texts, given by length in order of arrival, run next.
fn batch_of_oldest(lengths: &[usize], idle: usize, max_batch_tokens: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&at| (lengths[at], at));
    let sorted: Vec<usize> = order.iter().map(|&at| lengths[at]).collect();
    let fair = lengths.iter().sum::<usize>().div_ceil(idle + 1);
    let max = if idle > 0 { max_batch_tokens.min(fair) } else { max_batch_tokens };
    let mut start = 0;
    for end in least_cost_cuts(&sorted, max) {
        if order[start..end].contains(&0) {
            return order[start..end].to_vec();
        }
        start = end;
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    fn job(
        places: &Arc<Places>,
        length: usize,
        deadline: Option<Instant>,
    ) -> (Job, UnboundedReceiver<Answer>) {
        let (answers, receiver) = unbounded_channel();
        let place = places.take(1).unwrap().pop().unwrap();
        let ticket = Ticket { index: 0, key: [0; 32], deadline, accepted_at: Instant::now(), answers, place };
        (Job { text: TokenizedText::of_ids(vec![1; length]), ticket }, receiver)
    }

    #[test]
    fn a_request_gets_all_its_places_or_none() {
        let places = Places::new(5);
        let held = places.take(4).unwrap();
        assert!(places.take(2).is_none());
        assert_eq!(places.used(), 4);
        drop(held);
        assert_eq!(places.used(), 0);
        assert_eq!(places.take(5).unwrap().len(), 5);
    }

    #[test]
    fn a_text_nobody_waits_for_leaves_before_the_batch() {
        let places = Places::new(10);
        let (gone, receiver) = job(&places, 5, None);
        drop(receiver);
        let (late, mut expired) =
            job(&places, 5, Some(Instant::now().checked_sub(Duration::from_secs(1)).unwrap()));
        let (kept, _receiver) = job(&places, 7, None);
        let mut jobs = VecDeque::from([gone, late, kept]);
        let batch = pick_batch(&mut jobs, 0, 1024);
        assert_eq!(batch.iter().map(|job| job.text.ids.len()).collect::<Vec<_>>(), [7]);
        assert!(jobs.is_empty());
        assert_eq!(expired.blocking_recv(), Some((0, Err(JobError::Deadline))));
        assert_eq!(places.used(), 1);
    }

    #[test]
    fn an_idle_worker_is_left_its_share() {
        assert_eq!(batch_of_oldest(&[10; 8], 0, 1024).len(), 8);
        assert_eq!(batch_of_oldest(&[10; 8], 1, 1024).len(), 4);
        assert_eq!(batch_of_oldest(&[10], 7, 1024), [0]);
    }

    #[test]
    fn a_closed_queue_drops_what_waits_and_tells_the_callers() {
        let places = Places::new(1);
        let queue = WorkQueue::new();
        let (waiting, mut receiver) = job(&places, 1, None);
        queue.push([waiting]);
        queue.close();
        assert_eq!(receiver.blocking_recv(), None);
        assert!(queue.take(|_, _| ()).is_none());
        assert_eq!(places.used(), 0);
    }

    proptest! {
        #[test]
        fn the_oldest_text_always_runs_next_with_near_equals(
            lengths in prop::collection::vec(1_usize..300, 1..100), idle in 0_usize..4,
        ) {
            let batch = batch_of_oldest(&lengths, idle, 1024);
            prop_assert!(batch.contains(&0));
            let longest = batch.iter().map(|&at| lengths[at]).max().unwrap();
            prop_assert!(batch.len() == 1 || batch.len() * longest <= 1024);
        }

        #[test]
        fn every_text_is_picked_once(lengths in prop::collection::vec(1_usize..300, 1..600)) {
            let places = Places::new(lengths.len());
            let mut receivers = Vec::new();
            let mut jobs = VecDeque::new();
            for length in &lengths {
                let (job, receiver) = job(&places, *length, None);
                jobs.push_back(job);
                receivers.push(receiver);
            }
            let mut picked = Vec::new();
            while !jobs.is_empty() {
                picked.extend(pick_batch(&mut jobs, 1, 1024).iter().map(|job| job.text.ids.len()));
            }
            let mut lengths = lengths;
            lengths.sort_unstable();
            picked.sort_unstable();
            prop_assert_eq!(picked, lengths);
        }
    }
}
