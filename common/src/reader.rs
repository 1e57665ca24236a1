//! Reading typed fields out of the untyped tree: every error names the field, every unknown key its nearest neighbour.

use std::cell::RefCell;

use crate::error::{SpecError, nearest};
use crate::grammar::Reading;
use crate::pin::{ENDING, FilePin};
use crate::tree::{Node, Place, Table, Value};

/// The numbers a field accepts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Smallest accepted value.
    pub low: f64,
    /// Largest accepted value.
    pub high: f64,
    /// Whether `low` itself is excluded.
    pub above: bool,
    /// Whether `high` itself is excluded.
    pub below: bool,
    /// Whether only whole numbers are accepted.
    pub whole: bool,
}

impl Range {
    /// A real number ≥ 0.
    pub const NON_NEGATIVE: Self = Self { low: 0.0, high: f64::MAX, above: false, below: false, whole: false };
    /// A real number > 0.
    pub const POSITIVE: Self = Self { above: true, ..Self::NON_NEGATIVE };
    /// A real number in [0, 1).
    pub const FRACTION: Self = Self { high: 1.0, below: true, ..Self::NON_NEGATIVE };

    /// A whole number from `low` to `high`.
    pub const fn whole(low: u64, high: u64) -> Self {
        Self { low: low as f64, high: high as f64, above: false, below: false, whole: true }
    }

    /// Whether the range holds `x`.
    pub fn holds(&self, x: f64) -> bool {
        let low = if self.above { x > self.low } else { x >= self.low };
        let high = if self.below { x < self.high } else { x <= self.high };
        x.is_finite() && low && high && (!self.whole || x.fract() == 0.0)
    }

    /// The range in words.
    pub fn describe(&self) -> String {
        let kind = if self.whole { "a whole number" } else { "a finite number" };
        let low = format!("{} {}", if self.above { ">" } else { ">=" }, self.low);
        if self.high == f64::MAX {
            return format!("{kind} {low}");
        }
        format!("{kind} {low} and {} {}", if self.below { "<" } else { "<=" }, self.high)
    }
}

/// The largest whole number up to which all are exact.
const EXACT: u64 = 1 << 53;

/// A table being read. Asking for a key makes it known; [`Reader::finish`] refuses the keys nobody asked for.
pub struct Reader<'a> {
    table: &'a Table,
    place: Place,
    path: String,
    known: RefCell<Vec<&'static str>>,
    files: &'a [FilePin],
    reading: Reading,
}

static EMPTY: Table = Table(Vec::new());

impl<'a> Reader<'a> {
    /// Reads the whole document.
    pub fn root(table: &'a Table, reading: Reading) -> Self {
        Self { table, place: Place::Default, path: String::new(), known: RefCell::default(), files: &[], reading }
    }

    /// The same, for a document that names these files.
    pub fn with_files(self, files: &'a [FilePin]) -> Self {
        Self { files, ..self }
    }

    /// Reads the table under `key`; an absent one reads as empty.
    ///
    /// # Errors
    /// Something other than a table stands there.
    pub fn section(&self, key: &'static str) -> Result<Self, SpecError> {
        let path = self.path_of(key);
        let (known, files, reading) = (RefCell::default(), self.files, self.reading);
        match self.node(key) {
            None => Ok(Self { table: &EMPTY, place: self.place.clone(), path, known, files, reading }),
            Some(Node { value: Value::Table(table), place }) => {
                Ok(Self { table, place: place.clone(), path, known, files, reading })
            }
            Some(node) => Err(SpecError::new(
                node.place.clone(),
                path,
                format!("expected a table like {{ … }}, found {}", node.value.describe()),
            )),
        }
    }

    /// Reads `table`, an element of a list, under the name `path`.
    pub fn element(table: &'a Table, place: &Place, path: String, reading: Reading) -> Self {
        Self { table, place: place.clone(), path, known: RefCell::default(), files: &[], reading }
    }

    /// How the document is read.
    pub fn reading(&self) -> Reading {
        self.reading
    }

    /// Refuses what earlier versions of this program accepted at `key`, unless the sweep is stored: those keep what they have.
    ///
    /// # Errors
    /// The sweep is new.
    pub fn refuse(&self, key: &str, message: impl FnOnce() -> String) -> Result<(), SpecError> {
        self.reading.refuse(|| self.error(key, message()))
    }

    /// The value under `key`, which is thereby known.
    pub fn node(&self, key: &'static str) -> Option<&'a Node> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        drop(known);
        self.table.get(key)
    }

