//! Centres for cells: Lloyd's k-means over a sample, the same for the same rows.
//!
//! The time goes into comparing rows with centres. Centres lie in groups of 16, one dimension after the other, so that
//! 16 sums grow side by side and none is added up across; four rows share what is read of a group.

use pulp::{Arch, Simd, WithSimd};

use super::simd;
use crate::hands::{Hands, PIECE, in_pieces};

pub(super) const GROUP: usize = 16;
pub(super) const ROWS: usize = 4;

/// Rounds over the sample, and how many of them at the end do not move centres across.
const ROUNDS: usize = 7;
const CALM: usize = 3;

/// Rows of the sample: as many for each centre, and more where that is not much.
const SAMPLE: usize = 24;
const SAMPLE_MORE: usize = 40;
const SAMPLE_ENOUGH: usize = 50_000;

pub(super) struct Centres {
    pub dim: usize,
    count: usize,
    /// Group, dimension, member; the last group is filled up with centres that no row is near.
    groups: Vec<f32>,
    /// Half the square of each centre's length.
    halves: Vec<f32>,
}

impl Centres {
    pub fn new(dim: usize, centres: &[f32]) -> Centres {
        let count = centres.len() / dim;
        let mut groups = vec![0.0; count.div_ceil(GROUP) * GROUP * dim];
        let mut halves = vec![f32::INFINITY; count.div_ceil(GROUP) * GROUP];
        for (number, centre) in centres.chunks_exact(dim).enumerate() {
            let (group, member) = (number / GROUP, number % GROUP);
            for (dimension, &x) in centre.iter().enumerate() {
                groups[(group * dim + dimension) * GROUP + member] = x;
            }
            halves[number] = centre.iter().map(|x| x * x).sum::<f32>() / 2.0;
        }
        Centres { dim, count, groups, halves }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// Of each group: dimension by dimension its members, and the halves.
    #[inline(always)]
    pub fn groups(&self) -> impl Iterator<Item = (&[[f32; GROUP]], &[f32; GROUP])> {
        let groups = self.groups.chunks_exact(self.dim * GROUP).map(|group| group.as_chunks::<GROUP>().0);
        groups.zip(self.halves.as_chunks::<GROUP>().0)
    }

    /// Of each of the rows, which lie one after the other, the nearest centre; of two as near, the first.
    pub fn nearest(&self, arch: Arch, rows: &[f32], nearest: &mut Vec<u32>) {
        arch.dispatch(Nearest { centres: self, rows, nearest });
    }
}

struct Nearest<'a> {
    centres: &'a Centres,
    rows: &'a [f32],
    nearest: &'a mut Vec<u32>,
}

impl WithSimd for Nearest<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let dim = self.centres.dim;
        for rows in self.rows.chunks(ROWS * dim) {
            // Where fewer than four are left, the last is compared again.
            let last = rows.len() / dim - 1;
            let row = |number: usize| &rows[number.min(last) * dim..][..dim];
            let best = nearest_of(self.centres, [row(0), row(1), row(2), row(3)]);
            self.nearest.extend_from_slice(&best[..=last]);
        }
    }
}

#[inline(always)]
fn nearest_of(centres: &Centres, rows: [&[f32]; ROWS]) -> [u32; ROWS] {
    let mut least = [[f32::INFINITY; GROUP]; ROWS];
    let mut group_of = [[0_u32; GROUP]; ROWS];
    for (number, (group, halves)) in (0..).zip(centres.groups()) {
        let products = products(group, rows);
        for row in 0..ROWS {
            for member in 0..GROUP {
                // Half the square of the distance, less what all centres have in common.
                let far = halves[member] - products[row][member];
                let nearer = far < least[row][member];
                least[row][member] = if nearer { far } else { least[row][member] };
                group_of[row][member] = if nearer { number } else { group_of[row][member] };
            }
        }
    }
    let mut best = [0; ROWS];
    for row in 0..ROWS {
        let number = |member: usize| group_of[row][member] * GROUP as u32 + member as u32;
        let order = |a: &usize, b: &usize| least[row][*a].total_cmp(&least[row][*b]).then(number(*a).cmp(&number(*b)));
        best[row] = number((0..GROUP).min_by(order).expect("a group has members"));
    }
    best
}

/// Of each row with each member of a group. Written out row by row: so the sums stay in registers.
#[inline(always)]
pub(super) fn products(members: &[[f32; GROUP]], rows: [&[f32]; ROWS]) -> [[f32; GROUP]; ROWS] {
    let dim = members.len();
    let [a, b, c, d] = rows.map(|row| &row[..dim]);
    let (mut of_a, mut of_b, mut of_c, mut of_d) = ([0.0; GROUP], [0.0; GROUP], [0.0; GROUP], [0.0; GROUP]);
    for i in 0..dim {
        let (member, a, b, c, d) = (members[i], a[i], b[i], c[i], d[i]);
        for lane in 0..GROUP {
            of_a[lane] += a * member[lane];
        }
        for lane in 0..GROUP {
            of_b[lane] += b * member[lane];
        }
        for lane in 0..GROUP {
            of_c[lane] += c * member[lane];
        }
        for lane in 0..GROUP {
            of_d[lane] += d * member[lane];
        }
    }
    [of_a, of_b, of_c, of_d]
}

