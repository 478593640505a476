//! Transactions that are open at the same time. The model knows what each must read, and which must conflict.

use strata_kernel::branch::Range;
use strata_kernel::change::Expiry;
use strata_kernel::payload::Number;
use strata_kernel::transaction::{Expected, Isolation, PendingAppend, Transaction};

use crate::doc::Doc;
use crate::draft::{Condition, Draft};
use crate::driver::{Check, Driver};
use crate::model::{Key, Refusal, Request};
use crate::operations::{store_ops, store_path};

const OPEN_MAX: usize = 3;

impl Driver {
    /// Begin a transaction, or go on with one that is open.
    pub fn transaction(&mut self) -> Check {
        let begins = self.open.is_empty() || (self.open.len() < OPEN_MAX && self.below(10) < 3);
        if begins {
            return self.begin();
        }
        let index = self.below(self.open.len());
        match self.below(20) {
            0..=10 => self.act(index),
            11 => {
                let (mut real, _) = self.open.swap_remove(index);
                self.tell("roll back".to_owned());
                real.roll_back();
                Ok(())
            }
            _ => self.commit(index),
        }
    }

    fn begin(&mut self) -> Check {
        let (state, name) = (self.state(), self.any_branch());
        let Some(branch) = state.by_name(name) else { return Ok(()) };
        let Some(handle) = self.handle(branch.id).cloned() else {
            return Err(format!("branch {name} is missing"));
        };
        let is_serializable = self.below(10) < 6;
        let isolation = if is_serializable { Isolation::Serializable } else { Isolation::Snapshot };
        let key = self.any_idempotency_key();
        self.tell(format!("begin {isolation:?} on {name}, key {key:?}"));
        let real = Transaction::new(handle, isolation, self.below(4) == 0, key.clone());
        self.open.push((real, Draft::new(branch, self.wall(), is_serializable, key)));
        let last = self.open.len() - 1;
        self.act(last)
    }

    /// A few reads and writes of one transaction.
    fn act(&mut self, index: usize) -> Check {
        for _ in 0..1 + self.below(4) {
            let (mut real, mut draft) = self.open.swap_remove(index);
            let outcome = self.act_once(&mut real, &mut draft);
            if outcome.is_err() {
                // A disk that fails may fail a read; the transaction is given up then.
                return self.excuse(outcome);
            }
            self.open.push((real, draft));
            let last = self.open.len() - 1;
            self.open.swap(index, last);
        }
        Ok(())
    }

    fn act_once(&mut self, real: &mut Transaction, draft: &mut Draft) -> Check {
        match self.below(12) {
            0..=2 => self.txn_get(real, draft),
            3 => self.txn_get_path(real, draft),
            4..=5 => self.txn_scan(real, draft),
            6 => self.txn_append(real, draft),
            7 => self.txn_expect(real, draft),
            _ => self.txn_write(real, draft),
        }
    }

    fn txn_get(&mut self, real: &mut Transaction, draft: &mut Draft) -> Check {
        let key = self.any_key();
        self.tell(format!("  get {}", show(&key)));
        let found = real.get(self.number(&key), &key.1, |found| found.map(|(value, _)| value.to_vec()))?;
        same(&key, found, draft.get(&key))
    }

    fn txn_get_path(&mut self, real: &mut Transaction, draft: &mut Draft) -> Check {
        let (key, path) = (self.any_key(), self.any_path());
        self.tell(format!("  get {} at {path:?}", show(&key)));
        let found = real.get_path(self.number(&key), &key.1, &store_path(&path), |found| found.map(<[u8]>::to_vec))?;
        same(&key, found, draft.get_path(&key, &path))
    }

    fn txn_scan(&mut self, real: &mut Transaction, draft: &mut Draft) -> Check {
        let keyspace = self.below(4);
        let (start, end) = (self.any_key().1, (self.below(3) > 0).then(|| self.any_key().1));
        let (reverse, limit) = (self.below(3) == 0, [1, 2, 3, usize::MAX, usize::MAX][self.below(5)]);
        self.tell(format!("  scan {keyspace} {start:?}..{end:?} reverse {reverse} limit {limit}"));
        let range = Range { start: start.clone(), end: end.clone() };
        let number = self.numbers[keyspace];
        let expected = draft.scan(keyspace, (start, end), reverse, limit);
        if limit == usize::MAX && self.below(3) == 0 {
            let count = real.count(number, &range)?;
            return if count == expected.len() as u64 { Ok(()) } else { Err(format!("a transaction counts {count}")) };
        }
        let rows = real.scan(number, &range, reverse, limit)?;
        let found: Vec<_> = rows.rows().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        if found == expected { Ok(()) } else { Err(format!("a transaction scans {found:?}, not {expected:?}")) }
    }

