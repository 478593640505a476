//! What a branch wrote itself, in layers: the tables that take writes, older ones that no longer do, and runs on disk.
//!
//! For every key, a layer in memory holds all versions from some version on, and the runs hold all up to the checkpoint,
//! each run older ones than the run before it. So a read takes the first version that it finds at or below its own, and
//! what a layer shows of a key, those behind it need not show again.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rustc_hash::FxHashMap;

use super::{At, Branch, HistoryRow, Range};
use crate::env::Worker;
use crate::error::Result;
use crate::index::{Indexed, Own};
use crate::log::{Stamp, StateHash};
use crate::retention::Floors;
use crate::run::{RowHash, Run};
use crate::sabotage;
use crate::state::BranchState;
use crate::table::{KeyHash, Table, Version};

/// The runs that hold rows of one branch, newest first.
pub type Runs = Arc<[Arc<Run>]>;

pub struct Data {
    branch: u32,
    pub active: Layer,
    /// Newest first. They are dropped when runs hold all of them and memory is short.
    pub frozen: Vec<Arc<Layer>>,
    pub runs: Runs,
    /// The newest version at the checkpoint, and the state hash after it.
    pub settled: (u64, StateHash),
    /// What indexes hold of this branch, as far as they were asked.
    pub indexed: Indexed,
    /// By keyspace, where retention let go of something: below it only what is pinned can be read.
    pub floors: Floors,
}

/// Tables by keyspace, and the commits that wrote them.
pub struct Layer {
    pub tables: FxHashMap<u32, Table>,
    /// Ascending in version and time: an instant is found by search.
    pub commits: Vec<Stamp>,
    bytes: usize,
    memory: Arc<Memory>,
}

/// The memory of all layers of a database, in bytes.
pub struct Memory {
    bytes: AtomicUsize,
    /// Above it they are written out, and nothing is kept that runs have.
    enough: usize,
    /// What was kept of runs since the keeper was last called for it.
    warmed: AtomicUsize,
    keeper: OnceLock<Arc<dyn Worker>>,
}

impl Memory {
    pub fn new(enough: usize) -> Memory {
        Memory { bytes: AtomicUsize::new(0), enough, warmed: AtomicUsize::new(0), keeper: OnceLock::new() }
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn is_short(&self) -> bool {
        self.bytes() > self.enough
    }

    /// Who lets go of layers that runs have.
    pub fn is_kept_by(&self, keeper: Arc<dyn Worker>) {
        let _ = self.keeper.set(keeper);
    }

    /// Whether there is room for what runs have as well. Where there is none because of such, the keeper is called: once,
    /// as it may have to leave memory short, while somebody holds on to a large branch that is deleted.
    fn has_room(&self) -> bool {
        if self.is_short() && self.warmed.swap(0, Ordering::Relaxed) > 0 {
            self.keeper.get().inspect(|keeper| keeper.wake());
        }
        !self.is_short()
    }
}

impl Layer {
    fn new(memory: &Arc<Memory>) -> Layer {
        Layer { tables: FxHashMap::default(), commits: Vec::new(), bytes: 0, memory: Arc::clone(memory) }
    }

    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.commits.is_empty()
    }

