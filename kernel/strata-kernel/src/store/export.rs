//! Export: write a bundle of one branch or of all.

use std::collections::BTreeMap;

use super::Store;
use super::fresh::check_free;
use super::rows::{Everything, Limits, cut_hash};
use crate::bundle::{BundleWriter, Place};
use crate::env::Env;
use crate::error::Result;
use crate::keyspaces::CATALOGUE;
use crate::payload::Number;
use crate::seal::{GivenKeys, KeyId};
use crate::state::{BranchState, State};
use crate::table::{ChangeKind, Version};

/// What a bundle holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bundle {
    pub has_history: bool,
    /// Names of the branches, sorted.
    pub branches: Vec<String>,
    pub rows: u64,
    /// The length of the file.
    pub bytes: u64,
    pub digest: [u8; 32],
    /// What it is sealed with, if it is.
    pub key: Option<KeyId>,
}

impl Store {
    /// Write what is committed now to the file `name` in the directory that `outside` stands for, sealed with the current
    /// one of `keys`.
    pub fn export(
        &self,
        outside: &Env,
        name: &str,
        branch: Option<&str>,
        has_history: bool,
        keys: Option<&GivenKeys>,
    ) -> Result<Bundle> {
        self.check_open()?;
        if let Some(branch) = branch {
            self.branch(branch)?;
        }
        check_free(&*outside.disk, name, "bundle")?;
        let all = self.everything()?;
        let mut writer = BundleWriter::create(outside, has_history, keys)?;
        let (branches, rows) = if has_history {
            self.write_history(&all, branch, &mut writer)?
        } else {
            self.write_newest(&all, branch, &mut writer)?
        };
        check_free(&*outside.disk, name, "bundle")?;
        let (bytes, digest) = writer.finish(name)?;
        Ok(Bundle { has_history, branches, rows, bytes, digest, key: keys.map(|keys| keys.current.id()) })
    }

    fn write_newest(
        &self,
        all: &Everything,
        only: Option<&str>,
        writer: &mut BundleWriter,
    ) -> Result<(Vec<String>, u64)> {
        let now = self.env.clock.wall_us();
        let by_id: BTreeMap<u32, &BranchState> = all.state.branches.iter().map(|branch| (branch.id, branch)).collect();
        let wanted = |branch: &&&BranchState| !branch.is_deleted && only.is_none_or(|only| only == branch.name);
        let mut branches: Vec<&BranchState> = by_id.values().filter(wanted).copied().collect();
        branches.sort_by(|a, b| a.name.cmp(&b.name));
        let mut rows = 0;
        for branch in &branches {
            rows += write_branch(all, branch, &lineage_of(&by_id, branch), now, writer)?;
        }
        Ok((branches.iter().map(|branch| branch.name.clone()).collect(), rows))
    }

    fn write_history(
        &self,
        all: &Everything,
        only: Option<&str>,
        writer: &mut BundleWriter,
    ) -> Result<(Vec<String>, u64)> {
        let (state, limits) = match only {
            None => (all.state.clone(), all.state.branches.iter().map(|branch| (branch.id, u64::MAX)).collect()),
            Some(name) => lineage_only(all, name)?,
        };
        writer.head(all.newest, &state)?;
        let (mut place, mut rows) = (None, 0);
        all.copy(&limits, |branch, keyspace, key, version| {
            if place != Some((branch, keyspace)) {
                place = Some((branch, keyspace));
                writer.place(&Place::Numbered(branch, keyspace))?;
            }
            rows += 1;
            writer.row(key, version)
        })?;
        let mut names: Vec<_> = state.branches.into_iter().filter(|branch| !branch.is_deleted).collect();
        names.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((names.into_iter().map(|branch| branch.name).collect(), rows))
    }
}

/// A branch and its ancestors, each with the version up to which it shows.
fn lineage_of(by_id: &BTreeMap<u32, &BranchState>, branch: &BranchState) -> Vec<(u32, u64)> {
    let mut lineage = vec![(branch.id, u64::MAX)];
    let (mut next, mut limit) = (branch.parent, u64::MAX);
    while let Some((parent, version)) = next {
        limit = limit.min(version);
        lineage.push((parent, limit));
        next = by_id.get(&parent).and_then(|parent| parent.parent);
    }
    lineage
}

/// One branch with its history: of its ancestors what it shows, and as branches they are gone.
fn lineage_only(all: &Everything, name: &str) -> Result<(State, Limits)> {
    let by_id: BTreeMap<u32, &BranchState> = all.state.branches.iter().map(|branch| (branch.id, branch)).collect();
    let found = by_id.values().find(|branch| branch.name == name && !branch.is_deleted);
    let limits: Limits = found.map(|branch| lineage_of(&by_id, branch)).unwrap_or_default().into_iter().collect();
    let mut state = State { branches: Vec::new(), ..all.state.clone() };
    for branch in by_id.values().filter(|branch| limits.contains_key(&branch.id)) {
        let mut branch = BranchState::clone(branch);
        if branch.name != name {
            branch.is_deleted = true;
            let limit = limits[&branch.id];
            cut(all, &mut branch, limit)?;
        }
        state.branches.push(branch);
    }
    state.tags.retain(|tag| by_id.get(&tag.branch).is_some_and(|branch| branch.name == name));
    state.policies.retain(|policy| policy.branch.is_none_or(|branch| limits.contains_key(&branch)));
    Ok((state, limits))
}

/// Let a branch end at a version.
pub(super) fn cut(all: &Everything, branch: &mut BranchState, limit: u64) -> Result<()> {
    if branch.version <= limit {
        return Ok(());
    }
    let last = all.last_commit(branch.id, |commit| commit.version <= limit)?;
    (branch.version, branch.hash) = match last {
        Some(last) if last.hash == Default::default() => (last.version, cut_hash(&last)),
        Some(last) => (last.version, last.hash),
        None => (branch.parent.map_or(0, |(_, fork)| fork.min(limit)), Default::default()),
    };
    Ok(())
}

fn write_branch(
    all: &Everything,
    branch: &BranchState,
    lineage: &[(u32, u64)],
    now: u64,
    writer: &mut BundleWriter,
) -> Result<u64> {
    let place = |space: &str, kind: &str| Place::Named {
        branch: branch.name.clone(),
        space: space.to_owned(),
        kind: kind.to_owned(),
    };
    writer.place(&place("", ""))?;
    // By space, and in it by kind: what the catalogue's keys are.
    let mut spaces: BTreeMap<String, Vec<(String, u32)>> = BTreeMap::new();
    all.shown(lineage, CATALOGUE, |_, version| {
        if let Some(Number::Int(number)) = version.value.and_then(Number::decode)
            && let Some((space, kind)) = all.state.keyspaces.get((number as usize).wrapping_sub(1))
        {
            spaces.entry(space.clone()).or_default().push((kind.clone(), number as u32));
        }
        Ok(())
    })?;
    let mut count = 0;
    for (space, mut kinds) in spaces {
        kinds.sort();
        let before = count;
        for (kind, number) in kinds {
            let mut is_first = true;
            all.shown(lineage, number, |key, version| {
                let is_live = version.kind != ChangeKind::Delete && (version.expires == 0 || version.expires > now);
                if !is_live {
                    return Ok(());
                }
                if std::mem::take(&mut is_first) {
                    writer.place(&place(&space, &kind))?;
                }
                count += 1;
                // How it came to be is not said.
                writer.row(key, &Version { kind: ChangeKind::Put, touched: &[], version: 0, ..*version })
            })?;
        }
        if count == before {
            writer.place(&place(&space, ""))?;
        }
    }
    Ok(count)
}
