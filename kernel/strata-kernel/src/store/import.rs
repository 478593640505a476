//! Import: a bundle becomes a database of its own.
//!
//! The bundle is read twice: once to check all of it, when nothing is written, and once to write. Both times it is read with
//! the same doubt. Of a bundle of the newest, each branch becomes one commit; one of all history keeps its versions.

use std::collections::{BTreeMap, BTreeSet};

use super::checkpoint::write_commits;
use super::export::Bundle;
use super::fresh::Fresh;
use crate::branch::decode_chunk;
use crate::bundle::{BundleReader, Item, Place};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::keyspaces::{CATALOGUE, COMMITS, IDEMPOTENCY, NOTES, catalogue_key};
use crate::log::{Stamp, StateHash};
use crate::manifest::Manifest;
use crate::payload::{Meta, Note, Number};
use crate::run::RunWriter;
use crate::seal::GivenKeys;
use crate::state::{BranchState, State, Tag};
use crate::store::branches::MAIN;
use crate::table::{ChangeKind, Version};
use crate::value;
use crate::value::path::Path;

/// The year 10000: no calendar that we know of goes on.
const TIME_MAX: u64 = 253_402_300_800_000_000;
const VERSION_MAX: u64 = i64::MAX as u64;
const NAME_BYTES_MAX: usize = 255;

/// Read a bundle to its end and say what it holds. `Corrupt` where it is not as an export wrote it.
pub fn verify_bundle(bundle: &Env, name: &str, keys: Option<&GivenKeys>) -> Result<Bundle> {
    Ok(check(bundle, name, keys)?.0)
}

/// Make the database `target` in the directory that `outside` stands for of a bundle. It is sealed with the current one of
/// `keys`; any of them opens the bundle.
pub fn import(bundle: &Env, name: &str, outside: &Env, target: &str, keys: Option<&GivenKeys>) -> Result<Bundle> {
    super::fresh::check_free(&*outside.disk, target, "database")?;
    let (found, contents) = check(bundle, name, keys)?;
    let fresh = Fresh::begin(outside, target, keys)?;
    let mut writer = fresh.run()?;
    let mut reader = BundleReader::open(&*bundle.disk, name, keys)?;
    let manifest = match contents {
        Contents::Newest(branches) => Newest::new(branches, found.digest, outside).write(&mut reader, &mut writer)?,
        Contents::History(newest, state) => {
            copy_history(&mut reader, &mut writer)?;
            let (checkpoint_version, checkpoint_time) = (newest.version, newest.time);
            Manifest { checkpoint_version, checkpoint_time, state: with_main(*state), ..Manifest::default() }
        }
    };
    if reader.digest() != Some(found.digest) {
        return Err(reader.wrong("it changed while it was read"));
    }
    fresh.finish(writer, manifest)?;
    Ok(found)
}

enum Contents {
    /// Each branch with its spaces and kinds.
    Newest(BTreeMap<String, Names>),
    History(Stamp, Box<State>),
}

type Names = BTreeSet<(String, String)>;

fn check(bundle: &Env, name: &str, keys: Option<&GivenKeys>) -> Result<(Bundle, Contents)> {
    let mut reader = BundleReader::open(&*bundle.disk, name, keys)?;
    let has_history = reader.has_history();
    let contents = if has_history { check_history(&mut reader)? } else { check_newest(&mut reader)? };
    let branches = match &contents {
        Contents::Newest(branches) => branches.keys().cloned().collect(),
        Contents::History(_, state) => {
            let live = state.branches.iter().filter(|branch| !branch.is_deleted);
            BTreeSet::from_iter(live.map(|branch| branch.name.clone())).into_iter().collect()
        }
    };
    let (rows, bytes) = (reader.count(), reader.size());
    let digest = reader.digest().ok_or_else(|| reader.wrong("it has no end"))?;
    let key = Some(reader.key_id()).filter(|key| !key.is_none());
    Ok((Bundle { has_history, branches, rows, bytes, digest, key }, contents))
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control)
}

// --- the newest ------------------------------------------------------------------------------------

