//! The rows that may still be among the k best.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::query::Query;
use super::{Hit, Source};

pub(super) struct Shortlist {
    k: usize,
    /// The k highest lower bounds, the least on top.
    lowers: BinaryHeap<Reverse<i32>>,
    /// The least of them once there are k: a row whose upper bound is below is not among the k best.
    floor: f32,
    candidates: Vec<Candidate>,
    /// When to look whether candidates have fallen below the floor.
    prune_at: usize,
}

#[derive(Clone, Copy)]
struct Candidate {
    upper: f32,
    source: u32,
    position: u32,
}

impl Shortlist {
    pub fn new(k: usize) -> Shortlist {
        let floor = if k == 0 { f32::INFINITY } else { f32::NEG_INFINITY };
        Shortlist { k, lowers: BinaryHeap::new(), floor, candidates: Vec::new(), prune_at: 1024 }
    }

    pub fn is_full(&self) -> bool {
        self.lowers.len() >= self.k
    }

    pub fn k(&self) -> usize {
        self.k
    }

    /// A row below it is not among the k best.
    pub fn floor(&self) -> f32 {
        self.floor
    }

    /// Whether a row with this estimate may still be among the best. Not a number means that nothing is known.
    #[inline(always)]
    pub fn wants(&self, middle: f32, reach: f32) -> bool {
        let upper = middle + reach;
        upper >= self.floor || upper.is_nan()
    }

    /// A row that is wanted, and visible.
    pub fn offer(&mut self, middle: f32, reach: f32, source: usize, position: usize) {
        let upper = if (middle + reach).is_nan() { f32::INFINITY } else { middle + reach };
        let lower = if (middle - reach).is_nan() { f32::NEG_INFINITY } else { middle - reach };
        self.candidates.push(Candidate { upper, source: source as u32, position: position as u32 });
        if self.lowers.len() < self.k {
            self.lowers.push(Reverse(ordered(lower)));
        } else if lower > self.floor
            && let Some(mut least) = self.lowers.peek_mut()
        {
            *least = Reverse(ordered(lower));
        }
        if self.is_full()
            && let Some(Reverse(least)) = self.lowers.peek()
        {
            self.floor = unordered(*least);
        }
        if self.candidates.len() >= self.prune_at {
            self.prune();
            self.prune_at = 2 * self.candidates.len().max(512);
        }
    }

    fn prune(&mut self) {
        let floor = self.floor;
        self.candidates.retain(|candidate| candidate.upper >= floor);
    }

    /// Score the candidates, from the most promising on, until the rest cannot be among the best.
    pub fn settle(mut self, query: &Query, sources: &[Source]) -> Vec<Hit> {
        self.prune();
        self.candidates.sort_unstable_by(|a, b| {
            b.upper.total_cmp(&a.upper).then((a.source, a.position).cmp(&(b.source, b.position)))
        });
        let mut best: BinaryHeap<Reverse<i64>> = BinaryHeap::new();
        let (mut hits, mut room) = (Vec::new(), Vec::new());
        for candidate in self.candidates {
            if best.len() == self.k
                && best.peek().is_some_and(|Reverse(least)| *least > ordered_f64(candidate.upper.into()))
            {
                break;
            }
            let (source, position) = (candidate.source as usize, candidate.position as usize);
            let rows = sources[source].index.rows();
            let (value, score) = rows.kept.with(position, &mut room, |vector| query.score(vector));
            hits.push(Hit { source, slot: rows.slots[position], score });
            best.push(Reverse(ordered_f64(value)));
            if best.len() > self.k {
                best.pop();
            }
        }
        let key = |hit: &Hit| sources[hit.source].keys.key(hit.slot);
        hits.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then_with(|| key(a).cmp(key(b))));
        hits.truncate(self.k);
        hits
    }
}

/// An integer in whose order floats are.
fn ordered(number: f32) -> i32 {
    let bits = number.to_bits() as i32;
    bits ^ (((bits >> 31) as u32) >> 1) as i32
}

fn unordered(bits: i32) -> f32 {
    f32::from_bits((bits ^ (((bits >> 31) as u32) >> 1) as i32) as u32)
}

fn ordered_f64(number: f64) -> i64 {
    let bits = number.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}
