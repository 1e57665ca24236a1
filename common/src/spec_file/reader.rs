//! Reads typed fields from the untyped tree. Every error names the field, and every unknown key its
//! nearest neighbour.

use std::cell::RefCell;

use crate::pinned_file::{FilePin, SAFETENSORS_SUFFIX};
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::grammar::ReadingMode;
use crate::spec_file::node::{SpecNode, SpecTable, SpecValue};
use crate::spec_file::suggest::suggest_nearest;

/// The range of numbers that a field accepts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NumberRange {
    /// Smallest accepted value.
    pub low: f64,
    /// Largest accepted value.
    pub high: f64,
    /// Whether `low` itself is excluded.
    pub excludes_low: bool,
    /// Whether `high` itself is excluded.
    pub excludes_high: bool,
    /// Whether only whole numbers are accepted.
    pub is_whole: bool,
}

impl NumberRange {
    /// All finite numbers.
    pub const FINITE: Self = Self {
        low: f64::MIN,
        ..Self::NON_NEGATIVE
    };
    /// Real numbers ≥ 0.
    pub const NON_NEGATIVE: Self = Self {
        low: 0.0,
        high: f64::MAX,
        excludes_low: false,
        excludes_high: false,
        is_whole: false,
    };
    /// Real numbers > 0.
    pub const POSITIVE: Self = Self {
        excludes_low: true,
        ..Self::NON_NEGATIVE
    };
    /// Real numbers in [0, 1).
    pub const FRACTION: Self = Self {
        high: 1.0,
        excludes_high: true,
        ..Self::NON_NEGATIVE
    };

    /// Whole numbers from `low` to `high`.
    pub const fn whole_numbers(low: u64, high: u64) -> Self {
        Self {
            low: low as f64,
            high: high as f64,
            excludes_low: false,
            excludes_high: false,
            is_whole: true,
        }
    }

    /// Whether the range holds `x`.
    pub fn contains(&self, x: f64) -> bool {
        let low = if self.excludes_low {
            x > self.low
        } else {
            x >= self.low
        };

        let high = if self.excludes_high {
            x < self.high
        } else {
            x <= self.high
        };
        x.is_finite() && low && high && (!self.is_whole || x.fract() == 0.0)
    }

    /// Describes the range in words.
    pub fn describe(&self) -> String {
        let kind = if self.is_whole {
            "a whole number"
        } else {
            "a finite number"
        };

        if self.low == f64::MIN {
            return kind.to_owned();
        }

        let low = format!(
            "{} {}",
            if self.excludes_low { ">" } else { ">=" },
            self.low
        );

        if self.high == f64::MAX {
            return format!("{kind} {low}");
        }

        format!(
            "{kind} {low} and {} {}",
            if self.excludes_high { "<" } else { "<=" },
            self.high
        )
    }
}

/// The largest number up to which `f64` holds every whole number exactly.
const MAX_EXACT_INTEGER: u64 = 1 << 53;

/// Reads a table. Reading a key marks it as known; [`TableReader::refuse_unknown_keys`] refuses the
/// keys that were never read.
pub struct TableReader<'a> {
    table: &'a SpecTable,
    origin: Origin,
    path: String,
    known_keys: RefCell<Vec<&'static str>>,
    files: &'a [FilePin],
    reading_mode: ReadingMode,
}

static EMPTY_TABLE: SpecTable = SpecTable(Vec::new());

impl<'a> TableReader<'a> {
    /// Creates a reader of the whole document.
    pub fn from_document(table: &'a SpecTable, reading_mode: ReadingMode) -> Self {
        Self {
            table,
            origin: Origin::Default,
            path: String::new(),
            known_keys: RefCell::default(),
            files: &[],
            reading_mode,
        }
    }

    /// Returns the reader for a document that names `files`.
    pub fn with_files(self, files: &'a [FilePin]) -> Self {
        Self { files, ..self }
    }

