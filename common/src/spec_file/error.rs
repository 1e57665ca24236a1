//! Errors that cross the house: where a sweep file is wrong, and the codes that survive the wire and end as exit codes.

use std::fmt;

use crate::spec_file::node::Origin;

/// A sweep file, or a `--set`, says something that cannot be carried out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub struct SpecError {
    /// The sweep file, as the user named it.
    pub file: String,
    /// Where the offending value came from.
    pub origin: Origin,
    /// Dotted path of the field, empty when the file as a whole is meant.
    pub path: String,
    /// What is wrong, what was expected, and what to do.
    pub message: String,
}

/// Longest setting that is shown whole, in characters.
const MAX_SHOWN_CHARS: usize = 200;
/// Longest name that is compared with known ones, in bytes.
const MAX_COMPARED_BYTES: usize = 200;

impl SpecError {
    /// An error at `path`, found at `place`; the file's name is filled in by whoever knows it.
    pub fn new(origin: Origin, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            file: String::new(),
            origin,
            path: path.into(),
            message: message.into(),
        }
    }

    /// The same error, naming `file`.
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

/// The kinds of failure a user can meet. Each has one exit code, and travels as a number in gRPC status details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// The sweep ended, but some of its trials failed.
    TrialsFailed,
    /// A file, field or argument is wrong; nothing was stored.
    BadInput,
    /// The coordinator does not answer.
    Unreachable,
    /// The coordinator, or the operating system, refused.
    Refused,
    /// No such sweep, trial, axis or metric.
    NotFound,
    /// The two programs are of versions that cannot work together.
    Version,
    /// A bug, or a disk that cannot be written.
    Internal,
}

impl ErrorCode {
    /// Every code, in the order of the exit codes.
    pub const ALL: [Self; 7] = [
        Self::TrialsFailed,
        Self::BadInput,
        Self::Unreachable,
        Self::Refused,
        Self::NotFound,
        Self::Version,
        Self::Internal,
    ];

    /// The process exit code: 1 failed trials, 2 bad input, 3 unreachable, 4 refused, 5 not found, 6 version, 70 internal.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::TrialsFailed => 1,
            Self::BadInput => 2,
            Self::Unreachable => 3,
            Self::Refused => 4,
            Self::NotFound => 5,
            Self::Version => 6,
            Self::Internal => 70,
        }
    }

    /// The code with this exit code.
    pub fn from_exit_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.exit_code() == code)
    }
}

/// `, did you mean 'x'?` for the known name nearest to `name`, or the list of all when none is near.
pub fn suggest_nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let compared = known.iter().filter(|_| name.len() <= MAX_COMPARED_BYTES);
    let best = compared
        .map(|k| (strsim::damerau_levenshtein(name, k), *k))
        .min();
    match best {
        Some((distance, best)) if distance <= 1 + name.len().max(best.len()) / 3 => {
            format!("did you mean '{best}'?")
        }
        Some(_) => format!("known: {}", known.join(", ")),
        None if !known.is_empty() => format!("known: {}", known.join(", ")),
        None => "nothing may stand here".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::spec_file::error::*;

    #[test]
    fn every_code_comes_back_from_its_exit_code() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_exit_code(code.exit_code()), Some(code));
        }
    }

    #[test]
    fn the_nearest_name_is_offered_only_when_it_is_near() {
        assert_eq!(
            suggest_nearest("widht", ["width", "depth"]),
            "did you mean 'width'?"
        );
        assert_eq!(suggest_nearest("zzzzzz", ["lr", "wd"]), "known: lr, wd");
    }
}
