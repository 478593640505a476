//! Opening: find the directory, own it, read the manifest, replay the log.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;

use super::{Files, Registry, Store};
use crate::branch::{Memory, Runs, Shared};
use crate::change::{Expiry, What, Write};
use crate::env::{Env, Lock};
use crate::error::{Error, Result};
use crate::keyspaces::{CATALOGUE, Keyspaces};
use crate::log::{Anchor, Durability, Entry, Log, LogOptions, StateHash};
use crate::manifest::{self, Manifest};
use crate::payload::{self, Body, Logged, Meta, Number, Payload, Read};
use crate::run::{self, BlockCache, Run, RunOptions};
use crate::sabotage;
use crate::seal::{GivenKeys, Keyring};

#[derive(Debug, Clone)]
pub struct Options {
    /// Encrypt a new database, and open one that is encrypted.
    pub keys: Option<GivenKeys>,
    pub durability: Durability,
    /// Make the database when there is none.
    pub create: bool,
    pub read_only: bool,
    /// Where whoever opens it will serve others on this machine; the text of the lock tells them.
    pub shared_at: Option<String>,
    pub flush_interval_us: u64,
    pub segment_bytes: u64,
    pub compress_above: usize,
    /// What tables and cached blocks may take together, in bytes.
    pub memory_budget: usize,
    /// A checkpoint follows when the log has so much since the last.
    pub checkpoint_bytes: u64,
    /// And when something has waited in the log for so long.
    pub checkpoint_interval_us: u64,
    /// A branch whose reads ask more branches than this is made flat.
    pub branches_deep: usize,
    /// A data block of a run is closed when it has so much.
    pub block_bytes: usize,
}

impl Default for Options {
    fn default() -> Options {
        let log = LogOptions::default();
        Options {
            keys: None,
            durability: Durability::Buffered,
            create: true,
            read_only: false,
            shared_at: None,
            flush_interval_us: log.flush_interval_us,
            segment_bytes: log.segment_bytes,
            compress_above: log.compress_above,
            memory_budget: 1 << 30,
            checkpoint_bytes: 64 << 20,
            checkpoint_interval_us: 300_000_000,
            branches_deep: 8,
            block_bytes: 16 << 10,
        }
    }
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The version that the runs hold everything up to.
    pub checkpoint: u64,
    /// Records of the log behind it.
    pub records: u64,
    /// Bytes of a torn tail that were cut: never acknowledged as durable.
    pub cut_bytes: u64,
}

impl Options {
    pub(super) fn log(&self, database_id: [u8; 16]) -> LogOptions {
        LogOptions {
            durability: self.durability,
            segment_bytes: self.segment_bytes,
            flush_interval_us: self.flush_interval_us,
            compress_above: self.compress_above,
            database_id,
            keys: self.ring(database_id),
        }
    }

    pub(super) fn ring(&self, database_id: [u8; 16]) -> Option<Arc<Keyring>> {
        self.keys.as_ref().map(|given| Arc::new(given.ring(database_id)))
    }

    pub(super) fn runs(&self, database_id: [u8; 16]) -> RunOptions {
        let large_value_bytes = (self.block_bytes / 4).max(64);
        let keys = self.ring(database_id);
        RunOptions { keys, block_bytes: self.block_bytes, large_value_bytes, ..RunOptions::new(database_id) }
    }

    /// The share of the tables. A quarter of the budget is for blocks, and a quarter for what comes and goes.
    pub(super) fn table_bytes(&self) -> usize {
        self.memory_budget / 2
    }

    fn cache_bytes(&self) -> usize {
        self.memory_budget / 4
    }
}

impl Store {
    /// A database without files.
    pub fn memory(env: Env) -> Arc<Store> {
        let log = Log::memory(&env, Anchor::default());
        let options = Options { durability: Durability::Memory, ..Options::default() };
        Arc::new(Store::assemble(env, log, &options))
    }

    /// The database in the directory that `env.disk` stands for.
    pub fn open(env: Env, options: &Options) -> Result<Arc<Store>> {
        let names = env.disk.list("")?;
        let found = match &names {
            None => Found::Nothing,
            Some(names) => look_at(&env, names)?,
        };
        match found {
            Found::Nothing if !options.create => {
                Err(Error::NotFound { what: "database", name: env.disk.describe(""), near: Vec::new() })
            }
            Found::Nothing => create(env, options),
            Found::Database => recover(env, options),
        }
    }

