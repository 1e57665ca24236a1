//! What expressions in the place of numbers mean, and what is said of those that mean nothing.

use super::tests::{refusal, source};
use crate::Spec;
use crate::config::{HyperparamChange, Length, ModelKind, TrialConfig};
use crate::ids::{CellIndex, DatasetHash};
use crate::spec::SampleTimes;

fn read_with(rest: &str, settings: &[&str]) -> Spec {
    Spec::read_new(&source(rest, settings)).expect("a valid sweep")
}

fn read(rest: &str) -> Spec {
    read_with(rest, &[])
}

fn config(spec: &Spec, cell: u64) -> TrialConfig {
    spec.grid
        .resolve_config(CellIndex(cell))
        .expect("a cell resolves")
}

#[test]
fn a_field_of_the_file_is_an_expression_over_axes_and_other_fields() {
    let spec = read_with(
        "[grid]\nintrinsic_lr = [0.01, 0.02]\n[measure]\nevery = \"5 steps\"\n",
        &[
            "train.wd=intrinsic_lr/train.lr",
            "train.lr=0.5*k",
            "train.epochs=round(0.04/intrinsic_lr)",
            "grid.k=[1, 2]",
        ],
    );
    let last = config(&spec, 3);
    assert_eq!((last.train.lr, last.train.wd), (1.0, 0.02));
    assert_eq!(last.train.length, Length::Epochs(2));
    assert_eq!(config(&spec, 0).train.length, Length::Epochs(4));
    assert_eq!((spec.min_grammar(), spec.grid.class_count()), (3, 2));

    let values = spec.grid.derived_values_in(CellIndex(3));
    assert!(values.contains(&("train.lr", 1.0)), "{values:?}");
}

#[test]
fn a_cell_is_what_its_expressions_are_worth() {
    let hash = |spec: &Spec, cell| spec.compute_cell_hash(&config(spec, cell), DatasetHash::NONE);
    let written = read("[grid]\nk = [10, 20]\n[derive]\nwd = \"1/k\"\n");
    let inline = read_with("[grid]\nk = [10, 20]\n", &["wd=1/k"]);
    assert_eq!(hash(&written, 1), hash(&inline, 1));

    let schedule = "[grid]\nk = [10, 20]\n";
    let set = "train.schedule=[{ step = \"2*k\", lr = \"*(1/k)\" }]";
    let plain = "train.schedule=[{ step = 40, lr = \"x0.05\" }]";
    assert_eq!(
        hash(&read_with(schedule, &[set]), 1),
        hash(&read_with("", &[plain]), 0)
    );
}

#[test]
fn schedules_lengths_and_widths_take_expressions() {
    let spec = read_with(
        "[grid]\nfirst = [5, 10]\ndepth = [1, 3]\n",
        &[
            "train.schedule=[{ step = \"first\", lr = \"x0.1\" }, { step = \"first + 20\", lr = \"train.lr/100\", wd = \"0.1*depth\" }]",
            "train.average={ kind = \"ema\", every = \"first*2 steps\" }",
            "model={ kind = \"mlp\", hidden = { width = 64, depth = \"depth\" } }",
        ],
    );
    assert_eq!(spec.grid.class_count(), 2);
    let last = config(&spec, 3);
    assert_eq!(
        last.model.kind,
        ModelKind::Mlp {
            hidden: vec![64; 3]
        }
    );
    let [one, two] = &last.train.schedule[..] else {
        panic!("two entries");
    };
    assert_eq!(
        (one.from, one.lr),
        (Length::Steps(10), Some(HyperparamChange::Times(0.1)))
    );
    assert_eq!(
        (two.from, two.lr),
        (Length::Steps(30), Some(HyperparamChange::Set(0.1 / 100.0)))
    );
    assert_eq!(two.wd, Some(HyperparamChange::Set(0.1 * 3.0)));
    assert_eq!(
        last.train.average.map(|average| average.every),
        Some(Length::Steps(20))
    );

    let curve = read_with(
        "[grid]\nk = [2]\n",
        &[
            "train.schedule={ kind = \"exponential\", factor = \"1/(1 - lr*k)\", per = \"k steps\", warmup = \"k epochs\" }",
        ],
    );
    let curve = config(&curve, 0).train.curve.expect("a curve");
    assert_eq!(curve.warmup, Length::Epochs(2));
    let text = format!("{curve:?}");
    assert!(text.contains("factor: 1.25, per: Steps(2)"), "{text}");
}

