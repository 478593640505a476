//! How commits and reads scale with threads: on disjoint branches, and on disjoint keys of one branch.
//!
//! `cargo bench -p strata-kernel --bench threads [-- --threads 8]`. Ratios to one thread count; each figure is the best of
//! several rounds, with the numbers of threads interleaved, so that a noisy neighbour hits all alike.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures the real world")]

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use strata_kernel::branch::Branch;
use strata_kernel::change::{What, Write};
use strata_kernel::env::real;
use strata_kernel::store::Store;

const OPERATIONS: usize = 200_000;
const KEYS: usize = 10_000;
const ROUNDS: usize = 5;

fn main() {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--threads").skip(1);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let most = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(cores);
    let counts: Vec<usize> = [1, 2, 4, 8, 16].into_iter().filter(|&count| count <= most).collect();
    println!("{cores} cores; {OPERATIONS} operations a thread; values of 100 bytes; memory mode");
    println!("'of ideal': against what threads that share nothing reach on this machine at this time");
    for (name, shape) in [
        ("put, disjoint branches", Shape { branches: true, read: false }),
        ("put, disjoint keys of one branch", Shape { branches: false, read: false }),
        ("get, disjoint branches", Shape { branches: true, read: true }),
        ("get, disjoint keys of one branch", Shape { branches: false, read: true }),
    ] {
        report(name, &shape, &counts);
    }
}

struct Shape {
    branches: bool,
    read: bool,
}

fn report(name: &str, shape: &Shape, counts: &[usize]) {
    let mut best = vec![0.0f64; counts.len()];
    let mut ideal = vec![0.0f64; counts.len()];
    for _ in 0..ROUNDS {
        for (slot, &threads) in counts.iter().enumerate() {
            ideal[slot] = ideal[slot].max(spin_rate(threads));
            best[slot] = best[slot].max(rate(shape, threads));
        }
    }
    for (slot, threads) in counts.iter().enumerate() {
        let (gain, ideal) = (best[slot] / best[0], ideal[slot] / ideal[0]);
        let share = gain / ideal * 100.0;
        println!("{name:34} {threads:2} threads  {:8.2} M/s  {gain:.2}x, {share:.0} % of ideal", best[slot] / 1e6);
    }
}

/// Rounds a second of threads that share nothing: what the machine gives at all.
fn spin_rate(threads: usize) -> f64 {
    const SPINS: u64 = 20_000_000;
    let start = Instant::now();
    let spin = || {
        let mut state = 1u64;
        for step in 0..SPINS {
            state = std::hint::black_box(state.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ step);
        }
    };
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(spin))));
    (SPINS * threads as u64) as f64 / start.elapsed().as_secs_f64()
}

/// Operations a second of all threads together.
fn rate(shape: &Shape, threads: usize) -> f64 {
    let store = Store::memory(real::env(""));
    let keyspace = store.keyspace("default", "kv");
    let branches: Vec<Arc<Branch>> = (0..threads)
        .map(|number| {
            let name = format!("branch-{number}");
            if shape.branches {
                store.fork("main", &name, None).expect("a new name");
                store.branch(&name).expect("just made")
            } else {
                store.branch("main").expect("always there")
            }
        })
        .collect();
    let barrier = Arc::new(Barrier::new(threads + 1));
    let workers: Vec<_> = branches
        .into_iter()
        .enumerate()
        .map(|(number, branch)| {
            let (store, barrier, read) = (Arc::clone(&store), Arc::clone(&barrier), shape.read);
            thread::spawn(move || work(&store, &branch, keyspace, number, read, &barrier))
        })
        .collect();
    barrier.wait();
    let start = Instant::now();
    barrier.wait();
    let took = start.elapsed();
    workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
    (OPERATIONS * threads) as f64 / took.as_secs_f64()
}

fn work(store: &Store, branch: &Arc<Branch>, keyspace: u32, number: usize, read: bool, barrier: &Barrier) {
    let keys: Vec<String> = (0..KEYS).map(|index| format!("thread-{number:02}-key-{index:06}")).collect();
    let value = [b'v'; 100];
    let put = |key: &str| {
        let write = Write { keyspace, key: key.as_bytes(), what: What::Put(&value) };
        store.write(branch, &[write]).expect("memory holds it");
    };
    keys.iter().for_each(|key| put(key));
    let mut found = 0usize;
    barrier.wait();
    for index in 0..OPERATIONS {
        // A stride that shares no factor with the number of keys: every key, in no order that helps a cache.
        let key = &keys[index * 7919 % KEYS];
        if read {
            found +=
                branch.read(keyspace, key.as_bytes(), branch.head(), |version| version.is_some() as usize).unwrap();
        } else {
            put(key);
        }
    }
    barrier.wait();
    assert!(!read || found == OPERATIONS);
}
