//! Frames: every piece of a run but its first 64 and its last 24 bytes is one, so that all is checked in one way.
//!
//! A frame's checksum covers its payload, its header, and where it was written: database, run and offset. So a frame
//! that is damaged, moved, swapped or left from before is told from the one that should be there. Little-endian:
//!
//! ```text
//! frame   kind u8 | codec u8 | seal u8 | 0 x 5 | stored length u32 | raw length u32 | crc32c u32 | payload
//! header  magic 8 | format u32 | crc32c u32 | database id 16 | run number u64 | key id 8 | 0 x 16
//! tail    footer offset u64 | footer frame length u32 | crc32c u32 | magic 8
//! ```
//!
//! A run whose header names a key is sealed: each of its payloads is nonce, ciphertext and tag (`seal`), and the frame's
//! header up to the checksum is authenticated with it. All of a run is sealed with one key, or nothing.

use crate::error::{Error, NO_MEMORY, Result};
use crate::sabotage;
use crate::seal::{FileCipher, KeyId, NONCE_BYTES, SEAL_BYTES, Seal, TAG_BYTES};

pub const FORMAT: u32 = 1;
pub const HEADER: usize = 64;
pub const TAIL: usize = 24;
pub const FRAME_HEADER: usize = 20;
/// No payload is longer: a transaction holds 256 MiB, and one row is part of one.
pub const PAYLOAD_BYTES_MAX: usize = 512 << 20;

const MAGIC: [u8; 8] = *b"strataRN";
const TAIL_MAGIC: [u8; 8] = *b"strataRE";
const LZ4: u8 = 1;
const SEALED: u8 = 1;
/// What the checksum and the seal cover of a frame's header.
const COVERED: usize = 16;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    Block = 0xd1,
    Value = 0xd2,
    Index = 0xd3,
    Filter = 0xd4,
    Footer = 0xd5,
    Derived = 0xd6,
}

impl FrameKind {
    pub fn from_u8(byte: u8) -> Option<FrameKind> {
        use FrameKind::{Block, Derived, Filter, Footer, Index, Value};
        [Block, Value, Index, Filter, Footer, Derived].into_iter().find(|kind| *kind as u8 == byte)
    }
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
pub struct Framing {
    pub database_id: [u8; 16],
    pub run: u64,
    pub compress: bool,
    /// What the header names.
    pub key: KeyId,
    /// `None` where the run is not sealed, or is looked at without its key.
    pub cipher: Option<FileCipher>,
}

/// A frame's header, as far as a reader needs it.
pub struct FrameHeader {
    pub kind: FrameKind,
    pub stored: usize,
    pub codec: u8,
    pub is_sealed: bool,
    pub raw: usize,
    checksum: u32,
}

impl FrameHeader {
    /// The header at the start of `bytes`, not yet checked against its checksum.
    pub fn decode(bytes: &[u8]) -> Result<FrameHeader, &'static str> {
        let header = bytes.first_chunk::<FRAME_HEADER>().ok_or("the file ends within a frame")?;
        let kind = FrameKind::from_u8(header[0]).ok_or("there is no frame")?;
        let (stored, raw) = (u32_at(header, 8) as usize, u32_at(header, 12) as usize);
        if header[1] > LZ4 || header[2] > SEALED || header[3..8] != [0; 5] || raw > PAYLOAD_BYTES_MAX {
            return Err("there is no frame");
        }
        let (codec, is_sealed, checksum) = (header[1], header[2] == SEALED, u32_at(header, 16));
        Ok(FrameHeader { kind, stored, codec, is_sealed, raw, checksum })
    }

    pub fn frame_bytes(&self) -> usize {
        FRAME_HEADER + self.stored
    }
}

