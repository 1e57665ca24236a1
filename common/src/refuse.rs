//! What is asked of new sweeps and not of stored ones: refused when a sweep is planned or launched, and never when it is read.

use std::collections::BTreeSet;

use crate::config::{Augment, Loss, ModelKind, Order, TrialConfig};
use crate::error::SpecError;
use crate::metric::Metric;
use crate::repeats::{LEAST_LOOK, Rule, Until};
use crate::seed::Purpose;
use crate::spec::Spec;
use crate::tree::Place;

/// Refuses a new sweep whose results would mislead.
///
/// # Errors
/// The field, what is wrong with it, and what to do.
pub fn refuse_misleading(spec: &Spec) -> Result<(), SpecError> {
    refuse_early_looks(spec)?;
    refuse_growth_of_crossed(spec)?;
    refuse_halving_by_mixed_losses(spec)?;
    refuse_copies(spec)
}

/// Settings that a new sweep gets where its file leaves something open that was decided otherwise for older ones.
pub fn settings_of_new(spec: &Spec) -> Vec<String> {
    let open = spec.until.as_ref().filter(|until| until.stops() && !until.said && until.min < least(spec));
    open.map(|_| format!("repeats.min={}", least(spec))).into_iter().collect()
}

fn least(spec: &Spec) -> u32 {
    LEAST_LOOK.min(spec.repeats)
}

fn error(field: &str, message: String) -> SpecError {
    SpecError::new(Place::Default, field, message)
}

fn refuse_early_looks(spec: &Spec) -> Result<(), SpecError> {
    let Some(until) = spec.until.as_ref().filter(|until| until.stops() && until.said && until.min < least(spec)) else {
        return Ok(());
    };
    let (found, least) = (until.min, least(spec));
    Err(error(
        "repeats.min",
        format!(
            "expected {least} or more, found {found}: a cell that is looked at earlier may happen to look known, by two equal \
             accuracies, say, and where some trials end far off its mean would be wrong more often than in one of twenty cases"
        ),
    ))
}

/// Cells that end by what is seen would end within the first level of a crossed stream.
fn refuse_growth_of_crossed(spec: &Spec) -> Result<(), SpecError> {
    let Some(until) = spec.until.as_ref().filter(|_| !spec.seeds.crossed.is_empty()) else { return Ok(()) };
    let field = if matches!(until.rule, Rule::Halving { .. }) { "repeats.halving" } else { "repeats.until" };
    let combinations = spec.seeds.combinations();
    Err(error(
        field,
        format!(
            "repeats of crossed streams come one level after the other, so that the first ones say nothing of what the slowest stream \
             does: set repeats = {combinations}, a number, or leave out seeds.crossed"
        ),
    ))
}

fn refuse_halving_by_mixed_losses(spec: &Spec) -> Result<(), SpecError> {
    let Some(Until { metric, rule: Rule::Halving { .. }, .. }) = &spec.until else { return Ok(()) };
    let Some([one, other]) = mixed_losses(spec, metric) else { return Ok(()) };
    let message = format!(
        "{} is another quantity where another loss is trained on ({one}, {other}): choose by an accuracy, or sweep one loss",
        metric.name()
    );
    Err(error("repeats.halving.metric", message))
}

/// Two losses of which a metric is a value, one in some cells, one in others; none where it is the same quantity in all.
pub fn mixed_losses(spec: &Spec, metric: &Metric) -> Option<[String; 2]> {
    if !metric.is_loss() || !varies_loss(spec) {
        return None;
    }
    let configs = spec.grid.iter().take(MOST_CONFIGS).filter_map(|cell| spec.grid.config(cell).ok());
    let mut quantities = configs.map(|config| quantity(&config, smoothed(spec, metric)));
    let first = quantities.next()?;
    let other = quantities.find(|other| *other != first)?;
    Some([first, other])
}

/// Most cells that are looked at for what they differ by.
const MOST_CONFIGS: usize = 100_000;

