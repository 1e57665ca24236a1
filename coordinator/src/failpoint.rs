//! Named places at which a program of a test build can be told to die, as if it were killed there.
//!
//! The feature `failpoints` builds them in; programs for use are built without, and a place is then nothing at all. The
//! variable `FAILPOINTS` says where and when, in the words of the crate `fail`: `after-commit=5*off->return` dies when it
//! comes there for the sixth time.

/// Results are to be made durable.
pub(crate) const BEFORE_COMMIT: &str = "before-commit";
/// They are durable, and nobody knows.
pub(crate) const AFTER_COMMIT: &str = "after-commit";
/// The loop has heard that they are.
pub(crate) const BEFORE_ACKNOWLEDGEMENT: &str = "before-acknowledgement";
/// The worker's answer is on its way.
pub(crate) const AFTER_ACKNOWLEDGEMENT: &str = "after-acknowledgement";

/// The leader has read whether it still leads, and still has the store open for that.
pub(crate) const WHILE_RENEWING: &str = "while-renewing";

/// All parts of a dataset are written, and its manifest does not name them.
pub(crate) const BEFORE_MANIFEST: &str = "before-manifest";

/// Dies here if that was asked for.
#[cfg(feature = "failpoints")]
pub(crate) fn reach(place: &str) {
    fail::fail_point!(place, |_| {
        tracing::error!(place, "dying here, as was asked for");
        std::process::abort()
    });
}

/// Nothing: this is no test build.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn reach(_: &str) {}

/// Reads from the environment what was asked for. It holds as long as what is returned.
#[cfg(feature = "failpoints")]
pub(crate) fn set_up() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
}

/// Nothing: this is no test build.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn set_up() {}
