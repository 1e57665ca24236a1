//! Plots of heat maps and phase diagrams.

use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::cell_names::{describe_hidden_axes, varying_axes};
use super::{
    Client, FigureArgs, PlotKind, RowLevels, bad_input_error, describe_caveats, describe_losses,
    find_facet_axis, format_subtitle,
};
use crate::client::render::{AxisFormats, check_cells_found, find_best_row};
use crate::client::sweep_set::{SWEEP_AXIS, SweepSet};
use crate::plot::Scene;
use crate::plot::heatmap::{self, CountedTrials, Heatmap, HeatmapCell};

pub(super) async fn draw_map(
    client: &mut Client,
    sweeps: &SweepSet,
    figure: &FigureArgs,
) -> Result<Scene, UserError> {
    let request = figure.build_table_request(Vec::new(), Vec::new(), "");
    let whole = sweeps.query_table(client, request).await?;
    let by = choose_map_axes(&whole, figure)?;
    if sweeps.is_several() && !by.iter().any(|axis| axis == SWEEP_AXIS) {
        return Err(bad_input_error(
            "a map of several sweeps has `sweep` as one of its axes or as facets: add --facet sweep, or name it in --rows or --cols"
                .to_owned(),
        ));
    }
    let selection = figure.split_selection(sweeps, &by)?;

    let stat = match figure.kind {
        PlotKind::Phase => "p_diverged",
        _ => figure.stat.as_deref().unwrap_or("mean"),
    };
    let mut table = query_map_table(client, sweeps, figure, by, stat, &selection.cells).await?;
    check_cells_found(&selection.cells, &table)?;
    let all = table.rows.len();
    selection
        .rows
        .apply_to_tables(std::slice::from_mut(&mut table))?;

    let mut map = Heatmap {
        partial: table.rows.len() < all || !selection.cells.is_empty(),
        ..build_heatmap(&table, stat, figure)
    };
    map.notes.extend(describe_hidden_axes(&whole, &table));
    match map.counted_trials {
        CountedTrials::Completed | CountedTrials::Both => {
            map.notes.extend(describe_caveats(&table))
        }
        CountedTrials::Counts | CountedTrials::Diverged => {
            map.notes.extend(describe_losses(&table))
        }
    }
    let title = match figure.kind {
        PlotKind::Phase => format!("{}: share of trials that diverged", table.name),
        _ => format!("{}: {}", table.name, map.name),
    };

    heatmap::draw_heatmap(
        &map,
        &figure.build_plot_style(title, format_subtitle(&table, figure)),
    )
    .map_err(bad_input_error)
}

/// Queries the table of one statistic over two axes.
async fn query_map_table(
    client: &mut Client,
    sweeps: &SweepSet,
    figure: &FigureArgs,
    by: Vec<String>,
    stat: &str,
    cells: &str,
) -> Result<v1::TableResponse, UserError> {
    // Every table has the mean, so it is not requested.
    let stats = match stat {
        "mean" => Vec::new(),
        stat => vec![stat.to_owned()],
    };
    let request = figure.build_table_request(by, stats, cells);
    let table = sweeps.query_table(client, request).await?;

    if stat != "mean" && table.columns.first().map(String::as_str) != Some(stat) {
        let message = format!(
            "--stat: a heat map shows one number per cell, and '{stat}' is {}: choose one number, such as mean, std, median, q05 or p_diverged",
            table.columns.join(" and ")
        );
        return Err(bad_input_error(message));
    }

    Ok(table)
}

/// The vertical and the horizontal axis, and that of the facets if there is one: the chosen ones, or
/// the first others that have several values.
fn choose_map_axes(
    whole: &v1::TableResponse,
    figure: &FigureArgs,
) -> Result<Vec<String>, UserError> {
    let facet = find_facet_axis(whole, figure)?.map(|at| whole.axes[at].clone());
    let mut axes = match (&figure.rows, &figure.cols) {
        (Some(rows), Some(columns)) if rows == columns => {
            return Err(bad_input_error(format!(
                "--rows and --cols are both '{rows}': name two axes"
            )));
        }
        (Some(rows), Some(columns)) => vec![rows.clone(), columns.clone()],
        (None, None) => choose_varying_axes(whole, facet.as_deref())?,
        _ => {
            return Err(bad_input_error(
                "--rows and --cols go together: give both".to_owned(),
            ));
        }
    };

    if let Some(facet) = facet {
        let is_facet =
            |axis: &&String| **axis == facet || facet.ends_with(&format!(".{}", axis.as_str()));
        if let Some(twice) = axes.iter().find(is_facet) {
            return Err(bad_input_error(format!(
                "--facet: '{twice}' is also an axis of the picture: name another one"
            )));
        }
        axes.push(facet);
    }
    Ok(axes)
}

/// The first two axes that have several values, without that of the facets.
fn choose_varying_axes(
    whole: &v1::TableResponse,
    facet: Option<&str>,
) -> Result<Vec<String>, UserError> {
    let varying: Vec<String> = varying_axes(whole)
        .into_iter()
        .map(|(_, name)| name)
        .filter(|name| facet != Some(name.as_str()))
        .collect();
    match &varying[..] {
        [first, second, ..] => Ok(vec![second.clone(), first.clone()]),
        axes => {
            let found = match axes {
                [name] => format!("only '{name}' has several values"),
                _ => "none has several values".to_owned(),
            };
            let beside = facet.map_or_else(String::new, |facet| format!(" beside '{facet}'"));
            Err(bad_input_error(format!(
                "this kind of picture takes two axes with several values, and in this sweep {found}{beside}: try --kind \
                 curves or distribution"
            )))
        }
    }
}

