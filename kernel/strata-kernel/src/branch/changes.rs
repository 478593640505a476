//! What changed: between two versions of a branch, and between any two states.
//!
//! Two states have in common what their lineages share: the newest state that both come from by commits alone. From there
//! each came by the commits of some branches, in a window of versions each, and only keys that these wrote can differ. Tables
//! and runs find them without a look at the rest, so the cost is that of the changes on both sides, whatever the data.
//!
//! Expiry is no commit, so it is no change: rows are compared as they are kept, with the instant that they expire at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{At, Branch, Pin, decode_touched};
use crate::error::Result;
use crate::keyspaces::{CATALOGUE, RESERVED};
use crate::run::TakeChange;
use crate::table::{ChangeKind, Version};
use crate::value::path::Path;

/// The state of a branch at one version.
#[derive(Clone)]
pub struct State {
    pub branch: Arc<Branch>,
    pub version: u64,
    pub pin: Arc<Pin>,
}

/// How a key came to its value since the common state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct How {
    /// Which kinds of change there were: the bit `1 << kind` of each.
    pub kinds: u8,
    /// What patches touched.
    pub touched: Vec<Path>,
}

impl How {
    /// Some changes are no longer kept.
    pub const UNKNOWN: u8 = 1;

    fn add(&mut self, version: &Version<'_>) {
        self.kinds |= 1 << version.kind as u8;
        if version.kind == ChangeKind::Patch {
            for path in decode_touched(version.touched) {
                if !self.touched.contains(&path) {
                    self.touched.push(path);
                }
            }
        }
    }
}

/// A row as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub version: u64,
    pub value: Vec<u8>,
    /// 0: never.
    pub expires: u64,
    /// It was appended: another append of the same value is another row.
    pub is_appended: bool,
}

impl Kept {
    fn is_same(&self, other: &Kept) -> bool {
        let is_same = (&self.value, self.expires) == (&other.value, other.expires);
        is_same && (!(self.is_appended || other.is_appended) || self.version == other.version)
    }
}

/// A key that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub keyspace: u32,
    pub key: Vec<u8>,
    pub old: Option<Kept>,
    pub new: Option<Kept>,
    /// How the new state came to it.
    pub how: How,
}

/// One write of one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub version: u64,
    pub keyspace: u32,
    pub key: Vec<u8>,
    pub kind: ChangeKind,
    pub value: Option<Vec<u8>>,
    /// 0: never.
    pub expires: u64,
}

/// The commits of one branch that a state has and another has not: above the first version, up to the second.
struct Window<'a> {
    branch: &'a Branch,
    after: u64,
    upto: u64,
}

impl State {
    /// The branches whose commits made it, each up to a version: itself first, unless it is of before its fork.
    fn commits_of(&self) -> Vec<(&Branch, At)> {
        let mut lineage = self.branch.lineage(At::from(self.version));
        lineage.retain(|(branch, at)| branch.parent.is_none() || at.version > branch.fork_version());
        lineage
    }
}

/// What only one of two states comes from, for each of them.
fn apart<'a>(a: &'a State, b: &'a State) -> (Vec<Window<'a>>, Vec<Window<'a>>) {
    let (a, b) = (a.commits_of(), b.commits_of());
    let meeting = |(i, (branch, _)): (usize, &(&Branch, At))| {
        b.iter().position(|(other, _)| other.id == branch.id).map(|j| (i, j))
    };
    let found = a.iter().enumerate().find_map(meeting);
    let shared = found.map_or(0, |(i, j)| a[i].1.version.min(b[j].1.version));
    (windows(a, found.map(|(i, _)| i), shared), windows(b, found.map(|(_, j)| j), shared))
}

fn windows<'a>(mut lineage: Vec<(&'a Branch, At)>, meeting: Option<usize>, shared: u64) -> Vec<Window<'a>> {
    lineage.truncate(meeting.map_or(usize::MAX, |last| last + 1));
    let window = |(number, (branch, at)): (usize, (&'a Branch, At))| {
        let after = if Some(number) == meeting { shared } else { branch.fork_version() };
        Window { branch, after, upto: at.version }
    };
    lineage.into_iter().enumerate().map(window).filter(|window| window.upto > window.after).collect()
}

impl Branch {
    fn fork_version(&self) -> u64 {
        self.parent.as_ref().map_or(0, |fork| fork.version)
    }

    /// Call `change` with each of its own versions in `(after, upto]`, in no order, and perhaps twice.
    fn own_changes(&self, after: u64, upto: u64, change: TakeChange<'_>) -> Result<()> {
        let data = self.data.read();
        let (mut upto, mut outcome) = (upto, Ok(()));
        for layer in data.layers() {
            for (&keyspace, table) in &layer.tables {
                table.changed((after, upto), |key, version| {
                    if outcome.is_ok() {
                        outcome = change(keyspace, key, version);
                    }
                });
            }
            // All later commits are in this layer and those before it.
            upto = layer.commits.first().map_or(upto, |first| upto.min(first.version - 1));
        }
        outcome?;
        let runs = Arc::clone(&data.runs);
        drop(data);
        runs.iter().filter(|_| upto > after).try_for_each(|run| run.changes(self.id, (after, upto), change))
    }

