//! The simulated disk, for tests of ours and of users.

use pyo3::prelude::*;
use strata_kernel::env::Env;
use strata_kernel::env::sim::{Sim, SimDisk};

/// A disk in memory that loses, tears and reorders what was not synced, with a clock that is moved by hand.
#[pyclass(frozen, name = "SimDisk", module = "strata._kernel")]
pub struct PySimDisk {
    sim: Sim,
}

impl PySimDisk {
    pub fn env(&self) -> Env {
        self.sim.env()
    }

    /// The world after a crash: another process, the same time.
    fn after(&self, disk: SimDisk, seed: u64) -> PySimDisk {
        PySimDisk { sim: Sim { clock: self.sim.clock.clone(), ..Sim::over(disk, seed) } }
    }
}

#[pymethods]
impl PySimDisk {
    #[new]
    #[pyo3(signature = (seed, /))]
    fn new(seed: u64) -> PySimDisk {
        PySimDisk { sim: Sim::new(seed) }
    }

    /// The disk as a power cut now could leave it.
    #[pyo3(signature = (seed, /))]
    fn crash(&self, seed: u64) -> PySimDisk {
        self.after(self.sim.disk.crash(seed), seed)
    }

    /// The disk as a killed process leaves it: all that was written is there.
    fn killed(&self) -> PySimDisk {
        self.after(self.sim.disk.killed(), 0)
    }

    /// Let simulated time pass, and what is due in it happen.
    #[pyo3(signature = (us, /))]
    fn advance(&self, us: u64) {
        self.sim.pass(us);
    }
}
