//! What a checkpoint keeps beside the rows: the branches, and what numbers stand for. It is small and part of the
//! MANIFEST, so that data and the position it reflects are replaced as one.
//!
//! ```text
//! state    registry hash 16 | next branch varint | count varint | branches | count varint | keyspaces
//! branch   id varint | flags u8 (1 deleted, and seen by a fork) | name | parent varint + 1 | fork version varint
//!          | ancestor past which it is flat varint + 1 | version varint
//!          | created varint | newest version varint | state hash 16 | floors | seal
//! keyspace space | kind: in order of their numbers, from 1; both empty for a number that nothing has
//! ```

use crate::error::Result;
use crate::index::Definition;
use crate::log::StateHash;
use crate::pack::{Input, put_bytes, put_optional, put_varint};
use crate::payload::Seal;
use crate::retention::{Floors, Keep, Policy};
use crate::store::Erasure;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The chain of the records that change the set of branches.
    pub branches_hash: StateHash,
    pub next_branch: u32,
    /// By id, so a parent comes before its forks.
    pub branches: Vec<BranchState>,
    pub keyspaces: Vec<(String, String)>,
    pub policies: Vec<Policy>,
    /// Erasures that are not complete yet.
    pub erasures: Vec<Erasure>,
    /// By name.
    pub tags: Vec<Tag>,
    pub indexes: Vec<Definition>,
    /// The last id that an index was given.
    pub next_index: u32,
}

/// A name for one version of a branch, which stays as it is while the name does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tag {
    pub name: String,
    pub branch: u32,
    pub version: u64,
    /// When it was given.
    pub created: u64,
    pub note: Option<String>,
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
    /// The ancestor that a read goes on at, past those whose rows it has itself, and up to which version.
    pub flat: Option<(u32, u64)>,
    /// Deleted, and kept for those forked off it.
    pub is_deleted: bool,
    /// By keyspace, what is the oldest version that can be read.
    pub floors: Floors,
    pub seal: Option<Seal>,
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
        put_varint(&mut out, self.policies.len() as u64);
        self.policies.iter().for_each(|policy| encode_policy(policy, &mut out));
        put_varint(&mut out, self.erasures.len() as u64);
        self.erasures.iter().for_each(|erasure| encode_erasure(erasure, &mut out));
        put_varint(&mut out, self.tags.len() as u64);
        self.tags.iter().for_each(|tag| tag.encode(&mut out));
        put_varint(&mut out, u64::from(self.next_index));
        put_varint(&mut out, self.indexes.len() as u64);
        self.indexes.iter().for_each(|index| index.encode(&mut out));
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
        let count = input.varint()?;
        let policies = (0..count).map(|_| decode_policy(&mut input)).collect::<Result<Vec<_>>>()?;
        let count = input.varint()?;
        let erasures = (0..count).map(|_| decode_erasure(&mut input)).collect::<Result<Vec<_>>>()?;
        let count = input.varint()?;
        let tags = (0..count).map(|_| Tag::decode(&mut input)).collect::<Result<Vec<_>>>()?;
        let ascend = branches.is_sorted_by(|a, b| a.id < b.id) && branches.iter().all(|b| b.id < next_branch);
        let next_index = input.id()?;
        let count = input.varint()?;
        let indexes = (0..count).map(|_| Definition::decode(&mut input)).collect::<Result<Vec<_>>>()?;
        let state =
            State { branches_hash, next_branch, branches, keyspaces, policies, erasures, tags, indexes, next_index };
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
        put_varint(out, self.flat.map_or(0, |(ancestor, _)| u64::from(ancestor) + 1));
        put_varint(out, self.flat.map_or(0, |(_, version)| version));
        put_varint(out, self.created);
        put_varint(out, self.version);
        out.extend_from_slice(&self.hash.0);
        put_varint(out, self.floors.len() as u64);
        for &(keyspace, floor) in &self.floors {
            put_varint(out, u64::from(keyspace));
            put_varint(out, floor);
        }
        Seal::encode(self.seal.as_ref(), out);
    }

    fn decode(input: &mut Input<'_>) -> Result<BranchState> {
        let id = input.id()?;
        let flags = input.byte()?;
        let name = input.text()?;
        let (parent, flat) = (older_branch(input, id)?, older_branch(input, id)?);
        let (created, version) = (input.varint()?, input.varint()?);
        let hash = StateHash(input.array()?);
        let count = input.varint()?;
        let floors = (0..count).map(|_| Ok((input.id()?, input.varint()?))).collect::<Result<Vec<_>>>()?;
        if !floors.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(input.wrong("floors"));
        }
        let is_deleted = flags & DELETED != 0;
        let seal = Seal::decode(input)?;
        Ok(BranchState { id, name, parent, flat, created, version, hash, is_deleted, floors, seal })
    }
}

