//! What `[case]` means, and what is said of cases that mean nothing.

use super::tests::{refusal, source};
use crate::Spec;
use crate::config::{HyperparamChange, Length, ModelKind, TrialConfig};
use crate::ids::{CellIndex, DatasetHash};
use crate::spec_file::node::SpecValue;

fn read(rest: &str) -> Spec {
    Spec::read_new(&source(rest, &[])).expect("a valid sweep")
}

fn config(spec: &Spec, cell: u64) -> TrialConfig {
    spec.grid
        .resolve_config(CellIndex(cell))
        .expect("a cell resolves")
}

const EQUILIBRIUM: &str = r#"
[case]
A = { lr = 0.5, wd = 0.01, "train.schedule" = [{ step = 30, lr = 0.5 }] }
B = { lr = 0.5, wd = 0.1, train.schedule = [{ step = 30, lr = 0.05 }] }
C = { lr = 0.01, wd = 0.05 }
"#;

#[test]
fn cases_are_an_axis_of_bundles_in_the_order_of_the_file() {
    let spec = read(&format!(
        "{EQUILIBRIUM}[grid]\n\"model.norm\" = [\"none\", \"batch\"]\n"
    ));
    let axes: Vec<&str> = spec.grid.axes().iter().map(|a| a.name.as_str()).collect();
    assert_eq!(
        (axes, spec.grid.cell_count()),
        (vec!["case", "model.norm"], 6)
    );
    assert_eq!(spec.min_grammar(), 3);

    let labels: Vec<SpecValue> = (0..6)
        .map(|cell| spec.grid.axis_values(CellIndex(cell))[0].clone())
        .collect();
    assert_eq!(
        labels,
        ["A", "A", "B", "B", "C", "C"].map(|label| SpecValue::Str(label.into()))
    );

    let b = config(&spec, 3);
    assert_eq!((b.train.lr, b.train.wd), (0.5, 0.1));
    assert_eq!(b.train.schedule[0].from, Length::Steps(30));
    assert_eq!(b.train.schedule[0].lr, Some(HyperparamChange::Set(0.05)));
    let c = config(&spec, 4);
    assert_eq!((c.train.lr, c.train.schedule.len()), (0.01, 0));
}

#[test]
fn a_cell_is_what_it_resolves_to_whatever_its_case_is_called() {
    let hash = |rest: &str, cell| {
        let spec = read(rest);
        spec.compute_cell_hash(&config(&spec, cell), DatasetHash::NONE)
    };
    let in_case = "[case]\nA = { lr = 0.5 }\nbase = {}\n";
    assert_eq!(hash(in_case, 0), hash("[grid]\nlr = [0.5, 0.1]\n", 0));
    assert_eq!(hash(in_case, 1), hash("", 0));
}

#[test]
fn tables_are_merged_unless_they_are_the_value_of_a_field() {
    let spec = read(
        "[case.table.train]\nlr = 0.2\nschedule = { kind = \"cosine\" }\n[case.table.model.init]\nscale = 2.0\n\
         [case.net]\nmodel = { kind = \"mlp\", hidden = [8, 8] }\n\
         [case.plain]\ntrain.loss.label_smoothing = 0.1\nmomentum = 0.5\n",
    );
    let table = config(&spec, 0);
    assert_eq!((table.train.lr, table.model.init_scale), (0.2, 2.0));
    assert_eq!(table.train.batch_size, 32);
    assert!(table.train.curve.is_some());
    // A table with a kind replaces the whole one: the width of the other network is no key of this one.
    let mlp = ModelKind::Mlp { hidden: vec![8, 8] };
    assert_eq!(config(&spec, 1).model.kind, mlp);
    assert_eq!(config(&spec, 2).train.momentum, 0.5);
    assert_eq!(spec.grid.class_count(), 3);
}

#[test]
fn free_names_and_fields_of_cases_are_used_by_expressions() {
    let spec = read(
        "[case]\nA = { lr = 0.5, period = 10 }\nB = { period = 20 }\n[grid]\nk = [1, 2]\n\
         [derive]\nwd = \"1/(lr*period*k)\"\n[where]\nkeep = \"period*k != 20 || k == 1\"\n",
    );
    let cells: Vec<u64> = spec.grid.iter().map(|cell| cell.0).collect();
    assert_eq!(cells, [0, 2, 3]);
    let wd = |cell| config(&spec, cell).train.wd;
    assert_eq!((wd(0), wd(2), wd(3)), (1.0 / 5.0, 1.0 / 2.0, 1.0 / 4.0));
}

