//! What those do who look after a database: say how much history to keep, change its key, and have something forgotten.
//!
//! None changes what a reader of the newest versions sees, but for what is forgotten. A policy lets older ones go: from then
//! on a read of the past gives what it always gave, or is refused. What was forgotten was never there, for any reader and in
//! any file.

use std::sync::Arc;

use strata_kernel::Error;
use strata_kernel::env::sim::SimDisk;
use strata_kernel::manifest::Manifest;
use strata_kernel::retention::{Keep, Policy};
use strata_kernel::seal::{GivenKeys, Key};
use strata_kernel::store::{Erasure, Options};

use crate::care::Era;
use crate::doc::Doc;
use crate::driver::{Check, Driver};
use crate::model::{KEYSPACES, Request, Write};

/// All keys that there ever are.
const KEYS: usize = 3;

/// As long as any clock steps, and shorter.
const KEPT_US: [usize; 3] = [5_000, 1_000_000, 100_000_000];

/// Longer than any policy keeps.
const AHEAD_US: u64 = 200_000_000;

fn key(number: u8) -> Key {
    let bytes: Vec<u8> = (0..32).map(|byte| byte ^ (number << 5)).collect();
    Key::new(&bytes).expect("32 bytes that are not alike")
}

/// Hand in the key that the database on `disk` is sealed with, and of `possible` those that it may still need.
pub fn hand_in_keys(options: &mut Options, disk: &SimDisk, possible: &[Option<u8>]) -> Check {
    let numbers = possible.iter().flatten().copied();
    // Where there is no database, or none that can be read, opening tells. A fault that comes once may come here.
    let sealed = Manifest::key(disk).or_else(|_| Manifest::key(disk)).ok().flatten();
    let is_current = |number: &u8| sealed.is_some_and(|sealed| key(*number).id() == sealed);
    let (current, older): (Vec<u8>, Vec<u8>) = numbers.partition(is_current);
    if current.is_empty() && !possible.contains(&None) && sealed.is_some() {
        return Err(format!("it is sealed with {sealed:?}, not with one of {possible:?}"));
    }
    let older = older.into_iter().map(key).collect();
    options.keys = current.first().map(|current| GivenKeys { current: key(*current), older });
    Ok(())
}

/// Hand in whatever keys there are.
pub fn any_of_all_keys(options: &mut Options, disk: &SimDisk) -> Check {
    let possible: Vec<Option<u8>> = std::iter::once(None).chain((0..KEYS as u8).map(Some)).collect();
    hand_in_keys(options, disk, &possible)
}

/// Whether any file holds any of `secrets`.
pub fn no_file_holds(disk: &SimDisk, secrets: &[Vec<u8>]) -> Check {
    for path in disk.paths() {
        let content: Arc<[u8]> = disk.content(&path).unwrap_or_default().into();
        let holds = |secret: &&Vec<u8>| content.windows(secret.len()).any(|bytes| bytes == &secret[..]);
        if let Some(secret) = secrets.iter().find(holds) {
            return Err(format!("{path} holds '{}', which was forgotten", secret.escape_ascii()));
        }
    }
    Ok(())
}

impl Driver {
    /// Seal everything with another key.
    pub fn rotate_key(&mut self) -> Check {
        let number = self.below(KEYS) as u8;
        self.tell(format!("rotate to key {number}"));
        let was_poisoned = self.poisoned();
        self.care.keys.ask(self.moment(), Some(number));
        let outcome = self.with_others(|store| store.rotate_key(key(number), &mut |_, _| Ok(())))?;
        if outcome.is_ok() {
            self.care.keys.done(self.moment());
        }
        self.looked_after(outcome.map(drop), was_poisoned)
    }

