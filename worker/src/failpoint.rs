//! A place at which a test can hold trials of a test build, so that it need not count on their taking long.
//!
//! The feature `failpoints` builds it in; programs for use are built without, and the place is then nothing at all.
//! `FAILPOINTS="trial=return(FILE)"` names a file with two numbers: trials of that repeat and of later ones stand still when
//! they come to that step (0: before they begin). While there is no such file, nobody does.

use ergodic_common::TrialKey;

/// Stands still after so many steps of a trial while a test holds it there, for as long as this is so.
#[cfg(feature = "failpoints")]
pub(crate) fn pass(trial: TrialKey, steps: u64, waits: impl Fn() -> bool) {
    fail::fail_point!("trial", |file| {
        let file = file.unwrap_or_default();
        while is_held(&file, trial, steps) && waits() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    });
}

/// Nothing: this is no test build.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn pass(_: TrialKey, _: u64, _: impl Fn() -> bool) {}

#[cfg(feature = "failpoints")]
fn is_held(file: &str, trial: TrialKey, steps: u64) -> bool {
    let Ok(text) = std::fs::read_to_string(file) else { return false };
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    matches!(numbers[..], [repeat, step] if u64::from(trial.repeat) >= repeat && steps >= step)
}

/// Reads from the environment what was asked for. It holds as long as what is returned.
#[cfg(feature = "failpoints")]
pub(crate) fn set_up() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
}

/// Nothing: this is no test build.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn set_up() {}
