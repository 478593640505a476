//! F2, the log's part of a checkpoint: cut, MANIFEST, retire, with a crash or a fault at every call.
//!
//! The runs that a checkpoint writes are not here: what lies before the cut counts as kept elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use strata_kernel::Result;
use strata_kernel::env::sim::{Call, EIO, ENOSPC, Fault, FaultKind, Sim, SimDisk, SimRng, SyncFault};
use strata_kernel::log::{Anchor, Cut, Durability, Log, LogOptions, SegmentInfo, StateHash};
use strata_kernel::manifest::Manifest;
use strata_kernel::seal::KeyId;

use super::crash::BOTH;
use super::harness::segments as paths;
use super::harness::{Run, Seen, Step, contents, is_typed, options, options_of, random_steps, report, scale};

fn manifest(options: &LogOptions, anchor: Anchor) -> Manifest {
    let Anchor { segment, proven, version: checkpoint_version, time: checkpoint_time } = anchor;
    let database_id = options.database_id;
    Manifest { database_id, segment, proven, checkpoint_version, checkpoint_time, ..Manifest::default() }
}

/// One checkpoint. `early` is the planted bug T20: the log goes before the MANIFEST says that it may.
fn checkpoint(run: &Run, early: bool) -> Result<Cut> {
    let cut = run.log().cut()?;
    assert_eq!((cut.version, cut.time), (run.log().last_version(), run.log().last_time()));
    assert_eq!((cut.segment, cut.position), (run.log().segment(), run.log().position()));
    assert_eq!(run.log().durable_version(), cut.version, "a cut is durable");
    if early {
        run.log().retire(cut.segment)?;
    }
    manifest(&run.options, cut.anchor()).write(&run.sim.disk, None)?;
    run.log().retire(cut.segment)?;
    Ok(cut)
}

/// A run whose MANIFEST is on its disk.
fn begin(sim: Sim, seed: u64, options: LogOptions) -> Result<Run> {
    let mut run = Run::over(sim, seed, options)?;
    manifest(&run.options, Anchor::default()).write(&run.sim.disk, None)?;
    run.created = run.sim.disk.journal_len();
    Ok(run)
}

/// Steps with a checkpoint behind every third; a reopening is a flush here.
fn steps(run: &mut Run, seed: u64, count: usize, early: bool) -> Result<()> {
    for (index, step) in random_steps(&SimRng::new(seed), count).into_iter().enumerate() {
        run.step(if matches!(step, Step::Reopen) { Step::Flush } else { step })?;
        if index % 3 == 2 {
            checkpoint(run, early)?;
        }
    }
    Ok(())
}

struct Opened {
    anchor: Anchor,
    log: Log,
    entries: Vec<Seen>,
}

impl Opened {
    fn version(&self) -> u64 {
        self.anchor.version + self.entries.len() as u64
    }
}

/// Open as the MANIFEST says; `None` when there is none.
fn open(disk: &SimDisk, options: &LogOptions) -> Result<Option<Opened>> {
    let Some(manifest) = Manifest::read(disk, &|_| None)? else { return Ok(None) };
    let (anchor, env) = (manifest.anchor(), Sim::over(disk.clone(), 1).env());
    let mut entries = Vec::new();
    let (log, recovery) = Log::recover(&env, options.clone(), anchor, &mut |entry| {
        let stamp = entry.stamp;
        let payload = entry.payload.to_vec();
        entries.push(Seen { version: stamp.version, time: stamp.time, hash: stamp.hash, payload });
        Ok(())
    })?;
    assert_eq!((log.position(), log.last_version()), (recovery.end, anchor.version + entries.len() as u64));
    Ok(Some(Opened { anchor, log, entries }))
}

/// What was found is what was issued after the checkpoint, and what may not be lost is there.
fn check(run: &Run, disk: &SimDisk, issued: usize, at_least: u64, context: &str) {
    let opened = open(disk, &run.options).unwrap_or_else(|error| panic!("{context}: {error}")).expect(context);
    let before = opened.anchor.version as usize;
    run.check_slice(&opened.entries, before..issued, context);
    assert!(opened.version() >= at_least, "{context}: {} found, {at_least} promised", opened.version());
    check_files(disk, &opened.log, opened.anchor, context);
    goes_on(disk, &run.options, opened, context);
}

