//! One function per command that asks a coordinator.

pub mod backup;
pub mod compare;
pub mod distance;
pub mod effects;
pub mod plan;
pub mod predictions;
pub mod sample_size;
pub mod token;
pub mod variance;
pub mod weights;

use std::path::Path;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, DataType};
use ergodic_common::dataset::DataError;
use ergodic_common::escape::escape_line;
use ergodic_common::number_format::format_significant;
use ergodic_common::pinned_file::FilePin;
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::misleading::{refuse_misleading_sweep, settings_for_new_sweep};
use ergodic_common::spec_file::node::format_shortest;
use ergodic_common::{ErrorCode, Spec, SpecError, TrialKey};
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::convert::MAX_FILES;
use ergodic_proto::status::UserError;
use ergodic_proto::{transfer, v1};
use serde_json::json;
use tonic::{Code, Response, Status, Streaming};

use super::growth::{
    expected_trials, format_halving_status, format_precision_status, format_sweep_size,
};
use super::latest::request_as_user;
use super::render::{RowSelection, TableData, TextFormat};
use super::watch::{
    count_done_trials, format_audit_status, format_duration, format_progress, print_stderr_line,
    remaining_audits, status_word,
};
use super::{Client, render};

/// What to print of a table, and how.
#[derive(Debug, Clone, Default)]
pub struct TableOptions {
    /// Axes to group by.
    pub by: Vec<String>,
    /// Axis down the side of a grid.
    pub rows: Option<String>,
    /// Axis along the top of a grid.
    pub columns: Option<String>,
    /// Metrics; none for the main one.
    pub metrics: Vec<String>,
    /// Which rows, in which order.
    pub selection: RowSelection,
    /// Step.
    pub at: Option<String>,
    /// Statistics by name, instead of those of every table.
    pub stats: Vec<String>,
    /// Whether cells count alike in rows of several.
    pub cells_alike: bool,
    /// Format.
    pub format: TextFormat,
}

/// A sweep file with the content of the files that it names.
#[derive(Debug, Clone)]
pub struct SweepFile {
    /// The sweep file.
    pub source: SpecSource,
    /// The content of each of its files.
    pub contents: Vec<Vec<u8>>,
}

/// Reads a sweep file, and the files that it names; their paths are relative to its folder.
///
/// # Errors
/// One of them cannot be read or used.
pub fn read_sweep_file(path: &str, settings: &[String]) -> Result<SweepFile, UserError> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        let message = match e.kind() {
            std::io::ErrorKind::NotFound => format!("{path}: there is no such sweep file"),
            std::io::ErrorKind::IsADirectory => {
                format!("{path}: expected a sweep file, found a directory")
            }
            std::io::ErrorKind::InvalidData => {
                format!("{path}: the sweep file is not text in UTF-8")
            }
            _ => format!("{path}: cannot read the sweep file: {e}"),
        };

        UserError::new(ErrorCode::BadInput, message)
    })?;
    let mut source = SpecSource {
        file: path.to_owned(),
        text,
        settings: settings.to_vec(),
        ..SpecSource::default()
    };

    let mut contents = Vec::new();
    let named = source.named_files();
    if named.len() > MAX_FILES {
        let message = format!(
            "{path}: it names {} files; at most {MAX_FILES} are possible",
            named.len()
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    for named in named {
        let content = read_referenced_file(path, &named)?;
        let bad = |e: DataError| UserError::new(ErrorCode::BadInput, format!("{path}: {e}"));
        source
            .files
            .push(FilePin::from_bytes(&named, &content).map_err(bad)?);

        contents.push(content);
    }

    Ok(SweepFile { source, contents })
}

fn read_referenced_file(sweep_file: &str, named: &str) -> Result<Vec<u8>, UserError> {
    let folder = Path::new(sweep_file).parent().unwrap_or(Path::new(""));
    let place = folder.join(named);
    std::fs::read(&place).map_err(|e| {
        let message = match e.kind() {
            std::io::ErrorKind::NotFound => {
                format!(
                    "{sweep_file}: the file '{named}' that it names is missing: looked for {}",
                    place.display()
                )
            }
            _ => format!(
                "{sweep_file}: cannot read '{named}' that it names: {}: {e}",
                place.display()
            ),
        };

        UserError::new(ErrorCode::BadInput, message)
    })
}

/// What of a sweep is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchMode {
    /// All of it, whatever other sweeps have.
    All,
    /// What no sweep of the store has the results of.
    Missing,
    /// The same, and an unfinished sweep of the same content goes on.
    Resume,
}

