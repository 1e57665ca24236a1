//! Queries that several commands send: sweeps, status, tables, curves and trials.

use ergodic_common::ids::SweepId;
use ergodic_common::quantity::tidy_text;
use ergodic_common::spec::SpecSource;
use ergodic_common::{ErrorCode, TrialKey, TrialResult};
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::convert::WireError;
use ergodic_proto::status::UserError;
use ergodic_proto::{PROTOCOL_VERSION, v1};
use tonic::{Code, Response, Status, Streaming};

use super::Client;

/// Queries the status of all sweeps, from the oldest to the newest.
///
/// # Errors
/// The coordinator does not respond.
pub async fn query_sweeps(client: &mut Client) -> Result<Vec<v1::SweepStatus>, UserError> {
    let mut pages = match client.sweeps.list_pages(v1::ListRequest {}).await {
        Ok(pages) => pages.into_inner(),
        Err(status) if status.code() == Code::Unimplemented => {
            let all = client
                .call(async |client| client.sweeps.list(v1::ListRequest {}).await)
                .await?;
            return Ok(all.sweeps);
        }
        Err(status) => return Err(client.to_user_error(&status)),
    };

    let mut sweeps = Vec::new();
    while let Some(page) = client.next_message(&mut pages).await? {
        sweeps.extend(page.sweeps);
    }

    Ok(sweeps)
}

/// Queries the status of the sweep that a word means to the coordinator: its id, or a prefix of it.
///
/// # Errors
/// There is no such sweep, or the coordinator does not respond.
pub async fn query_status(client: &mut Client, word: &str) -> Result<v1::SweepStatus, UserError> {
    let request = v1::StatusRequest {
        sweep: word.to_owned(),
    };
    let response = client
        .call(async |client| client.sweeps.status(request).await)
        .await?;

    response
        .status
        .ok_or_else(|| incomplete_response("StatusResponse"))
}

/// Queries statistics per cell.
///
/// # Errors
/// There is no such sweep, axis, metric or statistic, or the coordinator does not respond.
pub async fn query_table(
    client: &mut Client,
    request: v1::TableRequest,
) -> Result<v1::TableResponse, UserError> {
    let stats = request.stats.clone();
    let cells = request.cell_condition.clone();
    let pools_all = request.pool_all;
    let pages = client.sweeps.table_pages(request.clone()).await;
    let collected = collect_pages(client, pages, "TableResponse", |table, page| {
        table.rows.extend(page.rows)
    });
    let table = match collected.await? {
        Some(table) => table,
        None => {
            client
                .call(async |client| client.sweeps.table(request).await)
                .await?
        }
    };
    check_stats_supported(&stats, &table.columns)?;
    check_condition_supported(&cells, &table.cell_condition)?;
    check_pooling_supported(pools_all, &table.axes)?;

    Ok(table)
}

/// Queries statistics per cell and step.
///
/// # Errors
/// As for [`query_table`].
pub async fn query_curves(
    client: &mut Client,
    request: v1::CurvesRequest,
) -> Result<v1::CurvesResponse, UserError> {
    let stats = request.stats.clone();
    let cells = request.cell_condition.clone();
    let pools_all = request.pool_all;
    let pages = client.sweeps.curve_pages(request.clone()).await;
    let collected = collect_pages(client, pages, "CurvesResponse", |curves, page| {
        curves.points.extend(page.points)
    });
    let curves = match collected.await? {
        Some(curves) => curves,
        None => {
            client
                .call(async |client| client.sweeps.curves(request).await)
                .await?
        }
    };
    check_stats_supported(&stats, &curves.columns)?;
    check_condition_supported(&cells, &curves.cell_condition)?;
    check_pooling_supported(pools_all, &curves.axes)?;

    Ok(curves)
}

/// Queries all rows of a sweep, in at least one page. The final values of further metrics or quantities follow those of the sweep's
/// metrics, except those that the sweep measures.
///
/// # Errors
/// There is no such sweep, metric or quantity, or the coordinator does not respond.
pub async fn query_trials(
    client: &mut Client,
    sweep: &SweepId,
    further_metrics: &[String],
) -> Result<Vec<v1::TrialsResponse>, UserError> {
    let request = v1::TrialsRequest {
        sweep: sweep.to_string(),
        further_metrics: further_metrics.to_vec(),
        ..v1::TrialsRequest::default()
    };
    let pages = collect_trial_pages(client, request).await?;
    check_metrics_supported(further_metrics, &pages[0].metrics)?;
    Ok(pages)
}

/// Queries the failed trials of a sweep, in at least one page. Older coordinators send other trials
/// too.
///
/// # Errors
/// As for [`query_trials`].
pub async fn query_failed_trials(
    client: &mut Client,
    sweep: &SweepId,
) -> Result<Vec<v1::TrialsResponse>, UserError> {
    let request = v1::TrialsRequest {
        sweep: sweep.to_string(),
        only_failed: true,
        ..v1::TrialsRequest::default()
    };
    collect_trial_pages(client, request).await
}

async fn collect_trial_pages(
    client: &mut Client,
    request: v1::TrialsRequest,
) -> Result<Vec<v1::TrialsResponse>, UserError> {
    let mut stream = client
        .call(async |client| client.sweeps.trials(request).await)
        .await?;

    let mut pages = Vec::new();
    while let Some(page) = client.next_message(&mut stream).await? {
        pages.push(page);
    }

    if pages.is_empty() {
        return Err(incomplete_response("TrialsResponse"));
    }
    Ok(pages)
}

