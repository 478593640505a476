//! Append-only memory for the entries of one table.
//!
//! Places are 32-bit and count units of 8 bytes, so an index costs 4 bytes a key rather than a pointer
//! and an allocation. Nothing is moved or freed before the whole arena is, which is what a memtable
//! wants: it lives until it is written out as a run.
//!
//! Layout: chunk `place >> 17`, byte `(place & 0x1ffff) * 8` in it. A chunk spans 1 MiB of places; the
//! first ones are backed by less, so that a branch with three keys costs a kilobyte.

use crate::error::{Error, Result};

const UNIT: usize = 8;
const CHUNK_UNITS_LOG2: u32 = 17;
const CHUNK_BYTES: usize = UNIT << CHUNK_UNITS_LOG2;
const FIRST_CHUNK_BYTES: usize = 1024;

/// Where something lies in an arena. `Place::NONE` is nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(pub u32);

impl Place {
    pub const NONE: Place = Place(0);

    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    fn chunk(self) -> usize {
        (self.0 >> CHUNK_UNITS_LOG2) as usize
    }

    fn offset(self) -> usize {
        (self.0 as usize & ((1 << CHUNK_UNITS_LOG2) - 1)) * UNIT
    }
}

#[derive(Default)]
pub struct Arena {
    chunks: Vec<Box<[u8]>>,
    /// Bytes taken of the last chunk.
    used: usize,
    allocated_bytes: usize,
}

impl Arena {
    /// Room for `size` bytes, zeroed, aligned to 8.
    pub fn allocate(&mut self, size: usize) -> Result<Place> {
        let size = size.next_multiple_of(UNIT);
        if self.chunks.last().is_none_or(|chunk| self.used + size > chunk.len()) {
            self.grow(size)?;
        }
        let place = ((self.chunks.len() - 1) << CHUNK_UNITS_LOG2) + self.used / UNIT;
        self.used += size;
        Ok(Place(place as u32))
    }

    /// A new last chunk with room for `size`. One that is longer than the places it spans is taken whole by
    /// the allocation that asked for it, whose start is all that a place must name.
    fn grow(&mut self, size: usize) -> Result<()> {
        // Chunk 0 gives up its first unit, so that place 0 can mean "none".
        let start = if self.chunks.is_empty() { UNIT } else { 0 };
        let doubled = FIRST_CHUNK_BYTES << (2 * self.chunks.len()).min(10);
        let bytes = (size + start).max(doubled.min(CHUNK_BYTES));
        if (self.chunks.len() + 1) << CHUNK_UNITS_LOG2 > u32::MAX as usize {
            return Err(Error::LimitExceeded {
                what: "memory of one keyspace",
                limit: u64::from(u32::MAX) * UNIT as u64,
                actual: (self.allocated_bytes + size) as u64,
            });
        }
        self.chunks.push(vec![0; bytes].into_boxed_slice());
        self.used = start;
        self.allocated_bytes += bytes;
        Ok(())
    }

    pub fn bytes(&self) -> usize {
        self.allocated_bytes
    }

    /// The bytes from `place` to the end of its chunk.
    #[inline]
    pub fn from(&self, place: Place) -> &[u8] {
        &self.chunks[place.chunk()][place.offset()..]
    }

    #[inline]
    pub fn from_mut(&mut self, place: Place) -> &mut [u8] {
        &mut self.chunks[place.chunk()][place.offset()..]
    }
}
