//! The versions of the keys of one keyspace on one branch, in memory.
//!
//! A hash index finds a key in one probe, an order keeps the keys sorted for scans, and an arena holds the bytes. A key's
//! versions are a chain from the newest to the oldest, so that a read of the newest state follows no link. Each version
//! also has a link that jumps over many older ones, so that a read of an old state takes the logarithm of the writes
//! since (Myers 1983, "An applicative random-access stack").
//!
//! In the arena (little-endian, each piece aligned to 8):
//!
//! ```text
//! entry    newest version u32 | key length u16 | 0 u16 | key
//! version  version u64 | next older u32 | jump u32 | depth u32 | kind and length u32 | value
//!          | touched paths (patches only: length u32, bytes)
//! ```
//!
//! Invariants: versions of a key strictly descend along its chain; a place is never reused or changed, but for
//! an entry's link to its newest version.

pub mod arena;
pub mod order;
#[cfg(test)]
mod tests;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Result;
use arena::{Arena, Place};
use order::{Cursor, Order};

const ENTRY_HEADER: usize = 8;
const VERSION_HEADER: usize = 24;
const LENGTH_BITS: u32 = 28;

/// How a version of a key came to be. The rules for conflicts and merges differ by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ChangeKind {
    Put = 1,
    Delete = 2,
    Patch = 3,
    Append = 4,
    Add = 5,
}

impl ChangeKind {
    pub fn from_u8(byte: u8) -> Option<ChangeKind> {
        Some(match byte {
            1 => ChangeKind::Put,
            2 => ChangeKind::Delete,
            3 => ChangeKind::Patch,
            4 => ChangeKind::Append,
            5 => ChangeKind::Add,
            _ => return None,
        })
    }
}

/// One version of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version<'a> {
    pub version: u64,
    pub kind: ChangeKind,
    /// `None` where the key was deleted.
    pub value: Option<&'a [u8]>,
    /// For a patch, the encoded paths it touched.
    pub touched: &'a [u8],
}

/// A key's hash, computed once for a whole chain of branches.
#[derive(Debug, Clone, Copy)]
pub struct KeyHash(u32);

impl KeyHash {
    #[inline]
    pub fn of(key: &[u8]) -> KeyHash {
        KeyHash(xxh3_64(key) as u32)
    }

    /// The index wants its bits at both ends of a word; 32 of them are kept so that growth reads no key.
    #[inline]
    fn spread(self) -> u64 {
        u64::from(self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

#[derive(Clone, Copy)]
struct Slot {
    hash: u32,
    entry: Place,
}

#[derive(Default)]
pub struct Table {
    arena: Arena,
    index: HashTable<Slot>,
    order: Order,
    newest: u64,
}

impl Table {
    /// The version of the newest write to any key.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    pub fn allocated_bytes(&self) -> usize {
        self.arena.allocated_bytes() + self.index.allocation_size()
    }

    /// The newest version of `key` at or below `at`; `None` when this table has none.
    #[inline]
    pub fn get(&self, key: &[u8], hash: KeyHash, at: u64) -> Option<Version<'_>> {
        self.visible(self.find(key, hash)?, at)
    }

    /// The versions of `key` at or below `at`, newest first.
    pub fn versions<'a>(&'a self, key: &[u8], hash: KeyHash, at: u64) -> impl Iterator<Item = Version<'a>> + use<'a> {
        let mut place = self.find(key, hash).map_or(Place::NONE, |entry| self.visible_place(entry, at));
        std::iter::from_fn(move || {
            if place.is_none() {
                return None;
            }
            let (version, older) = self.version_at(place);
            place = older;
            Some(version)
        })
    }

    /// Add a version, which must not be older than any there is. Of two writes of one commit the last one stands.
    pub fn put(
        &mut self,
        key: &[u8],
        version: u64,
        kind: ChangeKind,
        value: Option<&[u8]>,
        touched: &[u8],
    ) -> Result<()> {
        debug_assert!(version >= self.newest);
        let hash = KeyHash::of(key);
        let entry = match self.find(key, hash) {
            Some(entry) => entry,
            None => self.new_entry(key, hash)?,
        };
        let newest = self.newest_of(entry);
        let older = if newest.is_none() { newest } else { self.older_than(newest, version) };
        let place = self.new_version(version, older, kind, value.unwrap_or_default(), touched)?;
        self.arena.from_mut(entry)[..4].copy_from_slice(&place.0.to_le_bytes());
        self.newest = version;
        Ok(())
    }

