//! Cursors: the rows of a range, the versions of a key, and everything.
//!
//! A cursor stands on a row or behind the last one. `info` says what the row is without reading a value that stands aside;
//! `row` reads it. A cursor holds what it shows, so it may outlive every other handle of the run.

use std::sync::Arc;

use super::block::{Block, BlockCursor, RowHead};
use super::walk::{Shown, Source, Walk, Window, info};
use super::{Row, RowInfo, Run, place_key};
use crate::branch::{Range, successor};
use crate::error::Result;

impl Run {
    /// One row for each key of a range: its newest version at or below `at`, deletions included.
    pub fn range(
        self: &Arc<Run>,
        branch: u32,
        keyspace: u32,
        range: &Range,
        reverse: bool,
        at: u64,
    ) -> Result<RangeCursor> {
        RangeCursor::new(self.clone(), branch, keyspace, range, reverse, at)
    }

    /// The versions of a key at or below `at`, newest first.
    pub fn versions(self: &Arc<Run>, branch: u32, keyspace: u32, key: &[u8], at: u64) -> Result<VersionCursor> {
        let key = place_key(branch, keyspace, key);
        let mut walk = Walk::new(self.clone(), Source::Cache);
        walk.seek(&key, at)?;
        Ok(VersionCursor { walk, key, shown: Shown::default() })
    }

    /// Every row in the order of the file, from (branch, keyspace, key) on when that is given. Reads ahead, past the cache.
    pub fn all(self: &Arc<Run>, start: Option<(u32, u32, &[u8])>) -> Result<AllCursor> {
        let key = start.map_or(Vec::new(), |(branch, keyspace, key)| place_key(branch, keyspace, key));
        let mut walk = Walk::new(self.clone(), Source::Ahead(Window::default()));
        walk.seek(&key, u64::MAX)?;
        Ok(AllCursor { walk, shown: Shown::default() })
    }
}

/// Every row of a run.
pub struct AllCursor {
    walk: Walk,
    shown: Shown,
}

impl AllCursor {
    pub fn info(&self) -> Option<RowInfo<'_>> {
        self.walk.head().map(|head| info(self.walk.key(), head))
    }

    pub fn row(&self) -> Result<Option<Row<'_>>> {
        let Some(head) = self.walk.head() else { return Ok(None) };
        self.shown.row(&self.walk, self.walk.block(), self.walk.key(), head).map(Some)
    }

    pub fn advance(&mut self) -> Result<()> {
        self.shown.clear();
        self.walk.advance()
    }
}

/// The versions of one key, newest first.
pub struct VersionCursor {
    walk: Walk,
    key: Vec<u8>,
    shown: Shown,
}

impl VersionCursor {
    fn head(&self) -> Option<&RowHead> {
        self.walk.head().filter(|_| self.walk.key() == self.key)
    }

    pub fn info(&self) -> Option<RowInfo<'_>> {
        self.head().map(|head| info(&self.key, head))
    }

    pub fn row(&self) -> Result<Option<Row<'_>>> {
        let Some(head) = self.head() else { return Ok(None) };
        self.shown.row(&self.walk, self.walk.block(), &self.key, head).map(Some)
    }

    pub fn advance(&mut self) -> Result<()> {
        self.shown.clear();
        if self.head().is_none() { Ok(()) } else { self.walk.advance() }
    }
}

/// The keys of a range, each with its newest version at or below an upper one.
pub struct RangeCursor {
    walk: Walk,
    at: u64,
    /// Place keys: from `start` on, and below `end` where there is one. In reverse, `end` comes down with each key.
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    /// In reverse: the rows of the walk's block, those from `left` on being behind us.
    reverse: Option<Behind>,
    /// The row that is shown: its block and head, with its key beside.
    found: Option<(Arc<Block>, RowHead)>,
    key: Vec<u8>,
    shown: Shown,
}

/// The rows of a block, to be gone through from the last to the first.
#[derive(Default)]
struct Behind {
    keys: Vec<u8>,
    rows: Vec<(usize, RowHead)>,
    left: usize,
}

impl RangeCursor {
    fn new(run: Arc<Run>, branch: u32, keyspace: u32, range: &Range, reverse: bool, at: u64) -> Result<RangeCursor> {
        let start = place_key(branch, keyspace, &range.start);
        let end = match &range.end {
            Some(end) => Some(place_key(branch, keyspace, end)),
            None => successor(&place_key(branch, keyspace, &[])),
        };
        let walk = Walk::new(run, Source::Cache);
        let reverse = reverse.then(Behind::default);
        let (found, shown) = (None, Shown::default());
        let mut cursor = RangeCursor { walk, at, start, end, reverse, found, key: Vec::new(), shown };
        if cursor.end.as_ref().is_some_and(|end| *end <= cursor.start) {
            return Ok(cursor);
        }
        if cursor.reverse.is_some() {
            match cursor.end.clone() {
                Some(end) => cursor.stand_before(&end)?,
                None => cursor.stand_behind_all()?,
            }
            cursor.step_back()?;
        } else {
            cursor.walk.seek(&cursor.start, at)?;
            cursor.settle()?;
        }
        Ok(cursor)
    }

    /// The key without branch and keyspace; `None` behind the last row.
    #[inline]
    pub fn key(&self) -> Option<&[u8]> {
        self.info().map(|info| info.key)
    }

