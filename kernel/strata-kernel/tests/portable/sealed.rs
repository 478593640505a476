//! Bundles, backups and restores of what is encrypted, and of what becomes so meanwhile.

use std::sync::Arc;

use proptest::prelude::*;
use strata_kernel::Error;
use strata_kernel::env::sim::{Sim, SimDisk};
use strata_kernel::seal::{GivenKeys, Key};
use strata_kernel::store::{Moment, Options, Store, import, restore, verify_bundle};

use crate::grown::*;

fn key(number: u8) -> Key {
    Key::new(&(number..number + 32).collect::<Vec<u8>>()).unwrap()
}

/// The first is the current one.
fn keys(numbers: &[u8]) -> Option<GivenKeys> {
    let mut keys = numbers.iter().map(|number| key(*number));
    keys.next().map(|current| GivenKeys { current, older: keys.collect() })
}

fn open(disk: &SimDisk, numbers: &[u8]) -> Result<Arc<Store>, Error> {
    Store::open(Sim::over(disk.clone(), 1).env(), &Options { keys: keys(numbers), ..options(true) })
}

/// What stands in the directory `db` of a disk.
fn inside(target: &Sim) -> SimDisk {
    let inside = SimDisk::new(1);
    for path in target.disk.paths() {
        inside.replace(path.strip_prefix("db/").unwrap(), target.disk.content(&path).unwrap());
    }
    inside
}

fn shows(disk: &SimDisk, text: &[u8]) -> bool {
    let shows = |path: &String| disk.content(path).unwrap().windows(text.len()).any(|bytes| bytes == text);
    disk.paths().iter().any(shows)
}

fn exported(store: &Store, history: bool, numbers: &[u8]) -> Sim {
    let outside = Sim::new(7);
    let made = store.export(&outside.env(), "out", None, history, keys(numbers).as_ref()).unwrap();
    assert_eq!(made.key, numbers.first().map(|number| key(*number).id()));
    assert_eq!(verify_bundle(&outside.env(), "out", keys(numbers).as_ref()).unwrap(), made);
    outside
}

fn imported(outside: &Sim, numbers: &[u8]) -> Result<SimDisk, Error> {
    let target = Sim::new(3);
    let outcome = import(&outside.env(), "out", &target.env(), "db", keys(numbers).as_ref());
    assert!(outcome.is_ok() || target.disk.paths().is_empty());
    outcome.map(|_| inside(&target))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_sealed_bundle_comes_in_as_it_went_out(mut steps in prop::collection::vec(any_step(), 0..40), history: bool) {
        steps.retain(|step| !matches!(step, Step::Rename(_) | Step::Remove(_)));
        let [(_, store), _] = grown(&steps);
        let outside = exported(&store, history, &[1]);
        prop_assert!(!shows(&outside.disk, b"k/../") && !shows(&outside.disk, b"main"));
        // The same content, the same bytes; and another key other bytes.
        prop_assert_eq!(exported(&store, history, &[1]).disk.content("out"), outside.disk.content("out"));
        prop_assert_ne!(exported(&store, history, &[2]).disk.content("out"), outside.disk.content("out"));
        let refused = Error::NeedsKey { needed: key(1).id(), given: vec![] };
        prop_assert_eq!(imported(&outside, &[]).map(drop), Err(refused));
        let other = Error::NeedsKey { needed: key(1).id(), given: vec![key(2).id()] };
        prop_assert_eq!(imported(&outside, &[2]).map(drop), Err(other));
        // The first key seals the database, and any opens the bundle; and so is a plain bundle sealed.
        for (bundle, numbers) in [(&outside, &[1][..]), (&outside, &[2, 1]), (&exported(&store, history, &[]), &[2])] {
            let disk = imported(bundle, numbers).unwrap();
            prop_assert!(!shows(&disk, b"k/../") && open(&disk, &[]).is_err());
            let again = open(&disk, &numbers[..1]).unwrap();
            check(&again);
            if history {
                prop_assert_eq!(history_of(&again), history_of(&store));
            }
        }
    }

    #[test]
    fn a_backup_goes_on_through_changes_of_the_key(
        rounds in prop::collection::vec((prop::collection::vec(any_step(), 1..10), 0..3_u8), 1..5),
        seed: u64,
    ) {
        let (sim, to) = (Sim::new(1), Sim::new(2));
        let store = Store::open(sim.env(), &options(true)).unwrap();
        let mut now = 0;
        let mut earlier: Option<String> = None;
        for (steps, number) in rounds {
            steps.iter().for_each(|step| act(&sim, &store, step));
            store.rotate_key((number > 0).then(|| key(number)), &mut |_, _| Ok(())).unwrap();
            let begun = to.disk.journal_len();
            store.backup(&to.env(), &mut |_, _| Ok(())).unwrap();
            let said = history_of(&store);
            let of = |number: u8| if number == 0 { vec![] } else { vec![number] };
            for count in begun..=to.disk.journal_len() {
                let image = to.disk.image_at(count, seed.wrapping_add(count as u64));
                if !image.paths().iter().any(|path| path == "MANIFEST") {
                    prop_assert!(earlier.is_none());
                    continue;
                }
                // With the key of then it is as it was then, and with that of now as it is now.
                let found = match open(&image, &of(number)) {
                    Ok(found) => found,
                    Err(_) => open(&image, &of(now)).unwrap(),
                };
                let found = history_of(&found);
                prop_assert!(found == said || (Some(&found) == earlier.as_ref() && count < to.disk.journal_len()));
            }
            let target = Sim::new(5);
            let from = Sim::over(to.disk.crash(seed), 1).env();
            restore(&from, &target.env(), "db", Moment::Newest, keys(&of(number)).as_ref()).unwrap();
            let again = open(&inside(&target), &of(number)).unwrap();
            if store.branch("main").is_ok() {
                prop_assert_eq!(history_of(&again), said.clone());
            }
            prop_assert!(number == 0 || !shows(&inside(&target), b"k/../"));
            (now, earlier) = (number, Some(said));
        }
    }
}

