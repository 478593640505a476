//! The real world: a directory of files, the system's clocks, one thread per task.
//!
//! What the kernel asks of the file system, and nothing more: `write_at` is seen by every later read
//! and survives the death of the process; `sync` makes content and size durable; `sync_dir` makes
//! names durable; a rename is atomic. `sync` reports a failure at least once; after it the file may
//! show bytes that the disk does not hold, so the kernel never syncs such a file again.

// The one file where the kernel may touch files, time, threads and chance: everything else goes through the traits.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use rustix::fs::{FlockOperation, flock};

use super::{Bell, Clock, Disk, Env, File, Lock, Next, Rng, Spawn, Task, Worker};
use crate::error::{Error, Result};
use crate::sabotage;

/// The world as it is, with the files of one database under `root`.
pub fn env(root: impl Into<PathBuf>) -> Env {
    Env {
        disk: Arc::new(RealDisk::new(root)),
        clock: Arc::new(RealClock::default()),
        rng: Arc::new(RealRng::default()),
        spawn: Arc::new(RealSpawn),
    }
}

// --- files ---------------------------------------------------------------------------------------

pub struct RealDisk {
    root: PathBuf,
    /// The directories that were synced, held open: a process without descriptors must not fail a sync for lack of
    /// one, which would poison the log.
    directories: Mutex<Vec<(String, Arc<fs::File>)>>,
}

impl RealDisk {
    pub fn new(root: impl Into<PathBuf>) -> RealDisk {
        RealDisk { root: root.into(), directories: Mutex::default() }
    }

