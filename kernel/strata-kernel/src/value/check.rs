//! The gate for bytes from outside. What has passed here is a value, and the rest of the kernel
//! relies on it.

use super::read::{Reader, Token};
use super::{MAX_DEPTH, MAX_VALUE_BYTES, shape};
use crate::error::{Error, Result};

/// Whether `bytes` are exactly one value within the limits: known kinds only, strings UTF-8, integers
/// of 64 bits with a sign, map keys strings and each once, at most `MAX_DEPTH` deep.
///
/// Encodings need not be the smallest. Floats may be NaN or infinite: ask `finite`.
pub fn check(bytes: &[u8]) -> Result<()> {
    check_size(bytes.len())?;
    let mut reader = Reader::new(bytes);
    check_value(&mut reader, 0, &mut Vec::new())?;
    match reader.remaining() {
        0 => Ok(()),
        left => Err(Error::InvalidInput(format!("{left} bytes follow the value"))),
    }
}

/// Whether no float in `bytes` is NaN or infinite, as JSON wants it. False where they are no value.
pub fn finite(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    while reader.remaining() > 0 {
        match reader.piece() {
            Ok(Token::Float(float)) if !float.is_finite() => return false,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    true
}

pub(super) fn check_size(size_bytes: usize) -> Result<()> {
    if size_bytes <= MAX_VALUE_BYTES {
        return Ok(());
    }
    Err(Error::LimitExceeded { what: "value size", limit: MAX_VALUE_BYTES as u64, actual: size_bytes as u64 })
}

pub(super) fn check_depth(depth: usize) -> Result<()> {
    if depth <= MAX_DEPTH {
        return Ok(());
    }
    Err(Error::LimitExceeded { what: "value depth", limit: MAX_DEPTH as u64, actual: depth as u64 })
}

/// How deep `bytes` are, or an error where that is too deep.
pub(super) fn depth(bytes: &[u8]) -> Result<usize> {
    let depth = shape::depth(bytes, MAX_DEPTH)?;
    check_depth(depth).map(|()| depth)
}

/// `keys` is one stack for all levels, so that a value of many small maps allocates once.
#[inline]
fn check_value<'a>(reader: &mut Reader<'a>, depth: usize, keys: &mut Vec<&'a [u8]>) -> Result<()> {
    match reader.piece()? {
        Token::String(text) => check_text(text),
        Token::List(count) => check_inside(reader, count, false, depth + 1, keys),
        Token::Map(count) => check_inside(reader, count, true, depth + 1, keys),
        _ => Ok(()),
    }
}

fn check_inside<'a>(
    reader: &mut Reader<'a>,
    count: usize,
    is_map: bool,
    depth: usize,
    keys: &mut Vec<&'a [u8]>,
) -> Result<()> {
    check_depth(depth)?;
    let base = keys.len();
    for _ in 0..count {
        if is_map {
            let key = reader.key_raw()?;
            check_text(key)?;
            keys.push(key);
        }
        check_value(reader, depth, keys)?;
    }
    check_distinct(&mut keys[base..])?;
    keys.truncate(base);
    Ok(())
}

#[inline]
fn check_text(text: &[u8]) -> Result<()> {
    // Most text is ASCII, and that is seen faster.
    if text.is_ascii() || std::str::from_utf8(text).is_ok() {
        return Ok(());
    }
    Err(Error::InvalidInput(format!("the string {:?} is not UTF-8", String::from_utf8_lossy(text))))
}

/// A key given twice would be one value to a reader that takes the first and another to one that
/// takes the last.
fn check_distinct(keys: &mut [&[u8]]) -> Result<()> {
    if keys.is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            let key = String::from_utf8_lossy(pair[0]);
            Err(Error::InvalidInput(format!("the key {key:?} stands twice in one map")))
        }
        None => Ok(()),
    }
}
