//! Index definitions, and how an index reads texts, as Python sees them.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use strata_kernel::index::{Definition, TextForm, text};

use crate::convert::{decode, encode};
use crate::errors::to_python;

/// Name, space, kind, prefix and spec, as `IndexRow` in the protocols has them.
pub type IndexRow<'py> = (String, String, String, Bound<'py, PyBytes>, Bound<'py, PyAny>);

pub fn index_row<'py>(py: Python<'py>, index: &Definition) -> PyResult<IndexRow<'py>> {
    let spec = decode(py, &index.spec)?;
    Ok((index.name.clone(), index.space.clone(), index.kind.clone(), PyBytes::new(py, &index.prefix), spec))
}

/// Reads texts as the index with a spec does.
#[pyclass(frozen, name = "TextReader", module = "strata._kernel")]
pub struct PyTextReader(TextForm);

#[pymethods]
impl PyTextReader {
    #[new]
    #[pyo3(signature = (spec, /))]
    fn new(spec: &Bound<'_, PyAny>) -> PyResult<PyTextReader> {
        let mut bytes = Vec::new();
        encode(spec, true, &mut bytes)?;
        TextForm::read(&bytes).map(PyTextReader).map_err(|error| to_python(spec.py(), error, None))
    }

    /// The terms of a text, and the position of each.
    #[pyo3(signature = (text, /))]
    fn terms(&self, text: &str) -> Vec<(String, u32)> {
        let mut terms = Vec::new();
        self.0.analyzer.terms(text, |term, position, _| terms.push((term.to_owned(), position)));
        terms
    }

    /// Where the words of a query stand in a text: from which character to which.
    #[pyo3(signature = (text, query, /))]
    fn spans(&self, text: &str, query: &str) -> Vec<(usize, usize)> {
        let query = self.0.query(query);
        let bytes = text::spans(text, None, &query, &self.0.analyzer);
        in_characters(text, &bytes)
    }
}

/// Spans of characters for spans of bytes, which ascend.
fn in_characters(text: &str, spans: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let (mut byte, mut character) = (0, 0);
    let mut count_to = |end: usize| {
        character += text[byte..end].chars().count();
        byte = end;
        character
    };
    spans.iter().map(|(start, end)| (count_to(*start), count_to(*end))).collect()
}