    pub(super) fn assemble(env: Env, log: Log, options: &Options) -> Store {
        let memory = Arc::new(Memory::new(options.table_bytes() / 2));
        let shared = Shared { clock: Arc::clone(&env.clock), memory };
        Store {
            registry: RwLock::new(Registry::new(env.clock.wall_us(), &shared)),
            shared,
            env,
            log,
            durability: options.durability,
            recovered: Recovered::default(),
            keyspaces: RwLock::new(Keyspaces::default()),
            catalogue: RwLock::default(),
            has_unique: AtomicBool::new(false),
            deriving: Mutex::default(),
            files: Mutex::new(None),
            volatile: Mutex::default(),
            runs: RwLock::default(),
            cache: BlockCache::new(options.cache_bytes()),
            keeper: Mutex::new(()),
            compactor: Mutex::new(None),
            worker: OnceLock::new(),
            next_run: AtomicU64::new(1),
            run_bytes_written: AtomicU64::new(0),
            keys: RwLock::default(),
            checkpointed: AtomicU64::new(0),
            checkpointed_at: AtomicU64::new(0),
            database_id: [0; 16],
            read_only: options.read_only,
            options: options.clone(),
            closed: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        }
    }
}

enum Found {
    Nothing,
    Database,
}

/// Tell a database, or the beginnings of one, from a directory that is not ours. Changes nothing.
fn look_at(env: &Env, names: &[String]) -> Result<Found> {
    // With its copy alone it was one: the MANIFEST is missing.
    if names.iter().any(|name| [manifest::PATH, manifest::COPY].contains(&name.as_str())) {
        return Ok(Found::Database);
    }
    if let Some(foreign) = names.iter().find(|name| !["LOCK", "WAL", "DATA", "MANIFEST.tmp"].contains(&name.as_str())) {
        let place = env.disk.describe("");
        return Err(Error::InvalidInput(format!(
            "'{place}' is not a Strata database: it holds '{foreign}' and no MANIFEST"
        )));
    }
    // Creation was cut short before the MANIFEST, so nothing was ever acknowledged; making the log looks again.
    Ok(Found::Nothing)
}

/// Whether the keys that are given open the database, which someone else may have open. Takes no lock.
pub fn check_keys(env: &Env, options: &Options) -> Result<()> {
    Manifest::read(&*env.disk, &|id| options.ring(id)).map(drop)
}

/// Alone to write, together with other readers to read.
pub(super) fn lock(env: &Env, options: &Options) -> Result<Box<dyn Lock>> {
    let shared = options.shared_at.as_ref().map_or_else(String::new, |at| format!(", shared at {at}"));
    let owner = format!("pid {}{shared}", env.spawn.process_id());
    env.disk.lock("LOCK", if options.read_only { None } else { Some(&owner) })
}

fn create(env: Env, options: &Options) -> Result<Arc<Store>> {
    if options.read_only {
        return Err(Error::ReadOnly(format!(
            "'{}' does not exist and cannot be made read-only",
            env.disk.describe("")
        )));
    }
    env.disk.create_dir("")?;
    let lock = lock(&env, options)?;
    // Someone else may have made it while we waited for nothing: look again under the lock.
    if env.disk.open("MANIFEST")?.is_some() {
        drop(lock);
        return recover(env, options);
    }
    let (high, low) = (env.rng.next_u64().to_be_bytes(), env.rng.next_u64().to_be_bytes());
    let database_id: [u8; 16] = [high, low].concat().try_into().expect("two times eight bytes");
    let anchor = Anchor::default();
    // Made durable together with the log's directory.
    env.disk.create_dir(run::DIRECTORY)?;
    let log = Log::create(&env, options.log(database_id), anchor)?;
    let created_us = env.clock.wall_us();
    let manifest = Manifest { database_id, created_us, segment: anchor.segment, ..Manifest::default() };
    let keys = options.ring(database_id);
    manifest.write(&*env.disk, keys.as_deref())?;
    let mut store = Store::assemble(env, log, options);
    store.database_id = database_id;
    store.keys = RwLock::new(keys);
    store.own(manifest, lock)
}