fn small(value: u8) -> Arc<Store> {
    let steps = [Step::Put(0, 0, 1, value), Step::Put(0, 1, 2, 15), Step::Fork(0, 1, 200), Step::Noted(1, 3)];
    let [(_, store), _] = grown(&steps);
    store
}

/// Whoever has not the key can make all checksums right, and no more.
#[test]
fn no_byte_of_a_sealed_bundle_can_be_changed() {
    for history in [false, true] {
        let bundle = exported(&small(1), history, &[1]);
        let whole = bundle.disk.content("out").unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            bundle.disk.replace("out", crate::bundle::repaired(changed));
            let is_as_it_was = bundle.disk.content("out").unwrap() == whole;
            assert_eq!(imported(&bundle, &[1]).is_ok(), is_as_it_was, "byte {at}");
        }
    }
}

/// Frames of one bundle in the place of those of another, under the same key.
#[test]
fn sealed_bundles_cannot_be_mixed() {
    let [one, other] = [1, 2].map(|value| exported(&small(value), true, &[1]).disk.content("out").unwrap());
    assert_eq!(one.len(), other.len());
    let bundle = Sim::new(7);
    let mut differ = 0;
    for at in 64..one.len() {
        let mixed = crate::bundle::repaired([&one[..at], &other[at..]].concat());
        if mixed == one || mixed == other {
            continue;
        }
        differ += 1;
        bundle.disk.replace("out", mixed);
        assert!(imported(&bundle, &[1]).is_err(), "from byte {at} on");
    }
    assert!(differ > 100);
}

#[test]
fn a_backup_that_was_written_to_under_another_key_is_none() {
    let (sim, to) = (Sim::new(1), Sim::new(2));
    let store = Store::open(sim.env(), &Options { keys: keys(&[1]), ..options(true) }).unwrap();
    act(&sim, &store, &Step::Put(0, 0, 1, 1));
    store.backup(&to.env(), &mut |_, _| Ok(())).unwrap();
    let written = to.disk.copy();
    let other = open(&written, &[1]).unwrap();
    act(&sim, &other, &Step::Put(0, 0, 2, 2));
    other.flush().unwrap();
    for image in [written.killed(), {
        drop(other);
        written
    }] {
        for number in [1, 2] {
            store.rotate_key(key(number), &mut |_, _| Ok(())).unwrap();
            let outcome = store.backup(&Sim::over(image.copy(), 1).env(), &mut |_, _| Ok(()));
            assert!(matches!(outcome, Err(Error::InvalidInput(_))), "{outcome:?}");
        }
    }
}
