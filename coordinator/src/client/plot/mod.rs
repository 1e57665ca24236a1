//! `ergodic plot`: queries the data of a picture, and draws it.

mod curves;
mod maps;
mod rows;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum as _};
use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::Client;
use super::args::SweepTarget;
use super::query::{query_status, query_table};
use super::render::{AxisFormats, RowSelection, is_stream, write_atomic_file};
use super::status_text::{count_done_trials, format_trial_count};
use crate::app::{CommandOutcome, print_output};
use crate::plot::{AxisLevel, PlotStyle, Scene, png, svg};

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

/// `ergodic plot`
#[derive(Debug, Args)]
pub struct PlotArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// File to write to, with a name that ends in .svg or .png [default: SVG on stdout]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub figure: FigureArgs,
}

/// What a picture shows.
#[derive(Debug, Clone, Args)]
pub struct FigureArgs {
    /// Kind of picture
    // The first option in the help, before --output.
    #[arg(long, value_enum, default_value_t = PlotKind::Heatmap, display_order = 0)]
    pub kind: PlotKind,
    /// Metric [default: test_acc if it is measured]
    #[arg(long)]
    pub metric: Option<String>,
    /// For heatmap, phase and pairs: sample the curves here, as in "20 epochs", instead of at the end
    #[arg(long, value_name = "STEP")]
    pub at: Option<String>,
    /// For heatmap and phase: the vertical axis [default: the second with several values]
    #[arg(long, value_name = "AXIS", requires = "cols")]
    pub rows: Option<String>,
    /// For heatmap and phase: the horizontal axis [default: the first with several values]
    #[arg(long, value_name = "AXIS", requires = "rows")]
    pub cols: Option<String>,
    /// For curves and distribution: axes to group by; the others are pooled [default: all]
    #[arg(long, value_delimiter = ',', value_name = "AXES")]
    pub by: Vec<String>,
    /// For heatmap: a statistic of one number, as in median, std, q05 [default: mean]
    #[arg(long, value_name = "NAME")]
    pub stat: Option<String>,
    /// For pairs: the baseline, as for `compare`
    #[arg(long, value_name = "AXIS=VALUE,…")]
    pub baseline: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub selection: RowSelection,
    /// Show the metric on a logarithmic scale
    #[arg(long = "log-scale")]
    pub log: bool,
    /// Title [default: the sweep's name and the metric]
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// Width in pixels, 96 to the inch; PNG has two dots to a pixel
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(160..=8000))]
    pub width: Option<u32>,
    /// Height in pixels
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(120..=8000))]
    pub height: Option<u32>,
}

impl FigureArgs {
    /// Options for a picture of this kind, with defaults for everything else.
    pub fn new(kind: PlotKind) -> Self {
        Self {
            kind,
            metric: None,
            at: None,
            rows: None,
            cols: None,
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
            ..v1::TableRequest::default()
        }
    }
}

/// Dots per pixel of a PNG: 192 per inch.
const PNG_SCALE: f64 = 2.0;

/// The file format of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ImageFormat {
    Svg,
    Png,
}

/// Writes a picture to a file; without one, prints it as SVG.
///
/// # Errors
/// There is no such sweep, axis, metric or statistic, nothing to draw, the file cannot be written, or nobody answers.
pub async fn run_plot(args: PlotArgs) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect().await?;
    // A wrong name is an error before the data are queried.
    let output = args
        .output
        .as_deref()
        .map(|path| Ok::<_, UserError>((path, choose_image_format(path)?)))
        .transpose()?;
    let scene = draw_scene(&mut client, &id, &args.figure).await?;
    let Some((path, form)) = output else {
        return print_output(svg::render_svg(&scene));
    };
    let bytes = match form {
        ImageFormat::Svg => svg::render_svg(&scene).into_bytes(),
        ImageFormat::Png => png::render_png(&scene, PNG_SCALE).map_err(bad_input_error)?,
    };
    write_atomic_file(path, &bytes)?;

    Ok(CommandOutcome::Done)
}

/// Queries the data of a picture, and draws it.
///
/// # Errors
/// As for [`run_plot`].
pub async fn draw_scene(
    client: &mut Client,
    sweep: &str,
    figure: &FigureArgs,
) -> Result<Scene, UserError> {
    check_options(figure)?;
    check_plot_size("a picture", figure, &query_status(client, sweep).await?)?;
    match figure.kind {
        PlotKind::Heatmap | PlotKind::Phase => maps::draw_map(client, sweep, figure).await,
        PlotKind::Curves => curves::draw_curves(client, sweep, figure).await,
        PlotKind::Distribution => rows::draw_distribution(client, sweep, figure).await,
        PlotKind::Pairs => rows::draw_pairs(client, sweep, figure).await,
    }
}

/// Maximum number of cells in a picture.
const MAX_CELLS: u64 = 100_000;
/// Maximum number of cells in a picture with a curve for each.
pub(super) const MAX_CURVES: u64 = 5_000;
/// Maximum number of trials in a picture that shows each.
const MAX_TRIALS: u64 = 2_000_000;

