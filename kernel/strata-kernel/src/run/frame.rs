//! Frames: every piece of a run but its first 64 and its last 24 bytes is one, so that all is checked in one way.
//!
//! A frame's checksum covers its payload, its header, and where it was written: database, run and offset. So a frame
//! that is damaged, moved, swapped or left from before is told from the one that should be there. Little-endian:
//!
//! ```text
//! frame   kind u8 | codec u8 | seal u8 | 0 u8 | key u32 | stored length u32 | raw length u32 | crc32c u32 | payload
//! header  magic 8 | format u32 | crc32c u32 | database id 16 | run number u64 | 0 x 24
//! tail    footer offset u64 | footer frame length u32 | crc32c u32 | magic 8
//! ```

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::sabotage;

pub const FORMAT: u32 = 1;
pub const HEADER: usize = 64;
pub const TAIL: usize = 24;
pub const FRAME_HEADER: usize = 20;
/// No payload is longer: a transaction holds 256 MiB, and one row is part of one.
pub const PAYLOAD_BYTES_MAX: usize = 512 << 20;

const MAGIC: [u8; 8] = *b"strataRN";
const TAIL_MAGIC: [u8; 8] = *b"strataRE";
const LZ4: u8 = 1;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    Block = 0xd1,
    Value = 0xd2,
    Index = 0xd3,
    Filter = 0xd4,
    Footer = 0xd5,
}

impl FrameKind {
    pub fn from_u8(byte: u8) -> Option<FrameKind> {
        use FrameKind::{Block, Filter, Footer, Index, Value};
        [Block, Value, Index, Filter, Footer].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Where a payload stands: no two of a database share it, also over time. A seal binds the payload to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The database, from its MANIFEST.
    pub database_id: [u8; 16],
    pub run: u64,
    pub offset: u64,
    pub kind: FrameKind,
}

/// Encryption of payloads. What nonce and tag need goes into the sealed bytes.
pub trait Seal: Send + Sync {
    /// As it stands in each frame; 0 is kept for none.
    fn id(&self) -> u8;
    /// The key that new frames are sealed with.
    fn key_id(&self) -> u32;
    /// Append the sealed form of `plain` to `out`.
    fn seal(&self, place: &Place, plain: &[u8], out: &mut Vec<u8>) -> Result<()>;
    /// Append to `out` what was sealed; the error says why that cannot be. `key_id` is the frame's.
    fn open(&self, place: &Place, key_id: u32, sealed: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str>;
}

/// The payload of a frame, in memory.
#[derive(Debug)]
pub struct Payload {
    bytes: Vec<u8>,
    /// Where it begins: a payload that was stored as it is stays behind its header, uncopied.
    start: usize,
}

impl Payload {
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

/// What is the same for all frames of a run.
#[derive(Clone)]
pub struct Framing {
    pub database_id: [u8; 16],
    pub run: u64,
    pub compress: bool,
    pub seal: Option<Arc<dyn Seal>>,
}

/// A frame's header, as far as a reader needs it.
pub struct FrameHeader {
    pub kind: FrameKind,
    pub stored: usize,
    pub codec: u8,
    /// 0 where the payload is not sealed.
    pub seal: u8,
    pub key_id: u32,
    pub raw: usize,
    checksum: u32,
}

impl FrameHeader {
    /// The header at the start of `bytes`, not yet checked against its checksum.
    pub fn decode(bytes: &[u8]) -> Result<FrameHeader, &'static str> {
        let header = bytes.first_chunk::<FRAME_HEADER>().ok_or("the file ends within a frame")?;
        let kind = FrameKind::from_u8(header[0]).ok_or("there is no frame")?;
        let (stored, raw) = (u32_at(header, 8) as usize, u32_at(header, 12) as usize);
        if header[1] > LZ4 || header[3] != 0 || raw > PAYLOAD_BYTES_MAX {
            return Err("there is no frame");
        }
        let (codec, seal, key_id, checksum) = (header[1], header[2], u32_at(header, 4), u32_at(header, 16));
        Ok(FrameHeader { kind, stored, codec, seal, key_id, raw, checksum })
    }