fn check_newest(reader: &mut BundleReader) -> Result<Contents> {
    let mut branches: BTreeMap<String, Names> = BTreeMap::new();
    let mut takes_rows = false;
    loop {
        let fault = match reader.item()? {
            None => return Ok(Contents::Newest(branches)),
            Some(Item::Place(Place::Named { branch, space, kind })) => {
                takes_rows = !kind.is_empty();
                if space.is_empty() {
                    let is_new = is_name(branch) && branches.insert(branch.clone(), Names::new()).is_none();
                    if is_new && !takes_rows { None } else { Some("a branch has no such name") }
                } else {
                    let is_good = is_name(space) && (kind.is_empty() || is_name(kind));
                    match branches.get_mut(branch).filter(|_| is_good) {
                        Some(names) => {
                            names.insert((space.clone(), kind.clone()));
                            None
                        }
                        None => Some("a space has no such name"),
                    }
                }
            }
            Some(Item::Row(_, row)) if takes_rows && row.kind == ChangeKind::Put => {
                row.value.and_then(|value| value::check(value).err()).map(|_| "a value cannot be read")
            }
            Some(_) => Some("there is what cannot be here"),
        };
        if let Some(fault) = fault {
            return Err(reader.wrong(fault));
        }
    }
}

/// What writes the newest of each branch as a commit.
struct Newest {
    branches: BTreeMap<String, Names>,
    keyspaces: Vec<(String, String)>,
    digest: [u8; 32],
    time: u64,
    states: Vec<BranchState>,
}

impl Newest {
    fn new(mut branches: BTreeMap<String, Names>, digest: [u8; 32], env: &Env) -> Newest {
        branches.entry(MAIN.to_owned()).or_default();
        let keyspaces = BTreeSet::from_iter(branches.values().flatten().cloned()).into_iter().collect();
        Newest { branches, keyspaces, digest, time: env.clock.wall_us(), states: Vec::new() }
    }

    fn write(mut self, reader: &mut BundleReader, writer: &mut RunWriter) -> Result<Manifest> {
        let mut keyspace = 0;
        loop {
            match reader.item()? {
                None => break,
                Some(Item::Place(Place::Named { branch, space, kind })) if space.is_empty() => {
                    debug_assert!(kind.is_empty());
                    let branch = branch.clone();
                    self.begin(&branch, writer)?;
                }
                Some(Item::Place(Place::Named { space, kind, .. })) => {
                    let names = (space.clone(), kind.clone());
                    keyspace = self.number(&names).ok_or_else(|| reader.wrong("it changed while it was read"))?;
                }
                Some(Item::Row(key, row)) => {
                    let (branch, version) = (self.states.len() as u32 - 1, self.version());
                    writer.add(branch, keyspace, key, &Version { version, ..row })?;
                }
                Some(_) => return Err(reader.wrong("it changed while it was read")),
            }
        }
        self.begin_until(None, writer)?;
        self.end(writer)?;
        let checkpoint_version = self.states.iter().map(|branch| branch.version).max().unwrap_or(0);
        let state = State {
            next_branch: self.states.len() as u32,
            branches: self.states,
            keyspaces: self.keyspaces,
            ..State::default()
        };
        Ok(Manifest { checkpoint_version, checkpoint_time: self.time, state, ..Manifest::default() })
    }

    fn number(&self, names: &(String, String)) -> Option<u32> {
        self.keyspaces.binary_search(names).ok().map(|index| index as u32 + 1)
    }

    /// The version of the branch that is being written.
    fn version(&self) -> u64 {
        self.states.len() as u64
    }

    fn begin(&mut self, name: &str, writer: &mut RunWriter) -> Result<()> {
        self.begin_until(Some(name), writer)?;
        self.begin_next(name, writer)
    }

    /// `main`, where the bundle does not have it, comes in its place among the others.
    fn begin_until(&mut self, name: Option<&str>, writer: &mut RunWriter) -> Result<()> {
        let has_main = self.states.iter().any(|branch| branch.name == MAIN);
        if !has_main && name.is_none_or(|name| name > MAIN) { self.begin_next(MAIN, writer) } else { Ok(()) }
    }

