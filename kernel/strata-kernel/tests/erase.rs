//! Erasure under crashes and failing disks: all of it or nothing, no byte left behind, and nothing put later goes with it.

use std::sync::Arc;

use parking_lot::Mutex;
use strata_kernel::Result;
use strata_kernel::branch::Branch;
use strata_kernel::change::{What, Write};
use strata_kernel::env::sim::{Call, Fault, FaultKind, Sim, SimDisk};
use strata_kernel::log::Durability;
use strata_kernel::retention::{Keep, Policy};
use strata_kernel::store::{Erasure, Options, Store};

const CANARY: &[u8] = b"\xa8cAnArY#7";
const NEW: &[u8] = b"\xa3new";

fn options() -> Options {
    Options { durability: Durability::Strict, segment_bytes: 4096, compress_above: usize::MAX, ..Options::default() }
}

fn put(store: &Store, key: &[u8], value: &[u8]) -> Result<()> {
    let (main, keyspace) = (store.branch("main")?, store.keyspace("default", "kv"));
    store.write(&main, &[Write { keyspace, key, what: What::Put(value) }]).map(drop)
}

fn get(store: &Store, key: &[u8]) -> Option<Vec<u8>> {
    let main: Arc<Branch> = store.branch("main").unwrap();
    main.value(store.keyspace("default", "kv"), key, main.head()).unwrap()
}

fn erasure() -> Vec<Erasure> {
    vec![Erasure { space: None, kind: "kv".into(), key: b"k".to_vec(), is_prefix: false, ..Erasure::default() }]
}

/// A database with the key in a run and in the log.
fn filled(sim: &Sim) -> Arc<Store> {
    let store = Store::open(sim.env(), &options()).unwrap();
    for round in 0..3 {
        put(&store, b"k", CANARY).unwrap();
        put(&store, b"other", NEW).unwrap();
        if round == 1 {
            store.checkpoint().unwrap();
        }
    }
    store
}

fn holds_canary(disk: &SimDisk) -> bool {
    let has = |path: &String| disk.content(path).is_some_and(|bytes| bytes.windows(8).any(|at| at == &CANARY[1..]));
    disk.paths().iter().any(has)
}

/// Wherever a crash comes, the key is there as it was or gone from every file, and what is beside it stays.
#[test]
fn a_crash_leaves_all_of_it_or_nothing() {
    let sim = Sim::new(1);
    let store = filled(&sim);
    let begin = sim.disk.journal_len();
    assert!(holds_canary(&sim.disk));
    store.forget(erasure()).unwrap();
    assert!(!holds_canary(&sim.disk));
    let end = sim.disk.journal_len();
    let mut gone = 0;
    for count in begin..=end {
        for left in [sim.disk.image_at(count, 7), sim.disk.killed_at(count, 7)] {
            let again = Sim::over(left, 1);
            let store = Store::open(again.env(), &options()).unwrap();
            let found = get(&store, b"k");
            assert_eq!(get(&store, b"other").as_deref(), Some(NEW));
            assert!(found.is_none() || found.as_deref() == Some(CANARY));
            assert!(found.is_none() || count < end, "it came back");
            assert_eq!(holds_canary(&again.disk), found.is_some(), "after {count}");
            gone += usize::from(found.is_none());
            put(&store, b"k", NEW).unwrap();
            store.close().unwrap();
            let store = Store::open(Sim::over(again.disk.killed(), 1).env(), &options()).unwrap();
            assert_eq!(get(&store, b"k").as_deref(), Some(NEW));
        }
    }
    assert!(gone > 10, "{gone}");
}

/// What is to be erased stands in the MANIFEST. One that failed was left there, and the next compaction, or the next
/// opening, took what had been put under the key since.
#[test]
fn one_that_failed_takes_nothing_that_is_put_later() {
    let (mut failed, mut number) = (0, 0);
    loop {
        let sim = Sim::new(1);
        let store = filled(&sim);
        sim.disk.fail(Fault { at: sim.disk.calls() + number, forever: false, kind: FaultKind::Errno(5) });
        let outcome = store.forget(erasure());
        let is_over = outcome.is_ok() && sim.disk.calls() < number;
        failed += usize::from(outcome.is_err());
        if outcome.is_err() && put(&store, b"k", NEW).is_ok() {
            store.compact(&mut |_, _| Ok(())).unwrap();
            assert_eq!(get(&store, b"k").as_deref(), Some(NEW), "call {number}");
            store.close().unwrap();
            let store = Store::open(Sim::over(sim.disk.killed(), 1).env(), &options()).unwrap();
            assert_eq!(get(&store, b"k").as_deref(), Some(NEW), "call {number}");
        }
        number += 1;
        if is_over || number > 200 {
            break;
        }
    }
    assert!(failed > 5, "{failed}");
}

/// Views that were opened below the floor of the merge made it begin again, eight times; then the erasure was called done.
#[test]
fn views_do_not_keep_it_from_ending() {
    let sim = Sim::new(1);
    let store = filled(&sim);
    let keep = Keep { last: Some(1), ..Keep::default() };
    store.set_policy(Policy { keep, ..Policy::default() }).unwrap();
    let main = store.branch("main").unwrap();
    let view = Mutex::new((0, None));
    sim.disk.hook(Some(Arc::new(move |call: &Call<'_>| {
        // A run is made durable: the merge is done, and not installed yet.
        if call.operation == "sync" && call.path.ends_with(".run") {
            let mut view = view.lock();
            let version = view.0 % 5 + 1;
            *view = (version, Some(main.pin(version)));
        }
    })));
    store.forget(erasure()).unwrap();
    sim.disk.hook(None);
    assert!(!holds_canary(&sim.disk));
    assert_eq!(get(&store, b"k"), None);
}
