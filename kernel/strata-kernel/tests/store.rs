//! The parts of the store, each against a naive twin; and the bugs that the simulator found, so that they stay found.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use strata_kernel::Error;
use strata_kernel::branch::{At, Branch, Range, RowBuffer};
use strata_kernel::change::{What, Write};
use strata_kernel::env::Clock;
use strata_kernel::env::sim::Sim;
use strata_kernel::footprint::Footprint;
use strata_kernel::payload::{self, Body, CommitWriter, Meta, Number, Payload, Read};
use strata_kernel::retention::{Keep, Policy};
use strata_kernel::store::{Options, Store};
use strata_kernel::table::ChangeKind;
use strata_kernel::transaction::{Isolation, Transaction};
use strata_kernel::value::{Op, Path, Step};

/// `1` as a value.
const ONE: &[u8] = &[1];

fn put(store: &Store, branch: &Arc<Branch>, keyspace: u32, key: &[u8], value: &[u8]) -> u64 {
    store.write(branch, &[Write { keyspace, key, what: What::Put(value) }]).unwrap().version
}

fn delete(store: &Store, branch: &Arc<Branch>, keyspace: u32, key: &[u8]) -> u64 {
    store.write(branch, &[Write { keyspace, key, what: What::Delete }]).unwrap().version
}

fn commit_with_key(store: &Store, branch: &Arc<Branch>, key: &str) -> u64 {
    let mut transaction = Transaction::new(branch.clone(), Isolation::Serializable, false, Some(key.to_owned()));
    transaction.put(store.keyspace("default", "kv"), b"k", ONE, None).unwrap();
    store.commit(&mut transaction).unwrap()
}

/// A fork of a fork looked its grandparent's results up to where the *parent* had left it, though it had itself left
/// the parent before that: a retry was answered with a version that the branch does not show, and its write was lost.
#[test]
fn a_fork_of_a_fork_knows_only_the_results_that_it_shows() {
    let store = Store::memory(Sim::new(1).env());
    let main = store.branch("main").unwrap();
    let early = put(&store, &main, store.keyspace("default", "kv"), b"k", ONE);
    let result = commit_with_key(&store, &main, "pay");
    store.fork("main", "child", None).unwrap();
    store.fork("child", "before", Some(early)).unwrap();
    store.fork("child", "behind", None).unwrap();
    let again = |name| commit_with_key(&store, &store.branch(name).unwrap(), "pay");
    assert_eq!((again("child"), again("behind")), (result, result));
    assert!(again("before") > result);
}

/// The first record was too large for its segment and went into the next, so the first segment was empty. With the MANIFEST
/// gone it was taken for what a creation cut short had left and removed, before the next one told that it was none.
#[test]
fn a_log_without_its_manifest_is_refused_and_stays_as_it_is() {
    let sim = Sim::new(1);
    let options = Options { segment_bytes: 4096, compress_above: usize::MAX, ..Options::default() };
    let store = Store::open(sim.env(), &options).unwrap();
    let large = [&[0xc5, 0x40, 0][..], &[7; 0x4000]].concat();
    put(&store, &store.branch("main").unwrap(), store.keyspace("default", "kv"), b"k", &large);
    let sim = Sim::over(sim.disk.killed(), 1);
    sim.disk.forget("MANIFEST");
    let content = || sim.disk.paths().into_iter().map(|path| (sim.disk.content(&path), path)).collect::<Vec<_>>();
    let before = content();
    assert!(before.iter().filter(|(_, path)| path.starts_with("WAL/")).count() > 1);
    assert!(matches!(Store::open(sim.env(), &options).map(drop), Err(Error::Corrupt { .. })));
    assert_eq!(content(), before);
}

/// A branch was deleted while somebody held on to it. Its rows took more than half of the tables' share, no checkpoint could
/// let go of them, and after each the keeper woke itself: it never rested again.
#[test]
fn the_keeper_rests_while_memory_stays_short() {
    let sim = Sim::new(1);
    let store = Store::open(sim.env(), &Options { memory_budget: 64 << 10, ..Options::default() }).unwrap();
    store.create("large").unwrap();
    let (large, keyspace) = (store.branch("large").unwrap(), store.keyspace("default", "kv"));
    for key in 0..48u8 {
        put(&store, &large, keyspace, &[key], &[&[0xc5, 0x04, 0][..], &[7; 0x400]].concat());
    }
    store.delete_branch("large").unwrap();
    let (held, may_hold) = store.table_bytes();
    assert!(held > may_hold / 2, "{held} of {may_hold}");
    let now = sim.clock.monotonic_us();
    let rounds = (0..100).take_while(|_| sim.spawn.run_due(now) > 0).count();
    assert!(rounds < 10, "it comes back again and again");
    drop(large);
}

