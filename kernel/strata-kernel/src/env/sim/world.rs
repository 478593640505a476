//! What a simulated disk holds, and what a power cut leaves of it.
//!
//! Content and names have two states each: what a process sees now, and what is durable, with the list
//! of changes between. `sync` folds the changes of one file into its durable content, `sync_dir` those
//! of one directory into the durable names. A power cut draws which of the others survive: each write
//! independently whole, lost, or torn by sectors and inside one; sizes without data; names in any
//! combination that keeps the order within one name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::SimRng;

pub(super) type Inode = usize;

/// One mutating call, as the journal keeps it.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Create(String),
    MakeDir(String),
    Rename { from: String, to: String },
    Remove(String),
    RemoveDir(String),
    SyncDir(String),
    Write { inode: Inode, offset: u64, bytes: Arc<[u8]> },
    SetLen { inode: Inode, size: u64 },
    Sync(Inode),
    SyncFailed { inode: Inode, fault: SyncFault },
    DropCache(Inode),
}

/// How a sync fails, after what file systems were seen to do (Rebello and others, ATC 2020).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncFault {
    /// ext4: the pages are marked clean though not on disk. Reads show the new bytes, the next sync succeeds.
    NewShownOldKept,
    /// XFS, Btrfs: the bytes are gone, and reads show what is on disk.
    OldShown,
    /// The error comes once, nothing is lost, and the next sync does the work.
    Once,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Arc<[u8]> },
    SetLen(u64),
}

#[derive(Clone, Debug, Default)]
struct File {
    /// Shared with the images made from this world until one of them writes.
    seen: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Create { path: String, inode: Inode },
    MakeDir(String),
    Rename { from: String, to: String },
    Remove(String),
    RemoveDir(String),
}

#[derive(Clone, Debug, Default)]
struct Names {
    files: BTreeMap<String, Inode>,
    dirs: BTreeSet<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct World {
    files: Vec<File>,
    seen: Names,
    durable: Names,
    pending: Vec<NameChange>,
}

impl World {
    pub fn inode(&self, path: &str) -> Option<Inode> {
        self.seen.files.get(path).copied()
    }

    pub fn content(&self, inode: Inode) -> &[u8] {
        &self.files[inode].seen
    }

    pub fn has_dir(&self, path: &str) -> bool {
        path.is_empty() || self.seen.dirs.contains(path)
    }

    pub fn paths(&self) -> impl Iterator<Item = &String> {
        self.seen.files.keys()
    }

    pub fn list(&self, dir: &str) -> Vec<String> {
        let all = self.seen.files.keys().chain(&self.seen.dirs);
        let mut names: Vec<String> = all.filter(|path| parent(path) == dir).map(|path| name(path).to_owned()).collect();
        names.sort();
        names
    }

    /// Content put there from outside, durable at once: how tests damage a file.
    pub fn replace(&mut self, path: &str, content: Vec<u8>) {
        let inode = self.inode(path).unwrap_or_else(|| {
            self.apply(&Op::Create(path.to_owned()));
            self.files.len() - 1
        });
        let content = Arc::new(content);
        self.files[inode] = File { seen: content.clone(), durable: content, pending: Vec::new() };
        self.durable.files.insert(path.to_owned(), inode);
        // The database directory itself is no name in it.
        for names in [&mut self.seen, &mut self.durable].into_iter().filter(|_| !parent(path).is_empty()) {
            names.dirs.insert(parent(path).to_owned());
        }
    }

    pub fn forget(&mut self, path: &str) {
        self.seen.files.remove(path);
        self.durable.files.remove(path);
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(path) => {
                self.files.push(File::default());
                self.change_name(NameChange::Create { path: path.clone(), inode: self.files.len() - 1 });
            }
            Op::MakeDir(path) => self.change_name(NameChange::MakeDir(path.clone())),
            Op::Rename { from, to } => self.change_name(NameChange::Rename { from: from.clone(), to: to.clone() }),
            Op::Remove(path) => self.change_name(NameChange::Remove(path.clone())),
            Op::RemoveDir(path) => self.change_name(NameChange::RemoveDir(path.clone())),
            Op::SyncDir(dir) => self.sync_dir(dir),
            Op::Write { inode, offset, bytes } => {
                self.files[*inode].change(Change::Write { offset: *offset, bytes: bytes.clone() });
            }
            Op::SetLen { inode, size } => self.files[*inode].change(Change::SetLen(*size)),
            Op::Sync(inode) => self.files[*inode].sync(),
            Op::SyncFailed { inode, fault } => self.files[*inode].fail_sync(*fault),
            Op::DropCache(inode) => self.files[*inode].drop_cache(),
        }
    }

    fn change_name(&mut self, change: NameChange) {
        self.seen.apply(&change);
        self.pending.push(change);
    }

    fn sync_dir(&mut self, dir: &str) {
        let (now, later) = std::mem::take(&mut self.pending).into_iter().partition(|change| change.dir() == dir);
        self.pending = later;
        for change in Vec::from_iter::<Vec<NameChange>>(now) {
            self.durable.apply(&change);
        }
    }

    /// The process died: the system still has all that was handed over, and nothing more is durable than before.
    pub fn after_kill(&self) -> World {
        self.clone()
    }