/// Reads a sweep that is to be launched, as its launch would: with what new sweeps get where their files leave something open.
///
/// # Errors
/// It is none, or is refused to new sweeps.
pub fn read_launch_spec(source: &SpecSource) -> Result<Spec, UserError> {
    let bad = |e: SpecError| UserError::new(ErrorCode::BadInput, e.to_string());
    let spec = Spec::read_new(source).map_err(bad)?;
    refuse_misleading_sweep(&spec).map_err(|e| bad(e.with_file(&source.file)))?;
    let settings = settings_for_new_sweep(&spec);
    if settings.is_empty() {
        return Ok(spec);
    }

    let mut source = source.clone();
    source.settings.extend(settings);
    Spec::read_new(&source).map_err(bad)
}

/// Launches a sweep, once the coordinator has the files that it names, and shows what its data look like.
///
/// # Errors
/// It was refused, or nobody answers.
pub async fn launch_sweep(
    client: &mut Client,
    file: &SweepFile,
    run: LaunchMode,
) -> Result<v1::LaunchResponse, UserError> {
    // Files are sent for a sweep that can be run.
    let spec = read_launch_spec(&file.source)?;
    if !file.contents.is_empty() {
        client.switch_to_leader().await?;
    }

    for (pin, content) in file.source.files.iter().zip(&file.contents) {
        transfer::upload_file(&mut client.files, pin.hash, content.clone())
            .await
            .map_err(|e| client.to_user_error(&e))?;
    }

    let resume = run == LaunchMode::Resume;
    let reuse = run != LaunchMode::All;
    // Older coordinators take it where they read it alike.
    let source = SpecSource {
        grammar: spec.min_grammar(),
        ..file.source.clone()
    };
    let request = v1::LaunchRequest {
        source: Some((&source).into()),
        resume,
        reuse,
        checksum: Vec::new(),
    }
    .with_checksum();
    let launched = client
        .sweeps
        .launch(request_as_user(request))
        .await
        .map_err(|e| client.to_user_error(&e))?
        .into_inner();
    let status = launched
        .status
        .as_ref()
        .ok_or_else(|| incomplete_response("LaunchResponse"))?;

    if !launched.data_description.is_empty() {
        print_stderr_line(&format!(
            "data: {}; {}",
            escape_line(&status.data),
            escape_line(&launched.data_description)
        ));
    }

    Ok(launched)
}

/// What need not be run, in lines for people; none where all of it is run.
pub fn format_reused_results(launched: &v1::LaunchResponse) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(status) = &launched.status else {
        return lines;
    };
    let id = &status.id;

    if launched.found {
        lines.push(match status.state() {
            _ if launched.retried > 0 => {
                format!("{id} is the same: trials that failed, or lost a file, are run again ({})", launched.retried)
            }
            v1::SweepState::Completed => {
                format!("{id} has the results of all these trials: nothing is run (--again runs them once more)")
            }
            v1::SweepState::Paused => format!("{id} is the same, and paused: `ergodic resume {id}` lets it go on"),
            _ => format!(
                "{id} is the same, and goes on: {} of {} trials are done",
                count_done_trials(status),
                status.trials
            ),
        });
    }

    if launched.copied > 0 {
        let copied = launched.copied;
        let from = launched.from.join(", ");
        let left = status.trials.saturating_sub(count_done_trials(status));
        lines.push(format!(
            "{copied} results are taken over from {from}; {left} trials are to be run (--again runs all)"
        ));
    }

    if launched.compared > 0 {
        let cells = if launched.compared == 1 {
            "cell has"
        } else {
            "cells have"
        };
        lines.push(format!(
            "{} {cells} results that lack something of what is measured now: they are run again, and the digests compared",
            launched.compared
        ));
    }

    if !launched.unread.is_empty() {
        let ids = launched.unread.join(", ");
        lines.push(format!(
            "not looked for trials in {ids}: these sweeps, or this one, have too many cells"
        ));
    }

    lines
}

