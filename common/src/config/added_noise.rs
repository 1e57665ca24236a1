//! The settings of `[train] added_noise`.

use super::range_for_key;
use crate::spec_file::error::SpecError;
use crate::spec_file::reader::TableReader;

/// Noise that is added to the gradient of each step: Σₖ ξₖ·(gₖ − gₖ')/√(2K), where gₖ and gₖ' are the gradients of K pairs of
/// independent batches at the weights of the step, and ξₖ standard normal numbers (Wu et al. 2020, Zhu et al. 2019). Its mean is
/// 0 and its covariance that of the gradient of one such batch; given the batches, it is normal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddedNoise {
    /// Number of images in each batch, drawn with replacement.
    pub images: u32,
    /// The number K of pairs.
    pub pairs: u32,
}

impl AddedNoise {
    /// Number of images whose gradients a step takes for the noise.
    pub fn images_per_step(self) -> u64 {
        2 * u64::from(self.pairs) * u64::from(self.images)
    }

    pub(super) fn read_section(train: &TableReader<'_>) -> Result<Option<Self>, SpecError> {
        if train.read_node("added_noise").is_none() {
            return Ok(None);
        }

        let r = train.section("added_noise")?;
        let images = r.read_whole_number("images", range_for_key(&r, "images"))?;
        let pairs = r.read_whole_number("pairs", range_for_key(&r, "pairs"))?;
        r.refuse_unknown_keys()?;

        let Some(images) = images else {
            let message = "this is needed: the number of images in the batches whose gradients make the noise";
            return Err(r.error_at("images", message).of_missing_value());
        };
        Ok(Some(Self {
            images: images as u32,
            pairs: pairs.unwrap_or(1) as u32,
        }))
    }
}