    pub fn frame_bytes(&self) -> usize {
        FRAME_HEADER + self.stored
    }
}

impl Framing {
    fn place(&self, kind: FrameKind, offset: u64) -> Place {
        Place { database_id: self.database_id, run: self.run, offset, kind }
    }

    /// Append the frame of `payload` to `out`, where it will stand at `offset` of the file; returns its length.
    pub fn append(&self, kind: FrameKind, offset: u64, payload: &[u8], out: &mut Vec<u8>) -> Result<u32> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            let (limit, actual) = (PAYLOAD_BYTES_MAX as u64, payload.len() as u64);
            return Err(Error::LimitExceeded { what: "row in bytes", limit, actual });
        }
        let start = out.len();
        out.resize(start + FRAME_HEADER, 0);
        let codec = self.pack(kind, offset, payload, out)?;
        let stored = out.len() - start - FRAME_HEADER;
        let (header, body) = out[start..].split_at_mut(FRAME_HEADER);
        (header[0], header[1]) = (kind as u8, codec);
        if let Some(seal) = &self.seal {
            header[2] = seal.id();
            header[4..8].copy_from_slice(&seal.key_id().to_le_bytes());
        }
        header[8..12].copy_from_slice(&(stored as u32).to_le_bytes());
        header[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        let checksum = self.checksum(header, body, offset);
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
        Ok((FRAME_HEADER + stored) as u32)
    }

    /// Put down the payload as it is to be stored; returns the codec.
    fn pack(&self, kind: FrameKind, offset: u64, payload: &[u8], out: &mut Vec<u8>) -> Result<u8> {
        let start = out.len();
        let may_pack = self.compress && matches!(kind, FrameKind::Block | FrameKind::Value);
        let mut codec = 0;
        if may_pack {
            out.resize(start + lz4_flex::block::get_maximum_output_size(payload.len()), 0);
            let size = lz4_flex::block::compress_into(payload, &mut out[start..]).unwrap_or(usize::MAX);
            // Less than an eighth is not worth what each read would pay to unpack it.
            codec = if size < payload.len() - payload.len() / 8 { LZ4 } else { 0 };
            out.truncate(start + if codec == LZ4 { size } else { 0 });
        }
        let Some(seal) = &self.seal else {
            if codec == 0 {
                out.extend_from_slice(payload);
            }
            return Ok(codec);
        };
        let place = self.place(kind, offset);
        if codec == 0 {
            return seal.seal(&place, payload, out).map(|()| codec);
        }
        let packed = out.split_off(start);
        seal.seal(&place, &packed, out).map(|()| codec)
    }

    /// The payload of the frame that is all of `bytes` and stands at `offset`; the error says why there is none.
    pub fn open(&self, kind: FrameKind, offset: u64, mut bytes: Vec<u8>) -> Result<Payload, &'static str> {
        let header = FrameHeader::decode(&bytes)?;
        if header.frame_bytes() != bytes.len() || header.kind != kind {
            return Err("another frame stands here");
        }
        let (head, stored) = bytes.split_at(FRAME_HEADER);
        if header.checksum != self.checksum(head, stored, offset) && !sabotage::on("T15") {
            return Err("a frame has another checksum");
        }
        if header.seal == 0 {
            return match header.codec {
                0 if header.raw == stored.len() => Ok(Payload { bytes, start: FRAME_HEADER }),
                0 => Err("a frame has not the length it says"),
                _ => Ok(Payload { bytes: unpack(stored, header.raw)?, start: 0 }),
            };
        }
        let seal =
            self.seal.as_ref().filter(|seal| seal.id() == header.seal).ok_or("the key to this frame is missing")?;
        let mut plain = Vec::new();
        seal.open(&self.place(kind, offset), header.key_id, stored, &mut plain)?;
        bytes = if header.codec == 0 { plain } else { unpack(&plain, header.raw)? };
        if bytes.len() == header.raw {
            Ok(Payload { bytes, start: 0 })
        } else {
            Err("a frame has not the length it says")
        }
    }

