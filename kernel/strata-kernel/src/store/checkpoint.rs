//! Checkpoint: write what is only in the log to a run, and let go of the log before it.
//!
//! 1. *Cut*: the log ends a segment. All commits up to that version C are applied once the line of each branch was taken.
//! 2. *Write*: rows above the last checkpoint and not above C, from the layers of all branches, go to one new run. Tables
//!    keep all versions, so commits go on meanwhile; tables are copied from in small pieces, each under the read lock.
//! 3. *Switch*: a MANIFEST names the run, C, the branches as of C, and the segment where the log goes on.
//! 4. *Let go*: older segments are removed; layers that runs hold are dropped when memory is short.
//!
//! A failure before the switch changes nothing but for a file that nobody names; the log still has everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Store;
use super::layer_rows::LayerRows;
use crate::branch::{Branch, CHUNK, Data, encode_chunk};
use crate::error::Result;
use crate::keyspaces::{COMMITS, IDEMPOTENCY, NOTES};
use crate::log::{Cut, Stamp, StateHash};
use crate::manifest::Manifest;
use crate::run::{Run, RunWriter};
use crate::sabotage;
use crate::state::State;
use crate::table::Version;

/// What a checkpoint made durable without the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checkpoint {
    pub version: u64,
    pub time: u64,
    /// The run that it wrote, if there was anything to write.
    pub run: Option<u64>,
    pub rows: u64,
    pub bytes: u64,
}

type Branches = BTreeMap<u32, Arc<Branch>>;

/// The versions that a checkpoint writes: above the first, up to the second.
pub(super) type Window = (u64, u64);

impl Store {
    /// Make the runs hold everything that is committed now.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        self.check_store_writable()?;
        let made = {
            let _alone = self.keeper.lock();
            self.checkpoint_alone()?
        };
        // There may be something to merge now.
        self.wake_keeper();
        Ok(made)
    }

    /// `checkpoint` with the keeper's lock held.
    pub(super) fn checkpoint_alone(&self) -> Result<Checkpoint> {
        let Some(manifest) = self.manifest() else {
            return Ok(Checkpoint {
                version: self.log.last_version(),
                time: self.log.last_time(),
                ..Checkpoint::default()
            });
        };
        // The long part of the sync comes first, while nothing waits for it.
        self.log.flush()?;
        if self.is_short_of_memory() {
            self.freeze();
            if sabotage::on("K05") {
                self.drop_layers(u64::MAX);
            }
        }
        let (cut, mut state, branches) = self.cut()?;
        if (cut.version, cut.segment) == (manifest.checkpoint_version, manifest.segment) {
            // Where letting go of older segments failed before, it is tried again.
            self.log.retire(cut.segment)?;
            self.drop_layers(cut.version);
            return Ok(Checkpoint { version: cut.version, time: cut.time, ..Checkpoint::default() });
        }
        for found in &mut state.branches {
            let branch = &branches[&found.id];
            // Who holds the line may have appended before the cut, and not applied yet.
            drop(branch.line.lock());
            (found.version, found.hash) = branch.data.read().state_at(cut.version);
        }
        if !sabotage::on("K18") {
            state.keyspaces = self.keyspaces.read().names().to_vec();
        }
        if !sabotage::on("K35") {
            state.policies = manifest.state.policies.clone();
        }
        state.erasures = manifest.state.erasures.clone();
        if !sabotage::on("I01") {
            (state.indexes, state.next_index) = (manifest.state.indexes.clone(), manifest.state.next_index);
        }
        let number = self.next_run();
        let window = sabotaged_window((manifest.checkpoint_version, cut.version));
        let run = self.write_run(number, &branches, window)?;
        let settled: Vec<_> = state.branches.iter().map(|branch| (branch.id, (branch.version, branch.hash))).collect();
        if sabotage::on("T20") {
            self.log.retire(cut.segment)?;
        }
        let runs = manifest.runs.iter().copied().chain(run.as_ref().map(|run| run.number())).collect();
        let manifest = Manifest {
            segment: if sabotage::on("T21B") { manifest.segment } else { cut.segment },
            proven: cut.position + u64::from(sabotage::on("K29")),
            checkpoint_version: cut.version,
            checkpoint_time: if sabotage::on("K19") { 0 } else { cut.time },
            runs,
            state,
            ..manifest
        };
        if sabotage::on("T22") {
            self.switch(Manifest { runs: self.manifest().unwrap_or_default().runs, ..manifest.clone() })?;
        }
        self.switch(manifest)?;
        self.publish(&branches, &settled, run.as_ref());
        if !sabotage::on("T21B") {
            self.log.retire(cut.segment)?;
        }
        self.drop_layers(cut.version);
        let (rows, bytes) = run.as_ref().map_or((0, 0), |run| (run.rows(), run.file_bytes()));
        Ok(Checkpoint { version: cut.version, time: cut.time, run: run.map(|run| run.number()), rows, bytes })
    }

    /// The cut, and the branches exactly as of it: none is made, renamed or deleted meanwhile.
    fn cut(&self) -> Result<(Cut, State, Branches)> {
        let registry = self.registry.read();
        Ok((self.log.cut()?, registry.state(), registry.with_ancestors()))
    }

    fn write_run(&self, number: u64, branches: &Branches, window: Window) -> Result<Option<Arc<Run>>> {
        let mut writer = RunWriter::create(&self.env.disk, number, &self.run_options())?;
        for branch in branches.values().filter(|branch| !(sabotage::on("K12") && branch.is_deleted())) {
            write_branch(&mut writer, branch, window)?;
        }
        if writer.rows() == 0 {
            return Ok(None); // dropping the writer removes its file
        }
        writer.finish()?;
        self.open_written(number).map(Some)
    }

    /// Open a run that was just written.
    pub(super) fn open_written(&self, number: u64) -> Result<Arc<Run>> {
        let run = Run::open(&*self.env.disk, number, &self.cache, &self.run_options())?;
        self.run_bytes_written.fetch_add(run.file_bytes(), Ordering::Relaxed);
        self.index_new_run(&run);
        Ok(run)
    }

    /// Let readers find the new run.
    fn publish(&self, branches: &Branches, settled: &[(u32, (u64, StateHash))], run: Option<&Arc<Run>>) {
        self.runs.write().extend(run.cloned());
        for (id, settled) in settled {
            let mut data = branches[id].data.write();
            if !sabotage::on("K04") {
                data.settled = *settled;
            }
            data.outdate_indexes();
            if let Some(run) = run.filter(|run| run.span(*id).is_some()) {
                data.runs = std::iter::once(run).chain(data.runs.iter()).cloned().collect();
            }
        }
    }

    /// Let the tables of all branches take no more writes, so that they can be dropped once a run has them.
    pub(super) fn freeze(&self) {
        let branches = self.registry.read().with_ancestors();
        for branch in branches.values() {
            branch.data.write().freeze();
        }
    }

    /// Drop all frozen layers that runs hold.
    pub(super) fn drop_all_layers(&self, checkpoint: u64) {
        for branch in self.registry.read().with_ancestors().values() {
            branch.data.write().frozen.retain(|layer| layer.newest() > checkpoint);
        }
    }

    /// Drop frozen layers that runs hold, the oldest first, until memory suffices.
    pub(super) fn drop_layers(&self, checkpoint: u64) {
        let branches = self.registry.read().with_ancestors();
        let mut dropped = true;
        while dropped && self.is_short_of_memory() {
            dropped = false;
            for branch in branches.values() {
                let mut data = branch.data.write();
                if data.frozen.last().is_some_and(|layer| layer.newest() <= checkpoint) {
                    drop(data.frozen.pop());
                    dropped = true;
                }
            }
        }
    }
}

