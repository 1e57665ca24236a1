//! The target of rows: stdout or a file, as text or as Parquet.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;

use super::TextFormat;
use super::atomic_file::{AtomicFile, file_write_error};
use super::table_layout::TableLayout;
use crate::app::stdout_error;
use crate::client::export::encode;
use crate::terminal::{escape_terminal_controls, show_on_stdout};

/// `--format` of commands whose rows can go to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RowFormat {
    /// A table for people.
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

/// The extensions of files, with their formats.
const EXTENSIONS: [(&str, RowFormat); 5] = [
    ("csv", RowFormat::Csv),
    ("json", RowFormat::Json),
    ("md", RowFormat::Md),
    ("tex", RowFormat::Latex),
    ("parquet", RowFormat::Parquet),
];

impl RowFormat {
    /// The format as a text format; `None` for Parquet.
    pub fn as_text_format(self) -> Option<TextFormat> {
        match self {
            Self::Table => Some(TextFormat::Table),
            Self::Json => Some(TextFormat::Json),
            Self::Csv => Some(TextFormat::Csv),
            Self::Md => Some(TextFormat::Md),
            Self::Latex => Some(TextFormat::Latex),
            Self::Parquet => None,
        }
    }

    fn from_extension(path: &Path) -> Result<Self, UserError> {
        let ending = path
            .extension()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        let known = EXTENSIONS.iter().find(|(known, _)| *known == ending);
        known.map(|(_, format)| *format).ok_or_else(|| {
            let endings = EXTENSIONS.map(|(ending, _)| format!(".{ending}"));
            bad_input_error(format!(
                "-o {}: expected a name that ends in {}, or --format",
                path.display(),
                endings.join(", ")
            ))
        })
    }
}

/// Where rows go, and how they are written.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// File to write to instead of stdout; an existing file is replaced
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Output format [default: by the extension of the file, .csv, .json, .md, .tex or .parquet; without a file, table]
    #[arg(long, value_enum)]
    pub format: Option<RowFormat>,
}

impl OutputArgs {
    /// The target that the options name; without a format, the ending of the file decides. What cannot be written is refused
    /// before a command asks for anything.
    ///
    /// # Errors
    /// The ending is of no format, or Parquet would go to a terminal.
    pub fn choose_target(&self) -> Result<OutputTarget, UserError> {
        let format = match (self.format, &self.output) {
            (Some(format), _) => format,
            (None, Some(file)) => RowFormat::from_extension(file)?,
            (None, None) => RowFormat::Table,
        };
        if format == RowFormat::Parquet && self.output.is_none() && io::stdout().is_terminal() {
            return Err(bad_input_error(
                "--format parquet: a terminal cannot show it: name a file with -o, or pipe it"
                    .to_owned(),
            ));
        }

        Ok(OutputTarget {
            file: self.output.clone(),
            format,
        })
    }
}

/// The target of rows, a file or stdout, and their format.
#[derive(Debug, Clone)]
pub struct OutputTarget {
    file: Option<PathBuf>,
    /// The format of the rows.
    pub format: RowFormat,
}

impl OutputTarget {
    /// The room for a table: that of the terminal, unless the target is a file or all columns are
    /// asked for.
    pub fn table_layout(&self, wide: bool) -> TableLayout {
        match self.file {
            Some(_) => TableLayout::PLAIN,
            None => TableLayout::for_stdout(wide),
        }
    }

    /// Writes text; on a terminal, through a pager if it is long and `paged` allows it.
    ///
    /// # Errors
    /// The target cannot be written.
    pub fn write_text(&self, text: &str, paged: bool) -> Result<(), UserError> {
        if self.file.is_none() {
            let paged = paged && self.format == RowFormat::Table;
            return self.check_write_result(show_on_stdout(text, paged));
        }

        // Colour codes would clutter a file, so only a terminal gets them.
        let text = strip_colours(text);
        self.write_bytes(escape_terminal_controls(&text, false).as_bytes())
    }

