//! The whole map from the kernel's errors to Python's, and from panics to `InternalError`.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use strata_kernel::store::Store;
use strata_kernel::{Clash, Error};

/// Run a kernel call. A panic is our bug, and says so, rather than an exception that `except Exception` misses.
pub fn guarded<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(Error::Internal(panic_text(&*panic))))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("this is a bug in Strata, please report it: {}", text.unwrap_or("the kernel panicked"))
}

/// The Python exception for `error`. `place` names the branch, for conflicts.
pub fn to_python(py: Python<'_>, error: Error, store: Option<(&Store, &str)>) -> PyErr {
    build(py, error, store).unwrap_or_else(|failure| failure)
}

fn build(py: Python<'_>, error: Error, store: Option<(&Store, &str)>) -> PyResult<PyErr> {
    let fields = PyDict::new(py);
    let mut message = error.to_string();
    let class = match error {
        Error::InvalidInput(_) => "InvalidInput",
        Error::NotFound { what, name, .. } => {
            set_name(&fields, what, &name)?;
            if what == "database" {
                fields.set_item("hint", "pass create=True to make it")?;
            }
            "NotFound"
        }
        Error::AlreadyExists { what, name } => {
            set_name(&fields, what, &name)?;
            "AlreadyExists"
        }
        Error::Conflict(clashes) => {
            // The product has its own words, with the places in them.
            message = String::new();
            describe_clashes(py, &fields, &clashes, store)?;
            "Conflict"
        }
        Error::HistoryTrimmed { requested, oldest } => {
            set_numbers(&fields, [("requested", requested), ("oldest", oldest)])?;
            "HistoryTrimmed"
        }
        Error::LimitExceeded { what, limit, actual } => {
            fields.set_item("what", what)?;
            set_numbers(&fields, [("limit", limit), ("actual", actual)])?;
            "LimitExceeded"
        }
        Error::Closed(_) => "Closed",
        Error::ReadOnly(_) => "ReadOnly",
        Error::Protected { branch, reason } => {
            set_texts(&fields, [("branch", &branch), ("reason", &reason)])?;
            "Protected"
        }
        Error::TooNew { .. } => {
            fields.set_item("hint", "open it with a newer release of Strata")?;
            "ReadOnly"
        }
        Error::Locked { path, owner } => {
            set_texts(&fields, [("path", &path), ("owner", &owner)])?;
            "Locked"
        }
        Error::Storage { operation, path, errno, .. } => {
            set_texts(&fields, [("operation", operation), ("path", &path)])?;
            fields.set_item("errno", errno)?;
            "StorageError"
        }
        Error::Corrupt { file, offset, .. } => {
            fields.set_item("file", file)?;
            fields.set_item("offset", offset)?;
            "Corrupt"
        }
        Error::NeedsKey { needed, given } => {
            fields.set_item("needed", needed.to_string())?;
            fields.set_item("given", given.iter().map(ToString::to_string).collect::<Vec<_>>())?;
            "NeedsKey"
        }
        Error::OutcomeUnknown { transaction, .. } => {
            fields.set_item("transaction", transaction)?;
            "OutcomeUnknown"
        }
        Error::Internal(_) => "InternalError",
    };
    let module = py.import("strata.core.errors")?;
    let exception = module.call_method1("from_kernel", (class, message, fields))?;
    Ok(PyErr::from_value(exception))
}

fn set_name(fields: &Bound<'_, PyDict>, what: &str, name: &str) -> PyResult<()> {
    set_texts(fields, [("what", what), ("name", name)])
}

fn set_texts<const N: usize>(fields: &Bound<'_, PyDict>, texts: [(&str, &str); N]) -> PyResult<()> {
    texts.into_iter().try_for_each(|(name, text)| fields.set_item(name, text))
}

fn set_numbers<const N: usize>(fields: &Bound<'_, PyDict>, numbers: [(&str, u64); N]) -> PyResult<()> {
    numbers.into_iter().try_for_each(|(name, number)| fields.set_item(name, number))
}

/// Fill in `keys`, `paths` and `ranges`.
fn describe_clashes(
    py: Python<'_>,
    fields: &Bound<'_, PyDict>,
    clashes: &[Clash],
    store: Option<(&Store, &str)>,
) -> PyResult<()> {
    let (keys, paths, ranges) = (PyList::empty(py), PyList::empty(py), PyList::empty(py));
    let branch = store.map_or("", |(_, branch)| branch);
    for clash in clashes {
        let (Clash::Key { keyspace, .. } | Clash::Path { keyspace, .. } | Clash::Range { keyspace, .. }) = clash;
        let (space, kind) = store.map(|(store, _)| store.keyspace_name(*keyspace)).unwrap_or_default();
        match clash {
            Clash::Key { key, .. } => keys.append((branch, space, kind, key_object(py, key)))?,
            Clash::Path { key, ours, theirs, .. } => {
                paths.append((branch, space, kind, key_object(py, key), ours, theirs))?;
            }
            Clash::Range { start, end, .. } => {
                // Both bounds are of the type that the keys are of.
                let is_text = is_text(start) && end.as_ref().is_none_or(|end| is_text(end));
                let object =
                    |bound: &Vec<u8>| if is_text { key_object(py, bound) } else { PyBytes::new(py, bound).into_any() };
                ranges.append((branch, space, kind, object(start), end.as_ref().map(object)))?;
            }
        }
    }
    fields.set_item("keys", keys)?;
    fields.set_item("paths", paths)?;
    fields.set_item("ranges", ranges)
}

/// Whether a key can be one of text keys, which hold no NUL.
fn is_text(key: &[u8]) -> bool {
    !key.contains(&0) && std::str::from_utf8(key).is_ok()
}

/// A key as Python names it.
fn key_object<'py>(py: Python<'py>, key: &[u8]) -> Bound<'py, PyAny> {
    match std::str::from_utf8(key) {
        Ok(text) if is_text(key) => PyString::new(py, text).into_any(),
        _ => PyBytes::new(py, key).into_any(),
    }
}
