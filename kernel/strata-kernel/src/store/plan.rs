//! What a compaction may let go of, as it was decided when it began.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Store;
use crate::branch::Branch;
use crate::error::Result;
use crate::keyspaces::{CATALOGUE, RESERVED};
use crate::retention::{Policy, Rule, resolve};
use crate::run::Run;
use crate::sabotage;

pub(super) struct Plan {
    branches: BTreeMap<u32, BranchPlan>,
    policies: Vec<Policy>,
    /// (space, kind) of each keyspace, from number 1 on.
    names: Vec<(String, String)>,
    rules: FxHashMap<(u32, u32), Rule>,
    erasures: Vec<Erasure>,
    /// Whether there is no older run than those that are merged.
    is_bottom: bool,
    /// The time of the newest commit, or where the clock is believed to be if that is earlier: it may have jumped.
    pub now: u64,
}

/// What is taken out of all versions: keys of keyspaces of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Erasure {
    pub space: Option<String>,
    pub kind: String,
    pub key: Vec<u8>,
    /// Of all keys that begin with it, or of this key alone.
    pub is_prefix: bool,
    /// The newest version that goes: what is put later stays, also when a failing disk keeps this standing.
    pub upto: u64,
}

struct BranchPlan {
    branch: Arc<Branch>,
    /// Ascending.
    pins: Vec<u64>,
    /// Of a deleted branch: the newest version that anyone sees.
    ceiling: Option<u64>,
    has_parent: bool,
}

impl Store {
    pub(super) fn plan(&self, is_bottom: bool) -> Result<Plan> {
        let branches = self.registry.read().with_ancestors();
        let (policies, erasures) = self.of_state(|state| (state.policies.clone(), state.erasures.clone()));
        let plan = |(&id, branch): (&u32, &Arc<Branch>)| {
            let pins = branch.pins();
            let ceiling = branch.is_deleted().then(|| pins.last().copied().unwrap_or(0));
            (id, BranchPlan { branch: Arc::clone(branch), pins, ceiling, has_parent: branch.parent.is_some() })
        };
        Ok(Plan {
            branches: branches.iter().map(plan).collect(),
            policies,
            names: self.keyspaces.read().names().to_vec(),
            rules: FxHashMap::default(),
            erasures,
            is_bottom,
            now: if sabotage::on("T26") { self.env.clock.wall_us() } else { self.retention_time() },
        })
    }
}

impl Store {
    /// The time by which age counts: of the newest commit, but not where the clock may have jumped to.
    fn retention_time(&self) -> u64 {
        self.log.last_time().min(self.env.clock.steady_us())
    }
}

impl Plan {
    /// Whether a row of the branch can be seen by anyone.
    pub fn has(&self, branch: u32) -> bool {
        self.branches.contains_key(&branch)
    }

    /// Whether a deleted branch is not seen at this version any more.
    pub fn is_unseen(&self, branch: u32, version: u64) -> bool {
        self.branches.get(&branch).and_then(|branch| branch.ceiling).is_some_and(|ceiling| version > ceiling)
    }

    pub fn branches(&self) -> impl Iterator<Item = (u32, &Arc<Branch>)> {
        self.branches.iter().map(|(&id, plan)| (id, &plan.branch))
    }

    /// The version that the branch was forked at: what it has of up to there are copies of rows of its ancestors.
    pub fn forked_at(&self, branch: u32) -> u64 {
        let fork = self.branches.get(&branch).and_then(|plan| plan.branch.parent.as_ref());
        fork.map_or(0, |fork| fork.version)
    }

    pub fn pins(&self, branch: u32) -> &[u64] {
        self.branches.get(&branch).map_or(&[], |branch| &branch.pins)
    }

    /// Whether nothing lies below the rows of the branch: no older run, and no parent.
    pub fn is_bottom(&self, branch: u32) -> bool {
        self.is_bottom && self.branches.get(&branch).is_some_and(|branch| !branch.has_parent)
    }

    /// Whether any policy covers the branch, so that commits may be left with nothing.
    pub fn trims(&self, branch: u32) -> bool {
        self.policies.iter().any(|policy| policy.branch.is_none_or(|own| own == branch))
    }

    /// Let go of nothing on account of policies, so that no pin comes in the way.
    pub fn keep_history(&mut self) {
        self.policies.clear();
    }

    pub fn rule(&mut self, branch: u32, keyspace: u32) -> Result<Rule> {
        // The catalogue is small, and names what views of any version need.
        if keyspace == CATALOGUE || keyspace >= RESERVED || self.policies.is_empty() {
            return Ok(Rule::default());
        }
        if let Some(rule) = self.rules.get(&(branch, keyspace)) {
            return Ok(*rule);
        }
        let rule = self.make_rule(branch, keyspace)?;
        self.rules.insert((branch, keyspace), rule);
        Ok(rule)
    }

    fn make_rule(&self, id: u32, keyspace: u32) -> Result<Rule> {
        let named = self.names.get(keyspace as usize - 1);
        let (Some((space, kind)), Some(branch)) = (named, self.branches.get(&id)) else { return Ok(Rule::default()) };
        let keep = resolve(&self.policies, id, space, kind);
        let after = match keep.for_us {
            // By the time of commits, which no jump of the clock moves back.
            Some(us) => Some(branch.branch.version_at(self.now.saturating_sub(us))?),
            None => None,
        };
        Ok(Rule { last: keep.last, after, needs_both: keep.needs_both })
    }

    /// Up to which version a key is erased; 0 when it is not.
    pub fn erased_upto(&self, keyspace: u32, key: &[u8]) -> u64 {
        erased_upto(&self.erasures, &self.names, keyspace, key)
    }

    /// Whether one run alone has something that may go.
    pub fn lets_go_of(&self, run: &Run) -> bool {
        !self.policies.is_empty()
            || !self.erasures.is_empty()
            || run.spans().iter().any(|span| !self.has(span.branch) || self.is_unseen(span.branch, span.newest))
    }
}

/// Up to which version a key is to be erased, or is already; 0 when it is not.
pub(super) fn erased_upto(erasures: &[Erasure], names: &[(String, String)], keyspace: u32, key: &[u8]) -> u64 {
    let Some((space, kind)) = (keyspace as usize).checked_sub(1).and_then(|index| names.get(index)) else { return 0 };
    let of_key = erasures.iter().filter(|erasure| {
        erasure.kind == *kind
            && erasure.space.as_ref().is_none_or(|own| own == space)
            && if erasure.is_prefix { key.starts_with(&erasure.key) } else { key == erasure.key }
    });
    of_key.map(|erasure| erasure.upto).max().unwrap_or(0)
}
