//! The sweep: a sweep file, read and checked.

mod axis_settings;
#[cfg(test)]
mod case_tests;
mod claims;
mod evaluated_images;
#[cfg(test)]
mod experiment_tests;
#[cfg(test)]
mod expression_tests;
mod layer_overlay;
#[cfg(test)]
mod layer_tests;
pub(crate) mod meaning_hash;
pub mod measure;
mod measure_checks;
pub mod measured_value;
pub mod misleading;
pub mod mistakes;
#[cfg(test)]
mod moment_tests;
pub mod moments;
mod name;
mod numerics;
#[cfg(test)]
mod optimizer_tests;
mod program_sections;
#[cfg(test)]
mod program_tests;
pub mod result_reuse;
pub mod saved_moments;
pub mod scale;
#[cfg(test)]
mod scale_tests;
pub mod scheduling;
pub(crate) mod seeds;
mod settings;
pub mod source;
pub mod stage;
#[cfg(test)]
mod stage_tests;
pub mod stopping_rule;
pub mod taken_weights;
mod target_checks;
#[cfg(test)]
mod target_tests;
#[cfg(test)]
mod tests;

pub use crate::spec::measure::{EvalStatistics, MAX_PREDICTIONS, Measure, Probe};
pub use crate::spec::moments::{Moment, SampleTimes};
pub use crate::spec::source::{MAX_TEXT_BYTES, SpecSource};

use std::borrow::Cow;

use crate::config::TrialConfig;
use crate::grid::{Grid, StillWanted, find_expressions};
use crate::ids::{CellHash, CellIndex, CellsFingerprint, DatasetHash, Repeat, ShapeClass};
use crate::program::{DATA, Program};
use crate::quantity::{ClaimSection, FigureSection};
use crate::random_streams;
use crate::random_streams::{SeedPlan, Streams};
use crate::spec::name::read_name;
use crate::spec::program_sections::{
    measure_of_program, numerics_of_program, numerics_of_training, refuse_other_sections,
};
use crate::spec::scale::{Scales, find_scales, sets_cells};
use crate::spec::scheduling::Scheduling;
use crate::spec::seeds::read_seeds;
use crate::spec::stage::Stages;
use crate::spec::stopping_rule::{StoppingRule, read_repeats};
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::grammar::{
    EXPERIMENT_DATA_GRAMMAR, GRAMMAR, LAYERS_GRAMMAR, ReadingMode, SCALES_GRAMMAR, STAGES_GRAMMAR,
    TARGETS_GRAMMAR,
};
use crate::spec_file::node::SpecTable;
use crate::spec_file::reader::{NumberRange, TableReader};
use crate::trial::TrialKey;

/// Maximum number of trials of a sweep.
pub const MAX_TRIALS: u64 = 1_000_000_000;
/// Maximum number of cells that are resolved for [`Spec::compute_cells_fingerprint`].
const FINGERPRINTED_CELLS: u64 = 256;

/// A sweep as its file describes it.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The name of the sweep, from `name`.
    pub name: String,
    /// Number of repeats per cell, or the maximum under a stopping rule.
    pub repeats: u32,
    /// The rule by which a cell ends with fewer repeats, if there is one.
    pub stopping_rule: Option<StoppingRule>,
    /// The seed of all random streams, from `seed`.
    pub seed: u64,
    /// The streams that depart from the default, from `seeds`.
    pub seeds: SeedPlan,
    /// The numerics class in which every trial must run.
    pub numerics: String,
    /// The settings of `[measure]`.
    pub measure: Measure,
    /// Time limit, share of workers and audits of the trials.
    pub scheduling: Scheduling,
    /// The scales of the file.
    pub scales: Scales,
    /// The stages of the file.
    pub stages: Stages,
    /// All cells.
    pub grid: Grid,
    /// Whether a scale or settings decided anything about the cells, which may not be those of the file as it is.
    pub has_other_cells: bool,
    /// The program, if the trials are one.
    pub(crate) program: Option<Program>,
    /// Quantities and claims. A stored sweep may have some that this program refuses.
    pub claims: Result<ClaimSection, SpecError>,
    /// Figures, of which the same holds.
    pub figures: Result<FigureSection, SpecError>,
}

