//! What belongs to a run and can be made of it again: the parts of its indexes.
//!
//! A file beside the run, of the same number, with the same header (but for the magic), frames and tail:
//!
//! ```text
//! header | derived frame ... | footer frame | tail
//! footer  bytes of the run varint | its rows varint | count varint | for each section: branch varint | keyspace varint | offset varint | length varint
//! ```
//!
//! A section is cut into frames of 1 MiB that lie behind each other from `offset` on. Whatever is wrong with the file, it is
//! made again; what is read from it was checked as a run is.

use std::sync::Arc;

use super::frame::{FRAME_HEADER, FrameHeader, FrameKind, Framing, HEADER, TAIL};
use super::varint::{self, Reader};
use super::{DIRECTORY, Run, RunOptions, read_exactly};
use crate::env::{Disk, File};
use crate::error::{Error, Result};
use crate::seal::{self, KeyId, Kind};

const MAGIC: [u8; 8] = *b"strataIX";
const PIECE_BYTES: usize = 1 << 20;

/// What it is of: a branch and a keyspace.
pub type Section = (u32, u32);

pub fn derived_path(number: u64) -> String {
    format!("{DIRECTORY}/run-{number:06}.idx")
}

fn temporary_path(number: u64) -> String {
    format!("{}.tmp", derived_path(number))
}

/// The number of the run that a file belongs to, if it is such a file, whole or not.
pub fn derived_number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".tmp").unwrap_or(name).strip_prefix("run-")?.strip_suffix(".idx")?.parse().ok()
}

fn framing(options: &RunOptions, number: u64, key: KeyId) -> Result<Framing> {
    let cipher = seal::cipher(options.keys.as_deref(), Kind::Index, number, key)?;
    Ok(Framing { database_id: options.database_id, run: number, compress: options.compress, key, cipher })
}

/// Write the file of a run. After an error there is none of that name, or a whole one.
pub fn write_derived(disk: &dyn Disk, run: &Run, options: &RunOptions, sections: &[(Section, Vec<u8>)]) -> Result<()> {
    let number = run.number();
    let framing = framing(options, number, options.key())?;
    let temporary = temporary_path(number);
    let file = match disk.create(&temporary) {
        Err(Error::Storage { errno: 17, .. }) => {
            disk.remove(&temporary)?;
            disk.create(&temporary)?
        }
        other => other?,
    };
    let outcome = write_sections(&*file, &framing, run, sections).and_then(|()| file.sync());
    if let Err(error) = outcome.and_then(|()| disk.rename(&temporary, &derived_path(number))) {
        let _ = disk.remove(&temporary);
        return Err(error);
    }
    Ok(())
}

fn write_sections(file: &dyn File, framing: &Framing, run: &Run, sections: &[(Section, Vec<u8>)]) -> Result<()> {
    let mut footer = Vec::new();
    identity(run).into_iter().for_each(|number| varint::put(&mut footer, number));
    varint::put(&mut footer, sections.len() as u64);
    file.write_at(0, &framing.header_with(MAGIC))?;
    let (mut at, mut frame) = (HEADER as u64, Vec::new());
    for ((branch, keyspace), bytes) in sections {
        for number in [u64::from(*branch), u64::from(*keyspace), at, bytes.len() as u64] {
            varint::put(&mut footer, number);
        }
        for piece in bytes.chunks(PIECE_BYTES) {
            frame.clear();
            framing.append(FrameKind::Derived, at, piece, &mut frame)?;
            file.write_at(at, &frame)?;
            at += frame.len() as u64;
        }
    }
    frame.clear();
    let footer_bytes = framing.append(FrameKind::Footer, at, &footer, &mut frame)?;
    frame.extend_from_slice(&framing.tail(at, footer_bytes));
    file.write_at(at, &frame)
}

/// Tells a run from another that once had its number, and was never in force.
fn identity(run: &Run) -> [u64; 2] {
    [run.file_bytes(), run.rows()]
}

/// A file of sections that can be read.
pub struct Derived {
    file: Arc<dyn File>,
    name: String,
    framing: Framing,
    sections: Vec<(Section, u64, usize)>,
    frames_end: u64,
    size: u64,
}

impl Derived {
    /// `None` where there is no such file.
    pub fn open(disk: &dyn Disk, run: &Run, options: &RunOptions) -> Result<Option<Derived>> {
        let number = run.number();
        let name = derived_path(number);
        let Some(file) = disk.open(&name)? else { return Ok(None) };
        let size = file.size()?;
        let mut header = [0; HEADER];
        let count = file.read_at(0, &mut header)?;
        let plain =
            Framing { database_id: options.database_id, run: number, compress: false, key: KeyId::NONE, cipher: None };
        let key = plain.check_header_with(MAGIC, &header[..count], &name)?;
        let framing = framing(options, number, key)?;
        let mut derived = Derived { file, name, framing, sections: Vec::new(), frames_end: size, size };
        let at = size.saturating_sub(TAIL as u64);
        let tail = derived.read(at, TAIL)?;
        let tail = tail.first_chunk().expect("so many were read");
        let (footer, length) = derived.framing.read_tail(tail, size).map_err(|reason| derived.corrupt(at, reason))?;
        derived.frames_end = footer;
        let payload = derived.frame(FrameKind::Footer, footer, length as usize)?;
        derived.sections =
            sections_of(&payload, footer, run).ok_or_else(|| derived.corrupt(footer, "no footer is here"))?;
        Ok(Some(derived))
    }

