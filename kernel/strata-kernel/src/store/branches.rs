//! The set of branches: create, fork, rename, delete. Each is one record of the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Store;
use super::tags::Tagged;
use rustc_hash::FxHashMap;

use crate::branch::{Branch, Fork, Pin, Runs, Shared};
use crate::error::{Error, Result};
use crate::log::{Stamp, StateHash, Use};
use crate::payload::{BranchChange, Seal};
use crate::sabotage;
use crate::state::{BranchState, State, Tag};

/// The branch that every database begins with.
pub const MAIN: &str = "main";

pub struct Registry {
    by_name: BTreeMap<String, Arc<Branch>>,
    by_id: FxHashMap<u32, Arc<Branch>>,
    next_id: u32,
    pub(super) tags: BTreeMap<String, Tagged>,
    shared: Shared,
    /// The chain of the records that change this set.
    pub hash: StateHash,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchInfo {
    pub id: u32,
    pub name: String,
    pub parent: Option<String>,
    pub fork_version: Option<u64>,
    pub head: u64,
    pub created: u64,
    pub seal: Option<Seal>,
    /// The chain of all its own commits; `None` before the first, and without a log.
    pub state_hash: Option<StateHash>,
}

impl Registry {
    /// The branches of a new database.
    pub fn new(created: u64, shared: &Shared) -> Registry {
        let main = BranchState { name: MAIN.to_owned(), created, ..BranchState::default() };
        let state = State { next_branch: 1, branches: vec![main], ..State::default() };
        Registry::of(&state, |_| Runs::default(), shared).expect("it has no parents")
    }

    /// The branches as they were at a checkpoint; `runs` says what is on disk of each.
    pub fn of(state: &State, runs: impl Fn(u32) -> Runs, shared: &Shared) -> Result<Registry> {
        let mut all: FxHashMap<u32, Arc<Branch>> = FxHashMap::default();
        let mut registry = Registry {
            by_name: BTreeMap::new(),
            by_id: FxHashMap::default(),
            next_id: state.next_branch,
            tags: BTreeMap::new(),
            shared: shared.clone(),
            hash: state.branches_hash,
        };
        for branch in &state.branches {
            let fork = match branch.parent {
                Some((id, version)) => {
                    let parent = all.get(&id).ok_or_else(|| unknown(id))?;
                    Some(Fork { branch: Arc::clone(parent), version })
                }
                None => None,
            };
            let flat = match branch.flat {
                Some((id, version)) => {
                    Some(Fork { branch: Arc::clone(all.get(&id).ok_or_else(|| unknown(id))?), version })
                }
                None => None,
            };
            let made = Arc::new(Branch::new(branch, fork, flat, runs(branch.id), shared));
            all.insert(branch.id, Arc::clone(&made));
            if !branch.is_deleted {
                registry.insert(made);
            }
        }
        for tag in &state.tags {
            registry.add_tag(tag.clone()).ok_or_else(|| unknown(tag.branch))?;
        }
        Ok(registry)
    }

    /// All branches and those that they were forked off, by id.
    pub fn with_ancestors(&self) -> BTreeMap<u32, Arc<Branch>> {
        let mut all = BTreeMap::new();
        for branch in self.by_name.values() {
            let mut next = Some(branch);
            while let Some(branch) = next.filter(|branch| !all.contains_key(&branch.id)) {
                all.insert(branch.id, Arc::clone(branch));
                next = branch.parent.as_ref().map(|fork| &fork.branch);
            }
        }
        all
    }

    /// What a checkpoint keeps of the branches; their versions and hashes are to be filled in.
    pub fn state(&self) -> State {
        let state = |branch: &Arc<Branch>| BranchState {
            id: branch.id,
            name: branch.name.read().clone(),
            parent: branch.parent.as_ref().map(|fork| (fork.branch.id, fork.version)),
            created: branch.created,
            flat: branch.flat().map(|fork| (fork.branch.id, fork.version)),
            is_deleted: branch.is_deleted(),
            floors: branch.data.read().floors.clone(),
            seal: branch.seal(),
            ..BranchState::default()
        };
        let branches = self.with_ancestors().values().map(state).collect();
        let newest = self.by_name.values().map(|branch| branch.id).max().unwrap_or(0);
        let next_branch = if sabotage::on("K22") { newest + 1 } else { self.next_id };
        let tags = self.tags.values().map(|tagged| tagged.tag.clone()).collect();
        State { branches_hash: self.hash, next_branch, branches, tags, ..State::default() }
    }

