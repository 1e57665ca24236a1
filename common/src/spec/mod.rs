//! A sweep file, read and checked.

pub(crate) mod meaning_hash;
pub mod misleading;
pub mod result_reuse;
pub mod scheduling;
pub mod stopping_rule;
#[cfg(test)]
mod tests;

use crate::config::{Length, ModelKind, TrialConfig};
use crate::escape::escape_line;
use crate::grid::{Grid, StillWanted};
use crate::metric::{MAX_METRICS, MeasurementPass, Metric};
use crate::number_format::DistinctFormat;
use crate::pinned_file::{FilePin, SAFETENSORS_SUFFIX};
use crate::random_streams;
use crate::random_streams::{Purpose, SeedPlan, Streams};
use crate::spec::scheduling::Scheduling;
use crate::spec::stopping_rule::{StoppingRule, read_repeats};
use crate::spec_file::error::{SpecError, suggest_nearest};
use crate::spec_file::grammar::{GRAMMAR, ReadingMode};
use crate::spec_file::node;
use crate::spec_file::node::{SpecNode, SpecTable, SpecValue};
use crate::spec_file::reader::{NumberRange, TableReader, quote_value};
use crate::trial::{CPU_F32, CUDA_F32, TrialKey};

/// Most trials of a sweep.
pub const MAX_TRIALS: u64 = 1_000_000_000;
/// Most numbers in a trial's curve: steps and samples of all metrics.
const MAX_CURVE_NUMBERS: u64 = 200_000;
/// Most predictions that a trial keeps: probe points times moments.
pub const MAX_PREDICTIONS: u64 = 1_000_000;
/// Most cells that are resolved for [`Spec::print`].
const FINGERPRINTED_CELLS: u64 = 256;
/// Longest sweep file, in bytes.
pub const MAX_TEXT_BYTES: usize = 4 << 20;

/// A sweep file as the user gave it: enough to read the same spec anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecSource {
    /// The file's name, for messages.
    pub file: String,
    /// Its text.
    pub text: String,
    /// `--set key=value`, in order.
    pub settings: Vec<String>,
    /// The files that it names, by their content.
    pub files: Vec<FilePin>,
    /// The version of the grammar in which it is read.
    pub grammar: u32,
    /// What its cells resolve to ([`Spec::print`]), of a sweep that is stored. None is known where an earlier version of
    /// this program stored it.
    pub cells_fingerprint: Option<[u8; 32]>,
}

/// An empty file in today's grammar.
impl Default for SpecSource {
    fn default() -> Self {
        let file = String::new();
        let text = String::new();
        let settings = Vec::new();
        let files = Vec::new();
        Self {
            file,
            text,
            settings,
            files,
            grammar: GRAMMAR,
            cells_fingerprint: None,
        }
    }
}

impl SpecSource {
    /// What stands in the file, with the settings put into it.
    ///
    /// # Errors
    /// The text is no TOML, or a setting none that can be made.
    pub(crate) fn read_document(&self) -> Result<SpecTable, SpecError> {
        let mut document = node::parse_document(&self.text)?;
        for setting in &self.settings {
            let (path, node) = node::parse_setting(setting)?;
            let place = node.origin.clone();
            document
                .set_at_path(&expand_short_name(&path), node)
                .map_err(|at| SpecError::new(place, path, format!("'{at}' is not a table")))?;
        }

        Ok(document)
    }

    /// The name that the file and its settings give the sweep, whatever else is wrong with it.
    pub fn sweep_name(&self) -> Option<String> {
        let document = self
            .read_document()
            .or_else(|_| node::parse_document(&self.text))
            .ok()?;
        Some(
            document
                .get("name")?
                .value
                .as_str()?
                .chars()
                .filter(|c| !c.is_control())
                .take(64)
                .collect(),
        )
    }

    /// The paths of files that the text and the settings name, as they stand there. What cannot be read names none: that
    /// is for [`Spec::read`] to say.
    pub fn named_files(&self) -> Vec<String> {
        let Ok(document) = self.read_document() else {
            return Vec::new();
        };
        let mut paths = Vec::new();

        for field in [
            &["data", "dataset"][..],
            &["model", "init", "file"],
            &["grid"],
        ] {
            value_at_path(&document, field)
                .iter()
                .for_each(|value| collect_file_names(value, &mut paths));
        }

        paths.sort_unstable();
        paths.dedup();
        paths
    }
}

