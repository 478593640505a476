//! Commit: prepare, log, apply.
//!
//! *Prepare* validates what the transaction relied on against the branch as it is now, and works out what each write
//! gives. *Log* stamps the record with its version and time and makes it durable in order. *Apply* folds it into the
//! tables; *publish* lets readers see it. A replica only applies.
//!
//! A commit holds its branch's line from validation to apply, but not while it waits for the disk: the next one of the
//! branch is validated against what was applied and not yet published, and shares the same sync. What is published is
//! always as durable as the mode promises.

use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::branch::{At, Branch, Data, Line, Pin, StreamHead};
use crate::change::{self, Appended, Change, Expiry, Moment, Tried, What, Write, resolve};
use crate::error::{Clash, Error, Result};
use crate::footprint::{key_clash, path_clash};
use crate::keyspaces::{CATALOGUE, IDEMPOTENCY, NOTES, catalogue_key};
use crate::log::{self, Stamp, Use};
use crate::payload::{CommitWriter, Meta, Note, Number, Read};
use crate::sabotage;
use crate::store::Store;
use crate::table::{ChangeKind, Version};
use crate::transaction::{Expect, Isolation, Pending, Request, Transaction};
use crate::value::equal;

/// How long the first result of an idempotency key is remembered, in hybrid time.
const IDEMPOTENCY_LIFETIME_US: u64 = 24 * 3600 * 1_000_000;
/// So many rows are fetched at once: as many as a core keeps under way, with room to spare.
const FETCHED: usize = 32;
/// Null: the row of an idempotency key says it all by being there.
const NOTHING: &[u8] = &[0xc0];

/// What a commit gave.
pub struct Committed {
    pub version: u64,
    pub appended: Vec<Appended>,
}

#[derive(Default)]
struct Prepared<'a> {
    changes: Vec<Change<'a>>,
    streams: Vec<(Vec<u8>, StreamHead)>,
    known: Vec<u32>,
    appended: Vec<Appended>,
}

impl Prepared<'_> {
    fn use_of_log(&self) -> Use {
        let deletes = self.changes.iter().all(|change| change.kind == ChangeKind::Delete);
        if deletes && !self.changes.is_empty() { Use::Room } else { Use::Data }
    }
}

impl Store {
    /// Commit a transaction; it is over either way.
    pub fn commit(&self, transaction: &mut Transaction) -> Result<u64> {
        transaction.check_open()?;
        transaction.is_over = true;
        let outcome = self.commit_transaction(transaction);
        transaction.pin = Pin::default();
        outcome
    }

    fn commit_transaction(&self, transaction: &Transaction) -> Result<u64> {
        if transaction.is_read_only() && transaction.meta.idempotency_key.is_none() {
            return Ok(transaction.snapshot);
        }
        let branch = Arc::clone(&transaction.branch);
        self.check_writable(&branch)?;
        self.make_room()?;
        let mut line = branch.line.lock();
        if let Some(version) = self.first_result(&branch, &transaction.meta)? {
            return self.settle(&branch, line).map(|()| version);
        }
        let clashes = self.clashes(transaction, &line)?;
        if !clashes.is_empty() {
            if sabotage::on("T35") {
                let writes = writes_of(transaction, line.applied);
                self.commit_writes(&branch, &mut line, &writes, &transaction.meta, &[])?;
            }
            // Wait until what came first can be read, or a retry would run into it again and again.
            self.settle(&branch, line)?;
            return Err(Error::Conflict(clashes));
        }
        let reads = if transaction.record_reads { transaction.reads.to_reads() } else { Vec::new() };
        let writes = writes_of(transaction, line.applied);
        Ok(self
            .commit_writes(&branch, &mut line, &writes, &transaction.meta, &reads)?
            .settle(self, &branch, line)?
            .version)
    }