    fn at(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    fn directory(&self, path: &str) -> Result<Arc<fs::File>> {
        let mut directories = self.directories.lock();
        if let Some((_, known)) = directories.iter().find(|(other, _)| other == path) {
            return Ok(known.clone());
        }
        let directory = Arc::new(self.file("open directory", path, fs::OpenOptions::new().read(true))?);
        directories.push((path.to_owned(), directory.clone()));
        Ok(directory)
    }

    fn file(&self, operation: &'static str, path: &str, options: &fs::OpenOptions) -> Result<fs::File> {
        let place = self.at(path);
        retry(|| options.open(&place)).map_err(|error| storage(operation, &place, error))
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &str) -> Result<Option<Arc<dyn File>>> {
        let place = self.at(path);
        match retry(|| fs::OpenOptions::new().read(true).write(true).open(&place)) {
            Ok(file) => Ok(Some(Arc::new(RealFile { file, path: place }))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // A directory that may only be read can still be read: the first write will say no.
            Err(error) if matches!(error.raw_os_error(), Some(EACCES | EROFS)) => {
                let file = self.file("open", path, fs::OpenOptions::new().read(true))?;
                Ok(Some(Arc::new(RealFile { file, path: place })))
            }
            Err(error) => Err(storage("open", &place, error)),
        }
    }

    fn open_plain(&self, path: &str) -> Result<Option<Arc<dyn File>>> {
        let place = self.at(path);
        // Not followed, and not waited for: opening a pipe would wait for whoever writes to it.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let mut options = fs::OpenOptions::new();
        options.read(true).custom_flags(flags.bits() as i32);
        let refused = || Error::InvalidInput(format!("'{}' is not a plain file", place.display()));
        let file = match retry(|| options.open(&place)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // A link says ELOOP; a socket, and a device without a driver, ENXIO or ENODEV.
            Err(error) => {
                let is_plain = fs::symlink_metadata(&place).is_ok_and(|found| found.is_file());
                return Err(if is_plain { storage("open", &place, error) } else { refused() });
            }
        };
        let is_plain = file.metadata().map_err(|error| storage("look at", &place, error))?.is_file();
        if is_plain { Ok(Some(Arc::new(RealFile { file, path: place }))) } else { Err(refused()) }
    }

    fn create(&self, path: &str) -> Result<Arc<dyn File>> {
        // 0o600: an agent's memory is nobody else's business unless its owner says so.
        let file =
            self.file("create", path, fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600))?;
        Ok(Arc::new(RealFile { file, path: self.at(path) }))
    }

    fn create_dir(&self, path: &str) -> Result<()> {
        let place = self.at(path);
        if place.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(&place).map_err(|error| storage("create directory", &place, error))?;
        // The directories above the database's own are not visible through `sync_dir`, so their names are synced here.
        if path.is_empty() {
            for parent in place.ancestors().skip(1) {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                if sync_directory(parent).is_err() {
                    break; // not ours to open: it was there before us
                }
            }
        }
        Ok(())
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>> {
        let place = self.at(path);
        let entries = match fs::read_dir(&place) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(storage("list", &place, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| storage("list", &place, error))?;
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(Some(names))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let place = self.at(to);
        retry(|| fs::rename(self.at(from), &place)).map_err(|error| storage("rename to", &place, error))
    }

    fn remove(&self, path: &str) -> Result<()> {
        let place = self.at(path);
        retry(|| fs::remove_file(&place)).map_err(|error| storage("remove", &place, error))
    }

    fn link(&self, path: &str, from: &dyn Disk, source: &str) -> Result<bool> {
        let Some(source) = from.real_path(source) else { return Ok(false) };
        // Another file system, one without links, too many of them, or no name any more: then it is copied, which says
        // what is wrong if that does not work either.
        Ok(retry(|| fs::hard_link(&source, self.at(path))).is_ok())
    }

    fn real_path(&self, path: &str) -> Option<PathBuf> {
        Some(self.at(path))
    }

    fn remove_dir(&self, path: &str) -> Result<()> {
        let place = self.at(path);
        retry(|| fs::remove_dir(&place)).map_err(|error| storage("remove directory", &place, error))
    }

    fn sync_dir(&self, path: &str) -> Result<()> {
        let directory = self.directory(path)?;
        retry(|| directory.sync_all()).map_err(|error| storage("sync directory", &self.at(path), error))
    }

    fn lock(&self, path: &str, owner: Option<&str>) -> Result<Box<dyn Lock>> {
        let place = self.at(path);
        let writes = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).to_owned();
        let file = match (self.file("lock", path, &writes), owner) {
            (Ok(file), _) => file,
            // Where even the lock cannot be written to nobody writes, and there is nothing to keep out.
            (Err(error), None) if is_refused(&error) => {
                match self.file("lock", path, fs::OpenOptions::new().read(true)) {
                    Ok(file) => file,
                    Err(_) => return Ok(Box::new(NoLock)),
                }
            }
            (Err(error), _) => return Err(error),
        };
        let how = match owner {
            Some(_) => FlockOperation::NonBlockingLockExclusive,
            None => FlockOperation::NonBlockingLockShared,
        };
        // flock and not lockf: POSIX locks belong to the process, so a second handle of ours would be let in,
        // and closing any handle of the file would give the lock up.
        match retry(|| Ok(flock(file.as_fd(), how)?)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let owner =
                    read_text(&file).filter(|text| !text.is_empty()).unwrap_or_else(|| "by a reader".to_owned());
                return Err(Error::Locked { path: place.display().to_string(), owner });
            }
            Err(error) => return Err(storage("lock", &place, error)),
        }
        let lock = RealLock { file, process: process_id(), is_owner: owner.is_some() };
        let Some(owner) = owner else { return Ok(Box::new(lock)) };
        let write = || -> io::Result<()> {
            lock.file.set_len(0)?;
            lock.file.write_all_at(owner.as_bytes(), 0)
        };
        write().map_err(|error| storage("write owner into", &place, error))?;
        Ok(Box::new(lock))
    }

    fn describe(&self, path: &str) -> String {
        self.at(path).display().to_string()
    }
}

struct RealFile {
    file: fs::File,
    path: PathBuf,
}

impl RealFile {
    fn fail(&self, operation: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |error| storage(operation, &self.path, error)
    }
}

impl File for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match retry(|| self.file.read_at(&mut buffer[filled..], offset + filled as u64)) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) => return Err(self.fail("read")(error)),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, offset).or_else(swallowed).map_err(self.fail("write"))
    }

    fn sync(&self) -> Result<()> {
        // fdatasync on Linux, F_FULLFSYNC on macOS: both bring the size along when it is needed to read the data.
        retry(|| self.file.sync_data()).map_err(self.fail("sync"))
    }

    fn size(&self) -> Result<u64> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(self.fail("read the size of"))
    }

    fn set_len(&self, size: u64) -> Result<()> {
        retry(|| self.file.set_len(size)).map_err(self.fail("set the size of"))
    }

    fn allocate(&self, size: u64) -> Result<()> {
        if reserve(&self.file, size)
            .or_else(|error| swallowed(error).map(|()| false))
            .map_err(self.fail("reserve space in"))?
            && self.size()? >= size
        {
            return Ok(());
        }
        // A file system that cannot reserve: a full disk then shows at a write, which poisons the log, and not here.
        if self.size()? < size { self.set_len(size) } else { Ok(()) }
    }

    fn drop_cache(&self) -> Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
        retry(|| Ok(rustix::fs::fadvise(self.file.as_fd(), 0, None, rustix::fs::Advice::DontNeed)?))
            .map_err(self.fail("drop the cache of"))?;
        Ok(())
    }
}

