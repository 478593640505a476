//! Rotation: from one key to another, or from none to one.
//!
//! 1. *Announce*: a MANIFEST that is sealed with the new key. From here on opening takes the new key, and the old one for
//!    what is not rewritten yet. Was nothing sealed before, the MANIFEST says so, and plain files are read until the end.
//! 2. *Checkpoint*: the log goes on in a segment of the new key, and those before are removed.
//! 3. *Compact*: all runs are rewritten, also where there is only one.
//! 4. *End*: nothing is sealed with the old key, so it is forgotten, and plain files are refused again.
//!
//! To none the same way: the MANIFEST says that plain files are to be read, new ones are not sealed any more, and it is
//! itself the last to become plain. Until then the old key opens all of it.
//!
//! A crash in between loses nothing. Opened with both keys, the next compaction goes on with it; so does asking again. On
//! the way to plain files it goes back to sealed ones, unless it is asked for again.

use std::sync::Arc;

use super::{Compacted, Store};
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::sabotage;
use crate::seal::{Key, KeyId, Keyring};

impl Store {
    /// Seal everything with `key`, or nothing. When this returns, no file is sealed otherwise.
    pub fn rotate_key(
        &self,
        key: impl Into<Option<Key>>,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<Compacted> {
        self.check_store_writable()?;
        if !self.keeps_a_log() {
            return Err(Error::InvalidInput("a database in memory has no files to encrypt".to_owned()));
        }
        self.announce_key(key.into())?;
        let mut done = self.compact(progress)?;
        // A compaction gives up when new pins come again and again.
        while !self.is_sealed_with_current() {
            let more = self.compact(progress)?;
            done.reclaimed_bytes += more.reclaimed_bytes;
            done.segments_removed += more.segments_removed;
            done.versions_removed += more.versions_removed;
            done.runs_merged += more.runs_merged;
        }
        Ok(done)
    }

    fn announce_key(&self, key: Option<Key>) -> Result<()> {
        let _alone = self.keeper.lock();
        let Some(manifest) = self.manifest() else { return Err(Error::Closed("database")) };
        let before = self.keys();
        let keys = match (&before, key) {
            (Some(keys), Some(key)) => keys.with_current(key),
            (None, Some(key)) => Keyring::new(self.database_id, key, []).plain_too(),
            (Some(keys), None) => keys.seal_nothing_new(),
            (None, None) => return Ok(()),
        };
        let plain_too = keys.reads_plain();
        self.replace_keys(Some(Arc::new(keys)));
        let announced = self.switch(Manifest { plain_too, ..manifest });
        if announced.is_err() {
            self.replace_keys(before);
        }
        announced
    }

    fn replace_keys(&self, keys: Option<Arc<Keyring>>) {
        self.log.set_keys(keys.clone());
        *self.keys.write() = keys;
    }

    /// Forget older keys, and refuse plain files, once no file needs them.
    pub(super) fn end_rotation(&self) -> Result<()> {
        let _alone = self.keeper.lock();
        let (Some(manifest), Some(keys)) = (self.manifest(), self.keys()) else { return Ok(()) };
        if keys.is_settled() || !self.is_sealed_with(keys.current()) {
            return Ok(());
        }
        if keys.current().is_none() {
            self.replace_keys(None);
            let done = self.switch(Manifest { plain_too: false, ..manifest });
            if done.is_err() {
                self.replace_keys(Some(keys));
            }
            return done;
        }
        if manifest.plain_too {
            self.switch(Manifest { plain_too: false, ..manifest })?;
        }
        self.replace_keys(Some(Arc::new(keys.only_current())));
        Ok(())
    }

    fn is_sealed_with_current(&self) -> bool {
        self.keys().is_none_or(|keys| self.is_sealed_with(keys.current()))
    }

    /// Whether nothing is sealed with another key, or with none.
    fn is_sealed_with(&self, key: KeyId) -> bool {
        (self.runs.read().iter().all(|run| run.key() == key) || sabotage::on("K34"))
            && self.log.segments().iter().all(|segment| segment.key == key)
    }
}
