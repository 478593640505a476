//! A transaction as the judge sees it: what it must read, and whether it must conflict.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::doc::{self, Doc, DocPath, Edit, Unfit, overlap, provisional_entry};
use crate::model::{Branch, Commit, Key, Refusal, Request, State, Touch, Value, Write};

#[derive(Debug, Clone)]
enum Read {
    Key(Key),
    Path(Key, DocPath),
    /// `start <= key < end` of a keyspace.
    Range(usize, Vec<u8>, Option<Vec<u8>>),
}

/// What all the writes to one key come to, for those that come first.
#[derive(Debug, Clone)]
enum Claim {
    /// The outcome does not depend on what is there.
    Absolute,
    Paths(Vec<DocPath>),
    Added,
    /// The place is provisional: appends queue, and never meet.
    Appended,
}

#[derive(Debug, Clone)]
pub enum Condition {
    Absent,
    Version(u64),
    Value(Doc),
}

pub struct Draft {
    pub branch: u32,
    pub snapshot: u64,
    /// When it began.
    time: u64,
    pub is_serializable: bool,
    pub idempotency_key: Option<String>,
    base: Rc<Commit>,
    reads: Vec<Read>,
    writes: Vec<Write>,
    claims: BTreeMap<Key, Claim>,
    view: BTreeMap<Key, Option<Doc>>,
    conditions: Vec<(Key, Condition)>,
}

impl Draft {
    pub fn new(branch: &Branch, time: u64, is_serializable: bool, idempotency_key: Option<String>) -> Draft {
        Draft {
            branch: branch.id,
            snapshot: branch.head,
            time,
            is_serializable,
            idempotency_key,
            base: branch.newest().cloned().unwrap_or_default(),
            reads: Vec::new(),
            writes: Vec::new(),
            claims: BTreeMap::new(),
            view: BTreeMap::new(),
            conditions: Vec::new(),
        }
    }

    fn look(&self, key: &Key) -> Option<Doc> {
        match self.view.get(key) {
            Some(own) => own.clone(),
            None => self.base.value(key, self.time).map(|value| value.doc.clone()),
        }
    }

    fn relies_on(&self, key: &Key) -> bool {
        !matches!(self.claims.get(key), Some(Claim::Absolute | Claim::Appended))
    }

    pub fn get(&mut self, key: &Key) -> Option<Doc> {
        if self.relies_on(key) {
            self.reads.push(Read::Key(key.clone()));
        }
        self.look(key)
    }

    pub fn get_path(&mut self, key: &Key, path: &DocPath) -> Option<Doc> {
        if self.relies_on(key) {
            self.reads.push(Read::Path(key.clone(), path.clone()));
        }
        self.look(key)?.at(path).cloned()
    }

    /// At most `limit` rows; only what had to be looked at for them was read.
    pub fn scan(&mut self, keyspace: usize, range: (Vec<u8>, Option<Vec<u8>>), reverse: bool, limit: usize) -> Rows {
        let (mut start, mut end) = range;
        let mut rows = self.all_rows(keyspace);
        rows.retain(|(key, _)| *key >= start && end.as_ref().is_none_or(|end| key < end));
        if reverse {
            rows.reverse();
        }
        rows.truncate(limit);
        if rows.len() == limit {
            let last = rows.last().expect("limits are not 0").0.clone();
            if reverse { start = last } else { end = Some([&last[..], &[0]].concat()) }
        }
        self.reads.push(Read::Range(keyspace, start, end));
        rows
    }

    fn all_rows(&self, keyspace: usize) -> Rows {
        let mut rows: BTreeMap<Vec<u8>, Vec<u8>> =
            self.base.rows(keyspace, self.time).map(|(key, value)| (key.clone(), value.bytes.clone())).collect();
        for ((_, key), doc) in self.view.iter().filter(|((own, _), _)| *own == keyspace) {
            match doc {
                Some(doc) => drop(rows.insert(key.clone(), doc.encode())),
                None => drop(rows.remove(key)),
            }
        }
        rows.into_iter().collect()
    }

    /// Note a write; `Unfit` when it cannot work on what this transaction sees, and then it has no effect.
    pub fn write(&mut self, key: &Key, request: Request) -> Result<(), Unfit> {
        let before = self.look(key);
        let (after, claim) = match &request {
            Request::Put(doc) | Request::PutFor(doc, _) => (Some(doc.clone()), Claim::Absolute),
            Request::Delete => (None, Claim::Absolute),
            Request::Add(delta) => match before {
                None => (Some(Doc::Int(*delta)), Claim::Added),
                Some(Doc::Int(int)) => (Some(Doc::Int(int + delta)), Claim::Added),
                Some(_) => return Err(Unfit),
            },
            Request::Patch(edits) => {
                let paths: Vec<DocPath> = edits.iter().map(|edit| edit.path().clone()).collect();
                (doc::patch(before.as_ref(), edits)?, Claim::Paths(paths))
            }
            Request::Append(..) => unreachable!("see append"),
        };
        self.claim(key, claim);
        self.view.insert(key.clone(), after);
        self.writes.push(Write { key: key.clone(), request });
        Ok(())
    }

    /// Patches and additions to one key of one transaction are not mixed: which comes first would matter.
    pub fn allows(&self, key: &Key, request: &Request) -> bool {
        !matches!(
            (self.claims.get(key), request),
            (Some(Claim::Added), Request::Patch(_)) | (Some(Claim::Paths(_)), Request::Add(_))
        )
    }

