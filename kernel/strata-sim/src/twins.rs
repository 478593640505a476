//! The tests of the tests: each bug of reliability.md, section 7, that is in the source must be caught by its row.

use strata_kernel::env::sim::{FaultKind, SyncFault};
use strata_kernel::sabotage;

use crate::faults;
use crate::rows::{self, Row};
use crate::tally::Tally;
use crate::trace::Trace;

pub struct Twin {
    pub name: &'static str,
    pub bug: &'static str,
    row: TwinRow,
}

#[derive(Clone, Copy)]
enum TwinRow {
    Whole(Row),
    /// One kind of fault at each call.
    Fault(FaultKind),
}

const CRASHES: TwinRow = TwinRow::Whole(Row::Crashes);
const ISOLATION: TwinRow = TwinRow::Whole(Row::Isolation);
const DAMAGE: TwinRow = TwinRow::Whole(Row::Damage);

/// T12 has no point in the source; those above T34 belong to layers that are not here yet.
pub const ALL: [Twin; 21] = [
    twin("T01", "acknowledged while the bytes are still ours", CRASHES),
    twin("T02", "acknowledged before the sync", CRASHES),
    twin("T03", "the flusher never runs", CRASHES),
    twin("T04", "the window is not held when a flush is slow", CRASHES),
    twin("T05", "the next segment is used before the old is synced", CRASHES),
    twin("T06", "no sync of the directory", CRASHES),
    twin("T07", "a record of zeros is valid", CRASHES),
    twin("T08", "the torn tail is kept", CRASHES),
    twin("T09", "an ordinary torn tail is refused", CRASHES),
    twin("T10", "cut at damage in the middle of the log", DAMAGE),
    twin("T11", "a failed write is ignored", TwinRow::Fault(FaultKind::Errno(5))),
    twin("T13", "a failed sync is tried again", TwinRow::Fault(FaultKind::Sync(SyncFault::Once))),
    twin("T14", "the cache is believed", TwinRow::Fault(FaultKind::Sync(SyncFault::NewShownOldKept))),
    twin("T15", "the checksum is not verified", DAMAGE),
    twin("T16", "the checksum leaves the length out", DAMAGE),
    twin("T18", "the MANIFEST is renamed unsynced", CRASHES),
    twin("T21", "records are replayed twice", CRASHES),
    twin("T30", "published before it is logged", CRASHES),
    twin("T32", "what was read is not validated", ISOLATION),
    twin("T33", "ranges are not validated", ISOLATION),
    twin("T34", "a snapshot is off by one", ISOLATION),
];

const fn twin(name: &'static str, bug: &'static str, row: TwinRow) -> Twin {
    Twin { name, bug, row }
}

/// How a bug was caught.
pub struct Caught {
    pub seed: u64,
    pub tally: Tally,
    pub why: String,
}

impl Twin {
    /// Run seeds with the bug planted until one breaks a promise; `None` when `seeds` of them do not.
    pub fn hunt(&self, first: u64, seeds: u64) -> Option<Caught> {
        let (mut tally, mut trace) = (Tally::default(), Trace::default());
        for seed in first..first + seeds {
            let outcome = sabotage::with(self.name, || match self.row {
                TwinRow::Whole(row) => rows::run(row, seed, &mut tally, &mut trace),
                TwinRow::Fault(kind) => rows::guarded(|| faults::every_call(seed, kind, &mut tally, &mut trace)),
            });
            if let Err(why) = outcome {
                return Some(Caught { seed, tally, why });
            }
        }
        None
    }
}
