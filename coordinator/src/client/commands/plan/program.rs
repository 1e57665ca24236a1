//! The plan of a program: what runs, with which files, and how often.

use ergodic_common::escape::escape_line;
use ergodic_common::ids::{CellHash, CellIndex, Repeat};
use ergodic_common::number_format::format_count;
use ergodic_common::program::bundle::{self, BundledFile};
use ergodic_common::program::kept_files::FilePattern;
use ergodic_common::program::{Program, ProgramCell, TrialFacts};
use ergodic_common::{Spec, TrialKey};
use serde_json::{Map, json};

use super::experiment::render_experiment_plan;
use super::json::{describe_metrics, render_json_of_program};
use super::named_files::NamedFiles;
use super::{describe_axes, describe_scales, describe_size, format_bytes};
use crate::client::render::DocumentFormat;
use crate::client::sweep_file::SweepFile;

/// Stands for the folder of a trial, which the worker makes.
const TRIAL_FOLDER: &str = "DIR";

/// Most texts among the values of cells that are listed.
const MAX_LISTED_TEXTS: usize = 50;

/// Most files that are listed one by one.
const MAX_LISTED_FILES: usize = 50;

/// Renders the plan of a program; `None` for other sweeps.
pub(super) fn render_program_plan(
    spec: &Spec,
    (file, named): (&SweepFile, &NamedFiles),
    format: DocumentFormat,
) -> Option<String> {
    let program = spec.program()?;
    if let Some(experiment) = &program.experiment {
        return render_experiment_plan(spec, (program, experiment), named, format);
    }
    let cell = spec.grid.iter().next()?;
    let files = list_files(file);
    let example = ExampleTrial::of_cell(spec, cell)?;
    if format == DocumentFormat::Json {
        return Some(render_json(spec, program, &files, &example));
    }

    let mut out = describe_size(spec);
    out += &describe_scales(spec);
    out += &describe_axes(spec);
    out += &describe_metrics(program);
    out += &describe_program(spec, Some(file));
    out += &format!(
        "  command of {}, repeat 0:\n    {}\n",
        example.cell,
        quote_command(&example.command)
    );
    out += "time: not known for a program\n";
    Some(out + "checked: the file and its cells, and that the files can be read\n")
}

/// Describes what of a program a user must know before it runs: its command, files, and environment.
pub fn describe_program(spec: &Spec, file: Option<&SweepFile>) -> String {
    let Some(program) = spec.program() else {
        return String::new();
    };
    let command = program.command.iter().map(ToString::to_string);
    let mut out = format!(
        "  program: {}\n",
        quote_command(&command.collect::<Vec<_>>())
    );
    out += &describe_texts(&spec.grid.text_values());
    for command in &program.require {
        out += &format!("  requires: {}\n", quote_command(command));
    }
    for (name, value) in &program.env {
        out += &format!("  sets {name}={}\n", escape_line(&value.to_string()));
    }
    if !program.pass_env.is_empty() {
        out += &format!("  passes on {}\n", program.pass_env.join(", "));
    }

    if !program.save.is_empty() {
        let patterns = program.save.iter().map(FilePattern::as_str);
        let patterns = patterns.collect::<Vec<_>>().join(", ");
        out += &format!("  keeps {}\n", escape_line(&patterns));
    }

    let files = file.map(list_files).unwrap_or_default();
    if file.is_none() && !program.files.is_empty() {
        out += &format!("  files {}\n", escape_line(&program.files.join(", ")));
    }
    for (name, size) in files.iter().take(MAX_LISTED_FILES) {
        let size = format_bytes(*size);
        out += &format!("  file {}, {size}\n", escape_line(name));
    }
    if let Some(more) = files.len().checked_sub(MAX_LISTED_FILES + 1) {
        out += &format!("  … and {}\n", format_count(more as u64 + 1, "more file"));
    }
    out
}

