//! What a log record says: one commit of one branch, or one change of the set of branches.
//!
//! ```text
//! commit   1 | branch varint | flags u8 | [meta] | count varint | writes | [reads]
//! branch   2 | kind u8 (1 create, 2 rename, 3 delete) | id varint | name | [parent varint + 1, fork version varint]
//! meta     message, actor, cause, idempotency key: each a presence byte, then a string where present
//! write    kind u8 | keyspace varint | key | body
//!          put, append: value bytes; delete: nothing; patch: operations; add: a number as MessagePack
//! reads    count varint | each: 1 key | 2 key and path | 3 range (start, presence byte, end), after keyspace varint
//! ```
//!
//! Strings and bytes are a varint length and the bytes. Writes are what the transaction asked for (a patch stays
//! a patch), so that a record is small and a replica can tell a change of one path from a new document; only
//! what was given at commit (sequence, time and hash of an append) is resolved. `docs/design/format.md` has it all.

use crate::error::{Error, Result};
use crate::table::ChangeKind;
use crate::value::patch::{self, Op};

const COMMIT: u8 = 1;
const BRANCH: u8 = 2;
const HAS_META: u8 = 1;
const HAS_READS: u8 = 2;

/// A number to add, or the sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Int(i64),
    Float(f64),
}

/// What a commit says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    pub message: Option<String>,
    pub actor: Option<String>,
    pub cause: Option<String>,
    pub idempotency_key: Option<String>,
}

impl Meta {
    pub fn is_empty(&self) -> bool {
        *self == Meta::default()
    }
}

/// One thing that a transaction read, kept with its commit when asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    Key { keyspace: u32, key: Vec<u8> },
    Path { keyspace: u32, key: Vec<u8>, path: Vec<u8> },
    Range { keyspace: u32, start: Vec<u8>, end: Option<Vec<u8>> },
}

/// A write as the log holds it.
#[derive(Debug, PartialEq)]
pub struct Logged<'a> {
    pub keyspace: u32,
    pub key: &'a [u8],
    pub body: Body<'a>,
}

#[derive(Debug, PartialEq)]
pub enum Body<'a> {
    Put(&'a [u8]),
    Delete,
    Patch(Vec<Op>),
    Append(&'a [u8]),
    Add(Number),
}

#[derive(Debug, PartialEq)]
pub enum Payload<'a> {
    Commit { branch: u32, meta: Meta, writes: Vec<Logged<'a>>, reads: Vec<Read> },
    Branch(BranchChange),
}

/// A change of the set of branches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BranchChange {
    Create { id: u32, name: String, parent: Option<(u32, u64)> },
    Rename { id: u32, name: String },
    Delete { id: u32 },
}

/// Writes a commit payload piece by piece, into a buffer that is used again.
pub struct CommitWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> CommitWriter<'a> {
    pub fn new(out: &'a mut Vec<u8>, branch: u32, meta: &Meta, has_reads: bool, count: usize) -> CommitWriter<'a> {
        out.clear();
        out.push(COMMIT);
        put_varint(out, u64::from(branch));
        let has_meta = !meta.is_empty();
        out.push((u8::from(has_meta) * HAS_META) | (u8::from(has_reads) * HAS_READS));
        if has_meta {
            for text in [&meta.message, &meta.actor, &meta.cause, &meta.idempotency_key] {
                put_optional(out, text.as_ref().map(String::as_bytes));
            }
        }
        put_varint(out, count as u64);
        CommitWriter { out }
    }

    pub fn value(&mut self, kind: ChangeKind, keyspace: u32, key: &[u8], value: &[u8]) {
        self.head(kind, keyspace, key);
        put_bytes(self.out, value);
    }

    pub fn delete(&mut self, keyspace: u32, key: &[u8]) {
        self.head(ChangeKind::Delete, keyspace, key);
    }

    pub fn patch(&mut self, keyspace: u32, key: &[u8], ops: &[Op]) {
        self.head(ChangeKind::Patch, keyspace, key);
        let mut encoded = Vec::new();
        patch::encode(ops, &mut encoded);
        put_bytes(self.out, &encoded);
    }

    pub fn add(&mut self, keyspace: u32, key: &[u8], delta: Number) {
        self.head(ChangeKind::Add, keyspace, key);
        delta.encode(self.out);
    }

    pub fn reads(self, reads: &[Read]) {
        put_varint(self.out, reads.len() as u64);
        for read in reads {
            put_read(self.out, read);
        }
    }

    fn head(&mut self, kind: ChangeKind, keyspace: u32, key: &[u8]) {
        self.out.push(kind as u8);
        put_varint(self.out, u64::from(keyspace));
        put_bytes(self.out, key);
    }
}

impl BranchChange {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![BRANCH];
        match self {
            BranchChange::Create { id, name, parent } => {
                out.push(1);
                put_varint(&mut out, u64::from(*id));
                put_bytes(&mut out, name.as_bytes());
                put_varint(&mut out, parent.map_or(0, |(parent, _)| u64::from(parent) + 1));
                put_varint(&mut out, parent.map_or(0, |(_, version)| version));
            }
            BranchChange::Rename { id, name } => {
                out.push(2);
                put_varint(&mut out, u64::from(*id));
                put_bytes(&mut out, name.as_bytes());
            }
            BranchChange::Delete { id } => {
                out.push(3);
                put_varint(&mut out, u64::from(*id));
            }
        }
        out
    }
}

impl Number {
    pub fn encode(self, out: &mut Vec<u8>) {
        match self {
            Number::Int(int) => crate::value::write::int(out, int),
            Number::Float(float) => crate::value::write::float(out, float),
        }
    }
}

