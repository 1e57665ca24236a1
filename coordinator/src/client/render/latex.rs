//! Tables for papers: LaTeX that needs no package but booktabs.

use std::fmt::Write as _;

use ergodic_common::escape::escape_line;
use ergodic_proto::v1;
use serde_json::{Value, json};

use super::human::{format_incomplete_counts, format_mean_and_interval};
use super::latex_escape::escape_latex;
use super::legend::{collect_joint_caveats, find_best_row};
use super::pivot::PivotTable;
use super::provenance::format_shown_trials;
use super::value_format::format_cell_value;
use super::{AxisFormats, TableData};

/// Renders one row per cell, and one column per metric with mean and interval, or the chosen
/// statistics. The tables have the same rows in the same order.
pub fn render_latex(tables: &[v1::TableResponse]) -> String {
    let first = &tables[0];
    let notes: Vec<String> = first.rows.iter().map(format_row_note).collect();
    let noted = notes.iter().any(|note| !note.is_empty());
    let mut head: Vec<String> = first.axes.iter().map(|axis| escape_latex(axis)).collect();
    head.push("$n$".to_owned());
    head.extend(tables.iter().flat_map(format_metric_heads));
    head.extend(noted.then(String::new));

    let words = AxisFormats::from_table(first);
    let mut lines = Vec::with_capacity(first.rows.len());
    for (at, row) in first.rows.iter().enumerate() {
        let values = words.format_row(&row.values);
        let mut line: Vec<String> = values.map(|text| format_axis_value(&text)).collect();
        line.push(row.summary.unwrap_or_default().n.to_string());
        for table in tables {
            line.extend(format_row_statistics(table, at));
        }
        line.extend(noted.then(|| escape_latex(&notes[at])));
        lines.push(line);
    }

    let align = match noted {
        true => format!("{}l", "r".repeat(head.len() - 1)),
        false => "r".repeat(head.len()),
    };
    format!(
        "{}{}",
        format_comment(tables),
        render_tabular(&align, &[head], &lines)
    )
}

/// Renders a table over two axes, rows first.
pub fn render_latex_pivot(table: &v1::TableResponse) -> String {
    let spread = PivotTable::from_table(table);
    let columns = spread.column_labels.len();

    let mut lines = Vec::with_capacity(spread.row_labels.len());
    for (row, name) in spread.row_labels.iter().enumerate() {
        let mut line = vec![format_axis_value(name)];
        for column in 0..columns {
            let at = spread.row_at(row, column);
            line.push(at.map_or_else(String::new, |at| format_pivot_cell(table, at)));
        }
        lines.push(line);
    }

    let above = format!(
        " & \\multicolumn{{{columns}}}{{c}}{{{}}} \\\\\n\\cmidrule(lr){{2-{}}}\n",
        escape_latex(&table.axes[1]),
        columns + 1
    );
    let mut head = vec![format!("{above}{}", escape_latex(&table.axes[0]))];
    head.extend(
        spread
            .column_labels
            .iter()
            .map(|name| format_axis_value(name)),
    );

    format!(
        "{}{}",
        format_comment(std::slice::from_ref(table)),
        render_tabular(&"r".repeat(columns + 1), &[head], &lines)
    )
}

fn format_pivot_cell(table: &v1::TableResponse, at: usize) -> String {
    let text = format_row_statistics(table, at).join(" / ");
    match format_row_note(&table.rows[at]).as_str() {
        "" => text,
        note => format!("{text} ({})", escape_latex(note)),
    }
}

/// Renders rows as a table.
pub fn render_latex_data(data: &TableData) -> String {
    let head = data
        .columns
        .iter()
        .map(|column| escape_latex(column))
        .collect();

    let mut lines = Vec::with_capacity(data.rows.len());
    for (row, words) in data.rows.iter().zip(data.format_cells("")) {
        let cells = row.iter().zip(words).map(|(value, text)| match value {
            Value::Number(_) | Value::Array(_) => format_axis_value(&text),
            _ if text.starts_with('[') => format_axis_value(&text),
            _ => escape_latex(&text),
        });
        lines.push(cells.collect());
    }

    render_tabular(&"l".repeat(data.columns.len()), &[head], &lines)
}

