//! Walking through a run, block after block: what all cursors stand on.
//!
//! Invariant: rows come in strict order, or not at all: each block is checked as it is read, and each step from one block
//! to the next. So whoever walks comes to an end, also in a file that somebody made up.

use std::cmp::Ordering;
use std::sync::{Arc, OnceLock};

use super::block::{Block, BlockCursor, Body, RowHead};
use super::cache::Cached;
use super::frame::{FrameKind, Payload};
use super::index::{Entry, Index};
use super::{Row, RowInfo, Run, parts_of};
use crate::error::Result;
use crate::sabotage;

/// How much a walk through everything reads at once.
const WINDOW_BYTES: u64 = 1 << 20;
/// What lies between the last window and the next block is read along when it is no more than this.
const GAP_BYTES_MAX: u64 = 3 << 20;

/// Where frames come from.
pub(super) enum Source {
    /// Through the cache.
    Cache,
    /// Past the cache, in large pieces: for walks through everything, which would push all else out.
    Ahead(Window),
}

/// A piece of the file.
#[derive(Default)]
pub(super) struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn bytes_at(&self, offset: u64, frame_bytes: u32) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(start..start.checked_add(frame_bytes as usize)?)
    }

    /// The bytes of a frame, reading on where they are not inside.
    pub fn frame_bytes(&mut self, run: &Run, offset: u64, frame_bytes: u32) -> Result<&[u8]> {
        if self.bytes_at(offset, frame_bytes).is_none() {
            self.move_to(run, offset, frame_bytes)?;
        }
        self.bytes_at(offset, frame_bytes).ok_or_else(|| run.corrupt(offset, "it ends too early"))
    }

    /// The payload of a frame, where it is inside.
    pub fn payload(&self, run: &Run, kind: FrameKind, offset: u64, frame_bytes: u32) -> Option<Result<Payload>> {
        let bytes = self.bytes_at(offset, frame_bytes)?.to_vec();
        Some(run.framing.open(kind, offset, bytes).map_err(|reason| run.corrupt(offset, reason)))
    }

    /// Move on so that the frame is inside.
    fn move_to(&mut self, run: &Run, offset: u64, frame_bytes: u32) -> Result<()> {
        run.check_place(offset, frame_bytes)?;
        let is_near = self.end() <= offset && offset - self.end() <= GAP_BYTES_MAX;
        let start = if is_near && !self.bytes.is_empty() { self.end() } else { offset };
        let end = (start + WINDOW_BYTES).max(offset + u64::from(frame_bytes)).min(run.frames_end);
        self.bytes = run.read_bytes(start, (end - start) as usize)?;
        self.start = start;
        Ok(())
    }
}

pub(super) struct Walk {
    pub run: Arc<Run>,
    source: Source,
    /// Which index block, which of its blocks, and which row of that.
    part: usize,
    index: Arc<Index>,
    entry: usize,
    block: Option<Arc<Block>>,
    row: BlockCursor,
}

impl Walk {
    /// Nowhere yet: behind the last row.
    pub fn new(run: Arc<Run>, source: Source) -> Walk {
        Walk { run, source, part: 0, index: Arc::default(), entry: 0, block: None, row: BlockCursor::default() }
    }

    /// The place key of the row, where there is one.
    #[inline]
    pub fn key(&self) -> &[u8] {
        self.row.key()
    }

    #[inline]
    pub fn head(&self) -> Option<&RowHead> {
        self.row.head()
    }

    /// The block of the row.
    pub fn block(&self) -> &Arc<Block> {
        self.block.as_ref().expect("a row is in a block")
    }

    /// Whether the row is the last of its block.
    pub fn is_last_of_block(&self) -> bool {
        self.block.as_ref().is_none_or(|block| self.row.is_last(block))
    }

    /// Go to the first row at or behind (`key`, `at`), in any direction.
    pub fn seek(&mut self, key: &[u8], at: u64) -> Result<()> {
        if !self.seek_block(key, at)? {
            self.row = BlockCursor::default();
            return Ok(());
        }
        let block = self.block.as_ref().expect("just found");
        self.row.seek(block, key, at).map_err(|reason| self.run.corrupt(block.offset, reason))?;
        if self.row.head().is_none() { self.first_of_next((key, at)) } else { Ok(()) }
    }

    /// Go to the block where that row is; false when there is none.
    pub fn seek_block(&mut self, key: &[u8], at: u64) -> Result<bool> {
        self.block = None;
        self.part = self.run.footer.top.find(key, at);
        let Some(part) = self.run.footer.top.entries().get(self.part).copied() else { return Ok(false) };
        self.index = self.load_index(&part)?;
        self.entry = self.index.find(key, at).min(self.index.entries().len() - 1);
        self.load_block()?;
        Ok(true)
    }

    /// Go to the last block; false when there is none.
    pub fn seek_last_block(&mut self) -> Result<bool> {
        self.block = None;
        self.part = self.run.footer.top.entries().len();
        self.entry = 0;
        self.previous_block()
    }

    /// Go to the block before; false when there is none. The row is not moved.
    pub fn previous_block(&mut self) -> Result<bool> {
        if self.entry > 0 {
            self.entry -= 1;
        } else {
            let Some(before) = self.part.checked_sub(1) else { return Ok(false) };
            let part = self.run.footer.top.entries()[before];
            self.index = self.load_index(&part)?;
            (self.part, self.entry) = (before, self.index.entries().len() - 1);
        }
        self.load_block()?;
        Ok(true)
    }

