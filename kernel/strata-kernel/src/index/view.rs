//! What a query sees: the parts of a branch and of those it was forked off, each as far as it shows.
//!
//! A row of an ancestor is hidden where a branch above wrote its key, and any row once it has expired. What a transaction
//! wrote and did not commit stands above all.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;
use strata_index::ordered::{self, OrderedIndex, Place, Range};
use strata_index::text::{self, Query, Scratch, Stats, TermScore, TextIndex};
use strata_index::vector::{self, Effort, VectorIndex};
use strata_index::{Bits, Blocks, Keys, Sight};

use super::definition::{Definition, Form, order_of};
use super::docs::Docs;
use super::own::{Delta, Loaded, Own};
use crate::sabotage;

/// The indexes of one keyspace, as one branch shows them at one version.
pub struct View<'a> {
    sources: Vec<Source<'a>>,
    /// What counts its words, where that need not be counted anew.
    counted: Option<&'a Own>,
    /// And where it was counted before.
    stats: Option<Arc<Mutex<BTreeMap<u32, Stats>>>>,
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
    hidden: Arc<Bits>,
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

    /// The keys of rows from a slot on that were written up to a version, each once.
    fn keys_written(self, first: u32, at: u64) -> impl Iterator<Item = &'a [u8]> {
        let docs = self.docs();
        let slots = first..docs.len() as u32;
        // The oldest row of a key tells: in memory it came first, in a part it stands last.
        let is_oldest = move |slot: &u32| match self {
            Rows::Delta(delta) => delta.is_first(*slot),
            Rows::Part(_) => slot + 1 == docs.len() as u32 || docs.key(slot + 1) != docs.key(*slot),
        };
        slots.filter(move |slot| docs.from[*slot as usize] <= at).filter(is_oldest).map(move |slot| docs.key(slot))
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
        let mut rows: Vec<(Rows<'a>, u64)> = Vec::new();
        // Where the rows of each level end: they do not hide each other, but those of the levels behind.
        let mut ends = Vec::with_capacity(lineage.len());
        for (own, at) in lineage {
            rows.extend(rows_of(own).map(|rows| (rows, *at)));
            ends.push(rows.len());
        }
        let expires = rows.iter().any(|(rows, _)| rows.docs().expires_at_all());
        let (own, marks) = (lineage[0].0, marks_of(lineage));
        let mut shade = own.shade.lock();
        let (mut hidden, stats) = match shade.take().filter(|_| !expires) {
            Some(known) if known.marks == marks => (known.hidden, known.stats),
            // The branch itself has grown, and nothing else: what it wrote since hides more.
            Some(known) if known.is_before(&marks) => {
                (hide(&rows, &ends, known.marks[0].1 as u32, known.hidden), Arc::default())
            }
            _ => (hide(&rows, &ends, 0, vec![Arc::default(); rows.len()]), Arc::default()),
        };
        *shade = Some(Shade { marks, hidden: hidden.clone(), stats: Arc::clone(&stats) });
        drop(shade);
        if expires {
            let now = time();
            for ((rows, _), hidden) in rows.iter().zip(&mut hidden) {
                rows.docs().expired(now, Arc::make_mut(hidden));
            }
        }
        let counted = match lineage {
            [(own, at)] if pending.is_none() && *at >= own.newest && !expires => Some(*own),
            _ => None,
        };
        let sources = rows.into_iter().zip(hidden).map(|((rows, at), hidden)| Source { rows, at, hidden });
        let stats = Some(stats).filter(|_| pending.is_none() && !expires);
        let mut view = View { sources: sources.collect(), counted, stats };
        if let Some(pending) = pending {
            view.put_above(pending);
        }
        view
    }

    /// What a transaction wrote stands above all.
    fn put_above(&mut self, pending: &'a Delta) {
        for source in &mut self.sources {
            let hidden = Arc::make_mut(&mut source.hidden);
            (0..pending.docs.len() as u32).for_each(|slot| source.rows.mark(pending.docs.key(slot), hidden));
        }
        let above = Source { rows: Rows::Delta(pending), at: u64::MAX - 1, hidden: Arc::default() };
        self.sources.insert(0, above);
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
        let stats = self.stats_of(definition.id, &sources);
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

    /// The visible documents of a text index and their words.
    fn stats_of(&self, id: u32, sources: &[text::Source<'_>]) -> Stats {
        match (self.counted.and_then(|own| own.stats.get(&id)), &self.stats) {
            (Some(counted), _) => *counted,
            (None, Some(known)) => *known.lock().entry(id).or_insert_with(|| text::stats(sources)),
            (None, None) => text::stats(sources),
        }
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

fn rows_of(own: &Own) -> impl Iterator<Item = Rows<'_>> {
    std::iter::once(Rows::Delta(&own.delta)).chain(own.parts.iter().map(Rows::Part))
}

/// What was found to be hidden, and of which state that is so: kept beside the branch, as it costs a look at each of its keys.
pub struct Shade {
    marks: Vec<Mark>,
    hidden: Vec<Arc<Bits>>,
    /// By text index, once it was asked.
    stats: Arc<Mutex<BTreeMap<u32, Stats>>>,
}

/// What a level is, how many rows are in its memory, and up to which version it shows.
type Mark = (u64, usize, u64);

/// What of the branches a view depends on. Rows that ancestors get later are above what shows of them; of the branch itself
/// they count, where it is shown up to its newest.
fn marks_of(lineage: &[(&Own, u64)]) -> Vec<Mark> {
    let (own, at) = lineage[0];
    let first = if at >= own.newest { (own.id, own.delta.docs.len(), u64::MAX) } else { (own.id, 0, at) };
    std::iter::once(first).chain(lineage[1..].iter().map(|(own, at)| (own.id, 0, *at))).collect()
}

impl Shade {
    /// Whether the branch itself has only grown since.
    fn is_before(&self, marks: &[Mark]) -> bool {
        let ((id, length, at), (newer_id, newer_length, newer_at)) = (self.marks[0], marks[0]);
        let is_same = (id, at) == (newer_id, newer_at) && at == u64::MAX && length <= newer_length;
        is_same && self.marks[1..] == marks[1..]
    }
}

/// Hide of each level what those above it wrote, of the branch itself only what it has in memory from `since` on.
fn hide(rows: &[(Rows<'_>, u64)], ends: &[usize], since: u32, mut hidden: Vec<Arc<Bits>>) -> Vec<Arc<Bits>> {
    if sabotage::on("I04") {
        return hidden;
    }
    for (level, end) in ends.iter().enumerate().take(ends.len() - 1) {
        let start = if level == 0 { 0 } else { ends[level - 1] };
        for (number, (above, at)) in rows[start..*end].iter().enumerate() {
            // The first of a level is what is in memory.
            let first = match (level, number) {
                (0, 0) => since,
                (0, _) if since > 0 => continue,
                _ if level > 0 && since > 0 => continue,
                _ => 0,
            };
            for key in above.keys_written(first, *at) {
                for ((below, _), hidden) in rows[*end..].iter().zip(&mut hidden[*end..]) {
                    if below.docs().len() > 0 {
                        below.mark(key, Arc::make_mut(hidden));
                    }
                }
            }
        }
    }
    hidden
}

impl Source<'_> {
    fn sight<'b>(&'b self, only: Option<&'b Bits>) -> Sight<'b> {
        let hidden = Some(&*self.hidden).filter(|hidden| !hidden.is_empty());
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
            let passes = |slot: u32| {
                (first..=last).contains(&docs.from[slot as usize]) && docs.key(slot).starts_with(&filter.prefix)
            };
            restrict(&mut only, Bits::of_those(docs.len(), passes));
        }
        only
    }
}
