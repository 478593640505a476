//! Numbers of varying length (LEB128), and a reader that runs past nothing.

/// Append `number`, seven bits a byte, lowest first.
#[inline]
pub fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A difference of either sign, small where it is near 0 (zigzag).
#[inline]
pub fn put_difference(out: &mut Vec<u8>, number: u64, base: u64) {
    let difference = number.wrapping_sub(base) as i64;
    put(out, ((difference << 1) ^ (difference >> 63)) as u64);
}

/// Reads from the front of bytes that may be anything.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    pub at: usize,
}

const SHORT: &str = "it ends too early";

impl<'a> Reader<'a> {
    #[inline]
    pub fn new(bytes: &'a [u8], at: usize) -> Reader<'a> {
        Reader { bytes, at }
    }

    pub fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    #[inline]
    pub fn byte(&mut self) -> Result<u8, &'static str> {
        let byte = *self.bytes.get(self.at).ok_or(SHORT)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let end = self.at.checked_add(length).ok_or(SHORT)?;
        let bytes = self.bytes.get(self.at..end).ok_or(SHORT)?;
        self.at = end;
        Ok(bytes)
    }

    #[inline]
    pub fn number(&mut self) -> Result<u64, &'static str> {
        let first = self.byte()?;
        if first < 0x80 { Ok(u64::from(first)) } else { self.long_number(first) }
    }

    fn long_number(&mut self, first: u8) -> Result<u64, &'static str> {
        let mut number = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number is too large")
    }

    /// A number that counts bytes in memory, or things that take at least one.
    #[inline]
    pub fn length(&mut self) -> Result<usize, &'static str> {
        usize::try_from(self.number()?).map_err(|_| "a number is too large")
    }

    pub fn length_u32(&mut self) -> Result<u32, &'static str> {
        u32::try_from(self.number()?).map_err(|_| "a number is too large")
    }

    #[inline]
    pub fn difference(&mut self, base: u64) -> Result<u64, &'static str> {
        let zigzag = self.number()?;
        Ok(base.wrapping_add((zigzag >> 1) ^ (zigzag & 1).wrapping_neg()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_read_as_they_were_written(number: u64, base: u64) {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            put_difference(&mut bytes, number, base);
            let mut reader = Reader::new(&bytes, 0);
            prop_assert_eq!(reader.number(), Ok(number));
            prop_assert_eq!(reader.difference(base), Ok(number));
            prop_assert_eq!(reader.left(), 0);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes, 0);
            while reader.number().is_ok() {}
            prop_assert!(reader.left() <= bytes.len());
        }
    }
}
