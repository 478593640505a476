//! The bytes of the log; `docs/design/format.md` has them as tables.
//!
//! A segment is a header and records behind each other, each at a multiple of 8. A *position* counts
//! bytes through all segments: a segment's `base` is the position of its first byte and is where the
//! segment before it ended. A record cannot be read as another, at another place or after another:
//! its checksum covers header, payload, segment and position, and it holds the checksum of the one before.

use super::codec::Place;
use super::hash::StateHash;
use crate::error::NO_MEMORY;
use crate::sabotage;
use crate::seal::{FileCipher, KeyId, NONCE_BYTES, Seal};

pub const FORMAT: u32 = 1;
pub const SEGMENT_HEADER: usize = 64;
pub const RECORD_HEADER: usize = 64;
/// What sealing adds to a payload: the nonce, and the state hash, whose field takes the tag.
pub const SEALED_EXTRA: usize = NONCE_BYTES + size_of::<StateHash>();
/// The longest payload: stored lengths are 32 bits.
pub const MAX_PAYLOAD: usize = u32::MAX as usize - RECORD_HEADER - SEALED_EXTRA;

const SEGMENT_MAGIC: [u8; 8] = *b"strataWL";
/// Never 0, so that a run of zeros is no record.
const RECORD_KIND: u8 = 0xB1;
const RECORD_FORMAT: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub database_id: [u8; 16],
    pub number: u64,
    pub base: u64,
    /// Checksum of the last record of the segment before.
    pub previous: u32,
    /// What its records are sealed with, if they are.
    pub key: KeyId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    Bad(&'static str),
    TooNew(u32),
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.database_id);
        bytes[32..40].copy_from_slice(&self.number.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.base.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.previous.to_le_bytes());
        bytes[52..60].copy_from_slice(&self.key.0);
        let checksum = header_checksum(&bytes);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Magic, version and checksum have this place in every version, so a newer one is told from damage.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderFault> {
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER>() else {
            return Err(HeaderFault::Bad("the segment is shorter than its header"));
        };
        if bytes[..8] != SEGMENT_MAGIC {
            return Err(HeaderFault::Bad("the segment header has another magic"));
        }
        if u32_at(bytes, 12) != header_checksum(bytes) {
            return Err(HeaderFault::Bad("the segment header has another checksum"));
        }
        if u32_at(bytes, 8) != FORMAT {
            return Err(HeaderFault::TooNew(u32_at(bytes, 8)));
        }
        Ok(SegmentHeader {
            database_id: *bytes[16..].first_chunk().expect("64 bytes"),
            number: u64_at(bytes, 32),
            base: u64_at(bytes, 40),
            previous: u32_at(bytes, 48),
            key: KeyId(*bytes[52..].first_chunk().expect("64 bytes")),
        })
    }
}

fn header_checksum(bytes: &[u8; SEGMENT_HEADER]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

/// All of a record but its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    pub codec: u8,
    /// Length before the codec; 0 when there is none.
    pub raw_length: u32,
    pub previous: u32,
    pub synced_upto: u64,
    pub version: u64,
    pub time: u64,
    /// Of a sealed record this is the tag, and the hash is sealed with the payload: or guesses at it could be tried.
    pub hash: StateHash,
}

pub struct Record<'a> {
    bytes: &'a [u8; RECORD_HEADER],
    pub header: RecordHeader,
    pub checksum: u32,
    pub stored: &'a [u8],
    /// Offset of the next record.
    pub end: usize,
}

/// The bytes that a record with `stored` bytes of payload takes.
pub fn record_size(stored: usize) -> usize {
    RECORD_HEADER + stored.next_multiple_of(8)
}

/// The part of the checksum that needs no header, so it is made before the log's lock is taken.
pub fn payload_checksum(stored: &[u8]) -> u32 {
    let checksum = crc32c::crc32c(stored);
    if sabotage::on("T16") { crc32c::crc32c_append(checksum, &[0; 8][..padding(stored.len())]) } else { checksum }
}

/// Put a record at the end of `out`; returns its checksum.
pub fn encode(out: &mut Vec<u8>, place: Place, header: &RecordHeader, stored: &[u8], payload_checksum: u32) -> u32 {
    let mut bytes = fields(header, stored.len());
    bytes[48..].copy_from_slice(&header.hash.0);
    let checksum = record_checksum(&bytes, place, payload_checksum);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&bytes);
    out.extend_from_slice(stored);
    out.extend_from_slice(&[0; 8][..padding(stored.len())]);
    checksum
}

/// `encode`, sealed: nonce, and then state hash and payload encrypted.
pub fn encode_sealed(
    out: &mut Vec<u8>,
    place: Place,
    header: &RecordHeader,
    payload: &[u8],
    cipher: &FileCipher,
) -> u32 {
    let start = out.len();
    let stored = start + RECORD_HEADER;
    let length = SEALED_EXTRA + payload.len();
    out.reserve(record_size(length));
    out.resize(stored + NONCE_BYTES, 0);
    out.extend_from_slice(&header.hash.0);
    out.extend_from_slice(payload);
    let mut bytes = fields(header, length);
    let seal = cipher.seal_in_place(place.position, &associated(&bytes), &mut out[stored + NONCE_BYTES..]);
    out[stored..stored + NONCE_BYTES].copy_from_slice(&seal.nonce);
    bytes[48..].copy_from_slice(&seal.tag);
    let checksum = record_checksum(&bytes, place, payload_checksum(&out[stored..]));
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    out[start..stored].copy_from_slice(&bytes);
    out.extend_from_slice(&[0; 8][..padding(length)]);
    checksum
}

