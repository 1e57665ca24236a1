//! Selects columns by name: `--columns`.

use arrow_array::RecordBatch;
use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_common::spec_file::suggest::suggest_nearest;
use ergodic_proto::status::UserError;

use super::text_table::TextTable;
use super::{TableData, column_error};

/// Which columns are shown, and whether a pager shows them.
#[derive(Debug, Clone, Default, Args)]
pub struct ViewArgs {
    /// Print these columns, in this order, as in lr,mean,std [default: all; on a terminal, those that fit]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub columns: Vec<String>,
    /// Print everything in full, also on a terminal that is too narrow for it
    #[arg(long)]
    pub wide: bool,
    /// Print long output directly, not through ERGODIC_PAGER, PAGER or less
    #[arg(long)]
    pub no_pager: bool,
}

impl TextTable {
    /// Keeps the named columns, in this order; all if none is named.
    ///
    /// # Errors
    /// There is no column of such a name, or one is named twice.
    pub(super) fn choose_columns(&mut self, names: &[String]) -> Result<(), UserError> {
        if names.is_empty() {
            return Ok(());
        }
        let known: Vec<&str> = self.column_names().collect();
        let positions = find_columns(names, &known)?;
        self.select_columns(&positions);
        Ok(())
    }
}

impl TableData {
    /// Keeps the named columns, in this order; all if none is named. Leading columns that identify
    /// rows still do so.
    ///
    /// # Errors
    /// There is no column of such a name, or one is named twice.
    pub fn choose_columns(&mut self, names: &[String]) -> Result<(), UserError> {
        if names.is_empty() {
            return Ok(());
        }
        let positions = find_columns(names, &self.column_names())?;

        let is_key = |at: &&usize| **at < self.key_columns;
        self.key_columns = positions.iter().take_while(is_key).count();
        self.columns = positions
            .iter()
            .map(|at| self.columns[*at].clone())
            .collect();
        for row in &mut self.rows {
            *row = positions.iter().map(|at| row[*at].clone()).collect();
        }
        Ok(())
    }

    fn column_names(&self) -> Vec<&str> {
        self.columns.iter().map(String::as_str).collect()
    }
}

/// Keeps the named columns of a batch, in this order; all if none is named.
///
/// # Errors
/// There is no column of such a name, or one is named twice.
pub fn choose_batch_columns(
    batch: &RecordBatch,
    names: &[String],
) -> Result<RecordBatch, UserError> {
    if names.is_empty() {
        return Ok(batch.clone());
    }
    let schema = batch.schema();
    let known: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    let positions = find_columns(names, &known)?;
    batch.project(&positions).map_err(|e| column_error(&e))
}

/// Positions of the named columns among the known ones.
///
/// # Errors
/// A name is unknown, or given twice.
pub(super) fn find_columns(names: &[String], known: &[&str]) -> Result<Vec<usize>, UserError> {
    let mut positions = Vec::with_capacity(names.len());
    for name in names {
        let at = find_name(name, known).ok_or_else(|| unknown_column_error(name, known))?;
        if positions.contains(&at) {
            let message = format!("--columns: '{name}' is named twice: name each column once");
            return Err(UserError::new(ErrorCode::BadInput, message));
        }
        positions.push(at);
    }

    Ok(positions)
}

/// Finds the first entry with this name, or else the only one whose path ends in it.
pub(super) fn find_name(name: &str, known: &[&str]) -> Option<usize> {
    if let Some(at) = known.iter().position(|known| *known == name) {
        return Some(at);
    }

    let suffix = format!(".{name}");
    let mut ends = (0..known.len()).filter(|at| known[*at].ends_with(&suffix));
    let only = ends.next();
    only.filter(|_| ends.next().is_none())
}

fn unknown_column_error(name: &str, known: &[&str]) -> UserError {
    let message = format!(
        "--columns: there is no column '{name}', {}",
        suggest_nearest(name, known.iter().copied())
    );
    UserError::new(ErrorCode::NotFound, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::client::render::column_selection::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn columns_are_chosen_by_name_or_by_the_last_part_of_a_path() {
        let rows = vec![vec![json!(0.1), json!(3), json!(0.5)]];
        let data = TableData {
            columns: names(&["train.lr", "n", "mean"]),
            rows,
            key_columns: 1,
        };
        let mut chosen = data.clone();
        chosen
            .choose_columns(&names(&["mean", "lr"]))
            .expect("both are there");
        assert_eq!(chosen.columns, names(&["mean", "train.lr"]));
        assert_eq!(chosen.rows, [[json!(0.5), json!(0.1)]]);
        assert_eq!(chosen.key_columns, 0);

        let mut all = data.clone();
        all.choose_columns(&[]).expect("nothing is asked for");
        assert_eq!(all, data);

        let unknown = all
            .choose_columns(&names(&["meen"]))
            .expect_err("there is none");
        assert!(unknown.message.contains("did you mean 'mean'"), "{unknown}");
        let twice = all.choose_columns(&names(&["n", "n"])).expect_err("twice");
        assert!(twice.message.contains("'n' is named twice"), "{twice}");
    }
}
