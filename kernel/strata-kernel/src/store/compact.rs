//! Compaction: runs become one, without what nobody can see and what retention lets go of.
//!
//! It merges runs that lie beside each other, so the order of versions among runs stays. The new run is written beside the
//! old ones; a MANIFEST then names it in their place and they are removed. Who reads an old run goes on reading it: its
//! file is open.
//!
//! What may go is *planned* at the start: rules, pins, branches. If a pin came meanwhile that sees what was let go of, the
//! merge is thrown away. Rows above the last checkpoint are not in runs, so nothing that is being written is touched.
//!
//! The merge goes in steps, so that in the background it can give way to others.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Store;
use super::checkpoint::write_commits;
use super::merge_rows::MergeRows;
use super::plan::Plan;
use super::version_set::VersionSet;
use crate::branch::{Branch, CHUNK, decode_chunk, raise};
use crate::error::Result;
use crate::keyspaces::{COMMITS, IDEMPOTENCY, NOTES};
use crate::log::Stamp;
use crate::manifest::Manifest;
use crate::retention::{Floors, KeyFilter, Rule};
use crate::run::{Run, RunWriter};
use crate::sabotage;
use crate::table::ChangeKind;

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compacted {
    pub reclaimed_bytes: i64,
    pub segments_removed: u64,
    pub versions_removed: u64,
    pub runs_merged: u64,
}

/// Rows of a step: about half a millisecond.
const STEP_ROWS: usize = 512;
/// So often a merge is begun because of pins that come meanwhile; the last one leaves alone what they could see.
const TRIES: usize = 8;

