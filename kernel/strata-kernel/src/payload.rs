//! What a log record says: one commit of one branch, or one change of the set of branches.
//!
//! ```text
//! commit   1 | branch varint | flags u8 | [meta] | count varint | writes | [reads]
//! branch   2 | kind u8 | id varint | what the kind has
//!          1 create: name, parent varint + 1, fork version varint; 2 rename: name; 3 delete;
//!          4 seal: what is refused u8 (0 nothing, 1 writes, 2 being deleted and renamed too), reason;
//!          5 tag: name, version varint, [note]; 6 untag: name
//! meta     message, actor, cause, idempotency key: each a presence byte, then a string where present
//! write    kind u8 | keyspace varint | key | body
//!          put, append: value bytes; put that expires: value bytes, instant varint; delete: nothing; patch: operations;
//!          add: a number as MessagePack
//! reads    count varint | each: 1 key | 2 key and path | 3 range (start, presence byte, end), after keyspace varint
//! ```
//!
//! Strings and bytes are a varint length and the bytes. Writes are what the transaction asked for (a patch stays
//! a patch), so that a record is small and a replica can tell a change of one path from a new document; only
//! what was given at commit (sequence, time and hash of an append) is resolved, and what depended on the clock: a change
//! of a value that expires is the put that it came to. `docs/design/format.md` has it all.

use crate::error::Result;
use crate::pack::{Input, put_bytes, put_optional, put_varint};
use crate::table::ChangeKind;
use crate::value::patch::{self, Op};

const COMMIT: u8 = 1;
const BRANCH: u8 = 2;
/// The kind of a put that expires; the others are those of `ChangeKind`.
const EXPIRING: u8 = 6;
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

    fn encode(&self, out: &mut Vec<u8>) {
        for text in [&self.message, &self.actor, &self.cause, &self.idempotency_key] {
            put_optional(out, text.as_ref().map(String::as_bytes));
        }
    }
}

/// What a branch keeps of a commit beside its writes: a row of its notes, as a value of bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note {
    pub meta: Meta,
    pub reads: Vec<Read>,
}

impl Note {
    /// The row; `None` where there is nothing to keep.
    pub fn encode(meta: &Meta, reads: &[Read]) -> Option<Vec<u8>> {
        if meta.is_empty() && reads.is_empty() {
            return None;
        }
        let mut note = Vec::new();
        meta.encode(&mut note);
        put_reads(&mut note, reads);
        let mut value = Vec::with_capacity(note.len() + 5);
        crate::value::write::bytes(&mut value, &note);
        Some(value)
    }

    pub fn decode(value: &[u8]) -> Result<Note> {
        let mut input = Input::new(bytes_of(value), "DATA", "a note");
        let note = Note { meta: input.meta()?, reads: input.reads()? };
        if input.is_at_end() { Ok(note) } else { Err(input.wrong("length")) }
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
    /// And when it expires.
    Expiring(&'a [u8], u64),
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
    Seal { id: u32, seal: Option<Seal> },
    Tag { id: u32, name: String, version: u64, note: Option<String> },
    Untag { id: u32, name: String },
}

/// Why a branch takes no more writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    pub reason: String,
    /// Whether it may not be deleted and renamed either.
    pub is_protected: bool,
}

impl Seal {
    pub fn encode(seal: Option<&Seal>, out: &mut Vec<u8>) {
        out.push(seal.map_or(0, |seal| 1 + u8::from(seal.is_protected)));
        if let Some(seal) = seal {
            put_bytes(out, seal.reason.as_bytes());
        }
    }

