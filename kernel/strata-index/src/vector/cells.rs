//! The cells of a part: which rows lie together, and around what.

use std::ops::Range;

use super::codes::Codes;
use super::kept::{all_finite, exactly};
use super::rows::Rows;
use super::stops::Stops;
use super::{Metric, VectorOptions};
use crate::bytes::{Damaged, Reader, Writer};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cells {
    /// Where each begins among the rows, and where the last ends.
    pub starts: Vec<u32>,
    /// One after the other.
    centres: Vec<f32>,
    /// Of each, the mean square of its rows' distance from the centre.
    pub spreads: Vec<f32>,
    /// Along one direction, such as a query's, the square of the distance is this part of it.
    pub along: f32,
    /// The rows in the order of their slots.
    pub by_slot: Vec<u32>,
    pub stops: Stops,
    /// All slots, in order. Not on disk.
    pub slots: Vec<u32>,
    /// Of the centres, by which a query is compared with all at once. Not on disk.
    pub codes: Codes,
}

impl Cells {
    pub fn new(
        options: VectorOptions,
        starts: Vec<u32>,
        centres: Vec<f32>,
        slots: Vec<u32>,
        by_slot: Vec<u32>,
    ) -> Cells {
        let spreads = vec![0.0; starts.len() - 1];
        let codes = centre_codes(options, &centres);
        Cells { starts, centres, spreads, along: 0.0, by_slot, stops: Stops::default(), slots, codes }
    }

    pub fn len(&self) -> usize {
        self.spreads.len()
    }

    pub fn range(&self, cell: usize) -> Range<usize> {
        self.starts[cell] as usize..self.starts[cell + 1] as usize
    }

    /// That of the row in this position.
    pub fn cell_of(&self, position: usize) -> usize {
        self.starts.partition_point(|start| *start as usize <= position) - 1
    }

    pub fn centre(&self, cell: usize) -> &[f32] {
        let dim = self.centres.len() / self.len();
        &self.centres[cell * dim..][..dim]
    }

    pub fn memory_bytes(&self) -> usize {
        let numbers = self.starts.capacity() + self.centres.capacity() + self.spreads.capacity();
        4 * (numbers + self.by_slot.capacity() + self.slots.capacity()) + self.codes.memory_bytes()
    }

    pub fn encode(&self, writer: &mut Writer) {
        writer.numbers(&self.starts);
        writer.numbers(&self.centres);
        writer.numbers(&self.spreads);
        writer.numbers(&[self.along]);
        writer.numbers(&self.by_slot);
        self.stops.encode(writer);
    }

    pub fn encode_none(writer: &mut Writer) {
        writer.numbers::<u32>(&[]);
    }

    /// Cells of `rows`, or none.
    pub fn decode(reader: &mut Reader, rows: &Rows) -> Result<Option<Cells>, Damaged> {
        let starts: Vec<u32> = reader.numbers()?;
        let Some(count) = starts.len().checked_sub(1) else { return Ok(None) };
        let centres = exactly(reader.numbers()?, count * rows.options.dim)?;
        let spreads = exactly(reader.numbers()?, count)?;
        let along: f32 = exactly(reader.numbers()?, 1)?[0];
        let by_slot: Vec<u32> = exactly(reader.numbers()?, rows.len())?;
        let stops = Stops::decode(reader)?;
        let slots: Option<Vec<u32>> = by_slot.iter().map(|row| rows.slots.get(*row as usize).copied()).collect();
        // Slots that ascend all along are all different, so no row is missing.
        let slots = slots.filter(|slots| slots.is_sorted_by(|a, b| a < b)).ok_or(Damaged("an order that is none"))?;
        let whole = starts.is_sorted() && starts[0] == 0 && starts[count] as usize == rows.len();
        if count == 0 || !whole || !all_finite(&centres) || !all_finite(&spreads) || !along.is_finite() {
            return Err(Damaged("cells that are not of these rows"));
        }
        let codes = centre_codes(rows.options, &centres);
        Ok(Some(Cells { starts, centres, spreads, along, by_slot, stops, slots, codes }))
    }
}

/// Nearness to a centre is under cosine what it is under euclidean: rows and query are of length one.
fn centre_codes(options: VectorOptions, centres: &[f32]) -> Codes {
    let metric = if options.metric == Metric::Dot { Metric::Dot } else { Metric::Euclidean };
    Codes::of_matrix(centres, options.dim, metric)
}
