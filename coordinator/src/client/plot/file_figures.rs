//! Pictures that a sweep file asks for: `[[figure]]`.

use ergodic_common::Spec;
use ergodic_common::ids::{CellIndex, SweepId};
use ergodic_common::number_format::format_shortest;
use ergodic_common::quantity::{Figure, FigureSubject, StepQuantity};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::curves::{CurveFrame, draw_curves};
use super::effect_points::draw_effect_points;
use super::guides::{compute_guides, describe_guides};
use super::options::FigureLook;
use super::step_units::SweepGrid;
use super::{Client, FigureArgs, PlotKind, bad_input_error, check_plot_size};
use crate::client::query::query_status;
use crate::client::render::{RowSelection, TrialCondition};
use crate::client::sweep_set::SweepSet;
use crate::plot::Scene;
use crate::plot::curves::CurveOverlays;

/// Maximum number of vertical lines in a picture, which may stand at other steps in other cells.
const MAX_MARKS: usize = 24;

/// Queries the data of a figure of a sweep's file, which means `spec`, and draws it. `verdicts` are those on the file's claims.
///
/// # Errors
/// There is nothing to draw, the coordinator does not know the quantity, or nobody answers.
pub async fn draw_file_figure(
    client: &mut Client,
    sweep: &SweepId,
    spec: &Spec,
    figure: &Figure,
    verdicts: &v1::VerdictResponse,
) -> Result<Scene, UserError> {
    let grid = SweepGrid { spec: spec.clone() };
    match &figure.subject {
        FigureSubject::Effects { claims, x } => {
            draw_effect_points(&grid, figure, (claims, x), verdicts)
        }
        FigureSubject::Curves {
            y,
            x,
            marks,
            condition,
        } => {
            let args = build_curve_args(figure, y, condition.clone());
            let status = query_status(client, sweep).await?;
            check_plot_size("a picture", &args, &status)?;

            let quantity = spec.compile_step_quantity(x).map_err(bad_input_error)?;
            let condition = condition.as_deref().unwrap_or_default();
            let overlays =
                StepAxis::new(&grid, &quantity, condition)?.compute_overlays(figure, marks)?;
            let frame = CurveFrame {
                overlays,
                x: Some((x.clone(), grid, quantity)),
            };
            draw_curves(client, &SweepSet::of_one(sweep.clone()), &args, frame).await
        }
    }
}

/// The options of `ergodic plot` that draw the curves of a figure, over steps.
fn build_curve_args(figure: &Figure, y: &str, condition: Option<String>) -> FigureArgs {
    FigureArgs {
        metric: Some(y.to_owned()),
        by: figure.by.clone(),
        facet: figure.facet.clone(),
        selection: RowSelection {
            condition,
            ..RowSelection::default()
        },
        log: figure.log.1,
        log_x: figure.log.0,
        look: FigureLook {
            title: figure.title.clone(),
            ..FigureLook::default()
        },
        ..FigureArgs::new(PlotKind::Curves)
    }
}

/// The horizontal axis of the curves of some cells.
struct StepAxis<'a> {
    spec: &'a Spec,
    x: &'a StepQuantity,
    cells: Vec<CellIndex>,
}

impl<'a> StepAxis<'a> {
    /// The axis for the cells that meet a condition.
    fn new(grid: &'a SweepGrid, x: &'a StepQuantity, condition: &str) -> Result<Self, UserError> {
        let condition = TrialCondition::parse(condition, &grid.axis_names())?;
        let all = grid.spec.grid.iter();
        let met = all.filter(|cell| condition.is_met_by(&grid.cell_values(*cell)));
        Ok(Self {
            spec: &grid.spec,
            x,
            cells: met.collect(),
        })
    }

    /// Computes the marks and the theory of a figure.
    fn compute_overlays(
        &self,
        figure: &Figure,
        marks: &[String],
    ) -> Result<CurveOverlays, UserError> {
        let mut notes = describe_guides(figure);
        if !marks.is_empty() {
            notes.push(format!("Vertical lines: {}.", marks.join(", ")));
        }

        Ok(CurveOverlays {
            marks: self.collect_marks(marks)?,
            guides: compute_guides(figure, self.find_range()?)?,
            notes,
            ..CurveOverlays::default()
        })
    }

    /// Collects the different places of some moments over all cells.
    fn collect_marks(&self, marks: &[String]) -> Result<Vec<f64>, UserError> {
        let mut places: Vec<f64> = Vec::new();
        for text in marks {
            places.extend(self.convert_moment(text)?);
        }
        places.retain(|place| place.is_finite());
        places.sort_by(f64::total_cmp);
        places.dedup();
        if places.len() > MAX_MARKS {
            return Err(bad_input_error(format!(
                "marks: they stand at {} places, from {} to {}; at most {MAX_MARKS} can be told apart: select cells with where",
                places.len(),
                format_shortest(places[0]),
                format_shortest(places[places.len() - 1])
            )));
        }

        Ok(places)
    }

    /// The places of a moment, which is a step of each cell.
    fn convert_moment(&self, text: &str) -> Result<Vec<f64>, UserError> {
        let moment = self.spec.compile_cell_quantity(text);
        let moment = moment.map_err(bad_input_error)?;
        let grid = &self.spec.grid;
        let places = self.cells.iter().filter_map(|cell| {
            let inputs = self.x.cell_inputs(grid, *cell)?;
            Some(self.x.value_at(&inputs, moment.value_in(grid, *cell)))
        });
        Ok(places.collect())
    }

    /// The least and the largest place that curves can have.
    fn find_range(&self) -> Result<(f64, f64), UserError> {
        let mut places = self.convert_moment("1")?;
        places.extend(self.convert_moment("end")?);
        let places = places.into_iter().filter(|place| place.is_finite());
        Ok(
            places.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
                (low.min(x), high.max(x))
            }),
        )
    }
}
