//! The commits of a branch: which there were, when, and what they say about themselves.
//!
//! In memory they are a list for each layer. In runs they are rows of a keyspace of their own, each of up to 512 commits:
//! key and version of the row are the version of its first commit, its value is bytes:
//!
//! ```text
//! chunk   count varint | state hash after the last 16 | commits
//! commit  version varint | time varint, each as the difference to the commit before
//! ```

use std::sync::Arc;

use super::{At, Branch, Data, Range, Runs};
use crate::error::Result;
use crate::keyspaces::{COMMITS, NOTES};
use crate::log::{Stamp, StateHash};
use crate::pack::{Input, put_varint};
use crate::payload::{Meta, Note, Read, bytes_of};
use crate::value::write;

/// Looking for one commit reads a chunk as a whole.
pub const CHUNK: usize = 512;

pub struct CommitRow {
    pub version: u64,
    pub time: u64,
    pub branch: String,
    pub meta: Meta,
}

/// Commits as the value of a row.
pub fn encode_chunk(commits: &[Stamp]) -> Vec<u8> {
    let mut chunk = Vec::with_capacity(24 + 4 * commits.len());
    put_varint(&mut chunk, commits.len() as u64);
    chunk.extend_from_slice(&commits.last().map_or(StateHash::default(), |last| last.hash).0);
    let (mut version, mut time) = (0, 0);
    for commit in commits {
        put_varint(&mut chunk, commit.version - version);
        put_varint(&mut chunk, commit.time - time);
        (version, time) = (commit.version, commit.time);
    }
    let mut value = Vec::with_capacity(chunk.len() + 5);
    write::bytes(&mut value, &chunk);
    value
}

/// The commits of a row. Only the last one's hash is known.
pub fn decode_chunk(value: &[u8]) -> Result<Vec<Stamp>> {
    let mut input = Input::new(bytes_of(value), "DATA", "a chunk of commits");
    let count = input.varint()?;
    let hash = StateHash(input.array()?);
    let (mut version, mut time) = (0u64, 0u64);
    let mut commits = Vec::new();
    for _ in 0..count {
        version = version.checked_add(input.varint()?).ok_or_else(|| input.wrong("version"))?;
        time = time.checked_add(input.varint()?).ok_or_else(|| input.wrong("time"))?;
        commits.push(Stamp { version, time, hash: StateHash::default() });
    }
    match commits.last_mut() {
        Some(last) if input.is_at_end() => last.hash = hash,
        _ => return Err(input.wrong("length")),
    }
    Ok(commits)
}

impl Data {
    /// The newest commit in memory that `is_within` accepts; it accepts all commits up to one.
    fn last_commit(&self, is_within: impl Fn(&Stamp) -> bool) -> Option<Stamp> {
        self.layers().find_map(|layer| {
            let behind = layer.commits.partition_point(&is_within);
            Some(layer.commits[behind.checked_sub(1)?])
        })
    }

    /// The commits in memory with `after < version <= upto`, newest first, and the version below which they end.
    fn commits_in_memory(&self, after: u64, upto: u64) -> (Vec<Stamp>, u64) {
        let mut upto = upto;
        let mut found = Vec::new();
        for layer in self.layers() {
            let low = layer.commits.partition_point(|commit| commit.version <= after);
            let high = layer.commits.partition_point(|commit| commit.version <= upto).max(low);
            found.extend(layer.commits[low..high].iter().rev());
            upto = layer.commits.first().map_or(upto, |first| upto.min(first.version - 1));
        }
        (found, upto)
    }

    /// The commits in memory above the first version and up to the second, oldest first.
    pub fn commits_between(&self, (after, upto): (u64, u64)) -> Vec<Stamp> {
        let mut found = self.commits_in_memory(after, upto).0;
        found.reverse();
        found
    }

    /// Version and state hash as of the newest commit at or below `version`, which is not below the last checkpoint.
    pub fn state_at(&self, version: u64) -> (u64, StateHash) {
        let newest = self.last_commit(|commit| commit.version <= version);
        newest.map_or(self.settled, |commit| (commit.version, commit.hash))
    }
}

