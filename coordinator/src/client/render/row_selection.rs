//! Selects the rows of a table and their order: `--where`, `--sort` and `--top`.

use std::collections::{HashMap, HashSet};

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::exact_value;
use super::row_condition::{Condition, SelectableRows, no_row_error, sort_rows};

/// Which rows of a table are shown, in which order.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct RowSelection {
    /// Only cells that satisfy this condition on axes, also those that rows pool over, as in "lr <= 0.1"; put words in quotes
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
    /// Only rows that satisfy this condition on axes and statistics, as in "mean > 0.5 && n > 3"
    #[arg(long, value_name = "CONDITION")]
    pub having: Option<String>,
    /// Sort by an axis or a statistic, as in mean; with a minus sign in front, the largest first
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub sort: Option<String>,
    /// Print at most N rows: the first ones, or without --sort the best ones, by the mean ranks of trials within repeats
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub top: Option<u32>,
}

impl RowSelection {
    /// Whether all rows are shown in their original order.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Positions of the rows to show, in order.
    ///
    /// # Errors
    /// A name is unknown, the condition cannot be parsed, no row fulfils it, or rows have no ranks
    /// to find the best ones by.
    pub fn select_rows(&self, table: &v1::TableResponse) -> Result<Vec<usize>, UserError> {
        let mut rows = self.filter_rows(table)?;
        if let Some(key) = &self.sort {
            sort_rows(table, key, &mut rows)?;
        } else if self.top.is_some() {
            check_ranks(table)?;
            // Rows without a rank come last.
            rows.sort_by_key(|at| table.rows[*at].rank.unwrap_or(u64::MAX));
        }

        rows.truncate(self.top.map_or(usize::MAX, |n| n as usize));
        Ok(rows)
    }

    /// Positions of the rows that satisfy the conditions, in their original order.
    ///
    /// # Errors
    /// A name is unknown, the condition cannot be parsed, or no row fulfils it.
    pub fn filter_rows(&self, rows: &impl SelectableRows) -> Result<Vec<usize>, UserError> {
        let mut kept: Vec<usize> = (0..rows.row_count()).collect();
        for (option, text) in [("--where", &self.condition), ("--having", &self.having)] {
            let Some(text) = text else { continue };
            let condition = Condition::parse(option, text, rows)?;
            let before = kept.len();
            kept.retain(|at| condition.is_met_by(rows, *at));
            if kept.is_empty() && before > 0 {
                return Err(no_row_error(
                    option,
                    (text.as_str(), &condition),
                    rows,
                    before,
                ));
            }
        }

        Ok(kept)
    }

    /// Reduces tables over the same cells to the rows selected in the first one. A row that one of
    /// them lacks, because it was stored between the queries, is dropped from all.
    ///
    /// # Errors
    /// As for [`RowSelection::select_rows`].
    pub fn apply_to_tables(&self, tables: &mut [v1::TableResponse]) -> Result<(), UserError> {
        if self.is_empty() && tables.len() < 2 {
            return Ok(());
        }

        let Some(first) = tables.first() else {
            return Ok(());
        };
        let mut selected: Vec<Vec<String>> = self
            .select_rows(first)?
            .into_iter()
            .map(|at| row_key(&first.rows[at]))
            .collect();

        for table in tables.iter() {
            let known: HashSet<Vec<String>> = table.rows.iter().map(row_key).collect();
            selected.retain(|key| known.contains(key));
        }

        for table in tables {
            let mut by_key: HashMap<_, _> = table
                .rows
                .drain(..)
                .map(|row| (row_key(&row), row))
                .collect();
            table.rows = selected
                .iter()
                .filter_map(|key| by_key.remove(key))
                .collect();
        }

        Ok(())
    }
}

