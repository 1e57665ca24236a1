//! A table over two axes, one for the rows and one for the columns.

use std::collections::HashMap;

use ergodic_common::escape::escape_line;
use ergodic_proto::v1;
use serde_json::json;

use super::human::{format_incomplete_counts, format_mean_and_interval};
use super::legend::RankMarks;
use super::row_notes::SWEEP_AXIS;
use super::table_layout::TableLayout;
use super::text_table::{TextCell, TextColumn, TextTable};
use super::value_format::format_cell_value;
use super::{AxisFormats, TableData, exact_value, non_empty};
use crate::plot::heat_colours;

/// Renders mean ± 95 % CI by two axes with the best cell marked, or the chosen columns one after
/// the other. The table must have exactly two axes, rows first. On a narrow terminal, columns
/// continue in blocks below each other.
pub fn render_pivot(table: &v1::TableResponse, layout: TableLayout) -> String {
    let spread = PivotTable::from_table(table);
    let marks = RankMarks::from_table(table);
    let warmth = HeatScale::from_table(table).filter(|_| layout.colours);
    let palette = TerminalPalette::from_environment();

    let header = pivot_header(table, &spread).into_iter().enumerate();
    let mut out = TextTable::new(
        header
            .map(|(at, name)| TextColumn {
                right: at > 0,
                ..TextColumn::new(name)
            })
            .collect(),
    );
    for (row, name) in spread.row_labels.iter().enumerate() {
        let mut cells = vec![TextCell::new(name)];
        for column in 0..spread.column_labels.len() {
            let Some(at) = spread.row_at(row, column) else {
                cells.push(TextCell::new(""));
                continue;
            };
            let cell = &table.rows[at];
            let mark = marks.mark(at, cell);
            let text = format!("{mark}{}", format_pivot_cell(cell));
            let colours = warmth.as_ref().and_then(|scale| scale.heat_fraction(cell));
            cells.push(TextCell::new(text).with_style(
                colours.map_or_else(String::new, |warmth| {
                    palette.cell_style(warmth, marks.is_best(at))
                }),
            ));
        }

        out.add_row(cells);
    }

    out.render_in_blocks(layout)
}

/// Builds the same grid as rows of texts, without marks.
pub fn build_pivot_data(table: &v1::TableResponse) -> TableData {
    let spread = PivotTable::from_table(table);
    let mut rows = Vec::with_capacity(spread.row_labels.len());
    for (row, name) in spread.row_labels.iter().enumerate() {
        let mut values = vec![json!(name)];
        for column in 0..spread.column_labels.len() {
            let at = spread.row_at(row, column);
            let text = at.map_or_else(String::new, |at| format_pivot_cell(&table.rows[at]));
            values.push(json!(non_empty(&text)));
        }
        rows.push(values);
    }

    TableData {
        columns: pivot_header(table, &spread),
        rows,
        key_columns: 0,
    }
}

fn pivot_header(table: &v1::TableResponse, spread: &PivotTable) -> Vec<String> {
    let corner = format!(
        "{} \\ {}",
        escape_line(&table.axes[0]),
        escape_line(&table.axes[1])
    );
    let mut header = vec![corner];
    header.extend(spread.column_labels.iter().cloned());
    header
}

fn format_pivot_cell(row: &v1::TableRow) -> String {
    let Some(s) = &row.summary else {
        return String::new();
    };
    let figures: Vec<String> = row
        .figures
        .iter()
        .map(|x| format_cell_value(&json!(x)))
        .collect();
    let text = if figures.is_empty() {
        format_mean_and_interval(s)
    } else {
        figures.join(" / ")
    };

    // A note explains more than the counts, so it replaces them.
    let remark = if row.note.is_empty() || figures.is_empty() {
        format_incomplete_counts(s)
    } else {
        row.note.clone()
    };
    match remark.as_str() {
        "" => text,
        remark => format!("{text} ({})", escape_line(remark)),
    }
}

/// The position of a row's first figure among all of them.
struct HeatScale {
    low: f64,
    high: f64,
}

impl HeatScale {
    fn from_table(table: &v1::TableResponse) -> Option<Self> {
        let all = table.rows.iter().filter_map(first_statistic);
        let low = all.clone().fold(f64::INFINITY, f64::min);
        let high = all.fold(f64::NEG_INFINITY, f64::max);
        (low < high).then_some(Self { low, high })
    }

    fn heat_fraction(&self, row: &v1::TableRow) -> Option<f64> {
        first_statistic(row).map(|x| (x - self.low) / (self.high - self.low))
    }
}

fn first_statistic(row: &v1::TableRow) -> Option<f64> {
    row.figures
        .first()
        .copied()
        .or_else(|| row.summary?.mean)
        .filter(|x| x.is_finite())
}

