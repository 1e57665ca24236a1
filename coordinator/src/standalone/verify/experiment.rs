//! The experiments to verify: sweep files with claims, all read and checked before any is run.

use std::path::{Path, PathBuf};

use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::status::UserError;

use super::VerifyArgs;
use crate::client::args::SettingArgs;
use crate::client::commands::plan::check_local_files;
use crate::client::sweep_file::{SweepFile, read_launch_spec, read_sweep_file};
use crate::standalone::run_source::check_numerics;
use crate::standalone::stages::read_stages;

/// A sweep file, or a stage of one.
pub(super) struct Experiment {
    /// The name of the file without its ending, and that of the stage.
    pub(super) label: String,
    pub(super) file: SweepFile,
    pub(super) spec: Spec,
    /// The place among all experiments of the file without a stage.
    pub(super) main: usize,
}

impl Experiment {
    /// Whether the file or the stage has claims; without any, it is run for the stages that start from it.
    pub(super) fn has_claims(&self) -> bool {
        let claims = self.spec.claims.as_ref();
        claims.is_ok_and(|section| !section.claims.is_empty())
    }
}

/// Reads the experiments of a file or a folder.
///
/// # Errors
/// Names all mistakes of all files.
pub(super) fn read_experiments(args: &VerifyArgs) -> Result<Vec<Experiment>, UserError> {
    let paths = list_sweep_files(&args.what)?;
    if args.change.stage.is_some() {
        let message = "--stage: all stages of a file are run, and all claims judged: leave it out";
        return Err(UserError::new(ErrorCode::BadInput, message));
    }
    let data_dir = args.local.data_dir.as_deref();
    let mut experiments = Vec::with_capacity(paths.len());
    let mut mistakes = Vec::new();
    for path in &paths {
        match read_file(path, &args.change, data_dir, experiments.len()) {
            Ok(of_file) => experiments.extend(of_file),
            Err(error) => mistakes.push(name_file(error, path)),
        }
    }

    if mistakes.len() < 2 {
        return mistakes.pop().map_or(Ok(experiments), Err);
    }
    let messages: Vec<String> = mistakes.into_iter().map(|error| error.message).collect();
    let message = format!(
        "{} of {} files cannot be verified:\n{}",
        messages.len(),
        paths.len(),
        messages.join("\n")
    );
    Err(UserError::new(ErrorCode::BadInput, message))
}

/// An error that names the file that it is about, as one about an option does not.
fn name_file(error: UserError, path: &Path) -> UserError {
    let shown = path.display().to_string();
    match error.message.contains(&shown) {
        true => error,
        false => UserError::new(error.code, format!("{shown}: {}", error.message)),
    }
}

/// The sweep files that a path names: the file, or those in the folder, sorted by name.
fn list_sweep_files(what: &Path) -> Result<Vec<PathBuf>, UserError> {
    if !what.is_dir() {
        return Ok(vec![what.to_owned()]);
    }

    let mut paths = Vec::new();
    let entries = std::fs::read_dir(what);
    for entry in entries.map_err(|error| unreadable_folder_error(what, &error))? {
        let entry = entry.map_err(|error| unreadable_folder_error(what, &error))?;
        let path = entry.path();
        if is_sweep_file(&path) {
            paths.push(path);
        }
    }
    paths.sort();

    if paths.is_empty() {
        let message = format!(
            "{}: no file in this folder ends in .toml: name one with sweep files; folders in it are not searched",
            what.display()
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
    }
    Ok(paths)
}

fn unreadable_folder_error(folder: &Path, error: &std::io::Error) -> UserError {
    let message = format!("{}: cannot list the folder: {error}", folder.display());
    UserError::new(ErrorCode::BadInput, message)
}

/// Whether a path in a folder is a sweep file by its name, and not hidden, as what editors leave is.
fn is_sweep_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.is_file() && name.ends_with(".toml") && !name.starts_with('.')
}

/// Reads a file and its stages, which come behind `main` other experiments.
fn read_file(
    path: &Path,
    change: &SettingArgs,
    data_dir: Option<&Path>,
    main: usize,
) -> Result<Vec<Experiment>, UserError> {
    let shown = path.display();
    let name = path.to_str().ok_or_else(|| {
        let message = format!("{shown}: the name of the file is not text in UTF-8");
        UserError::new(ErrorCode::BadInput, message)
    })?;
    let file = read_sweep_file(name, &change.resolve())?;
    let spec = read_launch_spec(&file.source)?;
    let stages = read_stages(name, change, &spec)?;
    let label = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut experiments = vec![Experiment {
        label: label.clone().into_owned(),
        file,
        spec,
        main,
    }];
    experiments.extend(stages.into_iter().map(|stage| Experiment {
        label: format!("{label}-{}", stage.name),
        file: stage.file,
        spec: stage.spec,
        main,
    }));

    for Experiment { file, spec, .. } in &experiments {
        check_numerics(&spec.numerics)
            .map_err(|error| UserError::new(error.code, format!("{shown}: {}", error.message)))?;
        check_local_files(file, spec, data_dir)?;
    }
    if !experiments.iter().any(Experiment::has_claims) {
        let message = format!(
            "{shown}: there is no claim in it to verify: state one with [[claim]], or move the file elsewhere"
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
    }
    Ok(experiments)
}

#[cfg(test)]
mod tests {
    use crate::standalone::verify::experiment::*;

    #[test]
    fn a_folder_has_the_sweep_files_in_it_by_name() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let folder = dir.path();
        for name in ["b.toml", "a.toml", ".a.toml", "a.toml~", "notes.md"] {
            std::fs::write(folder.join(name), "").expect("a file can be written");
        }
        std::fs::create_dir(folder.join("c.toml")).expect("a folder can be made");

        let found = list_sweep_files(folder).expect("there are files");
        assert_eq!(found, [folder.join("a.toml"), folder.join("b.toml")]);

        let empty = folder.join("c.toml");
        let error = list_sweep_files(&empty).expect_err("there is none");
        assert!(error.message.contains("ends in .toml"), "{error}");
        let file = folder.join("nowhere");
        assert_eq!(list_sweep_files(&file).ok(), Some(vec![file]));
    }
}
