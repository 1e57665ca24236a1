//! Reads `[program]` of a sweep file.

use std::sync::Arc;

use super::bundle::check_name;
use super::kept_files::read_save;
use super::list::read_items;
use super::needs::{read_checkpoint_limit, read_needs};
use super::value::is_identifier;
use super::{
    DATA, DIRECTIONS, DeclaredMetric, PYTHON_HELPER, PYTHON_HELPER_FILE, Placeholder, Program,
    ProgramCell, ProgramValue, RESERVED_PLACEHOLDERS, Template,
};
use crate::pinned_file::PROGRAM_BUNDLE;
use crate::spec_file::error::SpecError;
use crate::spec_file::grammar::PROGRAMS_GRAMMAR;
use crate::spec_file::node::{SpecNode, SpecValue};
use crate::spec_file::reader::{TableReader, quote_value};
use crate::spec_file::suggest::suggest_nearest;

/// The section of the sweep file.
pub const SECTION: &str = "program";

/// The table of a cell's document in which its values stand. No sweep file has it.
pub(crate) const VALUES: &str = "value";

/// Largest whole number up to which an `f64` keeps every one.
const MAX_WHOLE_NUMBER: u64 = 1 << 53;

/// Maximum number of metrics that a program declares.
const MAX_DECLARED_METRICS: usize = 64;

/// Maximum number of arguments, files, variables and commands.
const MAX_ITEMS: usize = 1_000;

/// Maximum number of characters of a metric's name.
const MAX_METRIC_NAME: usize = 64;

/// Names that a line of metrics, or a quantity, reads as something else.
const RESERVED_METRICS: [&str; 9] = [
    "epoch",
    "samples",
    "decay",
    "end",
    "final",
    "step",
    "diverged",
    "checkpoint",
    "predictions",
];

impl Program {
    /// Reads the section, without the names that its placeholders have; `None` if there is none.
    ///
    /// # Errors
    /// Names the first thing that is wrong, with field and line.
    pub(crate) fn read_section(root: &TableReader<'_>) -> Result<Option<Self>, SpecError> {
        let Some(node) = root.read_node(SECTION) else {
            return Self::read_experiment(root);
        };
        root.reading_mode()
            .require_grammar(PROGRAMS_GRAMMAR, &node.origin, SECTION)?;
        let r = root.section(SECTION)?;
        let (command, files, metrics) = (read_command(&r), read_files(&r), read_metrics(&r));
        let (env, pass_env, require) = (read_env(&r), read_pass_env(&r), read_require(&r));
        let deterministic = r.read_bool("deterministic");
        let (checkpoint_limit, needs) = (read_checkpoint_limit(&r), read_needs(&r));
        let save = read_save(&r);
        // Unknown keys are reported first: a misspelt one explains what is missing because of it.
        r.refuse_unknown_keys()?;
        let program = Self {
            command: command?,
            files: files?,
            bundle: root.find_pinned_file(PROGRAM_BUNDLE).map(|pin| pin.hash),
            env: env?,
            pass_env: pass_env?,
            metrics: metrics?,
            require: require?,
            deterministic: deterministic?.unwrap_or(false),
            checkpoint_limit: checkpoint_limit?,
            save: save?,
            needs: needs?,
            experiment: None,
        };
        program.check_variables(&r)?;
        program.check_gpu_variable(&r)?;
        Ok(Some(program))
    }

    /// Checks that no variable is both set and passed on.
    fn check_variables(&self, r: &TableReader<'_>) -> Result<(), SpecError> {
        let mut both = self
            .pass_env
            .iter()
            .filter(|name| self.env.iter().any(|(other, _)| other == *name));
        match both.next() {
            Some(name) => Err(r.error_at(
                "pass_env",
                format!("env sets {name} already: keep one of the two"),
            )),
            None => Ok(()),
        }
    }

    /// The templates, each with the key that it stands under.
    pub fn templates(&self) -> impl Iterator<Item = (String, &Template)> {
        let command = self.command.iter();
        let command = command.map(|template| ("command".to_owned(), template));
        let env = self.env.iter();
        command.chain(env.map(|(name, template)| (format!("env.{name}"), template)))
    }
}

