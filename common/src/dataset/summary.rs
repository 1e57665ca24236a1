//! Describes a dataset in words, so that the user who launches a sweep sees whether it is the
//! intended one.

use std::fmt::Write as _;

use super::{DataError, Dataset, Images, Subset};
use crate::Spec;
use crate::config::{DataConfig, TrialConfig};
use crate::dataset::name::DatasetName;
use crate::ids::{CellHash, DatasetHash};
use crate::number_format::format_count;
use crate::trial::TrialKey;

/// A description of the data that a new sweep trains on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetSummary {
    /// The number of images, and how they are chosen.
    pub provenance: String,
    /// Shape and range of the images, and number of images per class.
    pub description: String,
}

/// Maximum number of classes whose images are counted one by one.
const MAX_LISTED_CLASSES: usize = 20;

impl Dataset {
    /// Describes the data that a new sweep trains on. `configs` has one config of every shape
    /// class, `named` is the dataset, and `hash` is the hash of its canonical encoding.
    ///
    /// # Errors
    /// The dataset has too few images, or would be misread.
    pub fn summarize_use(
        &self,
        named: &str,
        hash: DatasetHash,
        spec: &Spec,
        configs: &[TrialConfig],
    ) -> Result<DatasetSummary, DataError> {
        self.refuse_misread(named)?;
        let train = largest_size(configs, |data| data.train);
        let test = largest_size(configs, |data| data.test);
        let validation = largest_size(configs, |data| data.validation);
        self.check_image_counts(
            named,
            largest_size(configs, |data| data.train + data.validation),
            test,
        )?;

        let Some(first) = configs.iter().find(|config| config.uses_dataset()) else {
            return Ok(DatasetSummary {
                provenance: "no data".into(),
                description: String::new(),
            });
        };

        // No cell may use as many training and validation images together as the largest of each,
        // so the sum is limited to what exists.
        let train = train.min(self.train.len() as u32 - validation);
        let used = DataConfig {
            train,
            test,
            validation,
            ..first.data.clone()
        };

        // The images depend on the sweep's seed alone, so the streams of any trial choose the same
        // ones.
        let subset = self.choose_subset(
            &used,
            &spec.trial_streams(TrialKey::new(0, 0), CellHash([0; 32])),
        )?;
        let up_to = configs
            .iter()
            .any(|config| (config.data.train, config.data.test) != (train, test));
        let words = format!(
            "{named}: {}{}; blake3 {}",
            if up_to { "up to " } else { "" },
            self.describe_provenance(spec.seed, &subset),
            &hash.to_string()[..16]
        );

        Ok(DatasetSummary {
            provenance: words,
            description: self.describe_images(&used, &subset),
        })
    }

    /// Refuses more images than the files hold: `train` counts training and validation images
    /// together.
    fn check_image_counts(&self, named: &str, train: u32, test: u32) -> Result<(), DataError> {
        for (field, word, n, part) in [
            ("train", "training", train, &self.train),
            ("test", "test", test, &self.test),
        ] {
            if n as usize > part.len() {
                let there = part.len();
                return Err(DataError(format!(
                    "data.{field}: {named} has {there} {word} images here, not {n}: set data.{field} = {there}, or fewer"
                )));
            }
        }

        Ok(())
    }

    /// `2000 of 10000 training images, all 2000 test images, class-balanced by seed 20`
    fn describe_provenance(&self, seed: u64, subset: &Subset) -> String {
        let (of_train, of_test) = self.name.split_sizes();
        let parts = [
            ("training", &subset.train, &self.train, of_train as usize),
            ("test", &subset.test, &self.test, of_test as usize),
        ];
        let [trained, tested] = parts
            .each_ref()
            .map(|(word, used, part, whole)| describe_count(word, used.len(), part.len(), *whole));

        let aside = match subset.validation.len() {
            0 => String::new(),
            n => format!(", {n} others to validate on"),
        };
        let mut out = format!("{trained}{aside}, {tested}");
        let mut chosen = parts
            .iter()
            .filter(|(_, used, part, _)| used.len() < part.len())
            .peekable();
        if chosen.peek().is_none() {
            return out;
        }

        let how = if self.name.has_targets() {
            "chosen"
        } else if chosen.all(|(_, used, part, _)| self.is_class_balanced(used, part)) {
            "class-balanced"
        } else {
            "as class-balanced as they allow"
        };
        let _ = write!(out, ", {how} by seed {seed}");

        out
    }

