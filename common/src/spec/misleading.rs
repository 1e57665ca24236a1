//! Checks of new sweeps that would mislead. They apply when a sweep is planned, launched or
//! extended, and never when a stored one is read.

use std::collections::BTreeSet;

use crate::config::{Augment, Loss, ModelKind, TrialConfig, VisitOrder};
use crate::ids::CellIndex;
use crate::metric::Metric;
use crate::random_streams::{NAMED_PURPOSES, Purpose};
use crate::spec::Spec;
use crate::spec::stopping_rule::{MIN_FIRST_RUNG, StoppingCriterion, StoppingRule};
use crate::spec_file::error::Origin;
use crate::spec_file::error::SpecError;

/// Refuses a new sweep whose results would mislead.
///
/// # Errors
/// Names the field, what is wrong with it, and what to do.
pub fn refuse_misleading_sweep(spec: &Spec) -> Result<(), SpecError> {
    RULES.iter().try_for_each(|rule| rule(spec))?;
    refuse_copied_repeats(spec)
}

/// Refuses the extension of a stored sweep, as if it were new. Rules that the stored sweep breaks
/// already are not applied, except the one against repeats that are copies, because there would be
/// more of them.
///
/// # Errors
/// As for [`refuse_misleading_sweep`].
pub fn refuse_misleading_extension(spec: &Spec, stored: &Spec) -> Result<(), SpecError> {
    RULES
        .iter()
        .filter(|rule| rule(stored).is_ok())
        .try_for_each(|rule| rule(spec))?;
    refuse_copied_repeats(spec)
}

/// A check that refuses a misleading sweep.
type RefusalRule = fn(&Spec) -> Result<(), SpecError>;

const RULES: [RefusalRule; 4] = [
    refuse_early_first_rung,
    refuse_adaptive_crossed,
    refuse_halving_by_mixed_losses,
    refuse_metrics_without_average,
];

/// Settles what a new sweep's file leaves open and was decided otherwise for older ones. The settings returned say so in its source:
/// read with these, it means what `spec` does now.
#[must_use]
pub fn settle_new_sweep(spec: &mut Spec) -> Vec<String> {
    let least = min_first_rung(spec);
    let open = spec.stopping_rule.as_mut().filter(|until| {
        until.is_precision_based() && !until.min_is_explicit && until.min_repeats < least
    });
    open.map(|until| {
        until.min_repeats = least;
        until.min_is_explicit = true;
        format!("repeats.min={least}")
    })
    .into_iter()
    .collect()
}

fn min_first_rung(spec: &Spec) -> u32 {
    MIN_FIRST_RUNG.min(spec.repeats)
}

fn field_error(field: &str, message: String) -> SpecError {
    SpecError::new(Origin::Default, field, message)
}

fn refuse_early_first_rung(spec: &Spec) -> Result<(), SpecError> {
    let Some(until) = spec.stopping_rule.as_ref().filter(|until| {
        until.is_precision_based()
            && until.min_is_explicit
            && until.min_repeats < min_first_rung(spec)
    }) else {
        return Ok(());
    };
    let found = until.min_repeats;

    let least = min_first_rung(spec);
    Err(field_error(
        "repeats.min",
        format!(
            "expected {least} or more, found {found}: with fewer repeats a mean may look precise by chance, for example by two \
             equal accuracies, and if some trials end far off, its 95 % interval would miss it in more than 5 % of cases"
        ),
    ))
}

/// Refuses stopping rules with crossed streams: cells would stop within the first level of a
/// crossed stream.
fn refuse_adaptive_crossed(spec: &Spec) -> Result<(), SpecError> {
    let Some(until) = spec
        .stopping_rule
        .as_ref()
        .filter(|_| !spec.seeds.crossed.is_empty())
    else {
        return Ok(());
    };
    let field = if matches!(until.criterion, StoppingCriterion::Halving { .. }) {
        "repeats.halving"
    } else {
        "repeats.until"
    };

    let combinations = spec.seeds.combination_count();
    Err(field_error(
        field,
        format!(
            "the first repeats of crossed streams all share one level of the slowest stream, so they say nothing about its effect: set \
             repeats = {combinations} without a rule, or remove seeds.crossed"
        ),
    ))
}

