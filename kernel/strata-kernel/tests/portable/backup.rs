//! Backups hold what was committed, through crashes, compactions and whatever comes between; and restores give it back.

use std::sync::Arc;

use proptest::prelude::*;
use strata_kernel::Error;
use strata_kernel::branch::At;
use strata_kernel::env::sim::{Sim, SimDisk};
use strata_kernel::store::{Backup, Moment, Store, restore};

use crate::grown::*;

fn backed_up(store: &Store, to: &Sim) -> Result<Backup, Error> {
    store.backup(&to.env(), &mut |_, _| Ok(()))
}

fn opened(disk: SimDisk) -> (Sim, Arc<Store>) {
    let sim = Sim::over(disk, 1);
    let store = Store::open(sim.env(), &options(true)).unwrap();
    check(&store);
    (sim, store)
}

fn restored(from: &SimDisk, moment: Moment) -> Result<(Sim, Arc<Store>), Error> {
    let target = Sim::new(5);
    restore(&Sim::over(from.clone(), 1).env(), &target.env(), "db", moment, None)?;
    let inside = SimDisk::new(1);
    for path in target.disk.paths() {
        let content = target.disk.content(&path).unwrap();
        inside.replace(path.strip_prefix("db/").expect("all is in the directory"), content);
    }
    Ok(opened(inside))
}

fn is_compaction(step: &Step) -> bool {
    matches!(step, Step::Checkpoint)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn each_backup_is_what_was_committed_and_a_crash_leaves_one(
        rounds in prop::collection::vec(prop::collection::vec(any_step(), 0..12), 1..4),
        seed: u64,
    ) {
        let (sim, to) = (Sim::new(1), Sim::new(2));
        let store = Store::open(sim.env(), &options(true)).unwrap();
        let mut earlier: Option<String> = None;
        for steps in rounds {
            for step in &steps {
                act(&sim, &store, step);
                if is_compaction(step) {
                    store.compact(&mut |_, _| Ok(())).unwrap();
                }
            }
            let begun = to.disk.journal_len();
            let made = backed_up(&store, &to).unwrap();
            let said = history_of(&store);
            prop_assert_eq!(made.version, store.log.last_version());
            for count in begun..=to.disk.journal_len() {
                let image = to.disk.image_at(count, seed.wrapping_add(count as u64));
                if !image.paths().iter().any(|path| path == "MANIFEST") {
                    prop_assert!(earlier.is_none());
                    continue;
                }
                let (_, found) = opened(image);
                let found = history_of(&found);
                let is_one = found == said || Some(&found) == earlier.as_ref();
                prop_assert!(is_one && (found == said || count < to.disk.journal_len()), "after {count} calls");
            }
            // What a crash left can be gone on with.
            let middle = begun + (to.disk.journal_len() - begun) / 2;
            let again = Sim::over(to.disk.image_at(middle, seed), 3);
            backed_up(&store, &again).unwrap();
            prop_assert_eq!(history_of(&opened(again.disk.killed()).1), said.clone());
            // And nothing is copied twice.
            prop_assert_eq!(backed_up(&store, &to).unwrap().new_runs, 0);
            earlier = Some(said);
        }
    }

    #[test]
    fn a_restore_is_what_was_there(steps in prop::collection::vec(any_step(), 0..40), seed: u64) {
        let [(sim, store), _] = grown(&steps);
        let said = history_of(&store);
        // Of what a kill leaves, and of a backup.
        let to = Sim::new(2);
        backed_up(&store, &to).unwrap();
        let has_main = store.branches().unwrap().iter().any(|info| info.name == "main");
        let newest = store.log.last_version();
        for from in [sim.disk.killed(), to.disk.crash(seed)] {
            let (_, again) = restored(&from, Moment::Newest).unwrap();
            if has_main {
                prop_assert_eq!(history_of(&again), said.clone());
            }
            for version in 0..=newest {
                let (_, then) = restored(&from, Moment::Version(version)).unwrap();
                for info in then.branches().unwrap() {
                    let Ok(now) = store.branch(&info.name) else { continue };
                    let branch = then.branch(&info.name).unwrap();
                    prop_assert!(branch.head() <= version);
                    let at = At::from(version);
                    prop_assert_eq!(rows_at(&then, &branch, at), rows_at(&store, &now, at), "{} at {}", info.name, version);
                    // By its time as well.
                    let time = branch.time_of(version).unwrap();
                    prop_assert_eq!(time, now.time_of(version).unwrap());
                }
                for info in store.branches().unwrap() {
                    let made = store.branch(&info.name).unwrap().commits(0, version + 1, true, 1).unwrap();
                    let has_own = made.first().is_some_and(|commit| info.fork_version.is_none_or(|fork| commit.version > fork));
                    prop_assert!(!has_own || then.branch(&info.name).is_ok(), "{} at {}", info.name, version);
                }
            }
        }
    }
}

#[test]
fn a_branch_is_restored_with_those_that_it_was_forked_off() {
    // Forked before the first commit, which is on the oldest, and older than any instant that a commit tells.
    let forks = [Step::Fork(0, 0, 0), Step::Fork(1, 1, 0), Step::Fork(0, 2, 0), Step::Put(3, 0, 0, 0)];
    let [(sim, _store), _] = grown(&forks);
    for version in 0..=4 {
        let (_, then) = restored(&sim.disk.killed(), Moment::Version(version)).unwrap();
        check(&then);
    }
}

#[test]
fn what_is_no_backup_of_it_is_refused_and_stays() {
    let sim = Sim::new(1);
    let store = Store::open(sim.env(), &options(true)).unwrap();
    act(&sim, &store, &Step::Put(0, 0, 0, 0));
    let content = |disk: &SimDisk| disk.paths().into_iter().map(|path| (disk.content(&path), path)).collect::<Vec<_>>();
    let refused = |to: &Sim| {
        let before = content(&to.disk);
        assert!(matches!(backed_up(&store, to), Err(Error::InvalidInput(_))));
        let after = content(&to.disk).into_iter().filter(|(_, path)| path != "LOCK").collect::<Vec<_>>();
        assert_eq!(after, before.into_iter().filter(|(_, path)| path != "LOCK").collect::<Vec<_>>());
    };
    let foreign = Sim::new(2);
    foreign.disk.replace("letter.txt", vec![1]);
    refused(&foreign);
    let other = Sim::new(3);
    drop(Store::open(other.env(), &options(true)).unwrap());
    refused(&other);
    // Opened and written to, closed and not.
    for is_closed in [false, true] {
        let to = Sim::new(2);
        backed_up(&store, &to).unwrap();
        let (own, written) = opened(to.disk.copy());
        act(&own, &written, &Step::Put(0, 0, 1, 1));
        let left = if is_closed {
            written.close().unwrap();
            own.disk.copy()
        } else {
            own.disk.killed()
        };
        refused(&Sim::over(left, 4));
        // Opened and not written to.
        let (own, read) = opened(to.disk.copy());
        read.close().unwrap();
        backed_up(&store, &Sim::over(own.disk.copy(), 4)).unwrap();
    }
    // Of a later time.
    let to = Sim::new(2);
    act(&sim, &store, &Step::Put(0, 0, 2, 2));
    let old = sim.disk.killed();
    act(&sim, &store, &Step::Put(0, 0, 2, 2));
    backed_up(&store, &to).unwrap();
    let (_, older) = opened(old);
    assert!(matches!(backed_up(&older, &to), Err(Error::InvalidInput(_))));
    assert!(matches!(backed_up(&Store::memory(Sim::new(1).env()), &to), Err(Error::InvalidInput(_))));
}
