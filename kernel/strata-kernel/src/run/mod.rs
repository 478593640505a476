//! Runs: immutable files of sorted rows, where versions live that are no longer in memory.
//!
//! A row is one version of one key, and rows are sorted by branch, keyspace, key, and version from the newest to the
//! oldest. A file is frames behind each other (`frame`): data blocks of about 16 KiB (`block`), in front of each the large
//! values it points to; after some blocks the index block that lists them (`index`) and the filter of their keys
//! (`filter`); at the end the footer (`footer`) with the top index. `docs/design/format.md` has the bytes.
//!
//! Opening reads header and footer. All else is read when it is needed, one frame at a time, through the block cache
//! (`cache`). A point read asks the top index, a filter, an index block and a data block, and one frame more where the
//! value is large.
//!
//! A file is never changed once it has its name, and its number is never given again. So what was read stays true, a
//! cursor needs no lock, and the file may be removed while it is read.
//!
//! What is read is checked and still not trusted: bytes that no writer made are `Corrupt`, with file and offset.

mod block;
mod cache;
mod changes;
mod cursor;
mod derived;
mod filter;
mod footer;
mod frame;
pub(crate) mod frames;
mod index;
mod remains;
mod varint;
mod verify;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::env::{Disk, File};
use crate::error::{Error, Result};
use crate::seal::{self, KeyId, Keyring, Kind};
use crate::table::{ChangeKind, Version};
use block::{Block, Body, PREFIX, RowHead};
use cache::Cached;
use footer::Footer;
use frame::{Framing, HEADER, Payload, TAIL, zeroed};
use index::{Entry, Index};
use varint::Reader;

pub use cache::{BlockCache, CacheCounts};
pub use changes::TakeChange;
pub use cursor::{AllCursor, RangeCursor, VersionCursor};
pub use derived::{Derived, Outline, Section, derived_number_of, derived_path, outline, write_derived};
pub use filter::RowHash;
pub use footer::Span;
pub use frame::FrameKind;
pub use remains::{Gap, Remains, Spot};
pub use verify::RunVerified;
pub use writer::RunWriter;

/// The directory of the runs.
pub const DIRECTORY: &str = "DATA";
/// The longest key of a row.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;

/// Footers up to this size come with the first read of the file's end.
const END_BYTES: u64 = 16 << 10;

/// The path of a run.
pub fn path(number: u64) -> String {
    format!("{DIRECTORY}/run-{number:06}.run")
}

/// The path of a run that is being written, which is of no use until it is whole.
pub fn temporary_path(number: u64) -> String {
    format!("{DIRECTORY}/run-{number:06}.tmp")
}

/// The number that the name of a file says, if it is one of ours, whole or not.
pub fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix("run-")?;
    number.strip_suffix(".run").or_else(|| number.strip_suffix(".tmp"))?.parse().ok()
}

/// How runs are written and read; sizes count for writing only.
#[derive(Clone)]
pub struct RunOptions {
    pub database_id: [u8; 16],
    /// A data block is closed when it has so much.
    pub block_bytes: usize,
    /// An index block is closed when it has so much.
    pub index_bytes: usize,
    /// Values (with touched paths) of more than this stand aside.
    pub large_value_bytes: usize,
    pub compress: bool,
    /// New runs are sealed with the current key, and those that are sealed with any of them can be read.
    pub keys: Option<Arc<Keyring>>,
}

impl RunOptions {
    pub fn new(database_id: [u8; 16]) -> RunOptions {
        RunOptions {
            database_id,
            block_bytes: 16 << 10,
            // Small, as its filter is some eight times larger and is read as a whole.
            index_bytes: 4 << 10,
            large_value_bytes: 4 << 10,
            compress: true,
            keys: None,
        }
    }

    /// For a run that is sealed with `key`.
    fn framing(&self, run: u64, key: KeyId) -> Result<Framing> {
        let cipher = seal::cipher(self.keys.as_deref(), Kind::Run, run, key)?;
        Ok(Framing { database_id: self.database_id, run, compress: self.compress, key, cipher })
    }

    /// What new runs are sealed with.
    fn key(&self) -> KeyId {
        self.keys.as_deref().map_or(KeyId::NONE, Keyring::current)
    }
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    pub branch: u32,
    pub keyspace: u32,
    pub key: &'a [u8],
    pub version: Version<'a>,
}