/// A planted bug: what a full disk says goes unheard.
fn swallowed(error: io::Error) -> io::Result<()> {
    let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge);
    if sabotage::on("T12") && is_full { Ok(()) } else { Err(error) }
}

/// Whether the file system reserved the space; an error only when it tried and could not.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn reserve(file: &fs::File, size: u64) -> io::Result<bool> {
    match retry(|| Ok(rustix::fs::fallocate(file.as_fd(), rustix::fs::FallocateFlags::empty(), 0, size)?)) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(EOPNOTSUPP | ENOSYS | EINVAL)) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn reserve(_: &fs::File, _: u64) -> io::Result<bool> {
    Ok(false)
}

struct RealLock {
    file: fs::File,
    process: u32,
    is_owner: bool,
}

/// On a disk that nobody can write to.
struct NoLock;

impl Lock for NoLock {}

/// Whether the system refused to open a file for writing.
fn is_refused(error: &Error) -> bool {
    matches!(error, Error::Storage { errno, .. } if [EACCES, EROFS].contains(errno))
}

impl Lock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // A forked child shares the lock with its parent: what it drops must not unlock the parent's database. And what
        // the parent drops is free at once, though a child may hold the file open for long.
        if self.process == process_id() {
            if self.is_owner {
                let _ = self.file.set_len(0);
            }
            let _ = flock(self.file.as_fd(), FlockOperation::Unlock);
        }
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = retry(|| fs::File::open(path))?;
    retry(|| directory.sync_all())
}

fn read_text(file: &fs::File) -> Option<String> {
    let mut bytes = [0; 256];
    let count = file.read_at(&mut bytes, 0).ok()?;
    Some(String::from_utf8_lossy(&bytes[..count]).trim().to_owned())
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn storage(operation: &'static str, path: &Path, error: io::Error) -> Error {
    Error::Storage {
        operation,
        path: path.display().to_string(),
        errno: error.raw_os_error().unwrap_or(0),
        message: error.to_string(),
    }
}

const EACCES: i32 = rustix::io::Errno::ACCESS.raw_os_error();
const EROFS: i32 = rustix::io::Errno::ROFS.raw_os_error();
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const EOPNOTSUPP: i32 = rustix::io::Errno::OPNOTSUPP.raw_os_error();
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const ENOSYS: i32 = rustix::io::Errno::NOSYS.raw_os_error();
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const EINVAL: i32 = rustix::io::Errno::INVAL.raw_os_error();

// --- time and chance -----------------------------------------------------------------------------

pub struct RealClock {
    start: Instant,
    wall_at_start: u64,
}

impl Default for RealClock {
    fn default() -> RealClock {
        RealClock { start: Instant::now(), wall_at_start: wall_us() }
    }
}

impl Clock for RealClock {
    fn wall_us(&self) -> u64 {
        wall_us()
    }

    fn monotonic_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    fn steady_us(&self) -> u64 {
        self.wall_us().min(self.wall_at_start.saturating_add(self.monotonic_us()))
    }
}

fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// SplitMix64 over a seed that the operating system gave. For ids and back-off, never for secrets.
pub struct RealRng {
    state: AtomicU64,
}

impl Default for RealRng {
    fn default() -> RealRng {
        // RandomState takes its keys from the system's random source once per thread; the clock and the process tell
        // two databases of one thread, and a child from its parent, apart.
        let mut hasher = std::hash::RandomState::new().build_hasher();
        hasher.write_u32(process_id());
        hasher.write_u128(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos()));
        RealRng { state: AtomicU64::new(hasher.finish()) }
    }
}

