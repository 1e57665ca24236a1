//! Verdicts on numbers of trials, against NumPy and SciPy, and in simulated experiments at the margin.
//!
//! `tests/oracles/claims.py` makes the fixture and says how both sides draw the numbers.

use std::collections::{BTreeMap, HashMap};

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_common::quantity::{ExpandedClaims, SampledCurve};
use ergodic_common::random_streams::{RandomStream, fixed_stream};
use ergodic_common::spec::SpecSource;
use serde_json::Value;

use super::batches::{EffectBatch, split_into_batches};
use super::cell_numbers::{CellNumber, NumberContext};
use super::design::{RepeatDesign, RepeatDraws};
use super::jobs::{ClaimJobs, TrialValue, TrialValues};
use super::judge::{ClaimVerdict, EffectJudge, JudgedEffect, decide_effects};
use super::label_laws::LabelLaws;
use super::read::{CellSummary, TrialCounts};
use super::references::ReferenceCurves;
use crate::estimators::binomial::{clopper_pearson, lower_tail, upper_tail};

/// An experiment: a sweep with three cells, c = 1, 2, 4, and claims about it.
pub(super) struct Experiment {
    pub(super) spec: Spec,
    pub(super) expanded: ExpandedClaims,
}

impl Experiment {
    pub(super) fn new(seeds: &str, claims: &str) -> Self {
        Self::with_settings(seeds, claims, &[])
    }

    /// With settings as of `--set`.
    pub(super) fn with_settings(seeds: &str, claims: &str, settings: &[&str]) -> Self {
        let text = format!(
            "name = \"t\"\nrepeats = 12\n{seeds}\n[data]\ndataset = \"glyphs\"\ntrain = 100\ntest = 100\n[model]\nkind = \"mlp\"\nhidden = [8]\n\
             [train]\nsteps = 100\nbatch_size = 10\n[grid]\nc = [1, 2, 4]\n[derive]\nlr = \"0.1*c\"\n\
             [measure]\nevery = \"10 steps\"\nmetrics = [\"train_loss\", \"test_acc\"]\n\
             probe = {{ points = 20, at = [\"50 steps\", \"final\"] }}\n{claims}"
        );
        let source = SpecSource {
            text,
            settings: settings.iter().map(|s| (*s).to_owned()).collect(),
            ..SpecSource::default()
        };
        let spec = Spec::read_new(&source).unwrap_or_else(|e| panic!("{e}"));
        let claims = spec.claims.clone().unwrap_or_else(|e| panic!("{e}"));
        let expanded = spec
            .expand_claims(&claims)
            .unwrap_or_else(|e| panic!("{e}"));
        Self { spec, expanded }
    }

    fn batch(&self) -> EffectBatch {
        let mut batches = split_into_batches(&self.expanded, 12);
        assert_eq!(batches.len(), 1, "few numbers fit into memory");
        batches.remove(0)
    }

    /// Judges trials with these values, by cell and repeat.
    pub(super) fn judge(
        &self,
        trials: &[Vec<TrialValue>],
        counts: TrialCounts,
    ) -> Vec<JudgedEffect> {
        let labels = LabelLaws::new(&self.spec, &self.expanded).expect("few predictions");
        self.judge_beside(trials, counts, &labels)
    }

    /// Judges trials with these values, and predictions.
    pub(super) fn judge_beside(
        &self,
        trials: &[Vec<TrialValue>],
        counts: TrialCounts,
        labels: &LabelLaws<'_>,
    ) -> Vec<JudgedEffect> {
        let batch = self.batch();
        let jobs = ClaimJobs::new(&self.spec, &self.expanded, &batch);
        let draws = match jobs.needs_draws() {
            true => RepeatDraws::draw(self.spec.repeats, &mut fixed_stream("claims", 0)),
            false => RepeatDraws::default(),
        };
        self.judge_resampled(trials, counts, (labels, &draws))
    }

