//! The log against the simulator: power cuts and kills at every call, faults at every call, damage to
//! every bit. The names of the modules are those of the rows in reliability.md that they stand for.

mod crash;
mod cut;
mod damage;
mod faults;
mod harness;
mod real;
#[cfg(feature = "sabotage")]
mod sabotage;
mod sealed;