impl Spec {
    /// Reads the file of a sweep that is stored or was accepted before. It means what it meant then, and later
    /// refusals do not apply.
    ///
    /// # Errors
    /// Names the first thing that cannot be carried out, with file, line and field.
    pub fn read_stored(source: &SpecSource) -> Result<Self, SpecError> {
        Self::read_and_check(source, ReadingMode::for_stored(source.grammar), &|| true)
            .map_err(|e| e.with_file(&source.file))
    }

    /// Reads and checks the file of a new sweep, which is planned, run, launched, or made from another one.
    ///
    /// # Errors
    /// Names the first thing that cannot be carried out or is refused, with file, line and field.
    pub fn read_new(source: &SpecSource) -> Result<Self, SpecError> {
        Self::read_new_while_wanted(source, &|| true)
    }

    /// Reads a file as [`Spec::read_new`] does, but gives up once `wanted` returns false.
    ///
    /// # Errors
    /// As for [`Spec::read_new`], or the result is not needed any more.
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
            return Err(SpecError::new(Origin::Default, "", message));
        }

        let document = source.read_document()?;
        Self::read_from_document(source, &document, reading, wanted)
    }

    fn read_from_document(
        source: &SpecSource,
        document: &SpecTable,
        reading: ReadingMode,
        wanted: StillWanted<'_>,
    ) -> Result<Self, SpecError> {
        let spec = Self::read_checked_sections(source, document, reading, wanted)?;
        reading.refuse_names_in_scales_if_new(&source.text, &source.settings)?;
        reading.refuse_claims_if_new(&spec)?;
        Ok(spec)
    }

    fn read_checked_sections(
        source: &SpecSource,
        document: &SpecTable,
        reading: ReadingMode,
        wanted: StillWanted<'_>,
    ) -> Result<Self, SpecError> {
        let spec = Self::read_sections(source, document, reading, wanted)?;
        spec.check_sections_together(source, reading)
            .map_err(SpecError::of_combination)?;
        Ok(spec)
    }

    /// Checks that the sections go together, each of which is right by itself.
    fn check_sections_together(
        &self,
        source: &SpecSource,
        reading: ReadingMode,
    ) -> Result<(), SpecError> {
        self.check_targets(source)?;
        self.check_cells()?;
        self.check_layer_metrics()?;
        self.stopping_rule
            .iter()
            .try_for_each(|rule| rule.check_metric(&self.measure.metrics))?;
        self.check_settings(source)?;
        self.check_program_stages(source)?;
        self.check_program_scheduling()?;
        self.check_program_names(source, reading)?;
        self.check_crossed_streams()?;
        self.check_trial_count()
    }

    fn read_sections(
        source: &SpecSource,
        document: &SpecTable,
        reading: ReadingMode,
        wanted: StillWanted<'_>,
    ) -> Result<Self, SpecError> {
        refuse_other_sections(document)?;
        let r = TableReader::from_document(document, reading).with_files(&source.files);
        for key in ["data", "model", "train", "case", "grid", "derive", "where"] {
            r.read_node(key);
        }

        let seed = r
            .read_whole_number("seed", NumberRange::whole_numbers(0, 1 << 53))?
            .unwrap_or(0);
        let name = read_name(&r);
        let program = Program::read_section(&r);
        let declared = program.as_ref().ok().and_then(Option::as_ref);
        let repeats = read_repeats(&r, declared);
        let seeds = read_seeds(&r);
        let measure = read_measure(&r, declared);
        let numerics = match declared {
            Some(program) => numerics_of_program(&r, program),
            None => numerics_of_training(&r),
        };
        let scheduling = Scheduling::read_fields(&r);
        let claims = ClaimSection::read(&r);
        let figures = FigureSection::read(&r);

        // Unknown keys are reported first: a misspelt section explains what is missing because of it.
        r.refuse_unknown_keys()?;
        let program = program?;
        let (repeats, stopping_rule) = repeats?;
        let (name, seeds, numerics) = (name?, seeds?, numerics?);
        let (measure, scheduling) = (measure?, scheduling?);
        let grid = Grid::from_document(document, seed, &source.files, (reading, wanted))?;
        let measure = match measure {
            Some(measure) => {
                measure.with_metrics_of_targets(document, (&grid, grid.nth_kept_cell(0)))?
            }
            None => Measure::read_of_cell(&grid, grid.nth_kept_cell(0), reading)?,
        };
        Ok(Self {
            name,
            repeats,
            stopping_rule,
            seed,
            seeds,
            numerics,
            measure,
            scheduling,
            scales: find_scales(&source.text, &source.settings),
            stages: Stages::find(&source.text, &source.settings),
            grid,
            program,
            has_other_cells: source.settings.iter().any(|setting| sets_cells(setting)),
            claims,
            figures,
        })
    }

    fn check_trial_count(&self) -> Result<(), SpecError> {
        let trials = self
            .grid
            .cell_count()
            .saturating_mul(u64::from(self.repeats));
        if trials > MAX_TRIALS {
            let message = format!(
                "{trials} trials are too many; at most {MAX_TRIALS} are possible: use fewer repeats"
            );
            return Err(SpecError::new(Origin::Default, "repeats", message));
        }

        Ok(())
    }

    /// Checks that every crossed stream meets every other one equally often.
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
        Err(SpecError::new(Origin::Default, "repeats", message))
    }

    /// What is measured in a cell: `measure`, with the numbers of this cell where it has expressions.
    ///
    /// # Errors
    /// Never for a kept cell of a sweep that was read.
    pub fn measure_in(&self, cell: CellIndex) -> Result<Cow<'_, Measure>, SpecError> {
        if !self.grid.has_measure_expressions() {
            return Ok(Cow::Borrowed(&self.measure));
        }
        let reading = ReadingMode::for_stored(GRAMMAR);
        Measure::read_of_cell(&self.grid, cell, reading).map(Cow::Owned)
    }

    /// Whether both sweeps measure the same at the same steps of their trials. Where expressions give the steps, the
    /// cells must be the same as well.
    pub fn measures_as(&self, other: &Self) -> bool {
        let varies = self.grid.has_measure_expressions() || other.grid.has_measure_expressions();
        self.measure == other.measure
            && (!varies || self.compute_cells_fingerprint() == other.compute_cells_fingerprint())
    }

    /// What is measured in the cells of a shape class, which all agree in it.
    ///
    /// # Errors
    /// As for [`Spec::measure_in`].
    pub fn measure_of_class(&self, class: ShapeClass) -> Result<Cow<'_, Measure>, SpecError> {
        self.measure_in(self.grid.class_cell_at(class, 0))
    }

    /// Number of trials, or the maximum under a stopping rule.
    pub fn trial_count(&self) -> u64 {
        self.grid.cell_count() * u64::from(self.repeats)
    }

    /// Number of trials of a shape class, or the maximum under a stopping rule.
    pub fn class_trial_count(&self, class: ShapeClass) -> u64 {
        self.grid.class_cell_count(class) * u64::from(self.repeats)
    }

    /// Whether the sweep has this trial.
    pub fn has_trial(&self, key: TrialKey) -> bool {
        key.repeat.0 < self.repeats && self.grid.has_cell(key.cell)
    }

    /// The identity of a cell: its config, data, seed and numerics class. Names of axes, free names, repeats,
    /// scheduling and `[measure]` are left out, so that cells keep their identity when a sweep is extended.
    pub fn compute_cell_hash(&self, config: &TrialConfig, data: DatasetHash) -> CellHash {
        let mut fields = config.identity_fields();
        fields.sort_unstable();
        let mut hasher = blake3::Hasher::new_derive_key("ergodic 2026 cell v1");
        hasher
            .update(&data.0)
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

        hasher.finalize().into()
    }

    /// The earliest version of the grammar in which the file means the same. Programs from that version on can work
    /// on the sweep.
    pub fn min_grammar(&self) -> u32 {
        let of_scales = if self.scales.names.is_empty() {
            1
        } else {
            SCALES_GRAMMAR
        };
        let of_measure = self.measure.min_grammar();
        let has_stages =
            !self.stages.names.is_empty() || self.grid.has_setting_in("model.init.results");
        let of_stages = if has_stages { STAGES_GRAMMAR } else { 1 };
        let newer_fields = ["model.layers", "model.activation", "model.bias"];
        let has_layers = newer_fields
            .iter()
            .any(|field| self.grid.has_setting_in(field));
        let of_layers = if has_layers { LAYERS_GRAMMAR } else { 1 };
        let of_data = match self.program.is_some() && self.grid.has_setting_in(DATA) {
            true => EXPERIMENT_DATA_GRAMMAR,
            false => 1,
        };
        let of_targets = match self.grid.has_targets() {
            true => TARGETS_GRAMMAR,
            false => 1,
        };
        let of_program = self.program().map_or(1, Program::min_grammar);
        [
            of_measure, of_scales, of_stages, of_layers, of_data, of_targets, of_program,
        ]
        .into_iter()
        .fold(self.grid.min_grammar(), u32::max)
    }

    /// A fingerprint of the cells: their numbers, order and configs. Programs that compute different ones for a file
    /// would take the rows of some cells for those of others. In a large sweep, it covers which cells are kept and
    /// their derived values, and the whole configs of a few hundred random ones.
    pub fn compute_cells_fingerprint(&self) -> CellsFingerprint {
        let mut hasher = blake3::Hasher::new_derive_key("ergodic 2026 cells v1");
        self.grid.hash_layout(&mut hasher);

        for cell in self.grid.sample_cells(FINGERPRINTED_CELLS) {
            let index = self.grid.locate_trial(TrialKey {
                cell,
                repeat: Repeat(0),
            });
            hasher
                .update(&cell.0.to_le_bytes())
                .update(&index.class.0.to_le_bytes())
                .update(&index.number.to_le_bytes());

            match self.grid.resolve_config(cell) {
                Ok(config) => hasher.update(&self.compute_cell_hash(&config, DatasetHash::NONE).0),
                Err(error) => hasher.update(error.to_string().as_bytes()),
            };
        }

        hasher.finalize().into()
    }

    /// Whether the cells are those that the sweep had when it was stored, as far as that is known.
    pub fn is_as_stored(&self, source: &SpecSource) -> bool {
        source
            .cells_fingerprint
            .is_none_or(|cells| cells == self.compute_cells_fingerprint())
    }

    /// Whether to audit a trial. That depends on the cell's identity and the repeat alone, not on the order of trials
    /// or on other cells, and a larger share audits the same trials and more.
    pub fn should_audit(&self, cell_hash: CellHash, repeat: Repeat) -> bool {
        let share = self.scheduling.audit_share;
        share > 0.0 && random_streams::audit_draw(self.seed, cell_hash, repeat) < share
    }

    /// The random streams of a trial.
    pub fn trial_streams(&self, key: TrialKey, cell_hash: CellHash) -> Streams {
        Streams {
            sweep_seed: self.seed,
            repeat: key.repeat,
            cell: cell_hash,
            plan: self.seeds.clone(),
        }
    }
}

/// Reads what is measured: of a program, what it declares. `None` for a section with expressions, which have values once there are
/// cells.
fn read_measure(
    r: &TableReader<'_>,
    program: Option<&Program>,
) -> Result<Option<Measure>, SpecError> {
    if let Some(program) = program {
        return Ok(Some(measure_of_program(program)));
    }
    let varies = r
        .read_node("measure")
        .is_some_and(|node| !find_expressions("measure", node).is_empty());
    (!varies).then(|| Measure::read_section(r)).transpose()
}
