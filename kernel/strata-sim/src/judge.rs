//! Crashing a history everywhere, and judging what each crash left.
//!
//! An image is opened like any database, and goes on like one: a few more operations, crashes of those and of the
//! recovery itself, up to three deep. So nothing is special about a first crash.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use strata_kernel::env::sim::{Sim, SimDisk, SimRng};
use strata_kernel::log::Durability;
use strata_kernel::store::{Options, Store};
use strata_kernel::transaction::{Isolation, Transaction};

use crate::care::{self, Era};
use crate::compare;
use crate::driver::{Check, Driver};
use crate::indexed;
use crate::keepers::{hand_in_keys, no_file_holds};
use crate::model::{Model, State};
use crate::notes::Crash;
use crate::rows::tail;
use crate::tally::Tally;
use crate::trace::Trace;

/// Power cuts drawn for each moment, besides one death of the process.
const DRAWS: u64 = 3;
/// Crashes of what follows on a crash.
const DEPTH_MAX: u32 = 3;

pub struct Judge<'a> {
    driver: &'a Driver,
    tally: &'a mut Tally,
    trace: &'a mut Trace,
    depth: u32,
    /// Versions that were read in full at least once in this history.
    read_in_full: BTreeSet<(u64, usize)>,
}

/// Everything that can go down in one history.
pub fn crash_everywhere(driver: &Driver, tally: &mut Tally, trace: &mut Trace) -> Check {
    crash_at(driver, 0..=driver.moment(), tally, trace)
}

/// Everything that can go down while files come and go.
pub fn crash_busy(driver: &Driver, tally: &mut Tally, trace: &mut Trace) -> Check {
    let moments: BTreeSet<usize> = driver.busy.iter().flat_map(|busy| busy.start..=busy.end).collect();
    crash_at(driver, moments.into_iter(), tally, trace)
}

fn crash_at(driver: &Driver, moments: impl Iterator<Item = usize>, tally: &mut Tally, trace: &mut Trace) -> Check {
    let mut judge = Judge { driver, tally, trace, depth: 0, read_in_full: BTreeSet::new() };
    for moment in moments {
        for draw in 0..DRAWS {
            judge.crash(moment, Crash::PowerCut, moment as u64 * DRAWS + draw)?;
        }
        judge.crash(moment, Crash::Kill, moment as u64)?;
    }
    Ok(())
}

