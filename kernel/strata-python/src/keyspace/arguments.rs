//! What Python gives to a keyspace, as the kernel takes it: keys, bounds, values, paths and patches.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyIterator, PyString, PyTuple};
use strata_kernel::Error;
use strata_kernel::branch::Range;
use strata_kernel::change::{Expiry, What};
use strata_kernel::payload::Number;
use strata_kernel::value::patch::Op;
use strata_kernel::value::path::{Path, Step};

use super::PyKeyspace;
use crate::convert::encode;
use crate::errors::to_python;

const TEXT_KEY_BYTES_MAX: usize = 1024;
/// A text key, a separator and a sequence, with room to spare.
const KEY_BYTES_MAX: usize = 2048;

impl PyKeyspace {
    #[inline]
    pub(super) fn key<'k>(&self, key: &'k Bound<'_, PyAny>) -> PyResult<&'k [u8]> {
        if self.text
            && let Ok(text) = key.cast_exact::<PyString>()
            && let Ok(text) = text.to_str()
            && (1..=TEXT_KEY_BYTES_MAX).contains(&text.len())
            && !text.as_bytes().contains(&0)
        {
            return Ok(text.as_bytes());
        }
        self.other_key(key)
    }

    /// Keys that are bytes, and the words for those that are wrong.
    fn other_key<'k>(&self, key: &'k Bound<'_, PyAny>) -> PyResult<&'k [u8]> {
        if !self.text
            && let Ok(bytes) = key.cast_exact::<PyBytes>()
            && (1..=KEY_BYTES_MAX).contains(&bytes.as_bytes().len())
        {
            return Ok(bytes.as_bytes());
        }
        let py = key.py();
        if self.text {
            // `strata.core.keys` has the rule and its words. It also takes subclasses of str.
            py.import("strata.core.keys")?.call_method1("check_key", (key,))?;
            if let Ok(text) = key.cast::<PyString>() {
                return Ok(text.to_str()?.as_bytes());
            }
        }
        Err(self.error(py, Error::InvalidInput(format!("a key of {} is not {}", self.kind, short(key)))))
    }

    /// A bound of a scan: of the type of a key, but of any length and content.
    pub(super) fn bound(&self, key: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Vec<u8>>> {
        let Some(key) = key else { return Ok(None) };
        let bytes = match self.text {
            true => key.cast_exact::<PyString>().ok().and_then(|text| text.to_str().ok()).map(str::as_bytes),
            false => key.cast_exact::<PyBytes>().ok().map(|bytes| bytes.as_bytes()),
        };
        bytes.map(|bytes| Some(bytes.to_vec())).ok_or_else(|| {
            let kind = if self.text { "text in Unicode" } else { "bytes" };
            self.error(key.py(), Error::InvalidInput(format!("a bound of a scan is {kind}, not {}", short(key))))
        })
    }

    pub(super) fn range(
        &self,
        prefix: Option<&Bound<'_, PyAny>>,
        start: Option<&Bound<'_, PyAny>>,
        end: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Range> {
        let range = Range { start: self.bound(start)?.unwrap_or_default(), end: self.bound(end)? };
        Ok(match self.bound(prefix)? {
            Some(prefix) => range.intersect(Range::of_prefix(&prefix)),
            None => range,
        })
    }

    pub(super) fn each<'py>(&self, items: &Bound<'py, PyAny>, what: &str) -> PyResult<Bound<'py, PyIterator>> {
        items.try_iter().map_err(|_| {
            let text = format!("{what} are given as an iterable, not as {}", short(items));
            self.error(items.py(), Error::InvalidInput(text))
        })
    }

    pub(super) fn encoded(&self, value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
        let mut out = Vec::with_capacity(128);
        encode(value, self.finite, &mut out)?;
        Ok(out)
    }

    /// The operations of a patch, as `PatchOp` has them.
    pub(super) fn ops(&self, ops: &Bound<'_, PyAny>) -> PyResult<Vec<Op>> {
        let mut out = Vec::new();
        for op in self.each(ops, "operations")? {
            let op = op?;
            let op = op.cast::<PyTuple>()?;
            let (name, path) = (op.get_item(0)?, path_of(&op.get_item(1)?)?);
            let value = || self.encoded(&op.get_item(2)?);
            out.push(match name.cast::<PyString>()?.to_str()? {
                "set" => Op::Set { path, value: value()? },
                "insert" => Op::Insert { path, value: value()? },
                "merge" => Op::Merge { path, patch: value()? },
                "delete" => Op::Delete { path },
                other => {
                    return Err(self.error(op.py(), Error::InvalidInput(format!("'{other}' is no patch operation"))));
                }
            });
        }
        Ok(out)
    }
}

/// As Python has it: None is never.
pub(super) fn instant_of(expires: u64) -> Option<u64> {
    (expires != 0).then_some(expires)
}

/// What `ttl_us` means in the protocols, where 0 keeps the expiry there is.
pub(super) fn expiry_of(ttl_us: Option<u64>) -> Option<Expiry> {
    ttl_us.map(|us| if us == 0 { Expiry::Kept } else { Expiry::After(us) })
}

pub(super) fn put_of(value: &[u8], ttl_us: Option<u64>) -> What<'_> {
    expiry_of(ttl_us).map_or(What::Put(value), |expiry| What::PutFor(value, expiry))
}

/// A value in a message: its beginning will do.
pub(super) fn short(value: &Bound<'_, PyAny>) -> String {
    let text = value.repr().map_or_else(|_| value.get_type().to_string(), |repr| repr.to_string_lossy().into_owned());
    text.chars().take(60).collect()
}

/// An argument that may be left out, where None is a value like any other.
pub(super) enum Given<'py> {
    Nothing,
    Value(Bound<'py, PyAny>),
}

impl<'py> FromPyObject<'_, 'py> for Given<'py> {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Given<'py>> {
        let is_nothing = object.is(object.py().Ellipsis());
        Ok(if is_nothing { Given::Nothing } else { Given::Value(object.to_owned()) })
    }
}

pub(super) fn path_of(path: &Bound<'_, PyAny>) -> PyResult<Path> {
    let steps = path.cast::<PyTuple>()?;
    let step = |step: Bound<'_, PyAny>| -> PyResult<Step> {
        if step.is_none() {
            return Ok(Step::End);
        }
        match step.cast::<PyString>() {
            Ok(key) => Ok(Step::Key(key.to_str()?.to_owned())),
            Err(_) => Ok(Step::Index(step.extract()?)),
        }
    };
    Ok(Path(steps.iter().map(step).collect::<PyResult<_>>()?))
}

pub(super) fn number_of(value: &Bound<'_, PyAny>, encoded: &[u8]) -> PyResult<Number> {
    Number::decode(encoded).ok_or_else(|| {
        let text = format!("a delta is an int or a float, not {}", value.get_type());
        to_python(value.py(), Error::InvalidInput(text), None)
    })
}
