//! Transactions as Python holds them.

use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::prelude::*;
use strata_kernel::transaction::Transaction;

use crate::errors::{guarded, to_python};
use crate::handle::{Handle, MANY, all_spaces};
use crate::keyspace::{Mode, PyKeyspace};

/// A transaction and what can be said of it without taking its lock.
pub struct Shared {
    pub transaction: Mutex<Transaction>,
    pub snapshot: u64,
}

impl Shared {
    pub fn new(transaction: Transaction) -> Arc<Shared> {
        let snapshot = transaction.snapshot;
        Arc::new(Shared { transaction: Mutex::new(transaction), snapshot })
    }
}

#[pyclass(frozen, name = "Transaction", module = "strata._kernel")]
pub struct PyTransaction {
    store: Handle,
    shared: Arc<Shared>,
}

impl PyTransaction {
    pub fn new(store: &Handle, shared: Arc<Shared>) -> PyTransaction {
        PyTransaction { store: store.clone(), shared }
    }

    fn error(&self, py: Python<'_>, error: strata_kernel::Error) -> PyErr {
        let name = self.shared.transaction.lock().branch.name.read().clone();
        to_python(py, error, Some((&self.store, &name)))
    }
}

#[pymethods]
impl PyTransaction {
    #[getter]
    fn snapshot(&self) -> u64 {
        self.shared.snapshot
    }

    #[pyo3(signature = (space, layout, /))]
    fn keyspace(&self, space: &str, layout: &Bound<'_, PyAny>) -> PyResult<PyKeyspace> {
        let branch = Arc::clone(&self.shared.transaction.lock().branch);
        PyKeyspace::new(&self.store, &branch, Mode::Inside(Arc::clone(&self.shared)), space, layout)
    }

    /// Spaces as of the snapshot, and those that this transaction begins.
    fn spaces(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let transaction = self.shared.transaction.lock();
        let spaces = self.store.spaces(&transaction.branch, transaction.snapshot);
        let mut spaces = spaces.map_err(|error| to_python(py, error, None))?;
        let own = transaction.writes.iter().filter(|(_, writes)| !writes.is_empty());
        spaces.extend(own.map(|(&number, _)| self.store.keyspace_name(number).0));
        Ok(all_spaces(spaces))
    }

    /// `once` is its idempotency key, unless it has one or has written nothing.
    #[pyo3(signature = (message=None, actor=None, cause=None, once=None, /))]
    fn commit(
        &self,
        py: Python<'_>,
        message: Option<String>,
        actor: Option<String>,
        cause: Option<String>,
        once: Option<String>,
    ) -> PyResult<u64> {
        self.store.tick(py)?;
        let commit = || {
            guarded(|| {
                self.store.check()?;
                let mut transaction = self.shared.transaction.lock();
                (transaction.meta.message, transaction.meta.actor, transaction.meta.cause) = (message, actor, cause);
                if transaction.meta.idempotency_key.is_none() && !transaction.is_read_only() {
                    transaction.meta.idempotency_key = once;
                }
                self.store.commit(&mut transaction)
            })
        };
        // While another thread is at it nothing is known of its size.
        let size = self.shared.transaction.try_lock().and_then(|transaction| transaction.size());
        let result = if self.store.must_wait(size.unwrap_or(MANY)) { py.detach(commit) } else { commit() };
        result.map_err(|error| self.error(py, error))
    }

    fn rollback(&self) {
        if self.store.check().is_ok() {
            self.shared.transaction.lock().roll_back();
        }
    }
}
