//! Pairs of trials with the same repeat, whose random streams are the same, and what their differences tell.

use ergodic_common::Spec;

use super::error::AnalysisError;
use super::lookup::check_level;
use super::query::IntervalConditions;
use super::trial_values::CellTrials;
use crate::estimators::crossed::Crossing;
use crate::estimators::paired::PairedDifferences;
use crate::estimators::precision::NOT_WIDENED_NOTE;

/// How cells are compared repeat by repeat.
#[derive(Debug, Clone)]
pub(super) struct RepeatPairing {
    level: f64,
    crossing: Option<Crossing>,
    conditions: IntervalConditions,
}

impl RepeatPairing {
    /// Takes the design of the streams from a sweep.
    ///
    /// # Errors
    /// The level is out of range.
    pub(super) fn new(spec: &Spec, level: f64) -> Result<Self, AnalysisError> {
        check_level(level)?;
        Ok(Self {
            level,
            crossing: Crossing::from_spec(spec),
            conditions: IntervalConditions::from_spec(spec),
        })
    }

    /// The level of intervals, a share.
    pub(super) fn level(&self) -> f64 {
        self.level
    }

    /// Compares two cells over the repeats that both have.
    pub(super) fn compare_common_repeats(
        &self,
        here: &CellTrials,
        there: &CellTrials,
    ) -> PairedDifferences {
        let pairs = pair_common_repeats(&here.values, &there.values);
        let both: Vec<(f64, f64)> = pairs.iter().map(|(_, pair)| *pair).collect();
        let mut paired = PairedDifferences::from_pairs(&both, self.level);

        if let Some(crossing) = &self.crossing {
            let repeats: Vec<u32> = pairs.iter().map(|(repeat, _)| *repeat).collect();
            paired.apply_crossing(&both, &repeats, crossing, self.level);
        }

        paired
    }

    /// Describes the caveats of one comparison; empty if there are none.
    pub(super) fn describe_contrast(
        &self,
        paired: &PairedDifferences,
        here: &CellTrials,
        there: &CellTrials,
    ) -> String {
        let mut notes = Vec::new();
        notes.extend(describe_common_repeats(paired).map(str::to_owned));

        if self.crossing.is_some() && paired.n > 1 {
            let interval = if paired.interval.is_none() {
                ", and too few levels of one stream for an interval"
            } else {
                ""
            };
            notes.push(format!(
                "repeats share crossed streams: no sign test, no Wilcoxon{interval}"
            ));
        }

        if !self.conditions.fixed_streams.is_empty() && paired.n > 1 {
            notes.push(format!("given the fixed {}", self.conditions.fixed_streams));
        }

        notes.extend(describe_missing_values(here, there));
        notes.join("; ")
    }

    /// The caveat that cells which ended early put on intervals.
    pub(super) fn stopping_caveat(&self) -> Option<String> {
        self.conditions
            .stops_early
            .then(|| NOT_WIDENED_NOTE.to_owned())
    }
}

/// Pairs the values of common repeats; both lists are in the order of repeats.
fn pair_common_repeats(here: &[(u32, f64)], there: &[(u32, f64)]) -> Vec<(u32, (f64, f64))> {
    let mut rest = there.iter().peekable();
    let mut pairs = Vec::with_capacity(here.len().min(there.len()));

    for (repeat, value) in here {
        while rest.next_if(|(other, _)| other < repeat).is_some() {}
        pairs.extend(
            rest.next_if(|(other, _)| other == repeat)
                .map(|(_, baseline)| (*repeat, (*value, *baseline))),
        );
    }

    pairs
}

fn describe_common_repeats(paired: &PairedDifferences) -> Option<&'static str> {
    match paired.n {
        0 => Some("no repeat in common"),
        1 => Some("one repeat in common: no interval, no test"),
        _ if paired.std == Some(0.0) => Some("the same difference in every repeat"),
        _ => None,
    }
}

/// Explains that no cell can be significant, whatever its values: with so few repeats, no p is
/// small enough for so many cells. `None` if one can be, or no test was made.
pub(super) fn describe_too_few_repeats<'a>(
    compared: impl Iterator<Item = &'a PairedDifferences>,
) -> Option<String> {
    let tested: Vec<u64> = compared
        .filter(|paired| paired.sign_p.is_some())
        .map(|paired| paired.n)
        .collect();
    let n = *tested.iter().max()?;

    let tests = tested.len();
    let needed = repeats_for_significance(tests);
    (n < needed).then(|| {
        format!(
            "with {n} repeats and {tests} cells, no p-value can fall below 0.05 after Holm's correction, however large the \
             differences: at least {needed} repeats are needed"
        )
    })
}

/// Says how many trials of either cell have no value; `None` if all have one.
pub(super) fn describe_missing_values(here: &CellTrials, there: &CellTrials) -> Option<String> {
    match (here.count_without_value(), there.count_without_value()) {
        (0, 0) => None,
        (here, there) => Some(format!(
            "trials without a value: {here} in this cell, {there} in the baseline"
        )),
    }
}

/// Minimum number of repeats with which the smallest possible p, of signs that are all alike, is
/// significant at 5 % among this many tests.
fn repeats_for_significance(tests: usize) -> u64 {
    (1..)
        .find(|n| 2.0 * 0.5_f64.powi(*n) * tests as f64 <= 0.05)
        .map_or(0, |n| n as u64)
}

#[cfg(test)]
mod tests {
    use crate::analysis::repeat_pairing::*;

    #[test]
    fn only_repeats_that_both_have_are_common() {
        let here = [(0, 1.0), (2, 3.0), (3, 4.0), (7, 8.0)];
        let there = [(1, 20.0), (2, 30.0), (5, 60.0), (7, 80.0), (9, 1.0)];
        assert_eq!(
            pair_common_repeats(&here, &there),
            [(2, (3.0, 30.0)), (7, (8.0, 80.0))]
        );
        assert_eq!(pair_common_repeats(&here, &[]), []);
    }

    #[test]
    fn so_many_cells_need_so_many_repeats() {
        // 2·2⁻ⁿ·m ≤ 0.05: the smallest p of 7 repeats is 0.0156, that of 14 0.000122, which 239 times is 0.029.
        assert_eq!(
            [1, 3, 4, 8, 239].map(repeats_for_significance),
            [6, 7, 8, 9, 14]
        );
    }
}
