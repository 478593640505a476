//! The best documents, of several indexes as of one.
//!
//! Two passes: the first collects the visible rows of every clause from every source, whose number is how rare the clause
//! is; the second adds up what they contribute, source by source and window by window. No posting is hashed or sorted, and
//! none is copied where all are visible. The best are kept in a heap, and most documents only see that its floor is above them.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::RangeInclusive;

use crate::sight::{Blocks, Keys, Sight};

use super::matches::{Matches, Rows};
use super::postings::{Mark, TextIndex};
use super::query::{Occur, Query};
use super::score::{Norm, Scoring, Stats, Term, Weights, idf};
use super::window::{Marks, Scores, Window};

/// An index and what is seen of it. `sight.from` and `sight.to` have an entry for each slot of the index at least.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub index: TextIndex<'a>,
    pub sight: Sight<'a>,
    /// Of the same rows as `sight`, where they are kept.
    pub blocks: Option<&'a Blocks>,
    pub keys: &'a dyn Keys,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Hits {
    /// Best first; equal ones by their keys.
    pub hits: Vec<Hit>,
    /// How many visible documents fit the query and pass the filter.
    pub matched: u64,
    /// The score of the best that is not among the hits.
    pub cut: Option<f64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Which of the sources, and where there.
    pub source: usize,
    pub slot: u32,
    pub score: f64,
    /// Its length in terms.
    pub length: u32,
    /// What each clause that it has contributed, in their order: the score is their sum. Empty unless it was asked for.
    pub terms: Vec<TermScore>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TermScore {
    /// Its number in `Query::clauses`.
    pub clause: usize,
    /// How many visible documents have it.
    pub documents: u64,
    pub idf: f64,
    /// How often this one has it, by the weights of the fields.
    pub tf: f64,
    pub contribution: f64,
}

/// Count the visible documents and their words. Costs a look at every slot: worth keeping, and adding up by the caller.
pub fn stats(sources: &[Source]) -> Stats {
    let mut stats = Stats::default();
    for source in sources {
        for (block, lengths) in source.index.lengths().chunks(64).enumerate() {
            // A length of 0 is no document; that of a row which is not seen counts as one.
            let whole = source.sees_all(block..=block);
            let seen = |slot: usize| whole || source.sight.sees((block * 64 + slot) as u32);
            let length = |(slot, length): (usize, &u32)| if seen(slot) { *length } else { 0 };
            for length in lengths.iter().enumerate().map(length) {
                stats.documents += u64::from(length > 0);
                stats.length += u64::from(length);
            }
        }
    }
    stats
}

/// Room that is kept between searches, so that none allocates or clears what it does not touch.
#[derive(Default)]
pub struct Scratch {
    matches: Matches,
    window: Option<Box<Window>>,
}

/// The `k` best of the documents that fit `query`. `stats` are those of the same sources.
pub fn search(
    query: &Query,
    sources: &[Source],
    stats: &Stats,
    scoring: &Scoring,
    k: usize,
    explain: bool,
    scratch: &mut Scratch,
) -> Hits {
    // Both are taken, so that what a panic leaves in the middle is not met again.
    let mut matches = std::mem::take(&mut scratch.matches);
    let mut window = scratch.window.take().unwrap_or_else(Window::new);
    let weights = scoring.weights();
    let rows: Vec<Vec<Rows>> = sources.iter().map(|source| source.rows(query, &weights, &mut matches)).collect();
    let norm = Norm::new(scoring, stats);
    let term = |clause: usize| {
        let documents: usize = rows.iter().map(|rows| rows[clause].len()).sum();
        norm.term(idf(stats.documents, documents as u64), documents, weights.of(0))
    };
    let terms: Vec<Term> = (0..query.clauses().len()).map(term).collect();
    let mut best = Best::new(k);
    for (number, (source, rows)) in sources.iter().zip(&rows).enumerate() {
        Pass { query, source, number, matches: &matches, rows, terms: &terms }.run(&mut window, &mut best);
    }
    let mut hits = best.finish(sources);
    if explain {
        hits.hits.iter_mut().for_each(|hit| hit.terms = why(query, hit, &rows[hit.source], &terms, &matches));
    }
    matches.clear();
    *scratch = Scratch { matches, window: Some(window) };
    hits
}

impl<'a> Source<'a> {
    /// Whether all rows of these blocks of 64 are seen. False says nothing.
    pub(super) fn sees_all(&self, blocks: RangeInclusive<usize>) -> bool {
        self.blocks.is_some_and(|of| of.see(self.sight.at, blocks.clone()))
            && !self.sight.hidden.is_some_and(|hidden| hidden.has_any(blocks))
    }

    /// Those of each clause.
    fn rows(&self, query: &Query, weights: &Weights, matches: &mut Matches) -> Vec<Rows<'a>> {
        query.clauses().iter().map(|clause| matches.collect(self, clause, weights)).collect()
    }
}

fn why(query: &Query, hit: &Hit, rows: &[Rows], terms: &[Term], matches: &Matches) -> Vec<TermScore> {
    let clauses = query.clauses().iter().zip(rows).zip(terms).enumerate();
    let scored = clauses.filter(|(_, ((clause, _), _))| clause.occur != Occur::Not);
    let score = |(clause, ((_, rows), term)): (usize, ((_, &Rows), &Term))| {
        let tf = matches.count(rows, hit.slot);
        let contribution = term.contribution(tf, hit.length);
        (tf > 0.0).then_some(TermScore { clause, documents: term.documents, idf: term.idf, tf, contribution })
    };
    scored.filter_map(score).collect()
}

