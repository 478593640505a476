//! What a keyspace's indexes say: rows by value, and by the words in them.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use strata_kernel::Error;
use strata_kernel::branch::{At, Range};
use strata_kernel::index::{Definition, Definitions, Effort, Filter, Form, ValueRange, View, floats, range_of};

use super::{Mode, PyKeyspace};
use crate::convert::encode;
use crate::errors::guarded;
use crate::rows;

/// A bound of a range: leading values, and whether they are in it.
pub type BoundArgument<'py> = Option<(Bound<'py, PyAny>, bool)>;
/// By values of an index, in one of the ranges; what else is asked of rows is in `Passes` of the protocols.
type ValuesArgument<'py> = Vec<(String, Vec<(BoundArgument<'py>, BoundArgument<'py>)>)>;

impl PyKeyspace {
    /// Call `look` with what this sees of the indexes, and the one of that name.
    fn look<R: Send>(
        &self,
        py: Python<'_>,
        index: &str,
        look: impl FnOnce(&View<'_>, &Definition) -> Result<R, Error> + Send,
    ) -> PyResult<R> {
        let (definitions, number) = self.definition(index).map_err(|error| self.error(py, error))?;
        let definition = &definitions[number];
        let (at, pending) = match &self.mode {
            Mode::Inside(shared) => self.inside(py, shared, |transaction| {
                let range = Range::of_prefix(&definition.prefix);
                Ok((transaction.at(), transaction.pending_for(self.number, &range)))
            })?,
            _ => (self.readable(py)?, Vec::new()),
        };
        let run = || self.look_at(&definitions, at, &pending, |view| look(view, definition));
        py.detach(|| guarded(run)).map_err(|error| self.error(py, error))
    }

    fn look_at<R>(
        &self,
        definitions: &Definitions,
        at: At,
        pending: &[(Vec<u8>, Option<Vec<u8>>)],
        look: impl FnOnce(&View<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        self.store.look(&self.branch, self.number, definitions, at, pending, look)?
    }

    /// The indexes of the keyspace, and which of them has that name.
    fn definition(&self, name: &str) -> Result<(Definitions, usize), Error> {
        let definitions = self.store.definitions(&self.space, &self.kind);
        let found = definitions.and_then(|definitions| {
            let number = definitions.iter().position(|definition| definition.name == name)?;
            Some((definitions, number))
        });
        found.ok_or_else(|| Error::NotFound { what: "index", name: name.to_owned(), near: Vec::new() })
    }

    fn value_range(&self, py: Python<'_>, start: BoundArgument<'_>, end: BoundArgument<'_>) -> PyResult<ValueRange> {
        let pack = |bound: BoundArgument<'_>| match bound {
            None => Ok(None),
            Some((values, own)) => {
                let mut bytes = Vec::new();
                encode(&values, false, &mut bytes).map(|()| Some((bytes, own)))
            }
        };
        let (start, end) = (pack(start)?, pack(end)?);
        range_of(
            start.as_ref().map(|(values, own)| (&values[..], *own)),
            end.as_ref().map(|(values, own)| (&values[..], *own)),
        )
        .map_err(|error| self.error(py, error))
    }

    pub(super) fn rows_by_value<'py>(
        &self,
        py: Python<'py>,
        index: &str,
        (start, end): (BoundArgument<'py>, BoundArgument<'py>),
        reverse: bool,
        (skip, limit): (usize, usize),
    ) -> PyResult<Bound<'py, PyAny>> {
        let range = self.value_range(py, start, end)?;
        let most = limit.saturating_add(skip);
        let hits = self.look(py, index, |view, definition| Ok(view.scan(definition.id, &range, reverse, most)))?;
        let hits = &hits[skip.min(hits.len())..];
        rows::versions(py, hits.iter().map(|hit| (&hit.key[..], hit.version)), self.text)
    }

    /// What rows must be to be hits: a dict with `values`, `keys`, `prefix` and `written`, each where it is there.
    fn filter(&self, given: Option<&Bound<'_, PyDict>>) -> PyResult<Filter> {
        let mut filter = Filter::default();
        let Some(given) = given else { return Ok(filter) };
        let py = given.py();
        for (name, value) in given.iter() {
            match name.extract::<&str>()? {
                "values" => {
                    for (index, ranges) in value.extract::<ValuesArgument<'_>>()? {
                        let (definitions, number) = self.definition(&index).map_err(|error| self.error(py, error))?;
                        let ranges = ranges.into_iter().map(|(start, end)| self.value_range(py, start, end));
                        filter.values.push((definitions[number].id, ranges.collect::<PyResult<_>>()?));
                    }
                }
                "keys" => {
                    let keys = value.try_iter()?.map(|key| self.key(&key?).map(<[u8]>::to_vec));
                    filter.keys = Some(keys.collect::<PyResult<_>>()?);
                }
                "prefix" => filter.prefix = self.bound(Some(&value))?.unwrap_or_default(),
                "written" => filter.written = Some(value.extract()?),
                other => {
                    let error = Error::InvalidInput(format!("'{other}' is no filter"));
                    return Err(self.error(py, error));
                }
            }
        }
        Ok(filter)
    }

    pub(super) fn texts<'py>(
        &self,
        py: Python<'py>,
        index: &str,
        query: &str,
        k: usize,
        filter: Option<&Bound<'py, PyDict>>,
        explain: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let filter = self.filter(filter)?;
        let found = self.look(py, index, |view, definition| {
            let Form::Text(form) = &*definition.form else {
                return Err(Error::InvalidInput(format!("'{}' is no index of text", definition.name)));
            };
            let query = form.query(query);
            let clauses: Vec<String> = query.clauses().iter().map(|clause| clause.text.clone()).collect();
            Ok((view.search(definition, &query, &filter, k, explain), clauses))
        })?;
        let (found, clauses) = found;
        let result = PyDict::new(py);
        result.set_item(intern!(py, "hits"), rows::scored(py, &found.hits, self.text)?)?;
        result.set_item(intern!(py, "matched"), found.matched)?;
        result.set_item(intern!(py, "cut"), found.cut)?;
        result.set_item(intern!(py, "documents"), found.stats.documents)?;
        if explain {
            let terms: Vec<Vec<_>> = found
                .hits
                .iter()
                .map(|hit| {
                    hit.terms
                        .iter()
                        .map(|term| (&clauses[term.clause], term.documents, term.idf, term.tf, term.contribution))
                        .collect()
                })
                .collect();
            result.set_item(intern!(py, "terms"), terms)?;
        }
        Ok(result)
    }

    pub(super) fn declare(&self, py: Python<'_>, name: &str, prefix: &[u8], spec: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut bytes = Vec::new();
        encode(spec, true, &mut bytes)?;
        let declare = || {
            self.store.check()?;
            self.store.declare_index(Definition::new(name, (&self.space, &self.kind), prefix, bytes)?)
        };
        py.detach(|| guarded(declare)).map_err(|error| self.error(py, error))
    }

    pub(super) fn nearest<'py>(
        &self,
        py: Python<'py>,
        index: &str,
        query: &[u8],
        k: usize,
        filter: Option<&Bound<'py, PyDict>>,
        recall: f32,
    ) -> PyResult<Bound<'py, PyAny>> {
        let filter = self.filter(filter)?;
        let effort = if recall < 1.0 { Effort::Recall(recall) } else { Effort::Exact };
        let hits = self.look(py, index, |view, definition| {
            let Form::Vector(_, options) = &*definition.form else {
                return Err(Error::InvalidInput(format!("'{}' is no index of vectors", definition.name)));
            };
            let query = floats(query).filter(|query| query.len() == options.dim);
            let query = query.filter(|query| query.iter().all(|number| number.is_finite()));
            let query = query.ok_or_else(|| {
                Error::InvalidInput(format!("the query is no vector of {} finite numbers", options.dim))
            })?;
            Ok(view.nearest(definition.id, &query, &filter, k, effort))
        })?;
        rows::scored(py, &hits, self.text)
    }
}