/// A header without checksum and state hash.
fn fields(header: &RecordHeader, stored: usize) -> [u8; RECORD_HEADER] {
    let mut bytes = [0; RECORD_HEADER];
    bytes[0] = RECORD_KIND;
    bytes[1] = RECORD_FORMAT;
    bytes[2] = header.codec;
    bytes[4..8].copy_from_slice(&(stored as u32).to_le_bytes());
    bytes[8..12].copy_from_slice(&header.raw_length.to_le_bytes());
    bytes[16..20].copy_from_slice(&header.previous.to_le_bytes());
    bytes[24..32].copy_from_slice(&header.synced_upto.to_le_bytes());
    bytes[32..40].copy_from_slice(&header.version.to_le_bytes());
    bytes[40..48].copy_from_slice(&header.time.to_le_bytes());
    bytes
}

/// What a seal covers of a header: all but the checksum and the tag.
fn associated(header: &[u8; RECORD_HEADER]) -> [u8; 44] {
    let mut bytes = [0; 44];
    bytes[..12].copy_from_slice(&header[..12]);
    bytes[12..].copy_from_slice(&header[16..48]);
    bytes
}

impl Record<'_> {
    /// Replace `out` by what `encode_sealed` was given: the payload, behind the state hash that is returned.
    pub fn open(&self, place: Place, cipher: &FileCipher, out: &mut Vec<u8>) -> Result<StateHash, &'static str> {
        let Some((nonce, sealed)) = self.stored.split_first_chunk() else { return Err("it is shorter than a seal") };
        out.clear();
        out.try_reserve(sealed.len()).map_err(|_| NO_MEMORY)?;
        out.extend_from_slice(sealed);
        let seal = Seal { nonce: *nonce, tag: self.header.hash.0 };
        cipher.open_in_place(place.position, &associated(self.bytes), &seal, out)?;
        out.first_chunk().map(|hash| StateHash(*hash)).ok_or("it is shorter than a state hash")
    }
}

/// The record at `offset` of a segment, or why there is none. `bytes` is the whole segment.
pub fn read(bytes: &[u8], offset: usize, place: Place) -> Result<Record<'_>, &'static str> {
    let rest = bytes.get(offset..).unwrap_or_default();
    let Some(header) = rest.first_chunk::<RECORD_HEADER>() else { return Err("the segment ends within a record") };
    if header[0] != RECORD_KIND || header[1] != RECORD_FORMAT || header[3] != 0 || u32_at(header, 20) != 0 {
        return Err("there is no record");
    }
    let length = u32_at(header, 4) as usize;
    // With the padding, so that the next record has a place.
    if rest.len() - RECORD_HEADER < length.next_multiple_of(8) {
        return Err("a record is longer than its segment");
    }
    let stored = &rest[RECORD_HEADER..RECORD_HEADER + length];
    let (bytes, checksum) = (header, u32_at(header, 12));
    if checksum != record_checksum(header, place, payload_checksum(stored)) && !sabotage::on("T15") {
        return Err("a record has another checksum");
    }
    let header = RecordHeader {
        codec: header[2],
        raw_length: u32_at(header, 8),
        previous: u32_at(header, 16),
        synced_upto: u64_at(header, 24),
        version: u64_at(header, 32),
        time: u64_at(header, 40),
        hash: StateHash(*header[48..].first_chunk().expect("64 bytes")),
    };
    Ok(Record { bytes, header, checksum, stored, end: offset + record_size(length) })
}

/// What looking for a record at `offset` costs: the bytes that `read` runs over.
pub fn claimed_length(bytes: &[u8], offset: usize) -> usize {
    let looks_like_one = bytes[offset] == RECORD_KIND && bytes[offset + 1] == RECORD_FORMAT;
    let length = if looks_like_one { u32_at(&bytes[offset..], 4) as usize } else { 0 };
    if length <= bytes.len() - offset { length } else { 0 }
}

fn record_checksum(header: &[u8; RECORD_HEADER], place: Place, payload_checksum: u32) -> u32 {
    // One run of bytes, since a call costs more than the bytes.
    let mut bytes = [0; RECORD_HEADER + 12];
    bytes[..12].copy_from_slice(&header[..12]);
    bytes[12..60].copy_from_slice(&header[16..]);
    bytes[60..68].copy_from_slice(&place.segment.to_le_bytes());
    bytes[68..].copy_from_slice(&place.position.to_le_bytes());
    if sabotage::on("T16") {
        bytes[4..12].fill(0);
    }
    crc32c::crc32c_append(payload_checksum, &bytes)
}

fn padding(length: usize) -> usize {
    length.next_multiple_of(8) - length
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("a header is long enough"))
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("a header is long enough"))
}
