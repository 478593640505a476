//! One database under test: every operation is done on the store and on the model, and must come out alike.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use strata_kernel::Error;
use strata_kernel::branch::Branch as StoreBranch;
use strata_kernel::env::sim::{Sim, SimRng};
use strata_kernel::env::{Clock, Rng};
use strata_kernel::store::{Options, Store};
use strata_kernel::transaction::Transaction;

use crate::between::{self, Plan};
use crate::care::{Care, Era};
use crate::copies::Backups;
use crate::draft::Draft;
use crate::keepers::hand_in_keys;
use crate::model::{KEYSPACES, Key, Model, Refusal, State};
use crate::notes::{Acknowledged, Notes};
use crate::trace::Trace;

/// A promise that was broken, in words.
pub type Check<T = ()> = Result<T, String>;

/// With fewer changes of the disk no run was made.
const CALLS_OF_A_COMMIT: usize = 4;

/// What the model says must happen: a new state, no commit and this version, or a refusal.
pub type Predicted = Result<Result<State, u64>, Refusal>;

pub struct Driver {
    pub sim: Sim,
    pub options: Options,
    pub model: Model,
    pub notes: Notes,
    pub care: Care,
    /// What was forgotten, and when.
    pub eras: Vec<Era>,
    /// Values that are nowhere else, and their keys.
    pub secrets: Vec<(Key, Vec<u8>)>,
    pub store: Option<Arc<Store>>,
    pub numbers: [u32; KEYSPACES.len()],
    /// The newest version that readers may see. Behind the model's last only when an outcome is unknown.
    pub published: u64,
    /// Calls of the disk may fail.
    pub faults: bool,
    /// Reads may give less than there is.
    pub short_reads: bool,
    pub rng: SimRng,
    pub trace: Trace,
    pub open: Vec<(Transaction, Draft)>,
    pub tally: Transactions,
    /// The last operations, for a report.
    pub story: Vec<String>,
    pub handles: BTreeMap<u32, Arc<StoreBranch>>,
    watch: Arc<Mutex<Watch>>,
    /// Others are at work during checkpoints; see `between`.
    has_others: bool,
    /// Little memory, and much that is done with files; see `workload`.
    pub pressed: bool,
    /// Indexes come and go; see `indexed`.
    pub indexed: bool,
    /// The moments in which files were made and removed.
    pub busy: Vec<Range<usize>>,
    pub backups: Backups,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Transactions {
    pub commits: u64,
    pub conflicts: u64,
}

/// Heads as a second thread would see them in the middle of a commit.
#[derive(Default)]
struct Watch {
    heads: Vec<(Arc<StoreBranch>, u64)>,
    wrong: Option<String>,
}

impl Driver {
    /// A new database on a new disk.
    pub fn new(sim: Sim, options: Options, seed: u64) -> Driver {
        let model = Model::new(sim.clock.wall_us());
        let notes = Notes::new();
        Driver::over(sim, options, model, notes, seed)
    }

    fn over(sim: Sim, options: Options, model: Model, notes: Notes, seed: u64) -> Driver {
        Driver {
            published: model.last().version,
            sim,
            options,
            model,
            notes,
            care: Care::new(),
            eras: Vec::new(),
            secrets: Vec::new(),
            store: None,
            numbers: [0; KEYSPACES.len()],
            faults: false,
            short_reads: false,
            rng: SimRng::new(seed ^ 0xD21E),
            trace: Trace::default(),
            open: Vec::new(),
            tally: Transactions::default(),
            story: Vec::new(),
            handles: BTreeMap::new(),
            watch: Arc::default(),
            has_others: false,
            pressed: false,
            indexed: false,
            busy: Vec::new(),
            backups: Backups::new(seed),
        }
    }

    /// A store that was found open at a version of `model` after a crash: the history goes on from there.
    pub fn found(sim: Sim, store: Arc<Store>, options: Options, model: Model, notes: Notes, seed: u64) -> Driver {
        let mut driver = Driver::over(sim, options, model, notes, seed);
        driver.take(store);
        driver
    }