fn refuse_halving_by_mixed_losses(spec: &Spec) -> Result<(), SpecError> {
    let Some(StoppingRule {
        metric,
        criterion: StoppingCriterion::Halving { .. },
        ..
    }) = &spec.stopping_rule
    else {
        return Ok(());
    };
    let Some([one, other]) = find_mixed_losses(spec, metric) else {
        return Ok(());
    };
    let message = format!(
        "{} is not the same quantity in all cells, which train on different losses ({one}, {other}): choose by an accuracy, or sweep one loss",
        metric.name()
    );

    Err(field_error("repeats.halving.metric", message))
}

/// Metrics of averaged weights are undefined in cells that average none.
fn refuse_metrics_without_average(spec: &Spec) -> Result<(), SpecError> {
    let undefined = spec
        .measure
        .metrics
        .iter()
        .find(|metric| metric.needs_average());
    let Some(metric) = undefined else {
        return Ok(());
    };

    let lacks_average = spec
        .grid
        .variety_configs()
        .any(|config| config.model.kind.needs_images() && config.train.average.is_none());
    if !lacks_average {
        return Ok(());
    }

    let message = format!(
        "{} needs an average of the weights: set train.average = {{ kind = \"swa\" }} or {{ kind = \"ema\" }}, or leave it out",
        metric.name()
    );
    Err(field_error("measure.metrics", message))
}

/// Finds two losses that a metric measures, each in some cells; `None` if it measures the same
/// quantity in all.
pub fn find_mixed_losses(spec: &Spec, metric: &Metric) -> Option<[String; 2]> {
    if !metric.is_loss() || !can_loss_vary(spec) {
        return None;
    }

    let smoothed = is_smoothed_loss(spec, metric);
    let mut quantities = spec
        .grid
        .variety_configs()
        .map(|config| loss_quantity(&config, smoothed));
    let first = quantities.next()?;
    let other = quantities.find(|other| *other != first)?;
    Some([first, other])
}

/// Says that a metric ranks no cells, because it measures two losses, each in some of them.
pub fn describe_unranked_losses(name: &str, [one, other]: &[String; 2]) -> String {
    format!(
        "cells are not ranked by {name}, which is another quantity in cells with another loss ({one}, {other}): rank by an \
         accuracy, or choose cells with one loss"
    )
}

/// The name of the quantity that a loss measures in a cell; `None` for a metric that is no loss.
pub fn describe_loss_quantity(spec: &Spec, metric: &Metric, cell: CellIndex) -> Option<String> {
    // What a program reports under the name of a loss, it alone knows.
    if !metric.is_loss() || spec.program().is_some() {
        return None;
    }
    let config = spec.grid.resolve_config(cell).ok()?;
    Some(loss_quantity(&config, is_smoothed_loss(spec, metric)))
}

/// Whether cells differ in anything that decides their loss.
fn can_loss_vary(spec: &Spec) -> bool {
    let says = |field: &str| {
        ["train.loss", "model.kind"]
            .iter()
            .any(|of| field.starts_with(of) || of.starts_with(&format!("{field}.")))
    };
    let axes = spec.grid.axes().iter().filter(|axis| axis.len() > 1);
    axes.filter_map(|axis| axis.field.as_deref())
        .chain(spec.grid.computed_fields())
        .chain(spec.grid.case_fields())
        .any(says)
}

/// Whether a metric includes label smoothing. In earlier numerics classes every loss did.
fn is_smoothed_loss(spec: &Spec, metric: &Metric) -> bool {
    let earlier = (1..6).any(|version| spec.numerics == format!("cpu-f32/{version}"));
    earlier
        || spec.numerics.starts_with("cuda-f32/1/")
        || matches!(metric, Metric::TrainSmoothedLoss | Metric::TestSmoothedLoss)
}

/// The name of the quantity that a loss measures.
fn loss_quantity(config: &TrialConfig, smoothed: bool) -> String {
    match (&config.model.kind, config.train.loss) {
        (ModelKind::Toy(_), _) => "the toy loss".into(),
        (_, Loss::Mse) => "mse".into(),
        (_, Loss::CrossEntropy { smoothing }) if smoothing == 0.0 || !smoothed => {
            "cross-entropy".into()
        }
        (_, Loss::CrossEntropy { smoothing }) => {
            format!("cross-entropy with label_smoothing = {smoothing}")
        }
    }
}