/// The colours that a terminal has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TerminalPalette {
    /// Whether it announces that it shows every colour, not only xterm's 6 × 6 × 6.
    has_all_colours: bool,
}

impl TerminalPalette {
    pub(crate) fn from_environment() -> Self {
        let word = std::env::var("COLORTERM");
        Self {
            has_all_colours: word.is_ok_and(|word| word == "truecolor" || word == "24bit"),
        }
    }

    /// Parameters of the escape sequence for a cell of this warmth, from 0 to 1.
    pub(crate) fn cell_style(self, warmth: f64, bold: bool) -> String {
        let (back, front) = heat_colours(warmth);
        let back = self.colour_parameters(back);
        let front = self.colour_parameters(front);
        let weight = if bold { "1;" } else { "" };
        format!("{weight}48;{back};38;{front}")
    }

    /// The exact colour, or else the nearest of xterm's.
    fn colour_parameters(self, [r, g, b]: [u8; 3]) -> String {
        if self.has_all_colours {
            return format!("2;{r};{g};{b}");
        }

        let levels = [(36, r), (6, g), (1, b)];
        let steps = levels.map(|(step, x)| step * u32::from(nearest_xterm_level(x)));
        format!("5;{}", 16 + steps.iter().sum::<u32>())
    }
}

/// Number of the nearest of xterm's six levels of a colour.
fn nearest_xterm_level(intensity: u8) -> u8 {
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    (0..6)
        .min_by_key(|at| LEVELS[usize::from(*at)].abs_diff(intensity))
        .unwrap_or(0)
}

/// The rows of a table by the values of its two axes, in any format.
pub(super) struct PivotTable {
    /// The texts of the first axis' values, in the order of the table.
    pub(super) row_labels: Vec<String>,
    /// The texts of the second axis' values.
    pub(super) column_labels: Vec<String>,
    positions: HashMap<(usize, usize), usize>,
}

impl PivotTable {
    pub(super) fn from_table(table: &v1::TableResponse) -> Self {
        let words = AxisFormats::from_table(table);
        let mut axes = [Vec::new(), Vec::new()];
        let mut known = [HashMap::new(), HashMap::new()];
        let mut positions = HashMap::new();

        for (at, row) in table.rows.iter().enumerate() {
            let [row, column] = [0, 1].map(|axis| {
                let value = &row.values[axis];
                *known[axis].entry(exact_value(value)).or_insert_with(|| {
                    axes[axis].push(words.format_value(axis, value));
                    axes[axis].len() - 1
                })
            });
            positions.insert((row, column), at);
        }

        let [row_labels, column_labels] = axes;
        let grid = Self {
            row_labels,
            column_labels,
            positions,
        };
        match table.axes.iter().any(|axis| axis == SWEEP_AXIS) {
            true => grid.sort_numbers(),
            false => grid,
        }
    }

    /// Sorts axes of numbers. In rows of several sweeps, those that only later ones have come last.
    fn sort_numbers(self) -> Self {
        let rows = sort_if_numbers(&self.row_labels);
        let columns = sort_if_numbers(&self.column_labels);
        let places = self.positions.into_iter();
        Self {
            positions: places
                .map(|((row, column), at)| ((rows[row], columns[column]), at))
                .collect(),
            row_labels: arrange_labels(self.row_labels, &rows),
            column_labels: arrange_labels(self.column_labels, &columns),
        }
    }

    /// Position in the table of the row with these two labels.
    pub(super) fn row_at(&self, row: usize, column: usize) -> Option<usize> {
        self.positions.get(&(row, column)).copied()
    }
}

/// For each label, its place by size, if all are numbers; else the place that it has. Labels that descend stay so, as a user may have
/// sorted them.
fn sort_if_numbers(labels: &[String]) -> Vec<usize> {
    let kept = (0..labels.len()).collect();
    let numbers: Option<Vec<f64>> = labels.iter().map(|label| label.parse().ok()).collect();
    let Some(numbers) = numbers.filter(|numbers| !numbers.is_sorted_by(|a, b| a >= b)) else {
        return kept;
    };

    let mut order: Vec<usize> = kept;
    order.sort_by(|a, b| numbers[*a].total_cmp(&numbers[*b]));
    let mut places = vec![0; labels.len()];
    for (place, at) in order.into_iter().enumerate() {
        places[at] = place;
    }
    places
}

