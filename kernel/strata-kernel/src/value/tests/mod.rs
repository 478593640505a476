//! Tests of values: bytes here, patches in `patches`, their laws in `laws`, the judge in `model`.

mod bytes;
mod laws;
mod model;
mod patches;
