//! A5: encryption at rest, as far as it is the log's. Every other test here runs encrypted, too.

use std::collections::BTreeMap;
use std::sync::Arc;

use strata_kernel::env::sim::{Sim, SimDisk};
use strata_kernel::log::{Anchor, Durability, Log, LogOptions, StateHash};
use strata_kernel::seal::{KeyId, Keyring};
use strata_kernel::{Error, Result};

use super::crash::BOTH;
use super::harness::{Run, Step, contents, key, open, options, report, scale, sealed};

const CANARY: &[u8; 8] = b"\xFEcanary!";

fn holds(disk: &SimDisk, needle: &[u8]) -> bool {
    contents(disk).iter().any(|(_, content)| content.windows(needle.len()).any(|window| window == needle))
}

/// Payloads with a canary, short and long, that can be packed and that cannot.
fn sing(options: LogOptions) -> Run {
    let run = Run::new(1, options);
    let mut hash = StateHash::default();
    for length in [8, 9, 40, 150, 300, 700, 3_000] {
        for filler in [0, 1] {
            let fill = |at: usize| if filler == 0 { 7 } else { ((at * at * 31) >> 3) as u8 };
            let mut payload: Vec<u8> = (0..length).map(fill).collect();
            payload[length - 8..].copy_from_slice(CANARY);
            let appended = run.log().append(hash, &payload).expect("no fault is planned");
            run.log().wait(&appended).expect("no fault is planned");
            hash = appended.stamp.hash;
        }
        run.log().cut().expect("no fault is planned");
    }
    run
}

#[test]
fn a5_no_canary_is_in_any_file() {
    for durability in BOTH {
        let plain = sing(options(durability));
        assert!(holds(&plain.sim.disk, CANARY), "the test finds canaries");
        let run = sing(sealed(options(durability)));
        let secret: Vec<u8> = std::array::from_fn::<u8, 32, _>(|at| 41 ^ (at as u8).wrapping_mul(7)).to_vec();
        assert_eq!(run.options.keys.as_ref().map(|keys| keys.current()), Some(key(1).id()));
        for moment in 0..=run.sim.disk.journal_len() {
            let image = run.sim.disk.killed_at(moment, 1);
            assert!(!holds(&image, CANARY), "a canary after call {moment}");
            assert!(!holds(&image, &secret[..8]) && !holds(&image, &secret[24..]), "the key after call {moment}");
        }
    }
}

/// The hash of a state would let one try guesses at a payload.
#[test]
fn a5_no_hash_of_a_payload_is_in_any_file() {
    let mut run = Run::new(1, sealed(options(Durability::Strict)));
    (0..5).for_each(|_| run.step(Step::Commit(30)).unwrap());
    assert!(run.issued.iter().all(|issued| !holds(&run.sim.disk, &issued.record.hash.0)));
}

fn opened(disk: &SimDisk, options: &LogOptions) -> Result<u64> {
    let (_, found, _) = open(&Sim::over(disk.killed(), 1), options, 0)?;
    Ok(found.len() as u64)
}

fn with(keys: Option<Keyring>) -> LogOptions {
    LogOptions { keys: keys.map(Arc::new), ..options(Durability::Strict) }
}

fn ring(current: u8, older: &[u8]) -> Keyring {
    Keyring::new(*b"the one database", key(current), older.iter().map(|number| key(*number)))
}

#[test]
fn a5_a_wrong_or_missing_key_is_named_and_nothing_is_changed() {
    let mut run = Run::new(1, with(Some(ring(1, &[]))));
    (0..10).for_each(|_| run.step(Step::Commit(100)).unwrap());
    let disk = run.sim.disk.killed();
    let before = contents(&disk);
    for (keys, expected) in [(None, vec![]), (Some(ring(2, &[3])), vec![key(2).id(), key(3).id()])] {
        let options = with(keys);
        let outcome = open(&Sim::over(disk.clone(), 1), &options, 0).map(|_| ());
        assert_eq!(outcome, Err(Error::NeedsKey { needed: key(1).id(), given: expected }));
        let mut applied = 0;
        let env = Sim::over(disk.clone(), 1).env();
        let read = Log::read(&env, options, Anchor::default(), &mut |_| {
            applied += 1;
            Ok(())
        });
        assert!(matches!(read.map(|_| ()), Err(Error::NeedsKey { .. })));
        assert_eq!((applied, contents(&disk) == before), (0, true));
    }
    assert_eq!(opened(&disk, &with(Some(ring(2, &[1])))), Ok(10));
}

