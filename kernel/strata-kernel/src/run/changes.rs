//! What of a branch is newer than a version: the blocks that hold nothing newer are passed over, by what the index says.

use super::block::{Block, BlockCursor};
use super::{Run, parts_of, place_key};
use crate::error::Result;
use crate::table::Version;

/// Takes keyspace, key and version of a change.
pub type TakeChange<'a> = &'a mut dyn FnMut(u32, &[u8], Version<'_>) -> Result<()>;

impl Run {
    /// Call `change` with each row of a branch whose version is in `(after, upto]`: keyspace, key and version, in order.
    pub fn changes(&self, branch: u32, (after, upto): (u64, u64), change: TakeChange<'_>) -> Result<()> {
        if self.span(branch).is_none_or(|span| span.newest <= after || span.oldest > upto) {
            return Ok(());
        }
        let start = place_key(branch, 0, &[]);
        let is_past = |key: &[u8]| branch.checked_add(1).is_some_and(|next| *key >= place_key(next, 0, &[])[..]);
        let top = &self.footer.top;
        for number in top.find(&start, u64::MAX)..top.entries().len() {
            let part = top.entries()[number];
            if part.newest > after {
                let index = self.index(&part)?;
                for number in index.find(&start, u64::MAX)..index.entries().len() {
                    let entry = &index.entries()[number];
                    if entry.newest > after {
                        self.changes_in(&*self.block(entry)?, branch, (after, upto), change)?;
                    }
                    if is_past(index.key(number)) {
                        return Ok(());
                    }
                }
            }
            if is_past(top.key(number)) {
                break;
            }
        }
        Ok(())
    }

    fn changes_in(&self, block: &Block, branch: u32, (after, upto): (u64, u64), change: TakeChange<'_>) -> Result<()> {
        let corrupt = |reason| self.corrupt(block.offset, reason);
        let mut cursor = BlockCursor::default();
        cursor.seek(block, &place_key(branch, 0, &[]), u64::MAX).map_err(corrupt)?;
        while let Some(head) = cursor.head().copied() {
            let (of, keyspace, key) = parts_of(cursor.key());
            if of != branch {
                return Ok(());
            }
            if head.version > after && head.version <= upto {
                let aside = self.aside(&head, block.offset)?;
                let bytes = aside.as_ref().map_or(block.bytes(), |payload| payload.bytes());
                change(keyspace, key, head.version_in(bytes).map_err(corrupt)?)?;
            }
            cursor.advance(block).map_err(corrupt)?;
        }
        Ok(())
    }
}
