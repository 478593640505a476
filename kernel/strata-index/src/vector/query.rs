//! A query, ready to be compared with rows.

use pulp::Arch;

use super::codes::Block;
use super::{Metric, simd};

pub(super) struct Query<'a> {
    pub vector: &'a [f32],
    pub metric: Metric,
    pub arch: Arch,
    /// Its length.
    norm: f64,
    /// What rows are compared with: of length one, except under euclidean.
    unit: Vec<f32>,
    codes: Vec<i16>,
    step: f32,
    /// For each unit of a row's scale, what the query's own rounding can do.
    per_scale: f32,
}

/// What the codes of a cell's rows are relative to.
#[derive(Clone, Copy)]
pub(super) struct Base {
    pub value: f32,
    pub per_error: f32,
    pub slack: f32,
}

impl Base {
    /// Adds nothing.
    pub const NOTHING: Base = Base { value: 0.0, per_error: 0.0, slack: 0.0 };
}

impl<'a> Query<'a> {
    pub fn new(vector: &'a [f32], metric: Metric) -> Query<'a> {
        let arch = Arch::new();
        let norm = simd::product(arch, vector, vector).sqrt();
        let factor = match metric {
            Metric::Euclidean => 1.0,
            Metric::Cosine | Metric::Dot => {
                if norm > 0.0 {
                    1.0 / norm
                } else {
                    0.0
                }
            }
        };
        let unit: Vec<f32> = vector.iter().map(|&number| (f64::from(number) * factor) as f32).collect();
        // So large that products fit an i32 for every code there is, -128 too.
        let steps = (f64::from(i32::MAX) / (128 * vector.len()) as f64).floor().min(f64::from(i16::MAX));
        let largest = unit.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
        let step = (f64::from(largest) / steps * (1.0 + 1e-7)) as f32;
        let per_step = if step > 0.0 { 1.0 / f64::from(step) } else { 0.0 };
        let codes: Vec<i16> = unit.iter().map(|&number| (f64::from(number) * per_step).round() as i16).collect();
        let miss = unit.iter().zip(&codes).map(|(&number, &code)| {
            let miss = f64::from(number) - f64::from(code) * f64::from(step);
            miss * miss
        });
        // A row's code is at most this long in units of its scale. The rest is for what rounding `unit` lost.
        let longest = 128.0 * (vector.len() as f64).sqrt();
        let length = if metric == Metric::Euclidean { norm } else { 1.0 };
        let per_scale = ((miss.sum::<f64>().sqrt() + 1e-6 * length) * longest * (1.0 + 1e-6)) as f32;
        Query { vector, metric, arch, norm, unit, codes, step, per_scale }
    }

    /// For rows whose codes are around `centre`, or around zero.
    pub fn base(&self, centre: Option<&[f32]>) -> Base {
        let zero;
        let centre = match centre {
            Some(centre) => centre,
            None => {
                zero = vec![0.0; self.unit.len()];
                &zero
            }
        };
        let (product, square) = simd::product_and_distance(self.arch, &self.unit, centre);
        // Twice what the sums above can lose.
        let loss = 2.0 / f64::from(1 << 24) * additions(self.unit.len());
        let (product, square) = (f64::from(product), f64::from(square));
        let distance = square.sqrt();
        let lengths = match self.metric {
            Metric::Euclidean => square,
            // The centre is at most so long.
            Metric::Cosine | Metric::Dot => 1.0 + distance,
        };
        let value = if self.metric == Metric::Euclidean { -0.5 * square } else { product };
        // `unit` is rounded, unless it is the query itself.
        let rounding = if self.metric == Metric::Euclidean { 0.0 } else { 1e-7 };
        // 2e-14 is more than what double precision takes for equal among scores of about 1.
        let slack = loss * lengths + 1e-6 * value.abs() + rounding * (distance + 1.0) + 2e-14;
        Base {
            value: value as f32,
            // The last is for squares that are too small for a number.
            per_error: (distance * (1.0 + 1e-5 + loss) + rounding + 1e-17) as f32,
            // A value that is none in single precision says nothing about any row.
            slack: if value.abs() < 1e30 { slack as f32 } else { f32::INFINITY },
        }
    }

    /// For the centres of cells, which are compared by their distance under cosine, too.
    pub fn guide(&self) -> Base {
        let square = match self.metric {
            Metric::Euclidean => self.norm * self.norm,
            Metric::Cosine => 1.0,
            Metric::Dot => 0.0,
        };
        Base { value: (-0.5 * square) as f32, per_error: 0.0, slack: 0.0 }
    }

    /// The estimates of a block of rows, whose codes share a base.
    pub fn estimate(&self, base: &Base, block: Block, room: &mut Estimates) {
        let count = block.scales.len();
        self.arch.dispatch(simd::Estimate {
            query: &self.codes,
            step: self.step,
            base: base.value,
            per_error: base.per_error,
            per_scale: self.per_scale,
            slack: base.slack,
            rows: block,
            middle: &mut room.middle[..count],
            reach: &mut room.reach[..count],
        });
    }

    /// The value of a vector to the last bit, and its score.
    pub fn score(&self, vector: &[f32]) -> (f64, f64) {
        match self.metric {
            Metric::Euclidean => {
                let square = simd::distance(self.arch, self.vector, vector);
                (-0.5 * square, 1.0 / (1.0 + square.sqrt()))
            }
            Metric::Dot => {
                let product = simd::product(self.arch, self.vector, vector);
                (if self.norm > 0.0 { product / self.norm } else { 0.0 }, product)
            }
            Metric::Cosine => {
                let (product, square) = simd::product_and_square(self.arch, self.vector, vector);
                let lengths = self.norm * square.sqrt();
                let cosine = if lengths > 0.0 { (product / lengths).clamp(-1.0, 1.0) } else { 0.0 };
                (cosine, cosine)
            }
        }
    }
}

/// Additions one behind the other in a sum of so many numbers.
fn additions(dim: usize) -> f64 {
    (dim / 16 + 16) as f64
}

/// Rows that are estimated at a time.
pub(super) const BLOCK: usize = 256;

pub(super) struct Estimates {
    pub middle: [f32; BLOCK],
    pub reach: [f32; BLOCK],
}

impl Default for Estimates {
    fn default() -> Estimates {
        Estimates { middle: [0.0; BLOCK], reach: [0.0; BLOCK] }
    }
}
