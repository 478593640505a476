//! What a write gives: from what a caller asks for to what a table takes.
//!
//! Resolved against the branch as it is now, with its line held, so nothing changes between this and the apply.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use crate::branch::{At, Branch, StreamHead, encode_touched};
use crate::error::Result;
use crate::payload::Number;
use crate::table::{ChangeKind, Version};
use crate::value::patch::{self, Op};
use crate::value::path::Path;
use crate::value::{canonical, write};

/// A write to make, as its caller asks for it.
pub struct Write<'a> {
    pub keyspace: u32,
    /// For an append, the stream.
    pub key: &'a [u8],
    pub what: What<'a>,
}

pub enum What<'a> {
    Put(&'a [u8]),
    /// A put of what reads as absent from some time on.
    PutFor(&'a [u8], Expiry),
    Delete,
    /// The operations and, where they were tried before on the value of some version, that version and what came out.
    Patch(&'a [Op], Option<Tried<'a>>),
    Add(Number),
    Append {
        kind: &'a str,
        value: &'a [u8],
        origin: Option<&'a [u8]>,
    },
    /// An append whose key and value were settled before (recovery, a replica).
    Appended(&'a [u8]),
}

/// When a value expires, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// So long after its commit.
    After(u64),
    /// At this instant: settled before (recovery, a merge).
    At(u64),
    /// When what is there now does; never, where nothing is.
    Kept,
}

/// The outcome of a patch on the value as of `version`.
pub struct Tried<'a> {
    pub version: u64,
    /// Whether the branch has had no commit since.
    pub is_newest: bool,
    /// `None` where there was no value and the patch made none.
    pub value: Option<&'a [u8]>,
    pub touched: &'a [Path],
}

/// A write with its outcome: what a table takes, and what the log does.
pub(crate) struct Change<'a> {
    /// What was asked for, where the log holds that rather than the outcome.
    pub request: Option<&'a What<'a>>,
    pub keyspace: u32,
    pub key: Cow<'a, [u8]>,
    pub kind: ChangeKind,
    pub value: Option<Cow<'a, [u8]>>,
    pub touched: Vec<u8>,
    /// 0: never.
    pub expires: u64,
}

/// The place that an append was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub sequence: u64,
    pub time: u64,
    pub hash: [u8; 32],
}

impl<'a> Change<'a> {
    pub(crate) fn put(keyspace: u32, key: Cow<'a, [u8]>, kind: ChangeKind, value: Cow<'a, [u8]>) -> Change<'a> {
        Change { request: None, keyspace, key, kind, value: Some(value), touched: Vec::new(), expires: 0 }
    }

    /// As the tables keep it.
    pub(crate) fn version(&self, version: u64) -> Version<'_> {
        let (kind, value, touched) = (self.kind, self.value.as_deref(), &self.touched[..]);
        Version { version, kind, value, touched, expires: self.expires }
    }

    pub(crate) fn delete(keyspace: u32, key: Cow<'a, [u8]>) -> Change<'a> {
        let (kind, touched) = (ChangeKind::Delete, Vec::new());
        Change { request: None, keyspace, key, kind, value: None, touched, expires: 0 }
    }

    /// A change of a value that expires: it goes on to. The log has the outcome rather than the request, since at the time
    /// that the commit is stamped with, by which the log is read back, what it was made from may have expired.
    fn until(self, expires: u64) -> Change<'a> {
        if expires == 0 { self } else { Change { request: None, expires, ..self } }
    }
}

/// When a commit is made, twice: clocks may run backwards, and commits do not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// What the clock says: what has expired by it is not there.
    pub now: u64,
    /// The time of the commit: a time to live is counted from it.
    pub time: u64,
}

