//! Opening the log that a process, or a power cut, left behind.
//!
//! Every segment but the newest is whole: each was synced before the next was created. In the newest,
//! let b be the first byte that is no valid record in its place. A record says how much of the log was
//! durable when it was written (`synced_upto`), and a power cut spoils only bytes that were not. So a
//! valid record behind b that knew b to be durable, or a MANIFEST that knows, makes this damage:
//! `Corrupt`, and nothing is changed. Otherwise the crash cut a write short, and the log ends at b.
//!
//! What this cannot tell: damage to the last synced records when nothing behind them tells of the sync.
//! It is cut like a torn tail. A clean close removes the case, since the MANIFEST then knows the end.

use std::sync::Arc;

use super::codec::{Place, Unpacker};
use super::format::{self, HeaderFault, Record, SEGMENT_HEADER, SegmentHeader};
use super::segment::{self, Segment};
use super::state::Start;
use super::{Anchor, Entry, LARGEST_VERSION, LogOptions, SegmentInfo, Stamp};
use crate::env::{Env, File};
use crate::error::{Error, NO_MEMORY, Result};
use crate::sabotage;
use crate::seal::{FileCipher, KeyId};

/// What opening found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovery {
    pub records: u64,
    /// Bytes of unfinished writes that were cut from the end; 0 when only zeros were there.
    pub cut_bytes: u64,
    /// The position where the log ends now. All below is durable.
    pub end: u64,
    pub segments: u64,
}

type Apply<'a> = &'a mut dyn FnMut(Entry<'_>) -> Result<()>;

/// The first segment of a new log, durable.
pub(super) fn begin(env: &Env, options: &LogOptions, anchor: Anchor) -> Result<Start> {
    env.disk.create_dir(segment::DIR)?;
    let keys = options.keys.as_deref();
    let header = SegmentHeader {
        database_id: options.database_id,
        number: anchor.segment,
        base: anchor.proven,
        previous: 0,
        key: segment::key(keys),
    };
    segment::keep_spare(&*env.disk, options.segment_bytes);
    let mut first = segment::prepare(&*env.disk, options.segment_bytes, 0)?;
    first.begin(&header, SEGMENT_HEADER as u64)?;
    first.file.sync()?;
    first.name(&*env.disk, header.number)?;
    segment::sync_names(&*env.disk)?;
    env.disk.sync_dir("")?;
    let segment = first.into_segment(&header, segment::cipher(keys, &header)?);
    Ok(Start {
        end: segment.base + SEGMENT_HEADER as u64,
        closed_segments: Vec::new(),
        segment,
        checksum: 0,
        version: anchor.version,
        time: anchor.time,
        keys: options.keys.clone(),
    })
}

/// Remove what a creation that did not come to its end has left. Records are never removed, nor anything beside them.
pub(super) fn clear_unused(env: &Env, anchor: Anchor) -> Result<()> {
    let numbers = segment::numbers(&*env.disk)?;
    for &number in &numbers {
        let path = segment::path(number);
        let Some(file) = env.disk.open(&path)? else { continue };
        let mut bytes = Vec::new();
        read_whole(&*file, &path, &mut bytes)?;
        if number != anchor.segment || used_bytes(bytes.get(SEGMENT_HEADER..).unwrap_or_default()) > 0 {
            let reason = "there is a log, and the MANIFEST that belongs to it is missing".to_owned();
            return Err(Error::Corrupt { file: path, offset: 0, reason });
        }
    }
    numbers.iter().try_for_each(|&number| env.disk.remove(&segment::path(number)))
}

/// Read the log to its end and make it ready to take records.
pub(super) fn recover(env: &Env, options: &LogOptions, anchor: Anchor, apply: Apply<'_>) -> Result<(Start, Recovery)> {
    read(env, options, anchor, apply)?.make_ready(env, options, anchor)
}

/// Read the log to its end. Changes nothing.
pub(super) fn read(env: &Env, options: &LogOptions, anchor: Anchor, apply: Apply<'_>) -> Result<End> {
    let found = find_segments(env, options, anchor)?;
    let mut reader = Reader::new(anchor, apply);
    for (index, header) in found.live.iter().enumerate() {
        let file = reader.load(env, options, header)?;
        match found.live.get(index + 1) {
            Some(next) => reader.closed_segment(header, next)?,
            None => return reader.newest_segment(env, anchor, header, file, found.unborn),
        }
    }
    unreachable!("there is at least one live segment")
}

/// Where the log ends, and what stands behind it.
pub(super) struct End {
    header: SegmentHeader,
    file: Arc<dyn File>,
    offset: usize,
    torn: usize,
    unborn: Option<u64>,
    checksum: u32,
    pub version: u64,
    pub time: u64,
    pub closed_segments: Vec<SegmentInfo>,
    pub recovery: Recovery,
}

impl End {
    /// The segments, the newest last.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let newest = SegmentInfo { key: self.header.key, number: self.header.number, bytes: self.offset as u64 };
        self.closed_segments.iter().copied().chain([newest]).collect()
    }

    /// Take away what was torn, and reserve room. All before is known to be well.
    fn make_ready(self, env: &Env, options: &LogOptions, anchor: Anchor) -> Result<(Start, Recovery)> {
        let End { header, file, mut offset, torn, unborn, checksum, version, time, closed_segments, mut recovery } =
            self;
        if let Some(number) = unborn {
            env.disk.remove(&segment::path(number))?;
            env.disk.sync_dir(segment::DIR)?;
        }
        segment::remove_unused(&*env.disk, anchor.segment)?;
        // Before anything else takes what is free.
        let has_spare = segment::keep_spare(&*env.disk, options.segment_bytes);
        let held = file.size()?;
        if sabotage::on("T08") {
            offset = (offset + torn).next_multiple_of(8);
        } else if torn > 0 {
            // Synced before anything is written behind it: the old bytes must not come back between new ones.
            file.set_len(offset as u64)?;
            file.sync()?;
        }
        let keys = options.keys.clone();
        let SegmentHeader { number, base, key, .. } = header;
        let end = base + offset as u64;
        recovery.end = end;
        // A segment of another key takes no more records.
        let goes_on = key == segment::key(keys.as_deref());
        let wanted = [options.segment_bytes, held];
        let limit = if goes_on { base + reserve(&*file, offset as u64, wanted)? } else { end };
        let cipher = if goes_on { segment::cipher(keys.as_deref(), &header)? } else { None };
        let segment = Segment { file, number, base, limit, is_spare: !has_spare, key, cipher };
        Ok((Start { segment, closed_segments, end, checksum, version, time, keys }, recovery))
    }
}

