//! The log: the ordered record of all commits. It is the database; all else can be made from it again.
//!
//! A commit calls `append`, which gives it version, time and state hash and queues its bytes, and then
//! `wait`, which returns when the bytes are as safe as the durability promises. Order in the log is
//! order of versions. Files: `WAL/wal-000001.seg` and so on; bytes: `format`.
//!
//! Write-order rules that recovery relies on:
//! 1. a segment is synced before the next one gets its name, and the next is synced, name and all, before it
//!    takes a record: so only the newest can have a torn tail, and its header is whole if it has a record;
//! 2. `synced_upto` in a record never says more than was durable when the record was written;
//! 3. after a failed sync nothing is synced on that file again, after a failed write nothing is written.

mod codec;
mod format;
mod hash;
pub(crate) mod read;
mod recover;
pub(crate) mod remains;
mod rotate;
mod segment;
mod state;
mod turnstile;
mod window;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::env::{Clock, Env};
use crate::error::{Error, Result};
use crate::seal::{KeyId, Keyring};
use writer::Writer;

pub use codec::{Codec, Place};
pub use hash::StateHash;
pub use recover::Recovery;
pub use segment::{DIR as DIRECTORY, path};

/// Versions fit a signed number too, as Python's and SQL's clients like them. Half a million years of commits.
const LARGEST_VERSION: u64 = i64::MAX as u64;

/// What is done before a commit is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: no file is ever made.
    Memory,
    /// The bytes were handed to the operating system: safe from the death of the process, and from a power cut
    /// but for the last flush interval.
    Buffered,
    /// The bytes are on disk.
    Strict,
}

#[derive(Debug, Clone)]
pub struct LogOptions {
    pub durability: Durability,
    /// A segment takes records until they reach this size. A record that is larger gets a segment of its own.
    pub segment_bytes: u64,
    /// Buffered: what a power cut can take was acknowledged within this time of each other.
    pub flush_interval_us: u64,
    /// Payloads longer than this are packed when that makes them shorter.
    pub compress_above: usize,
    pub database_id: [u8; 16],
    /// Segments are sealed with the current key, and those that are sealed with any of them can be read.
    pub keys: Option<Arc<Keyring>>,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            durability: Durability::Buffered,
            segment_bytes: 16 << 20,
            flush_interval_us: 100_000,
            compress_above: 4096,
            database_id: [0; 16],
            keys: None,
        }
    }
}

/// Where the log begins, and what is known about it from elsewhere (the MANIFEST).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The first live segment; those before it are of no use any more.
    pub segment: u64,
    /// The position up to which the log is proven to have been durable.
    pub proven: u64,
    /// Version and time before the first record of the first live segment.
    pub version: u64,
    pub time: u64,
}

impl Default for Anchor {
    fn default() -> Anchor {
        Anchor { segment: 1, proven: 0, version: 0, time: 0 }
    }
}

/// What a record is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    Data,
    /// It ends a segment, for a checkpoint: on a full disk it may have what was left free for that.
    Upkeep,
    /// It deletes: it may have what is kept back for that.
    Room,
}

/// Where a checkpoint parts the log: all records up to `version` lie before `segment`, all others will not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The segment that takes records; it has none yet. 0 for a log without files.
    pub segment: u64,
    /// Version and time of the newest record.
    pub version: u64,
    pub time: u64,
    /// Where the first record of `segment` will begin: all before is durable.
    pub position: u64,
}

impl Cut {
    /// For the MANIFEST that makes the segments before the cut superfluous.
    pub fn anchor(&self) -> Anchor {
        Anchor { segment: self.segment, proven: self.position, version: self.version, time: self.time }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// What it is sealed with.
    pub key: KeyId,
    pub number: u64,
    /// Its header and records, without the space that is reserved behind them.
    pub bytes: u64,
}

/// Bytes since the log was opened: what was appended, and what it took in the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogBytes {
    pub payloads: u64,
    pub log: u64,
}

/// What the log gives to a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    pub version: u64,
    /// Microseconds since 1970, never less than that of the commit before.
    pub time: u64,
    pub hash: StateHash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub stamp: Stamp,
    /// Where the record ends in the log.
    pub position: u64,
}

/// One record, as recovery hands it out.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub stamp: Stamp,
    pub payload: &'a [u8],
    /// Where the record ends, and the segment that it is in.
    pub position: u64,
    pub segment: u64,
}

/// An open log. Any thread may append and wait.
pub struct Log {
    kind: Kind,
}

enum Kind {
    Memory {
        clock: Arc<dyn Clock>,
        last: Box<Newest>,
        /// What is on disk all the same: of a log that is only read, all of it.
        found: Box<Found>,
    },
    Disk(Arc<Writer>),
}

#[derive(Default)]
struct Found {
    durable: u64,
    position: u64,
    segments: Vec<SegmentInfo>,
}

impl Log {
    /// A log that keeps nothing and only gives stamps, after `anchor`.
    pub fn memory(env: &Env, anchor: Anchor) -> Log {
        Log {
            kind: Kind::Memory { clock: env.clock.clone(), last: Box::new(Newest::new(anchor)), found: Box::default() },
        }
    }