impl Rng for RealRng {
    fn next_u64(&self) -> u64 {
        super::split_mix(self.state.fetch_add(super::SPLIT_MIX_STEP, Ordering::Relaxed))
    }
}

// --- threads -------------------------------------------------------------------------------------

pub struct RealSpawn;

impl Spawn for RealSpawn {
    fn spawn(&self, name: &str, mut task: Task) -> Result<Arc<dyn Worker>> {
        let worker = Arc::new(RealWorker::default());
        let shared = worker.clone();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || while shared.pause(task()) {})
            .map_err(|error| storage("start thread", Path::new(name), error))?;
        *worker.thread.lock() = Some(thread);
        Ok(worker)
    }

    fn bell(&self) -> Box<dyn Bell> {
        Box::new(RealBell::default())
    }

    fn side_by_side(&self, pieces: usize, work: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        let run = || {
            while let Some(piece) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|piece| *piece < pieces) {
                work(piece);
            }
        };
        let hands = thread::available_parallelism().map_or(1, usize::from).min(HANDS_MAX).min(pieces);
        thread::scope(|scope| {
            // Where no thread can be had, the others do its part.
            for _ in 1..hands {
                let _ = thread::Builder::new().name("strata-help".into()).spawn_scoped(scope, run);
            }
            run();
        });
    }

    fn process_id(&self) -> u32 {
        process_id()
    }
}

/// With the condition variable of the standard library, which wakes all at once: see `log/turnstile.rs`.
#[derive(Default)]
struct RealBell {
    rings: std::sync::Mutex<u64>,
    rung: std::sync::Condvar,
}

impl RealBell {
    fn count(&self) -> std::sync::MutexGuard<'_, u64> {
        self.rings.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Bell for RealBell {
    fn rings(&self) -> u64 {
        *self.count()
    }

    fn ring(&self) {
        *self.count() += 1;
        self.rung.notify_all();
    }

    fn wait(&self, seen: u64, timeout_us: u64) {
        let has_not_rung = |rings: &mut u64| *rings == seen;
        drop(self.rung.wait_timeout_while(self.count(), Duration::from_micros(timeout_us), has_not_rung));
    }
}

/// Indexes are made beside other work, which is to have processors, too.
const HANDS_MAX: usize = 4;

#[derive(Default)]
struct RealWorker {
    signals: Mutex<Signals>,
    changed: Condvar,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

#[derive(Default)]
struct Signals {
    woken: bool,
    stopped: bool,
}

impl RealWorker {
    /// Park as `next` says; false when the task is over.
    fn pause(&self, next: Next) -> bool {
        let Next::After(wait_us) = next else { return false };
        // A deadline too far away to be represented is none.
        let deadline = Instant::now().checked_add(Duration::from_micros(wait_us));
        let mut signals = self.signals.lock();
        while !signals.woken && !signals.stopped {
            match deadline {
                Some(deadline) if self.changed.wait_until(&mut signals, deadline).timed_out() => break,
                Some(_) => {}
                None => self.changed.wait(&mut signals),
            }
        }
        signals.woken = false;
        !signals.stopped
    }
}

impl Worker for RealWorker {
    fn wake(&self) {
        self.signals.lock().woken = true;
        self.changed.notify_one();
    }

