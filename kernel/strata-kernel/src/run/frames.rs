//! The frames of a run for who reads the file by itself, whatever its state: see `inspect` and `remains`.

use std::sync::Arc;

use super::block::{Block, BlockCursor, Body};
use super::footer::Footer;
use super::frame::{FRAME_HEADER, FrameHeader, FrameKind, Framing, HEADER, Payload, TAIL, u64_at};
use super::{Fault, Row, Span, parts_of, read_exactly};
use crate::env::File;
use crate::error::{Error, Result};
use crate::seal::{FileCipher, KeyId};

pub use super::frame::FORMAT;

/// What opens the run of a database that is sealed with a key, if there is anything.
pub type CipherOf<'a> = &'a dyn Fn([u8; 16], u64, KeyId) -> Option<FileCipher>;

/// Where the first frame begins.
pub const FIRST: u64 = HEADER as u64;
/// A search for the next frame reads so much at once.
const STEP: usize = 1 << 20;

/// One frame, as its header says it.
pub struct Frame {
    pub at: u64,
    pub kind: FrameKind,
    /// With the header.
    pub bytes: u64,
    pub raw_bytes: u64,
    pub codec: u8,
    pub is_sealed: bool,
    /// Of a data block that can be read.
    pub rows: Option<u32>,
    /// What is wrong with it, though it says where it ends.
    pub damage: Option<&'static str>,
}

pub struct FooterFound {
    pub rows: u64,
    pub keys: u64,
    pub raw_bytes: u64,
    pub spans: Vec<Span>,
    pub index_blocks: usize,
}

/// A file of frames.
pub struct Frames {
    file: Arc<dyn File>,
    name: String,
    header: Vec<u8>,
    framing: Framing,
    size: u64,
}

impl FrameKind {
    pub fn name(self) -> &'static str {
        match self {
            FrameKind::Block => "rows",
            FrameKind::Value => "value",
            FrameKind::Index => "index",
            FrameKind::Filter => "filter",
            FrameKind::Footer => "footer",
            FrameKind::Derived => "derived",
        }
    }
}

impl Frames {
    /// Database and number are those that the header says, right or wrong.
    pub fn new(file: &Arc<dyn File>, name: &str, cipher: CipherOf<'_>) -> Result<Frames> {
        let mut header = vec![0; HEADER];
        let count = file.read_at(0, &mut header)?;
        let mut database_id = [0; 16];
        database_id.copy_from_slice(&header[16..32]);
        let key = KeyId(*header[40..].first_chunk().expect("64 bytes"));
        let run = u64_at(&header, 32);
        let framing = Framing { database_id, run, compress: false, key, cipher: cipher(database_id, run, key) };
        header.truncate(count);
        Ok(Frames { file: Arc::clone(file), name: name.to_owned(), header, framing, size: file.size()? })
    }

    /// Those of a run that is known to be of this database and to have this number, whatever its header says.
    pub(super) fn known(file: &Arc<dyn File>, name: &str, framing: Framing) -> Result<Frames> {
        Ok(Frames { framing, ..Frames::new(file, name, &|_, _, _| None)? })
    }