/// Puts each label into its place.
fn arrange_labels(labels: Vec<String>, places: &[usize]) -> Vec<String> {
    let mut placed: Vec<(usize, String)> = places.iter().copied().zip(labels).collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, label)| label).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::client::render::pivot::*;

    #[test]
    fn numbers_of_several_sweeps_are_sorted_and_other_grids_are_not() {
        let text = |text: &str| v1::axis_value::Kind::Text(text.to_owned());
        let row = |(sweep, lr): (&str, f64)| v1::TableRow {
            values: [text(sweep), v1::axis_value::Kind::Number(lr)]
                .map(|kind| v1::AxisValue { kind: Some(kind) })
                .to_vec(),
            ..v1::TableRow::default()
        };
        let cells = [("b", 0.01), ("b", 0.3), ("a", 0.03), ("a", 30.0)];
        let grid = |axis: &str| {
            let table = v1::TableResponse {
                axes: vec![axis.to_owned(), "lr".to_owned()],
                rows: cells.iter().map(|cell| row(*cell)).collect(),
                ..v1::TableResponse::default()
            };
            PivotTable::from_table(&table)
        };

        let joined = grid("sweep");
        assert_eq!(joined.row_labels, ["b", "a"]);
        assert_eq!(joined.column_labels, ["0.01", "0.03", "0.3", "30"]);
        let first: Vec<Option<usize>> = (0..4).map(|at| joined.row_at(0, at)).collect();
        assert_eq!(first, [Some(0), None, Some(1), None]);
        let second: Vec<Option<usize>> = (0..4).map(|at| joined.row_at(1, at)).collect();
        assert_eq!(second, [None, Some(2), None, Some(3)]);

        assert_eq!(grid("case").column_labels, ["0.01", "0.3", "0.03", "30"]);
        let descending = ["3", "2", "1"].map(str::to_owned);
        assert_eq!(sort_if_numbers(&descending), [0, 1, 2]);
    }

    #[test]
    fn figures_are_warm_by_their_place_among_all() {
        let row = |mean| v1::TableRow {
            summary: Some(v1::Summary {
                mean,
                ..v1::Summary::default()
            }),
            ..v1::TableRow::default()
        };
        let rows = [Some(0.5), None, Some(1.5), Some(1.0)].map(row);
        let table = v1::TableResponse {
            rows: rows.to_vec(),
            ..v1::TableResponse::default()
        };
        let warmth = HeatScale::from_table(&table).expect("three figures");
        assert_eq!(
            rows.each_ref().map(|row| warmth.heat_fraction(row)),
            [Some(0.0), None, Some(1.0), Some(0.5)]
        );

        assert!(
            HeatScale::from_table(&v1::TableResponse {
                rows: rows[..2].to_vec(),
                ..table
            })
            .is_none(),
            "one is neither warm nor cold"
        );
    }

    /// Axes whose values look alike when they are rounded, and whose numbers are small.
    fn alike() -> v1::TableResponse {
        let number = |x: f64| v1::AxisValue {
            kind: Some(v1::axis_value::Kind::Number(x)),
        };
        let row = |(i, wd): (u32, f64)| {
            let mean = Some(2.3e-10 * f64::from(i + 1));
            let summary = v1::Summary {
                n: 3,
                mean,
                ci95_high: mean.map(|x| x + 4e-11),
                ..v1::Summary::default()
            };

            let lr = number(1.999 + 0.002 * f64::from(i) / 63.0);
            v1::TableRow {
                values: vec![lr, number(wd)],
                summary: Some(summary),
                ..v1::TableRow::default()
            }
        };
        let rows = (0..64)
            .flat_map(|i| [(i, 0.0), (i, 1e-7)])
            .map(row)
            .collect();

        v1::TableResponse {
            axes: vec!["lr".into(), "wd".into()],
            rows,
            ..v1::TableResponse::default()
        }
    }

    #[test]
    fn every_cell_has_a_place_of_its_own_in_every_layout() {
        let table = alike();
        let text = render_pivot(&table, TableLayout::PLAIN);
        let records = build_pivot_data(&table);
        let latex = crate::client::render::render_latex_pivot(&table);
        assert_eq!(records.rows.len(), 64);
        let mut names: Vec<&Value> = records.rows.iter().map(|row| &row[0]).collect();
        names.dedup();

        assert_eq!(
            (names.len(), &names[0], &names[63]),
            (64, &&json!("1.999"), &&json!("2.001"))
        );

        for (layout, separator) in [
            (&text, "±"),
            (&records.to_markdown(), "±"),
            (&latex, "\\pm"),
        ] {
            assert_eq!(layout.matches(separator).count(), 128, "{layout}");
            assert!(!layout.contains("0.0000"), "{layout}");
        }

        assert!(
            text.contains("2.30e-10 ± 4.0e-11") && text.contains("1e-7"),
            "{text}"
        );
        let people = crate::client::render::render_human_table(&table, TableLayout::PLAIN, &[])
            .expect("no column is asked for");
        let mut lines: Vec<&str> = people
            .lines()
            .filter(|line| line.contains('±') && !line.contains("CI"))
            .collect();
        lines.sort_unstable();

        lines.dedup();
        assert_eq!(lines.len(), 128, "{people}");
    }
}