/// Refuses `--top` without `--sort` for a table whose rows have no ranks.
fn check_ranks(table: &v1::TableResponse) -> Result<(), UserError> {
    if table.better == 0 {
        let message = format!(
            "--top: for {}, neither larger nor smaller values are better: use --sort -mean or --sort mean",
            table.metric
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    if !table.unranked.is_empty() {
        let message = format!("--top: {}; or use --sort mean", table.unranked);
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    if is_missing_ranks(table) {
        let sort = if table.better > 0 { "-mean" } else { "mean" };
        let message = format!(
            "--top: the coordinator's version is too old to say which rows are the best: use --sort {sort}, or update the \
             coordinator"
        );
        return Err(UserError::new(ErrorCode::Refused, message));
    }

    Ok(())
}

/// Whether a table lacks ranks that its rows should have, because the coordinator has an older
/// version.
pub fn is_missing_ranks(table: &v1::TableResponse) -> bool {
    // Rows of several cells get ranks only once a repeat has ended in every cell of a row.
    let is_ordered = table.better != 0
        && table.unranked.is_empty()
        && table.weighting.is_empty()
        && table.rows.len() > 1;

    is_ordered
        && table.rows.iter().any(has_result)
        && table.rows.iter().all(|row| row.rank.is_none())
}

fn has_result(row: &v1::TableRow) -> bool {
    row.summary.is_some_and(|s| s.n + s.diverged > 0)
}

/// The exact values of a row.
fn row_key(row: &v1::TableRow) -> Vec<String> {
    row.values.iter().map(exact_value).collect()
}

#[cfg(test)]
mod tests {
    use crate::client::render::row_selection::*;

    fn table() -> v1::TableResponse {
        let row = |(lr, kind, mean, n): (f64, &str, Option<f64>, u64)| {
            let number = v1::AxisValue {
                kind: Some(v1::axis_value::Kind::Number(lr)),
            };
            let word = v1::AxisValue {
                kind: Some(v1::axis_value::Kind::Text(kind.to_owned())),
            };

            let min = mean.map(|m| 1.2 * m - 0.2);
            let max = mean.filter(|m| *m > 0.65).map(|m| m + 0.1);
            let summary = Some(v1::Summary {
                n,
                mean,
                min,
                max,
                diverged: 4 - n,
                ..v1::Summary::default()
            });

            // By their ranks, the cell with the second mean is the best one.
            let place = mean.map(|mean| {
                if mean == 0.6 {
                    1
                } else if mean == 0.7 {
                    2
                } else {
                    3
                }
            });

            v1::TableRow {
                values: vec![number, word],
                summary,
                rank: place,
                ..v1::TableRow::default()
            }
        };

        let rows = [
            (0.1, "sgd", Some(0.5), 4),
            (0.2, "adamw", None, 0),
            (0.4, "sgd", Some(0.7), 3),
            (0.8, "adamw", Some(0.6), 4),
        ];
        v1::TableResponse {
            axes: vec!["train.lr".into(), "train.optimizer.kind".into()],
            rows: rows.map(row).to_vec(),
            better: 1,
            metric: "test_acc".into(),
            ..v1::TableResponse::default()
        }
    }

    fn rows(condition: &str, sort: &str, top: u32) -> Result<Vec<usize>, String> {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let selection = RowSelection {
            condition: given(condition),
            having: None,
            sort: given(sort),
            top: Some(top).filter(|n| *n > 0),
        };
        selection.select_rows(&table()).map_err(|e| e.message)
    }

    #[test]
    fn conditions_are_about_axes_and_statistics() {
        assert_eq!(rows("lr <= 0.2", "", 0), Ok(vec![0, 1]));
        assert_eq!(rows("train.lr * 2 > 0.3 && n > 3", "", 0), Ok(vec![3]));
        assert_eq!(rows("kind == \"sgd\"", "", 0), Ok(vec![0, 2]));
        assert_eq!(
            rows("kind != \"sgd\" || diverged > 0", "", 0),
            Ok(vec![1, 2, 3])
        );

        // A mean that there is not fulfils nothing.
        assert_eq!(rows("mean < 0.65", "", 0), Ok(vec![0, 3]));
        assert_eq!(rows("mean != 0.7", "", 0), Ok(vec![0, 3]));
        assert_eq!(rows("0.1 < lr < 0.8", "", 0), Ok(vec![1, 2]));
        assert_eq!(rows("-lr^2 < -0.1", "", 0), Ok(vec![2, 3]));
        assert_eq!(rows("max > 0.5 && min < max", "", 0), Ok(vec![2]));
        assert_eq!(
            rows("lr < \"sgd\"", "", 0).map_err(|e| e.contains("no order")),
            Err(true)
        );

        assert_eq!(
            rows("n == \"sgd\"", "", 0).map_err(|e| e.contains("none of 4")),
            Err(true)
        );

        for (bad, words) in [
            ("lrr < 1", "did you mean 'lr'"),
            ("lr <", "expected a condition"),
            ("kind == \"sgd", "a quote is open"),
            ("mean", "it compares nothing"),
            ("lr == 0.3", "printed rounded"),
            (
                "kind == 1",
                "the values of kind are words, which stand in quotes: kind == \"sgd\"",
            ),
            (
                "lr == \"0.1\"",
                "the values of lr are numbers, without quotes: lr == 0.1",
            ),
            ("\"lr\" == 0.3", "names stand without quotes"),
            (
                "\"lr\" == kind",
                "\"lr\" in quotes is a word: the name stands without quotes",
            ),
            ("lr > 5", "none of 4 rows"),
        ] {
            assert!(
                rows(bad, "", 0).is_err_and(|e| e.contains("--where") && e.contains(words)),
                "{bad}: {:?}",
                rows(bad, "", 0)
            );
        }
    }

    #[test]
    fn rows_are_sorted_with_what_has_no_value_last() {
        assert_eq!(rows("", "mean", 0), Ok(vec![0, 3, 2, 1]));
        assert_eq!(rows("", "-mean", 0), Ok(vec![2, 3, 0, 1]));
        assert_eq!(rows("", "-lr", 2), Ok(vec![3, 2]));
        assert_eq!(rows("", "kind", 0), Ok(vec![1, 3, 0, 2]));
        assert!(rows("", "meen", 0).is_err_and(|e| e.contains("did you mean 'mean'")));
    }

    #[test]
    fn tables_of_several_metrics_keep_the_same_rows() {
        let mut other = table();
        other.rows.reverse();
        other.rows.pop();
        let mut both = [table(), other];
        RowSelection::default()
            .apply_to_tables(&mut both)
            .expect("nothing is asked for");

        let keys = both
            .each_ref()
            .map(|table| table.rows.iter().map(row_key).collect::<Vec<_>>());
        assert_eq!((keys[0].len(), &keys[0]), (3, &keys[1]));
    }

    #[test]
    fn the_top_rows_are_the_best_ones() {
        // By their ranks, not by their means.
        assert_eq!(rows("", "", 2), Ok(vec![3, 2]));
        let mixed = v1::TableResponse {
            unranked: "the losses differ".into(),
            ..table()
        };
        let refused = RowSelection {
            top: Some(1),
            ..RowSelection::default()
        }
        .select_rows(&mixed);
        assert!(refused.is_err_and(|e| e.message.contains("--top: the losses differ")));

        // Whose coordinator says nothing of places is not shown whatever comes first.
        let mut older = table();
        older.rows.iter_mut().for_each(|row| row.rank = None);
        let top = RowSelection {
            top: Some(1),
            ..RowSelection::default()
        };
        assert!(top.select_rows(&older).is_err_and(
            |e| e.message.contains("too old") && e.message.contains("--sort -mean")
        ));

        // Where nothing has ended yet, nothing is better.
        older.rows.iter_mut().for_each(|row| row.summary = None);
        assert_eq!(top.select_rows(&older).map_err(|e| e.message), Ok(vec![0]));
        let table = v1::TableResponse {
            better: 0,
            ..table()
        };
        assert!(
            top.select_rows(&table)
                .is_err_and(|e| e.message.contains("--sort -mean"))
        );
    }
}
