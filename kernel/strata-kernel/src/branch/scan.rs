//! Scans: the rows of a key range, merged from a branch and its ancestors.

use std::ops::ControlFlow;

use parking_lot::RwLockReadGuard;

use super::{At, Branch, Data};
use crate::error::Result;
use crate::run::RangeCursor;
use crate::sabotage;
use crate::table::{self, Table, Version};

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

/// Where a scan stops: behind the row with which it has so many, or so many bytes of keys and values.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    pub rows: usize,
    pub bytes: usize,
}

impl From<usize> for Most {
    fn from(rows: usize) -> Most {
        Most { rows, bytes: usize::MAX }
    }
}

impl Most {
    pub fn is_reached(self, found: &RowBuffer) -> bool {
        found.len() >= self.rows || found.bytes.len() >= self.bytes
    }
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

impl Branch {
    /// The live rows of `range` at version `at`, up to `limit`, appended to `out`.
    pub fn scan(
        &self,
        keyspace: u32,
        range: &Range,
        reverse: bool,
        at: impl Into<At>,
        out: &mut RowBuffer,
        limit: impl Into<Most>,
    ) -> Result<()> {
        let limit = limit.into();
        if limit.rows == 0 {
            return Ok(());
        }
        self.visit(keyspace, range, reverse, at.into(), &[], |key, value| {
            out.push(key, value);
            if limit.is_reached(out) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    }

    /// How many live rows `range` has at version `at`. Looks at each of them.
    pub fn count(&self, keyspace: u32, range: &Range, at: impl Into<At>) -> Result<u64> {
        let mut count = 0;
        self.visit(keyspace, range, false, at.into(), &[], |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }

    /// Call `row` with each live row of `range` in order, under the read locks. `own` are rows that stand before the
    /// branch's (a transaction's writes, in key order, `None` for a deletion).
    pub fn visit(
        &self,
        keyspace: u32,
        range: &Range,
        reverse: bool,
        at: At,
        own: &[(Vec<u8>, Option<Vec<u8>>)],
        mut row: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        // A head that was looked up some time ago may have been trimmed since.
        let at = if at.is_latest { At { version: self.head(), ..at } } else { at };
        let lineage = self.sources(at);
        let guards = guards_of(&lineage);
        let mut sources: Vec<Source<'_>> = Vec::with_capacity(guards.len() + 1);
        if !own.is_empty() {
            sources.push(Source::Own { rows: own, reverse });
        }
        add_sources(&mut sources, &lineage, &guards, keyspace, range, reverse)?;
        let live = |version: &Version<'_>| self.is_live(version, at);
        match &mut sources[..] {
            // The common case pays for no merge.
            [Source::Table { rows, next }] => {
                for (key, version) in next.take().into_iter().chain(rows) {
                    if let Some(value) = version.value
                        && live(&version)
                        && row(key, value).is_break()
                    {
                        break;
                    }
                }
                Ok(())
            }
            sources => merge(sources, reverse, live, row),
        }
    }
}

/// Of the keys of `range`, the version that `branches` show together, deletions included; at most `limit`, in order.
pub fn versions_of(
    branches: &[(&Branch, At)],
    keyspace: u32,
    range: &Range,
    limit: usize,
    mut row: impl FnMut(&[u8], &Version<'_>) -> Result<()>,
) -> Result<()> {
    let guards = guards_of(branches);
    let mut sources = Vec::new();
    add_sources(&mut sources, branches, &guards, keyspace, range, false)?;
    let (mut count, mut outcome) = (0, Ok(()));
    merge_versions(&mut sources, false, |key, version| {
        outcome = row(key, version);
        count += 1;
        if outcome.is_ok() && count < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    outcome
}

type Guards<'a> = Vec<RwLockReadGuard<'a, Data>>;

fn guards_of<'a>(branches: &[(&'a Branch, At)]) -> Guards<'a> {
    branches.iter().map(|(branch, _)| branch.data.read()).collect()
}

/// All layers and runs of the branches, the newest of each branch first.
fn add_sources<'a>(
    sources: &mut Vec<Source<'a>>,
    branches: &[(&Branch, At)],
    guards: &'a Guards<'_>,
    keyspace: u32,
    range: &Range,
    reverse: bool,
) -> Result<()> {
    for (data, &(branch, at)) in guards.iter().zip(branches) {
        for table in data.tables(keyspace).take(if sabotage::on("K26") { 1 } else { usize::MAX }) {
            sources.push(Source::table(table, range, reverse, at.version));
        }
        branch.check_retained(data, keyspace, at)?;
        for run in data.runs.iter() {
            sources.push(Source::Run(Box::new(run.range(branch.id, keyspace, range, reverse, at.version)?)));
        }
    }
    Ok(())
}

/// Rows in order, standing on one or behind the last. A deletion hides the key in the sources behind it.
#[expect(clippy::large_enum_variant, reason = "there are a handful, and a box would cost each row a load")]
enum Source<'a> {
    /// What a transaction wrote itself; the next is at one end.
    Own {
        rows: &'a [(Vec<u8>, Option<Vec<u8>>)],
        reverse: bool,
    },
    Table {
        rows: table::Rows<'a>,
        next: Option<(&'a [u8], Version<'a>)>,
    },
    Run(Box<RangeCursor>),
}

impl<'a> Source<'a> {
    fn table(table: &'a Table, range: &Range, reverse: bool, at: u64) -> Source<'a> {
        let mut rows = table.range(&range.start, range.end.as_deref(), reverse, at);
        let next = rows.next();
        Source::Table { rows, next }
    }

    fn own_row(rows: &'a [(Vec<u8>, Option<Vec<u8>>)], reverse: bool) -> Option<&'a (Vec<u8>, Option<Vec<u8>>)> {
        if reverse { rows.last() } else { rows.first() }
    }

    fn key(&self) -> Option<&[u8]> {
        match self {
            Source::Own { rows, reverse } => Source::own_row(rows, *reverse).map(|(key, _)| &key[..]),
            Source::Table { next, .. } => next.as_ref().map(|(key, _)| *key),
            Source::Run(rows) => rows.info().map(|row| row.key),
        }
    }

    fn row(&self) -> Result<Option<(&[u8], Version<'_>)>> {
        Ok(match self {
            Source::Own { rows, reverse } => {
                Source::own_row(rows, *reverse).map(|(key, value)| (&key[..], Version::own(value.as_deref())))
            }
            Source::Table { next, .. } => *next,
            Source::Run(rows) => rows.row()?.map(|row| (row.key, row.version)),
        })
    }

    fn advance(&mut self) -> Result<()> {
        match self {
            Source::Own { rows, reverse: false } => *rows = rows.split_first().map_or(&[], |(_, rest)| rest),
            Source::Own { rows, reverse: true } => *rows = rows.split_last().map_or(&[], |(_, rest)| rest),
            Source::Table { rows, next } => *next = rows.next(),
            Source::Run(rows) => return rows.advance(),
        }
        Ok(())
    }
}

/// Rows of all sources in key order; of equal keys the first source's, and none when that is not live.
fn merge(
    sources: &mut [Source<'_>],
    reverse: bool,
    live: impl Fn(&Version<'_>) -> bool,
    mut row: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
) -> Result<()> {
    merge_versions(sources, reverse, |key, version| match version.value {
        Some(value) if live(version) => row(key, value),
        _ => ControlFlow::Continue(()),
    })
}

/// Rows of all sources in key order; of equal keys the first source's.
fn merge_versions(
    sources: &mut [Source<'_>],
    reverse: bool,
    mut row: impl FnMut(&[u8], &Version<'_>) -> ControlFlow<()>,
) -> Result<()> {
    loop {
        let mut next: Option<(usize, &[u8])> = None;
        for (number, source) in sources.iter().enumerate() {
            if let Some(key) = source.key() {
                let before = next.is_none_or(|(_, best)| if reverse { key > best } else { key < best });
                if before {
                    next = Some((number, key));
                }
            }
        }
        let Some((winner, _)) = next else { return Ok(()) };
        let (first, behind) = sources[winner..].split_first_mut().expect("the winner");
        let Some((key, version)) = first.row()? else { return Ok(()) };
        for source in behind {
            if source.key() == Some(key) {
                source.advance()?;
            }
        }
        if row(key, &version).is_break() {
            return Ok(());
        }
        first.advance()?;
    }
}
