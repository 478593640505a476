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
    /// A put that reads as absent from some time on.
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
}

/// The outcome of a patch on the value as of `version`.
pub struct Tried<'a> {
    pub version: u64,
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

    /// A change of a value that expires: it goes on to, and is kept as the outcome, since by the time of its commit what
    /// it was made from may have expired.
    fn until(self, expires: u64) -> Change<'a> {
        if expires == 0 {
            self
        } else {
            Change { request: None, kind: ChangeKind::Put, touched: Vec::new(), expires, ..self }
        }
    }
}

/// What a write gives on the branch as it is at `now`; `None` when there is nothing to delete.
pub(crate) fn resolve<'a>(branch: &Branch, write: &'a Write<'a>, now: u64) -> Result<Option<Change<'a>>> {
    let (keyspace, key) = (write.keyspace, Cow::Borrowed(write.key));
    let newest = At::newest(now);
    Ok(Some(match &write.what {
        What::Put(value) => Change::put(keyspace, key, ChangeKind::Put, Cow::Borrowed(value)),
        What::Appended(value) => Change::put(keyspace, key, ChangeKind::Append, Cow::Borrowed(value)),
        What::PutFor(value, expiry) => {
            let expires = match expiry {
                Expiry::After(us) => now.saturating_add(*us),
                Expiry::At(instant) => *instant,
            };
            Change { expires, ..Change::put(keyspace, key, ChangeKind::Put, Cow::Borrowed(value)) }
        }
        What::Delete => {
            let exists = branch.read(keyspace, write.key, newest, |found| found.is_some())?;
            let (kind, touched) = (ChangeKind::Delete, Vec::new());
            return Ok(exists.then_some(Change {
                request: None,
                keyspace,
                key,
                kind,
                value: None,
                touched,
                expires: 0,
            }));
        }
        What::Add(delta) => {
            let (sum, expires) = branch.read(keyspace, write.key, newest, |found| {
                (delta.added_to(found.and_then(|version| version.value)), found.map_or(0, |version| version.expires))
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
    // Nothing came in between: what the transaction saw is what there is.
    let is_current = match tried {
        Some(tried) => !branch.data.read().changed_since(write.keyspace, write.key, tried.version)?,
        None => false,
    };
    let expires = |found: Option<Version<'_>>| found.map_or(0, |version| version.expires);
    let (value, touched, expires) = match tried.filter(|_| is_current) {
        Some(tried) => {
            let expires = branch.read(write.keyspace, write.key, at, expires)?;
            (tried.value.map(Cow::Borrowed), encode_touched(tried.touched), expires)
        }
        None => {
            let (patched, expires) = branch.read(write.keyspace, write.key, at, |found| {
                (patch::apply(found.and_then(|version| version.value), ops), expires(found))
            })?;
            let patched = patched?;
            (patched.value.map(Cow::Owned), encode_touched(&patched.touched), expires)
        }
    };
    // Deletes inside a value that is not there leave it so.
    Ok(value.map(|value| {
        Change {
            request: Some(&write.what),
            keyspace: write.keyspace,
            key: Cow::Borrowed(write.key),
            kind: ChangeKind::Patch,
            value: Some(value),
            touched,
            expires: 0,
        }
        .until(expires)
    }))
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
