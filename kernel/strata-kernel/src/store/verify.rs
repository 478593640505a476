//! Verify: read everything on disk again, and hold it against what is in memory.
//!
//! The log is read as recovery reads it (checksums, order, what one record says of the one before), and each payload is
//! decoded down to its values. Each branch's chain of state hashes is worked out anew; where it comes past the newest
//! version that the branch had when this began, the two must be equal. Nothing is applied, so it takes no memory to
//! speak of, and others may go on writing.

use rustc_hash::FxHashMap;

use super::Store;
use super::open::{check_chain, damaged};
use crate::error::Result;
use crate::log::{Entry, Log, Recovery, StateHash};
use crate::manifest::Manifest;
use crate::payload::{self, Body, BranchChange, Payload};
use crate::value;

/// What was read and found good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verified {
    pub records: u64,
    pub segments: u64,
    pub runs: u64,
    /// Of the runs.
    pub rows: u64,
    /// The newest version on disk.
    pub version: u64,
}

/// Version and state hash of a branch.
type State = (u64, StateHash);

impl Store {
    /// Read all files of the database again. `Corrupt` names the first place that is wrong.
    pub fn verify(&self) -> Result<Verified> {
        self.check_open()?;
        // No file goes, and none comes, while this reads.
        let _alone = self.keeper.lock();
        let Some(manifest) = self.manifest() else { return Ok(Verified::default()) };
        let in_memory = self.states();
        if !self.read_only {
            // What is in memory may not be on disk before this.
            self.log.flush()?;
        }
        let mut reader = Reader::new(in_memory, &manifest);
        let options = self.options.log(self.database_id);
        let (log, recovery) = Log::read(&self.env, options, manifest.anchor(), &mut |entry| reader.take(&entry))?;
        reader.end()?;
        let runs = self.runs.read().clone();
        let mut rows = 0;
        for run in &runs {
            rows += run.verify(&mut |_| ())?.rows;
        }
        let Recovery { records, segments, .. } = recovery;
        Ok(Verified { records, segments, runs: runs.len() as u64, rows, version: log.last_version() })
    }

    /// Of each branch that has commits of its own, the newest.
    fn states(&self) -> FxHashMap<u32, State> {
        let branches: Vec<_> = self.registry.read().all().cloned().collect();
        let state = |branch: &std::sync::Arc<crate::branch::Branch>| {
            let line = branch.line.lock();
            (line.hash != StateHash::default()).then_some((branch.id, (line.applied, line.hash)))
        };
        branches.iter().filter_map(state).collect()
    }
}

struct Reader {
    /// What memory has and the log must come to.
    in_memory: FxHashMap<u32, State>,
    on_disk: FxHashMap<u32, State>,
    branches: StateHash,
}

impl Reader {
    /// Where the log begins, each branch is as the MANIFEST has it.
    fn new(mut in_memory: FxHashMap<u32, State>, manifest: &Manifest) -> Reader {
        let mut on_disk = FxHashMap::from_iter([(0, (0, StateHash::default()))]);
        on_disk.extend(manifest.state.branches.iter().map(|branch| (branch.id, (branch.version, branch.hash))));
        in_memory.retain(|branch, state| on_disk.get(branch) != Some(state));
        Reader { in_memory, on_disk, branches: manifest.state.branches_hash }
    }

    fn take(&mut self, entry: &Entry<'_>) -> Result<()> {
        match payload::decode(entry.payload)? {
            Payload::Branch(change) => {
                check_chain(self.branches, entry)?;
                self.branches = entry.stamp.hash;
                if let BranchChange::Create { id, .. } = change {
                    self.on_disk.insert(id, (entry.stamp.version, StateHash::default()));
                }
                Ok(())
            }
            Payload::Commit { branch, writes, .. } => {
                for write in &writes {
                    check_body(&write.body)?;
                }
                self.commit(branch, entry)
            }
        }
    }

    fn commit(&mut self, branch: u32, entry: &Entry<'_>) -> Result<()> {
        let (version, hash) = (entry.stamp.version, entry.stamp.hash);
        let state = self.on_disk.get_mut(&branch).ok_or_else(|| damaged(format!("branch {branch} does not exist")))?;
        check_chain(state.1, entry)?;
        *state = (version, hash);
        // Commits that came while this reads are not in what was noted of memory.
        if self.in_memory.get(&branch).is_some_and(|known| known.0 == version) {
            let known = self.in_memory.remove(&branch).expect("just seen");
            if known.1 != hash {
                return Err(damaged(format!("version {version} on disk is not the version {version} in memory")));
            }
        }
        Ok(())
    }

    fn end(&self) -> Result<()> {
        match self.in_memory.values().map(|(version, _)| version).min() {
            None => Ok(()),
            Some(version) => Err(damaged(format!("version {version} is in memory and not on disk"))),
        }
    }
}

fn check_body(body: &Body<'_>) -> Result<()> {
    match body {
        Body::Put(bytes) | Body::Expiring(bytes, _) | Body::Append(bytes) => value::check(bytes),
        Body::Delete | Body::Patch(_) | Body::Add(_) => Ok(()),
    }
}
