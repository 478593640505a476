//! Waiting for what becomes of a branch: commits, its seal, its end.
//!
//! Invariant: whoever waits counts itself first and then looks, and whoever changes something changes it first and then looks
//! at the count. Of these four all are in one order (`SeqCst`), so one of the two sees the other.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use super::Branch;
use crate::env::{Bell, Spawn};

/// Those who wait. Mostly there are none, and then a commit pays for one look at a number.
#[derive(Default)]
pub(super) struct Waiters {
    count: AtomicUsize,
    /// Made by the first of them.
    bell: OnceLock<Box<dyn Bell>>,
}

impl Waiters {
    /// Called after each change that somebody may wait for.
    #[inline]
    pub fn wake(&self) {
        if self.count.load(Ordering::SeqCst) > 0 {
            self.ring();
        }
    }

    #[cold]
    fn ring(&self) {
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
    }
}

impl Branch {
    /// Wait until something happens to the branch, at most so long; not at all where `is_over` says so. What it was is to be
    /// looked at, and it may have been nothing.
    pub fn wait(&self, spawn: &dyn Spawn, timeout_us: u64, is_over: impl FnOnce() -> bool) {
        let waiters = &self.waiters;
        let bell = waiters.bell.get_or_init(|| spawn.bell());
        waiters.count.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let seen = bell.rings();
        if !is_over() {
            bell.wait(seen, timeout_us);
        }
        waiters.count.fetch_sub(1, Ordering::SeqCst);
    }

    /// Wake all who wait, to see that all is over.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        self.waiters.wake();
    }
}
