//! How a payload lies in a record: as it is, or packed; and then sealed, in a segment that names a key.

use super::format::Record;
use super::hash::StateHash;
use crate::error::{Error, NO_MEMORY};
use crate::seal::FileCipher;

/// Where a record begins: no two records of a database share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub segment: u64,
    pub position: u64,
}

pub const NONE: u8 = 0;
pub const LZ4: u8 = 1;
// 2 is zstd, reserved, and 5 is that sealed.
pub const SEALED: u8 = 3;
pub const SEALED_LZ4: u8 = 4;
const NEWEST: u8 = SEALED_LZ4;

/// The codec of what is sealed after it was packed with `codec`.
pub fn sealed(codec: u8) -> u8 {
    if codec == LZ4 { SEALED_LZ4 } else { SEALED }
}

pub trait Codec: Send + Sync {
    /// As it stands in the record.
    fn id(&self) -> u8;
    /// Replace `out` by the packed form of `raw`; false when that is no gain.
    fn pack(&self, place: Place, raw: &[u8], out: &mut Vec<u8>) -> bool;
    /// Replace `out` by the `raw_length` bytes that were packed as `stored`; the error says why not.
    fn unpack(&self, place: Place, stored: &[u8], raw_length: usize, out: &mut Vec<u8>) -> Result<(), &'static str>;
}

pub struct Lz4;

impl Codec for Lz4 {
    fn id(&self) -> u8 {
        LZ4
    }

    fn pack(&self, _: Place, raw: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        out.resize(lz4_flex::block::get_maximum_output_size(raw.len()), 0);
        let size = lz4_flex::block::compress_into(raw, out).unwrap_or(usize::MAX);
        out.truncate(size);
        size < raw.len()
    }

    fn unpack(&self, _: Place, stored: &[u8], raw_length: usize, out: &mut Vec<u8>) -> Result<(), &'static str> {
        // One byte of LZ4 stands for at most 255: a length beyond that is a lie, and no memory is taken for it.
        if raw_length / 255 > stored.len() {
            return Err("the announced length cannot be reached");
        }
        out.clear();
        out.try_reserve(raw_length).map_err(|_| NO_MEMORY)?;
        out.resize(raw_length, 0);
        match lz4_flex::block::decompress_into(stored, out) {
            Ok(size) if size == raw_length => Ok(()),
            _ => Err("the payload does not unpack"),
        }
    }
}

/// Takes payloads out of records, in buffers that it keeps.
#[derive(Default)]
pub struct Unpacker {
    opened: Vec<u8>,
    unpacked: Vec<u8>,
}

/// Why a valid record gives no payload.
pub enum Unreadable {
    /// Written by a later build.
    Codec(u8),
    Damaged(&'static str),
}

impl From<&'static str> for Unreadable {
    fn from(reason: &'static str) -> Unreadable {
        Unreadable::Damaged(reason)
    }
}

impl Unreadable {
    pub fn at(self, file: String, offset: u64) -> Error {
        match self {
            Unreadable::Codec(id) => {
                Error::TooNew { file: format!("{file} (payload codec)"), found: id.into(), known: NEWEST.into() }
            }
            Unreadable::Damaged(reason) => Error::damaged(&file, offset, reason),
        }
    }
}

impl Unpacker {
    /// State hash and payload of a record of a segment that is sealed with `cipher`, or not.
    pub fn unpack<'a>(
        &'a mut self,
        place: Place,
        record: &Record<'a>,
        cipher: Option<&FileCipher>,
    ) -> Result<(StateHash, &'a [u8]), Unreadable> {
        let (codec, raw_length) = (record.header.codec, record.header.raw_length as usize);
        let (hash, packed) = match (codec, cipher) {
            (NONE | LZ4, None) => (record.header.hash, record.stored),
            (SEALED | SEALED_LZ4, Some(cipher)) => {
                let hash = record.open(place, cipher, &mut self.opened)?;
                (hash, &self.opened[size_of::<StateHash>()..])
            }
            (NONE | LZ4, Some(_)) => return Err("a record is not sealed, and its segment is".into()),
            (SEALED | SEALED_LZ4, None) => return Err("a record is sealed, and its segment is not".into()),
            _ => return Err(Unreadable::Codec(codec)),
        };
        if codec == NONE || codec == SEALED {
            return Ok((hash, packed));
        }
        Lz4.unpack(place, packed, raw_length, &mut self.unpacked)?;
        Ok((hash, &self.unpacked))
    }
}
