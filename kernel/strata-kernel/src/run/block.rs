//! Data blocks: sorted rows, each written as how it differs from the one before.
//!
//! A row's *place key* is `branch ‖ keyspace ‖ key`, the numbers big-endian, so that bytes sort as rows do; versions of a
//! key descend. Values stand behind all rows, so that a search runs over few bytes. A row has a tag, and of the following
//! only what the tag does not save:
//!
//! ```text
//! tag        1-5 kind | 8 same key | 16 same key length | 32 same value length | 64 expires | 128 aside
//! varints    shared key bytes, further key bytes, version, expiry, value length, [patch] touched length,
//!            [aside] frame offset, frame length
//! bytes      further key bytes
//! ```
//!
//! "Same" is as in the row before. The version is a difference to the row before where the key is the same, else to the
//! first row's. Every 16th row is a *restart*: it names the first row of the block instead of the one before it, so that
//! a search can begin there. The whole block:
//!
//! ```text
//! rows | value and touched of each row that is not aside | restarts but the first: row offset u32, value offset u32
//! base version u64 | base expiry u64 | rows u32 | restarts u32 | length of the rows in bytes u32
//! ```
//!
//! Invariant: what is read here has a good checksum and may still be anything; a bad row is an error, never a panic.

use std::cmp::Ordering;

use super::frame::{Payload, u32_at, u64_at};
use super::varint::{self, Reader};
use crate::table::{ChangeKind, Version};

const SAME_KEY: u8 = 8;
const SAME_KEY_LENGTH: u8 = 16;
const SAME_VALUE_LENGTH: u8 = 32;
const EXPIRES: u8 = 64;
const ASIDE: u8 = 128;

const RESTART_ROWS: u32 = 16;
const TRAILER: usize = 28;
const RESTART: usize = 8;
/// Branch and keyspace in front of a key.
pub const PREFIX: usize = 8;

/// Where the value of a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// In the block: value, then touched.
    Here { start: usize, value: usize, touched: usize },
    /// In a frame of its own.
    Aside { offset: u64, frame_bytes: u32, value: usize, touched: usize },
}

impl Body {
    pub fn value_bytes(&self) -> usize {
        match *self {
            Body::Here { value, .. } | Body::Aside { value, .. } => value,
        }
    }
}

/// A row without its key and its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowHead {
    pub version: u64,
    pub kind: ChangeKind,
    pub expires: u64,
    pub body: Body,
}

impl RowHead {
    /// The row, where `bytes` are what its body points into: the block's payload, or the payload of its frame.
    #[inline]
    pub fn version_in<'a>(&self, bytes: &'a [u8]) -> Result<Version<'a>, &'static str> {
        let (start, value, touched) = match self.body {
            Body::Here { start, value, touched } => (start, value, touched),
            Body::Aside { value, touched, .. } if value.checked_add(touched) == Some(bytes.len()) => {
                (0, value, touched)
            }
            Body::Aside { .. } => return Err("a value aside has another length than its row says"),
        };
        let mut reader = Reader::new(bytes, start);
        let value = reader.take(value)?;
        let value = (self.kind != ChangeKind::Delete).then_some(value);
        let touched = reader.take(touched)?;
        Ok(Version { version: self.version, kind: self.kind, value, touched, expires: self.expires })
    }
}

/// What later rows are compared with: the row before, or the first one.
#[derive(Clone, Copy, Default)]
struct Reference {
    key_bytes: usize,
    value_bytes: usize,
    version: u64,
}

// --- writing -------------------------------------------------------------------------------------

/// Makes one block after the other.
#[derive(Default)]
pub struct BlockBuilder {
    bytes: Vec<u8>,
    values: Vec<u8>,
    restarts: Vec<(u32, u32)>,
    rows: u32,
    key: Vec<u8>,
    before: Reference,
    first_key: Vec<u8>,
    first: Reference,
    base_expires: u64,
}

/// Where a writer put the value of a row that is too large for the block.
pub struct Aside {
    pub offset: u64,
    pub frame_bytes: u32,
}

