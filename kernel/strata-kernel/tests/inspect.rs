//! Inspect: whole files are shown whole, damage is named with its place, and no bytes at all make it panic.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use strata_kernel::change::{What, Write};
use strata_kernel::env::sim::{Sim, SimDisk};
use strata_kernel::inspect::{Field, Line, inspect};
use strata_kernel::payload::Number;
use strata_kernel::retention::{Keep, Policy};
use strata_kernel::run::path as run_path;
use strata_kernel::seal::{GivenKeys, Key};
use strata_kernel::store::{Options, Store};
use strata_kernel::value::{Op, Path, Step};

const LOG: &str = "WAL/wal-000002.seg";

fn lines_of(disk: &SimDisk, path: &str, rows: u64) -> Vec<Line> {
    lines_with(disk, path, rows, None)
}

fn lines_with(disk: &SimDisk, path: &str, rows: u64, keys: Option<&GivenKeys>) -> Vec<Line> {
    let mut lines = Vec::new();
    inspect(disk, path, rows, keys, &mut |line| {
        lines.push(line);
        Ok(())
    })
    .unwrap();
    lines
}

fn field(line: &Line, name: &str) -> String {
    let found = line.fields.iter().find(|(known, _)| *known == name);
    match found.map(|(_, field)| field) {
        Some(Field::Number(number)) => number.to_string(),
        Some(Field::Text(text)) => text.clone(),
        None => panic!("no {name} in {line:?}"),
    }
}

fn of_kind<'a>(lines: &'a [Line], kind: &str) -> Vec<&'a Line> {
    lines.iter().filter(|line| line.kind == kind).collect()
}

/// A database with something of everything: a run, a log behind it, two branches.
fn database() -> SimDisk {
    let sim = Sim::new(7);
    let options = Options { compress_above: 200, segment_bytes: 64 << 10, block_bytes: 1 << 10, ..Options::default() };
    let store = Store::open(sim.env(), &options).unwrap();
    let main = store.branch("main").unwrap();
    let keyspace = store.keyspace("default", "kv");
    let write = |key: &[u8], what: What<'_>| store.write(&main, &[Write { keyspace, key, what }]).unwrap();
    for number in 0..300_u32 {
        write(format!("key-{number:04}").as_bytes(), What::Put(&[0xa2, b'h', b'i']));
    }
    let large = [&[0xc5, 0x20, 0x00][..], &[9; 0x2000]].concat();
    write(b"large", What::Put(&large));
    store.fork("main", "draft", None).unwrap();
    store.checkpoint().unwrap();
    write(b"packed", What::Put(&large));
    write("schl\u{fc}ssel".as_bytes(), What::Add(Number::Int(5)));
    write(b"key-0000", What::Delete);
    let patch = [Op::Set { path: Path(vec![Step::Key("a".into())]), value: vec![1] }];
    write(b"document", What::Patch(&patch, None));
    store.rename("draft", "plan").unwrap();
    store.flush().unwrap();
    sim.disk.killed()
}

static DATABASE: LazyLock<SimDisk> = LazyLock::new(database);

#[test]
fn a_whole_log_is_shown_whole() {
    let lines = lines_of(&DATABASE, LOG, 0);
    assert!(of_kind(&lines, "problem").is_empty(), "{lines:?}");
    let records = of_kind(&lines, "record");
    let says: Vec<String> = records.iter().map(|line| field(line, "says")).collect();
    assert_eq!(says, ["commit", "commit", "commit", "commit", "rename branch"]);
    assert_eq!((field(records[0], "codec"), field(records[1], "codec")), ("lz4".into(), "none".into()));
    let shown = |line: &&Line| (field(line, "does"), field(line, "key"));
    let writes: Vec<_> = of_kind(&lines, "write").iter().map(shown).collect();
    let expected =
        [("put", "\"packed\""), ("add", "\"schl\u{fc}ssel\""), ("delete", "\"key-0000\""), ("patch", "\"document\"")];
    assert_eq!(writes, expected.map(|(does, key)| (does.to_owned(), key.to_owned())));
    assert!(field(lines.last().unwrap(), "reason").contains("reserved"));
}

#[test]
fn a_whole_run_is_shown_with_as_many_rows_as_asked_for() {
    let path = run_path(1);
    for rows in [0, 1, 25, 1 << 40] {
        let lines = lines_of(&DATABASE, &path, rows);
        assert!(of_kind(&lines, "problem").is_empty(), "{lines:?}");
        let footer = of_kind(&lines, "footer")[0];
        let all: u64 = field(footer, "rows").parse().unwrap();
        assert_eq!(of_kind(&lines, "row").len() as u64, all.min(rows));
        let frames = of_kind(&lines, "frame");
        let held = |line: &&Line| line.fields.iter().any(|(name, _)| *name == "rows");
        let counted: u64 =
            frames.iter().filter(|line| held(line)).map(|line| field(line, "rows").parse::<u64>().unwrap()).sum();
        assert_eq!(counted, all);
        assert!(frames.iter().any(|line| field(line, "holds") == "value"));
        assert!(of_kind(&lines, "row").iter().all(|line| field(line, "key").len() < 200));
    }
}

