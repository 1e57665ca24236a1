//! Trials on images with targets: losses by their definition, learning, other devices.

use std::sync::Arc;

use ergodic_common::config::{
    AddedNoise, Augment, Length, Loss, ModelKind, Norm, TrialConfig, VisitOrder,
};
use ergodic_common::dataset::name::DatasetName;
use ergodic_common::dataset::{Dataset, Images};
use ergodic_common::metric::Metric;
use ergodic_common::net::Net;
use ergodic_common::spec::Measure;
use ergodic_common::spec::saved_moments::SavedMoments;
use ergodic_common::weights::Weights;

use super::{cases, devices};
use crate::train::Isa;

const INPUTS: usize = 784;
const TARGETS: usize = 3;

/// A linear map from images to three targets.
fn linear_trial() -> TrialConfig {
    let mut config = cases::small_trial(ModelKind::Mlp { hidden: vec![] }, Norm::None);
    config.data.dataset = DatasetName::Mnist;
    config = cases::on_targets(config, TARGETS as u32);
    (config.data.train, config.data.test) = (60, 30);
    config.data.standardize = false;
    config
}

/// The mean over images and outputs of the squared difference of w·x + b from the targets, by plain arithmetic.
fn mean_squared_error(params: &[Vec<f32>], part: &Images, images: &[u32]) -> f64 {
    let mut sum = 0.0;
    for image in images {
        let at = *image as usize;
        let pixels = &part.pixels[at * INPUTS..][..INPUTS];
        for output in 0..TARGETS {
            let weights = params[0][output..].iter().step_by(TARGETS);
            let products = pixels.iter().zip(weights);
            let found: f64 = products
                .map(|(p, w)| f64::from(*p) / 255.0 * f64::from(*w))
                .sum();
            let off = found + f64::from(params[1][output])
                - f64::from(part.targets[at * TARGETS + output]);
            sum += off * off;
        }
    }

    sum / (images.len() * TARGETS) as f64
}

#[test]
fn losses_are_means_over_all_images_and_outputs() {
    let mut config = linear_trial();
    (config.data.order, config.train.length) = (VisitOrder::FullBatch, Length::Steps(3));
    let metrics = vec![
        Metric::TrainLoss,
        Metric::TestLoss,
        Metric::TestSmoothedLoss,
    ];
    let mut measure = Measure::with_metrics(Length::Steps(1), metrics);
    measure.save = SavedMoments::of_end();
    let dataset = cases::with_targets(DatasetName::Mnist, TARGETS as u32);
    let subset = dataset
        .choose_subset(&config.data, &cases::streams(0))
        .expect("enough images");
    let net = Net::from_config(&config).expect("a network");

    // Losses of training are those before a step: with a rate of 0, those of the last weights.
    for lr in [0.01, 0.0] {
        config.train.lr = lr;
        let finished = cases::finished(&config, &measure);
        let file = finished.weights.expect("weights are kept");
        let weights = Weights::from_safetensors(&file, &net).expect("the file of a trial");
        let [train, test, smoothed] = finished.result.metrics[..] else {
            panic!("three metrics")
        };
        let expected = mean_squared_error(&weights.params, &dataset.test, &subset.test);
        assert!((test / expected - 1.0).abs() < 1e-5, "{test} {expected}");
        assert_eq!(test.to_bits(), smoothed.to_bits());

        if lr == 0.0 {
            let expected = mean_squared_error(&weights.params, &dataset.train, &subset.train);
            assert!((train / expected - 1.0).abs() < 1e-5, "{train} {expected}");
        }
    }
}

/// Targets that a linear map of the images has.
fn linear_dataset() -> Arc<Dataset> {
    let mut dataset = Arc::unwrap_or_clone(cases::with_targets(DatasetName::Mnist, TARGETS as u32));
    for part in [&mut dataset.train, &mut dataset.test] {
        let images = part.pixels.chunks_exact(INPUTS);
        part.targets = images
            .flat_map(|pixels| {
                let halves = [&pixels[..INPUTS / 2], &pixels[INPUTS / 2..], pixels];
                let sums = halves.map(|some| some.iter().map(|p| f32::from(*p)).sum::<f32>());
                [sums[0] / 3e4 - 1.0, 1.0 - sums[1] / 3e4, sums[2] / 6e4]
            })
            .collect();
    }
    Arc::new(dataset)
}

#[test]
fn networks_learn_targets() {
    let mut config = linear_trial();
    (config.data.standardize, config.train.wd) = (true, 0.0);
    (config.train.lr, config.train.length) = (0.003, Length::Steps(300));
    config.train.batch_size = 20;
    let metrics = vec![
        Metric::TrainLoss,
        Metric::TestLoss,
        Metric::HessianTop,
        Metric::GradNoiseTrace,
    ];
    let measure = Measure::with_metrics(Length::Steps(100), metrics);
    let isa = Isa::detect_fastest();
    let result = cases::result_with_data(&config, &measure, (linear_dataset(), isa), None);
    let last = result.metrics;
    let first = result.curve.values;
    assert!(
        last[0] < 1e-3 && last[0] < 0.2 * first[0],
        "{first:?} {last:?}"
    );
    assert!(last[2] > 0.0 && last[3] >= 0.0, "{last:?}");
}

/// Everything that computes gradients, on stock operations as on the trainer's own engine.
#[test]
fn stock_operations_agree_on_targets() {
    let mut config = cases::small_trial(ModelKind::Cnn4 { width: 4 }, Norm::Batch);
    config.data.dataset = DatasetName::Cifar10;
    config = cases::on_targets(config, 2);
    config.train.loss = Loss::Mse;
    config.data.augment = Augment::CropFlip;
    config.train.added_noise = Some(AddedNoise {
        images: 8,
        pairs: 2,
    });
    let metrics = vec![Metric::TrainLoss, Metric::TestLoss, Metric::GradNorm];
    let measure = Measure::with_metrics(Length::Steps(1), metrics);
    let own = cases::result_at(&config, &measure, None);
    for candle in devices::candle_devices() {
        let stock = cases::result_at(&config, &measure, Some(&candle));
        // Two steps: with losses of tens, each further one multiplies what rounding makes of it.
        let pairs = own.curve.values.iter().zip(&stock.curve.values);
        for (a, b) in pairs.take(2 * 3) {
            assert!((a / b - 1.0).abs() < 1e-3, "{a} {b}");
        }
    }
}