impl Judge<'_> {
    fn crash(&mut self, moment: usize, crash: Crash, seed: u64) -> Check {
        let image = image_of(&self.driver.sim.disk, moment, crash, seed);
        self.tally.crashed(self.depth, crash);
        self.examine(&image, moment, crash, seed).map_err(|why| format!("{crash:?} after call {moment}: {why}"))
    }

    fn examine(&mut self, image: &SimDisk, moment: usize, crash: Crash, seed: u64) -> Check {
        let mut options = self.driver.options.clone();
        let (found, state) = self.open(image, moment, crash, &options, seed)?;
        self.trace.number(state.version);
        self.tally.torn += u64::from(found.store().recovered.cut_bytes > 0);
        self.tally.lost += u64::from(state.version < self.driver.notes.newest_acknowledged(moment));
        self.check_state(&found, &state, seed)?;
        if seed.is_multiple_of(5) {
            options.durability = other(options.durability);
        }
        self.crash_again(&found, &state, &options, seed)?;
        if self.depth < DEPTH_MAX && seed.is_multiple_of(if self.driver.pressed { 4 } else { 7 }) {
            self.go_on(found, seed)?;
        }
        Ok(())
    }

    /// D5 and D1: it opens, and at a version that was promised.
    fn open(
        &self,
        image: &SimDisk,
        moment: usize,
        crash: Crash,
        options: &Options,
        seed: u64,
    ) -> Check<(Driver, Rc<State>)> {
        let sim = Sim::over(image.clone(), seed);
        let mut options = options.clone();
        hand_in_keys(&mut options, image, &self.driver.care.keys.at(moment))?;
        let store = Store::open(sim.env(), &options).map_err(|error| format!("refused: {error}"))?;
        let version = store.log.last_version();
        let (notes, promised) = (&self.driver.notes, &self.driver.options);
        notes.check(version, moment, crash, promised.durability, promised.flush_interval_us)?;
        compare::files(image, &options)?;
        if store.recovered.checkpoint + store.recovered.records != version || store.log.durable_version() != version {
            return Err(format!("version {version} has {:?}", store.recovered));
        }
        let notes = notes.found(version, moment, crash, image.journal_len());
        let (policies, indexes) = (store.policies()?, indexed::names(&store)?);
        let (model, eras, gone) = self.model_of(&store, version, moment)?;
        let state = model.last().clone();
        let mut found = Driver::found(sim, store, options, model, notes, seed);
        (found.pressed, found.indexed) = (self.driver.pressed, self.driver.indexed);
        found.care = self.driver.care.found(moment, &policies, &indexes, found.moment())?;
        found.care.gone.extend(gone);
        found.secrets.clone_from(&self.driver.secrets);
        found.eras = eras
            .map(|before| Era { asked: 0, done: found.moment(), before, secrets: Vec::new() })
            .into_iter()
            .collect();
        no_file_holds(image, &found.care.gone)?;
        Ok((found, state))
    }

    /// What must be there: where a crash came while something was being forgotten, with it or without.
    fn model_of(&self, store: &Arc<Store>, version: u64, moment: usize) -> Check<(Model, Option<Model>, Vec<Vec<u8>>)> {
        let mut possible = care::at(&self.driver.eras, &self.driver.model, moment);
        possible.iter_mut().for_each(|(model, _)| *model = model.cut_at(version));
        let (after, gone) = possible.pop().ok_or("there is always one")?;
        let Some((before, gone_before)) = possible.pop() else { return Ok((after, None, gone)) };
        let mut care = self.driver.care.clone();
        care.gone.clear();
        let is_before = compare::everything(store, &numbers(store), before.last(), &care).is_ok();
        Ok(if is_before { (before, None, gone_before) } else { (after, Some(before), gone) })
    }

    /// D2: everything is as the model has it at that one version.
    fn check_state(&mut self, found: &Driver, state: &State, seed: u64) -> Check {
        compare::heads(found.store(), &found.numbers, state)?;
        indexed::heads(found.store(), &found.numbers, state)?;
        if self.read_in_full.insert((state.version, found.care.gone.len())) || seed.is_multiple_of(64) {
            compare::everything(found.store(), &found.numbers, state, &found.care)?;
            indexed::versions(found.store(), &found.numbers, state, &found.care)?;
            // What was read of old versions has not taken the place of the new ones.
            compare::heads(found.store(), &found.numbers, state)?;
            found.store().verify(&mut |_, _| Ok(())).map_err(|error| format!("verifying: {error}"))?;
        }
        let next = self.driver.model.at(state.version + 1).map(|lost| (lost.version, lost.time));
        compare::outcomes(found.store(), state, next.as_slice(), &found.care)?;
        if seed.is_multiple_of(4) { self.repeat_keys(found, state) } else { Ok(()) }
    }

    /// A key that was used answers with its first result, and commits nothing.
    fn repeat_keys(&self, found: &Driver, state: &State) -> Check {
        for branch in state.branches.values() {
            let used: BTreeSet<_> = branch.commits.iter().filter_map(|c| c.idempotency_key.as_ref()).collect();
            for key in used {
                let Some(version) = state.first_result(branch, key) else { continue };
                let handle = found.handle(branch.id).ok_or("a branch is missing")?.clone();
                let mut again = Transaction::new(handle, Isolation::Serializable, false, Some(key.clone()));
                again.put(found.numbers[0], b"again", &[0xc0], None).map_err(|error| error.to_string())?;
                let got = found.store().commit(&mut again);
                if got != Ok(version) || found.store().log.last_version() != state.version {
                    return Err(format!("key {key} gave {got:?}, first it gave {version}"));
                }
            }
        }
        Ok(())
    }

    /// What opening showed is on disk: neither another crash changes it, at the end of the recovery or in it, nor a second
    /// open.
    fn crash_again(&mut self, found: &Driver, state: &State, options: &Options, seed: u64) -> Check {
        let (rng, disk) = (SimRng::new(seed ^ 0xA6A1), &found.sim.disk);
        let end = found.moment();
        let moment = if rng.chance(50) { end } else { rng.below(end as u64 + 1) as usize };
        let crash = if seed.is_multiple_of(2) { Crash::Kill } else { Crash::PowerCut };
        let image = image_of(disk, moment, crash, seed);
        let told = |why: String| format!("{crash:?} after call {moment} of the recovery: {why}");
        let nested = self.nested(found);
        nested.tally.crashed(nested.depth, crash);
        let (again, after) = nested.open(&image, moment, crash, options, seed).map_err(told)?;
        if moment == end && (after.version != state.version || again.store().recovered.cut_bytes != 0) {
            let (version, recovered) = (after.version, &again.store().recovered);
            return Err(told(format!("it gave version {version} ({recovered:?}), not {}", state.version)));
        }
        compare::heads(again.store(), &again.numbers, &after).map_err(told)?;
        indexed::heads(again.store(), &again.numbers, &after).map_err(told)
    }

    /// The judge of what follows on a crash.
    fn nested<'b>(&'b mut self, found: &'b Driver) -> Judge<'b> {
        let depth = self.depth + 1;
        Judge { driver: found, tally: self.tally, trace: self.trace, depth, read_in_full: BTreeSet::new() }
    }

    /// More operations on what was found, and crashes of those and of the recovery before them.
    fn go_on(&mut self, mut found: Driver, seed: u64) -> Check {
        let rng = SimRng::new(seed ^ 0x60_0D);
        for _ in 0..rng.below(5) {
            found.step().map_err(|why| format!("going on: {why}; it was {:?}", found.story.last()))?;
        }
        let moments = found.moment() as u64 + 1;
        let mut nested = self.nested(&found);
        for draw in 0..4 {
            let crash = if draw == 3 { Crash::Kill } else { Crash::PowerCut };
            nested
                .crash(rng.below(moments) as usize, crash, rng.below(1 << 32))
                .map_err(|why| format!("going on: {why}, after\n{}", tail(&found.story)))?;
        }
        Ok(())
    }
}

fn image_of(disk: &SimDisk, moment: usize, crash: Crash, seed: u64) -> SimDisk {
    match crash {
        Crash::PowerCut => disk.image_at(moment, seed),
        Crash::Kill => disk.killed_at(moment, seed),
    }
}

pub fn numbers(store: &Arc<Store>) -> [u32; crate::model::KEYSPACES.len()] {
    crate::model::KEYSPACES.map(|(space, kind)| store.keyspace(space, kind))
}

fn other(durability: Durability) -> Durability {
    if durability == Durability::Strict { Durability::Buffered } else { Durability::Strict }
}
