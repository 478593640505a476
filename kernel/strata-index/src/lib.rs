//! Derived indexes: text, vectors, ordered values.
//!
//! A *part* holds what was indexed of the rows of one run, or of what is in memory (*delta*: it grows). A row is a *slot*,
//! counted from 0; slots of a part on disk are in the order of its keys, and all indexes of a keyspace share them. A query
//! asks several parts at once and sees of each what a `Sight` shows, so it answers as an index would that was built of the
//! visible rows alone: statistics as well as hits.
//!
//! Nothing here knows files, time or threads (`hands` are those of the caller), and equal input gives equal output to the last bit, on every machine.

pub mod bits;
pub mod bytes;
pub mod hands;
pub mod ordered;
pub mod sight;
pub mod text;
pub mod vector;

pub use bits::Bits;
pub use sight::{Blocks, Keys, Sight};
