//! Deep branches: a read of a fork of a fork of a fork asks them all, so a deep one gets a run of its own with what the
//! branches between it and the root wrote, as it sees it.
//!
//! The rows keep their versions, which are at or below that of the fork, and so below all that the branch wrote itself: the
//! run goes before its other runs. Reads from the fork version on then go straight to the root; older ones go the old way.
//! What it costs is what those branches wrote, not what the root holds.

use std::sync::Arc;

use super::Store;
use crate::branch::{At, Branch, Fork, Range, versions_of};
use crate::error::Result;
use crate::keyspaces::IDEMPOTENCY;
use crate::manifest::Manifest;
use crate::run::{Run, RunWriter};

/// Rows of a piece: read together under the locks of the branches.
const PIECE_ROWS: usize = 1024;

impl Store {
    /// Make one deep branch flat, if there is any; whether there was. With the compactor's lock held.
    pub(super) fn flatten(&self) -> Result<bool> {
        let Some((branch, fork)) = self.deep_branch() else { return Ok(false) };
        let _alone = self.keeper.lock();
        let Some(mut manifest) = self.manifest() else { return Ok(false) };
        let sources = branch.sources(At::from(fork));
        let Some((&(root, at), between)) = sources[1..].split_last() else { return Ok(false) };
        let flat = (root.id, at.version);
        let run = self.write_flat(&branch, between)?;
        let Some(state) = manifest.state.branches.iter_mut().find(|state| state.id == branch.id) else {
            return Ok(false);
        };
        state.flat = Some(flat);
        let mut live = self.runs.read().clone();
        if let Some(run) = &run {
            let first = live.iter().position(|run| run.span(branch.id).is_some());
            live.insert(first.unwrap_or(live.len()), Arc::clone(run));
        }
        let runs = live.iter().map(|run| run.number()).collect();
        self.switch(Manifest { runs, ..manifest })?;
        self.publish_all(live);
        if let Some(root) = self.registry.read().with_ancestors().remove(&flat.0) {
            branch.set_flat(Fork { branch: root, version: flat.1 });
        }
        Ok(true)
    }

    /// A branch whose reads ask too many, and that the MANIFEST knows.
    fn deep_branch(&self) -> Option<(Arc<Branch>, u64)> {
        let checkpoint = self.checkpoint_version();
        let branches = self.registry.read().with_ancestors();
        branches.into_values().find_map(|branch| {
            let fork = branch.parent.as_ref().filter(|_| branch.flat().is_none())?.version;
            let is_deep = branch.sources(At::from(fork)).len() > self.options.branches_deep;
            let is_known = self.of_state(|state| state.branches.iter().any(|state| state.id == branch.id));
            (is_deep && is_known && fork <= checkpoint).then_some((branch, fork))
        })
    }

    /// What `between` show together, as rows of `branch`.
    fn write_flat(&self, branch: &Branch, between: &[(&Branch, At)]) -> Result<Option<Arc<Run>>> {
        let number = self.next_run();
        let mut writer = RunWriter::create(&self.env.disk, number, &self.run_options())?;
        let named = self.keyspaces.read().names().len() as u32;
        for keyspace in (0..=named).chain([IDEMPOTENCY]) {
            let mut range = Range::default();
            loop {
                let (before, mut last) = (writer.rows(), Vec::new());
                versions_of(between, keyspace, &range, PIECE_ROWS, |key, version| {
                    last = key.to_vec();
                    writer.add(branch.id, keyspace, key, version)
                })?;
                if writer.rows() - before < PIECE_ROWS as u64 {
                    break;
                }
                // The next possible key is this one and a zero byte.
                last.push(0);
                range.start = last;
            }
        }
        if writer.rows() == 0 {
            return Ok(None);
        }
        writer.finish()?;
        self.open_written(number).map(Some)
    }
}
