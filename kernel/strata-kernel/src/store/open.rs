//! Opening: find the directory, own it, read the manifest, replay the log.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::{Mutex, RwLock};

use super::{Files, Registry, Store};
use crate::change::{Expiry, What, Write};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::keyspaces::{CATALOGUE, Keyspaces};
use crate::log::{Anchor, Durability, Entry, Log, LogOptions, StateHash};
use crate::manifest::Manifest;
use crate::payload::{self, Body, Logged, Meta, Number, Payload, Read};

#[derive(Debug, Clone)]
pub struct Options {
    pub durability: Durability,
    /// Make the database when there is none.
    pub create: bool,
    pub read_only: bool,
    pub flush_interval_us: u64,
    pub segment_bytes: u64,
    pub compress_above: usize,
}

impl Default for Options {
    fn default() -> Options {
        let log = LogOptions::default();
        Options {
            durability: Durability::Buffered,
            create: true,
            read_only: false,
            flush_interval_us: log.flush_interval_us,
            segment_bytes: log.segment_bytes,
            compress_above: log.compress_above,
        }
    }
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
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
        }
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

    fn assemble(env: Env, log: Log, options: &Options) -> Store {
        let now = env.clock.wall_us();
        Store {
            registry: RwLock::new(Registry::new(now, &env.clock)),
            env,
            log,
            durability: options.durability,
            recovered: Recovered::default(),
            keyspaces: RwLock::new(Keyspaces::default()),
            files: Mutex::new(None),
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
    if names.iter().any(|name| name == "MANIFEST") {
        return Ok(Found::Database);
    }
    if let Some(foreign) = names.iter().find(|name| !["LOCK", "WAL", "MANIFEST.tmp"].contains(&name.as_str())) {
        let place = env.disk.describe("");
        return Err(Error::InvalidInput(format!(
            "'{place}' is not a Strata database: it holds '{foreign}' and no MANIFEST"
        )));
    }
    // Creation was cut short before the MANIFEST, so nothing was ever acknowledged; making the log looks again.
    Ok(Found::Nothing)
}

/// Alone to write, together with other readers to read.
fn lock(env: &Env, read_only: bool) -> Result<Box<dyn crate::env::Lock>> {
    let owner = format!("pid {}", env.spawn.process_id());
    env.disk.lock("LOCK", if read_only { None } else { Some(&owner) })
}

fn create(env: Env, options: &Options) -> Result<Arc<Store>> {
    if options.read_only {
        return Err(Error::ReadOnly(format!(
            "'{}' does not exist and cannot be made read-only",
            env.disk.describe("")
        )));
    }
    env.disk.create_dir("")?;
    let lock = lock(&env, false)?;
    // Someone else may have made it while we waited for nothing: look again under the lock.
    if env.disk.open("MANIFEST")?.is_some() {
        drop(lock);
        return recover(env, options);
    }
    let (high, low) = (env.rng.next_u64().to_be_bytes(), env.rng.next_u64().to_be_bytes());
    let database_id: [u8; 16] = [high, low].concat().try_into().expect("two times eight bytes");
    let anchor = Anchor::default();
    let log = Log::create(&env, options.log(database_id), anchor)?;
    let created_us = env.clock.wall_us();
    let manifest = Manifest { database_id, created_us, segment: anchor.segment, ..Manifest::default() };
    manifest.write(&*env.disk)?;
    let mut store = Store::assemble(env, log, options);
    store.database_id = database_id;
    store.files = Mutex::new(Some(Files { manifest, _lock: lock }));
    Ok(Arc::new(store))
}

fn recover(env: Env, options: &Options) -> Result<Arc<Store>> {
    let lock = lock(&env, options.read_only)?;
    let manifest = Manifest::read(&*env.disk)?.ok_or_else(|| Error::Corrupt {
        file: "MANIFEST".into(),
        offset: 0,
        reason: "it is missing".into(),
    })?;
    // Replayed into a store without a log, which the recovered log then takes the place of.
    let mut store = Store::assemble(env.clone(), Log::memory(&env, Anchor::default()), options);
    store.registry = RwLock::new(Registry::new(manifest.created_us, &env.clock));
    let open = if options.read_only { Log::read } else { Log::recover };
    let (log, recovery) =
        open(&env, options.log(manifest.database_id), manifest.anchor(), &mut |entry| store.replay(&entry))?;
    store.log = log;
    store.recovered = Recovered { records: recovery.records, cut_bytes: recovery.cut_bytes };
    store.database_id = manifest.database_id;
    store.files = Mutex::new(Some(Files { manifest, _lock: lock }));
    Ok(Arc::new(store))
}

impl Store {
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
    fn learn(&self, write: &Logged<'_>) -> Result<()> {
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

fn as_write<'a>(logged: &'a Logged<'a>) -> Write<'a> {
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
