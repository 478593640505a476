//! Retention: which versions of a key compaction keeps.
//!
//! The newest version is always kept, and so is what a pin sees: of each key the newest version at or below it. Pins are
//! forks, open views and transactions. Of the others, a rule keeps the last few, or those that were current after some
//! version, or both.
//!
//! What is trimmed raises the *floor* of its keyspace to the version that came after it: at or above the floor, and at a
//! pin, every read gives what it always gave; below it a read is refused.

use crate::sabotage;

/// By keyspace, the oldest version that can be read; sorted.
pub type Floors = Vec<(u32, u64)>;

/// What to keep of the history of a key. Neither bound keeps all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// So many versions.
    pub last: Option<u64>,
    /// What was current within so many microseconds.
    pub for_us: Option<u64>,
    /// Both must keep a version; else either one does.
    pub needs_both: bool,
}

/// A policy for what it names; what it does not name it covers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    pub branch: Option<u32>,
    pub space: Option<String>,
    pub kind: Option<String>,
    pub keep: Keep,
}

impl Policy {
    /// How specific it is: a primitive counts more than a space, and a space more than a branch.
    pub fn rank(&self) -> u8 {
        u8::from(self.kind.is_some()) * 4 + u8::from(self.space.is_some()) * 2 + u8::from(self.branch.is_some())
    }

    fn covers(&self, branch: u32, space: &str, kind: &str) -> bool {
        self.branch.is_none_or(|own| own == branch)
            && self.space.as_ref().is_none_or(|own| own == space)
            && self.kind.as_ref().is_none_or(|own| own == kind)
    }

    pub fn is_for_the_same(&self, other: &Policy) -> bool {
        (self.branch, &self.space, &self.kind) == (other.branch, &other.space, &other.kind)
    }
}

/// What the most specific of `policies` keeps; all where none covers it.
pub fn resolve(policies: &[Policy], branch: u32, space: &str, kind: &str) -> Keep {
    let covering = policies.iter().filter(|policy| policy.covers(branch, space, kind));
    covering.max_by_key(|policy| policy.rank()).map_or(Keep::default(), |policy| policy.keep)
}

/// `Keep` with its time as a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rule {
    pub last: Option<u64>,
    /// Keep what was current after this version.
    pub after: Option<u64>,
    pub needs_both: bool,
}

impl Rule {
    pub fn keeps_all(&self) -> bool {
        self.last.is_none() && self.after.is_none()
    }

    /// Whether it keeps the version with `newer` versions above it, the next of them being `superseder`.
    fn keeps(&self, newer: u64, superseder: u64) -> bool {
        let by_count = self.last.map(|last| newer < last);
        let by_time = self.after.map(|after| superseder > after);
        match (by_count, by_time) {
            (None, None) => true,
            (Some(keeps), None) | (None, Some(keeps)) => keeps,
            (Some(a), Some(b)) => {
                if self.needs_both {
                    a && b
                } else {
                    a || b
                }
            }
        }
    }
}

/// Goes through the versions of one key from the newest to the oldest.
#[derive(Debug, Default)]
pub struct KeyFilter {
    newer: u64,
    superseder: Option<u64>,
}

impl KeyFilter {
    /// Whether to keep `version`; `pins` ascend. Otherwise `floor` is raised.
    pub fn keeps(&mut self, version: u64, rule: &Rule, pins: &[u64], floor: &mut u64) -> bool {
        let (newer, superseder) = (self.newer, self.superseder.replace(version));
        self.newer += 1;
        let Some(superseder) = superseder else { return true };
        let is_pinned = pins.get(pins.partition_point(|&pin| pin < version)).is_some_and(|&pin| pin < superseder);
        let keeps = (is_pinned && !sabotage::on("K32")) || rule.keeps(newer, superseder);
        if !keeps && !sabotage::on("K33") {
            *floor = (*floor).max(superseder);
        }
        keeps
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(versions: &[u64], rule: &Rule, pins: &[u64]) -> (Vec<u64>, u64) {
        let (mut filter, mut floor) = (KeyFilter::default(), 0);
        let kept = versions.iter().copied().filter(|&version| filter.keeps(version, rule, pins, &mut floor)).collect();
        (kept, floor)
    }

    fn seen(versions: &[u64], at: u64) -> Option<u64> {
        versions.iter().copied().find(|version| *version <= at)
    }

    #[test]
    fn the_last_three_are_kept() {
        let rule = Rule { last: Some(3), ..Rule::default() };
        assert_eq!(kept(&[9, 7, 5, 3, 1], &rule, &[]), (vec![9, 7, 5], 5));
    }

    #[test]
    fn the_most_specific_policy_wins() {
        let policy = |branch, space: Option<&str>, kind: Option<&str>, last| Policy {
            branch,
            space: space.map(Into::into),
            kind: kind.map(Into::into),
            keep: Keep { last: Some(last), ..Keep::default() },
        };
        let all = [
            policy(None, None, None, 1),
            policy(Some(3), None, None, 2),
            policy(None, Some("notes"), None, 3),
            policy(None, None, Some("kv"), 4),
            policy(Some(3), Some("notes"), Some("kv"), 5),
        ];
        let last = |branch, space, kind| resolve(&all, branch, space, kind).last;
        assert_eq!(last(0, "default", "json"), Some(1));
        assert_eq!(last(3, "default", "json"), Some(2));
        assert_eq!(last(3, "notes", "json"), Some(3));
        assert_eq!(last(3, "other", "kv"), Some(4));
        assert_eq!(last(3, "notes", "kv"), Some(5));
        assert_eq!(resolve(&[], 0, "default", "kv"), Keep::default());
    }

    proptest! {
        /// Reads at the floor and above, and at pins, are what they were; the newest is kept, and so is what the rule says.
        #[test]
        fn what_is_retained_reads_alike(
            versions in proptest::collection::btree_set(1..60u64, 1..20),
            pins in proptest::collection::btree_set(0..60u64, 0..4),
            last in proptest::option::of(1..6u64),
            after in proptest::option::of(0..60u64),
            needs_both: bool,
        ) {
            let versions: Vec<u64> = versions.into_iter().rev().collect();
            let pins: Vec<u64> = pins.into_iter().collect();
            let rule = Rule { last, after, needs_both };
            let (kept, floor) = kept(&versions, &rule, &pins);
            prop_assert_eq!(kept[0], versions[0]);
            for at in (0..70).filter(|at| *at >= floor || pins.contains(at)) {
                prop_assert_eq!(seen(&kept, at), seen(&versions, at), "at {}", at);
            }
            if rule.keeps_all() {
                prop_assert_eq!(&kept, &versions);
            }
            if let (Some(last), None) = (last, after) {
                let unpinned = kept.iter().filter(|version| {
                    let next = versions.iter().rev().find(|other| other > version);
                    !pins.iter().any(|pin| pin >= version && next.is_none_or(|next| pin < next))
                });
                prop_assert!(unpinned.count() as u64 <= last);
            }
        }
    }
}