    fn begin_next(&mut self, name: &str, writer: &mut RunWriter) -> Result<()> {
        self.end(writer)?;
        let id = self.states.len() as u32;
        self.states.push(BranchState { id, name: name.to_owned(), created: self.time, ..BranchState::default() });
        let version = self.version();
        for names in self.branches.get(name).into_iter().flatten() {
            let number = self.number(names).expect("all names have numbers");
            let value = Number::Int(i64::from(number)).to_value();
            let row = Version { version, ..Version::own(Some(&value)) };
            writer.add(id, CATALOGUE, &catalogue_key(&names.0, &names.1), &row)?;
        }
        Ok(())
    }

    /// The branch that was being written is whole: write its commit.
    fn end(&mut self, writer: &mut RunWriter) -> Result<()> {
        let (version, time) = (self.version(), self.time);
        let Some(branch) = self.states.last_mut() else { return Ok(()) };
        if self.branches.get(&branch.name).is_none_or(Names::is_empty) {
            return Ok(());
        }
        let hash = StateHash::next(StateHash::default(), version, time, &self.digest);
        (branch.version, branch.hash) = (version, hash);
        let meta = Meta { message: Some("import".to_owned()), ..Meta::default() };
        if let Some(note) = Note::encode(&meta, &[]) {
            let row = Version { version, ..Version::own(Some(&note)) };
            writer.add(branch.id, NOTES, &version.to_be_bytes(), &row)?;
        }
        write_commits(writer, branch.id, &[Stamp { version, time, hash }])
    }
}

// --- all history -----------------------------------------------------------------------------------

fn check_history(reader: &mut BundleReader) -> Result<Contents> {
    let head = match reader.item()? {
        Some(Item::Head(newest, state)) => State::decode(state).ok().map(|state| (newest, state)),
        _ => None,
    };
    let (newest, state) = head.ok_or_else(|| reader.wrong("the head cannot be read"))?;
    if let Some(fault) = fault_of(&newest, &state) {
        return Err(reader.wrong(fault));
    }
    let mut checker = Checker { state: &state, newest, branch: None, keyspace: 0, last: Stamp::default() };
    loop {
        let fault = match reader.item()? {
            None => break,
            Some(Item::Place(Place::Numbered(branch, keyspace))) => checker.place(*branch, *keyspace),
            Some(Item::Row(key, row)) => checker.row(key, &row),
            Some(_) => Some("there is what cannot be here"),
        };
        if let Some(fault) = fault {
            return Err(reader.wrong(fault));
        }
    }
    Ok(Contents::History(newest, Box::new(state)))
}

/// What is wrong with a head.
fn fault_of(newest: &Stamp, state: &State) -> Option<&'static str> {
    let mut names = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for branch in &state.branches {
        if !is_name(&branch.name) || (!branch.is_deleted && !names.insert(&branch.name)) {
            return Some("a branch has no such name");
        }
        if branch.parent.is_some_and(|(parent, fork)| !ids.contains(&parent) || fork > newest.version) {
            return Some("a branch has no such parent");
        }
        if branch.version > newest.version || branch.created >= TIME_MAX {
            return Some("a branch is newer than all");
        }
        ids.insert(branch.id);
    }
    let is_tag = |tag: &Tag| is_name(&tag.name) && ids.contains(&tag.branch) && tag.version <= newest.version;
    if !state.tags.iter().all(is_tag) || !state.tags.is_sorted_by(|a, b| a.name < b.name) {
        return Some("a tag names nothing");
    }
    let is_known = |(space, kind): &(String, String)| {
        (space.is_empty() && kind.is_empty()) || (is_name(space) && (kind.is_empty() || is_name(kind)))
    };
    if !state.keyspaces.iter().all(is_known) || state.keyspaces.len() >= COMMITS as usize / 2 {
        return Some("a space has no such name");
    }
    let too_new = newest.version > VERSION_MAX || newest.time >= TIME_MAX || state.next_branch == u32::MAX;
    too_new.then_some("it is newer than can be")
}

