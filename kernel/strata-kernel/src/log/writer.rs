//! Appending: one queue, one writer at a time, one sync at a time.
//!
//! Threads put records into the queue under the lock. Whoever then needs bytes written and finds nobody
//! writing takes the whole queue and writes it for all; likewise with syncs. Nobody holds the lock
//! while the disk works, so the next group gathers meanwhile. A change of segment is in `rotate`.
//!
//! Positions: `synced <= written <= end`. A record's outcome is known once `synced` (strict) or
//! `written` and the window (buffered) let it be; after a failure never.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::codec::{self, Codec, Place};
use super::format::{self, RecordHeader};
use super::segment;
use super::state::{Broken, Start, State};
use super::turnstile::Turnstile;
use super::{Appended, Durability, LogBytes, LogOptions, SegmentInfo, Stamp, StateHash, Use, hash, next_version};
use crate::env::{Env, Next, Worker};
use crate::error::{Error, Result};
use crate::sabotage;

pub(super) struct Writer {
    pub(super) env: Env,
    pub(super) options: LogOptions,
    pub(super) state: Mutex<State>,
    /// Told when `written`, `synced` or the segment moved, or the log failed.
    pub(super) changed: Turnstile,
    /// Told when as many wait for a sync as the one who leads expects.
    gathered: Condvar,
    flusher: OnceLock<Arc<dyn Worker>>,
    // Copies of what stands in `state`, for those who only look.
    durable_version: AtomicU64,
    oldest: AtomicU64,
    pub(super) position: AtomicU64,
}

const NEVER: u64 = u64::MAX;

/// A slow disk must not make those who are alone wait for others that do not come.
const LONGEST_PAUSE_US: u64 = 400;

pub(super) type Guard<'a> = MutexGuard<'a, State>;

impl Writer {
    pub fn start(env: &Env, options: LogOptions, start: Start) -> Result<Arc<Writer>> {
        let (version, position) = (start.version, start.end);
        let writer = Arc::new(Writer {
            env: env.clone(),
            options,
            state: Mutex::new(State::new(start)),
            changed: Turnstile::default(),
            gathered: Condvar::new(),
            flusher: OnceLock::new(),
            durable_version: AtomicU64::new(version),
            oldest: AtomicU64::new(NEVER),
            position: AtomicU64::new(position),
        });
        if writer.options.durability == Durability::Buffered {
            let weak = Arc::downgrade(&writer);
            let task = move || weak.upgrade().map_or(Next::Stop, |writer| writer.flush_due());
            let _ = writer.flusher.set(env.spawn.spawn("strata-flush", Box::new(task))?);
        }
        Ok(writer)
    }

    // --- what a commit calls ---------------------------------------------------------------------

    pub fn now(&self) -> u64 {
        self.env.clock.wall_us()
    }

    pub fn append(&self, now: u64, previous: StateHash, payload: &[u8], use_for: Use) -> Result<Appended> {
        // All that needs neither version nor place is done before the lock is taken.
        let packed = self.pack(payload)?;
        let (packed, codec) = packed.as_ref().map_or((payload, codec::NONE), |packed| (&packed[..], codec::LZ4));
        let raw_length = if codec == codec::NONE { 0 } else { payload.len() as u32 };
        let (packed_checksum, digest) = (format::payload_checksum(packed), hash::digest(payload));

        let mut state = self.state.lock();
        let size = self.make_room(&mut state, packed.len(), use_for)?;
        let (version, time) = (next_version(state.version)?, state.time.max(now));
        let stamp = Stamp { version, time, hash: StateHash::step(previous, version, time, digest) };
        let place = Place { segment: state.segment.number, position: state.end };
        let synced_upto = state.synced;
        let previous = state.checksum;
        let mut header = RecordHeader { codec, raw_length, previous, synced_upto, version, time, hash: stamp.hash };
        let State { segment, queue, .. } = &mut *state;
        state.checksum = match &segment.cipher {
            None => format::encode(queue, place, &header, packed, packed_checksum),
            Some(cipher) => {
                header.codec = codec::sealed(codec);
                header.raw_length = payload.len() as u32;
                format::encode_sealed(queue, place, &header, packed, cipher)
            }
        };
        (state.version, state.time) = (version, time);
        state.end += size;
        state.payload_bytes += payload.len() as u64;
        self.position.store(state.end, Ordering::Relaxed);
        Ok(Appended { stamp, position: state.end })
    }

