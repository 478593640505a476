//! Runs against a sorted map, against damage, and against power cuts.

mod cache;
mod damage;
mod faults;
mod model;
mod sealed;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::branch::Range;
use crate::env::sim::SimDisk;

pub const DATABASE: [u8; 16] = *b"0123456789abcdef";

/// A row's branch, keyspace, key and version, in the order of the file.
pub type Position = (u32, u32, Vec<u8>, Reverse<u64>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub kind: ChangeKind,
    pub value: Option<Vec<u8>>,
    pub touched: Vec<u8>,
    pub expires: u64,
}

pub type Model = BTreeMap<Position, Content>;
pub type Owned = (Position, Content);

pub fn owned(row: &Row<'_>) -> Owned {
    let Version { version, kind, value, touched, expires } = row.version;
    let content = Content { kind, value: value.map(<[u8]>::to_vec), touched: touched.to_vec(), expires };
    ((row.branch, row.keyspace, row.key.to_vec(), Reverse(version)), content)
}

pub fn version_of((position, content): (&Position, &Content)) -> Owned {
    (position.clone(), content.clone())
}

/// Small blocks, so that a few rows make many.
pub fn options() -> RunOptions {
    RunOptions { block_bytes: 128, index_bytes: 160, large_value_bytes: 40, ..RunOptions::new(DATABASE) }
}

pub fn write(disk: &SimDisk, number: u64, options: &RunOptions, model: &Model) -> Result<u64> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut writer = RunWriter::create(&disk, number, options)?;
    for ((branch, keyspace, key, Reverse(version)), content) in model {
        let Content { kind, value, touched, expires } = content;
        let version = Version { version: *version, kind: *kind, value: value.as_deref(), touched, expires: *expires };
        writer.add(*branch, *keyspace, key, &version)?;
    }
    writer.finish()
}

pub fn open(disk: &SimDisk, number: u64, options: &RunOptions) -> Result<Arc<Run>> {
    Run::open(disk, number, &BlockCache::new(1 << 20), options)
}

pub fn get(run: &Run, branch: u32, keyspace: u32, key: &[u8], at: u64) -> Result<Option<Owned>> {
    let hash = RowHash::of(branch, keyspace, key);
    run.get(branch, keyspace, key, hash, at, |version| owned(&Row { branch, keyspace, key, version }))
}

pub fn range(run: &Arc<Run>, branch: u32, keyspace: u32, range: &Range, reverse: bool, at: u64) -> Result<Vec<Owned>> {
    let mut cursor = run.range(branch, keyspace, range, reverse, at)?;
    let mut rows = Vec::new();
    while let Some(row) = cursor.row()? {
        let info = cursor.info().expect("there is a row");
        assert_eq!((info.key, info.version, info.kind), (row.key, row.version.version, row.version.kind));
        assert_eq!(info.value_bytes, row.version.value.map_or(0, <[u8]>::len));
        rows.push(owned(&row));
        cursor.advance()?;
    }
    Ok(rows)
}

pub fn versions(run: &Arc<Run>, branch: u32, keyspace: u32, key: &[u8], at: u64) -> Result<Vec<Owned>> {
    let mut cursor = run.versions(branch, keyspace, key, at)?;
    let mut rows = Vec::new();
    while let Some(row) = cursor.row()? {
        rows.push(owned(&row));
        cursor.advance()?;
    }
    Ok(rows)
}

pub fn all(run: &Arc<Run>, start: Option<(u32, u32, &[u8])>) -> Result<Vec<Owned>> {
    let mut cursor = run.all(start)?;
    let mut rows = Vec::new();
    while let Some(row) = cursor.row()? {
        rows.push(owned(&row));
        cursor.advance()?;
    }
    Ok(rows)
}

/// A value, as verification asks for.
pub fn a_value(bytes: &[u8]) -> Vec<u8> {
    let mut value = Vec::new();
    crate::value::write::bytes(&mut value, bytes);
    value
}

// --- what to write -------------------------------------------------------------------------------

/// Keys that share long prefixes, are prefixes of each other, or are far apart.
pub fn a_key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(0_u8..3, 0..4),
        (0_u8..40).prop_map(|last| [b"a/rather/long/prefix/of/many/keys/", &[last][..]].concat()),
        prop::collection::vec(any::<u8>(), 0..12),
        (0_u8..3, 100_usize..200).prop_map(|(byte, length)| vec![byte; length]),
    ]
}

pub fn a_content() -> impl Strategy<Value = Content> {
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..10),
        prop::collection::vec(any::<u8>(), 60..100),
        (0_u8..3, 30_usize..300).prop_map(|(byte, length)| vec![byte; length]),
    ];
    let touched = prop::collection::vec(any::<u8>(), 0..60);
    let expires = prop_oneof![3 => Just(0), 1 => 1_700_000_000_000_000..1_700_000_001_000_000_u64, 1 => any::<u64>()];
    (1_u8..=5, value, touched, expires).prop_map(|(kind, value, touched, expires)| {
        let kind = ChangeKind::from_u8(kind).expect("1 to 5 are kinds");
        let value = (kind != ChangeKind::Delete).then(|| a_value(&value));
        let touched = if kind == ChangeKind::Patch { touched } else { Vec::new() };
        Content { kind, value, touched, expires }
    })
}

pub fn a_position() -> impl Strategy<Value = Position> {
    let branch = prop_oneof![4 => 0_u32..3, 1 => Just(u32::MAX)];
    let keyspace = prop_oneof![4 => 0_u32..2, 1 => Just(u32::MAX)];
    let version = prop_oneof![4 => 0_u64..30, 1 => any::<u64>()];
    (branch, keyspace, a_key(), version.prop_map(Reverse))
}

/// Some rows, and a key or two with so many versions that they fill blocks.
pub fn a_model() -> impl Strategy<Value = Model> {
    let rows = prop::collection::btree_map(a_position(), a_content(), 0..150);
    let many = prop::collection::vec((a_position(), 1_u64..300, a_content()), 0..3);
    (rows, many).prop_map(|(mut model, many)| {
        for ((branch, keyspace, key, _), count, content) in many {
            let rows = (0..count).map(|number| ((branch, keyspace, key.clone(), Reverse(2 * number)), content.clone()));
            model.extend(rows);
        }
        model
    })
}
