//! The outline of encoded values: where one ends, what a container holds, what a key says.
//!
//! All of it is safe on hostile bytes: each loop consumes at least one byte a turn or stops, nothing
//! recurses, and nothing is allocated.

use std::fmt;

use super::Kind;
use crate::error::Error;

/// What stands at this offset is no value of ours, or is cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub usize);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bytes are no value: at {} they are cut short or hold something of no known kind", self.0)
    }
}

impl From<Malformed> for Error {
    #[cold]
    fn from(malformed: Malformed) -> Error {
        Error::InvalidInput(malformed.to_string())
    }
}

/// A list or a map as its header tells it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Container {
    /// Offset of the header, and of what follows it.
    pub at: usize,
    pub body: usize,
    /// Elements of a list, pairs of a map.
    pub count: usize,
    pub kind: Kind,
}

/// For each first byte: how many bytes the value takes (low half), and how many values follow that
/// belong to it (high half). 0 where that stands in the next bytes, or where the byte begins nothing.
static SHAPES: [u16; 256] = shapes();

const fn shapes() -> [u16; 256] {
    let mut table = [1; 256];
    let mut n = 0;
    while n < 32 {
        if n < 16 {
            table[0x80 + n] = 1 | (2 * n as u16) << 8;
            table[0x90 + n] = 1 | (n as u16) << 8;
        }
        table[0xa0 + n] = 1 + n as u16;
        // 0xc0..=0xdf: null and bools stay 1, numbers have fixed widths, the rest has to be read.
        table[0xc0 + n] = match n {
            0x00 | 0x02 | 0x03 => 1,
            0x0c | 0x10 => 2,
            0x0d | 0x11 => 3,
            0x0a | 0x0e | 0x12 => 5,
            0x0b | 0x0f | 0x13 => 9,
            _ => 0,
        };
        n += 1;
    }
    table
}

/// The offset just after the value at `at`.
#[inline]
pub(super) fn end_of(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    let shape = bytes.get(at).map_or(0, |&first| SHAPES[first as usize]) as usize;
    // Scalars are most of what is skipped.
    if shape != 0 && shape < 0x100 && at + shape <= bytes.len() {
        return Ok(at + shape);
    }
    end_of_run(bytes, at, 1)
}

/// The offset just after `count` values in a row that begin at `at`.
pub(super) fn end_of_run(bytes: &[u8], mut at: usize, count: usize) -> Result<usize, Malformed> {
    // Announced counts are only added up, never allocated; what is announced and missing ends below.
    let mut pending = count as u64;
    while pending > 0 {
        let first = *bytes.get(at).ok_or(Malformed(at))?;
        let shape = SHAPES[first as usize];
        let (length, children) = match shape {
            0 => wide_shape(bytes, at)?,
            _ => ((shape & 0xff) as usize, (shape >> 8) as u64),
        };
        at = at.saturating_add(length);
        pending += children;
        pending -= 1;
    }
    if at <= bytes.len() { Ok(at) } else { Err(Malformed(bytes.len())) }
}

/// Length and number of children where they follow the first byte.
fn wide_shape(bytes: &[u8], at: usize) -> Result<(usize, u64), Malformed> {
    let number = |width| be(bytes, at + 1, width);
    Ok(match bytes[at] {
        0xc4 | 0xd9 => (number(1)?.saturating_add(2), 0),
        0xc5 | 0xda => (number(2)?.saturating_add(3), 0),
        0xc6 | 0xdb => (number(4)?.saturating_add(5), 0),
        0xdc => (3, number(2)? as u64),
        0xdd => (5, number(4)? as u64),
        0xde => (3, 2 * number(2)? as u64),
        0xdf => (5, 2 * number(4)? as u64),
        _ => return Err(Malformed(at)),
    })
}

/// The big-endian number of `width` bytes at `at`.
#[inline]
fn be(bytes: &[u8], at: usize, width: usize) -> Result<usize, Malformed> {
    let digits = bytes.get(at..at + width).ok_or(Malformed(bytes.len()))?;
    Ok(digits.iter().fold(0, |number, &digit| number << 8 | usize::from(digit)))
}

/// What the header at `at` says, if a list or a map begins there.
#[inline]
pub(super) fn container(bytes: &[u8], at: usize) -> Result<Option<Container>, Malformed> {
    let first = *bytes.get(at).ok_or(Malformed(at))?;
    let (kind, header, count) = match first {
        0x80..=0x8f => (Kind::Map, 1, usize::from(first & 0x0f)),
        0x90..=0x9f => (Kind::List, 1, usize::from(first & 0x0f)),
        0xdc => (Kind::List, 3, be(bytes, at + 1, 2)?),
        0xdd => (Kind::List, 5, be(bytes, at + 1, 4)?),
        0xde => (Kind::Map, 3, be(bytes, at + 1, 2)?),
        0xdf => (Kind::Map, 5, be(bytes, at + 1, 4)?),
        _ => return Ok(None),
    };
    Ok(Some(Container { at, body: at + header, count, kind }))
}

/// The string at `at`, as bytes, and the offset after it.
#[inline]
pub(super) fn key(bytes: &[u8], at: usize) -> Result<(&[u8], usize), Malformed> {
    let first = *bytes.get(at).ok_or(Malformed(at))?;
    let (start, length) = match first {
        0xa0..=0xbf => (at + 1, usize::from(first & 0x1f)),
        0xd9 => (at + 2, be(bytes, at + 1, 1)?),
        0xda => (at + 3, be(bytes, at + 1, 2)?),
        0xdb => (at + 5, be(bytes, at + 1, 4)?),
        _ => return Err(Malformed(at)),
    };
    let end = start.saturating_add(length);
    Ok((bytes.get(start..end).ok_or(Malformed(bytes.len()))?, end))
}

#[inline]
pub(super) fn kind_at(bytes: &[u8], at: usize) -> Result<Kind, Malformed> {
    Ok(match *bytes.get(at).ok_or(Malformed(at))? {
        0x00..=0x7f | 0xe0..=0xff | 0xcc..=0xd3 => Kind::Int,
        0x80..=0x8f | 0xde | 0xdf => Kind::Map,
        0x90..=0x9f | 0xdc | 0xdd => Kind::List,
        0xa0..=0xbf | 0xd9..=0xdb => Kind::String,
        0xc0 => Kind::Null,
        0xc2 | 0xc3 => Kind::Bool,
        0xc4..=0xc6 => Kind::Bytes,
        0xca | 0xcb => Kind::Float,
        0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => return Err(Malformed(at)),
    })
}

/// How many containers stand inside each other: 0 for a scalar, 1 for `[]`, 2 for `[[]]`.
/// Counts no further than `limit + 1`, so that hostile bytes cannot buy memory.
pub(super) fn depth(bytes: &[u8], limit: usize) -> Result<usize, Malformed> {
    let (mut at, mut deepest) = (0, 0);
    // For each open container, how many values are still to come.
    let mut open: Vec<u64> = Vec::new();
    loop {
        match container(bytes, at)? {
            Some(inner) => {
                at = inner.body;
                open.push(inner.count as u64 * if inner.kind == Kind::Map { 2 } else { 1 });
                deepest = deepest.max(open.len());
            }
            None => at = end_of(bytes, at)?,
        }
        if deepest > limit {
            return Ok(deepest);
        }
        while open.last() == Some(&0) {
            open.pop();
        }
        match open.last_mut() {
            Some(left) => *left -= 1,
            None => return Ok(deepest),
        }
    }
}
