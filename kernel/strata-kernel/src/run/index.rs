//! Fences: which frame holds what, for a search.
//!
//! An entry says that its frame holds the rows up to its key (in the order of rows: up to its version of that key), that
//! the entry before does not hold. The key is the shortest that parts the frame from the next; where one key stands in
//! both it is that key whole, with the version of the frame's last row; else the version is 0, the end of every key.
//!
//! An index block lists data blocks, and the top index in the footer lists index blocks, each followed by its filter.
//! An entry also says what the newest version in its frame is, so that a search for what changed passes it over.
//!
//! Encoded, an entry is varints: shared key bytes, further key bytes, version, newest version, offset less the end of the
//! frame before, frame length, filter frame length (0 for a data block); then the further key bytes. In front stands their
//! number.

use std::cmp::Ordering;

use super::block::common;
use super::varint::{self, Reader};
use crate::sabotage;

/// So much may the keys of an index take, whatever its size: 1024 of the longest ones.
const KEYS_SPARE: usize = 64 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    key_end: u32,
    /// The first of the key's bytes behind those that all keys share.
    head: u64,
    pub version: u64,
    /// Of all rows of the frame, or of the blocks that it lists.
    pub newest: u64,
    pub offset: u64,
    pub frame_bytes: u32,
    /// The length of the filter that stands behind it.
    pub filter_bytes: u32,
}

impl Entry {
    /// Where the frame, and its filter, end.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.frame_bytes) + u64::from(self.filter_bytes))
    }
}

/// Entries in memory, ready for a search.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Index {
    keys: Vec<u8>,
    entries: Vec<Entry>,
    /// How many bytes all keys begin with.
    shared: usize,
}

impl Index {
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn memory_bytes(&self) -> usize {
        size_of::<Index>() + self.keys.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    pub fn key(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).map_or(0, |before| self.entries[before].key_end as usize);
        &self.keys[start..self.entries[number].key_end as usize]
    }

    /// The first entry whose frame may hold a row at or behind (`key`, `at`); their number when there is none.
    #[inline]
    pub fn find(&self, key: &[u8], at: u64) -> usize {
        let Some(rest) = self.keys.get(..self.shared).and_then(|shared| key.strip_prefix(shared)) else {
            // It parts from all keys alike.
            return if self.keys[..self.shared] < *key { self.entries.len() } else { 0 };
        };
        // Most are told apart by eight bytes, without a look at the keys.
        let head = head_of(rest);
        let mut low = self.entries.partition_point(|entry| entry.head < head);
        if self.entries.get(low).is_none_or(|entry| entry.head != head) {
            return low;
        }
        let mut high = low + self.entries[low..].partition_point(|entry| entry.head == head);
        while low < high {
            let middle = usize::midpoint(low, high);
            let is_before = match self.key(middle).cmp(key) {
                Ordering::Less => true,
                Ordering::Equal if sabotage::on("K17") => self.entries[middle].version >= at,
                Ordering::Equal => self.entries[middle].version > at,
                Ordering::Greater => false,
            };
            if is_before { low = middle + 1 } else { high = middle }
        }
        low
    }

    pub fn add(&mut self, key: &[u8], mut entry: Entry) {
        self.keys.extend_from_slice(key);
        entry.key_end = self.keys.len() as u32;
        self.entries.push(entry);
    }

    /// Make the entries ready for a search, once all are there.
    fn close(&mut self) {
        self.shared = match self.entries.len() {
            0 => 0,
            count => common(self.key(0), self.key(count - 1)),
        };
        let heads: Vec<u64> = (0..self.entries.len()).map(|number| head_of(&self.key(number)[self.shared..])).collect();
        self.entries.iter_mut().zip(heads).for_each(|(entry, head)| entry.head = head);
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        varint::put(out, self.entries.len() as u64);
        let (mut before, mut end) = (&[][..], 0);
        for (number, entry) in self.entries.iter().enumerate() {
            let key = self.key(number);
            let shared = common(before, key);
            let rest = &key[shared..];
            varint::put(out, shared as u64);
            varint::put(out, rest.len() as u64);
            varint::put(out, entry.version);
            varint::put(out, entry.newest);
            varint::put(out, entry.offset - end);
            varint::put(out, u64::from(entry.frame_bytes));
            varint::put(out, u64::from(entry.filter_bytes));
            out.extend_from_slice(rest);
            (before, end) = (key, entry.end());
        }
    }

