//! A world where one seed decides everything: time stands until a test moves it, chance replays,
//! tasks run when told, and the disk can lose, tear and reorder what a real one may.

mod disk;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Bell, Clock, Env, Next, Rng, SPLIT_MIX_STEP, Spawn, Task, Worker, split_mix};
use crate::error::Result;

pub use disk::{Call, Fault, FaultKind, SimDisk};
pub use world::SyncFault;

pub const EIO: i32 = 5;
pub const ENOSPC: i32 = 28;

/// One simulated process and its machine. Clones are the same world.
#[derive(Clone)]
pub struct Sim {
    pub disk: SimDisk,
    pub clock: SimClock,
    pub rng: SimRng,
    pub spawn: SimSpawn,
}

impl Sim {
    pub fn new(seed: u64) -> Sim {
        Sim::over(SimDisk::new(seed), seed)
    }

    /// A new process over a disk that there was before: what a restart after a crash finds.
    pub fn over(disk: SimDisk, seed: u64) -> Sim {
        let clock = SimClock::default();
        let spawn = SimSpawn { clock: clock.clone(), ..SimSpawn::default() };
        Sim { disk, clock, rng: SimRng::new(seed), spawn }
    }

    pub fn env(&self) -> Env {
        Env {
            disk: Arc::new(self.disk.clone()),
            clock: Arc::new(self.clock.clone()),
            rng: Arc::new(self.rng.clone()),
            spawn: Arc::new(self.spawn.clone()),
        }
    }

    /// Let `us` pass and run the background tasks that fall due in it, each at its own moment.
    pub fn pass(&self, us: u64) {
        let end = self.clock.monotonic_us() + us;
        while let Some(due) = self.spawn.next_due().filter(|due| *due <= end) {
            let now = self.clock.monotonic_us();
            self.clock.advance(due.saturating_sub(now));
            self.spawn.run_due(self.clock.monotonic_us());
        }
        let now = self.clock.monotonic_us();
        self.clock.advance(end.saturating_sub(now));
    }
}

/// A clock that moves only when told.
#[derive(Clone)]
pub struct SimClock {
    wall: Arc<AtomicU64>,
    monotonic: Arc<AtomicU64>,
}

/// 2026-01-01T00:00:00Z; any instant would do, but a real one makes printed times readable.
const START_US: u64 = 1_767_225_600_000_000;

impl Default for SimClock {
    fn default() -> SimClock {
        SimClock { wall: Arc::new(AtomicU64::new(START_US)), monotonic: Arc::default() }
    }
}

impl SimClock {
    /// Let both clocks run on.
    pub fn advance(&self, us: u64) {
        self.wall.fetch_add(us, Ordering::SeqCst);
        self.monotonic.fetch_add(us, Ordering::SeqCst);
    }

    /// Jump the wall clock, as an administrator or a bad time server does.
    pub fn set_wall(&self, us: u64) {
        self.wall.store(us, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn wall_us(&self) -> u64 {
        self.wall.load(Ordering::SeqCst)
    }

    fn monotonic_us(&self) -> u64 {
        self.monotonic.load(Ordering::SeqCst)
    }

    fn steady_us(&self) -> u64 {
        self.wall_us().min(START_US + self.monotonic_us())
    }
}

/// SplitMix64 from a seed.
#[derive(Clone)]
pub struct SimRng {
    state: Arc<AtomicU64>,
}

impl SimRng {
    pub fn new(seed: u64) -> SimRng {
        SimRng { state: Arc::new(AtomicU64::new(seed)) }
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// True in `percent` of a hundred draws.
    pub fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

impl Rng for SimRng {
    fn next_u64(&self) -> u64 {
        split_mix(self.state.fetch_add(SPLIT_MIX_STEP, Ordering::SeqCst))
    }
}

/// Tasks without threads: a test runs them at the moments it chooses.
#[derive(Clone, Default)]
pub struct SimSpawn {
    workers: Arc<Mutex<Vec<Arc<SimWorker>>>>,
    /// What passes for whoever waits.
    clock: SimClock,
}

impl SimSpawn {
    /// When the next task wants to be called; `None` when there is none.
    pub fn next_due(&self) -> Option<u64> {
        self.workers.lock().iter().filter_map(|worker| worker.due()).min()
    }

    /// Call each task that is due at `now`, once, in the order they were started. Returns how many were called.
    pub fn run_due(&self, now: u64) -> usize {
        // Not under the lock: a task may start another.
        let workers = self.workers.lock().clone();
        workers.iter().filter(|worker| worker.run(now)).count()
    }
}

impl Spawn for SimSpawn {
    fn spawn(&self, _name: &str, task: Task) -> Result<Arc<dyn Worker>> {
        let worker = Arc::new(SimWorker { due: AtomicU64::new(0), task: Mutex::new(Some(task)) });
        self.workers.lock().push(worker.clone());
        Ok(worker)
    }

    fn bell(&self) -> Box<dyn Bell> {
        Box::new(SimBell { rings: AtomicU64::new(0), clock: self.clock.clone() })
    }

    fn process_id(&self) -> u32 {
        1
    }
}

/// Nobody else does anything while one waits, so the time is over at once.
struct SimBell {
    rings: AtomicU64,
    clock: SimClock,
}

impl Bell for SimBell {
    fn rings(&self) -> u64 {
        self.rings.load(Ordering::SeqCst)
    }

    fn ring(&self) {
        self.rings.fetch_add(1, Ordering::SeqCst);
    }

    fn wait(&self, seen: u64, timeout_us: u64) {
        if self.rings() == seen {
            self.clock.advance(timeout_us);
        }
    }
}

/// `due` is when to call the task next; `STOPPED` for never.
struct SimWorker {
    due: AtomicU64,
    task: Mutex<Option<Task>>,
}

const STOPPED: u64 = u64::MAX;
/// A task that asks for no call but is not over; `wake` brings it back.
const ASLEEP: u64 = u64::MAX - 1;

impl SimWorker {
    fn due(&self) -> Option<u64> {
        Some(self.due.load(Ordering::SeqCst)).filter(|due| *due < ASLEEP)
    }

    fn run(&self, now: u64) -> bool {
        if self.due().is_none_or(|due| due > now) {
            return false;
        }
        // The task may wake its own worker, or a test may look at it from within: so it is taken out for the call.
        let Some(mut task) = self.task.lock().take() else { return false };
        self.due.store(ASLEEP, Ordering::SeqCst);
        match task() {
            Next::After(wait_us) => {
                let due = now.saturating_add(wait_us).min(ASLEEP);
                self.due.fetch_min(due, Ordering::SeqCst);
                *self.task.lock() = Some(task);
            }
            Next::Stop => self.due.store(STOPPED, Ordering::SeqCst),
        }
        true
    }
}

impl Worker for SimWorker {
    fn wake(&self) {
        let _ = self.due.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |due| (due != STOPPED).then_some(0));
    }

    fn stop(&self) {
        self.due.store(STOPPED, Ordering::SeqCst);
        *self.task.lock() = None;
    }
}

#[cfg(test)]
mod tests;
