//! The log of a damaged database, replayed on the rows that the runs gave.
//!
//! A record that checks is a commit that was made. What it *puts* stands for itself. What it *patches* or *adds to* rests on
//! the value before, and is kept only where that is known to be there. That is in doubt
//!
//! - on a branch with a *hole*: the state hash of a record does not continue what was replayed before, so commits of the
//!   branch are missing. All of them are older than that record: a key that has a newer row of its own is known again;
//! - where a run has lost rows around the key, and no newer row of it is there.
//!
//! A branch that no record speaks of behind a gap may have lost its newest commits; the gap tells the versions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::runs::{Copied, LostRange};
use super::source::{Source, name_of};
use super::{Loss, Salvaged, place_of};
use crate::branch::{At, Branch};
use crate::change::{What, Write};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::keyspaces::{CATALOGUE, RESERVED, catalogue_key};
use crate::log::remains::{Found, Gap, read_remains};
use crate::log::{self, Entry, Log, Stamp, StateHash};
use crate::manifest::Manifest;
use crate::payload::{self, Body, BranchChange, Logged, Meta, Number, Payload, Read};
use crate::run::place_key;
use crate::sabotage;
use crate::state::State;
use crate::store::fresh::{Fresh, end_run};
use crate::store::import::are_paths;
use crate::store::open::{as_write, check_chain};
use crate::store::plan::erased_upto;
use crate::store::rows::MemoryRows;
use crate::store::verify::Progress;
use crate::store::{Options, Store};
use crate::value;

pub(super) struct Replay<'a> {
    source: &'a Source,
    ranges: &'a [LostRange],
    /// The new database so far, with the log in memory.
    store: Store,
    /// By branch, the version up to which commits of it are missing.
    holes: FxHashMap<u32, u64>,
    /// The newest version of each branch that the runs hold.
    settled: BTreeMap<u32, u64>,
    newest: Stamp,
    records: u64,
    rows: u64,
    lost: Vec<Loss>,
    /// Branches that lost anything.
    pub damaged: BTreeSet<u32>,
    is_whole: bool,
    read_bytes: u64,
}

/// Where a record stands.
#[derive(Clone, Copy)]
struct Spot {
    segment: u64,
    offset: u64,
}

impl Spot {
    fn file(self) -> String {
        log::path(self.segment)
    }
}