/// A row without its bytes: what can be said without reading a value that stands aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowInfo<'a> {
    pub branch: u32,
    pub keyspace: u32,
    pub key: &'a [u8],
    pub version: u64,
    pub kind: ChangeKind,
    pub expires: u64,
    pub value_bytes: usize,
}

/// An open run.
pub struct Run {
    file: Arc<dyn File>,
    name: String,
    framing: Framing,
    cache: Arc<BlockCache>,
    footer: Footer,
    /// Where the footer begins: all other frames end at or before it.
    frames_end: u64,
    size: u64,
}

impl Run {
    /// Open a run; reads its header and its footer.
    pub fn open(disk: &dyn Disk, number: u64, cache: &Arc<BlockCache>, options: &RunOptions) -> Result<Arc<Run>> {
        let name = path(number);
        let corrupt = |offset, reason: &str| Error::damaged(&name, offset, reason);
        let file = disk.open(&name)?.ok_or_else(|| corrupt(0, "there is no such file"))?;
        let size = file.size()?;
        let mut header = [0; HEADER];
        let count = file.read_at(0, &mut header)?;
        let plain =
            Framing { database_id: options.database_id, run: number, compress: false, key: KeyId::NONE, cipher: None };
        let framing = options.framing(number, plain.check_header(&header[..count], &name)?)?;
        let end_bytes = size.min(END_BYTES);
        let end_offset = size - end_bytes;
        let end = read_exactly(&*file, end_offset, end_bytes as usize).map_err(|fault| fault.at(&name, end_offset))?;
        let tail = end.last_chunk::<TAIL>().ok_or_else(|| corrupt(size, "it is shorter than its tail"))?;
        let (frames_end, footer_bytes) =
            framing.read_tail(tail, size).map_err(|reason| corrupt(size.saturating_sub(TAIL as u64), reason))?;
        let frame = match frames_end.checked_sub(end_offset) {
            Some(start) => end[start as usize..end.len() - TAIL].to_vec(),
            None => {
                read_exactly(&*file, frames_end, footer_bytes as usize).map_err(|fault| fault.at(&name, frames_end))?
            }
        };
        let footer = framing
            .open(FrameKind::Footer, frames_end, frame)
            .and_then(|payload| Footer::decode(payload.bytes(), frames_end))
            .map_err(|reason| corrupt(frames_end, reason))?;
        let cache = cache.clone();
        Ok(Arc::new(Run { file, name, framing, cache, footer, frames_end, size }))
    }

    pub fn number(&self) -> u64 {
        self.framing.run
    }

    /// What it is sealed with.
    pub fn key(&self) -> KeyId {
        self.framing.key
    }

    pub fn file_bytes(&self) -> u64 {
        self.size
    }

    pub fn rows(&self) -> u64 {
        self.footer.rows
    }

    /// How many distinct keys there are, counting each branch and keyspace.
    pub fn keys(&self) -> u64 {
        self.footer.keys
    }

    /// The bytes of keys, values and touched paths before all packing.
    pub fn raw_bytes(&self) -> u64 {
        self.footer.raw_bytes
    }

    /// What it holds of each branch, by branch.
    pub fn spans(&self) -> &[Span] {
        &self.footer.spans
    }

    pub fn span(&self, branch: u32) -> Option<&Span> {
        let spans = &self.footer.spans;
        spans.binary_search_by_key(&branch, |span| span.branch).ok().map(|number| &spans[number])
    }