struct Found {
    /// Headers of the segments, the newest last; at least one.
    live: Vec<SegmentHeader>,
    /// A file behind them whose header never became durable: a change of segment that was cut short.
    unborn: Option<u64>,
}

/// Look at the headers of all segments, and tell what is missing, foreign or in the wrong place.
fn find_segments(env: &Env, options: &LogOptions, anchor: Anchor) -> Result<Found> {
    let mut numbers = segment::numbers(&*env.disk)?;
    numbers.retain(|number| *number >= anchor.segment);
    for (number, expected) in numbers.iter().zip(anchor.segment..) {
        if *number != expected {
            return Err(missing(expected));
        }
    }
    let Some(newest) = numbers.last().copied() else { return Err(missing(anchor.segment)) };
    // A process that was killed may have left names that a power cut could still take, with all we append to them.
    env.disk.sync_dir(segment::DIR)?;
    let mut found = Found { live: Vec::with_capacity(numbers.len()), unborn: None };
    for number in numbers {
        let path = segment::path(number);
        let file = env.disk.open(&path)?.ok_or_else(|| missing(number))?;
        // The newest, and the one before it when the newest was never begun: the cache may show what the disk lacks.
        if number + 1 >= newest && !sabotage::on("T14") {
            file.sync()?;
            file.drop_cache()?;
        }
        match read_header(&*file, &path)? {
            Ok(header) => {
                check_header(&header, number, &path, options)?;
                // Before anything is applied: whoever has not the key learns so at once.
                if let Err(refused) = segment::cipher(options.keys.as_deref(), &header)
                    && has_records(&*file, &path)?
                {
                    return Err(refused);
                }
                found.live.push(header);
            }
            Err(HeaderFault::TooNew(version)) => {
                return Err(Error::TooNew { file: path, found: version, known: format::FORMAT });
            }
            Err(HeaderFault::Bad(_)) if number == newest && !found.live.is_empty() => found.unborn = Some(number),
            Err(HeaderFault::Bad(reason)) => return Err(corrupt(number, 0, reason)),
        }
    }
    Ok(found)
}

