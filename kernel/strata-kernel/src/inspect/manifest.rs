//! A MANIFEST in lines.

use super::show;
use super::{Line, Sink};
use crate::error::{Error, Result};
use crate::manifest::{self, Closed, Manifest};
use crate::seal::KeyId;
use crate::state::State;

pub fn inspect(bytes: &[u8], sink: Sink<'_>) -> Result<()> {
    match Manifest::decode(bytes) {
        Ok(closed) => opened(closed, bytes.len(), sink),
        Err(Error::TooNew { found, known, .. }) => {
            let reason = format!("it has format version {found}, and this build knows {known}");
            sink(Line::problem(8, reason))
        }
        Err(error) => {
            let (at, reason) = place_of(error);
            sink(Line::problem(at, reason))?;
            // What can be made of it may be right all the same: one bit of its checksum is enough to be here.
            match Manifest::parse(bytes) {
                Ok(closed) => opened(closed, bytes.len(), sink),
                Err(_) => Ok(()),
            }
        }
    }
}

/// With the state where that is not sealed.
fn opened(closed: Closed<'_>, bytes: usize, sink: Sink<'_>) -> Result<()> {
    let key = closed.key;
    if !key.is_none() {
        return lines(&closed.manifest, key, bytes, sink);
    }
    match closed.open(None) {
        Ok(manifest) => lines(&manifest, key, bytes, sink),
        Err(error) => {
            let (at, reason) = place_of(error);
            sink(Line::problem(at, reason))
        }
    }
}

/// Where an error says the damage is, and what it is.
pub fn place_of(error: Error) -> (u64, String) {
    match error {
        Error::Corrupt { offset, reason, .. } => (offset, reason),
        other => (0, other.to_string()),
    }
}

fn lines(manifest: &Manifest, key: KeyId, bytes: usize, sink: Sink<'_>) -> Result<()> {
    let Manifest { database_id, created_us, segment, proven, codec, next_run, ref runs, ref state, .. } = *manifest;
    let numbers: Vec<String> = runs.iter().map(u64::to_string).collect();
    let line = Line::new(0, "manifest")
        .with("format", manifest::FORMAT)
        .with("bytes", bytes)
        .with("database", show::id(&database_id))
        .with("created", created_us)
        .with("segment", segment)
        .with("durable_position", proven)
        .with("checkpoint_version", manifest.checkpoint_version)
        .with("checkpoint_time", manifest.checkpoint_time)
        .with("codec", show::codec(codec))
        .with("next_run", next_run)
        .with("runs", if runs.is_empty() { "none".to_owned() } else { numbers.join(" ") })
        .with_some("sealed_with_key", show::key_id(key))
        .with_some("next_branch", key.is_none().then_some(state.next_branch));
    sink(line)?;
    of_state(state, (manifest::FIXED + 8 * runs.len()) as u64, sink)
}

fn of_state(state: &State, at: u64, sink: Sink<'_>) -> Result<()> {
    for branch in &state.branches {
        let line = Line::new(at, "branch")
            .with("id", branch.id)
            .with("name", show::quoted(branch.name.as_bytes(), 80))
            .with_some("parent", branch.parent.map(|(parent, _)| parent))
            .with_some("fork_version", branch.parent.map(|(_, version)| version))
            .with("created", branch.created)
            .with("version", branch.version)
            .with("hash", show::id(&branch.hash.0))
            .with_some("sealed", branch.seal.as_ref().map(|seal| show::quoted(seal.reason.as_bytes(), 80)))
            .with_some("deleted", branch.is_deleted.then_some("yes, and kept for its forks"));
        sink(line)?;
    }
    for tag in &state.tags {
        let line = Line::new(at, "tag")
            .with("name", show::quoted(tag.name.as_bytes(), 80))
            .with("branch", tag.branch)
            .with("version", tag.version)
            .with("created", tag.created)
            .with_some("note", tag.note.as_ref().map(|note| show::quoted(note.as_bytes(), 80)));
        sink(line)?;
    }
    for (number, (space, kind)) in (1_u32..).zip(&state.keyspaces) {
        if !kind.is_empty() {
            let space = show::quoted(space.as_bytes(), 80);
            sink(Line::new(at, "keyspace").with("number", number).with("space", space).with("holds", &kind[..]))?;
        }
    }
    Ok(())
}
