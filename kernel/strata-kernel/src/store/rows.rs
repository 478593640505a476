//! All rows of a database at one version, in the order of a run: what exports, restores and salvages copy.
//!
//! What a checkpoint wrote is read from the runs, which hold still; only where there can be none (in memory, read-only) rows
//! come from the tables, too, in pieces, while others write.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Store;
use super::checkpoint::{Window, keyspaces_of};
use super::layer_rows::LayerRows;
use super::merge_rows::MergeRows;
use crate::branch::{Branch, CHUNK, Range, decode_chunk, encode_chunk};
use crate::error::Result;
use crate::keyspaces::COMMITS;
use crate::log::{Stamp, StateHash};
use crate::run::{RangeCursor, Row, Run};
use crate::state::State;
use crate::table::Version;

/// Everything up to a version, held still.
pub(super) struct Everything {
    /// Of the newest commit.
    pub newest: Stamp,
    pub state: State,
    /// Oldest first.
    runs: Vec<Arc<Run>>,
    /// What only tables hold.
    memory: Option<(BTreeMap<u32, Arc<Branch>>, Window)>,
}

/// How much of each branch: its rows up to a version.
pub(super) type Limits = BTreeMap<u32, u64>;

impl Store {
    /// Of what is to be erased, nothing may go elsewhere first.
    pub(super) fn carry_out_erasures(&self) -> Result<()> {
        if self.read_only { Ok(()) } else { self.go_on_erasing() }
    }

    /// Everything that is committed now.
    pub(super) fn everything(&self) -> Result<Everything> {
        self.check_open()?;
        self.carry_out_erasures()?;
        let _alone = self.keeper.lock();
        if self.keeps_a_log() && !self.read_only {
            self.check_store_writable()?;
            self.checkpoint_alone()?;
        }
        let manifest = self.manifest().unwrap_or_default();
        let runs: Vec<Arc<Run>> = self.runs.read().clone();
        let persisted = manifest.checkpoint_version;
        if self.keeps_a_log() && !self.read_only && manifest.state.next_branch > 0 {
            let newest = Stamp { version: persisted, time: manifest.checkpoint_time, ..Stamp::default() };
            return Ok(Everything { newest, state: manifest.state, runs, memory: None });
        }
        let (newest, mut state, branches) = {
            let registry = self.registry.read();
            let newest = Stamp { version: self.log.last_version(), time: self.log.last_time(), ..Stamp::default() };
            (newest, registry.state(), registry.with_ancestors())
        };
        for found in &mut state.branches {
            let branch = &branches[&found.id];
            // Who holds the line may have its version, and not have applied it yet.
            drop(branch.line.lock());
            (found.version, found.hash) = branch.data.read().state_at(newest.version);
        }
        state.keyspaces = self.keyspaces.read().names().to_vec();
        (state.policies, state.erasures) = self.of_state(|state| (state.policies.clone(), state.erasures.clone()));
        Ok(Everything { newest, state, runs, memory: Some((branches, (persisted, newest.version))) })
    }
}

