//! Reading values piece by piece: the hot path of turning bytes into Python objects.

use super::shape::{self, Malformed};
use crate::error::Result;

/// One piece of a value. After `List(n)` come n values, after `Map(n)` n times a string and a value.
///
/// Both counts have been held against the bytes that are left, so a reader may allocate by them.
/// `Text` is `&[u8]` where nobody has looked whether a string is UTF-8.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token<'a, Text = &'a str> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(Text),
    Bytes(&'a [u8]),
    List(usize),
    Map(usize),
}

/// A cursor over encoded values. After an error its position means nothing.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// A reader that begins at `position` of `bytes`.
    #[inline]
    pub fn starting_at(bytes: &'a [u8], position: usize) -> Self {
        Reader { bytes, at: position }
    }

    /// Offset of what is read next.
    #[inline]
    pub fn position(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// Read one piece. Accepts every MessagePack encoding of the eight kinds, not only the smallest.
    #[inline]
    #[allow(clippy::should_implement_trait)] // An iterator could not end with an error as simply.
    pub fn next(&mut self) -> Result<Token<'a>> {
        Ok(self.piece().and_then(|piece| self.decoded(piece))?)
    }

    /// Read one piece, and leave it to the caller to see whether a string is UTF-8. Python, for one,
    /// looks itself when it makes a string, and looking twice is half the time of reading one.
    #[inline]
    pub fn next_raw(&mut self) -> Result<Token<'a, &'a [u8]>> {
        Ok(self.piece()?)
    }

    /// Read a string, as map keys are; any other kind is an error.
    #[inline]
    pub fn key(&mut self) -> Result<&'a str> {
        let (key, end) = shape::key(self.bytes, self.at)?;
        self.at = end;
        Ok(self.utf8(key)?)
    }

    /// As `key`, without a look whether it is UTF-8.
    #[inline]
    pub fn key_raw(&mut self) -> Result<&'a [u8]> {
        let (key, end) = shape::key(self.bytes, self.at)?;
        self.at = end;
        Ok(key)
    }

    /// Pass one whole value, and return its bytes.
    #[inline]
    pub fn skip_value(&mut self) -> Result<&'a [u8]> {
        let end = shape::end_of(self.bytes, self.at)?;
        let value = &self.bytes[self.at..end];
        self.at = end;
        Ok(value)
    }

    #[inline]
    pub(super) fn piece(&mut self) -> Result<Token<'a, &'a [u8]>, Malformed> {
        let first = *self.bytes.get(self.at).ok_or(Malformed::At(self.at))?;
        self.at += 1;
        Ok(match first {
            0x00..=0x7f => Token::Int(i64::from(first)),
            0xe0..=0xff => Token::Int(i64::from(first as i8)),
            0xa0..=0xbf => Token::String(self.slice(usize::from(first & 0x1f))?),
            0x80..=0x8f => Token::Map(self.count(usize::from(first & 0x0f), 2)?),
            0x90..=0x9f => Token::List(self.count(usize::from(first & 0x0f), 1)?),
            0xc0 => Token::Null,
            0xc2 => Token::Bool(false),
            0xc3 => Token::Bool(true),
            0xcb => Token::Float(f64::from_bits(u64::from_be_bytes(self.take()?))),
            0xcc => Token::Int(i64::from(u8::from_be_bytes(self.take()?))),
            0xcd => Token::Int(i64::from(u16::from_be_bytes(self.take()?))),
            0xce => Token::Int(i64::from(u32::from_be_bytes(self.take()?))),
            0xcf => Token::Int(self.unsigned()?),
            0xd9 => {
                let length = usize::from(u8::from_be_bytes(self.take()?));
                Token::String(self.slice(length)?)
            }
            _ => return self.rare(first),
        })
    }

    /// What comes seldom. Out of line, to keep `next_raw` small where it is inlined.
    fn rare(&mut self, first: u8) -> Result<Token<'a, &'a [u8]>, Malformed> {
        Ok(match first {
            0xd0 => Token::Int(i64::from(i8::from_be_bytes(self.take()?))),
            0xd1 => Token::Int(i64::from(i16::from_be_bytes(self.take()?))),
            0xd2 => Token::Int(i64::from(i32::from_be_bytes(self.take()?))),
            0xd3 => Token::Int(i64::from_be_bytes(self.take()?)),
            0xca => Token::Float(widen(u32::from_be_bytes(self.take()?))),
            0xc4..=0xc6 | 0xda | 0xdb => {
                let length = self.length(first)?;
                let slice = self.slice(length)?;
                if first < 0xd9 { Token::Bytes(slice) } else { Token::String(slice) }
            }
            0xdc | 0xdd => Token::List(self.length(first).and_then(|count| self.count(count, 1))?),
            0xde | 0xdf => Token::Map(self.length(first).and_then(|count| self.count(count, 2))?),
            _ => return Err(Malformed::At(self.at - 1)),
        })
    }

    #[inline]
    fn unsigned(&mut self) -> Result<i64, Malformed> {
        let value = u64::from_be_bytes(self.take()?);
        i64::try_from(value).map_err(|_| Malformed::TooLarge(value))
    }

    /// The length or count that stands behind this first byte.
    fn length(&mut self, first: u8) -> Result<usize, Malformed> {
        Ok(match first {
            0xc4 => usize::from(u8::from_be_bytes(self.take()?)),
            0xc5 | 0xda | 0xdc | 0xde => usize::from(u16::from_be_bytes(self.take()?)),
            _ => u32::from_be_bytes(self.take()?) as usize,
        })
    }

    /// `count`, if as many times `each` values can follow at all: each has at least one byte.
    #[inline]
    fn count(&self, count: usize, each: usize) -> Result<usize, Malformed> {
        if count <= self.remaining() / each { Ok(count) } else { Err(Malformed::At(self.at)) }
    }

    #[inline]
    fn decoded(&self, piece: Token<'a, &'a [u8]>) -> Result<Token<'a>, Malformed> {
        Ok(match piece {
            Token::String(text) => Token::String(self.utf8(text)?),
            Token::Null => Token::Null,
            Token::Bool(value) => Token::Bool(value),
            Token::Int(value) => Token::Int(value),
            Token::Float(value) => Token::Float(value),
            Token::Bytes(value) => Token::Bytes(value),
            Token::List(count) => Token::List(count),
            Token::Map(count) => Token::Map(count),
        })
    }

    /// The text of the string that was just read.
    #[inline]
    fn utf8(&self, text: &'a [u8]) -> Result<&'a str, Malformed> {
        std::str::from_utf8(text).map_err(|_| Malformed::NotUtf8(self.at - text.len()))
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let chunk = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk());
        self.at += N;
        chunk.copied().ok_or(Malformed::At(self.bytes.len()))
    }

    #[inline]
    fn slice(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let start = self.at;
        self.at = start.saturating_add(length);
        self.bytes.get(start..self.at).ok_or(Malformed::At(self.bytes.len()))
    }
}

/// A 32-bit float as 64 bits. NaNs are widened by hand: what a cast does to their payload is left
/// open by the language, and two machines have to agree on it.
fn widen(bits: u32) -> f64 {
    let narrow = f32::from_bits(bits);
    if !narrow.is_nan() {
        return f64::from(narrow);
    }
    let (sign, payload) = (u64::from(bits >> 31), u64::from(bits & 0x007f_ffff));
    f64::from_bits(sign << 63 | 0x7ff << 52 | payload << 29)
}
