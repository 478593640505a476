//! What remains of a log: every record that checks, in order, whatever became of the others.
//!
//! A record checks only where it was written, so what is found belongs there. It names the checksum of the one before: so
//! where nothing is missing that is known, and where something is there is a *gap*. What the records behind a gap rest on
//! is for the caller to judge, by the chain of state hashes of each branch.
//!
//! The end of the log is not known for sure: bytes that are no record there may be a write that a crash cut short, or
//! damage. Both are a gap. Where there are none, the log was longer if a record or the MANIFEST says so.

use super::codec::{Place, Unpacker, Unreadable};
use super::format::{self, HeaderFault, Record, SEGMENT_HEADER, SegmentHeader};
use super::recover::{read_whole, used_bytes};
use super::{Anchor, Entry, LARGEST_VERSION, LogOptions, Stamp, read, segment};
use crate::env::Env;
use crate::error::{Error, NO_MEMORY, Result};
use crate::seal::{FileCipher, KeyId, Keyring, Kind};

/// Bytes of the log that say nothing any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub file: String,
    pub offset: u64,
    pub length: u64,
    pub reason: String,
    /// The version of the record before, and of the one behind it, if there is any.
    pub after: u64,
    pub before: Option<u64>,
}

pub enum Found<'a> {
    /// A record, and where it stands in its segment.
    Record(Entry<'a>, u64),
    Gap(Gap),
}

pub type Take<'a> = &'a mut dyn FnMut(Found<'_>) -> Result<()>;

/// Hand over what can be read of the log behind `anchor`. Changes nothing.
pub fn read_remains(env: &Env, options: &LogOptions, anchor: Anchor, take: Take<'_>) -> Result<()> {
    let mut numbers = segment::numbers(&*env.disk)?;
    numbers.retain(|number| *number >= anchor.segment);
    let mut reader = Reader {
        env,
        options,
        take,
        unpacker: Unpacker::default(),
        pending: Vec::new(),
        checksum: None,
        end: None,
        witnessed: anchor.proven,
        proven: anchor.proven,
        anchor: anchor.version,
        version: anchor.version,
        time: anchor.time,
    };
    let mut expected = anchor.segment;
    for (index, &number) in numbers.iter().enumerate() {
        if number != expected {
            reader.missing(expected);
        }
        reader.segment(number, numbers.get(index + 1).copied())?;
        expected = number + 1;
    }
    if numbers.is_empty() {
        reader.missing(expected);
    }
    reader.finish(expected.max(anchor.segment + 1) - 1)
}

struct Reader<'a> {
    env: &'a Env,
    options: &'a LogOptions,
    take: Take<'a>,
    unpacker: Unpacker,
    /// Gaps since the last record.
    pending: Vec<Gap>,
    /// Of the record before; `None` behind a gap.
    checksum: Option<u32>,
    /// The position where the records end so far, where it is known.
    end: Option<u64>,
    /// The position up to which anything says that the log was durable.
    witnessed: u64,
    proven: u64,
    /// The version that all older ones are in runs of.
    anchor: u64,
    version: u64,
    time: u64,
}

/// A segment as far as its header, or what stands in for it, tells.
struct Begun {
    number: u64,
    base: u64,
    cipher: Option<FileCipher>,
    bytes: Vec<u8>,
    /// Where its records end, if a next segment says so.
    limit: usize,
    has_next: bool,
}

impl Begun {
    fn place(&self, offset: usize) -> Place {
        place(self.number, self.base, offset)
    }
}

fn place(segment: u64, base: u64, offset: usize) -> Place {
    Place { segment, position: base.saturating_add(offset as u64) }
}

