//! One part of what others hold: how a delta is frozen, how rows get other slots, how parts become one.

use super::part::{Ends, TextPart};
use super::postings::{List, Mark, TextIndex};

/// In `Origin::slots`: the row is not taken over.
pub const DROPPED: u32 = u32::MAX;

/// Where rows come from, and what their slots become. No two rows may get one slot.
pub struct Origin<'a> {
    pub index: TextIndex<'a>,
    /// The new slot of each; of none that it is too short for. None: they stay as they are.
    pub slots: Option<&'a [u32]>,
}

impl Origin<'_> {
    fn new_slot(&self, slot: u32) -> Option<u32> {
        let Some(slots) = self.slots else { return Some(slot) };
        slots.get(slot as usize).copied().filter(|slot| *slot != DROPPED)
    }

    fn terms(&self) -> Box<dyn Iterator<Item = (&[u8], List<'_>)> + '_> {
        match self.index {
            TextIndex::Part(part) => Box::new(part.iter()),
            TextIndex::Delta(delta) => Box::new(delta.iter()),
        }
    }
}

/// Costs a walk over the postings; no text is read again.
pub fn build(origins: &[Origin]) -> TextPart {
    let mut part = TextPart { plain: true, lengths: lengths(origins), ..TextPart::default() };
    let mut terms: Vec<_> = origins.iter().map(|origin| origin.terms().peekable()).collect();
    let mut postings = Vec::new();
    while let Some(term) = terms.iter_mut().filter_map(|terms| terms.peek().map(|(term, _)| *term)).min() {
        postings.clear();
        for (origin, terms) in origins.iter().zip(&mut terms) {
            let Some((_, list)) = terms.next_if(|(other, _)| *other == term) else { continue };
            let kept = list
                .with_positions()
                .filter_map(|(slot, mark, positions)| origin.new_slot(slot).map(|slot| (slot, mark, positions)));
            postings.extend(kept);
        }
        if !postings.is_sorted_by_key(|(slot, ..)| *slot) {
            postings.sort_by_key(|(slot, ..)| *slot); // stable: a slot's own order stays
        }
        part.push(term, &postings);
    }
    part
}

fn lengths(origins: &[Origin]) -> Vec<u32> {
    let mut lengths = Vec::new();
    for origin in origins {
        for (slot, &length) in origin.index.lengths().iter().enumerate() {
            let Some(slot) = origin.new_slot(slot as u32).filter(|_| length > 0) else { continue };
            if slot as usize >= lengths.len() {
                lengths.resize(slot as usize + 1, 0);
            }
            lengths[slot as usize] = length;
        }
    }
    lengths
}

impl TextPart {
    /// The next term. One without postings is left out.
    fn push(&mut self, term: &[u8], postings: &[(u32, Mark, &[u8])]) {
        if postings.is_empty() {
            return;
        }
        for (slot, mark, positions) in postings {
            self.slots.push(*slot);
            self.marks.push(*mark);
            self.positions.extend_from_slice(positions);
        }
        self.plain &= is_plain(postings.iter().map(|(slot, mark, _)| (*slot, *mark)));
        self.terms.extend_from_slice(term);
        self.ends.push(Ends { term: self.terms.len(), posting: self.slots.len(), position: self.positions.len() });
    }
}

/// Whether they are of field 0 all, and of a slot each.
pub(super) fn is_plain(postings: impl Iterator<Item = (u32, Mark)>) -> bool {
    let mut last = None;
    for (slot, mark) in postings {
        if mark.field() != 0 || last == Some(slot) {
            return false;
        }
        last = Some(slot);
    }
    true
}
