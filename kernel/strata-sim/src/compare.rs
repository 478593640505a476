//! Whether a store is what the model says, read through everything that reads.

use std::sync::Arc;

use strata_kernel::branch::{At, Branch as StoreBranch, HistoryRow, Range, RowBuffer, StreamHead};
use strata_kernel::env::sim::SimDisk;
use strata_kernel::manifest::Manifest;
use strata_kernel::run;
use strata_kernel::store::{BranchInfo, Options, Store};

use crate::care::Care;
use crate::driver::Check;
use crate::model::{Branch, Cell, Commit, KEYSPACES, Key, State};
use crate::workload::KEYS;

type Numbers = [u32; KEYSPACES.len()];

/// The branches, and what each shows at its head.
pub fn heads(store: &Store, numbers: &Numbers, state: &State) -> Check {
    let (held, budget) = store.cache_bytes();
    if held > budget {
        return Err(format!("the cache holds {held} bytes, it may hold {budget}"));
    }
    same_branches(store, state)?;
    for branch in state.branches.values() {
        let found = store.branch(&branch.name).map_err(|error| error.to_string())?;
        let nothing = Commit::default();
        let commit = branch.newest().map_or(&nothing, |commit| commit);
        let now = At::past(branch.head, store.env.clock.wall_us());
        same_rows(&found, numbers, commit, now).map_err(|why| format!("{} at its head: {why}", branch.name))?;
        same_keys(&found, numbers, commit, now).map_err(|why| format!("{} at its head: {why}", branch.name))?;
    }
    Ok(())
}

/// Every version, every history, every list of commits.
pub fn everything(store: &Store, numbers: &Numbers, state: &State, care: &Care) -> Check {
    for branch in state.branches.values() {
        let found = store.branch(&branch.name).map_err(|error| error.to_string())?;
        let told = |why| format!("{}: {why}", branch.name);
        same_versions(&found, numbers, state, branch, care).map_err(told)?;
        same_commits(&found, branch, care.trims()).map_err(told)?;
        same_histories(&found, numbers, branch, care, state.time).map_err(told)?;
        same_spaces(store, &found, branch).map_err(told)?;
    }
    Ok(())
}

/// What lies in the directory is what the MANIFEST names, once the database was opened for writing.
pub fn files(disk: &SimDisk, options: &Options) -> Check {
    let keys = |id| options.keys.as_ref().map(|keys| Arc::new(keys.ring(id)));
    let manifest = Manifest::read(disk, &keys)?.ok_or("there is no MANIFEST")?;
    let mut expected: Vec<String> = manifest.runs.iter().map(|run| run::path(*run)).collect();
    expected.extend(["LOCK", "MANIFEST", "MANIFEST.bak"].map(str::to_owned));
    let (mut log, mut found): (Vec<_>, Vec<_>) = disk.paths().into_iter().partition(|path| path.starts_with("WAL/"));
    // The room for deletions, which a database does without where it cannot be had.
    // What indexes keep of a run is there, or can be made again.
    let derived: Vec<String> = manifest.runs.iter().map(|run| run::derived_path(*run)).collect();
    found.retain(|path| !derived.contains(path));
    log.retain(|path| path != "WAL/wal-spare.tmp");
    expected.sort();
    found.sort();
    if found != expected {
        return Err(format!("there are the files {found:?}, the MANIFEST names {expected:?}"));
    }
    let segments: Vec<String> =
        (manifest.segment..).take(log.len()).map(|segment| format!("WAL/wal-{segment:06}.seg")).collect();
    if log == segments { Ok(()) } else { Err(format!("there are the segments {log:?}, not {segments:?}")) }
}

