//! Floats of 16 bits (IEEE 754 binary16).

/// The nearest that there is, of two the even one. What is too large becomes the largest: kept vectors stay finite.
pub(super) fn from_f32(number: f32) -> u16 {
    let bits = number.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let size = f32::from_bits(bits & 0x7fff_ffff);
    if size >= 65_520.0 {
        return sign | 0x7bff;
    }
    // Below 2^-14 the steps are all of 2^-24; adding 0.5, whose steps in an f32 those are, rounds to them.
    if size < 6.103_515_6e-5 {
        return sign | ((size + 0.5).to_bits() - 0.5_f32.to_bits()) as u16;
    }
    let bits = size.to_bits();
    let even = (bits >> 13) & 1;
    sign | (((bits + 0xfff + even) >> 13) - (112 << 10)) as u16
}

#[inline(always)]
pub(super) fn to_f32(half: u16) -> f32 {
    // The exponent of an f32 is wider by 112: a product by 2^112 moves it, and is right for the smallest, too.
    let size = f32::from_bits(u32::from(half & 0x7fff) << 13) * f32::from_bits(239 << 23);
    f32::from_bits(size.to_bits() | u32::from(half & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{from_f32, to_f32};

    #[test]
    fn every_half_comes_back() {
        for half in (0..0x7c00).chain(0x8000..0xfc00) {
            assert_eq!(from_f32(to_f32(half)), half);
        }
        assert_eq!((to_f32(0x3c00), to_f32(0xc000), to_f32(0x7bff), to_f32(1)), (1.0, -2.0, 65_504.0, 2_f32.powi(-24)));
    }

    proptest! {
        #[test]
        fn it_is_the_nearest(number in prop_oneof![-70_000.0_f32..70_000.0, -1.0_f32..1.0, -1e-4_f32..1e-4, any::<f32>()]) {
            prop_assume!(number.is_finite());
            let half = from_f32(number);
            let near = number.clamp(-65_504.0, 65_504.0);
            let miss = (f64::from(to_f32(half)) - f64::from(near)).abs();
            for other in [half.wrapping_sub(1), half.wrapping_add(1)] {
                let other = f64::from(to_f32(other));
                prop_assert!(!other.is_finite() || other.abs() > 65_504.0 || miss <= (other - f64::from(near)).abs());
            }
        }
    }
}
