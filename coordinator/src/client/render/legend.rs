//! The marks of a table's rows, and the lines below it that explain them.

use ergodic_common::escape::escape_line;
use ergodic_proto::v1;

use super::row_notes::{collect_row_notes, describe_mixed_losses};

/// Position of the best row, if rows are ranked and it is among the shown ones.
pub fn find_best_row(table: &v1::TableResponse) -> Option<usize> {
    // A single row is compared with nothing, so it is not marked as best. Where every trial diverged, all rows rank alike, and none
    // is the best of them.
    table
        .rows
        .iter()
        .position(|row| row.rank == Some(1))
        .filter(|at| table.rows.len() > 1 && has_value(&table.rows[*at]))
}

fn has_value(row: &v1::TableRow) -> bool {
    row.summary.is_some_and(|summary| summary.n > 0)
}

/// Whether a row cannot be distinguished from the best one, and is not the best one.
fn is_tied_with_best(row: &v1::TableRow) -> bool {
    row.may_be_best && row.rank != Some(1) && has_value(row)
}

/// The marks before the means of a table's rows.
#[derive(Debug, Clone, Copy)]
pub struct RankMarks {
    /// Position of the best row, which is found once: a table may have 100 000 rows.
    best: Option<usize>,
    shown: bool,
}

impl RankMarks {
    /// The marks of a table; none if statistics were chosen.
    pub fn from_table(table: &v1::TableResponse) -> Self {
        Self {
            best: find_best_row(table),
            shown: table.columns.is_empty(),
        }
    }

    /// Whether this row, at its position in the table, is the best one.
    pub fn is_best(self, at: usize) -> bool {
        self.best == Some(at)
    }

    /// The mark of a row at its position in the table: a star for the best one, and a hollow one
    /// for rows that cannot be distinguished from it.
    pub fn mark(self, at: usize, row: &v1::TableRow) -> &'static str {
        match self.shown {
            true if self.is_best(at) => "★ ",
            true if is_tied_with_best(row) => "☆ ",
            _ => "",
        }
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
    let lines = join_lines(tables, &all).into_iter();
    lines.map(|line| line + "\n").collect()
}

/// What restricts the figures of a table, line by line: the legend without the explanation of stars, which only tables for people
/// have. A table with a column of notes needs no line for each.
pub fn collect_caveats(table: &v1::TableResponse, has_note_column: bool) -> Vec<String> {
    let mut lines = describe_figures(table);
    if !has_note_column {
        lines.extend(describe_notes(table));
    }
    lines.extend(describe_mixed_losses(table).map(|mixed| format!("note: {}", escape_line(mixed))));
    lines
}

/// The caveats of tables of several metrics over the same cells. Lines that do not hold for all of them begin with the metric.
pub fn collect_joint_caveats(tables: &[v1::TableResponse], has_note_column: bool) -> Vec<String> {
    let each = tables.iter();
    let all: Vec<Vec<String>> = each
        .map(|table| collect_caveats(table, has_note_column))
        .collect();
    join_lines(tables, &all)
}

/// Joins lines on several tables, each once.
fn join_lines(tables: &[v1::TableResponse], all: &[Vec<String>]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for (table, lines) in tables.iter().zip(all) {
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

    out
}

/// Explains the stars among the shown rows, which were ranked among all.
fn format_star_legend(table: &v1::TableResponse) -> Option<String> {
    let by = match table.ranked_by.as_str() {
        "" => String::new(),
        metric => format!(" by {metric}"),
    };
    let ranked = table.rows.iter().any(|row| row.rank.is_some());
    if ranked && !table.rows.iter().any(has_value) {
        return Some("no ★: no row has a value".to_owned());
    }
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

fn collect_legend_lines(table: &v1::TableResponse) -> Vec<String> {
    let mut lines: Vec<String> = format_star_legend(table).into_iter().collect();
    lines.extend(describe_figures(table));
    // Chosen statistics have the notes in a column.
    if table.columns.is_empty() {
        lines.extend(describe_notes(table));
    }
    // Where one value is better than another, the line on stars has said it.
    let mixed = describe_mixed_losses(table).filter(|_| table.better == 0);
    lines.extend(mixed.map(|mixed| format!("note: {}", escape_line(mixed))));

    lines
}

/// Describes quantities, and what has equal weight.
fn describe_figures(table: &v1::TableResponse) -> Vec<String> {
    let mut lines = Vec::new();
    if !table.quantities.is_empty() {
        lines.push(escape_line(&table.quantities).into_owned());
    }
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
    lines
}

fn describe_notes(table: &v1::TableResponse) -> Vec<String> {
    let notes = collect_row_notes(table).into_iter();
    notes.map(|note| format!("note: {note}")).collect()
}

#[cfg(test)]
mod tests {
    use crate::client::render::legend::*;
    use crate::client::render::{TableLayout, human};

    fn render_human_table(table: &v1::TableResponse) -> String {
        human::render_human_table(table, TableLayout::PLAIN, &[]).expect("no column is asked for")
    }

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
    fn the_legend_says_what_weighs_alike_where_that_makes_a_difference() {
        let table = |weighting: &str, (diverged, failed): (u64, u64)| {
            let mut ended = row(0.1, Some(0.7));
            let summary = ended.summary.as_mut().expect("it has one");
            (summary.diverged, summary.failed) = (diverged, failed);
            v1::TableResponse {
                rows: vec![row(0.2, Some(0.6)), ended],
                weighting: weighting.into(),
                ..v1::TableResponse::default()
            }
        };
        let says = |table: &v1::TableResponse| {
            let legend = render_legend(table);
            let words = "rows of several cells weigh each trial with a value equally";
            assert_eq!(legend.contains(words), legend.contains("--weight cells"));
            legend.contains(words)
        };

        for without_value in [(1, 0), (0, 1)] {
            assert!(says(&table("trials", without_value)));
            // Cells weigh alike, or each row is one cell.
            assert!(!says(&table("cells", without_value)));
            assert!(!says(&table("", without_value)));
        }

        // Where all trials have a value, all cells weigh alike.
        assert!(!says(&table("trials", (0, 0))));
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
}
