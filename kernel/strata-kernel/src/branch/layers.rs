//! What a branch wrote itself, in layers: the tables that take writes, and older ones that no longer do.
//!
//! Each layer holds the newest versions there are below the layers before it, so a read takes the first that it finds.

use std::ops::ControlFlow;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{Branch, HistoryRow, Range};
use crate::error::Result;
use crate::log::Stamp;
use crate::table::{KeyHash, Table, Version};

#[derive(Default)]
pub struct Data {
    pub active: Layer,
    /// Newest first.
    pub frozen: Vec<Arc<Layer>>,
}

/// Tables by keyspace, and the commits that wrote them.
#[derive(Default)]
pub struct Layer {
    pub tables: FxHashMap<u32, Table>,
    /// Ascending in version and time: an instant is found by search.
    pub commits: Vec<Stamp>,
}

impl Data {
    /// The newest version of `key` at or below `at`.
    #[inline]
    pub(super) fn get(&self, keyspace: u32, key: &[u8], hash: KeyHash, at: u64) -> Option<Version<'_>> {
        let found = self.active.tables.get(&keyspace).and_then(|table| table.get(key, hash, at));
        if found.is_some() || self.frozen.is_empty() { found } else { self.get_frozen(keyspace, key, hash, at) }
    }

    fn get_frozen(&self, keyspace: u32, key: &[u8], hash: KeyHash, at: u64) -> Option<Version<'_>> {
        self.frozen.iter().find_map(|layer| layer.tables.get(&keyspace)?.get(key, hash, at))
    }

    /// The tables of a keyspace, newest first.
    pub fn tables(&self, keyspace: u32) -> impl Iterator<Item = &Table> {
        self.layers().filter_map(move |layer| layer.tables.get(&keyspace))
    }

    /// All layers in memory, newest first.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&self.active).chain(self.frozen.iter().map(|layer| &**layer))
    }

    /// Hand the changes that commits after `snapshot` made to `key` to `change`, until it breaks.
    pub fn changes_since(
        &self,
        keyspace: u32,
        key: &[u8],
        snapshot: u64,
        mut change: impl FnMut(Version<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let hash = KeyHash::of(key);
        for table in self.tables(keyspace).filter(|table| table.newest() > snapshot) {
            let newer = table.versions(key, hash, u64::MAX).take_while(|version| version.version > snapshot);
            for version in newer {
                if change(version).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Whether any commit after `snapshot` changed `key`.
    pub fn changed_since(&self, keyspace: u32, key: &[u8], snapshot: u64) -> Result<bool> {
        let mut changed = false;
        self.changes_since(keyspace, key, snapshot, |_| {
            changed = true;
            ControlFlow::Break(())
        })?;
        Ok(changed)
    }

    /// Whether any key of a range changed after `snapshot`.
    pub fn range_changed_since(&self, keyspace: u32, range: &Range, snapshot: u64) -> Result<bool> {
        let newer = |table: &Table| {
            let mut rows = table.range(&range.start, range.end.as_deref(), false, u64::MAX);
            rows.any(|(_, version)| version.version > snapshot)
        };
        Ok(self.tables(keyspace).filter(|table| table.newest() > snapshot).any(newer))
    }
}

impl Branch {
    /// Versions of `key` at or below `at` that this branch wrote itself, until `rows` has `limit`.
    pub(super) fn own_history(
        &self,
        keyspace: u32,
        key: &[u8],
        at: u64,
        limit: usize,
        rows: &mut Vec<HistoryRow>,
    ) -> Result<()> {
        let hash = KeyHash::of(key);
        let data = self.data.read();
        // What one layer shows, those behind it need not.
        let mut below = at;
        for table in data.tables(keyspace) {
            for version in table.versions(key, hash, below).take(limit - rows.len()) {
                below = version.version.saturating_sub(1);
                rows.push(HistoryRow::of(&version));
            }
        }
        Ok(())
    }
}
