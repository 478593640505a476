//! A branch: a named line of history over the tables that hold its own writes.
//!
//! A fork holds nothing but its parent and the version it left it at, so it costs the same at any size. A read
//! looks at the branch's own layers, then at the parent's up to that version, and so on to the root.
//!
//! Locks, in the order in which one thread may take them: `line` of one branch, then the log's own, then `data`
//! of a branch, then `data` of its parents. No lock is held while Python runs.
//!
//! Invariants: `head` is published only when the commit is as durable as promised, and never goes back; `data`
//! may hold versions above `head` (they wait for the disk), which no reader sees.

mod changes;
mod commits;
mod layers;
mod pins;
mod scan;
mod wait;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::env::Clock;
use crate::error::{Error, Result};
use crate::log::{Appended, StateHash};
use crate::payload::Seal;
use crate::sabotage;
use crate::state::BranchState;
use crate::table::{ChangeKind, KeyHash, Version};
use crate::value::path::Path;
use layers::Sought;
use pins::Pins;
use wait::Waiters;

pub use changes::{Diff, Difference, How, Kept, State, Written};
pub use commits::{CHUNK, CommitRow, decode_chunk, encode_chunk};
pub use layers::{Data, Layer, Memory, Runs};
pub use pins::{Pin, raise};
pub use scan::{Most, Range, RowBuffer, successor, versions_of};

/// What a read sees: everything up to a version, and of that what has not expired at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    pub version: u64,
    /// Microseconds since 1970. `NOW` asks the clock where something expires, and nowhere else.
    pub time: u64,
    /// Whether a newer version than that would do as well: a read of the head, which may have moved on.
    pub is_latest: bool,
}

/// The time of a read that is not of the past.
pub const NOW: u64 = u64::MAX;

impl At {
    /// All there is, published or not: for the committer of a branch.
    pub fn newest(time: u64) -> At {
        At { version: u64::MAX, time, is_latest: false }
    }

    /// A version as of a time.
    pub fn past(version: u64, time: u64) -> At {
        At { version, time, is_latest: false }
    }

    /// The head, as it was when somebody looked.
    pub fn head(version: u64) -> At {
        At { version, time: NOW, is_latest: true }
    }

    fn limited(self, version: u64) -> At {
        At { version: self.version.min(version), ..self }
    }
}

impl From<u64> for At {
    fn from(version: u64) -> At {
        At::past(version, NOW)
    }
}

pub struct Branch {
    pub id: u32,
    pub name: RwLock<String>,
    pub parent: Option<Fork>,
    /// Where a read from the fork version on goes on, past ancestors whose rows this branch has in a run of its own.
    flat: OnceLock<Fork>,
    pub created: u64,
    pub data: RwLock<Data>,
    pub line: Mutex<Line>,
    pins: Pins,
    /// On the parent, where this left it.
    _fork: Option<Pin>,
    clock: Arc<dyn Clock>,
    head: AtomicU64,
    waiters: Waiters,
    deleted: AtomicBool,
    is_sealed: AtomicBool,
    seal: Mutex<Option<Seal>>,
}

/// What all branches of a database have in common.
#[derive(Clone)]
pub struct Shared {
    pub clock: Arc<dyn Clock>,
    pub memory: Arc<Memory>,
}

/// Where a branch left its parent.
#[derive(Clone)]
pub struct Fork {
    pub branch: Arc<Branch>,
    pub version: u64,
}

/// What only the committer of a branch needs; holding its lock is the right to commit.
#[derive(Default)]
pub struct Line {
    pub hash: StateHash,
    /// The newest version in `data`, published or not.
    pub applied: u64,
    /// Its record in the log, when this process wrote it.
    pub last: Option<Appended>,
    pub streams: FxHashMap<Vec<u8>, StreamHead>,
    /// Keyspaces that this branch's catalogue names.
    pub known: FxHashSet<u32>,
    /// The payload under construction: one buffer, used again.
    pub payload: Vec<u8>,
}

/// The end of an append-only stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHead {
    pub next: u64,
    pub time: u64,
    pub hash: [u8; 32],
}

impl Branch {
    /// A branch as it was at the checkpoint, or a new one that has nothing of its own.
    pub fn new(state: &BranchState, parent: Option<Fork>, flat: Option<Fork>, runs: Runs, shared: &Shared) -> Branch {
        Branch {
            id: state.id,
            name: RwLock::new(state.name.clone()),
            _fork: parent.as_ref().map(|fork| fork.branch.force_pin(fork.version)),
            pins: Pins::default(),
            parent,
            flat: flat.map_or_else(OnceLock::new, OnceLock::from),
            created: state.created,
            data: RwLock::new(Data::new(state, &shared.memory, runs)),
            line: Mutex::new(Line { applied: state.version, hash: state.hash, ..Line::default() }),
            clock: Arc::clone(&shared.clock),
            head: AtomicU64::new(state.version),
            waiters: Waiters::default(),
            deleted: AtomicBool::new(state.is_deleted),
            is_sealed: AtomicBool::new(state.seal.is_some()),
            seal: Mutex::new(state.seal.clone()),
        }
    }

