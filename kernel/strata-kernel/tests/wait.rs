//! Waiting for a branch: no call is lost, and nothing is left of who waited.

#![allow(clippy::disallowed_methods)] // threads: what is tested is what happens between them

use std::sync::Arc;
use std::thread;

use strata_kernel::Error;
use strata_kernel::branch::Branch;
use strata_kernel::change::{What, Write};
use strata_kernel::env::sim::Sim;
use strata_kernel::env::{Clock, real};
use strata_kernel::payload::Seal;
use strata_kernel::store::Store;

/// So long that a call that is lost is a test that hangs.
const FOREVER_US: u64 = 3_600_000_000;

fn put(store: &Store, branch: &Arc<Branch>) -> u64 {
    let keyspace = store.keyspace("default", "kv");
    store.write(branch, &[Write { keyspace, key: b"k", what: What::Put(&[1]) }]).unwrap().version
}

fn await_above(store: &Store, branch: &Branch, after: u64) -> u64 {
    loop {
        let head = store.wait(branch, after, None, FOREVER_US).unwrap();
        if head > after {
            return head;
        }
    }
}

/// Each waits for the other's commit before its own, so one call that is lost stops both.
#[test]
fn two_that_answer_each_other_lose_no_call() {
    const ROUNDS: usize = 20_000;
    let store = Arc::new(Store::memory(real::env("")));
    let ping = store.branch("main").unwrap();
    store.create("pong").unwrap();
    let pong = store.branch("pong").unwrap();
    let (mut heard_ping, mut heard_pong) = (ping.head(), pong.head());
    let answering = {
        let (store, ping, pong) = (store.clone(), ping.clone(), pong.clone());
        thread::spawn(move || {
            for _ in 0..ROUNDS {
                heard_ping = await_above(&store, &ping, heard_ping);
                put(&store, &pong);
            }
        })
    };
    for _ in 0..ROUNDS {
        put(&store, &ping);
        heard_pong = await_above(&store, &pong, heard_pong);
    }
    answering.join().unwrap();
}

#[test]
fn all_who_wait_are_woken_by_a_seal_a_deletion_and_the_end() {
    let store = Arc::new(Store::memory(real::env("")));
    store.create("b").unwrap();
    let (main, b) = (store.branch("main").unwrap(), store.branch("b").unwrap());
    let sealed = Some(Seal { reason: "over".into(), is_protected: false });
    let waiting = |branch: &Arc<Branch>, is_over: fn(&Store, &Branch) -> bool| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (store, branch) = (store.clone(), branch.clone());
                thread::spawn(move || {
                    while !is_over(&store, &branch) {
                        let reason = branch.seal().map(|seal| seal.reason);
                        let _ = store.wait(&branch, u64::MAX, reason.as_deref(), FOREVER_US);
                    }
                })
            })
            .collect();
        threads
    };
    let seal = waiting(&b, |_, branch| branch.is_sealed());
    store.seal("b", sealed).unwrap();
    seal.into_iter().for_each(|thread| thread.join().unwrap());
    let deletion = waiting(&b, |_, branch| branch.is_deleted());
    store.delete_branch("b").unwrap();
    deletion.into_iter().for_each(|thread| thread.join().unwrap());
    let end = waiting(&main, |store, _| store.is_closed());
    store.close().unwrap();
    end.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(matches!(store.wait(&main, 0, None, FOREVER_US), Err(Error::Closed(_))));
}

/// In a simulated world nobody commits while one waits: the time that it would have taken passes.
#[test]
fn waiting_takes_simulated_time() {
    let sim = Sim::new(1);
    let store = Store::memory(sim.env());
    let main = store.branch("main").unwrap();
    let before = sim.clock.monotonic_us();
    assert_eq!(store.wait(&main, main.head(), None, 5_000_000).unwrap(), main.head());
    assert_eq!(sim.clock.monotonic_us() - before, 5_000_000);
    let version = put(&store, &main);
    assert_eq!(store.wait(&main, version - 1, None, FOREVER_US).unwrap(), version);
    assert_eq!(sim.clock.monotonic_us() - before, 5_000_000);
}
