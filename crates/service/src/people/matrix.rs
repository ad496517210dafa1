//! States of many people as matrices: a matrix for each model of each tenant, a row a person, in blocks of rows.
//!
//! An audience is read in the order of the rows, so that it costs one pass over memory. A block does not change while somebody
//! reads it: whoever writes a row of one that is held elsewhere writes it into a copy. So nobody sees half a row, and the lock
//! is held while blocks are handed out, not while they are read.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use foldhash::fast::RandomState;
use polyreward_domain::{StateVersion, TenantId, UserId};
use polyreward_heads::{StateView, UserState};
use polyreward_storage::ModelKey;

/// Rows of a block at most: what one learner may have to copy, and what is let go of at once.
const MOST_ROWS: usize = 256;
/// Bytes of a block at most, unless a single row is larger.
const BLOCK_BYTES: usize = 64 << 10;
/// Blocks that fit into the memory there is, at least, unless single rows do not.
const LEAST_BLOCKS: usize = 16;
/// Rows that a block has room for at first: most tenants are small.
const FIRST_ROWS: usize = 4;
/// Whose row it is, the version, and the place in the index.
const ROW_BYTES: usize = 160;

/// Names a matrix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct MatrixKey {
    pub model: ModelKey,
    pub tenant: Arc<TenantId>,
}

/// Whose row it is.
#[derive(Debug, Clone)]
struct Owner {
    user_id: Arc<UserId>,
    version: StateVersion,
    examples: usize,
}

/// Lengths of a mean and a spread, the same in all rows of a matrix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Layout {
    mean: usize,
    spread: usize,
}

impl Layout {
    fn of(state: StateView<'_>) -> Self {
        let (mean, spread) = state.parts();
        Self { mean: mean.len(), spread: spread.len() }
    }

    fn row_bytes(self) -> usize {
        (self.mean + self.spread) * size_of::<f32>() + ROW_BYTES
    }
}

/// Some rows of a matrix: means side by side, `[rows, S]`, and spreads side by side.
#[derive(Debug, Clone, Default)]
pub(crate) struct Block {
    layout: Layout,
    means: Vec<f32>,
    spreads: Vec<f32>,
    /// Of each row; nobody's is zeros.
    owners: Vec<Option<Owner>>,
}

impl Block {
    fn new(layout: Layout) -> Self {
        Self { layout, ..Self::default() }
    }

    fn rows(&self) -> usize {
        self.owners.len()
    }

    fn view(&self, row: u16) -> StateView<'_> {
        let (Layout { mean, spread }, row) = (self.layout, usize::from(row));
        let examples = self.owners[row].as_ref().map_or(0, |owner| owner.examples);
        StateView::from_parts(
            &self.means[row * mean..(row + 1) * mean],
            &self.spreads[row * spread..(row + 1) * spread],
            examples,
        )
        .expect("the lengths are those of a state")
    }

    /// Adds a row of nobody's; room grows to twice what it was, up to `most` rows.
    fn add_row(&mut self, most: usize) -> u16 {
        let rows = self.rows();
        if rows == self.owners.capacity() {
            let more = rows.max(FIRST_ROWS).min(most - rows);
            self.owners.reserve_exact(more);
            self.means.reserve_exact(more * self.layout.mean);
            self.spreads.reserve_exact(more * self.layout.spread);
        }
        self.owners.push(None);
        self.means.resize((rows + 1) * self.layout.mean, 0.0);
        self.spreads.resize((rows + 1) * self.layout.spread, 0.0);
        u16::try_from(rows).expect("a block has few rows")
    }

    fn write(&mut self, row: u16, owner: Owner, state: StateView<'_>) {
        let (Layout { mean, spread }, row) = (self.layout, usize::from(row));
        let (means, spreads) = state.parts();
        self.means[row * mean..(row + 1) * mean].copy_from_slice(means);
        self.spreads[row * spread..(row + 1) * spread].copy_from_slice(spreads);
        self.owners[row] = Some(owner);
    }

    fn clear(&mut self, row: u16) {
        let (Layout { mean, spread }, row) = (self.layout, usize::from(row));
        self.means[row * mean..(row + 1) * mean].fill(0.0);
        self.spreads[row * spread..(row + 1) * spread].fill(0.0);
        self.owners[row] = None;
    }
}

