//! Verification: reads all of a run, and compares everything with everything.
//!
//! Frames are taken one after the other as they stand in the file, not as the index has them; so bytes that nothing points
//! to are seen too. What the rows say, index, filters and footer must say.

use super::block::{Block, BlockCursor, Body, RowHead};
use super::filter::{self, RowHash};
use super::footer::Footer;
use super::frame::{FRAME_HEADER, FrameHeader, FrameKind, HEADER, Payload, TAIL};
use super::index::Entry;
use super::walk::Window;
use super::{Run, parts_of};
use crate::error::Result;
use crate::keyspaces::RESERVED;
use crate::table::ChangeKind;
use crate::value;

/// What a verification has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunVerified {
    pub rows: u64,
    pub keys: u64,
    pub blocks: u64,
    /// Values that stand aside.
    pub values_aside: u64,
    pub bytes: u64,
}

impl Run {
    /// Read everything and check it: checksums, order, values, and that index, filters and footer say what the rows do.
    /// Calls `progress` with the bytes of each piece; all together are the length of the file. Its error ends it.
    pub fn verify(&self, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<RunVerified> {
        if self.framing.check_header(&self.read_bytes(0, HEADER)?, &self.name)? != self.key() {
            return Err(self.corrupt(40, "the header names another key"));
        }
        progress(HEADER as u64)?;
        let mut verify = Verify::new(self);
        let mut at = HEADER as u64;
        while at < self.frames_end {
            let bytes = verify.frame(at)?;
            progress(bytes)?;
            at += bytes;
        }
        verify.finish()?;
        progress(self.size - self.frames_end)?;
        let Footer { rows, keys, .. } = self.footer;
        Ok(RunVerified { rows, keys, bytes: self.size, ..verify.verified })
    }
}

/// A row's place key and version.
type Spot = (Vec<u8>, u64);

/// Whether a row comes at or before another place, in the order of rows.
fn reaches((key, version): &Spot, fence_key: &[u8], fence_version: u64) -> bool {
    (&key[..], std::cmp::Reverse(*version)) <= (fence_key, std::cmp::Reverse(fence_version))
}

/// A data block as it was read.
struct Seen {
    offset: u64,
    frame_bytes: u32,
    first: Spot,
    last: Spot,
    newest: u64,
}

/// An index block as it was read: where, and its last fence.
struct Part {
    offset: u64,
    frame_bytes: u32,
    fence: Spot,
    newest: u64,
}

struct Verify<'a> {
    run: &'a Run,
    window: Window,
    verified: RunVerified,
    counted: Footer,
    /// Values that no row named yet.
    asides: Vec<(u64, u32)>,
    /// Blocks that no index block named yet, and the hashes of their keys.
    blocks: Vec<Seen>,
    hashes: Vec<RowHash>,
    /// The index block whose filter comes next.
    part: Option<Part>,
    /// How many entries of the top index were seen.
    parts: usize,
    /// The row before.
    last: Option<Spot>,
    /// What the next block must be behind.
    fence: Option<Spot>,
}

