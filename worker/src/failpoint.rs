//! A place at which a test can hold trials of a test build, so that it need not count on their taking long.
//!
//! The feature `failpoints` builds it in; programs for use are built without, and the place is then nothing at all.
//! `FAILPOINTS="trial=return(FILE)"` names a file with three numbers, REPEAT STEP BEGUN: trials of that repeat and of later
//! ones stand still when they come to that step (0: before they begin), except for the first so many that this process
//! begins. While there is no such file, nobody does.

#[cfg(feature = "failpoints")]
use std::sync::atomic::{AtomicU64, Ordering};

use ergodic_common::TrialKey;

/// Trials that came to their beginning in this process.
#[cfg(feature = "failpoints")]
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// Stands still before a trial begins while a test holds it there, for as long as this is so.
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

/// Holds a trial after a number of its steps. A trial that has begun was within the limit of trials.
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

/// Nothing: this is no test build.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn hold_before_trial(_: TrialKey, _: impl Fn() -> bool) {}

/// Nothing: this is no test build.
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
    /// The gate as the file describes it now.
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
        u64::from(trial.repeat) >= self.repeat && steps >= self.step
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

/// Sets the failpoints that the environment names, for as long as the returned scenario lives.
#[cfg(feature = "failpoints")]
pub(crate) fn set_up_failpoints() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
}

/// Nothing: this is no test build.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn set_up_failpoints() {}
