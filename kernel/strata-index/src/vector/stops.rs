//! When a search may stop: learned when a part is built.
//!
//! `Probe` expects a number of rows in the cells that are left. How that relates to what is really missed depends on the
//! data: it is about right where rows are normal around centres, and wrong by factors where clusters are cut by the border
//! of two cells. So some rows are asked for their nearest, exactly and by cells, and how much they would have found is
//! kept for each of a series of limits. A search takes the highest limit that found enough.

use super::cells::Cells;
use super::kept::{all_finite, exactly};
use super::part::VectorPart;
use super::query::Query;
use super::scan::Scan;
use super::shortlist::Shortlist;
use super::{Effort, Source, VectorIndex, search};
use crate::bytes::{Damaged, Reader, Writer};
use crate::{Bits, Keys, Sight};

/// Each is half of the one before. The first is to expect 64 times as many rows elsewhere as are asked for.
const LIMITS: usize = 30;
const LIMIT_MAX: f32 = 64.0;

/// Rows that are asked, fewer of large parts since each is compared with all; and for how many.
const ASKED: std::ops::RangeInclusive<usize> = 48..=192;
const COMPARED: usize = 16_000_000;
const K: usize = 10;

/// One in so many rows passes the filter by which the second series is learned.
const SHARE: u32 = 10;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stops {
    /// The part that was found with each limit: of all rows, and where a filter leaves few.
    all: Vec<f32>,
    few: Vec<f32>,
}

impl Default for Stops {
    fn default() -> Stops {
        Stops { all: vec![0.0; LIMITS], few: vec![0.0; LIMITS] }
    }
}

fn limits() -> impl Iterator<Item = f32> {
    std::iter::successors(Some(LIMIT_MAX), |limit| Some(limit / 2.0)).take(LIMITS)
}

impl Stops {
    /// At how many expected rows to stop, for each one that is asked for, where a filter leaves a `share` of the rows.
    pub fn limit(&self, recall: f32, share: f32) -> f32 {
        if recall >= 1.0 {
            return -1.0;
        }
        // Between the shares of the two series the middle is where they differ by the same factor.
        let found = if share * (SHARE as f32).sqrt() < 1.0 { &self.few } else { &self.all };
        limits().zip(found).find(|(_, found)| **found >= recall).map_or(0.0, |(limit, _)| limit)
    }

    pub fn learn(part: &VectorPart, cells: &Cells) -> Stops {
        let end = part.slots_end();
        let (from, to) = (vec![0; end], vec![u64::MAX; end]);
        let few: Bits = part
            .slots()
            .iter()
            .copied()
            .filter(|slot| slot.wrapping_mul(0x9e37_79b1) >> 8 < (1 << 24) / SHARE)
            .collect();
        let mut stops = Stops::default();
        let asked = (COMPARED / part.len().max(1)).clamp(*ASKED.start(), *ASKED.end()).min(part.len() / 8);
        for number in 0..asked {
            let position = part.position(number * part.len() / asked);
            let itself: Bits = [part.rows.slots[position]].into_iter().collect();
            let vector = part.rows.kept.vector(position);
            let sight = Sight { at: 1, from: &from, to: &to, hidden: Some(&itself), only: None };
            let source =
                |only| Source { index: VectorIndex::Part(part), sight: Sight { only, ..sight }, keys: &NoKeys };
            // Enough of all for as many of the few.
            let nearest = search(&vector, &[source(None)], K * SHARE as usize * 2, Effort::Exact);
            let nearest: Vec<u32> = nearest.iter().map(|hit| hit.slot).collect();
            for (only, found) in [(None, &mut stops.all), (Some(&few), &mut stops.few)] {
                let wanted = nearest.iter().filter(|slot| only.is_none_or(|only: &Bits| only.has(**slot))).take(K);
                let wanted: Vec<usize> =
                    wanted.map(|slot| cells.cell_of(part.find(*slot).expect("a hit is a row"))).collect();
                ask(&vector, &source(only), cells, &wanted, asked, found);
            }
        }
        stops
    }

    pub fn encode(&self, writer: &mut Writer) {
        writer.numbers(&self.all);
        writer.numbers(&self.few);
    }

    pub fn decode(reader: &mut Reader) -> Result<Stops, Damaged> {
        let stops = Stops { all: exactly(reader.numbers()?, LIMITS)?, few: exactly(reader.numbers()?, LIMITS)? };
        if all_finite(&stops.all) && all_finite(&stops.few) {
            Ok(stops)
        } else {
            Err(Damaged("a part found that is none"))
        }
    }
}

/// Look into cells as a search does, and see which of the cells of the `wanted` rows are seen at each limit. So many
/// queries share in what is `found`.
fn ask(vector: &[f32], source: &Source, cells: &Cells, wanted: &[usize], asked: usize, found: &mut [f32]) {
    let query = Query::new(vector, source.index.options().metric);
    let mut shortlist = Shortlist::new(K);
    let weight = 1.0 / (asked * wanted.len().max(1)) as f32;
    let mut rest = limits().zip(found.iter_mut()).peekable();
    Scan::new(&query, 0, source, &mut shortlist).cells(cells, |expected, probe| {
        let seen = wanted.iter().filter(|cell| probe.has_seen(**cell)).count();
        while let Some((_, found)) = rest.next_if(|(limit, _)| expected <= *limit) {
            *found += seen as f32 * weight;
        }
        rest.peek().is_none()
    });
    rest.for_each(|(_, found)| *found += wanted.len() as f32 * weight);
}

struct NoKeys;

impl Keys for NoKeys {
    fn key(&self, _: u32) -> &[u8] {
        &[]
    }
}
