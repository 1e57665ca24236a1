//! `ergodic plot`: asks for what a picture shows, and has it drawn.

mod curves;
mod maps;
mod rows;

use std::path::Path;

use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::Client;
use super::query::{query_status, query_table};
use super::render::{AxisFormats, RowSelection, is_stream, write_atomic_file};
use super::status_text::count_done_trials;
use crate::plot::{AxisLevel, PlotStyle, Scene};

/// `--kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PlotKind {
    /// A statistic over two axes, as colour.
    Heatmap,
    /// Mean curves over steps, with their 95 % intervals.
    Curves,
    /// The trials of each cell.
    Distribution,
    /// Differences from a baseline, repeat by repeat.
    Pairs,
    /// Share of diverged trials over two axes, with lines at 0.1, 0.5 and 0.9.
    Phase,
}

/// What to draw.
#[derive(Debug, Clone)]
pub struct PlotOptions {
    /// Kind of picture.
    pub kind: PlotKind,
    /// Metric.
    pub metric: Option<String>,
    /// Step.
    pub at: Option<String>,
    /// Axis upwards, of two.
    pub rows: Option<String>,
    /// Axis to the right, of two.
    pub columns: Option<String>,
    /// Axes that tell curves or rows apart; the others are pooled.
    pub by: Vec<String>,
    /// The statistic of a heat map.
    pub stat: Option<String>,
    /// The baseline of pairs, as typed: `lr=0.1,wd=5e-4`.
    pub baseline: Option<String>,
    /// Which cells.
    pub selection: RowSelection,
    /// The metric on a logarithmic scale.
    pub log: bool,
    /// Title instead of the sweep's name and metric.
    pub title: Option<String>,
    /// Width in pixels.
    pub width: Option<u32>,
    /// Height in pixels.
    pub height: Option<u32>,
}

impl PlotOptions {
    /// A picture of this kind, nothing else being said.
    pub fn new(kind: PlotKind) -> Self {
        Self {
            kind,
            metric: None,
            at: None,
            rows: None,
            columns: None,
            by: Vec::new(),
            stat: None,
            baseline: None,
            selection: RowSelection::default(),
            log: false,
            title: None,
            width: None,
            height: None,
        }
    }

    fn build_plot_style(&self, title: String, subtitle: String) -> PlotStyle {
        PlotStyle {
            width: self.width.map(f64::from),
            height: self.height.map(f64::from),
            title: self.title.clone().unwrap_or(title),
            subtitle,
        }
    }

    fn build_table_request(
        &self,
        sweep: &str,
        by: Vec<String>,
        stats: Vec<String>,
    ) -> v1::TableRequest {
        v1::TableRequest {
            sweep: sweep.to_owned(),
            metric: self.metric.clone().unwrap_or_default(),
            by,
            at: self.at.clone().unwrap_or_default(),
            stats,
            cells_alike: false,
        }
    }
}

/// Dots per pixel of a PNG: 192 to the inch.
const PNG_SCALE: f64 = 2.0;

/// The forms of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ImageFormat {
    Svg,
    Png,
}

/// `ergodic plot`: writes the picture to a file; without one, gives it as SVG.
///
/// # Errors
/// There is no such sweep, axis, metric or statistic, nothing to draw, the file cannot be written, or nobody answers.
pub async fn plot_sweep(
    client: &mut Client,
    sweep: &str,
    options: &PlotOptions,
    output: Option<&Path>,
) -> Result<Option<String>, UserError> {
    // A wrong name is told before anything is asked.
    let output = output
        .map(|path| Ok::<_, UserError>((path, choose_image_format(path)?)))
        .transpose()?;
    let scene = draw_scene(client, sweep, options).await?;
    let Some((path, form)) = output else {
        return Ok(Some(scene.to_svg()));
    };
    let bytes = match form {
        ImageFormat::Svg => scene.to_svg().into_bytes(),
        ImageFormat::Png => scene.to_png(PNG_SCALE).map_err(bad_input_error)?,
    };
    write_atomic_file(path, &bytes)?;

    Ok(None)
}

/// Asks for what a picture shows, and draws it.
///
/// # Errors
/// As for [`plot`].
pub async fn draw_scene(
    client: &mut Client,
    sweep: &str,
    options: &PlotOptions,
) -> Result<Scene, UserError> {
    check_options(options)?;
    check_plot_size("a picture", options, &query_status(client, sweep).await?)?;
    match options.kind {
        PlotKind::Heatmap | PlotKind::Phase => maps::draw_map(client, sweep, options).await,
        PlotKind::Curves => curves::draw_curves(client, sweep, options).await,
        PlotKind::Distribution => rows::draw_distribution(client, sweep, options).await,
        PlotKind::Pairs => rows::draw_pairs(client, sweep, options).await,
    }
}

/// Cells of a sweep of which a picture is made.
const MAX_CELLS: u64 = 100_000;
/// The same with a curve for each.
pub(super) const MAX_CURVES: u64 = 5_000;
/// Trials of which each is shown.
const MAX_TRIALS: u64 = 2_000_000;