impl ProgramCell {
    /// Reads the program and the values of a cell from its document; `None` if there is no program.
    ///
    /// # Errors
    /// As for [`Program::read_section`], a value is a list or a table, or a placeholder names no value.
    pub(crate) fn read(root: &TableReader<'_>) -> Result<Option<Arc<Self>>, SpecError> {
        let Some(program) = Program::read_section(root)? else {
            return Ok(None);
        };
        let entries = root.read_table_entries(VALUES)?;
        let mut values = entries
            .iter()
            .map(|(name, node)| Ok((name.clone(), read_value(name, node)?)))
            .collect::<Result<Vec<_>, SpecError>>()?;
        // Where they stand in the file means nothing.
        values.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let cell = Self {
            has_data: program.experiment.is_some() && root.read_node(DATA).is_some(),
            program: Arc::new(program),
            values,
        };
        cell.check_placeholders(root)?;
        Ok(Some(Arc::new(cell)))
    }

    fn check_placeholders(&self, root: &TableReader<'_>) -> Result<(), SpecError> {
        for (key, template) in self.program.templates() {
            for placeholder in template.placeholders() {
                let Placeholder::Value(name) = placeholder else {
                    continue;
                };
                if self.find_value(name).is_some() {
                    continue;
                }
                let names = self.values.iter().map(|(name, _)| name.as_str());
                let hint = suggest_nearest(name, names.chain(RESERVED_PLACEHOLDERS));
                let message = format!("no axis or derived field is called {{{name}}}, {hint}");
                let r = root.section(SECTION)?;
                let table_key = key.split('.').next().unwrap_or_default();
                let error = r.error_at(table_key, message);
                let path = format!("{SECTION}.{key}");
                return Err(SpecError { path, ..error });
            }
        }
        Ok(())
    }
}

pub(super) fn read_value(name: &str, node: &SpecNode) -> Result<ProgramValue, SpecError> {
    match &node.value {
        SpecValue::Bool(value) => Ok(ProgramValue::Bool(*value)),
        SpecValue::Int(number) if number.unsigned_abs() > MAX_WHOLE_NUMBER => {
            let message = format!(
                "{number} lies beyond 2^53, where numbers lose digits: write it as a string, \"{number}\""
            );
            let path = format!("{VALUES}.{name}");
            Err(SpecError::new(node.origin.clone(), path, message))
        }
        SpecValue::Int(_) | SpecValue::Float(_) => Ok(ProgramValue::Number(
            node.value.as_f64().expect("this is a number"),
        )),
        SpecValue::Str(text) if !text.contains('\0') => Ok(ProgramValue::Text(text.clone())),
        other => {
            let found = quote_value(other);
            let message =
                format!("expected a number, a string, true or false for a program, found {found}");
            let path = format!("{VALUES}.{name}");
            Err(SpecError::new(node.origin.clone(), path, message))
        }
    }
}

fn read_command(r: &TableReader<'_>) -> Result<Vec<Template>, SpecError> {
    let example = "set command = [\"python3\", \"train.py\", \"{lr}\"]";
    if let Some(SpecValue::Str(text)) = r.read_node("command").map(|node| &node.value) {
        let message = format!(
            "expected a list of arguments, because no shell reads them, found '{text}': {example}"
        );
        return Err(r.error_at("command", message));
    }
    let items = read_items(r, "command", "python3")?;
    if items.is_empty() {
        return Err(r.error_at("command", format!("which program? {example}")));
    }
    check_count(r, "command", items.len())?;
    items
        .iter()
        .map(|item| read_template(r, "command", item))
        .collect()
}

/// Reads a string with placeholders.
fn read_template(r: &TableReader<'_>, key: &str, node: &SpecNode) -> Result<Template, SpecError> {
    let error = |message: String| SpecError::new(node.origin.clone(), r.path_to(key), message);
    let text = node
        .value
        .as_str()
        .ok_or_else(|| error(describe_missing_text(&node.value, "{lr}")))?;
    if text.contains('\0') {
        return Err(error("the text has a character 0: remove it".into()));
    }
    Template::parse(text).map_err(error)
}

