//! A transaction: reads at one snapshot, and writes that wait for the commit.
//!
//! Each write is kept as what was asked for (a patch, a delta) and as what the transaction itself now sees of the
//! key, so that its own reads are plain look-ups and the commit can apply the request to the newest value.
//!
//! It reads at one time, too: what has not expired when it begins is there until it ends. What it puts for a while is there
//! for itself; the while begins with the commit.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::branch::{At, Branch, Most, Pin, Range, RowBuffer};
use crate::change::Expiry;
use crate::error::{Error, Result};
use crate::footprint::Footprint;
use crate::payload::{Meta, Number};
use crate::sabotage;
use crate::table::Version;
use crate::value::patch::{self, Op};
use crate::value::path::{Path, find, region};

/// Writes of one transaction, encoded. A bound, so that one caller cannot take all memory.
pub const TRANSACTION_BYTES_MAX: u64 = 256 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Every read is validated at commit.
    Serializable,
    /// Only what is written is validated: the first committer wins.
    Snapshot,
}

/// What must be true of a key at commit: that it is absent; or that it is there, and what is named of it holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expected {
    pub absent: bool,
    pub version: Option<u64>,
    pub value: Option<Vec<u8>>,
}

pub struct Expect {
    pub keyspace: u32,
    pub key: Vec<u8>,
    pub expected: Expected,
}

/// A write that waits, and what this transaction sees of its key.
pub struct Pending {
    pub request: Request,
    pub view: Option<Vec<u8>>,
    /// When that expires, as far as is known before the commit; 0 is never.
    pub expires: u64,
}

pub enum Request {
    Put(Option<Expiry>),
    Delete,
    Patch {
        ops: Vec<Op>,
        touched: Vec<Path>,
    },
    Add(Number),
    /// A row of `appends` under its provisional key.
    Append,
}

/// What a transaction sees of a key. Its own writes have no version yet: the snapshot stands in.
pub struct Entry {
    pub value: Vec<u8>,
    pub version: u64,
    pub expires: u64,
}

pub struct PendingAppend {
    pub keyspace: u32,
    pub stream: Vec<u8>,
    pub kind: String,
    pub value: Vec<u8>,
    pub origin: Option<Vec<u8>>,
}

pub struct Transaction {
    pub branch: Arc<Branch>,
    pub snapshot: u64,
    /// When it began: what expires later is there for it.
    time: u64,
    pub isolation: Isolation,
    pub record_reads: bool,
    pub meta: Meta,
    pub reads: Footprint,
    pub expects: Vec<Expect>,
    pub writes: FxHashMap<u32, BTreeMap<Vec<u8>, Pending>>,
    pub appends: Vec<PendingAppend>,
    pub is_over: bool,
    streams: FxHashMap<(u32, Vec<u8>), u64>,
    bytes: u64,
    pub(crate) pin: Pin,
}

impl Transaction {
    pub fn new(branch: Arc<Branch>, isolation: Isolation, record_reads: bool, idempotency_key: Option<String>) -> Self {
        // A compaction may let go of what a head showed that others have moved on from: then there is a newer one.
        let (snapshot, pin) = loop {
            let snapshot = branch.head().saturating_sub(u64::from(sabotage::on("T34")));
            let pin = branch.pin(snapshot);
            if pin.is_whole() || snapshot == branch.head() {
                break (snapshot, pin);
            }
        };
        Transaction {
            time: branch.time(At::from(snapshot)),
            branch,
            snapshot,
            isolation,
            record_reads,
            meta: Meta { idempotency_key, ..Meta::default() },
            reads: Footprint::default(),
            expects: Vec::new(),
            writes: FxHashMap::default(),
            appends: Vec::new(),
            is_over: false,
            streams: FxHashMap::default(),
            bytes: 0,
            pin,
        }
    }

    pub fn check_open(&self) -> Result<()> {
        if self.is_over { Err(Error::Closed("transaction")) } else { Ok(()) }
    }

    /// End it and give back what it holds. Idempotent.
    pub fn roll_back(&mut self) {
        self.is_over = true;
        self.writes = FxHashMap::default();
        self.appends = Vec::new();
        self.reads = Footprint::default();
        self.pin = Pin::default();
    }

    pub fn is_read_only(&self) -> bool {
        self.expects.is_empty() && self.appends.is_empty() && self.writes.values().all(BTreeMap::is_empty)
    }

    /// How many writes and reads its commit looks at; no number at all where it read a range, which may be long.
    pub fn size(&self) -> Option<usize> {
        let writes: usize = self.writes.values().map(BTreeMap::len).sum();
        self.reads.size().map(|reads| reads + writes + self.expects.len() + self.appends.len())
    }