/// What stands under a path of keys.
fn value_at_path<'a>(document: &'a SpecTable, path: &[&str]) -> Option<&'a SpecValue> {
    let (key, rest) = path.split_first()?;
    match &document.get(key)?.value {
        SpecValue::Table(table) if !rest.is_empty() => value_at_path(table, rest),
        value => rest.is_empty().then_some(value),
    }
}

fn collect_file_names(value: &SpecValue, paths: &mut Vec<String>) {
    match value {
        SpecValue::Str(text) if text.ends_with(SAFETENSORS_SUFFIX) => paths.push(text.clone()),
        SpecValue::List(items) => items
            .iter()
            .for_each(|item| collect_file_names(&item.value, paths)),
        SpecValue::Table(table) => table
            .0
            .iter()
            .for_each(|(_, node)| collect_file_names(&node.value, paths)),
        _ => {}
    }
}

/// What a sweep file means.
#[derive(Debug, Clone)]
pub struct Spec {
    /// `name`
    pub name: String,
    /// Repeats per cell, or the most there may be.
    pub repeats: u32,
    /// When fewer repeats of a cell will do.
    pub stopping_rule: Option<StoppingRule>,
    /// `seed`
    pub seed: u64,
    /// `seeds`
    pub seeds: SeedPlan,
    /// The numerics class that every trial must be run in.
    pub numerics: String,
    /// `[measure]`
    pub measure: Measure,
    /// On what terms trials are run.
    pub scheduling: Scheduling,
    /// All cells.
    pub grid: Grid,
}

/// `[measure]`: what is sampled, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// Sampled after every so many steps or epochs, and at the end.
    pub every: Length,
    /// What is sampled.
    pub metrics: Vec<Metric>,
    /// Under which statistics of batch norms networks are evaluated.
    pub statistics: EvalStatistics,
    /// The probe set, if predictions are kept.
    pub probe: Option<Probe>,
    /// Whether the trained weights are kept.
    pub save: bool,
}

impl Measure {
    /// Whether a metric is read from this pass.
    pub fn needs_pass(&self, pass: MeasurementPass) -> bool {
        self.metrics
            .iter()
            .any(|metric| metric.required_pass() == Some(pass))
    }
}

/// `[measure] statistics`: those of batch norms under which test, validation and probe images are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvalStatistics {
    /// Those that follow the training batches with a momentum.
    Running,
    /// Means over the batches of an epoch of training images, not augmented, under the weights that are evaluated.
    ReEstimated,
}

const EVAL_STATISTICS: [(&str, EvalStatistics); 2] = [
    ("running", EvalStatistics::Running),
    ("re-estimated", EvalStatistics::ReEstimated),
];

/// `[measure] probe`: the fixed test inputs for which predictions are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// How many.
    pub points: u32,
    /// When they are looked at.
    pub at: Vec<Moment>,
}

/// A moment of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// After so many steps or epochs.
    After(Length),
    /// After the last step.
    Final,
}

impl Moment {
    /// "20 epochs", "500 steps", or "final".
    pub fn parse(text: &str) -> Option<Self> {
        if text.trim() == "final" {
            Some(Self::Final)
        } else {
            Length::parse(text).map(Self::After)
        }
    }

    /// The number of steps after which it is, in a trial of this config.
    pub fn step_in_trial(self, config: &TrialConfig) -> u64 {
        match self {
            Self::After(length) => config.length_in_steps(length),
            Self::Final => config.total_steps(),
        }
    }
}

impl Spec {
    /// Reads the file of a sweep that is stored, or was accepted before: it means what it meant then, and nothing of it is
    /// refused that was not refused then.
    ///
    /// # Errors
    /// The first thing in it that cannot be carried out, with file, line and field.
    pub fn read_stored(source: &SpecSource) -> Result<Self, SpecError> {
        Self::read_and_check(source, ReadingMode::for_stored(source.grammar), &|| true)
            .map_err(|e| e.with_file(&source.file))
    }

    /// Reads and checks the file of a new sweep: one that is planned, run, launched, or made of another one.
    ///
    /// # Errors
    /// The first thing in it that cannot be carried out, or is refused, with file, line and field.
    pub fn read_new(source: &SpecSource) -> Result<Self, SpecError> {
        Self::read_new_while_wanted(source, &|| true)
    }

