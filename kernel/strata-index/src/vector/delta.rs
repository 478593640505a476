//! Vectors that are in memory only, in the order in which they came.

use super::VectorOptions;
use super::build::VectorBuild;
use super::part::VectorPart;
use super::rows::Rows;
use crate::hands::Hands;

#[derive(Debug, Clone)]
pub struct VectorDelta {
    pub(super) rows: Rows,
    room: Vec<f32>,
}

impl VectorDelta {
    pub fn new(options: VectorOptions) -> VectorDelta {
        VectorDelta { rows: Rows::new(options), room: Vec::new() }
    }

    /// Slots ascend. The vector has the dimension of the index, and finite numbers.
    pub fn add(&mut self, slot: u32, vector: &[f32]) {
        let Rows { options, slots, kept, codes } = &mut self.rows;
        assert!(slots.last().is_none_or(|last| *last < slot), "slots of a delta ascend");
        kept.push(vector);
        codes.push(kept, slots.len(), options.metric, None, &mut self.room);
        slots.push(slot);
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes()
    }

    /// The same as a part.
    pub fn freeze(self, hands: Hands) -> VectorPart {
        VectorBuild::of_kept(self.rows.options, self.rows.slots, self.rows.kept, hands).finish_all(hands)
    }
}