#[test]
fn cases_and_axis_values_take_expressions_of_their_own() {
    let spec = read(
        "[case]\nA = { lr = \"2*k\", train.schedule = [{ step = \"period\", lr = \"train.lr/2\" }], period = \"10*k\" }\n\
         B = { wd = 0.1, period = 7 }\n[grid]\nk = [1, 2]\n[derive]\nmomentum = \"1/(1 + period*train.lr*k)\"\n",
    );
    let (a, b) = (config(&spec, 1).train, config(&spec, 3).train);
    assert_eq!((a.lr, a.schedule[0].from), (4.0, Length::Steps(20)));
    assert_eq!(a.schedule[0].lr, Some(HyperparamChange::Set(2.0)));
    assert_eq!(a.momentum, 1.0 / (1.0 + 20.0 * 4.0 * 2.0));
    assert_eq!((b.lr, b.wd, b.schedule.len()), (0.1, 0.1, 0));
    assert_eq!(b.momentum, 1.0 / (1.0 + 7.0 * 0.1 * 2.0));

    let axis = read(
        "[grid]\nk = [5, 6]\ntrain.schedule = [[{ step = \"k\", lr = 0.5 }], [{ step = \"2*k\", lr = 0.5 }]]\n",
    );
    let from = |cell| config(&axis, cell).train.schedule[0].from;
    assert_eq!((from(1), from(3)), (Length::Steps(10), Length::Steps(12)));
}

#[test]
fn a_case_keeps_the_expression_of_the_file_unless_it_sets_the_field() {
    let spec = read(
        "wd = \"0.01*k\"\n[case]\nA = { wd = 0.5 }\nB = { momentum = 0.5 }\n[grid]\nk = [1, 2]\n[derive]\nlr = \"wd*k\"\n",
    );
    let rates = |cell| {
        let train = config(&spec, cell).train;
        (train.wd, train.lr)
    };
    assert_eq!(rates(3), (0.02, 0.04));
    assert_eq!(rates(1), (0.5, 1.0));
}

#[test]
fn samples_may_be_taken_at_other_steps_in_other_cells() {
    let spec =
        read("[grid]\nk = [5, 10]\n[derive]\nwd = \"k/1000\"\n[measure]\nevery = \"k steps\"\n");
    let every = |cell| {
        let measure = spec.measure_in(CellIndex(cell)).expect("a cell");
        measure.every.clone()
    };
    let steps = |steps| SampleTimes::Every(Length::Steps(steps));
    assert_eq!((every(0), every(1)), (steps(5), steps(10)));
    assert_eq!(spec.grid.class_count(), 2);

    let plain = read("[measure]\nevery = \"5 steps\"\n");
    assert_eq!(
        format!("{:?}", plain.measure),
        format!("{:?}", spec.measure_in(CellIndex(0)).expect("a cell"))
    );
}

#[test]
fn a_number_of_the_file_is_preferred_to_a_field_derived_below() {
    let spec = read("wd = 0.5\n[derive]\nlr = \"wd*2\"\nwd = \"lr/4\"\nmomentum = \"wd\"\n");
    let train = config(&spec, 0).train;
    assert_eq!((train.lr, train.wd, train.momentum), (1.0, 0.25, 0.25));
}

#[test]
fn cells_that_expressions_make_equal_are_refused() {
    for rest in [
        "[case]\nA = { lr = \"k/10\" }\nB = { lr = 0.2 }\n[grid]\nk = [1, 2]\n",
        "[case]\nA = { lr = \"0.2/2\" }\nB = { lr = \"0.4/4\" }\n",
        "[grid]\nj = [1, 2]\nk = [1, 2]\n[case.x]\nwd = \"j*k\"\n",
    ] {
        let error = Spec::read_new(&source(rest, &[]))
            .expect_err(rest)
            .to_string();
        assert!(error.contains("resolve to the same trial"), "{error}");
    }
}

