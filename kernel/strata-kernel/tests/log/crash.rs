//! F1 and F6: the power goes, or the process dies, at every call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use proptest::prelude::*;
use strata_kernel::env::Clock;
use strata_kernel::env::sim::Call;
use strata_kernel::log::{Durability, LogOptions, StateHash};
use strata_kernel::sabotage;

use super::harness::{INTERVAL_US, Run, Step, open, options, options_of, report, scale, segments};

pub const BOTH: [Durability; 2] = [Durability::Buffered, Durability::Strict];

/// Every moment of one run, some draws each; returns the number of images.
pub fn cut_everywhere(run: &Run, draws: u64) -> usize {
    let moments = run.sim.disk.journal_len();
    for moment in 0..=moments {
        for draw in 0..draws {
            run.check_power_cut(moment, moment as u64 * draws + draw);
        }
    }
    (moments + 1) * draws as usize
}

pub fn kill_everywhere(run: &Run) -> usize {
    let moments = run.sim.disk.journal_len();
    (0..=moments).for_each(|moment| run.check_killed(moment, moment as u64));
    moments + 1
}

#[test]
fn f1_power_cut_at_every_call() {
    let seeds = 0..12 * scale();
    let runs = seeds.clone().flat_map(|seed| BOTH.map(|durability| Run::random(seed, durability, 30)));
    report("F1", runs.map(|run| cut_everywhere(&run, 4)).sum(), 0, seeds);
}

#[test]
fn f6_killed_at_every_call() {
    let seeds = 100..130 * scale();
    let runs = seeds.clone().flat_map(|seed| BOTH.map(|durability| Run::random(seed, durability, 30)));
    report("F6", runs.map(|run| kill_everywhere(&run)).sum(), 0, seeds);
}

/// A power cut in the middle of a flush that takes most of an interval, while commits go on.
pub fn cut_during_slow_flushes() {
    // No change of segment: it holds the lock, and the hook below runs on the thread that has it.
    let wide = LogOptions { segment_bytes: 1 << 16, ..options(Durability::Buffered) };
    let mut run = Run::new(1, wide);
    let (sim, log) = (run.sim.clone(), Arc::new(run.log.take().expect("just opened")));
    // The acknowledgements: (version, moment, time).
    let given = Arc::new(Mutex::new(Vec::new()));
    let commit = {
        let (log, sim, given) = (log.clone(), sim.clone(), given.clone());
        move || {
            // A thread that would have to wait for the flush that runs is left out: it acknowledges nothing.
            if !log.would_wait() || sabotage::on("T04") {
                let appended = log.append(StateHash::default(), b"x").expect("no fault is planned");
                log.wait(&appended).expect("no fault is planned");
                given.lock().push((appended.stamp.version, sim.disk.journal_len(), sim.clock.monotonic_us()));
            }
        }
    };
    let slow = || {
        let (sim, commit, done) = (sim.clone(), commit.clone(), AtomicBool::new(false));
        move |call: &Call<'_>| {
            // Once: what is acknowledged during a sync makes the flusher sync again.
            if call.operation == "sync" && !done.swap(true, Ordering::Relaxed) {
                (0..8).for_each(|_| {
                    sim.clock.advance(INTERVAL_US / 5);
                    commit();
                });
            }
        }
    };
    for _ in 0..6 {
        (0..4).for_each(|_| {
            sim.pass(INTERVAL_US / 20);
            commit();
        });
        sim.disk.hook(Some(Arc::new(slow())));
        sim.pass(INTERVAL_US / 2);
        sim.disk.hook(None);
    }
    let given = given.lock();
    for moment in run.created..=sim.disk.journal_len() {
        for seed in 0..8 {
            let image = strata_kernel::env::sim::Sim::over(sim.disk.image_at(moment, seed), seed);
            let (_, found, _) = open(&image, &run.options, 0).expect("no damage");
            let lost = given.iter().filter(|(version, at, _)| *at <= moment && *version > found.len() as u64);
            let times: Vec<u64> = lost.map(|(_, _, time)| *time).collect();
            let span = times.iter().max().zip(times.iter().min()).map_or(0, |(newest, oldest)| newest - oldest);
            assert!(span <= INTERVAL_US, "after call {moment}, seed {seed}: the lost span is {span} us long");
        }
    }
}