/// `ergodic list`
///
/// # Errors
/// Nobody answers.
pub async fn list_sweeps(client: &mut Client, format: TextFormat) -> Result<String, UserError> {
    let sweeps = query_sweeps(client).await?;
    let columns = [
        "id",
        "name",
        "state",
        "cells",
        "repeats",
        "trials",
        "done",
        "diverged",
        "failed",
        "priority",
        "weight",
        "launched_by",
        "launched_at",
    ];

    let row = |s: &v1::SweepStatus| {
        vec![
            json!(s.id),
            json!(s.name),
            json!(status_word(s)),
            json!(s.cells),
            json!(s.repeats),
            json!(s.trials),
            json!(count_done_trials(s)),
            json!(s.diverged),
            json!(s.failed),
            json!(s.priority),
            json!(s.weight),
            json!(launched_by(s)),
            json!(s.launched_at),
        ]
    };
    let records = table_from_rows(&columns, sweeps.iter().map(row).collect());

    if sweeps.is_empty() && format == TextFormat::Table {
        return Ok("no sweep yet: launch one with `ergodic launch SPEC`\n".into());
    }

    Ok(render_table_data(&records, format, |r| {
        render_first_columns(r, 12)
    }))
}

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

/// `ergodic status`
pub fn render_status(s: &v1::SweepStatus, format: TextFormat) -> String {
    let facts: Vec<(&str, serde_json::Value)> = vec![
        ("id", json!(s.id)),
        ("name", json!(s.name)),
        ("state", json!(status_word(s))),
        (
            "withheld",
            if s.withheld.is_empty() {
                json!(null)
            } else {
                json!(s.withheld)
            },
        ),
        ("priority", json!(s.priority)),
        ("weight", json!(s.weight)),
        ("launched_by", json!(launched_by(s))),
        ("numerics", json!(s.numerics)),
        ("data", json!(s.data)),
        ("cells", json!(s.cells)),
        ("repeats", json!(s.repeats)),
        ("trials", json!(s.trials)),
        ("done", json!(count_done_trials(s))),
        ("completed", json!(s.completed)),
        ("diverged", json!(s.diverged)),
        ("failed", json!(s.failed)),
        ("leased", json!(s.leased)),
        ("releases", json!(s.releases)),
        ("duplicates", json!(s.duplicates)),
        ("mismatches", json!(s.mismatches)),
        ("fenced", json!(s.fenced)),
        ("audit", json!(s.audit.map_or(0.0, |audit| audit.share))),
        ("audits_due", json!(s.audit.map(|audit| audit.due))),
        ("audits_same", json!(s.audit.map(|audit| audit.same))),
        (
            "audits_different",
            json!(s.audit.map(|audit| audit.different)),
        ),
        ("audits_failed", json!(s.audit.map(|audit| audit.failed))),
        ("audits_left", json!(s.audit.as_ref().map(remaining_audits))),
        ("checkpoints", json!(s.checkpoints)),
        (
            "until_metric",
            json!(s.precision.as_ref().map(|p| &p.metric)),
        ),
        ("until_ci95", json!(s.precision.as_ref().map(|p| p.ci95))),
        (
            "least_repeats",
            json!(
                s.precision
                    .as_ref()
                    .map(|p| p.min)
                    .or(s.halving.as_ref().map(|h| h.min))
            ),
        ),
        (
            "cells_known",
            json!(s.precision.as_ref().map(|p| p.reached)),
        ),
        (
            "cells_exhausted",
            json!(s.precision.as_ref().map(|p| p.exhausted)),
        ),
        (
            "halving_metric",
            json!(s.halving.as_ref().map(|h| &h.metric)),
        ),
        (
            "halving_factor",
            json!(s.halving.as_ref().map(|h| h.factor)),
        ),
        ("rung", json!(s.halving.as_ref().map(|h| h.rung))),
        (
            "cells_standing",
            json!(s.halving.as_ref().map(|h| h.climbing)),
        ),
        ("cells_ready", json!(s.halving.as_ref().map(|h| h.ready))),
        ("expected_trials", json!(expected_trials(s))),
        ("workers", json!(s.workers)),
        ("slots", json!(s.slots)),
        ("rate", json!(s.rate)),
        ("eta_seconds", json!(s.eta_seconds)),
        ("best_cell", json!(s.best_cell)),
        (
            "best_mean",
            if s.best_n > 0 {
                json!(s.best_mean)
            } else {
                json!(null)
            },
        ),
        (
            "leader",
            if s.leader.is_empty() {
                json!(null)
            } else {
                json!(s.leader)
            },
        ),
        (
            "trouble",
            if s.trouble.is_empty() {
                json!(null)
            } else {
                json!(s.trouble)
            },
        ),
    ];

    if format == TextFormat::Json {
        let object: serde_json::Map<_, _> =
            facts.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        return format!("{}\n", serde_json::Value::Object(object));
    }

    let records = TableData {
        columns: facts.iter().map(|(k, _)| (*k).to_owned()).collect(),
        rows: vec![facts.into_iter().map(|(_, v)| v).collect()],
        key_columns: 0,
    };
    render_table_data(&records, format, |_| render_human_status(s))
}