/// Refuses what nobody could look at, and what would take all memory.
pub(super) fn check_plot_size(
    what: &str,
    options: &PlotOptions,
    sweep: &v1::SweepStatus,
) -> Result<(), UserError> {
    let cells = sweep.cells;
    let trials = count_done_trials(sweep);
    let most = if options.kind == PlotKind::Curves {
        MAX_CURVES
    } else {
        MAX_CELLS
    };

    let instead = "name axes with --by where the kind has it, pool cells with `ergodic table ID --by AXIS,AXIS`, or take them out \
                   with `ergodic export` or `ergodic sql`";

    if cells > most && options.by.is_empty() {
        return Err(bad_input_error(format!(
            "{what} of {cells} cells cannot be read; at most {most} are shown: {instead}"
        )));
    }

    if trials > MAX_TRIALS && matches!(options.kind, PlotKind::Distribution | PlotKind::Pairs) {
        return Err(bad_input_error(format!(
            "{what} of {trials} trials cannot be read; at most {MAX_TRIALS} are shown: {instead}"
        )));
    }

    Ok(())
}

/// Options that would be without effect are refused.
fn check_options(options: &PlotOptions) -> Result<(), UserError> {
    let kind = options.kind;
    let map = matches!(kind, PlotKind::Heatmap | PlotKind::Phase);
    let refusals = [
        (
            options.rows.is_some() && !map,
            "--rows and --cols",
            "heatmap and phase",
        ),
        (
            !options.by.is_empty() && !matches!(kind, PlotKind::Curves | PlotKind::Distribution),
            "--by",
            "curves and distribution",
        ),
        (
            options.stat.is_some() && kind != PlotKind::Heatmap,
            "--stat",
            "heatmap",
        ),
        (
            options.baseline.is_some() && kind != PlotKind::Pairs,
            "--baseline",
            "pairs",
        ),
        (
            options.log && matches!(kind, PlotKind::Phase | PlotKind::Pairs),
            "--log",
            "heatmap, curves and distribution",
        ),
        (
            options.at.is_some() && matches!(kind, PlotKind::Curves | PlotKind::Distribution),
            "--at",
            "heatmap, phase and pairs",
        ),
        (
            options.selection.sort.is_some() && map,
            "--sort",
            "curves, distribution and pairs",
        ),
    ];

    match refusals.iter().find(|(refused, _, _)| *refused) {
        Some((_, option, kinds)) => Err(bad_input_error(format!(
            "{option}: only for --kind {kinds}"
        ))),
        None => Ok(()),
    }
}

fn choose_image_format(path: &Path) -> Result<ImageFormat, UserError> {
    let ending = path
        .extension()
        .map(|ending| ending.to_string_lossy().to_lowercase());
    match ending.as_deref() {
        Some("svg") => Ok(ImageFormat::Svg),
        Some("png") => Ok(ImageFormat::Png),
        // A pipe has no ending.
        _ if is_stream(path) => Ok(ImageFormat::Svg),
        _ => Err(bad_input_error(format!(
            "-o {}: expected a name that ends in .svg or .png",
            path.display()
        ))),
    }
}

fn bad_input_error(message: String) -> UserError {
    UserError::new(ErrorCode::BadInput, message)
}

/// `sbtm6suc · 45 trials · glyphs … · cpu-f32/6`
fn format_subtitle(table: &v1::TableResponse, options: &PlotOptions) -> String {
    let part = match table.done == table.trials {
        true => format!("{} trials", table.trials),
        false => format!("{} of {} trials so far", table.done, table.trials),
    };
    let at = options
        .at
        .as_ref()
        .map_or_else(String::new, |at| format!("at {at} · "));

    format!(
        "{} · {at}{part} · {} · {}",
        table.sweep, table.numerics, table.data
    )
}

/// Names of the axes whose value is not the same in all rows, with their places.
pub(super) fn varying_axes(table: &v1::TableResponse) -> Vec<(usize, String)> {
    let differs = |at: usize| {
        table
            .rows
            .iter()
            .any(|row| row.values[at] != table.rows[0].values[at])
    };
    (0..table.axes.len())
        .filter(|at| differs(*at))
        .map(|at| (at, table.axes[at].clone()))
        .collect()
}

/// A row by those of its values that tell it from others: `0.1 · adamw`.
fn format_row_name(row: &v1::TableRow, axes: &[(usize, String)], words: &AxisFormats) -> String {
    axes.iter()
        .map(|(at, _)| words.format_value(*at, &row.values[*at]))
        .collect::<Vec<_>>()
        .join(" · ")
}

/// What these values are of: `lr · optimizer.kind`.
fn format_axis_names(axes: &[(usize, String)]) -> String {
    axes.iter()
        .map(|(_, name)| name.as_str())
        .collect::<Vec<_>>()
        .join(" · ")
}

fn build_axis_level(words: &AxisFormats, axis: usize, value: &v1::AxisValue) -> AxisLevel {
    let number = match value.kind {
        Some(v1::axis_value::Kind::Number(x)) => Some(x),
        _ => None,
    };
    AxisLevel {
        text: words.format_value(axis, value),
        number,
    }
}

/// Axes of the sweep that are no axes of the table.
fn format_pooled_axes(all: &[String], table: &v1::TableResponse) -> Option<String> {
    let others: Vec<&str> = all
        .iter()
        .filter(|axis| !table.axes.contains(axis))
        .map(String::as_str)
        .collect();
    (!others.is_empty()).then(|| format!("Pooled over {}.", others.join(", ")))
}

/// The same where axes to group by were named.
async fn query_pooled_axes(
    client: &mut Client,
    sweep: &str,
    options: &PlotOptions,
    table: &v1::TableResponse,
) -> Result<Option<String>, UserError> {
    if options.by.is_empty() {
        return Ok(None);
    }

    let whole = query_table(
        client,
        options.build_table_request(sweep, Vec::new(), Vec::new()),
    )
    .await?;
    Ok(format_pooled_axes(&whole.axes, table))
}