    /// Let older versions go, with the next compaction; or from now on none.
    pub fn set_policy(&mut self) -> Check {
        let was_poisoned = self.poisoned();
        let policy = self.any_policy();
        let clears = self.below(4) == 0;
        self.tell(format!("{} {policy:?}", if clears { "clear" } else { "keep" }));
        let mut after = self.store().policies().map_err(|error| error.to_string())?;
        after.retain(|other| !other.is_for_the_same(&policy));
        if !clears {
            after.push(policy.clone());
        }
        self.care.ask_policies(self.moment(), after);
        let outcome = self.with_others(|store| match clears {
            true => store.clear_policy(&policy).map(drop),
            false => store.set_policy(policy),
        })?;
        if outcome.is_ok() {
            self.care.policies.done(self.moment());
        }
        self.looked_after(outcome, was_poisoned)?;
        // Only a merge makes a policy felt.
        if self.below(2) == 0 { self.compact_at_a_wrong_time() } else { Ok(()) }
    }

    /// The wall clock is ahead meanwhile, which moves nothing: what counts is the time of commits.
    fn compact_at_a_wrong_time(&mut self) -> Check {
        let wall = self.wall();
        self.sim.clock.set_wall(wall + AHEAD_US);
        self.compact()?;
        self.sim.clock.set_wall(wall);
        Ok(())
    }

    fn any_policy(&self) -> Policy {
        let last = Some(1 + self.below(3) as u64);
        let for_us = Some(1 + self.below(KEPT_US[self.below(KEPT_US.len())]) as u64);
        let keep = match self.below(4) {
            0 => Keep { last, ..Keep::default() },
            1 => Keep { for_us, ..Keep::default() },
            other => Keep { last, for_us, needs_both: other == 2 },
        };
        let space = (self.below(2) == 0).then(|| self.pick(&KEYSPACES).0.to_owned());
        let branch = (self.below(4) == 0).then(|| self.below(self.state().next_id as usize) as u32);
        Policy { branch, space, keep, ..Policy::default() }
    }

    pub fn looked_after(&mut self, outcome: Result<(), Error>, was_poisoned: bool) -> Check {
        match outcome {
            Ok(()) if !was_poisoned => {
                self.refresh();
                Ok(())
            }
            Err(Error::Storage { .. }) if self.faults => Ok(()),
            Err(Error::Corrupt { .. }) if self.short_reads => Ok(()),
            other => Err(format!("looking after it gave {other:?}")),
        }
    }

    /// Put a secret somewhere, mostly, and have its key forgotten.
    pub fn forget(&mut self) -> Check {
        // What a failing disk makes of it is tried in the kernel's own tests.
        if self.faults {
            return Ok(());
        }
        let key = self.any_key();
        for _ in 0..self.below(3) {
            let secret: String = (0..16).map(|_| char::from(b'a' + self.below(26) as u8)).collect();
            self.secrets.push((key.clone(), secret.clone().into_bytes()));
            let request = Request::Put(Doc::Text(secret));
            self.write_to(self.any_branch(), vec![Write { key: key.clone(), request }])?;
            if self.below(2) == 0 {
                self.checkpoint()?;
            }
        }
        self.tell(format!("forget {}/{}", key.0, key.1.escape_ascii()));
        // They may have read it.
        self.open.drain(..).for_each(|(mut real, _)| real.roll_back());
        let (space, kind) = KEYSPACES[key.0];
        let space = Some(space.to_owned());
        let erasure = Erasure { space, kind: kind.to_owned(), key: key.1.clone(), ..Erasure::default() };
        let asked = self.moment();
        self.store().forget(vec![erasure]).map_err(|error| format!("forgetting gave {error}"))?;
        self.forgotten(&key, asked)
    }

    fn forgotten(&mut self, key: &crate::model::Key, asked: usize) -> Check {
        let done = self.moment();
        let (of_key, others) = self.secrets.drain(..).partition(|(other, _)| other == key);
        self.secrets = others;
        let of_key: Vec<(crate::model::Key, Vec<u8>)> = of_key;
        let secrets: Vec<Vec<u8>> = of_key.into_iter().map(|(_, secret)| secret).collect();
        no_file_holds(&self.sim.disk, &secrets)?;
        self.care.forgotten = self.model.last().version;
        let after = self.model.without(key);
        let before = std::mem::replace(&mut self.model, after);
        self.eras.push(Era { asked, done, before, secrets });
        self.busy.push(asked..done);
        self.refresh();
        Ok(())
    }
}