impl<'a> Verify<'a> {
    fn new(run: &'a Run) -> Verify<'a> {
        Verify {
            run,
            window: Window::default(),
            verified: RunVerified::default(),
            counted: Footer::default(),
            asides: Vec::new(),
            blocks: Vec::new(),
            hashes: Vec::new(),
            part: None,
            parts: 0,
            last: None,
            fence: None,
        }
    }

    /// Check the frame at `at`; returns its length.
    fn frame(&mut self, at: u64) -> Result<u64> {
        let header = self.window.frame_bytes(self.run, at, FRAME_HEADER as u32)?;
        let header = FrameHeader::decode(header).map_err(|reason| self.run.corrupt(at, reason))?;
        let length = u32::try_from(header.frame_bytes()).map_err(|_| self.run.corrupt(at, "a frame is too long"))?;
        if self.part.is_some() != (header.kind == FrameKind::Filter) {
            return Err(self.run.corrupt(at, "an index block and its filter are not together"));
        }
        match header.kind {
            // Its bytes are read with the row that names it.
            FrameKind::Value => self.asides.push((at, length)),
            FrameKind::Block => self.block(at, length)?,
            FrameKind::Index => self.index(at, length)?,
            FrameKind::Filter => self.filter(at, length)?,
            FrameKind::Footer | FrameKind::Derived => {
                return Err(self.run.corrupt(at, "a frame stands here that does not belong among these"));
            }
        }
        self.run.check_place(at, length)?;
        Ok(length.into())
    }

    fn payload(&mut self, kind: FrameKind, offset: u64, frame_bytes: u32) -> Result<Payload> {
        let bytes = self.window.frame_bytes(self.run, offset, frame_bytes)?.to_vec();
        self.run.framing.open(kind, offset, bytes).map_err(|reason| self.run.corrupt(offset, reason))
    }

    fn block(&mut self, offset: u64, frame_bytes: u32) -> Result<()> {
        let run = self.run;
        let corrupt = |reason| run.corrupt(offset, reason);
        let payload = self.payload(FrameKind::Block, offset, frame_bytes)?;
        let block = Block::new(payload, offset).map_err(corrupt)?;
        let mut asides = std::mem::take(&mut self.asides).into_iter();
        let mut cursor = BlockCursor::default();
        cursor.first(&block).map_err(corrupt)?;
        let (mut first, mut newest) = (None, 0);
        while let Some(head) = cursor.head().copied() {
            self.row(&block, cursor.key(), &head, &mut asides)?;
            first.get_or_insert_with(|| (cursor.key().to_vec(), head.version));
            newest = newest.max(head.version);
            cursor.advance(&block).map_err(corrupt)?;
        }
        if asides.next().is_some() {
            return Err(corrupt("a value in front of a block is none of its rows'"));
        }
        let (Some(first), Some(last)) = (first, self.last.clone()) else { return Err(corrupt("a block has no rows")) };
        if self.fence.take().is_some_and(|(key, version)| reaches(&first, &key, version)) {
            return Err(corrupt("a block begins before the index says"));
        }
        self.blocks.push(Seen { offset, frame_bytes, first, last, newest });
        self.verified.blocks += 1;
        Ok(())
    }

    fn row(
        &mut self,
        block: &Block,
        key: &[u8],
        head: &RowHead,
        asides: &mut impl Iterator<Item = (u64, u32)>,
    ) -> Result<()> {
        let run = self.run;
        let corrupt = |reason: &str| run.corrupt(block.offset, reason);
        let is_new_key = self.last.as_ref().is_none_or(|(before, _)| before != key);
        if self.last.as_ref().is_some_and(|(before, version)| {
            (key, std::cmp::Reverse(head.version)) <= (&before[..], std::cmp::Reverse(*version))
        }) {
            return Err(corrupt("the rows are not in order"));
        }
        let aside = match head.body {
            Body::Here { .. } => None,
            Body::Aside { offset, frame_bytes, .. } => {
                if asides.next() != Some((offset, frame_bytes)) {
                    return Err(corrupt("a row names another value than the one in front of its block"));
                }
                self.verified.values_aside += 1;
                Some(match self.window.payload(run, FrameKind::Value, offset, frame_bytes) {
                    Some(payload) => payload?,
                    None => run.read(FrameKind::Value, offset, frame_bytes)?,
                })
            }
        };
        let bytes = aside.as_ref().map_or(block.bytes(), Payload::bytes);
        let version = head.version_in(bytes).map_err(corrupt)?;
        let (branch, keyspace, own_key) = parts_of(key);
        if let Some(value) = version.value.filter(|_| keyspace < RESERVED) {
            value::check(value).map_err(|error| corrupt(&format!("a row holds no value: {error}")))?;
        }
        debug_assert_eq!(version.value.is_none(), version.kind == ChangeKind::Delete);
        let raw_bytes = own_key.len() + version.value.map_or(0, <[u8]>::len) + version.touched.len();
        self.counted.count(branch, head.version, is_new_key, raw_bytes);
        if is_new_key || self.hashes.is_empty() {
            self.hashes.push(RowHash::of(branch, keyspace, own_key));
        }
        match &mut self.last {
            Some((last, version)) if is_new_key => {
                last.clear();
                last.extend_from_slice(key);
                *version = head.version;
            }
            Some((_, version)) => *version = head.version,
            None => self.last = Some((key.to_vec(), head.version)),
        }
        Ok(())
    }

    /// The index block must list the blocks since the last one, each with a fence between it and the next.
    fn index(&mut self, offset: u64, frame_bytes: u32) -> Result<()> {
        let run = self.run;
        let payload = self.payload(FrameKind::Index, offset, frame_bytes)?;
        let index = run.parse_index(&payload, offset)?;
        let is_same = |(seen, entry): (&Seen, &Entry)| {
            (seen.offset, seen.frame_bytes, 0, seen.newest)
                == (entry.offset, entry.frame_bytes, entry.filter_bytes, entry.newest)
        };
        let entries = index.entries();
        if entries.len() != self.blocks.len() || !self.blocks.iter().zip(entries).all(is_same) {
            return Err(run.corrupt(offset, "an index block lists other blocks than those in front of it"));
        }
        for (number, seen) in self.blocks.iter().enumerate() {
            let (key, version) = (index.key(number), entries[number].version);
            let next = self.blocks.get(number + 1);
            if !reaches(&seen.last, key, version) || next.is_some_and(|next| reaches(&next.first, key, version)) {
                return Err(run.corrupt(offset, "an index block does not part the blocks it lists"));
            }
        }
        let last = entries.len() - 1;
        let fence = (index.key(last).to_vec(), entries[last].version);
        self.fence = Some(fence.clone());
        self.blocks.clear();
        self.part = Some(Part { offset, frame_bytes, fence, newest: index.newest() });
        Ok(())
    }

    /// The filter must know the keys since the last one, and the top index the index block in front of it.
    fn filter(&mut self, offset: u64, frame_bytes: u32) -> Result<()> {
        let run = self.run;
        let payload = self.payload(FrameKind::Filter, offset, frame_bytes)?;
        let is_whole = filter::is_filter(payload.bytes());
        if !is_whole || !self.hashes.drain(..).all(|hash| filter::may_hold(payload.bytes(), hash)) {
            return Err(run.corrupt(offset, "a filter does not know a key"));
        }
        let part = self.part.take().expect("asked behind an index block only");
        let top = &run.footer.top;
        let is_listed = top.entries().get(self.parts).is_some_and(|entry| {
            (entry.offset, entry.frame_bytes, entry.filter_bytes) == (part.offset, part.frame_bytes, frame_bytes)
                && (top.key(self.parts), entry.version, entry.newest) == (&part.fence.0[..], part.fence.1, part.newest)
        });
        self.parts += 1;
        if is_listed { Ok(()) } else { Err(run.corrupt(offset, "the footer does not list an index block as it is")) }
    }

    fn finish(&mut self) -> Result<()> {
        let run = self.run;
        // Opening has checked these bytes, and they may have changed since.
        let footer_bytes = (run.size - run.frames_end) as usize - TAIL;
        let mut bytes = run.read_bytes(run.frames_end, footer_bytes + TAIL)?;
        let tail = bytes.split_off(footer_bytes);
        let tail = tail.first_chunk().expect("so many were read");
        run.framing.read_tail(tail, run.size).map_err(|reason| run.corrupt(run.size - TAIL as u64, reason))?;
        let corrupt = |reason| run.corrupt(run.frames_end, reason);
        run.framing.open(FrameKind::Footer, run.frames_end, bytes).map_err(corrupt)?;
        let is_all_listed = self.asides.is_empty() && self.blocks.is_empty() && self.part.is_none();
        if !is_all_listed || self.parts != run.footer.top.entries().len() {
            return Err(corrupt("the last frames are not listed, or others are"));
        }
        let (said, counted) = (&run.footer, &self.counted);
        if (said.rows, said.keys, said.raw_bytes, &said.spans)
            != (counted.rows, counted.keys, counted.raw_bytes, &counted.spans)
        {
            return Err(corrupt("the footer does not count what there is"));
        }
        Ok(())
    }
}
