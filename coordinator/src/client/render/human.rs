//! Statistics for people: tables, their legends, and their figures.

use ergodic_common::escape::escape_line;
use ergodic_common::number_format::{DecimalFormat, format_significant, format_with_half_width};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::Value;

use super::legend::RankMarks;
use super::statistics_data::build_statistic_data;
use super::table_layout::TableLayout;
use super::text_table::{ColumnFit, TextCell, TextColumn, TextTable};
use super::{AxisFormats, TableData, non_empty};

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

/// What shows the columns that a narrow terminal left out, in tables, which `ergodic run` prints too.
pub(super) const TABLE_REMEDY: &str = "`ergodic table --wide` shows all, --columns chooses";
/// The same for other commands with these options.
const COLUMNS_REMEDY: &str = "--wide shows all, --columns chooses";
/// The same for other commands.
const FORMAT_REMEDY: &str = "--format csv has all";

/// Formats a number with four digits, enough for a difference or a p; a dash for `None`.
pub fn format_short_number(x: Option<f64>) -> String {
    x.filter(|x| !x.is_nan())
        .map_or_else(|| "–".to_owned(), |x| format_significant(x, 4))
}

/// Renders a table for people: one line per row, with the best one marked. `columns` are the names of
/// those to show; by default, all that fit.
///
/// # Errors
/// The table has no column of such a name.
pub fn render_human_table(
    table: &v1::TableResponse,
    layout: TableLayout,
    columns: &[String],
) -> Result<String, UserError> {
    if !table.columns.is_empty() {
        let records = build_statistic_data(&table.axes, &table.columns, &table.rows);
        return render_result_data(&records, layout, columns, "–");
    }

    let mut out = TextTable::new(human_columns(table));
    let marks = RankMarks::from_table(table);
    let words = AxisFormats::from_table(table);
    for (at, row) in table.rows.iter().enumerate() {
        let cells = words
            .format_row(&row.values)
            .chain(format_statistic_cells(row, marks.mark(at, row)));
        let style = if marks.is_best(at) { BEST_STYLE } else { "" };
        out.add_row(cells.map(|text| TextCell::new(text).with_style(style)));
    }

    out.choose_columns(columns)?;
    Ok(out.render(layout, TABLE_REMEDY))
}

/// Parameters of the escape sequence for the best row: green.
const BEST_STYLE: &str = "32";

/// Formats the cells of a row after its axes, in the order of `human_columns`.
fn format_statistic_cells(row: &v1::TableRow, mark: &str) -> Vec<String> {
    let s = row.summary.unwrap_or_default();
    let mut cells = vec![
        s.n.to_string(),
        format!("{mark}{}", format_mean_and_interval(&s)),
    ];
    cells.extend(format_trial_statistics(&s));
    cells.push(format_incomplete_counts(&s));
    cells.extend([s.ci95_low, s.ci95_high].map(format_short_number));
    cells.extend([s.diverged, s.failed].map(|n| n.to_string()));
    cells.push(escape_line(&row.note).into_owned());
    cells
}

fn figure_column(name: &str, importance: u8) -> TextColumn {
    TextColumn {
        right: true,
        importance,
        ..TextColumn::new(name)
    }
}

/// The columns of a table: those of every table, and those that are shown on request.
fn human_columns(table: &v1::TableResponse) -> Vec<TextColumn> {
    let mut columns = axis_columns(&table.axes);
    let metric = escape_line(&table.metric);
    let mean = TextColumn {
        header: format!("{metric} mean ± 95 % CI"),
        short_header: Some(format!("{metric} ± CI")),
        ..figure_column("mean", u8::MAX)
    };
    columns.extend([figure_column("n", 150), mean]);
    columns.extend(
        [("std", 140), ("min", 80), ("median", 100), ("max", 79)]
            .map(|(name, importance)| figure_column(name, importance)),
    );

    let has_incomplete = table
        .rows
        .iter()
        .any(|row| row.summary.is_some_and(|s| s.diverged + s.failed > 0));
    columns.push(TextColumn {
        header: String::new(),
        importance: 160,
        on_request: !has_incomplete,
        ..TextColumn::new("incomplete")
    });
    for name in ["ci95_low", "ci95_high", "diverged", "failed", "note"] {
        columns.push(TextColumn {
            right: name != "note",
            on_request: true,
            ..TextColumn::new(name)
        });
    }

    columns
}

/// The last part of an axis' path, with the layer if it is a key of one.
fn last_path_part(axis: &str) -> &str {
    if let Some(of_layer) = axis.strip_prefix("model.layers.") {
        return of_layer;
    }
    axis.rsplit('.').next().unwrap_or(axis)
}

/// Importance of axes: rows without them would be anonymous.
const AXIS_IMPORTANCE: u8 = 206;

/// The columns of axes, whose headers can be shortened to the last part of their path.
pub(super) fn axis_columns(axes: &[String]) -> Vec<TextColumn> {
    let mut columns = Vec::with_capacity(axes.len());
    for axis in axes {
        let short = last_path_part(axis);
        let same = axes.iter().filter(|other| last_path_part(other) == short);
        let is_unique = same.count() == 1;
        columns.push(TextColumn {
            name: axis.clone(),
            header: escape_line(axis).into_owned(),
            short_header: is_unique.then(|| escape_line(short).into_owned()),
            importance: AXIS_IMPORTANCE,
            fit: ColumnFit::Label,
            ..TextColumn::default()
        });
    }

    columns
}

