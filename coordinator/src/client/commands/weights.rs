//! `ergodic weights`: fetches the trained weights that a trial stored.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use ergodic_common::config::Length;
use ergodic_common::ids::SweepId;
use ergodic_common::program::is_program_class;
use ergodic_common::spec::Moment;
use ergodic_common::weights::{WeightsError, extract_moment, list_moments};
use ergodic_common::{ErrorCode, Outcome, TrialKey, TrialResult};
use ergodic_proto::status::UserError;
use ergodic_proto::transfer;

use crate::app::CommandOutcome;
use crate::client::Client;
use crate::client::args::SweepTarget;
use crate::client::query::{query_trial, read_trial_result};
use crate::client::render::{AtomicFile, file_write_error, print_stderr_line};

/// `ergodic weights`
#[derive(Debug, Args)]
pub struct WeightsArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// A trial of the sweep, as cell/repeat
    pub trial: TrialKey,
    /// File to write the weights to
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// The moment of the weights, "final" or as in "300 steps" [default: the last moment that was kept]
    #[arg(long, value_name = "MOMENT")]
    pub at: Option<String>,
}

/// The moment that the user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WantedMoment {
    /// The last one that was kept, whichever it is.
    LastKept,
    /// After so many steps.
    After(u64),
    /// The end of the trial.
    End,
}

impl WantedMoment {
    fn parse(text: Option<&str>) -> Result<Self, UserError> {
        let moment = match text {
            None => return Ok(Self::LastKept),
            Some(text) => Moment::parse(text),
        };
        match moment {
            Some(Moment::Final) => Ok(Self::End),
            Some(Moment::After(Length::Steps(step))) => Ok(Self::After(step)),
            _ => {
                let text = text.unwrap_or_default();
                let message = format!(
                    "--at: expected \"final\", or a number of steps as in \"300 steps\", found '{text}'"
                );
                Err(UserError::new(ErrorCode::BadInput, message))
            }
        }
    }
}

/// Writes the trained weights of a trial into a file.
///
/// # Errors
/// There is no such trial, it stored no weights, the file cannot be written, or nobody answers.
pub async fn run_weights(args: WeightsArgs) -> Result<CommandOutcome, UserError> {
    let moment = WantedMoment::parse(args.at.as_deref())?;
    let (mut client, id) = args.sweep.connect().await?;
    let written = save_weights(&mut client, &id, (args.trial, moment), &args.output).await?;
    print_stderr_line(&written);
    Ok(CommandOutcome::Done)
}

/// Writes the trained weights of a trial into a file; gives a line about them.
async fn save_weights(
    client: &mut Client,
    sweep: &SweepId,
    (key, moment): (TrialKey, WantedMoment),
    path: &Path,
) -> Result<String, UserError> {
    let page = query_trial(client, sweep, key).await?;
    let result = read_trial_result(&page)?;
    if is_program_class(&page.numerics) {
        let message = format!(
            "programs keep files, not weights: `ergodic files {} {key} -o DIR` fetches them",
            page.sweep
        );
        return Err(UserError::new(ErrorCode::NotFound, message));
    }
    let hash = result
        .weights_hash
        .ok_or_else(|| missing_weights_error(&page.sweep, &result))?;
    let file = transfer::fetch_file(&mut client.files, hash)
        .await
        .map_err(|e| client.to_user_error(&e))?;
    let file = choose_moment(file, moment, &result)?;
    let written = AtomicFile::create(path)
        .and_then(|mut new| new.write_all(&file).and_then(|()| new.finish()));
    written.map_err(|e| file_write_error(path, &e))?;

    Ok(format!(
        "{}: weights of trial {key} of {}, {} bytes",
        path.display(),
        page.sweep,
        file.len()
    ))
}

/// The file of the weights of one moment, of the file of all that a trial kept.
fn choose_moment(
    file: Vec<u8>,
    moment: WantedMoment,
    result: &TrialResult,
) -> Result<Vec<u8>, UserError> {
    let unreadable = |error: WeightsError| {
        let message = format!("the weights that the coordinator sent cannot be read: {error}");
        UserError::new(ErrorCode::Internal, message)
    };
    let kept = match list_moments(&file) {
        // Nobody asked for a moment, so a file of another form is given as it is stored.
        Err(_) if matches!(moment, WantedMoment::LastKept) => return Ok(file),
        kept => kept.map_err(unreadable)?,
    };
    let end = extract_moment(&file, None).map_err(unreadable)?;
    let found = match moment {
        WantedMoment::After(step) if step == result.steps => end.clone(),
        WantedMoment::After(step) => extract_moment(&file, Some(step)).map_err(unreadable)?,
        WantedMoment::LastKept if end.is_none() => {
            extract_moment(&file, kept.last().copied()).map_err(unreadable)?
        }
        WantedMoment::LastKept | WantedMoment::End => end.clone(),
    };
    // What was kept at the end alone is given as it is stored.
    match found {
        Some(_) if kept.is_empty() => Ok(file),
        Some(one) => Ok(one),
        None => {
            let last = end.map(|_| "final".to_owned());
            let moments = kept.iter().map(|step| format!("{step} steps"));
            let moments: Vec<String> = moments.chain(last).collect();
            let message = format!(
                "--at: the trial {} kept no weights at that moment: it kept those at {}",
                result.key,
                moments.join(", ")
            );
            Err(UserError::new(ErrorCode::NotFound, message))
        }
    }
}

fn missing_weights_error(sweep: &str, result: &TrialResult) -> UserError {
    let why = match &result.outcome {
        Outcome::Completed => "set save = [\"final\"] under [measure] in the next sweep".to_owned(),
        other => format!("it {}, and only completed trials have any", other.as_str()),
    };
    UserError::new(
        ErrorCode::NotFound,
        format!("the trial {} of {sweep} kept no weights: {why}", result.key),
    )
}
