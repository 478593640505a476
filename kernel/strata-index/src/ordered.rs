//! Ordered indexes: which rows have which value, in the order of the values.
//!
//! A value is bytes that sort as it does; what they mean is the caller's. Rows of one value are in the order of their keys.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::bits::Bits;
use crate::bytes::{Damaged, Reader, Writer};
use crate::sight::{Keys, Sight};

/// What is in memory; it grows.
#[derive(Default)]
pub struct OrderedDelta {
    rows: BTreeMap<Vec<u8>, Vec<u32>>,
    bytes: usize,
}

/// What belongs to a run.
#[derive(Debug, PartialEq, Eq)]
pub struct OrderedPart {
    values: Vec<u8>,
    /// Where the value of each entry ends.
    ends: Vec<u32>,
    slots: Vec<u32>,
}

#[derive(Clone, Copy)]
pub enum OrderedIndex<'a> {
    Delta(&'a OrderedDelta),
    Part(&'a OrderedPart),
}

pub struct Source<'a> {
    pub index: OrderedIndex<'a>,
    pub sight: Sight<'a>,
    pub keys: &'a dyn Keys,
}

/// Values from one to another.
#[derive(Debug, Clone)]
pub struct Range {
    pub start: Bound<Vec<u8>>,
    pub end: Bound<Vec<u8>>,
}

/// A row of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub source: usize,
    pub slot: u32,
}

impl OrderedDelta {
    pub fn add(&mut self, slot: u32, value: &[u8]) {
        match self.rows.get_mut(value) {
            Some(slots) => slots.push(slot),
            None => {
                self.bytes += value.len() + ENTRY_BYTES;
                self.rows.insert(value.to_vec(), vec![slot]);
            }
        }
        self.bytes += size_of::<u32>();
    }

    /// About what it takes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    pub fn freeze(self) -> OrderedPart {
        let mut part = OrderedPart { values: Vec::new(), ends: Vec::new(), slots: Vec::new() };
        for (value, mut slots) in self.rows {
            slots.sort_unstable();
            for slot in slots {
                part.values.extend_from_slice(&value);
                part.ends.push(part.values.len() as u32);
                part.slots.push(slot);
            }
        }
        part
    }
}

/// Of a value in memory: its place in the tree, two vectors, and two blocks of the allocator.
const ENTRY_BYTES: usize = 3 * 24 + 2 * 16;

impl OrderedPart {
    pub fn memory_bytes(&self) -> usize {
        self.values.capacity() + 4 * (self.ends.capacity() + self.slots.capacity())
    }

    pub fn encode(&self, out: &mut Writer) {
        out.blob(&self.values);
        out.numbers(&self.ends);
        out.numbers(&self.slots);
    }

    /// A part of so many slots.
    pub fn decode(input: &mut Reader<'_>, slots: usize) -> Result<OrderedPart, Damaged> {
        let part = OrderedPart { values: input.blob()?.to_vec(), ends: input.numbers()?, slots: input.numbers()? };
        let is_whole = part.ends.len() == part.slots.len()
            && part.ends.last().map_or(0, |end| *end as usize) == part.values.len()
            && part.ends.is_sorted()
            && part.slots.iter().all(|slot| (*slot as usize) < slots);
        if !is_whole {
            return Err(Damaged("an ordered index does not fit together"));
        }
        let ascend = (1..part.slots.len()).all(|entry| part.value(entry - 1) <= part.value(entry));
        if ascend { Ok(part) } else { Err(Damaged("the values of an ordered index are out of order")) }
    }

    fn value(&self, entry: usize) -> &[u8] {
        let start = if entry == 0 { 0 } else { self.ends[entry - 1] as usize };
        &self.values[start..self.ends[entry] as usize]
    }

