//! Whole trials: bits, learning, divergence, metrics.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ergodic_common::config::{
    Adam, AdamDecay, AddedNoise, Augment, Average, Curve, HyperparamChange, Length, Loss,
    LrScheduleForm, ModelKind, Norm, ScheduleStep, Toy, TrialConfig, VggDepth, VisitOrder,
};
use ergodic_common::dataset::name::DatasetName;
use ergodic_common::ids::{FileHash, TrialIdentity, WeightsDigest};
use ergodic_common::metric::Metric;
use ergodic_common::net::Net;
use ergodic_common::random_streams::{Purpose, Streams};
use ergodic_common::spec::saved_moments::SavedMoments;
use ergodic_common::spec::{EvalStatistics, Measure, Moment, Probe};
use ergodic_common::trial::{Outcome, TrialKey, TrialResult};
use ergodic_common::weights::Weights;

use super::cases;
use crate::train::network::params::ParamLayout;
use crate::train::network::plan;
use crate::train::network::shape::HaloGrid;
use crate::train::{CheckpointStore, Deadline, Isa, Job, TrialData, run_trial};

/// The index from which [`short_trials`] are of deep networks, which are slow without vectors.
const DEEP: usize = 7;

/// Architectures × norms, with everything else that can change bits spread over them.
pub(super) fn short_trials() -> Vec<(&'static str, TrialConfig)> {
    let mlp = |norm| {
        cases::small_trial(
            ModelKind::Mlp {
                hidden: vec![24, 17],
            },
            norm,
        )
    };

    let cnn4 = |norm| cases::small_trial(ModelKind::Cnn4 { width: 4 }, norm);
    let preresnet = |norm| cases::small_trial(ModelKind::Preresnet { depth: 8, widen: 1 }, norm);
    let vgg = |norm| {
        cases::small_trial(
            ModelKind::Vgg {
                depth: VggDepth::Eleven,
                width: 4,
            },
            norm,
        )
    };

    let group = |groups| Norm::Group { groups };
    let ghost = Norm::GhostBatch { size: 3 };
    let mut all = vec![
        ("mlp none", mlp(Norm::None)),
        ("mlp batch", mlp(Norm::Batch)),
        ("cnn4 none", cnn4(Norm::None)),
        ("cnn4 batch", cnn4(Norm::Batch)),
        ("mlp layer", mlp(Norm::Layer)),
        ("cnn4 group", cnn4(group(2))),
        ("cnn4 layer", cnn4(Norm::Layer)),
        ("preresnet none", preresnet(Norm::None)),
        ("preresnet batch", preresnet(Norm::Batch)),
        ("preresnet group", preresnet(group(8))),
        ("preresnet layer", preresnet(Norm::Layer)),
        ("vgg none", vgg(Norm::None)),
        ("vgg batch", vgg(Norm::Batch)),
        ("vgg group", vgg(group(4))),
        ("vgg layer", vgg(Norm::Layer)),
        ("mlp ghost", mlp(ghost)),
        ("cnn4 ghost", cnn4(ghost)),
        ("preresnet ghost", preresnet(ghost)),
        ("vgg ghost", vgg(ghost)),
        ("mlp added noise", mlp(Norm::Batch)),
    ];
    let listed = cases::LISTED.map(|(name, layers)| {
        let colour = name.starts_with("gelu") || name.starts_with("silu");
        let images = if colour {
            DatasetName::Cifar10
        } else {
            DatasetName::Mnist
        };
        (name, cases::listed_trial(images, layers))
    });
    let first_listed = all.len();
    for (at, (name, config)) in all.iter_mut().enumerate() {
        let colour = at == 2 || name.starts_with("vgg");
        config.data.dataset = if colour {
            DatasetName::Cifar10
        } else {
            DatasetName::Mnist
        };

        if at >= DEEP {
            (
                config.train.length,
                config.train.batch_size,
                config.data.test,
            ) = (Length::Steps(3), 9, 8);
        }
    }

    all[5].1.model.affine = true;
    all[8].1.model.affine = true;
    all[16].1.model.affine = true;
    all[17].1.train.nesterov = true;
    all[19].1.data.order = VisitOrder::FullBatch;
    all[19].1.train.added_noise = Some(AddedNoise {
        images: 8,
        pairs: 2,
    });
    all[6].1.train.adam = Some(Adam {
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        decay: AdamDecay::Decoupled,
    });

    all[6].1.train.curve = Some(Curve {
        form: LrScheduleForm::Cosine {
            end: HyperparamChange::Set(0.0),
        },
        warmup: Length::Steps(2),
    });

    all[0].1.data.order = VisitOrder::WithReplacement;
    all[1].1.model.affine = true;
    all[1].1.train.nesterov = true;
    all[2].1.train.loss = Loss::CrossEntropy { smoothing: 0.1 };
    all[3].1.model.fixed_head = true;

    all.extend(listed);
    all[first_listed + 4].1.train.adam = all[6].1.train.adam;
    all.extend(trials_on_targets());
    all
}

