//! Trials with clipped gradients, learning rates by parameter, Adam, and sharpness-aware steps.

use std::sync::atomic::Ordering;

use ergodic_common::config::{
    Adam, AdamDecay, Augment, Length, LrFactors, ModelKind, Norm, Sam, TrialConfig,
};
use ergodic_common::dataset::name::DatasetName;
use ergodic_common::metric::Metric;
use ergodic_common::spec::Measure;
use ergodic_common::trial::{Outcome, TrialResult};

use super::cases;
use super::trials::{FINGERPRINTED, MemoryCheckpoints, bits, fingerprint};
use crate::train::Isa;

const ADAM: Adam = Adam {
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    decay: AdamDecay::Coupled,
};

fn factors(factors: &[(&str, f64)]) -> LrFactors {
    LrFactors::new(factors.iter().map(|(name, x)| ((*name).to_owned(), *x)))
}

fn mlp(norm: Norm) -> TrialConfig {
    let hidden = vec![24, 17];
    cases::small_trial(ModelKind::Mlp { hidden }, norm)
}

/// Every rule, with SGD, Adam and AdamW, alone and together.
pub(super) fn trials() -> Vec<(&'static str, TrialConfig)> {
    let cnn4 = |norm| cases::small_trial(ModelKind::Cnn4 { width: 4 }, norm);
    let mut deep = cases::small_trial(ModelKind::Preresnet { depth: 8, widen: 1 }, Norm::Batch);
    deep.data.dataset = DatasetName::Cifar10;
    (deep.train.length, deep.train.batch_size) = (Length::Steps(3), 9);
    deep.data.test = 8;

    let mut all = vec![
        ("clipped", mlp(Norm::Batch)),
        ("by parameter", cnn4(Norm::Batch)),
        ("adam", cnn4(Norm::None)),
        ("sharpness", mlp(Norm::Batch)),
        ("all with adam", cnn4(Norm::Layer)),
        ("sharpness with adamw", deep),
    ];
    all[0].1.train.clip_norm = Some(0.1);
    all[0].1.train.nesterov = true;
    all[1].1.model.affine = true;
    all[1].1.train.lr_on = factors(&[("norms", 0.1), ("conv2", 3.0), ("head", 0.0)]);
    all[2].1.train.adam = Some(ADAM);
    all[3].1.train.sam = Some(Sam { rho: 0.05 });

    let train = &mut all[4].1.train;
    train.adam = Some(ADAM);
    train.clip_norm = Some(0.5);
    train.lr_on = factors(&[("biases", 2.0), ("conv1", 0.5)]);
    train.sam = Some(Sam { rho: 0.1 });
    all[5].1.train.adam = Some(Adam {
        decay: AdamDecay::Decoupled,
        ..ADAM
    });
    all[5].1.train.sam = Some(Sam { rho: 0.05 });
    all
}

/// Fingerprints of [`trials`]. They change only together with the numerics version `cpu-f32/6`.
pub(super) const GOLDEN: [&str; 6] = [
    "9763c079c40451d5a0a89da22516438ed247bedbd751e498ce02406bbecfa626",
    "809d6270aae5b9ad73237ee5eda59e213259042e970f4103d42f86e0aff1ff69",
    "ae4fda7dae367dd7d0d63314eed8fa36341e92d063e2a191c706e3a2bc542b4d",
    "e9f24b4f7a12b57943975d08aaca9e5f577b54c82f8528e53967e4d6bc2b1e77",
    "ea08857111c05f69c57270d8de1943236d9778708131f6184924edd615ce552f",
    "7d0a919df45e496f28e85b281fed57a7b7ed777c8073fd6506a71c80e2484537",
];

#[test]
fn trials_of_other_steps_end_in_the_committed_bits() {
    let measure = Measure::with_metrics(Length::Steps(2), FINGERPRINTED.to_vec());
    let found: Vec<String> = trials()
        .iter()
        .map(|(name, config)| {
            let result = cases::result(config, &measure, Isa::detect_fastest());
            assert_eq!(result.outcome, Outcome::Completed, "{name}");
            fingerprint(&result)
        })
        .collect();
    assert_eq!(found, GOLDEN);
}

