//! The store as Python holds it.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use strata_kernel::Error;
use strata_kernel::env::{Clock, Env, real};
use strata_kernel::index::Definition;
use strata_kernel::log::Durability;
use strata_kernel::manifest::Manifest;
use strata_kernel::payload::Seal;
use strata_kernel::retention::{Keep, Policy};
use strata_kernel::store::{Compacted, Erasure, Options, Store, check_keys as check_keys_of};

use crate::branch::{PyBranch, PySnapshot};
use crate::clock::PyClock;
use crate::convert::encode;
use crate::errors::{guarded, to_python};
use crate::handle::Handle;
use crate::keys::{key_of, keys_of};
use crate::portable::{backup_dict, bundle_dict, outside};
use crate::progress::Teller;
use crate::sim::PySimDisk;
use crate::text::{IndexRow, index_row};

#[pyclass(frozen, weakref, name = "Store", module = "strata._kernel")]
pub struct PyStore {
    store: Handle,
    path: Option<String>,
}

fn durability_of(text: &str) -> Result<Durability, Error> {
    match text {
        "memory" => Ok(Durability::Memory),
        "buffered" => Ok(Durability::Buffered),
        "strict" => Ok(Durability::Strict),
        other => Err(Error::InvalidInput(format!("durability is 'memory', 'buffered' or 'strict', not '{other}'"))),
    }
}

fn options_of(durability: Durability, create: bool, read_only: bool, given: &Bound<'_, PyDict>) -> PyResult<Options> {
    let mut options = Options { durability, create, read_only, ..Options::default() };
    for (name, value) in given.iter() {
        match name.extract::<&str>()? {
            "flush_interval_us" => options.flush_interval_us = value.extract()?,
            "shared_at" => options.shared_at = Some(value.extract()?),
            "segment_bytes" => options.segment_bytes = value.extract()?,
            "compress_above" => options.compress_above = value.extract()?,
            "memory_budget" => options.memory_budget = value.extract()?,
            "checkpoint_bytes" => options.checkpoint_bytes = value.extract()?,
            "keys" => options.keys = keys_of(Some(&value))?,
            other => {
                let error = Error::InvalidInput(format!("'{other}' is no option of the kernel"));
                return Err(to_python(given.py(), error, None));
            }
        }
    }
    Ok(options)
}

/// What the database in `path` or on `disk` is sealed with: the id of its key, "" when it is not, `None` without one.
#[pyfunction]
#[pyo3(signature = (path, disk=None, /))]
pub fn sealed_with(py: Python<'_>, path: &str, disk: Option<&Bound<'_, PySimDisk>>) -> PyResult<Option<String>> {
    let disk = disk.map_or_else(|| real::env(path), |disk| disk.get().env()).disk;
    let found = guarded(|| Manifest::key(&*disk)).map_err(|error| to_python(py, error, None))?;
    Ok(found.map(|key| if key.is_none() { String::new() } else { key.to_string() }))
}

