//! A disk that says no, and a seal that hides what it holds.

use super::*;
use crate::env::sim::{EIO, ENOSPC, Fault, FaultKind};

fn model(seed: u8) -> Model {
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

/// No secret, but bound to its place, and longer than what it hides.
struct Toy {
    key_id: u32,
}

impl Toy {
    fn pad(&self, place: &Place, key_id: u32) -> u8 {
        (place.offset ^ place.run ^ u64::from(key_id) ^ u64::from(place.kind as u8)) as u8
    }
}

impl Seal for Toy {
    fn id(&self) -> u8 {
        3
    }

    fn key_id(&self) -> u32 {
        self.key_id
    }

    fn seal(&self, place: &Place, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let pad = self.pad(place, self.key_id);
        out.extend(plain.iter().chain(&[77]).map(|byte| byte ^ pad));
        Ok(())
    }

    fn open(&self, place: &Place, key_id: u32, sealed: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
        let pad = self.pad(place, key_id);
        out.extend(sealed.iter().map(|byte| byte ^ pad));
        if out.pop() == Some(77) { Ok(()) } else { Err("the seal is broken") }
    }
}

#[test]
fn a_sealed_run_is_read_with_its_seal_only() {
    let sealed = |key_id| RunOptions { seal: Some(Arc::new(Toy { key_id })), ..options() };
    let disk = SimDisk::new(1);
    // One value that packs, and many that do not.
    let mut model = model(3);
    let content = Content { kind: ChangeKind::Put, value: Some(a_value(&[9; 5000])), touched: vec![], expires: 0 };
    model.insert((1, 1, b"large".to_vec(), Reverse(4)), content);
    write(&disk, 1, &sealed(8), &model).unwrap();
    // A later key reads what was sealed with an earlier one: the frame names it.
    for options in [sealed(8), sealed(9)] {
        let run = open(&disk, 1, &options).unwrap();
        run.verify(&mut |_| Ok(())).unwrap();
        assert_eq!(all(&run, None).unwrap(), model.iter().map(version_of).collect::<Vec<_>>());
    }
    assert!(matches!(open(&disk, 1, &options()), Err(Error::Corrupt { .. })));
    let content = disk.content(&path(1)).unwrap();
    assert!(!content.windows(8).any(|bytes| bytes == [5 ^ 3; 8]), "a value shows");
}