    fn txn_append(&mut self, real: &mut Transaction, draft: &mut Draft) -> Check {
        let write = self.any_append();
        let Request::Append(kind, value) = write.request else { unreachable!("any_append") };
        self.tell(format!("  append to {}", show(&write.key)));
        let (keyspace, stream, encoded) = (self.number(&write.key), write.key.1.clone(), value.encode());
        let append = PendingAppend { keyspace, stream, kind: kind.to_owned(), value: encoded, origin: None };
        let (found, expected) = (real.append(append), draft.append(&write.key, kind, value));
        if found == Ok(expected) { Ok(()) } else { Err(format!("append gave {found:?}, not {expected}")) }
    }

    fn txn_expect(&mut self, real: &mut Transaction, draft: &mut Draft) -> Check {
        let key = self.any_key();
        let state = self.state();
        let cell = state.branches.get(&draft.branch).and_then(|branch| branch.newest()?.contents.get(&key).cloned());
        // Mostly what is true now.
        let condition = match cell.filter(|cell| cell.value.is_some() && self.below(6) > 0) {
            None => Condition::Absent,
            Some(cell) if self.below(2) == 0 => Condition::Version(cell.version),
            Some(cell) => Condition::Value(cell.value.expect("filtered").doc.clone()),
        };
        self.tell(format!("  expect {}", show(&key)));
        let expected = match &condition {
            Condition::Absent => Expected { absent: true, ..Expected::default() },
            Condition::Version(version) => Expected { version: Some(*version), ..Expected::default() },
            Condition::Value(doc) => Expected { value: Some(doc.encode()), ..Expected::default() },
        };
        draft.expect(&key, condition);
        real.expect(self.number(&key), &key.1, expected).map_err(|error| error.to_string())
    }

    fn txn_write(&mut self, real: &mut Transaction, draft: &mut Draft) -> Check {
        let (key, request) = (self.any_key(), self.any_request());
        if !draft.allows(&key, &request) {
            return Ok(());
        }
        self.tell(format!("  write {} {}", show(&key), short(&request)));
        let number = self.number(&key);
        let found = match &request {
            Request::Put(doc) => real.put(number, &key.1, &doc.encode(), None),
            Request::PutFor(doc, us) => real.put(number, &key.1, &doc.encode(), Some(Expiry::After(*us))),
            Request::Delete => real.delete(number, &key.1),
            Request::Patch(edits) => real.patch(number, &key.1, store_ops(edits)),
            Request::Add(delta) => real.add(number, &key.1, Number::Int(*delta)),
            Request::Append(..) => unreachable!("see txn_append"),
        };
        match (&found, draft.write(&key, request)) {
            (Ok(()), Ok(())) | (Err(strata_kernel::Error::InvalidInput(_)), Err(_)) => Ok(()),
            (_, expected) => Err(format!("a write gave {found:?}, the model {expected:?}")),
        }
    }

    fn commit(&mut self, index: usize) -> Check {
        let (mut real, draft) = self.open.swap_remove(index);
        self.tell("  commit".to_owned());
        let before = self.before();
        let predicted = draft.commit(&self.state(), self.wall());
        self.tally.commits += 1;
        self.tally.conflicts += u64::from(matches!(predicted, Err(Refusal::Conflict)));
        let got = self.store().commit(&mut real);
        self.settle(predicted, got, before)
    }
}

fn same(key: &Key, found: Option<Vec<u8>>, expected: Option<Doc>) -> Check {
    let expected = expected.map(|doc| doc.encode());
    if found == expected {
        return Ok(());
    }
    Err(format!("a transaction reads {} as {found:?}, not {expected:?}", show(key)))
}

fn show(key: &Key) -> String {
    format!("{}/{}", key.0, key.1.escape_ascii())
}

fn short(request: &Request) -> String {
    let text = format!("{request:?}");
    text.get(..60).unwrap_or(&text).to_owned()
}
