//! F8 in full: every bit of every file of a database of 64 KiB turned round, and every file cut at every byte.
//!
//! On a database that was closed cleanly and on one whose process was killed, plain and encrypted. Whatever is read then is right,
//! or a typed error that names a file and a place in it; a refusal changes nothing. What may pass without a word is
//! known from the layout: padding, and in the newest segment of an unclean end what no later record proves to have been
//! synced, which looks like a torn tail and is counted as ambiguous.
//!
//! A fault costs one opening, and many openings end at the damage. What was opened is asked all that reads a damaged byte
//! (see `questions`) and must answer what the undamaged files gave, which was held against the model before, or name the
//! damage; if all is right, `verify` has the last word.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use strata_kernel::Error;
use strata_kernel::env::sim::{Sim, SimDisk};
use strata_kernel::store::{Options, Store, Verified};

use crate::care::Care;
use crate::compare;
use crate::damage::{HEADER, contents, is_scratch, is_segment, is_witnessed, records};
use crate::driver::{Check, Driver};
use crate::judge::numbers;
use crate::keepers::any_of_all_keys;
use crate::questions::Questions;
use crate::rows;

/// Of all files together.
const DATABASE_BYTES: usize = 64 << 10;
/// Faults that a worker takes at a time.
const CHUNK: usize = 512;
/// A history that has not come so far by then never will.
const STEPS_MAX: usize = 2_000;

#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub runs: u64,
    /// A typed error, at opening or at reading.
    pub told: u64,
    /// All of it was read, and it was right.
    pub harmless: u64,
    /// It looked like the torn tail of a crash.
    pub ambiguous: u64,
    /// Of those told: the error named another file than the one that was damaged.
    pub elsewhere: u64,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.runs += other.runs;
        self.told += other.told;
        self.harmless += other.harmless;
        self.ambiguous += other.ambiguous;
        self.elsewhere += other.elsewhere;
    }
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Flip(u64),
    Cut(usize),
}

impl Fault {
    /// The bytes that are not what they were, or not there.
    fn bytes(self) -> Range<u64> {
        match self {
            Fault::Flip(bit) => bit / 8..bit / 8 + 1,
            Fault::Cut(length) => length as u64..u64::MAX,
        }
    }

    /// Where all is to be asked, which part of it: the bits of a byte have all of it between them.
    fn part(self) -> usize {
        match self {
            Fault::Flip(bit) => bit as usize,
            Fault::Cut(length) => length,
        }
    }
}

/// What befell the database before.
#[derive(Debug, Clone, Copy)]
struct Kind {
    clean: bool,
    sealed: bool,
}

/// A database on a disk at rest, with all that is known of it.
struct Subject {
    driver: Driver,
    options: Options,
    disk: SimDisk,
    files: Vec<(String, Vec<u8>)>,
    /// Where the records of the log lie in each file.
    records: Vec<Vec<Range<usize>>>,
    clean: bool,
    newest: u64,
    questions: Questions,
}

/// What was found of a damaged database.
enum Found {
    Told(String),
    Version(u64),
}

impl Subject {
    fn new(seed: u64, Kind { clean, sealed }: Kind) -> Check<Subject> {
        let mut driver = rows::history(seed, 40)?;
        if sealed {
            driver.rotate_key()?;
        }
        let size = |driver: &Driver| contents(&driver.sim.disk).iter().map(|(_, content)| content.len()).sum::<usize>();
        let mut steps = 0;
        while size(&driver) < DATABASE_BYTES {
            driver.grow()?;
            steps += 1;
            if steps > STEPS_MAX {
                return Err(format!("{} bytes after {steps} steps", size(&driver)));
            }
        }
        if clean {
            let store = driver.let_go().ok_or("the store is open")?;
            store.close()?;
        }
        let disk = driver.sim.disk.copy();
        let files = contents(&disk);
        let records = files.iter().map(|(path, content)| if is_segment(path) { records(content) } else { Vec::new() });
        let records = records.collect();
        let newest = driver.model.last().version;
        // Written with hardly any memory, and read with enough: a block is looked at once.
        let memory_budget = Options::default().memory_budget;
        let mut options = Options { memory_budget, ..driver.options.clone() };
        any_of_all_keys(&mut options, &disk)?;
        let questions = Questions::new(driver.model.last(), &disk, &files, &options)?;
        let subject = Subject { driver, options, disk, files, records, clean, newest, questions };
        subject.undamaged()?;
        Ok(subject)
    }