fn read_files(r: &TableReader<'_>) -> Result<Vec<String>, SpecError> {
    let items = read_items(r, "files", "train.py")?;
    check_count(r, "files", items.len())?;
    let mut files: Vec<String> = Vec::new();
    for item in items {
        let name = read_plain_text(r, "files", item)?;
        check_file(name)
            .map_err(|message| SpecError::new(item.origin.clone(), r.path_to("files"), message))?;
        if files.iter().any(|other| other == name) {
            return Err(r.error_at("files", format!("{name:?} is listed twice: remove one")));
        }
        files.push(name.to_owned());
    }
    Ok(files)
}

/// Checks a name in `files`: a path below the folder of the sweep file, or the helper.
fn check_file(name: &str) -> Result<(), String> {
    if name == PYTHON_HELPER {
        return Ok(());
    }
    if name.starts_with("ergodic:") {
        let hint = suggest_nearest(name, [PYTHON_HELPER]);
        return Err(format!("there is no {name:?}, {hint}"));
    }
    let path = name.strip_suffix('/').unwrap_or(name);
    check_name(path)?;
    if path == PYTHON_HELPER_FILE {
        return Err(format!(
            "the name {PYTHON_HELPER_FILE} is that of the helper: write \"{PYTHON_HELPER}\", or rename the file"
        ));
    }
    Ok(())
}

fn read_env(r: &TableReader<'_>) -> Result<Vec<(String, Template)>, SpecError> {
    let entries = r.read_table_entries("env")?;
    check_count(r, "env", entries.len())?;
    let mut env = Vec::new();
    for (name, node) in entries {
        check_variable(name)
            .map_err(|message| SpecError::new(node.origin.clone(), r.path_to("env"), message))?;
        env.push((
            name.clone(),
            read_template(r, &format!("env.{name}"), node)?,
        ));
    }
    env.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(env)
}