/// Describes the best cell, and how many of the shown cells cannot be distinguished from it.
fn describe_best_cell(table: &v1::TableResponse, words: &AxisFormats) -> Option<String> {
    let by = if table.ranked_by.is_empty() {
        String::new()
    } else {
        format!(" of {}", table.ranked_by)
    };
    let Some(best) = find_best_row(table) else {
        let ranked = table.rows.len() > 1 && table.rows.iter().any(|row| row.rank.is_some());
        return ranked.then(|| format!("The best cell by ranks{by} is not among these."));
    };
    let best = &table.rows[best];
    let values: Vec<String> = table
        .axes
        .iter()
        .zip(words.format_row(&best.values))
        .map(|(axis, value)| format!("{axis} {value}"))
        .collect();
    let tied = table.rows.iter().filter(|row| row.may_be_best).count();

    Some(format!(
        "Best by ranks{by}: {}; {} of {} others here may be as good.",
        values.join(", "),
        tied.saturating_sub(1),
        table.rows.len() - 1
    ))
}

/// The trials that a statistic counts.
fn counted_trials(stat: &str) -> CountedTrials {
    match stat {
        "n" | "diverged" | "failed" => CountedTrials::Counts,
        _ if stat.starts_with("p_diverged") => CountedTrials::Counts,
        _ if stat.starts_with("diverged_at") => CountedTrials::Diverged,
        _ if stat.ends_with("_all") => CountedTrials::Both,
        _ => CountedTrials::Completed,
    }
}

fn build_heatmap(table: &v1::TableResponse, stat: &str, figure: &FigureArgs) -> Heatmap {
    let words = AxisFormats::from_table(table);
    let grid = MapGrid::from_table(table, &words);
    let cells: Vec<HeatmapCell> = table
        .rows
        .iter()
        .enumerate()
        .map(|(at, row)| grid.build_cell(at, row, stat == "mean"))
        .collect();
    let phase = figure.kind == PlotKind::Phase;

    let mut notes = Vec::new();
    if stat == "mean" && cells.iter().all(|cell| cell.half_width.is_none()) {
        notes.push("No cell has two completed trials: there is no interval.".to_owned());
    }
    if stat == "mean" && !phase {
        notes.extend(describe_best_cell(table, &words));
    }

    let name = match counted_trials(stat) {
        _ if phase => "P(diverged)".to_owned(),
        // Counts do not depend on the metric, so the title omits it.
        CountedTrials::Counts | CountedTrials::Diverged => stat.to_owned(),
        CountedTrials::Completed | CountedTrials::Both => format!("{stat} {}", table.metric),
    };
    Heatmap {
        cells,
        panels: grid
            .facet
            .as_ref()
            .map_or_else(Vec::new, RowLevels::panel_titles),
        scattered: figure.kind == PlotKind::Scatter,
        name,
        counted_trials: counted_trials(stat),
        partial: false,
        shares: phase,
        log: figure.log,
        notes,
        rows: grid.rows.axis,
        columns: grid.columns.axis,
    }
}

/// The two axes of a map with the levels that its rows have, and its facets.
struct MapGrid {
    rows: RowLevels,
    columns: RowLevels,
    facet: Option<RowLevels>,
}

/// Position of the facets' axis in a table of a map, behind those of rows and columns.
const FACET_AXIS: usize = 2;

impl MapGrid {
    fn from_table(table: &v1::TableResponse, words: &AxisFormats) -> Self {
        Self {
            rows: RowLevels::from_table(table, words, 0),
            columns: RowLevels::from_table(table, words, 1),
            facet: (table.axes.len() > FACET_AXIS)
                .then(|| RowLevels::from_table(table, words, FACET_AXIS)),
        }
    }

    /// Builds the cell of the row at a position, with its mean and interval or with the chosen statistic.
    fn build_cell(&self, at: usize, row: &v1::TableRow, is_mean: bool) -> HeatmapCell {
        let s = row.summary.unwrap_or_default();
        let half_width = s.ci95_high.zip(s.mean).map(|(high, mean)| high - mean);
        let figure = row.figures.first().copied().filter(|x| !x.is_nan());

        HeatmapCell {
            row: self.rows.of_row[at],
            column: self.columns.of_row[at],
            panel: self.facet.as_ref().map_or(0, |facet| facet.of_row[at]),
            value: if is_mean { s.mean } else { figure },
            half_width: half_width.filter(|_| is_mean),
            trials: [s.n, s.diverged, s.failed],
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::client::plot::maps::*;

    #[test]
    fn what_chose_the_best_cell_is_said_and_whether_it_is_shown() {
        let row = |place: u64, value: f64| {
            let kind = Some(v1::axis_value::Kind::Number(value));
            let values = vec![v1::AxisValue { kind }];
            v1::TableRow {
                values,
                rank: Some(place),
                may_be_best: place < 3,
                summary: Some(v1::Summary {
                    n: 5,
                    ..v1::Summary::default()
                }),
                ..v1::TableRow::default()
            }
        };
        let rows = vec![row(2, 0.1), row(1, 0.2), row(3, 0.3)];

        let axes = vec!["lr".into()];
        let mut table = v1::TableResponse {
            axes,
            rows,
            ranked_by: "val_acc".into(),
            ..v1::TableResponse::default()
        };
        let words = AxisFormats::from_table(&table);
        let said = describe_best_cell(&table, &words);
        assert_eq!(
            said.as_deref(),
            Some("Best by ranks of val_acc: lr 0.2; 1 of 2 others here may be as good.")
        );

        table.rows.remove(1);
        let said = describe_best_cell(&table, &words);
        assert_eq!(
            said.as_deref(),
            Some("The best cell by ranks of val_acc is not among these.")
        );
    }
}
