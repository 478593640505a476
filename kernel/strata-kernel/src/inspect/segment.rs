//! A segment of the log in lines: its header, each record with what it says, and where and why the records end.

use super::show;
use super::{Line, Sink};
use crate::error::Result;
use crate::log::read::{
    self, HeaderFault, Opened, Place, RECORD_HEADER, Record, SEGMENT_HEADER, SegmentHeader, Unpacker,
};
use crate::payload::{self, Body, BranchChange, Logged, Meta, Payload};
use crate::seal::{self, FileCipher, GivenKeys};
use crate::value::patch::Op;

pub fn inspect(bytes: &[u8], path: &str, keys: Option<&GivenKeys>, sink: Sink<'_>) -> Result<()> {
    let Some((number, base)) = header(bytes, path, sink)? else { return Ok(()) };
    let header = SegmentHeader::decode(bytes).ok();
    let cipher = header.and_then(|header| super::cipher(keys, header.database_id, seal::Kind::Log, number, header.key));
    let mut reader = Reader { bytes, number, base, cipher, before: None, budget: bytes.len().saturating_mul(16) };
    let mut at = SEGMENT_HEADER;
    while at < bytes.len() {
        match reader.read(at) {
            Ok(record) => {
                reader.record(at, &record, sink)?;
                at = record.end;
            }
            Err(reason) => match reader.next(at) {
                Some((next, is_proven)) => {
                    sink(skipped(at, next, reason, is_proven))?;
                    reader.before = None;
                    at = next;
                }
                None => break,
            },
        }
    }
    sink(reader.end(at))
}

/// The line of the header; returns number and base, also from a damaged one, as records prove them.
fn header(bytes: &[u8], path: &str, sink: Sink<'_>) -> Result<Option<(u64, u64)>> {
    if bytes.iter().all(|byte| *byte == 0) {
        sink(Line::new(0, "end").with("bytes", bytes.len()).with("reason", "all is zeros: it was never begun"))?;
        return Ok(None);
    }
    let header = match SegmentHeader::decode(bytes) {
        Ok(header) => header,
        Err(HeaderFault::TooNew(found)) => {
            let reason = format!("it has format version {found}, and this build knows {}", read::FORMAT);
            sink(Line::problem(8, reason))?;
            return Ok(None);
        }
        Err(HeaderFault::Bad(reason)) => {
            sink(Line::problem(0, reason))?;
            return Ok(read::number_and_base(bytes));
        }
    };
    let line = Line::new(0, "segment")
        .with("format", read::FORMAT)
        .with("bytes", bytes.len())
        .with("database", show::id(&header.database_id))
        .with("number", header.number)
        .with("base", header.base)
        .with("previous", format!("{:08x}", header.previous))
        .with_some("sealed_with_key", show::key_id(header.key));
    sink(line)?;
    let named = path.rsplit('/').next().and_then(read::number_of);
    if named.is_some_and(|named| named != header.number) {
        sink(Line::problem(32, format!("it says that it is segment {}, and its name does not", header.number)))?;
    }
    Ok(Some((header.number, header.base)))
}

/// What is between two records that is none.
fn skipped(at: usize, next: usize, reason: &str, is_proven: bool) -> Line {
    let proof = if is_proven { ", and it was durable once: this is damage" } else { "" };
    Line::problem(at as u64, format!("{reason}; records go on {} bytes further{proof}", next - at))
}

struct Reader<'a> {
    bytes: &'a [u8],
    number: u64,
    base: u64,
    cipher: Option<FileCipher>,
    /// Checksum, version and time of the record before; `None` behind a gap.
    before: Option<(u32, u64, u64)>,
    /// How many bytes searching for records may still run over: a file made to mislead ends it.
    budget: usize,
}

impl<'a> Reader<'a> {
    fn place(&self, at: usize) -> Place {
        Place { segment: self.number, position: self.base.saturating_add(at as u64) }
    }

    fn read(&self, at: usize) -> Result<Record<'a>, &'static str> {
        read::read(self.bytes, at, self.place(at))
    }

    /// The next record behind `at`, and whether one there knew `at` to be durable.
    fn next(&mut self, at: usize) -> Option<(usize, bool)> {
        let position = self.place(at).position;
        let mut next = (at + 8).next_multiple_of(8);
        while next + RECORD_HEADER <= self.bytes.len() && self.budget > 0 {
            self.budget = self.budget.saturating_sub(8 + read::claimed_length(self.bytes, next));
            if let Ok(record) = self.read(next) {
                return Some((next, record.header.synced_upto > position));
            }
            next += 8;
        }
        None
    }

    fn record(&mut self, at: usize, record: &Record<'_>, sink: Sink<'_>) -> Result<()> {
        let header = &record.header;
        let line = Line::new(at as u64, "record")
            .with("version", header.version)
            .with("time", header.time)
            .with("position", self.place(at).position)
            .with("bytes", record.stored.len())
            .with("codec", show::codec(header.codec))
            .with_some("raw_bytes", (header.raw_length > 0).then_some(header.raw_length))
            .with("durable_position", header.synced_upto);
        self.follows(at, record, sink)?;
        self.before = Some((record.checksum, header.version, header.time));
        let mut unpacker = Unpacker::default();
        match read::open(self.place(at), record, self.cipher.as_ref(), &mut unpacker) {
            Opened::Payload(hash, payload) => said(at as u64, line.with("hash", show::id(&hash.0)), payload, sink),
            Opened::Sealed => sink(line.with("says", "is encrypted")),
            Opened::Damaged(reason) => {
                sink(line)?;
                sink(Line::problem(at as u64, reason))
            }
        }
    }