/// Who launched it, if that is known.
fn launched_by(s: &v1::SweepStatus) -> Option<&str> {
    Some(s.launched_by.as_str()).filter(|by| !by.is_empty())
}

fn render_human_status(s: &v1::SweepStatus) -> String {
    let mut out = format!(
        "{} ({}) is {}\n",
        escape_line(&s.name),
        s.id,
        status_word(s)
    );

    if !s.withheld.is_empty() {
        out += &format!("  NOTHING OF IT IS RUN: {}\n", escape_line(&s.withheld));
    }
    if s.unreadable {
        return out + &format!("  `ergodic rm {}` removes it\n", s.id);
    }

    out += &format!(
        "  {} on {}\n",
        format_sweep_size(s),
        escape_line(&s.numerics)
    );
    out += &format!("  data: {}\n", escape_line(&s.data));

    out += &launched_by(s).map_or_else(String::new, |by| {
        format!("  launched by {}\n", escape_line(by))
    });

    if (s.priority, s.weight) != (0, 1.0) {
        out += &format!(
            "  priority {}, weight {}\n",
            s.priority,
            format_shortest(s.weight)
        );
    }

    out += &format!(
        "  {} done, {} in leases  {}\n",
        count_done_trials(s),
        s.leased,
        format_progress(s)
    );

    if s.releases + s.duplicates + s.fenced > 0 {
        out += &format!(
            "  lost leases given out again: {}, results compared with a stored row: {}, late batches: {}\n",
            s.releases, s.duplicates, s.fenced
        );
    }

    let growth = format_precision_status(s).or(format_halving_status(s));
    out += &growth.map_or_else(String::new, |known| format!("  {known}\n"));
    out += &format_audit_status(s).map_or_else(String::new, |audits| format!("  {audits}\n"));

    if s.checkpoints > 0 {
        out += &format!(
            "  checkpoints of unfinished trials: {}; `explain {} CELL/REPEAT` says of which step\n",
            s.checkpoints, s.id
        );
    }

    if !s.leader.is_empty() {
        out += &format!(
            "  as it is stored; the coordinator at {} leads, and knows of workers and rates\n",
            escape_line(&s.leader)
        );
    }

    if !s.trouble.is_empty() {
        out += &format!(
            "  TROUBLE: the coordinator cannot store results: {}\n",
            escape_line(&s.trouble)
        );
    }

    if s.mismatches > 0 {
        out += &format!(
            "  ALARM: {} results differed from the stored row\n",
            s.mismatches
        );
    }

    out
}

/// `ergodic workers`
///
/// # Errors
/// Nobody answers.
pub async fn list_workers(client: &mut Client, format: TextFormat) -> Result<String, UserError> {
    let response = client
        .sweeps
        .workers(v1::WorkersRequest {})
        .await
        .map_err(|e| client.to_user_error(&e))?;
    let workers = response.into_inner().workers;

    let columns = [
        "name", "state", "slots", "running", "queued", "trials", "heard", "numerics", "build", "id",
    ];
    let row = |w: &v1::WorkerStatus| {
        vec![
            json!(w.name),
            json!(if w.connected { "joined" } else { "away" }),
            json!(w.slots),
            json!(w.running),
            json!(w.queued),
            json!(w.trials),
            json!(format!("{} ago", format_duration(w.silent_seconds))),
            json!(w.numerics.join(" ")),
            json!(w.build),
            json!(w.id),
        ]
    };
    let records = table_from_rows(&columns, workers.iter().map(row).collect());

    if workers.is_empty() && format == TextFormat::Table {
        return Ok("no worker is joined: start one with `ergodic-worker --join URL`\n".into());
    }

    Ok(render_table_data(&records, format, |r| {
        render_first_columns(r, 8)
    }))
}

