//! Where rows go: stdout or a file, as text or as Parquet.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;

use super::file::{NewFile, unwritten};
use super::{Format, colours, guarded};
use crate::client::export::encode;

/// `--format` of commands whose rows can go to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RowFormat {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// Comma-separated values with a header.
    Csv,
    /// A Markdown table.
    Md,
    /// A LaTeX table for the package booktabs.
    Latex,
    /// Apache Parquet.
    Parquet,
}

/// The endings of files, and what they say.
const ENDINGS: [(&str, RowFormat); 5] = [
    ("csv", RowFormat::Csv),
    ("json", RowFormat::Json),
    ("md", RowFormat::Md),
    ("tex", RowFormat::Latex),
    ("parquet", RowFormat::Parquet),
];

impl RowFormat {
    /// The format as text; none for Parquet.
    pub fn text(self) -> Option<Format> {
        match self {
            Self::Table => Some(Format::Table),
            Self::Json => Some(Format::Json),
            Self::Csv => Some(Format::Csv),
            Self::Md => Some(Format::Md),
            Self::Latex => Some(Format::Latex),
            Self::Parquet => None,
        }
    }

    fn of_file(path: &Path) -> Result<Self, UserError> {
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let known = ENDINGS.iter().find(|(known, _)| *known == ending);
        known.map(|(_, format)| *format).ok_or_else(|| {
            let endings = ENDINGS.map(|(ending, _)| format!(".{ending}"));
            bad(format!("-o {}: expected a name that ends in {}, or --format", path.display(), endings.join(", ")))
        })
    }
}

/// Where rows go, and how they are written.
#[derive(Debug, Clone)]
pub struct Sink {
    file: Option<PathBuf>,
    /// How they are written.
    pub format: RowFormat,
}

impl Sink {
    /// As `-o` and `--format` say; a file's ending says the format if nothing else does.
    ///
    /// # Errors
    /// The ending says nothing, or Parquet would go to a terminal.
    pub fn of(file: Option<PathBuf>, format: Option<RowFormat>) -> Result<Self, UserError> {
        let format = match (format, &file) {
            (Some(format), _) => format,
            (None, Some(file)) => RowFormat::of_file(file)?,
            (None, None) => RowFormat::Table,
        };
        if format == RowFormat::Parquet && file.is_none() && io::stdout().is_terminal() {
            return Err(bad("--format parquet: a terminal cannot show it: name a file with -o, or pipe it".to_owned()));
        }
        Ok(Self { file, format })
    }

    /// Writes text.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn text(&self, text: &str) -> Result<(), UserError> {
        // Stdout being a terminal, there may be colours.
        let to_terminal = self.file.is_none();
        let text = if to_terminal { text.to_owned() } else { without_colours(text) };
        self.bytes(guarded(&text, to_terminal && colours()).as_bytes())
    }

    /// Writes rows as Parquet.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn parquet(&self, rows: &RecordBatch) -> Result<(), UserError> {
        let unfit = |e| UserError::new(ErrorCode::Internal, format!("rows cannot be written as Parquet: {e}"));
        self.bytes(&encode::rows(rows).map_err(unfit)?)
    }

    fn bytes(&self, bytes: &[u8]) -> Result<(), UserError> {
        self.written(self.open().and_then(|mut out| out.write_all(bytes).and_then(|()| out.finish())))
    }

    /// What is written piece by piece.
    pub(in crate::client) fn open(&self) -> io::Result<Output> {
        match &self.file {
            None => Ok(Output::Stdout(BufWriter::new(io::stdout()))),
            Some(path) => NewFile::begin(path).map(|file| Output::File(Box::new(BufWriter::new(file)))),
        }
    }

    /// Whether it could be written. A reader of stdout that has gone away, such as `head`, is no error.
    pub(in crate::client) fn written(&self, written: io::Result<()>) -> Result<(), UserError> {
        match (written, &self.file) {
            (Ok(()), _) => Ok(()),
            (Err(error), None) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            (Err(error), None) => Err(UserError::new(ErrorCode::Internal, format!("cannot write to stdout: {error}"))),
            (Err(error), Some(path)) => Err(unwritten(path, &error)),
        }
    }
}

/// What is being written. A file is there once it is finished.
pub(in crate::client) enum Output {
    Stdout(BufWriter<Stdout>),
    File(Box<BufWriter<NewFile>>),
}

impl Output {
    pub(in crate::client) fn finish(self) -> io::Result<()> {
        match self {
            Self::Stdout(mut out) => out.flush(),
            Self::File(out) => out.into_inner().map_err(io::IntoInnerError::into_error)?.finish().map(|_| ()),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::File(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File(out) => out.flush(),
        }
    }
}

fn bad(message: String) -> UserError {
    UserError::new(ErrorCode::BadInput, message)
}

/// Without the sequences that give a terminal colours: `ESC [ … m`.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').map_or(part, |(_, after)| after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_says_the_format_unless_something_else_does() {
        let of = |file: &str, format| Sink::of(Some(file.into()), format).map(|sink| sink.format);
        assert_eq!(of("a/b.CSV", None).ok(), Some(RowFormat::Csv));
        assert_eq!(of("b.tex", None).ok(), Some(RowFormat::Latex));
        assert_eq!(of("b.csv", Some(RowFormat::Parquet)).ok(), Some(RowFormat::Parquet));
        assert_eq!(of("b", Some(RowFormat::Table)).ok(), Some(RowFormat::Table));
        for unknown in ["b.xlsx", "b", ".csv"] {
            let error = of(unknown, None).expect_err("nothing says the format").to_string();
            assert!(error.contains(unknown) && error.contains(".csv, .json, .md, .tex, .parquet"), "{error}");
        }
        assert_eq!(Sink::of(None, None).map(|sink| sink.format).ok(), Some(RowFormat::Table));
    }

    #[test]
    fn files_have_no_colours() {
        assert_eq!(without_colours("a \u{1b}[38;5;10m★ 0.5\u{1b}[39m b"), "a ★ 0.5 b");
        assert_eq!(without_colours("plain"), "plain");
    }
}