    /// Creates a reader of the table under `key`; an absent one reads as empty.
    ///
    /// # Errors
    /// The value is not a table.
    pub fn section(&self, key: &'static str) -> Result<Self, SpecError> {
        let path = self.path_to(key);
        let known = RefCell::default();
        let files = self.files;
        let reading = self.reading_mode;

        match self.read_node(key) {
            None => Ok(Self {
                table: &EMPTY_TABLE,
                origin: self.origin.clone(),
                path,
                known_keys: known,
                files,
                reading_mode: reading,
            }),
            Some(SpecNode {
                value: SpecValue::Table(table),
                origin: place,
            }) => Ok(Self {
                table,
                origin: place.clone(),
                path,
                known_keys: known,
                files,
                reading_mode: reading,
            }),
            Some(node) => Err(SpecError::new(
                node.origin.clone(),
                path,
                format!(
                    "expected a table like {{ … }}, found {}",
                    node.value.describe()
                ),
            )),
        }
    }

    /// Creates a reader of `table`, an element of a list, under the name `path`.
    pub fn from_list_element(
        table: &'a SpecTable,
        place: &Origin,
        path: String,
        reading_mode: ReadingMode,
    ) -> Self {
        Self {
            table,
            origin: place.clone(),
            path,
            known_keys: RefCell::default(),
            files: &[],
            reading_mode,
        }
    }

    /// The mode in which the document is read.
    pub fn reading_mode(&self) -> ReadingMode {
        self.reading_mode
    }

    /// Refuses the value of `key`, which earlier versions of this program accepted, unless the
    /// sweep is stored.
    ///
    /// # Errors
    /// The sweep is new.
    pub fn refuse_if_new(
        &self,
        key: &str,
        message: impl FnOnce() -> String,
    ) -> Result<(), SpecError> {
        self.reading_mode
            .refuse_if_new(|| self.error_at(key, message()))
    }

