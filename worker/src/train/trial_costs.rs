//! What the parts of a trial cost on this machine, measured in a moment on short trials with random images.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ergodic_common::config::{Length, ModelKind, TrialConfig, VisitOrder};
use ergodic_common::dataset::Dataset;
use ergodic_common::dataset::name::DatasetName;
use ergodic_common::metric::{MeasurementPass, Metric};
use ergodic_common::net::Net;
use ergodic_common::spec::Measure;
use ergodic_common::trial::TrialKey;
use serde::Serialize;

use super::bench::{random_images, timing_streams};
use super::{Isa, Job, TrialData, run_trial};
use crate::system::cpu_seconds;

/// The most floating-point operations of a step or an evaluation that is timed: a tenth of a second or less. Larger ones are cut.
const MAX_TIMED_FLOPS: u64 = 2_000_000_000;
/// The least images of a batch that is cut: a norm over one image of one pixel would have nothing to do.
const MIN_BATCH: u64 = 2;
/// The most images of a part of the dataset.
const MAX_IMAGES: u64 = 8_192;
/// The most steps that are timed, which the toy takes in a moment.
const MAX_STEPS: u64 = 1 << 20;
/// The most samples that are timed.
const MAX_SAMPLES: f64 = 100.0;
/// A learning rate at which nothing diverges.
const SAFE_LR: f64 = 1e-6;

/// The costs of the parts of a trial, in seconds of CPU time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TrialCosts {
    /// Before the first step, and after the last.
    pub set_up: f64,
    /// A training step.
    pub step: f64,
    /// A sample of the metrics, without those that compute gradients of their own.
    pub sample: f64,
}

/// Measures the costs in about the time `budget`. `None` for a model that trains nothing.
pub fn measure_trial_costs(
    config: &TrialConfig,
    measure: &Measure,
    budget: Duration,
    isa: Isa,
) -> Option<TrialCosts> {
    let trials = ShortTrials::new(config, measure, isa)?;
    let budget = budget.as_secs_f64() / 3.0;
    let once = Measure::with_metrics(Length::Steps(u64::MAX), vec![Metric::TrainLoss]);

    // The first trial warms the caches.
    let first = trials.time_trial(1, &once).min(trials.time_trial(1, &once));
    let step = trials.time_step(&once, first, budget);
    let set_up = (first - step).max(0.0);

    let begun = (set_up, step);
    let mut sample = trials.time_sample(&keep_passes(measure, &[]), begun, budget);
    if let Some(share) = trials.evaluated_share {
        let with_images = keep_passes(measure, &EVALUATIONS);
        let evaluation = trials.time_sample(&with_images, begun, budget) - sample;
        sample += evaluation.max(0.0) / share;
    }

    let costs = TrialCosts {
        set_up,
        step: step / trials.batch_share,
        sample,
    };
    (costs.step + costs.sample).is_finite().then_some(costs)
}

/// The passes that evaluate images.
const EVALUATIONS: [MeasurementPass; 4] = [
    MeasurementPass::Test,
    MeasurementPass::Validation,
    MeasurementPass::AverageTest,
    MeasurementPass::AverageValidation,
];

/// The metrics that need one of these passes or none, sampled after every step.
fn keep_passes(measure: &Measure, passes: &[MeasurementPass]) -> Measure {
    let metrics = measure.metrics.iter().filter(|metric| {
        metric
            .required_pass()
            .is_none_or(|pass| passes.contains(&pass))
    });
    Measure {
        statistics: measure.statistics,
        ..Measure::with_metrics(Length::Steps(1), metrics.cloned().collect())
    }
}

/// Trials of few steps, which are like those of a config but for the number of images.
struct ShortTrials {
    config: TrialConfig,
    /// `None` for the toy.
    data: Option<TrialData>,
    isa: Isa,
    /// Share of the batch that is trained on.
    batch_share: f64,
    /// Share of the images of a sample that are evaluated; `None` if none are to be.
    evaluated_share: Option<f64>,
}

