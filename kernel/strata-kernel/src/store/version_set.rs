//! A set of versions, dense or not: a bit for each of 65,536 behind each other where any of them is in it.

use rustc_hash::FxHashMap;

const WORDS: usize = 1024;

#[derive(Default)]
pub(super) struct VersionSet {
    pages: FxHashMap<u64, Box<[u64; WORDS]>>,
}

impl VersionSet {
    pub fn insert(&mut self, version: u64) {
        let page = self.pages.entry(version >> 16).or_insert_with(|| Box::new([0; WORDS]));
        page[(version as usize >> 6) % WORDS] |= 1 << (version % 64);
    }

    pub fn contains(&self, version: u64) -> bool {
        let page = self.pages.get(&(version >> 16));
        page.is_some_and(|page| page[(version as usize >> 6) % WORDS] & (1 << (version % 64)) != 0)
    }

    pub fn clear(&mut self) {
        self.pages.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::VersionSet;

    #[test]
    fn what_was_put_in_is_in_it_and_nothing_else() {
        let mut set = VersionSet::default();
        let inside = [0, 1, 63, 64, 65_535, 65_536, 1 << 40];
        inside.iter().for_each(|&version| set.insert(version));
        for version in (0..70_000).chain([1 << 40, (1 << 40) + 1]) {
            assert_eq!(set.contains(version), inside.contains(&version), "{version}");
        }
        set.clear();
        assert!(!set.contains(1));
    }
}
