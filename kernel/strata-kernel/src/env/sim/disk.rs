//! The simulated disk: a `World`, the journal of what changed it, and the faults to come.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::world::{Op, SyncFault, World, parent};
use super::{EIO, ENOSPC, SimRng};
use crate::env::{Disk, File, Lock};
use crate::error::{Error, Result};

/// A disk in memory. Clones are the same disk; `image_at`, `crash` and `killed` make new ones.
///
/// Every call counts (`calls`), and every mutating call is kept in a journal (`journal_len`), so that
/// a workload that ran once can be crashed after each of them: `image_at(n, seed)`.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    world: World,
    /// What the disk held when the journal was empty.
    first: World,
    journal: Vec<Op>,
    /// Where the last image was made. The next one usually lies just behind, so nothing is replayed twice.
    replayed: (usize, World),
    calls: Vec<&'static str>,
    faults: Vec<Fault>,
    locks: BTreeMap<String, String>,
    rng: SimRng,
    hook: Option<Hook>,
    retried_syncs: Vec<String>,
    /// Files whose sync failed, and that nobody may believe again however he opens them. Segments are told from them: a
    /// process that begins reads these back from the disk.
    unsynced: BTreeSet<usize>,
}

/// What a test is shown before each call. It runs outside the disk's lock, so it may use the disk, and make images.
type Hook = Arc<dyn Fn(&Call<'_>) + Send + Sync>;

pub struct Call<'a> {
    pub number: u64,
    pub operation: &'static str,
    pub path: &'a str,
    /// The bytes that a read asks for.
    pub bytes: Range<u64>,
}

/// Something that goes wrong at call number `at` (as `calls` counts), or from there on.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub at: u64,
    pub forever: bool,
    pub kind: FaultKind,
}

#[derive(Clone, Copy, Debug)]
pub enum FaultKind {
    /// The call fails; a write may have put down some of its bytes first, a sync has done nothing.
    Errno(i32),
    /// A read gives less than there is. Calls that do not read are not hurt.
    ShortRead,
    /// A sync fails so; calls that do not sync are not hurt.
    Sync(SyncFault),
    /// The disk is full: what makes a file or a name more fails with ENOSPC. Writes to space that was reserved, syncs
    /// and removals work.
    Full,
}

impl FaultKind {
    /// Whether a call of this operation may come out otherwise with the fault.
    pub fn hurts(self, operation: &str) -> bool {
        match self {
            FaultKind::Errno(_) => true,
            FaultKind::ShortRead => operation == "read",
            FaultKind::Sync(_) => matches!(operation, "sync" | "sync directory"),
            FaultKind::Full => matches!(operation, "create" | "create directory" | "write" | "reserve space in"),
        }
    }
}

