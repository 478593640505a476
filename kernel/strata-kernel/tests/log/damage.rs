//! F8 and F9: bits turned round, bytes cut off, files swapped, doubled, missing and foreign.

use strata_kernel::env::Rng;
use strata_kernel::env::sim::{Sim, SimDisk, SimRng};
use strata_kernel::log::{Durability, LogOptions};
use strata_kernel::{Error, Result};

use super::harness::{Run, Seen, Step, contents, open, options, report, scale, sealed};

/// A log of a few segments, and the position that its MANIFEST proves.
pub struct Subject {
    run: Run,
    clean: bool,
    disk: SimDisk,
    proven: u64,
}

impl Subject {
    pub fn new(clean: bool, segment_bytes: u64) -> Subject {
        Subject::over(clean, LogOptions { segment_bytes, ..options(Durability::Strict) })
    }

    fn sealed(clean: bool, segment_bytes: u64) -> Subject {
        Subject::over(clean, LogOptions { segment_bytes, ..sealed(options(Durability::Strict)) })
    }

    fn over(clean: bool, options: LogOptions) -> Subject {
        let mut run = Run::new(2, options);
        for size in [0, 13, 300, 64, 7, 150, 1, 90, 260, 33] {
            run.step(Step::Commit(size)).expect("no fault is planned");
        }
        let proven = if clean { run.log().close().expect("no fault is planned") } else { 0 };
        let subject = Subject { disk: run.sim.disk.copy(), run, clean, proven };
        // Or else every damage below would be found without a look at it.
        assert_eq!(subject.open(&subject.disk.copy()).map(|entries| entries.len()), Ok(subject.records()));
        subject
    }

    fn records(&self) -> usize {
        self.run.issued.len()
    }

    fn open(&self, disk: &SimDisk) -> Result<Vec<Seen>> {
        open(&Sim::over(disk.clone(), 1), &self.run.options, self.proven).map(|(_, entries, _)| entries)
    }

    /// Plain and encrypted.
    fn both(clean: bool, segment_bytes: u64) -> [Subject; 2] {
        [Subject::new(clean, segment_bytes), Subject::sealed(clean, segment_bytes)]
    }

    /// Damage never gives other data; a refusal changes nothing. Returns how many records were lost without a word.
    fn check(&self, disk: &SimDisk, context: &str) -> usize {
        let before = contents(disk);
        match self.open(disk) {
            Ok(entries) => {
                self.run.check_prefix(&entries, self.records(), context);
                self.records() - entries.len()
            }
            Err(Error::Corrupt { file, .. } | Error::TooNew { file, .. }) => {
                assert!(file.starts_with("WAL/wal-"), "{context}: {file}");
                assert_eq!(contents(disk), before, "{context}: a refused log was changed");
                0
            }
            Err(other) => panic!("{context}: {other:?}"),
        }
    }
}

/// Every bit of a log that was closed cleanly (`clean`) or not. Returns (flips, ambiguous ones).
pub fn flip_every_bit(subject: &Subject) -> (usize, usize) {
    let clean = subject.clean;
    let (mut flips, mut ambiguous) = (0, 0);
    for (path, content) in contents(&subject.disk) {
        for bit in 0..content.len() as u64 * 8 {
            let damaged = subject.disk.copy();
            damaged.flip(&path, bit);
            let context = format!("bit {bit} of {path}, clean {clean}");
            let lost = subject.check(&damaged, &context);
            // Only the last record may be lost silently, and only when nothing tells that it was synced.
            assert!(lost == 0 || (lost == 1 && !clean), "{context}: {lost} records lost without a word");
            ambiguous += lost;
            flips += 1;
        }
    }
    (flips, ambiguous)
}

#[test]
fn f8_every_bit_is_detected_or_harmless() {
    for (clean, segment_bytes) in [(true, 1024), (true, 1 << 13), (false, 1024), (false, 1 << 12)] {
        for subject in Subject::both(clean, segment_bytes) {
            let (flips, ambiguous) = flip_every_bit(&subject);
            assert!(!clean || ambiguous == 0);
            report("F8", flips, ambiguous, 2..3);
        }
    }
}

#[test]
fn f9_cut_at_every_byte() {
    let shapes = [(true, 1024), (true, 1 << 13), (false, 1 << 13)];
    for subject in shapes.into_iter().flat_map(|(clean, bytes)| Subject::both(clean, bytes)) {
        let clean = subject.clean;
        let files = contents(&subject.disk);
        for (index, (path, content)) in files.iter().enumerate() {
            for length in 0..content.len() {
                let damaged = subject.disk.copy();
                damaged.replace(path, content[..length].to_vec());
                let context = format!("{path} cut at {length}, clean {clean}");
                let lost = subject.check(&damaged, &context);
                let older = index + 1 < files.len();
                assert!(lost == 0 || !(clean || older), "{context}: {lost} records lost without a word");
            }
        }
    }
}