    /// What the open run itself keeps in memory, which is not in the cache.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Run>() + self.footer.top.memory_bytes() + self.footer.spans.capacity() * size_of::<Span>()
    }

    /// Copy the file; tells the bytes so far.
    pub fn copy_to(&self, to: &dyn File, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        let mut at = 0;
        while at < self.size {
            let bytes = self.read_bytes(at, (self.size - at).min(1 << 20) as usize)?;
            to.write_at(at, &bytes)?;
            at += bytes.len() as u64;
            progress(at)?;
        }
        Ok(())
    }

    /// Whether another file has its length and its footer: then it is a copy, as far as that tells.
    pub fn ends_like(&self, other: &dyn File) -> Result<bool> {
        if other.size()? != self.size {
            return Ok(false);
        }
        let end = self.read_bytes(self.frames_end, (self.size - self.frames_end) as usize)?;
        let mut found = vec![0; end.len()];
        let count = other.read_at(self.frames_end, &mut found)?;
        Ok(count == end.len() && found == end)
    }

    /// Drop its frames from the cache: when the run is removed.
    pub fn forget(&self) {
        self.cache.forget(self.number());
    }

    /// Call `read` with the newest version of a key at or below `at`, deletions included; `None` when there is none here.
    /// `hash` is that of this branch, keyspace and key.
    #[inline]
    pub fn get<R>(
        &self,
        branch: u32,
        keyspace: u32,
        key: &[u8],
        hash: RowHash,
        at: u64,
        read: impl FnOnce(Version<'_>) -> R,
    ) -> Result<Option<R>> {
        if self.span(branch).is_none_or(|span| span.oldest > at) {
            return Ok(None);
        }
        with_place_key(branch, keyspace, key, |key| {
            let number = self.footer.top.find(key, at);
            let Some(part) = self.footer.top.entries().get(number) else { return Ok(None) };
            if !self.may_hold(part, hash)? {
                return Ok(None);
            }
            self.get_in(part, key, at, read)
        })
    }

    fn get_in<R>(&self, part: &Entry, key: &[u8], at: u64, read: impl FnOnce(Version<'_>) -> R) -> Result<Option<R>> {
        let index = self.index(part)?;
        let Some(entry) = index.entries().get(index.find(key, at)) else { return Ok(None) };
        let block = self.block(entry)?;
        let corrupt = |reason| self.corrupt(block.offset, reason);
        let Some(head) = block.find(key, at).map_err(corrupt)? else { return Ok(None) };
        match head.body {
            Body::Here { .. } => head.version_in(block.bytes()).map(read).map(Some).map_err(corrupt),
            Body::Aside { .. } => {
                let value = self.aside(&head, block.offset)?.expect("it stands aside");
                head.version_in(value.bytes()).map(read).map(Some).map_err(corrupt)
            }
        }
    }

    /// Whether one of the blocks that the index block of `part` lists may have the key.
    #[inline]
    fn may_hold(&self, part: &Entry, hash: RowHash) -> Result<bool> {
        let offset = part.offset.saturating_add(part.frame_bytes.into());
        let seen = self.cache.look(self.number(), offset, |cached| match cached {
            Cached::Filter(filter) => filter::may_hold(filter.bytes(), hash),
            _ => true,
        });
        match seen {
            Some(may_hold) => Ok(may_hold),
            None => self.read_filter(part).map(|filter| filter::may_hold(filter.bytes(), hash)),
        }
    }

    fn read_filter(&self, part: &Entry) -> Result<Arc<Payload>> {
        let offset = part.offset.saturating_add(part.frame_bytes.into());
        let payload = self.read(FrameKind::Filter, offset, part.filter_bytes)?;
        if !filter::is_filter(payload.bytes()) {
            return Err(self.corrupt(offset, "a filter has no whole groups"));
        }
        let payload = Arc::new(payload);
        self.cache.put(self.number(), offset, &Cached::Filter(payload.clone()));
        Ok(payload)
    }

    fn index(&self, part: &Entry) -> Result<Arc<Index>> {
        if let Some(Cached::Index(index)) = self.cache.get(self.number(), part.offset) {
            return Ok(index);
        }
        let index = Arc::new(self.read_index(part)?);
        self.cache.put(self.number(), part.offset, &Cached::Index(index.clone()));
        Ok(index)
    }

    /// The index block from the file; it lists at least one block, and what it lists stands before it.
    fn read_index(&self, part: &Entry) -> Result<Index> {
        let payload = self.read(FrameKind::Index, part.offset, part.frame_bytes)?;
        self.parse_index(&payload, part.offset)
    }

    fn parse_index(&self, payload: &Payload, offset: u64) -> Result<Index> {
        let mut reader = Reader::new(payload.bytes(), 0);
        let index = Index::decode(&mut reader, offset).map_err(|reason| self.corrupt(offset, reason))?;
        if reader.left() > 0 || index.entries().is_empty() {
            return Err(self.corrupt(offset, "an index block has not the length it says"));
        }
        Ok(index)
    }

    fn block(&self, entry: &Entry) -> Result<Arc<Block>> {
        if let Some(Cached::Block(block)) = self.cache.get(self.number(), entry.offset) {
            return Ok(block);
        }
        let payload = self.read(FrameKind::Block, entry.offset, entry.frame_bytes)?;
        let block = Arc::new(self.parse_block(payload, entry.offset)?);
        self.cache.put(self.number(), entry.offset, &Cached::Block(block.clone()));
        Ok(block)
    }

    fn parse_block(&self, payload: Payload, offset: u64) -> Result<Block> {
        Block::new(payload, offset).map_err(|reason| self.corrupt(offset, reason))
    }

    /// The payload of the frame that holds the value of a row of the block at `block_offset`; `None` when it is in the block.
    fn aside(&self, row: &RowHead, block_offset: u64) -> Result<Option<Arc<Payload>>> {
        let Body::Aside { offset, frame_bytes, .. } = row.body else { return Ok(None) };
        if offset >= block_offset {
            return Err(self.corrupt(block_offset, "a row names a value behind its block"));
        }
        if let Some(Cached::Value(payload)) = self.cache.get(self.number(), offset) {
            return Ok(Some(payload));
        }
        let payload = Arc::new(self.read(FrameKind::Value, offset, frame_bytes)?);
        self.cache.put(self.number(), offset, &Cached::Value(payload.clone()));
        Ok(Some(payload))
    }

    /// The payload of a frame, from the file.
    fn read(&self, kind: FrameKind, offset: u64, frame_bytes: u32) -> Result<Payload> {
        self.check_place(offset, frame_bytes)?;
        let bytes = self.read_bytes(offset, frame_bytes as usize)?;
        self.framing.open_fast(kind, offset, bytes).map_err(|reason| self.corrupt(offset, reason))
    }

    fn read_bytes(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        read_exactly(&*self.file, offset, length).map_err(|fault| fault.at(&self.name, offset))
    }

    /// Whether a frame can stand there: so that no memory is taken for more than the file has.
    fn check_place(&self, offset: u64, frame_bytes: u32) -> Result<()> {
        let ends_in_time = offset.checked_add(frame_bytes.into()).is_some_and(|end| end <= self.frames_end);
        if offset >= HEADER as u64 && ends_in_time { Ok(()) } else { Err(self.corrupt(offset, "no frame can be here")) }
    }

    fn corrupt(&self, offset: u64, reason: &str) -> Error {
        Error::damaged(&self.name, offset, reason)
    }
}

/// Why bytes could not be read.
enum Fault {
    Short,
    NoMemory(&'static str),
    Failed(Error),
}

impl Fault {
    fn at(self, file: &str, offset: u64) -> Error {
        match self {
            Fault::Short => Error::damaged(file, offset, "it ends too early"),
            Fault::NoMemory(reason) => Error::damaged(file, offset, reason),
            Fault::Failed(error) => error,
        }
    }
}

fn read_exactly(file: &dyn File, offset: u64, length: usize) -> Result<Vec<u8>, Fault> {
    let mut bytes = zeroed(length).map_err(Fault::NoMemory)?;
    match file.read_at(offset, &mut bytes) {
        Ok(count) if count == length => Ok(bytes),
        Ok(_) => Err(Fault::Short),
        Err(error) => Err(Fault::Failed(error)),
    }
}

/// Call `body` with `branch ‖ keyspace ‖ key`, which needs no allocation where the key is not long.
#[inline]
fn with_place_key<R>(branch: u32, keyspace: u32, key: &[u8], body: impl FnOnce(&[u8]) -> R) -> R {
    let mut short = [0; 128];
    let length = PREFIX + key.len();
    if length > short.len() {
        return body(&place_key(branch, keyspace, key));
    }
    short[..4].copy_from_slice(&branch.to_be_bytes());
    short[4..PREFIX].copy_from_slice(&keyspace.to_be_bytes());
    short[PREFIX..length].copy_from_slice(key);
    body(&short[..length])
}

pub fn place_key(branch: u32, keyspace: u32, key: &[u8]) -> Vec<u8> {
    [&branch.to_be_bytes()[..], &keyspace.to_be_bytes(), key].concat()
}

/// Branch, keyspace and key of a place key.
pub fn parts_of(place_key: &[u8]) -> (u32, u32, &[u8]) {
    let number = |at: usize| place_key[at..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    (number(0), number(4), &place_key[PREFIX..])
}