impl Store {
    /// Write everything that is committed to one run, without what may go; `progress` is told of rows done and in all.
    pub fn compact(&self, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Compacted> {
        self.check_store_writable()?;
        if !self.keeps_a_log() {
            return self.compact_in_memory();
        }
        let mut merging = self.compactor.lock();
        drop(merging.take());
        let segments = self.log.segment();
        // What is let go of must not be seen in memory either.
        let trims = self.of_state(|state| !(state.policies.is_empty() && state.erasures.is_empty()));
        if trims {
            self.freeze();
        }
        self.checkpoint()?;
        let segments_removed = self.log.segment().saturating_sub(segments);
        while self.flatten()? {}
        for attempt in 1..=TRIES {
            let runs = self.runs.read().clone();
            let mut merge = Compaction::new(self, runs)?;
            if !merge.is_worth_it() {
                self.end_rotation()?;
                return Ok(Compacted { segments_removed, ..Compacted::default() });
            }
            if attempt == TRIES {
                merge.plan.keep_history();
            }
            while !merge.step()? {
                self.check_open()?;
                progress(merge.done, merge.total)?;
            }
            if let Some(compacted) = self.install(merge)? {
                if trims {
                    self.drop_all_layers(self.checkpoint_version());
                }
                self.end_rotation()?;
                return Ok(Compacted { segments_removed, ..compacted });
            }
        }
        Ok(Compacted { segments_removed, ..Compacted::default() })
    }

    /// Put the new run in the place of the old ones; `None` when a pin came that what is gone was needed for.
    pub(super) fn install(&self, merge: Compaction) -> Result<Option<Compacted>> {
        let Compaction { inputs, writer, plan, floors, number, removed, .. } = merge;
        if !sabotage::on("K31") {
            // That a branch was deleted may stand in the part of the log that a power cut takes: then the branch comes back,
            // and what it shows must be there.
            self.log.flush()?;
        }
        let made = match writer.rows() {
            0 => None, // dropping the writer removes its file
            _ => {
                writer.finish()?;
                Some(self.open_written(number)?)
            }
        };
        let _alone = self.keeper.lock();
        let Some(mut manifest) = self.manifest() else { return Ok(None) };
        let raised = Raised::new(&plan, &floors);
        let Some(raised) = raised else {
            self.remove_runs(made.as_slice())?;
            return Ok(None);
        };
        for state in &mut manifest.state.branches {
            raise(&mut state.floors, &floors_of(&floors, state.id));
        }
        let live = splice(&self.runs.read(), &inputs, made.as_ref());
        let runs = live.iter().map(|run| run.number()).collect();
        if sabotage::on("T23") {
            self.remove_runs(&inputs)?;
        }
        self.switch(Manifest { runs, ..manifest })?;
        raised.keep();
        self.publish_all(live);
        if !sabotage::on("T23") {
            self.remove_runs(&inputs)?;
        }
        let before: u64 = inputs.iter().map(|run| run.file_bytes()).sum();
        let after = made.as_ref().map_or(0, |run| run.file_bytes());
        Ok(Some(Compacted {
            reclaimed_bytes: before as i64 - after as i64,
            segments_removed: 0,
            versions_removed: removed,
            runs_merged: inputs.len() as u64,
        }))
    }

    /// Let readers find these runs and no others.
    pub(super) fn publish_all(&self, live: Vec<Arc<Run>>) {
        for (id, branch) in self.registry.read().with_ancestors() {
            let runs = live.iter().rev().filter(|run| run.span(id).is_some());
            let mut data = branch.data.write();
            data.runs = runs.cloned().collect();
            data.outdate_indexes();
        }
        *self.runs.write() = live;
    }

    /// Remove the files of runs that no MANIFEST names. Who reads one has it open.
    fn remove_runs(&self, runs: &[Arc<Run>]) -> Result<()> {
        if sabotage::on("T60") {
            return Ok(());
        }
        for run in runs {
            run.forget();
            self.env.disk.remove(&crate::run::path(run.number()))?;
            self.remove_parts(run)?;
        }
        Ok(())
    }
}

/// The floors of one branch.
fn floors_of(floors: &BTreeMap<(u32, u32), u64>, branch: u32) -> Floors {
    floors.range((branch, 0)..=(branch, u32::MAX)).map(|(&(_, keyspace), &floor)| (keyspace, floor)).collect()
}

/// Floors that were raised in memory, and are set back unless they are kept.
struct Raised(Vec<(Arc<Branch>, Floors)>);

impl Raised {
    /// `None` when a pin came that the plan knew nothing of, and that sees below.
    fn new(plan: &Plan, floors: &BTreeMap<(u32, u32), u64>) -> Option<Raised> {
        let mut raised = Raised(Vec::new());
        for (id, branch) in plan.branches() {
            let floors = floors_of(floors, id);
            if !floors.is_empty() {
                raised.0.push((Arc::clone(branch), branch.raise_floors(&floors, plan.pins(id))?));
            }
        }
        Some(raised)
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        for (branch, before) in self.0.drain(..) {
            branch.data.write().floors = before;
        }
    }
}

/// `runs` with `made` where `inputs` were.
fn splice(runs: &[Arc<Run>], inputs: &[Arc<Run>], made: Option<&Arc<Run>>) -> Vec<Arc<Run>> {
    let first = inputs.first().and_then(|first| runs.iter().position(|run| Arc::ptr_eq(run, first)));
    let start = first.expect("only compaction removes runs, and one at a time");
    let mut spliced = runs[..start].to_vec();
    spliced.extend(made.cloned());
    spliced.extend_from_slice(&runs[start + inputs.len()..]);
    spliced
}

/// A merge in progress.
pub(super) struct Compaction {
    inputs: Vec<Arc<Run>>,
    rows: MergeRows,
    writer: RunWriter,
    number: u64,
    plan: Plan,
    group: Option<Group>,
    /// Versions of the branch that still have a row.
    survivors: VersionSet,
    commits: Vec<Stamp>,
    floors: BTreeMap<(u32, u32), u64>,
    removed: u64,
    done: u64,
    total: u64,
}

/// The versions of one key.
struct Group {
    branch: u32,
    keyspace: u32,
    key: Vec<u8>,
    filter: KeyFilter,
    rule: Rule,
    erased_upto: u64,
    /// Deletions that are kept if anything older is.
    deletions: Vec<(u64, u64)>,
}

impl Compaction {
    /// Of `inputs`, which lie beside each other, the oldest first.
    pub fn new(store: &Store, inputs: Vec<Arc<Run>>) -> Result<Compaction> {
        let is_bottom = match (store.runs.read().first(), inputs.first()) {
            (Some(oldest), Some(first)) => Arc::ptr_eq(oldest, first),
            _ => true,
        };
        let plan = store.plan(is_bottom)?;
        let number = store.next_run();
        let writer = RunWriter::create(&store.env.disk, number, &store.run_options())?;
        Ok(Compaction {
            rows: MergeRows::new(&inputs)?,
            total: inputs.iter().map(|run| run.rows()).sum(),
            inputs,
            writer,
            number,
            plan,
            group: None,
            survivors: VersionSet::default(),
            commits: Vec::new(),
            floors: BTreeMap::new(),
            removed: 0,
            done: 0,
        })
    }

    /// Whether anything could come of it.
    pub fn is_worth_it(&self) -> bool {
        let key = self.writer.key();
        let is_other = |run: &Run| run.key() != key && !sabotage::on("K34");
        self.inputs.len() > 1 || self.inputs.first().is_some_and(|run| is_other(run) || self.plan.lets_go_of(run))
    }

    /// Some more rows; true when it is done.
    pub fn step(&mut self) -> Result<bool> {
        for _ in 0..STEP_ROWS {
            if self.rows.info().is_none() {
                self.end_branch()?;
                return Ok(true);
            }
            self.take()?;
            self.rows.advance()?;
            self.done += 1;
        }
        Ok(false)
    }

