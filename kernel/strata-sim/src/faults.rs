//! F3 and F4: the n-th call fails, for every n, once or for ever.
//!
//! A call that such a fault does not hurt is left out: with a fault that comes once the history would be that of no
//! fault, and with one that stays that of the next call which it hurts.

use strata_kernel::Error;
use strata_kernel::env::sim::{EIO, ENOSPC, Fault, FaultKind, Sim, SimRng, SyncFault};
use strata_kernel::log::Durability;
use strata_kernel::store::Store;

use crate::driver::{Check, Driver};
use crate::keepers::hand_in_keys;
use crate::notes::Crash;
use crate::rows::tail;
use crate::tally::Tally;
use crate::trace::Trace;
use crate::{compare, workload};

pub const KINDS: [FaultKind; 7] = [
    FaultKind::Errno(EIO),
    FaultKind::Errno(ENOSPC),
    FaultKind::ShortRead,
    FaultKind::Sync(SyncFault::NewShownOldKept),
    FaultKind::Sync(SyncFault::OldShown),
    FaultKind::Sync(SyncFault::Once),
    FaultKind::Full,
];

const STEPS: usize = 14;

/// Each kind of fault at each call of a short history.
pub fn row(seed: u64, tally: &mut Tally, trace: &mut Trace) -> Check {
    tally.workloads += 1;
    for kind in KINDS {
        every_call(seed, kind, tally, trace)?;
    }
    Ok(())
}

pub fn every_call(seed: u64, kind: FaultKind, tally: &mut Tally, trace: &mut Trace) -> Check {
    let calls = run(seed, Fault { at: u64::MAX, forever: false, kind }, trace).map_err(|why| format!("none: {why}"))?;
    for forever in [false, true] {
        for (at, _) in (0..).zip(&calls).filter(|(_, operation)| kind.hurts(operation)) {
            let fault = Fault { at, forever, kind };
            match kind {
                FaultKind::Sync(_) => tally.failed_syncs += 1,
                _ => tally.faults += 1,
            }
            run(seed, fault, trace).map_err(|why| format!("{fault:?}: {why}"))?;
        }
    }
    Ok(())
}

/// Returns the calls that there were; those before the one that fails are always the same.
fn run(seed: u64, fault: Fault, trace: &mut Trace) -> Check<Vec<&'static str>> {
    let sim = Sim::new(seed);
    sim.disk.fail(fault);
    let pressed = seed / 8 % 2 == 1;
    let options = if pressed { workload::pressed_options } else { workload::options };
    let mut driver = Driver::new(sim.clone(), options(&SimRng::new(seed)), seed);
    driver.pressed = pressed;
    driver.faults = true;
    driver.short_reads = matches!(fault.kind, FaultKind::ShortRead);
    driver.watch();
    match driver.start() {
        Ok(()) => {}
        Err(error) if is_typed(&error) => {
            // Nothing was promised yet; with a healed disk it can be made.
            driver.notes.created = 0;
        }
        Err(error) => return Err(format!("creating gave {error:?}")),
    }
    work(&mut driver).map_err(|why| format!("{why}\n{}", tail(&driver.story)))?;
    let calls = sim.disk.operations();
    let retried = sim.disk.retried_syncs();
    if !retried.is_empty() {
        return Err(format!("synced again after a failed sync: {retried:?}"));
    }
    sim.disk.heal();
    sim.disk.hook(None);
    trace.add(driver.trace);
    healed(&mut driver, fault, seed).map_err(|why| format!("healed: {why}\n{}", tail(&driver.story)))?;
    Ok(calls)
}

fn work(driver: &mut Driver) -> Check {
    for step in 0..STEPS {
        if driver.store.is_none() {
            break; // creating or reopening failed
        }
        // Each of these histories makes runs, and reads them.
        if step % 5 == 4 {
            driver.checkpoint()?
        } else {
            driver.step()?
        }
        if driver.poisoned() {
            // Reads go on, and show what was published before.
            driver.excuse(compare::heads(driver.store(), &driver.numbers, &driver.state()))?;
        }
    }
    driver.check_watch()
}

/// With a disk that works again, the next process finds what was promised, and it stays.
fn healed(driver: &mut Driver, fault: Fault, seed: u64) -> Check {
    let now = driver.moment();
    let image = driver.sim.disk.killed();
    let sim = Sim::over(image.clone(), seed);
    hand_in_keys(&mut driver.options, &image, &driver.care.keys.at(now))?;
    let store = Store::open(sim.env(), &driver.options).map_err(|error| format!("refused: {error}"))?;
    let version = store.log.last_version();
    // In `buffered` mode a failed sync may have cost what was not yet durable; the error said so.
    let sync_lost = matches!(fault.kind, FaultKind::Sync(SyncFault::NewShownOldKept | SyncFault::OldShown));
    let promised = match driver.options.durability {
        Durability::Buffered if sync_lost => driver.notes.newest_durable(now),
        _ => driver.notes.newest_acknowledged(now),
    };
    let issued = driver.notes.newest_issued(now);
    if !(promised..=issued).contains(&version) {
        return Err(format!("version {version} was found, {promised} promised and {issued} issued"));
    }
    let model = driver.model.cut_at(version);
    let state = model.last().clone();
    let notes = driver.notes.found(version, now, Crash::Kill, image.journal_len());
    let mut found = Driver::found(sim, store, driver.options.clone(), model, notes, seed);
    let opened = found.moment();
    found.care = driver.care.found(now, &found.store().policies()?, &crate::indexed::names(found.store())?, opened)?;
    compare::heads(found.store(), &found.numbers, &state)?;
    compare::everything(found.store(), &found.numbers, &state, &found.care)?;
    compare::files(&image, &driver.options)?;
    found.store().verify(&mut |_, _| Ok(())).map_err(|error| format!("verifying: {error}"))?;
    // What opening showed was read back from the disk, so a power cut right after cannot take it.
    let again = Sim::over(image.crash(seed), seed);
    hand_in_keys(&mut driver.options, &again.disk, &found.care.keys.at(opened))?;
    let again = Store::open(again.env(), &driver.options).map_err(|error| format!("refused after a cut: {error}"))?;
    if again.log.last_version() != version {
        return Err(format!("opening believed what the disk did not hold: {version}"));
    }
    (0..3).try_for_each(|_| found.step())
}

fn is_typed(error: &Error) -> bool {
    matches!(error, Error::Storage { .. } | Error::Corrupt { .. })
}