/// The sweep file, with the hash of the dataset that it is pinned to.
#[derive(Debug)]
pub struct PinnedSweepFile {
    /// The file with the settings of the launch.
    pub source: SpecSource,
    /// The dataset's hash; empty without one.
    pub data_hash: Vec<u8>,
}

/// Queries the sweep file.
///
/// # Errors
/// There is no such sweep, the answer was damaged, or the coordinator does not respond.
pub async fn query_sweep_file(
    client: &mut Client,
    sweep: &SweepId,
) -> Result<PinnedSweepFile, UserError> {
    let request = v1::GetSweepRequest {
        sweep: sweep.to_string(),
        protocol: PROTOCOL_VERSION,
    };
    let mut answer = client
        .call(async |client| client.workers.get_sweep(request).await)
        .await?;

    if !answer.verify_checksum() {
        return Err(damaged_answer_error());
    }

    let source = answer.source.take().ok_or_else(damaged_answer_error)?;
    let source = source
        .try_into()
        .map_err(|e: WireError| UserError::new(ErrorCode::Version, e.to_string()))?;
    Ok(PinnedSweepFile {
        source,
        data_hash: answer.data_hash,
    })
}

fn damaged_answer_error() -> UserError {
    UserError::new(
        ErrorCode::Unreachable,
        "the sweep file was damaged in transit: run the command again",
    )
}

/// Queries the stored row of one trial, with its sweep's id and columns.
///
/// # Errors
/// There is no such sweep, the trial has no row, or the coordinator does not respond.
pub async fn query_trial(
    client: &mut Client,
    sweep: &SweepId,
    key: TrialKey,
) -> Result<v1::TrialsResponse, UserError> {
    let request = v1::TrialsRequest {
        sweep: sweep.to_string(),
        trial: Some(key.into()),
        ..v1::TrialsRequest::default()
    };
    let mut stream = client
        .call(async |client| client.sweeps.trials(request).await)
        .await?;
    let page = client.next_message(&mut stream).await?;

    page.ok_or_else(|| incomplete_response("the row of the trial is missing"))
}

/// The result in the row of one trial.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn read_trial_result(page: &v1::TrialsResponse) -> Result<TrialResult, UserError> {
    let row = page.rows.first().and_then(|row| row.result.clone());
    row.and_then(|row| TrialResult::try_from(row).ok())
        .ok_or_else(|| UserError::new(ErrorCode::Internal, "the coordinator sent no readable row"))
}

/// Collects the pages of a response; `None` from a coordinator of an older version, which sends one
/// piece. `message` is the name of the message, and `append` adds a page to those before it.
async fn collect_pages<T>(
    client: &Client,
    pages: Result<Response<Streaming<T>>, Status>,
    message: &str,
    append: impl Fn(&mut T, T),
) -> Result<Option<T>, UserError> {
    let mut pages = match pages {
        Ok(pages) => pages.into_inner(),
        Err(status) if status.code() == Code::Unimplemented => return Ok(None),
        Err(status) => return Err(client.to_user_error(&status)),
    };
    let first = client.next_message(&mut pages).await?;
    let mut all = first.ok_or_else(|| incomplete_response(message))?;

    while let Some(page) = client.next_message(&mut pages).await? {
        append(&mut all, page);
    }

    Ok(Some(all))
}

/// Refuses a response without a chosen column, from a coordinator of an older version, which ignores further ones.
fn check_metrics_supported(asked: &[String], sent: &[String]) -> Result<(), UserError> {
    let mut names = asked.iter().map(|name| tidy_text(name));
    let missing = names.find(|name| !name.is_empty() && !sent.contains(name));
    let Some(name) = missing else {
        return Ok(());
    };

    let message = format!(
        "the coordinator's version is too old to compute '{name}' of each trial: update the coordinator"
    );
    Err(UserError::new(ErrorCode::Version, message))
}

/// Refuses a response without the chosen statistics, which a coordinator of an older version
/// ignores.
fn check_stats_supported(stats: &[String], columns: &[String]) -> Result<(), UserError> {
    if stats.is_empty() || !columns.is_empty() {
        return Ok(());
    }
    let message = "the coordinator's version is too old to know statistics by name: leave out --stat, or update the \
                   coordinator";
    Err(UserError::new(ErrorCode::Version, message))
}

/// Refuses a response over all cells, from a coordinator of an older version, which ignores conditions.
fn check_condition_supported(asked: &str, applied: &str) -> Result<(), UserError> {
    if asked == applied {
        return Ok(());
    }
    let message = "the coordinator's version is too old to select cells before pooling: name the axes of --where in --by, \
                   too, or update the coordinator";
    Err(UserError::new(ErrorCode::Version, message))
}

/// Refuses a response by all axes where none was asked for, from a coordinator of an older version, which does not pool all cells.
fn check_pooling_supported(pools_all: bool, axes: &[String]) -> Result<(), UserError> {
    if !pools_all || axes.is_empty() {
        return Ok(());
    }
    let message = "the coordinator's version is too old to pool all cells of a sweep: name an axis beside `sweep` in --by, or update the \
                   coordinator";
    Err(UserError::new(ErrorCode::Version, message))
}

/// The error for a response that lacks a field of `message`.
pub fn incomplete_response(message: &str) -> UserError {
    UserError::new(
        ErrorCode::Version,
        format!("the coordinator sent an incomplete {message}: is it of another version?"),
    )
}
