//! The visible rows of one index that have what a clause asks for, and how often.

use std::ops::Range;

use crate::bits::Bits;
use crate::sight::Sight;

use super::postings::{List, Mark, Occurrence, TextIndex};
use super::query::{Clause, Pattern};
use super::score::Weights;
use super::search::Source;

/// Rows with their weighted counts: each once, by ascending slot.
#[derive(Clone)]
pub(super) enum Rows<'a> {
    /// All of a list, which is seen as it stands: the common case, and nothing is copied.
    Listed { slots: &'a [u32], marks: &'a [Mark], weight: f64 },
    /// Among the matches.
    Kept(Range<usize>),
}

impl Rows<'_> {
    pub fn len(&self) -> usize {
        match self {
            Rows::Listed { slots, .. } => slots.len(),
            Rows::Kept(range) => range.len(),
        }
    }
}

/// Room for rows of clause after clause; it stays between queries.
#[derive(Default)]
pub(super) struct Matches {
    slots: Vec<u32>,
    counts: Vec<f64>,
    /// By slot, while a prefix is counted; all 0 else.
    sums: Vec<f64>,
}

/// Room for more rows than this is given back: about 5 MB.
const KEPT_MAX: usize = 1 << 18;

impl Matches {
    pub fn clear(&mut self) {
        if self.slots.capacity().max(self.sums.len()) > KEPT_MAX {
            *self = Matches::default();
        }
        self.slots.clear();
        self.counts.clear();
    }

    pub fn kept(&self, range: &Range<usize>) -> (&[u32], &[f64]) {
        (&self.slots[range.clone()], &self.counts[range.clone()])
    }

    pub fn slots<'a>(&'a self, rows: &Rows<'a>) -> &'a [u32] {
        match rows {
            Rows::Listed { slots, .. } => slots,
            Rows::Kept(range) => &self.slots[range.clone()],
        }
    }

    /// How often the row has it; 0: not at all.
    pub fn count(&self, rows: &Rows, slot: u32) -> f64 {
        let Ok(at) = self.slots(rows).binary_search(&slot) else { return 0.0 };
        match rows {
            Rows::Listed { marks, weight, .. } => weight * f64::from(marks[at].count()),
            Rows::Kept(range) => self.counts[range.start + at],
        }
    }

    /// The rows of a clause.
    pub fn collect<'a>(&mut self, source: &Source<'a>, clause: &Clause, weights: &Weights) -> Rows<'a> {
        let (index, sight) = (source.index, &source.sight);
        let start = self.slots.len();
        let own = clause.field.map(|field| weights.only(field));
        let weights = own.as_ref().unwrap_or(weights);
        match clause.words.as_slice() {
            [(_, pattern)] => match lists(index, pattern).as_slice() {
                [] => {}
                [list] if index.is_plain() && index.is_ordered() => return self.plain(*list, source, weights),
                [list] => self.copied(*list, sight, |mark| weights.count(mark)),
                lists => self.united(lists, sight, weights, index.lengths().len()),
            },
            words => self.phrase(&phrase(index, words, clause.field, sight), weights),
        }
        if !index.is_ordered() {
            self.sort(start);
        }
        Rows::Kept(start..self.slots.len())
    }

    /// Of field 0 only, each row once.
    fn plain<'a>(&mut self, list: List<'a>, source: &Source, weights: &Weights) -> Rows<'a> {
        let (start, weight) = (self.slots.len(), weights.of(0));
        if weight == 0.0 {
            return Rows::Kept(start..start);
        }
        let is_whole = |slots: &[u32]| {
            let blocks = slots[0] as usize / 64..=slots[slots.len() - 1] as usize / 64;
            // Where rows lie far apart, looking at each is less work than at all between.
            let near = blocks.end() - blocks.start() <= 2 * slots.len();
            near && source.sees_all(blocks) || slots.iter().all(|slot| source.sight.sees(*slot))
        };
        let whole = list.slots.chunks(64).take_while(|slots| is_whole(slots)).map(<[u32]>::len).sum();
        if whole == list.slots.len() {
            return Rows::Listed { slots: list.slots, marks: list.marks, weight };
        }
        self.slots.extend_from_slice(&list.slots[..whole]);
        self.counts.extend(list.marks[..whole].iter().map(|mark| weight * f64::from(mark.count())));
        let rest = List { slots: &list.slots[whole..], marks: &list.marks[whole..], positions: &[] };
        self.copied(rest, &source.sight, |mark| weight * f64::from(mark.count()));
        Rows::Kept(start..self.slots.len())
    }

    /// Copy what is seen. A row may have several postings, of several fields; they stand together.
    #[inline]
    fn copied(&mut self, list: List, sight: &Sight, weigh: impl Fn(Mark) -> f64) {
        let mut kept = self.slots.len();
        self.slots.resize(kept + list.slots.len(), 0);
        self.counts.resize(kept + list.slots.len(), 0.0);
        let (slots, counts) = (self.slots.as_mut_slice(), self.counts.as_mut_slice());
        let Sight { at, from, to, hidden, .. } = *sight;
        let (nothing, to) = (Bits::default(), &to[..from.len()]);
        let hidden = hidden.unwrap_or(&nothing);
        let (theirs, marks) = (list.slots, &list.marks[..list.slots.len()]);
        let mut next = 0;
        while next < theirs.len() {
            let (slot, mut count) = (theirs[next], weigh(marks[next]));
            next += 1;
            while next < theirs.len() && theirs[next] == slot {
                count += weigh(marks[next]);
                next += 1;
            }
            // In any case, and written over if it is not seen: what is seen is hard to foretell for a branch.
            (slots[kept], counts[kept]) = (slot, count);
            let index = slot as usize;
            kept += usize::from((count > 0.0) & (from[index] <= at) & (at < to[index]) & !hidden.has(slot));
        }
        self.slots.truncate(kept);
        self.counts.truncate(kept);
    }

    fn united(&mut self, lists: &[List], sight: &Sight, weights: &Weights, slots: usize) {
        if self.sums.len() < slots {
            self.sums.resize(slots, 0.0);
        }
        let mut found = Bits::new(slots);
        for list in lists {
            for (slot, mark) in list.iter() {
                let count = weights.count(mark);
                if count > 0.0 {
                    found.set(slot);
                    self.sums[slot as usize] += count;
                }
            }
        }
        for slot in found.iter() {
            let count = std::mem::take(&mut self.sums[slot as usize]);
            if sight.sees(slot) {
                self.push(slot, count);
            }
        }
    }

    /// From places in order.
    fn phrase(&mut self, places: &[Occurrence], weights: &Weights) {
        for row in places.chunk_by(|a, b| a.slot() == b.slot()) {
            let fields = row.chunk_by(|a, b| a.field() == b.field());
            let count = fields.fold(0.0, |sum, places| sum + weights.of(places[0].field()) * places.len() as f64);
            if count > 0.0 {
                self.push(row[0].slot(), count);
            }
        }
    }

    fn push(&mut self, slot: u32, count: f64) {
        self.slots.push(slot);
        self.counts.push(count);
    }

    fn sort(&mut self, start: usize) {
        let rows = self.slots[start..].iter().copied().zip(self.counts[start..].iter().copied());
        let mut rows: Vec<(u32, f64)> = rows.collect();
        rows.sort_unstable_by_key(|(slot, _)| *slot);
        for (at, (slot, count)) in (start..).zip(rows) {
            (self.slots[at], self.counts[at]) = (slot, count);
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
