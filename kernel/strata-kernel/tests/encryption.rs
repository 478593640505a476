//! Encryption at rest, for a whole database: what is on the disk, what opens, and what a crash in a rotation leaves.

use std::sync::Arc;

use strata_kernel::Error;
use strata_kernel::change::{What, Write};
use strata_kernel::env::sim::{Sim, SimDisk};
use strata_kernel::seal::{GivenKeys, Key};
use strata_kernel::store::{Options, Store};

const CANARY: &[u8] = b"CANARY!!";

fn key(number: u8) -> Key {
    Key::new(&(number..number + 32).collect::<Vec<u8>>()).unwrap()
}

/// The first is the current one.
fn with(numbers: &[u8]) -> Options {
    let mut keys = numbers.iter().map(|number| key(*number));
    let keys = keys.next().map(|current| GivenKeys { current, older: keys.collect() });
    Options { keys, segment_bytes: 4096, block_bytes: 512, ..Options::default() }
}

fn open(disk: &SimDisk, options: &Options) -> Result<Arc<Store>, Error> {
    Store::open(Sim::over(disk.clone(), 1).env(), options)
}

fn put(store: &Store, key: &[u8], value: &[u8]) {
    let (branch, keyspace) = (store.branch("main").unwrap(), store.keyspace("CANARY!! space", "kv"));
    let text = [&[0xc4, value.len() as u8], value].concat();
    store.write(&branch, &[Write { keyspace, key, what: What::Put(&text) }]).unwrap();
}

/// The canary in keys, values, and names of branches and spaces, some in runs and some in the log only.
fn fill(store: &Store) {
    for number in 0..40_u8 {
        put(store, &[CANARY, &[number]].concat(), CANARY);
        if number % 15 == 14 {
            store.checkpoint().unwrap();
        }
    }
    store.fork("main", "CANARY!!", None).unwrap();
    put(store, b"last", CANARY);
}

fn check(store: &Store) {
    let (branch, keyspace) = (store.branch("main").unwrap(), store.keyspace("CANARY!! space", "kv"));
    let text = [&[0xc4, CANARY.len() as u8], CANARY].concat();
    for number in 0..40_u8 {
        let key = [CANARY, &[number]].concat();
        assert_eq!(branch.value(keyspace, &key, branch.head()), Ok(Some(text.clone())), "key {number}");
    }
    store.branch("CANARY!!").unwrap();
    assert_eq!(branch.value(keyspace, b"last", branch.head()), Ok(Some(text)));
    assert_eq!(store.verify(&mut |_, _| Ok(())).unwrap().problems, []);
}

/// The files in which the canary shows.
fn shows(disk: &SimDisk) -> Vec<String> {
    let shows = |path: &String| disk.content(path).unwrap().windows(CANARY.len()).any(|bytes| bytes == CANARY);
    disk.paths().into_iter().filter(shows).collect()
}

/// The files in which a key is named.
fn names(disk: &SimDisk, number: u8) -> Vec<String> {
    let id = key(number).id().0;
    let names = |path: &String| disk.content(path).unwrap().windows(id.len()).any(|bytes| bytes == id);
    disk.paths().into_iter().filter(names).collect()
}

#[test]
fn nothing_of_what_is_kept_shows_in_a_file() {
    for (options, is_plain) in [(with(&[1]), false), (with(&[]), true)] {
        let disk = SimDisk::new(1);
        let store = open(&disk, &options).unwrap();
        fill(&store);
        // The check finds what there is to find.
        assert_eq!(!shows(&disk).is_empty(), is_plain);
        store.compact(&mut |_, _| Ok(())).unwrap();
        assert_eq!(!shows(&disk).is_empty(), is_plain);
        put(&store, b"one more", CANARY);
        store.close().unwrap();
        assert_eq!(!shows(&disk).is_empty(), is_plain);
        check(&open(&disk, &options).unwrap());
    }
}