/// Refuses repeats that are copies: they are the same trial, but would count as several.
fn refuse_copied_repeats(spec: &Spec) -> Result<(), SpecError> {
    if spec.seeds.fixed.is_empty() && spec.seeds.crossed.is_empty() {
        return Ok(());
    }

    let uses: BTreeSet<Vec<&str>> = spec
        .grid
        .variety_configs()
        .map(|config| purpose_names(&used_streams(&config)))
        .collect();
    for names in uses.into_iter().filter(|names| !names.is_empty()) {
        let Some(distinct) = distinct_repeats(spec, &names) else {
            continue;
        };
        if u64::from(spec.repeats) <= distinct {
            continue;
        }

        let what = names.join(", ");
        let more = match spec.program() {
            Some(_) => ", or add {seed} or {repeat} to program.command or program.env",
            None => "",
        };
        let message = format!(
            "{} repeats of a cell are copies of {distinct}: everything random about its trials ({what}) is fixed or crossed; set \
             repeats = {distinct}, or more streams, or leave one of them out of seeds.fixed and seeds.crossed{more}",
            spec.repeats
        );
        return Err(field_error("repeats", message));
    }

    Ok(())
}

/// Warns that repeats may be copies, where all streams are fixed or crossed that can be, and no sweep file shows which ones a trial
/// uses: an experiment, a program with the helper, or one that names no seed. It may draw from others, or look at the number of the
/// repeat, which nobody else knows.
pub fn warn_of_equal_repeats(spec: &Spec) -> Option<String> {
    let program = spec.program()?;
    let (what, remedy) = match &program.experiment {
        Some(_) => ("experiment", ""),
        None if program.hides_streams() => (
            "program",
            ", or add {seed} or {repeat} to program.command or program.env",
        ),
        None => return None,
    };
    let names = NAMED_PURPOSES.map(|(name, _)| name);
    let distinct = distinct_repeats(spec, &names)?;
    let repeats = u64::from(spec.repeats);
    (repeats > distinct).then(|| {
        let streams = names.join(", ");
        format!(
            "repeats: all streams of seeds ({streams}) are fixed or crossed, so that the {repeats} repeats of a cell are copies of \
             {distinct} unless the {what} draws from other streams or uses the number of the repeat: if it does not, set \
             repeats = {distinct}, or leave a stream out of seeds.fixed and seeds.crossed{remedy}"
        )
    })
}

fn purpose_names(purposes: &[Purpose]) -> Vec<&'static str> {
    purposes.iter().map(|purpose| purpose.as_str()).collect()
}

/// Number of distinct repeats, if some are copies.
fn distinct_repeats(spec: &Spec, used: &[&str]) -> Option<u64> {
    let mut distinct = 1_u64;
    for name in used {
        let crossed = spec
            .seeds
            .crossed
            .iter()
            .find(|(purpose, _)| purpose.as_str() == *name);
        match crossed {
            Some((_, count)) => distinct = distinct.saturating_mul(u64::from(*count)),
            None if spec
                .seeds
                .fixed
                .iter()
                .any(|purpose| purpose.as_str() == *name) => {}
            None => return None,
        }
    }

    Some(distinct)
}

/// The streams that a trial draws from and that differ between repeats.
pub fn used_streams(config: &TrialConfig) -> Vec<Purpose> {
    let mut used = Vec::new();
    match &config.model.kind {
        ModelKind::Empty => return vec![Purpose::Empty],
        ModelKind::Program(cell) => return cell.program.named_streams(),
        ModelKind::Toy(toy) => {
            used.extend(toy.start.is_none().then_some(Purpose::Init));
            used.extend((toy.noise > 0.0).then_some(Purpose::Order));
            return used;
        }
        _ => {}
    }

    // Each repeat starts from other weights.
    if config.results_start.is_some() {
        return used;
    }

    if config.model.init_file.is_none() {
        used.extend([Purpose::Init, Purpose::Head]);
    }

    if matches!(
        config.data.order,
        VisitOrder::Shuffle | VisitOrder::WithReplacement
    ) || config.train.added_noise.is_some()
    {
        used.push(Purpose::Order);
    }

    if config.data.augment != Augment::None {
        used.push(Purpose::Augment);
    }

    used
}

#[cfg(test)]
mod tests {
    use crate::spec::misleading::*;
    use crate::spec::source::SpecSource;
    use crate::trial::{CPU_F32, CUDA_F32};