    pub fn key(&self) -> KeyId {
        self.framing.key
    }

    pub fn file_bytes(&self) -> u64 {
        self.size
    }

    pub fn sections(&self) -> impl Iterator<Item = (Section, usize)> {
        self.sections.iter().map(|(section, _, length)| (*section, *length))
    }

    /// The bytes of a section, if there is one.
    pub fn section(&self, section: Section) -> Result<Option<Vec<u8>>> {
        let Some((_, at, length)) = self.sections.iter().find(|(other, ..)| *other == section) else {
            return Ok(None);
        };
        let (mut at, mut bytes) = (*at, Vec::new());
        while bytes.len() < *length {
            let head = self.read(at, FRAME_HEADER)?;
            let header = FrameHeader::decode(&head).map_err(|reason| self.corrupt(at, reason))?;
            if at + header.frame_bytes() as u64 > self.frames_end {
                return Err(self.corrupt(at, "a frame goes beyond the footer"));
            }
            let piece = self.frame(FrameKind::Derived, at, header.frame_bytes())?;
            if piece.is_empty() {
                return Err(self.corrupt(at, "a piece is empty"));
            }
            bytes.extend_from_slice(&piece);
            at += header.frame_bytes() as u64;
        }
        if bytes.len() == *length { Ok(Some(bytes)) } else { Err(self.corrupt(at, "a section is longer than it says")) }
    }

    /// Read and check all there is.
    pub fn verify(&self) -> Result<()> {
        self.sections.iter().try_for_each(|(section, ..)| self.section(*section).map(drop))
    }

    fn frame(&self, kind: FrameKind, at: u64, length: usize) -> Result<Vec<u8>> {
        let bytes = self.read(at, length)?;
        let payload = self.framing.open(kind, at, bytes).map_err(|reason| self.corrupt(at, reason))?;
        Ok(payload.bytes().to_vec())
    }

    fn read(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        if at.checked_add(length as u64).is_none_or(|end| end > self.size) {
            return Err(self.corrupt(at, "it ends too early"));
        }
        read_exactly(&*self.file, at, length).map_err(|fault| fault.at(&self.name, at))
    }

    pub fn corrupt(&self, offset: u64, reason: &str) -> Error {
        Error::Corrupt { file: self.name.clone(), offset, reason: reason.to_owned() }
    }
}

fn sections_of(footer: &[u8], end: u64, run: &Run) -> Option<Vec<(Section, u64, usize)>> {
    let mut reader = Reader::new(footer, 0);
    if [reader.number().ok()?, reader.number().ok()?] != identity(run) {
        return None;
    }
    let count = reader.number().ok()?;
    let mut sections = Vec::new();
    for _ in 0..count {
        let mut id = || u32::try_from(reader.number().ok()?).ok();
        let section = (id()?, id()?);
        let (at, length) = (reader.number().ok()?, reader.length().ok()?);
        if at < HEADER as u64 || at > end {
            return None;
        }
        sections.push((section, at, length));
    }
    Some(sections)
}

/// What can be said of such a file by itself, without a key: its header, and where its frames lie and how long they are.
pub struct Outline {
    pub database_id: [u8; 16],
    pub run: u64,
    pub key: KeyId,
    pub bytes: u64,
    pub frames: Vec<(u64, FrameKind, usize)>,
}

/// Look at the frames of a file; the error names the first that is damaged.
pub fn outline(file: &Arc<dyn File>, name: &str) -> Result<Outline> {
    let corrupt = |offset, reason: &str| Error::Corrupt { file: name.to_owned(), offset, reason: reason.to_owned() };
    let (size, mut header) = (file.size()?, [0; HEADER]);
    let count = file.read_at(0, &mut header)?;
    let mut database_id = [0; 16];
    database_id.copy_from_slice(&header[16..32]);
    let run = super::frame::u64_at(&header, 32);
    let plain = Framing { database_id, run, compress: false, key: KeyId::NONE, cipher: None };
    let key = plain.check_header_with(MAGIC, &header[..count], name)?;
    let end = size.checked_sub(TAIL as u64).ok_or_else(|| corrupt(size, "it is shorter than its tail"))?;
    let (mut at, mut frames) = (HEADER as u64, Vec::new());
    while at < end {
        let fault = |fault: super::Fault| fault.at(name, at);
        let head = read_exactly(&**file, at, FRAME_HEADER).map_err(fault)?;
        let header = FrameHeader::decode(&head).map_err(|reason| corrupt(at, reason))?;
        if at + header.frame_bytes() as u64 > end {
            return Err(corrupt(at, "a frame goes beyond the tail"));
        }
        let frame = read_exactly(&**file, at, header.frame_bytes()).map_err(fault)?;
        plain.check(&frame, at).map_err(|reason| corrupt(at, reason))?;
        frames.push((at, header.kind, header.frame_bytes()));
        at += header.frame_bytes() as u64;
    }
    Ok(Outline { database_id, run, key, bytes: size, frames })
}