    /// The newest version that readers see.
    #[inline]
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Let readers see everything up to `version`. The log orders commits, so all below are durable too.
    #[inline]
    pub fn publish(&self, version: u64) {
        // In one order with what waiters do: either they see the new head, or they are seen here.
        self.head.fetch_max(version, Ordering::SeqCst);
        self.waiters.wake();
    }

    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    pub fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::SeqCst);
        self.waiters.wake();
    }

    #[inline]
    pub fn is_sealed(&self) -> bool {
        self.is_sealed.load(Ordering::Acquire)
    }

    pub fn seal(&self) -> Option<Seal> {
        self.seal.lock().clone()
    }

    /// Whether the reason of its seal is another one; `None` is that of no seal.
    pub fn is_sealed_otherwise(&self, reason: Option<&str>) -> bool {
        (self.is_sealed() || reason.is_some()) && self.seal.lock().as_ref().map(|seal| &*seal.reason) != reason
    }

    pub fn set_seal(&self, seal: Option<Seal>) {
        let mut held = self.seal.lock();
        self.is_sealed.store(seal.is_some(), Ordering::Release);
        *held = seal;
        drop(held);
        self.waiters.wake();
    }

    /// The error for what its seal does not let happen.
    pub fn protected(&self) -> Error {
        let reason = self.seal().map_or_else(String::new, |seal| seal.reason);
        Error::Protected { branch: self.name.read().clone(), reason }
    }

    /// The time of a read: the clock's where it is of the present.
    pub fn time(&self, at: At) -> u64 {
        if at.time == NOW { self.clock.wall_us() } else { at.time }
    }

    /// Whether a version is there for a read: not a deletion, and not expired.
    #[inline]
    pub fn is_live(&self, version: &Version<'_>, at: At) -> bool {
        version.kind != ChangeKind::Delete && (version.expires == 0 || version.expires > self.time(at))
    }

    /// Call `read` with the newest version of `key` at or below `at` (`None`: never written, deleted, or expired).
    ///
    /// `read` runs under the read lock, so it must be short and must not call back.
    #[inline]
    pub fn read<R>(
        &self,
        keyspace: u32,
        key: &[u8],
        at: impl Into<At>,
        read: impl FnOnce(Option<Version<'_>>) -> R,
    ) -> Result<R> {
        let hash = KeyHash::of(key);
        let (mut branch, mut at, mut read) = (self, at.into(), read);
        loop {
            // Looked at before the runs are: what it passes over is in them then.
            let behind = branch.behind(at);
            let data = branch.data.read();
            if !data.floors.is_empty()
                && let Some(oldest) = branch.trimmed(&data, keyspace, at)
            {
                // What stands in the way of an old head stands above it: it is there to be read.
                if at.is_latest && std::ptr::eq(branch, self) && self.head() > at.version {
                    at.version = self.head();
                    continue;
                }
                return Err(Error::HistoryTrimmed { requested: at.version, oldest });
            }
            if let Some(version) = data.get(keyspace, key, hash, at.version) {
                return Ok(read(Some(version).filter(|version| self.is_live(version, at))));
            }
            if !data.runs.is_empty() {
                let runs = Arc::clone(&data.runs);
                drop(data);
                match branch.read_runs(&runs, (keyspace, key, hash), at, read)? {
                    Sought::Read(found) => return Ok(found),
                    Sought::Missing(back) => read = back,
                }
            }
            match behind {
                Some(next) => (branch, at) = next,
                None => return Ok(read(None)),
            }
        }
    }

    /// Where a read goes on that found nothing here.
    #[inline]
    fn behind(&self, at: At) -> Option<(&Branch, At)> {
        let fork = self.parent.as_ref()?;
        let flat = self.flat.get().filter(|_| at.version >= fork.version);
        let fork = flat.unwrap_or(fork);
        if sabotage::on("K21") {
            return Some((&fork.branch, at));
        }
        Some((&fork.branch, at.limited(fork.version)))
    }

    /// Let reads go past the ancestors up to `flat`, whose rows are in a run of this branch now.
    pub fn set_flat(&self, flat: Fork) {
        let _ = self.flat.set(flat);
    }

    pub fn flat(&self) -> Option<&Fork> {
        self.flat.get()
    }

    /// Fetch what reads of `keys` at the head will need, so that these do not wait for memory one by one.
    pub fn touch<'k>(&self, keyspace: u32, keys: impl Iterator<Item = &'k [u8]>) {
        if let Some(table) = self.data.read().active.tables.get(&keyspace) {
            table.touch(keys);
        }
    }

    /// The value of `key` at `at`, copied.
    pub fn value(&self, keyspace: u32, key: &[u8], at: impl Into<At>) -> Result<Option<Vec<u8>>> {
        self.read(keyspace, key, at, |found| found.and_then(|version| version.value.map(<[u8]>::to_vec)))
    }

    /// Versions of `key` below `before` and at or below `at`, newest first, at most `limit`.
    pub fn history(
        &self,
        keyspace: u32,
        key: &[u8],
        at: impl Into<At>,
        before: u64,
        limit: usize,
    ) -> Result<Vec<HistoryRow>> {
        let mut rows = Vec::new();
        for (branch, at) in self.lineage(at.into().limited(before.saturating_sub(1))) {
            // A flat branch has some rows of its ancestors.
            let below = rows.last().map_or(u64::MAX, |row: &HistoryRow| row.version.saturating_sub(1));
            branch.own_history(keyspace, key, at.version.min(below), limit, &mut rows)?;
        }
        for row in &mut rows {
            row.time = self.time_of(row.version)?;
        }
        Ok(rows)
    }

    /// The end of a stream at version `at`: its last key is `stream` and an 8-byte sequence, its value
    /// `[kind, time, value, hash, ...]`.
    pub fn stream_head(&self, keyspace: u32, stream: &[u8], at: impl Into<At>) -> Result<StreamHead> {
        let empty = StreamHead { next: 0, time: 0, hash: [0; 32] };
        let range = Range::of_prefix(stream);
        let mut last = RowBuffer::default();
        self.scan(keyspace, &range, true, at, &mut last, 1)?;
        Ok(last.rows().next().and_then(|(key, value)| stream_head_of(key, value)).unwrap_or(empty))
    }

    /// The branches that a read asks, in this order, each with what of it shows.
    pub fn sources(&self, at: At) -> Vec<(&Branch, At)> {
        let mut sources = vec![(self, at)];
        let mut next = self.behind(at);
        while let Some((branch, at)) = next {
            sources.push((branch, at));
            next = branch.behind(at);
        }
        sources
    }

    /// This branch and its ancestors, each with what of it shows.
    pub fn lineage(&self, at: At) -> Vec<(&Branch, At)> {
        let mut lineage = vec![(self, at)];
        let (mut branch, mut at) = (self, at);
        while let Some(fork) = &branch.parent {
            (branch, at) = (&fork.branch, at.limited(fork.version));
            lineage.push((branch, at));
        }
        lineage
    }
}