fn recover(env: Env, options: &Options) -> Result<Arc<Store>> {
    let lock = lock(&env, options)?;
    let manifest = Manifest::read(&*env.disk, &|id| options.ring(id))?.ok_or_else(|| Error::Corrupt {
        file: "MANIFEST".into(),
        offset: 0,
        reason: "it is missing".into(),
    })?;
    if !options.read_only {
        // A process that was killed may have left its name where a power cut could still take it, and what is removed
        // because of it with it.
        env.disk.sync_dir("")?;
    }
    // Replayed into a store without a log, which the recovered log then takes the place of.
    let mut store = Store::assemble(env.clone(), Log::memory(&env, manifest.anchor()), options);
    store.database_id = manifest.database_id;
    store.keys = RwLock::new(keys_of(&manifest, options));
    store.open_runs(&manifest)?;
    let open = if options.read_only { Log::read } else { Log::recover };
    let (log, recovery) = open(&env, store.log_options(), manifest.anchor(), &mut |entry| store.replay(&entry))?;
    store.log = log;
    let (checkpoint, records) = (manifest.checkpoint_version, recovery.records);
    store.recovered = Recovered { checkpoint, records, cut_bytes: recovery.cut_bytes };
    if !options.read_only {
        clear_orphans(&env, &manifest)?;
    }
    store.own(manifest, lock)
}

/// The keys that were given. Before a change from plain to sealed has come to its end, the MANIFEST says so.
fn keys_of(manifest: &Manifest, options: &Options) -> Option<Arc<Keyring>> {
    let keys = options.ring(manifest.database_id)?;
    Some(if manifest.plain_too { Arc::new(Keyring::clone(&keys).plain_too()) } else { keys })
}

/// Remove what a checkpoint or a compaction that did not come to its end has left. The MANIFEST was read and the log
/// recovered, so what it does not name is of no use; other files are none of ours.
fn clear_orphans(env: &Env, manifest: &Manifest) -> Result<()> {
    manifest::clear(&*env.disk)?;
    manifest::renew_copy(&*env.disk)?;
    let Some(names) = env.disk.list(run::DIRECTORY)? else {
        env.disk.create_dir(run::DIRECTORY)?;
        return env.disk.sync_dir("");
    };
    for name in names {
        let is_orphan = |number| {
            !manifest.runs.contains(&number) || (sabotage::on("K15") && manifest.runs.first() == Some(&number))
        };
        let number = run::number_of(&name).or_else(|| run::derived_number_of(&name));
        if number.is_some_and(|number| name.ends_with(".tmp") || is_orphan(number)) {
            env.disk.remove(&format!("{}/{name}", run::DIRECTORY))?;
        }
    }
    Ok(())
}

impl Store {
    /// Take what the MANIFEST names: runs, branches and keyspaces as of the checkpoint.
    pub(super) fn open_runs(&mut self, manifest: &Manifest) -> Result<()> {
        let options = self.run_options();
        let open = |&number: &u64| Run::open(&*self.env.disk, number, &self.cache, &options);
        let runs = manifest.runs.iter().map(open).collect::<Result<Vec<_>>>()?;
        let mut by_branch: FxHashMap<u32, Vec<Arc<Run>>> = FxHashMap::default();
        for run in runs.iter().rev() {
            check_versions(run, manifest.checkpoint_version)?;
            for span in run.spans() {
                by_branch.entry(span.branch).or_default().push(Arc::clone(run));
            }
        }
        if sabotage::on("K07") {
            by_branch.values_mut().for_each(|runs| runs.reverse());
        }
        let of = |branch| by_branch.get(&branch).map_or_else(Runs::default, |runs| runs.as_slice().into());
        let registry = match manifest.state.next_branch {
            0 => Registry::new(manifest.created_us, &self.shared),
            _ => Registry::of(&manifest.state, of, &self.shared)?,
        };
        self.registry = RwLock::new(registry);
        self.keyspaces = RwLock::new(Keyspaces::of(manifest.state.keyspaces.clone()));
        self.runs = RwLock::new(runs);
        Ok(())
    }

