//! The keeper: checkpoints in the background, when the log has become long, memory short, or time has passed.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::Store;
use crate::env::Next;
use crate::error::Result;
use crate::log::Appended;
use crate::manifest::Manifest;
use crate::sabotage;
use crate::state::State;

impl Store {
    /// Begin to look after the files.
    pub(super) fn start_keeper(self: &Arc<Store>) -> Result<()> {
        let weak: Weak<Store> = Arc::downgrade(self);
        let task = move || weak.upgrade().map_or(Next::Stop, |store| store.keep());
        let worker = self.env.spawn.spawn("strata-keep", Box::new(task))?;
        self.shared.memory.is_kept_by(Arc::clone(&worker));
        let _ = self.worker.set(worker);
        Ok(())
    }

    /// One round of the keeper. What fails is tried again in the next round: the log has everything until then.
    fn keep(&self) -> Next {
        if self.is_closed() {
            return Next::Stop;
        }
        if self.is_checkpoint_due() && self.check_store_writable().is_ok() {
            // Not as callers do it, who wake the keeper: it would never rest where memory stays short, as it does while somebody
            // holds on to a large branch that is deleted.
            let _alone = self.keeper.lock();
            let _ = self.checkpoint_alone();
        }
        let pause = self.tidy().unwrap_or(u64::MAX);
        Next::After(pause.min(self.options.checkpoint_interval_us))
    }

    fn is_checkpoint_due(&self) -> bool {
        let waits = self.env.clock.monotonic_us().saturating_sub(self.checkpointed_at.load(Ordering::Relaxed));
        self.is_short_of_memory()
            || self.is_log_long(self.log.position())
            || (waits >= self.options.checkpoint_interval_us && self.log.last_version() > self.checkpoint_version())
    }

    fn is_log_long(&self, position: u64) -> bool {
        position.saturating_sub(self.checkpointed.load(Ordering::Relaxed)) >= self.options.checkpoint_bytes
    }

    /// Whether tables have more than half of their share of the memory, so that the other half is there while they are
    /// written out.
    pub(super) fn is_short_of_memory(&self) -> bool {
        self.shared.memory.is_short()
    }

    /// Called for every commit.
    #[inline]
    pub(crate) fn committed(&self, appended: &Appended) {
        if (self.is_log_long(appended.position) || self.is_short_of_memory()) && self.keeps_a_log() {
            self.wake_keeper();
        }
    }

    #[cold]
    pub(super) fn wake_keeper(&self) {
        if let Some(worker) = self.worker.get() {
            worker.wake();
        }
    }

    /// Called before a commit takes anything: where the keeper cannot keep up, who writes helps, and waits meanwhile.
    #[inline]
    pub(crate) fn make_room(&self) -> Result<()> {
        if self.shared.memory.bytes() > self.options.table_bytes() && self.keeps_a_log() {
            self.help_keeper()
        } else {
            Ok(())
        }
    }

    #[cold]
    fn help_keeper(&self) -> Result<()> {
        let _alone = self.keeper.lock();
        if self.shared.memory.bytes() > self.options.table_bytes() {
            self.checkpoint_alone()?;
        }
        Ok(())
    }

    pub(super) fn manifest(&self) -> Option<Manifest> {
        self.files.lock().as_ref().map(|files| files.manifest.clone())
    }

    /// What `ask` says of the state.
    pub(super) fn of_state<R>(&self, ask: impl FnOnce(&State) -> R) -> R {
        match self.files.lock().as_ref() {
            Some(files) => ask(&files.manifest.state),
            None => ask(&self.volatile.lock()),
        }
    }

    pub(super) fn checkpoint_version(&self) -> u64 {
        self.files.lock().as_ref().map_or(0, |files| files.manifest.checkpoint_version)
    }

    /// A number for a new run: none is given twice, also when its file never came to be.
    pub(super) fn next_run(&self) -> u64 {
        self.next_run.fetch_add(u64::from(!sabotage::on("K13")), Ordering::Relaxed)
    }

    /// Replace the MANIFEST. With the keeper's lock held.
    pub(super) fn switch(&self, manifest: Manifest) -> Result<()> {
        let manifest = Manifest { next_run: self.next_run.load(Ordering::Relaxed), ..manifest };
        manifest.write(&*self.env.disk, self.keys().as_deref())?;
        self.checkpointed.store(manifest.proven, Ordering::Relaxed);
        self.checkpointed_at.store(self.env.clock.monotonic_us(), Ordering::Relaxed);
        if let Some(files) = self.files.lock().as_mut() {
            files.manifest = manifest;
        }
        Ok(())
    }
}