    /// The newest version that it holds of anything.
    pub fn newest(&self) -> u64 {
        self.commits.last().map_or(0, |commit| commit.version)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn add(&mut self, keyspace: u32, key: &[u8], version: &Version<'_>) -> Result<()> {
        self.change(keyspace, |table| table.add(key, version))
    }

    fn change(&mut self, keyspace: u32, change: impl FnOnce(&mut Table) -> Result<()>) -> Result<()> {
        let table = self.tables.entry(keyspace).or_default();
        let before = table.bytes();
        let outcome = change(table);
        let grown = table.bytes() - before;
        self.count(grown);
        outcome
    }

    pub fn commit(&mut self, stamp: Stamp) {
        self.commits.push(stamp);
        self.count(size_of::<Stamp>());
    }

    /// Put other tables in the place of these.
    pub fn replace(&mut self, tables: FxHashMap<u32, Table>) {
        let before: usize = self.tables.values().map(Table::bytes).sum();
        self.tables = tables;
        let after: usize = self.tables.values().map(Table::bytes).sum();
        self.bytes = self.bytes + after - before;
        self.memory.bytes.fetch_add(after, Ordering::Relaxed);
        self.memory.bytes.fetch_sub(before, Ordering::Relaxed);
    }

    fn count(&mut self, grown: usize) {
        if grown > 0 {
            self.bytes += grown;
            self.memory.bytes.fetch_add(grown, Ordering::Relaxed);
        }
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        self.memory.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Data {
    pub fn new(state: &BranchState, memory: &Arc<Memory>, runs: Runs) -> Data {
        Data {
            branch: state.id,
            active: Layer::new(memory),
            frozen: Vec::new(),
            runs,
            settled: (state.version, state.hash),
            indexed: None,
            floors: state.floors.clone(),
        }
    }

    /// About what indexes hold of it in memory.
    pub fn index_bytes(&self) -> usize {
        self.indexed.iter().flat_map(|indexed| indexed.values()).map(Own::memory_bytes).sum()
    }

    /// Runs or tables are others now: what indexes hold is made again when they are asked.
    pub fn outdate_indexes(&mut self) {
        if sabotage::on("I03") {
            return;
        }
        self.indexed.iter_mut().flat_map(|indexed| indexed.values_mut()).for_each(|own| own.is_stale = true);
    }

    pub(super) fn floor(&self, keyspace: u32) -> Option<u64> {
        let found = self.floors.binary_search_by_key(&keyspace, |(keyspace, _)| *keyspace).ok()?;
        Some(self.floors[found].1)
    }

    /// Let nothing more be written to the active tables, and begin others.
    pub fn freeze(&mut self) {
        if !self.active.is_empty() {
            let fresh = Layer::new(&self.active.memory);
            self.frozen.insert(0, Arc::new(std::mem::replace(&mut self.active, fresh)));
        }
    }

    /// The newest version of `key` at or below `at` in memory.
    #[inline]
    pub(super) fn get(&self, keyspace: u32, key: &[u8], hash: KeyHash, at: u64) -> Option<Version<'_>> {
        let found = self.active.tables.get(&keyspace).and_then(|table| table.get(key, hash, at));
        if found.is_some() || self.frozen.is_empty() { found } else { self.get_frozen(keyspace, key, hash, at) }
    }

    fn get_frozen(&self, keyspace: u32, key: &[u8], hash: KeyHash, at: u64) -> Option<Version<'_>> {
        self.frozen.iter().find_map(|layer| layer.tables.get(&keyspace)?.get(key, hash, at))
    }

    /// The tables of a keyspace, newest first.
    pub fn tables(&self, keyspace: u32) -> impl Iterator<Item = &Table> {
        self.layers().filter_map(move |layer| layer.tables.get(&keyspace))
    }

    /// All layers in memory, newest first.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&self.active).chain(self.frozen.iter().map(|layer| &**layer))
    }

    /// The runs that have anything above `version`.
    fn runs_above(&self, version: u64) -> impl Iterator<Item = &Arc<Run>> {
        self.runs.iter().take_while(move |run| run.span(self.branch).is_some_and(|span| span.newest > version))
    }

    /// Hand the changes that commits after `snapshot` made to `key` to `change`, until it breaks.
    pub fn changes_since(
        &self,
        keyspace: u32,
        key: &[u8],
        snapshot: u64,
        mut change: impl FnMut(Version<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let hash = KeyHash::of(key);
        for table in self.tables(keyspace).filter(|table| table.newest() > snapshot) {
            let newer = table.versions(key, hash, u64::MAX).take_while(|version| version.version > snapshot);
            for version in newer {
                if change(version).is_break() {
                    return Ok(());
                }
            }
        }
        for run in self.runs_above(snapshot) {
            let mut newer = run.versions(self.branch, keyspace, key, u64::MAX)?;
            while let Some(row) = newer.row()?.filter(|row| row.version.version > snapshot) {
                if change(row.version).is_break() {
                    return Ok(());
                }
                newer.advance()?;
            }
        }
        Ok(())
    }

    /// Whether any commit after `snapshot` changed `key`.
    pub fn changed_since(&self, keyspace: u32, key: &[u8], snapshot: u64) -> Result<bool> {
        let mut changed = false;
        self.changes_since(keyspace, key, snapshot, |_| {
            changed = true;
            ControlFlow::Break(())
        })?;
        Ok(changed)
    }

    /// Whether any key of a range changed after `snapshot`.
    pub fn range_changed_since(&self, keyspace: u32, range: &Range, snapshot: u64) -> Result<bool> {
        let newer = |table: &Table| {
            let mut rows = table.range(&range.start, range.end.as_deref(), false, u64::MAX);
            rows.any(|(_, version)| version.version > snapshot)
        };
        if self.tables(keyspace).filter(|table| table.newest() > snapshot).any(newer) {
            return Ok(true);
        }
        for run in self.runs_above(snapshot) {
            let mut rows = run.range(self.branch, keyspace, range, false, u64::MAX)?;
            while let Some(row) = rows.info() {
                if row.version > snapshot {
                    return Ok(true);
                }
                rows.advance()?;
            }
        }
        Ok(false)
    }
}

/// What came of looking for a key: the reader is given back where there was nothing to read.
pub(super) enum Sought<R, F> {
    Read(R),
    Missing(F),
}

impl Branch {
    /// Read `key` from the runs, and keep what is the newest of it in memory, so that the next read finds it there.
    #[cold]
    pub(super) fn read_runs<R, F: FnOnce(Option<Version<'_>>) -> R>(
        &self,
        runs: &Runs,
        (keyspace, key, hash): (u32, &[u8], KeyHash),
        at: At,
        read: F,
    ) -> Result<Sought<R, F>> {
        let row_hash = RowHash::of(self.id, keyspace, key);
        let mut read = Some(read);
        for run in runs.iter() {
            let mut newest = None;
            let found = run.get(self.id, keyspace, key, row_hash, at.version, |version| {
                newest = Owned::of(&version);
                let read = read.take().expect("it is called once");
                read(Some(version).filter(|version| self.is_live(version, at)))
            })?;
            if let Some(found) = found {
                let is_newest =
                    sabotage::on("K08") || runs[0].span(self.id).is_some_and(|span| span.newest <= at.version);
                if let Some(newest) = newest.filter(|_| is_newest) {
                    self.warm(runs, keyspace, key, hash, &newest);
                }
                return Ok(Sought::Read(found));
            }
        }
        Ok(Sought::Missing(read.take().expect("nothing was found to call it with")))
    }

