//! How much is computed at once, and until when it is worth computing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Cells that are taken together.
const UNIT: usize = 256;

/// Room for the numbers of all requests that are being answered.
#[derive(Debug, Clone)]
pub(super) struct Room {
    units: Arc<Semaphore>,
    all: usize,
}

impl Room {
    pub fn new(cells: usize) -> Self {
        let all = (cells / UNIT).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { units: Arc::new(Semaphore::new(all)), all }
    }

    /// Takes room for so many numbers, all there is for more; none while others hold it.
    pub fn take(&self, cells: usize) -> Option<OwnedSemaphorePermit> {
        let units = cells.div_ceil(UNIT).clamp(1, self.all);
        Arc::clone(&self.units).try_acquire_many_owned(u32::try_from(units).ok()?).ok()
    }
}

/// Nobody waits for the answer any more, or it would come too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unwanted;

/// Asked between two parts of a computation: whether to go on.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    deadline: Option<Instant>,
    left: Arc<AtomicBool>,
}

impl Wanted {
    /// Until the deadline, and for as long as what is returned second lives.
    pub fn until(deadline: Option<Instant>) -> (Self, Caller) {
        let left = Arc::new(AtomicBool::new(false));
        (Self { deadline, left: Arc::clone(&left) }, Caller(left))
    }

    pub fn check(&self) -> Result<(), Unwanted> {
        let late = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        if late || self.left.load(Ordering::Acquire) { Err(Unwanted) } else { Ok(()) }
    }
}

/// Whoever waits; a request that is dropped drops this.
#[derive(Debug)]
pub(crate) struct Caller(Arc<AtomicBool>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn room_is_given_back_and_the_largest_request_fits_alone() {
        let room = Room::new(10 * UNIT);
        let most = room.take(9 * UNIT).unwrap();
        assert!(room.take(2 * UNIT).is_none());
        let little = room.take(1).unwrap();
        assert!(room.take(1).is_none());
        drop((most, little));
        assert!(room.take(usize::MAX).is_some());
    }

    #[test]
    fn nothing_is_wanted_after_the_deadline_or_without_a_caller() {
        let (wanted, caller) = Wanted::until(Some(Instant::now() + Duration::from_mins(1)));
        assert_eq!(wanted.check(), Ok(()));
        drop(caller);
        assert_eq!(wanted.check(), Err(Unwanted));
        let (wanted, _caller) = Wanted::until(Some(Instant::now()));
        assert_eq!(wanted.check(), Err(Unwanted));
        let (wanted, _caller) = Wanted::until(None);
        assert_eq!(wanted.check(), Ok(()));
    }
}
