//! Failpoints at which a test can kill a program.
//!
//! The feature `failpoints` builds them in; without the feature, they do nothing. The variable
//! `FAILPOINTS` says where and when, in the syntax of the crate `fail`:
//! `after-commit=5*off->return` kills the program the sixth time.

/// Before results are made durable.
pub(crate) const BEFORE_COMMIT: &str = "before-commit";
/// After results are durable, before anyone is told.
pub(crate) const AFTER_COMMIT: &str = "after-commit";
/// After the loop knows that results are durable.
pub(crate) const BEFORE_ACKNOWLEDGEMENT: &str = "before-acknowledgement";
/// After the response was sent to the worker.
pub(crate) const AFTER_ACKNOWLEDGEMENT: &str = "after-acknowledgement";

/// While the leader, having read whether it still leads, has the store open.
pub(crate) const WHILE_RENEWING: &str = "while-renewing";

/// After all parts of a dataset are written, before the manifest names them.
pub(crate) const BEFORE_MANIFEST: &str = "before-manifest";

/// Kills the program here, if the environment asks for it.
#[cfg(feature = "failpoints")]
pub(crate) fn reach(place: &str) {
    fail::fail_point!(place, |_| {
        tracing::error!(place, "exiting here, as requested");
        std::process::abort()
    });
}

/// Does nothing without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn reach(_: &str) {}

/// Activates the failpoints that the environment names until the returned scenario is dropped.
#[cfg(feature = "failpoints")]
pub(crate) fn set_up() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
}

/// Does nothing without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn set_up() {}
