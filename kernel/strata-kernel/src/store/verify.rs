//! Verify: read everything on disk again, and hold it against what is in memory.
//!
//! The log is read as recovery reads it (checksums, order, what one record says of the one before), and each payload is
//! decoded down to its values. Each branch's chain of state hashes is worked out anew; where it comes past the newest
//! version that the branch had when this began, the two must be equal. Nothing is applied, so it takes no memory to
//! speak of, and others may go on writing.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Store;
use super::open::{check_chain, damaged};
use crate::error::{Error, Result};
use crate::log::{Entry, Log, StateHash};
use crate::manifest::{self, Manifest};
use crate::payload::{self, Body, BranchChange, Payload};
use crate::run::Run;
use crate::value;

/// What was read, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    pub records: u64,
    pub segments: u64,
    pub runs: u64,
    /// Of the runs.
    pub rows: u64,
    /// The newest version on disk.
    pub version: u64,
    /// At most one of each file: behind it a file was not read on.
    pub problems: Vec<Problem>,
}

/// One place that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    pub offset: u64,
    pub reason: String,
}

/// Told the bytes that were read, and how many there are. Its error ends the verification.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> Result<()>;

/// Version and state hash of a branch.
type State = (u64, StateHash);

impl Verified {
    /// The first problem as an error, for who only asks whether all is well.
    pub fn whole(mut self) -> Result<Verified> {
        if self.problems.is_empty() {
            return Ok(self);
        }
        let Problem { file, offset, reason } = self.problems.swap_remove(0);
        Err(Error::Corrupt { file, offset, reason })
    }

    /// Note damage, and go on; any other error is the end.
    fn note<T>(&mut self, outcome: Result<T>) -> Result<Option<T>> {
        match outcome {
            Ok(found) => Ok(Some(found)),
            Err(Error::Corrupt { file, offset, reason }) => {
                self.problems.push(Problem { file, offset, reason });
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }
}

impl Store {
    /// Read all files of the database again. What is damaged is named, and the other files are read all the same.
    ///
    /// `progress` is called with no lock held.
    pub fn verify(&self, progress: Progress<'_>) -> Result<Verified> {
        self.check_open()?;
        let mut verified = Verified::default();
        let (runs, log_bytes) = self.verify_log(&mut verified)?;
        let all = log_bytes + runs.iter().map(|run| run.file_bytes()).sum::<u64>();
        let mut read = log_bytes;
        progress(read, all)?;
        // Runs are never changed, and one that goes meanwhile can be read to its end.
        for run in &runs {
            let behind = read + run.file_bytes();
            let outcome = run.verify(&mut |bytes| {
                read += bytes;
                progress(read, all)
            });
            verified.rows += verified.note(outcome)?.map_or(0, |found| found.rows);
            verified.runs += 1;
            verified.note(self.verify_parts(run))?;
            read = behind;
        }
        Ok(verified)
    }

    /// MANIFEST and log; returns the runs that belong to them, and how long the log is.
    fn verify_log(&self, verified: &mut Verified) -> Result<(Vec<Arc<Run>>, u64)> {
        // No segment goes while this reads.
        let _alone = self.keeper.lock();
        let Some(manifest) = self.manifest() else { return Ok((Vec::new(), 0)) };
        let in_memory = self.states();
        if !self.read_only {
            // What is in memory may not be on disk before this.
            self.log.flush()?;
        }
        verified.note(self.verify_manifest())?;
        verified.note(manifest::check_copy(&*self.env.disk, self.database_id))?;
        let mut reader = Reader::new(in_memory, &manifest);
        let options = self.log_options();
        let read = Log::read(&self.env, options, manifest.anchor(), &mut |entry| reader.take(&entry));
        if let Some((_, recovery)) = verified.note(read)? {
            verified.segments = recovery.segments;
            verified.note(reader.end())?;
        }
        verified.records = reader.records;
        verified.version = reader.version.max(manifest.checkpoint_version);
        let log_bytes = self.log.segments().iter().map(|segment| segment.bytes).sum();
        Ok((self.runs.read().clone(), log_bytes))
    }

    fn verify_manifest(&self) -> Result<()> {
        let damaged = |reason: &str| {
            Err(Error::Corrupt { file: manifest::PATH.to_owned(), offset: 0, reason: reason.to_owned() })
        };
        match Manifest::read(&*self.env.disk, &|_| self.keys())? {
            Some(found) if found.database_id == self.database_id => Ok(()),
            Some(_) => damaged("it is that of another database"),
            None => damaged("it is missing"),
        }
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
    records: u64,
    /// The newest that was read.
    version: u64,
}

impl Reader {
    /// Where the log begins, each branch is as the MANIFEST has it.
    fn new(mut in_memory: FxHashMap<u32, State>, manifest: &Manifest) -> Reader {
        let mut on_disk = FxHashMap::from_iter([(0, (0, StateHash::default()))]);
        on_disk.extend(manifest.state.branches.iter().map(|branch| (branch.id, (branch.version, branch.hash))));
        in_memory.retain(|branch, state| on_disk.get(branch) != Some(state));
        Reader { in_memory, on_disk, branches: manifest.state.branches_hash, records: 0, version: 0 }
    }

    fn take(&mut self, entry: &Entry<'_>) -> Result<()> {
        let payload = payload::decode(entry.payload)?;
        (self.records, self.version) = (self.records + 1, entry.stamp.version);
        match payload {
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
