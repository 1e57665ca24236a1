//! Whole trials on made-up images: what starts one, and what its steps cost. `cargo bench -p ergodic-worker` shows images
//! per second; `ergodic-worker bench` sets them against what the core can do.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use divan::Bencher;
use divan::counter::ItemsCount;
use ergodic_common::config::{Length, TrialConfig, VisitOrder};
use ergodic_common::dataset::{Dataset, Images};
use ergodic_common::ids::{CellHash, CellIndex, Repeat};
use ergodic_common::metric::Metric;
use ergodic_common::random_streams::{SeedPlan, Streams};
use ergodic_common::spec::measure::Measure;
use ergodic_common::spec::source::SpecSource;
use ergodic_common::{Spec, TrialKey};
use ergodic_worker::train::{Isa, Job, TrialData, run_trial};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Workload {
    Mlp,
    Cnn4,
    Preresnet20,
    Vgg,
}

use Workload::{Cnn4, Mlp, Preresnet20, Vgg};

/// A trial ready to be run again and again.
struct Trial {
    config: TrialConfig,
    streams: Streams,
    measure: Measure,
    data: TrialData,
}

impl Trial {
    fn new(workload: Workload, batch: u32, steps: u64) -> Self {
        let (dataset, model) = match workload {
            Mlp => ("mnist", "kind = \"mlp\"\nhidden = [128]"),
            Cnn4 => ("mnist", "kind = \"cnn4\""),
            Preresnet20 => ("cifar10", "kind = \"preresnet\"\ndepth = 20"),
            Vgg => ("cifar10", "kind = \"vgg\"\ndepth = 11\nwidth = 16"),
        };
        let text = format!(
            "name = \"bench\"\n[data]\ndataset = \"{dataset}\"\n[model]\n{model}\nfixed_head = true\n[train]\n\
             steps = {steps}\nbatch_size = {batch}\nlr = 0.01\nwd = 5e-4\noptimizer = {{ momentum = 0.9 }}\n"
        );
        let source = SpecSource {
            file: "bench".into(),
            text,
            ..SpecSource::default()
        };
        let spec = Spec::read_stored(&source).expect("a valid sweep");
        let mut config = spec
            .grid
            .resolve_config(CellIndex(0))
            .expect("its only cell");
        (config.data.train, config.data.test, config.data.order) =
            (batch, 1, VisitOrder::Sequential);

        let streams = Streams {
            sweep_seed: 0,
            repeat: Repeat(0),
            cell: CellHash([0; 32]),
            plan: SeedPlan::default(),
        };

        let measure = Measure::with_metrics(Length::Steps(steps), vec![Metric::TrainLoss]);
        let data = TrialData::new(made_up(&config), &config.data, &streams)
            .expect("as many images as are used");
        Self {
            config,
            streams,
            measure,
            data,
        }
    }

    fn run(&self) {
        let job = Job {
            config: &self.config,
            streams: &self.streams,
            measure: &self.measure,
            data: Some(&self.data),
            initial_weights: None,
            key: TrialKey::new(0, 0),
            isa: Isa::detect_fastest(),
            candle_device: None,
            thread_pool: None,
            checkpoint_store: None,
            deadline: None,
        };
        let finished = run_trial(&job, &AtomicBool::new(false));

        divan::black_box(finished.expect("nobody stops it"));
    }
}

fn made_up(config: &TrialConfig) -> Arc<Dataset> {
    let name = config.data.dataset;
    let (height, width, channels) = name.image_shape();
    let part = |images: u32| Images {
        pixels: (0..images * height * width * channels)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect(),
        labels: (0..images)
            .map(|i| (i % name.class_count()) as u8)
            .collect(),
        ..Images::default()
    };

    Arc::new(Dataset {
        name,
        train: part(config.data.train),
        test: part(1),
    })
}

/// A trial of a single image in a single step: what it takes to begin and end.
#[divan::bench(args = [Mlp, Cnn4, Preresnet20, Vgg])]
fn start_and_end(bencher: Bencher<'_, '_>, workload: Workload) {
    let trial = Trial::new(workload, 2, 1);
    bencher.bench(|| trial.run());
}

const STEPS: u64 = 20;

#[divan::bench(args = [(Mlp, 64), (Cnn4, 16), (Cnn4, 128), (Preresnet20, 128), (Vgg, 128)], sample_count = 10)]
fn twenty_steps(bencher: Bencher<'_, '_>, (workload, batch): (Workload, u32)) {
    let trial = Trial::new(workload, batch, STEPS);
    bencher
        .counter(ItemsCount::new(STEPS * u64::from(batch)))
        .bench(|| trial.run());
}
