//! The benchmark of training speed.

use std::sync::Arc;
use std::time::Instant;

use candle_core::{Device, Tensor};
use ergodic_common::config::{DataConfig, TrialConfig, VisitOrder};
use ergodic_common::dataset::name::DatasetName;
use ergodic_common::dataset::{Dataset, Images};
use ergodic_common::ids::{CellHash, Repeat};
use ergodic_common::net::Net;
use ergodic_common::random_streams::{SeedPlan, Streams, fixed_stream};
use ergodic_common::spec::Measure;
use ergodic_common::trial::TrialKey;

use super::data::TrialData;
use super::engine::simd::Simd16;
use super::optim::schedule::StepHyperparams;
use super::trial::Training;
use super::{CandleDevice, Isa, Job};
use crate::system::cpu_seconds;

/// The results of a benchmark.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BenchReport {
    /// Number of training steps.
    pub steps: u64,
    /// Number of training images.
    pub samples: u64,
    /// CPU time of all threads, in seconds; elapsed time if the system does not count CPU time.
    pub cpu_seconds: f64,
    /// Elapsed time, in seconds.
    pub seconds: f64,
    /// Floating-point operations of the networks' layers by definition, whichever algorithm
    /// computes them.
    pub flops: u64,
    /// Floating-point operations per CPU second of a large matrix product on one thread of this machine.
    pub gemm_flops_per_second: f64,
}

impl BenchReport {
    /// Training images per CPU second.
    pub fn samples_per_cpu_second(&self) -> f64 {
        self.samples as f64 / self.cpu_seconds
    }

    /// Training images per second.
    pub fn samples_per_second(&self) -> f64 {
        self.samples as f64 / self.seconds
    }

    /// Floating-point operations of the plain sums per CPU second.
    pub fn flops_per_second(&self) -> f64 {
        self.flops as f64 / self.cpu_seconds
    }
}

/// Trains `steps` steps on random images, after a few that are not timed.
///
/// # Errors
/// The operating system refuses threads.
pub fn measure_training_speed(
    config: &TrialConfig,
    steps: u64,
    isa: Isa,
    candle_device: Option<&CandleDevice>,
    threads: u32,
) -> Result<BenchReport, rayon::ThreadPoolBuildError> {
    let Some(net) = Net::from_config(config) else {
        return Ok(BenchReport::default());
    };

    let pool = super::build_thread_pool(threads)?;
    let device = (candle_device, pool.as_ref());
    let mut report = time_steps(config, &net, (WARM_UP_STEPS, steps), isa, device);
    report.gemm_flops_per_second = gemm_flops_per_second();
    Ok(report)
}

/// Streams for trainings that are timed.
pub(super) fn timing_streams() -> Streams {
    Streams {
        sweep_seed: 0,
        repeat: Repeat(0),
        cell: CellHash([0; 32]),
        plan: SeedPlan::default(),
    }
}

/// Trains on random images: some steps that are not timed, and then some that are.
fn time_steps(
    config: &TrialConfig,
    net: &Net,
    (warm_up, steps): (u64, u64),
    isa: Isa,
    (candle_device, thread_pool): (Option<&CandleDevice>, Option<&rayon::ThreadPool>),
) -> BenchReport {
    let streams = timing_streams();
    let data = random_trial_data(config, &streams);
    let measure = Measure::with_metrics(ergodic_common::config::Length::Steps(1), Vec::new());
    let batch = config.effective_batch_size();
    let mut config = config.clone();
    config.data.train = batch;
    config.data.order = VisitOrder::Sequential;

    let job = Job {
        config: &config,
        streams: &streams,
        measure: &measure,
        data: Some(&data),
        initial_weights: None,
        key: TrialKey::new(0, 0),
        isa,
        candle_device,
        thread_pool,
        checkpoint_store: None,
        deadline: None,
    };

    let mut report = BenchReport {
        steps,
        samples: steps * u64::from(batch),
        ..BenchReport::default()
    };
    report.flops = report.samples * net.train_flops();
    let seconds = (&mut report.cpu_seconds, &mut report.seconds);
    let training = TimedTraining {
        job: &job,
        net,
        data: &data,
        warm_up,
        steps,
        seconds,
    };
    job.run_on_pool(|| job.isa.run_program(training));

    report
}