fn read_header(file: &dyn File, path: &str) -> Result<Result<SegmentHeader, HeaderFault>> {
    let mut bytes = [0; SEGMENT_HEADER];
    let count = file.read_at(0, &mut bytes)?;
    if count < SEGMENT_HEADER && file.size()? > count as u64 {
        return Err(short_read(path));
    }
    Ok(SegmentHeader::decode(&bytes[..count]))
}

/// A segment without any takes no key: so it stays that of a backup when the key changes.
fn has_records(file: &dyn File, path: &str) -> Result<bool> {
    let mut bytes = Vec::new();
    read_whole(file, path, &mut bytes)?;
    Ok(used_bytes(bytes.get(SEGMENT_HEADER..).unwrap_or_default()) > 0)
}

fn check_header(header: &SegmentHeader, number: u64, path: &str, options: &LogOptions) -> Result<()> {
    if header.database_id != options.database_id {
        let reason = "the segment belongs to another database".to_owned();
        return Err(Error::Corrupt { file: path.to_owned(), offset: 16, reason });
    }
    if header.number != number {
        let reason = format!("the segment says that it is number {}", header.number);
        return Err(Error::Corrupt { file: path.to_owned(), offset: 32, reason });
    }
    Ok(())
}

/// Walks through the segments, with what must hold from one record to the next.
struct Reader<'a> {
    apply: Apply<'a>,
    bytes: Vec<u8>,
    /// Of the segment that is read.
    cipher: Option<FileCipher>,
    unpacker: Unpacker,
    checksum: Option<u32>,
    version: u64,
    time: u64,
    /// Position where the last segment ended; `None` before the first, which tells where it begins.
    end: Option<u64>,
    closed_segments: Vec<SegmentInfo>,
    recovery: Recovery,
}

