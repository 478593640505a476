//! Reading of many rows, and of values outside of the locks.

use pyo3::prelude::*;
use strata_kernel::branch::{Most, Range, RowBuffer};

use super::{MANY, Mode, PyKeyspace};
use crate::convert::{decode, is_scalar};
use crate::errors::guarded;

impl PyKeyspace {
    pub(super) fn rows(
        &self,
        py: Python<'_>,
        range: &Range,
        reverse: bool,
        limit: impl Into<Most>,
    ) -> PyResult<RowBuffer> {
        let limit = limit.into();
        if let Mode::Inside(shared) = &self.mode {
            return self.inside(py, shared, |txn| txn.scan(self.number, range, reverse, limit));
        }
        let at = self.readable(py)?;
        let scan = || {
            guarded(|| {
                let mut rows = RowBuffer::for_rows(limit.rows);
                self.branch.scan(self.number, range, reverse, at, &mut rows, limit)?;
                Ok(rows)
            })
        };
        let rows = if limit.rows > 4 * MANY { py.detach(scan) } else { scan() };
        rows.map_err(|error| self.error(py, error))
    }

    /// Decode what `read` finds, outside of any lock where that may run other Python code.
    pub(super) fn decode_found<'py>(
        py: Python<'py>,
        default: Option<Bound<'py, PyAny>>,
        read: impl FnOnce(&mut dyn FnMut(Option<&[u8]>) -> Found<'py>) -> PyResult<Found<'py>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut take = |found: Option<&[u8]>| match found {
            None => Found::Missing,
            Some(bytes) if is_scalar(bytes) => Found::Object(decode(py, bytes)),
            Some(bytes) => Found::Bytes(bytes.to_vec()),
        };
        match read(&mut take)? {
            Found::Missing => Ok(default.unwrap_or_else(|| py.None().into_bound(py))),
            Found::Object(object) => object,
            Found::Bytes(bytes) => decode(py, &bytes),
        }
    }

    pub(super) fn count_of(&self, py: Python<'_>, range: &Range) -> PyResult<u64> {
        if let Mode::Inside(shared) = &self.mode {
            let count = || {
                self.store.check()?;
                self.store.check_open()?;
                let mut transaction = shared.transaction.lock();
                transaction.check_open()?;
                transaction.count(self.number, range)
            };
            return py.detach(|| guarded(count)).map_err(|error| self.error(py, error));
        }
        let at = self.readable(py)?;
        py.detach(|| guarded(|| self.branch.count(self.number, range, at))).map_err(|error| self.error(py, error))
    }
}

/// A value that was found: what is more than a scalar is decoded outside of the locks.
pub(super) enum Found<'py> {
    Missing,
    Object(PyResult<Bound<'py, PyAny>>),
    Bytes(Vec<u8>),
}