/// A perceptron with a single target, and convolutions with three.
fn trials_on_targets() -> [(&'static str, TrialConfig); 2] {
    let mut mlp = cases::small_trial(
        ModelKind::Mlp {
            hidden: vec![24, 17],
        },
        Norm::None,
    );
    mlp.data.dataset = DatasetName::Mnist;
    let layers = "activation = \"gelu\"\nlayers = [{ conv = 6, stride = 2 }, { conv = 6, add = \"conv2.in\" }, { pool = \"max2\" }, \
                  { linear = \"classes\", bias = true }]";
    let listed = cases::listed_trial(DatasetName::Cifar10, layers);
    [
        ("mlp target", cases::on_targets(mlp, 1)),
        ("layers targets", cases::on_targets(listed, 3)),
    ]
}

/// Everything in a result but the time it took, bit for bit.
pub(super) fn bits(result: &TrialResult) -> (String, WeightsDigest, Vec<u64>, String) {
    let values = result
        .metrics
        .iter()
        .chain(&result.curve.values)
        .map(|x| x.to_bits())
        .collect();

    let saved = format!("{:?} {:?}", result.predictions, result.weights_hash);
    (
        format!("{:?} {:?}", result.outcome, result.curve.steps),
        result.digest,
        values,
        saved,
    )
}

/// A hash of everything in a result but the time it took.
pub(super) fn fingerprint(result: &TrialResult) -> String {
    let (how, digest, values, _) = bits(result);
    let mut hasher = blake3::Hasher::new();
    hasher.update(how.as_bytes()).update(&digest.0);
    values
        .iter()
        .for_each(|x| _ = hasher.update(&x.to_le_bytes()));
    hasher.finalize().to_hex().to_string()
}

/// What the fingerprints cover; a metric added later is not among them.
pub(super) const FINGERPRINTED: [Metric; 10] = [
    Metric::TrainLoss,
    Metric::TrainAcc,
    Metric::TestLoss,
    Metric::TestAcc,
    Metric::WeightNorm,
    Metric::WeightNormSq,
    Metric::EffectiveLr,
    Metric::GradNorm,
    Metric::UpdateNorm,
    Metric::AngularUpdate,
];

/// Fingerprints of [`short_trials`]. They change only together with the numerics version `cpu-f32/6`.
pub(super) const GOLDEN: [&str; 28] = [
    "31050562dd0f2fba949206be9cc65d9a6093f5fa5b07d68e4e6a1ee049a66ec0",
    "966c51cb0881b717683e0b674db875116ae64a78c7e3cfa0710ffadfd626696f",
    "5013f1fc17739500d93df42e7f1004a8c537d057eb440f5c918da6907a01f999",
    "7caf39ab4d4673d4a49d17cdfd583670f4acde170754c7e9bf362e834e4387ba",
    "2946616bbea6834b12d9c0b06b6fcec75bbe9f7a1eac9494b9edc93702f34296",
    "8906d56fec79609c1310e1642c56d79914b5ad5086aa7c61cd07eff8d7fea264",
    "7cd8ebe6f720a682c2539d370f2c4ff4ada7c526318a89f43b5e8b1f5a5c31bb",
    "e80ad62ab2f3dacf9f6804c9fa128cdb50c31181ab60592eb2120706b1c24bf7",
    "847f15bdc26f816e05a19e3dc1f635672d51e031728af8b425408eaaa564d1ac",
    "353eab8f2aeb57add3d0f55780b06c1c4fd759bc4049d884f3720fa0f48b7fb7",
    "9a437e4c5deddc084aa5e3e372da6af351547f5886f5701eb45efd7ce687fe36",
    "945c277a271f9f065f3767300e53a891d7eb2a2a10758ccd1ab28ea8aa65dbaa",
    "1010c67465cf66e95d012592d22196bbab0a9df2bb87329e8f138a0fa49aea05",
    "1c7056464e47e563fc051c5eda10de29b5ad0912513a77ec71328a6450c95fe8",
    "9f8c73a7f5b02722f135ef1cd4ab12d3a64784147a781eb02d806aafb726d87b",
    "ed29a0e8c877f0816a9cfb3af4462ef1a1b28be053db4b03b5a2246a1e07b0f8",
    "3af98449065ee3d8988bc82611688a4e2acf87e6310fe3a5cb0e5b2794c53601",
    "737181add161005cd773c298abc0bc1a492ecb6709450d79a3b25cfe7dcca622",
    "ade035177ef2ef444b075de56961a9c17bdf6c9028f7888aff2f1c869d7ef427",
    "3b36a6a94b7b5ac03b47bf418d5b565fd801cf31510f5a2f7e2de7f4cac9ae78",
    "78813fb419ffbb4447b17bcebce80e4f8458410fd77e949a4de496c2d4c105fc",
    "f4afb35005d642fbb996ce83c53480a10236de91c58210624ea2614584107b91",
    "0a5861a8a385b23572d7c938066426afed033bd787ab344059e00971fcfa18b2",
    "eab049f5e794ce084be761940efa5497285c91cef47807b22a19bedcdba4613c",
    "3d22a659d9e11f47383ec30ffbec3c258fe5fa3fc0735acd86f56d7912a0860a",
    "d82cb1962750a80b4b4ed8876cd76a7570f2e166cee0da45cddf06b05a00febe",
    "b556d0e10abdc3095db5aad56b6d9b263f0f86ecd79afc0f583374b9095d5f70",
    "b7f1667683583e4c98b3d494d7fb5102be3680fcdb8ed1a774fb427f2666f272",
];

#[test]
fn short_trials_end_in_the_committed_bits() {
    let measure = Measure::with_metrics(Length::Steps(2), FINGERPRINTED.to_vec());
    let mut found = Vec::new();
    for (name, config) in short_trials() {
        let result = cases::result(&config, &measure, Isa::detect_fastest());
        assert_eq!(result.outcome, Outcome::Completed, "{name}");
        found.push(fingerprint(&result));
    }
    assert_eq!(found, GOLDEN);
}

#[test]
fn networks_that_are_written_as_layers_end_in_the_bits_of_their_kinds() {
    let mut preresnet = "{ name = \"stem\", conv = 16 },\n".to_owned();
    let (mut stream, mut read) = ("stem.sum".to_owned(), "stem".to_owned());
    for block in 1..=9 {
        let width = [16, 32, 64][(block - 1) / 3];
        let stride = if block == 4 || block == 7 { 2 } else { 1 };
        preresnet += &format!(
            "{{ name = \"block{block}.conv1\", conv = {width}, stride = {stride}, from = \"{read}.out\" }},\n"
        );
        if stride == 2 {
            preresnet += &format!(
                "{{ name = \"block{block}.shortcut\", conv = {width}, kernel = 1, stride = 2, from = \"block{block}.conv1.in\" }},\n"
            );
            stream = format!("block{block}.shortcut.sum");
        }
        preresnet += &format!(
            "{{ name = \"block{block}.conv2\", conv = {width}, from = \"block{block}.conv1.out\", add = \"{stream}\" }},\n"
        );
        read = format!("block{block}.conv2");
        stream = format!("{read}.sum");
    }
    preresnet += "{ pool = \"global-avg\" },\n{ linear = \"classes\", bias = false }";

    let cnn4 = "{ conv = 4 }, { conv = 8, stride = 2 }, { conv = 16, stride = 2 }, { conv = 16, stride = 2 }, \
                { linear = \"classes\", bias = false }";
    let mlp = "{ linear = 24 }, { linear = 17 }, { linear = \"classes\" }";
    let vgg = "{ conv = 4 }, { pool = \"max2\" }, { conv = 8 }, { pool = \"max2\" }, { conv = 16 }, { conv = 16 }, \
               { pool = \"max2\" }, { conv = 32 }, { conv = 32 }, { pool = \"max2\" }, { conv = 32 }, { conv = 32 }, \
               { pool = \"max2\" }, { linear = \"classes\", bias = false }";
    for (kind, layers, more) in [
        ("kind = \"cnn4\"\nwidth = 4", cnn4, "affine = true"),
        ("kind = \"mlp\"\nhidden = [24, 17]", mlp, "norm = \"none\""),
        ("kind = \"preresnet\"", &preresnet, ""),
        ("kind = \"vgg\"\nwidth = 4", vgg, "norm = \"layer\""),
    ] {
        let measure = Measure::with_metrics(Length::Steps(1), FINGERPRINTED.to_vec());
        let listed = format!("kind = \"layers\"\nlayers = [{layers}]");
        let [known, written] = [kind, &listed].map(|model| {
            let mut config =
                cases::described_trial(DatasetName::Cifar10, &format!("{model}\n{more}"));
            (
                config.train.length,
                config.train.batch_size,
                config.data.test,
            ) = (Length::Steps(3), 9, 8);
            bits(&cases::result(&config, &measure, Isa::detect_fastest()))
        });
        assert!(known == written, "{kind}");
    }
}

#[test]
fn results_depend_on_neither_the_instruction_set_nor_the_run() {
    let measure = cases::metrics_without_gradient_passes();
    for (name, config) in short_trials() {
        let expected = bits(&cases::result(&config, &measure, Isa::Portable));
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            assert!(
                bits(&cases::result(&config, &measure, isa)) == expected,
                "{name} on {isa}"
            );
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let measure = cases::metrics_without_gradient_passes();
    let mut trials = short_trials();

    // Batches of several parts: 300 images in layers of single pixels, 40 in convolutions.
    for (at, batch) in [
        (1, 300),
        (4, 300),
        (3, 40),
        (5, 40),
        (15, 300),
        (16, 40),
        (20, 300),
        (21, 40),
        (23, 40),
        (25, 40),
    ] {
        let (name, mut config) = trials[at].clone();
        if let Norm::GhostBatch { size } = &mut config.model.norm {
            *size = batch / 2;
        }
        (
            config.data.dataset,
            config.data.train,
            config.train.batch_size,
        ) = (DatasetName::Glyphs, 700, batch);

        trials.push((name, config));
    }
    for (name, mut config) in trials_on_targets() {
        config.train.batch_size = 80;
        trials.push((name, config));
    }

    let expected: Vec<_> = trials
        .iter()
        .map(|(_, c)| bits(&cases::result(c, &measure, Isa::detect_fastest())))
        .collect();

    for threads in [1, 2, 4] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("threads can be had");

        for ((name, config), expected) in trials.iter().zip(&expected) {
            let result = cases::result_on(config, &measure, Isa::detect_fastest(), Some(&pool));
            assert!(bits(&result) == *expected, "{name} on {threads} threads");
        }
    }
}

/// A store that wants a checkpoint after certain steps.
#[derive(Default)]
pub(super) struct MemoryCheckpoints {
    save_at_step: u64,
    checkpoints: Mutex<HashMap<TrialIdentity, Vec<u8>>>,
    pub(super) loads: AtomicU64,
    /// What is handed out besides.
    foreign: Vec<Vec<u8>>,
}

impl MemoryCheckpoints {
    /// A store that wants a checkpoint after so many steps.
    pub(super) fn saving_at(step: u64) -> Self {
        Self {
            save_at_step: step,
            ..Self::default()
        }
    }
}

impl CheckpointStore for MemoryCheckpoints {
    fn load_checkpoints(&self, identity: TrialIdentity) -> Vec<Vec<u8>> {
        let found = self
            .checkpoints
            .lock()
            .expect("the lock is not poisoned")
            .get(&identity)
            .cloned();
        self.loads
            .fetch_add(u64::from(found.is_some()), Ordering::Relaxed);

        found.into_iter().chain(self.foreign.clone()).collect()
    }
    fn should_save(&self, steps: u64) -> bool {
        steps == self.save_at_step
    }
    fn save_checkpoint(&self, identity: TrialIdentity, _: u64, checkpoint: Vec<u8>) {
        self.checkpoints
            .lock()
            .expect("the lock is not poisoned")
            .insert(identity, checkpoint);
    }
    fn should_stop_at_once(&self) -> bool {
        false
    }
    fn discard_checkpoints(&self, _: TrialIdentity) {}
}

/// Every trial is kept on its way, and then goes on from there: in the middle of an epoch, of a sample's period, of an
/// average.
#[test]
fn a_trial_that_goes_on_from_a_checkpoint_ends_in_the_same_bits() {
    let measure = cases::metrics_without_gradient_passes();
    for (at, (name, mut config)) in short_trials().into_iter().enumerate() {
        let decay = (at % 2 == 0).then_some(0.9);
        config.train.average = Some(Average {
            decay,
            from: Length::Steps(1),
            every: Length::Steps(1),
        });

        config.data.augment = if at % 3 == 0 {
            Augment::CropFlip
        } else {
            Augment::None
        };
        let expected = bits(&cases::result(&config, &measure, Isa::detect_fastest()));

        for wanted in 1..config.total_steps() {
            let store = MemoryCheckpoints {
                save_at_step: wanted,
                ..MemoryCheckpoints::default()
            };

            for taken in 0..2 {
                let result = cases::result_with(
                    &config,
                    &measure,
                    Isa::detect_fastest(),
                    None,
                    Some(&store),
                );
                assert!(bits(&result) == expected, "{name} from step {wanted}");

                assert_eq!(store.loads.load(Ordering::Relaxed), taken);
            }

            let mut other = config.clone();
            other.train.wd *= 2.0;
            cases::result_with(&other, &measure, Isa::detect_fastest(), None, Some(&store));
            assert_eq!(
                store.loads.load(Ordering::Relaxed),
                1,
                "another trial's checkpoint is of no use"
            );
        }
    }
}

/// A checkpoint is used only by the trial that saved it, and only if it is undamaged.
#[test]
fn what_does_not_fit_a_trial_is_passed_over() {
    let measure = cases::metrics_without_gradient_passes();
    let (_, config) = short_trials().remove(1);
    let expected = bits(&cases::result(&config, &measure, Isa::detect_fastest()));
    let kept_of = |config: &TrialConfig, wanted| {
        let store = MemoryCheckpoints {
            save_at_step: wanted,
            ..MemoryCheckpoints::default()
        };
        cases::result_with(config, &measure, Isa::detect_fastest(), None, Some(&store));
        let saved = store
            .checkpoints
            .into_inner()
            .expect("the lock is not poisoned");
        saved.into_values().next().expect("a checkpoint was saved")
    };

    let mut other = config.clone();
    other.train.wd *= 2.0;
    let whole = kept_of(&config, 1);
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    let foreign = vec![
        kept_of(&other, 2),
        damaged,
        whole[..whole.len() - 1].to_vec(),
        Vec::new(),
    ];
    let store = MemoryCheckpoints {
        save_at_step: u64::MAX,
        foreign,
        ..MemoryCheckpoints::default()
    };
    let result = cases::result_with(&config, &measure, Isa::detect_fastest(), None, Some(&store));

    assert!(bits(&result) == expected);
}

#[test]
fn unknown_and_missing_instruction_sets_are_refused() {
    assert_eq!(Isa::from_name("auto"), Ok(Isa::detect_fastest()));
    assert_eq!(Isa::from_name("portable"), Ok(Isa::Portable));
    assert!(
        Isa::from_name("mmx")
            .expect_err("the name is unknown")
            .to_string()
            .contains("portable")
    );

    for isa in Isa::ALL {
        assert_eq!(Isa::from_name(isa.name()).is_ok(), isa.is_available());
    }
}

#[test]
fn networks_learn() {
    let measure =
        Measure::with_metrics(Length::Epochs(1), vec![Metric::TrainLoss, Metric::TestAcc]);
    let linear = cases::small_trial(ModelKind::Mlp { hidden: vec![] }, Norm::None);
    for (mut config, lr, epochs, least) in [
        (linear, 0.005, 5, 0.5),
        (
            cases::small_trial(ModelKind::Mlp { hidden: vec![64] }, Norm::None),
            0.02,
            5,
            0.6,
        ),
        (
            cases::small_trial(ModelKind::Cnn4 { width: 8 }, Norm::Batch),
            0.1,
            3,
            0.8,
        ),
    ] {
        (config.data.train, config.data.test, config.train.batch_size) = (2_000, 500, 50);
        (config.train.lr, config.train.length) = (lr, Length::Epochs(epochs));
        let result = cases::result(&config, &measure, Isa::detect_fastest());
        assert_eq!(result.outcome, Outcome::Completed);
        assert!(
            result.metrics[1] > least,
            "{:?} reached {}",
            config.model.kind,
            result.metrics[1]
        );

        let losses: Vec<f64> = result.curve.values.iter().step_by(2).copied().collect();
        assert!(losses.last() < losses.first(), "{losses:?}");
    }
}

#[test]
fn divergence_is_seen_in_its_step_and_leaves_no_number() {
    for norm in [Norm::None, Norm::Batch] {
        for kind in [
            ModelKind::Mlp { hidden: vec![24] },
            ModelKind::Cnn4 { width: 4 },
        ] {
            let mut config = cases::small_trial(kind, norm);
            config.train.lr = if norm == Norm::None { 1e6 } else { 1e38 };
            config.train.length = Length::Steps(50);
            let measure = cases::metrics_without_gradient_passes();
            let result = cases::result(&config, &measure, Isa::detect_fastest());
            let Outcome::Diverged { step } = result.outcome else {
                panic!("{config:?} did not diverge: {result:?}")
            };
            assert!(step <= 20 && result.steps == step, "diverged at {step}");

            assert!(result.metrics.iter().all(|m| m.is_nan()));
            assert!(result.curve.steps.iter().all(|s| *s < step));
            assert_eq!(
                result.curve.values.len(),
                result.curve.steps.len() * measure.metrics.len()
            );
        }
    }
}

#[test]
fn a_raised_stop_ends_a_trial_without_result() {
    let config = cases::mlp();
    let streams = cases::streams(0);
    let measure = cases::metrics_without_gradient_passes();
    let data = TrialData::new(cases::dataset(), &config.data, &streams).expect("enough images");
    let key = TrialKey::new(1, 2);
    let isa = Isa::detect_fastest();
    let job = Job {
        config: &config,
        streams: &streams,
        measure: &measure,
        data: Some(&data),
        initial_weights: None,
        key,
        isa,
        candle_device: None,
        thread_pool: None,
        checkpoint_store: None,
        deadline: None,
    };
    assert!(run_trial(&job, &AtomicBool::new(true)).is_none());

    assert_eq!(
        run_trial(&job, &AtomicBool::new(false)).map(|r| r.result.key),
        Some(key)
    );

    let late = Job {
        deadline: Some(Deadline::from_now(Duration::ZERO)),
        ..job
    };
    assert!(
        run_trial(&late, &AtomicBool::new(true)).is_none(),
        "a stopped trial has no result"
    );

    let result = run_trial(&late, &AtomicBool::new(false))
        .expect("a late trial fails")
        .result;
    let cause = format!(
        "it exceeded its time limit of 0ms after 0 of {} steps",
        config.total_steps()
    );
    assert_eq!(
        (result.outcome, result.steps),
        (Outcome::Failed { cause }, 0)
    );
}

#[test]
fn an_empty_trial_is_made_up_from_its_streams() {
    let mut config = cases::small_trial(ModelKind::Empty, Norm::None);
    config.train.length = Length::Steps(20);
    let measure = Measure::with_metrics(Length::Steps(3), vec![Metric::TrainLoss, Metric::TestAcc]);
    let result = |repeat| {
        let streams = cases::streams(repeat);
        let key = TrialKey::new(0, repeat);
        let isa = Isa::detect_fastest();
        let job = Job {
            config: &config,
            streams: &streams,
            measure: &measure,
            data: None,
            initial_weights: None,
            key,
            isa,
            candle_device: None,
            thread_pool: None,
            checkpoint_store: None,
            deadline: None,
        };

        run_trial(&job, &AtomicBool::new(false))
            .expect("the trial is not stopped")
            .result
    };
    let a = result(0);

    let b = result(1);
    assert_eq!(a.curve.steps, [3, 6, 9, 12, 15, 18, 20]);
    assert_eq!(a.curve.values.len(), 14);
    assert_eq!(a.metrics, a.curve.values[12..]);
    assert!(a.curve.values.iter().all(|x| (0.0..1.0).contains(x)));
    assert_eq!((bits(&a), a.steps), (bits(&result(0)), 20));

    assert_ne!(a.digest, b.digest);
}

/// A curve as one vector per metric, in bits and as numbers, and what it belongs to.
type Trajectory = (Vec<Vec<u64>>, Vec<Vec<f64>>, TrialResult);

/// Every step of a trial.
fn curve(config: &TrialConfig) -> Trajectory {
    let measure = Measure::with_metrics(
        Length::Steps(1),
        cases::metrics_without_gradient_passes().metrics,
    );
    let result = cases::result(config, &measure, Isa::detect_fastest());
    let width = measure.metrics.len();
    let column = |m: usize| {
        result
            .curve
            .values
            .iter()
            .skip(m)
            .step_by(width)
            .copied()
            .collect::<Vec<f64>>()
    };
    let columns: Vec<Vec<f64>> = (0..width).map(column).collect();

    (
        columns
            .iter()
            .map(|c| c.iter().map(|x| x.to_bits()).collect())
            .collect(),
        columns,
        result,
    )
}

fn column(metric: Metric) -> usize {
    Metric::NAMES
        .iter()
        .position(|(_, m)| *m == metric)
        .expect("every metric has a name")
}

/// (w₀, η, λ) → (c·w₀, c²·η, λ/c²)
fn rescaled(config: &TrialConfig, c: f64) -> TrialConfig {
    let mut config = config.clone();
    config.model.init_scale *= c;
    config.train.lr *= c * c;
    config.train.wd /= c * c;
    config
}

/// Whether rescaling by `c` leaves the trajectory of the function and of effective quantities as it is, bit for bit,
/// given the trajectory without.
fn invariant(config: &TrialConfig, unscaled: &Trajectory, c: f64) -> bool {
    let (a, plain, first) = unscaled;
    let (b, scaled, second) = &curve(&rescaled(config, c));
    assert_eq!(
        (&first.outcome, &second.outcome),
        (&Outcome::Completed, &Outcome::Completed)
    );

    let same = [
        Metric::TrainLoss,
        Metric::TrainAcc,
        Metric::TestLoss,
        Metric::TestAcc,
        Metric::EffectiveLr,
    ];

    let norms = plain[column(Metric::WeightNormSq)]
        .iter()
        .zip(&scaled[column(Metric::WeightNormSq)]);
    norms.fold(true, |all, (x, y)| {
        all && (c * c * x).to_bits() == y.to_bits()
    }) && same.into_iter().map(column).all(|m| a[m] == b[m])
}

/// A loss that does not depend on the scale of w has a gradient at right angles to it: 0 to rounding without ε, for every
/// architecture × norm, shortcuts included.
#[test]
fn gradients_are_at_right_angles_to_weights_without_scale() {
    let has_normed_weights = |config: &TrialConfig| {
        let net = Net::from_config(config).expect("a network");
        net.params().iter().any(|param| param.normed)
    };
    for (name, mut config) in short_trials()
        .into_iter()
        .filter(|(_, c)| has_normed_weights(c))
    {
        (config.model.fixed_head, config.model.affine) = (true, false);
        (config.data.train, config.train.batch_size) = (100, 18);
        let measure = Measure::with_metrics(Length::Steps(1), vec![Metric::GradWeightCos]);
        let mut largest = |eps: f64| {
            config.model.norm_eps = eps;
            let values = cases::result(&config, &measure, Isa::detect_fastest())
                .curve
                .values;
            values.into_iter().map(f64::abs).fold(0.0, f64::max)
        };
        let without = largest(0.0);

        let with = largest(0.1);
        assert!(
            without < 3e-6 && with > 10.0 * without,
            "{name}: {without:e}, under ε = 0.1 {with:e}"
        );
    }
}

#[test]
fn rescaling_by_a_power_of_two_changes_no_bit_without_epsilon() {
    let cases = [
        (
            ModelKind::Mlp {
                hidden: vec![24, 17],
            },
            Norm::Batch,
        ),
        (ModelKind::Cnn4 { width: 4 }, Norm::Batch),
        (ModelKind::Cnn4 { width: 4 }, Norm::Group { groups: 2 }),
        (ModelKind::Preresnet { depth: 8, widen: 1 }, Norm::Batch),
        (ModelKind::Preresnet { depth: 8, widen: 1 }, Norm::Layer),
        (
            ModelKind::Vgg {
                depth: VggDepth::Eleven,
                width: 4,
            },
            Norm::Batch,
        ),
    ];

    // Sums, layers without a map and leaky ReLUs scale exactly, too.
    let listed = "activation = \"leaky-relu\"\nlayers = [{ conv = 4, stride = 3 }, { conv = 4, add = \"conv1.sum\" }, \
                  { pool = \"avg2\" }, { pool = \"max2\" }, { conv = 6, kernel = 1 }, { linear = \"classes\", bias = false }]";
    let listed = cases::listed_trial(DatasetName::Glyphs, listed);
    let configs = cases.map(|(kind, norm)| cases::small_trial(kind, norm));

    for config in configs.into_iter().chain([listed]) {
        let kind = config.model.kind.clone();
        for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
            let mut config = config.clone();
            if matches!(kind, ModelKind::Vgg { .. }) {
                config.data.dataset = DatasetName::Cifar10;
            }

            (config.model.norm_eps, config.model.fixed_head) = (0.0, true);
            (
                config.train.momentum,
                config.train.nesterov,
                config.train.wd,
            ) = (momentum, nesterov, 0.01);

            // Few images, so that the loss falls far in few steps.
            (config.data.train, config.train.length) = (16, Length::Steps(24));
            config.train.lr = if momentum == 0.0 { 0.1 } else { 0.02 };
            let unscaled = curve(&config);
            let losses = &unscaled.1[column(Metric::TrainLoss)];
            assert!(
                (losses[23] / losses[0] - 1.0).abs() > 0.2,
                "{kind:?} {momentum} has not moved: {losses:?}"
            );

            assert!(
                invariant(&config, &unscaled, 2.0),
                "{kind:?} {momentum} {nesterov}"
            );
            assert!(
                invariant(&config, &unscaled, 0.25),
                "{kind:?} {momentum} {nesterov}"
            );

            assert!(
                !invariant(&config, &unscaled, 3.0),
                "3 is no power of two, so that roundings differ"
            );
            config.model.norm_eps = 1e-5;

            assert!(!invariant(&config, &curve(&config), 2.0), "ε sets a scale");
        }
    }
}