/// What reads take from runs is kept in memory, and nothing wrote it out: where nobody committed, all that was ever read
/// stayed, ten times the budget. The keeper is called for it, and where there is none, no more of it is kept.
#[test]
fn what_was_read_from_runs_stays_within_the_budget() {
    let sim = Sim::new(1);
    let options = Options { memory_budget: 64 << 10, block_bytes: 512, ..Options::default() };
    let store = Store::open(sim.env(), &options).unwrap();
    let (main, keyspace) = (store.branch("main").unwrap(), store.keyspace("default", "kv"));
    let key = |number: u32| [&number.to_be_bytes()[..], b"key"].concat();
    let value = [&[0xc4, 100][..], &[7; 100]].concat();
    for number in 0..2000 {
        put(&store, &main, keyspace, &key(number), &value);
    }
    store.close().unwrap();
    for read_only in [false, true] {
        let store = Store::open(sim.env(), &Options { read_only, ..options.clone() }).unwrap();
        let main = store.branch("main").unwrap();
        let keyspace = store.keyspace("default", "kv");
        for round in 0..3 {
            for number in 0..2000 {
                assert!(main.read(keyspace, &key(number), At::head(main.head()), |found| found.is_some()).unwrap());
                let (held, may_hold) = store.table_bytes();
                assert!(held <= may_hold, "{held} of {may_hold}, read only: {read_only}, round {round}");
                if number % 50 == 0 {
                    sim.spawn.run_due(sim.clock.monotonic_us());
                }
            }
        }
    }
}

/// The clock jumped ten years, and the next merge let go of a month of history that was an hour old: age was measured by
/// commits alone, whose times had jumped with the clock.
#[test]
fn no_jump_of_the_clock_lets_go_of_history_early() {
    const HOUR: u64 = 3_600_000_000;
    const YEARS: u64 = 10 * 365 * 24 * HOUR;
    for in_memory in [true, false] {
        let sim = Sim::new(1);
        let store =
            if in_memory { Store::memory(sim.env()) } else { Store::open(sim.env(), &Options::default()).unwrap() };
        let (main, keyspace) = (store.branch("main").unwrap(), store.keyspace("default", "kv"));
        let keep = Keep { for_us: Some(5 * HOUR), ..Keep::default() };
        store.set_policy(Policy { keep, ..Policy::default() }).unwrap();
        let write_one = || {
            sim.clock.advance(HOUR);
            put(&store, &main, keyspace, b"k", ONE);
            store.compact(&mut |_, _| Ok(())).unwrap().versions_removed
        };
        assert_eq!((0..4).map(|_| write_one()).sum::<u64>(), 0);
        let right = |sim: &Sim| sim.clock.set_wall(Sim::new(1).clock.wall_us() + sim.clock.monotonic_us());
        for wrong in [sim.clock.wall_us() + YEARS, sim.clock.wall_us() - YEARS / 2] {
            sim.clock.set_wall(wrong);
            assert_eq!(store.compact(&mut |_, _| Ok(())).unwrap().versions_removed, 0);
            put(&store, &main, keyspace, b"k", ONE);
            assert_eq!(store.compact(&mut |_, _| Ok(())).unwrap().versions_removed, 0);
            right(&sim);
        }
        // What was written in the meantime counts as of the future; what came before goes at its time.
        assert!((0..4).map(|_| write_one()).sum::<u64>() > 0);
        assert!(store.info().unwrap().oldest_version > 0);
    }
}

/// The patch was taken for a put, and a put needs a value: the commit panicked.
#[test]
fn a_delete_inside_what_the_transaction_deleted_leaves_it_deleted() {
    let store = Store::memory(Sim::new(1).env());
    let (main, keyspace) = (store.branch("main").unwrap(), store.keyspace("default", "kv"));
    put(&store, &main, keyspace, b"k", &[0x81, 0xa1, b'x', 1]);
    let mut transaction = Transaction::new(main.clone(), Isolation::Serializable, false, None);
    transaction.delete(keyspace, b"k").unwrap();
    transaction.patch(keyspace, b"k", vec![Op::Delete { path: Path(vec![Step::Key("x".into())]) }]).unwrap();
    let version = store.commit(&mut transaction).unwrap();
    assert_eq!(main.value(keyspace, b"k", version), Ok(None));
}

// --- payloads ---------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Written {
    Put(Vec<u8>),
    Expiring(Vec<u8>, u64),
    Append(Vec<u8>),
    Delete,
    Patch(Vec<Op>),
    Add(i64),
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..300)
}

