//! Conversions from the core and the analysis to the wire.

use ergodic_common::ids::{Epoch, Fence, LeaseId};
use ergodic_proto::v1;

use crate::analysis::compare::CellContrast;
use crate::analysis::compare_sweeps::{MeanDifference, SweepContrast};
use crate::analysis::table::TableEntry;
use crate::estimators::paired::PairedDifferences;

pub(crate) fn to_curve_point(entry: &TableEntry) -> v1::CurvePoint {
    v1::CurvePoint {
        values: entry.values.iter().map(Into::into).collect(),
        step: entry.step,
        summary: Some(to_summary(entry)),
        figures: to_figures(&entry.statistics),
        note: entry.note.clone(),
    }
}

pub(crate) fn to_table_row(entry: &TableEntry) -> v1::TableRow {
    v1::TableRow {
        values: entry.values.iter().map(Into::into).collect(),
        summary: Some(to_summary(entry)),
        figures: to_figures(&entry.statistics),
        note: entry.note.clone(),
        rank: entry.rank.map(|rank| rank.rank),
        mean_rank: entry.rank.map(|rank| rank.mean_rank),
        may_be_best: entry.rank.is_some_and(|rank| rank.may_be_best),
    }
}

pub(crate) fn to_contrast(contrast: &CellContrast) -> v1::Contrast {
    v1::Contrast {
        values: contrast.values.iter().map(Into::into).collect(),
        sign_holm: contrast.sign_holm,
        wilcoxon_holm: contrast.wilcoxon_holm,
        note: contrast.note.clone(),
        ..to_paired_contrast(&contrast.paired)
    }
}

pub(crate) fn to_sweep_contrast(contrast: &SweepContrast) -> v1::Contrast {
    let figures = match &contrast.difference {
        MeanDifference::Paired(paired) => to_paired_contrast(paired),
        MeanDifference::Unpaired(unpaired) => v1::Contrast {
            n: unpaired.n,
            baseline_n: Some(unpaired.baseline_n),
            mean: unpaired.mean,
            baseline: unpaired.baseline,
            difference: unpaired.difference,
            low: unpaired.interval.map(|ends| ends.0),
            high: unpaired.interval.map(|ends| ends.1),
            welch_p: unpaired.p,
            ..v1::Contrast::default()
        },
    };

    v1::Contrast {
        values: contrast.values.iter().map(Into::into).collect(),
        sign_holm: contrast.sign_holm,
        wilcoxon_holm: contrast.wilcoxon_holm,
        welch_holm: contrast.welch_holm,
        note: contrast.note.clone(),
        ..figures
    }
}

/// The figures of paired differences; the rest is left at its default.
fn to_paired_contrast(paired: &PairedDifferences) -> v1::Contrast {
    v1::Contrast {
        n: paired.n,
        mean: paired.mean,
        baseline: paired.baseline,
        difference: paired.difference,
        std: paired.std,
        low: paired.interval.map(|ends| ends.0),
        high: paired.interval.map(|ends| ends.1),
        above: paired.above,
        below: paired.below,
        sign_p: paired.sign_p,
        wilcoxon_p: paired.wilcoxon.map(|test| test.p),
        wilcoxon_exact: paired.wilcoxon.is_some_and(|test| test.exact),
        correlation: paired.correlation,
        unpaired: paired.unpaired_repeats,
        saved: paired.saved_repeats(),
        ..v1::Contrast::default()
    }
}

/// Converts statistics; undefined ones are NaN on the wire.
pub(crate) fn to_figures(figures: &[Option<f64>]) -> Vec<f64> {
    figures.iter().map(|x| x.unwrap_or(f64::NAN)).collect()
}

pub(crate) fn to_summary(entry: &TableEntry) -> v1::Summary {
    let s = &entry.summary;
    v1::Summary {
        n: s.n,
        diverged: entry.counts.diverged,
        failed: entry.counts.failed,
        mean: s.mean,
        std: s.std,
        ci95_low: s.ci95.map(|c| c.0),
        ci95_high: s.ci95.map(|c| c.1),
        min: s.min,
        median: s.median,
        max: s.max,
    }
}

pub(crate) fn fence_to_wire(fence: Fence) -> v1::Fence {
    v1::Fence {
        lease: fence.lease.0,
        epoch: fence.epoch.0,
    }
}

pub(crate) fn fence_from_wire(fence: &v1::Fence) -> Fence {
    Fence {
        lease: LeaseId(fence.lease),
        epoch: Epoch(fence.epoch),
    }
}
