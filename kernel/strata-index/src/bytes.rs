//! Parts as bytes: little-endian numbers, lengths in front. What is read is checked, since no checksum says who wrote it.

/// What was read is no part: bytes that no writer of ours made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damaged(pub &'static str);

#[derive(Default)]
pub struct Writer {
    pub bytes: Vec<u8>,
}

impl Writer {
    pub fn number(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    pub fn blob(&mut self, blob: &[u8]) {
        self.number(blob.len() as u64);
        self.bytes.extend_from_slice(blob);
    }

    pub fn numbers<T: Fixed>(&mut self, numbers: &[T]) {
        self.number(numbers.len() as u64);
        numbers.iter().for_each(|number| number.write(&mut self.bytes));
    }
}

pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn number(&mut self) -> Result<u64, Damaged> {
        let (number, rest) = self.rest.split_first_chunk().ok_or(Damaged("it ends in a number"))?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*number))
    }

    /// A number that counts something in memory.
    pub fn count(&mut self) -> Result<usize, Damaged> {
        usize::try_from(self.number()?).map_err(|_| Damaged("a count is too large"))
    }

    pub fn blob(&mut self) -> Result<&'a [u8], Damaged> {
        let length = self.count()?;
        let (blob, rest) = self.rest.split_at_checked(length).ok_or(Damaged("it ends in a blob"))?;
        self.rest = rest;
        Ok(blob)
    }

    pub fn numbers<T: Fixed>(&mut self) -> Result<Vec<T>, Damaged> {
        let length = self.count()?.checked_mul(T::SIZE).ok_or(Damaged("a count is too large"))?;
        let (blob, rest) = self.rest.split_at_checked(length).ok_or(Damaged("it ends in numbers"))?;
        self.rest = rest;
        Ok(blob.chunks_exact(T::SIZE).map(T::read).collect())
    }
}

/// A number of so many bytes.
pub trait Fixed: Copy {
    const SIZE: usize;
    fn write(self, out: &mut Vec<u8>);
    /// Of exactly `SIZE` bytes.
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! fixed {
    ($($number:ty),*) => {$(
        impl Fixed for $number {
            const SIZE: usize = size_of::<$number>();
            fn write(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn read(bytes: &[u8]) -> $number {
                <$number>::from_le_bytes(bytes.try_into().expect("the caller cut it so"))
            }
        }
    )*};
}

fixed!(u8, i8, u16, u32, u64, f32);
