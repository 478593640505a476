//! The versions of the keys of one keyspace on one branch, in memory.
//!
//! A hash index finds a key in one probe, an order keeps the keys sorted for scans, and an arena holds the bytes. A key's
//! versions are a chain from the newest to the oldest, so that a read of the newest state follows no link. Every 16th
//! version also has links that skip over older ones, so that a read of an old state takes the logarithm of the writes
//! since (Myers 1983, "An applicative random-access stack").
//!
//! What counts is cache misses. The index holds where a key's newest version is beside where the key is, so that both are
//! fetched at once; and a write looks at no older version, as those are cold.
//!
//! In the arena (little-endian, each piece aligned to 8):
//!
//! ```text
//! entry    newest version u32 | key length u16 | 0 u16 | number of versions u32 | newest with links u32 | key
//! version  version u64 | next older u32 | kind and length u32 | [links] | [expires u64] | value | [touched paths]
//! links    far u32 | near u32 | rank u32 | 0 u32                    every 16th version: older ones with links
//! touched  length u32 | bytes                                       patches
//! ```
//!
//! Invariants: versions of a key strictly descend along its chain; a place is never reused, and only entries change.

pub mod arena;
mod journal;
pub mod order;
#[cfg(test)]
mod tests;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Result;
use arena::{Arena, Place};
use journal::Journal;
use order::{Cursor, Order};

const ENTRY_HEADER: usize = 16;
const VERSION_HEADER: usize = 16;
const LINKS: usize = 16;
/// Values have at most 32 MiB.
const LENGTH_BITS: u32 = 26;
/// Beside the kind: the version has links; it expires.
const LINKED: u32 = 8;
const EXPIRES: u32 = 16;
/// One version in so many has links: they cost 16 bytes, and to follow a chain of 16 costs a microsecond.
const STRIDE: u32 = 16;

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
    /// From this instant on it reads as absent, in microseconds since 1970; 0 is never.
    pub expires: u64,
}

impl<'a> Version<'a> {
    /// What a transaction sees of its own write, which has no version yet.
    pub fn own(value: Option<&'a [u8]>) -> Version<'a> {
        let kind = if value.is_some() { ChangeKind::Put } else { ChangeKind::Delete };
        Version { version: u64::MAX, kind, value, touched: &[], expires: 0 }
    }
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
    newest: Place,
}

/// What an entry knows of its versions.
struct EntryState {
    newest: Place,
    count: u32,
    /// The newest version with links.
    linked: Place,
}

/// Links of a version to older ones that have links too: the next of them, and one far behind.
struct Links {
    far: Place,
    near: Place,
    /// How many with links there are below.
    rank: u32,
}

#[derive(Default)]
pub struct Table {
    arena: Arena,
    index: HashTable<Slot>,
    order: Order,
    journal: Journal,
    newest: u64,
}

impl Table {
    /// The version of the newest write to any key.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// The newest version of `key` at or below `at`; `None` when this table has none.
    #[inline]
    pub fn get(&self, key: &[u8], hash: KeyHash, at: u64) -> Option<Version<'_>> {
        let slot = self.find(key, hash)?;
        self.version_at(self.visible_from(slot.newest, at))
    }

