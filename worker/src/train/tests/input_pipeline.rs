//! What a trial shows to a network, put together by plain means: which images, how they are moved and mirrored, which labels,
//! on what is tested and validated. A trial on data made so, with nothing left to choose, must end in the same bits.

use std::sync::Arc;

use ergodic_common::config::{
    Augment, Length, Loss, ModelKind, Norm, TrialConfig, VggDepth, VisitOrder,
};
use ergodic_common::dataset::name::DatasetName;
use ergodic_common::dataset::{Dataset, Images};
use ergodic_common::ids::FileHash;
use ergodic_common::metric::Metric;
use ergodic_common::pinned_file::FileData;
use ergodic_common::random_streams::Purpose;
use ergodic_common::spec::Measure;
use ergodic_common::trial::{Outcome, TrialResult};

use super::{cases, devices};
use crate::train::Isa;

/// What is compared: all that is seen of the images.
const METRICS: [Metric; 5] = [
    Metric::TrainLoss,
    Metric::TrainSmoothedLoss,
    Metric::TrainAcc,
    Metric::TestLoss,
    Metric::TestAcc,
];

/// The numbers of an image, 0 to 1 or standardised, and its label.
type Image = (Vec<f32>, u8);

/// The plain side's view of a dataset: inputs by definition.
struct Plain<'a> {
    config: &'a TrialConfig,
    dataset: &'a Dataset,
    /// Mean and standard deviation of each channel.
    moments: Vec<(f64, f64)>,
}

impl<'a> Plain<'a> {
    fn new(config: &'a TrialConfig, dataset: &'a Dataset, train: &[u32]) -> Self {
        let channels = dataset.name.image_shape().2 as usize;
        let mut this = Self {
            config,
            dataset,
            moments: vec![(0.0, 1.0); channels],
        };

        if config.data.standardize {
            this.moments = (0..channels).map(|c| this.moments_of(train, c)).collect();
        }

        this
    }

    fn len(&self) -> usize {
        let (height, width, channels) = self.dataset.name.image_shape();
        (height * width * channels) as usize
    }

    /// Computes the statistics of bytes from whole numbers, as the trainer promises; of floats, in two passes in their order.
    fn moments_of(&self, train: &[u32], channel: usize) -> (f64, f64) {
        let channels = self.moments.len();
        if !self.dataset.train.floats.is_empty() {
            let all: Vec<f64> = train
                .iter()
                .flat_map(|i| self.raw(&self.dataset.train, *i))
                .collect();
            let own = || all.iter().skip(channel).step_by(channels);
            let mean = own().sum::<f64>() / own().count() as f64;
            let variance =
                own().map(|x| (x - mean) * (x - mean)).sum::<f64>() / own().count() as f64;

            return (mean, variance.sqrt());
        }

        let pixels =
            |i: &u32| self.dataset.train.pixels[*i as usize * self.len()..][..self.len()].to_vec();
        let all: Vec<u64> = train
            .iter()
            .flat_map(|i| pixels(i).into_iter().skip(channel).step_by(channels))
            .map(u64::from)
            .collect();
        let n = all.len() as u64;

        let first = all.iter().sum::<u64>();
        let second = all.iter().map(|p| p * p).sum::<u64>();
        let spread = u128::from(n) * u128::from(second) - u128::from(first) * u128::from(first);
        (
            first as f64 / n as f64 / 255.0,
            (spread as f64).sqrt() / n as f64 / 255.0,
        )
    }

    /// An image's pixels before they become inputs: bytes over 255, or numbers as they are.
    fn raw(&self, part: &Images, i: u32) -> Vec<f64> {
        let range = i as usize * self.len()..(i as usize + 1) * self.len();
        if part.floats.is_empty() {
            part.pixels[range]
                .iter()
                .map(|p| f64::from(*p) / 255.0)
                .collect()
        } else {
            part.floats[range].iter().map(|x| f64::from(*x)).collect()
        }
    }

    fn inputs(&self, raw: &[f64]) -> Vec<f32> {
        let channels = self.moments.len();
        let bytes = self.dataset.train.floats.is_empty();
        let input = |(at, x): (usize, &f64)| {
            let (mean, std) = self.moments[at % channels];
            // A byte that is not standardised is divided in f32.
            if bytes && !self.config.data.standardize {
                (x * 255.0).round() as f32 / 255.0
            } else {
                ((x - mean) / std) as f32
            }
        };

        raw.iter().enumerate().map(input).collect()
    }

