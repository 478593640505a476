//! Which entries were written, in the order of the writes, so that what changed since some version is found without a
//! look at all the rest.
//!
//! Versions ascend along it. One of each 64 writes is marked with its version: 4 bytes and an eighth for each write.

use super::arena::Place;

const STRIDE: usize = 64;

#[derive(Default)]
pub struct Journal {
    entries: Vec<Place>,
    marks: Vec<u64>,
}

impl Journal {
    #[inline]
    pub fn push(&mut self, entry: Place, version: u64) {
        if self.entries.len().is_multiple_of(STRIDE) {
            self.marks.push(version);
        }
        self.entries.push(entry);
    }

    /// The entries written in `(after, upto]`, and at each end up to 63 others.
    pub fn around(&self, (after, upto): (u64, u64)) -> &[Place] {
        let first = self.marks.partition_point(|version| *version <= after).saturating_sub(1) * STRIDE;
        let end = self.marks.partition_point(|version| *version <= upto) * STRIDE;
        &self.entries[first..end.min(self.entries.len()).max(first)]
    }

    pub fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Place>() + self.marks.capacity() * size_of::<u64>()
    }
}
