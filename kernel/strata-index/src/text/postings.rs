//! The postings of a term, whoever holds them.

use super::delta::TextDelta;
use super::part::TextPart;
use super::varint;

/// One index, as a search asks it.
#[derive(Clone, Copy)]
pub enum TextIndex<'a> {
    Part(&'a TextPart),
    Delta(&'a TextDelta),
}

impl<'a> TextIndex<'a> {
    /// The words of each slot's document that are in the index; 0: none is. Slots from its length on have no document.
    pub fn lengths(self) -> &'a [u32] {
        match self {
            TextIndex::Part(part) => &part.lengths,
            TextIndex::Delta(delta) => &delta.lengths,
        }
    }

    pub fn length(self, slot: u32) -> u32 {
        self.lengths().get(slot as usize).copied().unwrap_or(0)
    }

    /// Whether every posting is of field 0, and no term has two of one slot.
    pub(super) fn is_plain(self) -> bool {
        match self {
            TextIndex::Part(part) => part.plain,
            TextIndex::Delta(delta) => delta.plain,
        }
    }

    /// Whether each list is by ascending slot.
    pub(super) fn is_ordered(self) -> bool {
        match self {
            TextIndex::Part(_) => true,
            TextIndex::Delta(delta) => delta.ordered,
        }
    }

    pub(super) fn list(self, term: &[u8]) -> Option<List<'a>> {
        match self {
            TextIndex::Part(part) => part.find(term).map(|number| part.list(number)),
            TextIndex::Delta(delta) => delta.list(term),
        }
    }

    /// Of the terms with this prefix, in their order.
    pub(super) fn lists_from(self, prefix: &[u8]) -> Vec<List<'a>> {
        match self {
            TextIndex::Part(part) => part.range(prefix).map(|number| part.list(number)).collect(),
            TextIndex::Delta(delta) => delta.lists_from(prefix),
        }
    }
}

/// Which field, and how often there: 1 to 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(pub u16);

impl Mark {
    /// In field 0.
    pub const ONCE: Mark = Mark(1);

    pub fn new(field: u8, count: u8) -> Mark {
        Mark(u16::from(field) << 8 | u16::from(count))
    }

    #[inline]
    pub fn count(self) -> u8 {
        self.0 as u8
    }

    #[inline]
    pub fn field(self) -> u8 {
        (self.0 >> 8) as u8
    }
}

/// Postings of one term. In a delta slots come in the order they were added; those of one slot stand together in both.
#[derive(Clone, Copy)]
pub(super) struct List<'a> {
    pub slots: &'a [u32],
    pub marks: &'a [Mark],
    pub positions: &'a [u8],
}

impl<'a> List<'a> {
    pub fn iter(self) -> impl Iterator<Item = (u32, Mark)> + use<'a> {
        self.slots.iter().copied().zip(self.marks.iter().copied())
    }

    /// With the bytes that hold its positions.
    pub fn with_positions(self) -> impl Iterator<Item = (u32, Mark, &'a [u8])> + use<'a> {
        let mut rest = self.positions;
        self.iter().map(move |(slot, mark)| {
            let (own, after) = rest.split_at(varint::length_of(rest, mark.count().into()));
            rest = after;
            (slot, mark, own)
        })
    }

    /// Where the term stands, of the slots that are `wanted` and in one field if it is given.
    pub fn occurrences(self, field: Option<u8>, wanted: impl Fn(u32) -> bool, out: &mut Vec<Occurrence>) {
        for (slot, mark, mut positions) in self.with_positions() {
            if field.is_some_and(|field| field != mark.field()) || !wanted(slot) {
                continue;
            }
            let mut position = 0_u32;
            while let Some(step) = varint::read(&mut positions) {
                position = position.wrapping_add(step);
                out.push(Occurrence::new(slot, mark.field(), position));
            }
        }
    }
}

/// A place in a document: slot, field and position, in this order of weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Occurrence(u128);

impl Occurrence {
    pub fn new(slot: u32, field: u8, position: u32) -> Occurrence {
        Occurrence(u128::from(slot) << 64 | u128::from(field) << 32 | u128::from(position))
    }

    pub fn slot(self) -> u32 {
        (self.0 >> 64) as u32
    }

    pub fn field(self) -> u8 {
        (self.0 >> 32) as u8
    }

    pub fn position(self) -> u32 {
        self.0 as u32
    }

    /// So many words earlier; None before the first.
    pub fn back(self, words: u32) -> Option<Occurrence> {
        (self.position() >= words).then(|| Occurrence(self.0 - u128::from(words)))
    }
}
