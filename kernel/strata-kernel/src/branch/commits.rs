//! The commits of a branch: which there were, when, and what they say about themselves.

use super::{At, Branch, Data, NOW};
use crate::error::Result;
use crate::keyspaces::NOTES;
use crate::log::{Stamp, StateHash};
use crate::payload::{Meta, Note};

pub struct CommitRow {
    pub version: u64,
    pub time: u64,
    pub branch: String,
    pub meta: Meta,
}

impl Data {
    /// The newest commit of this branch's own that `is_within` accepts; it accepts all commits up to one.
    fn last_commit(&self, is_within: impl Fn(&Stamp) -> bool) -> Result<Option<Stamp>> {
        for layer in self.layers() {
            let behind = layer.commits.partition_point(&is_within);
            if let Some(found) = behind.checked_sub(1) {
                return Ok(Some(layer.commits[found]));
            }
        }
        Ok(None)
    }

    /// Own commits with `after < version <= upto`, oldest first or newest first, at most `limit`.
    fn commits_between(&self, after: u64, upto: u64, reverse: bool, limit: usize) -> Result<Vec<Stamp>> {
        let mut parts: Vec<&[Stamp]> = Vec::new();
        let mut upto = upto;
        for layer in self.layers() {
            let low = layer.commits.partition_point(|commit| commit.version <= after);
            let high = layer.commits.partition_point(|commit| commit.version <= upto).max(low);
            parts.push(&layer.commits[low..high]);
            upto = layer.commits.first().map_or(upto, |first| upto.min(first.version - 1));
        }
        Ok(match reverse {
            true => parts.iter().flat_map(|part| part.iter().rev()).take(limit).copied().collect(),
            false => parts.iter().rev().flat_map(|part| part.iter()).take(limit).copied().collect(),
        })
    }

    /// The state hash after the newest commit at or below `version`, where that commit is in memory.
    pub fn hash_at(&self, version: u64) -> Option<StateHash> {
        self.last_commit(|commit| commit.version <= version).ok().flatten().map(|commit| commit.hash)
    }
}

impl Branch {
    /// The newest commit that `version` shows; `None` before the first.
    pub fn commit_at(&self, version: u64) -> Result<Option<Stamp>> {
        for (branch, at) in self.lineage(At::from(version)) {
            let found = branch.data.read().last_commit(|commit| commit.version <= at.version)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// When `version` was committed, as seen from this branch; 0 before the first commit.
    pub fn time_of(&self, version: u64) -> Result<u64> {
        Ok(self.commit_at(version)?.map_or(0, |commit| commit.time))
    }

    /// The newest version whose commit time is at or before `time`; 0 before the first commit.
    pub fn version_at(&self, time: u64) -> Result<u64> {
        for (branch, at) in self.lineage(At { version: self.head(), time: NOW }) {
            let is_within = |commit: &Stamp| commit.version <= at.version && commit.time <= time;
            if let Some(commit) = branch.data.read().last_commit(is_within)? {
                return Ok(commit.version);
            }
        }
        Ok(0)
    }

    /// Commits with `after < version < before`, oldest first (newest first when `reverse`), at most `limit`.
    pub fn commits(&self, after: u64, before: u64, reverse: bool, limit: usize) -> Result<Vec<CommitRow>> {
        let mut parts = self.lineage(At::from(self.head().min(before.saturating_sub(1))));
        if !reverse {
            parts.reverse();
        }
        let mut rows = Vec::new();
        for (branch, at) in parts {
            let stamps = branch.data.read().commits_between(after, at.version, reverse, limit - rows.len())?;
            for stamp in stamps {
                rows.push(branch.commit_row(stamp)?);
            }
        }
        Ok(rows)
    }

    fn commit_row(&self, stamp: Stamp) -> Result<CommitRow> {
        let note = self.value(NOTES, &stamp.version.to_be_bytes(), stamp.version)?;
        let meta = note.map_or(Ok(Note::default()), |note| Note::decode(&note))?.meta;
        Ok(CommitRow { version: stamp.version, time: stamp.time, branch: self.name.read().clone(), meta })
    }
}
