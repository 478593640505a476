//! Whatever is written, a run answers as a sorted map of the same rows does.

use super::*;
use crate::branch::successor;

/// The newest rows at or below `at` of each key of a range.
fn expected_range(model: &Model, branch: u32, keyspace: u32, range: &Range, reverse: bool, at: u64) -> Vec<Owned> {
    let mut rows: Vec<Owned> = Vec::new();
    for ((b, k, key, Reverse(version)), content) in model {
        let is_in = *b == branch && *k == keyspace && range.contains(key) && *version <= at;
        if is_in && rows.last().is_none_or(|(last, _)| last.2 != *key) {
            rows.push(((*b, *k, key.clone(), Reverse(*version)), content.clone()));
        }
    }
    if reverse {
        rows.reverse();
    }
    rows
}

fn expected_versions(model: &Model, branch: u32, keyspace: u32, key: &[u8], at: u64) -> Vec<Owned> {
    let first = (branch, keyspace, key.to_vec(), Reverse(at));
    let last = (branch, keyspace, key.to_vec(), Reverse(0));
    model.range(first..=last).map(version_of).collect()
}

/// Questions worth asking of a model: about its own rows, and near them.
fn positions(model: &Model, asked: &[Position]) -> Vec<Position> {
    let mut all: Vec<Position> = asked.to_vec();
    for (branch, keyspace, key, Reverse(version)) in model.keys().step_by(7) {
        for at in [*version, version.wrapping_sub(1), u64::MAX] {
            all.push((*branch, *keyspace, key.clone(), Reverse(at)));
        }
        all.push((*branch, *keyspace, [key, &[0][..]].concat(), Reverse(u64::MAX)));
    }
    all
}

pub fn check(run: &Arc<Run>, model: &Model, asked: &[Position]) {
    let rows: Vec<Owned> = model.iter().map(version_of).collect();
    assert_eq!(all(run, None).unwrap(), rows);
    assert_eq!(run.rows(), model.len() as u64);
    let positions = positions(model, asked);
    for (branch, keyspace, key, Reverse(at)) in &positions {
        let expected = expected_versions(model, *branch, *keyspace, key, *at);
        assert_eq!(get(run, *branch, *keyspace, key, *at).unwrap(), expected.first().cloned());
        assert_eq!(versions(run, *branch, *keyspace, key, *at).unwrap(), expected);
        let start = (*branch, *keyspace, key.clone(), Reverse(u64::MAX));
        let rest: Vec<Owned> = model.range(start..).map(version_of).collect();
        assert_eq!(all(run, Some((*branch, *keyspace, key))).unwrap(), rest);
    }
    for (number, (branch, keyspace, key, Reverse(at))) in positions.iter().enumerate() {
        let other = &positions[(number * 7 + 3) % positions.len()].2;
        let ranges = [
            Range { start: key.clone(), end: Some(other.clone()) },
            Range { start: key.clone(), end: None },
            Range { start: Vec::new(), end: successor(key) },
        ];
        for (range, reverse) in ranges.iter().flat_map(|range| [(range, false), (range, true)]) {
            let expected = expected_range(model, *branch, *keyspace, range, reverse, *at);
            assert_eq!(super::range(run, *branch, *keyspace, range, reverse, *at).unwrap(), expected);
        }
    }
}

/// What is newer than a version, of each branch.
fn check_changes(run: &Run, model: &Model) {
    let mut versions: Vec<u64> = model.keys().map(|(.., Reverse(version))| *version).collect();
    versions.sort_unstable();
    let some = |part: usize| versions.get(versions.len() * part / 4).copied().unwrap_or(0);
    for branch in (0..4).chain([u32::MAX]) {
        for (after, upto) in [(0, u64::MAX), (some(1), some(3)), (some(2), u64::MAX), (some(3), u64::MAX)] {
            let mut found = Vec::new();
            let mut take = |keyspace: u32, key: &[u8], version: Version<'_>| {
                found.push(owned(&Row { branch, keyspace, key, version }));
                Ok(())
            };
            run.changes(branch, (after, upto), &mut take).unwrap();
            let is_in = |(of, .., Reverse(version)): &Position| *of == branch && *version > after && *version <= upto;
            let expected: Vec<Owned> = model.iter().filter(|(at, _)| is_in(at)).map(version_of).collect();
            assert_eq!(found, expected);
        }
    }
}

