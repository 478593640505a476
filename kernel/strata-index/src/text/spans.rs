//! Where the words of a query stand in a text: what a snippet shows.

use std::ops::Range;

use super::analyzer::Analyzer;
use super::query::{Clause, Occur, Pattern, Query};

/// The bytes of every word in `text` that the query asks for, in order; of a phrase only where all of it stands. `field`
/// is the one that the text is from; clauses of others are left out. None: every clause counts.
pub fn spans(text: &str, field: Option<u8>, query: &Query, analyzer: &Analyzer) -> Vec<(usize, usize)> {
    let asked = |clause: &&Clause| {
        clause.occur != Occur::Not && (field.is_none() || clause.field.is_none() || clause.field == field)
    };
    let clauses: Vec<&Clause> = query.clauses().iter().filter(asked).collect();
    let mut words = Vec::new();
    analyzer.words(text, |word, span| {
        let term = analyzer.term(word);
        let fits = |pattern: &Pattern| term.as_deref().is_some_and(|term| pattern.fits(term));
        words.push((clauses.iter().map(|clause| fitting(clause, fits)).collect::<Vec<_>>(), span));
    });
    let mut marked = vec![false; words.len()];
    for (number, clause) in clauses.iter().enumerate() {
        for begin in 0..words.len() {
            let at = |offset: u32| begin + offset as usize;
            let is_there = |(nth, (offset, _)): (usize, &(u32, Pattern))| {
                words.get(at(*offset)).is_some_and(|(fitting, _)| fitting[number].contains(&(nth as u32)))
            };
            if clause.words.iter().enumerate().all(is_there) {
                clause.words.iter().for_each(|(offset, _)| marked[at(*offset)] = true);
            }
        }
    }
    let marked = words.into_iter().zip(marked).filter(|(_, marked)| *marked);
    marked.map(|((_, Range { start, end }), _)| (start, end)).collect()
}

/// Which words of the clause it may be.
fn fitting(clause: &Clause, fits: impl Fn(&Pattern) -> bool) -> Vec<u32> {
    (0..).zip(&clause.words).filter(|(_, (_, pattern))| fits(pattern)).map(|(nth, _)| nth).collect()
}

impl Pattern {
    fn fits(&self, other: &str) -> bool {
        match self {
            Pattern::Term(term) => term == other,
            Pattern::Prefix { start, term } => other.starts_with(start.as_str()) || term.as_deref() == Some(other),
        }
    }
}
