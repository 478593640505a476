//! Compaction in the background: which runs to merge, and how not to be in the way.
//!
//! Small runs are merged with those beside them as soon as there are a few of about one size, so a row is written again
//! about once for each time that the database has grown fourfold, and a read asks a handful of runs. All runs are merged
//! when much of what is there may go.

use std::sync::Arc;

use super::Store;
use super::compact::Compaction;
use crate::error::Result;
use crate::run::Run;

/// So many of one size are merged: fewer means more writing, more means that reads ask more runs.
const ALIKE: usize = 4;
/// More runs than this are never left beside each other.
const RUNS_MAX: usize = 12;
/// Runs below this are of one size: what counts is that there are many.
const SMALL_BYTES: u64 = 256 << 10;
/// Work at a time, and pause after it: half of a core at most, and never so long that others notice.
const WORK_US: u64 = 1_000;

impl Store {
    /// Merge a little. Returns after how long to come back, if there is more to do.
    pub(super) fn tidy(&self) -> Option<u64> {
        // Who compacts by call does all of it.
        let mut merging = self.compactor.try_lock()?;
        if merging.is_none() && self.flatten().unwrap_or(false) {
            return Some(WORK_US);
        }
        if merging.is_none() {
            let inputs = self.runs_to_merge()?;
            *merging = Some(Compaction::new(self, inputs).ok()?);
        }
        let merge = merging.as_mut()?;
        let start = self.env.clock.monotonic_us();
        let done = loop {
            match merge.step() {
                Ok(false) if self.env.clock.monotonic_us().saturating_sub(start) < WORK_US => {}
                outcome => break outcome,
            }
        };
        if let Ok(false) = done {
            return Some(self.env.clock.monotonic_us().saturating_sub(start).max(1));
        }
        let merge = merging.take()?;
        // What fails leaves the runs as they are; the next round begins again.
        let _ = done.and_then(|_| self.install(merge));
        Some(WORK_US)
    }

    fn runs_to_merge(&self) -> Option<Vec<Arc<Run>>> {
        let runs = self.runs.read().clone();
        let range = if self.is_much_gone(&runs).unwrap_or(false) { Some((0, runs.len())) } else { pick(&sizes(&runs)) };
        range.map(|(start, end)| runs[start..end].to_vec())
    }

    /// Whether a merge of all runs would give back a good part of them: by the rows of branches that are gone, or, under
    /// policies, by how much was written since the last one.
    fn is_much_gone(&self, runs: &[Arc<Run>]) -> Result<bool> {
        let rows: u64 = runs.iter().map(|run| run.rows()).sum();
        let branches = self.registry.read().with_ancestors();
        let spans = runs.iter().flat_map(|run| run.spans());
        let gone: u64 = spans.filter(|span| !branches.contains_key(&span.branch)).map(|span| span.rows).sum();
        let trims = self.of_state(|state| !state.policies.is_empty());
        let sizes = sizes(runs);
        let newer: u64 = sizes.iter().skip(1).sum();
        Ok(gone * 4 > rows || (trims && runs.len() > 1 && newer * 2 > sizes[0]))
    }
}

fn sizes(runs: &[Arc<Run>]) -> Vec<u64> {
    runs.iter().map(|run| run.file_bytes().max(SMALL_BYTES)).collect()
}

/// Which runs to merge, of sizes from the oldest to the newest: as many of the newest as are not much smaller together than
/// the next older one, when they are a few.
fn pick(sizes: &[u64]) -> Option<(usize, usize)> {
    let mut start = sizes.len();
    let mut sum = 0;
    while start > 0 && (start == sizes.len() || sizes[start - 1] <= 2 * sum) {
        start -= 1;
        sum += sizes[start];
    }
    if sizes.len() - start >= ALIKE {
        return Some((start, sizes.len()));
    }
    // Many runs, each much larger than the one after it: merge the smaller half.
    (sizes.len() > RUNS_MAX).then_some((sizes.len() / 2, sizes.len()))
}

#[cfg(test)]
mod tests {
    use super::pick;

    /// Checkpoints of one size, forever: few runs, and each row written again a few times.
    #[test]
    fn runs_stay_few_and_rows_are_not_written_often() {
        let (mut sizes, mut written) = (Vec::new(), 0);
        for _ in 0..4096 {
            sizes.push(1u64 << 20);
            while let Some((start, end)) = pick(&sizes) {
                let merged: u64 = sizes[start..end].iter().sum();
                written += merged;
                sizes.splice(start..end, [merged]);
            }
            assert!(sizes.len() <= 13, "{sizes:?}");
        }
        assert!(written / (4096 << 20) <= 8, "{}", written / (4096 << 20));
    }

    #[test]
    fn a_few_runs_are_left_alone() {
        assert_eq!(pick(&[]), None);
        assert_eq!(pick(&[5]), None);
        assert_eq!(pick(&[100, 5, 5]), None);
        assert_eq!(pick(&[100, 5, 5, 5, 5]), Some((1, 5)));
    }
}