/// η and λ of single steps, under entries and on a curve, for SGD, AdamW and the toy loss.
#[test]
fn step_lr_and_step_wd_are_those_of_the_step_that_a_sample_follows() {
    let toy = Toy {
        dim: 3,
        noise: 0.1,
        start: None,
    };
    let kinds = [ModelKind::Mlp { hidden: vec![24] }, ModelKind::Toy(toy)];
    let metrics = vec![Metric::StepLr, Metric::StepWd];
    let measure = Measure::with_metrics(Length::Steps(1), metrics);
    for (kind, adamw) in kinds
        .into_iter()
        .flat_map(|k| [(k.clone(), false), (k, true)])
    {
        let mut config = cases::small_trial(kind, Norm::None);
        config.train.adam = adamw.then_some(Adam {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            decay: AdamDecay::Decoupled,
        });
        (config.train.lr, config.train.wd) = (0.05, 0.5);
        config.train.schedule = vec![ScheduleStep {
            from: Length::Steps(2),
            lr: Some(HyperparamChange::Times(0.5)),
            wd: Some(HyperparamChange::Set(0.25)),
            momentum: None,
        }];

        let values = cases::result(&config, &measure, Isa::detect_fastest())
            .curve
            .values;
        let expected = [[0.05, 0.5]; 2].into_iter().chain([[0.025, 0.25]; 3]);
        assert_eq!(values, expected.flatten().collect::<Vec<f64>>());

        config.train.schedule.clear();
        config.train.curve = Some(Curve {
            form: LrScheduleForm::Linear {
                end: HyperparamChange::Set(0.0),
            },
            warmup: Length::Steps(1),
        });
        let values = cases::result(&config, &measure, Isa::detect_fastest())
            .curve
            .values;
        for (row, share) in values.chunks(2).zip([1.0, 1.0, 0.75, 0.5, 0.25]) {
            assert!((row[0] - 0.05 * share).abs() < 1e-15, "{values:?}");
            assert_eq!(row[1], 0.5);
        }
    }
}