/// Only the live segments are there, each as long as the log says.
fn check_files(disk: &SimDisk, log: &Log, anchor: Anchor, context: &str) {
    let segments = log.segments();
    let numbers: Vec<u64> = segments.iter().map(|segment| segment.number).collect();
    assert_eq!(numbers, (anchor.segment..=log.segment()).collect::<Vec<_>>(), "{context}");
    let path = |segment: &SegmentInfo| format!("WAL/wal-{:06}.seg", segment.number);
    assert!(segments.iter().all(|segment| disk.content(&path(segment)).expect(context).len() as u64 >= segment.bytes));
    let files = paths(disk).into_iter().filter(|file| file.starts_with("WAL/")).collect::<Vec<_>>();
    assert_eq!(files, segments.iter().map(path).collect::<Vec<_>>(), "{context}: other files");
}

/// One more commit and one more checkpoint, after a crash in the middle of one.
fn goes_on(disk: &SimDisk, options: &LogOptions, opened: Opened, context: &str) {
    let appended = opened.log.append(StateHash::default(), b"one more").expect(context);
    opened.log.wait(&appended).expect(context);
    let again = open(&disk.killed(), options).expect(context).expect(context);
    assert_eq!(again.entries.len(), opened.entries.len() + 1, "{context}");
    assert_eq!(again.entries[..opened.entries.len()], opened.entries, "{context}");
    let cut = again.log.cut().expect(context);
    assert_eq!(cut.version, appended.stamp.version, "{context}");
}

fn cut_everywhere(run: &Run, draws: u64) -> usize {
    let moments = run.sim.disk.journal_len();
    for moment in run.created..=moments {
        let (issued, acknowledged) = run.by(moment);
        let newest = acknowledged.iter().map(|(version, _)| *version).max().unwrap_or(0);
        for draw in 0..draws {
            let seed = moment as u64 * draws + draw;
            let context = format!("power cut after call {moment}, seed {seed}");
            let kept = if run.options.durability == Durability::Strict { newest } else { run.durable_at(moment) };
            check(run, &run.sim.disk.image_at(moment, seed), issued, kept, &context);
        }
        check(run, &run.sim.disk.killed_at(moment, 1), issued, newest, &format!("killed after call {moment}"));
    }
    (moments + 1 - run.created) * (draws + 1) as usize
}

pub fn checkpoints_survive(seeds: std::ops::Range<u64>, early: bool) -> usize {
    let images = seeds.flat_map(|seed| BOTH.map(|durability| (seed, durability))).map(|(seed, durability)| {
        let mut run = begin(Sim::new(seed), seed, options_of(seed, durability)).expect("a new disk takes a log");
        steps(&mut run, seed, 18, early).expect("no fault is planned");
        cut_everywhere(&run, 3)
    });
    images.sum()
}

#[test]
fn f2_a_checkpoint_survives_a_crash_at_every_call() {
    let seeds = 200..206 * scale();
    report("F2", checkpoints_survive(seeds.clone(), false), 0, seeds);
}

/// A crash while an open that retires what a crash left is itself at it.
#[test]
fn f2_retiring_at_open_survives_a_crash_at_every_call() {
    let mut run = begin(Sim::new(1), 1, options(Durability::Strict)).unwrap();
    (0..20).for_each(|_| run.step(Step::Commit(600)).unwrap());
    let cut = run.log().cut().unwrap();
    manifest(&run.options, cut.anchor()).write(&run.sim.disk, None).unwrap();
    run.step(Step::Commit(30)).unwrap();
    let disk = run.sim.disk.killed();
    assert!(disk.paths().len() > 4);
    let before = contents(&disk);
    let sim = Sim::over(disk.clone(), 1);
    Log::read(&sim.env(), run.options.clone(), cut.anchor(), &mut |_| Ok(())).unwrap();
    assert_eq!(contents(&disk), before, "reading retires nothing");
    drop(open(&disk, &run.options).unwrap());
    for moment in 0..=disk.journal_len() {
        for seed in 0..6 {
            check(&run, &disk.image_at(moment, seed), 21, 21, &format!("call {moment}, seed {seed}"));
        }
    }
}

const KINDS: [FaultKind; 5] = [
    FaultKind::Errno(EIO),
    FaultKind::Errno(ENOSPC),
    FaultKind::Full,
    FaultKind::Sync(SyncFault::NewShownOldKept),
    FaultKind::Sync(SyncFault::Once),
];