impl<'a> Replay<'a> {
    /// Open what the runs gave.
    pub fn new(source: &'a Source, fresh: &Fresh, copied: &'a Copied) -> Result<Replay<'a>> {
        let manifest = &source.manifest;
        let env: Env = fresh.inside().clone();
        let options = Options { read_only: true, ..source.options.clone() };
        let mut store = Store::assemble(env.clone(), Log::memory(&env, manifest.anchor()), &options);
        store.database_id = fresh.database_id();
        store.keys = parking_lot::RwLock::new(options.ring(fresh.database_id()));
        store.open_runs(&Manifest { runs: copied.runs.clone(), ..manifest.clone() })?;
        let settled = manifest.state.branches.iter().map(|branch| (branch.id, branch.version)).collect();
        let (version, time) = (manifest.checkpoint_version, manifest.checkpoint_time);
        Ok(Replay {
            source,
            ranges: &copied.ranges,
            store,
            holes: FxHashMap::default(),
            settled,
            newest: Stamp { version, time, ..Stamp::default() },
            records: 0,
            rows: 0,
            lost: Vec::new(),
            damaged: BTreeSet::new(),
            is_whole: copied.lost.is_empty() && source.lost.is_empty(),
            read_bytes: copied.bytes,
        })
    }

    pub fn salvaged(&self) -> Salvaged {
        let Stamp { version, time, .. } = self.newest;
        let (records, rows, lost) = (self.records, self.rows, self.lost.clone());
        Salvaged { version, time, branches: Vec::new(), rows, records, lost }
    }

    /// Replay all records behind the checkpoint.
    pub fn read(&mut self, progress: Progress<'_>) -> Result<()> {
        let (env, options) = (self.source.env.clone(), self.source.log_options());
        let mut anchor = self.source.manifest.anchor();
        if !self.source.is_known {
            // Each branch tells which records the runs have.
            (anchor.version, anchor.time) = (0, 0);
        }
        read_remains(&env, &options, anchor, &mut |found| match found {
            Found::Gap(gap) => {
                self.gap(gap);
                Ok(())
            }
            Found::Record(entry, offset) => {
                self.take(&entry, offset)?;
                self.read_bytes += entry.payload.len() as u64;
                progress(self.read_bytes, self.read_bytes)
            }
        })
    }

    fn gap(&mut self, gap: Gap) {
        self.is_whole = false;
        if sabotage::on("S02") {
            return;
        }
        let Gap { file, offset, length, reason, after, before } = gap;
        let versions = before.map(|before| (after + 1, before - 1)).filter(|(first, last)| first <= last);
        let what = if before.is_some() { "records of the log" } else { "the end of the log" };
        self.lost.push(Loss { file, offset, length, what, reason, versions, ..Loss::default() });
    }

    fn lose(&mut self, at: Spot, what: &'static str, reason: impl Into<String>, versions: (u64, u64)) {
        self.is_whole = false;
        let (file, offset, reason) = (at.file(), at.offset, reason.into());
        self.lost.push(Loss { file, offset, what, reason, versions: Some(versions), ..Loss::default() });
    }

    fn take(&mut self, entry: &Entry<'_>, offset: u64) -> Result<()> {
        let at = Spot { segment: entry.segment, offset };
        let version = entry.stamp.version;
        match payload::decode(entry.payload) {
            Ok(Payload::Branch(change)) => self.take_change(entry, &change, at)?,
            Ok(Payload::Commit { branch, meta, writes, reads }) => {
                let branch = self.branch(branch, entry.stamp, at)?;
                self.take_commit(entry, &branch, &meta, &writes, &reads, at)?;
            }
            Err(error) => self.lose(at, "a record of the log", error.to_string(), (version, version)),
        }
        if version > self.newest.version {
            self.newest = Stamp { hash: StateHash::default(), ..entry.stamp };
        }
        Ok(())
    }

    // --- branches ----------------------------------------------------------------------------------

    /// The branch with an id; made where its beginning is lost.
    fn branch(&mut self, id: u32, stamp: Stamp, at: Spot) -> Result<Arc<Branch>> {
        if let Some(branch) = self.store.registry.read().by_id(id) {
            return Ok(Arc::clone(branch));
        }
        let name = self.free_name(name_of(id));
        let change = BranchChange::Create { id, name, parent: None };
        let before = Stamp { version: 0, time: stamp.time, hash: self.store.registry.read().hash };
        self.store.registry.write().apply(&change, before)?;
        self.damaged.insert(id);
        let reason = format!("no record says how branch {id} came to be");
        self.lose(at, "name and parent of a branch", reason, (1, stamp.version));
        self.store.registry.read().by_id(id).cloned().ok_or_else(|| Error::Internal("it was just made".to_owned()))
    }

    fn take_change(&mut self, entry: &Entry<'_>, change: &BranchChange, at: Spot) -> Result<()> {
        let stamp = entry.stamp;
        if !self.source.is_known && stamp.version <= self.source.manifest.checkpoint_version {
            return self.take_old_change(change, stamp);
        }
        let hash = self.store.registry.read().hash;
        if check_chain(hash, entry).is_err() {
            let reason = "a change of the set of branches does not continue those before";
            self.lose(at, "changes of the set of branches", reason, (1, stamp.version - 1));
        }
        match change {
            BranchChange::Create { id, name, parent } => self.create(*id, name, *parent, stamp, at)?,
            BranchChange::Rename { id, name } => {
                self.branch(*id, stamp, at)?;
                self.make_room_for(name, *id, stamp)?;
                self.store.registry.write().apply(change, stamp)?;
            }
            BranchChange::Delete { id }
            | BranchChange::Seal { id, .. }
            | BranchChange::Tag { id, .. }
            | BranchChange::Untag { id, .. } => {
                self.branch(*id, stamp, at)?;
                self.store.registry.write().apply(change, stamp)?;
            }
        }
        self.store.registry.write().hash = stamp.hash;
        self.records += 1;
        Ok(())
    }

    /// Of the time before the runs were written, when names and what else was said of branches is all that is missing.
    fn take_old_change(&mut self, change: &BranchChange, stamp: Stamp) -> Result<()> {
        use BranchChange::{Create, Delete, Rename, Seal, Tag, Untag};
        let (Create { id, .. }
        | Rename { id, .. }
        | Delete { id }
        | Seal { id, .. }
        | Tag { id, .. }
        | Untag { id, .. }) = change;
        if self.store.registry.read().by_id(*id).is_none() {
            return Ok(());
        }
        let (Create { name, .. } | Rename { name, .. }) = change else {
            return self.store.registry.write().apply(change, stamp);
        };
        self.make_room_for(name, *id, stamp)?;
        let change = Rename { id: *id, name: name.clone() };
        self.store.registry.write().apply(&change, stamp)
    }

    fn create(&mut self, id: u32, name: &str, parent: Option<(u32, u64)>, stamp: Stamp, at: Spot) -> Result<()> {
        if self.store.registry.read().by_id(id).is_some() {
            self.lose(at, "a record of the log", format!("branch {id} is made twice"), (stamp.version, stamp.version));
            return Ok(());
        }
        let parent = parent.filter(|(parent, _)| *parent < id);
        if let Some((parent, fork)) = parent {
            let parent = self.branch(parent, stamp, at)?;
            // It was left at a commit that is not there, or behind one.
            let is_missing = fork > parent.line.lock().applied;
            if is_missing || self.holes.contains_key(&parent.id) {
                self.holes.insert(id, stamp.version);
            }
        }
        self.make_room_for(name, id, stamp)?;
        let change = BranchChange::Create { id, name: name.to_owned(), parent };
        self.store.registry.write().apply(&change, stamp)
    }

    /// Whoever else has the name lost it in a record that is lost.
    fn make_room_for(&mut self, name: &str, id: u32, stamp: Stamp) -> Result<()> {
        let other = self.store.registry.read().all().find(|branch| *branch.name.read() == name).map(|branch| branch.id);
        let Some(other) = other.filter(|other| *other != id) else { return Ok(()) };
        let name = self.free_name(format!("recovered-{other}"));
        let hash = self.store.registry.read().hash;
        let change = BranchChange::Rename { id: other, name };
        self.store.registry.write().apply(&change, Stamp { hash, ..stamp })
    }

    fn free_name(&self, wanted: String) -> String {
        let registry = self.store.registry.read();
        let is_free = |name: &String| !registry.all().any(|branch| *branch.name.read() == *name);
        let mut names = std::iter::once(wanted.clone()).chain((2..).map(|number| format!("{wanted}-{number}")));
        names.find(is_free).unwrap_or(wanted)
    }

    // --- commits -----------------------------------------------------------------------------------

    fn take_commit(
        &mut self,
        entry: &Entry<'_>,
        branch: &Arc<Branch>,
        meta: &Meta,
        logged: &[Logged<'_>],
        reads: &[Read],
        at: Spot,
    ) -> Result<()> {
        let stamp = entry.stamp;
        let (hash, applied) = {
            let line = branch.line.lock();
            (line.hash, line.applied)
        };
        if stamp.version <= applied {
            // The runs have it; with a MANIFEST the log begins behind them.
            if self.source.is_known {
                let versions = (stamp.version, stamp.version);
                self.lose(at, "a record of the log", "it is older than what the runs hold", versions);
            }
            return Ok(());
        }
        if check_chain(hash, entry).is_err() {
            self.holes.insert(branch.id, stamp.version - 1);
            self.damaged.insert(branch.id);
            let reason = format!("version {} of '{}' does not continue {applied}", stamp.version, branch.name.read());
            self.lose(at, "commits of a branch", reason, (applied + 1, stamp.version - 1));
        }
        let kept = self.kept(branch, logged, stamp, at)?;
        let entries = self.catalogue_entries(branch, &kept)?;
        let mut writes: Vec<Write<'_>> =
            entries.iter().map(|(key, value)| Write { keyspace: CATALOGUE, key, what: What::Put(value) }).collect();
        writes.extend(kept.iter().map(|logged| as_write(logged)));
        self.apply(branch, stamp, &writes, meta, reads, at)?;
        self.records += 1;
        Ok(())
    }

    fn apply(
        &mut self,
        branch: &Arc<Branch>,
        stamp: Stamp,
        writes: &[Write<'_>],
        meta: &Meta,
        reads: &[Read],
        at: Spot,
    ) -> Result<()> {
        let error = match self.store.apply_logged(branch, stamp, writes, meta, reads) {
            Ok(()) => return Ok(()),
            Err(error @ (Error::Storage { .. } | Error::LimitExceeded { .. } | Error::Internal(_))) => {
                return Err(error);
            }
            Err(error) => error,
        };
        // A patch that cannot be made on what is there.
        self.damaged.insert(branch.id);
        self.lose(at, "changes of values", error.to_string(), (stamp.version, stamp.version));
        let whole = writes.iter().filter(|write| !matches!(write.what, What::Patch(..) | What::Add(_)));
        let whole: Vec<Write<'_>> = whole.filter_map(copy_of).collect();
        self.store.apply_logged(branch, stamp, &whole, meta, reads)
    }

    /// The writes of a record that stand for themselves, or rest on what is there.
    fn kept<'l>(
        &mut self,
        branch: &Arc<Branch>,
        logged: &'l [Logged<'l>],
        stamp: Stamp,
        at: Spot,
    ) -> Result<Vec<&'l Logged<'l>>> {
        let mut kept = Vec::with_capacity(logged.len());
        for write in logged {
            let reason = self.fault(branch, write)?;
            match reason {
                None => kept.push(write),
                Some(reason) => self.lose_write(branch, write, stamp, at, reason),
            }
        }
        Ok(kept)
    }

    /// Why a write is not to be kept.
    fn fault(&self, branch: &Arc<Branch>, write: &Logged<'_>) -> Result<Option<&'static str>> {
        if write.keyspace == CATALOGUE {
            return Ok(self.store.learn(write).is_err().then_some("the catalogue contradicts itself"));
        }
        if write.keyspace >= RESERVED || self.store.keyspace_name(write.keyspace).1.is_empty() {
            return Ok(Some("nothing tells the space that it is in"));
        }
        Ok(match &write.body {
            Body::Put(bytes) | Body::Expiring(bytes, _) | Body::Append(bytes) => {
                value::check(bytes).is_err().then_some("a value cannot be read")
            }
            Body::Delete => None,
            Body::Patch(_) | Body::Add(_) => {
                let is_doubtful = !self.is_whole && self.is_doubtful(branch, write.keyspace, write.key)?;
                (is_doubtful && !sabotage::on("S01")).then_some("it changes a value that may be lost")
            }
        })
    }

    fn lose_write(&mut self, branch: &Arc<Branch>, write: &Logged<'_>, stamp: Stamp, at: Spot, reason: &'static str) {
        self.is_whole = false;
        self.damaged.insert(branch.id);
        let spot = (place_key(branch.id, write.keyspace, write.key), stamp.version);
        let keyspaces = self.store.keyspaces.read().names().to_vec();
        let mut place = place_of(&State { keyspaces, ..State::default() }, &spot);
        place.branch = branch.name.read().clone();
        self.lost.push(Loss {
            file: at.file(),
            offset: at.offset,
            what: "a version of a key",
            reason: reason.to_owned(),
            first: Some(place.clone()),
            last: Some(place),
            versions: Some((stamp.version, stamp.version)),
            ..Loss::default()
        });
    }

    /// Whether the newest value of a key may not be the one that there was.
    fn is_doubtful(&self, branch: &Arc<Branch>, keyspace: u32, key: &[u8]) -> Result<bool> {
        let has_newer = |than: u64| branch.data.read().changed_since(keyspace, key, than);
        if let Some(&hole) = self.holes.get(&branch.id) {
            return Ok(!has_newer(hole)?);
        }
        for range in self.ranges.iter().filter(|range| range.covers(branch.id, keyspace, key)) {
            if !has_newer(range.newest(branch.id))? {
                return Ok(true);
            }
        }
        if has_newer(0)? {
            return Ok(false);
        }
        let mut parent = branch.parent.as_ref();
        while let Some(fork) = parent {
            let id = fork.branch.id;
            if self.ranges.iter().any(|range| range.newest(id) > 0 && range.covers(id, keyspace, key)) {
                return Ok(true);
            }
            parent = fork.branch.parent.as_ref();
        }
        Ok(false)
    }

    /// Entries of the catalogue that the branch lacks for these writes.
    fn catalogue_entries(&self, branch: &Arc<Branch>, kept: &[&Logged<'_>]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut entries: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        if self.is_whole {
            return Ok(Vec::new());
        }
        for write in kept.iter().filter(|write| write.keyspace != CATALOGUE) {
            let (space, kind) = self.store.keyspace_name(write.keyspace);
            let key = catalogue_key(&space, &kind);
            let is_own = kept.iter().any(|other| other.keyspace == CATALOGUE && other.key == key);
            if !is_own && branch.value(CATALOGUE, &key, At::newest(0))?.is_none() {
                entries.insert(key, Number::Int(write.keyspace.into()).to_value());
            }
        }
        Ok(entries.into_iter().collect())
    }

    // --- the result --------------------------------------------------------------------------------

    /// Write what the log gave as a run; its number, where there is anything.
    pub fn write(&mut self, fresh: &Fresh, number: u64) -> Result<Option<u64>> {
        let mut writer = fresh.run_numbered(number)?;
        let state = &self.source.manifest.state;
        let names = self.store.keyspaces.read().names().to_vec();
        let branches = self.store.registry.read().with_ancestors();
        let mut rows = MemoryRows::new(&branches, (0, u64::MAX));
        while let Some(row) = rows.row() {
            let version = row.version.version;
            // What was read from the run stands in the tables, too.
            let is_new = version > self.settled.get(&row.branch).copied().unwrap_or(0);
            let is_erased = version <= erased_upto(&state.erasures, &names, row.keyspace, row.key);
            if is_new && (!is_erased || sabotage::on("S04")) {
                debug_assert!(are_paths(row.version.touched));
                writer.add(row.branch, row.keyspace, row.key, &row.version)?;
            }
            rows.advance();
        }
        self.rows = writer.rows();
        end_run(writer, number)
    }

    /// The branches and what else the MANIFEST says, as of the newest record.
    pub fn state(&self) -> Result<State> {
        let old = &self.source.manifest.state;
        let registry = self.store.registry.read();
        let mut state = registry.state();
        let branches = registry.with_ancestors();
        for found in &mut state.branches {
            (found.version, found.hash) = branches[&found.id].data.read().state_at(u64::MAX);
        }
        state.keyspaces = self.store.keyspaces.read().names().to_vec();
        state.policies = old.policies.clone();
        Ok(state)
    }
}

/// A write again, for those that stand for themselves.
fn copy_of<'a>(write: &Write<'a>) -> Option<Write<'a>> {
    let what = match &write.what {
        What::Put(value) => What::Put(value),
        What::PutFor(value, expiry) => What::PutFor(value, *expiry),
        What::Appended(value) => What::Appended(value),
        What::Delete => What::Delete,
        _ => return None,
    };
    Some(Write { keyspace: write.keyspace, key: write.key, what })
}
