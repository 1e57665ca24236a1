//! What `[scale]` means, and what is said of scales that mean nothing.

use super::tests::source;
use crate::Spec;
use crate::config::{Length, TrialConfig};
use crate::ids::{CellIndex, DatasetHash};
use crate::spec::scale::settings_with_scale;
use crate::spec::{SampleTimes, SpecSource};

const SCALES: &str = r#"
[grid]
lr = [0.1, 0.2, 0.4]
"model.norm" = ["batch", "none"]
[measure]
every = "1 epoch"
[scale.desk]
repeats = 2
data.train = 500
train.steps = 20
grid.lr = [0.1]
[scale.paper]
repeats = 100
[scale.paper.data]
train = 2000
test = 1000
[scale.paper.grid]
"train.lr" = { log = [0.01, 1.0], points = 3 }
model.norm = ["layer"]
[scale.paper.measure]
every = "2 epochs"
"#;

fn scaled(rest: &str, scale: Option<&str>, settings: &[&str]) -> SpecSource {
    let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
    let mut source = source(rest, &[]);
    source.settings = settings_with_scale(&settings, scale);
    source.with_settings_of_axes()
}

fn read(scale: Option<&str>, settings: &[&str]) -> Spec {
    Spec::read_new(&scaled(SCALES, scale, settings)).expect("a valid sweep")
}

fn config(spec: &Spec, cell: u64) -> TrialConfig {
    spec.grid
        .resolve_config(CellIndex(cell))
        .expect("a cell resolves")
}

fn refusal(rest: &str, scale: &str) -> String {
    Spec::read_new(&scaled(rest, Some(scale), &[]))
        .expect_err(rest)
        .to_string()
}

#[test]
fn a_scale_is_laid_over_the_file_and_without_one_the_file_holds() {
    let plain = read(None, &[]);
    assert_eq!((plain.repeats, plain.grid.cell_count()), (3, 6));
    assert_eq!(plain.scales.names, ["desk", "paper"]);
    assert_eq!(plain.scales.chosen, None);

    let desk = read(Some("desk"), &[]);
    assert_eq!((desk.repeats, desk.grid.cell_count()), (2, 2));
    assert_eq!(desk.scales.chosen.as_deref(), Some("desk"));
    assert_eq!(desk.scales.others().collect::<Vec<_>>(), ["paper"]);
    let trial = config(&desk, 0);
    // The length in steps replaces the one in epochs.
    assert_eq!(
        (trial.data.train, trial.train.length),
        (500, Length::Steps(20))
    );

    let paper = read(Some("paper"), &[]);
    let axes: Vec<&str> = paper.grid.axes().iter().map(|a| a.name.as_str()).collect();
    assert_eq!(
        (axes, paper.grid.cell_count()),
        (vec!["lr", "model.norm"], 3)
    );
    assert_eq!(paper.measure.every, SampleTimes::Every(Length::Epochs(2)));
    assert_eq!(config(&paper, 1).train.lr, 0.1);
    assert_eq!(config(&paper, 1).data.train, 2000);
}

#[test]
fn settings_override_the_scale_and_reach_into_scales() {
    let desk = read(
        Some("desk"),
        &["repeats=7", "scale.desk.data.train=400", "lr=0.3"],
    );
    let trial = config(&desk, 0);
    assert_eq!(
        (desk.repeats, trial.data.train, trial.train.lr),
        (7, 400, 0.3)
    );
}

#[test]
fn a_setting_of_the_length_replaces_the_one_in_the_other_unit() {
    for (scale, settings, length) in [
        (None, &["train.steps=7"][..], Length::Steps(7)),
        (Some("desk"), &["train.epochs=3"], Length::Epochs(3)),
        (
            None,
            &["train.steps=7", "train.epochs=3"],
            Length::Epochs(3),
        ),
        (None, &["scale.desk.repeats=5"], Length::Epochs(2)),
    ] {
        assert_eq!(
            config(&read(scale, settings), 0).train.length,
            length,
            "{settings:?}"
        );
    }
}

#[test]
fn a_stored_sweep_keeps_the_name_that_a_scale_gave_it() {
    let source = scaled("[scale.desk]\nname = \"small\"\n", Some("desk"), &[]);
    let stored = Spec::read_stored(&source).expect("it was accepted");
    assert_eq!(stored.name, "small");
    assert!(Spec::read_new(&source).is_err());
}