impl SimDisk {
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::with(World::default(), seed)
    }

    fn with(world: World, seed: u64) -> SimDisk {
        let state = State {
            first: world.clone(),
            replayed: (0, world.clone()),
            world,
            journal: Vec::new(),
            calls: Vec::new(),
            faults: Vec::new(),
            locks: BTreeMap::new(),
            rng: SimRng::new(seed),
            hook: None,
            retried_syncs: Vec::new(),
            unsynced: BTreeSet::new(),
        };
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// What a power cut now leaves, as `seed` draws it.
    pub fn crash(&self, seed: u64) -> SimDisk {
        SimDisk::with(self.state.lock().world.after_power_cut(&SimRng::new(seed)), seed)
    }

    /// What the next process finds when this one dies now.
    pub fn killed(&self) -> SimDisk {
        SimDisk::with(self.state.lock().world.after_kill(), 0)
    }

    /// How many mutating calls there were.
    pub fn journal_len(&self) -> usize {
        self.state.lock().journal.len()
    }

    /// What a power cut after the first `count` mutating calls would have left, as `seed` draws it.
    pub fn image_at(&self, count: usize, seed: u64) -> SimDisk {
        let mut state = self.state.lock();
        let world = state.replay(count).after_power_cut(&SimRng::new(seed));
        SimDisk::with(world, seed)
    }

    /// What the next process would have found after a death between the first `count` mutating calls and the next,
    /// or, when that is a write, in the middle of it.
    pub fn killed_at(&self, count: usize, seed: u64) -> SimDisk {
        let mut state = self.state.lock();
        let mut world = state.replay(count).after_kill();
        if let Some(Op::Write { inode, offset, bytes }) = state.journal.get(count) {
            let part = SimRng::new(seed).below(bytes.len() as u64 + 1) as usize;
            world.apply(&Op::Write { inode: *inode, offset: *offset, bytes: bytes[..part].into() });
        }
        SimDisk::with(world, seed)
    }

    /// How many calls of any kind there were; the next has this number.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls.len() as u64
    }

    /// What each of those calls did, in words.
    pub fn operations(&self) -> Vec<&'static str> {
        self.state.lock().calls.clone()
    }

    pub fn fail(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    pub fn heal(&self) {
        self.state.lock().faults.clear();
    }

    /// Show `hook` every call before it is done; `None` ends that.
    pub fn hook(&self, hook: Option<Hook>) {
        self.state.lock().hook = hook;
    }

    /// The files that were synced again through a handle whose sync had failed: each is a bug of the caller.
    pub fn retried_syncs(&self) -> Vec<String> {
        self.state.lock().retried_syncs.clone()
    }

    /// Every file, with its whole path.
    pub fn paths(&self) -> Vec<String> {
        self.state.lock().world.paths().cloned().collect()
    }

    /// The content of a file as a process sees it. Not counted as a call, like the two below.
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        state.world.inode(path).map(|inode| state.world.content(inode).to_vec())
    }

    /// Put `content` there, durable at once. Images of earlier moments (`image_at`) do not know of it.
    pub fn replace(&self, path: &str, content: Vec<u8>) {
        self.state.lock().world.replace(path, content);
    }

    /// Take a file away, as a careless administrator does.
    pub fn forget(&self, path: &str) {
        self.state.lock().world.forget(path);
    }

    /// Turn one bit of a file round. Bits count from the lowest of the first byte.
    pub fn flip(&self, path: &str, bit: u64) {
        let mut content = self.content(path).expect("a file to damage");
        content[(bit / 8) as usize] ^= 1 << (bit % 8);
        self.replace(path, content);
    }

    /// A copy with the same content, all of it durable, whose history begins now.
    pub fn copy(&self) -> SimDisk {
        let copy = SimDisk::new(0);
        for path in self.paths() {
            copy.replace(&path, self.content(&path).unwrap_or_default());
        }
        copy
    }

    fn begin(&self, operation: &'static str, path: &str) -> Option<FaultKind> {
        self.begin_at(operation, path, 0..0)
    }

    fn begin_at(&self, operation: &'static str, path: &str, bytes: Range<u64>) -> Option<FaultKind> {
        let (number, fault, hook) = {
            let mut state = self.state.lock();
            let number = state.calls.len() as u64;
            state.calls.push(operation);
            let hit = |fault: &&Fault| fault.at == number || (fault.forever && fault.at < number);
            (number, state.faults.iter().find(hit).map(|fault| fault.kind), state.hook.clone())
        };
        if let Some(hook) = hook {
            hook(&Call { number, operation, path, bytes });
        }
        fault
    }

    /// Count a call that neither reads nor syncs, and fail it when its time has come.
    fn enter(&self, operation: &'static str, path: &str) -> Result<()> {
        match self.begin(operation, path) {
            Some(FaultKind::Errno(errno)) => Err(failure(operation, path, errno)),
            Some(FaultKind::Full) if matches!(operation, "create" | "create directory") => {
                Err(failure(operation, path, ENOSPC))
            }
            _ => Ok(()),
        }
    }

    fn handle(&self, inode: usize, path: &str) -> Arc<dyn File> {
        Arc::new(SimFile { disk: self.clone(), inode, path: path.to_owned(), sync_failed: AtomicBool::new(false) })
    }
}

impl State {
    fn act(&mut self, op: Op) {
        self.world.apply(&op);
        self.journal.push(op);
    }

    fn replay(&mut self, count: usize) -> &World {
        if self.replayed.0 > count {
            self.replayed = (0, self.first.clone());
        }
        for op in &self.journal[self.replayed.0..count] {
            self.replayed.1.apply(op);
        }
        self.replayed.0 = count;
        &self.replayed.1
    }

