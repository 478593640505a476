//! The one door to the world: files, time, chance and threads.
//!
//! Nothing else in the kernel touches `std::fs`, a clock, a thread or a random source (clippy denies
//! it), so one seed replays a whole run, and the simulator can lose, tear and reorder what a real
//! disk may.

mod below;
pub mod real;
pub mod sim;

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;

pub use below::Below;

/// An open file. Offsets are absolute; there is no cursor.
pub trait File: Send + Sync {
    /// Fill `buffer` from `offset`; returns how many bytes there were (less only at the end of the file).
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize>;
    /// Write all of `bytes` at `offset`, extending the file when needed. A short write is retried or an error.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()>;
    /// Make content and size durable.
    fn sync(&self) -> Result<()>;
    fn size(&self) -> Result<u64>;
    fn set_len(&self, size: u64) -> Result<()>;
    /// Reserve space up to `size`, so that later writes below it cannot fail for lack of it. Reads as zeros.
    fn allocate(&self, size: u64) -> Result<()>;
    /// Forget cached pages, so that the next read shows what the disk holds.
    fn drop_cache(&self) -> Result<()>;
}

/// Held while a directory is owned; dropping it gives the directory up.
pub trait Lock: Send + Sync {}

/// A place for files. Paths are relative to the database directory, with `/` between parts.
pub trait Disk: Send + Sync {
    /// Open an existing file. `None` when there is none.
    fn open(&self, path: &str) -> Result<Option<Arc<dyn File>>>;
    /// Open a file for reading only, and only one that is nothing else: a link, a directory, a pipe or a device is
    /// `InvalidInput`. `None` when there is nothing.
    fn open_plain(&self, path: &str) -> Result<Option<Arc<dyn File>>>;
    /// Create a new, empty file; an existing one is an error.
    fn create(&self, path: &str) -> Result<Arc<dyn File>>;
    /// Create a directory and its parents; an existing one is fine. `""` is the database directory itself.
    fn create_dir(&self, path: &str) -> Result<()>;
    /// Names in a directory, sorted. `None` when the directory does not exist.
    fn list(&self, path: &str) -> Result<Option<Vec<String>>>;
    /// Atomically give `from`, a file or a directory, the name `to`. A file replaces the one that was there.
    fn rename(&self, from: &str, to: &str) -> Result<()>;
    fn remove(&self, path: &str) -> Result<()>;
    /// Give a file of another disk the name `path` here, too, so that nothing is copied; false where that cannot be.
    fn link(&self, path: &str, from: &dyn Disk, source: &str) -> Result<bool> {
        let _ = (path, from, source);
        Ok(false)
    }
    /// Where the system has a file, if it has it.
    fn real_path(&self, path: &str) -> Option<PathBuf> {
        let _ = path;
        None
    }
    /// Remove an empty directory.
    fn remove_dir(&self, path: &str) -> Result<()>;
    /// Make the names in a directory durable.
    fn sync_dir(&self, path: &str) -> Result<()>;
    /// Take the lock that `path` stands for: alone, writing `owner` into it for others to read, or (`None`) together with
    /// others who do not write either, changing nothing.
    /// `Error::Locked` (with what the owner wrote) when someone holds it in a way that excludes this.
    fn lock(&self, path: &str, owner: Option<&str>) -> Result<Box<dyn Lock>>;
    /// The place in words, for messages.
    fn describe(&self, path: &str) -> String;
}

pub trait Clock: Send + Sync {
    /// Microseconds since 1970, UTC. May jump either way; the kernel's hybrid clock absorbs it.
    fn wall_us(&self) -> u64;
    /// Microseconds since an arbitrary start. Never goes back.
    fn monotonic_us(&self) -> u64;
    /// The wall clock, but no further ahead of where it began than time has passed since: what lets go of data by its age
    /// goes by it. Behind it is where the clock was set back, or the machine slept.
    fn steady_us(&self) -> u64 {
        self.wall_us()
    }
}

pub trait Rng: Send + Sync {
    fn next_u64(&self) -> u64;
}

/// A background task: called again and again, each time told how long to wait at most before the next call.
pub type Task = Box<dyn FnMut() -> Next + Send>;

/// What a background task asks for after each call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Call again after this many microseconds, or at once when woken.
    After(u64),
    Stop,
}

/// A running background task. Dropping it does not stop it; `stop` does and waits.
pub trait Worker: Send + Sync {
    /// Call the task now rather than at its time.
    fn wake(&self);
    /// Let a call in progress end, then never call again. Returns when that is so. Idempotent.
    fn stop(&self);
}

/// What threads wait for that have nothing else to do.
pub trait Bell: Send + Sync {
    /// How often it has rung.
    fn rings(&self) -> u64;
    /// Wake all who wait.
    fn ring(&self);
    /// Return once it has rung since `seen`, or after this many microseconds.
    fn wait(&self, seen: u64, timeout_us: u64);
}

pub trait Spawn: Send + Sync {
    fn spawn(&self, name: &str, task: Task) -> Result<Arc<dyn Worker>>;
    fn bell(&self) -> Box<dyn Bell>;
    /// Call `work` with each number below `pieces`, in any order and perhaps side by side; return when all are done.
    fn side_by_side(&self, pieces: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..pieces).for_each(work);
    }
    /// The process, for the LOCK file; also tells a forked child from its parent.
    fn process_id(&self) -> u32;
}

/// All of it together.
#[derive(Clone)]
pub struct Env {
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
    pub spawn: Arc<dyn Spawn>,
}

/// The step between two states of SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) const SPLIT_MIX_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The output of SplitMix64 for one state.
pub(crate) fn split_mix(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