    fn is_class_balanced(&self, used: &[u32], part: &Images) -> bool {
        let counts = self.class_counts(used, part);
        counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0) <= 1
    }

    /// Number of images of each class.
    fn class_counts(&self, used: &[u32], part: &Images) -> Vec<usize> {
        let mut counts = vec![0; self.name.class_count() as usize];
        used.iter()
            .for_each(|at| counts[part.labels[*at as usize] as usize] += 1);
        counts
    }

    /// `28×28×1, bytes 0 … 255, standardized; 10 classes of 200 training images each`
    fn describe_images(&self, config: &DataConfig, subset: &Subset) -> String {
        let (height, width, channels) = self.name.image_shape();
        let range = match value_range(&self.train) {
            ValueRange::Bytes(low, high) => format!("bytes {low} … {high}"),
            ValueRange::Numbers(low, high) => format!("numbers {low} … {high}"),
        };
        let inputs = match (config.standardize, self.train.floats.is_empty()) {
            (true, _) => "standardized per channel",
            (false, true) => "divided by 255",
            (false, false) => "taken as they are",
        };

        let outputs = match self.name.target_count() {
            0 => self.describe_classes(config, subset),
            targets => self.describe_targets(targets),
        };
        format!(
            "{height}×{width}×{channels} (height × width × channels), {range}, {inputs}; {outputs}"
        )
    }

    /// `10 classes of 200 training images each, of whose labels 0.1 are replaced`
    fn describe_classes(&self, config: &DataConfig, subset: &Subset) -> String {
        let counts = self.class_counts(&subset.train, &self.train);
        let classes = counts.len();
        let least = counts.iter().min().unwrap_or(&0);
        let most = counts.iter().max().unwrap_or(&0);
        let of_each = match (least == most, classes <= MAX_LISTED_CLASSES) {
            (true, _) => format!("{classes} classes of {most} training images each"),
            (false, true) => {
                let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
                format!("{classes} classes of {} training images", counts.join(", "))
            }
            (false, false) => format!("{classes} classes of {least} to {most} training images"),
        };

        let noise = match config.label_noise {
            0.0 => String::new(),
            share => format!(", of whose labels {share} are replaced"),
        };
        format!("{of_each}{noise}")
    }

    /// `2 targets of each image, numbers -1.5 … 2, taken as they are`
    fn describe_targets(&self, targets: u32) -> String {
        let (low, high) = number_range(&self.train.targets);
        let mut all = self.train.targets.iter().chain(&self.test.targets);
        let hint = match all.all(|x| x.fract() == 0.0) {
            true => ", all of them whole: classes are U8, I32 or I64",
            false => "",
        };
        format!(
            "{} of each image, numbers {low} … {high}, taken as they are{hint}",
            format_count(targets.into(), "target")
        )
    }

    /// Refuses a file whose tensors probably mean something else: channels first, labels from 1, or
    /// pixels that are all equal.
    fn refuse_misread(&self, named: &str) -> Result<(), DataError> {
        let DatasetName::File(data) = self.name else {
            return Ok(());
        };
        let (height, width, channels) = data.shape;
        if height <= 4 && width == channels && width > 4 {
            return Err(DataError(format!(
                "{named}: 'x_train' has the shape [{}, {height}, {width}, {channels}], which looks like channels first, and would \
                 be taken for {channels} channels of {height}×{width} pixels: expected [image, height, width, channel], so move \
                 the channels to the end",
                data.sizes.0
            )));
        }

        let (low, high) = number_range(&self.train.targets);
        if self.name.has_targets() && low == high {
            return Err(DataError(format!(
                "{named}: all numbers in 'y_train' are equal: there is nothing to learn"
            )));
        }

        let labels = self.train.labels.iter().chain(&self.test.labels);
        if labels.clone().all(|label| *label > 0) {
            let least = labels.clone().min().unwrap_or(&0);
            let most = labels.max().unwrap_or(&0);
            return Err(DataError(format!(
                "{named}: the labels in 'y_train' and 'y_test' go from {least} to {most}, and would be taken for {} classes of \
                 which the first have no image: expected labels from 0, so subtract {least}",
                u32::from(*most) + 1
            )));
        }

        let constant = match value_range(&self.train) {
            ValueRange::Bytes(low, high) => low == high,
            ValueRange::Numbers(low, high) => low == high,
        };
        if constant {
            return Err(DataError(format!(
                "{named}: all numbers in 'x_train' are equal: there is nothing to learn"
            )));
        }

        Ok(())
    }
}

