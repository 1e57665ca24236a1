//! Experiments that workers have announced, and what a sweep must be to run on one.

use std::collections::BTreeSet;

use ergodic_common::config::TrialConfig;
use ergodic_common::program::{
    DIRECTIONS, DeclaredMetric, Experiment, Program, ProgramCell, experiment_class, find_version,
    is_experiment_class, is_experiment_name,
};
use ergodic_common::spec::SpecSource;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Map, Value, json};

use crate::config_schema::{check_config, find_unknown_keyword};

/// Most cells whose configs are checked: those of a larger sweep are drawn at random.
const MAX_CHECKED_CELLS: u64 = 1_000;
/// Most bytes of all schemas of a worker.
const MAX_SCHEMA_BYTES: usize = 256 << 10;

/// An experiment of a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownExperiment {
    /// The name in `kind = "custom:NAME"`.
    pub name: String,
    /// The version of its code.
    pub version: u32,
    /// The metrics that its trials report.
    pub metrics: Vec<DeclaredMetric>,
    /// The JSON schema of its config.
    pub schema: Value,
    /// Whether its trials need a dataset.
    pub needs_data: bool,
}

/// An experiment that somebody offers.
#[derive(Debug, Clone, PartialEq)]
pub struct OfferedExperiment {
    /// The experiment.
    pub experiment: KnownExperiment,
    /// The workers that have it, by name; none if they have no names yet.
    pub workers: Vec<String>,
}

impl From<KnownExperiment> for OfferedExperiment {
    fn from(experiment: KnownExperiment) -> Self {
        Self {
            experiment,
            workers: Vec::new(),
        }
    }
}

impl KnownExperiment {
    /// Reads what a worker has announced.
    ///
    /// # Errors
    /// A field is not valid.
    pub fn read_all(announced: &[v1::AnnouncedExperiment]) -> Result<Vec<Self>, String> {
        let bytes: usize = announced.iter().map(|one| one.config_schema.len()).sum();
        if bytes > MAX_SCHEMA_BYTES {
            return Err(format!(
                "the schemas of the experiments have {bytes} bytes; at most {MAX_SCHEMA_BYTES} are taken"
            ));
        }
        announced.iter().map(Self::read).collect()
    }

    fn read(announced: &v1::AnnouncedExperiment) -> Result<Self, String> {
        let name = announced.name.clone();
        if !is_experiment_name(&name) || announced.version == 0 {
            return Err("the name or version of an experiment is not valid".into());
        }
        let schema = serde_json::from_str(&announced.config_schema)
            .map_err(|_| format!("the schema of the experiment {name} is no JSON"))?;
        let metrics = announced.metrics.iter().map(read_metric);
        let metrics = metrics
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| format!("a metric of the experiment {name} is not valid"))?;
        Ok(Self {
            name,
            version: announced.version,
            metrics,
            schema,
            needs_data: announced.needs_data,
        })
    }

    fn class(&self) -> String {
        experiment_class(&self.name, self.version)
    }

    /// Checks that a sweep names metrics and configs of the experiment.
    fn check_sweep(&self, program: &Program, sweep: (&Spec, &SpecSource)) -> Result<(), UserError> {
        let (spec, source) = sweep;
        self.check_metrics(program)
            .map_err(|(path, why)| bad_input(source.field_error(&path, why)))?;
        if self.needs_data && !has_data(spec) {
            let why = format!(
                "the experiment {} needs data: add [data] with a dataset, such as dataset = \"glyphs\"",
                self.name
            );
            return Err(bad_input(source.field_error("data", why)));
        }
        if let Some(what) = find_unknown_keyword(&self.schema) {
            let why = format!(
                "the schema of the experiment {} has {what}, by which a launch cannot check a config: give the key of the config \
                 another type, and check its value in the experiment",
                self.name
            );
            return Err(bad_input(source.field_error("model.kind", why)));
        }
        self.check_cells(sweep)
    }

    fn check_metrics(&self, program: &Program) -> Result<(), (String, String)> {
        for metric in &program.metrics {
            let path = format!("model.metrics.{}", metric.name);
            let mut known = self.metrics.iter();
            let own = known.find(|own| own.name == metric.name);
            let own = own.ok_or_else(|| {
                let names: Vec<&str> = self.metrics.iter().map(|m| m.name.as_str()).collect();
                let why = format!(
                    "the experiment {} does not report it: name some of {}",
                    self.name,
                    names.join(", ")
                );
                (path.clone(), why)
            })?;
            if own.direction != metric.direction {
                let why = format!(
                    "the experiment {} declares it as \"{}\": write that",
                    self.name,
                    own.direction.as_str()
                );
                return Err((path, why));
            }
        }
        Ok(())
    }

    /// Checks the configs of cells against the schema, until one does not fit.
    fn check_cells(&self, (spec, source): (&Spec, &SpecSource)) -> Result<(), UserError> {
        for index in spec.grid.sample_cells(MAX_CHECKED_CELLS) {
            let Ok(config) = spec.grid.resolve_config(index) else {
                continue;
            };
            let Some(cell) = find_cell(&config) else {
                continue;
            };
            check_config(&self.schema, &config_of_cell(cell)).map_err(|wrong| {
                let path = find_path(spec, &wrong.key);
                let place = spec.grid.describe_cell(index);
                let why = format!("{} (in the cell {place})", wrong.message);
                bad_input(source.field_error(&path, why))
            })?;
        }
        Ok(())
    }
}

