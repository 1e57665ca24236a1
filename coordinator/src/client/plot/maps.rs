//! Heat maps and phase diagrams.

use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::{
    Client, PlotKind, PlotOptions, bad_input_error, build_axis_level, format_pooled_axes,
    format_subtitle, varying_axes,
};
use crate::client::query::query_table;
use crate::client::render::{AxisFormats, find_best_row};
use crate::plot::heatmap::{self, CountedTrials, Heatmap, HeatmapCell};
use crate::plot::{PlotAxis, Scene};

pub(super) async fn draw_map(
    client: &mut Client,
    sweep: &str,
    options: &PlotOptions,
) -> Result<Scene, UserError> {
    let whole = query_table(
        client,
        options.build_table_request(sweep, Vec::new(), Vec::new()),
    )
    .await?;
    let by = choose_map_axes(&whole, options)?;

    let stat = match options.kind {
        PlotKind::Phase => "p_diverged",
        _ => options.stat.as_deref().unwrap_or("mean"),
    };
    let stats = if stat == "mean" {
        Vec::new()
    } else {
        vec![stat.to_owned()]
    };
    let mut table = query_table(client, options.build_table_request(sweep, by, stats)).await?;
    if stat != "mean" && table.columns.first().map(String::as_str) != Some(stat) {
        let message = format!(
            "--stat: a heat map shows one number per cell, and '{stat}' is {}: choose one number, such as mean, std, median, q05 or p_diverged",
            table.columns.join(" and ")
        );
        return Err(bad_input_error(message));
    }

    let all = table.rows.len();
    options
        .selection
        .apply_to_tables(std::slice::from_mut(&mut table))?;
    let mut map = Heatmap {
        partial: table.rows.len() < all,
        ..build_heatmap(&table, stat, options)
    };
    map.notes.extend(format_pooled_axes(&whole.axes, &table));

    let title = match options.kind {
        PlotKind::Phase => format!("{}: share of trials that diverged", table.name),
        _ => format!("{}: {}", table.name, map.name),
    };
    heatmap::draw_heatmap(
        &map,
        &options.build_plot_style(title, format_subtitle(&table, options)),
    )
    .map_err(bad_input_error)
}

/// The axes upwards and to the right: those asked for, or the first two that have several values.
fn choose_map_axes(
    whole: &v1::TableResponse,
    options: &PlotOptions,
) -> Result<Vec<String>, UserError> {
    match (&options.rows, &options.columns) {
        (Some(rows), Some(columns)) if rows == columns => Err(bad_input_error(format!(
            "--rows and --cols are both '{rows}': name two axes"
        ))),
        (Some(rows), Some(columns)) => Ok(vec![rows.clone(), columns.clone()]),
        (None, None) => match &varying_axes(whole)[..] {
            [first, second, ..] => Ok(vec![second.1.clone(), first.1.clone()]),
            axes => {
                let found = match axes {
                    [(_, name)] => format!("only '{name}' has several values"),
                    _ => "none has several values".to_owned(),
                };
                Err(bad_input_error(format!(
                    "this kind of picture takes two axes, and of this sweep {found}: try --kind curves or distribution"
                )))
            }
        },
        _ => Err(bad_input_error(
            "--rows and --cols go together: give both".to_owned(),
        )),
    }
}

/// The best cell, and how many of those that are shown cannot be told from it.
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
    let values: Vec<String> = words.format_row(&best.values).collect();
    let axes = table
        .axes
        .iter()
        .zip(values)
        .map(|(axis, value)| format!("{axis} {value}"));

    let others = table
        .rows
        .iter()
        .filter(|row| row.may_be_best)
        .count()
        .saturating_sub(1);

    let best = axes.collect::<Vec<_>>().join(", ");
    Some(format!(
        "Best by ranks{by}: {best}; {others} of {} others here may be as good.",
        table.rows.len() - 1
    ))
}

/// Which trials a statistic is over.
fn counted_trials(stat: &str) -> CountedTrials {
    match stat {
        "n" | "diverged" | "failed" => CountedTrials::Counts,
        _ if stat.starts_with("p_diverged") => CountedTrials::Counts,
        _ if stat.starts_with("diverged_at") => CountedTrials::Diverged,
        _ if stat.ends_with("_all") => CountedTrials::Both,
        _ => CountedTrials::Completed,
    }
}

fn build_heatmap(table: &v1::TableResponse, stat: &str, options: &PlotOptions) -> Heatmap {
    let words = AxisFormats::from_table(table);
    let factor = |axis: usize| {
        let mut levels = Vec::new();
        for row in &table.rows {
            let level = build_axis_level(&words, axis, &row.values[axis]);
            if !levels.contains(&level) {
                levels.push(level);
            }
        }

        PlotAxis::new(&table.axes[axis], levels)
    };
    let rows = factor(0);

    let columns = factor(1);
    let place = |factor: &PlotAxis, axis: usize, value: &v1::AxisValue| {
        let level = build_axis_level(&words, axis, value);
        factor.levels.iter().position(|known| *known == level)
    };
    let cell = |row: &v1::TableRow| {
        let s = row.summary.unwrap_or_default();
        let mean = stat == "mean";
        Some(HeatmapCell {
            row: place(&rows, 0, &row.values[0])?,
            column: place(&columns, 1, &row.values[1])?,
            value: if mean {
                s.mean
            } else {
                row.figures.first().copied().filter(|x| !x.is_nan())
            },
            half_width: s
                .ci95_high
                .zip(s.mean)
                .map(|(high, mean)| high - mean)
                .filter(|_| mean),
            trials: [s.n, s.diverged, s.failed],
        })
    };
    let cells: Vec<HeatmapCell> = table.rows.iter().filter_map(cell).collect();
    let lone = stat == "mean" && cells.iter().all(|cell| cell.half_width.is_none());

    let phase = options.kind == PlotKind::Phase;
    let mut notes: Vec<String> = lone
        .then(|| "No cell has two completed trials: there is no interval.".to_owned())
        .into_iter()
        .collect();
    notes.extend(describe_best_cell(table, &words).filter(|_| stat == "mean" && !phase));

    let name = match counted_trials(stat) {
        _ if phase => "P(diverged)".to_owned(),
        // These are the same whatever is measured.
        CountedTrials::Counts | CountedTrials::Diverged => stat.to_owned(),
        CountedTrials::Completed | CountedTrials::Both => format!("{stat} {}", table.metric),
    };
    Heatmap {
        cells,
        name,
        counted_trials: counted_trials(stat),
        partial: false,
        shares: phase,
        log: options.log,
        notes,
        rows,
        columns,
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
