//! What the indexes of a keyspace hold of one branch: of each of its runs a part, and of its memory above the checkpoint a
//! delta, which grows with each commit.
//!
//! It is made when a query first needs it (`load` in `store::indexes`), and made again when the branch has other runs or
//! its checkpoint moves; what commits add in between is added here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use strata_index::Blocks;
use strata_index::ordered::OrderedIndex;
use strata_index::text::{Stats, TextIndex};
use strata_index::vector::VectorIndex;

use super::definition::{Definitions, Form};
use super::docs::{Docs, LIVE};
use super::part::{DeltaIndex, Part};
use super::view::Shade;
use crate::sabotage;
use crate::table::Version;

/// By keyspace. None where nothing was asked of an index yet, so that other writes pay nothing.
pub type Indexed = Option<Box<FxHashMap<u32, Own>>>;

/// One keyspace of one branch.
pub struct Own {
    pub definitions: Definitions,
    /// Newest first.
    pub parts: Vec<Loaded>,
    pub delta: Delta,
    /// By text index: of the rows that are visible at the newest version, if none of them ever expires.
    pub stats: BTreeMap<u32, Stats>,
    pub newest: u64,
    /// No two have the same.
    pub id: u64,
    /// What of its ancestors it hides, as far as that was asked.
    pub shade: Mutex<Option<Shade>>,
    /// Something happened that it does not show.
    pub is_stale: bool,
}

/// The part of a run, and until when each of its rows is visible in this branch.
pub struct Loaded {
    pub run: u64,
    pub part: Arc<Part>,
    pub to: Vec<u64>,
    pub blocks: Blocks,
}

/// What is not in a run.
#[derive(Default)]
pub struct Delta {
    pub docs: Docs,
    pub blocks: Blocks,
    /// The newest slot of each key, and of each slot the one before it.
    newest: FxHashMap<Vec<u8>, u32>,
    before: Vec<u32>,
    indexes: BTreeMap<u32, DeltaIndex>,
}

const NONE: u32 = u32::MAX;
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Own {
    /// Of the parts of all runs, the newest first.
    pub fn new(definitions: &Definitions, parts: Vec<(u64, Arc<Part>)>) -> Own {
        let mut loaded: Vec<Loaded> = Vec::with_capacity(parts.len());
        for (run, part) in parts {
            let mut to = part.docs.to.clone();
            // Those nearest to it say when its rows end.
            loaded.iter().rev().for_each(|newer| end_by(&part.docs, &mut to, &newer.part.docs));
            let blocks = Blocks::of(&part.docs.from, &to);
            loaded.push(Loaded { run, part, to, blocks });
        }
        let delta = Delta::new(definitions);
        let (stats, newest) = (BTreeMap::new(), 0);
        let (id, shade) = (NEXT_ID.fetch_add(1, Ordering::Relaxed), Mutex::default());
        let definitions = definitions.clone();
        let mut own = Own { definitions, parts: loaded, delta, stats, newest, id, shade, is_stale: false };
        own.count();
        own
    }

    pub fn parts_by_run(&self) -> FxHashMap<u64, Arc<Part>> {
        self.parts.iter().map(|loaded| (loaded.run, Arc::clone(&loaded.part))).collect()
    }

    /// About what it takes.
    pub fn memory_bytes(&self) -> usize {
        let parts = self.parts.iter();
        let parts: usize = parts
            .map(|loaded| loaded.part.memory_bytes() + 8 * loaded.to.capacity() + loaded.blocks.memory_bytes())
            .sum();
        parts + self.delta.memory_bytes()
    }

    /// A row that is newer than all there are.
    pub fn add(&mut self, key: &[u8], version: &Version<'_>) {
        self.newest = version.version;
        let (slot, before) = self.delta.add(key, version);
        match before {
            Some(before) => self.uncount(|own, id| own.delta.text(id).map_or(0, |text| text.length(before))),
            None => self.end(key, version.version),
        }
        if let Some(value) = version.value {
            self.delta.index(&self.definitions, slot, key, value);
            for (id, stats) in &mut self.stats {
                let length = self.delta.text(*id).map_or(0, |text| text.length(slot));
                stats.documents += u64::from(length > 0);
                stats.length += u64::from(length);
            }
        }
    }

    /// The newest row of a key in the parts ends with the version that wrote the next.
    fn end(&mut self, key: &[u8], version: u64) {
        if sabotage::on("I02") {
            return;
        }
        for number in 0..self.parts.len() {
            let loaded = &mut self.parts[number];
            if let Some(slot) = loaded.part.docs.find(key).next() {
                if loaded.to[slot as usize] == LIVE {
                    loaded.to[slot as usize] = version;
                    loaded.blocks.note(slot, loaded.part.docs.from[slot as usize], version);
                    self.uncount(|own, id| own.parts[number].part.text(id).map_or(0, |text| text.length(slot)));
                }
                return;
            }
        }
    }

    /// A row of such length is no more.
    fn uncount(&mut self, length: impl Fn(&Own, u32) -> u32) {
        let lengths: Vec<u32> = self.stats.keys().map(|id| length(self, *id)).collect();
        for (stats, length) in self.stats.values_mut().zip(lengths) {
            stats.documents -= u64::from(length > 0);
            stats.length -= u64::from(length);
        }
    }

    /// Count what is in the parts, when nothing is in memory yet.
    fn count(&mut self) {
        self.newest = self.parts.iter().flat_map(|loaded| &loaded.part.docs.from).max().copied().unwrap_or(0);
        for definition in self.definitions.iter().filter(|definition| matches!(*definition.form, Form::Text(_))) {
            let mut stats = Stats::default();
            for loaded in &self.parts {
                let lengths = loaded.part.text(definition.id).map_or(&[][..], |text| text.lengths());
                for (length, to) in lengths.iter().zip(&loaded.to) {
                    if *length > 0 && *to == LIVE {
                        stats.documents += 1;
                        stats.length += u64::from(*length);
                    }
                }
            }
            self.stats.insert(definition.id, stats);
        }
    }
}

