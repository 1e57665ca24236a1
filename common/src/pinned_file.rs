//! Files that a sweep file names, pinned by hash, so that a sweep means the same on every machine.

use std::fmt;

use crate::ids::{DatasetHash, FileHash};

/// The suffix of files that a sweep file may name.
pub const SAFETENSORS_SUFFIX: &str = ".safetensors";

/// The path of the pin that holds the bundle of a program's files. No file is called so.
pub const PROGRAM_BUNDLE: &str = "ergodic:program-files";

/// A file that a sweep file names, with the hash that it had at the launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePin {
    /// Path of the file as written in the sweep file.
    pub path: String,
    /// BLAKE3 hash of the content.
    pub hash: FileHash,
    /// The dataset in the file, if it holds one.
    pub images: Option<FileData>,
}

impl FilePin {
    /// Whether the sweep file names the file; the launch adds others, which stand for results of other sweeps.
    pub fn is_named_by_sweep_file(&self) -> bool {
        self.path.ends_with(SAFETENSORS_SUFFIX) || self.is_program_bundle()
    }

    /// Whether the file is a dataset with targets.
    pub fn has_targets(&self) -> bool {
        self.images.is_some_and(|data| data.targets > 0)
    }

    /// Whether the file is the bundle of a program's files.
    pub fn is_program_bundle(&self) -> bool {
        self.path == PROGRAM_BUNDLE
    }

    /// The pin of a program's bundle.
    pub fn of_program_bundle(bundle: &[u8]) -> Self {
        Self {
            path: PROGRAM_BUNDLE.to_owned(),
            hash: blake3::hash(bundle).into(),
            images: None,
        }
    }
}

/// A dataset in a safetensors file, identified by its hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileData {
    /// BLAKE3 hash of the file.
    pub hash: FileHash,
    /// Numbers of training and test images.
    pub sizes: (u32, u32),
    /// Height, width and channels of an image.
    pub shape: (u32, u32, u32),
    /// Number of classes: the largest label plus 1; 0 if images have targets.
    pub classes: u32,
    /// Number of targets of an image; 0 if images have labels.
    pub targets: u32,
    /// Whether the pixels are floats of four bytes rather than bytes.
    pub floats: bool,
}

impl FileData {
    /// The hash of the dataset: the canonical form of one that comes in a file is the file.
    pub fn dataset_hash(&self) -> DatasetHash {
        DatasetHash(self.hash.0)
    }
}

impl fmt::Debug for FileData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileData({})", self.hash)
    }
}
