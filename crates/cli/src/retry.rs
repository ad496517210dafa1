//! Trying again what may pass, for a bounded time, ever more patiently.

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use anyhow::bail;
use tokio::sync::watch;

use crate::progress::say;

/// The first pause; each is twice the one before, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause that nobody asked for.
const LONGEST: Duration = Duration::from_secs(10);
/// What passes sooner is not told.
const TOLD_AT: u32 = 3;

/// Why something was not done.
#[derive(Debug)]
pub enum Trouble<R> {
    /// It may pass: the same again can succeed.
    Later {
        /// What is the matter.
        why: String,
        /// When to try again, where the other side says so.
        after: Option<Duration>,
    },
    /// It was refused for what it asks.
    Refused(R),
    /// Nothing of the kind can succeed.
    Fatal(anyhow::Error),
}

/// The tries at one thing.
pub struct Retry {
    limit: Duration,
    stop: watch::Receiver<bool>,
    began: Option<Instant>,
    pause: Duration,
    failures: u32,
}

impl Retry {
    /// Tries for as long as `limit` after the first failure, and no longer once `stop` is true.
    pub fn new(limit: Duration, stop: watch::Receiver<bool>) -> Self {
        Self { limit, stop, began: None, pause: FIRST, failures: 0 }
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// The time is up, or the work was told to stop.
    pub async fn wait(&mut self, why: &str, after: Option<Duration>) -> anyhow::Result<()> {
        let tried = self.began.get_or_insert_with(Instant::now).elapsed();
        let pause = after.unwrap_or_default().max(jittered(self.pause));
        self.pause = (self.pause * 2).min(LONGEST);
        if tried + pause > self.limit {
            bail!("{why}; given up after {} s of trying again", self.limit.as_secs());
        }
        self.failures += 1;
        if self.failures == TOLD_AT {
            say(&format!("{why}; trying again for up to {} s", self.limit.as_secs()));
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            _ = self.stop.wait_for(|stop| *stop) => bail!("{why}; not tried again, as it was told to stop"),
        }
    }
}

/// Between half of a pause and all of it, so that many who failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(());
    pause.mul_f64(0.5 + random as f64 / u64::MAX as f64 / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_pass_is_given_up_with_its_reason() {
        let (_stop, stopped) = watch::channel(false);
        let mut retry = Retry::new(Duration::from_millis(300), stopped);
        let mut tries = 0;
        let error = loop {
            tries += 1;
            if let Err(error) = retry.wait("nobody answers", None).await {
                break error;
            }
        };
        assert!((2..=5).contains(&tries), "{tries}");
        assert!(error.to_string().starts_with("nobody answers; given up"), "{error}");
        let later = Some(Duration::from_hours(1));
        assert!(retry.wait("nobody answers", later).await.is_err(), "an hour is more than the limit");
    }

    #[tokio::test]
    async fn a_pause_ends_when_the_work_is_told_to_stop() {
        let (stop, stopped) = watch::channel(false);
        let mut retry = Retry::new(Duration::from_hours(2), stopped);
        stop.send(true).unwrap();
        let error = retry.wait("overloaded", Some(Duration::from_hours(1))).await.unwrap_err();
        assert!(error.to_string().contains("told to stop"), "{error}");
    }
}