fn any_path() -> impl Strategy<Value = Path> {
    let step = prop_oneof![
        "[a-z\u{e4}]{0,4}".prop_map(Step::Key),
        any::<i32>().prop_map(|index| Step::Index(index.into())),
        Just(Step::End)
    ];
    prop::collection::vec(step, 0..4).prop_map(Path)
}

fn any_op() -> impl Strategy<Value = Op> {
    let value = || any::<bool>().prop_map(|value| vec![0xc2 + u8::from(value)]);
    prop_oneof![
        (any_path(), value()).prop_map(|(path, value)| Op::Set { path, value }),
        any_path().prop_map(|path| Op::Delete { path }),
        (any_path(), value()).prop_map(|(path, value)| Op::Insert { path, value }),
        (any_path(), value()).prop_map(|(path, patch)| Op::Merge { path, patch }),
    ]
}

fn any_written() -> impl Strategy<Value = Written> {
    prop_oneof![
        any_bytes().prop_map(Written::Put),
        (any_bytes(), any::<u64>()).prop_map(|(value, expires)| Written::Expiring(value, expires)),
        any_bytes().prop_map(Written::Append),
        Just(Written::Delete),
        prop::collection::vec(any_op(), 0..4).prop_map(Written::Patch),
        any::<i64>().prop_map(Written::Add),
    ]
}

fn any_meta() -> impl Strategy<Value = Meta> {
    let text = || prop::option::of(".{0,40}");
    (text(), text(), text(), text()).prop_map(|(message, actor, cause, idempotency_key)| Meta {
        message,
        actor,
        cause,
        idempotency_key,
    })
}

fn any_read() -> impl Strategy<Value = Read> {
    let key = || (any::<u32>(), any_bytes());
    prop_oneof![
        key().prop_map(|(keyspace, key)| Read::Key { keyspace, key }),
        (key(), any_bytes()).prop_map(|((keyspace, key), path)| Read::Path { keyspace, key, path }),
        (key(), prop::option::of(any_bytes())).prop_map(|((keyspace, start), end)| Read::Range {
            keyspace,
            start,
            end
        }),
    ]
}

fn write_out(branch: u32, meta: &Meta, writes: &[(u32, Vec<u8>, Written)], reads: &[Read]) -> Vec<u8> {
    let mut out = b"left from before".to_vec();
    let mut writer = CommitWriter::new(&mut out, branch, meta, !reads.is_empty(), writes.len());
    for (keyspace, key, written) in writes {
        match written {
            Written::Put(value) => writer.value(ChangeKind::Put, *keyspace, key, value),
            Written::Expiring(value, expires) => writer.expiring(*keyspace, key, value, *expires),
            Written::Append(value) => writer.value(ChangeKind::Append, *keyspace, key, value),
            Written::Delete => writer.delete(*keyspace, key),
            Written::Patch(ops) => writer.patch(*keyspace, key, ops),
            Written::Add(delta) => writer.add(*keyspace, key, Number::Int(*delta)),
        }
    }
    if !reads.is_empty() {
        writer.reads(reads);
    }
    out
}

fn is_same(body: &Body<'_>, written: &Written) -> bool {
    match (body, written) {
        (Body::Put(found), Written::Put(value)) | (Body::Append(found), Written::Append(value)) => found == value,
        (Body::Expiring(found, at), Written::Expiring(value, expires)) => (found, at) == (&&value[..], expires),
        (Body::Delete, Written::Delete) => true,
        (Body::Patch(found), Written::Patch(ops)) => found == ops,
        (Body::Add(found), Written::Add(delta)) => *found == Number::Int(*delta),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_payload_reads_as_it_was_written(
        branch: u32,
        meta in any_meta(),
        writes in prop::collection::vec((any::<u32>(), any_bytes(), any_written()), 0..6),
        reads in prop::collection::vec(any_read(), 0..4),
    ) {
        let bytes = write_out(branch, &meta, &writes, &reads);
        let decoded = payload::decode(&bytes).unwrap();
        let Payload::Commit { branch: found_branch, meta: found_meta, writes: found, reads: found_reads } = decoded
        else { panic!("a commit") };
        prop_assert_eq!((found_branch, &found_meta, &found_reads), (branch, &meta, &reads));
        prop_assert_eq!(found.len(), writes.len());
        for (found, (keyspace, key, written)) in found.iter().zip(&writes) {
            prop_assert_eq!((found.keyspace, found.key), (*keyspace, &key[..]));
            prop_assert!(is_same(&found.body, written), "{:?} is not {:?}", found.body, written);
        }
    }

    /// Any bytes give a payload or an error, and a shorter payload is never taken for a whole one.
    #[test]
    fn a_payload_cut_short_is_refused(
        meta in any_meta(),
        writes in prop::collection::vec((any::<u32>(), any_bytes(), any_written()), 1..4),
        cut in any::<prop::sample::Index>(),
        junk in any_bytes(),
    ) {
        let bytes = write_out(1, &meta, &writes, &[]);
        prop_assert!(payload::decode(&bytes[..cut.index(bytes.len())]).is_err());
        let _ = payload::decode(&junk);
    }
}

// --- scans over chains of forks -------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Change {
    Put(usize, usize, u8),
    Delete(usize, usize),
    /// A fork of one of the branches at a share of its versions.
    Fork(usize, u64),
    Checkpoint,
    Compact,
}

