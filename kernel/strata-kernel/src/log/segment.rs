//! One file of the log, and how a new one comes to be.

use std::sync::Arc;

use super::Use;
use super::format::{self, SEALED_EXTRA, SEGMENT_HEADER, SegmentHeader};
use crate::env::{Disk, File};
use crate::error::{Error, Result};
use crate::sabotage;
use crate::seal::{self, FileCipher, KeyId, Keyring, Kind};

pub const DIR: &str = "WAL";

/// The segment that takes records.
pub(super) struct Segment {
    pub file: Arc<dyn File>,
    pub number: u64,
    pub base: u64,
    /// The position where its reserved space ends. A record that does not fit below goes to the next segment.
    pub limit: u64,
    /// It was begun on a full disk, and takes only records that make room.
    pub is_spare: bool,
    pub key: KeyId,
    pub cipher: Option<FileCipher>,
}

impl Segment {
    /// Where a position lies in the file.
    pub fn offset(&self, position: u64) -> u64 {
        position - self.base
    }

    pub fn takes(&self, use_for: Use) -> bool {
        !self.is_spare || use_for == Use::Room
    }

    /// The bytes that a record takes, with `packed` bytes of payload.
    pub fn record_size(&self, packed: usize) -> u64 {
        let extra = if self.cipher.is_some() { SEALED_EXTRA } else { 0 };
        format::record_size(packed + extra) as u64
    }
}

/// The key of a new segment.
pub(super) fn key(keys: Option<&Keyring>) -> KeyId {
    keys.map_or(KeyId::NONE, Keyring::current)
}

/// What the records of a segment are sealed with.
pub(super) fn cipher(keys: Option<&Keyring>, header: &SegmentHeader) -> Result<Option<FileCipher>> {
    seal::cipher(keys, Kind::Log, header.number, header.key)
}

/// Segment numbers and positions stay below this, so that sums of them cannot overflow: 2^62 bytes are four exabytes.
pub(super) const MOST: u64 = 1 << 62;

fn name(number: u64) -> String {
    format!("wal-{number:06}.seg")
}

pub fn path(number: u64) -> String {
    format!("{DIR}/{}", name(number))
}

