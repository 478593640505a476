//! The loops that take the time, for what the processor at hand can do.
//!
//! Each is plain Rust over lanes that the compiler turns into vector instructions; `pulp` compiles it for several
//! processors and chooses when it runs. Integers are exact in any order. Floats are summed in 16 lanes and then in one
//! tree, and never with fused multiply-add, so that each processor gives the same bits.

use pulp::{Arch, Simd, WithSimd};

use super::codes::Block;

const LANES: usize = 16;

/// What the rows of a block are worth by their codes: `middle`, give or take `reach`.
pub(super) struct Estimate<'a> {
    /// The query's codes and the value of one step of a product.
    pub query: &'a [i16],
    pub step: f32,
    /// What the centre contributes; and the reach: so much for each unit of a row's error, of its scale, and for all.
    pub base: f32,
    pub per_error: f32,
    pub per_scale: f32,
    pub slack: f32,
    pub rows: Block<'a>,
    pub middle: &'a mut [f32],
    pub reach: &'a mut [f32],
}

/// Twice what rounding can do to a sum of four terms in single precision, for each unit of a term.
const ROUNDING: f32 = 1e-6;

impl WithSimd for Estimate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Block { codes, scales, errors, offsets } = self.rows;
        let codes = codes.chunks_exact(self.query.len());
        for ((codes, &scale), product) in codes.zip(scales).zip(self.middle.iter_mut()) {
            let sum: i32 = self.query.iter().zip(codes).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum();
            *product = sum as f32 * self.step * scale;
        }
        let rows = scales.iter().zip(errors).zip(offsets);
        for (((&scale, &error), &offset), (middle, reach)) in rows.zip(self.middle.iter_mut().zip(self.reach)) {
            let rounding = ROUNDING * (middle.abs() + offset.abs());
            *reach = self.per_error * error + self.per_scale * scale + rounding + self.slack;
            *middle += self.base + offset;
        }
    }
}

/// Lanes added up as a tree: 8 and 8, 4 and 4, 2 and 2, 1 and 1.
#[inline(always)]
fn total<F: Copy + std::ops::AddAssign>(mut lanes: [F; LANES]) -> F {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The sum over all dimensions of what `term` makes of two numbers.
#[inline(always)]
fn sum(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            lanes[lane] += term(f64::from(a[lane]), f64::from(b[lane]));
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += term(f64::from(a), f64::from(b));
    }
    total(lanes)
}

struct Product<'a>(&'a [f32], &'a [f32]);

impl WithSimd for Product<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        sum(self.0, self.1, |a, b| a * b)
    }
}

struct ProductAndSquare<'a>(&'a [f32], &'a [f32]);

impl WithSimd for ProductAndSquare<'_> {
    type Output = (f64, f64);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (f64, f64) {
        (sum(self.0, self.1, |a, b| a * b), sum(self.1, self.1, |a, b| a * b))
    }
}

struct Distance<'a>(&'a [f32], &'a [f32]);

impl WithSimd for Distance<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        sum(self.0, self.1, |a, b| (a - b) * (a - b))
    }
}

/// In single precision: for bounds, not for scores.
struct Nearly<'a>(&'a [f32], &'a [f32]);

impl WithSimd for Nearly<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (f32, f32) {
        let (a_blocks, a_rest) = self.0.as_chunks::<LANES>();
        let (b_blocks, b_rest) = self.1.as_chunks::<LANES>();
        let (mut products, mut squares) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        for (a, b) in a_blocks.iter().zip(b_blocks) {
            for lane in 0..LANES {
                products[lane] += a[lane] * b[lane];
            }
            for lane in 0..LANES {
                squares[lane] += (a[lane] - b[lane]) * (a[lane] - b[lane]);
            }
        }
        for (lane, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
            products[lane] += a * b;
            squares[lane] += (a - b) * (a - b);
        }
        (total(products), total(squares))
    }
}

/// The product and the square of the distance. Rounding is at most dim / 16 + 16 times 2^-24: of the product for each unit
/// of both lengths, of the square for each of its own.
pub(super) fn product_and_distance(arch: Arch, a: &[f32], b: &[f32]) -> (f32, f32) {
    arch.dispatch(Nearly(a, b))
}

pub(super) fn product(arch: Arch, a: &[f32], b: &[f32]) -> f64 {
    arch.dispatch(Product(a, b))
}

/// Of both, and of `b` with itself.
pub(super) fn product_and_square(arch: Arch, a: &[f32], b: &[f32]) -> (f64, f64) {
    arch.dispatch(ProductAndSquare(a, b))
}

/// The square of the distance.
pub(super) fn distance(arch: Arch, a: &[f32], b: &[f32]) -> f64 {
    arch.dispatch(Distance(a, b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn estimate(arch: Arch, query: &[i16], codes: &[i8], numbers: &[f32]) -> (Vec<u32>, Vec<u32>) {
        let count = numbers.len();
        let (mut middle, mut reach) = (vec![0.0; count], vec![0.0; count]);
        let rows = Block { codes, scales: numbers, errors: numbers, offsets: numbers };
        let (middle_mut, reach_mut) = (&mut middle[..], &mut reach[..]);
        arch.dispatch(Estimate {
            query,
            step: 0.37,
            base: -1.3,
            per_error: 0.7,
            per_scale: 0.1,
            slack: 1e-5,
            rows,
            middle: middle_mut,
            reach: reach_mut,
        });
        let bits = |numbers: Vec<f32>| numbers.into_iter().map(f32::to_bits).collect();
        (bits(middle), bits(reach))
    }

    proptest! {
        /// What runs without any of the processor's extras gives the same bits.
        #[test]
        fn all_processors_agree(
            (a, b) in (1..70_usize).prop_flat_map(|dim| {
                (prop::collection::vec(-2.0_f32..2.0, dim), prop::collection::vec(-2.0_f32..2.0, dim))
            }),
            query in prop::collection::vec(any::<i16>(), 1..50), rows in 1..20_usize, numbers in prop::collection::vec(0.0_f32..1.0, 20),
        ) {
            let here = Arch::new();
            prop_assert_eq!(product(here, &a, &b).to_bits(), product(Arch::Scalar, &a, &b).to_bits());
            prop_assert_eq!(distance(here, &a, &b).to_bits(), distance(Arch::Scalar, &a, &b).to_bits());
            prop_assert_eq!(product_and_square(here, &a, &b), (product(here, &a, &b), product(here, &b, &b)));
            let nearly = product_and_distance(here, &a, &b);
            prop_assert_eq!(nearly, product_and_distance(Arch::Scalar, &a, &b));
            let lengths = (product(here, &a, &a) * product(here, &b, &b)).sqrt();
            let square = distance(here, &a, &b);
            prop_assert!((f64::from(nearly.0) - product(here, &a, &b)).abs() <= 2e-6 * lengths);
            prop_assert!((f64::from(nearly.1) - square).abs() <= 2e-6 * square);
            let codes: Vec<i8> = (0..rows * query.len()).map(|index| (index * 37 % 251) as u8 as i8).collect();
            let numbers = &numbers[..rows];
            prop_assert_eq!(estimate(here, &query, &codes, numbers), estimate(Arch::Scalar, &query, &codes, numbers));
        }
    }
}