    pub fn wait(&self, appended: &Appended) -> Result<()> {
        let mut state = self.state.lock();
        let safe = match self.options.durability {
            Durability::Strict => self.reach_synced(&mut state, appended.position),
            _ => self.reach_written(&mut state, appended.position),
        };
        if safe.is_err() {
            return Err(state.unknown(&appended.stamp));
        }
        if self.options.durability == Durability::Buffered {
            return self.acknowledge(state, appended);
        }
        Ok(())
    }

    /// Hold the acknowledgement back while it would stretch the span that a power cut can take beyond an interval.
    fn acknowledge(&self, mut state: Guard<'_>, appended: &Appended) -> Result<()> {
        while appended.position > state.synced {
            let now = self.env.clock.monotonic_us();
            let oldest = state.window.oldest();
            if oldest.is_none_or(|oldest| now.saturating_sub(oldest) <= self.options.flush_interval_us)
                || sabotage::on("T04")
            {
                state.window.acknowledge(appended.position, now);
                self.show_oldest(&state);
                drop(state);
                if oldest.is_none() {
                    self.wake_flusher();
                }
                return Ok(());
            }
            if self.sync_or_wait(&mut state).is_err() {
                return Err(state.unknown(&appended.stamp));
            }
        }
        Ok(())
    }

    fn pack(&self, payload: &[u8]) -> Result<Option<Vec<u8>>> {
        if payload.len() > format::MAX_PAYLOAD {
            let (limit, actual) = (format::MAX_PAYLOAD as u64, payload.len() as u64);
            return Err(Error::LimitExceeded { what: "size of a commit in bytes", limit, actual });
        }
        if payload.len() <= self.options.compress_above {
            return Ok(None);
        }
        // LZ4 does not look at the place. What does, is done under the lock: sealing.
        let mut packed = Vec::new();
        let shorter = codec::Lz4.pack(Place { segment: 0, position: 0 }, payload, &mut packed);
        Ok(shorter.then_some(packed))
    }

    // --- writing and syncing: who finds nobody at it leads, the others wait ------------------------

    fn reach_written(&self, state: &mut Guard<'_>, position: u64) -> Result<(), Broken> {
        while state.written < position && !sabotage::on("T01") {
            self.write_or_wait(state)?;
        }
        // A failure of what came before or behind: nothing is acknowledged any more that is not durable.
        if state.failure.is_some() && state.synced < position { Err(Broken) } else { Ok(()) }
    }

    pub(super) fn reach_synced(&self, state: &mut Guard<'_>, position: u64) -> Result<(), Broken> {
        if sabotage::on("T02") {
            return self.reach_written(state, position);
        }
        state.group.waiting += 1;
        if state.group.waiting >= state.group.expected {
            self.gathered.notify_one();
        }
        let mut outcome = Ok(());
        while state.synced < position && outcome.is_ok() {
            outcome = if state.syncing { self.sync_or_wait(state) } else { self.lead_group(state) };
        }
        state.group.waiting -= 1;
        outcome
    }

    /// Write and sync for all that wait.
    ///
    /// Those whom the last sync let go come back at once, mostly. Without a pause for them the first one back would
    /// sync its one record, and all others would wait for that and the next sync: 46 us a commit against 37, 8 threads on 2 busy cores.
    fn lead_group(&self, state: &mut Guard<'_>) -> Result<(), Broken> {
        if state.group.waiting < state.group.expected && state.failure.is_none() {
            state.syncing = true; // the others wait
            let pause = Duration::from_micros(state.group.sync_us / 2);
            self.gathered.wait_for(state, pause);
            state.syncing = false;
        }
        let start = self.env.clock.monotonic_us();
        let waiting = state.group.waiting;
        while !state.queue.is_empty() {
            self.write_or_wait(state)?;
        }
        self.sync_or_wait(state)?;
        state.group.expected = waiting;
        state.group.sync_us = self.env.clock.monotonic_us().saturating_sub(start).min(LONGEST_PAUSE_US);
        Ok(())
    }

