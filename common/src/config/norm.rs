//! The norms behind layers.

use super::numeric_field_range;
use crate::spec_file::error::SpecError;
use crate::spec_file::reader::TableReader;

/// The value of `model.norm`, or of the norm of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// Batch normalization over the whole batch.
    Batch,
    /// Batch normalization over each of the ghost batches that a batch is cut into (Hoffer, Hubara and Soudry 2017).
    GhostBatch {
        /// Number of images in a ghost batch.
        size: u32,
    },
    /// Group normalization: over each image and group of channels.
    Group {
        /// Groups that the channels of every layer are cut into.
        groups: u32,
    },
    /// Layer normalization, over each image, all channels and pixels.
    Layer,
    /// No norm; layers get a bias.
    None,
}

/// Number of groups of `norm = "group"` if the file sets none.
const DEFAULT_GROUPS: u32 = 8;

/// Number of images in a ghost batch if the file sets none.
const DEFAULT_GHOST_SIZE: u32 = 16;

pub(super) const NORMS: [(&str, Norm); 5] = [
    ("batch", Norm::Batch),
    (
        "ghost-batch",
        Norm::GhostBatch {
            size: DEFAULT_GHOST_SIZE,
        },
    ),
    (
        "group",
        Norm::Group {
            groups: DEFAULT_GROUPS,
        },
    ),
    ("layer", Norm::Layer),
    ("none", Norm::None),
];

impl Norm {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::GhostBatch { .. } => "ghost-batch",
            Self::Group { .. } => "group",
            Self::Layer => "layer",
            Self::None => "none",
        }
    }

    /// Whether mean and variance are those of several images.
    pub fn is_over_images(self) -> bool {
        matches!(self, Self::Batch | Self::GhostBatch { .. })
    }

    /// The word of the norm, with the size that belongs to it.
    pub(super) fn identity_text(self) -> String {
        match self {
            Self::GhostBatch { size } => format!("ghost-batch {size}"),
            Self::Group { groups } => format!("group {groups}"),
            other => other.as_str().to_owned(),
        }
    }
}

/// Reads the norm of a model, or of one of its layers, which is `default` unless the table names another one.
pub(super) fn read_norm(r: &TableReader<'_>, default: Norm) -> Result<Norm, SpecError> {
    let norm = match r.read_word("norm", &NORMS)? {
        // The sizes of the default hold for its own sort.
        Some(named) if named.as_str() != default.as_str() => named,
        _ => default,
    };
    let groups = read_size_of_norm(r, "groups", "model.groups")?;
    let ghost_size = read_size_of_norm(r, "ghost_size", "model.ghost_size")?;

    match (norm, groups, ghost_size) {
        (_, None, None) => Ok(norm),
        (Norm::Group { .. }, Some(groups), None) => Ok(Norm::Group { groups }),
        (Norm::GhostBatch { .. }, None, Some(size)) => Ok(Norm::GhostBatch { size }),
        (Norm::Group { .. }, _, Some(_)) | (_, None, Some(_)) => Err(r.error_at(
            "ghost_size",
            "this belongs to norm = \"ghost-batch\" only: remove it, or set norm",
        )),
        (_, Some(_), _) => Err(r.error_at(
            "groups",
            "this belongs to norm = \"group\" only: remove it, or set norm",
        )),
    }
}

fn read_size_of_norm(
    r: &TableReader<'_>,
    key: &'static str,
    field: &str,
) -> Result<Option<u32>, SpecError> {
    let range = numeric_field_range(field).expect("the sizes of norms are numeric fields");
    let size = r.read_whole_number(key, range)?;
    Ok(size.map(|size| size as u32))
}
