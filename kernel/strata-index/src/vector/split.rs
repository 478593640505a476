//! Cells that hold several clusters are split, and rows then go to the nearest of the cells around.
//!
//! How many cells a part begins with goes by its rows, not by what they are like. Where there are more clusters than that, a
//! cell holds several, its centre is in the middle of nothing, and what is near to a query stands in cells that do not look
//! like it. To train more centres for all costs each row a comparison with each. So each cell is cut into pieces of its own,
//! and pieces that lie together are one again: all of them where there are no clusters. Then the number of cells follows
//! the data.

use std::ops::Range;

use pulp::Arch;

use super::kept::Kept;
use super::kmeans::{self, Centres, by_number};
use super::nearer::Nearer;
use super::{Metric, simd};
use crate::hands::{Hands, alone, in_pieces};

/// Rows of a piece: comparing a query with the centres takes as long as looking at one row in so many.
const ROWS: usize = 64;
/// The most of a cell: all pairs are compared.
const PIECES: usize = 64;
/// Two pieces are one if that adds this part, or less, to what their squares of distances sum up to: halves of plain normal
/// data add a twentieth or less in 128 dimensions, clusters twice as far apart as they are wide a half.
const APART: f64 = 0.06;
/// Of so many centres that are nearest to the first one of a row, and those of the pieces of its cell, the nearest is found.
const AROUND: usize = 128;
/// Cells that are looked at before the next hand has a turn.
const PIECE: usize = 16;
/// How often, at most: what lay in the middle of very many clusters is not taken apart at once.
const TIMES: usize = 2;
/// Where more than this part of the rows is nearer to another centre, by so many that are asked, each is compared with all.
const ASTRAY: f64 = 0.005;
const ASKED: usize = 1000;

pub(super) struct Split<'a> {
    pub kept: &'a Kept,
    pub metric: Metric,
}

/// Of the rows of a piece.
struct Piece {
    mean: Vec<f32>,
    count: f64,
    /// The sum of the squares of their distances from the mean.
    squares: f64,
}

impl Piece {
    /// To the squares, if both are one.
    fn adds(&self, other: &Piece, arch: Arch) -> f64 {
        self.count * other.count / (self.count + other.count) * simd::distance(arch, &self.mean, &other.mean)
    }
}