/// Whether anything that cells differ by has a say in what their loss is.
fn varies_loss(spec: &Spec) -> bool {
    let says = |field: &str| {
        ["train.loss", "model.kind"].iter().any(|of| field.starts_with(of) || of.starts_with(&format!("{field}.")))
    };
    let axes = spec.grid.axes().iter().filter(|axis| axis.len() > 1);
    axes.filter_map(|axis| axis.field.as_deref()).any(says) || spec.grid.derived_fields().any(says)
}

/// Whether a metric is of the loss with its label smoothing. In earlier numerics classes every loss was.
fn smoothed(spec: &Spec, metric: &Metric) -> bool {
    let earlier = (1..6).any(|version| spec.numerics == format!("cpu-f32/{version}"));
    earlier
        || spec.numerics.starts_with("cuda-f32/1/")
        || matches!(metric, Metric::TrainSmoothedLoss | Metric::TestSmoothedLoss)
}

/// What a loss is a value of.
fn quantity(config: &TrialConfig, smoothed: bool) -> String {
    match (&config.model.kind, config.train.loss) {
        (ModelKind::Toy(_), _) => "the toy loss".into(),
        (_, Loss::Mse) => "mse".into(),
        (_, Loss::CrossEntropy { smoothing }) if smoothing == 0.0 || !smoothed => "cross-entropy".into(),
        (_, Loss::CrossEntropy { smoothing }) => format!("cross-entropy with label_smoothing = {smoothing}"),
    }
}

/// Repeats that differ in nothing are the same trial, and count as if they were several. Of a stored sweep this is asked when it
/// is given more repeats.
///
/// # Errors
/// There are more repeats than different ones.
pub fn refuse_copies(spec: &Spec) -> Result<(), SpecError> {
    let configs = spec.grid.iter().take(MOST_CONFIGS).filter_map(|cell| spec.grid.config(cell).ok());
    let uses: BTreeSet<Vec<&str>> = configs.map(|config| words(&used(&config))).collect();
    for names in uses.into_iter().filter(|names| !names.is_empty()) {
        let Some(distinct) = distinct(spec, &names) else { continue };
        if u64::from(spec.repeats) <= distinct {
            continue;
        }
        let what = names.join(", ");
        let message = format!(
            "{} repeats of a cell are copies of {distinct}: what is random about its trials ({what}) is fixed or crossed; set \
             repeats = {distinct}, or more streams, or leave one of them out of seeds.fixed and seeds.crossed",
            spec.repeats
        );
        return Err(error("repeats", message));
    }
    Ok(())
}

fn words(purposes: &[Purpose]) -> Vec<&'static str> {
    purposes.iter().map(|purpose| purpose.word()).collect()
}

/// Repeats that differ, if not all of them do.
fn distinct(spec: &Spec, used: &[&str]) -> Option<u64> {
    let mut distinct = 1_u64;
    for name in used {
        let crossed = spec.seeds.crossed.iter().find(|(purpose, _)| purpose.word() == *name);
        match crossed {
            Some((_, count)) => distinct = distinct.saturating_mul(u64::from(*count)),
            None if spec.seeds.fixed.iter().any(|purpose| purpose.word() == *name) => {}
            None => return None,
        }
    }
    Some(distinct)
}

