//! CRC32C, which the kernel sums its own files with, for files and frames of others.

use pyo3::prelude::*;

/// Below this, taking the GIL back would cost more than others gain by it: 64 KiB are summed in a few microseconds.
const MANY: usize = 64 << 10;

/// The CRC32C of bytes, or of those that `crc` is the sum of and these behind them.
#[pyfunction]
#[pyo3(signature = (data, crc = 0, /))]
pub fn crc32c(py: Python<'_>, data: &[u8], crc: u32) -> u32 {
    let sum = || ::crc32c::crc32c_append(crc, data);
    if data.len() > MANY { py.detach(sum) } else { sum() }
}
