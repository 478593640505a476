//! Restore: a database of its own, of another's files as they are or as they were at a version.
//!
//! The files are opened read-only, with what their log holds. Rows above the version are left out, and so are branches that
//! are younger. Names of branches and policies are those of now.

use std::collections::BTreeSet;

use super::export::cut;
use super::fresh::{Fresh, check_free};
use super::import::with_main;
use super::rows::{Everything, Limits};
use super::{Options, Store};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::log::Stamp;
use crate::manifest::Manifest;
use crate::seal::GivenKeys;
use crate::state::{BranchState, State};

/// Which state of the database to restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Newest,
    Version(u64),
    /// Microseconds since 1970.
    Time(u64),
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restored {
    pub version: u64,
    pub time: u64,
    pub branches: Vec<String>,
    pub rows: u64,
}

/// Make the database `name` in the directory that `outside` stands for, of the one that `from` stands for.
/// Any of `keys` opens those files, and the current one seals the new ones.
pub fn restore(from: &Env, outside: &Env, name: &str, moment: Moment, keys: Option<&GivenKeys>) -> Result<Restored> {
    check_free(&*outside.disk, name, "database")?;
    let options = Options { read_only: true, create: false, keys: keys.cloned(), ..Options::default() };
    let store = Store::open(from.clone(), &options)?;
    let all = store.everything()?;
    let at = find(&all, moment)?;
    let (state, limits) = state_at(&all, at)?;
    let fresh = Fresh::begin(outside, name, keys)?;
    let mut writer = fresh.run()?;
    all.copy(&limits, |branch, keyspace, key, version| writer.add(branch, keyspace, key, version))?;
    let live = state.branches.iter().filter(|branch| !branch.is_deleted);
    let mut branches: Vec<String> = live.map(|branch| branch.name.clone()).collect();
    branches.sort();
    let rows = writer.rows();
    let (checkpoint_version, checkpoint_time) = (at.version, at.time);
    fresh.finish(writer, Manifest { checkpoint_version, checkpoint_time, state, ..Manifest::default() })?;
    Ok(Restored { version: at.version, time: at.time, branches, rows })
}

/// The version of a moment, and the time of its newest commit.
fn find(all: &Everything, moment: Moment) -> Result<Stamp> {
    let is_within = |commit: &Stamp| match moment {
        Moment::Newest => true,
        Moment::Version(version) => commit.version <= version,
        Moment::Time(time) => commit.time <= time,
    };
    let is_newest = match moment {
        Moment::Newest => true,
        Moment::Version(version) => version >= all.newest.version,
        Moment::Time(time) => time >= all.newest.time,
    };
    if is_newest {
        return Ok(all.newest);
    }
    let mut newest = Stamp::default();
    for branch in &all.state.branches {
        let last = all.last_commit(branch.id, is_within)?.unwrap_or_default();
        newest = if last.version > newest.version { last } else { newest };
    }
    // A version that is no commit of a branch may be one that made a branch.
    let version = if let Moment::Version(version) = moment { version } else { newest.version };
    Ok(Stamp { version, ..newest })
}

/// The branches as of a version, and how much of each.
fn state_at(all: &Everything, at: Stamp) -> Result<(State, Limits)> {
    let mut state = State { branches: Vec::new(), ..all.state.clone() };
    let mut limits = Limits::new();
    let there = all_there(all, &at)?;
    for branch in all.state.branches.iter().filter(|branch| there.contains(&branch.id)) {
        if let Some(oldest) = branch.floors.iter().map(|floor| floor.1).max().filter(|floor| *floor > at.version) {
            return Err(Error::HistoryTrimmed { requested: at.version, oldest });
        }
        let mut branch = branch.clone();
        cut(all, &mut branch, at.version)?;
        limits.insert(branch.id, at.version);
        state.branches.push(branch);
    }
    state.tags.retain(|tag| limits.get(&tag.branch).is_some_and(|limit| tag.version <= *limit));
    state.policies.retain(|policy| policy.branch.is_none_or(|branch| limits.contains_key(&branch)));
    Ok((with_main(state), limits))
}

/// The branches that had been made, and what they were forked off: parents stand before their children.
fn all_there(all: &Everything, at: &Stamp) -> Result<BTreeSet<u32>> {
    let mut there = BTreeSet::new();
    for branch in all.state.branches.iter().rev() {
        if there.contains(&branch.id) || was_there(all, branch, at)? {
            there.insert(branch.id);
            there.extend([branch.parent, branch.flat].into_iter().flatten().map(|(parent, _)| parent));
        }
    }
    Ok(there)
}

/// Whether a branch had been made. Where it has written only later, the times tell, which may be equal.
fn was_there(all: &Everything, branch: &BranchState, at: &Stamp) -> Result<bool> {
    if branch.parent.is_some_and(|(_, fork)| fork > at.version) {
        return Ok(false);
    }
    if branch.version <= at.version || branch.created <= at.time {
        return Ok(true);
    }
    Ok(all.last_commit(branch.id, |commit| commit.version <= at.version)?.is_some())
}
