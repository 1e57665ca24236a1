//! Caveats of effects: missing cells, repeats and values.

use std::collections::BTreeMap;

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;

use crate::analysis::effects::design::EffectsDesign;
use crate::analysis::effects::model::EffectDraws;
use crate::analysis::effects::resample::RepeatBlocks;
use crate::analysis::query::IntervalConditions;
use crate::analysis::trial_values::CellTrials;
use crate::estimators::bootstrap::RESAMPLES;
use crate::estimators::precision::NOT_WIDENED_NOTE;

/// The reason why there is no p(best).
pub(super) const NO_PROBABILITY: &str = "no p(best): repeats that share crossed streams cannot be resampled; the set of \
                              cells that cannot be told from the best takes the streams into account";

pub(super) fn describe_caveats(
    spec: &Spec,
    design: &EffectsDesign,
    blocks: &RepeatBlocks,
    drawn: &EffectDraws,
) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(describe_missing_cells(spec, design));
    notes.extend(describe_missing_combinations(design));

    let names: Vec<&str> = design
        .constant_axes
        .iter()
        .map(|axis| spec.grid.axes()[*axis].name.as_str())
        .collect();
    if !names.is_empty() {
        notes.push(format!(
            "axes with only one value left, and so without an effect: {}",
            names.join(", ")
        ));
    }

    notes.extend(match drawn {
        EffectDraws::Resamples(draws) => describe_resamples(blocks.repeat_count(), draws.len()),
        EffectDraws::Repeats(draws, ..) if draws.is_empty() => Some(
            "no intervals: repeats share crossed streams, and a cell lacks some of the repeats"
                .into(),
        ),
        EffectDraws::Repeats(..) => {
            Some("intervals account for the crossed streams and use Student's t".into())
        }
    });

    notes
}

fn describe_missing_cells(spec: &Spec, design: &EffectsDesign) -> Option<String> {
    let missing = spec.grid.cell_count() - design.cells.len() as u64;
    if missing == 0 {
        return None;
    }

    let words: Vec<String> = spec
        .grid
        .iter()
        .filter(|cell| design.cells.binary_search(cell).is_err())
        .take(3)
        .map(|cell| format!("({})", spec.grid.describe_cell(cell)))
        .collect();
    let more = if missing > 3 { ", …" } else { "" };

    Some(format!(
        "cells without a value, left out: {missing}: {}{more}",
        words.join(", ")
    ))
}

fn describe_missing_combinations(design: &EffectsDesign) -> Option<String> {
    let full: usize = design
        .factors
        .iter()
        .map(|factor| factor.levels.len())
        .product();

    (full > design.cells.len()).then(|| {
        format!(
            "the grid has {} of {full} combinations: means and effects are least-squares estimates, and shares, each of \
             what a term explains beyond all others, do not add up to 100 %",
            design.cells.len()
        )
    })
}

/// Explains why some or all of the resamples were left out.
fn describe_resamples(repeats: usize, drawn: usize) -> Option<String> {
    match (repeats, RESAMPLES - drawn) {
        (..=1, _) => {
            Some("one repeat: no intervals, no probabilities, no variance between repeats".into())
        }
        (_, 0) => None,
        (_, left) if 2 * left >= RESAMPLES => Some(
            "no intervals or probabilities: a cell has values in too few repeats to be resampled"
                .into(),
        ),
        (_, left) => Some(format!(
            "in {left} of {RESAMPLES} resamples a cell had no value: they are left out"
        )),
    }
}

/// Describes the conditions under which the intervals of a sweep hold.
pub(super) fn describe_conditions(spec: &Spec) -> Vec<String> {
    let conditions = IntervalConditions::from_spec(spec);
    let mut notes = Vec::new();

    if !conditions.fixed_streams.is_empty() {
        notes.push(format!(
            "intervals are conditional on the fixed {}",
            conditions.fixed_streams
        ));
    }

    if conditions.stops_early {
        notes.push(NOT_WIDENED_NOTE.to_owned());
    }

    notes
}

/// Describes the outcomes of a sweep's trials without values.
pub(super) fn describe_missing_values(
    spec: &Spec,
    trials: &BTreeMap<CellIndex, CellTrials>,
) -> String {
    match trials
        .values()
        .map(CellTrials::count_without_value)
        .sum::<u64>()
    {
        0 => "none has ended yet".into(),
        lost => format!(
            "{lost} of {} ended without one; see `ergodic table --stat p_diverged`",
            spec.trial_count()
        ),
    }
}