impl ShortTrials {
    fn new(config: &TrialConfig, measure: &Measure, isa: Isa) -> Option<Self> {
        let net = Net::from_config(config);
        if net.is_none() && !matches!(config.model.kind, ModelKind::Toy(_)) {
            return None;
        }

        let short = shorten_config(config, measure, net.as_ref());
        let data = net.is_some().then(|| draw_trial_data(&short));
        let [timed, full] = [&short, config].map(|config| measure.evaluated_images(config));
        let [timed_batch, batch] =
            [&short, config].map(|config| f64::from(config.effective_batch_size()));
        Some(Self {
            data,
            isa,
            batch_share: timed_batch / batch,
            evaluated_share: (full > 0).then(|| timed as f64 / full as f64),
            config: short,
        })
    }

    /// The cost of a step, beyond `first` for a trial of one. The system counts CPU time in ticks, so a trial is made longer until
    /// it takes long enough.
    fn time_step(&self, once: &Measure, first: f64, budget: f64) -> f64 {
        let mut steps = 2;
        loop {
            let timed = self.time_trial(1 + steps, once);
            if timed >= budget || steps >= MAX_STEPS {
                return ((timed - first) / steps as f64).max(0.0);
            }
            steps *= (budget / timed).clamp(2.0, 16.0) as u64;
        }
    }

    /// The cost of a sample, beyond that of the trial and its steps.
    fn time_sample(&self, measure: &Measure, (set_up, step): (f64, f64), budget: f64) -> f64 {
        let first = self.time_trial(1, measure);
        let samples = (budget / first).clamp(1.0, MAX_SAMPLES) as u64;
        let timed = self.time_trial(samples, measure);
        ((timed - set_up) / samples as f64 - step).max(0.0)
    }

    /// The CPU time of a trial of some steps, in seconds.
    fn time_trial(&self, steps: u64, measure: &Measure) -> f64 {
        let mut config = self.config.clone();
        config.train.length = Length::Steps(steps);
        let averages = measure.metrics.iter().any(Metric::needs_average);
        if let Some(average) = config.train.average.as_mut().filter(|_| averages) {
            average.from = Length::Steps(0);
            average.every = Length::Steps(1);
        }

        let streams = timing_streams();
        let job = Job {
            config: &config,
            streams: &streams,
            measure,
            data: self.data.as_ref(),
            initial_weights: None,
            key: TrialKey::new(0, 0),
            isa: self.isa,
            candle_device: None,
            thread_pool: None,
            checkpoint_store: None,
            deadline: None,
        };
        let start = cpu_seconds();
        run_trial(&job, &AtomicBool::new(false));
        (cpu_seconds() - start).max(1e-6)
    }
}

/// Cuts the batch and the numbers of images to what takes a moment, and leaves out the schedule, files, added noise and the second pass
/// of sharpness-aware steps, whose gradients are counted as steps.
fn shorten_config(config: &TrialConfig, measure: &Measure, net: Option<&Net>) -> TrialConfig {
    let mut config = config.clone();
    config.train.schedule.clear();
    config.train.lr = SAFE_LR;
    config.train.added_noise = None;
    config.train.sam = None;
    config.model.init_file = None;
    config.results_start = None;
    if let DatasetName::File(data) = &mut config.data.dataset {
        data.floats = false;
    }
    let Some(net) = net else {
        return config;
    };

    let most = (MAX_TIMED_FLOPS / net.train_flops().max(1)).clamp(MIN_BATCH, MAX_IMAGES);
    let batch = u64::from(config.effective_batch_size()).min(most) as u32;
    let evaluated = measure.evaluated_images(&config).max(1);
    let most = (MAX_TIMED_FLOPS / net.test_flops().max(1)).clamp(1, MAX_IMAGES);
    let share = (most as f64 / evaluated as f64).min(1.0);

    if config.data.order == VisitOrder::FullBatch {
        config.data.order = VisitOrder::Sequential;
    }
    config.train.batch_size = batch;
    config.data.train = cut_images(config.data.train, share).max(batch);
    config.data.test = cut_images(config.data.test, share);
    config.data.validation = cut_images(config.data.validation, share);
    config
}