#[test]
fn without_its_key_a_database_stays_closed_and_as_it_is() {
    let disk = SimDisk::new(1);
    fill(&open(&disk, &with(&[1])).unwrap());
    let content = || disk.paths().into_iter().map(|path| (disk.content(&path), path)).collect::<Vec<_>>();
    let before = content();
    for (keys, given) in [(&[][..], vec![]), (&[2], vec![key(2).id()]), (&[2, 3], vec![key(2).id(), key(3).id()])] {
        let outcome = open(&disk, &with(keys)).map(drop);
        assert_eq!(outcome, Err(Error::NeedsKey { needed: key(1).id(), given }));
    }
    let unlocked = |content: Vec<(Option<Vec<u8>>, String)>| {
        content.into_iter().filter(|file| file.1 != "LOCK").collect::<Vec<_>>()
    };
    assert_eq!(unlocked(content()), unlocked(before));
    check(&open(&disk, &with(&[1])).unwrap());
    // An older key is of use only for what is there.
    check(&open(&disk, &with(&[2, 1])).unwrap());
}

#[test]
fn a_plain_database_is_refused_with_a_key() {
    let disk = SimDisk::new(1);
    fill(&open(&disk, &with(&[])).unwrap());
    assert!(matches!(open(&disk, &with(&[1])).map(drop), Err(Error::InvalidInput(_))));
    check(&open(&disk, &with(&[])).unwrap());
}

/// From no key to one, from one to another, and from one to none.
fn rotations() -> [(Vec<u8>, Vec<u8>); 3] {
    [(vec![], vec![1]), (vec![1], vec![2]), (vec![1], vec![])]
}

fn rotate(store: &Store, to: &[u8]) {
    store.rotate_key(to.first().map(|number| key(*number)), &mut |_, _| Ok(())).unwrap();
}

/// How many files are to be sealed: all but those that tell nothing.
fn sealed(disk: &SimDisk) -> usize {
    let spare = disk.content("WAL/wal-spare.tmp").unwrap_or_default();
    assert!(spare.iter().all(|byte| *byte == 0));
    disk.paths().iter().filter(|path| !["LOCK", "WAL/wal-spare.tmp"].contains(&&path[..])).count()
}

/// Nothing is sealed otherwise than with `to`, or shows what it should not.
fn check_rotated(disk: &SimDisk, from: &[u8], to: &[u8]) {
    assert!(from.iter().all(|old| names(disk, *old).is_empty()));
    match to {
        [] => assert!(!shows(disk).is_empty()),
        [to, ..] => assert_eq!((shows(disk), names(disk, *to).len()), (vec![], sealed(disk))),
    }
}

#[test]
fn a_rotation_leaves_nothing_of_the_old_key() {
    for (from, to) in rotations() {
        let disk = SimDisk::new(1);
        let store = open(&disk, &with(&from)).unwrap();
        fill(&store);
        rotate(&store, &to);
        check_rotated(&disk, &from, &to);
        assert_eq!(store.info().unwrap().key, to.first().map(|number| key(*number).id()));
        check(&store);
        put(&store, b"later", CANARY);
        rotate(&store, &to);
        drop(store);
        let refused = open(&disk, &with(&from)).map(drop);
        assert!(matches!(refused, Err(Error::NeedsKey { .. } | Error::InvalidInput(_))), "{refused:?}");
        check(&open(&disk, &with(&to)).unwrap());
    }
}

/// Also of a database that has nothing in it, and of one whose only run is as it should be.
#[test]
fn a_database_with_little_in_it_is_rotated_too() {
    for (from, to) in rotations() {
        for commits in 0..2 {
            let disk = SimDisk::new(1);
            let store = open(&disk, &with(&from)).unwrap();
            (0..commits).for_each(|_| put(&store, b"k", CANARY));
            store.compact(&mut |_, _| Ok(())).unwrap();
            rotate(&store, &to);
            assert!(from.iter().all(|old| names(&disk, *old).is_empty()));
            assert!(to.iter().all(|new| names(&disk, *new).len() == sealed(&disk)));
            drop(store);
            open(&disk, &with(&to)).unwrap();
        }
    }
}

/// After a power cut at any call of a rotation, what was given before and after opens it, loses nothing, and comes to the end.
#[test]
fn a_rotation_that_a_power_cut_ends_can_be_gone_on_with() {
    for (from, to) in rotations() {
        let disk = SimDisk::new(1);
        let store = open(&disk, &with(&from)).unwrap();
        fill(&store);
        store.flush().unwrap();
        let before = disk.journal_len();
        rotate(&store, &to);
        for count in before..=disk.journal_len() {
            let image = disk.image_at(count, count as u64);
            let both: Vec<u8> = to.iter().chain(&from).copied().collect();
            // Before it was announced, nothing is sealed that was plain; and where it has ended, nothing that was sealed.
            let store = match open(&image, &with(&both)) {
                Err(Error::InvalidInput(_)) => open(&image, &with(&[])).unwrap(),
                other => other.unwrap(),
            };
            check(&store);
            put(&store, b"one more", CANARY);
            rotate(&store, &to);
            drop(store);
            check_rotated(&image, &from, &to);
            check(&open(&image, &with(&to)).unwrap());
        }
    }
}

