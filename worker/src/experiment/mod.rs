//! Experiments: trials that are Rust code of the user's, built into a worker of theirs.
//!
//! Forty lines make a worker that runs sweeps with `kind = "custom:NAME"`:
//!
//! ```
//! use ergodic_worker::experiment::{Experiment, Metrics, TrialContext, TrialError};
//! use ergodic_worker::random_streams::Purpose;
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     lr: f64,
//!     steps: u64,
//! }
//!
//! struct Parabola;
//!
//! impl Experiment for Parabola {
//!     const NAME: &'static str = "parabola";
//!     const VERSION: u32 = 1;
//!     type Config = Config;
//!
//!     fn declare_metrics() -> Metrics {
//!         Metrics::default().min("loss")
//!     }
//!
//!     fn run(config: Config, trial: &mut TrialContext<'_>) -> Result<(), TrialError> {
//!         let mut w = trial.rng(Purpose::Init, "w").next_normal();
//!         for step in 1..=config.steps {
//!             w -= config.lr * 2.0 * w;
//!             trial.report(step, &[("loss", w * w)])?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//! #   if std::env::args().len() > 0 { return std::process::ExitCode::SUCCESS }
//!     ergodic_worker::main(ergodic_worker::experiments![Parabola])
//! }
//! ```

mod context;
mod error;
mod metrics;
mod registry;
pub(crate) mod run;
mod state;

pub use context::TrialContext;
pub use error::TrialError;
pub use metrics::Metrics;
pub use registry::Experiments;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

pub use crate::train::ExperimentData;

/// A kind of trial, which a worker runs for sweeps with `kind = "custom:NAME"`.
///
/// The same config, seeds and version must give the same bits again: a differing second result raises an alarm, unless the sweep
/// file says `deterministic = false`.
pub trait Experiment {
    /// The name: small letters, digits and '-', the first a letter; at most 40 characters.
    const NAME: &'static str;

    /// The version, from 1. Raise it with every change that changes results: those of different versions are never mixed.
    const VERSION: u32;

    /// Whether a trial cannot do without [`TrialContext::data`]: the launch of a sweep without `[data]` is refused then.
    const NEEDS_DATA: bool = false;

    /// The config of a trial: the keys of `[model]`, the axes and what `[derive]` computes, by name. With
    /// `#[serde(deny_unknown_fields)]`, misspelt keys are refused at the launch.
    type Config: DeserializeOwned + JsonSchema;

    /// Declares the metrics that trials report. A sweep file names those that it keeps.
    fn declare_metrics() -> Metrics;

    /// Runs a trial.
    ///
    /// # Errors
    /// The trial diverged, must stop, or failed. Errors of [`TrialContext`] are to be passed on with `?`.
    fn run(config: Self::Config, trial: &mut TrialContext<'_>) -> Result<(), TrialError>;
}

/// Lists the experiments of a worker, for [`main`](crate::main).
#[macro_export]
macro_rules! experiments {
    ($($experiment:ty),* $(,)?) => {
        $crate::experiment::Experiments::default()$(.with::<$experiment>())*
    };
}

#[cfg(test)]
mod tests;
