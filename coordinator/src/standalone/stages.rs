//! The stages of a sweep file, which are run after the file itself, in their order.

use ergodic_common::Spec;
use ergodic_common::config::{MAIN_STAGE, ResultsSource};
use ergodic_common::ids::SweepId;
use ergodic_common::spec::stage::format_stage_setting;
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
/// A stage cannot be read.
pub(super) fn read_stages(
    path: &str,
    change: &SettingArgs,
    spec: &Spec,
) -> Result<Vec<FileStage>, UserError> {
    if spec.stages.chosen.is_some() {
        return Ok(Vec::new());
    }

    let stages = spec.stages.names.iter().map(|name| {
        let read = || {
            let file = read_sweep_file(path, &change.resolve_for_stage(name))?;
            let spec = read_launch_spec(&file.source)?;
            let name = name.clone();
            Ok(FileStage { name, file, spec })
        };
        read().map_err(|error: UserError| {
            UserError::new(error.code, format!("stage {name}: {}", error.message))
        })
    });
    stages.collect()
}

/// The stages of the same file whose results the trials of a stage start from; `main` is the file itself.
pub(super) fn list_source_stages(spec: &Spec) -> Vec<String> {
    let starts = spec.grid.class_configs().into_iter();
    let starts = starts.filter_map(|config| config.results_start);
    let mut names: Vec<String> = starts
        .filter_map(|start| match start.selection.source {
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
