//! Salvage: what can be proven whole of a damaged database, as a new one, and what was lost.
//!
//! 1. *Find* the MANIFEST: the file, or its copy, or what the runs say of themselves (`source`).
//! 2. *Copy* the rows of all frames that check into one run of the new database (`runs`).
//! 3. *Replay* the records of the log that check on top of it, into tables (`replay`), which become its second run.
//!
//! What is kept is rows: a version of a key that is in the new database is what it was in the old one. A row that is gone
//! leaves the version before it as the newest, so each loss names the keys and versions it may concern. A change that rests on
//! what may be lost, such as a patch, is lost, too. The old directory is only read.

mod replay;
mod runs;
mod source;

use std::collections::BTreeSet;

use super::fresh::{Fresh, check_free, is_empty};
use super::import::with_main;
use super::open::{Options, lock};
use super::verify::Progress;
use crate::env::Env;
use crate::error::Result;
use crate::keyspaces::{CATALOGUE, COMMITS, IDEMPOTENCY, NOTES};
use crate::log::StateHash;
use crate::manifest::Manifest;
use crate::run::{Spot, parts_of};
use crate::seal::GivenKeys;
use crate::state::State;
use replay::Replay;
use source::Source;

pub use source::sealed_with_any;

/// What was kept and what was not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Salvaged {
    /// The newest version that was kept, and its time.
    pub version: u64,
    pub time: u64,
    /// Names, sorted.
    pub branches: Vec<String>,
    pub rows: u64,
    /// Records of the log that were replayed.
    pub records: u64,
    /// In the order in which they were found; empty when nothing is lost.
    pub lost: Vec<Loss>,
}

/// One part of the database that is not in the new one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loss {
    pub file: String,
    pub offset: u64,
    /// 0 where it is not known, or no bytes are damaged there.
    pub length: u64,
    pub what: &'static str,
    pub reason: String,
    /// The last row that was kept before it and the first one behind it, in the order of rows: what is between may be lost.
    /// Where one row is lost both are that row. `None` is the end of the run.
    pub first: Option<LostPlace>,
    pub last: Option<LostPlace>,
    /// The versions that it may concern, both included, where they are known.
    pub versions: Option<(u64, u64)>,
}

/// A version of a key by names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LostPlace {
    pub branch: String,
    pub space: String,
    pub kind: String,
    pub key: Vec<u8>,
    pub version: u64,
}

/// Make the database `name` in the directory that `outside` stands for of what is whole of the one that `from` stands for.
///
/// `progress` is told of bytes of runs and log, read and in all.
pub fn salvage(
    from: &Env,
    outside: &Env,
    name: &str,
    keys: Option<&GivenKeys>,
    progress: Progress<'_>,
) -> Result<Salvaged> {
    if !is_empty(&*outside.disk, name)? {
        check_free(&*outside.disk, name, "database")?;
    }
    // Where there is no file for it, nobody holds it, and none is made.
    let is_there = from.disk.list("")?.unwrap_or_default().iter().any(|name| name == "LOCK");
    let _lock = if is_there { Some(lock(from, &Options { read_only: true, ..Options::default() })?) } else { None };
    let source = Source::find(from, keys)?;
    let fresh = Fresh::begin_in_place(outside, name, keys)?;
    let copied = runs::copy(&source, &fresh, progress)?;
    let mut replay = Replay::new(&source, &fresh, &copied)?;
    replay.read(progress)?;
    let second = replay.write(&fresh, copied.runs.len() as u64 + 1)?;
    let mut salvaged = replay.salvaged();
    salvaged.rows += copied.rows;
    salvaged.lost = [&source.lost[..], &copied.lost, &salvaged.lost].concat();
    let state = with_main(finished(replay.state()?, &copied.damaged, &replay.damaged));
    let live = state.branches.iter().filter(|branch| !branch.is_deleted);
    salvaged.branches = live.map(|branch| branch.name.clone()).collect();
    salvaged.branches.sort();
    let (checkpoint_version, checkpoint_time) = (salvaged.version, salvaged.time);
    let manifest = Manifest { checkpoint_version, checkpoint_time, state, ..Manifest::default() };
    drop(replay);
    fresh.finish_with(copied.runs.into_iter().chain(second).collect(), manifest)?;
    Ok(salvaged)
}

/// A history with holes is not the one that the state hash named.
fn finished(mut state: State, damaged: &BTreeSet<u32>, replayed: &BTreeSet<u32>) -> State {
    for branch in &mut state.branches {
        if damaged.contains(&branch.id) || replayed.contains(&branch.id) {
            branch.hash = StateHash::next(branch.hash, branch.version, branch.created, b"salvaged");
        }
    }
    state
}

/// Names for what numbers stand for.
fn place_of(state: &State, spot: &Spot) -> LostPlace {
    let (branch, keyspace, key) = parts_of(&spot.0);
    let found = state.branches.iter().find(|state| state.id == branch);
    let branch = match found {
        // Another may have its name.
        Some(found) if found.is_deleted => format!("{} (deleted)", found.name),
        Some(found) => found.name.clone(),
        None => format!("branch {branch}"),
    };
    let named = |kind: &str| (String::new(), kind.to_owned());
    let (space, kind) = match keyspace {
        CATALOGUE => named("catalogue"),
        COMMITS => named("commits"),
        NOTES => named("notes"),
        IDEMPOTENCY => named("idempotency keys"),
        _ => state.keyspaces.get(keyspace as usize - 1).cloned().unwrap_or_default(),
    };
    LostPlace { branch, space, kind, key: key.to_vec(), version: spot.1 }
}
