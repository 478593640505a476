//! The clock that Python may give.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;
use strata_kernel::env::Clock;

/// A Python function as the kernel's clock. It is asked before each operation, under no lock: a function that was
/// called from inside a commit could wait for a thread that waits for the commit.
pub struct PyClock {
    function: Py<PyAny>,
    wall_us: AtomicU64,
    monotonic: Arc<dyn Clock>,
}

impl PyClock {
    pub fn new(function: Py<PyAny>, monotonic: Arc<dyn Clock>) -> PyClock {
        PyClock { function, wall_us: AtomicU64::new(0), monotonic }
    }

    #[cold]
    pub fn tick(&self, py: Python<'_>) -> PyResult<()> {
        self.wall_us.store(self.function.call0(py)?.extract(py)?, Ordering::Relaxed);
        Ok(())
    }
}

impl Clock for PyClock {
    fn wall_us(&self) -> u64 {
        self.wall_us.load(Ordering::Relaxed)
    }

    fn monotonic_us(&self) -> u64 {
        self.monotonic.monotonic_us()
    }
}
