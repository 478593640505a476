//! A MANIFEST in lines.

use super::show;
use super::{Line, Sink};
use crate::error::{Error, Result};
use crate::manifest::{self, Closed, Manifest};
use crate::retention::{Keep, Policy};
use crate::seal::{GivenKeys, KeyId};
use crate::state::State;
use crate::store::Erasure;

pub fn inspect(bytes: &[u8], keys: Option<&GivenKeys>, sink: Sink<'_>) -> Result<()> {
    match Manifest::decode(bytes) {
        Ok(closed) => opened(closed, bytes.len(), keys, sink),
        Err(Error::TooNew { found, known, .. }) => {
            let reason = format!("it has format version {found}, and this build knows {known}");
            sink(Line::problem(8, reason))
        }
        Err(error) => {
            let (at, reason) = place_of(error);
            sink(Line::problem(at, reason))?;
            // What can be made of it may be right all the same: one bit of its checksum is enough to be here.
            match Manifest::parse(bytes) {
                Ok(closed) => opened(closed, bytes.len(), keys, sink),
                Err(_) => Ok(()),
            }
        }
    }
}

/// With the state where that is not sealed, or its key was given.
fn opened(closed: Closed<'_>, bytes: usize, keys: Option<&GivenKeys>, sink: Sink<'_>) -> Result<()> {
    let (key, numbers) = (closed.key, closed.manifest.clone());
    let ring = keys.map(|keys| keys.ring(numbers.database_id).plain_too());
    match closed.open(ring.as_ref()) {
        Ok(manifest) => {
            header(&manifest, key, bytes, sink)?;
            of_state(&manifest.state, (manifest::FIXED + 8 * manifest.runs.len()) as u64, sink)
        }
        Err(Error::NeedsKey { .. }) => header(&numbers, key, bytes, sink),
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

fn header(manifest: &Manifest, key: KeyId, bytes: usize, sink: Sink<'_>) -> Result<()> {
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
        .with_some("backup", manifest.is_backup.then_some("yes"))
        .with_some("sealed_with_key", show::key_id(key))
        .with_some("plain_files", manifest.plain_too.then_some("may still be among the others"))
        .with_some("next_branch", (state.next_branch > 0).then_some(state.next_branch));
    sink(line)
}

/// What the state says, here or in a bundle.
pub fn of_state(state: &State, at: u64, sink: Sink<'_>) -> Result<()> {
    for branch in &state.branches {
        let line = Line::new(at, "branch")
            .with("id", branch.id)
            .with("name", show::quoted(branch.name.as_bytes(), 80))
            .with_some("parent", branch.parent.map(|(parent, _)| parent))
            .with_some("fork_version", branch.parent.map(|(_, version)| version))
            .with_some("reads_on_in", branch.flat.map(|(ancestor, _)| ancestor))
            .with_some("reads_on_at", branch.flat.map(|(_, version)| version))
            .with("created", branch.created)
            .with("version", branch.version)
            .with("hash", show::id(&branch.hash.0))
            .with_some("sealed", branch.seal.as_ref().map(|seal| show::quoted(seal.reason.as_bytes(), 80)))
            .with_some("deleted", branch.is_deleted.then_some("yes, and kept for its forks"));
        sink(line)?;
        for &(keyspace, floor) in &branch.floors {
            let line = Line::new(at, "floor").with("branch", branch.id).with("keyspace", show::keyspace(keyspace));
            sink(line.with("oldest_version", floor))?;
        }
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
    state.policies.iter().try_for_each(|policy| sink(of_policy(policy, at)))?;
    state.erasures.iter().try_for_each(|erasure| sink(of_erasure(erasure, at)))
}

fn of_policy(policy: &Policy, at: u64) -> Line {
    let Policy { branch, space, kind, keep: Keep { last, for_us, needs_both } } = policy;
    Line::new(at, "policy")
        .with_some("branch", *branch)
        .with_some("space", space.as_ref().map(|space| show::quoted(space.as_bytes(), 80)))
        .with_some("holds", kind.as_deref())
        .with_some("keeps_last", *last)
        .with_some("keeps_for_us", *for_us)
        .with_some("keeps", (last.is_none() && for_us.is_none()).then_some("all"))
        .with_some("needs_both", needs_both.then_some("yes"))
}

fn of_erasure(erasure: &Erasure, at: u64) -> Line {
    Line::new(at, "erasure")
        .with_some("space", erasure.space.as_ref().map(|space| show::quoted(space.as_bytes(), 80)))
        .with("holds", &erasure.kind[..])
        .with("key", show::key(&erasure.key))
        .with_some("prefix", erasure.is_prefix.then_some("yes"))
        .with("up_to_version", erasure.upto)
}
