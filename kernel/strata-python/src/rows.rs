//! Rows copied out of the kernel, as Python lists.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};
use strata_kernel::branch::RowBuffer;

use crate::convert::decode;

/// A key as the layout has it. Text keys were UTF-8 when they came in.
pub fn key_object<'py>(py: Python<'py>, key: &[u8], text: bool) -> Bound<'py, PyAny> {
    match std::str::from_utf8(key).ok().filter(|_| text) {
        Some(key) => PyString::new(py, key).into_any(),
        None => PyBytes::new(py, key).into_any(),
    }
}

pub fn pairs<'py>(py: Python<'py>, rows: &RowBuffer, text: bool) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for (key, value) in rows.rows() {
        list.append(PyTuple::new(py, [key_object(py, key, text), decode(py, value)?])?)?;
    }
    Ok(list)
}

pub fn keys<'py>(py: Python<'py>, rows: &RowBuffer, text: bool) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for (key, _) in rows.rows() {
        list.append(key_object(py, key, text))?;
    }
    Ok(list)
}
