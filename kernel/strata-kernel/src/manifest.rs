//! The MANIFEST: the few facts from which all files of a database are found.
//!
//! It is replaced as a whole (`MANIFEST.tmp`, sync, rename, directory sync), so a crash leaves the old
//! one or the new one, and a file that does not check is damage. Bytes: `docs/design/format.md`.
//!
//! A second file, `MANIFEST.bak`, says the same once more. Only `salvage` reads it, when the MANIFEST is damaged or gone: names
//! and parents of branches stand nowhere else. It is written when the MANIFEST is in force and before anything goes that
//! the MANIFEST before needed. Nothing waits for it: it may be older after a failing disk or a power cut, until the next
//! opening for writing.
//!
//! With a key the state is sealed, as it holds names; the numbers before it are plain and authenticated with it. So is
//! `plain_too`, without which nobody who can write to the disk gets files read that are not sealed.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::env::Disk;
use crate::error::{Error, Result};
use crate::log::Anchor;
use crate::sabotage;
use crate::seal::{self, KeyId, Keyring, Kind};
use crate::state::State;

pub const PATH: &str = "MANIFEST";
/// What the MANIFEST says, once more.
pub const COPY: &str = "MANIFEST.bak";
const TEMPORARY: &str = "MANIFEST.tmp";

const MAGIC: [u8; 8] = *b"strataMF";
pub const FORMAT: u32 = 1;
/// Everything but the runs and the state.
pub(crate) const FIXED: usize = 112;
/// A MANIFEST larger than this is none: it would know of millions of branches.
const LARGEST: u64 = 256 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    pub database_id: [u8; 16],
    pub created_us: u64,
    /// The first live segment of the log.
    pub segment: u64,
    /// The position up to which the log was durable when this was written.
    pub proven: u64,
    /// The runs hold everything up to this version, of this time; the log goes on from there.
    pub checkpoint_version: u64,
    pub checkpoint_time: u64,
    /// How new files are packed; see `log::Codec`.
    pub codec: u8,
    /// A backup, which nobody has written to.
    pub is_backup: bool,
    /// The number of the next run file: numbers are never given twice.
    pub next_run: u64,
    /// Numbers of the live run files, oldest first.
    pub runs: Vec<u64>,
    /// Of a sealed one: files that are not sealed may still be among the others.
    pub plain_too: bool,
    /// The branches at the checkpoint, and what else the rows do not say.
    pub state: State,
}

/// The keys to the database with an id, if any were given.
pub type Keys<'a> = &'a dyn Fn([u8; 16]) -> Option<Arc<Keyring>>;

/// A MANIFEST whose state is not opened yet.
pub(crate) struct Closed<'a> {
    pub manifest: Manifest,
    pub key: KeyId,
    fixed: &'a [u8; FIXED],
    runs: &'a [u8],
    stored: &'a [u8],
}

impl Manifest {
    /// Where the log begins, and what is known of it.
    pub fn anchor(&self) -> Anchor {
        Anchor {
            segment: self.segment,
            proven: self.proven,
            version: self.checkpoint_version,
            time: self.checkpoint_time,
        }
    }

    /// The MANIFEST of the database; `None` when there is none.
    pub fn read(disk: &dyn Disk, keys: Keys<'_>) -> Result<Option<Manifest>> {
        Manifest::read_from(disk, PATH, keys)
    }

    /// What stands in the MANIFEST or in its copy; errors name the MANIFEST.
    pub(crate) fn read_from(disk: &dyn Disk, path: &str, keys: Keys<'_>) -> Result<Option<Manifest>> {
        let Some(bytes) = read_file(disk, path)? else { return Ok(None) };
        let closed = Manifest::decode(&bytes)?;
        let keys = keys(closed.manifest.database_id);
        closed.open(keys.as_deref()).map(Some)
    }

    /// All but the state, which takes no key; nor does it tell whether somebody has changed it.
    pub fn numbers(disk: &dyn Disk) -> Result<Option<Manifest>> {
        let Some(bytes) = read_file(disk, PATH)? else { return Ok(None) };
        Manifest::decode(&bytes).map(|closed| Some(closed.manifest))
    }

    /// What the MANIFEST is sealed with, which is said without a key; `None` when there is none.
    pub fn key(disk: &dyn Disk) -> Result<Option<KeyId>> {
        Manifest::key_in(disk, PATH)
    }

    pub(crate) fn key_in(disk: &dyn Disk, path: &str) -> Result<Option<KeyId>> {
        let Some(bytes) = read_file(disk, path)? else { return Ok(None) };
        Manifest::decode(&bytes).map(|closed| Some(closed.key))
    }

