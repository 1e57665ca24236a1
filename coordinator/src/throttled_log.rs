//! Logs lasting problems: when they begin, and then once in a while with the number of occurrences.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

/// Interval at which the same problem is logged.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Problems that were logged lately, by message. Messages are constants, so there are few.
#[derive(Debug, Default)]
pub(crate) struct ThrottledLog(HashMap<&'static str, ThrottledMessage>);

#[derive(Debug)]
struct ThrottledMessage {
    last_reported: Instant,
    /// Number of occurrences since then.
    occurrences: u64,
}

impl ThrottledLog {
    /// Logs a problem, unless it was logged a moment ago.
    pub(crate) fn report_error(&mut self, what: &'static str, why: &dyn Display) {
        if let Some(times) = self.count_if_due(what, Instant::now()) {
            tracing::error!(error = %why, times, "{what}");
        }
    }

    /// Number of occurrences since a problem was logged last, including this one; `None` if it is
    /// not due yet.
    fn count_if_due(&mut self, what: &'static str, now: Instant) -> Option<u64> {
        let known = self.0.entry(what).or_insert(ThrottledMessage {
            last_reported: now,
            occurrences: 0,
        });
        known.occurrences += 1;
        let first = known.last_reported == now && known.occurrences == 1;
        if !first && now.saturating_duration_since(known.last_reported) < REPORT_INTERVAL {
            return None;
        }

        known.last_reported = now;
        Some(std::mem::take(&mut known.occurrences))
    }
}

#[cfg(test)]
mod tests {
    use crate::throttled_log::*;

    #[test]
    fn what_lasts_is_told_once_a_minute_with_how_often_it_came() {
        let mut complaints = ThrottledLog::default();
        let begin = Instant::now();
        let told: Vec<(u64, u64)> = (0..200)
            .filter_map(|second| {
                Some((
                    second,
                    complaints.count_if_due("a", begin + Duration::from_secs(second))?,
                ))
            })
            .collect();
        assert_eq!(told, [(0, 1), (60, 60), (120, 60), (180, 60)]);

        assert_eq!(
            complaints.count_if_due("b", begin + Duration::from_secs(1)),
            Some(1),
            "something else is told at once"
        );
    }
}
