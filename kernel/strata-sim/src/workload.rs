//! What a history consists of: operations drawn from a seed.
//!
//! Few keys and few branch names, so that operations meet; tiny segments and intervals, so that fifty of them rotate,
//! flush and compress.

use strata_kernel::Error;
use strata_kernel::env::sim::SimRng;
use strata_kernel::log::Durability;
use strata_kernel::store::Options;

use crate::doc::{Doc, DocPath, Edit};
use crate::driver::{Check, Driver};
use crate::model::{Key, Request, Write};

const NAMES: [&str; 5] = ["main", "draft", "trial", "copy", "a longer name"];
const STREAMS: [&[u8]; 3] = [b"log\0", b"logs\0", b"other\0"];
pub const KEYS: [&[u8]; 9] = [b"a", b"a\0", b"ab", b"b", b"ba", b"c", b"\xff", b"\xff\xff", b""];
const PATHS: [&[&str]; 6] = [&["x"], &["y"], &["x", "p"], &["x", "q"], &["y", "p"], &[]];
const IDEMPOTENCY_KEYS: [&str; 3] = ["pay-1", "pay-2", "pay-3"];
pub const KINDS: [&str; 2] = ["note", "call"];

/// 25 hours: beyond the life of an idempotency key.
const FAR_US: u64 = 25 * 3600 * 1_000_000;

pub fn options(rng: &SimRng) -> Options {
    Options {
        durability: if rng.chance(50) { Durability::Strict } else { Durability::Buffered },
        flush_interval_us: 2_000 + 1_000 * rng.below(3),
        segment_bytes: [1024, 4096, 4096, 6000][rng.below(4) as usize],
        compress_above: 200,
        memory_budget: [8 << 10, 64 << 10, 1 << 20, 1 << 30][rng.below(4) as usize],
        checkpoint_bytes: [1500, 6000, 64 << 20][rng.below(3) as usize],
        checkpoint_interval_us: [5_000_000, 300_000_000][rng.below(2) as usize],
        block_bytes: [96, 300, 4096][rng.below(3) as usize],
        branches_deep: [1, 2, 8][rng.below(3) as usize],
        ..Options::default()
    }
}

/// Little memory, so that tables are frozen, written out and dropped again and again, and what they held comes from runs.
pub fn pressed_options(rng: &SimRng) -> Options {
    let block_bytes = [96, 300][rng.below(2) as usize];
    let memory_budget = [8 << 10, 8 << 10, 32 << 10][rng.below(3) as usize];
    Options { memory_budget, block_bytes, ..options(rng) }
}

impl Driver {
    /// One operation of any kind.
    pub fn step(&mut self) -> Check {
        if self.indexed && self.below(6) == 0 {
            return self.change_indexes();
        }
        if self.pressed {
            return self.pressed_step();
        }
        match self.below(100) {
            0..=13 => self.write(1),
            14..=21 => self.write(6),
            22..=26 => self.delete_keys(),
            27..=58 => self.transaction(),
            59..=65 => self.fork(),
            66 => self.create_branch(),
            67..=68 => self.rename_branch(),
            69..=71 => self.delete_branch(),
            72..=74 => self.flush(),
            75..=85 => self.pass(),
            86..=88 => self.stall(),
            89..=92 => self.jump(),
            93..=94 => self.reopen(),
            95 => self.checkpoint(),
            96 => self.copy(),
            97 => self.compact(),
            _ => self.look(),
        }
    }

    /// More of what is done with files.
    fn pressed_step(&mut self) -> Check {
        match self.below(100) {
            0..=19 => self.write(4),
            20..=27 => self.burst(),
            28..=32 => self.delete_keys(),
            33..=48 => self.transaction(),
            49..=56 => self.fork(),
            57 => self.rename_branch(),
            58..=63 => self.delete_branch(),
            64..=65 => self.flush(),
            66..=71 => self.pass(),
            72..=73 => self.jump(),
            74..=79 => self.reopen(),
            80..=87 => self.checkpoint(),
            88..=90 => self.compact(),
            91..=93 => self.set_policy(),
            94 => self.copy(),
            95..=96 => self.rotate_key(),
            97..=98 => self.forget(),
            _ => self.look(),
        }
    }

