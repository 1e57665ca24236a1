//! Images with channels first, as the tensors of experiments have them.

use candle_core::Result;
use ergodic_common::dataset::Target;
use ergodic_common::dataset::name::DatasetName;

use super::tensors::{ExperimentData, PartAnswers, PartNumbers};
use super::{ImageBatch, PixelData, TrialData, standardize_value};

impl TrialData {
    /// The chosen images as tensors, which are made at the first call.
    ///
    /// # Errors
    /// The tensors cannot be made.
    pub(crate) fn tensors(&self) -> std::result::Result<&ExperimentData, String> {
        let made = self.tensors.get_or_init(|| {
            let built = self.build_tensors();
            built.map_err(|error| format!("the data cannot become tensors: {error}"))
        });
        made.as_ref().map_err(Clone::clone)
    }

    fn build_tensors(&self) -> Result<ExperimentData> {
        let name = self.dataset.name;
        let (height, width, channels) = name.image_shape();
        let image = (channels as usize, height as usize, width as usize);
        let batches = [
            self.train_batch(&self.subset.train),
            self.validation_batch(&self.subset.validation),
            self.test_batch(&self.subset.test),
        ];
        let targets = name.target_count() as usize;
        let [train, validation, test] = batches.map(|batch| {
            let numbers = batch.list_numbers(image.0, targets);
            numbers.into_tensors(image)
        });

        let ((x_train, y_train), (x_validation, y_validation)) = (train?, validation?);
        let (x_test, y_test) = test?;
        Ok(ExperimentData {
            name: match name {
                DatasetName::File(_) => "file".to_owned(),
                name => name.as_str().to_owned(),
            },
            classes: name.class_count() as usize,
            x_train,
            y_train,
            x_validation,
            y_validation,
            x_test,
            y_test,
        })
    }
}

impl ImageBatch<'_> {
    /// The images, scaled to inputs, with channels first, and their labels, or so many targets each.
    fn list_numbers(&self, channels: usize, targets: usize) -> PartNumbers {
        let (height, width) = self.sides;
        let pixels = height * width;
        let mut points = Vec::with_capacity(self.len() * channels * pixels);
        for image in self.indices {
            let start = *image as usize * pixels * channels;
            for channel in 0..channels {
                let places = (start + channel..start + pixels * channels).step_by(channels);
                points.extend(places.map(|at| self.pixels.input_at(at, channel)));
            }
        }

        PartNumbers {
            points,
            answers: self.list_answers(targets),
        }
    }

    fn list_answers(&self, width: usize) -> PartAnswers {
        let mut labels = Vec::new();
        let mut targets = Vec::new();
        for target in self.targets() {
            match target {
                Target::Label(label) => labels.push(u32::from(label)),
                Target::Numbers(numbers) => targets.extend(numbers),
            }
        }

        match width {
            0 => PartAnswers::Labels(labels),
            width => PartAnswers::Targets(targets, width),
        }
    }
}