    /// The power went: what is durable, and of the rest what `rng` draws.
    pub fn after_power_cut(&self, rng: &SimRng) -> World {
        // Images in which all, most, few or none survive find different bugs than a coin for each change would.
        let mood =
            Mood { keep: [0, 20, 50, 80, 100][rng.below(5) as usize], sector: [512, 4096][rng.below(2) as usize] };
        let names = self.surviving_names(rng, mood.keep);
        let files = self.files.iter().map(|file| File::settled(file.surviving(rng, &mood))).collect();
        World { files, seen: names.clone(), durable: names, pending: Vec::new() }
    }

    fn surviving_names(&self, rng: &SimRng, keep: u64) -> Names {
        let mut names = self.durable.clone();
        // Once one change of a name is lost, so are the later ones of that name.
        let mut lost: BTreeSet<&str> = BTreeSet::new();
        for change in &self.pending {
            let touched = change.names();
            if touched.iter().flatten().any(|name| lost.contains(name)) || !rng.chance(keep) {
                lost.extend(touched.into_iter().flatten());
            } else {
                names.apply(change);
            }
        }
        let Names { files, dirs } = &mut names;
        files.retain(|path, _| parent(path).is_empty() || dirs.contains(parent(path)));
        names
    }
}

struct Mood {
    keep: u64,
    sector: u64,
}

impl Names {
    fn apply(&mut self, change: &NameChange) {
        match change {
            NameChange::Create { path, inode } => drop(self.files.insert(path.clone(), *inode)),
            NameChange::MakeDir(path) => drop(self.dirs.insert(path.clone())),
            NameChange::Rename { from, to } if self.dirs.contains(from) => self.rename_dir(from, to),
            NameChange::Rename { from, to } => {
                if let Some(inode) = self.files.remove(from) {
                    self.files.insert(to.clone(), inode);
                }
            }
            NameChange::Remove(path) => drop(self.files.remove(path)),
            NameChange::RemoveDir(path) => drop(self.dirs.remove(path)),
        }
    }

    /// A directory takes along what is in it.
    fn rename_dir(&mut self, from: &str, to: &str) {
        let moved = |path: &str| match path.strip_prefix(from) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{to}{rest}"),
            _ => path.to_owned(),
        };
        self.files = self.files.iter().map(|(path, inode)| (moved(path), *inode)).collect();
        self.dirs = self.dirs.iter().map(|path| moved(path)).collect();
    }
}

impl NameChange {
    fn names(&self) -> [Option<&str>; 2] {
        match self {
            NameChange::Create { path, .. } => [Some(path), None],
            NameChange::MakeDir(path) | NameChange::Remove(path) | NameChange::RemoveDir(path) => [Some(path), None],
            NameChange::Rename { from, to } => [Some(from), Some(to)],
        }
    }

    fn dir(&self) -> &str {
        self.names()[0].map_or("", parent)
    }
}

impl File {
    fn settled(content: Arc<Vec<u8>>) -> File {
        File { seen: content.clone(), durable: content, pending: Vec::new() }
    }

    fn change(&mut self, change: Change) {
        change.apply(Arc::make_mut(&mut self.seen));
        self.pending.push(change);
    }

    fn sync(&mut self) {
        if !self.pending.is_empty() {
            let durable = Arc::make_mut(&mut self.durable);
            self.pending.drain(..).for_each(|change| change.apply(durable));
        }
    }

    fn fail_sync(&mut self, fault: SyncFault) {
        match fault {
            SyncFault::NewShownOldKept => self.pending.clear(),
            SyncFault::OldShown => {
                self.pending.clear();
                self.seen = self.durable.clone();
            }
            SyncFault::Once => {}
        }
    }

    /// Only clean pages can be dropped: what waits to be written stays visible.
    fn drop_cache(&mut self) {
        self.seen = self.durable.clone();
        if !self.pending.is_empty() {
            let seen = Arc::make_mut(&mut self.seen);
            self.pending.iter().for_each(|change| change.apply(seen));
        }
    }

    fn surviving(&self, rng: &SimRng, mood: &Mood) -> Arc<Vec<u8>> {
        let mut content = self.durable.clone();
        for change in &self.pending {
            let Change::Write { offset, bytes } = change else {
                if rng.chance(mood.keep) {
                    change.apply(Arc::make_mut(&mut content));
                }
                continue;
            };
            let end = offset + bytes.len() as u64;
            if rng.chance(mood.keep) {
                change.apply(Arc::make_mut(&mut content));
            } else if rng.chance(50) {
                tear(Arc::make_mut(&mut content), *offset, bytes, rng, mood);
            } else if end > content.len() as u64 && rng.chance(25) {
                // The size reached the disk, the data did not.
                Arc::make_mut(&mut content).resize(end as usize, 0);
            }
        }
        content
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => write(content, *offset, bytes),
            Change::SetLen(size) => content.resize(*size as usize, 0),
        }
    }
}

fn write(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(bytes);
}

/// Keep some of the sectors that a write covers, and of some only the bytes before or behind a point.
fn tear(content: &mut Vec<u8>, offset: u64, bytes: &[u8], rng: &SimRng, mood: &Mood) {
    let end = offset + bytes.len() as u64;
    let mut at = offset;
    while at < end {
        let next = ((at / mood.sector + 1) * mood.sector).min(end);
        let point = at + rng.below(next - at + 1);
        let (from, to) = match rng.below(4) {
            0 => (at, at),
            1 => (at, next),
            2 => (at, point),
            _ => (point, next),
        };
        if from < to {
            write(content, from, &bytes[(from - offset) as usize..(to - offset) as usize]);
        }
        at = next;
    }
}

pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}
