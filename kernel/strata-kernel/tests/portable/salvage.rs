//! Salvage: of a whole database everything, of a damaged one what is whole, and a word on all else.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use strata_kernel::Error;
use strata_kernel::branch::Branch;
use strata_kernel::change::{What, Write};
use strata_kernel::env::sim::{Sim, SimDisk};
use strata_kernel::inspect::{Field, inspect};
use strata_kernel::manifest::Manifest;
use strata_kernel::store::{BranchInfo, Erasure, Loss, LostPlace, Salvaged, Store, salvage};

use crate::grown::*;

/// Steps, with a compaction for some checkpoints. Also what branches had when they were deleted: that may come back.
fn grow(steps: &[Step]) -> (Sim, Arc<Store>, Values) {
    let sim = Sim::new(1);
    let store = Store::open(sim.env(), &options(true)).unwrap();
    let mut deleted = Values::new();
    for (number, step) in steps.iter().enumerate() {
        if matches!(step, Step::Remove(_)) {
            deleted.extend(values_of(&all_rows(&store, &keys())));
        }
        act(&sim, &store, step);
        if matches!(step, Step::Checkpoint) && number % 3 == 0 {
            store.compact(&mut |_, _| Ok(())).unwrap();
        }
    }
    (sim, store, deleted)
}

/// What a kill leaves, and what a clean close does.
fn ends(sim: &Sim, store: &Store) -> [SimDisk; 2] {
    let killed = sim.disk.killed();
    store.close().unwrap();
    [killed, sim.disk.killed()]
}

fn salvaged(from: &SimDisk) -> Result<(Salvaged, Sim, Arc<Store>), Error> {
    let target = Sim::new(5);
    let before = contents(from);
    let made = salvage(&Sim::over(from.clone(), 1).env(), &target.env(), "db", None, &mut |_, _| Ok(()));
    assert_eq!(contents(from), before, "the damaged directory is only read");
    if made.is_err() {
        assert_eq!(target.disk.paths(), [""; 0], "nothing is left of what failed");
    }
    let made = made?;
    let inside = SimDisk::new(1);
    for path in target.disk.paths() {
        let content = target.disk.content(&path).unwrap();
        inside.replace(path.strip_prefix("db/").expect("all is in the directory"), content);
    }
    let sim = Sim::over(inside, 1);
    let store = Store::open(sim.env(), &options(true)).unwrap();
    check(&store);
    Ok((made, sim, store))
}

fn contents(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    disk.paths().into_iter().map(|path| (path.clone(), disk.content(&path).unwrap())).collect()
}

/// Where a version of a key is: on the branch with an id, as a name may be lost.
type Spot = (u32, (String, String), Vec<u8>, u64);
type Rows = BTreeMap<Spot, Option<Vec<u8>>>;
/// The value of a version of a key, whichever branch shows it.
type Values = BTreeMap<((String, String), Vec<u8>, u64), Option<Vec<u8>>>;

fn values_of(rows: &Rows) -> Values {
    let value = |((_, name, key, version), value): (&Spot, &Option<Vec<u8>>)| {
        ((name.clone(), key.clone(), *version), value.clone())
    };
    rows.iter().map(value).collect()
}

/// Every version of every key that each branch shows; `keys` are those that may be there.
fn all_rows(store: &Store, keys: &[Vec<u8>]) -> Rows {
    let mut rows = Rows::new();
    for info in store.branches().unwrap() {
        let branch = store.branch(&info.name).unwrap();
        for (space, kind) in names() {
            for key in keys {
                for row in history(store, &branch, (space, kind), key) {
                    let spot = (info.id, (space.to_owned(), kind.to_owned()), key.clone(), row.0);
                    rows.insert(spot, row.1);
                }
            }
        }
    }
    rows
}

fn history(store: &Store, branch: &Branch, name: (&str, &str), key: &[u8]) -> Vec<(u64, Option<Vec<u8>>)> {
    let keyspace = store.keyspace(name.0, name.1);
    let rows = branch.history(keyspace, key, u64::MAX - 1, u64::MAX, 999).unwrap();
    rows.into_iter().map(|row| (row.version, row.value)).collect()
}

