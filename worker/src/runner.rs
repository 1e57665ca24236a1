//! Runs single trials: holds the engine or device, the threads and the checkpoints of a slot.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use ergodic_common::TrialResult;
use ergodic_common::config::ModelKind;
use ergodic_common::program::ProgramCell;
use ergodic_common::trial::CPU_F32;
use ergodic_common::{ErrorCode, Outcome};
use ergodic_proto::status::UserError;

use crate::cause::shorten_cause;
use crate::checkpoint_store::CheckpointDir;
use crate::device::DeviceChoice;
use crate::experiment::Experiments;
use crate::experiment::run::{ExperimentJob, run_experiment_trial};
use crate::link::sweeps::{CellStart, ResolvedCell};
use crate::program::host::{PROGRAMS_ARE_OFF, ProgramHost};
pub use crate::program::trial::NoResult;
use crate::program::trial::{ProgramJob, run_program_trial};
use crate::train::{Deadline, FinishedTrial, InitialWeights, Isa, Job};
use crate::work_queue::Assignment;
use crate::{failpoint, train};

/// The settings of slots: device, instruction set, threads, and folder of checkpoints.
#[derive(Debug, Clone)]
pub struct SlotConfig {
    /// Number of threads per trial.
    pub threads: u32,
    /// Instruction set of the trainer's own engine.
    pub isa: Isa,
    /// The device on which networks run.
    pub device: DeviceChoice,
    /// Folder for the checkpoints of unfinished trials.
    pub checkpoint_dir: Option<PathBuf>,
    /// How programs are run; `None` if this worker runs none.
    pub programs: Option<ProgramHost>,
    /// The experiments of the worker program.
    pub experiments: Experiments,
}

/// The resources that a slot trains with: device, threads and folder of checkpoints.
pub struct TrialRunner {
    pub(crate) isa: Isa,
    /// The CUDA device; `None` for the trainer's own engine.
    pub(crate) device: Option<train::CandleDevice>,
    /// The threads of a trial; `None` if the slot's own thread suffices.
    pub(crate) pool: Option<rayon::ThreadPool>,
    /// The local folder of checkpoints.
    pub(crate) checkpoint_dir: Option<CheckpointDir>,
    /// How programs are run, if they are.
    pub(crate) programs: Option<ProgramHost>,
    /// The experiments of the worker program, and the number of threads of a trial.
    pub(crate) experiments: (Experiments, u32),
}

impl TrialRunner {
    /// Opens the device for use by the calling thread alone.
    ///
    /// # Errors
    /// The device or the folder of checkpoints cannot be used.
    pub fn new(config: &SlotConfig) -> Result<Self, UserError> {
        let failed = |e: String| UserError::new(ErrorCode::Internal, format!("cannot start: {e}"));
        let pool = train::build_thread_pool(config.threads).map_err(|e| failed(e.to_string()))?;
        let folder = config
            .checkpoint_dir
            .as_deref()
            .map(CheckpointDir::open)
            .transpose()
            .map_err(|e| failed(e.to_string()))?;

        Ok(Self {
            isa: config.isa,
            device: config.device.open_device()?,
            pool,
            checkpoint_dir: folder,
            programs: config.programs.clone(),
            experiments: (config.experiments.clone(), config.threads),
        })
    }

    /// The numerics class of the results.
    pub fn numerics_class(&self) -> &str {
        self.device
            .as_ref()
            .map_or(CPU_F32, |place| &place.numerics_class)
    }
}

/// Runs a trial from its last checkpoint, or from the start if there is none.
///
/// # Errors
/// The trial was stopped, or this worker cannot run it.
pub fn run_assignment(
    assignment: &Assignment,
    runner: &TrialRunner,
    checkpoints: Option<&dyn train::CheckpointStore>,
) -> Result<FinishedTrial, NoResult> {
    tracing::debug!(trial = %assignment.key, lease = assignment.fence.lease.0, "trial begins");
    failpoint::hold_before_trial(assignment.key, || !assignment.is_stopped());
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        train_assignment(assignment, runner, checkpoints)
    }));
    match attempt {
        Ok(Ok(attempted)) => attempted,
        Ok(Err(cause)) => Ok(failed_trial(assignment, cause)),
        Err(panic) => {
            let words = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no words");
            Ok(failed_trial(
                assignment,
                format!("the trial panicked: {words}"),
            ))
        }
    }
}

