//! `ergodic report`: writes tables, figures, provenance and the sweep file as one self-contained
//! page.

mod page;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use ergodic_common::ids::SweepId;
use ergodic_common::number_format::format_count;
use ergodic_common::spec::SpecSource;
use ergodic_common::{BUILD, ErrorCode, Spec};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use page::ReportPage;

use super::Client;
use super::args::SweepTarget;
use super::plot::{
    FigureArgs, MAX_CURVES, PlotKind, check_plot_size, draw_file_figure, draw_scene, varying_axes,
};
use super::query::{PinnedSweepFile, query_status, query_sweep_file, query_table, query_trials};
use super::render::{is_missing_ranks, write_atomic_file};
use super::status_text::{count_done_trials, format_audit_status, format_duration, state_word};
use super::sweep_set::SweepSet;
use super::utc::format_utc;
use super::verdicts::{format_verdict_counts, query_verdicts};
use crate::app::{CommandOutcome, print_output};
use crate::plot::Scene;

/// Maximum number of rows of a table on the page.
const MAX_ROWS: usize = 200;

/// `ergodic report`
#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// Further sweeps, shown side by side and then one after another
    #[arg(index = 2, value_name = "SWEEP")]
    pub others: Vec<String>,
    /// Directory to write index.html to
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

/// Writes `index.html` into a directory, which is made where it is missing, and prints its path.
///
/// # Errors
/// There is no such sweep, the file cannot be written, or nobody answers.
pub async fn run_report(args: ReportArgs) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect().await?;
    let sweeps = SweepSet::resolve(&mut client, id, &args.others).await?;
    let page = collect_report(&mut client, &sweeps).await?;
    print_output(write_index_page(&args.output, &page)?)
}

async fn collect_report(client: &mut Client, sweeps: &SweepSet) -> Result<ReportPage, UserError> {
    if let Some(id) = sweeps.only_id() {
        let status = query_status(client, id).await?;
        let mut page = ReportPage::new(&sweep_title(&status));
        report_sweep(client, &status, &mut page).await?;
        return Ok(page);
    }

    let mut statuses = Vec::new();
    for id in sweeps.ids() {
        statuses.push(query_status(client, id).await?);
    }
    let titles: Vec<String> = statuses.iter().map(sweep_title).collect();
    let mut page = ReportPage::new(&titles.join(", "));

    page.add_heading("Side by side", &titles.join(" · "));
    report_common_metric(client, sweeps, &statuses, &mut page).await?;
    for status in &statuses {
        report_sweep(client, status, &mut page).await?;
    }

    Ok(page)
}

fn sweep_title(status: &v1::SweepStatus) -> String {
    format!("{} ({})", status.name, status.id)
}

/// Adds the first main metric of a sweep that all of them measure.
async fn report_common_metric(
    client: &mut Client,
    sweeps: &SweepSet,
    statuses: &[v1::SweepStatus],
    page: &mut ReportPage,
) -> Result<(), UserError> {
    for status in statuses {
        match report_metric_of_all(client, sweeps, &status.metric, page).await {
            Err(error) if error.code == ErrorCode::NotFound => {}
            reported => return reported,
        }
    }

    page.add_paragraph(
        "The sweeps have no main metric in common; `ergodic table --metric` shows any other.",
    );
    Ok(())
}

/// Adds a metric of several sweeps in one table and one picture.
async fn report_metric_of_all(
    client: &mut Client,
    sweeps: &SweepSet,
    metric: &str,
    page: &mut ReportPage,
) -> Result<(), UserError> {
    let request = v1::TableRequest {
        metric: metric.to_owned(),
        ..v1::TableRequest::default()
    };
    let table = sweeps.query_table(client, request).await?;
    page.add_section(metric);
    page.add_table(&table, MAX_ROWS);
    if table.rows.len() > MAX_ROWS {
        page.add_paragraph(&format!(
            "The first {MAX_ROWS} of {} cells.",
            table.rows.len()
        ));
    }

    let figure = select_metric_figure(PlotKind::Distribution, metric);
    report_figure(client, sweeps, &figure, page).await
}

