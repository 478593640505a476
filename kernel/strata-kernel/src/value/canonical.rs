//! One byte string per value, and equality of values however they are written.
//!
//! Canonical: map keys in the order of their UTF-8 bytes on every level, every integer and header in
//! its smallest encoding, floats of 64 bits. Hash chains are made over it, in every language.
//!
//! Both functions want checked values (`check`). Of anything else they make no sense and no panic.

use std::borrow::Cow;

use super::read::{Reader, Token};
use super::{check, write};
use crate::error::Result;

/// The canonical bytes of a value: `bytes` themselves where they are canonical, or no value at all.
pub fn canonical(bytes: &[u8]) -> Cow<'_, [u8]> {
    if is_canonical(&mut Reader::new(bytes), bytes, 0).unwrap_or(true) {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    match rewrite(&mut Reader::new(bytes), bytes, &mut out, 0) {
        Ok(()) => Cow::Owned(out),
        Err(_) => Cow::Borrowed(bytes),
    }
}

/// Whether two encoded values are the same value. The order of map keys and the encoding make no
/// difference; kinds do (1, 1.0 and true all differ), and so do the bits of a float, but NaN is NaN.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a == b || same(&mut Reader::new(a), a, &mut Reader::new(b), b, 0).unwrap_or(false)
}

fn is_canonical(reader: &mut Reader<'_>, bytes: &[u8], depth: usize) -> Result<bool> {
    let start = reader.position();
    let token = reader.piece()?;
    if !is_smallest(&token, bytes[start], reader.position() - start) {
        return Ok(false);
    }
    match token {
        Token::List(count) => {
            check::check_depth(depth + 1)?;
            all(count, || is_canonical(reader, bytes, depth + 1))
        }
        Token::Map(count) => {
            check::check_depth(depth + 1)?;
            let mut newest = None;
            all(count, || {
                let start = reader.position();
                let key = reader.key_raw()?;
                let follows = newest.is_none_or(|newest| newest < key);
                newest = Some(key);
                let smallest = reader.position() - start - key.len() == string_header(key.len());
                Ok(follows && smallest && is_canonical(reader, bytes, depth + 1)?)
            })
        }
        _ => Ok(true),
    }
}

/// Whether `token` is written as we write it, told from its first byte and its size.
#[inline]
fn is_smallest(token: &Token<'_, &[u8]>, first: u8, size: usize) -> bool {
    match token {
        Token::Null | Token::Bool(_) => true,
        // Signed and unsigned forms are of one size, so here the size does not tell.
        Token::Int(0x80..) if matches!(first, 0xd0..=0xd3) => false,
        Token::Int(value) => size == int_size(*value),
        Token::Float(_) => size == 9,
        Token::String(text) => size - text.len() == string_header(text.len()),
        Token::Bytes(data) => size - data.len() == length_size(data.len()),
        Token::List(count) | Token::Map(count) => size == if *count < 16 { 1 } else { length_size(*count).max(3) },
    }
}

fn string_header(length: usize) -> usize {
    if length < 32 { 1 } else { length_size(length) }
}

fn int_size(value: i64) -> usize {
    match value {
        -32..=0x7f => 1,
        -0x80..=0xff => 2,
        -0x8000..=0xffff => 3,
        -0x8000_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// The tag and a length of 1, 2 or 4 bytes.
fn length_size(length: usize) -> usize {
    match length {
        0..0x100 => 2,
        0x100..0x1_0000 => 3,
        _ => 5,
    }
}

fn rewrite(reader: &mut Reader<'_>, bytes: &[u8], out: &mut Vec<u8>, depth: usize) -> Result<()> {
    check::check_depth(depth)?;
    match reader.next()? {
        Token::Null => write::null(out),
        Token::Bool(value) => write::bool(out, value),
        Token::Int(value) => write::int(out, value),
        Token::Float(value) => write::float(out, value),
        Token::String(value) => write::string(out, value),
        Token::Bytes(value) => write::bytes(out, value),
        Token::List(count) => {
            write::list_header(out, count);
            for _ in 0..count {
                rewrite(reader, bytes, out, depth + 1)?;
            }
        }
        Token::Map(count) => {
            write::map_header(out, count);
            for (key, at) in sorted(reader, count)? {
                write::string(out, key);
                rewrite(&mut Reader::starting_at(bytes, at), bytes, out, depth + 1)?;
            }
        }
    }
    Ok(())
}

fn same(a: &mut Reader<'_>, all_a: &[u8], b: &mut Reader<'_>, all_b: &[u8], depth: usize) -> Result<bool> {
    check::check_depth(depth)?;
    match (a.next()?, b.next()?) {
        (Token::Float(a), Token::Float(b)) => Ok(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()),
        (Token::List(count), Token::List(other)) => {
            Ok(count == other && all(count, || same(a, all_a, b, all_b, depth + 1))?)
        }
        (Token::Map(count), Token::Map(other)) => {
            let (sorted_a, sorted_b) = (sorted(a, count)?, sorted(b, other)?);
            let mut pairs = sorted_a.into_iter().zip(sorted_b);
            let equal = all(count.min(other), || {
                let ((key_a, at_a), (key_b, at_b)) = pairs.next().expect("as many pairs as were counted");
                let (mut a, mut b) = (Reader::starting_at(all_a, at_a), Reader::starting_at(all_b, at_b));
                Ok(key_a == key_b && same(&mut a, all_a, &mut b, all_b, depth + 1)?)
            });
            Ok(count == other && equal?)
        }
        (a, b) => Ok(a == b),
    }
}

/// The keys of a map and where their values begin, in the order of the keys. Passes the whole map.
fn sorted<'a>(reader: &mut Reader<'a>, count: usize) -> Result<Vec<(&'a str, usize)>> {
    let mut pairs = Vec::with_capacity(count); // `Reader` has held the count against the bytes left.
    for _ in 0..count {
        pairs.push((reader.key()?, reader.position()));
        reader.skip_value()?;
    }
    pairs.sort_unstable();
    Ok(pairs)
}

/// Whether `test` holds `count` times in a row; stops at the first time it does not.
fn all(count: usize, mut test: impl FnMut() -> Result<bool>) -> Result<bool> {
    for _ in 0..count {
        if !test()? {
            return Ok(false);
        }
    }
    Ok(true)
}