    #[inline]
    fn find(&self, key: &[u8], hash: KeyHash) -> Option<Place> {
        let slot = self.index.find(hash.spread(), |slot| slot.hash == hash.0 && key_at(&self.arena, slot.entry) == key);
        slot.map(|slot| slot.entry)
    }

    fn new_entry(&mut self, key: &[u8], hash: KeyHash) -> Result<Place> {
        let entry = self.arena.allocate(ENTRY_HEADER + key.len())?;
        let bytes = self.arena.from_mut(entry);
        bytes[4..6].copy_from_slice(&(key.len() as u16).to_le_bytes());
        bytes[ENTRY_HEADER..][..key.len()].copy_from_slice(key);
        let slot = Slot { hash: hash.0, entry };
        self.index.insert_unique(hash.spread(), slot, |slot| KeyHash(slot.hash).spread());
        self.order.insert(entry, |place| key_at(&self.arena, place));
        Ok(entry)
    }

    fn new_version(
        &mut self,
        version: u64,
        older: Place,
        kind: ChangeKind,
        value: &[u8],
        touched: &[u8],
    ) -> Result<Place> {
        assert!(value.len() < 1 << LENGTH_BITS, "values are bounded before they come here");
        let trailer = if kind == ChangeKind::Patch { 4 + touched.len() } else { 0 };
        let place = self.arena.allocate(VERSION_HEADER + value.len() + trailer)?;
        let (jump, depth) = self.jump_from(older);
        let bytes = self.arena.from_mut(place);
        bytes[..8].copy_from_slice(&version.to_le_bytes());
        let kind_and_length = ((kind as u32) << LENGTH_BITS) | value.len() as u32;
        for (word, at) in [older.0, jump.0, depth, kind_and_length].iter().zip((8..).step_by(4)) {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes[VERSION_HEADER..][..value.len()].copy_from_slice(value);
        if trailer > 0 {
            let trailer = &mut bytes[VERSION_HEADER + value.len()..];
            trailer[..4].copy_from_slice(&(touched.len() as u32).to_le_bytes());
            trailer[4..][..touched.len()].copy_from_slice(touched);
        }
        Ok(place)
    }

    #[inline]
    fn newest_of(&self, entry: Place) -> Place {
        Place(read_u32(self.arena.from(entry), 0))
    }

    /// `newest`, unless it is of `version` itself and thus about to be replaced: then the one before.
    fn older_than(&self, newest: Place, version: u64) -> Place {
        let (found, older) = self.version_at(newest);
        if found.version == version { older } else { newest }
    }

    /// Where a version in front of `older` jumps to, and its depth. Two jumps of equal length are joined into one that is
    /// twice as long and one more, so that from any version to any older one it takes at most about three times the
    /// logarithm of their distance.
    fn jump_from(&self, older: Place) -> (Place, u32) {
        if older.is_none() {
            return (Place::NONE, 0);
        }
        let (near, depth) = self.jump_of(older);
        if near.is_none() {
            return (older, depth + 1);
        }
        let (far, near_depth) = self.jump_of(near);
        let far_depth = if far.is_none() { return (older, depth + 1) } else { self.jump_of(far).1 };
        let is_even = depth - near_depth == near_depth - far_depth;
        (if is_even { far } else { older }, depth + 1)
    }

    fn jump_of(&self, place: Place) -> (Place, u32) {
        let bytes = self.arena.from(place);
        (Place(read_u32(bytes, 12)), read_u32(bytes, 16))
    }

    /// The newest version of an entry at or below `at`.
    #[inline]
    fn visible(&self, entry: Place, at: u64) -> Option<Version<'_>> {
        let place = self.visible_place(entry, at);
        (!place.is_none()).then(|| self.version_at(place).0)
    }

    #[inline]
    fn visible_place(&self, entry: Place, at: u64) -> Place {
        let place = self.newest_of(entry);
        if place.is_none() || self.version_number(place) <= at { place } else { self.visible_behind(place, at) }
    }

    /// The newest version at or below `at`, from a place that is above it.
    fn visible_behind(&self, mut place: Place, at: u64) -> Place {
        while !place.is_none() && self.version_number(place) > at {
            let bytes = self.arena.from(place);
            let (older, jump) = (Place(read_u32(bytes, 8)), Place(read_u32(bytes, 12)));
            // Jump as long as that does not go past it.
            let jumps = !jump.is_none() && self.version_number(jump) > at;
            place = if jumps { jump } else { older };
        }
        place
    }

