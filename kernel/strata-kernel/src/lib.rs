//! The kernel of Strata: versioned, branching, transactional keyspaces over one log.
//!
//! Read in this order: `error`, `env` (the door to the world), `value` (bytes with eight kinds),
//! `table` (versions of keys in memory), `log` (the truth), `branch`, `transaction`, `commit`, `store`.
//! It knows no primitive: what a keyspace means is said in Python.

pub mod env;
pub mod error;
pub mod log;
pub mod value;

pub use error::{Clash, Error, Result};
