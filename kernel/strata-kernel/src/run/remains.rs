//! What remains of a run: all rows of frames that check, in order, whatever became of the others.
//!
//! The file is walked frame by frame, and where one does not check the next that does is looked for. A frame checks only
//! where it was written, so what is found belongs there. What is between is a *gap*: a stretch of bytes, and the last row
//! before and the first one behind it. A gap may have held no rows: that is known where an index block lists the blocks
//! around it, or the footer says that the index itself stood there.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

use super::block::{Block, BlockCursor, Body, RowHead};
use super::footer::{Footer, Span};
use super::frame::{FrameKind, Framing, HEADER, Payload, TAIL};
use super::frames::{FIRST, Frames};
use super::index::{Entry, Index};
use super::varint::Reader;
use super::{Row, RunOptions, parts_of, path};
use crate::env::{Disk, File};
use crate::error::{Error, Result};
use crate::sabotage;
use crate::seal::{FileCipher, KeyId, Keyring, Kind};
use crate::table::Version;

/// A row's place key and version.
pub type Spot = (Vec<u8>, u64);

/// Bytes whose rows, if there were any, are lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub offset: u64,
    pub length: u64,
    pub reason: String,
    /// The last row before it, and the first one behind it. Of a row whose value alone is lost, both are that row.
    pub after: Option<Spot>,
    pub before: Option<Spot>,
    pub is_one_row: bool,
}

pub struct Remains {
    frames: Frames,
    /// Where the frames end, as far as that is known.
    end: u64,
    at: u64,
    footer: Option<Footer>,
    /// Values in front of the block to come, and what is whole of them.
    asides: Vec<(u64, Payload)>,
    block: Option<Block>,
    cursor: BlockCursor,
    aside: Option<Payload>,
    last: Option<Spot>,
    open: Vec<Open>,
    gaps: Vec<Gap>,
    has_end: bool,
}

/// A gap that may turn out to have held no rows.
struct Open {
    gap: Gap,
    may_have_rows: bool,
}

impl Remains {
    /// Begin with the run of that number. `Corrupt` where nothing of it can be read, or it is another's.
    pub fn open(disk: &dyn Disk, number: u64, options: &RunOptions) -> Result<Remains> {
        let name = path(number);
        let corrupt = |reason: &str| Error::damaged(&name, 0, reason);
        let file = disk.open(&name)?.ok_or_else(|| corrupt("there is no such file"))?;
        let framing = framing(&file, &name, number, options)?;
        let frames = Frames::known(&file, &name, framing)?;
        let tail = whole(frames.tail())?;
        let footer = match tail {
            Some((at, length)) => whole(frames.whole_footer(at, length))?.flatten(),
            None => None,
        };
        let mut remains = Remains {
            // Behind a footer that cannot be found by the tail there may be a part of one.
            end: tail.map_or(frames.size(), |(at, _)| at),
            frames,
            at: FIRST,
            has_end: tail.is_some(),
            footer,
            asides: Vec::new(),
            block: None,
            cursor: BlockCursor::default(),
            aside: None,
            last: None,
            open: Vec::new(),
            gaps: Vec::new(),
        };
        remains.next_block()?;
        remains.settle()?;
        Ok(remains)
    }

    /// How far it was read.
    pub fn position(&self) -> u64 {
        self.at.min(self.frames.size())
    }

    pub fn size(&self) -> u64 {
        self.frames.size()
    }

    pub fn name(&self) -> &str {
        self.frames.name()
    }

    /// Where the block of the row begins.
    pub fn block_offset(&self) -> u64 {
        self.block.as_ref().map_or(0, |block| block.offset)
    }

    /// What the footer says of each branch, where it can be read.
    pub fn spans(&self) -> Option<&[Span]> {
        self.footer.as_ref().map(|footer| &footer.spans[..])
    }

