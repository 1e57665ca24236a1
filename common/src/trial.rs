//! A trial's identity and how it ended.

use std::fmt;
use std::str::FromStr;

/// The numerics class of the CPU engine: its name and the version of its arithmetic.
pub const CPU_F32: &str = "cpu-f32/6";

/// Numerics classes of CUDA devices, without what tells them apart: `cuda-f32/2/sm90/cublas13.1` is one of them.
pub const CUDA_F32: &str = "cuda-f32";

/// Names one trial of a sweep. Ordered by cell, then repeat. Written `cell/repeat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrialKey {
    /// Number of the cell in the grid.
    pub cell: u64,
    /// Number of the repeat.
    pub repeat: u32,
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
            .and_then(|(c, r)| Some((c.parse().ok()?, r.parse().ok()?)));
        let (cell, repeat) = parsed
            .ok_or_else(|| format!("a trial is named cell/repeat, like 3/0, not '{text}'"))?;
        Ok(Self { cell, repeat })
    }
}

/// The end of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All steps done.
    Completed,
    /// The loss or an updated weight was no longer finite at this step (counted from 1). A result, not an error.
    Diverged {
        /// The step.
        step: u64,
    },
    /// The trial could not be run to an end.
    Failed {
        /// Why.
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

/// Metrics over the steps of a trial: `values` holds one row of all metrics per entry of `steps`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Curve {
    /// Steps done when the row was taken, ascending.
    pub steps: Vec<u64>,
    /// Rows, one after the other; NaN where a metric is not defined.
    pub values: Vec<f64>,
}

/// Classes that a net in training predicts for the probe set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Predictions {
    /// Steps done when they were taken, ascending.
    pub steps: Vec<u64>,
    /// One class per probe point, as many for every entry of `steps`.
    pub classes: Vec<u8>,
}

/// The result of a trial. All but `seconds` and `isa` is a pure function of the trial's config and streams.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialResult {
    /// The trial.
    pub key: TrialKey,
    /// End of the trial.
    pub outcome: Outcome,
    /// Steps done.
    pub steps: u64,
    /// Time the attempt took, in seconds.
    pub seconds: f64,
    /// Final metrics, in the order of `measure.metrics`; NaN where one is not defined.
    pub metrics: Vec<f64>,
    /// BLAKE3 of the final weights and norm statistics in the order of their definition.
    pub digest: [u8; 32],
    /// Metrics over steps.
    pub curve: Curve,
    /// Predictions for the probe set.
    pub predictions: Predictions,
    /// BLAKE3 of the file of trained weights, where they are kept.
    pub weights_hash: Option<[u8; 32]>,
    /// The instruction set that computed it; it decides no bit. Empty where nothing was computed.
    pub isa: String,
}

impl TrialResult {
    /// The result of a trial that could not be run to an end.
    pub fn failed(key: TrialKey, cause: String, metrics: usize) -> Self {
        let outcome = Outcome::Failed { cause };
        Self {
            outcome,
            metrics: vec![f64::NAN; metrics],
            ..Self::completed(key)
        }
    }

    /// A completed trial without any values yet.
    pub fn completed(key: TrialKey) -> Self {
        Self {
            key,
            outcome: Outcome::Completed,
            steps: 0,
            seconds: 0.0,
            metrics: Vec::new(),
            digest: [0; 32],
            curve: Curve::default(),
            predictions: Predictions::default(),
            weights_hash: None,
            isa: String::new(),
        }
    }
}
