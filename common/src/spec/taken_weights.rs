//! Which weights the trials of a sweep take of those that another sweep keeps, as far as the files of both tell before either runs.

use std::collections::BTreeMap;

use crate::config::{ResultsSelection, ResultsSource, TrialConfig};
use crate::ids::CellIndex;
use crate::net::Net;
use crate::quantity::find_cells_meeting;
use crate::random_streams::Purpose;
use crate::spec::misleading::used_streams;
use crate::spec::{Moment, Spec, SpecSource};
use crate::spec_file::error::SpecError;
use crate::weights::describe_misfit;

/// The field of a sweep file that selects weights of another sweep.
pub const RESULTS_FIELD: &str = "model.init.results";

impl Spec {
    /// Which weights of other sweeps the trials of all cells start from, by the paths of their lists.
    pub fn list_results_selections(&self) -> BTreeMap<String, ResultsSelection> {
        let starts = self.grid.class_configs().into_iter();
        let starts = starts.filter_map(|config| config.results_start);
        starts
            .map(|start| (start.selection.manifest_path(), start.selection))
            .collect()
    }

    /// Checks what the trials of a stage take of other stages of its file, of which `find` knows those that were read.
    ///
    /// # Errors
    /// A stage does not keep what is taken, or it does not fit.
    pub fn check_taken_weights<'a>(
        &self,
        source: &SpecSource,
        find: impl Fn(&str) -> Option<&'a Self>,
    ) -> Result<(), SpecError> {
        for selection in self.list_results_selections().values() {
            let ResultsSource::Stage(name) = &selection.source else {
                continue;
            };
            // A sweep that a setting names is one of another file, or of other settings.
            let Some(keeper) = find(name).filter(|_| source.stage_sweep(name).is_none()) else {
                continue;
            };

            let taking = WeightsTaking {
                selection,
                taker: self,
                keeper,
                keeper_name: &keeper.name,
            };
            taking
                .find_cells()
                .map_err(|why| source.field_error(RESULTS_FIELD, why))?;
        }
        Ok(())
    }
}

/// A sweep that takes weights, and the one that keeps them.
#[derive(Debug, Clone, Copy)]
pub struct WeightsTaking<'a> {
    /// Which weights are taken.
    pub selection: &'a ResultsSelection,
    /// The sweep whose trials start from them.
    pub taker: &'a Spec,
    /// The sweep whose trials keep them.
    pub keeper: &'a Spec,
    /// The name or the id of the sweep whose trials keep them.
    pub keeper_name: &'a str,
}

/// A cell whose trials' weights are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenCell {
    /// The cell, of the sweep whose trials keep them.
    pub cell: CellIndex,
    /// The moments, as numbers of steps; `None` for the end.
    pub moments: Vec<Option<u64>>,
}