    /// Many versions of one key, so that they take more than a block.
    fn burst(&mut self) -> Check {
        let (key, branch) = (self.any_key(), self.any_branch());
        (0..4 + self.below(10)).try_for_each(|number| {
            let request = Request::Put(Doc::Int(number as i64));
            self.write_to(branch, vec![Write { key: key.clone(), request }])
        })
    }

    /// One operation of those that make a database larger, and that do not look at all of it.
    pub fn grow(&mut self) -> Check {
        match self.below(20) {
            0..=9 => self.write(6),
            10..=16 => self.transaction(),
            17 => self.delete_keys(),
            18 => self.pass(),
            _ if self.below(4) == 0 => self.checkpoint(),
            _ => self.fork(),
        }
    }

    fn copy(&mut self) -> Check {
        if self.below(3) == 0 { self.export() } else { self.backup() }
    }

    // --- what is drawn -------------------------------------------------------------------------------

    pub fn any_key(&self) -> Key {
        ([0, 0, 0, 2][self.below(4)], self.pick(&KEYS).to_vec())
    }

    pub fn any_stream(&self) -> Key {
        ([1, 1, 3][self.below(3)], self.pick(&STREAMS).to_vec())
    }

    pub fn any_path(&self) -> DocPath {
        self.pick(&PATHS).to_vec()
    }