    /// Commit writes that rely on nothing read, as one.
    pub fn write(&self, branch: &Arc<Branch>, writes: &[Write<'_>]) -> Result<Committed> {
        self.check_writable(branch)?;
        self.make_room()?;
        let mut line = branch.line.lock();
        self.commit_writes(branch, &mut line, writes, &Meta::default(), &[])?.settle(self, branch, line)
    }

    /// Delete those of `keys` that exist; returns how many did. No commit when none does.
    pub fn delete(&self, branch: &Arc<Branch>, keyspace: u32, keys: &[Vec<u8>]) -> Result<usize> {
        self.check_writable(branch)?;
        let mut line = branch.line.lock();
        let now = At::newest(self.log.now());
        let mut present: Vec<&Vec<u8>> = Vec::with_capacity(keys.len());
        for key in keys {
            if branch.read(keyspace, key, now, |found| found.is_some())? {
                present.push(key);
            }
        }
        present.sort_unstable();
        present.dedup();
        if present.is_empty() {
            return self.settle(branch, line).map(|()| 0);
        }
        let writes: Vec<_> = present.iter().map(|key| Write { keyspace, key, what: What::Delete }).collect();
        self.commit_writes(branch, &mut line, &writes, &Meta::default(), &[])?.settle(self, branch, line)?;
        Ok(writes.len())
    }

    /// Prepare, log and apply, with the branch's line held. The result waits to be settled.
    fn commit_writes(
        &self,
        branch: &Arc<Branch>,
        line: &mut Line,
        writes: &[Write<'_>],
        meta: &Meta,
        reads: &[Read],
    ) -> Result<Unsettled> {
        // Looked at again under the line, which deleting a branch and closing take.
        self.check_writable(branch)?;
        let guard = self.panic_guard();
        let moment = self.moment_for(writes);
        let prepared = self.prepare(branch, line, writes, moment)?;
        if self.has_unique() {
            self.check_unique(branch, &prepared.changes, moment.now)?;
        }
        if self.keeps_a_log() {
            encode(branch.id, line, &prepared, meta, reads);
        }
        let appended = self.log.append_for(prepared.use_of_log(), moment.time, line.hash, &line.payload)?;
        line.last = Some(appended);
        let result = Committed { version: appended.stamp.version, appended: prepared.appended.clone() };
        if sabotage::on("T30") {
            branch.publish(result.version);
        }
        apply(branch, line, prepared, appended.stamp, meta, reads)?;
        guard.disarm();
        Ok(Unsettled { result, appended })
    }

    /// The moment of a commit. Where a write is given its time (an append, a time to live), it is the one that the commit
    /// will have unless another branch comes in between: then the state at the time of an event has the event in it, and
    /// what was put for a while lives that long, also when the clock ran backwards.
    fn moment_for(&self, writes: &[Write<'_>]) -> Moment {
        let now = self.log.now();
        let is_timed =
            |write: &Write<'_>| matches!(write.what, What::Append { .. } | What::PutFor(_, Expiry::After(_)));
        let time = if writes.iter().any(is_timed) { now.max(self.log.last_time()) } else { now };
        Moment { now, time }
    }

    fn prepare<'a>(
        &self,
        branch: &Branch,
        line: &Line,
        writes: &'a [Write<'a>],
        moment: Moment,
    ) -> Result<Prepared<'a>> {
        let mut prepared = Prepared { changes: Vec::with_capacity(writes.len() + 1), ..Prepared::default() };
        fetch(branch, writes);
        for write in writes {
            let change = match write.what {
                What::Append { .. } => self.append(branch, line, write, moment.time, &mut prepared)?,
                _ => resolve(branch, write, moment)?,
            };
            if let Some(change) = change {
                self.register(branch, line, write.keyspace, &mut prepared)?;
                prepared.changes.push(change);
            }
        }
        Ok(prepared)
    }

    /// The first write of a branch to a keyspace enters it into the branch's catalogue.
    fn register(&self, branch: &Branch, line: &Line, keyspace: u32, prepared: &mut Prepared<'_>) -> Result<()> {
        if keyspace == CATALOGUE || line.known.contains(&keyspace) || prepared.known.contains(&keyspace) {
            return Ok(());
        }
        prepared.known.push(keyspace);
        let (space, kind) = self.keyspace_name(keyspace);
        let key = catalogue_key(&space, &kind);
        if branch.read(CATALOGUE, &key, u64::MAX, |found| found.is_none())? {
            let value = Number::Int(i64::from(keyspace)).to_value();
            prepared.changes.push(Change::put(CATALOGUE, key.into(), ChangeKind::Put, value.into()));
        }
        Ok(())
    }

