//! Salvage of the kernel, what it found as dicts.

use std::path::{Path, PathBuf};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use strata_kernel::Error;
use strata_kernel::env::real;
use strata_kernel::store::{self, Loss, LostPlace};

use crate::errors::{guarded, to_python};
use crate::keys::keys_of;
use crate::portable::outside;
use crate::progress::Teller;

/// Make the database `path` of what is whole of the one in `damaged`.
#[pyfunction]
#[pyo3(signature = (damaged, path, keys=None, progress=None, /))]
pub fn salvage<'py>(
    py: Python<'py>,
    damaged: &str,
    path: &str,
    keys: Option<&Bound<'py, PyAny>>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let keys = keys_of(keys)?;
    let mut teller = Teller::new(progress);
    let made = py.detach(|| {
        guarded(|| {
            let (to, target) = outside(path)?;
            check_apart(damaged, path)?;
            let mut tell = |done, all| teller.tell(done, all);
            store::salvage(&real::env(damaged), &to, &target, keys.as_ref(), &mut tell)
        })
    });
    let made = match (made, teller.raised.take()) {
        (_, Some(raised)) => return Err(raised),
        (made, None) => made.map_err(|error| to_python(py, error, None))?,
    };
    let found = PyDict::new(py);
    found.set_item("version", made.version)?;
    found.set_item("time", made.time)?;
    found.set_item("branches", &made.branches)?;
    found.set_item("rows", made.rows)?;
    found.set_item("records", made.records)?;
    let lost = made.lost.iter().map(|loss| loss_dict(py, loss)).collect::<PyResult<Vec<_>>>()?;
    found.set_item("lost", lost)?;
    Ok(found)
}

/// The ids of the keys that the files in a directory name.
#[pyfunction]
#[pyo3(signature = (directory, /))]
pub fn sealed_with_any(py: Python<'_>, directory: &str) -> PyResult<Vec<String>> {
    let found = py.detach(|| guarded(|| store::sealed_with_any(&real::env(directory))));
    let ids = found.map_err(|error| to_python(py, error, None))?;
    Ok(ids.iter().map(ToString::to_string).collect())
}

/// The new database must not be made inside the damaged one.
fn check_apart(damaged: &str, path: &str) -> Result<(), Error> {
    // What does not exist is for the kernel to say.
    let Ok(damaged) = PathBuf::from(damaged).canonicalize() else { return Ok(()) };
    let mut place = Some(Path::new(path));
    while let Some(above) = place {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        if let Ok(found) = above.canonicalize() {
            if found.starts_with(&damaged) {
                let text = format!("'{path}' is inside the database that is to be salvaged");
                return Err(Error::InvalidInput(text));
            }
            return Ok(());
        }
        place = above.parent();
    }
    Ok(())
}

fn loss_dict<'py>(py: Python<'py>, loss: &Loss) -> PyResult<Bound<'py, PyDict>> {
    let found = PyDict::new(py);
    found.set_item("file", &loss.file)?;
    found.set_item("offset", loss.offset)?;
    found.set_item("length", loss.length)?;
    found.set_item("what", loss.what)?;
    found.set_item("reason", &loss.reason)?;
    found.set_item("versions", loss.versions)?;
    let place = |place: &LostPlace| {
        let LostPlace { branch, space, kind, key, version } = place;
        (branch.clone(), space.clone(), kind.clone(), PyBytes::new(py, key).unbind(), *version)
    };
    found.set_item("first", loss.first.as_ref().map(place))?;
    found.set_item("last", loss.last.as_ref().map(place))?;
    Ok(found)
}
