//! The settings of `[data]`.

use super::{range_for_key, word_for_value};
use crate::dataset::name::DatasetName;
use crate::pinned_file::SAFETENSORS_SUFFIX;
use crate::spec_file::error::SpecError;
use crate::spec_file::grammar::TARGETS_GRAMMAR;
use crate::spec_file::reader::TableReader;

/// The order in which training images are visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VisitOrder {
    /// A new permutation each epoch.
    Shuffle,
    /// The order of the subset, every epoch.
    Sequential,
    /// Every image drawn uniformly, independently.
    WithReplacement,
    /// The whole training set in every step.
    FullBatch,
}

pub(super) const ORDERS: [(&str, VisitOrder); 4] = [
    ("shuffle", VisitOrder::Shuffle),
    ("sequential", VisitOrder::Sequential),
    ("with-replacement", VisitOrder::WithReplacement),
    ("full-batch", VisitOrder::FullBatch),
];

/// Maximum shift of an image by `crop-flip` along each axis, in pixels.
pub const MAX_CROP_SHIFT: u32 = 4;

/// The change of a training image at each visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Augment {
    /// Images are not changed.
    None,
    /// Mirrored left to right with probability 1/2.
    Flip,
    /// Moved by up to 4 pixels along each axis, uniformly, black coming in from outside; then as [`Augment::Flip`].
    CropFlip,
}

pub(super) const AUGMENTS: [(&str, Augment); 3] = [
    ("none", Augment::None),
    ("flip", Augment::Flip),
    ("crop-flip", Augment::CropFlip),
];

/// Fields by which the trainer orders and changes images, with what an experiment does in their place.
const FIELDS_OF_TRAINER: [(&str, &str); 3] = [
    (
        "order",
        "an experiment visits its data in an order of its own: remove data.order, and draw the order from trial.rng",
    ),
    (
        "augment",
        "an experiment gets its data unchanged: remove data.augment, and change them in the experiment",
    ),
    (
        "label_noise",
        "an experiment gets labels as they are: remove data.label_noise, and change them in the experiment",
    ),
];

/// The settings of `[data]`.
#[derive(Debug, Clone, PartialEq)]
pub struct DataConfig {
    /// The dataset.
    pub dataset: DatasetName,
    /// Number of training images.
    pub train: u32,
    /// Number of test images.
    pub test: u32,
    /// Number of validation images, taken from the training part and never trained on, for the
    /// metrics `val_*`.
    pub validation: u32,
    /// The order in which training images are visited.
    pub order: VisitOrder,
    /// The change of training images.
    pub augment: Augment,
    /// Probability that a training image has the label of another class, drawn uniformly. Its label
    /// is the same in all repeats.
    pub label_noise: f64,
    /// Whether inputs have mean 0 and standard deviation 1 per channel over the training images used; otherwise they are
    /// in [0, 1].
    pub standardize: bool,
}

impl DataConfig {
    /// `train` and `test` images, shuffled and standardized, with defaults for everything else.
    pub fn new(dataset: DatasetName, train: u32, test: u32) -> Self {
        let order = VisitOrder::Shuffle;
        let augment = Augment::None;
        Self {
            dataset,
            train,
            test,
            validation: 0,
            order,
            augment,
            label_noise: 0.0,
            standardize: true,
        }
    }

    pub(crate) fn read_section(root: &TableReader<'_>) -> Result<Self, SpecError> {
        let r = root.section("data")?;
        let dataset = Self::read_dataset_name(&r)?;
        let (train_all, test_all) = dataset.split_sizes();
        let validation = read_image_count(&r, "validation", dataset, (0, train_all))?;
        let train = read_image_count(&r, "train", dataset, (train_all - validation, train_all))?;
        if train == 0 || train + validation > train_all {
            let message = format!(
                "the {validation} validation images are taken from the {train_all} training images of {}, which leaves {}: \
                 set data.train or data.validation lower",
                dataset.as_str(),
                train_all - validation
            );
            return Err(r.error_at("validation", message).of_combination());
        }

        let config = Self {
            dataset,
            train,
            test: read_image_count(&r, "test", dataset, (test_all, test_all))?,
            validation,
            order: r
                .read_word("order", &ORDERS)?
                .unwrap_or(VisitOrder::Shuffle),
            augment: r.read_word("augment", &AUGMENTS)?.unwrap_or(Augment::None),
            label_noise: r
                .read_number("label_noise", range_for_key(&r, "label_noise"))?
                .unwrap_or(0.0),
            standardize: r.read_bool("standardize")?.unwrap_or(true),
        };
        if dataset.has_targets() && config.label_noise > 0.0 {
            let message =
                "the images have targets, and no labels to replace ('y_train' is F32): remove it";
            return Err(r.error_at("label_noise", message).of_combination());
        }
        if let Some(why) = config.augment_problem() {
            r.refuse_if_new("augment", || why)
                .map_err(SpecError::of_combination)?;
        }

        r.refuse_unknown_keys()?;
        Ok(config)
    }

