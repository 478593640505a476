//! Bundles: what a database holds, as one portable file.
//!
//! A bundle is a header and frames behind each other, read from the front to the end and nowhere else; nothing in it names
//! a file. `docs/design/format.md` has the bytes. There are two kinds:
//!
//! - *newest*: the newest value of each key on each branch, by names. No versions, times or numbers are in it, so equal
//!   content gives equal bytes, however it came to be.
//! - *history*: all versions with their commits, and the branches as they fork, by the numbers of the database.
//!
//! With a key the payloads of all frames are sealed, each bound to its header and to all bytes before it. They are sealed
//! as in any other file but for the address, which names no database: so equal content still gives equal bytes.
//!
//! Reading trusts nothing: each frame has a checksum over its bytes and its place, no memory is taken for a length that the
//! file does not have or that a frame of its size may not unpack to, places and rows ascend strictly, and at the end stand
//! their number and a SHA-256 over all before. The file ends there.

mod read;
mod write;

use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::log::Stamp;
use crate::seal::{FileCipher, GivenKeys, KeyId, Kind};
use crate::table::Version;

pub use read::BundleReader;
pub use write::BundleWriter;

pub const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"strataEX";
const HEADER: usize = 64;
const FRAME_HEADER: usize = 16;
const DIGEST: usize = 32;
/// A frame of rows is closed when it has so much.
const FRAME_BYTES: usize = 256 << 10;
/// A frame that is packed unpacks to no more than this, or than four times its bytes: then a small file takes little memory.
const PACKED_BYTES_MAX: usize = 1 << 20;
const HISTORY: u8 = 1;
const SEALED: u8 = 2;
/// Where the header names the key.
const KEY_AT: usize = 24;
const LZ4: u8 = 1;
const EXPIRES: u8 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum FrameKind {
    Head = 0xe1,
    Place = 0xe2,
    Rows = 0xe3,
    End = 0xe4,
}

impl FrameKind {
    fn from_u8(byte: u8) -> Option<FrameKind> {
        use FrameKind::{End, Head, Place, Rows};
        [Head, Place, Rows, End].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Where the rows that follow belong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a bundle of the newest: by names. With an empty space it begins a branch; with an empty kind it has no rows, and
    /// says that the space is there.
    Named { branch: String, space: String, kind: String },
    /// In a bundle of all history: branch and keyspace.
    Numbered(u32, u32),
}

/// What a reader comes to next.
#[derive(Debug)]
pub enum Item<'a> {
    /// First of all in a bundle of all history: its newest commit, and a `State`.
    Head(Stamp, &'a [u8]),
    Place(&'a Place),
    Row(&'a [u8], Version<'a>),
}

fn checksum(header: &[u8], stored: &[u8], offset: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(stored), &header[..12]), &offset.to_le_bytes())
}

fn header_checksum(bytes: &[u8; HEADER]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

/// What a bundle is sealed with that names `key`.
fn cipher(keys: Option<&GivenKeys>, key: KeyId) -> Result<Option<FileCipher>> {
    let keys = keys.map(|keys| keys.ring([0; 16]).plain_too());
    crate::seal::cipher(keys.as_ref(), Kind::Bundle, 0, key)
}

/// What is authenticated with a payload: its header, less the checksum, and all before.
fn bound(header: &[u8], before: &Sha256) -> [u8; 12 + DIGEST] {
    let mut bound = [0; 12 + DIGEST];
    bound[..12].copy_from_slice(&header[..12]);
    bound[12..].copy_from_slice(&before.clone().finalize());
    bound
}

fn may_unpack_to(stored: usize, raw: usize) -> bool {
    raw <= PACKED_BYTES_MAX || raw / 4 <= stored
}
