//! Rows copied out of the kernel, as Python lists.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};
use strata_kernel::branch::RowBuffer;
use strata_kernel::index::Hit;

use crate::convert::{decode, filled_list};

/// A key as the layout has it. Text keys were UTF-8 when they came in.
fn key_object<'py>(py: Python<'py>, key: &[u8], text: bool) -> PyResult<Bound<'py, PyAny>> {
    if text { Ok(PyString::from_bytes(py, key)?.into_any()) } else { Ok(PyBytes::new(py, key).into_any()) }
}

pub fn pairs<'py>(py: Python<'py>, rows: &RowBuffer, text: bool) -> PyResult<Bound<'py, PyAny>> {
    let pair = |(key, value): (&[u8], &[u8])| {
        Ok(PyTuple::new(py, [key_object(py, key, text)?, decode(py, value)?])?.into_any())
    };
    filled_list(py, rows.len(), rows.rows().map(pair))
}

pub fn keys<'py>(py: Python<'py>, rows: &RowBuffer, text: bool) -> PyResult<Bound<'py, PyAny>> {
    filled_list(py, rows.len(), rows.rows().map(|(key, _)| key_object(py, key, text)))
}

pub fn versions<'py, 'k>(
    py: Python<'py>,
    rows: impl ExactSizeIterator<Item = (&'k [u8], u64)>,
    text: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let row = |(key, version): (&[u8], u64)| {
        Ok(PyTuple::new(py, [key_object(py, key, text)?, version.into_pyobject(py)?.into_any()])?.into_any())
    };
    filled_list(py, rows.len(), rows.map(row))
}

/// Keys with their versions and scores.
pub fn scored<'py>(py: Python<'py>, hits: &[Hit], text: bool) -> PyResult<Bound<'py, PyAny>> {
    let row = |hit: &Hit| {
        let key = key_object(py, &hit.key, text)?;
        let (version, score) = (hit.version.into_pyobject(py)?.into_any(), hit.score.into_pyobject(py)?.into_any());
        Ok(PyTuple::new(py, [key, version, score])?.into_any())
    };
    filled_list(py, hits.len(), hits.iter().map(row))
}