    pub(super) fn write_or_wait(&self, state: &mut Guard<'_>) -> Result<(), Broken> {
        if state.failure.is_some() {
            return Err(Broken);
        }
        if state.writing {
            self.changed.wait(state);
            return Ok(());
        }
        let spare = std::mem::take(&mut state.spare);
        let mut bytes = std::mem::replace(&mut state.queue, spare);
        let (file, offset) = (state.segment.file.clone(), state.segment.offset(state.written));
        let (version, count) = (state.version, bytes.len() as u64);
        state.writing = true;
        let outcome = MutexGuard::unlocked(state, || file.write_at(offset, &bytes));
        state.writing = false;
        // A buffer that one large commit blew up is not kept.
        if bytes.capacity() <= 1 << 20 {
            bytes.clear();
            state.spare = bytes;
        }
        self.wrote(state, count, version, outcome)
    }

    fn wrote(&self, state: &mut State, count: u64, version: u64, outcome: Result<()>) -> Result<(), Broken> {
        let outcome = if sabotage::on("T11") { Ok(()) } else { outcome };
        self.changed.turn();
        match outcome {
            Ok(()) => {
                state.written += count;
                state.written_version = version;
                Ok(())
            }
            Err(error) => Err(state.fail(error, false)),
        }
    }

    /// Sync what is written, or wait for the sync that runs.
    pub(super) fn sync_or_wait(&self, state: &mut Guard<'_>) -> Result<(), Broken> {
        if state.failure.as_ref().is_some_and(|failure| failure.by_sync) {
            return Err(Broken);
        }
        if state.syncing {
            self.changed.wait(state);
            return Ok(());
        }
        let file = state.segment.file.clone();
        let (position, version) = (state.written, state.written_version);
        state.syncing = true;
        state.window.sync_begins(position);
        let outcome = MutexGuard::unlocked(state, || file.sync());
        state.syncing = false;
        self.synced(state, position, version, outcome)?;
        // A write that failed meanwhile leaves nothing to wait for.
        if state.failure.is_some() { Err(Broken) } else { Ok(()) }
    }

    fn synced(&self, state: &mut State, position: u64, version: u64, outcome: Result<()>) -> Result<(), Broken> {
        self.changed.turn();
        match outcome {
            Ok(()) => {
                (state.synced, state.synced_version) = (position, version);
                state.window.sync_ended_well();
                self.durable_version.store(version, Ordering::Release);
                self.show_oldest(state);
                Ok(())
            }
            Err(_) if sabotage::on("T13") => Ok(()),
            Err(error) => Err(state.fail(error, true)),
        }
    }

    // --- the flusher -------------------------------------------------------------------------------

    /// Sync when the oldest acknowledgement at risk is half an interval old: the other half is for the disk.
    fn flush_due(&self) -> Next {
        let half = self.options.flush_interval_us / 2;
        let mut state = self.state.lock();
        loop {
            if state.closed || state.failure.as_ref().is_some_and(|failure| failure.by_sync) {
                return Next::Stop;
            }
            let Some(oldest) = state.window.oldest() else { return Next::After(NEVER) };
            let age = self.env.clock.monotonic_us().saturating_sub(oldest);
            if age < half || sabotage::on("T03") {
                return Next::After(half.saturating_sub(age).max(1));
            }
            // The outcome stands in the state: the next turn, or the next commit, sees it.
            let _ = self.sync_or_wait(&mut state);
            if state.needs_next() {
                // On a full disk the commit that needs it tries again, and says so.
                let _ = self.prepare(&mut state, Use::Data);
            }
        }
    }

    fn wake_flusher(&self) {
        if let Some(flusher) = self.flusher.get() {
            flusher.wake();
        }
    }