    /// Give an append its sequence, time and hash.
    fn append<'a>(
        &self,
        branch: &Branch,
        line: &Line,
        write: &Write<'a>,
        now: u64,
        prepared: &mut Prepared<'a>,
    ) -> Result<Option<Change<'a>>> {
        let place = [&write.keyspace.to_be_bytes(), write.key].concat();
        let pending = prepared.streams.iter().rposition(|(other, _)| *other == place);
        let head = match pending {
            Some(index) => prepared.streams[index].1,
            None => match line.streams.get(&place) {
                Some(head) => *head,
                None => branch.stream_head(write.keyspace, write.key, u64::MAX)?,
            },
        };
        let Some((change, after)) = change::append(write, &head, now.max(head.time)) else { return Ok(None) };
        match pending {
            Some(index) => prepared.streams[index].1 = after,
            None => prepared.streams.push((place, after)),
        }
        prepared.appended.push(Appended { sequence: head.next, time: after.time, hash: after.hash });
        Ok(Some(change))
    }

    /// Wait until all that was applied to the branch is as durable as promised, and publish it.
    fn settle(&self, branch: &Branch, line: MutexGuard<'_, Line>) -> Result<()> {
        let (last, applied) = (line.last, line.applied);
        drop(line);
        self.publish_applied(branch, last, applied)
    }

    /// `settle` with what the line says, which the caller may go on to hold.
    pub(crate) fn publish_applied(&self, branch: &Branch, last: Option<log::Appended>, applied: u64) -> Result<()> {
        if let Some(last) = last.filter(|_| applied > branch.head()) {
            // What becomes of the other commit is its caller's to know; this one is certain not to be there.
            self.log.wait(&last).map_err(|error| self.log.poisoned().unwrap_or(error))?;
            branch.publish(applied);
        }
        Ok(())
    }

    /// The version that a commit with the same idempotency key gave, here or before the fork.
    fn first_result(&self, branch: &Branch, meta: &Meta) -> Result<Option<u64>> {
        meta.idempotency_key.as_ref().map_or(Ok(None), |key| self.result_of(branch, key))
    }

    /// The version that a commit with this idempotency key gave, as far as that is applied.
    pub fn result_of(&self, branch: &Branch, key: &str) -> Result<Option<u64>> {
        let at = At::newest(self.log.last_time());
        branch.read(IDEMPOTENCY, key.as_bytes(), at, |found| found.map(|version| version.version))
    }

    /// The places where a commit that came first changed what this transaction relied on.
    fn clashes(&self, transaction: &Transaction, line: &Line) -> Result<Vec<Clash>> {
        let mut clashes = Vec::new();
        if line.applied > transaction.snapshot {
            let data = transaction.branch.data.read();
            if transaction.isolation == Isolation::Serializable {
                clashes = transaction.reads.clashes(&data, transaction.snapshot)?;
            }
            write_clashes(transaction, &data, &mut clashes)?;
        }
        let now = At::newest(self.log.now());
        for expect in &transaction.expects {
            if !holds(&transaction.branch, expect, now)? {
                clashes.push(Clash::Key { keyspace: expect.keyspace, key: expect.key.clone() });
            }
        }
        // Maps give no order that a caller may rely on; keys and ranges do.
        clashes.sort_by_cached_key(|clash| format!("{clash:?}"));
        clashes.dedup();
        Ok(clashes)
    }
}

