//! What a query sees: the parts of a branch and of those it was forked off, each as far as it shows.
//!
//! A row of an ancestor is hidden where a branch above wrote its key, and any row once it has expired. What a transaction
//! wrote and did not commit stands above all.

use std::cell::RefCell;
use std::ops::Bound;

use strata_index::ordered::{self, OrderedIndex, Place, Range};
use strata_index::text::{self, Query, Scratch, Stats, TermScore, TextIndex};
use strata_index::vector::{self, Effort, VectorIndex};
use strata_index::{Bits, Blocks, Keys, Sight};

use super::definition::{Definition, Form, order_of};
use super::docs::Docs;
use super::own::{Delta, Loaded, Own};

/// The indexes of one keyspace, as one branch shows them at one version.
pub struct View<'a> {
    sources: Vec<Source<'a>>,
    /// What counts its words, where that need not be counted anew.
    counted: Option<&'a Own>,
}

/// A row that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    pub key: Vec<u8>,
    /// Of the commit that wrote it; 0 for what is not committed.
    pub version: u64,
    pub score: f64,
    /// Of a text that was asked to explain itself.
    pub terms: Vec<TermScore>,
}

/// What rows must be to be hits, all of it.
#[derive(Debug, Default)]
pub struct Filter {
    /// Of each index: in one of the ranges.
    pub values: Vec<(u32, Vec<Range>)>,
    pub keys: Option<Vec<Vec<u8>>>,
    pub prefix: Vec<u8>,
    /// From the first version to the last.
    pub written: Option<(u64, u64)>,
}

/// What a query of text found.
#[derive(Debug)]
pub struct TextFound {
    /// Best first.
    pub hits: Vec<Hit>,
    /// How many documents fit and pass the filter.
    pub matched: u64,
    /// The score of the best that is not among the hits.
    pub cut: Option<f64>,
    /// All documents that the view shows, and their words.
    pub stats: Stats,
}

struct Source<'a> {
    rows: Rows<'a>,
    /// Up to which version it shows.
    at: u64,
    hidden: Bits,
}

#[derive(Clone, Copy)]
enum Rows<'a> {
    Part(&'a Loaded),
    Delta(&'a Delta),
}

impl<'a> Rows<'a> {
    fn docs(self) -> &'a Docs {
        match self {
            Rows::Part(loaded) => &loaded.part.docs,
            Rows::Delta(delta) => &delta.docs,
        }
    }

    fn to(self) -> &'a [u64] {
        match self {
            Rows::Part(loaded) => &loaded.to,
            Rows::Delta(delta) => &delta.docs.to,
        }
    }

    fn blocks(self) -> &'a Blocks {
        match self {
            Rows::Part(loaded) => &loaded.blocks,
            Rows::Delta(delta) => &delta.blocks,
        }
    }

    fn ordered(self, id: u32) -> Option<OrderedIndex<'a>> {
        match self {
            Rows::Part(loaded) => loaded.part.ordered(id),
            Rows::Delta(delta) => delta.ordered(id),
        }
    }

    fn text(self, id: u32) -> Option<TextIndex<'a>> {
        match self {
            Rows::Part(loaded) => loaded.part.text(id),
            Rows::Delta(delta) => delta.text(id),
        }
    }

    fn vectors(self, id: u32) -> Option<VectorIndex<'a>> {
        match self {
            Rows::Part(loaded) => loaded.part.vectors(id),
            Rows::Delta(delta) => delta.vectors(id),
        }
    }

    /// Add the rows of a key to `out`.
    fn mark(self, key: &[u8], out: &mut Bits) {
        match self {
            Rows::Part(loaded) => loaded.part.docs.find(key).for_each(|slot| _ = out.set(slot)),
            Rows::Delta(delta) => delta.slots(key).for_each(|slot| _ = out.set(slot)),
        }
    }
}