impl Reader<'_> {
    fn missing(&mut self, number: u64) {
        self.gap(number, 0, 0, "the segment is missing");
        self.end = None;
    }

    fn gap(&mut self, number: u64, offset: usize, length: usize, reason: &str) {
        self.checksum = None;
        self.pending.push(Gap {
            file: segment::path(number),
            offset: offset as u64,
            length: length as u64,
            reason: reason.to_owned(),
            after: self.version,
            before: None,
        });
    }

    fn tell_gaps(&mut self, before: Option<u64>) -> Result<()> {
        for gap in std::mem::take(&mut self.pending) {
            (self.take)(Found::Gap(Gap { before, ..gap }))?;
        }
        Ok(())
    }

    fn segment(&mut self, number: u64, next: Option<u64>) -> Result<()> {
        let path = segment::path(number);
        let mut bytes = Vec::new();
        match self.env.disk.open(&path)? {
            Some(file) => read_whole(&*file, &path, &mut bytes)?,
            None => {
                self.missing(number);
                return Ok(());
            }
        }
        match self.begin(number, bytes)? {
            Some(mut begun) => {
                if let Some(base) = next.map(|next| self.base_of(next)).transpose()?.flatten() {
                    begun.has_next = true;
                    let length = base.saturating_sub(begun.base);
                    begun.limit = begun.bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX));
                    self.records(&begun)?;
                    self.end = Some(base);
                    return Ok(());
                }
                begun.has_next = next.is_some();
                self.records(&begun)
            }
            None => {
                self.end = None;
                Ok(())
            }
        }
    }

    /// Where the next segment says that it begins.
    fn base_of(&self, number: u64) -> Result<Option<u64>> {
        let mut bytes = [0; SEGMENT_HEADER];
        let Some(file) = self.env.disk.open(&segment::path(number))? else { return Ok(None) };
        let count = file.read_at(0, &mut bytes)?;
        let header = SegmentHeader::decode(&bytes[..count]).ok();
        Ok(header.filter(|header| self.is_ours(header, number)).map(|header| header.base))
    }

    fn is_ours(&self, header: &SegmentHeader, number: u64) -> bool {
        header.database_id == self.options.database_id && header.number == number && header.base <= segment::MOST
    }

    /// Judge the header. `None` where nothing of the segment can be read.
    fn begin(&mut self, number: u64, bytes: Vec<u8>) -> Result<Option<Begun>> {
        let header = match SegmentHeader::decode(&bytes) {
            Ok(header) => header,
            Err(HeaderFault::TooNew(found)) => {
                return Err(Error::TooNew { file: segment::path(number), found, known: format::FORMAT });
            }
            Err(HeaderFault::Bad(reason)) => return self.begin_without_header(number, bytes, reason),
        };
        if !self.is_ours(&header, number) {
            self.gap(number, 0, bytes.len(), "the segment belongs elsewhere");
            return Ok(None);
        }
        let cipher = match segment::cipher(self.options.keys.as_deref(), &header) {
            Ok(cipher) => cipher,
            Err(error) => {
                self.gap(number, 0, bytes.len(), &error.to_string());
                return Ok(None);
            }
        };
        let follows = self.end.is_none_or(|end| end == header.base)
            && self.checksum.is_none_or(|checksum| checksum == header.previous);
        if !follows {
            self.gap(number, 40, 0, "the segment does not follow on the one before");
        }
        // In a first segment it is what its first record names, too.
        self.checksum = (follows && self.pending.is_empty()).then_some(header.previous);
        let limit = bytes.len();
        Ok(Some(Begun { number, base: header.base, cipher, bytes, limit, has_next: false }))
    }

    /// The records tell whether a base is right, and the keys are tried.
    fn begin_without_header(&mut self, number: u64, bytes: Vec<u8>, reason: &str) -> Result<Option<Begun>> {
        let claimed = read::number_and_base(&bytes).map(|(_, base)| base);
        let candidates =
            [self.end, claimed, Some(self.proven.saturating_sub(SEGMENT_HEADER as u64)), Some(self.proven), Some(0)];
        for base in candidates.into_iter().flatten().filter(|base| *base <= segment::MOST) {
            let Some(first) = next_record(&bytes, SEGMENT_HEADER, number, base) else { continue };
            let Some(cipher) = self.cipher_for(number, base, &bytes, first)? else { break };
            let limit = bytes.len();
            return Ok(Some(Begun { number, base, cipher, bytes, limit, has_next: false }));
        }
        // A segment gets its name when its header is durable, so this is damage. It costs nothing where there were no
        // records, which is believed of a header that is hardly damaged, before nothing but zeros.
        let base = self.end.or(claimed).filter(|base| *base <= segment::MOST).unwrap_or(self.proven);
        let expected = SegmentHeader {
            database_id: self.options.database_id,
            number,
            base,
            previous: self.checksum.unwrap_or_default(),
            key: KeyId::NONE,
        };
        let alike = |range: std::ops::Range<usize>| bytes.get(range.clone()) == Some(&expected.encode()[range]);
        let right = [0..8, 16..32, 32..40, 40..48].into_iter().filter(|range| alike(range.clone())).count();
        let is_empty = used_bytes(bytes.get(SEGMENT_HEADER..).unwrap_or_default()) == 0;
        if right < 3 || !is_empty {
            self.gap(number, 0, bytes.len(), reason);
            return Ok(None);
        }
        let limit = bytes.len();
        Ok(Some(Begun { number, base, cipher: None, bytes, limit, has_next: false }))
    }

    fn cipher_for(&mut self, number: u64, base: u64, bytes: &[u8], at: usize) -> Result<Option<Option<FileCipher>>> {
        let Ok(record) = format::read(bytes, at, place(number, base, at)) else { return Ok(None) };
        let ring = self.options.keys.as_deref();
        let ids: Vec<KeyId> = ring.map(|ring| ring.ids().collect()).unwrap_or_default();
        let mut candidates: Vec<Option<FileCipher>> = Vec::new();
        for id in ids {
            candidates.push(ring.map(|ring| ring.cipher(Kind::Log, number, id)).transpose()?);
        }
        if ring.is_none_or(Keyring::reads_plain) {
            candidates.push(None);
        }
        let opens = |cipher: &Option<FileCipher>| {
            Unpacker::default().unpack(place(number, base, at), &record, cipher.as_ref()).is_ok()
        };
        Ok(candidates.into_iter().find(opens))
    }

    fn records(&mut self, begun: &Begun) -> Result<()> {
        let mut offset = SEGMENT_HEADER;
        let mut reason = "the log ends here";
        while offset < begun.limit {
            match format::read(&begun.bytes, offset, begun.place(offset)) {
                Ok(record) => {
                    self.record(begun, offset, &record)?;
                    offset = record.end;
                }
                Err(why) => {
                    reason = why;
                    let next = next_record(&begun.bytes, (offset + 8).next_multiple_of(8), begun.number, begun.base);
                    let Some(next) = next.filter(|next| *next < begun.limit) else { break };
                    self.gap(begun.number, offset, next - offset, why);
                    offset = next;
                }
            }
        }
        let rest = begun.bytes.get(offset..begun.limit).unwrap_or_default();
        let used = used_bytes(rest);
        if used > 0 {
            self.gap(begun.number, offset, used, reason);
        } else if begun.has_next && !rest.is_empty() {
            self.gap(begun.number, offset, rest.len(), "records are missing");
        }
        self.end = begun.base.checked_add(offset as u64);
        Ok(())
    }

    fn record(&mut self, begun: &Begun, offset: usize, record: &Record<'_>) -> Result<()> {
        let fields = &record.header;
        if self.checksum.is_some_and(|checksum| checksum != fields.previous) {
            self.gap(begun.number, offset, 0, "a record does not follow on the one before");
        }
        let length = record.end - offset;
        if fields.version <= self.anchor {
            // The log begins before the checkpoint: it is in the runs.
            self.checksum = Some(record.checksum);
            return Ok(());
        }
        if fields.version <= self.version || fields.time < self.time || fields.version > LARGEST_VERSION {
            self.gap(begun.number, offset, length, "the version or time of a record runs backwards");
            return Ok(());
        }
        let mut unpacker = std::mem::take(&mut self.unpacker);
        match unpacker.unpack(begun.place(offset), record, begun.cipher.as_ref()) {
            Ok((hash, payload)) => {
                self.tell_gaps(Some(fields.version))?;
                let stamp = Stamp { version: fields.version, time: fields.time, hash };
                let position = begun.base + record.end as u64;
                let entry = Entry { stamp, payload, position, segment: begun.number };
                (self.take)(Found::Record(entry, offset as u64))?;
                self.checksum = Some(record.checksum);
                (self.version, self.time) = (fields.version, fields.time);
                self.witnessed = self.witnessed.max(fields.synced_upto);
            }
            Err(other @ (Unreadable::Codec(_) | Unreadable::Damaged(NO_MEMORY))) => {
                return Err(other.at(segment::path(begun.number), offset as u64));
            }
            Err(Unreadable::Damaged(reason)) => self.gap(begun.number, offset, length, reason),
        }
        self.unpacker = unpacker;
        Ok(())
    }

    fn finish(&mut self, newest: u64) -> Result<()> {
        let is_cut = self.pending.is_empty() && self.end.is_none_or(|end| end < self.witnessed);
        if is_cut {
            let reason = format!("the log was durable up to position {}, and it is not there", self.witnessed);
            self.gap(newest, 0, 0, &reason);
        }
        self.tell_gaps(None)
    }
}

/// The first record that checks at or behind an offset.
fn next_record(bytes: &[u8], from: usize, number: u64, base: u64) -> Option<usize> {
    // Bytes made to look like many long records would make this quadratic. No damage leaves such.
    let mut budget = bytes.len().saturating_mul(16);
    let mut at = from;
    while at + format::RECORD_HEADER <= bytes.len() && budget > 0 {
        budget = budget.saturating_sub(8 + format::claimed_length(bytes, at));
        if format::read(bytes, at, place(number, base, at)).is_ok() {
            return Some(at);
        }
        at += 8;
    }
    None
}
