//! `ergodic extend`: adds repeats or cells to a launched sweep.

use clap::Args;
use ergodic_common::ids::SweepId;
use ergodic_common::number_format::format_count;
use ergodic_common::spec::SpecSource;
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::launch::upload_files;
use crate::app::{CommandOutcome, print_output};
use crate::client::Client;
use crate::client::args::SweepToChange;
use crate::client::latest::request_as_user;
use crate::client::render::print_stderr_line;
use crate::client::status_text::count_done_trials;
use crate::client::sweep_file::{SweepFile, read_new_spec, read_sweep_file};

/// `ergodic extend`
#[derive(Debug, Args)]
pub struct ExtendArgs {
    /// A sweep file with all cells of the sweep and more: it is launched as a new sweep that starts with the sweep's results
    #[arg(index = 2, required_unless_present = "repeats")]
    pub spec: Option<String>,
    /// Override a field of the file, as in train.epochs=5; may be given several times
    #[arg(
        long = "set",
        value_name = "KEY=VALUE",
        requires = "spec",
        conflicts_with = "repeats"
    )]
    pub settings: Vec<String>,
    /// New number of repeats per cell, or new maximum under a stopping rule; larger than before
    #[arg(long, value_name = "N", conflicts_with = "spec", value_parser = clap::value_parser!(u32).range(1..))]
    pub repeats: Option<u32>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepToChange,
}

/// Adds repeats or cells to a sweep. Stdout is the id alone, as of a launch.
///
/// # Errors
/// There is no such sweep, what is to be added does not fit it, or nobody answers.
pub async fn run_extend(args: ExtendArgs) -> Result<CommandOutcome, UserError> {
    let more = match (&args.spec, args.repeats) {
        (Some(spec), _) => Extension::File(read_sweep_file(spec, &args.settings)?),
        (None, repeats) => Extension::Repeats(repeats.unwrap_or_default()),
    };
    let (mut client, id) = args.sweep.connect("extend").await?;
    let extended = extend_sweep(&mut client, &id, &more).await?;
    print_stderr_line(&format_extension(&extended));

    print_output(
        extended
            .status
            .map_or_else(String::new, |status| format!("{}\n", status.id)),
    )
}

/// The addition to a sweep.
enum Extension {
    /// This number of repeats per cell, more than before.
    Repeats(u32),
    /// The cells of this file that the sweep lacks.
    File(SweepFile),
}

async fn extend_sweep(
    client: &mut Client,
    sweep: &SweepId,
    more: &Extension,
) -> Result<v1::ExtendResponse, UserError> {
    let mut request = v1::ExtendRequest {
        sweep: sweep.to_string(),
        ..Default::default()
    };

    match more {
        Extension::Repeats(repeats) => request.repeats = *repeats,
        Extension::File(file) => {
            let spec = read_new_spec(&file.source)?;

            upload_files(client, file).await?;

            // The lowest grammar that reads the file alike, so that an older coordinator accepts
            // it.
            let source = SpecSource {
                grammar: spec.min_grammar(),
                ..file.source.clone()
            };
            request.source = Some((&source).into());
        }
    }

    let request = request_as_user(request.with_checksum());
    let extended = client
        .call(async |client| client.sweeps.extend(request).await)
        .await;
    // Of a file, its own field is meant.
    extended.map_err(|error| match more {
        Extension::Repeats(_) => name_repeats_option(error),
        Extension::File(_) => error,
    })
}

/// The error about a number of repeats, with the option in place of the field.
fn name_repeats_option(error: UserError) -> UserError {
    match error.message.strip_prefix("repeats: ") {
        Some(problem) => UserError::new(error.code, format!("--repeats: {problem}")),
        None => error,
    }
}

/// Formats a line about the addition.
fn format_extension(extended: &v1::ExtendResponse) -> String {
    let Some(status) = &extended.status else {
        return String::new();
    };
    let left = status.trials.saturating_sub(count_done_trials(status));
    let are = if left == 1 { "is" } else { "are" };
    let done = count_done_trials(status);
    let have = if done == 1 { "has" } else { "have" };
    let what = format!(
        "{} {are} to be run, {done} {have} results already",
        format_count(left, "trial")
    );

    match (extended.from == status.id, extended.ended) {
        (true, _) => what,
        (false, false) => format!("{what}, of the sweep {}", extended.from),
        (false, true) => format!(
            "{what}, of the sweep {}, which was cancelled",
            extended.from
        ),
    }
}
