//! `[measure] save`: the moments of a trial whose weights are kept.

use std::fmt;

use crate::config::TrialConfig;
use crate::spec::moments::{Moment, read_moment, steps_of_moments};
use crate::spec_file::error::SpecError;
use crate::spec_file::grammar::MOMENTS_GRAMMAR;
use crate::spec_file::reader::TableReader;

/// The moments whose weights a trial keeps; none of a trial that does not complete.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SavedMoments(Vec<Moment>);

/// The text is part of the identity of checkpoints: of trials that keep nothing, or their last weights, it is what it was when
/// nothing else was possible.
impl fmt::Debug for SavedMoments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.has_earlier_moments() {
            true => self.0.fmt(f),
            false => (!self.is_empty()).fmt(f),
        }
    }
}

impl SavedMoments {
    /// The last weights alone.
    pub fn of_end() -> Self {
        Self(vec![Moment::Final])
    }

    /// Creates the set of some moments.
    pub fn at(moments: Vec<Moment>) -> Self {
        match moments.iter().all(|moment| *moment == Moment::Final) {
            true if !moments.is_empty() => Self::of_end(),
            _ => Self(moments),
        }
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether weights may be kept that are not those at the end.
    pub fn has_earlier_moments(&self) -> bool {
        self.0.iter().any(|moment| *moment != Moment::Final)
    }

    /// The steps after which weights are kept in a trial of this config, in ascending order.
    pub fn steps_in_trial(&self, config: &TrialConfig) -> Vec<u64> {
        steps_of_moments(&self.0, config)
    }

    /// Whether a trial of this config keeps its last weights.
    pub fn includes_end(&self, config: &TrialConfig) -> bool {
        self.steps_in_trial(config).last() == Some(&config.total_steps())
    }

    /// The steps before the end after which weights are kept, in ascending order.
    pub fn earlier_steps(&self, config: &TrialConfig) -> Vec<u64> {
        let mut steps = self.steps_in_trial(config);
        steps.retain(|step| *step < config.total_steps());
        steps
    }

    /// What is wrong with the moments in a trial of this config.
    pub(super) fn find_problem(&self, config: &TrialConfig) -> Option<String> {
        self.0.iter().find_map(|moment| moment.find_problem(config))
    }

    /// Reads `save = ["300 steps", "final"]`.
    pub(super) fn read_field(measure: &TableReader<'_>) -> Result<Self, SpecError> {
        let items = measure.read_list("save")?.unwrap_or_default();
        let moments = items
            .iter()
            .map(|item| read_moment(measure, "save", item))
            .collect::<Result<Vec<_>, _>>()?;
        let saved = Self::at(moments);
        if let Some(first) = items.first().filter(|_| saved.has_earlier_moments()) {
            measure.reading_mode().require_grammar(
                MOMENTS_GRAMMAR,
                &first.origin,
                &measure.path_to("save"),
            )?;
        }
        Ok(saved)
    }
}
