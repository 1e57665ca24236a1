//! Checks of what a sweep names beside its file: its dataset, and the files that come with it.

use crate::config::TrialConfig;
use crate::dataset::DataError;
use crate::dataset::name::DatasetName;
use crate::net::Net;
use crate::pinned_file::FilePin;
use crate::weights::Weights;

/// The dataset that a sweep trains on, if it needs images. `configs` are those of all shape classes.
///
/// # Errors
/// The sweep trains on several.
pub fn find_dataset(configs: &[TrialConfig]) -> Result<Option<DatasetName>, DataError> {
    let Some(first) = configs.iter().find(|c| c.uses_dataset()) else {
        return Ok(None);
    };
    let name = first.data.dataset;
    if let Some(other) = configs.iter().find(|c| c.data.dataset != name) {
        let a = name.as_str();
        let b = other.data.dataset.as_str();
        return Err(DataError(format!(
            "a sweep trains on one dataset, this one on {a} and {b}: launch two sweeps"
        )));
    }

    Ok(Some(name))
}

/// Number of images that are read from the training part: the most that a shape class takes, to train and to validate on.
pub fn count_needed_images(configs: &[TrialConfig]) -> u32 {
    configs
        .iter()
        .map(|config| config.data.train + config.data.validation)
        .max()
        .unwrap_or_default()
}

/// Checks that the content of a file has the tensors of every network that starts from it, by name, shape and type, and returns
/// the number of these networks.
///
/// # Errors
/// A tensor is missing, unknown, not finite, or of another shape or type.
pub fn check_initial_weights(
    pin: &FilePin,
    content: &[u8],
    configs: &[TrialConfig],
) -> Result<usize, DataError> {
    let starting = configs
        .iter()
        .filter(|config| config.model.init_file == Some(pin.hash));
    let mut count = 0;
    for net in starting.filter_map(Net::from_config) {
        Weights::from_safetensors(content, &net)
            .map_err(|e| DataError(format!("model.init.file: {}: {e}", pin.path)))?;
        count += 1;
    }

    Ok(count)
}
