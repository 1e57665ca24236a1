//! The argument of `ergodic run`: a sweep file, or a sweep in its store.

use std::path::Path;

use clap::Args;
use ergodic_common::program::{is_experiment_class, is_program_class};
use ergodic_common::spec::measured_value::MeasuredValueError;
use ergodic_common::spec_file::suggest::suggest_nearest;
use ergodic_common::trial::CPU_F32;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::status::UserError;

use super::local_experiments::choose_local_experiment;
use super::program_consent::agree_to_programs;
use super::stages::{FileStage, read_stages};
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

impl RunTableArgs {
    /// The table of all cells with the metrics that it has by itself.
    pub(super) fn plain(format: TextFormat) -> Self {
        Self {
            rows: None,
            cols: None,
            metric: None,
            format,
        }
    }
}

/// The sweep to run.
pub(super) enum RunSource {
    /// The sweep of this file, which means `spec`.
    File {
        file: Box<SweepFile>,
        spec: Box<Spec>,
        /// The stages that are run after it.
        stages: Vec<FileStage>,
    },
    /// A sweep in the store, by its name, its id or a prefix of the id.
    Stored(String),
}

impl RunSource {
    /// Whether the sweep of a file is a program, which the user lets run.
    ///
    /// # Errors
    /// The user does not let it run.
    pub(super) fn agree_to_program(&self, is_allowed: bool) -> Result<bool, UserError> {
        match self {
            Self::File { file, spec, .. } => {
                agree_to_programs([(&**spec, Some(&**file))].into_iter(), is_allowed)
            }
            Self::Stored(_) => Ok(false),
        }
    }

    /// Chooses the numerics class of an experiment among those that the worker program has.
    ///
    /// # Errors
    /// The worker program has none, or the sweep does not fit it.
    pub(super) async fn choose_experiment(&mut self, worker: &Path) -> Result<(), UserError> {
        match self {
            Self::File { file, spec, .. } => choose_local_experiment(file, spec, worker).await,
            Self::Stored(_) => Ok(()),
        }
    }

    /// The word for a stored sweep, if it is one.
    pub(super) fn stored_word(&self) -> Option<&str> {
        match self {
            Self::File { .. } => None,
            Self::Stored(word) => Some(word),
        }
    }

    /// Takes the stages that are run after the sweep.
    pub(super) fn take_stages(&mut self) -> Vec<FileStage> {
        match self {
            Self::File { stages, .. } => std::mem::take(stages),
            Self::Stored(_) => Vec::new(),
        }
    }
}

/// What is to be run, as far as the command line tells, and the name of the sweep if it is read from a file. `dir` is the
/// directory of `--store`, and `again` stands for `--again`.
pub(super) fn read_run_source(
    source: &RunSourceArgs,
    table: &RunTableArgs,
    again: bool,
    dir: Option<&Path>,
) -> Result<(RunSource, String), UserError> {
    let file = match read_sweep_file(&source.what, &source.change.resolve()) {
        Err(_) if is_stored_sweep(&source.what, dir) => {
            refuse_options_of_files(source, again)?;
            return Ok((RunSource::Stored(source.what.clone()), String::new()));
        }
        read => read?,
    };
    let spec = read_launch_spec(&file.source)?;
    check_table_options(table, &spec)?;
    check_numerics(&spec.numerics)?;
    let stages = read_stages(&source.what, &source.change, &spec)?;

    let name = spec.name.clone();
    let source = RunSource::File {
        file: Box::new(file),
        spec: Box::new(spec),
        stages,
    };
    Ok((source, name))
}

/// Refuses options that only a sweep file takes, for a sweep that is stored: they would have no effect.
fn refuse_options_of_files(source: &RunSourceArgs, again: bool) -> Result<(), UserError> {
    let again = again.then_some("--again");
    let given: Vec<&str> = source.change.given_options().chain(again).collect();
    if given.is_empty() {
        return Ok(());
    }

    let message = format!(
        "{}: there is no file '{what}', so that it names a stored sweep, which runs on as it was launched: name the sweep file, as in \
         `ergodic run {what}.toml`, or leave out {}",
        given.join(", "),
        if given.len() > 1 {
            "these options"
        } else {
            given[0]
        },
        what = source.what
    );
    Err(UserError::new(ErrorCode::BadInput, message))
}

/// Whether the argument can name a stored sweep: it looks like no path of a sweep file, and no file has that name.
fn is_stored_sweep(what: &str, dir: Option<&Path>) -> bool {
    let looks_like_path = what.contains('/') || what.ends_with(".toml");
    !looks_like_path && !Path::new(what).exists() && dir.is_some_and(Path::is_dir)
}