impl<'a> View<'a> {
    /// Of what is `pending`, and of the branches that a read asks, in its order and each with the version up to which it
    /// shows. `time` says what has expired.
    pub fn new(pending: Option<&'a Delta>, lineage: &[(&'a Own, u64)], time: impl Fn() -> u64) -> View<'a> {
        let mut sources: Vec<Source<'a>> = Vec::new();
        let above = pending.map(|delta| vec![Rows::Delta(delta)]);
        let levels = lineage.iter().map(|(own, at)| (rows_of(own), *at));
        for (level, at) in above.into_iter().map(|rows| (rows, u64::MAX - 1)).chain(levels) {
            let above = sources.len();
            for rows in level {
                let mut hidden = Bits::default();
                sources[..above].iter().for_each(|source| source.hide(rows, &mut hidden));
                if rows.docs().expires_at_all() {
                    rows.docs().expired(time(), &mut hidden);
                }
                sources.push(Source { rows, at, hidden });
            }
        }
        let counted = match lineage {
            [(own, at)] if pending.is_none() && *at >= own.newest => Some(*own),
            _ => None,
        };
        let expires = sources.iter().any(|source| source.rows.docs().expires_at_all());
        View { sources, counted: counted.filter(|_| !expires) }
    }

    /// The rows of an index whose value lies in `range`, in order of the values, at most `limit`.
    pub fn scan(&self, id: u32, range: &Range, reverse: bool, limit: usize) -> Vec<Hit> {
        let sources = self.ordered(id);
        let mut hits = Vec::new();
        if limit > 0 {
            ordered::scan(&sources, range, reverse, |_, place| {
                hits.push(self.hit(place));
                hits.len() < limit
            });
        }
        hits
    }

    /// A key that has one value with a changed key, in a unique index.
    pub fn double_of(&self, definition: &Definition, changed: &[(Vec<u8>, Option<Vec<u8>>)]) -> Option<Vec<u8>> {
        let Form::Ordered { paths, .. } = &*definition.form else { return None };
        for (key, value) in changed.iter().filter(|(key, _)| key.starts_with(&definition.prefix)) {
            let Some(order) = value.as_ref().and_then(|value| order_of(value, paths)) else { continue };
            let range = Range { start: Bound::Included(order.clone()), end: Bound::Included(order) };
            let found = self.scan(definition.id, &range, false, 2);
            if let Some(other) = found.into_iter().find(|hit| hit.key != *key) {
                return Some(other.key);
            }
        }
        None
    }

    /// The first key whose value another has, too.
    pub fn first_double(&self, id: u32) -> Option<Vec<u8>> {
        let sources = self.ordered(id);
        let (mut before, mut found): (Option<&[u8]>, _) = (None, None);
        ordered::scan(&sources, &Range { start: Bound::Unbounded, end: Bound::Unbounded }, false, |value, place| {
            if before == Some(value) {
                found = Some(self.hit(place).key);
            }
            before = Some(value);
            found.is_none()
        });
        found
    }

    /// The `k` best documents of a text index for a query.
    pub fn search(
        &self,
        definition: &Definition,
        query: &Query,
        filter: &Filter,
        k: usize,
        explain: bool,
    ) -> TextFound {
        let Form::Text(form) = &*definition.form else { unreachable!("the caller looked") };
        let only = self.only(filter);
        let sources: Vec<_> =
            self.sources.iter().zip(&only).map(|(source, only)| source.text(definition.id, only)).collect();
        let counted = self.counted.and_then(|own| own.stats.get(&definition.id));
        let stats = counted.copied().unwrap_or_else(|| text::stats(&sources));
        let found = SCRATCH
            .with_borrow_mut(|scratch| text::search(query, &sources, &stats, &form.scoring, k, explain, scratch));
        let hit = |hit: text::Hit| {
            let place = Place { source: hit.source, slot: hit.slot };
            Hit { score: hit.score, terms: hit.terms, ..self.hit(place) }
        };
        let text::Hits { hits, matched, cut } = found;
        TextFound { hits: hits.into_iter().map(hit).collect(), matched, cut, stats }
    }

    /// The `k` nearest rows of a vector index.
    pub fn nearest(&self, id: u32, query: &[f32], filter: &Filter, k: usize, effort: Effort) -> Vec<Hit> {
        let only = self.only(filter);
        let sources: Vec<_> = self.sources.iter().zip(&only).map(|(source, only)| source.vectors(id, only)).collect();
        let hit = |hit: vector::Hit| {
            let place = Place { source: hit.source, slot: hit.slot };
            Hit { score: hit.score, ..self.hit(place) }
        };
        vector::search(query, &sources, k, effort).into_iter().map(hit).collect()
    }

    /// Of each source the rows that pass, where not all do.
    fn only(&self, filter: &Filter) -> Vec<Option<Bits>> {
        let mut only: Vec<Option<Bits>> = self.sources.iter().map(|source| source.only(filter)).collect();
        for (id, ranges) in &filter.values {
            for (only, found) in only.iter_mut().zip(ordered::select(&self.ordered(*id), ranges)) {
                restrict(only, found);
            }
        }
        only
    }

    fn ordered(&self, id: u32) -> Vec<ordered::Source<'_>> {
        self.sources.iter().map(|source| source.ordered(id)).collect()
    }

    fn hit(&self, place: Place) -> Hit {
        let docs = self.sources[place.source].rows.docs();
        let (key, version) = (docs.key(place.slot).to_vec(), docs.from[place.slot as usize]);
        Hit { key, version, score: 0.0, terms: Vec::new() }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

fn restrict(only: &mut Option<Bits>, found: Bits) {
    match only {
        Some(only) => only.intersect(&found),
        None => *only = Some(found),
    }
}

fn rows_of(own: &Own) -> Vec<Rows<'_>> {
    std::iter::once(Rows::Delta(&own.delta)).chain(own.parts.iter().map(Rows::Part)).collect()
}