/// Adds everything about one sweep.
async fn report_sweep(
    client: &mut Client,
    status: &v1::SweepStatus,
    page: &mut ReportPage,
) -> Result<(), UserError> {
    // Checked first, so that a sweep too large for the figures fails before anything is fetched.
    check_plot_size("a page", &FigureArgs::new(PlotKind::Distribution), status)?;
    let id = status.sweep_id();
    let file = query_sweep_file(client, &id).await?;
    let trials = query_trials(client, &id, &[]).await?;
    let sweep = SweepSet::of_one(id.clone());
    let metrics = trials
        .first()
        .map(|page| page.metrics.clone())
        .unwrap_or_default();

    page.add_heading(&sweep_title(status), &format_status_line(status));
    report_claims(client, &id, &file.source, page).await?;

    // The sweep's own metric comes first, because it ranks the cells.
    let (main, others): (Vec<String>, Vec<String>) = metrics
        .into_iter()
        .partition(|metric| *metric == status.metric);
    for metric in main.iter().chain(&others) {
        report_metric(client, status, metric, page).await?;
    }

    if status.diverged > 0 {
        page.add_section("Divergence");
        let figure = FigureArgs::new(PlotKind::Phase);
        report_figure(client, &sweep, &figure, page).await?;
    }

    page.add_statistics_notes();
    page.add_section("Provenance");
    page.add_facts(&collect_provenance(client, status, &file, &trials).await?);

    report_sweep_file(&file.source, page);
    Ok(())
}

/// Adds the verdicts on the claims of a sweep, and the figures of its file, if it has any.
async fn report_claims(
    client: &mut Client,
    sweep: &SweepId,
    source: &SpecSource,
    page: &mut ReportPage,
) -> Result<(), UserError> {
    let Ok(spec) = Spec::read_stored(source) else {
        return Ok(());
    };
    let claims = spec
        .claims
        .as_ref()
        .map_or(0, |section| section.claims.len());
    let verdicts = match claims {
        0 => v1::VerdictResponse::default(),
        _ => query_verdicts(client, sweep, None).await?,
    };
    if claims > 0 {
        page.add_section("Claims");
        page.add_paragraph(&format!("{}.", format_verdict_counts(&verdicts)));
        page.add_verdicts(&verdicts.rows);
    }

    let figures = spec
        .figures
        .as_ref()
        .map_or(&[][..], |section| section.figures.as_slice());
    if !figures.is_empty() {
        page.add_section("Figures");
    }
    for figure in figures {
        let drawn = draw_file_figure(client, sweep, &spec, figure, &verdicts).await;
        add_drawn_figure(drawn, &format!("figure '{}'", figure.name), page)?;
    }
    Ok(())
}

/// Adds a table and the figures of one metric.
async fn report_metric(
    client: &mut Client,
    status: &v1::SweepStatus,
    metric: &str,
    page: &mut ReportPage,
) -> Result<(), UserError> {
    let id = status.sweep_id();
    page.add_section(metric);
    let table = report_table(client, &id, metric, page).await?;
    let sweep = SweepSet::of_one(id);
    let figure = select_metric_figure(PlotKind::Heatmap, metric);
    report_figure(client, &sweep, &figure, page).await?;

    let figure = select_metric_figure(PlotKind::Curves, metric);
    report_curves(client, &sweep, &table, figure, page).await?;

    if *metric == status.metric {
        let figure = select_metric_figure(PlotKind::Distribution, metric);
        report_figure(client, &sweep, &figure, page).await?;
    }

    Ok(())
}

fn select_metric_figure(kind: PlotKind, metric: &str) -> FigureArgs {
    FigureArgs {
        metric: Some(metric.to_owned()),
        ..FigureArgs::new(kind)
    }
}

