//! Keys for encryption, as Python hands them in.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use strata_kernel::seal::{GivenKeys, Key};

use crate::errors::to_python;

/// The current key first. They are copied nowhere but into the kernel, which overwrites them in the end.
pub fn keys_of(value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<GivenKeys>> {
    let Some(value) = value.filter(|value| !value.is_none()) else { return Ok(None) };
    let given: Vec<Bound<'_, PyBytes>> = value.extract()?;
    let mut keys = given.iter().map(key_of).collect::<PyResult<Vec<_>>>()?.into_iter();
    Ok(keys.next().map(|current| GivenKeys { current, older: keys.collect() }))
}

pub fn key_of(key: &Bound<'_, PyBytes>) -> PyResult<Key> {
    Key::new(key.as_bytes()).map_err(|error| to_python(key.py(), error, None))
}
