//! How a part is built: centres first, then the cell of each row, which can be done in pieces, then the rest.

use std::ops::Range;

use pulp::Arch;

use super::cells::Cells;
use super::codes::Codes;
use super::kept::Kept;
use super::kmeans::{self, Centres, by_number};
use super::part::VectorPart;
use super::rows::Rows;
use super::split::Split;
use super::stops::Stops;
use super::{Metric, VectorOptions, simd};
use crate::hands::{self, Hands, alone, in_pieces};

/// Fewer rows have no cells: to look at all takes no longer than 0.1 ms at 128 dimensions.
pub const CELLS_FROM: usize = 10_000;

/// Rows that are compared with all centres before the next are unpacked.
const PIECE: usize = 64;

pub struct VectorBuild {
    options: VectorOptions,
    slots: Vec<u32>,
    kept: Kept,
    centres: Vec<f32>,
    grouped: Centres,
}

impl VectorBuild {
    /// `vectors` has `dim` numbers for each slot, all finite, and slots ascend.
    pub fn new(options: VectorOptions, slots: Vec<u32>, vectors: Vec<f32>) -> VectorBuild {
        assert_eq!(vectors.len(), slots.len() * options.dim, "a vector for each slot");
        assert!(slots.is_sorted_by(|a, b| a < b), "slots ascend");
        VectorBuild::of_kept(options, slots, Kept::of(options.dim, options.quantization, vectors), &alone)
    }

    pub(super) fn of_kept(options: VectorOptions, slots: Vec<u32>, kept: Kept, hands: Hands) -> VectorBuild {
        let count = if slots.len() < CELLS_FROM { 0 } else { cells_for(slots.len()) };
        VectorBuild::with_cells(options, slots, kept, count, hands)
    }

    pub(super) fn with_cells(
        options: VectorOptions,
        slots: Vec<u32>,
        kept: Kept,
        count: usize,
        hands: Hands,
    ) -> VectorBuild {
        let count = count.min(slots.len());
        let row = |position: usize, matrix: &mut Vec<f32>| kept.extend_with(position, options.metric, matrix);
        let centres = if count == 0 { Vec::new() } else { kmeans::train(options.dim, slots.len(), count, row, hands) };
        let grouped = Centres::new(options.dim, &centres);
        VectorBuild { options, slots, kept, centres, grouped }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The cells of a range of rows: of any ranges, in any order, or side by side.
    pub fn assign(&self, range: Range<usize>) -> Vec<u32> {
        if self.grouped.len() == 0 {
            return vec![0; range.len()];
        }
        let (arch, mut rows) = (Arch::new(), Vec::with_capacity(PIECE * self.options.dim));
        let mut nearest = Vec::with_capacity(range.len());
        for start in range.clone().step_by(PIECE) {
            rows.clear();
            for position in start..range.end.min(start + PIECE) {
                self.kept.extend_with(position, self.options.metric, &mut rows);
            }
            self.grouped.nearest(arch, &rows, &mut nearest);
        }
        nearest
    }

    /// In one go.
    pub fn finish_all(self, hands: Hands) -> VectorPart {
        let assigned = in_pieces(hands, hands::PIECE, self.len(), |range| self.assign(range));
        self.finish(assigned, hands)
    }

    /// `assigned`: the cells of all rows.
    pub fn finish(self, assigned: Vec<u32>, hands: Hands) -> VectorPart {
        let VectorBuild { options, slots, mut kept, centres, .. } = self;
        assert_eq!(assigned.len(), slots.len(), "a cell for each row");
        if centres.is_empty() {
            let codes = Codes::of(&kept, options.metric, |_| None);
            return VectorPart { rows: Rows { options, slots, kept, codes }, cells: None };
        }
        let (centres, assigned) = Split { kept: &kept, metric: options.metric }.split_all(centres, assigned, hands);
        let (starts, order) = by_number(&assigned, centres.len() / options.dim);
        let mut by_slot = vec![0; order.len()];
        (0..).zip(&order).for_each(|(position, row)| by_slot[*row as usize] = position);
        let placed = order.iter().map(|row| slots[*row as usize]).collect();
        kept.reorder(&order);
        let mut cells = Cells::new(options, starts, centres, slots, by_slot);
        let codes = Codes::of(&kept, options.metric, |position| {
            Some(cells.centre(assigned[order[position] as usize] as usize))
        });
        measure(&kept, options.metric, &mut cells);
        let mut part = VectorPart { rows: Rows { options, slots: placed, kept, codes }, cells: Some(cells) };
        let stops = part.cells.as_ref().map(|cells| Stops::learn(&part, cells));
        if let (Some(cells), Some(stops)) = (&mut part.cells, stops) {
            cells.stops = stops;
        }
        part
    }
}

/// So many that comparing a query with all centres takes about as long as the cells that are looked into.
fn cells_for(rows: usize) -> usize {
    (3.0 * (rows as f64).sqrt()) as usize
}

/// Rows that stand for queries.
const ASKED: usize = 64;
/// Cells near each of them that are looked into.
const NEAR: usize = 8;

/// How rows spread around their centres, and how much of it is along the direction of a query.
fn measure(kept: &Kept, metric: Metric, cells: &mut Cells) {
    let (arch, mut row) = (Arch::new(), Vec::new());
    let mut of_row = |position: usize, other: &[f32], value: fn(Arch, &[f32], &[f32]) -> f64| {
        row.clear();
        kept.extend_with(position, metric, &mut row);
        value(arch, &row, other)
    };
    for cell in 0..cells.len() {
        let (range, centre) = (cells.range(cell), cells.centre(cell));
        let count = range.len().max(1) as f64;
        let sum: f64 = range.map(|position| of_row(position, centre, simd::distance)).sum();
        // Of numbers too large for it nothing is expected, and a search looks into all cells.
        cells.spreads[cell] = ((sum / count) as f32).min(f32::MAX);
    }
    let (mut squares, mut seen) = (0.0, 0.0);
    for number in 0..ASKED {
        let mut asked = Vec::new();
        let direction = if metric == Metric::Dot { Metric::Cosine } else { metric };
        kept.extend_with(number * kept.len() / ASKED, direction, &mut asked);
        let value = if metric == Metric::Dot {
            simd::product
        } else {
            |arch, a: &[f32], b: &[f32]| -0.5 * simd::distance(arch, a, b)
        };
        let mut nearest: Vec<(f64, usize)> =
            (0..cells.len()).map(|cell| (value(arch, &asked, cells.centre(cell)), cell)).collect();
        nearest.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for &(near, cell) in nearest.iter().take(NEAR) {
            let spread = f64::from(cells.spreads[cell]);
            let (mean, square) =
                if metric == Metric::Dot { (near, spread) } else { (near - spread / 2.0, -2.0 * near * spread) };
            for position in cells.range(cell).filter(|_| square > 0.0) {
                let off = of_row(position, &asked, value) - mean;
                squares += off * off / square;
                seen += 1.0;
            }
        }
    }
    let along = (squares / seen) as f32;
    cells.along = if along.is_finite() { along } else { 1.0 };
}
