//! What lists of moments mean, and what is said of those that mean nothing.

use super::tests::source;
use crate::Spec;
use crate::config::Length;
use crate::ids::CellIndex;
use crate::spec::moments::{Moment, SampleTimes};

/// A sweep whose trials have 1000 steps.
fn read(measure: &str) -> Result<Spec, String> {
    let mut source = source(&format!("[measure]\n{measure}\n"), &["train.steps=1000"]);
    source.text = source.text.replace("epochs = 2\n", "");
    Spec::read_new(&source).map_err(|e| e.to_string())
}

fn samples(measure: &str) -> Vec<u64> {
    let spec = read(measure).expect("a valid sweep");
    let config = spec.grid.resolve_config(CellIndex(0)).expect("a cell");
    let steps = spec.measure.every.steps_in_trial(&config);
    let found: Vec<u64> = (1..=1000).filter(|step| steps.is_due(*step)).collect();

    let mut step = 0;
    let followed: Vec<u64> = (0..steps.count())
        .map(|_| {
            step = steps.next_after(step);
            step
        })
        .collect();
    assert_eq!(found, followed, "{measure}");
    found
}

fn probed(at: &str) -> Vec<u64> {
    let spec = read(&format!("probe = {{ points = 5, at = {at} }}")).expect("a valid sweep");
    let config = spec.grid.resolve_config(CellIndex(0)).expect("a cell");
    spec.measure.probe.expect("a probe").steps_in_trial(&config)
}

#[test]
fn samples_are_taken_at_all_moments_of_a_list_and_at_the_end() {
    let every = |step: usize| -> Vec<u64> { (step as u64..=1000).step_by(step).collect() };
    assert_eq!(samples("every = \"300 steps\""), [300, 600, 900, 1000]);
    assert_eq!(samples("every = [\"300 steps\"]"), [300, 600, 900, 1000]);
    assert_eq!(samples("every = \"1 %\""), every(10));
    assert_eq!(samples("every = [\"0.5%\"]"), every(5));
    assert_eq!(samples("every = [\"final\"]"), [1000]);
    assert_eq!(
        samples("every = [\"50 %\", \"1 step from 499 to 501\", \"every 2 steps from 10 to 15\"]"),
        [10, 12, 14, 499, 500, 501, 1000]
    );
    assert_eq!(
        samples("every = [\"10 % from 75 % to 90 %\"]"),
        [750, 850, 1000]
    );
    // An epoch has 31 steps.
    assert_eq!(
        samples("every = [\"1 epoch from 30 to 31\"]"),
        [930, 961, 1000]
    );
    assert_eq!(
        samples("every = [\"5 steps from 98 % to 100 %\"]"),
        [980, 985, 990, 995, 1000]
    );
}

#[test]
fn predictions_are_kept_at_single_moments_and_at_repeated_ones() {
    assert_eq!(probed("[\"300 steps\", \"final\"]"), [300, 1000]);
    assert_eq!(probed("[\"25 %\"]"), [250]);
    assert_eq!(
        probed("[\"every 25 %\", \"1 step from 499 to 500\"]"),
        [250, 499, 500, 750, 1000]
    );
}

#[test]
fn shares_are_those_of_each_trial() {
    let spec = read("every = [\"33.333 %\"]").expect("valid");
    let mut config = spec.grid.resolve_config(CellIndex(0)).expect("a cell");
    config.train.length = Length::Steps(300);
    let steps = spec.measure.every.steps_in_trial(&config);
    let found: Vec<u64> = (1..=300).filter(|step| steps.is_due(*step)).collect();
    assert_eq!(found, [100, 200, 300]);
}

#[test]
fn a_single_length_is_stored_and_compared_as_before() {
    let plain = read("every = \"10 steps\"").expect("valid");
    let text = format!("{:?}", plain.measure);
    assert!(
        text.starts_with("Measure { every: Steps(10), metrics: ["),
        "{text}"
    );
    assert_eq!(plain.min_grammar(), 1);
    assert_eq!(plain.measure.every, SampleTimes::Every(Length::Steps(10)));

    let config = plain.grid.resolve_config(CellIndex(0)).expect("a cell");
    for (measure, grammar, is_same) in [
        ("every = [\"10 steps\"]", 3, true),
        ("every = \"1 %\"", 3, true),
        (
            "every = [\"10 steps\", \"5 steps from 990 to 1000\"]",
            3,
            false,
        ),
        ("every = \"20 steps\"", 1, false),
    ] {
        let other = read(measure).expect("valid");
        assert_eq!(other.min_grammar(), grammar, "{measure}");
        let serves = plain.measure.selection_for(&other.measure, &config);
        assert_eq!(serves.is_some(), is_same, "{measure}");
    }
}