fn read_metric(metric: &v1::ExperimentMetric) -> Option<DeclaredMetric> {
    let mut directions = DIRECTIONS.iter();
    let (_, direction) = directions.find(|(word, _)| *word == metric.better)?;
    Some(DeclaredMetric {
        name: metric.name.clone(),
        direction: *direction,
    })
}

/// Whether the trials of a sweep have a dataset, which all or none do.
fn has_data(spec: &Spec) -> bool {
    let first = spec.grid.iter().next();
    let config = first.and_then(|cell| spec.grid.resolve_config(cell).ok());
    config.is_some_and(|config| config.uses_dataset())
}

fn find_cell(config: &TrialConfig) -> Option<&ProgramCell> {
    config.model.kind.program().map(|cell| &**cell)
}

/// The config of a cell as its experiment gets it.
fn config_of_cell(cell: &ProgramCell) -> Map<String, Value> {
    let values = cell.values.iter();
    values
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect()
}

/// Where the file sets a key of the config; `[model]` if nowhere.
fn find_path(spec: &Spec, key: &str) -> String {
    if spec.grid.axes().iter().any(|axis| axis.name == key) {
        return format!("grid.{key}");
    }
    if spec.grid.derived_value_names().any(|name| name == key) {
        return format!("derive.{key}");
    }
    let mut of_cases = spec.grid.case_fields();
    match of_cases.any(|field| field.rsplit('.').next() == Some(key)) {
        true => "case".into(),
        false => format!("model.{key}"),
    }
}

/// Chooses the numerics class of a sweep of an experiment among those that workers have, and checks the sweep against it; the class
/// that the file names if no worker has it. `remedy` says how to get a worker that has one.
///
/// # Errors
/// No worker has the experiment, several versions are there or one that is not the same everywhere, or metrics or a config do not
/// fit; with field and line.
pub fn choose_experiment_class(
    sweep: (&Spec, &SpecSource),
    offered: &[OfferedExperiment],
    remedy: &str,
) -> Result<String, UserError> {
    let (spec, source) = sweep;
    let Some((program, wanted)) = find_experiment(spec) else {
        return Ok(spec.numerics.clone());
    };
    let at_kind = |why: String| bad_input(source.field_error("model.kind", why));
    let pinned = find_version(&spec.numerics).map(|(_, version)| version);
    let named = offered
        .iter()
        .filter(|one| one.experiment.name == wanted.name);
    let versions: BTreeSet<u32> = named.clone().map(|one| one.experiment.version).collect();
    let version = match (pinned, versions.len()) {
        (Some(version), _) => version,
        (None, 1) => versions.into_iter().next().unwrap_or_default(),
        (None, 0) => {
            let name = &wanted.name;
            return Err(at_kind(format!(
                "no worker has the experiment '{name}': {remedy}"
            )));
        }
        _ => {
            let versions: Vec<String> = versions.iter().map(u32::to_string).collect();
            return Err(at_kind(format!(
                "workers have several versions of this experiment, which do not mix: set model.version to one of {}",
                versions.join(", ")
            )));
        }
    };

    let mut of_version = named.filter(|one| one.experiment.version == version);
    let Some(first) = of_version.next() else {
        return Ok(experiment_class(&wanted.name, version));
    };
    if let Some(other) = of_version.find(|other| other.experiment != first.experiment) {
        return Err(at_kind(describe_difference(first, other)));
    }
    first.experiment.check_sweep(program, sweep)?;
    Ok(first.experiment.class())
}

/// Says that two workers mean different things by one version of an experiment.
fn describe_difference(first: &OfferedExperiment, other: &OfferedExperiment) -> String {
    let (one, two) = (&first.experiment, &other.experiment);
    let what = if one.schema != two.schema {
        "schemas of its config"
    } else if one.metrics != two.metrics {
        "metrics"
    } else {
        "needs of data"
    };
    let names = [first, other].map(|offered| offered.workers.first().map(String::as_str));
    let who = match names {
        [Some(first), Some(other)] => format!("the workers {first} and {other}"),
        _ => "workers".to_owned(),
    };
    format!(
        "{who} announce different {what} for version {} of the experiment {}: raise VERSION of the experiment with each change of \
         its code, and start all of its workers again",
        one.version, one.name
    )
}

