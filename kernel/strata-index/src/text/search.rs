//! The best documents, of several indexes as of one.
//!
//! Two passes: the first collects the visible rows of every clause from every source, whose number is how rare the clause
//! is; the second adds up what they contribute, source by source, in an array with a place for each slot. No posting is
//! hashed or sorted. The best are kept in a heap, and most documents only see that its floor is above them.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

use crate::sight::{Keys, Sight};

use super::matches::Matches;
use super::postings::TextIndex;
use super::query::{Clause, Occur, Query};
use super::score::{Norm, Scoring, Stats, idf};

/// An index and what is seen of it. `sight.from` and `sight.to` have an entry for each slot of the index at least.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub index: TextIndex<'a>,
    pub sight: Sight<'a>,
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
        for (slot, &length) in source.index.lengths().iter().enumerate() {
            if length > 0 && source.sight.sees(slot as u32) {
                stats.documents += 1;
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
    /// Of each source and clause its rows among the matches.
    ranges: Vec<Range<usize>>,
    /// By slot; all 0 between searches.
    scores: Vec<f64>,
    /// By slot, how many of the clauses that must be there were; all 0 between searches.
    musts: Vec<u32>,
    touched: Vec<u32>,
    /// Whether a search was left in the middle.
    dirty: bool,
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
    if std::mem::replace(&mut scratch.dirty, true) {
        *scratch = Scratch { dirty: true, ..Scratch::default() };
    }
    let count = query.clauses().len();
    scratch.collect(query, sources, scoring);
    let having: Vec<u64> = (0..count)
        .map(|clause| scratch.ranges.iter().skip(clause).step_by(count).map(|r| r.len() as u64).sum())
        .collect();
    let idfs: Vec<f64> = having.iter().map(|having| idf(stats.documents, *having)).collect();
    let norm = Norm::new(scoring, stats);
    let mut best = Best::new(k);
    for (number, source) in sources.iter().enumerate() {
        let found = scratch.add_up(query, source, number, &idfs, &norm);
        scratch.select(query, source, number, found, &mut best);
    }
    let mut hits = best.finish(sources);
    if explain {
        for hit in &mut hits.hits {
            hit.terms = scratch.explain(query, hit, &having, &idfs, &norm);
        }
    }
    scratch.dirty = false;
    hits
}

impl Scratch {
    fn collect(&mut self, query: &Query, sources: &[Source], scoring: &Scoring) {
        let weights = scoring.weights();
        self.matches.clear();
        self.ranges.clear();
        for source in sources {
            for clause in query.clauses() {
                let start = self.matches.len();
                self.matches.collect(source.index, clause, &source.sight, &weights);
                self.ranges.push(start..self.matches.len());
            }
        }
        let slots = sources.iter().map(|source| source.index.lengths().len()).max().unwrap_or(0);
        if self.scores.len() < slots {
            self.scores.resize(slots, 0.0);
        }
        if self.touched.len() <= self.matches.len() {
            self.touched.resize((self.matches.len() + 1).next_power_of_two(), 0);
        }
    }

    fn range(&self, query: &Query, source: usize, clause: usize) -> Range<usize> {
        self.ranges[source * query.clauses().len() + clause].clone()
    }

    /// The scores of one source. Returns how many documents have one; they are the first of `touched`.
    fn add_up(&mut self, query: &Query, source: &Source, number: usize, idfs: &[f64], norm: &Norm) -> usize {
        let lengths = source.index.lengths();
        let mut found = 0;
        for (clause, &idf) in idfs.iter().enumerate() {
            if query.clauses()[clause].occur == Occur::Not {
                continue;
            }
            let (slots, counts) = self.matches.get(self.range(query, number, clause));
            let scores = &mut self.scores[..lengths.len()];
            for (&slot, &tf) in slots.iter().zip(counts) {
                let score = &mut scores[slot as usize];
                self.touched[found] = slot;
                found += usize::from(*score == 0.0);
                *score += norm.contribution(idf, tf, lengths[slot as usize]);
            }
        }
        found
    }

    /// Put the best into `best`, and set all scores to 0 again.
    fn select<'a>(&mut self, query: &Query, source: &Source<'a>, number: usize, found: usize, best: &mut Best<'a>) {
        let checked = query.clauses().iter().any(|clause| clause.occur != Occur::Should);
        let needed = if checked { self.count_musts(query, number) } else { 0 };
        for &slot in &self.touched[..found] {
            let score = std::mem::take(&mut self.scores[slot as usize]);
            if checked && std::mem::take(&mut self.musts[slot as usize]) != needed || !source.sight.admits(slot) {
                continue;
            }
            best.matched += 1;
            if score >= best.floor {
                best.offer(Candidate { score, key: source.keys.key(slot), source: number, slot });
            }
        }
        if checked {
            self.clear_musts(query, number);
        }
    }

    /// How many clauses a document must have; `musts` says how many it has, and for one that it must not, an impossible number.
    fn count_musts(&mut self, query: &Query, number: usize) -> u32 {
        if self.musts.len() < self.scores.len() {
            self.musts.resize(self.scores.len(), 0);
        }
        let mut needed = 0;
        for (clause, Clause { occur, .. }) in query.clauses().iter().enumerate() {
            let (slots, _) = self.matches.get(self.range(query, number, clause));
            for &slot in slots {
                let musts = &mut self.musts[slot as usize];
                match occur {
                    Occur::Must => *musts = musts.saturating_add(1),
                    Occur::Not => *musts = u32::MAX,
                    Occur::Should => {}
                }
            }
            needed += u32::from(*occur == Occur::Must);
        }
        needed
    }

    fn clear_musts(&mut self, query: &Query, number: usize) {
        for clause in 0..query.clauses().len() {
            let (slots, _) = self.matches.get(self.range(query, number, clause));
            slots.iter().for_each(|slot| self.musts[*slot as usize] = 0);
        }
    }

    fn explain(&self, query: &Query, hit: &Hit, having: &[u64], idfs: &[f64], norm: &Norm) -> Vec<TermScore> {
        let positive = query.clauses().iter().enumerate().filter(|(_, clause)| clause.occur != Occur::Not);
        let term = |(clause, _)| {
            let (slots, counts) = self.matches.get(self.range(query, hit.source, clause));
            let at = slots.iter().position(|slot| *slot == hit.slot)?;
            let (idf, tf) = (idfs[clause], counts[at]);
            let contribution = norm.contribution(idf, tf, hit.length);
            Some(TermScore { clause, documents: having[clause], idf, tf, contribution })
        };
        positive.filter_map(term).collect()
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
