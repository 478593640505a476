//! The pieces of the log for who reads a segment by itself, whatever its state: see `inspect`.

use super::codec::{self, Codec};
use super::format;

pub use super::codec::Place;
pub use super::format::{
    FORMAT, HeaderFault, RECORD_HEADER, Record, SEGMENT_HEADER, SegmentHeader, claimed_length, read,
};

/// The payload of a valid record, or why there is none to see.
pub enum Opened<'a> {
    Payload(&'a [u8]),
    /// It is encrypted, or written by a later build.
    Sealed,
    Damaged(&'static str),
}

/// Take the payload out of a record; `unpacked` is where it goes when it was packed.
pub fn open<'a>(place: Place, record: &Record<'a>, unpacked: &'a mut Vec<u8>) -> Opened<'a> {
    match record.header.codec {
        codec::NONE => Opened::Payload(record.stored),
        codec::LZ4 => match codec::Lz4.unpack(place, record.stored, record.header.raw_length as usize, unpacked) {
            Ok(()) => Opened::Payload(unpacked),
            Err(reason) => Opened::Damaged(reason),
        },
        _ => Opened::Sealed,
    }
}

/// Number and base as a header says them that may be damaged: the checksums of the records tell whether they are right.
pub fn number_and_base(bytes: &[u8]) -> Option<(u64, u64)> {
    let header = bytes.first_chunk::<SEGMENT_HEADER>()?;
    Some((format::u64_at(header, 32), format::u64_at(header, 40)))
}

/// The number that the name of a file says, if it is one of ours.
pub fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix("wal-")?.strip_suffix(".seg")?.parse().ok()
}