/// The comment above a table: its metrics, sweep and package.
fn format_comment(tables: &[v1::TableResponse]) -> String {
    let first = &tables[0];
    let metrics: Vec<&str> = tables.iter().map(|table| table.metric.as_str()).collect();
    let what = match spread_statistic(first) {
        Some("std") => "mean ± standard deviation".to_owned(),
        Some(_) => "mean ± standard error".to_owned(),
        None if first.columns.is_empty() => {
            "mean ± half of its 95 % confidence interval".to_owned()
        }
        None => first.columns.join(", "),
    };

    let caveats = collect_joint_caveats(tables, false).into_iter();
    let caveats: String = caveats.map(|line| format!("% {line}\n")).collect();
    format!(
        "% {} ({}): {}; {what}, over completed trials\n{caveats}% {}; {}; {}\n% \\usepackage{{booktabs}}\n",
        escape_line(&first.name),
        first.sweep,
        metrics.join(", "),
        format_shown_trials(first),
        escape_line(&first.data),
        escape_line(&first.numerics)
    )
}

/// The measure of spread, if the mean and one such measure are chosen, which are written as one
/// figure.
fn spread_statistic(table: &v1::TableResponse) -> Option<&str> {
    match &table.columns[..] {
        [mean, spread] if mean == "mean" && (spread == "std" || spread == "se") => {
            Some(spread.as_str())
        }
        _ => None,
    }
}

fn format_metric_heads(table: &v1::TableResponse) -> Vec<String> {
    let metric = escape_latex(&table.metric);
    if table.columns.is_empty() || spread_statistic(table).is_some() {
        return vec![metric];
    }

    table
        .columns
        .iter()
        .map(|column| format!("{metric} {}", escape_latex(column)))
        .collect()
}

/// Formats a row's figures, one per column; the mean of the best row is bold.
fn format_row_statistics(table: &v1::TableResponse, at: usize) -> Vec<String> {
    let row = &table.rows[at];
    let s = row.summary.unwrap_or_default();
    let is_best = row.rank == Some(1) && find_best_row(table) == Some(at);
    if table.columns.is_empty() {
        return vec![format_mean(&s, is_best)];
    }

    if spread_statistic(table).is_some() {
        let spread = row.figures.get(1).copied().filter(|x| x.is_finite());
        let s = v1::Summary {
            ci95_high: spread.and_then(|half| s.mean.map(|mean| mean + half)),
            ..s
        };
        return vec![format_mean(&s, is_best)];
    }

    row.figures
        .iter()
        .map(|x| format_math(&format_cell_value(&json!(x))))
        .collect()
}

fn format_mean(s: &v1::Summary, is_bold: bool) -> String {
    let text = format_math(&format_mean_and_interval(s));
    let figure = text
        .strip_prefix('$')
        .and_then(|text| text.strip_suffix('$'));
    match figure {
        Some(figure) if is_bold => format!("$\\mathbf{{{figure}}}$"),
        _ => text,
    }
}

fn format_row_note(row: &v1::TableRow) -> String {
    if row.note.is_empty() || row.figures.is_empty() {
        format_incomplete_counts(&row.summary.unwrap_or_default())
    } else {
        row.note.clone()
    }
}

fn render_tabular(align: &str, head: &[Vec<String>], lines: &[Vec<String>]) -> String {
    let mut out = format!("\\begin{{tabular}}{{{align}}}\n\\toprule\n");
    head.iter()
        .for_each(|line| out += &format!("{} \\\\\n", line.join(" & ")));
    out += "\\midrule\n";
    lines.iter().for_each(|line| {
        let _ = writeln!(out, "{} \\\\", line.join(" & "));
    });
    out + "\\bottomrule\n\\end{tabular}\n"
}

/// Formats an axis value: a number or a list of numbers in maths mode, anything else as text.
fn format_axis_value(text: &str) -> String {
    if text.parse::<f64>().is_ok() {
        return format_math(text);
    }

    format_number_list(text).unwrap_or_else(|| escape_latex(text))
}

/// Formats `[32,64]` as `$[32, 64]$`; `None` for what is no list of numbers.
fn format_number_list(text: &str) -> Option<String> {
    let items = text.strip_prefix('[')?.strip_suffix(']')?;
    let numbers: Option<Vec<String>> = items
        .split(',')
        .map(str::trim)
        .map(|item| item.parse::<f64>().ok().map(|_| format_power(item)))
        .collect();
    Some(format!("$[{}]$", numbers?.join(", ")))
}

