//! F3 and F4: the n-th call fails, for every n.

use strata_kernel::Error;
use strata_kernel::env::sim::{EIO, ENOSPC, Fault, FaultKind, Sim, SimRng, SyncFault};
use strata_kernel::log::Durability;

use super::crash::BOTH;
use super::harness::{Run, Step, contents, is_typed, open, options, options_of, random_steps, report, scale};

const KINDS: [FaultKind; 6] = [
    FaultKind::Errno(EIO),
    FaultKind::Errno(ENOSPC),
    FaultKind::ShortRead,
    FaultKind::Sync(SyncFault::NewShownOldKept),
    FaultKind::Sync(SyncFault::OldShown),
    FaultKind::Sync(SyncFault::Once),
];

/// Run `steps` with call number `at` failing; returns false when the run ended before that call.
fn fail_at(seed: u64, durability: Durability, steps: &[Step], fault: Fault) -> bool {
    let sim = Sim::new(seed);
    sim.disk.fail(fault);
    let context = format!("seed {seed}, {durability:?}, {fault:?}");
    let mut run = match Run::over(sim.clone(), seed, options_of(seed, durability)) {
        Ok(run) => run,
        Err(error) => {
            assert!(is_typed(&error), "{context}: {error:?}");
            // Nothing was promised yet: with a healed disk it can be created.
            sim.disk.heal();
            Run::over(Sim::over(sim.disk.killed(), seed), seed, options_of(seed, durability)).expect(&context);
            return true;
        }
    };
    for step in steps {
        if run.log.is_none() {
            break; // a reopening failed
        }
        let before = (run.log().last_version(), run.issued.len());
        if let Err(error) = run.step(*step) {
            assert!(is_typed(&error), "{context}: {error:?}");
            check_failed(&mut run, &error, before.1, &context);
        }
    }
    let hit = sim.disk.calls() > fault.at;
    assert!(sim.disk.retried_syncs().is_empty(), "{context}: synced again after a failed sync");
    sim.disk.heal();
    check_healed(&run, seed, &context);
    hit
}

/// Once poisoned the log refuses everything, and says what is durable.
fn check_failed(run: &mut Run, error: &Error, issued_before: usize, context: &str) {
    let Some(log) = &run.log else { return };
    let poisoned = log.poisoned();
    if poisoned.is_none() {
        // Refused before anything was handed over: a new segment could not be made.
        assert!(matches!(error, Error::Storage { .. }), "{context}: {error:?}");
        return;
    }
    assert!(matches!(poisoned, Some(Error::Storage { ref message, .. }) if message.contains("durable version")));
    let durable = log.durable_version();
    if let Error::OutcomeUnknown { transaction, .. } = error {
        let (version, _) = transaction.split_once('-').expect("version-time");
        let version: u64 = version.parse().expect("a number");
        assert!(run.issued.len() > issued_before && version > durable, "{context}: {transaction} is known");
    }
    assert!(matches!(run.append(3), Err(Error::Storage { .. })), "{context}: a poisoned log took a record");
    assert!(matches!(run.log().flush(), Err(Error::Storage { .. })), "{context}: a poisoned log flushed");
}

/// With a disk that works again, the next process finds a prefix with all that was promised, and it stays.
fn check_healed(run: &Run, seed: u64, context: &str) {
    let now = run.sim.disk.journal_len();
    let image = run.sim.disk.killed();
    let sim = Sim::over(image.clone(), seed);
    let proven = run.proven_at(now);
    let (log, found, _) = open(&sim, &run.options, proven).unwrap_or_else(|error| panic!("{context}: {error}"));
    run.check_prefix(&found, run.issued.len(), context);
    let sync_failed = run.log.as_ref().and_then(|log| log.poisoned()).is_some();
    let promised = run.issued.iter().filter(|issued| {
        let durable = run.log.as_ref().map_or(0, |log| log.durable_version());
        issued.acknowledged.is_some()
            && (run.options.durability == Durability::Strict || !sync_failed || issued.record.version <= durable)
    });
    let newest = promised.map(|issued| issued.record.version).max().unwrap_or(0);
    assert!(newest <= found.len() as u64, "{context}: {newest} was promised, {} were found", found.len());
    drop(log);
    // What opening showed was read back from the disk, so a power cut right after cannot take it.
    let (_, again, _) = open(&Sim::over(image.crash(seed), seed), &run.options, proven).expect(context);
    assert_eq!(again, found, "{context}: opening believed what the disk did not hold");
}

