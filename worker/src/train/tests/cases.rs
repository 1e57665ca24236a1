//! Small trials to test with.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use ergodic_common::Spec;
use ergodic_common::config::{
    Activation, Average, DataConfig, InitScheme, Length, Loss, LrFactors, ModelConfig, ModelKind,
    Norm, ResultsSelection, ResultsSource, ResultsStart, TrainConfig, TrialConfig,
    WeightDecayScope,
};
use ergodic_common::dataset::name::DatasetName;
use ergodic_common::dataset::{Dataset, Images, generate_glyphs};
use ergodic_common::ids::{CellHash, CellIndex, FileHash, Repeat};
use ergodic_common::metric::{MeasurementPass, Metric};
use ergodic_common::pinned_file::FileData;
use ergodic_common::random_streams::{SeedPlan, Streams, fixed_stream};
use ergodic_common::spec::saved_moments::SavedMoments;
use ergodic_common::spec::source::SpecSource;
use ergodic_common::spec::{Measure, Moment, Probe};
use ergodic_common::trial::{Outcome, TrialKey, TrialResult};
use rayon::ThreadPool;

use crate::train::{
    CandleDevice, CheckpointStore, FinishedTrial, InitialWeights, Isa, Job, StartPart, TrialData,
    run_trial,
};

/// The generated dataset, made once.
pub(crate) fn dataset() -> Arc<Dataset> {
    static DATA: OnceLock<Arc<Dataset>> = OnceLock::new();
    DATA.get_or_init(|| Arc::new(generate_glyphs())).clone()
}

/// Streams of a repeat.
pub(crate) fn streams(repeat: u32) -> Streams {
    Streams {
        sweep_seed: 7,
        repeat: Repeat(repeat),
        cell: CellHash([0; 32]),
        plan: SeedPlan::default(),
    }
}

/// A small trial of this model.
pub(crate) fn small_trial(kind: ModelKind, norm: Norm) -> TrialConfig {
    TrialConfig {
        data: DataConfig::new(DatasetName::Glyphs, 100, 50),
        model: ModelConfig {
            kind,
            norm,
            norm_eps: 1e-5,
            affine: false,
            fixed_head: false,
            init: InitScheme::KaimingNormal,
            init_file: None,
            init_scale: 1.0,
            layer_scales: Vec::new(),
            zero_residual: false,
            activation: Activation::Relu,
            bias: None,
        },
        train: TrainConfig {
            length: Length::Steps(5),
            batch_size: 16,
            lr: 0.05,
            wd: 5e-4,
            wd_on: WeightDecayScope::All,
            momentum: 0.9,
            nesterov: false,
            adam: None,
            clip_norm: None,
            lr_on: LrFactors::default(),
            sam: None,
            loss: Loss::CrossEntropy { smoothing: 0.0 },
            schedule: Vec::new(),
            curve: None,
            average: None,
            added_noise: None,
        },
        results_start: None,
    }
}

/// A small trial of the model that `[model]` describes, on these images.
pub(crate) fn described_trial(dataset: DatasetName, model: &str) -> TrialConfig {
    let source = SpecSource {
        text: format!(
            "name = \"t\"\n[model]\n{model}\n[data]\ndataset = \"{}\"\n[train]\nsteps = 5\nbatch_size = 16\nlr = 0.05\n",
            dataset.as_str()
        ),
        ..SpecSource::default()
    };
    let spec = Spec::read_stored(&source).unwrap_or_else(|error| panic!("{model}: {error}"));
    let config = spec.grid.resolve_config(CellIndex(0)).expect("a cell");

    let mut small = small_trial(config.model.kind.clone(), Norm::None);
    small.model = config.model;
    small.data.dataset = dataset;
    small
}

/// A small trial of a network that is written as a list of layers.
pub(crate) fn listed_trial(dataset: DatasetName, layers: &str) -> TrialConfig {
    described_trial(dataset, &format!("kind = \"layers\"\n{layers}"))
}

/// Small networks that are written as lists of layers; together they have every activation, pool and sum.
pub(crate) const LISTED: [(&str, &str); 6] = [
    (
        "tanh mlp",
        "activation = \"tanh\"\nnorm = \"none\"\nlayers = [{ linear = 24 }, { linear = 17 }, { linear = \"classes\" }]",
    ),
    (
        "gelu residual",
        "activation = \"gelu\"\naffine = true\nlayers = [{ conv = 6 }, { pool = \"avg2\" }, { conv = 6, add = \"conv2.in\" }, \
         { pool = \"global-avg\" }, { linear = \"classes\", bias = true }]",
    ),
    (
        "leaky shortcuts",
        "activation = \"leaky-relu\"\nnorm = \"none\"\nlayers = [{ conv = 5, stride = 3 }, { conv = 5, add = \"conv2.in\" }, \
         { conv = 9, stride = 2, add = \"conv3.in\" }, { pool = \"max2\" }, { linear = \"classes\" }]",
    ),
    (
        "silu image",
        "activation = \"silu\"\nnorm = \"group\"\ngroups = 2\naffine = true\nlayers = [{ name = \"a\", conv = 4, kernel = 5 }, \
         { name = \"b\", conv = 8, stride = 2, add = \"a.in\" }, { linear = \"classes\", bias = true }]",
    ),
    (
        "softplus pooled",
        "activation = \"softplus\"\nnorm = \"layer\"\nlayers = [{ pool = \"avg2\" }, { conv = 4 }, \
         { linear = 12, norm = \"none\", bias = true }, { linear = \"classes\", bias = true }]",
    ),
    (
        "biased sum",
        "activation = \"tanh\"\nnorm = \"group\"\ngroups = 2\nlayers = [{ name = \"a\", conv = 4, stride = 2, norm = \"none\", bias = true }, \
         { name = \"b\", conv = 4, add = \"a.sum\" }, { pool = \"avg2\" }, { linear = \"classes\", bias = true }]",
    ),
];