/// Predicts every metric of a linear model from the definitions, by plain arithmetic in f64.
#[test]
fn metrics_are_what_they_are_defined_to_be() {
    let mut config = cases::small_trial(ModelKind::Mlp { hidden: vec![] }, Norm::None);
    (config.data.order, config.train.batch_size, config.data.test) =
        (VisitOrder::Sequential, 20, 30);
    (
        config.train.momentum,
        config.train.wd,
        config.train.lr,
        config.train.length,
    ) = (0.5, 0.1, 0.01, Length::Steps(6));

    config.train.average = Some(Average {
        decay: None,
        from: Length::Steps(0),
        every: Length::Steps(1),
    });
    (config.train.loss, config.data.validation) = (Loss::CrossEntropy { smoothing: 0.2 }, 40);

    let measure = cases::metrics_without_gradient_passes();
    let result = cases::result(&config, &measure, Isa::detect_fastest());
    let expected = super::linear::trial(&config, &cases::streams(0), 2);
    assert_eq!(result.curve.steps, [2, 4, 6]);

    for (row, expected) in result
        .curve
        .values
        .chunks(measure.metrics.len())
        .zip(&expected)
    {
        for ((value, expected), metric) in row.iter().zip(expected).zip(&measure.metrics) {
            let close = (value - expected).abs() <= 2e-5 * expected.abs()
                || (value.is_nan() && expected.is_nan());
            assert!(close, "{}: {value} against {expected}", metric.name());
        }
    }
}

