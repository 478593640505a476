//! The simulator: seeded histories of the whole store over a simulated disk, crashed at every call of it.
//!
//! Read in this order: `doc`, `model` and `draft`, the judge's own idea of a database; `notes`, what was promised;
//! `driver` with `workload`, `operations`, `keepers`, `indexed`, `copies` and `transactions`, one history on both; `compare`; `judge`, `faults` and
//! `damage`, what can happen to it; `flips`, all damage of one kind; `rows`, `twins` and `run`, many of them.
//!
//! One seed decides everything. A failure prints the line that runs it again: `make sim SEED=8412`.

mod arguments;
mod between;
mod care;
mod compare;
mod copies;
mod damage;
mod doc;
mod draft;
mod driver;
mod faults;
mod flips;
mod indexed;
mod judge;
mod keepers;
mod model;
mod notes;
mod operations;
mod questions;
mod rows;
mod run;
mod tally;
#[cfg(test)]
mod tests;
mod trace;
mod transactions;
mod twins;
mod workload;

use std::process::ExitCode;

use arguments::Arguments;
use strata_kernel::env::Clock;
use strata_kernel::env::real::RealClock;
use tally::Tally;
use twins::Twin;

/// A prime, so that all bits of a byte have their turn.
const QUICK_STRIDE: usize = 389;

/// Seeds that a planted bug may need. More would mean that its row is weak.
const HUNT_SEEDS: u64 = 40;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(text) => {
            println!("{text}");
            return ExitCode::from(2);
        }
    };
    rows::keep_panics();
    let clock = RealClock::default();
    let mut good = true;
    if !arguments.sabotage_only && !arguments.flips_only {
        good = crashes(&arguments, &clock);
    }
    if good && (arguments.flips_only || !(arguments.sabotage_only || arguments.is_replay())) {
        good = every_flip(&arguments);
    }
    if good && !arguments.flips_only && !arguments.is_replay() {
        good = (arguments.twin.is_some() || determinism(&arguments)) && sabotage(&arguments);
    }
    println!("{} in {:.1} s", if good { "ok" } else { "FAILED" }, clock.monotonic_us() as f64 / 1e6);
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn crashes(arguments: &Arguments, clock: &RealClock) -> bool {
    let outcome = run::run(arguments);
    let violations = u64::from(outcome.violation.is_some());
    outcome.tally.lines(violations, &outcome.seeds).iter().for_each(|line| println!("{line}"));
    let rate = outcome.tally.images() as f64 / (clock.monotonic_us() as f64 / 1e6);
    let Tally { torn, lost, .. } = outcome.tally;
    // A disk that tears nothing and loses nothing would test nothing.
    println!("images={} torn={torn} lost={lost} per_second={rate:.0} trace={}", outcome.tally.images(), outcome.trace);
    if let Some((seed, why)) = &outcome.violation {
        println!("{why}");
        println!("make sim SEED={seed}");
    }
    violations == 0
}

/// F8 in full. What `--quick` leaves out are bits between those that it turns.
fn every_flip(arguments: &Arguments) -> bool {
    let seed = arguments.seed.unwrap_or(1);
    let stride = if arguments.quick { QUICK_STRIDE } else { 1 };
    match flips::run(seed, stride, arguments.workers, |line| println!("{line}")) {
        Ok(counts) => {
            println!(
                "F8 runs={} violations=0 skipped=0 ambiguous={} seeds={seed}..{} told={} elsewhere={} harmless={}",
                counts.runs,
                counts.ambiguous,
                seed + 1,
                counts.told,
                counts.elsewhere,
                counts.harmless
            );
            true
        }
        Err(why) => {
            println!("{why}\nmake sim SEED={seed} ARGS=--flips");
            false
        }
    }
}

fn determinism(arguments: &Arguments) -> bool {
    let seeds = if arguments.quick { 1..5 } else { 1..21 };
    match run::is_deterministic(seeds.clone()) {
        Ok(trace) => {
            println!("determinism seeds={}..{} trace={trace}", seeds.start, seeds.end);
            true
        }
        Err(seed) => {
            println!("seed {seed} gave two different traces\nmake sim SEED={seed}");
            false
        }
    }
}

/// Plant each known bug and see whether it is caught.
fn sabotage(arguments: &Arguments) -> bool {
    let mut caught = 0;
    let first = if arguments.quick { arguments.seed } else { Some(arguments.seed.unwrap_or(1)) };
    let is_wanted = |twin: &&Twin| arguments.twin.as_ref().is_none_or(|name| name == twin.name);
    let twins: Vec<&Twin> = twins::ALL.iter().filter(is_wanted).collect();
    let hunts = twins::hunt_all(&twins, first, HUNT_SEEDS, arguments.workers);
    for (twin, found) in twins.iter().zip(hunts) {
        match found {
            Some(found) => {
                caught += 1;
                // A line is enough to see what gave it away; the seed gives the rest.
                let why: String = found.why.lines().next().unwrap_or_default().chars().take(160).collect();
                let tally = found.tally;
                let runs = tally.images() + tally.faults + tally.failed_syncs + tally.damages;
                println!("{} caught seed={} after={runs}images  {} ({why})", twin.name, found.seed, twin.bug);
            }
            None => println!("{} MISSED in {HUNT_SEEDS} seeds  {}", twin.name, twin.bug),
        }
    }
    println!("sabotage caught={caught}/{}", twins.len());
    caught == twins.len() && caught > 0
}
