//! A workload over one log, what it was promised, and whether an image keeps those promises.
//!
//! Strategy: a run does its steps once and notes, for each record, when it was handed to the log and when
//! it was acknowledged, both as a count of mutating disk calls. The simulator then gives the image of
//! every moment, and the notes say what must be in it.

use std::fmt::Write;
use std::sync::Arc;

use strata_kernel::env::sim::{Sim, SimDisk, SimRng};
use strata_kernel::env::{Clock, Rng};
use strata_kernel::log::{Anchor, Appended, Durability, Log, LogOptions, Recovery, StateHash};
use strata_kernel::seal::{Key, Keyring};
use strata_kernel::{Error, Result};

/// 2 simulated milliseconds: short, so that a few steps cross several windows.
pub const INTERVAL_US: u64 = 2_000;

pub fn options(durability: Durability) -> LogOptions {
    LogOptions {
        durability,
        segment_bytes: 1024,
        flush_interval_us: INTERVAL_US,
        compress_above: 200,
        database_id: *b"the one database",
        keys: None,
    }
}

pub fn key(number: u8) -> Key {
    Key::new(&std::array::from_fn::<u8, 32, _>(|at| number.wrapping_mul(41) ^ (at as u8).wrapping_mul(7)))
        .expect("a key")
}

pub fn sealed(options: LogOptions) -> LogOptions {
    let keys = Some(Arc::new(Keyring::new(options.database_id, key(1), [])));
    LogOptions { keys, ..options }
}

/// Every history is run both ways: odd seeds are encrypted.
pub fn options_of(seed: u64, durability: Durability) -> LogOptions {
    if seed.is_multiple_of(2) { options(durability) } else { sealed(options(durability)) }
}

#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// Append a record of this many bytes and wait for it.
    Commit(usize),
    /// Append some, then wait for all, as threads that share a group do.
    Group(usize, usize),
    /// Let time pass; the flusher runs when it is due.
    Pass(u64),
    Flush,
    /// Close cleanly, remember the position as the MANIFEST does, and open again.
    Reopen,
}

pub fn random_steps(rng: &SimRng, count: usize) -> Vec<Step> {
    let size = |rng: &SimRng| [0, 1, 7, 8, 30, 100, 250, 600][rng.below(8) as usize];
    let step = |_| match rng.below(20) {
        0..=9 => Step::Commit(size(rng)),
        10..=13 => Step::Group(1 + rng.below(4) as usize, size(rng)),
        14..=17 => Step::Pass(rng.below(INTERVAL_US)),
        18 => Step::Flush,
        _ => Step::Reopen,
    };
    (0..count).map(step).collect()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub version: u64,
    pub time: u64,
    pub hash: StateHash,
    pub payload: Vec<u8>,
}

/// One record of the run. Moments are counts of mutating disk calls.
pub struct Issued {
    pub record: Seen,
    pub moment: usize,
    pub acknowledged: Option<Acknowledged>,
}

#[derive(Clone, Copy)]
pub struct Acknowledged {
    pub moment: usize,
    pub time_us: u64,
}

pub struct Run {
    pub sim: Sim,
    pub options: LogOptions,
    pub log: Option<Log>,
    pub issued: Vec<Issued>,
    /// (moment, durable version) as the log told it.
    pub durable: Vec<(usize, u64)>,
    /// (moment, proven position) as a MANIFEST would hold it.
    pub proven: Vec<(usize, u64)>,
    /// When the log had been created, and a MANIFEST could follow.
    pub created: usize,
    hash: StateHash,
    rng: SimRng,
}

impl Run {
    pub fn new(seed: u64, options: LogOptions) -> Run {
        Run::over(Sim::new(seed), seed, options).expect("a new disk takes a log")
    }

    pub fn over(sim: Sim, seed: u64, options: LogOptions) -> Result<Run> {
        let log = Log::create(&sim.env(), options.clone(), Anchor::default())?;
        let created = sim.disk.journal_len();
        Ok(Run {
            sim,
            options,
            log: Some(log),
            issued: Vec::new(),
            durable: vec![(created, 0)],
            proven: vec![(created, 0)],
            created,
            hash: StateHash::default(),
            rng: SimRng::new(seed ^ 0x5EED),
        })
    }

    /// A finished run of random steps.
    pub fn random(seed: u64, durability: Durability, steps: usize) -> Run {
        let steps = random_steps(&SimRng::new(seed), steps);
        let mut run = Run::new(seed, options_of(seed, durability));
        steps.iter().for_each(|step| run.step(*step).expect("no fault is planned"));
        run
    }

    pub fn log(&self) -> &Log {
        self.log.as_ref().expect("the log is open")
    }

