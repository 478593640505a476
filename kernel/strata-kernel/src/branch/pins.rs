//! Pins: the versions of a branch that someone reads, so that compaction leaves what they see.
//!
//! A fork pins its parent at the version it left it at, and views and transactions pin what they read. A floor (see
//! `retention`) is raised only where no pin below it came since the compaction began, and a pin below a floor is refused:
//! both happen under the lock of the branch's data, so one of the two comes first.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{At, Branch, Data};
use crate::error::{Error, Result};
use crate::retention::Floors;

/// How many pins there are at each version.
#[derive(Default)]
pub(super) struct Pins(Mutex<BTreeMap<u64, usize>>);

/// Holds on to what one version of a branch shows, here and in those it was forked off. Let go of when dropped.
#[derive(Default)]
pub struct Pin(Vec<(Arc<Branch>, u64)>);

impl Drop for Pin {
    fn drop(&mut self) {
        for (branch, version) in &self.0 {
            branch.unpin(*version);
        }
    }
}

impl Pin {
    /// Whether it holds everything that was asked for: all of it was still there.
    pub fn is_whole(&self) -> bool {
        !self.0.is_empty()
    }
}

impl Branch {
    /// Pin what `version` shows. Where some of it is gone already nothing is pinned: reads will say so.
    pub fn pin(self: &Arc<Branch>, version: u64) -> Pin {
        let mut pin = Pin(Vec::with_capacity(1));
        let mut branch = self;
        loop {
            if !branch.try_pin(version) {
                return Pin::default();
            }
            pin.0.push((Arc::clone(branch), version));
            match &branch.parent {
                Some(fork) if version < fork.version => branch = &fork.branch,
                // The fork itself has a pin there.
                _ => return pin,
            }
        }
    }

    fn try_pin(&self, version: u64) -> bool {
        let data = self.data.read();
        let mut pins = self.pins.0.lock();
        let is_retained = data.floors.iter().all(|(_, floor)| *floor <= version);
        if is_retained || pins.contains_key(&version) {
            *pins.entry(version).or_default() += 1;
            return true;
        }
        false
    }

    /// Pin without a look at the floors: for a fork, whose version is known to be there.
    pub(crate) fn force_pin(self: &Arc<Branch>, version: u64) -> Pin {
        let mut pin = Pin(Vec::with_capacity(1));
        let mut branch = self;
        loop {
            *branch.pins.0.lock().entry(version).or_default() += 1;
            pin.0.push((Arc::clone(branch), version));
            match &branch.parent {
                Some(fork) if version < fork.version => branch = &fork.branch,
                _ => return pin,
            }
        }
    }

    fn unpin(&self, version: u64) {
        let mut pins = self.pins.0.lock();
        if let Some(count) = pins.get_mut(&version) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&version);
            }
        }
    }

    /// The pinned versions, ascending.
    pub fn pins(&self) -> Vec<u64> {
        self.pins.0.lock().keys().copied().collect()
    }

    fn is_pinned(&self, version: u64) -> bool {
        self.pins.0.lock().contains_key(&version)
    }

    /// The oldest version that a read of a keyspace may ask for, if `at` is below it.
    pub(super) fn trimmed(&self, data: &Data, keyspace: u32, at: At) -> Option<u64> {
        let floor = data.floor(keyspace).filter(|floor| at.version < *floor)?;
        (!self.is_pinned(at.version)).then_some(floor)
    }

    /// Refuse to read what is gone.
    pub fn check_retained(&self, data: &Data, keyspace: u32, at: At) -> Result<()> {
        match self.trimmed(data, keyspace, at) {
            Some(oldest) => Err(Error::HistoryTrimmed { requested: at.version, oldest }),
            None => Ok(()),
        }
    }

    /// The error for a version of which some is gone.
    pub fn trimmed_at(&self, requested: u64) -> Error {
        Error::HistoryTrimmed { requested, oldest: self.oldest() }
    }

    /// The version from which on all of it is there; 0 where nothing was let go of.
    pub fn oldest(&self) -> u64 {
        self.data.read().floors.iter().map(|(_, floor)| *floor).max().unwrap_or(0)
    }

    /// The version from which on all commits that this shows, those of its ancestors too, are there with all they wrote to the
    /// keyspaces that are asked for. What is pinned below it can be read, but not what led there.
    pub fn oldest_of(&self, is_asked: impl Fn(u32) -> bool) -> u64 {
        let floor = |(branch, at): (&Branch, At)| {
            let data = branch.data.read();
            let floors = data.floors.iter().filter(|(keyspace, _)| is_asked(*keyspace));
            floors.map(|(_, floor)| (*floor).min(at.version)).max().unwrap_or(0)
        };
        self.lineage(At::from(u64::MAX)).into_iter().map(floor).max().unwrap_or(0)
    }

    /// Raise floors, unless a pin below them came that `known` has not. Returns what they were.
    pub fn raise_floors(&self, raised: &[(u32, u64)], known: &[u64]) -> Option<Floors> {
        let mut data = self.data.write();
        let highest = raised.iter().map(|(_, floor)| *floor).max().unwrap_or(0);
        let is_new = |pin: &u64| *pin < highest && known.binary_search(pin).is_err();
        if self.pins.0.lock().keys().any(is_new) {
            return None;
        }
        let before = data.floors.clone();
        raise(&mut data.floors, raised);
        Some(before)
    }
}

/// Raise floors, which are sorted by keyspace.
pub fn raise(floors: &mut Floors, raised: &[(u32, u64)]) {
    for &(keyspace, floor) in raised {
        match floors.binary_search_by_key(&keyspace, |(keyspace, _)| *keyspace) {
            Ok(found) => floors[found].1 = floors[found].1.max(floor),
            Err(place) => floors.insert(place, (keyspace, floor)),
        }
    }
}