/// The second pass over one source.
struct Pass<'a, 's> {
    query: &'a Query,
    source: &'a Source<'s>,
    number: usize,
    matches: &'a Matches,
    rows: &'a [Rows<'a>],
    terms: &'a [Term],
}

impl<'s> Pass<'_, 's> {
    fn run(&self, window: &mut Window, best: &mut Best<'s>) {
        let clauses = self.query.clauses();
        let checked = clauses.iter().any(|clause| clause.occur != Occur::Should);
        let needed = clauses.iter().filter(|clause| clause.occur == Occur::Must).count() as u32;
        let mut taken = vec![0; clauses.len()];
        while let Some(begin) = self.next(&taken) {
            if checked {
                self.mark(&mut window.marks, begin, &mut taken);
            }
            self.add(&mut window.scores, begin, &mut taken);
            if checked || self.source.sight.only.is_some() {
                let marks = &window.marks;
                self.select(&mut window.scores, begin, best, |at| !checked || marks.fit(at, needed));
                window.marks.forget();
            } else {
                self.select_of_all(&mut window.scores, begin, best);
            }
        }
    }

    /// The next slot of any clause.
    fn next(&self, taken: &[usize]) -> Option<u32> {
        let next = |(rows, taken): (&Rows, &usize)| self.matches.slots(rows).get(*taken).copied();
        self.rows.iter().zip(taken).filter_map(next).min()
    }

    /// Those that must not be there are done with it.
    fn mark(&self, marks: &mut Marks, begin: u32, taken: &mut [usize]) {
        for ((clause, rows), taken) in self.query.clauses().iter().zip(self.rows).zip(taken) {
            let noted = marks.note(begin, &self.matches.slots(rows)[*taken..], clause.occur);
            if clause.occur == Occur::Not {
                *taken += noted;
            }
        }
    }

    fn add(&self, scores: &mut Scores, begin: u32, taken: &mut [usize]) {
        let lengths = &self.source.index.lengths()[begin as usize..];
        let clauses = self.query.clauses().iter().zip(self.terms).zip(self.rows).zip(taken);
        for (((_, term), rows), taken) in clauses.filter(|(((clause, _), _), _)| clause.occur != Occur::Not) {
            let slots = &self.matches.slots(rows)[*taken..];
            let (once, unit) = (term.once(), term.unit);
            // The table is asked first: most rows have a word once.
            let of = |is_one: bool, count: f64, length: u32| match once.get(length as usize) {
                Some(contribution) if is_one => *contribution,
                _ => term.contribution(count, length),
            };
            *taken += match rows {
                Rows::Listed { marks, .. } => {
                    scores.add(begin, slots, &marks[*taken..], lengths, |mark: Mark, length| {
                        of(mark == Mark::ONCE, unit * f64::from(mark.count()), length)
                    })
                }
                Rows::Kept(range) => {
                    let counts = &self.matches.kept(range).1[*taken..];
                    scores.add(begin, slots, counts, lengths, |count, length| of(count == unit, count, length))
                }
            };
        }
    }

    fn select(&self, scores: &mut Scores, begin: u32, best: &mut Best<'s>, fits: impl Fn(u32) -> bool) {
        scores.drain(|at, score| {
            if fits(at) && self.source.sight.admits(begin + at) {
                best.matched += 1;
                self.offer(begin + at, score, best);
            }
        });
    }

    fn select_of_all(&self, scores: &mut Scores, begin: u32, best: &mut Best<'s>) {
        best.matched += scores.len() as u64;
        let mut floor = best.floor;
        scores.drain(|at, score| {
            if score >= floor {
                self.offer(begin + at, score, best);
                floor = best.floor;
            }
        });
    }

    fn offer(&self, slot: u32, score: f64, best: &mut Best<'s>) {
        if score >= best.floor {
            let key = self.source.keys.key(slot);
            best.offer(Candidate { score, key, source: self.number, slot });
        }
    }
}

/// The best so far and one more, whose score is the cut.
struct Best<'a> {
    room: usize,
    heap: BinaryHeap<Candidate<'a>>,
    /// What is below is not wanted.
    floor: f64,
    matched: u64,
}

impl<'a> Best<'a> {
    fn new(k: usize) -> Best<'a> {
        Best { room: k.saturating_add(1), heap: BinaryHeap::new(), floor: 0.0, matched: 0 }
    }

    fn offer(&mut self, candidate: Candidate<'a>) {
        if self.heap.len() < self.room {
            self.heap.push(candidate);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && candidate < *worst
        {
            *worst = candidate;
        }
        if self.heap.len() == self.room {
            self.floor = self.heap.peek().map_or(0.0, |worst| worst.score);
        }
    }

    fn finish(self, sources: &[Source]) -> Hits {
        let (full, matched) = (self.heap.len() == self.room, self.matched);
        let mut best = self.heap.into_sorted_vec();
        let cut = if full { best.pop().map(|candidate| candidate.score) } else { None };
        let hits = best.into_iter().map(|Candidate { score, source, slot, .. }| {
            let length = sources[source].index.length(slot);
            Hit { source, slot, score, length, terms: Vec::new() }
        });
        Hits { hits: hits.collect(), matched, cut }
    }
}

struct Candidate<'a> {
    score: f64,
    key: &'a [u8],
    source: usize,
    slot: u32,
}

/// Less is better.
impl Ord for Candidate<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_score = other.score.total_cmp(&self.score).then_with(|| self.key.cmp(other.key));
        by_score.then_with(|| (self.source, self.slot).cmp(&(other.source, other.slot)))
    }
}

impl PartialOrd for Candidate<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate<'_> {}
