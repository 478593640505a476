//! What was done, and the lines that say so.

use crate::driver::Transactions;
use crate::notes::Crash;

#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    pub histories: u64,
    /// Power cuts, also of what followed on a crash.
    pub power_cuts: u64,
    /// Crashes of a recovery, or of what followed on one.
    pub nested: u64,
    pub kills: u64,
    /// Images of backups and bundles.
    pub copies: u64,
    /// Images with an unfinished write at the end.
    pub torn: u64,
    /// Images that lacked what was acknowledged, as `buffered` may.
    pub lost: u64,
    /// Runs with a call that failed.
    pub faults: u64,
    /// And with a sync that failed.
    pub failed_syncs: u64,
    /// Histories that they were done to, at every call.
    pub workloads: u64,
    pub damages: u64,
    /// Damage to an unclean end, which looks like a torn tail.
    pub ambiguous: u64,
    pub transactions: u64,
    pub conflicts: u64,
}

impl Tally {
    pub fn crashed(&mut self, depth: u32, crash: Crash) {
        self.nested += u64::from(depth > 0);
        match crash {
            Crash::PowerCut => self.power_cuts += 1,
            Crash::Kill => self.kills += 1,
        }
    }

    pub fn images(&self) -> u64 {
        self.power_cuts + self.kills
    }

    pub fn transactions(&mut self, more: Transactions) {
        self.transactions += more.commits;
        self.conflicts += more.conflicts;
    }

    pub fn add(&mut self, other: &Tally) {
        self.histories += other.histories;
        self.power_cuts += other.power_cuts;
        self.nested += other.nested;
        self.kills += other.kills;
        self.copies += other.copies;
        self.torn += other.torn;
        self.lost += other.lost;
        self.faults += other.faults;
        self.failed_syncs += other.failed_syncs;
        self.workloads += other.workloads;
        self.damages += other.damages;
        self.ambiguous += other.ambiguous;
        self.transactions += other.transactions;
        self.conflicts += other.conflicts;
    }

    /// One line for each row of the fault matrix.
    pub fn lines(&self, violations: u64, seeds: &std::ops::Range<u64>) -> Vec<String> {
        let seeds = format!("seeds={}..{}", seeds.start, seeds.end);
        let row = |row: &str, runs: u64, ambiguous: u64| {
            format!("{row} runs={runs} violations={violations} skipped=0 ambiguous={ambiguous} {seeds}")
        };
        // Without conflicts the isolation oracle would have looked at nothing.
        let vacuous = u64::from(self.conflicts == 0);
        vec![
            row("F1", self.power_cuts, 0),
            format!("{} copies={}", row("F2", self.nested, 0), self.copies),
            format!("{} workloads={}", row("F3", self.faults, 0), self.workloads),
            row("F4", self.failed_syncs, 0),
            row("F6", self.kills, 0),
            row("F8", self.damages, self.ambiguous),
            format!(
                "isolation txns={} conflicts={} anomalies={violations} vacuous={vacuous} {seeds}",
                self.transactions, self.conflicts
            ),
        ]
    }
}