    /// Begin the log of a new database. It is durable, name and all, when this returns, so a MANIFEST may follow.
    ///
    /// Returns `Corrupt` when there are records already: then it is the MANIFEST that is missing.
    pub fn create(env: &Env, options: LogOptions, anchor: Anchor) -> Result<Log> {
        check(&options)?;
        recover::clear_unused(env, anchor)?;
        let start = recover::begin(env, &options, anchor)?;
        Ok(Log { kind: Kind::Disk(Writer::start(env, options, start)?) })
    }

    /// Read the log that is there, hand each record to `apply` in order, and go on behind the last.
    ///
    /// When this fails, nothing on disk has changed but for what every open does (a sync), and the caller drops what
    /// was applied. Returns `Corrupt` when something is missing or damaged that was once durable.
    pub fn recover(
        env: &Env,
        options: LogOptions,
        anchor: Anchor,
        apply: &mut dyn FnMut(Entry<'_>) -> Result<()>,
    ) -> Result<(Log, Recovery)> {
        check(&options)?;
        let (start, recovery) = recover::recover(env, &options, anchor, apply)?;
        Ok((Log { kind: Kind::Disk(Writer::start(env, options, start)?) }, recovery))
    }

    /// Read the log that is there as `recover` does, and leave it as it is. What is returned keeps nothing.
    pub fn read(
        env: &Env,
        options: LogOptions,
        anchor: Anchor,
        apply: &mut dyn FnMut(Entry<'_>) -> Result<()>,
    ) -> Result<(Log, Recovery)> {
        let end = recover::read(env, &options, anchor, apply)?;
        let last = Box::new(Newest::new(Anchor { version: end.version, time: end.time, ..anchor }));
        let found = Found { durable: end.version, position: end.recovery.end, segments: end.segments() };
        let kind = Kind::Memory { clock: env.clock.clone(), last, found: Box::new(found) };
        Ok((Log { kind }, end.recovery))
    }

    /// Give the next version and time to a commit, and queue its record. `previous` is the state hash it builds on.
    ///
    /// After an error nothing was queued. After success the outcome is open until `wait` returned.
    pub fn append(&self, previous: StateHash, payload: &[u8]) -> Result<Appended> {
        self.append_at(self.now(), previous, payload)
    }

    /// `append` at the time `now`, or the newest commit's where that is later.
    pub fn append_at(&self, now: u64, previous: StateHash, payload: &[u8]) -> Result<Appended> {
        self.append_for(Use::Data, now, previous, payload)
    }

    pub fn append_for(&self, use_for: Use, now: u64, previous: StateHash, payload: &[u8]) -> Result<Appended> {
        match &self.kind {
            Kind::Memory { last, .. } => last.append(now, previous),
            Kind::Disk(writer) => writer.append(now, previous, payload, use_for),
        }
    }

    /// The wall clock. It may run backwards; commits do not.
    pub fn now(&self) -> u64 {
        match &self.kind {
            Kind::Memory { clock, .. } => clock.wall_us(),
            Kind::Disk(writer) => writer.now(),
        }
    }

    /// Return when the record is as safe as the durability promises.
    ///
    /// Returns `OutcomeUnknown` when that cannot be had any more; every later `wait` then says so, too.
    pub fn wait(&self, appended: &Appended) -> Result<()> {
        match &self.kind {
            Kind::Memory { .. } => Ok(()),
            Kind::Disk(writer) => writer.wait(appended),
        }
    }

    /// Whether `wait` would now wait for a disk, so that a caller can let go of its locks first. Cheap, and a guess.
    pub fn would_wait(&self) -> bool {
        match &self.kind {
            Kind::Memory { .. } => false,
            Kind::Disk(writer) => writer.would_wait(),
        }
    }

    /// Make all that was appended durable; returns the durable version.
    pub fn flush(&self) -> Result<u64> {
        match &self.kind {
            Kind::Memory { found, .. } => Ok(found.durable),
            Kind::Disk(writer) => writer.flush(),
        }
    }

    /// The newest version that a power cut cannot take.
    pub fn durable_version(&self) -> u64 {
        match &self.kind {
            Kind::Memory { found, .. } => found.durable,
            Kind::Disk(writer) => writer.durable_version(),
        }
    }

    pub fn last_version(&self) -> u64 {
        match &self.kind {
            Kind::Memory { last, .. } => last.version.0.load(Ordering::Relaxed),
            Kind::Disk(writer) => writer.last().0,
        }
    }

    pub fn last_time(&self) -> u64 {
        match &self.kind {
            Kind::Memory { last, .. } => last.time.0.load(Ordering::Relaxed),
            Kind::Disk(writer) => writer.last().1,
        }
    }

    /// How long the oldest acknowledged and not yet durable commit has waited, in microseconds; 0 when there is none.
    pub fn unflushed_us(&self) -> u64 {
        match &self.kind {
            Kind::Memory { .. } => 0,
            Kind::Disk(writer) => writer.unflushed_us(),
        }
    }

    /// Why the log takes no more records, if so.
    pub fn poisoned(&self) -> Option<Error> {
        match &self.kind {
            Kind::Memory { .. } => None,
            Kind::Disk(writer) => writer.poisoned(),
        }
    }

    /// The number of the segment that takes records: segments below the one of a checkpoint can be retired.
    pub fn segment(&self) -> u64 {
        match &self.kind {
            Kind::Memory { .. } => 0,
            Kind::Disk(writer) => writer.segment(),
        }
    }

    /// The segments that are there, the newest last.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        match &self.kind {
            Kind::Memory { found, .. } => found.segments.clone(),
            Kind::Disk(writer) => writer.segments(),
        }
    }