    fn entries(&self, range: &Range) -> std::ops::Range<usize> {
        let first_where = |is_in: &dyn Fn(&[u8]) -> bool| {
            let (mut low, mut high) = (0, self.slots.len());
            while low < high {
                let middle = low.midpoint(high);
                if is_in(self.value(middle)) { high = middle } else { low = middle + 1 }
            }
            low
        };
        let start = match &range.start {
            Bound::Unbounded => 0,
            Bound::Included(start) => first_where(&|value| value >= &start[..]),
            Bound::Excluded(start) => first_where(&|value| value > &start[..]),
        };
        let end = match &range.end {
            Bound::Unbounded => self.slots.len(),
            Bound::Included(end) => first_where(&|value| value > &end[..]),
            Bound::Excluded(end) => first_where(&|value| value >= &end[..]),
        };
        start..end.max(start)
    }
}

type Entry<'a> = (&'a [u8], u32);

impl<'a> OrderedIndex<'a> {
    /// The entries of a range by value; of equal values in no order that means anything.
    fn entries(self, range: &Range, reverse: bool) -> Box<dyn Iterator<Item = Entry<'a>> + 'a> {
        match self {
            OrderedIndex::Delta(_) if is_empty(range) => Box::new(std::iter::empty()),
            OrderedIndex::Delta(delta) => {
                let bounds = (range.start.as_ref().map(Vec::as_slice), range.end.as_ref().map(Vec::as_slice));
                let rows = delta.rows.range::<[u8], _>(bounds);
                let flat =
                    |(value, slots): (&'a Vec<u8>, &'a Vec<u32>)| slots.iter().map(move |slot| (&value[..], *slot));
                if reverse { Box::new(rows.rev().flat_map(flat)) } else { Box::new(rows.flat_map(flat)) }
            }
            OrderedIndex::Part(part) => {
                let entries = part.entries(range);
                let entry = |number: usize| (part.value(number), part.slots[number]);
                if reverse { Box::new(entries.rev().map(entry)) } else { Box::new(entries.map(entry)) }
            }
        }
    }
}

fn is_empty(range: &Range) -> bool {
    match (&range.start, &range.end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => start >= end,
    }
}

/// Call `row` with the visible rows whose value lies in `range`, by value and then by key, until it says that it is enough.
pub fn scan<'a>(sources: &[Source<'a>], range: &Range, reverse: bool, mut row: impl FnMut(&'a [u8], Place) -> bool) {
    let mut streams: Vec<_> = sources
        .iter()
        .map(|source| {
            let sight = source.sight;
            let visible = move |(_, slot): &Entry<'_>| sight.sees(*slot) && sight.admits(*slot);
            source.index.entries(range, reverse).filter(visible).peekable()
        })
        .collect();
    let mut group: Vec<Place> = Vec::new();
    loop {
        let heads = streams.iter_mut().filter_map(|stream| stream.peek().map(|(value, _)| *value));
        let Some(value) = (if reverse { heads.max() } else { heads.min() }) else { return };
        group.clear();
        for (source, stream) in streams.iter_mut().enumerate() {
            while let Some((_, slot)) = stream.next_if(|(other, _)| *other == value) {
                group.push(Place { source, slot });
            }
        }
        let key = |place: &Place| sources[place.source].keys.key(place.slot);
        group.sort_unstable_by(|a, b| if reverse { key(b).cmp(key(a)) } else { key(a).cmp(key(b)) });
        for place in &group {
            if !row(value, *place) {
                return;
            }
        }
    }
}