    /// What is lost; complete once there is no further row.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    pub fn place_key(&self) -> Option<(&[u8], u64)> {
        self.cursor.head().map(|head| (self.cursor.key(), head.version))
    }

    pub fn row(&self) -> Option<Row<'_>> {
        let head = self.cursor.head()?;
        let (branch, keyspace, key) = parts_of(self.cursor.key());
        Some(Row { branch, keyspace, key, version: self.version(head).ok()? })
    }

    fn version(&self, head: &RowHead) -> Result<Version<'_>, &'static str> {
        let block = self.block.as_ref().ok_or("a row has no block")?;
        head.version_in(self.aside.as_ref().map_or(block.bytes(), Payload::bytes))
    }

    pub fn advance(&mut self) -> Result<()> {
        self.step()?;
        self.settle()
    }

    /// The next row of the block, or the first one of the next.
    fn step(&mut self) -> Result<()> {
        let Some(block) = &self.block else { return Ok(()) };
        if self.cursor.is_last(block) {
            return self.next_block();
        }
        match self.cursor.advance(block) {
            Ok(()) => Ok(()),
            Err(reason) => self.give_up_block(reason),
        }
    }

    /// A block that checks and still cannot be read to its end.
    fn give_up_block(&mut self, reason: &str) -> Result<()> {
        let offset = self.block.take().map_or(self.at, |block| block.offset);
        self.gap(offset, self.at, reason);
        self.next_block()
    }

    /// Pass over rows that are not whole.
    fn settle(&mut self) -> Result<()> {
        while let Some(head) = self.cursor.head().copied() {
            let spot = (self.cursor.key().to_vec(), head.version);
            let is_behind = self.last.as_ref().is_none_or(|last| order(last) < order(&spot));
            if !is_behind {
                self.give_up_block("its rows come before those in front of it")?;
                continue;
            }
            for open in self.open.iter_mut().filter(|open| open.gap.before.is_none()) {
                open.gap.before = Some(spot.clone());
            }
            self.last = Some(spot.clone());
            match self.take_aside(&head) {
                Ok(()) if self.version(&head).is_ok() => return Ok(()),
                Ok(()) => self.lose_row(&head, spot, "the row cannot be read"),
                Err(Error::Corrupt { reason, .. }) => self.lose_row(&head, spot, &reason),
                Err(other) => return Err(other),
            }
            self.step()?;
        }
        Ok(())
    }

    fn lose_row(&mut self, head: &RowHead, spot: Spot, reason: &str) {
        let (offset, length) = match head.body {
            Body::Aside { offset, frame_bytes, .. } => (offset, frame_bytes.into()),
            Body::Here { .. } => (self.block.as_ref().map_or(0, |block| block.offset), 0),
        };
        let (after, before) = (Some(spot.clone()), Some(spot));
        self.gaps.push(Gap { offset, length, reason: reason.to_owned(), after, before, is_one_row: true });
    }

    fn take_aside(&mut self, head: &RowHead) -> Result<()> {
        self.aside = None;
        let Body::Aside { offset, frame_bytes, .. } = head.body else { return Ok(()) };
        self.aside = Some(match self.asides.iter().position(|(at, _)| *at == offset) {
            Some(found) => self.asides.swap_remove(found).1,
            None => self.frames.aside(self.at, offset, frame_bytes)?,
        });
        Ok(())
    }

    /// Go on to the next block that checks.
    fn next_block(&mut self) -> Result<()> {
        (self.block, self.cursor) = (None, BlockCursor::default());
        self.asides.clear();
        while self.at < self.end {
            let at = self.at;
            let piece = match self.frames.piece(at, self.end) {
                Ok((_, _, None)) => Err("there is no key for it".to_owned()),
                Ok((kind, bytes, Some(payload))) => {
                    self.at += bytes;
                    self.take(kind, at, payload)
                }
                Err(Error::Corrupt { reason, .. }) => {
                    self.at = self.frames.next(at, self.end)?.unwrap_or(self.end);
                    Err(reason)
                }
                Err(other) => return Err(other),
            };
            match piece {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(reason) => {
                    // A frame that checks and cannot be opened is passed over by its length.
                    if self.at == at {
                        self.at += self.frames.frame(at, self.end)?.bytes;
                    }
                    self.gap(at, self.at, &reason);
                }
            }
        }
        self.finish();
        Ok(())
    }

    /// Take a frame; true where it is a block, and the cursor is at its first row.
    fn take(&mut self, kind: FrameKind, at: u64, payload: Payload) -> Result<bool, String> {
        match kind {
            FrameKind::Value => self.asides.push((at, payload)),
            FrameKind::Filter | FrameKind::Derived => {}
            FrameKind::Footer => {
                self.has_end = true;
                self.end = self.at;
            }
            FrameKind::Index => {
                let index = Index::decode(&mut Reader::new(payload.bytes(), 0), at).map_err(str::to_owned)?;
                self.listed(&index);
            }
            FrameKind::Block => {
                let block = Block::new(payload, at)?;
                self.cursor.first(&block)?;
                self.block = Some(block);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// An index block names all blocks since the one before: gaps that touch none of them had no rows.
    fn listed(&mut self, index: &Index) {
        let blocks: Vec<Range<u64>> =
            index.entries().iter().map(|entry| entry.offset..entry.offset + u64::from(entry.frame_bytes)).collect();
        let Some(first) = blocks.first().map(|block| block.start) else { return };
        // Values stand in front of the first block, too: how far back, the footer tells.
        let begin = self.footer.as_ref().map_or(first, |footer| {
            footer.top.entries().iter().map(Entry::end).filter(|end| *end <= first).max().unwrap_or(FIRST)
        });
        for open in &mut self.open {
            let (start, end) = (open.gap.offset, open.gap.offset + open.gap.length);
            if start >= begin && !blocks.iter().any(|block| block.start < end && start < block.end) {
                open.may_have_rows = false;
            }
        }
        self.close_gaps();
    }

    fn gap(&mut self, from: u64, to: u64, reason: &str) {
        let length = to.saturating_sub(from);
        let gap = Gap {
            offset: from,
            length,
            reason: reason.to_owned(),
            after: self.last.clone(),
            before: None,
            is_one_row: false,
        };
        let may_have_rows = !self.is_index(from, to) && !sabotage::on("S03");
        self.open.push(Open { gap, may_have_rows });
    }

    /// Whether only an index block and its filter stood there.
    fn is_index(&self, from: u64, to: u64) -> bool {
        let parts = self.footer.as_ref().map_or(&[][..], |footer| footer.top.entries());
        parts.iter().any(|part| part.offset <= from && to <= part.end())
    }

    /// Keep what is lost of the gaps that are known on both sides.
    fn close_gaps(&mut self) {
        let (done, open) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|open| !open.may_have_rows || open.gap.before.is_some());
        self.open = open;
        let done: Vec<Open> = done;
        self.gaps.extend(done.into_iter().filter(|open| open.may_have_rows).map(|open| open.gap));
    }

    /// There is no further frame.
    fn finish(&mut self) {
        if !self.has_end {
            self.has_end = true;
            let size = self.frames.size();
            self.gap(size, size, "it ends before its footer");
        }
        self.gaps.extend(self.open.drain(..).filter(|open| open.may_have_rows).map(|open| open.gap));
    }
}

fn order((key, version): &Spot) -> (&[u8], Reverse<u64>) {
    (key, Reverse(*version))
}

/// What there is, or nothing where it is damaged.
fn whole<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(Error::Corrupt { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

/// How the frames are checked and opened. Where the header cannot tell the key, the frames do.
fn framing(file: &Arc<dyn File>, name: &str, number: u64, options: &RunOptions) -> Result<Framing> {
    let database_id = options.database_id;
    let plain = || Framing { database_id, run: number, compress: false, key: KeyId::NONE, cipher: None };
    let mut header = [0; HEADER];
    let count = file.read_at(0, &mut header)?;
    match plain().check_header(&header[..count], name) {
        Ok(key) => options.framing(number, key),
        Err(Error::Corrupt { offset: 12, .. }) => guess(file, name, number, options),
        // A file that begins with something else, or with nothing.
        Err(Error::Corrupt { offset, .. }) if offset == 0 || count < HEADER => guess(file, name, number, options),
        Err(other) => Err(other),
    }
}

fn guess(file: &Arc<dyn File>, name: &str, number: u64, options: &RunOptions) -> Result<Framing> {
    let ring = options.keys.as_deref();
    let ids = ring.map(Keyring::ids).into_iter().flatten();
    let framing = |key, cipher| Framing { database_id: options.database_id, run: number, compress: false, key, cipher };
    let mut candidates: Vec<Framing> = Vec::new();
    for id in ids {
        let cipher: Option<FileCipher> = ring.map(|ring| ring.cipher(Kind::Run, number, id)).transpose()?;
        candidates.push(framing(id, cipher));
    }
    if ring.is_none_or(Keyring::reads_plain) {
        candidates.push(framing(KeyId::NONE, None));
    }
    let damaged =
        || Error::Corrupt { file: name.to_owned(), offset: 0, reason: "nothing of it can be read".to_owned() };
    let end = file.size()?.saturating_sub(TAIL as u64);
    for candidate in candidates {
        let frames = Frames::known(file, name, candidate)?;
        let first = if end > FIRST { frames.next(FIRST - 1, end)? } else { None };
        let is_open = first.map(|at| frames.piece(at, end)).transpose().ok().flatten();
        if is_open.is_some_and(|(_, _, payload)| payload.is_some()) {
            return Ok(frames.into_framing());
        }
    }
    Err(damaged())
}
