//! What the writer keeps under its lock, and what a failure makes of it.

use std::sync::Arc;

use super::format::SEGMENT_HEADER;
use super::segment::{self, Prepared, Segment};
use super::window::Window;
use super::{Cut, SegmentInfo, Stamp};
use crate::error::{Error, Result};
use crate::seal::Keyring;

/// Where appending goes on: all below `end` is durable.
pub(super) struct Start {
    pub segment: Segment,
    pub closed_segments: Vec<SegmentInfo>,
    pub end: u64,
    pub checksum: u32,
    pub version: u64,
    pub time: u64,
    pub keys: Option<Arc<Keyring>>,
}

pub(super) struct State {
    /// For the next segment.
    pub keys: Option<Arc<Keyring>>,
    pub segment: Segment,
    /// Those before it that are still there.
    pub closed_segments: Vec<SegmentInfo>,
    /// The one that comes after it, if there is one already.
    pub next: Option<Prepared>,
    /// Records not yet written: they belong at `written`.
    pub queue: Vec<u8>,
    /// The other buffer, empty, so that appending goes on while one is written.
    pub spare: Vec<u8>,
    pub end: u64,
    /// Where it was at the start, and the bytes of all payloads since.
    pub started: u64,
    pub payload_bytes: u64,
    pub written: u64,
    pub synced: u64,
    pub version: u64,
    pub written_version: u64,
    pub synced_version: u64,
    pub time: u64,
    pub checksum: u32,
    pub writing: bool,
    pub syncing: bool,
    /// Someone makes `next`.
    pub preparing: bool,
    /// Someone changes the segment: nobody appends.
    pub turning: bool,
    pub window: Window,
    pub group: Group,
    pub failure: Option<Failure>,
    pub closed: bool,
}

/// Who waits for a sync (strict).
#[derive(Default)]
pub(super) struct Group {
    pub waiting: usize,
    /// How many the last sync let go: so many may come back.
    pub expected: usize,
    /// How long it took. In simulated time nothing, so there is no pause.
    pub sync_us: u64,
}

pub(super) struct Failure {
    pub error: Error,
    /// After a failed write what was written before can still be synced; after a failed sync nothing can.
    pub by_sync: bool,
}

/// The log has failed; the state says how.
pub(super) struct Broken;

impl State {
    pub fn new(start: Start) -> State {
        State {
            keys: start.keys,
            segment: start.segment,
            closed_segments: start.closed_segments,
            next: None,
            queue: Vec::new(),
            spare: Vec::new(),
            end: start.end,
            started: start.end,
            payload_bytes: 0,
            written: start.end,
            synced: start.end,
            version: start.version,
            written_version: start.version,
            synced_version: start.version,
            time: start.time,
            checksum: start.checksum,
            writing: false,
            syncing: false,
            preparing: false,
            turning: false,
            window: Window::default(),
            group: Group::default(),
            failure: None,
            closed: false,
        }
    }

    pub fn check_open(&self) -> Result<()> {
        if self.closed {
            return Err(Error::Closed("log"));
        }
        if self.failure.is_some() { Err(self.refusal()) } else { Ok(()) }
    }

    /// Whether someone works on a file.
    pub fn is_busy(&self) -> bool {
        self.writing || self.syncing || self.preparing || self.turning
    }

    /// Whether the segment has no record, and is sealed with the key that it should be.
    pub fn is_fresh(&self) -> bool {
        let is_empty = self.segment.offset(self.end) == SEGMENT_HEADER as u64;
        is_empty && self.segment.key == segment::key(self.keys.as_deref())
    }

    /// Whether it is time to prepare the next segment.
    pub fn needs_next(&self) -> bool {
        let (used, all) = (self.segment.offset(self.end), self.segment.offset(self.segment.limit));
        used > all / 2 && self.next.is_none() && !self.is_busy()
    }

    /// The cut before the segment that takes records, which has none yet.
    pub fn cut(&self) -> Cut {
        Cut { segment: self.segment.number, version: self.version, time: self.time, position: self.end }
    }

    /// Remember the first failure: those behind it follow from it.
    pub fn fail(&mut self, error: Error, by_sync: bool) -> Broken {
        let failure = self.failure.get_or_insert(Failure { error, by_sync });
        failure.by_sync |= by_sync;
        Broken
    }

    pub fn refusal(&self) -> Error {
        let Some(failure) = &self.failure else { return Error::Closed("log") };
        naming(failure.error.clone(), self.synced_version)
    }

    pub fn unknown(&self, stamp: &Stamp) -> Error {
        let transaction = format!("{}-{}", stamp.version, stamp.time);
        Error::OutcomeUnknown { transaction, reason: self.refusal().to_string() }
    }
}

fn naming(error: Error, version: u64) -> Error {
    let Error::Storage { operation, path, errno, message } = error else { return error };
    let message =
        format!("{message}; the last durable version is {version}, and nothing more is written until it is reopened");
    Error::Storage { operation, path, errno, message }
}
