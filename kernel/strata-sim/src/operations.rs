//! Operations on one branch, on the whole store, and looks at it.

use strata_kernel::Error;
use strata_kernel::branch::Branch as StoreBranch;
use strata_kernel::change::{Expiry, What, Write as StoreWrite};
use strata_kernel::payload::Number;
use strata_kernel::store::Store;
use strata_kernel::value::{Op, Path, Step};

use crate::compare;
use crate::doc::Edit;
use crate::driver::{Check, Driver, Predicted};
use crate::indexed;
use crate::model::{Branch, KEYSPACES, Key, Request, Write};

/// A write with the bytes that the store borrows.
pub struct Encoded {
    bytes: Vec<u8>,
    ops: Vec<Op>,
}

impl Encoded {
    pub fn of(request: &Request) -> Encoded {
        let (mut bytes, mut ops) = (Vec::new(), Vec::new());
        match request {
            Request::Put(doc) | Request::PutFor(doc, _) | Request::Append(_, doc) => bytes = doc.encode(),
            Request::Patch(edits) => ops = store_ops(edits),
            Request::Delete | Request::Add(_) => {}
        }
        Encoded { bytes, ops }
    }
}

pub fn store_ops(edits: &[Edit]) -> Vec<Op> {
    let op = |edit: &Edit| match edit {
        Edit::Set(path, value) => Op::Set { path: store_path(path), value: value.encode() },
        Edit::Delete(path) => Op::Delete { path: store_path(path) },
    };
    edits.iter().map(op).collect()
}

pub fn store_path(path: &[&str]) -> Path {
    Path(path.iter().map(|step| Step::Key((*step).to_owned())).collect())
}

impl Driver {
    /// At most `count` writes that rely on nothing read, as one commit.
    pub fn write(&mut self, count: usize) -> Check {
        let writes = self.any_writes(count);
        self.write_to(self.any_branch(), writes)
    }

    pub fn write_to(&mut self, branch: &str, writes: Vec<Write>) -> Check {
        self.tell(format!("write {} to {branch}", Outline(&writes)));
        let before = self.before();
        let state = self.state();
        let predicted = match state.by_name(branch) {
            Some(branch) => state.commit(branch.id, &writes, None, self.wall()).map(Ok),
            None => Err(crate::model::Refusal::NotFound),
        };
        let encoded: Vec<Encoded> = writes.iter().map(|write| Encoded::of(&write.request)).collect();
        let requests: Vec<StoreWrite<'_>> =
            writes.iter().zip(&encoded).map(|(write, encoded)| store_write(&self.numbers, write, encoded)).collect();
        let got = self.store().branch(branch).and_then(|branch| self.store().write(&branch, &requests));
        drop(requests);
        self.settle(predicted, got.map(|committed| committed.version), before)
    }

    /// Delete some keys; those that do not exist need no commit.
    pub fn delete_keys(&mut self) -> Check {
        let keyspace = self.any_key().0;
        let keys: Vec<Vec<u8>> = (0..1 + self.below(3)).map(|_| self.any_key().1).collect();
        let name = self.any_branch();
        self.tell(format!("delete {keys:?} of keyspace {keyspace} on {name}"));
        let before = self.before();
        let got =
            self.store().branch(name).and_then(|branch| self.store().delete(&branch, self.numbers[keyspace], &keys));
        let state = self.state();
        let Some(branch) = state.by_name(name) else {
            return self.settle(Err(crate::model::Refusal::NotFound), got.map(|_| 0), before);
        };
        let mut present = present_keys(branch, keyspace, keys, self.wall());
        let count = present.len();
        if got.as_ref().is_ok_and(|found| *found != count) {
            return Err(format!("{got:?} keys were deleted, {count} were there"));
        }
        let delete = |key| Write { key, request: Request::Delete };
        let writes: Vec<Write> = present.drain(..).map(delete).collect();
        let predicted: Predicted = match count {
            0 => Ok(Err(0)),
            _ => state.commit(branch.id, &writes, None, self.wall()).map(Ok),
        };
        let version = predicted.as_ref().ok().and_then(|outcome| outcome.as_ref().ok()).map_or(0, |next| next.version);
        self.settle(predicted, got.map(|_| version), before)
    }

    pub fn flush(&mut self) -> Check {
        self.tell("flush".to_owned());
        let was_poisoned = self.poisoned();
        match self.store().flush() {
            Ok(version) if version == self.model.last().version && !was_poisoned => {
                self.refresh();
                Ok(())
            }
            Err(Error::Storage { .. }) if self.faults && self.poisoned() => Ok(()),
            other => Err(format!("flush gave {other:?} at version {}", self.model.last().version)),
        }
    }

