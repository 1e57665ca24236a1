//! `ergodic weights`: what trials keep of their networks.

use std::io::Write;
use std::path::Path;

use ergodic_common::{ErrorCode, Outcome, TrialKey, TrialResult};
use ergodic_proto::status::UserError;
use ergodic_proto::transfer;

use super::{Client, commands};

/// Writes the trained weights of a trial into a file and says what they are.
///
/// # Errors
/// There is no such trial, it kept no weights, the file cannot be written, or nobody answers.
pub async fn weights(client: &mut Client, sweep: &str, key: TrialKey, path: &Path) -> Result<String, UserError> {
    let page = commands::trial(client, sweep, key).await?;
    let row = page.rows.into_iter().next().and_then(|row| row.result);
    let result = row.and_then(|row| TrialResult::try_from(row).ok());
    let result = result.ok_or_else(|| UserError::new(ErrorCode::Internal, "the coordinator sent no readable row"))?;
    let hash = result.weights.ok_or_else(|| no_weights(&page.sweep, &result))?;
    let file = transfer::fetch(&mut client.files, hash).await.map_err(|e| client.error(&e))?;
    write(path, &file).map_err(|e| {
        UserError::new(ErrorCode::BadInput, format!("{}: cannot write the weights: {e}", path.display()))
    })?;
    Ok(format!("{}: weights of trial {key} of {}, {} bytes\n", path.display(), page.sweep, file.len()))
}

fn no_weights(sweep: &str, result: &TrialResult) -> UserError {
    let why = match &result.outcome {
        Outcome::Completed => "set save = [\"final\"] under [measure] of the next one".to_owned(),
        other => format!("it {}, and only completed trials have any", other.word()),
    };
    UserError::new(ErrorCode::NotFound, format!("the trial {} of {sweep} kept no weights: {why}", result.key))
}

/// A regular file is written beside and renamed, so that whoever finds it finds all of it; a pipe or a device is written to.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let there = std::fs::metadata(path).ok();
    if there.as_ref().is_some_and(|there| !there.is_file()) {
        return std::fs::OpenOptions::new().write(true).open(path)?.write_all(bytes);
    }
    // A link stays one: what it leads to is replaced.
    let target = if there.is_some() { path.canonicalize()? } else { path.to_owned() };
    let mut part = target.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&part)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| there.map_or(Ok(()), |there| file.set_permissions(there.permissions())))
        .and_then(|()| std::fs::rename(&part, &target));
    written.inspect_err(|_| drop(std::fs::remove_file(&part)))
}
