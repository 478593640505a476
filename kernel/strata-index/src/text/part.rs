//! An index of rows that do not change: terms sorted, postings flat.

use std::ops::Range;

use super::postings::{List, Mark, TextIndex};

#[derive(Default, Debug, Clone, PartialEq, Eq)]
pub struct TextPart {
    pub(super) lengths: Vec<u32>,
    /// All terms behind each other, in their order as bytes.
    pub(super) terms: Vec<u8>,
    /// Of each term where it ends, and where its postings and their positions end.
    pub(super) ends: Vec<Ends>,
    pub(super) slots: Vec<u32>,
    pub(super) marks: Vec<Mark>,
    pub(super) positions: Vec<u8>,
    /// Whether every posting is of field 0, and no term has two of one slot.
    pub(super) plain: bool,
}

#[derive(Default, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub term: usize,
    pub posting: usize,
    pub position: usize,
}

impl TextPart {
    /// How many terms the slot's document has; 0: it is none of this index.
    pub fn length(&self, slot: u32) -> u32 {
        TextIndex::Part(self).length(slot)
    }

    /// One more than the highest slot that has a document: whoever decodes a part checks that there are as many rows.
    pub fn slots(&self) -> u32 {
        self.lengths.len() as u32
    }

    pub fn memory_bytes(&self) -> usize {
        let fixed = self.lengths.len() * 4 + self.slots.len() * 6 + self.ends.len() * size_of::<Ends>();
        fixed + self.terms.len() + self.positions.len()
    }

    pub(super) fn list(&self, number: usize) -> List<'_> {
        let (start, end) = (self.start(number), self.ends[number]);
        List {
            slots: &self.slots[start.posting..end.posting],
            marks: &self.marks[start.posting..end.posting],
            positions: &self.positions[start.position..end.position],
        }
    }

    pub(super) fn term(&self, number: usize) -> &[u8] {
        &self.terms[self.start(number).term..self.ends[number].term]
    }

    pub(super) fn find(&self, term: &[u8]) -> Option<usize> {
        let number = self.first(|other| other < term);
        (number < self.ends.len() && self.term(number) == term).then_some(number)
    }

    /// The terms with this prefix.
    pub(super) fn range(&self, prefix: &[u8]) -> Range<usize> {
        self.first(|term| term < prefix)..self.first(|term| term < prefix || term.starts_with(prefix))
    }

    /// How many terms, from the first on, are `before`.
    fn first(&self, before: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.term(middle)) { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn start(&self, number: usize) -> Ends {
        number.checked_sub(1).map_or(Ends::default(), |before| self.ends[before])
    }

    /// Every term in order, with its postings.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], List<'_>)> {
        (0..self.ends.len()).map(|number| (self.term(number), self.list(number)))
    }
}