fn stream_head_of(key: &[u8], value: &[u8]) -> Option<StreamHead> {
    use crate::value::read::{Reader, Token};
    let sequence = u64::from_be_bytes(key[key.len().checked_sub(8)?..].try_into().ok()?);
    let mut reader = Reader::new(value);
    let Token::List(_) = reader.next().ok()? else { return None };
    reader.skip_value().ok()?;
    let Token::Int(time) = reader.next().ok()? else { return None };
    reader.skip_value().ok()?;
    let Token::Bytes(hash) = reader.next().ok()? else { return None };
    Some(StreamHead { next: sequence + 1, time: time as u64, hash: hash.try_into().ok()? })
}

pub struct HistoryRow {
    pub version: u64,
    pub time: u64,
    pub value: Option<Vec<u8>>,
    /// 0: never.
    pub expires: u64,
}

impl HistoryRow {
    /// Its time is to be looked up.
    fn of(version: &Version<'_>) -> HistoryRow {
        let (version, value, expires) = (version.version, version.value.map(<[u8]>::to_vec), version.expires);
        HistoryRow { version, time: 0, value, expires }
    }
}

/// The paths that a patch touched, as a version keeps them.
pub fn encode_touched(paths: &[Path]) -> Vec<u8> {
    let mut out = Vec::new();
    for path in paths {
        path.encode(&mut out);
    }
    out
}

pub fn decode_touched(mut bytes: &[u8]) -> Vec<Path> {
    let mut paths = Vec::new();
    while !bytes.is_empty() {
        let (path, used) = Path::decode(bytes).expect("we wrote the paths");
        paths.push(path);
        bytes = &bytes[used..];
    }
    paths
}