/// A small perceptron without norms.
pub(crate) fn mlp() -> TrialConfig {
    small_trial(
        ModelKind::Mlp {
            hidden: vec![24, 17],
        },
        Norm::None,
    )
}

/// Every metric that needs no pass of gradients or products, sampled every other step; predictions and weights are saved.
pub(crate) fn metrics_without_gradient_passes() -> Measure {
    let metrics = Metric::NAMES
        .iter()
        .map(|(_, metric)| metric.clone())
        .filter(|metric| {
            !metric.is_of_parts()
                && !matches!(
                    metric.required_pass(),
                    Some(MeasurementPass::Noise | MeasurementPass::Curvature)
                )
        });

    let at = vec![Moment::After(Length::Steps(3)), Moment::Final];
    let probe = Some(Probe { points: 20, at });
    Measure {
        probe,
        save: SavedMoments::of_end(),
        ..Measure::with_metrics(Length::Steps(2), metrics.collect())
    }
}

/// Runs a trial.
pub(crate) fn result(config: &TrialConfig, measure: &Measure, isa: Isa) -> TrialResult {
    result_on(config, measure, isa, None)
}

/// Runs a trial on the threads of a pool.
pub(crate) fn result_on(
    config: &TrialConfig,
    measure: &Measure,
    isa: Isa,
    pool: Option<&ThreadPool>,
) -> TrialResult {
    result_with(config, measure, isa, pool, None)
}

/// Runs a trial with a checkpoint store.
pub(crate) fn result_with(
    config: &TrialConfig,
    measure: &Measure,
    isa: Isa,
    pool: Option<&ThreadPool>,
    store: Option<&dyn CheckpointStore>,
) -> TrialResult {
    result_from(config, measure, isa, (pool, store), None)
}

/// Runs a trial that starts from a file.
pub(crate) fn result_from(
    config: &TrialConfig,
    measure: &Measure,
    isa: Isa,
    (pool, store): (Option<&ThreadPool>, Option<&dyn CheckpointStore>),
    start: Option<&[u8]>,
) -> TrialResult {
    result_of(config, measure, isa, (pool, store), start, None)
}

/// Runs a trial on stock operations, or on the trainer's own engine.
pub(crate) fn result_at(
    config: &TrialConfig,
    measure: &Measure,
    candle: Option<&CandleDevice>,
) -> TrialResult {
    result_of(
        config,
        measure,
        Isa::detect_fastest(),
        (None, None),
        None,
        candle,
    )
}

/// An average that is taken at every step.
pub(crate) fn every_step() -> Average {
    Average {
        decay: None,
        from: Length::Steps(0),
        every: Length::Steps(1),
    }
}

/// Runs a trial on this dataset.
pub(crate) fn result_with_data(
    config: &TrialConfig,
    measure: &Measure,
    (dataset, isa): (Arc<Dataset>, Isa),
    candle: Option<&CandleDevice>,
) -> TrialResult {
    result_on_data(config, measure, isa, (None, None), (dataset, None), candle)
}

/// Images that deep networks can take.
pub(crate) fn on_its_images(mut config: TrialConfig) -> TrialConfig {
    if matches!(
        config.model.kind,
        ModelKind::Vgg { .. } | ModelKind::Preresnet { .. }
    ) {
        config.data.dataset = DatasetName::Cifar10;
    }
    config
}

fn result_of(
    config: &TrialConfig,
    measure: &Measure,
    isa: Isa,
    (pool, store): (Option<&ThreadPool>, Option<&dyn CheckpointStore>),
    start: Option<&[u8]>,
    candle: Option<&CandleDevice>,
) -> TrialResult {
    result_on_data(
        config,
        measure,
        isa,
        (pool, store),
        (find_dataset(config.data.dataset), start),
        candle,
    )
}

fn result_on_data(
    config: &TrialConfig,
    measure: &Measure,
    isa: Isa,
    (pool, store): (Option<&ThreadPool>, Option<&dyn CheckpointStore>),
    (dataset, start): (Arc<Dataset>, Option<&[u8]>),
    candle: Option<&CandleDevice>,
) -> TrialResult {
    finished_on_data(
        config,
        measure,
        isa,
        (pool, store),
        (dataset, start.map(InitialWeights::File)),
        candle,
    )
    .result
}