    fn take(&mut self) -> Result<()> {
        let row = self.rows.info().expect("the caller looked");
        let (branch, keyspace) = (row.branch, row.keyspace);
        if self
            .group
            .as_ref()
            .is_none_or(|group| (group.branch, group.keyspace, &group.key[..]) != (branch, keyspace, row.key))
        {
            self.begin_group()?;
        }
        if !self.plan.has(branch) {
            self.removed += 1;
            return Ok(());
        }
        match keyspace {
            COMMITS => self.take_commits(),
            NOTES => self.take_note(),
            _ => self.take_version(),
        }
    }

    fn begin_group(&mut self) -> Result<()> {
        let row = self.rows.info().expect("the caller looked");
        let (branch, keyspace, key) = (row.branch, row.keyspace, row.key.to_vec());
        if self.group.as_ref().is_some_and(|group| group.branch != branch) {
            self.end_branch()?;
        }
        let erased_upto = self.plan.erased_upto(keyspace, &key);
        let rule = self.plan.rule(branch, keyspace)?;
        let (filter, deletions) = (KeyFilter::default(), Vec::new());
        self.group = Some(Group { branch, keyspace, key, filter, rule, erased_upto, deletions });
        Ok(())
    }

    fn take_version(&mut self) -> Result<()> {
        let row = self.rows.info().expect("the caller looked");
        let group = self.group.as_mut().expect("it was begun");
        let (branch, keyspace, version) = (row.branch, row.keyspace, row.version);
        let is_gone = version <= group.erased_upto
            || self.plan.is_unseen(branch, version)
            || (keyspace == IDEMPOTENCY && row.expires <= self.plan.now);
        if is_gone {
            self.removed += 1;
            return Ok(());
        }
        // The fork pins what it sees of its ancestors, and being flat must make no difference to that.
        let is_inherited = version <= self.plan.forked_at(branch);
        let floor = self.floors.entry((branch, keyspace)).or_default();
        if !is_inherited && !group.filter.keeps(version, &group.rule, self.plan.pins(branch), floor) {
            self.removed += 1;
            return Ok(());
        }
        let is_last = !group.rule.keeps_all() && self.plan.is_bottom(branch);
        if row.kind == ChangeKind::Delete && (is_last || sabotage::on("K30")) {
            // With nothing below it, it says no more than its absence, once no read comes below it.
            group.deletions.push((version, row.expires));
            return Ok(());
        }
        self.write_deletions()?;
        let row = self.rows.row()?.expect("the caller looked");
        self.writer.add(branch, keyspace, row.key, &row.version)?;
        self.survivors.insert(version);
        Ok(())
    }

    /// Something older is kept, so the deletions above it are, too.
    fn write_deletions(&mut self) -> Result<()> {
        let group = self.group.as_mut().expect("it was begun");
        for (version, _) in group.deletions.drain(..) {
            let deletion = crate::table::Version { version, ..crate::table::Version::own(None) };
            self.writer.add(group.branch, group.keyspace, &group.key, &deletion)?;
            self.survivors.insert(version);
        }
        Ok(())
    }

    /// A note stays as long as its commit.
    fn take_note(&mut self) -> Result<()> {
        let row = self.rows.row()?.expect("the caller looked");
        if self.keeps_commit(row.branch, row.version.version) {
            self.writer.add(row.branch, row.keyspace, row.key, &row.version)?;
        } else {
            self.removed += 1;
        }
        Ok(())
    }

    /// A commit stays as long as anything that it wrote; and all do where nothing may be let go of.
    fn keeps_commit(&self, branch: u32, version: u64) -> bool {
        !self.plan.is_unseen(branch, version) && (!self.plan.trims(branch) || self.survivors.contains(version))
    }

    fn take_commits(&mut self) -> Result<()> {
        let row = self.rows.row()?.expect("the caller looked");
        let (branch, chunk) = (row.branch, decode_chunk(row.version.value.unwrap_or_default())?);
        let kept = chunk.into_iter().filter(|commit| self.keeps_commit(branch, commit.version));
        let kept: Vec<Stamp> = kept.collect();
        self.commits.extend(kept);
        if self.commits.len() >= CHUNK {
            let whole = self.commits.len() / CHUNK * CHUNK;
            let rest = self.commits.split_off(whole);
            write_commits(&mut self.writer, branch, &std::mem::replace(&mut self.commits, rest))?;
        }
        Ok(())
    }

    fn end_branch(&mut self) -> Result<()> {
        if let Some(group) = self.group.take() {
            write_commits(&mut self.writer, group.branch, &std::mem::take(&mut self.commits))?;
        }
        self.survivors.clear();
        self.floors.retain(|_, floor| *floor > 0);
        Ok(())
    }
}
