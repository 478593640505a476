//! The nearest of many centres, where a near one is known.
//!
//! Over some of the dimensions the square of a distance is at most what it is over all. So whatever is farther over these
//! than a centre that is known is over all, is not the nearest; where rows lie in clusters, that is nearly all centres.

use pulp::{Arch, Simd, WithSimd};

use super::kmeans::{Centres, GROUP, ROWS, products};
use super::simd;

/// Eighths of the dimensions that are compared with all centres.
const FIRST: usize = 3;
/// Where one centre in so many is left, all are compared in full: that is faster in a row.
const LEFT: usize = 16;

pub(super) struct Nearer<'a> {
    /// All of them.
    whole: Centres,
    /// Their first dimensions.
    first: Centres,
    centres: &'a [f32],
    dim: usize,
}

impl<'a> Nearer<'a> {
    pub fn new(dim: usize, centres: &'a [f32]) -> Nearer<'a> {
        let few = (dim * FIRST).div_ceil(8);
        let first: Vec<f32> = centres.chunks_exact(dim).flat_map(|centre| &centre[..few]).copied().collect();
        Nearer { whole: Centres::new(dim, centres), first: Centres::new(few, &first), centres, dim }
    }

    /// Of each of the rows, the nearest; `known` has one of each.
    pub fn nearest(&self, arch: Arch, rows: &[f32], known: &[u32]) -> Vec<u32> {
        let mut nearest = Vec::with_capacity(known.len());
        for (rows, known) in rows.chunks(ROWS * self.dim).zip(known.chunks(ROWS)) {
            let centre = |number: u32| &self.centres[number as usize * self.dim..][..self.dim];
            let row = |number: usize| &rows[number * self.dim..][..self.dim];
            let mut best: Vec<(f64, u32)> =
                (0..).zip(known).map(|(at, &known)| (simd::distance(arch, row(at), centre(known)), known)).collect();
            let mut left = Vec::new();
            arch.dispatch(Left { nearer: self, rows, limits: &best, left: &mut left });
            if left.len() > best.len() * self.whole.len() / LEFT {
                self.whole.nearest(arch, rows, &mut nearest);
                continue;
            }
            for (at, number) in left {
                let far = simd::distance(arch, row(at), centre(number));
                if far < best[at].0 {
                    best[at] = (far, number);
                }
            }
            nearest.extend(best.iter().map(|(_, number)| *number));
        }
        nearest
    }
}

/// Finds the centres that are not farther from a row over the first dimensions than its limit.
struct Left<'a> {
    nearer: &'a Nearer<'a>,
    rows: &'a [f32],
    limits: &'a [(f64, u32)],
    left: &'a mut Vec<(usize, u32)>,
}

impl WithSimd for Left<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Nearer { first, dim, .. } = self.nearer;
        let last = self.limits.len() - 1;
        let row = |number: usize| &self.rows[number.min(last) * dim..][..first.dim];
        let rows = [row(0), row(1), row(2), row(3)];
        // As `Centres` has it: half the square of the distance, less half that of the row.
        let limit = |number: usize| {
            let square: f32 = rows[number].iter().map(|x| x * x).sum();
            (self.limits[number.min(last)].0 as f32 - square) / 2.0
        };
        let limits = [limit(0), limit(1), limit(2), limit(3)];
        for (number, (group, halves)) in first.groups().enumerate() {
            let products = products(group, rows);
            for (at, (products, limit)) in products.iter().zip(limits).enumerate().take(last + 1) {
                let mut is_left = [false; GROUP];
                for member in 0..GROUP {
                    is_left[member] = halves[member] - products[member] <= limit;
                }
                if is_left.iter().fold(false, |any, left| any | left) {
                    let members = (0..GROUP).filter(|member| is_left[*member]);
                    self.left.extend(members.map(|member| (at, (number * GROUP + member) as u32)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is known first, and however far apart the centres are.
        #[test]
        fn it_is_the_nearest(
            (dim, rows, centres) in (1..20_usize).prop_flat_map(|dim| {
                let numbers = move |count| prop::collection::vec(-2.0_f32..2.0, dim * count);
                (Just(dim), (1..10_usize).prop_flat_map(numbers), (1..60_usize).prop_flat_map(numbers))
            }),
            apart in prop_oneof![Just(0.0_f32), Just(1.0), Just(9.0)], known in any::<prop::sample::Index>(),
        ) {
            let centres: Vec<f32> = centres.iter().map(|x| x * apart).collect();
            let arch = Arch::new();
            let known = vec![known.index(centres.len() / dim) as u32; rows.len() / dim];
            let found = Nearer::new(dim, &centres).nearest(arch, &rows, &known);
            prop_assert_eq!(found.len(), known.len());
            for (row, found) in rows.chunks_exact(dim).zip(found) {
                let far = |centre: &[f32]| simd::distance(arch, row, centre);
                let least = centres.chunks_exact(dim).map(far).fold(f64::INFINITY, f64::min);
                prop_assert!(far(&centres[found as usize * dim..][..dim]) <= least * (1.0 + 1e-5) + 1e-5);
            }
        }
    }
}
