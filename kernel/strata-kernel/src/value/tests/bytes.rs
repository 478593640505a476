//! Encoding, reading and comparing, on valid bytes and on hostile ones.

use proptest::prelude::*;

use super::model::{self, Value};
use crate::error::Error;
use crate::value::*;

/// Everything that takes bytes from outside, for whoever looks for a panic.
fn poke(bytes: &[u8], path: &Path, ops: &[Op]) {
    let _ = (kind(bytes), skip(bytes), finite(bytes), check(bytes));
    let _ = canonical(bytes);
    let _ = equal(bytes, &[0x80]) | equal(bytes, canonical(bytes).as_ref());
    let _ = find(bytes, path);
    let _ = Path::decode(bytes);
    if let Ok(ops) = patch::decode(bytes) {
        let _ = patch::apply(None, &ops);
    }
    let _ = patch::apply(Some(bytes), ops);
    let _ = patch::apply(Some(&[0x81, 0xa1, b'a', 0x80]), &[Op::Merge { path: Path::root(), patch: bytes.to_vec() }]);
    let mut reader = Reader::new(bytes);
    while reader.next().is_ok() {}
}

/// Length of the first value as the reader sees it.
fn read_length(bytes: &[u8]) -> crate::error::Result<usize> {
    let (mut reader, mut pending) = (Reader::new(bytes), 1usize);
    while pending > 0 {
        pending -= 1;
        match reader.next()? {
            Token::List(count) => pending += count,
            Token::Map(count) => pending += 2 * count,
            _ => {}
        }
    }
    Ok(reader.position())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn values_round_trip(value in model::any_value()) {
        let bytes = value.encode();
        check(&bytes).unwrap();
        prop_assert_eq!(Value::decode(&bytes), value);
        prop_assert_eq!(skip(&bytes).unwrap(), bytes.len());
        prop_assert_eq!(read_length(&bytes).unwrap(), bytes.len());
    }

    #[test]
    fn odd_encodings_are_the_same_value(value in model::any_value(), dice: u64) {
        let (plain, mut odd) = (value.encode(), Vec::new());
        value.encode_oddly(&mut { dice }, &mut odd);
        check(&odd).unwrap();
        prop_assert_eq!(Value::decode(&odd), value);
        prop_assert_eq!(skip(&odd).unwrap(), odd.len());
        prop_assert!(equal(&plain, &odd));
        // The model holds its keys sorted and `write` is the smallest: that is canonical.
        prop_assert_eq!(canonical(&odd), plain.as_slice());
        prop_assert!(matches!(canonical(&plain), std::borrow::Cow::Borrowed(_)));
    }

    #[test]
    fn equality_is_that_of_the_model(a in model::small_value(), b in model::small_value()) {
        prop_assert_eq!(equal(&a.encode(), &b.encode()), a == b);
        prop_assert_eq!(canonical(&a.encode()) == canonical(&b.encode()), a == b);
    }

    #[test]
    fn find_equals_model(value in model::small_value(), path in model::path()) {
        let bytes = value.encode();
        let found = find(&bytes, &path).map(|range| Value::decode(&bytes[range]));
        prop_assert_eq!(found.as_ref(), value.get(&path.0));
    }

    #[test]
    fn paths_and_ops_round_trip(ops in proptest::collection::vec(model::op(), 0..20)) {
        let mut bytes = Vec::new();
        patch::encode(&ops, &mut bytes);
        prop_assert_eq!(patch::decode(&bytes).unwrap(), ops.clone());
        bytes.push(0xc0);
        prop_assert!(patch::decode(&bytes).is_err());
        for op in ops {
            let path = op.path();
            let mut bytes = Vec::new();
            path.encode(&mut bytes);
            let length = bytes.len();
            bytes.push(0xff);
            prop_assert_eq!(Path::decode(&bytes).unwrap(), (path.clone(), length));
        }
    }

    #[test]
    fn random_bytes_do_no_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        path in model::path(),
        op in model::op(),
    ) {
        poke(&bytes, &path, &[op]);
        if check(&bytes).is_ok() {
            prop_assert_eq!(skip(&bytes).unwrap(), bytes.len());
        }
        if let Ok(length) = read_length(&bytes) {
            prop_assert_eq!(skip(&bytes).unwrap(), length);
        }
    }

    #[test]
    fn mutated_bytes_do_no_harm(
        value in model::small_value(),
        ops in proptest::collection::vec(model::op(), 1..4),
        path in model::path(),
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut: prop::sample::Index,
    ) {
        let mut log = Vec::new();
        patch::encode(&ops, &mut log);
        for mut bytes in [value.encode(), log] {
            for (at, byte) in &hits {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            poke(&bytes, &path, &ops);
            poke(&bytes[..cut.index(bytes.len())], &path, &ops);
            if let (Ok(length), Ok(skipped)) = (read_length(&bytes), skip(&bytes)) {
                prop_assert_eq!(length, skipped);
            }
        }
    }

    #[test]
    fn overlap_is_symmetric_and_reflexive(a in model::path(), b in model::path()) {
        prop_assert_eq!(overlaps(&a, &b), overlaps(&b, &a));
        prop_assert!(overlaps(&a, &a) && overlaps(&a, &Path::root()));
    }
}