    /// The same as long as somebody waits for it.
    ///
    /// # Errors
    /// As for [`Spec::read_new`]; or nobody waits any more.
    pub fn read_new_while_wanted(
        source: &SpecSource,
        wanted: StillWanted<'_>,
    ) -> Result<Self, SpecError> {
        Self::read_and_check(source, ReadingMode::for_new(source.grammar), wanted)
            .map_err(|e| e.with_file(&source.file))
    }

    fn read_and_check(
        source: &SpecSource,
        reading: ReadingMode,
        wanted: StillWanted<'_>,
    ) -> Result<Self, SpecError> {
        let reading = reading.check_grammar()?;
        if source.text.len() > MAX_TEXT_BYTES {
            let message = format!(
                "the file has {} bytes; at most {MAX_TEXT_BYTES} are possible",
                source.text.len()
            );
            return Err(SpecError::new(node::Origin::Default, "", message));
        }

        let document = source.read_document()?;
        let r = TableReader::from_document(&document, reading);

        for key in ["data", "model", "train", "grid", "derive", "where"] {
            r.read_node(key);
        }

        let seed = r
            .read_whole_number("seed", NumberRange::whole_numbers(0, 1 << 53))?
            .unwrap_or(0);
        let name = read_name(&r);
        let repeats = read_repeats(&r);
        let seeds = read_seeds(&r);

        let measure = Measure::read_section(&r);
        let numerics = read_numerics(&r);
        let terms = Scheduling::read_fields(&r);

        // A misspelt section is a better answer than what is missing because of it.
        r.refuse_unknown_keys()?;
        let (repeats, until) = repeats?;
        let spec = Self {
            name: name?,
            repeats,
            stopping_rule: until,
            seed,
            seeds: seeds?,
            numerics: numerics?,
            measure: measure?,
            scheduling: terms?,
            grid: Grid::from_document(&document, seed, &source.files, (reading, wanted))?,
        };
        spec.check_cells()?;

        spec.check_layer_metrics()?;
        spec.stopping_rule
            .iter()
            .try_for_each(|until| until.check_metric(&spec.measure.metrics))?;
        spec.check_settings(source)?;
        spec.check_crossed_streams()?;

        let trials = spec
            .grid
            .cell_count()
            .saturating_mul(u64::from(spec.repeats));
        if trials > MAX_TRIALS {
            let message = format!(
                "{trials} trials are too many; at most {MAX_TRIALS} are possible: use fewer repeats"
            );
            return Err(SpecError::new(node::Origin::Default, "repeats", message));
        }

        Ok(spec)
    }

    /// What is measured and kept must be possible in every cell; one per shape class tells.
    fn check_cells(&self) -> Result<(), SpecError> {
        for class in
            (0..self.grid.class_count()).filter(|class| self.grid.class_cell_count(*class) > 0)
        {
            let config = self
                .grid
                .resolve_config(self.grid.class_cell_at(class, 0))?;
            self.check_curve_size(&config)?;
            self.check_toy_metrics(&config)?;
            self.check_validation_images(&config)?;

            self.check_probe_and_weights(&config)?;
        }

        Ok(())
    }

    /// Every crossed stream must meet every other one equally often.
    fn check_crossed_streams(&self) -> Result<(), SpecError> {
        let combinations = self.seeds.combination_count();
        if u64::from(self.repeats).is_multiple_of(combinations) {
            return Ok(());
        }

        let message = format!(
            "{} repeats do not meet all {combinations} combinations of the streams in seeds.crossed equally often: set \
             repeats = {combinations}, or a multiple",
            self.repeats
        );
        Err(SpecError::new(node::Origin::Default, "repeats", message))
    }

    /// A trial's curve must fit into a message.
    fn check_curve_size(&self, config: &TrialConfig) -> Result<(), SpecError> {
        let rows = config
            .total_steps()
            .div_ceil(config.length_in_steps(self.measure.every).max(1));
        let numbers = rows.saturating_mul(1 + self.measure.metrics.len() as u64);
        if numbers > MAX_CURVE_NUMBERS {
            let message = format!(
                "{rows} samples of {} metrics per trial are too many: sample less often",
                self.measure.metrics.len()
            );
            return Err(SpecError::new(
                node::Origin::Default,
                "measure.every",
                message,
            ));
        }

        Ok(())
    }