#[test]
fn bits_of_other_steps_depend_on_neither_instructions_nor_threads() {
    let measure = cases::metrics_without_gradient_passes();
    for (name, config) in trials() {
        let expected = bits(&cases::result(&config, &measure, Isa::Portable));
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let found = cases::result(&config, &measure, isa);
            assert!(bits(&found) == expected, "{name} on {isa}");
        }

        for threads in [1, 2, 4] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("threads can be had");
            let found = cases::result_on(&config, &measure, Isa::detect_fastest(), Some(&pool));
            assert!(bits(&found) == expected, "{name} on {threads} threads");
        }
    }
}

#[test]
fn a_trial_of_other_steps_goes_on_from_a_checkpoint_in_the_same_bits() {
    let measure = cases::metrics_without_gradient_passes();
    for (name, mut config) in trials() {
        config.data.augment = Augment::CropFlip;
        let expected = bits(&cases::result(&config, &measure, Isa::detect_fastest()));
        for wanted in 1..config.total_steps() {
            let store = MemoryCheckpoints::saving_at(wanted);
            for taken in 0..2 {
                let fastest = Isa::detect_fastest();
                let found = cases::result_with(&config, &measure, fastest, None, Some(&store));
                assert!(bits(&found) == expected, "{name} from step {wanted}");
                assert_eq!(store.loads.load(Ordering::Relaxed), taken);
            }

            let mut others = vec![config.clone(); 3];
            others[0].train.clip_norm = Some(0.3);
            others[1].train.lr_on = factors(&[("head", 0.7)]);
            others[2].train.sam = Some(Sam { rho: 0.07 });
            for other in others {
                let fastest = Isa::detect_fastest();
                cases::result_with(&other, &measure, fastest, None, Some(&store));
            }
            let loads = store.loads.load(Ordering::Relaxed);
            assert_eq!(loads, 1, "another trial's checkpoint is of no use");
        }
    }
}

/// The values of some metrics at every step.
fn curve(config: &TrialConfig, metrics: &[Metric]) -> Vec<Vec<f64>> {
    let result = run(config, metrics);
    assert_eq!(result.outcome, Outcome::Completed);
    let rows = result.curve.values.chunks(metrics.len());
    rows.map(<[f64]>::to_vec).collect()
}

fn run(config: &TrialConfig, metrics: &[Metric]) -> TrialResult {
    let measure = Measure::with_metrics(Length::Steps(1), metrics.to_vec());
    cases::result(config, &measure, Isa::detect_fastest())
}

fn digest(config: &TrialConfig) -> String {
    format!("{:?}", run(config, &[Metric::TrainLoss]).digest)
}

#[test]
fn a_clipped_step_has_the_length_of_its_limit_and_metrics_see_the_gradient_before() {
    let metrics = [Metric::GradNorm, Metric::UpdateNorm, Metric::GradWeightCos];
    for norm in [Norm::None, Norm::Batch] {
        let mut config = mlp(norm);
        (config.train.wd, config.train.momentum) = (0.0, 0.0);
        config.model.fixed_head = true;
        let plain = curve(&config, &metrics);
        config.train.clip_norm = Some(0.01);
        let clipped = curve(&config, &metrics);

        assert_eq!(clipped[0][0], plain[0][0]);
        assert_eq!(clipped[0][2], plain[0][2]);
        for row in &clipped {
            assert!(row[0] > 0.05, "the gradient is larger than the limit");
            let length = 0.05 * 0.01 * row[0] / (row[0] + 1e-6);
            assert!((row[1] / length - 1.0).abs() < 1e-3, "{row:?}");
        }

        config.train.clip_norm = Some(1e9);
        let wide = digest(&config);
        config.train.clip_norm = None;
        assert_eq!(wide, digest(&config), "nothing is clipped");
    }
}

/// Clipping comes before weight decay: without a gradient to speak of, weights decay as ever.
#[test]
fn weight_decay_is_not_clipped() {
    let mut config = mlp(Norm::Batch);
    (config.train.wd, config.train.momentum) = (1.0, 0.0);
    config.train.clip_norm = Some(1e-9);
    let norms = curve(&config, &[Metric::WeightNorm]);
    for pair in norms.windows(2) {
        let share = pair[1][0] / pair[0][0];
        assert!((share - 0.95).abs() < 1e-6, "{share}");
    }
}