    /// What `encode` wrote; every frame ends at or before `limit`.
    pub fn decode(reader: &mut Reader<'_>, limit: u64) -> Result<Index, &'static str> {
        let count = reader.length()?;
        // An entry takes at least seven bytes, so that no memory is taken for a lie.
        if count > reader.left() / 7 {
            return Err("an index has not the entries it says");
        }
        // Written out the keys take more, but not without end.
        let keys_max = (reader.left().saturating_mul(64) + KEYS_SPARE).min(u32::MAX as usize);
        let mut index = Index { entries: Vec::with_capacity(count), ..Index::default() };
        let (mut key, mut end) = (Vec::new(), 0_u64);
        for number in 0..count {
            let (shared, rest_bytes) = (reader.length()?, reader.length()?);
            let (version, newest) = (reader.number()?, reader.number()?);
            let offset = end.checked_add(reader.number()?).ok_or("an index points out of the file")?;
            let (frame_bytes, filter_bytes) = (reader.length_u32()?, reader.length_u32()?);
            if shared > key.len() {
                return Err("an index shares more than there is");
            }
            let rest = reader.take(rest_bytes)?;
            let ascends = match rest.cmp(&key[shared..]) {
                Ordering::Less => false,
                Ordering::Equal => number == 0 || index.entries[number - 1].version > version,
                Ordering::Greater => true,
            };
            key.truncate(shared);
            key.extend_from_slice(rest);
            if !ascends || index.keys.len() + key.len() > keys_max {
                return Err("an index is not in order");
            }
            index.add(&key, Entry { key_end: 0, head: 0, version, newest, offset, frame_bytes, filter_bytes });
            end = index.entries[number].end();
            if end > limit {
                return Err("an index points out of the file");
            }
        }
        index.keys.shrink_to_fit();
        index.close();
        Ok(index)
    }

    /// The newest version of all.
    pub fn newest(&self) -> u64 {
        self.entries.iter().map(|entry| entry.newest).max().unwrap_or(0)
    }

    pub fn clear(&mut self) {
        self.keys.clear();
        self.entries.clear();
    }

    /// About what `encode` will write.
    pub fn size_bytes(&self) -> usize {
        self.keys.len() + 15 * self.entries.len()
    }
}

/// An entry as a writer makes it.
pub fn entry(version: u64, newest: u64, offset: u64, frame_bytes: u32, filter_bytes: u32) -> Entry {
    Entry { key_end: 0, head: 0, version, newest, offset, frame_bytes, filter_bytes }
}

/// Eight bytes as a number that orders as they do; a shorter key is filled with zeros.
#[inline]
fn head_of(key: &[u8]) -> u64 {
    if let Some(chunk) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*chunk);
    }
    let mut bytes = [0; 8];
    bytes[..key.len()].copy_from_slice(key);
    u64::from_be_bytes(bytes)
}

/// The shortest key at or behind `last` and before `next`.
pub fn separator<'a>(last: &'a [u8], next: &'a [u8]) -> &'a [u8] {
    let shared = common(last, next);
    debug_assert!(last < next);
    // `next` up to where they part and one further byte is behind `last`, and before `next` where that goes on.
    if shared + 1 < next.len() && shared < last.len() && shared + 1 < last.len() { &next[..=shared] } else { last }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn small_key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0_u8..3, 0..12)
    }

    proptest! {
        #[test]
        fn a_separator_parts(a in small_key(), b in small_key()) {
            prop_assume!(a != b);
            let (last, next) = if a < b { (a, b) } else { (b, a) };
            let parts = separator(&last, &next);
            prop_assert!(last[..] <= *parts && *parts < next[..] && parts.len() <= last.len());
        }

        #[test]
        fn an_index_is_read_as_it_was_written_and_searched_in_order(
            rows in prop::collection::btree_set((small_key(), 0_u64..4), 0..40),
            key in small_key(),
            at in 0_u64..5,
        ) {
            // Versions of a key descend.
            let mut rows: Vec<_> = rows.into_iter().collect();
            rows.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
            let mut index = Index::default();
            for (number, (key, version)) in (1..).zip(&rows) {
                index.add(key, entry(*version, *version + number, 100 * number, 50, number as u32));
            }
            let mut bytes = Vec::new();
            index.encode(&mut bytes);
            let read = Index::decode(&mut Reader::new(&bytes, 0), u64::MAX).unwrap();
            prop_assert_eq!(read.entries().len(), rows.len());
            for (number, (key, version)) in rows.iter().enumerate() {
                prop_assert_eq!(read.key(number), &key[..]);
                prop_assert_eq!(read.entries()[number].version, *version);
                prop_assert_eq!(read.entries()[number].newest, *version + number as u64 + 1);
                prop_assert_eq!(read.entries()[number].offset, 100 * (number as u64 + 1));
            }
            let expected = rows.iter().position(|(k, v)| (k, std::cmp::Reverse(v)) >= (&key, std::cmp::Reverse(&at)));
            prop_assert_eq!(read.find(&key, at), expected.unwrap_or(rows.len()));
        }

        #[test]
        fn any_bytes_are_an_index_or_an_error(bytes: Vec<u8>) {
            let _ = Index::decode(&mut Reader::new(&bytes, 0), 1000);
        }
    }
}