    /// Make the runs hold everything.
    pub fn checkpoint(&mut self) -> Check {
        self.tell("checkpoint".to_owned());
        let (was_poisoned, version) = (self.poisoned(), self.model.last().version);
        let made = self.with_others(Store::checkpoint)?;
        match made {
            // Others may have committed before the cut.
            Ok(made) if (version..=self.model.last().version).contains(&made.version) && !was_poisoned => {
                self.refresh();
                Ok(())
            }
            Err(Error::Storage { .. }) if self.faults => Ok(()),
            // A read that gives less than there is looks like damage.
            Err(Error::Corrupt { .. }) if self.short_reads => Ok(()),
            other => Err(format!("a checkpoint gave {other:?} at version {version}")),
        }
    }

    /// Merge all runs; nobody notices.
    pub fn compact(&mut self) -> Check {
        self.tell("compact".to_owned());
        let was_poisoned = self.poisoned();
        match self.with_others(|store| store.compact(&mut |_, _| Ok(())))? {
            Ok(_) if !was_poisoned => {
                self.refresh();
                Ok(())
            }
            Err(Error::Storage { .. }) if self.faults => Ok(()),
            Err(Error::Corrupt { .. }) if self.short_reads => Ok(()),
            other => Err(format!("compaction gave {other:?}")),
        }
    }

    /// Close and open again, as programs do that end and start.
    pub fn reopen(&mut self) -> Check {
        self.tell("reopen".to_owned());
        let was_poisoned = self.poisoned();
        let begin = self.moment();
        let Some(store) = self.let_go() else { return Ok(()) };
        let closed = store.close();
        if store.check_open().is_ok() {
            return Err("a closed store is open".to_owned());
        }
        drop(store);
        match closed {
            Ok(()) if was_poisoned => return Err("a poisoned store closed as if all were well".to_owned()),
            Ok(()) => {}
            // What comes next is for whoever planned the fault.
            Err(Error::Storage { .. }) if self.faults => return Ok(()),
            Err(error) => return Err(format!("closing failed: {error}")),
        }
        self.notes.durable(self.moment(), self.published);
        match self.start() {
            Ok(()) => {}
            // A read that gives less than there is looks like a file that was cut: told, if not by its name.
            Err(Error::Storage { .. } | Error::Corrupt { .. }) if self.faults => return Ok(()),
            Err(error) => return Err(format!("opening after a clean close failed: {error}")),
        }
        self.busy.push(begin..self.moment());
        if self.store().recovered.cut_bytes != 0 {
            return Err("a clean close left something to cut".to_owned());
        }
        self.look()
    }

    /// Compare what readers see with the model.
    pub fn look(&mut self) -> Check {
        self.tell("look".to_owned());
        let state = self.state();
        let seen = compare::heads(self.store(), &self.numbers, &state);
        self.excuse(seen)?;
        self.excuse(indexed::heads(self.store(), &self.numbers, &state))?;
        if self.below(4) > 0 {
            return Ok(());
        }
        let seen = compare::everything(self.store(), &self.numbers, &state, &self.care);
        self.excuse(seen)?;
        self.excuse(indexed::versions(self.store(), &self.numbers, &state, &self.care))
    }

    /// Where a disk fails, so may a read that comes to it, if it says so. A read that gives less than there is looks like
    /// damage.
    pub fn excuse(&self, seen: Check) -> Check {
        let told = |why: &String| {
            ["simulated failure", " is damaged at byte ", "Corrupt {"].iter().any(|told| why.contains(told))
        };
        seen.or_else(|why| if self.faults && told(&why) { Ok(()) } else { Err(why) })
    }

    pub fn number(&self, key: &Key) -> u32 {
        self.numbers[key.0]
    }

    pub fn handle(&self, id: u32) -> Option<&std::sync::Arc<StoreBranch>> {
        self.handles.get(&id)
    }
}

pub fn store_write<'a>(numbers: &[u32; KEYSPACES.len()], write: &'a Write, encoded: &'a Encoded) -> StoreWrite<'a> {
    let what = match &write.request {
        Request::Put(_) => What::Put(&encoded.bytes),
        Request::PutFor(_, us) => What::PutFor(&encoded.bytes, Expiry::After(*us)),
        Request::Delete => What::Delete,
        Request::Patch(_) => What::Patch(&encoded.ops, None),
        Request::Add(delta) => What::Add(Number::Int(*delta)),
        Request::Append(kind, _) => What::Append { kind, value: &encoded.bytes, origin: None },
    };
    StoreWrite { keyspace: numbers[write.key.0], key: &write.key.1, what }
}

fn present_keys(branch: &Branch, keyspace: usize, keys: Vec<Vec<u8>>, wall: u64) -> Vec<Key> {
    let mut keys: Vec<Key> = keys.into_iter().map(|key| (keyspace, key)).collect();
    keys.sort();
    keys.dedup();
    keys.retain(|key| branch.newest().is_some_and(|commit| commit.value(key, wall).is_some()));
    keys
}

/// Writes in a line of the story.
struct Outline<'a>(&'a [Write]);

impl std::fmt::Display for Outline<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Write { key, request } in self.0 {
            let request = format!("{request:?}");
            write!(f, "[{}/{} {}]", key.0, key.1.escape_ascii(), request.get(..60).unwrap_or(&request))?;
        }
        Ok(())
    }
}