/// All that a trial leaves that starts from the mean of weights.
pub(crate) fn finished_from_parts(
    config: &TrialConfig,
    measure: &Measure,
    parts: &[StartPart],
    store: Option<&dyn CheckpointStore>,
) -> FinishedTrial {
    let mut config = config.clone();
    config.results_start = Some(ResultsStart {
        selection: ResultsSelection {
            source: ResultsSource::Stage("main".into()),
            condition: None,
            trials: parts.len() as u32,
            block: parts.len() as u32,
            at: vec!["final".into()],
        },
        manifest: Some(blake3::hash(b"made up").into()),
    });
    finished_on_data(
        &config,
        measure,
        Isa::detect_fastest(),
        (None, store),
        (dataset(), Some(InitialWeights::Mean(parts))),
        None,
    )
}

/// All that a trial leaves.
pub(crate) fn finished(config: &TrialConfig, measure: &Measure) -> FinishedTrial {
    finished_on_data(
        config,
        measure,
        Isa::detect_fastest(),
        (None, None),
        (find_dataset(config.data.dataset), None),
        None,
    )
}

/// The images that a trial is tested with on a dataset of this name.
pub(crate) fn find_dataset(name: DatasetName) -> Arc<Dataset> {
    match name {
        DatasetName::Glyphs => dataset(),
        DatasetName::File(data) => with_targets(find_shape(data.shape), data.targets),
        name => noise(name),
    }
}

fn finished_on_data(
    config: &TrialConfig,
    measure: &Measure,
    isa: Isa,
    (pool, store): (Option<&ThreadPool>, Option<&dyn CheckpointStore>),
    (dataset, start): (Arc<Dataset>, Option<InitialWeights<'_>>),
    candle: Option<&CandleDevice>,
) -> FinishedTrial {
    let streams = streams(0);
    let data =
        TrialData::new(dataset, &config.data, &streams).expect("the dataset has as many images");
    let key = TrialKey::new(0, 0);
    let data = Some(&data);
    let deadline = None;
    let job = Job {
        config,
        streams: &streams,
        measure,
        data,
        initial_weights: start,
        key,
        isa,
        candle_device: candle,
        thread_pool: pool,
        checkpoint_store: store,
        deadline,
    };
    let finished = run_trial(&job, &AtomicBool::new(false)).expect("the trial is not stopped");
    assert_eq!(
        finished.weights.is_some(),
        !measure.save.is_empty() && finished.result.outcome == Outcome::Completed
    );

    finished
}

/// [`noise`] with so many targets of each image in place of labels.
pub(crate) fn with_targets(name: DatasetName, targets: u32) -> Arc<Dataset> {
    let mut dataset = Arc::unwrap_or_clone(noise(name));
    for (word, part) in [
        ("train targets", &mut dataset.train),
        ("test targets", &mut dataset.test),
    ] {
        let mut stream = fixed_stream(word, u64::from(targets));
        let count = part.len() * targets as usize;
        part.targets = (0..count).map(|_| stream.next_normal() as f32).collect();
        part.labels.fill(0);
    }

    let data = FileData {
        hash: FileHash([targets as u8; 32]),
        sizes: (dataset.train.len() as u32, dataset.test.len() as u32),
        shape: name.image_shape(),
        classes: 0,
        targets,
        floats: false,
    };
    dataset.name = DatasetName::File(data);
    Arc::new(dataset)
}

/// The dataset whose images have this shape.
fn find_shape(shape: (u32, u32, u32)) -> DatasetName {
    match shape {
        (32, ..) => DatasetName::Cifar10,
        _ => DatasetName::Mnist,
    }
}

/// A trial on the same images with so many targets. No accuracies and predictions are among what it can measure.
pub(crate) fn on_targets(mut config: TrialConfig, targets: u32) -> TrialConfig {
    config.data.dataset = with_targets(config.data.dataset, targets).name;
    config.train.loss = Loss::Mse;
    config
}

/// Random images in the shape of a dataset. Unlike a real dataset, they never change.
pub(crate) fn noise(name: DatasetName) -> Arc<Dataset> {
    let (height, width, channels) = name.image_shape();
    let part = |label: &str, images: u32| {
        let mut stream = fixed_stream(label, u64::from(images));
        let blocks = images * height * width * channels / 32 + 1;
        let mut pixels: Vec<u8> = (0..blocks).flat_map(|_| stream.next_bytes()).collect();
        pixels.truncate((images * height * width * channels) as usize);

        // Channels of different mean and spread.
        pixels
            .iter_mut()
            .enumerate()
            .for_each(|(i, p)| *p = *p / (2 + i % channels as usize) as u8 + 10);
        Images {
            pixels,
            labels: (0..images).map(|i| (i % 10) as u8).collect(),
            ..Images::default()
        }
    };

    Arc::new(Dataset {
        name,
        train: part("noise train", 100),
        test: part("noise test", 50),
    })
}
