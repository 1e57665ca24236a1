//! Rows with named columns, and their formats for machines.

use ergodic_common::escape::escape_line;
use serde_json::{Map, Value};

use super::TextFormat;
use super::latex::render_latex_data;
use super::row_notes::escape_markdown;
use super::value_format::{build_column_formatter, format_cell_value};

/// Columns and rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TableData {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Rows of one value per column; null for missing values.
    pub rows: Vec<Vec<Value>>,
    /// Number of leading columns that identify rows, such as the values of axes.
    pub key_columns: usize,
}

impl TableData {
    /// Creates rows with these columns, none of which is a key.
    pub fn from_rows(columns: &[&str], rows: Vec<Vec<Value>>) -> Self {
        Self {
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            rows,
            key_columns: 0,
        }
    }

    /// Whether there is a column of this name.
    pub fn has_column(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column == name)
    }

    /// Formats the rows of a JSON document, one object per line, without the brackets.
    pub fn to_json_lines(&self) -> String {
        let lines: Vec<String> = self
            .to_json_objects()
            .iter()
            .map(|row| format!("    {row}"))
            .collect();
        lines.join(",\n")
    }

    /// Builds one object per row.
    pub fn to_json_objects(&self) -> Vec<Value> {
        let mut objects = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let names = self.columns.iter().cloned();
            let object: Map<String, Value> = names.zip(row.iter().cloned()).collect();
            objects.push(Value::Object(object));
        }

        objects
    }

    /// Formats a JSON document with facts about the rows, and the rows, one object per line. Facts that are null are left out.
    pub fn to_json_document(&self, facts: &[(&str, Value)]) -> String {
        let known = facts.iter().filter(|(_, fact)| !fact.is_null());
        let lines = known.map(|(name, fact)| format!("  \"{name}\": {fact},\n"));
        format!(
            "{{\n{}  \"rows\": [\n{}\n  ]\n}}\n",
            lines.collect::<String>(),
            self.to_json_lines()
        )
    }

    /// Formats a JSON list, one object per line.
    pub fn to_json(&self) -> String {
        let lines: Vec<String> = self
            .to_json_objects()
            .iter()
            .map(|object| format!("  {object}"))
            .collect();
        if lines.is_empty() {
            "[]\n".to_owned()
        } else {
            format!("[\n{}\n]\n", lines.join(",\n"))
        }
    }

    /// Formats comma-separated values; null is empty.
    pub fn to_csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let names = self.columns.iter().map(|name| escape_formula(name));
        let written = writer.write_record(names).and_then(|()| {
            self.rows
                .iter()
                .try_for_each(|row| writer.write_record(row.iter().map(format_csv_field)))
        });
        written.expect("records of equal length can be written to memory");

        let bytes = writer.into_inner().expect("memory can be flushed");
        String::from_utf8(bytes).expect("values are text")
    }

    /// Formats a Markdown table for people.
    pub fn to_markdown(&self) -> String {
        let header = self.columns.iter().map(|name| escape_line(name));
        let mut out = markdown_line(header);
        out += &markdown_line(self.columns.iter().map(|_| "---"));
        for row in self.format_cells("") {
            out += &markdown_line(row.iter());
        }

        out
    }

    /// Formats all values for people, with `none` for missing ones.
    pub fn format_cells(&self, none: &str) -> Vec<Vec<String>> {
        let axes: Vec<_> = (0..self.key_columns)
            .map(|at| build_column_formatter(self.rows.iter().filter_map(move |row| row.get(at))))
            .collect();
        let mut rows = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let cells = row
                .iter()
                .enumerate()
                .map(|(at, value)| match axes.get(at) {
                    _ if value.is_null() => none.to_owned(),
                    Some(write) => write(value),
                    None => format_cell_value(value),
                });
            rows.push(cells.collect());
        }

        rows
    }
}

/// Renders rows in a format; `human` renders them for people.
pub fn render_table_data(
    data: &TableData,
    format: TextFormat,
    human: impl FnOnce(&TableData) -> String,
) -> String {
    match format {
        TextFormat::Table => human(data),
        TextFormat::Json => data.to_json(),
        TextFormat::Csv => data.to_csv(),
        TextFormat::Md => data.to_markdown(),
        TextFormat::Latex => render_latex_data(data),
    }
}

