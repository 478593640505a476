//! A set of slots.

use std::ops::{Range, RangeInclusive};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bits {
    words: Vec<u64>,
    count: usize,
}

impl Bits {
    /// For slots below `slots`; it grows where others are set.
    pub fn new(slots: usize) -> Bits {
        Bits { words: vec![0; slots.div_ceil(64)], count: 0 }
    }

    /// Those of the slots below `slots` that `is_in` says.
    pub fn of_those(slots: usize, is_in: impl Fn(u32) -> bool) -> Bits {
        let word = |start: usize| {
            let inside = (start..slots.min(start + 64)).enumerate();
            inside.fold(0, |word, (bit, slot)| word | u64::from(is_in(slot as u32)) << bit)
        };
        let words: Vec<u64> = (0..slots).step_by(64).map(word).collect();
        let count = words.iter().map(|word| word.count_ones() as usize).sum();
        Bits { words, count }
    }

    /// Returns whether it was not there before.
    pub fn set(&mut self, slot: u32) -> bool {
        let (word, bit) = (slot as usize / 64, 1 << (slot % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += usize::from(is_new);
        is_new
    }

    /// All of these slots, which it must have room for: faster than one after the other.
    pub fn set_all(&mut self, slots: impl Iterator<Item = u32>) {
        for slot in slots {
            self.words[slot as usize / 64] |= 1 << (slot % 64);
        }
        self.count = self.words.iter().map(|word| word.count_ones() as usize).sum();
    }

    #[inline]
    pub fn has(&self, slot: u32) -> bool {
        self.words.get(slot as usize / 64).is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    /// Whether one of the slots from 64 times the first number to 64 times the last, and 63 more, is there.
    #[inline]
    pub fn has_any(&self, blocks: RangeInclusive<usize>) -> bool {
        let end = self.words.len().min(blocks.end() + 1);
        self.words.get(*blocks.start()..end).is_some_and(|words| words.iter().any(|word| *word != 0))
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.words.iter().enumerate().flat_map(|(index, &word)| {
            let base = index as u32 * 64;
            std::iter::successors(Some(word), |rest| Some(rest & rest.wrapping_sub(1)))
                .take_while(|rest| *rest != 0)
                .map(move |rest| base + rest.trailing_zeros())
        })
    }

    /// Those of a range, ascending.
    pub fn within(&self, range: Range<usize>) -> impl Iterator<Item = usize> {
        let words = range.start / 64..range.end.div_ceil(64).min(self.words.len());
        words.flat_map(move |index| {
            let (base, word) = (index * 64, self.words[index]);
            let from = word & u64::MAX.checked_shl(range.start.saturating_sub(base) as u32).unwrap_or(0);
            let past = u64::MAX.checked_shl(range.end.saturating_sub(base) as u32).unwrap_or(0);
            std::iter::successors(Some(from & !past), |rest| Some(rest & rest.wrapping_sub(1)))
                .take_while(|rest| *rest != 0)
                .map(move |rest| base + rest.trailing_zeros() as usize)
        })
    }

    /// Keep what `other` has, too.
    pub fn intersect(&mut self, other: &Bits) {
        self.words.truncate(other.words.len());
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
        self.count = self.words.iter().map(|word| word.count_ones() as usize).sum();
    }

    pub fn unite(&mut self, other: &Bits) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
        self.count = self.words.iter().map(|word| word.count_ones() as usize).sum();
    }
}

impl FromIterator<u32> for Bits {
    fn from_iter<I: IntoIterator<Item = u32>>(slots: I) -> Bits {
        let mut bits = Bits::default();
        for slot in slots {
            bits.set(slot);
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Bits;

    fn slots() -> impl Strategy<Value = BTreeSet<u32>> {
        prop::collection::btree_set(0..300u32, 0..60)
    }

    proptest! {
        #[test]
        fn it_is_a_set(a in slots(), b in slots()) {
            let (mut both, mut either) = (a.iter().copied().collect::<Bits>(), a.iter().copied().collect::<Bits>());
            let other: Bits = b.iter().copied().collect();
            both.intersect(&other);
            either.unite(&other);
            prop_assert_eq!(both.iter().collect::<BTreeSet<_>>(), &a & &b);
            prop_assert_eq!(either.iter().collect::<BTreeSet<_>>(), &a | &b);
            prop_assert_eq!(&Bits::of_those(300, |slot| b.contains(&slot)).iter().collect::<BTreeSet<_>>(), &b);
            prop_assert_eq!((both.len(), either.len()), ((&a & &b).len(), (&a | &b).len()));
            prop_assert!((0..400).all(|slot| other.has(slot) == b.contains(&slot)));
            for (first, last) in [(0, 400), (64, 64), (63, 129), (128, 192), (70, 71), (390, 391)] {
                let inside = b.range(first..last).map(|slot| *slot as usize).collect::<Vec<_>>();
                prop_assert_eq!(other.within(first as usize..last as usize).collect::<Vec<_>>(), inside);
            }
            for (first, last) in [(0, 0), (1, 3), (2, 9), (8, 9)] {
                let any = b.range(first * 64..(last + 1) * 64).next().is_some();
                prop_assert_eq!(other.has_any(first as usize..=last as usize), any);
            }
        }
    }
}
