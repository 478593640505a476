//! The keys of maps as Python strings, kept: the same few come again and again.
//!
//! A string that is there needs no memory, and has its hash already. Each thread keeps its own, so none waits, and a place
//! holds whichever of its strings came last, so a flood of different keys only makes this useless.

use std::cell::RefCell;

use pyo3::prelude::*;
use pyo3::types::PyString;

/// A power of two.
const PLACES: usize = 512;
/// Longer keys are made each time.
const BYTES_MAX: usize = 24;

thread_local! {
    static KEPT: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
}

#[derive(Default)]
struct Place {
    bytes: [u8; BYTES_MAX],
    length: usize,
    text: Option<Py<PyString>>,
}

/// The string that a key of a map is.
pub fn name<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    if bytes.len() > BYTES_MAX {
        return PyString::from_bytes(py, bytes);
    }
    KEPT.with_borrow_mut(|places| {
        if places.is_empty() {
            places.resize_with(PLACES, Place::default);
        }
        let place = &mut places[place_of(bytes)];
        match &place.text {
            Some(text) if place.bytes[..place.length] == *bytes => Ok(text.bind(py).clone()),
            // No finalizer can run in here: strings are made and dropped without any.
            _ => {
                let text = PyString::from_bytes(py, bytes)?;
                place.bytes[..bytes.len()].copy_from_slice(bytes);
                place.length = bytes.len();
                place.text = Some(text.clone().unbind());
                Ok(text)
            }
        }
    })
}

#[inline]
fn place_of(bytes: &[u8]) -> usize {
    let (first, last) = match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (bytes.iter().fold(0, |word, &byte| (word << 8) | u64::from(byte)), 0),
    };
    let mixed = (first ^ last.rotate_left(29) ^ bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (u64::BITS - PLACES.trailing_zeros())) as usize
}
