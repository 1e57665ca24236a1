//! The number of repeats of a cell: fixed, or until the mean of a metric is precise enough, or as
//! long as the cell is among the best.
//!
//! Stopping by interim results biases them; fewer and later looks bias them less. So cells are
//! looked at only at the *rungs* of a fixed ladder of numbers of repeats, and only when all repeats
//! below a rung have ended. The decision then does not depend on the order in which trials end.

use crate::metric::Metric;
use crate::program::{Direction, Program};
use crate::spec::MAX_TRIALS;
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::node::{SpecNode, SpecValue};
use crate::spec_file::reader::{NumberRange, TableReader, quote_value};
use crate::spec_file::suggest::suggest_nearest;

/// The rule by which a cell ends before its maximum number of repeats.
#[derive(Debug, Clone, PartialEq)]
pub struct StoppingRule {
    /// Minimum number of repeats of a cell.
    pub min_repeats: u32,
    /// Whether the sweep file sets the minimum.
    pub min_is_explicit: bool,
    /// The metric that decides, which must be measured.
    pub metric: Metric,
    /// The criterion of the decision.
    pub criterion: StoppingCriterion,
}

/// The criterion by which a cell gets more repeats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StoppingCriterion {
    /// Repeat each cell until its mean is known to ± `ci95` with 95 % confidence.
    Precision {
        /// Half the width of the interval, in units of the metric, above 0.
        ci95: f64,
    },
    /// Successive halving (Jamieson and Talwalkar 2016) with repeats as the budget: at every rung,
    /// one cell in `factor` goes on, those with the best means.
    Halving {
        /// The factor, at least 2.
        factor: u32,
    },
}

/// The first rung of stored sweeps whose file sets none. For a new sweep, the launch writes
/// [`MIN_FIRST_RUNG`] down.
pub const LEGACY_FIRST_RUNG: u32 = 20;

/// Minimum first rung of a new sweep. It is the lowest for which simulations show a coverage of
/// 0.94 of the deciding and of the printed interval, for normal values, for exponential ones, and
/// for values of which 15 % are far off.
pub const MIN_FIRST_RUNG: u32 = 40;

/// Numbers of repeats at which the precision of a cell is checked: from `min` on, each a quarter
/// larger than the one before, rounded down, and at least 1 larger. `most` is the last one.
pub fn precision_rungs(min: u32, most: u32) -> impl Iterator<Item = u32> {
    let next =
        move |rung: &u32| (*rung < most).then(|| rung.saturating_add((rung / 4).max(1)).min(most));
    std::iter::successors(Some(min.min(most)), next)
}

/// Reads `repeats`: the maximum number of repeats of a cell, and the rule by which fewer suffice.
pub(crate) fn read_repeats(
    root: &TableReader<'_>,
    program: Option<&Program>,
) -> Result<(u32, Option<StoppingRule>), SpecError> {
    if !matches!(
        root.read_node("repeats"),
        Some(SpecNode {
            value: SpecValue::Table(_),
            ..
        })
    ) {
        return Ok((
            root.read_whole_number("repeats", NumberRange::whole_numbers(1, MAX_TRIALS))?
                .unwrap_or(1) as u32,
            None,
        ));
    }

    let r = root.section("repeats")?;
    let Some(most) = r.read_whole_number("max", NumberRange::whole_numbers(2, MAX_TRIALS))? else {
        return Err(r.error_at(
            "max",
            "how many repeats at most? Set max = 500, or a number of repeats instead of a table",
        ));
    };
    let rule = read_criterion(&r, most, program)?;
    let min = u64::from(rule.min_repeats);
    let halves = matches!(rule.criterion, StoppingCriterion::Halving { .. });
    if min > most || (halves && min == most) {
        let bound = if halves { "less than" } else { "at most" };
        return Err(r.error_at(
            "min",
            format!("expected {bound} max, which is {most}, found {min}"),
        ));
    }

    r.refuse_unknown_keys()?;
    Ok((most as u32, Some(rule)))
}

