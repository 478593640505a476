//! How far a long call has come, told to a function of Python.

use pyo3::prelude::*;
use strata_kernel::Error;

/// It is told again after so many bytes, and at the end: each time takes the GIL.
const STEP_BYTES: u64 = 4 << 20;

pub struct Teller {
    function: Option<Py<PyAny>>,
    /// What was told last.
    told: Option<u64>,
    /// What the function raised: the call then ends with it.
    pub raised: Option<PyErr>,
}

impl Teller {
    pub fn new(function: Option<Py<PyAny>>) -> Teller {
        Teller { function, told: None, raised: None }
    }

    /// So much of all is done. Also notices Ctrl-C, where this is the thread that gets it.
    pub fn tell(&mut self, done: u64, all: u64) -> Result<(), Error> {
        let is_time = self.told.is_none_or(|told| done - told >= STEP_BYTES || (done == all && done > told));
        if !is_time {
            return Ok(());
        }
        self.told = Some(done);
        let told = Python::attach(|py| {
            py.check_signals()?;
            self.function.as_ref().map_or(Ok(()), |function| function.call1(py, (done, all)).map(drop))
        });
        told.map_err(|error| {
            self.raised = Some(error);
            Error::Internal("whoever is told the progress has raised".to_owned())
        })
    }
}