fn find_experiment(spec: &Spec) -> Option<(&Program, &Experiment)> {
    let program = spec.program()?;
    program.experiment.as_ref().map(|one| (program, one))
}

/// Checks that local workers have the experiment of a numerics class, if it is one.
///
/// # Errors
/// No local worker has it.
pub fn check_local_class(class: &str, known: &[KnownExperiment]) -> Result<(), UserError> {
    if !is_experiment_class(class) || known.iter().any(|one| one.class() == class) {
        return Ok(());
    }
    let message = format!(
        "numerics: the worker program has no experiment {class}: name one that has it with --worker-bin FILE"
    );
    Err(UserError::new(ErrorCode::BadInput, message))
}

fn bad_input(error: impl std::fmt::Display) -> UserError {
    UserError::new(ErrorCode::BadInput, error.to_string())
}

#[cfg(test)]
mod tests {
    use ergodic_common::program::Direction;

    use crate::experiments::*;

    const FILE: &str = "name = \"t\"\n[model]\nkind = \"custom:walk\"\nmetrics = { loss = \"min\" }\nsteps = 4\n[grid]\nscale = [0.5, 1]\n";

    fn known(version: u32) -> KnownExperiment {
        let schema = json!({
            "type": "object",
            "additionalProperties": false,
            "properties": { "scale": { "type": "number" }, "steps": { "type": "integer", "minimum": 0 } },
            "required": ["scale", "steps"],
        });
        let metric = |name: &str, direction| DeclaredMetric {
            name: name.into(),
            direction,
        };
        KnownExperiment {
            name: "walk".into(),
            version,
            metrics: vec![
                metric("loss", Direction::Min),
                metric("speed", Direction::Volatile),
            ],
            schema,
            needs_data: false,
        }
    }

    fn choose(text: &str, known: &[KnownExperiment]) -> Result<String, String> {
        let offered: Vec<_> = known.iter().cloned().map(OfferedExperiment::from).collect();
        choose_offered(text, &offered)
    }

    fn choose_offered(text: &str, offered: &[OfferedExperiment]) -> Result<String, String> {
        let source = SpecSource {
            file: "sweep.toml".into(),
            text: text.to_owned(),
            ..SpecSource::default()
        };
        let spec = Spec::read_new(&source).unwrap_or_else(|e| panic!("{e}"));
        choose_experiment_class((&spec, &source), offered, "start one")
            .map_err(|error| error.message)
    }

    #[test]
    fn a_sweep_takes_the_version_that_workers_have() {
        assert_eq!(choose(FILE, &[known(3)]), Ok("custom/walk/3".into()));
        let versioned = FILE.replace("steps = 4", "version = 2\nsteps = 4");
        for workers in [&[][..], &[known(3)], &[known(2), known(3)]] {
            assert_eq!(choose(&versioned, workers), Ok("custom/walk/2".into()));
        }
    }

    #[test]
    fn what_does_not_fit_the_experiment_is_refused_with_line_and_remedy() {
        for (from, to, words) in [
            (
                "loss = \"min\"",
                "los = \"min\"",
                "sweep.toml:4: model.metrics.los: the experiment walk does not report it: name some of loss, speed",
            ),
            (
                "loss = \"min\"",
                "loss = \"max\"",
                "sweep.toml:4: model.metrics.loss: the experiment walk declares it as \"min\": write that",
            ),
            (
                "steps = 4",
                "stepps = 4",
                "sweep.toml:5: model.stepps: the config has no key 'stepps', did you mean 'steps'?",
            ),
            (
                "steps = 4",
                "steps = 0.5",
                "sweep.toml:5: model.steps: expected a whole number, found 0.5",
            ),
            (
                "[0.5, 1]",
                "[0.5, \"a\"]",
                "grid.scale: expected a number, found \"a\" (in the cell scale=a)",
            ),
            ("steps = 4\n", "", "model.steps: the config needs 'steps'"),
        ] {
            assert!(FILE.contains(from), "{from}");
            let error = choose(&FILE.replace(from, to), &[known(3)]).expect_err("a refusal");
            assert!(error.contains(words), "{to}: {error}");
        }

        let error = choose(FILE, &[]).expect_err("a refusal");
        let words = "sweep.toml:3: model.kind: no worker has the experiment 'walk': start one";
        assert_eq!(error, words);
        let error = choose(FILE, &[known(3), known(4)]).expect_err("a refusal");
        assert!(
            error.contains("set model.version to one of 3, 4"),
            "{error}"
        );
    }