fn read_criterion(
    repeats: &TableReader<'_>,
    most: u64,
    program: Option<&Program>,
) -> Result<StoppingRule, SpecError> {
    let has_until = repeats.read_node("until").is_some();
    let has_halving = repeats.read_node("halving").is_some();
    refuse_verdicts_as_rule(repeats)?;
    match (has_until, has_halving) {
        (true, false) => read_precision_rule(repeats, most, program),
        (false, true) => read_halving_rule(repeats, program),
        (true, true) => Err(repeats.error_at(
            "halving",
            "until and halving exclude each other: remove one of them",
        )),
        (false, false) => {
            let message = format!(
                "this is needed: a rule by which cells end; set {PRECISION_EXAMPLE}, or {HALVING_EXAMPLE}"
            );
            Err(repeats.error_at("until", message))
        }
    }
}

/// Refuses repeats until claims are decided: whoever looks at verdicts until one is there is wrong more often than α says.
fn refuse_verdicts_as_rule(repeats: &TableReader<'_>) -> Result<(), SpecError> {
    let until = repeats.read_node("until").map(|node| &node.value);
    if until.and_then(SpecValue::as_str) != Some("verdict") {
        return Ok(());
    }

    let message = "repeats do not end by verdicts, because looking until claims are decided makes more wrong verdicts than alpha says: \
                   write a number, as in repeats = 60; the last column of `ergodic verdict` says for a smaller run under another seed how \
                   many would do";
    Err(repeats.error_at("until", message))
}

const PRECISION_EXAMPLE: &str = "until = { metric = \"test_acc\", ci95 = 0.001 }";
const HALVING_EXAMPLE: &str = "halving = { metric = \"test_acc\", factor = 3 }";

fn read_precision_rule(
    repeats: &TableReader<'_>,
    most: u64,
    program: Option<&Program>,
) -> Result<StoppingRule, SpecError> {
    let said = repeats.read_whole_number("min", NumberRange::whole_numbers(2, MAX_TRIALS))?;
    let min = said.unwrap_or(most.min(LEGACY_FIRST_RUNG.into()));
    let r = repeats.section("until")?;
    let metric = read_deciding_metric(
        &r,
        program,
        &format!("this is needed: the metric whose mean is estimated; set {PRECISION_EXAMPLE}"),
    )?;

    let ci95 = r.read_number("ci95", NumberRange::POSITIVE)?;
    let ci95 = ci95.ok_or_else(|| {
        r.error_at(
            "ci95",
            format!("this is needed: the half width to reach; set {PRECISION_EXAMPLE}"),
        )
    })?;

    r.refuse_unknown_keys()?;
    Ok(StoppingRule {
        min_repeats: min as u32,
        min_is_explicit: said.is_some(),
        metric,
        criterion: StoppingCriterion::Precision { ci95 },
    })
}

fn read_halving_rule(
    repeats: &TableReader<'_>,
    program: Option<&Program>,
) -> Result<StoppingRule, SpecError> {
    let min = repeats.read_whole_number("min", NumberRange::whole_numbers(1, MAX_TRIALS))?;
    let min = min.ok_or_else(|| {
        repeats.error_at(
            "min",
            "this is needed: the repeats of every cell before the first choice; set min = 2",
        )
    })?;

    let r = repeats.section("halving")?;
    let metric = read_deciding_metric(
        &r,
        program,
        &format!("this is needed: the metric by which cells are chosen; set {HALVING_EXAMPLE}"),
    )?;
    if metric.larger_is_better().is_none() {
        let message = format!(
            "neither larger nor smaller values of {} are better: choose by an accuracy or a loss",
            metric.name()
        );
        return Err(r.error_at("metric", message));
    }

    let factor = r.read_whole_number("factor", NumberRange::whole_numbers(2, 1000))?;
    let factor = factor.ok_or_else(|| {
        r.error_at(
            "factor",
            format!("this is needed: one cell in this many goes on; set {HALVING_EXAMPLE}"),
        )
    })?;

    r.refuse_unknown_keys()?;
    Ok(StoppingRule {
        min_repeats: min as u32,
        min_is_explicit: true,
        metric,
        criterion: StoppingCriterion::Halving {
            factor: factor as u32,
        },
    })
}

fn read_deciding_metric(
    r: &TableReader<'_>,
    program: Option<&Program>,
    question: &str,
) -> Result<Metric, SpecError> {
    let Some(node) = r.read_node("metric") else {
        return Err(r.error_at("metric", question));
    };
    let name = node.value.as_str().unwrap_or_default();
    if let Some(program) = program {
        return find_declared_metric(r, program, name);
    }
    Metric::from_name(name).ok_or_else(|| {
        let known = Metric::NAMES.iter().map(|(word, _)| *word);
        let hint = suggest_nearest(name, known.clone());
        let message = format!("unknown metric {}, {hint}", quote_value(&node.value));
        r.error_at("metric", message).with_unknown(name, known)
    })
}