    /// The image put on black that is four pixels wider on every side, cut out elsewhere, and mirrored.
    fn moved(&self, raw: &[f64], (down, right, mirrored): (i64, i64, bool)) -> Vec<f64> {
        let (height, width, channels) = self.dataset.name.image_shape();
        let height = height as usize;
        let width = width as usize;
        let channels = channels as usize;
        let mut wide = vec![vec![vec![0.0; channels]; width + 8]; height + 8];

        for (at, pixel) in raw.chunks(channels).enumerate() {
            wide[4 + at / width][4 + at % width] = pixel.to_vec();
        }

        let top = (4 + down) as usize;
        let left = (4 + right) as usize;
        let mut cut: Vec<Vec<Vec<f64>>> = wide[top..top + height]
            .iter()
            .map(|row| row[left..left + width].to_vec())
            .collect();

        if mirrored {
            cut.iter_mut().for_each(|row| row.reverse());
        }

        cut.concat().concat()
    }

    /// The images that a trial trains on, step after step.
    fn shown(&self, train: &[u32]) -> Vec<Image> {
        let config = self.config;
        let streams = cases::streams(0);
        let labels = self.noisy_labels();
        let batch = config.effective_batch_size() as u64;
        let per_epoch = config.steps_per_epoch();
        let drawn_at_once = if config.data.order == VisitOrder::WithReplacement {
            1
        } else {
            per_epoch
        };

        let mut shown = Vec::new();
        for step in 0..config.total_steps() {
            let order: Vec<u32> = match config.data.order {
                VisitOrder::FullBatch | VisitOrder::Sequential => train.to_vec(),
                VisitOrder::Shuffle => {
                    let mut epoch = train.to_vec();
                    streams
                        .open_stream(Purpose::Order, &(step / per_epoch).to_le_bytes())
                        .shuffle(&mut epoch);
                    epoch
                }
                VisitOrder::WithReplacement => {
                    let mut stream = streams.open_stream(Purpose::Order, &step.to_le_bytes());
                    (0..batch)
                        .map(|_| train[stream.next_below(train.len() as u32) as usize])
                        .collect()
                }
            };

            let mut stream =
                streams.open_stream(Purpose::Augment, &(step / drawn_at_once).to_le_bytes());
            let before = step % drawn_at_once * batch;
            let moves: Vec<_> = (0..before + batch)
                .map(|_| self.draw(&mut stream))
                .skip(before as usize)
                .collect();

            let first = if config.data.order == VisitOrder::WithReplacement {
                0
            } else {
                (step % per_epoch * batch) as usize
            };
            for (i, by) in order[first..].iter().zip(moves) {
                let raw = self.raw(&self.dataset.train, *i);
                let raw = if config.data.augment == Augment::None {
                    raw
                } else {
                    self.moved(&raw, by)
                };
                shown.push((self.inputs(&raw), labels[*i as usize]));
            }
        }

        shown
    }

    fn draw(&self, stream: &mut ergodic_common::random_streams::RandomStream) -> (i64, i64, bool) {
        let mut along = || {
            if self.config.data.augment == Augment::CropFlip {
                i64::from(stream.next_below(9)) - 4
            } else {
                0
            }
        };
        let down = along();

        let right = along();
        (down, right, stream.next_below(2) == 1)
    }

    fn noisy_labels(&self) -> Vec<u8> {
        let streams = cases::streams(0);
        let classes = self.dataset.name.class_count();
        let noise = self.config.data.label_noise;
        let label = |(i, label): (usize, &u8)| {
            let mut stream = streams.open_stream(Purpose::LabelNoise, &(i as u64).to_le_bytes());
            let wrong = noise > 0.0 && stream.next_uniform() < noise;
            if wrong {
                ((u32::from(*label) + 1 + stream.next_below(classes - 1)) % classes) as u8
            } else {
                *label
            }
        };

        self.dataset
            .train
            .labels
            .iter()
            .enumerate()
            .map(label)
            .collect()
    }

    fn unchanged(&self, part: &Images, indices: &[u32]) -> Vec<Image> {
        indices
            .iter()
            .map(|i| (self.inputs(&self.raw(part, *i)), part.labels[*i as usize]))
            .collect()
    }
}

/// A dataset of inputs as they are.
fn made_of(train: &[Image], test: &[Image], like: &Dataset) -> Arc<Dataset> {
    let sizes = (train.len() as u32, test.len() as u32);
    let shape = like.name.image_shape();
    let classes = like.name.class_count();
    let data = FileData {
        hash: FileHash([1; 32]),
        sizes,
        shape,
        classes,
        targets: 0,
        floats: true,
    };

    let part = |images: &[Image]| Images {
        floats: images.iter().flat_map(|(x, _)| x.clone()).collect(),
        labels: images.iter().map(|(_, label)| *label).collect(),
        ..Images::default()
    };
    Arc::new(Dataset {
        name: DatasetName::File(data),
        train: part(train),
        test: part(test),
    })
}