/// Renders rows of results for people, such as trials or points of curves: axes, metrics and their
/// intervals are the last to be left out. `columns` are the names of those to show; by default, all
/// that fit.
///
/// # Errors
/// There is no column of such a name.
pub fn render_result_data(
    records: &TableData,
    layout: TableLayout,
    columns: &[String],
    none: &str,
) -> Result<String, UserError> {
    let mut described = axis_columns(&records.columns[..records.key_columns]);
    for at in records.key_columns..records.columns.len() {
        described.push(describe_result_column(records, at));
    }

    let mut out = build_text_table(described, records, none);
    out.choose_columns(columns)?;
    Ok(out.render(layout, COLUMNS_REMEDY))
}

/// Describes a column of results that is no axis.
fn describe_result_column(records: &TableData, at: usize) -> TextColumn {
    let name = &records.columns[at];
    let is_empty = records.rows.iter().all(|row| row[at].is_null());
    let importance = match name.as_str() {
        _ if is_empty => 0,
        "outcome" => 220,
        "repeat" => 215,
        "mean" => 210,
        "ci95_low" | "ci95_high" => 205,
        "cause" => 180,
        "n" | "cell" => 150,
        "diverged" | "failed" => 145,
        "std" => 140,
        "step" => 120,
        "median" => 100,
        "digest" => 90,
        "note" => 85,
        "min" | "max" => 80,
        "seconds" => 70,
        "steps" => 60,
        "worker" => 40,
        "isa" => 20,
        "numerics" => 10,
        // Metrics and chosen statistics.
        _ => 190,
    };
    let fit = match name.as_str() {
        "cause" | "note" => ColumnFit::Cut,
        "digest" => ColumnFit::Digest,
        _ => ColumnFit::Whole,
    };

    TextColumn {
        header: escape_line(name).into_owned(),
        importance,
        fit,
        ..TextColumn::new(name)
    }
}

/// Renders rows for people: numbers right-aligned, with six digits.
pub fn render_human_data(records: &TableData, layout: TableLayout) -> String {
    render_ordered_columns(records, records.columns.len(), "–", layout)
}

/// Renders rows for people on stdout, in columns that say how they give way on a narrow terminal.
pub fn render_described_rows(columns: Vec<TextColumn>, rows: &[Vec<Value>]) -> String {
    fit_described_rows(columns, rows, TableLayout::for_stdout(false))
}

/// Renders rows for people in a layout, in columns that say how they give way.
pub fn fit_described_rows(
    columns: Vec<TextColumn>,
    rows: &[Vec<Value>],
    layout: TableLayout,
) -> String {
    let records = TableData {
        columns: columns.iter().map(|column| column.name.clone()).collect(),
        rows: rows.to_vec(),
        key_columns: 0,
    };
    build_text_table(columns, &records, "").render(layout, FORMAT_REMEDY)
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
    render_ordered_columns(records, columns, "", TableLayout::for_stdout(false))
}

/// Characters from which on a text is prose, which can be cut: what is shorter may be a number, and
/// half a number is a wrong one.
const PROSE_CHARS: usize = 30;

/// Renders the first columns; the further to the left, the more important they are.
fn render_ordered_columns(
    records: &TableData,
    columns: usize,
    none: &str,
    layout: TableLayout,
) -> String {
    let is_prose = |at: usize| {
        let texts = records.rows.iter().filter_map(|row| row[at].as_str());
        texts.map(|text| text.chars().count()).max() > Some(PROSE_CHARS)
    };
    let names = records.columns.iter().take(columns).enumerate();
    let described = names.map(|(at, name)| TextColumn {
        name: non_empty(name).unwrap_or("note").to_owned(),
        header: escape_line(name).into_owned(),
        importance: u8::MAX - u8::try_from(at).unwrap_or(u8::MAX),
        fit: if is_prose(at) {
            ColumnFit::Cut
        } else {
            ColumnFit::Whole
        },
        ..TextColumn::new(name)
    });
    build_text_table(described.collect(), records, none).render(layout, FORMAT_REMEDY)
}

/// Builds a table of the first columns of these rows, one for each description.
fn build_text_table(described: Vec<TextColumn>, records: &TableData, none: &str) -> TextTable {
    let shown = described.len();
    let mut out = TextTable::new(described);
    for (row, words) in records.rows.iter().zip(records.format_cells(none)) {
        let cells = row.iter().zip(words).take(shown);
        out.add_row(
            cells.map(|(value, text)| TextCell::new(text).with_alignment(value.is_number())),
        );
    }

    out
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
        let text =
            render_human_table(&table, TableLayout::PLAIN, &[]).expect("no column is asked for");
        assert!(
            text.contains("one value") && text.contains("2e-7") && text.contains('–'),
            "{text}"
        );
    }
}
