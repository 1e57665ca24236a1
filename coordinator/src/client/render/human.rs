//! Statistics for people: tables, their legends, and their figures.

use std::collections::BTreeSet;
use std::ops::Range;

use comfy_table::{Cell, CellAlignment};
use ergodic_common::escape::escape_line;
use ergodic_common::number_format::{DecimalFormat, format_significant, format_with_half_width};
use ergodic_proto::v1;
use serde_json::Value;

use super::statistics_data::build_statistic_data;
use super::{AxisFormats, TableData, should_use_colours};

/// Position of the best row, if rows are ranked and it is among the shown ones.
pub fn find_best_row(table: &v1::TableResponse) -> Option<usize> {
    // A single row is compared with nothing, so it is not marked as best.
    table
        .rows
        .iter()
        .position(|row| row.rank == Some(1))
        .filter(|_| table.rows.len() > 1)
}

/// Whether a row cannot be distinguished from the best one, and is not the best one.
fn is_tied_with_best(row: &v1::TableRow) -> bool {
    row.may_be_best && row.rank != Some(1)
}

/// The mark before the mean of a row: a star for the best one, and a hollow one for rows that
/// cannot be distinguished from it.
pub fn rank_mark(table: &v1::TableResponse, at: usize) -> &'static str {
    let is_best = find_best_row(table) == Some(at);
    match table.columns.is_empty() {
        true if is_best => "★ ",
        true if is_tied_with_best(&table.rows[at]) => "☆ ",
        _ => "",
    }
}

/// Explains the marks of a table, and adds notes on its rows; one line each.
pub fn render_legend(table: &v1::TableResponse) -> String {
    let lines = collect_legend_lines(table);
    lines.into_iter().map(|line| line + "\n").collect()
}

/// The legend of tables of several metrics over the same cells. Lines that do not hold for all of
/// them begin with the metric.
pub fn render_joint_legend(tables: &[v1::TableResponse]) -> String {
    let all: Vec<Vec<String>> = tables.iter().map(collect_legend_lines).collect();
    let mut out: Vec<String> = Vec::new();
    for (table, lines) in tables.iter().zip(&all) {
        for line in lines {
            let line = match all.iter().all(|lines| lines.contains(line)) {
                true => line.clone(),
                false => format!("{}: {line}", escape_line(&table.metric)),
            };
            if !out.contains(&line) {
                out.push(line);
            }
        }
    }

    out.into_iter().map(|line| line + "\n").collect()
}

/// Explains the stars among the shown rows, which were ranked among all.
fn format_star_legend(table: &v1::TableResponse) -> Option<String> {
    let by = match table.ranked_by.as_str() {
        "" => String::new(),
        metric => format!(" by {metric}"),
    };
    let ranked = table.rows.iter().any(|row| row.rank.is_some());
    let best = find_best_row(table).is_some();
    let rows = table.rows.len();
    let tied_rows = table.rows.iter().filter(|row| is_tied_with_best(row));
    let tied = tied_rows.count();

    let ranks = "by the ranks of trials within repeats";
    match (ranked && table.columns.is_empty(), tied) {
        (true, 0) if best => Some(format!(
            "★ best{by}, {ranks}; all others here can be told from it, at 95 %"
        )),
        (true, _) if best => {
            let others = rows - 1;
            Some(format!(
                "★ best{by}, {ranks}; ☆ cannot be told from it: {tied} of {others} others here, at 95 %"
            ))
        }
        // A single row is not marked as best, so there is no mark to explain.
        (true, 0) if rows == 1 && table.rows[0].rank == Some(1) => None,
        (true, 0) => Some(format!(
            "the best{by}, {ranks}, is not among these; all of these can be told from it, at 95 %"
        )),
        (true, _) => Some(format!(
            "the best{by}, {ranks}, is not among these; ☆ cannot be told from it: {tied} of {rows} here, at 95 %"
        )),
        (false, _) => Some(format!("no ★: {}", table.unranked))
            .filter(|_| !table.unranked.is_empty() && table.better != 0),
    }
}

/// Maximum number of different notes below a table.
const MAX_NOTES: usize = 3;

fn collect_legend_lines(table: &v1::TableResponse) -> Vec<String> {
    let mut lines: Vec<String> = format_star_legend(table).into_iter().collect();
    if table.weighting == "trials"
        && table
            .rows
            .iter()
            .any(|row| row.summary.is_some_and(|s| s.diverged + s.failed > 0))
    {
        lines.push(
            "rows of several cells weigh each trial with a value equally, so cells with more completed trials weigh more; \
             --weight cells"
                .to_owned(),
        );
    }

    if table.columns.is_empty() {
        let notes: BTreeSet<&str> = table
            .rows
            .iter()
            .filter(|row| row.summary.is_some_and(|s| s.n > 1) && !row.note.is_empty())
            .map(|row| row.note.as_str())
            .collect();
        lines.extend(
            notes
                .into_iter()
                .take(MAX_NOTES)
                .map(|note| format!("note: {note}")),
        );
    }

    lines
}

