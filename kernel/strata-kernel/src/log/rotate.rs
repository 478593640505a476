//! A change of segment: when one is full, and at a checkpoint's cut.
//!
//! What takes long is done while others append: the next file is made and its space reserved under a name that is none
//! of the log's, and at a cut all there is so far is synced. Then, `turning`, nobody appends: the small rest is written and
//! synced, and the new file gets its header, is synced and gets its name. The lock is free all the while, so that
//! those who only look do not wait.
//!
//! A failure before the new name may be there changes nothing, and may be tried again; but a failed sync poisons.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::format::{self, SegmentHeader};
use super::segment::{self, Prepared, Segment};
use super::state::Broken;
use super::writer::{Guard, Writer};
use super::{Cut, SegmentInfo, Use};
use crate::error::Result;
use crate::sabotage;
use crate::seal::Keyring;

/// What a new segment leaves free on the disk: a part of its size, and no more than this.
const FREE_SHARE: u64 = 4;
const FREE_MOST: u64 = 1 << 20;

impl Writer {
    /// Return when a record with `packed` bytes of payload fits, nobody changes the segment, and the log takes records.
    /// Returns the bytes that the record takes. On a full disk only one that makes room fits.
    pub(super) fn make_room(&self, state: &mut Guard<'_>, packed: usize, use_for: Use) -> Result<u64> {
        loop {
            state.check_open()?;
            let size = state.segment.record_size(packed);
            if state.turning {
                self.changed.wait(state);
            } else if state.end + size <= state.segment.limit && state.segment.takes(use_for) {
                return Ok(size);
            } else if state.next.is_none() {
                // A full disk shows here, before anything of the record was handed over.
                self.prepare(state, use_for)?;
            } else {
                self.turn(state, format::record_size(packed + format::SEALED_EXTRA) as u64)?;
            }
        }
    }

    /// End the segment unless it is fresh; all there is, is durable then.
    pub fn cut(&self) -> Result<Cut> {
        let mut state = self.state.lock();
        let mut synced = false;
        loop {
            state.check_open()?;
            if state.turning {
                self.changed.wait(&mut state);
            } else if state.is_fresh() {
                return Ok(state.cut());
            } else if state.next.is_none() {
                self.prepare(&mut state, Use::Upkeep)?;
            } else if !synced {
                let end = state.end;
                self.reach_synced(&mut state, end).map_err(|Broken| state.refusal())?;
                synced = true;
            } else {
                self.turn(&mut state, 0)?;
            }
        }
    }

    /// Seal what comes behind the next change of segment with the current key of `keys`.
    pub fn set_keys(&self, keys: Option<Arc<Keyring>>) {
        self.state.lock().keys = keys;
    }

    /// Make the file of the next segment.
    pub(super) fn prepare(&self, state: &mut Guard<'_>, use_for: Use) -> Result<()> {
        if state.preparing {
            self.changed.wait(state);
            return Ok(());
        }
        state.preparing = true;
        let made = MutexGuard::unlocked(state, || self.make_next(use_for));
        state.preparing = false;
        self.changed.turn();
        state.next = Some(made?);
        Ok(())
    }

    /// On a full disk upkeep may have what was left free, and deletions the spare, too.
    fn make_next(&self, use_for: Use) -> Result<Prepared> {
        let (disk, bytes) = (&*self.env.disk, self.options.segment_bytes);
        let made = segment::prepare(disk, bytes, (bytes / FREE_SHARE).min(FREE_MOST));
        if made.is_ok() {
            segment::keep_spare(disk, bytes);
        }
        match use_for {
            _ if made.is_ok() => made,
            Use::Data => made,
            Use::Upkeep => segment::prepare_small(disk, bytes),
            Use::Room => match segment::take_spare(disk)? {
                Some(spare) => Ok(spare),
                None => segment::prepare_small(disk, bytes),
            },
        }
    }

    /// Finish this segment and begin the prepared one, with room for a record of `size` bytes.
    fn turn(&self, state: &mut Guard<'_>, size: u64) -> Result<()> {
        state.turning = true;
        let outcome = self.begin_next(state, size);
        state.turning = false;
        self.changed.turn();
        outcome
    }

    fn begin_next(&self, state: &mut Guard<'_>, size: u64) -> Result<()> {
        self.drain(state, !sabotage::on("T05")).map_err(|Broken| state.refusal())?;
        let disk = &*self.env.disk;
        let header = SegmentHeader {
            database_id: self.options.database_id,
            number: state.segment.number + 1,
            base: state.end,
            previous: state.checksum,
            key: segment::key(state.keys.as_deref()),
        };
        let cipher = segment::cipher(state.keys.as_deref(), &header)?;
        let mut next = state.next.take().expect("it was prepared, and only who turns takes it");
        let room = format::SEGMENT_HEADER as u64 + size;
        if let Err(error) = MutexGuard::unlocked(state, || next.begin(&header, room)) {
            let _ = next.discard(disk);
            return Err(error);
        }
        if let Err(error) = MutexGuard::unlocked(state, || next.file.sync()) {
            let Broken = state.fail(error, true);
            return Err(state.refusal());
        }
        // Once its successor may have its name the segment takes no more records, even if this fails: rule 1.
        state.segment.limit = state.end;
        MutexGuard::unlocked(state, || next.name(disk, header.number))?;
        if let Err(error) = MutexGuard::unlocked(state, || segment::sync_names(disk)) {
            let Broken = state.fail(error, true);
            return Err(state.refusal());
        }
        let Segment { key, number, base, .. } = state.segment;
        let closed = SegmentInfo { key, number, bytes: state.end - base };
        state.closed_segments.push(closed);
        state.segment = next.into_segment(&header, cipher);
        state.end += format::SEGMENT_HEADER as u64;
        self.position.store(state.end, Ordering::Relaxed);
        (state.written, state.synced) = (state.end, if sabotage::on("T05") { state.synced } else { state.end });
        Ok(())
    }

    /// Write and sync all there is. The caller sees to it that nothing is appended meanwhile.
    pub(super) fn drain(&self, state: &mut Guard<'_>, sync: bool) -> Result<(), Broken> {
        while state.written < state.end {
            self.write_or_wait(state)?;
        }
        while sync && state.synced < state.end {
            self.sync_or_wait(state)?;
        }
        while state.writing || state.syncing {
            self.changed.wait(state);
        }
        if state.failure.is_some() { Err(Broken) } else { Ok(()) }
    }
}
