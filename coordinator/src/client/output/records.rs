//! Rows of named values, printed for machines.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Columns and rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Records {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// One value per column; null where there is none.
    pub rows: Vec<Vec<Value>>,
}

impl Records {
    /// One object per row.
    pub fn objects(&self) -> Vec<Value> {
        let object = |row: &Vec<Value>| {
            Value::Object(self.columns.iter().cloned().zip(row.iter().cloned()).collect::<Map<String, Value>>())
        };
        self.rows.iter().map(object).collect()
    }

    /// A JSON list, one object per line.
    pub fn json(&self) -> String {
        let lines: Vec<String> = self.objects().iter().map(|object| format!("  {object}")).collect();
        if lines.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", lines.join(",\n")) }
    }

    /// Comma-separated values; null is empty.
    pub fn csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let written = writer
            .write_record(&self.columns)
            .and_then(|()| self.rows.iter().try_for_each(|row| writer.write_record(row.iter().map(plain))));
        written.expect("records of equal length can be written to memory");
        let bytes = writer.into_inner().expect("memory can be flushed");
        String::from_utf8(bytes).expect("values are text")
    }

    /// A Markdown table.
    pub fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut out = line(self.columns.clone());
        out += &line(self.columns.iter().map(|_| "---".to_owned()).collect());
        for row in &self.rows {
            let _ = write!(out, "{}", line(row.iter().map(|v| plain(v).replace('|', "\\|")).collect()));
        }
        out
    }
}

/// A value without quotes.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_format_says_the_same() {
        let records = Records {
            columns: vec!["lr".into(), "why".into()],
            rows: vec![vec![json!(0.1), json!("a, \"b\"")], vec![Value::Null, json!("x|y")]],
        };
        assert_eq!(records.csv(), "lr,why\n0.1,\"a, \"\"b\"\"\"\n,x|y\n");
        assert_eq!(records.markdown(), "| lr | why |\n| --- | --- |\n| 0.1 | a, \"b\" |\n|  | x\\|y |\n");
        let back: Value = serde_json::from_str(&records.json()).expect("valid JSON");
        assert_eq!(back[1]["lr"], Value::Null);
        assert_eq!(Records::default().json(), "[]\n");
    }
}
