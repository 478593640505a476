//! Indexes over the values of a keyspace: which there are, what they hold of each run and of memory, and what a query sees.
//!
//! What an index holds of a run is a function of the run, and what it holds of memory a function of the tables: all of it
//! can be thrown away and made again (`part`, `own`). So forks, views, retention, erasure, compaction and crashes need no
//! care of their own here, and a query answers as an index would that was made of what its view shows.
//!
//! A row (one version of one key) is a *slot* of a part; all indexes of a keyspace share the slots. A query asks the parts
//! of its branch and of those it was forked off, and a `Sight` says of each which slots it sees (`view`).

mod definition;
mod docs;
mod own;
mod part;
mod view;

pub use strata_index::ordered::Range as ValueRange;
pub use strata_index::text;
pub use strata_index::vector::{Effort, VectorOptions};

pub use definition::{Definition, Definitions, Form, TextForm, floats, order_of, range_of};
pub use own::{Delta, Indexed, Own};
pub use part::{Part, PartBuilder};
pub use view::{Filter, Hit, TextFound, View};