/// On the way to plain files a compaction goes back to sealed ones: nobody asked for the other since.
#[test]
fn what_was_on_its_way_to_plain_files_is_compacted_into_sealed_ones() {
    let disk = SimDisk::new(1);
    let store = open(&disk, &with(&[1])).unwrap();
    fill(&store);
    (0..1200_u32).for_each(|number| put(&store, &number.to_be_bytes(), CANARY));
    let mut steps = 0;
    let mut stop = |_, _| {
        steps += 1;
        if steps > 1 { Err(Error::Closed("the test")) } else { Ok(()) }
    };
    assert_eq!(store.rotate_key(None, &mut stop), Err(Error::Closed("the test")));
    assert!(!shows(&disk).is_empty() && !names(&disk, 1).is_empty(), "it is in the middle");
    drop(store);
    let store = open(&disk, &with(&[1])).unwrap();
    store.compact(&mut |_, _| Ok(())).unwrap();
    check(&store);
    drop(store);
    check_rotated(&disk, &[], &[1]);
    check(&open(&disk, &with(&[1])).unwrap());
}

/// Opened with both keys, a compaction is all that it takes.
#[test]
fn what_is_opened_with_a_newer_key_is_compacted_into_it() {
    let disk = SimDisk::new(1);
    fill(&open(&disk, &with(&[1])).unwrap());
    let store = open(&disk, &with(&[2, 1])).unwrap();
    store.compact(&mut |_, _| Ok(())).unwrap();
    drop(store);
    assert_eq!(names(&disk, 1), Vec::<String>::new());
    check(&open(&disk, &with(&[2])).unwrap());
}

/// A run and a segment of another database with the same key, and each under the name of another, do not open.
#[test]
fn a_file_in_the_place_of_another_is_told() {
    let disk = SimDisk::new(1);
    fill(&open(&disk, &with(&[1])).unwrap());
    let other = SimDisk::new(1);
    let made = Store::open(Sim::over(other.clone(), 2).env(), &with(&[1])).unwrap();
    fill(&made);
    drop(made);
    let runs: Vec<String> = disk.paths().into_iter().filter(|path| path.starts_with("DATA/")).collect();
    for path in &runs {
        let image = disk.copy();
        image.replace(path, other.content(path).unwrap());
        let outcome = open(&image, &with(&[1])).and_then(|store| store.verify(&mut |_, _| Ok(()))?.whole());
        assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{path}");
    }
}

/// Every bit of every file of a small database: it is told, or makes no difference.
#[test]
fn every_bit_of_an_encrypted_database_is_checked() {
    let disk = SimDisk::new(1);
    let store = open(&disk, &with(&[1])).unwrap();
    put(&store, b"first", CANARY);
    store.checkpoint().unwrap();
    put(&store, b"second", CANARY);
    store.flush().unwrap();
    let whole = disk.killed();
    for path in whole.paths().into_iter().filter(|path| path != "LOCK") {
        // Behind the records, segments are zeros that nobody reads.
        let used = whole.content(&path).unwrap().iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
        for bit in 0..used as u64 * 8 {
            let image = whole.copy();
            image.flip(&path, bit);
            let read = open(&image, &with(&[1])).and_then(|store| {
                store.verify(&mut |_, _| Ok(()))?.whole()?;
                let (branch, keyspace) = (store.branch("main")?, store.keyspace("CANARY!! space", "kv"));
                let read = |key| branch.value(keyspace, key, branch.head());
                Ok([read(b"first")?, read(b"second")?].map(|value| value.is_some()))
            });
            // The limit that the log has with or without a key: its very last record, damaged, is a torn tail.
            let is_log = path.starts_with("WAL/");
            match read {
                Ok([true, true]) | Err(Error::Corrupt { .. }) => {}
                Ok([true, false]) if is_log => {}
                other => panic!("{path}, bit {bit}: {other:?}"),
            }
        }
    }
}