/// The same network on a dataset whose images are shown in their order, as they are.
fn on(dataset: &Dataset, config: &TrialConfig) -> TrialConfig {
    let mut plain = config.clone();
    plain.train.length = Length::Steps(config.total_steps());
    plain.train.batch_size = config.effective_batch_size();
    plain.data = ergodic_common::config::DataConfig::new(
        dataset.name,
        dataset.name.split_sizes().0,
        dataset.name.split_sizes().1,
    );

    (plain.data.order, plain.data.standardize) = (VisitOrder::Sequential, false);
    plain
}

fn bits(result: &TrialResult) -> Vec<u64> {
    result.curve.values.iter().map(|x| x.to_bits()).collect()
}

/// Every model, under every augmentation, meeting orders, subsets, wrong labels, images to validate on, bytes and numbers.
fn trials() -> Vec<(String, TrialConfig, Arc<Dataset>)> {
    let kinds = [
        (
            ModelKind::Mlp {
                hidden: vec![24, 17],
            },
            Norm::Batch,
        ),
        (ModelKind::Mlp { hidden: vec![] }, Norm::None),
        (ModelKind::Cnn4 { width: 4 }, Norm::Group { groups: 2 }),
        (ModelKind::Cnn4 { width: 4 }, Norm::Batch),
        (ModelKind::Preresnet { depth: 8, widen: 1 }, Norm::Layer),
        (
            ModelKind::Vgg {
                depth: VggDepth::Eleven,
                width: 4,
            },
            Norm::None,
        ),
    ];

    let orders = [
        VisitOrder::Shuffle,
        VisitOrder::FullBatch,
        VisitOrder::WithReplacement,
        VisitOrder::Sequential,
    ];

    let mut trials = Vec::new();
    for (kind, norm) in kinds {
        for augment in [Augment::None, Augment::Flip, Augment::CropFlip] {
            let at = trials.len();
            let mut config = cases::on_its_images(cases::small_trial(kind.clone(), norm));
            (config.data.augment, config.data.order) = (augment, orders[at % 4]);
            (config.data.train, config.data.test, config.data.validation) = (20, 13, 30);
            (config.train.batch_size, config.train.length) = (7, Length::Steps(4));
            config.data.label_noise = if at % 3 == 1 { 0.5 } else { 0.0 };

            config.data.standardize = at % 5 != 2;
            config.train.loss = Loss::CrossEntropy {
                smoothing: if at % 4 == 1 { 0.2 } else { 0.0 },
            };
            let name = config.data.dataset;
            let mut dataset = if name == DatasetName::Glyphs {
                cases::dataset()
            } else {
                cases::noise(name)
            };

            if at % 4 == 3 {
                config.data.standardize = false;
                dataset = numbers_of(&dataset);
                config.data.dataset = dataset.name;
            }

            let what = format!("{kind:?} {augment:?} {:?} {at}", config.data.order);
            trials.push((what, config, dataset));
        }
    }

    // Numbers come under every augmentation, as they are and standardised.
    let numbers = trials
        .iter()
        .filter(|(_, _, dataset)| !dataset.train.floats.is_empty())
        .cloned();
    let standardised = numbers.map(|(what, mut config, dataset)| {
        config.data.standardize = true;
        (format!("{what} standardised"), config, dataset)
    });
    let standardised: Vec<_> = standardised.collect();
    assert!(
        standardised
            .iter()
            .any(|(_, config, _)| config.data.augment == Augment::CropFlip)
    );

    [trials, standardised].concat()
}

/// A dataset of the same images as floats.
fn numbers_of(dataset: &Dataset) -> Arc<Dataset> {
    let all = |part: &Images| -> Vec<Image> {
        let len = part.pixels.len() / part.labels.len();
        let images = part
            .pixels
            .chunks(len)
            .map(|image| image.iter().map(|p| f32::from(*p) / 99.0 - 0.7).collect());
        images.zip(part.labels.iter().copied()).take(100).collect()
    };

    made_of(&all(&dataset.train), &all(&dataset.test), dataset)
}

