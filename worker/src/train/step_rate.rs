//! How fast this machine trains a model, measured in a moment.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ergodic_common::config::{Length, ModelKind, Toy, TrialConfig, VisitOrder};
use ergodic_common::dataset::name::DatasetName;
use ergodic_common::metric::Metric;
use ergodic_common::net::Net;
use ergodic_common::spec::Measure;
use ergodic_common::trial::TrialKey;

use super::bench::{time_steps, timing_streams};
use super::{Isa, Job, run_trial};
use crate::system::cpu_seconds;

/// The most floating-point operations of a step that is timed: a tenth of a second or less. Larger batches are cut.
const MAX_STEP_FLOPS: u64 = 2_000_000_000;
/// The least images of a batch that is cut: a norm over one image of one pixel would have nothing to do.
const MIN_BATCH: u64 = 2;
/// The most steps that are timed.
const MAX_STEPS: f64 = 1_000.0;
/// Steps of the toy model that are timed, times its dimension.
const TOY_NUMBERS: u64 = 2_000_000;

/// Trains some steps of a trial on random images, for about the time `budget`, and returns the floating-point operations per
/// second of CPU time, by the definition of [`Net::train_flops`]. `None` if the model trains nothing.
pub fn measure_step_rate(config: &TrialConfig, budget: Duration, isa: Isa) -> Option<f64> {
    let rate = match (Net::from_config(config), &config.model.kind) {
        (Some(net), _) => measure_network_rate(config, &net, budget, isa),
        (None, ModelKind::Toy(toy)) => measure_toy_rate(config, toy, isa)?,
        (None, _) => return None,
    };
    rate.is_finite().then_some(rate)
}

fn measure_network_rate(config: &TrialConfig, net: &Net, budget: Duration, isa: Isa) -> f64 {
    let config = cut_batch(config, net);
    let first = time_steps(&config, net, (0, 1), isa, (None, None));
    let steps = budget.as_secs_f64() / first.cpu_seconds.max(1e-6);
    let timing = (1, steps.clamp(1.0, MAX_STEPS) as u64);
    let report = time_steps(&config, net, timing, isa, (None, None));
    report.flops as f64 / report.cpu_seconds
}

/// The config with a batch that takes no longer than a moment, and without files.
fn cut_batch(config: &TrialConfig, net: &Net) -> TrialConfig {
    let images = (MAX_STEP_FLOPS / net.train_flops().max(1)).max(MIN_BATCH);
    let batch = u64::from(config.effective_batch_size()).min(images) as u32;
    let mut config = config.clone();
    config.data.order = VisitOrder::Sequential;
    config.data.train = batch;
    config.train.batch_size = batch;
    config.model.init_file = None;
    if let DatasetName::File(data) = &mut config.data.dataset {
        data.floats = false;
    }
    config
}

fn measure_toy_rate(config: &TrialConfig, toy: &Toy, isa: Isa) -> Option<f64> {
    let steps = (TOY_NUMBERS / u64::from(toy.dim)).clamp(100, 100_000);
    let mut config = config.clone();
    config.train.length = Length::Steps(steps);
    config.train.schedule.clear();
    let streams = timing_streams();
    let measure = Measure::with_metrics(Length::Steps(steps), vec![Metric::TrainLoss]);
    let job = Job {
        config: &config,
        streams: &streams,
        measure: &measure,
        data: None,
        initial_weights: None,
        key: TrialKey::new(0, 0),
        isa,
        candle_device: None,
        thread_pool: None,
        checkpoint_store: None,
        deadline: None,
    };

    let start = cpu_seconds();
    // A trial that diverges ends early, and its steps say how far it came.
    let done = run_trial(&job, &AtomicBool::new(false))?.result.steps;
    let seconds = (cpu_seconds() - start).max(1e-6);
    Some(toy.step_flops() as f64 * done as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use ergodic_common::Spec;
    use ergodic_common::ids::CellIndex;
    use ergodic_common::spec::SpecSource;

    use super::*;

    #[test]
    fn every_model_that_trains_has_a_rate() {
        for (model, has_rate) in [
            ("kind = \"mlp\"", true),
            ("kind = \"cnn4\"\nwidth = 4", true),
            ("kind = \"preresnet\"\ndepth = 8\nnorm = \"layer\"", true),
            ("kind = \"toy\"\ndim = 5", true),
            ("kind = \"empty\"", false),
        ] {
            let more = if model.contains("toy") {
                "[data]\norder = \"shuffle\"\n[measure]\nmetrics = [\"train_loss\"]\n"
            } else {
                "average = { kind = \"ema\" }\n[data]\norder = \"full-batch\"\n"
            };
            let source = SpecSource {
                text: format!(
                    "name = \"t\"\n[model]\n{model}\n[train]\nepochs = 3\nlr = 0.1\n\
                     schedule = [{{ epoch = 2, lr = 0.2 }}]\n{more}"
                ),
                ..SpecSource::default()
            };
            let spec = Spec::read_stored(&source).expect("a valid sweep");
            let config = spec.grid.resolve_config(CellIndex(0)).expect("a cell");
            let rate = measure_step_rate(&config, Duration::from_millis(1), Isa::detect_fastest());
            assert_eq!(
                rate.is_some_and(|rate| rate > 1e5),
                has_rate,
                "{model}: {rate:?}"
            );
        }
    }
}
