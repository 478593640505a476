//! When a search may stop: learned when a part is built.
//!
//! `Probe` expects a number of rows in the cells that are left. How that relates to what is really missed depends on the
//! data: it is about right where rows are normal around centres, and wrong without bounds where a cluster is cut by the border
//! of two cells, one of which has its centre elsewhere. So some rows are asked for their nearest, exactly and by cells, and
//! for each of a series of limits, and of least numbers of cells, it is kept how much would have been found, after how many
//! cells. A search takes what found enough after the fewest.

use super::cells::Cells;
use super::kept::{all_finite, exactly};
use super::part::VectorPart;
use super::query::Query;
use super::scan::{FEW, Scan};
use super::shortlist::Shortlist;
use super::{Effort, Hit, Source, VectorIndex, search};
use crate::bytes::{Damaged, Reader, Writer};
use crate::{Bits, Keys, Sight};

/// Each is half of the one before. The first is to expect 64 times as many rows elsewhere as are asked for.
const LIMITS: usize = 24;
const LIMIT_MAX: f32 = 64.0;
/// And so many cells are looked into at least.
const LEASTS: [usize; 9] = [1, 4, 12, 32, 64, 96, 128, 192, 256];
const WAYS: usize = LIMITS * LEASTS.len();

/// Rows that are asked, fewer of large parts since each is compared with all; and for how many.
const ASKED: std::ops::RangeInclusive<usize> = 96..=192;
const COMPARED: usize = 16_000_000;
const K: usize = 10;

/// The cheapest of many ways that look good enough is likely to look better than it is: so much of what may be missed counts.
const MISSED: f32 = 0.6;

/// One in so many rows passes the filter by which a series is learned.
const SHARES: [u32; 3] = [1, 10, 100];

const MOST: f32 = 4.0;

/// Where to stop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stop {
    /// When so many rows are expected elsewhere, for each one that is asked for,
    pub limit: f32,
    /// and so many cells were looked into.
    pub least: usize,
}

/// For each share of `SHARES`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stops {
    series: [Series; SHARES.len()],
}

/// By limit and least number of cells: the part that was found, and how many cells were looked into, on the average.
#[derive(Debug, Clone, PartialEq)]
struct Series {
    found: Vec<f32>,
    seen: Vec<f32>,
}

impl Default for Stops {
    fn default() -> Stops {
        Stops { series: std::array::from_fn(|_| Series { found: vec![0.0; WAYS], seen: vec![0.0; WAYS] }) }
    }
}

fn ways() -> impl Iterator<Item = Stop> {
    let limits = std::iter::successors(Some(LIMIT_MAX), |limit| Some(limit / 2.0)).take(LIMITS);
    limits.flat_map(|limit| LEASTS.iter().map(move |&least| Stop { limit, least }))
}

impl Stops {
    /// Where a filter leaves a `share` of the rows.
    pub fn stop(&self, recall: f32, share: f32) -> Stop {
        if recall >= 1.0 {
            return Stop { limit: -1.0, least: 0 };
        }
        let Series { found, seen } = self.of(share);
        let wanted = 1.0 - (1.0 - recall) * MISSED;
        let enough = ways().zip(found.iter().zip(seen)).filter(|(_, (found, _))| **found >= wanted);
        let fewest = enough.min_by(|(_, (_, a)), (_, (_, b))| a.total_cmp(b));
        fewest.map_or(Stop { limit: 0.0, least: 0 }, |(stop, _)| stop)
    }

    /// Whether a search would look into most cells anyway, one in `MOST` or more: in their order that costs more than all.
    pub fn takes_most(&self, stop: Stop, share: f32, cells: usize) -> bool {
        let seen = &self.of(share).seen;
        ways().position(|way| way == stop).is_none_or(|way| seen[way] * MOST > cells as f32)
    }