    /// Writes rows as Parquet.
    ///
    /// # Errors
    /// The rows cannot be encoded, or the target cannot be written.
    pub fn write_parquet(&self, rows: &RecordBatch) -> Result<(), UserError> {
        let bytes = encode::encode_record_batch(rows).map_err(|e| {
            UserError::new(
                ErrorCode::Internal,
                format!("rows cannot be written as Parquet: {e}"),
            )
        })?;
        self.write_bytes(&bytes)
    }

    fn write_bytes(&self, bytes: &[u8]) -> Result<(), UserError> {
        self.check_write_result(
            self.open_writer()
                .and_then(|mut out| out.write_all(bytes).and_then(|()| out.finish())),
        )
    }

    /// Opens the target for output in pieces.
    pub(in crate::client) fn open_writer(&self) -> io::Result<OutputWriter> {
        match &self.file {
            None => Ok(OutputWriter::Stdout(BufWriter::new(io::stdout()))),
            Some(path) => AtomicFile::create(path)
                .map(|file| OutputWriter::File(Box::new(BufWriter::new(file)))),
        }
    }

    /// Converts a write error to an error for the user. A reader of stdout that closes the pipe,
    /// such as `head`, is no error.
    pub(in crate::client) fn check_write_result(
        &self,
        written: io::Result<()>,
    ) -> Result<(), UserError> {
        match (written, &self.file) {
            (Ok(()), _) => Ok(()),
            (Err(error), None) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            (Err(error), None) => Err(stdout_error(&error)),
            (Err(error), Some(path)) => Err(file_write_error(path, &error)),
        }
    }
}

/// Stdout, or a file that appears once it is finished.
pub(in crate::client) enum OutputWriter {
    Stdout(BufWriter<Stdout>),
    File(Box<BufWriter<AtomicFile>>),
}

impl OutputWriter {
    pub(in crate::client) fn finish(self) -> io::Result<()> {
        match self {
            Self::Stdout(mut out) => out.flush(),
            Self::File(out) => out
                .into_inner()
                .map_err(io::IntoInnerError::into_error)?
                .finish()
                .map(|_| ()),
        }
    }
}

impl Write for OutputWriter {
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

fn bad_input_error(message: String) -> UserError {
    UserError::new(ErrorCode::BadInput, message)
}

/// Removes the sequences that set colours: `ESC [ … m`.
fn strip_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| {
        plain + part.split_once('m').map_or(part, |(_, after)| after)
    })
}

#[cfg(test)]
mod tests {
    use crate::client::render::output_target::*;

    #[test]
    fn an_ending_says_the_format_unless_something_else_does() {
        let of = |file: &str, format| {
            let output = Some(file.into());
            let target = OutputArgs { output, format }.choose_target();
            target.map(|target| target.format)
        };
        assert_eq!(of("a/b.CSV", None).ok(), Some(RowFormat::Csv));
        assert_eq!(of("b.tex", None).ok(), Some(RowFormat::Latex));
        assert_eq!(
            of("b.csv", Some(RowFormat::Parquet)).ok(),
            Some(RowFormat::Parquet)
        );

        assert_eq!(of("b", Some(RowFormat::Table)).ok(), Some(RowFormat::Table));
        for unknown in ["b.xlsx", "b", ".csv"] {
            let error = of(unknown, None)
                .expect_err("nothing says the format")
                .to_string();
            assert!(
                error.contains(unknown) && error.contains(".csv, .json, .md, .tex, .parquet"),
                "{error}"
            );
        }

        let neither = OutputArgs {
            output: None,
            format: None,
        };
        assert_eq!(
            neither.choose_target().map(|target| target.format).ok(),
            Some(RowFormat::Table)
        );
    }

    #[test]
    fn files_have_no_colours() {
        assert_eq!(
            strip_colours("a \u{1b}[38;5;10m★ 0.5\u{1b}[39m b"),
            "a ★ 0.5 b"
        );
        assert_eq!(strip_colours("plain"), "plain");
    }
}