    #[inline]
    pub fn info(&self) -> Option<RowInfo<'_>> {
        self.found.as_ref().map(|(_, head)| info(&self.key, head))
    }

    pub fn row(&self) -> Result<Option<Row<'_>>> {
        let Some((block, head)) = &self.found else { return Ok(None) };
        self.shown.row(&self.walk, block, &self.key, head).map(Some)
    }

    pub fn advance(&mut self) -> Result<()> {
        self.shown.clear();
        if self.found.take().is_none() {
            return Ok(());
        }
        if self.reverse.is_some() {
            return self.step_back();
        }
        self.skip_key()?;
        self.settle()
    }

    // --- forward ---

    /// Past the older versions of the key.
    fn skip_key(&mut self) -> Result<()> {
        while self.walk.head().is_some() && self.walk.key() == self.key {
            if self.walk.is_last_of_block() {
                // It may go on through many blocks, and the next key is found without them.
                let mut next = self.key.clone();
                next.push(0);
                return self.walk.seek(&next, u64::MAX);
            }
            self.walk.advance()?;
        }
        Ok(())
    }

    /// Show the row, or the next one that `at` sees.
    fn settle(&mut self) -> Result<()> {
        while let Some(head) = self.walk.head() {
            if self.end.as_ref().is_some_and(|end| self.walk.key() >= &end[..]) {
                return Ok(());
            }
            if head.version <= self.at {
                self.found = Some((self.walk.block().clone(), *head));
                self.key.clear();
                self.key.extend_from_slice(self.walk.key());
                return Ok(());
            }
            if self.walk.is_last_of_block() {
                let key = self.walk.key().to_vec();
                self.walk.seek(&key, self.at)?;
            } else {
                self.walk.advance()?;
            }
        }
        Ok(())
    }

    // --- reverse ---

    fn stand_behind_all(&mut self) -> Result<()> {
        if self.walk.seek_last_block()? { self.list_block(None) } else { Ok(()) }
    }

    /// Stand so that the rows below `key` are left.
    fn stand_before(&mut self, key: &[u8]) -> Result<()> {
        if self.walk.seek_block(key, u64::MAX)? { self.list_block(Some(key)) } else { self.stand_behind_all() }
    }

    /// List the rows of the walk's block, those below `end` being left.
    fn list_block(&mut self, end: Option<&[u8]>) -> Result<()> {
        let block = self.walk.block().clone();
        let behind = self.reverse.get_or_insert_default();
        behind.list(&block).map_err(|reason| self.walk.run.corrupt(block.offset, reason))?;
        behind.left = match end {
            Some(end) => (0..behind.rows.len()).find(|number| behind.key(*number) >= end).unwrap_or(behind.rows.len()),
            None => behind.rows.len(),
        };
        Ok(())
    }

    /// Show the last row that is left and that `at` sees.
    fn step_back(&mut self) -> Result<()> {
        loop {
            let behind = self.reverse.as_mut().expect("asked in reverse only");
            if behind.left == 0 {
                if behind.rows.is_empty() || !self.walk.previous_block()? {
                    return Ok(());
                }
                self.list_block(None)?;
                continue;
            }
            let first = behind.first_of_key();
            let key = behind.key(first);
            if key < &self.start[..] {
                return Ok(());
            }
            // So that this comes to an end in any file.
            if self.end.as_ref().is_some_and(|end| key >= &end[..]) {
                return Err(self
                    .walk
                    .run
                    .corrupt(self.walk.block().offset, "a block ends behind the next one's begin"));
            }
            self.key.clear();
            self.key.extend_from_slice(key);
            self.end.get_or_insert_default().clone_from(&self.key);
            if first > 0 || !self.walk.begins_before(&self.key) {
                let seen = behind.rows[first..behind.left].iter().find(|(_, head)| head.version <= self.at);
                self.found = seen.map(|(_, head)| (self.walk.block().clone(), *head));
                behind.left = first;
            } else {
                self.find_across_blocks()?;
            }
            if self.found.is_some() {
                return Ok(());
            }
        }
    }

    /// The first key of a block begins in a block before: find its row, and stand before all of it.
    fn find_across_blocks(&mut self) -> Result<()> {
        let key = std::mem::take(&mut self.key);
        self.walk.seek(&key, self.at)?;
        if let Some(head) = self.walk.head().filter(|_| self.walk.key() == key) {
            self.found = Some((self.walk.block().clone(), *head));
        }
        self.stand_before(&key)?;
        self.key = key;
        Ok(())
    }
}

impl Behind {
    fn list(&mut self, block: &Block) -> Result<(), &'static str> {
        self.keys.clear();
        self.rows.clear();
        let mut cursor = BlockCursor::default();
        cursor.first(block)?;
        while let Some(head) = cursor.head() {
            self.keys.extend_from_slice(cursor.key());
            self.rows.push((self.keys.len(), *head));
            cursor.advance(block)?;
        }
        Ok(())
    }

    fn key(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).map_or(0, |before| self.rows[before].0);
        &self.keys[start..self.rows[number].0]
    }

    /// The first of the rows that have the last key that is left.
    fn first_of_key(&self) -> usize {
        let key = self.key(self.left - 1);
        (0..self.left).rev().take_while(|number| self.key(*number) == key).last().expect("it has its own key")
    }
}