    /// The toy loss must have what is measured of it.
    fn check_toy_metrics(&self, config: &TrialConfig) -> Result<(), SpecError> {
        let undefined = self
            .measure
            .metrics
            .iter()
            .find(|metric| metric.needs_images());
        let (ModelKind::Toy(_), Some(metric)) = (&config.model.kind, undefined) else {
            return Ok(());
        };
        let message = format!(
            "the toy loss has no {}: name metrics that it has, such as [\"train_loss\", \"weight_norm_sq\"]",
            metric.name()
        );

        Err(SpecError::new(
            node::Origin::Default,
            "measure.metrics",
            message,
        ))
    }

    /// What is measured on validation images needs some.
    fn check_validation_images(&self, config: &TrialConfig) -> Result<(), SpecError> {
        let undefined = self
            .measure
            .metrics
            .iter()
            .find(|metric| metric.needs_validation());
        let (true, 0, Some(metric)) = (
            config.model.kind.needs_images(),
            config.data.validation,
            undefined,
        ) else {
            return Ok(());
        };
        let message = format!(
            "{} needs images to validate on: set data.validation = {}, and so many training images are kept aside",
            metric.name(),
            (config.data.dataset.split_sizes().0 / 10).max(1)
        );

        Err(SpecError::new(
            node::Origin::Default,
            "measure.metrics",
            message,
        ))
    }

    /// A layer whose weights are to be measured must exist in some cell.
    fn check_layer_metrics(&self) -> Result<(), SpecError> {
        for metric in &self.measure.metrics {
            let Metric::LayerNormSq(layer) = metric else {
                continue;
            };
            let mut names = Vec::new();

            for class in
                (0..self.grid.class_count()).filter(|class| self.grid.class_cell_count(*class) > 0)
            {
                let net = crate::net::Net::from_config(
                    &self
                        .grid
                        .resolve_config(self.grid.class_cell_at(class, 0))?,
                );
                names.extend(net.into_iter().flat_map(|net| net.layers).map(|l| l.name));
            }

            if !names.contains(layer) {
                let hint = suggest_nearest(layer, names.iter().map(String::as_str));
                let message = format!(
                    "{}: no model of the sweep has a layer '{layer}', {hint}",
                    metric.name()
                );
                return Err(SpecError::new(
                    node::Origin::Default,
                    "measure.metrics",
                    message,
                ));
            }
        }

        Ok(())
    }

    /// What is kept must exist: the probe set in the test set, its moments in the trial.
    fn check_probe_and_weights(&self, config: &TrialConfig) -> Result<(), SpecError> {
        let error =
            |field: &str, message| Err(SpecError::new(node::Origin::Default, field, message));

        if !config.model.kind.needs_images() && (self.measure.probe.is_some() || self.measure.save)
        {
            let message = "a model that is no network has neither predictions nor weights: remove probe and save";
            return error("measure", message.into());
        }

        let Some(probe) = &self.measure.probe else {
            return Ok(());
        };
        let (_, images) = config.data.dataset.split_sizes();
        if probe.points > images {
            let word = config.data.dataset.as_str();
            let message = format!(
                "{word} has {images} test images, which are fewer than {}",
                probe.points
            );
            return error("measure.probe.points", message);
        }

        let mut moments = probe.at.iter().map(|moment| moment.step_in_trial(config));
        let steps = config.total_steps();
        if let Some(step) = moments.find(|step| *step > steps) {
            let message =
                format!("step {step} is after the end: a trial of this sweep has {steps} steps");
            return error("measure.probe.at", message);
        }

        Ok(())
    }

    /// A setting that an axis or `[derive]` would override says nothing, which is not what its user meant.
    fn check_settings(&self, source: &SpecSource) -> Result<(), SpecError> {
        for setting in &source.settings {
            let (path, node) = node::parse_setting(setting)?;
            let field = expand_short_name(&path);
            let axis = self
                .grid
                .axes()
                .iter()
                .find(|axis| axis.field.as_ref() == Some(&field));
            let owner = axis.map(|axis| format!("grid.{}", axis.name));
            let owner = owner.or_else(|| {
                self.grid
                    .has_derived_field(&field)
                    .then(|| format!("derive.{path}"))
            });

            if let Some(owner) = owner {
                let message =
                    format!("{owner} decides this field in every cell: set {owner} instead");
                return Err(SpecError::new(node.origin, path, message));
            }
        }

        Ok(())
    }

