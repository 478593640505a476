//! Branches and views of them as Python holds them.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyList};
use strata_kernel::Error;
use strata_kernel::branch::{At, Branch, Pin};
use strata_kernel::transaction::{Isolation, Transaction};

use crate::errors::{guarded, to_python};
use crate::handle::{Handle, all_spaces};
use crate::keyspace::{Mode, PyKeyspace, as_of_now};
use crate::transaction::{PyTransaction, Shared};

#[pyclass(frozen, name = "Branch", module = "strata._kernel")]
pub struct PyBranch {
    store: Handle,
    branch: Arc<Branch>,
}

/// Everything of one branch as it was at one version and time.
#[pyclass(frozen, name = "Snapshot", module = "strata._kernel")]
pub struct PySnapshot {
    store: Handle,
    branch: Arc<Branch>,
    at: At,
    pin: Arc<Pin>,
}

impl PyBranch {
    pub fn new(store: &Handle, branch: Arc<Branch>) -> PyBranch {
        PyBranch { store: store.clone(), branch }
    }

    fn error(&self, py: Python<'_>, error: Error) -> PyErr {
        to_python(py, error, Some((&self.store, &self.branch.name.read())))
    }

    /// What a view sees: of a version all that had not expired at its commit, and of an instant what had not by then. What
    /// is to come is not known, so an instant ends with now; and a version is seen no earlier than it was made.
    fn moment(&self, newest: At, version: Option<u64>, time: Option<i64>) -> Result<At, Error> {
        if version.is_none() && time.is_none() {
            return Ok(newest);
        }
        let version = version.unwrap_or(newest.version);
        let committed = self.branch.time_of(version)?;
        let time = time.map_or(committed, |time| u64::try_from(time).unwrap_or(0).min(newest.time).max(committed));
        Ok(At::past(version, time))
    }

    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let checked = self.store.check().and_then(|()| self.store.check_readable(&self.branch));
        checked.map_err(|error| self.error(py, error))
    }
}

#[pymethods]
impl PyBranch {
    #[getter]
    fn name(&self) -> String {
        self.branch.name.read().clone()
    }

    #[getter]
    fn head(&self, py: Python<'_>) -> PyResult<u64> {
        self.check(py).map(|()| self.branch.head())
    }

    #[pyo3(signature = (space, layout, /))]
    fn keyspace(&self, space: &str, layout: &Bound<'_, PyAny>) -> PyResult<PyKeyspace> {
        PyKeyspace::new(&self.store, &self.branch, Mode::Automatic, space, layout)
    }

    fn spaces(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.check(py)?;
        let spaces = self.store.spaces(&self.branch, self.branch.head());
        spaces.map(all_spaces).map_err(|error| self.error(py, error))
    }

    #[pyo3(signature = (version=None, time=None, /))]
    fn view(&self, py: Python<'_>, version: Option<i64>, time: Option<i64>) -> PyResult<PySnapshot> {
        self.check(py)?;
        self.store.tick(py)?;
        let newest = as_of_now(&self.branch, At::from(self.branch.head()));
        let version = match version.map(u64::try_from) {
            None => None,
            Some(Ok(version)) => Some(version.min(newest.version)),
            Some(Err(_)) => {
                return Err(self.error(py, Error::InvalidInput("versions are counted from 0".into())));
            }
        };
        let at = self.moment(newest, version, time).map_err(|error| self.error(py, error))?;
        let pin = Arc::new(self.branch.pin(at.version));
        Ok(PySnapshot { store: self.store.clone(), branch: Arc::clone(&self.branch), at, pin })
    }

    #[pyo3(signature = (isolation="serializable", record_reads=false, idempotency_key=None, /))]
    fn begin(
        &self,
        py: Python<'_>,
        isolation: &str,
        record_reads: bool,
        idempotency_key: Option<String>,
    ) -> PyResult<PyTransaction> {
        self.check(py)?;
        self.store.tick(py)?;
        let isolation = match isolation {
            "serializable" => Isolation::Serializable,
            "snapshot" => Isolation::Snapshot,
            other => {
                let text = format!("isolation is 'serializable' or 'snapshot', not '{other}'");
                return Err(self.error(py, Error::InvalidInput(text)));
            }
        };
        let transaction = Transaction::new(Arc::clone(&self.branch), isolation, record_reads, idempotency_key);
        Ok(PyTransaction::new(&self.store, Shared::new(transaction)))
    }

    #[pyo3(signature = (time, /))]
    fn version_at(&self, py: Python<'_>, time: i64) -> PyResult<u64> {
        self.check(py)?;
        let version = u64::try_from(time).map_or(Ok(0), |time| self.branch.version_at(time));
        version.map_err(|error| self.error(py, error))
    }

    #[pyo3(signature = (after, before, reverse, limit, /))]
    fn commits<'py>(
        &self,
        py: Python<'py>,
        after: Option<u64>,
        before: Option<u64>,
        reverse: bool,
        limit: Option<usize>,
    ) -> PyResult<Bound<'py, PyList>> {
        self.check(py)?;
        let (after, before) = (after.unwrap_or(0), before.unwrap_or(u64::MAX));
        let limit = limit.unwrap_or(usize::MAX);
        let commits = py.detach(|| guarded(|| self.branch.commits(after, before, reverse, limit)));
        let commits = commits.map_err(|error| self.error(py, error))?;
        let class: Bound<'py, PyAny> = py.import("strata.core.protocols")?.getattr("Commit")?;
        let list = PyList::empty(py);
        for commit in commits {
            let meta = commit.meta;
            list.append(class.call1((
                commit.version,
                commit.branch,
                commit.time,
                meta.message,
                meta.actor,
                meta.cause,
            ))?)?;
        }
        Ok(list)
    }
}

#[pymethods]
impl PySnapshot {
    #[getter]
    fn version(&self) -> u64 {
        self.at.version
    }

    #[pyo3(signature = (space, layout, /))]
    fn keyspace(&self, space: &str, layout: &Bound<'_, PyAny>) -> PyResult<PyKeyspace> {
        PyKeyspace::new(&self.store, &self.branch, Mode::View(self.at, Arc::clone(&self.pin)), space, layout)
    }

    fn spaces(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let checked = self.store.check().and_then(|()| self.store.check_open());
        let spaces = checked.and_then(|()| self.store.spaces(&self.branch, self.at.version));
        spaces.map(all_spaces).map_err(|error| to_python(py, error, None))
    }
}