impl<'a> Reader<'a> {
    fn new(anchor: Anchor, apply: Apply<'a>) -> Reader<'a> {
        Reader {
            apply,
            bytes: Vec::new(),
            cipher: None,
            unpacker: Unpacker::default(),
            checksum: None,
            version: anchor.version,
            time: anchor.time,
            end: None,
            closed_segments: Vec::new(),
            recovery: Recovery::default(),
        }
    }

    /// Read a segment, and check that it follows on the one before.
    fn load(&mut self, env: &Env, options: &LogOptions, header: &SegmentHeader) -> Result<Arc<dyn File>> {
        let path = segment::path(header.number);
        let file = env.disk.open(&path)?.ok_or_else(|| missing(header.number))?;
        read_whole(&*file, &path, &mut self.bytes)?;
        if self.end.is_some_and(|end| end != header.base) || header.base > segment::MOST {
            return Err(corrupt(header.number, 40, "the segment does not begin where the one before ends"));
        }
        if *self.checksum.get_or_insert(header.previous) != header.previous {
            return Err(corrupt(header.number, 48, "the segment does not follow on the one before"));
        }
        let cipher = segment::cipher(options.keys.as_deref(), header);
        self.cipher = if used_bytes(self.bytes.get(SEGMENT_HEADER..).unwrap_or_default()) > 0 { cipher? } else { None };
        self.recovery.segments += 1;
        Ok(file)
    }

    /// All of a segment that has a successor: the successor's base tells where it must end.
    fn closed_segment(&mut self, header: &SegmentHeader, next: &SegmentHeader) -> Result<()> {
        let length = next.base.checked_sub(header.base).and_then(|length| usize::try_from(length).ok());
        let Some(length) = length.filter(|length| (SEGMENT_HEADER..=self.bytes.len()).contains(length)) else {
            return Err(corrupt(header.number, self.bytes.len() as u64, "the segment has not the length it had"));
        };
        let (offset, reason) = self.scan(header, length)?;
        if offset != length {
            return Err(corrupt(header.number, offset as u64, reason));
        }
        self.end = Some(next.base);
        self.closed_segments.push(SegmentInfo { key: header.key, number: header.number, bytes: length as u64 });
        Ok(())
    }

    /// The last segment: find where the log ends, and whether that is a crash's doing or damage.
    fn newest_segment(
        mut self,
        env: &Env,
        anchor: Anchor,
        header: &SegmentHeader,
        file: Arc<dyn File>,
        unborn: Option<u64>,
    ) -> Result<End> {
        let (offset, reason) = self.scan(header, self.bytes.len())?;
        let torn = used_bytes(&self.bytes[offset..]);
        let mut proven = anchor.proven;
        if torn > 0 {
            proven = proven.max(self.witnessed(header, offset)?);
        }
        if let Some(number) = unborn {
            // A segment is synced before its successor is created, so nothing in this one can be torn.
            let successor = Successor { env, number, base: header.base + offset as u64 };
            if torn > 0 || successor.has_records()? {
                proven = u64::MAX;
            }
        }
        let cut_anyway = sabotage::on("T10") && torn > 0;
        if (header.base + (offset as u64) < proven && !cut_anyway) || (sabotage::on("T09") && torn > 0) {
            let reason = format!("{reason}, though the log was durable beyond");
            return Err(corrupt(header.number, offset as u64, &reason));
        }
        if sabotage::on("T21") {
            self.twice(header, offset)?;
        }
        self.recovery.cut_bytes = torn as u64;
        self.recovery.end = header.base + offset as u64;
        Ok(End {
            header: *header,
            file,
            offset,
            torn,
            unborn,
            checksum: self.checksum.unwrap_or_default(),
            version: self.version,
            time: self.time,
            closed_segments: self.closed_segments,
            recovery: self.recovery,
        })
    }

    /// Apply records up to `limit`; returns the offset behind the last good one and why the next is none.
    fn scan(&mut self, header: &SegmentHeader, limit: usize) -> Result<(usize, &'static str)> {
        let bytes = std::mem::take(&mut self.bytes);
        let mut offset = SEGMENT_HEADER;
        let mut reason = "the log ends here";
        while offset < limit {
            match self.next(&bytes, offset, header) {
                Ok(record) => offset = self.take(&record, offset, header)?,
                Err(_) if sabotage::on("T07") && is_zero_record(&bytes, offset) => {
                    offset = self.take_zeros(offset, header)?;
                }
                Err(why) => {
                    reason = why;
                    break;
                }
            }
        }
        self.bytes = bytes;
        Ok((offset, reason))
    }

    fn next<'b>(&self, bytes: &'b [u8], offset: usize, header: &SegmentHeader) -> Result<Record<'b>, &'static str> {
        let record = format::read(bytes, offset, place(header, offset))?;
        if self.checksum != Some(record.header.previous) && !sabotage::on("T15") {
            return Err("a record does not follow on the one before");
        }
        if record.header.version <= self.version || record.header.time < self.time {
            return Err("the version or time of a record runs backwards");
        }
        if record.header.version > LARGEST_VERSION {
            return Err("a record has a version that cannot be reached");
        }
        Ok(record)
    }

    fn take(&mut self, record: &Record<'_>, offset: usize, header: &SegmentHeader) -> Result<usize> {
        let fields = &record.header;
        let (hash, payload) = self
            .unpacker
            .unpack(place(header, offset), record, self.cipher.as_ref())
            .map_err(|unreadable| unreadable.at(segment::path(header.number), offset as u64))?;
        let stamp = Stamp { version: fields.version, time: fields.time, hash };
        let position = header.base + record.end as u64;
        (self.apply)(Entry { stamp, payload, position, segment: header.number })?;
        self.checksum = Some(record.checksum);
        (self.version, self.time) = (fields.version, fields.time);
        self.recovery.records += 1;
        Ok(record.end)
    }

