//! The trainer: from a trial's config and random streams to its result, with the same bits on every machine.
//!
//! Reading order: `data` is what a trial trains on, `network` the layout of its network, `engine` the forward and backward
//! pass, `optim` the optimizers, `measure` what is sampled on the way, `checkpoint` the saved state of an unfinished trial,
//! and `trial` the loop. `candle` runs the same networks on Candle's stock operations.
//!
//! The numerics class of all this is [`CPU_F32`]: a change that alters any bit of any
//! result raises its version.

mod backend;
mod bench;
pub(crate) mod candle;
pub(crate) mod checkpoint;
mod data;
mod engine;
pub(crate) mod measure;
pub(crate) mod network;
pub(crate) mod optim;
mod start;
#[cfg(test)]
mod tests;
mod toy;
mod trial;
mod trial_costs;

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

pub use bench::{BenchReport, measure_training_speed};
pub use candle::engine::CandleDevice;
pub use checkpoint::CheckpointStore;
pub use data::{ExperimentData, TrialData};
pub use engine::simd::{Isa, IsaError};
use engine::simd::{Portable, Simd16};
use ergodic_common::config::{ModelKind, Toy, TrialConfig};
use ergodic_common::duration::format_duration;
use ergodic_common::ids::WeightsDigest;
use ergodic_common::net::Net;
use ergodic_common::random_streams::{Purpose, Streams};
use ergodic_common::spec::Measure;
use ergodic_common::trial::{CPU_F32, MetricCurve, TrialKey, TrialResult};
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
pub use start::{InitialWeights, StartPart};
use trial::Training;
pub use trial_costs::{TrialCosts, measure_trial_costs};

/// The inputs of one trial.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The config that the cell resolves to.
    pub config: &'a TrialConfig,
    /// The random streams of the trial.
    pub streams: &'a Streams,
    /// The metrics to sample, and the sampling interval.
    pub measure: &'a Measure,
    /// The dataset; `None` for the empty model.
    pub data: Option<&'a TrialData>,
    /// The initial weights, if the config names some.
    pub initial_weights: Option<InitialWeights<'a>>,
    /// Cell and repeat of the trial.
    pub key: TrialKey,
    /// The instruction set of the kernels, which decides no bit of the result.
    pub isa: Isa,
    /// The device for Candle's stock operations, or `None` for the trainer's own engine. It decides
    /// the numerics class.
    pub candle_device: Option<&'a CandleDevice>,
    /// The threads that share the work, if more than the caller's. They decide no bit of the
    /// result.
    pub thread_pool: Option<&'a ThreadPool>,
    /// The store of checkpoints, if there is one. The trial resumes from a checkpoint in it.
    pub checkpoint_store: Option<&'a dyn CheckpointStore>,
    /// The time limit, if there is one.
    pub deadline: Option<Deadline>,
}

/// The moment at which a trial's time limit ends.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    limit: Duration,
    started: Instant,
}

impl Deadline {
    /// The deadline at `limit` from now.
    pub fn from_now(limit: Duration) -> Self {
        Self {
            limit,
            started: Instant::now(),
        }
    }

    fn is_past(&self) -> bool {
        self.started.elapsed() >= self.limit
    }
}

/// Builds the threads that share the work of a trial; `None` if one thread suffices.
///
/// # Errors
/// The operating system refuses threads.
pub fn build_thread_pool(threads: u32) -> Result<Option<ThreadPool>, ThreadPoolBuildError> {
    let pool = ThreadPoolBuilder::new().num_threads(threads as usize);
    (threads > 1).then(|| pool.build()).transpose()
}

impl Job<'_> {
    /// The numerics class of the result.
    fn numerics_class(&self) -> &str {
        self.candle_device
            .map_or(CPU_F32, |candle| &candle.numerics_class)
    }

    /// The device or instruction set, for result rows.
    fn device_name(&self) -> &'static str {
        self.candle_device
            .map_or(self.isa.name(), |candle| candle.name)
    }

    /// Whether the time limit has passed.
    fn is_past_deadline(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline.is_past())
    }

    fn thread_count(&self) -> usize {
        self.thread_pool.map_or(1, ThreadPool::current_num_threads)
    }

    fn run_on_pool<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match self.thread_pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}

/// The result of a trial, with its trained weights.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedTrial {
    /// The row of the trial.
    pub result: TrialResult,
    /// The file of trained weights whose hash the result names.
    pub weights: Option<Vec<u8>>,
}

