//! What a dataset is, in `manifest.json`: which files belong to it, what they were computed from and by whom, and up to where it goes.

use std::collections::BTreeMap;

use arrow_schema::{DataType, Schema};
use ergodic_common::spec::SpecSource;
use ergodic_common::trial::hex;
use ergodic_common::{BUILD, Spec};
use ergodic_proto::v1;
use serde::{Deserialize, Serialize};

/// The version of the schema: raised by one when a reader of the one before could misunderstand a table or the manifest.
pub(super) const VERSION: u32 = 1;
const FORMAT: &str = "ergodic dataset";
/// The revision of the sources that this program was built from, where whoever built it said so.
const REVISION: Option<&str> = option_env!("ERGODIC_GIT_REVISION");

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: String,
    pub(super) version: u32,
    /// How often the dataset was committed.
    pub(super) serial: u64,
    pub(super) sweep: Sweep,
    pub(super) data: Data,
    pub(super) builds: Builds,
    /// Names of workers, with the trials of each.
    pub(super) hosts: BTreeMap<String, u64>,
    /// Whether every trial of the sweep has its row.
    pub(super) complete: bool,
    pub(super) cursor: Cursor,
    pub(super) tables: BTreeMap<String, Table>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Sweep {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) numerics: String,
    pub(super) seed: u64,
    pub(super) cells: u64,
    pub(super) repeats: u32,
    pub(super) trials: u64,
    pub(super) launched_at: f64,
    pub(super) spec: SpecFile,
}

/// The sweep file with what was set besides.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SpecFile {
    pub(super) file: String,
    pub(super) text: String,
    pub(super) settings: Vec<String>,
    /// Files that it names, with the BLAKE3 of their content.
    pub(super) files: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Data {
    pub(super) words: String,
    /// BLAKE3 of the canonical form.
    pub(super) blake3: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Builds {
    /// Of the coordinator that the rows came from, when they were last asked for.
    pub(super) coordinator: String,
    /// Of the program that wrote the dataset.
    pub(super) export: String,
    pub(super) git_revision: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    pub(super) row: u64,
    /// 16 hex digits.
    pub(super) print: String,
    /// Rows of `trials`.
    pub(super) rows: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Table {
    pub(super) rows: u64,
    pub(super) columns: Vec<Column>,
    pub(super) parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Column {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) nullable: bool,
}

/// A file of the dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// Relative to the manifest.
    pub(super) path: String,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// The tables of a dataset, in the order in which people look at them.
pub(super) const TABLES: [&str; 4] = ["cells", "trials", "curves", "predictions"];

impl Manifest {
    /// That of a dataset without parts.
    pub(super) fn new(head: &v1::RowsHead, status: &v1::SweepStatus, source: &SpecSource, spec: &Spec) -> Self {
        let files = source.files.iter().map(|pin| (pin.path.clone(), hex(&pin.hash))).collect();
        let sweep = Sweep {
            id: status.id.clone(),
            name: status.name.clone(),
            numerics: status.numerics.clone(),
            seed: spec.seed,
            cells: status.cells,
            repeats: status.repeats,
            trials: status.trials,
            launched_at: status.launched_at,
            spec: SpecFile {
                file: source.file.clone(),
                text: source.text.clone(),
                settings: source.settings.clone(),
                files,
            },
        };
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            serial: 0,
            sweep,
            data: Data { words: status.data.clone(), blake3: head.data_hash.as_ref().map(|hash| hex(hash)) },
            builds: Builds {
                coordinator: head.build.clone(),
                export: BUILD.to_owned(),
                git_revision: REVISION.map(str::to_owned),
            },
            hosts: BTreeMap::new(),
            complete: false,
            cursor: Cursor::default(),
            tables: BTreeMap::new(),
        }
    }

    /// Reads one; what is wrong with it, in words.
    pub(super) fn read(text: &[u8]) -> Result<Self, String> {
        /// What a manifest of any version says.
        #[derive(Deserialize)]
        struct Any {
            format: String,
            version: u32,
        }
        let any: Any = serde_json::from_slice(text).map_err(|e| format!("it is no manifest of a dataset: {e}"))?;
        if any.format != FORMAT {
            return Err(format!("it is no manifest of a dataset: its format is '{}'", any.format));
        }
        if any.version != VERSION {
            return Err(format!("it is of version {}, this program writes {VERSION}", any.version));
        }
        serde_json::from_slice(text).map_err(|e| format!("it is damaged: {e}"))
    }

    pub(super) fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("texts, numbers and lists are JSON");
        text.push(b'\n');
        text
    }

    /// Adds a part to a table.
    pub(super) fn add(&mut self, table: &str, schema: &Schema, part: Option<Part>) {
        let empty = || Table { rows: 0, columns: columns(schema), parts: Vec::new() };
        let table = self.tables.entry(table.to_owned()).or_insert_with(empty);
        table.rows += part.as_ref().map_or(0, |part| part.rows);
        table.parts.extend(part);
    }

    /// All parts.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.tables.values().flat_map(|table| &table.parts)
    }

    /// The paths of all parts.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.parts().map(|part| part.path.as_str())
    }
}

impl Cursor {
    pub(super) fn of(cursor: v1::Cursor, rows: u64) -> Self {
        Self { row: cursor.row, print: format!("{:016x}", cursor.print), rows }
    }

    pub(super) fn to_wire(&self) -> Option<v1::Cursor> {
        Some(v1::Cursor { row: self.row, print: u64::from_str_radix(&self.print, 16).ok()? })
    }
}

fn columns(schema: &Schema) -> Vec<Column> {
    let kind = |kind: &DataType| match kind {
        DataType::Int16 => "int16",
        DataType::Int32 => "int32",
        DataType::Int64 => "int64",
        DataType::Float64 => "float64",
        DataType::Boolean => "boolean",
        _ => "string",
    };
    let column = |field: &std::sync::Arc<arrow_schema::Field>| Column {
        name: field.name().clone(),
        kind: kind(field.data_type()).to_owned(),
        nullable: field.is_nullable(),
    };
    schema.fields().iter().map(column).collect()
}
