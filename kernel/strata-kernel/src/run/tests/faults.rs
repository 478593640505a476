//! A disk that says no.

use super::*;
use crate::env::sim::{EIO, ENOSPC, Fault, FaultKind};

pub fn model(seed: u8) -> Model {
    let content = |n: u8| Content {
        kind: ChangeKind::Put,
        value: Some(a_value(&[n ^ seed; 60])),
        touched: Vec::new(),
        expires: 0,
    };
    (0_u8..60).map(|n| ((0, 0, vec![n], Reverse(1)), content(n))).collect()
}

fn read_all(disk: &SimDisk) -> Result<Vec<Owned>> {
    let run = open(disk, 1, &options())?;
    run.verify(&mut |_| Ok(()))?;
    range(&run, 0, 0, &Range::default(), true, 9)?;
    get(&run, 0, 0, &[7], 9)?;
    all(&run, None)
}

#[test]
fn a_failed_write_is_an_error_and_the_next_attempt_is_whole() {
    let rows: Vec<Owned> = model(0).iter().map(version_of).collect();
    for at in 0..40 {
        for (kind, forever) in [(FaultKind::Errno(EIO), false), (FaultKind::Errno(ENOSPC), true)] {
            let disk = SimDisk::new(1);
            disk.fail(Fault { at, forever, kind });
            let first = write(&disk, 1, &options(), &model(0));
            let made_calls = disk.calls() > at;
            // The last call of a dropped writer is the removal, whose failure is nobody's business.
            assert!(first.is_err() || !made_calls, "call {at} failed, and nobody was told");
            disk.heal();
            if first.is_err() && disk.content(&path(1)).is_none() {
                write(&disk, 1, &options(), &model(0)).unwrap();
            }
            assert_eq!(read_all(&disk).unwrap(), rows);
        }
    }
}

#[test]
fn a_failed_or_short_read_is_an_error() {
    let disk = SimDisk::new(1);
    write(&disk, 1, &options(), &model(0)).unwrap();
    let rows: Vec<Owned> = model(0).iter().map(version_of).collect();
    for kind in [FaultKind::Errno(EIO), FaultKind::ShortRead] {
        for at in 0..80 {
            let before = disk.calls();
            disk.fail(Fault { at: before + at, forever: false, kind });
            match read_all(&disk) {
                Ok(read) => assert_eq!(read, rows),
                Err(Error::Storage { .. } | Error::Corrupt { .. }) => {}
                Err(other) => panic!("{other}"),
            }
            disk.heal();
        }
    }
    assert_eq!(read_all(&disk).unwrap(), rows);
}

#[test]
fn a_read_without_memory_says_so() {
    let reason = crate::run::frame::zeroed(isize::MAX as usize).unwrap_err();
    assert_eq!(reason, crate::error::NO_MEMORY);
    assert!(matches!(crate::run::Fault::NoMemory(reason).at("DATA/run-000001.run", 64), Error::Storage { .. }));
}