    pub(super) fn into_framing(self) -> Framing {
        self.framing
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn number(&self) -> u64 {
        self.framing.run
    }

    pub fn database_id(&self) -> [u8; 16] {
        self.framing.database_id
    }

    /// What it is sealed with, as the header says.
    pub fn key(&self) -> KeyId {
        self.framing.key
    }

    pub fn check_header(&self) -> Result<KeyId> {
        self.framing.check_header(&self.header, &self.name)
    }

    /// Offset and length of the footer.
    pub fn tail(&self) -> Result<(u64, u32)> {
        let at = self.size.saturating_sub(TAIL as u64);
        let bytes = self.read(at, TAIL)?;
        let tail = bytes.first_chunk().expect("so many were read");
        self.framing.read_tail(tail, self.size).map_err(|reason| self.corrupt(at, reason))
    }

    /// `None` where it is sealed.
    pub fn footer(&self, at: u64, length: u32) -> Result<Option<FooterFound>> {
        let Some(footer) = self.whole_footer(at, length)? else { return Ok(None) };
        let Footer { rows, keys, raw_bytes, spans, top } = footer;
        Ok(Some(FooterFound { rows, keys, raw_bytes, spans, index_blocks: top.entries().len() }))
    }

    pub(super) fn whole_footer(&self, at: u64, length: u32) -> Result<Option<Footer>> {
        let bytes = self.read(at, length as usize)?;
        let header = FrameHeader::decode(&bytes).map_err(|reason| self.corrupt(at, reason))?;
        if header.is_sealed && self.framing.cipher.is_none() {
            return self.framing.check(&bytes, at).map(|()| None).map_err(|reason| self.corrupt(at, reason));
        }
        let payload = self.framing.open(FrameKind::Footer, at, bytes).map_err(|reason| self.corrupt(at, reason))?;
        Footer::decode(payload.bytes(), at).map(Some).map_err(|reason| self.corrupt(at, reason))
    }

    /// The frame at `at`; `end` is where frames end. An error where not even its length can be believed.
    pub fn frame(&self, at: u64, end: u64) -> Result<Frame> {
        let corrupt = |reason| self.corrupt(at, reason);
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        let header = self.read(at, left.min(FRAME_HEADER))?;
        let header = FrameHeader::decode(&header).map_err(corrupt)?;
        let bytes = header.frame_bytes();
        if bytes > left {
            return Err(corrupt("a frame is longer than its file"));
        }
        let (payload, damage) = match self.open(&header, at) {
            Ok(payload) => (payload, None),
            // It is one all the same where another begins behind it.
            Err(Error::Corrupt { .. }) if !self.is_frame(at + bytes as u64, end) => {
                return Err(corrupt("there is no frame that checks"));
            }
            Err(Error::Corrupt { .. }) => (None, Some("the frame has another checksum, or does not unpack")),
            Err(other) => return Err(other),
        };
        let block = payload.filter(|_| header.kind == FrameKind::Block).map(|payload| Block::new(payload, at));
        let (rows, damage) = match block {
            Some(Ok(block)) => (Some(block.rows()), damage),
            Some(Err(reason)) => (None, Some(reason)),
            None => (None, damage),
        };
        let (kind, codec, raw_bytes, is_sealed) = (header.kind, header.codec, header.raw as u64, header.is_sealed);
        Ok(Frame { at, kind, bytes: bytes as u64, raw_bytes, codec, is_sealed, rows, damage })
    }

    /// Kind, length and payload of the frame at `at`. The error says why there is none that checks.
    pub(super) fn piece(&self, at: u64, end: u64) -> Result<(FrameKind, u64, Option<Payload>)> {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        let header = self.read(at, left.min(FRAME_HEADER))?;
        let header = FrameHeader::decode(&header).map_err(|reason| self.corrupt(at, reason))?;
        if header.frame_bytes() > left {
            return Err(self.corrupt(at, "a frame is longer than its file"));
        }
        Ok((header.kind, header.frame_bytes() as u64, self.open(&header, at)?))
    }

    /// The payload; `None` where it is sealed and there is no key.
    fn open(&self, header: &FrameHeader, at: u64) -> Result<Option<Payload>> {
        let bytes = self.read(at, header.frame_bytes())?;
        let corrupt = |reason| self.corrupt(at, reason);
        if header.is_sealed && self.framing.cipher.is_none() {
            return self.framing.check(&bytes, at).map(|()| None).map_err(corrupt);
        }
        self.framing.open(header.kind, at, bytes).map(Some).map_err(corrupt)
    }

    /// Whether frames end at `at`, or one that checks begins there.
    fn is_frame(&self, at: u64, end: u64) -> bool {
        if at >= end {
            return at == end;
        }
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        let header = self.read(at, left.min(FRAME_HEADER)).ok().and_then(|bytes| FrameHeader::decode(&bytes).ok());
        header.is_some_and(|header| header.frame_bytes() <= left && self.open(&header, at).is_ok())
    }

    /// The next frame behind `at` that checks.
    pub fn next(&self, at: u64, end: u64) -> Result<Option<u64>> {
        // Bytes made to look like many long frames would make this quadratic. No damage leaves such.
        let mut budget = (end - at).saturating_mul(16);
        let mut start = at + 1;
        while start + FRAME_HEADER as u64 <= end {
            let bytes = self.read(start, STEP.min((end - start) as usize))?;
            for offset in 0..=bytes.len() - FRAME_HEADER {
                let Ok(header) = FrameHeader::decode(&bytes[offset..]) else { continue };
                let found = start + offset as u64;
                if header.frame_bytes() as u64 > end - found {
                    continue;
                }
                if self.open(&header, found).is_ok() {
                    return Ok(Some(found));
                }
                budget = budget.saturating_sub(header.frame_bytes() as u64);
                if budget == 0 {
                    return Ok(None);
                }
            }
            start += (bytes.len() - FRAME_HEADER + 1) as u64;
        }
        Ok(None)
    }

    /// Call `take` with the rows of a data block, until it says false.
    pub fn rows(&self, frame: &Frame, take: &mut dyn FnMut(Row<'_>) -> Result<bool>) -> Result<()> {
        let corrupt = |reason| self.corrupt(frame.at, reason);
        if frame.rows.is_none() {
            return Ok(());
        }
        let bytes = self.read(frame.at, frame.bytes as usize)?;
        let payload = self.framing.open(frame.kind, frame.at, bytes).map_err(corrupt)?;
        let block = Block::new(payload, frame.at).map_err(corrupt)?;
        let mut cursor = BlockCursor::default();
        cursor.first(&block).map_err(corrupt)?;
        while let Some(head) = cursor.head().copied() {
            let aside = match head.body {
                Body::Here { .. } => None,
                Body::Aside { offset, frame_bytes, .. } => Some(self.aside(frame.at, offset, frame_bytes)?),
            };
            let bytes = aside.as_ref().map_or(block.bytes(), Payload::bytes);
            let version = head.version_in(bytes).map_err(corrupt)?;
            let (branch, keyspace, key) = parts_of(cursor.key());
            if !take(Row { branch, keyspace, key, version })? {
                return Ok(());
            }
            cursor.advance(&block).map_err(corrupt)?;
        }
        Ok(())
    }

    pub(super) fn aside(&self, block: u64, offset: u64, frame_bytes: u32) -> Result<Payload> {
        let corrupt = |reason| self.corrupt(block, reason);
        if offset.checked_add(frame_bytes.into()).is_none_or(|end| end > block) {
            return Err(corrupt("a row names a value behind its block"));
        }
        let bytes = self.read(offset, frame_bytes as usize)?;
        self.framing.open(FrameKind::Value, offset, bytes).map_err(|reason| self.corrupt(offset, reason))
    }

    /// So many bytes; the file has them, or this is an error before memory is taken.
    fn read(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        if at.checked_add(length as u64).is_none_or(|end| end > self.size) {
            return Err(Fault::Short.at(&self.name, at));
        }
        read_exactly(&*self.file, at, length).map_err(|fault| fault.at(&self.name, at))
    }

    pub(super) fn corrupt(&self, offset: u64, reason: &str) -> Error {
        Error::damaged(&self.name, offset, reason)
    }
}