    /// Hold the undamaged files against the model.
    fn undamaged(&self) -> Check {
        let store = Store::open(Sim::over(self.disk.copy(), 1).env(), &self.options)?;
        let state = self.driver.model.at(self.newest).ok_or("the model has no last state")?;
        compare::heads(&store, &numbers(&store), state)?;
        compare::everything(&store, &numbers(&store), state, &Care::new())
    }

    /// Every fault: file by file, all flips and then all cuts.
    fn faults(&self) -> Vec<(usize, Fault)> {
        let of = |(file, (_, content)): (usize, &(String, Vec<u8>))| {
            let flips = (0..content.len() as u64 * 8).map(Fault::Flip);
            flips.chain((0..content.len()).map(Fault::Cut)).map(move |fault| (file, fault)).collect::<Vec<_>>()
        };
        self.files.iter().enumerate().flat_map(of).collect()
    }

    fn examine(&self, file: usize, fault: Fault, counts: &mut Counts) -> Check {
        let (path, content) = &self.files[file];
        let mut damaged = content.clone();
        match fault {
            Fault::Flip(bit) => damaged[(bit / 8) as usize] ^= 1 << (bit % 8),
            Fault::Cut(length) => damaged.truncate(length),
        }
        let disk = self.disk.copy();
        disk.replace(path, damaged);
        counts.runs += 1;
        match self.look(&disk, file, fault)? {
            Found::Told(named) => {
                counts.told += 1;
                counts.elsewhere += u64::from(named != *path);
            }
            Found::Version(version) if !self.may_be_silent(file, fault) => {
                let (size, newest) = (content.len(), self.newest);
                return Err(format!("unseen in {size} bytes, version {version} of {newest} was shown"));
            }
            Found::Version(version) if version == self.newest => counts.harmless += 1,
            Found::Version(version) if self.clean => return Err(format!("version {version} was shown")),
            Found::Version(_) => counts.ambiguous += 1,
        }
        Ok(())
    }

    /// Open and read: what is shown must be true, and a refusal typed, and without effect.
    fn look(&self, disk: &SimDisk, file: usize, fault: Fault) -> Check<Found> {
        match Store::open(Sim::over(disk.clone(), 1).env(), &self.options) {
            Ok(store) => {
                let version = store.log.last_version();
                if version < self.newest {
                    let state = self.driver.model.at(version).ok_or_else(|| format!("{version} was made up"))?;
                    return compare::heads(&store, &numbers(&store), state).map(|()| Found::Version(version));
                }
                if let Some(told) = self.ask(&store, file, fault)? {
                    return Ok(told);
                }
                // What no reader asks for, such as a filter that errs on the safe side, is for `verify` to tell.
                match store.verify(&mut |_, _| Ok(())).and_then(Verified::whole) {
                    Ok(_) => Ok(Found::Version(version)),
                    Err(error) => self.told(error),
                }
            }
            Err(error) => {
                let same = contents(disk).iter().zip(&self.files).filter(|(now, before)| now != before).count() <= 1;
                if same { self.told(error) } else { Err("a refused database was changed".to_owned()) }
            }
        }
    }

    /// Every question that the fault can reach, until one tells of it: each answer before is right.
    fn ask(&self, store: &Arc<Store>, file: usize, fault: Fault) -> Check<Option<Found>> {
        for question in self.questions.reached(file, &fault.bytes(), fault.part()) {
            match question.ask(store) {
                Ok(answer) if answer == question.answer => {}
                Ok(_) => return Err(format!("{:?} has another answer", question.what)),
                Err(error) => return self.told(error).map(Some),
            }
        }
        Ok(None)
    }