    fn insert(&mut self, branch: Arc<Branch>) {
        self.next_id = self.next_id.max(branch.id + 1);
        self.by_name.insert(branch.name.read().clone(), Arc::clone(&branch));
        self.by_id.insert(branch.id, branch);
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Branch>> {
        self.by_name.values()
    }

    pub fn by_id(&self, id: u32) -> Option<&Arc<Branch>> {
        self.by_id.get(&id)
    }

    fn names(&self) -> Vec<String> {
        self.by_name.keys().cloned().collect()
    }

    /// Fold a change in, which was checked before.
    pub fn apply(&mut self, change: &BranchChange, stamp: Stamp) -> Result<()> {
        match change {
            BranchChange::Create { id, name, parent } => {
                let fork = match parent {
                    Some((parent, version)) => {
                        let branch = Arc::clone(self.by_id(*parent).ok_or_else(|| unknown(*parent))?);
                        Some(Fork { branch, version: *version })
                    }
                    None => None,
                };
                let (created, version) = (stamp.time, stamp.version);
                let state = BranchState { id: *id, name: name.clone(), created, version, ..BranchState::default() };
                self.insert(Arc::new(Branch::new(&state, fork, None, Runs::default(), &self.shared)));
            }
            BranchChange::Rename { id, name } => {
                let branch = Arc::clone(self.by_id(*id).ok_or_else(|| unknown(*id))?);
                let old = std::mem::replace(&mut *branch.name.write(), name.clone());
                self.by_name.remove(&old);
                self.by_name.insert(name.clone(), branch);
            }
            BranchChange::Delete { id } => {
                let branch = self.by_id.remove(id).ok_or_else(|| unknown(*id))?;
                branch.mark_deleted();
                self.by_name.remove(&*branch.name.read());
                self.tags.retain(|_, tagged| tagged.tag.branch != *id);
            }
            BranchChange::Seal { id, seal } => {
                self.by_id(*id).ok_or_else(|| unknown(*id))?.set_seal(seal.clone());
            }
            BranchChange::Tag { id, name, version, note } => {
                let (name, note) = (name.clone(), note.clone());
                let tag = Tag { name, branch: *id, version: *version, created: stamp.time, note };
                self.add_tag(tag).ok_or_else(|| unknown(*id))?;
            }
            BranchChange::Untag { name, .. } => drop(self.tags.remove(name)),
        }
        self.hash = stamp.hash;
        Ok(())
    }
}

fn unknown(id: u32) -> Error {
    Error::Corrupt {
        file: "WAL".into(),
        offset: 0,
        reason: format!("a record names branch {id}, which does not exist"),
    }
}

impl Store {
    pub fn branch(&self, name: &str) -> Result<Arc<Branch>> {
        self.check_open()?;
        let found = self.registry.read().by_name.get(name).cloned();
        found.ok_or_else(|| self.no_branch(name))
    }

    /// A branch by its id: one that was deleted too, while others that were forked off it see that version.
    pub fn known_branch(&self, id: u32, version: u64) -> Result<Arc<Branch>> {
        self.check_open()?;
        let registry = self.registry.read();
        let found = registry.by_id(id).cloned().or_else(|| registry.with_ancestors().remove(&id));
        let is_seen = |branch: &Arc<Branch>| !branch.is_deleted() || branch.pins().last() >= Some(&version);
        found.filter(is_seen).ok_or_else(|| Error::NotFound {
            what: "branch",
            name: format!("with the id {id}"),
            near: Vec::new(),
        })
    }

    pub(super) fn no_branch(&self, name: &str) -> Error {
        let names = self.registry.read().names();
        Error::NotFound { what: "branch", name: name.to_owned(), near: near(name, names) }
    }