    /// The dotted path of `key` in this table.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// An error at `key`, or at the table itself when `key` is absent.
    pub fn error(&self, key: &str, message: impl Into<String>) -> SpecError {
        let place = self.table.get(key).map_or_else(|| self.place.clone(), |node| node.place.clone());
        SpecError::new(place, self.path_of(key), message)
    }

    /// A number within `range`.
    ///
    /// # Errors
    /// Something else stands there.
    pub fn number(&self, key: &'static str, range: Range) -> Result<Option<f64>, SpecError> {
        let Some(node) = self.node(key) else { return Ok(None) };
        match node.value.as_f64() {
            Some(x) if range.holds(x) => Ok(Some(x)),
            _ => Err(self.error(key, format!("expected {}, found {}", range.describe(), quoted(&node.value)))),
        }
    }

    /// A whole number within `range`.
    ///
    /// # Errors
    /// Something else stands there.
    pub fn whole(&self, key: &'static str, range: Range) -> Result<Option<u64>, SpecError> {
        debug_assert!(range.whole, "a whole number needs a range of whole numbers");
        let found = self.number(key, range)?.map(|x| x as u64);
        // Beyond 2^53 not every whole number is one of the numbers that fractions are made of: it would be taken for its neighbour.
        let rounded = match self.table.get(key).map(|node| &node.value) {
            Some(Value::Int(i)) => u64::try_from(*i).ok() != found,
            Some(Value::Float(x)) => *x >= EXACT as f64,
            _ => false,
        };
        if rounded {
            let message =
                || format!("expected {}, written without a point or exponent and at most {EXACT}", range.describe());
            self.refuse(key, message)?;
        }
        Ok(found)
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// Something else stands there.
    pub fn bool(&self, key: &'static str) -> Result<Option<bool>, SpecError> {
        match self.node(key).map(|n| &n.value) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(self.error(key, format!("expected true or false, found {}", quoted(other)))),
        }
    }

    /// A string.
    ///
    /// # Errors
    /// Something else stands there.
    pub fn str(&self, key: &'static str) -> Result<Option<&'a str>, SpecError> {
        match self.node(key).map(|n| &n.value) {
            None => Ok(None),
            Some(Value::Str(s)) => Ok(Some(s)),
            Some(other) => Err(self.error(key, format!("expected a string, found {}", quoted(other)))),
        }
    }

    /// One of a few words, with what each stands for.
    ///
    /// # Errors
    /// Another word, with the nearest of those known.
    pub fn word<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Result<Option<T>, SpecError> {
        let Some(text) = self.str(key)? else { return Ok(None) };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => {
                let hint = nearest(text, words.iter().map(|(word, _)| *word));
                Err(self.error(key, format!("unknown value '{text}', {hint}")))
            }
        }
    }

    /// A list; its elements are read by the caller.
    ///
    /// # Errors
    /// Something else stands there.
    pub fn list(&self, key: &'static str) -> Result<Option<&'a [Node]>, SpecError> {
        match self.node(key).map(|n| &n.value) {
            None => Ok(None),
            Some(Value::List(items)) => Ok(Some(items)),
            Some(other) => Err(self.error(key, format!("expected a list, found {}", quoted(other)))),
        }
    }

    /// The file whose path stands there.
    ///
    /// # Errors
    /// Something else than a path stands there, or that of a file which was not pinned.
    pub fn file(&self, key: &'static str) -> Result<Option<&'a FilePin>, SpecError> {
        let Some(path) = self.str(key)? else { return Ok(None) };
        if !path.ends_with(ENDING) {
            return Err(self.error(key, format!("expected the path of a {ENDING} file, found '{path}'")));
        }
        let pin = self.files.iter().find(|pin| pin.path == path);
        pin.map(Some).ok_or_else(|| self.error(key, format!("the file '{path}' did not come with the sweep file")))
    }

    /// The entries of a table whose keys are names of something; an absent one has none.
    ///
    /// # Errors
    /// Something other than a table stands there.
    pub fn table(&self, key: &'static str) -> Result<&'a [(String, Node)], SpecError> {
        Ok(&self.section(key)?.table.0)
    }

    /// Ends the reading: whatever was not asked for by now is unknown.
    ///
    /// # Errors
    /// A key that was never asked for.
    pub fn finish(&self) -> Result<(), SpecError> {
        let known = self.known.borrow();
        match self.table.0.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some((key, _)) => {
                let hint = nearest(key, known.iter().copied());
                Err(self.error(key, format!("unknown key '{key}', {hint}")))
            }
        }
    }
}

/// A value as it is quoted in an error.
pub fn quoted(value: &Value) -> String {
    match value {
        Value::Str(s) => format!("'{s}'"),
        other => other.describe(),
    }
}
