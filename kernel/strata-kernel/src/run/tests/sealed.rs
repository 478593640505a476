//! Runs that are sealed: what opens, and what is told.

use super::faults::model;
use super::*;
use crate::run::frame::Framing;
use crate::seal::Key;

fn sealed(numbers: &[u8]) -> RunOptions {
    let key = |&number: &u8| Key::new(&(number..number + 32).collect::<Vec<u8>>()).unwrap();
    let keys = Keyring::new(DATABASE, key(&numbers[0]), numbers[1..].iter().map(key));
    RunOptions { keys: Some(Arc::new(keys)), ..options() }
}

/// With one value that packs, and many that do not.
fn some_rows() -> Model {
    let mut model = model(3);
    let content = Content { kind: ChangeKind::Put, value: Some(a_value(&[9; 5000])), touched: vec![], expires: 0 };
    model.insert((1, 1, b"large".to_vec(), Reverse(4)), content);
    model
}

#[test]
fn a_sealed_run_is_read_with_its_key_only() {
    let (disk, model) = (SimDisk::new(1), some_rows());
    write(&disk, 1, &sealed(&[8]), &model).unwrap();
    // A later key comes with the earlier ones.
    for options in [sealed(&[8]), sealed(&[9, 8])] {
        let run = open(&disk, 1, &options).unwrap();
        run.verify(&mut |_| Ok(())).unwrap();
        assert_eq!(all(&run, None).unwrap(), model.iter().map(version_of).collect::<Vec<_>>());
    }
    let needed = sealed(&[8]).keys.unwrap().current();
    for options in [options(), sealed(&[9])] {
        let given = options.keys.iter().flat_map(|keys| keys.ids()).collect();
        assert_eq!(open(&disk, 1, &options).map(|_| ()), Err(Error::NeedsKey { needed, given }));
    }
    let content = disk.content(&path(1)).unwrap();
    assert!(!content.windows(8).any(|bytes| bytes == [5 ^ 3; 8]), "a value shows");
}

/// What is not sealed is read only where that was asked for.
#[test]
fn a_plain_run_among_sealed_ones_is_refused() {
    let disk = SimDisk::new(1);
    write(&disk, 1, &options(), &model(3)).unwrap();
    assert!(matches!(open(&disk, 1, &sealed(&[8])), Err(Error::InvalidInput(_))));
    let keys = Keyring::clone(&sealed(&[8]).keys.unwrap()).plain_too();
    let options = RunOptions { keys: Some(Arc::new(keys)), ..options() };
    open(&disk, 1, &options).unwrap().verify(&mut |_| Ok(())).unwrap();
}

/// Whoever can write to the disk makes any checksum right: it is the seal that binds a frame to its place and header.
#[test]
fn a_frame_that_was_changed_with_its_checksum_is_told() {
    let key = sealed(&[8]).keys.unwrap().current();
    let framing = |run| sealed(&[8]).framing(run, key).unwrap();
    let mut frame = Vec::new();
    framing(1).append(FrameKind::Index, 64, b"what it holds", &mut frame).unwrap();
    let opens = |framing: Framing, kind, offset, mut frame: Vec<u8>| {
        framing.make_checksum(&mut frame, offset);
        framing.open(kind, offset, frame).map(|payload| payload.bytes().to_vec())
    };
    assert_eq!(opens(framing(1), FrameKind::Index, 64, frame.clone()).unwrap(), b"what it holds");
    assert!(opens(framing(1), FrameKind::Index, 80, frame.clone()).is_err(), "at another place");
    assert!(opens(framing(2), FrameKind::Index, 64, frame.clone()).is_err(), "in another run");
    let mut other = frame.clone();
    other[0] = FrameKind::Filter as u8;
    assert!(opens(framing(1), FrameKind::Filter, 64, other).is_err(), "as another kind");
    for at in (0..frame.len()).filter(|at| !(16..20).contains(at)) {
        let mut changed = frame.clone();
        changed[at] ^= 1;
        assert!(opens(framing(1), FrameKind::Index, 64, changed).is_err(), "byte {at}");
    }
}

#[test]
fn every_bit_of_a_sealed_run_is_checked() {
    let disk = SimDisk::new(1);
    write(&disk, 1, &sealed(&[8]), &model(3)).unwrap();
    let whole = disk.content(&path(1)).unwrap();
    let rows = all(&open(&disk, 1, &sealed(&[8])).unwrap(), None).unwrap();
    let mut unseen = 0;
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        disk.replace(&path(1), damaged);
        let verified = open(&disk, 1, &sealed(&[8])).and_then(|run| run.verify(&mut |_| Ok(())));
        assert!(matches!(verified, Err(Error::Corrupt { .. })), "bit {bit}");
        // Those that do not verify look at no checksum beside a seal.
        match open(&disk, 1, &sealed(&[8])).and_then(|run| all(&run, None)) {
            Ok(read) => {
                unseen += 1;
                assert_eq!(read, rows, "bit {bit}");
            }
            Err(Error::Corrupt { .. }) => {}
            Err(other) => panic!("bit {bit}: {other:?}"),
        }
    }
    assert!(unseen > 0, "only `verify` is to look at the checksums");
}