    /// Open the database; an error is the disk's, or a violation that the caller tells from it.
    pub fn start(&mut self) -> Result<(), Error> {
        let possible = self.care.keys.at(self.moment());
        hand_in_keys(&mut self.options, &self.sim.disk, &possible).map_err(Error::InvalidInput)?;
        let store = Store::open(self.sim.env(), &self.options)?;
        if self.notes.created == usize::MAX {
            self.notes.created = self.moment();
        }
        self.take(store);
        Ok(())
    }

    fn take(&mut self, store: Arc<Store>) {
        // Numbers are handed out anew in each process, in any order, where nothing was written with them.
        let first = self.rng.below(KEYSPACES.len() as u64) as usize;
        for step in 0..KEYSPACES.len() {
            let index = (first + step) % KEYSPACES.len();
            self.numbers[index] = store.keyspace(KEYSPACES[index].0, KEYSPACES[index].1);
        }
        self.store = Some(store);
        self.refresh();
    }

    pub fn store(&self) -> &Arc<Store> {
        self.store.as_ref().expect("the store is open")
    }

    pub fn moment(&self) -> usize {
        self.sim.disk.journal_len()
    }

    /// What readers must see now.
    pub fn state(&self) -> std::rc::Rc<State> {
        self.model.at(self.published).expect("it was published").clone()
    }

    pub fn wall(&self) -> u64 {
        self.sim.clock.wall_us()
    }

    pub fn poisoned(&self) -> bool {
        self.faults && self.store.as_ref().is_some_and(|store| store.log.poisoned().is_some())
    }

    pub fn tell(&mut self, what: String) {
        self.trace.text(&what);
        self.story.push(what);
    }

    /// Hold what the store did against what the model says, and note the promise if it gave one.
    ///
    /// `moment` and `was_poisoned` are from before the call.
    pub fn settle(&mut self, predicted: Predicted, got: Result<u64, Error>, before: Before) -> Check {
        let now = Acknowledged { moment: self.moment(), time_us: self.sim.clock.monotonic_us() };
        self.settle_at(predicted, got, before, now)
    }

    fn settle_at(&mut self, predicted: Predicted, got: Result<u64, Error>, before: Before, now: Acknowledged) -> Check {
        self.check_watch()?;
        let Before { moment, was_poisoned } = before;
        match (predicted, got) {
            (Ok(Err(version)), Ok(found)) if version == found => {}
            (Ok(Ok(state)), Ok(version)) if version == state.version && !was_poisoned => {
                self.push(state, moment);
                self.published = version;
                self.notes.acknowledge(version, now);
            }
            (_, Err(Error::Storage { .. } | Error::Corrupt { .. })) if self.faults => {}
            (Ok(Ok(state)), Err(Error::OutcomeUnknown { transaction, .. })) if self.faults && !was_poisoned => {
                if transaction != format!("{}-{}", state.version, state.time) {
                    return Err(format!("the unknown transaction is called {transaction}, it is {}", state.version));
                }
                if !self.poisoned() {
                    return Err("an outcome is unknown, and the store goes on".to_owned());
                }
                self.push(state, moment);
            }
            (Err(refusal), Err(error)) if is_refusal(refusal, &error) => {}
            // What was applied and never published may stand in the way of what is refused anyway.
            (_, Err(Error::Conflict(_) | Error::InvalidInput(_))) if was_poisoned => {}
            (predicted, got) => return Err(format!("the store gave {got:?}, the model {}", outline(&predicted))),
        }
        self.trace.number(self.published);
        self.trace.number(self.moment() as u64);
        self.refresh();
        Ok(())
    }

    fn push(&mut self, state: State, moment: usize) {
        self.notes.issue(state.version, moment);
        self.model.push(state);
    }

    pub fn before(&self) -> Before {
        Before { moment: self.moment(), was_poisoned: self.poisoned() }
    }