    /// Its own writes in a window, of all keyspaces that have a name, in order of versions.
    fn writes_in(&self, window: &Window<'_>, written: &mut Vec<Written>) -> Result<()> {
        window.branch.own_changes(window.after, window.upto, &mut |keyspace, key, version| {
            if is_data(keyspace) {
                let Version { version, kind, value, expires, .. } = version;
                let value = value.map(<[u8]>::to_vec);
                written.push(Written { version, keyspace, key: key.to_vec(), kind, value, expires });
            }
            Ok(())
        })
    }

    /// The writes of the commits that this branch shows in `(after, upto]`, in order of versions, then of keyspaces as `order`
    /// has them, and keys.
    pub fn writes<O: Ord>(&self, after: u64, upto: u64, order: impl Fn(u32) -> O) -> Result<Vec<Written>> {
        let mut written = Vec::new();
        for (branch, at) in self.lineage(At::from(upto)) {
            let window = Window { branch, after: after.max(branch.fork_version()), upto: at.version };
            if window.upto > window.after {
                self.writes_in(&window, &mut written)?;
            }
        }
        let keyspaces: BTreeSet<u32> = written.iter().map(|write| write.keyspace).collect();
        let mut ordered: Vec<u32> = keyspaces.into_iter().collect();
        ordered.sort_by_cached_key(|keyspace| order(*keyspace));
        let rank: FxHashMap<u32, usize> = ordered.into_iter().zip(0..).collect();
        let place = |write: &Written| (write.version, rank[&write.keyspace]);
        written.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.key.cmp(&b.key)));
        written.dedup_by(|a, b| place(a) == place(b) && a.key == b.key);
        Ok(written)
    }

    fn kept(&self, keyspace: u32, key: &[u8], version: u64) -> Result<Option<Kept>> {
        // At that time nothing had expired.
        self.read(keyspace, key, At::past(version, 0), |found| {
            found.and_then(|Version { version, kind, value, expires, .. }| {
                let is_appended = kind == ChangeKind::Append;
                value.map(|value| Kept { version, value: value.to_vec(), expires, is_appended })
            })
        })
    }
}

fn is_data(keyspace: u32) -> bool {
    keyspace != CATALOGUE && keyspace < RESERVED
}

impl State {
    /// How `key` came to be what it is here, since the state that this has in common with `other`.
    pub fn how(&self, other: &State, keyspace: u32, key: &[u8]) -> Result<How> {
        let mut how = How::default();
        for window in apart(self, other).0 {
            let data = window.branch.data.read();
            data.changes_since(keyspace, key, window.after, |version| {
                if version.version <= window.upto {
                    how.add(&version);
                }
                std::ops::ControlFlow::Continue(())
            })?;
            how.kinds |= if is_trimmed(&data, keyspace, window.after) { How::UNKNOWN } else { 0 };
        }
        Ok(how)
    }
}

fn is_trimmed(data: &super::Data, keyspace: u32, after: u64) -> bool {
    data.floor(keyspace).is_some_and(|floor| floor > after)
}

/// The keys that differ between two states, to be gone through.
pub struct Diff {
    old: State,
    new: State,
    left: std::vec::IntoIter<((u32, Vec<u8>), How)>,
}

impl Diff {
    /// Compare two states; `order` says where a keyspace stands, and `None` of those that are left out.
    pub fn new<O: Ord>(old: &State, new: &State, order: impl Fn(u32) -> Option<O>) -> Result<Diff> {
        let mut found: BTreeMap<(u32, Vec<u8>), How> = BTreeMap::new();
        let (before, since) = apart(old, new);
        for window in &before {
            window.branch.own_changes(window.after, window.upto, &mut |keyspace, key, _| {
                found.entry((keyspace, key.to_vec())).or_default();
                Ok(())
            })?;
        }
        for window in &since {
            window.branch.own_changes(window.after, window.upto, &mut |keyspace, key, version| {
                found.entry((keyspace, key.to_vec())).or_default().add(&version);
                Ok(())
            })?;
            let data = window.branch.data.read();
            for ((keyspace, _), how) in &mut found {
                how.kinds |= if is_trimmed(&data, *keyspace, window.after) { How::UNKNOWN } else { 0 };
            }
        }
        let place = |keyspace: u32| if is_data(keyspace) { order(keyspace) } else { None };
        let mut left: Vec<_> = found.into_iter().filter_map(|found| Some((place(found.0.0)?, found))).collect();
        left.sort_by(|a, b| a.0.cmp(&b.0)); // stable: keys stay in order
        let left = left.into_iter().map(|(_, found)| found).collect::<Vec<_>>().into_iter();
        Ok(Diff { old: old.clone(), new: new.clone(), left })
    }

    /// The next keys that differ, at most `limit`; none at the end.
    pub fn page(&mut self, limit: usize) -> Result<Vec<Difference>> {
        let mut page = Vec::new();
        while page.len() < limit {
            let Some(((keyspace, key), how)) = self.left.next() else { break };
            let old = self.old.branch.kept(keyspace, &key, self.old.version)?;
            let new = self.new.branch.kept(keyspace, &key, self.new.version)?;
            let differs = match (&old, &new) {
                (Some(old), Some(new)) => !old.is_same(new),
                (old, new) => old.is_some() != new.is_some(),
            };
            if differs {
                page.push(Difference { keyspace, key, old, new, how });
            }
        }
        Ok(page)
    }
}