fn write_branch(writer: &mut RunWriter, branch: &Arc<Branch>, window: Window) -> Result<()> {
    let (keyspaces, commits) = {
        let data = branch.data.read();
        (keyspaces_of(&data, window), data.commits_between(window))
    };
    for keyspace in keyspaces {
        let mut rows = LayerRows::new(branch, keyspace, window);
        while let Some((key, version)) = rows.row() {
            if !is_sabotaged(keyspace, &version) {
                writer.add(branch.id, keyspace, key, &version)?;
            }
            rows.advance();
        }
    }
    let lost = usize::from(sabotage::on("K09") && commits.len() > 1);
    write_commits(writer, branch.id, &commits[lost..])
}

/// A window that is not the window, where that bug is planted.
fn sabotaged_window((after, upto): Window) -> Window {
    match () {
        () if sabotage::on("K01") => (after, u64::MAX),
        () if sabotage::on("K02") && after > 0 => (after + 1, upto),
        () if sabotage::on("K03") => (after.saturating_sub(1), upto),
        () => (after, upto),
    }
}

/// Whether a planted bug loses the row.
fn is_sabotaged(keyspace: u32, version: &Version<'_>) -> bool {
    (sabotage::on("K06") && version.value.is_none())
        || (sabotage::on("K10") && keyspace == IDEMPOTENCY)
        || (sabotage::on("K11") && keyspace == NOTES)
}

/// The keyspaces that were written to within the window, ascending.
pub(super) fn keyspaces_of(data: &Data, (after, _): Window) -> Vec<u32> {
    let tables = data.layers().flat_map(|layer| &layer.tables);
    let mut keyspaces: Vec<u32> =
        tables.filter(|(_, table)| table.newest() > after).map(|(&keyspace, _)| keyspace).collect();
    keyspaces.sort_unstable();
    keyspaces.dedup();
    keyspaces
}

pub(super) fn write_commits(writer: &mut RunWriter, branch: u32, commits: &[Stamp]) -> Result<()> {
    for chunk in commits.chunks(CHUNK) {
        let value = encode_chunk(chunk);
        let version = Version { version: chunk[0].version, ..Version::own(Some(&value)) };
        writer.add(branch, COMMITS, &chunk[0].version.to_be_bytes(), &version)?;
    }
    Ok(())
}
