//! Heat maps and phase diagrams.

use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::{Client, Kind, PlotOptions, bad, level, pooled, subtitle, varying};
use crate::client::commands::ask_table;
use crate::client::output::{AxisWords, best_row};
use crate::plot::heatmap::{self, CountedTrials, Heatmap, HeatmapCell};
use crate::plot::{PlotAxis, Scene};

pub(super) async fn map(client: &mut Client, sweep: &str, options: &PlotOptions) -> Result<Scene, UserError> {
    let whole = ask_table(client, options.table_request(sweep, Vec::new(), Vec::new())).await?;
    let by = axes(&whole, options)?;
    let stat = match options.kind {
        Kind::Phase => "p_diverged",
        _ => options.stat.as_deref().unwrap_or("mean"),
    };
    let stats = if stat == "mean" { Vec::new() } else { vec![stat.to_owned()] };
    let mut table = ask_table(client, options.table_request(sweep, by, stats)).await?;
    if stat != "mean" && table.columns.first().map(String::as_str) != Some(stat) {
        let message = format!(
            "--stat: a heat map shows one number per cell, and '{stat}' is {}: choose one number, such as mean, std, median, q05 or p_diverged",
            table.columns.join(" and ")
        );
        return Err(bad(message));
    }
    let all = table.rows.len();
    options.selection.apply(std::slice::from_mut(&mut table))?;
    let mut map = Heatmap { partial: table.rows.len() < all, ..of_table(&table, stat, options) };
    map.notes.extend(pooled(&whole.axes, &table));
    let title = match options.kind {
        Kind::Phase => format!("{}: share of trials that diverged", table.name),
        _ => format!("{}: {}", table.name, map.name),
    };
    heatmap::draw_heatmap(&map, &options.look(title, subtitle(&table, options))).map_err(bad)
}

/// The axes upwards and to the right: those asked for, or the first two that have several values.
fn axes(whole: &v1::TableResponse, options: &PlotOptions) -> Result<Vec<String>, UserError> {
    match (&options.rows, &options.columns) {
        (Some(rows), Some(columns)) if rows == columns => {
            Err(bad(format!("--rows and --cols are both '{rows}': name two axes")))
        }
        (Some(rows), Some(columns)) => Ok(vec![rows.clone(), columns.clone()]),
        (None, None) => match &varying(whole)[..] {
            [first, second, ..] => Ok(vec![second.1.clone(), first.1.clone()]),
            axes => {
                let found = match axes {
                    [(_, name)] => format!("only '{name}' has several values"),
                    _ => "none has several values".to_owned(),
                };
                Err(bad(format!(
                    "this kind of picture takes two axes, and of this sweep {found}: try --kind curves or distribution"
                )))
            }
        },
        _ => Err(bad("--rows and --cols go together: give both".to_owned())),
    }
}

/// The best cell, and how many of those that are shown cannot be told from it.
fn best_in_words(table: &v1::TableResponse, words: &AxisWords) -> Option<String> {
    let by = if table.ranked_by.is_empty() { String::new() } else { format!(" of {}", table.ranked_by) };
    let Some(best) = best_row(table) else {
        let ranked = table.rows.len() > 1 && table.rows.iter().any(|row| row.place.is_some());
        return ranked.then(|| format!("The best cell by ranks{by} is not among these."));
    };
    let best = &table.rows[best];
    let values: Vec<String> = words.row(&best.values).collect();
    let axes = table.axes.iter().zip(values).map(|(axis, value)| format!("{axis} {value}"));
    let others = table.rows.iter().filter(|row| row.may_be_best).count().saturating_sub(1);
    let best = axes.collect::<Vec<_>>().join(", ");
    Some(format!("Best by ranks{by}: {best}; {others} of {} others here may be as good.", table.rows.len() - 1))
}

/// Which trials a statistic is over.
fn over(stat: &str) -> CountedTrials {
    match stat {
        "n" | "diverged" | "failed" => CountedTrials::Counts,
        _ if stat.starts_with("p_diverged") => CountedTrials::Counts,
        _ if stat.starts_with("diverged_at") => CountedTrials::Diverged,
        _ if stat.ends_with("_all") => CountedTrials::Both,
        _ => CountedTrials::Completed,
    }
}

fn of_table(table: &v1::TableResponse, stat: &str, options: &PlotOptions) -> Heatmap {
    let words = AxisWords::of_table(table);
    let factor = |axis: usize| {
        let mut levels = Vec::new();
        for row in &table.rows {
            let level = level(&words, axis, &row.values[axis]);
            if !levels.contains(&level) {
                levels.push(level);
            }
        }
        PlotAxis::new(&table.axes[axis], levels)
    };
    let (rows, columns) = (factor(0), factor(1));
    let place = |factor: &PlotAxis, axis: usize, value: &v1::AxisValue| {
        let level = level(&words, axis, value);
        factor.levels.iter().position(|known| *known == level)
    };
    let cell = |row: &v1::TableRow| {
        let s = row.summary.unwrap_or_default();
        let mean = stat == "mean";
        Some(HeatmapCell {
            row: place(&rows, 0, &row.values[0])?,
            column: place(&columns, 1, &row.values[1])?,
            value: if mean { s.mean } else { row.figures.first().copied().filter(|x| !x.is_nan()) },
            half_width: s.ci95_high.zip(s.mean).map(|(high, mean)| high - mean).filter(|_| mean),
            trials: [s.n, s.diverged, s.failed],
        })
    };
    let cells: Vec<HeatmapCell> = table.rows.iter().filter_map(cell).collect();
    let lone = stat == "mean" && cells.iter().all(|cell| cell.half_width.is_none());
    let phase = options.kind == Kind::Phase;
    let mut notes: Vec<String> =
        lone.then(|| "No cell has two completed trials: there is no interval.".to_owned()).into_iter().collect();
    notes.extend(best_in_words(table, &words).filter(|_| stat == "mean" && !phase));
    let name = match over(stat) {
        _ if phase => "P(diverged)".to_owned(),
        // These are the same whatever is measured.
        CountedTrials::Counts | CountedTrials::Diverged => stat.to_owned(),
        CountedTrials::Completed | CountedTrials::Both => format!("{stat} {}", table.metric),
    };
    Heatmap {
        cells,
        name,
        counted_trials: over(stat),
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
    use super::*;

    #[test]
    fn what_chose_the_best_cell_is_said_and_whether_it_is_shown() {
        let row = |place: u64, value: f64| {
            let kind = Some(v1::axis_value::Kind::Number(value));
            let values = vec![v1::AxisValue { kind }];
            v1::TableRow { values, place: Some(place), may_be_best: place < 3, ..v1::TableRow::default() }
        };
        let rows = vec![row(2, 0.1), row(1, 0.2), row(3, 0.3)];
        let axes = vec!["lr".into()];
        let mut table = v1::TableResponse { axes, rows, ranked_by: "val_acc".into(), ..v1::TableResponse::default() };
        let words = AxisWords::of_table(&table);
        let said = best_in_words(&table, &words);
        assert_eq!(said.as_deref(), Some("Best by ranks of val_acc: lr 0.2; 1 of 2 others here may be as good."));
        table.rows.remove(1);
        let said = best_in_words(&table, &words);
        assert_eq!(said.as_deref(), Some("The best cell by ranks of val_acc is not among these."));
    }
}