#[test]
fn the_manifest_shows_its_state() {
    let lines = lines_of(&DATABASE, "MANIFEST", 0);
    assert_eq!(field(&lines[0], "runs"), "1");
    let names: Vec<String> = of_kind(&lines, "branch").iter().map(|line| field(line, "name")).collect();
    assert_eq!(names, ["\"main\"", "\"draft\""]);
    assert_eq!(field(of_kind(&lines, "keyspace")[0], "holds"), "kv");
    assert!(field(&lines_of(&DATABASE, "LOCK", 0)[0], "owner").starts_with("pid "));
}

/// With its key a sealed database shows what a plain one does; without, or with another, no more than that it is sealed.
#[test]
fn what_is_sealed_shows_with_its_key() {
    let key = |number: u8| GivenKeys {
        current: Key::new(&(number..number + 32).collect::<Vec<u8>>()).unwrap(),
        older: Vec::new(),
    };
    let sim = Sim::new(7);
    let store = Store::open(sim.env(), &Options { keys: Some(key(1)), ..Options::default() }).unwrap();
    let (main, keyspace) = (store.branch("main").unwrap(), store.keyspace("default", "kv"));
    let write = || store.write(&main, &[Write { keyspace, key: b"canary", what: What::Put(&[7]) }]).unwrap();
    write();
    let keep = Keep { last: Some(3), ..Keep::default() };
    store.set_policy(Policy { space: Some("default".into()), keep, ..Policy::default() }).unwrap();
    store.checkpoint().unwrap();
    write();
    store.export(&sim.env(), "out", None, true, Some(&key(1))).unwrap();
    write();
    for (path, kind) in [("MANIFEST", "policy"), (&run_path(1), "row"), ("WAL/wal-000003.seg", "write"), ("out", "row")]
    {
        let said = |given: Option<GivenKeys>| lines_with(&sim.disk, path, 9, given.as_ref());
        for lines in [said(None), said(Some(key(2)))] {
            assert_eq!((of_kind(&lines, "problem").len(), of_kind(&lines, kind).len()), (0, 0), "{path}: {lines:?}");
            assert_eq!(field(&lines[0], "sealed_with_key"), key(1).current.id().to_string());
        }
        let lines = said(Some(key(1)));
        assert!(of_kind(&lines, "problem").is_empty() && !of_kind(&lines, kind).is_empty(), "{path}: {lines:?}");
        assert_eq!(kind != "policy", format!("{lines:?}").contains("canary"));
    }
}

#[test]
fn a_bundle_shows_what_it_holds() {
    let sim = Sim::new(3);
    let store = Store::open(Sim::over(DATABASE.copy(), 1).env(), &Options::default()).unwrap();
    for (history, places) in [(false, "\"main\""), (true, "0")] {
        let made = store.export(&sim.env(), &format!("out-{history}"), None, history, None).unwrap();
        let lines = lines_of(&sim.disk, &format!("out-{history}"), 5);
        assert!(of_kind(&lines, "problem").is_empty(), "{lines:?}");
        assert_eq!(of_kind(&lines, "row").len(), 5);
        assert!(of_kind(&lines, "place").iter().any(|line| field(line, "branch") == places));
        assert_eq!(of_kind(&lines, "branch").len(), if history { 2 } else { 0 });
        assert_eq!(field(lines.last().unwrap(), "rows"), made.rows.to_string());
        sim.disk.flip(&format!("out-{history}"), (made.bytes - 40) * 8);
        assert_eq!(lines_of(&sim.disk, &format!("out-{history}"), 5).last().unwrap().kind, "problem");
    }
}

#[test]
fn a_damaged_record_is_named_and_those_behind_it_are_shown() {
    let disk = DATABASE.copy();
    let second = of_kind(&lines_of(&disk, LOG, 0), "record")[1].at;
    disk.flip(LOG, (second + 70) * 8);
    let lines = lines_of(&disk, LOG, 0);
    let problems = of_kind(&lines, "problem");
    assert_eq!((problems.len(), problems[0].at), (1, second));
    assert_eq!(of_kind(&lines, "record").len(), 4);
    // And with a damaged header its records are still found.
    disk.flip(LOG, 60 * 8);
    let lines = lines_of(&disk, LOG, 0);
    assert_eq!((of_kind(&lines, "problem")[0].at, of_kind(&lines, "record").len()), (0, 4));
}