    fn keeps_reads(&self) -> bool {
        self.isolation == Isolation::Serializable || self.record_reads
    }

    fn own(&self, keyspace: u32, key: &[u8]) -> Option<&Pending> {
        self.writes.get(&keyspace)?.get(key)
    }

    /// Note that `key` was relied on, unless this transaction itself decides what is there.
    fn note_key(&mut self, keyspace: u32, key: &[u8]) {
        let decided = self.own(keyspace, key).is_some_and(Pending::is_absolute);
        if !decided && self.keeps_reads() {
            self.reads.key(keyspace, key);
        }
    }

    /// Call `read` with what this transaction sees of `key`, and the version it stems from (`None` if its own).
    pub fn get<R>(
        &mut self,
        keyspace: u32,
        key: &[u8],
        read: impl FnOnce(Option<(&[u8], Option<u64>)>) -> R,
    ) -> Result<R> {
        self.note_key(keyspace, key);
        self.look(keyspace, key, read)
    }

    /// `get` that leaves no footprint.
    fn look<R>(&self, keyspace: u32, key: &[u8], read: impl FnOnce(Option<(&[u8], Option<u64>)>) -> R) -> Result<R> {
        if let Some(own) = self.own(keyspace, key) {
            return Ok(read(own.view.as_deref().map(|view| (view, None))));
        }
        self.branch.read(keyspace, key, self.at(), |found| {
            read(found.and_then(|version| version.value.map(|value| (value, Some(version.version)))))
        })
    }

    /// What of the branch this transaction sees.
    pub fn at(&self) -> At {
        At::past(self.snapshot, self.time)
    }

    /// `get` with what there is to know beside the value.
    pub fn entry(&mut self, keyspace: u32, key: &[u8]) -> Result<Option<Entry>> {
        self.note_key(keyspace, key);
        self.view(keyspace, key)
    }

