//! Reading values piece by piece: the hot path of turning bytes into Python objects.

use super::shape::{self, Malformed};
use crate::error::{Error, Result};

/// One piece of a value. After `List(n)` come n values, after `Map(n)` n times a string and a value.
///
/// Both counts have been held against the bytes that are left, so a reader may allocate by them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(&'a str),
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
        let Some(&first) = self.bytes.get(self.at) else { return Err(self.malformed()) };
        self.at += 1;
        match first {
            0x00..=0x7f => Ok(Token::Int(i64::from(first))),
            0xe0..=0xff => Ok(Token::Int(i64::from(first as i8))),
            0xa0..=0xbf => self.string(usize::from(first & 0x1f)),
            0x80..=0x8f => self.map(usize::from(first & 0x0f)),
            0x90..=0x9f => self.list(usize::from(first & 0x0f)),
            0xc0 => Ok(Token::Null),
            0xc2 => Ok(Token::Bool(false)),
            0xc3 => Ok(Token::Bool(true)),
            0xcb => Ok(Token::Float(f64::from_bits(u64::from_be_bytes(self.take()?)))),
            _ => self.wide(first),
        }
    }

    /// Read a string, as map keys are; any other kind is an error.
    #[inline]
    pub fn key(&mut self) -> Result<&'a str> {
        match self.next()? {
            Token::String(key) => Ok(key),
            _ => Err(self.malformed()),
        }
    }

    /// Pass one whole value, and return its bytes.
    #[inline]
    pub fn skip_value(&mut self) -> Result<&'a [u8]> {
        let end = shape::end_of(self.bytes, self.at)?;
        let value = &self.bytes[self.at..end];
        self.at = end;
        Ok(value)
    }

    /// The encodings with a width of their own. Out of line, to keep `next` small where it is inlined.
    fn wide(&mut self, first: u8) -> Result<Token<'a>> {
        Ok(match first {
            0xcc => Token::Int(i64::from(u8::from_be_bytes(self.take()?))),
            0xcd => Token::Int(i64::from(u16::from_be_bytes(self.take()?))),
            0xce => Token::Int(i64::from(u32::from_be_bytes(self.take()?))),
            0xcf => return self.unsigned(),
            0xd0 => Token::Int(i64::from(i8::from_be_bytes(self.take()?))),
            0xd1 => Token::Int(i64::from(i16::from_be_bytes(self.take()?))),
            0xd2 => Token::Int(i64::from(i32::from_be_bytes(self.take()?))),
            0xd3 => Token::Int(i64::from_be_bytes(self.take()?)),
            0xca => Token::Float(widen(u32::from_be_bytes(self.take()?))),
            0xd9..=0xdb => {
                let length = self.length(first - 0xd9)?;
                return self.string(length);
            }
            0xc4..=0xc6 => Token::Bytes(self.length(first - 0xc4).and_then(|length| self.slice(length))?),
            0xdc | 0xdd => {
                let count = self.length(first - 0xdb)?;
                return self.list(count);
            }
            0xde | 0xdf => {
                let count = self.length(first - 0xdd)?;
                return self.map(count);
            }
            _ => {
                self.at -= 1;
                return Err(self.malformed());
            }
        })
    }

    fn unsigned(&mut self) -> Result<Token<'a>> {
        let value = u64::from_be_bytes(self.take()?);
        let refuse = |_| Error::InvalidInput(format!("the integer {value} does not fit into 64 bits with a sign"));
        i64::try_from(value).map(Token::Int).map_err(refuse)
    }

    /// A length of 1, 2 or 4 bytes, for `width` 0, 1 or 2.
    fn length(&mut self, width: u8) -> Result<usize> {
        Ok(match width {
            0 => usize::from(u8::from_be_bytes(self.take()?)),
            1 => usize::from(u16::from_be_bytes(self.take()?)),
            _ => u32::from_be_bytes(self.take()?) as usize,
        })
    }

    #[inline]
    fn string(&mut self, length: usize) -> Result<Token<'a>> {
        let start = self.at;
        let refuse = || Error::InvalidInput(format!("the string at byte {start} is not UTF-8"));
        std::str::from_utf8(self.slice(length)?).map(Token::String).map_err(|_| refuse())
    }

    #[inline]
    fn list(&self, count: usize) -> Result<Token<'a>> {
        if count <= self.remaining() { Ok(Token::List(count)) } else { Err(self.malformed()) }
    }

    #[inline]
    fn map(&self, count: usize) -> Result<Token<'a>> {
        if count <= self.remaining() / 2 { Ok(Token::Map(count)) } else { Err(self.malformed()) }
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some(chunk) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()) else {
            return Err(self.malformed());
        };
        self.at += N;
        Ok(*chunk)
    }

    #[inline]
    fn slice(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.saturating_add(length);
        let Some(slice) = self.bytes.get(self.at..end) else { return Err(self.malformed()) };
        self.at = end;
        Ok(slice)
    }

    #[cold]
    fn malformed(&self) -> Error {
        Malformed(self.at).into()
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
