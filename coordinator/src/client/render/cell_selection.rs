//! Tells which conditions select cells before they are pooled, and which select rows of the table.

use ergodic_common::ErrorCode;
use ergodic_common::expr::WordExpr;
use ergodic_common::spec_file::node::SpecValue;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::row_condition::{is_statistic, parse_condition};
use super::row_selection::RowSelection;

/// A selection whose conditions are sorted by what they select.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SplitSelection {
    /// Condition on axes for cells, before they are pooled; empty for all cells.
    pub cells: String,
    /// The selection of rows.
    pub rows: RowSelection,
}

impl RowSelection {
    /// Decides whether `--where` is about cells or rows: about cells if it names an axis that rows pool
    /// over. `by` are the axes of the rows as the user names them, empty for all; `stats` are the names
    /// of further statistics.
    ///
    /// A condition on the rows' own axes selects the same rows either way, and then decides which
    /// rows are shown, not which are ranked.
    ///
    /// # Errors
    /// The condition cannot be parsed, or names both a statistic and an axis that is pooled.
    pub fn split_by_axes(
        &self,
        by: &[String],
        stats: &[String],
    ) -> Result<SplitSelection, UserError> {
        let rows = SplitSelection {
            cells: String::new(),
            rows: self.clone(),
        };
        let Some(text) = self.condition.as_ref().filter(|_| !by.is_empty()) else {
            return Ok(rows);
        };

        let parsed = parse_condition("--where", text)?;
        let names: Vec<&str> = parsed
            .expr
            .names()
            .into_iter()
            .filter(|name| !matches!(*name, "true" | "false"))
            .filter(|name| !by.iter().any(|axis| is_same_axis(axis, name)))
            .collect();
        let is_of_rows = |name: &&str| is_statistic(name) || is_column_of(name, stats);
        let pooled: Vec<&str> = names
            .iter()
            .filter(|name| !is_of_rows(name))
            .copied()
            .collect();
        let Some(axis) = pooled.first() else {
            return Ok(rows);
        };

        if let Some(statistic) = names.iter().find(|name| is_of_rows(name)) {
            return Err(UserError::new(
                ErrorCode::BadInput,
                format!(
                    "--where: '{axis}' is pooled over, so it can select cells, and '{statistic}' is a statistic of rows: \
                     give them apart, as in --where \"{axis} …\" --having \"{statistic} …\""
                ),
            ));
        }

        Ok(SplitSelection {
            cells: text.clone(),
            rows: Self {
                condition: None,
                ..self.clone()
            },
        })
    }
}

/// Whether two names are of one axis: one may be the last part of the other.
pub fn is_same_axis(a: &str, b: &str) -> bool {
    a == b || a.ends_with(&format!(".{b}")) || b.ends_with(&format!(".{a}"))
}

