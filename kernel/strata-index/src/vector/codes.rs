//! Codes of one byte a dimension, by which to tell nearly how near a row is, and how nearly.
//!
//! A code is the row less the centre of its cell, in steps of a scale of its own. Beside it stand three numbers: the
//! *scale*; the *error*, how far the code lies from the row; and the *offset*, the part of the value that does not
//! depend on the query. With c the centre, r the row less the centre and r' what the code stands for, the value is
//!
//! ```text
//!     cosine, dot   <q, c> + <q, r'> + <c, r - r'>            q of length one; for cosine the row, too
//!     euclidean     -|q - c|^2 / 2 + <q, r'> - <c, r'> - |r|^2 / 2
//! ```
//!
//! up to <q - c, r - r'>, which is at most |q - c| times the error. Rows that are kept as I8 are their own codes, around
//! zero and without error.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::Metric;
use super::kept::{Kept, exactly};
use crate::bytes::{Damaged, Reader, Writer};

const STEPS: f64 = 127.0;

/// 1.5 * 2^52: a sum with it is rounded to a whole number, which is then in the low bits.
const WHOLE: f64 = 6_755_399_441_055_744.0;

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Codes {
    /// None where rows are kept as such.
    codes: Vec<i8>,
    scales: Vec<f32>,
    errors: Vec<f32>,
    offsets: Vec<f32>,
}

/// A few rows.
pub(super) struct Block<'a> {
    pub codes: &'a [i8],
    pub scales: &'a [f32],
    pub errors: &'a [f32],
    pub offsets: &'a [f32],
}

impl Codes {
    /// Of all rows, each around the centre that `centre` has for its position.
    pub fn of<'a>(kept: &Kept, metric: Metric, centre: impl Fn(usize) -> Option<&'a [f32]>) -> Codes {
        let (mut codes, mut room) = (Codes::default(), Vec::new());
        (0..kept.len()).for_each(|position| codes.push(kept, position, metric, centre(position), &mut room));
        codes
    }

    /// Of the rows of a matrix, around zero.
    pub fn of_matrix(matrix: &[f32], dim: usize, metric: Metric) -> Codes {
        let mut all = Codes { codes: vec![0; matrix.len()], ..Codes::default() };
        let arch = Arch::new();
        for (vector, codes) in matrix.chunks_exact(dim).zip(all.codes.chunks_exact_mut(dim)) {
            let gauge = arch.dispatch(Encode { vector, centre: None, metric, codes });
            gauge.put(&mut all.scales, &mut all.errors, &mut all.offsets);
        }
        all
    }

    /// For the row of `kept` at `position`, which is the next one here.
    pub fn push(&mut self, kept: &Kept, position: usize, metric: Metric, centre: Option<&[f32]>, room: &mut Vec<f32>) {
        let dim = kept.dim();
        let gauge = if let Some((codes, scales)) = kept.as_codes() {
            Gauge::of_kept(&codes[position * dim..][..dim], scales[position], metric)
        } else {
            let start = self.codes.len();
            self.codes.resize(start + dim, 0);
            let codes = &mut self.codes[start..];
            kept.with(position, room, |vector| Arch::new().dispatch(Encode { vector, centre, metric, codes }))
        };
        gauge.put(&mut self.scales, &mut self.errors, &mut self.offsets);
    }

    /// A few rows; `kept` where they may be their own codes.
    pub fn block<'a>(&'a self, kept: Option<&'a Kept>, dim: usize, range: Range<usize>) -> Block<'a> {
        let codes = kept.and_then(Kept::as_codes).map_or(&self.codes[..], |(codes, _)| codes);
        Block {
            codes: &codes[range.start * dim..range.end * dim],
            scales: &self.scales[range.clone()],
            errors: &self.errors[range.clone()],
            offsets: &self.offsets[range],
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.codes.capacity() + 4 * (self.scales.capacity() + self.errors.capacity() + self.offsets.capacity())
    }

    pub fn encode(&self, writer: &mut Writer) {
        writer.numbers(&self.codes);
        [&self.scales, &self.errors, &self.offsets].iter().for_each(|numbers| writer.numbers(numbers));
    }

    pub fn decode(reader: &mut Reader, kept: &Kept) -> Result<Codes, Damaged> {
        let codes = if kept.as_codes().is_some() { 0 } else { kept.len() * kept.dim() };
        Ok(Codes {
            codes: exactly(reader.numbers()?, codes)?,
            scales: exactly(reader.numbers()?, kept.len())?,
            errors: exactly(reader.numbers()?, kept.len())?,
            offsets: exactly(reader.numbers()?, kept.len())?,
        })
    }
}