    /// Judges trials with these values, predictions and resamples.
    pub(super) fn judge_resampled(
        &self,
        trials: &[Vec<TrialValue>],
        counts: TrialCounts,
        (labels, draws): (&LabelLaws<'_>, &RepeatDraws),
    ) -> Vec<JudgedEffect> {
        let batch = self.batch();
        let jobs = ClaimJobs::new(&self.spec, &self.expanded, &batch);
        let design = RepeatDesign::from_spec(&self.spec);
        let references = ReferenceCurves::default();
        let context = NumberContext {
            jobs: &jobs,
            design: &design,
            draws,
            references: &references,
        };
        let mut cells = BTreeMap::new();
        for (cell, values) in (0..).map(CellIndex).zip(trials) {
            let about: Vec<usize> = jobs.about_cell(cell).collect();
            let inputs = self.expanded.program.cell_inputs(&self.spec.grid, cell);
            let inputs = inputs.expect("the sweep has the cell");
            let trials: Vec<TrialValues> = (0..)
                .zip(values)
                .map(|(repeat, value)| TrialValues {
                    repeat,
                    values: vec![value.clone(); about.len()],
                })
                .collect();
            let numbers: HashMap<usize, CellNumber> = about
                .iter()
                .enumerate()
                .map(|(place, claim)| {
                    let number = context.summarize(&jobs.jobs[*claim], &inputs, &trials, place);
                    (*claim, number)
                })
                .collect();
            let counts = TrialCounts {
                completed: values.len() as u64,
                ..counts
            };
            cells.insert(cell, CellSummary { counts, numbers });
        }

        let judge = EffectJudge {
            claims: &self.expanded,
            design: &design,
            labels,
            fixed_streams: String::new(),
        };
        decide_effects(judge.weigh_batch(&batch, &cells))
    }

    pub(super) fn judge_numbers(&self, numbers: &[Vec<f64>]) -> Vec<JudgedEffect> {
        self.judge(
            &numbers
                .iter()
                .map(|cell| as_trials(cell))
                .collect::<Vec<_>>(),
            TrialCounts::default(),
        )
    }
}

#[test]
fn a_claim_whose_cells_a_scale_lacks_is_undecided_and_the_others_are_judged() {
    let claims = claim("above = 0")
        + &claim("above = 0\nform = 'ratio'\nto = 'c == 1'")
            .replace("name = 'c'", "name = 'ratio'")
        + "[[claim]]\nname = 'labels'\nform = 'labels'\nover = 'c'\nbelow = 1\n";
    let settings = ["scale.desk.grid.c=[1]", "scale=desk"];
    let experiment = Experiment::with_settings("", &claims, &settings);
    let lacks: Vec<bool> = experiment
        .expanded
        .claims
        .iter()
        .map(|claim| claim.lack.is_some())
        .collect();
    assert_eq!(lacks, [false, true, true]);

    let judged = experiment.judge_numbers(&drawn(1, 12));
    assert_eq!(judged[0].verdict, ClaimVerdict::Agrees);
    for lacking in &judged[1..] {
        assert_eq!(lacking.verdict, ClaimVerdict::NotEnough);
        assert_eq!((lacking.n, lacking.needed), (0, None));
        assert_eq!(lacking.notes.len(), 1, "{lacking:?}");
    }
}

fn as_trials(numbers: &[f64]) -> Vec<TrialValue> {
    numbers
        .iter()
        .map(|x| TrialValue::Numbers([*x; 3]))
        .collect()
}

pub(super) fn claim(keys: &str) -> String {
    format!("[[claim]]\nname = 'c'\nof = 'at(train_loss, end)'\n{keys}\n")
}

pub(super) fn oracle() -> Value {
    serde_json::from_str(include_str!("../../../../tests/oracles/claims.json"))
        .expect("the fixture is JSON")
}

/// The numbers of the fixture.
pub(super) fn drawn(cells: u32, repeats: u32) -> Vec<Vec<f64>> {
    let number = |cell: u32, repeat: u32| {
        let u = f64::from(1 + cell) * 2.0_f64.sqrt() + f64::from(1 + repeat) * 3.0_f64.sqrt();
        1.0 + f64::from(cell) + (u.fract() * 1_048_576.0).round() / 1_048_576.0
    };
    (0..cells)
        .map(|cell| (0..repeats).map(|repeat| number(cell, repeat)).collect())
        .collect()
}

pub(super) fn assert_near(found: &JudgedEffect, wanted: &Value, what: &str) {
    let (low, high) = found.interval.expect("there is an interval");
    let found = [found.effect.expect("there is an effect"), low, high];
    for (at, x) in found.into_iter().enumerate() {
        let wanted = wanted[at].as_f64().expect("a number");
        assert!(
            (x / wanted - 1.0).abs() < 1e-9,
            "{what} {at}: {x} for {wanted}"
        );
    }
}

#[test]
fn binomial_intervals_and_tails_are_those_of_scipy() {
    let oracle = oracle();
    let alpha = oracle["alpha"].as_f64().expect("a number");
    for case in oracle["binomial"].as_array().expect("a list") {
        let [k, n] = ["k", "n"].map(|key| case[key].as_u64().expect("a count"));
        let number = |key: &str| case[key].as_f64().expect("a number");
        let (low, high) = clopper_pearson(k, n, alpha);
        let p = number("p");
        for (found, key) in [
            (low, "low"),
            (high, "high"),
            (upper_tail(k, n, p), "above"),
            (lower_tail(k, n, p), "below"),
        ] {
            let wanted = number(key);
            assert!(
                (found - wanted).abs() <= 1e-9 * wanted.abs().max(1e-6),
                "{case} {key}: {found}"
            );
        }
    }
}

#[test]
fn effects_and_intervals_are_those_of_numpy() {
    let oracle = oracle();
    for case in oracle["forms"].as_array().expect("a list") {
        let n = case["n"].as_u64().expect("a count") as u32;
        for (form, keys) in [
            ("value", "where = 'c == 1'\nabove = 0"),
            (
                "difference",
                "form = 'difference'\nto = 'c == 1'\nwhere = 'c == 2'\nabove = 0",
            ),
            (
                "ratio",
                "form = 'ratio'\nto = 'c == 1'\nwhere = 'c == 2'\nabove = 0",
            ),
            ("slope", "form = 'slope'\nagainst = 'c'\nabove = 0"),
        ] {
            let found = Experiment::new("", &claim(keys)).judge_numbers(&drawn(3, n));
            assert_near(&found[0], &case[form], &format!("{form} of {n}"));
        }
    }

    let crossed = Experiment::new(
        "seeds = { crossed = { init = 3, order = 4 } }",
        &claim("where = 'c == 1'\nabove = 0"),
    );
    assert_near(
        &crossed.judge_numbers(&drawn(1, 12))[0],
        &oracle["crossed"]["value"],
        "crossed",
    );
}

#[test]
fn each_form_agrees_disagrees_and_leaves_open() {
    use ClaimVerdict::{Agrees, Disagrees, NotEnough};
    // Cells of about 1, 2 and 4, all of which a repeat moves alike.
    let noise = [0.97, 1.01, 0.99, 1.03, 1.0, 1.02];
    let numbers: Vec<Vec<f64>> = [1.0, 2.0, 4.0]
        .map(|level| noise.map(|x| level * x).to_vec())
        .to_vec();
    let uneven = [
        [0.2, 3.0, 0.5, 1.1, 0.9, 2.2].to_vec(),
        noise.to_vec(),
        noise.to_vec(),
    ];

    for (keys, verdict) in [
        ("where = 'c == 1'\nwithin = [0.9, 1.1]", Agrees),
        (
            "where = 'c == 1'\nwithin = [0.9, 1.1]\ncontrol = true",
            Disagrees,
        ),
        ("where = 'c == 1'\noutside = [0.9, 1.1]", Disagrees),
        ("where = 'c == 1'\nabove = 1.2", Disagrees),
        ("where = 'c == 1'\nabove = 1.2\ncontrol = true", Agrees),
        ("where = 'c == 1'\nabove = 1.003", NotEnough),
        (
            "form = 'ratio'\nto = 'c == 1'\nwhere = 'c == 4'\nwithin = [3.9, 4.1]",
            Agrees,
        ),
        (
            "form = 'ratio'\nto = 'c == 1'\nwhere = 'c == 4'\nbelow = 3",
            Disagrees,
        ),
        (
            "form = 'difference'\nto = 'c == 1'\nwhere = 'c == 2'\nabove = 0.5",
            Agrees,
        ),
        ("form = 'slope'\nagainst = 'c'\nwithin = [0.9, 1.1]", Agrees),
        ("form = 'slope'\nagainst = 'lr'\nbelow = 0.5", Disagrees),
        ("form = 'spread'\nbelow = 5", Agrees),
        ("form = 'spread'\nbelow = 3", Disagrees),
        ("form = 'spread'\nabove = 3", Agrees),
        ("form = 'collapse'\nover = 'c'\nabove = 5", Disagrees),
        (
            "where = 'c == 1'\nabove = 0.5\nneeds = 'lr*steps > 15'",
            NotEnough,
        ),
        ("where = 'c == 1'\nabove = 0.5\nmin = 7", NotEnough),
        (
            "form = 'extreme'\nwhere = 'c == 1'\nbelow = 2\nchance = 0.5",
            Agrees,
        ),
        (
            "form = 'extreme'\nwhere = 'c == 1'\nbelow = 2\nchance = 0.05",
            NotEnough,
        ),
        (
            "form = 'extreme'\nwhere = 'c == 1'\nbelow = 0.5\nchance = 0.05",
            Disagrees,
        ),
    ] {
        let found = Experiment::new("", &claim(keys)).judge_numbers(&numbers);
        assert_eq!(found.len(), 1, "{keys}");
        assert_eq!(found[0].verdict, verdict, "{keys}: {found:?}");
    }

    let open =
        Experiment::new("", &claim("where = 'c == 1'\nwithin = [0.9, 1.1]")).judge_numbers(&uneven);
    assert_eq!(open[0].verdict, NotEnough);
    assert!(open[0].needed.is_some_and(|n| n > 6), "{open:?}");
}

#[test]
fn every_form_waits_for_enough_repeats() {
    for keys in [
        "form = 'extreme'\nbelow = 5\nchance = 0.9\nmin = 4",
        "above = 0\nmin = 4",
    ] {
        let keys = format!("where = 'c == 1'\n{keys}");
        let found = Experiment::new("", &claim(&keys)).judge_numbers(&[vec![1.0, 1.1, 0.9]]);
        assert_eq!(found[0].verdict, ClaimVerdict::NotEnough, "{found:?}");
        assert_eq!(found[0].notes, ["a verdict needs 4 repeats at least"]);
        assert_eq!(found[0].needed, Some(4));
    }
}

#[test]
fn two_levels_of_a_stream_leave_one_degree_of_freedom() {
    let claims = claim("where = 'c == 1'\nabove = 0");
    let crossed = Experiment::new("seeds = { crossed = { init = 2, order = 6 } }", &claims);
    let found = crossed.judge_numbers(&drawn(1, 12));
    assert!(
        found[0]
            .notes
            .iter()
            .any(|note| note.contains("two levels"))
    );
    let (low, _) = found[0].interval.expect("there is an interval");
    let effect = found[0].effect.expect("there is an effect");

    // The quantile of Student's t with one degree is tan(0.45 pi).
    let standard_error = (effect - low) / (0.45 * std::f64::consts::PI).tan();
    let numbers = &drawn(1, 12)[0];
    let means_by = |level_of: fn(usize) -> usize, levels: usize| {
        let means = (0..levels).map(|level| {
            let of = numbers.iter().enumerate();
            let of: Vec<f64> = of
                .filter(|(repeat, _)| level_of(*repeat) == level)
                .map(|(_, x)| *x)
                .collect();
            of.iter().sum::<f64>() / of.len() as f64
        });
        let means: Vec<f64> = means.collect();
        let squares: f64 = means.iter().map(|mean| (mean - effect).powi(2)).sum();
        squares / (levels * (levels - 1)) as f64
    };
    let variance = means_by(|repeat| repeat / 6, 2) + means_by(|repeat| repeat % 6, 6);
    assert!(
        (standard_error - variance.sqrt()).abs() < 1e-9,
        "{standard_error} for {}",
        variance.sqrt()
    );
}

#[test]
fn of_crossed_streams_the_levels_count() {
    let judge = |levels: [u32; 2], keys: &str| {
        let [init, order] = levels;
        let seeds = format!("seeds = {{ crossed = {{ init = {init}, order = {order} }} }}");
        let repeats = format!("repeats={}", init * order);
        let text = claim(&format!("where = 'c == 1'\n{keys}"));
        let experiment = Experiment::with_settings(&seeds, &text, &[&repeats]);
        experiment.judge_numbers(&drawn(1, init * order)).remove(0)
    };
    let has = |judged: &JudgedEffect, note: &str| judged.notes.iter().any(|found| found == note);

    let few = judge([8, 8], "above = 0");
    assert_eq!((few.verdict, few.n), (ClaimVerdict::Agrees, 64));
    assert!(has(&few, "small n"), "{few:?}");
    let many = judge([50, 51], "above = 0");
    assert!(!has(&many, "small n"), "{many:?}");

    // One more level of each is enough.
    let lacking = judge([8, 9], "above = 0\nmin = 9");
    assert_eq!(lacking.verdict, ClaimVerdict::NotEnough);
    assert!(has(
        &lacking,
        "a verdict needs 9 levels of each crossed stream at least"
    ));
    assert_eq!(lacking.needed, Some(9 * 11));
    assert_eq!(
        judge([9, 9], "above = 0\nmin = 9").verdict,
        ClaimVerdict::Agrees
    );

    // Half the width takes four times the levels of each stream.
    let wide = judge([3, 4], "above = 0");
    let (effect, (low, _)) = wide.effect.zip(wide.interval).expect("an interval");
    let bound = effect - 0.505 * (effect - low);
    let open = judge([3, 4], &format!("above = {bound}"));
    assert_eq!(open.verdict, ClaimVerdict::NotEnough, "{open:?}");
    assert_eq!(open.needed, Some(12 * 16), "{open:?}");
}

#[test]
fn the_number_of_trials_that_would_decide_is_exact() {
    for case in oracle()["deciding"].as_array().expect("a list") {
        let [hits, trials] = ["hits", "trials"].map(|key| case[key].as_u64().expect("a count"));
        let keys = case["keys"].as_str().expect("keys");
        let text = format!(
            "[[claim]]\nname = 'c'\nwhere = 'c == 1'\nform = 'share'\nof = 'at(train_loss, end) > 0'\n{keys}\n"
        );
        let cell = (0..trials).map(|at| f64::from(u8::from(at < hits)));
        let judged = Experiment::new("", &text).judge_numbers(&[cell.collect()]);
        assert_eq!(judged[0].verdict, ClaimVerdict::NotEnough, "{case}");
        let [least, last] = [0, 1].map(|at| case["needed"][at].as_u64().expect("a count"));
        let needed = judged[0].needed.expect("so many would decide");
        assert!((least..=last).contains(&needed), "{case}: {needed}");
    }

    let text = claim("where = 'c == 1'\nform = 'extreme'\nbelow = 2");
    let judged = Experiment::new("", &text).judge_numbers(&[vec![1.0; 12]]);
    assert_eq!(judged[0].needed, Some(59), "{judged:?}");
}

#[test]
fn a_trial_whose_event_may_lie_on_either_side_of_a_bound_widens_the_interval() {
    let text = "[[claim]]\nname = 'c'\nwhere = 'c == 1'\nform = 'extreme'\nof = 'first(train_loss < 0.5)'\nbelow = 50\nchance = 0.5\n";
    let judge = |events: [f64; 3]| {
        let trials = vec![TrialValue::Numbers(events); 20];
        let judged = Experiment::new("", text).judge(&[trials], TrialCounts::default());
        (judged[0].effect, judged[0].interval)
    };
    let [none, all] = [clopper_pearson(0, 20, 0.05), clopper_pearson(20, 20, 0.05)];
    assert_eq!(judge([40.0, 30.0, 40.0]), (Some(0.0), Some(none)));
    assert_eq!(judge([70.0, 60.0, 70.0]), (Some(1.0), Some(all)));
    assert_eq!(
        judge([55.0, 45.0, 55.0]),
        (Some(1.0), Some((none.0, all.1)))
    );
}

#[test]
fn several_events_of_a_trial_are_each_before_or_after_where_they_are() {
    let texts = ["trial", "mean"].map(|per| {
        format!(
            "[[claim]]\nname = 'c'\nper = '{per}'\nwhere = 'c == 1'\nof = 'first(train_loss < 0.3) - first(train_loss < 0.7)'\nabove = 0\n"
        )
    });
    for text in texts {
        let experiment = Experiment::new("", &text);
        let batch = experiment.batch();
        let jobs = ClaimJobs::new(&experiment.spec, &experiment.expanded, &batch);
        let cell = CellIndex(0);
        let evaluation = jobs.open_cell(cell).expect("the sweep has the cell");
        let steps: Vec<f64> = (1..=10).map(|i| f64::from(i) * 10.0).collect();
        let trials = (0..6).map(|repeat| {
            let falls = steps
                .iter()
                .map(|step| 1.0 - (step + f64::from(repeat)) / 110.0);
            let columns = [falls.collect()];
            let curve = SampledCurve {
                steps: &steps,
                columns: &columns,
            };
            let references = ReferenceCurves::default();
            let mut values = jobs.evaluate_trial((cell, &evaluation), repeat, curve, &references);
            values.remove(0)
        });
        let trials: Vec<TrialValue> = trials.collect();
        if let TrialValue::Numbers(numbers) = trials[0] {
            assert_eq!(numbers, [40.0, 30.0, 50.0]);
        }
        let design = RepeatDesign::from_spec(&experiment.spec);
        let draws = RepeatDraws::from_counts(vec![vec![1; 6]; 2]);
        let context = NumberContext {
            jobs: &jobs,
            design: &design,
            draws: &draws,
            references: &ReferenceCurves::default(),
        };
        let trials: Vec<TrialValues> = (0..)
            .zip(trials)
            .map(|(repeat, value)| TrialValues {
                repeat,
                values: vec![value],
            })
            .collect();
        let number = context.summarize(&jobs.jobs[0], evaluation.inputs(), &trials, 0);
        let [low, high] = number.rounded;
        assert_eq!([number.full - low, high - number.full], [10.0, 10.0]);
    }
}

#[test]
fn bits_are_equal_in_every_repeat_or_in_none() {
    use ClaimVerdict::{Agrees, Disagrees, NotEnough};
    let bits = |bits: &[u64]| {
        bits.iter()
            .map(|x| TrialValue::Bits(*x))
            .collect::<Vec<_>>()
    };
    let judge = |keys: &str, other: &[u64]| {
        let keys = format!("form = 'bits'\nto = 'c == 1'\nwhere = 'c == 2'\n{keys}");
        let trials = [bits(&[1, 2, 3]), bits(other)];
        Experiment::new("", &claim(&keys)).judge(&trials, TrialCounts::default())[0].verdict
    };
    assert_eq!(judge("", &[1, 2, 3]), Agrees);
    assert_eq!(judge("", &[1, 2, 4]), Disagrees);
    assert_eq!(judge("", &[1, 2]), NotEnough);
    assert_eq!(judge("control = true", &[5, 6, 7]), Agrees);
    assert_eq!(judge("control = true", &[5, 2, 7]), Disagrees);
}

#[test]
fn trials_that_diverged_or_failed_decide_nothing() {
    let counts = TrialCounts {
        completed: 0,
        diverged: 3,
        failed: 1,
    };
    let found = Experiment::new("", &claim("where = 'c == 1'\nabove = 0")).judge(&[vec![]], counts);
    assert_eq!(found[0].verdict, ClaimVerdict::NotEnough);
    assert_eq!(
        found[0].notes,
        ["no trial of a cell completed: 3 diverged, 1 failed"]
    );
}

#[test]
fn events_of_mean_curves_are_resampled_and_no_finer_than_samples() {
    let text =
        "per = 'mean'\nwhere = 'c == 1'\nof = 'first(train_loss < 0.5)'\nwithin = [45, 75]\n";
    let text = format!("[[claim]]\nname = 'c'\n{text}");
    let experiment = Experiment::new("", &text);
    let steps: Vec<f64> = (1..=10).map(|i| f64::from(i) * 10.0).collect();
    let curve = |shift: f64| TrialValue::Series {
        steps: steps.clone(),
        series: vec![
            steps
                .iter()
                .map(|step| 1.0 - step / 110.0 + shift)
                .collect(),
        ],
    };

    // All mean curves fall below at the same step, though trials differ.
    let alike = [0.001, -0.001, 0.002, 0.0, -0.002].map(curve).to_vec();
    let found = experiment.judge(&[alike], TrialCounts::default());
    assert_eq!(found[0].verdict, ClaimVerdict::NotEnough, "{found:?}");
    assert!(found[0].notes[0].contains("sample more often"), "{found:?}");

    let apart = [0.1, -0.1, 0.06, 0.0, -0.06, 0.02, -0.02]
        .map(curve)
        .to_vec();
    let found = experiment.judge(&[apart], TrialCounts::default());
    let (low, high) = found[0].interval.expect("there is an interval");
    assert!(
        found[0].effect == Some(60.0) && low <= 50.0 && high >= 60.0,
        "{found:?}"
    );
}

/// How often a claim agrees in experiments whose true effect is on the edge of its region.
fn share_of_wrong_agreement(n: usize, draw: fn(&mut RandomStream) -> f64) -> f64 {
    const EXPERIMENTS: u32 = 2_000;
    let experiment = Experiment::new("", &claim("where = 'c == 1'\nwithin = [-100, 1]"));
    let mut stream = fixed_stream("claims at the margin", n as u64);
    let agreed = (0..EXPERIMENTS).filter(|_| {
        let numbers: Vec<f64> = (0..n).map(|_| draw(&mut stream)).collect();
        experiment.judge_numbers(&[numbers])[0].verdict == ClaimVerdict::Agrees
    });
    agreed.count() as f64 / f64::from(EXPERIMENTS)
}

#[test]
fn at_the_margin_few_claims_agree() {
    // Three standard errors of a share of 5 % among 2000.
    let three_errors = 3.0 * (0.05 * 0.95 / 2_000.0_f64).sqrt();
    for n in [5, 10, 30] {
        let wrong = share_of_wrong_agreement(n, |stream| 1.0 + stream.next_normal());
        assert!(wrong <= 0.05 + three_errors, "{n}: {wrong}");
    }

    // Of exponential values, whose mean is 1, at most twice as many from the documented number on.
    let exponential = |stream: &mut RandomStream| -libm::log1p(-stream.next_uniform());
    let wrong = share_of_wrong_agreement(super::weighed::SMALL_REPEATS as usize, exponential);
    assert!(wrong <= 0.1 + three_errors, "{wrong}");
    let few = share_of_wrong_agreement(6, exponential);
    assert!(few > 0.1, "{few}");
}
