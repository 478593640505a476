//! What a transaction read, and whether a commit that came first changed it.
//!
//! Keys, paths inside values, and ranges are kept, also where nothing was found, so that a key that appears in
//! a range that was scanned (a phantom) is seen as well as one that changes.

use std::ops::ControlFlow;

use rustc_hash::FxHashMap;

use crate::branch::{Data, Range, decode_touched};
use crate::error::{Clash, Result};
use crate::payload::Read;
use crate::sabotage;
use crate::table::ChangeKind;
use crate::value::path::{Path, overlaps};

#[derive(Default)]
pub struct Footprint {
    keys: FxHashMap<u32, FxHashMap<Vec<u8>, KeyRead>>,
    ranges: Vec<(u32, Range)>,
}

/// How much of a key's value was relied on.
enum KeyRead {
    Whole,
    Paths(Vec<Path>),
}

impl Footprint {
    /// How many keys were read; `None` where ranges were, too.
    pub fn size(&self) -> Option<usize> {
        self.ranges.is_empty().then(|| self.keys.values().map(FxHashMap::len).sum())
    }

    pub fn key(&mut self, keyspace: u32, key: &[u8]) {
        let keys = self.keys.entry(keyspace).or_default();
        match keys.get_mut(key) {
            Some(read) => *read = KeyRead::Whole,
            None => drop(keys.insert(key.to_vec(), KeyRead::Whole)),
        }
    }

    pub fn path(&mut self, keyspace: u32, key: &[u8], path: &Path) {
        let keys = self.keys.entry(keyspace).or_default();
        match keys.get_mut(key) {
            Some(KeyRead::Whole) => {}
            Some(KeyRead::Paths(paths)) => paths.push(path.clone()),
            None => drop(keys.insert(key.to_vec(), KeyRead::Paths(vec![path.clone()]))),
        }
    }

    pub fn range(&mut self, keyspace: u32, range: Range) {
        self.ranges.push((keyspace, range));
    }

    /// The places where commits after `snapshot` changed what was read.
    pub fn clashes(&self, data: &Data, snapshot: u64) -> Result<Vec<Clash>> {
        let mut clashes = Vec::new();
        if !sabotage::on("T32") {
            for (&keyspace, keys) in &self.keys {
                for (key, read) in keys {
                    match read {
                        KeyRead::Whole => clashes.extend(key_clash(data, keyspace, key, snapshot)?),
                        KeyRead::Paths(paths) => clashes.extend(path_clash(data, keyspace, key, paths, snapshot)?),
                    }
                }
            }
        }
        if !sabotage::on("T33") {
            for &(keyspace, ref range) in &self.ranges {
                if data.range_changed_since(keyspace, range, snapshot)? {
                    clashes.push(Clash::Range { keyspace, start: range.start.clone(), end: range.end.clone() });
                }
            }
        }
        Ok(clashes)
    }

    /// All of it, in a fixed order, for the record.
    pub fn to_reads(&self) -> Vec<Read> {
        let mut reads = Vec::new();
        for (&keyspace, keys) in &self.keys {
            for (key, read) in keys {
                match read {
                    KeyRead::Whole => reads.push(Read::Key { keyspace, key: key.clone() }),
                    KeyRead::Paths(paths) => reads.extend(paths.iter().map(|path| {
                        let mut encoded = Vec::new();
                        path.encode(&mut encoded);
                        Read::Path { keyspace, key: key.clone(), path: encoded }
                    })),
                }
            }
        }
        let range = |(keyspace, range): &(u32, Range)| Read::Range {
            keyspace: *keyspace,
            start: range.start.clone(),
            end: range.end.clone(),
        };
        reads.extend(self.ranges.iter().map(range));
        reads.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
        reads.dedup();
        reads
    }
}

fn sort_key(read: &Read) -> (u32, &[u8], &[u8]) {
    match read {
        Read::Key { keyspace, key } => (*keyspace, key, &[]),
        Read::Path { keyspace, key, path } => (*keyspace, key, path),
        Read::Range { keyspace, start, end } => (*keyspace, start, end.as_deref().unwrap_or_default()),
    }
}

/// Whether a commit after `snapshot` changed the value of `key` at all.
pub fn key_clash(data: &Data, keyspace: u32, key: &[u8], snapshot: u64) -> Result<Option<Clash>> {
    let changed = data.changed_since(keyspace, key, snapshot)?;
    Ok(changed.then(|| Clash::Key { keyspace, key: key.to_vec() }))
}

/// The first change after `snapshot` that overlaps one of `paths` inside the value of `key`.
pub fn path_clash(data: &Data, keyspace: u32, key: &[u8], paths: &[Path], snapshot: u64) -> Result<Option<Clash>> {
    let mut clash = None;
    data.changes_since(keyspace, key, snapshot, |change| {
        // Whatever is not a patch replaced the whole value.
        let theirs = if change.kind == ChangeKind::Patch { decode_touched(change.touched) } else { vec![Path::root()] };
        let both = paths.iter().find_map(|ours| Some((ours, theirs.iter().find(|theirs| overlaps(ours, theirs))?)));
        clash = both.map(|(ours, theirs)| (ours.render(), theirs.render()));
        if clash.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(clash.map(|(ours, theirs)| Clash::Path { keyspace, key: key.to_vec(), ours, theirs }))
}
