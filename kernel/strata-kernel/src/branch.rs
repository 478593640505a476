//! A branch: a named line of history over the tables that hold its own writes.
//!
//! A fork holds nothing but its parent and the version it left it at, so it costs the same at any size. A read
//! looks at the branch's own tables, then at the parent's up to that version, and so on to the root.
//!
//! Locks, in the order in which one thread may take them: `line` of one branch, then the log's own, then `data`
//! of a branch, then `data` of its parents. No lock is held while Python runs.
//!
//! Invariants: `head` is published only when the commit is as durable as promised, and never goes back; `data`
//! may hold versions above `head` (they wait for the disk), which no reader sees.

mod scan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::log::{Appended, Stamp, StateHash};
use crate::payload::Meta;
use crate::table::{ChangeKind, KeyHash, Table, Version};
use crate::value::path::Path;

pub use scan::{Range, RowBuffer, successor};

pub struct Branch {
    pub id: u32,
    pub name: RwLock<String>,
    pub parent: Option<Fork>,
    pub created: u64,
    pub data: RwLock<Data>,
    pub line: Mutex<Line>,
    head: AtomicU64,
    deleted: AtomicBool,
}

/// Where a branch left its parent.
#[derive(Clone)]
pub struct Fork {
    pub branch: Arc<Branch>,
    pub version: u64,
}

/// What a branch wrote itself.
#[derive(Default)]
pub struct Data {
    pub tables: FxHashMap<u32, Table>,
    /// Version and time of each commit, ascending in both: an instant is found by search.
    pub commits: Vec<(u64, u64)>,
    /// What commits say about themselves, for the few that do.
    pub notes: BTreeMap<u64, Meta>,
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
    /// Version and time of the first commit with each idempotency key.
    pub idempotent: FxHashMap<String, (u64, u64)>,
    /// So many may there be before the old ones are looked for.
    idempotent_max: usize,
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

/// How long the first result of an idempotency key is remembered, in hybrid time.
pub const IDEMPOTENCY_LIFETIME_US: u64 = 24 * 3600 * 1_000_000;

impl Line {
    /// Remember what an idempotency key gave, and forget those whose time is over when they have become many.
    pub fn remember(&mut self, key: &str, stamp: Stamp) {
        if self.idempotent.len() >= self.idempotent_max.max(1024) {
            self.idempotent.retain(|_, (_, time)| *time + IDEMPOTENCY_LIFETIME_US > stamp.time);
            // So that looking through all of them costs each new one no more than two steps.
            self.idempotent_max = 2 * self.idempotent.len();
        }
        self.idempotent.insert(key.to_owned(), (stamp.version, stamp.time));
    }
}

impl Branch {
    pub fn new(id: u32, name: &str, parent: Option<Fork>, version: u64, created: u64) -> Branch {
        Branch {
            id,
            name: RwLock::new(name.to_owned()),
            parent,
            created,
            data: RwLock::default(),
            line: Mutex::new(Line { applied: version, ..Line::default() }),
            head: AtomicU64::new(version),
            deleted: AtomicBool::new(false),
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
        self.head.fetch_max(version, Ordering::AcqRel);
    }

    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    pub fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
    }

    /// Call `read` with the newest version of `key` at or below `at` (`None`: never written, or deleted).
    ///
    /// `read` runs under the read lock, so it must be short and must not call back.
    #[inline]
    pub fn read<R>(&self, keyspace: u32, key: &[u8], at: u64, read: impl FnOnce(Option<Version<'_>>) -> R) -> R {
        let hash = KeyHash::of(key);
        let (mut branch, mut at) = (self, at);
        loop {
            let data = branch.data.read();
            if let Some(version) = data.tables.get(&keyspace).and_then(|table| table.get(key, hash, at)) {
                return read((version.kind != ChangeKind::Delete).then_some(version));
            }
            match &branch.parent {
                Some(fork) => (branch, at) = (&fork.branch, at.min(fork.version)),
                None => return read(None),
            }
        }
    }

    /// Fetch what reads of `keys` at the head will need, so that these do not wait for memory one by one.
    pub fn touch<'k>(&self, keyspace: u32, keys: impl Iterator<Item = &'k [u8]>) {
        if let Some(table) = self.data.read().tables.get(&keyspace) {
            table.touch(keys);
        }
    }

    /// The value of `key` at `at`, copied.
    pub fn value(&self, keyspace: u32, key: &[u8], at: u64) -> Option<Vec<u8>> {
        self.read(keyspace, key, at, |found| found.and_then(|version| version.value.map(<[u8]>::to_vec)))
    }