/// Describes the texts that cells put into the command and the environment.
fn describe_texts(texts: &[(String, String)]) -> String {
    let listed = texts.iter().take(MAX_LISTED_TEXTS);
    let mut out: String = listed
        .map(|(name, text)| format!("    {{{name}}} may be {}\n", escape_line(text)))
        .collect();
    if let Some(more) = texts.len().checked_sub(MAX_LISTED_TEXTS + 1) {
        out += &format!("    … and {}\n", format_count(more as u64 + 1, "more text"));
    }
    out
}

/// A trial, as an example of all.
struct ExampleTrial {
    cell: String,
    command: Vec<String>,
}

impl ExampleTrial {
    fn of_cell(spec: &Spec, cell: CellIndex) -> Option<Self> {
        let config = spec.grid.resolve_config(cell).ok()?;
        let program = config.model.kind.program()?;
        let repeat = Repeat(0);
        let key = TrialKey { cell, repeat };
        Some(Self {
            cell: escape_line(&spec.grid.describe_cell(cell)).into_owned(),
            command: fill_example(spec, program, key, spec.compute_cell_hash(&config, NO_DATA)),
        })
    }
}

const NO_DATA: ergodic_common::ids::DatasetHash = ergodic_common::ids::DatasetHash::NONE;

fn fill_example(spec: &Spec, program: &ProgramCell, key: TrialKey, cell: CellHash) -> Vec<String> {
    let streams = spec.trial_streams(key, cell);
    program.fill_command(&TrialFacts {
        streams: &streams,
        dir: TRIAL_FOLDER,
    })
}

/// Names and sizes of the files in the bundle.
fn list_files(file: &SweepFile) -> Vec<(String, u64)> {
    let mut pins = file.source.files.iter().zip(&file.contents);
    let found = pins.find(|(pin, _)| pin.is_program_bundle());
    let files: Vec<BundledFile> = found
        .and_then(|(_, content)| bundle::decode(content).ok())
        .unwrap_or_default();
    files
        .into_iter()
        .map(|file| (file.name, file.content.len() as u64))
        .collect()
}

/// A command as a shell would take it, for people alone: no shell reads it.
fn quote_command(arguments: &[String]) -> String {
    let quoted = arguments.iter().map(|argument| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,{}+@%".contains(c);
        match !argument.is_empty() && argument.chars().all(is_plain) {
            true => argument.clone(),
            false => format!("'{}'", escape_line(&argument.replace('\'', "'\\''"))),
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

fn render_json(
    spec: &Spec,
    program: &Program,
    files: &[(String, u64)],
    example: &ExampleTrial,
) -> String {
    let files: Vec<_> = files
        .iter()
        .map(|(name, bytes)| json!({ "name": name, "bytes": bytes }))
        .collect();
    let command: Vec<String> = program.command.iter().map(ToString::to_string).collect();
    let save: Vec<&str> = program.save.iter().map(FilePattern::as_str).collect();
    let own = Map::from_iter([
        ("command".to_owned(), json!(command)),
        ("example".to_owned(), json!(example.command)),
        ("files".to_owned(), json!(files)),
        ("save".to_owned(), json!(save)),
    ]);
    render_json_of_program(spec, program, ("program", own), None)
}

#[cfg(test)]
mod tests {
    use crate::client::commands::plan::program::*;

    #[test]
    fn texts_that_are_not_listed_are_counted() {
        let texts = |count: usize| -> Vec<(String, String)> {
            let texts = (0..count).map(|at| ("solver".to_owned(), format!("run {at}")));
            texts.collect()
        };
        let all = describe_texts(&texts(MAX_LISTED_TEXTS));
        assert_eq!(all.lines().count(), MAX_LISTED_TEXTS);
        assert!(all.starts_with("    {solver} may be run 0\n"));
        let more = describe_texts(&texts(MAX_LISTED_TEXTS + 1));
        assert!(more.ends_with("    … and 1 more text\n"), "{more}");
        let more = describe_texts(&texts(MAX_LISTED_TEXTS + 2));
        assert!(more.ends_with("    … and 2 more texts\n"), "{more}");
    }
}