    /// Trials in all, or the most there may be.
    pub fn trial_count(&self) -> u64 {
        self.grid.cell_count() * u64::from(self.repeats)
    }

    /// Trials of a shape class.
    pub fn class_trial_count(&self, class: u32) -> u64 {
        self.grid.class_cell_count(class) * u64::from(self.repeats)
    }

    /// Whether this sweep has such a trial.
    pub fn has_trial(&self, key: TrialKey) -> bool {
        key.repeat < self.repeats && self.grid.has_cell(key.cell)
    }

    /// The identity of a cell: what it resolves to, on which data, under which seed and numerics. Axis and free names,
    /// repeats, terms and `[measure]` are left out, so that cells keep it when a sweep is extended.
    pub fn compute_cell_hash(&self, config: &TrialConfig, data: &[u8; 32]) -> [u8; 32] {
        let mut fields = config.identity_fields();
        fields.sort_unstable();
        let mut hasher = blake3::Hasher::new_derive_key("ergodic 2026 cell v1");
        hasher
            .update(data)
            .update(&self.seed.to_le_bytes())
            .update(self.numerics.as_bytes());

        hasher.update(self.seeds.identity_text().as_bytes());
        for (path, value) in fields {
            hasher
                .update(path.as_bytes())
                .update(b"=")
                .update(value.as_bytes())
                .update(b"\n");
        }

        *hasher.finalize().as_bytes()
    }

    /// The earliest version of the grammar in which the file means the same: older programs may work on its sweep.
    pub fn min_grammar(&self) -> u32 {
        self.grid.min_grammar()
    }

    /// A digest of what the cells are: their numbers, the order in which they are run, and what they resolve to. Programs that find
    /// different ones for a text would take the rows of some cells for those of others. Of more cells than a few hundred, those that
    /// are kept and what expressions yield are looked at in all, and so many drawn by lot in full.
    pub fn compute_cells_fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("ergodic 2026 cells v1");
        self.grid.hash_layout(&mut hasher);

        for cell in self.grid.sample_cells(FINGERPRINTED_CELLS) {
            let (class, n) = self.grid.locate_trial(TrialKey { cell, repeat: 0 });
            hasher
                .update(&cell.to_le_bytes())
                .update(&class.to_le_bytes())
                .update(&n.to_le_bytes());

            match self.grid.resolve_config(cell) {
                Ok(config) => hasher.update(&self.compute_cell_hash(&config, &[0; 32])),
                Err(error) => hasher.update(error.to_string().as_bytes()),
            };
        }

        *hasher.finalize().as_bytes()
    }

    /// Whether the cells are those that the sweep had when it was stored, as far as that is known.
    pub fn is_as_stored(&self, source: &SpecSource) -> bool {
        source
            .cells_fingerprint
            .is_none_or(|cells| cells == self.compute_cells_fingerprint())
    }

    /// Whether the trial of this repeat of a cell is to be audited. That depends on what the cell is alone: not on the order
    /// in which trials are run, nor on which others there are, and a larger share audits the same ones and more.
    pub fn should_audit(&self, cell_hash: &[u8; 32], repeat: u32) -> bool {
        let share = self.scheduling.audit_share;
        share > 0.0 && random_streams::audit_draw(self.seed, cell_hash, repeat) < share
    }

    /// The random streams of a trial.
    pub fn trial_streams(&self, key: TrialKey, cell_hash: [u8; 32]) -> Streams {
        Streams {
            sweep_seed: self.seed,
            repeat: key.repeat,
            cell: cell_hash,
            plan: self.seeds.clone(),
        }
    }
}

impl Measure {
    /// Samples of these metrics alone.
    pub fn with_metrics(every: Length, metrics: Vec<Metric>) -> Self {
        Self {
            every,
            metrics,
            statistics: EvalStatistics::Running,
            probe: None,
            save: false,
        }
    }