#[test]
fn f1_the_window_holds_when_a_flush_is_slow() {
    cut_during_slow_flushes();
}

/// The flusher, not the next commit, makes the last records durable.
pub fn flush_comes_by_itself() {
    let mut run = Run::new(1, options(Durability::Buffered));
    run.step(Step::Commit(50)).expect("no fault is planned");
    assert!(run.log().durable_version() == 0 && run.log().unflushed_us() == 0);
    run.sim.pass(INTERVAL_US / 2 - 1);
    assert_eq!((run.log().durable_version(), run.log().unflushed_us()), (0, INTERVAL_US / 2 - 1));
    run.sim.pass(1);
    assert_eq!((run.log().durable_version(), run.log().unflushed_us()), (1, 0));
    // And then it sleeps.
    assert_eq!(run.sim.spawn.next_due(), None);
}

#[test]
fn the_flusher_starts_at_half_an_interval_and_sleeps_when_there_is_nothing_to_do() {
    flush_comes_by_itself();
}

#[test]
fn a_commit_that_would_stretch_the_window_syncs_first() {
    let mut run = Run::new(1, options(Durability::Buffered));
    run.step(Step::Commit(1)).unwrap();
    // Nobody runs the flusher: the disk hangs, or the machine is busy.
    run.sim.clock.advance(INTERVAL_US);
    assert!(run.log().would_wait());
    run.step(Step::Commit(1)).unwrap();
    assert_eq!(run.log().durable_version(), 0);
    run.sim.clock.advance(1);
    run.step(Step::Commit(1)).unwrap();
    assert_eq!(run.log().durable_version(), 3);
    assert!(!run.log().would_wait());
}

#[test]
fn time_never_runs_backwards_and_versions_have_no_gaps() {
    let mut run = Run::new(1, options(Durability::Strict));
    let mut last = (0, 0);
    for wall in [1_000, 500, 2_000, 0, u64::MAX / 2, 3] {
        run.sim.clock.set_wall(wall);
        let stamp = run.append(5).unwrap().stamp;
        assert_eq!(stamp.version, last.0 + 1);
        assert_eq!(stamp.time, wall.max(last.1));
        last = (stamp.version, stamp.time);
    }
    assert_eq!((run.log().last_version(), run.log().last_time()), last);
}

#[test]
fn old_segments_can_be_retired() {
    let mut run = Run::new(1, options(Durability::Strict));
    (0..30).for_each(|_| run.step(Step::Commit(100)).unwrap());
    let segment = run.log().segment();
    assert!(segment > 3);
    run.log().retire(segment - 1).unwrap();
    assert_eq!(segments(&run.sim.disk).len(), 2);
    let anchor = strata_kernel::log::Anchor { segment: segment - 1, ..Default::default() };
    let mut versions = Vec::new();
    let sim = strata_kernel::env::sim::Sim::over(run.sim.disk.killed(), 1);
    let read = strata_kernel::log::Log::recover(&sim.env(), run.options.clone(), anchor, &mut |entry| {
        versions.push(entry.stamp.version);
        Ok(())
    });
    assert!(read.is_ok());
    assert_eq!(versions.last(), Some(&30));
    assert!(versions[0] > 1);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in [4, 5] {
        let bytes = || super::harness::contents(&Run::random(seed, Durability::Buffered, 60).sim.disk);
        assert_eq!(bytes(), bytes());
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..700usize).prop_map(Step::Commit),
        3 => (1..5usize, 0..300usize).prop_map(|(count, size)| Step::Group(count, size)),
        3 => (0..3 * INTERVAL_US).prop_map(Step::Pass),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

static IMAGES: AtomicUsize = AtomicUsize::new(0);

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_workload_survives_any_crash(steps in prop::collection::vec(any_step(), 1..12), strict: bool, seed in 1..3u64) {
        let durability = if strict { Durability::Strict } else { Durability::Buffered };
        let mut run = Run::new(1, options_of(seed, durability));
        steps.iter().for_each(|step| run.step(*step).expect("no fault is planned"));
        IMAGES.fetch_add(cut_everywhere(&run, 3) + kill_everywhere(&run), Ordering::Relaxed);
    }
}
