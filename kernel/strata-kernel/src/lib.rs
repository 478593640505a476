//! The kernel of Strata: versioned, branching, transactional keyspaces over one log.
//!
//! Read in this order: `error`; `env`, the door to the world; `value`, bytes with eight kinds; `table`, versions of keys
//! in memory; `run`, versions in sorted files; `log`, the truth; `seal`, encryption; `branch`, history and reads;
//! `transaction`, `footprint`, `change` and `commit`, how it changes; `store`, all of it together; `inspect`, any file
//! by itself. The kernel knows no primitive: what a keyspace means is said in Python.

pub mod branch;
pub mod bundle;
pub mod change;
pub mod commit;
pub mod env;
pub mod error;
pub mod footprint;
pub mod index;
pub mod inspect;
pub mod keyspaces;
pub mod log;
pub mod manifest;
mod pack;
pub mod payload;
pub mod retention;
pub mod run;
pub mod sabotage;
pub mod seal;
pub mod state;
pub mod store;
pub mod table;
pub mod transaction;
pub mod value;

pub use error::{Clash, Error, Result};