/// `2000 of 10000 training images`: `n` of the `read` images of a part that has `whole`.
fn describe_count(word: &str, n: usize, read: usize, whole: usize) -> String {
    match (n < read, read < whole) {
        (true, true) => format!("{n} of the first {read} of {whole} {word} images"),
        (true, false) => format!("{n} of {read} {word} images"),
        // Loading stops at the images that are needed, so here `read` equals `n` and classes are
        // not balanced.
        (false, _) if n < whole => {
            format!("the first {n} of {whole} {word} images (whatever their classes)")
        }
        (false, _) => format!("all {n} {word} images"),
    }
}

fn largest_size(configs: &[TrialConfig], size: fn(&DataConfig) -> u32) -> u32 {
    configs
        .iter()
        .map(|config| size(&config.data))
        .max()
        .unwrap_or_default()
}

enum ValueRange {
    Bytes(u8, u8),
    Numbers(f32, f32),
}

fn value_range(images: &Images) -> ValueRange {
    if images.floats.is_empty() {
        let ends = images
            .pixels
            .iter()
            .fold((u8::MAX, 0), |(low, high), x| (low.min(*x), high.max(*x)));
        return ValueRange::Bytes(ends.0, ends.1);
    }

    let (low, high) = number_range(&images.floats);
    ValueRange::Numbers(low, high)
}

/// The least and the largest number.
fn number_range(numbers: &[f32]) -> (f32, f32) {
    let ends = (f32::INFINITY, f32::NEG_INFINITY);
    numbers
        .iter()
        .fold(ends, |(low, high), x| (low.min(*x), high.max(*x)))
}

#[cfg(test)]
mod tests {
    use crate::dataset::summary::*;
    use crate::ids::FileHash;
    use crate::pinned_file::{FileData, FilePin};
    use crate::spec::source::SpecSource;

    /// A dataset of a file with images of this shape, whose training images have these labels.
    fn file(shape: (u32, u32, u32), labels: &[u8], pixels: u8) -> Dataset {
        let numbers = (shape.0 * shape.1 * shape.2) as usize;
        let part = |labels: &[u8]| {
            let byte = |at: usize| {
                if pixels == 0 {
                    7
                } else {
                    (at % usize::from(pixels)) as u8
                }
            };
            Images {
                pixels: (0..numbers * labels.len()).map(byte).collect(),
                floats: Vec::new(),
                labels: labels.to_vec(),
                targets: Vec::new(),
            }
        };
        let train = part(labels);

        let test = part(&labels[..2]);
        let classes = u32::from(*labels.iter().max().expect("labels")) + 1;
        let sizes = (train.len() as u32, test.len() as u32);
        Dataset {
            name: DatasetName::File(FileData {
                hash: FileHash([1; 32]),
                sizes,
                shape,
                classes,
                targets: 0,
                floats: false,
            }),
            train,
            test,
        }
    }

