//! A real cluster for tests: real programs, real processes, real gRPC, real stores.

mod cluster;
mod disk;
pub mod fuzz;
mod invariants;
mod postgres;
mod process;
mod proxy;
mod raw;

pub use cluster::{Cluster, Finished, Program, program, run, run_with, stdout, wait_for};
pub use disk::SmallDisk;
pub use invariants::Done;
pub use postgres::Postgres;
pub use process::Process;
pub use proxy::{Proxy, Weather};
pub use raw::{Courier, RawWorker, connection};

/// Whether the resource `name` (such as `root`) is to be required rather than skipped: it stands in the comma-separated
/// list `ERGODIC_REQUIRE`.
pub fn required(name: &str) -> bool {
    std::env::var("ERGODIC_REQUIRE").is_ok_and(|list| list.split(',').any(|item| item.trim() == name))
}

/// Says that a test is skipped because a resource is missing, or fails if it is required.
///
/// # Panics
/// The resource is required.
pub fn skip(test: &str, resource: &str, why: &str) {
    assert!(!required(resource), "{test}: {resource} is required by ERGODIC_REQUIRE but {why}");
    note(&format!("SKIPPED {test}: needs {resource}, but {why}"));
}

/// Says something past the test runner, which would keep it from view when the test passes.
pub fn note(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