struct Checker<'a> {
    state: &'a State,
    newest: Stamp,
    branch: Option<&'a BranchState>,
    keyspace: u32,
    /// The commit before.
    last: Stamp,
}

impl<'a> Checker<'a> {
    fn place(&mut self, branch: u32, keyspace: u32) -> Option<&'static str> {
        let branches = &self.state.branches;
        self.branch = branches.binary_search_by_key(&branch, |branch| branch.id).ok().map(|index| &branches[index]);
        self.keyspace = keyspace;
        self.last = Stamp::default();
        let named = || self.state.keyspaces.get(keyspace as usize - 1).is_some_and(|(space, _)| !space.is_empty());
        let is_known = [CATALOGUE, COMMITS, NOTES, IDEMPOTENCY].contains(&keyspace) || named();
        (self.branch.is_none() || !is_known).then_some("there are rows of no place")
    }

    fn row(&mut self, key: &[u8], row: &Version<'_>) -> Option<&'static str> {
        let Some(branch) = self.branch else { return Some("there are rows of no place") };
        let bound = if self.keyspace == COMMITS { self.newest.version } else { branch.version };
        if row.version == 0 || row.version > bound {
            return Some("a row has no such version");
        }
        if row.value.is_some_and(|value| value::check(value).is_err()) || !are_paths(row.touched) {
            return Some("a value cannot be read");
        }
        match self.keyspace {
            COMMITS => self.commits(key, row, branch),
            CATALOGUE => self.catalogue(key, row),
            NOTES if row.value.is_none_or(|value| Note::decode(value).is_err()) => Some("a note cannot be read"),
            _ => None,
        }
    }

    /// Commits ascend, and the last is the branch's newest.
    fn commits(&mut self, key: &[u8], row: &Version<'_>, branch: &BranchState) -> Option<&'static str> {
        let Ok(chunk) = decode_chunk(row.value.unwrap_or_default()) else { return Some("commits cannot be read") };
        let first = chunk[0].version;
        if key != first.to_be_bytes() || row.version != first {
            return Some("commits are not where they belong");
        }
        for commit in chunk {
            let is_next = commit.version > self.last.version && commit.time >= self.last.time;
            if !is_next || commit.version > branch.version || commit.time >= TIME_MAX {
                return Some("commits are not in order");
            }
            self.last = commit;
        }
        None
    }

    fn catalogue(&self, key: &[u8], row: &Version<'_>) -> Option<&'static str> {
        let number = match row.value.and_then(Number::decode) {
            Some(Number::Int(number)) => usize::try_from(number).ok(),
            _ => None,
        };
        let named = number.and_then(|number| self.state.keyspaces.get(number.checked_sub(1)?));
        let is_right = named.is_some_and(|(space, kind)| catalogue_key(space, kind) == key);
        (!is_right).then_some("the catalogue contradicts itself")
    }
}

pub(super) fn are_paths(mut touched: &[u8]) -> bool {
    while !touched.is_empty() {
        match Path::decode(touched) {
            Ok((_, used)) if used > 0 => touched = &touched[used..],
            _ => return false,
        }
    }
    true
}

fn copy_history(reader: &mut BundleReader, writer: &mut RunWriter) -> Result<()> {
    let mut place = (0, 0);
    loop {
        match reader.item()? {
            None => return Ok(()),
            Some(Item::Head(..)) => {}
            Some(Item::Place(Place::Numbered(branch, keyspace))) => place = (*branch, *keyspace),
            Some(Item::Row(key, row)) => writer.add(place.0, place.1, key, &row)?,
            Some(Item::Place(_)) => return Err(Error::Internal("a history has names".to_owned())),
        }
    }
}

/// A database has the branch that it is opened with.
pub(super) fn with_main(mut state: State) -> State {
    if !state.branches.iter().any(|branch| branch.name == MAIN && !branch.is_deleted) {
        let created = state.branches.iter().map(|branch| branch.created).max().unwrap_or(0);
        let main = BranchState { id: state.next_branch, name: MAIN.to_owned(), created, ..BranchState::default() };
        state.branches.push(main);
        state.next_branch += 1;
    }
    state
}
