//! What goes out of a database and comes in again.

mod backup;
mod bundle;
mod grown;
mod salvage;
mod sealed;