/// `ergodic table`
///
/// # Errors
/// There is no such sweep, axis or metric, or nobody answers.
pub async fn query_table_text(
    client: &mut Client,
    sweep: &str,
    options: &TableOptions,
) -> Result<String, UserError> {
    let mut tables = query_tables(client, sweep, options).await?;
    options.selection.apply_to_tables(&mut tables)?;
    let grid = options.rows.is_some();
    Ok(match &tables[..] {
        [table] => render_table(table, grid, options.format),
        tables => render_metric_tables(tables, grid, options.format),
    })
}

/// `ergodic table` as columns: one row per cell, and per metric if there are several, also of a grid.
///
/// # Errors
/// As for [`table`].
pub async fn query_table_batch(
    client: &mut Client,
    sweep: &str,
    options: &TableOptions,
) -> Result<RecordBatch, UserError> {
    let mut tables = query_tables(client, sweep, options).await?;
    let first = &tables[0];
    // Of all rows, so that a column's type does not depend on which of them are wanted.
    let axes = render::infer_axis_types(
        first.axes.len(),
        first.rows.iter().map(|row| row.values.as_slice()),
    );

    options.selection.apply_to_tables(&mut tables)?;
    let records = match &tables[..] {
        [table] => render::build_summary_data(&table.axes, &table.columns, &table.rows),
        tables => render::build_tidy_data(tables),
    };
    records.to_record_batch(&axes).map_err(|e| column_error(&e))
}

