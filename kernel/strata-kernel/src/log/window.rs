//! Which acknowledgements a power cut could take, by time.
//!
//! `buffered` promises that those were given within one interval of each other (reliability.md, D1).
//! So it is enough to know the oldest of them: a new one may be given only while that one is less than
//! an interval old. A sync takes away those below the position where it began, whenever they were given.

/// Times of acknowledgements, in microseconds of the monotonic clock.
#[derive(Default)]
pub(super) struct Window {
    /// The oldest below `syncing_upto`: gone when the sync that runs ends well.
    covered: Option<u64>,
    /// The oldest at or above it.
    open: Option<u64>,
    syncing_upto: u64,
}

impl Window {
    /// The oldest acknowledgement that a power cut could take.
    pub fn oldest(&self) -> Option<u64> {
        match (self.covered, self.open) {
            (Some(covered), Some(open)) => Some(covered.min(open)),
            (covered, open) => covered.or(open),
        }
    }

    pub fn acknowledge(&mut self, position: u64, now: u64) {
        let slot = if position <= self.syncing_upto { &mut self.covered } else { &mut self.open };
        slot.get_or_insert(now);
    }

    /// A sync of everything below `position` begins. All acknowledged records lie below.
    pub fn sync_begins(&mut self, position: u64) {
        self.covered = self.oldest();
        self.open = None;
        self.syncing_upto = position;
    }

    pub fn sync_ended_well(&mut self) {
        self.covered = None;
    }
}