fn check_counts(run: &Run, model: &Model) {
    let mut keys: Vec<_> = model.keys().map(|(branch, keyspace, key, _)| (branch, keyspace, key)).collect();
    keys.dedup();
    assert_eq!(run.keys(), keys.len() as u64);
    let mut spans: BTreeMap<u32, Span> = BTreeMap::new();
    let mut raw_bytes = 0;
    for ((branch, _, key, Reverse(version)), content) in model {
        let span = spans.entry(*branch).or_insert(Span { branch: *branch, rows: 0, oldest: u64::MAX, newest: 0 });
        span.rows += 1;
        (span.oldest, span.newest) = (span.oldest.min(*version), span.newest.max(*version));
        raw_bytes += key.len() + content.value.as_ref().map_or(0, Vec::len) + content.touched.len();
    }
    assert_eq!(run.spans(), spans.into_values().collect::<Vec<_>>());
    assert_eq!(run.raw_bytes(), raw_bytes as u64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_run_answers_as_a_map(
        model in a_model(),
        asked in prop::collection::vec(a_position(), 0..6),
        block_bytes in prop_oneof![Just(1), Just(128), Just(4096)],
        large_value_bytes in prop_oneof![Just(0), Just(40), Just(100_000)],
        compress: bool,
        budget in prop_oneof![Just(0), Just(10_000), Just(1 << 20)],
    ) {
        let disk = SimDisk::new(1);
        let options = RunOptions { block_bytes, large_value_bytes, compress, ..options() };
        let size = write(&disk, 7, &options, &model).unwrap();
        let run = Run::open(&disk, 7, &BlockCache::new(budget), &options).unwrap();
        prop_assert_eq!(run.file_bytes(), size);
        prop_assert_eq!(disk.paths(), ["DATA/run-000007.run"]);
        check_counts(&run, &model);
        check(&run, &model, &asked);
        check_changes(&run, &model);
        let mut read = 0;
        let verified = run
            .verify(&mut |bytes| {
                read += bytes;
                Ok(())
            })
            .unwrap();
        prop_assert_eq!((verified.rows, verified.keys, verified.bytes), (run.rows(), run.keys(), size));
        prop_assert_eq!(read, size);
    }
}

#[test]
fn a_run_of_usual_blocks_answers_as_a_map() {
    let options = RunOptions::new(DATABASE);
    let content = |number: u64| Content {
        kind: ChangeKind::Put,
        value: Some(a_value(&vec![number as u8; if number.is_multiple_of(100) { 5000 } else { 120 }])),
        touched: Vec::new(),
        expires: 0,
    };
    let key = |number: u64| format!("key-{:05}", number.wrapping_mul(0x9e37_79b9) % 90_000).into_bytes();
    let model: Model = (0..40_000).map(|n| ((0, 3, key(n), Reverse(n)), content(n))).collect();
    let disk = SimDisk::new(1);
    write(&disk, 1, &options, &model).unwrap();
    let run = open(&disk, 1, &options).unwrap();
    assert!(run.footer.top.entries().len() > 1, "the index has two levels");
    assert_eq!(all(&run, None).unwrap(), model.iter().map(version_of).collect::<Vec<_>>());
    let verified = run.verify(&mut |_| Ok(())).unwrap();
    assert_eq!((verified.rows, verified.values_aside), (40_000, 400));
    check_changes(&run, &model);
    // Only blocks that hold something newer are read.
    let counts = || run.cache.counts().misses + run.cache.counts().hits;
    let (before, mut seen) = (counts(), 0);
    run.changes(0, (39_990, u64::MAX), &mut |_, _, _| {
        seen += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, 9);
    assert!(counts() - before < 40, "{} frames were asked for", counts() - before);
    for number in (0..40_000).step_by(37) {
        let expected = expected_versions(&model, 0, 3, &key(number), u64::MAX);
        assert_eq!(get(&run, 0, 3, &key(number), u64::MAX).unwrap(), expected.first().cloned());
    }
    for reverse in [false, true] {
        let expected = expected_range(&model, 0, 3, &Range::default(), reverse, 30_000);
        assert_eq!(range(&run, 0, 3, &Range::default(), reverse, 30_000).unwrap(), expected);
    }
}

#[test]
fn an_empty_run_holds_nothing() {
    let disk = SimDisk::new(1);
    write(&disk, 1, &options(), &Model::new()).unwrap();
    check(&open(&disk, 1, &options()).unwrap(), &Model::new(), &[(0, 0, vec![], Reverse(5))]);
}

#[test]
fn the_longest_key_is_kept_and_a_longer_one_refused() {
    let content = Content { kind: ChangeKind::Put, value: Some(vec![1]), touched: vec![], expires: 0 };
    let model = |length: usize| -> Model {
        (0_u8..5)
            .map(|last| ((0, 0, [&vec![7; length - 1][..], &[last]].concat(), Reverse(1)), content.clone()))
            .collect()
    };
    let disk = SimDisk::new(1);
    write(&disk, 1, &options(), &model(KEY_BYTES_MAX)).unwrap();
    check(&open(&disk, 1, &options()).unwrap(), &model(KEY_BYTES_MAX), &[]);
    let refused = write(&disk, 2, &options(), &model(KEY_BYTES_MAX + 1));
    assert!(matches!(refused, Err(Error::LimitExceeded { .. })));
    assert_eq!(disk.paths(), ["DATA/run-000001.run"], "an unfinished run is removed");
}

#[test]
#[should_panic(expected = "in order")]
fn rows_out_of_order_are_our_bug() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let mut writer = RunWriter::create(&disk, 1, &options()).unwrap();
    let row = Version { version: 4, kind: ChangeKind::Delete, value: None, touched: &[], expires: 0 };
    writer.add(0, 0, b"b", &row).unwrap();
    writer.add(0, 0, b"b", &row).unwrap();
}

#[test]
fn reading_keys_reads_no_value_aside() {
    let content = Content { kind: ChangeKind::Put, value: Some(vec![1; 9000]), touched: vec![], expires: 0 };
    let model: Model = (0_u8..50).map(|n| ((0, 0, vec![n], Reverse(1)), content.clone())).collect();
    let options = RunOptions { compress: false, ..RunOptions::new(DATABASE) };
    let disk = SimDisk::new(1);
    write(&disk, 1, &options, &model).unwrap();
    let run = open(&disk, 1, &options).unwrap();
    // Every value is damaged now, and keys, lengths and kinds are read all the same.
    let mut content = disk.content("DATA/run-000001.run").unwrap();
    for start in 0..content.len() - 9000 {
        if content[start..start + 9000].iter().all(|byte| *byte == 1) {
            content[start + 4000] = 0;
        }
    }
    disk.replace("DATA/run-000001.run", content);
    let run = Run::open(&disk, 1, &BlockCache::new(1 << 20), &options).unwrap_or(run);
    for reverse in [false, true] {
        let mut cursor = run.range(0, 0, &Range::default(), reverse, 9).unwrap();
        for number in 0_u8..50 {
            let expected = if reverse { 49 - number } else { number };
            let info = cursor.info().unwrap();
            assert_eq!((info.key, info.value_bytes), (&[expected][..], 9000));
            assert!(matches!(cursor.row(), Err(Error::Corrupt { .. })));
            cursor.advance().unwrap();
        }
    }
}

#[test]
fn an_open_run_outlives_its_file() {
    let content = Content { kind: ChangeKind::Put, value: Some(vec![1; 90]), touched: vec![], expires: 0 };
    let model: Model = (0_u8..50).map(|n| ((0, 0, vec![n], Reverse(1)), content.clone())).collect();
    let disk = SimDisk::new(1);
    write(&disk, 1, &options(), &model).unwrap();
    let run = open(&disk, 1, &options()).unwrap();
    let cursor = run.all(None).unwrap();
    disk.remove(&path(1)).unwrap();
    check(&run, &model, &[]);
    drop(run);
    assert_eq!(cursor.info().unwrap().key, [0]);
}
