//! Bundles and copies of whole databases, which stand beside the store that is open.

use std::path::Path;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use strata_kernel::Error;
use strata_kernel::env::{Env, real};
use strata_kernel::store::{self, Backup, Bundle, Moment};

use crate::errors::{guarded, to_python};
use crate::keys::keys_of;

/// The directory that a path is in, and its name there.
pub fn outside(path: &str) -> Result<(Env, String), Error> {
    let name = Path::new(path).file_name().and_then(|name| name.to_str());
    let Some(name) = name.filter(|_| !path.contains('\0')) else {
        return Err(Error::InvalidInput(format!("'{path}' names no file")));
    };
    let parent = Path::new(path).parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((real::env(parent.unwrap_or(Path::new("."))), name.to_owned()))
}

pub fn bundle_dict<'py>(py: Python<'py>, bundle: &Bundle) -> PyResult<Bound<'py, PyDict>> {
    let found = PyDict::new(py);
    found.set_item("history", bundle.has_history)?;
    found.set_item("branches", &bundle.branches)?;
    found.set_item("rows", bundle.rows)?;
    found.set_item("bytes", bundle.bytes)?;
    found.set_item("sha256", PyBytes::new(py, &bundle.digest))?;
    found.set_item("key_id", bundle.key.map(|key| key.to_string()))?;
    Ok(found)
}

pub fn backup_dict<'py>(py: Python<'py>, backup: &Backup) -> PyResult<Bound<'py, PyDict>> {
    let found = PyDict::new(py);
    let Backup { version, time, runs, bytes, new_runs, linked_runs, copied_bytes, removed_runs } = *backup;
    let figures = [
        ("version", version),
        ("time", time),
        ("runs", runs),
        ("bytes", bytes),
        ("new_runs", new_runs),
        ("linked_runs", linked_runs),
        ("copied_bytes", copied_bytes),
        ("removed_runs", removed_runs),
    ];
    figures.into_iter().try_for_each(|(name, figure)| found.set_item(name, figure))?;
    Ok(found)
}

fn run<T: Send>(py: Python<'_>, call: impl FnOnce() -> Result<T, Error> + Send) -> PyResult<T> {
    py.detach(|| guarded(call)).map_err(|error| to_python(py, error, None))
}

/// Read a bundle to its end, and say what it holds.
#[pyfunction]
#[pyo3(signature = (bundle, keys=None, /))]
pub fn verify_bundle<'py>(
    py: Python<'py>,
    bundle: &str,
    keys: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let keys = keys_of(keys)?;
    let found = run(py, || {
        let (env, name) = outside(bundle)?;
        store::verify_bundle(&env, &name, keys.as_ref())
    })?;
    bundle_dict(py, &found)
}

/// Make the database `path` of a bundle.
#[pyfunction]
#[pyo3(signature = (bundle, path, keys=None, /))]
pub fn import_bundle<'py>(
    py: Python<'py>,
    bundle: &str,
    path: &str,
    keys: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let keys = keys_of(keys)?;
    let found = run(py, || {
        let ((from, name), (to, target)) = (outside(bundle)?, outside(path)?);
        store::import(&from, &name, &to, &target, keys.as_ref())
    })?;
    bundle_dict(py, &found)
}

/// Make the database `path` of the one in a directory, as it is, or was at a version or a time.
#[pyfunction]
#[pyo3(signature = (backup, path, version=None, time=None, keys=None, /))]
pub fn restore<'py>(
    py: Python<'py>,
    backup: &str,
    path: &str,
    version: Option<u64>,
    time: Option<u64>,
    keys: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let keys = keys_of(keys)?;
    let moment = version.map(Moment::Version).or(time.map(Moment::Time)).unwrap_or(Moment::Newest);
    let made = run(py, || {
        let (to, target) = outside(path)?;
        store::restore(&real::env(backup), &to, &target, moment, keys.as_ref())
    })?;
    let found = PyDict::new(py);
    found.set_item("version", made.version)?;
    found.set_item("time", made.time)?;
    found.set_item("branches", &made.branches)?;
    found.set_item("rows", made.rows)?;
    Ok(found)
}
