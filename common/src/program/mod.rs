//! Programs as trials: what `[program]` of a sweep file says, and what one trial of it gets.
//!
//! A trial is a process of the user's. All cells of a sweep have one [`Program`]; a [`ProgramCell`] adds the values of the
//! axes and derived fields. The process gets arguments made from [`Template`]s, [`seeds`], and the files of a [`bundle`];
//! [`needs`] are what it takes of its worker, [`output`] is what it prints, and [`kept_files`] are those that it leaves.

pub mod bundle;
mod experiment;
pub mod kept_files;
mod list;
pub mod needs;
pub mod output;
mod read;
pub mod seeds;
mod template;
mod value;

pub use experiment::{
    EXPERIMENT_PREFIX, Experiment, experiment_class, find_version, is_experiment_class,
    is_experiment_name,
};
pub(crate) use experiment::{MODEL, is_data_field, move_constants, names_experiment};
pub use read::SECTION;
pub(crate) use read::{VALUES, explain_wrong_value_name};
pub use template::{Placeholder, RESERVED_PLACEHOLDERS, Template, TrialFacts};
pub use value::ProgramValue;

use std::sync::Arc;

use crate::ids::FileHash;
use kept_files::FilePattern;
use needs::TrialNeeds;

/// The section with the dataset of an experiment.
pub(crate) const DATA: &str = "data";

/// Most bytes of a trial's last checkpoint, and those if the sweep file sets no limit: 1 GiB.
pub const DEFAULT_CHECKPOINT_LIMIT: u64 = 1 << 30;

/// The name in `files` that stands for the Python helper, which Ergodic brings along.
pub const PYTHON_HELPER: &str = "ergodic:python";

/// The name that the Python helper has among the files of a program.
pub const PYTHON_HELPER_FILE: &str = "ergodic_trial.py";

/// The Python helper, which needs nothing but the standard library.
pub const PYTHON_HELPER_TEXT: &str = include_str!("ergodic_trial.py");

/// First part of the numerics class of every program.
pub const NUMERICS_PREFIX: &str = "program/";

/// The settings of `[program]`, which all cells of a sweep share.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// The program and its arguments. No shell reads them.
    pub command: Vec<Template>,
    /// Files and folders as written: paths below the folder of the sweep file, or [`PYTHON_HELPER`].
    pub files: Vec<String>,
    /// The pinned [`bundle`] of the files. `None` without files, and before they are pinned.
    pub bundle: Option<FileHash>,
    /// Environment variables that are set, in the order of their names.
    pub env: Vec<(String, Template)>,
    /// Names of environment variables of the worker that the program gets, in the order of their names.
    pub pass_env: Vec<String>,
    /// The metrics that the program reports, in the order of the file.
    pub metrics: Vec<DeclaredMetric>,
    /// Commands of which each must succeed once on a worker before it runs a trial.
    pub require: Vec<Vec<String>>,
    /// Whether equal trials give equal results, so that a differing one is an alarm.
    pub deterministic: bool,
    /// Most bytes of a checkpoint.
    pub checkpoint_limit: u64,
    /// Patterns of the files in the folder of a trial that are kept with its result.
    pub save: Vec<FilePattern>,
    /// What a trial takes of its worker.
    pub needs: TrialNeeds,
    /// The experiment in a worker that is run in place of a command.
    pub experiment: Option<Experiment>,
}

/// A metric that a program declares.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeclaredMetric {
    /// The name, an identifier.
    pub name: String,
    /// Which values are better.
    pub direction: Direction,
}

/// Which values of a declared metric are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Larger values are better.
    Max,
    /// Smaller values are better.
    Min,
    /// Neither. Volatile values, such as times, may differ between runs of the same trial.
    Volatile,
}

/// The words for directions in a sweep file.
pub const DIRECTIONS: [(&str, Direction); 3] = [
    ("max", Direction::Max),
    ("min", Direction::Min),
    ("volatile", Direction::Volatile),
];

impl Direction {
    /// The word in a sweep file.
    pub fn as_str(self) -> &'static str {
        let mut words = DIRECTIONS.iter();
        words
            .find(|(_, direction)| *direction == self)
            .map_or("?", |(word, _)| word)
    }
}

/// A program with the values of one cell.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgramCell {
    /// The program.
    pub program: Arc<Program>,
    /// The values of axes, of a case and of derived fields, in the order of their names: the same in all files that give them.
    pub values: Vec<(String, ProgramValue)>,
    /// Whether the trial has a dataset, that of `data` of its config. A program has none.
    pub has_data: bool,
}

impl ProgramCell {
    /// The value of an axis or of a derived field.
    pub fn find_value(&self, name: &str) -> Option<&ProgramValue> {
        let mut values = self.values.iter();
        values
            .find(|(other, _)| other == name)
            .map(|(_, value)| value)
    }

