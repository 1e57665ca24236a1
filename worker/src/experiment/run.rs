//! Runs a trial of an experiment.

use ergodic_common::ids::TrialIdentity;
use ergodic_common::program::ProgramCell;
use ergodic_common::random_streams::Streams;
use serde_json::{Map, Value, json};

use super::context::TrialContext;
use super::error::TrialError;
use super::registry::ExperimentEntry;
use super::state::TrialState;
use crate::program::trial::NoResult;
use crate::train::{CheckpointStore, FinishedTrial, TrialData};
use crate::work_queue::Assignment;

/// The key with which identities of trials are hashed. Its version is raised with every change of the format.
const IDENTITY_CONTEXT: &str = "ergodic 2026 experiment checkpoint v1";

/// What a trial of an experiment is run with.
pub(crate) struct ExperimentJob<'a> {
    /// The experiment.
    pub(crate) experiment: &'a ExperimentEntry,
    /// The values of the cell.
    pub(crate) cell: &'a ProgramCell,
    /// The random streams of the trial.
    pub(crate) streams: &'a Streams,
    /// The points that the trial uses, if the sweep has data.
    pub(crate) data: Option<&'a TrialData>,
    /// Trial, sweep, stop and time limit.
    pub(crate) assignment: &'a Assignment,
    /// The store of checkpoints, if there is one.
    pub(crate) checkpoint_store: Option<&'a dyn CheckpointStore>,
    /// The threads of a trial, and their number; a single one is made here.
    pub(crate) threads: (Option<&'a rayon::ThreadPool>, u32),
}

/// Runs a trial from its last checkpoint, if the experiment loads it, or from the start.
///
/// # Errors
/// The trial was stopped, or there is no thread for it.
pub(crate) fn run_experiment_trial(job: &ExperimentJob<'_>) -> Result<FinishedTrial, NoResult> {
    let (pool, threads) = job.threads;
    let mut trial = TrialContext {
        streams: job.streams,
        data: job.data,
        threads,
        declared: &job.experiment.metrics,
        state: TrialState::new(
            job.cell,
            job.assignment,
            job.checkpoint_store,
            compute_identity(job),
        ),
    };
    let values = job.cell.values.iter();
    let config: Map<String, Value> = values
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    let problem = find_problem(job);
    let run = || match problem {
        Some(why) => Err(TrialError::Failed(why)),
        None => (job.experiment.run)(Value::Object(config), &mut trial),
    };

    // Parallel operations of Candle run on the pool that they are called in, and otherwise on all cores.
    let ended = match pool {
        Some(pool) => pool.install(run),
        None => build_single_thread()?.install(run),
    };
    trial.state.finish(ended)
}

/// What is wrong with the metrics or the data of the sweep file. A launch before a worker had the experiment could not check them.
fn find_problem(job: &ExperimentJob<'_>) -> Option<String> {
    let ExperimentEntry {
        name,
        version,
        metrics,
        needs_data,
        ..
    } = job.experiment;
    let owner = format!("version {version} of the experiment {name}");
    if *needs_data && job.data.is_none() {
        return Some(format!(
            "the sweep file has no [data], which {owner} needs: launch a sweep file that names a dataset"
        ));
    }
    metrics.find_problem(&owner, &job.cell.program.metrics)
}

fn build_single_thread() -> Result<rayon::ThreadPool, NoResult> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.map_err(|error| NoResult::Unable(format!("there is no thread for the trial: {error}")))
}

/// The hash of all that the state of a trial may depend on.
fn compute_identity(job: &ExperimentJob<'_>) -> TrialIdentity {
    let class = &job.assignment.sweep.spec.numerics;
    let metrics = &job.cell.program.metrics;
    let described = format!(
        "{class} {metrics:?} {:?} {:?} {:?}",
        job.assignment.key, job.cell.values, job.streams
    );
    let mut hasher = blake3::Hasher::new_derive_key(IDENTITY_CONTEXT);
    hasher.update(described.as_bytes()).finalize().into()
}
