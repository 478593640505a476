//! What runs cost: bytes a row, point reads from the cache and past it, misses, scans and writing.
//!
//! `cargo bench -p strata-kernel --bench run`. The file is written to the temporary directory; its pages stay in the
//! system's cache. Medians of many small rounds.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark measures the real world")]

use std::sync::Arc;
use std::time::Instant;

use strata_kernel::branch::Range;
use strata_kernel::env::{Disk, real};
use strata_kernel::run::{BlockCache, RowHash, Run, RunOptions, RunWriter};
use strata_kernel::table::{ChangeKind, Version};

const ROWS: u64 = 1_000_000;
const VALUE_BYTES: usize = 100;

fn main() {
    let root = std::env::temp_dir().join(format!("strata-bench-run-{}", std::process::id()));
    let disk = real::env(&root).disk;
    disk.create_dir("").expect("a temporary directory");
    let options = RunOptions::new(*b"0123456789abcdef");
    for (number, kind) in [(1, "counted keys"), (2, "random keys")] {
        println!("{kind}: {ROWS} rows of 16 bytes and {VALUE_BYTES} random ones");
        let keys = keys(number == 2);
        write(&disk, number, &options, &keys);
        reads(&disk, number, &options, &keys);
        scans(&disk, number, &options);
    }
    let _ = std::fs::remove_dir_all(&root);
}

/// Keys in order, each with its version: they were written in another one.
fn keys(random: bool) -> Vec<([u8; 16], u64)> {
    let mut keys: Vec<_> = (0..ROWS)
        .map(|number| {
            let version = mix(number) % ROWS;
            if random {
                let mut key = [0; 16];
                key[..8].copy_from_slice(&mix(2 * number).to_be_bytes());
                key[8..].copy_from_slice(&mix(2 * number + 1).to_be_bytes());
                (key, version)
            } else {
                (*format!("key-{number:012}").as_bytes().first_chunk().expect("16 bytes"), version)
            }
        })
        .collect();
    keys.sort_unstable();
    keys
}

fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn write(disk: &Arc<dyn Disk>, number: u64, options: &RunOptions, keys: &[([u8; 16], u64)]) {
    let noise: Vec<u8> = (0..(1_u64 << 17)).flat_map(|number| mix(number).to_le_bytes()).collect();
    let start = Instant::now();
    let mut writer = RunWriter::create(disk, number, options).expect("a new run");
    for (key, version) in keys {
        let at = mix(*version) as usize % (noise.len() - VALUE_BYTES);
        let value = Some(&noise[at..at + VALUE_BYTES]);
        let row = Version { version: *version, kind: ChangeKind::Put, value, touched: &[], expires: 0 };
        writer.add(0, 1, key, &row).expect("it is written");
    }
    let packed = start.elapsed().as_secs_f64();
    let bytes = writer.finish().expect("it is finished");
    let synced = start.elapsed().as_secs_f64();
    let raw = (keys.len() * (16 + VALUE_BYTES)) as f64;
    println!("  {:.2} bytes a row", bytes as f64 / keys.len() as f64);
    println!("  written at {:.0} MB/s, {:.0} with sync", raw / packed / 1e6, raw / synced / 1e6);
}

fn reads(disk: &Arc<dyn Disk>, number: u64, options: &RunOptions, keys: &[([u8; 16], u64)]) {
    let start = Instant::now();
    let opened = Run::open(&**disk, number, &BlockCache::new(0), options).expect("it opens");
    println!("  opened in {:.0} us, {} bytes kept", start.elapsed().as_secs_f64() * 1e6, opened.memory_bytes());
    let get = |run: &Run, key: &[u8]| {
        let hash = RowHash::of(0, 1, key);
        run.get(0, 1, key, hash, u64::MAX, |version| version.value.map_or(0, <[u8]>::len)).expect("it is read")
    };
    // All of it in the cache, then a sixteenth.
    for (name, budget, rounds) in [("cached", 256 << 20, 200), ("past the cache", 8 << 20, 100)] {
        let cache = BlockCache::new(budget);
        let run = Run::open(&**disk, number, &cache, options).expect("it opens");
        for (key, _) in keys {
            get(&run, key);
        }
        let mut next = 0;
        report(&format!("get, {name}, any key"), rounds, 1000, || {
            next += 1;
            assert!(get(&run, &keys[(mix(next) % ROWS) as usize].0).is_some());
        });
        report(&format!("get, {name}, of 1000 keys"), rounds, 1000, || {
            next += 1;
            assert!(get(&run, &keys[(mix(next % 1000) % ROWS) as usize].0).is_some());
        });
        report(&format!("get, {name}, one key"), rounds, 1000, || {
            assert!(get(&run, &keys[777_777].0).is_some());
        });
        let mut found = 0;
        let absent: Vec<[u8; 16]> = (0..1000)
            .map(|number| {
                let mut key = keys[(mix(number) % ROWS) as usize].0;
                key[15] ^= 0x80;
                key
            })
            .collect();
        report(&format!("get, {name}, absent"), rounds, 1000, || {
            next += 1;
            found += usize::from(get(&run, &absent[next as usize % 1000]).is_some());
        });
        assert_eq!(found, 0);
        println!("    cache holds {} bytes of {}, {:?}", cache.bytes(), cache.budget(), cache.counts());
    }
}

fn scans(disk: &Arc<dyn Disk>, number: u64, options: &RunOptions) {
    let cache = BlockCache::new(256 << 20);
    let run = Run::open(&**disk, number, &cache, options).expect("it opens");
    rate("all", || {
        let mut cursor = run.all(None).expect("a cursor");
        let mut rows = 0;
        while let Some(row) = cursor.row().expect("a row") {
            rows += usize::from(row.version.value.is_some());
            cursor.advance().expect("a step");
        }
        rows
    });
    for (name, reverse) in [("range", false), ("range, cached", false), ("range in reverse, cached", true)] {
        rate(name, || {
            let mut cursor = run.range(0, 1, &Range::default(), reverse, u64::MAX).expect("a cursor");
            let mut rows = 0;
            while let Some(row) = cursor.row().expect("a row") {
                rows += usize::from(row.version.value.is_some());
                cursor.advance().expect("a step");
            }
            rows
        });
    }
    let mut next = 0;
    for reverse in [false, true] {
        report(&format!("range of 10, reverse {reverse}, cached"), 50, 100, || {
            next += 1;
            let mut key = *b"key-000000000000";
            key[4..].copy_from_slice(format!("{:012}", mix(next) % ROWS).as_bytes());
            let range = if reverse {
                Range { start: Vec::new(), end: Some(key.to_vec()) }
            } else {
                Range { start: key.to_vec(), end: None }
            };
            let mut cursor = run.range(0, 1, &range, reverse, u64::MAX).expect("a cursor");
            for _ in 0..10 {
                std::hint::black_box(cursor.row().expect("a row"));
                cursor.advance().expect("a step");
            }
        });
    }
}

fn rate(name: &str, scan: impl FnOnce() -> usize) {
    let start = Instant::now();
    let rows = scan();
    println!("  {name}: {:.1} M rows/s", rows as f64 / start.elapsed().as_secs_f64() / 1e6);
}

/// The median over `rounds` of what one of `count` calls takes.
fn report(name: &str, rounds: usize, count: usize, mut call: impl FnMut()) {
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            (0..count).for_each(|_| call());
            start.elapsed().as_secs_f64() / count as f64 * 1e9
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("  {name}: {:.0} ns, at best {:.0}", times[rounds / 2], times[0]);
}