impl WeightsTaking<'_> {
    /// Finds the cells whose trials' weights are taken.
    ///
    /// # Errors
    /// The sweeps do not go together; the message says why, and what to do.
    pub fn find_cells(&self) -> Result<Vec<TakenCell>, String> {
        let name = self.keeper_name;
        let condition = self.selection.condition.as_deref();
        let cells = find_cells_meeting(&self.keeper.grid, condition)
            .map_err(|why| format!("where, of the sweep {name}: {why}"))?;
        if cells.is_empty() {
            let condition = condition.unwrap_or_default();
            return Err(format!("no cell of {name} meets '{condition}'"));
        }
        let taken = cells.into_iter().map(|cell| {
            let moments = self.find_moments(cell)?;
            Ok(TakenCell { cell, moments })
        });
        let taken = taken.collect::<Result<Vec<_>, String>>()?;

        self.check_repeats()?;
        self.check_independence(&taken)?;
        self.check_compared(&taken)?;
        self.check_networks(&taken)?;
        Ok(taken)
    }

    fn find_moments(&self, cell: CellIndex) -> Result<Vec<Option<u64>>, String> {
        let Self {
            keeper,
            keeper_name: name,
            ..
        } = self;
        let config = self.resolve_kept(cell)?;
        let measure = keeper.measure_in(cell).map_err(|e| e.to_string())?;
        let kept = measure.save.steps_in_trial(&config);
        let mut wanted: Vec<u64> = Vec::new();
        for text in &self.selection.at {
            let moment = Moment::parse_several(text);
            let steps = moment.map(|moment| moment.steps_in_trial(&config));
            let before = wanted.len();
            wanted.extend(steps.into_iter().flatten());
            if wanted.len() == before {
                return Err(format!(
                    "at: the trials of {name} ({}), which have {} steps, have no moment \"{text}\": leave the cell out with where, \
                     or name another moment",
                    keeper.grid.describe_cell(cell),
                    config.total_steps()
                ));
            }
        }
        wanted.sort_unstable();
        wanted.dedup();

        if let Some(step) = wanted.iter().find(|step| !kept.contains(step)) {
            let keeps: Vec<String> = kept.iter().map(u64::to_string).collect();
            let keeps = match keeps.is_empty() {
                true => "they keep none".to_owned(),
                false => format!("they keep those after {} steps", keeps.join(", ")),
            };
            return Err(format!(
                "the trials of {name} ({}) keep no weights after {step} steps, {keeps}: add the moment to measure.save of {name}, and \
                 run that again",
                keeper.grid.describe_cell(cell)
            ));
        }
        let steps = wanted.into_iter();
        Ok(steps
            .map(|step| (step < config.total_steps()).then_some(step))
            .collect())
    }

    fn resolve_kept(&self, cell: CellIndex) -> Result<TrialConfig, String> {
        let config = self.keeper.grid.resolve_config(cell);
        config.map_err(|e| e.to_string())
    }

    fn check_repeats(&self) -> Result<(), String> {
        let ResultsSelection { trials, block, .. } = self.selection;
        let name = self.keeper_name;
        let repeats = self.taker.repeats;
        let before_last = u64::from(repeats - 1) * u64::from(*block);
        let needed = before_last + u64::from(*trials);
        if needed <= u64::from(self.keeper.repeats) {
            return Ok(());
        }
        Err(format!(
            "{repeats} repeats that start from {trials} of {block} trials each need {needed} repeats of {name}, which has {}: give it \
             more (`ergodic extend {name} --repeats {needed}` does, once it has run), or set fewer repeats or trials here",
            self.keeper.repeats
        ))
    }

    /// Checks that repeats have nothing in common but what is the same in all of them.
    fn check_independence(&self, taken: &[TakenCell]) -> Result<(), String> {
        let configs = taken
            .iter()
            .filter_map(|taken| self.resolve_kept(taken.cell).ok());
        let used: Vec<Purpose> = configs.flat_map(|config| used_streams(&config)).collect();
        let seeds = &self.keeper.seeds;
        let shared = self
            .selection
            .find_shared_stream(seeds, &used, self.taker.repeats);
        let Some(stream) = shared else {
            return Ok(());
        };

        Err(format!(
            "repeats would take trials of {} that have a level of the crossed stream '{}' in common, so that they are not independent: \
             choose trials and block so that each repeat has levels of its own, or take trials of a sweep without seeds.crossed",
            self.keeper_name,
            stream.as_str()
        ))
    }

    /// Checks that there are pairs to compare, if metrics compare them.
    fn check_compared(&self, taken: &[TakenCell]) -> Result<(), String> {
        let moments: usize = taken.iter().map(|taken| taken.moments.len()).sum();
        let parts = moments * self.selection.trials as usize;
        let mut metrics = self.taker.measure.metrics.iter();
        match metrics.find(|metric| metric.is_of_parts()) {
            Some(metric) if parts < 2 => Err(format!(
                "{} compares the weights that a trial starts from, which are those of one trial at one moment: set trials = 2 or more, \
                 or remove it",
                metric.name()
            )),
            _ => Ok(()),
        }
    }

    /// Checks that the kept weights have the shapes of the networks that start from them.
    fn check_networks(&self, taken: &[TakenCell]) -> Result<(), String> {
        let starting = self.taker.grid.class_configs();
        let starting = starting.iter().filter(|config| self.starts(config));
        let starting: Vec<Net> = starting.filter_map(Net::from_config).collect();
        for taken in taken {
            let kept = Net::from_config(&self.resolve_kept(taken.cell)?);
            for net in &starting {
                let misfit = kept.as_ref().and_then(|kept| describe_misfit(kept, net));
                if let Some(why) = misfit {
                    return Err(format!(
                        "the weights of {} ({}) do not fit the network that starts from them: {why}",
                        self.keeper_name,
                        self.keeper.grid.describe_cell(taken.cell)
                    ));
                }
            }
        }
        Ok(())
    }

    fn starts(&self, config: &TrialConfig) -> bool {
        let start = config.results_start.as_ref();
        start.is_some_and(|start| start.selection == *self.selection)
    }
}
