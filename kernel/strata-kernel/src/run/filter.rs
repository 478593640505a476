//! Filters: a few bits a key that tell, mostly, that a key is not there.
//!
//! A blocked Bloom filter (Putze, Sanders and Singler 2007): each key sets seven bits within one group of 64 bytes, so
//! that a question costs one cache line. At ten bits a key about one in a hundred absent keys looks present.

use xxhash_rust::xxh3::xxh3_64_with_seed;

pub const GROUP: usize = 64;
const BITS_A_KEY: usize = 10;
const PROBES: u32 = 7;

/// The hash of a row's branch, keyspace and key: computed once for all runs that are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowHash(pub(super) u64);

impl RowHash {
    #[inline]
    pub fn of(branch: u32, keyspace: u32, key: &[u8]) -> RowHash {
        RowHash(xxh3_64_with_seed(key, (u64::from(branch) << 32) | u64::from(keyspace)))
    }

    /// Which group of `groups`, and what picks the bits in it.
    #[inline]
    fn place(self, groups: usize) -> (usize, u64) {
        let group = ((self.0 >> 32) * groups as u64) >> 32;
        // The low half, which the group does not depend on, spread over 63 bits.
        (group as usize * GROUP, (self.0 & 0xffff_ffff).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// The filter of some keys.
pub fn build(hashes: &[RowHash]) -> Vec<u8> {
    let groups = (hashes.len() * BITS_A_KEY).div_ceil(GROUP * 8).max(1);
    let mut bytes = vec![0; groups * GROUP];
    for hash in hashes {
        let (start, bits) = hash.place(groups);
        for probe in 0..PROBES {
            let bit = (bits >> (1 + 9 * probe)) as usize % (GROUP * 8);
            bytes[start + bit / 8] |= 1 << (bit % 8);
        }
    }
    bytes
}

/// Whether the filter is whole groups, as `may_hold` needs it.
pub fn is_filter(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.len().is_multiple_of(GROUP)
}

/// Whether the key may be one of those the filter was built of.
#[inline]
pub fn may_hold(bytes: &[u8], hash: RowHash) -> bool {
    let (start, bits) = hash.place(bytes.len() / GROUP);
    let Some(group) = bytes.get(start..).and_then(|rest| rest.first_chunk::<GROUP>()) else { return true };
    (0..PROBES).all(|probe| {
        let bit = (bits >> (1 + 9 * probe)) as usize % (GROUP * 8);
        group[bit / 8] & (1 << (bit % 8)) != 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u32) -> RowHash {
        RowHash::of(0, 1, &number.to_be_bytes())
    }

    #[test]
    fn what_is_there_is_found_and_little_else() {
        let keys: Vec<_> = (0..20_000).map(hash).collect();
        let filter = build(&keys);
        assert!(is_filter(&filter));
        assert!(filter.len() * 8 <= keys.len() * BITS_A_KEY + GROUP * 8);
        assert!(keys.iter().all(|key| may_hold(&filter, *key)));
        let wrong = (20_000..120_000).filter(|number| may_hold(&filter, hash(*number))).count();
        assert!(wrong < 2_000, "{wrong} of 100000 absent keys look present");
    }

    #[test]
    fn a_filter_of_no_keys_holds_none() {
        assert!(!may_hold(&build(&[]), hash(1)));
    }
}
