//! What a record costs in each durability, how groups form, and how fast the log is read again.
//!
//! `cargo bench -p strata-kernel --bench log`, each with and without encryption. Files go to the temporary directory. The raw write and sync beside them are
//! the floor: on a busy machine only the ratios mean something. Minimum and median of many small rounds.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark measures the real world")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use strata_kernel::env::real;
use strata_kernel::log::{Anchor, Durability, Log, LogOptions, StateHash};
use strata_kernel::seal::{Key, Keyring};

const PAYLOAD: [u8; 150] = [7; 150];
const RECORD: usize = 64 + 152;

fn main() {
    let root = std::env::temp_dir().join(format!("strata-bench-log-{}", std::process::id()));
    println!("payloads of {} bytes", PAYLOAD.len());
    memory(&root);
    buffered(&root.join("buffered"));
    strict(&root.join("strict"));
    for sealed in [false, true] {
        replay(&root.join(format!("replay-{sealed}")), sealed);
    }
    let _ = fs::remove_dir_all(&root);
}

fn memory(root: &Path) {
    let log = Log::memory(&real::env(root), Anchor::default());
    report("memory", 200, 10_000, || commit(&log));
}

fn buffered(root: &Path) {
    let raw = raw_file(root);
    let mut offset = 0;
    report("raw write", 200, 1_000, || {
        raw.write_all_at(&[1; RECORD], offset).expect("space");
        offset += RECORD as u64;
    });
    // In turns, so that a noisy neighbour hits both alike.
    let logs = [false, true].map(|sealed| create(&root.join(name(sealed)), options(Durability::Buffered, sealed)));
    let costs = [0; 10].map(|_| [0, 1].map(|index| best(50, 1_000, || commit(&logs[index]))));
    for (index, sealed) in [false, true].into_iter().enumerate() {
        let mut costs: Vec<f64> = costs.iter().map(|cost| cost[index]).collect();
        costs.sort_by(f64::total_cmp);
        println!("buffered, {}: {:.0} ns at best, {:.0} ns median of the bests", name(sealed), costs[0], costs[5]);
        for threads in [2, 4] {
            let label = format!("buffered, {}, {threads} threads", name(sealed));
            report(&label, 20, 1_000 * threads, together(&logs[index], threads, 1_000));
        }
    }
}

/// A million records of 168 bytes: what is left of a database that was not closed.
fn replay(root: &Path, sealed: bool) {
    let options = options(Durability::Buffered, sealed);
    let log = create(root, options.clone());
    for _ in 0..1_000_000 {
        log.append(StateHash::default(), &PAYLOAD[..104]).expect("an append");
    }
    let proven = log.close().expect("the log closes");
    let anchor = Anchor { proven, ..Anchor::default() };
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        let (_, recovery) = Log::read(&real::env(root), options.clone(), anchor, &mut |_| Ok(())).expect("no damage");
        assert_eq!(recovery.records, 1_000_000);
        best = best.min(start.elapsed().as_secs_f64());
    }
    let megabytes = proven as f64 / 1e6;
    println!("replay, {}: 1000000 records, {megabytes:.0} MB, {:.0} MB/s", name(sealed), megabytes / best);
}

fn name(sealed: bool) -> &'static str {
    if sealed { "encrypted" } else { "plain" }
}

fn options(durability: Durability, sealed: bool) -> LogOptions {
    let plain = LogOptions { durability, ..LogOptions::default() };
    let key = Key::new(&std::array::from_fn::<u8, 32, _>(|at| at as u8)).expect("32 bytes");
    let keys = sealed.then(|| Arc::new(Keyring::new(plain.database_id, key, [])));
    LogOptions { keys, ..plain }
}

fn strict(root: &Path) {
    let raw = raw_file(root);
    let mut offset = 0;
    report("raw write and sync", 30, 30, || {
        raw.write_all_at(&[1; RECORD], offset).expect("space");
        raw.sync_data().expect("a sync");
        offset += RECORD as u64;
    });
    let log = create(root, options(Durability::Strict, false));
    for threads in [1, 2, 4, 8, 16, 32] {
        report(&format!("strict, {threads} threads"), 30, 30 * threads, together(&log, threads, 30));
    }
}

fn create(root: &Path, options: LogOptions) -> Log {
    Log::create(&real::env(root), options, Anchor::default()).expect("a new directory")
}

fn raw_file(root: &Path) -> fs::File {
    fs::create_dir_all(root).expect("a temporary directory");
    let path: PathBuf = root.join("raw");
    let file = fs::File::create(path).expect("a file");
    file.set_len(64 << 20).expect("space");
    file
}

fn commit(log: &Log) {
    let appended = log.append(StateHash::default(), &PAYLOAD).expect("an append");
    log.wait(&appended).expect("a wait");
}

/// A round of `each` commits in every thread; `report` divides by all of them.
fn together(log: &Log, threads: usize, each: usize) -> impl FnMut() {
    let mut calls = 0;
    move || {
        // `report` calls once for each commit: only the first of a round does the work.
        if calls % (threads * each) == 0 {
            thread::scope(|scope| {
                (0..threads).for_each(|_| drop(scope.spawn(|| (0..each).for_each(|_| commit(log)))));
            });
        }
        calls += 1;
    }
}

fn best(rounds: usize, count: usize, body: impl FnMut()) -> f64 {
    measure(rounds, count, body)[0]
}

fn report(name: &str, rounds: usize, count: usize, body: impl FnMut()) {
    let costs = measure(rounds, count, body);
    println!("{name}: {:.0} ns at best, {:.0} ns median", costs[0], costs[rounds / 2]);
}

/// Nanoseconds for one of `count`, the best round first.
fn measure(rounds: usize, count: usize, mut body: impl FnMut()) -> Vec<f64> {
    let mut costs: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            (0..count).for_each(|_| body());
            start.elapsed().as_nanos() as f64 / count as f64
        })
        .collect();
    costs.sort_by(f64::total_cmp);
    costs
}