const KEYS: [&[u8]; 7] = [b"", b"a", b"a\0", b"ab", b"b", b"\xff", b"\xff\xff"];

fn any_step() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (any::<usize>(), any::<usize>(), 0..100u8).prop_map(|(b, k, v)| Change::Put(b, k, v)),
        3 => (any::<usize>(), any::<usize>()).prop_map(|(b, k)| Change::Delete(b, k)),
        2 => (any::<usize>(), any::<u64>()).prop_map(|(b, at)| Change::Fork(b, at)),
        1 => Just(Change::Checkpoint),
        1 => Just(Change::Compact),
    ]
}

fn any_range() -> impl Strategy<Value = Range> {
    (0..KEYS.len(), prop::option::of(0..KEYS.len()))
        .prop_map(|(start, end)| Range { start: KEYS[start].to_vec(), end: end.map(|end| KEYS[end].to_vec()) })
}

/// All contents of a branch at each version from which on they are so.
type Naive = Vec<(u64, BTreeMap<Vec<u8>, Vec<u8>>)>;

fn at(naive: &Naive, version: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
    naive.iter().rfind(|(since, _)| *since <= version).map_or_else(BTreeMap::new, |(_, contents)| contents.clone())
}

/// Do the steps on a store and naively; returns the branches of both.
fn work(store: &Store, keyspace: u32, steps: &[Change]) -> Vec<(Arc<Branch>, Naive)> {
    let mut branches = vec![(store.branch("main").unwrap(), Naive::new())];
    for step in steps {
        let count = branches.len();
        match step {
            Change::Put(branch, key, value) => {
                let (branch, naive) = &mut branches[branch % count];
                let key = KEYS[key % KEYS.len()];
                let mut contents = at(naive, u64::MAX);
                contents.insert(key.to_vec(), vec![*value]);
                naive.push((put(store, branch, keyspace, key, &[*value]), contents));
            }
            Change::Delete(branch, key) => {
                let (branch, naive) = &mut branches[branch % count];
                let key = KEYS[key % KEYS.len()];
                let mut contents = at(naive, u64::MAX);
                contents.remove(key);
                naive.push((delete(store, branch, keyspace, key), contents));
            }
            Change::Fork(source, share) => {
                let (source, naive) = &branches[source % count];
                let version = share % (source.head() + 1);
                let shown = naive.iter().filter(|(since, _)| *since <= version).cloned().collect();
                let name = format!("fork-{count}");
                store.fork(&source.name.read().clone(), &name, Some(version)).unwrap();
                branches.push((store.branch(&name).unwrap(), shown));
            }
            Change::Checkpoint => drop(store.checkpoint().unwrap()),
            Change::Compact => drop(store.compact(&mut |_, _| Ok(())).unwrap()),
        }
    }
    branches
}