    #[inline]
    fn version_number(&self, place: Place) -> u64 {
        u64::from_le_bytes(self.arena.from(place)[..8].try_into().expect("eight bytes"))
    }

    #[inline]
    fn version_at(&self, place: Place) -> (Version<'_>, Place) {
        let bytes = self.arena.from(place);
        let version = self.version_number(place);
        let older = Place(read_u32(bytes, 8));
        let kind_and_length = read_u32(bytes, 20);
        let length = (kind_and_length & ((1 << LENGTH_BITS) - 1)) as usize;
        let kind = ChangeKind::from_u8((kind_and_length >> LENGTH_BITS) as u8).expect("we wrote the kind");
        let value = &bytes[VERSION_HEADER..VERSION_HEADER + length];
        let touched = match kind {
            ChangeKind::Patch => {
                let trailer = &bytes[VERSION_HEADER + length..];
                &trailer[4..4 + read_u32(trailer, 0) as usize]
            }
            _ => &[],
        };
        let value = (kind != ChangeKind::Delete).then_some(value);
        (Version { version, kind, value, touched }, older)
    }

    /// Rows of a range, from one end or the other.
    pub fn range<'a>(&'a self, start: &[u8], end: Option<&[u8]>, reverse: bool, at: u64) -> Rows<'a> {
        let key_at = |place| key_at(&self.arena, place);
        let low = self.order.seek(start, key_at);
        // A range that ends before it starts is empty, not everything.
        let end = end.map(|end| end.max(start));
        let high = end.map_or(self.order.end(), |end| self.order.seek(end, key_at));
        let (cursor, stop) = if reverse { (high, low) } else { (low, high) };
        Rows { table: self, cursor, stop, reverse, at, ahead: [Ahead::default(); AHEAD], next: 0, filled: 0 }
    }
}

/// How many rows a scan looks ahead. Their cache misses overlap rather than queue, which halves the time of a scan over
/// keys that were written in random order (`benchmarks/`, scan of 100); more gained nothing.
const AHEAD: usize = 16;

/// The visible versions of a range, deletions included, in order.
pub struct Rows<'a> {
    table: &'a Table,
    cursor: Cursor,
    stop: Cursor,
    reverse: bool,
    at: u64,
    ahead: [Ahead; AHEAD],
    next: usize,
    filled: usize,
}

/// A row that was looked at, and not yet given out.
#[derive(Clone, Copy)]
struct Ahead {
    entry: Place,
    newest: Place,
    version: u64,
}

impl Default for Ahead {
    fn default() -> Ahead {
        Ahead { entry: Place::NONE, newest: Place::NONE, version: 0 }
    }
}

impl Rows<'_> {
    /// Look at the next rows: first at all their entries, then at all their versions, each a run of independent loads.
    fn look_ahead(&mut self) {
        let order = &self.table.order;
        (self.next, self.filled) = (0, 0);
        while self.filled < AHEAD && self.cursor != self.stop {
            let entry = if self.reverse { order.previous(&mut self.cursor) } else { order.next(&mut self.cursor) };
            self.ahead[self.filled].entry = entry.expect("the stop is not behind the end");
            self.filled += 1;
        }
        for row in &mut self.ahead[..self.filled] {
            row.newest = self.table.newest_of(row.entry);
        }
        for row in &mut self.ahead[..self.filled] {
            row.version = self.table.version_number(row.newest);
        }
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = (&'a [u8], Version<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.next == self.filled {
                self.look_ahead();
                if self.filled == 0 {
                    return None;
                }
            }
            let row = self.ahead[self.next];
            self.next += 1;
            let visible = match row.version <= self.at {
                true => Some(self.table.version_at(row.newest).0),
                false => self.table.visible(row.entry, self.at),
            };
            if let Some(version) = visible {
                return Some((key_at(&self.table.arena, row.entry), version));
            }
        }
    }
}

#[inline]
fn key_at(arena: &Arena, entry: Place) -> &[u8] {
    let bytes = arena.from(entry);
    let length = u16::from_le_bytes([bytes[4], bytes[5]]) as usize;
    &bytes[ENTRY_HEADER..ENTRY_HEADER + length]
}

#[inline]
fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