/// What a model believes of one person: on its own, or a row of many people's.
#[derive(Debug, Clone)]
pub struct PersonState(Lies);

#[derive(Debug, Clone)]
enum Lies {
    Alone(Arc<UserState>),
    In(Arc<Block>, u16),
}

impl PersonState {
    /// The state, read where it lies.
    pub fn view(&self) -> StateView<'_> {
        match &self.0 {
            Lies::Alone(state) => state.view(),
            Lies::In(block, row) => block.view(*row),
        }
    }
}

impl From<Arc<UserState>> for PersonState {
    fn from(state: Arc<UserState>) -> Self {
        Self(Lies::Alone(state))
    }
}

/// Which rows of a block.
#[derive(Debug, Clone)]
enum Which {
    /// The first so many, which are all.
    All(usize),
    /// These, in order.
    These(Arc<[u16]>),
}

impl Which {
    fn len(&self) -> usize {
        match self {
            Self::All(rows) => *rows,
            Self::These(rows) => rows.len(),
        }
    }
}

/// Rows of one block, each another person's, as they were when they were handed out.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    block: Arc<Block>,
    which: Which,
}

impl Rows {
    pub fn len(&self) -> usize {
        self.which.len()
    }

    /// The states from one on, by position among the rows.
    pub fn views(&self, from: usize) -> impl Iterator<Item = StateView<'_>> {
        (from..self.len()).map(|at| {
            let row = match &self.which {
                Which::All(_) => u16::try_from(at).expect("a block has few rows"),
                Which::These(rows) => rows[at],
            };
            self.block.view(row)
        })
    }
}

/// Where many people's states lie, in the order of the rows: good for as long as none of the blocks is changed.
#[derive(Debug, Default)]
pub(super) struct Roster(Vec<Piece>);

#[derive(Debug)]
struct Piece {
    block: usize,
    stamp: u64,
    which: Which,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    block: usize,
    row: u16,
}

#[derive(Debug)]
struct Slot {
    block: Arc<Block>,
    /// Another one after every change, and of no other block.
    stamp: u64,
    /// What the block has room for, whether or not it is filled.
    bytes: u64,
    read: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Matrix {
    layout: Layout,
    rows_in_block: usize,
    /// By a hash that is quicker than the standard one and, as that, seeded anew in every process: clients name the users.
    index: HashMap<Arc<UserId>, Place, RandomState>,
    slots: Vec<Slot>,
    /// Rows of people who were erased.
    free: Vec<Place>,
    /// Slots whose block was let go of.
    vacant: Vec<usize>,
    /// The block that has room for further rows.
    open: Option<usize>,
}

impl Matrix {
    fn new(layout: Layout, max_bytes: u64) -> Self {
        let block = usize::try_from(max_bytes).unwrap_or(usize::MAX) / LEAST_BLOCKS;
        Self {
            layout,
            rows_in_block: (block.min(BLOCK_BYTES) / layout.row_bytes()).clamp(1, MOST_ROWS),
            index: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            vacant: Vec::new(),
            open: None,
        }
    }

    /// Where somebody's state lies, if it is of this version.
    pub fn find(&self, user_id: &UserId, version: StateVersion) -> Option<Place> {
        let place = *self.index.get(user_id)?;
        let owner = self.slots[place.block].block.owners[usize::from(place.row)].as_ref();
        owner.is_some_and(|owner| owner.version == version).then_some(place)
    }

    /// The state that lies there.
    pub fn state(&self, place: Place) -> PersonState {
        let slot = &self.slots[place.block];
        slot.read.store(true, Ordering::Relaxed);
        PersonState(Lies::In(Arc::clone(&slot.block), place.row))
    }