/// One table for each metric.
async fn query_tables(
    client: &mut Client,
    sweep: &str,
    options: &TableOptions,
) -> Result<Vec<v1::TableResponse>, UserError> {
    let by = match (&options.rows, &options.columns) {
        (Some(rows), Some(columns)) => vec![rows.clone(), columns.clone()],
        (None, None) => options.by.clone(),
        _ => {
            return Err(UserError::new(
                ErrorCode::BadInput,
                "--rows and --cols go together: give both",
            ));
        }
    };

    let main = [String::new()];
    let metrics = if options.metrics.is_empty() {
        &main[..]
    } else {
        &options.metrics
    };
    let mut tables = Vec::with_capacity(metrics.len());

    for metric in metrics {
        let request = v1::TableRequest {
            sweep: sweep.to_owned(),
            metric: metric.clone(),
            by: by.clone(),
            at: options.at.clone().unwrap_or_default(),
            stats: options.stats.clone(),
            cells_alike: options.cells_alike,
        };

        tables.push(query_table(client, request).await?);
    }

    Ok(tables)
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

/// All rows of a sweep, in pages, of which there is at least one.
///
/// # Errors
/// There is no such sweep, or nobody answers.
pub(super) async fn query_trials(
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

/// A coordinator of an older version overlooks what it does not know.
fn check_stats_supported(stats: &[String], columns: &[String]) -> Result<(), UserError> {
    if stats.is_empty() || !columns.is_empty() {
        return Ok(());
    }
    let message = "the coordinator is of an older version, which knows no statistics by name: leave out --stat";
    Err(UserError::new(ErrorCode::Version, message))
}

fn render_table(table: &v1::TableResponse, grid: bool, format: TextFormat) -> String {
    let records = render::build_summary_data(&table.axes, &table.columns, &table.rows);
    match (format, grid) {
        (TextFormat::Json, _) => {
            let rows: Vec<String> = records
                .to_json_objects()
                .iter()
                .map(|row| format!("    {row}"))
                .collect();
            format!(
                "{{\n  \"sweep\": {},\n  \"metric\": {},\n  \"rows\": [\n{}\n  ]\n}}\n",
                json!(table.sweep),
                json!(table.metric),
                rows.join(",\n")
            )
        }
        // Whoever computes with it wants columns, not a grid of texts.
        (TextFormat::Csv, _) => records.to_csv(),
        (TextFormat::Md, false) => records.to_markdown(),
        (TextFormat::Md, true) => render::render_pivot(table).1.to_markdown(),
        (TextFormat::Latex, false) => render::render_latex(std::slice::from_ref(table)),
        (TextFormat::Latex, true) => render::render_latex_pivot(table),
        (TextFormat::Table, grid) => {
            let body = if grid {
                render::render_pivot(table).0
            } else {
                render::render_human_table(table)
            };
            format!(
                "{}{body}{}{}",
                format_table_heading(table),
                render::render_legend(table),
                format_provenance(table)
            )
        }
    }
}

/// Tables of several metrics over the same cells.
fn render_metric_tables(tables: &[v1::TableResponse], grid: bool, format: TextFormat) -> String {
    match (format, grid) {
        (TextFormat::Json, _) => {
            let rows: Vec<String> = render::build_tidy_data(tables)
                .to_json_objects()
                .iter()
                .map(|row| format!("    {row}"))
                .collect();
            let metrics: Vec<&str> = tables.iter().map(|table| table.metric.as_str()).collect();

            let sweep = json!(tables[0].sweep);
            let metrics = json!(metrics);
            format!(
                "{{\n  \"sweep\": {sweep},\n  \"metrics\": {metrics},\n  \"rows\": [\n{}\n  ]\n}}\n",
                rows.join(",\n")
            )
        }
        (TextFormat::Csv, _) => render::build_tidy_data(tables).to_csv(),
        (TextFormat::Md, false) => render::build_tidy_data(tables).to_markdown(),
        (TextFormat::Latex, false) => render::render_latex(tables),
        (TextFormat::Md, true) => render::build_tidy_pivots(tables).to_markdown(),
        (TextFormat::Latex, true) => tables
            .iter()
            .map(render::render_latex_pivot)
            .collect::<Vec<_>>()
            .join("\n"),
        (TextFormat::Table, false) if tables[0].columns.is_empty() => {
            let metrics: Vec<&str> = tables.iter().map(|table| table.metric.as_str()).collect();
            let head = format_table_heading(&v1::TableResponse {
                metric: metrics.join(", "),
                ..tables[0].clone()
            });
            format!(
                "{head}{}{}{}",
                render::render_side_by_side(tables),
                render::render_joint_legend(tables),
                format_provenance(&tables[0])
            )
        }
        (TextFormat::Table, _) => tables
            .iter()
            .map(|table| render_table(table, grid, format))
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

fn format_table_heading(table: &v1::TableResponse) -> String {
    let what = match table.columns.is_empty() {
        true => "mean ± 95 % CI over completed trials".to_owned(),
        false => table.columns.join(" / "),
    };
    format!(
        "{} ({}): {}, {what}\n",
        escape_line(&table.name),
        table.sweep,
        table.metric
    )
}

fn format_provenance(table: &v1::TableResponse) -> String {
    let part = match table.done == table.trials {
        true => format!("{} trials", table.trials),
        false => format!("{} of {} trials so far", table.done, table.trials),
    };
    format!(
        "{part} · {} · {}\n",
        escape_line(&table.data),
        escape_line(&table.numerics)
    )
}

/// `ergodic trials`
///
/// # Errors
/// There is no such sweep, or nobody answers.
pub async fn query_trials_text(
    client: &mut Client,
    sweep: &str,
    format: TextFormat,
) -> Result<String, UserError> {
    let pages = query_trials(client, sweep).await?;
    Ok(render_table_data(
        &render::build_trial_data(&pages),
        format,
        |r| render_first_columns(r, r.columns.len()),
    ))
}

/// `ergodic trials` as columns.
///
/// # Errors
/// As for [`trials`].
pub async fn query_trials_batch(
    client: &mut Client,
    sweep: &str,
) -> Result<RecordBatch, UserError> {
    let pages = query_trials(client, sweep).await?;
    let axes = pages.first().map_or(0, |page| page.axes.len());
    let rows = pages
        .iter()
        .flat_map(|page| &page.rows)
        .map(|row| row.values.as_slice());
    let axes = render::infer_axis_types(axes, rows);
    render::build_trial_data(&pages)
        .to_record_batch(&axes)
        .map_err(|e| column_error(&e))
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

/// `ergodic curves`
///
/// # Errors
/// There is no such sweep or metric, or nobody answers.
pub async fn query_curves_text(
    client: &mut Client,
    sweep: &str,
    metric: &str,
    stats: &[String],
    format: TextFormat,
) -> Result<String, UserError> {
    let CurveTable {
        sweep,
        metric,
        data: records,
        ..
    } = query_curve_table(client, sweep, metric, stats).await?;

    if format == TextFormat::Json {
        let objects: Vec<String> = records
            .to_json_objects()
            .iter()
            .map(|o| format!("    {o}"))
            .collect();

        let sweep = json!(sweep);
        let metric = json!(metric);
        return Ok(format!(
            "{{\n  \"sweep\": {sweep},\n  \"metric\": {metric},\n  \"rows\": [\n{}\n  ]\n}}\n",
            objects.join(",\n")
        ));
    }

    Ok(render_table_data(&records, format, |r| {
        format!(
            "{metric} over steps\n{}",
            render_first_columns(r, r.columns.len())
        )
    }))
}

/// `ergodic curves` as columns.
///
/// # Errors
/// As for [`curves`].
pub async fn query_curves_batch(
    client: &mut Client,
    sweep: &str,
    metric: &str,
    stats: &[String],
) -> Result<RecordBatch, UserError> {
    let curves = query_curve_table(client, sweep, metric, stats).await?;
    curves
        .data
        .to_record_batch(&curves.key_types)
        .map_err(|e| column_error(&e))
}

struct CurveTable {
    sweep: String,
    metric: String,
    /// Types of the axes and of the step, which are the first columns.
    key_types: Vec<DataType>,
    data: TableData,
}

async fn query_curve_table(
    client: &mut Client,
    sweep: &str,
    metric: &str,
    stats: &[String],
) -> Result<CurveTable, UserError> {
    let metric = metric.to_owned();
    let stats = stats.to_vec();
    let request = v1::CurvesRequest {
        sweep: sweep.to_owned(),
        metric,
        stats,
        by: Vec::new(),
    };
    let curves = query_curves(client, request).await?;

    let row = |point: v1::CurvePoint| {
        let step = v1::AxisValue {
            kind: Some(v1::axis_value::Kind::Number(point.step as f64)),
        };
        let values = point.values.into_iter().chain([step]).collect();
        let summary = point.summary;
        let figures = point.figures;

        let note = point.note;
        v1::TableRow {
            values,
            summary,
            figures,
            note,
            ..v1::TableRow::default()
        }
    };
    let rows: Vec<v1::TableRow> = curves.points.into_iter().map(row).collect();
    let axes: Vec<String> = curves.axes.into_iter().chain(["step".to_owned()]).collect();
    let mut records = render::build_summary_data(&axes, &curves.columns, &rows);

    if curves.columns.is_empty() {
        drop_columns(&mut records, &["diverged", "failed"]);
    }

    let types = render::infer_axis_types(axes.len(), rows.iter().map(|row| row.values.as_slice()));
    Ok(CurveTable {
        sweep: curves.sweep,
        metric: curves.metric,
        key_types: types,
        data: records,
    })
}

fn drop_columns(records: &mut TableData, names: &[&str]) {
    for name in names {
        if let Some(at) = records.columns.iter().position(|c| c == name) {
            records.columns.remove(at);
            records.rows.iter_mut().for_each(|row| drop(row.remove(at)));
        }
    }
}

/// `ergodic pause`, `resume`, `cancel` and `retry`
///
/// # Errors
/// There is no such sweep, its state does not allow it, or nobody answers.
pub async fn steer_sweep(
    client: &mut Client,
    sweep: &str,
    steering: v1::Steering,
) -> Result<v1::SweepStatus, UserError> {
    let request = v1::SteerRequest {
        sweep: sweep.to_owned(),
        steering: steering.into(),
        ..Default::default()
    };
    send_steer(client, request).await
}

/// `ergodic share`
///
/// # Errors
/// There is no such sweep, it has ended, its share may not be such, or nobody answers.
pub async fn update_share(
    client: &mut Client,
    sweep: &str,
    priority: Option<i32>,
    weight: Option<f64>,
) -> Result<v1::SweepStatus, UserError> {
    let steering = v1::Steering::Share.into();
    send_steer(
        client,
        v1::SteerRequest {
            sweep: sweep.to_owned(),
            steering,
            priority,
            weight,
        },
    )
    .await
}

async fn send_steer(
    client: &mut Client,
    request: v1::SteerRequest,
) -> Result<v1::SweepStatus, UserError> {
    let response = client
        .sweeps
        .steer(request)
        .await
        .map_err(|e| client.to_user_error(&e))?;
    response
        .into_inner()
        .status
        .ok_or_else(|| incomplete_response("SteerResponse"))
}

/// `ergodic rm`, of one sweep
///
/// # Errors
/// There is no such sweep, it has not ended, or nobody answers.
pub async fn remove_sweep(
    client: &mut Client,
    sweep: &str,
    force: bool,
) -> Result<String, UserError> {
    let request = v1::RemoveRequest {
        sweep: sweep.to_owned(),
        force,
    };
    let removed = client
        .sweeps
        .remove(request)
        .await
        .map_err(|e| client.to_user_error(&e))?
        .into_inner();
    let v1::RemoveResponse {
        sweep,
        name,
        trials,
        files,
        bytes,
    } = removed;
    let megabytes = format_significant(bytes as f64 / 1e6, 3);

    Ok(format!(
        "removed {sweep} ({}): {trials} rows, {files} files of {megabytes} MB\n",
        escape_line(&name)
    ))
}

/// `ergodic explain`
///
/// # Errors
/// There is no such sweep or trial, or nobody answers.
pub async fn explain_sweep(
    client: &mut Client,
    sweep: &str,
    trial: Option<TrialKey>,
    format: TextFormat,
) -> Result<String, UserError> {
    let request = v1::ExplainRequest {
        sweep: sweep.to_owned(),
        trial: trial.map(Into::into),
    };
    let lines = client
        .sweeps
        .explain(request)
        .await
        .map_err(|e| client.to_user_error(&e))?
        .into_inner()
        .lines;

    Ok(match format {
        TextFormat::Json => format!("{}\n", json!(lines)),
        _ => lines
            .iter()
            .map(|line| format!("{}\n", escape_line(line)))
            .collect(),
    })
}

pub(super) fn table_from_rows(columns: &[&str], rows: Vec<Vec<serde_json::Value>>) -> TableData {
    TableData {
        columns: columns.iter().map(|c| (*c).to_owned()).collect(),
        rows,
        key_columns: 0,
    }
}

pub(super) fn render_table_data(
    records: &TableData,
    format: TextFormat,
    people: impl FnOnce(&TableData) -> String,
) -> String {
    match format {
        TextFormat::Table => people(records),
        TextFormat::Json => records.to_json(),
        TextFormat::Csv => records.to_csv(),
        TextFormat::Md => records.to_markdown(),
        TextFormat::Latex => render::render_latex_data(records),
    }
}

/// Rows for people; texts in them are as they are to be shown.
pub(super) fn render_human_rows(columns: &[String], rows: &[Vec<serde_json::Value>]) -> String {
    let records = TableData {
        columns: columns.to_vec(),
        rows: rows.to_vec(),
        key_columns: 0,
    };
    render_first_columns(&records, columns.len())
}

/// The first columns of records, for people.
fn render_first_columns(records: &TableData, columns: usize) -> String {
    let mut out = comfy_table::Table::new();
    out.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    out.set_header(
        records.columns[..columns]
            .iter()
            .map(|name| escape_line(name)),
    );

    for row in records.format_cells("") {
        out.add_row(row.into_iter().take(columns));
    }

    format!("{out}\n")
}

fn column_error(error: &ArrowError) -> UserError {
    UserError::new(
        ErrorCode::Internal,
        format!("the answer cannot be put into columns: {error}"),
    )
}

fn incomplete_response(message: &str) -> UserError {
    UserError::new(
        ErrorCode::Version,
        format!("the coordinator sent an incomplete {message}: is it of another version?"),
    )
}
