//! The argument of `ergodic run`: a sweep file, or a sweep in its store.

use std::path::Path;

use clap::Args;
use ergodic_common::spec::measured_value::MeasuredValueError;
use ergodic_common::spec_file::suggest::suggest_nearest;
use ergodic_common::trial::CPU_F32;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::status::UserError;

use crate::client::args::SettingArgs;
use crate::client::render::TextFormat;
use crate::client::sweep_file::{SweepFile, read_launch_spec, read_sweep_file};

/// What `ergodic run` is to run, as typed.
#[derive(Debug, Args)]
pub struct RunSourceArgs {
    /// The sweep file; or, with --store, an unfinished sweep in that store: its name, its id, or a unique prefix of the id
    #[arg(value_name = "SPEC|ID")]
    pub what: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub change: SettingArgs,
}

/// The table that `ergodic run` prints at the end.
#[derive(Debug, Args)]
pub struct RunTableArgs {
    /// Print the table as a grid: axis down the side
    #[arg(long, value_name = "AXIS", requires = "cols")]
    pub rows: Option<String>,
    /// Print the table as a grid: axis along the top
    #[arg(long, value_name = "AXIS", requires = "rows")]
    pub cols: Option<String>,
    /// Metric, quantity or expression of the table
    #[arg(long)]
    pub metric: Option<String>,
    /// Format of the table
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// The sweep to run.
pub(super) enum RunSource {
    /// The sweep of this file, which means `spec`.
    File {
        file: Box<SweepFile>,
        spec: Box<Spec>,
    },
    /// A sweep in the store, by its name, its id or a prefix of the id.
    Stored(String),
}

/// What is to be run, as far as the command line tells, and the name of the sweep if it is read from a file. `dir` is the
/// directory of `--store`.
pub(super) fn read_run_source(
    source: &RunSourceArgs,
    table: &RunTableArgs,
    dir: Option<&Path>,
) -> Result<(RunSource, String), UserError> {
    let file = match read_sweep_file(&source.what, &source.change.resolve()) {
        Err(_) if is_stored_sweep(&source.what, dir) => {
            return Ok((RunSource::Stored(source.what.clone()), String::new()));
        }
        read => read?,
    };
    let spec = read_launch_spec(&file.source)?;
    check_table_options(table, &spec)?;
    check_numerics(&spec.numerics)?;

    let name = spec.name.clone();
    let source = RunSource::File {
        file: Box::new(file),
        spec: Box::new(spec),
    };
    Ok((source, name))
}

/// Whether the argument can name a stored sweep: it looks like no path of a sweep file, and no file has that name.
fn is_stored_sweep(what: &str, dir: Option<&Path>) -> bool {
    let looks_like_path = what.contains('/') || what.ends_with(".toml");
    !looks_like_path && !Path::new(what).exists() && dir.is_some_and(Path::is_dir)
}

/// Checks that the workers of this command can run a sweep of a numerics class.
pub(super) fn check_numerics(numerics: &str) -> Result<(), UserError> {
    if numerics != CPU_F32 {
        let message = format!(
            "numerics: the workers that this command starts compute {CPU_F32}, not {numerics}: use `ergodic serve`, a worker \
             of that class and `ergodic launch`"
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    Ok(())
}

/// Refuses axes and metrics of the final table that the sweep lacks, before anything is trained.
fn check_table_options(table: &RunTableArgs, spec: &Spec) -> Result<(), UserError> {
    let axes: Vec<&str> = spec
        .grid
        .axes()
        .iter()
        .map(|axis| axis.name.as_str())
        .collect();
    for name in [&table.rows, &table.cols].into_iter().flatten() {
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

    let Some(metric) = &table.metric else {
        return Ok(());
    };
    let found = spec
        .find_measured_value(metric)
        .map_err(|error| match error {
            MeasuredValueError::Unknown(message) => UserError::new(ErrorCode::NotFound, message),
            MeasuredValueError::Invalid(message) => {
                UserError::new(ErrorCode::BadInput, format!("--metric: {message}"))
            }
        });
    found.map(drop)
}
