//! The judge: every commit is a whole copy of everything its branch shows.
//!
//! It knows no file, no log and no table, and shares no code with the kernel: a `State` is what a reader must
//! find once the database stands at that version, all branches and all older versions included.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::doc::{self, Doc, DocPath, Edit, Unfit, chain, entry};

/// (space, kind) of the keyspaces that histories use; a model's key names them by index.
pub const KEYSPACES: [(&str, &str); 4] = [("left", "kv"), ("left", "events"), ("right", "kv"), ("right", "events")];

/// How long the first result of an idempotency key is kept: semantics.md says 24 hours.
const IDEMPOTENCY_LIFETIME_US: u64 = 24 * 3600 * 1_000_000;

pub type Key = (usize, Vec<u8>);

#[derive(Debug, PartialEq)]
pub struct Value {
    pub doc: Doc,
    pub bytes: Vec<u8>,
}

/// What a key holds, and the version that put it there. A deletion is kept, for histories.
#[derive(Debug, Clone)]
pub struct Cell {
    pub version: u64,
    pub value: Option<Rc<Value>>,
    /// From then on it is not there.
    pub expires: Option<u64>,
}

impl Cell {
    fn live(&self, time: u64) -> Option<&Rc<Value>> {
        self.value.as_ref().filter(|_| self.expires.is_none_or(|expires| time < expires))
    }
}

/// How much of a key a commit changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Touch {
    Whole,
    Paths(Vec<DocPath>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    Put(Doc),
    /// For so long after its commit.
    PutFor(Doc, u64),
    Delete,
    Patch(Vec<Edit>),
    Add(i64),
    /// The key is the stream.
    Append(&'static str, Doc),
}

#[derive(Debug, Clone)]
pub struct Write {
    pub key: Key,
    pub request: Request,
}

#[derive(Debug, Clone, Default)]
struct StreamEnd {
    next: u64,
    time: u64,
    hash: [u8; 32],
}

/// One commit of one branch, and everything that the branch shows from then on.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    pub version: u64,
    pub time: u64,
    pub idempotency_key: Option<String>,
    pub contents: BTreeMap<Key, Cell>,
    pub touched: Vec<(Key, Touch)>,
    streams: BTreeMap<Key, StreamEnd>,
    /// Keyspaces that were ever written to.
    pub spaces: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
pub struct Branch {
    pub id: u32,
    pub name: String,
    pub parent: Option<(u32, u64)>,
    pub created: u64,
    pub head: u64,
    /// Oldest first, with those of its ancestors that it shows.
    pub commits: Vec<Rc<Commit>>,
}

/// All of the database at one version.
#[derive(Debug, Clone)]
pub struct State {
    pub version: u64,
    pub time: u64,
    pub next_id: u32,
    /// The living branches by id; a deleted one lives on in what its forks show.
    pub branches: BTreeMap<u32, Rc<Branch>>,
}

/// Why the kernel has to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Invalid,
    NotFound,
    Exists,
    Conflict,
}

/// Every state so far; the index is the version.
#[derive(Clone)]
pub struct Model {
    states: Vec<Rc<State>>,
}

impl Model {
    /// A new database, made at `created`.
    pub fn new(created: u64) -> Model {
        let main = Branch { id: 0, name: "main".to_owned(), parent: None, created, head: 0, commits: Vec::new() };
        let branches = BTreeMap::from([(0, Rc::new(main))]);
        Model { states: vec![Rc::new(State { version: 0, time: 0, next_id: 1, branches })] }
    }

    pub fn last(&self) -> &Rc<State> {
        self.states.last().expect("there is always version 0")
    }

    pub fn at(&self, version: u64) -> Option<&Rc<State>> {
        self.states.get(version as usize)
    }

    pub fn push(&mut self, state: State) {
        assert_eq!(state.version as usize, self.states.len(), "versions have no gaps");
        self.states.push(Rc::new(state));
    }

    /// The model of a database that ends at `version`.
    pub fn cut_at(&self, version: u64) -> Model {
        Model { states: self.states[..=version as usize].to_vec() }
    }

