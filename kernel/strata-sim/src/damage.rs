//! F8 and F9: bits turned round, sectors zeroed, files cut, swapped, missing and stale.
//!
//! On a database that was closed cleanly all damage to what is in use is told, with a typed error that changes
//! nothing; only padding may be damaged without a word, and then the state is the same. On one that was not closed,
//! damage in the newest segment that no later record proves to have been synced looks like a torn tail, and is counted
//! as ambiguous.

use std::ops::Range;

use strata_kernel::Error;
use strata_kernel::env::sim::{Sim, SimDisk, SimRng};
use strata_kernel::manifest::COPY;
use strata_kernel::store::Store;

use crate::care::Care;
use crate::compare;
use crate::driver::{Check, Driver};
use crate::judge::numbers;
use crate::rows;
use crate::tally::Tally;
use crate::trace::Trace;

/// Of a segment, of a record and of a run, from docs/design/format.md.
pub const HEADER: usize = 64;
/// Of a frame of a run, and what stands behind the last one.
const FRAME_HEADER: usize = 20;
const RUN_TAIL: usize = 24;

/// Bits turned round in each database.
const FLIPS: usize = 400;

struct Subject {
    driver: Driver,
    disk: SimDisk,
    clean: bool,
    /// An older state of the same files.
    older: SimDisk,
}

pub fn row(seed: u64, tally: &mut Tally, trace: &mut Trace) -> Check {
    for clean in [true, false] {
        let subject = Subject::new(seed, clean)?;
        flips(&subject, seed, tally, trace).map_err(|why| format!("closed {clean}: {why}"))?;
        surgery(&subject, seed, tally, trace).map_err(|why| format!("closed {clean}: {why}"))?;
        misdirected(&subject, seed, tally, trace).map_err(|why| format!("closed {clean}: {why}"))?;
    }
    Ok(())
}

impl Subject {
    fn new(seed: u64, clean: bool) -> Check<Subject> {
        let mut driver = rows::history(seed, 12)?;
        let older = driver.sim.disk.copy();
        for _ in 0..8 {
            driver.step()?;
        }
        if clean {
            let store = driver.let_go().ok_or("the store is open")?;
            store.close().map_err(|error| error.to_string())?;
        }
        let disk = driver.sim.disk.copy();
        let subject = Subject { driver, disk, clean, older };
        // Or else every damage below would be found without a look at it.
        match subject.look(&subject.disk.copy())? {
            Found::Version(version) if version == subject.newest() => Ok(subject),
            other => Err(format!("undamaged it gave {other:?}")),
        }
    }

    fn newest(&self) -> u64 {
        self.driver.model.last().version
    }

    /// Open a damaged copy: what is shown must be true, and a refusal typed and without effect.
    fn look(&self, disk: &SimDisk) -> Check<Found> {
        let before = contents(disk);
        match Store::open(Sim::over(disk.clone(), 1).env(), &self.driver.options) {
            Ok(store) => {
                let version = store.log.last_version();
                let state = self.driver.model.at(version).ok_or_else(|| format!("version {version} was made up"))?;
                let numbers = numbers(&store);
                match compare::heads(&store, &numbers, state)
                    .and_then(|()| compare::everything(&store, &numbers, state, &Care::new()))
                    .and_then(|()| store.verify(&mut |_, _| Ok(())).map(|_| ()).map_err(String::from))
                {
                    // What no read came to is told by who reads everything.
                    Ok(()) => match store.verify(&mut |_, _| Ok(())).and_then(|verified| verified.whole()) {
                        Err(Error::Corrupt { .. } | Error::TooNew { .. }) => Ok(Found::Damage),
                        _ => Ok(Found::Version(version)),
                    },
                    // Runs are read when they are needed, and damage in them is told then.
                    Err(why) if why.contains(" is damaged at byte ") => Ok(Found::Damage),
                    Err(why) => Err(why),
                }
            }
            Err(Error::Corrupt { .. } | Error::TooNew { .. }) => {
                let same = contents(disk) == before;
                if same { Ok(Found::Damage) } else { Err("a refused database was changed".to_owned()) }
            }
            Err(other) => Err(format!("it gave {other:?}")),
        }
    }