    const TEXT: &str = "name = \"t\"\nREPEATS\n[data]\ndataset = \"glyphs\"\n[model]\nkind = \"cnn4\"\n[train]\nepochs = 1\nbatch_size = 32\n\
                        lr = 0.1\n[measure]\nmetrics = [\"test_acc\", \"test_loss\"]\n";

    fn sweep_source(head: &str, more: &str) -> SpecSource {
        let text = TEXT.replace("REPEATS", head) + more;
        SpecSource {
            file: "t".into(),
            text,
            ..SpecSource::default()
        }
    }

    fn sweep(head: &str, more: &str) -> Spec {
        Spec::read_stored(&sweep_source(head, more))
            .expect("what is refused of new sweeps can be read")
    }

    fn why(head: &str, more: &str) -> String {
        refuse_misleading_sweep(&sweep(head, more))
            .err()
            .map_or_else(String::new, |error| error.to_string())
    }

    const UNTIL: &str = "until = { metric = \"test_acc\", ci95 = 0.01 } }";
    const CROSSED: &str = "seeds = { crossed = { init = 2, order = 3, head = 2 } }";

    #[test]
    fn cells_that_may_end_early_are_not_looked_at_too_early() {
        let repeats = |min: &str, max: u32| format!("repeats = {{ {min}max = {max}, {UNTIL}");
        assert!(
            why(&repeats("min = 20, ", 500), "")
                .contains("repeats.min: expected 40 or more, found 20")
        );
        assert_eq!(
            why(&repeats("min = 40, ", 500), "") + &why(&repeats("min = 7, ", 7), ""),
            ""
        );

        // Where nothing is said, new sweeps begin later than stored ones do.
        let open = sweep(&repeats("", 500), "");
        assert_eq!(
            (
                refuse_misleading_sweep(&open).is_ok(),
                open.stopping_rule.as_ref().map(|until| until.min_repeats)
            ),
            (true, Some(20))
        );

        let settings = |min: &str, max| settle_new_sweep(&mut sweep(&repeats(min, max), ""));
        assert_eq!(settings("", 500), ["repeats.min=40"]);
        assert_eq!(settings("", 30), ["repeats.min=30"]);
        assert!(settings("min = 50, ", 500).is_empty());
    }

    #[test]
    fn a_settled_sweep_is_what_its_source_with_the_settings_means() {
        let repeats = format!("repeats = {{ max = 500, {UNTIL}");
        for class in [CPU_F32, CUDA_F32, "cpu-f32/7", "cuda-f32/2/sm90/cublas13.1"] {
            let mut source = sweep_source(&repeats, "");
            let mut spec = Spec::read_new(&source).expect("a valid sweep");
            source.settings.extend(settle_new_sweep(&mut spec));
            source
                .settings
                .push(spec.pin_numerics(class).expect("a class"));
            assert_eq!(source.settings.len(), 2);

            let again = Spec::read_new(&source).expect("a valid sweep");
            assert_eq!(format!("{spec:?}"), format!("{again:?}"));
        }

        let mut spec = sweep(&repeats, "");
        assert!(spec.pin_numerics("cuda-f32/2").is_err());
    }

    #[test]
    fn what_ends_by_what_is_seen_crosses_nothing() {
        let more = "[seeds]\ncrossed = { init = 2, order = 3 }";
        let until = format!("repeats = {{ min = 60, max = 600, {UNTIL}");
        assert!(
            why(&until, more).contains("repeats.until: the first repeats of crossed streams"),
            "{}",
            why(&until, more)
        );

        let halving =
            "repeats = { min = 6, max = 12, halving = { metric = \"test_acc\", factor = 2 } }";
        assert!(
            why(halving, more).contains("repeats.halving: ")
                && why(halving, more).contains("repeats = 6")
        );
    }

    #[test]
    fn metrics_of_an_average_need_one() {
        let measured = |settings: &[&str]| {
            let mut source = sweep_source("", "");
            let metrics = "measure.metrics=[\"test_acc\", \"average_test_acc\"]";
            source.settings = settings.iter().map(|s| (*s).to_owned()).collect();
            source.settings.push(metrics.to_owned());
            let spec = Spec::read_stored(&source).expect("a stored sweep may have them");
            refuse_misleading_sweep(&spec)
        };

        let error = measured(&[]).expect_err("there is no average");
        assert_eq!(error.path, "measure.metrics");
        assert!(
            error
                .to_string()
                .contains("average_test_acc needs an average"),
            "{error}"
        );
        assert_eq!(measured(&["train.average={ kind = \"ema\" }"]), Ok(()));
        assert_eq!(measured(&["model={ kind = \"empty\" }"]), Ok(()));
    }

