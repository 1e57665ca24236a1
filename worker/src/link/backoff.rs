//! Waiting between two attempts to reach the coordinator.

use std::time::Duration;

use ergodic_proto::channel::retry::with_jitter;
use ergodic_proto::status::retry_after;

/// Waits between attempts: 0.2 s at first, doubling up to 10 s, anywhere between half and the whole of it.
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self {
            next: Duration::from_millis(200),
        }
    }

    pub(crate) async fn wait_next(&mut self) {
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.subsec_nanos());
        let jitter = 0.5 + 0.5 * f64::from(nanos % 1000) / 1000.0;
        tokio::time::sleep(self.next.mul_f64(jitter)).await;
        self.next = (self.next * 2).min(Duration::from_secs(10));
    }

    /// Waits as long as the coordinator asks for, or as after any other failure if it asks for nothing.
    pub(crate) async fn wait_after(&mut self, status: &tonic::Status) {
        match retry_after(status) {
            Some(wait) => tokio::time::sleep(with_jitter(wait, 1)).await,
            None => self.wait_next().await,
        }
    }
}
