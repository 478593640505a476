//! What those who look after a database asked for, and what of it must be there after a crash: how much history is kept,
//! the key that all is sealed with, what is forgotten.
//!
//! Each is one file's change, so after a crash it is as it was or as it was asked for; once it was done, the latter.

use strata_kernel::retention::{Keep, Policy};

use crate::driver::Check;
use crate::model::{Branch, Cell, KEYSPACES, Model};

/// Never.
const PENDING: usize = usize::MAX;

#[derive(Debug, Clone)]
struct Wish<T> {
    asked: usize,
    done: usize,
    what: T,
}

/// How one thing was to be, from the beginning on, with the moments at which that was asked for and done.
#[derive(Debug, Clone)]
pub struct Wishes<T>(Vec<Wish<T>>);

impl<T: Clone + PartialEq> Wishes<T> {
    fn new(what: T) -> Wishes<T> {
        Wishes(vec![Wish { asked: 0, done: 0, what }])
    }

    pub fn ask(&mut self, moment: usize, what: T) {
        self.0.push(Wish { asked: moment, done: PENDING, what });
    }

    /// The last wish has come true.
    pub fn done(&mut self, moment: usize) {
        if let Some(wish) = self.0.last_mut() {
            wish.done = moment;
        }
    }

    /// What a crash at `moment` may leave: what was done last, and all that was asked for after it.
    pub fn at(&self, moment: usize) -> Vec<T> {
        let sure = self.0.iter().rposition(|wish| wish.done <= moment).unwrap_or(0);
        let later = self.0[sure + 1..].iter().filter(|wish| wish.asked <= moment);
        std::iter::once(&self.0[sure]).chain(later).map(|wish| wish.what.clone()).collect()
    }

    /// The wishes of a database that was found with `found` after a crash at `moment`, and on disk with it at `opened`.
    fn found(&self, moment: usize, found: &T, opened: usize) -> Wishes<T> {
        let mut left = self.at(moment).into_iter();
        let mut wishes = Wishes::new(left.next().expect("there is always the first"));
        left.for_each(|what| wishes.ask(0, what));
        if wishes.0.len() > 1 {
            wishes.ask(0, found.clone());
            wishes.done(opened);
        }
        wishes
    }
}

#[derive(Debug, Clone)]
pub struct Care {
    pub policies: Wishes<Vec<Policy>>,
    /// The names of the indexes.
    pub indexes: Wishes<Vec<String>>,
    /// The number of the key; `None` where nothing is sealed.
    pub keys: Wishes<Option<u8>>,
    /// Every policy that was ever asked for, and when: any of them may have let go of something.
    ever: Vec<(usize, Policy)>,
    /// No file may hold any of these.
    pub gone: Vec<Vec<u8>>,
    /// What was forgotten, and may have been let go of before, was no newer.
    pub forgotten: u64,
}

impl Care {
    pub fn new() -> Care {
        let (policies, keys) = (Wishes::new(Vec::new()), Wishes::new(None));
        let indexes = Wishes::new(Vec::new());
        Care { policies, indexes, keys, ever: Vec::new(), gone: Vec::new(), forgotten: 0 }
    }

    pub fn ask_policies(&mut self, moment: usize, policies: Vec<Policy>) {
        self.ever.extend(policies.iter().map(|policy| (moment, policy.clone())));
        self.policies.ask(moment, policies);
    }

    /// What is known of a database that was found after a crash at `moment`, and open at `opened`.
    pub fn found(&self, moment: usize, policies: &[Policy], indexes: &Vec<String>, opened: usize) -> Check<Care> {
        if !self.policies.at(moment).iter().any(|possible| possible == policies) {
            return Err(format!("the policies are {policies:?}, they were to be {:?}", self.policies.at(moment)));
        }
        if !self.indexes.at(moment).contains(indexes) {
            return Err(format!("the indexes are {indexes:?}, they were to be {:?}", self.indexes.at(moment)));
        }
        let mut keys = Wishes::new(self.keys.at(moment)[0]);
        // What was sealed before may be until another change of the key is done.
        self.keys.at(moment)[1..].iter().for_each(|key| keys.ask(0, *key));
        let known = self.ever.iter().filter(|(asked, _)| *asked <= moment);
        Ok(Care {
            policies: self.policies.found(moment, &policies.to_vec(), opened),
            indexes: self.indexes.found(moment, indexes, opened),
            keys,
            ever: known.map(|(_, policy)| (0, policy.clone())).collect(),
            gone: self.gone.clone(),
            forgotten: self.forgotten,
        })
    }