    fn show_oldest(&self, state: &State) {
        self.oldest.store(state.window.oldest().unwrap_or(NEVER), Ordering::Relaxed);
    }

    // --- for those who look, and the end ------------------------------------------------------------

    pub fn would_wait(&self) -> bool {
        match self.options.durability {
            Durability::Strict => true,
            _ => {
                let oldest = self.oldest.load(Ordering::Relaxed);
                // A tenth early: between the question and the wait time passes.
                let limit = self.options.flush_interval_us / 10 * 9;
                oldest != NEVER && self.env.clock.monotonic_us().saturating_sub(oldest) > limit
            }
        }
    }

    pub fn flush(&self) -> Result<u64> {
        let mut state = self.state.lock();
        if state.closed {
            return Ok(self.durable_version());
        }
        let end = state.end;
        // What is owed to the disk is tried even after a failed write, and reported as failed all the same.
        let outcome = self.reach_synced(&mut state, end);
        if outcome.is_err() || state.failure.is_some() { Err(state.refusal()) } else { Ok(self.durable_version()) }
    }

    pub fn durable_version(&self) -> u64 {
        self.durable_version.load(Ordering::Acquire)
    }

    pub fn durable_position(&self) -> u64 {
        self.state.lock().synced
    }

    pub fn written(&self) -> LogBytes {
        let state = self.state.lock();
        LogBytes { payloads: state.payload_bytes, log: state.end - state.started }
    }

    pub fn last(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.version, state.time)
    }

    pub fn unflushed_us(&self) -> u64 {
        match self.oldest.load(Ordering::Relaxed) {
            NEVER => 0,
            oldest => self.env.clock.monotonic_us().saturating_sub(oldest),
        }
    }

    pub fn poisoned(&self) -> Option<Error> {
        let state = self.state.lock();
        state.failure.is_some().then(|| state.refusal())
    }

    pub fn segment(&self) -> u64 {
        self.state.lock().segment.number
    }

    pub fn segments(&self) -> Vec<SegmentInfo> {
        let state = self.state.lock();
        let segment::Segment { key, number, base, .. } = state.segment;
        let newest = SegmentInfo { key, number, bytes: state.end - base };
        state.closed_segments.iter().copied().chain([newest]).collect()
    }

    pub fn retire(&self, segment: u64) -> Result<()> {
        assert!(segment <= self.segment(), "the segment that takes records cannot go");
        loop {
            let first = self.state.lock().closed_segments.first().copied();
            let Some(first) = first.filter(|first| first.number < segment) else { return Ok(()) };
            self.env.disk.remove(&segment::path(first.number))?;
            self.state.lock().closed_segments.retain(|kept| kept.number != first.number);
        }
    }

    /// Stop the flusher. What was acknowledged stays with the operating system.
    pub fn stop(&self) {
        if let Some(flusher) = self.flusher.get() {
            flusher.stop();
        }
    }

    pub fn close(&self) -> Result<u64> {
        self.stop(); // not under the lock: the flusher may need it to end
        let mut state = self.state.lock();
        while state.is_busy() {
            self.changed.wait(&mut state);
        }
        if state.closed {
            return Ok(state.end);
        }
        if let Some(next) = state.next.take() {
            // A name too many does no harm: the next recovery removes it.
            let _ = next.discard(&*self.env.disk);
        }
        if state.failure.is_some() {
            // What was acknowledged before a write failed is still owed to the disk.
            let _ = self.sync_or_wait(&mut state);
            return Err(state.refusal());
        }
        state.turning = true; // nobody appends any more
        let drained = self.drain(&mut state, true);
        state.turning = false;
        self.changed.turn();
        drained.map_err(|Broken| state.refusal())?;
        let used = state.segment.offset(state.end);
        // What deletions were given on a full disk they still have when it is opened again.
        let given_back = if state.segment.is_spare { Ok(()) } else { state.segment.file.set_len(used) };
        let cut = given_back.and_then(|()| state.segment.file.sync());
        if let Err(error) = cut {
            let Broken = state.fail(error, true);
            return Err(state.refusal());
        }
        state.closed = true;
        Ok(state.end)
    }
}