#[test]
fn noise_and_curvature_of_a_linear_model_are_those_of_its_quadratic_loss() {
    let mut config = cases::small_trial(ModelKind::Mlp { hidden: vec![] }, Norm::None);
    (config.data.order, config.train.loss, config.train.lr) =
        (VisitOrder::Sequential, Loss::Mse, 0.0);
    config.train.length = Length::Steps(1);
    let (trace, top) = super::linear::noise_and_curvature(&config, &cases::streams(0));
    let metrics = vec![
        Metric::HessianTop,
        Metric::GradNoiseTrace,
        Metric::GradNoiseHill,
        Metric::GradNoiseCos,
        Metric::GradNoiseDim,
    ];
    let measure = Measure::with_metrics(Length::Steps(1), metrics);
    let result = cases::result(&config, &measure, Isa::detect_fastest());
    assert!(
        (result.metrics[0] / top - 1.0).abs() < 1e-3,
        "{} {top}",
        result.metrics[0]
    );

    assert!(
        (result.metrics[1] / trace - 1.0).abs() < 0.2,
        "{} {trace}",
        result.metrics[1]
    );
    assert!(result.metrics[2] > 1.0);

    assert!(bits(&result) == bits(&cases::result(&config, &measure, Isa::Portable)));
}

/// A metric that the sampler forgets would be NaN in every trial.
#[test]
fn every_metric_is_defined_for_some_trial() {
    let mut normed = cases::small_trial(ModelKind::Mlp { hidden: vec![24] }, Norm::Batch);
    normed.data.validation = 40;
    normed.train.average = Some(cases::every_step());
    let mut linear = cases::small_trial(ModelKind::Mlp { hidden: vec![] }, Norm::None);
    linear.train.loss = Loss::Mse;

    let all: Vec<Metric> = Metric::NAMES.map(|(_, metric)| metric).to_vec();
    let measure = Measure::with_metrics(Length::Steps(5), all);
    let mut results = [&normed, &linear]
        .map(|config| cases::result(config, &measure, Isa::detect_fastest()).metrics)
        .to_vec();
    let parts = [1, 2].map(|steps| super::starts::train_part(&normed, steps));
    let started = cases::finished_from_parts(&normed, &measure, &parts, None);
    results.push(started.result.metrics);

    for (at, (name, _)) in Metric::NAMES.iter().enumerate() {
        let is_defined = results.iter().any(|metrics| metrics[at].is_finite());
        assert!(is_defined, "{name} has no value in any trial");
    }

    // What one metric needs is there without the others, too.
    for (at, (name, metric)) in Metric::NAMES.iter().enumerate() {
        let measure = Measure::with_metrics(Length::Steps(5), vec![metric.clone()]);
        let alone = cases::result(&normed, &measure, Isa::detect_fastest()).metrics;
        assert_eq!(alone[0].to_bits(), results[0][at].to_bits(), "{name}");
    }
}

/// With the full gradient, a step's squared gradient norm grows by the trace of the covariance of a batch's gradient, however many
/// pairs make the noise. The trace is that of the linear model, by its formula.
#[test]
fn added_noise_has_the_size_of_a_batchs_noise() {
    let mut config = cases::small_trial(ModelKind::Mlp { hidden: vec![] }, Norm::None);
    (config.data.order, config.train.loss, config.train.lr) =
        (VisitOrder::FullBatch, Loss::Mse, 0.0);
    config.train.length = Length::Steps(400);
    let measure = Measure::with_metrics(Length::Steps(1), vec![Metric::GradNorm]);
    let squares = |config: &TrialConfig| -> Vec<f64> {
        let values = cases::result(config, &measure, Isa::detect_fastest())
            .curve
            .values;
        values.iter().map(|norm| norm * norm).collect()
    };
    let full = squares(&config)[0];
    let (trace, _) = super::linear::noise_and_curvature(&config, &cases::streams(0));

    for (images, pairs) in [(4, 4), (16, 4), (16, 1)] {
        config.train.added_noise = Some(AddedNoise { images, pairs });
        let found = squares(&config);
        let found = found.iter().sum::<f64>() / found.len() as f64 - full;
        let expected = trace / f64::from(images);
        // Over 400 steps, a pair's weight alone scatters the mean by 7 %.
        assert!(
            (found / expected - 1.0).abs() < 0.25,
            "{images} images, {pairs} pairs: {found} {expected}"
        );
    }
}

/// Noise is of differences: where all images are the same, there is none, and no bit changes.
#[test]
fn added_noise_of_equal_images_is_nothing() {
    let mut config = cases::small_trial(ModelKind::Mlp { hidden: vec![24] }, Norm::Layer);
    (config.data.order, config.train.length) = (VisitOrder::FullBatch, Length::Steps(3));
    let mut dataset = (*cases::dataset()).clone();
    let image: Vec<u8> = (0..784_u32).map(|i| (i * i % 251) as u8).collect();
    dataset.train.pixels = image.repeat(dataset.train.len());
    dataset.train.labels.fill(3);
    let dataset = std::sync::Arc::new(dataset);
    let measure = Measure::with_metrics(Length::Steps(1), vec![Metric::GradNorm]);
    let mut digest = |noise| {
        config.train.added_noise = noise;
        let on = (dataset.clone(), Isa::detect_fastest());
        cases::result_with_data(&config, &measure, on, None).digest
    };
    let noise = AddedNoise {
        images: 4,
        pairs: 3,
    };
    assert_eq!(digest(Some(noise)), digest(None));
}

