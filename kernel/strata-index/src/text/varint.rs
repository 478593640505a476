//! Numbers in as few bytes as they need: seven bits each, the lowest first, the high bit where more follow.

pub(super) fn write(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// None where the bytes end in a number, or it needs more than 32 bits.
#[inline]
pub(super) fn read(bytes: &mut &[u8]) -> Option<u32> {
    let (&first, rest) = bytes.split_first()?;
    *bytes = rest;
    if first < 0x80 {
        return Some(u32::from(first));
    }
    let mut number = u32::from(first & 0x7f);
    for shift in [7, 14, 21, 28] {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if shift == 28 && byte > 0x0f {
            return None;
        }
        number |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// The bytes that the first `count` numbers take; all of them where there are fewer.
#[inline]
pub(super) fn length_of(bytes: &[u8], count: usize) -> usize {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte < 0x80);
    ends.map(|(at, _)| at + 1).nth(count.wrapping_sub(1)).unwrap_or(if count == 0 { 0 } else { bytes.len() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(numbers in prop::collection::vec(prop_oneof![0..300u32, any::<u32>()], 0..20)) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for number in &numbers {
                super::write(&mut bytes, *number);
                ends.push(bytes.len());
            }
            for (count, end) in ends.iter().enumerate() {
                prop_assert_eq!(super::length_of(&bytes, count), *end);
            }
            let mut rest = bytes.as_slice();
            let read: Vec<u32> = std::iter::from_fn(|| super::read(&mut rest)).collect();
            prop_assert_eq!(read, numbers);
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        for bytes in [&[0x80][..], &[0xff, 0xff, 0xff, 0xff, 0x10], &[0xff; 6]] {
            assert_eq!(super::read(&mut &*bytes), None);
        }
    }
}