impl Source<'_> {
    fn sight<'b>(&'b self, only: Option<&'b Bits>) -> Sight<'b> {
        let hidden = Some(&self.hidden).filter(|hidden| !hidden.is_empty());
        Sight { at: self.at, from: &self.rows.docs().from, to: self.rows.to(), hidden, only }
    }

    fn ordered(&self, id: u32) -> ordered::Source<'_> {
        let index = self.rows.ordered(id).expect("parts have all indexes");
        ordered::Source { index, sight: self.sight(None), keys: self.rows.docs() }
    }

    fn text<'b>(&'b self, id: u32, only: &'b Option<Bits>) -> text::Source<'b> {
        let index = self.rows.text(id).expect("parts have all indexes");
        let (sight, blocks) = (self.sight(only.as_ref()), Some(self.rows.blocks()));
        text::Source { index, sight, blocks, keys: self.rows.docs() }
    }

    fn vectors<'b>(&'b self, id: u32, only: &'b Option<Bits>) -> vector::Source<'b> {
        let index = self.rows.vectors(id).expect("parts have all indexes");
        vector::Source { index, sight: self.sight(only.as_ref()), keys: self.rows.docs() }
    }

    /// What its rows alone say of a filter.
    fn only(&self, filter: &Filter) -> Option<Bits> {
        let docs = self.rows.docs();
        let mut only = None;
        if let Some(keys) = &filter.keys {
            let mut found = Bits::default();
            keys.iter().for_each(|key| self.rows.mark(key, &mut found));
            restrict(&mut only, found);
        }
        if !filter.prefix.is_empty() || filter.written.is_some() {
            let (first, last) = filter.written.unwrap_or((0, u64::MAX));
            let passes = |slot: &u32| {
                (first..=last).contains(&docs.from[*slot as usize]) && docs.key(*slot).starts_with(&filter.prefix)
            };
            restrict(&mut only, (0..docs.len() as u32).filter(passes).collect());
        }
        only
    }

    /// Add the slots of `below` whose keys were written here to `out`.
    fn hide(&self, below: Rows<'_>, out: &mut Bits) {
        let docs = self.rows.docs();
        if below.docs().len() == 0 {
            return;
        }
        for slot in (0..docs.len() as u32).filter(|slot| docs.from[*slot as usize] <= self.at) {
            below.mark(docs.key(slot), out);
        }
    }
}
