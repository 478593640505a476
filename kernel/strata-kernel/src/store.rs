//! The store: one database, its branches and its log.

mod backup;
mod branches;
mod checkpoint;
mod compact;
mod compact_memory;
mod erase;
mod export;
mod flatten;
mod fresh;
mod import;
mod indexes;
mod info;
mod keeper;
mod layer_rows;
mod merge_rows;
mod open;
mod plan;
mod policies;
mod restore;
mod rotate;
mod rows;
mod salvage;
mod tags;
mod tidy;
mod verify;
mod version_set;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use crate::branch::{Branch, Range, RowBuffer, Shared};
use crate::env::{Env, Lock, Worker};
use crate::error::{Error, Result};
use crate::keyspaces::{CATALOGUE, Keyspaces};
use crate::log::{Durability, Log, LogOptions};
use crate::manifest::Manifest;
use crate::run::{BlockCache, Run, RunOptions};
use crate::seal::Keyring;
use crate::state::State;

pub use backup::Backup;
pub use branches::{BranchInfo, Registry};
pub use checkpoint::Checkpoint;
pub use compact::Compacted;
pub use export::Bundle;
pub use import::{import, verify_bundle};
pub use info::{Info, LogInfo, MemoryInfo, RunInfo, Written};
pub use open::{Options, Recovered, check_keys};
pub use plan::Erasure;
pub use restore::{Moment, Restored, restore};
pub use salvage::{Loss, LostPlace, Salvaged, salvage, sealed_with_any};
pub use verify::{Problem, Progress, Verified};

pub struct Store {
    pub env: Env,
    pub log: Log,
    pub durability: Durability,
    pub recovered: Recovered,
    registry: RwLock<Registry>,
    keyspaces: RwLock<Keyspaces>,
    /// The indexes that there are.
    catalogue: RwLock<indexes::Catalogue>,
    has_unique: AtomicBool,
    /// Held by whoever writes or removes the files of indexes.
    deriving: Mutex<()>,
    shared: Shared,
    files: Mutex<Option<Files>>,
    /// The policies of a database without files.
    volatile: Mutex<State>,
    /// The live runs, oldest first.
    runs: RwLock<Vec<Arc<Run>>>,
    cache: Arc<BlockCache>,
    /// Held by whoever makes runs or replaces the MANIFEST. Taken before the line of any branch.
    keeper: Mutex<()>,
    /// Held by whoever merges runs, with what the keeper is at. Taken before the keeper's.
    compactor: Mutex<Option<compact::Compaction>>,
    worker: OnceLock<Arc<dyn Worker>>,
    next_run: AtomicU64,
    /// Since this was opened.
    run_bytes_written: AtomicU64,
    /// What new files are sealed with, and what older ones may be. Replaced under the keeper's lock.
    keys: RwLock<Option<Arc<Keyring>>>,
    /// The log's position at the last checkpoint, and the monotonic time of it.
    checkpointed: AtomicU64,
    checkpointed_at: AtomicU64,
    database_id: [u8; 16],
    read_only: bool,
    options: Options,
    closed: AtomicBool,
    /// A panic in the middle of a commit: what is in memory may be half done, so nothing more is written.
    broken: AtomicBool,
}

/// What an open directory holds on to.
struct Files {
    manifest: Manifest,
    /// Held until the last file is closed.
    _lock: Box<dyn Lock>,
}