/// A commit that is there is known by its transaction id, and one that is not there is not.
pub fn outcomes(store: &Store, state: &State, lost: &[(u64, u64)], care: &Care) -> Check {
    let known = state.branches.values().flat_map(|branch| branch.commits.last());
    for commit in known.filter(|commit| state.branches.values().any(|b| b.head == commit.version)) {
        let id = format!("{}-{}", commit.version, commit.time);
        if store.outcome(&id) != Ok(true) && !care.trims() {
            return Err(format!("transaction {id} is there, and its outcome {:?}", store.outcome(&id)));
        }
    }
    for (version, time) in lost {
        let id = format!("{version}-{time}");
        if store.outcome(&id) != Ok(false) {
            return Err(format!("transaction {id} is lost, and its outcome {:?}", store.outcome(&id)));
        }
    }
    Ok(())
}

fn same_branches(store: &Store, state: &State) -> Check {
    let info = |branch: &Branch| BranchInfo {
        seal: None,
        id: branch.id,
        name: branch.name.clone(),
        parent: branch.parent.and_then(|(parent, _)| Some(state.branches.get(&parent)?.name.clone())),
        fork_version: branch.parent.map(|(_, version)| version),
        head: branch.head,
        created: branch.created,
        state_hash: None,
    };
    let mut expected: Vec<BranchInfo> = state.branches.values().map(|branch| info(branch)).collect();
    expected.sort_by(|a, b| a.name.cmp(&b.name));
    let found = store.branches().map_err(|error| error.to_string())?;
    // The model has no hashes; verify works them out.
    let found: Vec<_> = found.into_iter().map(|info| BranchInfo { state_hash: None, ..info }).collect();
    if found == expected { Ok(()) } else { Err(format!("the branches are {found:?}, not {expected:?}")) }
}

fn same_rows(branch: &StoreBranch, numbers: &Numbers, commit: &Commit, at: At) -> Check {
    for (keyspace, number) in numbers.iter().enumerate() {
        let reverse = (at.version + keyspace as u64) % 2 == 1;
        let mut rows = RowBuffer::default();
        branch.scan(*number, &Range::default(), reverse, at, &mut rows, usize::MAX)?;
        let mut expected: Vec<(&[u8], &[u8])> =
            commit.rows(keyspace, at.time).map(|(key, value)| (&key[..], &value.bytes[..])).collect();
        if reverse {
            expected.reverse();
        }
        let alike = rows.rows().eq(expected.iter().copied());
        if !alike {
            return Err(format!(
                "keyspace {keyspace} has {} rows, not the {} it should have",
                rows.len(),
                expected.len()
            ));
        }
    }
    Ok(())
}

fn same_keys(branch: &StoreBranch, numbers: &Numbers, commit: &Commit, at: At) -> Check {
    let plain = KEYS.iter().map(|key| (0, key.to_vec()));
    for key in plain.chain(commit.contents.keys().cloned()) {
        same_key(branch, numbers, commit, &key, at)?;
    }
    Ok(())
}

fn same_key(branch: &StoreBranch, numbers: &Numbers, commit: &Commit, key: &Key, at: At) -> Check {
    let found = branch.value(numbers[key.0], &key.1, at)?;
    let expected = commit.value(key, at.time).map(|value| &value.bytes);
    if found.as_ref() == expected { Ok(()) } else { Err(format!("{} is {found:?}, not {expected:?}", show(key))) }
}

fn same_versions(found: &StoreBranch, numbers: &Numbers, state: &State, branch: &Branch, care: &Care) -> Check {
    let stride = stride(state.version as usize);
    for version in (state.version % stride as u64..=state.version).step_by(stride) {
        match same_version(found, numbers, branch, version) {
            Err(why) if why.contains("is no longer kept") && care.may_refuse(branch, version, state.time) => {}
            seen => seen.map_err(|why| format!("at version {version}: {why}"))?,
        }
    }
    Ok(())
}

