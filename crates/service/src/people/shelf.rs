//! Who can have no state, bounded by its bytes.
//!
//! An audience looks thousands of people up at a time, under one lock; a cache that notes every read in a queue takes longer
//! over that than the rewards themselves.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{
        PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use foldhash::fast::RandomState;

/// Entries by key. What was not read since its last turn goes first.
#[derive(Debug)]
pub(super) struct Shelf<K, V> {
    entries: RwLock<Entries<K, V>>,
    max_bytes: u64,
}

#[derive(Debug)]
pub(super) struct Entries<K, V> {
    /// By a hash that is quicker than the standard one and, as that, seeded anew in every process: clients name the users.
    slots: HashMap<K, Slot<V>, RandomState>,
    /// Every key once; the next to go stands first.
    turns: VecDeque<K>,
    bytes: u64,
}

#[derive(Debug)]
struct Slot<V> {
    value: V,
    bytes: u64,
    read: AtomicBool,
}

impl<K: Eq + Hash + Clone, V> Shelf<K, V> {
    pub fn new(max_bytes: u64) -> Self {
        let entries = Entries { slots: HashMap::default(), turns: VecDeque::new(), bytes: 0 };
        Self { entries: RwLock::new(entries), max_bytes }
    }

    /// For any number of reads; nothing is put there meanwhile.
    pub fn read(&self) -> RwLockReadGuard<'_, Entries<K, V>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an entry of so many bytes there, and takes others away until all fit. `still` is asked once nobody else can
    /// change what is there; nothing is put there where it says no.
    pub fn insert_if(&self, still: impl FnOnce() -> bool, key: K, value: V, bytes: u64) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if bytes > self.max_bytes || !still() {
            return;
        }
        let slot = Slot { value, bytes, read: AtomicBool::new(false) };
        entries.bytes += bytes;
        match entries.slots.insert(key.clone(), slot) {
            Some(before) => entries.bytes -= before.bytes,
            None => entries.turns.push_back(key),
        }
        while entries.bytes > self.max_bytes {
            let Some(key) = entries.turns.pop_front() else { break };
            // Ends: a second turn finds nothing read.
            if entries.slots.get(&key).is_some_and(|slot| slot.read.swap(false, Ordering::Relaxed)) {
                entries.turns.push_back(key);
            } else if let Some(slot) = entries.slots.remove(&key) {
                entries.bytes -= slot.bytes;
            }
        }
    }

    /// Takes away what a test refuses.
    pub fn retain(&self, keep: impl Fn(&K) -> bool) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let Entries { slots, turns, bytes } = &mut *entries;
        slots.retain(|key, slot| {
            let kept = keep(key);
            *bytes -= if kept { 0 } else { slot.bytes };
            kept
        });
        turns.retain(keep);
    }
}

impl<K: Eq + Hash, V> Entries<K, V> {
    pub fn get(&self, key: &K) -> Option<&V> {
        let slot = self.slots.get(key)?;
        slot.read.store(true, Ordering::Relaxed);
        Some(&slot.value)
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.slots.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_within_its_bytes_and_lets_go_of_what_is_not_read() {
        let shelf = Shelf::new(100);
        for key in 0..10 {
            shelf.insert_if(|| true, key, key, 10);
        }
        assert_eq!(shelf.read().get(&0), Some(&0));
        for key in 10..15 {
            shelf.insert_if(|| true, key, key, 10);
        }
        let kept: Vec<i32> = (0..15).filter(|key| shelf.read().slots.contains_key(key)).collect();
        assert_eq!(kept, [0, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
        assert_eq!((shelf.read().bytes, shelf.read().turns.len()), (100, 10));
    }

    #[test]
    fn an_entry_is_replaced_and_one_that_cannot_fit_is_not_kept() {
        let shelf = Shelf::new(100);
        shelf.insert_if(|| true, "a", 1, 60);
        shelf.insert_if(|| true, "a", 2, 90);
        assert_eq!((shelf.read().get(&"a"), shelf.read().bytes), (Some(&2), 90));
        shelf.insert_if(|| true, "b", 3, 101);
        shelf.insert_if(|| false, "c", 4, 1);
        let read = shelf.read();
        assert_eq!(["a", "b", "c"].map(|key| read.get(&key).copied()), [Some(2), None, None]);
    }

    #[test]
    fn what_is_refused_is_gone_with_its_bytes_and_its_turn() {
        let shelf = Shelf::new(100);
        for key in 0..6 {
            shelf.insert_if(|| true, key, key, 10);
        }
        shelf.retain(|key| key % 3 != 0);
        let read = shelf.read();
        assert_eq!((read.bytes, read.turns.len(), read.slots.len()), (40, 4, 4));
        assert_eq!((read.get(&3), read.get(&4)), (None, Some(&4)));
    }
}
