//! The visible rows of one index that have what a clause asks for, and how often.

use crate::bits::Bits;
use crate::sight::Sight;

use super::postings::{List, Occurrence, TextIndex};
use super::query::{Clause, Pattern};
use super::score::Weights;

/// Rows and their weighted counts, of clause after clause. It is kept between queries, so its room is given once.
#[derive(Default)]
pub(super) struct Matches {
    slots: Vec<u32>,
    counts: Vec<f64>,
    used: usize,
    /// A sum for each slot while a prefix is counted; all 0 else.
    sums: Vec<f64>,
}

impl Matches {
    pub fn clear(&mut self) {
        self.used = 0;
    }

    pub fn len(&self) -> usize {
        self.used
    }

    pub fn get(&self, range: std::ops::Range<usize>) -> (&[u32], &[f64]) {
        (&self.slots[range.clone()], &self.counts[range])
    }

    /// Add those of a clause: of each row once.
    pub fn collect(&mut self, index: TextIndex, clause: &Clause, sight: &Sight, weights: &Weights) {
        let mut own = *weights;
        if let Some(field) = clause.field {
            own = [0.0; 256];
            own[field as usize] = weights[field as usize];
        }
        match clause.words.as_slice() {
            [(_, pattern)] => {
                let lists = lists(index, pattern);
                match lists.as_slice() {
                    [] => {}
                    [list] if index.is_plain() => self.plain(*list, sight, own[0]),
                    [list] => self.grouped(*list, sight, &own),
                    lists => self.united(lists, sight, &own, index.lengths().len()),
                }
            }
            words => self.phrase(&phrase(index, words, clause.field, sight), &own),
        }
    }

    /// The common case: field 0 only, each row once. Written without a branch on what is visible.
    fn plain(&mut self, list: List, sight: &Sight, weight: f64) {
        if weight == 0.0 {
            return;
        }
        self.make_room(list.slots.len());
        let slots = &mut self.slots[self.used..self.used + list.slots.len()];
        let counts = &mut self.counts[self.used..self.used + list.slots.len()];
        let mut found = 0;
        for (slot, mark) in list.iter() {
            slots[found] = slot;
            counts[found] = weight * f64::from(mark.count());
            found += usize::from(sight.sees(slot));
        }
        self.used += found;
    }

    fn grouped(&mut self, list: List, sight: &Sight, weights: &Weights) {
        let mut postings = list.iter().peekable();
        while let Some((slot, mark)) = postings.next() {
            let mut count = weights[mark.field() as usize] * f64::from(mark.count());
            while let Some((_, mark)) = postings.next_if(|(other, _)| *other == slot) {
                count += weights[mark.field() as usize] * f64::from(mark.count());
            }
            if count > 0.0 && sight.sees(slot) {
                self.push(slot, count);
            }
        }
    }

    fn united(&mut self, lists: &[List], sight: &Sight, weights: &Weights, slots: usize) {
        if self.sums.len() < slots {
            self.sums.resize(slots, 0.0);
        }
        let start = self.used;
        for list in lists {
            for (slot, mark) in list.iter() {
                let count = weights[mark.field() as usize] * f64::from(mark.count());
                if count == 0.0 {
                    continue;
                }
                if self.sums[slot as usize] == 0.0 {
                    if !sight.sees(slot) {
                        continue;
                    }
                    self.push(slot, 0.0);
                }
                self.sums[slot as usize] += count;
            }
        }
        for at in start..self.used {
            self.counts[at] = std::mem::take(&mut self.sums[self.slots[at] as usize]);
        }
    }

    /// From places in order.
    fn phrase(&mut self, places: &[Occurrence], weights: &Weights) {
        for row in places.chunk_by(|a, b| a.slot() == b.slot()) {
            let fields = row.chunk_by(|a, b| a.field() == b.field());
            let count = fields.fold(0.0, |sum, places| sum + weights[places[0].field() as usize] * places.len() as f64);
            if count > 0.0 {
                self.push(row[0].slot(), count);
            }
        }
    }

    fn push(&mut self, slot: u32, count: f64) {
        self.make_room(1);
        self.slots[self.used] = slot;
        self.counts[self.used] = count;
        self.used += 1;
    }

    fn make_room(&mut self, more: usize) {
        let needed = self.used + more;
        if needed > self.slots.len() {
            let room = needed.next_power_of_two();
            self.slots.resize(room, 0);
            self.counts.resize(room, 0.0);
        }
    }
}

fn lists<'a>(index: TextIndex<'a>, pattern: &Pattern) -> Vec<List<'a>> {
    match pattern {
        Pattern::Term(term) => index.list(term.as_bytes()).into_iter().collect(),
        Pattern::Prefix { start, term } => {
            let mut lists = index.lists_from(start.as_bytes());
            let other = term.as_ref().filter(|term| !term.starts_with(start.as_str()));
            lists.extend(other.and_then(|term| index.list(term.as_bytes())));
            lists
        }
    }
}

/// Where the phrase begins, in order. The rarest word goes first, and leaves the others few rows to look at.
fn phrase(index: TextIndex, words: &[(u32, Pattern)], field: Option<u8>, sight: &Sight) -> Vec<Occurrence> {
    let mut words: Vec<_> = words.iter().map(|(offset, pattern)| (*offset, lists(index, pattern))).collect();
    words.sort_by_key(|(_, lists)| lists.iter().map(|list| list.slots.len()).sum::<usize>());
    let mut places: Option<Vec<Occurrence>> = None;
    for (offset, lists) in words {
        let rows = places.as_ref().map(|places| places.iter().map(|place| place.slot()).collect::<Bits>());
        let wanted = |slot| rows.as_ref().map_or_else(|| sight.sees(slot), |rows| rows.has(slot));
        let mut found = Vec::new();
        for list in lists {
            list.occurrences(field, wanted, &mut found);
        }
        let mut begins: Vec<_> = found.into_iter().filter_map(|place| place.back(offset)).collect();
        if !begins.is_sorted() {
            begins.sort_unstable();
        }
        places = Some(match places {
            None => begins,
            Some(places) => common(&places, &begins),
        });
    }
    places.unwrap_or_default()
}

/// What is in both; both are in order.
fn common(a: &[Occurrence], b: &[Occurrence]) -> Vec<Occurrence> {
    let mut rest = b.iter().peekable();
    let is_there = |place: &&Occurrence| {
        while rest.next_if(|other| other < place).is_some() {}
        rest.peek() == Some(place)
    };
    a.iter().filter(is_there).copied().collect()
}