#[test]
fn weights_are_kept_at_moments_and_the_last_ones_alone_as_before() {
    let of = |save: &str| read(&format!("save = {save}")).expect("valid");
    for (save, text, grammar) in [
        ("[]", "save: false", 1),
        ("[\"final\"]", "save: true", 1),
        ("[\"final\", \"final\"]", "save: true", 1),
        (
            "[\"300 steps\", \"final\"]",
            "save: [After(Steps(300)), Final]",
            3,
        ),
    ] {
        let spec = of(save);
        let found = format!("{:?}", spec.measure);
        assert!(found.contains(text), "{found}");
        assert_eq!(spec.min_grammar(), grammar, "{save}");
    }

    let several = of("[\"final\", \"30 %\", \"every 5 steps from 295 to 300\"]");
    let config = several.grid.resolve_config(CellIndex(0)).expect("a cell");
    let save = &several.measure.save;
    assert_eq!(save.steps_in_trial(&config), [295, 300, 1000]);
    assert_eq!(save.earlier_steps(&config), [295, 300]);
    assert!(save.includes_end(&config));

    let many = source(
        "[measure]\nsave = [\"every 1 step\"]\n",
        &["train.steps=100000"],
    );
    let error = Spec::read_new(&many).expect_err("too many").to_string();
    for word in ["measure.save", "100000 moments", "fewer moments"] {
        assert!(error.contains(word), "{error}");
    }

    // All weights of a trial are in one file, so that another set of moments is another file.
    for (has, wants, serves) in [
        ("[\"300 steps\", \"final\"]", "[\"final\", \"30 %\"]", true),
        ("[\"300 steps\", \"final\"]", "[\"final\"]", false),
        ("[\"final\"]", "[\"1000 steps\"]", true),
        ("[\"300 steps\"]", "[]", true),
    ] {
        let selection = of(has).measure.selection_for(&of(wants).measure, &config);
        assert_eq!(selection.is_some(), serves, "{has} for {wants}");
    }
}

#[test]
fn moments_are_written_as_they_are_read() {
    for text in [
        "1 step",
        "20 epochs",
        "12.5 %",
        "every 1 % from 990 steps to 100 %",
        "final",
    ] {
        let moment = Moment::parse_several(text).expect(text);
        assert_eq!(moment.to_string(), text);
        assert_eq!(Moment::parse_several(&moment.to_string()), Some(moment));
    }
}

#[test]
fn a_phase_may_have_no_steps() {
    let with = |from: u64| {
        let schedule = format!("train.schedule=[{{ step = {from}, lr = \"x0.1\" }}]");
        source("", &[&schedule])
    };
    // The trials have 62 steps.
    let spec = Spec::read_new(&with(62)).expect("a phase of no steps");
    assert_eq!(spec.min_grammar(), 3);
    assert_eq!(
        Spec::read_new(&with(61)).expect("one step").min_grammar(),
        1
    );

    let error = Spec::read_new(&with(63))
        .expect_err("after the end")
        .to_string();
    assert!(
        error.contains("begins after 63 steps, but a trial has only 62"),
        "{error}"
    );
    let mut earlier = with(62);
    earlier.grammar = 2;
    assert!(Spec::read_stored(&earlier).is_err());
}

#[test]
fn every_defect_of_a_moment_is_named_with_its_remedy() {
    for (measure, words) in [
        ("every = []", &["measure.every", "empty", "50 steps"][..]),
        (
            "every = [\"1 epok\"]",
            &["measure.every", "1 step from 990 to 1010", "'1 epok'"],
        ),
        ("every = [\"0 %\"]", &["measure.every", "'0 %'"]),
        ("every = [\"101 %\"]", &["measure.every", "'101 %'"]),
        ("every = [5]", &["measure.every", "found 5"]),
        (
            "every = [\"1 step from 20 to 10\"]",
            &[
                "sweep.toml",
                "measure.every",
                "from step 20 to step 10 ends before it begins",
            ],
        ),
        (
            "every = [\"1 step from 2000 to 2010\"]",
            &[
                "measure.every",
                "begins at step 2000, after the end",
                "1000 steps",
            ],
        ),
        (
            "save = [\"1001 steps\"]",
            &["measure.save", "after the end", "1000 steps"],
        ),
        (
            "save = [\"1 step from 5 to\"]",
            &["measure.save", "or \"final\"", "'1 step from 5 to'"],
        ),
        (
            "probe = { points = 5, at = [\"1 step from 1 to\"] }",
            &["measure.probe.at", "every 10 %"],
        ),
        (
            "probe = { points = 1500, at = [\"every 1 step\"] }",
            &["measure.probe.at", "1500000 predictions", "fewer moments"],
        ),
    ] {
        let error = read(measure).expect_err(measure);
        for word in words {
            assert!(error.contains(word), "{measure}\n{error}\nlacks {word}");
        }
    }
}