    /// Make this the MANIFEST, durably, sealed with the current key. After an error the old one or this one is there.
    pub fn write(&self, disk: &dyn Disk, keys: Option<&Keyring>) -> Result<()> {
        let bytes = self.encode(keys)?;
        replace(disk, PATH, &bytes)?;
        if !sabotage::on("K25") {
            disk.sync_dir("")?;
        }
        write_copy(disk, &bytes);
        Ok(())
    }

    fn encode(&self, keys: Option<&Keyring>) -> Result<Vec<u8>> {
        let key = keys.map_or(KeyId::NONE, Keyring::of_manifest);
        let cipher = seal::cipher(keys, Kind::Manifest, 0, key)?;
        let mut state = if cipher.is_some() { vec![u8::from(self.plain_too)] } else { Vec::new() };
        state.extend(self.state.encode());
        let stored = state.len() + if cipher.is_some() { seal::SEAL_BYTES } else { 0 };
        let mut bytes = Vec::with_capacity(FIXED + 8 * self.runs.len() + stored);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]); // the checksum
        bytes.extend_from_slice(&self.database_id);
        let Manifest { created_us, segment, proven, checkpoint_version, checkpoint_time, next_run, .. } = *self;
        for number in [created_us, segment, proven, checkpoint_version, checkpoint_time, next_run] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&[self.codec, u8::from(self.is_backup), 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&(self.runs.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&(stored as u64).to_le_bytes());
        bytes.extend_from_slice(&key.0);
        self.runs.iter().for_each(|run| bytes.extend_from_slice(&run.to_le_bytes()));
        match cipher {
            Some(cipher) => {
                let extra = bound(bytes.first_chunk().expect("just written"), &bytes[FIXED..]);
                cipher.seal(0, &extra, &state, &mut bytes);
            }
            None => bytes.extend_from_slice(&state),
        }
        let checksum = checksum(&bytes);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        Ok(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Closed<'_>> {
        if bytes.len() < 16 || bytes[..8] != MAGIC {
            return Err(corrupt(0, "it is not the MANIFEST of a Strata database"));
        }
        // Magic, version and checksum have this place in every version, so a newer one is told from damage.
        if u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) != checksum(bytes) {
            return Err(corrupt(12, "it has another checksum"));
        }
        let format = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        if format != FORMAT {
            return Err(Error::TooNew { file: PATH.to_owned(), found: format, known: FORMAT });
        }
        Manifest::parse(bytes)
    }

    /// What bytes say that may be anything.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Closed<'_>> {
        let Some(fixed) = bytes.first_chunk::<FIXED>() else { return Err(corrupt(16, "it is too short")) };
        let number = |at: usize| u64::from_le_bytes(*fixed[at..].first_chunk().expect("within FIXED bytes"));
        let (runs, state) = (number(88), number(96));
        let rest = &bytes[FIXED..];
        if rest.len() as u64 != runs.saturating_mul(8).saturating_add(state) {
            return Err(corrupt(88, "it has not the length that its runs and its state need"));
        }
        let (runs, stored) = rest.split_at(8 * runs as usize);
        let manifest = Manifest {
            database_id: *bytes[16..].first_chunk().expect("at least FIXED bytes"),
            created_us: number(32),
            segment: number(40),
            proven: number(48),
            checkpoint_version: number(56),
            checkpoint_time: number(64),
            next_run: number(72),
            codec: bytes[80],
            is_backup: bytes[81] == 1,
            runs: runs.as_chunks().0.iter().map(|run| u64::from_le_bytes(*run)).collect(),
            plain_too: false,
            state: State::default(),
        };
        let key = KeyId(*fixed[104..].first_chunk().expect("within FIXED bytes"));
        Ok(Closed { manifest, key, fixed, runs, stored })
    }
}

impl Closed<'_> {
    /// With the state. `NeedsKey` when that takes a key that is not there.
    pub fn open(self, keys: Option<&Keyring>) -> Result<Manifest> {
        let Closed { manifest, key, fixed, runs, stored } = self;
        let Some(cipher) = seal::cipher(keys, Kind::Manifest, 0, key)? else {
            return Ok(Manifest { state: State::decode(stored)?, ..manifest });
        };
        let at = (FIXED + runs.len()) as u64;
        let mut plain = Vec::new();
        cipher.open(0, &bound(fixed, runs), stored, &mut plain).map_err(|reason| corrupt(at, reason))?;
        match plain.split_first() {
            Some((flags @ (0 | 1), state)) => {
                Ok(Manifest { plain_too: *flags == 1, state: State::decode(state)?, ..manifest })
            }
            _ => Err(corrupt(at, "it has no state")),
        }
    }
}