    /// Reads the section of an experiment, which the trainer does not see.
    ///
    /// # Errors
    /// As for any section; or a field says what only the trainer does.
    pub(crate) fn read_of_experiment(root: &TableReader<'_>) -> Result<Self, SpecError> {
        let r = root.section("data")?;
        let mut fields = FIELDS_OF_TRAINER.iter();
        match fields.find(|(key, _)| r.read_node(key).is_some()) {
            Some((key, message)) => Err(r.error_at(key, *message)),
            None => Self::read_section(root),
        }
    }

    /// Whether the sweep's seed decides which images are used, out of `read` training images and all test images.
    pub fn chooses_images(&self, read: u32) -> bool {
        let (_, test) = self.dataset.split_sizes();
        self.validation > 0 || self.train < read || self.test < test
    }

    /// Returns why the images cannot be augmented as `augment` says, such as images without sides
    /// to mirror or shift along.
    pub fn augment_problem(&self) -> Option<String> {
        let (height, width, _) = self.dataset.image_shape();
        let fits = match self.augment {
            Augment::None => true,
            Augment::Flip => width > 1,
            // A shift of an image's whole side or more would leave nothing of the image in the
            // window.
            Augment::CropFlip => height > MAX_CROP_SHIFT && width > MAX_CROP_SHIFT,
        };

        let word = word_for_value(&AUGMENTS, self.augment);
        (!fits).then(|| {
            format!(
                "\"{word}\" needs images with sides, of more than {} pixels; those of {} have {height}×{width}, as [image, feature] data \
                 have 1×1: set data.augment = \"none\", or give x_train and x_test as [image, height, width, channel]",
                if self.augment == Augment::Flip { 1 } else { MAX_CROP_SHIFT },
                self.dataset.as_str()
            )
        })
    }

    fn read_dataset_name(r: &TableReader<'_>) -> Result<DatasetName, SpecError> {
        if !r
            .read_str("dataset")?
            .is_some_and(|name| name.ends_with(SAFETENSORS_SUFFIX))
        {
            return Ok(r
                .read_word("dataset", &DatasetName::NAMES)?
                .unwrap_or(DatasetName::Glyphs));
        }

        let images = r.read_file("dataset")?.and_then(|pin| pin.images);
        let dataset = images.map(DatasetName::File).ok_or_else(|| {
            r.error_at(
                "dataset",
                "the file has no tensor 'x_train': expected x_train, y_train, x_test, y_test",
            )
        })?;
        if let Some(node) = r.read_node("dataset").filter(|_| dataset.has_targets()) {
            r.reading_mode().require_grammar(
                TARGETS_GRAMMAR,
                &node.origin,
                &r.path_to("dataset"),
            )?;
        }
        Ok(dataset)
    }
}

/// Reads a number of images, at most the `all` images of a part of the dataset.
fn read_image_count(
    r: &TableReader<'_>,
    key: &'static str,
    dataset: DatasetName,
    (default, all): (u32, u32),
) -> Result<u32, SpecError> {
    let n = r
        .read_whole_number(key, range_for_key(r, key))?
        .unwrap_or(u64::from(default));
    if n > u64::from(all) {
        let message = format!("{} has {all} images here, not {n}", dataset.as_str());
        return Err(r.error_at(key, message).of_combination());
    }

    Ok(n as u32)
}