struct Gauge {
    scale: f32,
    error: f32,
    offset: f32,
}

impl Gauge {
    /// Rounded such that the bound holds. Of a row with numbers too large for that nothing is known, so it is always
    /// a candidate.
    fn new(scale: f64, error: f64, offset: f64) -> Gauge {
        if scale < 1e15 && error < 1e15 && offset.abs() < 1e30 {
            Gauge { scale: scale as f32, error: (error * (1.0 + 1e-6) + 1e-37) as f32, offset: offset as f32 }
        } else {
            Gauge { scale: 0.0, error: f32::INFINITY, offset: 0.0 }
        }
    }

    fn put(self, scales: &mut Vec<f32>, errors: &mut Vec<f32>, offsets: &mut Vec<f32>) {
        scales.push(self.scale);
        errors.push(self.error);
        offsets.push(self.offset);
    }

    fn of_kept(codes: &[i8], scale: f32, metric: Metric) -> Gauge {
        let scale = f64::from(scale);
        let squares = codes.iter().map(|&code| i64::from(code) * i64::from(code)).sum::<i64>() as f64;
        match metric {
            Metric::Dot => Gauge::new(scale, 0.0, 0.0),
            Metric::Cosine if squares * scale == 0.0 => Gauge::new(0.0, 0.0, 0.0),
            Metric::Cosine => Gauge::new(1.0 / squares.sqrt(), 0.0, 0.0),
            Metric::Euclidean => Gauge::new(scale, 0.0, -0.5 * squares * scale * scale),
        }
    }
}

struct Encode<'a> {
    vector: &'a [f32],
    centre: Option<&'a [f32]>,
    metric: Metric,
    codes: &'a mut [i8],
}

impl WithSimd for Encode<'_> {
    type Output = Gauge;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Gauge {
        let Encode { vector, centre, metric, codes } = self;
        let length = match metric {
            Metric::Cosine => sum(vector.len(), |i| f64::from(vector[i]) * f64::from(vector[i])).sqrt(),
            Metric::Euclidean | Metric::Dot => 1.0,
        };
        // The zero vector has no direction, and stays zero.
        let factor = if length > 0.0 { 1.0 / length } else { 0.0 };
        let rest: Vec<f64> = match centre {
            Some(centre) => vector.iter().zip(centre).map(|(&x, &c)| f64::from(x) * factor - f64::from(c)).collect(),
            None => vector.iter().map(|&x| f64::from(x) * factor).collect(),
        };
        let largest = rest.iter().fold(0.0_f64, |largest, &r| if r.abs() > largest { r.abs() } else { largest });
        let scale = f64::from((largest / STEPS) as f32);
        // Below, a product with the query's steps would be no normal number: as good as zero.
        let scale = if scale < 1e-30 { 0.0 } else { scale };
        let steps = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        for (code, r) in codes.iter_mut().zip(&rest) {
            *code = (r * steps + WHOLE).to_bits() as i8;
        }
        let coded = |i: usize| f64::from(codes[i]) * scale;
        let error = sum(rest.len(), |i| (rest[i] - coded(i)) * (rest[i] - coded(i))).sqrt();
        let inner = |term: &dyn Fn(usize) -> f64| {
            centre.map_or(0.0, |centre| sum(rest.len(), |i| f64::from(centre[i]) * term(i)))
        };
        let offset = match metric {
            Metric::Euclidean => -inner(&coded) - 0.5 * sum(rest.len(), |i| rest[i] * rest[i]),
            Metric::Cosine | Metric::Dot => inner(&|i| rest[i] - coded(i)),
        };
        Gauge::new(scale, error, offset)
    }
}

/// The sum of `term` over all dimensions, in an order that is the same everywhere.
#[inline(always)]
fn sum(dim: usize, term: impl Fn(usize) -> f64) -> f64 {
    let mut lanes = [0.0; 8];
    let whole = dim / 8 * 8;
    for start in (0..whole).step_by(8) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    for i in whole..dim {
        lanes[i - whole] += term(i);
    }
    ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
}