    /// Versions of `key` below `before` and at or below `at`, newest first, at most `limit`.
    pub fn history(&self, keyspace: u32, key: &[u8], at: u64, before: u64, limit: usize) -> Vec<HistoryRow> {
        let hash = KeyHash::of(key);
        let mut rows = Vec::new();
        let (mut branch, mut at) = (self, at.min(before.saturating_sub(1)));
        loop {
            let data = branch.data.read();
            let versions = data.tables.get(&keyspace).into_iter().flat_map(|table| table.versions(key, hash, at));
            for version in versions.take(limit - rows.len()) {
                let time = data.time_of(version.version);
                rows.push(HistoryRow { version: version.version, time, value: version.value.map(<[u8]>::to_vec) });
            }
            match &branch.parent {
                Some(fork) if rows.len() < limit => (branch, at) = (&fork.branch, at.min(fork.version)),
                _ => return rows,
            }
        }
    }

    /// When `version` was committed, as seen from this branch.
    pub fn time_of(&self, version: u64) -> u64 {
        let mut branch = self;
        loop {
            let data = branch.data.read();
            if data.commits.first().is_some_and(|&(first, _)| first <= version) {
                return data.time_of(version);
            }
            match &branch.parent {
                Some(fork) => branch = &fork.branch,
                None => return 0,
            }
        }
    }

    /// The newest version whose commit time is at or before `time`; 0 before the first commit.
    pub fn version_at(&self, time: u64) -> u64 {
        let (mut branch, mut at) = (self, self.head());
        loop {
            let data = branch.data.read();
            let visible = data.commits.partition_point(|&(version, when)| version <= at && when <= time);
            if let Some(&(version, _)) = visible.checked_sub(1).and_then(|last| data.commits.get(last)) {
                return version;
            }
            match &branch.parent {
                Some(fork) => (branch, at) = (&fork.branch, at.min(fork.version)),
                None => return 0,
            }
        }
    }

    /// Commits with `after < version < before`, oldest first (newest first when `reverse`), at most `limit`.
    pub fn commits(&self, after: u64, before: u64, reverse: bool, limit: usize) -> Vec<CommitRow> {
        let mut parts = Vec::new();
        let (mut branch, mut at) = (self, self.head());
        loop {
            parts.push((branch, at));
            match &branch.parent {
                Some(fork) => (branch, at) = (&fork.branch, at.min(fork.version)),
                None => break,
            }
        }
        if !reverse {
            parts.reverse();
        }
        let mut rows = Vec::new();
        for (branch, at) in parts {
            let (data, wanted) = (branch.data.read(), limit - rows.len());
            let row = |&(version, time): &(u64, u64)| CommitRow {
                version,
                time,
                branch: branch.name.read().clone(),
                meta: data.notes.get(&version).cloned().unwrap_or_default(),
            };
            let low = data.commits.partition_point(|&(version, _)| version <= after);
            let high = data.commits.partition_point(|&(version, _)| version <= at && version < before).max(low);
            let inside = &data.commits[low..high];
            match reverse {
                true => rows.extend(inside.iter().rev().take(wanted).map(row)),
                false => rows.extend(inside.iter().take(wanted).map(row)),
            }
        }
        rows
    }

    /// The end of a stream at version `at`: its last key is `stream` and an 8-byte sequence, its value
    /// `[kind, time, value, hash, ...]`.
    pub fn stream_head(&self, keyspace: u32, stream: &[u8], at: u64) -> StreamHead {
        let empty = StreamHead { next: 0, time: 0, hash: [0; 32] };
        let range = Range::of_prefix(stream);
        let mut last = RowBuffer::default();
        self.scan(keyspace, &range, true, at, &mut last, 1);
        last.rows().next().and_then(|(key, value)| stream_head_of(key, value)).unwrap_or(empty)
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
}

pub struct CommitRow {
    pub version: u64,
    pub time: u64,
    pub branch: String,
    pub meta: Meta,
}

impl Data {
    fn time_of(&self, version: u64) -> u64 {
        let after = self.commits.partition_point(|&(other, _)| other <= version);
        after.checked_sub(1).map_or(0, |at| self.commits[at].1)
    }

    /// The changes that commits after `snapshot` made to `key`, newest first.
    pub fn changes_since<'a>(
        &'a self,
        keyspace: u32,
        key: &[u8],
        snapshot: u64,
    ) -> impl Iterator<Item = Version<'a>> + use<'a> {
        let table = self.tables.get(&keyspace).filter(|table| table.newest() > snapshot);
        let versions = table.map(|table| table.versions(key, KeyHash::of(key), u64::MAX)).into_iter().flatten();
        versions.take_while(move |version| version.version > snapshot)
    }

    /// The newest version of any key of a range, if it is above `snapshot`.
    pub fn range_changed_since(&self, keyspace: u32, range: &Range, snapshot: u64) -> bool {
        let table = self.tables.get(&keyspace).filter(|table| table.newest() > snapshot);
        table.is_some_and(|table| {
            table.range(&range.start, range.end.as_deref(), false, u64::MAX).any(|(_, v)| v.version > snapshot)
        })
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
