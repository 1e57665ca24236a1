//! What pictures show, and how they look: options of `ergodic plot`.

use clap::{Args, ValueEnum as _};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use crate::client::render::{RowSelection, SplitSelection};
use crate::client::sweep_set::SweepSet;
use crate::plot::{self, AxisLimits, COLOUR_MAPS, ColourMap, PlotStyle};

/// `--kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PlotKind {
    /// A statistic over two axes, as colour.
    Heatmap,
    /// A statistic over two axes of numbers, as coloured points.
    Scatter,
    /// Mean curves over steps, with their 95 % intervals.
    Curves,
    /// The trials of each cell.
    Distribution,
    /// Differences from a baseline, repeat by repeat.
    Pairs,
    /// Share of diverged trials over two axes, with lines at 0.1, 0.5 and 0.9.
    Phase,
}

/// `--x`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CurveUnit {
    /// Completed steps.
    #[default]
    Step,
    /// Completed steps, in passes over the training images.
    Epoch,
    /// Training images seen, each time they were.
    Sample,
}

/// What a picture shows.
#[derive(Debug, Clone, Args)]
pub struct FigureArgs {
    /// Kind of picture
    // The first option in the help, before --output.
    #[arg(long, value_enum, default_value_t = PlotKind::Heatmap, display_order = 0)]
    pub kind: PlotKind,
    /// Metric, quantity of the sweep file, or expression [default: test_acc if it is measured]
    #[arg(long)]
    pub metric: Option<String>,
    /// For heatmap, scatter, phase and pairs: sample the curves here, as in "20 epochs", instead of at the end
    #[arg(long, value_name = "STEP")]
    pub at: Option<String>,
    /// For heatmap, scatter and phase: the vertical axis [default: the second with several values]
    #[arg(long, value_name = "AXIS", requires = "cols")]
    pub rows: Option<String>,
    /// For heatmap, scatter and phase: the horizontal axis [default: the first with several values]
    #[arg(long, value_name = "AXIS", requires = "rows")]
    pub cols: Option<String>,
    /// For curves and distribution: axes to group by; the others are pooled [default: all]
    #[arg(long, value_delimiter = ',', value_name = "AXES")]
    pub by: Vec<String>,
    /// For heatmap, scatter, phase and curves: one panel for each value of this axis
    #[arg(long, value_name = "AXIS")]
    pub facet: Option<String>,
    /// For heatmap and scatter: a statistic of one number, as in median, std, q05 [default: mean]
    #[arg(long, value_name = "NAME")]
    pub stat: Option<String>,
    /// For pairs: the baseline, as for `compare`
    #[arg(long, value_name = "AXIS=VALUE,…")]
    pub baseline: Option<String>,
    /// For curves: the horizontal axis [default: step]
    #[arg(long, value_enum, value_name = "UNIT")]
    pub x: Option<CurveUnit>,
    /// For curves: draw each completed trial as a thin line, instead of the interval
    #[arg(long)]
    pub trials: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub selection: RowSelection,
    /// Show the metric on a logarithmic scale
    #[arg(long = "log-scale")]
    pub log: bool,
    /// For curves: show steps on a logarithmic scale
    #[arg(long)]
    pub log_x: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub look: FigureLook,
}

/// How a picture looks.
#[derive(Debug, Clone, Default, Args)]
pub struct FigureLook {
    /// Draw no title and no notes, for a figure with its own caption; the notes go to stderr
    #[arg(long)]
    pub bare: bool,
    /// Title [default: the sweep's name and the metric; none with --bare]
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// Name of the horizontal axis
    #[arg(long, value_name = "TEXT")]
    pub xlabel: Option<String>,
    /// Name of the vertical axis
    #[arg(long, value_name = "TEXT")]
    pub ylabel: Option<String>,
    /// For heatmap, scatter and phase: name of the colours
    #[arg(long, value_name = "TEXT")]
    pub clabel: Option<String>,
    /// Limits of the horizontal axis, as in 0,100; one may be left out, as in 0,
    #[arg(long, value_name = "LOW,HIGH", value_parser = plot::parse_limits, allow_hyphen_values = true)]
    pub xlim: Option<AxisLimits>,
    /// Limits of the vertical axis
    #[arg(long, value_name = "LOW,HIGH", value_parser = plot::parse_limits, allow_hyphen_values = true)]
    pub ylim: Option<AxisLimits>,
    /// For heatmap, scatter and phase: limits of the colours
    #[arg(long, value_name = "LOW,HIGH", value_parser = plot::parse_limits, allow_hyphen_values = true)]
    pub clim: Option<AxisLimits>,
    /// Colour map: viridis, cividis, magma, greys, vermilion or rdbu; with _r behind the name, reversed
    #[arg(long, value_name = "NAME", value_parser = parse_colour_map)]
    pub cmap: Option<ColourMap>,
    /// Size of text in points [default: 9, and 7 up to a width of 100mm]
    #[arg(long, value_name = "PT", value_parser = parse_font_size)]
    pub font_size: Option<f64>,
    /// Width, as in 80mm, 3.25in, or in pixels, 96 to the inch; PNG has two dots to a pixel
    #[arg(long, value_name = "LENGTH", value_parser = parse_width)]
    pub width: Option<f64>,
    /// Height, as for --width
    #[arg(long, value_name = "LENGTH", value_parser = parse_height)]
    pub height: Option<f64>,
}

fn parse_width(text: &str) -> Result<f64, String> {
    parse_length_within(text, MIN_WIDTH, "42mm (159 pixels)")
}

fn parse_height(text: &str) -> Result<f64, String> {
    parse_length_within(text, MIN_HEIGHT, "32mm (120 pixels)")
}

