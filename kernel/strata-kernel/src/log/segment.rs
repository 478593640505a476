//! One file of the log, and how a new one comes to be.

use std::sync::Arc;

use super::format::{SEGMENT_HEADER, SegmentHeader};
use crate::env::{Disk, File};
use crate::error::{Error, Result};
use crate::sabotage;

pub(super) const DIR: &str = "WAL";

/// The segment that takes records.
pub(super) struct Segment {
    pub file: Arc<dyn File>,
    pub number: u64,
    pub base: u64,
    /// The position where its reserved space ends. A record that does not fit below goes to the next segment.
    pub limit: u64,
}

impl Segment {
    /// Where a position lies in the file.
    pub fn offset(&self, position: u64) -> u64 {
        position - self.base
    }
}

/// Segment numbers and positions stay below this, so that sums of them cannot overflow: 2^62 bytes are four exabytes.
pub(super) const MOST: u64 = 1 << 62;

fn name(number: u64) -> String {
    format!("wal-{number:06}.seg")
}

pub(super) fn path(number: u64) -> String {
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

/// A new segment with `bytes` reserved. A failure leaves no file where that is possible, and may be tried again.
pub(super) fn create(disk: &dyn Disk, header: &SegmentHeader, bytes: u64) -> Result<Segment> {
    let path = path(header.number);
    let file = match disk.create(&path) {
        // Left from an attempt that failed, in this run of the process: recovery removes such files.
        Err(Error::Storage { errno: 17, .. }) => {
            disk.remove(&path)?;
            disk.create(&path)?
        }
        other => other?,
    };
    let bytes = bytes.max(SEGMENT_HEADER as u64);
    if let Err(error) = file.allocate(bytes).and_then(|()| file.write_at(0, &header.encode())) {
        let _ = disk.remove(&path);
        return Err(error);
    }
    Ok(Segment { file, number: header.number, base: header.base, limit: header.base + bytes })
}

/// Make a new segment durable, name and all. A failure here is a failed sync, so it poisons.
pub(super) fn publish(disk: &dyn Disk, segment: &Segment) -> Result<()> {
    segment.file.sync()?;
    if sabotage::on("T06") { Ok(()) } else { disk.sync_dir(DIR) }
}
