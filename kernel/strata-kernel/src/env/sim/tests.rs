use super::*;
use crate::env::Disk;
use crate::error::Error;

#[test]
fn what_was_synced_survives_every_power_cut() {
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let file = disk.create("a").unwrap();
        file.write_at(0, &[1; 2000]).unwrap();
        file.sync().unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(1000, &[2; 2000]).unwrap();
        let image = disk.crash(seed).content("a").unwrap();
        assert_eq!(&image[..1000], &[1; 1000]);
        assert!(image[1000..2000].iter().all(|byte| [1, 2].contains(byte)));
        assert!(image[2000.min(image.len())..].iter().all(|byte| [0, 2].contains(byte)));
    }
}

#[test]
fn what_was_not_synced_is_kept_lost_and_torn() {
    let disk = SimDisk::new(1);
    let file = disk.create("a").unwrap();
    disk.sync_dir("").unwrap();
    file.write_at(0, &[7; 1500]).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let image = disk.crash(seed).content("a").unwrap();
        let kept = image.iter().filter(|byte| **byte == 7).count();
        seen.insert(match (kept, image.len()) {
            (1500, _) => "whole",
            (0, 0) => "lost",
            (0, _) => "size without data",
            _ => "torn",
        });
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn names_survive_in_order_within_one_name() {
    let disk = SimDisk::new(1);
    disk.create("a").unwrap().sync().unwrap();
    disk.rename("a", "b").unwrap();
    disk.create("c").unwrap();
    let images = (0..300).map(|seed| disk.crash(seed).paths().join(" "));
    let seen: std::collections::BTreeSet<String> = images.collect();
    assert_eq!(Vec::from_iter(seen), ["", "a", "a c", "b", "b c", "c"]);
    disk.sync_dir("").unwrap();
    assert!((0..100).all(|seed| disk.crash(seed).paths() == ["b", "c"]));
}

#[test]
fn a_file_in_a_lost_directory_is_lost() {
    let disk = SimDisk::new(1);
    disk.create_dir("D").unwrap();
    disk.create("D/a").unwrap();
    disk.sync_dir("D").unwrap();
    assert!((0..50).any(|seed| disk.crash(seed).paths().is_empty()));
    disk.sync_dir("").unwrap();
    assert!((0..50).all(|seed| disk.crash(seed).paths() == ["D/a"]));
}

#[test]
fn a_killed_process_leaves_all_it_handed_over_but_nothing_more_durable() {
    let disk = SimDisk::new(1);
    let held = disk.lock("LOCK", Some("me")).unwrap();
    disk.create("a").unwrap().write_at(0, b"handed over").unwrap();
    assert!(matches!(disk.lock("LOCK", Some("you")).map(drop), Err(Error::Locked { owner, .. }) if owner == "me"));
    let next = disk.killed();
    assert_eq!(next.content("a").unwrap(), b"handed over");
    assert!(next.lock("LOCK", Some("you")).is_ok());
    assert!((0..50).any(|seed| next.crash(seed).content("a").is_none()));
    drop(held);
    assert!(disk.lock("LOCK", Some("you")).is_ok());
}

#[test]
fn every_moment_can_be_seen_again() {
    let disk = SimDisk::new(1);
    let file = disk.create("a").unwrap();
    disk.sync_dir("").unwrap();
    for byte in 0..5 {
        file.write_at(byte, &[byte as u8 + 1]).unwrap();
        file.sync().unwrap();
    }
    for (count, length) in [(12, 5), (4, 1), (6, 2), (2, 0), (12, 5)] {
        assert_eq!(disk.image_at(count, 9).content("a").unwrap().len(), length);
    }
    assert_eq!(disk.image_at(11, 3).content("a"), disk.image_at(11, 3).content("a"));
    assert_eq!(disk.killed_at(3, 1).content("a").unwrap(), [1]);
}

#[test]
fn a_failed_sync_can_lie_in_three_ways() {
    let shown = |fault: SyncFault| {
        let disk = SimDisk::new(1);
        let file = disk.create("a").unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(0, b"old").unwrap();
        file.sync().unwrap();
        file.write_at(0, b"new").unwrap();
        disk.fail(Fault { at: disk.calls(), forever: false, kind: FaultKind::Sync(fault) });
        assert!(file.sync().is_err());
        file.sync().unwrap();
        let seen = disk.content("a").unwrap();
        file.drop_cache().unwrap();
        [seen, disk.content("a").unwrap(), disk.crash(1).content("a").unwrap()]
            .map(|content| String::from_utf8(content).unwrap())
    };
    assert_eq!(shown(SyncFault::NewShownOldKept), ["new", "old", "old"]);
    assert_eq!(shown(SyncFault::OldShown), ["old", "old", "old"]);
    assert_eq!(shown(SyncFault::Once), ["new", "new", "new"]);
}

#[test]
fn the_nth_call_fails_once_or_from_there_on() {
    let disk = SimDisk::new(1);
    let file = disk.create("a").unwrap();
    disk.fail(Fault { at: 2, forever: false, kind: FaultKind::Errno(ENOSPC) });
    assert!(file.size().is_ok());
    assert!(matches!(file.write_at(0, b"x"), Err(Error::Storage { errno: ENOSPC, .. })));
    assert!(file.write_at(0, b"xy").is_ok());
    disk.fail(Fault { at: 4, forever: true, kind: FaultKind::ShortRead });
    assert_eq!(file.read_at(0, &mut [0; 2]).unwrap(), 1);
    disk.fail(Fault { at: 5, forever: true, kind: FaultKind::Errno(EIO) });
    disk.heal();
    assert_eq!(file.read_at(0, &mut [0; 2]).unwrap(), 2);
}

#[test]
fn tasks_run_when_due_or_woken() {
    let sim = Sim::new(1);
    let calls = Arc::new(AtomicU64::new(0));
    let (count, clock) = (calls.clone(), sim.clock.clone());
    let worker = sim.spawn.spawn(
        "test",
        Box::new(move || {
            count.store(clock.monotonic_us(), Ordering::SeqCst);
            Next::After(1000)
        }),
    );
    let worker = worker.unwrap();
    sim.pass(2500);
    assert_eq!(calls.load(Ordering::SeqCst), 2000);
    worker.wake();
    sim.pass(10);
    assert_eq!(calls.load(Ordering::SeqCst), 2500);
    worker.stop();
    sim.pass(10_000);
    assert_eq!(calls.load(Ordering::SeqCst), 2500);
}