    /// Whether the frame that is all of `bytes` is as it was written at `offset`; it need not be opened for that.
    pub fn check(&self, bytes: &[u8], offset: u64) -> Result<(), &'static str> {
        let header = FrameHeader::decode(bytes)?;
        let (head, stored) = bytes.split_at(FRAME_HEADER);
        if header.checksum == self.checksum(head, stored, offset) {
            Ok(())
        } else {
            Err("a frame has another checksum")
        }
    }

    fn checksum(&self, header: &[u8], stored: &[u8], offset: u64) -> u32 {
        let mut bytes = [0; 48];
        bytes[..16].copy_from_slice(&header[..16]);
        if !sabotage::on("T17") {
            bytes[16..24].copy_from_slice(&self.run.to_le_bytes());
            bytes[24..32].copy_from_slice(&offset.to_le_bytes());
            bytes[32..].copy_from_slice(&self.database_id);
        }
        crc32c::crc32c_append(crc32c::crc32c(stored), &bytes)
    }

    pub fn header(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.database_id);
        bytes[32..40].copy_from_slice(&self.run.to_le_bytes());
        let checksum = header_checksum(&bytes);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Whether `bytes` begin with the header of this run.
    pub fn check_header(&self, bytes: &[u8], file: &str) -> Result<()> {
        let corrupt =
            |offset, reason: &str| Error::Corrupt { file: file.to_owned(), offset, reason: reason.to_owned() };
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Err(corrupt(bytes.len() as u64, "it is shorter than its header"));
        };
        if header[..8] != MAGIC {
            return Err(corrupt(0, "it is not a run"));
        }
        // Magic, version and checksum have this place in every version, so a newer one is told from damage.
        if u32_at(header, 12) != header_checksum(header) && !sabotage::on("T15") {
            return Err(corrupt(12, "the header has another checksum"));
        }
        if u32_at(header, 8) != FORMAT {
            return Err(Error::TooNew { file: file.to_owned(), found: u32_at(header, 8), known: FORMAT });
        }
        if header[16..32] != self.database_id {
            return Err(corrupt(16, "it belongs to another database"));
        }
        if u64_at(header, 32) != self.run {
            return Err(corrupt(32, "it is another run than its name says"));
        }
        Ok(())
    }

    /// The last bytes of a run, from which its footer is found.
    pub fn tail(&self, footer_offset: u64, footer_bytes: u32) -> [u8; TAIL] {
        let mut bytes = [0; TAIL];
        bytes[..8].copy_from_slice(&footer_offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&footer_bytes.to_le_bytes());
        bytes[16..].copy_from_slice(&TAIL_MAGIC);
        let checksum = self.checksum(&bytes[..16], &TAIL_MAGIC, footer_offset + u64::from(footer_bytes));
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Offset and length of the footer of a run of `size` bytes.
    pub fn read_tail(&self, tail: &[u8; TAIL], size: u64) -> Result<(u64, u32), &'static str> {
        let (offset, length) = (u64_at(tail, 0), u32_at(tail, 8));
        let ends_here = offset >= HEADER as u64 && offset.checked_add(u64::from(length) + TAIL as u64) == Some(size);
        if !ends_here || (self.tail(offset, length) != *tail && !sabotage::on("T15")) {
            return Err("it does not end as a run does");
        }
        Ok((offset, length))
    }
}

fn header_checksum(bytes: &[u8; HEADER]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

fn unpack(stored: &[u8], raw: usize) -> Result<Vec<u8>, &'static str> {
    // One byte of LZ4 stands for at most 255: a length beyond that is a lie, and no memory is taken for it.
    if raw / 255 > stored.len() {
        return Err("the announced length cannot be reached");
    }
    let mut out = zeroed(raw)?;
    match lz4_flex::block::decompress_into(stored, &mut out) {
        Ok(size) if size == raw => Ok(out),
        _ => Err("a frame does not unpack"),
    }
}

/// So many bytes, or an error where there is no memory for them.
pub fn zeroed(length: usize) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| "there is no memory for a frame")?;
    bytes.resize(length, 0);
    Ok(bytes)
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("a header is long enough"))
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("a header is long enough"))
}