    /// Own the directory from now on.
    fn own(mut self, manifest: Manifest, lock: Box<dyn Lock>) -> Result<Arc<Store>> {
        let newest = manifest.runs.iter().max().map_or(1, |number| number + 1);
        self.next_run = AtomicU64::new(manifest.next_run.max(newest));
        self.checkpointed = AtomicU64::new(manifest.proven);
        self.checkpointed_at = AtomicU64::new(self.env.clock.monotonic_us());
        // What this writes makes it a database of its own.
        let manifest = Manifest { is_backup: false, ..manifest };
        self.files = Mutex::new(Some(Files { manifest, _lock: lock }));
        let store = Arc::new(self);
        store.learn_indexes();
        if !store.read_only {
            // What was cut short was asked for, so it is done before anything is read.
            if !sabotage::on("K36") {
                store.go_on_erasing()?;
            }
            store.start_keeper()?;
        }
        Ok(store)
    }

    /// Fold one record of the log in.
    fn replay(&self, entry: &Entry<'_>) -> Result<()> {
        match payload::decode(entry.payload)? {
            Payload::Branch(change) => {
                let mut registry = self.registry.write();
                check_chain(registry.hash, entry)?;
                registry.apply(&change, entry.stamp)
            }
            Payload::Commit { branch, meta, writes, reads } => {
                self.replay_commit(entry, branch, &meta, &writes, &reads)
            }
        }
    }

    fn replay_commit(
        &self,
        entry: &Entry<'_>,
        branch: u32,
        meta: &Meta,
        logged: &[Logged<'_>],
        reads: &[Read],
    ) -> Result<()> {
        let found = self.registry.read().by_id(branch).cloned();
        let branch = found.ok_or_else(|| damaged(format!("a commit names branch {branch}, which does not exist")))?;
        check_chain(branch.line.lock().hash, entry)?;
        for write in logged {
            self.learn(write)?;
        }
        let writes: Vec<Write<'_>> = logged.iter().map(as_write).collect();
        self.apply_logged(&branch, entry.stamp, &writes, meta, reads)
    }

    /// A write to the catalogue also tells what a number means.
    pub(super) fn learn(&self, write: &Logged<'_>) -> Result<()> {
        let Body::Put(value) = write.body else { return Ok(()) };
        if write.keyspace != CATALOGUE {
            return Ok(());
        }
        let number = match Number::decode(value) {
            Some(Number::Int(number)) => u32::try_from(number).ok(),
            _ => None,
        };
        let learned = number.is_some_and(|number| self.keyspaces.write().learn(write.key, number));
        if learned { Ok(()) } else { Err(damaged("the catalogue contradicts itself".to_owned())) }
    }
}

/// What lies above the checkpoint is the log's: in a run it would be a version that the log may yet give to another commit.
fn check_versions(run: &Run, checkpoint: u64) -> Result<()> {
    match run.spans().iter().map(|span| span.newest).max() {
        Some(newest) if newest > checkpoint => Err(Error::Corrupt {
            file: run::path(run.number()),
            offset: 0,
            reason: format!("it holds version {newest}, and the checkpoint is version {checkpoint}"),
        }),
        _ => Ok(()),
    }
}

pub(super) fn as_write<'a>(logged: &'a Logged<'a>) -> Write<'a> {
    let what = match &logged.body {
        Body::Put(value) => What::Put(value),
        Body::Expiring(value, instant) => What::PutFor(value, Expiry::At(*instant)),
        Body::Append(value) => What::Appended(value),
        Body::Delete => What::Delete,
        Body::Patch(ops) => What::Patch(ops, None),
        Body::Add(delta) => What::Add(*delta),
    };
    Write { keyspace: logged.keyspace, key: logged.key, what }
}

/// Each record carries a hash of all before it on its branch: a record that is whole but out of place is found here.
pub(super) fn check_chain(previous: StateHash, entry: &Entry<'_>) -> Result<()> {
    let stamp = entry.stamp;
    if StateHash::next(previous, stamp.version, stamp.time, entry.payload) == stamp.hash {
        return Ok(());
    }
    Err(damaged(format!("version {} does not continue the history of its branch", stamp.version)))
}

pub(super) fn damaged(reason: String) -> Error {
    Error::Corrupt { file: "WAL".into(), offset: 0, reason }
}