/// Running statistics follow the step's batch alone, and the noise of a step is not that of another.
#[test]
fn added_noise_leaves_running_statistics_and_differs_from_step_to_step() {
    let mut config = cases::small_trial(ModelKind::Mlp { hidden: vec![24] }, Norm::Batch);
    (config.data.order, config.train.lr) = (VisitOrder::FullBatch, 0.0);
    let metrics = vec![Metric::TestLoss, Metric::TrainLoss, Metric::GradNorm];
    let measure = Measure::with_metrics(Length::Steps(1), metrics);
    let plain = cases::result(&config, &measure, Isa::detect_fastest())
        .curve
        .values;
    config.train.added_noise = Some(AddedNoise {
        images: 8,
        pairs: 1,
    });
    let noisy = cases::result(&config, &measure, Isa::detect_fastest())
        .curve
        .values;
    for (plain, noisy) in plain.chunks(3).zip(noisy.chunks(3)) {
        assert!(plain[..2] == noisy[..2] && plain[2] != noisy[2]);
    }
    assert_ne!(noisy[2], noisy[5]);
}

/// All training images are the same one: without augmentation every batch has the same gradient, and with mirrored ones there
/// are two images, whose gradients scatter by a quarter of the square of their distance.
#[test]
fn gradient_noise_is_that_of_augmented_images() {
    let mut config = cases::small_trial(ModelKind::Mlp { hidden: vec![] }, Norm::None);
    (
        config.data.train,
        config.train.batch_size,
        config.data.standardize,
    ) = (8, 1, false);

    (config.train.loss, config.train.lr, config.train.length) = (Loss::Mse, 0.0, Length::Steps(1));
    let mut dataset = (*cases::dataset()).clone();
    let image: Vec<u8> = (0..784_u32).map(|i| (i * i % 251) as u8).collect();
    dataset.train.pixels = image.repeat(dataset.train.len());
    dataset.train.labels.fill(3);
    let dataset = std::sync::Arc::new(dataset);
    let mut trace = |augment| {
        config.data.augment = augment;
        let measure = Measure::with_metrics(Length::Steps(1), vec![Metric::GradNoiseTrace]);
        cases::result_with_data(
            &config,
            &measure,
            (dataset.clone(), Isa::detect_fastest()),
            None,
        )
        .metrics[0]
    };
    assert_eq!(trace(Augment::None), 0.0);

    let mut stream = cases::streams(0).open_stream(Purpose::Head, b"head.weight");
    let w: Vec<f64> = (0..7840)
        .map(|_| (2.0_f64 / 784.0).sqrt() * stream.next_normal())
        .collect();
    let gradient = |x: &[f64]| -> Vec<f64> {
        let output = |c: usize| {
            (0..784).map(|i| x[i] * w[i * 10 + c]).sum::<f64>() - f64::from(u8::from(c == 3))
        };
        let outputs: Vec<f64> = (0..10).map(output).collect();
        (0..7850)
            .map(|i| 0.2 * outputs[i % 10] * x.get(i / 10).unwrap_or(&1.0))
            .collect()
    };

    let plain: Vec<f64> = image.iter().map(|p| f64::from(*p) / 255.0).collect();
    let mirrored: Vec<f64> = (0..784).map(|i| plain[i / 28 * 28 + 27 - i % 28]).collect();
    let apart: f64 = gradient(&plain)
        .iter()
        .zip(gradient(&mirrored))
        .map(|(a, b)| (a - b) * (a - b))
        .sum();

    // Of 32 pairs about a half are apart, so that what is found is a whole number of thirty-seconds of twice that.
    let share = trace(Augment::Flip) / (apart / 2.0) * 32.0;
    assert!(
        (share - share.round()).abs() < 1e-3 && (6.0..27.0).contains(&share),
        "{share}"
    );

    assert!(trace(Augment::CropFlip) > 0.0);
}

/// Under squared errors, the Hessian of a linear model on one image x has the eigenvalue (‖x‖² + 1)·2/classes.
#[test]
fn curvature_is_that_of_the_last_batch_as_it_was_augmented() {
    let mut config = cases::small_trial(ModelKind::Mlp { hidden: vec![] }, Norm::None);
    (config.data.order, config.data.standardize) = (VisitOrder::Sequential, false);
    (config.data.train, config.train.batch_size) = (8, 1);
    (config.train.loss, config.train.lr, config.train.length) = (Loss::Mse, 0.0, Length::Steps(8));
    let mut dataset = (*cases::dataset()).clone();
    dataset
        .train
        .pixels
        .iter_mut()
        .enumerate()
        .for_each(|(i, p)| {
            let pixel = i % 784;
            *p = ((pixel * pixel + 37 * (i / 784)) % 251) as u8;
        });
    let dataset = std::sync::Arc::new(dataset);
    let subset = dataset
        .choose_subset(&config.data, &cases::streams(0))
        .expect("enough images");

    // Moved by so many pixels; whatever comes from outside is black.
    let eigenvalue = |image: u32, down: i32, right: i32| -> f64 {
        let is_inside =
            |y: i32, x: i32| (0..28).contains(&(y - down)) && (0..28).contains(&(x - right));
        let pixels = &dataset.train.pixels[image as usize * 784..][..784];
        let seen = (0..).zip(pixels).filter(|(i, _)| is_inside(i / 28, i % 28));
        let square: f64 = seen.map(|(_, p)| (f64::from(*p) / 255.0).powi(2)).sum();
        0.2 * (square + 1.0)
    };

    let mut moved = 0;
    for augment in [Augment::None, Augment::CropFlip] {
        config.data.augment = augment;
        let measure = Measure::with_metrics(Length::Steps(1), vec![Metric::HessianTop]);
        let on = (dataset.clone(), Isa::detect_fastest());
        let result = cases::result_with_data(&config, &measure, on, None);
        assert_eq!(result.curve.values.len(), subset.train.len());

        for (found, image) in result.curve.values.iter().zip(&subset.train) {
            let is = |down, right| (found / eigenvalue(*image, down, right) - 1.0).abs() < 1e-6;
            let shifts = (-4..=4).flat_map(|down| (-4..=4).map(move |right| (down, right)));
            let known = shifts.filter(|(down, right)| is(*down, *right)).count();
            let is_still = is(0, 0);
            assert!(
                known > 0 && (is_still || augment != Augment::None),
                "{augment:?}: {found}"
            );
            moved += usize::from(!is_still);
        }
    }

    assert!(moved > 4, "only {moved} of 8 images were moved");
}

