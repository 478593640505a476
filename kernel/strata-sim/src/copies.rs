//! Copies: a backup into a directory of its own, again and again, and bundles. Crashed at each of their calls.
//!
//! Of a backup a crash leaves the older one, or the newer, or none where there was no older one; of a bundle all or no file
//! of its name. That the database itself is unharmed is judged as always: what a backup does to its disk is part of
//! the history. A bundle of all history becomes a database again, which shows what the first one showed.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use strata_kernel::Error;
use strata_kernel::env::sim::{Sim, SimDisk};
use strata_kernel::log::StateHash;
use strata_kernel::manifest;
use strata_kernel::retention::Policy;
use strata_kernel::store::{Bundle, Options, Store, import, verify_bundle};

use crate::care::Care;
use crate::compare;
use crate::damage::contents;
use crate::driver::{Check, Driver};
use crate::judge::numbers;
use crate::keepers::{any_of_all_keys, no_file_holds};
use crate::model::State;

const BUNDLE: &str = "bundle";
const COPY: &str = "copy";
/// Images of one copy, where not every call is crashed.
const IMAGES_FEW: usize = 4;

/// The directory that backups go to.
pub struct Backups {
    to: Sim,
    /// What stands there.
    newest: Option<Copied>,
    /// Images that were judged.
    pub images: u64,
}

/// What a copy must show.
#[derive(Clone)]
struct Copied {
    state: Rc<State>,
    care: Care,
    policies: Vec<Policy>,
}

impl Backups {
    pub fn new(seed: u64) -> Backups {
        Backups { to: Sim::new(seed ^ 0xBAC), newest: None, images: 0 }
    }
}

impl Driver {
    /// Make a backup, beside others who read and commit; and crash it.
    pub fn backup(&mut self) -> Check {
        self.tell("backup".to_owned());
        let (was_poisoned, version, to) = (self.poisoned(), self.model.last().version, self.backups.to.clone());
        let (begun, had_none) = (to.disk.journal_len(), self.backups.newest.is_none());
        let made = self.with_others(|store| store.backup(&to.env(), &mut |_, _| Ok(())))?;
        let mut possible: Vec<Copied> = self.backups.newest.clone().into_iter().collect();
        if let Ok(made) = &made {
            if !(version..=self.model.last().version).contains(&made.version) {
                return Err(format!("a backup has version {}, and the database {version}", made.version));
            }
            self.backups.newest = Some(self.copied(made.version)?);
            possible.extend(self.backups.newest.clone());
        }
        let mut read_in_full = BTreeSet::new();
        for moment in self.moments_of(&to.disk, begun) {
            let seed = moment as u64;
            for image in [to.disk.image_at(moment, seed), to.disk.killed_at(moment, seed)] {
                self.backups.images += 1;
                judge_backup(&image, self, &possible, had_none, &mut read_in_full)
                    .map_err(|why| format!("a backup after call {moment}: {why}"))?;
            }
        }
        if made.is_ok() {
            let newest = possible.pop().into_iter().collect::<Vec<_>>();
            let image = to.disk.crash(version);
            judge_backup(&image, self, &newest, false, &mut BTreeSet::new())
                .map_err(|why| format!("a whole backup: {why}"))?;
            no_file_holds(&image, &self.care.gone)?;
        }
        self.looked_after(made.map(drop), was_poisoned)
    }

    /// A backup, and another of fewer runs.
    pub fn backup_twice(&mut self) -> Check {
        self.checkpoint()?;
        self.backup()?;
        self.compact()?;
        self.backup()
    }

    /// Write a bundle, crash it, and make a database of it.
    pub fn export(&mut self) -> Check {
        let has_history = self.below(2) == 0;
        self.tell(format!("export, with all history: {has_history}"));
        let was_poisoned = self.poisoned();
        let outside = Sim::new(self.moment() as u64);
        let made = self.store().export(&outside.env(), BUNDLE, None, has_history, None);
        for moment in self.moments_of(&outside.disk, 0) {
            let image = outside.disk.image_at(moment, moment as u64);
            self.backups.images += 1;
            match (verify_bundle(&Sim::over(image, 1).env(), BUNDLE, None), &made) {
                (Err(Error::NotFound { .. }), _) => {}
                (Ok(found), Ok(made)) if found == *made => {}
                (found, _) => return Err(format!("a bundle after call {moment}: {found:?}, not {made:?}")),
            }
        }
        if let Ok(made) = &made {
            self.judge_bundle(&outside.disk.crash(1), made).map_err(|why| format!("a bundle: {why}"))?;
        }
        match made {
            // A handle that takes no more writes can still be read.
            Ok(_) => Ok(()),
            Err(error) => self.looked_after(Err(error), was_poisoned),
        }
    }