fn report_sweep_file(source: &SpecSource, page: &mut ReportPage) {
    page.add_section("Sweep file");
    page.add_verbatim(&source.text);
    if !source.settings.is_empty() {
        page.add_paragraph(&format!(
            "Settings given at the launch: {}",
            source.settings.join("  ")
        ));
    }
}

/// Writes the page to a directory, which is created if it is missing; returns a line with its path.
fn write_index_page(dir: &Path, page: &ReportPage) -> Result<String, UserError> {
    std::fs::create_dir_all(dir).map_err(|e| {
        let message = format!(
            "-o {}: cannot create the directory ({e}): name another path",
            dir.display()
        );
        UserError::new(ErrorCode::BadInput, message)
    })?;
    let path = dir.join("index.html");
    write_atomic_file(&path, page.to_html().as_bytes())?;

    Ok(format!("{}\n", path.display()))
}

/// Formats `completed · 9 cells × 5 repeats = 45 trials · 3 diverged`.
fn format_status_line(status: &v1::SweepStatus) -> String {
    let mut out = format!(
        "{} · {} × {} = {}",
        state_word(status.state()),
        format_count(status.cells, "cell"),
        format_count(status.repeats.into(), "repeat"),
        format_count(status.trials, "trial")
    );

    if count_done_trials(status) < status.trials {
        out += &format!(" · {} done so far", count_done_trials(status));
    }

    let parts = [(status.diverged, "diverged"), (status.failed, "failed")];
    parts
        .iter()
        .filter(|(n, _)| *n > 0)
        .for_each(|(n, what)| out += &format!(" · {n} {what}"));

    if status.mismatches > 0 && !status.may_differ {
        out += &format!(
            " · ALARM: {} delivered again with different bits",
            format_count(status.mismatches, "result")
        );
    }

    out
}

async fn report_table(
    client: &mut Client,
    sweep: &SweepId,
    metric: &str,
    page: &mut ReportPage,
) -> Result<v1::TableResponse, UserError> {
    let request = v1::TableRequest {
        sweep: sweep.to_string(),
        metric: metric.to_owned(),
        ..v1::TableRequest::default()
    };
    let table = query_table(client, request).await?;
    let all = table.rows.len();

    let several = varying_axes(&table);
    page.add_table(&table, MAX_ROWS);

    if all > MAX_ROWS {
        let id = &table.sweep;
        page.add_paragraph(&format!(
            "The first {MAX_ROWS} of {all} cells; all of them: ergodic table {id} --format csv"
        ));
    }

    // Without ranks there are no best cells, and ranking by curves would read too many.
    let better = if is_missing_ranks(&table) || all as u64 > MAX_CURVES {
        0
    } else {
        table.better
    };

    // Drops the rows, which may be many and are not needed any more.
    let axes = several.into_iter().map(|(_, name)| name).collect();
    Ok(v1::TableResponse {
        axes,
        better,
        rows: Vec::new(),
        ..table
    })
}

/// Adds a figure, or the reason why there is none.
async fn report_figure(
    client: &mut Client,
    sweeps: &SweepSet,
    figure: &FigureArgs,
    page: &mut ReportPage,
) -> Result<(), UserError> {
    let drawn = draw_scene(client, sweeps, figure).await;
    add_drawn_figure(drawn, plot_kind_name(figure.kind), page)
}

/// Adds a figure that could be drawn, or the reason why there is none.
fn add_drawn_figure(
    drawn: Result<Scene, UserError>,
    name: &str,
    page: &mut ReportPage,
) -> Result<(), UserError> {
    match drawn {
        Ok(scene) => page.add_scene(&scene),
        Err(error) if matches!(error.code, ErrorCode::BadInput | ErrorCode::NotFound) => {
            page.add_paragraph(&format!(
                "No {name}: {}.",
                error.message.trim_end_matches('.')
            ));
        }
        Err(error) => return Err(error),
    }

    Ok(())
}

fn plot_kind_name(kind: PlotKind) -> &'static str {
    match kind {
        PlotKind::Heatmap => "heat map",
        PlotKind::Scatter => "scatter plot",
        PlotKind::Curves => "curves",
        PlotKind::Distribution => "distributions",
        PlotKind::Pairs => "differences",
        PlotKind::Phase => "phase diagram",
    }
}