fn rows_of(
    branch: &Branch,
    keyspace: u32,
    range: &Range,
    reverse: bool,
    at: u64,
    limit: usize,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = RowBuffer::default();
    branch.scan(keyspace, range, reverse, at, &mut rows, limit).unwrap();
    rows.rows().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn scans_and_reads_merge_a_chain_of_forks(
        steps in prop::collection::vec(any_step(), 0..40),
        range in any_range(),
        reverse: bool,
        limit in 0..9usize,
        branches_deep in 1..4usize,
        memory_budget in prop::option::of(prop_oneof![Just(1usize), Just(1 << 30)]),
    ) {
        let store = match memory_budget {
            None => Store::memory(Sim::new(1).env()),
            Some(memory_budget) => {
                let options = Options { branches_deep, memory_budget, block_bytes: 96, ..Options::default() };
                Store::open(Sim::new(1).env(), &options).unwrap()
            }
        };
        let keyspace = store.keyspace("default", "kv");
        for (branch, naive) in work(&store, keyspace, &steps) {
            for version in 0..=branch.head() {
                let contents = at(&naive, version);
                let inside = contents.iter().filter(|(key, _)| range.contains(key));
                let mut expected: Vec<_> = inside.map(|(key, value)| (key.clone(), value.clone())).collect();
                prop_assert_eq!(branch.count(keyspace, &range, version), Ok(expected.len() as u64));
                if reverse {
                    expected.reverse();
                }
                expected.truncate(limit);
                prop_assert_eq!(rows_of(&branch, keyspace, &range, reverse, version, limit), expected);
                for key in KEYS {
                    prop_assert_eq!(branch.value(keyspace, key, version), Ok(contents.get(key).cloned()));
                }
            }
        }
    }

    /// The tables that replaying the log makes are those that the commits made.
    #[test]
    fn a_reopened_database_shows_every_version(steps in prop::collection::vec(any_step(), 0..25)) {
        let sim = Sim::new(1);
        let options = Options { segment_bytes: 1024, branches_deep: 2, block_bytes: 96, ..Options::default() };
        let store = Store::open(sim.env(), &options).unwrap();
        let branches = work(&store, store.keyspace("default", "kv"), &steps);
        store.close().unwrap();
        let store = Store::open(sim.env(), &options).unwrap();
        let keyspace = store.keyspace("default", "kv");
        for (before, naive) in branches {
            let branch = store.branch(&before.name.read()).unwrap();
            prop_assert_eq!(branch.head(), before.head());
            for version in 0..=branch.head() {
                let rows = rows_of(&branch, keyspace, &Range::default(), false, version, usize::MAX);
                prop_assert_eq!(rows, at(&naive, version).into_iter().collect::<Vec<_>>());
            }
        }
    }

    /// A range that was read is told to have changed exactly when a key in it has, phantoms included.
    #[test]
    fn a_range_clashes_when_a_key_in_it_changed(
        before in prop::collection::vec(0..KEYS.len(), 0..4),
        after in prop::collection::vec((0..KEYS.len(), any::<bool>()), 0..4),
        range in any_range(),
    ) {
        let store = Store::memory(Sim::new(1).env());
        let (main, keyspace) = (store.branch("main").unwrap(), store.keyspace("default", "kv"));
        for key in before {
            put(&store, &main, keyspace, KEYS[key], ONE);
        }
        let snapshot = main.head();
        let mut footprint = Footprint::default();
        footprint.range(keyspace, range.clone());
        let mut changed = false;
        for (key, is_put) in after {
            // A delete of what is not there changes nothing.
            let does = is_put || main.value(keyspace, KEYS[key], u64::MAX).unwrap().is_some();
            if is_put { put(&store, &main, keyspace, KEYS[key], ONE) } else { delete(&store, &main, keyspace, KEYS[key]) };
            changed |= does && range.contains(KEYS[key]);
        }
        prop_assert_eq!(!footprint.clashes(&main.data.read(), snapshot).unwrap().is_empty(), changed);
    }
}

/// A read of the last of a chain of forks asks a few branches, whatever the length of the chain.
#[test]
fn deep_branches_are_made_flat() {
    let sim = Sim::new(1);
    let options = Options { branches_deep: 3, ..Options::default() };
    let store = Store::open(sim.env(), &options).unwrap();
    let keyspace = store.keyspace("default", "kv");
    put(&store, &store.branch("main").unwrap(), keyspace, b"root", ONE);
    let mut source = "main".to_owned();
    for depth in 0..12u8 {
        let name = format!("fork-{depth}");
        store.fork(&source, &name, None).unwrap();
        put(&store, &store.branch(&name).unwrap(), keyspace, &[depth], ONE);
        source = name;
    }
    store.compact(&mut |_, _| Ok(())).unwrap();
    let check = |store: &Store| {
        let leaf = store.branch("fork-11").unwrap();
        assert!(leaf.sources(At::from(leaf.head())).len() <= 4);
        assert_eq!(leaf.count(keyspace, &Range::default(), leaf.head()), Ok(13));
        assert_eq!(leaf.value(keyspace, b"root", leaf.head()), Ok(Some(ONE.to_vec())));
        // Before the fork it is seen the old way.
        assert_eq!(leaf.value(keyspace, &[0], 3), Ok(Some(ONE.to_vec())));
        assert_eq!(leaf.value(keyspace, &[1], 3), Ok(None));
        assert_eq!(leaf.history(keyspace, &[5], leaf.head(), u64::MAX, 9).unwrap().len(), 1);
    };
    check(&store);
    store.close().unwrap();
    check(&Store::open(sim.env(), &options).unwrap());
}
