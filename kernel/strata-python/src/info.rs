//! What `Store::info` gives, as nested dicts; `strata.api.info` gives them names and types.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use strata_kernel::store::{Info, LogInfo, MemoryInfo, RunInfo};

type Dict<'py> = PyResult<Bound<'py, PyDict>>;

/// Figures by name.
fn figures<'py>(py: Python<'py>, figures: &[(&str, u64)]) -> Dict<'py> {
    let dict = PyDict::new(py);
    for (name, figure) in figures {
        dict.set_item(name, figure)?;
    }
    Ok(dict)
}

pub fn to_dict<'py>(py: Python<'py>, info: &Info) -> Dict<'py> {
    let dict = figures(
        py,
        &[
            ("format", info.format.into()),
            ("created", info.created),
            ("version", info.version),
            ("durable_version", info.durable_version),
            ("oldest_version", info.oldest_version),
            ("bytes", info.file_bytes),
        ],
    )?;
    dict.set_item("encrypted", info.key.is_some())?;
    dict.set_item("key_id", info.key.map(|key| key.to_string()))?;
    dict.set_item("log", log(py, &info.log)?)?;
    let (version, time) = (info.checkpoint_version, info.checkpoint_time);
    dict.set_item("checkpoint", figures(py, &[("version", version), ("time", time)])?)?;
    let runs = info.runs.iter().map(|found| run(py, found)).collect::<PyResult<Vec<_>>>()?;
    dict.set_item("runs", PyList::new(py, runs)?)?;
    dict.set_item("memory", memory(py, &info.memory)?)?;
    let (written, recovered) = (&info.written, &info.recovered);
    let of = [("payloads", written.payloads), ("log", written.log), ("runs", written.runs)];
    dict.set_item("written", figures(py, &of)?)?;
    let of = [("records", recovered.records), ("cut_bytes", recovered.cut_bytes)];
    dict.set_item("recovery", figures(py, &of)?)?;
    Ok(dict)
}

fn log<'py>(py: Python<'py>, log: &LogInfo) -> Dict<'py> {
    let bytes = log.segments.iter().map(|segment| segment.bytes).sum();
    let of = [
        ("segments", log.segments.len() as u64),
        ("bytes", bytes),
        ("since_checkpoint", log.since_checkpoint),
        ("position", log.position),
        ("durable_position", log.durable_position),
    ];
    figures(py, &of)
}

fn run<'py>(py: Python<'py>, run: &RunInfo) -> Dict<'py> {
    let RunInfo { number, bytes, rows, keys, raw_bytes, spans } = *run;
    let of = [("number", number), ("bytes", bytes), ("rows", rows), ("keys", keys), ("raw_bytes", raw_bytes)];
    let dict = figures(py, &of)?;
    dict.set_item("branches", spans)?;
    Ok(dict)
}

fn memory<'py>(py: Python<'py>, memory: &MemoryInfo) -> Dict<'py> {
    let of = [
        ("budget", memory.budget),
        ("tables", memory.tables),
        ("frozen_layers", memory.frozen_layers),
        ("runs", memory.runs),
        ("indexes", memory.indexes),
        ("cache", memory.cache),
        ("cache_budget", memory.cache_budget),
        ("hits", memory.counts.hits),
        ("misses", memory.counts.misses),
    ];
    figures(py, &of)
}