    fn need(&self, operation: &'static str, path: &str) -> Result<()> {
        let there = self.world.inode(path).is_some() || self.world.has_dir(path);
        if there { Ok(()) } else { Err(failure(operation, path, 2)) }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &str) -> Result<Option<Arc<dyn File>>> {
        self.enter("open", path)?;
        let inode = self.state.lock().world.inode(path);
        Ok(inode.map(|inode| self.handle(inode, path)))
    }

    fn open_plain(&self, path: &str) -> Result<Option<Arc<dyn File>>> {
        self.open(path)
    }

    fn create(&self, path: &str) -> Result<Arc<dyn File>> {
        self.enter("create", path)?;
        let inode = {
            let mut state = self.state.lock();
            if state.world.inode(path).is_some() {
                return Err(failure("create", path, 17));
            }
            if !state.world.has_dir(parent(path)) {
                return Err(failure("create", path, 2));
            }
            state.act(Op::Create(path.to_owned()));
            state.world.inode(path).expect("just created")
        };
        Ok(self.handle(inode, path))
    }

    fn create_dir(&self, path: &str) -> Result<()> {
        self.enter("create directory", path)?;
        let mut state = self.state.lock();
        let mut missing = BTreeSet::new();
        let mut dir = path;
        while !state.world.has_dir(dir) {
            missing.insert(dir.to_owned());
            dir = parent(dir);
        }
        // A parent sorts before what lies in it.
        missing.into_iter().for_each(|dir| state.act(Op::MakeDir(dir)));
        Ok(())
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>> {
        self.enter("list", path)?;
        let state = self.state.lock();
        Ok(state.world.has_dir(path).then(|| state.world.list(path)))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.enter("rename to", to)?;
        assert_eq!(parent(from), parent(to), "the kernel renames within one directory only");
        let mut state = self.state.lock();
        state.need("rename to", from)?;
        state.act(Op::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.enter("remove", path)?;
        let mut state = self.state.lock();
        state.need("remove", path)?;
        state.act(Op::Remove(path.to_owned()));
        Ok(())
    }

    fn remove_dir(&self, path: &str) -> Result<()> {
        self.enter("remove directory", path)?;
        let mut state = self.state.lock();
        state.need("remove directory", path)?;
        if !state.world.list(path).is_empty() {
            return Err(failure("remove directory", path, 39));
        }
        state.act(Op::RemoveDir(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, path: &str) -> Result<()> {
        match self.begin("sync directory", path) {
            Some(FaultKind::Errno(errno)) => return Err(failure("sync directory", path, errno)),
            Some(FaultKind::Sync(_)) => return Err(failure("sync directory", path, EIO)),
            Some(FaultKind::ShortRead | FaultKind::Full) | None => {}
        }
        self.state.lock().act(Op::SyncDir(path.to_owned()));
        Ok(())
    }

    fn lock(&self, path: &str, owner: Option<&str>) -> Result<Box<dyn Lock>> {
        self.enter("lock", path)?;
        let mut state = self.state.lock();
        // One simulated process reads at a time: readers beside each other are tried on a real disk.
        let Some(owner) = owner else {
            return match state.locks.get(path) {
                Some(owner) => Err(Error::Locked { path: path.to_owned(), owner: owner.clone() }),
                None => Ok(Box::new(SharedLock)),
            };
        };
        if let Some(owner) = state.locks.get(path) {
            return Err(Error::Locked { path: path.to_owned(), owner: owner.clone() });
        }
        if state.world.inode(path).is_none() {
            state.act(Op::Create(path.to_owned()));
        }
        let inode = state.world.inode(path).expect("just created");
        state.act(Op::SetLen { inode, size: 0 });
        state.act(Op::Write { inode, offset: 0, bytes: owner.as_bytes().into() });
        state.locks.insert(path.to_owned(), owner.to_owned());
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_owned() }))
    }

    fn describe(&self, path: &str) -> String {
        path.to_owned()
    }
}

struct SimFile {
    disk: SimDisk,
    inode: usize,
    path: String,
    sync_failed: AtomicBool,
}

impl SimFile {
    fn enter(&self, operation: &'static str) -> Result<()> {
        self.disk.enter(operation, &self.path)
    }