    fn read_section(root: &TableReader<'_>) -> Result<Self, SpecError> {
        let r = root.section("measure")?;
        let every = match r.read_str("every")? {
            None => Length::Epochs(1),
            Some(text) => Length::parse(text).ok_or_else(|| {
                r.error_at(
                    "every",
                    format!("expected something like \"1 epoch\" or \"50 steps\", found '{text}'"),
                )
            })?,
        };

        let metrics = match r.read_list("metrics")? {
            None => vec![Metric::TrainLoss, Metric::TestAcc],
            Some(items) => Self::read_metrics(&r, items)?,
        };
        let statistics = r
            .read_word("statistics", &EVAL_STATISTICS)?
            .unwrap_or(EvalStatistics::Running);

        let probe = Self::read_probe(&r)?;
        let save = Self::read_save_weights(&r)?;
        r.refuse_unknown_keys()?;
        Ok(Self {
            every,
            metrics,
            statistics,
            probe,
            save,
        })
    }

    fn read_probe(measure: &TableReader<'_>) -> Result<Option<Probe>, SpecError> {
        if measure.read_node("probe").is_none() {
            return Ok(None);
        }

        let r = measure.section("probe")?;
        let Some(points) =
            r.read_whole_number("points", NumberRange::whole_numbers(1, MAX_PREDICTIONS))?
        else {
            return Err(r.error_at("points", "how many test images? Set points = 1000"));
        };

        let moment = |item: &SpecNode| {
            let moment = item.value.as_str().and_then(Moment::parse);
            moment.ok_or_else(|| {
                let found = quote_value(&item.value);
                r.error_at(
                    "at",
                    format!("expected moments like \"20 epochs\", \"50 steps\" or \"final\", found {found}"),
                )
            })
        };
        let at = match r.read_list("at")? {
            None => vec![Moment::Final],
            Some(items) => items.iter().map(moment).collect::<Result<Vec<_>, _>>()?,
        };
        if at.is_empty() {
            return Err(r.error_at("at", "the list is empty: name a moment, such as \"final\""));
        }

        if points * at.len() as u64 > MAX_PREDICTIONS {
            let message = format!(
                "{points} points at {} moments are too many: at most {MAX_PREDICTIONS} predictions per trial are kept",
                at.len()
            );
            return Err(r.error_at("points", message));
        }

        r.refuse_unknown_keys()?;
        Ok(Some(Probe {
            points: points as u32,
            at,
        }))
    }

    fn read_save_weights(r: &TableReader<'_>) -> Result<bool, SpecError> {
        let items = r.read_list("save")?.unwrap_or_default();
        for item in items {
            if item.value.as_str() != Some("final") {
                let message = format!(
                    "only \"final\" weights can be kept, not {}: set save = [\"final\"]",
                    quote_value(&item.value)
                );
                return Err(r.error_at("save", message));
            }
        }

        Ok(!items.is_empty())
    }

    fn read_metrics(r: &TableReader<'_>, items: &[SpecNode]) -> Result<Vec<Metric>, SpecError> {
        if items.len() > MAX_METRICS {
            r.refuse_if_new("metrics", || {
                format!(
                    "{} metrics are too many; at most {MAX_METRICS} are possible",
                    items.len()
                )
            })?;
        }

        let mut metrics = Vec::new();
        for item in items {
            let name = item.value.as_str().unwrap_or_default();
            let Some(metric) = Metric::from_name(name) else {
                let hint = suggest_nearest(name, Metric::NAMES.iter().map(|(word, _)| *word));
                return Err(r.error_at(
                    "metrics",
                    format!("unknown metric {}, {hint}", quote_value(&item.value)),
                ));
            };
            if metrics.contains(&metric) {
                return Err(r.error_at("metrics", format!("the metric {name} stands here twice")));
            }

            metrics.push(metric);
        }

        if metrics.is_empty() {
            return Err(r.error_at(
                "metrics",
                "the list is empty: name at least one metric, such as \"test_acc\"",
            ));
        }

        Ok(metrics)
    }
}

/// `--set lr=0.1` means the same as `--set train.lr=0.1`.
pub(crate) fn expand_short_name(path: &str) -> String {
    let short = crate::config::SHORT_NAMES
        .iter()
        .find(|(short, _)| *short == path);
    short.map_or_else(|| path.to_owned(), |(_, full)| (*full).to_owned())
}

fn read_name(r: &TableReader<'_>) -> Result<String, SpecError> {
    let Some(name) = r.read_str("name")? else {
        return Err(r.error_at(
            "name",
            "a sweep needs a name: add name = \"my-sweep\" at the top",
        ));
    };

    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !starts_well || name.len() > 64 || !name.chars().all(fine) {
        let shown: String = name.chars().take(40).collect();
        let message = format!(
            "expected 1 to 64 letters, digits, '-', '_' or '.', the first a letter or digit, found '{shown}'"
        );
        return Err(r.error_at("name", message));
    }

    Ok(name.to_owned())
}

