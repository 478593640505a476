//! Values, keys and bytes as short texts.

use std::fmt::Write;

use crate::keyspaces;
use crate::payload::Number;
use crate::seal::KeyId;
use crate::value::path::Path;
use crate::value::read::{Reader, Token};

/// About so many characters of a value are shown.
const VALUE_CHARS: usize = 100;
const KEY_BYTES: usize = 80;
const BYTES: usize = 24;

/// Why a value was not shown to its end.
enum Stop {
    Long,
    NoValue,
}

/// A value, much as JSON has it, cut short.
pub fn value(bytes: &[u8]) -> String {
    let mut out = String::new();
    match put(&mut Reader::new(bytes), &mut out) {
        Ok(()) => {}
        Err(Stop::Long) => out.push('…'),
        Err(Stop::NoValue) => out.push_str("<no value>"),
    }
    out
}

fn put(reader: &mut Reader<'_>, out: &mut String) -> Result<(), Stop> {
    // Each level puts down at least one character, so this also bounds the depth.
    if out.len() > VALUE_CHARS {
        return Err(Stop::Long);
    }
    match reader.next_raw().map_err(|_| Stop::NoValue)? {
        Token::Null => out.push_str("null"),
        Token::Bool(bool) => out.push_str(if bool { "true" } else { "false" }),
        Token::Int(int) => put_display(out, int),
        Token::Float(float) => put_debug(out, float),
        Token::String(text) => out.push_str(&quoted(text, VALUE_CHARS)),
        Token::Bytes(bytes) => out.push_str(&hex(bytes)),
        Token::List(count) => {
            out.push('[');
            for number in 0..count {
                out.push_str(if number > 0 { ", " } else { "" });
                put(reader, out)?;
            }
            out.push(']');
        }
        Token::Map(count) => {
            out.push('{');
            for number in 0..count {
                out.push_str(if number > 0 { ", " } else { "" });
                put(reader, out)?;
                out.push_str(": ");
                put(reader, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn put_display(out: &mut String, value: impl std::fmt::Display) {
    let _ = write!(out, "{value}");
}

fn put_debug(out: &mut String, value: impl std::fmt::Debug) {
    let _ = write!(out, "{value:?}");
}

/// Text in quotes, cut short.
pub fn quoted(text: &[u8], most: usize) -> String {
    let cut = &text[..text.len().min(most)];
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{:?}{more}", String::from_utf8_lossy(cut).trim_end_matches('\u{fffd}'))
}

/// The id of what a file is sealed with, if it is.
pub fn key_id(key: KeyId) -> Option<String> {
    (!key.is_none()).then(|| key.to_string())
}

/// A key: text in quotes, or bytes with those that are no text written out.
pub fn key(key: &[u8]) -> String {
    let is_text = std::str::from_utf8(key).is_ok_and(|text| !text.chars().any(char::is_control));
    if is_text {
        return quoted(key, KEY_BYTES);
    }
    let cut = &key[..key.len().min(KEY_BYTES)];
    format!("b\"{}\"{}", cut.escape_ascii(), if cut.len() < key.len() { "…" } else { "" })
}

/// Bytes in hexadecimal digits, cut short.
pub fn hex(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(BYTES)];
    let mut out = "h'".to_owned();
    cut.iter().for_each(|byte| put_hex(&mut out, *byte));
    out.push('\'');
    out.push_str(if cut.len() < bytes.len() { "…" } else { "" });
    out
}

/// All of some bytes in hexadecimal digits: ids and hashes.
pub fn id(bytes: &[u8; 16]) -> String {
    let mut out = String::new();
    bytes.iter().for_each(|byte| put_hex(&mut out, *byte));
    out
}

fn put_hex(out: &mut String, byte: u8) {
    let _ = write!(out, "{byte:02x}");
}

pub fn number(number: Number) -> String {
    match number {
        Number::Int(int) => format!("{int:+}"),
        Number::Float(float) => format!("{float:+?}"),
    }
}

pub fn path(path: &Path) -> String {
    let text = path.render();
    if text.len() <= KEY_BYTES { text } else { text.chars().take(KEY_BYTES).chain(['…']).collect() }
}

/// A keyspace: its number, or what a reserved one is for.
pub fn keyspace(number: u32) -> String {
    match number {
        keyspaces::CATALOGUE => "catalogue".to_owned(),
        keyspaces::COMMITS => "commits".to_owned(),
        keyspaces::NOTES => "notes".to_owned(),
        keyspaces::IDEMPOTENCY => "results".to_owned(),
        other => other.to_string(),
    }
}

pub fn codec(codec: u8) -> String {
    match codec {
        0 => "none".to_owned(),
        1 => "lz4".to_owned(),
        other => format!("number {other}"),
    }
}
