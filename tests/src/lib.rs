//! A real cluster for tests: real programs, real processes, real gRPC, real stores.

mod cluster;
mod disk;
pub mod fuzz;
mod gate;
mod invariants;
mod postgres;
mod process;
mod proxy;
mod raw;
mod recording;
mod s3;

pub use cluster::{Cluster, Finished, Program, program, run, run_in, run_with, stdout, wait_for};
pub use disk::SmallDisk;
pub use gate::Gate;
pub use invariants::Done;
pub use postgres::Postgres;
pub use process::{Process, naming};
pub use proxy::{Proxy, Weather};
pub use raw::{RawWorker, ResultSender, connection};
pub use recording::{RawCodec, RecordedEvent, Recorder, Recording};
pub use s3::S3;

/// How long trials are beside what is usual, as `ERGODIC_TEST_TRIALS` says.
fn pace() -> f64 {
    let asked = std::env::var("ERGODIC_TEST_TRIALS").ok();
    asked.map_or(1.0, |text| {
        text.parse()
            .expect("ERGODIC_TEST_TRIALS is a factor, such as 0.1 or 10")
    })
}

/// So many steps, as `ERGODIC_TEST_TRIALS` scales them.
pub fn paced_steps(steps: u64) -> u64 {
    ((steps as f64 * pace()).round() as u64).max(1)
}

/// A sweep file with every number of steps scaled by `ERGODIC_TEST_TRIALS`: of trials and between two looks at them. For
/// sweeps in which the figures do not matter: no test may count on how long a trial takes.
pub fn paced(text: &str) -> String {
    let line = |line: &str| match line.split_once('=') {
        Some((key, steps)) if key.trim() == "steps" => {
            format!(
                "{key}= {}\n",
                paced_steps(steps.trim().parse().expect("a number of steps"))
            )
        }
        _ => format!("{}\n", paced_strings(line)),
    };

    text.lines().map(line).collect()
}

/// A line with every `"N steps"` in it scaled.
fn paced_strings(line: &str) -> String {
    let piece = |piece: &str| match piece
        .strip_suffix(" steps")
        .and_then(|steps| steps.parse().ok())
    {
        Some(steps) => format!("{} steps", paced_steps(steps)),
        None => piece.to_owned(),
    };
    line.split('"').map(piece).collect::<Vec<_>>().join("\"")
}

/// Whether the resource `name` (such as `root`) is to be required rather than skipped: it stands in the comma-separated
/// list `ERGODIC_REQUIRE`.
pub fn required(name: &str) -> bool {
    std::env::var("ERGODIC_REQUIRE")
        .is_ok_and(|list| list.split(',').any(|item| item.trim() == name))
}

/// Says that a test is skipped because a resource is missing, or fails if it is required.
///
/// # Panics
/// The resource is required.
pub fn skip(test: &str, resource: &str, why: &str) {
    assert!(
        !required(resource),
        "{test}: {resource} is required by ERGODIC_REQUIRE but {why}"
    );
    note(&format!("SKIPPED {test}: needs {resource}, but {why}"));
}

/// Says something past the test runner, which would keep it from view when the test passes.
pub fn note(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