    /// Whether it continues the record before.
    fn follows(&self, at: usize, record: &Record<'_>, sink: Sink<'_>) -> Result<()> {
        let Some((checksum, version, time)) = self.before else { return Ok(()) };
        let header = &record.header;
        if header.previous != checksum {
            sink(Line::problem(at as u64, "the record does not follow on the one before"))?;
        }
        if header.version <= version || header.time < time {
            sink(Line::problem(at as u64, "the version or time of the record runs backwards"))?;
        }
        Ok(())
    }

    /// Where the records end, and why.
    fn end(&self, at: usize) -> Line {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let used = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let line = Line::new(at as u64, "end").with("position", self.place(at).position).with("bytes", rest.len());
        let reason = match (rest.len(), used) {
            (0, _) => "the file ends here".to_owned(),
            (_, 0) => "zeros to the end of the file: reserved space".to_owned(),
            _ => format!(
                "torn or damaged: {used} bytes behind the last record are none. Where the MANIFEST knows a durable \
                 position above this one it is damage, else a write that was cut short"
            ),
        };
        line.with("reason", reason)
    }
}

/// What a payload says.
fn said(at: u64, line: Line, bytes: &[u8], sink: Sink<'_>) -> Result<()> {
    match payload::decode(bytes) {
        Ok(Payload::Branch(change)) => sink(of_branches(line, &change)),
        Ok(Payload::Commit { branch, meta, writes, reads }) => {
            let line = line.with("says", "commit").with("branch", branch).with("writes", writes.len());
            let line = line.with_some("reads", (!reads.is_empty()).then_some(reads.len()));
            sink(of_meta(line, &meta))?;
            writes.iter().try_for_each(|write| sink(of_write(at, write)))
        }
        Err(error) => {
            sink(line)?;
            sink(Line::problem(at, super::manifest::place_of(error).1))
        }
    }
}

fn of_meta(line: Line, meta: &Meta) -> Line {
    let text = |text: &Option<String>| text.as_ref().map(|text| show::quoted(text.as_bytes(), 80));
    line.with_some("message", text(&meta.message))
        .with_some("actor", text(&meta.actor))
        .with_some("cause", text(&meta.cause))
        .with_some("idempotency_key", text(&meta.idempotency_key))
}

fn of_branches(line: Line, change: &BranchChange) -> Line {
    let name = |name: &str| show::quoted(name.as_bytes(), 80);
    match change {
        BranchChange::Create { id, name: new, parent } => line
            .with("says", "create branch")
            .with("branch", *id)
            .with("name", name(new))
            .with_some("parent", parent.map(|(parent, _)| parent))
            .with_some("fork_version", parent.map(|(_, version)| version)),
        BranchChange::Rename { id, name: new } => {
            line.with("says", "rename branch").with("branch", *id).with("name", name(new))
        }
        BranchChange::Seal { id, seal } => line
            .with("says", if seal.is_some() { "seal branch" } else { "unseal branch" })
            .with("branch", *id)
            .with_some("reason", seal.as_ref().map(|seal| show::quoted(seal.reason.as_bytes(), 80))),
        BranchChange::Tag { id, name, version, note } => line
            .with("says", "tag")
            .with("branch", *id)
            .with("name", show::quoted(name.as_bytes(), 80))
            .with("version", *version)
            .with_some("note", note.as_ref().map(|note| show::quoted(note.as_bytes(), 80))),
        BranchChange::Untag { id, name } => {
            line.with("says", "untag").with("branch", *id).with("name", show::quoted(name.as_bytes(), 80))
        }
        BranchChange::Delete { id } => line.with("says", "delete branch").with("branch", *id),
    }
}

fn of_write(at: u64, write: &Logged<'_>) -> Line {
    let line = |does: &str| {
        let line = Line::new(at, "write").with("does", does);
        line.with("keyspace", show::keyspace(write.keyspace)).with("key", show::key(write.key))
    };
    let with_value = |line: Line, value: &[u8]| line.with("value", show::value(value)).with("bytes", value.len());
    match &write.body {
        Body::Put(value) => with_value(line("put"), value),
        Body::Expiring(value, expires) => with_value(line("put"), value).with("expires", *expires),
        Body::Append(value) => with_value(line("append"), value),
        Body::Delete => line("delete"),
        Body::Patch(ops) => line("patch").with("value", of_ops(ops)),
        Body::Add(delta) => line("add").with("value", show::number(*delta)),
    }
}

/// The first few operations of a patch.
fn of_ops(ops: &[Op]) -> String {
    let shown: Vec<String> = ops.iter().take(4).map(of_op).collect();
    let more = if ops.len() > 4 { format!(" and {} more", ops.len() - 4) } else { String::new() };
    format!("{}{more}", shown.join("; "))
}

fn of_op(op: &Op) -> String {
    match op {
        Op::Set { path, value } => format!("set {} to {}", show::path(path), show::value(value)),
        Op::Delete { path } => format!("delete {}", show::path(path)),
        Op::Insert { path, value } => format!("insert {} at {}", show::value(value), show::path(path)),
        Op::Merge { path, patch } => format!("merge {} into {}", show::value(patch), show::path(path)),
    }
}
