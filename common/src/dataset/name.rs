//! The known datasets, with the sizes and shapes that are known without their files.

use crate::pinned_file::FileData;

/// A dataset that Ergodic knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DatasetName {
    /// Generated stroke-drawn digits, 28×28, ten classes: needs no files.
    Glyphs,
    /// MNIST in IDX form.
    Mnist,
    /// Fashion-MNIST in IDX form.
    FashionMnist,
    /// CIFAR-10, binary version.
    Cifar10,
    /// CIFAR-100, binary version, fine labels.
    Cifar100,
    /// A dataset in a safetensors file.
    File(FileData),
}

impl DatasetName {
    /// Names as written in a sweep file. Datasets in files are named by path.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("glyphs", Self::Glyphs),
        ("mnist", Self::Mnist),
        ("fashion-mnist", Self::FashionMnist),
        ("cifar10", Self::Cifar10),
        ("cifar100", Self::Cifar100),
    ];

    /// The name as written in a sweep file.
    pub fn as_str(self) -> &'static str {
        if let Self::File(_) = self {
            "the dataset file"
        } else {
            Self::NAMES
                .iter()
                .find(|(_, name)| *name == self)
                .map_or("?", |(word, _)| word)
        }
    }

    /// Numbers of images in the full training and test sets.
    pub fn split_sizes(self) -> (u32, u32) {
        match self {
            Self::Glyphs => (10_000, 2_000),
            Self::Mnist | Self::FashionMnist => (60_000, 10_000),
            Self::Cifar10 | Self::Cifar100 => (50_000, 10_000),
            Self::File(data) => data.sizes,
        }
    }

    /// Height, width and channels of an image.
    pub fn image_shape(self) -> (u32, u32, u32) {
        match self {
            Self::Glyphs | Self::Mnist | Self::FashionMnist => (28, 28, 1),
            Self::Cifar10 | Self::Cifar100 => (32, 32, 3),
            Self::File(data) => data.shape,
        }
    }

    /// Bytes of the whole dataset in memory.
    pub fn bytes_in_memory(self) -> u64 {
        let (train, test) = self.split_sizes();
        let (height, width, channels) = self.image_shape();
        let number = if matches!(self, Self::File(data) if data.floats) {
            4
        } else {
            1
        };
        let image = number * u64::from(height) * u64::from(width) * u64::from(channels);
        u64::from(train + test) * (image + 1 + 4 * u64::from(self.target_count()))
    }

    /// Number of targets of an image; 0 if images have labels.
    pub fn target_count(self) -> u32 {
        match self {
            Self::File(data) => data.targets,
            _ => 0,
        }
    }

    /// Whether images have targets of a regression instead of labels.
    pub fn has_targets(self) -> bool {
        self.target_count() > 0
    }

    /// Number of outputs of a network: one for each class, or for each target.
    pub fn output_count(self) -> u32 {
        match self.target_count() {
            0 => self.class_count(),
            targets => targets,
        }
    }

    /// Number of classes; 0 if images have targets.
    pub fn class_count(self) -> u32 {
        match self {
            Self::Cifar100 => 100,
            Self::File(data) => data.classes,
            _ => 10,
        }
    }
}