#[test]
fn f9_a_zeroed_sector_is_damage_or_harmless() {
    for subject in [true, false].into_iter().flat_map(|clean| Subject::both(clean, 1 << 13)) {
        let clean = subject.clean;
        for (path, content) in contents(&subject.disk) {
            for sector in (0..content.len()).step_by(64) {
                let mut damaged = content.clone();
                let end = (sector + 64).min(content.len());
                damaged[sector..end].fill(0);
                let disk = subject.disk.copy();
                disk.replace(&path, damaged);
                let lost = subject.check(&disk, &format!("zeros at {sector}"));
                // 64 bytes may hit the last record and the one before it, and nothing tells that they were synced.
                assert!(lost == 0 || (lost <= 2 && !clean), "zeros at {sector}: {lost} records lost");
            }
        }
    }
}

fn refused(subject: &Subject, disk: &SimDisk, context: &str) {
    let before = contents(disk);
    let outcome = subject.open(disk);
    assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{context}: {outcome:?}");
    assert_eq!(contents(disk), before, "{context}: a refused log was changed");
}

#[test]
fn f9_swapped_doubled_missing_and_foreign_segments_are_refused() {
    let subject = Subject::new(true, 256);
    let foreign = {
        let database_id = *b"another database";
        let options = LogOptions { segment_bytes: 256, database_id, ..options(Durability::Strict) };
        let mut run = Run::new(2, options);
        (0..20).for_each(|_| run.step(Step::Commit(100)).expect("no fault is planned"));
        run.sim.disk
    };
    let files = contents(&subject.disk);
    assert!(files.len() > 3);
    for (path, content) in &files {
        let missing = subject.disk.copy();
        missing.forget(path);
        refused(&subject, &missing, &format!("{path} missing"));
        for (other, other_content) in files.iter().filter(|(other, _)| other != path) {
            let doubled = subject.disk.copy();
            doubled.replace(path, other_content.clone());
            refused(&subject, &doubled, &format!("{path} is a copy of {other}"));
            doubled.replace(other, content.clone());
            refused(&subject, &doubled, &format!("{path} and {other} swapped"));
        }
        let mixed = subject.disk.copy();
        mixed.replace(path, foreign.content(path).expect("as many segments"));
        refused(&subject, &mixed, &format!("{path} of another database"));
    }
    let empty = subject.disk.copy();
    files.iter().for_each(|(path, _)| empty.forget(path));
    refused(&subject, &empty, "no segment at all");
}

/// An older copy of a segment in place of the newer one: fewer records, all valid.
#[test]
fn f9_an_older_copy_of_a_segment_is_refused() {
    let mut run = Run::new(2, LogOptions { segment_bytes: 1 << 12, ..options(Durability::Strict) });
    (0..5).for_each(|_| run.step(Step::Commit(40)).unwrap());
    let older = run.sim.disk.copy();
    (0..5).for_each(|_| run.step(Step::Commit(40)).unwrap());
    let proven = run.log().close().unwrap();
    let sim = Sim::over(older, 1);
    assert!(matches!(open(&sim, &run.options, proven).map(|found| found.1), Err(Error::Corrupt { .. })));
}

/// Records moved within a segment keep their bytes but not their place.
#[test]
fn f9_swapped_and_repeated_records_are_refused() {
    let mut run = Run::new(2, LogOptions { segment_bytes: 1 << 12, ..options(Durability::Strict) });
    (0..6).for_each(|_| run.step(Step::Commit(40)).unwrap());
    let proven = run.log().close().unwrap();
    let (path, content) = contents(&run.sim.disk).remove(0);
    let at = |record: usize| 64 + record * 104..64 + (record + 1) * 104;
    for (from, to) in (0..6).flat_map(|from| (0..6).map(move |to| (from, to))).filter(|(from, to)| from != to) {
        let mut damaged = content.clone();
        damaged.copy_within(at(from), at(to).start);
        for swap in [false, true] {
            if swap {
                damaged[at(from)].copy_from_slice(&content[at(to)]);
            }
            let disk = run.sim.disk.copy();
            disk.replace(&path, damaged.clone());
            let outcome = open(&Sim::over(disk, 1), &run.options, proven).map(|found| found.1);
            assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{from} over {to}, swap {swap}: {outcome:?}");
        }
    }
}

