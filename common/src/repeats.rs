//! How often each cell is repeated: so many times, or until the mean of a metric is known well enough.
//!
//! Stopping early by what was seen biases what is seen, the less so the fewer the looks and the later the first one.
//! So a cell is looked at on a fixed *ladder* of numbers of repeats only, and only when all repeats below a rung have
//! ended: what is found does not depend on the order in which trials arrive.

use crate::error::{SpecError, nearest};
use crate::metric::Metric;
use crate::reader::{Range, Reader, quoted};
use crate::spec::{MAX_TRIALS, SpecSource};
use crate::tree::{Node, Value};

/// When the repeats of a cell end before the most there may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Until {
    /// Least repeats of a cell, from 2 on.
    pub min: u32,
    /// The metric whose mean is to be known, one of those measured.
    pub metric: Metric,
    /// The mean is to be known to plus or minus this, with 95 % confidence; in units of the metric, above 0.
    pub ci95: f64,
}

/// The first look where a sweep file says none: from here on, simulations show the stated coverage.
pub const FIRST_LOOK: u32 = 20;

/// Numbers of repeats at which a cell may be found to be known well enough: from `min` on, each a quarter larger than the
/// one before, rounded down, and at least 1 larger; `most` is the last one.
pub fn ladder(min: u32, most: u32) -> impl Iterator<Item = u32> {
    let next = move |rung: &u32| (*rung < most).then(|| rung.saturating_add((rung / 4).max(1)).min(most));
    std::iter::successors(Some(min.min(most)), next)
}

/// Reads `repeats`: most repeats of a cell, and when fewer will do.
pub(crate) fn read_repeats(root: &Reader<'_>) -> Result<(u32, Option<Until>), SpecError> {
    if !matches!(root.node("repeats"), Some(Node { value: Value::Table(_), .. })) {
        return Ok((root.whole("repeats", Range::whole(1, MAX_TRIALS))?.unwrap_or(1) as u32, None));
    }
    let r = root.section("repeats")?;
    let Some(most) = r.whole("max", Range::whole(2, MAX_TRIALS))? else {
        return Err(
            r.error("max", "how many repeats at most? Set max = 500, or a number of repeats instead of a table")
        );
    };
    let min = r.whole("min", Range::whole(2, MAX_TRIALS))?.unwrap_or(most.min(FIRST_LOOK.into()));
    if min > most {
        return Err(r.error("min", format!("expected at most max, which is {most}, found {min}")));
    }
    let until = Until { min: min as u32, ..read_until(&r)? };
    r.finish()?;
    Ok((most as u32, Some(until)))
}

fn read_until(repeats: &Reader<'_>) -> Result<Until, SpecError> {
    let example = "set until = { metric = \"test_acc\", ci95 = 0.001 }";
    if repeats.node("until").is_none() {
        return Err(repeats.error("until", format!("until what is a cell repeated? Say so: {example}")));
    }
    let r = repeats.section("until")?;
    let Some(node) = r.node("metric") else {
        return Err(r.error("metric", format!("the mean of which metric is to be known? Say so: {example}")));
    };
    let name = node.value.as_str().unwrap_or_default();
    let metric = Metric::named(name).ok_or_else(|| {
        let hint = nearest(name, Metric::WORDS.iter().map(|(word, _)| *word));
        r.error("metric", format!("unknown metric {}, {hint}", quoted(&node.value)))
    })?;
    let ci95 = r.number("ci95", Range::POSITIVE)?;
    let ci95 = ci95.ok_or_else(|| r.error("ci95", format!("how well is the mean to be known? Say so: {example}")))?;
    r.finish()?;
    Ok(Until { min: 0, metric, ci95 })
}

impl Until {
    /// Only what is measured can be known.
    pub(crate) fn check(&self, measured: &[Metric]) -> Result<(), SpecError> {
        if measured.contains(&self.metric) {
            return Ok(());
        }
        let names: Vec<_> = measured.iter().map(Metric::name).collect();
        let hint = nearest(&self.metric.name(), names.iter().map(|name| &**name));
        let message =
            format!("{} is not measured, {hint}: name it in the list metrics under [measure]", self.metric.name());
        Err(SpecError::new(crate::tree::Place::Default, "repeats.until.metric", message))
    }
}