fn written(write: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

#[test]
fn integers_take_their_smallest_form() {
    let sizes = [
        (0, 1),
        (127, 1),
        (128, 2),
        (255, 2),
        (256, 3),
        (65_535, 3),
        (65_536, 5),
        (0xffff_ffff, 5),
        (0x1_0000_0000, 9),
        (i64::MAX, 9),
        (-1, 1),
        (-32, 1),
        (-33, 2),
        (-128, 2),
        (-129, 3),
        (-32_768, 3),
        (-32_769, 5),
        (-0x8000_0000, 5),
        (-0x8000_0001, 9),
        (i64::MIN, 9),
    ];
    for (value, size) in sizes {
        let bytes = written(|out| write::int(out, value));
        assert_eq!((bytes.len(), Reader::new(&bytes).next()), (size, Ok(Token::Int(value))), "{value}");
        assert!(matches!(canonical(&bytes), std::borrow::Cow::Borrowed(_)), "{value}");
    }
}

#[test]
fn a_canonical_int_is_unsigned_where_it_is_not_negative() {
    for signed in [vec![0xd3, 0, 0, 1, 0, 0, 0, 0, 0], vec![0xd1, 0x01, 0x2c], vec![0xd0, 5]] {
        let Ok(Token::Int(value)) = Reader::new(&signed).next() else { panic!("no int") };
        assert_eq!(canonical(&signed), written(|out| write::int(out, value)));
    }
}

#[test]
fn floats_keep_their_bits() {
    for bits in [(-0.0f64).to_bits(), 0x7ff0_0000_0000_0001, 0xfff8_dead_beef_0001, f64::MIN_POSITIVE.to_bits()] {
        let bytes = written(|out| write::float(out, f64::from_bits(bits)));
        let Ok(Token::Float(back)) = Reader::new(&bytes).next() else { panic!("no float") };
        assert_eq!(back.to_bits(), bits);
    }
}

#[test]
fn narrow_floats_widen() {
    for (bits, wide) in [(0x3fc0_0000u32, 1.5f64.to_bits()), (0xffa0_0001, 0xfff4_0000_2000_0000)] {
        let mut bytes = vec![0xca];
        bytes.extend_from_slice(&bits.to_be_bytes());
        let Ok(Token::Float(float)) = Reader::new(&bytes).next() else { panic!("no float") };
        assert_eq!(float.to_bits(), wide);
        assert_eq!(canonical(&bytes).len(), 9);
    }
}

#[test]
fn kinds_are_told_apart_by_equality() {
    let one = written(|out| write::int(out, 1));
    let others = [
        written(|out| write::float(out, 1.0)),
        written(|out| write::bool(out, true)),
        written(|out| write::string(out, "1")),
    ];
    assert!(others.iter().all(|other| !equal(&one, other)));
    let float = |value: f64| written(|out| write::float(out, value));
    assert!(!equal(&float(0.0), &float(-0.0)));
    assert!(equal(&float(f64::NAN), &float(f64::from_bits(0xfff8_0000_0000_0007))));
    assert!(!equal(&written(|out| write::string(out, "a")), &written(|out| write::bytes(out, b"a"))));
}

#[test]
fn every_first_byte_has_a_kind_or_none() {
    for first in 0..=255u8 {
        let mut bytes = vec![first];
        bytes.resize(8 + 256, 0);
        let token = Reader::new(&bytes).next();
        assert_eq!(kind(&bytes).is_ok(), token.is_ok(), "{first:#x}");
        assert_eq!(skip(&bytes).ok(), read_length(&bytes).ok(), "{first:#x}");
    }
}

#[test]
fn check_refuses_what_is_no_value() {
    let bad: [&[u8]; 12] = [
        b"",
        &[0xc1],
        &[0xd4, 1, 1],
        &[0xc7, 1, 1, 1],
        &[0xc0, 0xc0],
        &[0xa2, b'a'],
        &[0xa1, 0xff],
        &[0x81, 0x01, 0x01],
        &[0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0],
        &[0xdd, 0xff, 0xff, 0xff, 0xff],
        &[0x82, 0xa1, b'a', 1, 0xa1, b'a', 2],
        &[0x82, 0xa1, b'b', 1, 0xd9, 1, b'b', 2],
    ];
    for bytes in bad {
        assert!(matches!(check(bytes), Err(Error::InvalidInput(_))), "{bytes:?}");
    }
}

#[test]
fn check_draws_the_line_at_the_limits() {
    let nested = |depth| {
        let mut bytes = vec![0x91; depth];
        bytes.push(0xc0);
        bytes
    };
    assert_eq!(check(&nested(MAX_DEPTH)), Ok(()));
    let refusal = check(&nested(MAX_DEPTH + 1));
    assert_eq!(refusal, Err(Error::LimitExceeded { what: "value depth", limit: 128, actual: 129 }));
    let largest = written(|out| write::bytes(out, &vec![0; MAX_VALUE_BYTES - 5]));
    assert_eq!(check(&largest), Ok(()));
    let larger = written(|out| write::bytes(out, &vec![0; MAX_VALUE_BYTES - 4]));
    assert!(matches!(check(&larger), Err(Error::LimitExceeded { what: "value size", .. })));
}

/// A million announced levels and elements cost neither stack nor memory.
#[test]
fn deep_and_wide_lies_are_harmless() {
    for byte in [0x91, 0x81, 0xdd, 0xdf, 0xff] {
        let bytes = vec![byte; 1 << 20];
        poke(&bytes, &Path(vec![Step::Index(0), Step::Index(0)]), &[Op::Delete { path: Path(vec![Step::Index(-1)]) }]);
    }
}

#[test]
fn finite_finds_what_json_cannot_say() {
    let list = |float: f64| {
        written(|out| {
            write::list_header(out, 2);
            write::int(out, 1);
            write::float(out, float);
        })
    };
    assert!(finite(&list(1.5)));
    assert!(!finite(&list(f64::NAN)) && !finite(&list(f64::NEG_INFINITY)) && !finite(&[0xc1]));
}

#[test]
fn paths_render_as_people_write_them() {
    let key = |key: &str| Step::Key(key.into());
    let path = Path(vec![key("a"), key("odd key"), Step::Index(0), Step::Index(-1), Step::End]);
    assert_eq!(path.render(), "$.a['odd key'][0][-1][-]");
    assert_eq!(Path::root().render(), "$");
    let quoted = Path(vec![key("it's"), key("back\\slash"), key(""), key("0"), key("line\n"), key("é")]);
    assert_eq!(quoted.render(), r"$['it\'s']['back\\slash']['']['0']['line\u000a']['é']");
}

#[test]
fn find_counts_from_both_ends() {
    let list = Value::List(vec![Value::Int(1), Value::Int(2), Value::Int(3)]).encode();
    for (index, place) in [
        (0, Some(1..2)),
        (2, Some(3..4)),
        (-1, Some(3..4)),
        (-3, Some(1..2)),
        (3, None),
        (-4, None),
        (i64::MIN, None),
        (i64::MAX, None),
    ] {
        assert_eq!(find(&list, &Path(vec![Step::Index(index)])), place, "{index}");
    }
    assert_eq!(find(&list, &Path(vec![Step::End])), None);
}