    /// Whether anything may have been let go of.
    pub fn trims(&self) -> bool {
        !self.ever.is_empty()
    }

    /// Whether all policies there ever were keep what has so many `newer` versions, the next of them as old as `age`.
    fn keeps(&self, branch: u32, keyspace: usize, newer: usize, age: u64) -> bool {
        let covers = |policy: &&Policy| {
            policy.branch.is_none_or(|own| own == branch)
                && policy.space.as_ref().is_none_or(|own| own == KEYSPACES[keyspace].0)
                && policy.kind.as_ref().is_none_or(|own| own == KEYSPACES[keyspace].1)
        };
        newer == 0
            || self.ever.iter().map(|(_, policy)| policy).filter(covers).all(|policy| keeps(policy.keep, newer, age))
    }

    /// Of a key's history as the branch itself wrote it, newest first: what must be there, and what came after it.
    pub fn split<'a>(
        &self,
        branch: &Branch,
        keyspace: usize,
        history: &'a [(Cell, u64)],
        now: u64,
    ) -> (Vec<&'a Cell>, u64) {
        let forked = branch.parent.map_or(0, |(_, version)| version);
        let own: Vec<_> = history.iter().filter(|(cell, _)| cell.version > forked).collect();
        let (mut kept, mut floor) = (Vec::new(), 0);
        for (newer, (cell, _)) in own.iter().enumerate() {
            let superseder = newer.checked_sub(1).map(|index| own[index]);
            if self.keeps(branch.id, keyspace, newer, superseder.map_or(0, |(_, time)| now.saturating_sub(*time))) {
                kept.push(cell);
            } else {
                floor = floor.max(superseder.map_or(0, |(cell, _)| cell.version));
            }
        }
        (kept, floor)
    }

    /// Whether a look at `version` may be refused, because something that it would show may be gone.
    pub fn may_refuse(&self, branch: &Branch, version: u64, now: u64) -> bool {
        // What the parent lets go of is told by its own history, and what was forgotten by none.
        let is_of_others = version < self.forgotten || branch.parent.is_some_and(|(_, forked)| version < forked);
        let floor_of = |key: &crate::model::Key| self.split(branch, key.0, &branch.history(key, branch.head), now).1;
        let mut keys = branch.newest().into_iter().flat_map(|commit| commit.contents.keys());
        self.trims() && version < branch.head && (is_of_others || keys.any(|key| version < floor_of(key)))
    }
}

fn keeps(keep: Keep, newer: usize, age: u64) -> bool {
    let by_count = keep.last.map(|last| (newer as u64) < last);
    let by_time = keep.for_us.map(|us| age < us);
    match (by_count, by_time) {
        (None, None) => true,
        (Some(kept), None) | (None, Some(kept)) => kept,
        (Some(a), Some(b)) => (a && b) || (!keep.needs_both && (a || b)),
    }
}

/// Something was taken out of all versions.
#[derive(Clone)]
pub struct Era {
    pub asked: usize,
    pub done: usize,
    /// As everything was until then.
    pub before: Model,
    /// Bytes that nothing else holds.
    pub secrets: Vec<Vec<u8>>,
}

/// What a crash at `moment` may leave: the model, and what no file may hold then. The later model comes last.
pub fn at(eras: &[Era], now: &Model, moment: usize) -> Vec<(Model, Vec<Vec<u8>>)> {
    let sure = eras.iter().take_while(|era| era.done <= moment).count();
    let after = |number: usize| {
        let model = eras.get(number).map_or(now, |era| &era.before);
        (model.clone(), eras[..number].iter().flat_map(|era| era.secrets.clone()).collect())
    };
    let is_open = eras.get(sure).is_some_and(|era| era.asked <= moment);
    (sure..=sure + usize::from(is_open)).map(after).collect()
}
