//! A part as bytes.
//!
//! ```text
//! lengths     blob of numbers: of each slot its length
//! terms       blob: all terms behind each other
//! shape       blob of numbers: of each term its length, its postings, the bytes of their positions
//! postings    blob of numbers: of each posting (slot - the one before) · 2 + (1 if it has a mark), the mark if so
//! positions   blob of numbers: of each posting its positions, as differences; the first from 0
//! ```
//!
//! Numbers are of variable length (seven bits a byte). A posting without a mark stands once in field 0. Everything that a
//! search relies on is checked here, so that it need not look again: bytes of others can make it find nonsense, not fail.

use crate::bytes::{Damaged, Reader, Writer};

use super::build::is_plain;
use super::part::{Ends, TextPart};
use super::postings::Mark;
use super::varint;

impl TextPart {
    pub fn encode(&self, out: &mut Writer) {
        let mut bytes = Vec::new();
        self.lengths.iter().for_each(|length| varint::write(&mut bytes, *length));
        out.blob(&bytes);
        out.blob(&self.terms);
        out.blob(&self.shape());
        out.blob(&self.postings());
        out.blob(&self.positions);
    }

    fn shape(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut before = Ends::default();
        for end in &self.ends {
            let sizes = [end.term - before.term, end.posting - before.posting, end.position - before.position];
            // Fewer than 2^32 each: slots are numbers of 32 bits, and rows are smaller than that.
            sizes.iter().for_each(|size| varint::write(&mut bytes, *size as u32));
            before = *end;
        }
        bytes
    }

    fn postings(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in 0..self.ends.len() {
            let mut before = 0;
            for (slot, mark) in self.list(number).iter() {
                let step = slot - before;
                // A step has 31 bits only: no part has more slots.
                varint::write(&mut bytes, step << 1 | u32::from(mark != Mark::ONCE));
                if mark != Mark::ONCE {
                    varint::write(&mut bytes, mark.0.into());
                }
                before = slot;
            }
        }
        bytes
    }

    pub fn decode(bytes: &mut Reader) -> Result<TextPart, Damaged> {
        let lengths = numbers(bytes.blob()?)?;
        let mut part = TextPart { lengths, terms: bytes.blob()?.to_vec(), plain: true, ..TextPart::default() };
        let shape = bytes.blob()?;
        let mut postings = bytes.blob()?;
        part.positions = bytes.blob()?.to_vec();
        part.read_shape(shape)?;
        part.read_postings(&mut postings)?;
        part.check_positions()?;
        Ok(part)
    }

    fn read_shape(&mut self, mut shape: &[u8]) -> Result<(), Damaged> {
        let mut end = Ends::default();
        while !shape.is_empty() {
            let [term, posting, position] = [next(&mut shape)?, next(&mut shape)?, next(&mut shape)?];
            end.term = add(end.term, term, self.terms.len())?;
            end.posting = add(end.posting, posting, usize::MAX)?;
            end.position = add(end.position, position, self.positions.len())?;
            self.ends.push(end);
            let number = self.ends.len() - 1;
            if number > 0 && self.term(number - 1) >= self.term(number) {
                return Err(Damaged("terms are not in order"));
            }
        }
        if end.term != self.terms.len() || end.position != self.positions.len() {
            return Err(Damaged("terms do not take what is there"));
        }
        Ok(())
    }

    fn read_postings(&mut self, postings: &mut &[u8]) -> Result<(), Damaged> {
        for number in 0..self.ends.len() {
            let start = self.slots.len();
            let mut slot = 0;
            while self.slots.len() < self.ends[number].posting {
                let step = next(postings)?;
                slot = add(slot, step >> 1, self.lengths.len())?;
                let mark = if step & 1 == 1 { next(postings)? } else { Mark::ONCE.0.into() };
                let mark = Mark(u16::try_from(mark).map_err(|_| Damaged("a mark is too large"))?);
                if mark.count() == 0 || self.lengths.get(slot).is_none_or(|length| *length == 0) {
                    return Err(Damaged("a posting of no document"));
                }
                self.slots.push(slot as u32);
                self.marks.push(mark);
            }
            if start == self.slots.len() {
                return Err(Damaged("a term without postings"));
            }
            self.plain &= is_plain(self.list(number).iter());
        }
        if postings.is_empty() { Ok(()) } else { Err(Damaged("postings of no term")) }
    }

    fn check_positions(&self) -> Result<(), Damaged> {
        for number in 0..self.ends.len() {
            let list = self.list(number);
            let mut rest = list.positions;
            for mark in list.marks {
                (0..mark.count()).try_for_each(|_| next(&mut rest).map(drop))?;
            }
            if !rest.is_empty() {
                return Err(Damaged("positions of no posting"));
            }
        }
        Ok(())
    }
}

fn next(bytes: &mut &[u8]) -> Result<u32, Damaged> {
    varint::read(bytes).ok_or(Damaged("it ends in a number, or that is too large"))
}

fn numbers(mut bytes: &[u8]) -> Result<Vec<u32>, Damaged> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        numbers.push(next(&mut bytes)?);
    }
    Ok(numbers)
}

fn add(sum: usize, more: u32, most: usize) -> Result<usize, Damaged> {
    sum.checked_add(more as usize).filter(|sum| *sum <= most).ok_or(Damaged("a number is too large"))
}