    pub fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Commit(size) => {
                let appended = self.append(size)?;
                self.wait(&appended)?;
            }
            Step::Group(count, size) => {
                let group = (0..count).map(|_| self.append(size)).collect::<Result<Vec<_>>>()?;
                group.iter().try_for_each(|appended| self.wait(appended))?;
            }
            Step::Pass(us) => self.sim.pass(us),
            Step::Flush => {
                let version = self.log().flush()?;
                assert_eq!(Some(version), self.issued.last().map(|last| last.record.version).or(Some(0)));
            }
            Step::Reopen => self.reopen()?,
        }
        if self.log.is_some() {
            self.durable.push((self.sim.disk.journal_len(), self.log().durable_version()));
        }
        Ok(())
    }

    pub fn append(&mut self, size: usize) -> Result<Appended> {
        let payload = self.payload(size);
        let appended = self.log().append(self.hash, &payload)?;
        let stamp = appended.stamp;
        assert_eq!(stamp.hash, StateHash::next(self.hash, stamp.version, stamp.time, &payload));
        self.hash = stamp.hash;
        let record = Seen { version: stamp.version, time: stamp.time, hash: stamp.hash, payload };
        self.issued.push(Issued { record, moment: self.sim.disk.journal_len(), acknowledged: None });
        Ok(appended)
    }

    pub fn wait(&mut self, appended: &Appended) -> Result<()> {
        self.log().wait(appended)?;
        let now = Acknowledged { moment: self.sim.disk.journal_len(), time_us: self.sim.clock.monotonic_us() };
        let issued = self.issued.iter_mut().find(|issued| issued.record.version == appended.stamp.version);
        issued.expect("it was issued").acknowledged = Some(now);
        Ok(())
    }

    /// Half of them can be packed.
    fn payload(&self, size: usize) -> Vec<u8> {
        let seed = self.rng.next_u64();
        (0..size).map(|at| if seed.is_multiple_of(2) { seed as u8 } else { (seed >> (at % 57)) as u8 }).collect()
    }

    fn reopen(&mut self) -> Result<()> {
        let position = self.log().close()?;
        self.log = None;
        self.proven.push((self.sim.disk.journal_len(), position));
        let (log, entries, recovery) = open(&self.sim, &self.options, position)?;
        assert_eq!((recovery.end, recovery.cut_bytes), (position, 0));
        assert!(entries.iter().eq(self.issued.iter().map(|issued| &issued.record)));
        self.log = Some(log);
        Ok(())
    }

    pub fn proven_at(&self, moment: usize) -> u64 {
        self.proven.iter().filter(|(at, _)| *at <= moment).map(|(_, position)| *position).max().unwrap_or(0)
    }

    pub fn durable_at(&self, moment: usize) -> u64 {
        self.durable.iter().filter(|(at, _)| *at <= moment).map(|(_, version)| *version).max().unwrap_or(0)
    }

    /// How many of the records an image may hold at most, and the acknowledgements given by then.
    pub fn by(&self, moment: usize) -> (usize, Vec<(u64, Acknowledged)>) {
        let issued = self.issued.iter().filter(|issued| issued.moment <= moment);
        let acknowledged = self.issued.iter().filter_map(|issued| {
            issued.acknowledged.filter(|ack| ack.moment <= moment).map(|ack| (issued.record.version, ack))
        });
        (issued.count(), acknowledged.collect())
    }

    /// Check what a power cut at `moment` left (D1, D2, D5, and that a second open gives the same).
    pub fn check_power_cut(&self, moment: usize, seed: u64) {
        let image = self.sim.disk.image_at(moment, seed);
        let context = format!("power cut after call {moment}, seed {seed}");
        let Some(found) = self.open_image(&image, moment, seed, &context) else { return };
        let (_, acknowledged) = self.by(moment);
        let lost: Vec<u64> =
            acknowledged.iter().filter(|(version, _)| *version > found).map(|(_, ack)| ack.time_us).collect();
        match self.options.durability {
            Durability::Strict => assert!(lost.is_empty(), "{context}: {} acknowledged records lost", lost.len()),
            _ => {
                let span = lost.iter().max().zip(lost.iter().min()).map_or(0, |(newest, oldest)| newest - oldest);
                assert!(span <= INTERVAL_US, "{context}: the lost span is {span} us long");
                assert!(self.durable_at(moment) <= found, "{context}: a durable record was lost");
            }
        }
    }

    /// Check what the death of the process at `moment` left: nothing acknowledged is lost in any mode.
    pub fn check_killed(&self, moment: usize, seed: u64) {
        let image = self.sim.disk.killed_at(moment, seed);
        let context = format!("killed after call {moment}, seed {seed}");
        let Some(found) = self.open_image(&image, moment, seed, &context) else { return };
        let (_, acknowledged) = self.by(moment);
        let newest = acknowledged.iter().map(|(version, _)| *version).max().unwrap_or(0);
        assert!(found >= newest, "{context}: {newest} was acknowledged, {found} was found");
    }

    /// Open an image, check that it is a prefix and stays one, and return its newest version.
    fn open_image(&self, image: &SimDisk, moment: usize, seed: u64, context: &str) -> Option<u64> {
        let sim = Sim::over(image.clone(), seed);
        if moment < self.created {
            // There is no MANIFEST yet: creating begins anew.
            Log::create(&sim.env(), self.options.clone(), Anchor::default()).expect(context);
            return None;
        }
        let proven = self.proven_at(moment);
        let (log, first, recovery) = open(&sim, &self.options, proven).unwrap_or_else(|error| {
            panic!("{context}: refused: {error}");
        });
        let (issued, _) = self.by(moment);
        self.check_prefix(&first, issued, context);
        if seed.is_multiple_of(3) {
            self.check_goes_on(&sim, &log, &first, proven, context);
        }
        drop(log);
        // What was found once is durable: neither a second open nor a second power cut changes it.
        for image in [image.killed(), image.crash(seed)] {
            let (_, again, recovered) = open(&Sim::over(image, seed), &self.options, proven).expect(context);
            assert!(again.len() >= first.len() && again[..first.len()] == first[..], "{context}: not idempotent");
            assert!(seed.is_multiple_of(3) || (recovered.end, recovered.cut_bytes) == (recovery.end, 0), "{context}");
        }
        Some(first.last().map_or(0, |last| last.version))
    }

    pub fn check_prefix(&self, entries: &[Seen], at_most: usize, context: &str) {
        assert!(entries.len() <= at_most, "{context}: {} records found, {at_most} issued", entries.len());
        for (found, issued) in entries.iter().zip(&self.issued) {
            assert_eq!(*found, issued.record, "{context}");
        }
    }

    /// `check_prefix` for records that were issued after a checkpoint: `range` are those that may be found.
    pub fn check_slice(&self, entries: &[Seen], range: std::ops::Range<usize>, context: &str) {
        assert!(range.start <= range.end, "{context}: the checkpoint is newer than the newest commit");
        assert!(entries.len() <= range.len(), "{context}: {} records found, of {range:?}", entries.len());
        for (found, issued) in entries.iter().zip(&self.issued[range]) {
            assert_eq!(*found, issued.record, "{context}");
        }
    }

    /// New records follow on what was found, and what was cut never comes back between or behind them.
    fn check_goes_on(&self, sim: &Sim, log: &Log, found: &[Seen], proven: u64, context: &str) {
        let mut expected = found.to_vec();
        let mut hash = found.last().map_or(StateHash::default(), |last| last.hash);
        for size in [0, 24, 700] {
            let payload = vec![size as u8; size];
            let appended = log.append(hash, &payload).expect(context);
            log.wait(&appended).expect(context);
            let stamp = appended.stamp;
            hash = stamp.hash;
            expected.push(Seen { version: stamp.version, time: stamp.time, hash, payload });
            let killed = Sim::over(sim.disk.killed(), 0);
            let (_, again, _) = open(&killed, &self.options, proven).expect(context);
            assert_eq!(again, expected, "{context}, then {size} bytes more");
        }
        log.flush().expect(context);
    }
}

