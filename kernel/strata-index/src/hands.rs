//! Work that can be done side by side, by whoever asks: this crate starts no threads.

use std::ops::Range;
use std::sync::OnceLock;

/// Calls its second argument with each number below the first, in any order, and returns when all are done.
pub type Hands<'a> = &'a dyn Fn(usize, &(dyn Fn(usize) + Sync));

/// One after the other.
pub fn alone(pieces: usize, work: &(dyn Fn(usize) + Sync)) {
    (0..pieces).for_each(work);
}

/// So many rows: to hand them over costs nothing, and all have something to do to the end.
pub(crate) const PIECE: usize = 2048;

/// What `part` makes of the numbers below `count`, so many at a time: the same however many hands there are.
pub(crate) fn in_pieces<T: Send + Sync>(
    hands: Hands,
    piece: usize,
    count: usize,
    part: impl Fn(Range<usize>) -> Vec<T> + Sync,
) -> Vec<T> {
    let pieces: Vec<OnceLock<Vec<T>>> = (0..count.div_ceil(piece)).map(|_| OnceLock::new()).collect();
    hands(pieces.len(), &|number| {
        let start = number * piece;
        let _ = pieces[number].set(part(start..count.min(start + piece)));
    });
    pieces.into_iter().flat_map(|piece| piece.into_inner().expect("hands do each piece")).collect()
}

#[cfg(test)]
mod tests {
    use super::{PIECE, alone, in_pieces};

    #[test]
    fn pieces_are_the_whole_in_any_order() {
        let backwards = |pieces: usize, work: &(dyn Fn(usize) + Sync)| (0..pieces).rev().for_each(work);
        for count in [0, 1, PIECE - 1, PIECE, 3 * PIECE + 7] {
            let whole: Vec<usize> = (0..count).collect();
            assert_eq!(in_pieces(&alone, PIECE, count, Iterator::collect), whole);
            assert_eq!(in_pieces(&backwards, PIECE, count, Iterator::collect), whole);
        }
    }
}
