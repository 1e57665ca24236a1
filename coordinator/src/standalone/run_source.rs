//! What `ergodic run` is to run: a sweep file, or a sweep that is in its store.

use std::path::Path;

use ergodic_common::spec_file::suggest::suggest_nearest;
use ergodic_common::trial::CPU_F32;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::status::UserError;

use crate::cli::args::RunArgs;
use crate::client::sweep_file::{SweepFile, read_launch_spec, read_sweep_file};

/// What is to be run.
pub(super) enum RunSource {
    /// The sweep of this file, which means `spec`.
    File {
        file: Box<SweepFile>,
        spec: Box<Spec>,
    },
    /// The id of a sweep that is in the store.
    Stored(String),
}

/// What is to be run, as far as the command line tells, and the name of the sweep if it is read from a file.
pub(super) fn read_run_source(args: &RunArgs) -> Result<(RunSource, String), UserError> {
    let file = match read_sweep_file(&args.what, &args.settings) {
        Err(_) if is_stored_sweep(args) => {
            return Ok((RunSource::Stored(args.what.clone()), String::new()));
        }
        read => read?,
    };
    let spec = read_launch_spec(&file.source)?;
    check_spec(args, &spec)?;

    let name = spec.name.clone();
    let source = RunSource::File {
        file: Box::new(file),
        spec: Box::new(spec),
    };
    Ok((source, name))
}

/// Whether the argument may be the id of a sweep in the store: no file has that name, and it looks like an id.
fn is_stored_sweep(args: &RunArgs) -> bool {
    let looks_like_id = (1..=8).contains(&args.what.len())
        && args
            .what
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    looks_like_id
        && !Path::new(&args.what).exists()
        && args.dir.as_ref().is_some_and(|dir| dir.is_dir())
}

/// Checks that this command can run a sweep.
pub(super) fn check_spec(args: &RunArgs, spec: &Spec) -> Result<(), UserError> {
    check_table_options(args, spec)?;
    if spec.numerics != CPU_F32 {
        let message = format!(
            "numerics: the workers that run starts compute {CPU_F32}, not {}: use serve, a worker of that class and launch",
            spec.numerics
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    Ok(())
}

/// Refuses axes and metrics of the table at the end that the sweep lacks, before anything is trained.
fn check_table_options(args: &RunArgs, spec: &Spec) -> Result<(), UserError> {
    let axes: Vec<&str> = spec
        .grid
        .axes()
        .iter()
        .map(|axis| axis.name.as_str())
        .collect();
    for name in [&args.rows, &args.cols].into_iter().flatten() {
        let suffix = format!(".{name}");
        if !axes
            .iter()
            .any(|axis| axis == name || axis.ends_with(&suffix))
        {
            let message = format!(
                "the sweep has no axis '{name}', {}",
                suggest_nearest(name, axes.iter().copied())
            );
            return Err(UserError::new(ErrorCode::NotFound, message));
        }
    }

    let metrics: Vec<_> = spec.measure.metrics.iter().map(|m| m.name()).collect();
    match &args.metric {
        Some(name) if !metrics.iter().any(|m| m == name) => {
            let message = format!(
                "the sweep does not measure '{name}', {}",
                suggest_nearest(name, metrics.iter().map(AsRef::as_ref))
            );
            Err(UserError::new(ErrorCode::NotFound, message))
        }
        _ => Ok(()),
    }
}