/// Runs a trial to its end. Returns `None` once `stop` is set. `stop` and the deadline are checked
/// before every step and every chunk of an evaluation.
pub fn run_trial(job: &Job<'_>, stop: &AtomicBool) -> Option<FinishedTrial> {
    let start = Instant::now();
    let net = Net::from_config(job.config);
    let mut finished = match (&net, job.data, &job.config.model.kind) {
        (Some(net), Some(data), _) => train_model(job, TrialModel::Net(net, data), stop),
        (Some(_), None, _) => Some(failed_trial(
            job,
            "the worker has no dataset for this trial".into(),
        )),
        (None, _, ModelKind::Toy(toy)) => train_model(job, TrialModel::Toy(toy), stop),
        (None, _, ModelKind::Program(_)) => {
            Some(failed_trial(job, "a program is run, not trained".into()))
        }
        (None, ..) => Some(empty_model_trial(job)),
    }?;
    finished.result.seconds = start.elapsed().as_secs_f64();

    finished.result.weights_hash = finished
        .weights
        .as_ref()
        .map(|file| blake3::hash(file).into());
    Some(finished)
}

/// The model that a trial trains.
#[derive(Clone, Copy)]
enum TrialModel<'a> {
    Net(&'a Net, &'a TrialData),
    Toy(&'a Toy),
}

fn train_model(job: &Job<'_>, subject: TrialModel<'_>, stop: &AtomicBool) -> Option<FinishedTrial> {
    let mut finished = None;
    job.run_on_pool(|| {
        job.isa.run_program(TrialProgram {
            job,
            subject,
            stop,
            finished: &mut finished,
        })
    });

    finished
}

/// The reason why Candle's errors cannot occur: they concern devices and types, which the trainer
/// fixes itself.
const ON_CPU: &str = "the trainer's tensors are f32 on the CPU";

/// A program generic over the instruction set.
trait SimdProgram {
    fn run_with<S: Simd16>(self, s: S);
}

impl Isa {
    fn run_program(self, program: impl SimdProgram) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => match pulp::x86::V4::try_new() {
                Some(token) => program.run_with(engine::simd::Avx512(token)),
                None => program.run_with(Portable),
            },
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => match pulp::x86::V3::try_new() {
                Some(token) => program.run_with(engine::simd::Avx2(token)),
                None => program.run_with(Portable),
            },
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => program.run_with(Portable),
            Self::Portable => program.run_with(Portable),
        }
    }
}

/// The whole course of a trial, generic over the instruction set.
struct TrialProgram<'a> {
    job: &'a Job<'a>,
    subject: TrialModel<'a>,
    stop: &'a AtomicBool,
    finished: &'a mut Option<FinishedTrial>,
}

impl SimdProgram for TrialProgram<'_> {
    fn run_with<S: Simd16>(self, s: S) {
        let ran = match self.subject {
            TrialModel::Net(net, data) => {
                Training::new(s, self.job, net, data).and_then(|t| t.run_to_end(self.stop))
            }
            TrialModel::Toy(toy) => Ok(toy::run_toy_trial(self.job, toy, self.stop)),
        };
        *self.finished =
            ran.unwrap_or_else(|error| Some(failed_trial(self.job, error.to_string())));
    }
}

fn failed_trial(job: &Job<'_>, cause: String) -> FinishedTrial {
    FinishedTrial {
        result: TrialResult::failed(job.key, cause, job.measure.metrics.len()),
        weights: None,
    }
}

/// The failure of a trial that exceeded its time limit after `steps` steps.
fn timed_out_trial(job: &Job<'_>, steps: u64) -> FinishedTrial {
    let limit = job
        .deadline
        .map_or(Duration::ZERO, |deadline| deadline.limit);
    let cause = format!(
        "it exceeded its time limit of {} after {steps} of {} steps",
        format_duration(limit),
        job.config.total_steps()
    );
    let mut late = failed_trial(job, cause);
    late.result.steps = steps;
    late.result.isa = job.device_name().to_owned();
    late
}

/// The made-up result of the empty model, which trains nothing.
fn empty_model_trial(job: &Job<'_>) -> FinishedTrial {
    let mut stream = job.streams.open_stream(Purpose::Empty, b"");
    let digest = WeightsDigest(stream.next_bytes());
    let steps = job.config.total_steps();
    let mut curve = MetricCurve::default();
    let samples = job.measure.every.steps_in_trial(job.config);
    let mut step = 0;
    while step < steps {
        step = samples.next_after(step);
        curve.steps.push(step);
        curve
            .values
            .extend(job.measure.metrics.iter().map(|_| stream.next_uniform()));
    }

    let metrics = curve.values[curve.values.len() - job.measure.metrics.len()..].to_vec();
    let result = TrialResult {
        steps,
        digest,
        metrics,
        curve,
        ..TrialResult::completed(job.key)
    };

    FinishedTrial {
        result,
        weights: None,
    }
}
