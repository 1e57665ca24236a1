//! The identity of a trial, and its result.

use std::fmt;
use std::str::FromStr;

use crate::ids::{CellIndex, FileHash, Repeat, WeightsDigest};
use crate::program::output::PackedOutput;

/// The numerics class of the CPU engine: its name and the version of its arithmetic.
pub const CPU_F32: &str = "cpu-f32/6";

/// The engine's part of the numerics classes of CUDA devices, such as `cuda-f32/2/sm90/cublas13.1`.
pub const CUDA_F32: &str = "cuda-f32";

/// The key of a trial within its sweep, ordered by cell, then repeat. Written `cell/repeat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrialKey {
    /// Number of the cell in the grid.
    pub cell: CellIndex,
    /// Number of the repeat.
    pub repeat: Repeat,
}

impl TrialKey {
    /// The trial of this repeat of a cell, by their numbers.
    pub const fn new(cell: u64, repeat: u32) -> Self {
        Self {
            cell: CellIndex(cell),
            repeat: Repeat(repeat),
        }
    }
}

impl fmt::Display for TrialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cell, self.repeat)
    }
}

impl FromStr for TrialKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('/')
            .and_then(|(c, r)| Some((CellIndex(c.parse().ok()?), Repeat(r.parse().ok()?))));
        let (cell, repeat) = parsed
            .ok_or_else(|| format!("a trial is named cell/repeat, like 3/0, not '{text}'"))?;
        Ok(Self { cell, repeat })
    }
}

/// The outcome of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All steps were done.
    Completed,
    /// The loss or an updated weight was no longer finite at this step (counted from 1). A result, not an error.
    Diverged {
        /// The step, counted from 1.
        step: u64,
    },
    /// The trial could not be run to an end.
    Failed {
        /// The reason, for the user.
        cause: String,
    },
}

impl Outcome {
    /// The outcome in one word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Diverged { .. } => "diverged",
            Self::Failed { .. } => "failed",
        }
    }
}

/// Metrics of a trial over its steps. `values` holds one row of all metrics per entry of `steps`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MetricCurve {
    /// Number of completed steps at each row, ascending.
    pub steps: Vec<u64>,
    /// Rows, concatenated. NaN where a metric is undefined.
    pub values: Vec<f64>,
}

/// The classes that a network in training predicts for the probe set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Predictions {
    /// Number of completed steps at each prediction, ascending.
    pub steps: Vec<u64>,
    /// Classes of all probe points, concatenated for the entries of `steps`.
    pub classes: Vec<u8>,
}

/// The result of a trial. Everything but `seconds`, `isa` and `output` is a pure function of the trial's
/// config and streams.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialResult {
    /// The key of the trial.
    pub key: TrialKey,
    /// Outcome of the trial.
    pub outcome: Outcome,
    /// Number of completed steps.
    pub steps: u64,
    /// Duration of the attempt, in seconds.
    pub seconds: f64,
    /// Final metrics, in the order of `measure.metrics`. NaN where a metric is undefined.
    pub metrics: Vec<f64>,
    /// BLAKE3 hash of the final weights and norm statistics, in the order of their definition.
    pub digest: WeightsDigest,
    /// Metrics over the steps.
    pub curve: MetricCurve,
    /// Predictions for the probe set.
    pub predictions: Predictions,
    /// BLAKE3 hash of the file of trained weights, if it is kept.
    pub weights_hash: Option<FileHash>,
    /// The instruction set that computed the trial, which decides no bit. Empty if nothing was
    /// computed.
    pub isa: String,
    /// What a program printed, if it printed anything. A row is read without it.
    pub output: Option<PackedOutput>,
}

impl TrialResult {
    /// The result of a trial that could not be run to its end, with `metrics` undefined metrics.
    pub fn failed(key: TrialKey, cause: String, metrics: usize) -> Self {
        let outcome = Outcome::Failed { cause };
        Self {
            outcome,
            metrics: vec![f64::NAN; metrics],
            ..Self::completed(key)
        }
    }

    /// A completed trial without values; the caller fills them in.
    pub fn completed(key: TrialKey) -> Self {
        Self {
            key,
            outcome: Outcome::Completed,
            steps: 0,
            seconds: 0.0,
            metrics: Vec::new(),
            digest: WeightsDigest([0; 32]),
            curve: MetricCurve::default(),
            predictions: Predictions::default(),
            weights_hash: None,
            isa: String::new(),
            output: None,
        }
    }
}