/// The rows of all `ranges`, as a set for each source; also those that are not visible.
pub fn select(sources: &[Source<'_>], ranges: &[Range]) -> Vec<Bits> {
    let of_source = |source: &Source<'_>| {
        let mut found = Bits::new(source.sight.from.len());
        for range in ranges {
            match source.index {
                OrderedIndex::Part(part) => found.set_all(part.slots[part.entries(range)].iter().copied()),
                OrderedIndex::Delta(_) => {
                    found.set_all(source.index.entries(range, false).map(|(_, slot)| slot));
                }
            }
        }
        found
    };
    sources.iter().map(of_source).collect()
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use proptest::prelude::*;

    use super::{OrderedDelta, OrderedIndex, OrderedPart, Range, Source, scan, select};
    use crate::bytes::{Reader, Writer};
    use crate::sight::{Keys, Sight};

    struct Names(Vec<Vec<u8>>);

    impl Keys for Names {
        fn key(&self, slot: u32) -> &[u8] {
            &self.0[slot as usize]
        }
    }

    fn bound(bytes: Option<Vec<u8>>, excluded: bool) -> Bound<Vec<u8>> {
        match bytes {
            None => Bound::Unbounded,
            Some(bytes) if excluded => Bound::Excluded(bytes),
            Some(bytes) => Bound::Included(bytes),
        }
    }

    fn part_of(rows: &[(Vec<u8>, u64)]) -> OrderedPart {
        let mut delta = OrderedDelta::default();
        rows.iter().enumerate().for_each(|(slot, (value, _))| delta.add(slot as u32, value));
        delta.freeze()
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0..3u8, 0..3)
    }

    proptest! {
        #[test]
        fn it_equals_a_sorted_list(
            rows in prop::collection::vec((value(), 0..4u64), 0..40),
            split in 0..40usize,
            start in prop::option::of(value()),
            end in prop::option::of(value()),
            (open_start, open_end, reverse) in any::<(bool, bool, bool)>(),
        ) {
            let split = split.min(rows.len());
            let name = |row: usize| (1000 - row).to_string().into_bytes();
            let (low, high) = rows.split_at(split);
            let part = part_of(low);
            let mut delta = OrderedDelta::default();
            high.iter().enumerate().for_each(|(slot, (value, _))| delta.add(slot as u32, value));
            let names = [Names((0..split).map(name).collect()), Names((split..rows.len()).map(name).collect())];
            let from = [low, high].map(|rows| rows.iter().map(|row| row.1).collect::<Vec<_>>());
            let to = [vec![u64::MAX; low.len()], vec![u64::MAX; high.len()]];
            let sight = |source: usize| {
                Sight { at: 2, from: &from[source], to: &to[source], hidden: None, only: None }
            };
            let sources = [
                Source { index: OrderedIndex::Part(&part), sight: sight(0), keys: &names[0] },
                Source { index: OrderedIndex::Delta(&delta), sight: sight(1), keys: &names[1] },
            ];
            let range = Range { start: bound(start, open_start), end: bound(end, open_end) };
            let bounds = (range.start.as_ref(), range.end.as_ref());
            let is_in = |value: &Vec<u8>| std::ops::RangeBounds::<Vec<u8>>::contains(&bounds, value);
            let mut expected: Vec<(Vec<u8>, Vec<u8>)> = rows.iter().enumerate()
                .filter(|(_, (value, from))| *from <= 2 && is_in(value))
                .map(|(row, (value, _))| (value.clone(), name(row)))
                .collect();
            expected.sort();
            if reverse { expected.reverse(); }
            let mut found = Vec::new();
            scan(&sources, &range, reverse, |value, place| {
                found.push((value.to_vec(), names[place.source].key(place.slot).to_vec()));
                true
            });
            prop_assert_eq!(&found, &expected);
            let mut selected: Vec<Vec<u8>> = Vec::new();
            for (source, found) in sources.iter().zip(select(&sources, &[range])) {
                prop_assert_eq!(found.iter().count(), found.len());
                let visible = found.iter().filter(|slot| source.sight.sees(*slot));
                selected.extend(visible.map(|slot| source.keys.key(slot).to_vec()));
            }
            selected.sort();
            let mut keys: Vec<Vec<u8>> = expected.into_iter().map(|(_, key)| key).collect();
            keys.sort();
            prop_assert_eq!(selected, keys);
        }

        #[test]
        fn any_bytes_are_a_part_or_refused(
            rows in prop::collection::vec((value(), 0..4u64), 0..20), at in any::<prop::sample::Index>(), bit in 0..8u32,
        ) {
            let part = part_of(&rows);
            let mut out = Writer::default();
            part.encode(&mut out);
            prop_assert_eq!(OrderedPart::decode(&mut Reader::new(&out.bytes), rows.len()), Ok(part));
            let mut damaged = out.bytes.clone();
            damaged[at.index(out.bytes.len())] ^= 1u8 << bit;
            let _ = OrderedPart::decode(&mut Reader::new(&damaged), rows.len());
            let cut = OrderedPart::decode(&mut Reader::new(&out.bytes[..at.index(out.bytes.len())]), rows.len());
            prop_assert!(cut.is_err());
        }
    }
}
