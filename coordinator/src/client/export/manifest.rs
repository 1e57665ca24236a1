//! The manifest of a dataset, `manifest.json`: its files, the origin of its rows, and the cursor
//! after them.

use std::collections::BTreeMap;

use arrow_schema::{DataType, Schema};
use ergodic_common::spec::SpecSource;
use ergodic_common::{BUILD, Spec};
use ergodic_proto::v1;
use serde::{Deserialize, Serialize};

/// Version of the schema. It is raised by one when a reader of the version before could
/// misunderstand a table or the manifest.
pub(super) const DATASET_VERSION: u32 = 1;
const FORMAT: &str = "ergodic dataset";
/// Revision of the sources of this program, if the build knew it (`build.rs`).
const REVISION: Option<&str> = option_env!("ERGODIC_GIT_REVISION");

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::client) struct Manifest {
    pub(in crate::client) format: String,
    pub(in crate::client) version: u32,
    /// The number of commits of the dataset.
    pub(in crate::client) serial: u64,
    pub(in crate::client) sweep: ManifestSweep,
    pub(in crate::client) data: ManifestData,
    pub(in crate::client) builds: ManifestBuilds,
    /// The columns of quantities, with the texts that define them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(in crate::client) quantities: BTreeMap<String, String>,
    /// Names of workers, with their numbers of trials.
    pub(in crate::client) hosts: BTreeMap<String, u64>,
    /// Whether every trial of the sweep has a row.
    pub(in crate::client) complete: bool,
    pub(in crate::client) cursor: ManifestCursor,
    pub(in crate::client) tables: BTreeMap<String, ManifestTable>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::client) struct ManifestSweep {
    pub(in crate::client) id: String,
    pub(in crate::client) name: String,
    pub(in crate::client) numerics: String,
    pub(in crate::client) seed: u64,
    pub(in crate::client) cells: u64,
    pub(in crate::client) repeats: u32,
    pub(in crate::client) trials: u64,
    pub(in crate::client) launched_at: f64,
    /// The user who launched the sweep; empty if unknown.
    #[serde(default)]
    pub(in crate::client) launched_by: String,
    pub(in crate::client) spec: ManifestSpecFile,
}

/// The sweep file with the settings of its launch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::client) struct ManifestSpecFile {
    pub(in crate::client) file: String,
    pub(in crate::client) text: String,
    pub(in crate::client) settings: Vec<String>,
    /// The version of the grammar in which the file is read.
    #[serde(default = "first_grammar")]
    pub(in crate::client) grammar: u32,
    /// Files that the sweep file names, with the BLAKE3 hash of their content.
    pub(in crate::client) files: BTreeMap<String, String>,
}

/// The grammar of datasets that do not name one.
fn first_grammar() -> u32 {
    1
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::client) struct ManifestData {
    pub(in crate::client) words: String,
    /// BLAKE3 hash of the canonical encoding of the dataset.
    pub(in crate::client) blake3: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::client) struct ManifestBuilds {
    /// Build of the coordinator that sent the last rows.
    pub(in crate::client) coordinator: String,
    /// Build of the program that wrote the dataset.
    pub(in crate::client) export: String,
    pub(in crate::client) git_revision: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::client) struct ManifestCursor {
    pub(in crate::client) row: u64,
    /// Fingerprint of all rows up to the last one: 16 hex digits.
    pub(in crate::client) print: String,
    /// Number of rows of `trials`.
    pub(in crate::client) rows: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::client) struct ManifestTable {
    pub(in crate::client) rows: u64,
    pub(in crate::client) columns: Vec<ManifestColumn>,
    pub(in crate::client) parts: Vec<DatasetPart>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::client) struct ManifestColumn {
    pub(in crate::client) name: String,
    #[serde(rename = "type")]
    pub(in crate::client) kind: String,
    pub(in crate::client) nullable: bool,
}

/// A file of the dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::client) struct DatasetPart {
    /// Path of the file, relative to the manifest.
    pub(in crate::client) path: String,
    pub(in crate::client) rows: u64,
    pub(in crate::client) bytes: u64,
    pub(in crate::client) sha256: String,
}

/// The tables of a dataset, in the order in which people look at them.
pub(in crate::client) const TABLES: [&str; 4] = ["cells", "trials", "curves", "predictions"];

