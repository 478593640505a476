//! Values: eight kinds, held as MessagePack.
//!
//! A value is null, a bool, an integer of 64 bits, a float of 64 bits, a string, bytes, a list or a map
//! with string keys. We write the smallest MessagePack encoding (floats always in full) and read every one.
//! Bytes from outside pass `check` once, at the door; behind it everything still is safe on any bytes,
//! but promises sense for values only.
//!
//! Read in this order: `write` and `read` (one piece at a time), `shape` (where a value ends), `path`
//! (a place inside a value), `walk` (finding it), `patch` (changing it) with `edit` and `merge`, `canonical`.

mod canonical;
mod check;
mod edit;
mod merge;
pub mod patch;
pub mod path;
pub mod read;
mod shape;
mod walk;
pub mod write;

#[cfg(test)]
mod tests;

use std::fmt;

pub use canonical::{canonical, equal};
pub use check::{check, finite};
pub use patch::{Op, PatchError, Patched};
pub use path::{Path, Step, find, overlaps};
pub use read::{Reader, Token};

use crate::error::Result;

/// Containers inside each other: a scalar is 0 deep, `[]` is 1 deep, `[[]]` 2.
pub const MAX_DEPTH: usize = 128;
/// Of one encoded value.
pub const MAX_VALUE_BYTES: usize = 32 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Null,
    Bool,
    Int,
    Float,
    String,
    Bytes,
    List,
    Map,
}

impl fmt::Display for Kind {
    /// With its article, as messages need it: "a map".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Null => "null",
            Kind::Bool => "a bool",
            Kind::Int => "an int",
            Kind::Float => "a float",
            Kind::String => "a string",
            Kind::Bytes => "bytes",
            Kind::List => "a list",
            Kind::Map => "a map",
        })
    }
}

/// The kind of the value that `bytes` begin with, from its first byte alone.
#[inline]
pub fn kind(bytes: &[u8]) -> Result<Kind> {
    Ok(shape::kind_at(bytes, 0)?)
}

/// How many of `bytes` the value takes that they begin with.
///
/// Sees the outline only: strings may be no UTF-8 and keys no strings. Safe on any bytes, at any depth.
#[inline]
pub fn skip(bytes: &[u8]) -> Result<usize> {
    Ok(shape::end_of(bytes, 0)?)
}
