//! Which rows of a source are looked at.

use std::ops::Range;

use super::cells::Cells;
use super::probe::Probe;
use super::query::{BLOCK, Base, Estimates, Query};
use super::shortlist::Shortlist;
use super::{Effort, Source};

/// One row by itself takes about as long as three in a row.
const ALONE: usize = 3;

/// Where a filter leaves fewer rows, they are looked at without cells: about 0.1 ms.
const FEW: usize = 2_000;

/// A row alone, where rows lie in cells, takes as long as so many in a row.
const ALONE_IN_CELLS: usize = 6;

/// After so many rows for each one that a filter leaves, cells have not helped: the rest is looked at one by one.
const IN_VAIN: usize = 10;

pub(super) fn scan(query: &Query, number: usize, source: &Source, effort: Effort, shortlist: &mut Shortlist) {
    let (rows, cells) = (source.index.rows().len(), source.index.cells());
    let few = match (cells, effort) {
        (None, _) => rows / ALONE,
        (Some(_), Effort::Exact) => rows / ALONE_IN_CELLS,
        (Some(_), Effort::Recall(_)) => FEW,
    };
    let mut scan = Scan::new(query, number, source, shortlist);
    match (source.sight.only, cells, effort) {
        (Some(only), _, _) if only.len() < few => scan.each(only.iter(), |_| true),
        (only, Some(cells), Effort::Recall(recall)) => {
            let limit = cells.stops.limit(recall, scan.share());
            let rows = only.map_or(usize::MAX, |only| only.len() * IN_VAIN);
            scan.cells(cells, rows, |expected, _| expected <= limit);
        }
        _ => scan.all(),
    }
}

pub(super) struct Scan<'a> {
    query: &'a Query<'a>,
    number: usize,
    source: &'a Source<'a>,
    shortlist: &'a mut Shortlist,
    room: Estimates,
}

impl<'a> Scan<'a> {
    /// Of the source with this number.
    pub fn new(query: &'a Query, number: usize, source: &'a Source, shortlist: &'a mut Shortlist) -> Scan<'a> {
        Scan { query, number, source, shortlist, room: Estimates::default() }
    }

    /// The part of the rows that a filter leaves.
    fn share(&self) -> f32 {
        self.source.sight.only.map_or(1.0, |only| only.len() as f32 / self.source.index.rows().len() as f32)
    }

    fn all(&mut self) {
        match self.source.index.cells() {
            Some(cells) => (0..cells.len()).for_each(|cell| self.cell(cells, cell)),
            None => self.range(&self.query.base(None), 0..self.source.index.rows().len()),
        }
    }

    /// The most promising cells, until there are k rows and `stop` says so, knowing how many rows above the floor are
    /// expected elsewhere for each one that is asked for. After so many rows it is better to look at those one by one
    /// that a filter leaves.
    pub fn cells(&mut self, cells: &Cells, rows: usize, mut stop: impl FnMut(f32, &Probe) -> bool) {
        let mut probe = Probe::new(self.query, cells, self.share(), &mut self.room);
        let (mut seen, mut ask_at, mut rows_left) = (0, 1, rows);
        while let Some(cell) = probe.next() {
            self.cell(cells, cell);
            seen += 1;
            // Asking takes as long as looking into a few cells.
            if seen >= ask_at && self.shortlist.is_full() {
                let expected = probe.expected(self.query.arch, self.shortlist.floor());
                if stop(expected / self.shortlist.k() as f32, &probe) {
                    break;
                }
                ask_at = seen + 1 + seen / 4;
            }
            rows_left = rows_left.saturating_sub(cells.range(cell).len());
            if rows_left == 0
                && let Some(only) = self.source.sight.only
            {
                self.each(only.iter(), |position| !probe.has_seen(cells.cell_of(position)));
                break;
            }
        }
    }

    fn cell(&mut self, cells: &Cells, cell: usize) {
        let range = cells.range(cell);
        if !range.is_empty() {
            self.range(&self.base(cells, cell), range);
        }
    }

    /// Rows that are their own codes have them around zero.
    fn base(&self, cells: &Cells, cell: usize) -> Base {
        let own = self.source.index.rows().kept.as_codes().is_some();
        self.query.base(if own { None } else { Some(cells.centre(cell)) })
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

    /// Rows here and there. In cells, those are compared themselves: their codes are around centres of many cells.
    fn each(&mut self, slots: impl Iterator<Item = u32>, wanted: impl Fn(usize) -> bool) {
        let (index, base) = (self.source.index, self.query.base(None));
        let around_zero = index.cells().is_none();
        let (mut room, mut places) = (Vec::new(), Places { slots: index.slots(), passed: 0 });
        for slot in slots {
            let Some(position) = places.of(slot).map(|place| index.position(place)) else { continue };
            if !wanted(position) {
                continue;
            }
            if around_zero {
                self.block(&base, position..position + 1);
            } else if self.source.shows(slot) {
                let (value, _) = index.rows().kept.with(position, &mut room, |vector| self.query.score(vector));
                let reach = if value.abs() < 1e30 { 1e-6 * value.abs() + 2e-14 } else { f64::INFINITY };
                if self.shortlist.wants(value as f32, reach as f32) {
                    self.shortlist.offer(value as f32, reach as f32, self.number, position);
                }
            }
        }
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