/// Checks that the workers of this command can run a sweep of a numerics class.
pub(super) fn check_numerics(numerics: &str) -> Result<(), UserError> {
    let is_local =
        numerics == CPU_F32 || is_program_class(numerics) || is_experiment_class(numerics);
    if !is_local {
        let message = format!(
            "numerics: the workers that this command starts compute {CPU_F32}, not {numerics}: use `ergodic serve`, a worker \
             of that class and `ergodic launch`"
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    Ok(())
}

/// The axis that an option of the final table names: by its name, or by its field or the end of its name if no other axis has it.
fn find_table_axis<'a>(name: Option<&str>, spec: &'a Spec) -> Result<Option<&'a str>, UserError> {
    let Some(name) = name else {
        return Ok(None);
    };
    let axes = spec.grid.axes();
    if let Some(axis) = axes.iter().find(|axis| axis.name == name) {
        return Ok(Some(&axis.name));
    }

    let suffix = format!(".{name}");
    let mut found = axes
        .iter()
        .filter(|axis| axis.name.ends_with(&suffix) || axis.field.as_deref() == Some(name));
    match (found.next(), found.next()) {
        (Some(axis), None) => Ok(Some(&axis.name)),
        _ => {
            let hint = suggest_nearest(name, axes.iter().map(|axis| axis.name.as_str()));
            let message = format!("the sweep has no axis '{name}', {hint}");
            Err(UserError::new(ErrorCode::NotFound, message))
        }
    }
}

/// Refuses axes and metrics of the final table that the sweep lacks, before anything is trained.
fn check_table_options(table: &RunTableArgs, spec: &Spec) -> Result<(), UserError> {
    let rows = find_table_axis(table.rows.as_deref(), spec)?;
    let cols = find_table_axis(table.cols.as_deref(), spec)?;
    if let Some(axis) = rows.filter(|rows| cols == Some(*rows)) {
        let message = format!(
            "--rows, --cols: the axis '{axis}' is named twice: name another one, or leave out both options for a table of all cells"
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
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

#[cfg(test)]
mod tests {
    use ergodic_common::spec::SpecSource;

    use crate::standalone::run_source::*;

    fn source_of(what: &str, settings: &[&str], scale: Option<&str>) -> RunSourceArgs {
        RunSourceArgs {
            what: what.to_owned(),
            change: SettingArgs {
                settings: settings
                    .iter()
                    .map(|setting| (*setting).to_owned())
                    .collect(),
                scale: scale.map(str::to_owned),
                stage: None,
            },
        }
    }

    fn table_of(rows: &str, cols: &str) -> RunTableArgs {
        RunTableArgs {
            rows: Some(rows.to_owned()),
            cols: Some(cols.to_owned()),
            metric: None,
            format: TextFormat::default(),
        }
    }

    #[test]
    fn a_stored_sweep_takes_no_option_of_files() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let table = RunTableArgs {
            rows: None,
            cols: None,
            ..table_of("", "")
        };
        let read = |source: RunSourceArgs, again| {
            read_run_source(&source, &table, again, Some(dir.path())).map(|_| ())
        };
        assert_eq!(read(source_of("decay", &[], None), false), Ok(()));

        for (settings, scale, again, options) in [
            (
                &["lr=1"][..],
                None,
                false,
                "--set: there is no file 'decay'",
            ),
            (&[], Some("desk"), false, "--scale: there is"),
            (&[], None, true, "--again: there is"),
            (
                &["lr=1"],
                Some("desk"),
                true,
                "--set, --scale, --again: there is",
            ),
        ] {
            let source = source_of("decay", settings, scale);
            let error = read(source, again).expect_err("it would have no effect");
            assert!(error.message.starts_with(options), "{error}");
            assert!(
                error.message.contains("`ergodic run decay.toml`"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_axes_of_the_final_table_are_two() {
        let source = SpecSource {
            text: "name = \"t\"\nrepeats = 2\n[model]\nkind = \"empty\"\n[grid]\nlr = [1, 2]\n\"train.wd\" = [0, 1]\n"
                .to_owned(),
            ..SpecSource::default()
        };
        let spec = Spec::read_new(&source).expect("a sweep");
        let check = |rows: &str, cols: &str| check_table_options(&table_of(rows, cols), &spec);

        for (rows, cols) in [("lr", "wd"), ("train.lr", "train.wd")] {
            assert_eq!(check(rows, cols), Ok(()), "{rows} {cols}");
        }
        for (rows, cols) in [("lr", "lr"), ("lr", "train.lr"), ("wd", "train.wd")] {
            let error = check(rows, cols).expect_err("one axis is named twice");
            assert!(error.message.contains("is named twice"), "{error}");
        }
        for (rows, cols) in [("nope", "lr"), ("lr", "x")] {
            let error = check(rows, cols).expect_err("no one axis has this name");
            assert!(error.message.contains("the sweep has no axis"), "{error}");
        }
    }
}
