//! What a checkpoint keeps beside the rows: the branches, and what numbers stand for. It is small and part of the
//! MANIFEST, so that data and the position it reflects are replaced as one.
//!
//! ```text
//! state    registry hash 16 | next branch varint | count varint | branches | count varint | keyspaces
//! branch   id varint | flags u8 (1 deleted, and seen by a fork) | name | parent varint + 1 | fork version varint
//!          | created varint | newest version varint | state hash 16
//! keyspace space | kind: in order of their numbers, from 1; both empty for a number that nothing has
//! ```

use crate::error::Result;
use crate::log::StateHash;
use crate::pack::{Input, put_bytes, put_varint};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The chain of the records that change the set of branches.
    pub branches_hash: StateHash,
    pub next_branch: u32,
    /// By id, so a parent comes before its forks.
    pub branches: Vec<BranchState>,
    pub keyspaces: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BranchState {
    pub id: u32,
    pub name: String,
    pub parent: Option<(u32, u64)>,
    pub created: u64,
    /// The newest version, and the state hash after it.
    pub version: u64,
    pub hash: StateHash,
    /// Deleted, and kept for those forked off it.
    pub is_deleted: bool,
}

const DELETED: u8 = 1;

impl State {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.branches_hash.0.to_vec();
        put_varint(&mut out, u64::from(self.next_branch));
        put_varint(&mut out, self.branches.len() as u64);
        self.branches.iter().for_each(|branch| branch.encode(&mut out));
        put_varint(&mut out, self.keyspaces.len() as u64);
        for (space, kind) in &self.keyspaces {
            put_bytes(&mut out, space.as_bytes());
            put_bytes(&mut out, kind.as_bytes());
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<State> {
        let mut input = Input::new(bytes, "MANIFEST", "the state");
        let branches_hash = StateHash(input.array()?);
        let next_branch = input.id()?;
        let count = input.varint()?;
        let branches = (0..count).map(|_| BranchState::decode(&mut input)).collect::<Result<Vec<_>>>()?;
        let count = input.varint()?;
        let keyspaces = (0..count).map(|_| Ok((input.text()?, input.text()?))).collect::<Result<Vec<_>>>()?;
        let ascend = branches.is_sorted_by(|a, b| a.id < b.id) && branches.iter().all(|b| b.id < next_branch);
        let state = State { branches_hash, next_branch, branches, keyspaces };
        if ascend && input.is_at_end() { Ok(state) } else { Err(input.wrong("end")) }
    }
}

impl BranchState {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.id));
        out.push(if self.is_deleted { DELETED } else { 0 });
        put_bytes(out, self.name.as_bytes());
        put_varint(out, self.parent.map_or(0, |(parent, _)| u64::from(parent) + 1));
        put_varint(out, self.parent.map_or(0, |(_, version)| version));
        put_varint(out, self.created);
        put_varint(out, self.version);
        out.extend_from_slice(&self.hash.0);
    }

    fn decode(input: &mut Input<'_>) -> Result<BranchState> {
        let id = input.id()?;
        let flags = input.byte()?;
        let name = input.text()?;
        let (parent, fork) = (input.varint()?, input.varint()?);
        let parent = match parent.checked_sub(1) {
            Some(parent) if parent < u64::from(id) => Some((parent as u32, fork)),
            Some(_) => return Err(input.wrong("parent of a branch")),
            None => None,
        };
        let (created, version) = (input.varint()?, input.varint()?);
        let hash = StateHash(input.array()?);
        Ok(BranchState { id, name, parent, created, version, hash, is_deleted: flags & DELETED != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> State {
        let main = BranchState { name: "main".into(), created: 7, version: 900, ..BranchState::default() };
        let fork =
            BranchState { id: 3, parent: Some((0, 400)), is_deleted: true, hash: StateHash([9; 16]), ..main.clone() };
        State {
            branches_hash: StateHash([1; 16]),
            next_branch: 4,
            branches: vec![main, fork],
            keyspaces: vec![("default".into(), "kv".into()), Default::default(), ("späce".into(), "json".into())],
        }
    }

    #[test]
    fn what_was_written_is_read() {
        for state in [example(), State::default()] {
            assert_eq!(State::decode(&state.encode()), Ok(state));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        let whole = example().encode();
        for length in 0..whole.len() {
            assert!(State::decode(&whole[..length]).is_err(), "length {length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let _ = State::decode(&damaged); // a checksum stands before it: here it must only not panic
        }
    }
}
