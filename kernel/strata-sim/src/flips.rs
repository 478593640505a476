//! F8 in full: every bit of every file of a database of 64 KiB turned round, and every file cut at every byte.
//!
//! Once on a database that was closed cleanly and once on one whose process was killed. Whatever is read then is right,
//! or a typed error that names a file and a place in it; a refusal changes nothing. What may pass without a word is
//! known from the layout: padding, and in the newest segment of an unclean end what no later record proves to have been
//! synced, which looks like a torn tail and is counted as ambiguous.
//!
//! A fault costs one opening, and many openings end at the damage. What was opened is read and held against what the
//! undamaged files gave, which was held against the model before; if all is right, `verify` has the last word.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use strata_kernel::Error;
use strata_kernel::branch::{Range as Keys, RowBuffer};
use strata_kernel::env::sim::{Sim, SimDisk};
use strata_kernel::log::StateHash;
use strata_kernel::store::{Options, Store, Verified};

use crate::care::Care;
use crate::compare;
use crate::damage::{HEADER, contents, is_scratch, is_segment, is_witnessed, records};
use crate::driver::{Check, Driver};
use crate::judge::numbers;
use crate::model::{Key, State};
use crate::rows;

/// Of all files together.
const DATABASE_BYTES: usize = 64 << 10;
/// Histories are read in so many parts, each fault having one: they are what takes long.
const PARTS: usize = 8;
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
    /// The part of the histories to read: the bits of a byte have all of them between them.
    fn part(self) -> usize {
        match self {
            Fault::Flip(bit) => bit as usize % PARTS,
            Fault::Cut(length) => length % PARTS,
        }
    }
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
    keys: Vec<(u32, Vec<Key>)>,
    /// What reading gives undamaged, with each part of the histories.
    whole: Vec<StateHash>,
}

/// What was found of a damaged database.
enum Found {
    Told(String),
    Version(u64),
}

impl Subject {
    fn new(seed: u64, clean: bool) -> Check<Subject> {
        let mut driver = rows::history(seed, 40)?;
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
        let options = Options { memory_budget: Options::default().memory_budget, ..driver.options.clone() };
        let keys = keys(driver.model.last());
        let mut subject = Subject { driver, options, disk, files, records, clean, newest, keys, whole: Vec::new() };
        subject.whole = subject.undamaged()?;
        Ok(subject)
    }

    /// Hold the undamaged files against the model, and note what they give.
    fn undamaged(&self) -> Check<Vec<StateHash>> {
        let store = Store::open(Sim::over(self.disk.copy(), 1).env(), &self.options)?;
        let state = self.driver.model.at(self.newest).ok_or("the model has no last state")?;
        compare::heads(&store, &numbers(&store), state)?;
        compare::everything(&store, &numbers(&store), state, &Care::new())?;
        Ok((0..PARTS).map(|part| self.read(&store, part)).collect::<Result<_, _>>()?)
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
        match self.look(&disk, fault.part())? {
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
    fn look(&self, disk: &SimDisk, part: usize) -> Check<Found> {
        match Store::open(Sim::over(disk.clone(), 1).env(), &self.options) {
            Ok(store) => {
                let version = store.log.last_version();
                if version < self.newest {
                    let state = self.driver.model.at(version).ok_or_else(|| format!("{version} was made up"))?;
                    return compare::heads(&store, &numbers(&store), state).map(|()| Found::Version(version));
                }
                match self.read(&store, part) {
                    // What no reader asks for, such as a filter that errs on the safe side, is for `verify` to tell.
                    Ok(found) if found == self.whole[part] => {
                        match store.verify(&mut |_, _| Ok(())).and_then(Verified::whole) {
                            Ok(_) => Ok(Found::Version(version)),
                            Err(error) => self.told(error),
                        }
                    }
                    Ok(_) => Err(format!("version {version} reads differently")),
                    Err(error) => self.told(error),
                }
            }
            Err(error) => {
                let same = contents(disk).iter().zip(&self.files).filter(|(now, before)| now != before).count() <= 1;
                if same { self.told(error) } else { Err("a refused database was changed".to_owned()) }
            }
        }
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

    /// All heads, all commits, and one part of the histories, as one hash.
    fn read(&self, store: &Arc<Store>, part: usize) -> Result<StateHash, Error> {
        let (numbers, mut bytes) = (numbers(store), Vec::new());
        for info in store.branches()? {
            let branch = store.branch(&info.name)?;
            bytes.extend_from_slice(format!("{info:?}").as_bytes());
            for number in numbers {
                let mut rows = RowBuffer::default();
                branch.scan(number, &Keys::default(), false, info.head, &mut rows, usize::MAX)?;
                for (key, value) in rows.rows() {
                    bytes.extend_from_slice(key);
                    bytes.extend_from_slice(value);
                }
            }
            let keys = self.keys.iter().filter(|(id, _)| *id == info.id).flat_map(|(_, keys)| keys);
            for key in keys.skip(part).step_by(PARTS) {
                for row in branch.history(numbers[key.0], &key.1, info.head, u64::MAX, usize::MAX)? {
                    bytes.extend_from_slice(&row.version.to_le_bytes());
                    bytes.extend_from_slice(&row.time.to_le_bytes());
                    bytes.extend_from_slice(row.value.as_deref().unwrap_or(b"none"));
                }
            }
            for row in branch.commits(0, u64::MAX, false, usize::MAX)? {
                let what = format!("{} {} {} {:?}", row.version, row.time, row.branch, row.meta);
                bytes.extend_from_slice(what.as_bytes());
            }
        }
        Ok(StateHash::next(StateHash::default(), 0, 0, &bytes))
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

/// The keys that each branch ever had.
fn keys(state: &State) -> Vec<(u32, Vec<Key>)> {
    let of = |commit: &std::rc::Rc<crate::model::Commit>| commit.contents.keys().cloned().collect();
    state.branches.values().map(|branch| (branch.id, branch.newest().map(of).unwrap_or_default())).collect()
}

/// All faults of the two databases of `seed`, or every `stride`-th of them.
pub fn run(seed: u64, stride: usize, workers: usize) -> Result<Counts, String> {
    let mut counts = Counts::default();
    for clean in [true, false] {
        counts.add(&database(seed, clean, stride, workers)?);
    }
    Ok(counts)
}

fn database(seed: u64, clean: bool, stride: usize, workers: usize) -> Result<Counts, String> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let outcome = Mutex::new(Ok(Counts::default()));
    let work = || {
        let mut counts = Counts::default();
        let done = rows::guarded(|| {
            // Each worker has a database of its own, made from the same seed: then they share nothing but the count.
            let subject = Subject::new(seed, clean)?;
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
                *outcome = Err(format!("closed cleanly {clean}: {why}"));
            }
            (_, Err(_)) => {}
        }
    };
    #[allow(clippy::disallowed_methods)] // The order of the faults decides nothing.
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    outcome.into_inner()
}