#[test]
fn a_case_moves_with_a_zipped_axis() {
    let spec = read(
        "[case]\nA = { lr = 0.5 }\nB = { lr = 0.2 }\n[grid]\nwd = [0.1, 0.2]\nmomentum = [0, 0.9]\n\
         zip = [[\"case\", \"wd\"]]\n",
    );
    assert_eq!(spec.grid.cell_count(), 4);
    let last = config(&spec, 3).train;
    assert_eq!((last.lr, last.wd, last.momentum), (0.2, 0.2, 0.9));
}

#[test]
fn cases_that_resolve_to_the_same_cell_are_refused_unless_another_field_differs() {
    for (rest, named) in [
        ("[case]\nA = { lr = 0.1 }\nB = {}\n", "case=A and case=B"),
        (
            "[case]\nA = { train.schedule = [{ epoch = 1, lr = \"x0.1\" }] }\nB = { train.schedule = [{ step = 31, lr = \"x0.10\" }] }\n",
            "case=A and case=B",
        ),
        (
            "[case]\nA = { k = 1 }\nB = { k = 2 }\n[grid]\nj = [1, 2]\n[derive]\nwd = \"k*j\"\n",
            "case=A, j=2 and case=B, j=1",
        ),
        (
            "[case]\nA = { model.norm = \"none\" }\nB = { model.norm = \"none\", model.norm_eps = 1e-3 }\n",
            "case=A and case=B",
        ),
    ] {
        let error = Spec::read_new(&source(rest, &[]))
            .expect_err(rest)
            .to_string();
        assert!(error.contains("resolve to the same trial"), "{error}");
        assert!(error.contains(named), "{error}");
    }

    let apart = "[case]\nA = { k = 1 }\nB = { k = 2 }\n[derive]\nwd = \"k\"\n";
    assert_eq!(read(apart).grid.cell_count(), 2);
}

#[test]
fn settings_reach_into_cases_and_none_is_without_effect() {
    let spec = Spec::read_new(&source(EQUILIBRIUM, &["case.A.lr=0.7"])).expect("valid");
    assert_eq!(config(&spec, 0).train.lr, 0.7);

    let error = refusal(EQUILIBRIUM, &["lr=0.7"]);
    assert!(
        error.contains("case.A.lr (line 18) decides this field in its cells"),
        "{error}"
    );
}

#[test]
fn the_order_of_cases_has_a_meaning_and_that_of_their_fields_has_none() {
    let meaning = |rest: &str| source(rest, &[]).compute_meaning_hash();
    let one = meaning("[case]\nA = { lr = 1, wd = 0 }\nB = { lr = 2, wd = 1 }\n");
    assert_eq!(
        one,
        meaning("[case]\nA = { wd = 0, lr = 1 }\nB = { lr = 2, wd = 1 }\n")
    );
    assert_ne!(
        one,
        meaning("[case]\nB = { lr = 2, wd = 1 }\nA = { lr = 1, wd = 0 }\n")
    );
}

