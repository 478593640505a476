//! The log on the real disk, with real threads.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // these tests are about the real world

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use strata_kernel::Error;
use strata_kernel::env::{Env, real};
use strata_kernel::log::{Anchor, Durability, Log, LogOptions, StateHash};

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("strata-log-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Directory(path)
    }

    fn env(&self) -> Env {
        real::env(&self.0)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn options(durability: Durability) -> LogOptions {
    LogOptions { durability, segment_bytes: 1 << 16, ..LogOptions::default() }
}

fn versions(env: &Env, durability: Durability, proven: u64) -> Vec<u64> {
    let mut found = Vec::new();
    let anchor = Anchor { proven, ..Anchor::default() };
    let (log, _) = Log::recover(env, options(durability), anchor, &mut |entry| {
        assert_eq!(&entry.payload[..8], &entry.stamp.hash.0[..8].len().to_le_bytes());
        found.push(entry.stamp.version);
        Ok(())
    })
    .expect("the log opens");
    log.close().expect("the log closes");
    found
}

/// Threads that append at once get versions in log order, and nothing is lost, closed cleanly or not.
#[test]
fn many_threads_one_log() {
    for durability in [Durability::Buffered, Durability::Strict] {
        for clean in [true, false] {
            let directory = Directory::new("threads");
            let env = directory.env();
            let log = Arc::new(Log::create(&env, options(durability), Anchor::default()).unwrap());
            let each = if durability == Durability::Strict { 40 } else { 2_000 };
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let log = &log;
                    scope.spawn(move || {
                        let mut last = 0;
                        let payload = [&8usize.to_le_bytes()[..], &[thread; 92]].concat();
                        for _ in 0..each {
                            let appended = log.append(StateHash::default(), &payload).unwrap();
                            log.wait(&appended).unwrap();
                            assert!(appended.stamp.version > last);
                            last = appended.stamp.version;
                            if durability == Durability::Strict {
                                assert!(log.durable_version() >= last);
                            }
                        }
                    });
                }
            });
            assert_eq!(log.last_version(), 4 * each);
            let proven = if clean { log.close().unwrap() } else { 0 };
            drop(log);
            assert_eq!(versions(&env, durability, proven), (1..=4 * each).collect::<Vec<_>>());
        }
    }
}

/// Cuts while others append: each parts the log exactly, and any of them can be gone on from.
#[test]
fn cuts_part_the_log_while_threads_append() {
    for durability in [Durability::Buffered, Durability::Strict] {
        let directory = Directory::new("cuts");
        let env = directory.env();
        let log = Log::create(&env, options(durability), Anchor::default()).unwrap();
        let payload = [&8usize.to_le_bytes()[..], &[7; 92]].concat();
        let enough = AtomicBool::new(false);
        let mut made = Vec::new();
        std::thread::scope(|scope| {
            let commits = || {
                while !enough.load(Ordering::Relaxed) {
                    let appended = log.append(StateHash::default(), &payload).unwrap();
                    log.wait(&appended).unwrap();
                }
            };
            (0..3).for_each(|_| drop(scope.spawn(commits)));
            // Looked at when the threads are done: a failure here would leave them at it for ever.
            made.extend((0..12).map(|_| (log.last_version(), log.cut(), log.durable_version())));
            enough.store(true, Ordering::Relaxed);
        });
        made.push((log.last_version(), log.cut(), log.durable_version()));
        assert!(made.iter().all(|(before, _, durable)| durable >= before));
        let cuts = made.into_iter().map(|(before, cut, _)| cut.map(|cut| (before <= cut.version).then_some(cut)));
        let cuts: Vec<_> = cuts.map(|cut| cut.unwrap().expect("all that was appended before lies before")).collect();
        let newest = log.last_version();
        let proven = log.close().unwrap();
        assert!(cuts.is_sorted_by_key(|cut| (cut.version, cut.segment, cut.position)));
        assert_eq!(cuts.last().unwrap().version, newest);
        let mut places = Vec::new();
        let all = Anchor { proven, ..Anchor::default() };
        let (read, _) = Log::read(&env, options(durability), all, &mut |entry| {
            places.push((entry.stamp.version, entry.segment));
            Ok(())
        })
        .unwrap();
        assert_eq!(read.segments(), log.segments());
        assert_eq!(places.len() as u64, newest);
        for cut in cuts.iter().step_by(3) {
            assert!(places.iter().all(|(version, segment)| (*version <= cut.version) == (*segment < cut.segment)));
            let mut behind = Vec::new();
            let (_, recovery) = Log::read(&env, options(durability), cut.anchor(), &mut |entry| {
                behind.push(entry.stamp.version);
                Ok(())
            })
            .unwrap();
            assert_eq!(behind, (cut.version + 1..=newest).collect::<Vec<_>>());
            assert_eq!(recovery.end, proven);
        }
    }
}

#[test]
fn the_flusher_thread_makes_records_durable_by_itself() {
    let directory = Directory::new("flusher");
    let options = LogOptions { flush_interval_us: 2_000, ..options(Durability::Buffered) };
    let log = Log::create(&directory.env(), options, Anchor::default()).unwrap();
    for version in 1..4 {
        let appended = log.append(StateHash::default(), b"hello").unwrap();
        log.wait(&appended).unwrap();
        while log.durable_version() < version {
            std::thread::yield_now();
        }
    }
    assert_eq!(log.unflushed_us(), 0);
}

#[test]
fn a_closed_log_refuses_and_gives_its_reserved_space_back() {
    let directory = Directory::new("closed");
    let env = directory.env();
    let log = Log::create(&env, options(Durability::Buffered), Anchor::default()).unwrap();
    let appended = log.append(StateHash::default(), &[8, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    log.wait(&appended).unwrap();
    let position = log.close().unwrap();
    assert_eq!((log.close(), position), (Ok(appended.position), appended.position));
    assert_eq!(log.append(StateHash::default(), b"").map(|_| ()), Err(Error::Closed("log")));
    assert_eq!(std::fs::metadata(directory.0.join("WAL/wal-000001.seg")).unwrap().len(), position);
    assert_eq!(versions(&env, Durability::Buffered, position), [1]);
}
