//! `ergodic weights`: fetches the trained weights that a trial stored.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use ergodic_common::ids::SweepId;
use ergodic_common::{ErrorCode, Outcome, TrialKey, TrialResult};
use ergodic_proto::status::UserError;
use ergodic_proto::{transfer, v1};

use crate::app::CommandOutcome;
use crate::client::Client;
use crate::client::args::SweepTarget;
use crate::client::query::query_trial;
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
}

/// Writes the trained weights of a trial into a file.
///
/// # Errors
/// There is no such trial, it stored no weights, the file cannot be written, or nobody answers.
pub async fn run_weights(args: WeightsArgs) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect().await?;
    let written = save_weights(&mut client, &id, args.trial, &args.output).await?;
    print_stderr_line(&written);
    Ok(CommandOutcome::Done)
}

/// Writes the trained weights of a trial into a file; gives a line about them.
async fn save_weights(
    client: &mut Client,
    sweep: &SweepId,
    key: TrialKey,
    path: &Path,
) -> Result<String, UserError> {
    let page = query_trial(client, sweep, key).await?;
    let result = read_result(&page)?;
    let hash = result
        .weights_hash
        .ok_or_else(|| missing_weights_error(&page.sweep, &result))?;
    let file = transfer::fetch_file(&mut client.files, hash)
        .await
        .map_err(|e| client.to_user_error(&e))?;
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

fn read_result(page: &v1::TrialsResponse) -> Result<TrialResult, UserError> {
    let row = page.rows.first().and_then(|row| row.result.clone());
    row.and_then(|row| TrialResult::try_from(row).ok())
        .ok_or_else(|| UserError::new(ErrorCode::Internal, "the coordinator sent no readable row"))
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
