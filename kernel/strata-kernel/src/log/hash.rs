//! The rolling hash that names a state.

use xxhash_rust::xxh3::xxh3_128;

/// What a branch has become, in 16 bytes: equal hashes at equal versions mean equal histories.
///
/// `next = xxh3_128(previous ‖ version ‖ time ‖ xxh3_128(payload))`, numbers little-endian. It finds
/// accidents and divergence, not forgery: events carry SHA-256 chains for that.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub struct StateHash(pub [u8; 16]);

impl StateHash {
    /// The state after the commit that carries `payload` (as the caller gave it, uncompressed).
    pub fn next(previous: StateHash, version: u64, time: u64, payload: &[u8]) -> StateHash {
        StateHash::step(previous, version, time, digest(payload))
    }

    pub(super) fn step(previous: StateHash, version: u64, time: u64, digest: u128) -> StateHash {
        let mut bytes = [0; 48];
        bytes[..16].copy_from_slice(&previous.0);
        bytes[16..24].copy_from_slice(&version.to_le_bytes());
        bytes[24..32].copy_from_slice(&time.to_le_bytes());
        bytes[32..].copy_from_slice(&digest.to_le_bytes());
        StateHash(xxh3_128(&bytes).to_le_bytes())
    }
}

/// The part of the hash that needs no version, so it is made before the log's lock is taken.
pub(super) fn digest(payload: &[u8]) -> u128 {
    xxh3_128(payload)
}

impl std::fmt::Debug for StateHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