impl Tag {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.name.as_bytes());
        put_varint(out, u64::from(self.branch));
        put_varint(out, self.version);
        put_varint(out, self.created);
        put_text(out, self.note.as_ref());
    }

    fn decode(input: &mut Input<'_>) -> Result<Tag> {
        let (name, branch) = (input.text()?, input.id()?);
        let (version, created) = (input.varint()?, input.varint()?);
        Ok(Tag { name, branch, version, created, note: input.optional(Input::text)? })
    }
}

/// A branch that was there before, and a version of it.
fn older_branch(input: &mut Input<'_>, id: u32) -> Result<Option<(u32, u64)>> {
    let (older, version) = (input.varint()?, input.varint()?);
    match older.checked_sub(1) {
        Some(older) if older < u64::from(id) => Ok(Some((older as u32, version))),
        Some(_) => Err(input.wrong("ancestor of a branch")),
        None => Ok(None),
    }
}

fn put_text(out: &mut Vec<u8>, text: Option<&String>) {
    put_optional(out, text.map(String::as_bytes));
}

fn encode_policy(policy: &Policy, out: &mut Vec<u8>) {
    put_varint(out, policy.branch.map_or(0, |branch| u64::from(branch) + 1));
    put_text(out, policy.space.as_ref());
    put_text(out, policy.kind.as_ref());
    put_varint(out, policy.keep.last.unwrap_or(0));
    put_varint(out, policy.keep.for_us.unwrap_or(0));
    out.push(u8::from(policy.keep.needs_both));
}

fn decode_policy(input: &mut Input<'_>) -> Result<Policy> {
    let branch = match input.varint()?.checked_sub(1) {
        Some(branch) => Some(u32::try_from(branch).map_err(|_| input.wrong("branch of a policy"))?),
        None => None,
    };
    let (space, kind) = (input.optional(Input::text)?, input.optional(Input::text)?);
    let some = |number: u64| Some(number).filter(|number| *number > 0);
    let (last, for_us) = (some(input.varint()?), some(input.varint()?));
    let needs_both = input.byte()? == 1;
    Ok(Policy { branch, space, kind, keep: Keep { last, for_us, needs_both } })
}

fn encode_erasure(erasure: &Erasure, out: &mut Vec<u8>) {
    put_text(out, erasure.space.as_ref());
    put_bytes(out, erasure.kind.as_bytes());
    put_bytes(out, &erasure.key);
    out.push(u8::from(erasure.is_prefix));
    put_varint(out, erasure.upto);
}

fn decode_erasure(input: &mut Input<'_>) -> Result<Erasure> {
    let space = input.optional(Input::text)?;
    let (kind, key) = (input.text()?, input.take()?.to_vec());
    let is_prefix = input.byte()? == 1;
    Ok(Erasure { space, kind, key, is_prefix, upto: input.varint()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> State {
        let main = BranchState {
            name: "main".into(),
            created: 7,
            version: 900,
            floors: vec![(1, 800)],
            ..BranchState::default()
        };
        let seal = Some(Seal { reason: "it is over".into(), is_protected: true });
        let fork = BranchState {
            seal,
            id: 3,
            parent: Some((0, 400)),
            is_deleted: true,
            hash: StateHash([9; 16]),
            ..main.clone()
        };
        State {
            branches_hash: StateHash([1; 16]),
            next_branch: 4,
            branches: vec![main, fork],
            keyspaces: vec![("default".into(), "kv".into()), Default::default(), ("späce".into(), "json".into())],
            policies: vec![Policy {
                branch: Some(0),
                space: Some("späce".into()),
                kind: None,
                keep: Keep { last: Some(3), for_us: Some(1 << 40), needs_both: true },
            }],
            erasures: vec![Erasure { space: None, kind: "kv".into(), key: b"k".to_vec(), is_prefix: true, upto: 900 }],
            tags: vec![Tag { name: "täg".into(), branch: 3, version: 800, created: 70, note: Some("n".into()) }],
            indexes: Vec::new(),
            next_index: 3,
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