impl SpecSource {
    /// The same sweep with so many repeats per cell, or as many at most: by a setting, which takes the place of an
    /// earlier one, and stands before the last one, which pins the numerics class of a launched sweep.
    #[must_use]
    pub fn with_repeats(&self, until: Option<&Until>, repeats: u32) -> Self {
        let field = if until.is_some() { "repeats.max" } else { "repeats" };
        let sets_it = |setting: &String| setting.split_once('=').is_some_and(|(path, _)| path.trim() == field);
        let mut source = self.clone();
        let setting = format!("{field}={repeats}");
        match source.settings.iter().rposition(sets_it) {
            Some(at) => source.settings[at] = setting,
            None => source.settings.insert(source.settings.len().saturating_sub(1), setting),
        }
        source
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spec;

    fn read(repeats: &str, settings: &[&str]) -> Result<Spec, String> {
        let text = format!("name = \"t\"\n[model]\nkind = \"empty\"\n[measure]\nmetrics = [\"test_acc\"]\n{repeats}");
        Spec::read(&source(text, settings)).map_err(|e| e.to_string())
    }

    fn source(text: String, settings: &[&str]) -> SpecSource {
        let settings = settings.iter().map(|s| (*s).to_owned()).collect();
        SpecSource { file: "t.toml".into(), text, settings, files: Vec::new() }
    }

    #[test]
    fn repeats_may_end_when_a_mean_is_known() {
        let until = "until = { metric = \"test_acc\", ci95 = 0.001 }\n";
        let spec = read(&format!("[repeats]\nmin = 30\nmax = 500\n{until}"), &[]).expect("a valid sweep");
        let wanted = Until { min: 30, metric: Metric::TestAcc, ci95: 0.001 };
        assert_eq!((spec.repeats, spec.until), (500, Some(wanted)));
        let least = |text: &str| read(text, &[]).expect("a valid sweep").until.map(|until| until.min);
        assert_eq!(least(&format!("[repeats]\nmax = 500\n{until}")), Some(FIRST_LOOK));
        assert_eq!(least(&format!("[repeats]\nmax = 7\n{until}")), Some(7));
        assert_eq!(least(""), None);
    }

    #[test]
    fn what_is_wrong_with_repeats_is_told_by_field() {
        let until = "until = { metric = \"test_acc\", ci95 = 0.001 }";
        for (text, words) in [
            (format!("[repeats]\nmin = 2\n{until}"), "repeats.max: how many"),
            (
                format!("[repeats]\nmin = 30\nmax = 20\n{until}"),
                "repeats.min: expected at most max, which is 20, found 30",
            ),
            (format!("[repeats]\nmin = 1\nmax = 20\n{until}"), "repeats.min: expected a whole number >= 2"),
            (format!("[repeats]\nmaxx = 20\nmax = 20\n{until}"), "unknown key 'maxx'"),
            ("[repeats]\nmax = 20".into(), "repeats.until: until what"),
            ("[repeats]\nmax = 20\nuntil = { ci95 = 0.1 }".into(), "repeats.until.metric: the mean of which"),
            ("[repeats]\nmax = 20\nuntil = { metric = \"test_acc\" }".into(), "repeats.until.ci95: how well"),
            ("[repeats]\nmax = 20\nuntil = { metric = \"test_ac\", ci95 = 0.1 }".into(), "did you mean 'test_acc'"),
            ("[repeats]\nmax = 20\nuntil = { metric = \"test_acc\", ci95 = 0 }".into(), "repeats.until.ci95: expected"),
            ("[repeats]\nmax = 20\nuntil = { metric = \"test_loss\", ci95 = 1 }".into(), "test_loss is not measured"),
        ] {
            let why = read(&text, &[]).expect_err("it is wrong");
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn the_ladder_grows_by_a_quarter_and_ends_with_the_most() {
        assert_eq!(ladder(20, 100).collect::<Vec<_>>(), [20, 25, 31, 38, 47, 58, 72, 90, 100]);
        assert_eq!(ladder(2, 6).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
        assert_eq!(ladder(7, 7).collect::<Vec<_>>(), [7]);
        let longer: Vec<u32> = ladder(20, 1000).collect();
        assert!(ladder(20, 100).take(8).all(|rung| longer.contains(&rung)), "raising the most moves no rung below it");
    }

    #[test]
    fn a_setting_changes_the_number_of_repeats() {
        let plain = "name = \"t\"\nrepeats = 5\n[model]\nkind = \"empty\"\n".to_owned();
        let table = "name = \"t\"\n[model]\nkind = \"empty\"\n[repeats]\nmin = 3\nmax = 5\nuntil = { metric = \"test_acc\", ci95 = 1 }\n";
        for (text, field) in [(plain, "repeats"), (table.to_owned(), "repeats.max")] {
            let first = source(text, &["numerics=\"cpu-f32\""]);
            let until = Spec::read(&first).expect("a valid sweep").until;
            let once = first.with_repeats(until.as_ref(), 7);
            assert_eq!(once.settings, [format!("{field}=7"), "numerics=\"cpu-f32\"".into()]);
            let twice = once.with_repeats(until.as_ref(), 9);
            let spec = Spec::read(&twice).expect("a valid sweep");
            assert_eq!((spec.repeats, spec.until, twice.settings.len()), (9, until, 2));
        }
    }
}
