//! A table against the obvious one: a sorted map from keys to lists of versions.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Model = BTreeMap<Vec<u8>, Vec<(u64, Option<Vec<u8>>)>>;

fn model_at(model: &Model, at: u64) -> Vec<(Vec<u8>, u64, Option<Vec<u8>>)> {
    let visible = |versions: &Vec<(u64, Option<Vec<u8>>)>| versions.iter().rev().find(|(v, _)| *v <= at).cloned();
    model.iter().filter_map(|(key, versions)| visible(versions).map(|(v, value)| (key.clone(), v, value))).collect()
}

fn rows(
    table: &Table,
    start: &[u8],
    end: Option<&[u8]>,
    reverse: bool,
    at: u64,
) -> Vec<(Vec<u8>, u64, Option<Vec<u8>>)> {
    table
        .range(start, end, reverse, at)
        .map(|(key, version)| (key.to_vec(), version.version, version.value.map(<[u8]>::to_vec)))
        .collect()
}

proptest! {
    #[test]
    fn agrees_with_a_sorted_map(
        writes in prop::collection::vec((prop::collection::vec(0u8..4, 1..4), prop::option::of(prop::collection::vec(any::<u8>(), 0..40))), 0..1500),
        start in prop::collection::vec(0u8..4, 0..3),
        end in prop::option::of(prop::collection::vec(0u8..4, 0..3)),
        back in 0u64..1500,
    ) {
        let (mut table, mut model) = (Table::default(), Model::new());
        for (number, (key, value)) in writes.iter().enumerate() {
            let version = number as u64 + 1;
            let kind = if value.is_some() { ChangeKind::Put } else { ChangeKind::Delete };
            table.put(key, version, kind, value.as_deref(), &[]).unwrap();
            model.entry(key.clone()).or_default().push((version, value.clone()));
        }
        for at in [u64::MAX, (writes.len() as u64).saturating_sub(back)] {
            let all = model_at(&model, at);
            prop_assert_eq!(&rows(&table, &[], None, false, at), &all);
            let inside = |key: &[u8]| key >= &start[..] && end.as_ref().is_none_or(|end| key < &end[..]);
            let mut wanted: Vec<_> = all.iter().filter(|(key, ..)| inside(key)).cloned().collect();
            if end.as_ref().is_none_or(|end| *end >= start) {
                prop_assert_eq!(&rows(&table, &start, end.as_deref(), false, at), &wanted);
                wanted.reverse();
                prop_assert_eq!(&rows(&table, &start, end.as_deref(), true, at), &wanted);
            }
            for (key, version, value) in &all {
                let found = table.get(key, KeyHash::of(key), at).unwrap();
                prop_assert_eq!((found.version, found.value), (*version, value.as_deref()));
            }
        }
        // What changed is found in the journal, also after a table was rewritten.
        let last = writes.len() as u64;
        let rewritten = table.rewritten(|_, version| version.version % 3 > 0).unwrap();
        for (after, upto) in [(0, last), (back, last), (last.saturating_sub(back), u64::MAX), (back / 2, back)] {
            for (table, keeps_all) in [(&table, true), (&rewritten, false)] {
                let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
                table.changed((after, upto), |key, version| found.push((version.version, key.to_vec())));
                found.sort();
                let keyed = (1..).zip(&writes).map(|(version, (key, _))| (version, key.clone()));
                let is_in = |(version, _): &(u64, Vec<u8>)| {
                    *version > after && *version <= upto && (keeps_all || version % 3 > 0)
                };
                prop_assert_eq!(found, keyed.filter(is_in).collect::<Vec<_>>());
            }
        }
        for (key, versions) in &model {
            let chain: Vec<u64> = table.versions(key, KeyHash::of(key), u64::MAX).map(|version| version.version).collect();
            let wanted: Vec<u64> = versions.iter().rev().map(|(version, _)| *version).collect();
            prop_assert_eq!(chain, wanted);
        }
    }
}

#[test]
fn many_keys_split_blocks_in_any_order_of_arrival() {
    let mut table = Table::default();
    let keys: Vec<[u8; 4]> = (0..20_000u32).map(|n| n.wrapping_mul(0x9e37_79b1).to_be_bytes()).collect();
    for (number, key) in keys.iter().enumerate() {
        table.put(key, number as u64 + 1, ChangeKind::Put, Some(key), &[]).unwrap();
    }
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    let found: Vec<Vec<u8>> = table.range(&[], None, false, u64::MAX).map(|(key, _)| key.to_vec()).collect();
    assert_eq!(found, sorted);
}

#[test]
fn values_larger_than_a_chunk_come_back_whole() {
    let mut table = Table::default();
    let large = vec![7u8; 5 << 20];
    table.put(b"first", 1, ChangeKind::Put, Some(&large), &[]).unwrap();
    table.put(b"small", 2, ChangeKind::Put, Some(b"s"), &[]).unwrap();
    table.put(b"patched", 3, ChangeKind::Patch, Some(&large), b"paths").unwrap();
    assert_eq!(table.get(b"first", KeyHash::of(b"first"), 9).unwrap().value, Some(&large[..]));
    assert_eq!(table.get(b"small", KeyHash::of(b"small"), 9).unwrap().value, Some(&b"s"[..]));
    let patched = table.get(b"patched", KeyHash::of(b"patched"), 9).unwrap();
    assert_eq!((patched.value, patched.touched), (Some(&large[..]), &b"paths"[..]));
}

#[test]
fn of_two_writes_of_one_commit_the_last_stands() {
    let mut table = Table::default();
    // Past a version with links and back to it.
    for version in 1..=40u64 {
        for value in [b"a", b"b", b"c"] {
            table.put(b"key", version, ChangeKind::Put, Some(value), &[]).unwrap();
            table.put(b"other", version, ChangeKind::Put, Some(value), &[]).unwrap();
        }
    }
    let hash = KeyHash::of(b"key");
    let versions: Vec<u64> = table.versions(b"key", hash, u64::MAX).map(|version| version.version).collect();
    assert_eq!(versions, (1..=40).rev().collect::<Vec<_>>());
    for at in 1..=40 {
        assert_eq!(
            table.get(b"key", hash, at).map(|version| (version.version, version.value)),
            Some((at, Some(&b"c"[..])))
        );
    }
}

/// A read of an old state must not grow with the writes since: vision.md, promise 4.
#[test]
fn old_versions_are_found_among_many() {
    let mut table = Table::default();
    for version in 1..=100_000u64 {
        table.put(b"counter", 2 * version, ChangeKind::Put, Some(&version.to_le_bytes()), &[]).unwrap();
    }
    let hash = KeyHash::of(b"counter");
    for at in (0..=200_001).step_by(7) {
        let found = table.get(b"counter", hash, at).map(|version| version.version);
        assert_eq!(found, Some(at / 2 * 2).filter(|&version| version > 0));
    }
    let rest: Vec<u64> = table.versions(b"counter", hash, 9).map(|version| version.version).collect();
    assert_eq!(rest, [8, 6, 4, 2]);
}