    /// Fetch what reads of `keys` will need: one read after the other waits for memory, these wait together.
    pub fn touch<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        let newest = |key| self.find(key, KeyHash::of(key)).map_or(0, |slot| self.version_number(slot.newest));
        std::hint::black_box(keys.map(newest).fold(0, std::ops::BitXor::bitxor));
    }

    /// The versions of `key` at or below `at`, newest first.
    pub fn versions<'a>(&'a self, key: &[u8], hash: KeyHash, at: u64) -> impl Iterator<Item = Version<'a>> + use<'a> {
        let mut place = self.find(key, hash).map_or(Place::NONE, |slot| self.visible_from(slot.newest, at));
        std::iter::from_fn(move || {
            let version = self.version_at(place)?;
            place = self.older_than(place);
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
        self.add(key, &Version { version, kind, value, touched, expires: 0 })
    }

    /// `put` of a whole version.
    pub fn add(&mut self, key: &[u8], added: &Version<'_>) -> Result<()> {
        let entry = self.insert(key, added)?;
        self.journal.push(entry, added.version);
        Ok(())
    }

    fn insert(&mut self, key: &[u8], added: &Version<'_>) -> Result<Place> {
        let version = added.version;
        debug_assert!(version >= self.newest);
        let hash = KeyHash::of(key);
        let entry = match self.find(key, hash) {
            Some(slot) => slot.entry,
            None => self.new_entry(key, hash)?,
        };
        let mut state = self.entry_state(entry);
        // Only within one commit can there be a version of this number, so only then is the newest one looked at.
        if version == self.newest && !state.newest.is_none() && self.version_number(state.newest) == version {
            self.take_back(&mut state);
        }
        let place = self.new_version(&mut state, added)?;
        self.set_entry_state(entry, state);
        let is_this = |slot: &Slot| slot.entry == entry;
        self.index.find_mut(hash.spread(), is_this).expect("the key is there").newest = place;
        self.newest = version;
        Ok(entry)
    }

    /// Keep a version that is in a run too, so that the next read finds it here; nothing when the key is here already.
    pub fn warm(&mut self, key: &[u8], version: &Version<'_>) -> Result<()> {
        let (newest, hash) = (self.newest, KeyHash::of(key));
        if self.find(key, hash).is_none() {
            self.newest = 0;
            let added = self.insert(key, version);
            self.newest = newest;
            added?;
        }
        Ok(())
    }

    /// What `keeps` accepts, which is asked of the versions of each key from the newest on.
    pub fn rewritten(&self, mut keeps: impl FnMut(&[u8], &Version<'_>) -> bool) -> Result<Table> {
        let (mut rewritten, mut writes) = (Table::default(), Vec::new());
        let key_at = |place| key_at(&self.arena, place);
        let mut cursor = self.order.seek(&[], key_at);
        while let Some(entry) = self.order.next(&mut cursor) {
            let key = key_at(entry);
            let versions = self.versions(key, KeyHash::of(key), u64::MAX);
            let kept: Vec<Version<'_>> = versions.filter(|version| keeps(key, version)).collect();
            rewritten.newest = 0;
            for version in kept.iter().rev() {
                writes.push((version.version, rewritten.insert(key, version)?));
            }
        }
        writes.sort_unstable_by_key(|(version, _)| *version);
        writes.into_iter().for_each(|(version, entry)| rewritten.journal.push(entry, version));
        rewritten.newest = self.newest;
        Ok(rewritten)
    }

    /// Whether there is any version of `key`.
    pub fn has(&self, key: &[u8], hash: KeyHash) -> bool {
        self.find(key, hash).is_some()
    }

    /// Memory taken, in bytes.
    pub fn bytes(&self) -> usize {
        self.arena.bytes() + self.index.allocation_size() + self.order.bytes() + self.journal.bytes()
    }

    /// Call `change` with the versions in `(after, upto]` of the keys behind `key`, in order of keys and newest first, to the
    /// end of the key where it says that this is enough. True when there are no more.
    pub fn changes(
        &self,
        key: Option<&[u8]>,
        (after, upto): (u64, u64),
        mut change: impl FnMut(&[u8], Version<'_>) -> bool,
    ) -> bool {
        let key_at = |place| key_at(&self.arena, place);
        let mut cursor = self.order.seek(key.unwrap_or_default(), key_at);
        while let Some(entry) = self.order.next(&mut cursor) {
            let found = key_at(entry);
            let newest = self.entry_state(entry).newest;
            if Some(found) == key || self.version_number(newest) <= after {
                continue;
            }
            let (mut place, mut goes_on) = (self.visible_from(newest, upto), true);
            while let Some(version) = self.version_at(place).filter(|version| version.version > after) {
                goes_on = change(found, version);
                place = self.older_than(place);
            }
            if !goes_on {
                return false;
            }
        }
        true
    }

    /// Call `change` with the versions in `(after, upto]` of all keys, of each the newest first. Looks at nothing else, or
    /// hardly.
    pub fn changed<'a>(&'a self, (after, upto): (u64, u64), mut change: impl FnMut(&'a [u8], Version<'a>)) {
        if self.newest <= after {
            return;
        }
        let mut entries = self.journal.around((after, upto)).to_vec();
        entries.sort_unstable_by_key(|entry| entry.0);
        entries.dedup();
        for entry in entries {
            let mut place = self.visible_from(self.entry_state(entry).newest, upto);
            while let Some(version) = self.version_at(place).filter(|version| version.version > after) {
                change(key_at(&self.arena, entry), version);
                place = self.older_than(place);
            }
        }
    }

    #[inline]
    fn find(&self, key: &[u8], hash: KeyHash) -> Option<Slot> {
        let is_key = |slot: &Slot| slot.hash == hash.0 && key_at(&self.arena, slot.entry) == key;
        self.index.find(hash.spread(), is_key).copied()
    }

    fn new_entry(&mut self, key: &[u8], hash: KeyHash) -> Result<Place> {
        let entry = self.arena.allocate(ENTRY_HEADER + key.len())?;
        let bytes = self.arena.from_mut(entry);
        bytes[4..6].copy_from_slice(&(key.len() as u16).to_le_bytes());
        bytes[ENTRY_HEADER..][..key.len()].copy_from_slice(key);
        let slot = Slot { hash: hash.0, entry, newest: Place::NONE };
        self.index.insert_unique(hash.spread(), slot, |slot| KeyHash(slot.hash).spread());
        self.order.insert(entry, |place| key_at(&self.arena, place));
        Ok(entry)
    }

    fn entry_state(&self, entry: Place) -> EntryState {
        let bytes = self.arena.from(entry);
        EntryState { newest: Place(read_u32(bytes, 0)), count: read_u32(bytes, 8), linked: Place(read_u32(bytes, 12)) }
    }

    fn set_entry_state(&mut self, entry: Place, state: EntryState) {
        let bytes = self.arena.from_mut(entry);
        write_u32(bytes, 0, state.newest.0);
        write_u32(bytes, 8, state.count);
        write_u32(bytes, 12, state.linked.0);
    }

    /// Forget the newest version of an entry, which is about to be replaced.
    fn take_back(&self, state: &mut EntryState) {
        if let Some(links) = self.links_of(state.newest) {
            state.linked = links.near;
        }
        state.newest = self.older_than(state.newest);
        state.count -= 1;
    }

    fn new_version(&mut self, state: &mut EntryState, added: &Version<'_>) -> Result<Place> {
        let (kind, touched, value) = (added.kind, added.touched, added.value.unwrap_or_default());
        assert!(value.len() < 1 << LENGTH_BITS, "values are bounded before they come here");
        state.count += 1;
        let links = state.count.is_multiple_of(STRIDE).then(|| self.links_in_front_of(state.linked));
        let mut kind_bits = kind as u32;
        kind_bits |= if links.is_some() { LINKED } else { 0 } | if added.expires != 0 { EXPIRES } else { 0 };
        let body = body_at(kind_bits);
        let trailer = if kind == ChangeKind::Patch { 4 + touched.len() } else { 0 };
        let place = self.arena.allocate(body + value.len() + trailer)?;
        let bytes = self.arena.from_mut(place);
        bytes[..8].copy_from_slice(&added.version.to_le_bytes());
        write_u32(bytes, 8, state.newest.0);
        write_u32(bytes, 12, (kind_bits << LENGTH_BITS) | value.len() as u32);
        if let Some(links) = links {
            for (word, at) in [links.far.0, links.near.0, links.rank].into_iter().zip((VERSION_HEADER..).step_by(4)) {
                write_u32(bytes, at, word);
            }
            state.linked = place;
        }
        if added.expires != 0 {
            bytes[body - 8..body].copy_from_slice(&added.expires.to_le_bytes());
        }
        bytes[body..][..value.len()].copy_from_slice(value);
        if trailer > 0 {
            let trailer = &mut bytes[body + value.len()..];
            write_u32(trailer, 0, touched.len() as u32);
            trailer[4..][..touched.len()].copy_from_slice(touched);
        }
        state.newest = place;
        Ok(place)
    }

    /// The links of a version in front of `near`, the newest one with links. Two far links of equal length are joined into
    /// one that is twice as long and one more, so that from any to any older one it takes at most about three times the
    /// logarithm of their distance.
    fn links_in_front_of(&self, near: Place) -> Links {
        let Some(first) = self.links_of(near) else { return Links { far: Place::NONE, near: Place::NONE, rank: 0 } };
        let rank = first.rank + 1;
        let joined = self.links_of(first.far).and_then(|second| {
            let third = self.links_of(second.far).map_or(0, |third| third.rank);
            let is_even = first.rank - second.rank == second.rank - third;
            (is_even && !second.far.is_none()).then_some(second.far)
        });
        Links { far: joined.unwrap_or(near), near, rank }
    }

    fn links_of(&self, place: Place) -> Option<Links> {
        if place.is_none() {
            return None;
        }
        let bytes = self.arena.from(place);
        let has_links = (read_u32(bytes, 12) >> LENGTH_BITS) & LINKED != 0;
        let word = |at: usize| read_u32(bytes, VERSION_HEADER + at);
        has_links.then(|| Links { far: Place(word(0)), near: Place(word(4)), rank: word(8) })
    }

    #[inline]
    fn older_than(&self, place: Place) -> Place {
        Place(read_u32(self.arena.from(place), 8))
    }

    /// The newest version at or below `at`, from the newest of all.
    #[inline]
    fn visible_from(&self, newest: Place, at: u64) -> Place {
        if newest.is_none() || self.version_number(newest) <= at { newest } else { self.visible_behind(newest, at) }
    }

    /// The newest version at or below `at`, from a place that is above it.
    fn visible_behind(&self, mut place: Place, at: u64) -> Place {
        let is_above = |place: Place| !place.is_none() && self.version_number(place) > at;
        while is_above(place) {
            place = match self.links_of(place) {
                // As far as that does not go past it.
                Some(links) if is_above(links.far) => links.far,
                Some(links) if is_above(links.near) => links.near,
                _ => self.older_than(place),
            };
        }
        place
    }

    /// The last byte of the value of a version, or one near it.
    #[inline]
    fn last_byte(&self, place: Place) -> u8 {
        let bytes = self.arena.from(place);
        let length = (read_u32(bytes, 12) & ((1 << LENGTH_BITS) - 1)) as usize;
        bytes[VERSION_HEADER + length - 1]
    }

    #[inline]
    fn version_number(&self, place: Place) -> u64 {
        u64::from_le_bytes(self.arena.from(place)[..8].try_into().expect("eight bytes"))
    }

    #[inline]
    fn version_at(&self, place: Place) -> Option<Version<'_>> {
        if place.is_none() {
            return None;
        }
        let bytes = self.arena.from(place);
        let kind_and_length = read_u32(bytes, 12);
        let length = (kind_and_length & ((1 << LENGTH_BITS) - 1)) as usize;
        let kind_bits = kind_and_length >> LENGTH_BITS;
        let kind = ChangeKind::from_u8((kind_bits & (LINKED - 1)) as u8).expect("we wrote the kind");
        let body = body_at(kind_bits);
        let expires = if kind_bits & EXPIRES != 0 { read_u64(bytes, body - 8) } else { 0 };
        let value = &bytes[body..body + length];
        let touched = match kind {
            ChangeKind::Patch => {
                let trailer = &bytes[body + length..];
                &trailer[4..4 + read_u32(trailer, 0) as usize]
            }
            _ => &[],
        };
        let value = (kind != ChangeKind::Delete).then_some(value);
        Some(Version { version: self.version_number(place), kind, value, touched, expires })
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
            row.newest = self.table.entry_state(row.entry).newest;
        }
        for row in &mut self.ahead[..self.filled] {
            row.version = self.table.version_number(row.newest);
        }
        // A value of a hundred bytes lies in two or three cache lines; the processor guesses one of them.
        let last = |row: &Ahead| self.table.last_byte(row.newest);
        std::hint::black_box(self.ahead[..self.filled].iter().map(last).fold(0, std::ops::BitXor::bitxor));
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
            let is_visible = row.version <= self.at;
            let place = if is_visible { row.newest } else { self.table.visible_behind(row.newest, self.at) };
            if let Some(version) = self.table.version_at(place) {
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

fn write_u32(bytes: &mut [u8], at: usize, word: u32) {
    bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
}

/// Where the value of a version begins.
#[inline]
fn body_at(kind_bits: u32) -> usize {
    VERSION_HEADER + if kind_bits & LINKED != 0 { LINKS } else { 0 } + if kind_bits & EXPIRES != 0 { 8 } else { 0 }
}

#[inline]
fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[inline]
fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
