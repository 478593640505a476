//! One keyspace as one transaction sees it: the `Txn` protocol, in its three modes.

mod arguments;
mod indexes;
mod reading;

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use strata_kernel::Error;
use strata_kernel::branch::{At, Branch, Most, Pin};
use strata_kernel::change::{Expiry, What, Write};
use strata_kernel::commit::Committed;
use strata_kernel::table::Version;
use strata_kernel::transaction::{Entry, Expected, Isolation, PendingAppend, Transaction};
use strata_kernel::value::path::find;

use self::arguments::{Given, expiry_of, instant_of, number_of, path_of, put_of, short};
use self::indexes::BoundArgument;
use crate::convert::{decode, encode};
use crate::errors::{guarded, to_python};
use crate::handle::{DEFAULT_SPACE, Handle, MANY};
use crate::rows;
use crate::text::{IndexRow, index_row};
use crate::transaction::{PyTransaction, Shared};

/// So many reads of a batch wait for memory together: as many as a core keeps under way, with room to spare.
const TOGETHER: usize = 32;

#[pyclass(frozen, name = "Keyspace", module = "strata._kernel")]
pub struct PyKeyspace {
    store: Handle,
    branch: Arc<Branch>,
    mode: Mode,
    number: u32,
    text: bool,
    finite: bool,
    space: Arc<str>,
    kind: Arc<str>,
}

pub enum Mode {
    Automatic,
    Inside(Arc<Shared>),
    /// And what it holds on to.
    View(At, Arc<Pin>),
}

/// Value, version, time and expiry, as `Entry` in the protocols has them.
type EntryTuple<'py> = (Bound<'py, PyAny>, u64, u64, Option<u64>);
type KeptTuple<'py> = (Bound<'py, PyAny>, u64, Option<u64>);

/// Sequence, time, hash and version, as `Appended` in the protocols has them.
type AppendedTuple<'py> = (u64, Option<u64>, Option<Bound<'py, PyBytes>>, Option<u64>);

/// What a primitive's `Layout` says.
struct Layout {
    kind: String,
    text: bool,
    finite: bool,
}

fn layout_of(layout: &Bound<'_, PyAny>) -> PyResult<Layout> {
    let py = layout.py();
    Ok(Layout {
        kind: layout.getattr(intern!(py, "kind"))?.extract()?,
        text: layout.getattr(intern!(py, "text_keys"))?.extract()?,
        finite: layout.getattr(intern!(py, "finite"))?.extract()?,
    })
}

impl PyKeyspace {
    fn found(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<Entry>> {
        let key = self.key(key)?;
        match &self.mode {
            Mode::Inside(shared) => self.inside(py, shared, |txn| txn.entry(self.number, key)),
            _ => {
                let copy = |found: Version<'_>| {
                    let (version, expires) = (found.version, found.expires);
                    found.value.map(|value| Entry { value: value.to_vec(), version, expires })
                };
                self.read(py, key, |found| found.and_then(copy))
            }
        }
    }

    pub fn new(
        store: &Handle,
        branch: &Arc<Branch>,
        mode: Mode,
        space: &str,
        layout: &Bound<'_, PyAny>,
    ) -> PyResult<PyKeyspace> {
        let Layout { kind, text, finite } = layout_of(layout)?;
        let number = store.keyspace(space, &kind);
        let (store, branch) = (store.clone(), Arc::clone(branch));
        Ok(PyKeyspace { store, branch, mode, number, text, finite, space: space.into(), kind: kind.into() })
    }

    fn with_mode(&self, mode: Mode) -> PyKeyspace {
        PyKeyspace {
            store: self.store.clone(),
            branch: Arc::clone(&self.branch),
            mode,
            number: self.number,
            text: self.text,
            finite: self.finite,
            space: Arc::clone(&self.space),
            kind: Arc::clone(&self.kind),
        }
    }

    #[cold]
    fn error(&self, py: Python<'_>, error: Error) -> PyErr {
        let name = self.branch.name.read().clone();
        to_python(py, error, Some((&self.store, &name)))
    }