    #[test]
    fn a_version_that_is_not_the_same_on_all_workers_is_refused() {
        let offered = |experiment: &KnownExperiment, worker: &str| OfferedExperiment {
            experiment: experiment.clone(),
            workers: vec![worker.to_owned(), "later".to_owned()],
        };
        type Change = fn(&mut KnownExperiment);
        let changes: [(&str, Change); 3] = [
            ("schemas of its config", |one| {
                one.schema["properties"]["steps"] = json!({ "type": "number" });
            }),
            ("metrics", |one| one.metrics.truncate(1)),
            ("needs of data", |one| one.needs_data = true),
        ];
        for (what, change) in changes {
            let mut other = known(3);
            change(&mut other);
            let both = [offered(&known(3), "desk"), offered(&other, "rack")];
            let error = choose_offered(FILE, &both).expect_err("a refusal");
            let words = format!(
                "sweep.toml:3: model.kind: the workers desk and rack announce different {what} for version 3 of the experiment walk: \
                 raise VERSION of the experiment with each change of its code, and start all of its workers again"
            );
            assert_eq!(error, words);

            // Neither sweeps of another version nor those of another experiment are concerned.
            let versioned = FILE.replace("steps = 4", "version = 2\nsteps = 4");
            let with_older = [&both[..], &[offered(&known(2), "old")]].concat();
            assert_eq!(
                choose_offered(&versioned, &with_older),
                Ok("custom/walk/2".into())
            );
            let mut foreign = both.to_vec();
            for one in &mut foreign {
                one.experiment.name = "jump".into();
            }
            foreign.push(known(3).into());
            assert_eq!(choose_offered(FILE, &foreign), Ok("custom/walk/3".into()));
        }
    }

    #[test]
    fn a_schema_that_a_launch_cannot_check_is_refused_by_name() {
        let mut one = known(3);
        one.schema["properties"]["steps"]["pattern"] = json!("a+");
        let error = choose(FILE, &[one]).expect_err("a refusal");
        let words = "sweep.toml:3: model.kind: the schema of the experiment walk has the keyword 'pattern' at properties/steps, by \
                     which a launch cannot check a config: give the key of the config another type";
        assert!(error.starts_with(words), "{error}");
    }

    #[test]
    fn an_experiment_that_needs_data_gets_some() {
        let needy = KnownExperiment {
            needs_data: true,
            ..known(3)
        };
        let error = choose(FILE, std::slice::from_ref(&needy)).expect_err("a refusal");
        let words = "sweep.toml: data: the experiment walk needs data: add [data] with a dataset, such as dataset = \"glyphs\"";
        assert_eq!(error, words);
        let with_data = format!("{FILE}[data]\ndataset = \"glyphs\"\n");
        assert_eq!(
            choose(&with_data, std::slice::from_ref(&needy)),
            Ok("custom/walk/3".into())
        );
        assert_eq!(choose(&with_data, &[known(3)]), Ok("custom/walk/3".into()));
        let of_axis = format!("{FILE}\"data.train\" = [50, 100]\n");
        assert_eq!(choose(&of_axis, &[needy]), Ok("custom/walk/3".into()));
    }

    #[test]
    fn a_worker_program_without_the_experiment_is_refused() {
        assert!(check_local_class("custom/walk/3", &[known(3)]).is_ok());
        assert!(check_local_class("cpu-f32/6", &[]).is_ok());
        let error = check_local_class("custom/walk/4", &[known(3)]).expect_err("a refusal");
        assert!(error.message.contains("--worker-bin"), "{error}");
    }

    #[test]
    fn wrong_announcements_are_refused() {
        let right = v1::AnnouncedExperiment {
            name: "walk".into(),
            version: 1,
            config_schema: "{}".into(),
            metrics: Vec::new(),
            needs_data: false,
        };
        let refused = |change: &dyn Fn(&mut v1::AnnouncedExperiment)| {
            let mut wrong = right.clone();
            change(&mut wrong);
            KnownExperiment::read_all(&[wrong]).is_err()
        };
        assert!(!refused(&|_| {}));
        assert!(refused(&|one| one.name = "Walk".into()));
        assert!(refused(&|one| one.version = 0));
        assert!(refused(&|one| one.config_schema = "{".into()));
        assert!(refused(
            &|one| one.config_schema = " ".repeat(MAX_SCHEMA_BYTES + 1)
        ));
        assert!(refused(&|one| one
            .metrics
            .push(v1::ExperimentMetric::default())));
    }
}