/// Let the writes of one keyspace, which stand behind each other, wait for memory together.
fn fetch(branch: &Branch, writes: &[Write<'_>]) {
    for group in writes.chunk_by(|a, b| a.keyspace == b.keyspace).filter(|group| group.len() > 1) {
        for some in group.chunks(FETCHED) {
            branch.touch(group[0].keyspace, some.iter().map(|write| write.key));
        }
    }
}

/// A commit that was applied and that readers may not see yet.
struct Unsettled {
    result: Committed,
    appended: log::Appended,
}

impl Unsettled {
    /// Wait for the disk without the branch's line, then publish.
    fn settle(self, store: &Store, branch: &Branch, line: MutexGuard<'_, Line>) -> Result<Committed> {
        drop(line);
        store.committed(&self.appended);
        store.log.wait(&self.appended)?;
        branch.publish(self.result.version);
        Ok(self.result)
    }
}

/// The record of a commit, into the line's buffer.
fn encode(branch: u32, line: &mut Line, prepared: &Prepared<'_>, meta: &Meta, reads: &[Read]) {
    let mut out = CommitWriter::new(&mut line.payload, branch, meta, !reads.is_empty(), prepared.changes.len());
    for change in &prepared.changes {
        match (change.request, &change.value) {
            (Some(What::Patch(ops, _)), _) => out.patch(change.keyspace, &change.key, ops),
            (Some(What::Add(delta)), _) => out.add(change.keyspace, &change.key, *delta),
            (_, Some(value)) if change.expires != 0 => {
                out.expiring(change.keyspace, &change.key, value, change.expires);
            }
            (_, Some(value)) => out.value(change.kind, change.keyspace, &change.key, value),
            (_, None) => out.delete(change.keyspace, &change.key),
        }
    }
    if !reads.is_empty() {
        out.reads(reads);
    }
}

/// Fold a commit into the tables of its branch. Readers do not see it before it is published.
fn apply(
    branch: &Branch,
    line: &mut Line,
    prepared: Prepared<'_>,
    stamp: Stamp,
    meta: &Meta,
    reads: &[Read],
) -> Result<()> {
    let mut data = branch.data.write();
    if let Some(indexed) = &mut data.indexed {
        for change in &prepared.changes {
            if let Some(own) = indexed.get_mut(&change.keyspace).filter(|own| !own.is_stale) {
                own.add(&change.key, &change.version(stamp.version));
            }
        }
    }
    let layer = &mut data.active;
    for change in &prepared.changes {
        layer.add(change.keyspace, &change.key, &change.version(stamp.version))?;
    }
    if let Some(note) = Note::encode(meta, reads) {
        let note = Version { version: stamp.version, ..Version::own(Some(&note)) };
        layer.add(NOTES, &stamp.version.to_be_bytes(), &note)?;
    }
    if let Some(key) = &meta.idempotency_key {
        let expires = stamp.time + IDEMPOTENCY_LIFETIME_US;
        let first = Version { version: stamp.version, expires, ..Version::own(Some(NOTHING)) };
        layer.add(IDEMPOTENCY, key.as_bytes(), &first)?;
    }
    layer.commit(stamp);
    drop(data);
    line.streams.extend(prepared.streams);
    line.known.extend(prepared.known);
    line.hash = stamp.hash;
    line.applied = stamp.version;
    Ok(())
}

impl Store {
    /// Fold a commit that was stamped before (recovery, a replica) into its branch and publish it.
    pub fn apply_logged(
        &self,
        branch: &Arc<Branch>,
        stamp: Stamp,
        writes: &[Write<'_>],
        meta: &Meta,
        reads: &[Read],
    ) -> Result<()> {
        let mut line = branch.line.lock();
        let mut prepared = Prepared { changes: Vec::with_capacity(writes.len()), ..Prepared::default() };
        let moment = Moment { now: stamp.time, time: stamp.time };
        for write in writes {
            prepared.changes.extend(match write.what {
                // What was deleted was there by the clock of then, and may have expired by the time of the commit.
                What::Delete => Some(Change::delete(write.keyspace, write.key.into())),
                _ => resolve(branch, write, moment)?,
            });
            if let What::Appended(_) = write.what {
                // The next append looks the stream's end up again.
                let stream = &write.key[..write.key.len().saturating_sub(8)];
                line.streams.remove(&[&write.keyspace.to_be_bytes(), stream].concat());
            }
        }
        apply(branch, &mut line, prepared, stamp, meta, reads)?;
        branch.publish(stamp.version);
        Ok(())
    }
}

/// What a transaction writes, on a branch whose newest version is `applied`.
fn writes_of(transaction: &Transaction, applied: u64) -> Vec<Write<'_>> {
    let snapshot = transaction.snapshot;
    let mut writes = Vec::new();
    let mut keyspaces: Vec<_> = transaction.writes.iter().collect();
    keyspaces.sort_unstable_by_key(|(keyspace, _)| **keyspace);
    for (&keyspace, rows) in keyspaces {
        for (key, pending) in rows {
            writes.extend(what_of(pending, snapshot, applied).map(|what| Write { keyspace, key, what }));
        }
    }
    writes.extend(transaction.appends.iter().map(|append| Write {
        keyspace: append.keyspace,
        key: &append.stream,
        what: What::Append { kind: &append.kind, value: &append.value, origin: append.origin.as_deref() },
    }));
    writes
}

fn what_of(pending: &Pending, snapshot: u64, applied: u64) -> Option<What<'_>> {
    let value = pending.view.as_deref();
    match &pending.request {
        Request::Put(expiry) => {
            let value = value.expect("a put has a value");
            Some(expiry.map_or(What::Put(value), |expiry| What::PutFor(value, expiry)))
        }
        Request::Delete => Some(What::Delete),
        Request::Patch { ops, touched } => {
            let tried = Tried { version: snapshot, is_newest: applied <= snapshot, value, touched };
            Some(What::Patch(ops, Some(tried)))
        }
        Request::Add(delta) => Some(What::Add(*delta)),
        Request::Append => None,
    }
}

/// Where writes themselves meet a change that came first: patches of overlapping paths always, and under snapshot
/// isolation also keys that were put or deleted.
fn write_clashes(transaction: &Transaction, data: &Data, clashes: &mut Vec<Clash>) -> Result<()> {
    let snapshot = transaction.snapshot;
    for (&keyspace, writes) in &transaction.writes {
        for (key, pending) in writes {
            match (&pending.request, transaction.isolation) {
                (Request::Patch { touched, .. }, _) => {
                    clashes.extend(path_clash(data, keyspace, key, touched, snapshot)?)
                }
                (Request::Put(_) | Request::Delete, Isolation::Snapshot) => {
                    clashes.extend(key_clash(data, keyspace, key, snapshot)?);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn holds(branch: &Branch, expect: &Expect, now: At) -> Result<bool> {
    let expected = &expect.expected;
    branch.read(expect.keyspace, &expect.key, now, |found| match found {
        None => expected.absent,
        Some(_) if expected.absent => false,
        Some(found) => {
            expected.version.is_none_or(|version| found.version == version)
                && expected.value.as_ref().is_none_or(|value| found.value.is_some_and(|found| equal(found, value)))
        }
    })
}