pub fn fail_everywhere(seed: u64, durability: Durability, kinds: &[FaultKind]) -> usize {
    let steps = random_steps(&SimRng::new(seed), 16);
    let mut runs = 0;
    for kind in kinds {
        for forever in [false, true] {
            let mut at = 0;
            while fail_at(seed, durability, &steps, Fault { at, forever, kind: *kind }) {
                at += 1;
            }
            runs += at as usize;
        }
    }
    runs
}

#[test]
fn f3_f4_every_call_fails_once_and_for_ever() {
    let seeds = 0..6 * scale();
    let runs = seeds.clone().map(|seed| BOTH.map(|durability| fail_everywhere(seed, durability, &KINDS)));
    report("F3", runs.flatten().sum(), 0, seeds);
}

#[test]
fn f3_opening_fails_at_every_call_and_changes_nothing() {
    for durability in BOTH {
        let run = Run::random(3, durability, 30);
        let image = run.sim.disk.image_at(run.sim.disk.journal_len(), 11);
        let proven = run.proven_at(usize::MAX);
        let (_, expected, _) = open(&Sim::over(image.killed(), 1), &run.options, proven).unwrap();
        for kind in [FaultKind::Errno(EIO), FaultKind::ShortRead] {
            for at in 0.. {
                let disk = image.killed();
                disk.fail(Fault { at, forever: false, kind });
                match open(&Sim::over(disk.clone(), 1), &run.options, proven) {
                    Ok((_, found, _)) => assert_eq!(found, expected),
                    // The fault is the disk's, and says nothing of the files.
                    Err(error) => assert!(matches!(error, Error::Storage { .. }), "{kind:?} at {at}: {error:?}"),
                }
                let hit = disk.calls() > at;
                disk.heal();
                let (_, found, _) = open(&Sim::over(disk.killed(), 1), &run.options, proven).unwrap();
                assert_eq!(found, expected, "{kind:?} at {at}");
                if !hit {
                    break;
                }
            }
        }
    }
}

#[test]
fn f7_a_full_disk_refuses_at_a_change_of_segment_and_heals() {
    let mut run = Run::new(1, options(Durability::Buffered));
    for _ in 0..5 {
        run.sim.disk.fail(Fault { at: run.sim.disk.calls(), forever: true, kind: FaultKind::Full });
        // Reserved space takes records until it ends; then appends are refused and nothing is poisoned.
        let refused = loop {
            match run.step(Step::Commit(90)) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, Error::Storage { errno: ENOSPC, .. }), "{refused}");
        assert!(matches!(run.step(Step::Commit(1)), Err(Error::Storage { errno: ENOSPC, .. })));
        assert_eq!(run.log().poisoned(), None);
        run.step(Step::Flush).unwrap();
        run.sim.disk.heal();
        run.step(Step::Commit(90)).unwrap();
    }
    let (_, found, _) = open(&Sim::over(run.sim.disk.killed(), 1), &run.options, 0).unwrap();
    run.check_prefix(&found, run.issued.len(), "after full disks");
    assert_eq!(found.len(), run.issued.len());
}

#[test]
fn f7_a_full_disk_can_be_opened() {
    let run = Run::random(4, Durability::Strict, 20);
    let disk = run.sim.disk.killed();
    disk.fail(Fault { at: 0, forever: true, kind: FaultKind::Full });
    let (log, found, _) = open(&Sim::over(disk.clone(), 1), &run.options, 0).unwrap();
    assert_eq!(found.len(), run.issued.len());
    drop(log);
}

#[test]
fn a_log_is_never_created_over_records() {
    let run = Run::random(1, Durability::Strict, 10);
    let before = contents(&run.sim.disk);
    let sim = Sim::over(run.sim.disk.killed(), 1);
    assert!(matches!(Run::over(sim.clone(), 1, options(Durability::Strict)), Err(Error::Corrupt { .. })));
    assert_eq!(contents(&sim.disk), before);
}
