//! Databases with random histories, and what they say.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use strata_kernel::branch::{At, Branch, Range, RowBuffer};
use strata_kernel::change::{Expiry, What, Write};
use strata_kernel::env::sim::Sim;
use strata_kernel::payload::{Meta, Number, Seal};
use strata_kernel::store::{Options, Store};
use strata_kernel::transaction::{Isolation, Transaction};
use strata_kernel::value::patch::Op;
use strata_kernel::value::path::Path;

pub const SPACES: [&str; 3] = ["default", "notes", "../../etc"];

pub fn options(durable: bool) -> Options {
    Options { block_bytes: 256, segment_bytes: 1 << 16, read_only: !durable, create: durable, ..Options::default() }
}

pub fn value_of(number: u8) -> Vec<u8> {
    // Some stand aside, some are packed.
    if number % 16 == 15 { [&[0xc5, 0x10, 0][..], &[number; 0x1000]].concat() } else { vec![number % 128] }
}

#[derive(Debug, Clone)]
pub enum Step {
    Put(u8, u8, u8, u8),
    Expiring(u8, u8, u8),
    Delete(u8, u8, u8),
    Add(u8, u8),
    Append(u8, u8),
    Merge(u8, u8, u8),
    Noted(u8, u8),
    Fork(u8, u8, u8),
    Rename(u8),
    Remove(u8),
    Seal(u8, u8),
    Tag(u8, u8, u8),
    Checkpoint,
}

pub fn any_step() -> impl Strategy<Value = Step> {
    let byte = any::<u8>;
    prop_oneof![
        6 => (byte(), byte(), byte(), byte()).prop_map(|(b, s, k, v)| Step::Put(b, s, k, v)),
        1 => (byte(), byte(), byte()).prop_map(|(b, k, v)| Step::Expiring(b, k, v)),
        2 => (byte(), byte(), byte()).prop_map(|(b, s, k)| Step::Delete(b, s, k)),
        1 => (byte(), byte()).prop_map(|(b, k)| Step::Add(b, k)),
        1 => (byte(), byte()).prop_map(|(b, v)| Step::Append(b, v)),
        1 => (byte(), byte(), byte()).prop_map(|(b, k, v)| Step::Merge(b, k, v)),
        1 => (byte(), byte()).prop_map(|(b, k)| Step::Noted(b, k)),
        1 => (byte(), byte(), byte()).prop_map(|(a, b, at)| Step::Fork(a, b, at)),
        1 => byte().prop_map(Step::Rename),
        1 => byte().prop_map(Step::Remove),
        1 => (byte(), byte()).prop_map(|(b, how)| Step::Seal(b, how)),
        1 => (byte(), byte(), byte()).prop_map(|(b, name, at)| Step::Tag(b, name, at)),
        1 => Just(Step::Checkpoint),
    ]
}

pub fn pick(store: &Store, number: u8) -> Arc<Branch> {
    let names = store.branches().unwrap();
    store.branch(&names[number as usize % names.len()].name).unwrap()
}

pub fn key(number: u8) -> Vec<u8> {
    format!("k/../{}", number % 12).into_bytes()
}