    /// Different people's places as the order in which to read them.
    pub fn roster(&self, places: impl IntoIterator<Item = Place>) -> Roster {
        let mut rows: Vec<Vec<u16>> = vec![Vec::new(); self.slots.len()];
        for place in places {
            rows[place.block].push(place.row);
        }
        let asked = rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty());
        let piece = |(block, mut rows): (usize, Vec<u16>)| {
            let slot: &Slot = &self.slots[block];
            let which = if rows.len() == slot.block.rows() {
                Which::All(rows.len())
            } else {
                rows.sort_unstable();
                Which::These(rows.into())
            };
            Piece { block, stamp: slot.stamp, which }
        };
        Roster(asked.map(piece).collect())
    }

    /// The rows of one block, unless it was changed since.
    fn rows(&self, piece: &Piece) -> Option<Rows> {
        let slot = self.slots.get(piece.block).filter(|slot| slot.stamp == piece.stamp)?;
        slot.read.store(true, Ordering::Relaxed);
        Some(Rows { block: Arc::clone(&slot.block), which: piece.which.clone() })
    }

    /// A row for somebody who has none, and whether it is the first of a block.
    fn place(&mut self) -> (Place, bool) {
        if let Some(place) = self.free.pop() {
            return (place, false);
        }
        let open = self.open.filter(|open| self.slots[*open].block.rows() < self.rows_in_block);
        let at = open.unwrap_or_else(|| {
            let block = Arc::new(Block::new(self.layout));
            let slot = Slot { block, stamp: 0, bytes: 0, read: AtomicBool::new(false) };
            if let Some(at) = self.vacant.pop() {
                self.slots[at] = slot;
                return at;
            }
            self.slots.push(slot);
            self.slots.len() - 1
        });
        self.open = Some(at);
        let row = Arc::make_mut(&mut self.slots[at].block).add_row(self.rows_in_block);
        (Place { block: at, row }, open.is_none())
    }

    /// Lets go of a block; the bytes it had room for.
    fn let_go(&mut self, at: usize, stamp: u64) -> u64 {
        let none = Slot { block: Arc::default(), stamp, bytes: 0, read: AtomicBool::new(false) };
        let Slot { block, bytes, .. } = std::mem::replace(&mut self.slots[at], none);
        for owner in block.owners.iter().flatten() {
            self.index.remove(&owner.user_id);
        }
        self.free.retain(|place| place.block != at);
        self.vacant.push(at);
        self.open = self.open.filter(|open| *open != at);
        bytes
    }

    /// Makes somebody's row nobody's.
    fn erase(&mut self, user_id: &UserId, stamp: u64) {
        let Some(place) = self.index.remove(user_id) else { return };
        let slot = &mut self.slots[place.block];
        Arc::make_mut(&mut slot.block).clear(place.row);
        slot.stamp = stamp;
        self.free.push(place);
    }
}

#[derive(Debug, Default)]
pub(super) struct Contents {
    matrices: HashMap<MatrixKey, Matrix, RandomState>,
    /// Every block once; the next to go stands first.
    turns: VecDeque<(MatrixKey, usize)>,
    bytes: u64,
    stamp: u64,
}

impl Contents {
    pub fn matrix(&self, key: &MatrixKey) -> Option<&Matrix> {
        self.matrices.get(key)
    }

    /// The rows of a roster, unless one of its blocks was changed since.
    pub fn rows(&self, key: &MatrixKey, Roster(pieces): &Roster) -> Option<Vec<Rows>> {
        let matrix = self.matrices.get(key);
        pieces.iter().map(|piece| matrix?.rows(piece)).collect()
    }

    pub fn remembers(&self, tenant: &TenantId, user_id: &UserId) -> bool {
        self.matrices.iter().any(|(key, matrix)| *key.tenant == *tenant && matrix.index.contains_key(user_id))
    }