impl Split<'_> {
    /// The centres that there are then, and the number of each row's.
    pub fn split_all(&self, centres: Vec<f32>, assigned: Vec<u32>, hands: Hands) -> (Vec<f32>, Vec<u32>) {
        let (before, mut now) = (centres.len(), (centres, assigned));
        for _ in 0..TIMES {
            let last = now.0.len();
            now = self.split(now.0, now.1, hands);
            if now.0.len() == last {
                break;
            }
        }
        let (centres, assigned) = now;
        let is_astray = centres.len() > before && self.astray(&centres, &assigned) > ASTRAY;
        let assigned = if is_astray { self.settle(&centres, &assigned, hands) } else { assigned };
        (centres, assigned)
    }

    fn split(&self, centres: Vec<f32>, assigned: Vec<u32>, hands: Hands) -> (Vec<f32>, Vec<u32>) {
        let (dim, count) = (self.kept.dim(), centres.len() / self.kept.dim());
        let (starts, order) = by_number(&assigned, count);
        let rows_of = |cell: usize| &order[starts[cell] as usize..starts[cell + 1] as usize];
        let pieces: Vec<Vec<f32>> =
            in_pieces(hands, PIECE, count, |cells| cells.map(|cell| self.pieces(rows_of(cell))).collect());
        if pieces.iter().all(|pieces| pieces.len() <= dim) {
            return (centres, assigned);
        }
        let mut firsts = vec![0];
        firsts.extend(pieces.iter().scan(0, |sum, pieces| {
            *sum += pieces.len() / dim;
            Some(*sum)
        }));
        let means = pieces.concat();
        let mut split = vec![0; assigned.len()];
        let of_cell = |cell: usize| {
            let own = firsts[cell]..firsts[cell + 1];
            self.nearest(&means, &centres[cell * dim..][..dim], own, rows_of(cell))
        };
        let near = in_pieces(hands, PIECE, count, |cells| cells.flat_map(of_cell).collect());
        order.iter().zip(near).for_each(|(row, cell)| split[*row as usize] = cell);
        self.means(&split, means.len() / dim, hands)
    }

    /// The centres of the pieces of a cell with these rows.
    fn pieces(&self, rows: &[u32]) -> Vec<f32> {
        let (dim, count) = (self.kept.dim(), (rows.len() / ROWS).min(PIECES));
        if count < 2 {
            return if rows.is_empty() { Vec::new() } else { mean(&self.matrix(rows), dim, |_| true).0 };
        }
        let matrix = self.matrix(rows);
        let row = |number: usize, sample: &mut Vec<f32>| sample.extend_from_slice(&matrix[number * dim..][..dim]);
        let centres = kmeans::train(dim, rows.len(), count, row, &alone);
        let (arch, mut nearest) = (Arch::new(), Vec::new());
        Centres::new(dim, &centres).nearest(arch, &matrix, &mut nearest);
        let piece = |number: u32| {
            let (mean, count) = mean(&matrix, dim, |row| nearest[row] == number);
            let own = matrix.chunks_exact(dim).zip(&nearest).filter(|(_, near)| **near == number);
            let squares = own.map(|(row, _)| simd::distance(arch, row, &mean)).sum();
            Piece { mean, count, squares }
        };
        let pieces = (0..count as u32).map(piece).filter(|piece| piece.count > 0.0).collect();
        together(arch, pieces).into_iter().flat_map(|piece| piece.mean).collect()
    }

    /// Of `rows`, which were around `centre`, the nearest of its `own` means and of those around it.
    fn nearest(&self, means: &[f32], centre: &[f32], own: Range<usize>, rows: &[u32]) -> Vec<u32> {
        let (dim, arch) = (self.kept.dim(), Arch::new());
        let distances = means.chunks_exact(dim).map(|mean| simd::distance(arch, mean, centre));
        let mut around: Vec<(f64, usize)> = distances.zip(0..).filter(|(_, mean)| !own.contains(mean)).collect();
        if around.len() > AROUND {
            around.select_nth_unstable_by(AROUND, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            around.truncate(AROUND);
        }
        let mut around: Vec<usize> = around.into_iter().map(|(_, mean)| mean).chain(own).collect();
        around.sort_unstable();
        let some: Vec<f32> = around.iter().flat_map(|mean| &means[mean * dim..][..dim]).copied().collect();
        let mut nearest = Vec::new();
        Centres::new(dim, &some).nearest(arch, &self.matrix(rows), &mut nearest);
        nearest.into_iter().map(|place| around[place as usize] as u32).collect()
    }

    /// The part of the rows that are nearer to another centre, by a few of them.
    fn astray(&self, centres: &[f32], assigned: &[u32]) -> f64 {
        let rows: Vec<u32> = (0..ASKED).map(|number| (number * assigned.len() / ASKED) as u32).collect();
        let mut nearest = Vec::new();
        Centres::new(self.kept.dim(), centres).nearest(Arch::new(), &self.matrix(&rows), &mut nearest);
        let astray = rows.iter().zip(nearest).filter(|(row, nearest)| assigned[**row as usize] != *nearest);
        astray.count() as f64 / ASKED as f64
    }

    /// The nearest centre of each row.
    fn settle(&self, centres: &[f32], assigned: &[u32], hands: Hands) -> Vec<u32> {
        let (arch, nearer) = (Arch::new(), Nearer::new(self.kept.dim(), centres));
        let (starts, order) = by_number(assigned, centres.len() / self.kept.dim());
        let found = in_pieces(hands, PIECE, starts.len() - 1, |cells| {
            let rows = &order[starts[cells.start] as usize..starts[cells.end] as usize];
            let known: Vec<u32> = rows.iter().map(|row| assigned[*row as usize]).collect();
            nearer.nearest(arch, &self.matrix(rows), &known)
        });
        let mut settled = vec![0; assigned.len()];
        order.iter().zip(found).for_each(|(row, cell)| settled[*row as usize] = cell);
        settled
    }

    fn matrix(&self, rows: &[u32]) -> Vec<f32> {
        let mut matrix = Vec::with_capacity(rows.len() * self.kept.dim());
        rows.iter().for_each(|row| self.kept.extend_with(*row as usize, self.metric, &mut matrix));
        matrix
    }

    /// Those of the rows of each cell that has some, and which is each row's.
    fn means(&self, cell_of: &[u32], cells: usize, hands: Hands) -> (Vec<f32>, Vec<u32>) {
        let (starts, order) = by_number(cell_of, cells);
        let rows_of = |cell: usize| &order[starts[cell] as usize..starts[cell + 1] as usize];
        let mut numbers = vec![0; cells];
        let filled: Vec<usize> = (0..cells).filter(|cell| !rows_of(*cell).is_empty()).collect();
        (0..).zip(&filled).for_each(|(number, cell)| numbers[*cell] = number);
        let means = in_pieces(hands, PIECE, filled.len(), |range| {
            range.flat_map(|number| mean(&self.matrix(rows_of(filled[number])), self.kept.dim(), |_| true).0).collect()
        });
        (means, cell_of.iter().map(|cell| numbers[*cell as usize]).collect())
    }
}

/// Pieces without those that are one with another, by Ward's method: first those that lie together most.
fn together(arch: Arch, mut pieces: Vec<Piece>) -> Vec<Piece> {
    loop {
        let mut least = (APART, 0, 0);
        for (second, b) in pieces.iter().enumerate() {
            for (first, a) in pieces[..second].iter().enumerate() {
                let adds = a.adds(b, arch);
                let part = if adds > 0.0 { adds / (a.squares + b.squares) } else { 0.0 };
                if part < least.0 {
                    least = (part, first, second);
                }
            }
        }
        let (_, first, second) = least;
        if first == second {
            return pieces;
        }
        let b = pieces.remove(second);
        let a = &mut pieces[first];
        a.squares += b.squares + a.adds(&b, arch);
        let part = b.count / (a.count + b.count);
        a.mean
            .iter_mut()
            .zip(&b.mean)
            .for_each(|(x, &y)| *x = (f64::from(*x) * (1.0 - part) + f64::from(y) * part) as f32);
        a.count += b.count;
    }
}

/// Of the rows of a matrix that are `taken`, and how many these are; of none, zero.
fn mean(matrix: &[f32], dim: usize, taken: impl Fn(usize) -> bool) -> (Vec<f32>, f64) {
    let (mut sum, mut count) = (vec![0.0_f64; dim], 0.0);
    for (_, row) in matrix.chunks_exact(dim).enumerate().filter(|(number, _)| taken(*number)) {
        sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        count += 1.0;
    }
    (sum.into_iter().map(|sum| if count > 0.0 { (sum / count) as f32 } else { 0.0 }).collect(), count)
}