/// All before the sealed state but magic, format and checksum, in few bytes: the runs by a hash of their numbers.
fn bound(fixed: &[u8; FIXED], runs: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(&fixed[16..]).chain_update(runs).finalize().into()
}

/// Let a file have this content or, after a crash, what it had.
fn replace(disk: &dyn Disk, path: &str, bytes: &[u8]) -> Result<()> {
    let file = match disk.create(TEMPORARY) {
        // Left by a crash: what it holds was never in force.
        Err(Error::Storage { errno: 17, .. }) => {
            disk.remove(TEMPORARY)?;
            disk.create(TEMPORARY)?
        }
        other => other?,
    };
    file.write_at(0, bytes)?;
    if !sabotage::on("T18") {
        file.sync()?;
    }
    disk.rename(TEMPORARY, path)
}

/// Write the copy. The database is whole without one, so a failure is none of it; but rather none than an older one.
fn write_copy(disk: &dyn Disk, bytes: &[u8]) {
    if replace(disk, COPY, bytes).is_err() {
        let _ = disk.remove(COPY);
    }
}

/// See to it that the copy says what the MANIFEST does.
pub fn renew_copy(disk: &dyn Disk) -> Result<()> {
    if let Some(bytes) = read_file(disk, PATH)?
        && read_file(disk, COPY).ok().flatten().as_ref() != Some(&bytes)
    {
        write_copy(disk, &bytes);
    }
    Ok(())
}

/// `Corrupt` where there is a copy, and it is none of this database. An older one may be sealed with an older key.
pub fn check_copy(disk: &dyn Disk, database_id: [u8; 16]) -> Result<()> {
    let Some(bytes) = read_file(disk, COPY)? else { return Ok(()) };
    let damaged = |offset, reason| Err(Error::Corrupt { file: COPY.to_owned(), offset, reason });
    match Manifest::decode(&bytes) {
        Ok(closed) if closed.manifest.database_id != database_id => {
            damaged(16, "it is that of another database".to_owned())
        }
        Ok(_) => Ok(()),
        Err(Error::Corrupt { offset, reason, .. }) => damaged(offset, reason),
        Err(other) => Err(other),
    }
}

fn read_file(disk: &dyn Disk, path: &str) -> Result<Option<Vec<u8>>> {
    let Some(file) = disk.open(path)? else { return Ok(None) };
    let size = file.size()?;
    if size > LARGEST {
        return Err(corrupt(LARGEST, "it is too large"));
    }
    let mut bytes = vec![0; size as usize];
    let count = file.read_at(0, &mut bytes)?;
    if count < bytes.len() && file.size()? == size {
        // The disk's fault, and no word on what the file holds.
        let message = "the file gave fewer bytes than its size".to_owned();
        return Err(Error::Storage { operation: "read", path: disk.describe(PATH), errno: 0, message });
    }
    bytes.truncate(count);
    Ok(Some(bytes))
}