    /// Lets go of blocks until the others fit: of what was not read since its last turn, and was not written just now.
    fn fit(&mut self, max_bytes: u64, written: &(MatrixKey, usize)) {
        while self.bytes > max_bytes {
            let Some(turn) = self.turns.pop_front() else { break };
            let (key, at) = &turn;
            let matrix =
                self.matrices.get_mut(key).expect("a matrix has blocks for as long as they have turns");
            // Ends: a second turn finds nothing read, and one block alone fits.
            if matrix.slots[*at].read.swap(false, Ordering::Relaxed) || turn == *written {
                self.turns.push_back(turn);
                continue;
            }
            self.stamp += 1;
            self.bytes -= matrix.let_go(*at, self.stamp);
            if matrix.index.is_empty() && matrix.vacant.len() == matrix.slots.len() {
                self.matrices.remove(key);
            }
        }
    }
}

/// All states in memory, bounded by their bytes.
#[derive(Debug)]
pub(super) struct Matrices {
    kept: RwLock<Contents>,
    max_bytes: u64,
}

impl Matrices {
    pub fn new(max_bytes: u64) -> Self {
        Self { kept: RwLock::default(), max_bytes }
    }

    /// For any number of look-ups; nothing is written meanwhile.
    pub fn read(&self) -> RwLockReadGuard<'_, Contents> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes somebody's row, in place of what they had, and lets go of others until all fit. `still` is asked once nobody else
    /// can change what is there; nothing is written where it says no.
    pub fn write_if(
        &self,
        still: impl FnOnce() -> bool,
        key: MatrixKey,
        user_id: &Arc<UserId>,
        version: StateVersion,
        state: StateView<'_>,
    ) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let layout = Layout::of(state);
        if layout.row_bytes() as u64 > self.max_bytes || !still() {
            return;
        }
        let Contents { matrices, turns, bytes, stamp } = &mut *kept;
        *stamp += 1;
        // States of one model are of one layout; were they not, the rows of another could be derived again.
        if matrices.get(&key).is_some_and(|matrix| matrix.layout != layout) {
            let before = matrices.remove(&key).expect("it was found");
            *bytes -= before.slots.iter().map(|slot| slot.bytes).sum::<u64>();
            turns.retain(|(other, _)| *other != key);
        }
        let matrix = matrices.entry(key.clone()).or_insert_with(|| Matrix::new(layout, self.max_bytes));
        let place = matrix.index.get(user_id).copied().unwrap_or_else(|| {
            let (place, is_first) = matrix.place();
            matrix.index.insert(Arc::clone(user_id), place);
            if is_first {
                turns.push_back((key.clone(), place.block));
            }
            place
        });
        let written = (key, place.block);
        let slot = &mut matrix.slots[place.block];
        let block = Arc::make_mut(&mut slot.block);
        let owner = Owner { user_id: Arc::clone(user_id), version, examples: state.examples() };
        block.write(place.row, owner, state);
        let room = (block.owners.capacity() * layout.row_bytes()) as u64;
        *bytes = *bytes - slot.bytes + room;
        (slot.stamp, slot.bytes) = (*stamp, room);
        kept.fit(self.max_bytes, &written);
    }

    /// Erases the rows of one person.
    pub fn erase(&self, tenant: &TenantId, user_id: &UserId) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let Contents { matrices, stamp, .. } = &mut *kept;
        for (_, matrix) in matrices.iter_mut().filter(|(key, _)| *key.tenant == *tenant) {
            *stamp += 1;
            matrix.erase(user_id, *stamp);
        }
    }

    /// Erases the rows of whoever a test names; nobody waits for the test.
    pub fn erase_if(&self, is_erased: impl Fn(&TenantId, &UserId) -> bool) {
        let named: Vec<(Arc<TenantId>, Arc<UserId>)> = {
            let kept = self.read();
            let named = |(key, matrix): (&MatrixKey, &Matrix)| {
                let of_matrix = matrix.index.keys().filter(|user_id| is_erased(&key.tenant, user_id));
                of_matrix.map(|user_id| (Arc::clone(&key.tenant), Arc::clone(user_id))).collect::<Vec<_>>()
            };
            kept.matrices.iter().flat_map(named).collect()
        };
        for (tenant, user_id) in named {
            self.erase(&tenant, &user_id);
        }
    }

    /// Lets go of everything.
    pub fn clear(&self) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let stamp = kept.stamp;
        *kept = Contents { stamp, ..Contents::default() };
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicU64, thread};

    use ndarray::Array1;
    use proptest::prelude::*;

    use super::*;
    use crate::score::task::Panel;

    const SIZE: usize = 3;

    fn key(model: u8) -> MatrixKey {
        MatrixKey { model: [model; 32], tenant: Arc::new(TenantId::default()) }
    }

    fn user(number: usize) -> Arc<UserId> {
        Arc::new(format!("person-{number}").parse().unwrap())
    }

    /// A state every number of which is the same, so that half a row is seen.
    fn state(value: f32) -> UserState {
        let numbers = Array1::from_elem(SIZE, value);
        UserState::independent(&numbers, &numbers, 1).unwrap()
    }

    fn version(number: u64) -> StateVersion {
        StateVersion::from_number(number)
    }

    fn put(matrices: &Matrices, key: &MatrixKey, number: usize, value: u16) {
        let state = state(f32::from(value));
        matrices.write_if(|| true, key.clone(), &user(number), version(value.into()), state.view());
    }

    fn found(matrices: &Matrices, key: &MatrixKey, number: usize, value: u16) -> bool {
        let kept = matrices.read();
        let Some(matrix) = kept.matrix(key) else { return false };
        let Some(place) = matrix.find(&user(number), version(value.into())) else { return false };
        assert_eq!(matrix.state(place).view(), state(value.into()).view());
        true
    }

    fn row_bytes() -> u64 {
        Layout::of(state(0.0).view()).row_bytes() as u64
    }

    /// Numbers of the people who are found, in the order of the rows.
    fn all(matrices: &Matrices, key: &MatrixKey, people: usize, value: u16) -> Vec<Rows> {
        let kept = matrices.read();
        let matrix = kept.matrix(key).unwrap();
        let roster =
            matrix.roster((0..people).filter_map(|at| matrix.find(&user(at), version(value.into()))));
        kept.rows(key, &roster).unwrap()
    }

    #[test]
    fn a_row_is_of_one_version_and_is_written_in_place() {
        let matrices = Matrices::new(1 << 20);
        put(&matrices, &key(1), 1, 7);
        assert!(found(&matrices, &key(1), 1, 7) && !found(&matrices, &key(1), 1, 8));
        assert!(!found(&matrices, &key(2), 1, 7) && !found(&matrices, &key(1), 2, 7));
        let before = matrices.read().bytes;
        put(&matrices, &key(1), 1, 8);
        assert!(found(&matrices, &key(1), 1, 8) && !found(&matrices, &key(1), 1, 7));
        assert_eq!(matrices.read().bytes, before);
        matrices.write_if(|| false, key(1), &user(2), version(9), state(9.0).view());
        assert!(!found(&matrices, &key(1), 2, 9));
    }

    #[test]
    fn it_keeps_within_its_bytes_and_lets_go_of_what_is_not_read() {
        let max_bytes = 64 * row_bytes();
        let matrices = Matrices::new(max_bytes);
        for number in 0..1000 {
            put(&matrices, &key(1), number, 5);
            assert!(matrices.read().bytes <= max_bytes);
            // Somebody who is asked for all the time stays, with their block.
            assert!(found(&matrices, &key(1), 0, 5), "{number}");
        }
        assert!(found(&matrices, &key(1), 999, 5));
        let held = (0..1000).filter(|number| found(&matrices, &key(1), *number, 5)).count();
        assert!((32..=64).contains(&held), "{held}");
        let kept = matrices.read();
        assert_eq!(kept.matrix(&key(1)).unwrap().index.len(), held);
        assert_eq!(
            kept.turns.len(),
            kept.matrix(&key(1)).unwrap().slots.iter().filter(|slot| slot.bytes > 0).count()
        );
        drop(kept);
        // A row that cannot fit is not kept, and lets nobody go.
        let small = Matrices::new(row_bytes() - 1);
        put(&small, &key(1), 1, 5);
        assert!(!found(&small, &key(1), 1, 5));
    }

    #[test]
    fn a_matrix_that_nobody_reads_makes_room_for_others() {
        let matrices = Matrices::new(64 * row_bytes());
        put(&matrices, &key(1), 1, 5);
        for number in 0..200 {
            put(&matrices, &key(2), number, 5);
        }
        assert!(matrices.read().matrix(&key(1)).is_none());
    }

    #[test]
    fn who_is_erased_leaves_zeros_and_a_row_for_the_next() {
        let matrices = Matrices::new(1 << 20);
        for number in 0..10 {
            put(&matrices, &key(1), number, 5);
            put(&matrices, &key(2), number, 5);
        }
        let before = all(&matrices, &key(1), 10, 5);
        matrices.erase(&TenantId::default(), &user(3));
        matrices.erase(&"another".parse().unwrap(), &user(4));
        matrices.erase_if(|_, user_id| *user_id == *user(5));
        for model in [1, 2] {
            let there = (0..10).filter(|number| found(&matrices, &key(model), *number, 5)).count();
            assert_eq!(there, 8);
        }
        assert!(!matrices.read().remembers(&TenantId::default(), &user(3)));
        {
            let kept = matrices.read();
            let block = &kept.matrix(&key(1)).unwrap().slots[0].block;
            let zeros = state(0.0).view().parts().0.to_vec();
            assert_eq!([3, 5].map(|row| block.view(row).parts().0.to_vec()), [zeros.clone(), zeros]);
        }
        // Whoever read before goes on with what there was.
        assert!(before.iter().flat_map(|rows| rows.views(0)).all(|view| view == state(5.0).view()));
        let bytes = matrices.read().bytes;
        put(&matrices, &key(1), 10, 5);
        put(&matrices, &key(1), 11, 5);
        assert!(matrices.read().bytes <= bytes);
        assert_eq!(all(&matrices, &key(1), 12, 5).iter().map(Rows::len).sum::<usize>(), 10);
        matrices.clear();
        assert_eq!((matrices.read().bytes, matrices.read().turns.len()), (0, 0));
    }

    #[test]
    fn a_roster_is_good_until_one_of_its_blocks_is_changed() {
        let matrices = Matrices::new(64 << 20);
        for number in 0..2000 {
            put(&matrices, &key(1), number, 5);
        }
        let (of_all, of_some) = {
            let kept = matrices.read();
            let matrix = kept.matrix(&key(1)).unwrap();
            let place = |number: usize| matrix.find(&user(number), version(5)).unwrap();
            (matrix.roster((0..2000).rev().map(place)), matrix.roster([7, 3, 1999].map(place)))
        };
        let lens = |roster: &Roster| -> Option<usize> {
            let kept = matrices.read();
            let rows = kept.rows(&key(1), roster)?;
            assert!(rows.iter().all(|rows| rows.views(0).count() == rows.len()));
            Some(rows.iter().map(Rows::len).sum())
        };
        assert_eq!((lens(&of_all), lens(&of_some)), (Some(2000), Some(3)));
        // Somebody in a block of one of them alone.
        put(&matrices, &key(1), 1000, 6);
        assert_eq!((lens(&of_all), lens(&of_some)), (None, Some(3)));
        put(&matrices, &key(1), 4, 6);
        assert_eq!(lens(&of_some), None);
    }

    proptest! {
        /// Against a plain map that forgets nothing.
        #[test]
        fn what_is_found_is_what_was_written_last(
            steps in prop::collection::vec((0..3_u8, 0..40_usize, 1..9_u16), 1..300),
            rows in 1..80_u64,
        ) {
            let matrices = Matrices::new(rows * row_bytes());
            let mut written = HashMap::new();
            for (what, number, value) in steps {
                if what == 0 {
                    matrices.erase(&TenantId::default(), &user(number));
                    written.retain(|(_, other), _| *other != number);
                } else {
                    put(&matrices, &key(what), number, value);
                    written.insert((what, number), value);
                    prop_assert!(found(&matrices, &key(what), number, value));
                }
                let kept = matrices.read();
                prop_assert!(kept.bytes <= rows * row_bytes());
                let of = |matrix: &Matrix| matrix.slots.iter().map(|slot| slot.bytes).sum::<u64>();
                prop_assert_eq!(kept.bytes, kept.matrices.values().map(of).sum::<u64>());
                for matrix in kept.matrices.values() {
                    let held: usize = matrix.slots.iter().map(|slot| slot.block.owners.iter().flatten().count()).sum();
                    let all: usize = matrix.slots.iter().map(|slot| slot.block.rows()).sum();
                    prop_assert_eq!((held, all - held), (matrix.index.len(), matrix.free.len()));
                    for (user_id, place) in &matrix.index {
                        let owner = matrix.slots[place.block].block.owners[usize::from(place.row)].as_ref();
                        prop_assert!(owner.is_some_and(|owner| owner.user_id == *user_id));
                    }
                }
            }
            for (model, number, value) in (1..3).flat_map(|m| (0..40).flat_map(move |n| (1..9).map(move |v| (m, n, v)))) {
                let is_last = written.get(&(model, number)) == Some(&value);
                prop_assert!(is_last || !found(&matrices, &key(model), number, value));
            }
        }
    }

    #[test]
    fn a_panel_of_rows_reads_everybody_once_whatever_its_parts() {
        let matrices = Matrices::new(64 << 20);
        let people = 900;
        for number in 0..people {
            put(&matrices, &key(1), number, u16::try_from(number).unwrap() + 1);
        }
        let asked = |number: &usize| !number.is_multiple_of(7) || *number > 600;
        let rows = {
            let kept = matrices.read();
            let matrix = kept.matrix(&key(1)).unwrap();
            let place = |number: usize| matrix.find(&user(number), version(number as u64 + 1)).unwrap();
            let roster = matrix.roster((0..people).rev().filter(asked).map(place));
            kept.rows(&key(1), &roster).unwrap()
        };
        let (alone, population) = (PersonState::from(Arc::new(state(5000.0))), state(0.0));
        let panel = Panel::audience(rows, vec![None, Some(alone), None]);
        let mut expected: Vec<f32> = (0..people).filter(asked).map(|number| number as f32 + 1.0).collect();
        expected.extend([0.0, 5000.0]);
        for at_once in [1, 5, 256, 10_000] {
            let parts =
                (0..panel.len()).step_by(at_once).map(|first| first..panel.len().min(first + at_once));
            let read: Vec<f32> = parts
                .flat_map(|part| panel.views(part, population.view()))
                .map(|view| {
                    assert!(view.parts().1.iter().all(|variance| *variance == view.mean()[0]));
                    view.mean()[0]
                })
                .collect();
            assert_eq!(read, expected, "{at_once}");
        }
    }

    #[test]
    fn rows_are_whole_while_others_are_written() {
        const PEOPLE: usize = 700;
        const WRITES: u16 = 4000;
        let matrices = Matrices::new(64 << 20);
        for number in 0..PEOPLE {
            put(&matrices, &key(1), number, 1);
        }
        let done = AtomicU64::new(0);
        thread::scope(|scope| {
            for writer in 0..2 {
                let (matrices, done) = (&matrices, &done);
                scope.spawn(move || {
                    for turn in 1..=WRITES {
                        put(matrices, &key(1), (usize::from(turn) * 37 + writer) % PEOPLE, turn);
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                });
            }
            for _ in 0..2 {
                let (matrices, done) = (&matrices, &done);
                scope.spawn(move || {
                    let mut last = false;
                    while !last {
                        last = done.load(Ordering::SeqCst) == 2;
                        let rows = {
                            let kept = matrices.read();
                            let matrix = kept.matrix(&key(1)).unwrap();
                            let roster = matrix.roster(matrix.index.values().copied());
                            kept.rows(&key(1), &roster).unwrap()
                        };
                        let mut people = 0;
                        for view in rows.iter().flat_map(|rows| rows.views(0)) {
                            let (mean, spread) = view.parts();
                            assert!(mean[0] > 0.0 && mean.iter().chain(spread).all(|x| *x == mean[0]));
                            people += 1;
                        }
                        assert_eq!(people, PEOPLE);
                    }
                });
            }
        });
    }
}