    fn of(&self, share: f32) -> &Series {
        // Between the shares of two series the middle is where they differ by the same factor.
        let number = SHARES.windows(2).filter(|pair| share * ((pair[0] * pair[1]) as f32).sqrt() < 1.0).count();
        // A part of few rows has not learned of all shares.
        let learned = self.series[..=number].iter().rfind(|series| series.seen[0] > 0.0);
        learned.unwrap_or(&self.series[0])
    }

    pub fn learn(part: &VectorPart, cells: &Cells) -> Stops {
        let end = part.slots_end();
        let (from, to) = (vec![0; end], vec![u64::MAX; end]);
        let passing = SHARES.map(|share| {
            let passes = |slot: &u32| slot.wrapping_mul(0x9e37_79b1) >> 8 < (1 << 24) / share;
            (share > 1).then(|| part.slots().iter().copied().filter(passes).collect::<Bits>())
        });
        let mut stops = Stops::default();
        let asked = (COMPARED / part.len().max(1)).clamp(*ASKED.start(), *ASKED.end()).min(part.len() / 8);
        for number in 0..asked {
            let position = part.position(number * part.len() / asked);
            let itself: Bits = [part.rows.slots[position]].into_iter().collect();
            let vector = part.rows.kept.vector(position);
            let sight = Sight { at: 1, from: &from, to: &to, hidden: Some(&itself), only: None };
            for (only, series) in passing.iter().map(Option::as_ref).zip(&mut stops.series) {
                // Of fewer, all are looked at.
                if only.is_some_and(|only| only.len() < FEW) {
                    continue;
                }
                let source = Source { index: VectorIndex::Part(part), sight: Sight { only, ..sight }, keys: &NoKeys };
                let nearest = search(&vector, std::slice::from_ref(&source), K, Effort::Exact);
                let cell = |hit: &Hit| cells.cell_of(part.find(hit.slot).expect("a hit is a row"));
                let wanted: Vec<usize> = nearest.iter().map(cell).collect();
                ask(&vector, &source, cells, &wanted, asked, series);
            }
        }
        stops
    }

    pub fn encode(&self, writer: &mut Writer) {
        for series in &self.series {
            writer.numbers(&series.found);
            writer.numbers(&series.seen);
        }
    }

    pub fn decode(reader: &mut Reader) -> Result<Stops, Damaged> {
        let mut stops = Stops::default();
        for Series { found, seen } in &mut stops.series {
            for numbers in [found, seen] {
                *numbers = exactly(reader.numbers()?, WAYS)?;
                if !all_finite(numbers) {
                    return Err(Damaged("a part found that is none"));
                }
            }
        }
        Ok(stops)
    }
}

/// Look into cells as a search does, and see which of the cells of the `wanted` rows are seen where it may stop. So many
/// queries share in what is found.
fn ask(vector: &[f32], source: &Source, cells: &Cells, wanted: &[usize], asked: usize, series: &mut Series) {
    let query = Query::new(vector, source.index.options().metric);
    let mut shortlist = Shortlist::new(K);
    let weight = 1.0 / asked as f32;
    let mut note = |way: usize, found: usize, seen: usize| {
        series.found[way] += found as f32 / wanted.len().max(1) as f32 * weight;
        series.seen[way] += seen as f32 * weight;
    };
    let mut rest: Vec<(usize, Stop)> = ways().enumerate().collect();
    Scan::new(&query, 0, source, &mut shortlist).cells(cells, |expected, seen, probe| {
        let found = wanted.iter().filter(|cell| probe.has_seen(**cell)).count();
        rest.retain(|(way, stop)| {
            let stops = stop.is_reached(expected, seen);
            if stops {
                note(*way, found, seen);
            }
            !stops
        });
        rest.is_empty()
    });
    rest.iter().for_each(|(way, _)| note(*way, wanted.len(), cells.len()));
}

impl Stop {
    pub fn is_reached(&self, expected: f32, seen: usize) -> bool {
        expected <= self.limit && seen >= self.least
    }
}

struct NoKeys;

impl Keys for NoKeys {
    fn key(&self, _: u32) -> &[u8] {
        &[]
    }
}