/// Remove what a replacement that did not come to its end has left.
pub fn clear(disk: &dyn Disk) -> Result<()> {
    let names = disk.list("")?.unwrap_or_default();
    if names.iter().any(|name| name == TEMPORARY) { disk.remove(TEMPORARY) } else { Ok(()) }
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

fn corrupt(offset: u64, reason: &str) -> Error {
    Error::Corrupt { file: PATH.to_owned(), offset, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::sim::{Fault, FaultKind, SimDisk};

    fn none(_: [u8; 16]) -> Option<Arc<Keyring>> {
        None
    }

    fn ring(number: u8) -> Keyring {
        let key: Vec<u8> = (number..number + 32).collect();
        Keyring::new(*b"0123456789abcdef", seal::Key::new(&key).unwrap(), [])
    }

    fn example(proven: u64) -> Manifest {
        let database_id = *b"0123456789abcdef";
        Manifest { database_id, created_us: 7, segment: 3, proven, runs: vec![4, 9], ..Manifest::default() }
    }

    #[test]
    fn what_was_written_is_read() {
        let disk = SimDisk::new(1);
        assert_eq!(Manifest::read(&disk, &none), Ok(None));
        for proven in 1..3 {
            example(proven).write(&disk, None).unwrap();
            assert_eq!(Manifest::read(&disk, &none), Ok(Some(example(proven))));
        }
        assert_eq!(disk.paths(), [PATH, COPY]);
        assert_eq!(disk.content(PATH), disk.content(COPY));
    }

    #[test]
    fn a_sealed_one_is_read_with_its_key_as_it_was_written_only() {
        let disk = SimDisk::new(1);
        let mut sealed = Manifest { plain_too: true, ..example(1) };
        sealed.state.keyspaces.push(("a canary".to_owned(), "kv".to_owned()));
        sealed.write(&disk, Some(&ring(1))).unwrap();
        assert_eq!(Manifest::read(&disk, &|_| Some(Arc::new(ring(1)))), Ok(Some(sealed)));
        let needed = ring(1).current();
        assert_eq!(Manifest::key(&disk), Ok(Some(needed)));
        assert_eq!(Manifest::read(&disk, &none), Err(Error::NeedsKey { needed, given: vec![] }));
        let given = vec![ring(2).current()];
        assert_eq!(Manifest::read(&disk, &|_| Some(Arc::new(ring(2)))), Err(Error::NeedsKey { needed, given }));
        let mut bytes = disk.content(PATH).unwrap();
        assert!(!bytes.windows(8).any(|window| window == b"a canary"));
        // Whoever changes it can make the checksum right, and no more.
        for at in 16..bytes.len() {
            bytes[at] ^= 1;
            let checksum = checksum(&bytes);
            bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
            assert!(Manifest::decode(&bytes).and_then(|closed| closed.open(Some(&ring(1)))).is_err(), "byte {at}");
            bytes[at] ^= 1;
        }
        example(1).write(&disk, None).unwrap();
        assert!(matches!(Manifest::read(&disk, &|_| Some(Arc::new(ring(1)))), Err(Error::InvalidInput(_))));
    }

    #[test]
    fn every_bit_and_every_length_is_checked() {
        let whole = example(1).encode(None).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Manifest::decode(&damaged), Err(Error::Corrupt { .. })), "bit {bit}");
        }
        for length in 0..whole.len() {
            assert!(matches!(Manifest::decode(&whole[..length]), Err(Error::Corrupt { .. })), "length {length}");
        }
    }

    /// The fault is the disk's, and says nothing of the file.
    #[test]
    fn a_short_read_is_no_damage() {
        let disk = SimDisk::new(1);
        example(1).write(&disk, None).unwrap();
        for at in 0..8 {
            disk.fail(Fault { at: disk.calls() + at, forever: false, kind: FaultKind::ShortRead });
            match Manifest::read(&disk, &none) {
                Ok(found) => assert_eq!(found, Some(example(1))),
                Err(error) => assert!(matches!(error, Error::Storage { .. }), "{error}"),
            }
            disk.heal();
        }
    }

    #[test]
    fn a_newer_one_is_refused_as_such() {
        let mut newer = example(1).encode(None).unwrap();
        newer[8] = 2;
        let checksum = checksum(&newer);
        newer[12..16].copy_from_slice(&checksum.to_le_bytes());
        assert!(matches!(Manifest::decode(&newer), Err(Error::TooNew { found: 2, known: 1, .. })));
    }

    /// The old or the new one, after a power cut at every call.
    fn replaced_atomically() -> bool {
        let disk = SimDisk::new(1);
        example(1).write(&disk, None).unwrap();
        let before = disk.journal_len();
        example(2).write(&disk, None).unwrap();
        (before..=disk.journal_len()).all(|count| {
            (0..40).all(|seed| match Manifest::read(&disk.image_at(count, seed), &none) {
                Ok(Some(found)) => found.proven == 2 || (found.proven == 1 && count < disk.journal_len()),
                _ => false,
            })
        })
    }

    #[test]
    fn a_power_cut_leaves_the_old_or_the_new_one() {
        assert!(replaced_atomically());
    }

    #[test]
    fn a_copy_that_is_not_the_manifest_is_renewed_and_a_damaged_one_is_told() {
        let disk = SimDisk::new(1);
        example(1).write(&disk, None).unwrap();
        let (whole, id) = (disk.content(PATH).unwrap(), example(1).database_id);
        assert_eq!(check_copy(&disk, id), Ok(()));
        for wrong in [example(2).encode(None).unwrap(), whole[..9].to_vec(), Vec::new()] {
            let is_damaged = Manifest::decode(&wrong).is_err();
            disk.replace(COPY, wrong);
            assert_eq!(check_copy(&disk, id).is_err(), is_damaged);
            renew_copy(&disk).unwrap();
            assert_eq!(disk.content(COPY), Some(whole.clone()));
        }
        assert!(matches!(check_copy(&disk, [0; 16]), Err(Error::Corrupt { file, .. }) if file == COPY));
        disk.remove(COPY).unwrap();
        assert_eq!(check_copy(&disk, id), Ok(()));
    }

    #[cfg(feature = "sabotage")]
    #[test]
    fn sabotage_t18_renamed_unsynced_is_caught() {
        assert!(!sabotage::with("T18", replaced_atomically));
    }
}