    fn looks(dataset: &Dataset, data: &str) -> Result<DatasetSummary, String> {
        let DatasetName::File(images) = dataset.name else {
            panic!("of a file")
        };
        let pin = FilePin {
            path: "d.safetensors".into(),
            hash: images.hash,
            images: Some(images),
        };

        let text = format!(
            "name = \"t\"\nseed = 4\n[data]\ndataset = \"d.safetensors\"\n{data}\n[model]\nkind = \"mlp\"\nhidden = [2]\nnorm = \
             \"none\"\n[train]\nlr = 0.1\nsteps = 1\nbatch_size = 1\n"
        );
        let source = SpecSource {
            text,
            files: vec![pin],
            ..SpecSource::default()
        };
        let spec = Spec::read_new(&source).map_err(|e| e.to_string())?;
        let configs = spec.grid.class_configs();

        dataset
            .summarize_use("d.safetensors", DatasetHash([1; 32]), &spec, &configs)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_trained_on_is_said_as_it_is() {
        let data = file((2, 2, 1), &[0, 1, 0, 1, 0, 1, 0, 0], 200);
        let said = |text: &str| looks(&data, text).expect("fine");
        let all = said("");
        assert_eq!(
            all.provenance,
            "d.safetensors: all 8 training images, all 2 test images; blake3 0101010101010101"
        );

        assert_eq!(
            all.description,
            "2×2×1 (height × width × channels), bytes 0 … 31, standardized per channel; 2 classes of 5, 3 training images"
        );
        let some = said("train = 4\nstandardize = false\nlabel_noise = 0.25");
        assert!(
            some.provenance
                .contains("4 of 8 training images, all 2 test images, class-balanced by seed 4;"),
            "{some:?}"
        );

        assert!(
            some.description.contains(
                "divided by 255; 2 classes of 2 training images each, of whose labels 0.25"
            ),
            "{some:?}"
        );

        let skewed = file((2, 2, 1), &[0, 1, 0, 0, 0, 0, 0, 0], 200);
        let most = looks(&skewed, "train = 6\ntest = 1").expect("fine");
        let words =
            "6 of 8 training images, 1 of 2 test images, as class-balanced as they allow by seed 4";
        assert!(most.provenance.contains(words), "{most:?}");
    }

    /// A dataset of 8 training and 2 test images, with these targets.
    fn with_targets(train: &[f32], test: &[f32]) -> Dataset {
        let mut data = file((2, 2, 1), &[0, 1, 0, 1, 0, 1, 0, 0], 200);
        for (part, targets) in [(&mut data.train, train), (&mut data.test, test)] {
            part.labels.fill(0);
            part.targets = targets.to_vec();
        }
        let targets = data.train.target_count() as u32;
        if let DatasetName::File(images) = &mut data.name {
            (images.classes, images.targets) = (0, targets);
        }
        data
    }

    #[test]
    fn targets_are_described_as_they_are() {
        let mut numbers: Vec<f32> = (0..16).map(|i| i as f32 / 4.0 - 1.0).collect();
        let all = looks(&with_targets(&numbers, &[9.5; 4]), "").expect("fine");
        assert_eq!(
            all.description,
            "2×2×1 (height × width × channels), bytes 0 … 31, standardized per channel; 2 targets of each image, numbers -1 … 2.75, \
             taken as they are"
        );
        numbers.truncate(8);
        let one = looks(&with_targets(&numbers, &[9.5; 2]), "train = 4").expect("fine");
        let words = "4 of 8 training images, all 2 test images, chosen by seed 4;";
        assert!(one.provenance.contains(words), "{one:?}");
        assert!(
            one.description.contains("1 target of each image"),
            "{one:?}"
        );

        let whole: Vec<f32> = (0..8).map(|i| i as f32).collect();
        let whole = looks(&with_targets(&whole, &[1.0; 2]), "").expect("fine");
        let hint =
            "numbers 0 … 7, taken as they are, all of them whole: classes are U8, I32 or I64";
        assert!(whole.description.ends_with(hint), "{whole:?}");
        let error = looks(&with_targets(&[2.5; 8], &[1.0; 2]), "").expect_err("constant");
        assert!(
            error.contains("all numbers in 'y_train' are equal"),
            "{error}"
        );
    }

    #[test]
    fn whole_files_of_several_are_not_called_balanced() {
        let images = |labels: &[u8]| Images {
            pixels: Vec::new(),
            labels: labels.to_vec(),
            ..Images::default()
        };
        let cifar = Dataset {
            name: DatasetName::Cifar10,
            train: images(&[3, 3, 3, 5]),
            test: images(&[0, 1]),
        };

        let subset = |train: &[u32]| Subset {
            train: train.to_vec(),
            test: vec![0],
            validation: Vec::new(),
        };

        let all = "the first 4 of 50000 training images (whatever their classes), 1 of the first 2 of 10000 test images, \
                   class-balanced by seed 4";
        assert_eq!(cifar.describe_provenance(4, &subset(&[0, 1, 2, 3])), all);
        let some = "2 of the first 4 of 50000 training images, 1 of the first 2 of 10000 test images, class-balanced by seed 4";
        assert_eq!(cifar.describe_provenance(4, &subset(&[0, 3])), some);
    }

    #[test]
    fn a_dataset_that_would_be_taken_for_another_one_is_refused() {
        let labels = [0, 1, 0, 1];
        for (dataset, words) in [
            (file((3, 32, 32), &labels, 200), "looks like channels first"),
            (file((1, 28, 28), &labels, 200), "looks like channels first"),
            (file((2, 2, 1), &[1, 2, 3, 1], 200), "go from 1 to 3"),
            (file((2, 2, 1), &labels, 0), "nothing to learn"),
        ] {
            let error = looks(&dataset, "").expect_err(words);
            assert!(
                error.contains(words) && error.contains("d.safetensors"),
                "{error}"
            );
        }

        for fine in [
            file((32, 32, 3), &labels, 200),
            file((1, 1, 64), &labels, 200),
            file((4, 4, 4), &labels, 200),
        ] {
            assert_eq!(looks(&fine, "").map(|_| ()), Ok(()));
        }

        // As a file of which only a part is there.
        let mut cut = file((2, 2, 1), &labels, 200);
        cut.train.labels.pop();
        let error = looks(&cut, "").expect_err("too few");
        assert!(
            error.contains("has 3 training images here, not 4: set data.train = 3"),
            "{error}"
        );
    }
}
