//! Seals and tags: a branch that takes no more writes, and names for versions that are kept.

use std::sync::Arc;

use super::Store;
use super::branches::{Registry, near};
use crate::branch::{Branch, Pin};
use crate::error::{Error, Result};
use crate::payload::{BranchChange, Seal};
use crate::state::Tag;

/// A tag, and what keeps compaction from what it names.
pub struct Tagged {
    pub tag: Tag,
    branch: Arc<Branch>,
    _pin: Pin,
}

impl Registry {
    /// `None` where there is no such branch.
    pub(super) fn add_tag(&mut self, tag: Tag) -> Option<()> {
        let branch = Arc::clone(self.by_id(tag.branch)?);
        let _pin = branch.force_pin(tag.version);
        self.tags.insert(tag.name.clone(), Tagged { tag, branch, _pin });
        Some(())
    }
}

impl Store {
    /// Let a branch take no more writes, or take them again. Returns the version of that.
    pub fn seal(&self, name: &str, seal: Option<Seal>) -> Result<u64> {
        let branch = self.branch(name)?;
        // No commit is in the middle while it shuts, and whoever sees it shut sees all that came before.
        let line = branch.line.lock();
        self.publish_applied(&branch, line.last, line.applied)?;
        let version = self.change_branches(|registry| Ok(BranchChange::Seal { id: registry.find(name)?.id, seal }));
        drop(line);
        version
    }

    /// Name a version of a branch, up to its newest; returns that version.
    pub fn tag(&self, name: &str, branch: &str, version: Option<u64>, note: Option<String>) -> Result<u64> {
        // Held until the tag has its own.
        let mut pin = Pin::default();
        let mut tagged = 0;
        self.change_branches(|registry| {
            if registry.tags.contains_key(name) {
                return Err(Error::AlreadyExists { what: "tag", name: name.to_owned() });
            }
            let branch = registry.find(branch)?;
            tagged = version.unwrap_or(u64::MAX).min(branch.head());
            pin = branch.pin(tagged);
            if !pin.is_whole() {
                return Err(branch.trimmed_at(tagged));
            }
            Ok(BranchChange::Tag { id: branch.id, name: name.to_owned(), version: tagged, note })
        })?;
        Ok(tagged)
    }

    pub fn untag(&self, name: &str) -> Result<u64> {
        self.change_branches(|registry| match registry.tags.get(name) {
            Some(tagged) => Ok(BranchChange::Untag { id: tagged.tag.branch, name: name.to_owned() }),
            None => {
                let near = near(name, registry.tags.keys().cloned().collect());
                Err(Error::NotFound { what: "tag", name: name.to_owned(), near })
            }
        })
    }

    /// All tags by name, each with the name of its branch.
    pub fn tags(&self) -> Result<Vec<(Tag, String)>> {
        self.check_open()?;
        let registry = self.registry.read();
        Ok(registry.tags.values().map(|tagged| (tagged.tag.clone(), tagged.branch.name.read().clone())).collect())
    }
}