#[test]
fn a5_a_plain_database_is_refused_with_a_key_unless_it_shall_be_encrypted() {
    let mut run = Run::new(1, with(None));
    (0..3).for_each(|_| run.step(Step::Commit(100)).unwrap());
    let disk = run.sim.disk.killed();
    assert!(matches!(opened(&disk, &with(Some(ring(1, &[])))), Err(Error::InvalidInput(_))));
    let both = with(Some(ring(1, &[]).plain_too()));
    let (log, found, _) = open(&Sim::over(disk.clone(), 1), &both, 0).unwrap();
    // The first commit begins a new segment: nothing more is written in plain.
    let appended = log.append(found.last().unwrap().hash, CANARY).unwrap();
    log.wait(&appended).unwrap();
    assert!(!holds(&disk, CANARY));
    assert_eq!(opened(&disk, &both), Ok(4));
    assert_eq!(segment_keys(&disk).last(), Some(&key(1).id()));
}

/// What the headers say, in order.
fn segment_keys(disk: &SimDisk) -> Vec<KeyId> {
    let segments = contents(disk).into_iter().filter(|(path, _)| path.ends_with(".seg"));
    segments.map(|(_, content)| KeyId(content[52..60].try_into().expect("eight bytes"))).collect()
}

#[test]
fn a5_keys_change_at_a_cut() {
    let mut run = Run::new(1, LogOptions { segment_bytes: 1 << 13, ..with(None) });
    let rings = [Some(ring(1, &[]).plain_too()), Some(ring(2, &[1]).plain_too()), None];
    run.step(Step::Commit(50)).unwrap();
    for keys in &rings {
        run.log().set_keys(keys.clone().map(Arc::new));
        run.step(Step::Commit(50)).unwrap();
        let cut = run.log().cut().unwrap();
        assert_eq!(cut.version, run.log().last_version());
        run.step(Step::Commit(50)).unwrap();
    }
    // A cut without records in between begins a new segment all the same.
    run.log().cut().unwrap();
    run.log().set_keys(rings[1].clone().map(Arc::new));
    run.log().cut().unwrap();
    let disk = &run.sim.disk;
    let none = KeyId::NONE;
    assert_eq!(segment_keys(disk), [none, key(1).id(), key(2).id(), none, none, key(2).id()]);
    assert_eq!(opened(disk, &with(rings[1].clone())), Ok(7));
    let needs = |outcome| matches!(outcome, Err(Error::NeedsKey { needed, .. }) if needed == key(2).id());
    assert!(needs(opened(disk, &with(rings[0].clone()))));
}

/// The records of a segment: where each begins, and where it ends.
fn records(segment: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 64;
    while segment.get(at) == Some(&0xB1) {
        let length = u32::from_le_bytes(segment[at + 4..at + 8].try_into().expect("four bytes")) as usize;
        let end = at + 64 + length.next_multiple_of(8);
        if end > segment.len() {
            break;
        }
        found.push((at, end));
        at = end;
    }
    found
}

/// Checksums and links right again from the record at `from`, as one who knows the format would forge them.
fn make_right(segment: &mut [u8], number: u64) {
    let base = u64::from_le_bytes(segment[40..48].try_into().expect("eight bytes"));
    let mut previous: [u8; 4] = segment[48..52].try_into().expect("four bytes");
    for (at, _) in records(segment) {
        segment[at + 16..at + 20].copy_from_slice(&previous);
        let length = u32::from_le_bytes(segment[at + 4..at + 8].try_into().expect("four bytes")) as usize;
        let place = [number.to_le_bytes(), (base + at as u64).to_le_bytes()].concat();
        let payload = &segment[at + 64..at + 64 + length];
        let checked = [payload, &segment[at..at + 12], &segment[at + 16..at + 64], &place].concat();
        previous = crc32c::crc32c(&checked).to_le_bytes();
        segment[at + 12..at + 16].copy_from_slice(&previous);
    }
}

