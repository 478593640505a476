//! How a payload lies in a record: as it is, or packed. Encryption will be one more `Codec`, with
//! the place of the record as associated data, so that a moved record does not open.

use crate::error::{Error, Result};

/// Where a record begins: no two records of a database share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub segment: u64,
    pub position: u64,
}

pub const NONE: u8 = 0;
pub const LZ4: u8 = 1;
// 2 is zstd and 3 is AES-256-GCM, both reserved.

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
        out.try_reserve(raw_length).map_err(|_| "no memory for the payload")?;
        out.resize(raw_length, 0);
        match lz4_flex::block::decompress_into(stored, out) {
            Ok(size) if size == raw_length => Ok(()),
            _ => Err("the payload does not unpack"),
        }
    }
}

/// The codec that a record names.
pub(super) fn by_id(id: u8, file: impl Fn() -> String) -> Result<Option<&'static dyn Codec>> {
    match id {
        NONE => Ok(None),
        LZ4 => Ok(Some(&Lz4)),
        // A valid record with an unknown codec was written by a later build, or needs a key that was not given.
        _ => Err(Error::TooNew { file: format!("{} (payload codec)", file()), found: id.into(), known: LZ4.into() }),
    }
}
