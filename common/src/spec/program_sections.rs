//! What a sweep of a program may have besides `[program]`, and one of an experiment besides `[model]`.

use crate::config::Length;
use crate::grid::reserved_names::is_column_without_metric;
use crate::metric::Metric;
use crate::program::needs::TrialNeeds;
use crate::program::{Program, SECTION, find_version, is_experiment_class, names_experiment};
use crate::spec::Spec;
use crate::spec::SpecSource;
use crate::spec::measure::Measure;
use crate::spec::numerics::read_numerics;
use crate::spec::stage::STAGE;
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::grammar::ReadingMode;
use crate::spec_file::node::{SpecTable, parse_document};
use crate::spec_file::reader::TableReader;

/// Tables and keys that a sweep of a program does not have, with what to do.
const REFUSED: [(&str, &str); 4] = [
    (
        "data",
        "a program brings its own data: remove [data], and name what varies in [grid]",
    ),
    (
        "model",
        "a program is its own model: remove [model], and name what varies in [grid]",
    ),
    (
        "train",
        "a program trains by itself: remove [train], and name what varies in [grid], such as lr = [0.1, 0.2]",
    ),
    (
        "measure",
        "a program measures what it declares: remove [measure], and name the metrics in program.metrics",
    ),
];

/// Tables that a sweep of an experiment does not have, with what to do.
const REFUSED_BESIDE_EXPERIMENT: [(&str, &str); 2] = [
    (
        "train",
        "an experiment trains by itself: remove [train], and write its settings as keys of [model] or [grid], such as lr = 0.1",
    ),
    (
        "measure",
        "an experiment measures what it declares: remove [measure], and name the metrics in model.metrics",
    ),
];

/// Refuses the tables that a sweep of a program or an experiment does not have.
pub(super) fn refuse_other_sections(document: &SpecTable) -> Result<(), SpecError> {
    let refused = match document.get(SECTION) {
        Some(_) => &REFUSED[..],
        None if names_experiment(document) => &REFUSED_BESIDE_EXPERIMENT,
        None => return Ok(()),
    };
    for (key, message) in refused {
        if let Some(node) = document.get(key) {
            return Err(SpecError::new(node.origin.clone(), *key, *message));
        }
    }
    Ok(())
}

/// Reads what is measured of a program: the metrics that it declares.
pub(super) fn measure_of_program(program: &Program) -> Measure {
    let metrics = program.metrics.iter().cloned().map(Metric::Declared);
    Measure::with_metrics(Length::Epochs(1), metrics.collect())
}

/// Reads the numerics class of trials that Ergodic trains itself.
pub(super) fn numerics_of_training(root: &TableReader<'_>) -> Result<String, SpecError> {
    let written = read_numerics(root)?;
    match is_experiment_class(&written) {
        true => Err(root.error_at(
            "numerics",
            "this is the class of an experiment, which model.kind does not name: remove numerics",
        )),
        false => Ok(written),
    }
}

/// Reads the numerics class of a program, which is its own. A launch writes it down, for an experiment with the version of the
/// workers; a stored sweep keeps the one that it has.
pub(super) fn numerics_of_program(
    root: &TableReader<'_>,
    program: &Program,
) -> Result<String, SpecError> {
    let own = program.numerics_class();
    if root.read_node("numerics").is_none() {
        return Ok(own);
    }
    let written = read_numerics(root)?;
    if let Some(experiment) = &program.experiment {
        return match experiment.allows_class(&written)
            || find_version(&own).is_none() && written == own
        {
            true => Ok(written),
            false => {
                let message =
                    format!("this experiment has the numerics class {own}: remove numerics");
                Err(root.error_at("numerics", message))
            }
        };
    }
    if written != own && root.reading_mode().is_new {
        let message = format!("the numerics class of this program is {own}: remove numerics");
        return Err(root.error_at("numerics", message));
    }
    Ok(written)
}

impl Spec {
    /// Checks that a sweep of a program has no stages.
    pub(super) fn check_program_stages(&self, source: &SpecSource) -> Result<(), SpecError> {
        if self.program().is_none() || self.stages.names.is_empty() {
            return Ok(());
        }
        let document = parse_document(&source.text)?;
        let origin = document.get(STAGE).map(|node| node.origin.clone());
        let message = "a program or experiment takes no weights of others, so there are no stages: write a sweep file for each";
        Err(SpecError::new(
            origin.unwrap_or(Origin::Default),
            STAGE,
            message,
        ))
    }

    /// The program, if the trials are one.
    pub fn program(&self) -> Option<&Program> {
        self.program.as_ref()
    }

    /// What a trial takes of its worker.
    pub fn trial_needs(&self) -> TrialNeeds {
        self.program()
            .map_or(TrialNeeds::ONE_SLOT, |program| program.needs)
    }

    /// Whether equal trials must have equal results, so that a differing one is an alarm.
    pub fn must_repeat_exactly(&self) -> bool {
        self.program().is_none_or(|program| program.deterministic)
    }

    /// Checks what a sweep of a program may say about scheduling.
    pub(super) fn check_program_scheduling(&self) -> Result<(), SpecError> {
        let is_audited = self.scheduling.audit_share > 0.0;
        if is_audited && !self.must_repeat_exactly() {
            let section = self.program().map_or(SECTION, Program::section);
            let message = format!(
                "an audit compares results, which may differ between runs of this program: remove audit, or set \
                 {section}.deterministic = true"
            );
            return Err(SpecError::new(Origin::Default, "audit", message));
        }
        Ok(())
    }

    /// Checks that no metric of a new program is called like a column of tables, but for those that are shown with a prefix. A later
    /// version has more columns: a metric of a stored program keeps its name.
    fn check_metric_names(
        program: &Program,
        source: &SpecSource,
        reading: ReadingMode,
    ) -> Result<(), SpecError> {
        let mut metrics = program.metrics.iter();
        let Some(metric) = metrics.find(|metric| is_column_without_metric(&metric.name)) else {
            return Ok(());
        };
        let path = format!("{}.metrics.{}", program.section(), metric.name);
        let message = format!(
            "'{}' is a column of tables: choose another name",
            metric.name
        );
        reading.refuse_if_new(|| SpecError {
            file: String::new(),
            ..source.field_error(&path, message)
        })
    }

    /// Checks that no axis or derived value of a program has the name of a metric.
    pub(super) fn check_program_names(
        &self,
        source: &SpecSource,
        reading: ReadingMode,
    ) -> Result<(), SpecError> {
        let Some(program) = self.program() else {
            return Ok(());
        };
        Self::check_metric_names(program, source, reading)?;
        let axes = self.grid.axes().iter();
        let axes = axes.map(|axis| (axis.name.as_str(), axis.origin.clone(), "grid"));
        let derived = self.grid.derived_value_names();
        let derived = derived.map(|name| (name, Origin::Default, "derive"));
        for (name, origin, section) in axes.chain(derived) {
            if program.metrics.iter().any(|metric| metric.name == name) {
                let owner = program.section();
                let message = format!("{owner}.metrics has this name: choose another one");
                return Err(SpecError::new(origin, format!("{section}.{name}"), message));
            }
        }
        Ok(())
    }
}