/// Whether a name is a column of the statistics, such as `ci99_low` of `ci99`.
fn is_column_of(name: &str, stats: &[String]) -> bool {
    stats.iter().any(|stat| {
        name.strip_prefix(stat.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    })
}

/// Refuses a table without rows because no cell meets a condition.
///
/// # Errors
/// There is no row although cells were selected.
pub fn check_cells_found(cells: &str, table: &v1::TableResponse) -> Result<(), UserError> {
    if cells.is_empty() || !table.rows.is_empty() {
        return Ok(());
    }

    let exact = if cells.contains("==") {
        "; numbers are printed rounded: ask for a range, and words alone stand in quotes, as in case == \"A\""
    } else {
        ""
    };
    Err(UserError::new(
        ErrorCode::NotFound,
        format!("--where: no cell satisfies '{cells}'{exact}"),
    ))
}

/// A condition on the axes of trials.
#[derive(Debug)]
pub struct TrialCondition {
    parsed: WordExpr,
    operands: Vec<TrialOperand>,
}

/// What a name in the condition stands for.
#[derive(Debug, Clone, Copy)]
enum TrialOperand {
    Axis(usize),
    Constant(f64),
}

impl TrialCondition {
    /// Reads a condition on these axes, which the coordinator has accepted; an empty text holds for
    /// all trials.
    ///
    /// # Errors
    /// The text is no condition, or names an axis that there is not.
    pub fn parse(text: &str, axes: &[String]) -> Result<Self, UserError> {
        let text = if text.is_empty() { "true == 1" } else { text };
        let parsed = parse_condition("--where", text)?;
        let mut operands = Vec::new();
        for name in parsed.expr.names() {
            operands.push(match name {
                "true" => TrialOperand::Constant(1.0),
                "false" => TrialOperand::Constant(0.0),
                name => TrialOperand::Axis(
                    axes.iter()
                        .position(|axis| axis == name)
                        .or_else(|| axes.iter().position(|axis| is_same_axis(axis, name)))
                        .ok_or_else(|| {
                            UserError::new(
                                ErrorCode::NotFound,
                                format!("--where: the sweep has no axis '{name}'"),
                            )
                        })?,
                ),
            });
        }

        Ok(Self { parsed, operands })
    }

    /// Whether a trial with these values meets the condition.
    pub fn is_met_by(&self, values: &[v1::AxisValue]) -> bool {
        let numbers: Vec<f64> = self
            .operands
            .iter()
            .map(|operand| match operand {
                TrialOperand::Axis(at) => values.get(*at).map_or(f64::NAN, |value| {
                    self.parsed.value_number(&SpecValue::from(value))
                }),
                TrialOperand::Constant(x) => *x,
            })
            .collect();
        self.parsed.is_met(&numbers)
    }
}

#[cfg(test)]
mod tests {
    use crate::client::render::cell_selection::*;

    fn split(condition: &str, by: &[&str], stats: &[&str]) -> Result<String, String> {
        let owned = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let selection = RowSelection {
            condition: Some(condition.to_owned()),
            having: Some("n > 3".to_owned()),
            ..RowSelection::default()
        };
        selection
            .split_by_axes(&owned(by), &owned(stats))
            .map(|split| {
                assert_eq!(split.rows.condition.is_none(), !split.cells.is_empty());
                assert_eq!(split.rows.having.as_deref(), Some("n > 3"));
                split.cells
            })
            .map_err(|error| error.message)
    }

    #[test]
    fn a_condition_on_a_pooled_axis_is_about_cells() {
        assert_eq!(split("lr < 0.1", &["wd"], &[]), Ok("lr < 0.1".to_owned()));
        assert_eq!(
            split("lr < 0.1 && wd > 0", &["wd"], &[]),
            Ok("lr < 0.1 && wd > 0".to_owned())
        );

        // Each row is a cell, or the axis is one of the rows.
        for (condition, by) in [
            ("lr < 0.1 && mean > 0.5", &[][..]),
            ("lr < 0.1", &["lr"]),
            ("lr < 0.1 && mean > 0.5", &["train.lr", "wd"]),
            ("train.lr < 0.1", &["lr"]),
            ("mean > 0.5 && true == 1", &["wd"]),
        ] {
            assert_eq!(split(condition, by, &[]), Ok(String::new()), "{condition}");
        }
        assert_eq!(
            split("p_diverged_low > 0.5", &["wd"], &["p_diverged"]),
            Ok(String::new())
        );
    }

    #[test]
    fn pooled_axes_and_statistics_are_not_mixed() {
        let refused = split("lr < 0.1 && mean > 0.5", &["wd"], &[]);
        assert!(
            refused.as_ref().is_err_and(
                |e| e.contains("--having \"mean …\"") && e.contains("--where \"lr …\"")
            ),
            "{refused:?}"
        );
        assert!(split("lr <", &["wd"], &[]).is_err_and(|e| e.contains("expected a condition")));
    }

    #[test]
    fn trials_are_selected_as_cells_are() {
        let number = |x: f64| v1::AxisValue {
            kind: Some(v1::axis_value::Kind::Number(x)),
        };
        let word = v1::AxisValue {
            kind: Some(v1::axis_value::Kind::Text("sgd".to_owned())),
        };
        let values = [number(0.05), word];
        let axes = ["train.lr".to_owned(), "optimizer.kind".to_owned()];
        let holds = |text: &str| {
            TrialCondition::parse(text, &axes).map(|condition| condition.is_met_by(&values))
        };

        assert_eq!(holds(""), Ok(true));
        assert_eq!(holds("lr < 0.1 && kind == \"sgd\""), Ok(true));
        assert_eq!(holds("lr > 0.1 || kind != \"sgd\""), Ok(false));
        assert!(holds("wd > 0").is_err_and(|e| e.message.contains("no axis 'wd'")));
    }
}
