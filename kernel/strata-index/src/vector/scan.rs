//! Which rows of a source are looked at.

use super::query::{BLOCK, Base, Estimates, Query};
use super::shortlist::Shortlist;
use super::{Effort, Source};

pub(super) fn scan(query: &Query, number: usize, source: &Source, _effort: Effort, shortlist: &mut Shortlist) {
    let mut scan = Scan { query, number, source, shortlist, room: Estimates::default() };
    let rows = source.index.rows().len();
    match source.sight.only {
        // One by one costs about three times as much a row.
        Some(only) if only.len() < rows / 3 => scan.each(only.iter()),
        _ => scan.range(&query.base(None), 0..rows),
    }
}

struct Scan<'a> {
    query: &'a Query<'a>,
    number: usize,
    source: &'a Source<'a>,
    shortlist: &'a mut Shortlist,
    room: Estimates,
}

impl Scan<'_> {
    /// All rows of a range, which share a base.
    fn range(&mut self, base: &Base, range: std::ops::Range<usize>) {
        for start in range.clone().step_by(BLOCK) {
            self.block(base, start..range.end.min(start + BLOCK));
        }
    }

    /// Visibility is asked last: few rows come so far.
    fn block(&mut self, base: &Base, range: std::ops::Range<usize>) {
        let rows = self.source.index.rows();
        self.query.estimate(rows, base, range.clone(), &mut self.room);
        let slots = &rows.slots[range.clone()];
        for (index, &slot) in slots.iter().enumerate() {
            let (middle, reach) = (self.room.middle[index], self.room.reach[index]);
            if self.shortlist.wants(middle, reach) && self.source.shows(slot) {
                self.shortlist.offer(middle, reach, self.number, range.start + index);
            }
        }
    }

    /// Rows here and there.
    fn each(&mut self, slots: impl Iterator<Item = u32>) {
        let base = self.query.base(None);
        for slot in slots {
            if let Some(position) = self.source.index.position(slot) {
                self.block(&base, position..position + 1);
            }
        }
    }
}