    /// The name of a branch, which mostly exists.
    pub fn any_branch(&self) -> &'static str {
        let state = self.state();
        let mut names = NAMES.to_vec();
        if self.below(12) > 0 {
            names.retain(|name| state.by_name(name).is_some());
        }
        names[self.below(names.len())]
    }

    pub fn any_doc(&self) -> Doc {
        match self.below(20) {
            0..=7 => Doc::Int(self.below(5) as i64 - 1),
            8..=9 => Doc::Text(format!("text {}", self.below(1000))),
            10 => Doc::Int(i64::MAX >> (1 + self.below(61))),
            11 => Doc::Text("all the same ".repeat(1 + self.below(400))),
            12 => self.noise(),
            13 => Doc::Bytes(vec![0; self.below(300)]),
            14 => Doc::Map(Vec::new()),
            _ => {
                let inner = Doc::Map(vec![("p".to_owned(), Doc::Int(self.below(9) as i64))]);
                Doc::Map(vec![("y".to_owned(), Doc::Int(self.below(300) as i64)), ("x".to_owned(), inner)])
            }
        }
    }

    /// Bytes that cannot be packed, up to more than a segment.
    fn noise(&self) -> Doc {
        let length = [40, 300, 1500, 5000][self.below(4)];
        Doc::Bytes((0..length).map(|_| self.below(256) as u8).collect())
    }

    fn any_edits(&self) -> Vec<Edit> {
        let edit = |_| {
            let path = self.any_path();
            let deletes = !path.is_empty() && self.below(4) == 0;
            if deletes { Edit::Delete(path) } else { Edit::Set(path, self.small_doc()) }
        };
        (0..1 + self.below(2)).map(edit).collect()
    }

    fn small_doc(&self) -> Doc {
        if self.below(3) == 0 { Doc::Map(Vec::new()) } else { Doc::Int(self.below(100) as i64) }
    }

    pub fn any_request(&self) -> Request {
        match self.below(10) {
            0..=2 => Request::Put(self.any_doc()),
            3..=4 => Request::PutFor(self.any_doc(), self.any_ttl()),
            5 => Request::Delete,
            6..=7 => Request::Patch(self.any_edits()),
            _ => Request::Add(self.below(20) as i64 - 5),
        }
    }

    /// About as long as the steps of the clock.
    fn any_ttl(&self) -> u64 {
        let most = [20_000, 1_000_000, 10_000_000_000, 2 * FAR_US][self.below(4)];
        1 + self.below(most as usize) as u64
    }

    pub fn any_append(&self) -> Write {
        let kind = *self.pick(&KINDS);
        Write { key: self.any_stream(), request: Request::Append(kind, self.any_doc_in_order()) }
    }

    /// Map keys in the order of their bytes, as hashes are made over them.
    fn any_doc_in_order(&self) -> Doc {
        match self.any_doc() {
            Doc::Map(mut pairs) => {
                pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
                Doc::Map(pairs)
            }
            other => other,
        }
    }

    /// At most `count` writes, to as many keys; appends may share a stream.
    pub fn any_writes(&self, count: usize) -> Vec<Write> {
        let mut writes: Vec<Write> = Vec::new();
        for _ in 0..1 + self.below(count) {
            let write = match self.below(4) {
                0 => self.any_append(),
                _ => Write { key: self.any_key(), request: self.any_request() },
            };
            let is_append = matches!(write.request, Request::Append(..));
            if is_append || writes.iter().all(|other| other.key != write.key) {
                writes.push(write);
            }
        }
        writes
    }

    /// Often one that was used before.
    pub fn any_idempotency_key(&self) -> Option<String> {
        (self.below(4) == 0).then(|| (*self.pick(&IDEMPOTENCY_KEYS)).to_owned())
    }

    pub fn any_version(&self) -> u64 {
        self.below(self.published as usize + 2) as u64
    }

    // --- time ----------------------------------------------------------------------------------------

    /// Let time pass, with the flusher at work.
    fn pass(&mut self) -> Check {
        let interval = self.options.flush_interval_us;
        let us = self.below(2 * interval as usize) as u64;
        self.tell(format!("pass {us} us"));
        // The keeper may be at work meanwhile.
        let sim = self.sim.clone();
        self.with_others(|_| sim.pass(us))?;
        if !self.poisoned() && self.store().log.unflushed_us() > interval {
            return Err(format!("{} us went by without a flush", self.store().log.unflushed_us()));
        }
        self.refresh();
        self.check_watch()
    }

    /// Let time pass with nobody at work: the machine is busy, or the disk hangs.
    fn stall(&mut self) -> Check {
        let us = self.below(3 * self.options.flush_interval_us as usize) as u64;
        self.tell(format!("stall {us} us"));
        self.sim.clock.advance(us);
        Ok(())
    }

    fn jump(&mut self) -> Check {
        let wall = match self.below(4) {
            0 => self.wall().saturating_sub(FAR_US),
            1 => self.wall() - self.below(1_000_000) as u64,
            2 => self.wall() + self.below(1_000_000) as u64,
            _ => self.wall() + FAR_US,
        };
        self.tell(format!("the wall clock jumps to {wall}"));
        self.sim.clock.set_wall(wall);
        Ok(())
    }

    // --- branches ------------------------------------------------------------------------------------

    fn fork(&mut self) -> Check {
        let (source, name) = (self.any_branch(), *self.pick(&NAMES));
        let at = (self.below(2) == 0).then(|| self.any_version());
        self.tell(format!("fork {source} at {at:?} as {name}"));
        let before = self.before();
        let predicted = self.state().branch(name, Some((source, at.unwrap_or(u64::MAX))), self.wall());
        let got = self.store().fork(source, name, at);
        if let (Err(Error::HistoryTrimmed { .. }), Some(at)) = (&got, at)
            && self.state().by_name(source).is_some_and(|branch| self.care.may_refuse(branch, at, self.state().time))
        {
            return Ok(());
        }
        self.settle(predicted.map(Ok), got, before)
    }

    fn create_branch(&mut self) -> Check {
        let name = *self.pick(&NAMES);
        self.tell(format!("create {name}"));
        let before = self.before();
        let predicted = self.state().branch(name, None, self.wall());
        let got = self.store().create(name);
        self.settle(predicted.map(Ok), got, before)
    }

    fn rename_branch(&mut self) -> Check {
        let (old, new) = (self.any_branch(), *self.pick(&NAMES));
        self.tell(format!("rename {old} to {new}"));
        let before = self.before();
        let predicted = self.state().rename(old, new, self.wall());
        let got = self.store().rename(old, new);
        self.settle(predicted.map(Ok), got, before)
    }

    fn delete_branch(&mut self) -> Check {
        let name = self.any_branch();
        if self.state().branches.len() == 1 {
            return Ok(()); // a history without branches would soon be dull
        }
        self.tell(format!("delete branch {name}"));
        let before = self.before();
        let predicted = self.state().delete(name, self.wall());
        let got = self.store().delete_branch(name);
        self.settle(predicted.map(Ok), got, before)?;
        // What it hides may go while the deletion itself is not durable.
        if self.below(4) == 0 { self.compact() } else { Ok(()) }
    }
}