    /// The value under `key`, which is marked as known.
    pub fn read_node(&self, key: &'static str) -> Option<&'a SpecNode> {
        let mut known = self.known_keys.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        drop(known);
        self.table.get(key)
    }

    /// The dotted path of `key` in this table.
    pub fn path_to(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The dotted path of this table.
    pub fn table_path(&self) -> &str {
        &self.path
    }

    /// Creates an error at `key`, or at the table itself if `key` is absent.
    pub fn error_at(&self, key: &str, message: impl Into<String>) -> SpecError {
        let place = self
            .table
            .get(key)
            .map_or_else(|| self.origin.clone(), |node| node.origin.clone());
        SpecError::new(place, self.path_to(key), message)
    }

    /// Reads a number within `range`.
    ///
    /// # Errors
    /// The value is not such a number.
    pub fn read_number(
        &self,
        key: &'static str,
        range: NumberRange,
    ) -> Result<Option<f64>, SpecError> {
        let Some(node) = self.read_node(key) else {
            return Ok(None);
        };
        match node.value.as_f64() {
            Some(x) if range.contains(x) => Ok(Some(x)),
            _ => Err(self.error_at(
                key,
                format!(
                    "expected {}, found {}",
                    range.describe(),
                    quote_value(&node.value)
                ),
            )),
        }
    }

    /// Reads a whole number within `range`.
    ///
    /// # Errors
    /// The value is not such a number.
    pub fn read_whole_number(
        &self,
        key: &'static str,
        range: NumberRange,
    ) -> Result<Option<u64>, SpecError> {
        debug_assert!(
            range.is_whole,
            "a whole number needs a range of whole numbers"
        );
        let found = self.read_number(key, range)?.map(|x| x as u64);

        // Numbers are read as `f64`, which rounds some integers beyond 2^53 to their neighbours.
        let rounded = match self.table.get(key).map(|node| &node.value) {
            Some(SpecValue::Int(i)) => u64::try_from(*i).ok() != found,
            Some(SpecValue::Float(x)) => *x >= MAX_EXACT_INTEGER as f64,
            _ => false,
        };
        if rounded {
            let message = || {
                format!(
                    "expected {}, written without a point or exponent and at most {MAX_EXACT_INTEGER}",
                    range.describe()
                )
            };
            self.refuse_if_new(key, message)?;
        }

        Ok(found)
    }

    /// Reads `true` or `false`.
    ///
    /// # Errors
    /// The value is neither.
    pub fn read_bool(&self, key: &'static str) -> Result<Option<bool>, SpecError> {
        match self.read_node(key).map(|n| &n.value) {
            None => Ok(None),
            Some(SpecValue::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(self.error_at(
                key,
                format!("expected true or false, found {}", quote_value(other)),
            )),
        }
    }

    /// Reads a string.
    ///
    /// # Errors
    /// The value is not a string.
    pub fn read_str(&self, key: &'static str) -> Result<Option<&'a str>, SpecError> {
        match self.read_node(key).map(|n| &n.value) {
            None => Ok(None),
            Some(SpecValue::Str(s)) => Ok(Some(s)),
            Some(other) => Err(self.error_at(
                key,
                format!("expected a string, found {}", quote_value(other)),
            )),
        }
    }

    /// Reads one of these words and returns its value.
    ///
    /// # Errors
    /// The value is another word; the message suggests the nearest known one.
    pub fn read_word<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Result<Option<T>, SpecError> {
        let Some(text) = self.read_str(key)? else {
            return Ok(None);
        };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => {
                let known = words.iter().map(|(word, _)| *word);
                let hint = suggest_nearest(text, known.clone());
                let error = self.error_at(key, format!("unknown value '{text}', {hint}"));
                Err(error.with_unknown(text, known))
            }
        }
    }

    /// Reads a list, whose elements the caller reads.
    ///
    /// # Errors
    /// The value is not a list.
    pub fn read_list(&self, key: &'static str) -> Result<Option<&'a [SpecNode]>, SpecError> {
        match self.read_node(key).map(|n| &n.value) {
            None => Ok(None),
            Some(SpecValue::List(items)) => Ok(Some(items)),
            Some(other) => Err(self.error_at(
                key,
                format!("expected a list, found {}", quote_value(other)),
            )),
        }
    }

    /// Reads the path of a file and returns the pinned file.
    ///
    /// # Errors
    /// The value is not a path, or the file was not pinned.
    pub fn read_file(&self, key: &'static str) -> Result<Option<&'a FilePin>, SpecError> {
        let Some(path) = self.read_str(key)? else {
            return Ok(None);
        };
        if !path.ends_with(SAFETENSORS_SUFFIX) {
            return Err(self.error_at(
                key,
                format!("expected the path of a {SAFETENSORS_SUFFIX} file, found '{path}'"),
            ));
        }

        let pin = self.find_pinned_file(path);
        pin.map(Some).ok_or_else(|| {
            self.error_at(
                key,
                format!("the file '{path}' did not come with the sweep file"),
            )
        })
    }

    /// The pinned file of a path, if there is one.
    pub fn find_pinned_file(&self, path: &str) -> Option<&'a FilePin> {
        self.files.iter().find(|pin| pin.path == path)
    }

    /// The entries of a table whose keys are names; an absent table has none.
    ///
    /// # Errors
    /// The value is not a table.
    pub fn read_table_entries(
        &self,
        key: &'static str,
    ) -> Result<&'a [(String, SpecNode)], SpecError> {
        Ok(&self.section(key)?.table.0)
    }

    /// Refuses the keys that were never read, because they are unknown.
    ///
    /// # Errors
    /// A key was never read.
    pub fn refuse_unknown_keys(&self) -> Result<(), SpecError> {
        let known = self.known_keys.borrow();
        match self
            .table
            .0
            .iter()
            .find(|(key, _)| !known.contains(&key.as_str()))
        {
            None => Ok(()),
            Some((key, _)) => {
                let hint = suggest_nearest(key, known.iter().copied());
                let error = self.error_at(key, format!("unknown key '{key}', {hint}"));
                Err(error.with_unknown(key, known.iter().copied()))
            }
        }
    }
}

/// Quotes a value for an error.
pub fn quote_value(value: &SpecValue) -> String {
    match value {
        SpecValue::Str(s) => format!("'{s}'"),
        other => other.describe(),
    }
}