    fn claim(&mut self, key: &Key, claim: Claim) {
        let claims = match (self.claims.remove(key), claim) {
            (Some(Claim::Absolute), _) | (_, Claim::Absolute) => Claim::Absolute,
            (Some(Claim::Paths(mut before)), Claim::Paths(more)) => {
                before.extend(more);
                Claim::Paths(before)
            }
            (_, claim) => claim,
        };
        self.claims.insert(key.clone(), claims);
    }

    /// Returns the provisional sequence.
    pub fn append(&mut self, stream: &Key, kind: &'static str, value: Doc) -> u64 {
        let same = |write: &&Write| write.key == *stream && matches!(write.request, Request::Append(..));
        let sequence = self.base.stream_length(stream) + self.writes.iter().filter(same).count() as u64;
        let key = (stream.0, [&stream.1[..], &sequence.to_be_bytes()].concat());
        self.claims.insert(key.clone(), Claim::Appended);
        self.view.insert(key, Some(provisional_entry(kind, &value)));
        self.writes.push(Write { key: stream.clone(), request: Request::Append(kind, value) });
        sequence
    }

    pub fn expect(&mut self, key: &Key, condition: Condition) {
        self.conditions.push((key.clone(), condition));
    }

    /// What committing gives: a new state, or (no commit) the version that is returned.
    pub fn commit(&self, state: &State, wall: u64) -> Result<Result<State, u64>, Refusal> {
        let is_read_only = self.writes.is_empty() && self.conditions.is_empty();
        if is_read_only && self.idempotency_key.is_none() {
            return Ok(Err(self.snapshot));
        }
        let branch = state.branches.get(&self.branch).ok_or(Refusal::NotFound)?;
        if let Some(first) = self.idempotency_key.as_ref().and_then(|key| state.first_result(branch, key)) {
            return Ok(Err(first));
        }
        if self.must_conflict(branch, wall) {
            return Err(Refusal::Conflict);
        }
        state.commit(self.branch, &self.net_writes(), self.idempotency_key.clone(), wall).map(Ok)
    }

    /// The writes with one for each key, whatever was written to it in between.
    fn net_writes(&self) -> Vec<Write> {
        let mut net = Vec::new();
        for (key, claim) in &self.claims {
            let requests = self.writes.iter().filter(|write| write.key == *key).map(|write| &write.request);
            let request = match claim {
                Claim::Appended => continue,
                Claim::Absolute => match (self.view[key].clone(), requests.fold(None, time_to_live)) {
                    (None, _) => Request::Delete,
                    (Some(doc), None) => Request::Put(doc),
                    (Some(doc), Some(us)) => Request::PutFor(doc, us),
                },
                Claim::Paths(_) => Request::Patch(requests.flat_map(edits_of).cloned().collect()),
                Claim::Added => Request::Add(requests.map(delta_of).sum()),
            };
            net.push(Write { key: key.clone(), request });
        }
        net.extend(self.writes.iter().filter(|write| matches!(write.request, Request::Append(..))).cloned());
        net
    }

    fn must_conflict(&self, branch: &Branch, wall: u64) -> bool {
        let later = branch.commits.iter().filter(|commit| commit.version > self.snapshot);
        let mut changes = later.flat_map(|commit| &commit.touched);
        changes.any(|(key, touch)| {
            let read = self.is_serializable && self.reads.iter().any(|read| sees(read, key, touch));
            read || self.claims.get(key).is_some_and(|claim| self.meets(claim, touch))
        }) || !self.conditions.iter().all(|(key, condition)| holds(branch, key, condition, wall))
    }

    fn meets(&self, claim: &Claim, touch: &Touch) -> bool {
        match claim {
            Claim::Paths(paths) => paths.iter().any(|path| touches(touch, path)),
            Claim::Absolute => !self.is_serializable,
            Claim::Added | Claim::Appended => false,
        }
    }
}

pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn edits_of(request: &Request) -> &[Edit] {
    if let Request::Patch(edits) = request { edits } else { &[] }
}

fn delta_of(request: &Request) -> i64 {
    if let Request::Add(delta) = request { *delta } else { 0 }
}

/// How long what was put lives, after one more request.
fn time_to_live(before: Option<u64>, request: &Request) -> Option<u64> {
    match request {
        Request::PutFor(_, us) => Some(*us),
        Request::Put(_) | Request::Delete => None,
        Request::Patch(edits) if doc::replaces(edits) => None,
        Request::Patch(_) | Request::Add(_) | Request::Append(..) => before,
    }
}

fn sees(read: &Read, key: &Key, touch: &Touch) -> bool {
    match read {
        Read::Key(read) => read == key,
        Read::Path(read, path) => read == key && touches(touch, path),
        Read::Range(keyspace, start, end) => {
            *keyspace == key.0 && key.1 >= *start && end.as_ref().is_none_or(|end| key.1 < *end)
        }
    }
}

fn touches(touch: &Touch, path: &[&str]) -> bool {
    match touch {
        Touch::Whole => true,
        Touch::Paths(paths) => paths.iter().any(|touched| overlap(touched, path)),
    }
}

fn holds(branch: &Branch, key: &Key, condition: &Condition, wall: u64) -> bool {
    let live = |commit: &&Rc<Commit>| commit.value(key, wall).is_some();
    let cell = branch.newest().filter(live).and_then(|commit| commit.contents.get(key));
    match (condition, cell) {
        (Condition::Absent, cell) => cell.is_none(),
        (Condition::Version(version), Some(cell)) => cell.version == *version,
        (Condition::Value(doc), Some(cell)) => cell.value.as_ref().is_some_and(|value: &Rc<Value>| value.doc == *doc),
        (_, None) => false,
    }
}
