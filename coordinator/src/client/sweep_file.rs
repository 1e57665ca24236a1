//! Reads a sweep file together with the files that it names.

use std::io::ErrorKind;
use std::path::Path;

use ergodic_common::pinned_file::FilePin;
use ergodic_common::spec::misleading::{refuse_misleading_sweep, warn_of_equal_repeats};
use ergodic_common::spec::{MAX_TEXT_BYTES, SpecSource};
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::convert::MAX_FILES;
use ergodic_proto::limited_file::{read_limited_file, read_limited_text};
use ergodic_proto::status::UserError;
use ergodic_proto::transfer::MAX_FILE_BYTES;

use super::program_files::read_program_bundle;
use crate::terminal::print_stderr_line;

/// A sweep file with the contents of the files that it names.
#[derive(Debug, Clone)]
pub struct SweepFile {
    /// The sweep file.
    pub source: SpecSource,
    /// The content of each file that it names.
    pub contents: Vec<Vec<u8>>,
}

/// Reads a sweep file and the files that it names, whose paths are relative to its folder.
///
/// # Errors
/// The sweep file or one of its files cannot be read or used.
pub fn read_sweep_file(path: &str, settings: &[String]) -> Result<SweepFile, UserError> {
    let text = read_limited_text(Path::new(path), MAX_TEXT_BYTES as u64)
        .map_err(|e| unreadable_sweep_error(path, &e))?;
    let mut source = SpecSource {
        file: path.to_owned(),
        text,
        settings: settings.to_vec(),
        ..SpecSource::default()
    }
    .with_settings_of_axes();

    let named = source.named_files();
    if named.len() > MAX_FILES {
        let message = format!(
            "{path}: it names {} files; at most {MAX_FILES} are allowed",
            named.len()
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    let mut contents = Vec::new();
    for named in named {
        let content = read_referenced_file(path, &named)?;
        let pin = FilePin::from_bytes(&named, &content)
            .map_err(|e| UserError::new(ErrorCode::BadInput, format!("{path}: {e}")))?;

        source.files.push(pin);
        contents.push(content);
    }

    if let Some(bundle) = read_program_bundle(&source)? {
        source.files.push(FilePin::of_program_bundle(&bundle));
        contents.push(bundle);
    }

    Ok(SweepFile { source, contents })
}

fn unreadable_sweep_error(path: &str, error: &std::io::Error) -> UserError {
    let message = match error.kind() {
        ErrorKind::NotFound => format!("{path}: there is no such sweep file"),
        ErrorKind::IsADirectory => format!("{path}: expected a sweep file, found a directory"),
        ErrorKind::InvalidData => format!("{path}: the sweep file is not text in UTF-8"),
        _ => format!("{path}: cannot read the sweep file: {error}"),
    };
    UserError::new(ErrorCode::BadInput, message)
}

fn read_referenced_file(sweep_file: &str, named: &str) -> Result<Vec<u8>, UserError> {
    let folder = Path::new(sweep_file).parent().unwrap_or(Path::new(""));
    let path = folder.join(named);
    read_limited_file(&path, MAX_FILE_BYTES).map_err(|e| {
        let message = match e.kind() {
            ErrorKind::NotFound => {
                format!(
                    "{sweep_file}: the file '{named}' that it names is missing: looked for {}",
                    path.display()
                )
            }
            _ => format!(
                "{sweep_file}: cannot read '{named}' that it names: {}: {e}",
                path.display()
            ),
        };

        UserError::new(ErrorCode::BadInput, message)
    })
}

/// Reads the file of a sweep to launch, whose coordinator settles what it leaves open.
///
/// # Errors
/// The file is no valid sweep, or is refused to new sweeps.
pub fn read_launch_spec(source: &SpecSource) -> Result<Spec, UserError> {
    let spec = read_new_spec(source)?;
    refuse_misleading_sweep(&spec).map_err(|e| bad_input(&e.with_file(&source.file)))?;
    Ok(spec)
}

/// Prints what may mislead about a new sweep, and is no reason to refuse it.
pub fn warn_of_sweep(spec: &Spec) {
    if let Some(warning) = warn_of_equal_repeats(spec) {
        print_stderr_line(&format!("warning: {warning}"));
    }
}

/// Reads the file of a new sweep.
///
/// # Errors
/// Names all that is wrong with the file.
pub fn read_new_spec(source: &SpecSource) -> Result<Spec, UserError> {
    Spec::read_new_naming_mistakes(source).map_err(|mistakes| bad_input(&mistakes))
}

fn bad_input(error: &impl std::fmt::Display) -> UserError {
    UserError::new(ErrorCode::BadInput, error.to_string())
}
