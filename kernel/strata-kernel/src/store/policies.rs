//! The retention policies of a database. They stand in the MANIFEST, where there is one.

use super::Store;
use crate::error::Result;
use crate::retention::Policy;
use crate::state::State;

impl Store {
    pub fn policies(&self) -> Result<Vec<Policy>> {
        self.check_open()?;
        Ok(self.of_state(|state| state.policies.clone()))
    }

    /// Set the policy for what it names, in the place of one for the same.
    pub fn set_policy(&self, policy: Policy) -> Result<()> {
        self.change_state(|state| {
            state.policies.retain(|other| !other.is_for_the_same(&policy));
            state.policies.push(policy);
        })
    }

    /// Take back the policy for what `policy` names; false when there was none.
    pub fn clear_policy(&self, policy: &Policy) -> Result<bool> {
        self.check_healthy()?;
        let was_there = self.policies()?.iter().any(|other| other.is_for_the_same(policy));
        if was_there {
            self.change_state(|state| state.policies.retain(|other| !other.is_for_the_same(policy)))?;
        }
        Ok(was_there)
    }

    /// After a failed sync nothing is changed any more, the MANIFEST neither.
    fn check_healthy(&self) -> Result<()> {
        self.check_store_writable()?;
        self.log.poisoned().map_or(Ok(()), Err)
    }

    pub(super) fn change_state(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        self.check_healthy()?;
        let _alone = self.keeper.lock();
        let Some(mut manifest) = self.manifest() else {
            change(&mut self.volatile.lock());
            return Ok(());
        };
        if manifest.state.next_branch == 0 {
            // The state of a database without a checkpoint names no branches; only a checkpoint may say which there are.
            self.checkpoint_alone()?;
            manifest = self.manifest().unwrap_or(manifest);
        }
        change(&mut manifest.state);
        self.switch(manifest)
    }
}