fn read_pass_env(r: &TableReader<'_>) -> Result<Vec<String>, SpecError> {
    let items = read_items(r, "pass_env", "VIRTUAL_ENV")?;
    check_count(r, "pass_env", items.len())?;
    let mut names = Vec::new();
    for item in items {
        let name = read_plain_text(r, "pass_env", item)?;
        check_variable(name).map_err(|message| {
            SpecError::new(item.origin.clone(), r.path_to("pass_env"), message)
        })?;
        names.push(name.to_owned());
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Checks the name of an environment variable.
fn check_variable(name: &str) -> Result<(), String> {
    if !is_identifier(name) {
        return Err(format!(
            "{name:?} is no name of a variable: write letters, digits and '_', the first no digit"
        ));
    }
    if name.starts_with("ERGODIC_") {
        return Err(format!(
            "{name} begins with ERGODIC_, as what Ergodic sets itself: choose another name"
        ));
    }
    Ok(())
}

pub(super) fn read_metrics(r: &TableReader<'_>) -> Result<Vec<DeclaredMetric>, SpecError> {
    let example = "set metrics = { loss = \"min\" }, with \"max\", \"min\" or \"volatile\"";
    if let Some(node) = r.read_node("metrics")
        && !matches!(node.value, SpecValue::Table(_))
    {
        let found = quote_value(&node.value);
        return Err(r.error_at(
            "metrics",
            format!("expected a table, found {found}: {example}"),
        ));
    }
    let entries = r.read_table_entries("metrics")?;
    if entries.is_empty() {
        let message = format!("which metrics does the program report? {example}");
        return Err(r.error_at("metrics", message));
    }
    if entries.len() > MAX_DECLARED_METRICS {
        let message = format!(
            "{} metrics are too many; at most {MAX_DECLARED_METRICS} are possible",
            entries.len()
        );
        return Err(r.error_at("metrics", message));
    }
    entries
        .iter()
        .map(|(name, node)| read_metric(r, name, node))
        .collect()
}

fn read_metric(
    r: &TableReader<'_>,
    name: &str,
    node: &SpecNode,
) -> Result<DeclaredMetric, SpecError> {
    let path = format!("{}.{name}", r.path_to("metrics"));
    let error = |message: String| SpecError::new(node.origin.clone(), path.clone(), message);
    if !is_identifier(name) || name.len() > MAX_METRIC_NAME {
        return Err(error(format!(
            "expected a name of at most {MAX_METRIC_NAME} letters, digits and '_', the first no digit"
        )));
    }
    if RESERVED_METRICS.contains(&name) {
        return Err(error(format!(
            "'{name}' has a meaning of its own in lines of metrics or quantities: choose another name"
        )));
    }

    let word = node.value.as_str().unwrap_or_default();
    let known = DIRECTIONS.iter().find(|(text, _)| *text == word);
    let Some((_, direction)) = known else {
        let hint = suggest_nearest(word, DIRECTIONS.iter().map(|(text, _)| *text));
        let found = quote_value(&node.value);
        return Err(error(format!(
            "which values are better? Found {found}, {hint}"
        )));
    };
    Ok(DeclaredMetric {
        name: name.to_owned(),
        direction: *direction,
    })
}

fn read_require(r: &TableReader<'_>) -> Result<Vec<Vec<String>>, SpecError> {
    let example = "write require = [[\"python3\", \"-c\", \"import torch\"]]";
    let items = match r.read_node("require").map(|node| &node.value) {
        None => return Ok(Vec::new()),
        Some(SpecValue::List(items)) => items,
        Some(other) => {
            let found = quote_value(other);
            let message = format!("expected a list of commands, found {found}: {example}");
            return Err(r.error_at("require", message));
        }
    };
    check_count(r, "require", items.len())?;
    let mut commands = Vec::new();
    for item in items {
        let error = || {
            let found = quote_value(&item.value);
            let message = format!("expected a list of commands, found {found}: {example}");
            SpecError::new(item.origin.clone(), r.path_to("require"), message)
        };
        let SpecValue::List(arguments) = &item.value else {
            return Err(error());
        };
        if arguments.is_empty() {
            return Err(error());
        }
        let arguments = arguments.iter();
        let command = arguments.map(|node| read_plain_text(r, "require", node).map(str::to_owned));
        commands.push(command.collect::<Result<_, _>>()?);
    }
    Ok(commands)
}

/// Reads a string without placeholders.
fn read_plain_text<'a>(
    r: &TableReader<'_>,
    key: &str,
    node: &'a SpecNode,
) -> Result<&'a str, SpecError> {
    let text = node.value.as_str().filter(|text| !text.contains('\0'));
    text.ok_or_else(|| {
        let example = match key {
            "files" => "train.py",
            "pass_env" => "VIRTUAL_ENV",
            _ => "python3",
        };
        let message = describe_missing_text(&node.value, example);
        SpecError::new(node.origin.clone(), r.path_to(key), message)
    })
}

/// Says that a value is no string, and how to write one.
fn describe_missing_text(value: &SpecValue, example: &str) -> String {
    let found = quote_value(value);
    match value {
        SpecValue::Bool(_) | SpecValue::Int(_) | SpecValue::Float(_) => {
            format!("expected a string, found {found}: write it in quotes, as in \"{found}\"")
        }
        SpecValue::Str(_) => "the text has a character 0: remove it".to_owned(),
        _ => format!("expected a string, found {found}: write one, such as \"{example}\""),
    }
}

fn check_count(r: &TableReader<'_>, key: &str, count: usize) -> Result<(), SpecError> {
    if count <= MAX_ITEMS {
        return Ok(());
    }
    let message = format!("{count} entries are too many; at most {MAX_ITEMS} are possible");
    Err(r.error_at(key, message))
}

/// Explains why no value of a program's cells can have a name; `None` if one can.
pub(crate) fn explain_wrong_value_name(name: &str) -> Option<String> {
    if RESERVED_PLACEHOLDERS.contains(&name) {
        return Some(format!(
            "{{{name}}} is a placeholder already: choose another name"
        ));
    }
    (!is_identifier(name)).then(|| {
        format!(
            "'{name}' is no name for a value of a program: write letters, digits and '_', the first no digit"
        )
    })
}