    #[test]
    fn halving_compares_one_quantity() {
        let halving = |metric| {
            format!(
                "repeats = {{ min = 2, max = 4, halving = {{ metric = \"{metric}\", factor = 2 }} }}"
            )
        };

        let losses = "[grid]\n\"train.loss\" = [\"cross-entropy\", \"mse\"]";
        let refused = why(&halving("test_loss"), losses);
        assert!(
            refused.contains("repeats.halving.metric") && refused.contains("(cross-entropy, mse)"),
            "{refused}"
        );

        assert_eq!(
            why(&halving("test_acc"), losses)
                + &why(&halving("test_loss"), "[grid]\nlr = [0.1, 0.2]"),
            ""
        );
    }

    /// However late in the grid, and however few of its cells, and whatever else it varies.
    #[test]
    fn the_last_of_many_cells_is_looked_at() {
        let halving =
            "repeats = { min = 2, max = 4, halving = { metric = \"test_loss\", factor = 2 } }";
        let many = "[grid]\n\"train.loss\" = [\"cross-entropy\", \"mse\"]\nlr = { linear = [0, 1], points = 100_001 }\n";
        assert!(why(halving, many).contains("(cross-entropy, mse)"));
        let kept = |keep: &str| {
            format!(
                "{many}i = {{ linear = [0, 4], points = 2 }}\n[derive]\nwd = \"i\"\n[where]\nkeep = \"{keep}\"\n"
            )
        };
        assert!(why(halving, &kept("lr < 2")).contains("(cross-entropy, mse)"));

        // Only by what is smoothed away: the plain loss is one quantity.
        let smoothed =
            "[grid]\n\"train.loss.label_smoothing\" = { linear = [0, 0.5], points = 100_001 }\n";
        assert_eq!(why(halving, smoothed), "");
        let ranked = halving.replace("test_loss", "test_smoothed_loss");
        let with = |keep: &str| {
            let mut source = sweep_source(
                &ranked,
                &format!("{smoothed}lr = [1, 2]\n[where]\nkeep = \"{keep}\"\n"),
            );
            source.settings = vec!["measure.metrics=[\"test_smoothed_loss\"]".into()];

            refuse_misleading_sweep(&Spec::read_stored(&source).expect("it can be read")).is_ok()
        };
        assert!(
            with("train.loss.label_smoothing == 0.5")
                && !with("train.loss.label_smoothing >= 0.499995 && lr > 1")
        );

        let crossed = "repeats = 24\nseeds = { crossed = { init = 2, order = 3, head = 2 } }";
        let orders = "[grid]\n\"data.augment\" = [\"flip\", \"none\"]\nlr = { linear = [0, 1], points = 100_001 }\n";
        assert!(why(crossed, orders).contains("copies of 12"));
    }

