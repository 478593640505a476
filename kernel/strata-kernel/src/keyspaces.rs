//! The catalogue: which number stands for which (space, kind).
//!
//! Numbers belong to the database; which of them a branch knows is data like any other, in keyspace 0 of that
//! branch (key: space, 0x00, kind; value: the number), so spaces fork, time-travel and recover with the rest. A
//! number that was handed out and never written to is forgotten with the process.

use rustc_hash::FxHashMap;

/// The keyspace that names all others.
pub const CATALOGUE: u32 = 0;

// What a branch keeps beside the data: keyspaces that no name stands for, so their rows fork, are written out and
// recover like all else. None of them is in a log record, since it follows from the records.

/// In runs only: the commits of the branch, see `branch::commits`.
pub const COMMITS: u32 = u32::MAX;
/// Version (8 bytes, big-endian) to what its commit says about itself: `payload::Note`.
pub const NOTES: u32 = u32::MAX - 1;
/// Idempotency key to nothing: the version of its row is the first result. Rows expire.
pub const IDEMPOTENCY: u32 = u32::MAX - 2;
/// From here on up numbers are reserved.
pub const RESERVED: u32 = u32::MAX - 15;

#[derive(Default)]
pub struct Keyspaces {
    numbers: FxHashMap<Vec<u8>, u32>,
    names: Vec<(String, String)>,
}

impl Keyspaces {
    /// The number of (space, kind), if it has one.
    pub fn number(&self, space: &str, kind: &str) -> Option<u32> {
        self.numbers.get(&catalogue_key(space, kind)).copied()
    }

    /// The number of (space, kind), new if need be.
    pub fn resolve(&mut self, space: &str, kind: &str) -> u32 {
        let key = catalogue_key(space, kind);
        if let Some(&number) = self.numbers.get(&key) {
            return number;
        }
        let number = self.names.len() as u32 + 1;
        self.names.push((space.to_owned(), kind.to_owned()));
        self.numbers.insert(key, number);
        number
    }

    /// Take over an entry of a branch's catalogue that recovery found. False when it contradicts another.
    pub fn learn(&mut self, key: &[u8], number: u32) -> bool {
        let text = std::str::from_utf8(key).ok();
        let Some((space, kind)) = text.and_then(|text| text.split_once('\0')) else { return false };
        if let Some(&known) = self.numbers.get(key) {
            return known == number;
        }
        // Numbers that were handed out in between and never used leave gaps.
        while self.names.len() < number as usize {
            self.names.push(Default::default());
        }
        let Some(index) = (number as usize).checked_sub(1) else { return false };
        self.names[index] = (space.to_owned(), kind.to_owned());
        self.numbers.insert(key.to_vec(), number);
        true
    }

    /// All names, in order of their numbers from 1; empty for a number that nothing has.
    pub fn names(&self) -> &[(String, String)] {
        &self.names
    }

    pub fn of(names: Vec<(String, String)>) -> Keyspaces {
        let named = names.iter().zip(1..).filter(|((space, _), _)| !space.is_empty());
        let numbers = named.map(|((space, kind), number)| (catalogue_key(space, kind), number)).collect();
        Keyspaces { numbers, names }
    }

    pub fn name(&self, number: u32) -> (String, String) {
        (number as usize).checked_sub(1).and_then(|index| self.names.get(index)).cloned().unwrap_or_default()
    }
}

pub fn catalogue_key(space: &str, kind: &str) -> Vec<u8> {
    [space.as_bytes(), &[0], kind.as_bytes()].concat()
}
