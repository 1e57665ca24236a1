//! Sweeps that grow: `ergodic extend`, and what is told of cells whose results decide how often they are repeated.

use ergodic_common::spec::SpecSource;
use ergodic_common::spec_file::node::format_shortest;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::status::UserError;
use ergodic_proto::{transfer, v1};

use super::Client;
use super::commands::SweepFile;
use super::latest::request_as_user;
use super::watch::count_done_trials;

/// What is to be added to a sweep.
#[derive(Debug, Clone)]
pub enum Extension {
    /// So many repeats per cell, instead of fewer.
    Repeats(u32),
    /// Whatever this file asks for besides the cells of the sweep.
    File(SweepFile),
}

/// `ergodic extend`
///
/// # Errors
/// There is no such sweep, what is to be added does not fit it, or nobody answers.
pub async fn extend_sweep(
    client: &mut Client,
    sweep: &str,
    more: &Extension,
) -> Result<v1::ExtendResponse, UserError> {
    let mut request = v1::ExtendRequest {
        sweep: sweep.to_owned(),
        ..Default::default()
    };

    match more {
        Extension::Repeats(repeats) => request.repeats = *repeats,
        Extension::File(file) => {
            let spec = Spec::read_new(&file.source)
                .map_err(|e| UserError::new(ErrorCode::BadInput, e.to_string()))?;

            for (pin, content) in file.source.files.iter().zip(&file.contents) {
                transfer::upload_file(&mut client.files, pin.hash, content.clone())
                    .await
                    .map_err(|e| client.to_user_error(&e))?;
            }

            // Older coordinators take it where they read it alike.
            let source = SpecSource {
                grammar: spec.min_grammar(),
                ..file.source.clone()
            };
            request.source = Some((&source).into());
        }
    }

    Ok(client
        .sweeps
        .extend(request_as_user(request.with_checksum()))
        .await
        .map_err(|e| client.to_user_error(&e))?
        .into_inner())
}

/// What was added, in a line.
pub fn format_extension(extended: &v1::ExtendResponse) -> String {
    let Some(status) = &extended.status else {
        return String::new();
    };
    let left = status.trials.saturating_sub(count_done_trials(status));
    let what = format!(
        "{left} trials are to be run, {} have their results",
        count_done_trials(status)
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

/// `6 cells × 20 to 500 repeats = 120 trials so far, about 340 in all`
pub fn format_sweep_size(s: &v1::SweepStatus) -> String {
    let v1::SweepStatus {
        cells,
        repeats,
        trials,
        ..
    } = s;
    let (min, about) = match (&s.precision, &s.halving) {
        (None, None) => return format!("{cells} cells × {repeats} repeats = {trials} trials"),
        (Some(precision), _) => (precision.min, "about "),
        // How many go on is known before.
        (None, Some(halving)) => (halving.min, ""),
    };
    let size = format!("{cells} cells × {min} to {repeats} repeats = {trials} trials");

    let expected = expected_trials(s);
    if expected > *trials {
        format!("{size} so far, {about}{expected} in all")
    } else {
        size
    }
}

/// Trials that it should come to.
pub fn expected_trials(s: &v1::SweepStatus) -> u64 {
    let precision = s
        .precision
        .as_ref()
        .map(|precision| precision.expected_trials);
    let halving = s.halving.as_ref().map(|halving| halving.expected_trials);
    precision.or(halving).unwrap_or(s.trials)
}

/// `by test_acc, 4 of 12 cells are repeated 18 times: 1 of them has been`
pub fn format_halving_status(s: &v1::SweepStatus) -> Option<String> {
    let v1::HalvingStatus {
        metric,
        rung,
        climbing: standing,
        ready,
        ..
    } = s.halving.as_ref()?;
    let is = if *standing == 1 { "is" } else { "are" };

    let has = if *ready == 1 { "has" } else { "have" };
    Some(format!(
        "by {metric}, {standing} of {} cells {is} repeated {rung} times: {ready} of them {has} been",
        s.cells
    ))
}

/// `4 of 6 cells know the mean of test_acc to ± 0.001; not even with all 500 repeats: 1`
pub fn format_precision_status(s: &v1::SweepStatus) -> Option<String> {
    let v1::PrecisionStatus {
        metric,
        ci95,
        reached,
        exhausted,
        ..
    } = s.precision.as_ref()?;
    let mut line = format!(
        "{reached} of {} cells know the mean of {metric} to ± {}",
        s.cells,
        format_shortest(*ci95)
    );

    if *exhausted > 0 {
        line += &format!("; not even with all {} repeats: {exhausted}", s.repeats);
    }

    Some(line)
}
