//! Scans: the rows of a key range, merged from a branch and its ancestors.

use std::ops::ControlFlow;

use super::Branch;
use crate::table::{ChangeKind, Table, Version};

/// `start <= key < end`; an `end` of `None` is unbounded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Range {
    pub start: Vec<u8>,
    pub end: Option<Vec<u8>>,
}

impl Range {
    pub fn of_prefix(prefix: &[u8]) -> Range {
        Range { start: prefix.to_vec(), end: successor(prefix) }
    }

    /// The keys of both ranges.
    pub fn intersect(self, other: Range) -> Range {
        let end = match (self.end, other.end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Range { start: self.start.max(other.start), end }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}

/// The first key after all that begin with `prefix`; `None` when there is no such key.
pub fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    Some(after)
}

/// Rows copied out from under the locks, without an allocation each.
#[derive(Default)]
pub struct RowBuffer {
    bytes: Vec<u8>,
    /// Where each row's key and value end in `bytes`.
    ends: Vec<(usize, usize)>,
}

impl RowBuffer {
    /// Room for a scan of `limit` rows, if it is a small one, so that it does not grow step by step.
    pub fn for_rows(limit: usize) -> RowBuffer {
        let rows = limit.min(1024);
        RowBuffer { bytes: Vec::with_capacity(rows * 128), ends: Vec::with_capacity(rows) }
    }

    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push((key_end, self.bytes.len()));
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |&(key_end, value_end)| {
            let row = (&self.bytes[start..key_end], &self.bytes[key_end..value_end]);
            start = value_end;
            row
        })
    }

    pub fn last_key(&self) -> Option<&[u8]> {
        self.rows().last().map(|(key, _)| key)
    }
}

/// A source of rows in order; `None` as a value hides the key in the sources behind it.
type Source<'a> = Box<dyn Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + 'a>;

impl Branch {
    /// The live rows of `range` at version `at`, at most `limit`, appended to `out`.
    pub fn scan(&self, keyspace: u32, range: &Range, reverse: bool, at: u64, out: &mut RowBuffer, limit: usize) {
        if limit > 0 {
            self.visit(keyspace, range, reverse, at, &[], |key, value| {
                out.push(key, value);
                if out.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
        }
    }

    /// How many live rows `range` has at version `at`. Looks at each of them.
    pub fn count(&self, keyspace: u32, range: &Range, at: u64) -> u64 {
        let mut count = 0;
        self.visit(keyspace, range, false, at, &[], |_, _| {
            count += 1;
            ControlFlow::Continue(())
        });
        count
    }

    /// Call `row` with each live row of `range` in order, under the read locks. `own` are rows that stand before the
    /// branch's (a transaction's writes, in key order, `None` for a deletion).
    pub fn visit(
        &self,
        keyspace: u32,
        range: &Range,
        reverse: bool,
        at: u64,
        own: &[(Vec<u8>, Option<Vec<u8>>)],
        mut row: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) {
        if self.parent.is_none() && own.is_empty() {
            // The common case pays for no merge.
            let data = self.data.read();
            let Some(table) = data.tables.get(&keyspace) else { return };
            for (key, version) in table.range(&range.start, range.end.as_deref(), reverse, at) {
                if let Some(value) = version.value
                    && row(key, value).is_break()
                {
                    return;
                }
            }
            return;
        }
        let lineage = self.lineage(at);
        let guards: Vec<_> = lineage.iter().map(|(branch, at)| (branch.data.read(), *at)).collect();
        let mut sources: Vec<Source<'_>> = Vec::with_capacity(guards.len() + 1);
        if !own.is_empty() {
            let rows = own.iter().map(|(key, value)| (&key[..], value.as_deref()));
            sources.push(if reverse { Box::new(rows.rev()) } else { Box::new(rows) });
        }
        for (data, at) in &guards {
            if let Some(table) = data.tables.get(&keyspace) {
                sources.push(Box::new(table_rows(table, range, reverse, *at)));
            }
        }
        merge(sources, reverse, row);
    }

    /// This branch and its ancestors, each with the version up to which it shows.
    fn lineage(&self, at: u64) -> Vec<(&Branch, u64)> {
        let mut lineage = vec![(self, at)];
        let (mut branch, mut at) = (self, at);
        while let Some(fork) = &branch.parent {
            (branch, at) = (&fork.branch, at.min(fork.version));
            lineage.push((branch, at));
        }
        lineage
    }
}

fn table_rows<'a>(
    table: &'a Table,
    range: &'a Range,
    reverse: bool,
    at: u64,
) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + 'a {
    let live = |version: Version<'a>| if version.kind == ChangeKind::Delete { None } else { version.value };
    table.range(&range.start, range.end.as_deref(), reverse, at).map(move |(key, version)| (key, live(version)))
}

/// Rows of all sources in key order; of equal keys the first source's, and none when that is a deletion.
fn merge(sources: Vec<Source<'_>>, reverse: bool, mut row: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) {
    let mut sources: Vec<_> = sources.into_iter().map(Iterator::peekable).collect();
    loop {
        let mut next: Option<(usize, &[u8])> = None;
        for (number, source) in sources.iter_mut().enumerate() {
            if let Some(&(key, _)) = source.peek() {
                let before = next.is_none_or(|(_, best)| if reverse { key > best } else { key < best });
                if before {
                    next = Some((number, key));
                }
            }
        }
        let Some((winner, key)) = next else { return };
        let value = sources[winner].next().and_then(|(_, value)| value);
        for source in &mut sources[winner + 1..] {
            source.next_if(|&(other, _)| other == key);
        }
        if let Some(value) = value
            && row(key, value).is_break()
        {
            return;
        }
    }
}