/// Formats `0.9712 ± 0.0013`; without an interval below two trials, and a dash without any.
pub fn format_mean_and_interval(s: &v1::Summary) -> String {
    match (s.mean, s.ci95_high) {
        (Some(mean), Some(high)) => format_with_half_width(mean, high - mean),
        (mean, _) => format_short_number(mean),
    }
}

/// Formats standard deviation, minimum, median and maximum of a row, to the third digit of the
/// deviation or, without one, with five digits.
pub fn format_trial_statistics(s: &v1::Summary) -> [String; 4] {
    let largest = [s.min, s.median, s.max]
        .into_iter()
        .flatten()
        .map(f64::abs)
        .fold(0.0, f64::max);
    let format = s
        .std
        .and_then(|std| DecimalFormat::from_spread(std, 3, largest));

    [s.std, s.min, s.median, s.max].map(|x| match x {
        Some(x) => format_decimal(x, format.as_ref(), 5),
        None => format_short_number(None),
    })
}

/// Formats a number in this format or, without one, with this number of significant digits.
fn format_decimal(x: f64, format: Option<&DecimalFormat>, digits: usize) -> String {
    format.map_or_else(
        || format_significant(x, digits),
        |format| format.format_number(x),
    )
}

/// Formats a figure and the ends of its interval to the second digit of half the width; dashes for
/// missing values.
pub fn format_estimate(x: Option<f64>, ends: Option<(f64, f64)>) -> (String, String) {
    let largest = ends
        .map_or(0.0, |(low, high)| low.abs().max(high.abs()))
        .max(x.unwrap_or(0.0).abs());
    let format =
        ends.and_then(|(low, high)| DecimalFormat::from_spread((high - low) / 2.0, 2, largest));
    let write = |x: f64| format_decimal(x, format.as_ref(), 4);

    let figure = x.map_or_else(|| format_short_number(None), write);
    let interval = ends.map_or_else(
        || format_short_number(None),
        |(low, high)| format!("{} … {}", write(low), write(high)),
    );
    (figure, interval)
}