/// Adds a curve per cell. With too many cells, adds the curves of the best ones or, without ranks,
/// one per value of the first axis.
async fn report_curves(
    client: &mut Client,
    sweeps: &SweepSet,
    table: &v1::TableResponse,
    mut figure: FigureArgs,
    page: &mut ReportPage,
) -> Result<(), UserError> {
    if let Ok(scene) = draw_scene(client, sweeps, &figure).await {
        page.add_scene(&scene);
        return Ok(());
    }

    match table.better {
        _ if !table.unranked.is_empty() => figure.by = table.axes.iter().take(1).cloned().collect(),
        0 => figure.by = table.axes.iter().take(1).cloned().collect(),
        _ => {
            figure.selection.top = Some(8);
            page.add_paragraph("Curves of the eight best cells:");
        }
    }

    report_figure(client, sweeps, &figure, page).await
}

async fn collect_provenance(
    client: &mut Client,
    status: &v1::SweepStatus,
    file: &PinnedSweepFile,
    trials: &[v1::TrialsResponse],
) -> Result<Vec<(&'static str, String)>, UserError> {
    let info = client
        .call(async |client| client.sweeps.info(v1::InfoRequest {}).await)
        .await?;

    let seed = Spec::read_stored(&file.source).map_or_else(
        |_| "see the sweep file".to_owned(),
        |spec| spec.seed.to_string(),
    );
    let audits = format_audit_status(status).unwrap_or_default();
    let mut facts = vec![
        ("sweep", format!("{} ({})", status.name, status.id)),
        ("launched", format_utc(status.launched_at)),
        ("launched by", status.launched_by.clone()),
        ("numerics class", status.numerics.clone()),
        ("seed", seed),
        ("data", status.data.clone()),
        ("dataset, blake3", format_data_hash(&file.data_hash)),
        ("files", format_pinned_files(&file.source)),
        ("computed by", format_worker_counts(trials)),
        (
            "time of all trials",
            format_duration(total_trial_seconds(trials)),
        ),
        ("coordinator", info.build),
        ("this page", format!("ergodic {BUILD}")),
        ("audits", audits.trim_start_matches("audit: ").to_owned()),
    ];
    facts.retain(|(_, value)| !value.is_empty());

    Ok(facts)
}

fn format_data_hash(hash: &[u8]) -> String {
    match hash.is_empty() {
        true => "none".to_owned(),
        false => hex::encode(hash),
    }
}

fn format_pinned_files(source: &SpecSource) -> String {
    let files: Vec<String> = source
        .files
        .iter()
        .filter(|pin| pin.is_named_by_sweep_file())
        .map(|pin| format!("{} blake3 {}", pin.path, pin.hash))
        .collect();
    files.join("; ")
}

fn iter_trial_results(
    trials: &[v1::TrialsResponse],
) -> impl Iterator<Item = (&v1::TrialRow, &v1::TrialResult)> {
    trials
        .iter()
        .flat_map(|page| &page.rows)
        .filter_map(|row| Some((row, row.result.as_ref()?)))
}

/// Formats `spare (avx2): 40 trials; …`.
fn format_worker_counts(trials: &[v1::TrialsResponse]) -> String {
    let mut by: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    iter_trial_results(trials)
        .for_each(|(row, result)| *by.entry((&row.worker, &result.isa)).or_default() += 1);
    let mut counts = Vec::new();
    for ((worker, isa), n) in by {
        counts.push(match isa {
            "" => format!("{worker}: {}", format_count(n, "trial")),
            isa => format!("{worker} ({isa}): {}", format_count(n, "trial")),
        });
    }

    counts.join("; ")
}

fn total_trial_seconds(trials: &[v1::TrialsResponse]) -> f64 {
    iter_trial_results(trials)
        .map(|(_, result)| result.seconds)
        .sum()
}