fn train_assignment(
    assignment: &Assignment,
    runner: &TrialRunner,
    checkpoints: Option<&dyn train::CheckpointStore>,
) -> Result<Result<FinishedTrial, NoResult>, String> {
    let sweep = &assignment.sweep;
    let cell = sweep.cached_cell(assignment.key.cell)?;
    if let ModelKind::Program(values) = &cell.config.model.kind {
        return Ok(match values.program.experiment {
            Some(_) => start_experiment(assignment, runner, (&cell, values), checkpoints),
            None => start_program(assignment, runner, &cell, checkpoints),
        });
    }
    let streams = sweep.spec.trial_streams(assignment.key, cell.hash);
    let measure = sweep
        .spec
        .measure_in(assignment.key.cell)
        .map_err(|error| error.to_string())?;
    let parts = cell.start_parts(assignment.key.repeat)?;
    let initial_weights = match &cell.start {
        Some(CellStart::File(file)) => Some(InitialWeights::File(file)),
        Some(CellStart::Results(..)) => Some(InitialWeights::Mean(&parts)),
        None => None,
    };
    let job = Job {
        config: &cell.config,
        streams: &streams,
        measure: &measure,
        data: cell.data.as_deref(),
        initial_weights,
        key: assignment.key,
        isa: runner.isa,
        candle_device: runner.device.as_ref(),
        thread_pool: runner.pool.as_ref(),
        checkpoint_store: checkpoints,
        deadline: assignment.time_limit.map(Deadline::from_now),
    };

    Ok(train::run_trial(&job, &assignment.stop).ok_or(NoResult::Stopped))
}

fn start_program(
    assignment: &Assignment,
    runner: &TrialRunner,
    cell: &ResolvedCell,
    checkpoints: Option<&dyn train::CheckpointStore>,
) -> Result<FinishedTrial, NoResult> {
    let program = assignment.sweep.program();
    let (Some(host), Some(program), ModelKind::Program(values)) =
        (&runner.programs, program, &cell.config.model.kind)
    else {
        return Err(NoResult::Unable(PROGRAMS_ARE_OFF.into()));
    };
    let streams = assignment
        .sweep
        .spec
        .trial_streams(assignment.key, cell.hash);
    let mut finished = run_program_trial(&ProgramJob {
        host,
        cell: values,
        program,
        streams: &streams,
        assignment,
        checkpoint_store: checkpoints,
    })?;
    shorten_failure(&mut finished);
    Ok(finished)
}

fn start_experiment(
    assignment: &Assignment,
    runner: &TrialRunner,
    (cell, values): (&ResolvedCell, &ProgramCell),
    checkpoints: Option<&dyn train::CheckpointStore>,
) -> Result<FinishedTrial, NoResult> {
    let (experiments, threads) = &runner.experiments;
    let spec = &assignment.sweep.spec;
    let Some(experiment) = experiments.find_class(&spec.numerics) else {
        let class = &spec.numerics;
        return Err(NoResult::Unable(format!(
            "this worker has no experiment {class}: start a worker program that has it"
        )));
    };
    let streams = spec.trial_streams(assignment.key, cell.hash);
    let mut finished = run_experiment_trial(&ExperimentJob {
        experiment,
        cell: values,
        streams: &streams,
        data: cell.data.as_deref(),
        assignment,
        checkpoint_store: checkpoints,
        threads: (runner.pool.as_ref(), *threads),
    })?;
    shorten_failure(&mut finished);
    Ok(finished)
}

/// Shortens what a trial failed of, if the coordinator would refuse it.
fn shorten_failure(finished: &mut FinishedTrial) {
    if let Outcome::Failed { cause } = &mut finished.result.outcome {
        *cause = shorten_cause(std::mem::take(cause));
    }
}

fn failed_trial(assignment: &Assignment, cause: String) -> FinishedTrial {
    let cause = shorten_cause(cause);
    tracing::error!(trial = %assignment.key, cause, "trial failed");
    let metrics = assignment.sweep.spec.measure.metrics.len();
    FinishedTrial {
        result: TrialResult::failed(assignment.key, cause, metrics),
        weights: None,
    }
}
