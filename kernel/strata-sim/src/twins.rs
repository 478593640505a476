//! The tests of the tests: each bug of reliability.md, section 7, that is in the source must be caught by its row.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
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
    /// The first seed that was seen to catch it, which saves `--quick` those before.
    near: u64,
}

#[derive(Clone, Copy)]
enum TwinRow {
    Whole(Row),
    /// One kind of fault at each call.
    Fault(FaultKind),
}

const CRASHES: TwinRow = TwinRow::Whole(Row::Crashes);
const PRESSED: TwinRow = TwinRow::Whole(Row::Pressed);
const INDEXED: TwinRow = TwinRow::Whole(Row::Indexed);
const ISOLATION: TwinRow = TwinRow::Whole(Row::Isolation);
const DAMAGE: TwinRow = TwinRow::Whole(Row::Damage);

const FULL: TwinRow = TwinRow::Fault(FaultKind::Full);
const SYNC: TwinRow = TwinRow::Fault(FaultKind::Sync(SyncFault::NewShownOldKept));

/// By their names in reliability.md; those called K are of checkpoints and runs, and those called I of indexes, and only here.
pub const ALL: &[Twin] = &[
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
    twin("T12", "a full disk is ignored", FULL),
    twin("T13", "a failed sync is tried again", TwinRow::Fault(FaultKind::Sync(SyncFault::Once))),
    twin("T14", "the cache is believed", TwinRow::Fault(FaultKind::Sync(SyncFault::NewShownOldKept))),
    twin("T15", "the checksum is not verified", DAMAGE),
    twin("T16", "the checksum leaves the length out", DAMAGE),
    twin("T17", "the checksum leaves the place out", DAMAGE),
    twin("T18", "the MANIFEST is renamed unsynced", CRASHES),
    twin("T19", "a run is named before it is synced", PRESSED),
    twin("T20", "the log is removed before the MANIFEST is durable", PRESSED),
    twin("T21", "records are replayed twice", CRASHES),
    twin("T21B", "records that runs hold are replayed", CRASHES),
    twin("T22", "a run and its position are saved apart", CRASHES),
    twin("T23", "runs are removed before the MANIFEST names others", PRESSED),
    twin("T24", "the cache ignores its budget", ISOLATION),
    twin("T26", "retention goes by the wall clock", ISOLATION),
    twin("T30", "published before it is logged", CRASHES),
    twin("T32", "what was read is not validated", ISOLATION),
    twin("T33", "ranges are not validated", ISOLATION).near(9),
    twin("T34", "a snapshot is off by one", ISOLATION),
    twin("T35", "a write that conflicts is visible", ISOLATION),
    twin("T60", "what was forgotten is left in an old run", PRESSED),
    twin("K01", "a checkpoint writes versions above its cut", ISOLATION),
    twin("K02", "a checkpoint loses the first version above the last one", PRESSED),
    twin("K03", "a checkpoint writes the newest version of the last one again", PRESSED),
    twin("K04", "the settled state of a branch is an older one's", PRESSED),
    twin("K05", "a layer is dropped before a run holds it", PRESSED),
    twin("K06", "a deletion is not written to a run", PRESSED).near(3),
    twin("K07", "older runs are read first", PRESSED),
    twin("K08", "an old version that was read is kept as the newest", PRESSED).near(13),
    twin("K09", "the first of many commits is not written to a run", CRASHES),
    twin("K10", "idempotency keys are not written to a run", CRASHES),
    twin("K11", "notes are not written to a run", CRASHES),
    twin("K12", "rows of a deleted parent are not written to a run", PRESSED).near(7),
    twin("K13", "the number of a run is given twice", PRESSED),
    twin("K14", "no sync of the directory of runs", PRESSED),
    twin("K15", "a live run is removed as an orphan", CRASHES),
    twin("K16", "the filter of a run leaves the branch out", PRESSED),
    twin("K17", "a search misses the block that ends with the version", PRESSED).near(3),
    twin("K18", "a checkpoint forgets the numbers of keyspaces", CRASHES),
    twin("K19", "a checkpoint forgets its time", CRASHES).near(3),
    twin("K20", "a run does not say which paths a patch touched", ISOLATION),
    twin("K21", "a parent is read beyond the fork", CRASHES),
    twin("K22", "the id of a deleted branch is given again", PRESSED).near(20),
    twin("K23", "a failed sync of a run is ignored", SYNC),
    twin("K24", "a failed sync of a run is tried again", SYNC),
    twin("K25", "no sync of the directory of the MANIFEST", CRASHES),
    twin("K26", "a scan leaves frozen layers out", ISOLATION),
    twin("K27", "a scan back forgets that a key begins a block before", PRESSED).near(3),
    twin("K28", "a history shows twice what is in a run and in memory", CRASHES),
    twin("K29", "the MANIFEST takes more of the log for durable than is", CRASHES),
    twin("K30", "a merge lets go of a deletion while older runs have the key", PRESSED).near(16),
    twin("K31", "a merge lets go of what a deletion hides that is not durable", CRASHES).near(26),
    twin("K32", "retention lets go of what a fork or a view sees", ISOLATION),
    twin("K33", "what is read below what was let go of is not refused", ISOLATION),
    twin("K34", "a run stays under the key before", PRESSED).near(3),
    twin("K35", "a checkpoint forgets the policies", PRESSED).near(4),
    twin("K36", "forgetting does not go on after a crash", PRESSED).near(3),
    twin("K37", "the runs of a backup are not synced", PRESSED),
    twin("K38", "a backup removes runs before its MANIFEST names others", PRESSED),
    twin("K39", "a bundle has its name before it is synced", PRESSED),
    twin("I01", "a checkpoint forgets the indexes", INDEXED),
    twin("I02", "a row in a run is found beside the one that took its place", INDEXED),
    twin("I03", "what an index holds is kept when the runs change", INDEXED),
    twin("I04", "a branch finds what it wrote anew, and what its parent has of it", INDEXED),
    twin("I05", "what indexes keep of a run outlives it", INDEXED),
];

const fn twin(name: &'static str, bug: &'static str, row: TwinRow) -> Twin {
    Twin { name, bug, row, near: 1 }
}

/// How a bug was caught.
pub struct Caught {
    pub seed: u64,
    pub tally: Tally,
    pub why: String,
}

impl Twin {
    const fn near(self, seed: u64) -> Twin {
        Twin { near: seed, ..self }
    }

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

/// What came of the hunt for each of `twins` from `first` on, or from where it was seen, a few at a time.
pub fn hunt_all(twins: &[&Twin], first: Option<u64>, seeds: u64, workers: usize) -> Vec<Option<Caught>> {
    let next = AtomicUsize::new(0);
    let caught: Vec<Mutex<Option<Caught>>> = twins.iter().map(|_| Mutex::default()).collect();
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(twin) = twins.get(number) else { break };
            *caught[number].lock() = twin.hunt(first.unwrap_or(twin.near), seeds);
        }
    };
    #[allow(clippy::disallowed_methods)] // A bug is planted on one thread, and each is hunted on one.
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    caught.into_iter().map(Mutex::into_inner).collect()
}
