//! The MANIFEST: the few facts from which all files of a database are found.
//!
//! It is replaced as a whole (`MANIFEST.tmp`, sync, rename, directory sync), so a crash leaves the old
//! one or the new one, and a file that does not check is damage. Bytes: `docs/design/format.md`.

use crate::env::Disk;
use crate::error::{Error, Result};
use crate::log::Anchor;
use crate::sabotage;
use crate::state::State;

pub const PATH: &str = "MANIFEST";
const TEMPORARY: &str = "MANIFEST.tmp";

const MAGIC: [u8; 8] = *b"strataMF";
pub const FORMAT: u32 = 1;
/// Everything but the runs and the state.
pub(crate) const FIXED: usize = 104;
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
    /// The branches at the checkpoint, and what else the rows do not say.
    pub state: State,
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
    pub fn read(disk: &dyn Disk) -> Result<Option<Manifest>> {
        let Some(file) = disk.open(PATH)? else { return Ok(None) };
        let size = file.size()?;
        if size > LARGEST {
            return Err(corrupt(LARGEST, "it is too large"));
        }
        let mut bytes = vec![0; size as usize];
        let count = file.read_at(0, &mut bytes)?;
        Manifest::decode(&bytes[..count]).map(Some)
    }

    /// Make this the MANIFEST, durably. After an error the old one or this one is there.
    pub fn write(&self, disk: &dyn Disk) -> Result<()> {
        let file = match disk.create(TEMPORARY) {
            // Left by a crash: what it holds was never in force.
            Err(Error::Storage { errno: 17, .. }) => {
                disk.remove(TEMPORARY)?;
                disk.create(TEMPORARY)?
            }
            other => other?,
        };
        file.write_at(0, &self.encode())?;
        if !sabotage::on("T18") {
            file.sync()?;
        }
        disk.rename(TEMPORARY, PATH)?;
        disk.sync_dir("")
    }

    fn encode(&self) -> Vec<u8> {
        let state = self.state.encode();
        let mut bytes = Vec::with_capacity(FIXED + 8 * self.runs.len() + state.len());
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
        bytes.extend_from_slice(&(state.len() as u64).to_le_bytes());
        self.runs.iter().for_each(|run| bytes.extend_from_slice(&run.to_le_bytes()));
        bytes.extend_from_slice(&state);
        let checksum = checksum(&bytes);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Manifest> {
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
    pub(crate) fn parse(bytes: &[u8]) -> Result<Manifest> {
        let Some(fixed) = bytes.first_chunk::<FIXED>() else { return Err(corrupt(16, "it is too short")) };
        let number = |at: usize| u64::from_le_bytes(*fixed[at..].first_chunk().expect("within FIXED bytes"));
        let (runs, state) = (number(88), number(96));
        let rest = &bytes[FIXED..];
        if rest.len() as u64 != runs.saturating_mul(8).saturating_add(state) {
            return Err(corrupt(88, "it has not the length that its runs and its state need"));
        }
        let (runs, state) = rest.split_at(8 * runs as usize);
        Ok(Manifest {
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
            state: State::decode(state)?,
        })
    }
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
    use crate::env::sim::SimDisk;

    fn example(proven: u64) -> Manifest {
        let database_id = *b"0123456789abcdef";
        Manifest { database_id, created_us: 7, segment: 3, proven, runs: vec![4, 9], ..Manifest::default() }
    }

    #[test]
    fn what_was_written_is_read() {
        let disk = SimDisk::new(1);
        assert_eq!(Manifest::read(&disk), Ok(None));
        for proven in 1..3 {
            example(proven).write(&disk).unwrap();
            assert_eq!(Manifest::read(&disk), Ok(Some(example(proven))));
        }
        assert_eq!(disk.paths(), [PATH]);
    }

    #[test]
    fn every_bit_and_every_length_is_checked() {
        let whole = example(1).encode();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Manifest::decode(&damaged), Err(Error::Corrupt { .. })), "bit {bit}");
        }
        for length in 0..whole.len() {
            assert!(matches!(Manifest::decode(&whole[..length]), Err(Error::Corrupt { .. })), "length {length}");
        }
    }

    #[test]
    fn a_newer_one_is_refused_as_such() {
        let mut newer = example(1).encode();
        newer[8] = 2;
        let checksum = checksum(&newer);
        newer[12..16].copy_from_slice(&checksum.to_le_bytes());
        assert!(matches!(Manifest::decode(&newer), Err(Error::TooNew { found: 2, known: 1, .. })));
    }

    /// The old or the new one, after a power cut at every call.
    fn replaced_atomically() -> bool {
        let disk = SimDisk::new(1);
        example(1).write(&disk).unwrap();
        let before = disk.journal_len();
        example(2).write(&disk).unwrap();
        (before..=disk.journal_len()).all(|count| {
            (0..40).all(|seed| match Manifest::read(&disk.image_at(count, seed)) {
                Ok(Some(found)) => found.proven == 2 || (found.proven == 1 && count < disk.journal_len()),
                _ => false,
            })
        })
    }

    #[test]
    fn a_power_cut_leaves_the_old_or_the_new_one() {
        assert!(replaced_atomically());
    }

    #[cfg(feature = "sabotage")]
    #[test]
    fn sabotage_t18_renamed_unsynced_is_caught() {
        assert!(!sabotage::with("T18", replaced_atomically));
    }
}
