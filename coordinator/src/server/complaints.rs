//! Troubles that last: told when they begin, and from then on once in a while with how often they came.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

/// How often the same trouble is told.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// What was complained about of late. What is complained about are constants: there are few.
#[derive(Debug, Default)]
pub(super) struct Complaints(HashMap<&'static str, Complaint>);

#[derive(Debug)]
struct Complaint {
    told: Instant,
    /// How often it came since.
    since: u64,
}

impl Complaints {
    /// Tells of a trouble, unless it was told a moment ago.
    pub(super) fn say(&mut self, what: &'static str, why: &dyn Display) {
        if let Some(times) = self.due(what, Instant::now()) {
            tracing::error!(error = %why, times, "{what}");
        }
    }

    /// How often it came since it was told last, this time included, if it is to be told now.
    fn due(&mut self, what: &'static str, now: Instant) -> Option<u64> {
        let known = self.0.entry(what).or_insert(Complaint { told: now, since: 0 });
        known.since += 1;
        let first = known.told == now && known.since == 1;
        if !first && now.saturating_duration_since(known.told) < TOLD_EVERY {
            return None;
        }
        known.told = now;
        Some(std::mem::take(&mut known.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_told_once_a_minute_with_how_often_it_came() {
        let (mut complaints, begin) = (Complaints::default(), Instant::now());
        let told: Vec<(u64, u64)> = (0..200)
            .filter_map(|second| Some((second, complaints.due("a", begin + Duration::from_secs(second))?)))
            .collect();
        assert_eq!(told, [(0, 1), (60, 60), (120, 60), (180, 60)]);
        assert_eq!(complaints.due("b", begin + Duration::from_secs(1)), Some(1), "something else is told at once");
    }
}