#[test]
fn a_factor_of_all_parameters_is_one_of_the_learning_rate() {
    let all = |x| factors(&[("weights", x), ("biases", x), ("norms", x)]);
    for adam in [
        None,
        Some(ADAM),
        Some(Adam {
            decay: AdamDecay::Decoupled,
            ..ADAM
        }),
    ] {
        let mut config = mlp(Norm::Batch);
        config.model.affine = true;
        config.train.adam = adam;
        let mut scaled = config.clone();
        scaled.train.lr_on = all(0.5);
        config.train.lr *= 0.5;
        let metrics = [Metric::EffectiveLr, Metric::UpdateNorm, Metric::GradNorm];
        assert_eq!(curve(&scaled, &metrics), curve(&config, &metrics));
        assert_eq!(digest(&scaled), digest(&config));

        let rates = curve(&scaled, &[Metric::StepLr]);
        assert!(rates.iter().all(|row| row[0] == 0.05), "{rates:?}");
    }
}

#[test]
fn a_factor_of_0_freezes_and_others_do_not() {
    let metrics = ["fc1", "fc2", "head"].map(|layer| Metric::LayerNormSq(layer.into()));
    for (sam, clip_norm) in [(None, None), (Some(Sam { rho: 0.1 }), Some(0.5))] {
        for adam in [None, Some(ADAM)] {
            let mut config = mlp(Norm::None);
            (config.train.adam, config.train.sam) = (adam, sam);
            config.train.clip_norm = clip_norm;
            config.train.lr_on = factors(&[("fc2", 0.0), ("biases", 2.0)]);
            let rows = curve(&config, &metrics);
            for pair in rows.windows(2) {
                assert!(pair[0][0] != pair[1][0] && pair[0][2] != pair[1][2]);
                assert_eq!(pair[0][1], pair[1][1]);
            }

            let mut still = config.clone();
            still.train.lr_on = factors(&[("weights", 0.0), ("biases", 0.0)]);
            config.train.lr_on = factors(&[]);
            config.train.lr = 0.0;
            assert_eq!(digest(&still), digest(&config));
        }
    }
}

#[test]
fn the_effective_lr_is_that_of_the_weights_or_none() {
    let metrics = [Metric::EffectiveLr, Metric::WeightNormSq];
    let mut config = mlp(Norm::Batch);
    config.train.lr_on = factors(&[("weights", 0.5), ("head", 3.0)]);
    for row in curve(&config, &metrics) {
        assert_eq!(row[0], 0.05 * 0.5 / row[1]);
    }

    config.train.lr_on = factors(&[("fc1", 0.5)]);
    let rows = curve(&config, &metrics);
    assert!(rows.iter().all(|row| row[0].is_nan() && row[1] > 0.0));
}

#[test]
fn a_sharpness_aware_step_of_length_0_is_a_plain_one() {
    for adam in [None, Some(ADAM)] {
        let mut config = mlp(Norm::Batch);
        config.train.adam = adam;
        let plain = digest(&config);
        config.train.sam = Some(Sam { rho: 0.0 });
        assert_eq!(digest(&config), plain);
        config.train.sam = Some(Sam { rho: 0.05 });
        assert_ne!(digest(&config), plain);
    }
}

#[test]
fn the_second_pass_moves_no_statistics_and_metrics_are_of_the_first() {
    let metrics = [Metric::TrainLoss, Metric::GradNorm, Metric::GradWeightCos];
    let mut config = mlp(Norm::Batch);
    config.data.augment = Augment::CropFlip;
    let mut sharp = config.clone();
    sharp.train.sam = Some(Sam { rho: 0.3 });
    assert_eq!(curve(&sharp, &metrics)[0], curve(&config, &metrics)[0]);

    // Where no weight moves, the digest is that of the statistics.
    (sharp.train.lr, config.train.lr) = (0.0, 0.0);
    assert_eq!(curve(&sharp, &metrics), curve(&config, &metrics));
    assert_eq!(digest(&sharp), digest(&config));
}

#[test]
fn a_second_pass_without_a_finite_loss_diverges() {
    let mut config = mlp(Norm::None);
    config.train.sam = Some(Sam { rho: 1e30 });
    let result = run(&config, &[Metric::TrainLoss]);
    assert_eq!(result.outcome, Outcome::Diverged { step: 1 });

    let mut config = mlp(Norm::None);
    (config.train.lr, config.train.clip_norm) = (1e38, Some(10.0));
    config.train.length = Length::Steps(50);
    let result = run(&config, &[Metric::TrainLoss]);
    assert!(matches!(result.outcome, Outcome::Diverged { .. }));
}