fn same_version(found: &StoreBranch, numbers: &Numbers, branch: &Branch, version: u64) -> Check {
    let nothing = Commit::default();
    let commit = branch.shown_at(version).map_or(&nothing, |commit| commit);
    let at = At::past(version, commit.time);
    same_rows(found, numbers, commit, at)?;
    // What a key held is read by itself where it had just changed.
    for (key, _) in commit.touched.iter().filter(|_| commit.version == version) {
        same_key(found, numbers, commit, key, at)?;
    }
    for (stream, next, time, hash) in commit.stream_ends() {
        let head = found.stream_head(numbers[stream.0], &stream.1, at)?;
        if head != (StreamHead { next, time, hash }) {
            return Err(format!("{} ends with {head:?}, not with {next}", show(stream)));
        }
    }
    Ok(())
}

/// Of a long history not every version is looked at each time.
fn stride(length: usize) -> usize {
    1 + length / 64
}

/// Where history is trimmed some may be missing.
fn same_commits(found: &StoreBranch, branch: &Branch, trims: bool) -> Check {
    for reverse in [false, true] {
        let rows = found.commits(0, u64::MAX, reverse, usize::MAX)?;
        let row = |row: strata_kernel::branch::CommitRow| (row.version, row.time, row.meta.idempotency_key);
        let mut found: Vec<_> = rows.into_iter().map(row).collect();
        if reverse {
            found.reverse();
        }
        let of = |commit: &std::rc::Rc<Commit>| (commit.version, commit.time, commit.idempotency_key.clone());
        let expected: Vec<_> = branch.commits.iter().map(of).collect();
        let same = if trims { found.iter().all(|row| expected.contains(row)) } else { found == expected };
        if !same {
            return Err(format!("the commits are {found:?}, not {expected:?}"));
        }
    }
    for commit in branch.commits.iter().filter(|_| !trims).step_by(stride(branch.commits.len())) {
        let at = branch.commits.iter().rev().find(|other| other.time <= commit.time).map_or(0, |other| other.version);
        let version = found.version_at(commit.time)?;
        if version != at || found.time_of(commit.version)? != commit.time {
            return Err(format!("time {} is version {version}, not {at}", commit.time));
        }
    }
    Ok(())
}

fn same_histories(found: &StoreBranch, numbers: &Numbers, branch: &Branch, care: &Care, now: u64) -> Check {
    let Some(newest) = branch.newest() else { return Ok(()) };
    for key in newest.contents.keys() {
        let rows = found.history(numbers[key.0], &key.1, branch.head, u64::MAX, usize::MAX)?;
        let expected = branch.history(key, branch.head);
        let is_it = |row: &HistoryRow, (cell, time): &(Cell, u64)| {
            (row.version, row.time, row.expires) == (cell.version, *time, cell.expires.unwrap_or(0))
                && row.value.as_ref() == cell.value.as_ref().map(|value| &value.bytes)
        };
        let same = if care.trims() {
            let (kept, _) = care.split(branch, key.0, &expected, now);
            // A deletion with nothing below it says no more than its absence.
            let gone = kept.into_iter().filter(|cell| cell.value.is_some());
            let gone = gone.filter(|cell| rows.iter().all(|row| row.version != cell.version)).count();
            gone == 0 && rows.iter().all(|row| expected.iter().any(|cell| is_it(row, cell)))
        } else {
            rows.len() == expected.len() && rows.iter().zip(&expected).all(|(row, cell)| is_it(row, cell))
        };
        if !same {
            return Err(format!("the history of {} has {} versions, not {}", show(key), rows.len(), expected.len()));
        }
    }
    Ok(())
}

fn same_spaces(store: &Store, found: &Arc<StoreBranch>, branch: &Branch) -> Check {
    let spaces = branch.newest().into_iter().flat_map(|commit| &commit.spaces);
    let mut expected: Vec<String> = spaces.map(|index| KEYSPACES[*index].0.to_owned()).collect();
    expected.sort();
    expected.dedup();
    let spaces = store.spaces(found, branch.head)?;
    if spaces == expected { Ok(()) } else { Err(format!("the spaces are {spaces:?}, not {expected:?}")) }
}

fn show(key: &Key) -> String {
    format!("key {}/{}", key.0, key.1.escape_ascii())
}