    fn stop(&self) {
        self.signals.lock().stopped = true;
        self.changed.notify_one();
        // The lock is held while joining, so a second caller returns only when the task is over, too.
        let mut thread = self.thread.lock();
        match thread.take() {
            // The task itself dropped the last handle: it cannot wait for itself, and ends after this call.
            Some(own) if own.thread().id() == thread::current().id() => {}
            Some(other) => drop(other.join()),
            None => {}
        }
    }
}

fn process_id() -> u32 {
    std::process::id()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> (PathBuf, Env) {
        let root = std::env::temp_dir().join(format!("strata-real-{name}-{}", process_id()));
        let _ = fs::remove_dir_all(&root);
        let env = env(&root);
        env.disk.create_dir("").unwrap();
        (root, env)
    }

    #[test]
    fn a_file_reads_back_what_was_written_and_zeros_beyond() {
        let (root, env) = scratch("file");
        let file = env.disk.create("a").unwrap();
        file.allocate(4096).unwrap();
        file.write_at(10, b"hello").unwrap();
        file.sync().unwrap();
        file.drop_cache().unwrap();
        let mut bytes = [1; 16];
        assert_eq!(file.read_at(4090, &mut bytes).unwrap(), 6);
        assert_eq!(file.read_at(8, &mut bytes).unwrap(), 16);
        assert_eq!(&bytes[..8], b"\0\0hello\0");
        file.set_len(12).unwrap();
        assert_eq!(file.size().unwrap(), 12);
        assert!(matches!(env.disk.create("a"), Err(Error::Storage { errno: 17, .. })));
        assert!(env.disk.open("missing").unwrap().is_none());
        env.disk.rename("a", "b").unwrap();
        env.disk.sync_dir("").unwrap();
        assert_eq!(env.disk.list("").unwrap().unwrap(), ["b"]);
        assert_eq!(env.disk.list("nowhere").unwrap(), None);
        env.disk.remove("b").unwrap();
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_second_handle_of_this_process_is_refused_and_told_who_owns() {
        let (root, env) = scratch("lock");
        let held = env.disk.lock("LOCK", Some("me, 17")).unwrap();
        match env.disk.lock("LOCK", Some("you")).map(drop) {
            Err(Error::Locked { owner, .. }) => assert_eq!(owner, "me, 17"),
            other => panic!("{other:?}"),
        }
        drop(held);
        drop(env.disk.lock("LOCK", Some("you")).unwrap());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_task_runs_when_due_or_woken_and_not_after_stop() {
        let calls = Arc::new(AtomicU64::new(0));
        let (done, seen) = (calls.clone(), calls.clone());
        let worker = RealSpawn
            .spawn(
                "test",
                Box::new(move || {
                    // The first calls come by time, those after only when woken.
                    let before = done.fetch_add(1, Ordering::SeqCst);
                    Next::After(if before < 2 { 100 } else { u64::MAX })
                }),
            )
            .unwrap();
        while seen.load(Ordering::SeqCst) < 3 {
            thread::yield_now();
        }
        worker.wake();
        while seen.load(Ordering::SeqCst) < 4 {
            thread::yield_now();
        }
        worker.stop();
        worker.stop();
        worker.wake();
        assert_eq!(calls.load(Ordering::SeqCst), 4);
    }

    #[test]
    fn a_bell_wakes_who_waits_and_is_not_missed() {
        let bell = RealSpawn.bell();
        let seen = bell.rings();
        thread::scope(|scope| {
            scope.spawn(|| bell.ring());
            bell.wait(seen, u64::MAX >> 20);
        });
        bell.wait(seen, u64::MAX >> 20); // it has rung since, so this does not wait
        assert_eq!(bell.rings(), seen + 1);
        bell.wait(seen + 1, 1);
    }

    #[test]
    fn work_side_by_side_is_all_done_once() {
        for pieces in [0, 1, 2, 1000] {
            let calls: Vec<AtomicUsize> = (0..pieces).map(|_| AtomicUsize::default()).collect();
            RealSpawn.side_by_side(pieces, &|piece| _ = calls[piece].fetch_add(1, Ordering::Relaxed));
            assert!(calls.iter().all(|calls| calls.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn two_sources_of_chance_differ() {
        assert_ne!(RealRng::default().next_u64(), RealRng::default().next_u64());
    }
}