    /// Note what is durable now, and look the branches up again.
    pub fn refresh(&mut self) {
        let Some(store) = &self.store else { return };
        self.notes.durable(self.sim.disk.journal_len(), store.log.durable_version());
        let state = self.model.at(self.published).expect("it was published");
        let found = |name: &str| store.branch(name).ok();
        self.handles = state.branches.values().filter_map(|branch| Some((branch.id, found(&branch.name)?))).collect();
        let heads = |(id, handle): (&u32, &Arc<StoreBranch>)| Some((handle.clone(), state.branches.get(id)?.head));
        self.watch.lock().heads = self.handles.iter().filter_map(heads).collect();
    }

    /// Look at all heads before each call of the disk: nobody may see what is not yet as safe as promised.
    pub fn watch(&mut self) {
        self.has_others = true;
        let shared = self.watch.clone();
        self.sim.disk.hook(Some(Arc::new(move |call| {
            if between::act(call) {
                // They were told their commit is there, so everybody may see it.
                shared.lock().heads.iter_mut().for_each(|(branch, head)| *head = branch.head());
                between::look_again();
            }
            let mut watch = shared.lock();
            let early = watch.heads.iter().find(|(branch, head)| branch.head() != *head).map(|(branch, head)| {
                format!("before '{}' of {} a head was {}, not {head}", call.operation, call.path, branch.head())
            });
            if watch.wrong.is_none() {
                watch.wrong = early;
            }
        })));
    }

    /// Whether this is a history of its own, and not what follows on a crash or a fault.
    pub fn is_first(&self) -> bool {
        self.has_others && !self.faults
    }

    /// Let others read and commit while `work` is at the files.
    pub fn with_others<T>(&mut self, work: impl FnOnce(&Store) -> T) -> Check<T> {
        let begin = self.moment();
        if self.has_others && self.below(3) > 0 {
            self.plan();
        }
        let outcome = work(self.store());
        if self.moment() - begin > CALLS_OF_A_COMMIT {
            self.busy.push(begin..self.moment());
        }
        let Some(Plan { writes, branch, done: Some(done), .. }) = between::take() else { return Ok(outcome) };
        self.tell(format!("  meanwhile others wrote {:?} to {branch}", done.got));
        self.excuse(done.seen).map_err(|why| format!("meanwhile: {why}"))?;
        if let Some(got) = done.got {
            let state = self.state();
            let predicted = match state.by_name(&branch) {
                Some(branch) => state.commit(branch.id, &writes, None, done.wall).map(Ok),
                None => Err(Refusal::NotFound),
            };
            self.settle_at(predicted, got, done.before, done.acknowledged)?;
        }
        Ok(outcome)
    }

    fn plan(&self) {
        between::plan(Plan {
            calls: [1, 1 + self.below(8)][self.below(2)],
            sim: self.sim.clone(),
            store: self.store().clone(),
            state: self.state(),
            numbers: self.numbers,
            branch: self.any_branch().to_owned(),
            writes: self.any_writes(3),
            faults: self.faults,
            done: None,
        });
    }

    pub fn check_watch(&self) -> Check {
        self.watch.lock().wrong.take().map_or(Ok(()), Err)
    }

    /// Nobody holds the store any more: its directory is free.
    pub fn let_go(&mut self) -> Option<Arc<Store>> {
        self.open.clear();
        self.handles.clear();
        self.watch.lock().heads.clear();
        self.store.take()
    }

    pub fn below(&self, bound: usize) -> usize {
        (self.rng.next_u64() % bound as u64) as usize
    }

    pub fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// How things stood when an operation began.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    pub moment: usize,
    pub was_poisoned: bool,
}

fn is_refusal(refusal: Refusal, error: &Error) -> bool {
    matches!(
        (refusal, error),
        (Refusal::Invalid, Error::InvalidInput(_))
            | (Refusal::NotFound, Error::NotFound { .. })
            | (Refusal::Exists, Error::AlreadyExists { .. })
            | (Refusal::Conflict, Error::Conflict(_))
    )
}

fn outline(predicted: &Predicted) -> String {
    match predicted {
        Ok(Ok(state)) => format!("commits version {}", state.version),
        Ok(Err(version)) => format!("returns version {version} and commits nothing"),
        Err(refusal) => format!("refuses: {refusal:?}"),
    }
}