    fn judge_bundle(&self, bundle: &SimDisk, made: &Bundle) -> Check {
        let (bundle, target) = (Sim::over(bundle.clone(), 1), Sim::new(1));
        let found = verify_bundle(&bundle.env(), BUNDLE, None)?;
        if found != *made {
            return Err(format!("it holds {found:?}, not {made:?}"));
        }
        import(&bundle.env(), BUNDLE, &target.env(), COPY, None)?;
        let state = self.state();
        // One without is given an empty one, of a number of its own.
        if !made.has_history || state.by_name("main").is_none() {
            return Ok(());
        }
        let inside = SimDisk::new(1);
        for path in target.disk.paths() {
            let name = path.strip_prefix(COPY).and_then(|path| path.strip_prefix('/'));
            inside.replace(name.ok_or("it wrote elsewhere")?, target.disk.content(&path).unwrap_or_default());
        }
        let options = Options { keys: None, ..self.options.clone() };
        let store = Store::open(Sim::over(inside, 1).env(), &options)?;
        compare::heads(&store, &numbers(&store), &state)?;
        compare::everything(&store, &numbers(&store), &state, &self.care)
    }

    fn copied(&self, version: u64) -> Check<Copied> {
        let state = self.model.at(version).ok_or("a copy has a version that there never was")?.clone();
        Ok(Copied { state, care: self.care.clone(), policies: self.store().policies()? })
    }

    /// Moments of a copy to crash it at.
    fn moments_of(&self, disk: &SimDisk, begun: usize) -> Vec<usize> {
        let all: Vec<usize> = (begun..=disk.journal_len()).collect();
        if self.is_first() { all } else { (0..IMAGES_FEW).map(|_| *self.pick(&all)).collect() }
    }
}

/// An image of the directory of backups is one of those that are possible. Each is opened; one that holds the same files
/// then as one that was read in full is read no further.
fn judge_backup(
    image: &SimDisk,
    driver: &Driver,
    possible: &[Copied],
    may_be_none: bool,
    read_in_full: &mut BTreeSet<StateHash>,
) -> Check {
    if !image.paths().iter().any(|path| path == manifest::PATH) {
        return if may_be_none { Ok(()) } else { Err("there is none any more".to_owned()) };
    }
    let mut options = driver.options.clone();
    any_of_all_keys(&mut options, image)?;
    let store =
        Store::open(Sim::over(image.clone(), 1).env(), &options).map_err(|error| format!("refused: {error}"))?;
    let files = hash_of(image);
    if read_in_full.contains(&files) {
        return Ok(());
    }
    let mut outcome = Err(format!("it has version {}", store.log.last_version()));
    for copied in possible.iter().rev().filter(|copied| copied.state.version == store.log.last_version()) {
        outcome = is_it(&store, copied);
        if outcome.is_ok() {
            read_in_full.insert(files);
            break;
        }
    }
    outcome
}

/// All files but the LOCK, as one hash.
fn hash_of(disk: &SimDisk) -> StateHash {
    let next = |hash, (path, content): &(String, Vec<u8>)| {
        let hash = StateHash::next(hash, 0, path.len() as u64, path.as_bytes());
        StateHash::next(hash, 0, content.len() as u64, content)
    };
    contents(disk).iter().fold(StateHash::default(), next)
}

fn is_it(store: &Arc<Store>, copied: &Copied) -> Check {
    compare::heads(store, &numbers(store), &copied.state)?;
    compare::everything(store, &numbers(store), &copied.state, &copied.care)?;
    let policies = store.policies()?;
    if policies != copied.policies {
        return Err(format!("the policies are {policies:?}, not {:?}", copied.policies));
    }
    store.verify(&mut |_, _| Ok(())).map(drop).map_err(|error| format!("verifying: {error}"))
}
