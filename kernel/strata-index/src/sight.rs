//! What a query sees of a part.

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
