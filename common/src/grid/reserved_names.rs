//! Names that no axis of a new sweep can have, because its values would be lost or mistaken for something else.

use crate::metric::Metric;
use crate::program::explain_wrong_value_name;

/// Names that every quantity can use, and that no quantity can have.
pub(crate) const BUILT_IN_NAMES: [&str; 6] = ["step", "epoch", "samples", "decay", "end", "final"];
/// Columns that stand beside those of axes in tables, curves, rows of trials, comparisons, effects, variance components, sample sizes
/// and predictions; metrics do so too.
const COLUMNS: &[&str] = &[
    // Tables and curves.
    "n",
    "diverged",
    "failed",
    "mean",
    "std",
    "ci95_low",
    "ci95_high",
    "min",
    "median",
    "max",
    "var",
    "se",
    "iqm",
    "p_diverged",
    "p_diverged_low",
    "p_diverged_high",
    "diverged_at",
    "diverged_at_median",
    "note",
    "metric",
    "incomplete",
    "sweep",
    "step",
    // Rows of trials, predictions and exports.
    "cell",
    "repeat",
    "outcome",
    "steps",
    "seconds",
    "worker",
    "isa",
    "numerics",
    "digest",
    "cause",
    "image",
    "label",
    "class",
    "share",
    // Comparisons.
    "baseline",
    "baseline_n",
    "difference",
    "ci_low",
    "ci_high",
    "above",
    "below",
    "sign_p",
    "sign_holm",
    "wilcoxon",
    "wilcoxon_p",
    "wilcoxon_holm",
    "welch_p",
    "welch_holm",
    "correlation",
    "unpaired",
    "saved",
    // Effects, variance components and sample sizes.
    "cells",
    "effect",
    "without_value",
    "mean_rank",
    "may_be_best",
    "p_best",
    "component",
    "variance",
    "deviation",
    "df",
    "rows",
    "repeats",
    "until",
];

/// Columns of trials that a metric of a program may be called as: see [`name_metric_column`].
const COLUMNS_FOR_METRICS: [&str; 2] = ["seconds", "steps"];

/// Columns of exports beside those of [`COLUMNS`].
const EXPORTED_COLUMNS: [&str; 2] = ["hash", "weights"];

/// Statistics whose names have a percentage, as in `q05`.
const STATISTIC_FAMILIES: [&str; 5] = ["p_diverged", "boot", "trim", "ci", "q"];

/// Explains why no axis of a new sweep can have a name that is no field; `None` if it can.
pub fn explain_reserved_axis(name: &str) -> Option<String> {
    if let Some(why) = explain_reserved_number(name) {
        return Some(why);
    }
    is_column(name).then(|| format!("'{name}' is a column of tables: give the axis another name"))
}

/// Whether tables or exports have a column of this name beside those of a program's values and metrics.
pub(crate) fn is_column_of_program(name: &str) -> bool {
    is_column(name) || EXPORTED_COLUMNS.contains(&name)
}

/// Whether a metric of a new program cannot have a name, because a column of tables has it.
pub(crate) fn is_column_without_metric(name: &str) -> bool {
    is_column_of_program(name) && !COLUMNS_FOR_METRICS.contains(&name)
}

/// The name of a metric's column in rows of trials and exports: `metric.seconds` where `seconds` is another column there.
pub fn name_metric_column(metric: &str, is_taken: bool) -> String {
    match is_taken {
        true => format!("metric.{metric}"),
        false => metric.to_owned(),
    }
}

/// Whether tables have a column of this name beside those of axes and metrics.
fn is_column(name: &str) -> bool {
    COLUMNS.contains(&name) || is_statistic_family(name)
}

/// Explains why no derived value of a program, new or stored, can have a name; `None` if one can.
pub(super) fn explain_wrong_derived(name: &str, is_new: bool) -> Option<String> {
    let reserved = || explain_reserved_derived(name).filter(|_| is_new);
    explain_wrong_value_name(name).or_else(reserved)
}

/// Explains why no derived value of a new program can have a name that one of a stored program keeps; `None` if one can.
fn explain_reserved_derived(name: &str) -> Option<String> {
    explain_reserved_number(name).or_else(|| {
        let is_taken = is_column_of_program(name);
        is_taken.then(|| format!("'{name}' is a column of tables: choose another name"))
    })
}

/// Explains why no number of a cell can have a name, which quantities would read as something else; `None` if it can.
pub(super) fn explain_reserved_number(name: &str) -> Option<String> {
    let owner = if Metric::from_name(name).is_some() {
        "is a metric, and a column of tables"
    } else if BUILT_IN_NAMES.contains(&name) {
        "is what every quantity can use"
    } else {
        return None;
    };
    Some(format!("'{name}' {owner}: choose another name"))
}

/// Whether a name is one like `q05`, `ci99_low` or `boot95_all_high`.
fn is_statistic_family(name: &str) -> bool {
    let ends = ["_low", "_high"];
    let name = ends
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(name);
    let name = name.strip_suffix("_all").unwrap_or(name);
    if COLUMNS.contains(&name) {
        return true;
    }

    let percent = STATISTIC_FAMILIES
        .iter()
        .find_map(|family| name.strip_prefix(family));
    percent.is_some_and(|percent| {
        percent.starts_with(|c: char| c.is_ascii_digit())
            && percent.chars().all(|c| c.is_ascii_digit() || c == '.')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_columns_and_of_quantities_are_taken() {
        for name in [
            "note",
            "cause",
            "metric",
            "sweep",
            "epoch",
            "end",
            "final",
            "decay",
            "samples",
            "p_diverged",
            "q05",
            "q99.9",
            "ci99_low",
            "boot95_all_high",
            "mean_all",
            "trim10",
            "incomplete",
            "test_acc",
        ] {
            assert!(explain_reserved_axis(name).is_some(), "{name}");
        }
        for name in [
            "norm",
            "q",
            "queue",
            "ci",
            "cid5",
            "wall",
            "low",
            "boots",
            "c",
            "kappa_low",
        ] {
            assert_eq!(explain_reserved_axis(name), None, "{name}");
        }
        assert!(explain_reserved_number("end").is_some());
        assert_eq!(explain_reserved_number("n"), None);
    }
}
