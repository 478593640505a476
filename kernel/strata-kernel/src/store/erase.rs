//! Erasure: what `forget` names goes out of all versions of all branches, out of memory and files.
//!
//! It stands in the MANIFEST from the beginning to the end, so a crash in between does not stop it, with the version up to
//! which it goes, so that it never takes what was put later. A checkpoint lets go
//! of the log; a compaction of everything leaves out what is named. What readers brought into memory from the old runs
//! meanwhile goes last.

use super::{Compacted, Erasure, Store};
use crate::error::Result;

impl Store {
    /// Erase what `erasures` name. It is gone from the directory when this returns; after a crash in between the next
    /// opening goes on with it.
    pub fn forget(&self, mut erasures: Vec<Erasure>) -> Result<Compacted> {
        let upto = self.log.last_version();
        erasures.iter_mut().for_each(|erasure| erasure.upto = upto);
        // Several may be at it, so each adds and takes back its own.
        self.change_state(|state| state.erasures.extend_from_slice(&erasures))?;
        let outcome = self.erase();
        // Also after a failure: it was told, and nothing of it is to be done behind the caller's back.
        let taken_back = self.take_back(&erasures);
        outcome.and_then(|done| taken_back.map(|()| done))
    }

    /// Carry out what a crash cut short, or others are about to.
    pub(super) fn go_on_erasing(&self) -> Result<()> {
        let erasures = self.of_state(|state| state.erasures.clone());
        if !erasures.is_empty() {
            self.erase()?;
            self.take_back(&erasures)?;
        }
        Ok(())
    }

    fn erase(&self) -> Result<Compacted> {
        let done = self.compact(&mut |_, _| Ok(()))?;
        if self.manifest().is_some() {
            self.freeze();
            self.checkpoint()?;
            self.drop_all_layers(self.checkpoint_version());
        }
        for branch in self.registry.read().with_ancestors().values() {
            // The next append looks up where the stream ends: it may have been erased.
            branch.line.lock().streams.clear();
        }
        Ok(done)
    }

    fn take_back(&self, erasures: &[Erasure]) -> Result<()> {
        self.change_state(|state| {
            let standing = &mut state.erasures;
            for erasure in erasures {
                if let Some(place) = standing.iter().position(|other| other == erasure) {
                    standing.remove(place);
                }
            }
        })
    }
}
