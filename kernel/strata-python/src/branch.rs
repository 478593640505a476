//! Branches and views of them as Python holds them.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyList};
use strata_kernel::Error;
use strata_kernel::branch::{At, Branch, Diff, Pin, State};
use strata_kernel::store::Store;
use strata_kernel::transaction::{Isolation, Transaction};

use crate::changes::{self, PyDiff};
use crate::errors::{guarded, to_python};
use crate::handle::{Handle, all_spaces};
use crate::keyspace::{Mode, PyKeyspace, as_of_now};
use crate::transaction::{PyTransaction, Shared};

/// How long a wait goes on before it looks for Ctrl-C, and for whoever wants it to stop.
const SLICE_US: u64 = 100_000;

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

impl PySnapshot {
    pub fn new(store: &Handle, branch: Arc<Branch>, version: u64) -> Result<PySnapshot, Error> {
        let pin = Arc::new(branch.pin(version));
        let at = At::past(version, branch.time_of(version)?);
        Ok(PySnapshot { store: store.clone(), branch, at, pin })
    }

    fn state(&self) -> State {
        State { branch: Arc::clone(&self.branch), version: self.at.version, pin: Arc::clone(&self.pin) }
    }

    /// The state of another one, which must be of the same store.
    fn with(&self, py: Python<'_>, other: &Bound<'_, PySnapshot>) -> PyResult<State> {
        let other = other.get();
        let checked = self.store.check().and_then(|()| self.store.check_open());
        checked.map_err(|error| to_python(py, error, None))?;
        if std::ptr::eq::<Store>(&*self.store, &*other.store) {
            return Ok(other.state());
        }
        Err(to_python(py, Error::InvalidInput("the two are of different databases".into()), None))
    }
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

    /// Why it takes no writes.
    #[getter]
    fn sealed(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.check(py).map(|()| self.branch.seal().map(|seal| seal.reason))
    }

    /// The version from which on all commits are kept whole.
    #[pyo3(signature = (space=None, kind=None, /))]
    fn oldest(&self, py: Python<'_>, space: Option<&str>, kind: Option<&str>) -> PyResult<u64> {
        self.check(py)?;
        let is_asked = |keyspace| {
            let (of, of_kind) = self.store.keyspace_name(keyspace);
            let is_in = space.map_or(!of.starts_with('_'), |space| space == of);
            is_in && !of_kind.is_empty() && kind.is_none_or(|kind| kind == of_kind)
        };
        Ok(self.branch.oldest_of(is_asked))
    }

    /// Wait for the head to be above `after`, or for another seal.
    #[pyo3(signature = (after, timeout_s=None, sealed=None, stop=None, /))]
    fn wait(
        &self,
        py: Python<'_>,
        after: u64,
        timeout_s: Option<f64>,
        sealed: Option<String>,
        stop: Option<Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        let clock = &self.store.env.clock;
        // A time that is too long for the clock is no limit.
        let end = timeout_s.map(|seconds| clock.monotonic_us().saturating_add((seconds.max(0.0) * 1e6) as u64));
        let mut slice = 0;
        loop {
            self.check(py)?;
            let wait = || self.store.wait(&self.branch, after, sealed.as_deref(), slice);
            let head = py.detach(|| guarded(wait)).map_err(|error| self.error(py, error))?;
            py.check_signals()?;
            let left = end.map_or(SLICE_US, |end| end.saturating_sub(clock.monotonic_us()));
            let has_news = head > after || self.branch.is_sealed_otherwise(sealed.as_deref());
            if has_news || left == 0 {
                return Ok(head);
            }
            if let Some(stop) = &stop
                && stop.call0()?.is_truthy()?
            {
                return Ok(head);
            }
            slice = left.min(SLICE_US);
        }
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

    /// What a commit with this idempotency key gave; None when there was none.
    #[pyo3(signature = (idempotency_key, /))]
    fn result_of(&self, py: Python<'_>, idempotency_key: &str) -> PyResult<Option<u64>> {
        self.check(py)?;
        self.store.result_of(&self.branch, idempotency_key).map_err(|error| self.error(py, error))
    }

    #[pyo3(signature = (time, /))]
    fn version_at(&self, py: Python<'_>, time: i64) -> PyResult<u64> {
        self.check(py)?;
        let version = u64::try_from(time).map_or(Ok(0), |time| self.branch.version_at(time));
        version.map_err(|error| self.error(py, error))
    }

    /// The writes of the commits in `(after, upto]`.
    #[pyo3(signature = (after, upto, /))]
    fn writes<'py>(&self, py: Python<'py>, after: u64, upto: u64) -> PyResult<Bound<'py, PyAny>> {
        self.check(py)?;
        let upto = upto.min(self.branch.head());
        let written =
            py.detach(|| guarded(|| self.branch.writes(after, upto, |keyspace| self.store.keyspace_name(keyspace))));
        changes::written(py, &self.store, &written.map_err(|error| self.error(py, error))?)
    }

    /// What the transaction of a commit had read, if that was kept.
    #[pyo3(signature = (version, /))]
    fn reads<'py>(&self, py: Python<'py>, version: u64) -> PyResult<Bound<'py, PyAny>> {
        self.check(py)?;
        let reads = self.branch.reads(version).map_err(|error| self.error(py, error))?;
        changes::reads(py, &self.store, &reads)
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

    #[getter]
    fn name(&self) -> String {
        self.branch.name.read().clone()
    }

    /// The branch and those it was forked off, each by id and with the newest version that shows.
    fn lineage(&self) -> Vec<(u32, u64)> {
        self.branch.lineage(self.at).into_iter().map(|(branch, at)| (branch.id, at.version)).collect()
    }

    /// What differs in `new`.
    #[pyo3(signature = (new, /))]
    fn diff(&self, py: Python<'_>, new: &Bound<'_, PySnapshot>) -> PyResult<PyDiff> {
        let (old, new) = (self.state(), self.with(py, new)?);
        let order = |keyspace| {
            let name = self.store.keyspace_name(keyspace);
            (!name.1.is_empty()).then_some(name)
        };
        let diff = py.detach(|| guarded(|| Diff::new(&old, &new, order)));
        Ok(PyDiff::new(&self.store, diff.map_err(|error| to_python(py, error, None))?))
    }

    /// How a key came to be what it is here, since what this has in common with `other`.
    #[pyo3(signature = (other, space, kind, key, /))]
    fn how<'py>(
        &self,
        py: Python<'py>,
        other: &Bound<'py, PySnapshot>,
        space: &str,
        kind: &str,
        key: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        let other = self.with(py, other)?;
        let keyspace = self.store.keyspace(space, kind);
        let how = self.state().how(&other, keyspace, key).map_err(|error| to_python(py, error, None))?;
        changes::how(py, &how)
    }

    fn spaces(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let checked = self.store.check().and_then(|()| self.store.check_open());
        let spaces = checked.and_then(|()| self.store.spaces(&self.branch, self.at.version));
        spaces.map(all_spaces).map_err(|error| to_python(py, error, None))
    }
}
