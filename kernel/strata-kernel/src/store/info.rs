//! Info: what a database is, and what it takes of disk and memory.
//!
//! It reads counters that are kept anyway and the sizes of files, so it may be called as often as one likes. Figures are
//! taken one after the other while others go on writing: they fit together to within what happened meanwhile.

use std::sync::atomic::Ordering;

use super::{Recovered, Store};
use crate::error::Result;
use crate::log::{LogBytes, SegmentInfo};
use crate::run::{self, CacheCounts, Run};
use crate::seal::KeyId;
use crate::{log, manifest};

#[derive(Debug, Clone, Default)]
pub struct Info {
    /// Of the files; 0 without.
    pub format: u32,
    pub created: u64,
    /// What new files are sealed with.
    pub key: Option<KeyId>,
    pub version: u64,
    pub durable_version: u64,
    /// From this on all history is there.
    pub oldest_version: u64,
    /// What all files take, with the space that the log has reserved.
    pub file_bytes: u64,
    pub log: LogInfo,
    pub checkpoint_version: u64,
    pub checkpoint_time: u64,
    /// Oldest first.
    pub runs: Vec<RunInfo>,
    pub memory: MemoryInfo,
    pub written: Written,
    pub recovered: Recovered,
}

#[derive(Debug, Clone, Default)]
pub struct LogInfo {
    pub segments: Vec<SegmentInfo>,
    pub position: u64,
    pub durable_position: u64,
    /// What a recovery would have to read.
    pub since_checkpoint: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunInfo {
    pub number: u64,
    pub bytes: u64,
    pub rows: u64,
    pub keys: u64,
    pub raw_bytes: u64,
    /// How many branches it has rows of.
    pub spans: u64,
}

/// Memory in bytes, and what it is for.
#[derive(Debug, Clone, Default)]
pub struct MemoryInfo {
    pub budget: u64,
    pub tables: u64,
    pub frozen_layers: u64,
    /// What open runs keep beside the cache.
    pub runs: u64,
    /// What indexes hold of the branches where they were asked. Not a part of the budget.
    pub indexes: u64,
    pub cache: u64,
    pub cache_budget: u64,
    pub counts: CacheCounts,
}

/// Bytes since the database was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// What was committed.
    pub payloads: u64,
    /// And what was written for it.
    pub log: u64,
    pub runs: u64,
}

impl Store {
    pub fn info(&self) -> Result<Info> {
        self.check_open()?;
        let mut info = Info {
            version: self.log.last_version(),
            durable_version: self.log.durable_version(),
            oldest_version: self.oldest_version(),
            memory: self.memory_info(),
            recovered: self.recovered.clone(),
            ..Info::default()
        };
        let Some(manifest) = self.manifest() else { return Ok(info) };
        let LogBytes { payloads, log } = self.log.written();
        let position = self.log.position();
        info.format = manifest::FORMAT;
        info.created = manifest.created_us;
        info.key = self.keys().map(|keys| keys.current()).filter(|key| !key.is_none());
        info.file_bytes = self.file_bytes()?;
        info.log = LogInfo {
            segments: self.log.segments(),
            position,
            durable_position: self.log.durable_position(),
            since_checkpoint: position.saturating_sub(manifest.proven),
        };
        (info.checkpoint_version, info.checkpoint_time) = (manifest.checkpoint_version, manifest.checkpoint_time);
        info.runs = self.runs.read().iter().map(|run| run_info(run)).collect();
        info.written = Written { payloads, log, runs: self.run_bytes_written.load(Ordering::Relaxed) };
        Ok(info)
    }

    fn oldest_version(&self) -> u64 {
        let branches = self.registry.read().with_ancestors();
        branches.values().map(|branch| branch.oldest()).max().unwrap_or(0)
    }

    fn memory_info(&self) -> MemoryInfo {
        let branches = self.registry.read().with_ancestors();
        let frozen_layers: usize = branches.values().map(|branch| branch.data.read().frozen.len()).sum();
        let runs: usize = self.runs.read().iter().map(|run| run.memory_bytes()).sum();
        let indexes: usize = branches.values().map(|branch| branch.data.read().index_bytes()).sum();
        MemoryInfo {
            budget: self.options.memory_budget as u64,
            tables: self.shared.memory.bytes() as u64,
            frozen_layers: frozen_layers as u64,
            runs: runs as u64,
            indexes: indexes as u64,
            cache: self.cache.bytes() as u64,
            cache_budget: self.cache.budget() as u64,
            counts: self.cache.counts(),
        }
    }

    fn file_bytes(&self) -> Result<u64> {
        let mut paths = vec![manifest::PATH.to_owned(), manifest::COPY.to_owned()];
        for directory in [log::DIRECTORY, run::DIRECTORY] {
            let names = self.env.disk.list(directory)?.unwrap_or_default();
            paths.extend(names.iter().map(|name| format!("{directory}/{name}")));
        }
        let mut bytes = 0;
        for path in paths {
            // What went meanwhile takes nothing.
            bytes += self.env.disk.open(&path)?.map_or(Ok(0), |file| file.size())?;
        }
        Ok(bytes)
    }
}

fn run_info(run: &Run) -> RunInfo {
    RunInfo {
        number: run.number(),
        bytes: run.file_bytes(),
        rows: run.rows(),
        keys: run.keys(),
        raw_bytes: run.raw_bytes(),
        spans: run.spans().len() as u64,
    }
}