/// Refuses pictures that would be illegible or would exhaust the memory. `what` is the subject of
/// the error.
pub(super) fn check_plot_size(
    what: &str,
    figure: &FigureArgs,
    sweep: &v1::SweepStatus,
) -> Result<(), UserError> {
    let cells = sweep.cells;
    let trials = count_done_trials(sweep);
    let most = if figure.kind == PlotKind::Curves {
        MAX_CURVES
    } else {
        MAX_CELLS
    };

    if cells > most && figure.by.is_empty() {
        return Err(plot_size_error(format!(
            "{what} of {cells} cells cannot be read; at most {most} are shown"
        )));
    }

    if trials > MAX_TRIALS && matches!(figure.kind, PlotKind::Distribution | PlotKind::Pairs) {
        return Err(plot_size_error(format!(
            "{what} of {trials} trials cannot be read; at most {MAX_TRIALS} are shown"
        )));
    }

    Ok(())
}

fn plot_size_error(problem: String) -> UserError {
    bad_input_error(format!(
        "{problem}: name axes with --by where the kind has that option, pool cells with `ergodic table ID --by AXIS,AXIS`, \
         or get the rows with `ergodic export` or `ergodic sql`"
    ))
}

/// Refuses options that would have no effect.
fn check_options(figure: &FigureArgs) -> Result<(), UserError> {
    for (given, option, kinds) in [
        (
            figure.rows.is_some(),
            "--rows and --cols",
            &[PlotKind::Heatmap, PlotKind::Phase][..],
        ),
        (
            !figure.by.is_empty(),
            "--by",
            &[PlotKind::Curves, PlotKind::Distribution],
        ),
        (figure.stat.is_some(), "--stat", &[PlotKind::Heatmap]),
        (figure.baseline.is_some(), "--baseline", &[PlotKind::Pairs]),
        (
            figure.log,
            "--log-scale",
            &[PlotKind::Heatmap, PlotKind::Curves, PlotKind::Distribution],
        ),
        (
            figure.at.is_some(),
            "--at",
            &[PlotKind::Heatmap, PlotKind::Phase, PlotKind::Pairs],
        ),
        (
            figure.selection.sort.is_some(),
            "--sort",
            &[PlotKind::Curves, PlotKind::Distribution, PlotKind::Pairs],
        ),
    ] {
        if given && !kinds.contains(&figure.kind) {
            return Err(bad_input_error(format!(
                "{option}: only for --kind {}",
                format_kinds(kinds)
            )));
        }
    }

    Ok(())
}

/// Formats `heatmap, phase and pairs`.
fn format_kinds(kinds: &[PlotKind]) -> String {
    let names: Vec<String> = kinds
        .iter()
        .filter_map(|kind| Some(kind.to_possible_value()?.get_name().to_owned()))
        .collect();
    match &names[..] {
        [] => String::new(),
        [name] => name.clone(),
        [names @ .., last] => format!("{} and {last}", names.join(", ")),
    }
}

fn choose_image_format(path: &Path) -> Result<ImageFormat, UserError> {
    let ending = path
        .extension()
        .map(|ending| ending.to_string_lossy().to_lowercase());
    match ending.as_deref() {
        Some("svg") => Ok(ImageFormat::Svg),
        Some("png") => Ok(ImageFormat::Png),
        // A pipe has no extension to choose a format by.
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

/// Formats `sbtm6suc · 45 trials · glyphs … · cpu-f32/6`.
fn format_subtitle(table: &v1::TableResponse, figure: &FigureArgs) -> String {
    let at = figure
        .at
        .as_ref()
        .map_or_else(String::new, |at| format!("at {at} · "));

    format!(
        "{} · {at}{} · {} · {}",
        table.sweep,
        format_trial_count(table.done, table.trials),
        table.numerics,
        table.data
    )
}

/// The axes whose values differ between rows: positions and names.
pub(super) fn varying_axes(table: &v1::TableResponse) -> Vec<(usize, String)> {
    let mut varying = Vec::new();
    for (at, name) in table.axes.iter().enumerate() {
        let mut values = table.rows.iter().map(|row| &row.values[at]);
        let first = values.next();
        if values.any(|value| Some(value) != first) {
            varying.push((at, name.clone()));
        }
    }

    varying
}

/// Formats the name of a row, from the values that distinguish it: `0.1 · adamw`.
fn format_row_name(row: &v1::TableRow, axes: &[(usize, String)], words: &AxisFormats) -> String {
    axes.iter()
        .map(|(at, _)| words.format_value(*at, &row.values[*at]))
        .collect::<Vec<_>>()
        .join(" · ")
}

/// Formats the axes of rows' names: `lr · optimizer.kind`.
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

/// Axes of the sweep that the table pools over.
fn format_pooled_axes(all: &[String], table: &v1::TableResponse) -> Option<String> {
    let others: Vec<&str> = all
        .iter()
        .filter(|axis| !table.axes.contains(axis))
        .map(String::as_str)
        .collect();
    (!others.is_empty()).then(|| format!("Pooled over {}.", others.join(", ")))
}

/// Queries the axes of the sweep that the table pools over, if axes to group by were named.
async fn query_pooled_axes(
    client: &mut Client,
    sweep: &str,
    figure: &FigureArgs,
    table: &v1::TableResponse,
) -> Result<Option<String>, UserError> {
    if figure.by.is_empty() {
        return Ok(None);
    }

    let whole = query_table(
        client,
        figure.build_table_request(sweep, Vec::new(), Vec::new()),
    )
    .await?;
    Ok(format_pooled_axes(&whole.axes, table))
}