/// Finds the metric of a program that decides, which must have a direction.
fn find_declared_metric(
    r: &TableReader<'_>,
    program: &Program,
    name: &str,
) -> Result<Metric, SpecError> {
    let usable = program
        .metrics
        .iter()
        .filter(|metric| metric.direction != Direction::Volatile);
    if let Some(metric) = usable.clone().find(|metric| metric.name == name) {
        return Ok(Metric::Declared(metric.clone()));
    }

    let hint = suggest_nearest(name, usable.map(|metric| metric.name.as_str()));
    let is_volatile = program.metrics.iter().any(|metric| metric.name == name);
    let message = match is_volatile {
        true => format!(
            "{name} is volatile, so it decides nothing: declare it as \"max\" or \"min\", or choose another metric, {hint}"
        ),
        false => format!("{}.metrics has no '{name}', {hint}", program.section()),
    };
    Err(r.error_at("metric", message))
}

impl StoppingRule {
    /// The numbers of repeats at which cells are looked at; `most` is the last one.
    pub fn rungs(&self, most: u32) -> Vec<u32> {
        match self.criterion {
            StoppingCriterion::Precision { .. } => {
                precision_rungs(self.min_repeats, most).collect()
            }
            StoppingCriterion::Halving { factor } => {
                let next =
                    |rung: &u32| (*rung < most).then(|| rung.saturating_mul(factor).min(most));
                std::iter::successors(Some(self.min_repeats.min(most)), next).collect()
            }
        }
    }

    /// The minimum number of trials of `cells` cells with at most `most` repeats and, if it is
    /// known in advance, the actual number.
    pub fn trial_bounds(&self, cells: u64, most: u32) -> (u64, Option<u64>) {
        let rungs = self.rungs(most);
        let least = cells * u64::from(rungs[0]);
        let StoppingCriterion::Halving { factor } = self.criterion else {
            return (least, None);
        };
        let mut standing = cells;
        let further = rungs.windows(2).map(|two| {
            standing = standing.div_ceil(factor.into());
            standing * u64::from(two[1] - two[0])
        });
        let all = least + further.sum::<u64>();

        (all, Some(all))
    }

    /// Whether a cell ends when the interval of its mean is narrow enough.
    pub fn is_precision_based(&self) -> bool {
        matches!(self.criterion, StoppingCriterion::Precision { .. })
    }