#[test]
fn a_claim_may_be_about_cells_that_a_scale_lacks_but_not_the_file() {
    let claims = |condition: &str| {
        format!(
            "[grid]\nlr = [0.1, 0.2, 0.4]\n[scale.desk]\ngrid.lr = [0.1]\n[scale.short]\ntrain.epochs = 1\n[[claim]]\nname = \"c\"\n\
             of = \"at(test_acc, end)\"\n{condition}\n"
        )
    };
    let lacks = |condition: &str, scale: Option<&str>, settings: &[&str]| {
        let source = scaled(&claims(condition), scale, settings);
        let spec = Spec::read_new(&source).map_err(|e| e.to_string())?;
        let lacking = spec.find_lacking_claims().into_iter();
        Ok::<_, String>(lacking.map(|(_, lack)| lack).collect::<Vec<_>>())
    };

    for (condition, lack) in [
        (
            "above = 0\nwhere = \"lr == 0.4\"",
            "no cell of the sweep meets 'lr == 0.4'",
        ),
        ("below = 2\nform = \"spread\"", "stands alone"),
        (
            "above = 0\nform = \"ratio\"\nto = \"lr == 0.1\"",
            "nothing is left to compare",
        ),
    ] {
        assert_eq!(lacks(condition, None, &[]), Ok(Vec::new()), "{condition}");
        assert_eq!(lacks(condition, Some("short"), &[]), Ok(Vec::new()));
        for (scale, settings) in [(Some("desk"), &[][..]), (None, &["lr=0.1"])] {
            let found = lacks(condition, scale, settings).expect("no mistake");
            assert!(found.len() == 1 && found[0].contains(lack), "{found:?}");
        }
    }

    // A name that is nowhere is a mistake at every scale, and so are cells that the file as it is lacks.
    let nowhere = lacks("above = 0\nwhere = \"lrr == 0.4\"", Some("desk"), &[]);
    assert!(nowhere.is_err_and(|e| e.contains("did you mean 'lr'?")));
    let nowhere = lacks(
        "above = 0\nwhere = \"lr == 0.3\"",
        None,
        &["repeats=5", "seed=2"],
    );
    assert!(nowhere.is_err_and(|e| e.contains("no cell of the sweep meets")));
}

#[test]
fn a_stored_sweep_needs_nothing_but_its_source() {
    let source = scaled(SCALES, Some("desk"), &[]);
    let stored = Spec::read_stored(&source).expect("it is in the source");
    assert_eq!((stored.repeats, stored.min_grammar()), (2, 3));

    let by_hand = "[grid]\nlr = [0.1]\n\"model.norm\" = [\"batch\", \"none\"]\n[measure]\nevery = \"1 epoch\"\n";
    let by_hand = scaled(by_hand, None, &["repeats=2", "data.train=500"]);
    let by_hand = SpecSource {
        text: by_hand.text.replace("epochs = 2", "steps = 20"),
        ..by_hand
    };
    assert_eq!(
        source.compute_meaning_hash(),
        by_hand.compute_meaning_hash()
    );
    let plain = Spec::read_new(&by_hand).expect("valid");
    let hash = |spec: &Spec| spec.compute_cell_hash(&config(spec, 1), DatasetHash::NONE);
    assert_eq!(hash(&stored), hash(&plain));
}

#[test]
fn tables_that_are_one_value_are_replaced() {
    let rest = "schedule = { kind = \"exponential\", factor = 0.9 }\n[case]\nA = { wd = 0.1 }\nB = { wd = 0.2 }\n\
                [scale.desk]\ntrain.schedule = { kind = \"cosine\" }\nmodel = { kind = \"mlp\", hidden = [8] }\n\
                case.A.momentum = 0.5\nmeasure.metrics = [\"test_acc\"]\n";
    let spec = Spec::read_new(&scaled(rest, Some("desk"), &[])).expect("valid");
    let trial = config(&spec, 0);
    assert_eq!((trial.train.momentum, trial.train.wd), (0.5, 0.1));
    assert_eq!(config(&spec, 1).train.momentum, 0.9);
    let curve = format!("{:?}", trial.train.curve);
    assert!(curve.contains("Cosine"), "{curve}");
}