/// What a write gives on the branch as it is at a moment; `None` when there is nothing to delete.
pub(crate) fn resolve<'a>(branch: &Branch, write: &'a Write<'a>, moment: Moment) -> Result<Option<Change<'a>>> {
    let (keyspace, key) = (write.keyspace, Cow::Borrowed(write.key));
    let newest = At::newest(moment.now);
    Ok(Some(match &write.what {
        What::Put(value) => Change::put(keyspace, key, ChangeKind::Put, Cow::Borrowed(value)),
        What::Appended(value) => Change::put(keyspace, key, ChangeKind::Append, Cow::Borrowed(value)),
        What::PutFor(value, expiry) => {
            let expires = match expiry {
                Expiry::After(us) => moment.time.saturating_add(*us),
                Expiry::At(instant) => *instant,
                Expiry::Kept => branch.read(keyspace, write.key, newest, expires_of)?,
            };
            Change { expires, ..Change::put(keyspace, key, ChangeKind::Put, Cow::Borrowed(value)) }
        }
        What::Delete => {
            let exists = branch.read(keyspace, write.key, newest, |found| found.is_some())?;
            return Ok(exists.then(|| Change::delete(keyspace, key)));
        }
        What::Add(delta) => {
            let (sum, expires) = branch.read(keyspace, write.key, newest, |found| {
                (delta.added_to(found.and_then(|version| version.value)), expires_of(found))
            })?;
            let change = Change::put(keyspace, key, ChangeKind::Add, sum?.to_value().into());
            Change { request: Some(&write.what), ..change }.until(expires)
        }
        What::Patch(ops, tried) => return patch_change(branch, write, ops, tried.as_ref(), newest),
        What::Append { .. } => unreachable!("appends are given their place before"),
    }))
}

fn patch_change<'a>(
    branch: &Branch,
    write: &'a Write<'a>,
    ops: &[Op],
    tried: Option<&'a Tried<'a>>,
    at: At,
) -> Result<Option<Change<'a>>> {
    let (value, touched, expires) = match tried {
        Some(tried) if still_holds(branch, write, tried)? => {
            (tried.value.map(Cow::Borrowed), encode_touched(tried.touched), 0)
        }
        _ => {
            let (patched, expires) = branch.read(write.keyspace, write.key, at, |found| {
                (patch::apply(found.and_then(|version| version.value), ops), expires_of(found))
            })?;
            let patched = patched?;
            (patched.value.map(Cow::Owned), encode_touched(&patched.touched), expires)
        }
    };
    // Deletes inside a value that is not there leave it so.
    let Some(value) = value else { return Ok(None) };
    let change = Change::put(write.keyspace, Cow::Borrowed(write.key), ChangeKind::Patch, value);
    Ok(Some(match expires != 0 && patch::replaces(ops) {
        // A new value has no expiry of the old one's.
        true => Change { kind: ChangeKind::Put, ..change },
        false => Change { request: Some(&write.what), touched, ..change }.until(expires),
    }))
}

/// Whether what a transaction saw is what there is: nothing came in between, and nothing there ever expires.
fn still_holds(branch: &Branch, write: &Write<'_>, tried: &Tried<'_>) -> Result<bool> {
    if !tried.is_newest && branch.data.read().changed_since(write.keyspace, write.key, tried.version)? {
        return Ok(false);
    }
    // At time 0 nothing has expired yet.
    Ok(branch.read(write.keyspace, write.key, At::newest(0), expires_of)? == 0)
}

fn expires_of(found: Option<Version<'_>>) -> u64 {
    found.map_or(0, |version| version.expires)
}

/// What an append gives behind `head`, and the head after it.
pub(crate) fn append<'a>(write: &Write<'_>, head: &StreamHead, time: u64) -> Option<(Change<'a>, StreamHead)> {
    let What::Append { kind, value, origin } = &write.what else { return None };
    let hash = chain(head, kind, time, value, *origin);
    let key = [write.key, &head.next.to_be_bytes()].concat();
    let stored = stored_append(kind, time, value, &hash, *origin);
    let change = Change::put(write.keyspace, key.into(), ChangeKind::Append, stored.into());
    Some((change, StreamHead { next: head.next + 1, time, hash }))
}

/// SHA-256 of the canonical MessagePack of [previous hash, sequence, kind, time, value] (+ [origin]).
fn chain(head: &StreamHead, kind: &str, time: u64, value: &[u8], origin: Option<&[u8]>) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(value.len() + kind.len() + 64);
    write::list_header(&mut bytes, if origin.is_some() { 6 } else { 5 });
    write::bytes(&mut bytes, &head.hash);
    write::int(&mut bytes, head.next as i64);
    write::string(&mut bytes, kind);
    write::int(&mut bytes, time as i64);
    bytes.extend_from_slice(&canonical(value));
    if let Some(origin) = origin {
        bytes.extend_from_slice(&canonical(origin));
    }
    Sha256::digest(&bytes).into()
}

fn stored_append(kind: &str, time: u64, value: &[u8], hash: &[u8; 32], origin: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + kind.len() + 64);
    write::list_header(&mut out, if origin.is_some() { 5 } else { 4 });
    write::string(&mut out, kind);
    write::int(&mut out, time as i64);
    out.extend_from_slice(value);
    write::bytes(&mut out, hash);
    out.extend_from_slice(origin.unwrap_or_default());
    out
}
