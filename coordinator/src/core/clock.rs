//! Time in the core, and its time limits.

use std::time::Duration;

/// Time since the coordinator started, by its monotonic clock.
pub type CoreTime = Duration;

/// The time limits of the core.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Time without a heartbeat after which a lease expires.
    pub lease_ttl: Duration,
}