    /// The same, as if `key` had never held anything.
    pub fn without(&self, key: &Key) -> Model {
        let mut commits: BTreeMap<*const Commit, Rc<Commit>> = BTreeMap::new();
        let mut commit =
            |commit: &Rc<Commit>| commits.entry(Rc::as_ptr(commit)).or_insert_with(|| commit.without(key)).clone();
        let mut state = |state: &Rc<State>| {
            let mut after = (**state).clone();
            for branch in after.branches.values_mut() {
                let commits = branch.commits.iter().map(&mut commit).collect();
                *branch = Rc::new(Branch { commits, ..(**branch).clone() });
            }
            Rc::new(after)
        };
        Model { states: self.states.iter().map(&mut state).collect() }
    }
}

impl State {
    pub fn by_name(&self, name: &str) -> Option<&Rc<Branch>> {
        self.branches.values().find(|branch| branch.name == name)
    }

    /// The same at the next version.
    fn next(&self, wall: u64) -> State {
        State { version: self.version + 1, time: self.time.max(wall), ..self.clone() }
    }

    /// What the database is after `writes` as one commit, made at `wall`.
    pub fn commit(&self, id: u32, writes: &[Write], key: Option<String>, wall: u64) -> Result<State, Refusal> {
        let mut after = self.next(wall);
        let branch = self.branches.get(&id).ok_or(Refusal::NotFound)?;
        let before = branch.commits.last().map(|commit| (**commit).clone()).unwrap_or_default();
        let (version, time) = (after.version, after.time);
        let mut commit = Commit { version, time, idempotency_key: key, touched: Vec::new(), ..before };
        for write in writes {
            commit.apply(write, wall).map_err(|Unfit| Refusal::Invalid)?;
        }
        let mut branch = (**branch).clone();
        branch.head = version;
        branch.commits.push(Rc::new(commit));
        after.branches.insert(id, Rc::new(branch));
        Ok(after)
    }

    fn check_free(&self, name: &str) -> Result<(), Refusal> {
        if self.by_name(name).is_some() { Err(Refusal::Exists) } else { Ok(()) }
    }

    /// A new branch, empty or as `source` is at a version.
    pub fn branch(&self, name: &str, source: Option<(&str, u64)>, wall: u64) -> Result<State, Refusal> {
        self.check_free(name)?;
        let mut after = self.next(wall);
        let (mut parent, mut commits) = (None, Vec::new());
        if let Some((source, at)) = source {
            let source = self.by_name(source).ok_or(Refusal::NotFound)?;
            let at = at.min(source.head);
            parent = Some((source.id, at));
            commits = source.commits.iter().filter(|commit| commit.version <= at).cloned().collect();
        }
        let (id, head, created) = (self.next_id, after.version, after.time);
        let branch = Branch { id, name: name.to_owned(), parent, created, head, commits };
        after.branches.insert(id, Rc::new(branch));
        after.next_id += 1;
        Ok(after)
    }

    pub fn rename(&self, old: &str, new: &str, wall: u64) -> Result<State, Refusal> {
        let branch = self.by_name(old).ok_or(Refusal::NotFound)?;
        self.check_free(new)?;
        let mut after = self.next(wall);
        after.branches.insert(branch.id, Rc::new(Branch { name: new.to_owned(), ..(**branch).clone() }));
        Ok(after)
    }

    pub fn delete(&self, name: &str, wall: u64) -> Result<State, Refusal> {
        let id = self.by_name(name).ok_or(Refusal::NotFound)?.id;
        let mut after = self.next(wall);
        after.branches.remove(&id);
        Ok(after)
    }

    /// The version that a commit with this key gave, while it is remembered.
    pub fn first_result(&self, branch: &Branch, key: &str) -> Option<u64> {
        let newest = branch.commits.iter().rev().find(|commit| commit.idempotency_key.as_deref() == Some(key))?;
        (newest.time + IDEMPOTENCY_LIFETIME_US > self.time).then_some(newest.version)
    }
}

impl Branch {
    /// The newest commit at or below `version`.
    pub fn shown_at(&self, version: u64) -> Option<&Rc<Commit>> {
        let behind = self.commits.partition_point(|commit| commit.version <= version);
        behind.checked_sub(1).map(|index| &self.commits[index])
    }