/// What a network makes of the test set when its batch norms use means over the batches of an epoch, in f64.
fn loss_under_estimates(config: &TrialConfig, file: &[u8]) -> f64 {
    use candle_core::{DType, Device, Tensor};

    use crate::train::candle::net;
    let net = Net::from_config(config).expect("a network");
    let weights = Weights::from_safetensors(file, &net).expect("the file of a trial");
    let parameter = |numbers: &Vec<f32>| {
        let numbers: Vec<f64> = numbers.iter().map(|x| f64::from(*x)).collect();
        net::build_param(&numbers, 1, DType::F64, &Device::Cpu).expect("a tensor")
    };
    let params: Vec<_> = weights.params.iter().map(parameter).collect();

    let data =
        TrialData::new(cases::dataset(), &config.data, &cases::streams(0)).expect("enough images");
    let images = |source: crate::train::data::ImageBatch<'_>| {
        let mut images = vec![0.0; source.len() * 784];
        source.write_images(0, source.len(), &HaloGrid::single_pixel(784), &mut images);

        let images = Tensor::from_vec(images, (1, source.len(), 28, 28, 1), &Device::Cpu);
        images
            .and_then(|x| x.to_dtype(DType::F64))
            .expect("a tensor")
    };

    let batches: Vec<&[u32]> = data
        .train_indices()
        .chunks_exact(config.effective_batch_size() as usize)
        .collect();
    let mut means: Option<Vec<[Tensor; 2]>> = None;

    for batch in &batches {
        let passed = net::forward_pass(&net, &params, &images(data.train_batch(batch)), None)
            .expect("a pass");
        let pixels = net
            .layers
            .iter()
            .map(|l| (batch.len() * l.output.height * l.output.width) as f64);

        let share = 1.0 / batches.len() as f64;
        let of_batch = passed
            .batch_statistics
            .iter()
            .zip(pixels)
            .map(|([mean, variance], n)| {
                [
                    (mean * share).expect("a tensor"),
                    (variance * (share * n / (n - 1.0))).expect("a tensor"),
                ]
            });

        means = Some(match means {
            None => of_batch.collect(),
            Some(before) => {
                let add = |(a, b): ([Tensor; 2], [Tensor; 2])| {
                    [0, 1].map(|i| (&a[i] + &b[i]).expect("a tensor"))
                };
                before.into_iter().zip(of_batch).map(add).collect()
            }
        });
    }

    let test = data.test_batch(data.test_indices());
    let share = 1.0 / test.len() as f64;
    let targets = test.targets();
    let passed = net::forward_pass(&net, &params, &images(test), means.as_ref()).expect("a pass");
    let loss = Loss::CrossEntropy { smoothing: 0.0 };
    let objective = net::compute_objective(&passed.logits, targets, loss, share).expect("a loss");
    objective
        .get(0)
        .and_then(|x| x.to_scalar())
        .expect("a number")
}

/// Where the norm falls by a fifth per step, running statistics are of another network.
#[test]
fn re_estimated_statistics_are_those_of_the_weights_and_running_ones_are_not() {
    for (kind, affine) in [
        (ModelKind::Cnn4 { width: 4 }, true),
        (
            ModelKind::Mlp {
                hidden: vec![24, 17],
            },
            false,
        ),
    ] {
        let mut config = cases::small_trial(kind, Norm::Batch);
        (config.train.lr, config.train.wd, config.train.momentum) = (0.02, 10.0, 0.0);
        (config.train.length, config.model.affine) = (Length::Steps(8), affine);
        let mut measure =
            Measure::with_metrics(Length::Steps(4), vec![Metric::TestLoss, Metric::TestAcc]);
        measure.save = SavedMoments::of_end();

        let mut run = |statistics| {
            measure.statistics = statistics;
            cases::finished(&config, &measure)
        };
        let running = run(EvalStatistics::Running);
        let estimated = run(EvalStatistics::ReEstimated);
        assert_eq!(
            running.result.digest, estimated.result.digest,
            "what is measured does not change what is trained"
        );

        let expected =
            loss_under_estimates(&config, &estimated.weights.expect("the weights are saved"));
        let wrong = running.result.metrics[0];
        let right = estimated.result.metrics[0];
        assert!(
            (right / expected - 1.0).abs() < 1e-4,
            "{right} is not {expected}"
        );

        assert!(
            (wrong / expected - 1.0).abs() > 1e-3,
            "{wrong} is too near to {expected}"
        );
    }
}

/// Predictions are made under the statistics of the test metrics: as many are right.
#[test]
fn predictions_are_those_that_the_test_accuracy_counts() {
    const IMAGES: usize = 200;
    let mut config = cases::small_trial(ModelKind::Cnn4 { width: 4 }, Norm::Batch);
    (config.train.lr, config.train.wd, config.train.momentum) = (0.02, 10.0, 0.0);
    (config.train.length, config.data.test) = (Length::Steps(8), IMAGES as u32);

    let mut dataset = (*cases::dataset()).clone();
    dataset.test.pixels.truncate(IMAGES * 784);
    dataset.test.labels.truncate(IMAGES);
    let images = dataset.choose_probe_set(IMAGES as u32, &cases::streams(0));
    let labels: Vec<u8> = images
        .iter()
        .map(|image| dataset.test.labels[*image as usize])
        .collect();
    let dataset = std::sync::Arc::new(dataset);

    let mut measure = Measure::with_metrics(Length::Steps(4), vec![Metric::TestAcc]);
    measure.probe = Some(Probe {
        points: IMAGES as u32,
        at: vec![Moment::After(Length::Steps(4)), Moment::Final],
    });
    let mut predictions = Vec::new();
    for statistics in [EvalStatistics::Running, EvalStatistics::ReEstimated] {
        measure.statistics = statistics;
        let on = (dataset.clone(), Isa::detect_fastest());
        let result = cases::result_with_data(&config, &measure, on, None);
        assert_eq!(result.predictions.steps, result.curve.steps);

        let looks = result.predictions.classes.chunks(IMAGES);
        for (classes, accuracy) in looks.zip(&result.curve.values) {
            let right = classes
                .iter()
                .zip(&labels)
                .filter(|(class, label)| class == label);
            let share = right.count() as f64 / IMAGES as f64;
            assert_eq!(share, *accuracy, "{statistics:?}");
        }
        predictions.push(result.predictions.classes);
    }

    assert_ne!(predictions[0], predictions[1]);
}

#[test]
fn single_layers_add_up_to_the_norm_of_all() {
    let config = cases::small_trial(ModelKind::Cnn4 { width: 4 }, Norm::Batch);
    let layers = (1..=4).map(|i| Metric::LayerNormSq(format!("conv{i}")));
    let metrics = layers
        .chain([Metric::WeightNormSq, Metric::LayerNormSq("fc1".into())])
        .collect();
    let result = cases::result(
        &config,
        &Measure::with_metrics(Length::Steps(1), metrics),
        Isa::detect_fastest(),
    );

    for row in result.curve.values.chunks(6) {
        assert!(
            (row[..4].iter().sum::<f64>() / row[4] - 1.0).abs() < 1e-12 && row[5].is_nan(),
            "{row:?}"
        );
    }
}

/// Averages over every step, one by one and exponentially, are what their formulas make of the weights on the way.
#[test]
fn averages_begin_and_end_with_the_weights_they_take() {
    let mut config = cases::small_trial(ModelKind::Cnn4 { width: 4 }, Norm::Batch);
    let test = |config: &TrialConfig| {
        let (_, columns, result) = curve(config);
        let of = |metric| columns[column(metric)].clone();
        (
            of(Metric::TestLoss),
            of(Metric::AverageTestLoss),
            result.digest,
        )
    };
    let plain = test(&config);
    assert!(plain.1.iter().all(|loss| loss.is_nan()));

    let average = |decay, from| {
        Some(Average {
            decay,
            from: Length::Steps(from),
            every: Length::Steps(1),
        })
    };
    config.train.average = average(None, 5);

    let last = test(&config);
    assert!(last.1[..4].iter().all(|loss| loss.is_nan()) && last.1[4].is_finite());
    assert!(last.0 == plain.0 && last.2 != plain.2);

    // Without memory an exponential average is the last weights.
    config.train.average = average(Some(0.0), 5);
    let forgetful = test(&config);
    assert_eq!((forgetful.1[4], forgetful.2), (last.1[4], last.2));
    config.train.average = average(None, 1);
    let all = test(&config);
    assert!(all.1.iter().all(|loss| loss.is_finite()) && all.1[4] != last.1[4]);
}

#[test]
fn norms_and_effective_lr_are_over_the_weights_that_a_norm_follows() {
    let mut config = cases::small_trial(ModelKind::Mlp { hidden: vec![24] }, Norm::Batch);
    (config.train.lr, config.train.length, config.model.affine) = (0.0, Length::Steps(1), true);
    let (_, columns, _) = curve(&config);
    let value = |m: Metric| columns[column(m)][0];
    let streams: Streams = cases::streams(0);
    let mut stream = streams.open_stream(Purpose::Init, b"fc1.weight");
    let squares: f64 = (0..784 * 24)
        .map(|_| ((2.0_f64 / 784.0).sqrt() * stream.next_normal()).powi(2))
        .sum();
    assert!((value(Metric::WeightNormSq) / squares - 1.0).abs() < 1e-6);

    assert!((value(Metric::WeightNorm).powi(2) / squares - 1.0).abs() < 1e-6);
    assert_eq!(
        (value(Metric::EffectiveLr), value(Metric::UpdateNorm)),
        (0.0, 0.0)
    );
    assert!(value(Metric::AngularUpdate).abs() < 1e-12);

    assert!(value(Metric::GradNorm) > 0.0);
}