impl Framing {
    /// Append the frame of `payload` to `out`, where it will stand at `offset` of the file; returns its length.
    pub fn append(&self, kind: FrameKind, offset: u64, payload: &[u8], out: &mut Vec<u8>) -> Result<u32> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            let (limit, actual) = (PAYLOAD_BYTES_MAX as u64, payload.len() as u64);
            return Err(Error::LimitExceeded { what: "row in bytes", limit, actual });
        }
        let start = out.len();
        let body = start + FRAME_HEADER;
        let sealed = self.cipher.is_some();
        out.resize(body + if sealed { NONCE_BYTES } else { 0 }, 0);
        let codec = self.pack(kind, payload, out);
        let stored = out.len() - body + if sealed { TAG_BYTES } else { 0 };
        let header = &mut out[start..body];
        (header[0], header[1], header[2]) = (kind as u8, codec, if sealed { SEALED } else { 0 });
        header[8..12].copy_from_slice(&(stored as u32).to_le_bytes());
        header[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        if let Some(cipher) = &self.cipher {
            let (header, body) = out[start..].split_at_mut(FRAME_HEADER);
            let (nonce, message) = body.split_at_mut(NONCE_BYTES);
            let seal = cipher.seal_in_place(offset, &header[..COVERED], message);
            nonce.copy_from_slice(&seal.nonce);
            out.extend_from_slice(&seal.tag);
        }
        self.make_checksum(&mut out[start..], offset);
        Ok((FRAME_HEADER + stored) as u32)
    }

    pub(super) fn make_checksum(&self, frame: &mut [u8], offset: u64) {
        let (header, stored) = frame.split_at_mut(FRAME_HEADER);
        let checksum = self.checksum(header, stored, offset);
        header[COVERED..].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Append the payload, packed where that is worth it; returns the codec.
    fn pack(&self, kind: FrameKind, payload: &[u8], out: &mut Vec<u8>) -> u8 {
        let start = out.len();
        let may_pack = self.compress && matches!(kind, FrameKind::Block | FrameKind::Value | FrameKind::Derived);
        if may_pack {
            out.resize(start + lz4_flex::block::get_maximum_output_size(payload.len()), 0);
            let size = lz4_flex::block::compress_into(payload, &mut out[start..]).unwrap_or(usize::MAX);
            // Less than an eighth is not worth what each read would pay to unpack it.
            if size < payload.len() - payload.len() / 8 {
                out.truncate(start + size);
                return LZ4;
            }
            out.truncate(start);
        }
        out.extend_from_slice(payload);
        0
    }

    /// The payload of the frame that is all of `bytes` and stands at `offset`; the error says why there is none.
    pub fn open(&self, kind: FrameKind, offset: u64, bytes: Vec<u8>) -> Result<Payload, &'static str> {
        self.check(&bytes, offset)?;
        self.take_out(kind, offset, bytes)
    }

    /// The same for readers in a hurry: a seal covers all that the checksum does, so a sealed frame is held against its
    /// seal only. What that leaves unseen is a checksum that is itself damaged: `verify` tells of it.
    pub fn open_fast(&self, kind: FrameKind, offset: u64, bytes: Vec<u8>) -> Result<Payload, &'static str> {
        if self.cipher.is_none() {
            self.check(&bytes, offset)?;
        }
        self.take_out(kind, offset, bytes)
    }

    /// What is in a frame that is known to be undamaged, or is sealed.
    fn take_out(&self, kind: FrameKind, offset: u64, mut bytes: Vec<u8>) -> Result<Payload, &'static str> {
        let header = FrameHeader::decode(&bytes)?;
        if header.frame_bytes() != bytes.len() || header.kind != kind {
            return Err("another frame stands here");
        }
        let (start, end) = match (&self.cipher, header.is_sealed) {
            (None, false) => (FRAME_HEADER, bytes.len()),
            (Some(cipher), true) => {
                unseal(cipher, offset, &mut bytes)?;
                (FRAME_HEADER + NONCE_BYTES, bytes.len() - TAG_BYTES)
            }
            (Some(_), false) => return Err("a frame is not sealed, and its run is"),
            (None, true) => return Err("a frame is sealed, and its run is not"),
        };
        match header.codec {
            0 if header.raw == end - start => {
                bytes.truncate(end);
                Ok(Payload { bytes, start })
            }
            0 => Err("a frame has not the length it says"),
            _ => Ok(Payload { bytes: unpack(&bytes[start..end], header.raw)?, start: 0 }),
        }
    }

    /// Whether the frame that is all of `bytes` is as it was written at `offset`; it need not be opened for that.
    pub fn check(&self, bytes: &[u8], offset: u64) -> Result<(), &'static str> {
        let header = FrameHeader::decode(bytes)?;
        let (head, stored) = bytes.split_at(FRAME_HEADER);
        if header.checksum == self.checksum(head, stored, offset) || sabotage::on("T15") {
            Ok(())
        } else {
            Err("a frame has another checksum")
        }
    }

    fn checksum(&self, header: &[u8], stored: &[u8], offset: u64) -> u32 {
        let mut bytes = [0; 48];
        bytes[..COVERED].copy_from_slice(&header[..COVERED]);
        if !sabotage::on("T17") {
            bytes[16..24].copy_from_slice(&self.run.to_le_bytes());
            bytes[24..32].copy_from_slice(&offset.to_le_bytes());
            bytes[32..].copy_from_slice(&self.database_id);
        }
        crc32c::crc32c_append(crc32c::crc32c(stored), &bytes)
    }

    pub fn header(&self) -> [u8; HEADER] {
        self.header_with(MAGIC)
    }

    /// The header of another file that belongs to the run.
    pub fn header_with(&self, magic: [u8; 8]) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&magic);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.database_id);
        bytes[32..40].copy_from_slice(&self.run.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.key.0);
        let checksum = header_checksum(&bytes);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Whether `bytes` begin with the header of this run; returns the key it names.
    pub fn check_header(&self, bytes: &[u8], file: &str) -> Result<KeyId> {
        self.check_header_with(MAGIC, bytes, file)
    }

    pub fn check_header_with(&self, magic: [u8; 8], bytes: &[u8], file: &str) -> Result<KeyId> {
        let corrupt =
            |offset, reason: &str| Error::Corrupt { file: file.to_owned(), offset, reason: reason.to_owned() };
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Err(corrupt(bytes.len() as u64, "it is shorter than its header"));
        };
        if header[..8] != magic {
            let what = if magic == MAGIC { "it is not a run" } else { "it does not belong to a run" };
            return Err(corrupt(0, what));
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
        Ok(KeyId(*header[40..].first_chunk().expect("64 bytes")))
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

/// Decrypt a whole frame where it lies.
fn unseal(cipher: &FileCipher, offset: u64, frame: &mut [u8]) -> Result<(), &'static str> {
    let (header, stored) = frame.split_at_mut(FRAME_HEADER);
    if stored.len() < SEAL_BYTES {
        return Err("a frame is shorter than its seal");
    }
    let (nonce, rest) = stored.split_at_mut(NONCE_BYTES);
    let (message, tag) = rest.split_at_mut(rest.len() - TAG_BYTES);
    let seal =
        Seal { nonce: (&*nonce).try_into().expect("split there"), tag: (&*tag).try_into().expect("split there") };
    cipher.open_in_place(offset, &header[..COVERED], &seal, message)
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
    bytes.try_reserve_exact(length).map_err(|_| NO_MEMORY)?;
    bytes.resize(length, 0);
    Ok(bytes)
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("a header is long enough"))
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("a header is long enough"))
}