/// Read a payload back. A record's checksum was verified before, so a failure here is damage that a checksum
/// cannot see, or our bug: the text says which field was wrong.
pub fn decode(bytes: &[u8]) -> Result<Payload<'_>> {
    let mut input = Input { bytes, at: 0 };
    let payload = match input.byte()? {
        COMMIT => input.commit()?,
        BRANCH => Payload::Branch(input.branch_change()?),
        _ => return Err(wrong("kind")),
    };
    if input.at != bytes.len() { Err(wrong("length")) } else { Ok(payload) }
}

fn wrong(what: &str) -> Error {
    Error::Corrupt { file: "WAL".into(), offset: 0, reason: format!("the {what} of a commit cannot be read") }
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| wrong("end"))?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(wrong("number"))
    }

    fn id(&mut self) -> Result<u32> {
        u32::try_from(self.varint()?).map_err(|_| wrong("id"))
    }

    fn take(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.varint()?).map_err(|_| wrong("length"))?;
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..length).ok_or_else(|| wrong("length"))?;
        self.at += length;
        Ok(taken)
    }

    fn text(&mut self) -> Result<String> {
        Ok(std::str::from_utf8(self.take()?).map_err(|_| wrong("text"))?.to_owned())
    }

    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(wrong("presence byte")),
        }
    }

    fn commit(&mut self) -> Result<Payload<'a>> {
        let branch = self.id()?;
        let flags = self.byte()?;
        let meta = if flags & HAS_META != 0 { self.meta()? } else { Meta::default() };
        let count = self.varint()?;
        let writes = (0..count).map(|_| self.write()).collect::<Result<_>>()?;
        let reads = if flags & HAS_READS != 0 { self.reads()? } else { Vec::new() };
        Ok(Payload::Commit { branch, meta, writes, reads })
    }

    fn meta(&mut self) -> Result<Meta> {
        Ok(Meta {
            message: self.optional(Self::text)?,
            actor: self.optional(Self::text)?,
            cause: self.optional(Self::text)?,
            idempotency_key: self.optional(Self::text)?,
        })
    }

    fn write(&mut self) -> Result<Logged<'a>> {
        let kind = ChangeKind::from_u8(self.byte()?).ok_or_else(|| wrong("write kind"))?;
        let keyspace = self.id()?;
        let key = self.take()?;
        let body = match kind {
            ChangeKind::Put => Body::Put(self.take()?),
            ChangeKind::Append => Body::Append(self.take()?),
            ChangeKind::Delete => Body::Delete,
            ChangeKind::Patch => Body::Patch(patch::decode(self.take()?).map_err(|_| wrong("patch"))?),
            ChangeKind::Add => Body::Add(self.number()?),
        };
        Ok(Logged { keyspace, key, body })
    }

    fn number(&mut self) -> Result<Number> {
        let rest = &self.bytes[self.at..];
        self.at += crate::value::skip(rest).map_err(|_| wrong("number"))?;
        Number::decode(rest).ok_or_else(|| wrong("number"))
    }

    fn reads(&mut self) -> Result<Vec<Read>> {
        let count = self.varint()?;
        (0..count).map(|_| self.read()).collect()
    }

    fn read(&mut self) -> Result<Read> {
        let kind = self.byte()?;
        let keyspace = self.id()?;
        let key = self.take()?.to_vec();
        match kind {
            1 => Ok(Read::Key { keyspace, key }),
            2 => Ok(Read::Path { keyspace, key, path: self.take()?.to_vec() }),
            3 => Ok(Read::Range { keyspace, start: key, end: self.optional(|i| i.take().map(<[u8]>::to_vec))? }),
            _ => Err(wrong("read kind")),
        }
    }

    fn branch_change(&mut self) -> Result<BranchChange> {
        let kind = self.byte()?;
        let id = self.id()?;
        match kind {
            1 => {
                let name = self.text()?;
                let (parent, version) = (self.varint()?, self.varint()?);
                let parent = match parent.checked_sub(1) {
                    Some(parent) => Some((u32::try_from(parent).map_err(|_| wrong("parent"))?, version)),
                    None => None,
                };
                Ok(BranchChange::Create { id, name, parent })
            }
            2 => Ok(BranchChange::Rename { id, name: self.text()? }),
            3 => Ok(BranchChange::Delete { id }),
            _ => Err(wrong("branch change")),
        }
    }
}

impl Number {
    /// The number that `bytes` begin with; `None` when it is another kind of value.
    pub fn decode(bytes: &[u8]) -> Option<Number> {
        use crate::value::read::{Reader, Token};
        match Reader::new(bytes).next() {
            Ok(Token::Int(int)) => Some(Number::Int(int)),
            Ok(Token::Float(float)) => Some(Number::Float(float)),
            _ => None,
        }
    }
}

pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    out.push(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        put_bytes(out, bytes);
    }
}

fn put_read(out: &mut Vec<u8>, read: &Read) {
    let (kind, keyspace, key) = match read {
        Read::Key { keyspace, key } => (1, keyspace, key),
        Read::Path { keyspace, key, .. } => (2, keyspace, key),
        Read::Range { keyspace, start, .. } => (3, keyspace, start),
    };
    out.push(kind);
    put_varint(out, u64::from(*keyspace));
    put_bytes(out, key);
    match read {
        Read::Key { .. } => {}
        Read::Path { path, .. } => put_bytes(out, path),
        Read::Range { end, .. } => put_optional(out, end.as_deref()),
    }
}
