//! Errors of sweep files, with file, line and field.

use std::fmt;
use std::sync::Arc;

use crate::spec_file::suggest::find_nearest;

/// A sweep file, or a `--set`, that cannot be carried out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub struct SpecError {
    /// The sweep file, as the user named it.
    pub file: String,
    /// The place of the offending value.
    pub origin: Origin,
    /// Dotted path of the field, empty when the file as a whole is meant.
    pub path: String,
    /// The message: what is wrong, what was expected, and what to do.
    pub message: String,
    /// What other mistakes can be the reason for it.
    pub cause: ErrorCause,
    /// The word that is not known, if that is the mistake.
    pub unknown: Option<Box<UnknownWord>>,
}

/// What else can be the reason for an error, which is then no mistake of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrorCause {
    /// Nothing else: the value is wrong whatever stands elsewhere.
    #[default]
    Value,
    /// A value is missing; it may stand under a key that is misspelt.
    Missing,
    /// Values do not go together; one of them may be a mistake.
    Combination,
    /// The cells are not those that are meant; what a scale or a setting makes of the grid may be the reason.
    Cells,
}

/// A key or value that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownWord {
    /// The word as written.
    pub word: String,
    /// The known word that is near, if there is one.
    pub meant: Option<String>,
}

/// Maximum length of a setting that is shown whole, in characters.
const MAX_SHOWN_CHARS: usize = 200;

impl SpecError {
    /// An error at `path`, found at `origin`; the caller that knows the file adds its name.
    pub fn new(origin: Origin, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            file: String::new(),
            origin,
            path: path.into(),
            message: message.into(),
            cause: ErrorCause::Value,
            unknown: None,
        }
    }

    /// Returns the error as one of several values together.
    pub(crate) fn of_combination(self) -> Self {
        Self {
            cause: ErrorCause::Combination,
            ..self
        }
    }

    /// Returns the error as one of the cells that there are.
    pub(crate) fn of_cells(self) -> Self {
        Self {
            cause: ErrorCause::Cells,
            ..self
        }
    }

    /// Returns the error as one of a missing value.
    pub(crate) fn of_missing_value(self) -> Self {
        Self {
            cause: ErrorCause::Missing,
            ..self
        }
    }

    /// Returns the error with the unknown word, and the nearest of the known ones.
    pub(crate) fn with_unknown<'a>(
        self,
        word: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let unknown = UnknownWord {
            word: word.to_owned(),
            meant: find_nearest(word, known).map(str::to_owned),
        };
        Self {
            unknown: Some(Box::new(unknown)),
            ..self
        }
    }

    /// Returns the error with the unknown word, and the known one that was meant, if that is clear.
    pub(crate) fn with_meant(self, word: &str, meant: Option<&str>) -> Self {
        let unknown = UnknownWord {
            word: word.to_owned(),
            meant: meant.map(str::to_owned),
        };
        Self {
            unknown: Some(Box::new(unknown)),
            ..self
        }
    }

    /// Returns the error with the name of the file.
    pub fn with_file(mut self, file: &str) -> Self {
        file.clone_into(&mut self.file);
        self
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Line(line) if self.file.is_empty() => write!(f, "line {line}: ")?,
            Origin::Line(line) => write!(f, "{}:{line}: ", self.file)?,
            Origin::Set(setting) => {
                let cut = setting
                    .char_indices()
                    .nth(MAX_SHOWN_CHARS)
                    .map_or(setting.len(), |(at, _)| at);
                if let Some(scale) = setting.strip_prefix("scale=") {
                    return write!(f, "--scale {scale}: {}", self.message);
                }
                let rest = if cut < setting.len() { "…" } else { "" };
                write!(f, "--set {}{rest}: ", &setting[..cut])?;
            }
            Origin::Default if self.file.is_empty() => {}
            Origin::Default => write!(f, "{}: ", self.file)?,
        }

        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }

        f.write_str(&self.message)
    }
}

/// A place as a part of a sentence: ` (line 7)`; empty for a default.
pub(crate) fn describe_origin(origin: &Origin) -> String {
    match origin {
        Origin::Line(line) => format!(" (line {line})"),
        Origin::Set(setting) => format!(" (--set {setting})"),
        Origin::Default => String::new(),
    }
}

/// The place where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of the sweep file, counted from 1.
    Line(u32),
    /// A `--set key=value`, which all its values share.
    Set(Arc<str>),
    /// No place, because the value is a default.
    Default,
}