    fn act(&self, op: Op) {
        self.disk.state.lock().act(op);
    }

    fn note_retry(&self) {
        let mut state = self.disk.state.lock();
        let is_read_back = self.path.starts_with("WAL/");
        if self.sync_failed.load(Ordering::SeqCst) || (!is_read_back && state.unsynced.contains(&self.inode)) {
            state.retried_syncs.push(self.path.clone());
        }
    }
}

impl File for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let fault = self.disk.begin_at("read", &self.path, offset..offset + buffer.len() as u64);
        if let Some(FaultKind::Errno(errno)) = fault {
            return Err(failure("read", &self.path, errno));
        }
        let state = self.disk.state.lock();
        let content = state.world.content(self.inode);
        let start = (offset as usize).min(content.len());
        let mut count = (content.len() - start).min(buffer.len());
        if let Some(FaultKind::ShortRead) = fault {
            count /= 2;
        }
        buffer[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let fault = self.disk.begin("write", &self.path);
        let mut state = self.disk.state.lock();
        let mut bytes = bytes;
        let grows = state.world.content(self.inode).len() < offset as usize + bytes.len();
        let fault = match fault {
            Some(FaultKind::Full) => grows.then_some(FaultKind::Errno(ENOSPC)),
            other => other,
        };
        if let Some(FaultKind::Errno(_)) = fault {
            // A short write comes before the failure it announces.
            let part = state.rng.below(bytes.len() as u64 + 1) as usize;
            bytes = &bytes[..part];
        }
        state.act(Op::Write { inode: self.inode, offset, bytes: bytes.into() });
        match fault {
            Some(FaultKind::Errno(errno)) => Err(failure("write", &self.path, errno)),
            _ => Ok(()),
        }
    }

    fn sync(&self) -> Result<()> {
        self.note_retry();
        let fault = match self.disk.begin("sync", &self.path) {
            Some(FaultKind::Sync(fault)) => Some((fault, EIO)),
            Some(FaultKind::Errno(errno)) => Some((SyncFault::Once, errno)),
            Some(FaultKind::ShortRead | FaultKind::Full) | None => None,
        };
        match fault {
            None => {
                self.act(Op::Sync(self.inode));
                Ok(())
            }
            Some((fault, errno)) => {
                self.sync_failed.store(true, Ordering::SeqCst);
                self.disk.state.lock().unsynced.insert(self.inode);
                self.act(Op::SyncFailed { inode: self.inode, fault });
                Err(failure("sync", &self.path, errno))
            }
        }
    }

    fn size(&self) -> Result<u64> {
        self.enter("read the size of")?;
        Ok(self.disk.state.lock().world.content(self.inode).len() as u64)
    }

    fn set_len(&self, size: u64) -> Result<()> {
        self.enter("set the size of")?;
        self.act(Op::SetLen { inode: self.inode, size });
        Ok(())
    }

    fn allocate(&self, size: u64) -> Result<()> {
        let fault = self.disk.begin("reserve space in", &self.path);
        let mut state = self.disk.state.lock();
        let grows = (state.world.content(self.inode).len() as u64) < size;
        match fault {
            Some(FaultKind::Errno(errno)) => return Err(failure("reserve space in", &self.path, errno)),
            Some(FaultKind::Full) if grows => return Err(failure("reserve space in", &self.path, ENOSPC)),
            _ => {}
        }
        if grows {
            state.act(Op::SetLen { inode: self.inode, size });
        }
        Ok(())
    }

    fn drop_cache(&self) -> Result<()> {
        self.enter("drop the cache of")?;
        self.act(Op::DropCache(self.inode));
        Ok(())
    }
}

/// Held by one who only reads.
struct SharedLock;

impl Lock for SharedLock {}

struct SimLock {
    disk: SimDisk,
    path: String,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state.lock().locks.remove(&self.path);
    }
}

fn failure(operation: &'static str, path: &str, errno: i32) -> Error {
    Error::Storage { operation, path: path.to_owned(), errno, message: format!("simulated failure {errno}") }
}