/// Formats a figure in maths mode, with powers of ten written out; a dash if there is none.
fn format_math(text: &str) -> String {
    if text == "–" {
        return "--".to_owned();
    }

    let parts: Vec<String> = text.split(" ± ").map(format_power).collect();
    format!("${}$", parts.join(" \\pm "))
}

/// Formats a number with its power of ten written out: `5 \times 10^{-5}` for `5e-5`.
fn format_power(number: &str) -> String {
    match number.trim_start_matches('-') {
        "inf" => return number.replace("inf", "\\infty"),
        "NaN" => return "\\mathrm{NaN}".to_owned(),
        _ => {}
    }

    let Some((digits, power)) = number.split_once('e') else {
        return number.to_owned();
    };
    if digits.parse::<f64>().is_err() {
        return number.to_owned();
    }

    let digits = if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        digits
    };
    match digits {
        "1" => format!("10^{{{power}}}"),
        digits => format!("{digits} \\times 10^{{{power}}}"),
    }
}

#[cfg(test)]
mod tests {
    use crate::client::render::latex::*;

    fn table(columns: &[&str]) -> v1::TableResponse {
        let row = |(kind, wd, mean): (&str, f64, Option<f64>)| {
            let word = v1::AxisValue {
                kind: Some(v1::axis_value::Kind::Text(kind.to_owned())),
            };
            let number = v1::AxisValue {
                kind: Some(v1::axis_value::Kind::Number(wd)),
            };

            let summary = v1::Summary {
                n: if mean.is_some() { 3 } else { 0 },
                diverged: if mean.is_some() { 0 } else { 3 },
                mean,
                ci95_high: mean.map(|m| m + 0.0131),
                ..v1::Summary::default()
            };

            let figures = if columns.is_empty() {
                vec![]
            } else {
                vec![mean.unwrap_or(f64::NAN), 2e-7]
            };

            let place = (mean == Some(0.75)).then_some(1);
            v1::TableRow {
                values: vec![word, number],
                summary: Some(summary),
                figures,
                rank: place,
                ..v1::TableRow::default()
            }
        };

        v1::TableResponse {
            sweep: "abcd".into(),
            name: "50 %".into(),
            metric: "test_acc".into(),
            axes: vec!["train.loss_kind".into(), "wd".into()],
            rows: [
                ("a_b", 0.0, Some(0.5)),
                ("a_b", 5e-5, Some(0.75)),
                ("c&d", 0.0, None),
            ]
            .map(row)
            .to_vec(),
            better: 1,
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            ..v1::TableResponse::default()
        }
    }

    #[test]
    fn names_are_escaped_and_figures_are_maths() {
        let text = render_latex(&[table(&[])]);
        let body: Vec<&str> = text.lines().filter(|line| line.ends_with("\\\\")).collect();
        assert_eq!(
            body,
            [
                "train.loss\\_kind & wd & $n$ & test\\_acc &  \\\\",
                "a\\_b & $0$ & 3 & $0.500 \\pm 0.013$ &  \\\\",
                "a\\_b & $5 \\times 10^{-5}$ & 3 & $\\mathbf{0.750 \\pm 0.013}$ &  \\\\",
                "c\\&d & $0$ & 0 & -- & 3 diverged \\\\",
            ]
        );

        assert!(
            text.starts_with("% 50 % (abcd): test_acc; mean ± half")
                && text.contains("\\begin{tabular}{rrrrl}"),
            "{text}"
        );
    }

    /// Checks what LaTeX would stop at: cells per row, braces, maths, special characters, and a bracket or star that a command
    /// before it would take for its argument.
    fn check_tabular(text: &str) {
        let body = text.split_once("\\begin{tabular}").expect("a table").1;
        let starts = ["\\\\\n", "\\toprule\n", "\\midrule\n"];
        for start in starts {
            for after in body.split(start).skip(1) {
                assert!(!after.starts_with(['[', '*']), "{start}{after}");
            }
        }

        let rows: Vec<&str> = body
            .lines()
            .filter(|line| line.ends_with(" \\\\"))
            .collect();
        let plain = |row: &str| {
            row.replace("\\\\", "")
                .replace("\\&", "")
                .replace("\\$", "")
        };
        for row in &rows {
            let row = plain(row);
            assert_eq!(row.matches('{').count(), row.matches('}').count(), "{row}");
            assert_eq!(row.matches('$').count() % 2, 0, "{row}");
            let outside: String = row.split('$').step_by(2).collect();
            assert!(!outside.replace("\\_", "").contains(['_', '^']), "{row}");
        }
        let cells = |row: &&str| plain(row).matches('&').count();
        let last = rows.last().map(cells);
        assert!(rows.iter().skip(2).all(|row| Some(cells(row)) == last));
    }

