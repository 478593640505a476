//! What changed, as Python rows.

use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyList, PyString, PyTuple};
use strata_kernel::branch::{Diff, Difference, How, Kept, Written};
use strata_kernel::payload::Read;
use strata_kernel::store::Store;
use strata_kernel::table::ChangeKind;
use strata_kernel::value::path::{Path, Step};

use crate::convert::{decode, filled_list};
use crate::errors::{guarded, to_python};
use crate::handle::Handle;

/// The keys that differ between two states, page by page.
#[pyclass(frozen, name = "Diff", module = "strata._kernel")]
pub struct PyDiff {
    store: Handle,
    diff: Mutex<Diff>,
}

impl PyDiff {
    pub fn new(store: &Handle, diff: Diff) -> PyDiff {
        PyDiff { store: store.clone(), diff: Mutex::new(diff) }
    }
}

#[pymethods]
impl PyDiff {
    #[pyo3(signature = (limit, /))]
    fn page<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Bound<'py, PyAny>> {
        let checked = self.store.check().and_then(|()| self.store.check_open());
        // Locked without the GIL, which the holder may wait for.
        let page = || guarded(|| self.diff.lock().unwrap_or_else(std::sync::PoisonError::into_inner).page(limit));
        let page = checked.and_then(|()| py.detach(page));
        let page = page.map_err(|error| to_python(py, error, None))?;
        let mut names = Names::new(&self.store);
        filled_list(py, page.len(), page.iter().map(|row| difference(py, &mut names, row)))
    }
}

/// Space and kind of keyspaces, as objects that rows of one keyspace share.
struct Names<'a, 'py> {
    store: &'a Store,
    last: Option<(u32, Bound<'py, PyString>, Bound<'py, PyString>)>,
}

impl<'a, 'py> Names<'a, 'py> {
    fn new(store: &'a Store) -> Names<'a, 'py> {
        Names { store, last: None }
    }

    fn of(&mut self, py: Python<'py>, keyspace: u32) -> (Bound<'py, PyAny>, Bound<'py, PyAny>) {
        if self.last.as_ref().is_none_or(|(number, ..)| *number != keyspace) {
            let (space, kind) = self.store.keyspace_name(keyspace);
            self.last = Some((keyspace, PyString::new(py, &space), PyString::new(py, &kind)));
        }
        let (_, space, kind) = self.last.as_ref().expect("just set");
        (space.clone().into_any(), kind.clone().into_any())
    }
}

fn difference<'py>(py: Python<'py>, names: &mut Names<'_, 'py>, row: &Difference) -> PyResult<Bound<'py, PyAny>> {
    let (space, kind) = names.of(py, row.keyspace);
    let (old, new) = (kept(py, row.old.as_ref())?, kept(py, row.new.as_ref())?);
    let row = [space, kind, PyBytes::new(py, &row.key).into_any(), old, new, how(py, &row.how)?];
    Ok(PyTuple::new(py, row)?.into_any())
}

fn kept<'py>(py: Python<'py>, kept: Option<&Kept>) -> PyResult<Bound<'py, PyAny>> {
    let Some(kept) = kept else { return Ok(py.None().into_bound(py)) };
    let expires = (kept.expires != 0).then_some(kept.expires);
    Ok((decode(py, &kept.value)?, kept.version, expires).into_pyobject(py)?.into_any())
}

/// Kinds of changes as bits, and the paths that patches touched.
pub fn how<'py>(py: Python<'py>, how: &How) -> PyResult<Bound<'py, PyAny>> {
    let paths = PyList::new(py, how.touched.iter().map(|path| steps(py, path)).collect::<PyResult<Vec<_>>>()?)?;
    Ok((how.kinds, paths).into_pyobject(py)?.into_any())
}

fn steps<'py>(py: Python<'py>, path: &Path) -> PyResult<Bound<'py, PyTuple>> {
    let step = |step: &Step| -> PyResult<Bound<'py, PyAny>> {
        Ok(match step {
            Step::Key(key) => PyString::new(py, key).into_any(),
            Step::Index(index) => index.into_pyobject(py)?.into_any(),
            Step::End => py.None().into_bound(py),
        })
    };
    PyTuple::new(py, path.0.iter().map(step).collect::<PyResult<Vec<_>>>()?)
}

/// (version, space, kind, key, kind of change as a bit, value, expires)
pub fn written<'py>(py: Python<'py>, store: &Store, rows: &[Written]) -> PyResult<Bound<'py, PyAny>> {
    let mut names = Names::new(store);
    let row = |row: &Written| -> PyResult<Bound<'py, PyAny>> {
        let (space, kind) = names.of(py, row.keyspace);
        let value = row.value.as_ref().map_or(Ok(py.None().into_bound(py)), |value| decode(py, value))?;
        let (how, expires) = (1_u8 << row.kind as u8, (row.expires != 0).then_some(row.expires));
        debug_assert_eq!(row.value.is_none(), row.kind == ChangeKind::Delete);
        let key = PyBytes::new(py, &row.key);
        Ok((row.version, space, kind, key, how, value, expires).into_pyobject(py)?.into_any())
    };
    filled_list(py, rows.len(), rows.iter().map(row))
}

/// (space, kind, key, path, start, end): a key, a key and a path, or a range.
pub fn reads<'py>(py: Python<'py>, store: &Store, reads: &[Read]) -> PyResult<Bound<'py, PyAny>> {
    let bytes = |bytes: &[u8]| PyBytes::new(py, bytes).unbind();
    let row = |read: &Read| -> PyResult<Bound<'py, PyAny>> {
        let (Read::Key { keyspace, .. } | Read::Path { keyspace, .. } | Read::Range { keyspace, .. }) = read;
        let (space, kind) = store.keyspace_name(*keyspace);
        let (key, path, start, end) = match read {
            Read::Key { key, .. } => (Some(bytes(key)), None, None, None),
            Read::Path { key, path, .. } => {
                let path = Path::decode(path).map_err(|error| to_python(py, error, None))?.0;
                (Some(bytes(key)), Some(steps(py, &path)?), None, None)
            }
            Read::Range { start, end, .. } => (None, None, Some(bytes(start)), end.as_deref().map(bytes)),
        };
        Ok((space, kind, key, path, start, end).into_pyobject(py)?.into_any())
    };
    filled_list(py, reads.len(), reads.iter().map(row))
}
