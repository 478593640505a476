//! `inspect` of the kernel, its lines as dicts handed to a function of Python.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use strata_kernel::Error;
use strata_kernel::env::real;
use strata_kernel::inspect::{Field, Line, inspect as inspect_file};

use crate::errors::{guarded, to_python};
use crate::keys::keys_of;

/// Say what stands in the file `name` of `directory`: calls `take` with one dict for each line.
#[pyfunction]
#[pyo3(signature = (directory, name, rows, take, keys=None, /))]
pub fn inspect(
    py: Python<'_>,
    directory: &str,
    name: &str,
    rows: u64,
    take: &Bound<'_, PyAny>,
    keys: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let disk = real::env(directory).disk;
    let keys = keys_of(keys)?;
    let mut raised = None;
    let mut sink = |line: Line| {
        let handed = to_dict(py, &line).and_then(|line| take.call1((line,)));
        handed.map(drop).map_err(|error| {
            raised = Some(error);
            Error::Internal("whoever takes the lines has raised".to_owned())
        })
    };
    let outcome = guarded(|| inspect_file(&*disk, name, rows, keys.as_ref(), &mut sink));
    match raised {
        Some(error) => Err(error),
        None => outcome.map_err(|error| to_python(py, error, None)),
    }
}

fn to_dict<'py>(py: Python<'py>, line: &Line) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("at", line.at)?;
    dict.set_item("kind", line.kind)?;
    for (name, field) in &line.fields {
        match field {
            Field::Number(number) => dict.set_item(name, number)?,
            Field::Text(text) => dict.set_item(name, text)?,
        }
    }
    Ok(dict)
}