    /// A few cells show what all of them do.
    #[test]
    fn varieties_show_what_all_cells_do() {
        let all = |spec: &Spec,
                   of: &dyn Fn(&TrialConfig) -> String|
         -> (BTreeSet<String>, BTreeSet<String>) {
            let cells = spec
                .grid
                .iter()
                .filter_map(|cell| spec.grid.resolve_config(cell).ok());
            (
                cells.map(|config| of(&config)).collect(),
                spec.grid
                    .variety_configs()
                    .map(|config| of(&config))
                    .collect(),
            )
        };

        let nets = "\"data.order\" = [\"sequential\", \"shuffle\", \"full-batch\"]\n\"data.augment\" = [\"none\", \"flip\", \"crop-flip\"]\n\
                    \"train.loss.label_smoothing\" = { linear = [0, 0.5], points = 6 }\nlr = [1, 2, 3]\n";
        let toys = "\"model.noise\" = { linear = [1, 0], points = 5 }\nlr = [1, 2, 3]\n";
        let derived = "lr = [1, 2, 3]\nx = { linear = [0, 4], points = 5 }\n[derive]\nwd = \"x\"\n\"model.noise\" = \"max(x - 1, 0) * (lr > 1)\"\n";
        for (kind, grid, keep, most) in [
            ("mlp", nets, "", 18),
            ("mlp", nets, "train.loss.label_smoothing * lr < 0.5", 18),
            (
                "mlp",
                nets,
                "train.loss.label_smoothing > 0.2 && lr == 3",
                18,
            ),
            ("toy", toys, "", 2),
            ("toy", toys, "model.noise * lr > 0.5", 1),
            ("toy", derived, "", 2),
            ("toy", derived, "x < 2", 1),
        ] {
            let keep = if keep.is_empty() {
                String::new()
            } else {
                format!("[where]\nkeep = \"{keep}\"\n")
            };
            let mut source = sweep_source("", &format!("[grid]\n{grid}{keep}"));
            source.settings = vec![
                format!("model.kind={kind}"),
                "measure.metrics=[\"train_loss\"]".into(),
            ];

            let spec = Spec::read_stored(&source).expect("it can be read");
            for smoothed in [false, true] {
                let (wanted, found) = all(&spec, &|config| loss_quantity(config, smoothed));
                assert!(
                    found.is_subset(&wanted) && found.len() >= wanted.len().min(2),
                    "{wanted:?} {found:?}"
                );
            }

            let (wanted, found) = all(&spec, &|config| {
                purpose_names(&used_streams(config)).join(" ")
            });
            assert_eq!(wanted, found, "{grid}{keep}");
            assert!(spec.grid.variety_configs().count() <= most, "{grid}{keep}");
        }
    }

    #[test]
    fn what_a_sweep_does_already_it_may_go_on_doing() {
        let until = |min: u32, max: u32| {
            sweep(
                &format!("repeats = {{ min = {min}, max = {max}, {UNTIL}"),
                "",
            )
        };

        let more = |new: &Spec, stored: &Spec| {
            refuse_misleading_extension(new, stored).map_err(|e| e.to_string())
        };
        assert_eq!(more(&until(20, 900), &until(20, 500)), Ok(()));

        for stored in [until(40, 500), until(7, 7), sweep("repeats = 20", "")] {
            assert!(
                more(&until(20, 900), &stored)
                    .is_err_and(|e| e.contains("repeats.min: expected 40 or more"))
            );
        }

        let halving =
            "repeats = { min = 2, max = 4, halving = { metric = \"test_loss\", factor = 2 } }";
        let losses = "[grid]\n\"train.loss\" = [\"cross-entropy\", \"mse\"]";
        assert!(
            more(&sweep(halving, losses), &sweep(halving, ""))
                .is_err_and(|e| e.contains("not the same quantity"))
        );

        assert_eq!(
            more(&sweep(halving, losses), &sweep(halving, losses)),
            Ok(())
        );

        // Copies become no fewer.
        let copies = |repeats: u32| sweep(&format!("repeats = {repeats}\n{CROSSED}"), "");
        assert!(more(&copies(36), &copies(24)).is_err_and(|e| e.contains("copies of 12")));
    }

    #[test]
    fn copies_are_no_repeats() {
        assert!(
            why(&format!("repeats = 24\n{CROSSED}"), "")
                .contains("repeats: 24 repeats of a cell are copies of 12")
        );
        assert_eq!(why(&format!("repeats = 12\n{CROSSED}"), ""), "");

        // Another stream differs, or one that is crossed is not used.
        let with = |setting: &str| {
            let mut source = SpecSource {
                file: "t".into(),
                text: String::new(),
                settings: vec![setting.into()],
                ..SpecSource::default()
            };
            source.text = TEXT.replace("REPEATS", &format!("repeats = 24\n{CROSSED}"));

            refuse_misleading_sweep(&Spec::read_stored(&source).expect("it can be read"))
                .err()
                .map_or_else(String::new, |e| e.to_string())
        };
        assert_eq!(with("data.augment=\"flip\""), "");

        assert!(with("data.order=\"sequential\"").contains("copies of 4"));
        let all = "repeats = 2\nseeds = { fixed = [\"init\", \"head\", \"order\"] }";
        assert!(why(all, "").contains("copies of 1"), "{}", why(all, ""));
        assert_eq!(
            why("repeats = 2\nseeds = { fixed = [\"init\", \"order\"] }", ""),
            ""
        );
    }
}
