//! Every bit, every length, every moved frame, every power cut: the right answer, or `Corrupt`.

use super::*;

const FILE: &str = "DATA/run-000001.run";

/// Every structure there is, in as few bytes as may be.
fn model() -> Model {
    let mut model = Model::new();
    let mut add = |branch, key: &[u8], version, kind: u8, value: &[u8], expires| {
        let kind = ChangeKind::from_u8(kind).unwrap();
        let touched = if kind == ChangeKind::Patch { b"touched".to_vec() } else { Vec::new() };
        let value = (kind != ChangeKind::Delete).then(|| a_value(value));
        model.insert((branch, 1, key.to_vec(), Reverse(version)), Content { kind, value, touched, expires });
    };
    for number in 0_u8..24 {
        add(0, &[b'k', number], u64::from(number) + 5, 1, &[number; 9], 0);
    }
    for version in 0..30 {
        add(0, b"many", 100 + version, 1 + (version % 5) as u8, &[version as u8; 12], version * 1000);
    }
    add(2, b"large", 3, 1, &[1, 2, 3, 4].repeat(20), 0);
    add(2, b"large", 2, 3, &[5, 9, 1, 4, 7, 2].repeat(10), 0);
    model
}

/// What a reader may be told of a run; the first error ends it.
fn answers(disk: &SimDisk) -> Result<Vec<Vec<Owned>>> {
    let run = open(disk, 1, &options())?;
    let mut answers = vec![all(&run, None)?];
    for (branch, reverse) in [(0, false), (0, true), (2, false), (2, true)] {
        answers.push(range(&run, branch, 1, &Range::default(), reverse, 120)?);
    }
    for (branch, keyspace, key, Reverse(version)) in model().into_keys().step_by(5) {
        answers.push(get(&run, branch, keyspace, &key, version)?.into_iter().collect());
    }
    answers.push(get(&run, 0, 1, b"absent", 9)?.into_iter().collect());
    answers.push(versions(&run, 0, 1, b"many", 120)?);
    Ok(answers)
}

fn names_the_file(error: &Error, size: usize) -> bool {
    matches!(error, Error::Corrupt { file, offset, .. } if file == FILE && *offset <= size as u64)
}

fn written(options: &RunOptions) -> (SimDisk, Vec<u8>) {
    let disk = SimDisk::new(1);
    write(&disk, 1, options, &model()).unwrap();
    let content = disk.content(FILE).unwrap();
    (disk, content)
}

/// Whether a reader gives only right answers, whatever single bit is wrong, and verification sees each.
fn every_bit_is_checked() -> bool {
    let (disk, content) = written(&options());
    let right = answers(&disk).unwrap();
    let mut seen = 0;
    for bit in 0..content.len() * 8 {
        let mut damaged = content.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        disk.replace(FILE, damaged);
        match answers(&disk) {
            Ok(found) if found == right => {}
            Ok(_) => return false,
            Err(error) if names_the_file(&error, content.len()) => {}
            Err(_) => return false,
        }
        match open(&disk, 1, &options()).and_then(|run| run.verify(&mut |_| Ok(()))) {
            Err(error) if names_the_file(&error, content.len()) => seen += 1,
            _ => return false,
        }
    }
    seen == content.len() * 8
}

#[test]
fn every_single_bit_is_checked() {
    assert!(every_bit_is_checked());
}

#[cfg(feature = "sabotage")]
#[test]
fn sabotage_t15_no_checksum_is_caught() {
    let caught = std::panic::catch_unwind(|| !crate::sabotage::with("T15", every_bit_is_checked));
    assert!(caught.unwrap_or(true));
}

#[test]
fn every_length_is_checked() {
    let (disk, content) = written(&options());
    for length in 0..content.len() {
        disk.replace(FILE, content[..length].to_vec());
        let error = open(&disk, 1, &options()).err().expect("a cut run does not open");
        assert!(names_the_file(&error, length), "{length}: {error}");
    }
    disk.replace(FILE, [&content[..], &[0]].concat());
    assert!(open(&disk, 1, &options()).is_err());
}

/// The frames of a run: where they begin, and how long they are.
fn frames(content: &[u8]) -> Vec<(usize, usize)> {
    let mut frames = Vec::new();
    let mut at = HEADER;
    while at < content.len() - TAIL {
        let length = frame::FrameHeader::decode(&content[at..]).unwrap().frame_bytes();
        frames.push((at, length));
        at += length;
    }
    frames
}

