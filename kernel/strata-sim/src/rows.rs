//! The rows of the fault matrix, each as a function of one seed.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use strata_kernel::env::sim::{Sim, SimRng};

use crate::driver::{Check, Driver};
use crate::tally::Tally;
use crate::trace::Trace;
use crate::{damage, faults, judge, workload};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// F1, F2 and F6: one history, crashed everywhere.
    Crashes,
    /// F2: one history with little memory, crashed wherever files come and go.
    Pressed,
    /// F6 for indexes: histories in which indexes come and go, crashed wherever files do.
    Indexed,
    /// Section 6: a long history of transactions, open at the same time.
    Isolation,
    /// F3: every call fails.
    Faults,
    /// F8 and F9: bits and files of a closed database.
    Damage,
}

pub const ALL: [Row; 6] = [Row::Crashes, Row::Pressed, Row::Indexed, Row::Isolation, Row::Faults, Row::Damage];

/// Of each kind: nothing is crashed in them, so they cost next to nothing.
const ISOLATION_HISTORIES: u64 = 4;

/// The rows that a seed runs when there are many of them: the dear ones only now and then.
pub fn of_seed(seed: u64) -> Vec<Row> {
    match seed % 6 {
        0 | 2..=4 => vec![Row::Crashes, Row::Pressed, Row::Indexed, Row::Isolation, Row::Faults],
        5 => vec![Row::Crashes, Row::Pressed, Row::Indexed, Row::Isolation, Row::Damage],
        _ => vec![Row::Crashes, Row::Pressed, Row::Indexed, Row::Isolation],
    }
}

/// Run one row of one seed. A panic is a violation like any other.
pub fn run(row: Row, seed: u64, tally: &mut Tally, trace: &mut Trace) -> Check {
    let body = || match row {
        Row::Crashes => crashes(seed, tally, trace),
        Row::Pressed => pressed(seed, tally, trace),
        Row::Indexed => indexed(seed, tally, trace),
        Row::Isolation => isolation(seed, tally, trace),
        Row::Faults => faults::row(seed, tally, trace),
        Row::Damage => damage::row(seed, tally, trace),
    };
    guarded(body).map_err(|why| format!("{row:?} of seed {seed}: {why}"))
}

/// Run `body`; a panic is its error.
pub fn guarded(body: impl FnOnce() -> Check) -> Check {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| Err(last_panic()))
}

/// A new history: its options and its operations follow from the seed.
pub fn history(seed: u64, steps: u64) -> Check<Driver> {
    lived(Driver::new(Sim::new(seed), workload::options(&SimRng::new(seed)), seed), steps)
}

/// The same with little memory.
fn pressed_history(seed: u64, steps: u64) -> Check<Driver> {
    let mut driver = Driver::new(Sim::new(seed), workload::pressed_options(&SimRng::new(seed)), seed);
    driver.pressed = true;
    lived(driver, steps)
}

fn lived(mut driver: Driver, steps: u64) -> Check<Driver> {
    driver.start().map_err(|error| format!("a new database was refused: {error}"))?;
    driver.watch();
    for _ in 0..steps {
        driver.step().map_err(|why| format!("{why}\n{}", tail(&driver.story)))?;
    }
    driver.look()?;
    driver.sim.disk.hook(None);
    Ok(driver)
}

fn crashes(seed: u64, tally: &mut Tally, trace: &mut Trace) -> Check {
    tally.histories += 1;
    let driver = history(seed, 20 + SimRng::new(seed ^ 0x57E9).below(41))?;
    tally.transactions(driver.tally);
    tally.copies += driver.backups.images;
    judge::crash_everywhere(&driver, tally, trace).map_err(|why| format!("{why}\n{}", tail(&driver.story)))?;
    conclude(&driver, trace);
    Ok(())
}

fn pressed(seed: u64, tally: &mut Tally, trace: &mut Trace) -> Check {
    tally.histories += 1;
    let mut driver = pressed_history(seed ^ 0x9E55, 10 + SimRng::new(seed ^ 0x57E9).below(21))?;
    if seed.is_multiple_of(2) {
        driver.backup_twice().map_err(|why| format!("{why}\n{}", tail(&driver.story)))?;
    }
    tally.transactions(driver.tally);
    tally.copies += driver.backups.images;
    judge::crash_busy(&driver, tally, trace).map_err(|why| format!("{why}\n{}", tail(&driver.story)))?;
    conclude(&driver, trace);
    Ok(())
}

/// With much memory and with little, in turns.
fn indexed(seed: u64, tally: &mut Tally, trace: &mut Trace) -> Check {
    tally.histories += 1;
    let rng = SimRng::new(seed ^ 0x1DE0);
    let pressed = seed.is_multiple_of(2);
    let options = if pressed { workload::pressed_options(&rng) } else { workload::options(&rng) };
    let mut driver = Driver::new(Sim::new(seed ^ 0x1DE1), options, seed ^ 0x1DE2);
    (driver.pressed, driver.indexed) = (pressed, true);
    let driver = lived(driver, 20 + rng.below(31))?;
    tally.transactions(driver.tally);
    judge::crash_busy(&driver, tally, trace).map_err(|why| format!("{why}\n{}", tail(&driver.story)))?;
    conclude(&driver, trace);
    Ok(())
}

fn conclude(driver: &Driver, trace: &mut Trace) {
    trace.add(driver.trace);
    for path in driver.sim.disk.paths() {
        trace.text(&path);
        trace.bytes(&driver.sim.disk.content(&path).unwrap_or_default());
    }
}

fn isolation(seed: u64, tally: &mut Tally, trace: &mut Trace) -> Check {
    for number in 0..ISOLATION_HISTORIES {
        let seed = seed ^ 0x1501_A710 ^ (number << 40);
        for driver in [history(seed, 200)?, pressed_history(seed, 80)?] {
            tally.transactions(driver.tally);
            trace.add(driver.trace);
        }
    }
    Ok(())
}

pub fn tail(story: &[String]) -> String {
    let last = &story[story.len().saturating_sub(12)..];
    last.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keep what a panic says instead of printing it: most of them are planted.
pub fn keep_panics() {
    std::panic::set_hook(Box::new(|info| PANIC.set(format!("panicked: {info}").replace('\n', " "))));
}

fn last_panic() -> String {
    PANIC.with_borrow(String::clone)
}
