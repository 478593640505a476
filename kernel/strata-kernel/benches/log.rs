//! What a record costs in each durability, how groups form, and how fast the log is read again.
//!
//! `cargo bench -p strata-kernel --bench log`. Files go to the temporary directory. The raw write and sync beside them are
//! the floor: on a busy machine only the ratios mean something. Minimum and median of many small rounds.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark measures the real world")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use strata_kernel::env::real;
use strata_kernel::log::{Anchor, Durability, Log, LogOptions, StateHash};

const PAYLOAD: [u8; 150] = [7; 150];
const RECORD: usize = 64 + 152;

fn main() {
    let root = std::env::temp_dir().join(format!("strata-bench-log-{}", std::process::id()));
    println!("payloads of {} bytes", PAYLOAD.len());
    memory(&root);
    buffered(&root.join("buffered"));
    strict(&root.join("strict"));
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
    let log = create(root, Durability::Buffered);
    report("buffered", 500, 1_000, || commit(&log));
    for threads in [2, 4] {
        report(&format!("buffered, {threads} threads"), 20, 1_000 * threads, together(&log, threads, 1_000));
    }
    read_again(root, log);
}

fn read_again(root: &Path, log: Log) {
    let proven = log.close().expect("the log closes");
    drop(log);
    let start = Instant::now();
    let anchor = Anchor { proven, ..Anchor::default() };
    let (_, recovery) =
        Log::recover(&real::env(root), LogOptions::default(), anchor, &mut |_| Ok(())).expect("no damage");
    let seconds = start.elapsed().as_secs_f64();
    let megabytes = proven as f64 / 1e6;
    println!("recovery: {} records, {megabytes:.0} MB, {:.0} MB/s", recovery.records, megabytes / seconds);
}

fn strict(root: &Path) {
    let raw = raw_file(root);
    let mut offset = 0;
    report("raw write and sync", 30, 30, || {
        raw.write_all_at(&[1; RECORD], offset).expect("space");
        raw.sync_data().expect("a sync");
        offset += RECORD as u64;
    });
    let log = create(root, Durability::Strict);
    for threads in [1, 2, 4, 8, 16, 32] {
        report(&format!("strict, {threads} threads"), 30, 30 * threads, together(&log, threads, 30));
    }
}

fn create(root: &Path, durability: Durability) -> Log {
    let options = LogOptions { durability, ..LogOptions::default() };
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

fn report(name: &str, rounds: usize, count: usize, mut body: impl FnMut()) {
    let mut costs: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            (0..count).for_each(|_| body());
            start.elapsed().as_nanos() as f64 / count as f64
        })
        .collect();
    costs.sort_by(f64::total_cmp);
    println!("{name}: {:.0} ns at best, {:.0} ns median", costs[0], costs[rounds / 2]);
}
