//! Scores of a stretch of slots.
//!
//! A search goes through a source window by window: what every clause adds to a window is small enough to stay in the
//! nearest cache, where the scores of a whole source would not (Lucene does the same). The loops here run once for every
//! posting; they are written so that each step is a few instructions without a branch that could go either way.

use super::query::Occur;

const WINDOW: usize = 2048;
/// One more, and a power of two.
const TOUCHED: usize = 2 * WINDOW;

/// The two tables of a window; all 0 between windows.
pub(super) struct Window {
    pub scores: Scores,
    pub marks: Marks,
}

impl Window {
    pub fn new() -> Box<Window> {
        let scores = Scores { scores: [0.0; WINDOW], touched: [0; TOUCHED], found: 0 };
        Box::new(Window { scores, marks: Marks { musts: [0; WINDOW] } })
    }
}

pub(super) struct Scores {
    scores: [f64; WINDOW],
    /// Which have one.
    touched: [u16; TOUCHED],
    found: usize,
}

impl Scores {
    /// How many rows have one.
    pub fn len(&self) -> usize {
        self.found
    }

    /// Add what a term contributes to rows from `begin` on, whose lengths are `lengths`; `counts` say how often each of
    /// `slots` has it. Returns how many of them lie in the window: they come first.
    #[inline]
    pub fn add<C: Copy>(
        &mut self,
        begin: u32,
        slots: &[u32],
        counts: &[C],
        lengths: &[u32],
        contribution: impl Fn(C, u32) -> f64,
    ) -> usize {
        let inside = lengths.len().min(WINDOW);
        let (lengths, scores) = (&lengths[..inside], &mut self.scores[..inside]);
        let (mut found, mut taken) = (self.found, 0);
        for (slot, count) in slots.iter().zip(counts) {
            let at = (slot - begin) as usize;
            if at >= inside {
                break;
            }
            let score = &mut scores[at];
            self.touched[found % TOUCHED] = at as u16;
            found += usize::from(score.to_bits() == 0);
            *score += contribution(*count, lengths[at]);
            taken += 1;
        }
        self.found = found;
        taken
    }

    /// Call `each` with the score of every row that has one, and set it to 0.
    #[inline]
    pub fn drain(&mut self, mut each: impl FnMut(u32, f64)) {
        for &at in &self.touched[..self.found] {
            each(at.into(), std::mem::take(&mut self.scores[usize::from(at) % WINDOW]));
        }
        self.found = 0;
    }
}

/// Who has the clauses that must be there, and none that must not.
pub(super) struct Marks {
    /// How many it has of the former; if it has one of the latter, an impossible number.
    musts: [u32; WINDOW],
}

impl Marks {
    /// Note who has a clause, as far as they lie in the window. Returns how many do: they come first.
    pub fn note(&mut self, begin: u32, slots: &[u32], occur: Occur) -> usize {
        let inside = slots.partition_point(|slot| ((slot - begin) as usize) < WINDOW);
        for slot in &slots[..inside] {
            let musts = &mut self.musts[(slot - begin) as usize];
            match occur {
                Occur::Must => *musts = musts.saturating_add(1),
                Occur::Not => *musts = u32::MAX,
                Occur::Should => {}
            }
        }
        inside
    }

    pub fn fit(&self, at: u32, needed: u32) -> bool {
        self.musts[at as usize] == needed
    }

    pub fn forget(&mut self) {
        self.musts = [0; WINDOW];
    }
}