/// Steps of a benchmark before the clock starts.
const WARM_UP_STEPS: u64 = 3;

/// Side of the square matrices in the product: 12 MiB in all, as large networks have.
const GEMM_SIDE: usize = 1024;

/// Number of products that are timed together, so that the coarse ticks of the system do not
/// matter.
const GEMM_PRODUCTS: u32 = 10;

/// The best rate of several products by Candle's matrix library: the most that this core can be
/// expected to do.
fn gemm_flops_per_second() -> f64 {
    // A pool of one thread, because Candle would spread a product over all cores.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.map_or(f64::NAN, |pool| pool.install(best_gemm_rate))
}

fn gemm_matrix() -> candle_core::Result<Tensor> {
    Tensor::full(0.5_f32, (GEMM_SIDE, GEMM_SIDE), &Device::Cpu).and_then(|m| m.contiguous())
}

fn best_gemm_rate() -> f64 {
    let a = gemm_matrix().expect(super::ON_CPU);
    let b = gemm_matrix().expect(super::ON_CPU);
    let mut best = f64::INFINITY;

    for _ in 0..4 {
        let start = cpu_seconds();
        for _ in 0..GEMM_PRODUCTS {
            std::hint::black_box(a.matmul(&b).expect(super::ON_CPU));
        }
        best = best.min((cpu_seconds() - start) / f64::from(GEMM_PRODUCTS));
    }

    2.0 * (GEMM_SIDE * GEMM_SIDE * GEMM_SIDE) as f64 / best
}

struct TimedTraining<'a> {
    job: &'a Job<'a>,
    net: &'a Net,
    data: &'a TrialData,
    /// Steps before the clock starts.
    warm_up: u64,
    steps: u64,
    /// CPU seconds and elapsed seconds.
    seconds: (&'a mut f64, &'a mut f64),
}

impl super::SimdProgram for TimedTraining<'_> {
    fn run_with<S: Simd16>(self, s: S) {
        let mut training = Training::new(s, self.job, self.net, self.data).expect(super::ON_CPU);
        let rates = StepHyperparams::at_step(self.job.config, 0);
        let mut start = cpu_seconds();
        let mut began = Instant::now();

        for step in 0..self.warm_up + self.steps {
            if step == self.warm_up {
                start = cpu_seconds();
                began = Instant::now();
            }
            training.compute_gradient(step).expect(super::ON_CPU);
            training.update_weights(rates, step).expect(super::ON_CPU);
        }

        let cpu = cpu_seconds() - start;
        let elapsed = began.elapsed().as_secs_f64();
        // The system counts CPU time in ticks, so a very short run may show none.
        *self.seconds.0 = if cpu > 0.0 { cpu } else { elapsed };
        *self.seconds.1 = elapsed;
    }
}

/// A training set of one batch of random images.
fn random_trial_data(config: &TrialConfig, streams: &Streams) -> TrialData {
    let name = config.data.dataset;
    let batch = config.effective_batch_size();
    let dataset = Arc::new(Dataset {
        name,
        train: random_images(name, batch),
        test: random_images(name, 1),
    });

    let config = DataConfig::new(name, batch, 1);
    TrialData::new(dataset, &config, streams)
        .expect("the dataset has as many images as the config uses")
}

pub(super) fn random_images(name: DatasetName, images: u32) -> Images {
    let (height, width, channels) = name.image_shape();
    let len = (images * height * width * channels) as usize;
    let mut stream = fixed_stream("bench", u64::from(images));
    let mut pixels = Vec::new();
    while pixels.len() < len {
        pixels.extend(stream.next_bytes());
    }
    pixels.truncate(len);

    let labels = (0..images).map(|i| i.checked_rem(name.class_count()).unwrap_or(0) as u8);
    let targets = (0..images * name.target_count()).map(|_| stream.next_normal() as f32);
    Images {
        pixels,
        floats: Vec::new(),
        labels: labels.collect(),
        targets: targets.collect(),
    }
}
