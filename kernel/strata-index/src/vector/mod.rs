//! Vectors: the k nearest, exactly or nearly.
//!
//! Nearness is a *value*, higher for nearer: for cosine and dot the product with the query made one long, for euclidean
//! minus half the square of the distance. A search works in two steps. First it estimates the value of every row it looks
//! at from codes of one byte a dimension (`codes`), with a bound on the error that always holds: a row can be left out
//! when even its upper bound is below the k-th best lower bound (`shortlist`). Then it computes the scores of the rest
//! from the vectors as they are kept, in double precision and in one order of summation (`query`). So hits and scores do
//! not depend on the codes, on how rows are spread over parts, or on the machine.
//!
//! A part of many rows keeps them by *cells*, each of the rows that are nearest to its centre, and a search looks into
//! cells from the nearest on until few of the k are likely to be elsewhere (`probe`). That is the one approximation;
//! `Effort::Exact` goes without.

mod build;
mod cells;
mod codes;
mod delta;
mod half;
mod kept;
mod kmeans;
mod nearer;
mod part;
mod probe;
mod query;
#[cfg(test)]
mod recall_tests;
mod rows;
mod scan;
mod shortlist;
mod simd;
mod split;
mod stops;
#[cfg(test)]
mod tests;

pub use build::{CELLS_FROM, VectorBuild};
pub use delta::VectorDelta;
pub use part::VectorPart;

use crate::{Keys, Sight};
use cells::Cells;
use query::Query;
use rows::Rows;
use shortlist::Shortlist;

/// The most dimensions that a vector can have.
pub const DIM_MAX: usize = 65_535;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    Cosine,
    Euclidean,
    Dot,
}

/// What is kept of each number of a vector. Scores are those of what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    F32,
    F16,
    I8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VectorOptions {
    pub dim: usize,
    pub metric: Metric,
    pub quantization: Quantization,
}

/// How much of a large part to look at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Effort {
    /// All of it: what a part without cells gets in any case.
    Exact,
    /// As much as finds this part of the k, by what each part has learned of itself: 0.99 by default.
    Recall(f32),
}

impl Default for Effort {
    fn default() -> Effort {
        Effort::Recall(0.99)
    }
}

#[derive(Clone, Copy)]
pub enum VectorIndex<'a> {
    Part(&'a VectorPart),
    Delta(&'a VectorDelta),
}

impl<'a> VectorIndex<'a> {
    /// As it is kept, or nothing if the slot has none.
    pub fn vector(self, slot: u32) -> Option<Vec<f32>> {
        let place = self.slots().binary_search(&slot).ok()?;
        Some(self.rows().kept.vector(self.position(place)))
    }

    pub fn options(self) -> VectorOptions {
        self.rows().options
    }

    fn rows(self) -> &'a Rows {
        match self {
            VectorIndex::Part(part) => &part.rows,
            VectorIndex::Delta(delta) => &delta.rows,
        }
    }

    fn cells(self) -> Option<&'a Cells> {
        match self {
            VectorIndex::Part(part) => part.cells.as_ref(),
            VectorIndex::Delta(_) => None,
        }
    }

    /// All slots, in order.
    fn slots(self) -> &'a [u32] {
        match self {
            VectorIndex::Part(part) => part.slots(),
            VectorIndex::Delta(delta) => &delta.rows.slots,
        }
    }

    /// Where the row lies whose slot is the one in this place of the order.
    fn position(self, place: usize) -> usize {
        match self {
            VectorIndex::Part(part) => part.position(place),
            VectorIndex::Delta(_) => place,
        }
    }
}

pub struct Source<'a> {
    pub index: VectorIndex<'a>,
    pub sight: Sight<'a>,
    pub keys: &'a dyn Keys,
}

impl Source<'_> {
    #[inline]
    fn shows(&self, slot: u32) -> bool {
        self.sight.admits(slot) && self.sight.sees(slot)
    }
}

/// `source` counts the sources as they were given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    pub source: usize,
    pub slot: u32,
    pub score: f64,
}

/// The `k` visible rows of the highest scores, best first, equal ones by key; all, if there are no more than `k`.
///
/// Sources have the options of one index, and the query its dimension and finite numbers: the caller has checked.
pub fn search(query: &[f32], sources: &[Source], k: usize, effort: Effort) -> Vec<Hit> {
    let Some(first) = sources.first() else { return Vec::new() };
    assert_eq!(query.len(), first.index.options().dim, "the query is of another dimension");
    let query = Query::new(query, first.index.options().metric);
    let mut shortlist = Shortlist::new(k);
    // Small ones first: what they set as the floor spares work in the large.
    let mut order: Vec<usize> = (0..sources.len()).collect();
    order.sort_by_key(|&source| sources[source].index.rows().len());
    for source in order {
        scan::scan(&query, source, &sources[source], effort, &mut shortlist);
    }
    shortlist.settle(&query, sources)
}