    /// What plain reads see. Refuses a closed database and a deleted branch.
    #[inline]
    fn readable(&self, py: Python<'_>) -> PyResult<At> {
        let check = || {
            self.store.check()?;
            match self.mode {
                Mode::View(at, _) => self.store.check_open().map(|()| at),
                _ => self.store.check_readable(&self.branch).map(|()| At::head(self.branch.head())),
            }
        };
        // What has expired is for the clock to say.
        self.store.tick(py)?;
        check().map_err(|error| self.error(py, error))
    }

    /// What `read` makes of the newest version of `key` that plain reads see.
    #[inline]
    fn read<R>(&self, py: Python<'_>, key: &[u8], read: impl FnOnce(Option<Version<'_>>) -> R) -> PyResult<R> {
        let at = self.readable(py)?;
        self.branch.read(self.number, key, at, read).map_err(|error| self.error(py, error))
    }

    fn inside<R>(
        &self,
        py: Python<'_>,
        shared: &Shared,
        run: impl FnOnce(&mut Transaction) -> Result<R, Error>,
    ) -> PyResult<R> {
        let run = || {
            self.store.check()?;
            self.store.check_open()?;
            let mut transaction = shared.transaction.lock();
            transaction.check_open()?;
            run(&mut transaction)
        };
        guarded(run).map_err(|error| self.error(py, error))
    }

    /// Commit writes of automatic mode. The GIL is kept for a single small commit, which takes a microsecond, and
    /// given up where the disk may be waited for.
    fn commit(&self, py: Python<'_>, writes: &[Write<'_>]) -> PyResult<Committed> {
        let commit = || guarded(|| self.store.check().and_then(|()| self.store.write(&self.branch, writes)));
        self.store.tick(py)?;
        let result = if self.must_wait(writes.len()) { py.detach(commit) } else { commit() };
        result.map_err(|error| self.error(py, error))
    }

    fn must_wait(&self, count: usize) -> bool {
        self.store.must_wait(count)
    }

    fn write(&self, py: Python<'_>, write: Write<'_>) -> PyResult<u64> {
        self.commit(py, &[write]).map(|committed| committed.version)
    }

    #[cold]
    fn read_only(&self, py: Python<'_>) -> PyErr {
        self.error(py, Error::ReadOnly("a view shows the past, which cannot be written to".into()))
    }
}

