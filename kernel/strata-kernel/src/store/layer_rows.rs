//! The rows that a branch has in memory of one keyspace and some versions, in the order of a run.
//!
//! Writers go on: the active table is copied from in pieces, each under the read lock, and what comes later is above the
//! window.

use std::sync::Arc;

use super::checkpoint::Window;
use crate::branch::{Branch, Layer};
use crate::sabotage;
use crate::table::{ChangeKind, Table, Version};

/// A piece ends with the key that fills it so far: about a quarter of a millisecond under the lock.
const PIECE_BYTES: usize = 256 << 10;

/// Rows of all layers: by key, and of each key the newest version first.
pub(super) struct LayerRows {
    /// Newest layer first; of equal keys, all its versions are newer than those behind.
    sources: Vec<Source>,
}

impl LayerRows {
    pub fn new(branch: &Arc<Branch>, keyspace: u32, window: Window) -> LayerRows {
        let frozen = branch.data.read().frozen.clone();
        let layers = std::iter::once(Place::Active(Arc::clone(branch))).chain(frozen.into_iter().map(Place::Frozen));
        LayerRows { sources: layers.map(|place| Source::new(place, keyspace, window)).collect() }
    }

    pub fn row(&self) -> Option<(&[u8], Version<'_>)> {
        self.next().and_then(|number| self.sources[number].piece.row())
    }

    pub fn advance(&mut self) {
        if let Some(number) = self.next() {
            self.sources[number].advance();
        }
    }

    fn next(&self) -> Option<usize> {
        let keyed =
            self.sources.iter().enumerate().filter_map(|(number, source)| Some((source.piece.row()?.0, number)));
        keyed.min().map(|(_, number)| number)
    }
}

enum Place {
    Active(Arc<Branch>),
    Frozen(Arc<Layer>),
}

struct Source {
    place: Place,
    keyspace: u32,
    window: Window,
    piece: Piece,
    is_last: bool,
}

impl Source {
    fn new(place: Place, keyspace: u32, window: Window) -> Source {
        let mut source = Source { place, keyspace, window, piece: Piece::default(), is_last: false };
        source.fill();
        source
    }

    fn advance(&mut self) {
        self.piece.next += 1;
        if self.piece.row().is_none() && !self.is_last {
            self.fill();
        }
    }

    /// Copy the rows behind those that were shown.
    fn fill(&mut self) {
        let after = self.piece.last_key();
        self.piece.clear();
        let (piece, window) = (&mut self.piece, self.window);
        let mut copy = |table: Option<&Table>| table.is_none_or(|table| piece.copy(table, after.as_deref(), window));
        self.is_last = match &self.place {
            Place::Active(branch) => copy(branch.data.read().active.tables.get(&self.keyspace)),
            Place::Frozen(layer) => copy(layer.tables.get(&self.keyspace)),
        };
    }
}

/// Rows copied out from under the lock.
#[derive(Default)]
struct Piece {
    bytes: Vec<u8>,
    rows: Vec<Held>,
    next: usize,
}

/// A row: key, value and touched paths lie behind each other in the bytes.
struct Held {
    start: usize,
    key: usize,
    value: usize,
    touched: usize,
    version: u64,
    kind: ChangeKind,
    expires: u64,
}

impl Piece {
    fn clear(&mut self) {
        self.bytes.clear();
        self.rows.clear();
        self.next = 0;
    }

    /// Take rows of the keys behind `after`; true when there are no more.
    fn copy(&mut self, table: &Table, after: Option<&[u8]>, window: Window) -> bool {
        table.changes(after, window, |key, version| {
            self.push(key, &version);
            self.bytes.len() < PIECE_BYTES
        })
    }

    fn push(&mut self, key: &[u8], version: &Version<'_>) {
        let (start, value) = (self.bytes.len(), version.value.unwrap_or_default());
        for part in [key, value, version.touched] {
            self.bytes.extend_from_slice(part);
        }
        self.rows.push(Held {
            start,
            key: start + key.len(),
            value: start + key.len() + value.len(),
            touched: self.bytes.len(),
            version: version.version,
            kind: version.kind,
            expires: version.expires,
        });
    }

    fn row(&self) -> Option<(&[u8], Version<'_>)> {
        let row = self.rows.get(self.next)?;
        let value = (row.kind != ChangeKind::Delete).then(|| &self.bytes[row.key..row.value]);
        let touched = if sabotage::on("K20") { &[] } else { &self.bytes[row.value..row.touched] };
        let version = Version { version: row.version, kind: row.kind, value, touched, expires: row.expires };
        Some((&self.bytes[row.start..row.key], version))
    }

    fn last_key(&self) -> Option<Vec<u8>> {
        self.rows.last().map(|row| self.bytes[row.start..row.key].to_vec())
    }
}
