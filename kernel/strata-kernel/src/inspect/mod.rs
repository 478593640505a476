//! Inspect: what stands in one of our files, in lines that a person can read.
//!
//! It takes one file at a time and needs none of the others, no lock and no open database: it is for the day when opening
//! fails. So nothing is believed: what does not check is said with its offset, and reading goes on behind it where that
//! can be found. Nothing is written. Of a file that is being written it shows what is there at that moment.
//!
//! What is encrypted is shown where one of the keys that were given opens it, and else as that.
//!
//! A line has an offset, a kind and fields; whoever prints it decides how. Values and keys are cut short: a line is small
//! whatever the file holds.

mod bundle;
mod index;
mod manifest;
mod run;
mod segment;
mod show;

use std::sync::Arc;

use crate::env::{Disk, File};
use crate::error::{Error, Result};
use crate::seal::{self, FileCipher, GivenKeys, KeyId};

/// One thing that stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it begins in the file.
    pub at: u64,
    /// What it is: "header", "record", "frame", "problem", ...
    pub kind: &'static str,
    pub fields: Vec<(&'static str, Field)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    Number(u64),
    Text(String),
}

impl From<u64> for Field {
    fn from(number: u64) -> Field {
        Field::Number(number)
    }
}

impl From<u32> for Field {
    fn from(number: u32) -> Field {
        Field::Number(number.into())
    }
}

impl From<usize> for Field {
    fn from(number: usize) -> Field {
        Field::Number(number as u64)
    }
}

impl From<String> for Field {
    fn from(text: String) -> Field {
        Field::Text(text)
    }
}

impl From<&str> for Field {
    fn from(text: &str) -> Field {
        Field::Text(text.to_owned())
    }
}

impl Line {
    fn new(at: u64, kind: &'static str) -> Line {
        Line { at, kind, fields: Vec::new() }
    }

    fn problem(at: u64, reason: impl Into<String>) -> Line {
        Line::new(at, "problem").with("reason", reason.into())
    }

    fn with(mut self, name: &'static str, field: impl Into<Field>) -> Line {
        self.fields.push((name, field.into()));
        self
    }

    /// With a field only where there is something to say.
    fn with_some(self, name: &'static str, field: Option<impl Into<Field>>) -> Line {
        match field {
            Some(field) => self.with(name, field),
            None => self,
        }
    }
}

/// Takes the lines; its error ends the reading.
pub type Sink<'a> = &'a mut dyn FnMut(Line) -> Result<()>;

/// What a file of ours may be. Each has a module beside this one.
enum Kind {
    Manifest,
    Segment,
    Run,
    Index,
    Bundle,
    Lock,
}

/// By its first bytes; and where they are damaged, by its name.
fn kind_of(start: &[u8], name: &str) -> Option<Kind> {
    let file = name.rsplit('/').next().unwrap_or(name);
    match start {
        b"strataMF" => Some(Kind::Manifest),
        b"strataWL" => Some(Kind::Segment),
        b"strataRN" => Some(Kind::Run),
        b"strataIX" => Some(Kind::Index),
        b"strataEX" => Some(Kind::Bundle),
        _ if file.starts_with("MANIFEST") => Some(Kind::Manifest),
        _ if file.starts_with("wal-") => Some(Kind::Segment),
        _ if file.ends_with(".idx") => Some(Kind::Index),
        _ if file.starts_with("run-") => Some(Kind::Run),
        _ if file == "LOCK" => Some(Kind::Lock),
        _ => None,
    }
}

/// Say what stands in the file at `path`, and of a run or a bundle its first `rows` rows. `keys` open what is encrypted.
///
/// Fails when the file cannot be read; damage is no failure but a line of kind "problem".
pub fn inspect(disk: &dyn Disk, path: &str, rows: u64, keys: Option<&GivenKeys>, sink: Sink<'_>) -> Result<()> {
    let missing = || Error::NotFound { what: "file", name: disk.describe(path), near: Vec::new() };
    let file = disk.open(path)?.ok_or_else(missing)?;
    let mut start = [0; 8];
    let count = file.read_at(0, &mut start)?;
    match kind_of(&start[..count], path) {
        Some(Kind::Manifest) => manifest::inspect(&whole(&file)?, keys, sink),
        Some(Kind::Segment) => segment::inspect(&whole(&file)?, path, keys, sink),
        Some(Kind::Run) => run::inspect(&file, path, rows, keys, sink),
        Some(Kind::Index) => index::inspect(&file, path, sink),
        Some(Kind::Bundle) => bundle::inspect(disk, path, rows, keys, sink),
        Some(Kind::Lock) => lock(&whole(&file)?, sink),
        None => sink(Line::problem(0, "it is none of the files of a database")),
    }
}

/// What opens a file that names `key`, if that is among those given.
fn cipher(
    keys: Option<&GivenKeys>,
    database_id: [u8; 16],
    kind: seal::Kind,
    file: u64,
    key: KeyId,
) -> Option<FileCipher> {
    keys.and_then(|keys| keys.ring(database_id).cipher(kind, file, key).ok())
}

/// Who owns the directory, or was the last to.
fn lock(bytes: &[u8], sink: Sink<'_>) -> Result<()> {
    let owner = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).trim().to_owned();
    let line = Line::new(0, "lock").with("bytes", bytes.len());
    sink(line.with("owner", if owner.is_empty() { "nobody yet".to_owned() } else { owner }))
}

fn whole(file: &Arc<dyn File>) -> Result<Vec<u8>> {
    let size = file.size()?;
    let too_large = || Error::LimitExceeded { what: "size of a file", limit: isize::MAX as u64, actual: size };
    let length = usize::try_from(size).map_err(|_| too_large())?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| too_large())?;
    bytes.resize(length, 0);
    let count = file.read_at(0, &mut bytes)?;
    // It may have become shorter since.
    bytes.truncate(count);
    Ok(bytes)
}
