//! Many seeds on a few threads: each seed is a world of its own, so they share nothing but the count.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use strata_kernel::env::Clock;
use strata_kernel::env::real::RealClock;

use crate::arguments::Arguments;
use crate::rows;
use crate::tally::Tally;
use crate::trace::Trace;

pub struct Outcome {
    pub tally: Tally,
    pub trace: Trace,
    pub seeds: Range<u64>,
    /// The first seed that broke a promise, and which.
    pub violation: Option<(u64, String)>,
}

struct Totals {
    tally: Tally,
    trace: Trace,
    violation: Option<(u64, String)>,
}

struct Shared {
    next: AtomicU64,
    stop: AtomicBool,
    totals: Mutex<Totals>,
}

/// How many microseconds lie between two lines of progress.
const PROGRESS_US: u64 = 10_000_000;

pub fn run(arguments: &Arguments) -> Outcome {
    let first = arguments.seed.unwrap_or(1);
    let totals = Mutex::new(Totals { tally: Tally::default(), trace: Trace::of_none(), violation: None });
    let shared = Shared { next: AtomicU64::new(first), stop: AtomicBool::new(false), totals };
    let workers = if arguments.is_replay() { 1 } else { arguments.workers };
    #[allow(clippy::disallowed_methods)] // Each thread runs its own seeds, so the schedule decides nothing.
    std::thread::scope(|scope| {
        for number in 0..workers {
            let shared = &shared;
            scope.spawn(move || work(arguments, shared, first, number == 0));
        }
    });
    let Totals { tally, trace, violation } = shared.totals.into_inner();
    Outcome { tally, trace, seeds: first..shared.next.into_inner(), violation }
}

fn work(arguments: &Arguments, shared: &Shared, first: u64, tells: bool) {
    let clock = RealClock::default();
    let mut told_us = 0;
    while !shared.stop.load(Ordering::Relaxed) && !is_enough(arguments, shared, first, clock.monotonic_us()) {
        let seed = shared.next.fetch_add(1, Ordering::Relaxed);
        let (mut tally, mut trace) = (Tally::default(), Trace::default());
        let rows = if arguments.is_replay() { rows::ALL.to_vec() } else { rows::of_seed(seed) };
        let outcome = rows.into_iter().try_for_each(|row| rows::run(row, seed, &mut tally, &mut trace));
        let mut totals = shared.totals.lock();
        totals.tally.add(&tally);
        totals.trace.add(trace);
        if let Err(why) = outcome {
            shared.stop.store(true, Ordering::Relaxed);
            if totals.violation.as_ref().is_none_or(|(other, _)| seed < *other) {
                totals.violation = Some((seed, why));
            }
        }
        if tells && clock.monotonic_us() - told_us > PROGRESS_US {
            told_us = clock.monotonic_us();
            println!("  {} seeds, {} images", seed - first, totals.tally.images());
        }
    }
}

fn is_enough(arguments: &Arguments, shared: &Shared, first: u64, elapsed_us: u64) -> bool {
    let started = shared.next.load(Ordering::Relaxed) - first;
    match (arguments.histories, arguments.seconds) {
        _ if arguments.is_replay() => started >= 1,
        (Some(histories), _) if started >= histories => true,
        (_, Some(seconds)) => elapsed_us >= seconds * 1_000_000,
        (Some(_), None) => false,
        (None, None) => {
            let tally = &shared.totals.lock().tally;
            tally.images() >= arguments.images && tally.workloads >= arguments.workloads
        }
    }
}

/// The determinism gate: the same seeds, twice, give the same trace.
pub fn is_deterministic(seeds: Range<u64>) -> Result<Trace, u64> {
    let trace_of = |seed| {
        let (mut tally, mut trace) = (Tally::default(), Trace::default());
        let rows = [rows::Row::Crashes, rows::Row::Pressed];
        let outcome = rows.into_iter().try_for_each(|row| rows::run(row, seed, &mut tally, &mut trace));
        trace.text(&format!("{outcome:?}"));
        trace
    };
    let mut all = Trace::of_none();
    for seed in seeds {
        let trace = trace_of(seed);
        if trace_of(seed) != trace {
            return Err(seed);
        }
        all.add(trace);
    }
    Ok(all)
}