/// One who can write to the disk, knows the format and has not the key.
#[test]
fn a5_forged_records_are_refused() {
    let wide = LogOptions { segment_bytes: 1 << 12, ..with(Some(ring(1, &[]))) };
    let mut run = Run::new(2, wide);
    (0..6).for_each(|_| run.step(Step::Commit(40)).unwrap());
    let (path, content) = contents(&run.sim.disk).remove(0);
    let places = records(&content);
    assert_eq!(places.len(), 6);
    let refused = |forged: Vec<u8>, context: &str| {
        let disk = run.sim.disk.copy();
        disk.replace(&path, forged);
        let outcome = open(&Sim::over(disk, 1), &run.options, 0).map(|found| found.1.len());
        assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{context}: {outcome:?}");
    };
    let mut honest = content.clone();
    make_right(&mut honest, 1);
    assert!(honest == content, "forging nothing changes nothing");
    for (from, to) in (0..6).flat_map(|from| (0..6).map(move |to| (from, to))).filter(|(from, to)| from != to) {
        // The payload with its seal, and the whole record but for what must be right in its new place.
        for header in [48, 2] {
            let mut forged = content.clone();
            let (source, target) = (places[from].0, places[to].0);
            forged.copy_within(source + header..places[from].1, target + header);
            forged[target + 32..target + 48].copy_from_slice(&content[target + 32..target + 48]);
            make_right(&mut forged, 1);
            refused(forged, &format!("{from} over {to} from byte {header}"));
        }
    }
    for (at, value) in [(2, 0), (2, 1), (2, 4), (32, 9), (40, 1), (24, 64), (8, 1), (64, 1), (76, 1), (100, 1)] {
        let mut forged = content.clone();
        // The last one, so that nothing behind it tells.
        forged[places[5].0 + at] = forged[places[5].0 + at].wrapping_add(1).max(value);
        make_right(&mut forged, 1);
        refused(forged, &format!("byte {at}"));
    }
}

/// Two different messages under one key and nonce would give both away. Power cuts at every call, each followed by other
/// commits, from the same seed: what was torn is written again with other content.
pub fn nonces_are_unique_across_crashes(seeds: std::ops::Range<u64>) -> usize {
    let mut seen: BTreeMap<(String, [u8; 12]), Vec<u8>> = BTreeMap::new();
    let mut count = 0;
    for seed in seeds {
        let mut run = Run::new(seed, sealed(options(Durability::Buffered)));
        for size in [30, 0, 300, 30, 100, 700, 8, 8, 90] {
            run.step(Step::Commit(size)).expect("no fault is planned");
        }
        note(&run.sim.disk, &mut seen);
        for moment in run.created..=run.sim.disk.journal_len() {
            let image = Sim::over(run.sim.disk.image_at(moment, seed + moment as u64), seed);
            let (log, found, _) = open(&image, &run.options, 0).expect("no damage");
            let hash = found.last().map(|last| last.hash).unwrap_or_default();
            let appended = log.append_at(0, hash, &[moment as u8; 64]).expect("no fault is planned");
            log.wait(&appended).expect("no fault is planned");
            note(&image.disk, &mut seen);
            count += 1;
        }
    }
    count
}

fn note(disk: &SimDisk, seen: &mut BTreeMap<(String, [u8; 12]), Vec<u8>>) {
    for (path, content) in contents(disk).into_iter().filter(|(path, _)| path.ends_with(".seg")) {
        for (at, end) in records(&content) {
            let nonce = content[at + 64..at + 76].try_into().expect("twelve bytes");
            // All that is sealed, and the tag.
            let message = [&content[at..at + 12], &content[at + 16..end]].concat();
            let known = seen.entry((path.clone(), nonce)).or_insert_with(|| message.clone());
            assert!(*known == message, "{path} has two messages under the nonce {nonce:?}");
        }
    }
}

#[test]
fn a5_nonces_are_unique_across_crashes() {
    let seeds = 1..4 * scale();
    report("A5", nonces_are_unique_across_crashes(seeds.clone()), 0, seeds);
}