impl Everything {
    /// Hand over the rows within `limits`, commits included.
    pub fn copy(
        &self,
        limits: &Limits,
        mut take: impl FnMut(u32, u32, &[u8], &Version<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut rows = self.rows()?;
        while let Some(row) = rows.row()? {
            let limit = limits.get(&row.branch).copied().unwrap_or(0);
            if row.keyspace == COMMITS {
                if let Some(chunk) = chunk_within(row.version.value.unwrap_or_default(), limit)? {
                    let value = encode_chunk(&chunk);
                    let version = Version { version: chunk[0].version, ..Version::own(Some(&value)) };
                    take(row.branch, COMMITS, row.key, &version)?;
                }
            } else if row.version.version <= limit {
                take(row.branch, row.keyspace, row.key, &row.version)?;
            }
            rows.advance()?;
        }
        Ok(())
    }

    fn rows(&self) -> Result<AllRows> {
        let memory = self.memory.as_ref().map(|(branches, window)| MemoryRows::new(branches, *window));
        Ok(AllRows { memory, runs: MergeRows::new(&self.runs)? })
    }

    /// The newest commit of a branch's own that `is_within` accepts; it accepts all commits up to one.
    pub fn last_commit(&self, branch: u32, is_within: impl Fn(&Stamp) -> bool) -> Result<Option<Stamp>> {
        let mut last = None;
        let mut see = |value: &[u8]| -> Result<()> {
            last = decode_chunk(value)?.into_iter().rfind(&is_within).or(last);
            Ok(())
        };
        for run in &self.runs {
            let mut chunks = run.range(branch, COMMITS, &Range::default(), false, u64::MAX)?;
            while let Some(row) = chunks.row()? {
                see(row.version.value.unwrap_or_default())?;
                chunks.advance()?;
            }
        }
        if let Some((branches, window)) = &self.memory
            && let Some(branch) = branches.get(&branch)
        {
            last = branch.data.read().commits_between(*window).into_iter().rfind(&is_within).or(last);
        }
        Ok(last)
    }

    /// What a branch shows of a keyspace at a version: the newest row of each key, deletions included. `lineage` is the
    /// branch and its ancestors, each with the version up to which it shows.
    pub fn shown(
        &self,
        lineage: &[(u32, u64)],
        keyspace: u32,
        mut take: impl FnMut(&[u8], &Version<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut sources = Vec::new();
        for &(branch, limit) in lineage {
            if let Some((branches, window)) = &self.memory
                && let Some(branch) = branches.get(&branch)
            {
                sources.push(Newest::Memory(LayerRows::new(branch, keyspace, (window.0, window.1.min(limit)))));
            }
            for run in self.runs.iter().rev().filter(|run| run.span(branch).is_some()) {
                let rows = run.range(branch, keyspace, &Range::default(), false, limit)?;
                sources.push(Newest::Run(Box::new(rows)));
            }
        }
        let mut key = Vec::new();
        loop {
            let keyed = sources.iter().enumerate().filter_map(|(number, source)| Some((source.key()?, number)));
            let Some((next, number)) = keyed.min() else { return Ok(()) };
            key.clear();
            key.extend_from_slice(next);
            sources[number].row(|row| take(&key, row))?;
            for source in &mut sources {
                source.pass(&key)?;
            }
        }
    }
}

/// The commits of a chunk up to a version. Where that takes some away the hash after the last is not known, and another
/// stands for it: the history goes on from there as one of its own.
fn chunk_within(value: &[u8], limit: u64) -> Result<Option<Vec<Stamp>>> {
    let mut chunk = decode_chunk(value)?;
    let within = chunk.partition_point(|commit| commit.version <= limit);
    let is_cut = within < chunk.len();
    chunk.truncate(within);
    if let Some(last) = chunk.last_mut().filter(|_| is_cut) {
        last.hash = cut_hash(last);
    }
    Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
}

/// The state hash of a history that was cut behind a commit.
pub(super) fn cut_hash(last: &Stamp) -> StateHash {
    StateHash::next(StateHash::default(), last.version, last.time, b"cut")
}

/// Rows by place, and of each key the newest version first: all versions in tables are newer than those in runs.
struct AllRows {
    memory: Option<MemoryRows>,
    runs: MergeRows,
}

impl AllRows {
    fn is_memory_next(&self) -> bool {
        let memory = self.memory.as_ref().and_then(MemoryRows::row);
        let runs = self.runs.info().map(|row| (row.branch, row.keyspace, row.key));
        memory.is_some_and(|row| runs.is_none_or(|next| (row.branch, row.keyspace, row.key) <= next))
    }

    fn row(&self) -> Result<Option<Row<'_>>> {
        if self.is_memory_next() { Ok(self.memory.as_ref().and_then(MemoryRows::row)) } else { self.runs.row() }
    }

    fn advance(&mut self) -> Result<()> {
        if self.is_memory_next() {
            self.memory.as_mut().expect("it is next").advance();
            Ok(())
        } else {
            self.runs.advance()
        }
    }
}

/// The rows that tables hold, of all branches.
pub(super) struct MemoryRows {
    /// What is to come, the next at the end.
    places: Vec<(Arc<Branch>, u32)>,
    window: Window,
    branch: u32,
    keyspace: u32,
    part: Part,
}

enum Part {
    Layers(LayerRows),
    /// The rows of commits, the next at the end: key and value.
    Commits(Vec<(u64, [u8; 8], Vec<u8>)>),
}

impl MemoryRows {
    pub fn new(branches: &BTreeMap<u32, Arc<Branch>>, window: Window) -> MemoryRows {
        let mut places = Vec::new();
        for branch in branches.values() {
            let keyspaces = keyspaces_of(&branch.data.read(), window);
            places.extend(keyspaces.into_iter().chain([COMMITS]).map(|keyspace| (Arc::clone(branch), keyspace)));
        }
        places.reverse();
        let mut rows = MemoryRows { places, window, branch: 0, keyspace: 0, part: Part::Commits(Vec::new()) };
        rows.settle();
        rows
    }

    pub fn row(&self) -> Option<Row<'_>> {
        let (key, version) = match &self.part {
            Part::Layers(rows) => rows.row()?,
            Part::Commits(rows) => {
                let (version, key, value) = rows.last()?;
                (&key[..], Version { version: *version, ..Version::own(Some(value)) })
            }
        };
        Some(Row { branch: self.branch, keyspace: self.keyspace, key, version })
    }

    pub fn advance(&mut self) {
        match &mut self.part {
            Part::Layers(rows) => rows.advance(),
            Part::Commits(rows) => drop(rows.pop()),
        }
        self.settle();
    }

    /// Go on to the next place that has a row.
    fn settle(&mut self) {
        while self.row().is_none() {
            let Some((branch, keyspace)) = self.places.pop() else { return };
            (self.branch, self.keyspace) = (branch.id, keyspace);
            self.part = if keyspace == COMMITS {
                let commits = branch.data.read().commits_between(self.window);
                let row = |chunk: &[Stamp]| (chunk[0].version, chunk[0].version.to_be_bytes(), encode_chunk(chunk));
                Part::Commits(commits.chunks(CHUNK).rev().map(row).collect())
            } else {
                Part::Layers(LayerRows::new(&branch, keyspace, self.window))
            };
        }
    }
}

/// The newest row of each key of one layer of one branch.
enum Newest {
    Memory(LayerRows),
    Run(Box<RangeCursor>),
}

impl Newest {
    fn key(&self) -> Option<&[u8]> {
        match self {
            Newest::Memory(rows) => rows.row().map(|(key, _)| key),
            Newest::Run(rows) => rows.key(),
        }
    }

    fn row(&self, take: impl FnOnce(&Version<'_>) -> Result<()>) -> Result<()> {
        match self {
            Newest::Memory(rows) => rows.row().map_or(Ok(()), |(_, version)| take(&version)),
            Newest::Run(rows) => rows.row()?.map_or(Ok(()), |row| take(&row.version)),
        }
    }

    fn pass(&mut self, key: &[u8]) -> Result<()> {
        while self.key() == Some(key) {
            match self {
                Newest::Memory(rows) => rows.advance(),
                Newest::Run(rows) => rows.advance()?,
            }
        }
        Ok(())
    }
}
