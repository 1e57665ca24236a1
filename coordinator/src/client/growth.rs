//! Sweeps that grow: `ergodic extend`, and what is told of cells that are repeated until they are known well enough.

use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::seal::Sealed as _;
use ergodic_proto::status::UserError;
use ergodic_proto::{transfer, v1};

use super::Client;
use super::commands::SweepFile;
use super::watch::done;

/// What is to be added to a sweep.
#[derive(Debug, Clone)]
pub enum More {
    /// So many repeats per cell, instead of fewer.
    Repeats(u32),
    /// Whatever this file asks for besides the cells of the sweep.
    File(SweepFile),
}

/// `ergodic extend`
///
/// # Errors
/// There is no such sweep, what is to be added does not fit it, or nobody answers.
pub async fn extend(client: &mut Client, sweep: &str, more: &More) -> Result<v1::ExtendResponse, UserError> {
    let mut request = v1::ExtendRequest { sweep: sweep.to_owned(), ..Default::default() };
    match more {
        More::Repeats(repeats) => request.repeats = *repeats,
        More::File(file) => {
            Spec::read(&file.source).map_err(|e| UserError::new(ErrorCode::BadInput, e.to_string()))?;
            for (pin, content) in file.source.files.iter().zip(&file.contents) {
                transfer::put(&mut client.files, pin.hash, content.clone()).await.map_err(|e| client.error(&e))?;
            }
            request.source = Some((&file.source).into());
        }
    }
    Ok(client.sweeps.extend(request.sealed()).await.map_err(|e| client.error(&e))?.into_inner())
}

/// What was added, in a line.
pub fn extended_for_people(extended: &v1::ExtendResponse) -> String {
    let Some(status) = &extended.status else { return String::new() };
    let left = status.trials.saturating_sub(done(status));
    let what = format!("{left} trials are to be run, {} have their results", done(status));
    match (extended.from == status.id, extended.ended) {
        (true, _) => what,
        (false, false) => format!("{what}, of the sweep {}", extended.from),
        (false, true) => format!("{what}, of the sweep {}, which was cancelled", extended.from),
    }
}

/// `6 cells × 20 to 500 repeats = 120 trials so far, about 340 in all`
pub fn size_for_people(s: &v1::SweepStatus) -> String {
    let v1::SweepStatus { cells, repeats, trials, .. } = s;
    match &s.precision {
        None => format!("{cells} cells × {repeats} repeats = {trials} trials"),
        Some(v1::PrecisionStatus { min, expected_trials, .. }) => {
            let size = format!("{cells} cells × {min} to {repeats} repeats = {trials} trials");
            if expected_trials > trials { format!("{size} so far, about {expected_trials} in all") } else { size }
        }
    }
}

/// `4 of 6 cells know the mean of test_acc to ± 0.001; not even with all 500 repeats: 1`
pub fn precision_for_people(s: &v1::SweepStatus) -> Option<String> {
    let v1::PrecisionStatus { metric, ci95, reached, exhausted, .. } = s.precision.as_ref()?;
    let mut line = format!("{reached} of {} cells know the mean of {metric} to ± {ci95}", s.cells);
    if *exhausted > 0 {
        line += &format!("; not even with all {} repeats: {exhausted}", s.repeats);
    }
    Some(line)
}
