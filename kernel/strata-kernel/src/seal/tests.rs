use proptest::prelude::*;

use super::*;

const DATABASE: [u8; 16] = *b"the one database";

fn key(seed: u8) -> Key {
    let bytes: Vec<u8> = (0..32).map(|at| seed.wrapping_mul(31).wrapping_add(at)).collect();
    Key::new(&bytes).expect("as good as random")
}

fn ring(seed: u8) -> Keyring {
    Keyring::new(DATABASE, key(seed), [])
}

fn file(kind: Kind, number: u64) -> FileCipher {
    ring(1).cipher(kind, number, key(1).id()).expect("it has the key")
}

/// Worked out from format.md with other means (Python's hashlib, hmac and cryptography), so that the bytes are those it
/// tells, and stay so.
#[test]
fn the_bytes_are_what_they_were() {
    let mut sealed = Vec::new();
    file(Kind::Log, 7).seal(64, b"header", b"the quick brown fox", &mut sealed);
    let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(key(1).id().to_string(), "fbd179a8ebb99065");
    let expected = "690698bb25e3bfabdebf0916bf351eeca1b33136ad6106c8b80015324682be9a6afdc7edf36df127d16e406cc86077";
    assert_eq!(hex, expected);
}

#[test]
fn a_key_is_never_shown_and_its_id_is() {
    let (key, ring) = (key(200), ring(200));
    let shown = format!("{key:?} {ring:?} {:?}", ring.cipher(Kind::Run, 1, key.id()).unwrap());
    assert!(shown.contains(&key.id().to_string()));
    for at in 0..30 {
        let part: String = key.bytes[at..at + 2].iter().map(|byte| format!("{byte:02x}")).collect();
        let decimal = format!("{}, {}", key.bytes[at], key.bytes[at + 1]);
        assert!(!shown.contains(&decimal) && !shown.replace(&key.id().to_string(), "").contains(&part), "{shown}");
    }
}

#[test]
fn what_is_no_key_is_refused() {
    for bytes in [&[][..], &[1; 31], &[1; 33], &[0; 32], &[7; 32]] {
        assert!(matches!(Key::new(bytes), Err(Error::InvalidInput(_))), "{bytes:?}");
    }
}

#[test]
fn another_key_is_named_as_such() {
    let needed = key(9).id();
    let given = |error| match error {
        Error::NeedsKey { needed: named, given } if named == needed => given,
        other => panic!("{other:?}"),
    };
    assert_eq!(given(cipher(None, Kind::Run, 1, needed).unwrap_err()), []);
    let ring = Keyring::new(DATABASE, key(1), [key(2), key(1)]);
    assert_eq!(given(cipher(Some(&ring), Kind::Run, 1, needed).unwrap_err()), [key(1).id(), key(2).id()]);
    assert!(cipher(Some(&ring), Kind::Run, 1, key(2).id()).unwrap().is_some());
    // What is not sealed is taken only where that was said.
    assert!(cipher(None, Kind::Run, 1, KeyId::NONE).unwrap().is_none());
    assert!(matches!(cipher(Some(&ring), Kind::Run, 1, KeyId::NONE), Err(Error::InvalidInput(_))));
    assert!(cipher(Some(&ring.plain_too()), Kind::Run, 1, KeyId::NONE).unwrap().is_none());
}