    fn told(&self, error: Error) -> Check<Found> {
        match error {
            Error::Corrupt { file, offset, .. } => {
                let size = self.files.iter().find(|(path, _)| *path == file).map(|(_, content)| content.len());
                let named = size.is_some_and(|size| offset <= size as u64);
                if named { Ok(Found::Told(file)) } else { Err(format!("the error names {file} at {offset}")) }
            }
            Error::TooNew { file, .. } => Ok(Found::Told(file)),
            other => Err(format!("it gave {other:?}")),
        }
    }

    /// Whether the layout lets this fault pass without a word.
    fn may_be_silent(&self, file: usize, fault: Fault) -> bool {
        let ((path, content), records) = (&self.files[file], &self.records[file]);
        if !is_segment(path) {
            return is_scratch(path);
        }
        let newest = self.files.iter().rposition(|(path, _)| is_segment(path)) == Some(file);
        let may_look_torn = newest && !self.clean;
        match fault {
            Fault::Flip(bit) => {
                let byte = (bit / 8) as usize;
                match records.iter().position(|record| record.contains(&byte)) {
                    None => byte >= HEADER,
                    Some(hit) => may_look_torn && !is_witnessed(content, records, hit),
                }
            }
            Fault::Cut(length) => may_look_torn || records.last().map_or(HEADER, |last| last.end) <= length,
        }
    }
}

/// All faults of the four databases of `seed`, or every `stride`-th of them; `tell` is told of each database.
pub fn run(seed: u64, stride: usize, workers: usize, tell: impl Fn(String)) -> Result<Counts, String> {
    let mut counts = Counts::default();
    for (clean, sealed) in [(true, false), (false, false), (true, true), (false, true)] {
        let kind = Kind { clean, sealed };
        let found = database(seed, kind, stride, workers)?;
        tell(format!("  {} faults of {kind:?}", found.runs));
        counts.add(&found);
    }
    Ok(counts)
}

fn database(seed: u64, kind: Kind, stride: usize, workers: usize) -> Result<Counts, String> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let outcome = Mutex::new(Ok(Counts::default()));
    let work = || {
        let mut counts = Counts::default();
        let done = rows::guarded(|| {
            // Each worker has a database of its own, made from the same seed: then they share nothing but the count.
            let subject = Subject::new(seed, kind)?;
            let faults: Vec<_> = subject.faults().into_iter().step_by(stride).collect();
            while !stop.load(Ordering::Relaxed) {
                let start = next.fetch_add(CHUNK, Ordering::Relaxed);
                let Some(chunk) = faults.get(start..(start + CHUNK).min(faults.len())) else { break };
                for (file, fault) in chunk {
                    let look = || subject.examine(*file, *fault, &mut counts);
                    rows::guarded(look).map_err(|why| format!("{fault:?} of {}: {why}", subject.files[*file].0))?;
                }
            }
            Ok(())
        });
        let mut outcome = outcome.lock();
        match (done, &mut *outcome) {
            (Ok(()), Ok(all)) => all.add(&counts),
            (Err(why), Ok(_)) => {
                stop.store(true, Ordering::Relaxed);
                *outcome = Err(format!("{kind:?}: {why}"));
            }
            (_, Err(_)) => {}
        }
    };
    #[allow(clippy::disallowed_methods)] // The order of the faults decides nothing.
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    outcome.into_inner()
}

#[cfg(test)]
mod tests {
    use strata_kernel::sabotage;

    use super::*;

    #[test]
    fn bits_that_no_checksum_covers_are_caught() {
        let subject = Subject::new(2, Kind { clean: true, sealed: false }).unwrap();
        let caught = sabotage::with("T15", || {
            let mut faults = subject.faults().into_iter().step_by(997);
            faults.any(|(file, fault)| subject.examine(file, fault, &mut Counts::default()).is_err())
        });
        assert!(caught);
    }
}