/// End the rows of `docs` that live with the oldest of those in `newer`.
fn end_by(docs: &Docs, to: &mut [u64], newer: &Docs) {
    use strata_index::Keys;
    let (mut here, mut there) = (0, 0);
    while here < docs.len() && there < newer.len() {
        match docs.key(here as u32).cmp(newer.key(there as u32)) {
            std::cmp::Ordering::Less => here += 1,
            std::cmp::Ordering::Greater => there += 1,
            std::cmp::Ordering::Equal => {
                let key = docs.key(here as u32);
                let is_key = |slot: &usize| newer.key(*slot as u32) == key;
                let last = (there..newer.len()).take_while(is_key).last().unwrap_or(there);
                if to[here] == LIVE {
                    to[here] = newer.from[last];
                }
                there = last + 1;
                here += 1;
                while here < docs.len() && docs.key(here as u32) == key {
                    here += 1;
                }
            }
        }
    }
}

impl Delta {
    fn new(definitions: &Definitions) -> Delta {
        let indexes = definitions.iter().map(|definition| (definition.id, DeltaIndex::new(&definition.form)));
        Delta { indexes: indexes.collect(), ..Delta::default() }
    }

    /// What a transaction wrote: keys, each once, and values.
    pub fn of_pending(definitions: &Definitions, rows: &[(Vec<u8>, Option<Vec<u8>>)]) -> Delta {
        let mut delta = Delta::new(definitions);
        for (key, value) in rows {
            let (slot, _) = delta.add(key, &Version { version: 0, ..Version::own(value.as_deref()) });
            if let Some(value) = value {
                delta.index(definitions, slot, key, value);
            }
        }
        delta
    }

    fn index(&mut self, definitions: &Definitions, slot: u32, key: &[u8], value: &[u8]) {
        for definition in definitions.iter() {
            let index = self.indexes.get_mut(&definition.id).expect("there is one for each");
            index.add(slot, definition, key, value);
        }
    }

    /// Returns its slot, and that of the row before it of the same key.
    fn add(&mut self, key: &[u8], version: &Version<'_>) -> (u32, Option<u32>) {
        let slot = self.docs.push(key, version, LIVE);
        self.blocks.note(slot, version.version, LIVE);
        let before = match self.newest.get_mut(key) {
            Some(newest) => std::mem::replace(newest, slot),
            None => {
                self.newest.insert(key.to_vec(), slot);
                NONE
            }
        };
        if before != NONE {
            self.docs.to[before as usize] = version.version;
            self.blocks.note(before, self.docs.from[before as usize], version.version);
        }
        self.before.push(before);
        (slot, Some(before).filter(|before| *before != NONE))
    }

    fn memory_bytes(&self) -> usize {
        // Each key is there once more, with its place in a table and a block of the allocator.
        let keys = self.newest.capacity() * (size_of::<(Vec<u8>, u32)>() + 1 + 32);
        let indexes: usize = self.indexes.values().map(DeltaIndex::memory_bytes).sum();
        self.docs.memory_bytes() + self.blocks.memory_bytes() + keys + 4 * self.before.capacity() + indexes
    }

    /// Whether there is no older row of its key.
    pub fn is_first(&self, slot: u32) -> bool {
        self.before[slot as usize] == NONE
    }

    /// All slots of a key.
    pub fn slots<'a>(&'a self, key: &[u8]) -> impl Iterator<Item = u32> + use<'a> {
        let first = self.newest.get(key).copied();
        std::iter::successors(first, |slot| Some(self.before[*slot as usize]).filter(|before| *before != NONE))
    }

    pub fn ordered(&self, id: u32) -> Option<OrderedIndex<'_>> {
        self.indexes.get(&id)?.ordered()
    }

    pub fn text(&self, id: u32) -> Option<TextIndex<'_>> {
        self.indexes.get(&id)?.text()
    }

    pub fn vectors(&self, id: u32) -> Option<VectorIndex<'_>> {
        self.indexes.get(&id)?.vectors()
    }
}
