//! Numbers and strings packed behind each other, and read back with every length doubted.
//!
//! A number is LEB128: seven bits a byte, lowest first, the top bit set on all but the last. Strings and bytes are a
//! number, their length, and the bytes.

use crate::error::{Error, Result};

/// Packed bytes that are being read.
pub struct Input<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
    /// The file that they come from, and what they are, for the error.
    file: &'static str,
    of: &'static str,
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8], file: &'static str, of: &'static str) -> Input<'a> {
        Input { bytes, at: 0, file, of }
    }

    /// The error for a part that cannot be read. A checksum was verified before, so it is damage that a checksum cannot
    /// see, or our bug: the text says which part was wrong.
    pub fn wrong(&self, what: &str) -> Error {
        let reason = format!("the {what} of {} cannot be read", self.of);
        Error::Corrupt { file: self.file.into(), offset: 0, reason }
    }

    pub fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub fn byte(&mut self) -> Result<u8> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.wrong("end"))?;
        self.at += 1;
        Ok(byte)
    }

    pub fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.wrong("number"))
    }

    pub fn id(&mut self) -> Result<u32> {
        u32::try_from(self.varint()?).map_err(|_| self.wrong("id"))
    }

    pub fn take(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.varint()?).map_err(|_| self.wrong("length"))?;
        let taken = self.rest().get(..length).ok_or_else(|| self.wrong("length"))?;
        self.at += length;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = *self.rest().first_chunk().ok_or_else(|| self.wrong("length"))?;
        self.at += N;
        Ok(taken)
    }

    pub fn text(&mut self) -> Result<String> {
        Ok(std::str::from_utf8(self.take()?).map_err(|_| self.wrong("text"))?.to_owned())
    }

    pub fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<Option<T>> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(self.wrong("presence byte")),
        }
    }
}

pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    out.push(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        put_bytes(out, bytes);
    }
}
