//! The outline of encoded values: where one ends, what a container holds, what a key says.
//!
//! All of it is safe on hostile bytes: each loop consumes at least one byte a turn or stops, nothing
//! recurses, and nothing is allocated.

use std::fmt;

use super::Kind;
use crate::error::Error;

/// Why bytes are no value. Small and without a text, so that the fast paths carry no more than a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// Cut short at this offset, or of no kind of ours.
    At(usize),
    /// The string that begins at this offset.
    NotUtf8(usize),
    /// An integer above 63 bits.
    TooLarge(u64),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::At(at) => write!(f, "the bytes are no value: at {at} they are cut short or of no known kind"),
            Malformed::NotUtf8(at) => write!(f, "the string at byte {at} is not UTF-8"),
            Malformed::TooLarge(value) => write!(f, "the integer {value} does not fit into 64 bits with a sign"),
        }
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

impl Container {
    /// How many values follow that belong to it: keys are values too.
    #[inline]
    fn children(&self) -> u64 {
        self.count as u64 * if self.kind == Kind::Map { 2 } else { 1 }
    }
}

/// The offset just after the value at `at`.
#[inline]
pub(super) fn end_of(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    end_of_run(bytes, at, 1)
}

/// The offset just after `count` values in a row that begin at `at`.
pub(super) fn end_of_run(bytes: &[u8], mut at: usize, count: usize) -> Result<usize, Malformed> {
    // Announced counts are only added up, never allocated; what is announced and missing ends below.
    let mut pending = count as u64;
    while pending > 0 {
        pending -= 1;
        let first = *bytes.get(at).ok_or(Malformed::At(at))?;
        // A jump per shape, not a table of lengths: the processor guesses the jump and runs ahead,
        // where a table would make each step wait for the one before.
        let mut children = 0;
        at = match first {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => at + 1,
            0xa0..=0xbf => at + 1 + usize::from(first & 0x1f),
            0xcc | 0xd0 => at + 2,
            0xcd | 0xd1 => at + 3,
            0xca | 0xce | 0xd2 => at + 5,
            0xcb | 0xcf | 0xd3 => at + 9,
            0xc4 | 0xd9 => be(bytes, at + 1, 1)?.saturating_add(at + 2),
            0xc5 | 0xda => be(bytes, at + 1, 2)?.saturating_add(at + 3),
            0xc6 | 0xdb => be(bytes, at + 1, 4)?.saturating_add(at + 5),
            _ => {
                let inside = container(bytes, at)?.ok_or(Malformed::At(at))?;
                children = inside.children();
                inside.body
            }
        };
        pending += children;
    }
    if at <= bytes.len() { Ok(at) } else { Err(Malformed::At(bytes.len())) }
}

/// The big-endian number of `width` bytes at `at`.
#[inline]
fn be(bytes: &[u8], at: usize, width: usize) -> Result<usize, Malformed> {
    let digits = bytes.get(at..at + width).ok_or(Malformed::At(bytes.len()))?;
    Ok(digits.iter().fold(0, |number, &digit| number << 8 | usize::from(digit)))
}

/// What the header at `at` says, if a list or a map begins there.
#[inline]
pub(super) fn container(bytes: &[u8], at: usize) -> Result<Option<Container>, Malformed> {
    let first = *bytes.get(at).ok_or(Malformed::At(at))?;
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
    let first = *bytes.get(at).ok_or(Malformed::At(at))?;
    let (start, length) = match first {
        0xa0..=0xbf => (at + 1, usize::from(first & 0x1f)),
        0xd9 => (at + 2, be(bytes, at + 1, 1)?),
        0xda => (at + 3, be(bytes, at + 1, 2)?),
        0xdb => (at + 5, be(bytes, at + 1, 4)?),
        _ => return Err(Malformed::At(at)),
    };
    let end = start.saturating_add(length);
    Ok((bytes.get(start..end).ok_or(Malformed::At(bytes.len()))?, end))
}

#[inline]
pub(super) fn kind_at(bytes: &[u8], at: usize) -> Result<Kind, Malformed> {
    Ok(match *bytes.get(at).ok_or(Malformed::At(at))? {
        0x00..=0x7f | 0xe0..=0xff | 0xcc..=0xd3 => Kind::Int,
        0x80..=0x8f | 0xde | 0xdf => Kind::Map,
        0x90..=0x9f | 0xdc | 0xdd => Kind::List,
        0xa0..=0xbf | 0xd9..=0xdb => Kind::String,
        0xc0 => Kind::Null,
        0xc2 | 0xc3 => Kind::Bool,
        0xc4..=0xc6 => Kind::Bytes,
        0xca | 0xcb => Kind::Float,
        0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => return Err(Malformed::At(at)),
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
                open.push(inner.children());
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