    /// How far the log was known to be durable by any valid record behind the damage at `offset`.
    fn witnessed(&self, header: &SegmentHeader, offset: usize) -> Result<u64> {
        // Bytes made to look like many long records would make this quadratic. No crash leaves such.
        let mut budget = self.bytes.len().saturating_mul(16);
        let mut proven = 0;
        let mut at = offset;
        while at + format::RECORD_HEADER <= self.bytes.len() {
            if let Ok(record) = format::read(&self.bytes, at, place(header, at)) {
                proven = proven.max(record.header.synced_upto.min(header.base + at as u64));
            }
            budget = budget.saturating_sub(format::claimed_length(&self.bytes, at));
            if budget == 0 {
                return Err(corrupt(header.number, at as u64, "the bytes behind the damage were made to mislead"));
            }
            at += 8;
        }
        Ok(proven)
    }

    // --- planted bugs -------------------------------------------------------------------------------

    fn take_zeros(&mut self, offset: usize, header: &SegmentHeader) -> Result<usize> {
        let stamp = Stamp { version: self.version + 1, time: self.time, ..Stamp::default() };
        let end = offset + format::RECORD_HEADER;
        (self.apply)(Entry { stamp, payload: &[], position: header.base + end as u64, segment: header.number })?;
        self.version += 1;
        Ok(end)
    }

    fn twice(&mut self, header: &SegmentHeader, offset: usize) -> Result<()> {
        let (version, time) = (self.version, self.time);
        (self.version, self.time, self.checksum) = (0, 0, Some(header.previous));
        self.scan(header, offset)?;
        (self.version, self.time) = (version, time);
        Ok(())
    }
}

/// The file behind the newest segment, whose header is no header.
struct Successor<'a> {
    env: &'a Env,
    number: u64,
    base: u64,
}

impl Successor<'_> {
    /// Whether it has a valid record: then its header was durable once, and has been damaged.
    fn has_records(&self) -> Result<bool> {
        let mut bytes = Vec::new();
        let path = segment::path(self.number);
        let file = self.env.disk.open(&path)?.ok_or_else(|| missing(self.number))?;
        read_whole(&*file, &path, &mut bytes)?;
        let (number, base) = (self.number, self.base);
        let header = SegmentHeader { database_id: [0; 16], number, base, previous: 0, key: KeyId::NONE };
        // Its first record lies right behind the header; if that one was torn, too, nothing in it was acknowledged.
        Ok((SEGMENT_HEADER..bytes.len()).step_by(8).any(|at| format::read(&bytes, at, place(&header, at)).is_ok()))
    }
}

fn place(header: &SegmentHeader, offset: usize) -> Place {
    Place { segment: header.number, position: header.base + offset as u64 }
}

/// Reserve the rest of a segment again, or at least what it held; returns where its space ends.
fn reserve(file: &dyn File, used: u64, wanted: [u64; 2]) -> Result<u64> {
    for bytes in wanted.map(|bytes| bytes.max(used)) {
        match file.allocate(bytes) {
            Ok(()) => return Ok(bytes),
            // A full disk can still be opened and read; the first append then tries a new segment, and is refused.
            Err(Error::Storage { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(used)
}

pub(super) fn read_whole(file: &dyn File, path: &str, bytes: &mut Vec<u8>) -> Result<()> {
    let size = file.size()?;
    let no_memory = || Error::damaged(path, 0, NO_MEMORY);
    let size = usize::try_from(size).map_err(|_| no_memory())?;
    bytes.truncate(size);
    bytes.try_reserve_exact(size - bytes.len()).map_err(|_| no_memory())?;
    bytes.resize(size, 0);
    if file.read_at(0, bytes)? < size {
        return Err(short_read(path));
    }
    Ok(())
}

/// The disk's fault, and no word on what the file holds.
fn short_read(path: &str) -> Error {
    let message = "the file gave fewer bytes than its size".to_owned();
    Error::Storage { operation: "read", path: path.to_owned(), errno: 0, message }
}

/// Length without the zeros at the end.
pub(super) fn used_bytes(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

fn is_zero_record(bytes: &[u8], offset: usize) -> bool {
    bytes.get(offset..offset + format::RECORD_HEADER).is_some_and(|header| header.iter().all(|byte| *byte == 0))
}

fn missing(number: u64) -> Error {
    corrupt(number, 0, "the segment is missing")
}

fn corrupt(number: u64, offset: u64, reason: &str) -> Error {
    Error::damaged(&segment::path(number), offset, reason)
}