    /// Without a clean close the newest segment may end anywhere behind what is proven.
    fn may_look_torn(&self, path: &str) -> bool {
        let newest = self.disk.paths().into_iter().rfind(|path| is_segment(path));
        is_scratch(path) || (!self.clean && newest.is_some_and(|newest| newest == path))
    }

    fn check(&self, disk: &SimDisk, may_be_silent: bool, tally: &mut Tally, trace: &mut Trace) -> Check {
        tally.damages += 1;
        match self.look(disk)? {
            Found::Damage => trace.number(0),
            Found::Version(version) => {
                trace.number(version);
                let whole = version == self.newest();
                tally.ambiguous += u64::from(!whole);
                if !may_be_silent || (self.clean && !whole) {
                    return Err(format!("damage went unseen, version {version} was shown"));
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
enum Found {
    Damage,
    Version(u64),
}

fn flips(subject: &Subject, seed: u64, tally: &mut Tally, trace: &mut Trace) -> Check {
    let rng = SimRng::new(seed);
    let files = contents(&subject.disk);
    for _ in 0..FLIPS {
        // Headers are where the most can go wrong, so half of the bits lie near a record's beginning.
        let (path, content) = &files[rng.below(files.len() as u64) as usize];
        if content.is_empty() {
            continue;
        }
        let records = if is_segment(path) { records(content) } else { Vec::new() };
        let near = rng.chance(50) && !records.is_empty();
        let bit = if near {
            let record = &records[rng.below(records.len() as u64) as usize];
            (record.start as u64 * 8 + rng.below(HEADER as u64 * 8)).min(content.len() as u64 * 8 - 1)
        } else {
            rng.below(content.len() as u64 * 8)
        };
        let byte = (bit / 8) as usize;
        let hit = records.iter().position(|record| record.contains(&byte));
        let disk = subject.disk.copy();
        disk.flip(path, bit);
        let may_be_silent = match hit {
            None => is_scratch(path) || (is_segment(path) && byte >= HEADER),
            Some(hit) => subject.may_look_torn(path) && !is_witnessed(content, &records, hit),
        };
        subject
            .check(&disk, may_be_silent, tally, trace)
            .map_err(|why| format!("bit {bit} of {path} ({} bytes): {why}", content.len()))?;
    }
    Ok(())
}

fn surgery(subject: &Subject, seed: u64, tally: &mut Tally, trace: &mut Trace) -> Check {
    let rng = SimRng::new(seed ^ 0x5113);
    let files: Vec<_> = contents(&subject.disk);
    let mut check = |what: String, disk: SimDisk, may_be_silent: bool| {
        subject.check(&disk, may_be_silent, tally, trace).map_err(|why| format!("{what}: {why}"))
    };
    for (path, content) in &files {
        let torn = subject.may_look_torn(path);
        let missing = subject.disk.copy();
        missing.forget(path);
        check(format!("{path} missing"), missing, torn)?;
        for _ in 0..8 {
            let length = rng.below(content.len() as u64) as usize;
            let cut = subject.disk.copy();
            cut.replace(path, content[..length].to_vec());
            // A segment may be empty: its first record was too large for it.
            let used = records(content).last().map_or(HEADER, |last| last.end);
            let padding_only = is_segment(path) && used <= length;
            check(format!("{path} cut at {length}"), cut, torn || padding_only)?;
            let zeroed = subject.disk.copy();
            let mut bytes = content.clone();
            let end = (length + 64).min(bytes.len());
            bytes[length..end].fill(0);
            let unchanged = bytes == *content || in_padding(content, length..end);
            zeroed.replace(path, bytes);
            check(format!("{path} zeroed at {length}"), zeroed, torn || unchanged)?;
        }
        for (other, other_content) in files.iter().filter(|(other, held)| other != path && held != content) {
            let swapped = subject.disk.copy();
            swapped.replace(path, other_content.clone());
            check(format!("{path} is a copy of {other}"), swapped.copy(), torn)?;
            swapped.replace(other, content.clone());
            check(format!("{path} and {other} swapped"), swapped, torn || subject.may_look_torn(other))?;
        }
        if let Some(older) = subject.older.content(path).filter(|older| older != content) {
            let stale = subject.disk.copy();
            let records = |bytes: &[u8]| records(bytes).last().map_or(0, |last| last.end);
            let same_records = path != "MANIFEST" && records(&older) == records(content);
            stale.replace(path, older);
            // An older MANIFEST proves less, which alone hides nothing.
            check(format!("{path} is older"), stale, torn || same_records || path == "MANIFEST")?;
        }
    }
    Ok(())
}

/// Frames of runs in each other's places: whole, and valid but for where they are.
fn misdirected(subject: &Subject, seed: u64, tally: &mut Tally, trace: &mut Trace) -> Check {
    let rng = SimRng::new(seed ^ 0xD12E);
    let files = contents(&subject.disk);
    let runs = files.iter().filter(|(path, _)| path.ends_with(".run"));
    let frames: Vec<(&String, &[u8], Range<usize>)> =
        runs.flat_map(|(path, bytes)| frames(bytes).into_iter().map(move |frame| (path, &bytes[..], frame))).collect();
    for (number, (path, bytes, frame)) in frames.iter().enumerate() {
        let alike = |other: &&(&String, &[u8], Range<usize>)| {
            let (found, payload) = (&other.1[other.2.clone()], FRAME_HEADER..frame.len());
            found.len() == frame.len() && found[0] == bytes[frame.start] && {
                found[payload.clone()] != bytes[frame.clone()][payload]
            }
        };
        let Some((_, other, place)) = frames[number + 1..].iter().find(alike) else { continue };
        if rng.chance(50) {
            continue;
        }
        let disk = subject.disk.copy();
        let mut damaged = bytes.to_vec();
        damaged[frame.clone()].copy_from_slice(&other[place.clone()]);
        disk.replace(path, damaged);
        subject
            .check(&disk, false, tally, trace)
            .map_err(|why| format!("another frame at {frame:?} of {path}: {why}"))?;
    }
    Ok(())
}

/// Where the frames of a run lie.
fn frames(content: &[u8]) -> Vec<Range<usize>> {
    let mut frames = Vec::new();
    let mut at = HEADER;
    while at + FRAME_HEADER < content.len().saturating_sub(RUN_TAIL) {
        let stored = u32::from_le_bytes(*content[at + 8..].first_chunk().expect("within a header")) as usize;
        frames.push(at..at + FRAME_HEADER + stored);
        at += FRAME_HEADER + stored;
    }
    frames
}

pub fn is_segment(path: &str) -> bool {
    path.starts_with("WAL/") && path.ends_with(".seg")
}

/// A file that no opening believes: one that is being made, and the copy of the MANIFEST, which is made again.
pub fn is_scratch(path: &str) -> bool {
    path.ends_with(".tmp") || path == COPY
}

/// The bytes of each record without its padding.
pub fn records(content: &[u8]) -> Vec<Range<usize>> {
    let mut records = Vec::new();
    let mut at = HEADER;
    while content.get(at) == Some(&0xB1) && at + HEADER <= content.len() {
        let length = u32::from_le_bytes([content[at + 4], content[at + 5], content[at + 6], content[at + 7]]) as usize;
        records.push(at..at + HEADER + length);
        at += HEADER + length.next_multiple_of(8);
    }
    records
}

/// Whether a record behind the one that was hit knew it to be on disk: then a power cut cannot have spoilt it.
pub fn is_witnessed(content: &[u8], records: &[Range<usize>], hit: usize) -> bool {
    let number = |at: usize| u64::from_le_bytes(*content[at..].first_chunk().expect("within a header"));
    let position = number(40) + records[hit].start as u64;
    records[hit + 1..].iter().any(|later| number(later.start + 24) > position)
}

fn in_padding(content: &[u8], range: Range<usize>) -> bool {
    range
        .clone()
        .all(|byte| content[byte] == 0 || byte >= HEADER && !records(content).iter().any(|r| r.contains(&byte)))
}

/// All files but the LOCK, which holds nothing and changes at each open.
pub fn contents(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let content = |path: String| (path.clone(), disk.content(&path).unwrap_or_default());
    disk.paths().into_iter().filter(|path| path != "LOCK").map(content).collect()
}