    /// Whether rows of `key` stand in the block before, too: only then does the index part the two with it.
    pub fn begins_before(&self, key: &[u8]) -> bool {
        match (self.entry.checked_sub(1), self.part.checked_sub(1)) {
            _ if sabotage::on("K27") => false,
            (Some(entry), _) => self.index.key(entry) == key,
            (None, Some(part)) => self.run.footer.top.key(part) == key,
            (None, None) => false,
        }
    }

    /// Go to the next row.
    #[inline]
    pub fn advance(&mut self) -> Result<()> {
        let (Some(block), Some(head)) = (&self.block, self.row.head()) else { return Ok(()) };
        if self.row.is_last(block) {
            let (key, version) = (self.row.key().to_vec(), head.version);
            // The row behind is the first one that is no newer than a version below.
            return match version.checked_sub(1) {
                Some(below) => self.first_of_next((&key, below)),
                None => self.first_of_next((&[&key[..], &[0]].concat(), u64::MAX)),
            };
        }
        self.row.advance(block).map_err(|reason| self.run.corrupt(block.offset, reason))
    }

    /// Go to the first row of the next block, which must be at or behind a place.
    fn first_of_next(&mut self, (key, at): (&[u8], u64)) -> Result<()> {
        if !self.next_block()? {
            self.row = BlockCursor::default();
            return Ok(());
        }
        let block = self.block.as_ref().expect("just found");
        self.row.first(block).map_err(|reason| self.run.corrupt(block.offset, reason))?;
        let is_behind = match (self.row.key().cmp(key), self.row.head()) {
            (Ordering::Greater, _) => true,
            (Ordering::Equal, Some(head)) => head.version <= at,
            _ => false,
        };
        if is_behind {
            Ok(())
        } else {
            Err(self.run.corrupt(block.offset, "a block begins before the one before it ends"))
        }
    }

    fn next_block(&mut self) -> Result<bool> {
        self.entry += 1;
        if self.entry == self.index.entries().len() {
            let Some(part) = self.run.footer.top.entries().get(self.part + 1).copied() else {
                self.block = None;
                return Ok(false);
            };
            self.index = self.load_index(&part)?;
            (self.part, self.entry) = (self.part + 1, 0);
        }
        self.load_block()?;
        Ok(true)
    }

    fn load_index(&self, part: &Entry) -> Result<Arc<Index>> {
        match (&self.source, self.run.cache.get(self.run.number(), part.offset)) {
            (_, Some(Cached::Index(index))) => Ok(index),
            (Source::Cache, _) => self.run.index(part),
            (Source::Ahead(_), _) => self.run.read_index(part).map(Arc::new),
        }
    }

    fn load_block(&mut self) -> Result<()> {
        let entry = self.index.entries()[self.entry];
        let run = &self.run;
        self.block = Some(match &mut self.source {
            Source::Cache => run.block(&entry)?,
            Source::Ahead(window) => {
                let bytes = window.frame_bytes(run, entry.offset, entry.frame_bytes)?.to_vec();
                let payload = run.framing.open(FrameKind::Block, entry.offset, bytes);
                let payload = payload.map_err(|reason| run.corrupt(entry.offset, reason))?;
                Arc::new(run.parse_block(payload, entry.offset)?)
            }
        });
        Ok(())
    }

    /// The payload that stands aside for `head`, a row of `block`.
    pub fn aside(&self, head: &RowHead, block: &Block) -> Result<Option<Arc<Payload>>> {
        if let (Source::Ahead(window), Body::Aside { offset, frame_bytes, .. }) = (&self.source, head.body) {
            return match window.payload(&self.run, FrameKind::Value, offset, frame_bytes) {
                Some(payload) => payload.map(Arc::new).map(Some),
                None => self.run.read(FrameKind::Value, offset, frame_bytes).map(Arc::new).map(Some),
            };
        }
        self.run.aside(head, block.offset)
    }
}

/// A row that a cursor shows, with what stands aside for it once that was asked for.
#[derive(Default)]
pub(super) struct Shown {
    aside: OnceLock<Arc<Payload>>,
}

impl Shown {
    pub fn clear(&mut self) {
        self.aside.take();
    }

    pub fn row<'a>(&'a self, walk: &Walk, block: &'a Block, key: &'a [u8], head: &RowHead) -> Result<Row<'a>> {
        if self.aside.get().is_none()
            && let Some(payload) = walk.aside(head, block)?
        {
            let _ = self.aside.set(payload);
        }
        let bytes = self.aside.get().map_or(block.bytes(), |payload| payload.bytes());
        let version = head.version_in(bytes).map_err(|reason| walk.run.corrupt(block.offset, reason))?;
        let (branch, keyspace, key) = parts_of(key);
        Ok(Row { branch, keyspace, key, version })
    }
}

pub(super) fn info<'a>(key: &'a [u8], head: &RowHead) -> RowInfo<'a> {
    let (branch, keyspace, key) = parts_of(key);
    let RowHead { version, kind, expires, body } = *head;
    RowInfo { branch, keyspace, key, version, kind, expires, value_bytes: body.value_bytes() }
}
