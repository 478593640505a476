//! The Python binding: convert arguments, give up the GIL where it pays, call the kernel, map errors.
//!
//! The classes implement the protocols of `strata.core.protocols`; `src/strata/_kernel.pyi` is their signature, and a
//! test compares the two. No meaning lives here.

mod branch;
mod changes;
mod checksum;
mod clock;
mod convert;
mod errors;
mod handle;
mod info;
mod inspect;
mod keys;
mod keyspace;
mod names;
mod portable;
mod progress;
mod rows;
mod salvage;
mod sim;
mod store;
mod text;
mod transaction;

use pyo3::prelude::*;

#[pymodule]
fn _kernel(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<store::PyStore>()?;
    module.add_class::<branch::PyBranch>()?;
    module.add_class::<branch::PySnapshot>()?;
    module.add_class::<changes::PyDiff>()?;
    module.add_class::<transaction::PyTransaction>()?;
    module.add_class::<keyspace::PyKeyspace>()?;
    module.add_class::<sim::PySimDisk>()?;
    module.add_class::<text::PyTextReader>()?;
    module.add_function(wrap_pyfunction!(checksum::crc32c, module)?)?;
    module.add_function(wrap_pyfunction!(store::check_keys, module)?)?;
    module.add_function(wrap_pyfunction!(store::sealed_with, module)?)?;
    module.add_function(wrap_pyfunction!(inspect::inspect, module)?)?;
    module.add_function(wrap_pyfunction!(portable::import_bundle, module)?)?;
    module.add_function(wrap_pyfunction!(portable::restore, module)?)?;
    module.add_function(wrap_pyfunction!(portable::verify_bundle, module)?)?;
    module.add_function(wrap_pyfunction!(salvage::salvage, module)?)?;
    module.add_function(wrap_pyfunction!(salvage::sealed_with_any, module)?)?;
    module.add_function(wrap_pyfunction!(handle::after_fork_in_child, module)?)?;
    Ok(())
}
