//! Which cells a search looks into, and when it stops.
//!
//! What is known of a cell is its centre, how many rows it has and how they spread. By that the value of a row is taken to
//! be normal around a mean, and so a cell has an *expected* number of rows above the floor. Cells are looked into from the
//! most promising on until all others together are expected to have few. So a query into the middle of a cluster looks at
//! one or two cells, and one where all is as far as all else looks at many; no number of cells has to be chosen.

use pulp::{Arch, Simd, WithSimd};

use super::Metric;
use super::cells::Cells;
use super::query::{BLOCK, Estimates, Query};

pub(super) struct Probe {
    /// Of each cell: how many rows are still to be seen; of their values the mean, and one over the deviation.
    rows: Vec<f32>,
    means: Vec<f32>,
    inverses: Vec<f32>,
    /// The most promising first, as far as they are ordered.
    order: Vec<(f32, u32)>,
    ordered: usize,
    taken: usize,
}

/// Deviations above the mean by which cells are compared.
const HOPE: f32 = 2.5;

/// So many cells are put in order at first, and then twice as many each time.
const FIRST: usize = 16;

impl Probe {
    /// Where a filter leaves a `share` of the rows.
    pub fn new(query: &Query, cells: &Cells, share: f32, room: &mut Estimates) -> Probe {
        let (count, base, dim) = (cells.len(), query.guide(), query.vector.len());
        let mut probe = Probe {
            rows: cells.starts.windows(2).map(|pair| (pair[1] - pair[0]) as f32 * share).collect(),
            means: Vec::with_capacity(count),
            inverses: Vec::with_capacity(count),
            order: Vec::with_capacity(count),
            ordered: 0,
            taken: 0,
        };
        for start in (0..count).step_by(BLOCK) {
            let range = start..count.min(start + BLOCK);
            query.estimate(&base, cells.codes.block(None, dim, range.clone()), room);
            for (&near, cell) in room.middle.iter().zip(range) {
                let spread = cells.spreads[cell];
                let square = (-2.0 * near).max(0.0);
                let (mean, square) = match query.metric {
                    Metric::Dot => (near, spread),
                    Metric::Euclidean => (near - spread / 2.0, square * spread),
                    // A product of two of length one is this much more than minus half the square of their distance.
                    Metric::Cosine => (near - spread / 2.0 + 1.0, square * spread),
                };
                let deviation = (cells.along * square).sqrt().max(1e-30);
                probe.means.push(mean);
                probe.inverses.push(1.0 / deviation);
                probe.order.push((mean + HOPE * deviation, cell as u32));
            }
        }
        probe
    }

    /// The most promising of the cells that are left.
    pub fn next(&mut self) -> Option<usize> {
        if self.taken == self.ordered {
            self.order_more();
        }
        let (_, cell) = *self.order.get(self.taken)?;
        self.taken += 1;
        self.rows[cell as usize] = 0.0;
        Some(cell as usize)
    }

    pub fn has_seen(&self, cell: usize) -> bool {
        self.rows[cell] == 0.0
    }

    fn order_more(&mut self) {
        let rest = &mut self.order[self.ordered..];
        let more = rest.len().min(FIRST.max(self.ordered));
        let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if more < rest.len() {
            rest.select_nth_unstable_by(more, order);
        }
        rest[..more].sort_unstable_by(order);
        self.ordered += more;
    }

    /// How many of the rows that are left are above the floor, most likely.
    pub fn expected(&self, arch: Arch, floor: f32) -> f32 {
        arch.dispatch(Expected { rows: &self.rows, means: &self.means, inverses: &self.inverses, floor })
    }
}

struct Expected<'a> {
    rows: &'a [f32],
    means: &'a [f32],
    inverses: &'a [f32],
    floor: f32,
}

impl WithSimd for Expected<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        const LANES: usize = 8;
        let above = |rows: f32, mean: f32, inverse: f32| rows * tail((self.floor - mean) * inverse);
        let (rows, rows_rest) = self.rows.as_chunks::<LANES>();
        let (means, means_rest) = self.means.as_chunks::<LANES>();
        let (inverses, inverses_rest) = self.inverses.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for ((rows, means), inverses) in rows.iter().zip(means).zip(inverses) {
            for lane in 0..LANES {
                sums[lane] += above(rows[lane], means[lane], inverses[lane]);
            }
        }
        let rest = rows_rest.iter().zip(means_rest).zip(inverses_rest);
        sums.iter().sum::<f32>() + rest.map(|((&rows, &mean), &inverse)| above(rows, mean, inverse)).sum::<f32>()
    }
}

/// The part of a normal distribution that is more than `z` deviations above its mean.
///
/// Source: Abramowitz and Stegun 26.2.19, which needs no exponential, so that it is the same everywhere.
#[inline(always)]
fn tail(z: f32) -> f32 {
    let x = z.abs().clamp(0.0, 8.0);
    let sum = 1.0
        + x * (0.049_867_347
            + x * (0.021_141_006
                + x * (0.003_277_626_3 + x * (0.000_038_003_6 + x * (0.000_048_890_6 + x * 0.000_005_383)))));
    let squared = sum * sum;
    let fourth = squared * squared;
    let eighth = fourth * fourth;
    let above = 0.5 / (eighth * eighth);
    if z < 0.0 { 1.0 - above } else { above }
}

#[cfg(test)]
mod tests {
    use super::tail;

    #[test]
    fn tails_of_a_normal_distribution() {
        for (z, part) in
            [(0.0, 0.5), (1.0, 0.158_655), (-1.0, 0.841_345), (2.0, 0.022_75), (3.0, 0.001_35), (4.0, 3.17e-5)]
        {
            assert!((tail(z) - part).abs() < 1e-6 + part / 50.0, "{z}: {} instead of {part}", tail(z));
        }
        assert!(tail(f32::NAN).is_nan() && tail(f32::INFINITY) < 1e-12 && tail(f32::NEG_INFINITY) == 1.0);
    }
}
