//! A failpoint that lets a test hold trials, instead of relying on their duration.
//!
//! The feature `failpoints` builds it in; without the feature, the functions do nothing.
//! `FAILPOINTS="trial=return(FILE)"` names a file with three numbers, REPEAT STEP BEGUN. Trials of
//! that repeat and later ones wait at that step (0: before they begin), except for the first BEGUN
//! trials of this process. Without the file, no trial waits.

#[cfg(feature = "failpoints")]
use std::sync::atomic::{AtomicU64, Ordering};

use ergodic_common::TrialKey;

/// Number of trials of this process that have reached their beginning.
#[cfg(feature = "failpoints")]
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// Waits before a trial begins, for as long as a test holds it and `waits` returns true.
#[cfg(feature = "failpoints")]
pub(crate) fn hold_before_trial(trial: TrialKey, waits: impl Fn() -> bool) {
    fail::fail_point!("trial", |file| {
        let before = BEGUN.fetch_add(1, Ordering::Relaxed);
        wait_while_held(
            &file.unwrap_or_default(),
            (trial, 0),
            |hold| before >= hold.begun,
            waits,
        );
    });
}

/// Waits after a trial has done some steps, for as long as a test holds it and `waits` returns
/// true. A trial that has begun was within the limit of BEGUN.
#[cfg(feature = "failpoints")]
pub(crate) fn hold_after_steps(trial: TrialKey, steps: u64, waits: impl Fn() -> bool) {
    fail::fail_point!("trial", |file| {
        wait_while_held(
            &file.unwrap_or_default(),
            (trial, steps),
            |hold| hold.begun == 0,
            waits,
        );
    });
}

/// Does nothing without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn hold_before_trial(_: TrialKey, _: impl Fn() -> bool) {}

/// Does nothing without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn hold_after_steps(_: TrialKey, _: u64, _: impl Fn() -> bool) {}

/// The trials that a test holds.
#[cfg(feature = "failpoints")]
struct TrialHold {
    repeat: u64,
    step: u64,
    begun: u64,
}

#[cfg(feature = "failpoints")]
impl TrialHold {
    /// Reads the file that describes which trials are held.
    fn read_file(file: &str) -> Option<Self> {
        let text = std::fs::read_to_string(file).ok()?;
        let numbers: Vec<u64> = text
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        match numbers[..] {
            [repeat, step, begun] => Some(Self {
                repeat,
                step,
                begun,
            }),
            _ => None,
        }
    }

    fn matches_trial(&self, trial: TrialKey, steps: u64) -> bool {
        u64::from(trial.repeat.0) >= self.repeat && steps >= self.step
    }
}

#[cfg(feature = "failpoints")]
fn wait_while_held(
    file: &str,
    (trial, steps): (TrialKey, u64),
    is_too_many: impl Fn(&TrialHold) -> bool,
    waits: impl Fn() -> bool,
) {
    let is_held = || {
        TrialHold::read_file(file)
            .is_some_and(|hold| hold.matches_trial(trial, steps) && is_too_many(&hold))
    };
    if is_held() {
        tracing::debug!(%trial, steps, "held");
    }

    while is_held() && waits() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// Activates the failpoints that the environment names until the returned scenario is dropped.
#[cfg(feature = "failpoints")]
pub(crate) fn set_up_failpoints() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
}

/// Does nothing without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn set_up_failpoints() {}
