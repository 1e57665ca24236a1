//! Files that a sweep file names, pinned by their content, so that a sweep means the same on every machine.

use std::fmt;

/// The suffix of files that a sweep file may name.
pub const SAFETENSORS_SUFFIX: &str = ".safetensors";

/// A file that a sweep file names, as it was at the launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePin {
    /// Path of the file, as the sweep file has it.
    pub path: String,
    /// BLAKE3 of its content.
    pub hash: [u8; 32],
    /// The dataset in the file, if it holds one.
    pub images: Option<FileData>,
}

/// A dataset in a safetensors file, by its content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileData {
    /// BLAKE3 of the file.
    pub hash: [u8; 32],
    /// Training and test images.
    pub sizes: (u32, u32),
    /// Height, width and channels of an image.
    pub shape: (u32, u32, u32),
    /// Number of classes: the largest label and one.
    pub classes: u32,
    /// Whether its numbers are floats, of four bytes each.
    pub floats: bool,
}

impl fmt::Debug for FileData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileData({})", hex::encode(self.hash))
    }
}