impl BlockBuilder {
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// What the block will take, raw.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len() + self.values.len() + RESTART * self.restarts.len() + TRAILER
    }

    pub fn add(&mut self, key: &[u8], row: &Version<'_>, aside: Option<Aside>) {
        let is_restart = self.rows.is_multiple_of(RESTART_ROWS);
        if is_restart {
            // The first one is at 0, and needs no entry.
            if self.rows > 0 {
                self.restarts.push((self.bytes.len() as u32, self.values.len() as u32));
            }
            self.before = self.first;
        }
        let before = if is_restart { &self.first_key } else { &self.key };
        let shared = common(before, key);
        let is_same_key = !is_restart && shared == key.len() && before.len() == key.len();
        self.put_head(key.len(), shared, is_same_key, row, aside.as_ref());
        self.bytes.extend_from_slice(&key[shared..]);
        if aside.is_none() {
            self.values.extend_from_slice(row.value.unwrap_or_default());
            self.values.extend_from_slice(row.touched);
        }
        if !is_same_key {
            self.key.clear();
            self.key.extend_from_slice(key);
        }
        let value_bytes = row.value.map_or(self.before.value_bytes, <[u8]>::len);
        self.before = Reference { key_bytes: key.len(), value_bytes, version: row.version };
        if self.rows == 0 {
            self.first_key.clone_from(&self.key);
            self.first = self.before;
        }
        self.rows += 1;
    }

    fn put_head(&mut self, key: usize, shared: usize, is_same_key: bool, row: &Version<'_>, aside: Option<&Aside>) {
        let value = row.value.map(<[u8]>::len);
        let is_same_key_length = is_same_key || key == self.before.key_bytes;
        let is_same_value_length = value.is_none_or(|value| value == self.before.value_bytes);
        let tag = row.kind as u8
            | flag(SAME_KEY, is_same_key)
            | flag(SAME_KEY_LENGTH, is_same_key_length)
            | flag(SAME_VALUE_LENGTH, is_same_value_length)
            | flag(EXPIRES, row.expires != 0)
            | flag(ASIDE, aside.is_some());
        let (base, out) = (if self.rows == 0 { row.version } else { self.first.version }, &mut self.bytes);
        out.push(tag);
        if is_same_key {
            varint::put(out, self.before.version - row.version);
        } else {
            varint::put(out, shared as u64);
            if !is_same_key_length {
                varint::put(out, (key - shared) as u64);
            }
            varint::put_difference(out, row.version, base);
        }
        if row.expires != 0 {
            if self.base_expires == 0 {
                self.base_expires = row.expires;
            }
            varint::put_difference(out, row.expires, self.base_expires);
        }
        if let Some(value) = value.filter(|_| !is_same_value_length) {
            varint::put(out, value as u64);
        }
        if row.kind == ChangeKind::Patch {
            varint::put(out, row.touched.len() as u64);
        }
        if let Some(aside) = aside {
            varint::put(out, aside.offset);
            varint::put(out, u64::from(aside.frame_bytes));
        }
    }

    /// The payload of the block. Call `clear` before the next one.
    pub fn finish(&mut self) -> &[u8] {
        let rows_bytes = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&self.values);
        for (row, value) in &self.restarts {
            self.bytes.extend_from_slice(&row.to_le_bytes());
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
        self.bytes.extend_from_slice(&self.first.version.to_le_bytes());
        self.bytes.extend_from_slice(&self.base_expires.to_le_bytes());
        self.bytes.extend_from_slice(&self.rows.to_le_bytes());
        self.bytes.extend_from_slice(&(self.restarts.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&rows_bytes.to_le_bytes());
        &self.bytes
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.values.clear();
        self.restarts.clear();
        (self.rows, self.base_expires) = (0, 0);
        (self.first, self.before) = (Reference::default(), Reference::default());
        self.first_key.clear();
    }
}

fn flag(flag: u8, is_set: bool) -> u8 {
    if is_set { flag } else { 0 }
}

