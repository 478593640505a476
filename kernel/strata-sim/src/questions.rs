//! What is asked of a database after damage: each question by itself, with its right answer and what it reads for it.
//!
//! A store is a function of the bytes that it reads. One that read no damaged byte while it was opened answers a
//! question that reads none as it always did, so that question need not be asked again. What is read is noted from a
//! store that has nothing in its cache.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use strata_kernel::Error;
use strata_kernel::branch::{Range as Keys, RowBuffer};
use strata_kernel::env::sim::{Call, Sim, SimDisk};
use strata_kernel::log::StateHash;
use strata_kernel::store::{Options, Store};

use crate::driver::Check;
use crate::judge::numbers;
use crate::model::{KEYSPACES, Key, State};

/// Where all is to be asked, histories are asked in so many parts: they are what takes long.
const PARTS: usize = 8;
/// The size of a file is read like a byte behind its end: whatever cuts the file changes it.
const SIZE: Range<u64> = u64::MAX - 1..u64::MAX;

/// Bytes of the files, by the number of the file.
type Reads = Vec<(usize, Range<u64>)>;

pub struct Questions {
    opening: Reads,
    all: Vec<Question>,
}

pub struct Question {
    pub what: What,
    pub answer: StateHash,
    reads: Reads,
}

#[derive(Debug)]
pub enum What {
    Branches,
    /// Of a branch, in a keyspace.
    Rows(String, usize),
    Commits(String),
    History(String, Key),
}

impl Questions {
    /// All that can be asked of the database on `disk`, which `state` is the last of.
    pub fn new(state: &State, disk: &SimDisk, files: &[(String, Vec<u8>)], options: &Options) -> Check<Questions> {
        let (mut opening, mut all) = (Reads::new(), Vec::new());
        for what in everything(state) {
            let (answer, reads);
            (answer, opening, reads) = noted(&what, disk, files, options)?;
            all.push(Question { what, answer, reads });
        }
        // What lies in the cache changes no answer.
        let store = Store::open(Sim::over(disk.copy(), 1).env(), options)?;
        for question in &all {
            if question.ask(&store)? != question.answer {
                return Err(format!("{:?} has two answers", question.what));
            }
        }
        Ok(Questions { opening, all })
    }

    /// What may be answered otherwise when these bytes of a file are; all of it, with one part of the histories, where
    /// they are read while opening. Each part begins with another question.
    pub fn reached(&self, file: usize, bytes: &Range<u64>, part: usize) -> Vec<&Question> {
        let is_open_to_it = touches(&self.opening, file, bytes);
        let mut histories = 0;
        let is_reached = |question: &&Question| {
            let is_history = matches!(question.what, What::History(..));
            histories += usize::from(is_history);
            let has_turn = !is_history || histories % PARTS == part % PARTS;
            (is_open_to_it && has_turn) || touches(&question.reads, file, bytes)
        };
        let mut reached: Vec<&Question> = self.all.iter().filter(is_reached).collect();
        let first = part % PARTS * reached.len() / PARTS;
        reached.rotate_left(first);
        reached
    }
}

impl Question {
    pub fn ask(&self, store: &Arc<Store>) -> Result<StateHash, Error> {
        self.what.ask(store)
    }
}

impl What {
    fn ask(&self, store: &Arc<Store>) -> Result<StateHash, Error> {
        let mut bytes = Vec::new();
        match self {
            What::Branches => bytes.extend_from_slice(format!("{:?}", store.branches()?).as_bytes()),
            What::Rows(branch, keyspace) => {
                let branch = store.branch(branch)?;
                let mut rows = RowBuffer::default();
                let number = numbers(store)[*keyspace];
                branch.scan(number, &Keys::default(), false, branch.head(), &mut rows, usize::MAX)?;
                for (key, value) in rows.rows() {
                    bytes.extend_from_slice(key);
                    bytes.extend_from_slice(value);
                }
            }
            What::Commits(branch) => {
                for row in store.branch(branch)?.commits(0, u64::MAX, false, usize::MAX)? {
                    let what = format!("{} {} {} {:?}", row.version, row.time, row.branch, row.meta);
                    bytes.extend_from_slice(what.as_bytes());
                }
            }
            What::History(branch, (keyspace, key)) => {
                let branch = store.branch(branch)?;
                for row in branch.history(numbers(store)[*keyspace], key, branch.head(), u64::MAX, usize::MAX)? {
                    bytes.extend_from_slice(&row.version.to_le_bytes());
                    bytes.extend_from_slice(&row.time.to_le_bytes());
                    bytes.extend_from_slice(row.value.as_deref().unwrap_or(b"none"));
                }
            }
        }
        Ok(StateHash::next(StateHash::default(), 0, 0, &bytes))
    }
}

/// The branches; of each its rows, its commits, and the history of each key that it ever had.
fn everything(state: &State) -> Vec<What> {
    let mut all = vec![What::Branches];
    for branch in state.branches.values() {
        let name = || branch.name.clone();
        all.extend((0..KEYSPACES.len()).map(|keyspace| What::Rows(name(), keyspace)));
        all.push(What::Commits(name()));
        let keys = branch.newest().into_iter().flat_map(|commit| commit.contents.keys());
        all.extend(keys.map(|key| What::History(name(), key.clone())));
    }
    all
}

/// The answer of a store that was just opened, what was read to open it, and what to answer.
fn noted(
    what: &What,
    disk: &SimDisk,
    files: &[(String, Vec<u8>)],
    options: &Options,
) -> Check<(StateHash, Reads, Reads)> {
    let disk = disk.copy();
    let reads: Arc<Mutex<Reads>> = Arc::default();
    let (notes, paths) = (reads.clone(), files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>());
    disk.hook(Some(Arc::new(move |call: &Call<'_>| {
        let bytes = match call.operation {
            "read" => call.bytes.clone(),
            "read the size of" => SIZE,
            _ => return,
        };
        if let Some(file) = paths.iter().position(|path| path == call.path) {
            notes.lock().push((file, bytes));
        }
    })));
    let store = Store::open(Sim::over(disk.clone(), 1).env(), options)?;
    let opening = std::mem::take(&mut *reads.lock());
    let answer = what.ask(&store)?;
    let reads = std::mem::take(&mut *reads.lock());
    Ok((answer, opening, reads))
}

fn touches(reads: &Reads, file: usize, bytes: &Range<u64>) -> bool {
    reads.iter().any(|(read, range)| *read == file && range.start < bytes.end && bytes.start < range.end)
}