/// Whether a frame is missed where another one stands in its place: of the same file, of another run, of another database.
fn every_frame_knows_its_place() -> bool {
    let (disk, content) = written(&options());
    let right = answers(&disk).unwrap();
    let mut others = vec![content.clone()];
    // The same bytes but for the values, at another number and in another database.
    let mut changed = model();
    changed.values_mut().for_each(|content| {
        content.value.iter_mut().flatten().for_each(|byte| *byte = byte.wrapping_add(1));
    });
    let plain = RunOptions { compress: false, ..options() };
    for (number, database_id) in [(2, DATABASE), (1, [9; 16])] {
        let options = RunOptions { database_id, ..plain.clone() };
        let disk = SimDisk::new(1);
        write(&disk, number, &options, &changed).unwrap();
        others.push(disk.content(&path(number)).unwrap());
    }
    write_plain_over(&disk, &plain);
    let content_plain = disk.content(FILE).unwrap();
    others.push(content_plain.clone());
    let is_right = |disk: &SimDisk| match answers(disk) {
        Ok(found) => found == right,
        Err(error) => names_the_file(&error, usize::MAX),
    };
    for content in [&content, &content_plain] {
        for (at, length) in frames(content) {
            for other in &others {
                for (from, other_length) in frames(other) {
                    if other_length == length {
                        let mut moved = content.clone();
                        moved[at..at + length].copy_from_slice(&other[from..from + length]);
                        disk.replace(FILE, moved);
                        if !is_right(&disk) {
                            return false;
                        }
                    }
                }
            }
        }
    }
    true
}

fn write_plain_over(disk: &SimDisk, plain: &RunOptions) {
    disk.forget(FILE);
    write(disk, 1, plain, &model()).unwrap();
}

#[test]
fn a_frame_at_another_place_is_refused() {
    assert!(every_frame_knows_its_place());
}

#[cfg(feature = "sabotage")]
#[test]
fn sabotage_t17_no_place_in_the_checksum_is_caught() {
    assert!(!crate::sabotage::with("T17", every_frame_knows_its_place));
}

#[test]
fn another_run_under_this_name_and_a_newer_format_are_told() {
    let (disk, content) = written(&options());
    disk.replace(&path(2), content.clone());
    assert!(matches!(open(&disk, 2, &options()), Err(Error::Corrupt { offset: 32, .. })));
    let stranger = RunOptions { database_id: [1; 16], ..options() };
    assert!(matches!(open(&disk, 1, &stranger), Err(Error::Corrupt { offset: 16, .. })));
    assert!(matches!(open(&disk, 3, &options()), Err(Error::Corrupt { offset: 0, .. })));
    let mut newer = content;
    newer[8] = 2;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&newer[..12]), &newer[16..HEADER]);
    newer[12..16].copy_from_slice(&checksum.to_le_bytes());
    disk.replace(FILE, newer);
    assert!(matches!(open(&disk, 1, &options()), Err(Error::TooNew { found: 2, known: 1, .. })));
}

// --- power cuts ----------------------------------------------------------------------------------

/// Whether a run that was finished is whole after a power cut at any call, and one that was not is no run.
fn a_name_means_a_whole_run() -> bool {
    let disk = SimDisk::new(1);
    write(&disk, 1, &options(), &model()).unwrap();
    let rows: Vec<Owned> = model().iter().map(version_of).collect();
    let finished = disk.journal_len();
    (0..=finished).all(|count| {
        (0..30).all(|seed| {
            let image = disk.image_at(count, seed);
            match image.content(FILE) {
                Some(_) => open(&image, 1, &options()).and_then(|run| all(&run, None)) == Ok(rows.clone()),
                None => count < finished,
            }
        })
    })
}

#[test]
fn a_power_cut_leaves_a_whole_run_or_none() {
    assert!(a_name_means_a_whole_run());
}

#[cfg(feature = "sabotage")]
#[test]
fn sabotage_t19_named_before_it_is_synced_is_caught() {
    assert!(!crate::sabotage::with("T19", a_name_means_a_whole_run));
}

// --- bytes that somebody made up -----------------------------------------------------------------

/// Change bytes of a payload and make the frame's checksum right again.
fn with_payload(content: &[u8], at: usize, length: usize, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let framing = RunOptions { compress: false, ..options() }.framing(1, KeyId::NONE).unwrap();
    let kind = FrameKind::from_u8(content[at]).unwrap();
    let payload = framing.open(kind, at as u64, content[at..at + length].to_vec()).unwrap();
    let mut bytes = payload.bytes().to_vec();
    change(&mut bytes);
    let mut frame = Vec::new();
    framing.append(kind, at as u64, &bytes, &mut frame).unwrap();
    let mut made_up = content.to_vec();
    made_up.splice(at..at + length, frame);
    made_up
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Checksums are right and the bytes are not: a reader comes to an end, and what passes verification is a run.
    #[test]
    fn made_up_bytes_end_in_an_answer(
        frame in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (disk, content) = written(&RunOptions { compress: false, ..options() });
        let frames = frames(&content);
        let (at, length) = frames[frame.index(frames.len())];
        let made_up = with_payload(&content, at, length, |bytes| {
            for (index, byte) in &changes {
                let at = index.index(bytes.len());
                bytes[at] = *byte;
            }
        });
        disk.replace(FILE, made_up);
        let _ = answers(&disk);
        if let Ok(run) = open(&disk, 1, &options())
            && run.verify(&mut |_| Ok(())).is_ok()
        {
            let rows: Model = all(&run, None).unwrap().into_iter().collect();
            super::model::check(&run, &rows, &[]);
        }
    }
}