    #[test]
    fn lists_and_odd_texts_are_no_arguments_of_commands() {
        for (value, expected) in [
            ("[32,64]", "$[32, 64]$"),
            ("[1e-5, 0.1]", "$[10^{-5}, 0.1]$"),
            ("[8]", "$[8]$"),
            ("[]", "{[}{]}"),
            ("[a_b,8]", "{[}a\\_b,8{]}"),
            ("[[1],[2]]", "{[}{[}1{]},{[}2{]}{]}"),
            ("*", "{*}"),
            ("λ ≤ 1", "$\\lambda$ $\\leq$ 1"),
            ("inf", "$\\infty$"),
            ("-inf", "$-\\infty$"),
            ("NaN", "$\\mathrm{NaN}$"),
        ] {
            assert_eq!(format_axis_value(value), expected);

            let mut table = table(&[]);
            for row in &mut table.rows {
                row.values[0].kind = Some(v1::axis_value::Kind::Text(value.to_owned()));
            }
            check_tabular(&render_latex(std::slice::from_ref(&table)));
            check_tabular(&render_latex_pivot(&table));
            table.axes.reverse();
            table.rows.iter_mut().for_each(|row| row.values.reverse());
            check_tabular(&render_latex_pivot(&table));

            let rows = vec![vec![json!(value), json!(1)], vec![json!([8, 16]), json!(2)]];
            check_tabular(&render_latex_data(&TableData {
                columns: vec!["[a]".into(), "b".into()],
                rows,
                key_columns: 1,
            }));
        }
    }

    #[test]
    fn mean_and_deviation_are_one_figure_and_other_statistics_one_column_each() {
        let spread = render_latex(&[table(&["mean", "std"])]);
        assert!(
            spread.contains("mean ± standard deviation")
                && spread.contains("$0.50000000 \\pm 0.00000020$"),
            "{spread}"
        );

        let both = render_latex(&[table(&["q05", "median"]), table(&[])]);
        assert!(
            both.contains("test\\_acc q05 & test\\_acc median & test\\_acc &"),
            "{both}"
        );

        assert!(
            both.contains("$2 \\times 10^{-7}$") && !both.contains("NaN"),
            "{both}"
        );
    }

    #[test]
    fn caveats_are_comments() {
        let mut noted = table(&[]);
        for row in &mut noted.rows {
            row.note = "given the fixed init".to_owned();
        }
        for text in [render_latex(&[noted.clone()]), render_latex_pivot(&noted)] {
            assert!(text.contains("\n% note: given the fixed init\n"), "{text}");
            assert!(!text.contains("Student"), "{text}");
            check_tabular(&text);
        }
        let other = v1::TableResponse {
            metric: "test_loss".to_owned(),
            ..table(&[])
        };
        let both = render_latex(&[noted, other]);
        assert!(
            both.contains("\n% test_acc: note: given the fixed init\n"),
            "{both}"
        );
    }

    #[test]
    fn a_grid_names_both_axes() {
        let text = render_latex_pivot(&table(&[]));
        let head = " & \\multicolumn{2}{c}{wd} \\\\\n\\cmidrule(lr){2-3}\ntrain.loss\\_kind & $0$ & $5 \\times 10^{-5}$ \\\\\n";
        assert!(text.contains(head), "{text}");
        assert!(text.contains("c\\&d & -- (3 diverged) &  \\\\"), "{text}");
        let records = TableData {
            columns: vec!["a_b".into()],
            rows: vec![vec![json!("50 %")], vec![json!(1e-7)]],
            key_columns: 0,
        };

        assert!(
            render_latex_data(&records)
                .contains("a\\_b \\\\\n\\midrule\n50 \\% \\\\\n$10^{-7}$ \\\\"),
            "{}",
            render_latex_data(&records)
        );
    }
}