/// Least width, 42 mm, and least height, in pixels of 1/96 inch.
const MIN_WIDTH: f64 = 42.0 / 25.4 * 96.0;
const MIN_HEIGHT: f64 = 120.0;
/// Largest width and height, in pixels.
const MAX_LENGTH: f64 = 8000.0;

fn parse_length_within(text: &str, least: f64, named: &str) -> Result<f64, String> {
    let length = plot::parse_length(text)?;
    if !(least - 0.1..=MAX_LENGTH).contains(&length) {
        return Err(format!(
            "expected from {named} to 2116mm (8000 pixels), found {length:.0} pixels"
        ));
    }
    Ok(length)
}

fn parse_font_size(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("pt").unwrap_or(text);
    number
        .parse()
        .ok()
        .filter(|size| (4.0..=40.0).contains(size))
        .ok_or_else(|| "expected a size from 4 to 40 points, as in 8".to_owned())
}

fn parse_colour_map(text: &str) -> Result<ColourMap, String> {
    ColourMap::from_name(text).ok_or_else(|| {
        let [names @ .., last] = COLOUR_MAPS;
        format!(
            "expected {} or {last}, with _r behind it for the reverse",
            names.join(", ")
        )
    })
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
            facet: None,
            stat: None,
            baseline: None,
            x: None,
            trials: false,
            selection: RowSelection::default(),
            log: false,
            log_x: false,
            look: FigureLook::default(),
        }
    }

    /// The style of the picture, with a title and a subtitle unless others are given.
    pub(super) fn build_plot_style(&self, title: String, subtitle: String) -> PlotStyle {
        let look = &self.look;
        let description = look.title.clone().unwrap_or(title);
        let has_title = !look.bare || look.title.is_some();

        PlotStyle {
            width: look.width,
            height: look.height,
            font_size: look.font_size,
            title: if has_title {
                description.clone()
            } else {
                String::new()
            },
            description,
            subtitle: if look.bare { String::new() } else { subtitle },
            bare: look.bare,
            x_label: look.xlabel.clone(),
            y_label: look.ylabel.clone(),
            colour_label: look.clabel.clone(),
            x_limits: look.xlim.unwrap_or_default(),
            y_limits: look.ylim.unwrap_or_default(),
            colour_limits: look.clim.unwrap_or_default(),
            colour_map: look.cmap,
        }
    }

    /// A request for a table of the cells that are selected.
    pub(super) fn build_table_request(
        &self,
        by: Vec<String>,
        stats: Vec<String>,
        cells: &str,
    ) -> v1::TableRequest {
        v1::TableRequest {
            metric: self.metric.clone().unwrap_or_default(),
            by,
            at: self.at.clone().unwrap_or_default(),
            stats,
            cell_condition: cells.to_owned(),
            ..v1::TableRequest::default()
        }
    }

    /// The axes to group by, with that of the facets; empty for all axes.
    pub(super) fn grouping_axes(&self) -> Vec<String> {
        let mut by = self.by.clone();
        if let Some(facet) = self.facet.as_ref().filter(|_| !by.is_empty()) {
            let is_facet = |axis: &String| {
                axis == facet
                    || axis.ends_with(&format!(".{facet}"))
                    || facet.ends_with(&format!(".{axis}"))
            };
            if !by.iter().any(is_facet) {
                by.push(facet.clone());
            }
        }
        by
    }

    /// The selection of cells, and that of rows, which have the axes `by`.
    pub(super) fn split_selection(
        &self,
        sweeps: &SweepSet,
        by: &[String],
    ) -> Result<SplitSelection, UserError> {
        let stats: Vec<String> = self.stat.iter().cloned().collect();
        sweeps.split_selection(&self.selection, by, &stats)
    }

    /// Refuses options that would have no effect.
    ///
    /// # Errors
    /// An option is for other kinds.
    pub fn check_options(&self) -> Result<(), UserError> {
        use PlotKind::{Curves, Distribution, Heatmap, Pairs, Phase, Scatter};
        for (given, option, kinds) in [
            (
                self.rows.is_some(),
                "--rows and --cols",
                &[Heatmap, Scatter, Phase][..],
            ),
            (!self.by.is_empty(), "--by", &[Curves, Distribution]),
            (
                self.facet.is_some(),
                "--facet",
                &[Heatmap, Scatter, Phase, Curves],
            ),
            (self.stat.is_some(), "--stat", &[Heatmap, Scatter]),
            (self.baseline.is_some(), "--baseline", &[Pairs]),
            (self.x.is_some(), "--x", &[Curves]),
            (self.trials, "--trials", &[Curves]),
            (self.log_x, "--log-x", &[Curves]),
            (
                self.log,
                "--log-scale",
                &[Heatmap, Scatter, Curves, Distribution],
            ),
            (self.at.is_some(), "--at", &[Heatmap, Scatter, Phase, Pairs]),
            (
                self.selection.sort.is_some(),
                "--sort",
                &[Curves, Distribution, Pairs],
            ),
            (
                self.look.clim.is_some() || self.look.clabel.is_some(),
                "--clim and --clabel",
                &[Heatmap, Scatter, Phase],
            ),
            (
                self.look.cmap.is_some(),
                "--cmap",
                &[Heatmap, Scatter, Phase, Curves],
            ),
            (
                self.look.ylim.is_some(),
                "--ylim",
                &[Scatter, Heatmap, Curves],
            ),
        ] {
            if given && !kinds.contains(&self.kind) {
                return Err(super::bad_input_error(format!(
                    "{option}: only for --kind {}",
                    format_kinds(kinds)
                )));
            }
        }

        Ok(())
    }
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
