//! The rows behind the slots of a part: their keys, and from which version to which they are visible.

use strata_index::bytes::{Damaged, Reader, Writer};
use strata_index::{Bits, Keys};

use crate::table::Version;

/// The slots of a part, in the order in which they were added.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Docs {
    keys: Vec<u8>,
    /// Where the key of each slot ends.
    ends: Vec<u64>,
    pub from: Vec<u64>,
    /// The version that wrote the key's next row: `LIVE` where there is none.
    pub to: Vec<u64>,
    /// Those that expire, and when.
    expires: Vec<(u32, u64)>,
}

pub const LIVE: u64 = u64::MAX;

impl Keys for Docs {
    fn key(&self, slot: u32) -> &[u8] {
        let slot = slot as usize;
        let start = if slot == 0 { 0 } else { self.ends[slot - 1] as usize };
        &self.keys[start..self.ends[slot] as usize]
    }
}

impl Docs {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns the slot.
    pub fn push(&mut self, key: &[u8], version: &Version<'_>, to: u64) -> u32 {
        let slot = self.ends.len() as u32;
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len() as u64);
        self.from.push(version.version);
        self.to.push(to);
        if version.expires != 0 {
            self.expires.push((slot, version.expires));
        }
        slot
    }

    /// The slots of a key, where keys are in order.
    pub fn find(&self, key: &[u8]) -> std::ops::Range<u32> {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle as u32) < key { low = middle + 1 } else { high = middle }
        }
        let start = low as u32;
        let same = (start..self.ends.len() as u32).take_while(|slot| self.key(*slot) == key).count();
        start..start + same as u32
    }

    pub fn memory_bytes(&self) -> usize {
        let rows = self.ends.capacity() + self.from.capacity() + self.to.capacity() + 2 * self.expires.capacity();
        self.keys.capacity() + 8 * rows
    }

    pub fn expires_at_all(&self) -> bool {
        !self.expires.is_empty()
    }

    /// Add those that have expired by `time`.
    pub fn expired(&self, time: u64, out: &mut Bits) {
        for (slot, expires) in &self.expires {
            if *expires <= time {
                out.set(*slot);
            }
        }
    }

    /// All but what is after each row, which is known when the other parts are.
    pub fn encode(&self, out: &mut Writer) {
        out.blob(&self.keys);
        out.numbers(&self.ends);
        out.numbers(&self.from);
        out.numbers(&self.expires.iter().map(|(slot, _)| *slot).collect::<Vec<u32>>());
        out.numbers(&self.expires.iter().map(|(_, expires)| *expires).collect::<Vec<u64>>());
    }

    pub fn decode(input: &mut Reader<'_>) -> Result<Docs, Damaged> {
        let keys = input.blob()?.to_vec();
        let (ends, from) = (input.numbers::<u64>()?, input.numbers::<u64>()?);
        let (slots, times) = (input.numbers::<u32>()?, input.numbers::<u64>()?);
        let count = ends.len();
        let is_whole = u32::try_from(count).is_ok()
            && from.len() == count
            && ends.is_sorted()
            && ends.last().map_or(0, |end| *end as usize) == keys.len()
            && slots.len() == times.len()
            && slots.iter().all(|slot| (*slot as usize) < count);
        if !is_whole {
            return Err(Damaged("rows and keys do not fit together"));
        }
        let expires = slots.into_iter().zip(times).collect();
        let mut docs = Docs { keys, ends, from, to: Vec::new(), expires };
        docs.set_ends()?;
        Ok(docs)
    }

    /// What of the rows themselves tells how long each is visible: of a key, the newest comes first.
    fn set_ends(&mut self) -> Result<(), Damaged> {
        self.to = vec![LIVE; self.len()];
        for slot in 1..self.len() as u32 {
            let (before, here) = (self.key(slot - 1), self.key(slot));
            if before > here {
                return Err(Damaged("rows are out of order"));
            }
            if before == here {
                self.to[slot as usize] = self.from[slot as usize - 1];
            }
        }
        Ok(())
    }
}