impl Branch {
    /// The newest commit that `version` shows; `None` before the first.
    pub fn commit_at(&self, version: u64) -> Result<Option<Stamp>> {
        for (branch, at) in self.lineage(At::from(version)) {
            let found = branch.own_commit_at(at.version)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The newest commit of this branch's own at or below `version`.
    fn own_commit_at(&self, version: u64) -> Result<Option<Stamp>> {
        let data = self.data.read();
        let found = data.last_commit(|commit| commit.version <= version);
        if found.is_some() || data.runs.is_empty() {
            return Ok(found);
        }
        let runs = Arc::clone(&data.runs);
        drop(data);
        for run in runs.iter() {
            let chunks = run.range(self.id, COMMITS, &upto(version), true, u64::MAX)?;
            if let Some(row) = chunks.row()? {
                let chunk = decode_chunk(row.version.value.unwrap_or_default())?;
                return Ok(chunk.into_iter().rev().find(|commit| commit.version <= version));
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
        for (branch, at) in self.lineage(At::from(self.head())) {
            let is_within = |commit: &Stamp| commit.version <= at.version && commit.time <= time;
            let found = branch.data.read().last_commit(is_within);
            let found = match found {
                Some(commit) => Some(commit),
                None => branch.search_commits(at.version, time)?,
            };
            if let Some(commit) = found {
                return Ok(commit.version);
            }
        }
        Ok(0)
    }

    /// The newest own commit at or below `version` and at or before `time`: versions and times ascend together, so the
    /// versions are halved until it is found.
    fn search_commits(&self, version: u64, time: u64) -> Result<Option<Stamp>> {
        let (mut low, mut high) = (0, version);
        let mut best = None;
        while low <= high {
            let middle = low + (high - low) / 2;
            match self.own_commit_at(middle)? {
                Some(commit) if commit.time > time => high = commit.version - 1,
                found => {
                    best = found.or(best);
                    low = middle + 1;
                }
            }
        }
        Ok(best)
    }

    /// Commits with `after < version < before`, oldest first (newest first when `reverse`), at most `limit`.
    pub fn commits(&self, after: u64, before: u64, reverse: bool, limit: usize) -> Result<Vec<CommitRow>> {
        let mut parts = self.lineage(At::from(self.head().min(before.saturating_sub(1))));
        if !reverse {
            parts.reverse();
        }
        let mut rows = Vec::new();
        for (branch, at) in parts {
            for stamp in branch.own_commits(after, at.version, reverse, limit - rows.len())? {
                rows.push(branch.commit_row(stamp)?);
            }
        }
        Ok(rows)
    }

    /// Own commits with `after < version <= upto`, oldest first or newest first, at most `limit`.
    fn own_commits(&self, after: u64, upto: u64, reverse: bool, limit: usize) -> Result<Vec<Stamp>> {
        let data = self.data.read();
        let (mut newer, upto) = data.commits_in_memory(after, upto);
        let runs = Arc::clone(&data.runs);
        drop(data);
        if reverse {
            newer.truncate(limit);
            let wanted = limit - newer.len();
            newer.extend(self.commits_in_runs(&runs, after, upto, true, wanted)?);
            return Ok(newer);
        }
        let mut all = self.commits_in_runs(&runs, after, upto, false, limit)?;
        all.extend(newer.into_iter().rev().take(limit - all.len()));
        Ok(all)
    }

    fn commits_in_runs(&self, runs: &Runs, after: u64, until: u64, reverse: bool, limit: usize) -> Result<Vec<Stamp>> {
        let mut found = Vec::new();
        let mut runs: Vec<_> = runs.iter().collect();
        if !reverse {
            runs.reverse();
        }
        // The chunk that begins below `after` may reach above it.
        let first = self.first_chunk(&runs, after)?;
        let range = Range { start: first.to_be_bytes().to_vec(), ..upto(until) };
        for run in runs {
            let mut chunks = run.range(self.id, COMMITS, &range, reverse, u64::MAX)?;
            while let Some(row) = chunks.row()?.filter(|_| found.len() < limit) {
                let mut chunk = decode_chunk(row.version.value.unwrap_or_default())?;
                if reverse {
                    chunk.reverse();
                }
                let inside = chunk.into_iter().filter(|commit| commit.version > after && commit.version <= until);
                found.extend(inside.take(limit - found.len()));
                chunks.advance()?;
            }
        }
        Ok(found)
    }

    /// Where the chunk begins that holds the commits around `version`.
    fn first_chunk(&self, runs: &[&Arc<crate::run::Run>], version: u64) -> Result<u64> {
        let mut first = None;
        for run in runs {
            let chunks = run.range(self.id, COMMITS, &upto(version), true, u64::MAX)?;
            first = first.max(chunks.info().map(|row| row.version));
        }
        Ok(first.unwrap_or(version))
    }

    /// What the transaction of a commit had read, if that was kept.
    pub fn reads(&self, version: u64) -> Result<Vec<Read>> {
        Ok(self.note(version)?.reads)
    }

    fn note(&self, version: u64) -> Result<Note> {
        let note = self.value(NOTES, &version.to_be_bytes(), version)?;
        note.map_or(Ok(Note::default()), |note| Note::decode(&note))
    }

    fn commit_row(&self, stamp: Stamp) -> Result<CommitRow> {
        let meta = self.note(stamp.version)?.meta;
        Ok(CommitRow { version: stamp.version, time: stamp.time, branch: self.name.read().clone(), meta })
    }
}

/// Keys of chunks that begin at or below `version`.
fn upto(version: u64) -> Range {
    Range { start: Vec::new(), end: version.checked_add(1).map(|end| end.to_be_bytes().to_vec()) }
}