/// Fail call number `at`; returns whether the run came that far.
fn fail_at(seed: u64, durability: Durability, fault: Fault) -> bool {
    let context = format!("seed {seed}, {durability:?}, {fault:?}");
    let mut run = begin(Sim::new(seed), seed, options_of(seed, durability)).expect("a new disk takes a log");
    let fault = Fault { at: fault.at + run.sim.disk.calls(), ..fault };
    run.sim.disk.fail(fault);
    let outcome = steps(&mut run, seed, 9, false);
    let hit = run.sim.disk.calls() > fault.at;
    run.sim.disk.heal();
    let log = run.log();
    if let Err(error) = outcome {
        assert!(is_typed(&error), "{context}: {error:?}");
        if log.poisoned().is_some() {
            assert!(log.cut().is_err_and(|error| is_typed(&error)), "{context}: a poisoned log was cut");
        } else {
            // Nothing has changed, or the cut was made and the MANIFEST was not: either may be tried again.
            run.step(Step::Commit(10)).expect(&context);
            checkpoint(&run, false).expect(&context);
            run.step(Step::Commit(10)).expect(&context);
        }
    }
    assert!(run.sim.disk.retried_syncs().is_empty(), "{context}: synced again after a failed sync");
    let sync_failed = run.log().poisoned().is_some();
    let durable = run.log().durable_version();
    let acknowledged = run.issued.iter().filter(|issued| issued.acknowledged.is_some());
    let newest = acknowledged.map(|issued| issued.record.version).max().unwrap_or(0);
    let kept = if sync_failed && durability == Durability::Buffered { durable } else { newest };
    check(&run, &run.sim.disk.killed(), run.issued.len(), kept, &context);
    hit
}

#[test]
fn f3_f4_every_call_around_a_checkpoint_fails() {
    let seeds = 300..303 * scale();
    let mut runs = 0;
    for (seed, durability) in seeds.clone().flat_map(|seed| BOTH.map(|durability| (seed, durability))) {
        for (kind, forever) in KINDS.iter().flat_map(|kind| [(*kind, false), (*kind, true)]) {
            runs += (0..).take_while(|&at| fail_at(seed, durability, Fault { at, forever, kind })).count();
        }
    }
    report("F3", runs, 0, seeds);
}

#[test]
fn a_cut_without_records_behind_it_changes_nothing() {
    let mut run = begin(Sim::new(1), 1, options(Durability::Buffered)).unwrap();
    let first = checkpoint(&run, false).unwrap();
    assert_eq!(first, Cut { segment: 1, version: 0, time: 0, position: 64 });
    run.step(Step::Group(3, 40)).unwrap();
    let second = checkpoint(&run, false).unwrap();
    assert_eq!((second.segment, second.version), (2, 3));
    assert_eq!(second.time, run.issued[2].record.time);
    let calls = run.sim.disk.journal_len();
    assert_eq!(run.log().cut(), Ok(second));
    assert_eq!(run.sim.disk.journal_len(), calls, "nothing was to be done");
    assert_eq!(run.log().segments(), [SegmentInfo { key: KeyId::NONE, number: 2, bytes: 64 }]);
    // Recovery anchored there finds nothing, and goes on with the next version and a time that is not lower.
    let opened = open(&run.sim.disk.killed(), &run.options).unwrap().unwrap();
    assert_eq!((opened.entries.len(), opened.log.cut()), (0, Ok(second)));
    let appended = opened.log.append_at(0, StateHash::default(), b"next").unwrap();
    assert_eq!((appended.stamp.version, appended.stamp.time), (4, second.time));
    assert_eq!(appended.position - second.position, 72);
}

#[test]
fn a_log_without_files_is_cut_at_its_newest_version() {
    let log = Log::memory(&Sim::new(1).env(), Anchor::default());
    for _ in 0..3 {
        log.append_at(7, StateHash::default(), b"").unwrap();
    }
    assert_eq!(log.cut(), Ok(Cut { segment: 0, version: 3, time: 7, position: 0 }));
    assert!(log.segments().is_empty());
}

/// Commits that come while the disk makes the next file, and while it syncs what there is, go into the old segment.
#[test]
fn nobody_waits_for_the_long_part_of_a_cut() {
    let mut run =
        begin(Sim::new(1), 1, LogOptions { segment_bytes: 1 << 16, ..options(Durability::Buffered) }).unwrap();
    run.step(Step::Group(20, 100)).unwrap();
    let log = Arc::new(run.log.take().unwrap());
    let made = Arc::new(AtomicUsize::new(0));
    let hook = {
        let (log, made) = (log.clone(), made.clone());
        move |call: &Call<'_>| {
            let expected = ["create", "reserve space in", "sync"].get(made.load(Ordering::SeqCst));
            if expected == Some(&call.operation) {
                made.fetch_add(1, Ordering::SeqCst);
                // A commit that waited here would wait for itself.
                let appended = log.append(StateHash::default(), b"meanwhile").unwrap();
                log.wait(&appended).unwrap();
            }
        }
    };
    run.sim.disk.hook(Some(Arc::new(hook)));
    let cut = log.cut().unwrap();
    run.sim.disk.hook(None);
    assert_eq!(made.load(Ordering::SeqCst), 3, "all of the long calls were made without the lock");
    assert_eq!((cut.segment, cut.version, log.durable_version()), (2, 23, 23));
}
