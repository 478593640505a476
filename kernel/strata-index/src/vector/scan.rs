//! Which rows of a source are looked at.

use std::ops::Range;

use super::cells::Cells;
use super::codes::Block;
use super::probe::Probe;
use super::query::{BLOCK, Base, Estimates, Query};
use super::shortlist::Shortlist;
use super::{Effort, Source};
use crate::Bits;

/// One row by itself takes about as long as three in a row.
const ALONE: usize = 3;

/// Where a filter leaves fewer rows, all of them are looked at: about 0.1 ms.
pub(super) const FEW: usize = 2_000;

/// After so many rows for each one that a filter leaves, it is better to know where these lie than to ask row by row.
const IN_VAIN: usize = 5;

pub(super) fn scan(query: &Query, number: usize, source: &Source, effort: Effort, shortlist: &mut Shortlist) {
    let (rows, cells) = (source.index.rows().len(), source.index.cells());
    let few = match (cells, effort) {
        (None, _) | (_, Effort::Exact) => rows / ALONE,
        (Some(_), Effort::Recall(_)) => FEW,
    };
    let mut scan = Scan::new(query, number, source, shortlist);
    match (source.sight.only, cells, effort) {
        (Some(only), Some(cells), _) if only.len() < few => scan.placed(cells, &placed(source, only)),
        (Some(only), None, _) if only.len() < few => scan.each(only),
        (only, Some(cells), Effort::Recall(recall)) => {
            let share = scan.share();
            let stop = cells.stops.stop(recall, share);
            match only {
                Some(only) if only.len() < rows / ALONE && cells.stops.takes_most(stop, share, cells.len()) => {
                    scan.placed(cells, &placed(source, only));
                }
                _ => scan.cells(cells, |expected, seen, _| stop.is_reached(expected, seen)),
            }
        }
        _ => scan.all(),
    }
}

/// The positions of the rows that a filter leaves.
fn placed(source: &Source, only: &Bits) -> Bits {
    let (index, mut found) = (source.index, Bits::new(source.index.rows().len()));
    let mut places = Places { slots: index.slots(), passed: 0 };
    for place in only.iter().filter_map(|slot| places.of(slot)) {
        found.set(index.position(place) as u32);
    }
    found
}

pub(super) struct Scan<'a> {
    query: &'a Query<'a>,
    number: usize,
    source: &'a Source<'a>,
    shortlist: &'a mut Shortlist,
    room: Estimates,
    few: Few,
    /// Of rows that are their own codes, and where there are no cells.
    around_zero: Base,
}

