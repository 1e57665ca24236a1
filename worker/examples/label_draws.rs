//! A worker whose experiment predicts: a network that knows nothing draws classes at random, the more of class 0 the larger `bias`.
//!
//! It shows how predictions are reported, which `ergodic distance` and claims of labels compare.

use std::process::ExitCode;

use ergodic_worker::experiment::{Experiment, Metrics, TrialContext, TrialError};
use ergodic_worker::random_streams::Purpose;

/// The config of a trial.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The share of points that are of class 0 in any case.
    bias: f64,
    /// Number of points.
    points: u32,
}

struct LabelDraws;

impl Experiment for LabelDraws {
    const NAME: &'static str = "label-draws";
    const VERSION: u32 = 1;
    type Config = Config;

    fn declare_metrics() -> Metrics {
        Metrics::default().max("zeros")
    }

    fn run(config: Config, trial: &mut TrialContext<'_>) -> Result<(), TrialError> {
        let mut draws = trial.rng(Purpose::Init, "labels");
        let classes: Vec<u8> = (0..config.points)
            .map(|_| {
                let class = draws.next_below(3) as u8;
                if draws.next_uniform() < config.bias {
                    0
                } else {
                    class
                }
            })
            .collect();
        trial.report_predictions(10, &classes)?;
        let share = classes.iter().filter(|class| **class == 0).count() as f64;
        trial.report(10, &[("zeros", share / classes.len() as f64)])
    }
}

fn main() -> ExitCode {
    ergodic_worker::main(ergodic_worker::experiments![LabelDraws])
}
