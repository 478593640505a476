//! Compaction of a database without files: its tables are written anew, without what may go.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::plan::Plan;
use super::{Compacted, Store};
use crate::branch::Branch;
use crate::error::Result;
use crate::keyspaces::IDEMPOTENCY;
use crate::retention::{Floors, KeyFilter, Rule};
use crate::table::{Table, Version};

impl Store {
    pub(super) fn compact_in_memory(&self) -> Result<Compacted> {
        let before = self.shared.memory.bytes();
        let mut plan = self.plan(true)?;
        let branches: Vec<_> = plan.branches().map(|(_, branch)| Arc::clone(branch)).collect();
        let mut removed = 0;
        for branch in branches {
            removed += match rewrite(&branch, &mut plan)? {
                Some(removed) => removed,
                None => {
                    // What is to be erased goes all the same.
                    let mut erasing = self.plan(true)?;
                    erasing.keep_history();
                    rewrite(&branch, &mut erasing)?.unwrap_or(0)
                }
            };
        }
        let reclaimed_bytes = before as i64 - self.shared.memory.bytes() as i64;
        Ok(Compacted { reclaimed_bytes, versions_removed: removed, ..Compacted::default() })
    }
}

/// Write the tables of a branch anew. Returns how many versions went; `None` when a pin came in the way.
fn rewrite(branch: &Branch, plan: &mut Plan) -> Result<Option<u64>> {
    // No commit comes between the reading and the switch.
    let _line = branch.line.lock();
    let mut removed = 0;
    let mut floors = Floors::new();
    let mut tables: FxHashMap<u32, Table> = FxHashMap::default();
    for (&keyspace, table) in &branch.data.read().active.tables {
        let rule = plan.rule(branch.id, keyspace)?;
        let mut filter = Filter::new(plan, branch.id, keyspace, rule);
        tables.insert(keyspace, table.rewritten(|key, version| filter.keeps(key, version))?);
        removed += filter.removed;
        if filter.floor > 0 {
            floors.push((keyspace, filter.floor));
        }
    }
    floors.sort_unstable();
    if removed == 0 {
        return Ok(Some(0));
    }
    if branch.raise_floors(&floors, plan.pins(branch.id)).is_none() {
        return Ok(None);
    }
    branch.data.write().active.replace(tables);
    Ok(Some(removed))
}

/// What is kept of one keyspace.
struct Filter<'a> {
    plan: &'a Plan,
    branch: u32,
    keyspace: u32,
    rule: Rule,
    key: Vec<u8>,
    versions: KeyFilter,
    floor: u64,
    removed: u64,
}

impl<'a> Filter<'a> {
    fn new(plan: &'a Plan, branch: u32, keyspace: u32, rule: Rule) -> Filter<'a> {
        let (key, versions) = (Vec::new(), KeyFilter::default());
        Filter { plan, branch, keyspace, rule, key, versions, floor: 0, removed: 0 }
    }

    fn keeps(&mut self, key: &[u8], version: &Version<'_>) -> bool {
        if self.key != key {
            self.key = key.to_vec();
            self.versions = KeyFilter::default();
        }
        let is_gone = version.version <= self.plan.erased_upto(self.keyspace, key)
            || self.plan.is_unseen(self.branch, version.version)
            || (self.keyspace == IDEMPOTENCY && version.expires <= self.plan.now);
        let pins = self.plan.pins(self.branch);
        let keeps = !is_gone && self.versions.keeps(version.version, &self.rule, pins, &mut self.floor);
        self.removed += u64::from(!keeps);
        keeps
    }
}