#[test]
fn a_torn_log_says_so() {
    let disk = DATABASE.copy();
    let last = of_kind(&lines_of(&disk, LOG, 0), "record")[4].at as usize;
    let mut torn = disk.content(LOG).unwrap();
    torn[last + 66..].fill(0);
    disk.replace(LOG, torn);
    let lines = lines_of(&disk, LOG, 0);
    let end = lines.last().unwrap();
    assert_eq!((end.kind, end.at), ("end", last as u64));
    assert!(field(end, "reason").starts_with("torn or damaged"));
}

#[test]
fn each_damaged_frame_is_named_and_the_others_are_shown() {
    let path = run_path(1);
    let whole = lines_of(&DATABASE, &path, 1 << 40);
    let frames = of_kind(&whole, "frame");
    let rows = of_kind(&whole, "row").len();
    for frame in &frames {
        // Its checksum, its length, its kind.
        for byte in [16, 8, 10, 0] {
            let disk = DATABASE.copy();
            disk.flip(&path, (frame.at + byte) * 8);
            let lines = lines_of(&disk, &path, 1 << 40);
            let problems = of_kind(&lines, "problem");
            assert!(problems.iter().any(|line| line.at == frame.at), "{frame:?} {problems:?}");
            let others = of_kind(&lines, "frame").iter().filter(|line| line.at != frame.at).count();
            assert_eq!(others, frames.len() - 1, "{frame:?} byte {byte}");
            assert!(of_kind(&lines, "row").len() <= rows);
        }
    }
}

#[test]
fn without_its_tail_a_run_is_still_shown() {
    let (disk, path) = (DATABASE.copy(), run_path(1));
    let whole = disk.content(&path).unwrap();
    disk.replace(&path, whole[..whole.len() - 30].to_vec());
    let lines = lines_of(&disk, &path, 1 << 40);
    assert_eq!(of_kind(&lines, "problem")[0].at, whole.len() as u64 - 30 - 24);
    assert_eq!(of_kind(&lines, "row").len(), of_kind(&lines_of(&DATABASE, &path, 1 << 40), "row").len());
}

#[test]
fn a_file_of_others_is_said_to_be_none_of_ours() {
    let disk = DATABASE.copy();
    disk.replace("holiday.jpg", vec![7; 100]);
    assert_eq!(lines_of(&disk, "holiday.jpg", 0)[0].kind, "problem");
    assert!(inspect(&disk, "missing", 0, None, &mut |_| Ok(())).is_err());
}

fn any_name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["MANIFEST", "WAL/wal-000001.seg", "DATA/run-000001.run", "LOCK", "WAL/wal-next.tmp"])
        .prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_make_lines(name in any_name(), magic in 0..4_usize, rest: Vec<u8>) {
        let magic = [&b""[..], b"strataMF", b"strataWL", b"strataRN"][magic];
        let disk = SimDisk::new(1);
        disk.replace(&name, [magic, &rest].concat());
        prop_assert!(!lines_of(&disk, &name, 10).is_empty());
    }

    #[test]
    fn any_damage_makes_lines(
        which in any::<prop::sample::Index>(),
        flips in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        moved in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())),
    ) {
        let disk = DATABASE.copy();
        let paths = disk.paths();
        let path = which.get(&paths);
        let mut bytes = disk.content(path).unwrap();
        if !bytes.is_empty() {
            for flip in flips {
                let bit = flip.index(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            if let Some((from, to)) = moved {
                let length = bytes.len().min(200);
                let (from, to) = (from.index(bytes.len() - length + 1), to.index(bytes.len() - length + 1));
                bytes.copy_within(from..from + length, to);
            }
            if let Some(cut) = cut {
                let length = cut.index(bytes.len());
                bytes.truncate(length);
            }
        }
        disk.replace(path, bytes);
        lines_of(&disk, path, 1000);
    }
}

/// Checksums mended, so that what is behind them is met damaged.
#[test]
fn a_value_that_is_none_is_said_to_be_none() {
    let disk = SimDisk::new(1);
    let sim = Sim::over(disk, 1);
    let store: Arc<Store> = Store::open(sim.env(), &Options::default()).unwrap();
    let main = store.branch("main").unwrap();
    let keyspace = store.keyspace("default", "kv");
    for value in [&[0xc1][..], &[0xdd, 0xff, 0xff, 0xff, 0xff], &[0x91; 500]] {
        store.write(&main, &[Write { keyspace, key: b"k", what: What::Put(value) }]).unwrap();
    }
    let lines = lines_of(&sim.disk, "WAL/wal-000001.seg", 0);
    let values: Vec<String> = of_kind(&lines, "write").iter().skip(1).map(|line| field(line, "value")).collect();
    assert_eq!(values[..2], ["<no value>", "<no value>"]);
    assert!(values[2].starts_with("[[[[") && values[2].ends_with('\u{2026}'));
}