    /// `entry` that leaves no footprint.
    fn view(&self, keyspace: u32, key: &[u8]) -> Result<Option<Entry>> {
        if let Some(own) = self.own(keyspace, key) {
            let entry = |value| Entry { value, version: self.snapshot, expires: own.expires };
            return Ok(own.view.clone().map(entry));
        }
        let entry = |found: Version<'_>| {
            found.value.map(|value| Entry { value: value.to_vec(), version: found.version, expires: found.expires })
        };
        self.branch.read(keyspace, key, self.at(), |found| found.and_then(entry))
    }

    /// Call `read` with the value at `path` inside the value of `key`.
    pub fn get_path<R>(
        &mut self,
        keyspace: u32,
        key: &[u8],
        path: &Path,
        read: impl FnOnce(Option<&[u8]>) -> R,
    ) -> Result<R> {
        let decided = self.own(keyspace, key).is_some_and(Pending::is_absolute);
        let notes = !decided && self.keeps_reads();
        let (region, result) = self.look(keyspace, key, |found| {
            let value = found.map(|(value, _)| value);
            let region = notes.then(|| value.map_or_else(|| path.clone(), |value| region(value, path)));
            (region, read(value.and_then(|value| find(value, path).map(|place| &value[place]))))
        })?;
        match region {
            Some(region) if region.0.is_empty() => self.reads.key(keyspace, key),
            Some(region) => self.reads.path(keyspace, key, &region),
            None => {}
        }
        Ok(result)
    }

    /// The rows of `range` as this transaction sees them, up to `limit`.
    pub fn scan(&mut self, keyspace: u32, range: &Range, reverse: bool, limit: impl Into<Most>) -> Result<RowBuffer> {
        let limit = limit.into();
        let mut rows = RowBuffer::for_rows(limit.rows);
        if limit.rows > 0 {
            self.visit(keyspace, range, reverse, |key, value| {
                rows.push(key, value);
                if limit.is_reached(&rows) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        }
        self.note_range(keyspace, range, reverse, rows.last_key().filter(|_| limit.is_reached(&rows)));
        Ok(rows)
    }

    /// What it wrote itself to a keyspace: what an index does not know. Its query relied on all of `range`.
    pub fn pending_for(&mut self, keyspace: u32, range: &Range) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        self.note_range(keyspace, range, false, None);
        let writes = self.writes.get(&keyspace).into_iter().flatten();
        writes.map(|(key, pending)| (key.clone(), pending.view.clone())).collect()
    }

    pub fn count(&mut self, keyspace: u32, range: &Range) -> Result<u64> {
        let mut count = 0;
        self.visit(keyspace, range, false, |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        self.note_range(keyspace, range, false, None);
        Ok(count)
    }

    fn visit(
        &self,
        keyspace: u32,
        range: &Range,
        reverse: bool,
        row: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        let writes = self.writes.get(&keyspace).into_iter().flatten();
        let inside = writes.filter(|(key, _)| range.contains(key));
        let own: Vec<_> = inside.map(|(key, pending)| (key.clone(), pending.view.clone())).collect();
        self.branch.visit(keyspace, range, reverse, self.at(), &own, row)
    }

    /// Note the part of `range` that was looked at: all of it, or up to the row where a limit stopped.
    fn note_range(&mut self, keyspace: u32, range: &Range, reverse: bool, stopped_at: Option<&[u8]>) {
        if !self.keeps_reads() {
            return;
        }
        let mut seen = range.clone();
        match stopped_at {
            Some(key) if reverse => seen.start = key.to_vec(),
            // The next possible key after `key` is `key` and a zero byte.
            Some(key) => seen.end = Some([key, &[0]].concat()),
            None => {}
        }
        self.reads.range(keyspace, seen);
    }

    fn grow(&mut self, bytes: usize) -> Result<()> {
        self.check_open()?;
        let actual = self.bytes + bytes as u64;
        if actual > TRANSACTION_BYTES_MAX {
            return Err(Error::LimitExceeded { what: "transaction in bytes", limit: TRANSACTION_BYTES_MAX, actual });
        }
        self.bytes = actual;
        Ok(())
    }

    fn set(&mut self, keyspace: u32, key: &[u8], request: Request, view: Option<Vec<u8>>, expires: u64) {
        self.writes.entry(keyspace).or_default().insert(key.to_vec(), Pending { request, view, expires });
    }

    pub fn put(&mut self, keyspace: u32, key: &[u8], value: &[u8], expiry: Option<Expiry>) -> Result<()> {
        self.grow(key.len() + value.len())?;
        let (expiry, expires) = match expiry {
            None => (None, 0),
            Some(Expiry::At(instant)) => (expiry, instant),
            // The time of the snapshot stands in for that of the commit, as it does in an entry.
            Some(Expiry::After(us)) => (expiry, self.branch.time_of(self.snapshot)?.saturating_add(us)),
            Some(Expiry::Kept) => {
                (self.kept(keyspace, key), self.view(keyspace, key)?.map_or(0, |found| found.expires))
            }
        };
        self.set(keyspace, key, Request::Put(expiry), Some(value.to_vec()), expires);
        Ok(())
    }

    /// The expiry of a put that keeps the one there is: its own put's, or the newest at the commit.
    fn kept(&self, keyspace: u32, key: &[u8]) -> Option<Expiry> {
        match self.own(keyspace, key).map(|own| &own.request) {
            Some(Request::Put(earlier)) => *earlier,
            Some(Request::Delete) => None,
            _ => Some(Expiry::Kept),
        }
    }

    pub fn delete(&mut self, keyspace: u32, key: &[u8]) -> Result<()> {
        self.grow(key.len())?;
        self.set(keyspace, key, Request::Delete, None, 0);
        Ok(())
    }

    /// Change inside a value. Tried at once on what this transaction sees, so that a mistake is told here.
    pub fn patch(&mut self, keyspace: u32, key: &[u8], mut ops: Vec<Op>) -> Result<()> {
        let seen = self.view(keyspace, key)?;
        let patched = patch::apply(seen.as_ref().map(|seen| &seen.value[..]), &ops)?;
        self.grow(key.len() + patched.value.as_ref().map_or(0, Vec::len))?;
        let mut touched = patched.touched;
        let replaces = patch::replaces(&ops);
        let expires = seen.filter(|_| !replaces).map_or(0, |seen| seen.expires);
        let request = match self.writes.get_mut(&keyspace).and_then(|writes| writes.remove(key)) {
            // Deletes inside what this transaction deleted leave it deleted.
            Some(Pending { request: Request::Put(_) | Request::Delete, .. }) if patched.value.is_none() => {
                Request::Delete
            }
            Some(Pending { request: Request::Put(expiry), .. }) if !replaces => Request::Put(expiry),
            Some(Pending { request: Request::Put(_) | Request::Delete, .. }) => Request::Put(None),
            Some(Pending { request: Request::Patch { ops: earlier, touched: mut before }, .. }) => {
                ops.splice(0..0, earlier);
                before.append(&mut touched);
                Request::Patch { ops, touched: before }
            }
            Some(Pending { request: Request::Add(_) | Request::Append, .. }) | None => Request::Patch { ops, touched },
        };
        self.set(keyspace, key, request, patched.value, expires);
        Ok(())
    }

    pub fn add(&mut self, keyspace: u32, key: &[u8], delta: Number) -> Result<()> {
        let seen = self.view(keyspace, key)?;
        let sum = delta.added_to(seen.as_ref().map(|seen| &seen.value[..]))?;
        self.grow(key.len() + 9)?;
        let request = match self.own(keyspace, key).map(|own| &own.request) {
            Some(Request::Put(expiry)) => Request::Put(*expiry),
            Some(Request::Delete) => Request::Put(None),
            Some(Request::Add(earlier)) => Request::Add(delta.plus(*earlier)?),
            // The patch made a number of the whole value, so what is relied on stays the same. A merge of a number
            // replaces what is there as well, and keeps when it expires.
            Some(Request::Patch { ops, touched }) => {
                let merge = Op::Merge { path: Path::root(), patch: sum.to_value() };
                Request::Patch { ops: ops.iter().cloned().chain([merge]).collect(), touched: touched.clone() }
            }
            Some(Request::Append) | None => Request::Add(delta),
        };
        self.set(keyspace, key, request, Some(sum.to_value()), seen.map_or(0, |seen| seen.expires));
        Ok(())
    }

    /// Append to a stream; returns the provisional sequence.
    pub fn append(&mut self, append: PendingAppend) -> Result<u64> {
        self.grow(append.stream.len() + append.kind.len() + append.value.len() + 64)?;
        let place = (append.keyspace, append.stream.clone());
        let next = match self.streams.get(&place) {
            Some(&next) => next,
            None => self.branch.stream_head(append.keyspace, &append.stream, self.at())?.next,
        };
        self.streams.insert(place, next + 1);
        let key = [&append.stream[..], &next.to_be_bytes()].concat();
        let stored = provisional(&append);
        self.set(append.keyspace, &key, Request::Append, Some(stored), 0);
        self.appends.push(append);
        Ok(next)
    }

    pub fn expect(&mut self, keyspace: u32, key: &[u8], expected: Expected) -> Result<()> {
        self.grow(key.len())?;
        self.expects.push(Expect { keyspace, key: key.to_vec(), expected });
        Ok(())
    }

    /// Whether any write waits in a keyspace that `wanted` accepts.
    pub fn writes_to(&self, wanted: impl Fn(u32) -> bool) -> bool {
        self.writes.iter().any(|(&keyspace, writes)| !writes.is_empty() && wanted(keyspace))
    }
}

impl Pending {
    /// Whether the outcome does not depend on what is there.
    fn is_absolute(&self) -> bool {
        matches!(self.request, Request::Put(_) | Request::Delete | Request::Append)
    }
}

/// What a pending append looks like to its own transaction: no time and no hash before the commit.
fn provisional(append: &PendingAppend) -> Vec<u8> {
    use crate::value::write;
    let mut out = Vec::with_capacity(append.value.len() + append.kind.len() + 16);
    write::list_header(&mut out, if append.origin.is_some() { 5 } else { 4 });
    write::string(&mut out, &append.kind);
    write::null(&mut out);
    out.extend_from_slice(&append.value);
    write::null(&mut out);
    out.extend_from_slice(append.origin.as_deref().unwrap_or_default());
    out
}

impl Number {
    pub fn to_value(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(9);
        self.encode(&mut out);
        out
    }

    /// The sum with an encoded value, which must be a number of the same kind, or nothing.
    pub fn added_to(self, value: Option<&[u8]>) -> Result<Number> {
        match value {
            None => Ok(self),
            Some(value) => match Number::decode(value) {
                Some(number) => self.plus(number),
                None => Err(Error::InvalidInput("the value is not a number, so nothing can be added to it".into())),
            },
        }
    }

    pub fn plus(self, other: Number) -> Result<Number> {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => match a.checked_add(b) {
                Some(sum) => Ok(Number::Int(sum)),
                None => {
                    let actual = (i128::from(a) + i128::from(b)).unsigned_abs() as u64;
                    Err(Error::LimitExceeded { what: "counter", limit: i64::MAX as u64, actual })
                }
            },
            (Number::Float(a), Number::Float(b)) => Ok(Number::Float(a + b)),
            _ => {
                Err(Error::InvalidInput("an int is added to an int and a float to a float; convert one of them".into()))
            }
        }
    }
}
