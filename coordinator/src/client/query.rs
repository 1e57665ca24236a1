//! What several commands ask a coordinator for: sweeps, status, tables, curves and trials.

use ergodic_common::{ErrorCode, TrialKey};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tonic::{Code, Response, Status, Streaming};

use super::Client;

/// All sweeps.
///
/// # Errors
/// Nobody answers.
pub async fn query_sweeps(client: &mut Client) -> Result<Vec<v1::SweepStatus>, UserError> {
    let mut pages = match client.sweeps.list_pages(v1::ListRequest {}).await {
        Ok(pages) => pages.into_inner(),
        Err(status) if status.code() == Code::Unimplemented => {
            let all = client
                .sweeps
                .list(v1::ListRequest {})
                .await
                .map_err(|e| client.to_user_error(&e))?;
            return Ok(all.into_inner().sweeps);
        }
        Err(status) => return Err(client.to_user_error(&status)),
    };

    let mut sweeps = Vec::new();
    while let Some(page) = pages
        .message()
        .await
        .map_err(|e| client.to_user_error(&e))?
    {
        sweeps.extend(page.sweeps);
    }

    Ok(sweeps)
}

/// The status of one sweep.
///
/// # Errors
/// There is no such sweep, or nobody answers.
pub async fn query_status(client: &mut Client, sweep: &str) -> Result<v1::SweepStatus, UserError> {
    let request = v1::StatusRequest {
        sweep: sweep.to_owned(),
    };
    let response = client
        .sweeps
        .status(request)
        .await
        .map_err(|e| client.to_user_error(&e))?;

    response
        .into_inner()
        .status
        .ok_or_else(|| incomplete_response("StatusResponse"))
}

/// Statistics per cell.
///
/// # Errors
/// There is no such sweep, axis, metric or statistic, or nobody answers.
pub async fn query_table(
    client: &mut Client,
    request: v1::TableRequest,
) -> Result<v1::TableResponse, UserError> {
    let stats = request.stats.clone();
    let pages = client.sweeps.table_pages(request.clone()).await;
    let more =
        |table: &mut v1::TableResponse, page: v1::TableResponse| table.rows.extend(page.rows);
    let table = match collect_pages(client, pages, more, "TableResponse").await? {
        Some(table) => table,
        None => client
            .sweeps
            .table(request)
            .await
            .map_err(|e| client.to_user_error(&e))?
            .into_inner(),
    };
    check_stats_supported(&stats, &table.columns)?;

    Ok(table)
}

/// Statistics per cell and step.
///
/// # Errors
/// As for [`ask_table`].
pub async fn query_curves(
    client: &mut Client,
    request: v1::CurvesRequest,
) -> Result<v1::CurvesResponse, UserError> {
    let stats = request.stats.clone();
    let pages = client.sweeps.curve_pages(request.clone()).await;
    let more = |curves: &mut v1::CurvesResponse, page: v1::CurvesResponse| {
        curves.points.extend(page.points)
    };
    let curves = match collect_pages(client, pages, more, "CurvesResponse").await? {
        Some(curves) => curves,
        None => client
            .sweeps
            .curves(request)
            .await
            .map_err(|e| client.to_user_error(&e))?
            .into_inner(),
    };
    check_stats_supported(&stats, &curves.columns)?;

    Ok(curves)
}

/// All rows of a sweep, in pages, of which there is at least one.
///
/// # Errors
/// There is no such sweep, or nobody answers.
pub async fn query_trials(
    client: &mut Client,
    sweep: &str,
) -> Result<Vec<v1::TrialsResponse>, UserError> {
    let request = v1::TrialsRequest {
        sweep: sweep.to_owned(),
        trial: None,
    };
    let mut stream = client
        .sweeps
        .trials(request)
        .await
        .map_err(|e| client.to_user_error(&e))?
        .into_inner();

    let mut pages = Vec::new();
    while let Some(page) = stream
        .message()
        .await
        .map_err(|e| client.to_user_error(&e))?
    {
        pages.push(page);
    }

    Ok(pages)
}

/// The stored row of one trial, with its sweep's id and columns.
///
/// # Errors
/// There is no such sweep, the trial has no row, or nobody answers.
pub async fn query_trial(
    client: &mut Client,
    sweep: &str,
    key: TrialKey,
) -> Result<v1::TrialsResponse, UserError> {
    let request = v1::TrialsRequest {
        sweep: sweep.to_owned(),
        trial: Some(key.into()),
    };
    let mut stream = client
        .sweeps
        .trials(request)
        .await
        .map_err(|e| client.to_user_error(&e))?
        .into_inner();
    let page = stream
        .message()
        .await
        .map_err(|e| client.to_user_error(&e))?;

    page.ok_or_else(|| incomplete_response("the row of the trial is missing"))
}

/// Pages as one answer; none of a coordinator of an older version, which sends it in one piece.
async fn collect_pages<T>(
    client: &Client,
    pages: Result<Response<Streaming<T>>, Status>,
    more: impl Fn(&mut T, T),
    what: &str,
) -> Result<Option<T>, UserError> {
    let mut pages = match pages {
        Ok(pages) => pages.into_inner(),
        Err(status) if status.code() == Code::Unimplemented => return Ok(None),
        Err(status) => return Err(client.to_user_error(&status)),
    };
    let first = pages
        .message()
        .await
        .map_err(|e| client.to_user_error(&e))?;
    let mut all = first.ok_or_else(|| incomplete_response(what))?;

    while let Some(page) = pages
        .message()
        .await
        .map_err(|e| client.to_user_error(&e))?
    {
        more(&mut all, page);
    }

    Ok(Some(all))
}

/// A coordinator of an older version overlooks what it does not know.
fn check_stats_supported(stats: &[String], columns: &[String]) -> Result<(), UserError> {
    if stats.is_empty() || !columns.is_empty() {
        return Ok(());
    }
    let message = "the coordinator is of an older version, which knows no statistics by name: leave out --stat";
    Err(UserError::new(ErrorCode::Version, message))
}

/// The error for an answer that lacks a field: `message` names the message.
pub fn incomplete_response(message: &str) -> UserError {
    UserError::new(
        ErrorCode::Version,
        format!("the coordinator sent an incomplete {message}: is it of another version?"),
    )
}
