//! A bundle in lines: its header, where rows belong, the first of them, and how it ends.
//!
//! It is read from the front, so that damage ends it: what comes behind cannot be told from what was made to mislead.

use super::manifest::{of_state, place_of};
use super::run::row_line;
use super::show;
use super::{Line, Sink};
use crate::bundle::{self, BundleReader, Item, Place};
use crate::env::Disk;
use crate::error::{Error, Result};
use crate::seal::GivenKeys;
use crate::state::State;

pub fn inspect(disk: &dyn Disk, path: &str, rows: u64, keys: Option<&GivenKeys>, sink: Sink<'_>) -> Result<()> {
    let mut reader = match BundleReader::begin(disk, path) {
        Ok(reader) => reader,
        Err(error) => return problem(error, sink),
    };
    let line = Line::new(0, "bundle")
        .with("format", bundle::FORMAT)
        .with("bytes", reader.size())
        .with("holds", if reader.has_history() { "all history" } else { "the newest" })
        .with_some("sealed_with_key", show::key_id(reader.key_id()));
    sink(line)?;
    if !reader.unlock(keys) {
        return sink(Line::new(reader.place(), "end").with("reason", "what follows is encrypted with another key"));
    }
    match items(&mut reader, rows, sink) {
        Ok(()) => {}
        Err(Stop::Damage(error)) => return problem(error, sink),
        Err(Stop::Sink(error)) => return Err(error),
    }
    let digest: String = reader.digest().unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect();
    sink(Line::new(reader.size(), "end").with("rows", reader.count()).with("sha256", digest))
}

/// Why reading ended: the bundle, or whoever takes the lines.
enum Stop {
    Damage(Error),
    Sink(Error),
}

fn items(reader: &mut BundleReader, rows: u64, sink: Sink<'_>) -> Result<(), Stop> {
    let mut shown = 0;
    loop {
        let at = reader.place();
        let told = match reader.item().map_err(Stop::Damage)? {
            None => return Ok(()),
            Some(Item::Head(newest, state)) => {
                let state = State::decode(state).map_err(Stop::Damage)?;
                let line = Line::new(at, "head").with("version", newest.version).with("time", newest.time);
                sink(line).and_then(|()| of_state(&state, at, sink))
            }
            Some(Item::Place(place)) => sink(place_line(at, place)),
            Some(Item::Row(key, version)) if shown < rows => {
                shown += 1;
                sink(row_line(Line::new(at, "row").with("key", show::key(key)), &version))
            }
            Some(Item::Row(..)) => Ok(()),
        };
        told.map_err(Stop::Sink)?;
    }
}

fn place_line(at: u64, place: &Place) -> Line {
    let line = Line::new(at, "place");
    match place {
        Place::Named { branch, space, kind } => line
            .with("branch", show::quoted(branch.as_bytes(), 80))
            .with_some("space", (!space.is_empty()).then(|| show::quoted(space.as_bytes(), 80)))
            .with_some("holds", (!kind.is_empty()).then_some(&kind[..])),
        Place::Numbered(branch, keyspace) => line.with("branch", *branch).with("keyspace", show::keyspace(*keyspace)),
    }
}

/// Damage is a line; another error, as one of the disk, is passed on.
fn problem(error: Error, sink: Sink<'_>) -> Result<()> {
    match error {
        Error::Corrupt { .. } => {
            let (at, reason) = place_of(error);
            sink(Line::problem(at, reason))
        }
        Error::TooNew { found, known, .. } => {
            sink(Line::problem(8, format!("it has format version {found}, and this build knows {known}")))
        }
        other => Err(other),
    }
}