#[test]
fn every_defect_of_a_case_is_named_with_its_line_and_remedy() {
    let cases: &[(&str, &[&str])] = &[
        ("[case]\n", &["case", "there is no case", "remove [case]"]),
        (
            "[case]\nA = 3\n",
            &["sweep.toml:17: case.A", "{ lr = 0.1 }", "found 3"],
        ),
        (
            "[case]\nA = { lr = 1 }\nA = { lr = 2 }\n",
            &["sweep.toml:18", "duplicate key"],
        ),
        (
            "[case]\n\" A\" = { lr = 1 }\n",
            &["label", "spaces at its ends"],
        ),
        (
            "[case]\n\"\" = { lr = 1 }\n",
            &["label", "1 to 64 characters"],
        ),
        (
            "[case]\nA = { lr = -1 }\n",
            &["sweep.toml:17: case.A.lr", ">= 0"],
        ),
        (
            "[case]\nA = { lr = 1, train.epoch = 2 }\n",
            &[
                "sweep.toml:17: case.A.train.epoch",
                "did you mean 'epochs'?",
            ],
        ),
        (
            "[case]\nA = { schedule = [{ step = 30, lr = 0.5 }] }\n",
            &[
                "case.A.schedule",
                "needs a number",
                "did you mean 'train.schedule'?",
            ],
        ),
        (
            "[case]\nA = { lrr = 1 }\n",
            &["case.A.lrr", "no expression", "did you mean 'lr'?"],
        ),
        (
            "[case]\nA = { k = 1 }\nB = { lr = 1 }\n[derive]\nwd = \"k\"\n",
            &[
                "sweep.toml:18: case.B",
                "k has no value here",
                "case A sets it (line 17)",
            ],
        ),
        (
            "[case]\nA = { lr = 1 }\n[grid]\nlr = [1, 2]\n",
            &[
                "sweep.toml:17: case.A.lr",
                "the axis lr of [grid] (line 19)",
                "keep one",
            ],
        ),
        (
            "[case]\nA = { train.schedule = { kind = \"cosine\" } }\n[grid]\ntrain.schedule.end = [0, 1]\n",
            &["case.A.train.schedule", "train.schedule.end", "keep one"],
        ),
        (
            "[case]\nA = { lr = 1 }\n[derive]\nlr = \"2\"\n",
            &[
                "sweep.toml:19: derive.lr",
                "case.A.lr (line 17) sets the same field",
            ],
        ),
        (
            "[case]\nA = { k = 1 }\n[grid]\nk = [1, 2]\n[derive]\nwd = \"k\"\n",
            &["case.A.k", "the axis k of [grid]"],
        ),
        (
            "[case]\nA = { lr = 1 }\n[grid]\ncase = [1, 2]\n",
            &["grid.case", "another name"],
        ),
        (
            "[case]\nA = { lr = 1, \"train.lr\" = 2 }\n",
            &["case.A.train.lr", "lr sets the same field"],
        ),
        (
            "[case]\nA = { measure.every = \"1 step\" }\n",
            &["case.A.measure", "no field of a trial", "found a table"],
        ),
        (
            "[case]\nA = { model.norm = \"none\" }\nB = {}\n[derive]\nwd = \"model.norm\"\n",
            &["derive.wd", "model.norm is no number in the case A"],
        ),
        (
            "[case]\nA = { data.test = 10 }\nB = {}\n[derive]\nwd = \"data.test\"\n",
            &[
                "derive.wd",
                "data.test has no value in the case B",
                "set data.test",
            ],
        ),
        (
            "[case]\nA = { \"measure.every\" = \"1 step\" }\n",
            &["case.A.measure.every", "data, model and train"],
        ),
        (
            "[case]\nA = { lr = 1 }\n[derive]\nwd = \"case\"\n",
            &["derive.wd", "the axis case has values that are not numbers"],
        ),
        (
            "[case]\nA = { batch_size = 2000 }\nB = {}\n",
            &["case.A.batch_size", "1000 training images"],
        ),
    ];
    for (rest, words) in cases {
        let error = Spec::read_new(&source(rest, &[]))
            .expect_err(rest)
            .to_string();
        for word in *words {
            assert!(error.contains(word), "{rest}\n{error}\nlacks {word}");
        }
    }
}

#[test]
fn what_a_case_lacks_is_told_with_the_case() {
    let mut lacking = source("[case]\nA = { lr = 0.1 }\nB = { wd = 0.1 }\n", &[]);
    lacking.text = lacking.text.replace("lr = 0.1\noptimizer", "optimizer");
    let error = Spec::read_new(&lacking).expect_err("no lr").to_string();
    assert!(
        error.contains("set train.lr") && error.contains("(in the case B)"),
        "{error}"
    );
}

#[test]
fn a_case_section_is_a_table() {
    let error = refusal("", &["case=3"]);
    assert!(
        error.contains("--set case=3: case: expected tables of fields"),
        "{error}"
    );
}

#[test]
fn earlier_grammars_have_no_cases() {
    let mut earlier = source(EQUILIBRIUM, &[]);
    earlier.grammar = 2;
    let error = Spec::read_stored(&earlier)
        .expect_err("of version 3")
        .to_string();
    assert!(
        error.contains("case: this exists since version 3"),
        "{error}"
    );
}

#[test]
fn mistakes_in_cases_are_all_told_at_once() {
    let text = "[case]\nA = { lr = -1, train.epoch = 3 }\nB = { lr = 2, wd = \"a\" }\nC = 3\n[grid]\n\"model.width\" = [0]\n";
    let mistakes = Spec::read_new_naming_mistakes(&source(text, &[])).expect_err("mistakes");
    let paths: Vec<&str> = mistakes
        .as_slice()
        .iter()
        .map(|m| m.path.as_str())
        .collect();
    assert_eq!(
        paths,
        [
            "case.A.train.epoch",
            "case.A.lr",
            "case.B.wd",
            "case.C",
            "grid.model.width"
        ]
    );
}
