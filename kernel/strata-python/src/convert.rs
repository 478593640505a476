//! Python objects to MessagePack and back, without a detour.
//!
//! Only the eight kinds pass, and only as their exact types: what comes back would otherwise not be what went in. What
//! is refused here is explained by `strata.core.values.check`, which names the place inside the value and the cure.

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use strata_kernel::value::read::{Reader, Token};
use strata_kernel::value::{MAX_DEPTH, MAX_VALUE_BYTES, write};

use crate::names::name;

/// The value cannot be stored.
struct Refused;

/// Append the encoding of `value` to `out`. With `finite`, NaN and the infinities are refused.
pub fn encode(value: &Bound<'_, PyAny>, finite: bool, out: &mut Vec<u8>) -> PyResult<()> {
    let start = out.len();
    let mut encoder = Encoder { end: start + MAX_VALUE_BYTES, finite, out };
    match encoder.value(value, 0) {
        Ok(()) => Ok(()),
        Err(Refused) => Err(refusal(value, finite)),
    }
}

/// Why `value` was refused, in the words of the product.
fn refusal(value: &Bound<'_, PyAny>, finite: bool) -> PyErr {
    let check = || {
        let values = value.py().import("strata.core.values")?;
        let keywords = PyDict::new(value.py());
        keywords.set_item("finite", finite)?;
        values.call_method("check", (value,), Some(&keywords))
    };
    match check() {
        Err(error) => error,
        Ok(_) => PyRuntimeError::new_err("the kernel refuses a value that strata.core.values.check accepts"),
    }
}

struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    /// Where a value of the largest size would end; going past it stops a flood early.
    end: usize,
    finite: bool,
}

impl Encoder<'_> {
    fn value(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> Result<(), Refused> {
        // In the order in which they are met.
        if let Ok(text) = value.cast_exact::<PyString>() {
            write::string(self.out, text.to_str().map_err(|_| Refused)?);
        } else if let Ok(int) = value.cast_exact::<PyInt>() {
            write::int(self.out, int.extract::<i64>().map_err(|_| Refused)?);
        } else if let Ok(float) = value.cast_exact::<PyFloat>() {
            let float = float.value();
            if self.finite && !float.is_finite() {
                return Err(Refused);
            }
            write::float(self.out, float);
        } else if value.is_none() {
            write::null(self.out);
        } else if let Ok(boolean) = value.cast_exact::<PyBool>() {
            write::bool(self.out, boolean.is_true());
        } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
            write::bytes(self.out, bytes.as_bytes());
        } else {
            self.container(value, depth + 1)?;
        }
        if self.out.len() > self.end { Err(Refused) } else { Ok(()) }
    }

    fn container(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> Result<(), Refused> {
        if depth > MAX_DEPTH {
            return Err(Refused);
        }
        if let Ok(map) = value.cast_exact::<PyDict>() {
            write::map_header(self.out, map.len());
            for (key, item) in map.iter() {
                let key = key.cast_exact::<PyString>().map_err(|_| Refused)?;
                write::string(self.out, key.to_str().map_err(|_| Refused)?);
                self.value(&item, depth)?;
            }
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            write::list_header(self.out, list.len());
            for item in list.iter() {
                self.value(&item, depth)?;
            }
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            write::list_header(self.out, tuple.len());
            for item in tuple.iter() {
                self.value(&item, depth)?;
            }
        } else {
            return Err(Refused);
        }
        Ok(())
    }
}

/// The Python object that `bytes` stand for. They were checked when they were written.
pub fn decode<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let mut reader = Reader::new(bytes);
    decode_next(py, &mut reader)
}

/// Whether decoding makes no object that the garbage collector tracks, so that no finalizer can run while it does.
#[inline]
pub fn is_scalar(bytes: &[u8]) -> bool {
    !matches!(bytes.first(), Some(0x80..=0x9f | 0xdc..=0xdf))
}

fn decode_next<'py>(py: Python<'py>, reader: &mut Reader<'_>) -> PyResult<Bound<'py, PyAny>> {
    // Python checks UTF-8 itself, so the reader need not.
    let token = reader.next_raw().map_err(|error| crate::errors::to_python(py, error, None))?;
    Ok(match token {
        Token::String(text) => PyString::from_bytes(py, text)?.into_any(),
        Token::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        Token::Int(int) => int.into_pyobject(py)?.into_any(),
        Token::Float(float) => PyFloat::new(py, float).into_any(),
        Token::Null => py.None().into_bound(py),
        Token::Bool(boolean) => PyBool::new(py, boolean).to_owned().into_any(),
        Token::List(count) => filled_list(py, count, (0..count).map(|_| decode_next(py, reader)))?,
        Token::Map(count) => {
            let map = PyDict::new(py);
            for _ in 0..count {
                let key = decode_key(py, reader)?;
                map.set_item(key, decode_next(py, reader)?)?;
            }
            map.into_any()
        }
    })
}

fn decode_key<'py>(py: Python<'py>, reader: &mut Reader<'_>) -> PyResult<Bound<'py, PyString>> {
    match reader.next_raw().map_err(|error| crate::errors::to_python(py, error, None))? {
        Token::String(text) => name(py, text),
        _ => Err(PyRuntimeError::new_err("a key of a stored map is no string")),
    }
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