/// The segments in the directory, in order. Other files in it are none of ours.
pub(super) fn numbers(disk: &dyn Disk) -> Result<Vec<u64>> {
    let names = disk.list(DIR)?.unwrap_or_default();
    let number = |name: &String| name.strip_prefix("wal-")?.strip_suffix(".seg")?.parse().ok();
    let ours = |number: &u64| *number < MOST && names.binary_search(&name(*number)).is_ok();
    let mut numbers: Vec<u64> = names.iter().filter_map(number).filter(ours).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// What the next segment is called until it is begun. Recovery removes what is left of it.
const NEXT: &str = "WAL/wal-next.tmp";
/// What is kept back for deletions: the file of a small segment, with its space reserved. On a full disk it becomes the
/// next segment, whatever else takes the last free byte; space that is only left free is soon somebody else's.
const SPARE: &str = "WAL/wal-spare.tmp";

/// The file of the next segment, with its space reserved.
pub(super) struct Prepared {
    pub file: Arc<dyn File>,
    bytes: u64,
    /// What is left free on the disk beside it.
    free: u64,
    is_spare: bool,
}

/// Where there is no room for a segment, a smaller one is made, but none smaller than this.
const LEAST: u64 = 64 << 10;
const LEAST_SPARE: u64 = 4 << 10;
/// ENOSPC, EDQUOT, EFBIG.
const NO_ROOM: [i32; 3] = [28, 122, 27];

/// The file of a segment of `bytes`, or of fewer on a disk that is nearly full.
///
/// `free` is left free on the disk, for upkeep: what makes room takes room. With none a failure leaves no file where that
/// is possible, and may be tried again.
pub(super) fn prepare(disk: &dyn Disk, bytes: u64, free: u64) -> Result<Prepared> {
    make(disk, NEXT, (LEAST, bytes), free)
}

/// A small segment, from what was left free.
pub(super) fn prepare_small(disk: &dyn Disk, bytes: u64) -> Result<Prepared> {
    Ok(Prepared { is_spare: true, ..make(disk, NEXT, (LEAST_SPARE, spare_bytes(bytes)), 0)? })
}

/// The spare as the next segment.
pub(super) fn take_spare(disk: &dyn Disk) -> Result<Option<Prepared>> {
    let Some(file) = open_spare(disk)? else { return Ok(None) };
    disk.rename(SPARE, NEXT)?;
    Ok(Some(Prepared { bytes: file.size()?, file, free: 0, is_spare: true }))
}

/// See to it that there is a spare. Returns whether there is: where it cannot be had, the database does without.
pub(super) fn keep_spare(disk: &dyn Disk, bytes: u64) -> bool {
    matches!(open_spare(disk), Ok(Some(_))) || make(disk, SPARE, (LEAST_SPARE, spare_bytes(bytes)), 0).is_ok()
}

/// The spare that is there, with all of its space. After a power cut it may have the header of a segment that it was
/// to become: then it is of no use.
fn open_spare(disk: &dyn Disk) -> Result<Option<Arc<dyn File>>> {
    let Some(file) = disk.open(SPARE)? else { return Ok(None) };
    let (size, mut header) = (file.size()?, [0; SEGMENT_HEADER]);
    if size < LEAST_SPARE || file.read_at(0, &mut header)? < SEGMENT_HEADER || header != [0; SEGMENT_HEADER] {
        return Ok(None);
    }
    file.allocate(size)?; // of a directory that was copied nothing may be reserved
    Ok(Some(file))
}

fn spare_bytes(bytes: u64) -> u64 {
    (bytes / 16).clamp(LEAST_SPARE, LEAST)
}

/// A file of so many bytes at most and at least, all reserved.
fn make(disk: &dyn Disk, path: &str, (least, most): (u64, u64), free: u64) -> Result<Prepared> {
    let file = match disk.create(path) {
        // Left from an attempt that failed.
        Err(Error::Storage { errno: 17, .. }) => {
            disk.remove(path)?;
            disk.create(path)?
        }
        other => other?,
    };
    let mut prepared = Prepared { file, bytes: most.max(SEGMENT_HEADER as u64), free, is_spare: false };
    loop {
        match prepared.reserve() {
            Ok(()) => return Ok(prepared),
            Err(Error::Storage { errno, .. }) if NO_ROOM.contains(&errno) && prepared.bytes / 4 >= least => {
                let _ = prepared.file.set_len(0); // what the attempt has taken
                prepared.bytes /= 4;
            }
            Err(error) => {
                let _ = disk.remove(path);
                return Err(error);
            }
        }
    }
}

impl Prepared {
    /// Take the space, and see that there is some more.
    fn reserve(&self) -> Result<()> {
        self.file.allocate(self.bytes + self.free)?;
        if self.free > 0 { self.file.set_len(self.bytes) } else { Ok(()) }
    }

    pub fn discard(&self, disk: &dyn Disk) -> Result<()> {
        disk.remove(NEXT)
    }

    /// Write the header, and see to it that there is room for `room` bytes. To be synced before it gets its name.
    pub fn begin(&mut self, header: &SegmentHeader, room: u64) -> Result<()> {
        if room > self.bytes {
            self.bytes = room;
            self.reserve()?;
        }
        self.file.write_at(0, &header.encode())
    }

    pub fn name(&self, disk: &dyn Disk, number: u64) -> Result<()> {
        disk.rename(NEXT, &path(number))
    }

    pub fn into_segment(self, header: &SegmentHeader, cipher: Option<FileCipher>) -> Segment {
        let (number, base, key) = (header.number, header.base, header.key);
        let (limit, is_spare) = (base + self.bytes, self.is_spare);
        Segment { file: self.file, number, base, limit, is_spare, key, cipher }
    }
}

/// Make the names of the segments durable.
pub(super) fn sync_names(disk: &dyn Disk) -> Result<()> {
    if sabotage::on("T06") { Ok(()) } else { disk.sync_dir(DIR) }
}

/// Remove what a crash left: a segment that was not begun, and those below `first`, which no MANIFEST needs.
pub(super) fn remove_unused(disk: &dyn Disk, first: u64) -> Result<()> {
    let names = disk.list(DIR)?.unwrap_or_default();
    if names.iter().any(|name| NEXT.strip_prefix("WAL/") == Some(name)) {
        disk.remove(NEXT)?;
    }
    let unused = numbers(disk)?.into_iter().filter(|number| *number < first);
    unused.map(path).try_for_each(|path| disk.remove(&path))
}