fn keys() -> Vec<Vec<u8>> {
    let events = (0..60_u64).map(|sequence| [b"main\0", &sequence.to_be_bytes()[..]].concat());
    (0..12).map(key).chain(events).collect()
}

/// What the original said, with what is needed to order its places.
struct Model {
    rows: Rows,
    values: Values,
    numbers: BTreeMap<(String, String), u32>,
    newest: u64,
}

impl Model {
    fn of(store: &Store, mut values: Values) -> Model {
        let rows = all_rows(store, &keys());
        values.extend(values_of(&rows));
        let numbers = names().map(|(space, kind)| ((space.to_owned(), kind.to_owned()), store.keyspace(space, kind)));
        Model { values, numbers: numbers.collect(), newest: store.log.last_version(), rows }
    }

    /// No row of the copy may be one that never was; returns those that are missing.
    fn missing(&self, copy: &Store) -> Vec<&Spot> {
        let found = all_rows(copy, &keys());
        for ((branch, name, key, version), value) in &found {
            let right = self.values.get(&(name.clone(), key.clone(), *version));
            assert_eq!(right, Some(value), "{branch} {name:?} {} {version}", String::from_utf8_lossy(key));
        }
        let is_missing = |spot: &&Spot| !found.contains_key(*spot);
        self.rows.keys().filter(is_missing).collect()
    }

    fn is_told(&self, spot: &Spot, lost: &[Loss]) -> bool {
        lost.iter().any(|loss| self.covers(loss, spot))
    }

    fn covers(&self, loss: &Loss, (_, name, key, version): &Spot) -> bool {
        if loss.what == "the end of the log" {
            return true;
        }
        if loss.first.is_none() && loss.last.is_none() {
            return loss.versions.is_none_or(|(first, last)| (first..=last).contains(version));
        }
        if loss.first.is_some() && loss.first == loss.last {
            return loss.first.as_ref().is_some_and(|place| place.key == *key && place.version == *version);
        }
        // Branches are not held against each other: a fork shows what its parent lost.
        let number = |place: &LostPlace| {
            let named = self.numbers.get(&(place.space.clone(), place.kind.clone())).copied();
            named.unwrap_or(if place.kind == "catalogue" { 0 } else { u32::MAX })
        };
        let own = (self.numbers[name], key);
        let is_one_branch =
            matches!((&loss.first, &loss.last), (Some(first), Some(last)) if first.branch == last.branch);
        !is_one_branch
            || (loss.first.as_ref().is_none_or(|first| (number(first), &first.key) <= own)
                && loss.last.as_ref().is_none_or(|last| own <= (number(last), &last.key)))
    }
}

#[derive(Debug, Clone)]
enum Damage {
    Flip(u32),
    Cut(u32),
    Zero(u32, u16),
    Delete,
}

fn any_damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        6 => any::<u32>().prop_map(Damage::Flip),
        1 => any::<u32>().prop_map(Damage::Cut),
        2 => (any::<u32>(), 1..3000_u16).prop_map(|(at, length)| Damage::Zero(at, length)),
        1 => Just(Damage::Delete),
    ]
}

/// Damage one file; returns its path and where, `None` where there is nothing to damage.
fn damage(disk: &SimDisk, file: u8, damage: &Damage) -> Option<(String, usize)> {
    let paths = disk.paths();
    let path = paths[file as usize % paths.len()].clone();
    let mut content = disk.content(&path)?;
    let used = content.iter().rposition(|byte| *byte != 0)? + 1;
    let at = match damage {
        Damage::Flip(at) | Damage::Cut(at) | Damage::Zero(at, _) => *at as usize % used,
        Damage::Delete => 0,
    };
    match damage {
        Damage::Flip(bit) => content[at] ^= 1 << (bit >> 29),
        Damage::Cut(_) => content.truncate(at),
        Damage::Zero(_, length) => {
            let end = used.min(at + *length as usize);
            content[at..end].fill(0);
        }
        Damage::Delete => {
            disk.forget(&path);
            return Some((path, 0));
        }
    }
    disk.replace(&path, content);
    Some((path, at))
}