/// A class by its engine, or in full, which may be one that this program does not compute. That of CUDA by its engine alone
/// is settled at the launch.
fn read_numerics(r: &TableReader<'_>) -> Result<String, SpecError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-./".contains(c);
    let full = |text: &str| {
        let parts: Vec<&str> = text.split('/').collect();
        let named = matches!(parts[..], ["cpu-f32", _] | ["cuda-f32", _, _, _]);
        named && parts[1].parse::<u32>().is_ok() && parts.iter().all(|part| !part.is_empty())
    };

    match r.read_str("numerics")? {
        None | Some("cpu-f32") => Ok(CPU_F32.to_owned()),
        Some(CUDA_F32) => Ok(CUDA_F32.to_owned()),
        Some(text) if full(text) && text.len() <= 64 && text.chars().all(fine) => {
            Ok(text.to_owned())
        }
        Some(other) => {
            let hint = suggest_nearest(other, ["cpu-f32", CUDA_F32]);
            Err(r.error_at("numerics", format!("unknown value '{other}', {hint}")))
        }
    }
}

fn read_seeds(root: &TableReader<'_>) -> Result<SeedPlan, SpecError> {
    let r = root.section("seeds")?;
    let read = |key| -> Result<Vec<Purpose>, SpecError> {
        let mut purposes = Vec::new();
        for item in r.read_list(key)?.unwrap_or_default() {
            let name = item.value.as_str().unwrap_or_default();
            let Some((_, purpose)) = random_streams::NAMED_PURPOSES
                .iter()
                .find(|(word, _)| *word == name)
            else {
                let hint = suggest_nearest(
                    name,
                    random_streams::NAMED_PURPOSES.iter().map(|(word, _)| *word),
                );
                return Err(r.error_at(
                    key,
                    format!("unknown stream {}, {hint}", quote_value(&item.value)),
                ));
            };

            if !purposes.contains(purpose) {
                purposes.push(*purpose);
            }
        }

        Ok(purposes)
    };
    let plan = SeedPlan {
        per_cell: read("per_cell")?,
        fixed: read("fixed")?,
        crossed: read_crossed_streams(&r)?,
    };

    r.refuse_unknown_keys()?;
    match plan
        .crossed
        .iter()
        .find(|(purpose, _)| plan.fixed.contains(purpose))
    {
        Some((purpose, _)) => {
            let name = random_streams::NAMED_PURPOSES
                .iter()
                .find(|(_, named)| named == purpose)
                .map_or("", |named| named.0);
            Err(r.error_at(
                "crossed",
                format!("the stream '{name}' is fixed, too: it cannot be both"),
            ))
        }
        None => Ok(plan),
    }
}

/// `seeds.crossed`: how many streams there are of each purpose.
fn read_crossed_streams(seeds: &TableReader<'_>) -> Result<Vec<(Purpose, u32)>, SpecError> {
    if seeds.read_node("crossed").is_none() {
        return Ok(Vec::new());
    }

    let r = seeds.section("crossed")?;
    let mut crossed = Vec::new();

    for (name, purpose) in random_streams::NAMED_PURPOSES {
        crossed.extend(
            r.read_whole_number(name, NumberRange::whole_numbers(2, 1_000_000))?
                .map(|count| (purpose, count as u32)),
        );
    }

    r.refuse_unknown_keys()?;
    if crossed.len() < 2 {
        return Err(seeds.error_at(
            "crossed",
            "name two streams or more, as in crossed = { init = 10, order = 20 }",
        ));
    }

    Ok(crossed)
}

/// The text of a [`Value`] that stands alone, for people, short enough for a table. Values of one axis are told apart by
/// [`Axis::write`](crate::axis::Axis::write).
pub fn format_short_value(value: &SpecValue) -> String {
    format_value(value, DistinctFormat::default())
}

/// The text of a [`Value`] for people, numbers as these say.
pub fn format_value(value: &SpecValue, numbers: DistinctFormat) -> String {
    match value {
        SpecValue::Float(x) => numbers.format_number(*x),
        other => escape_line(&other.to_string()).into_owned(),
    }
}