    pub fn decode(input: &mut Input<'_>) -> Result<Option<Seal>> {
        match input.byte()? {
            0 => Ok(None),
            kind @ (1 | 2) => Ok(Some(Seal { is_protected: kind == 2, reason: input.text()? })),
            _ => Err(input.wrong("seal")),
        }
    }
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
            meta.encode(out);
        }
        put_varint(out, count as u64);
        CommitWriter { out }
    }

    pub fn value(&mut self, kind: ChangeKind, keyspace: u32, key: &[u8], value: &[u8]) {
        self.head(kind as u8, keyspace, key);
        put_bytes(self.out, value);
    }

    pub fn expiring(&mut self, keyspace: u32, key: &[u8], value: &[u8], expires: u64) {
        self.head(EXPIRING, keyspace, key);
        put_bytes(self.out, value);
        put_varint(self.out, expires);
    }

    pub fn delete(&mut self, keyspace: u32, key: &[u8]) {
        self.head(ChangeKind::Delete as u8, keyspace, key);
    }

    pub fn patch(&mut self, keyspace: u32, key: &[u8], ops: &[Op]) {
        self.head(ChangeKind::Patch as u8, keyspace, key);
        let mut encoded = Vec::new();
        patch::encode(ops, &mut encoded);
        put_bytes(self.out, &encoded);
    }

    pub fn add(&mut self, keyspace: u32, key: &[u8], delta: Number) {
        self.head(ChangeKind::Add as u8, keyspace, key);
        delta.encode(self.out);
    }

    pub fn reads(self, reads: &[Read]) {
        put_reads(self.out, reads);
    }

    fn head(&mut self, kind: u8, keyspace: u32, key: &[u8]) {
        self.out.push(kind);
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
            BranchChange::Seal { id, seal } => {
                out.push(4);
                put_varint(&mut out, u64::from(*id));
                Seal::encode(seal.as_ref(), &mut out);
            }
            BranchChange::Tag { id, name, version, note } => {
                out.push(5);
                put_varint(&mut out, u64::from(*id));
                put_bytes(&mut out, name.as_bytes());
                put_varint(&mut out, *version);
                put_optional(&mut out, note.as_ref().map(String::as_bytes));
            }
            BranchChange::Untag { id, name } => {
                out.push(6);
                put_varint(&mut out, u64::from(*id));
                put_bytes(&mut out, name.as_bytes());
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

/// Read a payload back.
pub fn decode(bytes: &[u8]) -> Result<Payload<'_>> {
    let mut input = Input::new(bytes, "WAL", "a commit");
    let payload = match input.byte()? {
        COMMIT => input.commit()?,
        BRANCH => Payload::Branch(input.branch_change()?),
        _ => return Err(input.wrong("kind")),
    };
    if input.is_at_end() { Ok(payload) } else { Err(input.wrong("length")) }
}

impl<'a> Input<'a> {
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
        let kind = self.byte()?;
        let keyspace = self.id()?;
        let key = self.take()?;
        if kind == EXPIRING {
            return Ok(Logged { keyspace, key, body: Body::Expiring(self.take()?, self.varint()?) });
        }
        let body = match ChangeKind::from_u8(kind).ok_or_else(|| self.wrong("write kind"))? {
            ChangeKind::Put => Body::Put(self.take()?),
            ChangeKind::Append => Body::Append(self.take()?),
            ChangeKind::Delete => Body::Delete,
            ChangeKind::Patch => Body::Patch(patch::decode(self.take()?).map_err(|_| self.wrong("patch"))?),
            ChangeKind::Add => Body::Add(self.number()?),
        };
        Ok(Logged { keyspace, key, body })
    }

    fn number(&mut self) -> Result<Number> {
        let rest = self.rest();
        self.at += crate::value::skip(rest).map_err(|_| self.wrong("number"))?;
        Number::decode(rest).ok_or_else(|| self.wrong("number"))
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
            _ => Err(self.wrong("read kind")),
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
                    Some(parent) => Some((u32::try_from(parent).map_err(|_| self.wrong("parent"))?, version)),
                    None => None,
                };
                Ok(BranchChange::Create { id, name, parent })
            }
            2 => Ok(BranchChange::Rename { id, name: self.text()? }),
            3 => Ok(BranchChange::Delete { id }),
            4 => Ok(BranchChange::Seal { id, seal: Seal::decode(self)? }),
            5 => {
                let (name, version) = (self.text()?, self.varint()?);
                Ok(BranchChange::Tag { id, name, version, note: self.optional(Input::text)? })
            }
            6 => Ok(BranchChange::Untag { id, name: self.text()? }),
            _ => Err(self.wrong("branch change")),
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

/// What is in a value of bytes; nothing where it is another value.
pub fn bytes_of(value: &[u8]) -> &[u8] {
    use crate::value::read::{Reader, Token};
    match Reader::new(value).next() {
        Ok(Token::Bytes(bytes)) => bytes,
        _ => &[],
    }
}

fn put_reads(out: &mut Vec<u8>, reads: &[Read]) {
    put_varint(out, reads.len() as u64);
    for read in reads {
        put_read(out, read);
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
