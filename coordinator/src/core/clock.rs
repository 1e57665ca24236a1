//! Time as the core knows it.

use std::time::Duration;

/// Time since the coordinator started, by its monotonic clock.
pub type CoreTime = Duration;

/// Time limits that the core keeps.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A lease ends after this time without a heartbeat.
    pub lease_ttl: Duration,
}
