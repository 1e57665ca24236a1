//! What a sweep names beside its file, checked as its launch checks it.

use std::path::Path;

use ergodic_common::dataset::name::DatasetName;
use ergodic_common::dataset::{DataError, Dataset, DatasetSummary, files};
use ergodic_common::named_files::{check_initial_weights, count_needed_images, find_dataset};
use ergodic_common::{ErrorCode, Spec, TrialConfig};
use ergodic_proto::status::UserError;

use crate::client::sweep_file::SweepFile;

/// The dataset of a sweep, and what was checked.
#[derive(Debug, Default)]
pub struct NamedFiles {
    /// A description of the dataset, if it is on this machine.
    pub dataset: Option<DatasetSummary>,
    /// What was checked, and what was not, in words.
    pub checks: Vec<String>,
}

/// Reads and checks what the sweep names, where it is on this machine.
///
/// # Errors
/// A launch would refuse it.
pub(super) fn inspect_named_files(
    file: &SweepFile,
    spec: &Spec,
    data_dir: Option<&Path>,
) -> Result<NamedFiles, UserError> {
    let inspected = inspect_files(file, spec, data_dir);
    inspected.map_err(|e| UserError::new(ErrorCode::BadInput, format!("{}: {e}", file.source.file)))
}

fn inspect_files(
    file: &SweepFile,
    spec: &Spec,
    data_dir: Option<&Path>,
) -> Result<NamedFiles, DataError> {
    let configs = spec.grid.class_configs();
    let cells = spec.grid.cell_count();
    let plural = if cells == 1 { "" } else { "s" };
    let mut checks = vec![format!("the file and its {cells} cell{plural}")];

    for (pin, content) in file.source.files.iter().zip(&file.contents) {
        let networks = check_initial_weights(pin, content, &configs)?;
        if networks > 0 {
            checks.push(format!(
                "names, shapes and numbers of all tensors in {}",
                pin.path
            ));
        }
    }

    let Some(name) = find_dataset(&configs)? else {
        return Ok(NamedFiles {
            dataset: None,
            checks,
        });
    };
    let dataset = summarize_dataset(file, spec, name, data_dir, &configs)?;
    let title = name.as_str();
    checks.push(match dataset {
        Some(_) => format!("the images and labels of {title}"),
        None => format!("not {title}, which --data-dir DIR would name"),
    });

    Ok(NamedFiles { dataset, checks })
}

/// Describes a dataset, if it is on this machine.
fn summarize_dataset(
    file: &SweepFile,
    spec: &Spec,
    name: DatasetName,
    data_dir: Option<&Path>,
    configs: &[TrialConfig],
) -> Result<Option<DatasetSummary>, DataError> {
    match name {
        DatasetName::File(data) => {
            let mut files = file.source.files.iter().zip(&file.contents);
            let Some((pin, content)) = files.find(|(pin, _)| pin.hash == data.hash) else {
                return Ok(None);
            };
            Dataset::decode(content)?
                .summarize_use(&pin.path, data.dataset_hash(), spec, configs)
                .map(Some)
        }
        name if name != DatasetName::Glyphs && data_dir.is_none() => Ok(None),
        name => {
            let dataset = files::load_dataset(name, data_dir, count_needed_images(configs))?;
            let hash = blake3::hash(&dataset.encode_canonical());
            dataset
                .summarize_use(name.as_str(), hash.into(), spec, configs)
                .map(Some)
        }
    }
}
