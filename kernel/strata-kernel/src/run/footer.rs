//! The footer: what a run holds, and where its index begins. Opening a run reads this and no more.
//!
//! Varints: rows, distinct keys, raw bytes, number of spans; for each span its branch, rows, oldest and newest version;
//! then the top index, as `index` has it.

use super::index::Index;
use super::varint::{self, Reader};

/// What a run holds of one branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub branch: u32,
    pub rows: u64,
    pub oldest: u64,
    pub newest: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Footer {
    pub rows: u64,
    /// Distinct (branch, keyspace, key).
    pub keys: u64,
    /// Bytes of keys, values and touched paths, before all packing.
    pub raw_bytes: u64,
    /// By branch, ascending.
    pub spans: Vec<Span>,
    pub top: Index,
}

impl Footer {
    /// Count one row; `is_new_key` where it is the newest of its key.
    pub fn count(&mut self, branch: u32, version: u64, is_new_key: bool, raw_bytes: usize) {
        self.rows += 1;
        self.keys += u64::from(is_new_key);
        self.raw_bytes += raw_bytes as u64;
        match self.spans.last_mut().filter(|span| span.branch == branch) {
            Some(span) => {
                span.rows += 1;
                (span.oldest, span.newest) = (span.oldest.min(version), span.newest.max(version));
            }
            None => self.spans.push(Span { branch, rows: 1, oldest: version, newest: version }),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [self.rows, self.keys, self.raw_bytes, self.spans.len() as u64] {
            varint::put(&mut out, number);
        }
        for span in &self.spans {
            for number in [u64::from(span.branch), span.rows, span.oldest, span.newest] {
                varint::put(&mut out, number);
            }
        }
        self.top.encode(&mut out);
        out
    }

    /// What `encode` wrote, of a run whose frames end at `limit`.
    pub fn decode(bytes: &[u8], limit: u64) -> Result<Footer, &'static str> {
        let mut reader = Reader::new(bytes, 0);
        let (rows, keys, raw_bytes) = (reader.number()?, reader.number()?, reader.number()?);
        let count = reader.length()?;
        // A span takes at least four bytes, so that no memory is taken for a lie.
        if count > reader.left() / 4 {
            return Err("the footer has not the spans it says");
        }
        let mut spans: Vec<Span> = Vec::with_capacity(count);
        for _ in 0..count {
            let branch = reader.length_u32()?;
            let span = Span { branch, rows: reader.number()?, oldest: reader.number()?, newest: reader.number()? };
            if span.oldest > span.newest || spans.last().is_some_and(|before| before.branch >= branch) {
                return Err("the spans of the footer are not in order");
            }
            spans.push(span);
        }
        let top = Index::decode(&mut reader, limit)?;
        if reader.left() > 0 {
            return Err("the footer is longer than it says");
        }
        Ok(Footer { rows, keys, raw_bytes, spans, top })
    }
}
