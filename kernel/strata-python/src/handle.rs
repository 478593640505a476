//! A store as Python holds it: not to be used, and not to be closed, by a forked child.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;
use strata_kernel::Error;
use strata_kernel::log::Durability;
use strata_kernel::store::Store;

use crate::clock::PyClock;

/// Counts the forks between this process and the one that imported us.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Called in the child right after `fork()`: every handle made before it belongs to the parent.
#[pyfunction]
pub fn after_fork_in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// From here on work leaves the GIL to others: about ten microseconds of it.
pub const MANY: usize = 64;

/// The space that every branch has from the start.
pub const DEFAULT_SPACE: &str = "default";

/// Names of spaces, sorted, each once, and the one that is always there.
pub fn all_spaces(mut written: Vec<String>) -> Vec<String> {
    written.push(DEFAULT_SPACE.to_owned());
    written.sort();
    written.dedup();
    written
}

/// A shared store that remembers which process opened it.
#[derive(Clone)]
pub struct Handle {
    /// `None` only while it is being dropped.
    store: Option<Arc<Store>>,
    clock: Option<Arc<PyClock>>,
    generation: u64,
}

const FORKED: &str = "database of the parent process";

impl Handle {
    pub fn new(store: Arc<Store>, clock: Option<Arc<PyClock>>) -> Handle {
        Handle { store: Some(store), clock, generation: GENERATION.load(Ordering::Relaxed) }
    }

    /// Ask the clock that Python gave, if it gave one.
    #[inline]
    pub fn tick(&self, py: Python<'_>) -> PyResult<()> {
        match &self.clock {
            None => Ok(()),
            Some(clock) => clock.tick(py),
        }
    }

    /// Whether a commit of so many rows should leave the GIL to others: it is long, or may wait for the disk.
    pub fn must_wait(&self, count: usize) -> bool {
        count >= MANY
            || match self.durability {
                Durability::Memory => false,
                Durability::Buffered => self.log.would_wait(),
                Durability::Strict => true,
            }
    }

    /// Locks may be held by threads that a forked child does not have, so nothing is touched before this was asked.
    #[inline]
    pub fn check(&self) -> Result<(), Error> {
        if self.generation == GENERATION.load(Ordering::Relaxed) { Ok(()) } else { Err(Error::Closed(FORKED)) }
    }
}

impl Deref for Handle {
    type Target = Store;

    #[inline]
    fn deref(&self) -> &Store {
        self.store.as_ref().expect("held until dropped")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A child must neither join the parent's threads nor write to its files: it leaks what it inherited.
        if self.check().is_err() {
            std::mem::forget(self.store.take());
        }
    }
}