/// The streams that a trial draws from and that differ from repeat to repeat.
fn used(config: &TrialConfig) -> Vec<Purpose> {
    let mut used = Vec::new();
    match &config.model.kind {
        ModelKind::Empty => return vec![Purpose::Empty],
        ModelKind::Toy(toy) => {
            used.extend(toy.start.is_none().then_some(Purpose::Init));
            used.extend((toy.noise > 0.0).then_some(Purpose::Order));
            return used;
        }
        _ => {}
    }
    if config.model.init_file.is_none() {
        used.extend([Purpose::Init, Purpose::Head]);
    }
    if matches!(config.data.order, Order::Shuffle | Order::WithReplacement) {
        used.push(Purpose::Order);
    }
    if config.data.augment != Augment::None {
        used.push(Purpose::Augment);
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::SpecSource;

    const TEXT: &str = "name = \"t\"\nREPEATS\n[data]\ndataset = \"glyphs\"\n[model]\nkind = \"cnn4\"\n[train]\nepochs = 1\nbatch_size = 32\n\
                        lr = 0.1\n[measure]\nmetrics = [\"test_acc\", \"test_loss\"]\n";

    fn sweep(head: &str, more: &str) -> Spec {
        let text = TEXT.replace("REPEATS", head) + more;
        let source = SpecSource { file: "t".into(), text, ..SpecSource::default() };
        Spec::read(&source).expect("what is refused of new sweeps can be read")
    }

    fn why(head: &str, more: &str) -> String {
        refuse_misleading(&sweep(head, more)).err().map_or_else(String::new, |error| error.to_string())
    }

    const UNTIL: &str = "until = { metric = \"test_acc\", ci95 = 0.01 } }";
    const CROSSED: &str = "seeds = { crossed = { init = 2, order = 3, head = 2 } }";

    #[test]
    fn cells_that_may_end_early_are_not_looked_at_too_early() {
        let repeats = |min: &str, max: u32| format!("repeats = {{ {min}max = {max}, {UNTIL}");
        assert!(why(&repeats("min = 20, ", 500), "").contains("repeats.min: expected 40 or more, found 20"));
        assert_eq!(why(&repeats("min = 40, ", 500), "") + &why(&repeats("min = 7, ", 7), ""), "");
        // Where nothing is said, new sweeps begin later than stored ones do.
        let open = sweep(&repeats("", 500), "");
        assert_eq!((refuse_misleading(&open).is_ok(), open.until.as_ref().map(|until| until.min)), (true, Some(20)));
        assert_eq!(settings_of_new(&open), ["repeats.min=40"]);
        assert_eq!(settings_of_new(&sweep(&repeats("", 30), "")), ["repeats.min=30"]);
        assert!(settings_of_new(&sweep(&repeats("min = 50, ", 500), "")).is_empty());
    }

    #[test]
    fn what_ends_by_what_is_seen_crosses_nothing() {
        let more = "[seeds]\ncrossed = { init = 2, order = 3 }";
        let until = format!("repeats = {{ min = 60, max = 600, {UNTIL}");
        assert!(why(&until, more).contains("repeats.until: repeats of crossed streams"), "{}", why(&until, more));
        let halving = "repeats = { min = 6, max = 12, halving = { metric = \"test_acc\", factor = 2 } }";
        assert!(why(halving, more).contains("repeats.halving: ") && why(halving, more).contains("repeats = 6"));
    }

    #[test]
    fn halving_compares_one_quantity() {
        let halving =
            |metric| format!("repeats = {{ min = 2, max = 4, halving = {{ metric = \"{metric}\", factor = 2 }} }}");
        let losses = "[grid]\n\"train.loss\" = [\"cross-entropy\", \"mse\"]";
        let refused = why(&halving("test_loss"), losses);
        assert!(refused.contains("repeats.halving.metric") && refused.contains("(cross-entropy, mse)"), "{refused}");
        assert_eq!(why(&halving("test_acc"), losses) + &why(&halving("test_loss"), "[grid]\nlr = [0.1, 0.2]"), "");
    }

    #[test]
    fn copies_are_no_repeats() {
        assert!(
            why(&format!("repeats = 24\n{CROSSED}"), "").contains("repeats: 24 repeats of a cell are copies of 12")
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
            refuse_misleading(&Spec::read(&source).expect("it can be read"))
                .err()
                .map_or_else(String::new, |e| e.to_string())
        };
        assert_eq!(with("data.augment=\"flip\""), "");
        assert!(with("data.order=\"sequential\"").contains("copies of 4"));
        let all = "repeats = 2\nseeds = { fixed = [\"init\", \"head\", \"order\"] }";
        assert!(why(all, "").contains("copies of 1"), "{}", why(all, ""));
        assert_eq!(why("repeats = 2\nseeds = { fixed = [\"init\", \"order\"] }", ""), "");
    }
}
