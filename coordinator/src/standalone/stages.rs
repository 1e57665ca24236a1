//! The stages of a sweep file, which are run after the file itself, in their order.

use ergodic_common::config::{MAIN_STAGE, ResultsSource};
use ergodic_common::ids::SweepId;
use ergodic_common::spec::stage::format_stage_setting;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::status::UserError;

use crate::client::args::SettingArgs;
use crate::client::sweep_file::{SweepFile, read_launch_spec, read_sweep_file};

/// A stage of a sweep file.
pub(super) struct FileStage {
    pub(super) name: String,
    pub(super) file: SweepFile,
    pub(super) spec: Spec,
}

/// Reads the stages of the file that was read as `spec`; none if one of them was chosen.
///
/// # Errors
/// A stage cannot be read, or does not fit those that it starts from.
pub(super) fn read_stages(
    path: &str,
    change: &SettingArgs,
    spec: &Spec,
) -> Result<Vec<FileStage>, UserError> {
    if spec.stages.chosen.is_some() {
        return Ok(Vec::new());
    }

    let mut stages: Vec<FileStage> = Vec::with_capacity(spec.stages.names.len());
    for name in &spec.stages.names {
        let stage = read_stage(path, change, name).and_then(|stage| {
            stage.check_start(spec, &stages)?;
            Ok(stage)
        });
        let stage = stage.map_err(|error| {
            UserError::new(error.code, format!("stage {name}: {}", error.message))
        })?;
        stages.push(stage);
    }
    Ok(stages)
}

fn read_stage(path: &str, change: &SettingArgs, name: &str) -> Result<FileStage, UserError> {
    let file = read_sweep_file(path, &change.resolve_for_stage(name))?;
    let spec = read_launch_spec(&file.source)?;
    let name = name.to_owned();
    Ok(FileStage { name, file, spec })
}

impl FileStage {
    /// Checks that the file without a stage, and the stages before this one, keep what its trials start from.
    fn check_start(&self, main: &Spec, before: &[Self]) -> Result<(), UserError> {
        let find = |name: &str| match name {
            MAIN_STAGE => Some(main),
            _ => before
                .iter()
                .find(|stage| stage.name == name)
                .map(|stage| &stage.spec),
        };
        let checked = self.spec.check_taken_weights(&self.file.source, find);
        checked.map_err(|error| UserError::new(ErrorCode::BadInput, error.to_string()))
    }
}

/// The stages of the same file whose results the trials of a stage start from; `main` is the file itself.
pub(super) fn list_source_stages(spec: &Spec) -> Vec<String> {
    let selections = spec.list_results_selections().into_values();
    let mut names: Vec<String> = selections
        .filter_map(|selection| match selection.source {
            ResultsSource::Stage(name) => Some(name),
            ResultsSource::Sweep(_) => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The file of a stage with the sweeps of those that it starts from, of which `find` knows the ids.
pub(super) fn name_source_sweeps(
    file: &SweepFile,
    spec: &Spec,
    find: impl Fn(&str) -> Option<SweepId>,
) -> SweepFile {
    let mut file = file.clone();
    for name in list_source_stages(spec) {
        let known = file.source.stage_sweep(&name).is_some();
        if let Some(id) = find(&name).filter(|_| !known) {
            file.source.settings.push(format_stage_setting(&name, &id));
        }
    }
    file
}

/// The name by which stages name this one, or the file itself.
pub(super) fn stage_name(chosen: Option<&str>) -> &str {
    chosen.unwrap_or(MAIN_STAGE)
}