    /// Where the next record will begin. Cheap: less the position of the last cut it is what a recovery has to read.
    pub fn position(&self) -> u64 {
        match &self.kind {
            Kind::Memory { found, .. } => found.position,
            Kind::Disk(writer) => writer.position.load(Ordering::Relaxed),
        }
    }

    /// The position below which a power cut takes nothing.
    pub fn durable_position(&self) -> u64 {
        match &self.kind {
            Kind::Memory { found, .. } => found.position,
            Kind::Disk(writer) => writer.durable_position(),
        }
    }

    /// What was appended since this was opened.
    pub fn written(&self) -> LogBytes {
        match &self.kind {
            Kind::Memory { .. } => LogBytes::default(),
            Kind::Disk(writer) => writer.written(),
        }
    }

    /// Make all that was appended durable, and see to it that the segment that takes records has none.
    ///
    /// Others append meanwhile, but for the small end of it. After an error nothing is cut, and unless the log is
    /// poisoned then it may be tried again.
    pub fn cut(&self) -> Result<Cut> {
        match &self.kind {
            Kind::Memory { found, .. } => {
                Ok(Cut { segment: 0, version: self.last_version(), time: self.last_time(), position: found.position })
            }
            Kind::Disk(writer) => writer.cut(),
        }
    }

    /// Seal with the current key of `keys` what is appended after the next `cut`, or the next segment that fills before.
    pub fn set_keys(&self, keys: Option<Arc<Keyring>>) {
        if let Kind::Disk(writer) = &self.kind {
            writer.set_keys(keys);
        }
    }

    /// Remove the segments below `segment`. Call this only when a MANIFEST that begins at `segment` is durable.
    pub fn retire(&self, segment: u64) -> Result<()> {
        match &self.kind {
            Kind::Memory { .. } => Ok(()),
            Kind::Disk(writer) => writer.retire(segment),
        }
    }

    /// Stop the flusher, make everything durable and give reserved space back. Returns the position that is proven
    /// durable, for the MANIFEST. Later appends get `Closed`.
    pub fn close(&self) -> Result<u64> {
        match &self.kind {
            Kind::Memory { .. } => Ok(0),
            Kind::Disk(writer) => writer.close(),
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Kind::Disk(writer) = &self.kind {
            writer.stop();
        }
    }
}

/// Version and time of the newest commit of a log without records.
///
/// Two atomics and no lock: threads on branches of their own meet here only, and a contended lock parks them, which took
/// a third of their speed (`benches/threads.rs`). So of two commits on different branches the later version may have the
/// earlier time; along a branch both rise, as its commits come here one after the other.
struct Newest {
    version: Alone<AtomicU64>,
    time: Alone<AtomicU64>,
}

/// Two cache lines for itself (processors fetch them in pairs): what one thread writes often must not take from others
/// what they only read.
#[repr(align(128))]
struct Alone<T>(T);

impl Newest {
    fn new(anchor: Anchor) -> Newest {
        Newest { version: Alone(AtomicU64::new(anchor.version)), time: Alone(AtomicU64::new(anchor.time)) }
    }

    /// Without records there is nothing to compare, so the state hash stays what it was.
    fn append(&self, now: u64, hash: StateHash) -> Result<Appended> {
        // Many commits fall into one microsecond: most find its time there already.
        let newest = self.time.0.load(Ordering::Relaxed);
        let time = if newest < now { self.time.0.fetch_max(now, Ordering::Relaxed).max(now) } else { newest };
        let version = next_version(self.version.0.fetch_add(1, Ordering::Relaxed))?;
        Ok(Appended { stamp: Stamp { version, time, hash }, position: 0 })
    }
}

fn next_version(last: u64) -> Result<u64> {
    if last >= LARGEST_VERSION {
        return Err(Error::LimitExceeded { what: "number of versions", limit: LARGEST_VERSION, actual: last });
    }
    Ok(last + 1)
}

fn check(options: &LogOptions) -> Result<()> {
    if options.durability == Durability::Memory {
        return Err(Error::InvalidInput("durability 'memory' has no files: use Log::memory".to_owned()));
    }
    let strange = options.keys.as_ref().is_some_and(|keys| keys.database_id() != options.database_id);
    assert!(!strange, "the keys were made for another database");
    Ok(())
}
