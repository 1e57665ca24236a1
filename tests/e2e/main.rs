//! End-to-end tests over the real programs.

// The harness begins tests in the order of their names: what takes longest comes first.
mod a_storm;
mod analysis;
mod audit;
mod auth;
mod backup;
mod book;
mod bounds;
mod checkpoints;
mod claims;
mod clock;
mod commands;
mod compatibility;
mod crashes;
mod data;
mod departures;
mod deploy;
mod disk;
mod exactness;
mod experiment_data;
mod experiments;
mod export;
mod exported_quantities;
mod files;
mod fleet;
mod growth;
mod hostile_peers;
mod http;
mod kept_files;
mod latest;
mod layering;
mod limits;
mod lost_files;
mod lost_store;
mod many_workers;
mod network;
mod numbers;
mod output_files;
mod partitions;
mod pictures;
mod postgres;
mod printed;
mod program_faults;
mod program_isolation;
mod program_needs;
mod program_outputs;
mod program_predictions;
mod program_promises;
mod program_trials;
mod programs;
mod quantities;
mod races;
mod reading;
mod refusals;
mod regression;
mod removal;
mod reproducibility;
mod result_batches;
mod result_starts;
mod reuse;
mod scheduling;
mod seals;
mod several_sweeps;
mod spool;
#[cfg(feature = "sql")]
mod sql;
mod stalls;
mod stored_meaning;
mod sweep_files;
mod terminal;
mod torn_writes;
mod twins;
mod untrusted_text;
mod validation;
mod verify;
mod weights;

use std::sync::OnceLock;

use ergodic_tests::{Cluster, paced};

/// A sweep of many short real trainings: six cells of a small network with batch norm on generated digits.
const SWEEP: &str = r#"
name    = "small"
repeats = 12
seed    = 7
[data]
dataset = "glyphs"
train   = 500
test    = 100
[model]
kind   = "mlp"
hidden = [24]
[train]
steps      = 40
batch_size = 32
optimizer  = { momentum = 0.9 }
[grid]
lr = [0.05, 0.2, 1e38]
wd = [0.0, 1e-3]
[measure]
every   = "10 steps"
metrics = ["test_acc", "train_loss", "effective_lr"]
"#;

/// The same trials in `n` repeats, as long as `ERGODIC_TEST_TRIALS` has them.
fn repeated(n: u32) -> String {
    paced(&SWEEP.replace("repeats = 12", &format!("repeats = {n}")))
}

/// Trials of [`SWEEP`], and of those that have its cells, in so many repeats.
const fn trials(repeats: u32) -> u64 {
    6 * repeats as u64
}

/// A sweep of 360 of these trials, and its rows from a run without faults, made once for all tests.
fn work() -> (String, &'static str) {
    static ROWS: OnceLock<String> = OnceLock::new();
    let text = repeated(60);
    let rows = ROWS.get_or_init(|| reproducibility::reference(&text));
    (text, rows)
}

/// Repeats of [`work`] that are let through just before a fault. The sweep cannot end with them.
const ROOM: u32 = 8;

/// Waits until the first repeats of [`work`] are done and later ones are under way: a fault meets work that moves.
fn reach(cluster: &Cluster, id: &str, repeats: u32) {
    cluster.wait_until_held(id, trials(repeats));
    cluster.set_in_motion(|gate| gate.hold_after(repeats + ROOM));
}

/// Runs something asynchronous.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(work)
}

/// A sweep of empty trials with one metric.
fn empty_sweep(repeats: u32) -> String {
    format!(
        "name = \"empty\"\nrepeats = {repeats}\n[model]\nkind = \"empty\"\n[train]\nsteps = 1\n[measure]\n\
         metrics = [\"test_acc\"]\n"
    )
}