impl Store {
    #[inline]
    pub fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) { Err(Error::Closed("database")) } else { Ok(()) }
    }

    #[inline]
    pub fn check_readable(&self, branch: &Branch) -> Result<()> {
        self.check_open()?;
        if branch.is_deleted() { Err(self.no_branch(&branch.name.read())) } else { Ok(()) }
    }

    pub fn check_writable(&self, branch: &Branch) -> Result<()> {
        self.check_readable(branch)?;
        if branch.is_sealed() {
            return Err(branch.protected());
        }
        self.check_store_writable()
    }

    fn check_store_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.read_only {
            return Err(Error::ReadOnly("the database was opened read-only".into()));
        }
        if self.broken.load(Ordering::Relaxed) {
            let text = "a commit was interrupted by an internal error; open the database again to write";
            return Err(Error::ReadOnly(text.into()));
        }
        Ok(())
    }

    /// What the tables of all branches hold, and what they may hold.
    pub fn table_bytes(&self) -> (usize, usize) {
        (self.shared.memory.bytes(), self.options.table_bytes())
    }

    /// What the block cache holds, and what it may hold.
    pub fn cache_bytes(&self) -> (usize, usize) {
        (self.cache.bytes(), self.cache.budget())
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub fn keeps_a_log(&self) -> bool {
        self.durability != Durability::Memory
    }

    pub fn database_id(&self) -> [u8; 16] {
        self.database_id
    }

    fn run_options(&self) -> RunOptions {
        RunOptions { keys: self.keys(), ..self.options.runs(self.database_id) }
    }

    fn log_options(&self) -> LogOptions {
        LogOptions { keys: self.keys(), ..self.options.log(self.database_id) }
    }

    fn keys(&self) -> Option<Arc<Keyring>> {
        self.keys.read().clone()
    }

    /// The number of a keyspace; it costs nothing until it is written to.
    pub fn keyspace(&self, space: &str, kind: &str) -> u32 {
        let known = self.keyspaces.read().number(space, kind);
        known.unwrap_or_else(|| self.keyspaces.write().resolve(space, kind))
    }

    /// (space, kind) of a keyspace.
    pub fn keyspace_name(&self, number: u32) -> (String, String) {
        self.keyspaces.read().name(number)
    }

    /// Wait until the head of a branch is above `after`, its seal is another than for `sealed`, or the time is over; returns the
    /// head. It may also return sooner.
    pub fn wait(&self, branch: &Branch, after: u64, sealed: Option<&str>, timeout_us: u64) -> Result<u64> {
        let has_news = || branch.head() > after || branch.is_sealed_otherwise(sealed);
        self.check_readable(branch)?;
        if !has_news() {
            branch.wait(&*self.env.spawn, timeout_us, || has_news() || self.check_readable(branch).is_err());
            self.check_readable(branch)?;
        }
        Ok(branch.head())
    }

    /// Names of the spaces that a branch had been written to at a version, sorted.
    pub fn spaces(&self, branch: &Branch, at: u64) -> Result<Vec<String>> {
        let mut rows = RowBuffer::default();
        branch.scan(CATALOGUE, &Range::default(), false, at, &mut rows, usize::MAX)?;
        let space =
            |key: &[u8]| String::from_utf8_lossy(key.split(|&byte| byte == 0).next().unwrap_or_default()).into();
        let mut spaces: Vec<String> = rows.rows().map(|(key, _)| space(key)).collect();
        spaces.dedup();
        Ok(spaces)
    }

    pub fn space_exists(&self, branch: &Branch, space: &str, at: u64) -> Result<bool> {
        let mut rows = RowBuffer::default();
        let prefix = [space.as_bytes(), &[0]].concat();
        branch.scan(CATALOGUE, &Range::of_prefix(&prefix), false, at, &mut rows, 1)?;
        Ok(!rows.is_empty())
    }

    /// Wait until everything committed is durable; returns the newest durable version, 0 where there are no files.
    pub fn flush(&self) -> Result<u64> {
        self.check_open()?;
        self.log.flush()
    }

    /// What became of a commit that ended with `OutcomeUnknown`: whether it is there.
    pub fn outcome(&self, transaction: &str) -> Result<bool> {
        self.check_open()?;
        let parsed = transaction
            .split_once('-')
            .and_then(|(version, time)| Some((version.parse::<u64>().ok()?, time.parse::<u64>().ok()?)));
        let Some((version, time)) = parsed else {
            return Err(Error::InvalidInput(format!("'{transaction}' is not a transaction id")));
        };
        let branches: Vec<Arc<Branch>> = self.registry.read().all().cloned().collect();
        for branch in branches.iter().filter(|branch| branch.head() >= version) {
            if branch.commit_at(version)?.is_some_and(|found| (found.version, found.time) == (version, time)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Close: no write begins after it, what was written is synced, and the directory is free. Idempotent.
    pub fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        // Every commit in progress holds its branch's line until its bytes are queued.
        let branches: Vec<Arc<Branch>> = self.registry.read().all().cloned().collect();
        for branch in branches {
            drop(branch.line.lock());
            branch.wake();
        }
        if let Some(worker) = self.worker.get() {
            worker.stop();
        }
        drop(self.compactor.lock().take());
        let _alone = self.keeper.lock();
        if !self.read_only && self.keeps_a_log() {
            // The log has everything, so that a full disk is no reason to fail here.
            let _ = self.checkpoint_alone();
        }
        let Some(Files { manifest, _lock }) = self.files.lock().take() else { return Ok(()) };
        if self.read_only {
            return Ok(());
        }
        let proven = self.log.close()?;
        if proven == manifest.proven {
            Ok(())
        } else {
            Manifest { proven, ..manifest }.write(&*self.env.disk, self.keys().as_deref())
        }
    }

    /// Marks the store as broken unless disarmed, which a panic in between prevents.
    pub(crate) fn panic_guard(&self) -> PanicGuard<'_> {
        PanicGuard { store: self }
    }
}

pub(crate) struct PanicGuard<'a> {
    store: &'a Store,
}

impl PanicGuard<'_> {
    pub(crate) fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        // Also reached by an ordinary early return, which leaves nothing half done.
        if std::thread::panicking() {
            self.store.broken.store(true, Ordering::Relaxed);
        }
    }
}

/// A handle that is dropped without `close` loses nothing: the log's bytes are with the operating system.
impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.close();
    }
}