impl PixelData<'_> {
    /// The input of a number, which belongs to this channel.
    fn input_at(&self, at: usize, channel: usize) -> f32 {
        match self {
            Self::Bytes(all, tables) => tables[channel][usize::from(all[at])],
            Self::Floats(all, moments) => standardize_value(all[at], moments[channel]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ergodic_common::config::DataConfig;
    use ergodic_common::dataset::{Dataset, Images};
    use ergodic_common::ids::{CellHash, FileHash, Repeat};
    use ergodic_common::pinned_file::FileData;
    use ergodic_common::random_streams::{SeedPlan, Streams};

    use super::*;

    /// Four training images and one test image of 2×3 pixels with two channels. The number of a pixel says where it is.
    fn dataset(floats: bool, targets: u32) -> Dataset {
        let part = |labels: &[u8]| {
            let numbers = 0..labels.len() * 12;
            let (pixels, numbers) = match floats {
                false => (numbers.map(|at| at as u8).collect(), Vec::new()),
                true => (Vec::new(), numbers.map(|at| at as f32 / 8.0).collect()),
            };
            Images {
                pixels,
                floats: numbers,
                labels: labels.to_vec(),
                targets: (0..labels.len() as u32 * targets)
                    .map(|n| n as f32)
                    .collect(),
            }
        };
        let name = DatasetName::File(FileData {
            hash: FileHash([1; 32]),
            sizes: (4, 1),
            shape: (2, 3, 2),
            classes: if targets == 0 { 3 } else { 0 },
            floats,
            targets,
        });
        Dataset {
            name,
            train: part(&[0, 1, 2, 1]),
            test: part(&[2]),
        }
    }

    fn tensors(floats: bool, standardize: bool, validation: u32) -> ExperimentData {
        tensors_of(dataset(floats, 0), standardize, validation)
    }

    fn tensors_of(dataset: Dataset, standardize: bool, validation: u32) -> ExperimentData {
        let config = DataConfig {
            standardize,
            validation,
            ..DataConfig::new(dataset.name, 4 - validation, 1)
        };
        let streams = Streams {
            sweep_seed: 3,
            repeat: Repeat(0),
            cell: CellHash([0; 32]),
            plan: SeedPlan::default(),
        };
        let data = TrialData::new(Arc::new(dataset), &config, &streams).expect("enough images");
        let first = data.tensors().expect("tensors");
        let again = data.tensors().expect("the same tensors");
        assert!(std::ptr::eq(first, again));
        first.clone()
    }

    #[test]
    fn channels_come_first_and_numbers_are_scaled_as_those_of_built_in_trainings() {
        for (floats, unit) in [(false, 1.0 / 255.0), (true, 1.0 / 8.0)] {
            let data = tensors(floats, false, 0);
            assert_eq!((data.name.as_str(), data.classes), ("file", 3));
            assert_eq!(data.x_train.dims(), [4, 2, 2, 3]);
            let x = data.x_train.get(1).expect("an image");
            let x = x.to_vec3::<f32>().expect("numbers");
            for (c, plane) in x.iter().enumerate() {
                for (row, line) in plane.iter().enumerate() {
                    for (column, found) in line.iter().enumerate() {
                        let at = 12 + (row * 3 + column) * 2 + c;
                        assert_eq!(*found, (at as f64 * unit) as f32, "{c} {row} {column}");
                    }
                }
            }
            let labels = data.y_train.to_vec1::<u32>().expect("labels");
            assert_eq!(labels, [0, 1, 2, 1]);
            assert_eq!(data.x_validation.dims(), [0, 2, 2, 3]);
            assert_eq!(data.y_validation.dims(), [0]);
            assert_eq!(data.x_test.dims(), [1, 2, 2, 3]);
            assert_eq!(data.y_test.to_vec1::<u32>().expect("a label"), [2]);
        }
    }

    #[test]
    fn every_channel_is_standardized_and_points_are_held_out() {
        for floats in [false, true] {
            let data = tensors(floats, true, 0);
            for channel in 0..2 {
                let x = data.x_train.narrow(1, channel, 1).expect("a channel");
                let x = x.flatten_all().and_then(|x| x.to_vec1::<f32>());
                let x = x.expect("numbers");
                let mean = x.iter().sum::<f32>() / 24.0;
                let square = x.iter().map(|x| x * x).sum::<f32>() / 24.0;
                assert!(mean.abs() < 1e-5 && (square - 1.0).abs() < 1e-5, "{x:?}");
            }
        }

        let data = tensors(false, false, 1);
        assert_eq!(data.x_train.dims(), [3, 2, 2, 3]);
        assert_eq!(data.x_validation.dims(), [1, 2, 2, 3]);
    }

    #[test]
    fn targets_are_numbers_as_the_file_has_them() {
        let data = tensors_of(dataset(true, 2), true, 1);
        assert_eq!(data.classes, 0);
        let all = |tensor: &candle_core::Tensor| tensor.to_vec2::<f32>().expect("targets");
        assert_eq!(data.x_train.dims(), [3, 2, 2, 3]);
        assert_eq!(all(&data.y_train).len(), 3);
        assert_eq!(all(&data.y_validation).len(), 1);
        assert_eq!(all(&data.y_test), [[0.0, 1.0]]);
        let mut numbers = [all(&data.y_train), all(&data.y_validation)]
            .concat()
            .concat();
        numbers.sort_by(f32::total_cmp);
        assert_eq!(numbers, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }
}