#[pymethods]
impl PyKeyspace {
    #[getter]
    fn mode(&self) -> &'static str {
        match self.mode {
            Mode::Automatic => "automatic",
            Mode::Inside(_) => "inside",
            Mode::View(..) => "view",
        }
    }

    #[getter]
    fn version(&self, py: Python<'_>) -> PyResult<u64> {
        match &self.mode {
            Mode::Inside(shared) => Ok(shared.snapshot),
            _ => self.readable(py).map(|at| at.version),
        }
    }

    #[getter]
    fn now(&self, py: Python<'_>) -> PyResult<u64> {
        self.store.tick(py)?;
        Ok(self.store.env.clock.wall_us())
    }

    #[getter]
    fn exists(&self, py: Python<'_>) -> PyResult<bool> {
        if *self.space == *DEFAULT_SPACE {
            return Ok(true);
        }
        if let Mode::Inside(shared) = &self.mode {
            let is_here = |number| self.store.keyspace_name(number).0 == *self.space;
            if self.inside(py, shared, |txn| Ok(txn.writes_to(is_here)))? {
                return Ok(true);
            }
        }
        let at = self.version(py)?;
        self.store.space_exists(&self.branch, &self.space, at).map_err(|error| self.error(py, error))
    }

    #[getter]
    fn names(&self) -> (String, &str, &str) {
        (self.branch.name.read().clone(), &self.space, &self.kind)
    }

    #[pyo3(signature = (key, default=None, /))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let key = self.key(key)?;
        Self::decode_found(py, default, |take| match &self.mode {
            Mode::Inside(shared) => {
                self.inside(py, shared, |txn| txn.get(self.number, key, |found| take(found.map(|(value, _)| value))))
            }
            _ => self.read(py, key, |found| take(found.and_then(|version| version.value))),
        })
    }

    #[pyo3(signature = (key, path, default=None, /))]
    fn get_path<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        path: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (key, path) = (self.key(key)?, path_of(path)?);
        Self::decode_found(py, default, |take| match &self.mode {
            Mode::Inside(shared) => self.inside(py, shared, |txn| txn.get_path(self.number, key, &path, take)),
            _ => self.read(py, key, |found| {
                let value = found.and_then(|version| version.value);
                take(value.and_then(|value| find(value, &path).map(|place| &value[place])))
            }),
        })
    }

    #[pyo3(signature = (keys, default=None, /))]
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        let mut keys = self.each(keys, "keys")?.peekable();
        while keys.peek().is_some() {
            let some = keys.by_ref().take(TOGETHER).collect::<PyResult<Vec<_>>>()?;
            let bytes = some.iter().map(|key| self.key(key)).collect::<PyResult<Vec<_>>>()?;
            self.branch.touch(self.number, bytes.into_iter());
            for key in &some {
                list.append(self.get(py, key, default.clone())?)?;
            }
        }
        Ok(list)
    }

    #[pyo3(signature = (key, /))]
    fn entry<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Option<EntryTuple<'py>>> {
        let Some(Entry { value, version, expires }) = self.found(py, key)? else { return Ok(None) };
        let time = self.branch.time_of(version).map_err(|error| self.error(py, error))?;
        Ok(Some((decode(py, &value)?, version, time, instant_of(expires))))
    }

    /// An entry without its time, which is looked up among the commits.
    #[pyo3(signature = (key, /))]
    fn kept<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Option<KeptTuple<'py>>> {
        let Some(Entry { value, version, expires }) = self.found(py, key)? else { return Ok(None) };
        Ok(Some((decode(py, &value)?, version, instant_of(expires))))
    }

    #[pyo3(signature = (key, /))]
    fn contains(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let key = self.key(key)?;
        match &self.mode {
            Mode::Inside(shared) => self.inside(py, shared, |txn| txn.get(self.number, key, |found| found.is_some())),
            _ => self.read(py, key, |found| found.is_some()),
        }
    }

    #[pyo3(signature = (prefix, start, end, reverse, limit, /))]
    fn scan<'py>(
        &self,
        py: Python<'py>,
        prefix: Option<&Bound<'py, PyAny>>,
        start: Option<&Bound<'py, PyAny>>,
        end: Option<&Bound<'py, PyAny>>,
        reverse: bool,
        limit: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let range = self.range(prefix, start, end)?;
        let found = self.rows(py, &range, reverse, limit.unwrap_or(usize::MAX))?;
        rows::pairs(py, &found, self.text)
    }

    /// And whether it stopped at a limit.
    #[pyo3(signature = (prefix, start, end, reverse, limit, size_bytes, /))]
    #[expect(clippy::too_many_arguments, reason = "those of the protocol")]
    fn scan_page<'py>(
        &self,
        py: Python<'py>,
        prefix: Option<&Bound<'py, PyAny>>,
        start: Option<&Bound<'py, PyAny>>,
        end: Option<&Bound<'py, PyAny>>,
        reverse: bool,
        limit: usize,
        size_bytes: usize,
    ) -> PyResult<(Bound<'py, PyAny>, bool)> {
        let range = self.range(prefix, start, end)?;
        let most = Most { rows: limit, bytes: size_bytes };
        let found = self.rows(py, &range, reverse, most)?;
        Ok((rows::pairs(py, &found, self.text)?, most.is_reached(&found)))
    }

    #[pyo3(signature = (prefix, start, end, reverse, limit, /))]
    fn scan_keys<'py>(
        &self,
        py: Python<'py>,
        prefix: Option<&Bound<'py, PyAny>>,
        start: Option<&Bound<'py, PyAny>>,
        end: Option<&Bound<'py, PyAny>>,
        reverse: bool,
        limit: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let range = self.range(prefix, start, end)?;
        let found = self.rows(py, &range, reverse, limit.unwrap_or(usize::MAX))?;
        rows::keys(py, &found, self.text)
    }

    #[pyo3(signature = (index, start, end, reverse, limit, skip=0, /))]
    #[expect(clippy::too_many_arguments, reason = "those of the protocol")]
    fn by_value<'py>(
        &self,
        py: Python<'py>,
        index: &str,
        start: BoundArgument<'py>,
        end: BoundArgument<'py>,
        reverse: bool,
        limit: Option<usize>,
        skip: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let limit = limit.unwrap_or(usize::MAX);
        self.rows_by_value(py, index, (start, end), reverse, (skip, limit))
    }

    #[pyo3(signature = (index, query, k, passes=None, explain=false, /))]
    fn by_text<'py>(
        &self,
        py: Python<'py>,
        index: &str,
        query: &str,
        k: usize,
        passes: Option<&Bound<'py, PyDict>>,
        explain: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.texts(py, index, query, k, passes, explain)
    }

    #[pyo3(signature = (index, query, k, passes=None, recall=0.99, /))]
    fn by_vector<'py>(
        &self,
        py: Python<'py>,
        index: &str,
        query: &[u8],
        k: usize,
        passes: Option<&Bound<'py, PyDict>>,
        recall: f32,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.nearest(py, index, query, k, passes, recall)
    }

    #[pyo3(signature = (name, prefix, spec, /))]
    fn declare_index(&self, py: Python<'_>, name: &str, prefix: &[u8], spec: &Bound<'_, PyAny>) -> PyResult<()> {
        self.declare(py, name, prefix, spec)
    }

    /// The indexes of this keyspace.
    fn indexes<'py>(&self, py: Python<'py>) -> PyResult<Vec<IndexRow<'py>>> {
        self.store.check().map_err(|error| self.error(py, error))?;
        let definitions = self.store.definitions(&self.space, &self.kind);
        let rows = definitions.iter().flat_map(|definitions| definitions.iter());
        rows.map(|index| index_row(py, index)).collect()
    }

    #[pyo3(signature = (prefix, start, end, /))]
    fn count(
        &self,
        py: Python<'_>,
        prefix: Option<&Bound<'_, PyAny>>,
        start: Option<&Bound<'_, PyAny>>,
        end: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        let range = self.range(prefix, start, end)?;
        self.count_of(py, &range)
    }

    #[pyo3(signature = (key, before, limit, /))]
    fn history<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        before: Option<u64>,
        limit: Option<usize>,
    ) -> PyResult<Bound<'py, PyList>> {
        let key = self.key(key)?;
        let at = self.version(py)?;
        let (before, limit) = (before.unwrap_or(u64::MAX), limit.unwrap_or(usize::MAX));
        let list = PyList::empty(py);
        let rows = self.branch.history(self.number, key, at, before, limit).map_err(|error| self.error(py, error))?;
        for row in rows {
            let value = row.value.as_deref().map(|value| decode(py, value)).transpose()?;
            let is_deleted = value.is_none();
            list.append((value, row.version, row.time, is_deleted, instant_of(row.expires)))?;
        }
        Ok(list)
    }

    #[pyo3(signature = (key, value, ttl_us=None, /))]
    fn put(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        ttl_us: Option<u64>,
    ) -> PyResult<Option<u64>> {
        let (key, value) = (self.key(key)?, self.encoded(value)?);
        match &self.mode {
            Mode::Automatic => {
                self.write(py, Write { keyspace: self.number, key, what: put_of(&value, ttl_us) }).map(Some)
            }
            Mode::Inside(shared) => {
                self.inside(py, shared, |txn| txn.put(self.number, key, &value, expiry_of(ttl_us))).map(|()| None)
            }
            Mode::View(..) => Err(self.read_only(py)),
        }
    }

    /// Put what expires at an instant (None: never).
    #[pyo3(signature = (key, value, expires, /))]
    fn put_until(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        expires: Option<u64>,
    ) -> PyResult<Option<u64>> {
        let (key, value) = (self.key(key)?, self.encoded(value)?);
        let expiry = expires.map(Expiry::At);
        match &self.mode {
            Mode::Automatic => {
                let what = expiry.map_or(What::Put(&value), |expiry| What::PutFor(&value, expiry));
                self.write(py, Write { keyspace: self.number, key, what }).map(Some)
            }
            Mode::Inside(shared) => {
                self.inside(py, shared, |txn| txn.put(self.number, key, &value, expiry)).map(|()| None)
            }
            Mode::View(..) => Err(self.read_only(py)),
        }
    }

    #[pyo3(signature = (rows, ttl_us=None, /))]
    fn put_many(&self, py: Python<'_>, rows: &Bound<'_, PyAny>, ttl_us: Option<u64>) -> PyResult<Option<u64>> {
        let mut buffer = Vec::new();
        let mut places = Vec::new();
        for row in self.each(rows, "rows")? {
            let row = row?;
            let Ok((key, value)) = row.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>() else {
                let text = format!("rows are (key, value) pairs, not {}", short(&row));
                return Err(self.error(py, Error::InvalidInput(text)));
            };
            let start = buffer.len();
            buffer.extend_from_slice(self.key(&key)?);
            let middle = buffer.len();
            encode(&value, self.finite, &mut buffer)?;
            places.push((start, middle, buffer.len()));
        }
        let rows = places.iter().map(|&(start, middle, end)| (&buffer[start..middle], &buffer[middle..end]));
        match &self.mode {
            Mode::Automatic if places.is_empty() => self.version(py).map(Some),
            Mode::Automatic => {
                let write = |(key, value)| Write { keyspace: self.number, key, what: put_of(value, ttl_us) };
                let writes: Vec<Write<'_>> = rows.map(write).collect();
                self.commit(py, &writes).map(|committed| Some(committed.version))
            }
            Mode::Inside(shared) => self.inside(py, shared, |txn| {
                for (key, value) in rows {
                    txn.put(self.number, key, value, expiry_of(ttl_us))?;
                }
                Ok(None)
            }),
            Mode::View(..) => Err(self.read_only(py)),
        }
    }

    #[pyo3(signature = (key, /))]
    fn delete(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<bool>> {
        let keys = [self.key(key)?.to_vec()];
        self.delete_all(py, &keys).map(|existed| existed.map(|count| count > 0))
    }

    #[pyo3(signature = (keys, /))]
    fn delete_many(&self, py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
        let mut all = Vec::new();
        for key in self.each(keys, "keys")? {
            all.push(self.key(&key?)?.to_vec());
        }
        self.delete_all(py, &all)
    }

    #[pyo3(signature = (key, ops, /))]
    fn patch(&self, py: Python<'_>, key: &Bound<'_, PyAny>, ops: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
        let (key, ops) = (self.key(key)?, self.ops(ops)?);
        match &self.mode {
            Mode::Automatic if ops.is_empty() => self.version(py).map(Some),
            Mode::Inside(_) if ops.is_empty() => Ok(None),
            Mode::Automatic => {
                self.write(py, Write { keyspace: self.number, key, what: What::Patch(&ops, None) }).map(Some)
            }
            Mode::Inside(shared) => self.inside(py, shared, |txn| txn.patch(self.number, key, ops)).map(|()| None),
            Mode::View(..) => Err(self.read_only(py)),
        }
    }

    #[pyo3(signature = (stream, kind, value, origin=None, /))]
    fn append<'py>(
        &self,
        py: Python<'py>,
        stream: &[u8],
        kind: &str,
        value: &Bound<'py, PyAny>,
        origin: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<AppendedTuple<'py>> {
        let value = self.encoded(value)?;
        let origin = origin.filter(|origin| !origin.is_none()).map(|origin| self.encoded(origin)).transpose()?;
        match &self.mode {
            Mode::Automatic => {
                let what = What::Append { kind, value: &value, origin: origin.as_deref() };
                let committed = self.commit(py, &[Write { keyspace: self.number, key: stream, what }])?;
                let appended = committed.appended[0];
                let hash = PyBytes::new(py, &appended.hash);
                Ok((appended.sequence, Some(appended.time), Some(hash), Some(committed.version)))
            }
            Mode::Inside(shared) => {
                let (stream, kind) = (stream.to_vec(), kind.to_owned());
                let append = PendingAppend { keyspace: self.number, stream, kind, value, origin };
                let sequence = self.inside(py, shared, |txn| txn.append(append))?;
                Ok((sequence, None, None, None))
            }
            Mode::View(..) => Err(self.read_only(py)),
        }
    }

    #[pyo3(signature = (key, delta, /))]
    fn add(&self, py: Python<'_>, key: &Bound<'_, PyAny>, delta: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
        let (key, encoded) = (self.key(key)?, self.encoded(delta)?);
        let number = number_of(delta, &encoded)?;
        match &self.mode {
            Mode::Automatic => self.write(py, Write { keyspace: self.number, key, what: What::Add(number) }).map(Some),
            Mode::Inside(shared) => self.inside(py, shared, |txn| txn.add(self.number, key, number)).map(|()| None),
            Mode::View(..) => Err(self.read_only(py)),
        }
    }

    #[pyo3(signature = (key, *, version=None, value=Given::Nothing, absent=false))]
    fn expect(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        version: Option<u64>,
        value: Given<'_>,
        absent: bool,
    ) -> PyResult<()> {
        let key = self.key(key)?;
        let value = match value {
            Given::Nothing => None,
            Given::Value(value) => Some(self.encoded(&value)?),
        };
        let expected = Expected { absent, version, value };
        match &self.mode {
            Mode::Inside(shared) => self.inside(py, shared, |txn| txn.expect(self.number, key, expected)),
            Mode::View(..) => Err(self.read_only(py)),
            Mode::Automatic => {
                Err(self.error(py, Error::InvalidInput("only a transaction can expect something".into())))
            }
        }
    }

    fn begin(&self, py: Python<'_>) -> PyResult<(PyTransaction, PyKeyspace)> {
        self.readable(py)?;
        match self.mode {
            Mode::Automatic => {}
            Mode::View(..) => return Err(self.read_only(py)),
            Mode::Inside(_) => {
                return Err(self.error(py, Error::InvalidInput("a transaction cannot begin inside another".into())));
            }
        }
        let transaction = Transaction::new(Arc::clone(&self.branch), Isolation::Serializable, false, None);
        let shared = Shared::new(transaction);
        let inside = self.with_mode(Mode::Inside(Arc::clone(&shared)));
        Ok((PyTransaction::new(&self.store, shared), inside))
    }

    fn pinned(&self, py: Python<'_>) -> PyResult<PyKeyspace> {
        Ok(match &self.mode {
            Mode::Automatic => {
                let at = as_of_now(&self.branch, self.readable(py)?);
                self.with_mode(Mode::View(at, Arc::new(self.branch.pin(at.version))))
            }
            Mode::Inside(shared) => self.with_mode(Mode::Inside(Arc::clone(shared))),
            Mode::View(at, pin) => self.with_mode(Mode::View(*at, Arc::clone(pin))),
        })
    }
}

/// What a view made now sees: the clock goes on, and it does not.
pub fn as_of_now(branch: &Branch, at: At) -> At {
    At::past(at.version, branch.time(at))
}

impl PyKeyspace {
    /// How many of `keys` existed; inside a transaction nobody knows before the commit.
    fn delete_all(&self, py: Python<'_>, keys: &[Vec<u8>]) -> PyResult<Option<usize>> {
        match &self.mode {
            Mode::Automatic => {
                self.store.tick(py)?;
                let delete =
                    || guarded(|| self.store.check().and_then(|()| self.store.delete(&self.branch, self.number, keys)));
                let count = if self.must_wait(keys.len()) { py.detach(delete) } else { delete() };
                count.map(Some).map_err(|error| self.error(py, error))
            }
            Mode::Inside(shared) => self
                .inside(py, shared, |txn| keys.iter().try_for_each(|key| txn.delete(self.number, key)).map(|()| None)),
            Mode::View(..) => Err(self.read_only(py)),
        }
    }
}