/// Do a step; what is refused is no matter.
pub fn act(sim: &Sim, store: &Store, step: &Step) {
    sim.clock.advance(1000);
    let space = |number: u8| store.keyspace(SPACES[number as usize % 3], "kv");
    let write = |branch: u8, keyspace: u32, key: &[u8], what: What<'_>| {
        let _ = store.write(&pick(store, branch), &[Write { keyspace, key, what }]);
    };
    match step {
        Step::Put(b, s, k, v) => write(*b, space(*s), &key(*k), What::Put(&value_of(*v))),
        Step::Expiring(b, k, v) => {
            // Long ago, or long hence.
            let instant = if v % 2 == 0 { 1 } else { u64::MAX / 4 };
            write(*b, space(0), &key(*k), What::PutFor(&value_of(*v), Expiry::At(instant)));
        }
        Step::Delete(b, s, k) => write(*b, space(*s), &key(*k), What::Delete),
        Step::Add(b, k) => write(*b, store.keyspace("n", "kv"), &key(*k), What::Add(Number::Int(3))),
        Step::Append(b, v) => {
            let what = What::Append { kind: "step", value: &value_of(*v), origin: None };
            write(*b, store.keyspace("default", "events"), b"main\0", what);
        }
        Step::Merge(b, k, v) => {
            // A map of all that were merged into it.
            let ops = [Op::Merge { path: Path::root(), patch: vec![0x81, 0xa1, b'a' + v % 8, v % 128] }];
            write(*b, store.keyspace("docs", "kv"), &key(*k), What::Patch(&ops, None));
        }
        Step::Noted(b, k) => {
            let mut transaction =
                Transaction::new(pick(store, *b), Isolation::Serializable, true, Some(format!("{k}")));
            transaction.meta = Meta { message: Some("ä".into()), ..transaction.meta };
            let _ = transaction.put(space(*k), &key(*k), &[*k % 128], None);
            let _ = store.commit(&mut transaction);
        }
        Step::Fork(a, b, at) => {
            let source = pick(store, *a);
            let name = source.name.read().clone();
            let _ = store.fork(&name, &format!("../b{}", b % 4), Some(source.head() * u64::from(*at) / 200));
        }
        Step::Rename(b) => {
            let name = pick(store, *b).name.read().clone();
            let _ = store.rename(&name, &format!("renamed {}", b % 3));
        }
        Step::Remove(b) => {
            let name = pick(store, *b).name.read().clone();
            if store.branches().unwrap().len() > 1 {
                let _ = store.delete_branch(&name);
            }
        }
        Step::Seal(b, how) => {
            // Mostly taken back at once, so that histories go on.
            let name = pick(store, *b).name.read().clone();
            let seal = Seal { reason: format!("because {how}"), is_protected: how % 2 == 0 };
            let _ = store.seal(&name, Some(seal).filter(|_| how % 3 == 0));
        }
        Step::Tag(b, name, at) => {
            let (branch, name) = (pick(store, *b), format!("t{}", name % 3));
            let version = branch.head() * u64::from(*at) / 200;
            if store.tag(&name, &branch.name.read().clone(), Some(version), Some("ö".into())).is_err() {
                let _ = store.untag(&name);
            }
        }
        Step::Checkpoint => drop(store.checkpoint()),
    }
}

pub fn check(store: &Store) {
    assert_eq!(store.verify(&mut |_, _| Ok(())).unwrap().problems, []);
}

pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// All (space, kind) that steps write to.
pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    SPACES.into_iter().chain(["n", "docs"]).flat_map(|space| [(space, "kv"), (space, "events")])
}

pub fn rows_at(store: &Store, branch: &Branch, at: At) -> BTreeMap<(String, String), Rows> {
    let mut all = BTreeMap::new();
    for (space, kind) in names() {
        let mut rows = RowBuffer::default();
        branch.scan(store.keyspace(space, kind), &Range::default(), false, at, &mut rows, usize::MAX).unwrap();
        let rows: Rows = rows.rows().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        if !rows.is_empty() {
            all.insert((space.to_owned(), kind.to_owned()), rows);
        }
    }
    all
}

/// All that can be asked of every version.
pub fn history_of(store: &Store) -> String {
    let mut said = format!("{:?}\n", store.tags().unwrap());
    for info in store.branches().unwrap() {
        let branch = store.branch(&info.name).unwrap();
        said += &format!("{info:?}\n");
        for commit in branch.commits(0, u64::MAX, false, usize::MAX).unwrap() {
            said += &format!("{} {} {:?}\n", commit.version, commit.time, commit.meta);
            assert!(branch.version_at(commit.time).unwrap() >= commit.version);
            said += &format!("{:?}\n", rows_at(store, &branch, At::from(commit.version)));
        }
        for number in 0..12 {
            for row in
                branch.history(store.keyspace("default", "kv"), &key(number), u64::MAX - 1, u64::MAX, 99).unwrap()
            {
                said += &format!("{} {} {:?}\n", row.version, row.time, row.value);
            }
        }
    }
    said
}

pub fn newest_of(store: &Store) -> String {
    let mut said = String::new();
    for info in store.branches().unwrap() {
        let branch = store.branch(&info.name).unwrap();
        said += &format!("{:?} {:?}\n", info.name, rows_at(store, &branch, At::from(branch.head())));
    }
    said
}

/// A database, and one in memory, with the same history.
pub fn grown(steps: &[Step]) -> [(Sim, Arc<Store>); 2] {
    let (disk, memory) = (Sim::new(1), Sim::new(1));
    let stores = [Store::open(disk.env(), &options(true)).unwrap(), Store::memory(memory.env())];
    for step in steps {
        act(&disk, &stores[0], step);
        act(&memory, &stores[1], step);
    }
    let [first, second] = stores;
    [(disk, first), (memory, second)]
}
