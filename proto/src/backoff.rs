//! Waits between attempts. They are random in part, so that peers which failed together do not try again together.

use std::time::Duration;

use crate::identity::random_bytes;
use crate::status::retry_after;

/// The first wait of a [`Backoff`].
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Longest wait of a [`Backoff`].
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Attempts after which the random part of a wait grows no more.
const MAX_SPREAD: u32 = 8;

/// A wait of at least this time, and up to twice as long the first time, three times the second.
pub fn with_jitter(wait: Duration, attempt: u32) -> Duration {
    let spread = f64::from(attempt.clamp(1, MAX_SPREAD));
    wait + wait.mul_f64(random_share() * spread)
}

/// A number of at least 0 and less than 1.
fn random_share() -> f64 {
    f64::from(u32::from_le_bytes(random_bytes())) / (f64::from(u32::MAX) + 1.0)
}

/// Pauses between attempts: up to 0.2 s at first, doubling to 10 s, each drawn from half to the
/// whole of it.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST_WAIT }
    }
}

impl Backoff {
    /// A backoff before its first wait.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits after a failure.
    pub async fn wait_next(&mut self) {
        tokio::time::sleep(self.next_wait()).await;
    }

    /// Waits for the time that the coordinator asks for, or else for the next pause.
    pub async fn wait_after(&mut self, status: &tonic::Status) {
        match retry_after(status) {
            Some(wait) => tokio::time::sleep(with_jitter(wait, 1)).await,
            None => self.wait_next().await,
        }
    }

    fn next_wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(0.5 + 0.5 * random_share());
        self.next = (self.next * 2).min(MAX_WAIT);
        wait
    }
}

#[cfg(test)]
mod tests {
    use crate::backoff::*;

    #[test]
    fn jitter_lengthens_a_wait_by_a_random_part() {
        let second = Duration::from_secs(1);
        for (attempt, spread) in [(0, 1), (1, 1), (3, 3), (8, 8), (100, 8)] {
            let waits: Vec<Duration> = (0..200).map(|_| with_jitter(second, attempt)).collect();
            let longest = second * (1 + spread);
            assert!(waits.iter().all(|wait| (second..longest).contains(wait)));

            let distinct: std::collections::BTreeSet<&Duration> = waits.iter().collect();
            assert!(distinct.len() > 190, "{distinct:?}");
        }
    }

    #[test]
    fn waits_double_up_to_a_bound() {
        let mut backoff = Backoff::new();
        let mut whole = FIRST_WAIT;
        for _ in 0..20 {
            let wait = backoff.next_wait();
            assert!(whole / 2 <= wait && wait <= whole, "{wait:?} of {whole:?}");
            whole = (whole * 2).min(MAX_WAIT);
        }
        assert_eq!(whole, MAX_WAIT);
    }
}
