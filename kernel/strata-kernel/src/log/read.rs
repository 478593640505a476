//! The pieces of the log for who reads a segment by itself, whatever its state: see `inspect`.

use super::codec::{SEALED, SEALED_LZ4, Unreadable};
use super::{StateHash, format};
use crate::seal::FileCipher;

pub use super::codec::{Place, Unpacker};
pub use super::format::{
    FORMAT, HeaderFault, RECORD_HEADER, Record, SEGMENT_HEADER, SegmentHeader, claimed_length, read,
};

/// The payload of a valid record, or why there is none to see.
pub enum Opened<'a> {
    Payload(StateHash, &'a [u8]),
    /// It is encrypted, or written by a later build.
    Sealed,
    Damaged(&'static str),
}

/// Take the payload out of a record of a segment that is sealed with `cipher`, or not, or is looked at without its key.
pub fn open<'a>(
    place: Place,
    record: &Record<'a>,
    cipher: Option<&FileCipher>,
    unpacker: &'a mut Unpacker,
) -> Opened<'a> {
    if cipher.is_none() && [SEALED, SEALED_LZ4].contains(&record.header.codec) {
        return Opened::Sealed;
    }
    match unpacker.unpack(place, record, cipher) {
        Ok((hash, payload)) => Opened::Payload(hash, payload),
        Err(Unreadable::Codec(_)) => Opened::Sealed,
        Err(Unreadable::Damaged(reason)) => Opened::Damaged(reason),
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