/// A valid record whose codec this build does not know, and a segment of a later format.
#[test]
fn what_a_later_version_wrote_is_refused_as_such() {
    let mut run = Run::new(2, LogOptions { segment_bytes: 1 << 12, ..options(Durability::Strict) });
    run.step(Step::Commit(40)).unwrap();
    let (path, content) = contents(&run.sim.disk).remove(0);

    let mut newer = content.clone();
    newer[8] = 2;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&newer[..12]), &newer[16..64]);
    newer[12..16].copy_from_slice(&checksum.to_le_bytes());
    let disk = run.sim.disk.copy();
    disk.replace(&path, newer);
    let outcome = open(&Sim::over(disk, 1), &run.options, 0).map(|found| found.1);
    assert!(matches!(outcome, Err(Error::TooNew { found: 2, known: 1, .. })), "{outcome:?}");

    // The checksum as docs/design/format.md says it: payload, header without itself, segment, position.
    let mut unknown = content;
    unknown[66] = 9;
    let mut checked = unknown[128..168].to_vec();
    checked.extend_from_slice(&unknown[64..76]);
    checked.extend_from_slice(&unknown[80..128]);
    checked.extend_from_slice(&1u64.to_le_bytes());
    checked.extend_from_slice(&64u64.to_le_bytes());
    unknown[76..80].copy_from_slice(&crc32c::crc32c(&checked).to_le_bytes());
    let disk = run.sim.disk.copy();
    disk.replace(&path, unknown);
    let outcome = open(&Sim::over(disk, 1), &run.options, 0).map(|found| found.1);
    assert!(matches!(outcome, Err(Error::TooNew { found: 9, .. })), "{outcome:?}");
}

/// Bytes that nobody wrote: random fields under right checksums. Any answer is fine but a panic or a long wait.
#[test]
fn f10_hostile_segments_are_survived() {
    Subject::both(false, 1 << 13).iter().for_each(survive_hostile_segments);
}

fn survive_hostile_segments(subject: &Subject) {
    let (path, content) = contents(&subject.disk).remove(0);
    let rng = SimRng::new(10);
    for _ in 0..4_000 * scale() {
        let mut hostile = content.clone();
        for _ in 0..1 + rng.below(4) {
            // Fields are what matters: most strokes go to a header, and some write a length or position at the edge.
            let at = (64 * rng.below(3) + 8 * rng.below(8)) as usize;
            let value =
                [rng.next_u64(), rng.below(300), u64::MAX - rng.below(300), 1 << rng.below(64)][rng.below(4) as usize];
            hostile[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        hostile.truncate(hostile.len() - rng.below(64) as usize);
        make_right(&mut hostile);
        let disk = SimDisk::new(1);
        disk.replace(&path, hostile);
        let sim = Sim::over(disk, 1);
        if let Ok((log, entries, _)) = open(&sim, &subject.run.options, 0) {
            let hash = entries.last().map(|last| last.hash).unwrap_or_default();
            if let Ok(appended) = log.append(hash, b"go on") {
                log.wait(&appended).expect("the disk works");
            }
        }
    }
}

/// Make the checksums of the segment and of its first record right again.
fn make_right(segment: &mut [u8]) {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&segment[..12]), &segment[16..64]);
    segment[12..16].copy_from_slice(&checksum.to_le_bytes());
    let number = |at: usize| u64::from_le_bytes(segment[at..at + 8].try_into().expect("eight bytes"));
    let length = (number(64) >> 32) as usize;
    let Some(payload) = segment.get(128..128usize.saturating_add(length)) else { return };
    let place = [number(32).to_le_bytes(), number(40).wrapping_add(64).to_le_bytes()].concat();
    let checked = [payload, &segment[64..76], &segment[80..128], &place].concat();
    segment[76..80].copy_from_slice(&crc32c::crc32c(&checked).to_le_bytes());
}

/// A tail of headers that each claim the rest of the segment would make the search for witnesses quadratic.
#[test]
fn f10_a_tail_made_to_mislead_is_refused_soon() {
    let mut run = Run::new(2, LogOptions { segment_bytes: 1 << 22, ..options(Durability::Strict) });
    run.step(Step::Commit(40)).unwrap();
    let (path, mut content) = contents(&run.sim.disk).remove(0);
    let length = content.len();
    for at in (168..length - 64).step_by(64) {
        content[at..at + 2].copy_from_slice(&[0xB1, 1]);
        content[at + 4..at + 8].copy_from_slice(&((length - at - 64) as u32).to_le_bytes());
    }
    let disk = SimDisk::new(1);
    disk.replace(&path, content);
    let outcome = open(&Sim::over(disk, 1), &run.options, 0).map(|found| found.1);
    assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{outcome:?}");
}