/// How many bytes both begin with.
#[inline]
pub fn common(a: &[u8], b: &[u8]) -> usize {
    let length = a.len().min(b.len());
    let (a, b) = (&a[..length], &b[..length]);
    let mut at = 0;
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        let difference =
            u64::from_le_bytes(a.try_into().expect("8 bytes")) ^ u64::from_le_bytes(b.try_into().expect("8 bytes"));
        if difference != 0 {
            return at + (difference.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + a[at..].iter().zip(&b[at..]).take_while(|(a, b)| a == b).count()
}

// --- reading -------------------------------------------------------------------------------------

/// A block in memory.
pub struct Block {
    payload: Payload,
    /// Where its frame begins in the file.
    pub offset: u64,
    /// Where the rows end, and behind them the values.
    rows_end: usize,
    values_end: usize,
    rows: u32,
    restarts: usize,
    base_expires: u64,
    first: Reference,
    /// Where the first key stands.
    first_key: (usize, usize),
}

/// A row as it was found: its head, and how its key follows from the one before.
struct Parsed<'a> {
    shared: usize,
    suffix: &'a [u8],
    is_same_key: bool,
    head: RowHead,
    after: Reference,
    /// Where the next row and its value are.
    next: usize,
    next_value: usize,
}

/// Where a search stands: the next row to parse, and what it is compared with.
#[derive(Clone, Copy)]
struct Spot {
    at: usize,
    value_at: usize,
    row: u32,
    before: Reference,
}

impl Block {
    pub fn new(payload: Payload, offset: u64) -> Result<Block, &'static str> {
        let bytes = payload.bytes();
        let trailer = bytes.len().checked_sub(TRAILER).ok_or("a block is too short")?;
        let restarts = u32_at(bytes, trailer + 20) as usize;
        let rows = u32_at(bytes, trailer + 16);
        let rows_end = u32_at(bytes, trailer + 24) as usize;
        let values_end = restarts.checked_mul(RESTART).and_then(|size| trailer.checked_sub(size));
        let values_end = values_end.filter(|end| *end >= rows_end).ok_or("a block is too short")?;
        if rows == 0 || (rows as usize - 1) / RESTART_ROWS as usize != restarts {
            return Err("a block has not the restarts that its rows need");
        }
        let (version, base_expires) = (u64_at(bytes, trailer), u64_at(bytes, trailer + 8));
        let first = Reference { version, ..Reference::default() };
        let first_key = (0, 0);
        let mut block = Block { payload, offset, rows_end, values_end, rows, restarts, base_expires, first, first_key };
        let row = block.parse(block.start())?;
        if row.head.version != version {
            return Err("a block begins with another version than it says");
        }
        (block.first, block.first_key) = (row.after, (row.next - row.suffix.len(), row.next));
        Ok(block)
    }

    pub fn memory_bytes(&self) -> usize {
        self.payload.memory_bytes() + size_of::<Block>()
    }

    pub fn bytes(&self) -> &[u8] {
        self.payload.bytes()
    }

    pub fn rows(&self) -> u32 {
        self.rows
    }

    fn first_key(&self) -> &[u8] {
        &self.bytes()[self.first_key.0..self.first_key.1]
    }

    fn start(&self) -> Spot {
        let before = Reference { version: self.first.version, ..Reference::default() };
        Spot { at: 0, value_at: self.rows_end, row: 0, before }
    }

    /// The `number`-th restart.
    fn restart(&self, number: usize) -> Spot {
        if number == 0 {
            return self.start();
        }
        let place = self.values_end + RESTART * (number - 1);
        let at = u32_at(self.bytes(), place) as usize;
        let value_at = self.rows_end.saturating_add(u32_at(self.bytes(), place + 4) as usize);
        Spot { at, value_at, row: number as u32 * RESTART_ROWS, before: self.first }
    }

    #[inline]
    fn parse(&self, spot: Spot) -> Result<Parsed<'_>, &'static str> {
        let rows = self.bytes().get(..self.rows_end).unwrap_or_default();
        let mut reader = Reader::new(rows, spot.at);
        let tag = reader.byte()?;
        let kind = ChangeKind::from_u8(tag & 7).ok_or("a row has an unknown kind")?;
        let before = spot.before;
        let is_same_key = tag & SAME_KEY != 0;
        let (shared, suffix_bytes, version);
        if is_same_key {
            (shared, suffix_bytes) = (before.key_bytes, 0);
            let difference = reader.number()?;
            if difference == 0 || spot.row.is_multiple_of(RESTART_ROWS) {
                return Err("the versions of a key do not descend");
            }
            version = before.version.checked_sub(difference).ok_or("the versions of a key do not descend")?;
        } else {
            shared = reader.length()?;
            let not_shared = before.key_bytes.checked_sub(shared).ok_or("a row shares more than there is")?;
            suffix_bytes = if tag & SAME_KEY_LENGTH != 0 { not_shared } else { reader.length()? };
            version = reader.difference(self.first.version)?;
        }
        let expires = if tag & EXPIRES != 0 { reader.difference(self.base_expires)? } else { 0 };
        let has_value = kind != ChangeKind::Delete;
        let same_value = tag & SAME_VALUE_LENGTH != 0;
        let value_bytes = if has_value && !same_value { reader.length()? } else { before.value_bytes };
        let value = if has_value { value_bytes } else { 0 };
        let touched = if kind == ChangeKind::Patch { reader.length()? } else { 0 };
        let aside = if tag & ASIDE != 0 { Some((reader.number()?, reader.length_u32()?)) } else { None };
        let suffix = reader.take(suffix_bytes)?;
        let (body, next_value) = match aside {
            Some((offset, frame_bytes)) => (Body::Aside { offset, frame_bytes, value, touched }, spot.value_at),
            None => {
                let end = spot.value_at.checked_add(value).and_then(|end| end.checked_add(touched));
                let end = end.filter(|end| *end <= self.values_end).ok_or("a value is not in its block")?;
                (Body::Here { start: spot.value_at, value, touched }, end)
            }
        };
        let after = Reference { key_bytes: shared + suffix_bytes, value_bytes, version };
        let head = RowHead { version, kind, expires, body };
        Ok(Parsed { shared, suffix, is_same_key, head, after, next: reader.at, next_value })
    }

    /// A restart from which on to look for the first row at or behind (`key`, `at`).
    fn restart_before(&self, key: &[u8], at: u64) -> Result<Spot, &'static str> {
        let first = self.first_key();
        let with_first = common(first, key);
        let (mut low, mut high) = (0, self.restarts + 1);
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            let row = self.parse(self.restart(middle))?;
            let order = match row.shared.cmp(&with_first) {
                // It leaves the first key where the key does not, or later than the key does.
                Ordering::Less => Ordering::Greater,
                Ordering::Greater => first[with_first..].cmp(&key[with_first..]),
                Ordering::Equal => row.suffix.cmp(&key[with_first..]),
            };
            let is_before = order == Ordering::Less || (order == Ordering::Equal && row.head.version > at);
            if is_before { low = middle } else { high = middle }
        }
        Ok(self.restart(low))
    }

    /// The newest version of `key` at or below `at`. The key is not put together, only compared.
    pub fn find(&self, key: &[u8], at: u64) -> Result<Option<RowHead>, &'static str> {
        let mut spot = self.restart_before(key, at)?;
        // How much the row before shares with the key; before a restart that is the first row, before the first none.
        let with_first = common(self.first_key(), key);
        let mut matched = if spot.row == 0 { 0 } else { with_first };
        let mut is_key = false;
        while spot.row < self.rows {
            let row = self.parse(spot)?;
            if !row.is_same_key {
                if is_key || row.shared < matched {
                    return Ok(None); // behind the key
                }
                if row.shared == matched {
                    let rest = &key[matched..];
                    match row.suffix.first().cmp(&rest.first()) {
                        Ordering::Less => {}
                        Ordering::Greater => return Ok(None),
                        Ordering::Equal => {
                            let more = common(row.suffix, rest);
                            is_key = more == rest.len() && more == row.suffix.len();
                            if row.suffix.get(more) > rest.get(more) {
                                return Ok(None);
                            }
                            matched += more;
                        }
                    }
                }
            }
            if is_key && row.head.version <= at {
                return Ok(Some(row.head));
            }
            spot = Spot { at: row.next, value_at: row.next_value, row: spot.row + 1, before: row.after };
            if spot.row.is_multiple_of(RESTART_ROWS) {
                (spot.before, matched, is_key) = (self.first, with_first, false);
            }
        }
        Ok(None)
    }
}

