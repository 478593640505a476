//! Vectors of a run: built once, read ever after.

use super::VectorOptions;
use super::codes::Codes;
use super::kept::Kept;
use super::rows::Rows;
use crate::bytes::{Damaged, Reader, Writer};

#[derive(Debug, Clone, PartialEq)]
pub struct VectorPart {
    pub(super) rows: Rows,
}

impl VectorPart {
    /// `vectors` has `dim` numbers for each slot, all finite, and slots ascend.
    pub fn build(options: VectorOptions, slots: Vec<u32>, vectors: Vec<f32>) -> VectorPart {
        assert_eq!(vectors.len(), slots.len() * options.dim, "a vector for each slot");
        assert!(slots.is_sorted_by(|a, b| a < b), "slots ascend");
        Self::build_kept(options, slots, Kept::of(options.dim, options.quantization, vectors))
    }

    pub(super) fn build_kept(options: VectorOptions, slots: Vec<u32>, kept: Kept) -> VectorPart {
        let (mut codes, mut room) = (Codes::default(), Vec::new());
        (0..slots.len()).for_each(|position| codes.push(&kept, position, options.metric, None, &mut room));
        VectorPart { rows: Rows { options, slots, kept, codes } }
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

    /// One more than the largest slot: whoever decodes a part must see that its sights have so many.
    pub fn slots_end(&self) -> usize {
        self.rows.slots.iter().max().map_or(0, |slot| *slot as usize + 1)
    }

    pub(super) fn position(&self, slot: u32) -> Option<usize> {
        self.rows.slots.binary_search(&slot).ok()
    }

    pub fn encode(&self, writer: &mut Writer) {
        self.rows.encode(writer);
    }

    pub fn decode(reader: &mut Reader) -> Result<VectorPart, Damaged> {
        let rows = Rows::decode(reader)?;
        if !rows.slots.is_sorted_by(|a, b| a < b) {
            return Err(Damaged("slots do not ascend"));
        }
        Ok(VectorPart { rows })
    }
}