/// Damage to the end of an unclean log that nothing behind it tells of looks like its end.
fn may_look_whole(path: &str, damage: &Damage) -> bool {
    path.starts_with("WAL/") && !matches!(damage, Damage::Flip(_))
}

/// The rows of the frame of a run that a byte belongs to.
fn rows_at_byte(disk: &SimDisk, path: &str, at: usize) -> usize {
    let mut rows = 0;
    let mut see = |line: strata_kernel::inspect::Line| {
        let number = |name: &str| {
            let field = line.fields.iter().find(|(field, _)| *field == name);
            field.and_then(|(_, field)| if let Field::Number(number) = field { Some(*number as usize) } else { None })
        };
        let (start, bytes) = (line.at as usize, number("bytes").unwrap_or(0));
        if line.kind == "frame" && (start..start + bytes).contains(&at) {
            let is_value = line.fields.contains(&("holds", Field::Text("value".to_owned())));
            rows = number("rows").unwrap_or(usize::from(is_value));
        }
        Ok(())
    };
    inspect(disk, path, 0, None, &mut see).unwrap();
    rows
}

/// Of a damaged database what is whole is kept, and nothing else, and the rest is told.
fn damaged(steps: &[Step], file: u8, how: &Damage) -> Result<(), TestCaseError> {
    let (sim, store, deleted) = grow(steps);
    let model = Model::of(&store, deleted);
    let had_main = store.branches().unwrap().iter().any(|info| info.name == "main");
    for from in ends(&sim, &store) {
        let whole = from.copy();
        let Some((path, at)) = damage(&from, file, how) else { continue };
        let (made, _, copy) = salvaged(&from).unwrap();
        let missing = model.missing(&copy);
        // A `main` that was made up is none of them.
        let is_it = |info: &BranchInfo, id: u32| info.id == id && (had_main || info.name != "main");
        let has_branch = |id: u32| copy.branches().unwrap().iter().any(|info| is_it(info, id));
        let may_be_missed = |spot: &Spot| {
            // The end of the log, or a branch that was made in what is lost, with all that its parent shows there.
            (may_look_whole(&path, how) && spot.3 > made.version)
                || (!has_branch(spot.0) && (!made.lost.is_empty() || may_look_whole(&path, how)))
        };
        for spot in &missing {
            prop_assert!(
                model.is_told(spot, &made.lost) || may_be_missed(spot),
                "{spot:?} is missing; {how:?} of {path} at {at}, {made:#?}"
            );
        }
        prop_assert!(made.version <= model.newest);
        if matches!(how, Damage::Flip(_)) && path.ends_with(".run") {
            let most = rows_at_byte(&whole, &path, at);
            let rest = |spot: &Spot| {
                made.lost
                    .iter()
                    .any(|loss| loss.reason.contains("changes a value") && loss.versions == Some((spot.3, spot.3)))
            };
            let mut lost: Vec<_> =
                missing.iter().filter(|spot| !rest(spot)).map(|spot| (&spot.1, &spot.2, spot.3)).collect();
            lost.sort();
            lost.dedup();
            prop_assert!(lost.len() <= most, "{} of {most} rows: {lost:?} {made:#?}", lost.len());
            if most == 0 {
                prop_assert_eq!(&made.lost, &[]);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn of_a_whole_database_all_is_kept(steps in prop::collection::vec(any_step(), 0..60)) {
        let (sim, store, _) = grow(&steps);
        let said = history_of(&store);
        let has_main = store.branches().unwrap().iter().any(|info| info.name == "main");
        for from in ends(&sim, &store) {
            for without in ["", "MANIFEST", "MANIFEST.bak"] {
                from.forget(without);
                let (made, _, copy) = salvaged(&from).unwrap();
                prop_assert_eq!(&made.lost, &[], "without {}", without);
                if has_main {
                    prop_assert_eq!(history_of(&copy), said.clone());
                }
                if without == "MANIFEST" {
                    from.replace("MANIFEST", from.content("MANIFEST.bak").unwrap());
                }
            }
        }
    }

    #[test]
    fn of_a_damaged_one_what_is_whole_is_kept_and_the_rest_told(
        steps in prop::collection::vec(any_step(), 0..60),
        file: u8,
        how in any_damage(),
    ) {
        damaged(&steps, file, &how)?;
    }
}

/// What a database holds that is cut short after each call of a `forget`, where the MANIFEST says that it goes on.
fn erasures_are_respected() {
    let sim = Sim::new(1);
    let store = Store::open(sim.env(), &options(true)).unwrap();
    let keyspace = store.keyspace("default", "kv");
    let put = |key: &[u8], value: &[u8]| {
        store.write(&store.branch("main").unwrap(), &[Write { keyspace, key, what: What::Put(value) }]).unwrap();
    };
    put(b"secret", b"\xa6canary");
    put(b"other", &[1]);
    store.checkpoint().unwrap();
    put(b"secret", b"\xa6canary");
    let begun = sim.disk.journal_len();
    let erasure = Erasure { kind: "kv".into(), key: b"secret".to_vec(), ..Erasure::default() };
    store.forget(vec![erasure]).unwrap();
    let mut pending = 0;
    for count in begun..=sim.disk.journal_len() {
        let image = sim.disk.image_at(count, count as u64);
        let manifest = Manifest::read(&image, &|_| None).unwrap().unwrap();
        let is_told = !manifest.state.erasures.is_empty();
        pending += usize::from(is_told);
        let (made, copy, store) = salvaged(&image).unwrap();
        let has = |key: &[u8]| store.branch("main").unwrap().value(keyspace, key, u64::MAX - 1).unwrap().is_some();
        assert!(has(b"other"), "after {count} calls: {made:?}");
        if is_told || count == sim.disk.journal_len() {
            let holds = |content: &[u8]| content.windows(6).any(|window| window == b"canary");
            assert!(!has(b"secret") && !contents(&copy.disk).iter().any(|(_, content)| holds(content)));
        }
    }
    assert!(pending > 5);
}

#[test]
fn what_is_being_erased_does_not_come_back() {
    erasures_are_respected();
}

#[cfg(feature = "sabotage")]
mod sabotage {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use proptest::test_runner::{Config, TestRunner};
    use strata_kernel::sabotage::with;

    use super::*;

    /// Random damage, until the bug shows.
    fn caught(bug: &str, step: impl Strategy<Value = Step>) {
        let config = Config { cases: 600, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
        let steps = prop::collection::vec(step, 20..60);
        let judge = |(steps, file, how): (Vec<Step>, u8, Damage)| {
            let outcome = catch_unwind(AssertUnwindSafe(|| with(bug, || damaged(&steps, file, &how))));
            outcome.unwrap_or_else(|_| Err(TestCaseError::fail("it panicked")))
        };
        let outcome = TestRunner::new(config).run(&(steps, any::<u8>(), any_damage()), judge);
        assert!(outcome.is_err(), "{bug} was not caught");
    }

    #[test]
    fn s01_a_change_of_what_is_lost_is_kept() {
        let change = prop_oneof![Just(Step::Add(0, 0)), (0..8_u8).prop_map(|v| Step::Merge(0, 0, v))];
        caught("S01", change);
    }

    #[test]
    fn s02_a_gap_of_the_log_is_not_told() {
        caught("S02", any_step());
    }

    #[test]
    fn s03_a_gap_of_a_run_is_not_told() {
        caught("S03", any_step());
    }

    #[test]
    fn s04_what_is_being_erased_comes_back() {
        assert!(catch_unwind(|| with("S04", erasures_are_respected)).is_err());
    }

    #[test]
    fn t15_what_does_not_check_is_kept() {
        caught("T15", any_step());
    }
}