impl<'a> Scan<'a> {
    /// Of the source with this number.
    pub fn new(query: &'a Query, number: usize, source: &'a Source, shortlist: &'a mut Shortlist) -> Scan<'a> {
        let (room, few, around_zero) = (Estimates::default(), Few::default(), query.base(None));
        Scan { query, number, source, shortlist, room, few, around_zero }
    }

    /// The part of the rows that a filter leaves.
    fn share(&self) -> f32 {
        self.source.sight.only.map_or(1.0, |only| only.len() as f32 / self.source.index.rows().len() as f32)
    }

    fn all(&mut self) {
        match self.source.index.cells() {
            Some(cells) => (0..cells.len()).for_each(|cell| self.whole(cells, cell)),
            None => self.range(&{ self.around_zero }, 0..self.source.index.rows().len()),
        }
    }

    /// Rows here and there, where there are no cells.
    fn each(&mut self, only: &Bits) {
        let mut places = Places { slots: self.source.index.slots(), passed: 0 };
        self.few.bases.push(self.around_zero);
        for place in only.iter().filter_map(|slot| places.of(slot)) {
            self.one(place);
        }
        self.settle_few();
    }

    /// All rows in these positions.
    fn placed(&mut self, cells: &Cells, placed: &Bits) {
        (0..cells.len()).for_each(|cell| self.picked(cells, cell, placed));
        self.settle_few();
    }

    /// The most promising cells, until there are k rows and `stop` says so, knowing how many rows above the floor are
    /// expected elsewhere for each one that is asked for, and how many cells were looked into.
    pub fn cells(&mut self, cells: &Cells, mut stop: impl FnMut(f32, usize, &Probe) -> bool) {
        let share = self.share();
        // Of more it is as well to look at all.
        let only = self.source.sight.only.filter(|_| share * (ALONE as f32) < 1.0);
        let mut probe = Probe::new(self.query, cells, share, &mut self.room);
        let mut rows_left = only.map_or(usize::MAX, |only| only.len() * IN_VAIN);
        let (mut seen, mut ask_at, mut by_position) = (0, 1, None);
        while let Some(cell) = probe.next() {
            match (&by_position, only) {
                (Some(placed), _) => self.picked(cells, cell, placed),
                (None, Some(only)) => self.sifted(cells, cell, only),
                (None, None) => self.whole(cells, cell),
            }
            seen += 1;
            // Asking takes as long as looking into a few cells.
            if seen >= ask_at && self.is_full() {
                let expected = probe.expected(self.query.arch, self.shortlist.floor());
                if stop(expected / self.shortlist.k() as f32, seen, &probe) {
                    break;
                }
                ask_at = seen + 1 + seen / 4;
            }
            rows_left = rows_left.saturating_sub(cells.range(cell).len());
            if rows_left == 0 && by_position.is_none() {
                by_position = only.map(|only| placed(self.source, only));
            }
        }
        self.settle_few();
    }

    /// Whether there are k rows, and what is known of them is up to date.
    fn is_full(&mut self) -> bool {
        self.settle_few();
        self.shortlist.is_full()
    }

    fn whole(&mut self, cells: &Cells, cell: usize) {
        let range = cells.range(cell);
        if !range.is_empty() {
            self.range(&self.base(cells, cell), range);
        }
    }

    /// The rows of a cell that a filter leaves.
    fn sifted(&mut self, cells: &Cells, cell: usize, only: &Bits) {
        let slots = &self.source.index.rows().slots;
        self.some(cells, cell, |range| range.filter(|position| only.has(slots[*position])));
    }

    fn picked(&mut self, cells: &Cells, cell: usize, placed: &Bits) {
        self.some(cells, cell, |range| placed.within(range));
    }

    /// Few rows of a cell.
    fn some<I: Iterator<Item = usize>>(&mut self, cells: &Cells, cell: usize, rows: impl FnOnce(Range<usize>) -> I) {
        let mut rows = rows(cells.range(cell)).peekable();
        if rows.peek().is_some() {
            self.few.bases.push(self.base(cells, cell));
            rows.for_each(|position| self.one(position));
        }
    }

    /// Put a row beside the others, relative to the last base.
    fn one(&mut self, position: usize) {
        let rows = self.source.index.rows();
        self.few.push(position, rows.codes.block(Some(&rows.kept), rows.options.dim, position..position + 1));
        if self.few.positions.len() == BLOCK {
            self.settle_few();
        }
    }

    /// Look at the rows that were put together.
    fn settle_few(&mut self) {
        if self.few.positions.is_empty() {
            return;
        }
        let mut few = std::mem::take(&mut self.few);
        self.query.estimate(&Base::NOTHING, few.block(), &mut self.room);
        for (index, &(position, base)) in few.positions.iter().enumerate() {
            let (base, error) = (&few.bases[base as usize], few.errors[index]);
            let middle = self.room.middle[index] + base.value;
            let reach = self.room.reach[index] + (base.per_error * error + base.slack);
            let slot = self.source.index.rows().slots[position];
            if self.shortlist.wants(middle, reach) && self.source.shows(slot) {
                self.shortlist.offer(middle, reach, self.number, position);
            }
        }
        few.clear();
        self.few = few;
    }

    /// Rows that are their own codes have them around zero.
    fn base(&self, cells: &Cells, cell: usize) -> Base {
        let own = self.source.index.rows().kept.as_codes().is_some();
        if own { self.around_zero } else { self.query.base(Some(cells.centre(cell))) }
    }

    /// All rows of a range, which share a base.
    fn range(&mut self, base: &Base, range: Range<usize>) {
        for start in range.clone().step_by(BLOCK) {
            self.block(base, start..range.end.min(start + BLOCK));
        }
    }

    /// Visibility is asked last: few rows come so far.
    fn block(&mut self, base: &Base, range: Range<usize>) {
        let rows = self.source.index.rows();
        let block = rows.codes.block(Some(&rows.kept), rows.options.dim, range.clone());
        self.query.estimate(base, block, &mut self.room);
        let slots = &rows.slots[range.clone()];
        for (index, &slot) in slots.iter().enumerate() {
            let (middle, reach) = (self.room.middle[index], self.room.reach[index]);
            if self.shortlist.wants(middle, reach) && self.source.shows(slot) {
                self.shortlist.offer(middle, reach, self.number, range.start + index);
            }
        }
    }
}

/// Rows from here and there, put together: so the memory that they come from is waited for at once.
#[derive(Default)]
struct Few {
    codes: Vec<i8>,
    scales: Vec<f32>,
    errors: Vec<f32>,
    offsets: Vec<f32>,
    /// Where each lies, and which of the bases it is relative to.
    positions: Vec<(usize, u32)>,
    bases: Vec<Base>,
}

impl Few {
    fn push(&mut self, position: usize, row: Block) {
        self.codes.extend_from_slice(row.codes);
        self.scales.extend_from_slice(row.scales);
        self.errors.extend_from_slice(row.errors);
        self.offsets.extend_from_slice(row.offsets);
        self.positions.push((position, self.bases.len() as u32 - 1));
    }

    fn block(&self) -> Block<'_> {
        Block { codes: &self.codes, scales: &self.scales, errors: &self.errors, offsets: &self.offsets }
    }

    /// More rows may follow that are relative to the last base.
    fn clear(&mut self) {
        self.codes.clear();
        self.scales.clear();
        self.errors.clear();
        self.offsets.clear();
        self.positions.clear();
        self.bases.drain(..self.bases.len().saturating_sub(1));
    }
}

/// Finds slots that are asked for in their order.
struct Places<'a> {
    slots: &'a [u32],
    passed: usize,
}

impl Places<'_> {
    fn of(&mut self, slot: u32) -> Option<usize> {
        let rest = &self.slots[self.passed..];
        let first = *rest.first()?;
        // If all slots between are there, too, it is as far from the first as their difference; otherwise nearer.
        let far = slot.checked_sub(first)? as usize;
        let at = if rest.get(far) == Some(&slot) {
            far
        } else {
            rest[..rest.len().min(far)].partition_point(|other| *other < slot)
        };
        self.passed += at;
        (rest.get(at) == Some(&slot)).then_some(self.passed)
    }
}