/// A sequence of numbers that looks like chance and is the same each time (splitmix64).
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(mixed ^ (mixed >> 31)) * bound as u128) >> 64) as usize
    }
}

/// `count` centres of `rows` rows, of which `row` appends one to a matrix.
pub(super) fn train(
    dim: usize,
    rows: usize,
    count: usize,
    row: impl Fn(usize, &mut Vec<f32>),
    hands: Hands,
) -> Vec<f32> {
    let mut chance = Sequence(rows as u64);
    let sampled = rows.min((SAMPLE * count).max(SAMPLE_ENOUGH.min(SAMPLE_MORE * count)));
    let mut sample = Vec::with_capacity(sampled * dim);
    // One of each of so many equal stretches.
    for stretch in 0..sampled {
        let (start, end) = (stretch * rows / sampled, (stretch + 1) * rows / sampled);
        row(start + chance.below(end - start), &mut sample);
    }
    let mut centres = Vec::with_capacity(count * dim);
    for stretch in 0..count {
        let (start, end) = (stretch * sampled / count, (stretch + 1) * sampled / count);
        let chosen = start + chance.below(end - start);
        centres.extend_from_slice(&sample[chosen * dim..][..dim]);
    }
    let arch = Arch::new();
    for round in 0..ROUNDS {
        let grouped = Centres::new(dim, &centres);
        let nearest = in_pieces(hands, PIECE, sampled, |range| {
            let mut nearest = Vec::with_capacity(range.len());
            grouped.nearest(arch, &sample[range.start * dim..range.end * dim], &mut nearest);
            nearest
        });
        let spreads = move_to_means(dim, &sample, &nearest, &mut centres);
        if round + CALM < ROUNDS {
            move_across(dim, &sample, &nearest, &spreads, &mut centres);
        }
    }
    centres
}

/// Each centre goes to the mean of its rows. What comes back is the sum of the squares of their distances from it.
fn move_to_means(dim: usize, sample: &[f32], nearest: &[u32], centres: &mut [f32]) -> Vec<f64> {
    let count = centres.len() / dim;
    let mut sums = vec![0.0_f64; centres.len()];
    let (mut members, mut spreads) = (vec![0_u32; count], vec![0.0; count]);
    for (row, &centre) in sample.chunks_exact(dim).zip(nearest) {
        members[centre as usize] += 1;
        let sum = &mut sums[centre as usize * dim..][..dim];
        sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    for (centre, members) in members.iter().enumerate().filter(|(_, members)| **members > 0) {
        let own = centre * dim..(centre + 1) * dim;
        centres[own.clone()].iter_mut().zip(&sums[own]).for_each(|(x, sum)| *x = (sum / f64::from(*members)) as f32);
    }
    let arch = Arch::new();
    for (row, &centre) in sample.chunks_exact(dim).zip(nearest) {
        spreads[centre as usize] += simd::distance(arch, row, &centres[centre as usize * dim..][..dim]);
    }
    spreads
}

/// Centres whose rows spread least go to a row of those whose rows spread most: the former share a cluster with another
/// centre, or have no rows, and the latter have several clusters. Only so far as each is a fourth of the other at most.
fn move_across(dim: usize, sample: &[f32], nearest: &[u32], spreads: &[f64], centres: &mut [f32]) {
    let mut order: Vec<usize> = (0..spreads.len()).collect();
    order.sort_unstable_by(|a, b| spreads[*a].total_cmp(&spreads[*b]).then(a.cmp(b)));
    let (starts, rows) = by_number(nearest, spreads.len());
    for (&poor, &rich) in order.iter().zip(order.iter().rev()).take(order.len() / 4) {
        let of_rich = &rows[starts[rich] as usize..starts[rich + 1] as usize];
        if 4.0 * spreads[poor] >= spreads[rich] || of_rich.is_empty() {
            break;
        }
        let chosen = of_rich[of_rich.len() / 2] as usize;
        centres[poor * dim..][..dim].copy_from_slice(&sample[chosen * dim..][..dim]);
    }
}

/// Where each number starts, and the places that have it, in the order of numbers.
pub(super) fn by_number(numbers: &[u32], bound: usize) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0; bound + 1];
    numbers.iter().for_each(|number| starts[*number as usize + 1] += 1);
    (0..bound).for_each(|number| starts[number + 1] += starts[number]);
    let (mut next, mut order) = (starts.clone(), vec![0; numbers.len()]);
    for (place, number) in (0..).zip(numbers) {
        order[next[*number as usize] as usize] = place;
        next[*number as usize] += 1;
    }
    (starts, order)
}