impl Manifest {
    /// Creates the manifest of a dataset without parts.
    pub(super) fn new(
        head: &v1::RowsHead,
        status: &v1::SweepStatus,
        source: &SpecSource,
        spec: &Spec,
    ) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: DATASET_VERSION,
            serial: 0,
            sweep: ManifestSweep::from_status(status, source, spec),
            data: ManifestData {
                words: status.data.clone(),
                blake3: head.data_hash.as_ref().map(hex::encode),
            },
            builds: ManifestBuilds {
                coordinator: head.build.clone(),
                export: BUILD.to_owned(),
                git_revision: REVISION.map(str::to_owned),
            },
            quantities: BTreeMap::new(),
            hosts: BTreeMap::new(),
            complete: false,
            cursor: ManifestCursor::default(),
            tables: BTreeMap::new(),
        }
    }

    /// Parses a manifest. The error is a message for the user.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        /// The fields that manifests of all versions have.
        #[derive(Deserialize)]
        struct ManifestHeader {
            format: String,
            version: u32,
        }

        let any: ManifestHeader = serde_json::from_slice(text)
            .map_err(|e| format!("it is not the manifest of a dataset: {e}"))?;
        if any.format != FORMAT {
            return Err(format!(
                "it is not the manifest of a dataset: its format is '{}'",
                any.format
            ));
        }

        if any.version != DATASET_VERSION {
            return Err(format!(
                "it has version {}, this program writes version {DATASET_VERSION}",
                any.version
            ));
        }

        serde_json::from_slice(text).map_err(|e| format!("it is damaged: {e}"))
    }

    pub(super) fn to_json_bytes(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("texts, numbers and lists are JSON");
        text.push(b'\n');
        text
    }

    /// Adds a part to a table.
    pub(super) fn add_part(&mut self, table: &str, schema: &Schema, part: Option<DatasetPart>) {
        let table = self
            .tables
            .entry(table.to_owned())
            .or_insert_with(|| ManifestTable {
                rows: 0,
                columns: describe_columns(schema),
                parts: Vec::new(),
            });
        table.rows += part.as_ref().map_or(0, |part| part.rows);
        table.parts.extend(part);
    }

    /// Whether a table has rows with exactly these columns, or is not there yet.
    pub(super) fn has_columns(&self, table: &str, schema: &Schema) -> bool {
        let table = self.tables.get(table);
        table.is_none_or(|table| table.columns == describe_columns(schema))
    }

    /// All parts of all tables.
    pub(super) fn parts(&self) -> impl Iterator<Item = &DatasetPart> {
        self.tables.values().flat_map(|table| &table.parts)
    }

    /// The paths of all parts.
    pub(super) fn part_paths(&self) -> impl Iterator<Item = &str> {
        self.parts().map(|part| part.path.as_str())
    }
}

impl ManifestSweep {
    fn from_status(status: &v1::SweepStatus, source: &SpecSource, spec: &Spec) -> Self {
        Self {
            id: status.id.clone(),
            name: status.name.clone(),
            numerics: status.numerics.clone(),
            seed: spec.seed,
            cells: status.cells,
            repeats: status.repeats,
            trials: status.trials,
            launched_at: status.launched_at,
            launched_by: status.launched_by.clone(),
            spec: ManifestSpecFile::from_source(source),
        }
    }
}

impl ManifestSpecFile {
    fn from_source(source: &SpecSource) -> Self {
        let files = source.files.iter();
        Self {
            file: source.file.clone(),
            text: source.text.clone(),
            settings: source.settings.clone(),
            grammar: source.grammar,
            files: files
                .map(|pin| (pin.path.clone(), pin.hash.to_string()))
                .collect(),
        }
    }
}

impl ManifestCursor {
    pub(super) fn from_wire(cursor: v1::Cursor, rows: u64) -> Self {
        Self {
            row: cursor.row,
            print: format!("{:016x}", cursor.fingerprint),
            rows,
        }
    }

    pub(super) fn to_wire(&self) -> Option<v1::Cursor> {
        Some(v1::Cursor {
            row: self.row,
            fingerprint: u64::from_str_radix(&self.print, 16).ok()?,
        })
    }
}

impl ManifestColumn {
    /// The type of the column.
    #[cfg(feature = "sql")]
    pub(in crate::client) fn data_type(&self) -> DataType {
        match self.kind.as_str() {
            "int16" => DataType::Int16,
            "int32" => DataType::Int32,
            "int64" => DataType::Int64,
            "float64" => DataType::Float64,
            "boolean" => DataType::Boolean,
            _ => DataType::Utf8,
        }
    }
}

fn describe_columns(schema: &Schema) -> Vec<ManifestColumn> {
    let mut columns = Vec::new();
    for field in schema.fields() {
        columns.push(ManifestColumn {
            name: field.name().clone(),
            kind: type_name(field.data_type()).to_owned(),
            nullable: field.is_nullable(),
        });
    }

    columns
}

fn type_name(kind: &DataType) -> &'static str {
    match kind {
        DataType::Int16 => "int16",
        DataType::Int32 => "int32",
        DataType::Int64 => "int64",
        DataType::Float64 => "float64",
        DataType::Boolean => "boolean",
        _ => "string",
    }
}