#[test]
fn every_defect_of_an_expression_is_named_with_its_line_and_remedy() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["lr=2*"], &["--set lr=2*: train.lr", "cannot read \"2*\""]),
        (&["lr=lrr"], &["train.lr", "nothing is called lrr"]),
        (&["lr=data.test"], &["train.lr", "data.test has no value"]),
        (
            &["train.epochs=5/2"],
            &["train.epochs", "whole number", "found 2.5", "use round(…)"],
        ),
        (&["train.epochs=1-1"], &["train.epochs", ">= 1", "found 0"]),
        (
            &["lr=wd/2", "wd=momentum", "momentum=lr"],
            &[
                "goes in a circle, train.lr → train.wd → train.optimizer.momentum → train.lr",
                "a number",
            ],
        ),
        (&["lr=lr"], &["circle, train.lr → train.lr"]),
        (
            &["train.schedule=[{ step = \"7/2\", lr = 0.1 }]"],
            &["train.schedule[0].step", "found 3.5", "use round(…)"],
        ),
        (
            &["train.schedule=[{ step = 3, lr = \"y*2\" }]"],
            &["train.schedule[0].lr", "nothing is called y"],
        ),
        (
            &["train.schedule=[{ step = 3, lr = \"0-1\" }]"],
            &["train.schedule[0].lr", ">= 0", "found -1"],
        ),
        (
            &[
                "train.schedule=[{ step = \"k\", lr = 1 }]",
                "grid.k=[5, 100]",
            ],
            &["train.schedule", "begins after 100 steps", "k=100"],
        ),
        (
            &["measure.every=k*10 steps", "grid.k=[0.15]"],
            &["measure.every", "found 1.5", "use round(…)"],
        ),
        (
            &["model={ kind = \"mlp\", hidden = { width = 64 } }"],
            &["model.hidden.depth", "this is needed"],
        ),
        (&["grid.lr=[\"k\"]"], &["grid.lr", "found 'k'"]),
        (
            &["case.A.norm=none"],
            &["case.A.norm", "did you mean 'model.norm'?"],
        ),
        (
            &["case.A.lr=k", "case.A.k=lr"],
            &["circle, train.lr → k → train.lr"],
        ),
    ];
    for (settings, words) in cases {
        let error = Spec::read_new(&source("", settings))
            .expect_err(settings[0])
            .to_string();
        for word in *words {
            assert!(error.contains(word), "{settings:?}\n{error}\nlacks {word}");
        }
    }
}

#[test]
fn mistakes_in_expressions_are_all_told_at_once() {
    let text = "wd = \"2*\"\nschedule = [{ step = \"y\", lr = 1 }]\n[grid]\nk = [1, 2]\nwidth = [1]\n[derive]\nmomentum = \"k+\"\n";
    let mistakes = Spec::read_new_naming_mistakes(&source(text, &[])).expect_err("mistakes");
    let paths: Vec<&str> = mistakes
        .as_slice()
        .iter()
        .map(|m| m.path.as_str())
        .collect();
    assert_eq!(
        paths,
        ["train.wd", "train.schedule[0].step", "derive.momentum"]
    );
}

#[test]
fn earlier_grammars_have_no_expressions_in_the_place_of_numbers() {
    let mut earlier = source("", &["lr=2*3"]);
    earlier.grammar = 2;
    let error = Spec::read_stored(&earlier)
        .expect_err("of version 3")
        .to_string();
    assert!(
        error.contains("train.lr: expected a finite number"),
        "{error}"
    );
    assert!(refusal("", &["data.dataset=1/2"]).contains("unknown value"));
}

#[test]
fn a_million_cells_with_expressions_are_read() {
    let spec = read_with(
        "[grid]\na = { linear = [1, 2], points = 1000 }\nb = { linear = [1, 2], points = 1000 }\n",
        &[
            "lr=a*b",
            "wd=a/b",
            "train.schedule=[{ step = 10, lr = \"lr*b\" }]",
        ],
    );
    assert_eq!(spec.grid.cell_count(), 1_000_000);
}

#[test]
fn what_older_programs_refuse_is_in_a_later_grammar() {
    let grammar = |text: &str| read(text).min_grammar();
    assert_eq!(grammar("[derive]\nwd = \"lr/4\"\n"), 1);
    assert_eq!(
        grammar("[grid]\nk = [1, 2]\n[derive]\nmomentum = \"0.1*wd\"\nwd = \"k/4\"\n"),
        3
    );

    let mlp = |hidden: &str| {
        let model = format!("model = {{ kind = \"mlp\", hidden = {hidden} }}");
        read_with("", &[&model]).min_grammar()
    };
    assert_eq!((mlp("[8, 8]"), mlp("{ width = 8, depth = 2 }")), (1, 3));
}