    /// The command of a trial, filled in.
    pub fn fill_command(&self, facts: &TrialFacts<'_>) -> Vec<String> {
        let arguments = self.program.command.iter();
        arguments
            .map(|template| template.fill(&self.values, facts))
            .collect()
    }

    /// The environment variables of a trial that the sweep file sets, filled in.
    pub fn fill_env(&self, facts: &TrialFacts<'_>) -> Vec<(String, String)> {
        let variables = self.program.env.iter();
        variables
            .map(|(name, template)| (name.clone(), template.fill(&self.values, facts)))
            .collect()
    }

    /// The values as part of the identity of a cell.
    pub(crate) fn identity_text(&self) -> String {
        let mut text = String::new();
        if self.program.experiment.is_some() {
            // The numerics class of a program stands for its metrics, and that of an experiment does not.
            let metrics = self.program.metrics.iter();
            let mut metrics: Vec<String> = metrics
                .map(|metric| format!("{}:{};", metric.name, metric.direction.as_str()))
                .collect();
            metrics.sort_unstable();
            text.push_str(&metrics.concat());
            // Rows of trials that may differ do not stand for those of trials that must not.
            if !self.program.deterministic {
                text.push_str("nondeterministic;");
            }
        }
        for (name, value) in &self.values {
            text.push_str(&format!("{name}={value:?};"));
        }
        text
    }
}

impl Program {
    /// The section of the sweep file that says what is run.
    pub fn section(&self) -> &'static str {
        match self.experiment {
            Some(_) => MODEL,
            None => SECTION,
        }
    }

    /// The numerics class: `program/` and 16 hex digits of a hash of all that decides the results. An experiment has
    /// [its own](Experiment::numerics_class).
    ///
    /// Scheduling, `require`, the limit of checkpoints and what a trial takes of its worker decide none. Of `pass_env`, the names count.
    pub fn numerics_class(&self) -> String {
        if let Some(experiment) = &self.experiment {
            return experiment.numerics_class();
        }
        let hash = self.identity_hash().to_hex();
        format!("{NUMERICS_PREFIX}{}", &hash[..16])
    }

    /// A hash of all that a user agrees to by letting the program run: all that decides its results, what else is run, and the texts
    /// among the values of its cells.
    pub fn consent_hash(&self, texts: &[(String, String)]) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("ergodic 2026 program consent v1");
        hasher.update(self.identity_hash().as_bytes());
        hash_count(&mut hasher, self.require.len());
        for command in &self.require {
            hash_count(&mut hasher, command.len());
            command
                .iter()
                .for_each(|argument| hash_part(&mut hasher, argument.as_bytes()));
        }
        hash_count(&mut hasher, texts.len());
        for (name, text) in texts {
            hash_part(&mut hasher, name.as_bytes());
            hash_part(&mut hasher, text.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    fn identity_hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_derive_key("ergodic 2026 program v1");
        hash_count(&mut hasher, self.command.len());
        for argument in &self.command {
            hash_part(&mut hasher, argument.to_string().as_bytes());
        }
        hash_part(&mut hasher, &[u8::from(self.bundle.is_some())]);
        match &self.bundle {
            Some(hash) => hash_part(&mut hasher, &hash.0),
            None => {
                hash_count(&mut hasher, self.files.len());
                let files = self.files.iter();
                files.for_each(|name| hash_part(&mut hasher, name.as_bytes()));
            }
        }

        self.hash_environment(&mut hasher);
        hash_count(&mut hasher, self.metrics.len());
        // Their order in the file means nothing.
        let mut metrics: Vec<&DeclaredMetric> = self.metrics.iter().collect();
        metrics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for metric in metrics {
            hash_part(&mut hasher, metric.name.as_bytes());
            hash_part(&mut hasher, metric.direction.as_str().as_bytes());
        }
        hash_part(&mut hasher, &[u8::from(self.deterministic)]);
        self.hash_save(&mut hasher);
        hasher.finalize()
    }

    fn hash_environment(&self, hasher: &mut blake3::Hasher) {
        hash_count(hasher, self.env.len());
        for (name, value) in &self.env {
            hash_part(hasher, name.as_bytes());
            hash_part(hasher, value.to_string().as_bytes());
        }
        hash_count(hasher, self.pass_env.len());
        for name in &self.pass_env {
            hash_part(hasher, name.as_bytes());
        }
    }
}

/// Whether trials of a numerics class are programs.
pub fn is_program_class(numerics: &str) -> bool {
    numerics.starts_with(NUMERICS_PREFIX)
}

/// Hashes the number of items before a list, so that no item passes for one of the next list.
fn hash_count(hasher: &mut blake3::Hasher, count: usize) {
    hasher.update(&(count as u64).to_le_bytes());
}

/// Hashes a length before the content, so that different lists of parts have different hashes.
fn hash_part(hasher: &mut blake3::Hasher, part: &[u8]) {
    hasher
        .update(&(part.len() as u64).to_le_bytes())
        .update(part);
}
