//! The rows of several runs as those of one: by branch, keyspace and key, and of each key the newest version first.

use std::sync::Arc;

use crate::error::Result;
use crate::run::{AllCursor, Row, RowInfo, Run};

pub(super) struct MergeRows {
    /// Newest run first: of equal keys, all its versions are newer than those behind.
    cursors: Vec<AllCursor>,
    next: Option<usize>,
}

impl MergeRows {
    /// `runs` from the oldest to the newest.
    pub fn new(runs: &[Arc<Run>]) -> Result<MergeRows> {
        let cursors = runs.iter().rev().map(|run| run.all(None)).collect::<Result<_>>()?;
        let mut rows = MergeRows { cursors, next: None };
        rows.find_next();
        Ok(rows)
    }

    /// What the row is, without reading a value that stands aside.
    pub fn info(&self) -> Option<RowInfo<'_>> {
        self.next.and_then(|number| self.cursors[number].info())
    }

    pub fn row(&self) -> Result<Option<Row<'_>>> {
        self.next.map_or(Ok(None), |number| self.cursors[number].row())
    }

    pub fn advance(&mut self) -> Result<()> {
        if let Some(number) = self.next {
            self.cursors[number].advance()?;
            self.find_next();
        }
        Ok(())
    }

    fn find_next(&mut self) {
        self.next = None;
        for number in 0..self.cursors.len() {
            let Some(row) = self.cursors[number].info() else { continue };
            let before = match self.next.and_then(|best| self.cursors[best].info()) {
                Some(best) => (row.branch, row.keyspace, row.key) < (best.branch, best.keyspace, best.key),
                None => true,
            };
            if before {
                self.next = Some(number);
            }
        }
    }
}