/// A ghost batch that is the whole batch is batch norm, in metrics, predictions, running statistics and weights.
#[test]
fn one_ghost_batch_is_batch_norm_bit_for_bit() {
    let mut measure = cases::metrics_without_gradient_passes();
    measure.metrics.push(Metric::GradNoiseDim);
    for statistics in [EvalStatistics::Running, EvalStatistics::ReEstimated] {
        measure.statistics = statistics;
        for (name, mut config) in short_trials() {
            // The layers of a list have norms of their own, see the random networks over ghost batches in `ops`.
            let is_list = matches!(config.model.kind, ModelKind::Layers(_));
            if config.model.norm != Norm::Batch || is_list {
                continue;
            }

            config.train.average = Some(cases::every_step());
            let expected = bits(&cases::result(&config, &measure, Isa::detect_fastest()));
            let size = config.effective_batch_size();
            config.model.norm = Norm::GhostBatch { size };
            let whole = bits(&cases::result(&config, &measure, Isa::detect_fastest()));
            assert!(whole == expected, "{name}");

            config.train.batch_size = 12;
            config.model.norm = Norm::GhostBatch { size: 6 };
            let halves = bits(&cases::result(&config, &measure, Isa::detect_fastest()));
            config.model.norm = Norm::Batch;
            let other = bits(&cases::result(&config, &measure, Isa::detect_fastest()));
            assert!(halves != other, "{name}: ghost batches change nothing");
        }
    }
}

#[test]
fn curvature_over_one_ghost_batch_is_that_of_batch_norm() {
    let measure = Measure::with_metrics(Length::Steps(2), vec![Metric::HessianTop]);
    let mut config = cases::small_trial(ModelKind::Mlp { hidden: vec![24] }, Norm::Batch);
    let mut bits_under = |norm| {
        config.model.norm = norm;
        bits(&cases::result(&config, &measure, Isa::detect_fastest()))
    };
    let expected = bits_under(Norm::Batch);
    assert!(bits_under(Norm::GhostBatch { size: 16 }) == expected);
    assert!(bits_under(Norm::GhostBatch { size: 8 }) != expected);
}

/// At a learning rate of 0, statistics are those of the initial weights: with re-estimated ones, an epoch in ghost batches has
/// the means and variances of an epoch in batches of that size.
#[test]
fn statistics_over_ghost_batches_are_those_of_batches_of_their_size() {
    let mut config = cases::small_trial(ModelKind::Mlp { hidden: vec![24] }, Norm::Batch);
    (config.data.train, config.train.batch_size, config.train.lr) = (96, 8, 0.0);
    config.train.length = Length::Steps(1);
    let mut measure = Measure::with_metrics(Length::Steps(1), vec![Metric::TestLoss]);
    measure.statistics = EvalStatistics::ReEstimated;
    let small = cases::result(&config, &measure, Isa::detect_fastest()).metrics[0];

    config.train.batch_size = 48;
    let large = cases::result(&config, &measure, Isa::detect_fastest()).metrics[0];
    config.model.norm = Norm::GhostBatch { size: 8 };
    let ghosts = cases::result(&config, &measure, Isa::detect_fastest()).metrics[0];
    assert!((ghosts / small - 1.0).abs() < 1e-5, "{ghosts} {small}");
    assert!((ghosts / large - 1.0).abs() > 1e-4, "{ghosts} {large}");
}

/// One image per batch has variance 0: all is normalised to 0, and nothing reaches the weights before the norm.
#[test]
fn zero_variance_without_epsilon_is_zero_with_zero_gradient() {
    for kind in [
        ModelKind::Mlp { hidden: vec![24] },
        ModelKind::Mlp {
            hidden: vec![24, 17],
        },
    ] {
        let mut config = cases::small_trial(kind, Norm::Batch);
        (
            config.model.norm_eps,
            config.train.batch_size,
            config.train.wd,
        ) = (0.0, 1, 0.0);

        let (_, columns, result) = curve(&config);
        assert_eq!(result.outcome, Outcome::Completed);
        assert!(
            columns[column(Metric::UpdateNorm)]
                .iter()
                .all(|x| *x == 0.0)
        );

        assert!(
            columns[column(Metric::TrainLoss)]
                .iter()
                .all(|x| *x == 10.0_f64.ln())
        );
    }
}

/// Drawn and hashed here without the trainer's layout.
#[test]
fn the_digest_is_over_parameters_in_the_order_of_their_definition() {
    let mut config = cases::small_trial(ModelKind::Cnn4 { width: 3 }, Norm::None);
    (
        config.train.lr,
        config.train.length,
        config.model.init_scale,
    ) = (0.0, Length::Steps(1), 0.5);

    let streams = cases::streams(0);
    let mut hasher = blake3::Hasher::new();

    for (name, fan_in, outputs) in [
        ("conv1", 9, 3),
        ("conv2", 27, 6),
        ("conv3", 54, 12),
        ("conv4", 108, 12),
        ("head", 192, 10),
    ] {
        let purpose = if name == "head" {
            Purpose::Head
        } else {
            Purpose::Init
        };
        let mut stream = streams.open_stream(purpose, format!("{name}.weight").as_bytes());

        for _ in 0..fan_in * outputs {
            let w = (2.0 / f64::from(fan_in)).sqrt() * stream.next_normal() * 0.5;
            hasher.update(&(w as f32).to_le_bytes());
        }

        (0..outputs).for_each(|_| _ = hasher.update(&0.0_f32.to_le_bytes()));
    }

    let result = cases::result(
        &config,
        &cases::metrics_without_gradient_passes(),
        Isa::detect_fastest(),
    );
    assert_eq!(
        result.digest.to_string(),
        hasher.finalize().to_hex().as_str()
    );
}

/// The file of what a trial starts from anyway.
fn initial_file(config: &TrialConfig) -> Vec<u8> {
    let net = Net::from_config(config).expect("a network");
    let layout = ParamLayout::new(&net, &plan::plan_layers(&net));
    let params = layout.unpack_params(&layout.draw_initial_weights(config, &cases::streams(0)));
    let statistics = layout.unpack_statistics(&layout.initial_statistics());
    Weights { params, statistics }.to_safetensors(&net, None)
}

#[test]
fn a_trial_that_starts_from_a_file_of_its_own_initial_weights_ends_in_the_same_bits() {
    for (name, config) in short_trials().into_iter().take(DEEP + 4) {
        let file = initial_file(&config);
        let mut from_file = config.clone();
        from_file.model.init_file = Some(blake3::hash(&file).into());
        let measure = cases::metrics_without_gradient_passes();
        let started = |config: &TrialConfig, file: &[u8]| {
            cases::result_from(
                config,
                &measure,
                Isa::detect_fastest(),
                (None, None),
                Some(file),
            )
        };

        let expected = cases::result(&config, &measure, Isa::detect_fastest());
        assert_eq!(bits(&started(&from_file, &file)), bits(&expected), "{name}");
        let damaged = started(&from_file, &file[..file.len() - 1]);
        assert!(
            matches!(damaged.outcome, Outcome::Failed { cause } if cause.contains("initial weights"))
        );
    }
}

#[test]
fn scales_multiply_initial_weights_from_a_file() {
    let mut config = cases::small_trial(ModelKind::Mlp { hidden: vec![24] }, Norm::Batch);
    let file = initial_file(&config);
    let measure = Measure::with_metrics(Length::Steps(1), vec![Metric::TrainLoss]);
    config.model.init_scale = 2.0;
    let expected = cases::result(&config, &measure, Isa::detect_fastest());
    config.model.init_file = Some(FileHash([1; 32]));

    let result = cases::result_from(
        &config,
        &measure,
        Isa::detect_fastest(),
        (None, None),
        Some(&file),
    );
    assert_eq!(bits(&result), bits(&expected));
}