/// Raise unless `keys` open the database in `path`, also while it is open elsewhere.
#[pyfunction]
#[pyo3(signature = (path, keys=None, /))]
pub fn check_keys(py: Python<'_>, path: &str, keys: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let options = Options { keys: keys_of(keys)?, ..Options::default() };
    guarded(|| check_keys_of(&real::env(path), &options)).map_err(|error| to_python(py, error, None))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a compaction did.
fn figures_of(py: Python<'_>, done: Compacted) -> PyResult<Bound<'_, PyDict>> {
    let found = PyDict::new(py);
    found.set_item("reclaimed_bytes", done.reclaimed_bytes)?;
    found.set_item("log_segments_removed", done.segments_removed)?;
    found.set_item("versions_removed", done.versions_removed)?;
    found.set_item("runs_merged", done.runs_merged)?;
    Ok(found)
}

impl PyStore {
    fn run<T: Send>(&self, py: Python<'_>, call: impl FnOnce(&Store) -> Result<T, Error> + Send) -> PyResult<T> {
        self.store.tick(py)?;
        let result = py.detach(|| guarded(|| self.store.check().and_then(|()| call(&self.store))));
        result.map_err(|error| to_python(py, error, None))
    }
}

#[pymethods]
impl PyStore {
    #[staticmethod]
    #[pyo3(signature = (path, durability, create, read_only, options, disk=None, clock=None))]
    #[expect(clippy::too_many_arguments, reason = "the one door; `strata.open` gives them names")]
    fn open(
        py: Python<'_>,
        path: Option<String>,
        durability: &str,
        create: bool,
        read_only: bool,
        options: &Bound<'_, PyDict>,
        disk: Option<&Bound<'_, PySimDisk>>,
        clock: Option<Py<PyAny>>,
    ) -> PyResult<PyStore> {
        let durability = durability_of(durability).map_err(|error| to_python(py, error, None))?;
        let options = options_of(durability, create, read_only, options)?;
        let mut env: Env = match (disk, &path) {
            (Some(disk), _) => disk.get().env(),
            (None, path) => real::env(path.clone().unwrap_or_default()),
        };
        let clock = clock.map(|function| {
            let monotonic = Arc::clone(&env.clock);
            Arc::new(PyClock::new(function, monotonic))
        });
        if let Some(clock) = &clock {
            clock.tick(py)?;
            env.clock = Arc::clone(clock) as Arc<dyn Clock>;
        }
        let has_files = path.is_some() || disk.is_some();
        let open = || guarded(|| if has_files { Store::open(env, &options) } else { Ok(Store::memory(env)) });
        let store = py.detach(open).map_err(|error| to_python(py, error, None))?;
        Ok(PyStore { store: Handle::new(store, clock), path })
    }

    #[pyo3(signature = (name, /))]
    fn branch(&self, py: Python<'_>, name: &str) -> PyResult<PyBranch> {
        let branch = self.run(py, |store| store.branch(name))?;
        Ok(PyBranch::new(&self.store, branch))
    }

    /// A branch, deleted ones too that others were forked off, as it was at a version.
    #[pyo3(signature = (branch, version, /))]
    fn snapshot(&self, py: Python<'_>, branch: u32, version: u64) -> PyResult<PySnapshot> {
        self.run(py, |store| PySnapshot::new(&self.store, store.known_branch(branch, version)?, version))
    }

    fn branches<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let class = py.import("strata.core.protocols")?.getattr("BranchInfo")?;
        let list = PyList::empty(py);
        for info in self.run(py, Store::branches)? {
            let (fork, head) = (info.fork_version, info.head);
            let is_protected = info.seal.as_ref().is_some_and(|seal| seal.is_protected);
            let sealed = info.seal.map(|seal| seal.reason);
            let state_hash = info.state_hash.map(|hash| hex(&hash.0));
            let told = (info.id, info.name, info.parent, fork, head, info.created, sealed, is_protected, state_hash);
            list.append(class.call1(told)?)?;
        }
        Ok(list)
    }

    #[pyo3(signature = (name, /))]
    fn create(&self, py: Python<'_>, name: &str) -> PyResult<u64> {
        self.run(py, |store| store.create(name))
    }

    #[pyo3(signature = (source, name, at=None, /))]
    fn fork(&self, py: Python<'_>, source: &str, name: &str, at: Option<u64>) -> PyResult<u64> {
        self.run(py, |store| store.fork(source, name, at))
    }

    #[pyo3(signature = (old, new, /))]
    fn rename(&self, py: Python<'_>, old: &str, new: &str) -> PyResult<u64> {
        self.run(py, |store| store.rename(old, new))
    }

    #[pyo3(signature = (name, /))]
    fn delete(&self, py: Python<'_>, name: &str) -> PyResult<u64> {
        self.run(py, |store| store.delete_branch(name))
    }

    #[pyo3(signature = (name, reason, protected=false, /))]
    fn seal(&self, py: Python<'_>, name: &str, reason: Option<String>, protected: bool) -> PyResult<u64> {
        let seal = reason.map(|reason| Seal { reason, is_protected: protected });
        self.run(py, |store| store.seal(name, seal))
    }

    #[pyo3(signature = (name, branch, version=None, note=None, /))]
    fn tag(
        &self,
        py: Python<'_>,
        name: &str,
        branch: &str,
        version: Option<u64>,
        note: Option<String>,
    ) -> PyResult<u64> {
        self.run(py, |store| store.tag(name, branch, version, note))
    }

    #[pyo3(signature = (name, /))]
    fn untag(&self, py: Python<'_>, name: &str) -> PyResult<u64> {
        self.run(py, |store| store.untag(name))
    }

    fn tags<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let class = py.import("strata.core.protocols")?.getattr("Tag")?;
        let list = PyList::empty(py);
        for (tag, branch) in self.run(py, Store::tags)? {
            list.append(class.call1((tag.name, branch, tag.version, tag.created, tag.note))?)?;
        }
        Ok(list)
    }

    fn flush(&self, py: Python<'_>) -> PyResult<u64> {
        self.run(py, Store::flush)
    }

    #[pyo3(signature = (transaction, /))]
    fn outcome(&self, py: Python<'_>, transaction: &str) -> PyResult<&'static str> {
        let is_there = self.run(py, |store| store.outcome(transaction))?;
        Ok(if is_there { "committed" } else { "lost" })
    }

    fn checkpoint<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let made = self.run(py, Store::checkpoint)?;
        let found = PyDict::new(py);
        let run = made.run.unwrap_or(0);
        let figures = [made.version, made.time, run, made.rows, made.bytes];
        for (name, figure) in ["version", "time", "run", "rows", "bytes"].into_iter().zip(figures) {
            found.set_item(name, figure)?;
        }
        Ok(found)
    }

    /// `progress` is told of rows done and in all; what it raises ends the compaction, and nothing is changed.
    #[pyo3(signature = (progress=None, /))]
    fn compact<'py>(&self, py: Python<'py>, progress: Option<Py<PyAny>>) -> PyResult<Bound<'py, PyDict>> {
        let mut teller = Teller::new(progress);
        let outcome = self.run(py, |store| store.compact(&mut |done, all| teller.tell(done, all)));
        figures_of(py, teller.raised.map_or(outcome, Err)?)
    }

    /// Seal everything with `key`, or nothing; `progress` is told of rows done and in all.
    #[pyo3(signature = (key, progress=None, /))]
    fn rotate_key<'py>(
        &self,
        py: Python<'py>,
        key: Option<&Bound<'py, PyBytes>>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let key = key.map(key_of).transpose()?;
        let mut teller = Teller::new(progress);
        let outcome = self.run(py, |store| store.rotate_key(key, &mut |done, all| teller.tell(done, all)));
        figures_of(py, teller.raised.map_or(outcome, Err)?)
    }

    #[expect(clippy::type_complexity, reason = "the row of a protocol, which has names in Python")]
    fn policies(
        &self,
        py: Python<'_>,
    ) -> PyResult<Vec<(Option<String>, Option<String>, Option<String>, Option<u64>, Option<u64>, bool)>> {
        let policies = self.run(py, Store::policies)?;
        let branches = self.run(py, Store::branches)?;
        let name = |id: u32| branches.iter().find(|info| info.id == id).map(|info| info.name.clone());
        // The policy of a branch that is gone covers nothing.
        let policies = policies.into_iter().filter(|policy| policy.branch.is_none_or(|id| name(id).is_some()));
        let row = |policy: Policy| {
            let Policy { branch, space, kind, keep: Keep { last, for_us, needs_both } } = policy;
            (branch.and_then(name), space, kind, last, for_us, needs_both)
        };
        Ok(policies.map(row).collect())
    }

    #[pyo3(signature = (branch, space, kind, last, for_us, needs_both, /))]
    #[expect(clippy::too_many_arguments, reason = "the row of a protocol, which has names in Python")]
    fn set_policy(
        &self,
        py: Python<'_>,
        branch: Option<String>,
        space: Option<String>,
        kind: Option<String>,
        last: Option<u64>,
        for_us: Option<u64>,
        needs_both: bool,
    ) -> PyResult<()> {
        self.run(py, |store| {
            let branch = branch.map(|name| store.branch(&name)).transpose()?.map(|branch| branch.id);
            store.set_policy(Policy { branch, space, kind, keep: Keep { last, for_us, needs_both } })
        })
    }

    fn indexes<'py>(&self, py: Python<'py>) -> PyResult<Vec<IndexRow<'py>>> {
        self.run(py, Store::indexes)?.iter().map(|index| index_row(py, index)).collect()
    }

    #[pyo3(signature = (name, space, kind, prefix, spec, /))]
    fn create_index(
        &self,
        py: Python<'_>,
        name: &str,
        space: &str,
        kind: &str,
        prefix: &[u8],
        spec: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let mut bytes = Vec::new();
        encode(spec, true, &mut bytes)?;
        self.run(py, |store| store.create_index(Definition::new(name, (space, kind), prefix, bytes)?))
    }

    #[pyo3(signature = (progress=None, /))]
    fn rebuild_indexes(&self, py: Python<'_>, progress: Option<Py<PyAny>>) -> PyResult<()> {
        let mut teller = Teller::new(progress);
        let outcome = self.run(py, |store| store.rebuild_indexes(&mut |done, all| teller.tell(done, all)));
        teller.raised.map_or(outcome, Err)
    }

    #[pyo3(signature = (name, /))]
    fn drop_index(&self, py: Python<'_>, name: &str) -> PyResult<bool> {
        self.run(py, |store| store.drop_index(name))
    }

    #[pyo3(signature = (branch, space, kind, /))]
    fn clear_policy(
        &self,
        py: Python<'_>,
        branch: Option<String>,
        space: Option<String>,
        kind: Option<String>,
    ) -> PyResult<bool> {
        self.run(py, |store| {
            let branch = branch.map(|name| store.branch(&name)).transpose()?.map(|branch| branch.id);
            store.clear_policy(&Policy { branch, space, kind, keep: Keep::default() })
        })
    }

    #[pyo3(signature = (rows, /))]
    fn forget<'py>(
        &self,
        py: Python<'py>,
        rows: Vec<(Option<String>, String, Vec<u8>, bool)>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let erasure = |(space, kind, key, is_prefix)| Erasure { space, kind, key, is_prefix, ..Erasure::default() };
        let erasures = rows.into_iter().map(erasure).collect();
        figures_of(py, self.run(py, |store| store.forget(erasures))?)
    }

    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let found = crate::info::to_dict(py, &self.run(py, Store::info)?)?;
        found.set_item("id", hex(&self.store.database_id()))?;
        found.set_item("durability", self.durability())?;
        Ok(found)
    }

    #[pyo3(signature = (progress=None, /))]
    fn verify<'py>(&self, py: Python<'py>, progress: Option<Py<PyAny>>) -> PyResult<Bound<'py, PyDict>> {
        let mut teller = Teller::new(progress);
        let outcome = self.run(py, |store| store.verify(&mut |read, all| teller.tell(read, all)));
        let verified = teller.raised.map_or(outcome, Err)?;
        let found = PyDict::new(py);
        found.set_item("records", verified.records)?;
        found.set_item("segments", verified.segments)?;
        found.set_item("runs", verified.runs)?;
        found.set_item("rows", verified.rows)?;
        found.set_item("version", verified.version)?;
        let problems = verified.problems.into_iter().map(|problem| (problem.file, problem.offset, problem.reason));
        found.set_item("problems", PyList::new(py, problems.collect::<Vec<_>>())?)?;
        Ok(found)
    }

    #[pyo3(signature = (to, progress=None, /))]
    fn backup<'py>(&self, py: Python<'py>, to: &str, progress: Option<Py<PyAny>>) -> PyResult<Bound<'py, PyDict>> {
        let mut teller = Teller::new(progress);
        let outcome = self.run(py, |store| store.backup(&real::env(to), &mut |done, all| teller.tell(done, all)));
        backup_dict(py, &teller.raised.map_or(outcome, Err)?)
    }

    #[pyo3(signature = (path, branch=None, history=false, keys=None, /))]
    fn export<'py>(
        &self,
        py: Python<'py>,
        path: &str,
        branch: Option<&str>,
        history: bool,
        keys: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let keys = keys_of(keys)?;
        let made = self.run(py, |store| {
            let (env, name) = outside(path)?;
            store.export(&env, &name, branch, history, keys.as_ref())
        })?;
        bundle_dict(py, &made)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        // A forked child has nothing to close: the files and the lock are its parent's.
        if self.store.check().is_err() {
            return Ok(());
        }
        self.run(py, Store::close)
    }

    #[getter]
    fn closed(&self) -> bool {
        self.store.check().is_err() || self.store.is_closed()
    }

    #[getter]
    fn durable_version(&self, py: Python<'_>) -> PyResult<u64> {
        let checked = self.store.check().and_then(|()| self.store.check_open());
        checked.map(|()| self.store.log.durable_version()).map_err(|error| to_python(py, error, None))
    }

    #[getter]
    fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    #[getter]
    fn database_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.store.database_id())
    }

    #[getter]
    fn durability(&self) -> &'static str {
        match self.store.durability {
            Durability::Memory => "memory",
            Durability::Buffered => "buffered",
            Durability::Strict => "strict",
        }
    }

    #[getter]
    fn poisoned(&self) -> Option<String> {
        self.store.log.poisoned().map(|error| error.to_string())
    }

    #[getter]
    fn recovery<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let found = PyDict::new(py);
        found.set_item("records", self.store.recovered.records)?;
        found.set_item("cut_bytes", self.store.recovered.cut_bytes)?;
        Ok(found)
    }
}
