//! Sweeps of experiments: what they mean, and what is said of those that mean nothing.

use crate::Spec;
use crate::ids::{CellIndex, DatasetHash};
use crate::program::{Experiment, ProgramValue};
use crate::spec::SpecSource;
use crate::spec::misleading::refuse_misleading_sweep;

const FILE: &str = "name = \"t\"\nrepeats = 2\n[model]\nkind = \"custom:char-rnn\"\nmetrics = { loss = \"min\", seconds_of_step = \"volatile\" }\n\
                    width = 32\ntext = \"2 * x\"\n[grid]\nlr = [0.1, 0.25]\n";

fn source(text: &str, settings: &[&str]) -> SpecSource {
    SpecSource {
        file: "sweep.toml".into(),
        text: text.to_owned(),
        settings: settings.iter().map(|s| (*s).to_owned()).collect(),
        ..SpecSource::default()
    }
    .with_settings_of_axes()
}

fn read(text: &str, settings: &[&str]) -> Spec {
    Spec::read_new(&source(text, settings)).unwrap_or_else(|e| panic!("{e}"))
}

fn refusal(text: &str) -> String {
    match Spec::read_new(&source(text, &[])) {
        Ok(_) => panic!("this should be refused:\n{text}"),
        Err(error) => error.to_string(),
    }
}

/// The values of a cell as text.
fn values_of(spec: &Spec, cell: u64) -> String {
    let config = spec.grid.resolve_config(CellIndex(cell)).expect("a cell");
    let cell = config.model.kind.program().expect("an experiment");
    let values = cell.values.iter();
    let values = values.map(|(name, value)| format!("{name}={value}"));
    values.collect::<Vec<_>>().join(" ")
}

fn hash_of(spec: &Spec, cell: u64) -> crate::ids::CellHash {
    let config = spec.grid.resolve_config(CellIndex(cell)).expect("a cell");
    spec.compute_cell_hash(&config, DatasetHash::NONE)
}

#[test]
fn keys_of_the_model_and_axes_are_values_of_the_config() {
    let spec = read(
        &format!("{FILE}[derive]\nhalf = \"lr / 2\"\n[where]\nkeep = \"lr < 0.2\"\n"),
        &[],
    );
    assert_eq!(spec.grid.cell_count(), 1);
    assert_eq!(values_of(&spec, 0), "half=0.05 lr=0.1 text=2 * x width=32");
    assert_eq!(spec.min_grammar(), 4);

    let program = spec.program().expect("an experiment");
    let expected = Experiment {
        name: "char-rnn".into(),
        version: None,
    };
    assert_eq!(program.experiment, Some(expected));
    assert_eq!(program.metrics.len(), 2);
    assert!(spec.must_repeat_exactly() && program.command.is_empty());
    assert_eq!(spec.numerics, "custom/char-rnn");
}

#[test]
fn cases_axes_and_settings_take_the_place_of_constants() {
    let cases = FILE.replace(
        "[grid]\nlr = [0.1, 0.25]\n",
        "[case]\nA = { lr = 0.1, width = 8 }\nB = { lr = 0.2, width = 16 }\n",
    );
    assert_eq!(
        values_of(&read(&cases, &[]), 1),
        "lr=0.2 text=2 * x width=16"
    );
    let axis = format!("{FILE}width = [4, 8]\n");
    let spec = read(&axis, &[]);
    assert_eq!(spec.grid.cell_count(), 4);
    assert_eq!(values_of(&spec, 0), "lr=0.1 text=2 * x width=4");
    let spec = read(FILE, &["model.width=64", "lr=0.5"]);
    assert_eq!(values_of(&spec, 0), "lr=0.5 text=2 * x width=64");

    let overridden = Spec::read_new(&source(&axis, &["model.width=64"]));
    let error = overridden.expect_err("the axis decides").to_string();
    assert!(
        error.contains("decides this field in every cell"),
        "{error}"
    );
}

#[test]
fn the_version_enters_the_numerics_class_when_it_is_known() {
    let versioned = FILE.replace("metrics", "version = 3\nmetrics");
    assert_eq!(read(&versioned, &[]).numerics, "custom/char-rnn/3");

    let mut spec = read(FILE, &[]);
    let before = hash_of(&spec, 0);
    let setting = spec.pin_numerics("custom/char-rnn/7").expect("a class");
    assert_ne!(hash_of(&spec, 0), before);
    let stored = Spec::read_stored(&source(FILE, &[&setting])).expect("it is read again");
    assert_eq!(stored.numerics, "custom/char-rnn/7");
    assert_eq!(hash_of(&stored, 0), hash_of(&spec, 0));
    assert!(spec.pin_numerics("custom/char-rnn/x").is_err());
}

#[test]
fn the_identity_of_a_cell_is_its_config_and_metrics() {
    let spec = read(FILE, &[]);
    assert_ne!(hash_of(&spec, 0), hash_of(&spec, 1));
    let same = FILE.replace(
        "width = 32\ntext = \"2 * x\"",
        "text = \"2 * x\"\nwidth = 32.0",
    );
    assert_eq!(hash_of(&read(&same, &[]), 0), hash_of(&spec, 0));
    for (from, to) in [
        ("width = 32", "width = 33"),
        ("custom:char-rnn", "custom:other"),
        ("loss = \"min\"", "loss = \"max\""),
        ("width = 32", "width = 32\ndeterministic = false"),
    ] {
        let other = read(&FILE.replace(from, to), &[]);
        assert_ne!(hash_of(&other, 0), hash_of(&spec, 0), "{to}");
    }
    let said = FILE.replace("width = 32", "width = 32\ndeterministic = true");
    assert_eq!(hash_of(&read(&said, &[]), 0), hash_of(&spec, 0));
    let value = spec.grid.resolve_config(CellIndex(0)).expect("a cell");
    let value = value
        .model
        .kind
        .program()
        .and_then(|c| c.find_value("width").cloned());
    assert_eq!(value, Some(ProgramValue::Number(32.0)));
}

