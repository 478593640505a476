//! What a query sees of a part.

use std::ops::RangeInclusive;

use crate::bits::Bits;

/// The keys of a part, for the order of hits that are alike otherwise.
pub trait Keys {
    fn key(&self, slot: u32) -> &[u8];
}

/// A row is visible from the version that wrote it, until the version that wrote the next of its key; unless a branch
/// above has its own (`hidden`, where also is what has expired), or a filter leaves it out (`only`).
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    pub at: u64,
    pub from: &'a [u64],
    pub to: &'a [u64],
    pub hidden: Option<&'a Bits>,
    pub only: Option<&'a Bits>,
}

impl Sight<'_> {
    /// Whether the row is there; of those, a filter may leave out some.
    #[inline]
    pub fn sees(&self, slot: u32) -> bool {
        let index = slot as usize;
        self.from[index] <= self.at && self.at < self.to[index] && !self.hidden.is_some_and(|hidden| hidden.has(slot))
    }

    /// Whether it may be a hit. Statistics do not ask this: a filter does not change how rare a word is.
    #[inline]
    pub fn admits(&self, slot: u32) -> bool {
        self.only.is_none_or(|only| only.has(slot))
    }
}

/// From when to when all of 64 rows that stand together are there: a search that asks this first need not look at every
/// row that has a word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blocks {
    /// The latest `from` and the earliest `to` of slots 0 to 63, 64 to 127, and so on.
    blocks: Vec<(u64, u64)>,
}

impl Blocks {
    pub fn of(from: &[u64], to: &[u64]) -> Blocks {
        let mut blocks = Blocks::default();
        for (slot, (from, to)) in (0..).zip(from.iter().zip(to)) {
            blocks.note(slot, *from, *to);
        }
        blocks
    }

    pub fn memory_bytes(&self) -> usize {
        16 * self.blocks.capacity()
    }

    /// That a row has these versions. Whoever keeps blocks says so of each row that is new, or ends.
    pub fn note(&mut self, slot: u32, from: u64, to: u64) {
        let block = slot as usize / 64;
        if block >= self.blocks.len() {
            self.blocks.resize(block + 1, (0, u64::MAX));
        }
        let (latest, earliest) = &mut self.blocks[block];
        (*latest, *earliest) = (from.max(*latest), to.min(*earliest));
    }

    /// Whether all rows of these blocks are there; one that is not kept is not.
    #[inline]
    pub fn see(&self, at: u64, blocks: RangeInclusive<usize>) -> bool {
        let Some(blocks) = self.blocks.get(blocks) else { return false };
        blocks.iter().fold(true, |all, (latest, earliest)| all & (*latest <= at) & (at < *earliest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Blocks;

    proptest! {
        #[test]
        fn blocks_see_what_rows_see(
            rows in prop::collection::vec((0..3_u64, prop_oneof![5..7_u64, Just(u64::MAX)]), 0..200),
            ends in prop::collection::vec((any::<prop::sample::Index>(), 5..7_u64), 0..3),
            at in 1..7_u64,
        ) {
            let (from, mut to): (Vec<u64>, Vec<u64>) = rows.into_iter().unzip();
            let mut blocks = Blocks::of(&from, &to);
            for (row, end) in ends.iter().filter(|_| !from.is_empty()) {
                let row = row.index(from.len());
                to[row] = to[row].min(*end);
                blocks.note(row as u32, from[row], to[row]);
            }
            for block in 0..from.len().div_ceil(64) {
                let all = (block * 64..from.len().min(block * 64 + 64)).all(|row| from[row] <= at && at < to[row]);
                prop_assert_eq!(blocks.see(at, block..=block), all);
            }
            prop_assert!(!blocks.see(at, 0..=from.len().div_ceil(64)));
        }
    }
}
