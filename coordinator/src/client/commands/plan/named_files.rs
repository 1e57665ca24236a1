//! What a sweep names beside its file, checked as its launch checks it.

use std::path::Path;

use ergodic_common::dataset::name::DatasetName;
use ergodic_common::dataset::{DataError, Dataset, DatasetSummary, files};
use ergodic_common::named_files::{check_initial_weights, count_needed_images, find_dataset};
use ergodic_common::number_format::format_count;
use ergodic_common::{ErrorCode, Spec, TrialConfig};
use ergodic_proto::status::UserError;

use crate::client::sweep_file::SweepFile;

/// The dataset of a sweep, and what was checked.
#[derive(Debug, Default)]
pub struct NamedFiles {
    /// A description of the dataset, if it was read here.
    pub dataset: Option<DatasetSummary>,
    /// The coordinator that is to have the dataset, which was not read here.
    pub left_to: Option<String>,
    /// What was checked, and what was not, in words.
    pub checks: Vec<String>,
}

/// Where datasets are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DatasetPlace<'a> {
    /// The folder of datasets here.
    pub(super) data_dir: Option<&'a Path>,
    /// The coordinator that the user named: without a folder of datasets here, they are left to it, because it reads its own.
    pub(super) coordinator: Option<&'a str>,
    /// Whether the sweep is to be run on this machine, with the datasets that are here.
    pub(super) is_run_here: bool,
}

/// Reads and checks what a sweep names that is to be run on this machine.
///
/// # Errors
/// A launch would refuse it.
pub fn check_local_files(
    file: &SweepFile,
    spec: &Spec,
    data_dir: Option<&Path>,
) -> Result<(), UserError> {
    let place = DatasetPlace {
        data_dir,
        coordinator: None,
        is_run_here: true,
    };
    inspect_named_files(file, spec, place).map(drop)
}

/// Reads and checks what the sweep names.
///
/// # Errors
/// A launch would refuse it.
pub(super) fn inspect_named_files(
    file: &SweepFile,
    spec: &Spec,
    place: DatasetPlace<'_>,
) -> Result<NamedFiles, UserError> {
    let inspected = inspect_files(file, spec, place);
    inspected.map_err(|e| UserError::new(ErrorCode::BadInput, format!("{}: {e}", file.source.file)))
}

fn inspect_files(
    file: &SweepFile,
    spec: &Spec,
    place: DatasetPlace<'_>,
) -> Result<NamedFiles, DataError> {
    let configs = spec.grid.class_configs();
    let cells = spec.grid.cell_count();
    let mut checks = vec![format!("the file and its {}", format_count(cells, "cell"))];

    for (pin, content) in file.source.files.iter().zip(&file.contents) {
        if pin.is_program_bundle() {
            continue;
        }
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
            checks,
            ..NamedFiles::default()
        });
    };
    let title = name.as_str();
    let is_left = is_left_to_coordinator(name, place.data_dir);
    if let Some(url) = place.coordinator.filter(|_| is_left) {
        checks.push(format!("not {title}, which the coordinator reads"));
        return Ok(NamedFiles {
            left_to: Some(url.to_owned()),
            checks,
            ..NamedFiles::default()
        });
    }

    let dataset = summarize_dataset(file, spec, name, place, &configs)?;
    checks.push(format!("the images and labels of {title}"));
    Ok(NamedFiles {
        dataset: Some(dataset),
        checks,
        ..NamedFiles::default()
    })
}

/// Whether a coordinator reads a dataset from a folder of its own, and no folder is named here.
fn is_left_to_coordinator(name: DatasetName, data_dir: Option<&Path>) -> bool {
    let has_files = !matches!(name, DatasetName::Glyphs | DatasetName::File(_));
    has_files && data_dir.is_none()
}

/// Describes a dataset.
fn summarize_dataset(
    file: &SweepFile,
    spec: &Spec,
    name: DatasetName,
    place: DatasetPlace<'_>,
    configs: &[TrialConfig],
) -> Result<DatasetSummary, DataError> {
    match name {
        DatasetName::File(data) => {
            let mut files = file.source.files.iter().zip(&file.contents);
            let Some((pin, content)) = files.find(|(pin, _)| pin.hash == data.hash) else {
                let message = "data.dataset: the file is not among those that the sweep names";
                return Err(DataError(message.to_owned()));
            };
            Dataset::decode(content)?.summarize_use(&pin.path, data.dataset_hash(), spec, configs)
        }
        name => {
            let dataset = files::load_dataset(name, place.data_dir, count_needed_images(configs))
                .map_err(|error| explain_missing_dataset(error, place))?;
            let hash = blake3::hash(&dataset.encode_canonical());
            dataset.summarize_use(name.as_str(), hash.into(), spec, configs)
        }
    }
}

/// The error of a dataset, with how to plan the sweep where only a coordinator has it.
fn explain_missing_dataset(error: DataError, place: DatasetPlace<'_>) -> DataError {
    match place.data_dir {
        Some(_) => error,
        None if place.is_run_here => error,
        None => DataError(format!(
            "{error}. If a coordinator has them, name it with --coordinator URL: it reads its own, and they are not checked here"
        )),
    }
}

#[cfg(test)]
mod tests {
    use ergodic_common::spec::SpecSource;

    use crate::client::commands::plan::named_files::*;
    use crate::client::sweep_file::read_launch_spec;

    #[test]
    fn a_dataset_that_is_nowhere_is_refused_unless_a_coordinator_reads_it() {
        let source = SpecSource {
            file: "digits.toml".to_owned(),
            text: "name = \"digits\"\nrepeats = 2\nseed = 7\n[data]\ndataset = \"mnist\"\ntrain = 500\ntest = 100\n[model]\n\
                   kind = \"mlp\"\nhidden = [24]\n[train]\nsteps = 40\nbatch_size = 32\n[grid]\nlr = [0.05, 0.2]\n\
                   [measure]\nevery = \"10 steps\"\nmetrics = [\"test_acc\"]\n"
                .to_owned(),
            ..SpecSource::default()
        };
        let spec = read_launch_spec(&source).expect("a sweep");
        let file = SweepFile {
            source,
            contents: Vec::new(),
        };

        let refused =
            inspect_named_files(&file, &spec, DatasetPlace::default()).expect_err("it is nowhere");
        for words in [
            "digits.toml: mnist needs files",
            "--data-dir DIR",
            "--coordinator URL",
        ] {
            assert!(refused.message.contains(words), "{refused}");
        }
        let at_a_coordinator = DatasetPlace {
            coordinator: Some("http://a:1"),
            ..DatasetPlace::default()
        };
        let elsewhere = inspect_named_files(&file, &spec, at_a_coordinator);
        assert_eq!(
            elsewhere.map(|named| (named.dataset, named.left_to)),
            Ok((None, Some("http://a:1".to_owned())))
        );
    }
}
