//! Rows copied out of the kernel, as Python lists.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};
use strata_kernel::branch::RowBuffer;

use crate::convert::decode;

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

/// A list of exactly `count` items, filled in place: `PyList::append` costs twice as much.
#[expect(unsafe_code, reason = "the limited API of Python 3.11 has no safe way to fill a list of known length")]
pub fn filled_list<'py>(
    py: Python<'py>,
    count: usize,
    items: impl Iterator<Item = PyResult<Bound<'py, PyAny>>>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the list is new and reachable by nobody else, and each of its slots is set once. When an item fails, or
    // there are too few, it is dropped with slots that are still null, which the deallocation of lists allows.
    let list = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyList_New(count as ffi::Py_ssize_t))? };
    let mut filled = 0;
    for item in items {
        assert!(filled < count, "more items than were announced");
        unsafe { ffi::PyList_SetItem(list.as_ptr(), filled as ffi::Py_ssize_t, item?.into_ptr()) };
        filled += 1;
    }
    assert!(filled == count, "fewer items than were announced");
    debug_assert!(list.is_instance_of::<PyList>());
    Ok(list)
}