    /// The section of the sweep file with the rule.
    fn section_path(&self) -> &'static str {
        match self.criterion {
            StoppingCriterion::Precision { .. } => "repeats.until",
            StoppingCriterion::Halving { .. } => "repeats.halving",
        }
    }

    /// Checks that the deciding metric is measured.
    pub(crate) fn check_metric(&self, measured: &[Metric]) -> Result<(), SpecError> {
        if measured.contains(&self.metric) {
            return Ok(());
        }

        let names: Vec<_> = measured.iter().map(Metric::name).collect();
        let hint = suggest_nearest(&self.metric.name(), names.iter().map(|name| &**name));
        let message = format!(
            "{} is not measured, {hint}: name it in the list metrics under [measure]",
            self.metric.name()
        );
        Err(SpecError::new(
            Origin::Default,
            format!("{}.metric", self.section_path()),
            message,
        ))
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::Spec;
    use crate::spec::source::SpecSource;
    use crate::spec::stopping_rule::*;

    fn read(repeats: &str, settings: &[&str]) -> Result<Spec, String> {
        let text = format!(
            "name = \"t\"\n[model]\nkind = \"empty\"\n[measure]\nmetrics = [\"test_acc\"]\n{repeats}"
        );
        Spec::read_stored(&source(text, settings)).map_err(|e| e.to_string())
    }

    fn source(text: String, settings: &[&str]) -> SpecSource {
        let settings = settings.iter().map(|s| (*s).to_owned()).collect();
        SpecSource {
            file: "t.toml".into(),
            text,
            settings,
            ..SpecSource::default()
        }
    }

    #[test]
    fn repeats_may_end_when_a_mean_is_known() {
        let until = "until = { metric = \"test_acc\", ci95 = 0.001 }\n";
        let spec =
            read(&format!("[repeats]\nmin = 30\nmax = 500\n{until}"), &[]).expect("a valid sweep");
        let wanted = StoppingRule {
            min_repeats: 30,
            min_is_explicit: true,
            metric: Metric::TestAcc,
            criterion: StoppingCriterion::Precision { ci95: 0.001 },
        };
        assert_eq!((spec.repeats, spec.stopping_rule), (500, Some(wanted)));

        let least = |text: &str| {
            read(text, &[])
                .expect("a valid sweep")
                .stopping_rule
                .map(|until| until.min_repeats)
        };
        assert_eq!(
            least(&format!("[repeats]\nmax = 500\n{until}")),
            Some(LEGACY_FIRST_RUNG)
        );

        assert_eq!(least(&format!("[repeats]\nmax = 7\n{until}")), Some(7));
        assert_eq!(least(""), None);
    }

    #[test]
    fn repeats_may_be_for_those_among_the_best() {
        let spec = read(
            "[repeats]\nmin = 2\nmax = 50\nhalving = { metric = \"test_acc\", factor = 3 }",
            &[],
        );
        let until = spec
            .expect("a valid sweep")
            .stopping_rule
            .expect("there is a rule");
        assert_eq!(
            until,
            StoppingRule {
                min_repeats: 2,
                min_is_explicit: true,
                metric: Metric::TestAcc,
                criterion: StoppingCriterion::Halving { factor: 3 }
            }
        );

        assert_eq!(until.rungs(50), [2, 6, 18, 50]);
        assert_eq!(until.rungs(54), [2, 6, 18, 54]);
        assert_eq!(until.rungs(2), [2]);

        // 10 cells to 2 repeats, 4 to 6, 2 to 18, 1 to 50.
        assert_eq!(until.trial_bounds(10, 50), (20 + 16 + 24 + 32, Some(92)));
    }

    #[test]
    fn what_is_wrong_with_repeats_is_told_by_field() {
        let until = "until = { metric = \"test_acc\", ci95 = 0.001 }";
        let halving = "halving = { metric = \"test_acc\", factor = 3 }";
        for (text, words) in [
            (
                format!("[repeats]\nmin = 2\n{until}"),
                "repeats.max: how many",
            ),
            (
                format!("[repeats]\nmin = 2\nmax = 9\n{until}\n{halving}"),
                "repeats.halving: until and halving exclude",
            ),
            (
                format!("[repeats]\nmax = 9\n{halving}"),
                "repeats.min: this is needed: the repeats of every",
            ),
            (
                format!("[repeats]\nmin = 10\nmax = 9\n{halving}"),
                "repeats.min: expected less than max, which is 9",
            ),
            (
                "[repeats]\nmin = 1\nmax = 9\nhalving = { metric = \"test_acc\" }".into(),
                "halving.factor: this is needed: one cell",
            ),
            (
                "[repeats]\nmin = 1\nmax = 9\nhalving = { factor = 2 }".into(),
                "repeats.halving.metric: this is needed: the metric",
            ),
            (
                "[repeats]\nmin = 1\nmax = 9\nhalving = { metric = \"test_acc\", factor = 1 }"
                    .into(),
                "repeats.halving.factor: expected a whole number >= 2",
            ),
            (
                "[repeats]\nmin = 1\nmax = 9\nhalving = { metric = \"weight_norm\", factor = 2 }"
                    .into(),
                "repeats.halving.metric: neither larger",
            ),
            (
                "[repeats]\nmin = 1\nmax = 9\nhalving = { metric = \"test_loss\", factor = 2 }"
                    .into(),
                "repeats.halving.metric: test_loss is not measured",
            ),
            (
                format!("[repeats]\nmin = 30\nmax = 20\n{until}"),
                "repeats.min: expected at most max, which is 20, found 30",
            ),
            (
                format!("[repeats]\nmin = 1\nmax = 20\n{until}"),
                "repeats.min: expected a whole number >= 2",
            ),
            (
                format!("[repeats]\nmaxx = 20\nmax = 20\n{until}"),
                "unknown key 'maxx'",
            ),
            (
                "[repeats]\nmax = 20".into(),
                "repeats.until: this is needed: a rule",
            ),
            (
                "[repeats]\nmin = 6\nmax = 60\nuntil = \"verdict\"".into(),
                "repeats.until: repeats do not end by verdicts",
            ),
            (
                "[repeats]\nmax = 20\nuntil = { ci95 = 0.1 }".into(),
                "repeats.until.metric: this is needed: the metric",
            ),
            (
                "[repeats]\nmax = 20\nuntil = { metric = \"test_acc\" }".into(),
                "repeats.until.ci95: this is needed: the half",
            ),
            (
                "[repeats]\nmax = 20\nuntil = { metric = \"test_ac\", ci95 = 0.1 }".into(),
                "did you mean 'test_acc'",
            ),
            (
                "[repeats]\nmax = 20\nuntil = { metric = \"test_acc\", ci95 = 0 }".into(),
                "repeats.until.ci95: expected",
            ),
            (
                "[repeats]\nmax = 20\nuntil = { metric = \"test_loss\", ci95 = 1 }".into(),
                "test_loss is not measured",
            ),
        ] {
            let why = read(&text, &[]).expect_err("it is wrong");
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn the_ladder_grows_by_a_quarter_and_ends_with_the_most() {
        assert_eq!(
            precision_rungs(20, 100).collect::<Vec<_>>(),
            [20, 25, 31, 38, 47, 58, 72, 90, 100]
        );
        assert_eq!(precision_rungs(2, 6).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
        assert_eq!(precision_rungs(7, 7).collect::<Vec<_>>(), [7]);

        let longer: Vec<u32> = precision_rungs(20, 1000).collect();
        assert!(
            precision_rungs(20, 100)
                .take(8)
                .all(|rung| longer.contains(&rung)),
            "raising the most moves no rung below it"
        );
    }

    #[test]
    fn a_setting_changes_the_number_of_repeats() {
        let plain = "name = \"t\"\nrepeats = 5\n[model]\nkind = \"empty\"\n".to_owned();
        let table = "name = \"t\"\n[model]\nkind = \"empty\"\n[repeats]\nmin = 3\nmax = 5\nuntil = { metric = \"test_acc\", ci95 = 1 }\n";
        for (text, field) in [(plain, "repeats"), (table.to_owned(), "repeats.max")] {
            let first = source(text, &["numerics=\"cpu-f32\""]);
            let of = Spec::read_stored(&first).expect("a valid sweep");
            let once = first.with_repeats(&of, 7);
            assert_eq!(
                once.settings,
                [format!("{field}=7"), "numerics=\"cpu-f32\"".into()]
            );

            let twice = once.with_repeats(&of, 9);
            let spec = Spec::read_stored(&twice).expect("a valid sweep");
            assert_eq!(
                (spec.repeats, spec.stopping_rule, twice.settings.len()),
                (9, of.stopping_rule, 2)
            );
        }
    }

    #[test]
    fn who_was_looked_at_once_is_not_looked_at_too_early_when_more_can_follow() {
        let stored = |repeats: &str, settings: &[&str]| {
            let text = format!(
                "name = \"t\"\n[model]\nkind = \"empty\"\n[repeats]\n{repeats}\nuntil = {{ metric = \"test_acc\", ci95 = 1 }}\n"
            );
            source(text, settings)
        };

        let grown = |source: &SpecSource, repeats: u32| {
            let of = Spec::read_stored(source).expect("a valid sweep");
            let spec =
                Spec::read_stored(&source.with_repeats(&of, repeats)).expect("a valid sweep");
            (
                spec.stopping_rule.map(|until| until.min_repeats),
                spec.repeats,
            )
        };

        let pinned = "numerics=\"cpu-f32\"";
        assert_eq!(
            grown(&stored("max = 7", &["repeats.min=7", pinned]), 500),
            (Some(40), 500)
        );
        assert_eq!(
            grown(&stored("min = 20\nmax = 20", &[pinned]), 30),
            (Some(30), 30)
        );

        assert_eq!(grown(&stored("max = 7", &[pinned]), 500), (Some(40), 500));
        // One that was looked at early goes on so, and a late one is late enough.
        assert_eq!(
            grown(&stored("min = 20\nmax = 25", &[pinned]), 500),
            (Some(20), 500)
        );

        assert_eq!(
            grown(&stored("min = 60\nmax = 60", &[pinned]), 500),
            (Some(60), 500)
        );
    }
}
