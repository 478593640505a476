//! Waiting for a change of the writer's state, so that all who wait wake at once.
//!
//! A `parking_lot::Condvar` hands its waiters to the mutex, which lets one go after the other: each hop
//! is a turn of the scheduler, and with eight threads in a group the hops took longer than the sync.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use parking_lot::MutexGuard;

#[derive(Default)]
pub(super) struct Turnstile {
    /// How often it has turned.
    turns: Mutex<u64>,
    turned: Condvar,
    /// Changed only by holders of the guard that is waited with.
    waiting: AtomicUsize,
}

impl Turnstile {
    /// Let go of `guard` until the next `turn`.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // Read while the guard is held: a turn after that is not missed.
        let seen = *self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        MutexGuard::unlocked(guard, || {
            let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.turned.wait_while(turns, |turns| *turns == seen));
        });
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Wake all who wait. The caller holds the guard, and has made its change.
    pub fn turn(&self) {
        // Nobody waits, mostly, and then this costs nothing: it is on the path of every commit.
        if self.waiting.load(Ordering::Relaxed) > 0 {
            *self.turns.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            self.turned.notify_all();
        }
    }
}