    pub fn newest(&self) -> Option<&Rc<Commit>> {
        self.commits.last()
    }

    /// What was at `key`, and the time from when on, newest first.
    pub fn history(&self, key: &Key, at: u64) -> Vec<(Cell, u64)> {
        let mut rows = Vec::new();
        for commit in self.commits.iter().rev().filter(|commit| commit.version <= at) {
            if let Some(cell) = commit.contents.get(key).filter(|cell| cell.version == commit.version) {
                rows.push((cell.clone(), commit.time));
            }
        }
        rows
    }
}

impl Commit {
    /// What is there at a time.
    pub fn value(&self, key: &Key, time: u64) -> Option<&Rc<Value>> {
        self.contents.get(key)?.live(time)
    }

    /// The rows of a range at a time, as a scan shows them.
    pub fn rows(&self, keyspace: usize, time: u64) -> impl DoubleEndedIterator<Item = (&Vec<u8>, &Rc<Value>)> {
        let cells = self.contents.range((keyspace, Vec::new())..(keyspace + 1, Vec::new()));
        cells.filter_map(move |((_, key), cell)| Some((key, cell.live(time)?)))
    }

    /// Stream, next sequence, time and hash of the last event.
    pub fn stream_ends(&self) -> impl Iterator<Item = (&Key, u64, u64, [u8; 32])> {
        self.streams.iter().map(|(stream, end)| (stream, end.next, end.time, end.hash))
    }

    pub fn stream_length(&self, stream: &Key) -> u64 {
        self.streams.get(stream).map_or(0, |end| end.next)
    }

    fn without(&self, key: &Key) -> Rc<Commit> {
        let mut after = self.clone();
        after.contents.remove(key);
        after.touched.retain(|(other, _)| other != key);
        Rc::new(after)
    }

    fn apply(&mut self, write: &Write, wall: u64) -> Result<(), Unfit> {
        let key = &write.key;
        let cell = self.contents.get(key).filter(|cell| cell.live(wall).is_some());
        let before = cell.and_then(|cell| cell.value.as_ref()).map(|value| value.doc.clone());
        // A change of what there is leaves when it expires.
        let expires = cell.and_then(|cell| cell.expires);
        match &write.request {
            Request::Put(doc) => self.set(key, Some(doc.clone()), Touch::Whole, None),
            Request::PutFor(doc, us) => self.set(key, Some(doc.clone()), Touch::Whole, Some(self.time + us)),
            Request::Delete if before.is_none() => {}
            Request::Delete => self.set(key, None, Touch::Whole, None),
            Request::Add(delta) => match before {
                None => self.set(key, Some(Doc::Int(*delta)), Touch::Whole, None),
                Some(Doc::Int(int)) => self.set(key, Some(Doc::Int(int + delta)), Touch::Whole, expires),
                Some(_) => return Err(Unfit),
            },
            Request::Patch(edits) => {
                // Where deletes find no document there is nothing to change.
                if let Some(after) = doc::patch(before.as_ref(), edits)? {
                    let paths = edits.iter().map(|edit| edit.path().clone()).collect();
                    let expires = expires.filter(|_| !doc::replaces(edits));
                    self.set(key, Some(after), Touch::Paths(paths), expires);
                }
            }
            Request::Append(kind, value) => self.append(key, kind, value),
        }
        Ok(())
    }

    fn append(&mut self, stream: &Key, kind: &str, value: &Doc) {
        let end = self.streams.entry(stream.clone()).or_default();
        let sequence = end.next;
        end.time = self.time;
        end.hash = chain(end.hash, sequence, kind, end.time, value);
        end.next += 1;
        let stored = entry(kind, end.time, value, end.hash);
        let key = (stream.0, [&stream.1[..], &sequence.to_be_bytes()].concat());
        self.set(&key, Some(stored), Touch::Whole, None);
    }

    fn set(&mut self, key: &Key, doc: Option<Doc>, touch: Touch, expires: Option<u64>) {
        let value = doc.map(|doc| Rc::new(Value { bytes: doc.encode(), doc }));
        self.contents.insert(key.clone(), Cell { version: self.version, value, expires });
        self.spaces.insert(key.0);
        self.touched.push((key.clone(), touch));
    }
}