fn markdown_line(cells: impl Iterator<Item = impl AsRef<str>>) -> String {
    let cells: Vec<String> = cells.map(|text| escape_markdown(text.as_ref())).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// Formats a value for CSV. Text can neither be a formula nor move a cursor.
fn format_csv_field(value: &Value) -> String {
    match value {
        Value::String(text) => escape_formula(text),
        other => format_unquoted(other),
    }
}

/// Escapes text that spreadsheets would take for a formula, unless it is a number.
fn escape_formula(text: &str) -> String {
    let is_formula =
        text.starts_with(['=', '+', '-', '@', '\t', '\r']) && text.parse::<f64>().is_err();
    format!("{}{}", if is_formula { "'" } else { "" }, escape_line(text))
}

/// Formats a value without quotes.
pub fn format_unquoted(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::client::render::table_data::*;

    #[test]
    fn every_format_says_the_same() {
        let records = TableData {
            columns: vec!["lr".into(), "why".into()],
            rows: vec![
                vec![json!(0.1), json!("a, \"b\"")],
                vec![Value::Null, json!("x|y")],
            ],
            key_columns: 1,
        };
        assert_eq!(records.to_csv(), "lr,why\n0.1,\"a, \"\"b\"\"\"\n,x|y\n");

        assert_eq!(
            records.to_markdown(),
            "| lr | why |\n| --- | --- |\n| 0.1 | a, \"b\" |\n|  | x\\|y |\n"
        );
        let back: Value = serde_json::from_str(&records.to_json()).expect("valid JSON");
        assert_eq!(back[1]["lr"], Value::Null);

        assert_eq!(TableData::default().to_json(), "[]\n");
    }

    #[test]
    fn text_is_no_formula_and_moves_no_cursor() {
        let cells = [
            "=1+1",
            "@x",
            "+a",
            "-rm",
            "\tx",
            "-0.5",
            "+1e-3",
            "-inf",
            "a=b",
            "\u{1b}[2Jx\u{202e}",
            "a\nb",
        ];
        let rows = cells
            .iter()
            .map(|text| vec![json!(-1.5), json!(text)])
            .collect();
        let records = TableData {
            columns: vec!["=lr".into(), "why".into()],
            rows,
            key_columns: 1,
        };
        let csv = records.to_csv();
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        assert_eq!(reader.headers().expect("a header").get(0), Some("'=lr"));

        let read: Vec<String> = reader
            .records()
            .map(|row| row.expect("a row")[1].to_owned())
            .collect();
        let wanted = [
            "'=1+1",
            "'@x",
            "'+a",
            "'-rm",
            "'\\tx",
            "-0.5",
            "+1e-3",
            "-inf",
            "a=b",
            "\\u001b[2Jx\\u202e",
            "a\\nb",
        ];
        assert_eq!(read, wanted);

        assert!(csv.contains("\n-1.5,") && !csv.contains('\u{1b}'), "{csv}");
        let markdown = records.to_markdown();
        assert!(
            markdown.contains("| -1.5 | a\\nb |") && !markdown.contains('\u{1b}'),
            "{markdown}"
        );
    }

    #[test]
    fn numbers_for_people_are_told_apart_and_machines_get_every_digit() {
        let line: Vec<f64> = (0..64)
            .map(|i| 1.999 + 0.002 * f64::from(i) / 63.0)
            .collect();
        let rows = line
            .iter()
            .map(|x| vec![json!(x), json!(1e-7 * x), json!(1.0 / 3.0)])
            .collect();
        let records = TableData {
            columns: ["lr", "wd", "mean"].map(str::to_owned).to_vec(),
            rows,
            key_columns: 2,
        };
        for text in [
            records.to_markdown(),
            crate::client::render::render_latex_data(&records),
        ] {
            let mut shown: Vec<&str> = text
                .lines()
                .filter(|line| line.contains("0.333333"))
                .collect();
            shown.sort_unstable();
            shown.dedup();

            assert_eq!(shown.len(), 64, "{text}");
            assert!(
                !text.contains("0.3333333") && !text.contains("0.000000"),
                "{text}"
            );
        }

        let csv = records.to_csv();
        for (x, row) in line.iter().zip(csv.lines().skip(1)) {
            assert_eq!(
                row.split(',').next().and_then(|text| text.parse().ok()),
                Some(*x)
            );
        }
    }
}