/// Goes through the rows of a block, putting each key together.
#[derive(Clone)]
pub struct BlockCursor {
    key: Vec<u8>,
    head: Option<RowHead>,
    next: Spot,
}

impl Default for BlockCursor {
    fn default() -> BlockCursor {
        BlockCursor {
            key: Vec::new(),
            head: None,
            next: Spot { at: 0, value_at: 0, row: 0, before: Reference::default() },
        }
    }
}

impl BlockCursor {
    /// The place key of the row.
    #[inline]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The row; `None` behind the last one.
    #[inline]
    pub fn head(&self) -> Option<&RowHead> {
        self.head.as_ref()
    }

    /// Go to the first row.
    pub fn first(&mut self, block: &Block) -> Result<(), &'static str> {
        self.key.clear();
        (self.head, self.next) = (None, block.start());
        self.advance(block)
    }

    /// Go to the first row at or behind (`key`, `at`).
    pub fn seek(&mut self, block: &Block, key: &[u8], at: u64) -> Result<(), &'static str> {
        self.key.clear();
        (self.head, self.next) = (None, block.restart_before(key, at)?);
        self.advance(block)?;
        while let Some(head) = self.head {
            match self.key[..].cmp(key) {
                Ordering::Greater => break,
                Ordering::Equal if head.version <= at => break,
                _ => self.advance(block)?,
            }
        }
        Ok(())
    }

    #[inline]
    pub fn advance(&mut self, block: &Block) -> Result<(), &'static str> {
        if self.next.row == block.rows {
            self.head = None;
            let is_all = (self.next.at, self.next.value_at) == (block.rows_end, block.values_end);
            return if is_all { Ok(()) } else { Err("a block has more than its rows") };
        }
        let before = self.head.take();
        if self.next.row > 0 && self.next.row.is_multiple_of(RESTART_ROWS) {
            return self.advance_to_restart(block, before);
        }
        let row = block.parse(self.next)?;
        if !row.is_same_key {
            // What is shared is all that can be: a search relies on that.
            if self.next.row > 0 && row.suffix.first() <= self.key.get(row.shared) {
                return Err("the rows of a block are not in order");
            }
            self.key.truncate(row.shared);
            self.key.extend_from_slice(row.suffix);
        }
        self.take(&row)
    }

    /// A restart is written against the first row, not against the one before. `before` is that, unless we came by a seek.
    fn advance_to_restart(&mut self, block: &Block, before: Option<RowHead>) -> Result<(), &'static str> {
        self.next.before = block.first;
        let row = block.parse(self.next)?;
        let restart = block.restart((self.next.row / RESTART_ROWS) as usize);
        if (restart.at, restart.value_at) != (self.next.at, self.next.value_at) {
            return Err("a restart of a block is at another place");
        }
        let first = block.first_key();
        let is_first_key = row.suffix.is_empty() && row.shared == first.len();
        if !is_first_key && row.suffix.first() <= first.get(row.shared) {
            return Err("the rows of a block are not in order");
        }
        if let Some(before) = before {
            let key = block.first_key()[..row.shared].iter().chain(row.suffix);
            let is_behind = match self.key.iter().cmp(key) {
                Ordering::Less => true,
                Ordering::Equal => row.head.version < before.version,
                Ordering::Greater => false,
            };
            if !is_behind {
                return Err("the rows of a block are not in order");
            }
        }
        self.key.clear();
        self.key.extend_from_slice(&block.first_key()[..row.shared]);
        self.key.extend_from_slice(row.suffix);
        self.take(&row)
    }

    #[inline]
    fn take(&mut self, row: &Parsed<'_>) -> Result<(), &'static str> {
        if self.key.len() < PREFIX {
            return Err("a key is too short");
        }
        self.head = Some(row.head);
        self.next = Spot { at: row.next, value_at: row.next_value, row: self.next.row + 1, before: row.after };
        Ok(())
    }

    /// Whether the row that was last gone to is the block's last.
    pub fn is_last(&self, block: &Block) -> bool {
        self.next.row == block.rows
    }
}