    /// Put what was read into the active table, unless others are at it or the key came there meanwhile. It is in a run and
    /// not above the checkpoint, so it is not written out again.
    fn warm(&self, runs: &Runs, keyspace: u32, key: &[u8], hash: KeyHash, newest: &Owned) {
        let Some(mut data) = self.data.try_write() else { return };
        let is_new = || Arc::ptr_eq(&data.runs, runs) && !data.tables(keyspace).any(|table| table.has(key, hash));
        if data.active.memory.has_room() && is_new() {
            let before = data.active.bytes;
            // Where there is no room for it, it is read from the run again.
            let _ = data.active.change(keyspace, |table| table.warm(key, &newest.version()));
            data.active.memory.warmed.fetch_add(data.active.bytes - before, Ordering::Relaxed);
        }
    }

    /// Versions of `key` at or below `at` that this branch wrote itself, until `rows` has `limit`.
    pub(super) fn own_history(
        &self,
        keyspace: u32,
        key: &[u8],
        at: u64,
        limit: usize,
        rows: &mut Vec<HistoryRow>,
    ) -> Result<()> {
        let hash = KeyHash::of(key);
        let data = self.data.read();
        // What one layer shows, those behind it need not.
        let mut below = at;
        for table in data.tables(keyspace) {
            for version in table.versions(key, hash, below).take(limit - rows.len()) {
                below = version.version.saturating_sub(1);
                rows.push(HistoryRow::of(&version));
            }
        }
        let runs = Arc::clone(&data.runs);
        drop(data);
        for run in runs.iter() {
            let below_memory = if sabotage::on("K28") { at } else { below };
            let mut versions = run.versions(self.id, keyspace, key, below_memory)?;
            while let Some(row) = versions.row()?.filter(|_| rows.len() < limit) {
                below = row.version.version.saturating_sub(1);
                rows.push(HistoryRow::of(&row.version));
                versions.advance()?;
            }
        }
        Ok(())
    }
}

/// A version of its own, for what is read often: not of large values.
struct Owned {
    version: u64,
    kind: crate::table::ChangeKind,
    value: Option<Vec<u8>>,
    touched: Vec<u8>,
    expires: u64,
}

const WARM_BYTES_MAX: usize = 4096;

impl Owned {
    fn of(version: &Version<'_>) -> Option<Owned> {
        let Version { version: number, kind, value, touched, expires } = *version;
        let bytes = value.map_or(0, <[u8]>::len) + touched.len();
        let owned = || Owned { version: number, kind, value: value.map(Into::into), touched: touched.into(), expires };
        (bytes <= WARM_BYTES_MAX).then(owned)
    }

    fn version(&self) -> Version<'_> {
        let (value, touched) = (self.value.as_deref(), &self.touched[..]);
        Version { version: self.version, kind: self.kind, value, touched, expires: self.expires }
    }
}