    /// All branches, by name.
    pub fn branches(&self) -> Result<Vec<BranchInfo>> {
        self.check_open()?;
        let registry = self.registry.read();
        let info = |branch: &Arc<Branch>| BranchInfo {
            id: branch.id,
            name: branch.name.read().clone(),
            parent: branch
                .parent
                .as_ref()
                .filter(|fork| !fork.branch.is_deleted())
                .map(|fork| fork.branch.name.read().clone()),
            fork_version: branch.parent.as_ref().map(|fork| fork.version),
            head: branch.head(),
            created: branch.created,
            seal: branch.seal(),
            state_hash: Some(branch.data.read().state_at(u64::MAX).1).filter(|hash| *hash != StateHash::default()),
        };
        Ok(registry.all().map(info).collect())
    }

    /// An empty branch. Returns the version that made it.
    pub fn create(&self, name: &str) -> Result<u64> {
        self.change_branches(|registry| {
            registry.check_free(name)?;
            Ok(BranchChange::Create { id: registry.next_id, name: name.to_owned(), parent: None })
        })
    }

    /// A branch that begins as `source` is now, or was at version `at`. Copies nothing.
    pub fn fork(&self, source: &str, name: &str, at: Option<u64>) -> Result<u64> {
        // Held until the fork has its own.
        let mut pin = Pin::default();
        self.change_branches(|registry| {
            registry.check_free(name)?;
            let parent = registry.find(source)?;
            let version = at.unwrap_or(u64::MAX).min(parent.head());
            pin = parent.pin(version);
            if !pin.is_whole() {
                return Err(parent.trimmed_at(version));
            }
            Ok(BranchChange::Create { id: registry.next_id, name: name.to_owned(), parent: Some((parent.id, version)) })
        })
    }

    pub fn rename(&self, old: &str, new: &str) -> Result<u64> {
        self.change_branches(|registry| {
            let branch = registry.find(old)?;
            registry.check_free(new)?;
            check_unprotected(branch)?;
            Ok(BranchChange::Rename { id: branch.id, name: new.to_owned() })
        })
    }

    /// Forget a branch. What its forks see of it stays.
    pub fn delete_branch(&self, name: &str) -> Result<u64> {
        let branch = self.branch(name)?;
        // No commit is in the middle while the name goes.
        let line = branch.line.lock();
        let version = self.change_branches(|registry| {
            let branch = registry.find(name)?;
            check_unprotected(branch)?;
            Ok(BranchChange::Delete { id: branch.id })
        });
        drop(line);
        version
    }

    pub(super) fn change_branches(&self, change: impl FnOnce(&Registry) -> Result<BranchChange>) -> Result<u64> {
        self.check_store_writable()?;
        let mut registry = self.registry.write();
        let change = change(&registry)?;
        let use_for = if matches!(change, BranchChange::Delete { .. }) { Use::Room } else { Use::Data };
        let appended = self.log.append_for(use_for, self.log.now(), registry.hash, &change.encode())?;
        // A branch that others can see and write to must not be lost before what they write.
        self.log.wait(&appended)?;
        registry.apply(&change, appended.stamp)?;
        Ok(appended.stamp.version)
    }
}

impl Registry {
    fn check_free(&self, name: &str) -> Result<()> {
        if self.by_name.contains_key(name) {
            return Err(Error::AlreadyExists { what: "branch", name: name.to_owned() });
        }
        Ok(())
    }

    pub(super) fn find(&self, name: &str) -> Result<&Arc<Branch>> {
        self.by_name.get(name).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> Error {
        Error::NotFound { what: "branch", name: name.to_owned(), near: near(name, self.names()) }
    }
}

/// Refuse to touch what is protected.
fn check_unprotected(branch: &Branch) -> Result<()> {
    if branch.seal().is_some_and(|seal| seal.is_protected) { Err(branch.protected()) } else { Ok(()) }
}

/// Names that `name` may have been meant to be, nearest first.
pub(super) fn near(name: &str, names: Vec<String>) -> Vec<String> {
    let mut near: Vec<_> = names.into_iter().map(|other| (edits(name, &other), other)).collect();
    near.retain(|(edits, other)| *edits <= 1 + other.chars().count() / 4);
    near.sort();
    near.into_iter().map(|(_, name)| name).collect()
}

/// Edit distance with transpositions (optimal string alignment).
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let swap = if swapped { rows[i - 2][j - 2] + 1 } else { usize::MAX };
                replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(swap)
            };
        }
    }
    rows[a.len()][b.len()]
}