#[test]
fn wrong_fields_of_an_experiment_are_named_with_line_and_remedy() {
    for (from, to, expected) in [
        (
            "custom:char-rnn",
            "custom:Char",
            "sweep.toml:4: model.kind: 'Char' is no name of an experiment: write custom: and up to 40 small letters",
        ),
        (
            "metrics = { loss = \"min\", seconds_of_step = \"volatile\" }\n",
            "",
            "sweep.toml:3: model.metrics: which metrics does the program report? set metrics = {",
        ),
        (
            "loss = \"min\"",
            "loss = \"mim\"",
            "sweep.toml:5: model.metrics.loss: which values are better? Found 'mim', did you mean 'min'?",
        ),
        (
            "loss = \"min\"",
            "mean = \"min\"",
            "sweep.toml:5: model.metrics.mean: 'mean' is a column of tables: choose another name",
        ),
        (
            "width = 32",
            "version = 0",
            "sweep.toml:6: model.version: expected",
        ),
        (
            "width = 32",
            "width = [1, 2]",
            "sweep.toml:6: model.width: expected a number, a string, true or false",
        ),
        (
            "width = 32",
            "\"a b\" = 32",
            "sweep.toml:6: model.a b: 'a b' is no name for a value",
        ),
        (
            "lr = [",
            "loss = [",
            "sweep.toml:9: grid.loss: model.metrics has this name",
        ),
        (
            "lr = [",
            "\"model.width\" = [",
            "'model.width' is no name for a value",
        ),
        (
            "repeats = 2",
            "repeats = 2\nnumerics = \"cpu-f32\"",
            "sweep.toml:3: numerics: this experiment has the numerics class custom/char-rnn: remove numerics",
        ),
        (
            "repeats = 2",
            "repeats = { min = 2, max = 9, until = { metric = \"los\", ci95 = 0.1 } }",
            "sweep.toml:2: repeats.until.metric: model.metrics has no 'los', did you mean 'loss'?",
        ),
        (
            "repeats = 2\n[model]",
            "repeats = 2\naudit = 0.5\n[model]\ndeterministic = false",
            "audit: an audit compares results, which may differ between runs of this program: remove audit, or set model.deterministic",
        ),
        (
            "[grid]",
            "[data]\ntrain = 1\n[grid]",
            "sweep.toml:8: data: an experiment brings its own data: remove [data]",
        ),
        (
            "[grid]",
            "[train]\nlr = 1\n[grid]",
            "sweep.toml:8: train: an experiment trains by itself: remove [train]",
        ),
        (
            "[grid]",
            "[measure]\nevery = \"1 step\"\n[grid]",
            "sweep.toml:8: measure: an experiment measures what it declares: remove [measure]",
        ),
        (
            "[grid]",
            "[stage.a]\nrepeats = 1\n[grid]",
            "sweep.toml:8: stage: a program or experiment takes no weights of others",
        ),
    ] {
        assert!(FILE.contains(from), "{from}");
        let found = refusal(&FILE.replacen(from, to, 1));
        assert!(found.contains(expected), "{to}: {found}");
    }
}

#[test]
fn a_training_has_no_numerics_class_of_an_experiment() {
    let found = refusal(
        "name = \"t\"\nnumerics = \"custom/a/1\"\n[data]\ndataset = \"glyphs\"\n[model]\nkind = \"mlp\"\n[train]\nepochs = 1\nlr = 1\n",
    );
    assert!(
        found.starts_with("sweep.toml:2: numerics: this is the class of an experiment, which model.kind does not name"),
        "{found}"
    );
}

/// An experiment may see the repeat, and draw from streams that cannot be fixed: its repeats need not be copies.
#[test]
fn all_purposes_of_an_experiment_can_be_fixed() {
    let fixed = "repeats = 2\nseeds = { fixed = [\"init\", \"head\", \"order\", \"augment\"] }";
    let spec = read(&FILE.replace("repeats = 2", fixed), &[]);
    assert_eq!(
        refuse_misleading_sweep(&spec).map_err(|e| e.to_string()),
        Ok(())
    );
}

#[test]
fn an_experiment_is_no_axis_and_no_case() {
    let mut spec = read(FILE, &[]);
    spec.program = None;
    let found = spec.check_cells().expect_err("a refusal").to_string();
    assert!(
        found.contains(
            "model.kind: an experiment is named by [model] alone, so this is no axis and no case"
        ),
        "{found}"
    );
}

/// Without its experiment, a file would be one of a training, whose axes are fields.
#[test]
fn nothing_is_told_that_follows_from_a_wrong_experiment() {
    for (from, to) in [
        ("custom:char-rnn", "custom:Char"),
        ("loss = \"min\"", "loss = 1"),
    ] {
        let text = FILE.replace(from, to);
        let mistakes = Spec::read_new_naming_mistakes(&source(&text, &[])).expect_err("a mistake");
        assert_eq!(mistakes.as_slice().len(), 1, "{mistakes}");
    }
}
