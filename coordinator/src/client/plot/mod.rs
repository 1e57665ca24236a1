//! `ergodic plot`: asks for what a picture shows, and has it drawn.

mod curves;
mod maps;
mod rows;

use std::path::Path;

use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::Client;
use super::commands::{ask_table, status};
use super::output::{AxisWords, Selection, is_stream, write_file};
use super::watch::done;
use crate::plot::{AxisLevel, PlotStyle, Scene};

/// `--kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
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
    pub kind: Kind,
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
    pub selection: Selection,
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
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            metric: None,
            at: None,
            rows: None,
            columns: None,
            by: Vec::new(),
            stat: None,
            baseline: None,
            selection: Selection::default(),
            log: false,
            title: None,
            width: None,
            height: None,
        }
    }

    fn look(&self, title: String, subtitle: String) -> PlotStyle {
        PlotStyle {
            width: self.width.map(f64::from),
            height: self.height.map(f64::from),
            title: self.title.clone().unwrap_or(title),
            subtitle,
        }
    }

    fn table_request(&self, sweep: &str, by: Vec<String>, stats: Vec<String>) -> v1::TableRequest {
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
const DOTS: f64 = 2.0;

/// The forms of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Svg,
    Png,
}

/// `ergodic plot`: writes the picture to a file; without one, gives it as SVG.
///
/// # Errors
/// There is no such sweep, axis, metric or statistic, nothing to draw, the file cannot be written, or nobody answers.
pub async fn plot(
    client: &mut Client,
    sweep: &str,
    options: &PlotOptions,
    output: Option<&Path>,
) -> Result<Option<String>, UserError> {
    // A wrong name is told before anything is asked.
    let output = output.map(|path| Ok::<_, UserError>((path, form(path)?))).transpose()?;
    let scene = picture(client, sweep, options).await?;
    let Some((path, form)) = output else { return Ok(Some(scene.to_svg())) };
    let bytes = match form {
        Form::Svg => scene.to_svg().into_bytes(),
        Form::Png => scene.to_png(DOTS).map_err(bad)?,
    };
    write_file(path, &bytes)?;
    Ok(None)
}

/// Asks for what a picture shows, and draws it.
///
/// # Errors
/// As for [`plot`].
pub async fn picture(client: &mut Client, sweep: &str, options: &PlotOptions) -> Result<Scene, UserError> {
    check(options)?;
    check_size("a picture", options, &status(client, sweep).await?)?;
    match options.kind {
        Kind::Heatmap | Kind::Phase => maps::map(client, sweep, options).await,
        Kind::Curves => curves::curves(client, sweep, options).await,
        Kind::Distribution => rows::distribution(client, sweep, options).await,
        Kind::Pairs => rows::pairs(client, sweep, options).await,
    }
}

/// Cells of a sweep of which a picture is made.
const MOST_CELLS: u64 = 100_000;
/// The same with a curve for each.
pub(super) const MOST_CURVES: u64 = 5_000;
/// Trials of which each is shown.
const MOST_TRIALS: u64 = 2_000_000;

/// Refuses what nobody could look at, and what would take all memory.
pub(super) fn check_size(what: &str, options: &PlotOptions, sweep: &v1::SweepStatus) -> Result<(), UserError> {
    let (cells, trials) = (sweep.cells, done(sweep));
    let most = if options.kind == Kind::Curves { MOST_CURVES } else { MOST_CELLS };
    let instead = "name axes with --by where the kind has it, pool cells with `ergodic table ID --by AXIS,AXIS`, or take them out \
                   with `ergodic export` or `ergodic sql`";
    if cells > most && options.by.is_empty() {
        return Err(bad(format!("{what} of {cells} cells cannot be read; at most {most} are shown: {instead}")));
    }
    if trials > MOST_TRIALS && matches!(options.kind, Kind::Distribution | Kind::Pairs) {
        return Err(bad(format!(
            "{what} of {trials} trials cannot be read; at most {MOST_TRIALS} are shown: {instead}"
        )));
    }
    Ok(())
}