/// Open the log of a simulated process, with everything that is in it.
pub fn open(sim: &Sim, options: &LogOptions, proven: u64) -> Result<(Log, Vec<Seen>, Recovery)> {
    let mut entries: Vec<Seen> = Vec::new();
    let anchor = Anchor { proven, ..Anchor::default() };
    let (log, recovery) = Log::recover(&sim.env(), options.clone(), anchor, &mut |entry| {
        let stamp = entry.stamp;
        let (version, time, hash) = (stamp.version, stamp.time, stamp.hash);
        entries.push(Seen { version, time, hash, payload: entry.payload.to_vec() });
        Ok(())
    })?;
    assert_eq!(recovery.records as usize, entries.len(), "the log counts what it hands out");
    assert_eq!(log.last_version(), entries.last().map_or(0, |last| last.version));
    assert_eq!(log.durable_version(), log.last_version(), "what was read back is durable");
    Ok((log, entries, recovery))
}

/// The paths of the segments. Beside them is the room for deletions, of which recovery takes anything.
pub fn segments(disk: &SimDisk) -> Vec<String> {
    disk.paths().into_iter().filter(|path| path != "WAL/wal-spare.tmp").collect()
}

/// All files with their content.
pub fn contents(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let content = |path: String| (path.clone(), disk.content(&path).unwrap_or_default());
    segments(disk).into_iter().map(content).collect()
}

pub fn is_typed(error: &Error) -> bool {
    matches!(error, Error::Storage { .. } | Error::OutcomeUnknown { .. } | Error::Corrupt { .. } | Error::TooNew { .. })
}

/// The line that a row of the fault matrix prints.
pub fn report(row: &str, runs: usize, ambiguous: usize, seeds: std::ops::Range<u64>) {
    let mut line = format!("{row} runs={runs} violations=0 skipped=0 ambiguous={ambiguous}");
    let _ = write!(line, " seeds={}..{}", seeds.start, seeds.end);
    println!("{line}");
}

/// How much more than the quick tier to run: `STRATA_TEST_SCALE=50 cargo test --release`.
pub fn scale() -> u64 {
    std::env::var("STRATA_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}
