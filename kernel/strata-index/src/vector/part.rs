//! Vectors of a run: built once, read ever after.

use super::VectorOptions;
use super::build::VectorBuild;
use super::cells::Cells;
use super::rows::Rows;
use crate::bytes::{Damaged, Reader, Writer};
use crate::hands::alone;

#[derive(Debug, Clone, PartialEq)]
pub struct VectorPart {
    pub(super) rows: Rows,
    /// Which are as many as the rows are worth: none for few.
    pub(super) cells: Option<Cells>,
}

impl VectorPart {
    /// In one go what `VectorBuild` does in steps.
    pub fn build(options: VectorOptions, slots: Vec<u32>, vectors: Vec<f32>) -> VectorPart {
        VectorBuild::new(options, slots, vectors).finish_all(&alone)
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes() + self.cells.as_ref().map_or(0, Cells::memory_bytes)
    }

    /// One more than the largest slot: whoever decodes a part must see that its sights have so many.
    pub fn slots_end(&self) -> usize {
        self.slots().last().map_or(0, |slot| *slot as usize + 1)
    }

    /// All of them, in order.
    pub(super) fn slots(&self) -> &[u32] {
        self.cells.as_ref().map_or(&self.rows.slots, |cells| &cells.slots)
    }

    /// Where the row lies whose slot is the one in this place of the order.
    pub(super) fn position(&self, place: usize) -> usize {
        self.cells.as_ref().map_or(place, |cells| cells.by_slot[place] as usize)
    }

    pub(super) fn find(&self, slot: u32) -> Option<usize> {
        self.slots().binary_search(&slot).ok().map(|place| self.position(place))
    }

    pub fn encode(&self, writer: &mut Writer) {
        self.rows.encode(writer);
        match &self.cells {
            Some(cells) => cells.encode(writer),
            None => Cells::encode_none(writer),
        }
    }

    pub fn decode(reader: &mut Reader) -> Result<VectorPart, Damaged> {
        let rows = Rows::decode(reader)?;
        let cells = Cells::decode(reader, &rows)?;
        if cells.is_none() && !rows.slots.is_sorted_by(|a, b| a < b) {
            return Err(Damaged("slots do not ascend"));
        }
        Ok(VectorPart { rows, cells })
    }
}