/// Options that would be without effect are refused.
fn check(options: &PlotOptions) -> Result<(), UserError> {
    let kind = options.kind;
    let map = matches!(kind, Kind::Heatmap | Kind::Phase);
    let refusals = [
        (options.rows.is_some() && !map, "--rows and --cols", "heatmap and phase"),
        (
            !options.by.is_empty() && !matches!(kind, Kind::Curves | Kind::Distribution),
            "--by",
            "curves and distribution",
        ),
        (options.stat.is_some() && kind != Kind::Heatmap, "--stat", "heatmap"),
        (options.baseline.is_some() && kind != Kind::Pairs, "--baseline", "pairs"),
        (options.log && matches!(kind, Kind::Phase | Kind::Pairs), "--log", "heatmap, curves and distribution"),
        (options.at.is_some() && matches!(kind, Kind::Curves | Kind::Distribution), "--at", "heatmap, phase and pairs"),
        (options.selection.sort.is_some() && map, "--sort", "curves, distribution and pairs"),
    ];
    match refusals.iter().find(|(refused, _, _)| *refused) {
        Some((_, option, kinds)) => Err(bad(format!("{option}: only for --kind {kinds}"))),
        None => Ok(()),
    }
}

fn form(path: &Path) -> Result<Form, UserError> {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    match ending.as_deref() {
        Some("svg") => Ok(Form::Svg),
        Some("png") => Ok(Form::Png),
        // A pipe has no ending.
        _ if is_stream(path) => Ok(Form::Svg),
        _ => Err(bad(format!("-o {}: expected a name that ends in .svg or .png", path.display()))),
    }
}

fn bad(message: String) -> UserError {
    UserError::new(ErrorCode::BadInput, message)
}

/// `sbtm6suc · 45 trials · glyphs … · cpu-f32/6`
fn subtitle(table: &v1::TableResponse, options: &PlotOptions) -> String {
    let part = match table.done == table.trials {
        true => format!("{} trials", table.trials),
        false => format!("{} of {} trials so far", table.done, table.trials),
    };
    let at = options.at.as_ref().map_or_else(String::new, |at| format!("at {at} · "));
    format!("{} · {at}{part} · {} · {}", table.sweep, table.numerics, table.data)
}

/// Names of the axes whose value is not the same in all rows, with their places.
pub(super) fn varying(table: &v1::TableResponse) -> Vec<(usize, String)> {
    let differs = |at: usize| table.rows.iter().any(|row| row.values[at] != table.rows[0].values[at]);
    (0..table.axes.len()).filter(|at| differs(*at)).map(|at| (at, table.axes[at].clone())).collect()
}

/// A row by those of its values that tell it from others: `0.1 · adamw`.
fn row_name(row: &v1::TableRow, axes: &[(usize, String)], words: &AxisWords) -> String {
    axes.iter().map(|(at, _)| words.write(*at, &row.values[*at])).collect::<Vec<_>>().join(" · ")
}

/// What these values are of: `lr · optimizer.kind`.
fn key(axes: &[(usize, String)]) -> String {
    axes.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(" · ")
}

fn level(words: &AxisWords, axis: usize, value: &v1::AxisValue) -> AxisLevel {
    let number = match value.kind {
        Some(v1::axis_value::Kind::Number(x)) => Some(x),
        _ => None,
    };
    AxisLevel { text: words.write(axis, value), number }
}

/// Axes of the sweep that are no axes of the table.
fn pooled(all: &[String], table: &v1::TableResponse) -> Option<String> {
    let others: Vec<&str> = all.iter().filter(|axis| !table.axes.contains(axis)).map(String::as_str).collect();
    (!others.is_empty()).then(|| format!("Pooled over {}.", others.join(", ")))
}

/// The same where axes to group by were named.
async fn pooled_by(
    client: &mut Client,
    sweep: &str,
    options: &PlotOptions,
    table: &v1::TableResponse,
) -> Result<Option<String>, UserError> {
    if options.by.is_empty() {
        return Ok(None);
    }
    let whole = ask_table(client, options.table_request(sweep, Vec::new(), Vec::new())).await?;
    Ok(pooled(&whole.axes, table))
}