/// Each place that differs from the one it was sealed for, in one thing.
pub fn moved_messages_do_not_open() {
    let message = b"eight or more bytes";
    let kinds = [Kind::Log, Kind::Run, Kind::Manifest, Kind::Value];
    let places = kinds.into_iter().flat_map(|kind| (0..5).flat_map(move |at| [(kind, at, 3), (kind, 3, at)]));
    let mut sealed = Vec::new();
    for (kind, number, offset) in places {
        sealed.push(((kind, number, offset), Vec::new()));
        let last = &mut sealed.last_mut().expect("just pushed").1;
        file(kind, number).seal(offset, b"", message, last);
    }
    for (from, bytes) in &sealed {
        for (to, _) in &sealed {
            let mut out = Vec::new();
            let opened = file(to.0, to.1).open(to.2, b"", bytes, &mut out);
            assert_eq!(opened.is_ok(), from == to, "from {from:?} to {to:?}");
            assert_eq!(out, if from == to { &message[..] } else { &[] });
        }
        // Another database with the same key, and the same place with another key or extra.
        let elsewhere = Keyring::new(*b"another database", key(1), []);
        let place = SealPlace { kind: from.0, file: from.1, offset: from.2 };
        let mut out = Vec::new();
        assert!(elsewhere.open(place, key(1).id(), bytes, &mut out).unwrap().is_err());
        assert!(ring(2).open(place, key(2).id(), bytes, &mut out).unwrap().is_err());
        assert!(file(from.0, from.1).open(from.2, b"more", bytes, &mut out).is_err());
        assert!(ring(1).open(place, key(1).id(), bytes, &mut out).unwrap().is_ok());
    }
}

#[test]
fn a5_moved_messages_do_not_open() {
    moved_messages_do_not_open();
}

/// No two different messages of a file share a nonce, wherever they stand and however often it is written again.
pub fn nonces_are_unique(count: u64) {
    let cipher = file(Kind::Log, 1);
    let mut nonces: Vec<[u8; NONCE_BYTES]> = Vec::new();
    for number in 0..count {
        // Three messages for each place, as after two crashes.
        let mut message = *b"a message of some bytes ........";
        message[24..].copy_from_slice(&(number % 3).to_le_bytes());
        nonces.push(cipher.seal_in_place(number / 3, b"", &mut message).nonce);
    }
    nonces.sort_unstable();
    assert!(nonces.windows(2).all(|pair| pair[0] != pair[1]), "a nonce was used twice");
}

#[test]
fn a5_nonces_are_unique() {
    nonces_are_unique(1_000_000);
}

#[test]
fn every_bit_of_a_sealed_message_counts() {
    let cipher = file(Kind::Value, 2);
    for length in [0, 1, 15, 16, 17, 40] {
        let mut sealed = Vec::new();
        cipher.seal(5, b"extra", &vec![7; length], &mut sealed);
        assert_eq!(sealed.len(), length + SEAL_BYTES);
        for bit in 0..sealed.len() * 8 {
            sealed[bit / 8] ^= 1 << (bit % 8);
            assert!(cipher.open(5, b"extra", &sealed, &mut Vec::new()).is_err(), "bit {bit} of {length}");
            sealed[bit / 8] ^= 1 << (bit % 8);
        }
        for short in 0..sealed.len() {
            assert!(cipher.open(5, b"extra", &sealed[..short], &mut Vec::new()).is_err());
        }
    }
}

proptest! {
    #[test]
    fn what_was_sealed_opens(
        message: Vec<u8>, before: Vec<u8>, file: u64, offset: u64,
        extra in prop::collection::vec(any::<u8>(), 0..MOST_EXTRA),
    ) {
        let cipher = ring(1).cipher(Kind::Run, file, key(1).id()).unwrap();
        let (mut sealed, mut opened) = (before.clone(), before.clone());
        cipher.seal(offset, &extra, &message, &mut sealed);
        prop_assert_eq!(&sealed[..before.len()], &before[..]);
        prop_assert_eq!(cipher.open(offset, &extra, &sealed[before.len()..], &mut opened), Ok(()));
        prop_assert_eq!(&opened[before.len()..], &message[..]);
    }
}

#[cfg(feature = "sabotage")]
mod sabotaged {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn caught(bug: &str, row: impl Fn()) {
        row();
        let outcome = catch_unwind(AssertUnwindSafe(|| sabotage::with(bug, &row)));
        assert!(outcome.is_err(), "{bug} was not caught");
    }

    #[test]
    fn t55_the_place_is_not_authenticated() {
        caught("T55", moved_messages_do_not_open);
    }

    #[test]
    fn t56_a_nonce_comes_again_after_a_crash() {
        caught("T56", || nonces_are_unique(1_000));
    }
}