/// Formats the numbers of trials that did not complete: `2 diverged, 1 failed`.
pub fn format_incomplete_counts(s: &v1::Summary) -> String {
    let counts = [(s.diverged, "diverged"), (s.failed, "failed")];
    counts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{n} {what}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Renders the chosen columns for people.
fn render_chosen_statistics(table: &v1::TableResponse) -> String {
    let records = build_statistic_data(&table.axes, &table.columns, &table.rows);
    let mut out = new_text_table();
    out.set_header(records.columns.iter().map(|name| escape_line(name)));

    for row in records.format_cells("–") {
        out.add_row(row);
    }

    align_columns_right(&mut out, table.axes.len()..records.columns.len() - 1);
    format!("{out}\n")
}

/// Creates a table with horizontal lines only.
pub(super) fn new_text_table() -> comfy_table::Table {
    let mut out = comfy_table::Table::new();
    out.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    out
}

pub(super) fn align_columns_right(table: &mut comfy_table::Table, columns: Range<usize>) {
    for at in columns {
        if let Some(column) = table.column_mut(at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// Renders rows for people: numbers right-aligned, with six digits.
pub fn render_human_data(records: &TableData) -> String {
    let mut out = new_text_table();
    out.set_header(records.columns.iter().map(|name| escape_line(name)));
    for (row, words) in records.rows.iter().zip(records.format_cells("–")) {
        out.add_row(row.iter().zip(words).map(|(value, text)| {
            let alignment = match value.is_number() {
                true => CellAlignment::Right,
                false => CellAlignment::Left,
            };
            Cell::new(text).set_alignment(alignment)
        }));
    }

    format!("{out}\n")
}

/// Renders rows for people, with their texts as they are.
pub fn render_human_rows(columns: &[String], rows: &[Vec<Value>]) -> String {
    let records = TableData {
        columns: columns.to_vec(),
        rows: rows.to_vec(),
        key_columns: 0,
    };
    render_first_columns(&records, columns.len())
}

/// Renders the first columns of a table for people.
pub fn render_first_columns(records: &TableData, columns: usize) -> String {
    let mut out = new_text_table();
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

/// Formats a number with four digits, enough for a difference or a p; a dash for `None`.
pub fn format_short_number(x: Option<f64>) -> String {
    x.filter(|x| !x.is_nan())
        .map_or_else(|| "–".to_owned(), |x| format_significant(x, 4))
}

/// Renders a table for people: one line per row, with the best one marked.
pub fn render_human_table(table: &v1::TableResponse) -> String {
    if !table.columns.is_empty() {
        return render_chosen_statistics(table);
    }

    let mut out = new_text_table();
    out.set_header(human_header(table));

    let best = find_best_row(table);
    let words = AxisFormats::from_table(table);
    for (at, row) in table.rows.iter().enumerate() {
        let s = row.summary.unwrap_or_default();
        let mean = format!("{}{}", rank_mark(table, at), format_mean_and_interval(&s));
        let cells = words
            .format_row(&row.values)
            .chain([s.n.to_string(), mean])
            .chain(format_trial_statistics(&s))
            .chain([format_incomplete_counts(&s)]);

        let highlighted = best == Some(at) && should_use_colours();
        out.add_row(cells.map(|text| match highlighted {
            true => Cell::new(text).fg(comfy_table::Color::Green),
            false => Cell::new(text),
        }));
    }

    align_columns_right(&mut out, table.axes.len()..table.axes.len() + 6);
    format!("{out}\n")
}

fn human_header(table: &v1::TableResponse) -> Vec<String> {
    let mean = format!("{} mean ± 95 % CI", table.metric);
    let figures = ["n", &mean, "std", "min", "median", "max", ""];
    table
        .axes
        .iter()
        .map(String::as_str)
        .chain(figures)
        .map(|name| escape_line(name).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::client::render::human::*;
    use crate::client::render::statistics_data::*;

    fn row(value: f64, mean: Option<f64>) -> v1::TableRow {
        let kind = Some(v1::axis_value::Kind::Number(value));
        let summary = v1::Summary {
            n: 3,
            mean,
            ci95_low: mean.map(|m| m - 0.012),
            ci95_high: mean.map(|m| m + 0.012),
            ..v1::Summary::default()
        };

        v1::TableRow {
            values: vec![v1::AxisValue { kind }],
            summary: Some(summary),
            ..v1::TableRow::default()
        }
    }

    #[test]
    fn the_best_row_is_marked_and_those_that_cannot_be_told_from_it() {
        let placed = |place, may_be_best, mean| v1::TableRow {
            rank: place,
            may_be_best,
            ..row(0.1, mean)
        };
        let rows = vec![
            placed(Some(2), true, Some(0.7)),
            placed(None, false, None),
            placed(Some(1), true, Some(0.6)),
            placed(Some(3), false, Some(0.5)),
        ];
        let mut table = v1::TableResponse {
            rows,
            better: 1,
            axes: vec!["lr".into()],
            ..v1::TableResponse::default()
        };
        assert_eq!(find_best_row(&table), Some(2));

        let text = render_human_table(&table) + &render_legend(&table);
        assert!(
            text.contains("☆ 0.700") && text.contains("★ 0.600") && text.contains(" 0.500 ± 0.012"),
            "{text}"
        );
        assert!(
            text.contains("☆ cannot be told from it: 1 of 3 others here"),
            "{text}"
        );

        // Without the best row no other is starred in its stead.
        let mut rest = table.clone();
        rest.rows.remove(2);
        let text = render_human_table(&rest) + &render_legend(&rest);
        assert!(!text.contains('★') && text.contains("☆ 0.700"), "{text}");
        assert!(
            text.contains("is not among these; ☆ cannot be told from it: 1 of 3 here"),
            "{text}"
        );

        rest.rows.remove(0);
        assert!(
            render_legend(&rest)
                .contains("is not among these; all of these can be told from it, at 95 %"),
            "{}",
            render_legend(&rest)
        );

        // Of several metrics, the legend says what the stars of each mean.
        table.metric = "test_acc".into();
        let other = v1::TableResponse {
            metric: "test_loss".into(),
            ranked_by: "val_loss".into(),
            ..table.clone()
        };
        let both = render_joint_legend(&[table.clone(), other]);
        assert!(
            both.contains("test_acc: ★ best, by")
                && both.contains("test_loss: ★ best by val_loss, by"),
            "{both}"
        );

        assert_eq!(
            render_joint_legend(&[table.clone(), table.clone()]),
            render_legend(&table)
        );
        table.rows.iter_mut().for_each(|row| row.rank = None);
        table.unranked = "the losses differ".into();

        assert_eq!(
            (find_best_row(&table), render_legend(&table)),
            (None, "no ★: the losses differ\n".to_owned())
        );
        table.rows.truncate(1);
        table.rows[0].rank = Some(1);

        assert_eq!(
            find_best_row(&table),
            None,
            "one row is not the best of anything"
        );
    }

    #[test]
    fn what_is_infinite_is_said_to_be() {
        let infinite = v1::Summary {
            n: 2,
            mean: Some(f64::INFINITY),
            max: Some(f64::INFINITY),
            ..v1::Summary::default()
        };
        let row = v1::TableRow {
            summary: Some(infinite),
            note: "a value is infinite".into(),
            ..v1::TableRow::default()
        };
        let records = build_summary_data(&[], &[], &[row]);
        assert_eq!(records.to_json_objects()[0]["mean"], "inf");

        assert!(
            records.to_csv().contains(",inf,") && records.to_csv().contains("a value is infinite"),
            "{}",
            records.to_csv()
        );

        assert_eq!(format_mean_and_interval(&infinite), "inf");
    }

    #[test]
    fn machines_get_every_digit_and_null_for_nothing() {
        let records = build_summary_data(
            &["lr".into()],
            &[],
            &[row(0.1, Some(1.0 / 3.0)), row(5e-5, None)],
        );
        let csv = records.to_csv();
        assert!(
            csv.contains("0.3333333333333333") && csv.contains("5e-5") | csv.contains("0.00005"),
            "{csv}"
        );

        assert_eq!(records.to_json_objects()[1]["mean"], Value::Null);
    }

    #[test]
    fn figures_show_what_is_known_and_no_more() {
        let summary = |mean: f64, half: f64| {
            let ci95_low = Some(mean - half);
            let ci95_high = Some(mean + half);
            v1::Summary {
                mean: Some(mean),
                ci95_low,
                ci95_high,
                ..v1::Summary::default()
            }
        };
        assert_eq!(
            format_mean_and_interval(&summary(0.97123, 0.00131)),
            "0.9712 ± 0.0013"
        );

        assert_eq!(
            format_mean_and_interval(&summary(2.3e-10, 4e-11)),
            "2.30e-10 ± 4.0e-11"
        );
        assert_eq!(
            format_mean_and_interval(&v1::Summary {
                ci95_high: None,
                ..summary(0.97123, 1.0)
            }),
            "0.9712"
        );

        let s = v1::Summary {
            std: Some(0.026_9),
            min: Some(0.668),
            median: Some(0.7),
            max: Some(0.72),
            ..Default::default()
        };
        assert_eq!(
            format_trial_statistics(&s),
            ["0.0269", "0.6680", "0.7000", "0.7200"]
        );

        let tiny = v1::Summary {
            std: Some(2.69e-11),
            min: Some(1e-10),
            median: Some(2e-10),
            max: None,
            ..Default::default()
        };
        assert_eq!(
            format_trial_statistics(&tiny),
            ["2.69e-11", "1.000e-10", "2.000e-10", "–"]
        );

        let alone = v1::Summary {
            std: None,
            min: Some(0.971_234),
            ..Default::default()
        };
        assert_eq!(format_trial_statistics(&alone), ["–", "0.97123", "–", "–"]);

        let shown = |x, ends| {
            let (figure, interval) = format_estimate(x, ends);
            [figure, interval]
        };
        assert_eq!(
            shown(Some(0.012_34), Some((0.01, 0.014_7))),
            ["0.0123", "0.0100 … 0.0147"]
        );

        assert_eq!(
            shown(Some(-1.2e-9), Some((-1.5e-9, -9e-10))),
            ["-1.20e-9", "-1.50e-9 … -9.0e-10"]
        );
        assert_eq!(shown(Some(0.25), None), ["0.25", "–"]);

        assert_eq!(
            [0.971_234, 0.000_301, 2.5e9, 0.0].map(|x| format_short_number(Some(x))),
            ["0.9712", "0.000301", "2.5e9", "0"]
        );
    }

    #[test]
    fn columns_asked_for_say_why_something_is_missing() {
        let columns: Vec<String> = ["se", "n", "q05"].map(str::to_owned).to_vec();
        let full = v1::TableRow {
            figures: vec![0.25, 3.0, 0.5],
            ..row(0.1, Some(0.5))
        };
        let lone = v1::TableRow {
            figures: vec![f64::NAN, 1.0, 2e-7],
            note: "one value".into(),
            ..row(0.2, None)
        };
        let table = v1::TableResponse {
            axes: vec!["lr".into()],
            columns: columns.clone(),
            rows: vec![full, lone],
            ..v1::TableResponse::default()
        };
        let csv = build_summary_data(&table.axes, &columns, &table.rows).to_csv();

        let header = "lr,n,diverged,failed,se,q05,note\n";
        assert_eq!(
            csv,
            format!("{header}0.1,3,0,0,0.25,0.5,\n0.2,3,0,0,,2e-7,one value\n")
        );
        let text = render_human_table(&table);
        assert!(
            text.contains("one value") && text.contains("2e-7") && text.contains('–'),
            "{text}"
        );
    }
}