/// This share of some images, rounded up.
fn cut_images(images: u32, share: f64) -> u32 {
    ((f64::from(images) * share).ceil() as u64).min(MAX_IMAGES) as u32
}

/// Random images, as many as the config uses.
fn draw_trial_data(config: &TrialConfig) -> TrialData {
    let (name, data) = (config.data.dataset, &config.data);
    let dataset = Arc::new(Dataset {
        name,
        train: random_images(name, data.train + data.validation),
        test: random_images(name, data.test.max(1)),
    });
    TrialData::new(dataset, data, &timing_streams())
        .expect("the dataset has as many images as the config uses")
}

#[cfg(test)]
mod tests {
    use ergodic_common::Spec;
    use ergodic_common::ids::CellIndex;
    use ergodic_common::spec::SpecSource;

    use super::*;

    fn measure_costs(model: &str, more: &str) -> Option<TrialCosts> {
        let source = SpecSource {
            text: format!(
                "name = \"t\"\n[model]\n{model}\n[train]\nepochs = 3\nlr = 0.1\n\
                 schedule = [{{ epoch = 2, lr = 0.2 }}]\n{more}"
            ),
            ..SpecSource::default()
        };
        let spec = Spec::read_stored(&source).expect("a valid sweep");
        let config = spec.grid.resolve_config(CellIndex(0)).expect("a cell");
        let budget = Duration::from_millis(1);
        measure_trial_costs(&config, &spec.measure, budget, Isa::detect_fastest())
    }

    #[test]
    fn every_model_that_trains_has_costs() {
        let full_batch = "average = { kind = \"ema\" }\n[data]\norder = \"full-batch\"\n[measure]\n\
                          metrics = [\"train_loss\", \"test_acc\", \"average_test_acc\"]\n";
        for (model, more) in [
            ("kind = \"mlp\"", full_batch),
            ("kind = \"cnn4\"\nwidth = 4", full_batch),
            (
                "kind = \"preresnet\"\ndepth = 8\nnorm = \"layer\"",
                full_batch,
            ),
            (
                "kind = \"toy\"\ndim = 5",
                "[measure]\nmetrics = [\"train_loss\"]\n",
            ),
        ] {
            let costs = measure_costs(model, more).expect(model);
            let all = [costs.set_up, costs.step, costs.sample];
            assert!(
                all.iter().all(|seconds| *seconds >= 0.0),
                "{model}: {costs:?}"
            );
        }
        assert_eq!(measure_costs("kind = \"empty\"", ""), None);
    }

    #[test]
    fn images_that_are_left_out_are_accounted_for() {
        let source = SpecSource {
            text: "name = \"t\"\n[data]\ndataset = \"cifar10\"\nvalidation = 5000\n[model]\n\
                   kind = \"preresnet\"\ndepth = 20\nnorm = \"batch\"\n[train]\nepochs = 1\nlr = 0.1\nbatch_size = 512\n\
                   [measure]\nstatistics = \"re-estimated\"\nmetrics = [\"test_acc\", \"val_acc\"]\n"
                .to_owned(),
            ..SpecSource::default()
        };
        let spec = Spec::read_stored(&source).expect("a valid sweep");
        let config = spec.grid.resolve_config(CellIndex(0)).expect("a cell");
        let net = Net::from_config(&config).expect("a network");
        let short = shorten_config(&config, &spec.measure, Some(&net));

        let images = spec.measure.evaluated_images(&config);
        assert_eq!(images, 10_000 + 5_000 + 45_000);
        assert!(spec.measure.evaluated_images(&short) < images / 10);
        assert!(short.data.train >= short.effective_batch_size());
        assert!(short.effective_batch_size() < 512);
    }
}
