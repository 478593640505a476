//! What others do while a checkpoint is at work: before one of its calls of the disk, as another thread would, they read
//! everything and commit something. So a history has commits between a cut and the MANIFEST that names it, and reads
//! that meet layers which are being written out.
//!
//! The hook of the disk has to be able to go to other threads, and a model cannot: so the plan lies beside, on the thread
//! that the whole history runs on.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use strata_kernel::env::Clock;
use strata_kernel::env::sim::{Call, Sim};
use strata_kernel::store::Store;
use strata_kernel::{Error, change};

use crate::compare;
use crate::driver::{Before, Check};
use crate::model::{KEYSPACES, State, Write};
use crate::notes::Acknowledged;
use crate::operations::{Encoded, store_write};

thread_local! {
    static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
}

/// To be carried out once, after so many calls of the checkpoint.
pub struct Plan {
    pub calls: usize,
    pub sim: Sim,
    pub store: Arc<Store>,
    pub state: Rc<State>,
    pub numbers: [u32; KEYSPACES.len()],
    pub branch: String,
    pub writes: Vec<Write>,
    pub faults: bool,
    pub done: Option<Done>,
}

/// What came of it.
pub struct Done {
    pub seen: Check,
    /// `None` where memory is short: who commits then would wait for the checkpoint, and it for them.
    pub got: Option<Result<u64, Error>>,
    pub wall: u64,
    pub before: Before,
    pub acknowledged: Acknowledged,
}

pub fn plan(plan: Plan) {
    PLAN.set(Some(plan));
}

/// The plan, carried out or not.
pub fn take() -> Option<Plan> {
    PLAN.take()
}

/// Called before each call of the disk; true when the plan was carried out before this one.
pub fn act(call: &Call<'_>) -> bool {
    if !(call.path.starts_with("DATA/") || call.path.starts_with("MANIFEST")) {
        return false;
    }
    let due = PLAN.with_borrow_mut(|plan| plan.take_if(Plan::is_due));
    // It is taken out, so that its own calls pass.
    let Some(mut plan) = due else { return false };
    plan.done = Some(plan.carry_out());
    PLAN.set(Some(plan));
    true
}

/// Called once the commit of the plan counts as acknowledged.
pub fn look_again() {
    let Some(mut plan) = PLAN.take() else { return };
    if let Some(mut done) = plan.done.take() {
        done.seen = std::mem::replace(&mut done.seen, Ok(())).and_then(|()| plan.look_again(&done));
        plan.done = Some(done);
    }
    PLAN.set(Some(plan));
}

impl Plan {
    fn is_due(&mut self) -> bool {
        self.calls = self.calls.saturating_sub(1);
        self.calls == 0 && self.done.is_none() && !self.would_wait()
    }

    /// Whether who is at work reads the branch in this moment: another thread would wait for it, and this one for itself.
    fn would_wait(&self) -> bool {
        self.store.branch(&self.branch).is_ok_and(|branch| branch.data.is_locked())
    }

    fn carry_out(&self) -> Done {
        let seen = compare::heads(&self.store, &self.numbers, &self.state);
        let moment = || self.sim.disk.journal_len();
        let was_poisoned = self.faults && self.store.log.poisoned().is_some();
        let before = Before { moment: moment(), was_poisoned };
        let (held, may_hold) = self.store.table_bytes();
        let got = (held <= may_hold).then(|| self.commit());
        let acknowledged = Acknowledged { moment: moment(), time_us: self.sim.clock.monotonic_us() };
        let wall = self.sim.clock.wall_us();
        Done { seen, got, wall, before, acknowledged }
    }

    /// What was committed just now is shown together with what is being written out.
    fn look_again(&self, done: &Done) -> Check {
        let id = self.state.by_name(&self.branch).map(|branch| branch.id);
        match id.map(|id| self.state.commit(id, &self.writes, None, done.wall)) {
            Some(Ok(after)) if matches!(done.got, Some(Ok(_))) => compare::heads(&self.store, &self.numbers, &after),
            // What was to be refused is told when it is settled.
            _ => Ok(()),
        }
    }

    fn commit(&self) -> Result<u64, Error> {
        let branch = self.store.branch(&self.branch)?;
        let encoded: Vec<Encoded> = self.writes.iter().map(|write| Encoded::of(&write.request)).collect();
        let requests: Vec<change::Write<'_>> = self
            .writes
            .iter()
            .zip(&encoded)
            .map(|(write, encoded)| store_write(&self.numbers, write, encoded))
            .collect();
        self.store.write(&branch, &requests).map(|committed| committed.version)
    }
}