#[test]
fn a_short_name_in_a_scale_is_the_field_or_its_axis() {
    let spec = Spec::read_new(&scaled("[scale.a]\nlr = 0.7\n", Some("a"), &[])).expect("valid");
    assert_eq!(config(&spec, 0).train.lr, 0.7);
    let axis = "[grid]\nlr = [0.1, 0.2]\n[scale.a]\nlr = 0.7\n";
    let spec = Spec::read_new(&scaled(axis, Some("a"), &[])).expect("valid");
    assert_eq!(
        (spec.grid.cell_count(), config(&spec, 0).train.lr),
        (1, 0.7)
    );
}

#[test]
fn every_defect_of_a_scale_is_named_with_its_line_and_remedy() {
    for (rest, scale, words) in [
        (
            SCALES,
            "dekk",
            &["--scale dekk: ", "no scale 'dekk', did you mean 'desk'?"][..],
        ),
        (
            "",
            "desk",
            &["--scale desk: ", "no scale 'desk'", "[scale.desk]"],
        ),
        (SCALES, "laptop", &["no scale 'laptop', known: desk, paper"]),
        ("[scale]\ndesk = 3\n", "desk", &["no scale 'desk'"]),
        (
            "[scale.desk]\ntrain.epoch = 3\n",
            "desk",
            &["sweep.toml:17: train.epoch", "did you mean 'epochs'?"],
        ),
        (
            "[scale.desk]\nrepaets = 3\n",
            "desk",
            &["sweep.toml:17: repaets", "did you mean 'repeats'?"],
        ),
        (
            "[derive]\nwd = \"lr/2\"\n[scale.desk]\nwd = 0.1\n",
            "desk",
            &[
                "sweep.toml:19: train.wd",
                "derive.train.wd decides this field",
            ],
        ),
        (
            "[case]\nA = { wd = 0.1 }\n[scale.desk]\nwd = 0.2\n",
            "desk",
            &[
                "sweep.toml:19: train.wd",
                "case.A.wd (line 17) decides this field",
            ],
        ),
    ] {
        let error = refusal(rest, scale);
        for word in words {
            assert!(error.contains(word), "{rest}\n{error}\nlacks {word}");
        }
    }

    for (rest, words) in [
        (
            "[scale]\ndesk = 3\n",
            &["sweep.toml:17: scale.desk", "[scale.desk]"][..],
        ),
        ("[scale.\"a b\"]\nrepeats = 2\n", &["scale.a b", "letters"]),
        (
            "[scale.desk]\nname = \"small\"\n",
            &["sweep.toml:17: scale.desk.name", "--set name=NAME"],
        ),
    ] {
        let error = Spec::read_new(&scaled(rest, None, &[]))
            .expect_err(rest)
            .to_string();
        for word in words {
            assert!(error.contains(word), "{rest}\n{error}\nlacks {word}");
        }
    }
}

#[test]
fn earlier_grammars_have_no_scales() {
    let mut earlier = source("[scale.desk]\nrepeats = 2\n", &[]);
    earlier.grammar = 2;
    let error = Spec::read_stored(&earlier)
        .expect_err("of version 3")
        .to_string();
    assert!(error.contains("unknown key 'scale'"), "{error}");
}

#[test]
fn a_table_that_sets_what_is_an_axis_or_derived_is_refused() {
    for (rest, words) in [
        (
            "[grid]\nmodel.width = [4, 8]\n[scale.a]\nmodel = { kind = \"cnn4\", width = 4 }\n",
            "grid.model.width decides this field",
        ),
        (
            "[grid]\nmomentum = [0.5, 0.9]\n[scale.a]\ntrain.optimizer = { kind = \"sgd\", momentum = 0.5 }\n",
            "grid.momentum decides this field",
        ),
        (
            "[derive]\n\"model.width\" = \"2*4\"\n[scale.a]\nmodel = { kind = \"cnn4\", width = 4 }\n",
            "derive.model.width decides this field",
        ),
    ] {
        let error = refusal(rest, "a");
        assert!(error.contains(words), "{rest}\n{error}");
    }

    // What the table does not name stays with the axis.
    let rest = "[grid]\nmodel.width = [4, 8]\n[scale.a]\nmodel = { kind = \"cnn4\" }\n";
    let spec = Spec::read_new(&scaled(rest, Some("a"), &[])).expect("valid");
    assert_eq!(spec.grid.cell_count(), 2);
}