#[test]
fn trials_see_what_their_settings_say() {
    let measure = Measure::with_metrics(Length::Steps(1), METRICS.to_vec());
    let with_validation = Measure::with_metrics(
        Length::Steps(1),
        [&METRICS[..3], &[Metric::ValLoss, Metric::ValAcc]].concat(),
    );

    for (what, config, dataset) in trials() {
        let subset = dataset
            .choose_subset(&config.data, &cases::streams(0))
            .expect("enough images");
        let plain = Plain::new(&config, &dataset, &subset.train);
        let shown = plain.shown(&subset.train);
        let tests = [
            (plain.unchanged(&dataset.test, &subset.test), &measure),
            (
                plain.unchanged(&dataset.train, &subset.validation),
                &with_validation,
            ),
        ];

        for (test, measured) in tests {
            let made = made_of(&shown, &test, &dataset);
            let expected = cases::result_with_data(
                &on(&made, &config),
                &measure,
                (made, Isa::detect_fastest()),
                None,
            );

            let found = cases::result_with_data(
                &config,
                measured,
                (dataset.clone(), Isa::detect_fastest()),
                None,
            );
            assert_eq!(
                (&found.outcome, expected.digest),
                (&Outcome::Completed, found.digest),
                "{what}"
            );

            assert_eq!(bits(&expected), bits(&found), "{what}");
        }
    }
}

/// Where networks run on stock operations, images come to them another way.
#[test]
fn trials_on_stock_operations_see_what_their_settings_say() {
    let measure = Measure::with_metrics(Length::Steps(1), METRICS.to_vec());
    for candle in devices::candle_devices() {
        for (what, config, dataset) in trials() {
            let subset = dataset
                .choose_subset(&config.data, &cases::streams(0))
                .expect("enough images");
            let plain = Plain::new(&config, &dataset, &subset.train);
            let made = made_of(
                &plain.shown(&subset.train),
                &plain.unchanged(&dataset.test, &subset.test),
                &dataset,
            );

            let run = |config: &TrialConfig, dataset| {
                cases::result_with_data(
                    config,
                    &measure,
                    (dataset, Isa::detect_fastest()),
                    Some(&candle),
                )
            };
            let expected = run(&on(&made, &config), made);

            let found = run(&config, dataset);
            assert_eq!(
                (bits(&expected), expected.digest),
                (bits(&found), found.digest),
                "{what}"
            );
        }
    }
}

/// Nothing of the held-out images reaches the weights, the inputs of other images or the test metrics.
#[test]
fn images_to_validate_on_decide_no_bit_of_the_training() {
    let metrics = [&METRICS[..], &[Metric::ValLoss, Metric::ValAcc]].concat();
    let measure = Measure::with_metrics(Length::Steps(2), metrics);

    for (what, config, dataset) in trials()
        .into_iter()
        .filter(|(_, _, dataset)| dataset.train.floats.is_empty())
    {
        let validation = dataset
            .choose_subset(&config.data, &cases::streams(0))
            .expect("enough images")
            .validation;
        let mut other = (*dataset).clone();
        let len = other.train.pixels.len() / other.train.len();

        for i in validation {
            other.train.pixels[i as usize * len..][..len].fill(77);
        }

        let run = |dataset| {
            cases::result_with_data(&config, &measure, (dataset, Isa::detect_fastest()), None)
        };
        let a = run(dataset.clone());
        let b = run(Arc::new(other));
        assert_eq!(a.digest, b.digest, "{what}");

        for (a, b) in a.curve.values.chunks(7).zip(b.curve.values.chunks(7)) {
            assert_eq!(a[..5], b[..5], "{what}");
            assert_ne!(a[5], b[5], "{what}");
        }
    }
}

/// Numbers without sides are not shown as black, whatever the model.
#[test]
fn images_without_sides_are_not_augmented() {
    let dataset = cases::dataset();
    let images: Vec<Image> = (0..40)
        .map(|i| (vec![i as f32 / 40.0; 784], dataset.train.labels[i as usize]))
        .collect();
    let mut flat = (*made_of(&images, &images, &dataset)).clone();
    let DatasetName::File(data) = &mut flat.name else {
        panic!("it is made of numbers")
    };
    data.shape = (1, 1, 784);

    let flat = Arc::new(flat);
    let measure = Measure::with_metrics(Length::Steps(1), METRICS.to_vec());

    for kind in [
        ModelKind::Mlp { hidden: vec![24] },
        ModelKind::Cnn4 { width: 4 },
    ] {
        for augment in [Augment::None, Augment::Flip, Augment::CropFlip] {
            let mut config = cases::small_trial(kind.clone(), Norm::Batch);
            (config.data.dataset, config.data.train, config.data.test) = (flat.name, 40, 40);
            config.data.augment = augment;
            let result = cases::result_with_data(
                &config,
                &measure,
                (flat.clone(), Isa::detect_fastest()),
                None,
            );
            let is_explained = matches!(&result.outcome, Outcome::Failed { cause } if cause.contains("data.augment") && cause.contains("1×1"));

            assert_eq!(
                is_explained,
                augment != Augment::None,
                "{kind:?} {augment:?}: {:?}",
                result.outcome
            );
        }
    }
}
